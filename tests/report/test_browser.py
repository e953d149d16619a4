"""A report in a real browser, without a network: what a person sees, and what the page's script does.

One that is made here, and the published ones. Needs a chromium, such as Debian's; without one they are skipped.
"""

import io
import json
import shutil

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from conftest import TINY
from PIL import Image
from playwright.sync_api import sync_playwright
from test_page import html_of

import trustlib
from trustlib import metrics
from trustlib.analysis import rules
from trustlib.data import ROOT
from trustlib.predictions import Predictions
from trustlib.report import page, study_tables, tables
from trustlib.report.thresholds import curves, explorer
from trustlib.runs.results import Published
from trustlib.study import load_study

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")]
PUBLISHED = [*sorted(ROOT.glob("results/*/*.html")), ROOT / "results" / "index.html"]
N = 397


class Results:
    """One pair: MCP, and an oracle that ranks worse."""

    def __init__(self, study):
        rng = np.random.default_rng(0)
        self.study = study
        self.correct = rng.random(N) < 0.8
        self.z = self.correct + rng.normal(size=N)
        mcp = 1 / (1 + np.exp(-2 * self.correct - rng.normal(size=N)))
        self.found = Predictions(self.correct, {"mcp": mcp[None], "ss": self.z[None]}, {"mcp": 0.5, "ss": 0.0})

    def predictions(self, pair, split="test"):
        return self.found if pair == self.study.pairs[0] else None


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    path = tmp_path_factory.mktemp("study") / "tiny.yaml"
    path.write_text(json.dumps(TINY))
    return Results(load_study(str(path)))


@pytest.fixture(scope="module")
def made(tmp_path_factory, results):
    """A page with an explorer, two tables of claims, and six sections with a wide table and a figure each."""
    folder, shown = tmp_path_factory.mktemp("made"), []
    wide = pd.DataFrame({f"column {i} ↑": ["12.34 [11.11, 13.57]"] * 5 for i in range(14)}, index=list("abcde"))
    groups = pd.MultiIndex.from_tuples([("G", "a"), ("G", "b"), ("H", "c"), ("H", "d")])
    ranked = pd.DataFrame({"AUROC": ["9.5 [9, 10]", "80.1 [79, 81]", "–", "−3.0 [−4, −2]"]}, index=groups)
    columns = ["id", "asked_by", "claim", "where", "quantity"]
    claims = pd.DataFrame([claim.model_dump() for claim in rules.load()])[columns].groupby("asked_by").head(3)
    claims = claims.assign(found="1.0 [0.5, 1.5]", section="Part-1", verdict=[*rules.VERDICTS, rules.MIXED])
    cells = [nbformat.v4.new_markdown_cell("# A title of some length\n\nA question.")]

    def section(text, *calls):
        for call in calls:
            call()
        cells.append(nbformat.v4.new_markdown_cell(text))
        cells.append(nbformat.v4.new_code_cell("x", outputs=[html_of(output) for output in shown]))
        shown.clear()

    def line():
        fig, ax = plt.subplots()
        ax.plot([0, 1], [1, 0])
        page.figure(fig, "A line.", alt="A falling line.")

    def show_claims():
        for asked_by, rows in claims.groupby("asked_by"):
            page.table(study_tables.claims_form(rows, []), f"Asked by {asked_by}.", folded=asked_by == "study")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "display", shown.append)
        patch.setattr("IPython.display.display", shown.append)
        section("## Claims", show_claims)
        section("## Explorer", lambda: explorer(results), lambda: page.table(tables.plain(ranked), "Ranked."))
        for part in range(6):
            words = f"## Part {part}\n\nWhat it says, $e^{{-z}}$."
            section(words, lambda: page.table(tables.plain(wide), "A wide table."), line)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "made.ipynb")
    page.write(folder / "report.html", [folder / "made.ipynb"])
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def _opened(browser, path, **how):
    """A page; whatever it asks for, and whatever it complains of, is an error."""
    context = browser.new_context(offline=True, reduced_motion="reduce", **how)
    page, complaints = context.new_page(), []
    address = path.as_uri()
    page.on(
        "request",
        lambda r: None if r.url.split("#")[0] == address or r.url.startswith("data:") else complaints.append(r.url),
    )
    page.on(
        "console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None
    )
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.wait_for_load_state("load")
    yield page
    assert complaints == []
    context.close()


@pytest.fixture(scope="module")
def tool(tmp_path_factory):
    """The page of `trustlib evaluate`, of the example."""
    page = tmp_path_factory.mktemp("tool") / "page.html"
    trustlib.evaluate(ROOT / "data" / "example" / "predictions.csv", resamples=20).to_html(page)
    return page


