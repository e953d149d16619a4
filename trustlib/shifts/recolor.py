"""ReColorAdv: one smooth function of colour for each image, found so that the classifier errs.

Laidlaw and Feizi, "Functional Adversarial Attacks", NeurIPS 2019. The function f is given on a grid over the CIELUV
cube and applied to the colour c of every pixel; Adam minimises the classifier's margin plus the function's roughness
while |f(c) - c| stays within a bound. Our own implementation, read against github.com/cassidylaidlaw/ReColorAdv.

As there: CIELUV as L / 100, (u + 100) / 200, (v + 100) / 200 (``recoloradv/color_spaces.py``); 16 x 32 x 32 points
and trilinear interpolation (``color_transformers.py``); the roughness (``norms.py``); f6 with kappa infinite
(``mister_ed/loss_functions.py``); Adam 1e-3, bound 0.06, weight 0.05 (``examples/evaluate_imagenet.py``); no random
start, and the last function is returned, not the best (``mister_ed/adversarial_attacks.py``).

Otherwise than there:

- They stop between 100 and 300 steps, once a batch's loss stands still; here every image gets `steps`.
- They move the grid's colours into the cube and what sRGB can show before they are bounded, the identity too. Here
  the displacement alone is bounded, the attack starts at the identity, and each pixel's new colour is brought back
  into sRGB by `luv_to_rgb`.
- They map a colour outside the cube, such as pure red, to the cube's border. Here it takes the border's displacement.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

ROUND = 1e-5  # rounds the corner of the roughness at 0


@dataclass(frozen=True)
class Attacked:
    """What `attack` found.

    images : float32 (N, C, H, W) in [0, 1], on the CPU, never rounded to 256 levels.
    loss : float32 (steps + 1,), the mean over all images of margin and weighted roughness, before each step and after
        the last.
    displacement : float32 (N,), the largest |f(g) - g| over the grid's points g and channels, <= float32(bound).
    smoothness : float32 (N,), the `roughness` of each image's function, before its weight.
    """

    images: Tensor
    loss: Tensor
    displacement: Tensor
    smoothness: Tensor


def attack(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int = 100,
    rate: float = 1e-3,
    bound: float = 0.06,
    smoothness: float = 0.05,
    grid: tuple[int, int, int] = (16, 32, 32),
    batch: int = 64,
    log: Callable[[str], None] = print,
) -> Attacked:
    """Recolour each image so that the classifier's margin falls.

    One-channel images have a lightness alone: f is then a tone curve on ``grid[0]`` points. That is far weaker than
    the attack on colours, with one dimension in place of three and equal greys bound to stay equal.

    Nothing is drawn at random: on the CPU, with the same thread count, two runs give the same bits. On a GPU gradients
    are summed in no fixed order. An image's loss may rise in the first steps, when Adam moves each point by the whole
    rate, whatever its neighbours do, and roughness comes in at once.

    Parameters
    ----------
    classifier : images float32 (B, C, H, W) in [0, 1] to logits (B, K); normalises by itself, is in eval mode already
        and differentiable. Its parameters get no gradient.
    images : uint8 (N, C, H, W), or float in [0, 1]; C is 3 (sRGB) or 1 (grey, sRGB's tone curve). On any device.
    labels : int (N,) in [0, K), the true classes.
    steps, rate : of Adam, >= 1 and > 0.
    bound : of |f(c) - c| in each scaled channel, > 0; 0.06 is 6 units of L and 12 of u and v.
    smoothness : weight of the roughness, >= 0.
    grid : points along L, u and v.
    batch : images attacked at once. Each has its own function, and the batch changes it by rounding alone.
    log : told of the images done and the rate after each batch.

    Raises
    ------
    ValueError : for no images, another number of channels, values outside [0, 1], labels that do not fit, logits that
        are not finite or not (B, K), steps below 1 or a bound that is not positive.
    """
    _check(images, labels, steps, bound)
    start = time.perf_counter()
    total, done = torch.zeros(steps + 1, dtype=torch.float64), []
    for first in range(0, len(images), batch):
        x = images[first : first + batch]
        x = x.float() / 255 if images.dtype == torch.uint8 else x.float()
        y = labels[first : first + batch].to(x.device).long()
        loss, *found = _attack_batch(classifier, x, y, steps, rate, bound, smoothness, grid)
        total += loss
        done.append(found)
        count = first + len(x)
        log(f"recolour {count}/{len(images)} images, {count / (time.perf_counter() - start):.1f} images/s")
    recoloured, displacement, rough = (torch.cat(column) for column in zip(*done, strict=True))
    return Attacked(recoloured, (total / len(images)).float(), displacement, rough)


def _attack_batch(
    classifier: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    steps: int,
    rate: float,
    bound: float,
    smoothness: float,
    grid: tuple[int, int, int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Losses summed over the batch float64 (steps + 1,), images, displacements (B,) and roughness (B,), on the CPU."""
    channels = images.shape[1]
    encode, decode = (rgb_to_luv, luv_to_rgb) if channels == 3 else (grey_to_lightness, lightness_to_grey)
    size = grid if channels == 3 else (grid[0], 1, 1)
    colours = encode(images)  # (B, C, H, W)
    where = positions(colours)  # once, since what a pixel's colour was does not change
    displacement = torch.zeros(len(images), channels, *size, device=images.device, requires_grad=True)
    optimizer = torch.optim.Adam([displacement], lr=rate, fused=True)
    losses = []
    for step in range(steps + 1):
        recoloured = decode(recolour(colours, where, displacement))
        distance = margin(classifier(recoloured), labels)  # (B,)
        rough, slope = roughness(displacement.detach())
        losses.append((distance.detach() + smoothness * rough).double().sum())
        if step == steps:
            break
        # A sum: no image's gradient depends on how many others there are. Only the grid's is asked for.
        (gradient,) = torch.autograd.grad(distance.sum(), displacement)
        displacement.grad = gradient.add_(slope, alpha=smoothness)
        optimizer.step()
        with torch.no_grad():
            displacement.clamp_(-bound, bound)
    largest = displacement.detach().abs().flatten(1).amax(1)
    return torch.stack(losses).cpu(), recoloured.detach().cpu(), largest.cpu(), rough.cpu()


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The true class's logit less the largest other, (B,): Carlini and Wagner's f6 (2017) with kappa infinite.

    Negative where the classifier errs, and without a floor, so that the attack goes on after it does.
    ``logits`` is float (B, K), K >= 2, and ``labels`` int64 (B,).
    """
    if logits.ndim != 2 or len(logits) != len(labels) or logits.shape[1] < 2:
        raise ValueError(f"attack: expected logits ({len(labels)}, K) with K >= 2, found {tuple(logits.shape)}")
    if not logits.isfinite().all():
        raise ValueError("attack: expected finite logits, found NaN or infinity: see the classifier and its weights")
    if labels.min() < 0 or labels.max() >= logits.shape[1]:
        found = f"{labels.min().item()} to {labels.max().item()}"
        raise ValueError(f"attack: expected labels in 0..{logits.shape[1] - 1}, as many as logits, found {found}")
    own = labels[:, None]
    others = logits.scatter(1, own, -torch.inf).amax(1)
    return logits.gather(1, own).squeeze(1) - others


def roughness(displacement: Tensor) -> tuple[Tensor, Tensor]:
    """The smoothness term of functions on a grid, and its gradient.

    The sum, over all grid points and the neighbours of each along every axis, of the Euclidean distance of their
    displacements; every pair thus counts twice, as in ``norms.py``. The distance t is rounded there to
    ``sqrt(t**2 + 1e-10)``; here 1e-5 is taken off again, so that equal displacements cost 0.
    The gradient is written out, which takes a quarter of autograd's time.

    Parameters
    ----------
    displacement : float (B, C, L, U, V), without a gradient.

    Returns
    -------
    float (B,), >= 0, and its gradient, of the shape of `displacement`.
    """
    value, slope = displacement.new_zeros(len(displacement)), torch.zeros_like(displacement)
    # Eight images at a time: on the CPU what fits the cache takes a third of the time.
    for sums, slopes, moved in zip(value.split(8), slope.split(8), displacement.split(8), strict=True):
        for axis in (2, 3, 4):
            pairs = moved.shape[axis] - 1
            step = moved.diff(dim=axis)  # (8, C, ...), one shorter along the axis
            length = (step.square().sum(1, keepdim=True) + ROUND**2).sqrt()
            sums += 2 * (length - ROUND).flatten(1).sum(1)
            step *= 2 / length
            slopes.narrow(axis, 1, pairs).add_(step)
            slopes.narrow(axis, 0, pairs).sub_(step)
    return value, slope


def positions(colours: Tensor) -> Tensor:
    """Where colours (B, C, H, W), scaled to [0, 1], lie in the grid: float (B, 1, 1, HW, 3) for `recolour`.

    `F.grid_sample` counts from -1 to 1 and takes the last axis of the grid first. Lightness alone lies on the first.
    """
    flat = colours.flatten(2).flip(1)  # (B, C, HW)
    return F.pad(flat, (0, 0, 3 - flat.shape[1], 0)).mT[:, None, None] * 2 - 1


def recolour(colours: Tensor, where: Tensor, displacement: Tensor) -> Tensor:
    """f of every pixel's colour: the colour and its displacement, interpolated linearly between the grid's points.

    A colour outside the grid takes the displacement of the nearest point of its border.

    Parameters
    ----------
    colours : float (B, C, H, W).
    where : their `positions`.
    displacement : float (B, C, L, U, V), f(g) - g at the grid's points g.

    Returns
    -------
    float (B, C, H, W), perhaps outside what sRGB can show.
    """
    # Gathering the eight corners ourselves takes as long (64 x 32 x 32 pixels: 31 to 35 ms, and this 30 to 36).
    moved = F.grid_sample(displacement, where, padding_mode="border", align_corners=True)  # (B, C, 1, 1, HW)
    return colours + moved.view_as(colours)


def rgb_to_luv(rgb: Tensor) -> Tensor:
    """sRGB to CIELUV under D65, scaled: L / 100, (u + 100) / 200 and (v + 100) / 200.

    L fills [0, 1]; u of strong reds, v of strong greens and of blues leave it (to 1.38, 1.04 and -0.17). White is
    what the matrix makes of (1, 1, 1), so that greys have u = v = 0.

    ``rgb`` is float (..., 3, H, W) in [0, 1]. Gradients are finite everywhere, black included.
    """
    x, y, z = _mix(TO_XYZ, _linear(rgb)).unbind(-3)
    lightness = _lightness(y)
    u, v = (13 * lightness * (part - white) for part, white in zip(_chromaticity(x, y, z), WHITE, strict=True))
    return torch.stack([lightness, u / 2 + 0.5, v / 2 + 0.5], -3)


def luv_to_rgb(luv: Tensor) -> Tensor:
    """Scaled CIELUV to sRGB, the inverse of `rgb_to_luv`, with what sRGB cannot show clipped.

    First u' and v' are held between those of sRGB's primaries, then RGB within [0, 1]. Without the first, a near black
    displaced to more u and v than its L can carry would come out bright.

    ``luv`` is float (..., 3, H, W). Gradients are finite everywhere; clipped values have none, black and white do.
    """
    lightness, u, v = luv.unbind(-3)
    y = _luminance(lightness)
    scale = 13 * lightness.clamp(min=DARK)
    u, v = (
        ((2 * part - 1) / scale + white).clamp(low, high)
        for part, white, low, high in zip((u, v), WHITE, LOWEST, HIGHEST, strict=True)
    )
    x, z = y * 9 * u / (4 * v), y * (12 - 3 * u - 20 * v) / (4 * v)
    return _encode(_mix(FROM_XYZ, torch.stack([x, y, z], -3)))


def grey_to_lightness(grey: Tensor) -> Tensor:
    """The L / 100 of sRGB's greys, float in [0, 1] of any shape: `rgb_to_luv` with R = G = B."""
    return _lightness(_linear(grey))


def lightness_to_grey(lightness: Tensor) -> Tensor:
    """The inverse of `grey_to_lightness`, clipped to [0, 1]."""
    return _encode(_luminance(lightness))


def _linear(rgb: Tensor) -> Tensor:
    """sRGB to linear, IEC 61966-2-1."""
    return torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)


