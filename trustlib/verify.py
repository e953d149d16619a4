"""Does what a study published follow from the scores that it published? Neither weights nor trainings are needed."""

import html
import json
import os
import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.io.formats.style import Styler
from scipy.special import expit

from . import confidence, evaluation, resampling, runs, tables
from .study import Study

DIGITS = "%.6g"  # of the tables' numbers
ROUNDED, NOTHING = 1.01e-5, 1e-12  # one unit of the last digit, relative; a difference of what is equal
NOT_ANEW = {
    "claims": "what its classifiers said of their training images is not published, nor are the audit's scores",
    "controls": "the audit's scores are not published",
    "sweep": "the scores under corruptions of every severity are not published",
}


def verify(study: Study, log: Callable[[str], None] = print) -> list[str]:
    """Make a published study's tables anew from its scores, and compare them with its tables and its report.

    Returns
    -------
    What differs, a line each; nothing where all is as it should be. What was compared, and what cannot be, goes to
    `log`.

    Raises
    ------
    runs.JobError : when nothing is published, or today's YAML asks for other oracles than were published.
    """
    folder = runs.results() / study.name
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        with np.load(folder / "scores.npz", allow_pickle=False) as file:
            scores = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise runs.JobError(f"study {study.name} is not published: there is no {error.filename}") from None
    _check_plan(study, scores)
    found = {pair: _confidences(study, scores, pair) for pair in study.pairs}
    classes = manifest["classes"] if "classes" in manifest else len(study.images().classes)  # older ones do not say
    compared = {pair: _compared(study, pair, *found[pair]) for pair in study.pairs}
    anew = {
        "scores": pd.concat([evaluation.measured(study, pair, *found[pair], classes) for pair in study.pairs]),
        "comparisons": pd.concat(compared.values()),
        "domains": _on_domains(study, scores),
    }
    differing = _changed(folder, manifest, log)
    for path in sorted((folder / "tables").glob("*.csv")):
        if path.stem == "runs":
            differing += _record(path, manifest, log)
        elif path.stem in anew:
            differing += _differences(path, anew[path.stem], log)
        else:
            log(f"tables/{path.name}: not made anew, {NOT_ANEW.get(path.stem, 'unknown here')}")
    area = tables.across_pairs(tables.labelled(anew["comparisons"], study), "auroc")
    shown = [  # older reports have two decimals throughout
        [area, *(tables.against_mcp(tables.labelled(frame, study), digits=digits) for frame in compared.values())]
        for digits in (None, 2)
    ]
    return differing + _missing(folder / "report.html", shown, log)


# --- From the published arrays to the shapes of `trustlib.evaluation` ---


def _check_plan(study: Study, scores: dict[str, NDArray]) -> None:
    planned = {f"{pair}/{arm}/seed{seed}.z" for pair in study.pairs for arm in study.arms for seed in study.seeds}
    if differing := planned ^ {name for name in scores if name.endswith(".z")}:
        first = min(differing)
        raise runs.JobError(
            f"study {study.name}: {first} is {'asked for and not published' if first in planned else 'not asked for'}; "
            f"its YAML has changed since, use that of the published commit"
        )


def _confidences(
    study: Study, scores: dict[str, NDArray], pair: str, part: str = "test"
) -> tuple[NDArray[np.bool_], dict[tuple[str, int], NDArray]]:
    """As `evaluation.confidences`."""
    name = study.pair(pair)[1]
    if part == "test":
        seen, own, z = f"{name}/seed{study.classifier_seeds[0]}.", f"{name}/confidences.", f"{pair}/{{}}/seed{{}}.z"
    else:
        seen, own, z = f"{part}/{name}.", f"{part}/{name}.", f"{part}/{pair}.{{}}/seed{{}}"
    found = {(key, 0): scores[own + key] for key in confidence.SCORES if own + key in scores}
    if f"{seen}mcp" in scores:
        found["mcp", 0] = scores[f"{seen}mcp"]
    else:  # older publications have it as log-odds alone
        found["mcp", 0] = expit(found["mcp", 0].astype(np.float64))
    asked = {(arm, seed): z.format(arm, seed) for arm in study.arms for seed in study.seeds}
    return scores[f"{seen}correct"], found | {key: scores[name] for key, name in asked.items() if name in scores}


