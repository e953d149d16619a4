"""What the audit's controls say: intervals, differences, operating points, labels, and an oracle combined with MCP.

Every arm stands at the rate chosen for it (`trustlib.runs.controls`), with all the audit's seeds, on the test part.
What is not trained yet is not there: None, or an empty frame.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import logit

from .. import losses, metrics
from ..runs import experiments, store
from ..runs.controls import outputs, tuning
from ..stats import resampling
from ..stats.rates import clopper_pearson
from ..study import Study
from . import evaluation

INTERVAL = ["estimate", "low", "high"]
DIFFERENCE = ["difference", "difference_low", "difference_high"]
ENDS = ("", "_low", "_high")


def resampled(study: Study, pair: str, arm: str, threshold: float = 0.0) -> resampling.Bootstrap | None:
    """The resampled metrics of an arm at the rate chosen for it, under the arm's name; None until it is trained."""
    z = outputs(study, pair, arm)
    if z is None:
        return None
    file = f"{pair}/tuned{threshold:+.4f}/{arm}" if threshold else f"{pair}/tuned/{arm}"
    return evaluation.resampled(study, file, z, evaluation.correct(study, pair), threshold)


def difference(study: Study, pair: str, a: str, b: str) -> pd.DataFrame | None:
    """Arm `a` minus arm `b` in every metric (`resampling.difference`); None until both are there."""
    parts = [resampled(study, pair, arm) for arm in (a, b)]
    return None if None in parts else resampling.difference(resampling.merged(parts), a, b)


def compare(study: Study, name: str) -> pd.DataFrame:
    """The arms of a control on the test part, each at its own rate, with intervals over images and seeds.

    Returns
    -------
    A row a pair, arm and metric: control, pair, arm, rate, metric; estimate, low, high, seeds (`resampling.intervals`);
    the difference from the control's ``against`` with its interval, NaN where it has none. Arms that are not trained
    are left out.
    """
    control, frames = study.control(name), []
    for pair in control.pairs:
        parts = {arm: boot for arm in control.arms if (boot := resampled(study, pair, arm))}
        if not parts:
            continue
        boot = resampling.merged(list(parts.values()))
        found = resampling.intervals(boot).reset_index().rename(columns={"score": "arm"})
        found.insert(0, "pair", pair)
        found.insert(2, "rate", found["arm"].map({arm: tuning(study, pair, arm).rate for arm in parts}))
        found[DIFFERENCE] = np.nan
        for arm in parts if control.against in parts else []:
            if arm != control.against:
                less = resampling.difference(boot, arm, control.against)[INTERVAL]
                rows = found["arm"].eq(arm)
                found.loc[rows, DIFFERENCE] = less.loc[found.loc[rows, "metric"]].to_numpy()
        frames.append(found)
    columns = ["pair", "arm", "rate", "metric", *INTERVAL, "seeds", *DIFFERENCE]
    return (pd.concat(frames) if frames else pd.DataFrame(columns=columns)).assign(control=name)


def search(study: Study, pair: str, arm: str) -> pd.DataFrame:
    """What the search for an arm's rate saw on the last held-out images, first seed: index rate; auroc, tnr95."""
    seed, last = study.audit.seeds[0], slice(-study.audit.tuning, None)
    right, rows = evaluation.correct(study, pair, "heldout")[last], {}
    for rate in tuning(study, pair, arm).tried:
        for z in evaluation.outputs(study, pair, arm, [seed], "heldout", rate=rate).values():
            found = metrics.evaluate(z[last], right)
            rows[rate] = {"auroc": found["auroc"], "tnr95": 1 - found["fpr95"]}
    return pd.DataFrame(rows, index=["auroc", "tnr95"]).T


def moved_threshold(study: Study, oracle_name: str) -> float:
    """The z at which sigmoid(z) is a-/(a+ + a-), where a steep slope loss of this oracle's slopes has its z = 0."""
    slopes = study.network(oracle_name).steep_slope
    return float(logit(slopes.chance))


Outputs = Callable[..., NDArray | None]  # of (study, pair, arm, part), as `controls.outputs`


