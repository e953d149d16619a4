"""A gate: a threshold with its guarantee as a JSON file, applied to new predictions, and watched.

What it is applied to needs no labels: the column that is the confidence, or the logits or probabilities it is of.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pydantic
from numpy.typing import NDArray
from scipy.stats import binom, hypergeom

from .. import confidence
from ..stats.selective import Guarantee, _upper
from . import columns, evaluate, files, reader
from .reader import PredictionsError, Table

SCHEMA = "trustlib-gate/1"
Source = Path | str | Table
ROLES = {"correct", "label", "prediction"}


@dataclass(frozen=True)
class Gate:
    """A threshold that was chosen on labelled rows, and all it takes to apply it to others.

    confidence : a column's name, or the label of a score of `confidence.SCORES` that needs nothing but logits
    computed_of : "column", "logits" or "probabilities"
    threshold : a prediction is accepted when its confidence is above it, in full digits; -inf accepts all
    rule, max_risk, delta, bound, clusters : what is guaranteed, see `selective.Guarantee`
    kept, errors, n : of the labelled rows (of a row from each cluster) that chose it
    low, high : between which their confidence lay: a fraction is not applied to per cents
    source : their file's name
    steps : what was done to the numbers of the column, and is done to those of others, see `columns.redone`
    temperature : by which logits are divided before the score is computed; fitted on other rows, where it is not 1
    schema : of the file
    """

    confidence: str
    computed_of: str
    threshold: float
    rule: str
    max_risk: float
    delta: float
    bound: float
    clusters: bool
    kept: int
    errors: int
    n: int
    low: float
    high: float
    source: str
    steps: tuple[str, ...] = ()
    temperature: float = 1.0
    schema: str = SCHEMA

    @property
    def coverage(self) -> float:
        """The share of predictions expected to be accepted: that of the rows that chose the threshold."""
        return self.kept / self.n

    def save(self, path: Path | str, *, force: bool = False) -> None:
        """Write it as JSON, over a file that exists with `force` only."""
        _refuse_existing(path, force)
        content = evaluate.plain_numbers(asdict(self) | {"coverage": self.coverage})
        Path(path).write_text(json.dumps(content, indent=2, allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: Path | str) -> "Gate":
        """Read what `save` wrote; PredictionsError says what is amiss where it is no gate of this schema."""
        try:
            content = json.loads(Path(path).read_text())
            if not isinstance(content, dict) or content.get("schema") != SCHEMA:
                raise PredictionsError(f'{path}: this is no gate: expected "schema": "{SCHEMA}"')
            return pydantic.TypeAdapter(cls).validate_python(content)
        except pydantic.ValidationError as error:
            amiss = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise PredictionsError(f"{path}: this is no gate: {amiss}") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise PredictionsError(f"{path}: there is no JSON file, or a damaged one ({error})") from None


def of(table: Table, name: str, guarantee: Guarantee | Mapping, *, temperature: float = 1.0) -> Gate:
    """The gate of one confidence of a table.

    Parameters
    ----------
    name : as in `evaluate.scores_of`.
    guarantee : of `selective.guaranteed_threshold`, or a row of `evaluate.guarantees`.
    temperature : where the score was computed of logits over it.

    Raises
    ------
    PredictionsError : where no threshold was found; for a score that is fitted on labels; and when the threshold does
        not keep as many rows of the table as the guarantee says.
    """
    row = asdict(guarantee) if isinstance(guarantee, Guarantee) else guarantee
    if not row["found"]:
        raise PredictionsError("there is no gate without a threshold: none qualifies")
    kind = "column" if name in table.confidences else "probabilities" if table.probabilities else "logits"
    taken = {field.name: row[field.name] for field in fields(Gate) if field.name in row}
    taken |= {"confidence": name, "computed_of": kind, "source": table.source, "temperature": temperature}
    taken["steps"] = table.steps.get(name, ())
    blank: Gate = pydantic.TypeAdapter(Gate).validate_python(evaluate.plain_numbers(taken | {"low": 0, "high": 0}))
    values = values_of(blank, table)
    gate = replace(blank, low=float(values.min()), high=float(values.max()))
    if not gate.clusters and (keeps := int((values > gate.threshold).sum())) != gate.kept:
        raise PredictionsError(f"the threshold keeps {keeps:,} rows of these, the guarantee says {gate.kept:,}")
    return gate


def values_of(gate: Gate, table: Table) -> NDArray[np.float64]:
    """The gate's confidence of every row: float64 (N,); PredictionsError where the table lacks what it is made of."""
    if gate.computed_of == "column":
        if gate.confidence not in table.confidences:
            raise PredictionsError(f"{table.source}: the gate needs the column {gate.confidence}; there is none")
        if tuple(table.steps.get(gate.confidence, ())) != gate.steps:
            raise PredictionsError(f"{table.source}: {gate.confidence} was read otherwise than where the gate was made")
        return table.confidences[gate.confidence]
    if table.logits is None or table.probabilities != (gate.computed_of == "probabilities"):
        raise PredictionsError(f"{table.source}: the gate needs the {gate.computed_of} of every class; there are none")
    score = next((score for score in confidence.SCORES.values() if score.label == gate.confidence), None)
    if score is None or score.needs:
        raise PredictionsError(f"{gate.confidence} cannot be computed of {gate.computed_of} alone")
    seen = confidence.Observed(table.logits / gate.temperature, np.zeros(len(table.logits), np.int64))
    values = score.function(seen, None, None)
    if gate.computed_of == "probabilities":  # as `evaluate.scores_of` rounds them
        values = np.round(values / (unit := evaluate._unit(values))) * unit
    return values


