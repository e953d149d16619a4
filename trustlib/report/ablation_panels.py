"""The figures of a study's ablations and of the heads on cached features, as `panels` has them."""

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .. import metrics
from ..analysis import ablations
from ..study import Study
from . import figures
from .panels import Drawn, colour
from .prose import joined, signed, span


def ablation(rows: pd.DataFrame, study: Study, mcp: dict[str, float], question: str) -> Drawn:
    """AUROC of the methods of an ablation with 95 % intervals, one panel per pair, with lines at MCP and at chance.

    Parameters
    ----------
    rows : AUROC's rows of `ablations.compare`.
    mcp : pair -> MCP's AUROC, fraction.
    """
    pairs = list(rows["pair"].unique())
    longest = max(len(study.method_label(arm)) for arm in rows["arm"].unique())
    size = (0.6 + 0.06 * longest + 3.6 * len(pairs), 0.9 + 0.21 * rows["arm"].nunique())
    fig, axs = plt.subplots(1, len(pairs), figsize=size, squeeze=False, sharey=True)
    said = []
    for ax, pair in zip(axs.flat, pairs, strict=True):
        part = rows[rows["pair"] == pair]
        labels, colours = part["arm"].map(study.method_label).tolist(), [colour(study, arm) for arm in part["arm"]]
        estimate, low, high = 100 * part[["estimate", "low", "high"]].to_numpy().T
        figures.forest(ax, labels, estimate, low, high, colours, title=study.pair_label(pair), xlabel="AUROC, %")
        ax.axvline(100 * mcp[pair], color=figures.COLOURS["mcp"], linewidth=1.2, label="MCP")
        if low.min() < 60:
            ax.axvline(50, color="0.5", linewidth=1, linestyle=":", label="chance")
        best = part.loc[part["estimate"].idxmax()]
        said.append(
            f"{study.pair_label(pair)}: best {study.method_label(best['arm'])} {100 * best['estimate']:.1f} %, "
            f"MCP {100 * mcp[pair]:.1f} %"
        )
    figures.legend_below(fig, axs[0, 0])
    caption = f"{question} AUROC with 95 % intervals; the black line is MCP. {'; '.join(said)}."
    return Drawn(fig, caption, caption)


def learning_curves(curves: pd.DataFrame, study: Study, names: dict[str, str]) -> Drawn:
    """AUROC against training steps on the oracle's training images, the validation and the test set, per pair.

    Parameters
    ----------
    curves : `runs.results.Run.curves`.
    names : loss -> its name.
    """
    pairs = list(dict.fromkeys(curves["pair"]))
    splits = {"train": "its training images", "heldout": "validation set", "test": "test set"}
    fig, axs = plt.subplots(len(pairs), 3, figsize=(9.5, 2.7 * len(pairs) + 0.4), squeeze=False, sharey="row")
    last = []
    for row, pair in zip(axs, pairs, strict=True):
        for ax, (split, title) in zip(row, splits.items(), strict=True):
            part = curves[(curves["pair"] == pair) & (curves["split"] == split)]
            for loss, of_loss in part.groupby("loss", sort=False):
                values = of_loss.pivot(index="seed", columns="steps", values="auroc")
                style = {"label": names[loss]} | figures.line_style(loss)
                figures.over(ax, values.columns.to_numpy(), values.to_numpy(), **style)
            figures.level(ax, part["mcp"].mean(), "MCP")
            steps = sorted(part["steps"].unique())
            ax.set_xticks(steps, [f"{k:,}" for k in steps], rotation=35)
            ax.set(xlabel="training steps", title=f"{study.pair_label(pair)}, {title}", ylabel="AUROC, %")
        top = part.groupby(["loss", "steps"])["auroc"].mean()
        loss, steps = top.idxmax()
        last.append(
            f"{study.pair_label(pair)}: {names[loss]} at {steps:,} steps, {100 * top.max():.1f} % against MCP's "
            f"{100 * part['mcp'].mean():.1f} %"
        )
    figures.outer_labels(axs)
    figures.legend_below(fig, axs[0, 0])
    caption = (
        "AUROC against the oracle's training steps; lines are means of the seeds, shaded their range, dashed is MCP on "
        "the same images. Below the line on its own training images an oracle is not fitted. Best on the test set: "
        f"{'; '.join(last)}."
    )
    return Drawn(fig, caption, caption)


