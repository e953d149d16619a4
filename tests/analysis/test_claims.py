"""Verdicts follow from the rules: each verdict from intervals made to measure, and the file itself is sound."""

import json
from dataclasses import replace

import numpy as np
import pytest
from conftest import ABLATIONS, TINY, Given
from scipy.stats import t

from trustlib import confidence
from trustlib.analysis import claims, evidence, paper, rules
from trustlib.analysis.evidence import Evidence
from trustlib.data import ROOT
from trustlib.runs import steps
from trustlib.runs.results import Run
from trustlib.stats import resampling
from trustlib.stats.rates import clopper_pearson
from trustlib.study import load_study

pytestmark = pytest.mark.usefixtures("all_trained")
RELEASED = {"label": "CE, as released", "loss": "ce", "form": "released", "head": "linear"}


@pytest.fixture
def study(study_with):
    return study_with(methods=TINY["methods"] | {"ce-released": RELEASED})


class Seen:
    """Stands for `Evidence`: arm -> (estimates of the seeds, deviation of the resamples)."""

    def __init__(self, study, values, counts=(900, 100), untrained=(), fall=0.5):
        self.study, self.values, self.correct_and_not = study, values, counts
        self.untrained, self.loss = untrained, fall

    def counts(self, pair, arm, part):
        return self.correct_and_not

    def is_untrained(self, pair, arm):
        return arm in self.untrained

    def fall(self, pair, part):
        return self.loss

    def difference(self, test, of, other):
        noise = np.linspace(-1.96, 1.96, 2001)[:, None] / 0.95  # its 95 % interval is +- 1.96
        means = [np.array(self.values[way[1]][0]) if way else 0.0 for way in (of, other)]
        return means[0] - means[1], (means[0] - means[1]) + self.values[of[1]][1] * noise


def rule(**test):
    asked = {"metric": "auroc", "methods": ["ss"], "minus": ["ce"], "pairs": ["rsn-rsn"]} | test
    return rules.Test.model_validate(asked)


def values(ss=0.8, deviation=0.005, ce=0.7, released=None, **others):
    """AUROCs of three seeds that all agree, since one training decides nothing; those of SS vary among resamples."""
    every = {"ss": ss, "ce": ce, "ce-released": ce if released is None else released} | others
    return {arm: ([value] * 3, deviation if arm == "ss" else 0) for arm, value in every.items()}


def judged(study, values, counts=(900, 100), **test):
    return claims._judged(Seen(study, values, counts), [rule(**test)])[:2]


def verdict(study, values, **test):
    return judged(study, values, **test)[0]


@pytest.mark.parametrize(
    ("gap", "deviation", "rule", "expected"),
    [
        (0.05, 0.01, {"above": 0.01}, rules.REPRODUCED),
        (0.02, 0.01, {"above": 0.01}, rules.INCONCLUSIVE),  # the interval reaches below the margin
        (-0.02, 0.01, {"above": 0.01}, rules.CONTRADICTED),
        (-0.05, 0.01, {"below": 0.0}, rules.REPRODUCED),
        (0.05, 0.01, {"below": 0.0}, rules.CONTRADICTED),
        (0.001, 0.002, {"within": 0.01}, rules.REPRODUCED),
        (0.001, 0.01, {"within": 0.01}, rules.INCONCLUSIVE),  # not seen to differ is not equivalent
        (0.05, 0.01, {"within": 0.01}, rules.CONTRADICTED),
        (0.05, 0.01, {"apart": 0.01}, rules.REPRODUCED),
        (-0.05, 0.01, {"apart": 0.01}, rules.REPRODUCED),
        (0.001, 0.01, {"apart": 0.01}, rules.INCONCLUSIVE),
        (0.001, 0.002, {"apart": 0.01}, rules.CONTRADICTED),
    ],
)
def test_a_verdict_follows_from_the_interval_and_the_margin(study, gap, deviation, rule, expected):
    assert verdict(study, values(0.8 + gap, deviation, ce=0.8), **rule) == expected