def accept(gate: Gate, table: Table) -> NDArray[np.bool_]:
    """Which rows pass the gate: bool (N,)."""
    return values_of(gate, table) > gate.threshold


def apply(gate: Gate, path: Path | str, out: Path | str, *, force: bool = False) -> pd.DataFrame:
    """Write the rows of a file with a column `accepted`, and the confidence where it is computed; labels may lack.

    path : any file that `reader` reads.
    out : a .csv or .parquet file; one that exists is replaced with `force` only.

    Returns what was written; PredictionsError for a file that cannot be used or has these columns already.
    """
    _refuse_existing(out, force)
    frame, values, _ = _rows(gate, path)
    added: dict[str, NDArray] = {} if gate.computed_of == "column" else {gate.confidence: values}
    added["accepted"] = values > gate.threshold
    if twice := [name for name in added if name in frame]:
        raise PredictionsError(f"{path}: there is a column {twice[0]} already")
    frame = frame.assign(**added)
    if Path(out).suffix.lower() == ".parquet":
        frame.to_parquet(out, index=False)
    else:
        frame.to_csv(out, index=False)
    return frame


def monitor(gate: Gate, batches: Source | Sequence[Source], alpha: float = 0.05) -> pd.DataFrame:
    """Whether new rows still are what the gate was made for: exact tests after each batch, of all rows so far.

    coverage : two-sided Fisher's test of the share accepted, against the rows that chose the threshold. One that keeps
        a number of rows fixed beforehand has exactly these tails (one of them less one row); with one that labels chose
        they hold in simulation.
    risk : of the accepted rows with a label (`correct`, or `label`, may be empty in others, for no reason that has to
        do with the answer), the binomial probability of so many errors or more at a risk of `max_risk`.

    Batch j has alpha / (j (j + 1)), half for each test: over any number of batches that is alpha in all. A false alarm
    has so at most the probability alpha, as far as rows are independent, come from one distribution, and what the gate
    guarantees is true.

    Returns
    -------
    One row per batch, counts up to there: rows, accepted, coverage, coverage_p, judged, errors, risk, risk_p, level (of
    each test), alarm ("", "coverage", "risk" or "coverage, risk").
    """
    found, totals = [], np.zeros(4, np.int64)  # rows, accepted, judged, errors
    for j, path in enumerate([batches] if isinstance(batches, Source) else batches, 1):
        _, values, correct = _rows(gate, path)
        accepted = values > gate.threshold
        totals += (len(values), accepted.sum(), (~np.isnan(correct[accepted])).sum(), (correct[accepted] == 0).sum())
        rows, kept, judged, errors = map(int, totals)
        both = gate.n + rows, gate.n, gate.kept + kept
        row = {"rows": rows, "accepted": kept, "coverage": kept / rows}
        row["coverage_p"] = min(
            1.0, 2 * float(min(hypergeom.cdf(gate.kept, *both), hypergeom.sf(gate.kept - 1, *both)))
        )
        row |= {"judged": judged, "errors": errors, "risk": errors / judged if judged else nan}
        row["risk_p"] = float(binom.sf(errors - 1, judged, gate.max_risk)) if judged else 1.0
        level = alpha / (2 * j * (j + 1))
        alarms = [test for test in ("coverage", "risk") if row[f"{test}_p"] <= level]
        found.append(row | {"level": level, "alarm": ", ".join(alarms)})
    return pd.DataFrame(found, pd.RangeIndex(1, len(found) + 1, name="batch"))


