"""Does what a study published follow from the scores that it published? Neither weights nor trainings are needed."""

import html
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from io import StringIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.io.formats.style import Styler

from .. import confidence, data
from ..analysis import budget, claims, evaluation, paper
from ..runs import jobs, store
from ..stats import resampling
from ..study import Study
from . import tables

DIGITS = "%.6g"  # of the tables' numbers
ROUNDED, NOTHING = 1.01e-5, 1e-12  # one unit of the last digit, relative; a difference of what is equal
NOT_ANEW = {
    "controls": "the audit's scores are not published",
    "sweep": "the scores under corruptions of every severity are not published",
    "budget": "the scores of the ablations are not published",
    "heads": "heads on cached features are fitted by the report",
    "proposition": "the simulation is run by the report",
}


def verify(study: Study, log: Callable[[str], None] = print) -> list[str]:
    """Make a published study's tables anew from its scores, and compare them with its tables and its report.

    Its verdicts are made anew from their cells, and of those the ones that follow from its scores.

    Returns
    -------
    What differs, a line each; nothing where all is as it should be. What was compared, and what cannot be, goes to
    `log`.

    Raises
    ------
    runs.JobError : when nothing is published, its manifest is damaged, or today's YAML asks for other oracles than
        were published.
    """
    folder = store.results() / study.name
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
    except FileNotFoundError as error:
        raise jobs.JobError(f"study {study.name} is not published: there is no {error.filename}") from None
    except ValueError as error:
        raise jobs.JobError(f"{folder / 'manifest.json'} is damaged ({error}): restore the published one") from None
    needed = {"classes", "runs", "sha256"}
    if not isinstance(manifest, dict) or needed - manifest.keys():
        expected = f"expected {', '.join(sorted(needed))} in it"
        raise jobs.JobError(f"{folder / 'manifest.json'} is damaged ({expected}): restore the published one")
    changed = _changed(folder, manifest, log)
    try:
        return changed + _compared(study, folder, manifest, log)
    except Exception as error:  # whatever a damaged file does to those who read it
        if not changed or isinstance(error, jobs.JobError):
            raise
        return [*changed, f"more cannot be compared: {type(error).__name__}: {error}"]


def _compared(study: Study, folder: Path, manifest: dict, log: Callable[[str], None]) -> list[str]:
    if not (folder / "scores.npz").exists():
        raise jobs.JobError(f"study {study.name} is not published: there is no {folder / 'scores.npz'}")
    with np.load(folder / "scores.npz", allow_pickle=False) as file:
        scores = {name: file[name] for name in file.files}
    _check_plan(study, scores)
    seen = _Published(study, scores, manifest)
    anew: dict[str, pd.DataFrame] = {
        "scores": pd.concat(
            [evaluation.measured(study, pair, *seen.found[pair, "test"], seen.classes) for pair in study.pairs]
        ),
        "comparisons": pd.concat(map(seen.compared, study.pairs)),
        "domains": seen.on_domains(),
    }
    if (folder / "tables" / "within.csv").exists():  # older publications have neither it nor what it follows from
        anew |= {"within": seen.within(), "fusion": seen.fusion()}
    differing = []
    for path in sorted((folder / "tables").glob("*.csv")):
        if path.stem == "runs":
            differing += _record(path, manifest, log)
        elif path.stem in anew:
            differing += _differences(path, anew[path.stem], log)
        elif path.stem not in ("claims", "cells"):
            log(f"tables/{path.name}: not made anew, {NOT_ANEW.get(path.stem, 'unknown here')}")
    differing += _claims(folder / "tables", seen, log)
    return differing + _missing(folder / "report.html", _shown(study, anew, folder / "tables" / "claims.csv"), log)


# --- From the published arrays to the shapes of `trustlib.analysis.evaluation` ---


def _check_plan(study: Study, scores: dict[str, NDArray]) -> None:
    planned = {f"{pair}/{arm}/seed{seed}.z" for pair in study.pairs for arm in study.arms for seed in study.seeds}
    if differing := planned ^ {name for name in scores if name.endswith(".z") and ".heldout." not in name}:
        first = min(differing)
        raise jobs.JobError(
            f"study {study.name}: {first} is {'asked for and not published' if first in planned else 'not asked for'}; "
            f"its YAML has changed since, use that of the published commit"
        )


