"""What the finished trainings of a study hold, as arrays. What is not made, or was made with other settings, is absent.

A split is "heldout" (the validation set) or "test", or that of a distribution shift: "domains/NAME" or "sweeps/NAME"
(`trustlib.study.Domains`).
"""

from collections.abc import Iterable
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray

from .. import confidence, data, metrics
from ..study import Study
from . import store
from .experiments import classifier_config, confidence_config, fold_config, oracle_config
from .unseen import asked_config, observed_config


def has_classifier(study: Study, pair: str, split: str = "test") -> bool:
    """Whether the pair's classifier is trained and was run on the split, with today's settings."""
    name = study.pair(pair)[1]
    trained = store.current(store.classifier_path(study, name), classifier_config(study, name)) is not None
    if not trained or split in data.PARTS:
        return trained
    return store.current(store.domain_path(study, split, name), observed_config(study, split, name)) is not None


def correct(study: Study, pair: str, split: str = "test") -> NDArray[np.bool_]:
    """Whether each prediction of the pair's classifier is correct, bool (N,)."""
    name = study.pair(pair)[1]
    if split in data.PARTS:
        return store.read_tensors(store.classifier_path(study, name), f"{split}.")["correct"].numpy()
    return store.read_tensors(store.domain_path(study, split, name))["correct"].numpy()


def predicted(study: Study, pair: str, split: str = "test") -> NDArray[np.int64]:
    """The class that the pair's classifier predicts on the validation ("heldout") or the test set, int64 (N,)."""
    path = store.classifier_path(study, study.pair(pair)[1])
    return store.read_tensors(path, f"{split}.")["logits"].numpy().argmax(1)


def own_scores(study: Study, classifier_name: str, split: str = "test") -> dict[str, NDArray]:
    """The confidences of a classifier itself, name -> float (N,); MCP is the first."""
    if split not in data.PARTS:
        tensors = store.read_tensors(store.domain_path(study, split, classifier_name))
        return {key: tensors[key].numpy() for key in confidence.SCORES if key in tensors}
    path = store.classifier_path(study, classifier_name)
    scores = {"mcp": store.read_tensors(path, f"{split}.")["mcp"].numpy()}
    path = store.confidence_path(study, classifier_name)
    if store.current(path, confidence_config(study, classifier_name)):
        tensors = store.read_tensors(path, f"{split}.")
        scores |= {key: tensors[key].numpy() for key in confidence.SCORES if key in tensors and key != "mcp"}
    return scores


def of_oracles(
    study: Study, pair: str, method: str, seeds: Iterable[int], split: str = "test", *, rate: float | None = None
) -> dict[int, NDArray]:
    """The ``z`` of the oracles of a method, seed -> float32 (N,).

    rate : the learning rate; the method's own by default, and always under a distribution shift.
    """
    if split not in data.PARTS:
        return {seed: z for (name, seed), z in of_all_oracles(study, pair, split).items() if name == method}
    found = {}
    for seed in seeds:
        path = store.oracle_path(study, pair, method, seed, rate)
        if store.current(path, oracle_config(study, pair, method, seed, rate)):
            found[seed] = store.read_tensors(path, f"{split}.")["z"].numpy()
    return found


def of_all_oracles(study: Study, pair: str, split: str = "test") -> dict[tuple[str, int], NDArray]:
    """The ``z`` of all oracles of a pair, (method, seed) -> float32 (N,), in the order of the study's methods."""
    if split in data.PARTS:
        return {
            (method, seed): z
            for method in study.methods
            for seed, z in of_oracles(study, pair, method, study.seeds, split).items()
        }
    path = store.domain_path(study, split, pair)
    if not store.current(path, asked_config(study, split, pair)):
        return {}
    z = store.read_tensors(path)
    order = [(method, seed) for method, seed in product(study.methods, study.seeds) if f"{method}/seed{seed}" in z]
    return {(method, seed): z[f"{method}/seed{seed}"].numpy() for method, seed in order}


def fit(
    study: Study, pair: str, method: str, seed: int, split: str, *, rate: float | None = None
) -> dict[str, float] | None:
    """How an oracle fits a split: "train" (up to 10,000 of the images that it learns from), "heldout" or "test".

    Returns
    -------
    auroc, and tpr and tnr at z = 0, fractions; mcp, the AUROC of MCP on the same images. None until it is trained.
    """
    path = store.oracle_path(study, pair, method, seed, rate)
    if not store.current(path, oracle_config(study, pair, method, seed, rate)):
        return None
    saved = store.read_tensors(path, f"{split}.")
    from_validation = split == "train" and study.method(method).labels == "heldout"
    part = "heldout" if from_validation else split
    cache = store.read_tensors(store.classifier_path(study, study.pair(pair)[1]), f"{part}.")
    images = saved["index"] if split == "train" else slice(None)
    has_views = split == "train" and not from_validation
    is_correct, mcp = ((cache[name][0] if has_views else cache[name])[images].numpy() for name in ("correct", "mcp"))
    values = metrics.evaluate(saved["z"].numpy(), is_correct)
    chosen = {name: values[name] for name in ("auroc", "tpr", "tnr")}
    return chosen | {"mcp": metrics.evaluate(mcp, is_correct)["auroc"]}


def label_sources(study: Study, name: str) -> dict[str, NDArray[np.bool_]]:
    """Whether the predictions of a classifier are correct, on each set that an oracle may take its labels from.

    Returns
    -------
    train : on its own training images, bool (N,), without mirroring.
    crossfit : on the same images by the classifiers of the folds, where all of them are trained.
    heldout, test : on the validation and the test set.
    """
    cache = store.read_tensors(store.classifier_path(study, name))
    sources = {"train": cache["train.correct"][0]}
    paths = [store.fold_path(study, name, fold) for fold in range(study.ablations.folds)]
    if all(store.current(path, fold_config(study, name, fold)) for fold, path in enumerate(paths)):
        sources["crossfit"] = torch.cat([store.read_tensors(path)["correct"][0] for path in paths])
    sources |= {split: cache[f"{split}.correct"] for split in ("heldout", "test")}
    return {split: labels.numpy() for split, labels in sources.items()}
