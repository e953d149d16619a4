"""The trainings of the ablations: every method gets the same search, labels come from where they should."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import ABLATIONS, quiet

from trustlib import metrics, oracle, training
from trustlib.analysis import ablations
from trustlib.runs import outputs, steps, tuning
from trustlib.runs.results import Run
from trustlib.stats import resampling


@pytest.fixture
def study(study_with):
    return study_with(ablations=ABLATIONS, seeds=[0])


@pytest.mark.parametrize(
    ("aucs", "rate", "missing"),  # the grid 1e-3, 3e-3 has edges only: it goes on until the best lies inside
    [
        ({}, None, [1e-3, 3e-3]),
        ({1e-3: 0.7, 3e-3: 0.6}, None, [3e-4]),
        ({3e-4: 0.65, 1e-3: 0.7, 3e-3: 0.6}, 1e-3, []),
        ({1e-3: 0.6, 3e-3: 0.7}, None, [9e-3]),
        ({3e-4: 0.65, 1e-3: 0.7, 3e-3: np.nan}, 1e-3, []),  # which diverged
        ({1e-3: np.nan, 3e-3: np.nan}, None, []),
    ],
)
def test_a_search_ends_when_the_best_rate_lies_inside_the_grid(study, monkeypatch, aucs, rate, missing):
    monkeypatch.setattr(tuning, "_tried", lambda *key: aucs.get(key[-1]))
    found = tuning.tuning(study, "rsn-rsn", "ce")
    assert (found.rate, found.missing) == (rate, missing)
    assert list(found.tried) == list(aucs)
    assert tuning.tuning(study, "rsn-rsn", "ce-fixed") == tuning.Tuning(2e-3, {}, [])  # it has a rate of its own


def test_a_search_without_a_classifier_is_empty(study):
    assert tuning.search(study, "rsn-rsn", "ce").empty


def test_a_search_that_diverges_everywhere_is_an_error_and_is_not_repeated(study, monkeypatch):
    calls = []

    def diverge(*args, **settings):
        calls.append(settings)
        raise training.TrainingError("the loss is nan")

    tensors = {"train.correct": torch.ones(2, 3000, dtype=torch.bool)}
    dataclasses.replace(steps.classifier(study, "rsn"), make=lambda *args: (tensors, {})).get(quiet)
    monkeypatch.setattr(training, "train", diverge)
    monkeypatch.setattr(oracle, "initialise", lambda *args: None)
    for _ in range(2):
        with pytest.raises(training.TrainingError, match=r"diverged at every rate from 0\.001 to 0\.003"):
            tuning.train(study, "rsn-rsn", "ce", quiet)
    assert len(calls) == 2
    rows = [row for row in tuning.rows(study) if row["run"].startswith("rsn-rsn/ce/")]
    assert [row["status"] for row in rows] == ["diverged", "diverged"]
    assert not tuning.is_done(study, "labels")


def test_nothing_trained_is_nothing_shown(study, tiny):
    run = Run(study)
    assert ablations.compare(run, "labels").empty
    assert ablations.resampled(run, "rsn-rsn", "ce") is None
    assert ablations.tails(run, "rsn-rsn", ["ce"]).empty
    assert tuning.tuned_outputs(tiny, "rsn-rsn", "ce") is None  # a study without ablations


def test_an_oracle_at_the_studys_rate_is_the_studys(study):
    assert steps.oracle(study, "rsn-rsn", "ce", 0, 1e-3) == steps.oracle(study, "rsn-rsn", "ce", 0)
    assert steps.oracle(study, "rsn-rsn", "ce", 0, 3e-3).path.name == "rate0.003-seed0.safetensors"


@pytest.fixture(scope="module")
def ablated(trained_with):
    """(run of a study with all its ablations trained, the images among which its folds' classifiers were trained)."""
    study, patch = trained_with(ablations=ABLATIONS, seeds=[0])
    patch.setattr(resampling, "RESAMPLES", 40)
    train, of_folds = training.train, []

    def spy(*args, among=None, part="train", **settings):
        of_folds.extend([] if among is None or part != "train" else [set(among.tolist())])
        return train(*args, among=among, part=part, **settings)

    with pytest.MonkeyPatch.context() as watched:
        watched.setattr(training, "train", spy)
        for method in study.ablation("labels").methods:
            tuning.train(study, "rsn-rsn", method, quiet)
    return Run(study), of_folds


def test_labels_are_those_of_classifiers_that_did_not_see_the_image(ablated):
    study, (first, second) = ablated[0].study, ablated[1]
    judged, folds = steps.classifier(study, "rsn"), steps.folds(study, "rsn")
    assert [first, second] == [set(range(3000)) - set(range(number, 3000, 2)) for number in (0, 1)]
    part, among, targets = steps._targets(study, study.method("ce-crossfit"), judged, folds, [])
    assert (part, among, targets["correct"].shape) == ("train", None, (2, 3000))
    for number, fold in enumerate(folds):
        assert fold.tensors()["correct"].shape == (2, 1500)  # views, images of the fold
        assert torch.equal(targets["correct"][:, number::2], fold.tensors()["correct"])
    part, among, targets = steps._targets(study, study.method("ce-heldout"), judged, [], [])
    assert part == "heldout"
    assert among.tolist() == list(range(600))  # not those that choose a learning rate
    assert torch.equal(targets["correct"][0], judged.tensors("heldout.")["correct"])  # view 0 is the image as it is
    assert not torch.equal(targets["correct"][0], targets["correct"][1])


def test_an_ablation_is_trained_once_and_compared(ablated, monkeypatch):
    run, _ = ablated
    study = run.study
    assert tuning.is_done(study, "labels")
    rows = tuning.rows(study)
    assert {row["status"] for row in rows} == {"done"}
    assert {row["kind"] for row in rows} == {"fold", "oracle"}
    assert len({row["run"] for row in rows if row["chosen"] and row["kind"] == "oracle"}) == 4 * 2
    frame = ablations.compare(run, "labels")
    auroc = frame[frame["metric"] == "auroc"].set_index("arm")
    right = outputs.correct(study, "rsn-rsn")
    for arm in study.ablation("labels").methods:
        mean = np.mean([metrics.evaluate(z, right)["auroc"] for z in run.tuned_outputs("rsn-rsn", arm)])
        assert auroc.loc[arm, "estimate"] == pytest.approx(mean)
        assert auroc.loc[arm, "rate"] == tuning.tuning(study, "rsn-rsn", arm).rate
    assert auroc.loc["ss", "difference"] == pytest.approx(auroc.loc["ss", "estimate"] - auroc.loc["ce", "estimate"])
    assert np.isnan(auroc.loc["ce", "difference"])
    less = ablations.difference(run, "rsn-rsn", "ce-crossfit", "ce").loc["auroc", "estimate"]
    assert less == pytest.approx(auroc.loc["ce-crossfit", "estimate"] - auroc.loc["ce", "estimate"])
    assert ablations.difference(run, "rsn-rsn", "ce", "ce-fixed") is None
    monkeypatch.setattr(training, "train", None)  # training again would now fail
    for arm in study.ablation("labels").methods:
        tuning.train(study, "rsn-rsn", arm, quiet)


def test_what_is_read_off_the_oracles_of_an_ablation(ablated):
    run, _ = ablated
    study = run.study
    tails = ablations.tails(run, "rsn-rsn", ["ce", "ss"])
    trained = steps.oracle(study, "rsn-rsn", "ss", 0, tuning.tuning(study, "rsn-rsn", "ss").rate)
    weight = trained.tensors("weights.head.linear.")["weight"]
    assert tails.query("arm == 'ss' and seed == 0")["norm"].item() == pytest.approx(weight.norm().item())
    shift = ablations.label_shift(run.label_sources("rsn"))
    assert list(shift.index) == ["train", "crossfit", "heldout", "test"]
    assert ((shift["low"] <= shift["rate"]) & (shift["rate"] <= shift["high"])).all()
    points = ablations.operating_points(run, "rsn-rsn")
    assert points.loc["CE, threshold moved", "threshold"] == pytest.approx(np.log(5 / 2))
    assert points.loc["CE, threshold moved", "tpr"] <= points.loc["CE, z = 0", "tpr"]
    z, right = run.tuned_outputs("rsn-rsn", "ce"), outputs.correct(study, "rsn-rsn", "heldout")
    ce, ss = (run.tuned_outputs("rsn-rsn", arm, "heldout") for arm in ("ce", "ss"))
    shift = z - ablations.matched(z, ce, ss, right)  # (S, N)
    trusted = (ce[:, right] > shift[:, :1]).mean(1)  # of the correct ones, at the threshold that was chosen on them
    np.testing.assert_allclose(trusted, (ss[:, right] > 0).mean(1), atol=1.5 / right.sum())
    expected = (z > shift)[:, outputs.correct(study, "rsn-rsn")]
    assert points["tpr"]["CE, threshold at SS's TPR"] == pytest.approx(expected.mean())
    of_ss = run.tuned_outputs("rsn-rsn", "ss")[0]
    binned = ablations.optimum(of_ss, outputs.correct(study, "rsn-rsn"), study.hyper("rsn-rsn", "ss"), bins=5)
    assert binned["s"].is_monotonic_increasing
    assert ((binned["best_low"] <= binned["best"]) & (binned["best"] <= binned["best_high"])).all()
    assert list(ablations.slopes(run, "rsn-rsn", ["ss"])[["alpha_pos", "alpha_neg"]].iloc[0]) == [2.0, 5.0]
