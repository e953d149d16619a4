"""The page that a reader opens: it needs nothing but itself, and says what it shows."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import TINY

from trustlib import data
from trustlib.report import figures, page, prose, tables
from trustlib.study import load_study


class Page(HTMLParser):
    """Every tag's attributes, by tag."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def all(self, tag, attribute):
        return [attrs[attribute] for name, attrs in self.tags if name == tag and attribute in attrs]


def check_page(text):
    """Nothing is asked of the network, every contents link lands, every picture has a text, ids are unique."""
    page = Page(text)
    outside = [a.get("src") or a.get("href") for t, a in page.tags if t in ("script", "img", "link", "iframe")]
    assert all(address is None or address.startswith("data:") for address in outside)
    assert not re.search(r"url\(\s*['\"]?https?:|@import", text)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = [address for address in page.all("a", "href") if address.startswith("#")]
    assert links
    assert {link[1:] for link in links} <= set(ids)
    assert all(text.strip() for text in page.all("img", "alt"))
    assert len(page.all("img", "alt")) == sum(tag == "img" for tag, _ in page.tags)
    return page


def html_of(output):
    return nbformat.v4.new_output("display_data", data={"text/html": output.data})


def test_a_written_page_stands_alone(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", shown.append)
    fig, ax = plt.subplots()
    ax.plot([0, 1], [1, 0])
    page.figure(fig, "Risk < 1 & falling.", alt='A "falling" line.', save=tmp_path / "line.svg")
    page.table(tables.plain(pd.DataFrame({"AUC": [1.0]}, index=["<b>x</b>"])), "A table.")
    code = nbformat.v4.new_code_cell("secret = 1", outputs=[html_of(output) for output in shown])
    text = ["# Title", "## First part\n\nThe loss is $e^{-z}$, and\n\n$$\\frac{a}{b}$$", "## Second part\n\nSaid."]
    nb = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_markdown_cell, text), code])
    nbformat.write(nb, tmp_path / "nb.ipynb")
    page.write(tmp_path / "page.html", [tmp_path / "nb.ipynb"])
    written = (tmp_path / "page.html").read_text()
    check_page(written)
    assert written.count("<math") == 2
    assert "secret" not in written
    assert re.findall(r'<li><a href="#[^"]+">(.*?)</a>', written) == ["First part", "Second part"]
    assert "Risk &lt; 1 &amp; falling." in written
    assert (tmp_path / "line.svg").read_text().startswith("<?xml")


def scores():
    """Two seeds of one arm, and MCP."""
    base = {"accuracy": 0.9, "aupr_error": 0.5, "aupr_success": 0.95, "aurc": 0.02, "eaurc": 0.01, "augrc": 0.015}
    rows = [("mcp", 0, 0.80, 0.40, 0.99, 0.10), ("ss", 0, 0.90, 0.50, 0.9, 0.3), ("ss", 1, 0.92, 0.54, 0.8, 0.5)]
    keys = ("arm", "seed", "auroc", "fpr95", "tpr", "tnr")
    return pd.DataFrame([{"pair": "rsn-rsn", **dict(zip(keys, row, strict=True)), **base} for row in rows])


@pytest.fixture
def study(write_study):
    return load_study(write_study(**TINY))


def test_the_papers_table_has_mean_and_deviation_and_the_best_in_bold(study):
    style = tables.paper_form(tables.labelled(scores(), study))
    # mean of 90 and 92 is 91, their standard deviation with n - 1 is sqrt(2)
    assert style.data.loc[("⟨RSN, RSN⟩", "SS"), "AUC ↑"] == "91.00 ± 1.41"
    assert style.data.loc[("⟨RSN, RSN⟩", "MCP"), "AUC ↑"] == "80.00"
    assert style.data.loc[("⟨RSN, RSN⟩", "SS"), "Acc"] == "90.00"
    style._compute()
    bold = {(style.index[row][1], style.columns[column]) for (row, column), css in style.ctx.items() if css}
    # Ties are all bold; lower is better for FPR; TPR, TNR and Acc are never bold.
    assert {("SS", "AUC ↑"), ("MCP", "FPR-95%-TPR ↓")} < bold
    assert not {c for _, c in bold} & {"TPR", "TNR", "Acc"}
    assert ("MCP", "AUC ↑") not in bold


