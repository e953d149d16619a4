"""Everything a study leaves on disk: this module alone knows the layout of results/.

    results/runs/<study>/classifiers/<name>/seed<k>.safetensors       a classifier and what the oracles need of it
                         confidences/<name>.safetensors               the scores of a classifier that need no oracle
                         classifiers/<name>/fold<k>.safetensors       cross-fitted labels of one fold
                         features/<backbone>.safetensors              what a backbone makes of the images
                         heads/<classifier>.safetensors               z of heads fitted on a classifier's features
                         oracles/<pair>/<arm>/seed<k>.safetensors     an oracle, its z, its history
                         oracles/<pair>/<arm>/rate<r>-seed<k>...      the same at another rate than the study's
                         oracles/<pair>/<arm>/seed<k>.failed.json     a training that failed, with its traceback
                         domains/<domain>/images/<made for>.safetensors  the images of a distribution shift
                         domains/<domain>/<classifier or pair>.safetensors  what was said of them
                         sweeps/<domain>/...                          the same, for the curves against severity
                         bootstraps/<pair>/<score>.safetensors        resampled metrics of a score
                         jobs/<job>.json                              what one notebook made: Snakemake's outputs
                         notebooks/<job>.ipynb, .log                  executed notebooks: logs, never results
                         sections/*.ipynb, tables/*.csv, figures/*.svg, report.html
                         report.json                                  what made the page: commit, versions, machine
    results/<study>/                                                  what `publish` copies from there, committed

While a training runs, its last checkpoint lies next to its file, as .NAME.checkpoint.pt.

A training is one safetensors file, written last and by one rename, whose header holds its manifest. The manifest's
key is a digest of the configuration, the inputs and the source that made the file: a file with another key is stale
and is made again, as is one that cannot be read.
"""

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..data import ROOT
from ..study import Study
from .provenance import digest, provenance

# --- Where things lie ---


def run_folder(study: Study) -> Path:
    """results/runs/<study>; the environment variable TRUST_RESULTS replaces results/."""
    return results() / "runs" / study.name


def results() -> Path:
    return Path(os.environ.get("TRUST_RESULTS") or ROOT / "results")


def classifier_path(study: Study, name: str, seed: int | None = None) -> Path:
    """Of the classifier that is judged, the one of the first seed, unless another seed is asked for."""
    seed = study.classifier_seeds[0] if seed is None else seed
    return run_folder(study) / "classifiers" / name / f"seed{seed}.safetensors"


def confidence_path(study: Study, name: str) -> Path:
    return run_folder(study) / "confidences" / f"{name}.safetensors"


def fold_path(study: Study, name: str, fold: int) -> Path:
    return run_folder(study) / "classifiers" / name / f"fold{fold}.safetensors"


def features_path(study: Study, backbone: str) -> Path:
    return run_folder(study) / "features" / f"{backbone}.safetensors"


def heads_path(study: Study, name: str) -> Path:
    return run_folder(study) / "heads" / f"{name}.safetensors"


def bootstrap_path(study: Study, score: str) -> Path:
    return run_folder(study) / "bootstraps" / f"{score}.safetensors"


def domain_path(study: Study, part: str, name: str) -> Path:
    """Of a classifier or a pair on a distribution shift; part: "domains/..." or "sweeps/..."."""
    return run_folder(study) / part / f"{name}.safetensors"


def oracle_path(study: Study, pair: str, arm: str, seed: int, rate: float | None = None) -> Path:
    return run_folder(study) / "oracles" / f"{oracle_name(study, pair, arm, seed, rate)}.safetensors"


def oracle_name(study: Study, pair: str, arm: str, seed: int, rate: float | None = None) -> str:
    """PAIR/ARM/seedK, with the rate where it is not the one the method has by itself."""
    own = rate is None or rate == study.recipe(pair, arm).rate
    return f"{pair}/{arm}/seed{seed}" if own else f"{pair}/{arm}/rate{rate:g}-seed{seed}"


def job_path(study: Study, job: str) -> Path:
    return run_folder(study) / "jobs" / f"{job}.json"


# --- Files that are complete or absent ---


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


