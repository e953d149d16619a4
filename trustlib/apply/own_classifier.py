"""An oracle for your own classifier: any timm model, or any module that an import path names.

The images must be ones that the classifier did not learn from: on those it did it is right more often than on new ones,
and an oracle that learns from them learns too little about mistakes (`results/fashion`, ablation *labels*). They are
drawn into three parts: most teach the oracle, some choose its learning rate, the rest judge it once.
"""

import copy
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from safetensors.torch import save_file
from torch import Tensor, nn

from .. import data, losses, metrics, oracle, training
from ..analysis import compare
from ..data import Features, Inputs, folders
from ..models import backbone, pretrained
from ..recipe import Recipe
from ..runs import networks, steps, store
from ..study import Method, Study

ALL = "all"  # the one part of a set here
PARTS = {"learn": 0.6, "choose": 0.1, "judge": 0.3}  # shares of the images
FEWEST = 5  # correct and incorrect predictions each, in every part
IMAGENET = Inputs((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224, interpolation="bilinear")  # torchvision's


class ClassifierError(ValueError):
    """A classifier, or images, of which no oracle can be made; the message says what was expected and found."""


class Classifier(nn.Module):
    """Any module whose logits are made by its last linear layer, with the methods that `oracle` asks of timm's models.

    Parameters
    ----------
    net : inputs (B, ...) to logits (B, K). It is copied, and its last `nn.Linear` taken apart from it.

    Raises
    ------
    ClassifierError : when it has no linear layer.
    """

    def __init__(self, net: nn.Module):
        super().__init__()
        net = copy.deepcopy(net)
        linear = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear)]
        if not linear:
            raise ClassifierError(f"expected a classifier whose last layer is nn.Linear, found none in {_kind(net)}")
        name, last = linear[-1]
        self.classifier: nn.Module = last
        if name:
            net.set_submodule(name, nn.Identity())
        else:  # a linear layer is all that it is
            net = nn.Identity()
        self.net, self.head_hidden_size = net, last.in_features

    def forward_features(self, x: Tensor) -> Tensor:
        return self.net(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.net(x))

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int) -> None:
        self.classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()


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
    """Images as a classifier takes them, (1, N, ...); `inputs` says how large they are, for the size of a batch."""

    @property
    def inputs(self) -> Inputs | None:
        shape = self.features[ALL].shape
        return Inputs((), (), shape[-1]) if len(shape) == 5 else None


Images = folders.Folder | Tensors


@dataclass(frozen=True)
class Source:
    """Where a classifier comes from: `load` needs no more to make it again.

    name : in timm; or MODULE:FUNCTION, a function without arguments (or a class) that returns a `torch.nn.Module`;
        empty for one that is not to be had so
    weights : of a timm model, see `trustlib.models.pretrained`; of a module, a checkpoint's path, or empty where the
        function returns it trained
    inputs : what it sees of an image in a folder; a timm model's own by default, ImageNet's customary ones of a module
    columns : of a timm model's classes those that the images have, in their order; all by default
    """

    name: str
    weights: str = ""
    inputs: Inputs | None = None
    columns: tuple[int, ...] | None = None

    def build(self) -> nn.Module:
        """The classifier in eval mode on the CPU: inputs (B, ...) to logits (B, K).

        Raises
        ------
        ClassifierError : when the path leads to no module, or a checkpoint does not fit.
        data.DataError, ValueError : of a timm model, see `pretrained.classifier`.
        """
        if ":" not in self.name:
            return pretrained.classifier(self.name, {}, self.weights or "timm", self.columns)
        net = _imported(self.name)
        if self.weights:
            path = data.root() / Path(self.weights).expanduser()
            try:
                net.load_state_dict(pretrained.read(path))
            except RuntimeError as error:  # torch's, which names the tensors
                why = " ".join(str(error).split())[:400]
                raise ClassifierError(f"{path} does not fit {self.name}: {why}") from None
        return net.eval()


