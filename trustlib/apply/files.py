"""A file of predictions as a table: one row per prediction, and nothing taken for missing but an empty cell.

Text stays text where its spelling counts: a class may be called None, NA or 00007.
"""

import csv
import gzip
import io
import json
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

SHOWN = 5  # rows, columns or values that a message names
SAMPLE = 1000  # rows of a CSV by which it is told which columns hold plain numbers
TEXT = (".csv", ".tsv", ".txt", ".json", ".jsonl")  # may end in .gz too
ENDINGS = (*TEXT, ".npz", ".parquet", ".safetensors")
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
DAMAGED = (  # raised by what reads a file that is not what its ending says; pandas and pyarrow raise kinds of these
    OSError, ValueError, EOFError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, csv.Error,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip
ROLES = {  # what a column is, and the names by which it goes
    "correct": "correct is_correct",
    "label": "label labels true_label y_true target targets truth ground_truth gt gold",
    "prediction": "prediction predictions predicted predicted_label predicted_class pred preds y_pred",
    "group": "group groups",
    "cluster": "cluster clusters",
}
OUTPUTS = {  # arrays (N, K), and the prefix of the columns that they become
    **dict.fromkeys(("probabilities", "probability", "probs", "proba", "y_proba", "y_prob", "softmax"), "prob_"),
    "logits": "logit_",
}
TYPES = {"BF16": "<u2", "BOOL": "?"} | {f"{k}{8 * n}": f"<{k.lower()}{n}" for k in "FIU" for n in (1, 2, 4, 8)}


class PredictionsError(ValueError):
    """A file of predictions that cannot be used; the message says what was expected and what was found."""


def table(path: Path, *, decimal: str = "") -> tuple[pd.DataFrame, list[str], dict[str, str]]:
    """(the columns of a file, sentences on how it was read, array that is no column -> why not).

    decimal : what separates the decimals of a CSV's numbers, "." or ","; by default it is told from the numbers.

    Raises
    ------
    PredictionsError : when the file is missing or is not what its ending says, when a row of a CSV has more or fewer
        fields than its header has names, and when two columns have one name.
    """
    if not path.is_file():
        raise PredictionsError("there is no such file")
    packed = path.suffix.lower() == ".gz"
    kind = Path(path.stem).suffix.lower() if packed else path.suffix.lower()
    if kind not in (TEXT if packed else ENDINGS):
        raise PredictionsError(
            f"expected a file that ends in {', '.join(ENDINGS)} or .csv.gz, found {path.suffix or 'no ending'}"
        )
    try:
        if kind in (".npz", ".safetensors"):
            frame, unused = of_arrays(_npz(path) if kind == ".npz" else _safetensors(path))
            return frame, [], unused
        if kind == ".parquet":
            return of_frame(pd.read_parquet(path)), [], {}
        if kind in (".json", ".jsonl"):
            return of_frame(_json(path, kind)), [], {}
        return *_delimited(path, kind, decimal), {}
    except PredictionsError:
        raise
    except ImportError:
        raise PredictionsError("Parquet needs pyarrow: uv pip install pyarrow, or write a CSV") from None
    except DAMAGED as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise PredictionsError(f"this is no {kind[1:]} file, or a damaged one ({why})") from None


def of_frame(frame: pd.DataFrame) -> pd.DataFrame:
    """A DataFrame with texts as names, an index that does not merely count as a column, lists as one per class."""
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index(names=[name or f"index{i or ''}" for i, name in enumerate(frame.index.names)])
    frame = frame.set_axis(frame.columns.astype(str), axis=1)
    _refuse_twins(frame.columns)
    for name in [name for name in frame if name.lower() in OUTPUTS and frame[name].dtype == object]:
        if len(sizes := {len(value) for value in frame[name] if isinstance(value, list | np.ndarray)}) > 1:
            raise PredictionsError(
                f"column {name}: expected lists of one length, found the lengths {few(sorted(sizes))}"
            )
        by_class = pd.DataFrame(frame[name].tolist(), frame.index)  # of lists, or of objects with the classes' names
        if by_class.shape[1] > 1:
            frame = frame.drop(columns=name).join(by_class.add_prefix(OUTPUTS[name.lower()]))
    return frame


def of_arrays(arrays: Mapping[str, object]) -> tuple[pd.DataFrame, dict[str, str]]:
    """(arrays as columns, array that is none -> why not).

    Probabilities or logits (N, K) become a column per class, named in `classes` (K,) or 0 to K - 1.
    """
    found = {name: as_array(values) for name, values in arrays.items()}
    classes = found.pop("classes", None)
    roles = {name for names in ROLES.values() for name in names.split()} | OUTPUTS.keys()
    lengths = {name: len(values) for name, values in found.items() if name in roles and values.ndim}
    if len(set(lengths.values())) > 1:
        raise PredictionsError(f"arrays differ in length: {few(f'{k} {v:,}' for k, v in lengths.items())}")
    n = next(iter(lengths.values()), max((len(values) for values in found.values() if values.ndim == 1), default=0))
    columns, unused = {}, {}
    for name, values in found.items():
        if name in OUTPUTS and name != "logits" and "logits" in found:
            unused[name] = "there are logits"
        elif name != "logits" and values.shape in ((n,), (n, 1)):
            columns[name] = values.reshape(n)
        elif name in OUTPUTS and values.ndim == 2:
            columns |= _by_class(name, values, classes)
        elif name in roles:
            expected = "(N, K)" if name in OUTPUTS else "(N,)"
            raise PredictionsError(f"array {name}: expected the shape {expected}, found {values.shape}")
        else:
            unused[name] = f"an array of the shape {values.shape}"
    return pd.DataFrame(columns), unused


def as_array(values: object) -> NDArray:
    """An array of whatever holds numbers or names: a list, a Series, a tensor on any device and of any precision."""
    if hasattr(values, "detach"):  # a tensor
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() and values.itemsize < 4 else values).numpy()
    array = np.asarray(values)
    is_bfloat16 = array.dtype.kind == "V" and array.dtype.itemsize == 2  # as NumPy saves what it does not know
    return _from_bfloat16(array.view(np.uint16)) if is_bfloat16 else array


