"""Your own predictions, from a file: confidences, and which predictions were right.

A file is a table, CSV or Parquet, or an ``.npz`` of arrays, one row per prediction. It holds one of two things:

- ``correct`` (0 or 1, or true and false), and a column of numbers for each confidence, higher = more to be trusted;
  ``label`` and ``prediction`` may stand in place of ``correct``.
- ``label``, and for every class a column ``prob_CLASS``, or ``logit_CLASS``; in an ``.npz`` the arrays ``labels`` (N,)
  and ``probabilities`` or ``logits`` (N, K), with the names of the classes in ``classes`` (K,) where they are not 0 to
  K - 1. Further columns of numbers are confidences too.

Either may have a column of groups: a site, a domain, a device.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import confidence

if TYPE_CHECKING:
    from ..study import Study

SUM_TOLERANCE = 1e-3  # of the probabilities of one row: those of half precision pass
LABELS = {score.label for score in confidence.SCORES.values()}
TEXTS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
SHOWN = 5  # rows, columns or values that a message names
LAYOUT = (
    "expected a column correct (0 or 1) and one or more columns of confidences, or a column label and a column "
    "prob_CLASS or logit_CLASS for every class (trustlib evaluate --help says more)"
)


class PredictionsError(ValueError):
    """A file of predictions that cannot be used; the message says what was expected and what was found."""


@dataclass(frozen=True, eq=False)
class Table:
    """What a file holds, checked.

    source : the file's name
    correct : bool (N,)
    confidences : name -> float64 (N,), of the file's own columns
    logits : float64 (N, K) or None; the logarithms of probabilities, where the file has these
    probabilities : whether it has
    label, predicted : int64 (N,), places in `classes`, or None
    classes : their names
    group : names (N,), or None
    unused : columns that are no part of this
    dropped : rows left out, in which something was missing
    cluster, rows : names (N,), or None
    notes : what each column was taken for, sentences
    """

    source: str
    correct: NDArray[np.bool_]
    confidences: dict[str, NDArray[np.float64]]
    logits: NDArray[np.float64] | None = None
    probabilities: bool = False
    label: NDArray[np.int64] | None = None
    predicted: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    group: NDArray | None = None
    unused: tuple[str, ...] = ()
    dropped: int = 0
    cluster: NDArray | None = None
    rows: NDArray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.correct)


def read(path: Path | str, *, confidences: Sequence[str] = (), group: str = "", drop: bool = False) -> Table:
    """Read a file of predictions and check it.

    Parameters
    ----------
    confidences : which columns are; by default all columns of numbers that are nothing else.
    group : the column of groups; by default ``group``, where there is one.
    drop : leave rows out in which something is missing, and count them, in place of an error.

    Raises
    ------
    PredictionsError : when the file is missing or is not what its ending says; a column is missing (with those that
        are there), has other lengths or values than expected; something is missing in a row (with how many and which);
        probabilities do not sum to one, or a label is none of the classes.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise PredictionsError("there is no such file")
        return _checked(path.name, _table(path), tuple(confidences), group, drop)
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from None


def from_frame(
    frame: pd.DataFrame,
    *,
    source: str = "a table",
    confidences: Sequence[str] = (),
    group: str = "",
    cluster: str = "",
    drop: bool = False,
) -> Table:
    """The same of a table that is there already."""
    return _checked(source, frame.set_axis(range(1, len(frame) + 1), axis=0), tuple(confidences), group, drop)


def of_study(study: Study, log: Callable[[str], None] = print) -> Table:
    """What a study's first classifier says of its test images; it is trained first where it is not yet."""
    from ..runs import steps  # here, since it takes torch, which a file of predictions does not

    name = next(iter(study.networks))
    seen = steps.classifier(study, name).get(log).tensors("test.")
    logits, images = seen["logits"].numpy().astype(np.float64), study.images()
    label = images.labels["test"].cpu().numpy()
    predicted = logits.argmax(1)
    return Table(
        f"the test images of {study.name}, {study.network(name).label}", predicted == label, {}, logits, label=label,
        predicted=predicted, classes=tuple(map(str, images.classes)),
    )  # fmt: skip