def matched(study: Study, pair: str, arm: str, to: str, outputs: Outputs = outputs) -> NDArray | None:
    """``z`` of an arm less the threshold at which its TPR on validation images is that of the arm `to` at z = 0.

    Seed by seed, float64 (S, N), on the test set: the operating point of one oracle by the order of another. None
    until both are trained.
    """
    right, heldout = evaluation.correct(study, pair, "heldout"), [outputs(study, pair, a, "heldout") for a in (arm, to)]
    if heldout[0] is None or heldout[1] is None:
        return None
    tpr = (heldout[1][:, right] > 0).mean(1)  # (S,)
    thresholds = [np.quantile(z[right], 1 - share) for z, share in zip(heldout[0], tpr, strict=True)]
    return outputs(study, pair, arm).astype(np.float64) - np.array(thresholds)[:, None]


def cheapest(study: Study, pair: str, arm: str, outputs: Outputs = outputs) -> NDArray | None:
    """A score less the threshold that costs least on validation images, float64 (S, N), on the test set.

    The cost is alpha+ FN + alpha- FP with the slopes of the pair's oracle. None until the arm is trained.
    """
    correct, heldout = evaluation.correct(study, pair, "heldout"), outputs(study, pair, arm, "heldout")
    if heldout is None:
        return None
    slopes = study.network(study.pair(pair)[0]).steep_slope
    thresholds = []
    for row in heldout:
        values, block = np.unique(row, return_inverse=True)
        lost = np.bincount(block, correct).cumsum()  # correct predictions that each threshold, score > value, rejects
        trusted = (~correct).sum() - np.bincount(block, ~correct).cumsum()
        costs = slopes.alpha_pos * lost + slopes.alpha_neg * trusted
        trust_all = slopes.alpha_neg * (~correct).sum()
        best = int(costs.argmin())
        thresholds.append(values[best] if costs[best] < trust_all else -np.inf)
    return outputs(study, pair, arm).astype(np.float64) - np.array(thresholds, np.float64)[:, None]


def operating_points(study: Study, pair: str) -> pd.DataFrame:
    """Steep slope, and cross entropy as it is, with its threshold moved (`moved_threshold`, `matched`), and weighted.

    Returns
    -------
    A row each (index: what it is): arm, threshold (of z; NaN where each seed has its own); tpr, tnr and their 95 %
    intervals (_low, _high); both, the mean of tpr + tnr. What is not trained is left out.
    """
    moved, right = moved_threshold(study, study.pair(pair)[0]), evaluation.correct(study, pair)
    boots = {
        ("SS, z = 0", "ss", 0.0): resampled(study, pair, "ss"),
        ("CE, z = 0", "ce", 0.0): resampled(study, pair, "ce"),
        ("CE, threshold moved", "ce", moved): resampled(study, pair, "ce", moved),
    }
    if (shifted := matched(study, pair, "ce", "ss")) is not None:
        boot = evaluation.resampled(study, f"{pair}/tuned/ce-matched", shifted, right)
        boots["CE, threshold at SS's TPR", "ce", np.nan] = boot
    if "ce-weighted" in study.all_arms:
        boots["CE, weighted, z = 0", "ce-weighted", 0.0] = resampled(study, pair, "ce-weighted")
    rows = {}
    for (name, arm, at), boot in boots.items():
        if boot:
            point = resampling.intervals(boot).droplevel("score").loc[["tpr", "tnr"], INTERVAL]
            row = {m + end: point.loc[m, c] for m in point.index for c, end in zip(INTERVAL, ENDS, strict=True)}
            rows[name] = {"arm": arm, "threshold": at, **row, "both": row["tpr"] + row["tnr"]}
    return pd.DataFrame(rows).T


def slopes(study: Study, pair: str, arms: list[str]) -> pd.DataFrame:
    """The steep slope losses among some arms: alpha_pos, alpha_neg, loss (mean of the last epoch), tpr, tnr, auroc.

    Means over the seeds; a row an arm.
    """
    rows = []
    for arm in arms:
        z, rate = outputs(study, pair, arm), tuning(study, pair, arm).rate
        if z is not None:
            hyper = experiments.oracle_config(study, pair, arm, study.audit.seeds[0])["arm"]["hyper"]
            paths = [store.oracle_path(study, pair, arm, seed, rate) for seed in study.audit.seeds]
            loss = np.mean([store.read_manifest(path)["history"][-1]["loss"] for path in paths])
            found = pd.DataFrame([metrics.evaluate(row, evaluation.correct(study, pair)) for row in z]).mean()
            rows.append({**hyper, "loss": loss, **found[["tpr", "tnr", "auroc"]]})
    return pd.DataFrame(rows, columns=["alpha_pos", "alpha_neg", "loss", "tpr", "tnr", "auroc"])


