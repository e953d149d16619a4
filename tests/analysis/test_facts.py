"""Claims that no test decides: the bound by hand, and verdicts from confidences and labels made to measure."""

import numpy as np
import pandas as pd
import pytest
from conftest import TINY, Given, given
from scipy.special import logit
from test_evidence import TCP

from trustlib import metrics
from trustlib.analysis import ablations, facts, rules
from trustlib.analysis.evidence import Evidence
from trustlib.runs.results import Run
from trustlib.stats import resampling, statistics

pytestmark = pytest.mark.usefixtures("all_trained")


def test_the_bound_is_the_papers_formula(study_with, monkeypatch):
    frozen = TINY["methods"]["ss"] | {"label": "SS, frozen", "backbone": "frozen", "training": {"images": 300}}
    networks = {name: TINY["networks"]["rsn"] | {"label": name} for name in ("rsn", "judged")}
    methods = {"ss-frozen": frozen} | TINY["methods"]
    study = study_with(methods=methods, networks=networks, pairs=["rsn-judged"])
    bounds = facts.bounds(Run(study))
    assert len(bounds) == 3  # the paper's two and a head; no oracle of the study's is trained
    row = bounds.loc["ViT, the paper's"]
    largest = np.exp(3) - np.exp(-3)
    by_hand = largest * np.sqrt((32 * row["parameters"] * np.log(2) + np.log(2 / 0.05)) / (2 * 1_281_167))
    assert row["bound"] == pytest.approx(by_hand)
    assert row["largest"] == pytest.approx(20.04, abs=0.005)
    of_head = bounds.loc["a head of 769 parameters, the paper's images", "bound"]
    assert of_head == pytest.approx(1.63, abs=0.01)
    monkeypatch.setattr(Run, "manifest", lambda *_: {"parameters": 9})
    bounds = facts.bounds(Run(study))
    assert len(bounds) == 4  # "judged" is no oracle's network
    assert tuple(bounds.loc["rsn, this study's SS, frozen", ["parameters", "images"]]) == (9, 300)


def test_the_squared_error_is_capped_by_a_sigmoid_alone(tiny):
    verdict, found = facts.COMPUTED["tcp_capped"](Evidence(Given(tiny)))[:2]
    assert verdict == rules.MIXED
    assert "reproduced for Eq. 6 as printed, (z − p)² of any real z, which is unbounded" in found


def of_normal(study, values, right):
    """The verdict on the confidences of every oracle of `study`: arm -> sigmoid(z)."""
    z = {arm: np.stack([logit(confidence)] * len(study.seeds)) for arm, confidence in values.items()}
    return facts.COMPUTED["normality"](Evidence(given(study, right, **z)))[:2]


def test_normality_is_of_both_groups_of_oracles_that_are_not_collapsed(study_with):
    study = study_with(methods=TINY["methods"] | {"tcp": TCP})
    n, few = 40_000, 400
    right = np.arange(n + few) < n
    normal = np.concatenate([statistics.norm.ppf((np.arange(size) + 0.5) / size) for size in (n, few)]) / 20 + 0.5
    verdict, found = of_normal(study, {"tcp": normal, "ss": normal}, right)
    assert verdict == rules.INCONCLUSIVE  # of 400 the interval is 6.8 points wide on either side
    assert "; beyond the margin in 2 of 4 (" in found
    assert "2 seeds, 4 degrees of freedom" in found
    alike = np.concatenate([normal[:n], normal[:n]])
    assert of_normal(study, {"tcp": alike, "ss": alike}, np.arange(2 * n) < n)[0] == rules.REPRODUCED
    even = (np.arange(2 * n) % n + 0.5) / n
    two = np.where(even < 0.5, 0.2, 0.8) + 0.01 * even
    verdict, found = of_normal(study, {"tcp": two, "ss": alike}, np.arange(2 * n) < n)
    assert verdict == rules.MIXED
    assert "⟨RSN, RSN⟩ TCP, " in found