def images(path: Path | str, source: Source, workers: int = 0) -> tuple[Images, Source]:
    """Labelled images of one part, `ALL`, and the classifier's source with what it sees of them.

    Parameters
    ----------
    path : a folder of images, ``CLASS/*.jpg``; or an .npz or .safetensors with the arrays ``images`` (N, ...), numbers
        just as the classifier takes them, normalised already, and ``labels``, whole numbers (N,) from 0.
    workers : processes that decode images of a folder.

    Raises
    ------
    ClassifierError : when it is something else, or an array is missing or of another shape.
    data.DataError : when the folder has no images, or its classes are not the classifier's.
    """
    if not str(path):
        raise ClassifierError("expected images: a folder, an .npz or a .safetensors, found none named")
    path = Path(path)
    if path.is_dir():
        found = folders.one_folder(path, ALL, workers)
        if ":" in source.name:
            source = replace(source, inputs=source.inputs or IMAGENET)
        else:
            inputs = source.inputs or Inputs(**pretrained.inputs(source.name, {}, source.weights or "timm"))
            columns = pretrained.imagenet_columns(found.wnids) if found.wnids else None
            source = replace(source, inputs=inputs, columns=None if columns is None else tuple(columns))
        return found.seen_by(source.inputs), source
    arrays = _arrays(path)
    x, labels = (torch.from_numpy(np.ascontiguousarray(arrays[name])) for name in ("images", "labels"))
    return Tensors({ALL: x[None]}, {ALL: labels.long()}), source


def of_study(study: Study, log: Callable[[str], None] = print) -> tuple[nn.Module, Tensors]:
    """A study's first classifier, and the images that it did not learn from, as it sees them."""
    name = next(iter(study.networks))
    trained = steps.classifier(study, name).get(log)
    seen = study.images().seen_by(networks.inputs(study, name))
    x = torch.cat([seen.view(part, slice(None)) for part in ("heldout", "test")])
    labels = torch.cat([seen.labels[part] for part in ("heldout", "test")])
    classifier = networks.trained_classifier(study, name, trained, torch.device("cpu"))
    return classifier, Tensors({ALL: x[None]}, {ALL: labels})


