"""Tests and intervals: against their definitions, against SciPy, and by how often they are right."""

import itertools

import numpy as np
import pytest
from conftest import auroc, scored
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from trustlib import metrics
from trustlib.stats import combination, statistics
from trustlib.stats.rates import clopper_pearson, holm, rate_intervals


def components(z, correct):
    """DeLong's structural components by all pairs."""
    psi = (z[correct][:, None] > z[~correct]) + 0.5 * (z[correct][:, None] == z[~correct])
    return psi.mean(1), psi.mean(0)


@pytest.mark.parametrize("digits", [8, 0])
def test_delong_agrees_with_all_pairs(digits):
    z, correct = scored()
    z = z.round(digits)
    area = statistics.delong(z, correct)
    v10, v01 = components(z, correct)
    assert area.auroc == pytest.approx(auroc(z, correct), abs=1e-12)
    assert area.auroc == pytest.approx(roc_auc_score(correct, z), abs=1e-12)
    assert area.error == pytest.approx(np.sqrt(v10.var(ddof=1) / len(v10) + v01.var(ddof=1) / len(v01)), abs=1e-12)
    assert 0 < area.low < area.auroc < area.high < 1


def test_a_paired_difference_agrees_with_all_pairs():
    z, correct = scored()
    other = z + np.random.default_rng(1).normal(size=300)
    found = statistics.delong_difference(z, other, correct)
    a, b = components(z, correct), components(other, correct)
    error = np.sqrt(sum((x - y).var(ddof=1) / len(x) for x, y in zip(a, b, strict=True)))
    assert found.difference == pytest.approx(roc_auc_score(correct, z) - roc_auc_score(correct, other), abs=1e-12)
    assert found.error == pytest.approx(error, abs=1e-12)
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.difference / error)))


# Subarachnoid haemorrhage, 113 patients: poor outcome, WFNS grade, protein S100B in 0.01 ug/l. Turck et al. 2010,
# the example data of pROC (Robin et al. 2011, BMC Bioinformatics 12:77).
POOR_AND_WFNS = """
00001101001011001011101000000000100110110000000001100010001010011101101111000110100000010000000000001111110001000
11113254125255125225211112121134214541425511241125521251222151125214524414121421232421451154221113125225552445111"""
S100B = """13 14 10 4 13 10 47 16 18 10 12 10 44 71 4 8 49 4 7 33 9 9 7 11 7 17 7 11 13 19 5 16 41 14 34 35 48 9 96 25
50 46 16 7 43 45 11 8 9 86 52 8 6 13 207 10 14 15 7 6 77 5 9 30 3 9 4 23 70 9 27 71 8 26 8 16 9 13 10 8 11 33 11 28 7 10
32 22 7 5 24 38 10 15 8 14 10 7 4 19 56 14 58 32 82 74 15 47 17 44 15 50 48"""


def test_a_published_data_set_gives_what_proc_computes():
    # pROC 1.18.0, roc.test(method = "delong") of the two, run for this test
    poor, grade = (np.array(list(text), int) for text in POOR_AND_WFNS.split())
    protein = np.array(S100B.split(), int)
    assert statistics.delong(grade, poor).auroc == pytest.approx(0.8236789, abs=5e-8)
    assert statistics.delong(protein, poor).auroc == pytest.approx(0.7313686, abs=5e-8)
    found = statistics.delong_difference(grade, protein, poor)
    assert found.z == pytest.approx(2.208984, abs=5e-7)
    assert found.p == pytest.approx(0.02717578, abs=5e-9)


def test_an_example_by_hand():
    # Four correct predictions 4, 3, 2, 1 + 1/2 and two incorrect, 2.5 and 0, by hand: of the 8 pairs 6 are in order.
    # Right components: 1, 1, 1/2, 1/2; incorrect ones: 1/2, 1. Variances 1/12 / 4 and 1/8 / 2.
    area = statistics.delong([4, 3, 2, 1.5, 2.5, 0], [True] * 4 + [False] * 2)
    assert area.auroc == pytest.approx(6 / 8)
    assert area.error == pytest.approx(np.sqrt(1 / 48 + 1 / 16))


def test_the_standard_error_is_that_of_resampling():
    z, correct = scored(400)
    rng = np.random.default_rng(2)
    draws = (rng.integers(0, 400, 400) for _ in range(600))
    resampled = [auroc(z[i], correct[i]) for i in draws]
    assert statistics.delong(z, correct).error == pytest.approx(np.std(resampled), rel=0.12)


