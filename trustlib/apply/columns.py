"""What each column of a table of predictions is taken for, by its name and by what it holds.

A column of numbers is a confidence unless its name or its values speak against it: ids, codes, counts, times, constants
and the probability of one class are none, unless they are named as such.
"""

import re

import numpy as np
import pandas as pd

from .files import SAMPLE, PredictionsError, few, role_of, where

SLACK = 1e-5  # beyond 0 and 1: float32
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
PER_CENT, SIZE, OF = "per cent", "size", "probability of "  # what is done to a column's numbers, see `redone`
OF_PREDICTED = " of the predicted class"  # added to the name of a column of which the confidence is made


def roles(table: pd.DataFrame, wanted: tuple[str, ...]) -> dict[str, str]:
    """What a column is (`files.ROLES`) -> its name; of several the one that goes by just that name."""
    named = {}
    for name in table:
        if (what := role_of(name)) and name not in wanted:
            named.setdefault(what, []).append(name)
    if len(named.get("label", ())) > 1 and "prediction" not in named:
        raise PredictionsError(f"found {few(named['label'])}: call the true class label, the classifier's prediction")
    return {what: min(names, key=lambda name: name != what) for what, names in named.items()}


def outputs_of(names: list[str], wanted: tuple[str, ...], label: pd.Series | None) -> tuple[str, dict[str, str]]:
    """("prob" or "logit", column -> its class); nothing without labels, or of one column alone."""
    known, found = set() if label is None else set(label.dropna()), {}
    for name in names if known else ():
        kind, of = class_of(name)
        if kind and (of in known or (name not in wanted and of not in SUMMARIES)):
            found.setdefault(kind, {})[name] = of
    if len(found) > 1:
        raise PredictionsError("found columns prob_... and logit_...: keep one kind")
    bare = {name: name for name in names if name in known or (name.isdigit() and name not in wanted)}
    if known and not found and known <= bare.keys():  # as a table of predict_proba has them
        found["prob"] = bare
    return next(((kind, of_class) for kind, of_class in found.items() if len(of_class) > 1), ("", {}))


def class_of(name: str) -> tuple[str, str]:
    """
    >>> class_of("prob_cat"), class_of("Logits_3"), class_of("margin")
    (('prob', 'cat'), ('logit', '3'), ('', ''))
    """
    match = re.fullmatch(r"(prob|logit)(?:ability|a|s)?_(.+)", name, re.IGNORECASE)
    return (match[1].lower(), match[2].strip()) if match else ("", "")


def confidences(
    table: pd.DataFrame, names: list[str], wanted: tuple[str, ...], decimal: str, notes: list[str],
    unused: dict[str, str],
) -> tuple[dict[str, pd.Series], dict[str, list[str]]]:  # fmt: skip
    """Column -> its numbers, first those that are called as confidences are; column -> what was done to them, `redone`.

    What may be none is in `unused` too.
    """
    own: dict[str, pd.Series] = {}
    steps: dict[str, list[str]] = {}
    for name in sorted(names, key=lambda name: not _sounds(name)):
        named = name in wanted
        why = "" if named else "not named as a confidence" if wanted else _why_not_by_name(name)
        values = None
        if not why:
            values, per_cent = numbers(table[name], decimal, named or _sounds(name))
            why = "" if named else "text" if values is None else _why_not(name, values)
        unused |= {name: why} if why else {}
        if why in ("", ONE_CLASS):
            own[name], steps[name], said = _scaled(name, values, per_cent)
            notes += [said] if said else []
    return own, steps


def words_of(name: str) -> list[str]:
    """
    >>> words_of("patientID_2"), words_of("max prob")
    (['patient', 'id'], ['max', 'prob'])
    """
    return re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())


def _sounds(name: str) -> bool:
    """Whether a column is called as confidences are."""
    words = words_of(name)
    return bool(CONFIDENT & set(words)) and words[-1] not in IDS | UNITS | MEASURED | INVERSE


def _why_not_by_name(name: str) -> str:
    """Why a column is no confidence, whatever it holds, unless it is named as one; empty where it may be."""
    words = words_of(name)
    if not words or words[0] == "unnamed":
        return "the number of the row"
    if words[-1] in IDS | UNITS:
        return "an id, by its name"
    if set(words) & MEASURED and not _sounds(name):
        return "a measurement or a time, by its name"
    if set(words) & INVERSE and not set(words) & {"neg", "negative", "minus"}:
        return "by its name higher where the classifier is less sure"
    return ""


def _why_not(name: str, values: pd.Series) -> str:
    """Why a column of these numbers is no confidence unless it is named as one; empty where it may be."""
    values = values.dropna()
    if len(values) > 2 and values.min() == values.max():
        return "constant"
    if not _sounds(name) and (values == values.round()).all():
        return "whole numbers, as ids, codes and counts are"
    if 1e8 < values.abs().max() < np.inf:
        return "as large as ids and times are"
    kind, of = class_of(name)
    return ONE_CLASS if kind and of not in SUMMARIES else ""


