"""The bootstrap: against metrics of copied samples, against SciPy's, and by how often its intervals are right."""

import numpy as np
import pandas as pd
import pytest
from conftest import auroc, scored
from scipy import stats
from sklearn.metrics import roc_auc_score

from trustlib import metrics
from trustlib.stats import resampling, separation


def resampled(column, weights):
    """Metrics of samples with weights (R, N)."""
    return column.metrics(column.sums(np.arange(weights.shape[1])), weights.T.astype(np.float32))


@pytest.mark.parametrize("digits", [8, 0])  # without ties and with many
def test_a_resample_has_the_metrics_of_its_copied_samples(digits):
    z, correct = scored()
    z = z.round(digits)
    weights = np.stack([np.bincount(np.random.default_rng(k).integers(0, 300, 300), minlength=300) for k in range(20)])
    found = resampled(resampling._Column(z, correct, 0.2, -0.5, 0.15), weights)
    for row, weight in zip(found, weights, strict=True):
        z_copied, correct_copied = np.repeat(z, weight), np.repeat(correct, weight)
        copied = metrics.evaluate(z_copied, correct_copied, threshold=0.2, tnr_threshold=-0.5)
        coverage = metrics.coverage_at_risk(metrics.rank(z_copied, correct_copied), 0.15)
        np.testing.assert_allclose(row, [*(copied[name] for name in metrics.METRICS), coverage], atol=1e-12)


def test_a_resample_without_one_class_has_no_auroc_but_an_accuracy():
    column = resampling._Column(np.array([1.0, 2, 3]), np.array([True, True, False]))
    found = dict(zip(metrics.METRICS, resampled(column, np.array([[2, 1, 0]]))[0], strict=True))
    assert np.isnan(found["auroc"])
    assert (found["accuracy"], found["aurc"]) == (1, 0)


def test_all_scores_see_the_same_images_also_when_they_are_resampled_apart():
    z, correct = scored()
    apart = [resampling.bootstrap(scores, correct, resamples=50) for scores in ({"a": z}, {"b": 2 * z + 1, "c": -z})]
    boot = resampling.merged(apart)
    ranks = [metrics.METRICS.index(name) for name in ("auroc", "aurc", "fpr95")]
    np.testing.assert_array_equal(boot.samples["a"][:, :, ranks], boot.samples["b"][:, :, ranks])
    assert resampling.difference(boot, "a", "b").loc["auroc", ["low", "high"]].tolist() == [0, 0]
    k = metrics.METRICS.index("auroc")
    np.testing.assert_allclose(boot.samples["a"][:, 0, k] + boot.samples["c"][:, 0, k], 1)


def test_true_negatives_may_be_counted_at_a_threshold_of_their_own():
    z, correct = scored()
    plain, own = (resampling.bootstrap({"a": z}, correct, tnr_threshold=at, resamples=5) for at in (None, -1.0))
    k = metrics.METRICS.index("tnr")
    assert own.estimate["a"][0, k] == (z[~correct] <= -1).mean()
    assert (own.samples["a"][..., k] < plain.samples["a"][..., k]).all()
    np.testing.assert_array_equal(*(np.delete(boot.samples["a"], k, -1) for boot in (own, plain)))


def test_chunks_do_not_change_the_answer(monkeypatch):
    z, correct = scored()
    whole = resampling.bootstrap({"a": z}, correct, resamples=20).samples["a"]
    monkeypatch.setattr(resampling, "WEIGHTS", 700)
    monkeypatch.setattr(resampling, "BATCH", 7)
    np.testing.assert_array_equal(resampling.bootstrap({"a": z}, correct, resamples=20).samples["a"], whole)