def compared():
    """What `evaluation.compare` gives of the same: differences from MCP, one beyond its interval."""
    rows = []
    for arm, auroc, half, difference in (
        ("mcp", 0.80, 0.02, np.nan),
        ("energy", 0.79, 0.02, -0.01),
        ("ss", 0.91, 0.03, 0.11),
    ):
        for metric, value in (("auroc", auroc), ("aurc", 0.02), ("tpr", 0.85), ("tnr", 0.4)):
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


def test_one_metric_across_pairs_has_intervals_and_keeps_the_order_of_scores(study):
    style = tables.across_pairs(tables.labelled(compared(), study), "auroc")
    cells = {"MCP": "80.00 [78.00, 82.00]", "Energy": "79.00 [77.00, 81.00]", "SS": "91.00 [88.00, 94.00]"}
    assert style.data["⟨RSN, RSN⟩"].droplevel("group").to_dict() == cells
    groups = ["Softmax and logits", "Softmax and logits", "Oracles, fine-tuned"]
    assert list(style.data.index) == list(zip(groups, cells, strict=True))
    style._compute()
    assert {style.index[row][1] for (row, _), css in style.ctx.items() if css} == {"SS"}


def test_rows_are_grouped_and_a_frozen_oracle_stands_with_the_probes(write_study):
    methods = {
        "ce": TINY["methods"]["ce"],
        "head": TINY["methods"]["ce"] | {"label": "CE, frozen", "backbone": "frozen"},
    }
    plan = load_study(write_study(methods=methods))
    row = compared().query("arm == 'energy'")
    frame = pd.concat([row.assign(arm=name) for name in ("mcp", "linear_ce", "ce", "head", "ensemble")])
    rows = list(tables.across_pairs(tables.labelled(frame, plan), "auroc").data.index)
    assert rows == [
        ("Softmax and logits", "MCP"), ("Ensembles", "Ensemble"), ("Oracles, backbone frozen", "Linear probe, CE"),
        ("Oracles, backbone frozen", "CE, frozen"), ("Oracles, fine-tuned", "CE"),
    ]  # fmt: skip
    assert list(tables.against_mcp(tables.labelled(frame, plan)).data.index) == rows


def test_a_difference_from_mcp_is_bold_where_its_interval_leaves_out_0(study):
    style = tables.against_mcp(tables.labelled(compared(), study))
    cells = style.data.droplevel("group")
    assert cells.loc["SS", "AUC minus MCP's"] == "+11.00 [+8.00, +14.00]"
    assert cells.loc["SS", "p"] == "0.004"
    assert cells.loc["MCP", "AUC minus MCP's"] == tables.MISSING
    style._compute()
    bold = {(style.index[row][1], style.columns[column]) for (row, column), css in style.ctx.items() if css}
    assert bold == {("SS", "AUC minus MCP's")}


def test_operating_points_are_per_cent_with_intervals():
    point = {"tpr": 0.9, "tpr_low": 0.8, "tpr_high": 0.95, "tnr": 0.5, "tnr_low": 0.4, "tnr_high": 0.6}
    point |= {"tnr95": 0.3, "coverage": 0.7, "guaranteed": 0.0, "ece": 0.01, "brier": 0.1, "nll": 0.25}
    style = tables.operating_form(pd.DataFrame({"MCP": point}).T, 0.05)
    assert style.data.loc["MCP"].to_dict() == {
        "TPR": "90.00 [80.00, 95.00]", "TNR": "50.00 [40.00, 60.00]", "TNR at TPR 95 %": "30.00",
        "coverage at risk 5 %": "70.00", "guaranteed": "0.00", "ECE": "1.00", "Brier": "10.00", "NLL": "0.250",
    }  # fmt: skip


