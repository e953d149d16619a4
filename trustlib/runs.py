"""Everything a study leaves on disk: this module alone knows the layout of results/.

    results/runs/<study>/classifiers/<name>/seed<k>.safetensors       a classifier and what the oracles need of it
                         confidences/<name>.safetensors               the scores of a classifier that need no oracle
                         classifiers/<name>/fold<k>.safetensors       cross-fitted labels of one fold
                         features/<backbone>.safetensors              what a backbone makes of the images
                         heads/<classifier>.safetensors               z of heads fitted on a classifier's features
                         oracles/<pair>/<arm>/seed<k>.safetensors     an oracle, its z, its history
                         oracles/<pair>/<arm>/rate<r>-seed<k>...      the same at another rate than the study's
                         oracles/<pair>/<arm>/seed<k>.failed.json     a training that failed, with its traceback
                         domains/<domain>/images/<made for>.safetensors  the images of an unseen domain
                         domains/<domain>/<classifier or pair>.safetensors  what was said of them
                         sweeps/<domain>/...                          the same, for the curves against severity
                         bootstraps/<pair>/<score>.safetensors        resampled metrics of a score
                         jobs/<job>.json                              what one notebook made: Snakemake's outputs
                         notebooks/<job>.ipynb, .log                  executed notebooks: logs, never results
                         sections/*.ipynb, tables/*.csv, figures/*.svg, report.html
                         seal.json                                    checksums of these, and what made the page
    results/<study>/                                                  what `publish` copies from there, committed

While a training runs, its last two checkpoints lie beside its file, as .NAME.checkpoint<i>.pt; each begins with the
SHA-256 of the rest.

A training is one safetensors file, written last and by one rename, whose header holds its manifest. The manifest's
key is a digest of the configuration, the inputs and the source that made the file: a file with another key is stale.
Its sha256 is that of all the rest of the file: one that says otherwise is damaged. What is stale or damaged is made
again.
"""

import ast
import contextlib
import fcntl
import glob
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .data import ROOT
from .provenance import digest, provenance
from .study import Study, nearest

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
    """Of a classifier or a pair on an unseen domain; part: "domains/..." or "sweeps/..."."""
    return run_folder(study) / part / f"{name}.safetensors"


def oracle_path(study: Study, pair: str, arm: str, seed: int, rate: float | None = None) -> Path:
    return run_folder(study) / "oracles" / f"{oracle_name(study, pair, arm, seed, rate)}.safetensors"


def oracle_name(study: Study, pair: str, arm: str, seed: int, rate: float | None = None) -> str:
    """PAIR/ARM/seedK, with the rate where it is not the one the arm has by itself."""
    own = rate is None or rate == study.recipe(pair, arm).rate
    return f"{pair}/{arm}/seed{seed}" if own else f"{pair}/{arm}/rate{rate:g}-seed{seed}"


def job_path(study: Study, job: str) -> Path:
    return run_folder(study) / "jobs" / f"{job}.json"


# --- Files that are whole or not there ---


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
    """The manifest in a training's file; None where there is no whole file."""
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
    for whole in (path, *_checkpoints(path)):
        for part in path.parent.glob(f".{glob.escape(whole.name)}.????????"):
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
    manifest["sha256"] = _checksum(manifest, tensors.items())
    with atomic(path) as scratch:
        save_file(tensors, scratch, {"manifest": json.dumps(manifest)})
    for stale in (failed, *_checkpoints(path)):
        stale.unlink(missing_ok=True)
    return manifest


_SIGNED = hashlib.sha256().digest_size  # bytes that a checkpoint begins with: the SHA-256 of all that follows


class Checkpoints:
    """The state of an unfinished training, kept beside its file; it goes when the training is done.

    path : of the training's file
    config : all that the training depends on; what was kept under another is not taken up
    minutes : between two
    """

    def __init__(self, path: Path, config: dict, minutes: float, log: Callable[[str], None] = print):
        self.paths, self.key, self.seconds, self.log = _checkpoints(path), digest(config), 60 * minutes, log
        self.last = time.monotonic()

    def due(self, steps: int) -> bool:
        """Is it time for the next?"""
        return time.monotonic() - self.last >= self.seconds

    def save(self, state: dict) -> None:
        """Write a state in place of the older of the two. A full disk is told of and does not stop the training."""
        self.last = time.monotonic()
        older = min(self.paths, key=lambda path: path.stat().st_mtime_ns if path.exists() else 0)
        try:
            with atomic(older) as scratch, scratch.open("w+b") as file:
                file.write(bytes(_SIGNED))
                torch.save({"key": self.key, **state}, file)
                file.seek(_SIGNED)
                signature = hashlib.file_digest(file, "sha256").digest()
                file.seek(0)
                file.write(signature)
        except (OSError, RuntimeError) as error:  # torch.save raises the second where a disk is full
            self.log(f"no checkpoint written, the last one stays: {_first_line(error)}")

    def latest(self) -> dict | None:
        """The newest whole state of this training, on the CPU; None where there is none."""
        found = [path for path in self.paths if path.exists()]
        for path in sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True):
            with path.open("rb") as file:  # torch would take other numbers for a state
                signature = file.read(_SIGNED)
                if hashlib.file_digest(file, "sha256").digest() != signature:
                    self.log(f"{path} is damaged, or by an older version: its checksum is another, it is not used")
                    continue
                file.seek(_SIGNED)
                state = torch.load(file, map_location="cpu", weights_only=True)
            if state["key"] == self.key:
                self.log(f"{path.parent.name}/{path.name}: going on after {state['steps']:,} steps")
                return state
        return None


