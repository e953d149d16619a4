"""Confidences: formulas by hand, orders that must agree, what saturates, what is missing."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import log_softmax, softmax
from scipy.stats import spearmanr

from trustlib import confidence, losses, metrics
from trustlib.confidence import SCORES, Observed, probes, scores


def observed(n=200, classes=5, features=6, seed=0, noise=1.0):
    """A linear classifier of noisy class means, with dropout passes and a second member."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    x = rng.normal(size=(n, features)).astype(np.float32)
    x[np.arange(n), labels] += 2.0
    logits = 2 * x[:, :classes] + noise * rng.normal(size=(n, classes)).astype(np.float32)
    passes = logits + rng.normal(size=(4, n, classes))
    return Observed(logits, labels, x, passes, np.stack([logits, logits + rng.normal(size=logits.shape)]))


PART, FIT, REFERENCE = observed(150, seed=1), observed(200, seed=2), observed(400, seed=3)


def score(name, part=PART):
    return SCORES[name].function(part, FIT, REFERENCE)


def test_every_score_is_one_finite_number_a_sample_and_better_than_chance():
    scores = confidence.all_scores(PART, FIT, REFERENCE)
    assert list(scores) == list(SCORES)
    for name, value in scores.items():
        assert value.shape == (150,)
        assert value.dtype == np.float64
        assert np.isfinite(value).all(), name
        assert SCORES[name].group in confidence.GROUPS
        if SCORES[name].group != "probe" and name not in ("knn", "mahalanobis", "class_accuracy"):
            assert metrics.evaluate(value, PART.correct)["auroc"] > 0.55, name


def test_scores_of_logits_agree_with_their_formulas():
    p = softmax(PART.logits.astype(float), axis=1)
    top = np.sort(p, axis=1)
    g = (p**2).sum(1)
    expected = {
        "mcp": np.log(top[:, -1] / (1 - top[:, -1])),
        "margin": -np.log(1 - (top[:, -1] - top[:, -2])),
        "entropy": (p * np.log(p)).sum(1),
        "max_logit": PART.logits.max(1),
        "energy": np.log(np.exp(PART.logits.astype(float)).sum(1)),
        "doctor": np.log(g / (1 - g)),
        "gen": -((p * (1 - p)) ** 0.1).sum(1),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(score(name), value, rtol=1e-6, atol=1e-6, err_msg=name)


def test_two_classes_leave_one_order():
    part = observed(100, classes=2, seed=4)
    for name in ("temperature", "margin", "entropy", "doctor", "gen"):
        fit = observed(300, classes=2, seed=5)
        value = SCORES[name].function(part, fit, fit)
        assert spearmanr(value, confidence.mcp(part)).statistic == pytest.approx(1), name


def test_what_the_logits_keep_apart_is_not_tied():
    logits = np.zeros((6, 3))
    logits[:, 0] = [1, 30, 40, 100, 500, 700]
    part = replace(PART, logits=logits, labels=np.zeros(6, int), features=None, passes=None, members=None)
    assert (softmax(logits, axis=1).max(1) == 1).sum() > 1  # the probability itself is
    for name in ("mcp", "temperature", "margin", "entropy", "doctor"):
        assert (np.diff(score(name, part)) > 0).all(), name


def test_scores_with_a_zero_trust_there_what_is_more_likely_right():
    p = softmax(PART.logits.astype(float), axis=1).max(1)
    np.testing.assert_array_equal(score("mcp") > 0, p > 0.5)
    of_first = softmax(PART.members.astype(float), axis=2)[:, np.arange(150), PART.predicted].mean(0)
    np.testing.assert_array_equal(score("ensemble") > 0, of_first > 0.5)
    np.testing.assert_allclose(score("ensemble"), np.log(of_first / (1 - of_first)), rtol=1e-6, atol=1e-9)


def test_the_temperature_is_found_and_leaves_the_order_of_two_classes():
    rng = np.random.default_rng(6)
    logits = rng.normal(size=(20_000, 4)) * 2
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)  # labels drawn from softmax(logits)
    assert confidence.fitted_temperature(Observed(3 * logits, labels)) == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize("right", [True, False])