def test_findings_are_computed_from_the_comparisons(study):
    sentences = prose.findings(compared(), study)
    assert "no higher AUC than the best oracle; the best one's AUC minus MCP's is +11.0" in sentences[0]
    assert "Of 1 comparisons of fine-tuned oracles with MCP" in sentences[1]
    assert sentences[1].endswith("below 0 in 0 and above 0 in 1.")
    assert sentences[2].endswith("below 0 in 0 and above 0 in 0.")
    twice = pd.concat([compared(), compared().assign(pair="vit-rsn")])  # another oracle, the same classifier
    assert "a higher AUC than every oracle in 0 of 2 pairs" in prose.findings(twice, study)[0]
    assert "Of 1 comparisons of the classifier's other scores" in prose.findings(twice, study)[2]
    probe = compared().query("arm == 'ss'").assign(arm="linear_ce", estimate=0.95)
    with_probe = prose.findings(pd.concat([compared(), probe]), study)
    assert "the best one's AUC minus MCP's is +15.0" in with_probe[0]
    assert "Of 1 comparisons of oracles on frozen features" in with_probe[2]
    assert sentences[-1] == "SS: AUC 91.0, TPR 85.0, TNR 40.0."
    assert prose.findings(compared().query("arm == 'mcp'"), study) == ["There is no pair with an oracle and an AUC."]


@pytest.mark.parametrize(
    ("name", "couples"),
    [
        ("fashion", {("ss", "ce")}),
        ("mnist", {("ss-head", "ce-head"), ("ss", "ce")}),
        ("tiny", {("ss-frozen", "ce-frozen"), ("ss", "ce")}),
    ],
)
def test_losses_are_compared_that_were_trained_alike(name, couples):
    plan = load_study(name)
    rows = [
        {"arm": arm, "pair": pair, "metric": metric, "estimate": 0.5 + 0.01 * i + 0.002 * j}
        for i, arm in enumerate(["mcp", *plan.methods])
        for j, pair in enumerate(plan.pairs)
        for metric in ("auroc", "tpr", "tnr")
    ]
    frame = pd.DataFrame(rows).assign(difference=np.nan, difference_low=np.nan, difference_high=np.nan)
    sentences = [line for line in prose.findings(frame, plan) if " minus that of " in line]
    place, label = {arm: i for i, arm in enumerate(plan.methods)}, plan.method_label
    assert sentences == [
        f"The AUC of {label(ss)} minus that of {label(ce)} is {place[ss] - place[ce]:+.1f} points."
        for ss, ce in sorted(couples, key=lambda couple: place[couple[0]])
    ]


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
    assert table.loc[("⟨ViT, RSN⟩", "Focal"), "TNR"] == "7.71 ± 0.53"
    assert table.loc[("⟨ViT, ViT⟩", "SS"), "AUC ↑"] == "73.68 ± 0.27"
    assert table.loc[("⟨RSN, RSN⟩", "TCP"), "Acc"] == "68.72"


def test_small_risks_are_shown_with_three_digits(study):
    small = compared()
    small.loc[small["metric"] == "aurc", ["estimate", "low", "high"]] /= 100
    cells = tables.against_mcp(tables.labelled(small, study)).data["AURC ↓"]
    assert cells.droplevel("group")["MCP"].startswith("0.0200 [")


def test_a_difference_that_is_called_real_is_not_shown_as_0(study):
    small = compared()
    columns = ["difference", "difference_low", "difference_high"]
    small.loc[small["arm"].eq("ss") & small["metric"].eq("aurc"), columns] = [2e-5, 1e-5, 4e-5]
    cells = tables.against_mcp(tables.labelled(small, study)).data["AURC minus MCP's"]
    assert cells.droplevel("group")["SS"] == "+0.002 [+0.001, +0.004]"