def role_of(name: str) -> str:
    """
    >>> role_of("Y_true"), role_of("predicted label"), role_of("mine")
    ('label', 'prediction', '')
    """
    plain = re.sub(r"\W+", "_", name.strip().lower())
    return next((role for role, names in ROLES.items() if plain in names.split()), "")


def few(names: Iterable) -> str:
    names = [str(name) for name in names]
    return ", ".join(names[: 2 * SHOWN]) + (f" and {len(names) - 2 * SHOWN:,} more" if len(names) > 2 * SHOWN else "")


def where(rows: pd.Series) -> str:
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


def _delimited(path: Path, kind: str, decimal: str) -> tuple[pd.DataFrame, list[str]]:
    with _opened(path) as file:
        head = file.read(4096)
    encoding = "utf-16" if head.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    if b"\0" in head and encoding != "utf-16":
        raise ValueError("it is no text")
    notes = []
    try:
        skipped, separator, names, sample = _surveyed(path, encoding)
    except UnicodeDecodeError:
        encoding = "cp1252"
        notes.append("The text is not UTF-8: it was read as Windows' (cp1252).")
        skipped, separator, names, sample = _surveyed(path, encoding)
    point = "."
    if separator != ",":
        cells = " ".join(cell for row in sample for cell in row)
        commas, points = (re.search(rf"(?<!\S)[+-]?\d*{mark}\d+(?!\S)", cells) for mark in (",", r"\."))
        point = decimal or ("," if commas and not points else ".")
        notes += [f"The separator is a {SEPARATORS[separator]}."] if kind != ".tsv" else []
        notes += ["Decimals are separated by a comma."] if point == "," else []
    number = re.compile(rf"([+-]?(0|[1-9]\d*)?(\{point}\d*)?([eE][+-]?\d+)?)?")
    texts = [  # all other columns are numbers, unless something else comes up further below
        place for place, name in enumerate(names)
        if role_of(name) or not all(number.fullmatch(row[place]) for row in sample)
    ]  # fmt: skip
    with warnings.catch_warnings(), _opened(path) as file:
        warnings.simplefilter("ignore", pd.errors.ParserWarning)  # of empty fields beyond the last name
        frame = pd.read_csv(
            file, sep=separator, encoding=encoding, skiprows=skipped, header=0, names=range(len(names)),
            index_col=False, dtype=dict.fromkeys(texts, str), keep_default_na=False, na_values=[""],
            skipinitialspace=True, low_memory=False, decimal=point,
        )  # fmt: skip
    if (empty := frame.isna().all(axis=1)).any():
        notes.append(f"Rows without any value were left out: {empty.sum():,}.")
        frame = frame[~empty].reset_index(drop=True)
    frame = frame.drop(columns=[place for place, name in enumerate(names) if not name and frame[place].isna().all()])
    frame = frame.rename(columns={place: name or f"Unnamed: {place}" for place, name in enumerate(names)})
    _refuse_twins(frame.columns)
    return frame, notes


