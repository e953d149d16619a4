"""The networks of a study, before and after their training, and what each of them sees of an image."""

import torch
from torch import Tensor, nn

from .. import data, oracle, training
from ..models import backbone, pretrained
from ..study import Study
from .store import Step

ANEW = 1_000_000  # added to the seed of a last layer that is drawn anew


def inputs(study: Study, name: str, classifier_name: str | None = None) -> data.Inputs | None:
    """What a network of the study sees of an image: None, for the set's own mean and deviation, if it is trained here.

    With pretrained weights: the model's own preprocessing, changed by the network's ``inputs``; or, where the study's
    ``preprocessing`` is "released", what the authors' ``src/data_loaders.py`` does: both sides resized to the
    classifier's size, mean and deviation 0.5, and for an oracle of another size the nearest neighbour of each pixel.

    classifier_name : whose predictions it judges, if it is an oracle.
    """
    network = study.network(name)
    if network.weights is None:
        return None
    own = data.Inputs(**pretrained.inputs(network.model, network.args, network.weights) | network.inputs)
    if study.preprocessing == "own":
        return own
    size = own.size if classifier_name is None else inputs(study, classifier_name).size
    half = (0.5,) * len(own.mean)
    return data.Inputs(half, half, size, interpolation="bilinear", then=own.size if own.size != size else None)


def given_classifier(study: Study, name: str) -> nn.Module:
    """A classifier of the study with the weights its YAML names, in eval mode, on the CPU.

    Its last layer keeps the classes of the study's images, where these are fewer of ImageNet's.
    """
    network, wnids = study.network(name), study.images().wnids
    columns = pretrained.imagenet_columns(wnids) if wnids else None
    return pretrained.classifier(network.model, network.args, network.weights, columns)


def new_oracle(study: Study, pair: str, method: str, seed: int, own: Step, start: Step | None = None) -> oracle.Oracle:
    """An oracle before its training: a new head, and the weights it starts from; on the CPU.

    own : the classifier of the oracle's kind
    start : the oracle that the method starts from, if it does
    """
    network, settings = study.network(study.pair(pair)[0]), study.method(method)
    # The head's initial weights. With the same seed a new last layer would be what the oracle it replaces began with.
    torch.manual_seed(seed if settings.keep_last else seed + ANEW)
    net = oracle.Oracle(backbone.build_backbone(network.model, network.args), settings.head)
    oracle.initialise(net.backbone, own.tensors("weights."))
    if start:
        oracle.take_over(net, start.tensors("weights."), last=settings.keep_last)
    return net


def trained_oracle(
    study: Study, pair: str, method: str, trained: Step, own: Step, device: torch.device
) -> oracle.Oracle:
    """An oracle of the study with its trained weights, in eval mode.

    own : the classifier of the oracle's kind, whose backbone a frozen one is
    """
    network, settings = study.network(study.pair(pair)[0]), study.method(method)
    net = oracle.Oracle(backbone.build_backbone(network.model, network.args), settings.head)
    if settings.backbone == "frozen":
        oracle.initialise(net.backbone, own.tensors("weights."))
    oracle.take_over(net, trained.tensors("weights."), last=True)
    return net.to(device).eval()


def trained_classifier(study: Study, name: str, trained: Step, device: torch.device) -> nn.Module:
    """A classifier of the study with its trained weights, in eval mode."""
    network = study.network(name)
    net: oracle.Timm = backbone.build_backbone(network.model, network.args)
    if network.weights:
        net.reset_classifier(len(study.images().classes))
    net.load_state_dict(trained.tensors("weights."))
    return net.to(device).eval()


def observe(
    net: nn.Module, images: data.Batches, part: str, view: int = 0, *, among: Tensor | None = None, brief: bool = False
) -> dict[str, Tensor]:
    """All that is needed of a classifier for one view of a split, or of some images of it.

    brief : without logits (N, K) and features (N, d), which would not fit for a large set.
    """

    def outputs(x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        features, logits = backbone.classify(net, x)
        probability = logits.double().softmax(1)
        p_true = probability.gather(1, labels[:, None]).squeeze(1).float()
        small = logits.argmax(1) == labels, p_true, probability.amax(1)
        return small if brief else (*small, logits.float(), features.float())

    names = ("correct", "p_true", "mcp", "logits", "features")[: 3 if brief else 5]
    values = training.predict(outputs, images, part, view=view, among=among, labelled=True)
    return dict(zip(names, values, strict=True))


def has_noisy_statistics(net: nn.Module) -> bool:
    """Whether dropout comes before a batch norm, whose running statistics are then those of a noisier network."""
    noisy = False
    for module in net.modules():
        noisy = noisy or (isinstance(module, nn.Dropout) and module.p > 0)
        if noisy and isinstance(module, nn.BatchNorm2d):
            return True
    return False


def estimate_statistics(net: nn.Module, images: data.Images, among: Tensor) -> None:
    """Take the statistics of every batch norm anew, without dropout, from these training images, int64 (M,).

    Dropout changes the variance of what a batch norm sees while it learns (Li et al. 2019, "Understanding the
    disharmony between dropout and batch normalization by variance shift").
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    training.predict(net, images, "train", among=among)
    net.eval()
