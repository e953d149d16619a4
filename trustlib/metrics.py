"""How well a confidence tells right predictions from wrong ones.

Every function takes ``confidence`` (N,), any real numbers, higher = more to be trusted, and ``correct`` (N,), bool.
Right predictions are the positive class. Rank on the raw score: a float32 sigmoid saturates near 16.6 and makes ties
that are not there.

All metrics come from one sort, collapsed to distinct thresholds (`rank`): integer counts, float64 ratios, exact, and
with ties treated as what they are, an order nobody knows. One convention each, stated where it is computed. A metric
that does not exist, because all predictions are right or all are wrong, is NaN; `undefined` says why.
"""

from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import digamma

METRICS = ("accuracy", "fpr95", "aupr_error", "aupr_success", "auroc", "tpr", "tnr", "aurc", "augrc")
SEPARABILITY = ("kl", "bhattacharyya")


@dataclass(frozen=True)
class Ranking:
    """Samples grouped by distinct confidence, most confident first.

    threshold : float64 (M,), strictly descending
    right, wrong : int64 (M,), right and wrong predictions at exactly that confidence
    """

    threshold: NDArray[np.float64]
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]

    @property
    def n(self) -> int:
        return int(self.right.sum() + self.wrong.sum())


def rank(confidence: ArrayLike, correct: ArrayLike) -> Ranking:
    """Sort once and collapse ties.

    Raises
    ------
    ValueError : when an array is empty or not 1-d, lengths differ, a confidence is NaN, or `correct` holds anything
        but 0 and 1. Infinite confidences are allowed: they are ordered.
    """
    confidence, correct = _check(confidence, correct)
    order = np.argsort(-confidence)
    value, right = confidence[order], correct[order]
    start = np.flatnonzero(np.concatenate(([True], value[1:] != value[:-1])))  # first sample of each block
    size = np.diff(start, append=len(value))
    right = np.add.reduceat(right, start, dtype=np.int64)
    return Ranking(value[start], right, size - right)


