"""Compare classifiers, or confidences, on the same rows: each with its own errors, all on the same resamples."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..stats import resampling, statistics
from ..stats.rates import clopper_pearson, holm
from .evaluate import scores_of
from .reader import PredictionsError, Table, counted

METRICS = ("accuracy", "auroc", "aurc", "augrc", "coverage_at_risk")
INTERVAL = ["estimate", "low", "high"]
DIFFERENCE = ["difference", "difference_low", "difference_high"]
COLUMNS = ["name", "metric", *INTERVAL, *DIFFERENCE, "p", "p_holm", "test"]
ALPHA = 0.05
SHOWN = 5  # rows that a message names


def versus(
    tables: Mapping[str, Table] | Iterable[tuple[str, ArrayLike, ArrayLike]],
    *,
    max_risk: float = 0.05,
    method: str | Mapping[str, str] = "",
    cluster: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Two or more classifiers on the same rows, and each against the first.

    Parameters
    ----------
    tables : name -> the predictions of a classifier. Rows are matched by their ids where both tables have them
        (`Table.rows`), else by their order. Or (name, confidence (N,), correct (N,)), rows in the same order:
        confidences of one classifier too, with the same errors each time.
    max_risk : the largest acceptable share of errors, in [0, 1].
    method : of tables, the confidence that decides, one for all or by name; the first by default.
    cluster : names (N,) of what rows depend within, in the first's order; by default those that a table has.
    resamples, seed : of the paired bootstrap, see `resampling.bootstrap`.

    Returns
    -------
    One row per name and metric, columns `COLUMNS`: accuracy, auroc, aurc, augrc, and coverage_at_risk, the largest
    coverage whose share of errors is at most `max_risk` on these rows (`metrics.coverage_at_risk`; a threshold that
    holds on others is `selective.guaranteed_threshold`'s). Fractions with their 95 % intervals over rows, or clusters;
    the difference from the first with its own; p, by `test`: DeLong's for the AUROC where errors are the same and rows
    independent, else the bootstrap's (`resampling.p_value`); p_holm, corrected over all tests of the table. NaN for
    the first itself, where a metric does not exist, and for accuracies that are the same by construction.

    Raises
    ------
    PredictionsError : for fewer than two, and where rows are not the same: ids that one of them lacks or has twice,
        other lengths, labels that disagree; the message says which rows.
    ValueError : as `resampling.bootstrap`.
    """
    if isinstance(tables, Mapping):
        scores, correct, found = _matched(tables, method)
        cluster = found if cluster is None else cluster
    else:
        listed = [(name, np.asarray(score), np.asarray(own, bool)) for name, score, own in tables]
        scores = {name: score for name, score, _ in listed}
        correct = {name: own for name, _, own in listed}
        if len(scores) < len(listed):
            raise PredictionsError(f"expected a name for each, found {', '.join(name for name, *_ in listed)}")
    if len(scores) < 2:
        raise PredictionsError(f"expected two classifiers or more to compare, found {len(scores)}")
    boot = resampling.bootstrap(scores, correct, max_risk=max_risk, cluster=cluster, resamples=resamples, seed=seed)
    frame = resampling.intervals(boot).loc[(slice(None), list(METRICS)), INTERVAL].copy()
    frame[[*DIFFERENCE, "p"]] = np.nan
    frame["test"] = ""
    base, *others = scores
    for name in others:
        less = resampling.difference(boot, name, base)
        same = bool((correct[name] == correct[base]).all())
        for metric in METRICS:
            test, p = "bootstrap", resampling.p_value(boot, name, base, metric)
            if metric == "auroc" and same and cluster is None:
                test, p = "DeLong", statistics.delong_difference(scores[name], scores[base], correct[name]).p
            if metric == "accuracy" and same:
                test, p = "", np.nan
            frame.loc[(name, metric), [*DIFFERENCE, "p", "test"]] = [*less.loc[metric, INTERVAL], p, test]
    for name, own in correct.items() if cluster is None else ():
        frame.loc[(name, "accuracy"), ["low", "high"]] = clopper_pearson(int(own.sum()), len(own))
    frame["p_holm"] = holm(frame["p"].to_numpy(float))
    return frame.reset_index(names=["name", "metric"])[COLUMNS]


