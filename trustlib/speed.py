"""What training and data loading cost: steps of the training loop, and of others, to be timed in turn."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from . import folders, losses, oracle, training
from .data import Images, Inputs

# Dense FLOP/s in bfloat16 by the makers' data sheets; the first whose words are all in the card's name counts.
PEAKS = {
    "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12,
    "RTX 4090": 165e12,
}  # fmt: skip
PARTIAL = {"MIG", "Laptop", "D"}  # a card of which this is a part, or a slower one of the same name
PHOTO = (500, 375)  # pixels, as ImageNet's commonest size
RATE = 1e-6  # of the optimisers: what is learnt from noise must stay finite

Run = Callable[[], object]


def alternate(ways: dict[str, Run], rounds: int, clock: Callable[[], float] = time.perf_counter) -> pd.DataFrame:
    """Seconds of each way, a column, in each round, a row: A B A B ..., after one run of each that does not count."""
    for way in ways.values():
        way()
    rows = []
    for _ in range(rounds):
        rows.append({})
        for name, way in ways.items():
            start = clock()
            way()
            rows[-1][name] = clock() - start
    return pd.DataFrame(rows)


def spread(values: pd.DataFrame) -> pd.DataFrame:
    """Median and quartiles of each column: a row each, with the columns median, low and high."""
    return values.quantile([0.5, 0.25, 0.75]).set_axis(["median", "low", "high"]).T


def flops(net: nn.Module, shape: Sequence[int]) -> float:
    """Floating-point operations of one image's forward pass, two for a multiplication and an addition.

    A training step is three of them, by arithmetic: torch counts those of a depthwise convolution's backward pass
    as if all its channels were connected.

    net : on the device "meta", which computes nothing.
    shape : (C, H, W)
    """
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(2, *shape, device="meta"))
    return counter.get_total_flops() / 2


def peak_of(card: str) -> float | None:
    """The card's peak in bfloat16, FLOP/s, by its name; None where it is not known."""
    words = set(re.split("[ -]", card))
    known = (peak for name, peak in PEAKS.items() if set(name.split()) <= words)
    return None if words & PARTIAL else next(known, None)


# --- Training ---


def noise(count: int, shape: Sequence[int], device: torch.device | str = "cpu", seed: int = 0) -> Images:
    """Images of uniform noise, uint8 (count, *shape), as the training part, their labels right or wrong at random."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=draw)
    half = (0.5,) * shape[0]
    labels = torch.randint(0, 2, (count,), generator=draw)
    images = Images({"train": x}, {"train": labels}, ("wrong", "right"), "noise", {}, inputs=Inputs(half, half))
    return images.to(device)


@dataclass
class Judged:
    """An image set whose classifier, frozen, runs forward on every batch: as released, where nothing is cached."""

    images: Images
    classifier: nn.Module
    autocast: bool = False
    correct: Tensor | None = field(default=None, init=False)  # of the last batch

    @property
    def labels(self) -> dict[str, Tensor]:
        return self.images.labels

    def batches(self, part: str, index: Sequence[Tensor | slice], views: Sequence[Tensor | int]) -> Iterator[Tensor]:
        for rows, x in zip(index, self.images.batches(part, index, views), strict=True):
            with torch.no_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=self.autocast):
                self.correct = self.classifier(x).argmax(1) == self.labels[part][rows]
            yield x


class Float32(nn.Module):
    """A network that no autocast reaches."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.net(x)


def steps(
    net: nn.Module, images: Images, *, batch: int, count: int, judge: nn.Module | None = None, autocast: bool = False,
    tf32: bool = False, **recipe,
) -> Run:  # fmt: skip
    """A function that takes `count` steps of `training.train` on the first `batch` images and waits for their end.

    judge : a classifier that runs forward in every step; without one the labels are read, as from the cache.
    autocast : for the classifier, in bfloat16.
    tf32, recipe : of `training.pick_device` and `training.train`.
    """
    judged = Judged(images, judge.eval().requires_grad_(False), autocast) if judge else None
    target = images.labels["train"] == 1

    def loss(z: Tensor, cached: Tensor) -> Tensor:
        return losses.cross_entropy(z, judged.correct if judged else cached)

    def run() -> list[dict]:
        training.pick_device(str(target.device), tf32=tf32)
        torch.backends.cudnn.benchmark = False
        return training.train(net, judged or images, target, loss, **settings)

    settings: dict[str, Any] = {"views": 2, "epochs": 1, "batch": batch, "rate": RATE, "log": lambda _: None} | recipe
    settings["among"] = torch.arange(batch).repeat(count)
    return run