def test_a_heading_does_not_break_before_an_arrow():
    page = tables.plain(pd.DataFrame({"TNR at TPR 95 % ↑": [1]})).to_html()
    assert "TNR at TPR 95\N{NO-BREAK SPACE}%\N{NO-BREAK SPACE}↑" in page


def test_dashes_are_explained_where_they_are_drawn():
    plan = load_study("mnist")
    assert figures.dashes([plan.line("mcp"), plan.line("ce-head")]) == "A colour is a loss, solid its first arm."
    assert figures.dashes(list(map(plan.line, plan.methods))).endswith(
        "first arm, dotted and dash-dotted its further methods."
    )
    assert "dashed its released form" in figures.dashes([load_study("digits").line("ce-released")])


def test_the_slopes_axis_is_cut():
    fig, axs = plt.subplots(2, 1)
    z = np.linspace(-6, 6, 5)
    figures.loss_curves(axs, z, {"SS": ({}, z, 1000 * z)}, title="")
    assert axs[1].get_ylim() == (-figures.STEEPEST, figures.STEEPEST)
    plt.close(fig)


def test_a_histogram_gives_each_class_the_whole_of_its_share():
    fig, ax = plt.subplots()
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(1000), rng.random(1000) < 0.7
    figures.histogram(ax, confidence, correct)
    heights = np.concatenate([c.get_paths()[0].vertices[:, 1] for c in ax.collections])
    assert heights.min() < 0 < heights.max()
    for right, sign in ((True, 1), (False, -1)):
        # 0.5 is a bin edge: no bin is shared by trusted and distrusted predictions
        share = np.histogram(confidence[correct == right], bins=50, range=(0, 1))[0] / (correct == right).sum()
        assert (sign * heights).max() == pytest.approx(share.max())
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


def test_the_claims_table_escapes_its_words_and_leads_to_the_section():
    row = {
        "id": "x",
        "asked_by": "paper",
        "claim": "a < b",
        "where": "Section 5",
        "quantity": "AUC",
        "found": "1 [0, 2]",
    }
    rows = [row | {"verdict": verdict, "section": "The-losses"} for verdict in ("reproduced", "contradicted")]
    page = tables.claims_form(pd.DataFrame(rows)).to_html()
    assert "a &lt; b" in page
    assert '<a class="verdict contradicted" href="#The-losses">contradicted</a>' in page
    assert 'id="claim-x"' in page
    assert 'data-asked-by="paper"' in page


def test_a_control_is_shown_with_its_rates_and_what_differs_in_bold(study):
    frame = compared().assign(rate=0.003)
    frame = pd.concat(
        [frame, frame[frame["metric"] == "auroc"].assign(metric="fpr95", estimate=0.6, low=0.5, high=0.7)]
    )
    style = tables.ablation_form(frame, study, "mcp")
    assert style.data.loc["SS", "AUC minus MCP's"] == "+11.00 [+8.00, +14.00]"
    assert style.data.loc["SS", "TNR at TPR 95 % ↑"] == "40.00 [30.00, 50.00]"
    assert style.data.loc["SS", "rate"] == "0.003"
    style._compute()
    assert {(style.index[r], style.columns[c]) for (r, c), css in style.ctx.items() if css} == {
        ("SS", "AUC minus MCP's")
    }


MARKUP = [
    "<script>alert(1)</script>",
    '<img src="http://elsewhere.example/x.png">',
    "![a picture](http://elsewhere.example/x.png)",
    "[a link](javascript:alert(1))",
    "$\\text{<svg/onload=alert(1)>}$",
    "$\\href{javascript:alert(1)}{x}$",
    "<a href=javascript:alert(1)>",
    "```mermaid\n<script>alert(1)</script>\n```",
]


