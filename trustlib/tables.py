"""Tables: DataFrames made ready to be read. Nothing is measured here.

`paper_form` takes the tidy frame that `experiments.evaluate` returns, one row a run with fractions, and gives a table
in the form of the paper's Table 1: per cent, mean ± standard deviation over seeds, best in bold.
"""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from .runs import Study

# column -> (heading, which way is better: 1 up, -1 down, 0 neither is better by itself)
COLUMNS = {
    "accuracy": ("Acc", 0),
    "fpr95": ("FPR-95%-TPR ↓", -1),
    "aupr_error": ("AUPR-Error ↑", 1),
    "aupr_success": ("AUPR-Success ↑", 1),
    "auroc": ("AUC ↑", 1),
    "tpr": ("TPR", 0),
    "tnr": ("TNR", 0),
    "aurc": ("AURC ↓", -1),
    "augrc": ("AUGRC ↓", -1),
}
PAPER_NAMES = {"vit": "ViT", "rsn": "RSN"}
MISSING = "–"


def labelled(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The tidy frame with pairs and arms named as a reader knows them."""
    return frame.assign(pair=frame["pair"].map(study.pair_label), arm=frame["arm"].map(study.arm_label))


def mean_and_deviation(frame: pd.DataFrame, columns: list[str], by: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation (n - 1; NaN for one seed) of `columns`, rows in the order of `by`'s first sight."""
    groups = frame.groupby(by, sort=False)[columns]
    return groups.mean(), groups.std(ddof=1)


def paper_form(frame: pd.DataFrame, columns: dict[str, tuple[str, int]] = COLUMNS, scale: float = 100) -> Styler:
    """A table in the form of the paper's Table 1, a row a pair and arm.

    Parameters
    ----------
    frame : columns "pair" and "arm" (labels), "seed", and those of `columns`, fractions.
    columns : column -> (heading, direction); bold marks the best mean of a pair where the direction is not 0.
    scale : what a fraction is multiplied by.
    """
    mean, deviation = (part.mul(scale) for part in mean_and_deviation(frame, list(columns), ["pair", "arm"]))
    text = pd.DataFrame(index=mean.index, columns=list(columns), dtype=object)
    for column in columns:
        text[column] = [_cell(m, s) for m, s in zip(mean[column], deviation[column], strict=True)]
    signed = mean.mul([direction or np.nan for _, direction in columns.values()])
    bold = signed.eq(signed.groupby("pair", sort=False).transform("max"))
    headings = {column: heading for column, (heading, _) in columns.items()}
    text, bold = text.rename(columns=headings), bold.rename(columns=headings)
    text.index.names = ["⟨O, C⟩", "score"]
    bold.index = text.index
    return plain(text.style.apply(lambda _: _bold(bold), axis=None))


def across_pairs(frame: pd.DataFrame, metric: str, scale: float = 100) -> Styler:
    """One metric, a row an arm and a column a pair; bold marks the best mean of a column.

    Parameters
    ----------
    frame : as for `paper_form`.
    metric : a key of `COLUMNS` whose direction is not 0.
    """
    mean, deviation = (part[metric].mul(scale).unstack("pair") for part in mean_and_deviation(frame, [metric], ["arm", "pair"]))
    order = [frame["arm"].drop_duplicates(), frame["pair"].drop_duplicates()]
    mean, deviation = (part.reindex(index=order[0], columns=order[1]) for part in (mean, deviation))
    text = pd.DataFrame(
        [[_cell(m, s) for m, s in zip(*rows, strict=True)] for rows in zip(mean.to_numpy(), deviation.to_numpy(), strict=True)],
        index=pd.Index(mean.index, name=COLUMNS[metric][0]), columns=pd.Index(mean.columns, name=None),
    )  # fmt: skip
    bold = mean.mul(COLUMNS[metric][1])
    return plain(text.style.apply(lambda _: _bold(bold.eq(bold.max()).set_axis(text.index)), axis=None))


def published_form(published: pd.DataFrame) -> Styler:
    """A published table, as it stands in data/published, in the form of the paper.

    Parameters
    ----------
    published : columns pair, loss, metric, mean, deviation; per cent.
    """
    text = published.assign(
        text=[_cell(m, s) for m, s in zip(published["mean"], published["deviation"], strict=True)],
        pair=published["pair"].map(lambda pair: "⟨{}, {}⟩".format(*(PAPER_NAMES[name] for name in pair.split("-")))),
        loss=published["loss"].str.upper(),
    )
    order = list(dict.fromkeys(zip(text["pair"], text["loss"], strict=True)))
    wide = text.pivot(index=["pair", "loss"], columns="metric", values="text").reindex(order)
    wide = wide[[column for column in COLUMNS if column in wide]].rename(columns={c: h for c, (h, _) in COLUMNS.items()})
    wide.columns.name, wide.index.names = None, ["⟨O, C⟩", "loss"]
    return plain(wide)


def runs_table(rows: list[dict]) -> Styler:
    """The table of all runs, `runs.trainings`; those that failed or are missing are marked."""
    frame = pd.DataFrame(rows, columns=["run", "status", "loss", "seconds", "device", "key", "error"])
    marked = frame["status"].ne("done")
    style = frame.fillna({"error": "", "device": "", "key": ""}).style
    style = style.apply(lambda row: ["background: #fde2d5" if marked[row.name] else ""] * len(row), axis=1)
    style = style.format({"loss": "{:.4f}", "seconds": "{:.1f}"}, na_rep=MISSING, escape="html")
    return plain(style.hide(axis="index"))


def plain(style: Styler | pd.DataFrame) -> Styler:
    """A Styler that writes the same HTML every time."""
    style = style.style if isinstance(style, pd.DataFrame) else style
    return style.set_uuid("t").set_table_attributes('class="data"')


def _bold(chosen: pd.DataFrame) -> pd.DataFrame:
    return chosen.astype(object).where(~chosen, "font-weight: bold").where(chosen, "")


def _cell(mean: float, deviation: float) -> str:
    if np.isnan(mean):
        return MISSING
    return f"{mean:.2f}" if np.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"
