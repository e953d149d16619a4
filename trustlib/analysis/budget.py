"""How long an oracle must train: AUROC against steps on three splits, and what has converged.

The ablations whose names begin with "budget" train some methods with several budgets, each at a learning rate tuned for
the method on validation images. The rules:

- The budget of a study is the smallest whose validation AUROC, a mean over seeds, lies within `TOLERANCE` of the best
  of the ladder, for every method of the oracle network at once. Where one method overfits before another has converged
  there is none; the study then takes the longest, and `best` names each method's own.
- An oracle has converged where twice the steps raise its validation AUROC by less than `TOLERANCE`; that they lower it
  is overfitting. Of a ladder, the first budget of at least twice the steps is compared, which errs on the strict side;
  with the longest budget, the last one of at most half its steps, since each doubling gains less than the one before.
- An oracle is "not trained" where it has not converged, or where it is fine-tuned and its AUROC on its own training
  images lies below that of MCP on the same images.
"""

from itertools import product
from typing import Literal

import numpy as np
import pandas as pd

from ..runs import controls, store
from ..stats import resampling, statistics
from ..study import Study
from . import evaluation

TOLERANCE = 0.002  # of the AUROC
SPLITS = ("train", "heldout", "test")
CURVES = ["pair", "loss", "arm", "lr", "seed", "steps", "epochs", "images", "split", "auroc", "tpr", "tnr", "mcp"]

State = Literal["trained", "not trained", "unknown"]


