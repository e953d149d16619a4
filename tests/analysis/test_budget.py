"""Budgets of training: which is chosen, what has converged, and which oracles count as trained."""

import numpy as np
import pandas as pd
import pytest
from conftest import ABLATIONS, TINY, Given, quiet

from trustlib import metrics
from trustlib.analysis import budget
from trustlib.report.prose import budget_findings
from trustlib.runs import steps, tuning
from trustlib.runs.publication import published_curves
from trustlib.runs.results import SPLITS, Run
from trustlib.study import load_study


def ladder(**validation):
    """Curves of one pair: loss -> validation AUROC at 100, 200 and 500 steps."""
    rows = [
        {"pair": "rsn-rsn", "loss": loss, "steps": steps, "seed": seed, "split": "heldout", "auroc": value + shift}
        for loss, values in validation.items()
        for steps, value in zip((100, 200, 500), values, strict=True)
        for seed, shift in enumerate((-0.001, 0.001))
    ]
    return pd.DataFrame(rows)


def test_the_budget_is_the_smallest_that_suffices_for_every_method():
    frame = ladder(ce=(0.80, 0.8985, 0.90), tcp=(0.85, 0.86, 0.861))
    assert budget.smallest(frame, "rsn-rsn") == 200
    assert budget.smallest(pd.concat([frame, ladder(ss=(0.7, 0.75, 0.8))]), "rsn-rsn") == 500
    assert budget.smallest(pd.concat([frame, ladder(ss=(0.8, 0.75, 0.7))]), "rsn-rsn") is None  # it overfits at once


def test_the_best_budget_of_a_method_is_that_of_its_loss_among_the_studys_methods(tiny):
    rungs = {100: "ce-100", 200: "ce-200", 500: "ce"}
    results = Given(tiny)
    results.curves = ladder(ce=(0.80, 0.90, 0.89)).assign(arm=lambda frame: frame["steps"].map(rungs))
    assert budget.best(results, "rsn-rsn", "ce") == "ce"  # the ladder of another study: this one has no other rung
    methods = tiny.methods | dict.fromkeys(rungs.values(), tiny.methods["ce"])
    results.study = tiny.model_copy(update={"methods": methods})
    assert budget.best(results, "rsn-rsn", "ce") == "ce-200"
    assert budget.best(results, "rsn-rsn", "ce-released") == "ce-released"  # no rung of the ladder
    assert budget.best(results, "vit-vit", "ce") == "ce"


def test_converged_compares_with_twice_the_steps():
    frame = ladder(ce=(0.80, 0.8985, 0.90), tcp=(0.85, 0.8601, 0.861))
    assert budget.converged(frame, "rsn-rsn", "ce", 100) is False  # 200 steps add ten points
    assert budget.converged(frame, "rsn-rsn", "ce", 200) is True  # of 500
    assert budget.converged(frame, "rsn-rsn", "ce", 250) is True  # which its rung of 200 speaks for
    assert budget.converged(frame, "rsn-rsn", "ce", 500) is True  # nothing longer was run: against 200
    overfitted = ladder(ce=(0.80, 0.90, 0.89))
    assert budget.converged(overfitted, "rsn-rsn", "ce", 200) is True
    assert budget.converged(overfitted, "rsn-rsn", "ce", 500) is True  # past its best is no want of training
    assert budget.converged(frame, "rsn-rsn", "ce", 1100) is None  # no rung is near
    assert budget.converged(frame, "rsn-rsn", "ce", 50) is None
    assert budget.converged(frame, "rsn-rsn", "focal", 100) is None


@pytest.fixture
def rungs(trained, study_with):
    """A function that reads a study with a ladder of budgets for cross entropy."""
    method = {"label": "CE, some steps", "loss": "ce", "head": "linear"}
    methods = {"ce-8": method | {"rate_of": "ce-16"}, "ce-16": method | {"training": {"epochs": 2}}}

    def read(names, **changes):
        question = {"question": "How long?", "pairs": ["rsn-rsn"], "methods": names}
        return study_with(ablations=ABLATIONS | {"methods": methods, "questions": {"budget": question}} | changes)

    return read


