"""What the finished trainings say: every confidence of a pair as arrays, their metrics, intervals and tests.

Nothing here needs a model, and nothing is trained: what is not made yet is not there. A part is "heldout" or "test", or
an unseen domain's, "domains/NAME" or "sweeps/NAME" (`trustlib.study.Domains`).
"""

import hashlib
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .. import confidence, data, metrics, released
from ..runs import store
from ..runs.experiments import classifier_config, confidence_config, oracle_config
from ..runs.provenance import source_digest
from ..runs.unseen import asked_config, observed_config
from ..stats import calibration, resampling, selective, statistics
from ..stats.rates import holm, rate_intervals
from ..study import Study

RESAMPLES = 2000  # of the images
MEASURED = ["pair", "arm", "seed", *metrics.METRICS, "tied", "tnr_paper", *metrics.SEPARABILITY]
MEASURED += ["aupr_error_released", "kl_released", "fpr95_released"]
WITHIN = ["pair", "arm", "auroc_within", "low", "high"]
FUSION = ["pair", "arm", "auroc", "low", "high", "difference", "difference_low", "difference_high"]
COMPARED = ("estimate", "low", "high", "seeds", "difference", "difference_low", "difference_high", "p", "p_holm")


def correct(study: Study, pair: str, part: str = "test") -> NDArray[np.bool_]:
    """Whether the pair's classifier was right, bool (N,)."""
    name = study.pair(pair)[1]
    if part in data.PARTS:
        return store.read_tensors(store.classifier_path(study, name), f"{part}.")["correct"].numpy()
    return store.read_tensors(store.domain_path(study, part, name))["correct"].numpy()


def predicted(study: Study, pair: str, part: str = "test") -> NDArray[np.int64]:
    """The class that the pair's classifier predicts on the validation ("heldout") or the test set, int64 (N,)."""
    path = store.classifier_path(study, study.pair(pair)[1])
    return store.read_tensors(path, f"{part}.")["logits"].numpy().argmax(1)


def has_classifier(study: Study, pair: str, part: str = "test") -> bool:
    """Is the pair's classifier there, and what it said of the part, as today's settings ask for it?"""
    name = study.pair(pair)[1]
    there = store.current(store.classifier_path(study, name), classifier_config(study, name)) is not None
    if not there or part in data.PARTS:
        return there
    return store.current(store.domain_path(study, part, name), observed_config(study, part, name)) is not None


def outputs(
    study: Study, pair: str, arm: str, seeds: Iterable[int], part: str = "test", *, rate: float | None = None
) -> dict[int, NDArray]:
    """The ``z`` of an arm's oracles that exist, seed -> float32 (N,); what was made with other settings does not.

    rate : the arm's own by default, and always on an unseen domain.
    """
    if part not in data.PARTS:
        z = _asked(study, pair, part)
        return {seed: z[arm, seed] for seed in seeds if (arm, seed) in z}
    found = {}
    for seed in seeds:
        path = store.oracle_path(study, pair, arm, seed, rate)
        if store.current(path, oracle_config(study, pair, arm, seed, rate)):
            found[seed] = store.read_tensors(path, f"{part}.")["z"].numpy()
    return found


def fit(
    study: Study, pair: str, arm: str, seed: int, split: str, *, rate: float | None = None
) -> dict[str, float] | None:
    """How an oracle fits a split, "train" (the images it learnt from, up to 10,000 of them), "heldout" or "test".

    Returns
    -------
    auroc, and tpr and tnr at z = 0, fractions; mcp, the AUROC of MCP on the same images. None until it is trained.
    """
    path = store.oracle_path(study, pair, arm, seed, rate)
    if not store.current(path, oracle_config(study, pair, arm, seed, rate)):
        return None
    saved = store.read_tensors(path, f"{split}.")
    held_out = split == "train" and study.arm(arm).labels == "heldout"
    cache = store.read_tensors(
        store.classifier_path(study, study.pair(pair)[1]), "heldout." if held_out else f"{split}."
    )
    index = saved["index"] if split == "train" else slice(None)
    views = split == "train" and not held_out
    right, mcp = ((cache[name][0] if views else cache[name])[index].numpy() for name in ("correct", "mcp"))
    found = metrics.evaluate(saved["z"].numpy(), right)
    return {name: found[name] for name in ("auroc", "tpr", "tnr")} | {"mcp": metrics.evaluate(mcp, right)["auroc"]}


