"""Tables: DataFrames made ready to be read. Nothing is measured here.

`paper_form` takes the tidy frame that `compare.evaluate` returns, one row per run with fractions, and gives a table
in the form of the paper's Table 1: per cent, mean ± standard deviation over seeds, best in bold.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from ..analysis.compare import DIFFERENCE, INTERVAL

if TYPE_CHECKING:
    from ..study import Study  # reads YAML, which predictions of your own do without

# column -> (heading, which way is better: 1 up, -1 down, 0 neither is better by itself)
COLUMNS = {
    "accuracy": ("Acc", 0),
    "fpr95": ("FPR-95%-TPR ↓", -1),
    "aupr_error": ("AUPR-Error ↑", 1),
    "aupr_success": ("AUPR-Success ↑", 1),
    "auroc": ("AUROC ↑", 1),
    "tpr": ("TPR", 0),
    "tnr": ("TNR", 0),
    "aurc": ("AURC ↓", -1),
    "eaurc": ("E-AURC ↓", -1),
    "augrc": ("AUGRC ↓", -1),
}
RISKS = {"aurc", "eaurc", "augrc"}  # which may be far below one per cent
OF_THE_CLASSIFIER = {"accuracy"}  # one number for all oracles of a pair: no deviation
MISSING = "–"
DATA = {"fashion": "Fashion-MNIST", "mnist": "MNIST", "cifar10": "CIFAR-10", "tiny": "Tiny-ImageNet"}
DATA |= {"digits": "5,000 digits of MNIST"}


def labelled(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The tidy frame with pairs and methods named as a reader knows them."""
    return frame.assign(pair=frame["pair"].map(study.pair_label), arm=frame["arm"].map(study.method_label))