def evaluate(
    confidence: ArrayLike, correct: ArrayLike, *, threshold: float = 0.0, tnr_threshold: float | None = None
) -> dict[str, float]:
    """The paper's metrics, and the areas under the risk-coverage curves.

    Parameters
    ----------
    confidence : float (N,), higher = more to be trusted; an oracle's `z`, MCP, ...
    correct : bool (N,).
    threshold : a prediction is trusted when its confidence is above it: 0 for `z`, 0.5 for a probability.
    tnr_threshold : where it differs for `tnr`; the paper counts TCP's true negatives at or below sigmoid(z) = 1/K.

    Returns
    -------
    Fractions in [0, 1], or NaN where `undefined` gives a reason:

    accuracy : share of right predictions
    fpr95 : lowest share of wrong predictions trusted, among thresholds that trust at least 95 % of the right ones
    aupr_error, aupr_success : average precision with wrong (right) predictions as the positive class
    auroc : probability that a right prediction outranks a wrong one, ties counting one half
    tpr, tnr : share of right predictions trusted, of wrong predictions not trusted
    aurc : mean over n = 1..N of the risk among the n most confident, in expectation over the order of ties [1]_
    augrc : area under the share of silent failures against coverage, from (0, 0), straight across ties [2]_

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
    right, wrong, n = int(ranking.right.sum()), int(ranking.wrong.sum()), ranking.n
    trusted = ranking.threshold > threshold
    distrusted = ~(ranking.threshold > (threshold if tnr_threshold is None else tnr_threshold))
    inversions = _inversions(ranking)
    return {
        "accuracy": right / n,
        "fpr95": fpr_at_tpr(ranking),
        "aupr_error": average_precision(ranking.wrong[::-1], ranking.right[::-1]),
        "aupr_success": average_precision(ranking.right, ranking.wrong),
        "auroc": 1 - inversions / (right * wrong) if right and wrong else np.nan,
        "tpr": ranking.right[trusted].sum().item() / right if right else np.nan,
        "tnr": ranking.wrong[distrusted].sum().item() / wrong if wrong else np.nan,
        "aurc": _aurc(ranking),
        # = acc (1 - acc) (1 - AUROC) + (1 - acc)^2 / 2, and it exists where AUROC does not
        "augrc": inversions / n**2 + (wrong / n) ** 2 / 2,
    }


def undefined(correct: ArrayLike) -> dict[str, str]:
    """The metrics that do not exist for these labels, each with its reason.

    >>> undefined([True, True])["tnr"]
    'all 2 predictions are right: there is no wrong one to find'
    """
    correct = np.asarray(correct, bool)
    if correct.all():
        reason = f"all {correct.size} predictions are right: there is no wrong one to find"
        return dict.fromkeys(("fpr95", "aupr_error", "auroc", "tnr", *SEPARABILITY), reason)
    if not correct.any():
        reason = f"all {correct.size} predictions are wrong: there is no right one to trust"
        return dict.fromkeys(("fpr95", "aupr_success", "auroc", "tpr", *SEPARABILITY), reason)
    return {}


def fpr_at_tpr(ranking: Ranking, tpr: float = 0.95) -> float:
    """Lowest false positive rate among thresholds whose true positive rate is at least `tpr`; NaN for one class.

    The comparison is made in integers: 0.95 of 60 is 57, whatever the floats say.
    """
    right, wrong = ranking.right.cumsum(), ranking.wrong.cumsum()
    if right[-1] == 0 or wrong[-1] == 0:
        return np.nan
    needed = ceil(Fraction(str(tpr)) * int(right[-1]))
    return (wrong[np.searchsorted(right, needed)] / wrong[-1]).item()


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
    if found[-1] == 0:
        return np.nan
    precision = found / (found + negative.cumsum())
    return float(positive @ precision / found[-1])


def risk_coverage(confidence: ArrayLike, correct: ArrayLike) -> tuple[NDArray, NDArray]:
    """The risk-coverage curve (Fig. 4a), one point a distinct threshold.

    Returns
    -------
    coverage : float64 (M,) in (0, 1], ascending; the share of samples kept. There is no risk at coverage 0.
    risk : float64 (M,) in [0, 1], the share of errors among the samples kept.
    """
    ranking = rank(confidence, correct)
    kept = (ranking.right + ranking.wrong).cumsum()
    return kept / kept[-1], ranking.wrong.cumsum() / kept


def separability(confidence: ArrayLike, correct: ArrayLike) -> dict[str, float]:
    """How far apart the confidences of right and wrong predictions lie, both taken for normal (Appendix G).

    Normals are fitted by mean and unbiased standard deviation. The paper fits them to sigmoid(z).

    Returns
    -------
    kl : the Kullback-Leibler divergence averaged over its two directions, nats, [0, inf);
        KL(1, 2) = log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1/2
    bhattacharyya : (m1 - m2)^2 / (4 (s1^2 + s2^2)) + log((s1^2 + s2^2) / (2 s1 s2)) / 2, nats, [0, inf)

    Both are NaN where a class has fewer than two samples, or no spread.
    """
    m1, s1, m2, s2 = fit_normals(confidence, correct)
    if not (s1 > 0 and s2 > 0):
        return {"kl": np.nan, "bhattacharyya": np.nan}
    gap = (m1 - m2) ** 2
    kl = (s1**2 + gap) / (4 * s2**2) + (s2**2 + gap) / (4 * s1**2) - 0.5  # the logarithms cancel
    return {
        "kl": float(kl),
        "bhattacharyya": float(gap / (4 * (s1**2 + s2**2)) + np.log((s1**2 + s2**2) / (2 * s1 * s2)) / 2),
    }


def fit_normals(confidence: ArrayLike, correct: ArrayLike) -> tuple[float, float, float, float]:
    """(mean, deviation) of the confidences of right predictions, then of wrong ones; NaN below two samples."""
    confidence, correct = _check(confidence, correct)
    fitted = []
    for group in (confidence[correct], confidence[~correct]):
        fitted += [group.mean(), group.std(ddof=1)] if len(group) > 1 else [np.nan, np.nan]
    return tuple(map(float, fitted))


def _inversions(ranking: Ranking) -> float:
    """Pairs in which a wrong prediction outranks a right one, ties counting one half."""
    wrong_above = ranking.wrong.cumsum() - ranking.wrong
    return (ranking.right * (2 * wrong_above + ranking.wrong)).sum().item() / 2


def _aurc(ranking: Ranking) -> float:
    """Mean risk over n = 1..N, in expectation over the order within each tied block.

    In a block of m samples, error rate r, after k0 samples with E0 errors, the expected risks sum to
    r m + (E0 - r k0) (H(k0 + m) - H(k0)), H being the harmonic numbers.
    """
    size = ranking.right + ranking.wrong
    after = size.cumsum()
    before = after - size
    errors_before = ranking.wrong.cumsum() - ranking.wrong
    rate = ranking.wrong / size
    harmonic = digamma(after + 1.0) - digamma(before + 1.0)
    return float((ranking.wrong + (errors_before - rate * before) * harmonic).sum() / ranking.n)


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
    confidence = confidence.astype(np.float64)
    if np.isnan(confidence).any():
        bad = np.flatnonzero(np.isnan(confidence))
        raise ValueError(f"confidence is NaN in {bad.size} of {confidence.size} places, the first at {bad[0]}")
    return confidence, correct
