"""Metrics: against scikit-learn, against brute force over the orders of ties, against closed forms."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from trustlib import metrics, released

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
    # 57 of 60 right predictions are exactly 95 %: the wrong one that comes next must not count. With 0.55 of 20 the
    # product in floating point is 11.000000000000002, and one more would be asked for.
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
    for name in ("accuracy", "fpr95", "aupr_error", "aupr_success", "auroc", "tpr", "tnr", "aurc", "augrc"):
        assert first[name] == pytest.approx(second[name], abs=1e-12, nan_ok=True)


def test_tpr_and_tnr_at_their_thresholds():
    confidence = np.array([-2.0, -1, 0, 1, 2])
    correct = np.array([False, True, False, True, False])
    # right: -1 and 1, one above 0; wrong: -2, 0, 2, two at or below 0; one at or below -1.5
    assert metrics.evaluate(confidence, correct)["tpr"] == 1 / 2
    assert metrics.evaluate(confidence, correct)["tnr"] == 2 / 3
    assert metrics.evaluate(confidence, correct, tnr_threshold=-1.5)["tnr"] == 1 / 3


def test_infinite_confidences_are_ordered_and_tie_with_each_other():
    confidence = np.array([np.inf, np.inf, 0.0, -np.inf])
    found = metrics.evaluate(confidence, np.array([True, False, True, False]))
    assert found["auroc"] == pytest.approx((0.5 + 1 + 0 + 1) / 4)


def test_float32_scores_give_the_float64_answer():
    rng = np.random.default_rng(1)
    z = rng.normal(size=500).astype(np.float32)
    correct = rng.random(500) < 0.8
    assert metrics.evaluate(z, correct) == metrics.evaluate(z.astype(np.float64), correct)


@pytest.mark.parametrize(
    ("correct", "missing"),
    [([True] * 3, {"fpr95", "aupr_error", "auroc", "tnr"}), ([False] * 3, {"fpr95", "aupr_success", "auroc", "tpr"})],
)
def test_what_does_not_exist_is_nan_and_has_a_reason(correct, missing):
    found = metrics.evaluate([1.0, 2.0, 3.0], correct)
    assert {name for name, value in found.items() if np.isnan(value)} == missing
    assert metrics.undefined(correct).keys() == missing | set(metrics.SEPARABILITY)
    assert all("all 3 predictions" in reason for reason in metrics.undefined(correct).values())


def test_both_classes_leave_nothing_undefined():
    assert metrics.undefined([True, False]) == {}
    assert not np.isnan(list(metrics.evaluate([1.0, 2.0], [True, False]).values())).any()


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([1.0, np.nan], [True, False], "NaN in 1 of 2 places, the first at 1"),
        ([1.0, 2.0], [True], r"\(2,\) and \(1,\)"),
        ([], [], "N >= 1"),
        ([[1.0]], [[True]], "one length"),
        ([1.0, 2.0], [0.3, 1], "boolean"),
    ],
)
def test_bad_input_is_refused(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(confidence, correct)


def test_risk_coverage_ends_at_the_error_rate_with_ties_as_one_point():
    coverage, risk = metrics.risk_coverage([3.0, 2, 2, 1], [True, True, False, False])
    np.testing.assert_allclose(coverage, [1 / 4, 3 / 4, 1])
    np.testing.assert_allclose(risk, [0, 1 / 3, 1 / 2])


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


def test_released_kl_leaves_two_equal_normals_one_half_apart():
    confidence = np.r_[0.0, 1, 2, 0, 1, 2]
    correct = np.r_[np.ones(3, bool), np.zeros(3, bool)]
    assert metrics.separability(confidence, correct) == pytest.approx({"kl": 0.0, "bhattacharyya": 0.0})
    assert released.average_kl(confidence, correct) == pytest.approx(0.5)


def test_separability_of_a_class_without_spread_does_not_exist():
    assert np.isnan(metrics.separability([1.0, 1, 2, 3], [True, True, False, False])["kl"])
    assert np.isnan(released.average_kl([1.0, 2, 3], [True, False, False]))
