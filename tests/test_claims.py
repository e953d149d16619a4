"""Verdicts follow from the rules: each verdict from intervals made to measure, and the file itself is sound."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from conftest import AUDIT, TINY
from scipy.special import expit, logit

from trustlib import audit, claims, confidence, evaluation, experiments, published, runs, statistics
from trustlib.data import ROOT
from trustlib.study import Study, load_study

RELEASED = {"label": "CE, as released", "loss": "ce", "form": "released", "head": "linear"}


@pytest.fixture
def study(write_study):
    return load_study(write_study(arms=TINY["arms"] | {"ce-released": RELEASED}))


class Seen:
    """Stands for `claims.Seen`: arm -> (estimates of the seeds, deviation of the resamples)."""

    def __init__(self, study, values, counts=(900, 100)):
        self.study, self.values, self.right_and_wrong = study, values, counts

    def counts(self, pair, arm, part):
        return self.right_and_wrong

    def difference(self, test, of, other):
        noise = np.linspace(-1.96, 1.96, 2001)[:, None] / 0.95  # its 95 % interval is +- 1.96
        means = [np.array(self.values[way[1]][0]) if way else 0.0 for way in (of, other)]
        return means[0] - means[1], (means[0] - means[1]) + self.values[of[1]][1] * noise


def judged(study, values, counts=(900, 100), **test):
    tests = [
        claims.Test.model_validate({"metric": "auroc", "arms": ["ss"], "minus": ["ce"], "pairs": ["rsn-rsn"]} | test)
    ]
    return claims._judged(Seen(study, values, counts), tests)[:2]


def verdict(study, values, **test):
    return judged(study, values, **test)[0]


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


def test_the_cells_of_a_verdict_make_it_again_from_their_table(study):
    values = {"ss": ([0.8], 0.005), "ce": ([0.82], 0), "ce-released": ([0.6], 0), "mcp": ([0.7], 0)}
    rule = {"metric": "auroc", "arms": ["ss"], "minus": ["ce", "mcp"], "pairs": ["rsn-rsn"], "above": 0.01}
    tests = [claims.Test.model_validate(rule)]
    for change, expected in (({}, claims.ONLY_RELEASED), ({"mcp": ([0.9], 0)}, claims.FAILS)):
        answer, _, *forms = claims._judged(Seen(study, values | change), tests)
        assert answer == expected
        frames = [
            claims.tabulated([("a", form, cell) for cell in cells])
            for form, cells in zip(("", claims.RELEASED), forms, strict=True)
        ]
        assert [list(frame["form"]) for frame in frames] == [[""] * 2, [claims.RELEASED] * 2]
        assert list(frames[0]["comparison"]) == ["⟨RSN, RSN⟩ SS − CE", "⟨RSN, RSN⟩ SS − MCP"]
        first = frames[0].iloc[0]
        assert (first["estimate"], first["margin"], first["at"]) == (pytest.approx(-0.02), "above", 0.01)
        assert first["wide_low"] < first["low"] < first["high"] < first["wide_high"]
        assert first["outcome"] == "excluded"
        assert claims.verdict(*map(claims.untabulated, frames)) == expected
    assert claims.verdict([]) == claims.UNKNOWN


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


def test_a_verdict_of_one_training_says_so(study):
    values = {"ss": ([0.8], 0.005), "ce": ([0.7], 0), "ce-released": ([0.7], 0)}
    assert judged(study, values, above=0.0)[1].endswith("; one training, images only")
    several = {arm: (estimate * 3, deviation) for arm, (estimate, deviation) in values.items()}
    assert "one training" not in judged(study, several, above=0.0)[1]


@pytest.mark.parametrize(("rate", "rule"), [(0.0, {"below": 0.01}), (1.0, {"above": 0.99})])
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_rate_that_no_resample_changes_has_the_exact_interval(study, rate, rule, seeds):
    values = {arm: ([rate] * seeds, 0) for arm in ("ce", "ce-released")}
    test = {"metric": "tnr", "arms": ["ce"], "minus": [], **rule}
    assert verdict(study, values, counts=(900, 98), **test) == claims.UNKNOWN  # 0 of 98: up to 3.69 %
    assert verdict(study, values, counts=(900, 980), **test) == claims.HOLDS
    test["metric"] = "tpr"
    assert verdict(study, values, counts=(98, 980), **test) == claims.UNKNOWN
    found = judged(study, {"ce": ([0.0], 0), "ce-released": ([0.0], 0)}, counts=(900, 98), **test | {"metric": "tnr"})[
        1
    ]
    assert f"TNR 0.00 [0.00, {100 * statistics.clopper_pearson(0, 98)[1]:.2f}]" in found


def test_few_right_or_wrong_predictions_decide_nothing(study):
    values = {"ss": ([0.8], 0.005), "ce": ([0.7], 0), "ce-released": ([0.7], 0)}
    for counts in ((9, 900), (900, 9)):
        for rule in ({"above": 0.0}, {"below": 0.0}):
            answer, found = judged(study, values, counts=counts, **rule)
            assert answer == claims.UNKNOWN
            assert "fewer than 10 right or wrong predictions, which decide nothing, in 1" in found
    assert verdict(study, values, counts=(10, 10), above=0.0) == claims.HOLDS


def test_a_released_form_is_alike_in_all_else(write_study):
    other = {"frozen": {"backbone": "frozen"}, "longer": {"training": {"epochs": 2}}, "distance": {"head": "distance"}}
    rule = claims.Test(metric="auroc", arms=["ce"], above=0.0)
    for change in other.values():
        study = load_study(write_study(arms=TINY["arms"] | {"ce-other": RELEASED | change}))
        assert claims.as_released(study, [rule]) == [rule]
    study = load_study(write_study(arms=TINY["arms"] | {"ce-other": RELEASED | other["frozen"], "twin": RELEASED}))
    assert claims.as_released(study, [rule])[0].arms == ["twin"]


def test_the_papers_tnr_counts_tcp_at_one_in_k_and_shows_it_at_zero_beside(write_study, monkeypatch):
    monkeypatch.setattr(evaluation, "RESAMPLES", 50)
    arms = TINY["arms"] | {"tcp": {"label": "TCP", "loss": "tcp", "head": "linear"}}
    study = load_study(write_study(arms=arms, seeds=[0]))
    rng = np.random.default_rng(0)
    right, z = rng.random(400) < 0.5, rng.normal(logit(0.1), 1, 400)  # ten classes: half of z lies below 1/K
    monkeypatch.setattr(evaluation, "has_classifier", lambda *_: True)
    monkeypatch.setattr(evaluation, "correct", lambda *_: right)
    monkeypatch.setattr(evaluation, "outputs", lambda *_: {0: z})
    at = {"tcp": (expit(z[~right]) <= 0.1).mean(), "ce": (z[~right] <= 0).mean()}
    for arm, rate in at.items():
        test = claims.Test(metric="tnr_paper", arms=[arm], below=0.7)
        answer, found = claims._judged(claims.Seen(study), [test])[:2]
        assert found.startswith(f"TNR {100 * rate:.2f} [")
        assert f"with TCP's at z = 0, TNR {100 * at['ce']:.2f} [" in found
        assert answer == {"tcp": claims.HOLDS, "ce": claims.FAILS}[arm]
    with pytest.raises(ValueError, match="tnr_paper is that of"):
        claims.Test(metric="tnr_paper", arms=["tcp"], tuned=True, below=0.1)


def test_separability_is_one_metric_at_one_rate():
    for change in ({"metric": "kl", "tuned": True}, {"metric": "kl + auroc"}, {"metric": "kl + bhattacharyya"}):
        with pytest.raises(ValueError, match="a test of separability"):
            claims.Test.model_validate({"arms": ["ss"], "above": 0.0} | change)


def test_the_stronger_network_is_that_of_the_higher_accuracy(write_study, monkeypatch):
    networks = {name: TINY["networks"]["rsn"] | {"label": name.upper()} for name in ("rsn", "vit")}
    pairs = ["rsn-rsn", "rsn-vit", "vit-rsn", "vit-vit"]
    study = load_study(write_study(networks=networks, pairs=pairs))
    rule = claims.Test(metric="tnr", arms=["ce"], pairs=["strong-weak"], minus_pairs=["weak-strong"], above=0.0)
    answer, found = claims._judged(claims.Seen(study), [rule])[:2]
    assert (answer, found) == (claims.UNKNOWN, "not run: ⟨stronger, weaker⟩ CE − ⟨weaker, stronger⟩")
    right = {"rsn": np.arange(10) < 9, "vit": np.arange(10) < 8}
    monkeypatch.setattr(evaluation, "has_classifier", lambda *_: True)
    monkeypatch.setattr(evaluation, "correct", lambda study, pair, *_: right[pair[-3:]])
    ((name, (of, other)),) = claims._ways(claims.Seen(study), rule)
    assert (of[0], other[0], name) == ("rsn-vit", "vit-rsn", "⟨RSN, VIT⟩ CE − ⟨VIT, RSN⟩")
    right["vit"] |= True
    ((_, (of, other)),) = claims._ways(claims.Seen(study), rule)
    assert (of[0], other[0]) == ("vit-rsn", "rsn-vit")
    one = load_study(write_study())
    assert claims._found(claims.Seen(one), [rule]) == ([], "this study has no second network")


def test_what_a_study_has_not_is_named_as_a_reader_knows_it(study):
    def found(**test):
        rule = claims.Test.model_validate({"metric": "auroc", "arms": ["ss"], "above": 0.0} | test)
        return claims._found(claims.Seen(study), [rule])[1]

    assert found(minus=["focal", "tcp", "cb"]) == (
        "this study has no Focal arm and no TCP arm and no Class-balanced arm"
    )
    assert found(pairs=["vit-vit", "vit-rsn"]) == "this study has no ⟨ViT, ViT⟩ pair and no ⟨ViT, RSN⟩ pair"
    assert found(domains=["stylized"]) == "this study has no domain 'Stylised'"
    assert found(tuned=True, minus=["ce"]) == "this study has no audit"
    assert found(minus=["ce"]) == "not run: ⟨RSN, RSN⟩ SS − CE"
    for entry in claims.load():
        for arm in {arm for test in entry.tests for arm in (*test.arms, *test.minus)}:
            assert claims._label(study, arm)[0].isupper() or claims._label(study, arm).startswith("weighted CE")


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
        for test in entry.tests if name in (entry.studies or [name]) else []:
            for of, other in (way for _, way in claims._ways(claims.Seen(study), test)):
                for where, what, part in [of, *([other] if other else [])]:
                    assert part in ("test", *study.domains.parts.values()), entry.id
                    base = claims._base(what)
                    assert base == "mcp" or (((where, base) in tuned) if test.tuned else base in study.arms), entry.id


def test_a_study_that_has_hardly_run_is_judged_without_a_guess(write_study, monkeypatch):
    monkeypatch.setattr(evaluation, "RESAMPLES", 30)
    study = load_study(write_study(audit=AUDIT, seeds=[0]))
    experiments.train_oracle(study, "rsn-rsn", "ss", 0, lambda line: None)
    judged, cells = claims.judge(study)
    judged = judged.set_index("id")
    assert set(cells["claim"]) == {"iid", "normality"}
    first = judged.index.get_loc
    assert first("all-cases") < first(next(entry.id for entry in claims.load() if entry.tests))  # answers come first
    unrun = [entry.id for entry in claims.load() if entry.tests]
    assert set(judged.loc[unrun, "verdict"]) == {claims.UNKNOWN}
    colour = [entry.id for entry in claims.load() if entry.colour]
    elsewhere = [entry.id for entry in claims.load() if entry.studies]
    assert judged.loc[unrun, "found"].drop(colour + elsewhere).str.startswith(("not run", "this study has no")).all()
    assert set(judged.loc[colour, "found"]) == {claims.GREY}  # digits have one channel
    assert judged.loc[elsewhere, "found"].str.startswith("asked of other data: results/").all()
    assert judged.loc["all-cases", "verdict"] == claims.REFUTED


def test_the_published_rows_are_the_papers():
    # read in the paper's tables by eye
    assert len(published.table("table1")) == 16
    assert published.table("table3").loc[("defocus_blur", "ss"), "tnr"] == pytest.approx(0.3729)
    assert published.table("table2").loc[("cifar10", "tcp-dagger"), "tpr"] == pytest.approx(0.9788)
    assert np.isnan(published.table("table2").loc[("mnist", "trust_score"), "tnr"])


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


def test_the_bound_says_which_arm_it_is_of(write_study, monkeypatch):
    frozen = TINY["arms"]["ss"] | {"label": "SS, frozen", "backbone": "frozen", "training": {"images": 300}}
    study = load_study(write_study(arms={"ss-frozen": frozen} | TINY["arms"]))
    monkeypatch.setattr(runs, "read_manifest", lambda path: {"parameters": 9})
    row = claims.bounds(study).loc["RSN, this study's SS, frozen"]
    assert tuple(row[["parameters", "images"]]) == (9, 300)


def test_the_squared_error_is_capped_by_a_sigmoid_alone(study):
    verdict, found = claims.FACTS["tcp_capped"](claims.Seen(study))[:2]
    assert verdict == claims.ONLY_PRINTED
    assert "as printed, (z − p)² of any real z, is unbounded" in found


def of_normal(monkeypatch, study, values, right):
    """The verdict on the confidences of every oracle of `study`: arm -> sigmoid(z)."""
    monkeypatch.setattr(evaluation, "has_classifier", lambda *_: True)
    monkeypatch.setattr(evaluation, "correct", lambda *_: right)
    monkeypatch.setattr(
        evaluation, "outputs", lambda study, pair, arm, seeds, part: dict.fromkeys(seeds, logit(values[arm]))
    )
    return claims.FACTS["normality"](claims.Seen(study))[:2]


def test_normality_is_asked_of_every_group_of_every_loss(study, monkeypatch):
    n, few = 40_000, 400
    right = np.arange(n + few) < n
    normal = np.concatenate([statistics.norm.ppf((np.arange(size) + 0.5) / size) for size in (n, few)]) / 20 + 0.5
    verdict, found = of_normal(monkeypatch, study, {"ce": normal, "ss": normal}, right)
    assert verdict == claims.UNKNOWN  # of 400 the interval is 6.8 points wide on either side
    assert found.endswith("; beyond the margin in 2 of 4, excluded in 0")
    alike = np.concatenate([normal[:n], normal[:n]])
    assert of_normal(monkeypatch, study, {"ce": alike, "ss": alike}, np.arange(2 * n) < n)[0] == claims.HOLDS
    even = (np.arange(2 * n) % n + 0.5) / n  # a uniform distribution is 5.8 points from its normal
    verdict, found = of_normal(monkeypatch, study, {"ce": even, "ss": alike}, np.arange(2 * n) < n)
    assert verdict == claims.UNKNOWN  # 5.8 of an interval that is to be wider than 0.7 points for four comparisons
    two = np.where(even < 0.5, 0.2, 0.8) + 0.01 * even
    verdict, found = of_normal(monkeypatch, study, {"ce": two, "ss": alike}, np.arange(2 * n) < n)
    assert verdict == claims.FAILS
    assert "⟨RSN, RSN⟩ CE, " in found


def test_a_gap_that_the_error_leaves_no_room_for_decides_nothing(study, monkeypatch):
    rows = {"train": (0.997, 0.996, 0.998), "test": (0.9902, 0.988, 0.992)}

    def shift(*_):
        return pd.DataFrame(rows, ["rate", "low", "high"]).T

    monkeypatch.setattr(evaluation, "has_classifier", lambda *_: True)
    monkeypatch.setattr(audit, "label_shift", shift)
    verdict, found = claims.FACTS["iid"](claims.Seen(study))[:2]
    assert verdict == claims.UNKNOWN
    assert found == "RSN +0.68 [+0.40, +1.00], of an error of 0.98 that decides nothing"
    rows["train"], rows["test"] = (0.901, 0.900, 0.902), (0.9, 0.899, 0.901)
    assert claims.FACTS["iid"](claims.Seen(study))[:2] == (claims.HOLDS, "RSN +0.10 [-0.10, +0.30]")
    rows["train"] = (0.92, 0.919, 0.921)
    assert claims.FACTS["iid"](claims.Seen(study))[0] == claims.FAILS


@pytest.mark.parametrize(("longer", "expected"), [(1.0, claims.HOLDS), (-1.0, claims.FAILS), (0.0, claims.UNKNOWN)])
def test_tails_are_compared_seed_by_seed(write_study, monkeypatch, longer, expected):
    linear = {"ss-linear": {"label": "SS, linear", "loss": "ss", "head": "linear"}}
    head = {"question": "Which head?", "pairs": ["rsn-rsn"], "arms": ["ss-linear", "ss"]}
    plan = {"arms": AUDIT["arms"] | linear, "controls": AUDIT["controls"] | {"head": head}, "seeds": [0, 1, 2]}
    study = load_study(write_study(audit=AUDIT | plan))
    rows = [
        {"arm": arm, "seed": seed, "tails": 4 + seed + (arm == "ss") * (longer + 0.01 * (-1) ** seed)}
        for arm in ("ss", "ss-linear")
        for seed in (0, 1, 2)
    ]
    monkeypatch.setattr(audit, "tails", lambda *_: pd.DataFrame(rows))
    verdict, found = claims.FACTS["tails"](claims.Seen(study))[:2]
    assert verdict == expected
    assert found.startswith(f"longer by {longer + 0.01 / 3:+.2f} [")
    monkeypatch.setattr(audit, "tails", lambda *_: pd.DataFrame())
    assert claims.FACTS["tails"](claims.Seen(study))[:2] == (claims.UNKNOWN, "not run: ⟨RSN, RSN⟩")
    assert claims.FACTS["tails"](claims.Seen(load_study(write_study())))[1] == "this study has no control of the head"


def test_a_control_is_no_unseen_domain(write_study, monkeypatch):
    judged = ["fog-5", "recolor", "normalised", "recolor-released"]
    study = load_study(write_study(domains={"judged": judged, "images": 1000, "attacked": 1000}))
    clean, unseen = np.arange(1000) % 10 > 0, np.arange(1000) % 2 > 0
    controls = ("domains/normalised", "domains/recolor-released")
    monkeypatch.setattr(type(study), "images", lambda self: SimpleNamespace(channels=3))
    monkeypatch.setattr(evaluation, "has_classifier", lambda *_: True)
    monkeypatch.setattr(evaluation, "correct", lambda study, pair, part="": unseen if part[:7] == "domains" else clean)
    verdict, found = claims.FACTS["domain_accuracy"](claims.Seen(study))[:2]
    assert verdict == claims.HOLDS
    assert found.endswith("beyond the margin in 2 of 2, excluded in 0")
    monkeypatch.setattr(evaluation, "correct", lambda study, pair, part="": clean)
    assert claims.FACTS["domain_accuracy"](claims.Seen(study))[0] == claims.FAILS
    monkeypatch.setattr(evaluation, "has_classifier", lambda study, pair, part: part not in controls)
    assert claims.FACTS["domain_accuracy"](claims.Seen(study))[0] == claims.FAILS


def test_table_2_is_asked_of_its_studies_alone(write_study, monkeypatch):
    monkeypatch.setattr(Study, "images", lambda self: SimpleNamespace(channels=1))
    monkeypatch.setattr(evaluation, "has_classifier", lambda *_: False)
    entries = [entry for entry in claims.load() if entry.studies]
    assert {entry.id for entry in entries} == {entry.id for entry in claims.load() if entry.id.startswith("small-")}
    for name in ("tiny", "mnist-other"):
        study = load_study(write_study()).model_copy(update={"name": name, "dataset": "mnist"})
        assert set(claims.judge(study, entries)[0]["found"].str.startswith("asked of other data")) == {True}
    for name in ("mnist", "mnist-full"):
        study = load_study(write_study()).model_copy(update={"name": name})
        found = claims.judge(study, entries)[0].set_index("id")["found"]
        assert found["small-alike"] == "this study has no TCP arm"
        assert found["small-more"].startswith("asked of other data: results/cifar10")


@pytest.mark.parametrize(
    "change",
    [{"fact": "no_such"}, {"tests": []}, {"tests": [{"metric": "auroc", "arms": ["ce"]}]}],
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
    entries = [entry for entry in claims.load() if name.removesuffix("-full") in entry.studies]
    assert len(entries) >= 4
    arms = {arm for entry in entries for test in entry.tests for arm in (*test.arms, *test.minus)}
    assert arms | set(published.TABLE_2.values()) <= {*study.arms, *confidence.SCORES, None}


def test_published_intervals_follow_from_the_counts_of_the_published_errors():
    frame = published.table2("mnist").set_index(["loss", "metric"])
    low, high = statistics.clopper_pearson(2, 90)  # 2.22 % of 90 wrong predictions
    assert tuple(frame.loc[("ss", "fpr95"), ["low", "high"]]) == (low, high)
    assert frame.loc[("ss", "fpr95"), "estimate"] == pytest.approx(0.0222)
    assert frame.loc[("tcp", "auroc"), "low"] < 0.9882 < frame.loc[("tcp", "auroc"), "high"]
    assert np.isnan(frame.loc[("tcp", "aupr_error"), "low"])
    assert set(published.table2("cifar10")["loss"]) == set(published.TABLE_2)
    for dataset in ("mnist", "cifar10"):  # 5.26 % of 90 and 49.02 % of 781 are no counts
        without = published.table2(dataset).groupby("loss")["low"].agg(lambda low: low.isna().all())
        assert list(without[without].index) == ["mc_dropout"]