def on_training(study: Study, pair: str, arm: str) -> dict[str, NDArray] | None:
    """`fit` on the training images for every seed: name -> float64 (S,); None until all seeds are trained.

    At the study's one learning rate for its own methods, at the tuned one for those of an ablation alone.
    """
    seeds, rate = study.seeds, None
    if arm in study.audit.arms:
        from ..runs.controls import tuning  # which itself asks this module

        seeds, rate = study.audit.seeds, tuning(study, pair, arm).rate
    found = [fit(study, pair, arm, seed, "train", rate=rate) for seed in seeds]
    if any(row is None for row in found):
        return None
    return {name: np.array([row[name] for row in found]) for name in found[0]}


def confidences(
    study: Study, pair: str, part: str = "test"
) -> tuple[NDArray[np.bool_], dict[tuple[str, int], NDArray]]:
    """Every confidence of a pair that exists.

    Returns
    -------
    correct : bool (N,), of the pair's classifier.
    scores : (name, seed) -> float (N,); the scores of the classifier itself first, with seed 0, ("mcp", 0) the first of
        all; then the oracles, an arm and its seed each. What is not made, failed, or was made with other settings is
        not there.
    """
    scores = {(name, 0): score for name, score in own_scores(study, study.pair(pair)[1], part).items()}
    if part not in data.PARTS:
        return correct(study, pair, part), scores | _asked(study, pair, part)
    for arm in study.arms:
        scores |= {(arm, seed): z for seed, z in outputs(study, pair, arm, study.seeds, part).items()}
    return correct(study, pair, part), scores


def _asked(study: Study, pair: str, part: str) -> dict[tuple[str, int], NDArray]:
    """(arm, seed) -> ``z`` on an unseen domain, float32 (N,), in the order of the study's arms."""
    path = store.domain_path(study, part, pair)
    if not store.current(path, asked_config(study, part, pair)):
        return {}
    z = store.read_tensors(path)
    order = [(arm, seed) for arm, seed in product(study.arms, study.seeds) if f"{arm}/seed{seed}" in z]
    return {(arm, seed): z[f"{arm}/seed{seed}"].numpy() for arm, seed in order}


def own_scores(study: Study, classifier_name: str, part: str = "test") -> dict[str, NDArray]:
    """The scores of a classifier itself that exist, name -> float (N,); MCP, a probability, the first of all."""
    if part not in data.PARTS:
        found = store.read_tensors(store.domain_path(study, part, classifier_name))
        return {key: found[key].numpy() for key in confidence.SCORES if key in found}
    scores = {"mcp": store.read_tensors(store.classifier_path(study, classifier_name), f"{part}.")["mcp"].numpy()}
    path = store.confidence_path(study, classifier_name)
    if store.current(path, confidence_config(study, classifier_name)):
        found = store.read_tensors(path, f"{part}.")
        scores |= {key: found[key].numpy() for key in confidence.SCORES if key in found and key != "mcp"}
    return scores


def first_seed(study: Study, pair: str, part: str = "test") -> tuple[NDArray[np.bool_], dict[str, NDArray]]:
    """As `confidences`, MCP and the oracles of the first seed only: (correct, arm -> float (N,)). What figures show."""
    right, scores = confidences(study, pair, part)
    shown = {("mcp", 0)} | {(arm, study.seeds[0]) for arm in study.arms}
    return right, {arm: score for (arm, seed), score in scores.items() if (arm, seed) in shown}


