"""The page of one evaluation, and the short form that a notebook shows: HTML from a `Report`."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit

from .. import __version__, metrics
from ..report import figures, markup, tables
from ..report.explorer import CAPTION, IN_ALL, POINTS, embedded, points
from ..report.tables import with_interval
from ..stats import calibration
from ..stats.rates import clopper_pearson
from ..stats.resampling import FEWEST
from ..stats.selective import in_full
from . import evaluate as numbers
from .reader import counted

if TYPE_CHECKING:
    from .comparison import Comparison
    from .page import Report

TEMPLATE = Path(__file__).with_name("tool.html.j2")
SCRIPT = figures.STYLE.with_name("report.js")
MOST, CURVES = 100, 6  # groups that a page shows, and ROC curves and reliability diagrams; the numbers have all
COLOURS = (  # Okabe and Ito's, and others that are safe for colour-blind readers
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", *figures.FURTHER[1:], "#222222", "#777777",
)  # fmt: skip
ENDS = ("", "_low", "_high")


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
    return f"<p>{tiles}</p>{_answer(report)}{_metrics_table(report)}{drawn}"


def comparison(of: Comparison) -> str:
    """The page of a comparison, one HTML file."""
    with plt.style.context(figures.STYLE):
        sections = [
            ("metrics", "Metrics", _compared(of)),
            ("risk-and-coverage", "Risk and coverage", _compared_curves(of)),
        ]
    tiles = [(f"{len(next(iter(of.tables.values()))):,}", "predictions")]
    rows = of.compared[of.compared["metric"] == "coverage_at_risk"]
    for row in rows.itertuples():
        interval = f"[{100 * row.low:.1f}, {100 * row.high:.1f}]"
        what = f"coverage at a risk of {_limit(of.settings['max_risk'])}, {escape(row.name)} {interval}"
        tiles.append((_percent(row.estimate), what))
    return markup.page(
        TEMPLATE, SCRIPT.read_text(), title=f"Compared: {escape(', '.join(of.tables))}", tiles=tiles,
        answer=_text(of.sentence), sections=sections, version=__version__, index="", files=[],
        contents=[("", id, heading) for id, heading, _ in sections],
    )  # fmt: skip


def comparison_summary(of: Comparison) -> str:
    """The finding, the metrics and the curves: what a notebook shows."""
    with plt.style.context(figures.STYLE):
        return _text(of.sentence) + _compared(of) + _compared_curves(of)


def _compared(of: Comparison) -> str:
    headings = {"accuracy": "Acc", "auroc": "AUROC ↑", "aurc": "AURC ↓", "augrc": "AUGRC ↓"}
    headings |= {"coverage_at_risk": f"coverage at {_limit(of.settings['max_risk'])} risk"}
    base, shown = next(iter(of.tables)), []
    for metric, rows in of.compared.groupby("metric", sort=False):
        rows = rows.set_index("name")
        text = pd.DataFrame({"": f"{headings[metric]}, %", "classifier": rows.index}, index=rows.index)
        text["estimate"] = with_interval(rows, ("estimate", "low", "high"), 100)
        text[f"minus {base}'s"] = with_interval(
            rows, ("difference", "difference_low", "difference_high"), 100, sign="+"
        )
        text["p, Holm"] = rows["p_holm"].map("{:.2g}".format).replace("nan", tables.MISSING)
        shown.append(text.assign(test=rows["test"].replace("", tables.MISSING)))
    caption = (
        f"95 % intervals and differences on the same rows, {of.settings['resamples']:,} paired resamples. p: DeLong's "
        "test of the AUROC where the errors are the same, else the bootstrap's; Holm's correction is over all tests."
    )
    return table(pd.concat(shown).set_index(""), caption, left=("classifier", "test"))


def _compared_curves(of: Comparison) -> str:
    fig, ax = plt.subplots(figsize=(6.4, 3.6))
    curves = {name: curve.iloc[len(curve) // 50 :] for name, curve in of.curves.items()}
    for name, curve in curves.items():
        figures.risk_band(ax, curve["coverage"], curve["risk"], curve["low"], curve["high"], label=_plain(name))
    ax.axhline(of.settings["max_risk"], color="0.35", linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.05 * max(curve["high"].max() for curve in curves.values()))
    ax.legend(loc="upper left")
    return figure(
        fig, "Risk, the share of errors among the predictions kept, against coverage, with exact 95 % intervals point "
        "by point (of each by itself, not of differences); dashed: the acceptable risk.",
        f"Risk against coverage of {', '.join(of.tables)}.",
    )  # fmt: skip


# --- Pieces ---


def table(frame: pd.DataFrame, caption: str, *, bold: pd.DataFrame | None = None, left: Iterable[str] = ()) -> str:
    """A table of texts with its caption; the index is its first column unless it only counts.

    Parameters
    ----------
    frame : texts, shown as they are.
    bold : of the same shape: which cells.
    left : columns of words, set to the left.
    """
    numbered = isinstance(frame.index, pd.RangeIndex)
    head = ([] if numbered else [frame.index.name or ""]) + [str(name) for name in frame]
    lines = [f'<th scope="col">{_unbroken(name)}</th>' for name in head]
    rows = [f"<thead><tr>{''.join(lines)}</tr></thead>"]
    for i, (name, row) in enumerate(zip(frame.index, frame.itertuples(index=False), strict=True)):
        cells = [] if numbered else [f'<th scope="row">{escape(str(name))}</th>']
        for column, value in enumerate(row):
            style = ' style="font-weight: bold"' if bold is not None and bold.iat[i, column] else ""
            style = ' style="text-align: left; white-space: normal"' if frame.columns[column] in left else style
            cells.append(f"<td{style}>{escape(str(value))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    caption = escape(caption)
    made = f'<table class="data"><caption><span>{caption}</span></caption>{rows[0]}<tbody>{"".join(rows[1:])}</tbody>'
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">{made}</table></div>'
    return f'<figure class="table">{box}</figure>'


def _unbroken(heading: str) -> str:
    return escape(heading).replace(" %", "&nbsp;%").replace(" ↑", "&nbsp;↑").replace(" ↓", "&nbsp;↓")


def figure(fig: Figure, caption: str, alt: str) -> str:
    """A drawn figure with its caption and alternative text."""
    return f"<figure>{markup.picture(markup.svg(fig), alt)}<figcaption>{escape(caption)}</figcaption></figure>"


def _text(*sentences: str) -> str:
    return f"<p>{escape(' '.join(sentences))}</p>"


def _plain(name: str) -> str:
    """A name in a figure, where $ would begin a formula."""
    return name.replace("$", r"\$")


def _colours(report: Report) -> dict[str, str]:
    names = [report.method, *(name for name in report.scores if name != report.method)]
    return dict(zip(names, cycle(COLOURS), strict=False))


def _percent(share: float, digits: int = 1) -> str:
    return tables.MISSING if np.isnan(share) else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def _limit(share: float) -> str:
    return f"{100 * share:.6g}\N{NO-BREAK SPACE}%"


def _exact(report: Report) -> str:
    """What the intervals of shares are: Clopper and Pearson's, or, with clusters, `share_interval`'s."""
    return "exact 95 % intervals" if report.table.cluster is None else "95 % intervals over clusters"


def _threshold(report: Report, value: float | None) -> str:
    """A threshold in four digits; of log-odds as the probability that it is."""
    if value is None or np.isnan(value):
        return tables.MISSING
    if value == -np.inf:
        return "all are kept"
    return f"{expit(value):.4g}" if report.method in numbers.LOG_ODDS else f"{value:.4g}"


# --- The first screen ---


def _tiles(report: Report) -> list[tuple[str, str]]:
    row = report.metrics.set_index(["score", "metric"]).loc[report.method]
    risk = report.settings["max_risk"]
    tiles = [(f"{len(report.table):,}", "predictions")]
    for name, what in (("accuracy", "accuracy"), ("auroc", f"AUROC of {escape(report.method)}")):
        estimate, low, high = row.loc[name, ["estimate", "low", "high"]].astype(float)
        interval = "" if np.isnan(low) else f" [{100 * low:.1f}, {100 * high:.1f}]"
        tiles.append((_percent(estimate), what + interval))
    at = report.at_risk.set_index("risk").loc[risk]
    interval = f"[{100 * at['low']:.1f}, {100 * at['high']:.1f}]"
    tiles.append((_percent(at["coverage"]), f"coverage at a risk of {_limit(risk)} on these rows {interval}"))
    row = report.guarantees.loc[report.method]
    tiles.append(
        (_percent(row["coverage"]) if row["found"] else "none", f"coverage at a guaranteed risk of {_limit(risk)}")
    )
    return tiles


def _answer(report: Report) -> str:
    """The threshold in a sentence, short; the one with all digits folded below."""
    row, name = report.guarantees.loc[report.method], escape(report.method)
    if not row["found"]:
        return f"<p><b>{name}:</b> {escape(report.sentence)}</p>"
    what = f"when {name}{', as a probability,' if report.method in numbers.LOG_ODDS else ''} is above"
    above = f'{what} <b title="{in_full(row["threshold"])}">{_threshold(report, row["threshold"])}</b>'
    return (
        f"<p><b>Keep</b> {'every prediction' if row['threshold'] == -np.inf else f'a prediction {above}'}: that keeps "
        f"<b>{_percent(row['coverage'])}</b> of these {len(report.table):,} predictions with {_percent(row['risk'])} "
        "errors, and on new data like them the share of errors is at most "
        f"<b>{_limit(report.settings['max_risk'])}</b> with probability {1 - report.settings['delta']:g}.</p>"
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
    shown = [_list(facts)]
    if taken:
        shown.append(f"<details><summary>What each column was taken for</summary>{_list(taken)}</details>")
    return shown


def _list(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"


def _choose(report: Report) -> list[str]:
    correct, shown = report.table.correct, []
    if correct.any() and not correct.all():
        colours = _colours(report)
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
            "threshold": at["threshold"].map(lambda value: _threshold(report, value)),
        }
    )  # fmt: skip
    text.index = pd.Index(at["coverage"].map(_percent), name="coverage")
    shown.append(table(text, f"Risk of the most confident predictions of {report.method}, {_exact(report)}."))
    at = report.at_risk
    text = pd.DataFrame(
        {
            "coverage, %": with_interval(at, ("coverage", "low", "high"), 100),
            "kept": at["kept"].map("{:,}".format), "errors": at["errors"].map("{:,}".format),
            "threshold": at["threshold"].map(lambda value: _threshold(report, value)),
        }
    )  # fmt: skip
    caption = (
        "The largest coverage at a risk on these predictions, with intervals of the bootstrap. It is chosen on the "
        "rows on which it is counted: a guarantee holds on new ones."
    )
    text.index = pd.Index(at["risk"].map(_limit), name="risk at most")
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
    ax.set_xlabel(_plain(name))
    shaded = " Shaded: what the guaranteed threshold leaves out." if report.threshold is not None else ""
    return figure(
        fig, f"{name} of correct predictions (up) and incorrect ones (down), each as shares of their number.{shaded}",
        f"Two histograms: {int(correct.sum()):,} correct and {int((~correct).sum()):,} incorrect predictions.",
    )  # fmt: skip


def _risk_coverage(report: Report) -> str:
    colours, fig = _colours(report), plt.figure(figsize=(6.4, 3.6))
    ax = fig.subplots()
    top = 0.0
    for name in reversed(colours):
        curve = report.curves[name]
        points = curve.iloc[len(curve) // 50 :]
        top = max(top, points["risk"].max(), points["high"].max() if name == report.method else 0)
        low, high = (points[end if name == report.method else "risk"] for end in ("low", "high"))
        figures.risk_band(ax, points["coverage"], points["risk"], low, high, label=_plain(name), color=colours[name])
    ax.axhline(report.settings["max_risk"], color="0.35", linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.05 * top)
    row = report.guarantees.loc[report.method]
    if row["found"]:
        ax.plot(row["coverage"], row["risk"], "o", color=colours[report.method], markersize=6)
    ax.legend(*[part[::-1] for part in ax.get_legend_handles_labels()], loc="upper left", bbox_to_anchor=(1, 1))
    return figure(
        fig, "Risk, the share of errors among the predictions kept, against coverage. Band: "
        f"{_exact(report)} of {report.method}, point by point; dashed: the acceptable risk; dot: the guaranteed "
        "threshold, where there is one. The curve's first fiftieth is left out.",
        f"Risk against coverage of {len(colours)} confidences; at full coverage the risk is "
        f"{_percent(1 - report.table.correct.mean())}.",
    )  # fmt: skip


def _ranking(report: Report) -> list[str]:
    shown = [
        _text(
            "AUROC is the probability that a correct prediction gets a higher confidence than an incorrect one; AURC, "
            "E-AURC and AUGRC are areas under curves of risk against coverage, lower is better. TPR and TNR, correct "
            "predictions trusted and incorrect ones not, are at a probability of one half."
        ),
        _metrics_table(report),
    ]
    correct = report.table.correct
    if correct.any() and not correct.all():
        fig, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3.2))
        colours = _colours(report)
        for order, name in enumerate(list(colours)[:CURVES]):
            style = {"color": colours[name], "zorder": 3 - order / CURVES}  # the one that decides on top
            fpr, tpr, _ = metrics.roc_curve(report.scores[name], correct)
            figures.roc(left, fpr, tpr, label=_plain(name), **style)
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
                f"ROC and precision-recall curves; the AUROC of {report.method} is {_percent(auroc[report.method])}.",
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
        return [_text("None of these confidences is a probability: none lies between 0 and 1.")]
    correct, colours = report.table.correct, _colours(report)
    width = 2.5 * len(names) + 0.7
    fig = plt.figure(figsize=(width, 3.5))
    axs = fig.subplots(2, len(names), squeeze=False, sharex="col", sharey="row", height_ratios=[4, 1])
    for (ax, mass), name in zip(axs.T, names, strict=True):
        p = report.probabilities[name]
        bins = calibration.reliability(p, correct)
        low, high = clopper_pearson(np.rint(bins["accuracy"] * bins["n"]).astype(int), bins["n"])
        figures.reliability(ax, bins["probability"], bins["accuracy"], low, high, color=colours[name])
        ax.set_title(_plain(name))
        mass.hist(p, np.linspace(0, 1, 41), weights=np.full(len(p), 1 / len(p)), color=colours[name])
        mass.set(xlabel="probability", ylabel="share")
        mass.yaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
        ax.set_xlabel("")
    figures.outer_labels(axs)
    for mass in axs[1]:
        mass.set_xlabel("probability")
    drawn = figure(
        fig, "Reliability: bins of equal numbers of predictions with exact 95 % intervals; on the line a probability "
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
        shown.append(_text(f"All {classes} class probabilities against the labels: NLL {nll}, Brier score {brier}."))
    return shown


def _guarantees(report: Report) -> list[str]:
    frame = _guaranteed(report.guarantees)
    risk, delta = report.settings["max_risk"], report.settings["delta"]
    caption = (
        "The widest coverage that the search finds whose share of errors on new data is shown to be at most "
        f"{_limit(risk)} with probability {1 - delta:g}. Predictions above the threshold are kept."
    )
    beforehand = (
        "Each row holds by itself, for a confidence that was chosen beforehand. To choose among these rows by what "
        "they show, set a delta smaller by as many times as there are rows."
    )
    shown = [table(frame, caption, left=REASON), _text(beforehand)]
    if report.threshold is None and report.best is not None and report.best.found:
        least = (
            f"The smallest risk that these predictions can guarantee for {report.method}, looked for at all coverages:"
        )
        shown.append(_text(least, str(report.best), "It is a statement by itself, with a delta of its own."))
    return shown


REASON = ("why there is none",)


def _guaranteed(found: pd.DataFrame) -> pd.DataFrame:
    """Thresholds with their counts as texts, one row per score or group; where there is none, why."""
    rows = {}
    for name, row in found.iterrows():
        if row["found"]:
            shares = (f"{100 * row[column]:.2f}" for column in ("coverage", "risk", "bound"))
            above = "all are kept" if row["threshold"] == -np.inf else in_full(row["threshold"])
            rows[name] = [above, f"{int(row['kept']):,}", *shares, ""]
        else:
            short = "none was found" if "the search found none" in row["reason"] else row["reason"]
            rows[name] = [tables.MISSING] * 5 + [short]
    columns = ["threshold", "kept", "coverage, %", "errors among them, %", "bound, %", *REASON]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    return frame if frame[REASON[0]].any() else frame[columns[:-1]]


def _cost(report: Report) -> list[str]:
    if report.cost is None:
        return []
    cost, (error, abstention) = report.cost, report.settings["cost"]
    curve = numbers.thinned(cost.curve)
    best = cost.curve.loc[cost.curve["threshold"] == cost.threshold].iloc[0]
    fig, ax = plt.subplots(figsize=(6.4, 2.9))
    ax.plot(curve["coverage"], curve["cost"], color=_colours(report)[report.method])
    ax.plot(best["coverage"], best["cost"], "o", color="0.2")
    ax.set(xlabel="coverage", ylabel="cost per prediction", xlim=(0, 1.01), ylim=(0, None))
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    judged, saved = ("{:.4g} [{:.4g}, {:.4g}]".format(*triple) for triple in (cost.judged, cost.saved))
    text = (
        f"An error costs {error:g}, an abstention {abstention:g}. The cheapest threshold on these rows is "
        f"{_threshold(report, cost.threshold)}, which keeps {_percent(best['coverage'])}. A threshold chosen on one "
        f"half of the rows costs {judged} per prediction on the other, {saved} less than keeping every prediction."
    )
    return [
        _text(text),
        figure(fig, "Expected cost per prediction against coverage; dot: the cheapest threshold.", "A cost curve."),
    ]


def _passing(report: Report) -> list[str]:
    found = report.table
    if report.threshold is None:
        return [_text("There is no threshold, so that nothing is kept.")]
    errors = int((report.kept & ~found.correct).sum())
    if found.label is None or not errors:
        known = " What they confuse is known where there are labels and predictions." if errors else ""
        return [_text(f"{counted(errors, 'error')} of {int((~found.correct).sum()):,} lie above the threshold.{known}")]
    passed = numbers.confusions(found, report.kept)
    counts, shown = passed.pivot(index="label", columns="prediction", values="count").fillna(0), []
    if max(counts.shape) <= 30:
        fig, ax = plt.subplots(figsize=(0.42 * counts.shape[1] + 1.9, 0.36 * counts.shape[0] + 1.3))
        counts = counts.rename(index=_plain, columns=_plain)
        figures.confusion(ax, counts)
        caption = (
            f"The {errors:,} errors above the threshold, of {int((~found.correct).sum()):,}, by what they confuse."
        )
        alt = f"Most frequent: {passed['label'][0]} taken for {passed['prediction'][0]}."
        shown.append(figure(fig, f"{caption} Classes without any are left out.", alt))
    first = passed.head(15).assign(share=passed["share"].map("{:.0%}".format))
    first.columns = ["true class", "taken for", "kept", "of those made"]
    return [*shown, table(first.reset_index(drop=True), "The most frequent of them.", left=first.columns[:2])]


def _groups(report: Report) -> list[str]:
    if report.groups is None:
        return []
    found = report.groups
    shown = found.nlargest(MOST, "n").sort_index() if len(found) > MOST else found
    text = {"n": shown["n"].map("{:,}".format), "errors": shown["errors"].map("{:,}".format)}
    headings = {"accuracy": "Acc", "auroc": "AUROC", "coverage": "coverage", "risk": "risk"}
    for name, heading in headings.items():
        text[heading] = with_interval(shown, [f"{name}{end}" for end in ENDS], 100)
    text["AUROC"] = text["AUROC"].where(shown["note"] == "", shown["note"])
    bold = {}
    for name in numbers.AGAINST_REST:
        if f"{name}_difference" in shown:
            heading = f"{headings[name]} minus the rest's"
            ends = [f"{name}_difference{end}" for end in ENDS]
            text[heading] = with_interval(shown, ends, 100, sign="+")
            bold[heading] = shown[f"{name}_p_holm"] < 0.05
    frame = pd.DataFrame(text)
    marks = pd.DataFrame(bold, index=frame.index).reindex(columns=frame.columns, fill_value=False)
    what = "Groups" if report.table.group is not None else "Groups are the true classes"
    more = f" The {MOST} largest of {len(found):,} are shown." if len(found) > MOST else ""
    caption = (
        f"{what}; {report.method}, per cent, each by itself: {_exact(report)}, of the AUROC DeLong's, which needs "
        f"{FEWEST} correct and {FEWEST} incorrect predictions. Coverage and risk are those of the threshold. Bold: the "
        f"difference from all other predictions is significant after Holm's correction over the groups.{more}"
    )
    warning = "A threshold that holds on the whole may fail in a part: the guarantee is for all predictions together."
    html = [_text(warning), table(frame, caption, bold=marks)]
    each = report.group_guarantees
    if each is not None and len(each) > 1 and len(each) <= MOST:
        risk, delta = report.settings["max_risk"], report.settings["delta"]
        caption = (
            f"Thresholds of {report.method} for each group by itself: all of them hold at once, a risk of at most "
            f"{_limit(risk)} with probability {1 - delta:g}. Which groups there are is fixed beforehand."
        )
        html.append(table(_guaranteed(each), caption, left=REASON))
    return html


def _worst(report: Report) -> list[str]:
    found = numbers.worst(report.table, report.scores[report.method], report.threshold)
    if not len(found):
        return [_text("There is no error.")]
    confidence = found["confidence"].map(lambda value: _threshold(report, value))
    text = found.assign(confidence=confidence, kept=found["kept"].map({True: "kept", False: tables.MISSING}))
    text = text.rename(columns={"confidence": report.method, "kept": "by the threshold", "label": "true class"})
    counted_so = (
        " Rows are numbered without those left out." if report.table.dropped and report.table.rows is None else ""
    )
    return [
        table(text, f"The errors of highest confidence, by row.{counted_so}", left=("row", "true class", "prediction"))
    ]


SECTIONS = {
    "What was read": _read,
    "Risk and coverage": _choose,
    "Curves": _curves,
    "How well does each confidence rank": _ranking,
    "Is it a probability": _probability,
    "Guarantees": _guarantees,
    "Costs": _cost,
    "What passes the threshold": _passing,
    "Groups": _groups,
    "The worst errors": _worst,
}