def understood(net: nn.Module, images: Images) -> nn.Module:
    """The classifier with timm's methods, tried on the first images: a `Classifier` where it is no timm model.

    Raises
    ------
    ClassifierError : when it does not take such images, does not return logits (B, K), its logits are not made by its
        last linear layer, or a label is none of its classes.
    """
    x = images.view(ALL, slice(0, 2))
    expected = f"expected a classifier that takes {tuple(x.shape)} and returns logits (B, K)"
    try:
        with torch.inference_mode():
            logits = net(x)
    except Exception as error:  # whatever your module raises
        raise ClassifierError(f"{expected}; {_kind(net)} failed: {type(error).__name__}: {_line(error)}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ClassifierError(f"{expected}; {_kind(net)} returned {found}")
    known = _with_methods(net)
    with torch.inference_mode():
        features, again = backbone.classify(known, x)
    if features.ndim != 2 or again.shape != logits.shape or not torch.allclose(again, logits, rtol=1e-4, atol=1e-5):
        raise ClassifierError(
            f"expected a classifier whose logits are made by its last nn.Linear, from features (B, d); the last one of "
            f"{_kind(net)} makes something else. Let it return its logits, without a softmax after them"
        )
    labels, classes = images.labels[ALL], logits.shape[1]
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ClassifierError(
            f"labels lie between 0 and {classes - 1}, the classes of {_kind(net)}; found {labels.min()} to "
            f"{labels.max()}"
        )
    if isinstance(images, folders.Folder) and len(images.classes) != classes:
        raise ClassifierError(
            f"{_kind(net)} has {classes:,} classes, {images.source} {len(images.classes):,}: expected a folder for "
            "each class, sorted as the classes are, or for a timm model of ImageNet folders named by WordNet ids"
        )
    return known


def look(net: nn.Module, images: Images) -> dict[str, Tensor]:
    """What a classifier says of every image: correct, p_true, mcp (N,), logits (N, K), features (N, d)."""
    device = training.pick_device()
    return networks.observe(net.to(device).eval(), _on(images, device), ALL)


def drawn(correct: Tensor, seed: int = 0) -> dict[str, Tensor]:
    """The images of each of `PARTS`, int64, drawn at random.

    correct : bool (N,)

    Raises
    ------
    ClassifierError : when a part has fewer than `FEWEST` right or incorrect predictions.
    """
    order = torch.randperm(len(correct), generator=torch.Generator().manual_seed(seed))
    ends = [round(len(order) * share) for share in np.cumsum(list(PARTS.values()))[:-1]]
    parts = dict(zip(PARTS, order.tensor_split(ends), strict=True))
    for name, index in parts.items():
        right = int(correct[index].sum())
        if min(right, len(index) - right) < FEWEST:
            raise ClassifierError(
                f"expected {FEWEST} right and {FEWEST} incorrect predictions or more in each part, found {right:,} and "
                f"{len(index) - right:,} in the {len(index):,} images to {name} from: more images are needed"
            )
    return parts


def fit(
    net: nn.Module,
    images: Images,
    seen: dict[str, Tensor],
    parts: dict[str, Tensor],
    arm: Method,
    *,
    rates: Sequence[float],
    epochs: int,
    batch: int = 128,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> tuple[oracle.Oracle, pd.DataFrame]:
    """Train an oracle, started from the classifier's own weights, once with each rate; keep the one that ranks best.

    Parameters
    ----------
    net, images, seen, parts : of `understood`, `images`, `look`, `drawn`.
    arm : loss, its hyper-parameters, head; a frozen backbone trains the head only, from `seen`'s features.
    batch : at most the images to learn from.

    Returns
    -------
    oracle : in eval mode, on the CPU.
    tried : one row per rate: rate, auroc on the images to choose from, loss of the last epoch, chosen.
    """
    device, frozen = training.pick_device(), arm.backbone == "frozen"
    images = _on(Features({ALL: seen["features"][None]}, images.labels) if frozen else images, device)
    learn = parts["learn"]
    entry = losses.LOSSES[arm.loss]
    target = seen[entry.target].to(device)
    loss = partial(arm.loss_function, **arm.hyper, **entry.counted(seen["correct"][learn]))
    rows, best = [], None
    for rate in rates:
        torch.manual_seed(seed)
        made = oracle.Oracle(copy.deepcopy(net), arm.head)
        if frozen:
            made.head = Standardised(made.head, seen["features"][learn])
        learner = (made.head if frozen else made).to(device)
        recipe = Recipe(epochs=epochs, batch=min(batch, len(learn)), rate=rate, weight_decay=0.0)
        history = training.train(
            learner, images, target, loss, recipe, part=ALL, among=learn, seed=seed, log=lambda _: None
        )
        (z,) = training.predict(learner.eval(), images, ALL, among=parts["choose"])
        auroc = metrics.evaluate(z.numpy(), seen["correct"][parts["choose"]].numpy())["auroc"]
        log(f"rate {rate:g}: loss {history[-1]['loss']:.4f}, AUC {auroc:.2%} on the images to choose from")
        if best is None or auroc > max(row["auroc"] for row in rows):
            best = made.eval().cpu()
        rows.append({"rate": rate, "auroc": auroc, "loss": history[-1]["loss"]})
    tried = pd.DataFrame(rows)
    return best, tried.assign(chosen=tried.index == tried["auroc"].idxmax())


def ask(net: oracle.Oracle, images: Images, among: Tensor) -> NDArray:
    """An oracle's ``z`` of some images, float32 (N,)."""
    device = training.pick_device()
    (z,) = training.predict(net.to(device).eval(), _on(images, device), ALL, among=among)
    return z.numpy()


def write_scores(path: Path, logits: Tensor, labels: Tensor, z: NDArray, classes: Sequence[str]) -> None:
    """What `predictions.read` reads: the classifier's logits (N, K), labels (N,), and the oracle's z (N,)."""
    names = np.array(classes, dtype=str)
    with store.atomic(path) as scratch, open(scratch, "wb") as file:
        np.savez(file, logits=logits.numpy(), labels=names[labels.numpy()], classes=names, oracle=z)


def verdict(judged: pd.DataFrame, name: str = "oracle", base: str = "MCP") -> str:
    """Does an oracle rank better than the classifier's own confidence? One sentence.

    judged : of `predictions.judge`, with `base` as its first score.
    """
    rows = judged[judged["metric"] == "auroc"].set_index("score")
    rows = rows[["estimate", "low", "high", *compare.DIFFERENCE]] * 100
    own, other = rows.loc[name], rows.loc[base]
    if own["difference_low"] > 0:
        found = f"The oracle ranks significantly better than {base}"
    elif own["difference_high"] < 0:
        found = f"The oracle does not beat {base}: it ranks worse"
    else:
        found = f"The oracle does not rank significantly better than {base}"
    return (
        f"{found}. AUC {own['estimate']:.2f} [{own['low']:.2f}, {own['high']:.2f}] against {other['estimate']:.2f} "
        f"[{other['low']:.2f}, {other['high']:.2f}], difference {own['difference']:+.2f} "
        f"[{own['difference_low']:+.2f}, {own['difference_high']:+.2f}]."
    )


def save(path: Path, net: oracle.Oracle, arm: Method, source: Source) -> None:
    """Write an oracle's weights, the whole network's, as safetensors; what it was made of in the header."""
    said = {"source": asdict(source), "arm": arm.model_dump()}
    # copies: layers may share a tensor, which safetensors refuses, and convolutions keep theirs with the channels last
    weights = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in net.state_dict().items()}
    with store.atomic(path) as scratch:
        save_file(weights, scratch, {"oracle": json.dumps(said)})


def load(path: Path | str, classifier: nn.Module | None = None) -> oracle.Oracle:
    """An oracle that `save` wrote, in eval mode: inputs (B, ...) as the classifier takes them to ``z`` (B,).

    classifier : the classifier, where it is neither timm's nor to be imported.

    Raises
    ------
    ClassifierError : when the file is no such oracle, or its classifier is needed.
    """
    try:
        with safe_open(path, "pt") as file:
            said = json.loads((file.metadata() or {}).get("oracle", "null"))
    except SafetensorError as error:
        raise ClassifierError(f"{path} is no safetensors file, or a damaged one ({_line(error)})") from None
    if said is None:
        raise ClassifierError(f"{path} holds no oracle that was saved here")
    inputs = said["source"]["inputs"]
    source = Source(**said["source"] | {"inputs": inputs and Inputs(**inputs)})
    arm, weights = Method(**said["arm"]), store.read_tensors(path)
    if classifier is None and not source.name:
        raise ClassifierError(f"{path} does not say where its classifier comes from: give it, load(path, classifier)")
    known = _with_methods(source.build() if classifier is None else classifier)
    net = oracle.Oracle(copy.deepcopy(known), arm.head)
    if arm.backbone == "frozen":
        net.head = Standardised(net.head, torch.zeros(2, net.backbone.head_hidden_size))
    net.load_state_dict(weights)
    return net.eval()


def _imported(name: str) -> nn.Module:
    module, _, function = name.partition(":")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # a file beside the notebook's run
    try:
        made = getattr(importlib.import_module(module), function)()
    except Exception as error:  # whatever your code raises
        raise ClassifierError(
            f"{name}: expected MODULE:FUNCTION, a function without arguments that returns a torch.nn.Module, of a "
            f"module that Python finds from {os.getcwd()}; found {type(error).__name__}: {_line(error)}"
        ) from error
    if not isinstance(made, nn.Module):
        raise ClassifierError(f"{name}() is to return a torch.nn.Module, found {type(made).__name__}")
    return made


def _arrays(path: Path) -> dict[str, NDArray]:
    try:
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        elif path.suffix == ".safetensors":
            arrays = load_file(path)
        else:
            raise ClassifierError(f"expected a folder, an .npz or a .safetensors, found {path}")
    except ClassifierError:
        raise
    except Exception as error:  # zipfile, NumPy and safetensors raise many kinds
        raise ClassifierError(f"{path} cannot be read as {path.suffix}: {_line(error)}") from None
    if missing := [name for name in ("images", "labels") if name not in arrays]:
        raise ClassifierError(f"{path}: expected arrays images and labels, found {', '.join(arrays)}; no {missing[0]}")
    x, labels = arrays["images"], arrays["labels"]
    if labels.ndim != 1 or x.ndim < 2 or len(x) != len(labels) or labels.dtype.kind not in "iu":
        raise ClassifierError(
            f"{path}: expected images (N, ...) and whole labels (N,), found images {x.shape} and labels {labels.shape} "
            f"of {labels.dtype}"
        )
    if x.dtype.kind not in "fiu" or not np.isfinite(x).all():
        raise ClassifierError(f"{path}: expected finite numbers in images, found {x.dtype} or NaN among them")
    return arrays


def _with_methods(net: nn.Module) -> nn.Module:
    timms = all(hasattr(net, name) for name in ("forward_features", "forward_head", "reset_classifier"))
    return net if timms else Classifier(net).eval()


def _on(images: Images | Features, device: torch.device) -> Images | Features:
    if isinstance(images, folders.Folder):
        return images.to(device)
    return replace(images, labels={ALL: images.labels[ALL].to(device)}, device=device)


def _kind(net: nn.Module) -> str:
    return type(net).__name__


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
