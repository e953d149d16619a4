"""Every confidence with its metrics and intervals, and against MCP: tables of fractions, from `Predictions`.

The functions take `Predictions`, or the results of a study (`runs.results.Run` or `.Published`), which hand them out.
Nothing here opens a file or needs a model. A split is "test", "heldout" (the validation set) or that of a distribution
shift, "domains/NAME" or "sweeps/NAME".
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit, logit

from .. import metrics, released
from ..losses import LOSSES
from ..predictions import Predictions
from ..stats import calibration, resampling, selective, separation, statistics
from ..stats.combination import with_mcp
from ..stats.rates import holm, rate_intervals
from ..stats.resampling import Bootstrap

if TYPE_CHECKING:
    from ..study import Study  # reads YAML, which predictions of your own do without

MEASURED = ["pair", "arm", "seed", *metrics.METRICS, "tied", "tnr_paper", *metrics.SEPARABILITY]
MEASURED += ["aupr_error_released", "kl_released", "fpr95_released"]
COMPARED = ["arm", "metric", "estimate", "low", "high", "seeds", "difference", "difference_low", "difference_high"]
COMPARED += ["p", "p_holm"]
WITHIN = ["pair", "arm", "auroc_within", "low", "high"]
FUSION = ["pair", "arm", "auroc", "low", "high", "difference", "difference_low", "difference_high"]
OVER_CLASSIFIERS = ["arm", "metric", "estimate", "low", "high", "difference", "difference_low", "difference_high"]
OVER_CLASSIFIERS += ["classifiers"]
INTERVAL = ["estimate", "low", "high"]
DIFFERENCE = ["difference", "difference_low", "difference_high"]


class Results(Protocol):
    """What the functions here need of a study's results, see `runs.results`."""

    @property
    def study(self) -> Study: ...

    @property
    def classes(self) -> int: ...

    def predictions(self, pair: str, split: str = "test") -> Predictions | None: ...

    def resample(self, predictions: Predictions, *, tnr_threshold: float | None = None) -> Bootstrap: ...


# --- One table per predictions ---


def compare(predictions: Predictions, boot: Bootstrap) -> pd.DataFrame:
    """Every confidence with intervals over images and seeds, and against the first one.

    Parameters
    ----------
    boot : the resampled metrics of these predictions, `resampling.bootstrap`.

    Returns
    -------
    One row per confidence and metric, columns `COMPARED`: arm, metric; the mean over seeds with its 95 % interval
    (`resampling.intervals`); the difference from the first confidence with its interval (`resampling.difference`); for
    "auroc", the p-value of that difference by DeLong's test, for these trained seeds, and that after Holm's correction
    over the confidences. Fractions. TPR and TNR of a confidence without a threshold are NaN.
    """
    base, *others = predictions.confidence
    frame = resampling.intervals(boot).reindex(metrics.METRICS, level="metric")
    against = {name: resampling.difference(boot, name, base)[INTERVAL] for name in others}
    differences = pd.concat(against, names=["score"]) if against else pd.DataFrame(columns=INTERVAL)
    frame[DIFFERENCE] = differences.reindex(frame.index)
    frame["p"] = np.nan
    for name in others:
        rows, reference = predictions.confidence[name], predictions.confidence[base][0]
        frame.loc[(name, "auroc"), "p"] = statistics.delong_difference(rows, reference, predictions.correct).p
    frame["p_holm"] = holm(frame["p"].to_numpy())
    without = [name for name in predictions.confidence if name not in predictions.threshold]
    undecided = [(name, rate) for name in without for rate in ("tpr", "tnr")]
    frame.loc[undecided] = np.nan
    return frame.reset_index(names=["arm", "metric"])[COMPARED]