def mean_and_deviation(frame: pd.DataFrame, columns: list[str], by: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation (n - 1; NaN for one seed) of `columns`, rows in the order of `by`'s first sight."""
    groups = frame.groupby(by, sort=False)[columns]
    return groups.mean(), groups.std(ddof=1)


def paper_form(
    frame: pd.DataFrame, columns: dict[str, tuple[str, int]] = COLUMNS, *, scale: float = 100, digits: int = 1
) -> Styler:
    """A table in the form of the paper's Table 1, one row per pair and method.

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
        shown = max(digits, decimals(mean[column], 2)) if column in RISKS else digits
        text[column] = [_cell(m, s, shown) for m, s in zip(mean[column], spread, strict=True)]
    signed = mean.mul([direction or np.nan for _, direction in columns.values()])
    bold = signed.eq(signed.groupby("pair", sort=False).transform("max"))
    headings = {column: heading for column, (heading, _) in columns.items()}
    text, bold = text.rename(columns=headings), bold.rename(columns=headings)
    return plain(text.style.apply(lambda _: in_bold(bold), axis=None))


def metrics_form(judged: pd.DataFrame) -> Styler:
    """`metrics_text` as a table, the best in bold."""
    text, bold = metrics_text(judged)
    return plain(text.style.apply(lambda _: in_bold(bold), axis=None))


def metrics_text(judged: pd.DataFrame, scale: float = 100) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every metric of several scores, per cent, with intervals, of `evaluate.compare_scores`; and what is in bold.

    Returns
    -------
    Two frames, one row per score: texts, the last column being the difference in AUROC from the first score; and bool,
    the best of a column, or a difference whose interval excludes 0.
    """
    order = judged["score"].drop_duplicates()
    metric = {name: rows.set_index("score").reindex(order) for name, rows in judged.groupby("metric")}
    text, bold = {}, {}
    for name, (heading, direction) in COLUMNS.items():
        text[heading] = with_interval(metric[name], INTERVAL, scale)
        signed = metric[name]["estimate"] * (direction or np.nan)
        bold[heading] = signed.eq(signed.max()) & (len(order) > 1)
    if len(order) > 1:
        less = f"AUROC minus {order.iloc[0]}'s"
        text[less] = with_interval(metric["auroc"], DIFFERENCE, scale, sign="+")
        bold[less] = (metric["auroc"]["difference_low"] > 0) | (metric["auroc"]["difference_high"] < 0)
    return pd.DataFrame(text), pd.DataFrame(bold)


def published_form(published: pd.DataFrame) -> Styler:
    """A published table, as it stands in data/published, in the form of the paper.

    Parameters
    ----------
    published : columns pair, loss, metric, mean, deviation; per cent.
    """
    from ..analysis.paper import PAPER_NAMES, paper_pair  # here, for the same reason

    text = published.assign(
        text=[_cell(m, s) for m, s in zip(published["mean"], published["deviation"], strict=True)],
        pair=published["pair"].map(paper_pair),
        loss=published["loss"].map(PAPER_NAMES),
    )
    order = list(dict.fromkeys(zip(text["pair"], text["loss"], strict=True)))
    wide = text.pivot(index=["pair", "loss"], columns="metric", values="text").reindex(order)
    wide = wide[[column for column in COLUMNS if column in wide]].rename(
        columns={c: h for c, (h, _) in COLUMNS.items()}
    )
    return plain(wide)


def runs_table(rows: list[dict]) -> Styler:
    """The table of all runs, `runs.trainings`; those that failed or are missing are marked."""
    frame = pd.DataFrame(rows, columns=["run", "status", "loss", "seconds", "device", "key", "error"])
    marked = frame["status"].ne("done")
    style = frame.style
    style = style.apply(lambda row: ["background: #fde2d5" if marked[row.name] else ""] * len(row), axis=1)
    style = style.format({"loss": "{:.4f}", "seconds": "{:.1f}"}, na_rep="", escape="html")
    words = map(frame.columns.get_loc, ["run", "status", "device", "error"])
    words = [{"selector": f".col{column}", "props": "text-align: left"} for column in words]
    return plain(style.hide(axis="index")).set_table_styles(words, overwrite=False)


def provenance_form(facts: dict[str, Any]) -> Styler:
    """What made a result, one row per fact: `provenance.provenance`, with what a notebook adds to it."""
    rows: dict[str, str] = {}
    for name, value in ({k: v for k, v in facts.items() if k != "versions"} | facts["versions"]).items():
        if name == "dirty":
            rows["uncommitted changes"] = "yes" if value else "no"
        else:
            rows[name] = (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
    return plain(pd.Series(rows, name="this run").to_frame())


def plain(table: Styler | pd.DataFrame) -> Styler:
    """A Styler that writes the same HTML every time, its cells' ids its own; names of rows and columns are left out.

    Texts are shown as they are, since they may be your own: headings, and the cells of a frame. The cells of a Styler
    are as it formats them.
    """
    style = table.style.format(escape="html") if isinstance(table, pd.DataFrame) else table
    for axis in ("index", "columns"):
        style = style.format_index(_unbroken, escape="html", axis=axis)
    style = style.set_uuid(_digest(style.data)).set_table_attributes('class="data"')
    style = style.set_table_styles([{"selector": "td", "props": "white-space: nowrap"}])
    return style.hide(names=True, axis="index").hide(names=True, axis="columns")


def _digest(frame: pd.DataFrame) -> str:
    """Of a table's content, as `runs.provenance.digest` has it, which takes torch."""
    return hashlib.sha256(json.dumps(frame.to_csv()).encode()).hexdigest()[:16]


def _unbroken(heading: Any) -> Any:
    """A heading that no line ends in before an arrow or a sign of per cent."""
    return re.sub(r" (?=[↑↓%])", "\N{NO-BREAK SPACE}", heading) if isinstance(heading, str) else heading


def decimals(values: pd.Series, digits: int) -> int:
    """Decimals, 1 to 5, that show so many digits of the lowest of some positive values."""
    least = values[values > 0].min()
    return 1 if np.isnan(least) else int(np.clip(digits - 1 - np.floor(np.log10(least)), 1, 5))


def in_bold(chosen: pd.DataFrame) -> pd.DataFrame:
    return chosen.astype(object).where(~chosen, "font-weight: bold").where(chosen, "")


def with_interval(
    frame: pd.DataFrame, columns: Sequence[str], scale: float, sign: str = "", digits: int = 1
) -> pd.Series:
    """Cells "estimate [low, high]"; "–" where there is no estimate.

    Parameters
    ----------
    columns : of the estimate and of its interval's ends.
    scale : what they are multiplied by.
    sign : "+" to show the sign of positive values.
    digits : decimals shown.
    """
    cells = []
    for value, low, high in frame[list(columns)].mul(scale).itertuples(index=False):
        text = MISSING if np.isnan(value) else f"{value:{sign}.{digits}f}"
        text = text if np.isnan(low) else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]"
        cells.append(text.replace("-", "−"))
    return pd.Series(cells, frame.index, dtype=object)


def _cell(mean: float, deviation: float, digits: int = 1) -> str:
    if np.isnan(mean):
        return MISSING
    return f"{mean:.{digits}f}" if np.isnan(deviation) else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def number(value: float) -> str:
    """A learning rate as it stands in the prose: 0.001, 1e-5."""
    return f"{value:g}".replace("e-0", "e-")
