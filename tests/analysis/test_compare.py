"""Comparisons over several classifiers."""

import numpy as np
import pytest
from conftest import TINY, Given

from trustlib.analysis import compare
from trustlib.predictions import Predictions
from trustlib.runs import steps
from trustlib.stats import resampling

RSN = TINY["networks"]["rsn"]


def judged(of, *pairs):
    """Predictions of each pair: whether correct, MCP and ce's z, all drawn by the pair's place."""
    given = {}
    for seed, pair in enumerate(pairs):
        rng = np.random.default_rng(seed)
        correct = rng.random(400) < 0.8
        scores = {"mcp": rng.normal(size=(1, 400)) + correct, "ce": rng.normal(size=(2, 400)) + 0.5 * correct}
        of_all = scores | {"energy": rng.normal(size=(1, 400))}
        given[pair, "test"] = Predictions(correct, of_all, dict.fromkeys(scores, 0.0))
    return Given(of, given)


def test_classifiers_alike_are_crossed_with_the_test_images(study_with):
    networks = {"rsn": RSN, "rsn1": RSN | {"label": "RSN 1", "seed": 1}, "vit": RSN | {"model": "resnet34"}}
    of = study_with(networks=networks, pairs=["rsn-rsn", "rsn1-rsn1", "vit-rsn", "vit-vit"])
    results = judged(of, *of.pairs)
    over = compare.over_classifiers(results).set_index(["arm", "metric"])
    row = over.loc[("ce", "auroc")]
    boots = [results.resample(results.predictions(pair)) for pair in ("rsn-rsn", "rsn1-rsn1")]
    less = [resampling.difference(boot, "ce", "mcp").loc["auroc", "estimate"] for boot in boots]
    assert row["classifiers"] == 2
    assert over["estimate"].isna().groupby("arm").sum().to_dict() == {"mcp": 0, "ce": 0, "energy": 2}  # TPR and TNR
    assert row["difference"] == pytest.approx(np.mean(less))
    assert row["difference_high"] - row["difference"] > 6.3 * abs(less[0] - less[1])  # t is 12.7
    only = study_with(networks=networks, pairs=["rsn-rsn", "vit-vit"])
    assert compare.over_classifiers(judged(only, *only.pairs)).empty


def test_a_network_of_another_seed_is_another_training(study_with, trained):
    of = study_with(networks={"rsn": RSN, "rsn1": RSN | {"seed": 1}})
    assert steps.classifier(of, "rsn").key == steps.classifier(trained, "rsn").key != steps.classifier(of, "rsn1").key
