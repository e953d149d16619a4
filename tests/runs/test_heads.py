"""Heads on cached features: what each can express, the labels they learn from, and that a fit is made once."""

import dataclasses

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from conftest import quiet

from trustlib import confidence, metrics
from trustlib.report import figures
from trustlib.runs import heads, outputs, steps
from trustlib.stats import statistics


@pytest.fixture(scope="module")
def simplex():
    """(part to learn from, validation, test) of five exchangeable classes."""
    rng = np.random.default_rng(0)
    return [heads._simplex(5, n, rng) for n in (4000, 2000, 4000)]


def auroc(z, part):
    return metrics.evaluate(z, part.correct)["auroc"]


def fitted(head, simplex):
    part, valid, test = simplex
    z_valid, z = heads.fit_head(head, part, part.correct, [np.arange(len(part.labels))], valid, test)
    return z_valid[0], z[0]


def test_a_hyperplane_per_predicted_class_recovers_the_winning_logit_and_one_hyperplane_nothing(simplex):
    test = simplex[2]
    mcp, own = (auroc(score, test) for score in (confidence.mcp(test), test.features.max(1)))
    assert auroc(fitted("class", simplex)[1], test) == pytest.approx(own, abs=0.015)
    assert auroc(fitted("sorted", simplex)[1], test) == pytest.approx(mcp, abs=0.005)
    for head in ("linear", "distance"):
        assert abs(auroc(fitted(head, simplex)[1], test) - 0.5) < 0.06
    assert own > 0.8


def test_an_mlp_lies_between(simplex, monkeypatch):
    monkeypatch.setattr(heads, "STEPS", (100, 400))
    z = fitted("mlp", simplex)[1]
    assert 0.65 < auroc(z, simplex[2]) < auroc(confidence.mcp(simplex[2]), simplex[2])


def test_a_linear_head_finds_the_direction_that_there_is():
    rng = np.random.default_rng(1)
    parts = []
    for n in (2000, 1000, 3000):
        x = rng.normal(size=(n, 4))
        correct = rng.random(n) < 1 / (1 + np.exp(-1 - 2 * x[:, 0]))
        logits = np.where(np.arange(2) == 0, 1.0, 0.0) * np.ones((n, 1))
        scaled = x * [1, 3, 3, 3] + 5  # which must not matter
        parts.append(confidence.Observed(logits, np.where(correct, 0, 1), scaled))
    for head in ("linear", "distance"):
        z = fitted(head, parts)[1]
        assert np.corrcoef(z, parts[2].features[:, 0])[0, 1] > 0.98


def test_combined_with_mcp_ranks_at_least_as_well_on_the_images_it_is_fitted_on(simplex):
    valid = simplex[1]
    odds, noise = confidence.mcp(valid), np.random.default_rng(0).normal(size=len(valid.labels))
    for z, least, most in ((fitted("class", simplex)[0], -0.002, 1), (noise, -0.005, 0.005)):
        gain = auroc(heads.combined([z, odds], valid.correct, [z, odds]), valid) - auroc(odds, valid)
        assert least <= gain <= most


def test_sizes_have_enough_of_both_kinds():
    assert heads.sizes(np.arange(5000) % 10 > 0) == [250, 1000, 4000, 5000]
    assert heads.sizes(np.arange(5000) % 500 > 0) == [5000]
    assert heads.sizes(np.ones(300, bool)) == []


@pytest.mark.parametrize("classes", [2, 20])
def test_the_best_hyperplane_of_exchangeable_classes_is_the_constant(classes):
    few, many = (heads.simulate(classes, n, 0) for n in (1000, 16_000))
    assert (many["tpr"], many["tnr"]) == (1, 0)
    assert few["spread"] / many["spread"] == pytest.approx(4, rel=0.5)  # z shrinks as 1 / sqrt(n)
    assert abs(many["hyperplane"] - 0.5) < 0.05
    assert many["accuracy"] == pytest.approx(0.87, abs=0.03)
    assert many["own"] == pytest.approx(many["mcp"], abs=1e-9 if classes == 2 else 0.06)


def test_so_it_is_for_losses_that_are_not_convex():
    for row in heads.simulate_losses(3, 3000, 0):
        assert (row["tpr"], row["tnr"]) == (1, 0), row
        assert row["spread"] < 0.2, row


@pytest.fixture
def featured(study_with):
    """A study whose classifier's file holds made-up features of its images; nothing is trained."""
    plan = study_with(ablations={"tuning": 400, "folds": 2})
    images, rng = plan.images(), np.random.default_rng(0)

    def make(step, log):
        tensors = {"reference.index": torch.arange(len(images.labels["train"]))}
        for part, name in (("train", "reference"), ("heldout", "heldout"), ("test", "test")):
            labels = images.labels[part].numpy()
            x = rng.normal(size=(len(labels), 10)) + 2.5 * np.eye(10)[labels]
            tensors |= {f"{name}.features": torch.from_numpy(x).float(), f"{name}.logits": torch.from_numpy(2.5 * x)}
            tensors[f"{name}.correct"] = torch.from_numpy(x.argmax(1) == labels)
        return tensors, {}

    dataclasses.replace(steps.classifier(plan, "rsn"), make=make).get(quiet)
    return plan


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(heads, "HEADS", {"linear": "linear", "sorted": "sorted"})
    monkeypatch.setattr(heads, "SIZES", (250,))
    monkeypatch.setattr(heads, "DECAYS", (1e-2,))


def test_heads_are_fitted_once_and_compared_with_mcp(featured, quick, monkeypatch):
    made = heads.fitted(featured, "rsn").get(quiet)
    monkeypatch.setattr(heads, "fit_head", None)  # nothing is fitted again
    assert heads.fitted(featured, "rsn").get(quiet) == made
    fits, means = heads.against_mcp(featured, "rsn")
    assert set(means["labels"]) == {"train", "heldout"}  # no folds, no cross-fitted labels
    test = steps.classifier(featured, "rsn").tensors("test.")
    z = made.tensors()["train/linear/250"].numpy()
    own = "labels == 'train' and head == 'linear' and n == 250 and not fused"
    row = means.query(own).iloc[0]
    assert row["seeds"] == len(z) == len(heads.SEEDS)
    values = [statistics.delong(one, test["correct"].numpy()).auroc for one in z]
    assert row["auroc"] == pytest.approx(np.mean(values))
    assert row["low"] < row["difference"] < row["high"] < 0
    assert fits.query(own)["auroc"].tolist() == pytest.approx(values)
    assert means.query("head == 'sorted' and fused")["difference"].abs().max() < 0.02

    fig, ax = plt.subplots()
    figures.gaps(ax, means.assign(step=means["head"], estimate=means["difference"]))
    assert [bar.get_width() for bar in ax.patches] == pytest.approx((100 * means["difference"]).tolist())
    plt.close(fig)


def test_crossfitted_labels_are_put_where_their_images_are(featured):
    labels = torch.rand(len(featured.images().labels["train"])) < 0.5
    folds = steps.folds(featured, "rsn")
    before = heads.fitted(featured, "rsn").key
    for number, fold in enumerate(folds):
        tensors = {"correct": labels[None, number::2]}
        dataclasses.replace(fold, make=lambda *_, tensors=tensors: (tensors, {})).get(quiet)
    assert torch.equal(outputs.crossfit_labels(folds), labels)
    assert heads.fitted(featured, "rsn").key != before
