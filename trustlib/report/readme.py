"""The README's figure and tables, and results/index.html, from the committed results: `make readme`."""

from pathlib import Path

import jinja2
import matplotlib.pyplot as plt
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from ..analysis import rules
from ..data import ROOT
from ..study import Study, load_study
from . import figures, tables

RESULTS, TEMPLATE = ROOT / "results", Path(__file__).with_name("index.html.j2")
START, END = "<!-- results: make readme -->", "<!-- end of results -->"
STUDIES = ("fashion", "colour", "mnist", "cifar10", "tiny")
STEPS = {"mnist": 1_263, "cifar10": 15, "tiny": 200}  # of fine-tuning, where no ladder is published
CLAIMS = (
    "tnr", "tpr", "overfitting", "collapse-ce", "chance", "auc", "selective-risk", "mcp-unreliable", "aupr-error-sign",
)  # fmt: skip
CARDS = {  # page below results/ -> title, what it holds
    "fashion/report.html": ("Fashion-MNIST", "The main study: two small networks, five losses, trained oracles."),
    "budget/report.html": ("How long must an oracle train?", "A ladder of budgets and learning rates, Fashion-MNIST."),
    "ablations/report.html": ("Ablations", "Labels, head, slopes, class weights, the broadcast; Fashion-MNIST."),
    "colour/report.html": ("CIFAR-10, small networks", "What needs colour, such as the recolouring attack."),
    "mnist/report.html": ("MNIST, Table 2", "After ConfidNet's protocol."),
    "cifar10/report.html": ("CIFAR-10, Table 2", "After ConfidNet's protocol, VGG16; cut below it."),
    "tiny/report.html": ("Tiny-ImageNet", "Pretrained EfficientNets, 200 classes; cut below the paper's protocol."),
    "speed/report.html": ("Times", "Training steps and data loading on a CPU."),
    "speed/gpu.html": ("Times on a GPU", "Training steps next to the released way and to timm's."),
}
SYMBOLS = {"reproduced": "✓", "mixed": "~", "contradicted": "✗", "inconclusive": "?", "not tested": "–"}
MARKS = {  # method -> (label, colour, marker, filled)
    "ensemble": ("Deep ensemble", "0.1", "D", True),
    "tcp+mcp": ("Oracle (TCP) combined with MCP", figures.COLOURS["tcp"], "^", True),
    "linear_ce": ("Linear probe (CE)", "#56B4E9", "s", False),
    "tcp": ("Oracle: TCP", figures.COLOURS["tcp"], "o", True),
    "ss": ("Oracle: steep slope", figures.COLOURS["ss"], "o", True),
    "cb": ("Oracle: class-balanced CE", figures.COLOURS["cb"], "o", True),
    "ce": ("Oracle: CE", figures.COLOURS["ce"], "o", True),
    "ce-released": ("Oracle: CE as in the released code, one epoch", figures.COLOURS["ce"], "o", False),
}
INTERVAL = ["estimate", "low", "high"]
DIFFERENCE = ["difference", "difference_low", "difference_high"]


def write(root: Path = ROOT) -> None:
    """Write docs/hero.svg, the tables between the README's two markers, and results/index.html."""
    rows = [row for name in STUDIES for row in published(name)]
    figure, readme = root / "docs" / "hero.svg", root / "README.md"
    with plt.style.context(figures.STYLE):
        fig, ax = plt.subplots(figsize=(8.2, 0.85 + 0.72 * len(rows)))
        hero(ax, rows)
        fig.savefig(figure, metadata={"Date": None})
        plt.close(fig)
    before, _, rest = readme.read_text().partition(START)
    readme.write_text(f"{before}{START}\n{results_block(rows)}{END}{rest.partition(END)[2]}")
    (root / "results" / "index.html").write_text(index(figure.read_text()))


def published(name: str) -> list[dict]:
    """One row per classifier of a published study, judged by oracles of its own kind.

    Returns
    -------
    Dicts: study, label (data, network, accuracy), steps (of fine-tuning), trained (whether a ladder of budgets shows
    that the oracles are), auroc: method -> (estimate, low, high), and difference: the same minus MCP's, per cent.
    """
    study, folder = load_study(name), RESULTS / name / "tables"
    compared = pd.read_csv(folder / "comparisons.csv").set_index(["pair", "metric", "arm"])
    fused = _table(folder / "fusion.csv")
    pairs = [pair for pair in study.pairs if len(set(study.pair(pair))) == 1]
    return [_row(study, pair, compared.loc[pair], fused, _table(folder / "budget.csv")) for pair in pairs]


def _row(study: Study, pair: str, compared: pd.DataFrame, fused: pd.DataFrame, ladder: pd.DataFrame) -> dict:
    area = compared.loc["auroc"] * 100
    auroc = {arm: tuple(row) for arm, row in area[INTERVAL].iterrows()}
    difference = {arm: tuple(row) for arm, row in area[DIFFERENCE].dropna().iterrows()}
    combined = fused[(fused["pair"] == pair) & (fused["arm"] == "tcp")] if len(fused) else fused
    for row in combined.itertuples():
        auroc["tcp+mcp"] = (100 * row.auroc, 100 * row.low, 100 * row.high)
        difference["tcp+mcp"] = (100 * row.difference, 100 * row.difference_low, 100 * row.difference_high)
    accuracy = 100 * compared.loc[("accuracy", "mcp"), "estimate"]
    trained = len(ladder) > 0
    steps = ladder[(ladder["pair"] == pair) & (ladder["arm"] == "ce")]["steps"].max() if trained else STEPS[study.name]
    network = study.network(study.pair(pair)[1]).label.replace("RSN", "ResNet")
    label = f"{tables.DATA[study.dataset]}, {network} {accuracy:.1f} %"
    shared = {"study": study.name, "label": label, "steps": int(steps), "trained": trained}
    return shared | {"auroc": auroc, "difference": difference}