def size(study: Study, pair: str, arm: str) -> dict[str, int]:
    """Budget of a method: steps, epochs, and images, how many it is shown in all."""
    recipe = study.recipe(pair, arm)
    images = recipe.images or len(study.images().labels["train"])
    steps = recipe.epochs * (images // recipe.batch)
    return {"steps": steps, "epochs": recipe.epochs, "images": steps * recipe.batch}


def curves(study: Study) -> pd.DataFrame:
    """Every method and budget of the ablations whose seeds are all trained, on each split.

    Returns
    -------
    One row per pair, arm, seed and split ("train": up to 10,000 of the oracle's own training images): loss, lr, steps,
    epochs, images; auroc, and tpr and tnr at z = 0, fractions; mcp, the AUROC of MCP on the same images. Of a study
    without the ablation, the published one that its ``budget_from`` names; empty where there is none. The study's own
    methods are a rung of its ladder where all are trained at the study's learning rate.
    """
    ladder = [control for name, control in study.audit.controls.items() if name.startswith("budget")]
    if not ladder:
        return published(study.budget_from) if study.budget_from else pd.DataFrame(columns=CURVES)
    methods = [(pair, arm) for control in ladder for pair in control.pairs for arm in control.arms]
    if not study.audit.rates:
        compared = {study.arm(arm).loss for _, arm in methods}
        own = [arm for arm in study.one_a_loss if study.arm(arm).loss in compared]
        methods += product(dict.fromkeys(pair for pair, _ in methods), own)
    rows = [row for pair, arm in methods for row in _measured(study, pair, arm)]
    return pd.DataFrame(rows, columns=CURVES).sort_values("pair", kind="stable", ignore_index=True)


def _measured(study: Study, pair: str, arm: str) -> list[dict]:
    """The rows of `curves` of one method and budget; none until all its seeds are trained."""
    lr = controls.tuning(study, pair, arm).rate
    shared = {"pair": pair, "loss": study.arm(arm).loss, "arm": arm, "lr": lr, **size(study, pair, arm)}
    rows = []
    for seed, split in product(study.audit.seeds, SPLITS):
        found = None if lr is None else evaluation.fit(study, pair, arm, seed, split, rate=lr)
        if found is None:
            return []
        rows.append(shared | {"seed": seed, "split": split, **found})
    return rows


def gaps(study: Study) -> dict[str, pd.DataFrame]:
    """AUROC minus MCP's on the test set, per classifier, of the method that ranks best on validation at each budget.

    Returns
    -------
    classifier -> columns step (what was trained), estimate, low, high: fractions, 95 % intervals over test images
    (DeLong) and seeds. Of the study's own ablations, for oracles of the classifier's own kind.
    """
    frame, found = curves(study), {}
    if not set(frame["arm"]) <= study.all_arms.keys():  # another study's
        return {}
    for pair in dict.fromkeys(frame["pair"]):
        name, rows = study.pair(pair)[1], []
        mean = frame[(frame["pair"] == pair) & (frame["split"] == "heldout")].groupby(["steps", "arm"])["auroc"].mean()
        right, mcp = evaluation.correct(study, pair), evaluation.own_scores(study, name)["mcp"]
        for steps, of_rung in mean.groupby(level="steps"):
            arm = of_rung.idxmax()[1]
            z = controls.outputs(study, pair, arm)
            difference = statistics.delong_difference(z, mcp, right)
            each = np.array([statistics.delong_difference(one, mcp, right).difference for one in z])
            low, high = resampling.with_seeds(each, difference.low, difference.high)
            step = f"fine-tuned oracle ({study.arm(arm).loss.upper()}), {steps:,} steps"
            rows.append({"step": step, "estimate": difference.difference, "low": low, "high": high})
        found[name] = pd.DataFrame(rows)
    return found


def published(name: str) -> pd.DataFrame:
    """The curves that another study has published, results/NAME/tables/budget.csv; empty where there are none."""
    path = store.results() / name / "tables" / "budget.csv"
    return pd.read_csv(path) if path.exists() else pd.DataFrame(columns=CURVES)


def validation(frame: pd.DataFrame, pair: str) -> pd.DataFrame:
    """Mean validation AUROC of a pair's oracles: one row per number of steps, ascending, one column per loss."""
    rows = frame[(frame["pair"] == pair) & (frame["split"] == "heldout")]
    return rows.pivot_table(index="steps", columns="loss", values="auroc", sort=True)


def smallest(frame: pd.DataFrame, pair: str) -> int | None:
    """The smallest number of steps within `TOLERANCE` of the best of the ladder for every loss; None without one."""
    table = validation(frame, pair)
    enough = (table >= table.max() - TOLERANCE).all(axis=1)
    return int(table.index[enough].min()) if enough.any() else None


def best(study: Study, pair: str, arm: str, frame: pd.DataFrame | None = None) -> str:
    """The method of the ladder that is `arm` with the budget of the highest mean validation AUROC.

    frame : the study's `curves`, where they have been read already. An arm that is not in it stands for itself.
    """
    frame = curves(study) if frame is None else frame
    of_pair = frame[(frame["pair"] == pair) & (frame["split"] == "heldout")]
    if arm not in set(of_pair["arm"]):
        return arm
    return of_pair[of_pair["loss"] == study.arm(arm).loss].groupby("arm")["auroc"].mean().idxmax()


def converged(frame: pd.DataFrame, pair: str, loss: str, steps: int) -> bool | None:
    """Whether doubling the steps raises the validation AUROC by less than `TOLERANCE`; None where no rung says.

    steps : the nearest rung at or below it stands for the oracle, if it has more than half as many.
    """
    table = validation(frame, pair)
    if loss not in table:
        return None
    ladder = table[loss].dropna()
    own = ladder[(ladder.index <= steps) & (ladder.index > steps / 2)].iloc[-1:]
    longer, shorter = ladder[ladder.index >= 2 * steps], ladder[ladder.index <= own.index.max() / 2]
    if own.empty or (longer.empty and shorter.empty):
        return None
    gain = own.iloc[0] - shorter.iloc[-1] if longer.empty else longer.iloc[0] - own.iloc[0]
    return bool(gain < TOLERANCE)


def state(study: Study, pair: str, arm: str, frame: pd.DataFrame | None = None) -> State:
    """Whether an oracle may judge a claim, by the rules above; "unknown" where neither rule can be applied.

    frame : the study's `curves`, where they have been read already.

    A head on a frozen backbone is not held to MCP on its training images: a single hyperplane may have converged and
    still lie below.
    """
    if arm not in study.all_arms or study.arm(arm).backbone == "frozen":
        return "trained"
    fitted = evaluation.on_training(study, pair, arm)
    if fitted is not None and fitted["auroc"].mean() < fitted["mcp"].mean():
        return "not trained"
    frame = curves(study) if frame is None else frame
    enough = converged(frame, _ladder_pair(study, pair), study.arm(arm).loss, size(study, pair, arm)["steps"])
    if enough is None:
        return "unknown"
    return "trained" if enough else "not trained"


def _ladder_pair(study: Study, pair: str) -> str:
    """The pair whose ladder speaks for a pair: that of the same oracle network on its own classifier."""
    network = study.pair(pair)[0]
    return f"{network}-{network}"