def test_intervals_agree_with_those_of_scipy():
    z, correct = scored(120)
    found = resampling.intervals(resampling.bootstrap({"a": z}, correct, resamples=4000, seed=1)).loc["a", "auroc"]
    theirs = stats.bootstrap(
        (z, correct), auroc, paired=True, vectorized=False, n_resamples=2000,
        method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert found["low"] == pytest.approx(theirs.low, abs=0.012)
    assert found["high"] == pytest.approx(theirs.high, abs=0.006)
    assert found["low"] < roc_auc_score(correct, z) < found["high"]


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    truth = stats.norm.cdf(1 / np.sqrt(2))  # AUROC of two normals one deviation apart
    covered = 0
    for seed in range(200):
        z, correct = scored(200, seed)
        found = resampling.intervals(resampling.bootstrap({"a": z}, correct, resamples=200)).loc["a", "auroc"]
        low, high = found[["low", "high"]]
        covered += low <= truth <= high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_and_images_are_crossed(seeds):
    # A seed moves the whole score's quality, an image moves it for all seeds: both must be in the interval.
    rng = np.random.default_rng(seeds)
    covered, naive, trials = 0, 0, 200
    for _ in range(trials):
        images, trainings = 0.02 * rng.normal(), 0.03 * rng.normal(size=seeds)
        estimate = 0.8 + images + trainings
        samples = estimate + 0.02 * rng.normal(size=(400, 1))
        _, low, high, count = resampling.crossed(estimate, samples, 0.95)
        assert count == seeds
        covered += low <= 0.8 <= high
        naive += estimate.min() <= 0.8 <= estimate.max()
    assert 0.92 <= covered / trials <= 1.0
    assert naive / trials < 0.92


def test_the_interval_over_seeds_is_the_formula():
    estimate = np.array([0.7, 0.8, 0.9])
    samples = estimate + np.linspace(-0.1, 0.1, 2001)[:, None]
    mean, low, high, _ = resampling.crossed(estimate, samples, 0.95)
    half = np.sqrt(0.095**2 + (stats.t.ppf(0.975, 2) * 0.1) ** 2 / 3)
    assert (mean, low, high) == pytest.approx((0.8, 0.8 - half, 0.8 + half))
    one = resampling.crossed(estimate[:1], samples[:, :1], 0.95)
    assert one == pytest.approx((0.7, 0.605, 0.795, 1))


def test_each_score_may_have_its_own_errors_and_a_table_its_columns():
    z, correct = scored()
    other = np.random.default_rng(5).random(300) < 0.8
    own = {"a": correct, "b": other}
    boot = resampling.bootstrap(pd.DataFrame({"a": z, "b": -z}), own, resamples=20)
    for name, score in (("a", z), ("b", -z)):  # the resamples are those of each by itself
        np.testing.assert_array_equal(
            boot.samples[name], resampling.bootstrap({name: score}, own[name], resamples=20).samples[name]
        )
    with pytest.raises(ValueError, match="none of b"):
        resampling.bootstrap({"a": z, "b": z}, {"a": correct}, resamples=5)
    with pytest.raises(ValueError, match="same rows"):
        resampling.bootstrap({"a": z, "b": z[:9]}, {"a": correct, "b": correct[:9]}, resamples=5)


def test_of_many_rows_the_intervals_are_those_of_all_but_for_little_of_their_width(monkeypatch):
    n, groups, risk = 30_000, 6_000, 0.05
    rng = np.random.default_rng(6)
    correct = {"a": rng.random(n) < 0.9, "b": rng.random(n) < 0.85}
    z = {name: rng.normal(size=n) + 2 * own for name, own in correct.items()}
    z["b"] = z["b"].round(1)

    def ends(**options):
        boot = resampling.bootstrap(z, correct, threshold=0.5, max_risk=risk, resamples=1000, **options)
        frame = pd.concat([resampling.intervals(boot), pd.concat({"less": resampling.difference(boot, "a", "b")})])
        return frame["estimate"], frame[["low", "high"]].to_numpy()

    estimate, rows = ends()
    group = np.random.default_rng(0).permutation(n) % groups
    _, grouped = ends(cluster=group)
    monkeypatch.setattr(resampling, "EXACT", groups)
    same, found = ends()
    np.testing.assert_array_equal(same, estimate)
    width = np.diff(rows)
    assert (abs(found - grouped) < 0.01 * width).all()  # blocks, on the same resamples
    assert (abs(found - rows) < 0.12 * width).all()  # groups, on others: 1000 resamples give an end to 2 % (one sigma)
    assert np.mean(np.diff(found) / width) == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize("clustered", [True, False])
def test_whole_clusters_are_drawn_where_rows_depend_on_each_other(clustered):
    # 100 patients with ten equal rows each: one knows as much as from 100 rows
    truth, covered, trials = stats.norm.cdf(1 / np.sqrt(2)), 0, 200
    cluster = np.repeat(np.arange(100), 10).astype(str)
    for seed in range(trials):
        z, correct = (np.repeat(values, 10) for values in scored(100, seed))
        boot = resampling.bootstrap({"a": z}, correct, cluster=cluster if clustered else None, resamples=200)
        low, high = resampling.intervals(boot).loc[("a", "auroc"), ["low", "high"]]
        covered += low <= truth <= high
    assert (0.88 <= covered / trials <= 0.99) if clustered else covered / trials < 0.6


def test_intervals_end_where_the_metrics_do():
    z, correct = scored(100)
    noisy = np.stack([z, np.random.default_rng(3).normal(size=100)])
    boot = resampling.bootstrap({"a": noisy}, correct, resamples=50)
    assert resampling.intervals(boot)[["low", "high"]].stack().between(0, 1).all()


def test_differences_pair_seeds():
    z, correct = scored()
    three = z + np.random.default_rng(4).normal(size=(3, 300))
    boot = resampling.bootstrap({"a": three, "b": 2 * three, "one": z}, correct, resamples=40)
    assert resampling.difference(boot, "a", "b").loc["auroc", ["estimate", "low", "high"]].tolist() == [0, 0, 0]
    assert resampling.difference(boot, "a", "one").loc["auroc", "seeds"] == 3


def test_resampled_separability_is_that_of_the_copied_samples_and_of_the_same_images():
    z, correct = scored()
    confidence = 1 / (1 + np.exp(-z))
    found = separation.separability({"a": np.stack([confidence, confidence**2]), "b": z}, correct, resamples=30)
    rng = np.random.default_rng(0)
    for r in range(30):
        weight = resampling.draw(rng, len(correct))  # as `bootstrap` draws it
        for name, row, values in (("a", 0, confidence), ("a", 1, confidence**2), ("b", 0, z)):
            copied = metrics.separability(np.repeat(values, weight), np.repeat(correct, weight))
            for metric, value in copied.items():
                assert found[name][1][metric][r, row] == pytest.approx(value)
    whole = metrics.separability(z, correct)
    assert {metric: value[0] for metric, value in found["b"][0].items()} == pytest.approx(whole)