def _encode(linear: Tensor) -> Tensor:
    """Linear to sRGB, clipped to [0, 1]."""
    curve = 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055  # even where unused its slope must be finite
    rgb = torch.where(linear > 0.0031308, curve, 12.92 * linear)
    # The slope of a clamp is 0 at its ends, so that black and white, and what rounding puts beyond, would never move.
    clipped, shown = rgb.detach().clamp(0, 1), (rgb > -SLACK) & (rgb < 1 + SLACK)
    return torch.where(shown, clipped + (rgb - rgb.detach()), clipped)


def _lightness(y: Tensor) -> Tensor:
    """Luminance in [0, 1] to L / 100, CIE 1976; straight below (6 / 29)**3."""
    corner = (6 / 29) ** 3
    return torch.where(y > corner, 1.16 * y.clamp(min=corner) ** (1 / 3) - 0.16, y * (29 / 3) ** 3 / 100)


def _luminance(lightness: Tensor) -> Tensor:
    """The inverse of `_lightness`."""
    return torch.where(lightness > 0.08, ((lightness + 0.16) / 1.16) ** 3, lightness * 100 * (3 / 29) ** 3)


def _chromaticity(x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """CIE 1976 u' and v'; 0 for black, which has none."""
    total = (x + 15 * y + 3 * z).clamp(min=1e-12)
    return 4 * x / total, 9 * y / total


def _mix(matrix: Tensor, colours: Tensor) -> Tensor:
    """A (3, 3) matrix applied to the channels of colours (..., 3, H, W)."""
    return torch.einsum("ij,...jhw->...ihw", matrix.to(colours), colours)


def _check(images: Tensor, labels: Tensor, steps: int, bound: float) -> None:
    """Refuse what `attack` cannot take, before the first step."""
    if images.ndim != 4 or len(images) == 0 or images.shape[1] not in (1, 3):
        raise ValueError(f"attack: expected images (N, 3 or 1, H, W) with N >= 1, found {tuple(images.shape)}")
    if images.dtype != torch.uint8 and not (images.is_floating_point() and images.min() >= 0 and images.max() <= 1):
        found = f"{images.dtype} from {images.min().item()} to {images.max().item()}"
        raise ValueError(f"attack: expected images as uint8 or as floats in [0, 1], found {found}")
    if labels.shape != (len(images),) or labels.is_floating_point():
        found = f"{labels.dtype} {tuple(labels.shape)}"
        raise ValueError(f"attack: expected one whole number as label for each of {len(images)} images, found {found}")
    if not (steps >= 1 and bound > 0):
        raise ValueError(f"attack: expected steps >= 1 and bound > 0, found steps {steps} and bound {bound}")


# ITU-R BT.709 primaries under D65: rows X, Y and Z, columns of linear red, green and blue.
TO_XYZ = torch.tensor(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]],
    dtype=torch.float64,
)
FROM_XYZ = torch.linalg.inv(TO_XYZ)
WHITE = [part.item() for part in _chromaticity(*TO_XYZ.sum(1))]  # u' and v'
LOWEST = [part.min().item() - 0.01 for part in _chromaticity(*TO_XYZ)]  # of the primaries, and a little room
HIGHEST = [part.max().item() + 0.01 for part in _chromaticity(*TO_XYZ)]
DARK = 1e-6  # L / 100 below which u and v are not divided further
SLACK = 1e-5  # what a colour loses on its way to CIELUV and back