def test_overfitting_is_the_gap_from_the_training_images(tiny, monkeypatch):
    right = np.arange(1000) < 800
    rng = np.random.default_rng(0)
    z = np.stack([rng.normal(right * 1.0, 1) for _ in tiny.seeds])
    monkeypatch.setattr(resampling, "RESAMPLES", 100)
    results = given(tiny, right, ce=z)
    test = pd.DataFrame([metrics.evaluate(row, right) for row in z])
    for gap, expected in ((0.2, rules.REPRODUCED), (0.0, rules.INCONCLUSIVE), (-0.2, rules.CONTRADICTED)):
        results.fitted = {metric: test[metric].to_numpy() + gap for metric in ("auroc", "tnr")}
        verdict, found, cells, _ = facts.COMPUTED["overfitting"](Evidence(results))
        assert verdict == expected
        assert [cell.estimate for cell in cells] == pytest.approx([gap, gap])
        assert found.startswith(f"AUROC, training − test, {100 * gap:.2f} [".replace("-", "−")) or gap == 0
    results.fitted = None
    unknown = (rules.NOT_TESTED, "not run: outputs on training images")
    assert facts.COMPUTED["overfitting"](Evidence(results))[:2] == unknown


def test_a_gap_that_the_error_leaves_no_room_for_decides_nothing(tiny, monkeypatch):
    rows = {"train": (0.997, 0.996, 0.998), "test": (0.9902, 0.988, 0.992)}
    monkeypatch.setattr(ablations, "label_shift", lambda _: pd.DataFrame(rows, ["rate", "low", "high"]).T)

    def iid():
        return facts.COMPUTED["iid"](Evidence(Given(tiny, labels={})))[:2]

    assert iid() == (rules.INCONCLUSIVE, "RSN +0.68 [+0.40, +1.00], of an error of 0.98 that decides nothing")
    rows["train"], rows["test"] = (0.901, 0.900, 0.902), (0.9, 0.899, 0.901)
    assert iid() == (rules.REPRODUCED, "RSN +0.10 [−0.10, +0.30]")
    rows["train"] = (0.92, 0.919, 0.921)
    assert iid()[0] == rules.CONTRADICTED
    assert facts.COMPUTED["iid"](Evidence(Given(tiny)))[:2] == (rules.NOT_TESTED, "not run")


@pytest.mark.parametrize("longer", [1.0, -1.0, 0.0])
def test_tails_are_compared_seed_by_seed(study_with, longer):
    linear = {"ss-linear": {"label": "SS, linear", "loss": "ss", "head": "linear"}}
    study = study_with(methods=TINY["methods"] | linear, seeds=[0, 1, 2])
    body = np.linspace(-1, 1, 1001)  # an interquartile range of 1

    def z(more):
        ends = [np.sign(body) * (2 + (seed + more + 0.01 * seed * more) / 2) for seed in study.seeds]
        return np.stack([np.where(np.abs(body) > 0.9, end, body) for end in ends])

    right = np.ones(1001, bool)
    results = given(study, right, **{"ss": z(longer), "ss-linear": z(0.0)})
    verdict, found = facts.COMPUTED["tails"](Evidence(results))[:2]
    assert verdict == {1.0: rules.REPRODUCED, -1.0: rules.CONTRADICTED, 0.0: rules.INCONCLUSIVE}[longer]
    assert found.startswith(f"longer by {1.01 * longer:+.2f} [".replace("-", "−"))
    unrun = facts.COMPUTED["tails"](Evidence(given(study, right)))
    assert unrun[:2] == (rules.NOT_TESTED, "not run: ⟨RSN, RSN⟩")
    without = facts.COMPUTED["tails"](Evidence(Given(study_with())))
    assert without[:2] == (rules.NOT_TESTED, "this study has no method 'SS, linear'")
