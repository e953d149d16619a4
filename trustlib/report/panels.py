"""The figures of a study's page: each function lays out panels and returns the figure, its caption and its alt text.

Captions and alternative texts are computed from what is drawn: what to see, in numbers.
"""

from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from .. import metrics
from ..analysis import compare
from ..study import Study
from . import figures
from .prose import joined, signed, span
from .study_tables import is_significant, main_methods

COVERAGES = np.linspace(0.02, 1, 50)
EDGE = -25.0  # points below MCP, where the forest plot ends: beyond it a score is useless, however far
GREY = "0.35"  # of scores that no loss of the paper has


class Drawn(NamedTuple):
    """A figure with its words."""

    figure: Figure
    caption: str
    alt: str


def colour(study: Study, arm: str) -> str:
    """Of the loss of a method or probe, grey for a score without one."""
    if arm in study.all_methods:
        return figures.line_style(**study.line(arm))["color"]
    _, _, loss = arm.partition("_")
    is_probe = study.group_of(arm) == "probe"
    return figures.line_style(loss)["color"] if is_probe else GREY


def differences(rows: pd.DataFrame, study: Study) -> Drawn:
    """AUROC minus MCP's of every other score, by group, one panel per classifier.

    Parameters
    ----------
    rows : AUROC's rows of `compare.compare_pairs` without MCP, in the form of `study_tables.by_classifier`.
    """
    lines = rows[["group", "label"]].drop_duplicates()
    places, headings, y = {}, {}, 0.0
    for group, labels in lines.groupby("group", sort=False)["label"]:
        headings[group], y = y, y - 1
        for label in labels:
            places[group, label], y = y, y - 1
        y -= 0.3
    classifiers = rows["classifier"].unique()
    size = (3.2 + 3.1 * len(classifiers), 0.7 - 0.165 * y)
    fig, axs = plt.subplots(1, len(classifiers), figsize=size, squeeze=False, sharey=True)
    for ax, name in zip(axs.flat, classifiers, strict=True):
        part = rows[rows["classifier"] == name]
        _forest(ax, part, [places[key] for key in zip(part["group"], part["label"], strict=True)], study)
        ax.set_title(f"Judged: {name}")
    axs[0, 0].set(ylim=(y + 0.5, 0.8), yticks=[*headings.values(), *places.values()])
    axs[0, 0].set_yticklabels([*headings, *(label for _, label in places)])
    for text in axs[0, 0].get_yticklabels()[: len(headings)]:
        text.set_fontweight("bold")
    oracles = rows[rows["arm"].map(study.is_oracle)]
    below, above = (oracles["difference_high"] < 0).sum(), (oracles["difference_low"] > 0).sum()
    best = [part.loc[part["difference"].idxmax()] for _, part in oracles.groupby("classifier", sort=False)]
    highest = joined(f"{row.label} on {row.classifier} ({signed(100 * row.difference)})" for row in best)
    caption = (
        "AUROC minus MCP's in percentage points, with 95 % intervals; right of the line is better than the "
        "classifier's own confidence, filled is significant. "
        f"{below} of {len(oracles)} oracles lie significantly below MCP, {above} above."
    )
    return Drawn(fig, caption, f"{caption} The best oracles: {highest}.")


def _forest(ax: Axes, part: pd.DataFrame, places: list[float], study: Study) -> None:
    for place, row in zip(places, part.itertuples(), strict=True):
        shade = colour(study, row.arm)
        low, value, high = 100 * row.difference_low, 100 * row.difference, 100 * row.difference_high
        if value < EDGE:
            ax.annotate(f"◂ {signed(value)}", (EDGE, place), va="center", fontsize=7, color=shade)
            continue
        real = low > 0 or high < 0
        ax.hlines(place, max(low, EDGE), high, color=shade, linewidth=1.5)
        ax.plot(value, place, "o", markersize=4, color=shade, markerfacecolor=shade if real else "white")
    ax.axvline(0, color=figures.COLOURS["mcp"], linewidth=1.2)
    lowest = max(EDGE, 100 * part["difference_low"].min())
    ax.set(xlabel="AUROC minus MCP's, points", xlim=(lowest - 1, max(1.5, 100 * part["difference_high"].max() + 0.8)))
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