@pytest.mark.parametrize(
    ("tpr", "tnr", "expected"),
    [
        (0.99, 0.01, rules.REPRODUCED),
        (0.99, 0.30, rules.CONTRADICTED),  # trusts correct predictions, but not incorrect ones as well
        (0.99, 0.05, rules.INCONCLUSIVE),
        (0.95, 0.30, rules.CONTRADICTED),
    ],
)
def test_tests_that_one_oracle_has_to_pass_together_are_one_cell(tpr, tnr, expected):
    cells = [
        rules.Cell("tpr", "⟨A, B⟩ CE", rules.Margin(above=0.95), tpr, (tpr - 0.01, tpr + 0.005), seeds=3, df=2),
        rules.Cell("tnr", "⟨A, B⟩ CE", rules.Margin(below=0.05), tnr, (tnr - 0.01, tnr + 0.01), seeds=3, df=2),
    ]
    other = [
        replace(cell, name="⟨C, D⟩ CE", estimate=x, interval=(x, x)) for cell, x in zip(cells, (1.0, 0.0), strict=True)
    ]
    assert rules.verdict(cells, jointly=True) == expected
    assert rules.verdict(other, jointly=True) == rules.REPRODUCED
    both = {rules.REPRODUCED: rules.REPRODUCED, rules.INCONCLUSIVE: rules.INCONCLUSIVE, rules.CONTRADICTED: rules.MIXED}
    assert rules.verdict([*cells, *other], jointly=True) == both[expected]


def test_the_released_form_is_named_and_the_verdict_is_that_of_the_text(study):
    answer, found = judged(study, values(ce=0.82, released=0.6), above=0.01)
    assert answer == rules.CONTRADICTED
    assert ". As released reproduced: AUROC +20.00 [" in found
    assert "released" not in judged(study, values(ce=0.82), above=0.01)[1]


def test_the_cells_of_a_verdict_make_it_again_from_their_table(study):
    tests = [rule(minus=["ce", "mcp"], above=0.01)]
    for mcp, expected in ((0.7, rules.MIXED), (0.9, rules.CONTRADICTED)):
        answer, _, *forms = claims._judged(Seen(study, values(ce=0.82, released=0.6, mcp=mcp)), tests)
        assert answer == expected
        frames = [
            rules.tabulated([("a", form, cell) for cell in cells])
            for form, cells in zip(("", rules.RELEASED), forms, strict=True)
        ]
        assert [list(frame["form"]) for frame in frames] == [[""] * 3, [rules.RELEASED] * 3]
        assert list(frames[0]["comparison"]) == ["⟨RSN, RSN⟩ SS − CE", "⟨RSN, RSN⟩ SS − MCP", "mean of 2"]
        first = frames[0].iloc[0]
        assert (first["estimate"], first["margin"], first["at"]) == (pytest.approx(-0.02), "above", 0.01)
        assert first["low"] < first["estimate"] < first["high"]
        assert (first["outcome"], first["seeds"], first["df"]) == ("excluded", 3, 4)
        assert rules.verdict(rules.untabulated(frames[0])) == expected
    assert rules.verdict([]) == rules.NOT_TESTED


def test_all_must_hold_and_what_holds_for_some_is_mixed(study):
    assert verdict(study, values(), above=0.0) == rules.REPRODUCED
    answer, found = judged(study, values(mcp=0.9), minus=["ce", "mcp"], above=0.0)
    assert answer == rules.MIXED
    assert "+0.00 [−0.98, +0.98] on average" in found
    assert "beyond the margin in 1 of 2 (⟨RSN, RSN⟩ 1 of 2), excluded in 1 (⟨RSN, RSN⟩ 1 of 2)" in found
    answer, found = judged(study, values(mcp=0.799), minus=["ce", "mcp"], above=0.0)
    assert answer == rules.INCONCLUSIVE
    assert "excluded in 0, 2 estimates on its side" in found
    found = judged(study, values(mcp=0.801), minus=["ce", "mcp"], above=0.0)[1]
    assert "excluded in 0, 1 estimate on its side" in found


def test_the_variance_between_seeds_is_pooled_over_cells_of_one_metric(study):
    steady, wild = [0.80, 0.81, 0.82], [0.70, 0.81, 0.92]
    seen = Seen(study, {"ss": ([0.8] * 3, 0.0), "ce": (steady, 0), "mcp": (wild, 0), "ce-released": (steady, 0)})
    cells, _ = claims._found(seen, [rule(minus=["ce", "mcp"], above=0.0)])
    spread = np.sqrt((np.var(steady, ddof=1) + np.var(wild, ddof=1)) / 2)
    half = t.ppf(0.975, 4) * spread / np.sqrt(3)
    for cell in cells[:2]:
        assert cell.interval == pytest.approx((cell.estimate - half, cell.estimate + half))
        assert cell.df == 4
    twice = claims._found(seen, [rule(above=0.0), rule(within=0.5)])[0]
    assert [cell.df for cell in twice] == [2, 2]  # one comparison with two margins is one


