"""Outputs of classifiers, scores and oracles under distribution shift: `make_domain`, `observe_domain`, `ask_oracles`.

Each is made once and then read from its file, as `trustlib.runs.experiments` does.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import confidence, data, training
from ..shifts import domains
from ..study import Study
from . import experiments, networks, store
from .experiments import Log
from .provenance import digest, source_digest


def dataset(study: Study) -> str:
    """The study's data set as `shifts.domains` names it: folders named by WordNet ids hold ImageNet's images."""
    return domains.IMAGENET if study.folder and study.images().wnids else study.dataset


def make_domain(study: Study, part: str, classifier_name: str, log: Log = print) -> dict:
    """Make the images of a distribution shift (`shifts.domains.make`); return their file's manifest, which says how.

    Parameters
    ----------
    part : "domains/NAME" or "sweeps/NAME"; says how many images too, see `Study.domains`.
    classifier_name : whose images an attack makes, and on whose inputs a dataset of folders is changed; other domains
        are the same for all.

    In the file: ``images``, uint8 (N, C, H, W), or float32 on the same scale where they are not rounded.
    """
    if _is_attack(part):
        experiments.train_classifier(study, classifier_name, log)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = experiments.setup(study)
        if study.folder:
            images = images.seen_by(networks.inputs(study, classifier_name))
        folder: Any = images  # a `folders.Folder`, where the study has one
        files, net = tuple(map(Path, folder.paths["test"])) if study.folder else (), None
        if _is_attack(part):
            net = networks.trained_classifier(study, classifier_name, study.classifier_seeds[0], device)
        made, facts = domains.make(
            images, dataset(study), _domain(part), study.domains.size(part), files=files, classifier=net, log=log
        )
        return {"images": made}, {**facts, "device": experiments.device_name(device)}

    return store.cached(_images_path(study, part, classifier_name), domain_config(study, part, classifier_name), make)


def domain_manifest(study: Study, part: str, classifier_name: str) -> dict | None:
    """The manifest of the images that `make_domain` made; None where they are not made, or with other settings."""
    path = _images_path(study, part, classifier_name)
    return store.current(path, domain_config(study, part, classifier_name))


def domain_images(study: Study, part: str, classifier_name: str) -> Tensor:
    """The images that `make_domain` made."""
    return store.read_tensors(_images_path(study, part, classifier_name))["images"]


def observe_domain(study: Study, part: str, classifier_name: str, log: Log = print) -> dict:
    """Every confidence of a classifier under distribution shift, fitted as on clean images; return the file's manifest.

    In the file: ``correct`` bool (N,), ``mcp`` float64 (N,), and the scores of `confidence.SCORES`, float32 (N,).
    """
    for seed in study.classifier_seeds:
        experiments.train_classifier(study, classifier_name, log, seed)
    make_domain(study, part, classifier_name, log)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = experiments.setup(study)
        unseen = _unseen(study, images, part, classifier_name)
        nets = (networks.trained_classifier(study, classifier_name, seed, device) for seed in study.classifier_seeds)
        own, *others = (experiments.observe(net, unseen, "test") for net in nets)
        extra = {}
        if others:
            extra["members"] = torch.stack([own["logits"], *(other["logits"] for other in others)]).numpy()
        if study.dropout_passes:
            passes = experiments.dropout_passes(study, classifier_name, unseen, "test")
            extra |= {"passes": passes.numpy()} if passes is not None else {}
        labels = unseen.labels["test"].cpu().numpy()
        seen = confidence.Observed(own["logits"].numpy(), labels, own["features"].numpy(), **extra)
        path = store.classifier_path(study, classifier_name)
        key = store.read_manifest(path)["key"]
        heldout, train = (_observed_once(path, key, images, part) for part in ("heldout", "train"))
        tensors = {name: own[name] for name in ("correct", "mcp")}
        for name, score in confidence.all_scores(seen, heldout, train).items():
            if name != "mcp":
                tensors[name] = torch.from_numpy(score.astype(np.float32))
        log(f"{classifier_name} on {_domain(part)}: accuracy {own['correct'].float().mean():.2%}")
        return tensors, {"device": experiments.device_name(device)}

    return store.cached(
        store.domain_path(study, part, classifier_name), observed_config(study, part, classifier_name), make
    )


def ask_oracles(study: Study, part: str, pair: str, log: Log = print) -> dict:
    """``z`` of every oracle of a pair that is trained, on a distribution shift; return the file's manifest.

    In the file: ``ARM/seedK``, float32 (N,).

    Raises
    ------
    ValueError : when no oracle of the pair is trained yet.
    """
    oracle_name, classifier_name = study.pair(pair)
    make_domain(study, part, classifier_name, log)
    config = asked_config(study, part, pair)
    if not config["oracles"]:
        raise ValueError(f"no oracle of {pair} is trained: run notebook 02, or make report STUDY={study.name}, first")

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = experiments.setup(study)
        unseen = _unseen(study, images, part, classifier_name, oracle_name)
        tensors, looked = {}, None
        for run in config["oracles"]:
            arm, seed = run.split("/seed")
            net = networks.trained_oracle(study, pair, arm, int(seed), device)
            if study.methods[arm].backbone == "trained":
                (tensors[run],) = training.predict(net, unseen, "test")
                continue
            if looked is None:  # one backbone, the classifier's, for all that are frozen
                (features,) = training.predict(net.backbone, unseen, "test")
                looked = data.Features({"test": features[None]}, {"test": unseen.labels["test"]}, device)
            (tensors[run],) = training.predict(net.head, looked, "test")
        log(f"{pair} on {_domain(part)}: {len(tensors)} oracles asked")
        return tensors, {"device": experiments.device_name(device)}

    return store.cached(store.domain_path(study, part, pair), config, make)


def domain_config(study: Study, part: str, classifier_name: str) -> dict:
    """All that the images of a domain depend on; its digest is the key of their file."""
    of_classifier = [digest(experiments.classifier_config(study, classifier_name))] if _is_attack(part) else []
    how, files = domains.origin(dataset(study), _domain(part))
    return {
        "kind": "images",
        "domain": _domain(part),
        "count": study.domains.size(part),
        "threads": study.threads,
        "classifier": of_classifier,
        "how": how,
        "files": files,
        "data": study.images().checksums,
        "inputs": asdict(networks.inputs(study, classifier_name)) if study.folder else {},
        "source": source_digest("data", "shifts", "runs.unseen"),
    }


def observed_config(study: Study, part: str, classifier_name: str) -> dict:
    """All that the confidences of a classifier on a domain depend on; its digest is the key of their file."""
    return {
        "kind": "observed",
        "domain": digest(domain_config(study, part, classifier_name)),
        "members": [
            digest(experiments.classifier_config(study, classifier_name, seed)) for seed in study.classifier_seeds
        ],
        "dropout_passes": study.dropout_passes,
        "threads": study.threads,
        "source": source_digest(*experiments.TRAINING, "confidence", "shifts", "runs.unseen"),
    }


def asked_config(study: Study, part: str, pair: str, oracles: dict[str, str] | None = None) -> dict:
    """All that the outputs of a pair's oracles on a domain depend on.

    oracles : what `trained_oracles` returns, where it is known already.
    """
    return {
        "kind": "asked",
        "domain": digest(domain_config(study, part, study.pair(pair)[1])),
        "oracles": trained_oracles(study, pair) if oracles is None else oracles,
        "threads": study.threads,
        "source": source_digest(*experiments.TRAINING, "shifts", "runs.unseen"),
    }


def trained_oracles(study: Study, pair: str) -> dict[str, str]:
    """ARM/seedK -> key, of the pair's oracles that are trained, by today's settings."""
    found = {}
    for arm, seed in product(study.methods, study.seeds):
        config = experiments.oracle_config(study, pair, arm, seed)
        if store.current(store.oracle_path(study, pair, arm, seed), config):
            found[f"{arm}/seed{seed}"] = digest(config)
    return found


def visits(study: Study, parts: Iterable[str] | None = None) -> list[dict]:
    """All that the study plans to ask on distribution shifts, those it judges or some parts; dicts as `trainings`.

    Kinds: "images"; "observed", a classifier's confidences; "asked", a pair's oracles.
    """
    rows = []
    oracles = {pair: trained_oracles(study, pair) for pair in study.pairs}
    for part in study.domains.parts.values() if parts is None else parts:
        folder, _, name = part.partition("/")
        job = f"domain-{name}" if folder == "domains" else f"sweep-{name.rpartition('-')[0]}"
        configs = {}
        for of in study.classifiers:
            configs[_images_path(study, part, of)] = domain_config(study, part, of)
            configs[store.domain_path(study, part, of)] = observed_config(study, part, of)
        for pair in study.pairs:
            configs[store.domain_path(study, part, pair)] = asked_config(study, part, pair, oracles[pair])
        for path, config in configs.items():
            run = str(path.relative_to(store.run_folder(study)).with_suffix(""))
            row = {"kind": config["kind"], "run": run, "job": job, "path": path}
            rows.append(row | store.status(path, config))
    return rows


def _domain(part: str) -> str:
    return part.partition("/")[2]


def _is_attack(part: str) -> bool:
    return domains.parse(_domain(part)).kind == domains.RECOLOR


def _images_path(study: Study, part: str, classifier_name: str) -> Path:
    return store.domain_path(study, f"{part}/images", classifier_name if _is_attack(part) or study.folder else "all")


def _unseen(
    study: Study, images: data.Images, part: str, classifier_name: str, oracle_name: str | None = None
) -> data.Images:
    """The study's images with those of a domain for its test set, as the classifier, or an oracle of it, sees them.

    Of a dataset of folders they are what the classifier sees, cut and of its size: an oracle of another size gets them
    resized.
    """
    own = (oracle_name, classifier_name) if oracle_name else (classifier_name,)
    inputs = networks.inputs(study, *own)
    made = domain_images(study, part, classifier_name)
    labels = images.labels["test"][: len(made)]
    if study.folder:
        images = data.Images({}, {}, images.classes, images.source, images.checksums)
        inputs = replace(inputs, crop=None)
    return replace(
        images,
        images=images.images | {"test": made.to(labels.device)},
        labels=images.labels | {"test": labels},
        inputs=inputs,
    )


@lru_cache(maxsize=4)
def _observed_once(path: Path, key: str, images: data.Images, part: str) -> confidence.Observed:
    """One object of `experiments.observed`, so that what is fitted to it is fitted once a process."""
    return experiments.observed(path, images, part)
