"""results/index.html, the first page of the site: what the README says first, every verdict, a card per page."""

import re
from pathlib import Path

import pandas as pd

from ..analysis import rules
from ..data import ROOT

RESULTS, TEMPLATE = ROOT / "results", Path(__file__).with_name("index.html.j2")
STUDIES = {  # with verdicts on claims -> the heading of their column
    "fashion": "Fashion-MNIST", "colour": "CIFAR-10, small networks", "budget": "Fashion-MNIST, budgets",
    "mnist": "MNIST", "cifar10": "CIFAR-10, VGG16", "tiny": "Tiny-ImageNet",
}  # fmt: skip
HEADLINES = (
    "tnr", "tpr", "overfitting", "collapse-ce", "chance", "auc", "selective-risk", "mcp-unreliable", "aupr-error-sign",
)  # fmt: skip
CARDS = {  # page below results/ -> title, what it holds
    "fashion/report.html": ("Fashion-MNIST", "The main study: two small networks, five losses, trained oracles."),
    "budget/report.html": ("How long must an oracle train?", "A ladder of budgets and learning rates, Fashion-MNIST."),
    "classifiers/report.html": ("Five classifiers", "The main study's ResNet from five seeds, Fashion-MNIST."),
    "ablations/report.html": ("Ablations", "Labels, head, slopes, class weights, the broadcast; Fashion-MNIST."),
    "colour/report.html": ("CIFAR-10, small networks", "What needs colour, such as the recolouring attack."),
    "mnist/report.html": ("MNIST, Table 2", "After ConfidNet's protocol."),
    "cifar10/report.html": ("CIFAR-10, Table 2", "After ConfidNet's protocol, VGG16; cut below it."),
    "tiny/report.html": ("Tiny-ImageNet", "Pretrained EfficientNets, 200 classes; heads on frozen features."),
    "benchmark/report.html": ("Times of the metrics", "Next to those of other libraries."),
    "speed/report.html": ("Times", "Training steps and data loading on a CPU."),
    "speed/gpu.html": ("Times on a GPU", "Training steps next to the released way and to timm's."),
}
BEGINS = re.compile(  # of the README
    r"# (?P<title>[^\n]+)\n\n(?P<question>.+?)\n\n(?P<answer>\*\*.+?)\n\n"
    r"!\[(?P<alt>[^\]]+)\]\([^)]+\)\n\n\*(?P<caption>.+?)\*\n\n",
    re.DOTALL,
)
SYMBOLS = {"reproduced": "✓", "mixed": "~", "contradicted": "✗", "inconclusive": "?", "not tested": "–"}


def judged() -> dict[str, pd.DataFrame]:
    """Study -> its published table of claims, index id."""
    paths = {name: RESULTS / name / "tables" / "claims.csv" for name in STUDIES}
    return {name: pd.read_csv(path, index_col="id") for name, path in paths.items() if path.exists()}


def index(readme: str, figure: str) -> str:
    """The page, from the README's question, answer and caption, and its figure as an SVG.

    Raises
    ------
    ValueError : when the README does not begin with a title, the question, the answer in bold, and the figure with
        its caption.
    """
    from . import markup, page  # here, since it takes torch

    found = BEGINS.match(readme)
    if not found:
        raise ValueError("README.md does not begin with a title, the question, the answer in bold and a figure")
    said = found.groupdict()
    frames, claims = judged(), rules.load()
    headlines = [claim for name in HEADLINES for claim in claims if claim.id == name]
    groups = [("", headlines)]
    for asked_by, heading in (("paper", "Every claim of the paper"), ("study", "What we ask")):
        groups.append((heading, [claim for claim in claims if claim.asked_by == asked_by]))
    return markup.page(
        TEMPLATE, "", title=said["title"], question=page.markdown(said["question"]),
        answer=page.markdown(said["answer"]), caption=page.markdown(said["caption"]),
        figure=markup.picture(figure, said["alt"]), studies=[(name, STUDIES[name]) for name in frames],
        groups=[(heading, [_row(frames, claim) for claim in of]) for heading, of in groups],
        symbols=SYMBOLS, cards=_cards(frames),
    )  # fmt: skip


def _row(frames: dict[str, pd.DataFrame], claim: rules.Claim) -> tuple[str, list[tuple[str, str]]]:
    """A claim, and its verdict in each study with the link to it; empty where a study was judged before it was made."""
    verdicts = {name: frame["verdict"].get(claim.id, "") for name, frame in frames.items()}
    return claim.claim, [(verdict, f"{name}/report.html#claim-{claim.id}") for name, verdict in verdicts.items()]


def _cards(frames: dict[str, pd.DataFrame]) -> list[dict[str, str]]:
    """A card per page that there is; one of a study counts the verdicts on the paper's claims."""
    cards = []
    for name, (title, text) in CARDS.items():
        if not (RESULTS / name).exists():
            continue
        frame, counted = frames.get(name.partition("/")[0]), ""
        if frame is not None:
            of = frame.loc[frame["asked_by"] == "paper", "verdict"].value_counts()
            counted = ", ".join(f"{of[verdict]} {verdict}" for verdict in rules.VERDICTS if verdict in of)
        cards.append({"page": name, "title": title, "text": text, "counted": counted})
    return cards
