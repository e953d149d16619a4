"""Evaluate your own predictions: scores, metrics with intervals, thresholds with a guarantee, groups, confusions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_softmax

from .. import confidence, metrics
from ..analysis import compare
from ..predictions import Predictions
from ..stats import calibration, resampling, selective
from ..stats.rates import clopper_pearson, share_interval
from .reader import Table

LABELS = {score.label for score in confidence.SCORES.values()}
LOG_ODDS = {score.label for score in confidence.SCORES.values() if score.log_odds}
FITTED = {score.label for score in confidence.SCORES.values() if score.needs}  # here: on the rows themselves
COVERAGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
RISKS = (0.005, 0.01, 0.02, 0.05, 0.1)
CELLS = 1000  # of a ranking, when its resampled counts are drawn
DIGITS, FINEST = 9, 1e-13  # of scores made of probabilities: what is beyond is of the order in which they were summed


def scores_of(table: Table) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
    """(name -> float64 (N,), name -> why it is left out): first what `confidence` makes of the logits.

    A score that has to be fitted (a temperature, a norm's order) is fitted on one half of the rows, drawn at
    random, and computed on the other, both ways round. Of probabilities there are those that the softmax
    determines, rounded to nine digits, so that rows of the same probabilities tie. Scores that need more than
    logits are not named at all.
    """
    found, left_out = {}, {}
    for score in confidence.SCORES.values() if table.logits is not None else ():
        if set(score.needs) - {"heldout_errors", "temperature"}:
            continue
        if table.probabilities and not score.of_softmax:
            left_out[score.label] = "it needs logits"
            continue
        if score.needs:
            values = _cross_fitted(score, table.logits, table.label)
        else:
            values = score.function(confidence.Observed(table.logits, table.label), None, None)
        if isinstance(values, str):
            left_out[score.label] = values
        else:
            found[score.label] = np.round(values / (unit := _unit(values))) * unit if table.probabilities else values
    return found | table.confidences, left_out


def probability(table: Table, name: str, values: NDArray) -> NDArray[np.float64] | None:
    """A confidence as a probability of being correct: MCP's, with a temperature or without, or a column in [0, 1]."""
    if name in table.confidences:
        return values if values.min() >= 0 and values.max() <= 1 else None
    return expit(values) if name in LOG_ODDS else None


def compare_scores(
    scores: Mapping[str, NDArray],
    correct: NDArray[np.bool_],
    thresholds: Mapping[str, float],
    *,
    cluster: NDArray | None = None,
    resamples: int = 2000,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Every metric of every score with its 95 % interval over the rows, and its difference from the first score's.

    Parameters
    ----------
    scores : name -> float (N,).
    thresholds : above which a score trusts; one that is not named has neither TPR nor TNR.
    cluster, resamples, seed : of the paired bootstrap, see `resampling.bootstrap`.

    Returns
    -------
    One row per score and metric: score, metric, estimate, low, high, difference, difference_low, difference_high; NaN
    where a metric does not exist (`metrics.undefined`). The accuracy's interval is `share_interval`'s.
    """

    tenths = 0

    def progress(done: int) -> None:
        nonlocal tenths
        if 10 * done // resamples > tenths:
            tenths = 10 * done // resamples
            log(f"{done:,} of {resamples:,} resamples of {len(scores)} scores")

    predictions = Predictions(correct, {name: values[None] for name, values in scores.items()}, thresholds)
    drawn = resampling.bootstrap(
        scores, correct, threshold={name: predictions.threshold_of(name) for name in scores}, resamples=resamples,
        seed=seed, cluster=cluster, progress=progress,
    )  # fmt: skip
    frame = compare.compare(predictions, drawn).rename(columns={"arm": "score"})
    frame.loc[frame["metric"] == "accuracy", ["low", "high"]] = np.array(share_interval(correct, cluster))
    return frame[["score", "metric", *compare.INTERVAL, *(compare.DIFFERENCE if len(scores) > 1 else ())]]


def verdict(compared: pd.DataFrame) -> str:
    """Does the oracle rank better than MCP, the classifier's own confidence? Two sentences.

    compared : of `compare_scores`, of MCP first and "oracle".
    """
    rows = compared[compared["metric"] == "auroc"].set_index("score")
    rows = rows[[*compare.INTERVAL, *compare.DIFFERENCE]] * 100
    own, mcp = rows.loc["oracle"], rows.loc["MCP"]
    if own["difference_low"] > 0:
        answer = "The oracle ranks significantly better than MCP"
    elif own["difference_high"] < 0:
        answer = "The oracle does not beat MCP: it ranks worse"
    else:
        answer = "The oracle does not rank significantly better than MCP"
    return (
        f"{answer}. AUROC {own['estimate']:.2f} [{own['low']:.2f}, {own['high']:.2f}] against {mcp['estimate']:.2f} "
        f"[{mcp['low']:.2f}, {mcp['high']:.2f}], difference {own['difference']:+.2f} "
        f"[{own['difference_low']:+.2f}, {own['difference_high']:+.2f}]."
    )


def curve(
    values: NDArray, correct: NDArray[np.bool_], points: int = 400, cluster: NDArray | None = None
) -> pd.DataFrame:
    """The risk-coverage curve at so many coverages, as `at_coverages` has it."""
    coverages = np.linspace(0, 1, points)
    return at_coverages(values, correct, coverages, cluster).drop_duplicates("kept", ignore_index=True)


def at_coverages(
    values: NDArray, correct: NDArray[np.bool_], coverages: ArrayLike = COVERAGES, cluster: NDArray | None = None
) -> pd.DataFrame:
    """The risk of the most confident predictions: the fewest that make up a coverage, ties kept together.

    Which predictions are kept does not depend on which are correct, so that the errors among so many kept ones are
    binomial as far as one error says nothing of another: each interval is Clopper and Pearson's, by itself; with
    clusters `share_interval`'s.

    Returns
    -------
    One row per coverage: coverage (of those kept), risk, low, high (95 %), fractions; threshold, above which a
    prediction is kept (-inf keeps all); kept, errors, counts.
    """
    ranking = metrics.rank(values, correct)
    at = np.searchsorted(ranking.kept, np.asarray(coverages) * ranking.n - 1e-9).clip(max=len(ranking.kept) - 1)
    kept, errors = ranking.kept[at], ranking.wrong_kept[at]
    low, high = clopper_pearson(errors, kept)
    if cluster is not None:
        above = (values > threshold for threshold in _above(ranking)[at])
        low, high = np.array([share_interval(~correct[rows], cluster[rows]) for rows in above]).T
    return pd.DataFrame(
        {
            "coverage": kept / ranking.n, "risk": errors / kept, "low": low, "high": high,
            "threshold": _above(ranking)[at], "kept": kept, "errors": errors,
        }
    )  # fmt: skip


def at_risks(
    values: NDArray,
    correct: NDArray[np.bool_],
    risks: Sequence[float] = RISKS,
    *,
    cluster: NDArray | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """The largest coverage whose share of errors on these predictions is at most a risk (`metrics.coverage_at_risk`).

    Its 95 % interval is the percentiles of the bootstrap over the predictions: counts of correct and incorrect ones in
    at most `CELLS` cells of the ranking are drawn, so that it costs the same for a million rows; with clusters these
    are drawn (`resampling.bootstrap`). It is chosen on the rows it is counted on and promises nothing of new ones,
    which a guarantee does.

    Returns
    -------
    One row per risk: risk, coverage, low, high, fractions; threshold, above which a prediction is kept, NaN where none
    is; kept, errors, counts.
    """
    ranking = metrics.rank(values, correct)
    if cluster is None:
        sampled = _resampled_coverages(ranking, risks, resamples, seed)
    else:
        drawn = [
            resampling.bootstrap({"": values}, correct, max_risk=risk, cluster=cluster, resamples=resamples, seed=seed)
            for risk in risks
        ]
        sampled = np.array([boot.samples[""][:, 0, -1] for boot in drawn])
    above, rows = _above(ranking), []
    for risk, coverages in zip(risks, sampled, strict=True):
        low, high = np.quantile(coverages, [0.025, 0.975])
        coverage = metrics.coverage_at_risk(ranking, risk)
        at = int(np.searchsorted(ranking.kept, coverage * ranking.n - 1e-9))
        found = {"threshold": above[at], "kept": ranking.kept[at], "errors": ranking.wrong_kept[at]}
        nothing = {"threshold": np.nan, "kept": 0, "errors": 0}
        rows.append({"risk": risk, "coverage": coverage, "low": low, "high": high} | (found if coverage else nothing))
    return pd.DataFrame(rows)


def _resampled_coverages(
    ranking: metrics.Ranking, risks: Sequence[float], resamples: int, seed: int
) -> NDArray[np.float64]:
    """`metrics.coverage_at_risk` of resamples, (risks, resamples), see `at_risks`."""
    cells = np.unique(np.searchsorted(ranking.kept, np.linspace(0, ranking.n, CELLS + 1)[1:] - 1e-9))
    right, wrong = (np.diff(kept[cells], prepend=0) for kept in (ranking.right_kept, ranking.wrong_kept))
    share = np.concatenate((right, wrong)) / ranking.n
    drawn = np.random.default_rng(seed).multinomial(ranking.n, share / share.sum(), size=resamples)
    wrong_kept = drawn[:, len(cells) :].cumsum(1)
    kept = drawn[:, : len(cells)].cumsum(1) + wrong_kept
    coverages = []
    for risk in risks:
        fits = wrong_kept <= risk * kept + 1e-9  # the slack is of the product
        last = fits.shape[1] - 1 - fits[:, ::-1].argmax(1)
        coverages.append(np.where(fits.any(1), np.take_along_axis(kept, last[:, None], 1)[:, 0], 0) / ranking.n)
    return np.array(coverages)


def _above(ranking: metrics.Ranking) -> NDArray[np.float64]:
    """The threshold above which exactly the predictions up to each distinct confidence are kept, (M,)."""
    return np.append(ranking.threshold[1:], -np.inf)


def class_errors(table: Table) -> dict[str, float]:
    """NLL (nats) and Brier score of the K class probabilities against the labels, with 95 % intervals of a mean.

    The Brier score is the sum over the classes of (p - [it is the label])^2, in [0, 2].
    """
    log_p = log_softmax(table.logits, axis=1)
    rows = np.arange(len(table))
    of_label = np.exp(log_p[rows, table.label])
    brier = np.exp(2 * log_p).sum(1) - 2 * of_label + 1
    return calibration.mean("nll", -log_p[rows, table.label]) | calibration.mean("brier", brier)


def worst(table: Table, values: NDArray, threshold: float | None, count: int = 20) -> pd.DataFrame:
    """The errors of highest confidence, most confident first: row, confidence, label and prediction, whether kept."""
    errors = np.flatnonzero(~table.correct)
    errors = errors[np.argsort(-values[errors], kind="stable")][:count]
    names = table.rows if table.rows is not None else np.arange(1, len(table) + 1)
    found = {"row": names[errors], "confidence": values[errors]}
    if table.label is not None:
        classes = np.array(table.classes)
        found |= {"label": classes[table.label[errors]], "prediction": classes[table.predicted[errors]]}
    return pd.DataFrame(found | {"kept": values[errors] > (np.inf if threshold is None else threshold)})


def guarantees(
    scores: Mapping[str, NDArray],
    correct: NDArray,
    max_risk: float,
    delta: float,
    *,
    rule: str = "sgr",
    cluster: NDArray | None = None,
    rounded: bool = False,
) -> pd.DataFrame:
    """`selective.guaranteed_threshold` of every score by itself: one row per score, and why there is none in `reason`.

    A score that was fitted on these rows has none: the guarantee is for functions that were fixed before.

    rule, cluster : of `selective.guaranteed_threshold`.
    rounded : whether the scores computed here were (`scores_of`). A threshold is then half a digit above
        the prediction left out, so that it keeps the same ones of scores that were not rounded.
    """
    rows = {}
    for name, values in scores.items():
        try:
            if name in FITTED:
                raise ValueError("it was fitted on these rows, a guarantee needs others")
            found = selective.guaranteed_threshold(values, correct, max_risk, delta, rule, cluster=cluster)
            left, slack = found.threshold, 0.0
            if rounded and name in LABELS and np.isfinite(left):
                above = left + float(_unit(left)) / 2
                found = replace(found, threshold=float(f"{above:.{DIGITS + 2}g}"))
                slack = (expit(found.threshold) - expit(left)) / 2
            odds = f"log-odds; a probability of {_shortest(expit(found.threshold), slack)}"
            sentence = found.sentence(odds if name in LOG_ODDS else "")
            rows[name] = asdict(found) | {"reason": "" if found.found else sentence, "sentence": sentence}
        except ValueError as error:
            rows[name] = {"found": False, "reason": str(error), "sentence": f"No threshold qualifies: {error}."}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    counts = [name for name in ("kept", "errors", "n", "steps") if name in frame]
    return frame.astype(dict.fromkeys(counts, "Int64"))  # whole numbers beside those that are not there


def confusions(table: Table, kept: NDArray[np.bool_]) -> pd.DataFrame:
    """What the kept errors confuse, most frequent first: label, prediction, count, share of all such errors."""
    names = np.array(table.classes)
    pairs = pd.DataFrame({"label": names[table.label], "prediction": names[table.predicted], "count": kept})
    counts = pairs[~table.correct].groupby(["label", "prediction"])["count"].agg(["sum", "mean"]).reset_index()
    counts = counts[counts["sum"] > 0].sort_values("sum", ascending=False, kind="stable")
    return counts.rename(columns={"sum": "count", "mean": "share"}).reset_index(drop=True)


def thinned(curve: pd.DataFrame, points: int = 400) -> pd.DataFrame:
    """So many rows of a curve, evenly spaced, the first and the last among them."""
    return curve.iloc[np.unique(np.linspace(0, len(curve) - 1, points).astype(int))]


def plain_numbers(content: Any) -> Any:
    """The same for JSON: NumPy's numbers as Python's, null for what is not there, and "inf" and "-inf"."""
    if isinstance(content, Mapping):
        return {str(key): plain_numbers(value) for key, value in content.items()}
    if isinstance(content, list | tuple | np.ndarray):
        return [plain_numbers(value) for value in content]
    content = content.item() if isinstance(content, np.generic) else content
    if content is pd.NA or (isinstance(content, float) and np.isnan(content)):
        return None
    return str(content) if content in (np.inf, -np.inf) else content


def _cross_fitted(score: confidence.Score, logits: NDArray, label: NDArray) -> NDArray[np.float64] | str:
    """A score fitted on one half of the rows and computed on the other, both ways round; or why it cannot be."""
    half = np.random.default_rng(0).permutation(len(label)) < len(label) // 2
    if not half.any():
        return "one row has no halves"
    values = np.empty(len(label))
    for part in (half, ~half):
        seen, fit = (confidence.Observed(logits[rows], label[rows]) for rows in (part, ~part))
        if why := score.missing(seen, fit, fit):
            return f"it is fitted on halves, and in one of them {why.replace('validation set', 'half')}"
        values[part] = score.function(seen, fit, None)
    return values


def _shortest(x: float, slack: float) -> str:
    """A number in as few digits as are off by no more than the slack; all of them without any.

    >>> _shortest(0.30000000018631, 5e-11), _shortest(0.25, 0)
    ('0.3000000002', '0.25')
    """
    texts = (f"{x:.{digits}g}" for digits in range(6, 18))
    return next((text for text in texts if abs(float(text) - x) <= slack), selective.in_full(x))


def _unit(values: NDArray | float) -> NDArray[np.float64]:
    """What the last of `DIGITS` significant digits counts, but not less than `FINEST`."""
    digits = np.floor(np.log10(np.maximum(np.abs(values), FINEST))) - (DIGITS - 1)
    return 10.0 ** np.maximum(digits, np.log10(FINEST))
