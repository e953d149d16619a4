"""Thresholds with a guarantee: against their definitions, and by how often the guarantee is broken."""

from math import ceil, log2

import numpy as np
import pytest
from conftest import scored
from scipy import stats

from trustlib.data import ROOT
from trustlib.stats import planning, selective


def test_the_bound_is_the_exact_one_at_its_share_of_delta():
    z, correct = scored(2000, gap=2.0)
    found = selective.guaranteed_threshold(z, correct, max_risk=0.1, delta=0.01)
    assert found.steps == ceil(log2(2000))
    kept = z > found.threshold
    assert (found.kept, found.errors) == (kept.sum(), (~correct[kept]).sum())
    assert (found.coverage, found.risk) == pytest.approx((kept.mean(), (~correct[kept]).mean()))
    exact = stats.binomtest(found.errors, found.kept, alternative="less").proportion_ci(
        1 - 0.01 / found.steps, method="exact"
    )
    assert found.bound == pytest.approx(exact.high, abs=1e-12)
    assert found.bound <= 0.1
    assert "at most" in str(found)


@pytest.mark.parametrize("rule", selective.RULES)
def test_the_guarantee_is_broken_no_more_often_than_delta(rule):
    # The risk above a threshold t is known: right with probability t + (1 - t) / 2 on average, for uniform confidence.
    rng = np.random.default_rng(5)
    delta, max_risk, broken, found = 0.1, 0.2, 0, 0
    for _ in range(2000):
        z = rng.random(150)
        guarantee = selective.guaranteed_threshold(z, rng.random(150) < z, max_risk, delta, rule)
        found += guarantee.found
        broken += guarantee.found and (1 - guarantee.threshold) / 2 > max_risk
    assert found > 400
    assert broken / 2000 <= delta


@pytest.mark.parametrize("rule", selective.RULES)
def test_ties_are_kept_or_left_together_and_hide_no_threshold_below_them(rule):
    found = selective.guaranteed_threshold(np.repeat([3.0, 2.0, 1.0], 200), np.arange(600) < 400, 0.1, 0.01, rule)
    assert found.threshold in (1.0, 2.0)
    assert found.kept in (200, 400)
    everything = selective.guaranteed_threshold(np.zeros(300), np.ones(300, bool), 0.1, 0.001, rule)
    assert (everything.threshold, everything.coverage) == (-np.inf, 1)
    saturated = np.r_[np.ones(700), np.linspace(0, 0.5, 300)]
    assert selective.guaranteed_threshold(saturated, np.ones(1000, bool), 0.1, 0.001, rule).coverage == 1
    assert selective.guaranteed_threshold(saturated, saturated == 1, 0.1, 0.001, rule).kept >= 700
    z = np.r_[np.linspace(0, 1, 200), np.full(100, -np.inf)]
    found = selective.guaranteed_threshold(z, np.ones(300, bool), 0.1, 0.001, rule)
    assert (found.kept, found.threshold) == ((z > found.threshold).sum(), -np.inf) == (200, -np.inf)


@pytest.mark.parametrize("rule", selective.RULES)
def test_the_guarantee_holds_with_ties(rule):
    rng = np.random.default_rng(8)
    broken, found = 0, 0
    for _ in range(900):
        z = rng.integers(10, size=300) / 10
        guarantee = selective.guaranteed_threshold(z, rng.random(300) > (1 - z) / 2, 0.2, 0.3, rule)
        above = np.arange(10)[np.arange(10) / 10 > guarantee.threshold] / 10
        found += guarantee.found
        broken += guarantee.found and ((1 - above) / 2).mean() > 0.2 + 1e-12
    assert broken / 900 <= 0.3
    assert found > 450


def test_the_search_computes_no_more_bounds_than_it_shares_delta_among(monkeypatch):
    rng = np.random.default_rng(6)
    made = []
    monkeypatch.setattr(selective, "_upper", lambda *_: made.append(1) or float(rng.random() < 0.5))
    for n in (2, 3, 4, 5, 8, 9, 16, 17, 64, 65):
        counts = []
        for _ in range(200):
            made.clear()
            steps = selective.guaranteed_threshold(np.arange(n), np.ones(n, bool), 0.9, 0.9).steps
            counts.append(len(made))
        assert max(counts) == steps == ceil(log2(n))


