"""Rows that belong together: how each group differs from the rest, and intervals over clusters."""

import numpy as np
import pytest

import trustlib
from trustlib import metrics
from trustlib.apply import evaluate
from trustlib.apply.groups import groups
from trustlib.stats import calibration
from trustlib.stats.rates import share_interval


def test_groups_have_exact_shares_and_no_area_where_too_few_are_wrong():
    rng = np.random.default_rng(3)
    values, correct = rng.normal(size=200), rng.random(200) < 0.7
    member = np.repeat(["a", "b"], [180, 20])
    correct[180:] = True
    found = groups(values, correct, member, 0.0)
    a, x, right = found.loc["a"], values[:180], correct[:180]
    assert (a["n"], a["errors"]) == (180, (~right).sum())
    assert a["auroc"] == pytest.approx(metrics.evaluate(x, right)["auroc"])
    assert a["risk"] == pytest.approx((~right)[x > 0].mean())
    assert a["coverage"] == pytest.approx((x > 0).mean())
    assert found.loc["b", "note"] == "0 incorrect: too few for an AUROC"
    assert np.isnan(found.loc["b", "auroc"])
    assert found.loc["b", "accuracy_low"] == pytest.approx(0.025 ** (1 / 20))


def test_without_a_threshold_a_group_has_neither_coverage_nor_risk():
    found = groups(np.arange(40.0), np.arange(40) % 2 > 0, np.repeat(["a", "b"], 20), None)
    assert found[["coverage", "risk_high"]].isna().all(axis=None)
    assert found["accuracy"].tolist() == [0.5, 0.5]


def test_a_group_that_differs_from_the_rest_is_found_and_one_that_does_not_is_not():
    rng = np.random.default_rng(9)
    member, values = rng.choice(["a", "b", "c"], 3000), rng.normal(size=3000)
    correct = rng.random(3000) < np.where(member == "a", 0.7, 0.9)
    found = groups(values, correct, member, 0.0)
    rest = correct[member != "a"].mean()
    assert found.loc["a", "accuracy_difference"] == pytest.approx(correct[member == "a"].mean() - rest)
    assert found.loc["a", "accuracy_difference_high"] < 0 < found.loc["a", "risk_difference_low"]
    assert found.loc["a", ["accuracy_p_holm", "risk_p_holm"]].max() < 1e-6
    assert (found["auroc_p_holm"] > 0.05).all()


# --- Clusters ---


@pytest.fixture
def clustered():
    """Twenty copies of each of 60 rows, as one cluster: no more is known than from the 60."""
    rng = np.random.default_rng(10)
    values = rng.random(60)
    correct = rng.random(60) < 0.3 + 0.7 * values
    return values, correct, np.repeat(values, 20), np.repeat(correct, 20), np.repeat(np.arange(60), 20)


def test_intervals_over_clusters_are_as_wide_as_those_of_one_row_each(clustered):
    one, right, values, correct, cluster = clustered
    single, many = evaluate.at_coverages(one, right), evaluate.at_coverages(values, correct, cluster=cluster)
    naive = evaluate.at_coverages(values, correct)
    wide = {name: (frame["high"] - frame["low"]).to_numpy() for name, frame in
            (("single", single), ("many", many), ("naive", naive))}  # fmt: skip
    np.testing.assert_allclose(wide["many"], wide["single"], rtol=0.1)
    assert (wide["naive"] < 0.5 * wide["many"]).all()
    widths = []
    for p, o, of in ((one, right, None), (values, correct, cluster)):
        found = calibration.with_intervals(p, o, cluster=of)
        widths.append([found[f"{name}_high"] - found[f"{name}_low"] for name in ("brier", "nll", "ece")])
    np.testing.assert_allclose(widths[0], widths[1], rtol=0.1)


def test_a_share_over_clusters_is_covered():
    """A share whose clusters differ: 95 % intervals hold it as often as they say, exact ones do not."""
    rng = np.random.default_rng(11)
    held = {"clusters": 0, "rows": 0}
    for _ in range(300):
        hit = rng.random((40, 25)) < rng.beta(2, 6, (40, 1))
        for name, cluster in (("clusters", np.repeat(np.arange(40), 25)), ("rows", None)):
            low, high = share_interval(hit.ravel(), cluster)
            held[name] += low <= 0.25 <= high
    assert held["clusters"] >= 0.92 * 300
    assert held["rows"] < 0.7 * 300


def test_a_report_of_clusters_says_so(clustered):
    *_, values, correct, cluster = clustered
    report = trustlib.evaluate(correct, values, cluster=cluster, resamples=50)
    assert "95 % intervals over clusters" in report.to_html()
    single = trustlib.evaluate(correct[::20], values[::20], resamples=50)
    auroc = [of.frame().set_index("metric").loc["auroc"] for of in (report, single)]
    assert auroc[0]["estimate"] == pytest.approx(auroc[1]["estimate"])
    assert auroc[0]["high"] - auroc[0]["low"] == pytest.approx(auroc[1]["high"] - auroc[1]["low"], rel=0.5)
