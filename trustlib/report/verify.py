"""Does what a study published follow from the scores that it published? Neither weights nor trainings are needed.

The tables are computed from the published scores by the functions that computed them from the run, and compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..analysis import claims, compare, rules
from ..analysis.evidence import Evidence, comparisons, measured
from ..analysis.facts import COMPUTED
from ..runs import store
from ..runs.jobs import JobError
from ..runs.results import Published, published_manifest
from ..study import Study

Log = Callable[[str], None]
DIGITS = "%.6g"  # of the tables' numbers
ROUNDED, NOTHING = 1.01e-5, 1e-12  # one unit of the last digit, relative; a difference of what is equal
FROM_SCORES: dict[str, Callable[[Published], pd.DataFrame]] = {
    "scores": compare.evaluate,
    "comparisons": compare.compare_pairs,
    "domains": compare.compare_shifts,
    "within": compare.within_pairs,
    "fusion": compare.fusion_pairs,
    "classifiers": compare.over_classifiers,
}
OF_ABLATIONS = ("ablations", "budget", "contrasts", "gaps", "labels", "operating-points", "optimum", "rate-search",
                "slopes", "tails")  # fmt: skip
NOT_RECOMPUTED = dict.fromkeys(OF_ABLATIONS, "the scores of the ablations are not published") | {
    "sweep": "the scores under corruptions of every severity are not published",
    "heads": "heads on cached features are fitted by the report",
    **dict.fromkeys(("proposition", "proposition-losses", "proposition-sizes"), "the simulation is run by the report"),
}


def verify(study: Study, log: Log = print) -> list[str]:
    """Compute a published study's tables from its scores and compare them with the published ones.

    Its verdicts are computed from the published comparisons, and of those the ones that follow from its scores.

    Returns
    -------
    What differs, one line each; nothing where all agrees. What was compared, and what cannot be, goes to `log`.

    Raises
    ------
    JobError : as `runs.results.Published`.
    """
    folder, manifest = store.results() / study.name, published_manifest(study)
    changed = _changed(folder, manifest, log)
    try:
        return changed + _compared(folder, Published(study), log)
    except Exception as error:  # whatever a damaged file does to those who read it
        if not changed or isinstance(error, JobError):
            raise
        return [*changed, f"more cannot be compared: {type(error).__name__}: {error}"]


def _compared(folder: Path, published: Published, log: Log) -> list[str]:
    differing = []
    for path in sorted((folder / "tables").glob("*.csv")):
        if path.stem == "runs":
            differing += _runs(path, published.manifest, log)
        elif path.stem in FROM_SCORES:
            differing += _differences(path, FROM_SCORES[path.stem](published), log)
        elif path.stem not in ("claims", "cells"):
            log(f"tables/{path.name}: not recomputed, {NOT_RECOMPUTED.get(path.stem, 'unknown here')}")
    return differing + _claims(folder / "tables", published, log)


def _changed(folder: Path, manifest: dict, log: Log) -> list[str]:
    expected, found = manifest["sha256"], store.checksums(folder)
    log(f"files: {len(expected)} with their checksums")
    return [
        f"{name} is not as it was published"
        for name in sorted(expected.keys() | found)
        if expected.get(name) != found.get(name)
    ]


def _differences(path: Path, recomputed: pd.DataFrame, log: Log) -> list[str]:
    """Of a published table and the same recomputed: the cells that differ by more than the rounding."""
    name, old = f"tables/{path.name}", pd.read_csv(path)
    new = pd.read_csv(StringIO(recomputed.to_csv(index=False, float_format=DIGITS)))
    if list(old) != list(new) or len(old) != len(new):
        return [f"{name}: {len(old)} rows of {', '.join(old)}; from the scores {len(new)} of {', '.join(new)}"]
    same = np.ones(old.shape, bool)
    for i, column in enumerate(old):
        if pd.api.types.is_numeric_dtype(new[column]):
            values = pd.to_numeric(old[column], errors="coerce")
            same[:, i] = np.isclose(values, new[column], rtol=ROUNDED, atol=NOTHING, equal_nan=True)
        else:
            same[:, i] = old[column].fillna("") == new[column].fillna("")
    log(f"{name}: {same.sum():,} of {same.size:,} cells follow from the scores")
    return [
        f"{name}, row {row + 1}, {old.columns[i]}: {old.iat[row, i]}, from the scores {new.iat[row, i]}"
        for row, i in zip(*np.nonzero(~same), strict=True)
    ]


def _runs(path: Path, manifest: dict, log: Log) -> list[str]:
    """Of the table of runs and the manifest."""
    rows = pd.read_csv(path, dtype=str).query("status == 'done'")
    keys = {name: run.get("key") for name, run in manifest["runs"].items()}
    log(f"tables/{path.name}: {rows['run'].isin(keys).sum():,} of {len(rows):,} finished runs are in the manifest")
    return [
        f"tables/{path.name}, {run}: key {key}, in the manifest {keys.get(run) or 'nothing'}"
        for run, key in zip(rows["run"], rows["key"], strict=True)
        if keys.get(run) != key
    ]


def _claims(folder: Path, published: Published, log: Log) -> list[str]:
    """Of the verdicts, and of the comparisons behind them."""
    verdicts = pd.read_csv(folder / "claims.csv", index_col="id")["verdict"]
    path = folder / "cells.csv"  # not there where no claim is tested
    rows = pd.read_csv(path, dtype={"form": str, "caveat": str}) if path.exists() else pd.DataFrame(columns=rules.CELLS)
    numbers = ["estimate", "low", "high", "at"]
    if list(rows) != rules.CELLS or not rows["margin"].isin(rules.SIDES).all():
        return [f"tables/cells.csv: not a table of {', '.join(rules.CELLS)} with margins {', '.join(rules.SIDES)}"]
    rows[numbers] = rows[numbers].apply(pd.to_numeric, errors="coerce")
    rows[["form", "caveat"]] = rows[["form", "caveat"]].fillna("")
    entries = {entry.id: entry for entry in rules.load()}
    differing = _cells(path, rows, entries, Evidence(published), log) if len(rows) else []
    return differing + _verdicts(verdicts, rows, entries, log)


def _cells(path: Path, rows: pd.DataFrame, entries: dict, evidence: Evidence, log: Log) -> list[str]:
    """Of the comparisons and those that follow from the scores, by today's rules."""
    differing, cells, made = [], [], 0
    for (claim, form), own in rows.groupby(["claim", "form"], sort=False):
        old, entry = rules.untabulated(own), entries.get(claim)
        new, named = _recomputed(evidence, entry, form) if entry else ([None] * len(old), [{}] * len(old))
        if not new:
            new, named = [None] * len(old), [{}] * len(old)
        if len(new) != len(old):
            differing.append(f"tables/{path.name}, {claim}: {len(old)} comparisons, {len(new)} by today's claims.yaml")
            new, named = [None] * len(old), [{}] * len(old)
        made += sum(cell is not None for cell in new)
        for before, after, names in zip(old, new, named, strict=True):
            cells.append((claim, form, _with_caveat(after, before) if after else replace(before, **names)))
    log(f"tables/{path.name}: {made:,} of {len(rows):,} comparisons recomputed, the others need unpublished scores")
    return differing + _differences(path, rules.tabulated(cells), log)