@pytest.fixture(
    params=["made", "tool", *PUBLISHED],
    ids=lambda path: path if isinstance(path, str) else f"{path.parent.name}/{path.stem}",
)
def opened(browser, made, tool, request):
    yield from _opened(browser, {"made": made, "tool": tool}.get(request.param, request.param))


@pytest.fixture
def shown(browser, made):
    yield from _opened(browser, made)


@pytest.fixture
def scriptless(browser, made):
    yield from _opened(browser, made, java_script_enabled=False)


def test_every_picture_is_drawn_and_says_what_it_shows(opened):
    pictures = opened.eval_on_selector_all("img", "all => all.map(i => [i.complete && i.naturalWidth, i.alt.trim()])")
    assert pictures
    assert all(width and text for width, text in pictures)


def test_a_narrow_window_scrolls_tables_not_the_page(opened):
    opened.set_viewport_size({"width": 390, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 390
    sizes = opened.eval_on_selector_all(
        "td, p, figcaption", "all => all.map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 11


def test_a_dark_page_is_dark_and_its_pictures_lie_on_white(opened):
    opened.emulate_media(color_scheme="dark")
    colour = "e => getComputedStyle(e).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"
    assert max(opened.eval_on_selector("body", colour)) < 60
    assert opened.eval_on_selector("main img", colour) == [255, 255, 255]


def test_the_printed_page_keeps_all_columns(opened):
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": 700, "height": 1000})  # A4 less its margins
    over = "all => all.filter(t => t.offsetParent && t.getBoundingClientRect().right > 701).length"
    assert opened.eval_on_selector_all("table", over) == 0
    assert not opened.locator("nav, .explorer, .controls").locator("visible=true").count()
    assert opened.pdf(format="A4").startswith(b"%PDF")


def test_its_main_parts_are_not_blank(opened):
    for part in ("h1", "table >> visible=true >> nth=0", "img >> visible=true >> nth=0"):
        picture = Image.open(io.BytesIO(opened.locator(part).first.screenshot())).convert("L")
        ink = (np.asarray(picture) < 128).mean()
        assert 0.002 < ink < 0.5, part


def test_every_link_of_the_contents_lands_and_is_marked(shown):
    for link in shown.locator("nav li a").all():
        link.click()
        name = link.get_attribute("href").removeprefix("#")
        top = shown.evaluate("name => document.getElementById(name).getBoundingClientRect().top", name)
        below = shown.evaluate("document.documentElement.scrollHeight - window.scrollY - window.innerHeight")
        assert -1 <= top <= 60 or below < 2, name  # at the top, unless the page ends before
        if below >= 2:
            shown.wait_for_function("name => document.querySelector('[aria-current]').hash === '#' + name", arg=name)


def test_the_keyboard_skips_the_contents_or_walks_them(shown):
    shown.keyboard.press("Tab")
    assert shown.evaluate("document.activeElement.getAttribute('href')") == "#main"
    shown.keyboard.press("Tab")
    first = shown.evaluate("document.activeElement.getAttribute('href')")
    assert first == shown.locator("nav a").first.get_attribute("href")
    assert shown.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    shown.keyboard.press("Enter")
    assert shown.evaluate("location.hash") == first


def test_on_a_narrow_page_the_contents_open_at_a_click_and_claims_begin_with_the_verdict(scriptless):
    scriptless.set_viewport_size({"width": 390, "height": 800})
    assert not scriptless.locator("nav ol").is_visible()
    scriptless.locator("nav summary").click()
    assert scriptless.locator("nav ol").is_visible()
    row = scriptless.locator(".claims tbody tr").first
    assert row.locator(".verdict").bounding_box()["y"] < row.locator("td").first.bounding_box()["y"]


def test_without_scripts_all_is_there_but_the_explorer(scriptless):
    assert not scriptless.locator(".explorer, .controls").locator("visible=true").count()
    assert scriptless.locator(".claims tr").count() == 8
    assert scriptless.locator("img").count() == 6


def read(explorer):
    cells = explorer.locator("tbody tr").evaluate_all("rows => rows.map(r => [...r.cells].map(c => c.textContent))")
    return {name: values for name, *values in cells}


def test_the_explorer_says_what_a_threshold_does(shown, results):
    explorer, correct = shown.locator(".explorer"), results.correct
    assert explorer.locator("select").last.input_value() == "SS"  # the paper's loss, at z = 0
    trusted = results.z > 0
    said = read(explorer)
    assert said["coverage"][0] == f"{100 * trusted.mean():.1f} %"
    assert said["TPR"][0] == f"{100 * trusted[correct].mean():.1f} %"
    assert said["TNR"][0] == f"{100 * (~trusted)[~correct].mean():.1f} %"
    assert said["risk"][0] == f"{100 * (~correct)[trusted].mean():.1f} %"
    assert said["errors among them"][0] == str((trusted & ~correct).sum())
    slider = explorer.get_by_label("threshold", exact=True)
    slider.focus()
    dot = explorer.locator("circle.here")
    before = float(dot.get_attribute("cx"))
    for _ in range(60):
        slider.press("ArrowLeft")
    assert float(dot.get_attribute("cx")) < before
    said = read(explorer)
    kept = int(said["trusted"][0])
    for column, name in enumerate(("ss", "mcp")):  # at one coverage, exact
        coverage, risk = metrics.risk_coverage(results.found.confidence[name][0], correct)
        assert said["trusted"][column] == str(kept)
        assert said["risk"][column] == f"{100 * risk[np.isclose(coverage, kept / N)][0]:.1f} %"
    explorer.get_by_text("its own threshold").click()
    assert float(dot.get_attribute("cx")) == before


def test_an_acceptable_risk_leads_to_the_largest_coverage_that_keeps_to_it(browser, tool):
    table = pd.read_csv(ROOT / "data" / "example" / "predictions.csv")
    correct = table["correct"].to_numpy(bool)
    for shown in _opened(browser, tool):
        explorer = shown.locator(".explorer")
        explorer.locator("input[aria-label='acceptable risk']").fill("70")
        coverage, risk = metrics.risk_coverage(table["max_probability"].to_numpy(), correct)
        limit = 0.7**2 * (1 - correct.mean())
        said = read(explorer)
        assert abs(float(said["coverage"][0].split()[0]) / 100 - coverage[risk <= limit].max()) < 0.006  # 200 points
        assert float(said["risk"][0].split()[0]) / 100 <= limit + 0.0005
        assert len(said["risk"]) == 1  # the first confidence is not compared with itself


def test_a_curve_is_named_below_the_pointer_and_chosen_by_a_click(shown):
    explorer = shown.locator(".explorer")
    explorer.locator("select").last.select_option("MCP")
    explorer.scroll_into_view_if_needed()
    box = explorer.locator("svg").bounding_box()
    far = {"x": box["x"] + 0.97 * box["width"], "y": box["y"] + 0.88 * box["height"]}
    shown.mouse.move(far["x"], far["y"])
    assert explorer.locator("svg").get_by_text("MCP: risk").count() == 0
    dot = explorer.locator("circle.here").bounding_box()
    shown.mouse.move(dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
    assert explorer.locator("svg").get_by_text("MCP: risk").count() == 1
    before = read(explorer)["coverage"][0]
    shown.mouse.down()
    shown.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    shown.mouse.up()
    assert read(explorer)["coverage"][0] != before
    legend = explorer.locator("button[aria-pressed]").get_by_text("SS", exact=True)
    lines = explorer.locator("svg path").count()
    legend.click()
    assert explorer.locator("svg path").count() == lines - 1


def test_a_table_is_sorted_by_a_column_and_put_back(shown):
    table = shown.locator("table", has_text="Ranked.")
    names = "rows => rows.filter(r => r.checkVisibility()).map(r => r.cells[0].textContent)"
    rows = table.locator("tbody tr")
    assert rows.evaluate_all(names) == list("GabHcd")
    button = table.get_by_role("button", name="AUROC")
    for order, expected in (("descending", "badc"), ("ascending", "dabc"), (None, "GabHcd")):
        button.click()
        assert table.locator("th", has_text="AUROC").get_attribute("aria-sort") == order
        assert rows.evaluate_all(names) == list(expected)


def test_claims_are_filtered_by_verdict_and_by_who_asks(shown):
    shown.locator("summary", has_text="Asked by study").click()
    rows, controls = (
        shown.locator(".claims tbody tr").locator("visible=true"),
        shown.locator("[aria-label='Show claims']"),
    )
    assert rows.count() == 6
    controls.get_by_text("mixed (2)").click()
    assert rows.count() == 4
    assert controls.locator("output").text_content() == "4 of 6 shown"
    controls.get_by_text("asked by the paper (3)").click()
    assert rows.count() == 2
    controls.get_by_text("mixed (2)").click()
    assert rows.count() == 3


def test_a_link_to_a_folded_claim_opens_what_it_lies_in(browser, made):
    asked = next(claim.id for claim in rules.load() if claim.asked_by == "study")
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.goto(f"{made.as_uri()}#claim-{asked}")
    assert page.locator(f"#claim-{asked}").is_visible()
    context.close()


@pytest.mark.parametrize("name", ["fashion", "tiny"])  # two pairs of many methods, and four
def test_the_explorer_of_a_published_study_is_small(name):
    assert len(json.dumps(curves(Published(load_study(name))), separators=(",", ":"))) < 150_000