def test_a_temperature_that_does_not_exist_is_an_error(right):
    logits = np.eye(3)
    part = Observed(logits, np.arange(3) if right else (np.arange(3) + 1) % 3)
    with pytest.raises(ValueError, match="no finite temperature minimises the NLL of these 3 samples"):
        confidence.fitted_temperature(part)


def test_a_temperature_that_does_not_exist_costs_no_other_score():
    part = Observed(np.eye(3)[[0, 1, 2, 0]], np.array([1, 2, 0, 0]))  # right less often than by chance
    assert part.correct.sum() == 1
    assert "no finite temperature" in confidence.SCORES["temperature"].missing(part, part, part)
    scores = confidence.all_scores(part, part, part)
    assert "temperature" not in scores
    assert "energy" in scores


def test_the_norm_is_the_best_on_the_held_out_part_or_none():
    value = score("p_norm")
    aurocs = {p: metrics.evaluate(scores._normed(FIT, p), FIT.correct)["auroc"] for p in scores.P_NORMS}
    best = max(aurocs, key=aurocs.get)
    if aurocs[best] > metrics.evaluate(confidence.mcp(FIT), FIT.correct)["auroc"]:
        z = PART.logits - PART.logits.mean(1, keepdims=True)
        np.testing.assert_allclose(value, z.max(1) / (np.abs(z) ** best).sum(1) ** (1 / best), rtol=1e-5)
    else:
        np.testing.assert_array_equal(value, confidence.mcp(PART))


def test_distances_agree_with_all_pairs():
    distance = cdist(PART.features, REFERENCE.features)
    own = np.where(REFERENCE.labels[None] == PART.predicted[:, None], distance, np.inf).min(1)
    other = np.where(REFERENCE.labels[None] != PART.predicted[:, None], distance, np.inf).min(1)
    np.testing.assert_allclose(score("trust_score"), np.log(other / own), rtol=1e-4, atol=1e-4)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (PART.features, REFERENCE.features)]
    smallest = np.bincount(REFERENCE.labels).min()
    assert smallest < 4 * confidence.NEIGHBOUR
    np.testing.assert_allclose(score("knn"), -np.sort(cdist(*unit), axis=1)[:, smallest // 4 - 1], atol=1e-5)


def test_the_neighbour_is_the_50th_where_the_classes_are_large_enough():
    rng = np.random.default_rng(8)
    labels = np.repeat([0, 1], 4 * confidence.NEIGHBOUR)
    large = Observed(np.eye(2)[labels], labels, rng.normal(size=(len(labels), 6)))
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (PART.features, large.features)]
    expected = -np.sort(cdist(*unit), axis=1)[:, confidence.NEIGHBOUR - 1]
    np.testing.assert_allclose(scores.knn(PART, FIT, large), expected, atol=1e-5)


def test_small_classes_do_not_make_neighbours_of_another_class():
    """As 200 classes of 40 images: the 50th neighbour of a typical image would be of another class."""
    rng = np.random.default_rng(9)
    means = 4 * rng.normal(size=(60, 16))

    def part(each):
        labels = np.repeat(np.arange(60), each)
        x = means[labels] + rng.normal(size=(len(labels), 16)) * rng.choice([0.5, 4.0], (len(labels), 1))
        return Observed(-cdist(x, means), labels, x)

    test, reference = part(10), part(40)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test.features, reference.features)]
    of_50th = metrics.evaluate(-np.sort(cdist(*unit), axis=1)[:, 49], test.correct)["auroc"]
    assert metrics.evaluate(scores.knn(test, reference, reference), test.correct)["auroc"] > of_50th + 0.02


