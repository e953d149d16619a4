"""The page's sections on what to do: guarantees, costs, what passes the threshold, groups, the worst errors.

Each takes a `Report` and returns HTML, nothing where there is nothing to show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..report import figures, tables
from ..report.tables import with_interval
from ..stats.resampling import FEWEST
from ..stats.selective import in_full
from . import evaluate as numbers
from .groups import AGAINST_REST
from .pieces import (
    ENDS,
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

MOST = 100  # groups that a page shows; the numbers have all


def guarantees(report: Report) -> list[str]:
    frame = _guaranteed(report.guarantees)
    risk, delta = report.settings["max_risk"], report.settings["delta"]
    caption = (
        "The widest coverage that the search finds whose share of errors on new data is shown to be at most "
        f"{limit(risk)} with probability {1 - delta:g}. Predictions above the threshold are kept."
    )
    beforehand = (
        "Each row holds by itself, for a confidence that was chosen beforehand. To choose among these rows by what "
        "they show, set a delta smaller by as many times as there are rows."
    )
    shown = [table(frame, caption, left=REASON), paragraph(beforehand)]
    if report.threshold is None and report.best is not None and report.best.found:
        least = (
            f"The smallest risk that these predictions can guarantee for {report.method}, looked for at all coverages:"
        )
        shown.append(paragraph(least, str(report.best), "It is a statement by itself, with a delta of its own."))
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


def cost(report: Report) -> list[str]:
    if report.cost is None:
        return []
    cost, (error, abstention) = report.cost, report.settings["cost"]
    curve = numbers.thinned(cost.curve)
    best = cost.curve.loc[cost.curve["threshold"] == cost.threshold].iloc[0]
    fig, ax = plt.subplots(figsize=(6.4, 2.9))
    ax.plot(curve["coverage"], curve["cost"], color=colours_of(report)[report.method])
    ax.plot(best["coverage"], best["cost"], "o", color="0.2")
    ax.set(xlabel="coverage", ylabel="cost per prediction", xlim=(0, 1.01), ylim=(0, None))
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")
    judged, saved = ("{:.4g} [{:.4g}, {:.4g}]".format(*triple) for triple in (cost.judged, cost.saved))
    text = (
        f"An error costs {error:g}, an abstention {abstention:g}. The cheapest threshold on these rows is "
        f"{threshold_shown(report, cost.threshold)}, which keeps {percent(best['coverage'])}. A threshold chosen on "
        f"one half of the rows costs {judged} per prediction on the other, {saved} less than keeping every prediction"
        f"{' (intervals take rows as independent)' if report.table.cluster is not None else ''}."
    )
    return [
        paragraph(text),
        figure(fig, "Expected cost per prediction against coverage; dot: the cheapest threshold.", "A cost curve."),
    ]


def passing(report: Report) -> list[str]:
    found = report.table
    if report.threshold is None:
        return [paragraph("There is no threshold, so that nothing is kept.")]
    errors = int((report.kept & ~found.correct).sum())
    if found.label is None or not errors:
        known = " What they confuse is known where there are labels and predictions." if errors else ""
        return [
            paragraph(f"{counted(errors, 'error')} of {int((~found.correct).sum()):,} lie above the threshold.{known}")
        ]
    passed = numbers.confusions(found, report.kept)
    counts, shown = passed.pivot(index="label", columns="prediction", values="count").fillna(0), []
    if max(counts.shape) <= 30:
        fig, ax = plt.subplots(figsize=(0.42 * counts.shape[1] + 1.9, 0.36 * counts.shape[0] + 1.3))
        counts = counts.rename(index=no_formula, columns=no_formula)
        figures.confusion(ax, counts)
        caption = (
            f"The {errors:,} errors above the threshold, of {int((~found.correct).sum()):,}, by what they confuse."
        )
        alt = f"Most frequent: {passed['label'][0]} taken for {passed['prediction'][0]}."
        shown.append(figure(fig, f"{caption} Classes without any are left out.", alt))
    first = passed.head(15).assign(share=passed["share"].map("{:.0%}".format))
    first.columns = ["true class", "taken for", "kept", "of those made"]
    return [*shown, table(first.reset_index(drop=True), "The most frequent of them.", left=first.columns[:2])]


def groups(report: Report) -> list[str]:
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
    for name in AGAINST_REST:
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
        f"{what}; {report.method}, per cent, each by itself: {interval_kind(report)}, of the AUROC DeLong's, which "
        f"needs {FEWEST} correct and {FEWEST} incorrect predictions. Coverage and risk are those of the threshold. "
        f"Bold: the difference from all other predictions is significant after Holm's correction over the groups.{more}"
    )
    warning = "A threshold that holds on the whole may fail in a part: the guarantee is for all predictions together."
    html = [paragraph(warning), table(frame, caption, bold=marks)]
    each = report.group_guarantees
    if each is not None and len(each) > 1 and len(each) <= MOST:
        risk, delta = report.settings["max_risk"], report.settings["delta"]
        caption = (
            f"Thresholds of {report.method} for each group by itself: all of them hold at once, a risk of at most "
            f"{limit(risk)} with probability {1 - delta:g}. Which groups there are is fixed beforehand."
        )
        html.append(table(_guaranteed(each), caption, left=REASON))
    return html


def worst(report: Report) -> list[str]:
    found = numbers.worst(report.table, report.scores[report.method], report.threshold)
    if not len(found):
        return [paragraph("There is no error.")]
    confidence = found["confidence"].map(lambda value: threshold_shown(report, value))
    text = found.assign(confidence=confidence, kept=found["kept"].map({True: "kept", False: tables.MISSING}))
    text = text.rename(columns={"confidence": report.method, "kept": "by the threshold", "label": "true class"})
    counted_so = (
        " Rows are numbered without those left out." if report.table.dropped and report.table.rows is None else ""
    )
    return [
        table(text, f"The errors of highest confidence, by row.{counted_so}", left=("row", "true class", "prediction"))
    ]
