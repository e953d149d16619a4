"""Is a probability of being right what it says? ECE, Brier score, NLL, and the reliability diagram.

``probability`` (N,) in [0, 1], of a prediction being right: MCP, sigmoid(z), ...; ``correct`` (N,), bool.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from .. import metrics

BINS = 15
COLUMNS = tuple(f"{name}{end}" for name in ("ece", "brier", "nll") for end in ("", "_low", "_high"))
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


def with_intervals(
    probability: ArrayLike,
    correct: ArrayLike,
    *,
    cluster: ArrayLike | None = None,
    bins: int = BINS,
    resamples: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """`calibration` with 95 % intervals over the predictions, or over clusters of them.

    Brier score and NLL are means, with the interval of a mean (`mean`). The ECE adds up absolute gaps, which noise
    alone keeps above 0, so that a bootstrap's percentiles would lie too high. Its interval holds the values e at which
    the ECE found is no surprise, at 2.5 % to either side, when the true gaps are those found scaled to add up to e;
    their noise is normal, with the covariance of the mean gaps of the sample's bins. It is widened to the estimate
    where it lies below. In simulations of 300 to 10,000 predictions it holds the true value 85 to 98 times in 100.

    Returns
    -------
    `COLUMNS`: ece, brier and nll, each with _low and _high; NaN for the ends of an infinite NLL.
    """
    p, o = np.asarray(_rounded(probability), np.float64), np.asarray(correct, np.float64)
    found = calibration(p, o, bins=bins)
    ranking = metrics.rank(p, o)
    index = _bins(ranking, bins)[np.searchsorted(-ranking.threshold, -p)]
    gap = np.bincount(index, p - o, minlength=bins) / len(p)
    spread = np.diag(np.bincount(index, (p - o) ** 2, minlength=bins) / len(p)) - np.outer(gap, gap)
    if cluster is not None:
        member = np.unique(np.asarray(cluster), return_inverse=True)[1]
        size = np.bincount(member)
        sums = np.bincount(member * bins + index, p - o, minlength=len(size) * bins).reshape(-1, bins)
        centred = sums - np.outer(size, gap)
        spread = centred.T @ centred / len(p)
    noise = np.random.default_rng(seed).multivariate_normal(gap * 0, spread / len(p), resamples, method="eigh")
    found["ece_low"], found["ece_high"] = _ece_interval(gap, noise)
    with np.errstate(divide="ignore"):
        nll = -np.log(np.where(o > 0, p, 1 - p))
    return found | mean("brier", (p - o) ** 2, cluster) | mean("nll", nll, cluster)


def _ece_interval(gap: NDArray, noise: NDArray) -> tuple[float, float]:
    """The ends that `with_intervals` describes, of mean gaps (bins,) and their noise (resamples, bins)."""
    ece, largest = np.abs(gap).sum(), np.quantile(np.abs(noise).sum(1), 0.975)
    if ece == 0:
        return 0.0, float(largest)
    scales = np.linspace(0, 1 + largest / ece, 201)
    drawn = np.array([np.abs(scale * gap + noise).sum(1) for scale in scales])
    fits = scales[((drawn >= ece).mean(1) >= 0.025) & ((drawn <= ece).mean(1) >= 0.025)]
    return float(ece * min(fits.min(initial=1), 1)), float(ece * max(fits.max(initial=1), 1))


def mean(name: str, values: NDArray, cluster: ArrayLike | None = None) -> dict[str, float]:
    """A mean with its 95 % interval by the normal distribution, over rows or clusters; NaN for one of these, or inf."""
    estimate, half = float(values.mean()), np.nan
    if np.isfinite(estimate):
        member = np.arange(len(values)) if cluster is None else np.unique(np.asarray(cluster), return_inverse=True)[1]
        residual = np.bincount(member, values - estimate)
        units = len(residual)
        if units > 1:
            half = 1.96 * float(np.sqrt((residual**2).sum() * units / (units - 1))) / len(values)
    return {name: estimate, f"{name}_low": estimate - half, f"{name}_high": estimate + half}


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
    index, size = _bins(ranking, bins), ranking.size
    total, p, o = (_by_bin(values, index, bins) for values in (size, size * ranking.threshold, ranking.right))
    filled = total > 0
    return pd.DataFrame(
        {"probability": p[filled] / total[filled], "accuracy": o[filled] / total[filled], "n": total[filled]}
    )


def _bins(ranking: metrics.Ranking, bins: int) -> NDArray[np.int64]:
    """The bin of each distinct probability of a ranking, (M,), 0 being that of the lowest."""
    size = ranking.size[::-1]
    middle = size.cumsum() - size / 2
    return np.minimum((middle * bins / size.sum()).astype(int), bins - 1)[::-1]


def _rounded(probability: ArrayLike) -> NDArray:
    """What float32 leaves of a 1, such as 1.0000001, is 1."""
    p = np.asarray(probability)
    if p.dtype.kind != "f" or not p.size or p.min() < -ROUNDING or p.max() > 1 + ROUNDING:
        return p
    return p.astype(np.float64).clip(0, 1)


def _by_bin(values: NDArray, index: NDArray, bins: int) -> NDArray:
    return np.bincount(index, weights=values, minlength=bins)
