"""The wheel: what `pip install` gives to someone without the checkout."""

import importlib.metadata
import shutil
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from trustlib.data import ROOT

NAME = "steepslope"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A fresh environment with the wheel, what it requires, and nothing else; its folder of commands.

    What it requires is linked from this environment, by the wheel's own metadata, so that nothing is downloaded.
    """
    folder = tmp_path_factory.mktemp("install")
    source = folder / "source"
    shutil.copytree(ROOT / "trustlib", source / "trustlib", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = ["uv", "build", "--quiet", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir"]
    subprocess.run([*build, folder, source], check=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith(f"{NAME}-")
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder / "env"], check=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run(["uv", "pip", "install", "--quiet", "--python", python, "--no-deps", wheel], check=True)
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (own,) = importlib.metadata.distributions(name=NAME, path=[str(site)])
    for name in required(own):
        link(importlib.metadata.distribution(name), site)
    return python.parent


def required(distribution):
    """The names of all that a distribution requires without its extras, and what these require."""
    found, waiting = set(), [distribution]
    while waiting:
        for text in waiting.pop().requires or []:
            requirement = Requirement(text)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name not in found:
                found.add(requirement.name)
                waiting.append(importlib.metadata.distribution(requirement.name))
    return found


def link(distribution, site):
    for name in {path.parts[0] for path in distribution.files if path.parts[0] not in ("..", "__pycache__")}:
        if not (site / name).exists():
            (site / name).symlink_to(distribution.locate_file(name))


def run(*command, folder, ok=True):
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"}, check=False
    )
    assert not ok or done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_the_wheel_evaluates_a_file_in_an_empty_folder(environment, tmp_path):
    """With the wheel and what it requires alone: no torch, no notebooks, no checkout."""
    rows = "".join(f"{int(i % 7 > 0)},{0.5 + (i % 50) / 100}\n" for i in range(300))
    (tmp_path / "mine.csv").write_text(f"correct,confidence\n{rows}")
    lacking = (
        "import importlib.util as u; print([n for n in ('torch', 'yaml', 'IPython', 'sklearn') if u.find_spec(n)])"
    )
    assert run(environment / "python", "-c", lacking, folder=tmp_path).stdout.strip() == "[]"
    assert run(environment / "trustlib", "--version", folder=tmp_path).stdout.startswith("trustlib 0.")
    done = run(environment / "trustlib", "evaluate", "mine.csv", "--resamples", "50", folder=tmp_path)
    assert "confidence: " in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"mine.csv", "mine.html", "mine.json"}
    assert (tmp_path / "mine.html").read_text().count("<img") >= 4
    code = "import trustlib; print(len(trustlib.evaluate([True, False] * 50, list(range(100))).table))"
    assert run(environment / "python", "-c", code, folder=tmp_path).stdout == "100\n"
    typed = "import trustlib, pathlib; print((pathlib.Path(trustlib.__file__).parent / 'py.typed').exists())"
    assert run(environment / "python", "-c", typed, folder=tmp_path).stdout == "True\n"


@pytest.mark.slow
def test_a_command_of_the_study_says_what_it_lacks(environment, tmp_path):
    done = run(environment / "trustlib", "check", "digits", folder=tmp_path, ok=False)
    assert done.returncode == 1
    assert f"uv pip install '{NAME}[study]'" in done.stderr
    assert done.stderr.count("\n") == 1