def rate_search(
    search: pd.DataFrame, chosen: dict[tuple[str, str], float], study: Study, mcp: dict[str, float]
) -> Drawn:
    """Validation AUROC against the learning rate, first seed, one panel per pair, with MCP's line.

    Parameters
    ----------
    search : columns pair, arm, rate, auroc.
    chosen : (pair, method) -> its tuned learning rate.
    mcp : pair -> MCP's AUROC on the same images.
    """
    pairs = list(search["pair"].unique())
    fig, axs = plt.subplots(1, len(pairs), figsize=(4.2 * len(pairs), 3), squeeze=False, sharey=True)
    best = []
    for ax, pair in zip(axs.flat, pairs, strict=True):
        for arm, tried in search[search["pair"] == pair].groupby("arm", sort=False):
            style = {"label": study.method_label(arm)} | study.line(arm)
            rates = tried["rate"].to_numpy()
            figures.rate_search(ax, rates, tried["auroc"].to_numpy(), chosen.get((pair, arm)), **style)
            best.append(f"{study.pair_label(pair)} {study.method_label(arm)} {chosen.get((pair, arm), np.nan):g}")
        figures.level(ax, mcp[pair], "MCP")
        ax.set(title=study.pair_label(pair), ylabel="validation AUROC, %")
    figures.outer_labels(axs)
    figures.legend_below(fig, axs[0, 0])
    caption = (
        f"The search on {study.ablations.tuning:,} validation images, first seed; filled is the learning rate chosen: "
        f"{joined(best)}. Dashed: MCP."
    )
    return Drawn(fig, caption, caption)


def operating_points(results: Any, pair: str, points: pd.DataFrame) -> Drawn:
    """ROC curves of the first seed with operating points, what `ablations.operating_points` returns."""
    study, correct = results.study, results.predictions(pair).correct
    fig, ax = plt.subplots(figsize=(5.2, 4.4))
    for arm in ["mcp", *dict.fromkeys(points["arm"])]:
        z = results.predictions(pair).confidence["mcp"] if arm == "mcp" else ablations.outputs_of(results, pair, arm)
        if z is not None:
            curve = metrics.roc_curve(z[0], correct)
            figures.roc(ax, *curve[:2], label=study.method_label(arm), color=_line(study, arm))
    for (name, point), marker in zip(points.iterrows(), "os^vD", strict=False):
        place = (1 - point["tnr"], point["tpr"])
        ax.plot(*place, marker, color=_line(study, point["arm"]), markeredgecolor="white", label=name, linestyle="")
    ax.plot([0, 1], [0, 1], color="0.5", linewidth=1, linestyle=":", label="chance")
    ax.legend(loc="lower right")
    where = joined(f"{name} at {100 * row['tpr']:.1f} / {100 * row['tnr']:.1f}" for name, row in points.iterrows())
    caption = f"ROC curves of the first seed, with operating points, means over the seeds (TPR / TNR, %): {where}."
    return Drawn(fig, caption, caption)


def _line(study: Study, arm: str) -> str:
    return figures.COLOURS["mcp"] if arm == "mcp" else colour(study, arm)


def optimum(binned: pd.DataFrame) -> Drawn:
    """s of a trained steep slope oracle against the minimiser of its loss, what `ablations.optimum` returns."""
    fig, ax = plt.subplots(figsize=(4.4, 4.2))
    best = binned[["best", "best_low", "best_high"]].to_numpy(float).T
    figures.with_errors(ax, binned["s"].to_numpy(float), *best, color=figures.COLOURS["ss"])
    ax.plot([-1, 1], [-1, 1], color="0.6", linewidth=0.8)
    ax.set(xlabel="s of the trained oracle, mean of a bin", ylabel="s* for the bin's accuracy")
    ax.set(xlim=(-1, 1), ylim=(-1, 1))
    below = (binned["best_high"] < binned["s"]).sum()
    above = (binned["best_low"] > binned["s"]).sum()
    caption = (
        "A trained steep slope oracle's s, first seed, in bins of equally many test images, against the s* that "
        f"minimises its loss there, with exact 95 % intervals. It trusts too much in {below} of {len(binned)} bins "
        f"and too little in {above}."
    )
    return Drawn(fig, caption, caption)