def _checkpoints(path: Path) -> list[Path]:
    return [path.with_name(f".{path.stem}.checkpoint{i}.pt") for i in (0, 1)]


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Wait until no other process makes the file at `path`; the lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f".{path.stem}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def current(path: Path, config: dict) -> dict | None:
    """The manifest of the training at `path`, if it was made with this configuration and the file is as it was written.

    That a file is damaged is printed.
    """
    manifest = read_manifest(path)
    if not path.exists() or (manifest and manifest.get("key") != digest(config)):
        return None
    return manifest if whole(path) else None


def whole(path: Path) -> bool:
    """Whether a training's file, or that of resampled metrics, is as it was written; that it is not is printed."""
    if read_manifest(path) is None:
        print(f"{path} is damaged, it cannot be read: it has to be made again")
        return False
    written = path.stat()
    return _is_whole(path, written.st_mtime_ns, written.st_size)


@cache
def _is_whole(path: Path, *_: int) -> bool:
    """Whether a training's file has its checksum; asked once a process, as long as time and size stay."""
    with safe_open(path, "pt") as file:
        manifest, names = _manifest(file) or {}, sorted(file.keys())
        found = _checksum(manifest, ((name, file.get_tensor(name)) for name in names))
    if found != manifest.get("sha256"):
        print(f"{path} is damaged, its checksum is another than when it was written: it has to be made again")
    return found == manifest.get("sha256")


