"""What a study makes, each once and then read from its file: `train_classifier`, `score_classifier`, `train_oracle`.

A notebook calls them for what it needs; whatever is there already is not made again. Their outputs under distribution
shift are `trustlib.runs.unseen`'s. After them nothing needs a model, see `trustlib.runs.results`.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import lru_cache, partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import confidence, data, losses, training
from ..models import backbone, pretrained
from ..study import Method, Study
from . import networks, store
from .provenance import digest, processor, source_digest

Log = Callable[[str], None]
# Modules whose source is in the key of what is trained; of a loss it is that loss alone.
TRAINING = (
    "data", "models", "oracle", "training", "runs.experiments", "runs.networks",
)  # fmt: skip
FITTED = 10_000  # training images on which an oracle's fit is measured


def train_classifier(study: Study, name: str, log: Log = print, seed: int | None = None) -> dict:
    """Train a classifier of the study, or load it, and cache what is needed of it later; return its manifest.

    The one that is judged is that of the study's first classifier seed; the others serve its ensemble.

    In its file, besides ``weights.*`` (V views: the image, and its mirror image where the study flips):

    - ``train.correct`` bool (V, N), ``train.p_true`` float32 (V, N), the true class's probability, ``train.mcp``
      float64 (V, N), the maximum class probability (float32 would tie what is close to 1)
    - ``reference.index`` int64 (M,), the training images that scores refer to, all or a draw of a large set
      (`confidence.drawn_reference`), ``reference.logits`` (M, K) and penultimate ``reference.features`` (M, d) of these
    - ``heldout.*`` and ``test.*``: correct, p_true, mcp (N,), logits (N, K), features (N, d) of the image as it is
    - ``views.heldout`` bool (V, N), correct on every view of the validation set
    """
    network = study.network(name)
    seed = study.classifier_seeds[0] if seed is None else seed
    path, config = store.classifier_path(study, name, seed), classifier_config(study, name, seed)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = setup(study)
        images = images.seen_by(networks.inputs(study, name))
        log(f"classifier {name}, seed {seed}: {network.model}, {len(images.labels['train']):,} images")
        if network.weights:
            net, history = networks.given_classifier(study, name).to(device), {}
        else:
            checkpoints = _checkpoints(study, path, config, log)
            net, losses_seen = _fit_classifier(study, name, images, device, seed, log, checkpoints=checkpoints)
            history = {"history": losses_seen}
        tensors = {f"weights.{key}": tensor for key, tensor in net.state_dict().items()}
        index = torch.from_numpy(confidence.drawn_reference(len(images.labels["train"])))
        views = [observe(net, images, "train", view, brief=True) for view in range(study.views)]
        for key in ("correct", "p_true", "mcp"):
            tensors[f"train.{key}"] = torch.stack([view[key] for view in views])  # (V, N)
        seen = observe(net, images, "train", among=index)
        tensors |= {"reference.index": index, **{f"reference.{key}": seen[key] for key in ("logits", "features")}}
        for part in ("heldout", "test"):
            tensors |= {f"{part}.{key}": tensor for key, tensor in observe(net, images, part).items()}
        seen = [observe(net, images, "heldout", view, brief=True)["correct"] for view in range(study.views)]
        tensors["views.heldout"] = torch.stack(seen)  # (V, N): an oracle may learn from them
        accuracy = {part: tensors[f"{part}.correct"].float().mean().item() for part in ("train", "heldout")}
        log(f"classifier {name}: accuracy {accuracy['train']:.2%} train, {accuracy['heldout']:.2%} held out")
        return tensors, {**history, "accuracy": accuracy, **_facts(net, device)}

    return store.cached(path, config, make)


def cross_fit(study: Study, name: str, fold: int, log: Log = print) -> dict:
    """Train the classifier of a study on all folds of the training set but one, and ask it about that one.

    Fold k holds the training images k, k + K, k + 2 K, ... of K = ``study.ablations.folds``; seed and recipe are those
    of the classifier that is judged. In the file: ``correct`` bool (V, images of the fold). Returns its manifest.
    """
    seed, folds = study.classifier_seeds[0], study.ablations.folds
    path, config = store.fold_path(study, name, fold), fold_config(study, name, fold)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = setup(study)
        of_fold = torch.arange(len(images.labels["train"])) % folds == fold
        net, history = _fit_classifier(study, name, images, device, seed, lambda _: None, (~of_fold).nonzero()[:, 0])
        index = of_fold.nonzero()[:, 0]
        views = [observe(net, images, "train", view, among=index, brief=True) for view in range(study.views)]
        correct = torch.stack([view["correct"] for view in views])  # (V, images of the fold)
        log(f"classifier {name} without fold {fold} of {folds}: accuracy {correct[0].float().mean():.2%} on it")
        return {"correct": correct}, {"history": history, **_facts(net, device)}

    return store.cached(path, config, make)


def extract_features(study: Study, pair: str, log: Log = print) -> dict:
    """What the untrained backbone of a pair's oracle makes of every view of every image; return the file's manifest.

    In the file, float16: ``train`` and ``heldout`` (V, N, d), ``test`` (1, N, d). Read by memory mapping, so that a
    head learns from a large set without holding it.

    With ``study.feature_passes`` T, ``train`` is (T, N, d): passes with dropout left on, each an example of its own,
    with what the classifier said in that very pass, ``train.correct`` bool and ``train.p_true`` float32 (T, N). So the
    first stage of ConfidNet learns (Corbière et al. 2019; its learners/selfconfid_learner.py): a classifier that is
    right on nearly all its training images makes more mistakes so. Where the study flips, every second pass is of the
    mirror image.
    """
    oracle_name, classifier_name = study.pair(pair)
    train_classifier(study, oracle_name, log)
    path, config = _features_path(study, pair), features_config(study, pair)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = setup(study)
        images = images.seen_by(networks.inputs(study, oracle_name, classifier_name))
        net = networks.trained_classifier(study, oracle_name, study.classifier_seeds[0], device)
        tensors = {}
        for part, views in (("train", study.views), ("heldout", study.views), ("test", 1)):
            if part == "train" and study.feature_passes:
                tensors |= _noisy_features(study, net, images)
                continue
            seen = [training.predict(partial(_features, net), images, part, view=view)[0] for view in range(views)]
            tensors[part] = torch.stack(seen)  # (V, N, d)
        log(f"features of {path.stem}: {tensors['train'].shape[-1]} each")
        return tensors, {"device": device_name(device)}

    return store.cached(path, config, make)


def score_classifier(study: Study, name: str, log: Log = print) -> dict:
    """Every confidence of a classifier that needs no oracle (`trustlib.confidence`); return the file's manifest.

    What is fitted is fitted on the validation set, what needs neighbours or learns looks at the training set. In the
    file: ``heldout.<score>`` and ``test.<score>``, float32 (N,); in the manifest, the seconds that each score took and
    the reason why one is missing.
    """
    for seed in study.classifier_seeds:
        train_classifier(study, name, log, seed)

    def make() -> tuple[dict[str, Tensor], dict]:
        images, device = setup(study)
        seen = {part: _with_passes(study, name, images, part) for part in ("heldout", "test")}
        seen["train"] = observed(store.classifier_path(study, name), images, "train")
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
        return tensors, {"score_seconds": seconds, "missing": missing, "device": device_name(device)}

    return store.cached(store.confidence_path(study, name), confidence_config(study, name), make)


def train_oracle(study: Study, pair: str, arm: str, seed: int, log: Log = print, *, rate: float | None = None) -> dict:
    """Train one oracle of a pair and store its weights and ``z``; return its manifest.

    The backbone starts from the classifier of its own kind and the head is new, unless the method starts from another.
    The classifier that is judged does not run: its correctness and probabilities come from the cache. In the file:
    ``weights.*``, of the head only where the backbone is frozen, ``heldout.z`` and ``test.z``, float32 (N,), and
    ``train.z`` (M,) on ``train.index`` int64 (M,), the first 10,000 of the images that it learnt from.

    Parameters
    ----------
    arm : of the study or of its ablations. Its ``labels`` say what the oracle learns from: "train", how the classifier
        did on its own training images; "heldout", on validation images, but for the last ``study.ablations.tuning``;
        "crossfit", how classifiers that were not trained on them did on the training images (`cross_fit`).
    rate : the learning rate, the study's or the method's own by default.

    Raises
    ------
    TrainingError : when the loss or an output is not finite.
    """
    config, path = oracle_config(study, pair, arm, seed, rate), store.oracle_path(study, pair, arm, seed, rate)
    settings, (oracle_name, classifier_name) = study.method(arm), study.pair(pair)
    for name in dict.fromkeys((oracle_name, classifier_name)):
        train_classifier(study, name, log)
    if settings.labels == "crossfit":
        for fold in range(study.ablations.folds):
            cross_fit(study, classifier_name, fold, log)
    if settings.start:
        train_oracle(study, pair, settings.start, seed, log)
    if settings.backbone == "frozen":
        extract_features(study, pair, log)

    def make() -> tuple[dict[str, Tensor], dict]:
        net = networks.new_oracle(study, pair, arm, seed)
        images, device = setup(study)
        if settings.backbone == "frozen":
            seen = store.read_tensors(_features_path(study, pair))
            images, learner = data.Features(seen, images.labels, device), net.head.to(device)
        else:
            images, learner = images.seen_by(networks.inputs(study, oracle_name, classifier_name)), net.to(device)
        part, among, targets = _targets(study, pair, settings)
        recipe, draw = study.recipe(pair, arm, rate), torch.Generator().manual_seed(seed)
        index = training.training_images(images, part, among, recipe.images, draw)
        entry = losses.LOSSES[settings.loss]
        target = targets[entry.target].to(device)  # (V, N)
        hyper = config["arm"]["hyper"] | entry.counted(targets["correct"][:, index])
        history = training.train(
            learner, images, target, partial(settings.loss_function, **hyper), recipe,
            part=part, among=among, views=len(target), seed=seed, compiled=study.compiled,
            checkpoints=_checkpoints(study, path, config, log), log=lambda _: None,
        )  # fmt: skip
        learner.eval()
        stored = net.head.state_dict(prefix="head.") if settings.backbone == "frozen" else net.state_dict()
        tensors = {f"weights.{key}": tensor for key, tensor in stored.items()}
        tensors["train.index"] = index[:FITTED]
        outputs = {"train": training.predict(learner, images, part, among=index[:FITTED])[0]}
        outputs |= {name: training.predict(learner, images, name)[0] for name in ("heldout", "test")}
        for name, z in outputs.items():
            if not z.isfinite().all():
                raise training.TrainingError(
                    f"{(~z.isfinite()).sum()} of {len(z)} outputs on the {name} set are not finite"
                )
            tensors[f"{name}.z"] = z
        log(f"{store.oracle_name(study, pair, arm, seed, rate)}: loss {history[-1]['loss']:.4f}")
        return tensors, {"history": history, **_facts(learner, device)}

    return store.cached(path, config, make)


def classifier_config(study: Study, name: str, seed: int | None = None) -> dict:
    """All that a classifier depends on; its digest is the key of its file."""
    return {
        "kind": "classifier",
        "network": study.network(name).model_dump(exclude={"label", "steep_slope", "inputs", "oracle"}),
        "seed": study.classifier_seeds[0] if seed is None else seed,
        **_seen_config(study, name),
        **_shared_config(study),
        "source": source_digest(*TRAINING),
    }


def features_config(study: Study, pair: str) -> dict:
    """All that the features of a pair's oracle depend on; its digest is the key of their file."""
    oracle_name, classifier_name = study.pair(pair)
    return {
        "kind": "features",
        "own": digest(classifier_config(study, oracle_name)),
        "passes": study.feature_passes,
        **_seen_config(study, oracle_name, classifier_name),
        **_shared_config(study),
        "source": source_digest(*TRAINING),
    }