def evaluate(
    study: Study, pairs: list[str] | None = None, part: str = "test", *, count: int | None = None
) -> pd.DataFrame:
    """Every metric of every confidence that exists: one row a pair, arm and seed, fractions.

    TPR and TNR are taken at z = 0, MCP's at 0.5, and are NaN for a score without a threshold of its own; ``tnr_paper``
    is the paper's TNR, which counts TCP's true negatives at sigmoid(z) <= 1/K. Separability (nats) is that of
    sigmoid(z), or of MCP itself; NaN for the other scores. ``*_released`` are the released code's conventions, see
    `trustlib.released`.

    Parameters
    ----------
    pairs : all of the study's by default; a pair without its classifier is left out.
    part : "test", or a domain, is for the final evaluation only, "heldout" for everything before it.
    count : of the part's first images; all by default.
    """
    frames = []
    for pair in study.pairs if pairs is None else pairs:
        if has_classifier(study, pair, part):
            right, scores = confidences(study, pair, part)
            scores = {name: score[:count] for name, score in scores.items()}
            frames.append(measured(study, pair, right[:count], scores, len(study.images().classes)))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=MEASURED)


def measured(
    study: Study, pair: str, right: NDArray[np.bool_], scores: dict[tuple[str, int], NDArray], classes: int
) -> pd.DataFrame:
    """What `evaluate` says of a pair, from its `confidences` alone; classes: of how many the predictions are."""
    rows = []
    for (arm, seed), score in scores.items():
        threshold = threshold_of(study, arm)
        tcp = arm in study.arms and study.arms[arm].loss == "tcp"
        row = metrics.evaluate(score, right, threshold=threshold)
        row["tnr_paper"] = metrics.evaluate(score, right, threshold=negative_tcp(classes))["tnr"] if tcp else row["tnr"]
        row["aupr_error_released"] = released.aupr_error(score, right)
        if arm == "mcp" or arm in study.arms:
            probability = as_probability(arm, score)
            row |= metrics.separability(probability, right)
            row["kl_released"] = released.average_kl(probability, right)
            row["fpr95_released"] = released.fpr95_scan(probability, right)
        if np.isnan(threshold):
            row |= dict.fromkeys(("tpr", "tnr", "tnr_paper"), np.nan)
        rows.append({"pair": pair, "arm": arm, "seed": seed, **row})
    return pd.DataFrame(rows, columns=MEASURED)


def sweep(study: Study) -> pd.DataFrame:
    """Every metric of every confidence under the swept corruptions that have been made at every severity.

    Returns
    -------
    As `evaluate`, with two columns more: corruption, and severity, 0 for the same images without it.
    """
    frames = []
    for name, parts in study.domains.sweep.items():
        found = [evaluate(study, part=part) for part in parts]
        if all(map(len, found)):
            frames += [frame.assign(corruption=name, severity=i) for i, frame in enumerate(found, 1)]
    if frames:
        clean = evaluate(study, count=study.domains.sweep_images)
        names = dict.fromkeys(frame["corruption"].iloc[0] for frame in frames)
        frames += [clean.assign(corruption=name, severity=0) for name in names]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["corruption", "severity"])


def judged(study: Study) -> pd.DataFrame:
    """`compare` for every pair on every unseen domain that has been asked about, with a column domain more."""
    asked = [
        (name, pair)
        for name, part in study.domains.parts.items()
        for pair in study.pairs
        if has_classifier(study, pair, part)
    ]
    with ThreadPoolExecutor() as pool:  # NumPy lets go of the interpreter
        frames = pool.map(
            lambda task: compare(study, task[1], study.domains.parts[task[0]]).assign(domain=task[0]), asked
        )
    return pd.concat(frames, ignore_index=True) if asked else pd.DataFrame(columns=["domain", "pair", "arm", "metric"])