def test_no_threshold_qualifies_is_said_plainly():
    rng = np.random.default_rng(6)
    found = selective.guaranteed_threshold(rng.random(500), rng.random(500) < 0.5, 0.05, 0.01)
    assert (found.found, found.coverage, found.threshold) == (False, 0, np.inf)
    assert str(found).startswith("No threshold qualifies")


@pytest.mark.parametrize("rule", selective.RULES)
def test_too_few_samples_are_refused_with_the_number_needed(rule):
    with pytest.raises(ValueError, match=r"20 samples cannot show .* at least") as error:
        selective.guaranteed_threshold(np.arange(20), np.ones(20, bool), 0.05, 0.01, rule)
    needed = int(str(error.value).split("at least ")[1].split()[0])
    assert planning.labels_needed(0.05, 0.01, rule).fewest == needed
    with pytest.raises(ValueError, match="cannot show"):
        selective.guaranteed_threshold(np.arange(needed - 1), np.ones(needed - 1, bool), 0.05, 0.01, rule)
    assert selective.guaranteed_threshold(np.arange(needed), np.ones(needed, bool), 0.05, 0.01, rule).bound <= 0.05


@pytest.mark.parametrize("rule", selective.RULES)
def test_an_increasing_map_changes_only_the_threshold(rule):
    z, correct = scored(1000, gap=2.0)
    a, b = (selective.guaranteed_threshold(f(z), correct, 0.1, 0.01, rule) for f in (np.asarray, np.exp))
    assert (a.kept, a.errors, a.bound) == (b.kept, b.errors, b.bound)
    assert b.threshold == pytest.approx(np.exp(a.threshold))


# --- A fixed sequence, of places q in [0, 1]: the most confident first, errors with a probability that is known ---

WAVES = [(0.15, 0.052), (0.1, 0.045), (0.1, 0.06), (0.1, 0.04), (0.1, 0.065), (0.1, 0.04), (0.35, 0.056)]
SHAPES = {  # (share of rows, probability of an error), most confident first; the risk asked for is 0.05
    "just too risky": [(1.0, 0.0501)],
    "rising": [(0.025, 0.4 * (i / 40) ** 2) for i in range(40)],
    "waves": WAVES,
    "the most confident fail": [(0.2, 0.07), (0.5, 0.03), (0.3, 0.3)],
}


