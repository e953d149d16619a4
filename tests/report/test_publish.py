"""What is published: a finished run's report and scores, whole or not at all."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make

from trustlib.report import publish
from trustlib.runs import jobs, steps, store
from trustlib.runs.store import Step


def refused(study, message):
    with pytest.raises(jobs.JobError, match=message):
        publish.publish(study)


@pytest.fixture
def clean(monkeypatch):
    """Manifests say that nothing was uncommitted, or, when called with True, that something was."""
    manifest = Step.manifest.fget

    def say(dirty):
        def read(step):
            found = manifest(step)
            return found and found | {"provenance": found["provenance"] | {"dirty": dirty}}

        monkeypatch.setattr(Step, "manifest", property(read))

    say(False)
    return say


def test_what_is_not_finished_is_refused(tiny):
    refused(tiny, r"tiny is not finished \(lacking rsn")


def test_report_tables_and_scores_are_copied_but_no_weights(tiny, clean, monkeypatch):
    made = make(steps.planned(tiny))
    folder, target = store.run_folder(tiny), store.results() / "tiny"
    (folder / "report.html").write_text("<h1>report</h1>")
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    pd.DataFrame({"a": [1]}).to_csv(folder / "tables/scores.csv")
    refused(tiny, "lacking a report of these trainings")
    store.write_json(folder / "report.json", {"commit": "c", "dirty": True})
    clean(True)
    refused(tiny, "study tiny was run from uncommitted changes")
    clean(False)
    refused(tiny, "the report of study tiny was made from uncommitted changes")
    store.write_json(folder / "report.json", {"commit": "d", "dirty": False})
    target.mkdir()
    refused(tiny, "tiny is no study's: move it")
    target.rmdir()
    rename = Path.rename

    def full(path, to):
        if path.parent != store.results() and to == target and path.name == "tiny":
            raise OSError("no space")
        return rename(path, to)

    def fails():
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", full)
            with pytest.raises(OSError, match="no space"):
                publish.publish(tiny)

    fails()
    assert not target.exists()
    written = {str(path.relative_to(target)) for path in publish.publish(tiny)}
    assert written == {"report.html", "tables/scores.csv", "scores.npz", "manifest.json"}
    fails()
    assert all((target / name).exists() for name in written)

    scores = np.load(target / "scores.npz", allow_pickle=False)
    assert "rsn/confidences.energy" in scores
    oracle, seen = steps.oracle(tiny, "rsn-rsn", "ce", 1), steps.classifier(tiny, "rsn").tensors()
    np.testing.assert_array_equal(scores["rsn-rsn/ce/seed1.z"], oracle.tensors("test.")["z"])
    labels = tiny.images().labels
    for part, under in (("test", ""), ("heldout", "heldout.")):
        own = {name: scores[f"rsn/seed0.{under}{name}"] for name in ("predicted", "correct", "mcp")}
        assert own["predicted"].dtype == np.int16
        np.testing.assert_array_equal(own["predicted"] == labels[part].numpy(), own["correct"])
        np.testing.assert_array_equal(own["mcp"], seen[f"{part}.mcp"])
        others = (
            scores[f"{run}.{under}{name}"] for run, name in (("rsn-rsn/ce/seed1", "z"), ("rsn/confidences", "knn"))
        )
        assert {len(other) for other in others} == {len(own["mcp"])}
    manifest = json.loads((target / "manifest.json").read_text())
    assert list(manifest["runs"]) == [step.run for step in made]
    number = manifest["runs"]["rsn-rsn/ce/seed1"]["provenance"]
    assert manifest["provenance"][number] == oracle.manifest["provenance"]
    assert manifest["report"] == {"commit": "d", "dirty": False}
    os.utime(folder / "report.html", (0, 0))  # older than what it shows
    refused(tiny, "lacking a report of these trainings")