def _scaled(name: str, values: pd.Series, per_cent: bool) -> tuple[pd.Series, list[str], str]:
    """Per cents as fractions, what rounding moved beyond 0 and 1 moved back; steps and a sentence where either was."""
    low, high = float(values.min()), float(values.max())
    if per_cent or (PERCENT & set(words_of(name)) and low >= 0 and 10 < high <= 100 * (1 + SLACK)):
        return (values / 100).clip(0, 1), [PER_CENT], f"{name} is in per cent: it was divided by 100."
    if min(low, 0) >= -SLACK and max(high, 1) <= 1 + SLACK and (low < 0 or high > 1):
        return values.clip(0, 1), [], f"{name} runs from {low!r} to {high!r}, which rounding makes of 0 and 1."
    return values, [], ""


def take_predicted(
    own: dict[str, pd.Series], steps: dict[str, list[str]], wanted: tuple[str, ...], text: dict[str, pd.Series],
    notes: list[str], unused: dict[str, str],
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
            name: next((of for of in (class_of(name)[1], *POSITIVE) if of in known), "")
            for name, values in own.items()
            if values.dropna().between(0, 1).all() and values.min() < 0.5 and set(words_of(name)) & PROBABLE
        }
        if len(positive) == 1 and "" not in positive.values():
            ((name, of),) = positive.items()
            text["prediction"] = pd.Series(np.where(own[name] > 0.5, of, *(known - {of})), own[name].index)
            notes.append(f"There is no column prediction: it is taken to be {of} where {name} is above 0.5.")
    for name in [name for name in own if name not in wanted and "prediction" in text]:
        step, said = _of_predicted(name, own[name], text["prediction"])
        if said:
            own[name] = redone(own[name], [step], text["prediction"])
            steps[name].append(step)
            notes.append(said)
            unused.pop(name, None)


def redone(values: pd.Series, steps: list[str], predicted: pd.Series | None) -> pd.Series:
    """What was done to the numbers of a column, done to those of another table.

    Parameters
    ----------
    steps : of `PER_CENT`, divided by 100; `SIZE`, the absolute value; `OF` + the class whose probability the column is.
    predicted : the predicted classes; of two classes, where they are not known, the likelier one.
    """
    for step in steps:
        if step == PER_CENT:
            values = (values / 100).clip(0, 1)
        elif step == SIZE:
            values = values.abs()
        else:
            is_of = values > 0.5 if predicted is None else predicted == step.removeprefix(OF)
            values = values.where(is_of, 1 - values)
    return values


def _of_predicted(name: str, values: pd.Series, predicted: pd.Series) -> tuple[str, str]:
    """(step, sentence) where one class's probability or score is to be that of the predicted one, else nothing."""
    by = values.groupby(predicted).agg(["min", "max", "mean"]).sort_values("mean")
    if len(by) != 2:
        return "", ""
    of, (low, below), (above, high) = by.index[1], by.iloc[0, :2], by.iloc[1, :2]
    is_fraction = low >= 0 and max(below, high) <= 1
    middle = 0.5 if is_fraction else 0
    at_middle = below <= middle <= above
    many = len(values) >= 20  # so that they are not apart by chance
    if low < middle and ((many and (at_middle or (is_fraction and below < above))) or (at_middle and _sounds(name))):
        said = f"{name} tells the classes apart, as a probability or score of {of} does: the confidence is "
        if is_fraction:
            return OF + of, f"{said}p where {of} is predicted, 1 - p elsewhere."
        return SIZE, f"{said}its size."
    return "", ""


def name_places(text: dict[str, pd.Series], classes: list[str], notes: list[str]) -> None:
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


def numbers(column: pd.Series, decimal: str, must: bool) -> tuple[pd.Series | None, bool]:
    """(float64, whether they are in per cent); None of text that need not be numbers, an error of text that must."""
    if pd.api.types.is_numeric_dtype(column) and column.dtype.kind != "c":
        return pd.Series(column.to_numpy(np.float64, na_value=np.nan), column.index, name=column.name), False
    if not must and len(column) > SAMPLE and numbers(column.iloc[:SAMPLE], decimal, False)[0] is None:
        return None, False
    texts = column.dropna().astype(str).str.strip()
    texts = texts[~texts.str.lower().isin(GAPS)]
    commas = texts[texts.str.contains(",", regex=False)]
    thousands = len(commas) and commas.str.fullmatch(r"[1-9]\d{0,2}(,\d{3})+").all()  # maybe
    if decimal == "," or not (decimal or thousands or texts.str.contains(".", regex=False).any()):
        texts = texts.str.replace(",", ".")
    per_cent = texts.str.endswith("%")
    parsed = pd.to_numeric(texts.str.removesuffix("%"), errors="coerce").astype(np.float64)
    wrong = (parsed.isna() | (per_cent != per_cent.any())).reindex(column.index, fill_value=False)
    if not must and wrong.sum() * 2 > len(texts):
        return None, False
    if wrong.any():
        raise PredictionsError(
            f"column {column.name}: expected numbers, found {few(column[wrong].unique())} {where(wrong)}"
        )
    return parsed.reindex(column.index), bool(per_cent.any())


def texts(column: pd.Series) -> pd.Series:
    """Names as text, NaN where there is none; whole numbers read the same with and without a gap: "3", not "3.0"."""
    codes, values = pd.factorize(column)
    names = [str(value).strip() for value in values.tolist()]
    if all(re.fullmatch(r"-?\d+\.0+", name) for name in names):
        names = [name.partition(".")[0] for name in names]
    return pd.Series(np.array([*names, np.nan], object)[codes], column.index, name=column.name)