def confidence_config(study: Study, name: str) -> dict:
    """All that the scores of a classifier depend on; its digest is the key of their file."""
    return {
        "kind": "confidences",
        "members": [digest(classifier_config(study, name, seed)) for seed in study.classifier_seeds],
        "dropout_passes": study.dropout_passes,
        "threads": study.threads,
        "source": source_digest(*TRAINING, "confidence", "losses", "metrics"),
    }


def fold_config(study: Study, name: str, fold: int) -> dict:
    """All that the labels of one fold depend on; its digest is the key of their file."""
    return classifier_config(study, name) | {
        "kind": "fold",
        "fold": [fold, study.ablations.folds],
        "source": source_digest(*TRAINING),
    }


def oracle_config(study: Study, pair: str, arm: str, seed: int, rate: float | None = None) -> dict:
    """All that an oracle depends on; its digest is the key of its file."""
    oracle_name, classifier_name = study.pair(pair)
    settings = study.method(arm)
    labels: dict[str, list] = {"train": [], "heldout": [study.ablations.tuning], "crossfit": []}
    if settings.labels == "crossfit":
        folds = range(study.ablations.folds)
        labels["crossfit"] = [digest(fold_config(study, classifier_name, fold)) for fold in folds]
    return {
        "kind": "oracle",
        "own": digest(classifier_config(study, oracle_name)),
        "judged": digest(classifier_config(study, classifier_name)),
        "training": study.recipe(pair, arm, rate).model_dump(),
        "arm": settings.model_dump(exclude={"label", "training", "rate_of"}) | {"hyper": study.hyper(pair, arm)},
        "labels": labels[settings.labels],
        "start": digest(oracle_config(study, pair, settings.start, seed)) if settings.start else "",
        "features": digest(features_config(study, pair)) if settings.backbone == "frozen" else "",
        "seed": seed,
        **_seen_config(study, oracle_name, classifier_name),
        **_shared_config(study),
        "source": source_digest(*TRAINING, function=settings.loss_function),
    }


