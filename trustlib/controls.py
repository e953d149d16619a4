"""The audit: arms trained each at its own best rate, so that what differs between them is what is asked about.

A rate is chosen for every arm and pair alike: by AUC on the last held-out images, with one seed, from one grid, which
goes on where the best lies at its edge. All seeds are then trained at it. Test data plays no part until the report.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import evaluation, experiments, metrics, resampling, runs, statistics
from .study import Study
from .training import TrainingError

LOWEST, HIGHEST = 1e-6, 1.0  # where a grid of rates ends, whatever lies beyond


@dataclass(frozen=True)
class Tuning:
    """The search for an arm's rate.

    rate : the chosen one; None while there are rates still to be tried, and where every one of them diverged
    tried : rate -> AUC in [0, 1] on the last held-out images, NaN where the training diverged; ascending by rate
    missing : the rates to try next
    """

    rate: float | None
    tried: dict[float, float]
    missing: list[float]


def tuning(study: Study, pair: str, arm: str) -> Tuning:
    """How far the search for the rate of an arm on a pair has come; an arm with a rate of its own is not searched."""
    if "rate" in study.arm(arm).training:
        return Tuning(study.recipe(arm).rate, {}, [])
    grid, tried = sorted(study.audit.rates), {}
    while True:
        tried = {rate: _tried(study, pair, arm, rate) for rate in grid}
        missing = [rate for rate, auc in tried.items() if auc is None]
        if missing:
            return Tuning(None, {rate: auc for rate, auc in tried.items() if auc is not None}, missing)
        if np.isnan(list(tried.values())).all():
            return Tuning(None, tried, [])
        best = max(tried, key=lambda rate: -np.inf if np.isnan(tried[rate]) else tried[rate])
        beyond = {grid[0]: grid[0] ** 2 / grid[1], grid[-1]: grid[-1] ** 2 / grid[-2]}.get(best)
        if beyond is None or not LOWEST <= beyond <= HIGHEST:
            return Tuning(best, tried, [])
        grid = sorted([*grid, float(f"{beyond:.0e}")])


def _tried(study: Study, pair: str, arm: str, rate: float) -> float | None:
    """AUC on the last held-out images at one rate; NaN where the training diverged, None where it was not tried."""
    seed, last = study.audit.seeds[0], slice(-study.audit.tuning, None)
    found = evaluation.outputs(study, pair, arm, [seed], "heldout", rate=rate)
    if found:
        right = evaluation.correct(study, pair, "heldout")
        return metrics.evaluate(found[seed][last], right[last])["auroc"]
    path = runs.oracle_path(study, pair, arm, seed, rate)
    status = runs.status(path, experiments.oracle_config(study, pair, arm, seed, rate))
    return np.nan if status["status"] == "failed" and status["error"].startswith("TrainingError") else None


def train(study: Study, pair: str, arm: str, log: Callable[[str], None] = print) -> dict:
    """Choose the rate of an arm and train all its seeds at it; return the manifest of the last.

    Raises
    ------
    TrainingError : when an arm diverges at every rate, or at the chosen one with another seed.
    """
    while (search := tuning(study, pair, arm)).missing:
        for rate in search.missing:
            try:
                experiments.train_oracle(study, pair, arm, study.audit.seeds[0], log, rate=rate)
            except TrainingError as error:
                log(f"{pair}/{arm} at rate {rate:g}: {error}")
    if search.rate is None:
        raise TrainingError(f"{pair}/{arm} diverged at every rate from {min(search.tried)} to {max(search.tried)}")
    log(f"{pair}/{arm}: rate {search.rate:g}")
    for seed in study.audit.seeds:
        manifest = experiments.train_oracle(study, pair, arm, seed, log, rate=search.rate)
    return manifest


def trainings(study: Study) -> list[dict]:
    """All that the audit plans to make, as far as it is known, as `experiments.trainings` has it.

    Dicts with two keys more: control, and chosen (whether it is at the arm's rate, or was tried for it). What two
    controls share is there for each. A training that diverged while a rate was looked for is "diverged", not "failed".
    """
    rows = []
    for name, control in study.audit.controls.items():
        shared = {"control": name, "job": f"control-{name}"}
        judged = {study.pair(pair)[1] for pair in control.pairs}
        for network in judged & study.audit.networks.keys():
            config, path = experiments.classifier_config(study, network), runs.classifier_path(study, network)
            row = {"kind": "classifier", "run": f"{network}/{path.stem}", "path": path, "chosen": True}
            rows.append(shared | row | runs.status(path, config))
        if any(study.arm(arm).labels == "crossfit" for arm in control.arms):
            for network, fold in ((n, k) for n in sorted(judged) for k in range(study.audit.folds)):
                path, config = runs.fold_path(study, network, fold), experiments.fold_config(study, network, fold)
                row = {"kind": "fold", "run": f"{network}/fold{fold}", "path": path, "chosen": True}
                rows.append(shared | row | runs.status(path, config))
        for pair, arm in ((pair, arm) for pair in control.pairs for arm in control.arms):
            rows += [shared | row for row in _oracles(study, pair, arm)]
    return rows


def _oracles(study: Study, pair: str, arm: str) -> list[dict]:
    search, (first, *_) = tuning(study, pair, arm), study.audit.seeds
    planned = [(rate, first, False) for rate in [*search.tried, *search.missing] if rate != search.rate]
    planned += [(search.rate, seed, True) for seed in study.audit.seeds if search.rate is not None]
    rows = []
    for rate, seed, chosen in planned:
        path = runs.oracle_path(study, pair, arm, seed, rate)
        status = runs.status(path, experiments.oracle_config(study, pair, arm, seed, rate))
        if not chosen and status["status"] == "failed" and status["error"].startswith("TrainingError"):
            status["status"] = "diverged"
        name = runs.oracle_name(study, pair, arm, seed, rate)
        rows.append({"kind": "oracle", "run": name, "path": path, "chosen": chosen, **status})
    return rows


def is_done(study: Study, name: str) -> bool:
    """Has everything been made that a control asks for?"""
    rows = [row for row in trainings(study) if row["control"] == name]
    tuned = (tuning(study, pair, arm).rate for pair in study.control(name).pairs for arm in study.control(name).arms)
    return all(row["status"] in ("done", "diverged") for row in rows) and all(rate is not None for rate in tuned)


def outputs(study: Study, pair: str, arm: str, part: str = "test") -> NDArray | None:
    """``z`` of an arm's oracles at the rate chosen for it, float32 (S, N), a row a seed; None until all are there."""
    if (rate := tuning(study, pair, arm).rate) is None:
        return None
    found = evaluation.outputs(study, pair, arm, study.audit.seeds, part, rate=rate)
    return np.stack(list(found.values())) if len(found) == len(study.audit.seeds) else None


def resampled(study: Study, pair: str, arm: str, threshold: float = 0.0) -> resampling.Bootstrap | None:
    """The resampled metrics of an arm at the rate chosen for it, under the arm's name; None until it is trained."""
    z = outputs(study, pair, arm)
    if z is None:
        return None
    file = f"{pair}/tuned{threshold:+.4f}/{arm}" if threshold else f"{pair}/tuned/{arm}"
    return evaluation.resampled(study, file, z, evaluation.correct(study, pair), threshold)


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
        found[["difference", "difference_low", "difference_high"]] = np.nan
        for arm in parts if control.against in parts else []:
            if arm != control.against:
                less = resampling.difference(boot, arm, control.against)[["estimate", "low", "high"]]
                rows = found["arm"].eq(arm)
                found.loc[rows, ["difference", "difference_low", "difference_high"]] = less.loc[
                    found.loc[rows, "metric"]
                ].to_numpy()
        frames.append(found)
    return pd.concat(frames).assign(control=name) if frames else pd.DataFrame()


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
        model = make_pipeline(StandardScaler(), LogisticRegression())
        model.fit(np.stack([heldout, odds["heldout"]], axis=1), right)
        rows.append(model.decision_function(np.stack([test, odds["test"]], axis=1)))
    return np.stack(rows)


def label_shift(study: Study, name: str) -> dict[str, statistics.Rate]:
    """A classifier's accuracy on the images it was trained on, by cross-fitting on the same ones, and on new ones.

    Returns
    -------
    train, heldout, test, and crossfit where all its folds are there: exact 95 % intervals, of images as they are.
    """
    cache = runs.read_tensors(runs.classifier_path(study, name))
    parts = {"train": cache["train.correct"][0], "heldout": cache["heldout.correct"], "test": cache["test.correct"]}
    paths = [runs.fold_path(study, name, fold) for fold in range(study.audit.folds)]
    if all(runs.current(p, experiments.fold_config(study, name, k)) for k, p in enumerate(paths)):
        parts["crossfit"] = np.concatenate([runs.read_tensors(path)["correct"][0].numpy() for path in paths])
    found = {}
    for part, right in parts.items():
        right = np.asarray(right)
        low, high = statistics.clopper_pearson(right.sum(), len(right))
        found[part] = statistics.Rate(right.mean().item(), float(low), float(high), int(right.sum()), len(right))
    return found
