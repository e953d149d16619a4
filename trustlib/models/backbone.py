"""Backbones from timm."""

import difflib
from typing import Any

import torch
from torch import Tensor, nn

from ..oracle import Timm


def build_backbone(model: str, args: dict | None = None) -> nn.Module:
    """A freshly initialised timm model, its weights drawn from torch's global generator.

    Convolutional ones keep their weights with the channels last, the layout that convolutions are quicker in.

    Parameters
    ----------
    model : name in timm.
    args : keyword arguments of that model, such as ``in_chans`` and ``num_classes``.

    Raises
    ------
    ValueError : as `pretrained_config`; or when the model does not know an argument.
    """
    import timm  # here, since it takes seconds and what reads finished runs needs none of it

    pretrained_config(model)
    try:
        net = timm.create_model(model, pretrained=False, **(args or {}))
    except TypeError as error:
        raise ValueError(f"backbone {model!r} does not take these arguments: {error}") from None
    convolutions = sum(isinstance(module, nn.Conv2d) for module in net.modules())
    return net.to(memory_format=torch.channels_last) if convolutions > 1 else net  # a ViT has one, of its patches


def pretrained_config(model: str) -> dict[str, Any]:
    """What timm says of a model's pretrained weights: where they lie, the images they want; defaults where it has none.

    Raises
    ------
    ValueError : when timm does not know the model or, after a dot, the weights; the message names what is near.
    """
    import timm

    from . import cifar, confidnet  # noqa: F401 (they add their networks to timm's)

    if not timm.is_model(model):
        near = difflib.get_close_matches(model, timm.list_models(), n=3)
        raise ValueError(
            f"unknown backbone {model!r}: timm has no such model" + (f"; near: {', '.join(near)}" if near else "")
        )
    try:
        return (timm.get_pretrained_cfg(model) or timm.models.PretrainedCfg()).to_dict()
    except RuntimeError:
        known = ", ".join(timm.list_pretrained(f"{model.partition('.')[0]}.*")) or "none"
        raise ValueError(f"timm has no weights {model}; known: {known}") from None


def classify(classifier: Timm, x: Tensor) -> tuple[Tensor, Tensor]:
    """A classifier's penultimate features (B, d) and logits (B, K) in one pass, images (B, C, H, W) in."""
    features = classifier.forward_head(classifier.forward_features(x), pre_logits=True)
    return features, classifier.get_classifier()(features)


def leave_dropout_on(model: nn.Module) -> bool:
    """Put a model in eval mode but for its dropout, as MC dropout (Gal and Ghahramani 2016) asks; has it any?

    timm's convolutional networks call dropout before the classifier as a function that asks the model's own mode, so
    that the model itself, but none of its other parts, is left in training mode.
    """
    model.eval()
    layers = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.p > 0]
    for module in layers:
        module.train()
    model.training = True
    return bool(layers) or getattr(model, "drop_rate", 0) > 0


def parameters(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
