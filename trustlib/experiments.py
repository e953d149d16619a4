"""What a study makes, each once and then read from its file: `train_classifier`, `score_classifier`, `train_oracle`.

A notebook calls them for what it needs; whatever is there already is not made again. After them nothing needs a
model: `confidences` gives every confidence of a pair as arrays, `evaluate` their metrics, `compare` the intervals.
"""

import hashlib
import time
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import product

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import Tensor, nn

from . import calibration, confidence, data, losses, metrics, oracle, released, resampling, runs, statistics, training
from .provenance import digest, processor, source_digest
from .study import Arm, Study

Log = Callable[[str], None]


def train_classifier(study: Study, name: str, log: Log = print, seed: int | None = None) -> dict:
    """Train a classifier of the study and cache what is asked of it later; return its manifest.

    The one that is judged is that of the study's first classifier seed; the others serve its ensemble.

    In its file, besides ``weights.*`` (V views: the image, and its mirror image where the study flips):

    - ``train.correct`` bool (V, N), ``train.p_true`` float32 (V, N), the true class's probability, ``train.mcp``
      float64 (V, N), the maximum class probability (float32 would tie what is close to 1); ``train.logits`` (N, K)
      and penultimate ``train.features`` (N, d) of the image as it is
    - ``heldout.*`` and ``test.*``: the same of the image as it is, (N,), (N, K) and (N, d)
    """
    images, device = _setup(study)
    network = study.network(name)
    seed = study.classifier_seeds[0] if seed is None else seed

    def make() -> tuple[dict[str, Tensor], dict]:
        log(f"classifier {name}, seed {seed}: {network.model}, {len(images.labels['train']):,} images")
        torch.manual_seed(seed)  # the initial weights
        net = oracle.build_backbone(network.model, network.args).to(device)
        history = training.train(
            net, images, images.labels["train"], _classification_loss,
            flip=study.flip, seed=seed, log=log, **network.training.model_dump(),
        )  # fmt: skip
        net.eval()
        tensors = {f"weights.{key}": tensor for key, tensor in net.state_dict().items()}
        views = [_observe(net, images, "train", flip) for flip in _flips(study)]
        for key in ("correct", "p_true", "mcp"):
            tensors[f"train.{key}"] = torch.stack([view[key] for view in views])  # (V, N)
        tensors |= {f"train.{key}": views[0][key] for key in ("logits", "features")}
        for part in ("heldout", "test"):
            tensors |= {f"{part}.{key}": tensor for key, tensor in _observe(net, images, part, False).items()}
        accuracy = {part: tensors[f"{part}.correct"].float().mean().item() for part in ("train", "heldout")}
        log(f"classifier {name}: accuracy {accuracy['train']:.2%} train, {accuracy['heldout']:.2%} held out")
        return tensors, {"history": history, "accuracy": accuracy, **_facts(net, device)}

    return runs.cached(runs.classifier_path(study, name, seed), classifier_config(study, name, seed), make)


def score_classifier(study: Study, name: str, log: Log = print) -> dict:
    """Every confidence of a classifier that needs no oracle (`trustlib.confidence`); return the file's manifest.

    What is fitted is fitted on the held-out part, what needs neighbours or learns looks at the training part. In the
    file: ``heldout.<score>`` and ``test.<score>``, float32 (N,); in the manifest, the seconds that each score took and
    the reason why one is missing.
    """
    for seed in study.classifier_seeds:
        train_classifier(study, name, log, seed)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = _setup(study)
        seen = {part: _observed(study, name, images, part) for part in data.PARTS}
        tensors, seconds, missing = {}, {}, {}
        for key, score in confidence.SCORES.items():
            if reason := score.missing(seen["test"], seen["heldout"], seen["train"]):
                missing[key] = reason
                continue
            start = time.perf_counter()
            for part in ("heldout", "test"):
                value = score.function(seen[part], seen["heldout"], seen["train"])
                tensors[f"{part}.{key}"] = torch.from_numpy(value.astype(np.float32))
            seconds[key] = round(time.perf_counter() - start, 2)
        log(f"confidences of {name}: {len(seconds)} scores, {sum(seconds.values()):.1f} s")
        return tensors, {"score_seconds": seconds, "missing": missing, "device": _device_name(device)}

    return runs.cached(runs.confidence_path(study, name), confidence_config(study, name), make)