def test_seeds_are_averaged_sample_by_sample():
    z, correct = scored()
    seeds = z + np.random.default_rng(3).normal(size=(3, 300))
    area = statistics.delong(seeds, correct)
    assert area.auroc == pytest.approx(np.mean([roc_auc_score(correct, s) for s in seeds]))
    parts = [components(s, correct) for s in seeds]
    means = [np.mean([p[i] for p in parts], axis=0) for i in (0, 1)]
    assert area.error == pytest.approx(np.sqrt(sum(m.var(ddof=1) / len(m) for m in means)))
    assert statistics.delong_difference(seeds, seeds[:1], correct).difference == pytest.approx(
        area.auroc - roc_auc_score(correct, seeds[0])
    )


def test_p_values_are_uniform_when_two_scores_are_equally_good():
    p = []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        correct = rng.random(150) < 0.7
        quality = rng.normal(size=150) + correct
        a, b = quality + rng.normal(size=(2, 150))
        p.append(statistics.delong_difference(a, b, correct).p)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.08


def test_an_auroc_at_its_end_has_an_interval_all_the_same():
    z, correct = np.arange(20.0), np.arange(20) >= 10
    area = statistics.delong(z, correct)
    assert (area.auroc, area.error, area.high) == (1, 0, 1)
    assert area.low == pytest.approx(0.025 ** (1 / 10))
    assert np.isnan(statistics.delong(z, np.ones(20, bool)).auroc)
    assert statistics.delong_difference(z, 2 * z, correct).p == 1
    assert np.isnan(statistics.delong_difference(z, -z, correct).p)


def test_an_error_of_0_makes_no_interval_of_a_difference():
    found = statistics.delong_difference(np.arange(50), np.zeros(50), np.arange(50) >= 12)  # perfect, and constant
    assert found.difference == 0.5
    assert np.isnan([found.low, found.high, found.z, found.p]).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=7))
def test_holm_is_the_closed_test_of_bonferroni(p):
    m = len(p)
    for i, adjusted in enumerate(holm(p)):
        subsets = (s for size in range(1, m + 1) for s in itertools.combinations(range(m), size) if i in s)
        closed = max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets)
        assert adjusted == pytest.approx(closed)


def test_holm_leaves_out_tests_that_were_not_made():
    np.testing.assert_allclose(holm([0.01, np.nan, 0.04]), [0.02, np.nan, 0.04])


@pytest.mark.parametrize(("count", "n"), [(0, 10), (3, 10), (10, 10), (977, 8974)])
def test_clopper_pearson_agrees_with_scipy(count, n):
    theirs = stats.binomtest(count, n).proportion_ci(0.9, method="exact")
    assert clopper_pearson(count, n, 0.9) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_rates_count_what_is_above_the_threshold():
    rates = rate_intervals([-2.0, -1, 0, 1, 2], [False, True, False, True, False], 0.0, tnr_threshold=-1.5)
    counts = {name: (rate.count, rate.n) for name, rate in rates.items()}
    assert counts == {"tpr": (1, 2), "tnr": (1, 3), "coverage": (2, 5), "risk": (1, 2)}
    assert rates["risk"].low < rates["risk"].rate < rates["risk"].high
    assert np.isnan(rate_intervals([0.0], [True], 1.0)["risk"].rate)


def test_hanley_and_mcneils_interval_is_as_wide_as_exponential_scores_vary():
    rng, n_right, n_wrong, area = np.random.default_rng(0), 120, 40, 0.85
    rate = 1 / area - 1  # of the correct predictions' scores: P(right > wrong) = 1 / (1 + rate)
    areas = [(rng.exponential(1 / rate, (n_right, 1)) > rng.exponential(1.0, n_wrong)).mean() for _ in range(2000)]
    low, high = statistics.hanley_mcneil(area, n_right, n_wrong)
    assert (high - low) / 2 / 1.96 == pytest.approx(np.std(areas), rel=0.06)
    assert np.mean(areas) == pytest.approx(area, abs=0.005)
    wide_low, wide_high = statistics.hanley_mcneil(area, n_right, n_wrong, level=0.99)
    assert wide_low < low < area < high < wide_high
    assert statistics.hanley_mcneil(0.99, 3, 3)[1] == 1.0


def test_an_oracle_without_information_adds_nothing_to_mcp():
    rng = np.random.default_rng(0)
    right = rng.random(2000) < 0.8
    mcp = 1 / (1 + np.exp(-(rng.normal(size=2000) + 1.5 * right)))
    for signal in (0.0, 1.5):
        z = np.stack([rng.normal(size=2000) + signal * right for _ in range(2)])
        both = combination.with_mcp({"heldout": z, "test": z}, {"heldout": mcp, "test": mcp}, right)
        gain = np.mean([metrics.evaluate(row, right)["auroc"] for row in both]) - metrics.evaluate(mcp, right)["auroc"]
        assert abs(gain) < 0.005 if signal == 0 else gain > 0.04
