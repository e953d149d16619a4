"""What a study makes, each once and then read from its file: `train_classifier`, `score_classifier`, `train_oracle`,
and what these say of unseen domains: `make_domain`, `observe_domain`, `ask_oracles`.

A notebook calls them for what it needs; whatever is there already is not made again. After them nothing needs a
model, see `trustlib.evaluation`.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import confidence, data, domains, losses, oracle, released, runs, training
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
    - ``views.heldout`` bool (V, N), correct on every view of the held-out part
    """
    images, device = _setup(study)
    network = study.network(name)
    seed = study.classifier_seeds[0] if seed is None else seed

    def make() -> tuple[dict[str, Tensor], dict]:
        log(f"classifier {name}, seed {seed}: {network.model}, {len(images.labels['train']):,} images")
        net, history = _fit_classifier(study, name, images, device, seed, log)
        tensors = {f"weights.{key}": tensor for key, tensor in net.state_dict().items()}
        views = [_observe(net, images, "train", flip) for flip in _flips(study)]
        for key in ("correct", "p_true", "mcp"):
            tensors[f"train.{key}"] = torch.stack([view[key] for view in views])  # (V, N)
        tensors |= {f"train.{key}": views[0][key] for key in ("logits", "features")}
        for part in ("heldout", "test"):
            tensors |= {f"{part}.{key}": tensor for key, tensor in _observe(net, images, part, False).items()}
        seen = [_observe(net, images, "heldout", flip)["correct"] for flip in _flips(study)]
        tensors["views.heldout"] = torch.stack(seen)  # (V, N): an oracle may learn from them
        accuracy = {part: tensors[f"{part}.correct"].float().mean().item() for part in ("train", "heldout")}
        log(f"classifier {name}: accuracy {accuracy['train']:.2%} train, {accuracy['heldout']:.2%} held out")
        return tensors, {"history": history, "accuracy": accuracy, **_facts(net, device)}

    return runs.cached(runs.classifier_path(study, name, seed), classifier_config(study, name, seed), make)


def cross_fit(study: Study, name: str, fold: int, log: Log = print) -> dict:
    """Train the classifier of a study on all folds of the training part but one, and ask it about that one.

    Fold k holds the training images k, k + K, k + 2 K, ... of K = ``study.audit.folds``; seed and recipe are those of
    the classifier that is judged. In the file: ``correct`` bool (V, images of the fold). Returns its manifest.
    """
    images, device = _setup(study)
    seed, folds = study.classifier_seeds[0], study.audit.folds

    def make() -> tuple[dict[str, Tensor], dict]:
        of_fold = torch.arange(len(images.labels["train"])) % folds == fold
        net, history = _fit_classifier(study, name, images, device, seed, lambda _: None, (~of_fold).nonzero()[:, 0])
        seen = [_observe(net, images, "train", flip)["correct"][of_fold] for flip in _flips(study)]
        correct = torch.stack(seen)  # (V, images of the fold)
        log(f"classifier {name} without fold {fold} of {folds}: accuracy {correct[0].float().mean():.2%} on it")
        return {"correct": correct}, {"history": history, **_facts(net, device)}

    return runs.cached(runs.fold_path(study, name, fold), fold_config(study, name, fold), make)


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


