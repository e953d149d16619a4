"""What the ablations say: intervals, differences, operating points, labels, and an oracle combined with MCP.

Every method stands at the learning rate chosen for it, with all seeds of the ablations, on the test set. The functions
take the run of a study (`runs.results.Run`) or arrays. What is not trained yet is absent: None, or an empty frame.
"""

from collections.abc import Mapping
from itertools import permutations, product
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logit

from .. import losses, metrics
from ..predictions import Predictions
from ..settings import Slides
from ..stats import resampling
from ..stats.rates import clopper_pearson
from ..study import Study
from .compare import DIFFERENCE, INTERVAL

ENDS = ("", "_low", "_high")


def outputs_of(run: Any, pair: str, method: str) -> NDArray | None:
    """``z`` of a method at the learning rate chosen for it, float (S, N); of a publication the study's own methods'."""
    z = run.tuned_outputs(pair, method)
    is_own = method in run.study.methods and pair in run.study.pairs and not run.study.ablations.rates
    return run.predictions(pair).confidence.get(method) if z is None and is_own else z


def resampled(run: Any, pair: str, method: str, threshold: float = 0.0) -> resampling.Bootstrap | None:
    """The resampled metrics of a method at the learning rate chosen for it; None until it is trained."""
    z = run.tuned_outputs(pair, method)
    if z is None:
        return None
    return run.resample(Predictions(run.predictions(pair).correct, {method: z}, {method: threshold}))


def difference(run: Any, pair: str, a: str, b: str) -> pd.DataFrame | None:
    """Method `a` minus method `b` in every metric (`resampling.difference`); None until both are trained."""
    parts = [resampled(run, pair, method) for method in (a, b)]
    return None if None in parts else resampling.difference(resampling.merged(parts), a, b)


def compare(run: Any, name: str) -> pd.DataFrame:
    """The methods of an ablation on the test set, with intervals over images and seeds.

    Returns
    -------
    One row per pair, method and metric: ablation, pair, arm, rate, metric; estimate, low, high, seeds
    (`resampling.intervals`); the difference from the ablation's ``against`` with its interval, NaN where it has none.
    Methods that are not trained are left out.
    """
    ablation = run.study.ablation(name)
    frames = [_compare_pair(run, pair, ablation.methods, ablation.against) for pair in ablation.pairs]
    columns = ["pair", "arm", "rate", "metric", *INTERVAL, "seeds", *DIFFERENCE]
    made = [frame for frame in frames if frame is not None]
    return (pd.concat(made) if made else pd.DataFrame(columns=columns)).assign(ablation=name)


def compare_all(run: Any) -> pd.DataFrame:
    """`compare` of every ablation of a study."""
    frames = [compare(run, name) for name in run.study.ablations.questions]
    return pd.concat(frames) if frames else pd.DataFrame(columns=["ablation", "pair", "arm", "metric"])


def _compare_pair(run: Any, pair: str, methods: list[str], against: str | None) -> pd.DataFrame | None:
    """The rows of `compare` of one pair; None where nothing is trained."""
    parts = {method: boot for method in methods if (boot := resampled(run, pair, method))}
    if not parts:
        return None
    boot = resampling.merged(list(parts.values()))
    frame = resampling.intervals(boot).reset_index().rename(columns={"score": "arm"})
    frame.insert(0, "pair", pair)
    frame.insert(2, "rate", frame["arm"].map({method: run.learning_rate(pair, method) for method in parts}))
    frame[DIFFERENCE] = np.nan
    for method in parts if against in parts else ():
        if method != against:
            rows = frame["arm"].eq(method)
            less = resampling.difference(boot, method, against)[INTERVAL]
            frame.loc[rows, DIFFERENCE] = less.loc[frame.loc[rows, "metric"]].to_numpy()
    return frame


ORDINARY = {
    "form": ("released",),
    "head": ("linear", "mlp"),
    "labels": ("train",),
}  # of what is compared, the second one
CONTRASTS = ["ablation", "pair", "a", "b", "metric", *INTERVAL]


def couples(study: Study, methods: list[str]) -> list[tuple[str, str]]:
    """(a, b): methods that differ in their form, in their head or in their labels alone, b the ordinary one."""
    settings = {name: study.method(name).model_dump(exclude={"label", "rate_of"}) for name in methods}
    found = []
    for a, b in permutations(methods, 2):
        differing = [key for key in settings[a] if settings[a][key] != settings[b][key]]
        if len(differing) == 1 and settings[b][differing[0]] in ORDINARY.get(differing[0], ()):
            found.append((a, b))
    return found


def contrasts(run: Any) -> pd.DataFrame:
    """Method a minus b of all `couples` of the ablations in AUROC, and in TPR and TNR at z = 0: columns `CONTRASTS`."""
    rows = []
    for name, ablation in run.study.ablations.questions.items():
        for pair, (a, b) in product(ablation.pairs, couples(run.study, ablation.methods)):
            less = difference(run, pair, a, b)
            for metric in ("auroc", "tpr", "tnr") if less is not None else ():
                rows.append((name, pair, a, b, metric, *less.loc[metric, INTERVAL]))
    return pd.DataFrame(rows, columns=CONTRASTS)


