"""Labels that a guarantee needs, and what a threshold costs."""

import numpy as np
import pytest

from trustlib.stats import planning, selective


@pytest.mark.parametrize("rule", selective.RULES)
def test_as_many_labels_as_planned_give_the_guarantee_as_often_as_planned(rule):
    rng = np.random.default_rng(0)

    def draw(n):
        q = rng.random(n)
        return -q, rng.random(n) >= 0.3 * q**2  # a risk of 0.1 q^2 above -q

    plan = planning.labels_needed(0.05, 0.1, rule, coverage=0.5, pilot=draw(20_000))
    assert plan.risk == pytest.approx(0.025, abs=0.004)
    assert plan.fewest < plan.labels <= plan.cautious
    found = [selective.guaranteed_threshold(*draw(plan.labels), 0.05, 0.1, rule) for _ in range(300)]
    assert 0.6 < np.mean([guarantee.coverage >= 0.48 for guarantee in found]) < 0.98


def test_no_number_of_labels_shows_what_is_not_so():
    z, correct = np.arange(1000), np.arange(1000) % 10 > 0
    plan = planning.labels_needed(0.05, 0.01, pilot=(z, correct))
    assert (plan.risk, plan.labels, plan.cautious) == (0.1, None, None)
    assert planning.labels_needed(0.05, 0.01, coverage=0.5).fewest >= 2 * planning.labels_needed(0.05, 0.01).fewest - 30


def test_the_cost_curve_is_the_sum_of_what_happens():
    rng = np.random.default_rng(1)
    z = rng.random(300).round(1)
    correct = rng.random(300) < z
    found = planning.expected_cost(z, correct, error=5, abstention=1)
    for row in found.curve.itertuples():
        kept = z > row.threshold
        assert row.cost == pytest.approx(np.where(kept, 5.0 * ~correct, 1).mean())
        assert row.coverage == pytest.approx(kept.mean())
    assert found.threshold == found.curve["threshold"][found.curve["cost"].idxmin()]
    assert (found.curve["coverage"].iloc[0], found.curve["coverage"].iloc[-1]) == (0, 1)
    # keeping pays where an error is less likely than 1 in 5
    assert found.threshold in (0.6, 0.7, 0.8, 0.9)


def test_the_cost_is_judged_on_rows_that_did_not_choose_the_threshold():
    rng, seen, judged, covered = np.random.default_rng(2), [], [], []
    for seed in range(300):
        correct = rng.random(60) < 0.8  # whatever is kept costs 0.2 * 5, as abstaining does
        found = planning.expected_cost(rng.random(60), correct, error=5, abstention=1, seed=seed, resamples=300)
        seen.append(found.curve["cost"].min())
        judged.append(found.judged[0])
        covered.append(found.judged[1] <= 1 <= found.judged[2])
    assert np.mean(seen) < 0.9
    assert np.mean(judged) == pytest.approx(1, abs=3 * np.std(judged) / np.sqrt(300))
    assert np.mean(covered) > 0.88
