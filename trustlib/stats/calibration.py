"""Is a probability of being right what it says? ECE, Brier score, NLL, and the reliability diagram.

``probability`` (N,) in [0, 1], of a prediction being right: MCP, sigmoid(z), ...; ``correct`` (N,), bool.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from .. import metrics

BINS = 15
ROUNDING = 1e-5  # beyond 0 and 1, of float32


def calibration(probability: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> dict[str, float]:
    """Errors of a probability; 0 is perfect for `ece` alone, the others also count how well it tells apart.

    Returns
    -------
    ece : mean absolute gap between mean probability and accuracy over the bins of `reliability`, in [0, 1]
    brier : mean of (probability - correct)^2, in [0, 1]
    nll : mean of -log of the probability of what happened, nats, in [0, inf]; inf when that was called impossible

    Raises
    ------
    ValueError : as `metrics.rank`, for a probability outside [0, 1] by more than rounding, and for bins < 1.

    Examples
    --------
    >>> round(calibration([0.8, 0.8, 0.8, 0.8, 0.8], [True, True, True, True, False])["ece"], 12)
    0.0
    """
    frame = reliability(probability, correct, bins=bins)
    p, o = _rounded(probability), np.asarray(correct, np.float64)
    gap = (frame["probability"] - frame["accuracy"]).abs()
    with np.errstate(divide="ignore"):
        nll = -(xlogy(o, p) + xlogy(1 - o, 1 - p)).mean()
    return {
        "ece": float(np.average(gap, weights=frame["n"])),
        "brier": float(((p - o) ** 2).mean()),
        "nll": float(nll),
    }


def reliability(probability: ArrayLike, correct: ArrayLike, *, bins: int = BINS) -> pd.DataFrame:
    """The reliability diagram: bins of equal numbers of samples, as far as ties allow.

    The sorted probabilities are cut at the bins' quantiles; samples with one probability stay together, in the bin in
    which the middle of their block falls, so that the order of ties plays no part. Bins without samples are left out.

    Returns
    -------
    One row per bin, ascending: probability (mean), accuracy, n.
    """
    ranking = metrics.rank(_rounded(probability), correct)
    if ranking.threshold[0] > 1 or ranking.threshold[-1] < 0:
        raise ValueError(
            f"expected probabilities in [0, 1], found {ranking.threshold[-1]!s} to {ranking.threshold[0]!s}"
        )
    if bins < 1:
        raise ValueError(f"expected at least one bin, found {bins}")
    right, size = ranking.right[::-1], (ranking.right + ranking.wrong)[::-1]
    middle = size.cumsum() - size / 2
    index = np.minimum((middle * bins / size.sum()).astype(int), bins - 1)
    total, p, o = (_by_bin(values, index, bins) for values in (size, size * ranking.threshold[::-1], right))
    filled = total > 0
    return pd.DataFrame(
        {"probability": p[filled] / total[filled], "accuracy": o[filled] / total[filled], "n": total[filled]}
    )


def _rounded(probability: ArrayLike) -> NDArray:
    """What float32 leaves of a 1, such as 1.0000001, is 1."""
    p = np.asarray(probability)
    if p.dtype.kind != "f" or not p.size or p.min() < -ROUNDING or p.max() > 1 + ROUNDING:
        return p
    return p.astype(np.float64).clip(0, 1)


def _by_bin(values: NDArray, index: NDArray, bins: int) -> NDArray:
    return np.bincount(index, weights=values, minlength=bins)