def train_oracle(study: Study, pair: str, arm: str, seed: int, log: Log = print) -> dict:
    """Train one oracle of a pair and store its weights and ``z``; return its manifest.

    The backbone starts from the classifier of its own kind; the head is new. The classifier that is judged does not
    run: its correctness and probabilities come from the cache. In the file: ``weights.*``, ``heldout.z`` and
    ``test.z``, float32 (N,).
    """
    config = oracle_config(study, pair, arm, seed)
    oracle_name, classifier_name = study.pair(pair)
    for name in dict.fromkeys((oracle_name, classifier_name)):
        train_classifier(study, name, log)
    images, device = _setup(study)
    network, settings = study.networks[oracle_name], study.arms[arm]

    def make() -> tuple[dict[str, Tensor], dict]:
        cache = runs.read_tensors(runs.classifier_path(study, classifier_name), "train.")
        torch.manual_seed(seed)  # the head's initial weights
        backbone = oracle.build_backbone(network.model, network.args)
        net = oracle.Oracle(backbone, settings.head)
        oracle.initialise(net.backbone, runs.read_tensors(runs.classifier_path(study, oracle_name), "weights."))
        net.to(device)
        target = cache["p_true" if settings.loss == "tcp" else "correct"].to(device)  # (V, N)
        counts = {"n_correct": int(cache["correct"].sum()), "n_wrong": int((~cache["correct"]).sum())}
        hyper = config["arm"]["hyper"] | (counts if settings.loss == "cb" else {})
        loss = partial(_loss_function(settings), **hyper)
        history = training.train(
            net, images, target, loss, flip=study.flip, seed=seed, log=lambda _: None, **study.oracle.model_dump()
        )
        net.eval()
        tensors = {f"weights.{key}": tensor for key, tensor in net.state_dict().items()}
        for part in ("heldout", "test"):
            (z,) = training.predict(net, images, part)
            if not z.isfinite().all():
                raise training.TrainingError(
                    f"{(~z.isfinite()).sum()} of {len(z)} outputs on the {part} part are not finite"
                )
            tensors[f"{part}.z"] = z
        log(f"{pair} {arm} seed {seed}: loss {history[-1]['loss']:.4f}, {sum(h['seconds'] for h in history):.1f} s")
        return tensors, {"history": history, **_facts(net, device)}

    return runs.cached(runs.oracle_path(study, pair, arm, seed), config, make)


def classifier_config(study: Study, name: str, seed: int | None = None) -> dict:
    """All that a classifier depends on; its digest is the key of its file."""
    return {
        "kind": "classifier",
        "network": study.network(name).model_dump(exclude={"label", "steep_slope"}),
        "seed": study.classifier_seeds[0] if seed is None else seed,
        **_shared_config(study),
        "source": source_digest(train_classifier, data.DATASETS[study.dataset]),
    }


def confidence_config(study: Study, name: str) -> dict:
    """All that the scores of a classifier depend on; its digest is the key of their file."""
    return {
        "kind": "confidences",
        "members": [digest(classifier_config(study, name, seed)) for seed in study.classifier_seeds],
        "dropout_passes": study.dropout_passes,
        "threads": study.threads,
        "source": source_digest(score_classifier),
    }


def oracle_config(study: Study, pair: str, arm: str, seed: int) -> dict:
    """All that an oracle depends on; its digest is the key of its file."""
    own, judged = (digest(classifier_config(study, name)) for name in study.pair(pair))
    (arm,) = study.chosen_arms([arm])
    settings = study.arms[arm]
    slopes = study.networks[study.pair(pair)[0]].steep_slope.model_dump() if settings.loss == "ss" else {}
    return {
        "kind": "oracle",
        "own": own,
        "judged": judged,
        "training": study.oracle.model_dump(),
        "arm": settings.model_dump(exclude={"label"}) | {"hyper": slopes | settings.hyper},
        "seed": seed,
        **_shared_config(study),
        "source": source_digest(train_oracle, data.DATASETS[study.dataset], _loss_function(settings)),
    }


