"""The ablations's trainings: every arm gets the same search, labels come from where they should, nothing is hidden."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import ABLATIONS, quiet

from trustlib import metrics, oracle, training
from trustlib.analysis import ablations
from trustlib.runs import outputs, steps, tuning
from trustlib.runs.results import Run
from trustlib.stats import combination, resampling
from trustlib.study import load_study


@pytest.fixture
def study(write_study, monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 40)
    return load_study(write_study(ablations=ABLATIONS, seeds=[0]))


@pytest.fixture
def searched(study, monkeypatch):
    """A function that says which rate a search ends at, given each rate's AUC; None stands for a training not made."""

    def search(aucs):
        monkeypatch.setattr(tuning, "_tried", lambda *key: aucs.get(key[-1]))
        return tuning.tuning(study, "rsn-rsn", "ce")

    return search


def test_a_best_rate_inside_the_grid_ends_the_search(searched):
    # the grid 1e-3, 3e-3 has edges only: it goes on until the best lies inside
    assert searched({}).missing == [1e-3, 3e-3]
    assert searched({1e-3: 0.7, 3e-3: 0.6}).missing == [3e-4]
    found = searched({3e-4: 0.65, 1e-3: 0.7, 3e-3: 0.6})
    assert (found.rate, found.missing) == (1e-3, [])
    assert list(found.tried) == [3e-4, 1e-3, 3e-3]
    assert searched({1e-3: 0.6, 3e-3: 0.7}).missing == [9e-3]


def test_a_rate_that_diverges_is_never_chosen(searched):
    found = searched({3e-4: 0.65, 1e-3: 0.7, 3e-3: np.nan})
    assert found.rate == 1e-3
    nowhere = searched({1e-3: np.nan, 3e-3: np.nan})
    assert (nowhere.rate, nowhere.missing) == (None, [])


def test_an_arm_with_a_rate_of_its_own_is_not_searched(study):
    assert tuning.tuning(study, "rsn-rsn", "ce-fixed") == tuning.Tuning(2e-3, {}, [])


def test_a_search_that_diverges_everywhere_is_an_error_and_is_not_repeated(study, monkeypatch):
    calls = []

    def diverge(*args, **settings):
        calls.append(settings)
        raise training.TrainingError("the loss is nan")

    trained = steps.classifier(study, "rsn")
    tensors = {"train.correct": torch.ones(2, 3000, dtype=torch.bool)}
    dataclasses.replace(trained, make=lambda *args: (tensors, {})).get(quiet)
    monkeypatch.setattr(training, "train", diverge)
    monkeypatch.setattr(oracle, "initialise", lambda *args: None)
    for _ in range(2):
        with pytest.raises(training.TrainingError, match=r"diverged at every rate from 0\.001 to 0\.003"):
            tuning.train(study, "rsn-rsn", "ce", quiet)
    assert len(calls) == 2
    rows = [row for row in tuning.rows(study) if row["run"].startswith("rsn-rsn/ce/")]
    assert [row["status"] for row in rows] == ["diverged", "diverged"]
    assert not tuning.is_done(study, "labels")


def test_cross_fitted_labels_are_those_of_classifiers_that_did_not_see_the_image(study, monkeypatch):
    seen = {}
    real = training.train

    def spy(*args, among=None, **settings):
        seen[len(seen)] = among
        return real(*args, among=among, **settings)

    judged, folds = steps.classifier(study, "rsn").get(quiet), steps.folds(study, "rsn")
    monkeypatch.setattr(training, "train", spy)
    for number, fold in enumerate(folds):
        assert fold.get(quiet).tensors()["correct"].shape == (2, 1500)  # views, images of the fold
        assert set(seen[number].tolist()) == set(range(3000)) - set(range(number, 3000, 2))
    part, among, targets = steps._targets(study, study.method("ce-crossfit"), judged, folds, [])
    target = targets["correct"]
    assert (part, among, target.shape) == ("train", None, (2, 3000))
    for number, fold in enumerate(folds):
        assert torch.equal(target[:, number::2], fold.tensors()["correct"])


def test_held_out_labels_leave_out_the_images_that_choose_a_rate(study):
    judged = steps.classifier(study, "rsn").get(quiet)
    part, among, targets = steps._targets(study, study.method("ce-heldout"), judged, [], [])
    target = targets["correct"]
    assert part == "heldout"
    assert among.tolist() == list(range(600))
    assert torch.equal(target[0], judged.tensors("heldout.")["correct"])  # view 0 is the image as it is
    assert not torch.equal(target[0], target[1])