def _table(path: Path) -> pd.DataFrame:
    """One row per prediction, numbered from 1; the arrays of an .npz under the names of a table's columns."""
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet", ".npz"):
        raise PredictionsError(f"expected a file that ends in .csv, .parquet or .npz, found {kind or 'no ending'}")
    try:
        if kind == ".npz":
            if not zipfile.is_zipfile(path):
                raise PredictionsError("this is no npz file, or a damaged one")
            with np.load(path, allow_pickle=False) as file:
                frame = _spread({name: _array(file, name) for name in file.files})
        elif kind == ".csv":
            _refuse_twins(pd.read_csv(path, header=None, nrows=1, dtype=str).iloc[0])
            frame = pd.read_csv(path)
        else:
            frame = pd.read_parquet(path)
            _refuse_twins(frame.columns.to_series())
    except PredictionsError:
        raise
    except ImportError:
        raise PredictionsError("Parquet needs pyarrow: uv pip install pyarrow, or write a CSV") from None
    # what pandas and pyarrow raise are kinds of these
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise PredictionsError(f"this is no {kind[1:]} file, or a damaged one ({str(error).splitlines()[0]})") from None
    frame.columns = frame.columns.astype(str)
    return frame.set_axis(range(1, len(frame) + 1), axis=0)


def _array(file: Mapping[str, NDArray], name: str) -> NDArray:
    try:
        return file[name]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise PredictionsError(f"array {name} holds Python objects: save it as numbers or text") from None
        raise


def _refuse_twins(names: pd.Series) -> None:
    """pandas would give the second of two columns of one name another name."""
    if twins := names[names.duplicated() & names.notna()].unique().tolist():
        raise PredictionsError(f"expected one column of each name, found two of {_few(twins)}")


def _spread(arrays: dict[str, NDArray]) -> pd.DataFrame:
    columns, names = {}, arrays.pop("classes", None)
    for name, values in arrays.items():
        prefix = {"probabilities": "prob_", "logits": "logit_"}.get(name)
        if values.ndim != (2 if prefix else 1):
            expected = "(N, K)" if prefix else "(N,)"
            raise PredictionsError(f"array {name}: expected the shape {expected}, found {values.shape}")
        if prefix:
            classes = range(values.shape[1]) if names is None else names
            if len(classes) != values.shape[1]:
                raise PredictionsError(f"{len(classes)} classes are named, {name} has {values.shape[1]} columns")
            columns |= {f"{prefix}{of}": column for of, column in zip(classes, values.T, strict=True)}
        else:
            columns[{"labels": "label", "predictions": "prediction", "groups": "group"}.get(name, name)] = values
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise PredictionsError(f"arrays differ in length: {_few(f'{k} {v:,}' for k, v in lengths.items())}")
    return pd.DataFrame(columns)


def _checked(source: str, table: pd.DataFrame, confidences: tuple[str, ...], group: str, drop: bool) -> Table:
    if table.empty:
        raise PredictionsError(f"there are no rows; {LAYOUT}")
    of_class = {prefix: [name for name in table if name.startswith(prefix)] for prefix in ("prob_", "logit_")}
    if all(of_class.values()):
        raise PredictionsError("found columns prob_... and logit_...: keep one kind")
    prefix, outputs = next(((p, names) for p, names in of_class.items() if names), ("", []))
    group = group or ("group" if "group" in table else "")
    for name in (*confidences, *filter(None, [group])):
        if name not in table:
            raise PredictionsError(f"there is no column {name!r}; found {_few(table)}")
    others = [name for name in table if name not in {"correct", "label", "prediction", group, *outputs}]
    own = list(confidences) or [name for name in others if _is_numeric(table[name]) and not _numbers_rows(table[name])]
    by_label = "label" in table and ("prediction" in table or bool(outputs))
    if not (by_label or "correct" in table) or not (own or (by_label and outputs)):
        raise PredictionsError(f"{LAYOUT}; found {_few(table)}")

    used = [name for name in table if name in {"correct", "label", "prediction", group, *outputs, *own}]
    rows = _whole(table[used].assign(**{name: _numbers(table[name]) for name in (*outputs, *own)}), drop)
    found = Table(
        source, np.empty(0, bool), {_apart(name): rows[name].to_numpy() for name in own},
        group=rows[group].astype(str).to_numpy() if group else None,
        unused=tuple(name for name in table if name not in used), dropped=len(table) - len(rows),
    )  # fmt: skip
    if not by_label:
        return replace(found, correct=_correct(rows["correct"]).to_numpy())
    texts = {name: _texts(rows[name]) for name in ("label", "prediction") if name in rows}
    if outputs:
        classes = [name.removeprefix(prefix) for name in outputs]
        logits = _log_probabilities(rows[outputs]) if prefix == "prob_" else _finite(rows[outputs]).to_numpy()
        predicted = logits.argmax(1)
        if "prediction" in rows:  # where two classes are the highest it says which
            predicted = _places(texts["prediction"], classes)
            lower = pd.Series(logits[np.arange(len(rows)), predicted] < logits.max(1), rows.index)
            if lower.any():
                raise PredictionsError(f"column prediction names another class than the highest {_where(lower)}")
    else:
        classes, logits = sorted({*texts["label"], *texts["prediction"]}), None
        predicted = _places(texts["prediction"], classes)
    if len(classes) < 2:
        raise PredictionsError(f"expected two classes or more, found {_few(classes)}")
    label = _places(texts["label"], classes)
    if "correct" in rows and (differing := _correct(rows["correct"]) != (label == predicted)).any():
        raise PredictionsError(f"column correct says otherwise than label and prediction {_where(differing)}")
    return replace(
        found, correct=label == predicted, logits=logits, probabilities=prefix == "prob_", label=label,
        predicted=predicted, classes=tuple(classes),
    )  # fmt: skip