def test_the_accuracy_of_the_predicted_class_is_looked_up():
    predicted, labels = np.array([0] * 20 + [1] + [2] * 4), np.array([0] * 20 + [1] + [2, 2, 0, 0])
    fit = Observed(np.eye(4)[predicted], labels)
    overall = 23 / 25
    looked_up = scores.class_accuracy(Observed(np.eye(4), np.zeros(4, int)), fit)
    np.testing.assert_allclose(looked_up, [(20 + overall) / 21, (1 + overall) / 2, (2 + overall) / 5, overall])
    value = score("class_accuracy")
    assert len(np.unique(value)) <= 5
    assert metrics.auroc_within(value, PART.correct, PART.predicted) == 0.5


def test_mahalanobis_agrees_with_its_definition():
    means, whiten = scores._class_normals(REFERENCE)
    precision = whiten @ whiten.T
    gaps = PART.features[:, None].astype(float) - means[None]  # (N, K, d)
    squared = np.einsum("nkd,de,nke->nk", gaps, precision, gaps)
    np.testing.assert_allclose(score("mahalanobis"), -squared.min(1), rtol=1e-6)
    residual = REFERENCE.features - means[REFERENCE.labels]
    covariance = residual.T @ residual / len(residual)
    np.testing.assert_allclose(np.linalg.inv(precision), covariance, atol=0.15)  # shrunk a little


