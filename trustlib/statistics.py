"""How sure one can be of a metric: intervals, paired tests, and a threshold with a guaranteed risk.

Arrays as in `metrics`: ``confidence`` (N,), higher = more to be trusted, ``correct`` (N,), bool; a prediction is kept
(trusted) when its confidence is *above* the threshold. All of it takes the N predictions for independent draws from
one distribution, and the confidence for a function that was fixed before they were drawn: test data, never the images
that trained it or chose it.
"""

from dataclasses import dataclass
from math import ceil, inf, log, log1p, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit
from scipy.stats import beta, norm

from . import metrics

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


@dataclass(frozen=True)
class Rate:
    """`count` of `n` as a fraction, with an exact confidence interval; NaN where n is 0."""

    rate: float
    low: float
    high: float
    count: int
    n: int


@dataclass(frozen=True)
class Guarantee:
    """A threshold whose risk on new data is bounded, or the news that there is none; see `guaranteed_threshold`.

    threshold : a prediction is kept when its confidence is above it; -inf keeps all, inf (none found) keeps nothing
    coverage, risk : share of the test samples kept, share of errors among those, both in [0, 1]; risk is NaN for none
    bound : exact upper bound of the true risk of this set, at delta / steps; at most `max_risk`, NaN for none
    found : whether a threshold qualifies
    kept, errors, n : the counts behind it
    max_risk, delta : what was asked for
    steps : bounds the search may compute; each gets ``delta / steps``
    """

    threshold: float
    coverage: float
    risk: float
    bound: float
    found: bool
    kept: int
    errors: int
    n: int
    max_risk: float
    delta: float
    steps: int

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, meaning: str = "") -> str:
        """What is guaranteed, in words; `meaning` says after the threshold what a number of this confidence is."""
        if not self.found:
            return (
                f"No threshold qualifies: on these {self.n:,} predictions the search found none whose share of errors "
                f"is shown to be at most {self.max_risk:.2%} with probability {1 - self.delta:g}."
            )
        above = f"a prediction when its confidence is above {in_full(self.threshold)}{meaning and f' ({meaning})'}"
        return (
            f"Keep {'every prediction' if self.threshold == -inf else above}: that keeps "
            f"{self.coverage:.2%} of these {self.n:,} predictions with {self.risk:.2%} errors, and on new data "
            f"like them the share of errors is at most {self.max_risk:.2%} with probability {1 - self.delta:g} "
            f"(bound {self.bound:.2%})."
        )


def in_full(x: float) -> str:
    """A number with all the digits that it takes to read the same one back: a shorter threshold keeps other samples.

    >>> in_full(471.0), in_full(0.1 + 0.2)
    ('471', '0.30000000000000004')
    """
    return repr(float(x)).removesuffix(".0")


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
    Difference; `p` is two-sided. Two scores that order alike have z 0 and p 1; z and p are NaN when the estimated
    error is 0 and the difference is not. NaN as `delong` has it when a class has fewer than two samples.

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
    half = norm.isf((1 - level) / 2) * error
    low, high = np.clip([difference - half, difference + half], -1, 1).tolist()
    return Difference(difference, error, low, high, z, float(2 * norm.sf(abs(z))))


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


