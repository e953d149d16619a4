"""A study's settings, and everything it leaves on disk: this module alone knows the layout of results/.

    results/runs/<study>/classifiers/<name>.safetensors               a classifier and what the oracles need of it
                         oracles/<pair>/<arm>/seed<k>.safetensors     an oracle, its z, its history
                         oracles/<pair>/<arm>/seed<k>.failed.json     a training that failed, with its traceback
                         jobs/<job>.json                              what one notebook made: Snakemake's outputs
                         notebooks/<job>.ipynb, .log                  executed notebooks: logs, never results
                         tables/*.csv, figures/*.svg, report.html
    results/<study>/                                                  what `publish` copies from there, committed

A training is one safetensors file, written last and by one rename, whose header holds its manifest. The manifest's
key is a digest of the configuration, the inputs and the source that made the file: a file with another key is stale.
"""

import ast
import contextlib
import difflib
import hashlib
import importlib.metadata
import inspect
import itertools
import json
import os
import platform
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Literal

import torch
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from . import data, losses, oracle, released

ROOT = Path(__file__).resolve().parents[1]
VERSIONS_OF = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "matplotlib", "seaborn", "papermill", "snakemake")


class StudyError(ValueError):
    """A study's YAML, or a name that refers to it, is wrong; the message names the key and what was expected."""


# --- The study ---


class Strict(BaseModel):
    """Settings without surprises: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Recipe(Strict):
    """How a network is trained, see `trustlib.training.train`."""

    epochs: int = Field(ge=1)
    batch: int = Field(ge=1)
    rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    images: int | None = Field(default=None, ge=1)  # of the training part; all by default


class Slides(Strict):
    """The steep slope loss's two slopes."""

    alpha_pos: float = Field(gt=0)
    alpha_neg: float = Field(gt=0)


class Network(Strict):
    """A backbone: as a classifier, how it is trained; as an oracle, its steep slopes."""

    label: str  # as in the paper: ViT, RSN
    model: str  # a name in timm
    args: dict[str, Any] = {}
    training: Recipe
    steep_slope: Slides


class Arm(Strict):
    """One way to train an oracle: a loss, its form, a head."""

    label: str
    loss: str
    head: Literal["linear", "distance"]
    form: Literal["corrected", "released"] = "corrected"
    hyper: dict[str, float] = {}

    @model_validator(mode="after")
    def _known(self):
        if self.loss not in losses.LOSSES:
            raise ValueError(f"unknown loss {self.loss!r}{nearest(self.loss, losses.LOSSES)}")
        if self.form == "released" and self.loss not in released.LOSSES:
            raise ValueError(f"loss {self.loss!r} has no released form; those that have: {', '.join(released.LOSSES)}")
        return self


class Study(Strict):
    """A dataset with its classifiers, pairs, arms and seeds: one YAML file in studies/."""

    name: str
    dataset: str
    flip: bool  # train on mirrored images too
    device: str = "auto"
    threads: int = Field(default=1, ge=1)  # CPU threads of one job
    seed: int = 0  # of the classifiers
    networks: dict[str, Network]
    pairs: list[str]
    oracle: Recipe
    arms: dict[str, Arm]
    seeds: list[int] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self):
        if self.dataset not in data.DATASETS:
            raise ValueError(f"dataset: unknown dataset {self.dataset!r}{nearest(self.dataset, data.DATASETS)}")
        for pair in self.pairs:
            for name in pair.split("-"):
                if pair.count("-") != 1 or name not in self.networks:
                    raise ValueError(f"pairs: {pair!r} is not ORACLE-CLASSIFIER with names from {list(self.networks)}")
        return self

    def pair(self, pair: str) -> tuple[str, str]:
        """(oracle's, classifier's) network of a pair of this study."""
        if pair not in self.pairs:
            raise StudyError(f"study {self.name} has no pair {pair!r}{nearest(pair, self.pairs)}")
        oracle_name, classifier_name = pair.split("-")
        return oracle_name, classifier_name

    def network(self, name: str) -> Network:
        if name not in self.networks:
            raise StudyError(f"study {self.name} has no network {name!r}{nearest(name, self.networks)}")
        return self.networks[name]

    def chosen_arms(self, arms: list[str]) -> list[str]:
        """The arms asked for, all when none is."""
        for arm in arms:
            if arm not in self.arms:
                raise StudyError(f"study {self.name} has no arm {arm!r}{nearest(arm, self.arms)}")
        return list(arms or self.arms)

    def pair_label(self, pair: str) -> str:
        """<O, C> in the paper's words."""
        return "⟨{}, {}⟩".format(*(self.networks[name].label for name in pair.split("-")))

    def arm_label(self, arm: str) -> str:
        """An arm's label; MCP, which needs no training, is no arm of the study but a row of every table."""
        return "MCP" if arm == "mcp" else self.arms[arm].label