def trainings(study: Study) -> list[dict]:
    """All that the study plans to make, classifiers first.

    Returns
    -------
    Dicts of kind ("classifier", "confidences" or "oracle"), run (its name), job (that makes it), path, and status:
    "done", "failed", or "not run", which a file of other settings or source counts as. When done: loss (the last; None
    for confidences), seconds, device, key, provenance; when failed: error, traceback.
    """
    rows = []
    for name, seed in product(study.networks, study.classifier_seeds):
        path, config = runs.classifier_path(study, name, seed), classifier_config(study, name, seed)
        job = f"{'classifier' if seed == study.classifier_seeds[0] else 'confidence'}-{name}"
        row = {"kind": "classifier", "run": f"{name}/seed{seed}", "job": job, "path": path}
        rows.append(row | runs.status(path, config))
    for name in study.networks:
        path, config = runs.confidence_path(study, name), confidence_config(study, name)
        row = {"kind": "confidences", "run": f"{name}/confidences", "job": f"confidence-{name}", "path": path}
        rows.append(row | runs.status(path, config))
    for pair, arm, seed in product(study.pairs, study.arms, study.seeds):
        path, config = runs.oracle_path(study, pair, arm, seed), oracle_config(study, pair, arm, seed)
        row = {"kind": "oracle", "run": f"{pair}/{arm}/seed{seed}", "job": f"oracles-{pair}", "path": path}
        rows.append(row | runs.status(path, config))
    return rows


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
    _, classifier_name = study.pair(pair)
    cache = runs.read_tensors(runs.classifier_path(study, classifier_name), f"{part}.")
    scores = {("mcp", 0): cache["mcp"].numpy()}
    path = runs.confidence_path(study, classifier_name)
    if runs.current(path, confidence_config(study, classifier_name)):
        found = runs.read_tensors(path, f"{part}.")
        scores |= {(key, 0): found[key].numpy() for key in confidence.SCORES if key in found and key != "mcp"}
    for arm in study.arms:
        for seed in study.seeds:
            path = runs.oracle_path(study, pair, arm, seed)
            if runs.current(path, oracle_config(study, pair, arm, seed)):
                scores[arm, seed] = runs.read_tensors(path, f"{part}.")["z"].numpy()
    return cache["correct"].numpy(), scores


def first_seed(study: Study, pair: str, part: str = "test") -> tuple[NDArray[np.bool_], dict[str, NDArray]]:
    """As `confidences`, MCP and the oracles of the first seed only: (correct, arm -> float (N,)). What figures show."""
    correct, scores = confidences(study, pair, part)
    shown = {("mcp", 0)} | {(arm, study.seeds[0]) for arm in study.arms}
    return correct, {arm: score for (arm, seed), score in scores.items() if (arm, seed) in shown}


def evaluate(study: Study, pairs: list[str] | None = None, part: str = "test") -> pd.DataFrame:
    """Every metric of every confidence that exists: one row a pair, arm and seed, fractions.

    TPR and TNR are taken at z = 0, MCP's at 0.5, and are NaN for a score without a threshold of its own; ``tnr_paper``
    is the paper's TNR, which counts TCP's true negatives at sigmoid(z) <= 1/K. Separability (nats) is that of
    sigmoid(z), or of MCP itself; NaN for the other scores. ``*_released`` are the released code's conventions, see
    `trustlib.released`.

    Parameters
    ----------
    pairs : all of the study's by default; a pair without its classifier is left out.
    part : "test" is for the final evaluation only, "heldout" for everything before it.
    """
    negative_tcp = logit(1 / len(data.load(study.dataset).classes))
    rows = []
    for pair in pairs or study.pairs:
        _, classifier_name = study.pair(pair)
        if not runs.current(runs.classifier_path(study, classifier_name), classifier_config(study, classifier_name)):
            continue
        correct, scores = confidences(study, pair, part)
        for (arm, seed), score in scores.items():
            threshold = threshold_of(study, arm)
            tcp = arm in study.arms and study.arms[arm].loss == "tcp"
            row = metrics.evaluate(score, correct, threshold=threshold)
            row["tnr_paper"] = metrics.evaluate(score, correct, threshold=negative_tcp)["tnr"] if tcp else row["tnr"]
            row["aupr_error_released"] = released.aupr_error(score, correct)
            if arm == "mcp" or arm in study.arms:
                probability = as_probability(arm, score)
                row |= metrics.separability(probability, correct)
                row["kl_released"] = released.average_kl(probability, correct)
                row["fpr95_released"] = released.fpr95_scan(probability, correct)
            if np.isnan(threshold):
                row |= dict.fromkeys(("tpr", "tnr", "tnr_paper"), np.nan)
            rows.append({"pair": pair, "arm": arm, "seed": seed, **row})
    columns = ["pair", "arm", "seed", *metrics.METRICS, "tied", "tnr_paper", *metrics.SEPARABILITY]
    return pd.DataFrame(rows, columns=[*columns, "aupr_error_released", "kl_released", "fpr95_released"])


