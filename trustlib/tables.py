"""Tables: DataFrames made ready to be read. Nothing is measured here.

`paper_form` takes the tidy frame that `experiments.evaluate` returns, one row a run with fractions, and gives a table
in the form of the paper's Table 1: per cent, mean ± standard deviation over seeds, best in bold.
"""

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from .provenance import digest
from .study import Study

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
OF_THE_CLASSIFIER = {"accuracy", "wrong"}  # one number for all oracles of a pair: no deviation
PAPER_NAMES = {"vit": "ViT", "rsn": "RSN", "ce": "CE", "focal": "Focal", "tcp": "TCP", "ss": "SS"}
MISSING = "–"


def labelled(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The tidy frame with pairs and arms named as a reader knows them."""
    return frame.assign(pair=frame["pair"].map(study.pair_label), arm=frame["arm"].map(study.arm_label))


def mean_and_deviation(frame: pd.DataFrame, columns: list[str], by: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation (n - 1; NaN for one seed) of `columns`, rows in the order of `by`'s first sight."""
    groups = frame.groupby(by, sort=False)[columns]
    return groups.mean(), groups.std(ddof=1)


def paper_form(
    frame: pd.DataFrame, columns: dict[str, tuple[str, int]] = COLUMNS, *, scale: float = 100, digits: int = 2
) -> Styler:
    """A table in the form of the paper's Table 1, a row a pair and arm.

    Parameters
    ----------
    frame : columns "pair" and "arm" (labels), "seed", and those of `columns`, fractions.
    columns : column -> (heading, direction); bold marks the best mean of a pair where the direction is not 0.
    scale, digits : what a fraction is multiplied by; decimals shown.
    """
    mean, deviation = (part.mul(scale) for part in mean_and_deviation(frame, list(columns), ["pair", "arm"]))
    text = pd.DataFrame(index=mean.index, columns=list(columns), dtype=object)
    for column in columns:
        spread = deviation[column] * np.nan if column in OF_THE_CLASSIFIER else deviation[column]
        text[column] = [_cell(m, s, digits) for m, s in zip(mean[column], spread, strict=True)]
    signed = mean.mul([direction or np.nan for _, direction in columns.values()])
    bold = signed.eq(signed.groupby("pair", sort=False).transform("max"))
    headings = {column: heading for column, (heading, _) in columns.items()}
    text, bold = text.rename(columns=headings), bold.rename(columns=headings)
    return plain(text.style.apply(lambda _: _bold(bold), axis=None))


def across_pairs(frame: pd.DataFrame, metric: str, scale: float = 100) -> Styler:
    """One metric, a row an arm and a column a pair; bold marks the best mean of a column.

    Parameters
    ----------
    frame : as for `paper_form`.
    metric : a key of `COLUMNS` whose direction is not 0.
    """
    mean, deviation = (
        part[metric].mul(scale).unstack("pair") for part in mean_and_deviation(frame, [metric], ["arm", "pair"])
    )
    order = [frame["arm"].drop_duplicates(), frame["pair"].drop_duplicates()]
    mean, deviation = (part.reindex(index=order[0], columns=order[1]) for part in (mean, deviation))
    text = mean.combine(deviation, lambda m, s: pd.Series(map(_cell, m, s), m.index))
    bold = mean.mul(COLUMNS[metric][1])
    return plain(text.style.apply(lambda _: _bold(bold.eq(bold.max())), axis=None))


def published_form(published: pd.DataFrame) -> Styler:
    """A published table, as it stands in data/published, in the form of the paper.

    Parameters
    ----------
    published : columns pair, loss, metric, mean, deviation; per cent.
    """
    text = published.assign(
        text=[_cell(m, s) for m, s in zip(published["mean"], published["deviation"], strict=True)],
        pair=published["pair"].map(lambda pair: "⟨{}, {}⟩".format(*(PAPER_NAMES[name] for name in pair.split("-")))),
        loss=published["loss"].map(PAPER_NAMES),
    )
    order = list(dict.fromkeys(zip(text["pair"], text["loss"], strict=True)))
    wide = text.pivot(index=["pair", "loss"], columns="metric", values="text").reindex(order)
    wide = wide[[column for column in COLUMNS if column in wide]].rename(
        columns={c: h for c, (h, _) in COLUMNS.items()}
    )
    return plain(wide)


def findings(frame: pd.DataFrame, study: Study) -> list[str]:
    """What the tables say about MCP, the steep slope loss and every arm, one sentence each, in per cent.

    Parameters
    ----------
    frame : what `experiments.evaluate` returns.
    """
    percent = frame.groupby(["arm", "pair"], sort=False)[["auroc", "tpr", "tnr"]].mean().mul(100)
    auc = percent["auroc"].unstack("arm").dropna(subset="mcp") if len(percent) else pd.DataFrame()
    oracles = auc.drop(columns="mcp", errors="ignore").dropna(how="all")
    if oracles.empty:
        return ["There is no pair with an oracle and an AUC."]
    lead = (auc["mcp"] - oracles.max(axis=1)).dropna()
    sentences = [
        f"MCP, which needs no oracle, has the highest AUC in {(lead > 0).sum()} of {len(lead)} pairs; "
        f"the best oracle's AUC minus MCP's lies between {-lead.max():+.1f} and {-lead.min():+.1f} points."
    ]
    arm = {(a.loss, a.form): name for name, a in study.arms.items() if name in oracles}
    if {("ss", "corrected"), ("ce", "corrected")} <= arm.keys():
        gain = oracles[arm["ss", "corrected"]] - oracles[arm["ce", "corrected"]]
        sentences.append(
            "The steep slope loss's AUC minus that of cross entropy as in the paper's text lies between "
            f"{gain.min():+.1f} and {gain.max():+.1f} points."
        )
    for name in oracles:
        low, high = percent.loc[name].min(), percent.loc[name].max()
        ranges = [
            f"{heading} {low[k]:.1f} to {high[k]:.1f}"
            for k, heading in (("auroc", "AUC"), ("tpr", "TPR"), ("tnr", "TNR"))
        ]
        sentences.append(f"{study.arm_label(name)}: {', '.join(ranges)}.")
    return sentences


def runs_table(rows: list[dict]) -> Styler:
    """The table of all runs, `runs.trainings`; those that failed or are missing are marked."""
    frame = pd.DataFrame(rows, columns=["run", "status", "loss", "seconds", "device", "key", "error"])
    marked = frame["status"].ne("done")
    style = frame.style
    style = style.apply(lambda row: ["background: #fde2d5" if marked[row.name] else ""] * len(row), axis=1)
    style = style.format({"loss": "{:.4f}", "seconds": "{:.1f}"}, na_rep="", escape="html")
    style = style.set_properties(subset=["run", "status", "device", "error"], **{"text-align": "left"})
    return plain(style.hide(axis="index"))


def plain(style: Styler | pd.DataFrame) -> Styler:
    """A Styler that writes the same HTML every time, its cells' ids its own; names of rows and columns are left out."""
    style = style.style if isinstance(style, pd.DataFrame) else style
    style = style.set_uuid(digest(style.data.to_csv())).set_table_attributes('class="data"')
    style = style.set_table_styles([{"selector": "td", "props": "white-space: nowrap"}])
    return style.hide(names=True, axis="index").hide(names=True, axis="columns")


def _bold(chosen: pd.DataFrame) -> pd.DataFrame:
    return chosen.astype(object).where(~chosen, "font-weight: bold").where(chosen, "")


def _cell(mean: float, deviation: float, digits: int = 2) -> str:
    if np.isnan(mean):
        return MISSING
    return f"{mean:.{digits}f}" if np.isnan(deviation) else f"{mean:.{digits}f} ± {deviation:.{digits}f}"