def _confidences(
    study: Study, scores: dict[str, NDArray], pair: str, part: str = "test"
) -> tuple[NDArray[np.bool_], dict[tuple[str, int], NDArray]]:
    """As `evaluation.confidences`."""
    name = study.pair(pair)[1]
    if part in data.PARTS:
        under = "" if part == "test" else f"{part}."
        seen, own = f"{name}/seed{study.classifier_seeds[0]}.{under}", f"{name}/confidences.{under}"
        z = f"{pair}/{{}}/seed{{}}.{under}z"
    else:
        seen, own, z = f"{part}/{name}.", f"{part}/{name}.", f"{part}/{pair}.{{}}/seed{{}}"
    found = {(key, 0): scores[own + key] for key in confidence.SCORES if own + key in scores}
    found["mcp", 0] = scores[f"{seen}mcp"]
    asked = {(arm, seed): z.format(arm, seed) for arm in study.arms for seed in study.seeds}
    return scores[f"{seen}correct"], found | {key: scores[name] for key, name in asked.items() if name in scores}


class _Published(claims.Seen):
    """What a study has published, in place of its trainings; of the audit nothing.

    found : (pair, part) -> as `evaluation.confidences`.
    """

    def __init__(self, study: Study, scores: dict[str, NDArray], manifest: dict):
        super().__init__(study)
        self.manifest, self._resamples, self._scores = manifest, {}, scores
        self.found = {
            (pair, part): _confidences(study, scores, pair, part)
            for part, pair in product(("test", *study.domains.parts.values()), study.pairs)
            if part == "test" or f"{part}/{study.pair(pair)[1]}.correct" in scores
        }

    @property
    def classes(self) -> int:
        return self.manifest["classes"]

    @property
    def grey(self) -> bool:  # older manifests do not say
        return self.manifest["channels"] == 1 if "channels" in self.manifest else super().grey

    def has(self, pair: str, part: str = "test") -> bool:
        return (pair, part) in self.found

    def correct(self, pair: str, part: str = "test") -> NDArray[np.bool_]:
        return self.found[pair, part][0]

    def outputs(self, pair: str, arm: str, part: str = "test", tuned: bool = False) -> NDArray | None:
        if tuned:
            return None
        z = [score for (name, _), score in self.found[pair, part][1].items() if name == arm]
        return np.stack(z) if len(z) == (1 if arm == "mcp" else len(self.study.seeds)) else None

    @cached_property
    def curves(self) -> pd.DataFrame:
        return budget.published(self.study.name)

    def is_untrained(self, pair: str, arm: str) -> bool:
        return False  # the outputs on training images are not published; `_cells` keeps what was published of it

    def _boot(self, pair: str, arm: str, part: str, tuned: bool, kind: str) -> resampling.Bootstrap | None:
        planned = arm == "mcp" or arm in self.study.arms
        if tuned or not planned or kind == claims.COST:  # these rest on validation images
            return None
        if kind or self.outputs(pair, arm, part) is None:
            return super()._boot(pair, arm, part, tuned, kind)
        boot = self._resampled(pair, part)
        return resampling.Bootstrap({arm: boot.estimate[arm]}, {arm: boot.samples[arm]})

    def resampled(
        self, name: str, score: NDArray, correct: NDArray, threshold: float, tnr_threshold: float | None
    ) -> resampling.Bootstrap:
        return resampling.bootstrap(
            {name: score.astype(np.float64)}, correct, resamples=evaluation.RESAMPLES, threshold=threshold,
            tnr_threshold=tnr_threshold, threads=os.cpu_count() or 1,
        )  # fmt: skip

    def compared(self, pair: str, part: str = "test") -> pd.DataFrame:
        """As `evaluation.compare`."""
        return evaluation.compared(self.study, pair, *self.found[pair, part], self._resampled(pair, part))

    def within(self) -> pd.DataFrame:
        """As `evaluation.within`."""
        frames = []
        for pair in self.study.pairs:
            name = self.study.pair(pair)[1]
            classes = self._scores[f"{name}/seed{self.study.classifier_seeds[0]}.predicted"]
            frames.append(evaluation.measured_within(pair, *self.found[pair, "test"], classes))
        return pd.concat(frames)

    def fusion(self) -> pd.DataFrame:
        """As `evaluation.fusion`."""
        frames = []
        for pair in self.study.pairs:
            seen = {part: _confidences(self.study, self._scores, pair, part) for part in ("heldout", "test")}
            frames.append(evaluation.measured_fusion(self.study, pair, seen))
        return pd.concat(frames)

    def on_domains(self) -> pd.DataFrame:
        """As `evaluation.judged`."""
        parts = self.study.domains.parts.items()
        asked = [(name, pair, part) for (name, part), pair in product(parts, self.study.pairs) if self.has(pair, part)]
        frames = [self.compared(pair, part).assign(domain=name) for name, pair, part in asked]
        return pd.concat(frames) if frames else pd.DataFrame()

    def _resampled(self, pair: str, part: str) -> resampling.Bootstrap:
        if (pair, part) not in self._resamples:
            right, scores = self.found[pair, part]
            rows = {name: values.astype(np.float64) for name, values in evaluation.by_name(scores).items()}
            self._resamples[pair, part] = resampling.bootstrap(
                rows, right, resamples=evaluation.RESAMPLES,
                threshold={name: evaluation.threshold_of(self.study, name) for name in rows},
                threads=os.cpu_count() or 1,
            )  # fmt: skip
        return self._resamples[pair, part]


