"""Your own predictions, from a file: confidences, and which predictions were right.

A file is a table, CSV or Parquet, or an ``.npz`` of arrays, one row per prediction. It holds one of two things:

- ``correct`` (0 or 1, or true and false), and a column of numbers for each confidence, higher = more to be trusted;
  ``label`` and ``prediction`` may stand in place of ``correct``.
- ``label``, and for every class a column ``prob_CLASS``, or ``logit_CLASS``; in an ``.npz`` the arrays ``labels`` (N,)
  and ``probabilities`` or ``logits`` (N, K), with the names of the classes in ``classes`` (K,) where they are not 0 to
  K - 1. Further columns of numbers are confidences too.

Either may have a column of groups: a site, a domain, a device.
"""

import os
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from .. import confidence, metrics
from .. import predictions as predicted
from ..analysis import compare
from ..stats import resampling, selective, statistics
from ..stats.rates import clopper_pearson, rate_intervals
from ..stats.resampling import FEWEST
from ..study import Study

SUM_TOLERANCE = 1e-3  # of the probabilities of one row: those of half precision pass
LOG_ODDS = {score.label for score in confidence.SCORES.values() if score.log_odds}
LABELS = {score.label for score in confidence.SCORES.values()}
FITTED = {score.label for score in confidence.SCORES.values() if score.needs}  # here: on the rows themselves
TEXTS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
GROUP_RATES = ("accuracy", "auroc", "coverage", "risk")
SHOWN = 5  # rows, columns or values that a message names
DIGITS, FINEST = 9, 1e-13  # of scores made of probabilities: what is beyond is of the order in which they were summed
LAYOUT = (
    "expected a column correct (0 or 1) and one or more columns of confidences, or a column label and a column "
    "prob_CLASS or logit_CLASS for every class (python -m trustlib evaluate --help says more)"
)


class PredictionsError(ValueError):
    """A file of predictions that cannot be used; the message says what was expected and what was found."""


@dataclass(frozen=True, eq=False)
class Predictions:
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

    def __len__(self) -> int:
        return len(self.correct)

    def scores(self) -> tuple[dict[str, NDArray[np.float64]], dict[str, str]]:
        """(name -> float64 (N,), name -> why it is left out): first what `confidence` makes of the logits.

        A score that has to be fitted (a temperature, a norm's order) is fitted on one half of the rows, drawn at
        random, and computed on the other, both ways round. Of probabilities there are those that the softmax
        determines, rounded to nine digits, so that rows of the same probabilities tie. Scores that need more than
        logits are not named at all.
        """
        found, left_out = {}, {}
        for score in confidence.SCORES.values() if self.logits is not None else ():
            if set(score.needs) - {"heldout_errors", "temperature"}:
                continue
            if self.probabilities and not score.of_softmax:
                left_out[score.label] = "it needs logits"
                continue
            if score.needs:
                values = _cross_fitted(score, self.logits, self.label)
            else:
                values = score.function(confidence.Observed(self.logits, self.label), None, None)
            if isinstance(values, str):
                left_out[score.label] = values
            else:
                found[score.label] = np.round(values / (unit := _unit(values))) * unit if self.probabilities else values
        return found | self.confidences, left_out

    def probability(self, name: str, values: NDArray) -> NDArray[np.float64] | None:
        """A confidence as a probability of being right: MCP's, with a temperature or without, or a column in [0, 1]."""
        if name in self.confidences:
            return values if values.min() >= 0 and values.max() <= 1 else None
        return expit(values) if name in LOG_ODDS else None


def read(path: Path | str, *, confidences: Sequence[str] = (), group: str = "", drop: bool = False) -> Predictions:
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


def of_study(study: Study, log: Callable[[str], None] = print) -> Predictions:
    """What a study's first classifier says of its test images; it is trained first where it is not yet."""
    from ..runs import steps  # here, since it takes torch, which a file of predictions does not

    name = next(iter(study.networks))
    seen = steps.classifier(study, name).get(log).tensors("test.")
    logits, images = seen["logits"].numpy().astype(np.float64), study.images()
    label = images.labels["test"].cpu().numpy()
    predicted = logits.argmax(1)
    return Predictions(
        f"the test images of {study.name}, {study.network(name).label}", predicted == label, {}, logits, label=label,
        predicted=predicted, classes=tuple(map(str, images.classes)),
    )  # fmt: skip


