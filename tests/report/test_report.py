"""The tables, figures and sentences of a report say what was found."""

import re

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from matplotlib.patches import StepPatch

from trustlib import data
from trustlib.analysis import ablations, rules
from trustlib.report import ablation_tables, figures, panels, prose, protocol, study_tables, tables
from trustlib.runs import jobs
from trustlib.study import load_study


def scores():
    """Two seeds of one arm, and MCP."""
    base = {"accuracy": 0.9, "aupr_error": 0.5, "aupr_success": 0.95, "aurc": 0.02, "eaurc": 0.01, "augrc": 0.015}
    rows = [("mcp", 0, 0.80, 0.40, 0.99, 0.10), ("ss", 0, 0.90, 0.50, 0.9, 0.3), ("ss", 1, 0.92, 0.54, 0.8, 0.5)]
    keys = ("arm", "seed", "auroc", "fpr95", "tpr", "tnr")
    return pd.DataFrame([{"pair": "rsn-rsn", **dict(zip(keys, row, strict=True)), **base} for row in rows])


@pytest.fixture
def study(write_study):
    return load_study(write_study(**TINY))


def compared():
    """What `evaluation.compare` gives of the same: differences from MCP, one beyond its interval."""
    rows = []
    for arm, auroc, half, difference in (
        ("mcp", 0.80, 0.02, np.nan),
        ("energy", 0.79, 0.02, -0.01),
        ("ss", 0.91, 0.03, 0.11),
    ):
        for metric, value in (("auroc", auroc), ("aurc", 0.02), ("tpr", 0.85), ("tnr", 0.4), ("accuracy", 0.9)):
            gap = difference if metric == "auroc" else 0.0 if arm != "mcp" else np.nan
            row = {"pair": "rsn-rsn", "arm": arm, "metric": metric, "estimate": value, "low": value - half}
            row |= {
                "high": value + half,
                "difference": gap,
                "difference_low": gap - half,
                "difference_high": gap + half,
            }
            rows.append(row | {"p_holm": 0.004 if arm == "ss" else np.nan})
    return pd.DataFrame(rows)


def bold_cells(style):
    """(row label, column) of the cells in bold."""
    style._compute()
    return {(style.index[row][1], style.columns[column]) for (row, column), css in style.ctx.items() if css}


def test_the_papers_table_has_mean_and_deviation_and_the_best_in_bold(study):
    named = study_tables.by_classifier(scores(), study)
    style = tables.paper_form(named.assign(pair=named["classifier"], arm=named["label"]))
    # mean of 90 and 92 is 91, their standard deviation with n - 1 is sqrt(2)
    assert style.data.loc[("RSN", "SS"), "AUROC ↑"] == "91.0 ± 1.4"
    assert style.data.loc[("RSN", "MCP"), "AUROC ↑"] == "80.0"
    bold = bold_cells(style)
    # Ties are all bold; lower is better for FPR; TPR, TNR and Acc are never bold.
    assert {("SS", "AUROC ↑"), ("MCP", "FPR-95%-TPR ↓")} < bold
    assert not {c for _, c in bold} & {"TPR", "TNR", "Acc"}
    assert ("MCP", "AUROC ↑") not in bold


def test_rows_are_grouped_and_what_needs_no_oracle_is_there_once_per_classifier(write_study):
    networks = {name: TINY["networks"]["rsn"] | {"label": name.upper()} for name in ("rsn", "vit")}
    frozen = TINY["methods"]["ce"] | {"label": "CE, frozen", "backbone": "frozen"}
    released = TINY["methods"]["ce"] | {"label": "CE, as released", "form": "released"}
    methods = {"ce": TINY["methods"]["ce"], "head": frozen, "ce-released": released}
    plan = load_study(write_study(networks=networks, pairs=["rsn-rsn", "vit-rsn"], methods=methods))
    row = compared().query("arm == 'energy'")
    frame = pd.concat([row.assign(arm=name) for name in ("mcp", "linear_ce", *methods, "ensemble")])
    rows = study_tables.by_classifier(pd.concat([frame, frame.assign(pair="vit-rsn")]), plan).query("metric == 'auroc'")
    assert list(rows["classifier"].unique()) == ["RSN"]
    assert list(zip(rows["group"], rows["label"], strict=True)) == [
        ("Softmax and logits", "MCP"), ("Ensembles", "Ensemble"), ("Oracles, backbone frozen", "Linear probe, CE"),
        ("Oracles, backbone frozen", "CE, frozen, RSN oracle"), ("Oracles, backbone frozen", "CE, frozen, VIT oracle"),
        ("Oracles, fine-tuned", "CE, RSN oracle"), ("Oracles, fine-tuned", "CE, VIT oracle"),
        ("Oracles, as in the released code", "CE, as released, RSN oracle"),
        ("Oracles, as in the released code", "CE, as released, VIT oracle"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "methods"),
    [
        ("fashion", ["ce", "focal", "tcp", "ss", "cb"]),
        ("mnist", ["ce", "tcp", "ss"]),
        ("tiny", ["ce-frozen", "focal-frozen", "tcp-frozen", "ss-frozen", "cb-frozen"]),
    ],
)
def test_a_row_of_the_page_compares_methods_of_one_regime(name, methods):
    assert study_tables.main_methods(load_study(name)) == methods


