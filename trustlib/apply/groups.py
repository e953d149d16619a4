"""How a confidence does in each group, and whether it does otherwise on the rest."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import fisher_exact, norm

from ..stats import statistics
from ..stats.rates import holm, share_interval
from ..stats.resampling import FEWEST

GROUP_RATES = ("accuracy", "auroc", "coverage", "risk")
AGAINST_REST = ("accuracy", "auroc", "risk")  # of a group, compared with all other predictions


def groups(
    values: NDArray, correct: NDArray, member: NDArray, threshold: float | None, cluster: NDArray | None = None
) -> pd.DataFrame:
    """How one confidence does in each group, with 95 % intervals, and whether it does otherwise on the rest.

    Intervals are exact ones of shares and DeLong's of the AUROC. A difference is that from all other predictions: of
    shares with the interval that the exact ones of both give (each end's distances added in squares, Newcombe 1998)
    and Fisher's exact test, of the AUROC by the normal distribution. Holm's correction is over the groups. With
    clusters, shares have the interval of `share_interval`, and there are neither tests nor an interval of the AUROC.

    Returns
    -------
    One row per group: n, errors; accuracy, auroc, and of the predictions above the threshold their share, coverage, and
    their errors' share, risk, each with _low and _high; of accuracy, auroc and risk also _difference, _difference_low,
    _difference_high, _p and _p_holm. NaN without a threshold or without a rest. The AUROC is NaN where fewer than
    `FEWEST` predictions are correct, or incorrect, which `note` says.
    """
    columns = ["n", "errors", *(f"{what}{end}" for what in GROUP_RATES for end in ("", "_low", "_high")), "note"]
    names = np.unique(member)
    parts = {name: _group(values, correct, member == name, threshold, cluster) for name in names}
    rows = pd.DataFrame.from_dict(parts, orient="index")
    frame = rows.reindex(columns=columns)
    if len(names) > 1:
        parts = {name: _group(values, correct, member != name, threshold, cluster) for name in names}
        rest = pd.DataFrame.from_dict(parts, orient="index")
        for what in filter(rows.__contains__, AGAINST_REST):
            found = [_difference(rows.loc[name], rest.loc[name], what) for name in names]
            frame[[f"{what}{end}" for end in ("_difference", "_difference_low", "_difference_high", "_p")]] = found
            frame[f"{what}_p"] = frame[f"{what}_p"] if cluster is None else np.nan
            frame[f"{what}_p_holm"] = holm(frame[f"{what}_p"])
    return frame


def _group(
    values: NDArray, correct: NDArray, chosen: NDArray[np.bool_], threshold: float | None, cluster: NDArray | None
) -> dict:
    """One row of `groups`: of the chosen predictions."""
    x, right = values[chosen], correct[chosen]
    of = None if cluster is None else cluster[chosen]
    n, errors = len(right), int((~right).sum())
    row: dict = {"n": n, "errors": errors} | _share("accuracy", right, of)
    if threshold is not None:
        kept = x > threshold
        row |= _share("coverage", kept, of) | _share("risk", ~right[kept], None if of is None else of[kept])
    enough = min(errors, n - errors) >= FEWEST
    if enough:
        area = statistics.delong(x, right)
        row |= {"auroc": area.auroc, "auroc_low": area.low, "auroc_high": area.high, "auroc_error": area.error}
    if enough and cluster is not None:
        row |= dict.fromkeys(("auroc_low", "auroc_high", "auroc_error"), np.nan)
    few = f"{min(errors, n - errors)} {'incorrect' if errors <= n - errors else 'correct'}: too few for an AUROC"
    return row | {"note": "" if enough else few}


def _share(name: str, hit: NDArray[np.bool_], cluster: NDArray | None) -> dict[str, float]:
    low, high = share_interval(hit, cluster)
    return {name: float(hit.mean()) if len(hit) else np.nan, f"{name}_low": low, f"{name}_high": high}


def _difference(group: pd.Series, rest: pd.Series, what: str) -> tuple[float, float, float, float]:
    """A group's metric minus that of the rest, with its 95 % interval and p-value."""
    less = group[what] - rest[what]
    if np.isnan(less):
        return (np.nan,) * 4
    down = np.hypot(group[what] - group[f"{what}_low"], rest[f"{what}_high"] - rest[what])
    up = np.hypot(group[f"{what}_high"] - group[what], rest[what] - rest[f"{what}_low"])
    if what == "auroc":
        error = np.hypot(group["auroc_error"], rest["auroc_error"])
        return less, less - down, less + up, float(2 * norm.sf(abs(less) / error)) if error else np.nan
    n = [part["n"] if what == "accuracy" else round(part["n"] * part["coverage"]) for part in (group, rest)]
    hits = [round(size * part[what]) for size, part in zip(n, (group, rest), strict=True)]
    p = fisher_exact([hits, [size - hit for size, hit in zip(n, hits, strict=True)]]).pvalue
    return less, less - down, less + up, float(p)
