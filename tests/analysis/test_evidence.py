"""What a study's results say to a claim: which oracles are compared, and by which metrics at which thresholds."""

import numpy as np
import pytest
from conftest import TINY, Given, given
from scipy.special import expit, logit
from test_claims import RELEASED, rule

from trustlib import metrics, released
from trustlib.analysis import ablations, budget, claims, evidence, rules
from trustlib.analysis.evidence import Evidence
from trustlib.predictions import Predictions
from trustlib.stats import resampling

TCP = {"label": "TCP", "loss": "tcp", "head": "linear"}


def test_a_budget_is_asked_of_oracles_as_in_the_text(study_with, monkeypatch):
    study = study_with(methods=TINY["methods"] | {"ce-released": RELEASED})
    asked = []
    monkeypatch.setattr(budget, "state", lambda results, pair, arm: asked.append(arm) or "not trained")
    seen = Evidence(Given(study))
    assert seen.is_untrained("rsn-rsn", "ce")  # and remembered
    names = ("mcp", "ce", "ce-released", "ss+mcp")
    assert [seen.is_untrained("rsn-rsn", name) for name in names] == [False, True, False, True]
    assert asked == ["ce", "ss"]


@pytest.mark.usefixtures("all_trained")
def test_the_papers_tnr_counts_tcp_at_one_in_k_and_shows_it_at_zero_beside(study_with, monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 50)
    study = study_with(methods=TINY["methods"] | {"tcp": TCP})
    rng = np.random.default_rng(0)
    right, z = rng.random(400) < 0.5, rng.normal(logit(0.1), 1, 400)  # ten classes: half of z lies below 1/K
    results = given(study, right, tcp=np.stack([z, z]), ce=np.stack([z, z]))
    at = {"tcp": (expit(z[~right]) <= 0.1).mean(), "ce": (z[~right] <= 0).mean()}
    for arm, rate in at.items():
        test = rules.Test(metric="tnr_paper", methods=[arm], below=0.7)
        answer, found = claims._judged(Evidence(results), [test])[:2]
        assert found.startswith(f"TNR {100 * rate:.2f} [")
        assert f"with TCP's at z = 0, TNR {100 * at['ce']:.2f} [" in found
        assert answer == {"tcp": rules.REPRODUCED, "ce": rules.CONTRADICTED}[arm]


def test_the_stronger_network_is_that_of_the_higher_accuracy(study_with):
    networks = {name: TINY["networks"]["rsn"] | {"label": name.upper()} for name in ("rsn", "vit")}
    pairs = ["rsn-rsn", "rsn-vit", "vit-rsn", "vit-vit"]
    study = study_with(networks=networks, pairs=pairs)
    rule = rules.Test(metric="tnr", methods=["ce"], pairs=["strong-weak"], minus_pairs=["weak-strong"], above=0.0)
    answer, found = claims._judged(Evidence(Given(study)), [rule])[:2]
    assert (answer, found) == (rules.NOT_TESTED, "not run: ⟨stronger, weaker⟩ CE − ⟨weaker, stronger⟩")
    right = {"rsn": np.arange(10) < 9, "vit": np.arange(10) < 8}
    results = Given(study, {(pair, "test"): Predictions(right[pair[-3:]], {}) for pair in pairs})
    ((name, (of, other)),) = evidence._ways(Evidence(results), rule)
    assert (of[0], other[0], name) == ("rsn-vit", "vit-rsn", "⟨RSN, VIT⟩ CE − ⟨VIT, RSN⟩")
    right["vit"] |= True
    ((_, (of, other)),) = evidence._ways(Evidence(results), rule)
    assert (of[0], other[0]) == ("vit-rsn", "rsn-vit")
    one = study_with()
    assert claims._found(Evidence(Given(one)), [rule]) == ([], "this study has no second network")


def test_the_threshold_of_the_cost_is_chosen_on_validation_images(tiny, monkeypatch):
    rng = np.random.default_rng(0)
    right = {part: rng.random(500) < 0.8 for part in ("heldout", "test")}
    score = {part: np.round(rng.normal(right[part] * 1.0, 1), 1)[None] for part in right}
    slopes = tiny.network("rsn").steep_slope
    moved = ablations.cheapest(score["test"], score["heldout"], right["heldout"], slopes)
    threshold = (score["test"] - moved)[0, 0]

    def cost(part, at):
        trusted = score[part][0] > at
        return 2 * (right[part] & ~trusted).sum() + 5 * (~right[part] & trusted).sum()  # slopes 2 and 5

    tried = [cost("heldout", at) for at in [-np.inf, *np.unique(score["heldout"])]]
    assert cost("heldout", threshold) == min(tried)
    monkeypatch.setattr(resampling, "RESAMPLES", 20)
    one = tiny.model_copy(update={"seeds": [0]})
    results = Given(one, {("rsn-rsn", part): Predictions(right[part], {"ce": score[part]}) for part in right})
    test = rule(metric="cost", methods=["ce"], minus=[], above=0.0)
    estimate, samples = Evidence(results).difference(test, ("rsn-rsn", "ce", "test"), None)
    assert estimate == pytest.approx(cost("test", threshold) / 500)
    assert samples.shape == (20, 1)


def test_aupr_error_is_measured_with_either_sign(tiny, monkeypatch):
    rng = np.random.default_rng(0)
    right = rng.random(300) < 0.7
    z = rng.normal(right * 1.0, 1)
    monkeypatch.setattr(resampling, "RESAMPLES", 10)
    seen = Evidence(given(tiny, right, ce=np.stack([z, z])))
    for metric, expected in (
        ("aupr_error", metrics.evaluate(z, right)["aupr_error"]), ("aupr_error_released", released.aupr_error(z, right))
    ):  # fmt: skip
        test = rule(metric=metric, methods=["ce"], minus=[], above=0.0)
        assert seen.difference(test, ("rsn-rsn", "ce", "test"), None)[0] == pytest.approx([expected] * 2)