def test_a_difference_from_mcp_is_bold_where_its_interval_excludes_0(study):
    style = study_tables.every_score(study_tables.by_classifier(compared(), study))
    cells = style.data.droplevel("group")
    assert cells.loc["SS", "AUROC minus MCP's"] == "+11.0 [+8.0, +14.0]"
    assert cells.loc["SS", "p, Holm"] == "0.004"
    assert cells.loc["MCP", "AUROC minus MCP's"] == tables.MISSING
    assert bold_cells(style) == {("SS", "AUROC minus MCP's")}


def test_scores_that_are_mcp_to_the_decimal_are_named(study):
    frame = compared()
    frame.loc[frame["arm"].eq("energy") & frame["metric"].eq("auroc"), "difference"] = 0.0004
    assert study_tables.equal_to_mcp(frame, study) == ["energy"]
    assert study_tables.equal_to_mcp(compared(), study) == []


def test_paper_and_study_are_side_by_side(study):
    published = pd.read_csv(data.ROOT / "data/published/table1.csv")
    cells = study_tables.table1_form(published, compared(), study, ["rsn-rsn"]).data
    assert list(cells.index) == ["MCP, here", "CE, paper", "CE, here", "SS, paper", "SS, here"]
    assert cells.loc["SS, here", "AUROC ↑"] == "91.0 [88.0, 94.0]"
    assert cells.loc["SS, paper", "TNR"] == "42.1 ± 3.8"  # read in the paper's Table 1 by eye


def test_the_answer_is_computed_from_the_comparisons(study):
    sentences = prose.in_one_minute(compared(), study)
    assert sentences[0].startswith("**Of 1 oracle 1 ranks errors significantly better")
    assert "SS with an AUROC of 91.0 against MCP's 80.0 (+11.0) on RSN" in sentences[1]
    assert "Of 1 score that need no oracle, 0 rank significantly better than MCP." in sentences[2]
    worse = compared()
    columns = ["difference", "difference_low", "difference_high"]
    worse.loc[worse["arm"] == "ss", columns] = -0.11, -0.14, -0.08
    assert prose.in_one_minute(worse, study)[0].startswith("**No oracle ranks errors significantly better")
    assert dict(map(reversed, prose.key_figures(worse, study)))["oracles significantly below MCP"] == "1 of 1"
    several = pd.concat([worse.assign(pair=f"rsn-rsn{i}") for i in range(4)], ignore_index=True)
    networks = {f"rsn{i}": study.network("rsn").model_copy(update={"label": f"RSN {i}"}) for i in range(4)}
    of_four = study.model_copy(update={"networks": study.networks | networks, "pairs": list(several["pair"].unique())})
    assert prose.in_one_minute(several, of_four)[1].startswith("The best oracle of each of 4 classifiers (SS) has an")
    assert (
        dict(map(reversed, prose.key_figures(several, of_four)))["accuracy of 4 classifiers"]
        == "90.0\N{NO-BREAK SPACE}%"
    )
    alone = compared().query("arm == 'mcp'")
    assert prose.in_one_minute(alone, study) == ["There is no oracle whose AUROC could be compared with MCP's."]


def test_the_answer_over_several_classifiers_is_that_of_the_oracles(study):
    numbers = {"metric": "auroc", "difference": -0.02, "difference_low": -0.03, "difference_high": -0.01}
    over = pd.DataFrame([{"arm": arm, "classifiers": 5, **numbers} for arm in ("energy", "linear_ce", "ss")])
    expected = "**Over 5 trainings of the classifier the AUROC minus MCP's is −2.0 [−3.0, −1.0] (SS) points.**"
    assert prose.over_classifiers_finding(over, study) == expected


