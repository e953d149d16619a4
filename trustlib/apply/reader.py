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

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from . import files
from .files import SHOWN, PredictionsError, few

if TYPE_CHECKING:
    from ..study import Study  # takes pydantic and YAML, for which a missing file need not wait

SUM_TOLERANCE = 1e-3  # of the probabilities of one row: those of half precision pass
MOST = 0.25  # by which rounding may move their sum, however many classes
SLACK = 1e-5  # beyond 0 and 1: float32
TEXTS = dict.fromkeys(("true", "1", "1.0", "yes", "correct"), True)
TEXTS |= dict.fromkeys(("false", "0", "0.0", "no", "incorrect", "wrong"), False)
GAPS = ("nan", "na", "n/a", "null", "none", "<na>")  # in a column of numbers; elsewhere these are names
# words in the names of columns
PROBABLE = {"prob", "proba", "probability", "score", "sigmoid"}  # of one class of two, maybe
PERCENT = {"prob", "proba", "probability", "confidence", "conf", "certainty", "percent", "pct"}
CONFIDENT = PROBABLE | PERCENT | {"scores", "trust", "margin", "msp", "mcp", "energy", "logit", "softmax", "max"}
INVERSE = {"uncertainty", "entropy", "variance", "std", "loss", "error", "nll", "perplexity", "distance"}
IDS = {"id", "ids", "idx", "index", "no", "nr", "number", "name", "file", "filename", "path", "image", "key", "uuid"}
UNITS = {"patient", "subject", "video", "case", "study", "person", "user", "session", "participant", "slide", "scan"}
MEASURED = {"time", "timestamp", "date", "seconds", "sec", "ms", "latency", "duration", "age", "size", "width"}
MEASURED |= {"height", "area", "iou", "x", "y", "w", "h", "xmin", "xmax", "ymin", "ymax", "lat", "lon", "code"}
SUMMARIES = {"max", "min", "mean", "margin", "entropy", "gap", "norm", "pred", "predicted", "std"}  # prob_max: no class
POSITIVE = ("1", "True", "true", "yes")  # of two classes the one that a probability is of
ONE_CLASS = "the probability of one class"
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
    role = _roles(table, wanted) | named
    text = {what: _texts(table[name]) for what, name in role.items()}
    others = [name for name in table if name in wanted or name not in role.values()]
    kind, of_class = _outputs(others, wanted, text.get("label"))
    own = _confidences(table, [name for name in others if name not in of_class], wanted, decimal, notes, unused)
    if of_class:
        _name_places(text, list(of_class.values()), notes)
    else:
        _take_predicted(own, wanted, text, notes, unused)
    own = {name: own[name] for name in wanted or own if name not in unused}
    outputs = {name: _numbers(table[name], decimal, True)[0] for name in of_class}
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
    notes[:0] = _described(table, {what: role[what] for what in text if what in role}, own, of_class, ids, unused)
    return Table(
        source, confidences={_apart(name): column[kept].to_numpy() for name, column in own.items()},
        rows=_texts(table[ids])[kept].to_numpy(str) if ids else None, dropped=int((~kept).sum()),
        unused=tuple(name for name in dict.fromkeys((*table, *unused)) if name not in used), notes=tuple(notes),
        **fields,
    )  # fmt: skip


def _roles(table: pd.DataFrame, wanted: tuple[str, ...]) -> dict[str, str]:
    """What a column is (`files.ROLES`) -> its name; of several the one that goes by just that name."""
    named = {}
    for name in table:
        if (what := files.role_of(name)) and name not in wanted:
            named.setdefault(what, []).append(name)
    if len(named.get("label", ())) > 1 and "prediction" not in named:
        raise PredictionsError(f"found {few(named['label'])}: call the true class label, the classifier's prediction")
    return {what: min(names, key=lambda name: name != what) for what, names in named.items()}