def resampled(
    study: Study,
    name: str,
    scores: NDArray,
    right: NDArray[np.bool_],
    threshold: float = 0.0,
    tnr_threshold: float | None = None,
) -> resampling.Bootstrap:
    """The resampled metrics of one score, made once for these values; `merged` puts several together.

    All are resampled with one seed, so that scores of the same images stay paired, whichever job asked for them.

    Parameters
    ----------
    name : CLASSIFIER/SCORE or PAIR/ARM: its file; the Bootstrap knows the score by the last part.
    scores : float (S, N), a row a training seed.
    right : bool (N,).
    threshold, tnr_threshold : as in `metrics.evaluate`.
    """
    scores = np.atleast_2d(np.asarray(scores, np.float64))
    config = {
        "kind": "bootstrap",
        "content": hashlib.sha256(scores.tobytes() + right.tobytes()).hexdigest(),
        "threshold": str(threshold),
        "tnr_threshold": str(tnr_threshold),
        "resamples": RESAMPLES,
        "source": source_digest("metrics", "stats.resampling"),
    }
    key = name.rsplit("/", 1)[-1]

    def make() -> tuple[dict[str, Tensor], dict]:
        boot = resampling.bootstrap(
            {key: scores}, right, threshold=threshold, tnr_threshold=tnr_threshold, resamples=RESAMPLES
        )
        return {"estimate": torch.from_numpy(boot.estimate[key]), "samples": torch.from_numpy(boot.samples[key])}, {}

    path = store.bootstrap_path(study, name)
    store.cached(path, config, make)
    found = {part: tensor.numpy() for part, tensor in store.read_tensors(path).items()}
    return resampling.Bootstrap({key: found["estimate"]}, {key: found["samples"]})


def by_name(scores: dict[tuple[str, int], NDArray]) -> dict[str, NDArray]:
    """`confidences` with a row a seed: name -> float (S, N)."""
    rows: dict[str, list] = {}
    for (name, _), score in scores.items():
        rows.setdefault(name, []).append(score)
    return {name: np.stack(values) for name, values in rows.items()}


def bootstraps(study: Study, pair: str, part: str = "test") -> resampling.Bootstrap:
    """The resampled metrics of every confidence of a pair that exists."""
    classifier_name, right = study.pair(pair)[1], correct(study, pair, part)
    folder = "" if part == "test" else f"{part}/"
    made = [
        resampled(study, f"{folder}{classifier_name}/{name}", score, right, threshold_of(study, name))
        for name, score in own_scores(study, classifier_name, part).items()
    ]
    found = by_name(confidences(study, pair, part)[1])
    made += [resampled(study, f"{folder}{pair}/{arm}", z, right) for arm, z in found.items() if arm in study.arms]
    return resampling.merged(made)


def compare(study: Study, pair: str, part: str = "test") -> pd.DataFrame:
    """Every confidence of a pair with intervals over images and seeds, and against MCP.

    Returns
    -------
    A row a score and metric: pair, arm, metric; the mean over seeds with its 95 % interval (`resampling.intervals`);
    the difference from MCP with its interval (`resampling.difference`); for "auroc", the p-value of that difference by
    DeLong's test, for these trained seeds, and that after Holm's correction over the pair's scores. Fractions. TPR and
    TNR of a score without a threshold are NaN.
    """
    return compared(study, pair, *confidences(study, pair, part), bootstraps(study, pair, part))


