"""Floors: a file of trustlib imports from the floors below it and from its own room; what reads and draws, no torch."""

import ast
import subprocess
import sys

import pytest

from trustlib.data import ROOT

FLOORS = {
    "__version__": 0,
    "metrics": 1, "losses": 1, "recipe": 1, "oracle": 1, "data": 1, "predictions": 1,
    "stats": 2, "released": 2, "shifts": 2, "models": 2, "training": 2,
    "confidence": 3, "settings": 3,
    "study": 4,
    "analysis": 5, "runs": 5,
    "report": 6,
    "apply": 7,
    "__main__": 8,
}  # fmt: skip
WITH_TORCH = {  # rooms and files that work on images, networks or the files of a run
    "oracle", "training", "models", "runs", "__main__", "data.folders", "shifts.domains", "shifts.recolor",
    "shifts.stylize", "apply.oracle", "report.page", "report.publish", "report.verify",
}  # fmt: skip
FILES = sorted(path for path in (ROOT / "trustlib").rglob("*.py") if path.name != "__init__.py")
LIGHT = """
import importlib, sys

def check(name):
    found = {"torch", "torchvision", "timm", "snakemake"} & sys.modules.keys()
    assert not found, f"{name} imports {found}"

modules, studies = (argument.split() for argument in sys.argv[1:])
for name in modules:
    importlib.import_module(f"trustlib.{name}")
    check(name)
for name in studies:
    study = sys.modules["trustlib.study"].load_study(name)
    check(name)
importlib.import_module("trustlib.runs.jobs").table(study)  # as the Snakefile does, for every job anew
check("runs.jobs")
"""

TOOL = [
    *(f".apply.{name}" for name in ("page", "comparison", "gate", "sections", "display")),
    ".report.figures",
    ".report.markup",
]
CORE = """
import importlib, importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

names, refused = (argument.split() for argument in sys.argv[1:])
sys.meta_path.insert(0, Refuse())
importlib.import_module("trustlib")
heavy = {"numpy", "pandas", "matplotlib"} & sys.modules.keys()
assert not heavy, f"import trustlib imports {heavy}"
for name in names:
    importlib.import_module(f"trustlib{name}")
"""
STUDY_ALONE = """
    bs4 cv2 fcntl filelock imagecorruptions IPython ipywidgets joblib latex2mathml mlxtend nbclient nbconvert nbformat
    papermill safetensors sklearn snakemake timm torch torchvision yaml
"""


def parts(path):
    return path.relative_to(ROOT / "trustlib").with_suffix("").parts


def room(path):
    return parts(path)[0]


def imported(path):
    """The rooms, or modules of the core, from which a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level < len(parts(path)):
                yield room(path)
            elif node.module:
                yield node.module.split(".")[0]
            else:
                yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "trustlib")))
def test_a_file_imports_from_floors_below_and_from_its_own_room(path):
    own = room(path)
    assert not {name for name in imported(path) if name != own and FLOORS[name] >= FLOORS[own]}


def test_studies_are_read_and_tables_drawn_without_torch():
    light = [path for path in FILES if not {room(path), ".".join(parts(path))} & WITH_TORCH]
    modules = [".".join(parts(path)) for path in sorted(light, key=lambda path: FLOORS[room(path)])]  # the cause first
    studies = [path.stem for path in (ROOT / "studies").glob("*.yaml")]
    command = [sys.executable, "-c", LIGHT, " ".join(modules), " ".join(studies)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_tool_imports_what_it_is_installed_with_and_nothing_else():
    names = " ".join(TOOL)
    command = [sys.executable, "-c", CORE, names, STUDY_ALONE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
