"""The notebooks to start with run on what is published, and the controls of explore do what they say."""

import sys
import types

import matplotlib as mpl
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest

from trustlib import metrics
from trustlib.data import ROOT
from trustlib.report import lab
from trustlib.runs.results import Published
from trustlib.study import load_study

START = ("00_start_here", "losses", "explore")


def sources(name):
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.fixture
def run(monkeypatch):
    """A function that runs a notebook's cells here: (its names, its tables: name of a row -> its cells)."""
    shown = []

    def table(head, rows):
        shown.append({first: dict(zip(head[1:], rest, strict=True)) for first, *rest in rows})

    def run(name, **parameters):
        own, *others = sources(name)
        given = "# Parameters\n" + "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        names = {"In": [own, given], "display": print}
        for source in (own, given, *others):
            exec(compile(source, name, "exec"), names)
            plt.close("all")
        return names, shown

    monkeypatch.setattr(lab, "table", table)
    with mpl.rc_context():
        yield run


def test_the_first_notebook_compares_mcp_with_an_oracle(run):
    _, (compared, verdicts) = run("00_start_here")
    z = Published(load_study("fashion")).predictions("rsn-rsn")
    of_oracle = metrics.evaluate(z.confidence["ss"][0], z.correct)
    assert compared["oracle, SS"] == {"AUROC": of_oracle["auroc"], "TPR": of_oracle["tpr"], "TNR": of_oracle["tnr"]}
    assert set(verdicts) == {"paper", "study"}


def test_probes_of_every_loss_are_trained_and_the_broadcast_undoes_one(run):
    _, (scores,) = run("losses", interactive=False, batch=50)
    assert scores["steep slope"]["TNR"] > scores["cross entropy"]["TNR"] + 0.1
    assert scores["cross entropy as released, batch 50"]["TPR"] == 1
    assert scores["cross entropy as released, batch 50"]["AUROC"] < scores["cross entropy"]["AUROC"] - 0.05
    assert max(scores, key=lambda name: scores[name]["AUROC"]) == "MCP (no training)"


def test_without_controls_explore_shows_a_method_at_its_own_threshold(run):
    _, (compared, corrupted) = run("explore", interactive=False, method="tcp", study="fashion")
    predictions = Published(load_study("fashion")).predictions("rsn-rsn")
    expected = metrics.evaluate(predictions.confidence["tcp"][0], predictions.correct)
    found = {name: compared["TCP"][name] for name in ("TPR", "TNR", "AUROC")}
    assert found == pytest.approx(
        {"TPR": expected["tpr"], "TNR": expected["tnr"], "AUROC": expected["auroc"]}, abs=2e-3
    )
    assert compared["MCP"]["coverage"] == pytest.approx(compared["TCP"]["coverage"], abs=1e-3)
    domains = pd.read_csv(ROOT / "results/fashion/tables/domains.csv").set_index(["domain", "pair", "arm", "metric"])
    assert (
        corrupted["AUROC, TCP"]["severity 5"]
        == domains.loc[("gaussian_noise-5", "rsn-rsn", "tcp", "auroc"), "estimate"]
    )
    assert corrupted["AUROC, TCP"]["severity 1"] == "–"


def test_the_sliders_of_explore_follow_each_other(run):
    names, shown = run("explore")
    coverage, threshold = names["coverage"], names["threshold"]
    coverage.value = 0.9
    assert {row["coverage"] for row in shown[-1].values()} == {0.9}
    predictions = Published(load_study("fashion")).predictions("rsn-rsn")
    assert shown[-1]["MCP"]["risk"] == pytest.approx(
        1 - predictions.correct[np.argsort(-predictions.confidence["mcp"][0])[:9000]].mean(), abs=1e-3
    )
    higher = threshold.value + 0.1
    threshold.value = higher
    assert coverage.value < 0.9
    assert shown[-1]["SS"]["coverage"] == coverage.value
    assert float(shown[-1]["SS"]["threshold"]) == pytest.approx(higher, abs=5e-3)
    assert threshold.value == higher  # it is not set back


def test_a_new_study_offers_its_own_pairs_and_methods(run):
    names, shown = run("explore")
    menu, threshold = names["menu"], names["threshold"]
    menu["method"].value = "tcp"
    menu["study"].value = "tiny"
    assert names["now"].value == "tiny · ⟨Lite0, Lite0⟩ · CE, frozen"
    assert menu["pair"].value == "lite0-lite0"
    assert menu["method"].value == "ce-frozen"  # its first, it has no fine-tuned TCP
    menu["method"].value = "energy"  # which is no probability
    assert threshold.max > 1
    compared = next(table for table in reversed(shown) if "Energy" in table)
    assert compared["Energy"]["coverage"] == pytest.approx(0.8, abs=1e-3)
    menu["pair"].value = "lite0-lite2"
    assert menu["method"].value == "energy"


def test_a_sweep_gives_every_severity(run, monkeypatch):
    names, _ = run("explore", interactive=False)
    swept = pd.DataFrame(
        {"pair": "rsn-rsn", "arm": "mcp", "corruption": "fog", "severity": [0, 3, 3], "auroc": [0.9, 0.6, 0.7]}
    )
    monkeypatch.setitem(names, "read", lambda study, name: swept)
    assert names["at_severity"]("mcp", "auroc", "fog", 3) == pytest.approx(0.65)
    assert names["at_severity"]("mcp", "auroc", "fog", 4) == "–"


@pytest.mark.parametrize("name", START)
def test_on_colab_the_checkout_is_fetched_and_found(name, monkeypatch):
    commands = []
    monkeypatch.setattr("subprocess.run", lambda command, check: commands.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))
    exec(sources(name)[1], {"repository": "https://address"})
    assert not commands
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(sources(name)[1], {"repository": "https://address"})
    clone, install = commands
    assert "https://address" in clone
    assert clone[-1] == install[-1] == sys.path[0]


@pytest.mark.parametrize("name", START)
def test_the_executed_copy_is_that_of_today(name):
    path = ROOT / "docs" / "notebooks" / f"{name}.ipynb"
    copy = nbformat.read(path, as_version=4)
    cells = [cell for cell in copy.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    original = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    assert [cell.source for cell in cells] == [cell.source for cell in original.cells], "make copies"
    outputs = [output for cell in cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert path.stat().st_size < 400_000