@pytest.mark.parametrize(
    ("name", "couples"),
    [
        ("fashion", {("ss", "ce")}),
        ("mnist", {("ss-head", "ce-head"), ("ss", "ce")}),
        ("tiny", {("ss-frozen", "ce-frozen")}),
    ],
)
def test_losses_are_compared_that_were_trained_alike(name, couples):
    plan, rows = load_study(name), []
    for i, arm in enumerate(["mcp", *plan.methods]):
        for j, pair in enumerate(plan.pairs):
            row = {"arm": arm, "pair": pair, "metric": "auroc", "estimate": 0.5 + 0.01 * i + 0.002 * j}
            rows.append(row | dict.fromkeys(("difference", "difference_low", "difference_high"), np.nan))
    frame = pd.DataFrame(rows)
    frame.loc[frame["arm"] != "mcp", ["difference", "difference_low", "difference_high"]] = -0.1, -0.2, -0.05
    said, place, label = prose.in_one_minute(frame, plan)[-1], list(plan.methods).index, plan.method_label
    for ss, ce in couples:
        assert f"{prose.signed(place(ss) - place(ce))} ({label(ss)} minus {label(ce)})" in said
    assert said.count("minus ") == len(couples) + 1


def test_figures_say_in_words_what_they_show(study):
    rows = study_tables.by_classifier(compared(), study).query("metric == 'auroc' and arm != 'mcp'")
    drawn = panels.differences(rows, study)
    assert "0 of 1 oracles lie significantly below MCP, 1 above" in drawn.caption
    assert "SS on RSN (+11.0)" in drawn.alt
    plt.close(drawn.figure)


def test_two_tables_of_one_page_do_not_share_ids():
    first, second = (tables.plain(pd.DataFrame({"a": [value]})).to_html() for value in (1, 2))
    assert not set(re.findall(r'id="([^"]+)"', first)) & set(re.findall(r'id="([^"]+)"', second))


def test_the_runs_table_escapes_errors_and_marks_failed_runs():
    rows = [
        {"run": "a", "status": "done", "loss": 0.5, "seconds": 1.0},
        {"run": "b", "status": "failed", "error": "<script>alert(1)</script>"},
    ]
    style = tables.runs_table(rows)
    assert "<script>" not in style.to_html()
    style._compute()
    assert {row for (row, _), css in style.ctx.items() if ("background", "#fde2d5") in css} == {1}


def test_the_published_table_is_the_papers():
    published = pd.read_csv(data.ROOT / "data/published/table1.csv")
    assert len(published) == 4 * 4 * 7
    table = tables.published_form(published).data
    # three cells read in the paper's Table 1 by eye
    assert table.loc[("⟨ViT, RSN⟩", "Focal"), "TNR"] == "7.7 ± 0.5"
    assert table.loc[("⟨ViT, ViT⟩", "SS"), "AUROC ↑"] == "73.7 ± 0.3"
    assert table.loc[("⟨RSN, RSN⟩", "TCP"), "Acc"] == "68.7"


def test_a_heading_does_not_break_before_an_arrow():
    page = tables.plain(pd.DataFrame({"TNR at TPR 95 % ↑": [1]})).to_html()
    assert "TNR at TPR 95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}↑" in page


def test_the_slopes_axis_is_cut():
    fig, axs = plt.subplots(2, 1)
    z = np.linspace(-6, 6, 5)
    figures.loss_curves(axs, z, {"SS": ({}, z, 1000 * z)}, title="")
    assert axs[1].get_ylim() == (-figures.STEEPEST, figures.STEEPEST)
    plt.close(fig)


def test_a_histogram_of_one_class_only_is_drawn():
    fig, ax = plt.subplots()
    figures.histogram(ax, np.array([0.2, 0.9]), np.array([True, True]))
    figures.normals(ax, (0.5, 0.1, np.nan, np.nan))
    plt.close(fig)


def test_a_risk_coverage_curve_has_at_most_500_points_and_keeps_its_ends():
    fig, ax = plt.subplots()
    coverage = np.arange(1, 10_001) / 10_000
    line = figures.risk_coverage(ax, coverage, coverage**2 / 10, label="x", loss="ss")
    x, y = line.get_data()
    assert len(x) <= figures.CURVE_POINTS
    assert (x[0], x[-1], y[-1]) == (coverage[0], 1.0, 0.1)
    plt.close(fig)