def timm_steps(net: nn.Module, images: Images, *, batch: int, count: int) -> Run:
    """The same as timm's ``train.py`` does it in bfloat16 (``--amp --amp-dtype bfloat16 --channels-last``)."""
    from timm.optim import create_optimizer_v2

    net, device = net.to(memory_format=torch.channels_last), images.labels["train"].device
    index = torch.arange(batch, device=device)

    def run() -> None:
        training.pick_device(str(device), tf32=True)
        torch.backends.cudnn.benchmark = True  # both as train.py sets them
        optimizer = create_optimizer_v2(net.train(), opt="adamw", lr=RATE, weight_decay=0.0)
        for _ in range(count):
            x = images.view("train", index, torch.rand(batch, device=device) < 0.5)
            x = x.contiguous(memory_format=torch.channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = F.binary_cross_entropy_with_logits(net(x), images.labels["train"][index].float())
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

    return run


def parts(net: nn.Module, images: Images, *, batch: int, count: int) -> dict[str, Run]:
    """What a step consists of: a classifier's forward pass, an oracle's, both its passes, and `count` whole steps.

    net : without a classification head; it is trained.
    """
    x, judge, learner = images.view("train", slice(batch)), deepcopy(net).eval(), oracle.Oracle(net, "linear")
    return {
        "forward, eval": torch.no_grad()(lambda: judge(x)),
        "forward, train": lambda: learner.train()(x),
        "and backward": lambda: learner.train()(x).sum().backward(),
        "whole step": steps(learner, images, batch=batch, count=count),
    }


WAYS = (
    "here", "here, compiled", "here, classifier in every step", "timm", "as released, TF32", "as released, float32"
)  # fmt: skip


def rivals(model: str, args: dict, images: Images, *, batch: int, count: int) -> dict[str, Callable[[], Run]]:
    """`WAYS` to take steps of an oracle that judges a classifier of its own kind: for each a function that builds it.

    The released code is taken to be in float32 with the optimiser of its script, the channels first; TF32 is what
    PyTorch of its time used by default on the cards that have it.
    """
    device = images.labels["train"].device
    settings: dict[str, Any] = {"images": images, "batch": batch, "count": count}

    def judge() -> nn.Module:
        with device:  # weights are drawn there many times faster
            return oracle.build_backbone(model, args)

    def learner() -> nn.Module:
        return oracle.Oracle(judge(), "linear").to(device)

    def compiled() -> Run:
        torch.compiler.reset()  # what was compiled for another batch must not make this one's shape dynamic
        net: Any = torch.compile(learner(), dynamic=False)  # still a module
        return steps(net, **settings)

    def released(tf32: bool) -> Run:
        nets = [net.to(memory_format=torch.contiguous_format) for net in (learner(), judge())]
        return steps(Float32(nets[0]), judge=nets[1], tf32=tf32, optimizer="onecycle", **settings)

    builds = (
        lambda: steps(learner(), **settings),
        compiled,
        lambda: steps(learner(), judge=judge(), autocast=device.type == "cuda", **settings),
        lambda: timm_steps(learner(), **settings),
        lambda: released(True),
        lambda: released(False),
    )
    return dict(zip(WAYS, builds, strict=True))


def first_run(build: Callable[[], Run], device: torch.device) -> tuple[Run | None, float]:
    """A way, run once, and the most memory in bytes that it and its networks took; (None, NaN) where it is too little.

    On a CPU memory is not measured: NaN.
    """
    if device.type != "cuda":
        way = build()
        way()
        return way, np.nan
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        way = build()
        way()
        return way, torch.cuda.max_memory_allocated(device) - before
    except (training.TrainingError, torch.cuda.OutOfMemoryError) as error:
        if "memory" not in str(error):
            raise
    torch.cuda.empty_cache()
    return None, np.nan


# --- Data loading ---


def photographs(folder: Path, count: int, seed: int = 0) -> list[Path]:
    """JPEG files like photographs in size, `PHOTO` pixels and about 100 kB: smooth fields of colour and noise."""
    rng, paths = np.random.default_rng(seed), []
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 10, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize(PHOTO, Image.Resampling.BICUBIC)) + rng.normal(0, 20, (PHOTO[1], PHOTO[0], 3))
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def photo_set(paths: Sequence[Path], inputs: Inputs, workers: int = 0) -> folders.Folder:
    """The files as a test part, without classes."""
    labels = torch.zeros(len(paths), dtype=torch.long)
    return folders.Folder(
        {"test": tuple(map(str, paths))}, {"test": labels}, ("any",), "photographs", {}, inputs=inputs, workers=workers
    )


def stages(paths: Sequence[Path], inputs: Inputs) -> dict[str, Run]:
    """Reading and decoding the files alone; each of the others does one thing more, all in this process."""
    files = list(map(str, paths))
    return {
        "decode": lambda: [folders._rgb(file).size for file in files],
        "resize": lambda: [folders._fitted(folders._rgb(file), inputs).size for file in files],
        "copy": partial(photo_set(paths, inputs).pixels, "test", slice(None)),
        "normalise": partial(photo_set(paths, inputs).view, "test", slice(None)),
    }


def loading(paths: Sequence[Path], inputs: Inputs, workers: int, batch: int) -> Run:
    """All batches of the files, as the training loop asks for them, their decoding done by workers."""
    images = photo_set(paths, inputs, workers)
    index = [slice(start, start + batch) for start in range(0, len(paths), batch)]
    return lambda: sum(len(x) for x in images.batches("test", index, [False] * len(index)))
