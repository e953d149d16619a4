"""From an executed notebook to one HTML file that needs nothing else: `figure`, `table` and `write`.

Pictures are inlined, formulas are MathML, style and script are in the page: it opens from disk with no network.
"""

import html
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
from bs4 import BeautifulSoup
from IPython.display import HTML, display
from latex2mathml.converter import convert as to_mathml
from matplotlib.figure import Figure
from nbconvert.filters.ansi import strip_ansi
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pandas.io.formats.style import Styler

from ..runs import store
from ..runs.store import atomic
from . import markup

TEMPLATE = Path(__file__).with_name("report.html.j2")
SCRIPT = Path(__file__).with_name("report.js")
HEADING = re.compile(r'<h([1-6]) id="([^"]+)">(.*?)<a class="anchor-link".*?</h\1>\s*', re.DOTALL)


def figure(
    fig: Figure, caption: str, *, alt: str, save: Path | None = None, wide: bool = False, folded: bool = False
) -> None:
    """Show a figure in a notebook and in the report, as an SVG with its caption and alternative text.

    Parameters
    ----------
    caption : what is drawn and what to look at; Markdown's plain text.
    alt : the same for a reader who cannot see it: what the figure shows, in a sentence.
    save : where to write the SVG too.
    wide : whether it takes the page's whole width, such as the one figure that a page is about.
    folded : whether it opens at a click.
    """
    drawing(markup.svg(fig), caption, alt=alt, save=save, wide=wide, folded=folded)


def drawing(
    svg: str, caption: str, *, alt: str, save: Path | None = None, wide: bool = False, folded: bool = False
) -> None:
    """Show an SVG as `figure` shows what matplotlib draws."""
    if save is not None:
        with atomic(save) as scratch:
            scratch.write_text(svg)
    kind, caption, shown = ' class="wide"' if wide else "", html.escape(caption), markup.picture(svg, alt)
    if folded:
        display(HTML(f"<details><summary>{caption}</summary><figure{kind}>{shown}</figure></details>"))
    else:
        display(HTML(f"<figure{kind}>{shown}<figcaption>{caption}</figcaption></figure>"))


def table(style: Styler, caption: str, *, folded: bool = False) -> None:
    """Show a table with its caption, in a box that scrolls where the page is narrow; a folded one opens at a click."""
    caption = html.escape(caption)
    made = _plain(style.to_html(), caption, "unseen" if folded else "")
    box = f'<div class="scroll" tabindex="0" role="region" aria-label="{caption}">{made}</div>'
    box = f'<figure class="table">{box}</figure>'
    display(HTML(f"<details><summary>{caption}</summary>{box}</details>" if folded else box))


def _plain(made: str, caption: str, kind: str) -> str:
    """A Styler's table without an id and classes for every cell: with scopes, a caption, and styles where they apply.

    The first level of an index of several is a row of its own, above those that it is of.
    """
    soup = BeautifulSoup(made, "html.parser")
    table, rules = soup.table, soup.style.string if soup.style else ""
    for selectors, properties in re.findall(r"([^{}]+)\{([^{}]*)\}", rules):
        for cell in soup.select(selectors):
            cell["style"] = f"{cell.get('style', '')} {' '.join(properties.split())}".strip()
    if table.select("tbody th.level1"):
        for row in table.thead("tr"):
            row.th.extract()
        width = len(table.thead("tr")[-1]("th"))
        for first in table.select("tbody th.level0"):
            group = soup.new_tag("tr", attrs={"class": "group"})
            first.parent.insert_before(group)
            group.append(first.extract())
            first.attrs = {"colspan": str(width), "scope": "rowgroup"}
    for cell in table(("td", "th")):
        for attribute in ("id", "class", "rowspan"):
            del cell[attribute]
        if cell.name == "th" and not cell.get("scope"):
            cell["scope"] = "col" if cell.find_parent("thead") else "row"
    title = f'<caption class="{kind}"><span>{caption}</span></caption>'
    table.insert(0, BeautifulSoup(title, "html.parser"))
    return re.sub(r"\s*\n\s*", "\n", str(table))


def write(page: Path, notebooks: Sequence[Path]) -> None:
    """Turn executed notebooks into one self-contained HTML file; code cells are left out, their outputs stay.

    But for those of cells with the tag "progress", which only someone who waits wants to see, and for cells with the
    tag "notebook", which say to the reader of a notebook what the page shows by itself. A heading is left out
    with all below it where there are code cells below it and none of them shows anything.

    The first one's title is the page's; the titles of the others, and headings of the second level, are its contents.
    """
    read = [nbformat.read(path, as_version=4) for path in notebooks]
    sections = [""]
    for part in _shown([_part(cell) for notebook in read for cell in notebook.cells]):
        if part.level <= 2:
            sections.append("")
        sections[-1] += part.html
    body = "\n".join(f"<section>\n{section}</section>" for section in sections if section)
    title = re.search(r'<h1 id="[^"]+">(.*?)<a class="anchor-link"', body, re.DOTALL)
    start = title.end() if title else 0
    body = body[:start] + re.sub("<h1 (.*?)</h1>", r'<h2 class="part" \1</h2>', body[start:], flags=re.DOTALL)
    contents = re.findall(r'<h2( class="part")? id="([^"]+)">(.*?)<a class="anchor-link"', body, re.DOTALL)
    text = markup.page(
        TEMPLATE, SCRIPT.read_text(), title=re.sub("<[^>]+>", "", title[1]) if title else page.stem, body=body,
        contents=contents, **_around(page.parent),
    )  # fmt: skip
    with atomic(page) as scratch:
        scratch.write_text(text)