@pytest.mark.parametrize("text", MARKUP)
def test_a_studys_own_words_are_no_markup(text, tmp_path, monkeypatch, write_study):
    """Its note, labels of a network and a method, as the report's tables, captions, figures and sentences show them."""
    networks = {"rsn": TINY["networks"]["rsn"] | {"label": text}}
    methods = TINY["methods"] | {"ss": TINY["methods"]["ss"] | {"label": text}}
    study, shown = load_study(write_study(note=text, networks=networks, methods=methods)), []
    monkeypatch.setattr(page, "display", shown.append)
    labelled = tables.labelled(compared(), study)
    for form in (tables.across_pairs(labelled, "auroc"), tables.against_mcp(labelled), tables.plain(labelled)):
        page.table(form, text)
    page.figure(plt.figure(), text, alt=text)
    said = [f"> {study.note}", f"**{text}** and `{text}`", f"- {text}\n- {text}", f"{text}\n\n# {text}", text]
    outputs = [nbformat.v4.new_output("display_data", data={"text/markdown": one}) for one in said]
    code = nbformat.v4.new_code_cell("x", outputs=outputs + [html_of(output) for output in shown])
    heading = nbformat.v4.new_markdown_cell("# Title\n\n## Part")
    nbformat.write(nbformat.v4.new_notebook(cells=[heading, code]), tmp_path / "nb.ipynb")
    page.write(tmp_path / "page.html", [tmp_path / "nb.ipynb"])
    written = (tmp_path / "page.html").read_text()
    html = Page(written)
    assert not {"svg", "iframe"} & {tag for tag, _ in html.tags}
    assert sum(tag == "script" for tag, _ in html.tags) == 1  # the page's own, which alone its policy lets run
    assert not [name for _, attributes in html.tags for name in attributes if name.startswith("on")]
    assert all(address.startswith("data:") for address in html.all("img", "src"))
    assert all(address.startswith(("#", "https://")) for address in html.all("a", "href"))
    policy = html.all("meta", "content")[-1]
    digest = base64.b64encode(hashlib.sha256(page.SCRIPT.read_bytes()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'"
    ]  # fmt: skip


def test_several_notebooks_make_one_page(tmp_path):
    for name, cells in {"a": ["# One", "## First"], "b": ["# Two", "## Second"]}.items():
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(f"{text}\n\nSaid.") for text in cells])
        nbformat.write(nb, tmp_path / f"{name}.ipynb")
    page.write(tmp_path / "page.html", [tmp_path / "a.ipynb", tmp_path / "b.ipynb"])
    written = (tmp_path / "page.html").read_text()
    check_page(written)
    assert "<title>One</title>" in written
    assert re.findall(r'<li><a href="#[^"]+">(.*?)</a>', written) == ["First", "Second"]
    assert re.findall(r'<li class="part"><a href="#[^"]+">(.*?)</a>', written) == ["Two"]


def test_a_heading_below_which_nothing_is_shown_is_left_out_with_what_it_says(tmp_path):
    picture = nbformat.v4.new_output("display_data", {"text/markdown": "Shown."})
    heading = nbformat.v4.new_output("display_data", {"text/markdown": "### Of nothing"})
    cells = [
        "# Title", "## Text alone\n\nSaid.", "## Empty\n\nof nothing", [], "### Below it\n\nof nothing", [heading],
        "## Some", [], "### None\n\nof nothing", [], "### One\n\nHere:", [picture], "# A part\n\nof nothing",
        "## Of it", [], "# Another", "## Alone",
    ]  # fmt: skip
    new = nbformat.v4
    made = [new.new_markdown_cell(c) if isinstance(c, str) else new.new_code_cell("x", outputs=c) for c in cells]
    nbformat.write(new.new_notebook(cells=made), tmp_path / "a.ipynb")
    page.write(tmp_path / "page.html", [tmp_path / "a.ipynb"])
    written = (tmp_path / "page.html").read_text()
    check_page(written)
    assert re.findall(r'<h\d id="(.*?)"', written) == ["Title", "Text-alone", "Some", "One"]
    assert re.findall(r"<p>(.*?)</p>", written.partition("<footer>")[0]) == ["Said.", "Here:", "Shown."]