def test_a_control_is_trained_once_and_compared(study, monkeypatch):
    for arm in study.ablation("labels").methods:
        tuning.train(study, "rsn-rsn", arm, quiet)
    assert tuning.is_done(study, "labels")
    rows = tuning.rows(study)
    assert {row["status"] for row in rows} == {"done"}
    assert {row["kind"] for row in rows} == {"fold", "oracle"}
    own = {row["run"] for row in rows if row["chosen"] and row["kind"] == "oracle"}
    assert len(own) == 4 * 2
    run = Run(study)
    frame = ablations.compare(run, "labels")
    auroc = frame[frame["metric"] == "auroc"].set_index("arm")
    right = outputs.correct(study, "rsn-rsn")
    for arm in study.ablation("labels").methods:
        z = run.tuned_outputs("rsn-rsn", arm)
        mean = np.mean([metrics.evaluate(row, right)["auroc"] for row in z])
        assert auroc.loc[arm, "estimate"] == pytest.approx(mean)
        assert auroc.loc[arm, "rate"] == tuning.tuning(study, "rsn-rsn", arm).rate
    assert auroc.loc["ss", "difference"] == pytest.approx(auroc.loc["ss", "estimate"] - auroc.loc["ce", "estimate"])
    assert np.isnan(auroc.loc["ce", "difference"])
    monkeypatch.setattr(training, "train", None)  # training again would now fail
    for arm in study.ablation("labels").methods:
        tuning.train(study, "rsn-rsn", arm, quiet)
    pair_of_methods(run)
    what_is_read_off(run)


def pair_of_methods(run):
    less = ablations.difference(run, "rsn-rsn", "ce-crossfit", "ce")
    boots = [ablations.resampled(run, "rsn-rsn", arm) for arm in ("ce-crossfit", "ce")]
    k = metrics.METRICS.index("auroc")
    gap = boots[0].estimate["ce-crossfit"][:, k].mean() - boots[1].estimate["ce"][:, k].mean()
    assert less.loc["auroc", "estimate"] == pytest.approx(gap)
    assert ablations.difference(run, "rsn-rsn", "ce", "ce-fixed") is None


def what_is_read_off(run):
    study = run.study
    tails = ablations.tails(run, "rsn-rsn", ["ce", "ss"])
    trained = steps.oracle(study, "rsn-rsn", "ss", 0, tuning.tuning(study, "rsn-rsn", "ss").rate)
    weight = trained.tensors("weights.head.linear.")["weight"]
    assert tails.query("arm == 'ss' and seed == 0")["norm"].item() == pytest.approx(weight.norm().item())
    shift = ablations.label_shift(run.label_sources("rsn"))
    assert list(shift.index) == ["train", "crossfit", "heldout", "test"]
    assert (shift["low"] <= shift["rate"]).all()
    assert (shift["rate"] <= shift["high"]).all()
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


def test_an_oracle_at_the_studys_rate_is_the_studys(study):
    assert steps.oracle(study, "rsn-rsn", "ce", 0, 1e-3) == steps.oracle(study, "rsn-rsn", "ce", 0)
    assert steps.oracle(study, "rsn-rsn", "ce", 0, 3e-3).path.name == "rate0.003-seed0.safetensors"


def test_an_oracle_without_information_adds_nothing_to_mcp():
    rng = np.random.default_rng(0)
    right = rng.random(2000) < 0.8
    mcp = 1 / (1 + np.exp(-(rng.normal(size=2000) + 1.5 * right)))
    for signal in (0.0, 1.5):
        z = np.stack([rng.normal(size=2000) + signal * right for _ in range(2)])
        both = combination.with_mcp({"heldout": z, "test": z}, {"heldout": mcp, "test": mcp}, right)
        gain = np.mean([metrics.evaluate(row, right)["auroc"] for row in both]) - metrics.evaluate(mcp, right)["auroc"]
        assert abs(gain) < 0.005 if signal == 0 else gain > 0.04


def test_nothing_trained_is_nothing_shown(study):
    run = Run(study)
    assert ablations.compare(run, "labels").empty
    assert ablations.resampled(run, "rsn-rsn", "ce") is None
    assert ablations.tails(run, "rsn-rsn", ["ce"]).empty


def test_a_study_without_ablations_has_none_of_their_outputs(tiny):
    assert tuning.tuned_outputs(tiny, "rsn-rsn", "ce") is None
