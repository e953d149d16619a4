"""Image sets in three parts; small ones are held whole as uint8 tensors, see `trustlib.data.folders` for large ones.

``train`` is what classifiers and oracles learn from; ``heldout`` serves every choice (learning rate, threshold,
temperature, early stopping); ``test`` is the official test set and is touched only by the final evaluation.

A set is looked for in several places in order, the data root first; `load` raises `DataError` with the whole list
when none has it. Nothing here augments: a view of an image is the image itself or its mirror image, see `view`.

torch is imported where it is used: a study is read, and its tables are drawn, without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("train", "heldout", "test")
SPLIT_SEED = 42  # of the permutation that takes the validation set out of the official training set


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
        from torch.nn.functional import interpolate

        x = x.float()
        mean, std = (x.new_tensor(v)[:, None, None] for v in (self.mean, self.std))
        x = x.div(255).sub_(mean).div_(std)
        return interpolate(x, self.then, mode="nearest") if self.then else x

    def resized(self, x: Tensor) -> Tensor:
        """Pixels (B, C, H, W), 0 to 255, at `size`: float32, not rounded; as they are where there is no size."""
        from torch.nn.functional import interpolate

        if self.size is None:
            return x
        sides = (self.size, self.size)
        if self.crop:
            shorter, enlarged = min(x.shape[2:]), int(self.size / self.crop)
            sides = tuple(int(enlarged * side / shorter) for side in x.shape[2:])
        x = interpolate(x.float(), sides, mode=self.interpolation, antialias=True).clamp_(0, 255)
        top, left = ((side - self.size) // 2 for side in sides)
        return x[:, :, top : top + self.size, left : left + self.size]


class Batches(Protocol):
    """Anything with the labels and the `batches` of `Images`: what a network is trained or evaluated on."""

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
    inputs : what a network sees of the pixels; by default standardised by the mean and deviation of the training set
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
        """Mean and deviation of all pixels of the training set, in [0, 1]."""
        pixels = self.images["train"].float() / 255
        return pixels.mean().item(), pixels.std().item()

    @property
    def channels(self) -> int:
        return self.images["test"].shape[1]

    def to(self, device: torch.device | str) -> Images:
        """The same set with its tensors on `device`."""
        images, labels = (
            {part: tensor.to(device) for part, tensor in tensors.items()} for tensors in (self.images, self.labels)
        )
        return replace(self, images=images, labels=labels)

    def seen_by(self, inputs: Inputs | None) -> Images:
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
        return x.float().div(255).sub_(mean).div_(std)  # `float` does not copy what is float32 already

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
        if isinstance(index, slice):
            found = views[view, index]
        else:
            row = view if isinstance(view, int) else view.to(views.device)
            found = views[row, index.to(views.device)]
        return found.to(self.device).float()

    def batches(self, part: str, index: Sequence[Tensor | slice], views: Sequence[Tensor | int]) -> Iterator[Tensor]:
        """`view` for many batches, one after the other."""
        return (self.view(part, *batch) for batch in zip(index, views, strict=True))


def mirrored(x: Tensor, view: Tensor | int) -> Tensor:
    """Images (B, C, H, W), those mirrored for which `view`, int64 (B,) or one int for all, is 1 and not 0."""
    if isinstance(view, int):
        return x.flip(-1) if view else x
    return x.flip(-1).where((view == 1)[:, None, None, None], x)


def root() -> Path:
    """The data root: the environment variable TRUST_DATA, or data/cache in this checkout."""
    return Path(os.environ.get("TRUST_DATA") or ROOT / "data" / "cache")


def _split(n: int, **sizes: int) -> dict[str, Tensor]:
    """A fixed random split of range(n): the named parts with the sizes asked for, "train" gets the rest."""
    from torch import from_numpy

    order = from_numpy(np.random.default_rng(SPLIT_SEED).permutation(n))
    *parts, rest = order.split([*sizes.values(), n - sum(sizes.values())])
    return {"train": rest, **dict(zip(sizes, parts, strict=True))}
