"""Verdicts follow from the rules: each verdict from intervals made to measure, and the file itself is sound."""

import json

import numpy as np
import pytest
from conftest import AUDIT, TINY

from trustlib import claims, confidence, evaluation, experiments, statistics
from trustlib.data import ROOT
from trustlib.study import load_study

RELEASED = {"label": "CE, as released", "loss": "ce", "form": "released", "head": "linear"}


@pytest.fixture
def study(write_study):
    return load_study(write_study(arms=TINY["arms"] | {"ce-released": RELEASED}))


class Seen:
    """Stands for `claims._Seen`: arm -> (estimates of the seeds, deviation of the resamples)."""

    def __init__(self, study, values):
        self.study, self.values = study, values

    def difference(self, test, of, other):
        noise = np.linspace(-1.96, 1.96, 2001)[:, None] / 0.95  # its 95 % interval is +- 1.96
        means = [np.array(self.values[way[1]][0]) if way else 0.0 for way in (of, other)]
        return means[0] - means[1], (means[0] - means[1]) + self.values[of[1]][1] * noise


def verdict(study, values, **test):
    tests = [
        claims.Test.model_validate({"metric": "auroc", "arms": ["ss"], "minus": ["ce"], "pairs": ["rsn-rsn"]} | test)
    ]
    return claims._verdict(Seen(study, values), tests)[0]


@pytest.mark.parametrize(
    ("gap", "deviation", "rule", "expected"),
    [
        (0.05, 0.01, {"above": 0.01}, claims.HOLDS),
        (0.02, 0.01, {"above": 0.01}, claims.UNKNOWN),  # the interval reaches below the margin
        (-0.02, 0.01, {"above": 0.01}, claims.FAILS),
        (-0.05, 0.01, {"below": 0.0}, claims.HOLDS),
        (0.05, 0.01, {"below": 0.0}, claims.FAILS),
        (0.001, 0.002, {"within": 0.01}, claims.HOLDS),
        (0.001, 0.01, {"within": 0.01}, claims.UNKNOWN),  # not seen to differ is not equivalent
        (0.05, 0.01, {"within": 0.01}, claims.FAILS),
    ],
)
def test_a_verdict_follows_from_the_interval_and_the_margin(study, gap, deviation, rule, expected):
    values = {"ss": ([0.8 + gap], deviation), "ce": ([0.8], 0), "ce-released": ([0.8], 0)}
    assert verdict(study, values, **rule) == expected


def test_a_claim_may_hold_only_as_released(study):
    values = {"ss": ([0.8], 0.005), "ce": ([0.82], 0), "ce-released": ([0.6], 0)}
    assert verdict(study, values, above=0.01) == claims.ONLY_RELEASED
    unsure = values | {"ss": ([0.8], 0.03)}  # with the corrected loss nothing is excluded
    assert verdict(study, unsure, above=0.01) == claims.UNKNOWN


def test_one_comparison_against_it_refutes_and_all_must_hold(study):
    values = {"ss": ([0.8], 0.005), "ce": ([0.7], 0), "mcp": ([0.9], 0), "ce-released": ([0.7], 0)}
    assert verdict(study, values, minus=["ce"], above=0.0) == claims.HOLDS
    assert verdict(study, values, minus=["ce", "mcp"], above=0.0) == claims.FAILS


def test_many_comparisons_need_a_wider_interval_to_refute(study):
    values = {"ss": ([0.80], 0.0100), "ce": ([0.7799], 0), "ce-released": ([0.78], 0)}
    assert verdict(study, values, minus=["ce"], below=0.0) == claims.FAILS  # +2.0 points, 95 % from just above 0
    assert verdict(study, values, minus=["ce"] * 12, below=0.0) == claims.UNKNOWN


def test_seeds_that_disagree_widen_the_interval(study):
    values = {"ss": ([0.85, 0.86, 0.84], 0.001), "ce": ([0.8, 0.8, 0.8], 0), "ce-released": ([0.8] * 3, 0)}
    assert verdict(study, values, above=0.01) == claims.HOLDS
    assert verdict(study, values | {"ss": ([0.95, 0.85, 0.75], 0.001)}, above=0.01) == claims.UNKNOWN


def test_the_file_is_sound_and_each_verdict_leads_to_a_section():
    entries = claims.load()
    assert len(entries) >= 14
    assert len({entry.id for entry in entries}) == len(entries)
    headings = set()
    for path in (ROOT / "notebooks").glob("[0-9]*.ipynb"):
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                lines = "".join(cell["source"]).splitlines()
                headings |= {
                    line.lstrip("# ").replace(" ", "-").replace("%", "%25") for line in lines if line[:2] == "##"
                }
    assert {entry.section for entry in entries} <= headings


@pytest.mark.parametrize("name", ["fashion"])
def test_the_audit_of_a_study_has_what_the_claims_need(name):
    study = load_study(name)
    tuned = {(pair, arm) for control in study.audit.controls.values() for pair in control.pairs for arm in control.arms}
    for entry in claims.load():
        for test in entry.tests if study.dataset in (entry.datasets or [study.dataset]) else []:
            for of, other in (way for _, way in claims._ways(study, test)):
                for where, what, part in [of, *([other] if other else [])]:
                    assert part in ("test", *study.domains.parts.values()), entry.id
                    base = what.removesuffix("+mcp").removesuffix("-moved").removesuffix("-matched")
                    assert base == "mcp" or (((where, base) in tuned) if test.tuned else base in study.arms), entry.id