def finding(compared: pd.DataFrame, max_risk: float) -> str:
    """Which classifier leaves more predictions at the acceptable risk, and by how much: a sentence per comparison.

    compared : of `versus`, with the same risk.
    """
    rows = compared[compared["metric"] == "coverage_at_risk"].set_index("name")
    base = rows.index[0]
    return " ".join(_sentence(base, rows.loc[base], name, rows.loc[name], max_risk) for name in rows.index[1:])


def _sentence(base: str, first: pd.Series, name: str, row: pd.Series, max_risk: float) -> str:
    at = f"At a risk of at most {100 * max_risk:g} %"
    if max(first["estimate"], row["estimate"]) == 0:
        return f"{at} neither {base} nor {name} keeps any prediction."
    kept, of_first, less = (
        f"{100 * x[middle]:{sign}.1f}{unit} [{100 * x[low]:{sign}.1f}, {100 * x[high]:{sign}.1f}]".replace("-", "−")
        for x, (middle, low, high), sign, unit in (
            (row, INTERVAL, "", " %"), (first, INTERVAL, "", " %"), (row, DIFFERENCE, "+", " points"),
        )
    )  # fmt: skip
    significant = "significant" if row["p_holm"] < ALPHA else "not significant"
    return (
        f"{at} {name} keeps {kept} of the predictions, {base} {of_first}: {less}, {significant} "
        f"(p = {row['p_holm']:.2g} after Holm's correction)."
    )


def _matched(
    tables: Mapping[str, Table], method: str | Mapping[str, str]
) -> tuple[dict[str, NDArray], dict[str, NDArray[np.bool_]], NDArray | None]:
    """(name -> confidence (N,), name -> correct (N,), clusters (N,) or None), in the first table's order."""
    scores, correct, cluster = {}, {}, None
    first, base = next(iter(tables.items()), ("", None))
    for name, table in tables.items():
        order = _order(first, base, name, table)
        values = scores_of(table)[0]
        wanted = (method if isinstance(method, str) else method.get(name, "")) or next(iter(values))
        if wanted not in values:
            raise PredictionsError(f"{name}: there is no confidence {wanted!r}; found {', '.join(values)}")
        scores[name], correct[name] = values[wanted][order], table.correct[order]
        if cluster is None and table.cluster is not None:
            cluster = table.cluster[order]
    return scores, correct, cluster


def _order(first: str, base: Table, name: str, table: Table) -> NDArray[np.int64]:
    """Which row of a table is each row of the first one, (N,)."""
    order = np.arange(len(table))
    ids = np.arange(1, len(base) + 1) if base.rows is None or table.rows is None else base.rows
    if base.rows is not None and table.rows is not None:
        order = _places(first, base.rows, name, table.rows)
    elif len(table) != len(base):
        raise PredictionsError(
            f"{first} has {counted(len(base), 'row')}, {name} {len(table):,}: expected the same rows, or a column of "
            f"ids in both"
        )
    if base.label is None or table.label is None:
        return order
    names, others = (np.array(of.classes, str)[of.label] for of in (base, table))
    differing = names != others[order]
    if differing.any():
        raise PredictionsError(
            f"{first} and {name} disagree on the label of {differing.sum():,} of {counted(len(base), 'row')} "
            f"({_few(ids[differing])}): they are not the same rows, or not in the same order"
        )
    return order


def _places(first: str, ids: NDArray, name: str, others: NDArray) -> NDArray[np.int64]:
    """Where each id of the first table is among those of another one."""
    for of, rows in ((first, ids), (name, others)):
        twice = pd.Series(rows).duplicated().to_numpy()
        if twice.any():
            raise PredictionsError(f"{of} has more than one row with the id {_few(rows[twice])}")
    order = pd.Index(others).get_indexer(pd.Index(ids))
    for lacks, has, rows in ((name, first, ids[order < 0]), (first, name, others[~np.isin(others, ids)])):
        if len(rows):
            raise PredictionsError(f"{lacks} lacks {counted(len(rows), 'row')} that {has} has: {_few(rows)}")
    return order


def _few(names: NDArray) -> str:
    return ", ".join(map(str, names[:SHOWN])) + (", ..." if len(names) > SHOWN else "")