def moved_threshold(study: Study, oracle_name: str) -> float:
    """The z at which sigmoid(z) is a-/(a+ + a-), where a steep slope loss of this oracle's slopes has its z = 0."""
    slopes = study.network(oracle_name).steep_slope
    return float(logit(slopes.chance))


def matched(z: NDArray, validation: NDArray, to: NDArray, correct: NDArray[np.bool_]) -> NDArray[np.float64]:
    """``z`` less the threshold at which its TPR on validation images is that of another method at z = 0.

    Seed by seed: the operating point of one oracle by the order of another.

    Parameters
    ----------
    z : of the test set, float (S, N).
    validation, to : of the method and of the other one on the validation set, float (S, M).
    correct : bool (M,), of the predictions on the validation set.

    Returns
    -------
    float64 (S, N)
    """
    tpr = (to[:, correct] > 0).mean(1)  # (S,)
    thresholds = [np.quantile(row[correct], 1 - share) for row, share in zip(validation, tpr, strict=True)]
    return z.astype(np.float64) - np.array(thresholds)[:, None]


def cheapest(score: NDArray, validation: NDArray, correct: NDArray[np.bool_], slopes: Slides) -> NDArray[np.float64]:
    """A score less the threshold at which alpha+ FN + alpha- FP is least on validation images.

    Parameters
    ----------
    score : of the test set, float (S, N).
    validation : the same on the validation set, float (S, M).
    correct : bool (M,), of the predictions on the validation set.

    Returns
    -------
    float64 (S, N)
    """
    thresholds = []
    for row in validation:
        values, block = np.unique(row, return_inverse=True)
        lost = np.bincount(block, correct).cumsum()  # correct predictions that each threshold, score > value, rejects
        trusted = (~correct).sum() - np.bincount(block, ~correct).cumsum()
        costs = slopes.alpha_pos * lost + slopes.alpha_neg * trusted
        trust_all = slopes.alpha_neg * (~correct).sum()
        best = int(costs.argmin())
        thresholds.append(values[best] if costs[best] < trust_all else -np.inf)
    return score.astype(np.float64) - np.array(thresholds, np.float64)[:, None]


def operating_points(run: Any, pair: str) -> pd.DataFrame:
    """Steep slope, and cross entropy as it is, with its threshold moved (`moved_threshold`, `matched`), and weighted.

    Returns
    -------
    One row each (index: what it is): arm, threshold (of z; NaN where each seed has its own); tpr, tnr and their 95 %
    intervals (_low, _high); both, the mean of tpr + tnr. What is not trained is left out.
    """
    moved = moved_threshold(run.study, run.study.pair(pair)[0])
    points = [("SS, z = 0", "ss", 0.0), ("CE, z = 0", "ce", 0.0), ("CE, threshold moved", "ce", moved)]
    boots = {point: resampled(run, pair, *point[1:]) for point in points}
    boots["CE, threshold at SS's TPR", "ce", np.nan] = _matched_boot(run, pair, "ce", "ss")
    if "ce-weighted" in run.study.all_methods:
        boots["CE, weighted, z = 0", "ce-weighted", 0.0] = resampled(run, pair, "ce-weighted")
    rows = {}
    for (name, arm, at), boot in boots.items():
        if boot:
            point = resampling.intervals(boot).droplevel("score").loc[["tpr", "tnr"], INTERVAL]
            row = {m + end: point.loc[m, c] for m in point.index for c, end in zip(INTERVAL, ENDS, strict=True)}
            rows[name] = {"arm": arm, "threshold": at, **row, "both": row["tpr"] + row["tnr"]}
    return pd.DataFrame(rows).T


def _matched_boot(run: Any, pair: str, method: str, to: str) -> resampling.Bootstrap | None:
    """The resampled metrics of a method whose threshold gives the TPR of another one; None until both are trained."""
    z, of_method, of_other = (
        run.tuned_outputs(pair, name, split) for name, split in ((method, "test"), (method, "heldout"), (to, "heldout"))
    )
    if z is None or of_method is None or of_other is None:
        return None
    score = matched(z, of_method, of_other, run.predictions(pair, "heldout").correct)
    return run.resample(Predictions(run.predictions(pair).correct, {method: score}, {method: 0.0}))


def slopes(run: Any, pair: str, methods: list[str]) -> pd.DataFrame:
    """The steep slope losses among some methods: alpha_pos, alpha_neg, loss (mean of the last epoch), tpr, tnr, auroc.

    Means over the seeds; one row per method.
    """
    study, rows = run.study, []
    for method in methods:
        z, rate = run.tuned_outputs(pair, method), run.learning_rate(pair, method)
        if z is not None:
            manifests = [run.manifest(pair, method, seed, rate=rate) for seed in study.ablations.seeds]
            loss = np.mean([manifest["history"][-1]["loss"] for manifest in manifests])
            values = pd.DataFrame([metrics.evaluate(row, run.predictions(pair).correct) for row in z]).mean()
            rows.append({**study.hyper(pair, method), "loss": loss, **values[["tpr", "tnr", "auroc"]]})
    return pd.DataFrame(rows, columns=["alpha_pos", "alpha_neg", "loss", "tpr", "tnr", "auroc"])


