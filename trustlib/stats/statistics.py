"""How sure one can be of a metric: intervals, paired tests, and a threshold with a guaranteed risk.

Arrays as in `metrics`: ``confidence`` (N,), higher = more to be trusted, ``correct`` (N,), bool; a prediction is kept
(trusted) when its confidence is *above* the threshold. All of it takes the N predictions for independent draws from
one distribution, and the confidence for a function that was fixed before they were drawn: test data, never the images
that trained it or chose it.
"""

from dataclasses import dataclass
from math import nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import norm

from .. import metrics
from .rates import _fraction

ROUNDING = 1e-12  # a standard error below it is rounding: components are ratios of counts, up to a mean over seeds


@dataclass(frozen=True)
class Area:
    """An AUROC in [0, 1], its standard error >= 0, and a confidence interval within [0, 1]; see `delong`."""

    auroc: float
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """AUROC of a minus that of b, in [-1, 1], with standard error, interval, z and p; see `delong_difference`."""

    difference: float
    error: float
    low: float
    high: float
    z: float
    p: float


def delong(confidence: ArrayLike, correct: ArrayLike, level: float = 0.95) -> Area:
    """AUROC with the standard error of DeLong et al. [1]_, from mid-ranks in O(N log N) [2]_.

    The interval is taken on the logit scale: it stays within [0, 1] and is as skewed as the estimate is near an end,
    where AUROCs of confidences lie; the plain interval would pass 1. At AUROC 1 (0) the estimated error is 0, which
    says nothing; the far end is then the exact one of m = min(right, wrong) disjoint pairs, ordered alike with
    probability AUROC^m: ((1 - level) / 2)^(1/m) from that end.

    Parameters
    ----------
    confidence : float (N,), or (S, N) for the same predictions judged by S trained seeds. The AUROC is then the mean
        over seeds, and its components are the means of theirs: the error is that of drawing images, and holds for
        these S trainings. It says nothing of what other seeds would do.
    correct : bool (N,).
    level : of the interval, in (0, 1).

    Returns
    -------
    Area; all NaN when only one class is there, error and interval NaN when a class has one sample.

    Raises
    ------
    ValueError : as `metrics.rank` does, and for a level outside (0, 1).

    References
    ----------
    .. [1] DeLong, DeLong and Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
       characteristic curves: a nonparametric approach", Biometrics 44, 1988.
    .. [2] Sun and Xu, "Fast implementation of DeLong's algorithm for comparing the areas under correlated receiver
       operating characteristic curves", IEEE Signal Processing Letters 21, 2014.

    Examples
    --------
    >>> area = delong([0.9, 0.8, 0.7, 0.6], [True, True, False, True])
    >>> round(area.auroc, 4)
    0.6667
    """
    _fraction("level", level)
    of_right, of_wrong = _components(confidence, correct)
    auroc, error = _mean_and_error(of_right, of_wrong)
    if np.isnan(error):
        return Area(auroc, nan, nan, nan)
    if auroc in (0, 1):
        slack = 1 - ((1 - level) / 2) ** (1 / min(len(of_right), len(of_wrong)))
        return Area(auroc, error, max(0.0, auroc - slack), min(1.0, auroc + slack))
    half = norm.isf((1 - level) / 2) * error / (auroc * (1 - auroc))
    return Area(auroc, error, float(expit(logit(auroc) - half)), float(expit(logit(auroc) + half)))


def delong_difference(a: ArrayLike, b: ArrayLike, correct: ArrayLike, level: float = 0.95) -> Difference:
    """AUROC of `a` minus AUROC of `b` on the same predictions, and whether it could be chance (DeLong et al. 1988).

    Their covariance enters by itself: the components are subtracted sample by sample before the variance is taken.
    The interval is the plain normal one, cut at -1 and 1.

    Parameters
    ----------
    a, b : float (N,), or (S, N) for S seeds; S may differ. See `delong` for what a mean over seeds says.
    correct : bool (N,).
    level : of the interval, in (0, 1).

    Returns
    -------
    Difference; `p` is two-sided. Two scores that order alike have z 0 and p 1. Interval, z and p are NaN when the
    estimated error is 0 and the difference is not, as it then says nothing; NaN as `delong` has it when a class has
    fewer than two samples.

    Raises
    ------
    ValueError : as `delong`.

    Examples
    --------
    >>> delong_difference([4, 3, 2, 1], [8, 6, 4, 2], [True, False, True, False]).p
    1.0
    """
    _fraction("level", level)
    of_right, of_wrong = (x - y for x, y in zip(_components(a, correct), _components(b, correct), strict=True))
    difference, error = _mean_and_error(of_right, of_wrong)
    z = difference / error if error >= ROUNDING else 0.0 if abs(difference) < ROUNDING else nan
    half = norm.isf((1 - level) / 2) * error if not np.isnan(z) else nan
    low, high = np.clip([difference - half, difference + half], -1, 1).tolist()
    return Difference(difference, error, low, high, z, float(2 * norm.sf(abs(z))))


