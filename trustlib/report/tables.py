"""Tables: DataFrames made ready to be read. Nothing is measured here.

`paper_form` takes the tidy frame that `compare.evaluate` returns, one row per run with fractions, and gives a table
in the form of the paper's Table 1: per cent, mean ± standard deviation over seeds, best in bold.
"""

import hashlib
import html
import json
import re
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from .. import confidence
from ..analysis.paper import PAPER_NAMES, paper_pair
from ..shifts import names
from ..shifts.corruptions import CORRUPTIONS
from ..stats import selective
from ..study import Study

# column -> (heading, which way is better: 1 up, -1 down, 0 neither is better by itself)
COLUMNS = {
    "accuracy": ("Acc", 0),
    "fpr95": ("FPR-95%-TPR ↓", -1),
    "aupr_error": ("AUPR-Error ↑", 1),
    "aupr_success": ("AUPR-Success ↑", 1),
    "auroc": ("AUC ↑", 1),
    "tpr": ("TPR", 0),
    "tnr": ("TNR", 0),
    "aurc": ("AURC ↓", -1),
    "eaurc": ("E-AURC ↓", -1),
    "augrc": ("AUGRC ↓", -1),
}
RISKS = {"aurc", "eaurc", "augrc"}  # which may be far below one per cent
OF_THE_CLASSIFIER = {"accuracy", "wrong"}  # one number for all oracles of a pair: no deviation
MISSING = "–"
DATA = {"fashion": "Fashion-MNIST", "mnist": "MNIST", "cifar10": "CIFAR-10", "tiny": "Tiny-ImageNet"}
DATA |= {"digits": "5,000 digits of MNIST"}
FEW = 50  # predictions of one kind, right or wrong, below which no score is called the best