def test_a_larger_reference_is_drawn_from_with_a_seed(monkeypatch):
    monkeypatch.setattr("trustlib.confidence.observed.REFERENCE", 100)
    first, again = (SCORES["knn"].function(PART, FIT, observed(400, seed=3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    drawn = confidence.drawn_reference(400)
    assert len(np.unique(drawn)) == 100


def test_dropout_passes_that_agree_give_the_plain_scores():
    same = replace(PART, passes=np.stack([PART.logits] * 3), members=np.stack([PART.logits] * 2))
    np.testing.assert_allclose(score("mc_dropout_logits", same), score("entropy"), rtol=1e-6)
    for name in ("mc_dropout_probs", "ensemble"):
        np.testing.assert_allclose(score(name, same), score("mcp"), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("loss", ["ce", "focal", "tcp", "ss", "cb"])
def test_a_linear_oracle_learns_what_a_feature_tells(loss):
    rng = np.random.default_rng(7)

    def part(n):
        x = rng.normal(size=(n, 3))
        right = x[:, 0] + 0.3 * rng.normal(size=n) > -0.8
        logits = np.stack([np.where(right, 2.0, -2.0), np.zeros(n)], axis=1) * (1 + np.abs(x[:, :1]) / 10)
        return Observed(logits, np.zeros(n, int), x)

    reference, fit, test = part(2000), part(500), part(500)
    z = probes.linear(test, fit, reference, loss=loss)
    assert metrics.evaluate(z, test.correct)["auroc"] > 0.95
    again = probes.linear(test, replace(fit), replace(reference), loss=loss)
    np.testing.assert_array_equal(z, again)
    if loss == "ss":
        _, _, weight, _ = probes._fitted_linear(loss, fit, reference)
        assert np.linalg.norm(weight) == pytest.approx(1)


def test_where_errors_are_rare_the_steep_slope_loss_is_lowest_where_all_is_trusted():
    """With a weight of length 1, from either start: a low AUROC of this probe is no failure of the minimisation."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(10_000, 8))
    right = rng.random(10_000) > 1 / (1 + np.exp(9 - 2.5 * x[:, 0]))  # some 30 are incorrect, and the first says which
    features, target = torch.from_numpy(x), torch.from_numpy(right)
    assert metrics.evaluate(-x[:, 0], right)["auroc"] > 0.9
    of_ce = (-np.eye(8)[0], 2.0)
    for start in (probes._small_start(8), of_ce):
        weight, bias = probes._minimise(losses.steep_slope, features, target, 0.0, start, distance=True)
        loss = losses.steep_slope(features @ torch.from_numpy(weight) + bias, target).mean().item()
        assert (x @ weight + bias > 0).all()
        assert loss == pytest.approx((~right).mean() * 2 * np.sinh(3), rel=1e-3)
    best = min(losses.steep_slope(-features[:, 0] + bias, target).mean().item() for bias in np.linspace(0, 5, 51))
    assert loss < best


def test_an_mlp_probe_learns_what_no_hyperplane_tells():
    rng = np.random.default_rng(10)

    def part(n):
        x = rng.normal(size=(n, 4))
        right = x[:, 0] * x[:, 1] + 0.2 * rng.normal(size=n) > -0.5
        return Observed(np.stack([np.where(right, 2.0, -2.0), np.zeros(n)], axis=1), np.zeros(n, int), x)

    reference, fit, test = part(4000), part(1000), part(1000)
    z = probes.mlp(test, fit, reference)
    assert metrics.evaluate(z, test.correct)["auroc"] > 0.9
    assert metrics.evaluate(probes.linear(test, fit, reference, loss="ce"), test.correct)["auroc"] < 0.7
    probes._fitted_mlp.cache_clear()
    np.testing.assert_array_equal(z, probes.mlp(test, fit, reference))


def test_what_is_missing_is_named_and_left_out():
    bare = [Observed(part.logits, part.labels) for part in (PART, FIT, REFERENCE)]
    scores = confidence.all_scores(*bare)
    assert "energy" in scores
    reasons = {name: line.missing(*bare) for name, line in SCORES.items()}
    assert {name for name, reason in reasons.items() if reason} == SCORES.keys() - scores.keys()
    assert reasons["knn"] == "there are no features"
    assert reasons["mc_dropout_probs"] == "there are no passes"
    right = replace(REFERENCE, labels=REFERENCE.predicted)
    assert "all 400 predictions on the training set are of one kind" in SCORES["linear_ce"].missing(PART, FIT, right)


def test_a_new_score_needs_one_line(monkeypatch):
    monkeypatch.setitem(SCORES, "mine", confidence.Score("Mine", lambda part, *_: part.logits.std(1)))
    np.testing.assert_array_equal(confidence.all_scores(PART, FIT, REFERENCE)["mine"], PART.logits.std(1))


@pytest.mark.parametrize(
    "kind",
    [np.ndarray.tolist, torch.tensor, pd.DataFrame, lambda x: torch.tensor(x, requires_grad=x.dtype.kind == "f")],
)
def test_outputs_may_be_lists_tensors_and_tables(kind):
    labels = PART.labels.tolist() if kind is pd.DataFrame else kind(PART.labels)
    given = Observed(kind(PART.logits), labels, kind(PART.features))
    for name in ("mcp", "energy"):
        np.testing.assert_allclose(score(name, given), score(name, PART), rtol=1e-6)
    half = Observed(torch.tensor(PART.logits).bfloat16(), PART.labels)
    assert half.logits.dtype == np.float32
    with pytest.raises(ValueError, match="expected labels to be an array of numbers"):
        Observed(PART.logits, PART.labels.astype(str))


def test_probabilities_are_computed_in_float64():
    half = replace(PART, logits=PART.logits.astype(np.float16))
    double = replace(PART, logits=half.logits.astype(np.float64))
    np.testing.assert_array_equal(confidence.entropy(half), confidence.entropy(double))
    assert np.allclose(log_softmax(double.logits, axis=1), scores._log_p(half.logits))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"logits": np.zeros(5)}, r"expected logits \(N, K\).*found \(5,\)"),
        ({"logits": np.zeros((150, 1))}, "K >= 2"),
        ({"labels": np.zeros(3, int)}, "expected 150 labels"),
        ({"labels": np.full(150, 7)}, "in 0..4"),
        ({"features": np.zeros((3, 2))}, r"expected features \(150, d\), found \(3, 2\)"),
        ({"passes": np.zeros((2, 150, 4))}, r"expected passes \(T, 150, 5\)"),
        ({"members": np.full((2, 150, 5), np.nan)}, "members: 1500 of 1500 values are not finite"),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(PART, **changes)
