"""Selective prediction with a guarantee.

Arrays as in `statistics`: ``confidence`` (N,), higher = more to be trusted, ``correct`` (N,), bool; a prediction is
kept when its confidence is *above* the threshold, and the risk is the share of errors among the kept. All of it takes
the rows for independent draws from one distribution, and the confidence for a function that was fixed before.
"""

from bisect import bisect_left
from dataclasses import asdict, dataclass
from functools import cache
from math import ceil, inf, log, log1p, nan

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc, betainccinv

from .. import metrics
from .rates import _fraction

RULES = ("sgr", "fixed-sequence", "both")
COVERAGES = tuple(percent / 100 for percent in range(5, 101, 5))  # of `risk_bounds`


@dataclass(frozen=True)
class Guarantee:
    """A threshold whose risk on new data is bounded, or the news that there is none; see `guaranteed_threshold`.

    threshold : a prediction is kept when its confidence is above it; -inf keeps all, inf (none found) keeps nothing
    coverage, risk : share of the test samples kept, share of errors among those, both in [0, 1]; risk is NaN for none
    bound : exact upper bound of the true risk of this set by itself; at most `max_risk`, NaN for none
    found : whether a threshold qualifies
    kept, errors, n : the counts behind it
    max_risk, delta : what was asked for
    steps : bounds the search may compute; each gets ``delta / steps``
    rule : of `RULES`, which chose it; "simultaneous" where it is of `best_risk`
    clusters : whether a row stands for a cluster, one drawn from each
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
    rule: str = "sgr"
    clusters: bool = False

    def __str__(self) -> str:
        return self.sentence()

    def sentence(self, meaning: str = "") -> str:
        """What is guaranteed, in words; `meaning` says after the threshold what a number of this confidence is."""
        rows = "predictions, one drawn from each cluster," if self.clusters else "predictions"
        if not self.found:
            return (
                f"No threshold qualifies: on these {self.n:,} {rows} the search found none whose share of errors "
                f"is shown to be at most {self.max_risk:.2%} with probability {1 - self.delta:g}."
            )
        above = f"a prediction when its confidence is above {in_full(self.threshold)}{meaning and f' ({meaning})'}"
        return (
            f"Keep {'every prediction' if self.threshold == -inf else above}: that keeps "
            f"{self.coverage:.2%} of these {self.n:,} {rows} with {self.risk:.2%} errors, and on new data "
            f"like them the share of errors is at most {self.max_risk:.2%} with probability {1 - self.delta:g} "
            f"(bound {self.bound:.2%})."
        )


def in_full(x: float) -> str:
    """A number with all the digits that it takes to read the same one back: a shorter threshold keeps other samples.

    >>> in_full(471.0), in_full(0.1 + 0.2)
    ('471', '0.30000000000000004')
    """
    return repr(float(x)).removesuffix(".0")


def guaranteed_threshold(
    confidence: ArrayLike,
    correct: ArrayLike,
    max_risk: float,
    delta: float = 0.001,
    rule: str = "sgr",
    *,
    cluster: ArrayLike | None = None,
    seed: int = 0,
) -> Guarantee:
    """The widest coverage found whose risk on new data is at most `max_risk`, with probability 1 - `delta`.

    Two rules, each proved where it is computed; which one is chosen before labels are seen:

    sgr : bisection of the coverage [1]_. Its 1 - delta supposes that the risk does not fall as more is kept.
    fixed-sequence : one prediction more at a time, until the first set that does not pass [2]_. It supposes nothing of
        the risk, usually keeps more, and stops early where the most confident predictions are the incorrect ones.
    both : the wider of the two, each at delta / 2.

    Parameters
    ----------
    confidence, correct : (N,), independent draws; `confidence` a function fixed before they were drawn.
    max_risk : share of errors among the kept, in (0, 1).
    delta : chance of being wrong, in (0, 1).
    rule : of `RULES`.
    cluster : (N,) names, where rows depend on each other within a cluster (patient, video) and clusters are independent
        draws. One row of each, drawn by `seed` before labels are seen, is independent of all others: the guarantee is
        exact for a random row of a random new cluster. Rows of a large cluster count for less in that risk than in the
        share of errors among all rows; the two are equal where clusters are of one size, or their size tells nothing.
    seed : of that draw, and of the order of ties in a fixed sequence.

    Returns
    -------
    Guarantee; `found` is False when no set passed.

    Raises
    ------
    ValueError : as `metrics.rank` does; for `max_risk` or `delta` outside (0, 1) and another rule; and when there are
        too few samples for any outcome to give the guarantee, naming how many are needed.

    References
    ----------
    .. [1] Geifman and El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017.
    .. [2] Angelopoulos et al., "Learn then test: calibrating predictive algorithms to achieve risk control", 2021.

    Examples
    --------
    >>> confidence = np.arange(1000)
    >>> print(guaranteed_threshold(confidence, confidence >= 500, max_risk=0.1))  # doctest: +ELLIPSIS
    Keep a prediction when its confidence is above 471: that keeps 52.80% of these 1,000 predictions with 5.30% ...
    """
    _fraction("max_risk", max_risk)
    _fraction("delta", delta)
    if rule not in RULES:
        raise ValueError(f"expected a rule of {', '.join(RULES)}, found {rule!r}")
    if cluster is not None:
        if np.shape(cluster) != np.shape(confidence):
            raise ValueError(f"expected clusters of shape {np.shape(confidence)}, found {np.shape(cluster)}")
        rows = one_per_cluster(cluster, seed)
        confidence, correct = np.asarray(confidence)[rows], np.asarray(correct)[rows]
    ranking = metrics.rank(confidence, correct)
    n = ranking.n
    if n < _fewest(max_risk, float(_level(n, delta, rule))):
        what = "cluster" if cluster is not None else "sample"
        raise ValueError(
            f"{n} {what}{'s' * (n != 1)} cannot show a risk of at most {max_risk:g} with delta {delta:g}, even without "
            f"an error: at least {_enough(max_risk, delta, rule, n)} are needed"
        )
    # the blocks of ties strictly above each rank: rank m, 1-based, keeps the blocks that end at or before m
    kept, errors = _kept(ranking)
    found, share, steps = [], delta / 2 if rule == "both" else delta, 1
    if rule != "sgr":
        found.append(_fixed_sequence(ranking, kept, errors, max_risk, share, seed))
    if rule != "fixed-sequence":
        steps = int(_steps(n))
        found.append(_sgr(kept, errors, n, max_risk, share / steps))
    block, bound = max(found, key=lambda one: one[0])
    k, e = int(kept[block]), int(errors[block])
    threshold = np.concatenate((ranking.threshold, [-inf]))[block] if block else inf
    return Guarantee(
        threshold=float(threshold), coverage=k / n, risk=e / k if k else nan, bound=bound, found=k > 0, kept=k,
        errors=e, n=n, max_risk=max_risk, delta=delta, steps=steps, rule=rule, clusters=cluster is not None,
    )  # fmt: skip


def _sgr(kept: NDArray, errors: NDArray, n: int, max_risk: float, level: float) -> tuple[int, float]:
    """(how many blocks are kept, bound): Algorithm 1 of Geifman and El-Yaniv.

    Bisect the sorted confidences; a set of kept predictions passes when the exact binomial upper bound B* of its risk
    (Lemma 3.1; Clopper and Pearson, one-sided, at delta / k) is at most `max_risk`; a passing set is widened, another
    narrowed. The answer is the last set that passed, with its bound.

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
    """
    fewest = _fewest(max_risk, level)
    narrow, wide, block, bound = fewest - 1, n + 1, 0, nan  # ranks; neither end is looked at
    while wide - narrow > 1:
        rank = (narrow + wide) // 2
        at = np.searchsorted(kept, rank, "right") - 1
        if kept[at] < fewest:  # ties left too few, whatever their labels
            narrow = rank
        elif (upper := _upper(int(errors[at]), int(kept[at]), level)) <= max_risk:
            narrow, block, bound = rank, int(at), upper
        else:
            wide = rank
    return block, bound


def _fixed_sequence(
    ranking: metrics.Ranking, kept: NDArray, errors: NDArray, max_risk: float, level: float, seed: int
) -> tuple[int, float]:
    """(how many blocks are kept, bound): the m most confident, m = s, s + 1, ..., n, until one set does not pass.

    A set of m with e errors passes when a binomial of m draws at r = `max_risk` has e or fewer with probability at
    most `level`. s is the smallest set that passes with one error; where there are fewer than s rows, with none. Ties
    are put in a random order first; kept is the widest set that passed and splits no tie.

    With probability 1 - `level`, the risk above the threshold is at most r. Proof. Let q in [0, 1] be a row's place in
    that order: the probability that a new row comes before it. Places are independent and uniform. A cut at q keeps all
    rows before; D(q) = P(a new row is before q and an error) - r q says how much too risky that is. D is continuous
    (the random order within ties makes it so), and D(0) = 0; the cuts with D > 0 form intervals, and D = 0 at their
    ends, but for an end at 1. Suppose they are finitely many. Let N(a) be the number of rows before a.

    1. Given the numbers of rows before each end, rows between two ends are independent and errors with probability r:
       the errors among the N(a) before an interval (a, b) are binomial with r.
    2. The set of m shows that each cut from its last row to the next one is safe. The first set of the sequence for
       which that is false is m = N(a) for an interval, or s where it begins within one, N(a) < s <= N(b). The numbers
       of step 1 determine which. In the second case the s - N(a) rows after a are errors with more than r, given the
       next row's place, or with exactly r (for b = 1 more) where they are all rows of the interval.
    3. So, given these numbers, that set has at least as many errors as a binomial of m draws at r: it passes with
       probability at most `level`. Unless it does, the search stops there or before, and all that passed is true.
    4. A set that splits no tie is cut by its threshold between its last row and the next.

    Intervals with D > x somewhere are finitely many, since D' <= 1: the proof holds for these, then let x fall to 0.
    Nothing is supposed of how the risk rises or falls. What is conditioned on is a number of rows, never a confidence.
    """
    n = ranking.n
    start = _with_one_error(max_risk, level)
    start = start if start <= n else _fewest(max_risk, level)
    blocks = np.arange(len(ranking.threshold))
    order = np.lexsort((np.random.default_rng(seed).random(n), np.repeat(blocks, ranking.size)))
    counts = np.stack((ranking.wrong, ranking.right), 1).ravel()
    wrong = np.repeat(np.tile([True, False], len(blocks)), counts)[order]
    ranks = np.unique([start, *np.flatnonzero(wrong) + 1])  # between errors a set that passes is only widened
    ranks = ranks[ranks >= start]
    passes = _at_most(wrong.cumsum()[ranks - 1], ranks, max_risk) <= level
    last = n if passes.all() else int(ranks[passes.argmin()]) - 1
    block = int(np.searchsorted(kept, last, "right")) - 1
    if kept[block] < start:
        return 0, nan
    return block, _upper(int(errors[block]), int(kept[block]), level)


def one_per_cluster(cluster: ArrayLike, seed: int = 0) -> NDArray[np.int64]:
    """One row of each cluster, drawn at random without its label: int64 (clusters,), ascending.

    cluster : (N,) names.
    """
    names = np.asarray(cluster)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    return np.sort(shuffled[np.unique(names[shuffled], return_index=True)[1]])


def group_thresholds(
    confidence: ArrayLike,
    correct: ArrayLike,
    group: ArrayLike,
    max_risk: float,
    delta: float = 0.001,
    rule: str = "sgr",
    *,
    cluster: ArrayLike | None = None,
) -> pd.DataFrame:
    """`guaranteed_threshold` of each group by itself at delta / G: all of them hold with probability 1 - delta.

    group : (N,) names; which groups there are is fixed beforehand.

    Returns
    -------
    One row per group: the fields of `Guarantee`, and in `reason` why there is none.
    """
    values, right, member = np.asarray(confidence), np.asarray(correct), np.asarray(group)
    names, rows = np.unique(member), {}
    for name in names:
        own = member == name
        depends = None if cluster is None else np.asarray(cluster)[own]
        try:
            found = guaranteed_threshold(values[own], right[own], max_risk, delta / len(names), rule, cluster=depends)
            rows[name] = asdict(found) | {"reason": "" if found.found else str(found)}
        except ValueError as error:
            rows[name] = {"found": False, "n": int(own.sum()), "reason": str(error)}
    return pd.DataFrame.from_dict(rows, orient="index")


def risk_bounds(confidence: ArrayLike, correct: ArrayLike, delta: float = 0.001) -> pd.DataFrame:
    """Upper bounds of the risk at every coverage of `COVERAGES`, all of which hold at once with probability 1 - delta.

    Kept are the predictions above the confidence that follows the m most confident, m = ceil(coverage N), fewer where
    these tie: given that confidence, they are independent draws from all above it, and the Clopper-Pearson bound at
    delta / J, J coverages, fails with at most this probability. Nothing is supposed of the risk.

    Returns
    -------
    One row per coverage: threshold, coverage (reached), kept, errors, risk, bound.
    """
    _fraction("delta", delta)
    ranking = metrics.rank(confidence, correct)
    kept, errors = _kept(ranking)
    ranks = [ceil(coverage * ranking.n - 1e-9) for coverage in COVERAGES]
    at = np.searchsorted(kept, ranks, "right") - 1
    bound = [_upper(int(e), int(k), delta / len(ranks)) for e, k in zip(errors[at], kept[at], strict=True)]
    frame = pd.DataFrame({"kept": kept[at], "errors": errors[at], "bound": bound}, pd.Index(COVERAGES, name="wished"))
    frame["threshold"] = np.where(at > 0, np.concatenate((ranking.threshold, [-inf]))[at], inf)
    frame["coverage"], frame["risk"] = frame["kept"] / ranking.n, frame["errors"] / frame["kept"].where(at > 0)
    return frame[["threshold", "coverage", "kept", "errors", "risk", "bound"]]


def best_risk(confidence: ArrayLike, correct: ArrayLike, delta: float = 0.001) -> Guarantee:
    """The smallest risk that can be guaranteed, and where: the lowest of `risk_bounds`, chosen after seeing them.

    All of these hold at once, so that the choice costs nothing more. A statement made only where
    `guaranteed_threshold` has found nothing is another one: for a chance of `delta` that either is wrong, halve it.
    `max_risk` of what is returned is the bound, rounded up to a hundredth of a per cent.
    """
    bounds = risk_bounds(confidence, correct, delta)
    best = bounds.iloc[int(bounds["bound"].argmin())]
    return Guarantee(
        threshold=float(best["threshold"]), coverage=float(best["coverage"]), risk=float(best["risk"]),
        bound=float(best["bound"]), found=bool(best["bound"] < 1), kept=int(best["kept"]), errors=int(best["errors"]),
        n=len(np.asarray(correct)), max_risk=ceil(best["bound"] * 1e4) / 1e4, delta=delta, steps=len(bounds),
        rule="simultaneous",
    )  # fmt: skip


def _kept(ranking: metrics.Ranking) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many predictions, and errors, are in the first 0, 1, ... blocks of ties that some threshold keeps."""
    kept, errors = (np.concatenate(([0], count)) for count in (ranking.kept, ranking.wrong_kept))
    if ranking.threshold[-1] == -inf:  # nothing is below it: no threshold keeps these
        return kept[:-1], errors[:-1]
    return kept, errors


