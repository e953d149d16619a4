"""Image sets too large for memory, in folders as torchvision lays them out: ROOT/train/CLASS/*.JPEG, ROOT/val/CLASS/*.

The images are decoded when they are wanted, by worker processes where there are some, and travel as uint8: mirroring
and normalising are done on the device. The number of workers changes no bit of what comes out.
"""

import hashlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import floor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..runs import store
from .images import DataError, Inputs, _split, mirrored
from .images import root as data_root

LAYOUT = "ROOT/train/CLASS/*.JPEG and ROOT/val/CLASS/*.JPEG, the same classes in both"
INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
LOOK = Inputs((0.0,) * 3, (1.0,) * 3, size=224, crop=1.0, interpolation="bilinear")  # for pictures: the centre, cut out
CHECKED_TOGETHER = 64  # images, by one worker

Listing = dict[str, list[tuple[str, int]]]  # class -> (path relative to the root, bytes) of each image, all sorted


@dataclass(frozen=True, eq=False)
class Folder:
    """An image set on disk, with the methods of `data.Images`.

    paths : part -> files
    labels : part -> int64 (N,), 0 to K - 1
    classes : names of the K classes, in label order: the folders' names, sorted
    source : "the folder NAME"
    checksums : {"listing": SHA-256 over the lines "relative/path bytes" of all files used}. Contents are not read.
    damaged : files left out, relative to the root
    inputs : what `view` and `batches` make of an image; None until `seen_by`
    workers : decoding processes; 0 decodes in this one
    device : of the labels and of what the methods return

    Its `images` are decoded when they are indexed, as its inputs say; without inputs as `LOOK` does, for the eye.
    """

    paths: dict[str, tuple[str, ...]]
    labels: dict[str, Tensor]
    classes: tuple[str, ...]
    source: str
    checksums: dict[str, str]
    damaged: tuple[str, ...] = ()
    inputs: Inputs | None = None
    workers: int = 0
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (immutable)

    channels = 3

    @property
    def images(self) -> "dict[str, Pictures]":
        """part -> its pixels, as those of `data.Images`."""
        shown = self if self.inputs else self.seen_by(LOOK)
        return {part: Pictures(shown, part) for part in self.paths}

    @property
    def wnids(self) -> tuple[str, ...]:
        """The classes, where all are WordNet ids, as ImageNet's folders are named."""
        return self.classes if all(re.fullmatch(r"n\d{8}", name) for name in self.classes) else ()

    def to(self, device: torch.device | str) -> "Folder":
        """The same set with its labels, and all that it will make, on `device`."""
        return replace(
            self, labels={part: y.to(device) for part, y in self.labels.items()}, device=torch.device(device)
        )

    def seen_by(self, inputs: Inputs) -> "Folder":
        """The same set as a network with these inputs sees it.

        Raises
        ------
        ValueError : when they have no size, other than three channels, a crop outside (0, 1] or an unknown
            interpolation.
        """
        if not inputs.size:
            raise ValueError(f"the images of {self.source} differ in size: its inputs need one, found {inputs.size}")
        if not len(inputs.mean) == len(inputs.std) == 3:
            raise ValueError(f"images of {self.source} have 3 channels, found mean {inputs.mean}, std {inputs.std}")
        if inputs.crop is not None and not 0 < inputs.crop <= 1:
            raise ValueError(f"crop must be in (0, 1], found {inputs.crop}")
        if inputs.interpolation not in INTERPOLATIONS:
            raise ValueError(f"unknown interpolation {inputs.interpolation!r}; known: {', '.join(INTERPOLATIONS)}")
        return replace(self, inputs=inputs)

    def view(self, part: str, index: Tensor | slice, view: Tensor | int = 0) -> Tensor:
        """`data.Images.view`, decoded here: float32 (B, 3, S, S) on the device, S its inputs' `then` or size.

        Raises
        ------
        data.DataError : when a file is damaged or cannot be read.
        """
        return self._finished(self._decode(self._chosen(part, index)), view)

    def batches(self, part: str, index: Sequence[Tensor | slice], views: Sequence[Tensor | int]) -> Iterator[Tensor]:
        """`view` of one index and view after another, bit for bit, decoded ahead by the workers.

        A set without workers decodes each batch when it is asked for. No global random number is drawn.
        """
        if len(index) != len(views):
            raise ValueError(f"batches: expected a view for each of {len(index)} batches, found {len(views)}")
        chosen = (self._chosen(part, i) for i in index)
        pixels = _ahead(self._decode, chosen, self.workers, pin=self.device.type == "cuda")
        return map(self._finished, pixels, views)

    def pixels(self, part: str, index: Tensor | slice) -> Tensor:
        """uint8 (B, 3, S, S) on the device, 0 to 255: images as decoded, resized and cut to `inputs.size`."""
        return self._decode(self._chosen(part, index)).to(self.device)

    def _chosen(self, part: str, index: Tensor | slice) -> list[str]:
        paths = self.paths[part]
        return list(paths[index]) if isinstance(index, slice) else [paths[i] for i in index.tolist()]

    @property
    def _decode(self) -> Callable[[list[str]], Tensor]:
        if self.inputs is None:
            raise ValueError(f"{self.source} has no inputs yet: choose them with seen_by")
        return partial(_decode, inputs=self.inputs)

    def _finished(self, x: Tensor, view: Tensor | int) -> Tensor:
        """uint8 (B, 3, H, W) -> float32 on the device, mirrored where asked and normalised."""
        view = view.to(self.device) if isinstance(view, Tensor) else view
        return self.inputs.standardised(mirrored(x.to(self.device, non_blocking=True), view))


