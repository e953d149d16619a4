"""Compare classifiers on the same rows: `compare` takes what `trustlib.evaluate` takes, one of it per classifier."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .. import __version__
from . import evaluate as numbers
from .page import SCHEMA, table_of, written
from .reader import PredictionsError, Table
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
        for name, table in self.tables.items():
            scores = numbers.scores_of(table)[0]
            found[name] = numbers.curve(scores[self.settings["method"] or next(iter(scores))], table.correct)
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
        from . import sections  # here, since it takes matplotlib

        return written(sections.comparison(self), path)

    def _repr_html_(self) -> str:
        from . import sections

        return sections.comparison_summary(self)

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