RESAMPLES = 2000  # of the images
COMPARED = ("estimate", "low", "high", "seeds", "difference", "difference_low", "difference_high", "p", "p_holm")


def compare(study: Study, pair: str) -> pd.DataFrame:
    """Every confidence of a pair with intervals over images and seeds, and against MCP; made once for these scores.

    Returns
    -------
    A row a score and metric: pair, arm, metric; the mean over seeds with its 95 % interval (`resampling.intervals`);
    the difference from MCP with its interval (`resampling.difference`); for "auroc", the p-value of that difference by
    DeLong's test, for these trained seeds, and that after Holm's correction over the pair's scores. Fractions. TPR and
    TNR of a score without a threshold are NaN.
    """
    correct, by_seed = confidences(study, pair)
    scores: dict[str, list] = {}
    for (name, _), score in by_seed.items():
        scores.setdefault(name, []).append(score.astype(np.float64))
    scores = {name: np.stack(rows) for name, rows in scores.items()}  # (S, N)
    content = hashlib.sha256(b"".join(part.tobytes() for part in (correct, *scores.values()))).hexdigest()
    config = {
        "kind": "comparison",
        "scores": {name: len(rows) for name, rows in scores.items()},
        "content": content,
        "source": source_digest(compare),
    }

    def make() -> tuple[dict[str, Tensor], dict]:
        thresholds = {name: threshold_of(study, name) for name in scores}
        boot = resampling.bootstrap(scores, correct, threshold=thresholds, resamples=RESAMPLES)
        found = resampling.intervals(boot).unstack("metric").swaplevel(axis=1)
        tests = [statistics.delong_difference(rows, scores["mcp"], correct).p for rows in scores.values()]
        tests = np.where(np.array(list(scores)) == "mcp", np.nan, tests)
        values = np.full((len(scores), len(metrics.METRICS), len(COMPARED)), np.nan)
        for i, name in enumerate(scores):
            against = resampling.difference(boot, name, "mcp").loc[list(metrics.METRICS)]
            values[i, :, :4] = [found.loc[name, metric][list(COMPARED[:4])] for metric in metrics.METRICS]
            if name != "mcp":
                values[i, :, 4:7] = against[["estimate", "low", "high"]]
            if np.isnan(thresholds[name]):
                values[i, [metrics.METRICS.index(m) for m in ("tpr", "tnr")]] = np.nan
        values[:, metrics.METRICS.index("auroc"), 7:] = np.stack([tests, statistics.holm(tests)], axis=1)
        return {"values": torch.from_numpy(values)}, {}

    path = runs.comparison_path(study, pair)
    runs.cached(path, config, make)
    values = runs.read_tensors(path)["values"].numpy().reshape(-1, len(COMPARED))
    index = pd.DataFrame(product([pair], scores, metrics.METRICS), columns=["pair", "arm", "metric"])
    return pd.concat([index, pd.DataFrame(values, columns=COMPARED)], axis=1)


def operating_points(study: Study, pair: str, *, max_risk: float = 0.05, delta: float = 0.001) -> pd.DataFrame:
    """What the scores with a threshold of their own do there, and how many predictions they let one keep; first seed.

    Returns
    -------
    A row a score (index): tpr, tnr, with exact 95 % intervals (_low, _high); tnr95, TNR where TPR is 95 %;
    coverage, the largest with a risk of at most `max_risk` on these images; guaranteed, the coverage of the threshold
    whose risk on new images is at most that, but for a chance of `delta` (0 where there is none); ece, brier and nll
    of the score read as a probability.
    """
    correct, by_seed = confidences(study, pair)
    rows = {}
    for (name, seed), score in by_seed.items():
        threshold = threshold_of(study, name)
        if np.isnan(threshold) or (name in study.arms and seed != study.seeds[0]):
            continue
        rates = statistics.rate_intervals(score, correct, threshold)
        row = {"tpr": rates["tpr"].rate, "tpr_low": rates["tpr"].low, "tpr_high": rates["tpr"].high}
        row |= {"tnr": rates["tnr"].rate, "tnr_low": rates["tnr"].low, "tnr_high": rates["tnr"].high}
        ranking = metrics.rank(score, correct)
        row |= {"tnr95": metrics.tnr_at_tpr(ranking), "coverage": metrics.coverage_at_risk(ranking, max_risk)}
        row["guaranteed"] = statistics.guaranteed_threshold(score, correct, max_risk, delta).coverage
        rows[name] = row | calibration.calibration(as_probability(name, score), correct)
    return pd.DataFrame(rows).T


