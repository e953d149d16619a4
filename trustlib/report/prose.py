"""Sentences of the report, made from tables and settings."""

from itertools import product

import pandas as pd

from .. import confidence, released
from ..analysis.paper import PAPER_NAMES
from ..confidence.observed import REFERENCE
from ..recipe import Recipe
from ..settings import Method
from ..study import Study
from .tables import DATA, _span, number

OPTIMISERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD", "onecycle": "SGD under OneCycleLR"}


FROZEN = {"nothing": "", "norm": ", batch norm frozen", "noise": ", batch norm frozen and dropout off"}


HEADS = {"linear": "linear", "distance": "signed distance", "mlp": "MLP", "mlp-distance": "MLP with a signed distance"}


def ranges(compared: pd.DataFrame, methods: list[str]) -> str:
    """AUC, TPR and TNR of some methods, from the lowest to the highest mean, per cent: a piece of a sentence.

    Parameters
    ----------
    compared : rows with columns arm, metric and estimate, as `ablations.compare` returns.
    """
    percent = compared[compared["arm"].isin(methods)].groupby("metric")["estimate"].agg(["min", "max"]).mul(100)
    parts = []
    for metric, heading in (("auroc", "AUC"), ("tpr", "TPR"), ("tnr", "TNR")):
        low, high = (f"{value:.1f}" for value in percent.loc[metric])
        parts.append(f"{heading} {low}" if low == high else f"{heading} {low} to {high}")
    return ", ".join(parts)


def findings(compared: pd.DataFrame, study: Study) -> list[str]:
    """What the tables say about MCP, the oracles and other scores, the steep slope loss and every oracle of the study.

    One sentence each, per cent. Probes on the classifier's features are oracles.

    Parameters
    ----------
    compared : what `compare.compare_pairs` returns, for all pairs.
    """
    percent = compared.set_index(["arm", "pair", "metric"])["estimate"].unstack("metric").mul(100)
    if not len(percent) or percent["auroc"].isna().all() or not set(study.methods) & set(compared["arm"]):
        return ["There is no pair with an oracle and an AUC."]
    auc = percent["auroc"].unstack("arm")
    oracles = auc[[arm for arm in study.methods if arm in auc]]
    groups: dict[str, list[str]] = {}
    for name in auc:
        groups.setdefault(study.group_of(name), []).append(name)
    probes, tuned = groups.pop("probe", []), groups.pop("oracle", [])
    lead = (auc["mcp"] - auc[[*probes, *tuned]].max(axis=1)).dropna()
    first = {1: "no higher AUC than the best oracle", -1: "a higher AUC than every oracle"}
    where = f"in {(lead > 0).sum()} of {len(lead)} pairs"
    led = f"{first[-1]} {where}" if len(lead) > 1 else first[-1 if (lead > 0).all() else 1]
    sentences = [f"MCP, which needs no oracle, has {led}; the best one's AUC minus MCP's {_between(-lead)}."]
    kinds = {
        "fine-tuned oracles": tuned,
        "oracles on frozen features": probes,
        "the classifier's other scores": [name for names in groups.values() for name in names],
    }
    every = _distinct(compared[compared["metric"].eq("auroc")].dropna(subset="difference"), study)
    for what, names in kinds.items():
        rows = every[every["arm"].isin(names)]
        if len(rows):
            below, above = (rows["difference_high"] < 0).sum(), (rows["difference_low"] > 0).sum()
            sentences.append(
                f"Of {len(rows)} comparisons of {what} with MCP, the 95 % interval of the AUC's difference lies "
                f"below 0 in {below} and above 0 in {above}."
            )
    for ss, ce in product(oracles, oracles):
        if _alike(study.methods[ss], study.methods[ce]):
            gain = _between(oracles[ss] - oracles[ce])
            sentences.append(f"The AUC of {study.method_label(ss)} minus that of {study.method_label(ce)} {gain}.")
    sentences += [f"{study.method_label(name)}: {ranges(compared, [name])}." for name in oracles]
    return sentences