def guaranteed_threshold(confidence: ArrayLike, correct: ArrayLike, max_risk: float, delta: float = 0.001) -> Guarantee:
    """The widest coverage found whose risk on new data is at most `max_risk`, with probability 1 - `delta` (SGR).

    Algorithm 1 of Geifman and El-Yaniv [1]_: bisect the sorted confidences; a set of kept predictions passes when the
    exact binomial upper bound B* of its risk (Lemma 3.1; Clopper and Pearson, one-sided, at delta / k) is at most
    `max_risk`; a passing set is widened, another narrowed. The answer is the last set that passed, with its bound.

    Differences, each so that the bound holds as stated:

    - Kept are the predictions *above* the next confidence, not from their own lowest up: given that next one, they
      are independent draws from all predictions above it, which the lowest of their own is not. Predictions that tie
      with it are left out, together. Where that leaves a set too small to pass, it is widened and no bound computed.
    - The search goes over ranks m = 1..n, which tied confidences share, and leaves out m = 1 and every m at which not
      even a set without an error could pass. That is at most n - 1 ranks, n outcomes, and so k = ceil(log2 n) bounds,
      full coverage included; k is known beforehand, as a number of distinct confidences is not.

    Which sets the search looks at depends on the labels, so that k bounds are not all it could compute. Sharing delta
    among k is enough when the true risk does not fall as more is kept: as long as no set that is too risky has passed,
    the search comes only to too-risky sets that lie on one path of k, and that path does not depend on labels. The
    paper's Theorem 3.2 passes over this; for a score whose risk does fall, 1 - delta is an approximation. What is shown
    so is a risk of at most `max_risk`: `bound` is that of the chosen set by itself.

    Parameters
    ----------
    confidence, correct : (N,), independent draws; `confidence` a function fixed before they were drawn.
    max_risk : share of errors among the kept, in (0, 1).
    delta : chance of being wrong, in (0, 1).

    Returns
    -------
    Guarantee; `found` is False when no set passed.

    Raises
    ------
    ValueError : as `metrics.rank` does; for `max_risk` or `delta` outside (0, 1); and when there are too few samples
        for any outcome to give the guarantee, naming how many are needed.

    References
    ----------
    .. [1] Geifman and El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017.

    Examples
    --------
    >>> confidence = np.arange(1000)
    >>> print(guaranteed_threshold(confidence, confidence >= 500, max_risk=0.1))  # doctest: +ELLIPSIS
    Keep a prediction when its confidence is above 471: that keeps 52.80% of these 1,000 predictions with 5.30% ...
    """
    _fraction("max_risk", max_risk)
    _fraction("delta", delta)
    ranking = metrics.rank(confidence, correct)
    n, steps = ranking.n, _steps(ranking.n)
    fewest = _fewest(max_risk, delta / steps)
    if n < fewest:
        raise ValueError(
            f"{n} sample{'s' * (n != 1)} cannot show a risk of at most {max_risk:g} with delta {delta:g}, even without "
            f"an error: at least {_enough(max_risk, delta, n)} are needed"
        )
    # the blocks of ties strictly above each rank: rank m, 1-based, keeps the blocks that end at or before m
    kept = np.concatenate(([0], (ranking.right + ranking.wrong).cumsum()))
    errors = np.concatenate(([0], ranking.wrong.cumsum()))
    if ranking.threshold[-1] == -inf:  # nothing is below it: no threshold keeps these
        kept, errors = kept[:-1], errors[:-1]
    narrow, wide, block, bound = fewest - 1, n + 1, 0, nan  # ranks; neither end is looked at
    while wide - narrow > 1:
        rank = (narrow + wide) // 2
        at = np.searchsorted(kept, rank, "right") - 1
        if kept[at] < fewest:  # ties left too few, whatever their labels
            narrow = rank
        elif (upper := _upper(int(errors[at]), int(kept[at]), delta / steps)) <= max_risk:
            narrow, block, bound = rank, at, upper
        else:
            wide = rank
    k, e = int(kept[block]), int(errors[block])
    threshold = np.concatenate((ranking.threshold, [-inf]))[block] if block else inf
    return Guarantee(
        threshold=float(threshold),
        coverage=k / n,
        risk=e / k if k else nan,
        bound=bound,
        found=k > 0,
        kept=k,
        errors=e,
        n=n,
        max_risk=max_risk,
        delta=delta,
        steps=steps,
    )


def hoeffding_bound(largest: float, log_hypotheses: float, n: int, delta: float = 0.05) -> float:
    """How far the risk may lie from the empirical risk for every hypothesis at once (Theorem 3.1).

    ``largest * sqrt((log_hypotheses + log(2 / delta)) / (2 n))``, with probability at least 1 - delta over n
    independent samples, for a loss in [0, largest]. At `largest` or above it says nothing.

    Parameters
    ----------
    largest : of the loss, > 0.
    log_hypotheses : log |F|, >= 0. The paper takes F for finite and does not count it; P parameters of 32 bits give
        ``32 P log 2``.
    n : training samples.
    delta : in (0, 1).

    >>> round(hoeffding_bound(1.0, 0.0, 1000, 0.05), 4)
    0.0429
    """
    _fraction("delta", delta)
    return largest * sqrt((log_hypotheses + log(2 / delta)) / (2 * n))


def _components(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray, NDArray]:
    """Structural components of the AUROC, means over seeds: of right samples (R,), of wrong ones (W,), in [0, 1].

    A right sample's is the share of wrong ones below it, a wrong sample's the share of right ones above, ties counting
    one half: a mid-rank among all minus the mid-rank in its class. NaN where the other class is empty.
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


def _upper(errors: int, n: int, delta: float) -> float:
    """B*: the risk b at which `errors` or fewer among n have probability delta; 1 where all are errors, or n is 0."""
    return float(beta.isf(delta, errors + 1, n - errors)) if errors < n else 1.0


def _steps(n: int) -> int:
    """Bounds computed by a bisection with n outcomes, ceil(log2 n), at least one; in integers."""
    return max(1, (n - 1).bit_length())


def _fewest(max_risk: float, delta: float) -> int:
    """Fewest samples, at least 2, that pass without an error: B* = 1 - delta^(1/n) <= max_risk."""
    return max(2, ceil(log(delta) / log1p(-max_risk)))


def _enough(max_risk: float, delta: float, n: int) -> int:
    """The next number of samples after n with which the guarantee is possible; k grows with it."""
    n += 1
    while (needed := _fewest(max_risk, delta / _steps(n))) > n:
        n = needed
    return n


def _fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie in (0, 1), found {value}")
