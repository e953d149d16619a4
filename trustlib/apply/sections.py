"""The page of one evaluation, and the short form that a notebook shows: HTML from a `Report`."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.special import expit

from .. import __version__, metrics
from ..report import figures, markup, tables
from ..report.tables import with_interval
from ..report.thresholds import CAPTION, IN_ALL, POINTS, embedded, points
from ..stats import calibration
from ..stats.rates import clopper_pearson
from ..stats.selective import in_full
from . import decisions
from . import evaluate as numbers
from .pieces import (
    ENDS,
    bullets,
    colours_of,
    figure,
    interval_kind,
    limit,
    no_formula,
    paragraph,
    percent,
    table,
    threshold_shown,
)
from .reader import counted

if TYPE_CHECKING:
    from .page import Report

TEMPLATE = Path(__file__).with_name("tool.html.j2")
SCRIPT = figures.STYLE.with_name("report.js")
CURVES = 6  # ROC curves and reliability diagrams that a page shows; the numbers have all


def page(report: Report) -> str:
    """The whole page, one HTML file."""
    with plt.style.context(figures.STYLE):
        parts = [(heading, section(report)) for heading, section in SECTIONS.items()]
    shown = [(heading.lower().replace(" ", "-"), heading, "\n".join(html)) for heading, html in parts if html]
    return markup.page(
        TEMPLATE, SCRIPT.read_text(), title=f"Which predictions can be trusted? {escape(report.table.source)}",
        tiles=_tiles(report), answer=_answer(report), sections=shown, version=__version__, index="", files=[],
        contents=[("", id, heading) for id, heading, _ in shown],
    )  # fmt: skip


def summary(report: Report) -> str:
    """Key figures, the threshold, the metrics and one figure: what a notebook shows."""
    tiles = " · ".join(f"<b>{value}</b> {what}" for value, what in _tiles(report))
    with plt.style.context(figures.STYLE):
        drawn = _risk_coverage(report)
    shown = f"<p>{tiles}</p>{_answer(report)}{_metrics_table(report)}{drawn}"
    return f'<div class="trustlib"><style>.trustlib td {{ white-space: nowrap }}</style>{shown}</div>'


# --- The first screen ---


def _tiles(report: Report) -> list[tuple[str, str]]:
    row = report.metrics.set_index(["score", "metric"]).loc[report.method]
    risk = report.settings["max_risk"]
    tiles = [(f"{len(report.table):,}", "predictions")]
    for name, what in (("accuracy", "accuracy"), ("auroc", f"AUROC of {escape(report.method)}")):
        estimate, low, high = row.loc[name, ["estimate", "low", "high"]].astype(float)
        interval = "" if np.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
        tiles.append((percent(estimate), what + interval))
    at = report.at_risk.set_index("risk").loc[risk]
    interval = f"[{100 * at['low']:.1f}, {100 * at['high']:.1f}]"
    tiles.append((percent(at["coverage"]), f"coverage at a risk of {limit(risk)} on these rows {interval}"))
    row = report.guarantees.loc[report.method]
    tiles.append(
        (percent(report.kept.mean()) if row["found"] else "none", f"coverage at a guaranteed risk of {limit(risk)}")
    )
    return tiles


def _answer(report: Report) -> str:
    """The threshold in a sentence, short; the one with all digits folded below."""
    row, name = report.guarantees.loc[report.method], escape(report.method)
    if not row["found"]:
        return f"<p><b>{name}:</b> {escape(report.sentence)}</p>"
    what = f"when {name}{', as a probability,' if report.method in numbers.LOG_ODDS else ''} is above"
    above = f'{what} <b title="{in_full(row["threshold"])}">{threshold_shown(report, row["threshold"])}</b>'
    return (
        f"<p><b>Keep</b> {'every prediction' if row['threshold'] == -np.inf else f'a prediction {above}'}: that keeps "
        f"<b>{percent(row['coverage'])}</b> of these {row['n']:,} predictions"
        f"{', one drawn from each cluster,' if row['clusters'] else ''} with {percent(row['risk'])} "
        "errors, and on new data like them the share of errors is at most "
        f"<b>{limit(report.settings['max_risk'])}</b> with probability {1 - report.settings['delta']:g}.</p>"
        f"<details><summary>The same for a report, with all digits</summary><p>{escape(report.sentence)} It speaks of "
        "new predictions drawn as these were: same classifier, same kind of data, one independent of another. It says "
        "nothing of other data.</p></details>"
    )


# --- The sections: of each, what it shows, empty for a section that is left out ---


def _read(report: Report) -> list[str]:
    found, chosen = report.table, report.scores[report.method]
    facts = [f"{counted(len(found), 'prediction')}, {int((~found.correct).sum()):,} of them incorrect."]
    facts += [f"{counted(found.dropped, 'row')} left out: something is missing there."] if found.dropped else []
    facts += [f"{name}: not computed, {why}." for name, why in report.left_out.items()]
    same = [name for name, x in report.scores.items() if name != report.method and np.array_equal(x, chosen)]
    facts += [f"The same numbers as {report.method} here: {', '.join(same)}."] if same else []
    undefined = metrics.undefined(found.correct)
    missing = {tables.COLUMNS[name][0].rstrip(" ↑↓"): why for name, why in undefined.items() if name in tables.COLUMNS}
    facts += [f"There is no {', '.join(missing)}: {next(iter(missing.values()))}."] if missing else []
    taken = [*found.notes, *([f"Not used: {', '.join(found.unused)}."] if found.unused else [])]
    shown = [bullets(facts)]
    if taken:
        shown.append(f"<details><summary>What each column was taken for</summary>{bullets(taken)}</details>")
    return shown


def _choose(report: Report) -> list[str]:
    correct, shown = report.table.correct, []
    if correct.any() and not correct.all():
        colours = colours_of(report)
        methods = [
            {
                "label": name, "group": "confidences", "colour": colours[name], "dashes": "",
                "shown": i < 3 or name == report.method, "start": name == report.method,
                **points(
                    report.scores[name], correct, min(POINTS, IN_ALL // len(report.scores)),
                    _own(report, name),
                    expit if name in numbers.LOG_ODDS else float,
                ),
            }
            for i, name in enumerate(report.scores)
        ]  # fmt: skip
        pair = {"label": "", "n": len(correct), "errors": int((~correct).sum()), "methods": methods}
        caption = CAPTION.format(next(iter(report.scores)), "On these predictions.")
        shown.append(embedded([pair | {"own": "the guaranteed threshold"}], caption))
    at = report.at_coverage
    text = pd.DataFrame(
        {
            "risk, %": with_interval(at, ("risk", "low", "high"), 100, digits=2),
            "kept": at["kept"].map("{:,}".format), "errors": at["errors"].map("{:,}".format),
            "threshold": at["threshold"].map(lambda value: threshold_shown(report, value)),
        }
    )  # fmt: skip
    text.index = pd.Index(at["coverage"].map(percent), name="coverage")
    shown.append(table(text, f"Risk of the most confident predictions of {report.method}, {interval_kind(report)}."))
    at = report.at_risk
    text = pd.DataFrame(
        {
            "coverage, %": with_interval(at, ("coverage", "low", "high"), 100),
            "kept": at["kept"].map("{:,}".format), "errors": at["errors"].map("{:,}".format),
            "threshold": at["threshold"].map(lambda value: threshold_shown(report, value)),
        }
    )  # fmt: skip
    caption = (
        "The largest coverage at a risk on these predictions, with intervals of the bootstrap. It is chosen on the "
        "rows on which it is counted: a guarantee holds on new ones."
    )
    text.index = pd.Index(at["risk"].map(limit), name="risk at most")
    return [*shown, table(text, caption)]


def _own(report: Report, name: str) -> float:
    row = report.guarantees.loc[name]
    return float(row["threshold"]) if row["found"] else np.nan


def _curves(report: Report) -> list[str]:
    return [_histogram(report), _risk_coverage(report)]


def _histogram(report: Report) -> str:
    name, correct = report.method, report.table.correct
    probability = report.probabilities.get(name)
    values = report.scores[name] if probability is None else probability
    span = (0.0, 1.0)
    if probability is None:
        low, high = map(float, np.quantile(np.clip(values, -1e300, 1e300), [0.001, 0.999]))
        span = (low, high) if low < high else (low - 0.5, low + 0.5)
    threshold = np.nan if report.threshold is None else report.threshold
    threshold = expit(threshold) if name in numbers.LOG_ODDS else threshold
    fig, ax = plt.subplots(figsize=(6.4, 2.9))
    figures.histogram(ax, np.clip(values, *span), correct, threshold=float(threshold), span=span)
    ax.legend(loc="upper left")
    ax.set_xlabel(no_formula(name))
    shaded = " Shaded: what the guaranteed threshold leaves out." if report.threshold is not None else ""
    return figure(
        fig, f"{name} of correct predictions (up) and incorrect ones (down), each as shares of their number.{shaded}",
        f"Two histograms: {int(correct.sum()):,} correct and {int((~correct).sum()):,} incorrect predictions.",
    )  # fmt: skip


def _risk_coverage(report: Report) -> str:
    colours, fig = colours_of(report), plt.figure(figsize=(6.4, 3.6))
    ax = fig.subplots()
    top = 0.0
    for name in reversed(colours):
        curve = report.curves[name]
        points = curve.iloc[len(curve) // 50 :]
        top = max(top, points["risk"].max(), points["high"].max() if name == report.method else 0)
        low, high = (points[end if name == report.method else "risk"] for end in ("low", "high"))
        figures.risk_band(
            ax, points["coverage"], points["risk"], low, high, label=no_formula(name), color=colours[name]
        )
    ax.axhline(report.settings["max_risk"], color="0.35", linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.05 * top)
    kept = report.kept
    if kept.any():
        ax.plot(kept.mean(), 1 - report.table.correct[kept].mean(), "o", color=colours[report.method], markersize=6)
    ax.legend(*[part[::-1] for part in ax.get_legend_handles_labels()], loc="upper left", bbox_to_anchor=(1, 1))
    return figure(
        fig, "Risk, the share of errors among the predictions kept, against coverage. Band: "
        f"{interval_kind(report)} of {report.method}, point by point; dashed: the acceptable risk; dot: the guaranteed "
        "threshold, where there is one. The curve's first fiftieth is left out.",
        f"Risk against coverage of {len(colours)} confidences; at full coverage the risk is "
        f"{percent(1 - report.table.correct.mean())}.",
    )  # fmt: skip


def _ranking(report: Report) -> list[str]:
    shown = [
        paragraph(
            "AUROC is the probability that a correct prediction gets a higher confidence than an incorrect one; AURC, "
            "E-AURC and AUGRC are areas under curves of risk against coverage, lower is better. TPR and TNR, correct "
            "predictions trusted and incorrect ones not, are at a probability of one half."
        ),
        _metrics_table(report),
    ]
    correct = report.table.correct
    if correct.any() and not correct.all():
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
        colours = colours_of(report)
        for order, name in enumerate(list(colours)[:CURVES]):
            style = {"color": colours[name], "zorder": 3 - order / CURVES}  # the one that decides on top
            fpr, tpr, _ = metrics.roc_curve(report.scores[name], correct)
            figures.roc(left, fpr, tpr, label=no_formula(name), **style)
            recall, precision = _precision_recall(report.scores[name], correct)
            right.plot(recall, precision, **style)
        right.axhline(1 - correct.mean(), color="0.6", linewidth=0.8, zorder=0)
        right.set(xlabel="errors found (recall)", ylabel="errors among those flagged", xlim=(0, 1), ylim=(0, 1.01))
        figures.legend_below(fig, left)
        auroc = report.metrics.query("metric == 'auroc'").set_index("score")["estimate"]
        shown.append(
            figure(
                fig, "Left: the ROC curve. Right: precision and recall of errors, flagged from the least confident up; "
                "the line is their share.",
                f"ROC and precision-recall curves; the AUROC of {report.method} is {percent(auroc[report.method])}.",
            )
        )  # fmt: skip
    return shown


def _metrics_table(report: Report) -> str:
    text, bold = tables.metrics_text(report.metrics)
    clustered = report.table.cluster is not None
    drawn = f"{report.settings['resamples']:,} paired resamples{' of clusters' * clustered}"
    caption = f"Per cent, with 95 % intervals ({drawn})."
    more = " Bold: the best of a column, or a significant difference, each taken by itself." if len(text) > 1 else ""
    return table(text, caption + more, bold=bold)


def _precision_recall(values: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of errors that are flagged from the least confident up, at most `CURVE_POINTS` points."""
    ranking = metrics.rank(-values, ~correct)  # what is flagged first has the highest rank, an error is a find
    keep = np.unique(np.linspace(0, len(ranking.kept) - 1, figures.CURVE_POINTS).astype(int))
    found, seen = ranking.right_kept[keep], ranking.kept[keep]
    return found / ranking.right_kept[-1], found / seen