def _outputs(names: list[str], wanted: tuple[str, ...], label: pd.Series | None) -> tuple[str, dict[str, str]]:
    """("prob" or "logit", column -> its class); nothing without labels, or of one column alone."""
    known, found = set() if label is None else set(label.dropna()), {}
    for name in names if known else ():
        kind, of = _class_of(name)
        if kind and (of in known or (name not in wanted and of not in SUMMARIES)):
            found.setdefault(kind, {})[name] = of
    if len(found) > 1:
        raise PredictionsError("found columns prob_... and logit_...: keep one kind")
    bare = {name: name for name in names if name in known or (name.isdigit() and name not in wanted)}
    if known and not found and known <= bare.keys():  # as a table of predict_proba has them
        found["prob"] = bare
    return next(((kind, of_class) for kind, of_class in found.items() if len(of_class) > 1), ("", {}))


def _class_of(name: str) -> tuple[str, str]:
    """
    >>> _class_of("prob_cat"), _class_of("Logits_3"), _class_of("margin")
    (('prob', 'cat'), ('logit', '3'), ('', ''))
    """
    match = re.fullmatch(r"(prob|logit)(?:ability|a|s)?_(.+)", name, re.IGNORECASE)
    return (match[1].lower(), match[2].strip()) if match else ("", "")


def _confidences(
    table: pd.DataFrame, names: list[str], wanted: tuple[str, ...], decimal: str, notes: list[str],
    unused: dict[str, str],
) -> dict[str, pd.Series]:  # fmt: skip
    """Column -> its numbers, first those that are called as confidences are; what may be none is in `unused` too."""
    own = {}
    for name in sorted(names, key=lambda name: not _sounds(name)):
        if wanted and name not in wanted:
            unused[name] = "not named as a confidence"
            continue
        values, per_cent = _numbers(table[name], decimal, name in wanted or _sounds(name))
        why = "" if name in wanted else "text" if values is None else _why_not(name, values)
        unused |= {name: why} if why else {}
        if why in ("", ONE_CLASS):
            own[name], said = _scaled(name, values, per_cent)
            notes += [said] if said else []
    return own


def _words(name: str) -> list[str]:
    """
    >>> _words("patientID_2"), _words("max prob")
    (['patient', 'id'], ['max', 'prob'])
    """
    return re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())


def _sounds(name: str) -> bool:
    """Whether a column is called as confidences are."""
    words = _words(name)
    return bool(CONFIDENT & set(words)) and words[-1] not in IDS | UNITS | MEASURED | INVERSE


def _why_not(name: str, values: pd.Series) -> str:
    """Why a column of numbers is no confidence unless it is named as one; empty where it may be."""
    words, values = _words(name), values.dropna()
    reasons = {
        "the number of the row": not words or words[0] == "unnamed",
        "an id, by its name": words[-1:] and words[-1] in IDS | UNITS,
        "a measurement or a time, by its name": words[-1:] and words[-1] in MEASURED,
        "by its name higher where the classifier is less sure": set(words) & INVERSE
        and not set(words) & {"neg", "negative", "minus"},
        "constant": len(values) > 2 and values.min() == values.max(),
        "whole numbers, as ids, codes and counts are": not _sounds(name) and (values == values.round()).all(),
        "as large as ids and times are": 1e8 < values.abs().max() < np.inf,
        ONE_CLASS: _class_of(name)[0] and _class_of(name)[1] not in SUMMARIES,
    }
    return next((why for why, holds in reasons.items() if holds), "")


def _scaled(name: str, values: pd.Series, per_cent: bool) -> tuple[pd.Series, str]:
    """Per cents as fractions, and what rounding moved beyond 0 and 1 moved back; and a sentence where either was."""
    low, high = float(values.min()), float(values.max())
    if per_cent or (PERCENT & set(_words(name)) and low >= 0 and 50 < high <= 100 * (1 + SLACK)):
        return (values / 100).clip(0, 1), f"{name} is in per cent: it was divided by 100."
    if min(low, 0) >= -SLACK and max(high, 1) <= 1 + SLACK and (low < 0 or high > 1):
        return values.clip(0, 1), f"{name} runs from {low!r} to {high!r}, which rounding makes of 0 and 1."
    return values, ""