def train_oracle(study: Study, pair: str, arm: str, seed: int, log: Log = print, *, rate: float | None = None) -> dict:
    """Train one oracle of a pair and store its weights and ``z``; return its manifest.

    The backbone starts from the classifier of its own kind; the head is new. The classifier that is judged does not
    run: its correctness and probabilities come from the cache. In the file: ``weights.*``, ``heldout.z`` and
    ``test.z``, float32 (N,).

    Parameters
    ----------
    arm : of the study or of its audit. Its ``labels`` say what the oracle learns from: "train", how the classifier
        did on its own training images; "heldout", on held-out images, but for the last ``study.audit.tuning``;
        "crossfit", how classifiers that were not trained on them did on the training images (`cross_fit`).
    rate : the learning rate, the study's or the arm's own by default.

    Raises
    ------
    TrainingError : when the loss or an output is not finite.
    """
    config = oracle_config(study, pair, arm, seed, rate)
    oracle_name, classifier_name = study.pair(pair)
    for name in dict.fromkeys((oracle_name, classifier_name)):
        train_classifier(study, name, log)
    if study.arm(arm).labels == "crossfit":
        for fold in range(study.audit.folds):
            cross_fit(study, classifier_name, fold, log)
    images, device = _setup(study)
    network, settings = study.network(oracle_name), study.arm(arm)

    def make() -> tuple[dict[str, Tensor], dict]:
        torch.manual_seed(seed)  # the head's initial weights
        backbone = oracle.build_backbone(network.model, network.args)
        net = oracle.Oracle(backbone, settings.head)
        oracle.initialise(net.backbone, runs.read_tensors(runs.classifier_path(study, oracle_name), "weights."))
        net.to(device)
        part, among, target = _lesson(study, classifier_name, settings)
        hyper = dict(config["arm"]["hyper"])
        if settings.loss == "cb":
            hyper |= {"n_correct": int(target.sum()), "n_wrong": int((~target).sum())}
        history = training.train(
            net, images, target.to(device), partial(_loss_function(settings), **hyper), flip=study.flip, part=part,
            among=among, seed=seed, log=lambda _: None, **study.recipe(arm, rate).model_dump(),
        )  # fmt: skip
        net.eval()
        tensors = {f"weights.{key}": tensor for key, tensor in net.state_dict().items()}
        for part in ("heldout", "test"):
            (z,) = training.predict(net, images, part)
            if not z.isfinite().all():
                raise training.TrainingError(
                    f"{(~z.isfinite()).sum()} of {len(z)} outputs on the {part} part are not finite"
                )
            tensors[f"{part}.z"] = z
        log(f"{runs.oracle_name(study, pair, arm, seed, rate)}: loss {history[-1]['loss']:.4f}")
        return tensors, {"history": history, **_facts(net, device)}

    return runs.cached(runs.oracle_path(study, pair, arm, seed, rate), config, make)


def make_domain(study: Study, part: str, classifier_name: str, log: Log = print) -> dict:
    """Make the images of an unseen domain; return their file's manifest, which says how (`trustlib.domains.make`).

    Parameters
    ----------
    part : "domains/NAME" or "sweeps/NAME"; says how many images too, see `Study.domains`.
    classifier_name : whose images an attack makes; other domains are the same for all.

    In the file: ``images``, uint8 (N, C, H, W), or float32 on the same scale where they are not rounded.
    """
    if _is_attack(part):
        train_classifier(study, classifier_name, log)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = _setup(study)
        net = None
        if _is_attack(part):
            net = _trained_classifier(study, classifier_name, study.classifier_seeds[0], device)
        made, facts = domains.make(
            images, study.dataset, _domain(part), study.domains.size(part), classifier=net, log=log
        )
        return {"images": made}, {**facts, "device": _device_name(device)}

    return runs.cached(_images_path(study, part, classifier_name), domain_config(study, part, classifier_name), make)


def domain_manifest(study: Study, part: str, classifier_name: str) -> dict | None:
    """The manifest of the images that `make_domain` made; None where they are not made, or with other settings."""
    path = _images_path(study, part, classifier_name)
    return runs.current(path, domain_config(study, part, classifier_name))


def domain_images(study: Study, part: str, classifier_name: str) -> Tensor:
    """The images that `make_domain` made."""
    return runs.read_tensors(_images_path(study, part, classifier_name))["images"]


def observe_domain(study: Study, part: str, classifier_name: str, log: Log = print) -> dict:
    """Every confidence of a classifier on an unseen domain, fitted as on the clean images; return the file's manifest.

    In the file: ``correct`` bool (N,), ``mcp`` float64 (N,), and the scores of `confidence.SCORES`, float32 (N,).
    """
    for seed in study.classifier_seeds:
        train_classifier(study, classifier_name, log, seed)
    make_domain(study, part, classifier_name, log)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = _setup(study)
        unseen = _unseen(study, images, part, classifier_name)
        nets = (_trained_classifier(study, classifier_name, seed, device) for seed in study.classifier_seeds)
        own, *others = (_observe(net, unseen, "test", False) for net in nets)
        extra = {}
        if others:
            extra["members"] = torch.stack([own["logits"], *(other["logits"] for other in others)]).numpy()
        if study.dropout_passes:
            passes = _dropout_passes(study, classifier_name, unseen, "test")
            extra |= {"passes": passes.numpy()} if passes is not None else {}
        labels = unseen.labels["test"].cpu().numpy()
        seen = confidence.Observed(own["logits"].numpy(), labels, own["features"].numpy(), **extra)
        path = runs.classifier_path(study, classifier_name)
        key = runs.read_manifest(path)["key"]
        heldout, train = (_observed_once(path, key, study.dataset, part) for part in ("heldout", "train"))
        tensors = {name: own[name] for name in ("correct", "mcp")}
        for name, score in confidence.all_scores(seen, heldout, train).items():
            if name != "mcp":
                tensors[name] = torch.from_numpy(score.astype(np.float32))
        log(f"{classifier_name} on {_domain(part)}: accuracy {own['correct'].float().mean():.2%}")
        return tensors, {"device": _device_name(device)}

    return runs.cached(
        runs.domain_path(study, part, classifier_name), observed_config(study, part, classifier_name), make
    )