def _compared(study: Study, pair: str, right: NDArray, scores: dict[tuple[str, int], NDArray]) -> pd.DataFrame:
    """As `evaluation.compare`."""
    rows = {name: values.astype(np.float64) for name, values in evaluation.by_name(scores).items()}
    boot = resampling.bootstrap(
        rows, right, resamples=evaluation.RESAMPLES,
        threshold={name: evaluation.threshold_of(study, name) for name in rows}, threads=os.cpu_count() or 1,
    )  # fmt: skip
    return evaluation.compared(study, pair, right, scores, boot)


def _on_domains(study: Study, scores: dict[str, NDArray]) -> pd.DataFrame:
    """As `evaluation.judged`."""
    frames = [
        _compared(study, pair, *_confidences(study, scores, pair, part)).assign(domain=name)
        for name, part in study.domains.parts.items()
        for pair in study.pairs
        if f"{part}/{study.pair(pair)[1]}.correct" in scores
    ]
    return pd.concat(frames) if frames else pd.DataFrame()


# --- Comparisons: each returns what differs ---


def _changed(folder: Path, manifest: dict, log: Callable[[str], None]) -> list[str]:
    if "sha256" not in manifest:
        log("files: an older publication, without checksums; of MCP it has seven digits: last digits may differ")
        return []
    said, found = manifest["sha256"], runs.checksums(folder)
    log(f"files: {len(said)} with their checksums")
    return [
        f"{name} is not as it was published"
        for name in sorted(said.keys() | found)
        if said.get(name) != found.get(name)
    ]


def _differences(path: Path, anew: pd.DataFrame, log: Callable[[str], None]) -> list[str]:
    """Of a table and the same made anew."""
    old = pd.read_csv(path)
    new = pd.read_csv(StringIO(anew.to_csv(index=False, float_format=DIGITS)))
    name = f"tables/{path.name}"
    if list(old) != list(new) or len(old) != len(new):
        return [f"{name}: {len(old)} rows of {', '.join(old)}; from the scores {len(new)} of {', '.join(new)}"]
    same = np.ones(old.shape, bool)
    for i, column in enumerate(old):
        if pd.api.types.is_numeric_dtype(new[column]):
            said = pd.to_numeric(old[column], errors="coerce")
            same[:, i] = np.isclose(said, new[column], rtol=ROUNDED, atol=NOTHING, equal_nan=True)
        else:
            same[:, i] = old[column].fillna("") == new[column].fillna("")
    log(f"tables/{path.name}: {same.sum():,} of {same.size:,} cells are what the scores say")
    return [
        f"{name}, row {row + 1}, {old.columns[i]}: {old.iat[row, i]}, from the scores {new.iat[row, i]}"
        for row, i in zip(*np.nonzero(~same), strict=True)
    ]


def _record(path: Path, manifest: dict, log: Callable[[str], None]) -> list[str]:
    """Of the table of runs and the manifest."""
    rows = pd.read_csv(path, dtype=str).query("status == 'done'")
    kept = {name: run["key"] for name, run in manifest["runs"].items()}
    log(f"tables/{path.name}: {rows['run'].isin(kept).sum():,} of {len(rows):,} finished runs are in the manifest")
    return [
        f"tables/{path.name}, {run}: key {key}, in the manifest {kept.get(run, 'nothing')}"
        for run, key in zip(rows["run"], rows["key"], strict=True)
        if kept.get(run) != key
    ]


def _missing(page: Path, shown: list[list[Styler]], log: Callable[[str], None]) -> list[str]:
    """Of the cells of tables made anew those that are nowhere in the report; `shown` in the way that fits it best."""
    text = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page.read_text(), re.DOTALL)
    there = {html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in text}
    ways = [
        [str(cell) for style in way for cell in style.data.to_numpy().ravel() if isinstance(cell, str)] for way in shown
    ]
    cells = max(ways, key=lambda cells: sum(cell in there for cell in cells))
    log(f"{page.name}: {sum(cell in there for cell in cells):,} of {len(cells):,} cells of its main tables are there")
    return [f"{page.name}: {cell!r} follows from the scores and is not there" for cell in cells if cell not in there]