def _apart(name: str) -> str:
    """A column's name, told apart from that of a score that is computed here."""
    return f"{name} (column)" if name in LABELS else name


def _numbers_rows(column: pd.Series) -> bool:
    """Whether a column is the number of the row, as pandas writes it unless it is told not to."""
    if str(column.name).startswith("Unnamed: "):
        return True
    numbers, row = pd.to_numeric(column, errors="coerce"), np.arange(len(column))
    return len(column) > 2 and any((numbers == row + first).all() for first in (0, 1))


def _is_numeric(column: pd.Series) -> bool:
    """Whether a column is one of numbers, though some of its rows may hold something else."""
    return pd.api.types.is_numeric_dtype(column) or pd.to_numeric(column, errors="coerce").notna().mean() > 0.5


def _numbers(column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(np.float64)
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        raise PredictionsError(
            f"column {column.name}: expected numbers, found {_few(column[wrong].unique())} {_where(wrong)}"
        )
    return numbers


def _whole(table: pd.DataFrame, drop: bool) -> pd.DataFrame:
    """The rows in which nothing is missing."""
    missing = table.isna()
    incomplete = missing.any(axis=1)
    if incomplete.any() and not drop:
        raise PredictionsError(
            f"something is missing (NaN, or an empty cell) {_where(incomplete)}, of the columns "
            f"{_few(missing.columns[missing.any()])}: mend the file, or leave these rows out (--drop, drop=True)"
        )
    if incomplete.all():
        raise PredictionsError("something is missing in every row")
    return table[~incomplete]


def _correct(column: pd.Series) -> pd.Series:
    texts = column.astype(str).str.strip().str.lower()
    known = texts.map(TEXTS)
    if known.isna().any():
        raise PredictionsError(
            f"column correct: expected 0 and 1, or true and false, found {_few(texts[known.isna()].unique())} "
            f"{_where(known.isna())}"
        )
    return known.astype(bool)


def _texts(column: pd.Series) -> pd.Series:
    """Labels as text; whole numbers read the same whether their column held a gap or not: "3", not "3.0"."""
    if pd.api.types.is_float_dtype(column) and (column == column.round()).all() and column.abs().max() < 2**53:
        column = column.astype(np.int64)
    return column.astype(str)


def _places(texts: pd.Series, classes: Sequence[str]) -> NDArray[np.int64]:
    place = texts.map({of: i for i, of in enumerate(classes)})
    if place.isna().any():
        raise PredictionsError(
            f"column {texts.name}: expected one of the classes, {_few(classes)}; found "
            f"{_few(texts[place.isna()].unique())} {_where(place.isna())}"
        )
    return place.to_numpy(np.int64)


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    infinite = np.isinf(table).any(axis=1)
    if infinite.any():
        raise PredictionsError(f"expected finite logits, found infinite ones {_where(infinite)}")
    return table


def _log_probabilities(table: pd.DataFrame) -> NDArray[np.float64]:
    total = table.sum(axis=1)
    off = (table.min(axis=1) < 0) | ((total - 1).abs() > SUM_TOLERANCE)
    if off.any():
        raise PredictionsError(
            f"expected probabilities that are not negative and sum to one within {SUM_TOLERANCE:g}, found others "
            f"{_where(off)}; the first sums to {total[off].iloc[0]:.4g}. Logits belong into columns logit_CLASS"
        )
    p = table.to_numpy() / total.to_numpy()[:, None]
    return np.log(np.maximum(p, np.finfo(np.float64).tiny))


def _where(rows: pd.Series) -> str:
    """Which rows, by their numbers."""
    numbers = rows.index[rows]
    text = ", ".join(f"{number:,}" for number in numbers[:SHOWN]) + (", ..." if len(numbers) > SHOWN else "")
    return f"in {len(numbers):,} of {counted(len(rows), 'row')} (number{'s' * (len(numbers) > 1)} {text})"


def counted(n: int, what: str) -> str:
    """
    >>> counted(1, "prediction"), counted(1200, "prediction")
    ('1 prediction', '1,200 predictions')
    """
    return f"{n:,} {what}{'s' * (n != 1)}"


def _few(names: Iterable) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[: 2 * SHOWN]) + (f" and {len(names) - 2 * SHOWN:,} more" if len(names) > 2 * SHOWN else "")
