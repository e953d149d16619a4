"""Tables: DataFrames made ready to be read. Nothing is measured here.

`paper_form` takes the tidy frame that `evaluation.evaluate` returns, one row a run with fractions, and gives a table
in the form of the paper's Table 1: per cent, mean ± standard deviation over seeds, best in bold.
"""

import html
from itertools import product

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from . import statistics
from .corruptions import CORRUPTIONS
from .provenance import digest
from .study import Arm, Study

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
OF_THE_CLASSIFIER = {"accuracy", "wrong"}  # one number for all oracles of a pair: no deviation
PAPER_NAMES = {"vit": "ViT", "rsn": "RSN", "ce": "CE", "focal": "Focal", "tcp": "TCP", "ss": "SS"}
PAPER_NAMES |= {"mcp": "MCP", "mc_dropout": "MC dropout", "trust_score": "TrustScore", "tcp-dagger": "TCP†"}
MISSING = "–"


def labelled(frame: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The tidy frame with pairs and arms named as a reader knows them."""
    return frame.assign(pair=frame["pair"].map(study.pair_label), arm=frame["arm"].map(study.arm_label))


def mean_and_deviation(frame: pd.DataFrame, columns: list[str], by: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Mean and standard deviation (n - 1; NaN for one seed) of `columns`, rows in the order of `by`'s first sight."""
    groups = frame.groupby(by, sort=False)[columns]
    return groups.mean(), groups.std(ddof=1)


def paper_form(
    frame: pd.DataFrame, columns: dict[str, tuple[str, int]] = COLUMNS, *, scale: float = 100, digits: int = 2
) -> Styler:
    """A table in the form of the paper's Table 1, a row a pair and arm.

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
        text[column] = [_cell(m, s, digits) for m, s in zip(mean[column], spread, strict=True)]
    signed = mean.mul([direction or np.nan for _, direction in columns.values()])
    bold = signed.eq(signed.groupby("pair", sort=False).transform("max"))
    headings = {column: heading for column, (heading, _) in columns.items()}
    text, bold = text.rename(columns=headings), bold.rename(columns=headings)
    return plain(text.style.apply(lambda _: _bold(bold), axis=None))


def across_pairs(compared: pd.DataFrame, metric: str, scale: float = 100) -> Styler:
    """One metric with its intervals, a row a score and a column a pair; bold marks the best of a column.

    Parameters
    ----------
    compared : what `evaluation.compare` returns, for one or more pairs, labelled.
    metric : a key of `COLUMNS` whose direction is not 0.
    """
    chosen = compared[compared["metric"] == metric]
    order = [chosen["arm"].drop_duplicates(), chosen["pair"].drop_duplicates()]
    text = chosen.assign(text=with_interval(chosen, ("estimate", "low", "high"), scale))
    text = text.pivot(index="arm", columns="pair", values="text").reindex(index=order[0], columns=order[1])
    value = chosen.pivot(index="arm", columns="pair", values="estimate").reindex(index=order[0], columns=order[1])
    value *= COLUMNS[metric][1]
    return plain(text.fillna(MISSING).style.apply(lambda _: _bold(value.eq(value.max())), axis=None))


def against_mcp(compared: pd.DataFrame, scale: float = 100) -> Styler:
    """The scores of one pair against MCP: in AUC, with what DeLong's test says, and in AURC, with their intervals.

    Differences whose interval leaves out 0 are in bold.

    Parameters
    ----------
    compared : what `evaluation.compare` returns for one pair, labelled.
    """
    columns, bold = {}, {}
    order = compared["arm"].drop_duplicates()
    for metric in ("auroc", "aurc"):
        part = compared[compared["metric"] == metric].set_index("arm").reindex(order)
        heading = COLUMNS[metric][0]
        if metric == "aurc":  # the AUC itself stands in `across_pairs`
            columns[heading] = with_interval(part, ("estimate", "low", "high"), scale)
        less = f"{heading.split()[0]} minus MCP's"
        columns[less] = with_interval(part, ("difference", "difference_low", "difference_high"), scale, sign="+")
        bold[less] = (part["difference_low"] > 0) | (part["difference_high"] < 0)
        if metric == "auroc":
            columns["p"] = [_p_value(p) for p in part["p_holm"]]
    text = pd.DataFrame(columns, index=order)
    marked = pd.DataFrame({name: bold.get(name, False) for name in text}, index=order)
    return plain(text.style.apply(lambda _: _bold(marked), axis=None))


TABLE_3 = ("fpr95", "aupr_error", "aupr_success", "auroc", "tpr", "tnr")


def domains_form(compared: pd.DataFrame, scale: float = 100) -> Styler:
    """The scores of one pair on several domains in the form of the paper's Table 3, with intervals.

    Bold marks the best of a domain where one way is better.

    Parameters
    ----------
    compared : what `evaluation.judged` returns, of one pair, labelled, its domains too.
    """
    by, order = ["domain", "arm"], compared[["domain", "arm"]].drop_duplicates()
    metric = {name: rows.set_index(by) for name, rows in compared.groupby("metric")}
    text, bold = {}, {}
    for name in TABLE_3:
        heading, direction = COLUMNS[name]
        text[heading] = with_interval(metric[name], ("estimate", "low", "high"), scale, digits=1)
        signed = metric[name]["estimate"] * (direction or np.nan)
        bold[heading] = signed.eq(signed.groupby("domain", sort=False).transform("max"))
    index = pd.MultiIndex.from_frame(order)
    text, bold = (pd.DataFrame(part).reindex(index) for part in (text, bold))
    return plain(text.style.apply(lambda _: _bold(bold), axis=None))


def severities_form(swept: pd.DataFrame, metric: str, severity: int, scale: float = 100) -> Styler:
    """One metric under every corruption, a row a corruption and their mean last, a column an arm: Table A1's kind.

    Parameters
    ----------
    swept : what `evaluation.sweep` returns, of one pair, labelled. Means over seeds are shown, the best in bold where
        one way is better; the last row is the mean over those of ImageNet-C's 15.
    """
    chosen = swept[swept["severity"] == severity]
    value = chosen.groupby(["corruption", "arm"], sort=False)[metric].mean().unstack("arm").mul(scale)
    value = value[chosen["arm"].drop_duplicates()].reindex(chosen["corruption"].drop_duplicates())
    standard = [name for name in value.index if name in CORRUPTIONS]
    mean = value.loc[standard].mean()
    value.index = [name.replace("_", " ").capitalize() for name in value.index]
    value.loc[f"Mean of {len(standard)} of ImageNet-C"] = mean
    signed = value * (COLUMNS[metric][1] or np.nan)
    best = signed.eq(signed.max(axis=1), axis=0)
    return plain(value.style.format("{:.2f}", na_rep=MISSING).apply(lambda _: _bold(best), axis=None))


VERDICT_COLOURS = {  # of the background, by the beginning of the verdict; the words say it too
    "holds only": "#fdf0c4",
    "holds": "#d9ecd9",
    "does not hold": "#fde2d5",
    "cannot": "#eeeeee",
}


def claims_form(claims: pd.DataFrame) -> Styler:
    """What `claims.judge` returns, a row a claim; the verdict links to the section with its evidence."""
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
    colours = [next(c for start, c in VERDICT_COLOURS.items() if v.startswith(start)) for v in claims["verdict"]]
    style = text.style.apply(lambda _: [f"background: {colour}" for colour in colours], subset=["Verdict"])
    style = style.set_uuid(digest(text.to_csv())).set_table_attributes('class="data claims"')
    return style.hide(axis="index")


def control_form(compared: pd.DataFrame, study: Study, against: str | None) -> Styler:
    """The arms of one control on one pair: their rates, metrics and difference in AUC from one of them, per cent.

    Differences whose interval leaves out 0 are in bold.

    Parameters
    ----------
    compared : rows of what `audit.compare` returns, of one pair.
    against : the arm that the others are compared with.
    """
    order = compared["arm"].drop_duplicates()
    chosen = ("auroc", "fpr95", "tpr", "tnr")
    part = {m: compared[compared["metric"] == m].set_index("arm").reindex(order) for m in chosen}
    columns = {"rate": part["auroc"]["rate"].map("{:g}".format)}
    columns["AUC ↑"] = with_interval(part["auroc"], ("estimate", "low", "high"), 100)
    marked = pd.DataFrame(False, index=order, columns=["rate", "AUC ↑"])
    if against:
        less = f"AUC minus {study.arm_label(against)}'s"
        difference = ("difference", "difference_low", "difference_high")
        columns[less] = with_interval(part["auroc"], difference, 100, sign="+")
        marked[less] = (part["auroc"]["difference_low"] > 0) | (part["auroc"]["difference_high"] < 0)
    matched = 1 - part["fpr95"][["estimate", "high", "low"]].set_axis(["estimate", "low", "high"], axis=1)
    columns["TNR at TPR 95 % ↑"] = with_interval(matched, ("estimate", "low", "high"), 100)
    columns |= {m.upper(): part[m]["estimate"].mul(100).map("{:.2f}".format) for m in ("tpr", "tnr")}
    text = pd.DataFrame(columns, index=order)
    marked = marked.reindex(columns=text.columns, fill_value=False)
    text.index = marked.index = [study.arm_label(arm) for arm in order]
    return plain(text.style.apply(lambda _: _bold(marked), axis=None))


def ranges(compared: pd.DataFrame, arms: list[str]) -> str:
    """AUC, TPR and TNR of some arms, from the lowest to the highest mean, per cent: a piece of a sentence.

    Parameters
    ----------
    compared : rows with columns arm, metric and estimate, as `audit.compare` returns.
    """
    percent = compared[compared["arm"].isin(arms)].groupby("metric")["estimate"].agg(["min", "max"]).mul(100)
    parts = []
    for metric, heading in (("auroc", "AUC"), ("tpr", "TPR"), ("tnr", "TNR")):
        low, high = (f"{value:.1f}" for value in percent.loc[metric])
        parts.append(f"{heading} {low}" if low == high else f"{heading} {low} to {high}")
    return ", ".join(parts)


def operating_form(points: pd.DataFrame, risk: float) -> Styler:
    """What `evaluation.operating_points` returns, its index labelled, in per cent (NLL in nats)."""
    percent = points.mul(100)
    text = pd.DataFrame(
        {
            "TPR": with_interval(percent, ("tpr", "tpr_low", "tpr_high"), 1),
            "TNR": with_interval(percent, ("tnr", "tnr_low", "tnr_high"), 1),
            "TNR at TPR 95 %": percent["tnr95"].map("{:.2f}".format),
            f"coverage at risk {risk:.0%}": percent["coverage"].map("{:.2f}".format),
            "guaranteed": percent["guaranteed"].map("{:.2f}".format),
            "ECE": percent["ece"].map("{:.2f}".format),
            "Brier": percent["brier"].map("{:.2f}".format),
            "NLL": points["nll"].map("{:.3f}".format),
        }
    )
    return plain(text.replace("nan", MISSING))


def metrics_form(judged: pd.DataFrame, scale: float = 100) -> Styler:
    """Every metric of several scores, per cent, with intervals: what `predictions.judge` returns.

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
    return plain(pd.DataFrame(text).style.apply(lambda _: _bold(pd.DataFrame(bold)), axis=None), escape=True)


def guarantees_form(found: pd.DataFrame) -> Styler:
    """What `predictions.guarantees` returns, per cent; where there is no threshold, why."""
    rows = {}
    for name, row in found.iterrows():
        if row["found"]:
            shares = (f"{100 * row[column]:.2f}" for column in ("coverage", "risk", "bound"))
            above = "all are kept" if row["threshold"] == -np.inf else statistics.in_full(row["threshold"])
            rows[name] = [above, f"{row['kept']:,}", *shares, ""]
        else:
            rows[name] = [MISSING] * 5 + [row["reason"]]
    columns = ["threshold", "kept", "coverage", "errors among them", "bound", "why there is none"]
    frame = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    if (frame[columns[-1]] == "").all():
        return plain(frame[columns[:-1]], escape=True)
    words = {"selector": f".col{len(columns) - 1}", "props": "text-align: left; white-space: normal; min-width: 18em"}
    return plain(frame, escape=True).set_table_styles([words], overwrite=False)


def groups_form(found: pd.DataFrame, scale: float = 100) -> Styler:
    """What `predictions.groups` returns, per cent."""
    text = {"rows": found["n"].map("{:,}".format), "wrong": found["wrong"].map("{:,}".format)}
    headings = {"accuracy": "Acc", "auroc": "AUC", "coverage": "kept", "risk": "errors among the kept"}
    for name, heading in headings.items():
        text[heading] = with_interval(found, (name, f"{name}_low", f"{name}_high"), scale)
    text["AUC"] = text["AUC"].where(found["note"] == "", found["note"])
    return plain(pd.DataFrame(text), escape=True)


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
    published : what `claims.published_table2` returns. Its TNR of TCP is the paper's, at 1/K.
    compared : what `evaluation.compare` returns for one pair.
    rows : row of the table -> arm or score of the study, `claims.TABLE_2`.
    """
    frames = {}
    for loss, arm in rows.items():
        for source, frame, own in (
            ("paper", published, published["loss"] == loss),
            ("here", compared, compared["arm"] == arm),
        ):
            cells = frame[own].set_index("metric").reindex(TABLE_3)
            frames[PAPER_NAMES.get(loss, loss), source] = with_interval(cells, ("estimate", "low", "high"), scale)
    wide = pd.DataFrame(frames).T.rename_axis(index=["", ""]).rename(columns={c: h for c, (h, _) in COLUMNS.items()})
    return plain(wide)


def paper_pair(pair: str) -> str:
    """<O, C> of a pair of the paper's, from its name in data/published."""
    return "⟨{}, {}⟩".format(*(PAPER_NAMES[name] for name in pair.split("-")))


def findings(compared: pd.DataFrame, study: Study) -> list[str]:
    """What the tables say about MCP, the other scores, the steep slope loss and every arm, one sentence each, per cent.

    Parameters
    ----------
    compared : what `evaluation.compare` returns, for all pairs.
    """
    percent = compared.set_index(["arm", "pair", "metric"])["estimate"].unstack("metric").mul(100)
    if not len(percent) or percent["auroc"].isna().all() or not set(study.arms) & set(compared["arm"]):
        return ["There is no pair with an oracle and an AUC."]
    auc = percent["auroc"].unstack("arm")
    oracles = auc[[arm for arm in study.arms if arm in auc]]
    lead = (auc["mcp"] - oracles.max(axis=1)).dropna()
    sentences = [
        f"MCP, which needs no oracle, has a higher AUC than every oracle in {(lead > 0).sum()} of {len(lead)} pairs; "
        f"the best oracle's AUC minus MCP's {_between(-lead)}."
    ]
    others = [name for name in auc if name not in oracles]
    for what, names in (("oracles", list(oracles)), ("the classifier's other scores", others)):
        rows = compared[compared["metric"].eq("auroc") & compared["arm"].isin(names)].dropna(subset="difference")
        if names is others:  # pairs with one classifier share them
            rows = rows.assign(classifier=rows["pair"].str.split("-").str[1]).drop_duplicates(["arm", "classifier"])
        if len(rows):
            below, above = (rows["difference_high"] < 0).sum(), (rows["difference_low"] > 0).sum()
            sentences.append(
                f"Of {len(rows)} comparisons of {what} with MCP, the 95 % interval of the AUC's difference lies "
                f"below 0 in {below} and above 0 in {above}."
            )
    for ss, ce in product(oracles, oracles):
        if _alike(study.arms[ss], study.arms[ce]):
            gain = _between(oracles[ss] - oracles[ce])
            sentences.append(f"The AUC of {study.arm_label(ss)} minus that of {study.arm_label(ce)} {gain}.")
    sentences += [f"{study.arm_label(name)}: {ranges(compared, [name])}." for name in oracles]
    return sentences


def _between(points: pd.Series) -> str:
    """What differences, a pair each, are: "is +1.0 points" or "lies between +1.0 and +2.0 points"."""
    low, high = f"{points.min():+.1f}", f"{points.max():+.1f}"
    return f"is {low} points" if low == high else f"lies between {low} and {high} points"


def _alike(ss: Arm, ce: Arm) -> bool:
    """Steep slope loss and cross entropy as in the text, each with its head of the paper, trained in the same way?"""
    losses = [(arm.loss, arm.form, arm.head.endswith("distance")) for arm in (ss, ce)]
    ways = [(arm.backbone, arm.start is None, arm.training, arm.labels) for arm in (ss, ce)]
    return losses == [("ss", "corrected", True), ("ce", "corrected", False)] and ways[0] == ways[1]


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


def plain(style: Styler | pd.DataFrame, *, escape: bool = False) -> Styler:
    """A Styler that writes the same HTML every time, its cells' ids its own; names of rows and columns are left out.

    escape : show texts as they are, where they may be anybody's; else they are taken for HTML.
    """
    style = style.style if isinstance(style, pd.DataFrame) else style
    if escape:
        style = style.format(escape="html")
        for axis in ("index", "columns"):
            style = style.format_index(escape="html", axis=axis)
    style = style.set_uuid(digest(style.data.to_csv())).set_table_attributes('class="data"')
    style = style.set_table_styles([{"selector": "td", "props": "white-space: nowrap"}])
    return style.hide(names=True, axis="index").hide(names=True, axis="columns")


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
