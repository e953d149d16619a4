"""The tables of a study's page: DataFrames made ready to be read. Nothing is measured here.

Rows are labelled and grouped as a reader knows them (`by_classifier`). Per cent with one decimal; all digits are in the
published CSV. Bold marks a significant difference: its 95 % interval excludes 0.
"""

import html
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from .. import confidence
from ..analysis.compare import DIFFERENCE, INTERVAL
from ..analysis.paper import PAPER_NAMES, TABLE_2
from ..stats.rates import clopper_pearson
from ..study import Study
from .tables import COLUMNS, MISSING, RISKS, decimals, in_bold, paper_form, plain, with_interval

GROUPS = confidence.GROUPS | {"released": "Oracles, as in the released code"}
SIDE_BY_SIDE = ("auroc", "fpr95", "aupr_error", "aupr_success", "tpr", "tnr")
EQUAL = 0.0005  # difference in AUROC, below which a score is MCP's to the decimal
PERFORMANCE = COLUMNS | {"tnr_paper": ("TNR, paper's threshold", 0), "tied": ("tied samples", 0)}
SEPARABILITY = {
    "kl": ("average KL ↑", 1),
    "bhattacharyya": ("Bhattacharyya ↑", 1),
    "kl_released": ("average KL as released", 0),
}
BOTH_SIGNS = {
    "aupr_error": COLUMNS["aupr_error"],
    "aupr_error_released": ("AUPR-Error as released", 0),
    "fpr95": COLUMNS["fpr95"],
    "fpr95_released": ("FPR-95%-TPR as released", 0),
}


def group_of(study: Study, arm: str) -> str:
    """The group of `GROUPS` of a method or score."""
    is_released = arm in study.all_methods and ("released" in arm or study.method(arm).form == "released")
    return "released" if is_released else study.group_of(arm)


def main_methods(study: Study) -> list[str]:
    """The first method of each loss of the text, all fine-tuned or all on a frozen backbone: like for like.

    Of the two that with more losses, fine-tuned where both have as many.
    """
    regimes: dict[str, dict[str, str]] = {"trained": {}, "frozen": {}}
    for name, method in study.methods.items():
        if method.form == "corrected" and "released" not in name:
            regimes[method.backbone].setdefault(method.loss, name)
    return list(max(regimes.values(), key=len).values())