def _upper(errors: int, n: int, delta: float) -> float:
    """B*: the risk b at which `errors` or fewer among n have probability delta; 1 where all are errors, or n is 0."""
    return float(betainccinv(errors + 1, n - errors, delta)) if errors < n else 1.0


def _at_most(errors: ArrayLike, n: ArrayLike, risk: float) -> NDArray[np.float64]:
    """The probability of so many errors or fewer among n, of which `_upper` is the inverse."""
    right = np.subtract(n, errors)
    return np.where(right > 0, betaincc(np.add(errors, 1), np.maximum(right, 1), risk), 1.0)


def _steps(n: ArrayLike) -> NDArray[np.int64]:
    """Bounds computed by a bisection with n outcomes, ceil(log2 n), at least one; n's shape."""
    return np.maximum(1, np.ceil(np.log2(n))).astype(np.int64)


def _level(n: ArrayLike, delta: float, rule: str) -> NDArray[np.float64]:
    """At which level a set of n rows passes; of two rules that of the fixed sequence, the higher one."""
    return delta / _steps(n) if rule == "sgr" else np.full(np.shape(n), delta / (2 if rule == "both" else 1))


def _fewest(max_risk: float, level: float) -> int:
    """Fewest samples, at least 2, that pass without an error: B* = 1 - level^(1/n) <= max_risk."""
    return max(2, ceil(log(level) / log1p(-max_risk)))


@cache
def _with_one_error(max_risk: float, level: float) -> int:
    """Fewest samples that pass with one error."""
    fewest = _fewest(max_risk, level)
    return fewest + bisect_left(range(fewest, 2**31), True, key=lambda m: bool(_at_most(1, m, max_risk) <= level))


def _enough(max_risk: float, delta: float, rule: str, n: int, coverage: float = 1.0) -> int:
    """The next number of samples after n with which the guarantee is possible; SGR's number of bounds grows with it."""
    n += 1
    while (needed := ceil(_fewest(max_risk, float(_level(n, delta, rule))) / coverage - 1e-9)) > n:
        n = needed
    return n