def hero(ax: Axes, rows: list[dict]) -> None:
    """AUROC minus MCP's of each method, with 95 % intervals, one group of lines per classifier."""
    shown: set[str] = set()
    for i, row in enumerate(rows):
        methods = [name for name in MARKS if name in row["difference"]]
        for j, name in enumerate(methods):
            label, colour, marker, filled = MARKS[name]
            estimate, low, high = row["difference"][name]
            y, alpha = -i + 0.36 - 0.72 * j / max(len(MARKS) - 1, 1), 1.0 if row["trained"] else 0.45
            ax.hlines(y, low, high, color=colour, linewidth=1.6, alpha=alpha)
            face = colour if filled else "white"
            ax.plot(
                estimate, y, marker, color=colour, markerfacecolor=face, markersize=5, alpha=alpha, linestyle="",
                label="_" if name in shown else label,
            )  # fmt: skip
            shown.add(name)
        if i:
            ax.axhline(-i + 0.5, color="0.85", linewidth=0.6)
    ax.axvline(0, color="0.1", linewidth=1.2)
    ax.annotate("MCP", (0, 0.62), ha="center", fontsize=8, annotation_clip=False)
    labels = [f"{row['label']}\n{row['steps']:,} steps{'' if row['trained'] else ', not trained'}" for row in rows]
    ax.set(yticks=[-i for i in range(len(rows))], yticklabels=labels, ylim=(-len(rows) + 0.45, 0.55))
    ax.set_xlabel("AUROC minus MCP's, percentage points (95 % CI); left: worse than the classifier's own confidence")
    ax.grid(axis="y", visible=False)
    ax.figure.legend(loc="outside upper center", ncols=3, fontsize=8)


def results_block(rows: list[dict]) -> str:
    """Two tables in Markdown: AUROC per classifier, and the verdicts on the headline claims."""
    columns = {"mcp": "MCP", "ce": "CE", "tcp": "TCP", "ss": "SS", "tcp+mcp": "TCP with MCP"}
    lines = [
        f"| data, classifier | oracle's steps | {' | '.join(columns.values())} |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for row in rows:
        cells = [f"{row['auroc'][name][0]:.1f}" if name in row["auroc"] else "–" for name in columns]
        steps = f"{row['steps']:,}" if row["trained"] else f"{row['steps']:,}, *not trained*"
        lines.append(f"| [{row['label']}](results/{row['study']}) | {steps} | {' | '.join(cells)} |")
    lines += ["", *_verdicts()]
    return "\n".join(lines) + "\n"


def _verdicts() -> list[str]:
    """The verdicts of the studies that are judged by today's rules, one line per claim."""
    judged = _judged()
    lines = [f"| the paper says | {' | '.join(f'`{name}`' for name in judged)} |", "|---" * (len(judged) + 1) + "|"]
    sentences = {claim.id: claim.claim for claim in rules.load()}
    for claim in CLAIMS:
        cells = [SYMBOLS[frame.loc[claim, "verdict"]] for frame in judged.values()]
        lines.append(f"| {sentences[claim]} | {' | '.join(cells)} |")
    return lines


def _judged() -> dict[str, pd.DataFrame]:
    """Study -> its published table of claims, index id; of the studies judged by today's rules."""
    tables_of = {name: pd.read_csv(RESULTS / name / "tables" / "claims.csv", index_col="id") for name in STUDIES}
    return {name: frame for name, frame in tables_of.items() if "asked_by" in frame}


def index(figure: str) -> str:
    """results/index.html: the answer, the figure (an SVG), a card per report, and every claim with its verdicts."""
    judged, groups = _judged(), []
    for asked_by, heading in (("paper", "What the paper claims"), ("study", "What we ask")):
        claims = [claim for claim in rules.load() if claim.asked_by == asked_by]
        groups.append(
            (heading, [(claim.claim, [_cell(judged[name], name, claim.id) for name in judged]) for claim in claims])
        )
    pages = [(RESULTS / page).relative_to(RESULTS) for page in CARDS if (RESULTS / page).exists()]
    cards = [{"page": str(page), "title": CARDS[str(page)][0], "text": CARDS[str(page)][1]} for page in pages]
    template = jinja2.Environment(autoescape=True).from_string(TEMPLATE.read_text())
    return template.render(
        title="Can a network learn which predictions to trust?", figure=Markup(figure[figure.index("<svg") :]),
        cards=cards, groups=groups, studies=list(judged),
    )  # fmt: skip


def _cell(frame: pd.DataFrame, study: str, claim: str) -> tuple[str, str]:
    """A verdict and the link to its evidence, none where it was not tested."""
    row = frame.loc[claim]
    return row["verdict"], "" if row["verdict"] == rules.NOT_TESTED else f"{study}/report.html#{row['section']}"


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()
