"""Sentences of the report, made from tables and settings."""

from collections.abc import Collection, Iterable, Mapping
from itertools import product

import pandas as pd

from ..analysis import budget
from ..analysis.compare import DIFFERENCE, INTERVAL
from ..analysis.paper import PAPER_NAMES
from ..settings import Method
from ..study import Study
from .study_tables import by_classifier, equal_to_mcp, main_methods
from .tables import DATA, with_interval


def joined(texts: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = list(texts) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def signed(points: float) -> str:
    """A difference with its sign: +1.0, −2.5."""
    return f"{points:+.1f}".replace("-", "−")


def span(values: pd.Series, sign: bool = False) -> str:
    """The lowest and the highest of some values: "1.0 to 2.0", or one where they are alike."""
    low, high = (signed(value) if sign else f"{value:.1f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def counted(count: int, noun: str) -> str:
    """1 oracle, 2 oracles."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def data_name(study: Study) -> str:
    """The study's images as a reader knows them."""
    return study.folder or DATA.get(study.dataset, study.dataset)


def title(study: Study) -> str:
    """The heading of a study's page."""
    return f"{data_name(study)}: can a network learn which predictions to trust? (study {study.name})"


def key_figures(compared: pd.DataFrame, study: Study) -> list[tuple[str, str]]:
    """What the tiles of a page show: (value, what it is).

    Parameters
    ----------
    compared : what `compare.compare_pairs` returns.
    """
    rows = by_classifier(compared, study)
    mcp = rows[rows["arm"] == "mcp"].set_index(["classifier", "metric"])["estimate"].mul(100)
    oracles = rows[rows["arm"].map(study.is_oracle) & rows["metric"].eq("auroc")]
    accuracy, area = mcp.xs("accuracy", level="metric"), mcp.xs("auroc", level="metric")
    best = oracles.loc[oracles.groupby("classifier", sort=False)["estimate"].idxmax().dropna()]
    of = _each(accuracy.index)
    shown = [(_dotted(accuracy), f"accuracy of {of}"), (_dotted(area), "AUROC of its MCP")]
    if len(best):
        labels = " · ".join(dict.fromkeys(best["label"]))
        below = (oracles["difference_high"] < 0).sum()
        shown.append((_dotted(100 * best["estimate"]), f"AUROC of the best oracle: {labels}"))
        shown.append((f"{below} of {len(oracles)}", "oracles significantly below MCP"))
    return shown


MANY = 4  # classifiers, of which the range is said and not each


def _dotted(values: pd.Series) -> str:
    text = span(values) if len(values) >= MANY else " · ".join(f"{value:.1f}" for value in values)
    return f"{text}\N{NO-BREAK SPACE}%"


def _each(labels: Collection[str]) -> str:
    return " · ".join(labels) if len(labels) < MANY else f"{len(labels)} classifiers"


def in_one_minute(compared: pd.DataFrame, study: Study) -> list[str]:
    """What the tables say about MCP and the oracles, five sentences or fewer, per cent.

    Linear and MLP probes on the classifier's features are oracles. Losses are compared that were trained alike.

    Parameters
    ----------
    compared : what `compare.compare_pairs` returns, for all pairs.
    """
    rows = by_classifier(compared, study)
    area = rows[rows["metric"].eq("auroc") & rows["difference"].notna()]
    is_oracle = area["arm"].map(study.is_oracle)
    oracles, others = area[is_oracle], area[~is_oracle]
    if oracles.empty:
        return ["There is no oracle whose AUROC could be compared with MCP's."]
    sentences = [_verdict(oracles, study), _best(oracles, rows, study)]
    others = others[~others["arm"].isin(equal_to_mcp(compared, study))]
    better = others[others["difference_low"] > 0]
    what = joined(
        f"{label} ({span(100 * part['difference'], sign=True)} points)"
        for label, part in better.groupby("label", sort=False)
    )
    sentences.append(
        f"Of {counted(len(others), 'score')} that need no oracle, {_ranks(len(better))} significantly better than MCP"
        + (f": {what}." if len(better) else ".")
    )
    return [*sentences, *_operating(compared, study), *_alike_sentences(compared, study)][:5]


def _verdict(oracles: pd.DataFrame, study: Study) -> str:
    """How many oracles rank above and below MCP."""
    below, above = oracles["difference_high"] < 0, oracles["difference_low"] > 0
    frozen = oracles["arm"].map(study.group_of).eq("probe")
    parts = [
        f"{(below & chosen).sum()} of {chosen.sum()} {kind}"
        for kind, chosen in (("fine-tuned", ~frozen), ("on frozen features", frozen))
        if chosen.any()
    ]
    named = f": {joined(dict.fromkeys(oracles.loc[above, 'label']))}" if above.any() else ""
    head = "No oracle ranks" if not above.any() else f"Of {counted(len(oracles), 'oracle')} {_ranks(above.sum())}"
    return (
        f"**{head} errors significantly better than the classifier's own maximum softmax probability (MCP)**{named}; "
        f"{_ranks(below.sum())} significantly worse ({joined(parts)})."
    )


def _ranks(count: int) -> str:
    return f"{count} rank{'s' if count == 1 else ''}"


def _best(oracles: pd.DataFrame, rows: pd.DataFrame, study: Study) -> str:
    """The best oracle of each classifier next to MCP, fine-tuned or on frozen features."""
    mcp = rows[rows["arm"].eq("mcp") & rows["metric"].eq("auroc")].set_index("classifier")["estimate"].mul(100)
    best = oracles.loc[oracles.groupby("classifier", sort=False)["estimate"].idxmax()]
    difference = 100 * best["difference"]
    if len(best) >= MANY:
        labels = joined(dict.fromkeys(best["label"]))
        return (
            f"The best oracle of each of {len(best)} classifiers ({labels}) has an AUROC of "
            f"{span(100 * best['estimate'])} against MCP's {span(mcp)} ({span(difference, sign=True)})."
        )
    texts = [
        f"{row.label} with an AUROC of {100 * row.estimate:.1f} against MCP's {mcp[row.classifier]:.1f} "
        f"({signed(100 * row.difference)}) on {row.classifier}"
        for row in best.itertuples()
    ]
    return f"The best oracle is {joined(texts)}."


def over_classifiers_finding(over: pd.DataFrame, study: Study) -> str:
    """What `compare.over_classifiers` says of the fine-tuned oracles, in a sentence, per cent."""
    area = over[over["metric"].eq("auroc") & over["arm"].isin(main_methods(study))]
    texts = zip(area["arm"].map(study.method_label), with_interval(area, DIFFERENCE, 100, sign="+"), strict=True)
    of = f"{area['classifiers'].max()} trainings of the classifier"
    return f"**Over {of} the AUROC minus MCP's is {joined(f'{text} ({label})' for label, text in texts)} points.**"


def _operating(compared: pd.DataFrame, study: Study) -> list[str]:
    """What cross entropy and the steep slope loss do at z = 0."""
    rates = (
        compared[compared["metric"].isin(["tpr", "tnr"])]
        .set_index(["arm", "metric", "pair"])["estimate"]
        .sort_index()
        .mul(100)
    )
    shown = {}
    for loss in ("ce", "ss"):
        arm = next((arm for arm in main_methods(study) if study.method(arm).loss == loss), None)
        if arm in rates.index.get_level_values("arm"):
            tpr, tnr = (span(rates[arm, metric]) for metric in ("tpr", "tnr"))
            shown[study.method_label(arm)] = f"accepts {tpr} % of correct predictions and rejects {tnr} % of errors"
    texts = [f"{label} {text}" for label, text in shown.items()]
    return [f"At its own threshold, z = 0, {joined(texts)}."] if len(texts) == 2 else []


def _alike_sentences(compared: pd.DataFrame, study: Study) -> list[str]:
    """The steep slope loss against cross entropy, where both were trained in the same way."""
    area = compared[compared["metric"] == "auroc"].pivot(index="pair", columns="arm", values="estimate").mul(100)
    texts = [
        f"{span(area[ss] - area[ce], sign=True)} ({study.method_label(ss)} minus {study.method_label(ce)})"
        for ss, ce in product(filter(area.columns.__contains__, study.methods), repeat=2)
        if _alike(study.methods[ss], study.methods[ce])
    ]
    return [f"Trained alike, the steep slope loss's AUROC minus cross entropy's is {joined(texts)}."] if texts else []


def score_names(study: Study, names: Iterable[str], what: str) -> str:
    """Which scores a table leaves out, as a sentence of its caption; nothing where there is none."""
    named = joined(map(study.method_label, names))
    return f" {what}: {named}." if named else ""


def within_finding(within: pd.DataFrame, study: Study) -> str:
    """What `compare.within_pairs` says about MCP and the oracles, in a sentence, per cent."""
    auc = within.pivot(index="pair", columns="arm", values="auroc_within").mul(100).dropna(how="all")
    oracles = auc[[name for name in auc if study.is_oracle(name)]]
    lead = span(oracles.max(axis=1) - auc["mcp"], sign=True)
    return (
        f"**Among predictions of one class MCP has an AUROC of {span(auc['mcp'])}, the oracles of "
        f"{span(oracles.stack())}; the best oracle minus MCP: {lead} points.**"
    )


def fusion_finding(fusion: pd.DataFrame, study: Study) -> str:
    """What `compare.fusion_pairs` says, in a sentence, per cent."""
    rows = by_classifier(fusion, study)
    above, below = (rows["difference_low"] > 0).sum(), (rows["difference_high"] < 0).sum()
    return (
        f"**Together with MCP, {above} of {counted(len(rows), 'oracle')} rank significantly better than MCP alone, "
        f"{below} significantly worse; the difference in AUROC is {span(100 * rows['difference'], sign=True)} points.**"
    )


def shift_findings(rows: pd.DataFrame, study: Study, labels: Mapping[str, str]) -> list[str]:
    """How the oracles compare with MCP on each distribution shift, a sentence each.

    rows : AUROC's rows of `compare.compare_shifts`.
    """
    lines = []
    for name, part in rows.groupby("domain", sort=False):
        mcp = part.loc[part["arm"] == "mcp", "estimate"].mul(100).dropna()
        oracles = part[part["arm"].isin(study.methods)].dropna(subset="difference")
        below, above = (oracles["difference_high"] < 0).sum(), (oracles["difference_low"] > 0).sum()
        at = f"MCP's AUROC is {span(mcp)} %" if len(mcp) else "MCP has no AUROC"
        lines.append(f"{labels[name]}: {at}; of {len(oracles)} oracles {below} are significantly below, {above} above.")
    return lines


def budget_findings(curves: pd.DataFrame, study: Study) -> list[str]:
    """What follows of a ladder of budgets by the rules of `analysis.budget`: two lines per pair."""
    lines = []
    for pair in dict.fromkeys(curves["pair"]):
        table, enough = budget.validation(curves, pair), budget.smallest(curves, pair)
        first = f"{enough:,} steps suffice for every method" if enough else "no budget suffices for every method"
        best = ", ".join(
            f"{PAPER_NAMES[loss]} {steps:,} ({100 * table[loss].max():.1f})" for loss, steps in table.idxmax().items()
        )
        longest = {loss: steps.dropna().index.max() for loss, steps in table.items()}
        settled = [loss for loss, steps in longest.items() if budget.converged(curves, pair, loss, steps)]
        train = curves[(curves["pair"] == pair) & (curves["split"] == "train")]
        at = train[train["steps"] == train["loss"].map(longest)]
        below = [loss for loss, of in at.groupby("loss", sort=False) if of["auroc"].mean() < of["mcp"].mean()]
        lines.append(f"{study.pair_label(pair)}: {first}; best for each, with its validation AUROC: {best}.")
        lines.append(
            f"{study.pair_label(pair)}, each at its longest budget: converged {_losses(settled)}; below MCP on the "
            f"oracle's own training images {_losses(below)}."
        )
    return lines


def _losses(names: list[str]) -> str:
    return joined(PAPER_NAMES[name] for name in names) or "none"


def tuned_findings(rows: pd.DataFrame, study: Study) -> list[str]:
    """The best method of the ablation of learning rates, and steep slope against its `against`, a line per pair."""
    lines = []
    for pair, part in rows[rows["metric"] == "auroc"].groupby("pair", sort=False):
        of_text = part[[study.method(arm).form == "corrected" for arm in part["arm"]]]
        best = of_text.loc[of_text["estimate"].idxmax()]
        less = with_interval(part[part["arm"] == "ss"], DIFFERENCE, 100, sign="+")
        against = study.ablation(rows["ablation"].iloc[0]).against
        gain = f"; SS minus {study.method_label(against)}: {less.iloc[0]} points" if against and len(less) else ""
        label = study.method_label(best["arm"])
        lines.append(f"{study.pair_label(pair)}: the best is {label}, {100 * best['estimate']:.1f} %{gain}.")
    return lines


def head_findings(most: pd.DataFrame, study: Study, names: Mapping[str, str]) -> list[str]:
    """How far each head on cached features lies from MCP, and how many add to it, two lines per classifier.

    most : `runs.heads.against_mcp`, with all images.
    """
    lines = []
    for name, part in most.groupby("classifier", sort=False):
        own = part[~part["fused"] & part["labels"].eq("train")]
        cells = with_interval(own, ["difference", "low", "high"], 100, sign="+")
        found = joined(f"{names[head]} {cell}" for head, cell in zip(own["head"], cells, strict=True))
        fused = part[part["fused"]]
        label = study.network(name).label
        lines.append(f"{label}, its own labels, AUROC minus MCP's in points: {found}.")
        lines.append(
            f"{label}: combined with MCP, {(fused['low'] > 0).sum()} of {counted(len(fused), 'head')} rank "
            "significantly better than MCP alone."
        )
    return lines


def contrast(difference: pd.DataFrame, label: str, rates: Iterable[str] = ("auroc", "tnr")) -> str:
    """A difference of two methods, `ablations.difference`, as a line: "label: AUROC +1.0 [+0.5, +1.5], ..."."""
    cells = with_interval(difference.loc[list(rates)], INTERVAL, 100, sign="+")
    named = {"auroc": "AUROC", "tnr": "TNR at z = 0", "tpr": "TPR at z = 0"}
    return f"{label}: " + ", ".join(f"{named[rate]} {cells[rate]}" for rate in rates) + " points."


def ranges(compared: pd.DataFrame, methods: list[str]) -> str:
    """AUROC, TPR and TNR of some methods, from the lowest to the highest mean, per cent: a piece of a sentence.

    Parameters
    ----------
    compared : rows with columns arm, metric and estimate, as `ablations.compare` returns.
    """
    percent = compared[compared["arm"].isin(methods)].set_index("metric")["estimate"].mul(100)
    return ", ".join(f"{heading} {span(percent[metric])}" for metric, heading in _RATES.items())


_RATES = {"auroc": "AUROC", "tpr": "TPR", "tnr": "TNR"}


def _alike(ss: Method, ce: Method) -> bool:
    """Steep slope loss and cross entropy as in the text, each with its head of the paper, trained in the same way?"""
    losses = [(arm.loss, arm.form, arm.head.endswith("distance")) for arm in (ss, ce)]
    ways = [(arm.backbone, arm.start is None, arm.training, arm.labels) for arm in (ss, ce)]
    return losses == [("ss", "corrected", True), ("ce", "corrected", False)] and ways[0] == ways[1]