@dataclass(frozen=True)
class Pictures:
    """The images of a part of a folder, decoded when they are indexed, by a slice or int64 (B,): uint8 (B, 3, S, S)."""

    folder: Folder
    part: str

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.folder.paths[self.part]), self.folder.channels, *(self.folder.inputs.size,) * 2

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        return self.folder.pixels(self.part, index)


def load_folder(
    root: Path,
    *,
    heldout: int,
    workers: int = 0,
    damaged: Literal["error", "skip"] = "error",
    log: Callable[[str], None] = print,
) -> Folder:
    """The image set in `root`, which has torchvision's layout: `LAYOUT`.

    Files with other endings than torchvision's IMG_EXTENSIONS are ignored, and so are folders within a class's folder.

    Parameters
    ----------
    heldout : images of train/ that become the validation set, by a fixed random permutation; the rest is "train".
        val/ is "test", in a random order that is fixed too, so that its first images are a draw of all classes.
    workers : decoding processes of the set, and of the check.
    damaged : "error" raises when a damaged file is read. "skip" decodes all files once and leaves out the damaged
        ones, before the split. The outcome is kept in the data root, as checked/DIGEST.json: a listing is checked once.
    log : told how far the check is, ten times.

    Raises
    ------
    data.DataError : when a folder is missing, a class or a part is empty, train and val differ in their classes, too
        few images are left to train on, or a file cannot be read.
    ValueError : for a wrong argument.
    """
    if heldout < 0 or workers < 0:
        raise ValueError(f"heldout and workers must be >= 0, found {heldout} and {workers}")
    if damaged not in ("error", "skip"):
        raise ValueError(f'damaged must be "error" or "skip", found {damaged!r}')
    name = Path(os.path.abspath(root)).name
    listings = {folder: _list(root, folder) for folder in ("train", "val")}
    _require_complete(root, listings)
    digest, left_out = _digest(listings), ()
    if damaged == "skip":
        left_out = _find_damaged(root, listings, data_root() / "checked" / f"{digest}.json", workers, name, log)
    if left_out:
        out = set(left_out)
        listings = {
            folder: {c: [file for file in files if file[0] not in out] for c, files in listing.items()}
            for folder, listing in listings.items()
        }
        _require_complete(root, listings, "undamaged image")
        digest = _digest(listings)
    paths = {folder: [f"{root}/{path}" for path, _ in _files(listing)] for folder, listing in listings.items()}
    labels = {
        folder: torch.arange(len(listing)).repeat_interleave(torch.tensor([len(files) for files in listing.values()]))
        for folder, listing in listings.items()
    }
    n = len(paths["train"])
    if n < heldout + 1:
        raise DataError(f"{root}/train: expected more than the {heldout:,} images to hold out, found {n:,}")
    split = {part: ("train", rows) for part, rows in _split(n, heldout=heldout).items()}
    split["test"] = "val", _split(len(paths["val"]))["train"]
    return Folder(
        {part: tuple(paths[folder][i] for i in rows.tolist()) for part, (folder, rows) in split.items()},
        {part: labels[folder][rows] for part, (folder, rows) in split.items()},
        tuple(listings["train"]), f"the folder {name}", {"listing": digest}, left_out, workers=workers,
    )  # fmt: skip


