"""Distribution shifts: what a corruption, a style or an attack makes of test images; `names` lists them."""

import hashlib
import importlib.metadata
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .. import data
from . import corruptions, recolor, stylize
from .names import CORRUPTED, MNIST_C, NORMALISED, RECOLOR, STYLIZED, Domain, corruption_label, parse  # noqa: F401

IMAGENET = "imagenet"  # the data set whose validation images others have published in these domains, a folder a class
FOLDERS = {
    CORRUPTED: ("ImageNet-C", "the released files of ImageNet-C"),
    STYLIZED: ("Stylized-ImageNet/val", "Stylized-ImageNet"),
}
STYLE_SEED = 0  # of the donors of amplitude spectra
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # torchvision's


def origin(dataset: str, name: str) -> tuple[str, dict[str, str]]:
    """How a domain is made of a data set: (a phrase for a report, file -> SHA-256 of what it is made from).

    Of a folder the checksum is that of the names and sizes in it.

    Raises
    ------
    data.DataError : when a file that it needs is not there; the message says where it was looked for.
    """
    domain = parse(name)
    if domain.kind == RECOLOR:
        return "ReColorAdv on the classifier, our own implementation", {}
    if domain.kind == NORMALISED:
        return "the images as they are, normalised by ImageNet's mean and deviation", {}
    folder, text = _folder(dataset, domain)
    if folder:
        return text, {folder.name: _listing(folder, folder.stat().st_mtime_ns)}
    if domain.kind == STYLIZED:
        return "the fine Fourier amplitudes of an image of another class; no paintings, no network", {}
    path, text = _file(dataset, domain)
    if path is None:
        return f"the package imagecorruptions-imaug {importlib.metadata.version('imagecorruptions-imaug')}", {}
    return text, {path.name: _sha256(path, path.stat().st_mtime_ns)}


def check(images: data.Images, name: str, count: int) -> None:
    """ValueError when a domain cannot be made of so many of these test images, or of images of their kind."""
    domain, (there, channels, *_) = parse(name), images.images["test"].shape
    if count > there:
        raise ValueError(f"domain {name}: {count:,} images are asked for, the test set has {there:,}; ask for fewer")
    if channels != 3 and (domain.kind == NORMALISED or (domain.kind == RECOLOR and domain.what)):
        raise ValueError(f"domain {name}: ImageNet's mean and deviation are of three channels, found {channels}")


def make(
    images: data.Images,
    dataset: str,
    name: str,
    count: int,
    *,
    files: Sequence[Path] = (),
    classifier: Callable[[Tensor], Tensor] | None = None,
    log: Callable[[str], None] = print,
) -> tuple[Tensor, dict]:
    """The first images of the test set as they are in a domain.

    Parameters
    ----------
    images : on the device that is to work; a `folders.Folder` as the classifier sees it.
    dataset : a name of `data.DATASETS`, "folder", or `IMAGENET`.
    count : how many.
    files : of ImageNet, where each test image came from, ``CLASS/NAME`` at its end: so others name their version of it.
    classifier : for an attack: images (B, C, H, W), standardised as `data.Images.view` does, to logits (B, K).

    Returns
    -------
    images : uint8 (N, C, H, W) on the CPU; float32 on the scale 0 to 255, not rounded, for an attack, and beyond that
        range under the released normalisation, so that `view` gives what that normalisation would.
    facts : how they were made, for a manifest.

    Raises
    ------
    data.DataError : when a file that it needs is missing or has other contents than expected.
    ValueError : as `check`.
    """
    check(images, name, count)
    domain, clean, labels = parse(name), images.images["test"][:count], images.labels["test"][:count]
    facts = {"how": origin(dataset, name)[0]}
    if domain.kind == RECOLOR:
        made, attacked = _recolored(images, domain, clean, labels, classifier, log)
        return made, facts | attacked
    if domain.kind == NORMALISED:
        return (255 * _as_seen(images, clean.float() / 255, *_normalisation(images, released=True))).cpu(), facts
    folder, _ = _folder(dataset, domain)
    if folder:
        names, classes = [path.name for path in files[:count]], [path.parent.name for path in files[:count]]
        height, width = images.images["test"].shape[2:]
        return stylize.from_folder(folder, names, classes, (height, width)), facts
    if domain.kind == STYLIZED:
        donors = stylize.draw_donors(labels.cpu(), images.labels["train"].cpu(), STYLE_SEED)
        chunks = zip(clean.split(500), donors.split(500), strict=True)
        return torch.cat([stylize.swap_amplitude(x, images.images["train"][d]).cpu() for x, d in chunks]), facts
    path, _ = _file(dataset, domain)
    if path:
        return _released(path, domain, clean), facts
    made = corruptions.corrupt(clean.cpu().numpy(), domain.what, domain.severity, log=log)
    return torch.from_numpy(made), facts


