"""The whole job on a tiny study: a failed training, the repair, and a run with nothing left to do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY
from test_report import check_page

from trustlib.analysis import compare
from trustlib.data import ROOT
from trustlib.runs import experiments, store, unseen
from trustlib.runs.results import Run
from trustlib.study import load_study

NETWORK = TINY["networks"]["rsn"]


def run(command, **environment):
    """Run a command in the checkout with this environment's programs; stdout holds stderr too."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {k: v for k, v in os.environ.items() if k != "MAKEFLAGS"} | {"PATH": path} | environment
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=ROOT, env=environment, text=True, check=False, **streams)


def make_report(study, results, target="report"):
    """`make report` of a study given by its path: (status, what it printed)."""
    command = ["make", target, f"STUDY={study}", "JOBS=2", "--assume-old=.venv/ready"]
    done = run(command, TRUST_RESULTS=str(results))
    return done.returncode, done.stdout


def test_a_failed_training_is_shown_and_only_it_is_made_again(write_study, tmp_path):
    # An alpha of 2,000 sends the steep slope loss to infinity; cross entropy does not read it.
    broken = write_study(
        networks={"rsn": NETWORK | {"steep_slope": {"alpha_pos": 2.0, "alpha_neg": 2000.0}}}, seeds=[0]
    )
    results = tmp_path / "results"
    status, printed = make_report(broken, results)
    study = load_study(broken)
    page = store.run_folder(study) / "report.html"
    assert status != 0
    assert "[3/4] oracles-rsn-rsn: FAILED" in printed
    assert "rsn-rsn/ss/seed0: TrainingError: the loss is nan" in printed
    assert "[1/4] classifier-rsn: done in" in printed
    assert "[2/4] confidence-rsn: done in" in printed
    check_page(page.read_text())
    assert "failed" in page.read_text()
    assert "TrainingError" in page.read_text()
    kept = {path: path.stat().st_mtime_ns for path in store.run_folder(study).rglob("*.safetensors")}
    kept = {path: time for path, time in kept.items() if not {"bootstraps", "heads"} & {*path.parts}}
    assert len(kept) == 3  # the classifier, its confidences and cross entropy

    again = run(
        ["snakemake", "--dry-run", "--nolock", "--config", f"study={broken}"], TRUST_RESULTS=str(results)
    ).stdout
    assert "oracles" in again  # what failed is tried again, though there is a page
    assert "classifier" not in again

    domains = {"judged": ["contrast-5"], "images": 40, "swept": ["contrast"], "sweep_images": 20}
    mended = write_study(seeds=[0], domains=domains)
    status, printed = make_report(mended, results, "domains")
    assert status == 0, printed
    assert "classifier-rsn" not in printed
    assert "confidence-rsn" not in printed
    assert "domain-contrast-5: done in" in printed
    assert "sweep-contrast: done in" in printed
    assert "[6/6] 06_report: done in" in printed
    assert {row["status"] for row in unseen.visits(load_study(mended))} == {"done"}
    assert not compare.sweep(Run(load_study(mended))).empty
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    assert {row["status"] for row in experiments.trainings(load_study(mended))} == {"done"}
    check_page(page.read_text())
    assert "TrainingError" not in page.read_text()

    status, printed = make_report(mended, results)
    assert status == 0, printed
    assert "Nothing to be done" in printed
    assert "done in" not in printed

    # A part of the report that fails is on the page up to where it failed, and made again by the next run.
    folder = store.run_folder(load_study(mended))
    section = folder / "sections" / "10_record.ipynb"
    section.unlink()
    page.unlink()
    (folder / "tables" / "runs.csv").unlink()
    (folder / "tables" / "runs.csv").mkdir()
    status, printed = make_report(mended, results)
    assert status != 0
    assert "[6/6] 10_record: FAILED" in printed
    assert "The report shows what failed" in printed
    check_page(page.read_text())
    assert "IsADirectoryError" in page.read_text()
    (folder / "tables" / "runs.csv").rmdir()
    status, printed = make_report(mended, results)
    assert status == 0, printed
    assert "06_report" not in printed
    assert "[6/6] 10_record: done in" in printed
    assert "IsADirectoryError" not in page.read_text()


def test_a_job_of_a_cluster_removes_no_manifest(write_study):
    """It reads the Snakefile again, as a remote job, while others may be writing theirs."""
    study = write_study()
    manifest = store.job_path(load_study(study), "classifier-rsn")
    manifest.parent.mkdir(parents=True)
    manifest.write_text("{}")  # without its training
    command = ["snakemake", "--dry-run", "--nolock", "--config", f"study={study}"]
    done = run([*command, "--mode", "remote"])
    assert done.returncode == 0, done.stdout
    assert manifest.exists()
    done = run(command)
    assert done.returncode == 0, done.stdout
    assert not manifest.exists()


def test_two_at_once_are_refused(tiny, tmp_path):
    folder = store.run_folder(tiny)
    folder.mkdir(parents=True)
    with subprocess.Popen(["flock", str(folder / "lock"), "sleep", "60"]) as holder:
        status, printed = make_report(str(tmp_path / "tiny.yaml"), tmp_path / "results")
        holder.terminate()
    assert status != 0
    assert "already running" in printed


@pytest.mark.parametrize(
    ("study", "message"), [("fashon", "did you mean 'fashion'"), ("none/such.yaml", "unknown study")]
)
def test_a_bad_study_is_one_line(study, message, tmp_path):
    status, printed = make_report(study, tmp_path)
    assert status != 0
    (line,) = (line for line in printed.splitlines() if line.startswith("error:"))
    assert message in line
    assert "Traceback" not in printed


def test_more_images_than_there_are_is_one_line(write_study):
    study = write_study(domains={"judged": ["contrast-5"], "images": 1001})
    done = run([sys.executable, "-m", "trustlib", "check", study])
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "error: domain contrast-5: 1,001 images are asked for, the test set has 1,000; ask for fewer"
    )


def test_an_unknown_control_is_one_line():
    done = run([sys.executable, "-m", "trustlib", "check", "digits", "lables"])
    assert done.returncode == 1
    assert done.stdout == "error: study digits has no ablation 'lables'; did you mean 'labels'?\n"


def test_an_undeclared_parameter_stops_a_notebook(tmp_path):
    command = ["papermill", "notebooks/02_train_oracles.ipynb", str(tmp_path / "out.ipynb"), "-k", "python3"]
    done = run([*command, "-p", "pairr", "rsn-rsn"])
    assert done.returncode != 0
    assert "JobError: this notebook has no parameter 'pairr'; did you mean 'pair'?" in done.stdout