def _surveyed(path: Path, encoding: str) -> tuple[int, str, list[str], list[list[str]]]:
    """(lines before the header, separator, names, the first rows), once every row is known to have as many fields."""
    with _opened(path) as raw, io.TextIOWrapper(raw, encoding, newline="") as file:
        lines: Iterator[str] = iter(file)
        header, skipped = next(lines, ""), 0
        while header.isspace() or header.lower().startswith("sep="):  # as spreadsheets name the separator
            header, skipped = next(lines, ""), skipped + 1
        if not header:
            raise ValueError("it is empty")
        separator = max(SEPARATORS, key=re.sub(r'"[^"]*"', "", header).count)
        names = [name.strip() for name in _fields(header, lines, separator)]
        if all(re.fullmatch(r"-?\d+(\.\d+)?", name) for name in names):
            raise PredictionsError(f"expected the names of the columns in the first line, found {few(names)}")
        sample, number = [], 0
        for line in lines:
            if line.isspace() and separator not in line:
                continue
            number += 1
            if number > SAMPLE and '"' not in line and line.count(separator) == len(names) - 1:
                continue
            row = _fields(line, lines, separator)
            if len(row) < len(names) or any(row[len(names) :]):
                raise PredictionsError(
                    f"expected {len(names)} fields in every row, as the header has names, found {len(row)} in row "
                    f"{number:,}: a field that holds a {SEPARATORS[separator]} needs quotes"
                )
            if number <= SAMPLE:
                sample.append([cell.strip() for cell in row])
    if len(names) == 1 and all(len(row[0].split()) == len(names[0].split()) > 1 for row in sample):
        raise PredictionsError(
            f"expected columns separated by a {', '.join(SEPARATORS.values())}, found spaces: {names[0]}"
        )
    return skipped, separator, names, sample


def _fields(line: str, lines: Iterator[str], separator: str) -> list[str]:
    """The fields of a line, and of those after it where quotes run on."""
    return next(csv.reader(chain([line], lines), delimiter=separator, skipinitialspace=True))


def _refuse_twins(names: Iterable[str]) -> None:
    """One of two columns of one name would be lost, or get another name."""
    names = pd.Series(list(names), dtype=object)
    if twins := names[names.duplicated()].unique().tolist():
        raise PredictionsError(f"expected one column of each name, found two of {few(twins)}")


def _opened(path: Path):
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _json(path: Path, kind: str) -> pd.DataFrame:
    """One object per line, or a list of objects."""
    with _opened(path) as raw, io.TextIOWrapper(raw, "utf-8-sig") as file:
        rows = json.load(file) if kind == ".json" else [json.loads(line) for line in file if not line.isspace()]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError('expected objects with one value per column, such as {"correct": 1, "mine": 0.9}')
    return pd.DataFrame(rows)


def _npz(path: Path) -> dict[str, NDArray]:
    arrays = {}
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            try:
                arrays[name] = file[name]
            except ValueError as error:
                if "allow_pickle" in str(error):
                    raise PredictionsError(f"array {name} holds Python objects: save it as numbers or text") from None
                raise
    return arrays


def _safetensors(path: Path) -> dict[str, NDArray]:
    """The tensors of a file, bfloat16 as float32; names of classes as a JSON list under "classes" of its metadata.

    The format: the length of the header, the header as JSON, the bytes of the tensors.
    """
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    classes = json.loads(header.pop("__metadata__", {}).get("classes", "null"))
    arrays = {} if classes is None else {"classes": np.array(classes)}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        values = np.frombuffer(content[start + begin : start + end], TYPES[about["dtype"]]).reshape(about["shape"])
        arrays[name] = _from_bfloat16(values) if about["dtype"] == "BF16" else values
    return arrays


def _from_bfloat16(bits: NDArray) -> NDArray[np.float32]:
    """bfloat16 is the upper half of a float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _by_class(name: str, values: NDArray, classes: NDArray | None) -> dict[str, NDArray]:
    names = [str(of) for of in (range(values.shape[1]) if classes is None else classes)]
    if len(names) != values.shape[1]:
        raise PredictionsError(f"{len(names)} classes are named, {name} has {values.shape[1]} columns")
    _refuse_twins(names)
    return {f"{OUTPUTS[name]}{of}": column for of, column in zip(names, values.T, strict=True)}