def risk_coverage(results: Any, pairs: list[str], split: str = "test") -> Drawn:
    """Risk against coverage, and less MCP's, mean of the seeds with their range: MCP and the first method of each loss.

    One column per pair.
    """
    study = results.study
    size = (1 + 3.6 * len(pairs), 5) if len(pairs) < 3 else (2.9 * len(pairs), 4.6)
    fig, axs = plt.subplots(2, len(pairs), figsize=size, squeeze=False, sharey="row", sharex=True)
    lowest, top, least, most = {}, 0.0, 0.0, 0.0
    for (above, below), pair in zip(axs.T, pairs, strict=True):
        predictions = results.predictions(pair, split)
        risks = {
            arm: risks_at(predictions, arm) for arm in ["mcp", *main_methods(study)] if arm in predictions.confidence
        }
        for arm, risk in risks.items():
            style = {"label": study.method_label(arm), "color": colour_of_line(study, arm)}
            less = risk - risks["mcp"]
            for ax, shown in ((above, risk), (below, less)):
                figures.risk_band(ax, COVERAGES, shown.mean(0), shown.min(0), shown.max(0), **style)
            least, most = min(least, less.min()), max(most, less.max())
        mean = np.stack([risk.mean(0) for risk in risks.values()])
        lowest[pair] = (mean[0] <= mean[1:].min(0) + 1e-12).mean() if len(mean) > 1 else np.nan
        top = max(top, 1.5 * (~predictions.correct).mean())
        above.set(title=study.pair_label(pair), ylabel="risk (share of errors)")
        below.set(ylabel="risk minus MCP's")
    axs[0, 0].set_ylim(0, top)
    axs[1, 0].set_ylim(1.1 * least, 1.1 * most or None)
    figures.outer_labels(axs)
    figures.legend_below(fig, axs[0, 0])
    at = joined(f"{100 * share:.0f} % ({study.pair_label(pair)})" for pair, share in lowest.items())
    caption = (
        "Risk, the share of errors among the predictions kept, against coverage, the share kept (above), and less "
        "MCP's (below; positive is worse); means of the seeds, shaded their range. MCP has the lowest risk of all "
        f"at {at} of the coverages."
    )
    return Drawn(fig, caption, caption)


def colour_of_line(study: Study, arm: str) -> str:
    """Black for MCP, which is the line that others are compared with."""
    return figures.COLOURS["mcp"] if arm == "mcp" else colour(study, arm)


def risks_at(predictions: Any, arm: str) -> NDArray[np.float64]:
    """Selective risk of every seed at `COVERAGES`, float (S, 50)."""
    curves = [metrics.risk_coverage(row, predictions.correct) for row in predictions.confidence[arm]]
    return np.stack([np.interp(COVERAGES, coverage, risk) for coverage, risk in curves])


