"""The steps of a study: classifiers, their confidences, oracles, and what these need.

Each function describes one file (`store.Step`): ``oracle(study, pair, method, seed).get()`` makes it unless it is
there, ``.tensors("test.")`` reads it. Outputs under distribution shift are `trustlib.runs.shifted`'s. After the steps
nothing needs a model, see `trustlib.runs.results`.
"""

import time
from dataclasses import asdict, replace
from functools import lru_cache, partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import confidence, data, losses, training
from ..models import backbone, pretrained
from ..settings import Method
from ..study import Study
from . import networks
from .provenance import processor, source_digest
from .store import Checkpoints, Log, Made, Step, run_folder

# Modules whose source is in the key of what is trained; of a loss it is that loss alone.
TRAINING = ("data", "models", "oracle", "training", "runs.steps", "runs.networks")
FITTED = 10_000  # training images on which an oracle's fit is measured


def classifier(study: Study, name: str, seed: int | None = None) -> Step:
    """A classifier, and what is needed of it later.

    The one that is evaluated is that of the study's first classifier seed; the others serve its ensemble.

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

    def make(step: Step, log: Log) -> Made:
        images, device = setup(study)
        images = images.seen_by(networks.inputs(study, name))
        log(f"classifier {name}, seed {seed}: {network.model}, {len(images.labels['train']):,} images")
        if network.weights:
            net, history = networks.given_classifier(study, name).to(device), {}
        else:
            checkpoints = step.checkpoints(study.checkpoint_minutes, log)
            net, epochs = _fit_classifier(study, name, images, device, seed + network.seed, log, None, checkpoints)
            history = {"history": epochs}
        tensors = {f"weights.{key}": tensor for key, tensor in net.state_dict().items()}
        count, others = len(images.labels["train"]), range(1, study.views)
        index = torch.from_numpy(confidence.drawn_reference(count))
        reference = networks.observe(net, images, "train", among=index)
        first = reference if len(index) == count else networks.observe(net, images, "train", brief=True)
        views = [first, *(networks.observe(net, images, "train", view, brief=True) for view in others)]
        for key in ("correct", "p_true", "mcp"):
            tensors[f"train.{key}"] = torch.stack([view[key] for view in views])  # (V, N)
        tensors |= {"reference.index": index, **{f"reference.{key}": reference[key] for key in ("logits", "features")}}
        for split in ("heldout", "test"):
            tensors |= {f"{split}.{key}": tensor for key, tensor in networks.observe(net, images, split).items()}
        mirrored = [networks.observe(net, images, "heldout", view, brief=True)["correct"] for view in others]
        tensors["views.heldout"] = torch.stack([tensors["heldout.correct"], *mirrored])  # oracles may learn it
        accuracy = {split: tensors[f"{split}.correct"].float().mean().item() for split in ("train", "heldout")}
        log(f"classifier {name}: accuracy {accuracy['train']:.2%} train, {accuracy['heldout']:.2%} held out")
        return tensors, {**history, "accuracy": accuracy, **_facts(net, device)}

    settings = {
        "network": network.model_dump(exclude={"label", "steep_slope", "inputs", "oracle"}),
        "seed": seed,
        **_input_settings(study, name),
        **_shared_settings(study),
    }
    source = source_digest(*TRAINING)
    return Step(run_folder(study), f"classifiers/{name}/seed{seed}", "classifier", settings, source, make)


def classifiers(study: Study, name: str) -> list[Step]:
    """A classifier with every seed of the study: the one that is evaluated, then the rest of its ensemble."""
    return [classifier(study, name, seed) for seed in study.classifier_seeds]


def fold(study: Study, name: str, number: int) -> Step:
    """Cross-fitted labels of one fold: the classifier trained on all others, evaluated on this one.

    Fold k holds the training images k, k + K, k + 2 K, ... of K = ``study.ablations.folds``; seed and recipe are those
    of the classifier that is evaluated. In the file: ``correct`` bool (V, images of the fold).
    """
    seed, folds = study.classifier_seeds[0] + study.network(name).seed, study.ablations.folds

    def make(step: Step, log: Log) -> Made:
        images, device = setup(study)
        of_fold = torch.arange(len(images.labels["train"])) % folds == number
        net, history = _fit_classifier(study, name, images, device, seed, lambda _: None, (~of_fold).nonzero()[:, 0])
        index = of_fold.nonzero()[:, 0]
        views = [networks.observe(net, images, "train", view, among=index, brief=True) for view in range(study.views)]
        correct = torch.stack([view["correct"] for view in views])  # (V, images of the fold)
        log(f"classifier {name} without fold {number} of {folds}: accuracy {correct[0].float().mean():.2%} on it")
        return {"correct": correct}, {"history": history, **_facts(net, device)}

    trained = classifier(study, name)
    settings, name_of_file = trained.settings | {"fold": [number, folds]}, f"classifiers/{name}/fold{number}"
    return Step(trained.folder, name_of_file, "fold", settings, trained.source, make)


def folds(study: Study, name: str) -> list[Step]:
    return [fold(study, name, number) for number in range(study.ablations.folds)]


def features(study: Study, pair: str) -> Step:
    """What the untrained backbone of a pair's oracle makes of every view of every image.

    One file serves all classifiers, unless what the oracle sees depends on the classifier. In it, float16: ``train``
    and ``heldout`` (V, N, d), ``test`` (1, N, d). Read by memory mapping, so that a head learns from a large set
    without holding it.

    With ``study.feature_passes`` T, ``train`` is (T, N, d): passes with dropout left on, each an example of its own,
    with the classifier's outputs in that very pass, ``train.correct`` bool and ``train.p_true`` float32 (T, N). So the
    first stage of ConfidNet learns (Corbière et al. 2019; its learners/selfconfid_learner.py): a classifier that is
    correct on nearly all its training images makes more errors so. Where the study flips, every second pass is of the
    mirror image.
    """
    oracle_name, classifier_name = study.pair(pair)
    inputs = networks.inputs(study, oracle_name, classifier_name)

    def make(step: Step, log: Log) -> Made:
        images, device = setup(study)
        images = images.seen_by(inputs)
        net = networks.trained_classifier(study, oracle_name, own, device)
        tensors = {}
        for split, views in (("train", study.views), ("heldout", study.views), ("test", 1)):
            if split == "train" and study.feature_passes:
                tensors |= _noisy_features(study, net, images)
                continue
            rows = [training.predict(partial(_features, net), images, split, view=view)[0] for view in range(views)]
            tensors[split] = torch.stack(rows)  # (V, N, d)
        log(f"{step.name}: {tensors['train'].shape[-1]} features an image")
        return tensors, {"device": device_name(device)}

    own = classifier(study, oracle_name)
    settings = {
        "passes": study.feature_passes,
        **_input_settings(study, oracle_name, classifier_name),
        **_shared_settings(study),
    }
    name = f"features/{oracle_name if networks.inputs(study, oracle_name) == inputs else pair}"
    return Step(run_folder(study), name, "features", settings, source_digest(*TRAINING), make, (own,))


def confidences(study: Study, name: str) -> Step:
    """Every confidence of a classifier that needs no oracle (`trustlib.confidence`).

    What is fitted is fitted on the validation set, what needs neighbours or is trained looks at the training set. In
    the file: ``heldout.<score>`` and ``test.<score>``, float32 (N,); in the manifest, the seconds that each score took
    and the reason why one is missing.
    """
    members = classifiers(study, name)

    def make(step: Step, log: Log) -> Made:
        images, device = setup(study)
        observed = {split: _with_passes(study, name, members, images, split) for split in ("heldout", "test")}
        observed["train"] = observation(members[0], images, "train")
        tensors, seconds, missing = {}, {}, {}
        for key, score in confidence.SCORES.items():
            if reason := score.missing(observed["test"], observed["heldout"], observed["train"]):
                missing[key] = reason
                continue
            start = time.perf_counter()
            for split in ("heldout", "test"):
                values = score.function(observed[split], observed["heldout"], observed["train"])
                tensors[f"{split}.{key}"] = torch.from_numpy(values.astype(np.float32))
            seconds[key] = round(time.perf_counter() - start, 2)
        log(f"confidences of {name}: {len(seconds)} scores, {sum(seconds.values()):.1f} s")
        return tensors, {"score_seconds": seconds, "missing": missing, "device": device_name(device)}

    settings = {"dropout_passes": study.dropout_passes, "threads": study.threads}
    source = source_digest(*TRAINING, "confidence", "losses", "metrics")
    name_of_file = f"classifiers/{name}/confidences"
    return Step(run_folder(study), name_of_file, "confidences", settings, source, make, tuple(members))


def oracle(study: Study, pair: str, method: str, seed: int, rate: float | None = None) -> Step:
    """One oracle of a pair: its weights and ``z``.

    The backbone starts from the classifier of its own kind and the head is new, unless the method starts from another.
    The classifier that is evaluated does not run: its correctness and probabilities are read. In the file:
    ``weights.*``, of the head only where the backbone is frozen, ``heldout.z`` and ``test.z``, float32 (N,), and
    ``train.z`` (M,) on ``train.index`` int64 (M,), the first 10,000 of the images that it was trained on.

    Parameters
    ----------
    method : of the study or of its ablations. Its ``labels`` say what the oracle learns from: "train", the
        classifier's predictions on its own training images; "heldout", on validation images, but for the last
        ``study.ablations.tuning``; "crossfit", the predictions of classifiers that were not trained on them (`fold`).
    rate : the learning rate, the study's or the method's own by default.

    Raises
    ------
    TrainingError : by `Step.get`, when the loss or an output is not finite.
    """
    settings, (oracle_name, classifier_name) = study.method(method), study.pair(pair)
    recipe, hyper, frozen = study.recipe(pair, method, rate), study.hyper(pair, method), settings.backbone == "frozen"
    own, judged = classifier(study, oracle_name), classifier(study, classifier_name)
    labels = folds(study, classifier_name) if settings.labels == "crossfit" else []
    start = [oracle(study, pair, settings.start, seed)] if settings.start else []
    cached = [features(study, pair)] if frozen else []

    def make(step: Step, log: Log) -> Made:
        net = networks.new_oracle(study, pair, method, seed, own, *start)
        images, device = setup(study)
        if frozen:
            images, learner = data.Features(cached[0].tensors(), images.labels, device), net.head.to(device)
        else:
            images, learner = images.seen_by(networks.inputs(study, oracle_name, classifier_name)), net.to(device)
        split, among, targets = _targets(study, settings, judged, labels, cached)
        draw = torch.Generator().manual_seed(seed)
        index = training.training_images(images, split, among, recipe.images, draw)
        entry = losses.LOSSES[settings.loss]
        target = targets[entry.target].to(device)  # (V, N)
        loss = partial(settings.loss_function, **hyper | entry.counted(targets["correct"][:, index]))
        history = training.train(
            learner, images, target, loss, recipe, part=split, among=among, views=len(target), seed=seed,
            compiled=study.compiled, checkpoints=step.checkpoints(study.checkpoint_minutes, log), log=lambda _: None,
        )  # fmt: skip
        learner.eval()
        stored = net.head.state_dict(prefix="head.") if frozen else net.state_dict()
        tensors = {f"weights.{key}": tensor for key, tensor in stored.items()}
        tensors["train.index"] = index[:FITTED]
        outputs = {"train": training.predict(learner, images, split, among=index[:FITTED])[0]}
        outputs |= {name: training.predict(learner, images, name)[0] for name in ("heldout", "test")}
        for name, z in outputs.items():
            if not z.isfinite().all():
                raise training.TrainingError(
                    f"{(~z.isfinite()).sum()} of {len(z)} outputs on the {name} set are not finite"
                )
            tensors[f"{name}.z"] = z
        log(f"{step.run}: loss {history[-1]['loss']:.4f}")
        return tensors, {"history": history, **_facts(learner, device)}

    content = {
        "training": recipe.model_dump(),
        "arm": settings.model_dump(exclude={"label", "training", "rate_of"}) | {"hyper": hyper},
        "labels": [study.ablations.tuning] if settings.labels == "heldout" else [],
        "seed": seed,
        **_input_settings(study, oracle_name, classifier_name),
        **_shared_settings(study),
    }
    source = source_digest(*TRAINING, function=settings.loss_function)
    at = "" if rate in (None, study.recipe(pair, method).rate) else f"rate{rate:g}-"
    name = f"oracles/{pair}/{method}/{at}seed{seed}"
    return Step(run_folder(study), name, "oracle", content, source, make, (own, judged, *labels, *start, *cached))


def planned(study: Study) -> list[Step]:
    """All steps of a study but for its ablations (`tuning.planned`) and distribution shifts (`shifted.planned`)."""
    every = [classifier(study, name, seed) for name, seed in product(study.networks, study.classifier_seeds)]
    every += [confidences(study, name) for name in study.networks]
    return every + [oracle(study, *which) for which in product(study.pairs, study.methods, study.seeds)]


def setup(study: Study) -> tuple[data.Images, torch.device]:
    """The study's images on its device; sets the threads of this process."""
    device = training.pick_device(study.device, tf32=study.tf32)
    training.set_threads(study.threads)
    return _on_device(study.images(), str(device)), device