def threshold_of(study: Study, arm: str) -> float:
    """Above it a prediction is trusted: 0 for `z` and log-odds, 0.5 for MCP; NaN for a score that has none."""
    if arm == "mcp":
        return 0.5
    return 0.0 if arm in study.arms or confidence.SCORES[arm].has_zero else np.nan


def as_probability(arm: str, score: NDArray) -> NDArray[np.float64]:
    """The trustworthiness confidence sigmoid(z), (N,) in [0, 1]; MCP is one already. Not for ranking.

    For z, and for a score in log-odds.
    """
    return score if arm == "mcp" else expit(score.astype(np.float64))


def _setup(study: Study) -> tuple[data.Images, torch.device]:
    """The study's images on its device; sets the threads of this process."""
    device = training.pick_device(study.device)
    training.set_threads(study.threads)
    return _on_device(study.dataset, str(device)), device


@lru_cache(maxsize=1)
def _on_device(dataset: str, device: str) -> data.Images:
    return data.load(dataset).to(device)


def _shared_config(study: Study) -> dict:
    """What every training depends on besides its own settings. The device is not part of it: results travel."""
    return {"data": data.load(study.dataset).checksums, "flip": study.flip, "threads": study.threads}


def _loss_function(settings: Arm) -> Callable[..., Tensor]:
    return (released if settings.form == "released" else losses).LOSSES[settings.loss]


def _facts(net: nn.Module, device: torch.device) -> dict:
    """What a manifest says of a network and of where it was trained."""
    return {"parameters": oracle.parameters(net), "device": _device_name(device)}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def _flips(study: Study) -> tuple[bool, ...]:
    return (False, True) if study.flip else (False,)


def _classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _observe(net: nn.Module, images: data.Images, part: str, flip: bool) -> dict[str, Tensor]:
    """All that is ever asked of a classifier about one view of a part."""
    features, logits = training.predict(partial(oracle.classify, net), images, part, flip=flip)
    labels = images.labels[part].cpu()
    probability = logits.double().softmax(1)
    return {
        "correct": logits.argmax(1) == labels,
        "p_true": probability.gather(1, labels[:, None]).squeeze(1).float(),
        "mcp": probability.amax(1),
        "logits": logits,
        "features": features,
    }


def _observed(study: Study, name: str, images: data.Images, part: str) -> confidence.Observed:
    """What the classifier that is judged, its dropout passes and its ensemble said of a part, as arrays."""
    own, *others = (
        runs.read_tensors(runs.classifier_path(study, name, seed), f"{part}.") for seed in study.classifier_seeds
    )
    extra = {}
    if others and part != "train":
        extra["members"] = torch.stack([own["logits"], *(member["logits"] for member in others)]).numpy()
    if study.dropout_passes and part != "train":
        passes = _dropout_passes(study, name, images, part)
        extra |= {"passes": passes.numpy()} if passes is not None else {}
    logits, features = own["logits"].numpy(), own["features"].numpy()
    return confidence.Observed(logits, images.labels[part].cpu().numpy(), features, **extra)


def _dropout_passes(study: Study, name: str, images: data.Images, part: str) -> Tensor | None:
    """Logits of the judged classifier with its dropout left on, float32 (T, N, K); None where it has no dropout."""
    device = training.pick_device(study.device)
    net = oracle.build_backbone(study.networks[name].model, study.networks[name].args)
    net.load_state_dict(runs.read_tensors(runs.classifier_path(study, name), "weights."))
    if not oracle.leave_dropout_on(net.to(device)):
        return None
    torch.manual_seed(study.classifier_seeds[0])
    return torch.stack([training.predict(net, images, part)[0] for _ in range(study.dropout_passes)])