def compared(
    study: Study,
    pair: str,
    right: NDArray[np.bool_],
    scores: dict[tuple[str, int], NDArray],
    boot: resampling.Bootstrap,
) -> pd.DataFrame:
    """What `compare` says of a pair, from its `confidences` and their resamples alone."""
    names = by_name(scores)
    found = resampling.intervals(boot).unstack("metric").swaplevel(axis=1)
    values = np.full((len(names), len(metrics.METRICS), len(COMPARED)), np.nan)
    tests = np.full(len(names), np.nan)
    for i, (name, rows) in enumerate(names.items()):
        values[i, :, :4] = [found.loc[name, metric][list(COMPARED[:4])] for metric in metrics.METRICS]
        if name != "mcp":
            against = resampling.difference(boot, name, "mcp").loc[list(metrics.METRICS)]
            values[i, :, 4:7] = against[["estimate", "low", "high"]]
            tests[i] = statistics.delong_difference(rows, names["mcp"][0], right).p
        if np.isnan(threshold_of(study, name)):
            values[i, [metrics.METRICS.index(m) for m in ("tpr", "tnr")]] = np.nan
    values[:, metrics.METRICS.index("auroc"), 7:] = np.stack([tests, holm(tests)], axis=1)
    index = pd.DataFrame(product([pair], names, metrics.METRICS), columns=["pair", "arm", "metric"])
    return pd.concat([index, pd.DataFrame(values.reshape(-1, len(COMPARED)), columns=COMPARED)], axis=1)


def within(study: Study) -> pd.DataFrame:
    """AUROC among the predictions of one class, `metrics.auroc_within`, of every confidence on the test set.

    Returns
    -------
    One row per pair and confidence: pair, arm, auroc_within (mean over the seeds), low, high (95 %, over images and
    seeds, `resampling.crossed`). Fractions; NaN where no class has correct and incorrect predictions.
    """
    pairs = [pair for pair in study.pairs if has_classifier(study, pair)]
    with ThreadPoolExecutor() as pool:  # NumPy releases the interpreter
        frames = list(pool.map(lambda p: measured_within(p, *confidences(study, p), predicted(study, p)), pairs))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=WITHIN)


def measured_within(
    pair: str, right: NDArray[np.bool_], scores: dict[tuple[str, int], NDArray], classes: NDArray
) -> pd.DataFrame:
    """The rows of `within` of one pair, from its `confidences` and the predicted classes (N,) alone."""
    found = resampling.auroc_within(by_name(scores), right, classes, resamples=RESAMPLES)
    rows = [(pair, name, *resampling.crossed(*values, 0.95)[:3]) for name, values in found.items()]
    return pd.DataFrame(rows, columns=WITHIN)


def combined(fitted: Sequence[NDArray], correct: NDArray[np.bool_], scores: Sequence[NDArray]) -> NDArray[np.float64]:
    """Log-odds of a logistic regression on several scores, standardised.

    Parameters
    ----------
    fitted : scores, float (M,) each, of the images that the regression is fitted on.
    correct : bool (M,), of these images.
    scores : the same scores of the images to be scored, float (N,) each.

    Returns
    -------
    float64 (N,)
    """
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return model.fit(np.stack(fitted, axis=1), correct).decision_function(np.stack(scores, axis=1))


