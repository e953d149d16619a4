"""One loop for classifiers and oracles, and `predict`.

The same code runs on the CPU and on a GPU (there under bfloat16 autocast, losses in float32), on images in memory, in
folders or on features. Everything that is drawn at random comes from the seed; with the same seed, the same thread
count and the CPU, two runs give the same bits, and so does one that was interrupted and went on.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from math import cos, pi
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .data import Batches


class TrainingError(RuntimeError):
    """The loss left the real numbers; the message says in which epoch."""


def pick_device(device: str = "auto", *, tf32: bool = False) -> torch.device:
    """ "auto" is the GPU where there is one, else the CPU.

    tf32 : let a GPU round the factors of float32 products to 10 bits; what is float32 is float32 there otherwise.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def set_threads(threads: int) -> None:
    """CPU threads of this process: fixed by the study, since sums in another order give other bits."""
    torch.set_num_threads(threads)


class Keeper(Protocol):
    """Where a training keeps its state so that it can go on, see `trustlib.runs.store.Checkpoints`."""

    def latest(self) -> dict | None: ...

    def due(self, steps: int) -> bool: ...

    def save(self, state: dict) -> None: ...


def train(
    model: nn.Module,
    data: Batches,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    views: int = 1,
    epochs: int,
    images: int | None = None,
    batch: int = 128,
    rate: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: str = "adamw",
    frozen: str = "nothing",
    part: str = "train",
    among: Tensor | None = None,
    seed: int = 0,
    compiled: bool = False,
    keeper: Keeper | None = None,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Train `model` in place and return its history.

    Parameters
    ----------
    model : images (B, C, H, W) to whatever `loss` takes, on its device.
    data : the image set, on the same device; anything with the `batches` of `data.Images`.
    target : (V, N) or (N,), what the loss compares with, for each view of each image of the part. A 1-d target serves
        every view.
    loss : ``(output, target) -> tensor`` of a whole batch; its mean is minimised.
    views : V, how many views of an image the data has: each time it is shown, one of them is drawn. `Images` have 2,
        the image and its mirror image; `Features` as many as were extracted.
    epochs, images, batch : passes over the first `images` of a seeded permutation (all by default), batch size.
        The last, smaller batch is left out.
    rate, weight_decay : highest learning rate, weight decay.
    optimizer : "adamw", with the rate warmed up over the first tenth of all steps and then lowered along a cosine to
        0; "adam" and "sgd" (momentum 0.9), at one rate throughout, as in ConfidNet; or "onecycle", the authors'
        (``src/train_oracle.py``): SGD under PyTorch's OneCycleLR, which cycles the momentum too, from 0.95 to 0.85 and
        back, warmed up over the same share of all steps as theirs.
    frozen : what stays as in eval mode: "nothing"; "norm", the statistics of batch norm; "noise", dropout too.
    part, among : the part of the data to learn from, and the images of it, int64 (M,); all by default.
    seed : of the order, the views and dropout.
    compiled : by torch.compile: quicker on a GPU, after minutes of compiling; rounds otherwise.
    keeper : where to look for a state to go on from and to keep one now and then.

    Returns
    -------
    One dict an epoch: epoch (from 1), loss (mean), seconds.

    Raises
    ------
    TrainingError : when the loss is NaN or infinite.
    ValueError : for a batch larger than the part.
    """
    device = target.device
    torch.manual_seed(seed)  # dropout
    draw = torch.Generator().manual_seed(seed)  # order and views: on the CPU, so that a GPU sees the same images
    subset = training_images(data, part, among, images, draw)
    steps = len(subset) // batch
    if steps == 0:
        raise ValueError(f"train: a batch of {batch} is larger than the {len(subset)} training images")
    _set_mode(model, frozen)
    optimizer, schedule = _OPTIMIZERS[optimizer](model, rate, weight_decay, epochs * steps)
    stateful = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done, total, history = _resumed(stateful, keeper, device)
    net: Any = torch.compile(model) if compiled else model  # a module either way
    target = target.expand(views, -1)  # (V, N)
    for epoch in range(1, epochs + 1):
        order = subset[torch.randperm(len(subset), generator=draw)].to(device)
        drawn = torch.randint(views, order.shape, generator=draw).to(device)
        first = done - (epoch - 1) * steps  # of this epoch's steps: all before were taken by a run that was interrupted
        if first >= steps:
            continue
        start = time.perf_counter()
        indices, which = (tensor.split(batch)[first:steps] for tensor in (order, drawn))
        x_batches = data.batches(part, indices, which if views > 1 else [0] * len(which))
        for x, index, view in zip(x_batches, indices, which, strict=True):  # x (B, C, H, W)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                output = net(x)
            value = loss(output.float(), target[view, index]).mean()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.detach()
            done += 1
            if keeper and keeper.due(done):
                _keep(stateful, keeper, done, total, history)
        mean = (total / steps).item()  # one wait for the device an epoch
        if not torch.isfinite(total):
            raise TrainingError(f"the loss is {mean} in epoch {epoch} of {epochs} (rate {rate:g}, seed {seed})")
        history.append({"epoch": epoch, "loss": mean, "seconds": round(time.perf_counter() - start, 3)})
        total = torch.zeros((), device=device)
        log(f"epoch {epoch}/{epochs}  loss {mean:.4f}  {history[-1]['seconds']:.1f} s")
    return history


def training_images(
    data: Batches, part: str, among: Tensor | None, images: int | None, draw: torch.Generator
) -> Tensor:
    """The images that `train` learns from, int64 (M,): the first `images` of a permutation of `among`."""
    among = torch.arange(len(data.labels[part])) if among is None else among.cpu()
    return among[torch.randperm(len(among), generator=draw)[:images]]


def _set_mode(model: nn.Module, frozen: str) -> None:
    model.train(frozen != "noise")
    if frozen == "norm":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _resumed(stateful: dict, keeper: Keeper | None, device: torch.device) -> tuple[int, Tensor, list[dict]]:
    """(steps taken, sum of this epoch's losses, history) of the state that was kept, if there is one."""
    state = keeper.latest() if keeper else None
    if state is None:
        return 0, torch.zeros((), device=device), []
    for name, thing in stateful.items():
        thing.load_state_dict(state[name])
    cpu, *gpu = state["noise"]
    torch.set_rng_state(cpu)
    if gpu and device.type == "cuda":
        torch.cuda.set_rng_state(gpu[0])
    return state["steps"], state["total"].to(device), state["history"]


def _keep(stateful: dict, keeper: Keeper, steps: int, total: Tensor, history: list[dict]) -> None:
    gpu = [torch.cuda.get_rng_state()] if total.device.type == "cuda" else []
    noise = [torch.get_rng_state(), *gpu]
    state = {name: thing.state_dict() for name, thing in stateful.items()}
    keeper.save(state | {"steps": steps, "total": total.cpu(), "history": history, "noise": noise})


def _adamw(model: nn.Module, rate: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay, fused=True)
    warm = max(1, steps // 10)

    def scale(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 + 0.5 * cos(pi * (step - warm) / max(steps - warm, 1))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, scale)


def _adam(model: nn.Module, rate: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = torch.optim.Adam(model.parameters(), lr=rate, weight_decay=weight_decay, fused=True)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def _sgd(model: nn.Module, rate: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=weight_decay, fused=True)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


RELEASED_WARMUP = 100 / 32_030  # steps, of all


def _onecycle(model: nn.Module, rate: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    if steps < 3:
        raise ValueError(f"train: onecycle needs 3 steps at least, found {steps}: a smaller batch or more epochs")
    # The momentum given here is the one the cycle overwrites at once.
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.95, weight_decay=weight_decay, fused=True)
    warmup = max(RELEASED_WARMUP, 2 / steps)  # the first step of the cycle at least
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=warmup)


_OPTIMIZERS = {"adamw": _adamw, "adam": _adam, "sgd": _sgd, "onecycle": _onecycle}


@torch.inference_mode()
def predict(
    function: Callable[..., Tensor | tuple[Tensor, ...]],
    data: Batches,
    part: str,
    *,
    view: int = 0,
    among: Tensor | None = None,
    labelled: bool = False,
    batch: int | None = None,
) -> tuple[Tensor, ...]:
    """Outputs for every image of a part, in order, on the CPU.

    In float32 on every device: bfloat16 would round scores that are close to the same value.

    Parameters
    ----------
    function : images (B, C, H, W) to a tensor (B, ...) or a tuple of them. A module must be in eval mode already.
    part, view : which images, and which view of them.
    among : of the part, int64 (M,); all by default.
    labelled : give the function the labels (B,) too.
    batch : by default 500 small images; fewer large ones, since a CPU works quickest within its cache.

    Returns
    -------
    A tuple of tensors (N, ...).
    """
    count = len(data.labels[part]) if among is None else len(among)
    batch = batch or _fitting(data, part)
    edges = [*range(0, count, batch), count]
    slices = list(itertools.starmap(slice, itertools.pairwise(edges)))
    wanted: Sequence[Tensor | slice] = slices
    if among is not None:
        wanted = [among[index].to(data.labels[part].device) for index in slices]
    outputs = []
    for x, index in zip(data.batches(part, wanted, [view] * len(wanted)), wanted, strict=True):
        output = function(x, data.labels[part][index]) if labelled else function(x)
        outputs.append([column.cpu() for column in (output if isinstance(output, tuple) else (output,))])
    return tuple(torch.cat(column) for column in zip(*outputs, strict=True))


def _fitting(data: Batches, part: str) -> int:
    inputs = getattr(data, "inputs", None)  # features have none
    side = inputs.size if inputs else None
    if side is None:
        return 500
    return 256 if data.labels[part].device.type == "cuda" else max(16, 1_000_000 // side**2)
