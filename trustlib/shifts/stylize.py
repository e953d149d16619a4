"""A stylised domain: images that keep their shape and take another image's texture, to ask about what was never seen.

Two ways to one; say beside every result which it was. The paper uses Stylized-ImageNet (Geirhos et al., ICLR 2019),
AdaIN with one random painting an image: only the first way is that.

- `from_folder` reads Stylized-ImageNet itself, or images laid out like it.
- `swap_amplitude` needs no weights: it gives an image the fine Fourier amplitudes of an image of another class.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data import DataError

# --- Stylized-ImageNet (github.com/rgeirhos/Stylized-ImageNet), ImageNet-C ---

SUFFIXES = (".JPEG", ".jpeg", ".jpg", ".png")


def from_folder(folder: Path, names: Sequence[str], classes: Sequence[str], size: tuple[int, int]) -> Tensor:
    """Versions that others made of ImageNet validation images, from ``folder/<class>/<name>``.

    Parameters
    ----------
    folder : holds a folder a class: ``val`` of Stylized-ImageNet, or one corruption and severity of ImageNet-C.
    names : N file names of the original images; any of `SUFFIXES` will do on disk.
    classes : N WordNet ids such as "n01440764", image i's class folder.
    size : (H, W) the images are squashed to, bicubically.

    Returns
    -------
    uint8 (N, 3, H, W), in the order of `names`.

    Raises
    ------
    DataError : when the folder, a class's folder or an image is missing, or a file is damaged.
    ValueError : when names and classes differ in number.
    """
    from PIL import Image

    if len(names) != len(classes):
        raise ValueError(f"from_folder: {len(names)} names but {len(classes)} classes")
    if not folder.is_dir():
        raise DataError(f"no folder {folder}: expected images there as <WordNet id>/<file>")
    expected, found = sorted(set(classes)), sorted(path.name for path in folder.iterdir() if path.is_dir())
    lacking = [name for name in expected if name not in found]
    if lacking:
        raise DataError(
            f"{folder}: no folder for {len(lacking)} of {len(expected)} classes, such as {', '.join(lacking[:3])}; "
            f"found {len(found)} folders{', such as ' if found else ''}{', '.join(found[:3])}"
        )
    files = {
        (c, path.stem): path for c in expected for path in sorted((folder / c).iterdir()) if path.suffix in SUFFIXES
    }
    wanted = [(c, Path(name).stem) for name, c in zip(names, classes, strict=True)]
    missing = [key for key in wanted if key not in files]
    if missing:
        raise DataError(f"{folder}: {len(missing)} of {len(wanted)} images are missing, first {'/'.join(missing[0])}")
    images = torch.empty(len(wanted), 3, *size, dtype=torch.uint8)
    for image, key in zip(images, wanted, strict=True):
        try:
            with Image.open(files[key]) as file:
                pixels = np.array(file.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))  # (H, W, 3)
        except (OSError, SyntaxError, ValueError) as error:  # PIL raises each of them for damaged files
            raise DataError(f"{files[key]} is damaged or no image ({error})") from None
        image.copy_(torch.from_numpy(pixels).permute(2, 0, 1))
    return images


# --- amplitudes of another image ---

COARSE = 3  # cycles an image: up to this frequency an image keeps its own amplitudes


def swap_amplitude(images: Tensor, donors: Tensor) -> Tensor:
    """Images with the phases of their own 2-D Fourier transform and, above `COARSE`, the amplitudes of their donors.

    The phase carries an image's shape (Oppenheim and Lim 1981), the amplitude its texture and contrast. Chen et al.
    (ICCV 2021) swap all amplitudes to train; Yang and Soatto (CVPR 2020) swap the lowest to adapt to a domain. Here the
    lowest stay: where ``hypot(u, v) <= COARSE``, u and v in cycles an image side, both amplitude and phase are the
    image's own, its mean among them. On images of 28 x 28 and 32 x 32 the swap of all leaves the donor's ghost where
    the object was, since the coarse amplitudes say how large and how wide an object is; at 3 cycles, whose half a
    period is the width of a sleeve or a leg, the objects are recognisable by eye and their surface is the donor's.
    COARSE was chosen by eye on Fashion-MNIST and CIFAR-10, with no classifier. Each channel is treated by itself; the
    result is rounded and clipped, which alters the amplitudes a little.

    Parameters
    ----------
    images, donors : uint8 (N, C, H, W); donor i is image i's.

    Returns
    -------
    uint8 (N, C, H, W).

    Raises
    ------
    ValueError : when the two differ in shape or are not uint8 of such a shape.
    """
    _check(images)
    _check(donors)
    if images.shape != donors.shape:
        raise ValueError(f"images {tuple(images.shape)} and donors {tuple(donors.shape)} differ in shape")
    height, width = images.shape[-2:]
    own, other = (torch.fft.rfft2(x.float()) for x in (images, donors))  # (N, C, H, W // 2 + 1)
    u = torch.fft.fftfreq(height, 1 / height, device=images.device)[:, None]
    v = torch.fft.rfftfreq(width, 1 / width, device=images.device)
    coarse = torch.hypot(u, v) <= COARSE
    amplitude = torch.where(coarse, own.abs(), other.abs())
    mixed = torch.fft.irfft2(torch.polar(amplitude, own.angle()), s=(height, width))
    return mixed.clamp(0, 255).round().to(torch.uint8)


def draw_donors(labels: Tensor, donor_labels: Tensor, seed: int) -> Tensor:
    """For each image a donor of another class, each such donor being as likely as any other.

    Image i's donor depends on the seed, its own label and `donor_labels`, not on the images after it: the first n
    images have the same donors however many follow.

    Parameters
    ----------
    labels : int64 (N,), the images' classes.
    donor_labels : int64 (M,), the classes of the images to draw from.
    seed : >= 0.

    Returns
    -------
    int64 (N,) in 0..M-1, positions in `donor_labels`.

    Raises
    ------
    ValueError : when every donor is of an image's class.
    """
    chance = torch.from_numpy(np.random.default_rng(seed).random(len(labels)))  # one number an image, in their order
    drawn = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique().tolist():
        others = (donor_labels != label).nonzero().squeeze(-1)
        if len(others) == 0:
            raise ValueError(f"no donor for the images of class {label}: all {len(donor_labels)} are of that class")
        mine = labels == label
        drawn[mine] = others[(chance[mine] * len(others)).long()]
    return drawn


def _check(images: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise ValueError(f"expected uint8 images (N, C, H, W), found {images.dtype} {tuple(images.shape)}")
