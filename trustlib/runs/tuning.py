"""The trainings of the ablations, at the study's learning rate or each method at its own best one.

Where the study lists rates to try, one is chosen for every arm and pair alike: by AUC on the last validation images,
with one seed, from one grid, which goes on where the best lies at its edge. All seeds are then trained at it. Test data
plays no part until the report.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import metrics
from ..study import Study
from ..training import TrainingError
from . import experiments, outputs, store

LOWEST, HIGHEST = 1e-6, 1.0  # where a grid of rates ends, whatever lies beyond


@dataclass(frozen=True)
class Tuning:
    """The search for a method's rate.

    rate : the chosen one; None while there are rates still to be tried, and where every one of them diverged
    tried : rate -> AUC in [0, 1] on the last validation images, NaN where the training diverged; ascending by rate
    missing : the rates to try next
    """

    rate: float | None
    tried: dict[float, float]
    missing: list[float]


def tuning(study: Study, pair: str, arm: str) -> Tuning:
    """How far the search for the rate of a method on a pair has come; a method with a rate of its own is not searched.

    A method with ``rate_of`` takes the rate that is found for that one. Without ``ablations.rates`` none is searched.
    """
    if study.method(arm).rate_of:
        return tuning(study, pair, study.method(arm).rate_of)
    if "rate" in study.method(arm).training or not study.ablations.rates:
        return Tuning(study.recipe(pair, arm).rate, {}, [])
    grid, tried = sorted(study.ablations.rates), {}
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
    """AUC on the last validation images at one rate; NaN where the training diverged, None where it was not tried."""
    seed, last = study.ablations.seeds[0], slice(-study.ablations.tuning, None)
    z = outputs.of_oracles(study, pair, arm, [seed], "heldout", rate=rate)
    if z:
        correct = outputs.correct(study, pair, "heldout")
        return metrics.evaluate(z[seed][last], correct[last])["auroc"]
    path = store.oracle_path(study, pair, arm, seed, rate)
    status = store.status(path, experiments.oracle_config(study, pair, arm, seed, rate))
    return np.nan if status["status"] == "failed" and status["error"].startswith("TrainingError") else None


def train(study: Study, pair: str, arm: str, log: Callable[[str], None] = print) -> dict:
    """Choose the rate of a method and train all its seeds at it; return the manifest of the last.

    Raises
    ------
    TrainingError : when a method diverges at every rate, or at the chosen one with another seed.
    """
    searched = study.method(arm).rate_of or arm
    while (search := tuning(study, pair, arm)).missing:
        for rate in search.missing:
            try:
                experiments.train_oracle(study, pair, searched, study.ablations.seeds[0], log, rate=rate)
            except TrainingError as error:
                log(f"{pair}/{arm} at rate {rate:g}: {error}")
    if search.rate is None:
        raise TrainingError(f"{pair}/{arm} diverged at every rate from {min(search.tried)} to {max(search.tried)}")
    log(f"{pair}/{arm}: rate {search.rate:g}")
    for seed in study.ablations.seeds:
        manifest = experiments.train_oracle(study, pair, arm, seed, log, rate=search.rate)
    return manifest


def trainings(study: Study, names: Iterable[str] | None = None) -> list[dict]:
    """All that the ablations, or some of them, plan to make, as far as it is known; as `experiments.trainings`.

    Dicts with two keys more: ablation, and chosen (whether it is at the method's rate, or was tried for it). What two
    ablations share is there for each. A training that diverged while a rate was looked for is "diverged", not "failed".
    """
    rows = []
    for name in study.ablations.questions if names is None else names:
        ablation = study.ablation(name)
        shared = {"ablation": name, "job": f"ablation-{name}"}
        judged = {study.pair(pair)[1] for pair in ablation.pairs}
        for network in judged & study.ablations.networks.keys():
            config, path = experiments.classifier_config(study, network), store.classifier_path(study, network)
            row = {"kind": "classifier", "run": f"{network}/{path.stem}", "path": path, "chosen": True}
            rows.append(shared | row | store.status(path, config))
        if any(study.method(arm).labels == "crossfit" for arm in ablation.methods):
            for network, fold in ((n, k) for n in sorted(judged) for k in range(study.ablations.folds)):
                path, config = store.fold_path(study, network, fold), experiments.fold_config(study, network, fold)
                row = {"kind": "fold", "run": f"{network}/fold{fold}", "path": path, "chosen": True}
                rows.append(shared | row | store.status(path, config))
        for pair, arm in ((pair, arm) for pair in ablation.pairs for arm in ablation.methods):
            rows += [shared | row for row in _oracles(study, pair, arm)]
    return rows


def _oracles(study: Study, pair: str, arm: str) -> list[dict]:
    search, (first, *_) = tuning(study, pair, arm), study.ablations.seeds
    tried = [] if study.method(arm).rate_of else [*search.tried, *search.missing]
    planned = [(rate, first, False) for rate in tried if rate != search.rate]
    planned += [(search.rate, seed, True) for seed in study.ablations.seeds if search.rate is not None]
    rows = []
    for rate, seed, chosen in planned:
        path = store.oracle_path(study, pair, arm, seed, rate)
        status = store.status(path, experiments.oracle_config(study, pair, arm, seed, rate))
        if not chosen and status["status"] == "failed" and status["error"].startswith("TrainingError"):
            status["status"] = "diverged"
        name = store.oracle_name(study, pair, arm, seed, rate)
        rows.append({"kind": "oracle", "run": name, "path": path, "chosen": chosen, **status})
    return rows


def is_done(study: Study, name: str) -> bool:
    """Has everything been made that an ablation asks for?"""
    methods = [(pair, arm) for pair in study.ablation(name).pairs for arm in study.ablation(name).methods]
    made = all(row["status"] in ("done", "diverged") for row in trainings(study, [name]))
    return made and all(tuning(study, *arm).rate is not None for arm in methods)


def tuned_outputs(study: Study, pair: str, arm: str, split: str = "test") -> NDArray | None:
    """``z`` of a method's oracles at the learning rate chosen for it, float32 (S, N); None until all are trained."""
    if (rate := tuning(study, pair, arm).rate) is None:
        return None
    z = outputs.of_oracles(study, pair, arm, study.ablations.seeds, split, rate=rate)
    return np.stack(list(z.values())) if 0 < len(z) == len(study.ablations.seeds) else None


def search(study: Study, pair: str, arm: str) -> pd.DataFrame:
    """The search for a method's learning rate on validation images, first seed: index rate; auroc, tnr95."""
    seed, last = study.ablations.seeds[0], slice(-study.ablations.tuning, None)
    correct, rows = outputs.correct(study, pair, "heldout")[last], {}
    for rate in tuning(study, pair, arm).tried:
        for z in outputs.of_oracles(study, pair, arm, [seed], "heldout", rate=rate).values():
            values = metrics.evaluate(z[last], correct)
            rows[rate] = {"auroc": values["auroc"], "tnr95": 1 - values["fpr95"]}
    return pd.DataFrame(rows, index=["auroc", "tnr95"]).T