def _recomputed(evidence: Evidence, entry: rules.Claim, form: str) -> tuple[Sequence[rules.Cell | None], list[dict]]:
    """The cells of a claim that follow from the scores, None for the others, and what each is of by today's rules.

    Both are empty where a fact does not follow from scores.
    """
    if entry.tests:
        tests = claims.as_released(evidence.study, entry.tests) if form else entry.tests
        compared = comparisons(evidence, tests)
        named: list[dict[str, Any]] = [
            {"metric": test.metric, "name": name, "margin": test} for test, name, _ in compared
        ]
        made = list(zip(compared, measured(evidence, tests), strict=True))
        # the comparisons of one metric share a variance between seeds, for which all of them are needed
        lacking = {(test.metric, test.tuned) for (test, _, _), cell in made if cell is None}
        return [None if (test.metric, test.tuned) in lacking else cell for (test, _, _), cell in made], named
    cells = list(COMPUTED[entry.fact](evidence).cells) if entry.fact in rules.FROM_SCORES else []
    return cells, [{} for _ in cells]


def _with_caveat(recomputed: rules.Cell, published: rules.Cell) -> rules.Cell:
    """A recomputed cell with what is published of its oracle's training, since the training outputs are not."""
    untrained = published.caveat == rules.NOT_TRAINED
    return replace(recomputed, caveat=rules.NOT_TRAINED) if untrained else recomputed


def _verdicts(verdicts: pd.Series, rows: pd.DataFrame, entries: dict, log: Log) -> list[str]:
    """Of the verdicts and those that their comparisons make; a claim with tests that has none is not tested."""
    follows, tested = {}, [name for name, entry in entries.items() if entry.tests]
    for claim in dict.fromkeys([*rows["claim"], *verdicts.index.intersection(tested)]):
        own = rows[rows["claim"] == claim]
        jointly = claim in entries and entries[claim].jointly
        follows[claim] = rules.verdict(rules.untabulated(own[own["form"] == ""]), jointly)
    made = rows["claim"].nunique()
    log(f"tables/claims.csv: {made} of {len(verdicts)} verdicts recomputed, the others rest on no comparison")
    return [
        f"tables/claims.csv, {claim}: {verdicts.get(claim, 'nothing')}, from its comparisons {verdict}"
        for claim, verdict in follows.items()
        if verdicts.get(claim) != verdict
    ]