def _checksum(manifest: dict, tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 of a manifest, but for its own line of that, and of tensors in the order of their names."""
    rest = {name: value for name, value in manifest.items() if name != "sha256"}
    found = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
    for name, tensor in tensors:
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


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


# --- Jobs: one executed notebook each ---


class JobError(RuntimeError):
    """A notebook could not do all it was asked to; what it did is kept."""


def check_parameters(cells: list[str]) -> None:
    """Refuse a parameter that the notebook does not declare; papermill only warns and goes on with the default.

    Parameters
    ----------
    cells : the source of the cells run so far: ``In``, in a notebook. papermill's injected cell begins with
        "# Parameters" and follows the notebook's own; without one there is nothing to check.

    Raises
    ------
    JobError : naming the parameter and the nearest declared one.
    """
    for own, injected in itertools.pairwise(cells):
        if injected.startswith("# Parameters"):
            declared, given = _assigned(own), _assigned(injected)
            for name in given:
                if name not in declared:
                    raise JobError(f"this notebook has no parameter {name!r}{nearest(name, declared)}")


def _assigned(cell: str) -> list[str]:
    """The names that a cell of plain assignments sets."""
    assignments = [node for node in ast.parse(cell).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [t for node in assignments for t in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def attempt(tasks: Iterable[tuple[str, Callable[[], dict]]], log: Callable[[str], None] = print) -> tuple[dict, dict]:
    """Run every task, whatever becomes of the others.

    Parameters
    ----------
    tasks : (name, function that returns a manifest).

    Returns
    -------
    (name -> manifest, name -> error in one line)
    """
    done, failed = {}, {}
    for name, task in tasks:
        try:
            done[name] = task()
        except Exception as error:
            failed[name] = _first_line(error)
            log(f"{name} failed: {failed[name]}")
    return done, failed


def finish_job(study: Study, job: str, done: dict[str, dict], failed: dict[str, str]) -> Path:
    """Write the job's manifest, which Snakemake waits for, once all of it is done.

    Raises
    ------
    JobError : when something failed; then there is no manifest, and the next run repeats just what failed.
    """
    path = job_path(study, job)
    if failed:
        path.unlink(missing_ok=True)
        lines = "\n".join(f"  {name}: {error}" for name, error in failed.items())
        raise JobError(f"{len(failed)} of {len(done) + len(failed)} trainings failed:\n{lines}")
    made = {name: {"key": manifest["key"], "seconds": manifest["seconds"]} for name, manifest in done.items()}
    write_json(path, {"job": job, "trainings": made})
    return path


# --- The report and what it is made of ---


def seal(folder: Path) -> None:
    """Write into a report's folder what made it, commit and machine, and the checksums of all that belongs to it."""
    said = {"provenance": provenance(), "sha256": checksums(folder)}
    write_json(folder / "seal.json", said | {"key": digest(said)})


def sealed(folder: Path) -> dict:
    """What `seal` wrote: provenance and sha256; nothing where a report was not finished, or its seal is damaged."""
    with contextlib.suppress(FileNotFoundError, ValueError, AttributeError, TypeError):  # no JSON, or no object in it
        said = json.loads((folder / "seal.json").read_text())
        if said.pop("key", None) == digest(said):
            return said
    return {}


def damaged(folder: Path) -> list[Path]:
    """Of the files that `seal` saw those that have changed since, or are gone; none where there is no seal."""
    found = checksums(folder)
    return [folder / name for name, said in sealed(folder).get("sha256", {}).items() if found.get(name) != said]


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of a folder's report, tables, figures and scores, and of the notebooks that the report is made of."""
    found = {}
    for kind in ("report.html", "scores.npz", "sections/*.ipynb", "tables/*", "figures/*"):
        for path in sorted(folder.glob(kind)):
            with contextlib.suppress(IsADirectoryError), path.open("rb") as file:
                found[str(path.relative_to(folder))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def publish(study: Study, trainings: list[dict], audit: Sequence[dict] = ()) -> list[Path]:
    """Copy a finished run's report, tables, figures, manifests and scores, without weights, to results/<study>.

    The scores are RUN.NAME, on the test set, and RUN.heldout.NAME, on the validation set: correct, mcp, predicted (the
    class, int16) of each classifier, z of each oracle, every score of a classifier; of domains what their files hold.

    Parameters
    ----------
    trainings : what `experiments.trainings` and `unseen.visits` return.
    audit : what there is of `controls.trainings` and of the sweeps: published as tables and manifests, without their
        many scores.

    Returns
    -------
    What was written.

    Raises
    ------
    JobError : when a training or the report is missing, or one of them was made from uncommitted source.
    """
    source, target = run_folder(study), results() / study.name
    report = sealed(source).get("provenance")
    unfinished = [row["run"] for row in trainings if row["status"] != "done"]
    page = source / "report.html"
    if changed := damaged(source):
        raise JobError(f"{changed[0]} is not as the report left it; run: make report STUDY={study.name}")
    if (
        unfinished
        or report is None
        or not page.exists()
        or page.stat().st_mtime < max(row["path"].stat().st_mtime for row in (*trainings, *audit))
    ):
        lacking = ", ".join(unfinished[:3]) or "a report of these trainings"
        raise JobError(f"study {study.name} is not finished (lacking {lacking}); run: make report STUDY={study.name}")
    if target.exists() and not (target / "scores.npz").exists():
        raise JobError(f"{target} is no study's: move it, or rename the study; `publish` would replace it")
    manifests = {row["run"]: read_manifest(row["path"]) for row in (*trainings, *audit)}
    if any(manifest["provenance"]["dirty"] for manifest in manifests.values()):
        raise JobError(
            f"study {study.name} was run from uncommitted changes: commit, remove {source}, and run it again"
        )
    if report["dirty"]:
        raise JobError(
            f"the report of study {study.name} was made from uncommitted changes: commit, remove "
            f"{source / 'sections'}, and run: make report STUDY={study.name}"
        )
    scores = {}
    for row in trainings:
        scores |= {f"{row['run']}.{name}": tensor.numpy() for name, tensor in _scores(row["kind"], row["path"]).items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:  # whole before it takes the old one's place
        new = Path(scratch) / study.name
        new.mkdir()
        shutil.copy(page, new)
        for name in ("tables", "figures"):
            shutil.copytree(source / name, new / name, ignore=_without_rows)
        np.savez_compressed(new / "scores.npz", **scores)
        images = study.images()
        facts = {"report": report, "classes": len(images.classes), "channels": images.channels}
        facts |= {"sha256": checksums(new)}
        write_json(new / "manifest.json", _without_repetition(manifests) | facts)
        before = Path(scratch) / "before"
        if target.exists():
            target.rename(before)
        try:
            new.rename(target)
        except OSError:
            if before.exists():
                before.rename(target)
            raise
    return sorted(path for path in target.rglob("*") if path.is_file())


def _scores(kind: str, path: Path) -> dict[str, Tensor]:
    """What `publish` keeps of a file: name -> tensor, those of the validation set under "heldout."."""
    if kind == "images":
        return {}
    if kind in ("observed", "asked"):
        return read_tensors(path)
    kept = {}
    for part, before in (("test.", ""), ("heldout.", "heldout.")):
        found = read_tensors(path, part)
        if kind == "classifier":
            kept[f"{before}predicted"] = found["logits"].argmax(1).short()
        names = {"classifier": ("correct", "mcp"), "oracle": ("z",)}.get(kind, found)
        kept |= {before + name: found[name] for name in names}
    return kept


def _without_rows(folder: str, names: list[str]) -> list[str]:
    """Tables that hold nothing but their head, or not even that: what the study does not have, such as controls."""
    return [name for name in names if name.endswith(".csv") and len((Path(folder) / name).read_text().splitlines()) < 2]


def _without_repetition(manifests: dict[str, dict]) -> dict:
    """Manifests with what many of them share, their provenance, given once: provenance (by number) and runs."""
    shared, rows = [], {}
    for name, manifest in manifests.items():
        if manifest["provenance"] not in shared:
            shared.append(manifest["provenance"])
        rows[name] = manifest | {"provenance": shared.index(manifest["provenance"])}
    return {"provenance": shared, "runs": rows}


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
