"""Everything a study leaves on disk: this module alone knows the layout of results/.

    results/runs/<study>/<step>.safetensors        what a step has made, see below
                         <step>.failed.json        how its last try failed, with the traceback
                         jobs/<job>.done           a notebook that has run: Snakemake's outputs
                         notebooks/<job>.ipynb     executed notebooks, with a .log each: logs, never results
                         tables/*.csv, figures/*.svg, report.html
                         report.json               what made the page: commit, versions, machine
                         report-unfinished.html    what there is where a job failed
    results/<study>/                               what `publish` copies from there, committed

The steps of `trustlib.runs.steps` and `trustlib.runs.shifted`:

    classifiers/<network>/seed<k>                  a classifier and what its oracles need of it
    classifiers/<network>/confidences              the scores of a classifier that need no oracle
    classifiers/<network>/fold<k>                  cross-fitted labels of one fold
    features/<network or pair>                     outputs of a frozen backbone
    heads/<network>                                z of heads fitted on a classifier's features
    oracles/<pair>/<method>/seed<k>                an oracle, its z, its history
    oracles/<pair>/<method>/rate<r>-seed<k>        the same at another learning rate than the method's
    domains/<shift>/images/<made for>              the images of a distribution shift
    domains/<shift>/<network or pair>              the outputs of a classifier, or of a pair's oracles, on them
    sweeps/<shift>/...                             the same, for the curves against severity
    bootstraps/<digest>                            resampled metrics of a score
"""

import contextlib
import glob
import hashlib
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..data import ROOT
from ..study import Study
from .jobs import first_line
from .provenance import digest, provenance

Log = Callable[[str], None]
Made = tuple[dict[str, Tensor], dict]  # tensors to store, facts for the manifest


def run_folder(study: Study) -> Path:
    """results/runs/<study>; the environment variable TRUST_RESULTS replaces results/."""
    return results() / "runs" / study.name


def results() -> Path:
    return Path(os.environ.get("TRUST_RESULTS") or ROOT / "results")


@dataclass(frozen=True, eq=False)
class Step:
    """One file of a run and all that its content depends on: made once, then read. Equal where file and key are.

    folder : of the run
    name : of the file below it, without its ending, as listed above
    kind : "classifier", "fold", "features", "confidences", "oracle", "heads", "images", "observed", "asked" or
        "bootstrap"
    settings : what the content depends on, anything JSON can hold. The device is no part of it: results travel
    source : digest of the code that makes it
    make : called with the step and a function for messages, returns the tensors to store and facts for the manifest
    needs : the steps whose files it reads
    """

    folder: Path
    name: str
    kind: str
    settings: dict
    source: str
    make: Callable[["Step", Log], Made]
    needs: tuple["Step", ...] = ()

    @property
    def path(self) -> Path:
        return self.folder / f"{self.name}.safetensors"

    @property
    def run(self) -> str:
        """The name in tables and publications: NETWORK/seedK, PAIR/METHOD/seedK, domains/SHIFT/..."""
        return self.name.removeprefix("classifiers/").removeprefix("oracles/")

    @cached_property
    def key(self) -> str:
        """Digest of settings, source and needs. A file with another key is stale."""
        return digest([self.kind, self.settings, self.source, [step.key for step in self.needs]])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and (self.path, self.key) == (other.path, other.key)

    def __hash__(self) -> int:
        return hash((self.path, self.key))

    @property
    def manifest(self) -> dict | None:
        """What the file records of itself; None where there is none, or it is stale or truncated."""
        try:
            with safe_open(self.path, "pt") as file:
                manifest = json.loads(file.metadata()["manifest"])
        except (FileNotFoundError, SafetensorError):
            return None
        return manifest if manifest["key"] == self.key else None

    @property
    def failure(self) -> dict | None:
        """The last try, if it failed with this key: error, traceback, and diverged (a value was not finite)."""
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            failure = json.loads(self._failed.read_text())
            return failure if failure["key"] == self.key else None
        return None

    @property
    def is_done(self) -> bool:
        return self.manifest is not None

    def get(self, log: Log = print) -> "Step":
        """This step, made first, with all that it needs, unless it is there.

        Another process that makes it meanwhile is waited for.

        Raises
        ------
        Whatever `make` raises, after writing it beside the file.
        """
        if self.is_done:
            return self
        for step in self.needs:
            step.get(log)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(f".{self.path.stem}.lock")):
            if not self.is_done:
                self._write(log)
        return self

    def tensors(self, prefix: str = "") -> dict[str, Tensor]:
        """The tensors whose names begin with `prefix`, without it."""
        return read_tensors(self.path, prefix)

    def row(self) -> dict:
        """One row of the table of runs.

        Returns
        -------
        kind, run (its name), status ("done", "failed" or "not run", which a stale file counts as). When done: loss
        (the last; None where nothing was trained), seconds, device, key, provenance; when failed: error, traceback.
        """
        row: dict[str, Any] = {"kind": self.kind, "run": self.run}
        if manifest := self.manifest:
            loss = manifest["history"][-1]["loss"] if manifest.get("history") else None
            facts = {name: manifest[name] for name in ("seconds", "device", "key", "provenance")}
            return row | {"status": "done", "loss": loss} | facts
        if failure := self.failure:
            return row | {"status": "failed", "error": failure["error"], "traceback": failure["traceback"]}
        return row | {"status": "not run"}

    def checkpoints(self, minutes: float, log: Log) -> "Checkpoints":
        """Where the state of its unfinished training is kept, see `trustlib.training.train`."""
        return Checkpoints(self._checkpoint, self.key, minutes, log)

    @property
    def _failed(self) -> Path:
        return self.path.with_suffix(".failed.json")

    @property
    def _checkpoint(self) -> Path:
        return self.path.with_name(f".{self.path.stem}.checkpoint.pt")

    def _write(self, log: Log) -> None:
        for name in (self.path.name, self._checkpoint.name):  # left by processes that were killed
            for leftover in self.path.parent.glob(f".{glob.escape(name)}.????????"):
                leftover.unlink()
        started, start = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
        about: dict[str, Any] = {"key": self.key, "config": {"kind": self.kind} | self.settings, "started": started}
        try:
            tensors, facts = self.make(self, log)
        except Exception as error:
            diverged = isinstance(error, FloatingPointError)
            failure = {"error": first_line(error), "traceback": traceback.format_exc(), "diverged": diverged}
            write_json(self._failed, about | failure)
            raise
        about |= {"seconds": round(time.perf_counter() - start, 2), **facts, "provenance": provenance()}
        tensors = {name: tensor.contiguous().cpu() for name, tensor in sorted(tensors.items())}
        with atomic(self.path) as scratch:
            save_file(tensors, scratch, {"manifest": json.dumps(about)})
        for stale in (self._failed, self._checkpoint):
            stale.unlink(missing_ok=True)


