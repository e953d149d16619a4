"""Intervals by the paired bootstrap, over test images and over training seeds.

A resample of the rows is one set of integer weights, shared by all scores, so that differences of two scores are taken
on the same rows. Nothing is sorted twice: the weights are added up over each score's blocks of ties, and the metrics of
`metrics.of_ranking` follow in one pass over these sums, from the most confident block down, for all resamples at once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.stats import t

from .. import metrics

WEIGHTS = 1 << 25  # held at once, at most
WIDE = 2048  # resamples worked on at once, at most: their vectors stay in a processor's cache
BATCH = 256  # sums computed at once, so that they stay there too
EXACT = 50_000  # rows up to which nothing is rounded; see `bootstrap` for more
BLOCKS = 8192  # of neighbours in a score's order, beyond it
RESAMPLES = 2000  # of the images, where a study's confidences are compared
FEWEST = 10  # correct and incorrect predictions each, for an interval of what compares the two


@dataclass(frozen=True)
class Bootstrap:
    """What `bootstrap` found; a score of S training seeds has S columns.

    estimate : score -> float64 (S, M), on the sample itself
    samples : score -> float64 (resamples, S, M)
    measured : the M metrics
    """

    estimate: dict[str, NDArray]
    samples: dict[str, NDArray]
    measured: tuple[str, ...] = metrics.METRICS


def bootstrap(
    scores: Mapping[str, ArrayLike] | pd.DataFrame,
    correct: ArrayLike | Mapping[str, ArrayLike],
    *,
    threshold: float | Mapping[str, float] = 0.0,
    tnr_threshold: float | None = None,
    max_risk: float | None = None,
    cluster: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> Bootstrap:
    """Resample the rows, all scores and metrics at once.

    A resample draws N of N rows with replacement, or C of C clusters. Up to `EXACT` rows its metrics are exact. Of more
    rows the estimates still are, and the deviations from them are those of fewer and coarser parts: rows (or clusters)
    are put at random into `EXACT` groups, which are drawn as wholes, and each score's order is cut into about `BLOCKS`
    blocks, taken for ties, none with more than 2 / `BLOCKS` of the rows or of the errors unless they tie. As the groups
    are random, their variance is that of the rows in expectation; it is off by sqrt(2 / `EXACT`), 0.6 %, where
    that of 2000 resamples is off by 3 %.

    Parameters
    ----------
    scores : name -> float (N,), or (S, N) for one method trained from S seeds; or a table with a column each.
    correct : bool (N,); or name -> bool (N,), where each score has its own errors on the same rows, in the same order:
        several classifiers.
    threshold, tnr_threshold : as in `metrics.evaluate`; the first also by name, 0 where one is left out.
    max_risk : adds the metric "coverage_at_risk", `metrics.coverage_at_risk` at this risk. It is chosen anew in each
        resample, as it is on the sample: its interval is that of a coverage chosen so, not of a fixed threshold.
    cluster : names (N,) of what rows depend within (a patient, a video): whole clusters are drawn.
    resamples, seed : how many, and of the generator that draws them.
    progress : called now and then with how many resamples are done.

    Raises
    ------
    ValueError : as `metrics.rank`, naming the score; without scores; for resamples < 1; for a score without errors of
        its own, a risk outside [0, 1], and clusters of another length.
    """
    if len(scores) == 0 or resamples < 1:
        raise ValueError(f"bootstrap: needs scores and resamples, found {len(scores)} and {resamples}")
    own = correct if isinstance(correct, Mapping) else dict.fromkeys(scores, correct)
    if missing := [str(name) for name in scores if name not in own]:
        raise ValueError(f"bootstrap: expected correct of every score, found none of {', '.join(missing)}")
    columns: dict[str, list[_Column]] = {}
    for name, values in scores.items():
        at = threshold.get(name, 0.0) if isinstance(threshold, Mapping) else threshold
        try:
            rows = np.atleast_2d(np.asarray(values))
            columns[name] = [_Column(row, np.asarray(own[name]), at, tnr_threshold, max_risk) for row in rows]
        except ValueError as error:
            raise ValueError(f"score {name!r}: {error}") from None
    n, *others = {len(column.cell) for rows in columns.values() for column in rows}
    if others:
        raise ValueError(f"bootstrap: expected scores of the same rows, found {sorted([n, *others])} of them")
    rng, unit = np.random.default_rng(seed), _units(n, cluster)
    measured = (*metrics.METRICS, *(() if max_risk is None else ("coverage_at_risk",)))
    estimate = {name: np.array([column.estimate for column in rows]) for name, rows in columns.items()}
    samples = {name: np.empty((resamples, len(rows), len(measured))) for name, rows in columns.items()}
    dtype = np.float32 if n < 1 << 20 else np.float64  # exact: sums are whole numbers
    sums = {name: [column.sums(unit, dtype) for column in rows] for name, rows in columns.items()}
    units = int(unit.max()) + 1
    step = int(np.clip(WEIGHTS // units, 1, WIDE))
    for first in range(0, resamples, step):
        last = min(first + step, resamples)
        weights = draws(rng, units, last - first).T.astype(dtype, order="C")
        for name, rows in columns.items():
            for index, column in enumerate(rows):
                samples[name][first:last, index] = column.metrics(sums[name][index], weights)
        progress(last)
    for name, rows in columns.items() if n > EXACT else ():
        once = np.ones((units, 1), np.float32)
        among_blocks = [column.metrics(of, once) for column, of in zip(rows, sums[name], strict=True)]
        samples[name] += estimate[name] - np.concatenate(among_blocks)
    return Bootstrap(estimate, samples, measured)


def merged(parts: Sequence[Bootstrap]) -> Bootstrap:
    """Several bootstraps of the same images, drawn with the same seed and number, as one: their scores stay paired."""
    estimate, samples = {}, {}
    for part in parts:
        estimate |= part.estimate
        samples |= part.samples
    return Bootstrap(estimate, samples, parts[0].measured)


def intervals(boot: Bootstrap, level: float = 0.95) -> pd.DataFrame:
    """Mean over seeds of every metric of every score, with its interval.

    Of one seed, or of a score that is not trained, it is the percentile interval of the image bootstrap and holds for
    that one training. Of S > 1 seeds, training seeds and test images are crossed: every seed is judged on the same
    images, so that the images' part of the error does not shrink with S and is not seen between seeds. With m the
    mean, [q0, q1] the bootstrap percentiles of the mean over seeds and s the standard deviation between seeds,

        low = m - sqrt((m - q0)^2 + (t s)^2 / S),   high = m + sqrt((q1 - m)^2 + (t s)^2 / S)

    with Student's t of S - 1 degrees of freedom: two independent errors combined as the sum of their squares, each
    with its own quantile (the percentiles of 3 to 5 seeds would cover 74 to 83 %). The noise that an image adds to one
    seed alone is in both parts, which errs to the wide side.

    Cut at 0 and 1, where every metric ends.

    Returns
    -------
    One row per score and metric (index), columns estimate, low, high, seeds. NaN where a metric does not exist;
    resamples without one class are left out.
    """
    rows = {
        (name, metric): crossed(boot.estimate[name][:, k], boot.samples[name][:, :, k], level)
        for name in boot.estimate
        for k, metric in enumerate(boot.measured)
    }
    return _frame(rows, ["score", "metric"], lowest=0)


def difference(boot: Bootstrap, a: str, b: str, level: float = 0.95) -> pd.DataFrame:
    """Score `a` minus score `b` in every metric, on the same images, with its interval; formulas as in `intervals`.

    Where both have the same number of seeds they are paired by seed; else one of them must have one seed only.

    Returns
    -------
    One row per metric, columns as those of `intervals`.
    """
    for name in (a, b):
        if name not in boot.estimate:
            raise ValueError(f"difference: no score {name!r}; known: {', '.join(boot.estimate)}")
    seeds = {boot.estimate[name].shape[0] for name in (a, b)}
    if len(seeds | {1}) > 2:
        raise ValueError(f"difference: {a} and {b} have {sorted(seeds)} seeds; expected the same number, or one")
    estimate, samples = boot.estimate[a] - boot.estimate[b], boot.samples[a] - boot.samples[b]
    rows = {m: crossed(estimate[:, k], samples[:, :, k], level) for k, m in enumerate(boot.measured)}
    return _frame(rows, ["metric"], lowest=-1)


def p_value(boot: Bootstrap, a: str, b: str, metric: str) -> float:
    """Two-sided p-value of a difference, from the share of resamples on either side of 0; NaN without any.

    It is below 0.05 about where the 95 % interval of `difference` excludes 0. Of R resamples the least is 2 / (R + 1).
    """
    k = boot.measured.index(metric)
    found = (boot.samples[a] - boot.samples[b])[:, :, k].mean(1)
    found = found[~np.isnan(found)]
    beyond = min((found <= 0).sum(), (found >= 0).sum())
    return min(1.0, 2 * float(beyond + 1) / (len(found) + 1)) if len(found) else np.nan


class _Column:
    """One score in its order, with its errors: what `bootstrap` adds up, and what it makes of the sums."""

    def __init__(
        self,
        confidence: NDArray,
        correct: NDArray,
        threshold: float = 0.0,
        tnr_threshold: float | None = None,
        max_risk: float | None = None,
    ):
        ranking = metrics.rank(confidence, correct)  # and checks the input
        tnr_threshold = threshold if tnr_threshold is None else tnr_threshold
        at = metrics.of_ranking(ranking, threshold, tnr_threshold)
        covered = [] if max_risk is None else [metrics.coverage_at_risk(ranking, max_risk)]
        self.estimate = np.array([at[name] for name in metrics.METRICS] + covered)
        self.risk = None if max_risk is None else metrics.as_fraction(max_risk)
        wrong = np.asarray(correct) == 0
        self.of_all = [~wrong, wrong, ~wrong & (confidence > threshold), wrong & ~(confidence > tnr_threshold)]
        block = np.arange(len(ranking.threshold))  # of each distinct confidence
        if len(confidence) > EXACT:
            share = ranking.kept / ranking.n + ranking.wrong_kept / max(1, ranking.wrong_kept[-1])
            block = np.ceil(share / 2 * BLOCKS).astype(np.int64)
        order, last = metrics.sorted_blocks(np.asarray(confidence, np.float64))
        of_rows = np.empty(len(order), np.int64)
        of_rows[order] = np.repeat(block, np.diff(last, prepend=-1))
        cells, self.cell = np.unique(2 * of_rows + wrong, return_inverse=True)
        blocks, has = np.unique(cells // 2, return_inverse=True)[1], cells % 2
        self.blocks = np.zeros((blocks[-1] + 1, 2), bool)
        self.blocks[blocks, has] = True

    def sums(self, unit: NDArray[np.int32], dtype: type = np.float32) -> sparse.csr_array:
        """What adds up weights of units, see `_units`: (sums, units).

        First over correct, incorrect, trusted correct and untrusted incorrect rows. Then over cells: the correct and
        the incorrect rows of a block, where it has such, most confident first; `blocks` says which it has.
        """
        rows = [np.flatnonzero(chosen) for chosen in self.of_all]
        of = [*(np.full(len(chosen), index) for index, chosen in enumerate(rows)), self.cell + len(rows)]
        entries = np.concatenate(of).astype(np.int32), unit[np.concatenate([*rows, np.arange(len(unit))])]
        return sparse.coo_array((np.ones(len(entries[0]), dtype), entries)).tocsr()

    def metrics(self, sums: sparse.csr_array, weights: NDArray) -> NDArray[np.float64]:
        """Metrics (R, M) of R samples with weights (units, R): those of `metrics.of_ranking`."""
        batches = (sums[at : at + BATCH] @ weights for at in range(0, sums.shape[0], BATCH))
        rows = (row.astype(np.float64) for batch in batches for row in batch)  # one sum after another
        right, wrong, trusted, found = islice(rows, len(self.of_all))
        passed, precision, silent, inversions, area, covered = self._added_up(rows, right, wrong)
        n, n_right, n_wrong = right + wrong, np.where(right, right, np.nan), np.where(wrong, wrong, np.nan)
        aurc, accuracy = area / n, right / n
        values = {
            "accuracy": accuracy,
            "fpr95": np.where(right, passed / n_wrong, np.nan),
            "aupr_error": precision / n_wrong,
            "aupr_success": 1 - silent / n_right,
            "auroc": 1 - inversions / (n_right * n_wrong),
            "tpr": trusted / n_right,
            "tnr": found / n_wrong,
            "aurc": aurc,
            "eaurc": aurc - metrics.best_aurc(right.astype(np.int64), n.astype(np.int64)),
            "augrc": inversions / n**2 + (1 - accuracy) ** 2 / 2,
        }
        of_metrics = [values[name] for name in metrics.METRICS] + ([] if self.risk is None else [covered / n])
        return np.stack(of_metrics, axis=1)

    def _added_up(self, rows: Iterator[NDArray], right: NDArray, wrong: NDArray) -> tuple[NDArray, ...]:
        """What the metrics add up, (R,) each, in one pass from the most confident block down.

        Correct predictions between two errors need little: with w errors above, c of them at one confidence take
        c w / kept from AUPR-Success, and to N AURC they add w (H(kept after) - H(kept before)) all together, so that
        an error in a block adds H(N) - H(kept there) and its own share within the block.
        """
        n = right + wrong
        harmonic = metrics.harmonic(int(n.max()))
        of_n = harmonic.take(n.astype(np.int64))
        needed = np.ceil(right * 19 / 20)  # 95 %, and never off by one: see `metrics.fpr_at_tpr`
        errors, silent, steps, passed, inversions, precision, covered, of_kept, none = np.zeros((9, len(n)))
        area = wrong.copy()
        kept = np.full(len(n), 1e-300)  # gone with the first row; nothing is divided by 0
        moved = False  # past correct predictions since the last error
        for has_right, has_wrong in self.blocks.tolist():
            if not has_wrong:
                count = next(rows)
                kept += count
                count /= kept
                steps += count
                moved = True
                continue
            if moved:
                silent += errors * steps
                steps[:] = 0
                of_kept = harmonic.take(kept.astype(np.int64))
                moved = False
            covered = self._covered(kept, errors, covered)
            zeros = next(rows) if has_right else none
            ones = next(rows)
            before, above, size = kept, kept - errors, ones + zeros
            passed += ones * (above < needed)
            inversions += ones * (right - above - zeros / 2)
            precision += ones * ((wrong - errors) / np.maximum(n - before, 1))
            kept, errors = before + size, errors + ones
            if has_right:
                silent += zeros * (errors / kept)
            of_before, of_kept = of_kept, harmonic.take(kept.astype(np.int64))
            within = before / np.maximum(size, 1) * (of_kept - of_before)
            area += ones * (of_n - of_kept - within)
        silent += errors * steps
        return passed, precision, silent, inversions, area, np.floor(self._covered(kept, errors, covered))

    def _covered(self, kept: NDArray, errors: NDArray, before: NDArray) -> NDArray:
        """How many are kept where the risk is acceptable; as many as before where it is not."""
        if self.risk is None:
            return before
        return np.where(errors * self.risk.denominator <= kept * self.risk.numerator, kept, before)


def _units(n: int, cluster: ArrayLike | None) -> NDArray[np.int32]:
    """What each of N rows is drawn with, int32 (N,): itself, its cluster, or a group of either."""
    unit = np.arange(n)
    if cluster is not None:
        unit = np.unique(np.asarray(cluster), return_inverse=True)[1]
        if unit.shape != (n,):
            raise ValueError(f"bootstrap: expected clusters of {n} rows, found shape {np.shape(cluster)}")
    group = np.arange(unit.max() + 1)
    if len(group) > EXACT:
        group = np.random.default_rng(0).permutation(group) % EXACT
    return group[unit].astype(np.int32)


def draws(rng: np.random.Generator, n: int, resamples: int) -> NDArray[np.uint8]:
    """So many of `draw`, (resamples, N). One of N samples is drawn more than 255 times once in 1e500 resamples."""
    return np.stack([draw(rng, n).astype(np.uint8) for _ in range(resamples)])


def draw(rng: np.random.Generator, n: int) -> NDArray:
    """How often each of N samples is drawn in one resample, int64 (N,)."""
    return np.bincount(rng.integers(0, n, n), minlength=n)


def crossed(
    estimate: NDArray, samples: NDArray, level: float, pooled: tuple[float, int] | None = None
) -> tuple[float, float, float, int]:
    """Any quantity's (mean, low, high, S) from estimates (S,) and resampled estimates (R, S), as `intervals` says.

    pooled : the variance between seeds and its degrees of freedom, in place of the quantity's own (`pooled_variance`).
    """
    mean, seeds = estimate.mean(), len(estimate)
    resampled = samples.mean(1)
    resampled = resampled[~np.isnan(resampled)]
    if np.isnan(mean) or not len(resampled):
        return mean, np.nan, np.nan, seeds
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return mean, *with_seeds(estimate, low, high, level, pooled), seeds


def with_seeds(
    estimate: NDArray, low: float, high: float, level: float = 0.95, pooled: tuple[float, int] | None = None
) -> tuple[float, float]:
    """The interval over images and seeds, as `intervals` says, from that of the mean over images alone.

    Parameters
    ----------
    estimate : float (S,), of each seed; with one seed the interval stays as it is.
    low, high : ends of the interval of the mean over seeds for these trained seeds, by any method.
    pooled : as in `crossed`.
    """
    mean, between = estimate.mean(), seed_error(estimate, level, pooled) ** 2
    return mean - np.sqrt(max(mean - low, 0) ** 2 + between), mean + np.sqrt(max(high - mean, 0) ** 2 + between)


def seed_error(estimate: NDArray, level: float, pooled: tuple[float, int] | None = None) -> float:
    """Half the width of the interval of a mean over S seeds, t s / sqrt(S); 0 of one seed.

    estimate : float (S,); pooled : as in `crossed`.
    """
    seeds = len(estimate)
    if seeds == 1:
        return 0.0
    variance, freedom = pooled or (estimate.var(ddof=1), seeds - 1)
    return float(t.isf((1 - level) / 2, freedom) * np.sqrt(variance / seeds))


def pooled_variance(estimates: Iterable[NDArray]) -> tuple[float, int] | None:
    """Variance between seeds of several quantities (S_k,) taken to be alike, and its degrees of freedom.

        s^2 = sum_k (S_k - 1) s_k^2 / sum_k (S_k - 1)

    Quantities that share trainings count as if they did not: with eight degrees of freedom or more Student's quantile
    hardly depends on their number. Those with a NaN, or of one seed, are left out; None where none is left.
    """
    found = [values for values in estimates if len(values) > 1 and not np.isnan(values).any()]
    freedom = sum(len(values) - 1 for values in found)
    if not freedom:
        return None
    return float(sum((len(values) - 1) * values.var(ddof=1) for values in found) / freedom), freedom


def _frame(rows: dict, names: list[str], lowest: float) -> pd.DataFrame:
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=["estimate", "low", "high", "seeds"])
    frame[["low", "high"]] = frame[["low", "high"]].clip(lowest, 1)
    frame.index = pd.MultiIndex.from_tuples(rows, names=names) if len(names) > 1 else pd.Index(rows, name=names[0])
    return frame
