"""Compare classifiers on the same rows: `compare` takes what `trustlib.evaluate` takes, one of it per classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd

from .. import __version__
from ..analysis.compare import DIFFERENCE
from ..report import figures, markup, tables
from ..report.tables import with_interval
from . import evaluate as numbers
from .page import SCHEMA, table_of, written
from .pieces import figure, limit, no_formula, paragraph, percent, table
from .reader import PredictionsError, Table
from .sections import SCRIPT, TEMPLATE
from .versus import finding, versus


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two or more classifiers on the same rows, each with its own errors.

    tables : name -> its predictions
    compared : one row per classifier and metric, `versus.versus`
    settings : max_risk, method, resamples
    """

    tables: dict[str, Table]
    compared: pd.DataFrame
    settings: dict[str, Any]

    @property
    def sentence(self) -> str:
        """Which classifier keeps more predictions at the acceptable risk, and whether that is significant."""
        return finding(self.compared, self.settings["max_risk"])

    @property
    def curves(self) -> dict[str, pd.DataFrame]:
        """name -> the risk-coverage curve of the confidence that decides, `evaluate.curve`."""
        found = {}
        for name, of in self.tables.items():
            scores = numbers.scores_of(of)[0]
            values = scores[self.settings["method"] or next(iter(scores))]
            found[name] = numbers.curve(values, of.correct, cluster=of.cluster)
        return found

    def frame(self) -> pd.DataFrame:
        """Metrics with intervals, differences from the first, and tests: columns `versus.COLUMNS`, fractions."""
        return self.compared.copy()

    def to_json(self, path: Path | str | None = None) -> str:
        """Every number as text, see docs/tool.md; written to a file too, where one is named."""
        content = {
            "schema": SCHEMA, "trustlib": __version__, "sources": {name: t.source for name, t in self.tables.items()},
            "n": len(next(iter(self.tables.values()))), "settings": self.settings, "sentence": self.sentence,
            "compared": self.compared.to_dict("records"),
            "curves": {name: curve.to_dict("list") for name, curve in self.curves.items()},
        }  # fmt: skip
        return written(json.dumps(numbers.plain_numbers(content), indent=1, allow_nan=False) + "\n", path)

    def to_html(self, path: Path | str | None = None) -> str:
        """The page as one HTML file that needs no network; written to a file too, where one is named."""
        return written(_page(self), path)

    def _repr_html_(self) -> str:
        return _summary(self)

    def __repr__(self) -> str:
        return f"Comparison of {', '.join(self.tables)}: {self.sentence}"


def compare(
    *data: Any,
    names: Sequence[str] = (),
    max_risk: float = 0.05,
    method: str = "",
    group: str = "",
    cluster: str = "",
    drop: bool = False,
    decimal: str = "",
    resamples: int = 2000,
) -> Comparison:
    """Compare two or more classifiers on the same rows, each with its own errors, against the first.

    Parameters
    ----------
    data : one per classifier: a file's path, a table, or a tuple of what `trustlib.evaluate` takes, such as (y, proba).
        Rows are matched by their ids where all have them, else by their order.
    names : of the classifiers; by default the files' names, or A, B, ...
    max_risk : the largest acceptable share of errors, in (0, 1).
    method : the confidence that decides, by its name, in all of them; the first of each by default.
    group, cluster, drop, decimal : of the files and tables, as in `trustlib.evaluate`.
    resamples : of the paired bootstrap.

    Raises
    ------
    PredictionsError : for fewer than two, and where rows are not the same (`versus.versus`).
    """
    if not 0 < max_risk < 1:
        raise ValueError(f"max_risk: expected a share between 0 and 1, such as 0.05, found {max_risk}")
    columns = {name: value for name, value in (("group", group), ("cluster", cluster), ("decimal", decimal)) if value}
    found = [table_of(*(one if isinstance(one, tuple) else (one,)), named=columns, drop=drop) for one in data]
    given = list(names) or [_named(i, one) for i, one in enumerate(data)]
    if len(given) != len(found) or len(set(given)) < len(given):
        raise PredictionsError(f"expected a name for each of {len(found)} classifiers, found {', '.join(given)}")
    tables = dict(zip(given, found, strict=True))
    compared = versus(tables, max_risk=max_risk, method=method, resamples=resamples)
    return Comparison(tables, compared, {"max_risk": max_risk, "method": method, "resamples": resamples})