def slopes(shown: pd.DataFrame, mcp: float) -> Drawn:
    """TPR, TNR and AUROC against a slope of the steep slope loss (Fig. 4b and 4c), what `ablations.slopes` returns."""
    sweeps = [("alpha_neg", "alpha_pos", 1.0, "α−"), ("alpha_pos", "alpha_neg", 3.0, "α+")]
    sweeps = [sweep for sweep in sweeps if (shown[sweep[1]] == sweep[2]).sum() > 1]
    fig, axs = plt.subplots(1, len(sweeps), figsize=(4.3 * len(sweeps), 3.2), squeeze=False, sharey=True)
    for ax, (swept, held, at, name) in zip(axs.flat, sweeps, strict=True):
        part = shown[shown[held] == at].sort_values(swept)
        for key, label, dashes in (("tpr", "TPR", "-"), ("tnr", "TNR", "--"), ("auroc", "AUROC", ":")):
            ax.plot(part[swept], 100 * part[key], f"o{dashes}", markersize=4, color=figures.COLOURS["ss"], label=label)
        figures.level(ax, mcp, "AUROC of MCP")
        ax.set(xlabel=name, ylabel="%", ylim=(0, 101), title=f"{name} varies")
    figures.outer_labels(axs)
    figures.legend_below(fig, axs[0, 0])
    moved = {name: span(100 * shown[key]) for key, name in (("tpr", "TPR"), ("tnr", "TNR"), ("auroc", "AUROC"))}
    caption = f"Over the slopes TPR is {moved['TPR']} %, TNR {moved['TNR']} %, and AUROC {moved['AUROC']} %."
    return Drawn(fig, caption, caption)


def heads(means: pd.DataFrame, study: Study, names: dict[str, dict[str, str]]) -> Drawn:
    """AUROC of heads on cached features minus MCP's, all images, by classifier and source of the labels.

    Parameters
    ----------
    means : columns classifier, labels, head, n, difference, low, high; one row per head.
    names : "head" and "labels" -> key -> what it is.
    """
    sources, classifiers = list(means["labels"].unique()), list(means["classifier"].unique())
    size = (2.6 + 2.5 * len(sources), 0.6 + 1.5 * len(classifiers))
    fig, axs = plt.subplots(len(classifiers), len(sources), figsize=size, squeeze=False, sharey=True, sharex="row")
    shown = means.assign(step=means["head"].map(names["head"]), estimate=means["difference"])
    for (row, name), (column, labels) in _grid(classifiers, sources):
        ax, part = axs[row, column], shown[(shown["classifier"] == name) & (shown["labels"] == labels)]
        if part.empty:
            ax.set_axis_off()
            continue
        figures.gaps(ax, part, colour=figures.COLOURS["ce"])
        ax.set_title(f"{study.network(name).label}: {names['labels'][labels]}, n = {part['n'].iloc[0]:,}", fontsize=8)
    figures.outer_labels(axs)
    ordered = means.sort_values("difference")
    ends = joined(
        f"{names['head'][row['head']]} on {study.network(row['classifier']).label} {signed(100 * row['difference'])}"
        for _, row in ordered.iloc[[0, -1]].iterrows()
    )
    caption = (
        "AUROC of heads on frozen features minus MCP's (the line), test images, 95 % intervals. The lowest and the "
        f"highest: {ends} points."
    )
    return Drawn(fig, caption, caption)


def heads_by_size(means: pd.DataFrame, study: Study, names: dict[str, dict[str, str]]) -> Drawn:
    """AUROC of heads against the number of images, with 95 % intervals and MCP's line; as `heads` takes them."""
    sources, classifiers = list(means["labels"].unique()), list(means["classifier"].unique())
    colours = dict(zip(names["head"], ("#D55E00", "#E69F00", "#009E73", "#0072B2", "#CC79A7"), strict=False))
    size = (1 + 2.7 * len(sources), 0.7 + 2 * len(classifiers))
    fig, axs = plt.subplots(len(classifiers), len(sources), figsize=size, squeeze=False, sharey="row", sharex=True)
    for (row, name), (column, labels) in _grid(classifiers, sources):
        ax, part = axs[row, column], means[(means["classifier"] == name) & (means["labels"] == labels)]
        if part.empty:
            ax.set_axis_off()
            continue
        mcp = (part["auroc"] - part["difference"]).iloc[0]
        for head, rows in part.groupby("head", sort=False):
            values = (mcp + rows[["difference", "low", "high"]].to_numpy()).T
            style = {"label": names["head"][head], "color": colours[head]}
            figures.over(ax, rows["n"].to_numpy(), values, **style)
        figures.level(ax, mcp, "MCP")
        ax.set(title=f"{study.network(name).label}: {names['labels'][labels]}", xlabel="images n", ylabel="AUROC, %")
    figures.outer_labels(axs)
    figures.legend_below(fig, axs[0, 0])
    largest = means[means["n"] == means["n"].max()]
    caption = (
        "AUROC on test images against the number of images that a head is fitted on, 95 % intervals shaded; dashed is "
        f"MCP. With all of them the heads lie {span(100 * largest['difference'], sign=True)} points from MCP."
    )
    return Drawn(fig, caption, caption)


