"""Floors: a file of trustlib imports from the floors below it and from its own room, nothing else."""

import ast

import pytest

from trustlib.data import ROOT

FLOORS = {
    "metrics": 1, "losses": 1, "recipe": 1, "oracle": 1, "data": 1, "predictions": 1,
    "stats": 2, "released": 2, "confidence": 2, "shifts": 2, "models": 2, "training": 2,
    "study": 3,
    "analysis": 4, "runs": 4,
    "report": 5, "apply": 5,
    "__main__": 6,
}  # fmt: skip
EXCEPTIONS = {  # file -> rooms that it should not know
    "confidence.py": {"training"},
}
FILES = sorted(path for path in (ROOT / "trustlib").rglob("*.py") if path.name != "__init__.py")


def room(path):
    return path.relative_to(ROOT / "trustlib").with_suffix("").parts[0]


def imported(path):
    """The rooms, or modules of the core, from which a file imports."""
    depth = len(path.relative_to(ROOT / "trustlib").parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level < depth:
                yield room(path)
            elif node.module:
                yield node.module.split(".")[0]
            else:
                yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT / "trustlib")))
def test_a_file_imports_from_floors_below_and_from_its_own_room(path):
    own = room(path)
    above = {name for name in imported(path) if name != own and FLOORS[name] >= FLOORS[own]}
    assert above == EXCEPTIONS.get(str(path.relative_to(ROOT / "trustlib")), set())