def test_tables_have_a_caption_scopes_and_their_groups_as_rows(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", shown.append)
    index = pd.MultiIndex.from_tuples([("G", "a"), ("G", "b"), ("H", "c")])
    frame = pd.DataFrame({"AUC": ["1", "2", "3"], "TPR": ["4", "5", "6"]}, index=index)
    bold = pd.DataFrame({"AUC": ["", "font-weight: bold", ""], "TPR": ""}, index=index)
    page.table(tables.plain(frame.style.apply(lambda _: bold, axis=None)), "A < B")
    made = BeautifulSoup(shown[0].data, "html.parser")
    assert made.table.caption.text == "A < B"
    assert [[cell.text.strip() for cell in row(["th", "td"])] for row in made("tr")] == [
        ["", "AUC", "TPR"], ["G"], ["a", "1", "4"], ["b", "2", "5"], ["H"], ["c", "3", "6"]
    ]  # fmt: skip
    assert [cell["scope"] for cell in made("th")] == ["col"] * 3 + ["rowgroup", "row", "row", "rowgroup", "row"]
    assert [cell.text for cell in made("td") if "bold" in cell.get("style", "")] == ["2"]


def test_of_a_section_that_a_study_lacks_the_page_has_one_line(tmp_path):
    said = nbformat.v4.new_output("display_data", {"text/markdown": "There is none."}, metadata={page.ABSENT: True})
    text = ["# Title", "## A\n\nof A", "## B\n\nof B", "further of B", "### C\n\nof C", "## D\n\nof D"]
    cells = [*map(nbformat.v4.new_markdown_cell, text)]
    cells.insert(3, nbformat.v4.new_code_cell("show()", outputs=[said]))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    page.write(tmp_path / "page.html", [tmp_path / "a.ipynb"])
    written = (tmp_path / "page.html").read_text()
    check_page(written)
    assert re.findall(r'<li><a href="#[^"]+">(.*?)</a>', written) == ["A", "B", "D"]
    assert re.findall(r"<p>(.*?)</p>", written.partition("<footer>")[0]) == ["of A", "There is none.", "of D"]


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10", "tiny", "imagenet"])
def test_what_is_said_of_a_study_follows_from_its_plan(name, monkeypatch):
    plan = load_study(name)
    labels = {"train": range(8000), "heldout": range(2000), "test": range(1000)}
    monkeypatch.setattr(type(plan), "images", lambda self: SimpleNamespace(labels=labels, classes=range(200)))
    text = " ".join(prose.deviations(plan))
    for network in plan.networks.values():
        assert f"{network.label}, {'pretrained weights' if network.weights else 'trained from scratch'}" in text
    assert ("trained in both forms" in text) == ("released" in {arm.form for arm in plan.methods.values()})
    assert ("Class-balanced" in text) == ("cb" in {arm.loss for arm in plan.methods.values()})
    optimisers = {plan.recipe(plan.pairs[0], arm).optimizer for arm in plan.methods} | {
        n.training.optimizer for n in plan.networks.values() if n.training
    }
    for key, words in prose.OPTIMISERS.items():
        assert (f", {words} at a rate of" in text) == (key in optimisers)
    assert "40 training images" in prose.neighbours_note(plan)


def test_a_folded_table_opens_at_a_click(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", shown.append)
    page.table(tables.plain(pd.DataFrame({"a": [1]})), "All & more", folded=True)
    assert shown[0].data.startswith("<details><summary>All &amp; more</summary>")


PAGES = sorted(data.ROOT.glob("results/*/*.html"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_published_report_stands_alone_and_is_small(path):
    check_page(path.read_text())
    assert path.stat().st_size < 8e6