def _distinct(rows: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Rows of pairs and methods without what is there twice: pairs with one classifier share its scores."""
    of = rows["pair"].where(rows["arm"].isin(study.methods), rows["pair"].str.split("-").str[1])
    return rows[~pd.DataFrame({"arm": rows["arm"], "of": of}).duplicated()]


def within_finding(within: pd.DataFrame, study: Study) -> str:
    """What `compare.within_pairs` says about MCP and the oracles, in a sentence, per cent."""
    auc = within.pivot(index="pair", columns="arm", values="auroc_within").mul(100).dropna(how="all")
    oracles = auc[[name for name in auc if study.is_oracle(name)]]
    if oracles.empty:
        return "There is no pair with an oracle and with correct and incorrect predictions of one class."
    lead = _between(oracles.max(axis=1) - auc["mcp"])
    return (
        f"Among predictions of one class MCP has an AUC of {_span(auc['mcp'])}, the oracles of "
        f"{_span(oracles.stack())}; the AUC of the best oracle minus MCP's {lead}."
    )


def fusion_finding(fusion: pd.DataFrame, study: Study) -> str:
    """What `compare.fusion_pairs` says, in a sentence, per cent."""
    if fusion.empty:
        return "There is no oracle, or the predictions on the validation or test set are all of one kind."
    rows = _distinct(fusion, study)
    above, below = (rows["difference_low"] > 0).sum(), (rows["difference_high"] < 0).sum()
    return (
        f"Together with MCP, {above} of {len(rows)} oracles rank significantly better than MCP alone (the 95 % "
        f"interval of the difference excludes 0), {below} significantly worse; the difference in AUC "
        f"{_between(rows['difference'].mul(100))}."
    )


def data_name(study: Study) -> str:
    """The study's images as a reader knows them."""
    return study.folder or DATA.get(study.dataset, study.dataset)


def trainings_of(study: Study) -> list[str]:
    """How a study's networks were trained, a sentence a network and a recipe of its oracles."""
    counts = {part: len(labels) for part, labels in study.images().labels.items()}
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
        f"{OPTIMISERS[recipe.optimizer]} at a rate of {number(recipe.rate)}{FROZEN[recipe.frozen]}"
    )


def deviations(study: Study) -> list[str]:
    """A study's networks, trainings and losses beside those of the paper's Table 1, a sentence each."""
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
        f"**Training.** {' '.join(trainings_of(study))} The released recipe: one epoch of SGD under OneCycleLR at a "
        "rate of 1e-5, in batches of 40.",
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


def neighbours_note(study: Study) -> str:
    """A remark where `confidence.knn` takes a lower k since the classes are small; else empty."""
    images = study.images()
    a_class = min(len(images.labels["train"]), REFERENCE) / len(images.classes)
    if a_class >= 4 * confidence.NEIGHBOUR:
        return ""
    return (
        f"A class has {a_class:.0f} training images on average: k nearest neighbours takes a quarter of the smallest "
        f"class as k in place of {confidence.NEIGHBOUR}, and Mahalanobis fits its class means to as few images."
    )


def _between(points: pd.Series) -> str:
    """What differences, a pair each, are: "is +1.0 points" or "lies between +1.0 and +2.0 points"."""
    low, high = (f"{value:+.1f}".replace("-", "−") for value in (points.min(), points.max()))
    return f"is {low} points" if low == high else f"lies between {low} and {high} points"


def _alike(ss: Method, ce: Method) -> bool:
    """Steep slope loss and cross entropy as in the text, each with its head of the paper, trained in the same way?"""
    losses = [(arm.loss, arm.form, arm.head.endswith("distance")) for arm in (ss, ce)]
    ways = [(arm.backbone, arm.start is None, arm.training, arm.labels) for arm in (ss, ce)]
    return losses == [("ss", "corrected", True), ("ce", "corrected", False)] and ways[0] == ways[1]