def _folder(dataset: str, domain: Domain) -> tuple[Path | None, str]:
    """(a folder of the data root with this domain's images as others made them, a phrase for it); None without one."""
    if dataset != IMAGENET or domain.kind not in FOLDERS:
        return None, ""
    name, text = FOLDERS[domain.kind]
    path = data.root() / name / (f"{domain.what}/{domain.severity}" if domain.severity else "")
    return (path, text) if path.is_dir() else (None, "")


def _file(dataset: str, domain: Domain) -> tuple[Path | None, str]:
    """(the file of the data root that a domain is read from, a phrase for it); None where it needs none.

    Raises
    ------
    data.DataError : when it needs one that is not there.
    """
    if domain.kind == CORRUPTED:
        path = data.root() / "CIFAR-10-C" / f"{domain.what}.npy"
        found = dataset == "cifar10" and path.exists()
        return (path, "the released files of CIFAR-10-C") if found else (None, "")
    path, text = data.root() / "mnist_c" / domain.what / "test_images.npy", "the released files of MNIST-C"
    if dataset != "mnist":
        raise data.DataError(f"domain {domain.name}: MNIST-C is made of MNIST's test images, not of {dataset}")
    if not path.exists():
        raise data.DataError(f"domain {domain.name}: no file {path}; put it there, or set TRUST_DATA to another root")
    return path, text


@lru_cache
def _sha256(path: Path, _: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache
def _listing(folder: Path, _: int) -> str:
    lines = sorted(f"{file.relative_to(folder)} {file.stat().st_size}" for file in folder.rglob("*") if file.is_file())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _released(path: Path, domain: Domain, clean: Tensor) -> Tensor:
    """The rows of a released array (N or 5 N, H, W, C) that belong to the first test images."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError) as error:
        raise data.DataError(f"{path} is damaged or no array ({error}); delete it and download it again") from None
    count, channels, *size = clean.shape
    severities = len(corruptions.SEVERITIES) if domain.severity else 1
    rows = len(array) // severities
    if array.dtype != np.uint8 or array.shape[1:] != (*size, channels) or len(array) % severities or rows < count:
        expected = f"uint8 ({severities} x at least {count}, {size[0]}, {size[1]}, {channels})"
        raise data.DataError(f"{path}: expected {expected}, found {array.dtype} {array.shape}")
    first = rows * max(domain.severity - 1, 0)
    return torch.from_numpy(array[first : first + count].transpose(0, 3, 1, 2).copy())


def _recolored(
    images: data.Images,
    domain: Domain,
    clean: Tensor,
    labels: Tensor,
    classifier: Callable[[Tensor], Tensor],
    log: Callable[[str], None],
) -> tuple[Tensor, dict]:
    mean, std = _normalisation(images, released=bool(domain.what))
    found = recolor.attack(lambda x: classifier((x - mean) / std), clean, labels, log=log)
    seen = _as_seen(images, found.images.to(clean.device), mean, std)
    facts = {
        "loss": [round(value, 4) for value in found.loss.tolist()],
        "displacement": found.displacement.max().item(),
        "smoothness": found.smoothness.mean().item(),
    }
    return (255 * seen).cpu(), facts


def _normalisation(images: data.Images, *, released: bool) -> tuple[Tensor, Tensor]:
    """(mean, deviation) of the networks' inputs, (1, 1, 1) or (C, 1, 1): the study's own or ImageNet's."""
    if released:
        values = IMAGENET_MEAN, IMAGENET_STD
    elif images.inputs:
        values = images.inputs.mean, images.inputs.std
    else:
        values = ([value] for value in images.mean_and_std)
    device = images.labels["test"].device
    mean, std = (torch.tensor(v, dtype=torch.float32, device=device)[:, None, None] for v in values)
    return mean, std


def _as_seen(images: data.Images, x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """What the study's own normalisation must be given, so that a network sees (x - mean) / std; x in [0, 1]."""
    own_mean, own_std = _normalisation(images, released=False)
    return (x - mean) / std * own_std + own_mean