class Checkpoints:
    """The state of an unfinished training, kept next to its file; it goes when the training is done.

    path : of the state
    key : of the training; a state of another is not taken up
    minutes : between two
    """

    def __init__(self, path: Path, key: str, minutes: float, log: Log = print):
        self.path, self.key, self.log = path, key, log
        self.seconds = 60 * minutes
        self.last = time.monotonic()

    def due(self, steps: int) -> bool:
        """Whether it is time for the next."""
        return time.monotonic() - self.last >= self.seconds

    def save(self, state: dict) -> None:
        """Write a state in place of the last one. A full disk is logged and does not stop the training."""
        self.last = time.monotonic()
        try:
            with atomic(self.path) as scratch:
                torch.save({"key": self.key, **state}, scratch)
        except (OSError, RuntimeError) as error:  # torch.save raises the second where a disk is full
            self.log(f"no checkpoint written, the last one stays: {first_line(error)}")

    def latest(self) -> dict | None:
        """The last state of this training, on the CPU; None where there is none."""
        if not self.path.exists():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["key"] != self.key:
            return None
        self.log(f"{self.path.parent.name}/{self.path.name}: going on after {state['steps']:,} steps")
        return state


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes `path`'s place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        yield Path(scratch)
        with open(scratch, "rb") as written:
            os.fsync(written.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    finally:
        Path(scratch).unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    with atomic(path) as scratch:
        scratch.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def figure_path(study: Study, name: str) -> Path:
    """Where a figure of the study's report is saved."""
    return run_folder(study) / "figures" / f"{name}.svg"


def write_table(study: Study, name: str, frame: pd.DataFrame, digits: str | None = "%.6g") -> None:
    """Write a table of the study's report as tables/NAME.csv; digits: of a number, None for all."""
    with atomic(run_folder(study) / "tables" / f"{name}.csv") as scratch:
        frame.to_csv(scratch, index=False, float_format=digits)


def read_tensors(path: Path | str, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a safetensors file whose names begin with `prefix`, without it."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (it is no dict)
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of a folder's report, tables, figures and scores."""
    sums = {}
    for kind in ("report.html", "scores.npz", "tables/*", "figures/*"):
        for path in sorted(folder.glob(kind)):
            with contextlib.suppress(IsADirectoryError), path.open("rb") as file:
                sums[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums
