"""Resampled measures of how correct and incorrect predictions lie apart, on the resamples of `resampling.bootstrap`."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import metrics
from .resampling import WEIGHTS, draw, draws


def separability(
    confidences: Mapping[str, ArrayLike], correct: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> dict[str, tuple[dict[str, NDArray], dict[str, NDArray]]]:
    """Resample `metrics.separability` on the resamples of `resampling.bootstrap`: the same images for the same seed.

    Parameters
    ----------
    confidences : name -> float (N,) or (S, N), sigmoid(z) as in the paper.
    correct, resamples, seed : as in `resampling.bootstrap`.

    Returns
    -------
    name -> (metric -> estimate (S,), metric -> samples (resamples, S)), for the metrics of `metrics.SEPARABILITY`.

    Raises
    ------
    ValueError : as `resampling.bootstrap`.
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

    rng, step = np.random.default_rng(seed), max(1, WEIGHTS // (16 * len(correct)))
    chunks = []
    for first in range(0, resamples, step):
        chunks.append(of(np.stack([draw(rng, len(correct)) for _ in range(min(step, resamples - first))])))
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
    """Resample `metrics.auroc_within` on the resamples of `resampling.bootstrap`: the same images for the same seed.

    Of seeds that share a classifier the mean is resampled: they have the same pairs, so that it is the mean over the
    pairs of the share of seeds that order a pair rightly. With w the counts of a resample, it is

        sum of w_i w_j k_ij over sum of w_i w_j,   i correct, j incorrect, of the same group

    Parameters
    ----------
    scores : name -> float (N,) or (S, N).
    correct, resamples, seed : as in `resampling.bootstrap`.
    groups : (N,), as in `metrics.auroc_within`.

    Returns
    -------
    name -> (estimate (S,), samples of the mean over seeds (resamples, 1)): what `resampling.crossed` takes. NaN where
    a sample has no pair.
    """
    correct, groups = np.asarray(correct, bool), np.asarray(groups)
    rows = {name: np.atleast_2d(np.asarray(values, np.float64)) for name, values in scores.items()}
    rng = np.random.default_rng(seed)
    weights = draws(rng, len(correct), resamples)  # (R, N)
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