def test_each_loss_has_a_colour_of_its_own_and_a_released_form_is_dashed():
    assert len(set(figures.COLOURS.values())) == len(figures.COLOURS)
    assert figures.line_style("ce")["color"] == figures.line_style("ce", "released")["color"]
    assert figures.line_style("ce", "released")["linestyle"] == "--"


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "tiny", "imagenet"])
def test_what_is_said_of_a_study_follows_from_its_plan(name):
    plan, counts = load_study(name), {"train": 8000, "heldout": 2000, "test": 1000}
    text = " ".join(protocol.deviations(plan, counts))
    for network in plan.networks.values():
        assert f"{network.label}, {'pretrained weights' if network.weights else 'trained from scratch'}" in text
    assert ("trained in both forms" in text) == ("released" in {arm.form for arm in plan.methods.values()})
    assert ("Class-balanced" in text) == ("cb" in {arm.loss for arm in plan.methods.values()})
    optimisers = {plan.recipe(plan.pairs[0], arm).optimizer for arm in plan.methods} | {
        n.training.optimizer for n in plan.networks.values() if n.training
    }
    for key, words in protocol.OPTIMISERS.items():
        assert (f", {words} at a learning rate of" in text) == (key in optimisers)
    assert "40 training images" in protocol.neighbours_note(plan, counts, 200)


def test_the_claims_table_escapes_its_words_and_leads_to_sections_that_the_page_has():
    row = {"id": "x", "asked_by": "paper", "claim": "a < b", "where": "W", "quantity": "AUROC", "found": "1 [0, 2]"}
    rows = [row | {"verdict": "contradicted", "section": section} for section in ("The-losses", "Elsewhere")]
    page = study_tables.claims_form(pd.DataFrame(rows), {"The-losses"}).to_html()
    assert "a &lt; b" in page
    assert '<a class="verdict contradicted" href="#The-losses">contradicted</a>' in page
    assert "#Elsewhere" not in page
    assert 'data-asked-by="paper"' in page


def test_claims_lead_to_headings_of_the_notebooks():
    headings = set()
    for name in jobs.SECTIONS:
        cells = nbformat.read(data.ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        headings |= {line.replace(" ", "-").replace("%", "%25") for line in re.findall(r"^##? (.*)$", text, re.M)}
    known = protocol.anchors(protocol.SECTIONS)
    assert {claim.section for claim in rules.load()} <= known <= headings


def test_what_a_study_lacks_is_one_line():
    there = [name for name in protocol.SECTIONS if name not in ("alpha", "sweep")]
    assert protocol.not_run(there) == "Not run in this study: the two slopes and corruptions at every severity."
    assert protocol.not_run(protocol.SECTIONS) == ""


def test_a_histogram_is_one_outline_a_side_and_each_sums_to_1():
    fig, ax = plt.subplots()
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(1000), rng.random(1000) < 0.7
    figures.histogram(ax, confidence, correct)
    up, down = (patch.get_data().values for patch in ax.patches if isinstance(patch, StepPatch))
    assert (up.sum(), down.sum()) == pytest.approx((1, -1))
    assert up.max() == pytest.approx(np.histogram(confidence[correct], 50, (0, 1))[0].max() / correct.sum())
    plt.close(fig)


def test_an_ablation_is_shown_with_its_learning_rates_and_what_differs_in_bold(study):
    frame = compared().assign(rate=0.003)
    fpr95 = frame[frame["metric"] == "auroc"].assign(metric="fpr95", estimate=0.6, low=0.5, high=0.7)
    style = ablation_tables.ablation_form(pd.concat([frame, fpr95]), study, "mcp")
    assert style.data.loc["SS", "AUROC minus MCP's"] == "+11.0 [+8.0, +14.0]"
    assert style.data.loc["SS", "TNR at TPR 95 % ↑"] == "40.0 [30.0, 50.0]"
    assert style.data.loc["SS", "learning rate"] == "0.003"
    style._compute()
    assert {(style.index[r], style.columns[c]) for (r, c), css in style.ctx.items() if css} == {
        ("SS", "AUROC minus MCP's")
    }


def test_methods_that_differ_in_one_thing_are_contrasted():
    plan = load_study("ablations")
    couples = {name: ablations.couples(plan, of.methods) for name, of in plan.ablations.questions.items()}
    assert couples["head"] == [("ce-distance", "ce"), ("ss", "ss-linear")]
    assert ("ce-heldout", "ce-few") in couples["labels"]
    assert couples["alpha"] == []