@pytest.mark.parametrize("tied", [(), (0, 2, 3), range(40)], ids=["no ties", "some", "all"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_fixed_sequence_supposes_nothing_of_the_risk(shape, tied):
    share, error = np.array(SHAPES[shape]).T
    ends = share.cumsum()
    rng, draws, broken = np.random.default_rng(0), 700, 0
    for seed in range(draws):
        q = rng.random(400)
        piece = np.searchsorted(ends[:-1], q, "right")
        correct = rng.random(400) >= error[piece]
        z = -np.where(np.isin(piece, tied), ends[piece], q)
        found = selective.guaranteed_threshold(z, correct, 0.05, 0.1, "fixed-sequence", seed=seed)
        reach = min(1, -found.threshold)  # rows are kept that are placed before, of tied ones those whose end is before
        whole = np.isin(np.arange(len(share)), tied)
        some = np.clip(reach - (ends - share), 0, share)
        kept = np.where(whole & (found.threshold > -np.inf), share * (ends < reach), some)
        broken += found.found and (kept * error).sum() > 0.05 * kept.sum()
    assert broken / draws <= 0.1 + 2 * np.sqrt(0.09 / draws)


def test_a_fixed_sequence_is_as_defined():
    z, correct = scored(800, gap=2.0)
    order = np.argsort(-z)
    start = next(m for m in range(1, 800) if stats.binom.cdf(1, m, 0.1) <= 0.01)
    passed = [stats.binom.cdf((~correct[order[:m]]).sum(), m, 0.1) <= 0.01 for m in range(start, 801)]
    found = selective.guaranteed_threshold(z, correct, 0.1, 0.01, "fixed-sequence")
    assert found.kept == start - 1 + passed.index(False) > start


def test_the_wider_of_two_rules_is_taken_at_half_of_delta():
    rng = np.random.default_rng(3)
    z = rng.random(1500)
    for correct in (rng.random(1500) < 0.6 + 0.5 * z, np.where(z > 0.99, False, rng.random(1500) < 0.8 + 0.3 * z)):
        single = [selective.guaranteed_threshold(z, correct, 0.1, 0.02, rule) for rule in selective.RULES[:2]]
        both = selective.guaranteed_threshold(z, correct, 0.1, 0.04, "both")
        assert both.kept == max(found.kept for found in single) > 0
        assert both.threshold in [found.threshold for found in single]


def test_a_fixed_sequence_certifies_more_of_published_scores():
    with np.load(ROOT / "results" / "fashion" / "scores.npz") as file:
        mcp, correct = file["rsn/seed0.mcp"], file["rsn/seed0.correct"]
    rng, found = np.random.default_rng(0), []
    for _ in range(50):
        rows = rng.choice(len(mcp), 1000, replace=False)
        found.append([selective.guaranteed_threshold(mcp[rows], correct[rows], 0.02, 0.05, rule).coverage for rule in
                      selective.RULES[:2]])  # fmt: skip
    sgr, sequence = np.mean(found, axis=0)
    assert sequence > sgr + 0.05


# --- Groups, clusters, the best risk ---


def test_thresholds_of_groups_hold_all_at_once():
    rng, broken, found = np.random.default_rng(4), 0, 0
    error = np.array([0.16, 0.2, 0.04])[:, None] * np.ones(3)[None]
    for _ in range(600):
        group = rng.integers(3, size=900)
        correct = rng.random(900) >= error[group, 0]
        table = selective.group_thresholds(rng.random(900), correct, group, 0.15, 0.2, "fixed-sequence")
        found += table.loc[2, "found"]
        broken += table.loc[[0, 1], "found"].any()
    assert broken / 600 <= 0.2 + 2 * np.sqrt(0.16 / 600)
    assert found > 300
    assert (table["delta"] == 0.2 / 3).all()
    few = selective.group_thresholds(np.arange(303), np.ones(303, bool), np.arange(303) < 3, 0.1)
    assert "cannot show" in few.loc[True, "reason"]


def test_rows_of_a_cluster_count_once():
    # 60 patients of 30 rows each that are all correct or all not: 1,800 rows, and no more than 60 say something.
    rng, broken, naive = np.random.default_rng(5), 0, 0
    patient = np.repeat(np.arange(60), 30)
    for seed in range(400):
        correct = np.repeat(rng.random(60) >= 0.21, 30)
        z = np.repeat(rng.random(60), 30) + 1e-3 * rng.random(1800)
        drawn = selective.guaranteed_threshold(z, correct, 0.2, 0.2, "fixed-sequence", cluster=patient, seed=seed)
        assert drawn.n == 60
        broken += drawn.found
        naive += selective.guaranteed_threshold(z, correct, 0.2, 0.2, "fixed-sequence").found
    assert broken / 400 <= 0.2 + 2 * np.sqrt(0.16 / 400)
    assert naive / 400 > 0.5
    rows = selective.one_per_cluster(["b", "a", "b", "c"], seed=1)
    assert sorted(np.array(["b", "a", "b", "c"])[rows]) == ["a", "b", "c"]


def test_the_best_risk_holds_though_it_is_chosen_last():
    rng, broken = np.random.default_rng(6), 0
    for _ in range(1500):
        z = rng.random(200).round(2)
        found = selective.best_risk(z, rng.random(200) >= np.where(z > 0.9, 0.3, 0.1), 0.2)
        above = np.arange(101)[np.arange(101) / 100 > found.threshold + 1e-9] / 100
        size = np.where(np.isin(above, [0, 1]), 0.5, 1)
        risk = np.where(above > 0.9, 0.3, 0.1)
        broken += (size * risk).sum() / size.sum() > found.max_risk
    assert broken / 1500 <= 0.2
    assert found.bound <= found.max_risk < found.bound + 1e-4