def nearest(name: str, known) -> str:
    """What to add to "unknown X": the nearest known name, or all of them."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"


def load_study(study: str) -> Study:
    """Read and check a study.

    Parameters
    ----------
    study : a name in studies/, or the path of a YAML file.

    Raises
    ------
    StudyError : when there is no such study, or a key in it is unknown, missing or of the wrong type.
    """
    path = Path(study) if study.endswith((".yaml", ".yml")) else ROOT / "studies" / f"{study}.yaml"
    if not path.is_file():
        raise StudyError(f"unknown study {study!r}{nearest(study, sorted(p.stem for p in path.parent.glob('*.yaml')))}")
    try:
        settings = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise StudyError(f"{path.name} is not valid YAML: {error}") from None
    if not isinstance(settings, dict):
        raise StudyError(f"{path.name}: expected a mapping of keys to values, found {type(settings).__name__}")
    try:
        return Study.model_validate({"name": path.stem, **settings})
    except ValidationError as error:
        raise StudyError("\n".join(f"{path.name}: {_explain(e)}" for e in error.errors())) from None


def _explain(error: dict) -> str:
    """One pydantic error as one line: the key, what is wrong, the nearest known key."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        model = Study
        for part in error["loc"][:-1]:
            field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
            if field is not None:
                model = next((t for t in (field.annotation, *getattr(field.annotation, "__args__", ())) if _is_model(t)), model)
        return f"unknown key {where!r}{nearest(error['loc'][-1], model.model_fields)}"
    if error["type"] == "value_error":
        return f"{where}: {error['ctx']['error']}" if where else str(error["ctx"]["error"])
    found = "" if error["type"] == "missing" else f", found {error['input']!r}"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}{found}"


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


# --- Where things lie ---


def run_folder(study: Study) -> Path:
    """results/runs/<study>; the environment variable TRUST_RESULTS replaces results/."""
    return results() / "runs" / study.name


def results() -> Path:
    return Path(os.environ.get("TRUST_RESULTS") or ROOT / "results")


def classifier_path(study: Study, name: str) -> Path:
    return run_folder(study) / "classifiers" / f"{name}.safetensors"


def oracle_path(study: Study, pair: str, arm: str, seed: int) -> Path:
    return run_folder(study) / "oracles" / pair / arm / f"seed{seed}.safetensors"


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
            return json.loads(file.metadata()["manifest"])
    except (FileNotFoundError, SafetensorError):
        return None


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a training's file whose names begin with `prefix`, without it."""
    with safe_open(path, "pt") as file:
        return {name.removeprefix(prefix): file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}


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
    key = digest(config)
    manifest = read_manifest(path)
    if manifest and manifest["key"] == key:
        return manifest
    failed = path.with_suffix(".failed.json")
    start = time.perf_counter()
    manifest = {"key": key, "config": config, "started": datetime.now(UTC).isoformat(timespec="seconds")}
    try:
        tensors, extra = make()
    except Exception as error:
        path.unlink(missing_ok=True)  # what it replaces is stale
        write_json(failed, {**manifest, "error": _first_line(error), "traceback": traceback.format_exc()})
        raise
    manifest |= {"seconds": round(time.perf_counter() - start, 2), **extra, "provenance": provenance()}
    with atomic(path) as scratch:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, scratch, {"manifest": json.dumps(manifest)})
    failed.unlink(missing_ok=True)
    return manifest


def trainings(study: Study) -> list[dict]:
    """Every training the study plans, classifiers first.

    Returns
    -------
    Dicts of kind ("classifier" or "oracle"), run (its name), status ("done", "failed" or "not run"); when done: loss (the
    last), seconds, device, key; when failed: error, traceback.
    """
    planned = [("classifier", name, classifier_path(study, name)) for name in study.networks]
    for pair, arm, seed in itertools.product(study.pairs, study.arms, study.seeds):
        planned.append(("oracle", f"{pair}/{arm}/seed{seed}", oracle_path(study, pair, arm, seed)))
    rows = []
    for kind, name, path in planned:
        row = {"kind": kind, "run": name, "status": "not run"}
        failed = path.with_suffix(".failed.json")
        if failed.exists():
            row |= {"status": "failed", **{k: v for k, v in json.loads(failed.read_text()).items() if k in ("error", "traceback")}}
        elif manifest := read_manifest(path):
            row |= {"status": "done", "loss": manifest["history"][-1]["loss"], "seconds": manifest["seconds"]}
            row |= {"device": manifest["provenance"]["device"], "key": manifest["key"]}
        rows.append(row)
    return rows


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
    targets = []
    for node in ast.parse(cell).body:
        targets += node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
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
    write_json(path, {"job": job, "trainings": {name: {"key": m["key"], "seconds": m["seconds"]} for name, m in done.items()}})
    return path


# --- What made it ---


def digest(content: Any) -> str:
    """SHA-256 of anything JSON can hold, 16 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def source_digest(*objects: ModuleType | type | FunctionType) -> str:
    """A digest of what modules, or classes and functions at a module's top level, do.

    Comments, docstrings and layout do not change it. Only for what is in trustlib.
    """
    trees = []
    for thing in map(inspect.unwrap, objects):
        module = thing.__name__ if isinstance(thing, ModuleType) else thing.__module__
        tree = ast.parse(_SOURCE[module])
        if not isinstance(thing, ModuleType):
            tree = next(node for node in tree.body if getattr(node, "name", None) == thing.__name__)
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
        trees.append(ast.dump(tree))
    return digest(trees)


# Read when this module is: a file edited while a process runs is not what that process runs.
_SOURCE = {f"trustlib.{path.stem}": path.read_text() for path in Path(__file__).parent.glob("*.py")}


def provenance() -> dict:
    """Commit, versions and machine of this process."""
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else processor(),
        "threads": torch.get_num_threads(),
    }


def processor() -> str:
    """The processor's name, as the machine gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _git(*args: str) -> str:
    try:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
