"""Corrupted images: the 15 corruptions of ImageNet-C (Hendrycks and Dietterich 2019) and its four extra ones.

They are those of the PyPI package imagecorruptions-imaug. Its strengths were chosen for photographs of about 224 x 224
pixels, and ten of the corruptions measure something in pixels: the radius of a blur, the size of a snowflake. For an
image whose shorter side is under `FRAME` these ten are applied to the image enlarged to it (bilinear) and the result is
reduced again (area mean): a blur then covers the same share of the image whatever its size. The other nine act on each
pixel's value, or on blocks of pixels (JPEG's 8 x 8), and are applied to the image as it is. A one-channel image stays
one: the nine take it as it is, the ten take three equal channels and give back the luminance of the result; saturation
is nothing that it has, so that ``saturate`` leaves it alone.

Seeded by corruption and by the image's place: the same image gets the same corruption in every run, at every severity
the same noise, whatever the number of processes. NumPy and OpenCV only: a worker process starts without torch.
"""

import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from joblib import Parallel, cpu_count, delayed
from numpy.typing import NDArray

CORRUPTIONS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "snow",
    "frost", "fog", "brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression",
)  # fmt: skip
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")  # ImageNet-C's own, for validation
SEVERITIES = (1, 2, 3, 4, 5)
IN_PIXELS = {  # they measure something in pixels
    "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "snow", "frost", "fog", "spatter",
    "elastic_transform",
}  # fmt: skip
SEEDED_BY_ARGUMENT = {"impulse_noise", "glass_blur"}  # they draw from generators of their own
FRAME = 224  # pixels
SMALLEST = 8  # a side, in pixels: one block of JPEG
CHUNK = 100  # images that a worker takes at once


def corrupt(
    images: NDArray[np.uint8],
    name: str,
    severity: int,
    *,
    workers: int | None = None,
    log: Callable[[str], None] = print,
) -> NDArray[np.uint8]:
    """Images with one corruption. Where no worker process is needed, NumPy's global generator is seeded here.

    Parameters
    ----------
    images : uint8 (N, C, H, W), C 1 or 3, sides of at least `SMALLEST`.
    name, severity : of `CORRUPTIONS` or `EXTRA`; 1 to 5.
    workers : processes; every core by default.
    log : takes a line of progress, with the rate.

    Returns
    -------
    uint8 (N, C, H, W).

    Raises
    ------
    ValueError : for an unknown name or severity, images of another type or shape, or smaller ones.
    """
    check(name, severity)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"corrupt: expected uint8 images (N, 1 or 3, H, W), found {images.dtype} {images.shape}")
    if min(images.shape[2:]) < SMALLEST:
        raise ValueError(
            f"corrupt: {name} needs images of at least {SMALLEST} x {SMALLEST} pixels, found "
            f"{images.shape[2]} x {images.shape[3]}; enlarge them first"
        )
    start, parts = time.perf_counter(), []
    chunks = range(0, len(images), CHUNK)
    jobs = (delayed(_corrupt_chunk)(images[first : first + CHUNK], first, name, severity) for first in chunks)
    run = Parallel(n_jobs=min(workers or cpu_count(), max(len(chunks), 1)), return_as="generator")
    for done, part in enumerate(run(jobs), 1):
        parts.append(part)
        if done % 10 == 0 or done == len(chunks):
            count = sum(map(len, parts))
            rate = count / (time.perf_counter() - start)
            log(f"{name}, severity {severity}: {count:,}/{len(images):,} images, {rate:,.0f} images/s")
    return np.concatenate(parts) if parts else images.copy()


def check(name: str, severity: int) -> None:
    """ValueError unless there is such a corruption and severity."""
    if name not in CORRUPTIONS + EXTRA:
        raise ValueError(f"unknown corruption {name!r}; known: {', '.join(CORRUPTIONS + EXTRA)}")
    if severity not in SEVERITIES or not isinstance(severity, int):
        raise ValueError(f"corruption {name}: expected a severity from 1 to 5, found {severity!r}")


def _corrupt_chunk(images: NDArray[np.uint8], first: int, name: str, severity: int) -> NDArray[np.uint8]:
    import cv2

    cv2.setNumThreads(1)
    out = [_corrupt_one(image, name, severity, _seed(name, first + i)) for i, image in enumerate(images)]
    return np.stack(out)


def _seed(name: str, index: int) -> int:
    return int(np.random.SeedSequence([zlib.crc32(name.encode()), index]).generate_state(1)[0])


def _corrupt_one(image: NDArray[np.uint8], name: str, severity: int, seed: int) -> NDArray[np.uint8]:
    """One image (C, H, W). Changes NumPy's global state, from which the package draws."""
    import cv2
    from imagecorruptions import corruption_dict
    from PIL import Image

    grey, (height, width) = len(image) == 1, image.shape[1:]
    picture = image[0] if grey else image.transpose(1, 2, 0)  # (H, W) or (H, W, 3)
    in_pixels = name in IN_PIXELS
    small = in_pixels and min(height, width) < FRAME
    if in_pixels and grey:
        picture = np.stack([picture] * 3, axis=-1)  # (H, W, 3)
    if small:
        scale = FRAME / min(height, width)
        size = (round(width * scale), round(height * scale))
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    np.random.seed(seed)  # noqa: NPY002 (the package knows no generator)
    arguments = {"seed": seed} if name in SEEDED_BY_ARGUMENT else {}
    out: Any = np.uint8(corruption_dict[name](Image.fromarray(picture), severity, **arguments))
    if small:
        out = cv2.resize(out, (width, height), interpolation=cv2.INTER_AREA)
    if grey:
        return (cv2.cvtColor(out, cv2.COLOR_RGB2GRAY) if out.ndim == 3 else out)[None]
    return out.transpose(2, 0, 1)
