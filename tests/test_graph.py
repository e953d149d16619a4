"""The whole graph on a tiny study: a failed training, the repair, a run with nothing left to do."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY
from test_page import check_page

from trustlib.data import ROOT
from trustlib.runs import jobs, steps, store
from trustlib.study import load_study

pytestmark = pytest.mark.slow


def call(command, results):
    """How a command is run in the checkout with this environment's programs; stdout holds stderr too."""
    outer = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    outer |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "TRUST_RESULTS": str(results)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return {"args": command, "cwd": ROOT, "env": outer, "text": True, **streams}


def make_report(study, results, *more, target="report"):
    """`make report` of a study given by its path: (status, what it printed)."""
    command = ["make", target, f"STUDY={study}", "JOBS=2", "--assume-old=.venv/ready", *more]
    done = subprocess.run(**call(command, results), check=False)
    return done.returncode, done.stdout


def times(study):
    """When each step of a study was made, ns."""
    return {step.name: step.path.stat().st_mtime_ns for step in steps.planned(study) if step.path.exists()}


def test_what_failed_is_shown_and_only_it_is_made_again(write_study, tmp_path):
    # A slope of 2,000 sends the steep slope loss to infinity, a rate of 1e30 any loss; cross entropy is trained.
    infinite = {
        "ss": TINY["methods"]["ss"] | {"hyper": {"alpha_neg": 2000.0}},
        "tcp": {"label": "TCP", "loss": "tcp", "head": "linear", "training": {"rate": 1e30}},
    }
    broken, results = write_study(methods=TINY["methods"] | infinite, seeds=[0]), tmp_path / "results"
    status, printed = make_report(broken, results)
    folder = store.run_folder(load_study(broken))
    page, unfinished = folder / "report.html", folder / "report-unfinished.html"
    assert status != 0
    assert re.search(r"\[3/\d+\] oracles-rsn-rsn: FAILED", printed)
    assert "rsn-rsn/ss/seed0: TrainingError: the loss is nan" in printed
    for number, name in ((1, "classifier-rsn"), (2, "confidence-rsn")):
        assert re.search(rf"\[{number}/\d+\] {name}: done in", printed)
    assert f"what failed: {unfinished}" in printed.replace(os.path.relpath(unfinished, ROOT), str(unfinished))
    check_page(unfinished.read_text())
    assert "TrainingError" in unfinished.read_text()
    assert "KeyError" not in unfinished.read_text()
    assert not page.exists()
    kept = times(load_study(broken))
    assert kept.keys() == {"classifiers/rsn/seed0", "classifiers/rsn/confidences", "oracles/rsn-rsn/ce/seed0"}

    # What failed is tried again, though there is a page. A section that fails is shown as far as it came.
    (folder / "tables" / "runs.csv").unlink(missing_ok=True)
    (folder / "tables" / "runs.csv").mkdir(parents=True)
    mended = write_study(seeds=[0])
    status, printed = make_report(mended, results)
    assert status != 0
    for name in ("oracles-rsn-rsn", *jobs.SECTIONS[:-1]):
        assert f"] {name}: done in" in printed
    assert "] 10_record: FAILED" in printed
    assert not re.search("] (classifier|confidence)-rsn", printed)
    assert all(step.is_done for step in steps.planned(load_study(mended)))
    assert times(load_study(mended)).items() >= kept.items()
    check_page(unfinished.read_text())
    assert "IsADirectoryError" in unfinished.read_text()
    assert not page.exists()

    (folder / "tables" / "runs.csv").rmdir()
    status, printed = make_report(mended, results)
    assert status == 0, printed
    assert re.findall(r"\] (\S+): done in", printed) == ["10_record"]
    assert not unfinished.exists()
    check_page(page.read_text())
    assert not re.search("TrainingError|IsADirectoryError", page.read_text())

    status, printed = make_report(mended, results)
    assert status == 0, printed
    assert "Nothing to be done" in printed
    assert "done in" not in printed


def test_an_unknown_ablation_is_one_line(tmp_path):
    status, printed = make_report("digits", tmp_path, "ONLY=lables", target="ablations")
    assert status != 0
    assert "error: study digits has no ablation 'lables'; did you mean 'labels'?\n" in printed
    assert "Traceback" not in printed
