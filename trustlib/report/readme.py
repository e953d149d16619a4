"""The README's figure and tables, results/index.html and the example, from the committed results: `make readme`."""

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from .. import losses
from ..analysis import rules
from ..data import ROOT
from ..study import Study, load_study
from . import figures, tables
from .index import HEADLINES, RESULTS, SYMBOLS, index, judged

FROZEN = "-frozen"  # at the end of the name of a method that learns from frozen features
START, END = "<!-- results: make readme -->", "<!-- end of results -->"
STUDIES = ("fashion", "colour", "mnist", "cifar10", "tiny")
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
GARMENTS = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
INTERVAL = ["estimate", "low", "high"]
DIFFERENCE = ["difference", "difference_low", "difference_high"]


def write(root: Path = ROOT) -> None:
    """Write docs/hero.svg, the tables between the README's two markers, results/index.html and data/example."""
    rows = [row for name in STUDIES for row in published(name)]
    figure, readme = root / "docs" / "hero.svg", root / "README.md"
    with plt.style.context(figures.STYLE):
        drawn = [row for row in rows if row["said"] != "not trained"]
        fig, ax = plt.subplots(figsize=(8.2, 0.85 + 0.72 * len(drawn)))
        hero(ax, drawn)
        fig.savefig(figure, metadata={"Date": None})
        plt.close(fig)
    before, _, rest = readme.read_text().partition(START)
    readme.write_text(f"{before}{START}\n{results_block(rows)}{END}{rest.partition(END)[2]}")
    (root / "results" / "index.html").write_text(index(readme.read_text(), figure.read_text()))
    example().to_csv(root / "data" / "example" / "predictions.csv", index=False)


def example(rows: int = 2_000) -> pd.DataFrame:
    """Predictions to try `trustlib evaluate` on: the first test images of `fashion`, its ResNet, two oracles.

    One row per image: correct (0 or 1); the confidences max_probability, energy, tcp_oracle and steep_slope_oracle (z
    of the first training seed); group, the predicted class.
    """
    scores = np.load(RESULTS / "fashion" / "scores.npz")
    columns = {
        "max_probability": "rsn/seed0.mcp", "energy": "rsn/confidences.energy",
        "tcp_oracle": "rsn-rsn/tcp/seed0.z", "steep_slope_oracle": "rsn-rsn/ss/seed0.z",
    }  # fmt: skip
    frame = pd.DataFrame({"correct": scores["rsn/seed0.correct"][:rows].astype(int)})
    for column, name in columns.items():
        frame[column] = scores[name][:rows].astype(float).round(7)
    return frame.assign(group=np.array(GARMENTS)[scores["rsn/seed0.predicted"][:rows]])


def published(name: str) -> list[dict]:
    """One row per classifier of a published study, judged by oracles of its own kind.

    Returns
    -------
    Dicts: study, label (data, network, accuracy), steps (of an oracle), trained (whether a ladder of budgets shows that
    the oracles are), said (of the oracles: "heads alone", where a study has no others, or "not trained"), auroc:
    method -> (estimate, low, high), and difference: the same minus MCP's, per cent.
    """
    study, folder = load_study(name), RESULTS / name / "tables"
    count = json.loads((RESULTS / name / "manifest.json").read_text())["images"]["counts"]["train"]
    frozen, trained = "" if "ce" in study.methods else FROZEN, len(_table(folder / "budget.csv")) > 0
    said = "heads alone" if frozen else "" if trained else "not trained"
    compared = pd.read_csv(folder / "comparisons.csv").set_index(["pair", "metric", "arm"])
    fused, rows = _table(folder / "fusion.csv"), []
    for pair in study.pairs:
        if len(set(study.pair(pair))) == 1:
            steps = study.budget(pair, f"ce{frozen}", count)["steps"]
            shared = {"study": name, "steps": steps, "said": said, "trained": trained}
            rows.append(shared | _row(study, pair, frozen, compared.loc[pair], fused))
    return rows


def _row(study: Study, pair: str, frozen: str, compared: pd.DataFrame, fused: pd.DataFrame) -> dict:
    area = (compared.loc["auroc"] * 100).rename(index={f"{loss}{frozen}": loss for loss in losses.LOSSES})
    auroc = {arm: tuple(row) for arm, row in area[INTERVAL].iterrows()}
    difference = {arm: tuple(row) for arm, row in area[DIFFERENCE].dropna().iterrows()}
    combined = fused[(fused["pair"] == pair) & (fused["arm"] == f"tcp{frozen}")] if len(fused) else fused
    for row in combined.itertuples():
        auroc["tcp+mcp"] = (100 * row.auroc, 100 * row.low, 100 * row.high)
        difference["tcp+mcp"] = (100 * row.difference, 100 * row.difference_low, 100 * row.difference_high)
    accuracy = 100 * compared.loc[("accuracy", "mcp"), "estimate"]
    network = study.network(study.pair(pair)[1]).label.replace("RSN", "ResNet")
    label = f"{tables.DATA[study.dataset]}, {network} {accuracy:.1f} %"
    return {"label": label, "auroc": auroc, "difference": difference}


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
    labels = [f"{row['label']}\n{row['steps']:,} steps" + (f", {row['said']}" if row["said"] else "") for row in rows]
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
        steps = f"{row['steps']:,}" + (f", *{row['said']}*" if row["said"] else "")
        lines.append(f"| [{row['label']}](results/{row['study']}) | {steps} | {' | '.join(cells)} |")
    lines += ["", *_verdicts()]
    return "\n".join(lines) + "\n"


def _verdicts() -> list[str]:
    """The verdicts of the studies that test a claim, one line per claim."""
    measured = [claim for claim in HEADLINES if claim != "aupr-error-sign"]  # which is arithmetic, the same in all
    frames = {
        name: frame
        for name, frame in judged().items()
        if name in STUDIES and (frame.loc[measured, "verdict"] != rules.NOT_TESTED).any()
    }
    lines = [f"| the paper says | {' | '.join(f'`{name}`' for name in frames)} |", "|---" * (len(frames) + 1) + "|"]
    sentences = {claim.id: claim.claim for claim in rules.load()}
    for claim in HEADLINES:
        cells = [SYMBOLS[frame.loc[claim, "verdict"]] for frame in frames.values()]
        lines.append(f"| {sentences[claim]} | {' | '.join(cells)} |")
    return lines


def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()
