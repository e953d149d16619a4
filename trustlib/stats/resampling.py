"""Intervals by the paired bootstrap, over test images and over training seeds.

Every resample of the images is one set of integer weights, shared by all scores and applied to each score's sorted
order: nothing is sorted twice, and differences of two scores are taken on the same images. The metrics are those of
`metrics.of_ranking`, on the resampled counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from .. import metrics

CHUNK = 1 << 17  # counts handled at once: small enough for a processor's cache
RESAMPLES = 2000  # of the images, where a study's confidences are compared
FEWEST = 10  # correct and incorrect predictions each, for an interval of what compares the two


@dataclass(frozen=True)
class Bootstrap:
    """What `bootstrap` found; a score of S training seeds has S columns.

    estimate : score -> float64 (S, len(METRICS)), on the sample itself
    samples : score -> float64 (resamples, S, len(METRICS))
    """

    estimate: dict[str, NDArray]
    samples: dict[str, NDArray]


def bootstrap(
    scores: Mapping[str, ArrayLike],
    correct: ArrayLike,
    *,
    threshold: float | Mapping[str, float] = 0.0,
    tnr_threshold: float | None = None,
    resamples: int = 2000,
    seed: int = 0,
    threads: int = 1,
    progress: Callable[[int], None] = lambda done: None,
) -> Bootstrap:
    """Resample the images, all scores and metrics at once.

    Parameters
    ----------
    scores : name -> float (N,), or (S, N) for one method trained from S seeds.
    correct : bool (N,).
    threshold, tnr_threshold : as in `metrics.evaluate`; the first also by name, 0 where one is left out.
    resamples, seed : how many, and of the generator that draws them.
    threads : how many resamples, or chunks of them, are worked on at once; the answer does not depend on it.
    progress : called now and then with how many resamples are done.

    Raises
    ------
    ValueError : as `metrics.rank`, naming the score; without scores; for resamples < 1.
    """
    if not scores or resamples < 1:
        raise ValueError(f"bootstrap: needs scores and resamples, found {len(scores)} and {resamples}")
    correct = np.asarray(correct)
    columns, estimate = {}, {}
    for name, values in scores.items():
        at = threshold.get(name, 0.0) if isinstance(threshold, Mapping) else threshold
        try:
            columns[name] = [_Column(row, correct, at, tnr_threshold) for row in np.atleast_2d(np.asarray(values))]
        except ValueError as error:
            raise ValueError(f"score {name!r}: {error}") from None
        estimate[name] = np.array([column.metrics(np.ones((1, len(correct)), int))[0] for column in columns[name]])
    correct = correct.astype(bool)
    rng, step, drawing = np.random.default_rng(seed), max(1, CHUNK // len(correct)), Lock()
    samples = {name: np.empty((resamples, len(rows), len(metrics.METRICS))) for name, rows in columns.items()}
    starts = iter(range(0, resamples, step))

    def resample(_: int) -> int:
        with drawing:  # by whichever thread, but one after another from the one generator
            first = next(starts)
            weights = _draws(rng, len(correct), min(step, resamples - first))
        for name, rows in columns.items():
            for index, column in enumerate(rows):
                samples[name][first : first + step, index] = column.metrics(weights)
        return len(weights)

    with ThreadPoolExecutor(threads) as pool:  # NumPy lets go of the interpreter
        for done in accumulate(pool.map(resample, range(0, resamples, step))):
            progress(done)
    return Bootstrap(estimate, samples)


def separability(
    confidences: Mapping[str, ArrayLike], correct: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[dict[str, NDArray], dict[str, NDArray]]]:
    """Resample `metrics.separability` on the very resamples of `bootstrap` (the same images for the same seed).

    Parameters
    ----------
    confidences : name -> float (N,) or (S, N), sigmoid(z) as in the paper.
    correct, resamples, seed : as in `bootstrap`.

    Returns
    -------
    name -> (metric -> estimate (S,), metric -> samples (resamples, S)), for the metrics of `metrics.SEPARABILITY`.

    Raises
    ------
    ValueError : as `bootstrap`.
    """
    if not confidences or resamples < 1:
        raise ValueError(f"separability: needs confidences and resamples, found {len(confidences)} and {resamples}")
    rows = {}
    for name, values in confidences.items():
        try:
            rows[name] = np.atleast_2d(np.asarray(values))
            for row in rows[name]:
                metrics.rank(row, correct)  # raises where it is no confidence
        except ValueError as error:
            raise ValueError(f"confidence {name!r}: {error}") from None
    correct = np.asarray(correct, bool)
    rows = {name: values.astype(np.float64) for name, values in rows.items()}
    stacked = np.concatenate(list(rows.values()))  # (all rows, N)
    centre = stacked.mean(1, keepdims=True)  # squares of small numbers lose fewer digits
    moments = np.concatenate(
        [stacked - centre, (stacked - centre) ** 2, np.ones((1, len(correct)))]
    ).T  # (N, 2 rows + 1)

    def of(weights: NDArray) -> dict[str, NDArray]:
        fits = []
        for group in (correct, ~correct):
            *sums, n = ((weights * group).astype(float) @ moments).T  # each (R,)
            mean, square = np.split(np.array(sums) / np.maximum(n, 1), 2)  # (rows, R)
            fits += [mean, np.sqrt(np.maximum(square - mean**2, 0) * n / np.maximum(n - 1, 1))]
        return {name: value.T for name, value in metrics.normal_distances(*fits).items()}  # (R, rows)

    rng, step = np.random.default_rng(seed), max(1, 16 * CHUNK // len(correct))
    chunks = []
    for first in range(0, resamples, step):
        chunks.append(of(np.stack([_draw(rng, len(correct)) for _ in range(min(step, resamples - first))])))
    estimate, found, start = of(np.ones((1, len(correct)))), {}, 0
    for name, values in rows.items():
        own = slice(start, start := start + len(values))
        found[name] = (
            {m: estimate[m][0, own] for m in metrics.SEPARABILITY},
            {m: np.concatenate([chunk[m][:, own] for chunk in chunks]) for m in metrics.SEPARABILITY},
        )
    return found


def auroc_within(
    scores: Mapping[str, ArrayLike], correct: ArrayLike, groups: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[NDArray, NDArray]]:
    """Resample `metrics.auroc_within` on the very resamples of `bootstrap` (the same images for the same seed).

    Of seeds that share a classifier the mean is resampled: they have the same pairs, so that it is the mean over the
    pairs of the share of seeds that order a pair rightly. With w the counts of a resample, it is

        sum of w_i w_j k_ij over sum of w_i w_j,   i correct, j incorrect, of the same group

    Parameters
    ----------
    scores : name -> float (N,) or (S, N).
    correct, resamples, seed : as in `bootstrap`.
    groups : (N,), as in `metrics.auroc_within`.

    Returns
    -------
    name -> (estimate (S,), samples of the mean over seeds (resamples, 1)): what `crossed` takes. NaN where a sample
    has no pair.
    """
    correct, groups = np.asarray(correct, bool), np.asarray(groups)
    rows = {name: np.atleast_2d(np.asarray(values, np.float64)) for name, values in scores.items()}
    rng, step = np.random.default_rng(seed), max(1, CHUNK // len(correct))
    chunks = [min(step, resamples - first) for first in range(0, resamples, step)]
    weights = np.concatenate([_draws(rng, len(correct), chunk) for chunk in chunks])  # (R, N)
    pairs, ordered = np.zeros(resamples), {name: np.zeros(resamples) for name in rows}
    for group in np.unique(groups):
        right, wrong = (np.flatnonzero((groups == group) & kind) for kind in (correct, ~correct))
        of_right, of_wrong = (weights[:, chosen].astype(np.float32) for chosen in (right, wrong))
        pairs += of_right.sum(1, dtype=float) * of_wrong.sum(1, dtype=float)
        for name, values in rows.items():
            above = np.zeros((len(right), len(wrong)), np.float32)
            for row in values:
                above += row[right][:, None] > row[wrong]
                above += 0.5 * (row[right][:, None] == row[wrong])
            ordered[name] += ((of_right @ above) * of_wrong).sum(1, dtype=float) / len(values)
    with np.errstate(invalid="ignore"):
        samples = {name: (total / pairs)[:, None] for name, total in ordered.items()}
    estimates = {n: np.array([metrics.auroc_within(row, correct, groups) for row in v]) for n, v in rows.items()}
    return {name: (estimates[name], samples[name]) for name in rows}


def merged(parts: Sequence[Bootstrap]) -> Bootstrap:
    """Several bootstraps of the same images, drawn with the same seed and number, as one: their scores stay paired."""
    estimate, samples = {}, {}
    for part in parts:
        estimate |= part.estimate
        samples |= part.samples
    return Bootstrap(estimate, samples)


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
        for k, metric in enumerate(metrics.METRICS)
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
    rows = {m: crossed(estimate[:, k], samples[:, :, k], level) for k, m in enumerate(metrics.METRICS)}
    return _frame(rows, ["metric"], lowest=-1)


class _Column:
    """One score in its sorted order."""

    def __init__(self, confidence: NDArray, correct: NDArray, threshold: float, tnr_threshold: float | None):
        self.threshold = metrics.rank(confidence, correct).threshold  # and checks the input
        self.order, self.last = metrics.sorted_blocks(np.asarray(confidence, np.float64))
        self.correct = np.asarray(correct, bool)[self.order]
        self.at = (threshold, tnr_threshold)

    def metrics(self, weights: NDArray) -> NDArray:
        """Metrics (R, len(METRICS)) of samples drawn as often as integer weights (R, N) say."""
        drawn = weights.T.take(self.order, axis=0).T  # weights[:, self.order], sooner
        right = drawn * self.correct
        counts = (metrics.collapse(count, self.last, np.int32) for count in (right, drawn - right))
        found = metrics.of_ranking(metrics.Ranking(self.threshold, *counts), *self.at)
        return np.stack([np.broadcast_to(found[name], len(weights)) for name in metrics.METRICS], axis=1)


def _draws(rng: np.random.Generator, n: int, resamples: int) -> NDArray:
    """So many of `_draw`, (resamples, N), a sample's side by side, in the fewest bytes: for memory and for speed."""
    drawn = np.stack([_draw(rng, n) for _ in range(resamples)], axis=1)
    return drawn.astype(np.min_scalar_type(drawn.max())).T


def _draw(rng: np.random.Generator, n: int) -> NDArray:
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