def test_curves_hold_every_split_of_what_is_trained_and_a_shared_learning_rate(rungs):
    study = rungs(["ce-8", "ce-16"])
    tuning.train(study, "rsn-rsn", "ce-8", quiet)
    frame = Run(study).curves
    assert set(frame["arm"]) == {"ce-8"}  # the other has the first seed alone
    assert set(zip(frame["seed"], frame["split"], strict=True)) == {(s, p) for s in (0, 1) for p in SPLITS}
    tuning.train(study, "rsn-rsn", "ce-16", quiet)
    frame, rate = Run(study).curves, tuning.tuning(study, "rsn-rsn", "ce-16").rate
    assert frame.groupby("steps")["lr"].unique().map(list).tolist() == [[rate]] * 2
    assert frame.groupby("steps")["images"].first().to_dict() == {8: 400, 16: 800}
    row = frame[(frame["arm"] == "ce-16") & (frame["seed"] == 1) & (frame["split"] == "train")].iloc[0]
    saved = steps.oracle(study, "rsn-rsn", "ce-16", 1, row.lr).tensors("train.")
    cache = steps.classifier(study, "rsn").tensors("train.")
    right = cache["correct"][0][saved["index"]].numpy()
    assert len(saved["index"]) == TINY["oracle"]["images"]
    assert row.auroc == metrics.evaluate(saved["z"].numpy(), right)["auroc"]
    assert row.mcp == metrics.evaluate(cache["mcp"][0][saved["index"]].numpy(), right)["auroc"]


def test_without_a_search_the_studys_own_methods_are_a_rung(rungs):
    study = rungs(["ce-16"], rates=[])
    for method in ("ce-16", "ce"):  # of which the study's own oracle is trained
        tuning.train(study, "rsn-rsn", method, quiet)
    frame = Run(study).curves
    assert frame.groupby("arm")["steps"].first().to_dict() == {"ce": 8, "ce-16": 16}
    assert frame["lr"].unique().tolist() == [study.oracle.rate]


def test_fit_and_budget_of_an_oracle_are_read_from_its_files(trained, study_with):
    run, untrained = Run(trained), Run(study_with(oracle=TINY["oracle"] | {"rate": 2e-3}))
    assert run.on_training("rsn-rsn", "ce")["auroc"].shape == (2,)
    assert run.budget("rsn-rsn", "ce") == {"steps": 8, "epochs": 1, "images": 400}
    assert budget.state(untrained, "rsn-rsn", "ce") == "unknown"


@pytest.mark.parametrize("name", ["quick", "ablations", "fashion"])
def test_of_another_studys_ladder_there_are_the_networks_that_this_one_has(name):
    study = load_study(name)
    curves = published_curves(study, study.budget_from)
    assert budget_findings(curves, study)
    for pair in set(curves["pair"]):
        assert study.pair_label(pair)


def test_an_oracle_is_trained_that_has_converged_above_mcp(tiny):
    results = Given(tiny, fitted={"auroc": np.array([0.7, 0.8]), "mcp": np.array([0.8, 0.8])})
    results.curves = ladder(ce=(0.80, 0.8985, 0.90))
    results.steps = 200
    assert budget.state(results, "rsn-rsn", "ce") == "not trained"
    results.fitted = {"auroc": np.array([0.9, 0.8]), "mcp": np.array([0.8, 0.8])}
    assert budget.state(results, "rsn-rsn", "ce") == "trained"
    assert budget.state(results, "rsn-rsn", "ss") == "unknown"  # no ladder of its loss
    results.steps = 100
    assert budget.state(results, "rsn-rsn", "ce") == "not trained"
