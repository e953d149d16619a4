"""How well a confidence tells correct predictions from incorrect ones.

Every function takes ``confidence`` (N,), any real numbers, higher = more to be trusted, and ``correct`` (N,), bool.
Correct predictions are the positive class. Rank on the raw score: a float32 sigmoid saturates near 16.6 and makes ties
that are not there.

All metrics come from one sort, collapsed to distinct thresholds (`rank`): integer counts, float64 ratios, exact, and
with ties treated as what they are, an order nobody knows. One convention each, stated where it is computed. A metric
that does not exist, because all predictions are right or all are wrong, is NaN; `undefined` says why.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

METRICS = ("accuracy", "fpr95", "aupr_error", "aupr_success", "auroc", "tpr", "tnr", "aurc", "eaurc", "augrc")
SEPARABILITY = ("kl", "bhattacharyya")


@dataclass(frozen=True)
class Ranking:
    """Samples grouped by distinct confidence, most confident first.

    threshold : float64 (M,), strictly descending
    right, wrong : int64 (M,), correct and incorrect predictions at exactly that confidence
    """

    threshold: NDArray[np.float64]
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]

    @cached_property
    def size(self) -> NDArray[np.int64]:
        """Samples at exactly that confidence."""
        return self.right + self.wrong

    @cached_property
    def right_kept(self) -> NDArray[np.int64]:
        """Correct predictions at or above each threshold; the last is all of them. So `wrong_kept` and `kept`."""
        return self.right.cumsum()

    @cached_property
    def wrong_kept(self) -> NDArray[np.int64]:
        return self.wrong.cumsum()

    @cached_property
    def kept(self) -> NDArray[np.int64]:
        return self.right_kept + self.wrong_kept

    @property
    def n(self) -> int:
        """All samples."""
        return int(self.kept[-1])


def rank(confidence: ArrayLike, correct: ArrayLike) -> Ranking:
    """Sort once and collapse ties.

    Raises
    ------
    ValueError : when an array is empty or not 1-d, lengths differ, a confidence is NaN or no real number, or `correct`
        holds anything but 0 and 1. Infinite confidences are allowed: they are ordered.
    """
    confidence, correct = _check(confidence, correct)
    order, last = sorted_blocks(confidence)
    right = correct[order].astype(np.int64)
    return Ranking(confidence[order[last]], collapse(right, last), collapse(1 - right, last))


def sorted_blocks(confidence: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The order that sorts confidences, highest first, int64 (N,), and where in it each block of ties ends, (M,)."""
    order = np.argsort(-confidence)
    value = confidence[order]
    return order, np.flatnonzero(np.concatenate((value[1:] != value[:-1], [True])))


