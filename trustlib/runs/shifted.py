"""The steps of a study under distribution shift: its images, and the outputs of classifiers and oracles on them."""

from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .. import confidence, data, training
from ..shifts import domains
from ..study import Study
from . import networks, steps
from .provenance import source_digest
from .store import Log, Made, Step, run_folder


def dataset(study: Study) -> str:
    """The study's data set as `shifts.domains` names it: folders named by WordNet ids hold ImageNet's images."""
    return domains.IMAGENET if study.folder and study.images().wnids else study.dataset


def images(study: Study, part: str, classifier_name: str) -> Step:
    """The images of a distribution shift (`shifts.domains.make`); its manifest says how they were made.

    Parameters
    ----------
    part : "domains/NAME" or "sweeps/NAME"; says how many images too, see `Study.domains`.
    classifier_name : whose images an attack makes, and on whose inputs a dataset of folders is changed; other shifts
        are the same for all.

    In the file: ``images``, uint8 (N, C, H, W), or float32 on the same scale where they are not rounded.
    """
    domain = _domain(part)
    is_attack = domains.parse(domain).kind == domains.RECOLOR
    attacked = [steps.classifier(study, classifier_name)] if is_attack else []

    def make(step: Step, log: Log) -> Made:
        clean, device = steps.setup(study)
        net, files = None, ()
        if study.folder:
            clean = clean.seen_by(networks.inputs(study, classifier_name))
            folder: Any = clean  # a `folders.Folder`
            files = tuple(map(Path, folder.paths["test"]))
        if attacked:
            net = networks.trained_classifier(study, classifier_name, attacked[0], device)
        changed, facts = domains.make(
            clean, dataset(study), domain, study.domains.size(part), files=files, classifier=net, log=log
        )
        return {"images": changed}, {**facts, "device": steps.device_name(device)}

    how, checksums = domains.origin(dataset(study), domain)
    settings = {
        "domain": domain,
        "count": study.domains.size(part),
        "threads": study.threads,
        "how": how,
        "files": checksums,
        "data": study.images().checksums,
        "inputs": asdict(networks.inputs(study, classifier_name)) if study.folder else {},
    }
    name = f"{part}/images/{classifier_name if is_attack or study.folder else 'all'}"
    source = source_digest("data", "shifts", "runs.shifted")
    return Step(run_folder(study), name, "images", settings, source, make, tuple(attacked))


def observed(study: Study, part: str, classifier_name: str) -> Step:
    """Every confidence of a classifier under distribution shift, fitted as on clean images.

    In the file: ``correct`` bool (N,), ``mcp`` float64 (N,), and the scores of `confidence.SCORES`, float32 (N,).
    """
    made, members = images(study, part, classifier_name), steps.classifiers(study, classifier_name)

    def make(step: Step, log: Log) -> Made:
        clean, device = steps.setup(study)
        shifted = _shifted(study, clean, made, classifier_name)
        nets = (networks.trained_classifier(study, classifier_name, member, device) for member in members)
        first, *others = (networks.observe(net, shifted, "test") for net in nets)
        extra = {}
        if others:
            extra["members"] = torch.stack([first["logits"], *(other["logits"] for other in others)]).numpy()
        if study.dropout_passes:
            passes = steps.dropout_passes(study, classifier_name, shifted, "test")
            extra |= {"passes": passes.numpy()} if passes is not None else {}
        labels = shifted.labels["test"].cpu().numpy()
        test = confidence.Observed(first["logits"].numpy(), labels, first["features"].numpy(), **extra)
        heldout, train = (_fitted_once(members[0], clean, split) for split in ("heldout", "train"))
        tensors = {name: first[name] for name in ("correct", "mcp")}
        for name, score in confidence.all_scores(test, heldout, train).items():
            if name != "mcp":
                tensors[name] = torch.from_numpy(score.astype(np.float32))
        log(f"{step.name}: accuracy {first['correct'].float().mean():.2%}")
        return tensors, {"device": steps.device_name(device)}

    settings = {"dropout_passes": study.dropout_passes, "threads": study.threads}
    source = source_digest(*steps.TRAINING, "confidence", "shifts", "runs.shifted")
    name = f"{part}/{classifier_name}"
    return Step(run_folder(study), name, "observed", settings, source, make, (made, *members))