def fused(z: dict[str, NDArray], mcp: dict[str, NDArray], right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Log-odds of a logistic regression on an oracle's ``z`` and MCP's log-odds, float64 (S, N).

    Fitted on the validation set, seed by seed; each input is standardised there, the penalty is scikit-learn's. If it
    ranks better than MCP, the oracle knows something that MCP does not.

    Parameters
    ----------
    z, mcp : of the parts "heldout" and "test"; float (S, N), and (N,) in [0, 1].
    right : bool (N,), whether the predictions on the validation set are correct; both kinds.
    """
    odds = {part: logit(values.clip(1e-15, 1 - 1e-15)) for part, values in mcp.items()}
    pairs = zip(z["heldout"], z["test"], strict=True)
    return np.stack([combined([a, odds["heldout"]], right, [b, odds["test"]]) for a, b in pairs])


def fusion(study: Study) -> pd.DataFrame:
    """Every oracle of the study and every probe together with MCP (`fused`), against MCP on the test set.

    Returns
    -------
    One row per pair and oracle: pair, arm, auroc of the two together with its 95 % interval (low, high), and the
    difference from MCP's with its own (difference_low, difference_high); over images and seeds, fractions.
    """
    frames = [
        measured_fusion(study, pair, {part: confidences(study, pair, part) for part in ("heldout", "test")})
        for pair in study.pairs
        if has_classifier(study, pair)
    ]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=FUSION)


def measured_fusion(
    study: Study, pair: str, seen: dict[str, tuple[NDArray[np.bool_], dict[tuple[str, int], NDArray]]]
) -> pd.DataFrame:
    """The rows of `fusion` of one pair, from its `confidences` on the validation ("heldout") and the test set alone.

    Empty where all predictions of either set are of one kind.
    """
    right = {part: correct for part, (correct, _) in seen.items()}
    if any(kind.all() or not kind.any() for kind in right.values()):
        return pd.DataFrame(columns=FUSION)
    scores = {part: by_name(found) for part, (_, found) in seen.items()}
    mcp = {part: found["mcp"][0].astype(np.float64) for part, found in scores.items()}
    both = {"mcp": mcp["test"][None]}
    for name in scores["test"]:
        if study.is_oracle(name):
            z = {part: found[name].astype(np.float64) for part, found in scores.items()}
            both[name] = fused(z, mcp, right["heldout"])
    boot = resampling.bootstrap(both, right["test"], resamples=RESAMPLES, threads=os.cpu_count() or 1)
    interval = resampling.intervals(boot).xs("auroc", level="metric")[["estimate", "low", "high"]]
    rows = []
    for name in both:
        if name != "mcp":
            less = resampling.difference(boot, name, "mcp").loc["auroc", ["estimate", "low", "high"]]
            rows.append((pair, name, *interval.loc[name], *less))
    return pd.DataFrame(rows, columns=FUSION)


def operating_points(study: Study, pair: str, *, max_risk: float = 0.05, delta: float = 0.001) -> pd.DataFrame:
    """What the scores with a threshold of their own do there, and how many predictions they let one keep; first seed.

    Returns
    -------
    A row a score (index): tpr, tnr, with exact 95 % intervals (_low, _high); tnr95, TNR where TPR is 95 %;
    coverage, the largest with a risk of at most `max_risk` on these images; guaranteed, the coverage of the threshold
    whose risk on new images is at most that, but for a chance of `delta` (0 where there is none); ece, brier and nll
    of the score read as a probability.
    """
    right, by_seed = confidences(study, pair)
    rows = {}
    for (name, seed), score in by_seed.items():
        threshold = threshold_of(study, name)
        if np.isnan(threshold) or (name in study.arms and seed != study.seeds[0]):
            continue
        rates = rate_intervals(score, right, threshold)
        row = {"tpr": rates["tpr"].rate, "tpr_low": rates["tpr"].low, "tpr_high": rates["tpr"].high}
        row |= {"tnr": rates["tnr"].rate, "tnr_low": rates["tnr"].low, "tnr_high": rates["tnr"].high}
        ranking = metrics.rank(score, right)
        row |= {"tnr95": float(metrics.tnr_at_tpr(ranking)), "coverage": metrics.coverage_at_risk(ranking, max_risk)}
        row["guaranteed"] = selective.guaranteed_threshold(score, right, max_risk, delta).coverage
        rows[name] = row | calibration.calibration(as_probability(name, score), right)
    return pd.DataFrame(rows).T


def negative_tcp(classes: int) -> float:
    """The z up to which the paper counts TCP's true negatives: sigmoid(z) <= 1/K of K classes (Section 2)."""
    return float(logit(1 / classes))


def threshold_of(study: Study, arm: str) -> float:
    """Above it a prediction is trusted: 0 for `z` and log-odds, 0.5 for MCP; NaN for a score that has none."""
    if arm == "mcp":
        return 0.5
    return 0.0 if arm in study.all_arms or confidence.SCORES[arm].has_zero else np.nan


def as_probability(arm: str, score: NDArray) -> NDArray[np.float64]:
    """The trustworthiness confidence sigmoid(z), (N,) in [0, 1]; MCP is one already. Not for ranking.

    For z, and for a score in log-odds.
    """
    return score if arm == "mcp" else expit(score.astype(np.float64))