def one_folder(root: Path, part: str, workers: int = 0) -> Folder:
    """The images in ``ROOT/CLASS/*.jpg`` as a set of one part, in the order of their paths.

    Raises
    ------
    data.DataError : when there is no folder of a class, or one without images.
    """
    root = Path(os.path.abspath(root))
    layout = f"Expected in {root}: CLASS/*.JPEG, a folder for each class"
    listing = _list(root.parent, root.name, layout)
    if empty := [name for name, files in listing.items() if not files]:
        raise DataError(f"{root}: no image for {_first_five(empty)}. {layout}")
    labels = torch.arange(len(listing)).repeat_interleave(torch.tensor([len(files) for files in listing.values()]))
    paths = tuple(f"{root.parent}/{path}" for path, _ in _files(listing))
    digest = _digest({part: listing})
    return Folder(
        {part: paths}, {part: labels}, tuple(listing), f"the folder {root.name}", {"listing": digest}, workers=workers
    )


# --- What is there ---


def _list(root: Path, folder: str, layout: str = "") -> Listing:
    from torchvision.datasets.folder import IMG_EXTENSIONS

    def images(path: str) -> Iterator[os.DirEntry]:
        return (entry for entry in os.scandir(path) if entry.name.lower().endswith(IMG_EXTENSIONS))

    layout = layout or f"Expected in {root}: {LAYOUT}"
    path, listing = f"{root}/{folder}", {}
    try:
        for name in sorted(entry.name for entry in os.scandir(path) if entry.is_dir()):
            files = [entry for entry in images(f"{path}/{name}") if not entry.is_dir()]
            listing[name] = sorted((f"{folder}/{name}/{file.name}", file.stat().st_size) for file in files)
        loose = 0 if listing else sum(1 for _ in images(path))
    except OSError as error:
        raise DataError(
            f"{error.filename}: {error.strerror}. {layout}; put the images there, or correct the path"
        ) from None
    if not listing:
        found = f"{loose:,} images outside of any" if loose else "no images at all"
        raise DataError(f"{path}: expected a folder for each class, found {found}. {layout}")
    return listing


def _files(*listings: Listing) -> Iterator[tuple[str, int]]:
    return (file for listing in listings for files in listing.values() for file in files)


def _require_complete(root: Path, listings: dict[str, Listing], image: str = "image") -> None:
    """DataError when a class is only in one of train and val, or has no image in one of them."""
    for folder, other in (("val", "train"), ("train", "val")):
        if more := sorted(set(listings[folder]) - set(listings[other])):
            raise DataError(
                f"{root}/{folder} has classes that {other} lacks: {_first_five(more)}. Expected in {root}: {LAYOUT}"
            )
    for folder, listing in listings.items():
        if empty := [name for name, files in listing.items() if not files]:
            raise DataError(
                f"{root}/{folder}: no {image} for {_first_five(empty)}; put images into these folders, or remove the "
                "classes from both train and val"
            )


def _first_five(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names):,} in all)" if len(names) > 5 else "")


def _digest(listings: dict[str, Listing]) -> str:
    digest = hashlib.sha256()
    for path, size in _files(*listings.values()):
        digest.update(os.fsencode(f"{path} {size}\n"))
    return digest.hexdigest()


