"""The oracles of the ablations, at the study's learning rate or each method at its own best one.

Where the study lists rates to try, one is chosen for every method and pair alike: by AUROC on the last validation
images, with one seed, from one grid, which goes on where the best lies at its edge. All seeds are then trained at it.
Test data plays no part until the report.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .. import metrics
from ..study import Study
from ..training import TrainingError
from . import outputs, steps
from .store import Log, Step

LOWEST, HIGHEST = 1e-6, 1.0  # where a grid of rates ends, whatever lies beyond


@dataclass(frozen=True)
class Tuning:
    """The search for a method's rate.

    rate : the chosen one; None while there are rates still to be tried, and where every one of them diverged
    tried : rate -> AUROC in [0, 1] on the last validation images, NaN where the training diverged; ascending by rate
    missing : the rates to try next
    """

    rate: float | None
    tried: dict[float, float]
    missing: list[float]


def tuning(study: Study, pair: str, method: str) -> Tuning:
    """How far the search for the rate of a method on a pair has come; a method with a rate of its own is not searched.

    A method with ``rate_of`` takes the rate that is found for that one. Without ``ablations.rates`` none is searched.
    """
    if study.method(method).rate_of:
        return tuning(study, pair, study.method(method).rate_of)
    if "rate" in study.method(method).training or not study.ablations.rates:
        return Tuning(study.recipe(pair, method).rate, {}, [])
    grid, tried = sorted(study.ablations.rates), {}
    while True:
        tried = {rate: _tried(study, pair, method, rate) for rate in grid}
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


def _tried(study: Study, pair: str, method: str, rate: float) -> float | None:
    """AUROC on the last validation images at one rate; NaN where the training diverged, None where it was not tried."""
    seed, last = study.ablations.seeds[0], slice(-study.ablations.tuning, None)
    z = outputs.of_oracles(study, pair, method, [seed], "heldout", rate=rate)
    if z:
        correct = outputs.correct(study, pair, "heldout")
        return metrics.evaluate(z[seed][last], correct[last])["auroc"]
    failure = steps.oracle(study, pair, method, seed, rate).failure
    return np.nan if failure and failure["diverged"] else None


def train(study: Study, pair: str, method: str, log: Log = print) -> list[Step]:
    """Choose the learning rate of a method and train all its seeds at it; return these oracles.

    Raises
    ------
    TrainingError : when a method diverges at every rate, or at the chosen one with another seed.
    """
    searched = study.method(method).rate_of or method
    while (search := tuning(study, pair, method)).missing:
        for rate in search.missing:
            try:
                steps.oracle(study, pair, searched, study.ablations.seeds[0], rate).get(log)
            except TrainingError as error:
                log(f"{pair}/{method} at rate {rate:g}: {error}")
    if search.rate is None:
        raise TrainingError(f"{pair}/{method} diverged at every rate from {min(search.tried)} to {max(search.tried)}")
    log(f"{pair}/{method}: rate {search.rate:g}")
    return [steps.oracle(study, pair, method, seed, search.rate).get(log) for seed in study.ablations.seeds]


def planned(study: Study) -> list[Step]:
    """The steps of all ablations, as far as they are known, each once."""
    return list(dict.fromkeys(step for name in study.ablations.questions for step, _ in _steps(study, name)))


def rows(study: Study, names: Iterable[str] | None = None) -> list[dict]:
    """`Step.row` of each step of all ablations or of some, as far as they are known, each once.

    One key more: chosen, whether it is at the method's learning rate, or was tried for it. A training that diverged
    while a learning rate was searched is "diverged", not "failed".
    """
    names = study.ablations.questions if names is None else names
    chosen = dict(one for name in names for one in _steps(study, name))
    rows = []
    for step, is_chosen in chosen.items():
        row = step.row() | {"chosen": is_chosen}
        if not is_chosen and row["status"] == "failed" and step.failure["diverged"]:
            row["status"] = "diverged"
        rows.append(row)
    return rows


def _steps(study: Study, name: str) -> list[tuple[Step, bool]]:
    """The steps of an ablation; of each oracle, whether it is at the learning rate chosen for its method."""
    ablation = study.ablation(name)
    classifiers = sorted({study.pair(pair)[1] for pair in ablation.pairs})
    needed = [steps.classifier(study, network) for network in classifiers if network in study.ablations.networks]
    if any(study.method(method).labels == "crossfit" for method in ablation.methods):
        needed += [step for network in classifiers for step in steps.folds(study, network)]
    oracles = [_oracles(study, pair, method) for pair in ablation.pairs for method in ablation.methods]
    return [(step, True) for step in needed] + [one for of_method in oracles for one in of_method]


def _oracles(study: Study, pair: str, method: str) -> list[tuple[Step, bool]]:
    search, (first, *_) = tuning(study, pair, method), study.ablations.seeds
    tried = [] if study.method(method).rate_of else [*search.tried, *search.missing]
    others = [steps.oracle(study, pair, method, first, rate) for rate in tried if rate != search.rate]
    seeds = study.ablations.seeds if search.rate is not None else []
    chosen = [steps.oracle(study, pair, method, seed, search.rate) for seed in seeds]
    return [(step, False) for step in others] + [(step, True) for step in chosen]


def is_done(study: Study, name: str) -> bool:
    """Whether everything has been made that an ablation compares."""
    methods = [(pair, method) for pair in study.ablation(name).pairs for method in study.ablation(name).methods]
    made = all(row["status"] in ("done", "diverged") for row in rows(study, [name]))
    return made and all(tuning(study, *which).rate is not None for which in methods)


def tuned_outputs(study: Study, pair: str, method: str, split: str = "test") -> NDArray | None:
    """``z`` of a method's oracles at the learning rate chosen for it, float32 (S, N); None until all are trained."""
    if (rate := tuning(study, pair, method).rate) is None:
        return None
    z = outputs.of_oracles(study, pair, method, study.ablations.seeds, split, rate=rate)
    return np.stack(list(z.values())) if 0 < len(z) == len(study.ablations.seeds) else None


def search(study: Study, pair: str, method: str) -> pd.DataFrame:
    """The search for a method's learning rate on validation images, first seed: index rate; auroc, tnr95."""
    seed, last = study.ablations.seeds[0], slice(-study.ablations.tuning, None)
    rows = {}
    for rate in tuning(study, pair, method).tried:
        for z in outputs.of_oracles(study, pair, method, [seed], "heldout", rate=rate).values():
            values = metrics.evaluate(z[last], outputs.correct(study, pair, "heldout")[last])
            rows[rate] = {"auroc": values["auroc"], "tnr95": 1 - values["fpr95"]}
    return pd.DataFrame(rows, index=["auroc", "tnr95"]).T
