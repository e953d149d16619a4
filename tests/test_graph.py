"""The whole graph on a tiny study: a failed training, the repair, a run with nothing left to do, and kills."""

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from conftest import TINY, make
from test_report import check_page

from trustlib.analysis import compare
from trustlib.data import ROOT
from trustlib.runs import jobs, shifted, steps, store
from trustlib.runs.results import Run
from trustlib.study import load_study


def call(command, results=None):
    """How a command is run in the checkout with this environment's programs; stdout holds stderr too."""
    outer = {name: value for name, value in os.environ.items() if name != "MAKEFLAGS"}
    outer["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    outer |= {"TRUST_RESULTS": str(results)} if results else {}
    return {
        "args": command, "cwd": ROOT, "env": outer, "text": True,
        "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT,
    }  # fmt: skip


def run(command, results=None):
    """(status, what a command printed)."""
    done = subprocess.run(**call(command, results), check=False)
    return done.returncode, done.stdout


def report_of(study, *more, target="report"):
    return ["make", target, f"STUDY={study}", "JOBS=2", "--assume-old=.venv/ready", *more]


def make_report(study, results, target="report"):
    """`make report` of a study given by its path: (status, what it printed)."""
    return run(report_of(study, target=target), results)


def times(study):
    """When each step of a study was made, ns."""
    every = steps.planned(study) + shifted.planned(study) + shifted.swept(study)
    return {step.name: step.path.stat().st_mtime_ns for step in every if step.path.exists()}


def with_slope(alpha_neg):
    """Methods of which the steep slope loss alone has this slope."""
    return TINY["methods"] | {"ss": TINY["methods"]["ss"] | {"hyper": {"alpha_neg": alpha_neg}}}


@pytest.mark.slow
def test_a_failed_training_is_shown_and_only_it_is_made_again(write_study, tmp_path):
    # A slope of 2,000 sends the steep slope loss to infinity; cross entropy does not read it.
    broken = write_study(methods=with_slope(2000.0), seeds=[0])
    results = tmp_path / "results"
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
    assert not page.exists()
    kept = times(load_study(broken))
    assert kept.keys() == {"classifiers/rsn/seed0", "classifiers/rsn/confidences", "oracles/rsn-rsn/ce/seed0"}

    _, listed = run(["snakemake", "--summary", "--nolock", "--config", f"study={broken}"], results)
    again = set(re.findall(r"/jobs/(\S+)\.done\t.*update pending", listed))
    assert again == {"oracles-rsn-rsn", *jobs.SECTIONS}  # what failed is tried again, though there is a page

    domains = {"judged": ["contrast-5"], "images": 40, "swept": ["contrast"], "sweep_images": 20}
    mended = write_study(seeds=[0], domains=domains)
    status, printed = make_report(mended, results, "domains")
    assert status == 0, printed
    for name in ("classifier-rsn", "confidence-rsn"):
        assert name not in printed
    for name in ("oracles-rsn-rsn", "domain-contrast-5", "sweep-contrast", "06_report"):
        assert f"] {name}: done in" in printed
    study = load_study(mended)
    every = steps.planned(study) + shifted.planned(study) + shifted.swept(study)
    assert all(step.is_done for step in every)
    assert not compare.sweep(Run(study)).empty
    assert times(study).items() >= kept.items()
    assert not unfinished.exists()
    check_page(page.read_text())
    assert "TrainingError" not in page.read_text()

    status, printed = make_report(mended, results)
    assert status == 0, printed
    assert "Nothing to be done" in printed
    assert "done in" not in printed

    # Another slope: its oracles are trained again, and asked again. A section that fails is shown as far as it came.
    kept, shown = times(study), page.read_text()
    changed = write_study(seeds=[0], domains=domains, methods=with_slope(4.0))
    (folder / "tables" / "runs.csv").unlink()
    (folder / "tables" / "runs.csv").mkdir()
    status, printed = make_report(changed, results)
    assert status != 0
    assert "] 10_record: FAILED" in printed
    assert "] classifier-rsn" not in printed
    assert {step.name for step in every if step.path.stat().st_mtime_ns != kept[step.name]} == {
        step.name for step in every if step.kind == "asked" or "/ss/" in step.name
    }
    check_page(unfinished.read_text())
    assert "IsADirectoryError" in unfinished.read_text()
    assert page.read_text() == shown  # the last one that was finished
    (folder / "tables" / "runs.csv").rmdir()
    status, printed = make_report(changed, results)
    assert status == 0, printed
    assert "06_report" not in printed
    assert "] 10_record: done in" in printed
    assert not unfinished.exists()
    assert page.read_text() != shown


def kill_once(condition, study, results):
    """Start `make report`, and once a condition holds end it with all that it has started, kernels too, by SIGKILL."""
    with subprocess.Popen(**call(report_of(study), results), start_new_session=True) as process:
        while not condition():
            assert process.poll() is None
            time.sleep(0.02)
        made = psutil.Process(process.pid)
        every = [made, *made.children(recursive=True)]
        for one in every:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.stdout.close()
    psutil.wait_procs(every, timeout=60)


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_with_the_bits_of_one_that_was_not(write_study, tmp_path, monkeypatch):
    network = TINY["networks"]["rsn"]
    network = network | {"training": network["training"] | {"epochs": 3}}
    path = write_study(
        networks={"rsn": network}, oracle=TINY["oracle"] | {"epochs": 10}, seeds=[0], checkpoint_minutes=1e-3
    )
    study, results = load_study(path), tmp_path / "results"
    classifier, first, last = (step for step in steps.planned(study) if step.kind != "confidences")
    kill_once(classifier._checkpoint.exists, path, results)
    assert classifier._checkpoint.exists()
    assert not classifier.path.exists()
    kill_once(first.path.exists, path, results)
    assert not last.is_done
    status, printed = make_report(path, results)
    assert status == 0, printed
    check_page((store.run_folder(study) / "report.html").read_text())
    found = [step.tensors() for step in (classifier, first, last)]
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path / "undisturbed"))
    for name, tensors in zip((classifier.name, first.name, last.name), found, strict=True):
        (again,) = make(step for step in steps.planned(study) if step.name == name)
        assert again.path.is_relative_to(tmp_path / "undisturbed")
        for key, tensor in again.tensors().items():
            assert torch.equal(tensor, tensors[key]), (name, key)


