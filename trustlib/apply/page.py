"""Evaluate your own predictions: `evaluate` takes a file, a table, arrays or a classifier, and returns a `Report`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import __version__
from ..stats import calibration, planning, selective
from . import evaluate as numbers
from . import reader
from .files import as_array
from .groups import groups
from .reader import PredictionsError, Table, counted

SCHEMA = 1  # of the JSON file, see docs/tool.md


@dataclass(frozen=True, eq=False)
class Report:
    """The evaluation of one classifier's predictions: numbers, a threshold, a page.

    In Jupyter it shows its key figures; `to_html` writes the whole page. Everything is determined by what was
    evaluated and by the settings.

    table : the predictions, checked
    method : the confidence that decides
    scores : name -> confidence (N,), those that are computed here first
    left_out : name -> why it was not computed
    settings : max_risk, delta, resamples and the like, as they were given
    metrics : one row per score and metric, `evaluate.compare_scores`
    guarantees : one row per score, `evaluate.guarantees`
    at_coverage, at_risk : of the deciding confidence, `evaluate.at_coverages` and `evaluate.at_risks`
    calibration : one row per confidence that is a probability, `calibration.with_intervals`
    class_errors : NLL and Brier score of the class probabilities, empty without them
    groups : one row per group, or None
    group_guarantees : the threshold of each group by itself, `selective.group_thresholds`, or None
    cost : what thresholds cost, `planning.expected_cost`, or None
    best : where no threshold qualifies, the smallest risk that can be guaranteed, `selective.best_risk`, or None
    """

    table: Table
    method: str
    scores: dict[str, NDArray[np.float64]]
    left_out: dict[str, str]
    settings: dict[str, Any]
    metrics: pd.DataFrame
    guarantees: pd.DataFrame
    at_coverage: pd.DataFrame
    at_risk: pd.DataFrame
    calibration: pd.DataFrame
    class_errors: dict[str, float]
    groups: pd.DataFrame | None
    group_guarantees: pd.DataFrame | None = None
    cost: planning.Cost | None = None
    best: selective.Guarantee | None = None

    @property
    def threshold(self) -> float | None:
        """Above which a prediction is kept; -inf keeps all, None where no threshold qualifies."""
        row = self.guarantees.loc[self.method]
        return float(row["threshold"]) if row["found"] else None

    @property
    def sentence(self) -> str:
        """What the threshold promises, with all its digits: it may stand in a report as it is."""
        return str(self.guarantees.loc[self.method, "sentence"])

    @property
    def kept(self) -> NDArray[np.bool_]:
        """Which predictions lie above the threshold, (N,); none where there is no threshold."""
        return self.scores[self.method] > (np.inf if self.threshold is None else self.threshold)

    @property
    def bound(self) -> float:
        """What the risk above the threshold is shown to be at most; 1 where there is no threshold."""
        row = self.guarantees.loc[self.method]
        return float(row["bound"]) if row["found"] else 1.0

    @cached_property
    def curves(self) -> dict[str, pd.DataFrame]:
        """The risk-coverage curve of each score, `evaluate.curve`."""
        found = {name: numbers.curve(values, self.table.correct) for name, values in self.scores.items()}
        if self.table.cluster is not None:  # exact intervals are of independent rows; there are others of one curve
            found = {name: curve.assign(low=np.nan, high=np.nan) for name, curve in found.items()}
            values = self.scores[self.method]
            found[self.method] = numbers.curve(values, self.table.correct, cluster=self.table.cluster)
        return found

    @cached_property
    def probabilities(self) -> dict[str, NDArray[np.float64]]:
        """The confidences that are probabilities of being correct, (N,) each."""
        found = {name: numbers.probability(self.table, name, values) for name, values in self.scores.items()}
        return {name: p for name, p in found.items() if p is not None}

    def frame(self) -> pd.DataFrame:
        """Every metric of every score: columns score, metric, estimate, low, high, and differences; fractions."""
        return self.metrics.copy()

    def to_dict(self) -> dict[str, Any]:
        """Every number, as JSON can hold it: the schema is in docs/tool.md."""
        found, cost = self.table, None
        if self.cost is not None:
            cost = asdict(self.cost) | {"curve": numbers.thinned(self.cost.curve).to_dict("list")}
        confused = numbers.confusions(found, self.kept).to_dict("records") if found.label is not None else None
        return numbers.plain_numbers(
            {
                "schema": SCHEMA, "trustlib": __version__, "source": found.source, "n": len(found),
                "errors": int((~found.correct).sum()), "dropped": found.dropped, "unused": found.unused,
                "notes": found.notes, "settings": self.settings, "method": self.method, "threshold": self.threshold,
                "sentence": self.sentence, "left_out": self.left_out, "metrics": self.metrics.to_dict("records"),
                "guarantees": self.guarantees.to_dict("index"), "at_coverage": self.at_coverage.to_dict("records"),
                "at_risk": self.at_risk.to_dict("records"), "calibration": self.calibration.to_dict("index"),
                "class_errors": self.class_errors or None,
                "groups": self.groups.to_dict("index") if self.groups is not None else None,
                "group_guarantees": None if self.group_guarantees is None else self.group_guarantees.to_dict("index"),
                "cost": cost,
                "best": None if self.best is None else asdict(self.best), "confusions": confused,
                "worst": numbers.worst(found, self.scores[self.method], self.threshold).to_dict("records"),
                "curves": {name: curve.to_dict("list") for name, curve in self.curves.items()},
            }
        )  # fmt: skip

    def to_json(self, path: Path | str | None = None) -> str:
        """`to_dict` as text; written to a file too, where one is named."""
        return written(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", path)

    def to_html(self, path: Path | str | None = None) -> str:
        """The page as one HTML file that needs no network; written to a file too, where one is named."""
        from . import sections  # here, since it takes matplotlib

        return written(sections.page(self), path)

    def _repr_html_(self) -> str:
        from . import sections

        return sections.summary(self)

    def __repr__(self) -> str:
        return f"Report of {counted(len(self.table), 'prediction')}, {self.method}: {self.sentence}"


def evaluate(
    data: Any,
    values: Any = None,
    labels: Any = None,
    *,
    max_risk: float = 0.05,
    delta: float = 0.01,
    guarantee: str = "sgr",
    cost: tuple[float, float] | None = None,
    method: str = "",
    confidences: Sequence[str] = (),
    classes: Sequence[Any] | None = None,
    group: Any = None,
    cluster: Any = None,
    drop: bool = False,
    decimal: str = "",
    resamples: int = 2000,
    log: Callable[[str], None] = lambda line: None,
) -> Report:
    """Evaluate a classifier's predictions: how well confidences rank them, and how many can be left to it.

    Parameters
    ----------
    data, values, labels : one of

        - ``evaluate(y, proba)``: labels (N,), and class probabilities or logits (N, K), K >= 2; the columns belong to
          `classes`, else to those that a table names, to 0 .. K - 1 where y is of these, or to y's K values in order;
        - ``evaluate(correct, confidence)``: bool (N,), and a confidence (N,), higher = more to be trusted, or several
          by name;
        - ``evaluate(classifier, X, y)``: anything with ``predict_proba`` and ``classes_``, as scikit-learn has it;
        - ``evaluate(frame)``, ``evaluate("predictions.csv")``: a table or a file, see `trustlib.apply.reader`, or the
          `Table` that it makes of one.

        Arrays may be NumPy's, pandas', torch's, or lists.
    max_risk : the largest acceptable share of errors among the kept predictions, in (0, 1).
    delta : how often the guarantee may fail, in (0, 1).
    guarantee : the rule, of "sgr", "fixed-sequence" and "both" (`selective.guaranteed_threshold`), chosen beforehand.
    cost : of a kept error and of an abstention, in one unit: adds what thresholds cost.
    method : the confidence that decides, by its name; the first by default. It must be chosen before its numbers are
        seen, which the guarantee rests on.
    confidences : of a table: the columns that are confidences; by default all columns of numbers that can be.
    group, cluster : names (N,), or a table's column; groups are evaluated one by one, rows of one cluster depend on
        each other.
    drop : leave out rows in which something is missing, in place of an error.
    decimal : what separates decimals in a CSV, "." or ","; by default it is told from the numbers.
    resamples : of the bootstrap.
    log : told of progress, a line at a time.

    Raises
    ------
    PredictionsError : for what cannot be used, saying what was expected and what was found.
    ValueError : for a setting outside its range.
    """
    for name, value in (("max_risk", max_risk), ("delta", delta)):
        if not 0 < value < 1:
            raise ValueError(f"{name}: expected a share between 0 and 1, such as 0.05, found {value}")
    if resamples < 1:
        raise ValueError(f"resamples: expected at least one, found {resamples}")
    named = {"group": group, "cluster": cluster, "decimal": decimal}
    table = table_of(data, values, labels, classes=classes, named=named, confidences=confidences, drop=drop)
    scores, left_out = numbers.scores_of(table)
    if method and method not in scores:
        raise PredictionsError(f"there is no confidence {method!r}; found {', '.join(scores)}")
    if guarantee not in selective.RULES:
        raise ValueError(f"guarantee: expected one of {', '.join(selective.RULES)}, found {guarantee!r}")
    settings = {"max_risk": max_risk, "delta": delta, "guarantee": guarantee, "resamples": resamples, "cost": cost}
    return _report(table, scores, left_out, method or next(iter(scores)), settings, log)


def _report(
    table: Table,
    scores: dict[str, NDArray],
    left_out: dict[str, str],
    method: str,
    settings: dict[str, Any],
    log: Callable[[str], None],
) -> Report:
    correct, resamples = table.correct, settings["resamples"]
    probabilities = {name: numbers.probability(table, name, values) for name, values in scores.items()}
    probabilities = {name: p for name, p in probabilities.items() if p is not None}
    half = {name: 0.0 if name in numbers.LOG_ODDS else 0.5 for name in probabilities}
    max_risk, delta, rule, cluster = settings["max_risk"], settings["delta"], settings["guarantee"], table.cluster
    guaranteed = numbers.guarantees(
        scores, correct, max_risk, delta, rule=rule, cluster=cluster, rounded=table.probabilities
    )
    row = guaranteed.loc[method]
    member = table.group
    if member is None and table.label is not None and len(table.classes) <= 100:
        member = np.array(table.classes)[table.label]
    threshold = float(row["threshold"]) if row["found"] else None
    risks = sorted({*numbers.RISKS, max_risk})
    each = None
    if table.group is not None and method not in numbers.FITTED:
        each = selective.group_thresholds(scores[method], correct, table.group, max_risk, delta, rule, cluster=cluster)
    cost = settings["cost"]
    return Report(
        table, method, scores, left_out, settings,
        metrics=numbers.compare_scores(scores, correct, half, cluster=cluster, resamples=resamples, log=log),
        guarantees=guaranteed,
        at_coverage=numbers.at_coverages(scores[method], correct, cluster=cluster),
        at_risk=numbers.at_risks(scores[method], correct, risks, cluster=cluster, resamples=resamples),
        calibration=pd.DataFrame.from_dict(
            {name: calibration.with_intervals(p, correct, cluster=table.cluster) for name, p in probabilities.items()},
            orient="index", columns=list(calibration.COLUMNS),
        ),
        class_errors=numbers.class_errors(table) if table.logits is not None else {},
        groups=groups(scores[method], correct, member, threshold, cluster) if member is not None else None,
        group_guarantees=each,
        cost=planning.expected_cost(scores[method], correct, error=cost[0], abstention=cost[1], resamples=resamples)
        if cost else None,
        best=selective.best_risk(scores[method], correct, delta)
        if threshold is None and cluster is None and method not in numbers.FITTED else None,
    )  # fmt: skip


# --- What is evaluated ---


def table_of(
    data: Any,
    values: Any = None,
    labels: Any = None,
    *,
    classes: Any = None,
    named: Mapping[str, Any] = MappingProxyType({}),
    **settings,
) -> Table:
    """What `evaluate` is given, as one table; `named` are group, cluster and decimal."""
    if isinstance(data, Table):
        return data
    if hasattr(data, "predict_proba"):
        if values is None or labels is None:
            raise PredictionsError("expected evaluate(classifier, X, y)")
        classes = data.classes_ if classes is None else classes
        data, values = labels, data.predict_proba(values)
    elif values is None:
        given: dict[str, Any] = {name: value for name, value in named.items() if isinstance(value, str) and value}
        if isinstance(data, str | Path):
            return reader.read(data, **given, **settings)
        if not isinstance(data, pd.DataFrame):
            raise PredictionsError(f"expected a table, a path, or two arrays, found {type(data).__name__}")
        added = _columns(named, len(data))
        return reader.from_frame(data.assign(**added), **given | {name: name for name in added} | settings)
    frame, names = _frame(as_array(data), values, classes)
    added = _columns(named, len(frame))
    settings |= {"source": "arrays", "confidences": names} | {name: name for name in added}
    return reader.from_frame(frame.assign(**added), **settings)


def _columns(named: Mapping[str, Any], n: int) -> dict[str, NDArray]:
    """The groups and clusters that are arrays and no names of columns."""
    given = {name: as_array(value) for name, value in named.items() if value is not None and not isinstance(value, str)}
    return {name: _column(name, values, n) for name, values in given.items()}


def _frame(first: NDArray, values: Any, classes: Any) -> tuple[pd.DataFrame, list[str]]:
    """A table of two arrays, and which of its columns are confidences."""
    if isinstance(values, Mapping):
        values = pd.DataFrame({name: as_array(column) for name, column in values.items()})
    outputs = as_array(values)
    if outputs.ndim == 1 or first.dtype == bool:
        if first.dtype != bool:
            raise PredictionsError(
                "two arrays of one dimension are (correct, confidence), and correct has to be of booleans "
                f"(y == prediction), found {first.dtype}; for labels pass probabilities of the shape (N, K), "
                "of a binary classifier np.column_stack([1 - p, p])"
            )
        columns = outputs[:, None] if outputs.ndim == 1 else outputs
        names = list(map(str, values.columns)) if isinstance(values, pd.DataFrame) else ["confidence"]
        names = names if len(names) == columns.shape[1] else [f"confidence {i}" for i in range(columns.shape[1])]
        frame = pd.DataFrame(columns, columns=names)
        frame.insert(0, "correct", _column("correct", first, len(frame)))
        return frame, names
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise PredictionsError(f"expected probabilities of the shape (N, K), K >= 2, found {outputs.shape}")
    if classes is None and isinstance(values, pd.DataFrame):
        classes = values.columns
    names = _classes(first, outputs.shape[1], classes)
    kind = "prob" if outputs.min() >= 0 and outputs.max() <= 1 + reader.SUM_TOLERANCE else "logit"
    frame = pd.DataFrame(outputs, columns=[f"{kind}_{name}" for name in names])
    frame["label"] = _column("y", first, len(frame)).astype(str)
    return frame, []


def _classes(y: NDArray, count: int, classes: Any) -> list[str]:
    """The names of K columns, see `evaluate`."""
    if classes is None:
        found = np.unique(y)
        if y.dtype.kind in "biu" and found[0] >= 0 and found[-1] < count:
            classes = range(count)
        elif len(found) == count:
            classes = found
        else:
            raise PredictionsError(
                f"y has {len(found)} values, there are {count} columns of probabilities: "
                "name the class of each column (classes=)"
            )
    names = [str(name) for name in classes]
    if len(names) != count:
        raise PredictionsError(f"{len(names)} classes are named, there are {count} columns of probabilities")
    return names


def _column(name: str, column: NDArray, n: int) -> NDArray:
    if column.shape != (n,):
        raise PredictionsError(f"{name}: expected {n:,} values, one per prediction, found the shape {column.shape}")
    return column


def written(text: str, path: Path | str | None) -> str:
    """The text; in the file too, where one is named, with its folders."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="utf-8")
    return text
