"""The notebooks' form, and that the graph passes them only what they declare."""

import ast
import os
import re
import shlex
import subprocess

import nbformat
import papermill
import pytest
import yaml

from trustlib.data import ROOT
from trustlib.runs import jobs
from trustlib.study import load_study

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_is_committed_without_outputs(notebook):
    nbformat.validate(notebook)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))


def test_begins_with_a_title_and_one_cell_of_annotated_literals(notebook):
    assert notebook.cells[0].source.startswith("# ")
    first, *others = code_cells(notebook)
    assert first.metadata.tags == ["parameters"]
    assert not any("parameters" in cell.metadata.get("tags", []) for cell in others)
    for line in first.source.splitlines():
        assert re.fullmatch(r"\w+: \w+ = .+  # .+", line), line
    for node in ast.parse(first.source).body:
        assert isinstance(node, ast.AnnAssign)
        ast.literal_eval(node.value)  # raises for anything but a literal


def test_checks_its_parameters_and_reads_as_prose(notebook):
    cells = code_cells(notebook)
    folded = [cell for cell in cells if cell.metadata.get("jupyter", {}).get("source_hidden")]
    after_colab = cells[2] if "google.colab" in cells[1].source else cells[1]
    assert "check_parameters(In)" in after_colab.source
    assert len(notebook.cells) - len(cells) >= len(cells) - len(folded)  # no less prose than code that is seen
    for cell in cells:
        lines = [line for line in cell.source.splitlines() if line and not line.startswith(("import ", "from "))]
        assert len(lines) <= 25
    for cell in cells:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < (15 if cell in folded else 10)


@pytest.mark.parametrize(
    ("name", "call"), [("02_train_oracles", "training.train("), ("03_confidence", "entropy(seen)")]
)
def test_the_science_is_called_in_the_open(name, call):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    assert any(call in cell.source for cell in cells if cell.cell_type == "code")


def test_the_graph_passes_only_declared_parameters():
    study = load_study("digits")
    table = jobs.table(study, study.ablations.questions, study.domains.swept)
    given = {job.notebook: {"study", *job.parameters} for job in table.values()}
    assert given.keys() == {path.stem for path in NOTEBOOKS if path.stem[0].isdigit()} - {"00_start_here"}
    for name, parameters in given.items():
        assert parameters <= papermill.inspect_notebook(ROOT / "notebooks" / f"{name}.ipynb").keys()


def test_make_passes_notebooks_only_what_they_declare_and_can_read():
    """What the Makefile gives papermill, as a shell would hand it over."""
    outer = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    asked = ["make", "-n", "speed", "speed-gpu", "benchmark", "--assume-old=.venv/ready"]
    printed = subprocess.run(asked, cwd=ROOT, env=outer, capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"papermill .*?(?=&&|;|\n(?!\t))", printed, re.DOTALL)
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command.replace("\\\n", ""))
        given = [words[i + 1] for i, word in enumerate(words) if word == "-p"]
        given += [name for i, word in enumerate(words) if word == "-y" for name in yaml.safe_load(words[i + 1])]
        notebook = next(word for word in words if word.endswith(".ipynb"))
        declared = papermill.inspect_notebook(str(ROOT / notebook))
        assert given
        assert set(given) <= set(declared), notebook