@pytest.mark.parametrize(
    ("study", "message"), [("fashon", "did you mean 'fashion'"), ("none/such.yaml", "unknown study")]
)
def test_a_bad_study_is_one_line(study, message, tmp_path):
    status, printed = make_report(study, tmp_path)
    assert status != 0
    (line,) = (line for line in printed.splitlines() if line.startswith("error:"))
    assert message in line
    assert "Traceback" not in printed


def test_an_unknown_ablation_is_one_line(tmp_path):
    status, printed = run(report_of("digits", "ONLY=lables", target="ablations"), tmp_path)
    assert status != 0
    assert "error: study digits has no ablation 'lables'; did you mean 'labels'?\n" in printed
    assert "Traceback" not in printed


def test_more_images_than_there_are_is_one_line_before_anything_is_trained(write_study, tmp_path):
    study = write_study(domains={"judged": ["contrast-5"], "images": 1001})
    status, printed = make_report(study, tmp_path / "results")
    assert status != 0
    (line,) = (line for line in printed.splitlines() if line.startswith("error:"))
    assert line == "error: domain contrast-5: 1,001 images are asked for, the test set has 1,000; ask for fewer"
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.html"))


def test_an_undeclared_parameter_stops_a_notebook(tmp_path):
    command = ["papermill", "notebooks/02_train_oracles.ipynb", str(tmp_path / "out.ipynb"), "-k", "python3"]
    status, printed = run([*command, "-p", "pairr", "rsn-rsn"])
    assert status != 0
    assert "JobError: this notebook has no parameter 'pairr'; did you mean 'pair'?" in printed
