"""The page that a reader opens: it needs nothing but itself, and a study's words are no markup."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from conftest import TINY
from test_report import compared

from trustlib import data
from trustlib.report import page, study_tables, tables
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
    page.table(tables.plain(pd.DataFrame({"AUROC": [1.0]}, index=["<b>x</b>"])), "A table.")
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
    rows = study_tables.by_classifier(compared(), study)
    for form in (study_tables.every_score(rows), tables.plain(rows)):
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


def test_a_page_of_a_study_leads_to_the_index_and_to_its_tables_and_no_other_page_does(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path / "results"))
    folder = tmp_path / "results" / "runs" / "a"
    (folder / "tables").mkdir(parents=True)
    for path, text in (("tables/rows.csv", "a\n1\n"), ("tables/empty.csv", "a\n"), ("../../index.html", "")):
        (folder / path).write_text(text)
    (tmp_path / "mine.csv").write_text("a\n1\n")
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# T\n\nText.")])
    nbformat.write(nb, tmp_path / "a.ipynb")
    for place, expected in ((folder, ["../../index.html", "tables/rows.csv"]), (tmp_path, [])):
        page.write(place / "page.html", [tmp_path / "a.ipynb"])
        links = Page((place / "page.html").read_text()).all("a", "href")
        assert [link for link in links if not link.startswith(("#", "https://"))] == expected


def test_tables_have_a_caption_scopes_and_their_groups_as_rows(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", shown.append)
    index = pd.MultiIndex.from_tuples([("G", "a"), ("G", "b"), ("H", "c")])
    frame = pd.DataFrame({"AUROC": ["1", "2", "3"], "TPR": ["4", "5", "6"]}, index=index)
    bold = pd.DataFrame({"AUROC": ["", "font-weight: bold", ""], "TPR": ""}, index=index)
    page.table(tables.plain(frame.style.apply(lambda _: bold, axis=None)), "A < B")
    made = BeautifulSoup(shown[0].data, "html.parser")
    assert made.table.caption.text == "A < B"
    assert [[cell.text.strip() for cell in row(["th", "td"])] for row in made("tr")] == [
        ["", "AUROC", "TPR"], ["G"], ["a", "1", "4"], ["b", "2", "5"], ["H"], ["c", "3", "6"]
    ]  # fmt: skip
    assert [cell["scope"] for cell in made("th")] == ["col"] * 3 + ["rowgroup", "row", "row", "rowgroup", "row"]
    assert [cell.text for cell in made("td") if "bold" in cell.get("style", "")] == ["2"]


def test_text_of_a_figure_is_text_and_cells_for_the_notebook_are_not_on_the_page(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", shown.append)
    fig, ax = plt.subplots()
    ax.set_title("Said")
    page.figure(fig, "c", alt="a", save=tmp_path / "f.svg", folded=True)
    svg = (tmp_path / "f.svg").read_text()
    assert ">Said</text>" in svg
    assert "DejaVu" not in svg
    assert shown[0].data.startswith("<details><summary>c</summary>")
    cells = [nbformat.v4.new_markdown_cell("# Here", metadata={"tags": ["notebook"]})]
    cells.append(nbformat.v4.new_markdown_cell("# Title\n\nSaid."))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    page.write(tmp_path / "page.html", [tmp_path / "a.ipynb"])
    written = (tmp_path / "page.html").read_text()
    assert "<title>Title</title>" in written
    assert "Here" not in written.partition("<footer>")[0].partition("<main")[2]


def test_a_folded_table_opens_at_a_click(monkeypatch):
    shown = []
    monkeypatch.setattr(page, "display", shown.append)
    page.table(tables.plain(pd.DataFrame({"a": [1]})), "All & more", folded=True)
    assert shown[0].data.startswith("<details><summary>All &amp; more</summary>")


PAGES = sorted(data.ROOT.glob("results/*/*.html"))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_published_report_stands_alone_and_is_small(path):
    check_page(path.read_text())
    limit = 1.5e6 if (path.parent / "scores.npz").exists() else 8e6
    assert path.stat().st_size < limit