@lru_cache(maxsize=1)
def _on_device(images: data.Images, device: str) -> data.Images:
    return images.to(device)


def _input_settings(study: Study, name: str, classifier_name: str | None = None) -> dict:
    """What a network with pretrained weights depends on besides its training: its preprocessing, its weights."""
    inputs = networks.inputs(study, name, classifier_name)
    if inputs is None:
        return {}
    network = study.network(name)
    return {"inputs": asdict(inputs), "weights": pretrained.checksum(network.model, network.weights)}


def _shared_settings(study: Study) -> dict:
    """What every training depends on besides its own settings."""
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
    checkpoints: Checkpoints | None = None,
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
    if networks.has_noisy_statistics(net):
        seen = torch.arange(len(images.labels["train"])) if among is None else among
        networks.estimate_statistics(net, images, seen[:FITTED])
    return net, history


def _targets(
    study: Study, settings: Method, judged: Step, labels: list[Step], cached: list[Step]
) -> tuple[str, Tensor | None, dict[str, Tensor]]:
    """What an oracle can learn: split, images of it (None for all), and targets, (V, N) each.

    The targets are correct, bool, and of the training set p_true, float32 in [0, 1].
    """
    if settings.labels == "heldout":
        correct = judged.tensors("views.")["heldout"]
        return "heldout", torch.arange(correct.shape[1] - study.ablations.tuning), {"correct": correct}
    targets = judged.tensors("train.")
    if settings.labels == "crossfit":
        correct = torch.empty_like(targets["correct"])
        for number, step in enumerate(labels):
            correct[:, number :: len(labels)] = step.tensors()["correct"]
        return "train", None, {"correct": correct}
    if cached and study.feature_passes:
        targets = cached[0].tensors("train.")
    return "train", None, targets