def _grid(rows: list[str], columns: list[str]) -> list[tuple[tuple[int, str], tuple[int, str]]]:
    return [(row, column) for row in enumerate(rows) for column in enumerate(columns)]


def gaps(decomposed: dict[str, pd.DataFrame], study: Study) -> Drawn:
    """The distance to MCP step by step, one panel per classifier: classifier -> what `figures.gaps` takes."""
    tallest = max(map(len, decomposed.values()))
    size = (7, 0.5 + len(decomposed) * (0.5 + 0.25 * tallest))
    fig, axs = plt.subplots(len(decomposed), 1, figsize=size, squeeze=False, sharex=True)
    for ax, (name, changes) in zip(axs[:, 0], decomposed.items(), strict=True):
        figures.gaps(ax, changes)
        ax.set_title(study.network(name).label)
    figures.outer_labels(axs)
    ends = joined(
        f"{study.network(name).label} from {signed(100 * steps['estimate'].min())} to "
        f"{signed(100 * steps['estimate'].max())}"
        for name, steps in decomposed.items()
    )
    caption = f"AUROC minus MCP's on test images, points, 95 % intervals, one change per line: {ends}."
    return Drawn(fig, caption, caption)


def proposition(simulated: pd.DataFrame) -> Drawn:
    """AUROC of scores on exchangeable classes against their number, what `heads.simulate` returns."""
    scores = {
        "mcp": ("MCP", "mcp"),
        "own": ("hyperplane per predicted class", "tcp"),
        "relu": ("hyperplane on ReLU features", "focal"),
        "hyperplane": ("hyperplane", "ss"),
    }
    fig, ax = plt.subplots(figsize=(5.6, 3.4))
    for score, (label, name) in scores.items():
        values = simulated.pivot(index="seed", columns="classes", values=score)
        figures.over(ax, values.columns.to_numpy(), values.to_numpy(), label=label, color=figures.COLOURS[name])
    ax.axhline(50, color="0.5", linewidth=1, linestyle=":", label="chance")
    ax.set(xlabel="classes K", ylabel="AUROC, %", ylim=(45, 100))
    figures.legend_below(fig, ax)
    last = simulated[simulated["classes"] == simulated["classes"].max()].mean()
    at = joined(f"{label} {100 * last[score]:.1f}" for score, (label, _) in scores.items())
    caption = (
        "Exchangeable classes: MCP ranks better the more classes there are, one hyperplane stays at chance. AUROC at "
        f"{last['classes']:.0f} classes: {at} %. Lines are means of three draws, shaded their range."
    )
    return Drawn(fig, caption, caption)


def attainable(bounds: pd.DataFrame, labels: list[str]) -> Drawn:
    """The published AUPR-Error and its attainable ranges, what `paper.aupr_error_bounds` returns."""
    fig, ax = plt.subplots(figsize=(7, 7.5))
    percent = bounds.select_dtypes("number").mul(100)
    ranges = {
        "if negated, only with ties": (percent["negated_low_tied"], percent["negated_low"], "#D6E6F2"),
        "if negated": (percent["negated_low"], percent["negated_high"], "#7FB8DA"),
        "if not negated": (percent["not_negated_low"], percent["not_negated_high"], "#F2CE7F"),
    }
    excludes = bounds["excludes"].ne("").to_numpy()
    values = percent["aupr_error"].to_numpy()
    figures.attainable(ax, labels, values, excludes, ranges, xlim=(0, 100), xlabel="AUPR-Error, %")
    figures.legend_below(fig, ax)
    caption = (
        f"The published AUPR-Error (dots) and its attainable ranges for either sign. {excludes.sum()} of {len(bounds)} "
        "rows exclude a sign (filled)."
    )
    return Drawn(fig, caption, caption)
