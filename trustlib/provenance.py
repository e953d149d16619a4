"""What made a result: digests of settings and source, versions, machine."""

import ast
import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import platform
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch

from .data import ROOT

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
)


def digest(content: Any) -> str:
    """SHA-256 of anything JSON can hold, 16 hex digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def source_digest(*objects: ModuleType | type | FunctionType) -> str:
    """A digest of what trustlib's modules, or classes and functions at a module's top level, do.

    Comments, docstrings and layout do not change it.
    """
    trees = []
    for thing in map(inspect.unwrap, objects):
        if isinstance(thing, ModuleType):
            trees.append(_code(_SOURCE[thing.__name__]))
        else:
            trees.append(_code(_SOURCE[thing.__module__], thing.__name__))
    return digest(trees)


def job_digest(notebook: str, modules: Iterable[str]) -> str:
    """A digest of a notebook's code cells and of modules of trustlib; outputs do not change it."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return digest([code, [_code(_SOURCE[f"trustlib.{name}"]) for name in modules]])


@lru_cache(maxsize=256)
def _code(source: str, name: str | None = None) -> str:
    """The syntax tree of a module, or of what it defines as `name`, without docstrings."""
    tree = ast.parse(source)
    if name is not None:
        tree = next(node for node in tree.body if getattr(node, "name", None) == name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


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
