"""What a threshold needs and what it costs: labels for a guarantee, errors and abstentions."""

from dataclasses import dataclass, replace
from math import inf, nan

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from .. import metrics
from .rates import _fraction
from .selective import _enough, _kept, _level, _upper

MOST = 2**20  # labels that `labels_needed` looks at


@dataclass(frozen=True)
class Plan:
    """How many labels a guarantee needs; see `labels_needed`."""

    fewest: int
    labels: int | None = None
    cautious: int | None = None
    risk: float = nan


def labels_needed(
    max_risk: float,
    delta: float = 0.001,
    rule: str = "sgr",
    *,
    coverage: float = 1.0,
    pilot: tuple[ArrayLike, ArrayLike] | None = None,
    power: float = 0.8,
) -> Plan:
    """How many labels it takes to guarantee a risk at a coverage.

    Parameters
    ----------
    coverage : the wished one, in (0, 1].
    pilot : (confidence, correct) of labelled rows that are not used for the guarantee, or None.
    power : probability with which the set at this coverage is to pass, in (0, 1).

    Returns
    -------
    fewest : with which it is possible at all: without an error among the kept
    risk : the pilot's at this coverage, NaN without a pilot
    labels : from which number on the set at this coverage passes with this probability if the pilot's risk is the true
        one: P(E <= e), E binomial at that risk and e the most errors that pass. None where no number up to 2^20 does.
        Of a fixed sequence narrower sets have to pass as well, which they nearly always do where their risk is lower.
    cautious : the same at the upper end of the pilot's one-sided interval, itself at `power`
    """
    for name, value in (("max_risk", max_risk), ("delta", delta), ("power", power)):
        _fraction(name, value)
    plan = Plan(_enough(max_risk, delta, rule, 0, coverage))
    if pilot is None:
        return plan
    kept, errors = _kept(metrics.rank(*pilot))
    at = min(int(np.searchsorted(kept, coverage * kept[-1] - 1e-9)), len(kept) - 1)

    def enough(risk: float) -> int | None:
        most, looked = MOST if risk < max_risk else 0, 0
        while looked < most:
            looked = min(most, 4 * max(looked, plan.fewest))
            n = np.arange(plan.fewest, looked + 1)
            m, level = np.floor(coverage * n + 1e-9), _level(n, delta, rule)
            passing = binom.ppf(level, m, max_risk)
            passing -= binom.cdf(passing, m, max_risk) > level
            fails = np.flatnonzero(binom.cdf(passing, m, risk) < power)
            first = int(n[fails[-1]]) + 1 if len(fails) else plan.fewest
            if first <= looked / 2:
                return first
        return None

    k, e = int(kept[at]), int(errors[at])
    return replace(plan, risk=e / k, labels=enough(e / k), cautious=enough(_upper(e, k, 1 - power)))


@dataclass(frozen=True, eq=False)
class Cost:
    """What a threshold costs per prediction; see `expected_cost`. Triples are (estimate, low, high), 95 %."""

    curve: pd.DataFrame
    threshold: float
    judged: tuple[float, float, float]
    saved: tuple[float, float, float]


def expected_cost(
    confidence: ArrayLike,
    correct: ArrayLike,
    *,
    error: float,
    abstention: float,
    seed: int = 0,
    resamples: int = 2000,
) -> Cost:
    """Expected cost per prediction over all thresholds, and what the best of them costs on rows that did not choose it.

    Parameters
    ----------
    error, abstention : cost of a kept error and of a prediction that is not kept, >= 0, in one unit.
    seed : of the halves and of the bootstrap.

    Returns
    -------
    curve : one row per distinct threshold, from one that keeps nothing: threshold, coverage, risk, cost; on these rows
    threshold : that of the lowest cost, the widest of several
    judged : cost per prediction where a threshold is chosen on one random half and judged on the other, both ways
        round. The interval is of a bootstrap of each half's rows given its threshold (of which only counts matter, so
        that it draws from a multinomial): it says nothing of how another half would have chosen.
    saved : how much less that is, on the same rows, than keeping all

    Raises
    ------
    ValueError : as `metrics.rank` does; for fewer than two rows and a negative cost.
    """
    if not (error >= 0 and abstention >= 0):
        raise ValueError(f"expected costs of 0 or more, found {error} and {abstention}")
    values, right = np.asarray(confidence, np.float64), np.asarray(correct, bool)
    curve = _cost_curve(values, right, error, abstention)
    n = len(values)
    if n < 2:
        raise ValueError("one row has no halves")
    rng = np.random.default_rng(seed)
    half = rng.permutation(n) < n // 2
    drawn = np.zeros((2, resamples + 1))  # cost, and saved; the first is the estimate
    for part in (half, ~half):
        kept = values[part] > _cheapest(_cost_curve(values[~part], right[~part], error, abstention))
        cost = np.where(kept, error * ~right[part], abstention)
        outcome = np.stack((cost, error * ~right[part] - cost))
        kinds, counts = np.unique(outcome, axis=1, return_counts=True)
        resampled = rng.multinomial(len(kept), counts / len(kept), resamples)
        drawn += kinds @ np.concatenate((counts[None], resampled)).T / n
    low, high = np.quantile(drawn[:, 1:], (0.025, 0.975), axis=1)
    judged, saved = ((float(drawn[i, 0]), float(low[i]), float(high[i])) for i in (0, 1))
    return Cost(curve, _cheapest(curve), judged, saved)


def _cost_curve(values: NDArray, right: NDArray, error: float, abstention: float) -> pd.DataFrame:
    ranking = metrics.rank(values, right)
    kept, errors = _kept(ranking)
    frame = pd.DataFrame({"threshold": np.concatenate(([inf], ranking.threshold[1:], [-inf]))[: len(kept)]})
    frame["coverage"], frame["risk"] = kept / ranking.n, errors / np.where(kept > 0, kept, nan)
    frame["cost"] = (error * errors + abstention * (ranking.n - kept)) / ranking.n
    return frame


def _cheapest(curve: pd.DataFrame) -> float:
    cost = curve["cost"].to_numpy()
    return float(curve["threshold"].iloc[np.flatnonzero(cost <= cost.min() + 1e-12)[-1]])