def within(predictions: Predictions) -> pd.DataFrame:
    """AUROC among the predictions of one class, `metrics.auroc_within`, of every confidence.

    Returns
    -------
    One row per confidence: arm, auroc_within (mean over the seeds), low, high (95 %, over images and seeds,
    `resampling.crossed`). Fractions; NaN where no class has correct and incorrect predictions.
    """
    values = separation.auroc_within(
        predictions.confidence, predictions.correct, predictions.predicted, resamples=resampling.RESAMPLES
    )
    rows = [(name, *resampling.crossed(*sampled, 0.95)[:3]) for name, sampled in values.items()]
    return pd.DataFrame(rows, columns=WITHIN[1:])


def fusion(results: Results, pair: str) -> pd.DataFrame:
    """Every oracle and probe of a pair combined with MCP (`combination.with_mcp`), against MCP on the test set.

    Returns
    -------
    One row per oracle: arm, auroc of the two together with its 95 % interval (low, high), and the difference from
    MCP's with its own (difference_low, difference_high); over images and seeds, fractions. Empty where the validation
    set is not there, or all predictions of either set are of one kind.
    """
    splits = {split: results.predictions(pair, split) for split in ("heldout", "test")}
    if not all(split is not None and split.has_both for split in splits.values()):
        return pd.DataFrame(columns=FUSION[1:])
    mcp = {split: predictions.confidence["mcp"][0] for split, predictions in splits.items()}
    both = {"mcp": mcp["test"][None]}
    for name in filter(results.study.is_oracle, splits["test"].confidence):
        z = {split: predictions.confidence[name] for split, predictions in splits.items()}
        both[name] = with_mcp(z, mcp, splits["heldout"].correct)
    boot = results.resample(Predictions(splits["test"].correct, both, dict.fromkeys(both, 0.0)))
    interval = resampling.intervals(boot).xs("auroc", level="metric")[INTERVAL]
    rows = []
    for name in list(both)[1:]:
        difference = resampling.difference(boot, name, "mcp").loc["auroc", INTERVAL]
        rows.append((name, *interval.loc[name], *difference))
    return pd.DataFrame(rows, columns=FUSION[1:])


def operating_points(
    predictions: Predictions, seed: int, *, max_risk: float = 0.05, delta: float = 0.001
) -> pd.DataFrame:
    """What the confidences with a threshold do there, and how many predictions they let one keep; of one seed.

    Returns
    -------
    One row per confidence (index): tpr, tnr, with exact 95 % intervals (_low, _high); tnr95, TNR where TPR is 95 %;
    coverage, the largest with a risk of at most `max_risk` on these images; guaranteed, the coverage of the threshold
    whose risk on new images is at most that, but for a chance of `delta` (0 where there is none); ece, brier and nll
    of the confidence read as a probability.
    """
    rows, correct = {}, predictions.correct
    for name, score in predictions.of_seed(seed).items():
        if name not in predictions.threshold:
            continue
        rates = rate_intervals(score, correct, predictions.threshold[name])
        row = {"tpr": rates["tpr"].rate, "tpr_low": rates["tpr"].low, "tpr_high": rates["tpr"].high}
        row |= {"tnr": rates["tnr"].rate, "tnr_low": rates["tnr"].low, "tnr_high": rates["tnr"].high}
        ranking = metrics.rank(score, correct)
        row |= {"tnr95": float(metrics.tnr_at_tpr(ranking)), "coverage": metrics.coverage_at_risk(ranking, max_risk)}
        row["guaranteed"] = selective.guaranteed_threshold(score, correct, max_risk, delta).coverage
        rows[name] = row | calibration.calibration(as_probability(name, score), correct)
    return pd.DataFrame(rows).T


# --- Of a whole study ---


