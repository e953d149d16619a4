"""What the finished trainings of a study hold, as arrays. What is not made, or was made with other settings, is absent.

A split is "heldout" (the validation set) or "test", or that of a distribution shift: "domains/NAME" or "sweeps/NAME"
(`trustlib.settings.Domains`).
"""

from collections.abc import Iterable
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .. import confidence, data, metrics
from ..study import Study
from . import shifted, steps
from .store import Step


def has_classifier(study: Study, pair: str, split: str = "test") -> bool:
    """Whether the pair's classifier is trained and was run on the split, with today's settings."""
    name = study.pair(pair)[1]
    is_trained = steps.classifier(study, name).is_done
    return is_trained and (split in data.PARTS or shifted.observed(study, split, name).is_done)


def correct(study: Study, pair: str, split: str = "test") -> NDArray[np.bool_]:
    """Whether each prediction of the pair's classifier is correct, bool (N,)."""
    name = study.pair(pair)[1]
    if split in data.PARTS:
        return steps.classifier(study, name).tensors(f"{split}.")["correct"].numpy()
    return shifted.observed(study, split, name).tensors()["correct"].numpy()


def predicted(study: Study, pair: str, split: str = "test") -> NDArray[np.int64]:
    """The class that the pair's classifier predicts on the validation ("heldout") or the test set, int64 (N,)."""
    return steps.classifier(study, study.pair(pair)[1]).tensors(f"{split}.")["logits"].numpy().argmax(1)


def own_scores(study: Study, classifier_name: str, split: str = "test") -> dict[str, NDArray]:
    """The confidences of a classifier itself, name -> float (N,); MCP is the first."""
    if split not in data.PARTS:
        tensors = shifted.observed(study, split, classifier_name).tensors()
        return {key: tensors[key].numpy() for key in confidence.SCORES if key in tensors}
    scores = {"mcp": steps.classifier(study, classifier_name).tensors(f"{split}.")["mcp"].numpy()}
    others = steps.confidences(study, classifier_name)
    if others.is_done:
        tensors = others.tensors(f"{split}.")
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
    trained = {seed: steps.oracle(study, pair, method, seed, rate) for seed in seeds}
    return {seed: step.tensors(f"{split}.")["z"].numpy() for seed, step in trained.items() if step.is_done}


def of_all_oracles(study: Study, pair: str, split: str = "test") -> dict[tuple[str, int], NDArray]:
    """The ``z`` of all oracles of a pair, (method, seed) -> float32 (N,), in the order of the study's methods."""
    if split in data.PARTS:
        return {
            (method, seed): z
            for method in study.methods
            for seed, z in of_oracles(study, pair, method, study.seeds, split).items()
        }
    asked = shifted.asked(study, split, pair)
    if not asked.is_done:
        return {}
    z = asked.tensors()
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
    trained = steps.oracle(study, pair, method, seed, rate)
    if not trained.is_done:
        return None
    saved = trained.tensors(f"{split}.")
    from_validation = split == "train" and study.method(method).labels == "heldout"
    part = "heldout" if from_validation else split
    cache = steps.classifier(study, study.pair(pair)[1]).tensors(f"{part}.")
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
    cache = steps.classifier(study, name).tensors()
    sources = {"train": cache["train.correct"][0]}
    folds = steps.folds(study, name)
    if all(step.is_done for step in folds):
        sources["crossfit"] = crossfit_labels(folds)
    sources |= {split: cache[f"{split}.correct"] for split in ("heldout", "test")}
    return {split: labels.numpy() for split, labels in sources.items()}


def crossfit_labels(folds: list[Step]) -> Tensor:
    """Whether the classifier that was not trained on a training image is correct on it, bool (N,)."""
    parts = [step.tensors()["correct"][0] for step in folds]
    correct = torch.empty(sum(map(len, parts)), dtype=torch.bool)
    for number, part in enumerate(parts):
        correct[number :: len(parts)] = part
    return correct