def _take_predicted(
    own: dict[str, pd.Series], wanted: tuple[str, ...], text: dict[str, pd.Series], notes: list[str],
    unused: dict[str, str],
) -> None:  # fmt: skip
    """Of two classes: a column that says how likely one is comes to say how likely the predicted one is.

    It is told from a confidence by the predictions, which are of one class above some value (0.5, or 0 of a score) and
    of the other below. Without predictions these are made of the only probability.
    """
    known = {value for what in ("label", "prediction") if what in text for value in text[what].dropna()}
    if len(known) != 2:
        return
    if not {"prediction", "correct"} & text.keys():
        positive = {
            name: next((of for of in (_class_of(name)[1], *POSITIVE) if of in known), "")
            for name, values in own.items()
            if values.dropna().between(0, 1).all() and values.min() < 0.5 and set(_words(name)) & PROBABLE
        }
        if len(positive) == 1 and "" not in positive.values():
            ((name, of),) = positive.items()
            text["prediction"] = pd.Series(np.where(own[name] > 0.5, of, *(known - {of})), own[name].index)
            notes.append(f"There is no column prediction: it is taken to be {of} where {name} is above 0.5.")
    for name in [name for name in own if name not in wanted and "prediction" in text]:
        values, said = _of_predicted(name, own[name], text["prediction"])
        if said:
            own[name] = values
            notes.append(said)
            unused.pop(name, None)


def _of_predicted(name: str, values: pd.Series, predicted: pd.Series) -> tuple[pd.Series, str]:
    """What one class's probability or score says of the predicted one, and a sentence; neither of anything else."""
    by = values.groupby(predicted).agg(["min", "max", "mean"]).sort_values("mean")
    if len(by) != 2:
        return values, ""
    of, (low, below), (above, high) = by.index[1], by.iloc[0, :2], by.iloc[1, :2]
    is_fraction = low >= 0 and max(below, high) <= 1
    middle = 0.5 if is_fraction else 0
    at_middle = below <= middle <= above
    many = len(values) >= 20  # so that they are not apart by chance
    if low < middle and ((many and (at_middle or (is_fraction and below < above))) or (at_middle and _sounds(name))):
        said = f"{name} tells the classes apart, as a probability or score of {of} does: the confidence is "
        if is_fraction:
            return values.where(predicted == of, 1 - values), f"{said}p where {of} is predicted, 1 - p elsewhere."
        return values.abs(), f"{said}its size."
    return values, ""


def _name_places(text: dict[str, pd.Series], classes: list[str], notes: list[str]) -> None:
    """Whole numbers as labels of classes that have other names are places among these, counted from 0."""
    known, place = set(text["label"].dropna()), {str(i): of for i, of in enumerate(classes)}
    if known & set(classes):
        return
    if not known <= place.keys():
        raise PredictionsError(
            f"labels and classes share no name: found the labels {few(sorted(known))} and the classes {few(classes)}"
        )
    for what in ("label", "prediction"):
        if what in text and set(text[what].dropna()) <= place.keys():
            text[what] = text[what].map(place)
    notes.append(f"Labels are places, counted from 0, among the classes {few(classes)}.")


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
                raise PredictionsError(f"column prediction names another class than the highest {_where(lower)}")
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
        raise PredictionsError(f"column correct says otherwise than label and prediction {_where(differing)}")
    return {
        "correct": label == predicted, "logits": logits, "probabilities": kind == "prob", "label": label,
        "predicted": predicted, "classes": tuple(classes),
    }  # fmt: skip