def collapse(count: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums of counts (N,) over blocks whose last is at `last` (M,): (M,)."""
    return np.diff(count.cumsum()[last], prepend=0)


def evaluate(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    threshold: float = 0.0,
    tnr_threshold: float | None = None,
) -> dict[str, float]:
    """The paper's metrics, the areas under the risk-coverage curves, and the share of ties.

    Parameters
    ----------
    confidence : float (N,), higher = more to be trusted; an oracle's `z`, MCP, ...
    correct : bool (N,).
    threshold : a prediction is trusted when its confidence is above it: 0 for `z`, 0.5 for a probability.
    tnr_threshold : where it differs for `tnr`; the paper counts TCP's true negatives at or below sigmoid(z) = 1/K.

    Returns
    -------
    Fractions in [0, 1], or NaN where `undefined` gives a reason:

    accuracy : share of correct predictions
    fpr95 : lowest share of incorrect predictions trusted, among thresholds that trust at least 95 % of the correct ones
    aupr_error, aupr_success : average precision with wrong (right) predictions as the positive class
    auroc : probability that a correct prediction outranks an incorrect one, ties counting one half
    tpr, tnr : share of correct predictions trusted, of incorrect predictions not trusted
    aurc : mean over n = 1..N of the risk among the n most confident, in expectation over the order of ties [1]_
    eaurc : aurc minus that of a confidence that ranks every correct prediction above every incorrect one [1]_, exactly
    augrc : area under the share of silent failures against coverage, from (0, 0), straight across ties [2]_; the mean
        over n = 1..N, which others compute, is larger by (1 - accuracy) / 2N
    tied : share of samples whose confidence another sample has too

    References
    ----------
    .. [1] Geifman, Uziel and El-Yaniv, "Bias-reduced uncertainty estimation for deep neural classifiers", ICLR 2019.
    .. [2] Traub et al., "Overcoming common flaws in the evaluation of selective classification systems", 2024, Eq. (6).

    Examples
    --------
    >>> scores = evaluate([0.9, 0.8, 0.7, 0.6], [True, True, False, True], threshold=0.5)
    >>> round(scores["auroc"], 4), scores["tpr"], scores["tnr"]
    (0.6667, 1.0, 0.0)
    """
    ranking = rank(confidence, correct)
    size = ranking.size
    return of_ranking(ranking, threshold, tnr_threshold) | {"tied": float(size[size > 1].sum() / size.sum())}


def of_ranking(ranking: Ranking, threshold: float = 0.0, tnr_threshold: float | None = None) -> dict[str, float]:
    """All of `METRICS`, see `evaluate`."""
    right, wrong, n = int(ranking.right_kept[-1]), int(ranking.wrong_kept[-1]), ranking.n
    n_right, n_wrong, accuracy = right or np.nan, wrong or np.nan, right / n
    # counts are whole numbers, exact in float64 up to 2^53; products of totals beyond it are rounded to 16 digits
    right_below = right - ranking.right_kept + 0.5 * ranking.right  # ties count one half
    inversions = (ranking.wrong * right_below).sum()
    found, seen = (
        wrong - ranking.wrong_kept + ranking.wrong,
        n - ranking.kept + ranking.size,
    )  # from the least confident
    aurc = _aurc(ranking)
    tnr_threshold = threshold if tnr_threshold is None else tnr_threshold
    values = {
        "accuracy": accuracy,
        "fpr95": fpr_at_tpr(ranking),
        "aupr_error": (ranking.wrong * (found / seen)).sum() / n_wrong,
        "aupr_success": (ranking.right * (ranking.right_kept / ranking.kept)).sum() / n_right,
        "auroc": 1 - inversions / (n_right * n_wrong),
        "tpr": ranking.right[ranking.threshold > threshold].sum() / n_right,
        "tnr": ranking.wrong[~(ranking.threshold > tnr_threshold)].sum() / n_wrong,
        "aurc": aurc,
        "eaurc": aurc - best_aurc(right, n),
        # = acc (1 - acc) (1 - AUROC) + (1 - acc)^2 / 2, and it exists where AUROC does not
        "augrc": inversions / n**2 + (1 - accuracy) ** 2 / 2,
    }
    return {name: float(value) for name, value in values.items()}


def auroc_within(confidence: ArrayLike, correct: ArrayLike, groups: ArrayLike) -> float:
    """AUROC over the pairs of a correct and an incorrect prediction that share a group, such as the predicted class.

    With C_g and I_g the correct and the incorrect predictions of group g,

        sum over g, i in C_g, j in I_g of [c_i > c_j] + [c_i = c_j] / 2,  over  sum over g of |C_g| |I_g|

    that is, the AUROC of each group, weighted by its number of pairs. A confidence that depends on the group alone has
    0.5: what it gains over that in `evaluate`'s auroc is the difficulty of the groups.

    Parameters
    ----------
    groups : (N,), any values that can be sorted.

    Returns
    -------
    Fraction in [0, 1]; NaN where no group has both kinds.

    Raises
    ------
    ValueError : as `rank`, and when the length of `groups` differs.
    """
    confidence, correct = _check(confidence, correct)
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    if member.shape != confidence.shape:
        raise ValueError(f"expected groups of length {len(confidence)}, found shape {np.shape(groups)}")
    ordered, pairs = 0.0, 0
    for index in range(len(names)):
        ranking = rank(confidence[member == index], correct[member == index])
        ordered += float((ranking.wrong * (ranking.right_kept - ranking.right / 2)).sum())
        pairs += int(ranking.right_kept[-1] * ranking.wrong_kept[-1])
    return ordered / pairs if pairs else np.nan


def undefined(correct: ArrayLike) -> dict[str, str]:
    """The metrics that do not exist for these labels, each with its reason.

    >>> undefined([True, True])["tnr"]
    'all 2 predictions are right: there is no incorrect one to find'
    """
    correct = np.asarray(correct, bool)
    every = "the only prediction is" if correct.size == 1 else f"all {correct.size:,} predictions are"
    if correct.all():
        reason = f"{every} right: there is no incorrect one to find"
        return dict.fromkeys(("fpr95", "aupr_error", "auroc", "tnr", *SEPARABILITY), reason)
    if not correct.any():
        reason = f"{every} wrong: there is no correct one to trust"
        return dict.fromkeys(("fpr95", "aupr_success", "auroc", "tpr", *SEPARABILITY), reason)
    return {}


def fpr_at_tpr(ranking: Ranking, tpr: float = 0.95) -> float:
    """Lowest false positive rate among thresholds whose true positive rate is at least `tpr`; NaN for one class.

    The comparison is made in integers: 0.95 of 60 is 57, whatever the floats say.
    """
    right, wrong = int(ranking.right_kept[-1]), int(ranking.wrong_kept[-1])
    if right == 0 or wrong == 0:
        return np.nan
    share = Fraction(str(tpr))
    needed = -(-right * share.numerator // share.denominator)  # the ceiling
    return float(ranking.wrong_kept[np.searchsorted(ranking.right_kept, needed)] / wrong)


def tnr_at_tpr(ranking: Ranking, tpr: float = 0.95) -> float:
    """Highest true negative rate among thresholds whose true positive rate is at least `tpr`: 1 - `fpr_at_tpr`.

    Two scores compared at z = 0 stand at different operating points; matched so, they stand at one.
    """
    return 1 - fpr_at_tpr(ranking, tpr)


def average_precision(positive: NDArray[np.int64], negative: NDArray[np.int64]) -> float:
    """Average precision, sum of (R_k - R_(k-1)) P_k over distinct thresholds k, as scikit-learn has it.

    Parameters
    ----------
    positive, negative : int (M,), samples of either class at each distinct threshold, first found first.

    Returns
    -------
    float in (0, 1]; NaN without a positive.
    """
    found = positive.cumsum()
    precision = found / (found + negative.cumsum())
    return float((positive * precision).sum() / (found[-1] or np.nan))


def coverage_at_risk(ranking: Ranking, risk: float) -> float:
    """Largest coverage whose share of errors on these samples is at most `risk`; 0 where there is none.

    Chosen on the samples it is counted on: see `statistics.guaranteed_threshold` for one that holds on new ones.

    Raises
    ------
    ValueError : for a risk outside [0, 1].
    """
    if not 0 <= risk <= 1:
        raise ValueError(f"coverage_at_risk: risk must lie in [0, 1], found {risk}")
    share = as_fraction(risk)
    safe = np.flatnonzero(ranking.wrong_kept * share.denominator <= ranking.kept * share.numerator)
    return float(ranking.kept[safe[-1]] / ranking.n) if len(safe) else 0.0


def as_fraction(share: float) -> Fraction:
    """A share as its decimals say, to nine of them and more: 5/100 for 0.05; times a count it fits into int64.

    >>> as_fraction(0.05), as_fraction(0.1 + 0.2)
    (Fraction(1, 20), Fraction(3, 10))
    """
    return Fraction(str(share)).limit_denominator(10**9)


def roc_curve(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray, NDArray, NDArray]:
    """The ROC curve, one point a distinct threshold after (0, 0).

    Returns
    -------
    fpr, tpr : float64 (M + 1,) in [0, 1], ascending from 0 to 1; NaN for a class without samples.
    threshold : float64 (M + 1,), inf and then strictly descending; trusted are confidences at or above it.
    """
    ranking = rank(confidence, correct)
    fpr, tpr = (_from_zero(c) / (c.sum() or np.nan) for c in (ranking.wrong, ranking.right))
    return fpr, tpr, np.concatenate(([np.inf], ranking.threshold))


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray, NDArray]:
    """The risk-coverage curve (Fig. 4a), one point a distinct threshold.

    Returns
    -------
    coverage : float64 (M,) in (0, 1], ascending; the share of samples kept. There is no risk at coverage 0.
    risk : float64 (M,) in [0, 1], the share of errors among the samples kept.
    """
    ranking = rank(confidence, correct)
    return ranking.kept / ranking.n, ranking.wrong_kept / ranking.kept


def separability(confidence: ArrayLike, correct: ArrayLike) -> dict[str, float]:
    """How far apart the confidences of correct and incorrect predictions lie, both taken for normal (Appendix G).

    Normals are fitted by mean and unbiased standard deviation. The paper fits them to sigmoid(z).

    Returns
    -------
    kl : the Kullback-Leibler divergence averaged over its two directions, nats, [0, inf);
        KL(1, 2) = log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2
    bhattacharyya : (m1 - m2)^2 / (4 (s1^2 + s2^2)) + log((s1^2 + s2^2) / (2 s1 s2)) / 2, nats, [0, inf)

    Both are NaN where a class has fewer than two samples, or no spread.
    """
    found = normal_distances(*fit_normals(confidence, correct))
    return {name: float(value) for name, value in found.items()}


def normal_distances(m1: ArrayLike, s1: ArrayLike, m2: ArrayLike, s2: ArrayLike) -> dict[str, NDArray]:
    """`separability` from means and deviations, arrays of one shape."""
    m1, s1, m2, s2 = (np.asarray(part, float) for part in (m1, s1, m2, s2))
    s1, s2 = (np.where((s1 > 0) & (s2 > 0), s, np.nan) for s in (s1, s2))
    gap = (m1 - m2) ** 2
    return {
        "kl": (s1**2 + gap) / (4 * s2**2) + (s2**2 + gap) / (4 * s1**2) - 0.5,  # the logarithms cancel
        "bhattacharyya": gap / (4 * (s1**2 + s2**2)) + np.log((s1**2 + s2**2) / (2 * s1 * s2)) / 2,
    }


def fit_normals(confidence: ArrayLike, correct: ArrayLike) -> tuple[float, float, float, float]:
    """(mean, deviation) of the confidences of correct predictions, then of incorrect ones; NaN below two samples."""
    confidence, correct = _check(confidence, correct)
    fitted = []
    for group in (confidence[correct], confidence[~correct]):
        fitted += [group.mean(), group.std(ddof=1)] if len(group) > 1 else [np.nan, np.nan]
    m1, s1, m2, s2 = map(float, fitted)
    return m1, s1, m2, s2


def _aurc(ranking: Ranking) -> float:
    """Mean risk over n = 1..N, in expectation over the order within each tied block.

    In a block of m samples, error rate r, after k0 samples with E0 errors, the expected risks sum to
    r m + (E0 - r k0) (H(k0 + m) - H(k0)), H being the harmonic numbers.
    """
    kept, errors = ranking.kept - ranking.size, ranking.wrong_kept - ranking.wrong  # before the block
    rate = ranking.wrong / ranking.size
    steps = np.diff(harmonic(ranking.n)[ranking.kept], prepend=0)
    return (ranking.wrong_kept[-1] + ((errors - rate * kept) * steps).sum()) / ranking.n


def best_aurc(right: NDArray | int, n: NDArray | int) -> NDArray | float:
    """AURC where all correct predictions come first: the sum over k > R of (k - R) / k, over n; of integers."""
    of = harmonic(int(np.max(n)))
    return (n - right - right * (of[n] - of[right])) / n


@lru_cache(maxsize=1)
def harmonic(n: int) -> NDArray[np.float64]:
    """Harmonic numbers H(0), ..., H(n); a bootstrap looks them up, which takes it less time than the formula."""
    return digamma(np.arange(1.0, n + 2)) + np.euler_gamma


def _from_zero(count: NDArray) -> NDArray:
    return np.concatenate(([0], count.cumsum()))


def _check(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    confidence, correct = np.asarray(confidence), np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape or confidence.size == 0:
        raise ValueError(
            f"expected confidence and correct of one length (N,), N >= 1, found {confidence.shape} and {correct.shape}"
        )
    if correct.dtype != bool:
        if not np.isin(correct, (0, 1)).all():
            raise ValueError(f"correct must be boolean (or 0 and 1), found {correct.dtype} {np.unique(correct)[:5]}")
        correct = correct.astype(bool)
    if confidence.dtype.kind not in "biuf":
        raise ValueError(f"confidence must be real numbers, found an array of {confidence.dtype}")
    confidence = confidence.astype(np.float64)
    if np.isnan(confidence).any():
        bad = np.flatnonzero(np.isnan(confidence))
        raise ValueError(f"confidence is NaN in {bad.size} of {confidence.size} places, the first at {bad[0]}")
    return confidence, correct