def evaluate(
    results: Results, pairs: Sequence[str] | None = None, split: str = "test", *, count: int | None = None
) -> pd.DataFrame:
    """Every metric of every confidence: one row per pair, method and seed, columns `MEASURED`, fractions.

    TPR and TNR are taken at z = 0, MCP's at 0.5, and are NaN for a score without a threshold; ``tnr_paper`` is the
    paper's TNR, which counts TCP's true negatives at sigmoid(z) <= 1/K. Separability (nats) is that of sigmoid(z), or
    of MCP itself; NaN for the other scores. ``*_released`` are the released code's conventions, see
    `trustlib.released`.

    Parameters
    ----------
    pairs : all of the study's by default; a pair without its classifier is left out.
    count : of the split's first images; all by default.
    """
    rows = []
    for pair in results.study.pairs if pairs is None else pairs:
        predictions = results.predictions(pair, split)
        if predictions is not None:
            of_pair = predictions.first(count)
            rows += [{"pair": pair, **_measured(results, of_pair, *row)} for row in of_pair.rows()]
    return pd.DataFrame(rows, columns=MEASURED)


def _measured(results: Results, predictions: Predictions, arm: str, seed: int, score: NDArray) -> dict:
    """The row of `evaluate` of one confidence and seed."""
    study, correct, threshold = results.study, predictions.correct, predictions.threshold_of(arm)
    row = metrics.evaluate(score, correct, threshold=threshold)
    row["tnr_paper"] = row["tnr"]
    if counts_at_chance(study, arm):
        row["tnr_paper"] = metrics.evaluate(score, correct, threshold=negative_tcp(results.classes))["tnr"]
    row["aupr_error_released"] = released.aupr_error(score, correct)
    if arm == "mcp" or arm in study.methods:
        probability = as_probability(arm, score)
        row |= metrics.separability(probability, correct)
        row["kl_released"] = released.average_kl(probability, correct)
        row["fpr95_released"] = released.fpr95_scan(probability, correct)
    if np.isnan(threshold):
        row |= dict.fromkeys(("tpr", "tnr", "tnr_paper"), np.nan)
    return {"arm": arm, "seed": seed, **row}


def compare_pairs(results: Results, split: str = "test") -> pd.DataFrame:
    """`compare` of every pair of the study that has a classifier, with a column pair before."""

    def of_pair(pair: str) -> pd.DataFrame:
        predictions = results.predictions(pair, split)
        if predictions is None:
            return pd.DataFrame(columns=COMPARED)
        return compare(predictions, results.resample(predictions))

    return _per_pair(results, of_pair, COMPARED)


def compare_shifts(results: Results) -> pd.DataFrame:
    """`compare_pairs` under every distribution shift that is there, with a column domain after the others."""
    frames = [compare_pairs(results, split).assign(domain=name) for name, split in results.study.domains.parts.items()]
    frames = [frame for frame in frames if len(frame)]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["pair", *COMPARED, "domain"])


def within_pairs(results: Results) -> pd.DataFrame:
    """`within` of every pair on the test set, columns `WITHIN`; empty where the predicted classes are not known."""

    def of_pair(pair: str) -> pd.DataFrame:
        predictions = results.predictions(pair)
        unknown = predictions is None or predictions.predicted is None
        return pd.DataFrame(columns=WITHIN[1:]) if unknown else within(predictions)

    return _per_pair(results, of_pair, WITHIN[1:])


def fusion_pairs(results: Results) -> pd.DataFrame:
    """`fusion` of every pair, columns `FUSION`."""
    return _per_pair(results, partial(fusion, results), FUSION[1:])


