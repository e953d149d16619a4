"""What the audit's controls say: intervals, differences, operating points, labels, and oracles combined with MCP.

Every arm stands at the rate chosen for it (`trustlib.controls`), with all the audit's seeds, on the test part. What is
not trained yet is not there: None, or an empty frame.
"""

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import logit

from . import evaluation, experiments, heads, losses, metrics, resampling, runs, statistics
from .controls import outputs, tuning
from .study import Study

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


def matched(study: Study, pair: str, arm: str, to: str) -> NDArray | None:
    """``z`` of an arm less the threshold at which its TPR on the held-out part is that of the arm `to` at z = 0.

    Seed by seed, float64 (S, N), on the test part: the operating point of one oracle by the order of another. None
    until both are trained.
    """
    right, heldout = evaluation.correct(study, pair, "heldout"), [outputs(study, pair, a, "heldout") for a in (arm, to)]
    if heldout[0] is None or heldout[1] is None:
        return None
    tpr = (heldout[1][:, right] > 0).mean(1)  # (S,)
    thresholds = [np.quantile(z[right], 1 - share) for z, share in zip(heldout[0], tpr, strict=True)]
    return outputs(study, pair, arm).astype(np.float64) - np.array(thresholds)[:, None]


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
            paths = [runs.oracle_path(study, pair, arm, seed, rate) for seed in study.audit.seeds]
            loss = np.mean([runs.read_manifest(path)["history"][-1]["loss"] for path in paths])
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
        low, high = map(float, statistics.clopper_pearson(count, n))
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
            path = runs.oracle_path(study, pair, arm, seed, rate)
            weight = runs.read_tensors(path, "weights.head.linear.")["weight"]
            low, first, third, high = np.quantile(z, (0.005, 0.25, 0.75, 0.995))
            row = {"norm": weight.norm().item(), "spread": third - first, "tails": (high - low) / (third - first)}
            rows.append({"arm": arm, "seed": seed, **row})
    return pd.DataFrame(rows)


def with_mcp(study: Study, pair: str, arm: str) -> NDArray | None:
    """Log-odds of a logistic regression on ``z`` and MCP's log-odds, fitted on the held-out part, float64 (S, N).

    Whether an oracle knows anything that MCP does not. None until the arm is trained.
    """
    parts = {part: outputs(study, pair, arm, part) for part in ("heldout", "test")}
    if parts["test"] is None:
        return None
    odds = {}
    for part in parts:
        mcp = evaluation.own_scores(study, study.pair(pair)[1], part)["mcp"]
        odds[part] = logit(mcp.clip(1e-15, 1 - 1e-15))
    right, rows = evaluation.correct(study, pair, "heldout"), []
    for heldout, test in zip(*parts.values(), strict=True):
        rows.append(heads.combined([heldout, odds["heldout"]], right, [test, odds["test"]]))
    return np.stack(rows)


def ranking(study: Study, pair: str) -> pd.DataFrame:
    """The AUC of MCP, of the best of the classifier's other scores, of the best oracle, and of that oracle with MCP.

    The best are chosen by AUC on the held-out part: of the scores that need no further training, and of the study's
    arms with the losses of the paper's text, each at its own rate.

    Returns
    -------
    A row each: label, estimate, low, high, difference (from MCP), difference_low, difference_high. Empty until an arm
    is trained.
    """
    classifier_name, right = study.pair(pair)[1], evaluation.correct(study, pair)
    trained = [arm for arm, s in study.arms.items() if s.form == "corrected" and outputs(study, pair, arm) is not None]
    if not trained:
        return pd.DataFrame()
    heldout = evaluation.correct(study, pair, "heldout")

    def auc(scores: NDArray) -> float:
        return float(np.mean([metrics.evaluate(row, heldout)["auroc"] for row in np.atleast_2d(scores)]))

    own = evaluation.own_scores(study, classifier_name, "heldout")
    free = {n: s for n, s in own.items() if n != "mcp" and n != "ensemble" and not n.startswith("linear")}
    arm = max(trained, key=lambda arm: auc(outputs(study, pair, arm, "heldout")))
    names = {"mcp": "MCP", arm: f"best oracle: {study.arm_label(arm)}", f"{arm}+mcp": "that oracle with MCP"}
    if free:
        best = max(free, key=lambda name: auc(free[name]))
        names = {"mcp": "MCP", best: f"best other score: {study.arm_label(best)}"} | names
    parts = []
    for name in names:
        if name in own:
            score, at = evaluation.own_scores(study, classifier_name)[name], evaluation.threshold_of(study, name)
            parts.append(evaluation.resampled(study, f"{classifier_name}/{name}", score, right, at))
        elif name == arm:
            parts.append(resampled(study, pair, arm))
        else:
            parts.append(evaluation.resampled(study, f"{pair}/tuned/{name}", with_mcp(study, pair, arm), right))
    boot = resampling.merged(parts)
    found = resampling.intervals(boot).xs("auroc", level="metric").loc[list(names), INTERVAL]
    found[DIFFERENCE] = np.nan
    for name in list(names)[1:]:
        less = resampling.difference(boot, name, "mcp").loc["auroc", INTERVAL]
        found.loc[name, DIFFERENCE] = less.to_numpy()
    return found.assign(label=list(names.values()))


def label_shift(study: Study, name: str) -> pd.DataFrame:
    """A classifier's accuracy on the images it was trained on, by cross-fitting on the same ones, and on new ones.

    Returns
    -------
    A row a part: train, crossfit where all its folds are there, heldout, test; rate, low, high (exact 95 % interval),
    of images as they are.
    """
    cache = runs.read_tensors(runs.classifier_path(study, name))
    parts = {"train": cache["train.correct"][0]}
    paths = [runs.fold_path(study, name, fold) for fold in range(study.audit.folds)]
    if all(runs.current(path, experiments.fold_config(study, name, fold)) for fold, path in enumerate(paths)):
        parts["crossfit"] = torch.cat([runs.read_tensors(path)["correct"][0] for path in paths])
    parts |= {part: cache[f"{part}.correct"] for part in ("heldout", "test")}
    rows = {}
    for part, right in parts.items():
        count, n = int(right.sum()), len(right)
        low, high = map(float, statistics.clopper_pearson(count, n))
        rows[part] = {"rate": count / n, "low": low, "high": high}
    return pd.DataFrame(rows).T
