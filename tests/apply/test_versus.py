"""Comparisons of classifiers: against SciPy's bootstrap, on published scores, by rows that do and do not match."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import scored
from scipy import stats

from trustlib import metrics
from trustlib.apply.reader import PredictionsError, Table
from trustlib.apply.versus import METRICS, finding, versus
from trustlib.data import ROOT
from trustlib.stats import statistics


def pair(n=400, seed=0):
    """(name, confidence, correct) of two classifiers that err together: the second one less often."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(size=n)
    margins = {"a": 1 - difficulty + 0.5 * rng.normal(size=n), "b": 1.6 - difficulty + 0.5 * rng.normal(size=n)}
    return [(name, margin + rng.normal(size=n), margin > 0) for name, margin in margins.items()]


def table(name, n=8, **fields):
    """Predictions of three classes on n rows, with ids."""
    label = np.arange(n) % 3
    predicted = np.where(np.arange(n) % 4 == 0, (label + 1) % 3, label)
    rows = np.array([f"image{i}" for i in range(n)])
    values = {name: np.arange(n) * 0.1 + 0.05}
    made = Table(name, label == predicted, values, label=label, predicted=predicted, classes=("x", "y", "z"), rows=rows)
    return replace(made, **fields)


def shuffled(found, order):
    """The same rows in another order."""
    return replace(
        found,
        confidences={name: values[order] for name, values in found.confidences.items()},
        **{name: getattr(found, name)[order] for name in ("correct", "label", "predicted", "rows")},
    )


def test_each_has_its_metrics_of_its_own_errors_and_differences_are_those_of_scipy():
    listed, risk = pair(), 0.05
    found = versus(listed, max_risk=risk, resamples=2000).set_index(["name", "metric"])

    def metric(name, score, correct):
        ranking = metrics.rank(score, correct)
        covered = name == "coverage_at_risk"
        return metrics.coverage_at_risk(ranking, risk) if covered else metrics.of_ranking(ranking)[name]

    (_, score_a, correct_a), (_, score_b, correct_b) = listed
    for name in METRICS:
        of_a, of_b = (metric(name, score, correct) for _, score, correct in listed)
        row = found.loc[("b", name)]
        assert found.loc[("a", name), "estimate"] == pytest.approx(of_a, abs=1e-12)
        assert (row["estimate"], row["difference"]) == pytest.approx((of_b, of_b - of_a), abs=1e-12)
    for name in ("aurc", "coverage_at_risk"):
        theirs = stats.bootstrap(
            (np.arange(400),), lambda rows, name=name: (
                metric(name, score_b[rows], correct_b[rows]) - metric(name, score_a[rows], correct_a[rows])
            ), vectorized=False, n_resamples=1000, method="percentile", rng=np.random.default_rng(1),
        ).confidence_interval  # fmt: skip
        low, high = found.loc[("b", name), ["difference_low", "difference_high"]]
        assert (low, high) == pytest.approx(tuple(theirs), abs=0.1 * (theirs.high - theirs.low))


def test_one_set_of_errors_has_delongs_test_and_no_test_of_its_accuracy():
    z, correct = scored(300)
    other = z + np.random.default_rng(1).normal(size=300)
    found = versus([("a", z, correct), ("b", other, correct)], resamples=100).set_index(["name", "metric"]).loc["b"]
    assert found.loc["auroc", "p"] == statistics.delong_difference(other, z, correct).p
    assert found.loc["auroc", "test"] == "DeLong"
    assert np.isnan(found.loc["accuracy", "p"])
    assert found["p"].count() == 4
    assert (found["p_holm"] >= found["p"]).sum() == 4


def test_equal_classifiers_are_seldom_called_different():
    significant = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        difficulty = rng.normal(size=200)
        margins = [1 - difficulty + 0.5 * rng.normal(size=200) for _ in range(2)]
        listed = [(name, m + rng.normal(size=200), m > 0) for name, m in zip("ab", margins, strict=True)]
        significant += (versus(listed, resamples=199, seed=seed)["p_holm"] < 0.05).any()
    assert significant <= 11  # 5 % of 100 at most, of any of five tests; 11 is its 99.5 % quantile


def test_two_published_classifiers_and_the_finding_in_words():
    with np.load(ROOT / "results" / "fashion" / "scores.npz") as file:
        listed = [(of, file[f"{of}/seed0.mcp"], file[f"{of}/seed0.correct"]) for of in ("vit", "rsn")]
    compared = versus(listed, max_risk=0.05, resamples=500)
    row = compared.set_index(["name", "metric"]).loc[("rsn", "coverage_at_risk")]
    assert 0 < row["difference_low"] < row["difference"] < row["difference_high"]
    sentence = finding(compared, 0.05)
    assert sentence.startswith(f"At a risk of at most 5 % rsn keeps {100 * row['estimate']:.1f} % [")
    assert f"{100 * row['difference']:+.1f} points [" in sentence
    assert ", significant (p = " in sentence
    assert "not significant" in finding(versus([listed[0], ("same", *listed[0][1:])], resamples=50), 0.05)


def test_rows_are_matched_by_their_ids_and_without_ids_by_their_order():
    first = table("one", 40)
    second = replace(table("two", 40), confidences={"two": np.random.default_rng(0).random(40)})
    expected = versus({"one": first, "two": second}, resamples=50)
    mixed = shuffled(second, np.random.default_rng(1).permutation(40))
    assert versus({"one": first, "two": mixed}, resamples=50).equals(expected)
    with pytest.raises(PredictionsError, match="disagree on the label"):
        versus({"one": replace(first, rows=None), "two": mixed}, resamples=50)
    listed = [(of.source, of.confidences[of.source], of.correct) for of in (first, second)]
    assert versus(listed, resamples=50).equals(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": np.array([0, 1, 2, 0, 1, 1, 0, 1])}, r"disagree on the label of 1 of 8 rows \(image5\)"),
        ({"classes": ("x", "y", "w")}, r"label of 2 of 8 rows \(image2, image5\)"),
        ({"rows": np.array([f"image{i + 1}" for i in range(8)])}, "B lacks 1 row that A has: image0"),
        ({"rows": np.array([f"image{i % 7}" for i in range(8)])}, "B has more than one row with the id image0"),
    ],
)
def test_rows_that_are_not_the_same_are_refused_and_named(changes, message):
    with pytest.raises(PredictionsError, match=message):
        versus({"A": table("A"), "B": table("B", **changes)}, resamples=5)


def test_other_lengths_are_refused_and_clusters_are_those_of_a_table():
    with pytest.raises(PredictionsError, match="A has 8 rows, B 9: expected the same rows, or a column of ids"):
        versus({"A": table("A", rows=None), "B": table("B", 9, rows=None)}, resamples=5)
    one, two = table("A", 60), replace(table("B", 60), cluster=np.arange(60) // 6)
    whole, apart = (versus({"A": one, "B": replace(two, cluster=c)}, resamples=200) for c in (two.cluster, None))
    assert not whole.equals(apart)
    assert whole.equals(versus({"A": one, "B": two}, cluster=np.arange(60) // 6, resamples=200))
