"""Your own predictions, from a file or a DataFrame: confidences, and which predictions were correct.

One row per prediction, in a CSV (whatever separates its columns), JSON lines, Parquet, or the arrays of an .npz or
.safetensors. It holds one of two things:

- ``correct`` (0 or 1, or true and false), and a column of numbers for each confidence, higher = more to be trusted;
  ``label`` and ``prediction`` may stand in place of ``correct``.
- ``label``, and for every class a column ``prob_CLASS``, or ``logit_CLASS``; as arrays ``labels`` (N,) and
  ``probabilities`` or ``logits`` (N, K), with the names of the classes in ``classes`` (K,) where they are not 0 to
  K - 1. Further columns of numbers are confidences too. Of two classes one probability is enough.

Either may have a column ``group``: a site, a domain, a device; and a column ``cluster``: a patient or a video, whose
rows depend on each other. Ids, codes, counts, times and constants are no confidences unless they are named as such.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import columns, files
from .files import PredictionsError, counted, few, where

if TYPE_CHECKING:
    from ..study import Study  # takes pydantic and YAML, for which a missing file need not wait

SUM_TOLERANCE = 1e-3  # of the probabilities of one row: those of half precision pass
MOST = 0.25  # by which rounding may move their sum, however many classes
TEXTS = dict.fromkeys(("true", "1", "1.0", "yes", "correct"), True)
TEXTS |= dict.fromkeys(("false", "0", "0.0", "no", "incorrect", "wrong"), False)
LAYOUT = (
    "expected a column correct (0 or 1) and one or more columns of confidences, or a column label and a column "
    "prob_CLASS or logit_CLASS for every class (python -m trustlib evaluate --help says more)"
)


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
    cluster : names (N,), or None; rows of one cluster depend on each other
    rows : names (N,) of the rows, from a column of ids, or None
    notes : sentences: what each column was taken for, what was rescaled, what was set aside and why
    steps : confidence -> what was done to the numbers of its column, see `columns.redone`
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
    steps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.correct)


def read(
    path: Path | str, *, confidences: Sequence[str] = (), group: str = "", cluster: str = "", drop: bool = False,
    decimal: str = "",
) -> Table:  # fmt: skip
    """Read a file of predictions and check it.

    Parameters
    ----------
    confidences : which columns are; by default the columns of numbers that are nothing else.
    group, cluster : the columns of these; by default ``group`` and ``cluster``, where there are such.
    drop : leave rows out in which something is missing, and count them, in place of an error.
    decimal : what separates decimals, "." or ","; by default it is told from the numbers.

    Raises
    ------
    PredictionsError : when the file is missing or is not what its ending says; a column is missing (with those that
        are there), has other lengths or values than expected; no column is a confidence; something is missing in a row
        (with how many and which); probabilities do not sum to one; labels and predictions or classes share no name.
    """
    path = Path(path)
    try:
        frame, notes, shapes = files.table(path, decimal=decimal)
        return _checked(
            path.name, frame, notes, shapes, confidences, {"group": group, "cluster": cluster}, drop, decimal
        )
    except PredictionsError as error:
        raise PredictionsError(f"{path}: {error}") from None


def from_frame(
    frame: pd.DataFrame | Mapping[str, object], *, source: str = "the table", confidences: Sequence[str] = (),
    group: str = "", cluster: str = "", drop: bool = False, decimal: str = "",
) -> Table:  # fmt: skip
    """The same of a DataFrame (pandas, or another's with `to_pandas`), or of arrays, lists or tensors by name.

    Parameters and errors are those of `read`; arrays are named as in an .npz.
    """
    frame = frame.to_pandas() if hasattr(frame, "to_pandas") else frame
    if isinstance(frame, pd.DataFrame):
        table, shapes = files.of_frame(frame), {}
    else:
        table, shapes = files.of_arrays(frame)
    return _checked(source, table, [], shapes, confidences, {"group": group, "cluster": cluster}, drop, decimal)


def of_study(study: "Study", log: Callable[[str], None] = print) -> Table:
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


def _checked(
    source: str, table: pd.DataFrame, notes: list[str], unused: dict[str, str], wanted: Sequence[str],
    named: dict[str, str], drop: bool, decimal: str,
) -> Table:  # fmt: skip
    """The columns' roles, then the rows in which nothing is missing, then what these say.

    notes : sentences, which the functions below add to
    unused : column -> why it is no confidence; these add to it
    """
    if table.empty:
        raise PredictionsError(f"there are no rows; {LAYOUT}")
    table = table.set_axis(range(1, len(table) + 1), axis=0)
    wanted = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    named = {what: name for what, name in named.items() if name}
    for name in (*wanted, *named.values()):
        if name not in table:
            raise PredictionsError(f"there is no column {name!r}; found {few(table)}")
    role = columns.roles(table, wanted) | named
    text = {what: columns.texts(table[name]) for what, name in role.items()}
    others = [name for name in table if name in wanted or name not in role.values()]
    kind, of_class = columns.outputs_of(others, wanted, text.get("label"))
    free = [name for name in others if name in wanted or name not in of_class]
    own, steps = columns.confidences(table, free, wanted, decimal, notes, unused)
    if of_class:
        columns.name_places(text, list(of_class.values()), notes)
    else:
        columns.take_predicted(own, steps, wanted, text, notes, unused)
    own = {name: own[name] for name in wanted or own if name not in unused}
    outputs = {name: columns.numbers(table[name], decimal, True)[0] for name in of_class}
    by_label = "label" in text and ("prediction" in text or bool(outputs))
    if not (by_label or "correct" in text):
        raise PredictionsError(f"{LAYOUT}; found {few(table)}")
    if not (own or outputs):
        reasons = few(f"{name}: {why}" for name, why in unused.items()) or f"found {few(table)}"
        raise PredictionsError(f"no column is a confidence ({reasons}); name one if it is (--confidence COLUMN)")

    text = {what: column for what, column in text.items() if by_label or what not in ("label", "prediction")}
    kept = _whole({role.get(what, what): column for what, column in text.items()} | own | outputs, drop)
    text = {what: column[kept] for what, column in text.items()}
    ids = _ids(table, unused)
    fields: dict[str, Any] = {what: text[what].to_numpy(str) for what in ("group", "cluster") if what in text}
    if by_label:
        rows = pd.DataFrame(outputs)[kept] if outputs else None
        fields |= _classified(text, rows, list(of_class.values()), kind, notes)
    else:
        fields["correct"] = _correct(text["correct"]).to_numpy(bool)
    used = {role[what] for what in text if what in role} | own.keys() | outputs.keys() | {ids}
    called = {name: _apart(name) + columns.OF_PREDICTED * bool({*steps[name]} - {columns.PER_CENT}) for name in own}
    notes[:0] = _described(table, {what: role[what] for what in text if what in role}, own, of_class, ids, unused)
    return Table(
        source, confidences={called[name]: column[kept].to_numpy() for name, column in own.items()},
        steps={called[name]: tuple(steps[name]) for name in own},
        rows=columns.texts(table[ids])[kept].to_numpy() if ids else None, dropped=int((~kept).sum()),
        unused=tuple(name for name in dict.fromkeys((*table, *unused)) if name not in used), notes=tuple(notes),
        **fields,
    )  # fmt: skip


def _classified(
    text: dict[str, pd.Series], rows: pd.DataFrame | None, classes: list[str], kind: str, notes: list[str]
) -> dict[str, object]:
    """The fields of a `Table` that labels, predictions and the outputs of all classes determine."""
    logits = None
    if rows is not None:
        logits = _log_probabilities(rows, notes) if kind == "prob" else _finite(rows).to_numpy()
        predicted = logits.argmax(1)
        if "prediction" in text:  # where two classes are the highest it says which
            predicted = _places(text["prediction"], classes)
            lower = pd.Series(logits[np.arange(len(rows)), predicted] < logits.max(1), rows.index)
            if lower.any():
                raise PredictionsError(f"column prediction names another class than the highest {where(lower)}")
    else:
        labels, predictions = set(text["label"]), set(text["prediction"])
        if not labels & predictions:
            raise PredictionsError(
                f"labels and predictions share no value: found the labels {few(sorted(labels))} and the predictions "
                f"{few(sorted(predictions))}; write both in the same words"
            )
        classes = sorted(labels | predictions, key=lambda name: (int(name) if name.isdecimal() else np.inf, name))
        predicted = _places(text["prediction"], classes)
    if len(classes) < 2:
        raise PredictionsError(f"expected two classes or more, found {few(classes)}")
    label = _places(text["label"], classes)
    if "correct" in text and (differing := _correct(text["correct"]) != (label == predicted)).any():
        raise PredictionsError(f"column correct says otherwise than label and prediction {where(differing)}")
    return {
        "correct": label == predicted, "logits": logits, "probabilities": kind == "prob", "label": label,
        "predicted": predicted, "classes": tuple(classes),
    }  # fmt: skip


def _ids(table: pd.DataFrame, unused: Mapping[str, str]) -> str:
    """The column by which rows can be named: ids, or text, of which no two are the same."""
    named = [name for name in unused if set(columns.words_of(name)) & columns.IDS] + [
        name for name in unused if unused[name] == "text"
    ]
    return next((name for name in named if name in table and table[name].notna().all() and table[name].is_unique), "")


def _described(
    table: pd.DataFrame, role: dict[str, str], own: Mapping, of_class: Mapping, ids: str, unused: Mapping[str, str]
) -> list[str]:
    """What each column was taken for."""
    said = [f"Read as the {what}: {name}." for what, name in role.items() if what in ("label", "prediction")]
    said += [f"Read as correct or not: {role['correct']}."] if "correct" in role else []
    said += [f"Read as outputs of {len(of_class):,} classes: {few(of_class)}."] if of_class else []
    said += [f"Read as confidences: {few(own)}."] if own else []
    said += [f"Read as the {what}: {role[what]}." for what in ("group", "cluster") if what in role]
    said += [f"Rows are named by {ids}."] if ids else []
    reasons = {}
    for name, why in unused.items():
        if name != ids:
            reasons.setdefault(why, []).append(name)
    said += [f"Not used as a confidence: {few(names)} ({why})." for why, names in reasons.items()]
    for name in [
        name
        for name in unused
        if set(columns.words_of(name)) & columns.UNITS and name in table and "cluster" not in role
    ]:
        if 1 < (units := table[name].nunique()) < len(table):
            said.append(
                f"{name} has {units:,} values in {counted(len(table), 'row')}: if rows of one depend on each other, "
                "name it as the cluster."
            )
    return said


def _apart(name: str) -> str:
    """A column's name, told apart from that of a score that is computed here."""
    from ..confidence import SCORES  # here, since SciPy takes a while to import

    return f"{name} (column)" if name in {score.label for score in SCORES.values()} else name


def _whole(columns: Mapping[str, pd.Series], drop: bool) -> pd.Series:
    """Which rows to keep: those in which nothing is missing."""
    missing = pd.DataFrame({name: column.isna() for name, column in columns.items()})
    incomplete = missing.any(axis=1)
    if incomplete.any() and not drop:
        raise PredictionsError(
            f"something is missing (NaN, or an empty cell) {where(incomplete)}, of the columns "
            f"{few(missing.columns[missing.any()])}: mend the file, or leave these rows out (--drop, drop=True)"
        )
    if incomplete.all():
        raise PredictionsError("something is missing in every row")
    return ~incomplete


def _correct(texts: pd.Series) -> pd.Series:
    known = texts.str.lower().map(TEXTS)
    if known.isna().any():
        raise PredictionsError(
            f"column correct: expected 0 and 1, or true and false, found {few(texts[known.isna()].unique())} "
            f"{where(known.isna())}"
        )
    return known.astype(bool)


def _places(texts: pd.Series, classes: Sequence[str]) -> NDArray[np.int64]:
    place = texts.map({of: i for i, of in enumerate(classes)})
    if place.isna().any():
        raise PredictionsError(
            f"column {texts.name}: expected one of the classes, {few(classes)}; found "
            f"{few(texts[place.isna()].unique())} {where(place.isna())}"
        )
    return place.to_numpy(np.int64)


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    infinite = np.isinf(table).any(axis=1)
    if infinite.any():
        raise PredictionsError(f"expected finite logits, found infinite ones {where(infinite)}")
    return table


def _log_probabilities(table: pd.DataFrame, notes: list[str]) -> NDArray[np.float64]:
    """The logarithms of probabilities that sum to one, or to 100 per cent, as far as they were rounded."""
    p, total = table.to_numpy(), table.sum(axis=1)
    if total.median() > 50:
        p, total = p / 100, total / 100
        notes.append("Probabilities are in per cent: they were divided by 100.")
    far = (total - 1).abs()
    rounding = 0.0 if (far <= SUM_TOLERANCE).all() else _rounding(p)
    off = (table.min(axis=1) < 0) | ~(far <= max(SUM_TOLERANCE, rounding))
    if off.any():
        raise PredictionsError(
            f"expected probabilities that are not negative and sum to one within "
            f"{max(SUM_TOLERANCE, rounding):g}, found others {where(off)}; the first sums to "
            f"{total[off].iloc[0]:.4g}. Logits belong into columns logit_CLASS"
        )
    if rounding:
        notes.append(
            f"Probabilities sum to {total.min():.4g} ... {total.max():.4g} as rounded ones: they were rescaled."
        )
    return np.log(np.maximum(p / total.to_numpy()[:, None], np.finfo(np.float64).tiny))


def _rounding(p: NDArray) -> float:
    """By how much rounding to the digits that the probabilities have may move a row's sum."""
    with np.errstate(all="ignore"):
        for digits in range(1, 6):
            if (np.abs(p * 10**digits - np.round(p * 10**digits)) < 1e-6).all():
                return min(MOST, 0.5 * 10.0**-digits * p.shape[1])
        single = p.astype(np.float32)
        is_bfloat16 = not (single.view(np.uint32) & 0xFFFF).any() and np.allclose(single, p, rtol=1e-7, atol=0)
    return 2.0**-7 if is_bfloat16 else 0.0
