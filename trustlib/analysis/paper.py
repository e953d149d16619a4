"""What the paper's own tables say (data/published), with the intervals and areas that follow from their figures."""

from math import log, sqrt

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import cumulative_trapezoid

from .. import data
from ..losses import LOSSES
from ..stats import statistics
from ..stats.rates import _fraction, clopper_pearson
from ..study import Study

PAPER_NAMES = {name: loss.label for name, loss in LOSSES.items()} | {"vit": "ViT", "rsn": "RSN"}
PAPER_NAMES |= {"mcp": "MCP", "mc_dropout": "MC dropout", "trust_score": "TrustScore", "tcp-dagger": "TCP†"}


def table(name: str) -> pd.DataFrame:
    """A table of data/published, one row per row of the paper's table, metrics as columns, fractions."""
    frame = pd.read_csv(data.ROOT / "data" / "published" / f"{name}.csv")
    first = frame.columns[0]
    order = list(dict.fromkeys(zip(frame[first], frame["loss"], strict=True)))
    wide = frame.pivot(index=[first, "loss"], columns="metric", values="mean").div(100).reindex(order)
    return wide.rename_axis(index=["group", "loss"])


TABLE_2: dict[str, str | None] = {  # row of the paper's Table 2 -> what this study has for it, if anything
    "mcp": "mcp", "mc_dropout": "mc_dropout_logits", "trust_score": "trust_score", "tcp": "tcp", "tcp-dagger": None,
    "ss": "ss-released",
}  # fmt: skip
TESTED = 10_000  # test images of MNIST and of CIFAR-10
ROUNDED = 0.5001e-4  # half a unit of the last digit of a published rate


def follows_table2(study: Study) -> bool:
    """Whether a study is one of those that follow ConfidNet's protocol, and so has Table 2 of its own."""
    return study.dataset in ("mnist", "cifar10") and "ss-released" in study.methods


def table2(dataset: str) -> pd.DataFrame:
    """The paper's Table 2 on one data set, with the 95 % intervals that its own counts allow.

    One run on 10,000 test images: rates get exact intervals (Clopper-Pearson) from their counts, which follow from the
    accuracy; the AUROC gets Hanley and McNeil's; areas under precision-recall curves get none. Nor does a row with a
    rate that is no count of these images: MC dropout's, whose FPR of 5.26 % on MNIST is 5 of 95 where the others have
    90.

    Returns
    -------
    One row per row of the table and metric: loss, metric, estimate, low, high; fractions.
    """
    rows = []
    for (group, loss), row in table("table2").iterrows():
        if group != dataset:
            continue
        right = round(row["accuracy"] * TESTED)
        counts = {"accuracy": TESTED, "fpr95": TESTED - right, "tnr": TESTED - right, "tpr": right}
        rates = {metric: value for metric, value in row.dropna().items() if metric in counts}
        counted = all(abs(round(v * counts[m]) / counts[m] - v) <= ROUNDED for m, v in rates.items())
        for metric, value in row.dropna().items():
            ends = (np.nan, np.nan)
            if metric in rates and counted:
                ends = clopper_pearson(round(value * counts[metric]), counts[metric])
            elif metric == "auroc" and counted:
                ends = statistics.hanley_mcneil(value, right, TESTED - right)
            rows.append(
                {"loss": loss, "metric": metric, "estimate": value, **dict(zip(("low", "high"), ends, strict=True))}
            )
    return pd.DataFrame(rows)


RECALL = np.linspace(0, 1, 2001) ** 2  # denser near 0, where the precision of the minimum rises as sqrt(recall)
TINY = np.finfo(float).tiny  # in place of a denominator of 0


