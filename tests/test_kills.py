"""The whole graph on a tiny study, killed: a file of its own, so that it runs beside the rest of the graph's tests."""

import contextlib
import os
import subprocess
import time

import psutil
import pytest
import torch
from conftest import TINY, make
from test_graph import call

from trustlib.data import ROOT
from trustlib.runs import steps, store
from trustlib.study import load_study

pytestmark = pytest.mark.slow


def kill_once(condition, command, results):
    """Start a command, and once a condition holds end it with all that it has started, kernels too, by SIGKILL."""
    with subprocess.Popen(**call(command, results), start_new_session=True) as process:
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


def test_a_run_that_is_killed_twice_ends_with_the_bits_of_one_that_was_not(write_study, tmp_path, monkeypatch):
    network = TINY["networks"]["rsn"]
    network = network | {"training": network["training"] | {"epochs": 3}}
    path = write_study(
        networks={"rsn": network}, oracle=TINY["oracle"] | {"epochs": 10}, seeds=[0], checkpoint_minutes=1e-3
    )
    study, results = load_study(path), tmp_path / "results"
    oracles = os.path.relpath(store.run_folder(study) / "jobs" / "oracles-rsn-rsn.done", ROOT)
    # As `make report` calls it, but for the sections of the report.
    command = ["snakemake", "--workflow-profile", "profiles/default", "--cores", "2", "--config", f"study={path}"]
    command += ["--", oracles]
    classifier, first, last = (step for step in steps.planned(study) if step.kind != "confidences")
    kill_once(classifier._checkpoint.exists, command, results)
    assert classifier._checkpoint.exists()
    assert not classifier.path.exists()
    kill_once(first.path.exists, command, results)
    assert not last.is_done
    done = subprocess.run(**call(command, results), check=False)
    assert done.returncode == 0, done.stdout
    found = [step.tensors() for step in (classifier, first, last)]
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path / "undisturbed"))
    for name, tensors in zip((classifier.name, first.name, last.name), found, strict=True):
        (again,) = make(step for step in steps.planned(study) if step.name == name)
        assert again.path.is_relative_to(tmp_path / "undisturbed")
        for key, tensor in again.tensors().items():
            assert torch.equal(tensor, tensors[key]), (name, key)