def histograms(results: Any, pair: str, names: list[str]) -> Drawn:
    """Confidences of correct and incorrect predictions, first seed, one panel per score (Fig. 3)."""
    study = results.study
    correct, z = compare.first_seed(results, pair)
    chosen = [arm for arm in names if arm in z]
    columns = min(len(chosen), 4)
    rows = -(-len(chosen) // columns)
    fig, axs = plt.subplots(rows, columns, figsize=(2.5 * columns, 2.1 * rows + 0.4), squeeze=False)
    trusted = {}
    for ax, arm in zip(axs.flat, chosen, strict=False):
        probability = compare.as_probability(arm, z[arm])
        figures.histogram(ax, probability, correct)
        ax.set_title(study.method_label(arm))
        trusted[arm] = 100 * (probability[~correct] > 0.5).mean()
    for ax in axs.flat[len(chosen) :]:
        ax.set_axis_off()
    figures.outer_labels(axs)
    figures.legend_below(fig, axs[0, 0])
    shares = joined(f"{study.method_label(arm)} {share:.1f} %" for arm, share in trusted.items())
    caption = (
        f"{study.pair_label(pair)}, first seed: confidence σ(z), or MCP itself, of correct predictions (up) and "
        f"incorrect ones (down). Trusted, right of the shaded side, are of the incorrect ones: {shares}."
    )
    return Drawn(fig, caption, caption)


def thresholds(results: Any, pairs: list[str], arm: str) -> Drawn:
    """The two thresholds of a method that learns a probability, 0.5 and 1/K, per pair (Fig. 1b)."""
    study, chance = results.study, 1 / results.classes
    fig, axs = plt.subplots(1, len(pairs), figsize=(2.9 * len(pairs), 2.5), squeeze=False)
    between = {}
    for ax, pair in zip(axs.flat, pairs, strict=True):
        correct, z = compare.first_seed(results, pair)
        probability = compare.as_probability(arm, z[arm])
        figures.histogram(ax, probability, correct, negative_threshold=chance)
        ax.set_title(study.pair_label(pair))
        between[pair] = 100 * ((probability > chance) & (probability <= 0.5)).mean()
    figures.outer_labels(axs)
    figures.legend_below(fig, axs[0, 0])
    shares = joined(f"{share:.1f} % ({study.pair_label(pair)})" for pair, share in between.items())
    caption = (
        f"{study.method_label(arm)} oracles with the thresholds 0.5 (dotted) and 1/K = {chance:g} (dashed). Between "
        f"the two, neither trusted nor counted as a true negative, lie {shares} of the predictions."
    )
    return Drawn(fig, caption, caption)


def shifts(rows: pd.DataFrame, study: Study, labels: dict[str, str]) -> Drawn:
    """AUROC minus MCP's on each distribution shift as a heat map, one panel per pair.

    Parameters
    ----------
    rows : AUROC's rows of `compare.compare_shifts`, of methods, with those of the clean test set as domain "clean".
    labels : domain -> its name, in order.
    """
    pairs = list(rows["pair"].unique())
    methods = [arm for arm in main_methods(study) if arm in set(rows["arm"])]
    columns = min(len(pairs), 2)
    tall = -(-len(pairs) // columns)
    size = (1.6 + 0.62 * len(methods) * columns, 0.9 + tall * (0.5 + 0.27 * len(labels)))
    fig, axs = plt.subplots(tall, columns, figsize=size, squeeze=False, sharey=True)
    largest = 100 * rows["difference"].abs().quantile(0.95)
    for ax, pair in zip(axs.flat, pairs, strict=False):
        part = rows[rows["pair"] == pair].set_index(["domain", "arm"])
        value, real = (
            column.unstack("arm").reindex(index=list(labels), columns=methods)
            for column in (100 * part["difference"], is_significant(part))
        )
        named = value.rename(index=labels).set_axis(_short(study, methods), axis=1)
        figures.heat(ax, named, largest=largest, bold=real.eq(True))
        ax.set_title(study.pair_label(pair))
    for ax in axs.flat[len(pairs) :]:
        ax.set_axis_off()
    shifted = rows[(rows["domain"] != "clean") & rows["arm"].isin(methods)].dropna(subset="difference")
    below, above = (shifted["difference_high"] < 0).sum(), (shifted["difference_low"] > 0).sum()
    caption = (
        "AUROC minus MCP's, percentage points, on the clean test set and on each shift; bold: significant. Under shift "
        f"{below} of {len(shifted)} lie significantly below MCP, {above} above."
    )
    return Drawn(fig, caption, f"{caption} They go {span(100 * shifted['difference'], sign=True)}.")


def _short(study: Study, methods: list[str]) -> list[str]:
    """Labels broken into lines of one word or two."""
    return [study.method_label(arm).replace(", ", ",\n").replace("-", "-\n") for arm in methods]


def severities(swept: pd.DataFrame, study: Study, labels: dict[str, str], arm: str) -> Drawn:
    """AUROC of a method minus MCP's as a heat map of corruption and severity, one panel per pair.

    Parameters
    ----------
    swept : what `compare.sweep` returns.
    labels : corruption -> its name.
    """
    mean = swept.groupby(["pair", "corruption", "severity", "arm"], sort=False)["auroc"].mean().unstack("arm")
    less = 100 * (mean[arm] - mean["mcp"])
    pairs = list(swept["pair"].unique())
    size = (1.8 + 2.9 * len(pairs), 0.8 + 0.22 * len(labels))
    fig, axs = plt.subplots(1, len(pairs), figsize=size, squeeze=False, sharey=True)
    for ax, pair in zip(axs.flat, pairs, strict=True):
        value = less[pair].unstack("severity").sort_index(axis=1).reindex(list(labels)).rename(index=labels)
        figures.heat(ax, value, largest=less.abs().quantile(0.95))
        ax.set(title=study.pair_label(pair), xlabel="severity (0: clean)")
    caption = (
        f"AUROC of {study.method_label(arm)} minus MCP's, percentage points, mean of the seeds, under each corruption "
        f"at each severity: above 0 in {(less > 0).sum()} of {less.notna().sum()} cells. Grey: no AUROC."
    )
    return Drawn(fig, caption, f"{caption} They go {span(less, sign=True)}.")