def least_average_precision(share: ArrayLike, auroc: ArrayLike) -> NDArray[np.float64]:
    """The smallest average precision of positives that a ranking of this AUROC without ties can have.

    Let pi be the share of positives and f(r) the share of negatives ranked before the positive at recall r: it is
    non-decreasing, in [0, 1], and has the mean 1 - AUROC. The step-wise average precision (of `metrics` and
    scikit-learn) of P positives is the mean over i = 1..P of the precision at recall i / P,

        g(r, f) = pi r / (pi r + (1 - pi) f).

    g increases with r, and f is constant between (i - 1) / P and i / P, so that this mean is at least the integral of
    g(r, f(r)) over r: the minimum of the integral is a lower bound for every sample size. g is convex in f, and the
    Lagrangian g + lambda f is smallest at

        f*(r) = clip((sqrt(pi (1 - pi) r / lambda) - pi r) / (1 - pi), 0, 1),

    which rises until r = (1 - pi) / (4 pi lambda) and falls after it. The best non-decreasing f is f* up to some recall
    and constant from there. For every lambda >= 0 an average precision is at least the minimum of the Lagrangian minus
    lambda (1 - AUROC), a line in the AUROC, and the bound is the highest of these lines. So it is convex in the AUROC
    with the slope lambda, and valid for means over runs: a mean average precision lies above the bound at the mean
    AUROC. Ties can lower an average precision: `least_tied_average_precision` allows them.

    Parameters
    ----------
    share : of positives, in (0, 1). The bound increases with it, as it does with the AUROC.
    auroc : in [0, 1], of the same ranking: 1 when all positives come first.

    Returns
    -------
    float64 of the shape to which both broadcast, within 1e-5.

    >>> round(float(least_average_precision(0.161, 0.7368)), 4)
    0.2375
    """
    return _least(share, auroc)[0]