def _classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="none")


def _features(net: nn.Module, x: Tensor) -> Tensor:
    return backbone.classify(net, x)[0].half()


def _noisy_features(study: Study, net: nn.Module, images: data.Images) -> dict[str, Tensor]:
    """What `features` keeps of the training set, seen with dropout left on; `net` is in eval mode after it."""
    if not backbone.leave_dropout_on(net):
        raise ValueError("feature_passes: this network has no dropout to leave on; set it to 0")
    torch.manual_seed(study.classifier_seeds[0])
    passes = [networks.observe(net, images, "train", number % study.views) for number in range(study.feature_passes)]
    net.eval()
    targets = {f"train.{key}": torch.stack([one[key] for one in passes]) for key in ("correct", "p_true")}
    return {"train": torch.stack([one["features"].half() for one in passes])} | targets


def observation(trained: Step, images: data.Images, split: str) -> confidence.Observed:
    """What a classifier's file holds of a split, as arrays; of the training set, of the images that scores refer to."""
    if split == "train":
        values = trained.tensors("reference.")
        labels = images.labels["train"].cpu()[values["index"]]
    else:
        values, labels = trained.tensors(f"{split}."), images.labels[split].cpu()
    return confidence.Observed(values["logits"].numpy(), labels.numpy(), values["features"].numpy())


def _with_passes(study: Study, name: str, members: list[Step], images: data.Images, split: str) -> confidence.Observed:
    """`observation` with the outputs of the classifier's dropout passes and of its ensemble."""
    first, *others = (observation(member, images, split) for member in members)
    extra = {}
    if others:
        extra["members"] = np.stack([first.logits, *(member.logits for member in others)])
    if study.dropout_passes:
        passes = dropout_passes(study, name, images.seen_by(networks.inputs(study, name)), split)
        extra |= {"passes": passes.numpy()} if passes is not None else {}
    return replace(first, **extra)


def dropout_passes(study: Study, name: str, images: data.Images, split: str) -> Tensor | None:
    """Logits of a classifier with its dropout left on, float32 (T, N, K); None where it has no dropout.

    images : as the classifier sees them.
    """
    trained = classifier(study, name)
    net = networks.trained_classifier(study, name, trained, training.pick_device(study.device))
    if not backbone.leave_dropout_on(net):
        return None
    torch.manual_seed(study.classifier_seeds[0])
    return torch.stack([training.predict(net, images, split)[0] for _ in range(study.dropout_passes)])