def read_manifest(path: Path) -> dict | None:
    """The manifest in a training's file; None where there is none, or it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return _manifest(file)
    except (FileNotFoundError, SafetensorError):
        return None


def _manifest(file: Any) -> dict | None:
    with contextlib.suppress(KeyError, TypeError, ValueError):  # a damaged header
        return json.loads(file.metadata()["manifest"])
    return None


def read_tensors(path: Path | str, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a training's file whose names begin with `prefix`, without it."""
    with safe_open(path, "pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 (it is no dict)
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def cached(path: Path, config: dict, make: Callable[[], tuple[dict[str, Tensor], dict]]) -> dict:
    """The manifest of the training at `path`, made first unless it is there with the same configuration.

    Parameters
    ----------
    path : the safetensors file.
    config : all that the result depends on: settings, inputs, source. Its digest is the key.
    make : returns the tensors to store and further entries for the manifest, such as the history.

    Raises
    ------
    Whatever `make` raises, after writing it, with its traceback, beside `path` as ``.failed.json``.
    """
    if manifest := current(path, config):
        return manifest
    with _alone(path):  # another job may be making it: then it is read
        _clear(path)
        return current(path, config) or _make(path, config, make)


def _clear(path: Path) -> None:
    """Remove what processes that were killed had begun to write of a training, which no other makes now."""
    for name in (path.name, _checkpoint(path).name):
        for part in path.parent.glob(f".{glob.escape(name)}.????????"):
            part.unlink()


def _make(path: Path, config: dict, make: Callable[[], tuple[dict[str, Tensor], dict]]) -> dict:
    failed = path.with_suffix(".failed.json")
    start = time.perf_counter()
    started = datetime.now(UTC).isoformat(timespec="seconds")
    manifest: dict[str, Any] = {"key": digest(config), "config": config, "started": started}
    try:
        tensors, extra = make()
    except Exception as error:
        write_json(failed, {**manifest, "error": _first_line(error), "traceback": traceback.format_exc()})
        raise
    manifest |= {"seconds": round(time.perf_counter() - start, 2), **extra, "provenance": provenance()}
    tensors = {name: tensor.contiguous().cpu() for name, tensor in sorted(tensors.items())}
    manifest = json.loads(json.dumps(manifest))  # as it will be read
    with atomic(path) as scratch:
        save_file(tensors, scratch, {"manifest": json.dumps(manifest)})
    for stale in (failed, _checkpoint(path)):
        stale.unlink(missing_ok=True)
    return manifest


class Checkpoints:
    """The state of an unfinished training, kept next to its file; it goes when the training is done.

    path : of the training's file
    config : all that the training depends on; what was kept under another is not taken up
    minutes : between two
    """

    def __init__(self, path: Path, config: dict, minutes: float, log: Callable[[str], None] = print):
        self.path, self.key = _checkpoint(path), digest(config)
        self.seconds, self.log = 60 * minutes, log
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
            self.log(f"no checkpoint written, the last one stays: {_first_line(error)}")

    def latest(self) -> dict | None:
        """The last state of this training, on the CPU; None where there is none."""
        if not self.path.exists():
            return None
        state = torch.load(self.path, map_location="cpu", weights_only=True)
        if state["key"] != self.key:
            return None
        self.log(f"{self.path.parent.name}/{self.path.name}: going on after {state['steps']:,} steps")
        return state


def _checkpoint(path: Path) -> Path:
    return path.with_name(f".{path.stem}.checkpoint.pt")


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process makes the file at `path`; the lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.stem}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def current(path: Path, config: dict) -> dict | None:
    """The manifest of the training at `path`, if it was made with this configuration."""
    manifest = read_manifest(path)
    return manifest if manifest and manifest.get("key") == digest(config) else None


def status(path: Path, config: dict) -> dict:
    """What is known of a training: its status, "done", "failed" or "not run", and what goes with it.

    See `experiments.trainings`.
    """
    if manifest := current(path, config):
        done = {"status": "done", "loss": manifest["history"][-1]["loss"] if "history" in manifest else None}
        return done | {name: manifest[name] for name in ("seconds", "device", "key", "provenance")}
    with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):  # damaged: as if it were not there
        failed = json.loads(path.with_suffix(".failed.json").read_text())
        if failed["key"] == digest(config):
            return {"status": "failed", "error": failed["error"], "traceback": failed["traceback"]}
    return {"status": "not run"}


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of a folder's report, tables, figures and scores, and of the notebooks that the report is made of."""
    found = {}
    for kind in ("report.html", "scores.npz", "sections/*.ipynb", "tables/*", "figures/*"):
        for path in sorted(folder.glob(kind)):
            with contextlib.suppress(IsADirectoryError), path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