# --- Comparisons: each returns what differs ---


def _changed(folder: Path, manifest: dict, log: Callable[[str], None]) -> list[str]:
    said, found = manifest["sha256"], store.checksums(folder)
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
    kept = {name: run.get("key") for name, run in manifest["runs"].items()}
    log(f"tables/{path.name}: {rows['run'].isin(kept).sum():,} of {len(rows):,} finished runs are in the manifest")
    return [
        f"tables/{path.name}, {run}: key {key}, in the manifest {kept.get(run) or 'nothing'}"
        for run, key in zip(rows["run"], rows["key"], strict=True)
        if kept.get(run) != key
    ]


def _claims(folder: Path, seen: _Published, log: Callable[[str], None]) -> list[str]:
    """Of the verdicts, and of the comparisons behind them."""
    if not _is_of_these_rules(folder):
        log("tables/claims.csv: its verdicts are by older rules (CHANGELOG.md) and are not compared")
        return []
    said = pd.read_csv(folder / "claims.csv", index_col="id")["verdict"]
    rows = pd.read_csv(folder / "cells.csv", dtype={"form": str, "caveat": str})
    numbers = ["estimate", "low", "high", "at"]
    if list(rows) != claims.CELLS or not rows["margin"].isin(claims.SIDES).all():
        return [f"tables/cells.csv: not a table of {', '.join(claims.CELLS)} with margins {', '.join(claims.SIDES)}"]
    rows[numbers] = rows[numbers].apply(pd.to_numeric, errors="coerce")
    rows[["form", "caveat"]] = rows[["form", "caveat"]].fillna("")
    rules = {entry.id: entry for entry in claims.load()}
    return _cells(folder / "cells.csv", rows, rules, seen, log) + _verdicts(said, rows, rules, log)


def _is_of_these_rules(folder: Path) -> bool:
    """Whether the verdicts published are *reproduced* to *not tested*; those before had no `asked_by`."""
    try:
        return "asked_by" in pd.read_csv(folder / "claims.csv", nrows=0) and (folder / "cells.csv").exists()
    except FileNotFoundError:
        return False


def _cells(
    path: Path, rows: pd.DataFrame, rules: dict[str, claims.Claim], seen: _Published, log: Callable[[str], None]
) -> list[str]:
    """Of the comparisons and those that follow from the scores, by today's rules."""
    differing, cells, made = [], [], 0
    for (claim, form), own in rows.groupby(["claim", "form"], sort=False):
        said, rule = claims.untabulated(own), rules.get(claim)
        anew: Sequence[claims.Cell | None] = [None] * len(said)
        asked: list[dict[str, Any]] = [{} for _ in said]
        if rule and rule.tests:
            tests = claims.as_released(seen.study, rule.tests) if form else rule.tests
            compared = claims.comparisons(seen, tests)
            asked = [{"metric": test.metric, "name": name, "margin": test} for test, name, _ in compared]
            anew = claims.measured(seen, tests)
        elif rule and rule.fact in claims.FROM_SCORES:
            anew = claims.FACTS[rule.fact](seen).cells
        if len(anew) == len(said):
            made += sum(cell is not None for cell in anew)
            said = [
                _recomputed(new, old) if new else replace(old, **of)
                for new, old, of in zip(anew, said, asked, strict=True)
            ]
        else:
            today = f"{len(anew)} by today's data/claims.yaml"
            differing.append(f"tables/{path.name}, {claim}: {len(said)} comparisons, {today}")
        cells += [(claim, form, cell) for cell in said]
    others = "the others rest on what is not published, the audit above all"
    log(f"tables/{path.name}: {made:,} of {len(rows):,} comparisons made anew; {others}")
    return differing + _differences(path, claims.tabulated(cells), log)