def labelled(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The tidy frame with pairs and methods named as a reader knows them, and the group of each arm."""
    group = [confidence.GROUPS[study.group_of(arm)] for arm in frame["arm"]]
    return frame.assign(pair=frame["pair"].map(study.pair_label), arm=frame["arm"].map(study.method_label), group=group)


def _by_group(frame: pd.DataFrame) -> pd.MultiIndex:
    """(group, arm) of a labelled frame, in the order of the groups."""
    position = list(confidence.GROUPS.values()).index
    order = frame[["group", "arm"]].drop_duplicates()
    return pd.MultiIndex.from_frame(order.sort_values("group", key=lambda group: group.map(position), kind="stable"))


def mean_and_deviation(frame: pd.DataFrame, columns: list[str], by: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation (n - 1; NaN for one seed) of `columns`, rows in the order of `by`'s first sight."""
    groups = frame.groupby(by, sort=False)[columns]
    return groups.mean(), groups.std(ddof=1)


def paper_form(
    frame: pd.DataFrame, columns: dict[str, tuple[str, int]] = COLUMNS, *, scale: float = 100, digits: int = 2
) -> Styler:
    """A table in the form of the paper's Table 1, one row per pair and arm.

    Parameters
    ----------
    frame : columns "pair" and "arm" (labels), "seed", and those of `columns`, fractions.
    columns : column -> (heading, direction); bold marks the best mean of a pair where the direction is not 0.
    scale, digits : what a fraction is multiplied by; decimals shown.
    """
    mean, deviation = (part.mul(scale) for part in mean_and_deviation(frame, list(columns), ["pair", "arm"]))
    text = pd.DataFrame(index=mean.index, columns=list(columns), dtype=object)
    for column in columns:
        spread = deviation[column] * np.nan if column in OF_THE_CLASSIFIER else deviation[column]
        shown = max(digits, _decimals(mean[column], 3)) if column in RISKS else digits
        text[column] = [_cell(m, s, shown) for m, s in zip(mean[column], spread, strict=True)]
    signed = mean.mul([direction or np.nan for _, direction in columns.values()])
    bold = signed.eq(signed.groupby("pair", sort=False).transform("max"))
    headings = {column: heading for column, (heading, _) in columns.items()}
    text, bold = text.rename(columns=headings), bold.rename(columns=headings)
    return plain(text.style.apply(lambda _: _bold(bold), axis=None))


PERFORMANCE = COLUMNS | {"tnr_paper": ("TNR, paper's threshold", 0), "tied": ("tied samples", 0)}
SEPARABILITY = {
    "kl": ("average KL ↑", 1),
    "bhattacharyya": ("Bhattacharyya ↑", 1),
    "kl_released": ("average KL as released", 0),
}
BOTH_SIGNS = {
    "wrong": ("incorrect predictions", 0),
    "auroc": COLUMNS["auroc"],
    "aupr_error": COLUMNS["aupr_error"],
    "aupr_error_released": ("AUPR-Error as released", 0),
    "fpr95": COLUMNS["fpr95"],
    "fpr95_released": ("FPR-95%-TPR as released", 0),
}


def measured_forms(scores: pd.DataFrame, study: Study) -> dict[str, Styler]:
    """The report's tables of single runs in `paper_form`, by what they are of.

    Parameters
    ----------
    scores : what `compare.evaluate` returns.

    Returns
    -------
    performance, of every score; separability (nats) and signs (of AUPR-Error, as of FPR-95%-TPR), of MCP and oracles.
    """
    every = labelled(scores.assign(wrong=1 - scores["accuracy"]), study)
    oracles = every[scores["arm"].isin(["mcp", *study.methods])]
    return {
        "performance": paper_form(every, PERFORMANCE),
        "separability": paper_form(oracles, SEPARABILITY, scale=1, digits=3),
        "signs": paper_form(oracles, BOTH_SIGNS),
    }


def across_pairs(compared: pd.DataFrame, metric: str, scale: float = 100, *, few: Collection[str] = ()) -> Styler:
    """One metric with its intervals, one row per score and one column per pair; bold marks the best of a column.

    Rows are grouped as in `confidence.GROUPS`. Of a column in `few` none is marked.

    Parameters
    ----------
    compared : what `compare.compare_pairs` returns, for one or more pairs, labelled.
    metric : a key of `COLUMNS` whose direction is not 0.
    """
    chosen = compared[compared["metric"] == metric]
    text, value = _wide(chosen, ("estimate", "low", "high"), scale)
    value *= COLUMNS[metric][1]
    bold = value.eq(value.max()) & ~value.columns.isin(few)
    return plain(text.fillna(MISSING).style.apply(lambda _: _bold(bold), axis=None))


def _wide(labelled: pd.DataFrame, columns: tuple[str, str, str], scale: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Cells "estimate [low, high]" and the estimates, rows by group and method, one column per pair."""
    rows, pairs = _by_group(labelled), labelled["pair"].drop_duplicates()
    cells = labelled.assign(text=with_interval(labelled, columns, scale))
    wide = cells.pivot(index=["group", "arm"], columns="pair", values=["text", columns[0]]).reindex(rows)
    return wide["text"][pairs], wide[columns[0]][pairs].astype(float)


def within_form(within: pd.DataFrame, scale: float = 100) -> Styler:
    """What `compare.within_pairs` returns, labelled: one row per method, one column per pair, the best in bold."""
    text, value = _wide(within, ("auroc_within", "low", "high"), scale)
    return plain(text.fillna(MISSING).style.apply(lambda _: _bold(value.eq(value.max())), axis=None))


def fusion_form(fusion: pd.DataFrame, scale: float = 100) -> Styler:
    """What `compare.fusion_pairs` returns, labelled: one row per pair and oracle.

    Differences from MCP whose interval excludes 0 are in bold.
    """
    difference = ("difference", "difference_low", "difference_high")
    less = "minus MCP's"
    columns = {"AUC with MCP ↑": with_interval(fusion, ("auroc", "low", "high"), scale)}
    columns[less] = with_interval(fusion, difference, scale, sign="+")
    index = pd.MultiIndex.from_frame(fusion[["pair", "arm"]])
    text = pd.DataFrame(columns).set_axis(index)
    real = ((fusion["difference_low"] > 0) | (fusion["difference_high"] < 0)).set_axis(index)
    bold = pd.DataFrame({name: real & (name == less) for name in text})
    return plain(text.style.apply(lambda _: _bold(bold), axis=None))


def against_mcp(compared: pd.DataFrame, scale: float = 100) -> Styler:
    """The scores of one pair against MCP: in AUC, with what DeLong's test says, and in AURC, with their intervals.

    Rows are grouped as in `confidence.GROUPS`. Differences whose interval excludes 0 are in bold. There are two
    decimals, or as many as a bold difference and three digits of the lowest AURC need.

    Parameters
    ----------
    compared : what `compare.compare_pairs` returns for one pair, labelled.
    """
    columns, bold = {}, {}
    order = _by_group(compared)
    for metric in ("auroc", "aurc"):
        part = compared[compared["metric"] == metric].set_index(["group", "arm"]).reindex(order)
        heading = COLUMNS[metric][0]
        real = (part["difference_low"] > 0) | (part["difference_high"] < 0)
        lowest = _decimals(part["estimate"] * scale, 3) if metric in RISKS else 2
        shown = max(lowest, _decimals(part.loc[real, "difference"].abs() * scale, 1))
        if metric == "aurc":  # the AUC itself stands in `across_pairs`
            columns[heading] = with_interval(part, ("estimate", "low", "high"), scale, digits=shown)
        less = f"{heading.split()[0]} minus MCP's"
        difference = ("difference", "difference_low", "difference_high")
        columns[less] = with_interval(part, difference, scale, sign="+", digits=shown)
        bold[less] = real
        if metric == "auroc":
            columns["p"] = [_p_value(p) for p in part["p_holm"]]
    text = pd.DataFrame(columns, index=order)
    marked = pd.DataFrame({name: bold.get(name, False) for name in text}, index=order)
    return plain(text.style.apply(lambda _: _bold(marked), axis=None))


TABLE_3 = ("fpr95", "aupr_error", "aupr_success", "auroc", "tpr", "tnr")


def domains_form(compared: pd.DataFrame, scale: float = 100, *, few: Collection[str] = ()) -> Styler:
    """The scores of one pair on several domains in the form of the paper's Table 3, with intervals.

    Bold marks the best of a domain where one way is better, but for the domains in `few`.

    Parameters
    ----------
    compared : what `compare.compare_shifts` returns, of one pair, labelled, its domains too.
    """
    by, order = ["domain", "arm"], compared[["domain", "arm"]].drop_duplicates()
    metric = {name: rows.set_index(by) for name, rows in compared.groupby("metric")}
    text, bold = {}, {}
    for name in TABLE_3:
        heading, direction = COLUMNS[name]
        text[heading] = with_interval(metric[name], ("estimate", "low", "high"), scale, digits=1)
        signed = metric[name]["estimate"] * (direction or np.nan)
        best = signed.groupby("domain", sort=False).transform("max")
        bold[heading] = signed.eq(best) & ~signed.index.isin(few, level="domain")
    index = pd.MultiIndex.from_frame(order)
    text, bold = (pd.DataFrame(part).reindex(index) for part in (text, bold))
    return plain(text.style.apply(lambda _: _bold(bold), axis=None))


def unseen_forms(
    clean: pd.DataFrame, judged: pd.DataFrame, study: Study, *, few: Collection[str] = ()
) -> tuple[Styler, Styler]:
    """One pair under distribution shift: MCP and its oracles in `domains_form`, AUC of every score in `across_pairs`.

    Parameters
    ----------
    clean, judged : what `compare.compare_pairs` and `compare.compare_shifts` return, of that pair.
    few : labels of domains of which no score is called the best.
    """
    label = {name: names.parse(name).label for name in study.domains.judged}
    rows = labelled(judged.assign(domain=judged["domain"].map(label)), study)
    of_oracles = rows[judged["arm"].isin(["mcp", *study.methods])]
    beside = [labelled(clean, study).assign(pair="Clean test set"), rows.assign(pair=rows["domain"])]
    return domains_form(of_oracles, few=few), across_pairs(pd.concat(beside), "auroc", few=few)


def severities_form(swept: pd.DataFrame, metric: str, severity: int, scale: float = 100) -> Styler:
    """One metric under every corruption, one row each and their mean last, one column per method: as in Table A1.

    Parameters
    ----------
    swept : what `compare.sweep` returns, of one pair, labelled. Means over seeds are shown, the best in bold where
        one way is better; the last row is the mean over those of ImageNet-C's 15.
    """
    chosen = swept[swept["severity"] == severity]
    value = chosen.groupby(["corruption", "arm"], sort=False)[metric].mean().unstack("arm").mul(scale)
    value = value[chosen["arm"].drop_duplicates()].reindex(chosen["corruption"].drop_duplicates())
    standard = [name for name in value.index if name in CORRUPTIONS]
    mean = value.loc[standard].mean()
    value.index = [names.corruption_label(name) for name in value.index]
    value.loc[f"Mean of {len(standard)} of ImageNet-C"] = mean
    signed = value * (COLUMNS[metric][1] or np.nan)
    best = signed.eq(signed.max(axis=1), axis=0)
    return plain(value.style.format("{:.2f}", na_rep=MISSING).apply(lambda _: _bold(best), axis=None))


VERDICT_COLOURS = {  # of the background; the words say it too
    "reproduced": "#d9ecd9",
    "mixed": "#fdf0c4",
    "contradicted": "#fde2d5",
    "inconclusive": "#eeeeee",
    "not tested": "#ffffff",
}


def claims_form(claims: pd.DataFrame) -> Styler:
    """What `claims.judge` returns, or some rows of it; the verdict links to the section with its evidence."""
    escaped = claims.map(html.escape)
    verdict = [
        f'<a href="#{section}">{text}</a>' for section, text in zip(escaped["section"], escaped["verdict"], strict=True)
    ]
    text = pd.DataFrame(
        {
            "Claim": escaped["claim"] + '<br><span class="where">' + escaped["where"] + "</span>",
            "Measured": escaped["quantity"],
            "Found": escaped["found"],
            "Verdict": verdict,
        }
    )
    colours = claims["verdict"].map(VERDICT_COLOURS)
    style = text.style.apply(lambda _: [f"background: {colour}" for colour in colours], subset=["Verdict"])
    style = style.set_uuid(_digest(text)).set_table_attributes('class="data claims"')
    return style.hide(axis="index")


def ablation_form(compared: pd.DataFrame, study: Study, against: str | None) -> Styler:
    """The methods of one ablation on one pair: their rates, metrics and difference in AUC from one of them, per cent.

    Significant differences (the interval excludes 0) are in bold.

    Parameters
    ----------
    compared : rows of what `ablations.compare` returns, of one pair.
    against : the method that the others are compared with.
    """
    order = compared["arm"].drop_duplicates()
    chosen = ("auroc", "fpr95", "tpr", "tnr")
    part = {m: compared[compared["metric"] == m].set_index("arm").reindex(order) for m in chosen}
    columns = {"rate": part["auroc"]["rate"].map(number)}
    columns["AUC ↑"] = with_interval(part["auroc"], ("estimate", "low", "high"), 100)
    marked = pd.DataFrame(False, index=order, columns=["rate", "AUC ↑"])
    if against:
        less = f"AUC minus {study.method_label(against)}'s"
        difference = ("difference", "difference_low", "difference_high")
        columns[less] = with_interval(part["auroc"], difference, 100, sign="+")
        marked[less] = (part["auroc"]["difference_low"] > 0) | (part["auroc"]["difference_high"] < 0)
    matched = 1 - part["fpr95"][["estimate", "high", "low"]].set_axis(["estimate", "low", "high"], axis=1)
    columns["TNR at TPR 95 % ↑"] = with_interval(matched, ("estimate", "low", "high"), 100)
    columns |= {m.upper(): part[m]["estimate"].mul(100).map("{:.2f}".format) for m in ("tpr", "tnr")}
    text = pd.DataFrame(columns, index=order)
    marked = marked.reindex(columns=text.columns, fill_value=False)
    text.index = marked.index = [study.method_label(arm) for arm in order]
    return plain(text.style.apply(lambda _: _bold(marked), axis=None))


def operating_form(points: pd.DataFrame, risk: float) -> Styler:
    """What `compare.operating_points` returns, its index labelled, in per cent (NLL in nats)."""
    percent = points.mul(100)
    text = pd.DataFrame(
        {
            "TPR": with_interval(percent, ("tpr", "tpr_low", "tpr_high"), 1),
            "TNR": with_interval(percent, ("tnr", "tnr_low", "tnr_high"), 1),
            "TNR at TPR 95 %": percent["tnr95"].map("{:.2f}".format),
            f"coverage at risk {100 * risk:g} %": percent["coverage"].map("{:.2f}".format),
            "guaranteed": percent["guaranteed"].map("{:.2f}".format),
            "ECE": percent["ece"].map("{:.2f}".format),
            "Brier": percent["brier"].map("{:.2f}".format),
            "NLL": points["nll"].map("{:.3f}".format),
        }
    )
    return plain(text.replace({"nan": MISSING, "inf": "∞"}))


def metrics_form(judged: pd.DataFrame, scale: float = 100) -> Styler:
    """Every metric of several scores, per cent, with intervals: what `evaluate.compare_scores` returns.

    The best of a column is in bold; the last column is the difference in AUC from the first score.
    """
    order = judged["score"].drop_duplicates()
    metric = {name: rows.set_index("score").reindex(order) for name, rows in judged.groupby("metric")}
    text, bold = {}, {}
    for name, (heading, direction) in COLUMNS.items():
        text[heading] = with_interval(metric[name], ("estimate", "low", "high"), scale)
        signed = metric[name]["estimate"] * (direction or np.nan)
        bold[heading] = signed.eq(signed.max()) & (len(order) > 1)
    if len(order) > 1:
        less = f"AUC minus {order.iloc[0]}'s"
        columns = ("difference", "difference_low", "difference_high")
        text[less] = with_interval(metric["auroc"], columns, scale, sign="+")
        bold[less] = (metric["auroc"]["difference_low"] > 0) | (metric["auroc"]["difference_high"] < 0)
    return plain(pd.DataFrame(text).style.apply(lambda _: _bold(pd.DataFrame(bold)), axis=None))


def guarantees_form(found: pd.DataFrame) -> Styler:
    """What `evaluate.guarantees` returns, per cent; where there is no threshold, why."""
    rows = {}
    for name, row in found.iterrows():
        if row["found"]:
            shares = (f"{100 * row[column]:.2f}" for column in ("coverage", "risk", "bound"))
            above = "all are kept" if row["threshold"] == -np.inf else selective.in_full(row["threshold"])
            rows[name] = [above, f"{row['kept']:,}", *shares, ""]
        else:
            rows[name] = [MISSING] * 5 + [row["reason"]]
    columns = ["threshold", "kept", "coverage", "errors among them", "bound", "why there is none"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    if (frame[columns[-1]] == "").all():
        return plain(frame[columns[:-1]])
    words = {"selector": f".col{len(columns) - 1}", "props": "text-align: left; white-space: normal; min-width: 18em"}
    return plain(frame).set_table_styles([words], overwrite=False)


def groups_form(found: pd.DataFrame, scale: float = 100) -> Styler:
    """What `evaluate.groups` returns, per cent."""
    text = {"rows": found["n"].map("{:,}".format), "wrong": found["wrong"].map("{:,}".format)}
    headings = {"accuracy": "Acc", "auroc": "AUC", "coverage": "kept", "risk": "errors among the kept"}
    for name, heading in headings.items():
        text[heading] = with_interval(found, (name, f"{name}_low", f"{name}_high"), scale)
    text["AUC"] = text["AUC"].where(found["note"] == "", found["note"])
    return plain(pd.DataFrame(text))


def published_form(published: pd.DataFrame) -> Styler:
    """A published table, as it stands in data/published, in the form of the paper.

    Parameters
    ----------
    published : columns pair, loss, metric, mean, deviation; per cent.
    """
    text = published.assign(
        text=[_cell(m, s) for m, s in zip(published["mean"], published["deviation"], strict=True)],
        pair=published["pair"].map(paper_pair),
        loss=published["loss"].map(PAPER_NAMES),
    )
    order = list(dict.fromkeys(zip(text["pair"], text["loss"], strict=True)))
    wide = text.pivot(index=["pair", "loss"], columns="metric", values="text").reindex(order)
    wide = wide[[column for column in COLUMNS if column in wide]].rename(
        columns={c: h for c, (h, _) in COLUMNS.items()}
    )
    return plain(wide)


def table2_form(published: pd.DataFrame, compared: pd.DataFrame, rows: dict[str, str], scale: float = 100) -> Styler:
    """The paper's Table 2 on one data set, each row followed by this study's own, with intervals on both.

    Parameters
    ----------
    published : what `published.table2` returns. Its TNR of TCP is the paper's, at 1/K.
    compared : what `compare.compare_pairs` returns for one pair.
    rows : row of the table -> method or score of the study, `published.TABLE_2`; None where it has none.
    """
    frames = {}
    for loss, arm in rows.items():
        sources = {"paper": published[published["loss"] == loss]}
        sources |= {"here": compared[compared["arm"] == arm]} if arm else {}
        for source, frame in sources.items():
            cells = frame.set_index("metric").reindex(TABLE_3)
            frames[PAPER_NAMES.get(loss, loss), source] = with_interval(cells, ("estimate", "low", "high"), scale)
    wide = pd.DataFrame(frames).T.rename_axis(index=["", ""]).rename(columns={c: h for c, (h, _) in COLUMNS.items()})
    return plain(wide)


def number(value: float) -> str:
    """A rate as it stands in the prose: 0.001, 1e-5."""
    return f"{value:g}".replace("e-0", "e-")


def _span(values: pd.Series) -> str:
    low, high = (f"{value:.1f}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def runs_table(rows: list[dict]) -> Styler:
    """The table of all runs, `runs.trainings`; those that failed or are missing are marked."""
    frame = pd.DataFrame(rows, columns=["run", "status", "loss", "seconds", "device", "key", "error"])
    marked = frame["status"].ne("done")
    style = frame.style
    style = style.apply(lambda row: ["background: #fde2d5" if marked[row.name] else ""] * len(row), axis=1)
    style = style.format({"loss": "{:.4f}", "seconds": "{:.1f}"}, na_rep="", escape="html")
    words = map(frame.columns.get_loc, ["run", "status", "device", "error"])
    words = [{"selector": f".col{column}", "props": "text-align: left"} for column in words]
    return plain(style.hide(axis="index")).set_table_styles(words, overwrite=False)


def provenance_form(facts: dict[str, Any]) -> Styler:
    """What made a result, one row per fact: `provenance.provenance`, with what a notebook adds to it."""
    rows: dict[str, str] = {}
    for name, value in ({k: v for k, v in facts.items() if k != "versions"} | facts["versions"]).items():
        if name == "dirty":
            rows["uncommitted changes"] = "yes" if value else "no"
        else:
            rows[name] = (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
    return plain(pd.Series(rows, name="this run").to_frame())


def plain(table: Styler | pd.DataFrame) -> Styler:
    """A Styler that writes the same HTML every time, its cells' ids its own; names of rows and columns are left out.

    Texts are shown as they are, since they may be your own: headings, and the cells of a frame. The cells of a Styler
    are as it formats them.
    """
    style = table.style.format(escape="html") if isinstance(table, pd.DataFrame) else table
    for axis in ("index", "columns"):
        style = style.format_index(_unbroken, escape="html", axis=axis)
    style = style.set_uuid(_digest(style.data)).set_table_attributes('class="data"')
    style = style.set_table_styles([{"selector": "td", "props": "white-space: nowrap"}])
    return style.hide(names=True, axis="index").hide(names=True, axis="columns")


def _digest(frame: pd.DataFrame) -> str:
    """Of a table's content, as `runs.provenance.digest` has it, which takes torch."""
    return hashlib.sha256(json.dumps(frame.to_csv()).encode()).hexdigest()[:16]


def _unbroken(heading: Any) -> Any:
    """A heading that no line ends in before an arrow or a sign of per cent."""
    return re.sub(r" (?=[↑↓%])", "\N{NO-BREAK SPACE}", heading) if isinstance(heading, str) else heading


def _decimals(values: pd.Series, digits: int) -> int:
    """Decimals, 2 to 5, that show so many digits of the lowest of some positive values."""
    least = values[values > 0].min()
    return 2 if np.isnan(least) else int(np.clip(digits - 1 - np.floor(np.log10(least)), 2, 5))


def _bold(chosen: pd.DataFrame) -> pd.DataFrame:
    return chosen.astype(object).where(~chosen, "font-weight: bold").where(chosen, "")


def with_interval(
    frame: pd.DataFrame, columns: tuple[str, str, str], scale: float, sign: str = "", digits: int = 2
) -> pd.Series:
    """Cells "estimate [low, high]"; "–" where there is no estimate.

    Parameters
    ----------
    columns : of the estimate and of its interval's ends.
    scale : what they are multiplied by.
    sign : "+" to show the sign of positive values.
    digits : decimals shown.
    """
    cells = []
    for value, low, high in frame[list(columns)].mul(scale).itertuples(index=False):
        text = MISSING if np.isnan(value) else f"{value:{sign}.{digits}f}"
        cells.append(text if np.isnan(low) else f"{text} [{low:{sign}.{digits}f}, {high:{sign}.{digits}f}]")
    return pd.Series(cells, frame.index, dtype=object)


def _p_value(p: float) -> str:
    return MISSING if np.isnan(p) else f"{p:.2g}" if p >= 1e-4 else "< 0.0001"


def _cell(mean: float, deviation: float, digits: int = 2) -> str:
    if np.isnan(mean):
        return MISSING
    return f"{mean:.{digits}f}" if np.isnan(deviation) else f"{mean:.{digits}f} ± {deviation:.{digits}f}"
