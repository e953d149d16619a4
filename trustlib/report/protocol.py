"""Sentences on how a study was run, what differs from the paper and what it has not, from its settings."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any

import pandas as pd

from .. import confidence, released
from ..analysis import ablations, compare, paper
from ..analysis.paper import PAPER_NAMES
from ..confidence.observed import REFERENCE
from ..recipe import Recipe
from ..study import Study
from .prose import MANY, counted, data_name, joined, span
from .tables import number

OPTIMISERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "onecycle": "SGD under OneCycleLR"}
FROZEN = {"nothing": "", "norm": ", batch norm frozen", "noise": ", batch norm frozen and dropout off"}
HEADS = {"linear": "linear", "distance": "signed distance", "mlp": "MLP", "mlp-distance": "MLP with a signed distance"}


REGIMES = {"trained": "fine-tuned", "frozen": "on frozen features"}


def training_budget(results: Any) -> str:
    """How long a study's oracles were trained, next to what a ladder of budgets says of it."""
    study, networks = results.study, {}
    for pair in study.pairs:
        networks.setdefault(results.study.network(pair.split("-")[0]).label, pair)
    texts: dict[str, list[str]] = {}  # how long -> networks
    for regime, how in REGIMES.items():
        arm = next((name for name, method in study.methods.items() if method.backbone == regime), None)
        for label, pair in networks.items() if arm else ():
            size = results.budget(pair, arm)
            epochs = counted(size["epochs"], "epoch")
            text = f"{how}, {size['steps']:,} steps ({epochs}, {size['images']:,} images seen)"
            texts.setdefault(text, []).append(label)
    said = "; ".join(
        f"{joined(labels) if len(labels) < MANY else f'all {len(labels)} networks'} {text}"
        for text, labels in texts.items()
    )
    ladder = results.curves
    how = (
        "No ladder of budgets says whether that is enough."
        if ladder.empty
        else "[A ladder of budgets](#How-long-must-an-oracle-train?) says what has converged."
        if set(ladder["arm"]) <= study.all_methods.keys()
        else f"The ladder of the study `{study.budget_from}` says what has converged."
    )
    return f"**Training budget of an oracle:** {said}; {counted(len(study.seeds), 'seed')}. {how}"


def trainings_of(study: Study, counts: Mapping[str, int]) -> list[str]:
    """How a study's networks were trained, a sentence per network and per recipe of its oracles.

    counts : images by split.
    """
    sentences = []
    for network in study.networks.values():
        how = (
            f"pretrained weights of `{network.model}`"
            if network.weights
            else _recipe(network.training, counts["train"])
        )
        sentences.append(f"{network.label}: {how}.")
    pair_of = {pair.split("-")[0]: pair for pair in study.pairs}  # one of each oracle network
    alike: dict[str, dict[str, list[str]]] = {}  # recipe -> oracle network -> methods
    for (oracle, pair), (name, arm) in product(pair_of.items(), study.methods.items()):
        recipe, held = study.recipe(pair, name), counts["heldout"] - study.ablations.tuning
        if arm.backbone == "frozen":
            recipe = recipe.model_copy(update={"frozen": "nothing"})  # of the head, which has neither
            what = "the head on a frozen backbone, on the classifier's features" + ", dropout left on" * (
                study.feature_passes > 0
            )
        else:
            what = "backbone and head" + ", going on from another oracle" * (arm.start is not None)
        there = held if arm.labels == "heldout" else counts["train"]
        of = alike.setdefault(f"{what}, {_recipe(recipe, there)}.", {})
        of.setdefault(study.network(oracle).label, []).append(arm.label)
    for how, of in alike.items():
        methods = {
            who: "; ".join(labels) if len(labels) < len(study.methods) else "every loss and form"
            for who, labels in of.items()
        }
        alone = len(of) == len(pair_of) and len(set(methods.values())) == 1
        whose = next(iter(methods.values())) if alone else ". ".join(": ".join(item) for item in methods.items())
        sentences.append(f"Oracles ({whose}): {how}")
    return sentences