def exceeds(found: Guarantee | pd.DataFrame, limit: float, delta: float = 0.01) -> bool:
    """Whether a run of CI has to fail: True unless the risk is shown to be at most `limit`, with 1 - delta.

    found : a `Guarantee`, which shows its `max_risk` with its own delta; or what `monitor` returns, where the exact
        upper bound of the risk of all accepted rows with a label decides: few labels show little.
    """
    if isinstance(found, Guarantee):
        return not (found.found and found.max_risk <= limit)
    last = found.iloc[-1]
    return _upper(int(last["errors"]), int(last["judged"]), delta) > limit


def _rows(gate: Gate, path: Source) -> tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.float64]]:
    """(the file's rows, their confidence (N,), 1 where correct, 0 where not, NaN where no label says so (N,))."""
    if isinstance(path, Table):
        return pd.DataFrame(index=range(len(path))), values_of(gate, path), path.correct.astype(np.float64)
    path = Path(path)
    try:
        frame, *_ = files.table(path)
        kind = {"logits": "logit", "probabilities": "prob"}.get(gate.computed_of, "")
        of_class = {name: of for name in frame if kind for like, of in [columns.class_of(name)] if like == kind}
        column = gate.confidence.removesuffix(columns.OF_PREDICTED).removesuffix(" (column)")
        needed = list(of_class) or [column] * (not kind)
        if not needed or needed[0] not in frame:
            what = f"columns {kind}_CLASS" if kind else f"the column {needed[0]}"
            raise PredictionsError(f"the gate needs {what}; found {files.few(frame)}")
        settings: dict[str, Any] = {"source": path.name, "confidences": () if kind else needed}
        labels = {what: name for what, name in columns.roles(frame, tuple(needed)).items() if what in ROLES}
        if kind:  # a label stands in for those that may not be there
            values = values_of(gate, reader.from_frame(frame[needed].assign(label=of_class[needed[0]]), **settings))
        else:
            values = _of_column(gate, frame[needed[0]], frame[labels["prediction"]] if "prediction" in labels else None)
        correct = np.full(len(frame), nan)
        if "correct" in labels or ("label" in labels and (kind or "prediction" in labels)):
            labelled = frame[[*labels.values()]].notna().all(axis=1).to_numpy()
            if labelled.any():
                rows = frame.loc[labelled, [*needed, *labels.values()]].reset_index(drop=True)
                correct[labelled] = reader.from_frame(rows, **settings).correct
        return frame, values, correct
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from None


def _of_column(gate: Gate, column: pd.Series, predicted: pd.Series | None) -> NDArray[np.float64]:
    """A column's numbers as those were read that made the gate; PredictionsError where they lie elsewhere."""
    column = column.set_axis(range(1, len(column) + 1))
    numbers, has_sign = columns.numbers(column, "", True)
    if numbers.isna().any():
        raise PredictionsError(f"something is missing in column {column.name} {files.where(numbers.isna())}")
    texts = None if predicted is None else columns.texts(predicted).set_axis(column.index)
    values, low, high = columns.redone(numbers, list(gate.steps), texts), numbers.min(), numbers.max()
    in_per_cent = columns.PER_CENT in gate.steps
    fraction = gate.low >= 0 and 0 < gate.high <= 1
    if (
        (in_per_cent and not has_sign and high <= 1)
        or (has_sign and not in_per_cent)
        or (fraction and not values.between(-columns.SLACK, 1 + columns.SLACK).all())
    ):
        unit = "in per cent" if in_per_cent else "a fraction" if fraction else "in no per cent"
        raise PredictionsError(
            f"column {column.name} was {unit} where the gate was made, and is not here: it runs from {low:g} to "
            f"{high:g}{' per cent' if has_sign else ''}"
        )
    return values.to_numpy()


def _refuse_existing(path: Path | str, force: bool) -> None:
    if Path(path).exists() and not force:
        raise PredictionsError(f"{path}: there is a file already; --force (force=True) replaces it")