def trainings(study: Study) -> list[dict]:
    """All that the study plans to make but for its ablations (`trustlib.runs.tuning.trainings`), classifiers first.

    Returns
    -------
    Dicts of kind ("classifier", "confidences" or "oracle"), run (its name), job (that makes it), path, and status:
    "done", "failed", or "not run", which a file of other settings or source counts as. When done: loss (the last; None
    for confidences), seconds, device, key, provenance; when failed: error, traceback.
    """
    rows = []
    for name, seed in product(study.networks, study.classifier_seeds):
        path, config = store.classifier_path(study, name, seed), classifier_config(study, name, seed)
        job = f"{'classifier' if seed == study.classifier_seeds[0] else 'confidence'}-{name}"
        row = {"kind": "classifier", "run": f"{name}/seed{seed}", "job": job, "path": path}
        rows.append(row | store.status(path, config))
    for name in study.networks:
        path, config = store.confidence_path(study, name), confidence_config(study, name)
        row = {"kind": "confidences", "run": f"{name}/confidences", "job": f"confidence-{name}", "path": path}
        rows.append(row | store.status(path, config))
    for pair, arm, seed in product(study.pairs, study.methods, study.seeds):
        path, config = store.oracle_path(study, pair, arm, seed), oracle_config(study, pair, arm, seed)
        row = {"kind": "oracle", "run": f"{pair}/{arm}/seed{seed}", "job": study.oracle_job(pair, arm), "path": path}
        rows.append(row | store.status(path, config))
    return rows