def _recipe(recipe: Recipe, there: int) -> str:
    count = min(recipe.images or there, there)
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    steps = recipe.epochs * (count // recipe.batch)
    return (
        f"{epochs} of {count:,} images in batches of {recipe.batch} ({steps:,} steps), "
        f"{OPTIMISERS[recipe.optimizer]} at a learning rate of {number(recipe.rate)}{FROZEN[recipe.frozen]}"
        f"{', bfloat16 on the CPU too' if recipe.bfloat16 else ''}"
    )


def deviations(study: Study, counts: Mapping[str, int]) -> list[str]:
    """A study's networks, trainings and losses next to those of the paper's Table 1, a sentence each.

    counts : images by split.
    """
    networks = study.networks.values()
    made = "; ".join(f"{n.label}, {'pretrained weights' if n.weights else 'trained from scratch'}" for n in networks)
    rates = {n.label: [f"`{k}` {v:g}" for k, v in n.args.items() if k.endswith("drop_rate")] for n in networks}
    dropout = "; ".join(f"{label}: {', '.join(said) or 'as the model has it'}" for label, said in rates.items())
    heads: dict[str, dict] = {}
    for arm in study.methods.values():
        heads.setdefault(HEADS[arm.head], {})[PAPER_NAMES.get(arm.loss, arm.loss)] = None
    heads_of = [f"{head}: {', '.join(of)}" for head, of in heads.items()]
    found = [
        f"**Images and networks.** {data_name(study)}; {made}. The paper's Table 1: ImageNet, ViT-B/16 and ResNet-50.",
        f"**Training.** {' '.join(trainings_of(study, counts))} The released recipe: one epoch of SGD under "
        "OneCycleLR at a learning rate of 1e-5, in batches of 40.",
        f"**Loss of cross entropy and focal.** {_forms(study)} The *corrected* form is that of the text's Eq. 4 and 5; "
        "in the *released* one (`src/oracle.py`) each output meets the labels of the whole batch. We do not know that "
        "the published tables came from exactly that code.",
        f"**Dropout.** {dropout}. The released recipe has 0.1 inside the ViT and none in the ResNet.",
        f"**Heads.** {'; '.join(heads_of)}. As released: linear for all losses but the steep slope loss, which has the "
        "signed distance of Eq. 7.",
    ]
    if betas := sorted({f"{arm.hyper['beta']:.10g}" for arm in study.methods.values() if "beta" in arm.hyper}):
        found.append(
            "**Class-balanced loss.** Its weights tell the classes apart only as far as $1/(1-\\beta)$ exceeds the "
            f"number of incorrect predictions to learn from; here $\\beta$ is {' and '.join(betas)}. The numbers are "
            "those of the whole training set in all its views."
        )
    return found


def _forms(study: Study) -> str:
    """Which forms of cross entropy and focal loss a study trains."""
    trained = {(arm.loss, arm.form) for arm in study.methods.values()}
    ways: dict[str, list[str]] = {}
    for loss in released.LOSSES:
        forms = [form for form in ("corrected", "released") if (loss, form) in trained]
        how = {0: "not trained here", 1: f"trained in the {''.join(forms)} form alone", 2: "trained in both forms"}
        ways.setdefault(how[len(forms)], []).append(PAPER_NAMES[loss])
    return " ".join(f"{' and '.join(of)}: {how}." for how, of in ways.items())


def neighbours_note(study: Study, counts: Mapping[str, int], classes: int) -> str:
    """A remark where `confidence.knn` takes a lower k since the classes are small; else empty.

    counts : images by split.
    """
    per_class = min(counts["train"], REFERENCE) / classes
    if per_class >= 4 * confidence.NEIGHBOUR:
        return ""
    return (
        f" A class has {per_class:.0f} training images on average: k nearest neighbours takes a quarter of the "
        f"smallest class as k in place of {confidence.NEIGHBOUR}, and Mahalanobis fits its means to as few images."
    )


def dropout_note(compared: pd.DataFrame) -> str:
    """What tells the two forms of MC dropout apart, where their AUROCs differ by more than a point; else empty."""
    area = compared[compared["metric"] == "auroc"].pivot(index="pair", columns="arm", values="estimate").mul(100)
    if not {"mc_dropout_logits", "mc_dropout_probs"} <= set(area):
        return ""
    gap = area["mc_dropout_probs"] - area["mc_dropout_logits"]
    if gap.abs().max() < 1:
        return ""
    return (
        "MC dropout has two rows: by the negative entropy of the mean logits, as ConfidNet has it, and by the mean "
        f"probability of the predicted class, whose AUROC is {span(gap, sign=True)} points higher."
    )


def provenance_of(runs: list[dict], provenances: list[dict], study: Study) -> dict[str, Any]:
    """Seeds of a study, and the commits, devices and versions of its trainings.

    Parameters
    ----------
    runs, provenances : `runs.results.Run.runs` and `.provenances`.
    """
    commits = {of["commit"][:10] + (" with uncommitted changes" if of["dirty"] else "") for of in provenances}
    facts: dict[str, Any] = {"seeds": study.seeds}
    facts |= {"seeds of the ablations": study.ablations.seeds} if study.ablations.questions else {}
    return facts | {
        "trainings: commits": sorted(commits),
        "trainings: devices": sorted({row["device"] for row in runs if row["status"] == "done"}),
        "trainings: torch": sorted({of["versions"]["torch"] for of in provenances}),
    }


def sections(results: Any) -> list[str]:
    """Which of `SECTIONS` the page of a study has.

    results : `runs.results.Run` or `.Published`.
    """
    study, pairs = results.study, [pair for pair in results.study.pairs if results.predictions(pair) is not None]
    there = {
        "table2": paper.follows_table2(study),
        "within": any(results.predictions(pair).predicted is not None for pair in pairs),
        "fusion": any(results.predictions(pair, "heldout") is not None for pair in pairs),
        "budget": not results.curves.empty,
        "heads": results.has_heads,
        "domains": any(results.predictions(pair, part) for part in study.domains.parts.values() for pair in pairs),
        "sweep": not results.table("sweep", compare.sweep).empty,
    }
    asked = set(results.table("ablations", ablations.compare_all)["ablation"])
    return [name for name in SECTIONS if there.get(name, name in asked)]


def not_run(there: Iterable[str]) -> str:
    """What the page of a study has no section for, in a line; empty where it has all of `SECTIONS`.

    there : the sections that it has.
    """
    lacking = [what for name, (what, _) in SECTIONS.items() if name not in set(there)]
    return f"Not run in this study: {joined(lacking)}." if lacking else ""


def anchors(there: Iterable[str]) -> set[str]:
    """The ids of the headings that claims lead to, of a page with these sections."""
    return ALWAYS | {heading for name, (_, heading) in SECTIONS.items() if name in set(there)}


SECTIONS = {  # of a page, where the study has it: what it is, the id of its heading
    "table2": ("Table 2, by ConfidNet's protocol", "Table-2:-MNIST-and-CIFAR-10"),
    "within": ("AUROC within a predicted class", "Within-a-predicted-class"),
    "fusion": ("oracles combined with MCP", "Oracles-together-with-MCP"),
    "budget": ("a ladder of training budgets", "How-long-must-an-oracle-train?"),
    "broadcast": ("the broadcast of the released loss", "Does-the-collapse-come-from-the-broadcast?"),
    "rate": ("learning rates tuned per loss", "How-much-is-the-learning-rate?"),
    "head": ("linear and signed-distance heads", "What-does-the-head-do?"),
    "threshold": ("the operating point apart from the order", "Is-it-more-than-the-operating-point?"),
    "alpha": ("the two slopes", "What-do-the-two-slopes-do?"),
    "balance": ("class-balanced weights", "What-does-the-class-balanced-loss-do?"),
    "labels": ("other sources of labels", "Which-labels-should-an-oracle-learn-from?"),
    "heads": ("heads on cached features", "What-can-a-single-hyperplane-express?"),
    "domains": ("distribution shifts", "Table-3:-distribution-shifts"),
    "sweep": ("corruptions at every severity", "Corruptions-at-every-severity"),
}
ALWAYS = {
    "Table-1:-performance-on-the-test-set", "Which-differences-are-real", "Figure-4a:-risk-and-coverage",
    "Appendix-G:-separability", "The-released-AUPR-Error-and-FPR-95%25-TPR", "Does-Theorem-3.1-bind?",
    "Which-sign-did-AUPR-Error-have?", "In-all-cases?",
}  # fmt: skip