def _find_damaged(
    root: Path, listings: dict[str, Listing], known: Path, workers: int, name: str, log: Callable[[str], None]
) -> tuple[str, ...]:
    """The files that do not decode, relative, in order; read from `known` where it is there, else written to it."""
    try:
        return tuple(json.loads(known.read_text())["damaged"])
    except FileNotFoundError:
        known.parent.mkdir(parents=True, exist_ok=True)  # it would be late to fail after the check
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{known} is damaged; delete it, and {name} is checked again") from None
    files = [path for path, _ in _files(*listings.values())]
    chunks = [files[i : i + CHECKED_TOGETHER] for i in range(0, len(files), CHECKED_TOGETHER)]
    damaged, tenths = [], 0
    for done, found in enumerate(_ahead(partial(_damaged_among, root=root), chunks, workers), 1):
        damaged += found
        if 10 * done // len(chunks) > tenths:
            tenths = 10 * done // len(chunks)
            log(f"{name}: {tenths}0 % of {len(files):,} images checked, {len(damaged):,} damaged")
    store.write_json(known, {"source": f"the folder {name}", "files": len(files), "damaged": damaged})
    return tuple(damaged)


def _damaged_among(files: list[str], root: Path) -> list[str]:
    return [file for file in files if _is_damaged(f"{root}/{file}")]


# --- Decoding ---


class _Damaged(DataError):
    """A file was read, but holds no whole image."""


def _decode(paths: list[str], inputs: Inputs) -> Tensor:
    """uint8 (B, 3, S, S)."""
    pixels = np.empty((len(paths), 3, inputs.size, inputs.size), np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        row[:] = np.asarray(_fitted(_rgb(path), inputs)).transpose(2, 0, 1)
    return torch.from_numpy(pixels)


def _rgb(path: str) -> Image.Image:
    # Read apart from decoding: a disk that fails must not pass for a damaged image, which may be left out for good.
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}), though it was listed") from None
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except MemoryError:
        raise
    except UnidentifiedImageError:  # its text has an address in memory
        why = "no image" if content else "empty"
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error and more
        why = str(error)
    raise _Damaged(
        f"{path} is damaged ({why}): replace it, or say `damaged: skip` in the study's YAML, which leaves such files "
        "out and counts them"
    )


def _is_damaged(path: str) -> bool:
    try:
        _rgb(path)
    except _Damaged:
        return True
    return False


def _fitted(image: Image.Image, inputs: Inputs) -> Image.Image:
    """Resized and cut to size x size, as torchvision's Resize and CenterCrop do it to the last bit."""
    size, method = inputs.size, INTERPOLATIONS[inputs.interpolation]
    if inputs.crop is None:
        return image.resize((size, size), method)
    short, (w, h) = floor(size / inputs.crop), image.size
    w, h = (short, int(short * h / w)) if w <= h else (int(short * w / h), short)
    left, top = round((w - size) / 2), round((h - size) / 2)
    return image.resize((w, h), method).crop((left, top, left + size, top + size))


# --- Worker processes ---


class _Work(Dataset):
    """What a worker makes of a list of paths; a DataError is handed over, since DataLoader would wrap a raised one."""

    def __init__(self, function: Callable[[list[str]], Any]):
        self.function = function

    def __getitem__(self, paths: list[str]) -> Any:
        try:
            return self.function(paths)
        except DataError as error:
            return error


def _ahead(
    function: Callable[[list[str]], Any], lists: Iterable[list[str]], workers: int, pin: bool = False
) -> Iterator[Any]:
    """`function` of each list of paths, in order, made ahead by `workers` processes; by this one when 0."""
    if not workers:
        yield from map(function, lists)
        return
    # Forked on Linux, whatever Python's default: a spawned worker imports torch again, seconds in each call. Forking is
    # safe after the parent has used its threads and GPU, since a worker uses neither: it runs PIL and numpy in the one
    # thread that DataLoader leaves it. Elsewhere the system's own default, for macOS forbids it.
    context = "fork" if sys.platform == "linux" else None
    # The lists themselves are what the loader hands out: no worker holds, and none is sent, all the set's paths.
    # A generator of its own: DataLoader would draw a seed from the global one, and training be another with workers.
    loader = DataLoader(
        _Work(function), batch_size=None, sampler=lists, num_workers=workers, pin_memory=pin,
        generator=torch.Generator(), multiprocessing_context=context,
    )  # fmt: skip
    for result in loader:
        if isinstance(result, DataError):
            raise result
        yield result