def by_classifier(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Rows of pairs by the classifier that is judged; what needs no oracle, once where several pairs share it.

    Parameters
    ----------
    frame : columns pair and arm, in any order with others.

    Returns
    -------
    The rows with columns more, sorted by group: classifier (its label), group and label of the row. An oracle that
    another one of its classifier has the method of is named with its network.
    """
    oracle, judged = (frame["pair"].str.split("-").str[i] for i in (0, 1))
    is_method = frame["arm"].isin(study.methods)
    keys = [c for c in ("arm", "metric", "seed", "domain", "corruption", "severity") if c in frame]
    repeated = frame[keys].assign(judged=judged).duplicated() & ~is_method
    several = judged.map(oracle.groupby(judged).nunique()) > 1
    label = frame["arm"].map(study.method_label)
    network = oracle.map(lambda name: f", {study.network(name).label} oracle")
    named = frame.assign(
        classifier=judged.map(lambda name: study.network(name).label),
        group=[GROUPS[group_of(study, arm)] for arm in frame["arm"]],
        label=label.where(~(several & is_method), label + network),
    )
    order = list(GROUPS.values())
    return named[~repeated].sort_values("group", key=lambda group: group.map(order.index), kind="stable")


def equal_to_mcp(compared: pd.DataFrame, study: Study) -> list[str]:
    """The scores of the softmax that have MCP's AUROC to the decimal on every classifier, or everywhere compared."""
    area = compared[compared["metric"].eq("auroc") & compared["difference"].notna()]
    largest = area["difference"].abs().groupby(area["arm"], sort=False).max()
    return [arm for arm in largest.index[largest < EQUAL] if study.group_of(arm) == "softmax"]


def every_score(compared: pd.DataFrame) -> Styler:
    """The scores of one classifier: AUROC, AURC, and their differences from MCP, per cent.

    Parameters
    ----------
    compared : what `compare.compare_pairs` returns, of one classifier, in the form of `by_classifier`.
    """
    index = pd.MultiIndex.from_frame(compared[["group", "label"]].drop_duplicates())
    columns, marked = {}, {}
    for metric in ("auroc", "aurc"):
        part = compared[compared["metric"] == metric].set_index(["group", "label"]).reindex(index)
        shown = decimals(part["estimate"] * 100, 2) if metric in RISKS else 1
        heading = COLUMNS[metric][0]
        columns[heading] = with_interval(part, INTERVAL, 100, digits=shown)
        less = f"{heading.split()[0]} minus MCP's"
        columns[less] = with_interval(part, DIFFERENCE, 100, sign="+", digits=shown)
        marked[less] = is_significant(part)
        if metric == "auroc":
            columns["p, Holm"] = [_p_value(p) for p in part["p_holm"]]
    text = pd.DataFrame(columns, index=index)
    chosen = pd.DataFrame(marked, index=index).reindex(columns=text.columns, fill_value=False)
    return plain(text.style.apply(lambda _: in_bold(chosen), axis=None))


def is_significant(rows: pd.DataFrame) -> pd.Series:
    """Whether the 95 % interval of a difference excludes 0."""
    return (rows["difference_low"] > 0) | (rows["difference_high"] < 0)


def measured_forms(scores: pd.DataFrame, study: Study) -> dict[str, Styler]:
    """The tables of single runs in `tables.paper_form`, by what they are of.

    Parameters
    ----------
    scores : what `compare.evaluate` returns.

    Returns
    -------
    performance, of every score; separability (nats) and signs (of AUPR-Error, as of FPR-95%-TPR), of MCP and oracles.
    """
    named = by_classifier(scores, study)
    every = named.assign(pair=named["classifier"], arm=named["label"])
    oracles = every[named["arm"].isin(["mcp", *study.methods])]
    return {
        "performance": paper_form(every, {name: of for name, of in PERFORMANCE.items() if name != "accuracy"}),
        "separability": paper_form(oracles, SEPARABILITY, scale=1, digits=2),
        "signs": paper_form(oracles, BOTH_SIGNS),
    }


def over_classifiers_form(over: pd.DataFrame, study: Study) -> Styler:
    """What `compare.over_classifiers` returns: AUROC, its difference from MCP's, and the rates at z = 0; per cent."""
    order = over["arm"].drop_duplicates()
    metric = {name: part.set_index("arm").loc[order] for name, part in over.groupby("metric")}
    columns = {"AUROC": with_interval(metric["auroc"], INTERVAL, 100)}
    columns["AUROC minus MCP's"] = with_interval(metric["auroc"], DIFFERENCE, 100, sign="+", digits=2)
    columns |= {name.upper(): with_interval(metric[name], INTERVAL, 100) for name in ("tpr", "tnr")}
    text = pd.DataFrame(columns).rename(index=study.method_label)
    chosen = pd.DataFrame(False, text.index, text.columns)
    chosen["AUROC minus MCP's"] = is_significant(metric["auroc"]).to_numpy()
    return plain(text.style.apply(lambda _: in_bold(chosen), axis=None))


def within_form(within: pd.DataFrame) -> Styler:
    """What `compare.within_pairs` returns, in the form of `by_classifier`: one column per classifier, per cent."""
    cells = within.assign(text=with_interval(within, ["auroc_within", "low", "high"], 100))
    return plain(_wide(cells))


def fusion_form(fusion: pd.DataFrame) -> Styler:
    """What `compare.fusion_pairs` returns, in the form of `by_classifier`: the difference from MCP's AUROC, points."""
    cells = fusion.assign(text=with_interval(fusion, DIFFERENCE, 100, sign="+", digits=2), real=is_significant(fusion))
    text, chosen = _wide(cells), _wide(cells, "real").eq(True)
    return plain(text.style.apply(lambda _: in_bold(chosen), axis=None))


def _wide(cells: pd.DataFrame, column: str = "text") -> pd.DataFrame:
    """One column of a labelled frame, rows by group and label, one column per classifier."""
    rows = pd.MultiIndex.from_frame(cells[["group", "label"]].drop_duplicates())
    wide = cells.pivot(index=["group", "label"], columns="classifier", values=column).reindex(rows)
    return wide[list(cells["classifier"].drop_duplicates())].fillna(MISSING)


# --- Paper and study side by side ---


def of_paper(rows: pd.DataFrame) -> pd.Series:
    """metric -> "mean ± deviation", or "mean", of a row of a published table, per cent."""
    deviation = rows["deviation"] if "deviation" in rows else pd.Series(np.nan, rows.index)
    texts = [
        f"{mean:.1f}" if np.isnan(spread) else f"{mean:.1f} ± {spread:.1f}"
        for mean, spread in zip(rows["mean"], deviation, strict=True)
    ]
    return pd.Series(texts, rows["metric"])


def with_intervals(rows: pd.DataFrame) -> pd.Series:
    """metric -> "estimate [low, high]", per cent, of one method of `compare.compare`, or of `paper.table2`."""
    return with_interval(rows.set_index("metric"), INTERVAL, 100)


def side_by_side(rows: Iterable[tuple[str, str, str, pd.Series]]) -> Styler:
    """Rows of the paper's tables, each next to the study's own.

    Parameters
    ----------
    rows : group, name, source ("paper" or "here") and metric -> cell; a name is shown once.
    """
    cells = {(group, f"{name}, {source}"): row.reindex(SIDE_BY_SIDE) for group, name, source, row in rows}
    frame = pd.DataFrame(cells).T.fillna(MISSING)
    frame = frame.droplevel(0) if frame.index.get_level_values(0).nunique() == 1 else frame
    return plain(frame.rename(columns={metric: COLUMNS[metric][0] for metric in SIDE_BY_SIDE}))


def table1_form(published: pd.DataFrame, compared: pd.DataFrame, study: Study, pairs: list[str]) -> Styler:
    """The paper's Table 1 with the study's rows: MCP, each loss of the paper in turn, then the study's own.

    published : as in data/published. The paper's row is that of the same pair, where it has one.
    """
    rows = []
    for pair in pairs:
        label, ours = study.pair_label(pair), compared[compared["pair"] == pair]
        theirs = published[published["pair"] == pair]
        for arm in ["mcp", *main_methods(study)]:
            loss = "mcp" if arm == "mcp" else study.method(arm).loss
            of_paper_row = theirs[theirs["loss"] == loss]
            if len(of_paper_row):
                rows.append((label, study.method_label(arm), "paper", of_paper(of_paper_row)))
            rows.append((label, study.method_label(arm), "here", with_intervals(ours[ours["arm"] == arm])))
    return side_by_side(rows)


def table2_form(published: pd.DataFrame, compared: pd.DataFrame) -> Styler:
    """The paper's Table 2 on one data set, each row followed by this study's own, with intervals on both.

    published : what `paper.table2` returns. Its TNR of TCP is the paper's, at 1/K.
    compared : what `compare.compare_pairs` returns for one pair.
    """
    rows = []
    for loss, arm in TABLE_2.items():
        name = PAPER_NAMES.get(loss, loss)
        rows.append(("", name, "paper", with_intervals(published[published["loss"] == loss])))
        if arm:
            rows.append(("", name, "here", with_intervals(compared[compared["arm"] == arm])))
    return side_by_side(rows)


THEIRS = {"stylized": "stylized", "recolor": "adversarial", "defocus_blur-5": "defocus_blur"}  # ours -> Table 3's


def table3_form(published: pd.DataFrame, shifted: pd.DataFrame, study: Study, labels: dict[str, str]) -> Styler:
    """The paper's Table 3, of its ⟨ViT, ViT⟩, with one pair of the study on each of its distribution shifts.

    shifted : what `compare.compare_shifts` returns, of that pair.
    labels : shift -> its name for a reader.
    """
    rows = []
    for domain, ours in shifted.groupby("domain", sort=False):
        theirs = published[published["domain"] == THEIRS.get(domain, "")]
        for arm in ["mcp", *main_methods(study)]:
            loss = "mcp" if arm == "mcp" else study.method(arm).loss
            of_paper_row = theirs[theirs["loss"] == loss]
            if len(of_paper_row):
                rows.append((labels[domain], study.method_label(arm), "paper", of_paper(of_paper_row)))
            rows.append((labels[domain], study.method_label(arm), "here", with_intervals(ours[ours["arm"] == arm])))
    return side_by_side(rows)


# --- Claims, operating points, shifts ---


def claims_form(claims: pd.DataFrame, sections: Iterable[str]) -> Styler:
    """What `claims.judge` returns, or some rows of it; a verdict links to its section where the page has that.

    sections : ids of those that the page has.
    """
    known, escaped = set(sections), claims.map(html.escape)
    verdicts = []
    for verdict, section in zip(escaped["verdict"], escaped["section"], strict=True):
        kind = f'class="verdict {verdict.replace(" ", "-")}"'
        is_there = section in known
        verdicts.append(f'<a {kind} href="#{section}">{verdict}</a>' if is_there else f"<span {kind}>{verdict}</span>")
    named = '<span id="claim-' + escaped["id"] + '">' + escaped["claim"] + "</span>"
    columns = {"Claim": named + '<br><span class="where">' + escaped["where"] + "</span>"}
    columns |= {"Decided by": escaped["quantity"], "Found": escaped["found"], "Verdict": verdicts}
    style = plain(pd.DataFrame(columns).style).hide(axis="index").set_table_styles([])  # its cells are of several lines
    return style.set_table_attributes(f'class="data claims" data-asked-by="{claims["asked_by"].iloc[0]}"')


def operating_form(points: pd.DataFrame, risk: float) -> Styler:
    """What `compare.operating_points` returns, its index labelled, in per cent (NLL in nats)."""
    percent = points.mul(100)
    text = pd.DataFrame(
        {
            "TPR": with_interval(percent, ["tpr", "tpr_low", "tpr_high"], 1),
            "TNR": with_interval(percent, ["tnr", "tnr_low", "tnr_high"], 1),
            "TNR at TPR 95 %": percent["tnr95"].map("{:.1f}".format),
            f"coverage at risk {100 * risk:g} %": percent["coverage"].map("{:.1f}".format),
            "guaranteed": percent["guaranteed"].map("{:.1f}".format),
            "ECE": percent["ece"].map("{:.1f}".format),
            "Brier": percent["brier"].map("{:.1f}".format),
            "NLL": points["nll"].map("{:.2f}".format),
        }
    )
    return plain(text.replace({"nan": MISSING, "inf": "∞"}))


def shifted_scores(rows: pd.DataFrame, labels: Mapping[str, str]) -> Styler:
    """AUROC of every score of one classifier, one column per distribution shift, per cent.

    Parameters
    ----------
    rows : AUROC's rows in the form of `by_classifier`, with a column domain.
    labels : domain -> its name, in order.
    """
    cells = rows.assign(text=with_interval(rows, INTERVAL, 100), classifier=rows["domain"].map(labels))
    return plain(_wide(cells))


def accuracies_form(rows: pd.DataFrame, results: Any, labels: Mapping[str, str]) -> Styler:
    """Accuracy of each classifier under shift, and on the same images clean, per cent with exact 95 % intervals.

    Parameters
    ----------
    rows : pair and domain, once each.
    labels : domain -> its name.
    """
    study, cells = results.study, {}
    for pair, name in rows[["pair", "domain"]].itertuples(index=False):
        shifted = results.predictions(pair, study.domains.parts[name]).correct
        clean, judged = results.predictions(pair).correct[: len(shifted)], study.network(pair.split("-")[1]).label
        for heading, correct in ((f"{judged}, clean", clean), (judged, shifted)):
            low, high = clopper_pearson(correct.sum(), len(correct))
            text = f"{100 * correct.mean():.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            cells.setdefault(heading, {})[labels[name]] = text
    return plain(pd.DataFrame(cells))


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Key figures in a row, as HTML: (value, what it is) each."""
    made = (f"<div><b>{html.escape(value)}</b> {html.escape(what)}</div>" for value, what in figures)
    return f'<div class="tiles">{"".join(made)}</div>'


def _p_value(p: float) -> str:
    return MISSING if np.isnan(p) else f"{p:.2g}" if p >= 1e-4 else "< 0.0001"
