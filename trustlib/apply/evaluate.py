"""Evaluate your own predictions: scores, metrics with intervals, thresholds with a guarantee, groups, confusions."""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from .. import confidence, metrics
from ..analysis import compare
from ..predictions import Predictions
from ..stats import resampling, selective, statistics
from ..stats.rates import clopper_pearson, rate_intervals
from ..stats.resampling import FEWEST
from .reader import Table

LABELS = {score.label for score in confidence.SCORES.values()}
LOG_ODDS = {score.label for score in confidence.SCORES.values() if score.log_odds}
FITTED = {score.label for score in confidence.SCORES.values() if score.needs}  # here: on the rows themselves
GROUP_RATES = ("accuracy", "auroc", "coverage", "risk")
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
    """A confidence as a probability of being right: MCP's, with a temperature or without, or a column in [0, 1]."""
    if name in table.confidences:
        return values if values.min() >= 0 and values.max() <= 1 else None
    return expit(values) if name in LOG_ODDS else None


def compare_scores(
    scores: Mapping[str, NDArray],
    correct: NDArray[np.bool_],
    thresholds: Mapping[str, float],
    *,
    resamples: int = 2000,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Every metric of every score with its 95 % interval over the rows, and its difference from the first score's.

    Parameters
    ----------
    scores : name -> float (N,).
    thresholds : above which a score trusts; one that is not named has neither TPR nor TNR.
    resamples, seed : of the paired bootstrap, see `resampling.bootstrap`.

    Returns
    -------
    One row per score and metric: score, metric, estimate, low, high, difference, difference_low, difference_high; NaN
    where a metric does not exist (`metrics.undefined`). The accuracy's interval is exact.
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
        seed=seed, threads=os.cpu_count() or 1, progress=progress,
    )  # fmt: skip
    frame = compare.compare(predictions, drawn).rename(columns={"arm": "score"})
    exact = clopper_pearson(int(correct.sum()), len(correct))
    frame.loc[frame["metric"] == "accuracy", ["low", "high"]] = np.array(exact)
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
        f"{answer}. AUC {own['estimate']:.2f} [{own['low']:.2f}, {own['high']:.2f}] against {mcp['estimate']:.2f} "
        f"[{mcp['low']:.2f}, {mcp['high']:.2f}], difference {own['difference']:+.2f} "
        f"[{own['difference_low']:+.2f}, {own['difference_high']:+.2f}]."
    )


def curve(values: NDArray, correct: NDArray[np.bool_], points: int = 400) -> pd.DataFrame:
    """The risk-coverage curve at so many coverages, with exact 95 % intervals, each by itself.

    Which predictions are kept does not depend on which are right, so that the errors among so many kept ones are
    binomial as far as one error says nothing of another.

    Returns
    -------
    One row per point, ascending: coverage, risk, low, high; fractions.
    """
    coverage, risk = metrics.risk_coverage(values, correct)
    at = np.unique(np.searchsorted(coverage, np.linspace(0, 1, points)).clip(max=len(coverage) - 1))
    kept = np.rint(coverage[at] * len(correct)).astype(int)
    low, high = clopper_pearson(np.rint(risk[at] * kept).astype(int), kept)
    return pd.DataFrame({"coverage": coverage[at], "risk": risk[at], "low": low, "high": high})


def guarantees(
    scores: Mapping[str, NDArray], correct: NDArray, max_risk: float, delta: float, *, rounded: bool = False
) -> pd.DataFrame:
    """`statistics.guaranteed_threshold` of every score by itself: one row per score, and why there is none in `reason`.

    A score that was fitted on these rows has none: the guarantee is for functions that were fixed before.

    rounded : whether the scores computed here were (`scores_of`). A threshold is then half a digit above
        the prediction left out, so that it keeps the same ones of scores that were not rounded.
    """
    rows = {}
    for name, values in scores.items():
        try:
            if name in FITTED:
                raise ValueError("it was fitted on these rows, a guarantee needs others")
            found = selective.guaranteed_threshold(values, correct, max_risk, delta)
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


def groups(values: NDArray, correct: NDArray, member: NDArray, threshold: float | None) -> pd.DataFrame:
    """How one confidence does in each group, with 95 % intervals: exact ones of shares, DeLong's of the AUC.

    Returns
    -------
    One row per group: n, wrong; accuracy, auroc, and of the predictions above the threshold their share, coverage, and
    their errors' share, risk, each with _low and _high; NaN without a threshold. The AUC is NaN where fewer than
    `FEWEST` predictions are right, or wrong, which `note` says.
    """
    columns = ["n", "wrong", *(f"{what}{end}" for what in GROUP_RATES for end in ("", "_low", "_high")), "note"]
    rows = {}
    for name in np.unique(member):
        x, right = values[member == name], correct[member == name]
        n, wrong = len(right), int((~right).sum())
        low, high = map(float, clopper_pearson(n - wrong, n))
        row = {"n": n, "wrong": wrong, "accuracy": right.mean(), "accuracy_low": low, "accuracy_high": high}
        rates = rate_intervals(x, right, threshold) if threshold is not None else {}
        for what in ("coverage", "risk") if rates else ():
            row |= {what: rates[what].rate, f"{what}_low": rates[what].low, f"{what}_high": rates[what].high}
        enough = min(wrong, n - wrong) >= FEWEST
        if enough:
            area = statistics.delong(x, right)
            row |= {"auroc": area.auroc, "auroc_low": area.low, "auroc_high": area.high}
        few = f"{min(wrong, n - wrong)} {'wrong' if wrong <= n - wrong else 'right'}: too few for an AUC"
        rows[name] = row | {"note": "" if enough else few}
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)


def confusions(table: Table, kept: NDArray[np.bool_]) -> pd.DataFrame:
    """What the kept errors confuse, most frequent first: label, prediction, count, share of all such errors."""
    names = np.array(table.classes)
    pairs = pd.DataFrame({"label": names[table.label], "prediction": names[table.predicted], "count": kept})
    counts = pairs[~table.correct].groupby(["label", "prediction"])["count"].agg(["sum", "mean"]).reset_index()
    counts = counts[counts["sum"] > 0].sort_values("sum", ascending=False, kind="stable")
    return counts.rename(columns={"sum": "count", "mean": "share"}).reset_index(drop=True)


def plain_numbers(content: object) -> object:
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
