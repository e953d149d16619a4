"""The study's two kinds of training, `train_classifier` and `train_oracle`, each made once and then read from its file.

A notebook calls them for what it needs; whatever is there already is not made again. After them nothing needs a
model: `confidences` gives every confidence of a pair as arrays.
"""

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

from . import data, losses, metrics, oracle, released, runs, training
from .provenance import digest, processor, source_digest
from .study import Arm, Study

Log = Callable[[str], None]


def train_classifier(study: Study, name: str, log: Log = print) -> dict:
    """Train a classifier of the study and cache what the oracles need of it; return its manifest.

    In its file, besides ``weights.*`` (V views: the image, and its mirror image where the study flips):

    - ``train.correct`` bool (V, N), ``train.p_true`` float32 (V, N), the true class's probability, ``train.mcp``
      float64 (V, N), the maximum class probability (float32 would tie what is close to 1)
    - ``heldout.*`` and ``test.*``: the same as (N,), of the image as it is, with ``logits`` (N, K) and penultimate
      ``features`` (N, d)
    """
    images, device = _setup(study)
    network = study.network(name)

    def make() -> tuple[dict[str, Tensor], dict]:
        log(f"classifier {name}: {network.model}, {len(images.labels['train']):,} images")
        torch.manual_seed(study.seed)  # the initial weights
        net = oracle.build_backbone(network.model, network.args).to(device)
        history = training.train(
            net, images, images.labels["train"], _classification_loss,
            flip=study.flip, seed=study.seed, log=log, **network.training.model_dump(),
        )  # fmt: skip
        net.eval()
        tensors = {f"weights.{key}": tensor for key, tensor in net.state_dict().items()}
        views = [_observe(net, images, "train", flip) for flip in _flips(study)]
        for key in ("correct", "p_true", "mcp"):
            tensors[f"train.{key}"] = torch.stack([view[key] for view in views])  # (V, N)
        for part in ("heldout", "test"):
            tensors |= {f"{part}.{key}": tensor for key, tensor in _observe(net, images, part, False).items()}
        accuracy = {part: tensors[f"{part}.correct"].float().mean().item() for part in ("train", "heldout")}
        log(f"classifier {name}: accuracy {accuracy['train']:.2%} train, {accuracy['heldout']:.2%} held out")
        return tensors, {"history": history, "accuracy": accuracy, **_facts(net, device)}

    return runs.cached(runs.classifier_path(study, name), classifier_config(study, name), make)


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


def classifier_config(study: Study, name: str) -> dict:
    """All that a classifier depends on; its digest is the key of its file."""
    return {
        "kind": "classifier",
        "network": study.network(name).model_dump(exclude={"label", "steep_slope"}),
        "seed": study.seed,
        **_shared_config(study),
        "source": source_digest(train_classifier, data.DATASETS[study.dataset]),
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
    """Every training the study plans, classifiers first.

    Returns
    -------
    Dicts of kind ("classifier" or "oracle"), run (its name), job (that makes it), path, and status: "done", "failed",
    or "not run", which a file of other settings or source counts as. When done: loss (the last), seconds, device, key,
    provenance; when failed: error, traceback.
    """
    rows = []
    for name in study.networks:
        path, config = runs.classifier_path(study, name), classifier_config(study, name)
        row = {"kind": "classifier", "run": name, "job": f"classifier-{name}", "path": path}
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
    scores : (arm, seed) -> float (N,); the classifier's own MCP first, as ("mcp", 0). What is not made, failed, or was
        made with other settings is not there.
    """
    _, classifier_name = study.pair(pair)
    cache = runs.read_tensors(runs.classifier_path(study, classifier_name), f"{part}.")
    scores = {("mcp", 0): cache["mcp"].numpy()}
    for arm in study.arms:
        for seed in study.seeds:
            path = runs.oracle_path(study, pair, arm, seed)
            if runs.current(path, oracle_config(study, pair, arm, seed)):
                scores[arm, seed] = runs.read_tensors(path, f"{part}.")["z"].numpy()
    return cache["correct"].numpy(), scores


def first_seed(study: Study, pair: str, part: str = "test") -> tuple[NDArray[np.bool_], dict[str, NDArray]]:
    """As `confidences`, of the study's first seed only: (correct, arm -> float (N,)). What figures show."""
    correct, scores = confidences(study, pair, part)
    return correct, {arm: score for (arm, seed), score in scores.items() if arm == "mcp" or seed == study.seeds[0]}


def evaluate(study: Study, pairs: list[str] | None = None, part: str = "test") -> pd.DataFrame:
    """Every metric of every confidence that exists: one row a pair, arm and seed, fractions.

    TPR and TNR are taken at z = 0, MCP's at 0.5; ``tnr_paper`` is the paper's TNR, which counts TCP's true negatives at
    sigmoid(z) <= 1/K. Separability (nats) is that of sigmoid(z), or of MCP itself. ``*_released`` are the released
    code's conventions, see `trustlib.released`.

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
            probability, threshold = as_probability(arm, score), 0.5 if arm == "mcp" else 0.0
            negative = negative_tcp if arm != "mcp" and study.arms[arm].loss == "tcp" else threshold
            row = metrics.evaluate(score, correct, threshold=threshold)
            row["tnr_paper"] = (score <= negative)[~correct].mean() if not correct.all() else np.nan
            row |= metrics.separability(probability, correct)
            row["aupr_error_released"] = released.aupr_error(score, correct)
            row["kl_released"] = released.average_kl(probability, correct)
            rows.append({"pair": pair, "arm": arm, "seed": seed, **row})
    columns = ["pair", "arm", "seed", *metrics.METRICS, "tnr_paper", *metrics.SEPARABILITY]
    return pd.DataFrame(rows, columns=[*columns, "aupr_error_released", "kl_released"])


def as_probability(arm: str, score: NDArray) -> NDArray[np.float64]:
    """The trustworthiness confidence sigmoid(z), (N,) in [0, 1]; MCP is one already. For figures, not for ranking."""
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
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {"parameters": oracle.parameters(net), "device": name}


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