def _least(share: ArrayLike, auroc: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The bound of `least_average_precision` and its slope lambda, by bisection until f has the mean 1 - AUROC."""
    pi, area = (x[..., None] for x in np.broadcast_arrays(np.asarray(share, float), 1 - np.asarray(auroc, float)))
    low, high = np.full(area.shape, -20.0), np.full(area.shape, 20.0)
    for _ in range(50):
        middle = (low + high) / 2
        _, mean = _lagrangian(pi, np.exp(middle))
        low, high = np.where(mean > area, middle, low), np.where(mean > area, high, middle)
    slope = np.exp((low + high) / 2)
    least, _ = _lagrangian(pi, slope)
    return (least - slope * area)[..., 0], slope[..., 0]


def _lagrangian(pi: NDArray, slope: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The least integral of g + slope f over non-decreasing f, and the mean of that f, from and in shape (..., 1)."""
    f = np.clip((np.sqrt(pi * (1 - pi) * RECALL / slope) - pi * RECALL) / (1 - pi), 0, 1)
    precision = pi * RECALL / np.maximum(pi * RECALL + (1 - pi) * f, TINY)
    odds = (1 - pi) / pi * f
    constant = (1 - RECALL) * (1 + slope * f) - odds * np.log((1 + odds) / np.maximum(RECALL + odds, TINY))
    value = cumulative_trapezoid(precision + slope * f, RECALL, initial=0) + constant  # f* before, constant after
    rising = 4 * pi * slope * RECALL <= 1 - pi
    best = np.where(rising, value, np.inf).argmin(-1, keepdims=True)
    mean = cumulative_trapezoid(f, RECALL, initial=0) + (1 - RECALL) * f
    return np.take_along_axis(value, best, -1), np.take_along_axis(mean, best, -1)


def least_tied_average_precision(share: float, auroc: float, cells: int = 100) -> float:
    """A lower bound of the average precision of positives by a ranking of this AUROC, whatever its ties.

    With g, f and lambda as in `least_average_precision`, a block of ties from (r0, f0) to (r1, f1) contributes
    (r1 - r0) g(r1, f1) to the average precision and (r1 - r0) (f0 + f1) / 2 to 1 - AUROC. The bound is the least sum of
    the first plus lambda times the second over all sequences of blocks, minus lambda (1 - AUROC), by dynamic
    programming on a grid. Every rounding errs downwards: a cell of recall counts for the cheapest block that overlaps
    it, with the precision at the lower end of that block's last cell, and f is rounded up, for which lambda / cells is
    subtracted. This makes the bound about 1 / cells looser. Any lambda gives a valid line in the AUROC, so the bound is
    valid for means over runs too.

    A simpler, weaker bound is `least_average_precision` at max(2 AUROC - 1, 0): as (f0 + f1) / 2 >= f1 / 2, the mean of
    f1 is at most 2 (1 - AUROC).

    Parameters
    ----------
    share : of positives, in (0, 1).
    auroc : in [0, 1], ties counting one half.
    cells : of the grid, along recall and along f.

    >>> round(least_tied_average_precision(0.161, 0.7368), 4)
    0.2195
    """
    slope = float(_least(share, auroc)[1])
    grid = np.arange(cells + 1) / cells
    precision = share * grid[:, None] / np.maximum(share * grid[:, None] + (1 - share) * grid, TINY)  # (recall, f)
    cost = np.zeros((cells + 1, cells + 1))  # least, of blocks that end at (recall, f)
    for end in range(1, cells + 1):
        width = (end - np.arange(end))[:, None] / cells
        before = np.minimum.accumulate(cost[:end] + width * slope * grid / 2, axis=1)
        cost[end] = (before + width * (precision[end - 1] + slope * grid / 2)).min(0)
    return float(cost[-1].min() - slope / cells - slope * (1 - auroc))


def greatest_average_precision(share: ArrayLike, auroc: ArrayLike) -> NDArray[np.float64]:
    """The greatest average precision of positives that a ranking of this AUROC without ties can have.

    As g is convex in f (see `least_average_precision`, parameters as there), f is 0 or 1: the first AUROC P positives
    come first, the others last, and the integral of g is 1 + (1 - pi) / pi log(1 - pi (1 - AUROC)). The average
    precision of n samples exceeds it by at most 1 / n; with ties it is at most 1 - (1 - pi) (1 - AUROC).

    >>> round(float(greatest_average_precision(0.161, 1 - 0.7368)), 4)
    0.342
    """
    share, area = np.asarray(share, float), 1 - np.asarray(auroc, float)
    return 1 + (1 - share) / share * np.log1p(-share * area)


def aupr_error_bounds() -> pd.DataFrame:
    """AUPR-Error of Tables 1 and 3 and the range that a row's accuracy and AUROC leave for either sign, fractions.

    AUPR-Error is the average precision of the errors. Ranked by the negated confidence, as in the paper's text, their
    order has the row's AUROC; ranked by the confidence itself, as in the released code, it has 1 - AUROC. Published
    figures are rounded: a bound is taken at the ends of the rounding intervals of accuracy and AUROC where it excludes
    least, and a row is excluded if the whole interval of its AUPR-Error lies outside.

    Returns
    -------
    One row per row of the tables (index table, group, loss): accuracy, auroc, aupr_error; negated_low, negated_high,
    the range without ties; negated_low_tied, the lower bound whatever the ties; not_negated_low, not_negated_high;
    excludes: the first that is impossible of "negated, whatever the ties", "negated" and "not negated" (both without
    ties), or "".
    """
    rows = pd.concat({name: table(name) for name in ("table1", "table3")}, names=["table"])
    frame = rows[["accuracy", "auroc", "aupr_error"]].copy()
    error = 1 - frame["accuracy"]
    fewest, most = error - ROUNDED, error + ROUNDED
    lower, higher = frame["auroc"] - ROUNDED, frame["auroc"] + ROUNDED
    frame["negated_low"] = least_average_precision(fewest, lower)
    frame["negated_low_tied"] = [least_tied_average_precision(*row) for row in zip(fewest, lower, strict=True)]
    frame["negated_high"] = greatest_average_precision(most, higher)
    frame["not_negated_low"] = least_average_precision(fewest, 1 - higher)
    frame["not_negated_high"] = greatest_average_precision(most, 1 - lower)
    below, above = frame["aupr_error"] + ROUNDED, frame["aupr_error"] - ROUNDED
    reasons = {
        "negated, whatever the ties": below < frame["negated_low_tied"],
        "negated": (below < frame["negated_low"]) | (above > frame["negated_high"]),
        "not negated": (below < frame["not_negated_low"]) | (above > frame["not_negated_high"]),
    }
    return frame.assign(excludes=np.select(list(reasons.values()), list(reasons), ""))


def hoeffding_bound(largest: float, log_hypotheses: float, n: int, delta: float = 0.05) -> float:
    """How far the risk may lie from the empirical risk for every hypothesis at once (Theorem 3.1).

    ``largest * sqrt((log_hypotheses + log(2 / delta)) / (2 n))``, with probability at least 1 - delta over n
    independent samples, for a loss in [0, largest]. At `largest` or above it says nothing.

    Parameters
    ----------
    largest : of the loss, > 0.
    log_hypotheses : log |F|, >= 0. The paper takes F for finite and does not count it; P parameters of 32 bits give
        ``32 P log 2``.
    n : training samples.
    delta : in (0, 1).

    >>> round(hoeffding_bound(1.0, 0.0, 1000, 0.05), 4)
    0.0429
    """
    _fraction("delta", delta)
    return largest * sqrt((log_hypotheses + log(2 / delta)) / (2 * n))


def paper_pair(pair: str) -> str:
    """<O, C> of a pair of the paper's, from its name in data/published."""
    return "⟨{}, {}⟩".format(*(PAPER_NAMES[name] for name in pair.split("-")))
