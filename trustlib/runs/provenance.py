"""What made a result: digests of settings and source, versions, machine."""

import ast
import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import platform
import subprocess
import threading
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import FunctionType
from typing import Any

import torch

from ..data import ROOT

VERSIONS_OF = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "seaborn",
    "papermill",
    "snakemake",
    "imagecorruptions-imaug",
    "opencv-python-headless",
    "scikit-image",
    "scikit-learn",
    "pillow",
    "safetensors",
    "pydantic",
    "pyyaml",
)


def digest(content: Any) -> str:
    """SHA-256 of anything JSON can hold, 16 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@lru_cache
def source_digest(*objects: type | FunctionType) -> str:
    """A digest of what functions and classes of trustlib do, and of all they use of the modules in `TRACED`.

    Comments, docstrings and layout do not change it, nor does what stands in the same file and is not used.
    """
    found: dict[str, str] = {}
    for thing in map(inspect.unwrap, objects):
        _trace(thing.__module__, thing.__name__, found)
    return digest(found)


def module_digest(name: str) -> str:
    """A digest of all that a module of trustlib does, for what is looked up in it by a name."""
    return digest(_code(_parsed(f"trustlib.{name}")))


_DOMAINS = ("corruptions", "domains", "photos", "recolor", "stylize", "unseen")
_LEARNING = ("confidence", "data", "experiments", "folders", "heads", "losses", "networks", "oracle", "released")
_MEASURING = ("evaluation", "metrics", "resampling", "statistics")
TRACED = tuple(f"trustlib.{name}" for name in (*_LEARNING, "training", *_DOMAINS, *_MEASURING))
_PARSER = threading.Lock()  # CPython 3.11 counts the parser's depth for all threads at once: two may fail
# Where tracing ends: tables, whose chosen entry is given by itself, and ways to fetch data, which has checksums.
ENDS = {"LOSSES", "DATASETS", "_fetch_fashion", "_fetch_mnist", "_fetch_cifar10"}


def _trace(module: str, name: str, found: dict[str, str]) -> None:
    """Add what a module defines as `name`, and what that uses, to `found`: name -> source."""
    key = f"{module}.{name}"
    definitions, imports = _contents(module)
    if module not in TRACED or name in ENDS or key in found or name not in definitions:
        return
    found[key], used = definitions[name]
    for head, attribute in used:
        if head in definitions:
            _trace(module, head, found)
        elif head in imports:
            where, what = imports[head]
            _trace(where, what or attribute, found)


def _parsed(module: str) -> ast.Module:
    with _PARSER:
        return ast.parse(_SOURCE[module])


@lru_cache
def _contents(module: str) -> tuple[dict, dict]:
    """What a module of trustlib defines, name -> (source, names used), and imports from trustlib, name -> origin."""
    definitions, imports = {}, {}
    if module not in _SOURCE:
        return definitions, imports
    for node in _parsed(module).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for alias in node.names:
                origin = (f"trustlib.{node.module}", alias.name) if node.module else (f"trustlib.{alias.name}", "")
                imports[alias.asname or alias.name] = origin
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", node)]
        names = [getattr(node, "name", None), *(n.id for t in targets for n in _targets(t))]
        definitions |= {name: (_code(node), _names(node)) for name in names if name}
    return definitions, imports


def _targets(target: ast.AST) -> list[ast.Name]:
    """The names that an assignment's target sets: one, or those of a tuple."""
    return [n for n in getattr(target, "elts", [target]) if isinstance(n, ast.Name)]


def _names(node: ast.AST) -> list[tuple[str, str]]:
    """(name, attribute taken of it or "") for every name that a piece of source reads."""
    attributes = {id(n.value): n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
    return [(n.id, attributes.get(id(n), "")) for n in ast.walk(node) if isinstance(n, ast.Name)]


def _code(tree: ast.AST) -> str:
    """Source without comments, docstrings and layout."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def job_digest(notebook: str, modules: Iterable[str]) -> str:
    """A digest of a notebook's cells, prose too, and of modules of trustlib; outputs do not change it."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells]
    return digest([sources, [module_digest(name) for name in modules]])


# Read when this module is: a file edited while a process runs is not what that process runs.
_SOURCE = {f"trustlib.{path.stem}": path.read_text() for path in Path(__file__).parent.glob("*.py")}


def provenance() -> dict:
    """Commit, versions and machine of this process."""
    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": any(_git(*question) != "" for question in (_CHANGED, _ADDED)),  # not known to be clean
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        "processor": processor(),
        "processor model": ", ".join(f"{name} {_cpu()[name]}" for name in _MODEL if name in _cpu()),
        "threads": torch.get_num_threads(),
    }


_CHANGED = ("status", "--porcelain", "--untracked-files=no")
_ADDED = ("ls-files", "--others", "--exclude-standard", "trustlib", "studies")
_MODEL = ("cpu family", "model", "stepping")  # x86's; last bits hang on it, and names such as "Xeon" hide it


def processor() -> str:
    """The processor's name, as the machine gives it."""
    return _cpu().get("model name") or platform.processor() or platform.machine()


@lru_cache
def _cpu() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    with contextlib.suppress(OSError):
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first)}
    return {}


def _git(*args: str) -> str | None:
    try:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