def asked(study: Study, part: str, pair: str) -> Step:
    """``z`` of every oracle of a pair that is trained, on a distribution shift.

    In the file: ``METHOD/seedK``, float32 (N,).

    Raises
    ------
    ValueError : by `Step.get`, when no oracle of the pair is trained yet.
    """
    oracle_name, classifier_name = study.pair(pair)
    made, own = images(study, part, classifier_name), steps.classifier(study, oracle_name)
    every = {which: steps.oracle(study, pair, *which) for which in product(study.methods, study.seeds)}
    trained = {which: step for which, step in every.items() if step.is_done}

    def make(step: Step, log: Log) -> Made:
        if not trained:
            raise ValueError(
                f"no oracle of {pair} is trained: run notebook 02, or make report STUDY={study.name}, first"
            )
        clean, device = steps.setup(study)
        shifted = _shifted(study, clean, made, classifier_name, oracle_name)
        tensors, features = {}, None
        for (method, seed), oracle in trained.items():
            net = networks.trained_oracle(study, pair, method, oracle, own, device)
            if study.methods[method].backbone == "trained":
                (z,) = training.predict(net, shifted, "test")
            else:
                if features is None:  # of one backbone, the classifier's, for all that are frozen
                    (outputs,) = training.predict(net.backbone, shifted, "test")
                    features = data.Features({"test": outputs[None]}, {"test": shifted.labels["test"]}, device)
                (z,) = training.predict(net.head, features, "test")
            tensors[f"{method}/seed{seed}"] = z
        log(f"{step.name}: {len(tensors)} oracles")
        return tensors, {"device": steps.device_name(device)}

    source = source_digest(*steps.TRAINING, "shifts", "runs.shifted")
    settings = {"threads": study.threads, "oracles": [f"{method}/seed{seed}" for method, seed in trained]}
    return Step(run_folder(study), f"{part}/{pair}", "asked", settings, source, make, (made, own, *trained.values()))


def of_part(study: Study, part: str, pairs: Iterable[str] | None = None) -> list[Step]:
    """All steps of a part for some pairs, all by default."""
    pairs = study.pairs if pairs is None else list(pairs)
    names = dict.fromkeys(study.pair(pair)[1] for pair in pairs)
    every = {step.name: step for name in names for step in (images(study, part, name), observed(study, part, name))}
    return [*every.values(), *(asked(study, part, pair) for pair in pairs)]


def planned(study: Study) -> list[Step]:
    """All steps of the distribution shifts that the study reports."""
    return [step for part in study.domains.parts.values() for step in of_part(study, part)]


def swept(study: Study) -> list[Step]:
    """All steps of its corruptions at every severity."""
    return [step for parts in study.domains.sweep.values() for part in parts for step in of_part(study, part)]


def _domain(part: str) -> str:
    return part.partition("/")[2]


def _shifted(
    study: Study, clean: data.Images, made: Step, classifier_name: str, oracle_name: str | None = None
) -> data.Images:
    """The study's images with those of a shift for its test set, as the classifier, or an oracle of it, sees them.

    Of a dataset of folders they are what the classifier sees, cut and of its size: an oracle of another size gets them
    resized.
    """
    seers = (oracle_name, classifier_name) if oracle_name else (classifier_name,)
    inputs = networks.inputs(study, *seers)
    changed = made.tensors()["images"]
    labels = clean.labels["test"][: len(changed)]
    if study.folder:
        clean = data.Images({}, {}, clean.classes, clean.source, clean.checksums)
        inputs = replace(inputs, crop=None)
    return replace(
        clean,
        images=clean.images | {"test": changed.to(labels.device)},
        labels=clean.labels | {"test": labels},
        inputs=inputs,
    )


@lru_cache(maxsize=4)
def _fitted_once(trained: Step, clean: data.Images, split: str) -> confidence.Observed:
    """`steps.observation` as one object a process, so that what is fitted to it is fitted once."""
    return steps.observation(trained, clean, split)
