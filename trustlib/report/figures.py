"""Figures: each function draws what it is given on a given ``ax`` and returns the artists; none computes or saves.

A loss has one colour in every figure (Okabe and Ito's palette, safe for colour-blind readers). A released form has
its loss's colour, dashed; further methods of a loss are dotted or dash-dotted. Apply the style once:
``plt.style.use(figures.STYLE)``.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, PercentFormatter
from numpy.typing import NDArray
from scipy.stats import norm

from ..losses import LOSSES

STYLE = Path(__file__).with_name("trustlib.mplstyle")
COLOURS = {
    "mcp": "#222222",
    "ce": "#0072B2",
    "focal": "#E69F00",
    "tcp": "#009E73",
    "ss": "#D55E00",
    "cb": "#CC79A7",
}
FURTHER = ("#56B4E9", "#882255", "#999933")  # of losses that are added to `losses.LOSSES`, in its order
PREDICTIONS = {"correct": "#3B9AA0", "incorrect": "#A8485A"}  # hues that no loss has
GROUPS = {"TP": "#3B9AA0", "FN": "#A9D3D6", "FP": "#A8485A", "TN": "#DDB4BC"}
BINS = 50  # of a histogram over [0, 1]
CURVE_POINTS = 500  # at most, in one curve of an SVG
STEEPEST = 20  # slope at which the axis of slopes ends

DASHES = ("-", ":", "-.", (0, (3, 1, 1, 1, 1, 1)))  # of the methods of one loss that a study trains


def line_style(loss: str, form: str = "corrected", variant: int = 0) -> dict:
    """Colour and dashes of a loss; one that is not in `COLOURS` has its own too, of `FURTHER`, and else grey."""
    dashes = "--" if form == "released" else DASHES[variant % len(DASHES)]
    colours = COLOURS | dict(zip((name for name in LOSSES if name not in COLOURS), FURTHER, strict=False))
    return {"color": colours.get(loss, "#777777"), "linestyle": dashes}


def loss_curves(axs: NDArray, z: NDArray, curves: dict[str, tuple[dict, NDArray, NDArray]], *, title: str) -> None:
    """Losses above, their slopes below, against z: one column of Fig. 2b.

    Parameters
    ----------
    axs : two axes.
    z : float (M,), ascending.
    curves : label -> (line style, loss (M,), slope (M,)).
    """
    for row, quantity in enumerate(("loss", "slope")):
        for label, (style, *values) in curves.items():
            axs[row].plot(z, values[row], label=label, **style)
        axs[row].axvline(0, color="0.6", linewidth=0.7, zorder=0)
        axs[row].set(ylabel=quantity, xlim=(z[0], z[-1]))
    axs[0].set(title=title, ylim=(0, 10))
    axs[1].set_ylim(np.clip(axs[1].get_ylim(), -STEEPEST, STEEPEST))
    axs[1].set_xlabel("oracle's output z")


def optimum(ax: Axes, p: NDArray, s: NDArray, crossing: float) -> None:
    """Where an expected loss is least, s against the probability p of being correct, float (M,); 0 at `crossing`."""
    ax.plot(p, s, color=COLOURS["mcp"])
    ax.axhline(0, color="0.6", linewidth=0.7, zorder=0)
    ax.axvline(crossing, color="0.35", linewidth=0.8, linestyle=":")
    ax.set(xlabel="probability p of being correct", ylabel="best s = z / (1 + |z|)", xlim=(0, 1), ylim=(-1.05, 1.05))
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:.0%}")


def histogram(
    ax: Axes,
    confidence: NDArray,
    correct: NDArray,
    *,
    threshold: float = 0.5,
    negative_threshold: float | None = None,
    span: tuple[float, float] = (0, 1),
) -> None:
    """Confidences of correct predictions upwards, of incorrect ones downwards, each summing to 1 (Fig. 3).

    Parameters
    ----------
    confidence : float (N,) within `span`: sigmoid(z), or a probability.
    correct : bool (N,).
    threshold : above it a prediction is trusted; the side below is shaded. NaN: there is none.
    negative_threshold : drawn where it differs (TCP: 1/K).
    span : of the axis.
    """
    edges = np.linspace(*span, BINS + 1)
    for name, chosen, up in (("correct", correct, 1), ("incorrect", ~correct, -1)):
        share = np.histogram(confidence[chosen], edges)[0] / max(chosen.sum(), 1)
        ax.stairs(up * share, edges, fill=True, color=PREDICTIONS[name], label=name)
    ax.axhline(0, color="0.35", linewidth=0.7)
    if not np.isnan(threshold):
        ax.axvspan(span[0], np.clip(threshold, *span), color="0.93", zorder=0, linewidth=0)
        ax.axvline(threshold, color="0.35", linewidth=0.8, linestyle=":")
    if negative_threshold is not None:
        ax.axvline(negative_threshold, color="0.35", linewidth=0.8, linestyle="--")
    ax.set(xlim=span, xlabel="confidence", ylabel="share of predictions")
    ax.yaxis.set_major_formatter(lambda y, _: f"{100 * abs(y):.3g}%")


def histograms(
    axs: NDArray, confidences: dict[str, NDArray], correct: NDArray, fits: dict[str, tuple[float, float, float, float]]
) -> None:
    """One `histogram` with its `normals` a panel, labelled on the outer sides only; spare panels are left empty.

    Parameters
    ----------
    axs : axes (rows, columns).
    confidences : title -> float (N,) in [0, 1].
    fits : title -> what `metrics.fit_normals` gives.
    """
    for ax in axs.flat[len(confidences) :]:
        ax.set_axis_off()
    for ax, (title, confidence) in zip(axs.flat, confidences.items(), strict=False):
        histogram(ax, confidence, correct)
        normals(ax, fits[title])
        ax.set_title(title)
    outer_labels(axs)


def normals(ax: Axes, fit: tuple[float, float, float, float]) -> list[Line2D]:
    """The normals fitted to correct and incorrect predictions: the share each would put into the bins of a `histogram`.

    Parameters
    ----------
    fit : mean and deviation of correct predictions, then of incorrect ones (`metrics.fit_normals`).
    """
    edges = np.linspace(0, 1, BINS + 1)
    lines = []
    for (mean, std), up in ((fit[:2], 1), (fit[2:], -1)):
        if std > 0:
            share = np.diff(norm.cdf(edges, mean, std))
            lines += ax.plot((edges[1:] + edges[:-1]) / 2, up * share, color="black", linewidth=1)
    return lines


def _in_per_cent(ax: Axes) -> None:
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))  # with as many decimals as the axis needs


def risk_coverage(
    ax: Axes, coverage: NDArray, risk: NDArray, *, label: str, loss: str, form: str = "corrected", variant: int = 0
) -> Line2D:
    """One risk-coverage curve (Fig. 4a), at most `CURVE_POINTS` of its points.

    Parameters
    ----------
    coverage, risk : float (M,), as `metrics.risk_coverage` gives them.
    """
    keep = np.unique(np.searchsorted(coverage, np.linspace(coverage[0], 1, CURVE_POINTS)).clip(max=len(coverage) - 1))
    (line,) = ax.plot(coverage[keep], risk[keep], label=label, **line_style(loss, form, variant))
    ax.set(xlabel="coverage", ylabel="risk", xlim=(0, 1), ylim=(0, None))
    _in_per_cent(ax)
    return line


def risk_band(
    ax: Axes, coverage: NDArray, risk: NDArray, low: NDArray, high: NDArray, *, label: str, **style
) -> Line2D:
    """A risk-coverage curve with a band, float (M,) each, fractions."""
    (line,) = ax.plot(coverage, risk, label=label, **style)
    ax.fill_between(coverage, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    ax.set(xlabel="coverage", ylabel="risk", xlim=(0, 1), ylim=(0, None))
    _in_per_cent(ax)
    return line


def reliability(ax: Axes, probability: NDArray, accuracy: NDArray, low: NDArray, high: NDArray, **style) -> Line2D:
    """The reliability diagram: accuracy with its interval against mean confidence, float (M,) each, a point per bin."""
    ax.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, zorder=0)
    (line,) = ax.plot(probability, accuracy, **{"linewidth": 1} | style)
    with_errors(ax, probability, accuracy, low, high, color=line.get_color())
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    _in_per_cent(ax)
    return line


def confusion(ax: Axes, counts: pd.DataFrame) -> None:
    """Counts, one row per true class and one column per predicted one; empty cells stay white."""
    from seaborn import heatmap

    heatmap(
        counts.where(counts > 0), annot=counts.size <= 400, fmt=".0f", cmap="Oranges", cbar=False, square=True,
        linewidths=0.4, linecolor="0.93", ax=ax,
    )  # fmt: skip
    ax.set(xlabel="predicted", ylabel="true class")


def history(ax: Axes, epochs: NDArray, loss: NDArray, *, label: str, color: str | None = None) -> Line2D:
    """Mean training loss against the epoch."""
    (line,) = ax.plot(epochs, loss, marker="o", markersize=3, label=label, color=color)
    ax.set(xlabel="epoch", ylabel="training loss")
    locator: Any = ax.xaxis.get_major_locator()  # a MaxNLocator
    locator.set_params(integer=True)
    return line


def rate_search(
    ax: Axes,
    rates: NDArray,
    values: NDArray,
    chosen: float | None,
    *,
    label: str,
    loss: str,
    form: str = "corrected",
    variant: int = 0,
) -> Line2D:
    """A metric, per cent, against the learning rate; the chosen rate is filled.

    Parameters
    ----------
    rates, values : float (M,), ascending by rate; values are fractions.
    """
    style = line_style(loss, form, variant)
    (line,) = ax.plot(rates, 100 * values, label=label, marker="o", markersize=3.5, markerfacecolor="white", **style)
    ax.plot(rates[rates == chosen], 100 * values[rates == chosen], "o", markersize=5, color=style["color"])
    ax.set(xscale="log", xlabel="learning rate")
    return line


def level(ax: Axes, value: float, label: str) -> Line2D:
    """A dashed horizontal line at a fraction, per cent: MCP, or chance."""
    return ax.axhline(100 * value, color="0.2", linestyle="--", linewidth=1, label=label)


def forest(
    ax: Axes, labels: list[str], estimate: NDArray, low: NDArray, high: NDArray, colours: list[str], **settings
) -> None:
    """Estimates with their intervals, one below the other, the first on top.

    Parameters
    ----------
    estimate, low, high : float (M,).
    colours : of each, M.
    settings : of the axes, such as title and xlabel.
    """
    y = np.arange(len(labels))[::-1]
    ax.hlines(y, low, high, color=colours, linewidth=1.6)
    ax.scatter(estimate, y, color=colours, s=18, zorder=3)
    ax.set(yticks=y, yticklabels=labels, ylim=(-0.7, len(labels) - 0.3), **settings)
    ax.grid(axis="x", color="0.9")


def attainable(
    ax: Axes, labels: list[str], value: NDArray, excludes: NDArray, ranges: dict[str, tuple], **settings
) -> None:
    """Published values and the ranges that are attainable, one row each, the first on top.

    Parameters
    ----------
    value : float (M,), dots.
    excludes : bool (M,), the filled dots.
    ranges : name -> low (M,), high (M,), colour; bars, one below the other in a row.
    settings : of the axes, such as title and xlabel.
    """
    y = np.arange(len(labels))[::-1]
    for (name, (low, high, color)), shift in zip(ranges.items(), np.linspace(0.2, -0.2, len(ranges)), strict=True):
        ax.hlines(y + shift, low, high, color=color, linewidth=4, label=name)
    for chosen, face, name in ((~excludes, "white", "published"), (excludes, "0.2", "published, excludes a sign")):
        ax.plot(value[chosen], y[chosen], "o", markersize=4, color="0.2", markerfacecolor=face, label=name)
    ax.set(yticks=y, yticklabels=labels, ylim=(-0.7, len(labels) - 0.3), **settings)
    ax.grid(axis="x", color="0.9")


def gaps(ax: Axes, steps: pd.DataFrame, *, colour: str = COLOURS["ce"]) -> None:
    """How far each step leaves an oracle from MCP: bars from MCP's line, with intervals, the first step on top.

    Parameters
    ----------
    steps : columns step (its name), estimate, low, high: AUROC minus MCP's, fractions.
    """
    estimate, low, high = 100 * steps[["estimate", "low", "high"]].to_numpy(float).T
    y = np.arange(len(steps))[::-1]
    ax.barh(y, estimate, height=0.5, color=colour, alpha=0.3)
    forest(ax, steps["step"].tolist(), estimate, low, high, [colour] * len(steps), xlabel="AUROC minus MCP's, points")
    ax.axvline(0, color=COLOURS["mcp"], linewidth=1)


def over(ax: Axes, x: NDArray, values: NDArray, *, label: str, **style) -> Line2D:
    """A metric, per cent, against a number on a logarithmic axis; the range of the seeds is shaded.

    Parameters
    ----------
    x : float (M,), ascending, > 0.
    values : float (S, M), fractions, one row per seed; the line is their mean.
    style : of the line.
    """
    percent = 100 * values
    (line,) = ax.plot(x, percent.mean(0), label=label, marker="o", markersize=3, **style)
    ax.fill_between(x, percent.min(0), percent.max(0), color=line.get_color(), alpha=0.15, linewidth=0)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda v, _: f"{v:,.0f}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    return line


def with_errors(ax: Axes, x: NDArray, y: NDArray, low: NDArray, high: NDArray, *, color: Any) -> None:
    """Points (x, y) with the intervals [low, high] of y, float (M,) each."""
    ax.errorbar(x, y, yerr=[y - low, high - y], fmt="o", markersize=4, linewidth=1.2, color=color)


def roc(ax: Axes, fpr: NDArray, tpr: NDArray, *, label: str, **style) -> Line2D:
    """A ROC curve, at most `CURVE_POINTS` of its points.

    Parameters
    ----------
    fpr, tpr : float (M,), as `metrics.roc_curve` gives them.
    style : of the line, see `line_style`.
    """
    keep = np.unique(np.linspace(0, len(fpr) - 1, CURVE_POINTS).astype(int))
    (line,) = ax.plot(fpr[keep], tpr[keep], label=label, **style)
    ax.set(xlabel="incorrect predictions trusted, 1 − TNR", ylabel="correct predictions trusted, TPR")
    ax.set(xlim=(0, 1), ylim=(0, 1.01))
    return line


def heat(ax: Axes, values: pd.DataFrame, *, largest: float, bold: pd.DataFrame | None = None) -> QuadMesh:
    """Differences in percentage points as colours with numbers: red below 0, blue above, grey where there is none.

    Parameters
    ----------
    values : points, a row and a column per cell.
    largest : of their absolute values, where the colours end.
    bold : bool, of the same shape: the numbers in bold.
    """
    mesh = ax.pcolormesh(values.to_numpy(), cmap="RdBu", vmin=-largest, vmax=largest, edgecolor="white", linewidth=1)
    for (y, x), value in np.ndenumerate(values.to_numpy()):
        weight = "bold" if bold is not None and bold.iat[y, x] else "normal"
        colour = "white" if abs(value) > 0.65 * largest else "0.15"
        text = f"{value:+.1f}".replace("-", "−") if np.isfinite(value) else "–"
        ax.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=7, weight=weight, color=colour)
    rows, columns = values.shape
    ax.set(xticks=np.arange(columns) + 0.5, yticks=np.arange(rows) + 0.5, xticklabels=values.columns)
    ax.set_yticklabels(values.index)
    ax.tick_params(length=0)
    ax.set(ylim=(rows, 0), facecolor="0.93")
    ax.grid(False)
    ax.spines[:].set_visible(False)
    return mesh


def picture_grid(axs: NDArray, rows: dict[str, NDArray]) -> None:
    """Pictures, one row per title.

    Parameters
    ----------
    axs : axes (rows, columns).
    rows : title -> (columns, C, H, W), on the scale 0 to 255, C 1 or 3.
    """
    for row, (title, pictures) in zip(axs, rows.items(), strict=True):
        for ax, picture in zip(row, pictures, strict=True):
            shown = np.clip(picture, 0, 255).astype(np.uint8).transpose(1, 2, 0).squeeze()
            ax.imshow(shown, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
        row[0].set_ylabel(title, rotation=0, ha="right", va="center")


def legend_below(fig: Figure, ax: Axes) -> None:
    """One legend for all panels, that of `ax`, below them, in as many columns as there is room for."""
    handles, labels = ax.get_legend_handles_labels()
    wide = 0.55 + 0.062 * max(map(len, labels), default=0)  # inches
    columns = max(1, int(fig.get_figwidth() / wide))
    fig.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=7)


def outer_labels(axs: NDArray) -> None:
    """Keep the axis labels of the first column and the last row of panels (rows, columns) only."""
    for ax in axs[:, 1:].flat:
        ax.set_ylabel("")
    for ax in axs[:-1].flat:
        ax.set_xlabel("")