def _around(folder: Path) -> dict[str, Any]:
    """What a page of results/<study>/ or results/runs/<study>/ has around it, relative to it; nothing for any other.

    index : the site's first page, empty where there is none. files : tables that have rows, of a run that made none
    those that its study published.
    """
    home, folder = store.results().resolve(), folder.resolve()
    up = {home: "..", home / "runs": "../.."}.get(folder.parent)
    if not up:
        return {"index": "", "files": []}
    index = f"{up}/index.html" if (home / "index.html").exists() else ""
    for place in (folder, home / folder.name):
        paths = [path for path in (*place.glob("*.csv"), *place.glob("tables/*.csv")) if path.is_file()]
        files = [str(path.relative_to(place)) for path in sorted(paths) if len(path.read_text().splitlines()) > 1]
        if files:
            return {"index": index, "files": files}
    return {"index": index, "files": []}


class _Part(NamedTuple):
    """One cell as HTML."""

    html: str
    level: float  # of the heading that it begins with; infinite where there is none
    is_code: bool
    has_more: bool  # than a heading


def _part(cell: nbformat.NotebookNode) -> _Part:
    text, tags = "", cell.metadata.get("tags", [])
    if "notebook" in tags:
        return _Part("", math.inf, False, False)
    if cell.cell_type == "markdown":
        text = markdown(cell.source)
    elif cell.cell_type == "code" and "progress" not in tags:
        text = "".join(map(_shown_output, cell.outputs))
    heading = HEADING.match(text)
    level = int(heading[1]) if heading else math.inf
    return _Part(text, level, cell.cell_type == "code", bool(HEADING.sub("", text).strip()))


def _shown_output(output: nbformat.NotebookNode) -> str:
    """An output of a cell as HTML: the richest form of it that there is."""
    if output.output_type == "stream":
        return f"<pre>{html.escape(strip_ansi(output.text))}</pre>\n"
    if output.output_type == "error":
        return f"<pre>{html.escape(strip_ansi(chr(10).join(output.traceback)))}</pre>\n"
    data = output.data
    if "text/html" in data:
        text = data["text/html"]
        is_bare = "<table" in text and "<figure" not in text  # a frame that was shown without `table`
        return f'<div class="scroll" tabindex="0">{text}</div>\n' if is_bare else f"{text}\n"
    if "text/markdown" in data:
        return markdown(data["text/markdown"])
    if "image/png" in data:
        return f'<figure><img alt="" src="data:image/png;base64,{data["image/png"].strip()}"></figure>\n'
    return f"<pre>{html.escape(data.get('text/plain', ''))}</pre>\n"


def _shown(parts: Sequence[_Part]) -> list[_Part]:
    """Without headings, but for the title, below which nothing is shown, and without all that is below them."""
    kept, hidden_at = [], math.inf
    for i, part in enumerate(parts):
        if part.level > hidden_at:
            continue
        end = next((j for j in range(i + 1, len(parts)) if parts[j].level <= part.level), len(parts))
        below = parts[i:end]
        code = [other for other in below if other.is_code]
        is_empty = not any(other.has_more for other in code or below)
        hidden_at = part.level if is_empty and i else math.inf
        if hidden_at == math.inf:
            kept.append(part)
    return kept


def markdown(source: str) -> str:
    """Markdown as HTML: formulas as MathML, markup as text."""
    return MarkdownWithMath(renderer=_Markdown(escape=False, allow_harmful_protocols=False)).render(source)


class _Markdown(IPythonRenderer):
    """Formulas as MathML, which browsers draw by themselves; markup and pictures as text: they may be your own."""

    def inline_math(self, body: str) -> str:
        return to_mathml(_without_tags(body))

    def block_math(self, body: str) -> str:
        return to_mathml(_without_tags(body), display="block")

    def inline_html(self, html: str) -> str:
        return self.text(html)

    def block_html(self, html: str) -> str:
        return self.paragraph(self.text(html))

    def block_mermaidjs(self, code: str) -> str:
        return self.block_code(code)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        return text


def _without_tags(formula: str) -> str:
    return formula.replace("<", r"\lt ").replace(">", r"\gt ")
