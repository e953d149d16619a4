"""A report in a real browser, without a network: what a person sees.

One that is made here, and the published ones. Needs a chromium, such as Debian's; without one they are skipped.
"""

import io
import shutil

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright
from test_report import html_of

from trustlib.data import ROOT
from trustlib.report import page, tables

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not CHROMIUM, reason="there is no chromium")]
REPORTS = sorted(ROOT.glob("results/*/*.html"))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A page of eight parts, each with a wide table and a figure."""
    folder, shown = tmp_path_factory.mktemp("made"), []
    wide = pd.DataFrame({f"column {i} ↑": ["12.34 [11.11, 13.57]"] * 5 for i in range(14)}, index=list("abcde"))
    cells = [nbformat.v4.new_markdown_cell("# A title of some length\n\nA question.")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "display", shown.append)
        for part in range(8):
            fig, ax = plt.subplots()
            ax.plot([0, 1], [1, 0])
            page.table(tables.plain(wide), "A wide table.")
            page.figure(fig, "A line.", alt="A falling line.")
            outputs = [html_of(output) for output in shown]
            cells.append(nbformat.v4.new_markdown_cell(f"## Part {part}\n\nWhat it says, $e^{{-z}}$."))
            cells.append(nbformat.v4.new_code_cell("x", outputs=outputs))
            shown.clear()
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "made.ipynb")
    page.write(folder / "report.html", [folder / "made.ipynb"])
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(
    params=["made", *REPORTS], ids=lambda path: path if path == "made" else f"{path.parent.name}/{path.stem}"
)
def opened(browser, made, request):
    """A report's page; whatever it asks for, and whatever it complains of, is an error."""
    context = browser.new_context(offline=True, reduced_motion="reduce")
    page, complaints = context.new_page(), []
    address = (made if request.param == "made" else request.param).as_uri()
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


def test_every_picture_is_drawn_and_says_what_it_shows(opened):
    pictures = opened.eval_on_selector_all("img", "all => all.map(i => [i.complete && i.naturalWidth, i.alt.trim()])")
    assert pictures
    assert all(width and text for width, text in pictures)


def test_every_link_of_the_contents_lands(opened):
    links = opened.locator("nav a")
    assert links.count() >= 5
    for link in links.all():
        link.click()
        name = link.get_attribute("href").removeprefix("#")
        top = opened.evaluate("name => document.getElementById(name).getBoundingClientRect().top", name)
        below = opened.evaluate("document.documentElement.scrollHeight - window.scrollY - window.innerHeight")
        assert -1 <= top <= 60 or below < 2, name  # at the top, unless the page ends before


def test_the_contents_can_be_walked_by_keyboard(opened):
    opened.keyboard.press("Tab")
    first = opened.evaluate("document.activeElement.getAttribute('href')")
    assert first == opened.locator("nav a").first.get_attribute("href")
    assert opened.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    opened.keyboard.press("Enter")
    assert opened.evaluate("location.hash") == first


def test_a_narrow_window_scrolls_tables_not_the_page(opened):
    opened.set_viewport_size({"width": 400, "height": 800})
    assert opened.evaluate("document.documentElement.scrollWidth") <= 400
    box = "t.closest('.scroll, .output_html').clientWidth"
    wide = f"all => all.filter(t => t.offsetParent && t.scrollWidth > {box}).length"
    assert opened.eval_on_selector_all("table.data", wide) > 0  # these are read by scrolling their own box
    sizes = opened.eval_on_selector_all(
        "td, p, figcaption", "all => all.map(e => parseFloat(getComputedStyle(e).fontSize))"
    )
    assert min(sizes) >= 11


def test_the_printed_page_keeps_all_columns(opened):
    opened.emulate_media(media="print")
    opened.set_viewport_size({"width": 700, "height": 1000})  # A4 less its margins
    over = "all => all.filter(t => t.offsetParent && t.getBoundingClientRect().right > 701).length"
    assert opened.eval_on_selector_all("table.data", over) == 0
    assert not opened.locator("nav").is_visible()
    assert opened.pdf(format="A4").startswith(b"%PDF")


def test_its_main_parts_are_not_blank(opened):
    for part in ("h1", "figure.table >> nth=0", "figure:not(.table) >> nth=0"):
        picture = Image.open(io.BytesIO(opened.locator(part).first.screenshot())).convert("L")
        ink = (np.asarray(picture) < 128).mean()
        assert 0.002 < ink < 0.5, part