def test_one_training_decides_nothing(study):
    one = {arm: (seeds[:1], deviation) for arm, (seeds, deviation) in values().items()}
    for margin in ({"above": 0.0}, {"below": 0.0}):
        answer, found, cells, _ = claims._judged(Seen(study, one), [rule(**margin)])
        assert answer == rules.INCONCLUSIVE
        assert found.endswith("; one training, which decides nothing")
        assert [cell.caveat for cell in cells] == [rules.ONE_TRAINING]
    assert "one training" not in judged(study, values(), above=0.0)[1]


def test_what_rests_on_an_oracle_that_is_not_trained_is_not_tested(study):
    seen, tests = Seen(study, values(mcp=0.7), untrained=["ce"]), [rule(minus=["ce", "mcp"], above=0.0)]
    answer, found, cells, _ = claims._judged(seen, tests)
    assert answer == rules.NOT_TESTED
    assert found.startswith("not trained: ⟨RSN, RSN⟩ SS − CE; an oracle has not converged")
    assert [cell.caveat for cell in cells] == [rules.NOT_TRAINED, "", rules.MEAN]
    assert claims._judged(seen, tests, any_budget=True)[0] == rules.REPRODUCED


def test_a_domain_on_which_accuracy_hardly_falls_is_no_shift(study_with):
    study, test = study_with(domains={"judged": ["fog-5"], "images": 100}), rule(domains=["fog-5"], above=0.0)
    for fall, expected in ((0.099, rules.NOT_TESTED), (0.101, rules.REPRODUCED)):
        answer, found = claims._judged(Seen(study, values(), fall=fall), [test])[:2]
        assert answer == expected
        assert (found == "accuracy falls by less than 10 points: Fog, severity 5") == (fall < 0.1)


def test_a_study_below_the_papers_protocol_answers_our_own_questions_alone(study_with):
    study = study_with().model_copy(update={"untested": "the classifier is trained for 5 epochs"})
    judged, _ = claims.judge(Given(study))
    assert list(judged["asked_by"]) == sorted(judged["asked_by"])
    paper = judged[judged["asked_by"] == "paper"]
    arithmetic = paper[~paper["found"].eq("the classifier is trained for 5 epochs")]
    by_arithmetic = {entry.id for entry in rules.load() if entry.fact in rules.ARITHMETIC}
    assert set(arithmetic["id"]) == by_arithmetic
    own = judged[judged["asked_by"] == "study"]
    assert len(own) >= 10
    assert own["found"].str.startswith(("this study has no", "not run", "tested on other data", rules.GREY)).all()


@pytest.mark.parametrize(("rate", "rule"), [(0.0, {"below": 0.01}), (1.0, {"above": 0.99})])
def test_a_rate_that_no_resample_changes_has_the_exact_interval(study, rate, rule):
    test, found = {"metric": "tnr", "methods": ["ce"], "minus": [], **rule}, values(ce=rate)
    assert verdict(study, found, counts=(900, 98), **test) == rules.INCONCLUSIVE  # 0 of 98: up to 3.69 %
    assert verdict(study, found, counts=(900, 980), **test) == rules.REPRODUCED
    assert verdict(study, found, counts=(98, 980), **test | {"metric": "tpr"}) == rules.INCONCLUSIVE
    said = judged(study, values(ce=0.0), counts=(900, 98), **test)[1]
    assert f"TNR 0.00 [0.00, {100 * clopper_pearson(0, 98)[1]:.2f}]" in said


def test_few_correct_or_incorrect_predictions_decide_nothing(study):
    for counts in ((9, 900), (900, 9)):
        for margin in ({"above": 0.0}, {"below": 0.0}):
            answer, found = judged(study, values(), counts=counts, **margin)
            assert answer == rules.INCONCLUSIVE
            assert "fewer than 10 correct or incorrect predictions, which decide nothing, in 1" in found
    assert verdict(study, values(), counts=(10, 10), above=0.0) == rules.REPRODUCED


def test_a_released_form_is_alike_in_all_else(study_with):
    others = {"backbone": "frozen"}, {"training": {"epochs": 2}}, {"head": "distance"}
    test, methods = rules.Test(metric="auroc", methods=["ce"], above=0.0), TINY["methods"]
    for change in others:
        study = study_with(methods=methods | {"ce-other": RELEASED | change})
        assert claims.as_released(study, [test]) == [test]
    study = study_with(methods=methods | {"ce-other": RELEASED | others[0], "twin": RELEASED})
    assert claims.as_released(study, [test])[0].methods == ["twin"]


