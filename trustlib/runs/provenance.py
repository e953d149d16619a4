"""What made a result: digests of settings and source, versions, machine."""

import ast
import contextlib
import hashlib
import importlib.metadata
import inspect
import json
import platform
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

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
def source_digest(*names: str, function: Callable | None = None) -> str:
    """A digest of what modules of trustlib do: comments, docstrings and layout do not change it.

    Parameters
    ----------
    names : of modules, such as "training" or "runs.networks", or of folders, all of whose modules count.
    function : one that counts by itself, with the private helpers of its module, such as a loss among others.
    """
    found = [
        _codes()[name] for name in sorted(_codes()) if any(f"{name}.".startswith(f"{wanted}.") for wanted in names)
    ]
    if function is not None:
        module = ast.parse(inspect.getsource(sys.modules[inspect.unwrap(function).__module__]))
        helpers = [n for n in module.body if isinstance(n, ast.FunctionDef) and n.name.startswith("_")]
        found += [_code(n) for n in helpers] + [_code(ast.parse(textwrap.dedent(inspect.getsource(function))))]
    return digest(found)


@lru_cache
def _codes() -> dict[str, str]:
    """Module of trustlib -> what it does, read when this is first asked: what is edited later is not what runs here."""
    root = ROOT / "trustlib"
    paths = {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.rglob("*.py")}
    return {name.removesuffix(".__init__"): _code(ast.parse(path.read_text())) for name, path in paths.items()}


def _code(tree: ast.AST) -> str:
    """Source without comments, docstrings and layout."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def notebook_digest(notebook: str) -> str:
    """A digest of a notebook's cells, prose too, and of trustlib; outputs do not change it."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
    return digest([["".join(cell["source"]) for cell in cells], _codes()])


def provenance() -> dict:
    """Commit, versions and machine of this process."""
    import torch  # here, since the Snakefile reads this module and torch takes seconds

    return {
        "commit": _git("rev-parse", "HEAD") or "unknown",
        "dirty": any(_git(*question) != "" for question in (_CHANGED, _ADDED)),  # not known to be clean
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        "processor": processor(),
        "processor model": ", ".join(f"{name} {_cpu()[name]}" for name in _MODEL if name in _cpu()),
        "threads": torch.get_num_threads(),
    }


_CHANGED = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!results")  # what is published is no source
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
