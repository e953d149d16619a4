"""An oracle for your own classifier: any timm model that classifies, or any module whose last layer is linear.

The images must be ones that the classifier did not learn from: on those it did its accuracy is higher than on new ones,
and an oracle that is trained on them sees too few errors. They are split at random into three sets: on the first the
oracle is trained, on the second its learning rate is chosen, on the third it is evaluated, once.

    net, images, source = of_timm("resnet50.tv_in1k", "timm", "photos")
    net = prepare(net, images)
    outputs = outputs_of(net, images)
    splits = split(outputs["correct"])
    oracle, tried = fit(net, images, outputs, splits, method, rates=[1e-3], epochs=20)
    z = predict(oracle, images, splits["test"])
"""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import losses, metrics, training
from ..data import Features, Inputs, folders
from ..models import pretrained
from ..oracle import Oracle
from ..recipe import Recipe
from ..runs import networks, steps, store
from ..settings import Method
from ..study import Study

ALL = "all"  # the one part that a set of images has here
SPLITS = {"train": 0.6, "validation": 0.1, "test": 0.3}  # shares of the images
FEWEST = 5  # correct and incorrect predictions each, in every split
IMAGENET = Inputs((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224, interpolation="bilinear")  # torchvision's


class ClassifierError(ValueError):
    """A classifier, or images, of which no oracle can be made; the message says what was expected and found."""


class Classifier(nn.Module):
    """Inputs (B, ...) to the features (B, d) of a classifier's last linear layer, with timm's methods.

    last : the name of that layer in `net`. It stays where it is: a hook catches what it takes.
    """

    def __init__(self, net: nn.Module, last: str):
        super().__init__()
        self.net, self.last = net, last
        self.head_hidden_size = self.get_classifier().in_features

    def forward(self, x: Tensor) -> Tensor:
        caught: list[Tensor] = []
        handle = self.get_classifier().register_forward_pre_hook(lambda _, taken: caught.append(taken[0]))
        try:
            self.net(x)
        finally:
            handle.remove()
        return caught[-1]

    forward_features = forward

    def forward_head(self, x: Tensor, pre_logits: bool = True) -> Tensor:
        return x

    def get_classifier(self) -> nn.Module:
        return self.net.get_submodule(self.last)

    def reset_classifier(self, num_classes: int) -> None:
        """Nothing: it returns features already."""


class Standardised(nn.Module):
    """A head on features of any scale, (B, d) to (B,): each is brought to mean 0 and deviation 1 first."""

    mean: Tensor
    scale: Tensor

    def __init__(self, head: nn.Module, features: Tensor):
        super().__init__()
        self.head = head
        self.register_buffer("mean", features.float().mean(0))
        self.register_buffer("scale", features.float().std(0).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head((x - self.mean) / self.scale)


class Tensors(Features):
    """Images, or features, as a network takes them, (1, N, ...); `inputs` has their size, for that of a batch."""

    @property
    def inputs(self) -> Inputs | None:
        shape = self.features[ALL].shape
        return Inputs((), (), shape[-1]) if len(shape) == 5 else None

    def to(self, device: torch.device) -> "Tensors":
        return replace(self, labels={ALL: self.labels[ALL].to(device)}, device=device)


Images = folders.Folder | Tensors


def tensors(x: Tensor | NDArray, labels: Tensor | NDArray) -> Tensors:
    """Images (N, ...), numbers just as the classifier takes them, normalised already, with labels (N,) from 0.

    Raises
    ------
    ClassifierError : for other shapes, labels that are no whole numbers, or images that are not finite.
    """
    x, labels = torch.as_tensor(x), torch.as_tensor(labels)
    if labels.ndim != 1 or x.ndim < 2 or len(x) != len(labels) or labels.is_floating_point():
        raise ClassifierError(
            f"expected images (N, ...) and whole labels (N,), found images {tuple(x.shape)} and labels "
            f"{tuple(labels.shape)} of {labels.dtype}"
        )
    if not x.isfinite().all():
        raise ClassifierError("expected finite numbers in images, found NaN or infinite ones")
    return Tensors({ALL: x[None]}, {ALL: labels.long()})


def folder(path: Path | str, inputs: Inputs = IMAGENET, workers: int = 0) -> folders.Folder:
    """The images ``path/CLASS/*.jpg`` as a classifier sees them; see `folders.one_folder`, also for its errors."""
    return folders.one_folder(Path(path), ALL, workers).seen_by(inputs)


def of_timm(model: str, weights: str, path: Path | str, workers: int = 0) -> tuple[nn.Module, folders.Folder, dict]:
    """A timm model, the images of a folder as it sees them, and what `load` makes it from again.

    Where the folders of the classes are named by WordNet ids, its last layer keeps these classes of ImageNet's.

    weights : see `trustlib.models.pretrained`.

    Raises
    ------
    data.DataError, ValueError : as `pretrained.classifier`, `pretrained.imagenet_columns` and `folder`.
    """
    images = folder(path, Inputs(**pretrained.inputs(model, {}, weights)), workers)
    columns = pretrained.imagenet_columns(images.wnids) if images.wnids else None
    source = {"model": model, "weights": weights, "columns": columns, "inputs": asdict(images.inputs)}
    return pretrained.classifier(model, {}, weights, columns), images, source


def of_study(study: Study, log: Callable[[str], None] = print) -> tuple[nn.Module, Tensors]:
    """A study's first classifier, and the images that it did not learn from, as it sees them."""
    name = next(iter(study.networks))
    trained = steps.classifier(study, name).get(log)
    shown = study.images().seen_by(networks.inputs(study, name))
    x = torch.cat([shown.view(split, slice(None)) for split in ("heldout", "test")])
    labels = torch.cat([shown.labels[split] for split in ("heldout", "test")])
    classifier = networks.trained_classifier(study, name, trained, torch.device("cpu"))
    return classifier, Tensors({ALL: x[None]}, {ALL: labels})


def prepare(net: nn.Module, images: Images) -> Classifier:
    """A copy of a classifier that returns its features, tried on the first two images.

    Raises
    ------
    ClassifierError : when it does not take such images or return logits (B, K), when these are not what the last linear
        layer that it calls makes of features (B, d), or when a label is none of its classes.
    """
    net, kind, x = copy.deepcopy(net).cpu().eval(), type(net).__name__, images.view(ALL, slice(0, 2))
    calls: list[tuple[str, Tensor]] = []  # linear layers in the order in which it calls them, and what they take
    handles = [
        layer.register_forward_pre_hook(lambda _, taken, name=name: calls.append((name, taken[0])))
        for name, layer in net.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    expected = f"expected a classifier that takes {tuple(x.shape)} and returns logits (B, K)"
    try:
        with torch.inference_mode():
            logits = net(x)
    except Exception as error:  # whatever your module raises
        raise ClassifierError(f"{expected}; {kind} failed: {type(error).__name__}: {_line(error)}") from error
    for handle in handles:
        handle.remove()
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        returned = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ClassifierError(f"{expected}; {kind} returned {returned}")
    last, features = calls[-1] if calls else ("", torch.empty(0))
    with torch.inference_mode():
        again = net.get_submodule(last)(features) if features.ndim == 2 else features
    if again.shape != logits.shape or not torch.allclose(again, logits, rtol=1e-4, atol=1e-5):
        raise ClassifierError(
            f"expected a classifier whose last layer is nn.Linear, from features (B, d) to the logits; {kind} has "
            "others. Let it return the logits of one such layer, without a softmax after them"
        )
    labels, classes = images.labels[ALL], logits.shape[1]
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ClassifierError(
            f"{kind} has the classes 0 to {classes - 1}, found labels {labels.min()} to {labels.max()}"
        )
    if isinstance(images, folders.Folder) and len(images.classes) != classes:
        raise ClassifierError(
            f"{kind} has {classes:,} classes, {images.source} {len(images.classes):,}: expected a folder for each "
            "class, sorted as the classes are, or for a timm model of ImageNet folders named by WordNet ids"
        )
    return Classifier(net, last)


def outputs_of(net: Classifier, images: Images) -> dict[str, Tensor]:
    """A classifier's outputs for every image: correct, p_true, mcp (N,), logits (N, K), features (N, d)."""
    device = training.pick_device()
    return networks.observe(net.to(device).eval(), images.to(device), ALL)


def split(correct: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The images of each of `SPLITS`, int64, drawn at random.

    correct : bool (N,)

    Raises
    ------
    ClassifierError : when one has fewer than `FEWEST` correct or incorrect predictions.
    """
    order = torch.randperm(len(correct), generator=torch.Generator().manual_seed(seed))
    ends = [round(len(order) * share) for share in np.cumsum(list(SPLITS.values()))[:-1]]
    splits = dict(zip(SPLITS, order.tensor_split(ends), strict=True))
    for name, index in splits.items():
        n_correct = int(correct[index].sum())
        if min(n_correct, len(index) - n_correct) < FEWEST:
            raise ClassifierError(
                f"expected {FEWEST} correct and {FEWEST} incorrect predictions or more in each split, found "
                f"{n_correct:,} and {len(index) - n_correct:,} in the {name} set: more images are needed"
            )
    return splits


def fit(
    net: Classifier,
    images: Images,
    outputs: dict[str, Tensor],
    splits: dict[str, Tensor],
    method: Method,
    *,
    rates: Sequence[float],
    epochs: int,
    batch: int = 128,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> tuple[Oracle, pd.DataFrame]:
    """Train an oracle, started from the classifier's weights, once with each learning rate; keep the best.

    Parameters
    ----------
    net, images, outputs, splits : of `prepare`, `tensors` or `folder`, `outputs_of`, `split`.
    method : loss, its hyper-parameters, head; with a frozen backbone only the head is trained, on the features.
    batch : at most the training images.

    Returns
    -------
    oracle : in eval mode, on the CPU.
    tried : one row per learning rate: rate, auroc on the validation set, loss of the last epoch, chosen.
    """
    device, frozen = training.pick_device(), method.backbone == "frozen"
    images = (Tensors({ALL: outputs["features"][None]}, images.labels) if frozen else images).to(device)
    train, validation, correct = splits["train"], splits["validation"], outputs["correct"]
    entry = losses.LOSSES[method.loss]
    loss = partial(method.loss_function, **method.hyper, **entry.counted(correct[train]))
    rows, best = [], None
    for rate in rates:
        torch.manual_seed(seed)
        oracle = Oracle(copy.deepcopy(net), method.head)
        if frozen:
            oracle.head = Standardised(oracle.head, outputs["features"][train])
        learner = (oracle.head if frozen else oracle).to(device)
        recipe = Recipe(epochs=epochs, batch=min(batch, len(train)), rate=rate, weight_decay=0.0)
        history = training.train(
            learner, images, outputs[entry.target].to(device), loss, recipe, part=ALL, among=train, seed=seed,
            log=lambda _: None,
        )  # fmt: skip
        (z,) = training.predict(learner.eval(), images, ALL, among=validation)
        auroc = metrics.evaluate(z.numpy(), correct[validation].numpy())["auroc"]
        log(f"learning rate {rate:g}: loss {history[-1]['loss']:.4f}, AUROC {auroc:.2%} on the validation set")
        if best is None or auroc > max(row["auroc"] for row in rows):
            best = oracle.eval().cpu()
        rows.append({"rate": rate, "auroc": auroc, "loss": history[-1]["loss"]})
    tried = pd.DataFrame(rows)
    return best, tried.assign(chosen=tried.index == tried["auroc"].idxmax())


def predict(net: Oracle, images: Images, among: Tensor) -> NDArray[np.float32]:
    """An oracle's ``z`` of some images, (N,)."""
    device = training.pick_device()
    (z,) = training.predict(net.to(device).eval(), images.to(device), ALL, among=among)
    return z.numpy()


def save(path: Path, oracle: Oracle, method: Method, source: dict | None = None) -> None:
    """Write an oracle's weights, the whole network's, as safetensors; what it was made of in the header.

    source : of `of_timm`; without it `load` needs the classifier.
    """
    facts = {"source": source, "last": oracle.backbone.last, "method": method.model_dump()}
    # copies: layers may share a tensor, which safetensors refuses, and convolutions keep theirs with the channels last
    state = oracle.state_dict()
    weights = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
    with store.atomic(path) as scratch:
        save_file(weights, scratch, {"oracle": json.dumps(facts)})


def load(path: Path | str, classifier: nn.Module | None = None) -> Oracle:
    """An oracle that `save` wrote, in eval mode: inputs (B, ...) as the classifier takes them to ``z`` (B,).

    classifier : the classifier, where it is none of timm's.

    Raises
    ------
    ClassifierError : when the file holds no such oracle, or its classifier is needed.
    """
    try:
        with safe_open(path, "pt") as file:
            facts = json.loads((file.metadata() or {}).get("oracle", "{}"))
    except SafetensorError as error:
        raise ClassifierError(f"{path} is no safetensors file, or a damaged one ({_line(error)})") from None
    if "method" not in facts:
        raise ClassifierError(f"{path} holds no oracle that was saved here")
    source, method = facts["source"], Method(**facts["method"])
    if classifier is None and not source:
        raise ClassifierError(f"{path} does not say where its classifier comes from: give it, load(path, classifier)")
    if classifier is None:
        classifier = pretrained.classifier(source["model"], {}, source["weights"], source["columns"])
    oracle = Oracle(Classifier(copy.deepcopy(classifier), facts["last"]), method.head)
    if method.backbone == "frozen":
        oracle.head = Standardised(oracle.head, torch.zeros(2, oracle.backbone.head_hidden_size))
    oracle.load_state_dict(store.read_tensors(path))
    return oracle.eval()


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