def ask_oracles(study: Study, part: str, pair: str, log: Log = print) -> dict:
    """``z`` of every oracle of a pair that is trained, on an unseen domain; return the file's manifest.

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
        images, device = _setup(study)
        unseen = _unseen(study, images, part, classifier_name)
        network, tensors = study.network(oracle_name), {}
        for run in config["oracles"]:
            arm, seed = run.split("/seed")
            net = oracle.Oracle(oracle.build_backbone(network.model, network.args), study.arm(arm).head)
            net.load_state_dict(runs.read_tensors(runs.oracle_path(study, pair, arm, int(seed)), "weights."))
            (tensors[run],) = training.predict(net.to(device).eval(), unseen, "test")
        log(f"{pair} on {_domain(part)}: {len(tensors)} oracles asked")
        return tensors, {"device": _device_name(device)}

    return runs.cached(runs.domain_path(study, part, pair), config, make)


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


def fold_config(study: Study, name: str, fold: int) -> dict:
    """All that the labels of one fold depend on; its digest is the key of their file."""
    return classifier_config(study, name) | {
        "kind": "fold",
        "fold": [fold, study.audit.folds],
        "source": source_digest(cross_fit, data.DATASETS[study.dataset]),
    }


def oracle_config(study: Study, pair: str, arm: str, seed: int, rate: float | None = None) -> dict:
    """All that an oracle depends on; its digest is the key of its file."""
    oracle_name, classifier_name = study.pair(pair)
    settings = study.arm(arm)
    slopes = study.network(oracle_name).steep_slope.model_dump() if settings.loss == "ss" else {}
    labels = {
        "train": [],
        "heldout": [study.audit and study.audit.tuning],
        "crossfit": [
            digest(fold_config(study, classifier_name, k)) for k in range(study.audit.folds if study.audit else 0)
        ],
    }
    return {
        "kind": "oracle",
        "own": digest(classifier_config(study, oracle_name)),
        "judged": digest(classifier_config(study, classifier_name)),
        "training": study.recipe(arm, rate).model_dump(),
        "arm": settings.model_dump(exclude={"label", "training"}) | {"hyper": slopes | settings.hyper},
        "labels": labels[settings.labels],
        "seed": seed,
        **_shared_config(study),
        "source": source_digest(train_oracle, data.DATASETS[study.dataset], _loss_function(settings)),
    }


def domain_config(study: Study, part: str, classifier_name: str) -> dict:
    """All that the images of a domain depend on; its digest is the key of their file."""
    of_classifier = [digest(classifier_config(study, classifier_name))] if _is_attack(part) else []
    how, files = domains.origin(study.dataset, _domain(part))
    return {
        "kind": "images",
        "domain": _domain(part),
        "count": study.domains.size(part),
        "threads": study.threads,
        "classifier": of_classifier,
        "how": how,
        "files": files,
        "data": data.load(study.dataset).checksums,
        "source": source_digest(make_domain, data.DATASETS[study.dataset]),
    }


def observed_config(study: Study, part: str, classifier_name: str) -> dict:
    """All that the confidences of a classifier on a domain depend on; its digest is the key of their file."""
    return {
        "kind": "observed",
        "domain": digest(domain_config(study, part, classifier_name)),
        "members": [digest(classifier_config(study, classifier_name, seed)) for seed in study.classifier_seeds],
        "dropout_passes": study.dropout_passes,
        "threads": study.threads,
        "source": source_digest(observe_domain),
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
        "source": source_digest(ask_oracles),
    }


def trained_oracles(study: Study, pair: str) -> dict[str, str]:
    """ARM/seedK -> key, of the pair's oracles that are trained, by today's settings."""
    found = {}
    for arm, seed in product(study.arms, study.seeds):
        config = oracle_config(study, pair, arm, seed)
        if runs.current(runs.oracle_path(study, pair, arm, seed), config):
            found[f"{arm}/seed{seed}"] = digest(config)
    return found


def trainings(study: Study) -> list[dict]:
    """All that the study plans to make but for its audit (`trustlib.controls.trainings`), classifiers first.

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