def _named(i: int, data: Any) -> str:
    return Path(data).name if isinstance(data, str | Path) else chr(ord("A") + i)


def _page(of: Comparison) -> str:
    """The page of a comparison, one HTML file."""
    with plt.style.context(figures.STYLE):
        sections = [
            ("metrics", "Metrics", _compared(of)),
            ("risk-and-coverage", "Risk and coverage", _compared_curves(of)),
        ]
    tiles = [(f"{len(next(iter(of.tables.values()))):,}", "predictions")]
    rows = of.compared[of.compared["metric"] == "coverage_at_risk"]
    for row in rows.itertuples():
        interval = f"[{100 * row.low:.1f}, {100 * row.high:.1f}]"
        what = f"coverage at a risk of {limit(of.settings['max_risk'])}, {escape(row.name)} {interval}"
        tiles.append((percent(row.estimate), what))
    return markup.page(
        TEMPLATE, SCRIPT.read_text(), title=f"Compared: {escape(', '.join(of.tables))}", tiles=tiles,
        answer=paragraph(of.sentence), sections=sections, version=__version__, index="", files=[],
        contents=[("", id, heading) for id, heading, _ in sections],
    )  # fmt: skip


def _summary(of: Comparison) -> str:
    """The finding, the metrics and the curves: what a notebook shows."""
    with plt.style.context(figures.STYLE):
        return paragraph(of.sentence) + _compared(of) + _compared_curves(of)


def _compared(of: Comparison) -> str:
    headings = {"accuracy": "Acc", "auroc": "AUROC ↑", "aurc": "AURC ↓", "augrc": "AUGRC ↓"}
    headings |= {"coverage_at_risk": f"coverage at {limit(of.settings['max_risk'])} risk"}
    base, shown = next(iter(of.tables)), []
    for metric, rows in of.compared.groupby("metric", sort=False):
        rows = rows.set_index("name")
        text = pd.DataFrame({"": f"{headings[metric]}, %", "classifier": rows.index}, index=rows.index)
        text["estimate"] = with_interval(rows, ("estimate", "low", "high"), 100)
        text[f"minus {base}'s"] = with_interval(rows, DIFFERENCE, 100, sign="+")
        text["p, Holm"] = rows["p_holm"].map("{:.2g}".format).replace("nan", tables.MISSING)
        shown.append(text.assign(test=rows["test"].replace("", tables.MISSING)))
    caption = (
        f"95 % intervals and differences on the same rows, {of.settings['resamples']:,} paired resamples. p: DeLong's "
        "test of the AUROC where the errors are the same, else the bootstrap's; Holm's correction is over all tests."
    )
    return table(pd.concat(shown).set_index(""), caption, left=("classifier", "test"))


def _compared_curves(of: Comparison) -> str:
    fig, ax = plt.subplots(figsize=(6.4, 3.6))
    curves = {name: curve.iloc[len(curve) // 50 :] for name, curve in of.curves.items()}
    for name, curve in curves.items():
        figures.risk_band(ax, curve["coverage"], curve["risk"], curve["low"], curve["high"], label=no_formula(name))
    ax.axhline(of.settings["max_risk"], color="0.35", linewidth=0.8, linestyle="--")
    ax.set_ylim(0, 1.05 * max(curve["high"].max() for curve in curves.values()))
    ax.legend(loc="upper left")
    exact = "exact " if all(of_one.cluster is None for of_one in of.tables.values()) else ""
    return figure(
        fig, f"Risk, the share of errors among the predictions kept, against coverage, with {exact}95 % intervals "
        "point by point (of each by itself, not of differences); dashed: the acceptable risk.",
        f"Risk against coverage of {', '.join(of.tables)}.",
    )  # fmt: skip