def hanley_mcneil(auroc: float, n_right: int, n_wrong: int, level: float = 0.95) -> tuple[float, float]:
    """An interval of an area under the ROC curve of which nothing but its value and the counts is known.

    Hanley and McNeil 1982, with their Q1 = A / (2 - A) and Q2 = 2 A^2 / (1 + A), which hold for exponential scores;
    symmetric, cut at 0 and 1. Where the scores are there, `delong` needs no such assumption.

    Parameters
    ----------
    auroc : in [0, 1].
    n_right, n_wrong : counts of either class, >= 1.
    level : in (0, 1).

    Returns
    -------
    low, high : in [0, 1].

    Raises
    ------
    ValueError : for an area outside [0, 1], a count below 1 and a level outside (0, 1).

    Examples
    --------
    >>> [round(end, 3) for end in hanley_mcneil(0.9, 100, 50)]
    [0.852, 0.948]
    """
    _fraction("level", level)
    if not 0 <= auroc <= 1 or min(n_right, n_wrong) < 1:
        raise ValueError(
            f"hanley_mcneil: expected an area in [0, 1] and counts >= 1, found {auroc}, {n_right}, {n_wrong}"
        )
    q1, q2 = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc) + (n_right - 1) * (q1 - auroc**2) + (n_wrong - 1) * (q2 - auroc**2)
    half = norm.isf((1 - level) / 2) * (variance / (n_right * n_wrong)) ** 0.5
    return max(0.0, float(auroc - half)), min(1.0, float(auroc + half))


def _components(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray, NDArray]:
    """Structural components of the AUROC, means over seeds: of right samples (R,), of incorrect ones (W,), in [0, 1].

    A correct sample's is the share of incorrect ones below it, an incorrect one's the share of correct ones above, ties
    counting one half: a mid-rank among all minus the mid-rank in its class. NaN where the other class is empty.
    """
    confidence = np.asarray(confidence)
    seeds = confidence[None] if confidence.ndim == 1 else confidence
    if seeds.ndim != 2 or len(seeds) == 0:
        raise ValueError(f"expected confidence of shape (N,) or (S, N), S >= 1, found {confidence.shape}")
    of_right, of_wrong = zip(*(_components_of_one(row, correct) for row in seeds), strict=True)
    return np.mean(of_right, axis=0), np.mean(of_wrong, axis=0)


def _components_of_one(confidence: NDArray, correct: ArrayLike) -> tuple[NDArray, NDArray]:
    ranking = metrics.rank(confidence, correct)
    right, wrong = int(ranking.right.sum()), int(ranking.wrong.sum())
    block = np.searchsorted(-ranking.threshold, -confidence.astype(np.float64))  # of each sample
    correct = np.asarray(correct, bool)
    wrong_below = wrong - ranking.wrong.cumsum() + ranking.wrong / 2  # ties count one half
    right_above = ranking.right.cumsum() - ranking.right / 2
    of_right = wrong_below[block[correct]] / wrong if wrong else np.full(right, nan)
    of_wrong = right_above[block[~correct]] / right if right else np.full(wrong, nan)
    return of_right, of_wrong


def _mean_and_error(of_right: NDArray, of_wrong: NDArray) -> tuple[float, float]:
    """Mean, sqrt(var / R + var / W) of components; what does not exist is NaN."""
    if len(of_right) == 0 or len(of_wrong) == 0:
        return nan, nan
    if min(len(of_right), len(of_wrong)) == 1:
        return float(of_right.mean()), nan
    variance = sum(part.var(ddof=1) / len(part) for part in (of_right, of_wrong))
    return float(of_right.mean()), sqrt(variance)
