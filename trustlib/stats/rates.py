"""Rates: exact intervals, and tests corrected for their number."""

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import beta, t

from .. import metrics


@dataclass(frozen=True)
class Rate:
    """`count` of `n` as a fraction, with an exact confidence interval; NaN where n is 0."""

    rate: float
    low: float
    high: float
    count: int
    n: int


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """p-values adjusted for their number, step down: at most a chance of alpha for any false one below alpha.

    Sorted, p_(i) becomes the maximum over j <= i of min(1, (m - j + 1) p_(j)); no independence is needed.

    Parameters
    ----------
    p : float, any shape, in [0, 1]. A NaN is a test that was not made: it counts for nothing and stays NaN.

    Returns
    -------
    float64, p's shape.

    Raises
    ------
    ValueError : for a p outside [0, 1].

    References
    ----------
    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).round(4).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, np.float64)
    if ((p < 0) | (p > 1)).any():
        raise ValueError(f"holm: p must lie in [0, 1], found {p[(p < 0) | (p > 1)][0]}")
    adjusted = np.full(p.size, nan)
    order = np.argsort(p, axis=None)[: np.isfinite(p).sum()]  # NaN is sorted last
    stepped = np.arange(len(order), 0, -1) * p.ravel()[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(stepped), 1)
    return adjusted.reshape(p.shape)


def clopper_pearson(count: ArrayLike, n: ArrayLike, level: float = 0.95) -> tuple[NDArray, NDArray]:
    """Exact two-sided confidence interval of a probability, `count` times seen among `n` (Clopper and Pearson 1934).

    Parameters
    ----------
    count, n : int, shapes that broadcast; 0 <= count <= n.
    level : in (0, 1).

    Returns
    -------
    low, high : float64, the broadcast shape, in [0, 1]; NaN where n is 0.

    Raises
    ------
    ValueError : for counts outside [0, n] and a level outside (0, 1).

    Examples
    --------
    >>> [round(float(end), 4) for end in clopper_pearson(0, 10)]
    [0.0, 0.3085]
    """
    _fraction("level", level)
    count, n = np.broadcast_arrays(count, n)
    if ((count < 0) | (count > n)).any():
        raise ValueError("clopper_pearson: expected 0 <= count <= n")
    # beta has no distribution where a shape is 0: at those ends, and for n = 0, the answer is put in by hand
    low = beta.ppf((1 - level) / 2, np.maximum(count, 1), n - count + 1)
    high = beta.isf((1 - level) / 2, count + 1, np.maximum(n - count, 1))
    low, high = np.where(count == 0, 0.0, low), np.where(count == n, 1.0, high)
    return np.where(n == 0, nan, low), np.where(n == 0, nan, high)


def share_interval(hit: ArrayLike, cluster: ArrayLike | None = None, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a share: exact, or of rows that depend within clusters Korn and Graubard's [1]_.

    That is Clopper and Pearson's at the effective number of rows, n / deff (t_{n-1} / t_{C-1})^2, deff >= 1 being the
    linearised variance of the share over C clusters by the binomial one. Where all or none are hit, there is no such
    variance, and the effective number is C.

    Parameters
    ----------
    hit : bool (N,).
    cluster : (N,) names, or None where rows are independent.

    Returns
    -------
    low, high : in [0, 1]; NaN where N is 0.

    References
    ----------
    .. [1] Korn and Graubard, "Confidence intervals for proportions with small expected number of positive counts
       estimated from survey data", Survey Methodology 24, 1998.
    """
    hit = np.asarray(hit, bool)
    n, count = len(hit), int(hit.sum())
    if cluster is None or n == 0:
        low, high = clopper_pearson(count, n, level)
        return float(low), float(high)
    member = np.unique(np.asarray(cluster), return_inverse=True)[1]
    clusters = int(member.max()) + 1
    share, effective = count / n, float(clusters)
    if clusters == 1:
        return 0.0, 1.0
    if 0 < count < n:
        residual = np.bincount(member, hit - share)
        deff = max(1.0, clusters / (clusters - 1) * (residual**2).sum() / (n * share * (1 - share)))
        quantiles = t.ppf((1 + level) / 2, [n - 1, clusters - 1])
        effective = min(n, n / deff * (quantiles[0] / quantiles[1]) ** 2)
    low, high = clopper_pearson(share * effective, effective, level)
    return float(low), float(high)


def rate_intervals(
    confidence: ArrayLike,
    correct: ArrayLike,
    threshold: float = 0.0,
    *,
    tnr_threshold: float | None = None,
    level: float = 0.95,
) -> dict[str, Rate]:
    """TPR, TNR, coverage and risk at a threshold that was fixed beforehand, with exact intervals.

    Parameters
    ----------
    confidence, correct : (N,).
    threshold, tnr_threshold : as in `metrics.evaluate`: trusted, or kept, when above.
    level : of each interval by itself, in (0, 1).

    Returns
    -------
    tpr, tnr : of the right (wrong) predictions trusted (not trusted); given how many there are of them
    coverage : share kept
    risk : share of errors among the kept; given how many are kept

    Raises
    ------
    ValueError : as `metrics.rank` does, for a NaN threshold, and for a level outside (0, 1).

    Examples
    --------
    >>> rate_intervals([2.0, 1.0, -1.0, 3.0], [True, True, True, False])["tpr"].count
    2
    """
    tnr_threshold = threshold if tnr_threshold is None else tnr_threshold
    if np.isnan([threshold, tnr_threshold]).any():
        raise ValueError("rate_intervals: a threshold is NaN")
    ranking = metrics.rank(confidence, correct)
    trusted, found = ranking.threshold > threshold, ~(ranking.threshold > tnr_threshold)
    right, wrong = int(ranking.right[trusted].sum()), int(ranking.wrong[trusted].sum())
    counts = {
        "tpr": (right, int(ranking.right.sum())),
        "tnr": (int(ranking.wrong[found].sum()), int(ranking.wrong.sum())),
        "coverage": (right + wrong, ranking.n),
        "risk": (wrong, right + wrong),
    }
    seen, among = np.array(list(counts.values())).T
    lows, highs = clopper_pearson(seen, among, level)
    return {
        name: Rate(count / n if n else nan, float(low), float(high), count, n)
        for (name, (count, n)), low, high in zip(counts.items(), lows, highs, strict=True)
    }


def _fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie in (0, 1), found {value}")