def _probability(report: Report) -> list[str]:
    names = list(report.probabilities)[:CURVES]
    if not names:
        return [paragraph("None of these confidences is a probability: none lies between 0 and 1.")]
    correct, colours = report.table.correct, colours_of(report)
    width = 2.5 * len(names) + 0.7
    fig = plt.figure(figsize=(width, 3.5))
    axs = fig.subplots(2, len(names), squeeze=False, sharex="col", sharey="row", height_ratios=[4, 1])
    for (ax, mass), name in zip(axs.T, names, strict=True):
        p = report.probabilities[name]
        bins = calibration.reliability(p, correct)
        low, high = clopper_pearson(np.rint(bins["accuracy"] * bins["n"]).astype(int), bins["n"])
        figures.reliability(ax, bins["probability"], bins["accuracy"], low, high, color=colours[name])
        ax.set_title(no_formula(name))
        mass.hist(p, np.linspace(0, 1, 41), weights=np.full(len(p), 1 / len(p)), color=colours[name])
        mass.set(xlabel="probability", ylabel="share")
        mass.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        ax.set_xlabel("")
    figures.outer_labels(axs)
    for mass in axs[1]:
        mass.set_xlabel("probability")
    drawn = figure(
        fig, "Reliability: bins of equal numbers of predictions with exact 95 % intervals"
        f"{', which take rows as independent' if report.table.cluster is not None else ''}; on the line a probability "
        "is calibrated. Below: where the predictions lie.",
        f"Accuracy against stated probability for {', '.join(names)}.",
    )  # fmt: skip
    text = {
        "ECE, %": with_interval(report.calibration, [f"ece{end}" for end in ENDS], 100, digits=2),
        "Brier score": with_interval(report.calibration, [f"brier{end}" for end in ENDS], 1, digits=4),
        "NLL, nats": with_interval(report.calibration, [f"nll{end}" for end in ENDS], 1, digits=4),
    }
    caption = (
        "Errors of each as a probability of being correct, with 95 % intervals. 0 is perfect for the ECE (15 bins of "
        "equal numbers) alone; Brier score and NLL also count how well errors are told apart."
    )
    shown = [drawn, table(pd.DataFrame(text), caption)]
    if report.class_errors:
        row = pd.DataFrame([report.class_errors])
        nll, brier = (with_interval(row, [f"{name}{end}" for end in ENDS], 1, digits=4)[0] for name in ("nll", "brier"))
        classes = len(report.table.classes)
        shown.append(
            paragraph(f"All {classes} class probabilities against the labels: NLL {nll}, Brier score {brier}.")
        )
    return shown


SECTIONS = {
    "What was read": _read,
    "Risk and coverage": _choose,
    "Curves": _curves,
    "How well does each confidence rank": _ranking,
    "Is it a probability": _probability,
    "Guarantees": decisions.guarantees,
    "Costs": decisions.cost,
    "What passes the threshold": decisions.passing,
    "Groups": decisions.groups,
    "The worst errors": decisions.worst,
}