def optimum(study: Study, pair: str, arm: str, bins: int = 15) -> pd.DataFrame:
    """A steep slope oracle's s = z / (1 + |z|) beside the s* that its share of right predictions asks for.

    The test part, first seed, in bins of equally many images by s: were the oracle the minimiser of its loss for
    these images, s and s* would agree (`losses.steep_slope_optimum`).

    Returns
    -------
    A row a bin: s (mean), right (share), low, high (its exact 95 % interval), best, best_low, best_high (s* of those).
    Empty until the arm is trained.
    """
    z, right = outputs(study, pair, arm), evaluation.correct(study, pair)
    hyper = experiments.oracle_config(study, pair, arm, study.audit.seeds[0])["arm"]["hyper"]
    rows = []
    for index in np.array_split(np.argsort(z[0]), bins) if z is not None else ():
        count, n = right[index].sum(), len(index)
        low, high = map(float, clopper_pearson(count, n))
        best = losses.steep_slope_optimum(torch.tensor([count / n, low, high], dtype=torch.float64), **hyper).tolist()
        s = z[0][index].astype(float)
        row = {"s": (s / (1 + np.abs(s))).mean(), "right": count / n, "low": low, "high": high}
        rows.append(row | dict(zip(("best", "best_low", "best_high"), best, strict=True)))
    return pd.DataFrame(rows)


def tails(study: Study, pair: str, arms: list[str]) -> pd.DataFrame:
    """The head's weights and the spread of ``z`` of every seed, at the rate chosen for each arm (Appendix F).

    Returns
    -------
    A row an arm and seed: arm, seed, norm (of w), spread (interquartile range of z on the test part), tails (the range
    of the middle 99 % in units of it; 3.82 for a normal).
    """
    rows = []
    for arm in arms:
        rate = tuning(study, pair, arm).rate
        for seed, z in evaluation.outputs(study, pair, arm, study.audit.seeds, rate=rate).items() if rate else ():
            path = store.oracle_path(study, pair, arm, seed, rate)
            weight = store.read_tensors(path, "weights.head.linear.")["weight"]
            low, first, third, high = np.quantile(z, (0.005, 0.25, 0.75, 0.995))
            row = {"norm": weight.norm().item(), "spread": third - first, "tails": (high - low) / (third - first)}
            rows.append({"arm": arm, "seed": seed, **row})
    return pd.DataFrame(rows)


def with_mcp(study: Study, pair: str, arm: str, outputs: Outputs = outputs) -> NDArray | None:
    """`evaluation.fused` of an arm and MCP, float64 (S, N); None until the arm is trained."""
    z = {part: outputs(study, pair, arm, part) for part in ("heldout", "test")}
    if z["test"] is None:
        return None
    mcp = {part: evaluation.own_scores(study, study.pair(pair)[1], part)["mcp"] for part in z}
    return evaluation.fused(z, mcp, evaluation.correct(study, pair, "heldout"))


def label_shift(study: Study, name: str) -> pd.DataFrame:
    """A classifier's accuracy on the images it was trained on, by cross-fitting on the same ones, and on new ones.

    Returns
    -------
    A row a part: train, crossfit where all its folds are there, heldout, test; rate, low, high (exact 95 % interval),
    of images as they are.
    """
    cache = store.read_tensors(store.classifier_path(study, name))
    parts = {"train": cache["train.correct"][0]}
    paths = [store.fold_path(study, name, fold) for fold in range(study.audit.folds)]
    if all(store.current(path, experiments.fold_config(study, name, fold)) for fold, path in enumerate(paths)):
        parts["crossfit"] = torch.cat([store.read_tensors(path)["correct"][0] for path in paths])
    parts |= {part: cache[f"{part}.correct"] for part in ("heldout", "test")}
    rows = {}
    for part, right in parts.items():
        count, n = int(right.sum()), len(right)
        low, high = map(float, clopper_pearson(count, n))
        rows[part] = {"rate": count / n, "low": low, "high": high}
    return pd.DataFrame(rows).T