def over_classifiers(results: Results) -> pd.DataFrame:
    """Every confidence over the trainings of one classifier, each with oracles of its own; on the test set.

    Classifiers are trainings of one where their networks differ in label and seed alone (`settings.Network.seed`).

    Returns
    -------
    One row per confidence and metric, columns `OVER_CLASSIFIERS`: the mean over the classifiers, a confidence's seeds
    averaged before, with its 95 % interval over test images and classifiers (`resampling.crossed`), the same of the
    difference from MCP, and how many classifiers there are. Fractions; TPR and TNR of a confidence without a threshold
    are NaN. Empty for a study of different classifiers.
    """
    study = results.study
    alike = {name: network.model_copy(update={"label": "", "seed": 0}) for name, network in study.networks.items()}
    first = alike[study.pair(study.pairs[0])[1]]
    pairs = [pair for pair in study.pairs if all(alike[name] == first for name in study.pair(pair))]
    found = [predictions for predictions in map(results.predictions, pairs) if predictions is not None]
    if len(found) < 2:
        return pd.DataFrame(columns=OVER_CLASSIFIERS)
    boots, rows = [results.resample(predictions) for predictions in found], []
    for arm in found[0].confidence:
        estimate = np.stack([boot.estimate[arm].mean(0) for boot in boots])  # (C, M)
        samples = np.stack([boot.samples[arm].mean(1) for boot in boots], axis=1)  # (R, C, M)
        mcp = np.stack([boot.estimate["mcp"].mean(0) for boot in boots])
        resampled = np.stack([boot.samples["mcp"].mean(1) for boot in boots], axis=1)
        for k, metric in enumerate(metrics.METRICS):
            own = resampling.crossed(estimate[:, k], samples[..., k], 0.95)
            less = resampling.crossed(estimate[:, k] - mcp[:, k], samples[..., k] - resampled[..., k], 0.95)
            undecided = metric in ("tpr", "tnr") and arm not in found[0].threshold
            rows.append((arm, metric, *([np.nan] * 6 if undecided else [*own[:3], *less[:3]]), len(found)))
    return pd.DataFrame(rows, columns=OVER_CLASSIFIERS)


def sweep(results: Results) -> pd.DataFrame:
    """Every metric of every confidence under the swept corruptions that have been made at every severity.

    Returns
    -------
    As `evaluate`, with two columns more: corruption, and severity, 0 for the same images without it.
    """
    swept, frames = results.study.domains, []
    for name, splits in swept.sweep.items():
        by_severity = [evaluate(results, split=split) for split in splits]
        if all(map(len, by_severity)):
            frames += [frame.assign(corruption=name, severity=i) for i, frame in enumerate(by_severity, 1)]
    if not frames:
        return pd.DataFrame(columns=["corruption", "severity"])
    clean = evaluate(results, count=swept.sweep_images)
    names = dict.fromkeys(frame["corruption"].iloc[0] for frame in frames)
    return pd.concat([*frames, *(clean.assign(corruption=name, severity=0) for name in names)], ignore_index=True)


def _per_pair(results: Results, function, columns: Sequence[str]) -> pd.DataFrame:
    """A table of every pair, one below the other, with a column pair before."""
    pairs = results.study.pairs
    with ThreadPoolExecutor() as pool:  # NumPy releases the interpreter
        frames = list(pool.map(function, pairs))
    named = [frame.assign(pair=pair) for pair, frame in zip(pairs, frames, strict=True) if len(frame)]
    every = pd.concat(named, ignore_index=True) if named else pd.DataFrame(columns=["pair", *columns])
    return every[["pair", *columns]]


def first_seed(results: Results, pair: str, split: str = "test") -> tuple[NDArray[np.bool_], dict[str, NDArray]]:
    """(correct (N,), name -> confidence (N,)) of MCP and the oracles of the study's first seed: what figures show."""
    predictions, study = results.predictions(pair, split), results.study
    shown = predictions.of_seed(study.seeds[0])
    return predictions.correct, {name: score for name, score in shown.items() if name in ("mcp", *study.methods)}


# --- Conventions ---


def negative_tcp(classes: int) -> float:
    """The z up to which the paper counts TCP's true negatives: sigmoid(z) <= 1/K of K classes (Section 2)."""
    return float(logit(1 / classes))


def counts_at_chance(study: Study, arm: str) -> bool:
    """Whether the paper counts a method's true negatives at 1/K: those that learn the true class's probability."""
    return arm in study.methods and LOSSES[study.methods[arm].loss].target == "p_true"


def as_probability(arm: str, score: NDArray) -> NDArray[np.float64]:
    """The trustworthiness confidence sigmoid(z), (N,) in [0, 1]; MCP is one already. Not for ranking.

    For z, and for a score in log-odds.
    """
    return score if arm == "mcp" else expit(score.astype(np.float64))
