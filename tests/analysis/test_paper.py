"""The paper's tables: what they hold, the intervals that follow, the bound, and the average precisions that an AUROC
leaves, against all orders of small samples."""

from itertools import combinations, product

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from trustlib.analysis import facts, paper, rules
from trustlib.stats.rates import clopper_pearson


def test_the_published_rows_are_the_papers():
    # read in the paper's tables by eye
    assert len(paper.table("table1")) == 16
    assert paper.table("table3").loc[("defocus_blur", "ss"), "tnr"] == pytest.approx(0.3729)
    assert paper.table("table2").loc[("cifar10", "tcp-dagger"), "tpr"] == pytest.approx(0.9788)
    assert np.isnan(paper.table("table2").loc[("mnist", "trust_score"), "tnr"])


def test_published_intervals_follow_from_the_counts_of_the_published_errors():
    frame = paper.table2("mnist").set_index(["loss", "metric"])
    low, high = clopper_pearson(2, 90)  # 2.22 % of 90 incorrect predictions
    assert tuple(frame.loc[("ss", "fpr95"), ["low", "high"]]) == (low, high)
    assert frame.loc[("ss", "fpr95"), "estimate"] == pytest.approx(0.0222)
    assert frame.loc[("tcp", "auroc"), "low"] < 0.9882 < frame.loc[("tcp", "auroc"), "high"]
    assert np.isnan(frame.loc[("tcp", "aupr_error"), "low"])
    assert set(paper.table2("cifar10")["loss"]) == set(paper.TABLE_2)
    for dataset in ("mnist", "cifar10"):  # 5.26 % of 90 and 49.02 % of 781 are no counts
        without = paper.table2(dataset).groupby("loss")["low"].agg(lambda low: low.isna().all())
        assert list(without[without].index) == ["mc_dropout"]


def test_the_bound_of_a_finite_set_holds_and_is_hoeffdings():
    # one hypothesis, a fair coin: |mean - 1/2| exceeds the bound at delta in at most that share of the samples
    bound = paper.hoeffding_bound(1.0, 0.0, 100, delta=0.2)
    means = np.random.default_rng(1).integers(0, 2, (5000, 100)).mean(1)
    assert (np.abs(means - 0.5) > bound).mean() <= 0.2
    assert bound == pytest.approx(np.sqrt(np.log(10) / 200))


def attainable(n: int, *, tied: bool) -> tuple[np.ndarray, ...]:
    """Share of positives, AUROC, least and greatest average precision of all orders of n samples."""
    found = {}
    ties = list(product((0, 1) if tied else (1,), repeat=n - 1))  # a step of 0 is a tie
    for positives in range(1, n):
        for chosen, steps in product(combinations(range(n), positives), ties):
            positive = np.isin(np.arange(n), chosen)
            score = -np.cumsum((0, *steps))
            key = positives / n, round(float(roc_auc_score(positive, score)), 12)
            found.setdefault(key, []).append(average_precision_score(positive, score))
    rows = [(*key, min(values), max(values)) for key, values in sorted(found.items())]
    return tuple(np.array(rows).T)


def exact_minimum(positives: int, negatives: int) -> np.ndarray:
    """Least average precision of all orders without ties, by the number of pairs whose negative comes first."""
    pairs = positives * negatives
    least = np.full((negatives + 1, pairs + 1), np.inf)  # by negatives before the last positive, and pairs
    least[0, 0] = 0
    for i in range(1, positives + 1):
        before = np.minimum.accumulate(least)
        least = np.full_like(before, np.inf)
        for b in range(negatives + 1):
            least[b, b:] = before[b, : pairs + 1 - b] + i / (i + b) / positives
    return least.min(0)


def test_no_order_of_few_samples_lies_outside():
    share, auroc, least, greatest = attainable(7, tied=False)
    assert (paper.least_average_precision(share, auroc) <= least + 1e-6).all()
    assert (paper.greatest_average_precision(share, auroc) + 1 / 7 >= greatest - 1e-9).all()


def test_no_order_of_few_samples_with_ties_lies_outside():
    share, auroc, least, greatest = attainable(5, tied=True)
    bound = [paper.least_tied_average_precision(*row) for row in zip(share, auroc, strict=True)]
    assert (bound <= least).all()
    assert (paper.least_average_precision(share, np.maximum(2 * auroc - 1, 0)) <= least + 1e-6).all()
    assert (1 - (1 - share) * (1 - auroc) >= greatest - 1e-9).all()
    # ties can lower an average precision: all five tied, against (1/2 + 2/4) / 2
    assert least[(share == 0.4) & (auroc == 0.5)].item() == pytest.approx(0.4)


@pytest.mark.parametrize(("positives", "negatives"), [(40, 80), (80, 20)])
def test_the_minimum_is_that_of_all_orders_of_many_samples(positives, negatives):
    pairs = positives * np.linspace(0, negatives, 21, dtype=int)  # at these f fits into steps of 1 / negatives
    exact = exact_minimum(positives, negatives)[pairs]
    auroc = 1 - pairs / pairs[-1]
    least = paper.least_average_precision(positives / (positives + negatives), auroc)
    assert (least <= exact + 1e-6).all()
    assert (exact - least).max() < 1 / positives


@pytest.mark.parametrize("share", [0.05, 0.3, 0.9])
def test_the_minimum_is_convex_and_rises_with_the_auroc_and_the_share(share):
    least = paper.least_average_precision(share, np.linspace(0, 1, 41))
    assert np.diff(least).min() > 0
    assert np.diff(least, 2).min() > -1e-6
    assert least[[0, -1]] == pytest.approx([1 + (1 - share) / share * np.log1p(-share), 1], abs=1e-5)
    assert (paper.least_average_precision(share + 0.01, np.linspace(0, 1, 41)) >= least - 1e-9).all()


@pytest.mark.parametrize("digits", [0, 6])  # with ties and without
def test_samples_of_any_confidence_lie_inside(digits):
    rng = np.random.default_rng(0)
    for share, gap, spread in product((0.1, 0.8), (-1.0, 0.5, 2.0), (0.2, 3.0)):
        positive = rng.random(500) < share
        score = np.round(rng.normal(size=500) * np.where(positive, spread, 1) + gap * positive, digits)
        auroc, area = roc_auc_score(positive, score), average_precision_score(positive, score)
        assert paper.least_tied_average_precision(positive.mean(), auroc, cells=50) < area
        assert area < 1 - (1 - positive.mean()) * (1 - auroc)
        if digits:
            assert paper.least_average_precision(positive.mean(), auroc) < area
            assert area < paper.greatest_average_precision(positive.mean(), auroc) + 1 / 500


def test_the_steep_slope_rows_are_no_average_precisions_by_the_negated_confidence():
    frame = paper.aupr_error_bounds()
    assert len(frame) == 28
    assert set(frame["excludes"].xs("ss", level="loss")) == {"negated, whatever the ties"}
    assert frame["aupr_error"].between(frame["not_negated_low"], frame["not_negated_high"]).all()
    row = frame.loc[("table1", "vit-vit", "ss")]
    assert row["negated_low"] == pytest.approx(0.2374, abs=1e-4)  # 23.75 % before the ends of the rounding intervals
    simpler = [paper.least_average_precision(1 - r.accuracy, max(2 * r.auroc - 1, 0)) for r in frame.itertuples()]
    assert (frame["negated_low_tied"] > simpler).all()
    verdict, found = facts.COMPUTED["published_aupr_error"](None)[:2]
    assert verdict == rules.CONTRADICTED
    assert f"{(frame['excludes'] != '').sum()} of 28 rows" in found