def test_what_a_study_has_not_is_named_as_a_reader_knows_it(study):
    def found(**test):
        rule = rules.Test.model_validate({"metric": "auroc", "methods": ["ss"], "above": 0.0} | test)
        return claims._found(Evidence(Given(study)), [rule])[1]

    assert found(minus=["focal", "tcp", "cb"]) == (
        "this study has no method 'Focal' and no method 'TCP' and no method 'Class-balanced'"
    )
    assert found(pairs=["vit-vit", "vit-rsn"]) == "this study has no ⟨ViT, ViT⟩ pair and no ⟨ViT, RSN⟩ pair"
    assert found(domains=["stylized"]) == "this study has no domain 'Stylised'"
    assert found(tuned=True, minus=["ce"]) == "this study has no tuned learning rates"
    assert found(minus=["ce"]) == "not run: ⟨RSN, RSN⟩ SS − CE"
    for entry in rules.load():
        for arm in {arm for test in entry.tests for arm in (*test.methods, *test.minus)}:
            assert evidence.label_of(study, arm)[0].isupper() or evidence.label_of(study, arm).startswith("weighted CE")


def test_the_file_is_sound_and_each_verdict_leads_to_a_section():
    entries = rules.load()
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


def test_the_studies_on_fashion_have_the_methods_that_the_claims_compare():
    methods = load_study("fashion").methods.keys() | load_study("ablations").all_methods.keys() | {"mcp"}
    for entry in rules.load():
        for test in () if entry.studies else entry.tests:
            assert {evidence._base(arm) for arm in [*test.methods, *test.minus]} <= methods, entry.id


def test_a_study_that_has_hardly_run_is_judged_without_a_guess(trained, study_with, monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 30)
    study = study_with(ablations=ABLATIONS, seeds=[0])
    for step in steps.planned(trained):
        if step.run not in ("rsn/seed0", "rsn-rsn/ss/seed0"):
            step.path.unlink()
    judged, cells = claims.judge(Run(study))
    judged = judged.set_index("id")
    assert set(cells["claim"]) == {"iid", "normality", "mcp-unreliable"}
    first = judged.index.get_loc
    assert first("all-cases") < first("collapse-ce")  # what is not tested comes last
    unrun = [entry.id for entry in rules.load() if entry.tests and entry.id != "mcp-unreliable"]
    assert set(judged.loc[unrun, "verdict"]) == {rules.NOT_TESTED}
    colour = [entry.id for entry in rules.load() if entry.colour]
    elsewhere = [entry.id for entry in rules.load() if entry.studies]
    assert judged.loc[unrun, "found"].drop(colour + elsewhere).str.startswith(("not run", "this study has no")).all()
    assert set(judged.loc[colour, "found"]) == {rules.GREY}  # digits have one channel
    assert judged.loc[elsewhere, "found"].str.startswith("tested on other data: results/").all()
    assert judged.loc["all-cases", "verdict"] == rules.CONTRADICTED


def test_table_2_is_asked_of_its_studies_alone(study_with):
    entries = [entry for entry in rules.load() if entry.studies]
    assert {entry.id for entry in entries} == {entry.id for entry in rules.load() if entry.id.startswith("small-")} | {
        "tcp-mnist"
    }
    for name in ("tiny", "mnist-other"):
        study = study_with().model_copy(update={"name": name, "dataset": "mnist"})
        assert set(claims.judge(Given(study), entries)[0]["found"].str.startswith("tested on other data")) == {True}
    for name in ("mnist", "mnist-full"):
        study = study_with().model_copy(update={"name": name})
        found = claims.judge(Given(study), entries)[0].set_index("id")["found"]
        assert found["small-alike"] == "this study has no method 'TCP'"
        assert found["small-more"].startswith("tested on other data: results/cifar10")


@pytest.mark.parametrize("name", ["mnist", "mnist-full", "cifar10", "cifar10-full"])
def test_the_studies_of_table_2_have_what_its_claims_and_its_rows_need(name):
    study = load_study(name)
    entries = [entry for entry in rules.load() if name.removesuffix("-full") in entry.studies]
    assert len(entries) >= 4
    methods = {arm for entry in entries for test in entry.tests for arm in (*test.methods, *test.minus)}
    assert methods | set(paper.TABLE_2.values()) <= {*study.methods, *confidence.SCORES, None}