def setup(study: Study) -> tuple[data.Images, torch.device]:
    """The study's images on its device; sets the threads of this process."""
    device = training.pick_device(study.device, tf32=study.tf32)
    training.set_threads(study.threads)
    return _on_device(study.images(), str(device)), device


@lru_cache(maxsize=1)
def _on_device(images: data.Images, device: str) -> data.Images:
    return images.to(device)


def _checkpoints(study: Study, path: Path, config: dict, log: Log) -> store.Checkpoints:
    return store.Checkpoints(path, config, study.checkpoint_minutes, log)


def _features_path(study: Study, pair: str) -> Path:
    """One file serves all classifiers, unless what the oracle sees depends on the classifier."""
    oracle_name, classifier_name = study.pair(pair)
    alone = networks.inputs(study, oracle_name) == networks.inputs(study, oracle_name, classifier_name)
    return store.features_path(study, oracle_name if alone else pair)


def _seen_config(study: Study, name: str, classifier_name: str | None = None) -> dict:
    """What a network depends on besides its training: its own layers, what it sees, pretrained weights."""
    network, seen = study.network(name), networks.inputs(study, name, classifier_name)
    if seen is None:
        return {}
    return {"inputs": asdict(seen), "weights": pretrained.checksum(network.model, network.weights)}