def optimum(z: NDArray, correct: NDArray[np.bool_], hyper: Mapping[str, float], bins: int = 15) -> pd.DataFrame:
    """A steep slope oracle's s = z / (1 + |z|) next to the s* that its share of correct predictions asks for.

    In bins of equally many images by s: were the oracle the minimiser of its loss for these images, s and s* would
    agree (`losses.steep_slope_optimum`).

    Parameters
    ----------
    z, correct : of the test set and one seed, float and bool (N,).
    hyper : alpha_pos and alpha_neg.

    Returns
    -------
    One row per bin: s (mean), correct (share), low, high (its exact 95 % interval), best, best_low, best_high (s* of
    those).
    """
    import torch  # here, since it takes seconds

    rows = []
    for index in np.array_split(np.argsort(z), bins):
        count, n = correct[index].sum(), len(index)
        low, high = map(float, clopper_pearson(count, n))
        best = losses.steep_slope_optimum(torch.tensor([count / n, low, high], dtype=torch.float64), **hyper).tolist()
        s = z[index].astype(float)
        row = {"s": (s / (1 + np.abs(s))).mean(), "correct": count / n, "low": low, "high": high}
        rows.append(row | dict(zip(("best", "best_low", "best_high"), best, strict=True)))
    return pd.DataFrame(rows)


def tails(run: Any, pair: str, methods: list[str]) -> pd.DataFrame:
    """The head's weights and the spread of ``z`` of every seed, at the learning rate of each method (Appendix F).

    Returns
    -------
    One row per method and seed: arm, seed, norm (of w), spread (interquartile range of z on the test set), tails (the
    range of the middle 99 % in units of it; 3.82 for a normal).
    """
    rows = []
    for method in methods:
        z, weights = run.tuned_outputs(pair, method), run.head_weights(pair, method)
        for row, (seed, weight) in zip(z if z is not None else (), weights.items(), strict=False):
            low, first, third, high = np.quantile(row, (0.005, 0.25, 0.75, 0.995))
            spread = third - first
            norm = weight.norm().item()
            rows.append({"arm": method, "seed": seed, "norm": norm, "spread": spread, "tails": (high - low) / spread})
    return pd.DataFrame(rows)


def head_tails(run: Any) -> pd.DataFrame:
    """`tails` of the methods and pairs of the ablation "head", where the study has it."""
    pairs, methods = _asked(run, "head")
    frames = [tails(run, pair, methods) for pair in pairs]
    return pd.concat(frames) if frames else pd.DataFrame(columns=["arm", "seed", "norm", "spread", "tails"])


def _asked(run: Any, name: str) -> tuple[list[str], list[str]]:
    """The pairs and methods of an ablation, none where the study has it not."""
    ablation = run.study.ablations.questions.get(name)
    return (ablation.pairs, ablation.methods) if ablation else ([], [])


def all_operating_points(run: Any) -> pd.DataFrame:
    """`operating_points` of the first pair of the ablation "threshold", with a column point before."""
    pairs, _ = _asked(run, "threshold")
    frames = [operating_points(run, pair).rename_axis("point").reset_index() for pair in pairs[:1]]
    return pd.concat(frames) if frames else pd.DataFrame(columns=["point"])


def all_slopes(run: Any) -> pd.DataFrame:
    """`slopes` of the first pair of the ablation "alpha"."""
    pairs, methods = _asked(run, "alpha")
    return slopes(run, pairs[0], methods) if pairs else pd.DataFrame()


def own_optimum(run: Any) -> pd.DataFrame:
    """`optimum` of the first seed of steep slope in the ablation "threshold"."""
    pairs, methods = _asked(run, "threshold")
    z = run.tuned_outputs(pairs[0], "ss") if "ss" in methods else None
    if z is None:
        return pd.DataFrame()
    return optimum(z[0], run.predictions(pairs[0]).correct, run.study.hyper(pairs[0], "ss"))


def all_label_shifts(run: Any) -> pd.DataFrame:
    """`label_shift` of the classifiers of the ablation "labels": classifier, labels, rate, low, high."""
    pairs, _ = _asked(run, "labels")
    sources = {name: run.label_sources(name) for name in dict.fromkeys(run.study.pair(pair)[1] for pair in pairs)}
    frames = [
        label_shift(of).rename_axis("labels").reset_index().assign(classifier=name)
        for name, of in sources.items()
        if of
    ]
    return pd.concat(frames) if frames else pd.DataFrame(columns=["classifier", "labels"])


def label_shift(sources: Mapping[str, NDArray[np.bool_]]) -> pd.DataFrame:
    """Accuracy of a classifier on each set that labels may come from (`runs.outputs.label_sources`).

    Returns
    -------
    One row per set: rate, low, high (exact 95 % interval).
    """
    rows = {}
    for name, correct in sources.items():
        count, n = int(correct.sum()), len(correct)
        low, high = map(float, clopper_pearson(count, n))
        rows[name] = {"rate": count / n, "low": low, "high": high}
    return pd.DataFrame(rows).T