def _ids(table: pd.DataFrame, unused: Mapping[str, str]) -> str:
    """The column by which rows can be named: ids, or text, of which no two are the same."""
    named = [name for name in unused if set(_words(name)) & IDS] + [name for name in unused if unused[name] == "text"]
    return next((name for name in named if table[name].notna().all() and table[name].is_unique), "")


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
    for name in [name for name in unused if set(_words(name)) & UNITS and name in table and "cluster" not in role]:
        if 1 < (units := table[name].nunique()) < len(table):
            said.append(f"{name} has {units:,} values: if its rows depend on each other, name it as the cluster.")
    return said


def _apart(name: str) -> str:
    """A column's name, told apart from that of a score that is computed here."""
    from ..confidence import SCORES  # here, since SciPy takes a while to import

    return f"{name} (column)" if name in {score.label for score in SCORES.values()} else name


def _numbers(column: pd.Series, decimal: str, must: bool) -> tuple[pd.Series | None, bool]:
    """(float64, whether they are in per cent); None of text that need not be numbers, an error of text that must."""
    if pd.api.types.is_numeric_dtype(column) and column.dtype.kind != "c":
        return pd.Series(column.to_numpy(np.float64, na_value=np.nan), column.index, name=column.name), False
    texts = column.dropna().astype(str).str.strip()
    texts = texts[~texts.str.lower().isin(GAPS)]
    commas = texts[texts.str.contains(",", regex=False)]
    thousands = len(commas) and commas.str.fullmatch(r"[1-9]\d{0,2}(,\d{3})+").all()  # maybe
    if decimal == "," or not (decimal or thousands or texts.str.contains(".", regex=False).any()):
        texts = texts.str.replace(",", ".")
    per_cent = texts.str.endswith("%")
    numbers = pd.to_numeric(texts.str.removesuffix("%"), errors="coerce").astype(np.float64)
    wrong = (numbers.isna() | (per_cent != per_cent.any())).reindex(column.index, fill_value=False)
    if not must and wrong.sum() * 2 > len(texts):
        return None, False
    if wrong.any():
        raise PredictionsError(
            f"column {column.name}: expected numbers, found {few(column[wrong].unique())} {_where(wrong)}"
        )
    return numbers.reindex(column.index), bool(per_cent.any())


def _whole(columns: Mapping[str, pd.Series], drop: bool) -> pd.Series:
    """Which rows to keep: those in which nothing is missing."""
    missing = pd.DataFrame({name: column.isna() for name, column in columns.items()})
    incomplete = missing.any(axis=1)
    if incomplete.any() and not drop:
        raise PredictionsError(
            f"something is missing (NaN, or an empty cell) {_where(incomplete)}, of the columns "
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
            f"{_where(known.isna())}"
        )
    return known.astype(bool)


def _texts(column: pd.Series) -> pd.Series:
    """Names as text, NaN where there is none; whole numbers read the same with and without a gap: "3", not "3.0"."""
    codes, values = pd.factorize(column)
    names = [str(value).strip() for value in values]
    if all(re.fullmatch(r"-?\d+\.0+", name) for name in names):
        names = [name.partition(".")[0] for name in names]
    return pd.Series(np.array([*names, np.nan], object)[codes], column.index, name=column.name)


def _places(texts: pd.Series, classes: Sequence[str]) -> NDArray[np.int64]:
    place = texts.map({of: i for i, of in enumerate(classes)})
    if place.isna().any():
        raise PredictionsError(
            f"column {texts.name}: expected one of the classes, {few(classes)}; found "
            f"{few(texts[place.isna()].unique())} {_where(place.isna())}"
        )
    return place.to_numpy(np.int64)


def _finite(table: pd.DataFrame) -> pd.DataFrame:
    infinite = np.isinf(table).any(axis=1)
    if infinite.any():
        raise PredictionsError(f"expected finite logits, found infinite ones {_where(infinite)}")
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
            f"{max(SUM_TOLERANCE, rounding):g}, found others {_where(off)}; the first sums to "
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
