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

from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..predictions import Predictions
from ..stats import resampling, statistics
from .ablations import outputs_of

TOLERANCE = 0.002  # of the AUROC

State = Literal["trained", "not trained", "unknown"]


def gaps(run: Any) -> pd.DataFrame:
    """AUROC minus MCP's on the test set of the method that ranks best on validation at each budget.

    Returns
    -------
    One row per classifier and budget: classifier, step (what was trained), estimate, low, high: fractions, 95 %
    intervals over test images (DeLong) and seeds. Of the study's own ablations, for oracles of the classifier's own
    kind, as far as their outputs are there.
    """
    study, frame, rows = run.study, run.curves, []
    is_own = set(frame["arm"]) <= study.all_methods.keys()
    for pair in dict.fromkeys(frame["pair"]) if is_own else ():
        mean = frame[(frame["pair"] == pair) & (frame["split"] == "heldout")].groupby(["steps", "arm"])["auroc"].mean()
        for steps, of_rung in mean.groupby(level="steps"):
            arm = of_rung.idxmax()[1]
            z = outputs_of(run, pair, arm)
            if z is not None:
                step = f"fine-tuned oracle ({study.method(arm).loss.upper()}), {steps:,} steps"
                rows.append((study.pair(pair)[1], step, *_minus_mcp(z, run.predictions(pair))))
    return pd.DataFrame(rows, columns=["classifier", "step", "estimate", "low", "high"])


def _minus_mcp(z: NDArray, predictions: Predictions) -> tuple[float, float, float]:
    """AUROC of ``z`` (S, N) minus MCP's, mean over the seeds, with its 95 % interval over images and seeds."""
    mcp, correct = predictions.confidence["mcp"][0], predictions.correct
    difference = statistics.delong_difference(z, mcp, correct)
    each = np.array([statistics.delong_difference(row, mcp, correct).difference for row in z])
    return difference.difference, *resampling.with_seeds(each, difference.low, difference.high)


def validation(frame: pd.DataFrame, pair: str) -> pd.DataFrame:
    """Mean validation AUROC of a pair's oracles: one row per number of steps, ascending, one column per loss."""
    rows = frame[(frame["pair"] == pair) & (frame["split"] == "heldout")]
    return rows.pivot_table(index="steps", columns="loss", values="auroc", sort=True)


def smallest(frame: pd.DataFrame, pair: str) -> int | None:
    """The smallest number of steps within `TOLERANCE` of the best of the ladder for every loss; None without one."""
    table = validation(frame, pair)
    enough = (table >= table.max() - TOLERANCE).all(axis=1)
    return int(table.index[enough].min()) if enough.any() else None


def best(results: Any, pair: str, arm: str) -> str:
    """The method of the ladder that is `arm` with the budget of the highest mean validation AUROC.

    A method that is not in the ladder stands for itself. The ladder may be another study's, with methods that this one
    does not have.
    """
    frame = results.curves
    here = frame["arm"].isin(list(results.study.all_methods))
    of_pair = frame[(frame["pair"] == pair) & (frame["split"] == "heldout") & here]
    if arm not in set(of_pair["arm"]):
        return arm
    loss = results.study.method(arm).loss
    return of_pair[of_pair["loss"] == loss].groupby("arm")["auroc"].mean().idxmax()


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


def state(results: Any, pair: str, arm: str) -> State:
    """Whether an oracle may judge a claim, by the rules above; "unknown" where neither rule can be applied.

    A head on a frozen backbone is not held to MCP on its training images: a single hyperplane may have converged and
    still lie below.
    """
    study = results.study
    if arm not in study.all_methods or study.method(arm).backbone == "frozen":
        return "trained"
    fitted, size = results.on_training(pair, arm), results.budget(pair, arm)
    if fitted is not None and fitted["auroc"].mean() < fitted["mcp"].mean():
        return "not trained"
    network = study.pair(pair)[0]  # the ladder of an oracle network on its own classifier speaks for its other pairs
    ladder = f"{network}-{network}"
    enough = size and converged(results.curves, ladder, study.method(arm).loss, size["steps"])
    if enough is None:
        return "unknown"
    return "trained" if enough else "not trained"
