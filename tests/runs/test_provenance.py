"""Digests of source, and what counts as uncommitted."""

import ast
import importlib
import linecache
import subprocess
import sys

import pytest

from trustlib.runs import provenance, shifted, steps


def test_a_digest_of_source_ignores_comments_docstrings_and_layout():
    sources = "def f(x):\n  return x", 'def f(x):\n    """Doc."""\n    return x  # why', "def f(x): return -x"
    first, same, other = (provenance._code(ast.parse(source)) for source in sources)
    assert first == same
    assert first != other


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        ("losses", {"scores"}),  # of its losses a training sees its own alone
        ("data.images", {"oracle", "classifier", "scores", "domain"}),
        ("runs.steps", {"oracle", "classifier", "scores"}),
        ("training", {"oracle", "classifier", "scores"}),
        ("confidence", {"scores"}),
        ("models.pretrained", {"oracle", "classifier", "scores"}),
        ("shifts.recolor", {"domain"}),
        ("report.tables", set()),
        ("runs.store", set()),
        ("runs.jobs", set()),
    ],
)
def test_a_key_follows_the_modules_that_make_a_result(tiny, monkeypatch, module, changes):
    def keys():
        provenance.source_digest.cache_clear()
        made = {
            "classifier": steps.classifier(tiny, "rsn"),
            "oracle": steps.oracle(tiny, "rsn-rsn", "ss", 0),
            "scores": steps.confidences(tiny, "rsn"),
            "domain": shifted.images(tiny, "domains/fog-5", "rsn"),
        }
        return {name: step.key for name, step in made.items()}

    before = keys()
    monkeypatch.setitem(provenance._codes(), module, "x = 1")
    after = keys()
    monkeypatch.undo()
    provenance.source_digest.cache_clear()
    assert {name for name in before if before[name] != after[name]} == changes


def test_a_loss_counts_with_the_helpers_of_its_module_and_without_other_losses(tmp_path, monkeypatch):
    def digest(text):
        (tmp_path / "of_mine.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        sys.modules.pop("of_mine", None)
        linecache.clearcache()
        importlib.invalidate_caches()
        provenance.source_digest.cache_clear()
        return provenance.source_digest(function=importlib.import_module("of_mine").loss)

    text = "def loss(z):\n    return _half(z)\n\n\ndef _half(z):\n    return z / 2\n\n\ndef other(z):\n    return z\n"
    first = digest(text)
    assert digest(text.replace("def loss(z):\n", 'def loss(z):\n    """Half."""  # of it\n')) == first
    assert digest(text.replace("    return z\n", "    return -zz\n")) == first
    assert digest(text.replace("z / 2", "z / 22")) != first
    assert digest(text.replace("_half(z)\n\n", "-_half(z)\n\n")) != first


@pytest.mark.parametrize(
    ("file", "dirty"),
    [("", False), ("trustlib/old.py", True), ("trustlib/new.py", True), ("studies/new.yaml", True), ("notes", False),
     ("results/tiny.csv", False)],
)  # fmt: skip
def test_what_git_does_not_know_is_not_clean(file, dirty, tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    for name in ("trustlib/old.py", "studies/old.yaml", "results/tiny.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x = 1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    if file:
        (tmp_path / file).write_text("x = 2\n")
    assert provenance.provenance()["dirty"] == dirty
