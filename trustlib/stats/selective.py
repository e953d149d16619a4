"""Selective prediction with a guarantee."""

from dataclasses import dataclass
from math import ceil, inf, log, log1p, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import beta

from .. import metrics
from .rates import _fraction


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
