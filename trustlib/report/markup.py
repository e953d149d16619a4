"""Figures as pictures inside a page, and the frame of every page: what needs no notebook."""

import base64
import hashlib
import html
import io
import re
from pathlib import Path
from urllib.parse import quote

import jinja2
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

FONTS = "system-ui, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"  # the page's


def svg(fig: Figure) -> str:
    """A figure as SVG, its text as text in the page's font; the figure is closed."""
    buffer = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none"}):
        fig.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(fig)
    return re.sub("(?:'DejaVu Sans', ?)?'Bitstream Vera Sans'.*?sans-serif", FONTS, buffer.getvalue())


def _webp(png: re.Match) -> str:
    """A picture inside an SVG, base64 PNG, as WebP: a fourth of its size."""
    from PIL import Image  # here, since few figures hold a picture

    content = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png[1]))).convert("RGB").save(content, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def picture(svg: str, alt: str) -> str:
    """An <img> that holds an SVG of matplotlib's; coordinates to a tenth of a point, neither metadata nor comments."""
    svg = re.sub(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)", _webp, svg)
    svg = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' d="[^"]*"', lambda path: re.sub(r"\d+\.\d{2,}", lambda n: f"{float(n[0]):.1f}", path[0]), svg)
    one_line = " ".join(svg.replace("'", "&#39;").replace('"', "'").split())
    address = quote(one_line, safe=" <>=/:;'(),")
    return f'<img alt="{html.escape(alt)}" src="data:image/svg+xml,{address}">'


def page(template: Path, script: str, **filled) -> str:
    """A template with what fills it and a script, whose SHA-256 its policy of content names: no other one runs.

    A template may extend or include those of this folder.
    """
    folders = [template.parent, Path(__file__).parent]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = jinja2.Environment(autoescape=False, loader=jinja2.FileSystemLoader(folders))
    return environment.get_template(template.name).render(script=script, digest=f"sha256-{digest}", **filled)