def visits(study: Study, parts: Iterable[str] | None = None) -> list[dict]:
    """All that the study plans to ask on unseen domains, those it judges or some parts; dicts as `trainings`.

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
            configs[runs.domain_path(study, part, of)] = observed_config(study, part, of)
        for pair in study.pairs:
            configs[runs.domain_path(study, part, pair)] = asked_config(study, part, pair, oracles[pair])
        for path, config in configs.items():
            run = str(path.relative_to(runs.run_folder(study)).with_suffix(""))
            row = {"kind": config["kind"], "run": run, "job": job, "path": path}
            rows.append(row | runs.status(path, config))
    return rows


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


def _fit_classifier(
    study: Study, name: str, images: data.Images, device: torch.device, seed: int, log: Log, among: Tensor | None = None
) -> tuple[nn.Module, list[dict]]:
    """A classifier in eval mode and the history of its training, on the images `among` (all by default)."""
    network = study.network(name)
    torch.manual_seed(seed)  # the initial weights
    net = oracle.build_backbone(network.model, network.args).to(device)
    history = training.train(
        net, images, images.labels["train"], _classification_loss,
        flip=study.flip, among=among, seed=seed, log=log, **network.training.model_dump(),
    )  # fmt: skip
    return net.eval(), history


def _lesson(study: Study, classifier_name: str, settings: Arm) -> tuple[str, Tensor | None, Tensor]:
    """(part, images of it or None for all, target (V, N)) that an oracle learns from."""
    path = runs.classifier_path(study, classifier_name)
    if settings.labels == "heldout":
        correct = runs.read_tensors(path, "views.")["heldout"]
        return "heldout", torch.arange(correct.shape[1] - study.audit.tuning), correct
    cache = runs.read_tensors(path, "train.")
    if settings.labels == "crossfit":
        correct, folds = torch.empty_like(cache["correct"]), study.audit.folds
        for fold in range(folds):
            correct[:, fold::folds] = runs.read_tensors(runs.fold_path(study, classifier_name, fold))["correct"]
        return "train", None, correct
    return "train", None, cache["p_true" if settings.loss == "tcp" else "correct"]


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


# --- Unseen domains ---


def _domain(part: str) -> str:
    return part.partition("/")[2]


def _is_attack(part: str) -> bool:
    return domains.parse(_domain(part)).kind == domains.RECOLOR


def _images_path(study: Study, part: str, classifier_name: str) -> Path:
    return runs.domain_path(study, f"{part}/images", classifier_name if _is_attack(part) else "all")


def _trained_classifier(study: Study, name: str, seed: int, device: torch.device) -> nn.Module:
    """A classifier of the study with its trained weights, in eval mode."""
    net = oracle.build_backbone(study.network(name).model, study.network(name).args)
    net.load_state_dict(runs.read_tensors(runs.classifier_path(study, name, seed), "weights."))
    return net.to(device).eval()


def _unseen(study: Study, images: data.Images, part: str, classifier_name: str) -> data.Images:
    """The study's images with those of a domain for its test part."""
    # In float64, where they are not uint8: `Images.view` works in place on what is float32 already.
    made = domain_images(study, part, classifier_name)
    made = made if made.dtype == torch.uint8 else made.double()
    labels = images.labels["test"][: len(made)]
    return replace(
        images,
        images=images.images | {"test": made.to(labels.device)},
        labels=images.labels | {"test": labels},
    )


@lru_cache(maxsize=4)
def _observed_once(path: Path, key: str, dataset: str, part: str) -> confidence.Observed:
    """What a classifier's file says of a part: one object, so that what is fitted to it is fitted once a process."""
    own = runs.read_tensors(path, f"{part}.")
    return confidence.Observed(own["logits"].numpy(), data.load(dataset).labels[part].numpy(), own["features"].numpy())