def _shared_config(study: Study) -> dict:
    """What every training depends on besides its own settings. The device is not part of it: results travel."""
    return {"data": study.images().checksums, "flip": study.flip, "threads": study.threads, "heldout": study.heldout}


def _facts(net: nn.Module, device: torch.device) -> dict:
    """What a manifest says of a network and of where it was trained."""
    return {"parameters": backbone.parameters(net), "device": device_name(device)}


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def _fit_classifier(
    study: Study,
    name: str,
    images: data.Images,
    device: torch.device,
    seed: int,
    log: Log,
    among: Tensor | None = None,
    checkpoints: store.Checkpoints | None = None,
) -> tuple[nn.Module, list[dict]]:
    """A classifier in eval mode and the history of its training, on the images `among` (all by default)."""
    network = study.network(name)
    torch.manual_seed(seed)  # the initial weights
    net = backbone.build_backbone(network.model, network.args).to(device)
    history = training.train(
        net, images, images.labels["train"], _classification_loss, network.training,
        among=among, views=study.views, seed=seed, compiled=study.compiled, checkpoints=checkpoints, log=log,
    )  # fmt: skip
    net.eval()
    if _noisy_statistics(net):
        _estimate_statistics(net, images, among)
    return net, history


def _noisy_statistics(net: nn.Module) -> bool:
    """Whether dropout comes before a batch norm, whose running statistics are then those of a noisier network."""
    noisy = False
    for module in net.modules():
        noisy = noisy or (isinstance(module, nn.Dropout) and module.p > 0)
        if noisy and isinstance(module, nn.BatchNorm2d):
            return True
    return False


