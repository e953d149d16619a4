"""The tables of a study's ablations, of the simulations and of the paper's own figures, as `study_tables` has them."""

import pandas as pd
from pandas.io.formats.style import Styler

from ..analysis.compare import DIFFERENCE, INTERVAL
from ..analysis.paper import PAPER_NAMES, paper_pair
from ..study import Study
from .study_tables import is_significant
from .tables import MISSING, in_bold, number, plain, with_interval


def ablation_form(compared: pd.DataFrame, study: Study, against: str | None) -> Styler:
    """The methods of one ablation on one pair: learning rate, metrics and difference in AUROC from one, per cent.

    Parameters
    ----------
    compared : rows of what `ablations.compare` returns, of one pair.
    against : the method that the others are compared with.
    """
    order = compared["arm"].drop_duplicates()
    part = {
        m: compared[compared["metric"] == m].set_index("arm").reindex(order) for m in ("auroc", "fpr95", "tpr", "tnr")
    }
    columns = {"learning rate": part["auroc"]["rate"].map(number)}
    columns["AUROC ↑"] = with_interval(part["auroc"], INTERVAL, 100)
    marked = pd.DataFrame(False, index=order, columns=["AUROC ↑"])
    if against:
        less = f"AUROC minus {study.method_label(against)}'s"
        columns[less] = with_interval(part["auroc"], DIFFERENCE, 100, sign="+")
        marked[less] = is_significant(part["auroc"])
    matched = 1 - part["fpr95"][["estimate", "high", "low"]].set_axis(INTERVAL, axis=1)
    columns["TNR at TPR 95 % ↑"] = with_interval(matched, INTERVAL, 100)
    columns |= {m.upper(): part[m]["estimate"].mul(100).map("{:.1f}".format) for m in ("tpr", "tnr")}
    text = pd.DataFrame(columns, index=order)
    marked = marked.reindex(columns=text.columns, fill_value=False)
    text.index = marked.index = [study.method_label(arm) for arm in order]
    return plain(text.style.apply(lambda _: in_bold(marked), axis=None))


def points_form(points: pd.DataFrame) -> Styler:
    """What `ablations.operating_points` returns, per cent."""
    columns = {m.upper(): with_interval(points, [m, f"{m}_low", f"{m}_high"], 100) for m in ("tpr", "tnr")}
    columns["TPR + TNR"] = points["both"].mul(100).map("{:.1f}".format)
    columns["z above"] = points["threshold"].map("{:.2f}".format).replace("nan", "one per seed")
    return plain(pd.DataFrame(columns))


def curves_form(curves: pd.DataFrame, study: Study) -> Styler:
    """A ladder of budgets, `runs.results.Run.curves`, means over the seeds, per cent."""
    named = curves.assign(
        pair=curves["pair"].map(study.pair_label),
        rung=curves["steps"].map("{:,} steps, ".format) + curves["loss"].map(PAPER_NAMES),
        split=curves["split"].replace("heldout", "validation"),
    )
    headings = {"auroc": "AUROC", "mcp": "MCP", "tpr": "TPR", "tnr": "TNR"}
    mean = named.groupby(["pair", "rung", "split"], sort=False)[list(headings)].mean().mul(100)
    shown = pd.concat({label: mean[key].unstack("split") for key, label in headings.items()}, axis=1)
    shown.columns = [f"{label}, {split}" for label, split in shown.columns]
    return plain(shown.map("{:.1f}".format))


LABELS = {  # where labels come from
    "train": "its training images",
    "crossfit": "the same, cross-fitted",
    "heldout": "validation images",
    "test": "test images",
}


def labels_form(shift: pd.DataFrame, study: Study) -> Styler:
    """What `ablations.all_label_shifts` returns, per cent."""
    cells = shift.assign(
        text=with_interval(shift, ["rate", "low", "high"], 100),
        classifier=shift["classifier"].map(lambda name: study.network(name).label),
    )
    wide = cells.pivot(index="classifier", columns="labels", values="text")
    return plain(wide.reindex(columns=LABELS).fillna(MISSING).rename(columns=LABELS))


def simulated_form(simulated: pd.DataFrame, by: str) -> Styler:
    """AUROC, TPR, TNR (per cent) and the standard deviation of z of a simulated hyperplane: means by "loss" or "n"."""
    mean = simulated.groupby(by, sort=False)[["auroc", "tpr", "tnr", "spread"]].mean()
    rates = mean[["auroc", "tpr", "tnr"]].mul(100).map("{:.1f}".format).set_axis(["AUROC", "TPR", "TNR"], axis=1)
    name = PAPER_NAMES.get if by == "loss" else "{:,} images".format
    return plain(rates.assign(**{"standard deviation of z": mean["spread"].map("{:.3f}".format)}).rename(index=name))


def bounds_form(bounds: pd.DataFrame) -> Styler:
    """What `paper.aupr_error_bounds` returns, per cent."""
    text = bounds.select_dtypes("number").mul(100).map("{:.1f}".format)
    columns = {
        "AUROC": text["auroc"],
        "AUPR-Error, published": text["aupr_error"],
        "if negated": text["negated_low"] + " to " + text["negated_high"],
        "if negated, with ties": "≥ " + text["negated_low_tied"],
        "if not negated": text["not_negated_low"] + " to " + text["not_negated_high"],
        "impossible": bounds["excludes"],
    }
    return plain(pd.DataFrame(columns).set_axis(bounds_labels(bounds)))


def bounds_labels(bounds: pd.DataFrame) -> list[str]:
    """The rows of `paper.aupr_error_bounds` as a reader knows them."""
    return [
        f"{table.replace('table', 'Table ')}, {paper_pair(group) if '-' in group else group.replace('_', ' ')}, "
        f"{PAPER_NAMES[loss]}"
        for table, group, loss in bounds.index
    ]
