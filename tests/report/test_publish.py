"""What is published: a finished run's report and scores, whole or not at all."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from trustlib.report import publish
from trustlib.runs import jobs, steps, store
from trustlib.runs.store import Step


def refused(study, message):
    with pytest.raises(jobs.JobError, match=message):
        publish.publish(study)


@pytest.fixture
def dirty(monkeypatch):
    """Manifests say that something was uncommitted where this holds it, and else that nothing was."""
    manifest, found = Step.manifest.fget, set()

    def read(step):
        made = manifest(step)
        return made and made | {"provenance": made["provenance"] | {"dirty": bool(found)}}

    monkeypatch.setattr(Step, "manifest", property(read))
    return found


def test_report_tables_and_scores_are_copied_but_no_weights(trained, dirty, monkeypatch):
    folder, target = store.run_folder(trained), store.results() / "tiny"
    (folder / "report.html").write_text("<h1>report</h1>")
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    pd.DataFrame({"a": [1]}).to_csv(folder / "tables/scores.csv")
    refused(trained, r"tiny is not finished \(lacking a report of these trainings")
    store.write_json(folder / "report.json", {"commit": "c", "dirty": True})
    dirty.add("something")
    refused(trained, "study tiny was run from uncommitted changes")
    dirty.clear()
    refused(trained, "the report of study tiny was made from uncommitted changes")
    store.write_json(folder / "report.json", {"commit": "d", "dirty": False})
    target.mkdir()
    refused(trained, "tiny is no study's: move it")
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
                publish.publish(trained)

    fails()
    assert not target.exists()
    written = {str(path.relative_to(target)) for path in publish.publish(trained)}
    assert written == {"report.html", "tables/scores.csv", "scores.npz", "manifest.json"}
    fails()
    assert all((target / name).exists() for name in written)

    scores = np.load(target / "scores.npz", allow_pickle=False)
    assert "rsn/confidences.energy" in scores
    oracle, seen = steps.oracle(trained, "rsn-rsn", "ce", 1), steps.classifier(trained, "rsn").tensors()
    np.testing.assert_array_equal(scores["rsn-rsn/ce/seed1.z"], oracle.tensors("test.")["z"])
    labels = trained.images().labels
    for part, under in (("test", ""), ("heldout", "heldout.")):
        own = {name: scores[f"rsn/seed0.{under}{name}"] for name in ("predicted", "correct", "mcp")}
        assert own["predicted"].dtype == np.int16
        np.testing.assert_array_equal(own["predicted"] == labels[part].numpy(), own["correct"])
        np.testing.assert_array_equal(own["mcp"], seen[f"{part}.mcp"])
        for name in ("rsn-rsn/ce/seed1.{}z", "rsn/confidences.{}knn"):
            assert len(scores[name.format(under)]) == len(own["mcp"])
    manifest = json.loads((target / "manifest.json").read_text())
    assert list(manifest["runs"]) == [step.run for step in steps.planned(trained)]
    number = manifest["runs"]["rsn-rsn/ce/seed1"]["provenance"]
    assert manifest["provenance"][number] == oracle.manifest["provenance"]
    assert manifest["report"] == {"commit": "d", "dirty": False}
    os.utime(folder / "report.html", (0, 0))  # older than what it shows
    refused(trained, "lacking a report of these trainings")
    steps.oracle(trained, "rsn-rsn", "ce", 1).path.unlink()
    refused(trained, r"tiny is not finished \(lacking rsn-rsn/ce/seed1")