def test_a_study_that_has_hardly_run_is_judged_without_a_guess(write_study, monkeypatch):
    monkeypatch.setattr(evaluation, "RESAMPLES", 30)
    study = load_study(write_study(audit=AUDIT, seeds=[0]))
    experiments.train_oracle(study, "rsn-rsn", "ss", 0, lambda line: None)
    judged = claims.judge(study).set_index("id")
    first = judged.index.get_loc
    assert first("all-cases") < first(next(entry.id for entry in claims.load() if entry.tests))  # answers come first
    unrun = [entry.id for entry in claims.load() if entry.tests]
    assert set(judged.loc[unrun, "verdict"]) == {claims.UNKNOWN}
    colour = [entry.id for entry in claims.load() if entry.colour]
    elsewhere = [entry.id for entry in claims.load() if entry.datasets]
    assert judged.loc[unrun, "found"].drop(colour + elsewhere).str.startswith("not run").all()
    assert set(judged.loc[colour, "found"]) == {claims.GREY}  # digits have one channel
    assert judged.loc[elsewhere, "found"].str.startswith("asked of other data: results/").all()
    assert judged.loc["all-cases", "verdict"] == claims.REFUTED


def test_the_published_rows_are_the_papers():
    # read in the paper's tables by eye
    assert len(claims.published("table1")) == 16
    assert claims.published("table3").loc[("defocus_blur", "ss"), "tnr"] == pytest.approx(0.3729)
    assert claims.published("table2").loc[("cifar10", "tcp-dagger"), "tpr"] == pytest.approx(0.9788)
    assert np.isnan(claims.published("table2").loc[("mnist", "trust_score"), "tnr"])
    frame = claims.binormal_check()
    assert len(frame) == 28
    row = frame.loc[("table1", "vit-vit", "ss")]
    assert abs(row["aupr_success"] - row["success_model"]) < 0.005
    assert row["fits"] == "not negated"


def test_the_bound_is_the_papers_formula(study):
    row = claims.bounds(study).loc["ViT, the paper's"]
    largest = np.exp(3) - np.exp(-3)
    by_hand = largest * np.sqrt((32 * row["parameters"] * np.log(2) + np.log(2 / 0.05)) / (2 * 1_281_167))
    assert row["bound"] == pytest.approx(by_hand)
    assert row["largest"] == pytest.approx(20.04, abs=0.005)
    assert claims.bounds(study).loc["a head of 769 parameters, the paper's images", "bound"] == pytest.approx(
        1.63, abs=0.01
    )


def test_the_bound_is_that_of_networks_that_are_oracles(write_study):
    networks = {name: TINY["networks"]["rsn"] | {"label": name} for name in ("rsn", "judged")}
    rows = claims.bounds(load_study(write_study(networks=networks, pairs=["rsn-judged"])))
    assert len(rows) == 3  # the paper's two and a head; no oracle of the study's is trained, and one has none


@pytest.mark.parametrize(
    "change",
    [{"fact": "no_such"}, {"unjudged": "why"}, {"tests": []}, {"tests": [{"metric": "auroc", "arms": ["ce"]}]}],
)
def test_an_entry_that_cannot_be_decided_in_one_way_is_refused(change):
    test = {"metric": "auroc", "arms": ["ss"], "above": 0.5}
    entry = {"id": "x", "claim": "c", "where": "w", "quantity": "q", "section": "s", "tests": [test]}
    claims.Claim.model_validate(entry)
    with pytest.raises(ValueError, match=r"one of|above"):
        claims.Claim.model_validate(entry | change)


@pytest.mark.parametrize("name", ["mnist", "mnist-full", "cifar10", "cifar10-full"])
def test_the_studies_of_table_2_have_what_its_claims_and_its_rows_need(name):
    study = load_study(name)
    entries = [entry for entry in claims.load() if study.dataset in entry.datasets]
    assert len(entries) >= 4
    arms = {arm for entry in entries for test in entry.tests for arm in (*test.arms, *test.minus)}
    assert arms | set(claims.TABLE_2.values()) <= {*study.arms, *confidence.SCORES, None}


def test_published_intervals_follow_from_the_counts_of_the_published_errors():
    frame = claims.published_table2("mnist").set_index(["loss", "metric"])
    low, high = statistics.clopper_pearson(2, 90)  # 2.22 % of 90 wrong predictions
    assert tuple(frame.loc[("ss", "fpr95"), ["low", "high"]]) == (low, high)
    assert frame.loc[("ss", "fpr95"), "estimate"] == pytest.approx(0.0222)
    assert frame.loc[("tcp", "auroc"), "low"] < 0.9882 < frame.loc[("tcp", "auroc"), "high"]
    assert np.isnan(frame.loc[("tcp", "aupr_error"), "low"])
    assert set(claims.published_table2("cifar10")["loss"]) == set(claims.TABLE_2)
    for dataset in ("mnist", "cifar10"):  # 5.26 % of 90 and 49.02 % of 781 are no counts
        without = claims.published_table2(dataset).groupby("loss")["low"].agg(lambda low: low.isna().all())
        assert list(without[without].index) == ["mc_dropout"]