def curve(values: NDArray, correct: NDArray[np.bool_], points: int = 400) -> pd.DataFrame:
    """The risk-coverage curve at so many coverages, with exact 95 % intervals, each by itself.

    Which predictions are kept does not depend on which are right, so that the errors among so many kept ones are
    binomial as far as one error says nothing of another.

    Returns
    -------
    One row per point, ascending: coverage, risk, low, high; fractions.
    """
    coverage, risk = metrics.risk_coverage(values, correct)
    at = np.unique(np.searchsorted(coverage, np.linspace(0, 1, points)).clip(max=len(coverage) - 1))
    kept = np.rint(coverage[at] * len(correct)).astype(int)
    low, high = clopper_pearson(np.rint(risk[at] * kept).astype(int), kept)
    return pd.DataFrame({"coverage": coverage[at], "risk": risk[at], "low": low, "high": high})


def judge(
    scores: Mapping[str, NDArray],
    correct: NDArray[np.bool_],
    thresholds: Mapping[str, float],
    *,
    resamples: int = 2000,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Every metric of every score with its 95 % interval over the rows, and its difference from the first score's.

    Parameters
    ----------
    scores : name -> float (N,).
    thresholds : above which a score trusts; one that is not named has neither TPR nor TNR.
    resamples, seed : of the paired bootstrap, see `resampling.bootstrap`.

    Returns
    -------
    One row per score and metric: score, metric, estimate, low, high, difference, difference_low, difference_high; NaN
    where a metric does not exist (`metrics.undefined`). The accuracy's interval is exact.
    """

    tenths = 0

    def progress(done: int) -> None:
        nonlocal tenths
        if 10 * done // resamples > tenths:
            tenths = 10 * done // resamples
            log(f"{done:,} of {resamples:,} resamples of {len(scores)} scores")

    predictions = predicted.Predictions(correct, {name: values[None] for name, values in scores.items()}, thresholds)
    drawn = resampling.bootstrap(
        scores, correct, threshold={name: predictions.threshold_of(name) for name in scores}, resamples=resamples,
        seed=seed, threads=os.cpu_count() or 1, progress=progress,
    )  # fmt: skip
    frame = compare.compare(predictions, drawn).rename(columns={"arm": "score"})
    exact = clopper_pearson(int(correct.sum()), len(correct))
    frame.loc[frame["metric"] == "accuracy", ["low", "high"]] = np.array(exact)
    return frame[["score", "metric", *compare.INTERVAL, *(compare.DIFFERENCE if len(scores) > 1 else ())]]


def guarantees(
    scores: Mapping[str, NDArray], correct: NDArray, max_risk: float, delta: float, *, rounded: bool = False
) -> pd.DataFrame:
    """`statistics.guaranteed_threshold` of every score by itself: one row per score, and why there is none in `reason`.

    A score that was fitted on these rows has none: the guarantee is for functions that were fixed before.

    rounded : whether the scores computed here were (`Predictions.scores`). A threshold is then half a digit above
        the prediction left out, so that it keeps the same ones of scores that were not rounded.
    """
    rows = {}
    for name, values in scores.items():
        try:
            if name in FITTED:
                raise ValueError("it was fitted on these rows, a guarantee needs others")
            found = selective.guaranteed_threshold(values, correct, max_risk, delta)
            left, slack = found.threshold, 0.0
            if rounded and name in LABELS and np.isfinite(left):
                above = left + float(_unit(left)) / 2
                found = replace(found, threshold=float(f"{above:.{DIGITS + 2}g}"))
                slack = (expit(found.threshold) - expit(left)) / 2
            odds = f"log-odds; a probability of {_shortest(expit(found.threshold), slack)}"
            sentence = found.sentence(odds if name in LOG_ODDS else "")
            rows[name] = asdict(found) | {"reason": "" if found.found else sentence, "sentence": sentence}
        except ValueError as error:
            rows[name] = {"found": False, "reason": str(error), "sentence": f"No threshold qualifies: {error}."}
    frame = pd.DataFrame.from_dict(rows, orient="index")
    counts = [name for name in ("kept", "errors", "n", "steps") if name in frame]
    return frame.astype(dict.fromkeys(counts, "Int64"))  # whole numbers beside those that are not there


def groups(values: NDArray, correct: NDArray, member: NDArray, threshold: float | None) -> pd.DataFrame:
    """How one confidence does in each group, with 95 % intervals: exact ones of shares, DeLong's of the AUC.

    Returns
    -------
    One row per group: n, wrong; accuracy, auroc, and of the predictions above the threshold their share, coverage, and
    their errors' share, risk, each with _low and _high; NaN without a threshold. The AUC is NaN where fewer than
    `FEWEST` predictions are right, or wrong, which `note` says.
    """
    columns = ["n", "wrong", *(f"{what}{end}" for what in GROUP_RATES for end in ("", "_low", "_high")), "note"]
    rows = {}
    for name in np.unique(member):
        x, right = values[member == name], correct[member == name]
        n, wrong = len(right), int((~right).sum())
        low, high = map(float, clopper_pearson(n - wrong, n))
        row = {"n": n, "wrong": wrong, "accuracy": right.mean(), "accuracy_low": low, "accuracy_high": high}
        rates = rate_intervals(x, right, threshold) if threshold is not None else {}
        for what in ("coverage", "risk") if rates else ():
            row |= {what: rates[what].rate, f"{what}_low": rates[what].low, f"{what}_high": rates[what].high}
        enough = min(wrong, n - wrong) >= FEWEST
        if enough:
            area = statistics.delong(x, right)
            row |= {"auroc": area.auroc, "auroc_low": area.low, "auroc_high": area.high}
        few = f"{min(wrong, n - wrong)} {'wrong' if wrong <= n - wrong else 'right'}: too few for an AUC"
        rows[name] = row | {"note": "" if enough else few}
    return pd.DataFrame.from_dict(rows, orient="index").reindex(columns=columns)


def mistakes(found: Predictions, kept: NDArray[np.bool_]) -> pd.DataFrame:
    """What the kept mistakes confuse, most frequent first: label, prediction, count, share of all such mistakes."""
    names = np.array(found.classes)
    table = pd.DataFrame({"label": names[found.label], "prediction": names[found.predicted], "count": kept})
    counts = table[~found.correct].groupby(["label", "prediction"])["count"].agg(["sum", "mean"]).reset_index()
    counts = counts[counts["sum"] > 0].sort_values("sum", ascending=False, kind="stable")
    return counts.rename(columns={"sum": "count", "mean": "share"}).reset_index(drop=True)


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


def _checked(source: str, table: pd.DataFrame, confidences: tuple[str, ...], group: str, drop: bool) -> Predictions:
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
    found = Predictions(
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


def _cross_fitted(score: confidence.Score, logits: NDArray, label: NDArray) -> NDArray[np.float64] | str:
    """A score fitted on one half of the rows and computed on the other, both ways round; or why it cannot be."""
    half = np.random.default_rng(0).permutation(len(label)) < len(label) // 2
    if not half.any():
        return "one row has no halves"
    values = np.empty(len(label))
    for part in (half, ~half):
        seen, fit = (confidence.Observed(logits[rows], label[rows]) for rows in (part, ~part))
        if why := score.missing(seen, fit, fit):
            return f"it is fitted on halves, and in one of them {why.replace('validation set', 'half')}"
        values[part] = score.function(seen, fit, None)
    return values


def _shortest(x: float, slack: float) -> str:
    """A number in as few digits as are off by no more than the slack; all of them without any.

    >>> _shortest(0.30000000018631, 5e-11), _shortest(0.25, 0)
    ('0.3000000002', '0.25')
    """
    texts = (f"{x:.{digits}g}" for digits in range(6, 18))
    return next((text for text in texts if abs(float(text) - x) <= slack), selective.in_full(x))


def _unit(values: NDArray | float) -> NDArray[np.float64]:
    """What the last of `DIGITS` significant digits counts, but not less than `FINEST`."""
    digits = np.floor(np.log10(np.maximum(np.abs(values), FINEST))) - (DIGITS - 1)
    return 10.0 ** np.maximum(digits, np.log10(FINEST))


def plain_numbers(content: object) -> object:
    """The same for JSON: NumPy's numbers as Python's, null for what is not there, and "inf" and "-inf"."""
    if isinstance(content, Mapping):
        return {str(key): plain_numbers(value) for key, value in content.items()}
    if isinstance(content, list | tuple | np.ndarray):
        return [plain_numbers(value) for value in content]
    content = content.item() if isinstance(content, np.generic) else content
    if content is pd.NA or (isinstance(content, float) and np.isnan(content)):
        return None
    return str(content) if content in (np.inf, -np.inf) else content