def _estimate_statistics(net: nn.Module, images: data.Images, among: Tensor | None) -> None:
    """Take the statistics of every batch norm anew, without dropout, from up to 10,000 of the training images.

    Dropout changes the variance of what a batch norm sees while it learns (Li et al. 2019, "Understanding the
    disharmony between dropout and batch normalization by variance shift").
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    index = torch.arange(len(images.labels["train"])) if among is None else among
    training.predict(net, images, "train", among=index[:FITTED])
    net.eval()


def _targets(study: Study, pair: str, settings: Method) -> tuple[str, Tensor | None, dict[str, Tensor]]:
    """What an oracle can learn: part, images of it (None for all), and targets, (V, N) each.

    The targets are correct, bool, and of the training set p_true, float32 in [0, 1].
    """
    classifier_name = study.pair(pair)[1]
    path = store.classifier_path(study, classifier_name)
    if settings.labels == "heldout":
        correct = store.read_tensors(path, "views.")["heldout"]
        return "heldout", torch.arange(correct.shape[1] - study.ablations.tuning), {"correct": correct}
    targets = store.read_tensors(path, "train.")
    if settings.labels == "crossfit":
        correct, folds = torch.empty_like(targets["correct"]), study.ablations.folds
        for fold in range(folds):
            correct[:, fold::folds] = store.read_tensors(store.fold_path(study, classifier_name, fold))["correct"]
        return "train", None, {"correct": correct}
    if settings.backbone == "frozen" and study.feature_passes:
        targets = store.read_tensors(_features_path(study, pair), "train.")
    return "train", None, targets


def _classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def observe(
    net: nn.Module, images: data.Batches, part: str, view: int = 0, *, among: Tensor | None = None, brief: bool = False
) -> dict[str, Tensor]:
    """All that is needed of a classifier for one view of a part, or of some images of it.

    brief : without logits (N, K) and features (N, d), which would not fit for a large set.
    """

    def look(x: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        features, logits = backbone.classify(net, x)
        probability = logits.double().softmax(1)
        own = probability.gather(1, labels[:, None]).squeeze(1).float()
        found = logits.argmax(1) == labels, own, probability.amax(1)
        return found if brief else (*found, logits.float(), features.float())

    names = ("correct", "p_true", "mcp", "logits", "features")[: 3 if brief else 5]
    seen = training.predict(look, images, part, view=view, among=among, labelled=True)
    return dict(zip(names, seen, strict=True))


def _features(net: nn.Module, x: Tensor) -> Tensor:
    return backbone.classify(net, x)[0].half()


def _noisy_features(study: Study, net: nn.Module, images: data.Images) -> dict[str, Tensor]:
    """What `extract_features` keeps of the training set, seen with dropout left on; `net` is in eval mode after it."""
    if not backbone.leave_dropout_on(net):
        raise ValueError("feature_passes: this network has no dropout to leave on; set it to 0")
    torch.manual_seed(study.classifier_seeds[0])
    passes = [observe(net, images, "train", number % study.views) for number in range(study.feature_passes)]
    net.eval()
    told = {f"train.{key}": torch.stack([seen[key] for seen in passes]) for key in ("correct", "p_true")}
    return {"train": torch.stack([seen["features"].half() for seen in passes])} | told


def observed(path: Path, images: data.Images, part: str) -> confidence.Observed:
    """What a classifier's file says of a part, as arrays; of the training set, of the images that scores refer to."""
    if part == "train":
        seen = store.read_tensors(path, "reference.")
        labels = images.labels["train"].cpu()[seen["index"]]
    else:
        seen, labels = store.read_tensors(path, f"{part}."), images.labels[part].cpu()
    return confidence.Observed(seen["logits"].numpy(), labels.numpy(), seen["features"].numpy())


def _with_passes(study: Study, name: str, images: data.Images, part: str) -> confidence.Observed:
    """The same with what the classifier's dropout passes and its ensemble said."""
    own, *others = (observed(store.classifier_path(study, name, seed), images, part) for seed in study.classifier_seeds)
    extra = {}
    if others:
        extra["members"] = np.stack([own.logits, *(member.logits for member in others)])
    if study.dropout_passes:
        passes = dropout_passes(study, name, images.seen_by(networks.inputs(study, name)), part)
        extra |= {"passes": passes.numpy()} if passes is not None else {}
    return replace(own, **extra)


def dropout_passes(study: Study, name: str, images: data.Images, part: str) -> Tensor | None:
    """Logits of the judged classifier with its dropout left on, float32 (T, N, K); None where it has no dropout.

    images : as the classifier sees them.
    """
    net = networks.trained_classifier(study, name, study.classifier_seeds[0], training.pick_device(study.device))
    if not backbone.leave_dropout_on(net):
        return None
    torch.manual_seed(study.classifier_seeds[0])
    return torch.stack([training.predict(net, images, part)[0] for _ in range(study.dropout_passes)])
