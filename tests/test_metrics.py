"""Metrics: against scikit-learn, against brute force over the orders of ties, against closed forms."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from conftest import scored
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import expit
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from trustlib import metrics, released
from trustlib.stats import separation
from trustlib.stats.resampling import draws

samples = st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=40)
two_classes = samples.filter(lambda rows: len({right for _, right in rows}) == 2)


def arrays(rows):
    confidence, correct = zip(*rows, strict=True)
    return np.array(confidence, float), np.array(correct)


@given(two_classes)
def test_areas_agree_with_scikit_learn(rows):
    confidence, correct = arrays(rows)
    found = metrics.evaluate(confidence, correct)
    assert found["auroc"] == pytest.approx(roc_auc_score(correct, confidence), abs=1e-12)
    assert found["aupr_success"] == pytest.approx(average_precision_score(correct, confidence), abs=1e-12)
    assert found["aupr_error"] == pytest.approx(average_precision_score(~correct, -confidence), abs=1e-12)
    assert released.aupr_error(confidence, correct) == pytest.approx(
        average_precision_score(~correct, confidence), abs=1e-12
    )


@given(two_classes)
def test_fpr95_is_the_lowest_of_the_roc_curve_at_or_above_it(rows):
    confidence, correct = arrays(rows)
    fpr, tpr, _ = roc_curve(correct, confidence, drop_intermediate=False)
    right = int(correct.sum())
    enough = [Fraction(round(t * right), right) >= Fraction(95, 100) for t in tpr]
    assert metrics.evaluate(confidence, correct)["fpr95"] == pytest.approx(fpr[enough].min(), abs=1e-12)


def test_fpr95_compares_in_integers():
    # 57 of 60 correct predictions are exactly 95 %: the incorrect one that comes next must not count. With 0.55 of 20
    # the product in floating point is 11.000000000000002, and one more would be asked for.
    for tpr, right, needed in ((0.95, 60, 57), (0.55, 20, 11)):
        correct = np.r_[np.ones(needed, bool), False, np.ones(right - needed, bool)]
        confidence = -np.arange(right + 1.0)
        assert metrics.fpr_at_tpr(metrics.rank(confidence, correct), tpr) == 0.0
        earlier = np.r_[np.ones(needed - 1, bool), False, np.ones(right - needed + 1, bool)]
        assert metrics.fpr_at_tpr(metrics.rank(confidence, earlier), tpr) == 1.0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 1), st.booleans()), min_size=1, max_size=6))
def test_aurc_is_the_mean_over_all_orders_of_the_ties(rows):
    confidence, correct = arrays(rows)
    values = []
    for order in itertools.permutations(range(len(rows))):
        if all(confidence[a] >= confidence[b] for a, b in itertools.pairwise(order)):
            wrong = ~correct[list(order)]
            values.append((wrong.cumsum() / np.arange(1, len(rows) + 1)).mean())
    assert metrics.evaluate(confidence, correct)["aurc"] == pytest.approx(np.mean(values), abs=1e-12)


@given(samples)
def test_augrc_is_the_trapezoid_area_over_distinct_thresholds_and_its_closed_form(rows):
    confidence, correct = arrays(rows)
    found = metrics.evaluate(confidence, correct)
    coverage, risk = metrics.risk_coverage(confidence, correct)
    area = np.trapezoid(np.r_[0, coverage * risk], np.r_[0, coverage])
    assert found["augrc"] == pytest.approx(area, abs=1e-12)
    if 0 < correct.mean() < 1:
        accuracy = correct.mean()
        closed = accuracy * (1 - accuracy) * (1 - found["auroc"]) + (1 - accuracy) ** 2 / 2
        assert found["augrc"] == pytest.approx(closed, abs=1e-12)


@given(samples)
def test_ranking_metrics_ignore_order_of_samples_and_increasing_maps(rows):
    confidence, correct = arrays(rows)
    shuffle = np.random.default_rng(0).permutation(len(rows))
    first = metrics.evaluate(confidence, correct)
    second = metrics.evaluate(np.arctan(confidence[shuffle] / 3), correct[shuffle])
    for name in (*metrics.METRICS, "tied"):
        assert first[name] == pytest.approx(second[name], abs=1e-12, nan_ok=True)


@given(two_classes)
def test_flipping_labels_and_sign_swaps_the_roles(rows):
    confidence, correct = arrays(rows)
    first, second = metrics.evaluate(confidence, correct), metrics.evaluate(-confidence, ~correct)
    swapped = {"auroc": "auroc", "aupr_success": "aupr_error", "aupr_error": "aupr_success"}
    for name, other in swapped.items():
        assert second[name] == pytest.approx(first[other], abs=1e-12)


@given(samples)
def test_eaurc_is_the_excess_over_the_best_order(rows):
    confidence, correct = arrays(rows)
    found = metrics.evaluate(confidence, correct)
    perfect = metrics.evaluate(np.where(correct, 1.0, 0.0) - np.arange(len(rows)) * 1e-3, correct)
    best = (np.arange(1, len(rows) + 1) - correct.sum()).clip(0) / np.arange(1, len(rows) + 1)
    assert found["aurc"] - found["eaurc"] == pytest.approx(best.mean(), abs=1e-12)
    assert perfect["eaurc"] == pytest.approx(0, abs=1e-12)
    assert found["eaurc"] >= -1e-12


@given(two_classes)
def test_matched_rates_and_coverage_against_every_threshold(rows):
    confidence, correct = arrays(rows)
    ranking = metrics.rank(confidence, correct)
    kept = [confidence >= t for t in np.unique(confidence)]
    tnr = max((~k[~correct]).mean() for k in kept if k[correct].sum() * 10 >= 8 * correct.sum())
    assert metrics.tnr_at_tpr(ranking, 0.8) == pytest.approx(tnr, abs=1e-12)
    safe = [k.mean() for k in kept if 4 * (~correct[k]).sum() <= k.sum()]
    assert metrics.coverage_at_risk(ranking, 0.25) == pytest.approx(max(safe, default=0.0), abs=1e-12)


@given(two_classes)
def test_the_roc_curve_agrees_with_its_area_and_with_scikit_learn(rows):
    confidence, correct = arrays(rows)
    fpr, tpr, _ = metrics.roc_curve(confidence, correct)
    assert np.trapezoid(tpr, fpr) == pytest.approx(metrics.evaluate(confidence, correct)["auroc"], abs=1e-12)
    sk_fpr, sk_tpr, sk_thresholds = roc_curve(correct, confidence, drop_intermediate=False)
    np.testing.assert_allclose(fpr, sk_fpr, atol=1e-12)
    np.testing.assert_allclose(tpr, sk_tpr, atol=1e-12)
    np.testing.assert_allclose(metrics.roc_curve(confidence, correct)[2], sk_thresholds)


def test_conventions_of_others_on_the_same_scores():
    # fd-shifts: trapezoid over distinct thresholds, times 1000; FixSelectiveClassification: from (0, 0); mean over
    # ranks of the generalised risk is larger than AUGRC by (1 - accuracy) / 2n
    rng = np.random.default_rng(4)
    correct, confidence = rng.random(400) < 0.8, rng.normal(size=400)
    found = metrics.evaluate(confidence, correct)
    coverage, risk = metrics.risk_coverage(confidence, correct)
    trapezoid = np.trapezoid(risk, coverage)
    assert found["aurc"] == pytest.approx(trapezoid + (risk[0] + risk[-1]) / 2 / 400, abs=1e-12)
    generalised = (~correct[np.argsort(-confidence)]).cumsum() / 400
    assert generalised.mean() == pytest.approx(found["augrc"] + (1 - found["accuracy"]) / 800, abs=1e-12)


def test_coverage_at_a_risk_that_was_computed_is_that_at_the_risk_that_was_meant():
    z, correct = scored(10_000)
    ranking = metrics.rank(z, correct)
    assert metrics.coverage_at_risk(ranking, (1 - 0.95) / 2) == metrics.coverage_at_risk(ranking, 0.025)
    assert 0 < metrics.coverage_at_risk(ranking, 0.025) < 0.5


def test_harmonic_numbers_are_the_sums_of_reciprocals():
    summed = [float(sum(Fraction(1, i) for i in range(1, k + 1))) for k in range(101)]
    np.testing.assert_allclose(metrics.harmonic(100), summed, rtol=1e-15)
    assert metrics.harmonic(100)[0] == 0


def test_the_released_scan_is_its_loop_near_the_exact_rate_and_has_none_for_a_saturated_score():
    rng = np.random.default_rng(6)
    correct = rng.random(20_000) < 0.8
    p = expit(rng.normal(size=20_000) + correct)
    found = released.fpr95_scan(p, correct)
    assert found == pytest.approx(metrics.evaluate(p, correct)["fpr95"], abs=0.01)
    for threshold in np.arange(p.min(), p.max(), (p.max() - p.min()) / 10_000):
        if 0.9495 <= (p[correct] >= threshold).mean() <= 0.9505:
            break
    assert found == (p[~correct] >= threshold).mean()
    assert np.isnan(released.fpr95_scan(np.where(rng.random(20_000) < 0.5, 1.0, 0.0), correct))


def test_rates_ties_and_curves_by_hand():
    confidence, correct = np.array([-2.0, -1, 0, 1, 2]), np.array([False, True, False, True, False])
    # right: -1 and 1, one above 0; wrong: -2, 0, 2, two at or below 0; one at or below -1.5
    found = metrics.evaluate(confidence, correct)
    assert (found["tpr"], found["tnr"]) == (1 / 2, 2 / 3)
    assert metrics.evaluate(confidence, correct, tnr_threshold=-1.5)["tnr"] == 1 / 3
    assert metrics.evaluate(confidence.astype(np.float32), correct) == found
    infinite = metrics.evaluate([np.inf, np.inf, 0.0, -np.inf], [True, False, True, False])
    assert infinite["auroc"] == pytest.approx((0.5 + 1 + 0 + 1) / 4)
    tied = [3.0, 2, 2, 1], [True, True, False, False]
    assert metrics.evaluate(*tied)["tied"] == 0.5
    np.testing.assert_allclose(metrics.risk_coverage(*tied), [[1 / 4, 3 / 4, 1], [0, 1 / 3, 1 / 2]])
    z = np.linspace(10, 40, 100)
    assert metrics.evaluate(z, z > 20)["tied"] == 0
    assert metrics.evaluate(expit(z.astype(np.float32)), z > 20)["tied"] > 0.5  # the sigmoid saturates


@pytest.mark.parametrize(
    ("correct", "missing"),
    [([True] * 3, {"fpr95", "aupr_error", "auroc", "tnr"}), ([False] * 3, {"fpr95", "aupr_success", "auroc", "tpr"})],
)
def test_what_does_not_exist_is_nan_and_has_a_reason(correct, missing):
    found = metrics.evaluate([1.0, 2.0, 3.0], correct)
    assert {name for name, value in found.items() if np.isnan(value)} == missing
    assert metrics.undefined(correct).keys() == missing | set(metrics.SEPARABILITY)
    assert all("all 3 predictions" in reason for reason in metrics.undefined(correct).values())
    assert metrics.undefined([True, False]) == {}


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([1.0, np.nan], [True, False], "NaN in 1 of 2 places, the first at 1"),
        ([1.0, 2.0], [True], r"\(2,\) and \(1,\)"),
        ([], [], "N >= 1"),
        ([1.0, 2.0], [0.3, 1], "boolean"),
    ],
)
def test_what_cannot_be_evaluated_is_refused(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(confidence, correct)


def test_separability_agrees_with_integrals_of_the_fitted_normals():
    rng = np.random.default_rng(2)
    correct = np.r_[np.ones(400, bool), np.zeros(300, bool)]
    confidence = np.r_[rng.normal(0.7, 0.1, 400), rng.normal(0.5, 0.15, 300)]
    m1, s1, m2, s2 = metrics.fit_normals(confidence, correct)
    first, second = norm(m1, s1), norm(m2, s2)

    def kl(p, q):
        return quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), -1, 2.5)[0]

    overlap = quad(lambda x: np.sqrt(first.pdf(x) * second.pdf(x)), -1, 2.5)[0]
    found = metrics.separability(confidence, correct)
    assert found["kl"] == pytest.approx((kl(first, second) + kl(second, first)) / 2, rel=1e-6)
    assert found["bhattacharyya"] == pytest.approx(-np.log(overlap), rel=1e-6)


def test_two_equal_normals_are_not_apart_but_by_the_released_kl_and_without_spread_nothing_is():
    confidence, correct = np.r_[0.0, 1, 2, 0, 1, 2], np.arange(6) < 3
    assert metrics.separability(confidence, correct) == pytest.approx({"kl": 0.0, "bhattacharyya": 0.0})
    assert released.average_kl(confidence, correct) == pytest.approx(0.5)
    assert np.isnan(metrics.separability([1.0, 1, 2, 3], [True, True, False, False])["kl"])
    assert np.isnan(released.average_kl([1.0, 2, 3], [True, False, False]))


def test_auroc_within_groups_agrees_with_all_pairs_and_with_resampling():
    rng = np.random.default_rng(0)
    groups, correct = rng.integers(0, 4, 300), rng.random(300) < 0.7
    scores = rng.integers(0, 6, (2, 300)) + correct  # many ties
    correct[groups == 3] = True  # a group without an incorrect prediction has no pair

    def by_pairs(score, weight):
        same = np.outer(correct, ~correct) & (groups[:, None] == groups)
        ordered = (score[:, None] > score) + 0.5 * (score[:, None] == score)
        pairs = np.outer(weight, weight) * same
        return (pairs * ordered).sum() / pairs.sum()

    estimate, samples = separation.auroc_within({"a": scores}, correct, groups, resamples=3)["a"]
    np.testing.assert_allclose(estimate, [by_pairs(row, np.ones(300)) for row in scores], rtol=1e-12)
    weights = draws(np.random.default_rng(0), 300, 3)
    expected = [np.mean([by_pairs(row, weight.astype(float)) for row in scores]) for weight in weights]
    np.testing.assert_allclose(samples[:, 0], expected, rtol=1e-6)
    assert metrics.auroc_within(groups, correct, groups) == 0.5
    assert np.isnan(metrics.auroc_within(scores[0], np.ones(300, bool), groups))
