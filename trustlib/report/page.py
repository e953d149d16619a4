"""From an executed notebook to one HTML file that needs nothing else: `figure`, `table` and `write`.

Pictures are inlined, formulas are MathML, the style is in the page: it opens from disk with no network.
"""

import base64
import html
import io
import math
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import nbformat
from IPython.display import HTML, Markdown, display
from latex2mathml.converter import convert as to_mathml
from matplotlib.figure import Figure
from nbconvert import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pandas.io.formats.style import Styler
from traitlets.config import Config

from ..data import ROOT
from ..runs.store import atomic

PROGRESS = {  # of cells so tagged: what only someone who waits wants to see, and what only the notebook's reader does
    "TagRemovePreprocessor": {
        "enabled": True, "remove_all_outputs_tags": {"progress"}, "remove_cell_tags": {"notebook"}
    }
}  # fmt: skip
QUIET = {
    "KernelManager": {"transport_encryption": "auto"},  # else a kernel warns that what it sends can be read
    "NotebookClient": {"shutdown_kernel": "immediate"},  # else it says that it was interrupted
}
TEMPLATE = Path(__file__).with_name("report.html.j2")
ABSENT = "absent"  # in the metadata of what `absent` shows


def figure(fig: Figure, caption: str, *, alt: str, save: Path | None = None) -> None:
    """Show a figure in a notebook and in the report, as an SVG with its caption and alternative text.

    Parameters
    ----------
    caption : what is drawn and what to look at; Markdown's plain text.
    alt : the same for a reader who cannot see it: what the figure shows, in a sentence.
    save : where to write the SVG too.
    """
    buffer = io.BytesIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(fig)
    if save is not None:
        with atomic(save) as scratch:
            scratch.write_bytes(buffer.getvalue())
    source = base64.b64encode(buffer.getvalue()).decode()
    display(
        HTML(
            f'<figure><img alt="{html.escape(alt)}" src="data:image/svg+xml;base64,{source}">'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
    )


def table(style: Styler, caption: str, *, folded: bool = False) -> None:
    """Show a table with its caption, in a box that scrolls where the page is narrow; a folded one opens at a click."""
    caption, box = html.escape(caption), f'<div class="scroll">{style.to_html()}</div>'
    if folded:
        display(HTML(f'<details><summary>{caption}</summary><figure class="table">{box}</figure></details>'))
    else:
        display(HTML(f'<figure class="table"><figcaption>{caption}</figcaption>{box}</figure>'))


def absent(why: str) -> None:
    """Say in a notebook why its section has nothing to show: the report has this line alone below the heading."""
    display(Markdown(why), metadata={ABSENT: True})


def write(page: Path, notebooks: Sequence[Path]) -> None:
    """Turn executed notebooks into one self-contained HTML file; code cells are left out, their outputs stay.

    But for those of cells with the tag "progress", which only someone who waits wants to see, and for all else in a
    section that is `absent`.

    The first one's title is the page's; headings of the second level are its contents, below the titles of the others.
    """
    exporter = _Exporter(template_name="basic", exclude_input=True, exclude_output_prompt=True, config=Config(PROGRESS))
    read = [_shortened(nbformat.read(path, as_version=4)) for path in notebooks]
    body = "\n".join(exporter.from_notebook_node(notebook)[0] for notebook in read)
    headings = re.findall(r'<h([12]) id="([^"]+)"[^>]*>(.*?)<a class="anchor-link"', body, re.DOTALL)
    title = next((heading for level, _, heading in headings if level == "1"), None)
    contents: list[tuple[str, str, list]] = [("", "", [])]  # a part's id and heading, and those of its sections
    for level, id_, heading in headings:
        if level == "2":
            contents[-1][2].append((id_, heading))
        elif heading != title:
            contents.append((id_, heading, []))
    template = jinja2.Environment(autoescape=False).from_string(TEMPLATE.read_text())
    with atomic(page) as scratch:
        scratch.write_text(
            template.render(title=re.sub("<[^>]+>", "", title) if title else page.stem, contents=contents, body=body)
        )


def _shortened(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Of each section that says it is `absent`, those below it included, the heading and what it says alone."""
    sections: list[list[nbformat.NotebookNode]] = [[]]
    for cell in notebook.cells:
        if _level(cell) < math.inf:
            sections.append([])
        sections[-1].append(cell)
    kept, absent_at = [], math.inf
    for heading, *others in filter(None, sections):
        if _level(heading) > absent_at:
            continue
        said = [cell for cell in others if any(ABSENT in out.get("metadata", {}) for out in cell.get("outputs", []))]
        absent_at = _level(heading) if said else math.inf
        kept += (
            [nbformat.v4.new_markdown_cell(heading.source.partition("\n")[0]), said[0]] if said else [heading, *others]
        )
    return nbformat.from_dict({**notebook, "cells": kept})


def _level(cell: nbformat.NotebookNode) -> float:
    """Of the heading that a cell begins with; infinite where there is none."""
    found = re.match(r"(#+) ", cell.source) if cell.cell_type == "markdown" else None
    return len(found[1]) if found else math.inf


def evaluate(predictions: Path, page: Path, numbers: Path, **parameters) -> None:
    """Run ``notebooks/your_model.ipynb`` on a file of predictions; write its page and its numbers.

    Raises
    ------
    papermill.PapermillExecutionError : with the notebook's own error; nothing is written then.
    """
    import papermill  # here, since a notebook that only draws needs none of it

    os.environ.setdefault("JUPYTER_PREFER_ENV_PATH", "1")  # the kernel of this environment
    given = {"predictions": str(predictions.resolve()), "out": str(numbers.resolve())}
    with tempfile.TemporaryDirectory() as folder:
        executed = Path(folder) / "your_model.ipynb"
        papermill.execute_notebook(
            ROOT / "notebooks" / "your_model.ipynb", executed, parameters | given, kernel_name="python3",
            progress_bar=False, stdout_file=sys.stdout, config=Config(QUIET),
        )  # fmt: skip
        page.parent.mkdir(parents=True, exist_ok=True)
        write(page, [executed])


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


class _Exporter(HTMLExporter):
    """nbconvert's exporter, with `_Markdown` in place of its renderer."""

    @jinja2.pass_context
    def markdown2html(self, context, source: str) -> str:
        return MarkdownWithMath(renderer=_Markdown(escape=False, allow_harmful_protocols=False)).render(source)
