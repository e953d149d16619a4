"""The pieces of a page on your own predictions: tables, figures, sentences, numbers as they are shown."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import expit

from ..report import figures, markup, tables
from . import evaluate as numbers

if TYPE_CHECKING:
    from .page import Report

COLOURS = (  # Okabe and Ito's, and others that are safe for colour-blind readers
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", *figures.FURTHER[1:], "#222222", "#777777",
)  # fmt: skip
ENDS = ("", "_low", "_high")


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


def paragraph(*sentences: str) -> str:
    return f"<p>{escape(' '.join(sentences))}</p>"


def no_formula(name: str) -> str:
    """A name in a figure, where $ would begin a formula."""
    return name.replace("$", r"\$")


def colours_of(report: Report) -> dict[str, str]:
    names = [report.method, *(name for name in report.scores if name != report.method)]
    return dict(zip(names, cycle(COLOURS), strict=False))


def percent(share: float, digits: int = 1) -> str:
    return tables.MISSING if np.isnan(share) else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def limit(share: float) -> str:
    return f"{100 * share:.6g}\N{NO-BREAK SPACE}%"


def interval_kind(report: Report) -> str:
    """What the intervals of shares are: Clopper and Pearson's, or, with clusters, `share_interval`'s."""
    return "exact 95 % intervals" if report.table.cluster is None else "95 % intervals over clusters"


def threshold_shown(report: Report, value: float | None) -> str:
    """A threshold in four digits; of log-odds as the probability that it is."""
    if value is None or np.isnan(value):
        return tables.MISSING
    if value == -np.inf:
        return "all are kept"
    return f"{expit(value):.4g}" if report.method in numbers.LOG_ODDS else f"{value:.4g}"


def bullets(items: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
