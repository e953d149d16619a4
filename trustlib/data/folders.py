"""Image sets too large for memory, in folders as torchvision lays them out: ROOT/train/CLASS/*.JPEG, ROOT/val/CLASS/*.

The images are decoded when they are wanted, by worker processes where there are some, and travel as uint8: mirroring
and normalising are done on the device. The number of workers changes no bit of what comes out.
"""

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import floor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset, pil_loader
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from .images import DataError, Inputs, _split, mirrored

LAYOUT = "train/CLASS/*.JPEG and val/CLASS/*.JPEG, the same classes in both"
LOOK = Inputs((0.0,) * 3, (1.0,) * 3, size=224, crop=1.0, interpolation="bilinear")  # for pictures: the centre, cut out

Samples = list[tuple[str, int]]  # path and label of each image


@dataclass(frozen=True, eq=False)
class Folder:
    """An image set on disk, with the methods of `data.Images`.

    paths : part -> files
    labels : part -> int64 (N,), 0 to K - 1
    classes : names of the K classes, in label order: the folders' names, sorted
    source : "the folder NAME"
    checksums : {"listing": SHA-256 over the lines "relative/path bytes" of all files used}. Contents are not read.
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
        ValueError : when they have no size, or a crop outside (0, 1].
        """
        if not inputs.size or (inputs.crop is not None and not 0 < inputs.crop <= 1):
            raise ValueError(
                f"the images of {self.source} differ in size: its inputs need one size, and a crop in (0, 1] or none, "
                f"found {inputs.size} and {inputs.crop}"
            )
        return replace(self, inputs=inputs)

    def view(self, part: str, index: Tensor | slice, view: Tensor | int = 0) -> Tensor:
        """`data.Images.view`, decoded here: float32 (B, 3, S, S) on the device, S its inputs' `then` or size.

        Raises
        ------
        data.DataError : when a file cannot be read.
        """
        return self._finished(self._decode(self._chosen(part, index)), view)

    def batches(self, part: str, index: Sequence[Tensor | slice], views: Sequence[Tensor | int]) -> Iterator[Tensor]:
        """`view` of one index and view after another, bit for bit, decoded ahead by the workers.

        A set without workers decodes each batch when it is asked for. No global random number is drawn. An image that
        cannot be read raises as in `view`.
        """
        chosen = (self._chosen(part, i) for i in index)
        pixels = _ahead(self._decode, chosen, self.workers, pin=self.device.type == "cuda")
        return (self._finished(x, view) for x, view in zip(pixels, views, strict=True))

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


def load_folder(root: Path, *, heldout: int, workers: int = 0) -> Folder:
    """The image set in ``root/train/CLASS/*.JPEG`` and ``root/val/CLASS/*.JPEG``, as torchvision lists it.

    Parameters
    ----------
    heldout : images of train/ that become the validation set, by a fixed random permutation; the rest is "train".
        val/ is "test", in a random order that is fixed too, so that its first images are a draw of all classes.
    workers : decoding processes of the set.

    Raises
    ------
    data.DataError : when a folder or an image is missing, a class has no image, train and val differ in their classes,
        or too few images are left to train on.
    """
    classes, samples, digest = _listed(root, ("train", "val"), LAYOUT)
    n = len(samples["train"])
    if n <= heldout:
        raise DataError(f"{root}/train: expected more than the {heldout:,} images of the validation set, found {n:,}")
    parts = {part: [samples["train"][i] for i in rows.tolist()] for part, rows in _split(n, heldout=heldout).items()}
    parts["test"] = [samples["val"][i] for i in _split(len(samples["val"]))["train"].tolist()]
    return _set(parts, classes, Path(os.path.abspath(root)).name, digest, workers)


def one_folder(root: Path, part: str, workers: int = 0) -> Folder:
    """The images in ``root/CLASS/*.jpg`` as a set of one part, in the order of their paths.

    Raises
    ------
    data.DataError : when there is no folder of a class, or one without images.
    """
    root = Path(os.path.abspath(root))
    classes, samples, digest = _listed(root.parent, (root.name,), f"{root.name}/CLASS/*.JPEG")
    return _set({part: samples[root.name]}, classes, root.name, digest, workers)


def _listed(root: Path, folders: Sequence[str], layout: str) -> tuple[list[str], dict[str, Samples], str]:
    """(classes, samples of each folder, SHA-256 over the lines "relative/path bytes" of all of them), all sorted."""
    root = Path(os.path.abspath(root))
    samples, digest, prefix = {}, hashlib.sha256(), os.path.join(root, "")
    try:
        (classes, number), *others = (find_classes(root / folder) for folder in folders)
        for other, _ in others:
            if differing := sorted(set(classes) ^ set(other)):
                raise DataError(
                    f"{root}: {len(differing):,} classes are in one part only, such as {differing[0]}. Expected there: "
                    f"{layout}"
                )
        for folder in folders:
            samples[folder] = make_dataset(root / folder, number, IMG_EXTENSIONS)
            for path, _ in samples[folder]:
                digest.update(os.fsencode(f"{path.removeprefix(prefix)} {os.path.getsize(path)}\n"))
    except OSError as error:
        what = (
            f"there is no {error.filename}" if isinstance(error, FileNotFoundError) and error.filename else str(error)
        )
        raise DataError(f"{what}. Expected in {root}: {layout}; put the images there, or correct the path") from None
    return classes, samples, digest.hexdigest()


def _set(parts: dict[str, Samples], classes: list[str], name: str, digest: str, workers: int) -> Folder:
    return Folder(
        {part: tuple(path for path, _ in samples) for part, samples in parts.items()},
        {part: torch.tensor([y for _, y in samples], dtype=torch.int64) for part, samples in parts.items()},
        tuple(classes), f"the folder {name}", {"listing": digest}, workers=workers,
    )  # fmt: skip


def _decode(paths: list[str], inputs: Inputs) -> Tensor:
    """uint8 (B, 3, S, S)."""
    pixels = np.empty((len(paths), 3, inputs.size, inputs.size), np.uint8)
    for row, path in zip(pixels, paths, strict=True):
        row[:] = np.asarray(_fitted(_rgb(path), inputs)).transpose(2, 0, 1)
    return torch.from_numpy(pixels)


def _rgb(path: str) -> Image.Image:
    try:
        return pil_loader(path)
    except Exception as error:  # PIL raises OSError, SyntaxError, ValueError, struct.error and more
        raise DataError(f"{path} cannot be read as an image ({error}): replace the file, or remove it") from None


def _fitted(image: Image.Image, inputs: Inputs) -> Image.Image:
    """Resized and cut to size x size."""
    size, method = inputs.size, InterpolationMode(inputs.interpolation)
    if inputs.crop is None:
        return functional.resize(image, [size, size], method)
    return functional.center_crop(functional.resize(image, [floor(size / inputs.crop)], method), [size, size])


class _Work(Dataset):
    """What a worker makes of a list of paths; a DataError is handed over, since DataLoader would wrap a raised one."""

    def __init__(self, function: Callable[[list[str]], Tensor]):
        self.function = function

    def __getitem__(self, paths: list[str]) -> Tensor | DataError:
        try:
            return self.function(paths)
        except DataError as error:
            return error


def _ahead(
    function: Callable[[list[str]], Tensor], lists: Iterable[list[str]], workers: int, pin: bool
) -> Iterator[Tensor]:
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