def _recomputed(cell: claims.Cell, paper: claims.Cell) -> claims.Cell:
    """A recomputed cell with what is published of its oracle's training, since the training outputs are not."""
    return replace(cell, caveat=claims.NOT_TRAINED) if paper.caveat == claims.NOT_TRAINED else cell


def _verdicts(
    said: pd.Series, rows: pd.DataFrame, rules: dict[str, claims.Claim], log: Callable[[str], None]
) -> list[str]:
    """Of the verdicts and those that their comparisons make; a rule that has none is not tested."""
    follows, tested = {}, [name for name, rule in rules.items() if rule.tests]
    for claim in dict.fromkeys([*rows["claim"], *said.index.intersection(tested)]):
        own = rows[rows["claim"] == claim]
        follows[claim] = claims.verdict(claims.untabulated(own[own["form"] == ""]))
    made = rows["claim"].nunique()
    log(f"tables/claims.csv: {made} of {len(said)} verdicts made anew, the others rest on no comparison")
    return [
        f"tables/claims.csv, {claim}: {said.get(claim, 'nothing')}, from its comparisons {verdict}"
        for claim, verdict in follows.items()
        if said.get(claim) != verdict
    ]


def _shown(study: Study, anew: dict[str, pd.DataFrame], said: Path) -> list[Styler]:
    """The report's tables that follow from tables made anew and from `said`, its verdicts."""
    shifted = anew["domains"]
    shown = [tables.across_pairs(tables.labelled(anew["comparisons"], study), "auroc")]
    shown += tables.measured_forms(anew["scores"], study).values()
    for pair, clean in anew["comparisons"].groupby("pair", sort=False):
        shown.append(tables.against_mcp(tables.labelled(clean, study)))
        if paper.follows_table2(study):
            shown.append(tables.table2_form(paper.table2(study.dataset), clean, paper.TABLE_2))
        if len(shifted) and (shifted["pair"] == pair).any():
            shown += tables.unseen_forms(clean, shifted[shifted["pair"] == pair], study)
    if "within" in anew:
        shown.append(tables.within_form(tables.labelled(anew["within"], study)))
    if len(anew.get("fusion", ())):
        shown.append(tables.fusion_form(tables.labelled(anew["fusion"], study)))
    if _is_of_these_rules(said.parent):
        judged = pd.read_csv(said, dtype=str, keep_default_na=False)
        shown += [tables.claims_form(rows) for _, rows in judged.groupby("asked_by")]
    return shown


def _missing(page: Path, shown: list[Styler], log: Callable[[str], None]) -> list[str]:
    """Of tables made anew, what the report lacks: cells, or their order."""
    row = _texts(page.read_text())
    there = set(row)
    made = [_texts(style.to_html()) for style in shown]
    differing, found = [], 0
    for cells in made:
        missing = [cell for cell in cells if cell not in there]
        found += len(cells) - len(missing)
        differing += [f"{page.name}: {cell!r} follows from what is published and is not there" for cell in missing]
        if not missing and "\n".join(cells) not in "\n".join(row):
            order = "follow from what is published, and stand in another order there"
            differing.append(f"{page.name}: the cells of the table of {', '.join(cells[1:4])} {order}")
    log(f"{page.name}: {found:,} of {sum(map(len, made)):,} cells of {len(made)} of its tables are there")
    return differing


def _texts(page: str) -> list[str]:
    """What the cells of a page's tables say, one after the other, wherever its lines may break."""
    cells = re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", page, re.DOTALL)
    return [" ".join(html.unescape(re.sub(r"<[^>]+>", "", cell)).split()) for cell in cells]
