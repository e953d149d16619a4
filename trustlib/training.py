"""One loop for classifiers and oracles, and `predict`.

The same code runs on the CPU and on a GPU (there, or where the recipe says so, under bfloat16 autocast with losses in
float32), on images in memory, in folders or on features. Everything that is drawn at random comes from the seed. With
the same seed, thread count and CPU two runs give the same bits, also when one was interrupted and resumed.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from math import cos, pi
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LambdaLR, LRScheduler, OneCycleLR

from .data import Batches
from .recipe import Recipe


class TrainingError(FloatingPointError):
    """The training diverged: a loss or an output is NaN or infinite. Raised for nothing else."""


def pick_device(device: str = "auto", *, tf32: bool = False) -> torch.device:
    """ "auto" is the GPU where there is one, else the CPU.

    tf32 : let a GPU round the factors of float32 products to 10 bits; what is float32 is float32 there otherwise.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def set_threads(threads: int) -> None:
    """CPU threads of this process: fixed by the study, since sums in another order give other bits."""
    torch.set_num_threads(threads)


class Checkpoints(Protocol):
    """Where the state of an unfinished training is kept, see `trustlib.runs.store.Checkpoints`."""

    def latest(self) -> dict | None: ...

    def due(self, steps: int) -> bool: ...

    def save(self, state: dict) -> None: ...


def train(
    model: nn.Module,
    data: Batches,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    recipe: Recipe,
    *,
    part: str = "train",
    among: Tensor | None = None,
    views: int = 1,
    seed: int = 0,
    compiled: bool = False,
    checkpoints: Checkpoints | None = None,
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
    recipe : epochs, batch, learning rate, optimizer.
    part, among : the part of the data to learn from, and the images of it, int64 (M,); all by default.
    views : V, how many views of an image the data has; one is drawn each time an image is shown. `Images` have 2, the
        image and its mirror image; `Features` as many as were extracted.
    seed : of the order, the views and dropout.
    compiled : by torch.compile: quicker on a GPU, after minutes of compiling; rounds otherwise.
    checkpoints : where to resume from, and where to save the state when that is due.

    Returns
    -------
    One dict an epoch: epoch (from 1), loss (mean), seconds.

    Raises
    ------
    TrainingError : when the mean loss of an epoch is NaN or infinite.
    ValueError : for a batch larger than the part, or fewer than 3 steps under "onecycle".
    """
    device = target.device
    torch.manual_seed(seed)  # dropout
    draw = torch.Generator().manual_seed(seed)  # order and views: on the CPU, so that a GPU sees the same images
    subset = training_images(data, part, among, recipe.images, draw)
    steps = len(subset) // recipe.batch  # of an epoch
    if steps == 0:
        raise ValueError(f"train: a batch of {recipe.batch} is larger than the {len(subset)} training images")
    _set_mode(model, recipe.frozen)
    optimizer, schedule = _optimizer(model, recipe, recipe.epochs * steps)
    stateful = {"model": model, "optimizer": optimizer, "schedule": schedule}
    done, total, history = _resumed(stateful, checkpoints, device)
    bfloat16 = device.type == "cuda" or recipe.bfloat16
    net: Any = torch.compile(model) if compiled else model  # a module either way
    target = target.expand(views, -1)  # (V, N)
    for epoch in range(1, recipe.epochs + 1):
        order = subset[torch.randperm(len(subset), generator=draw)].to(device)
        view_of = torch.randint(views, order.shape, generator=draw).to(device)
        corner = torch.zeros(len(order), 2, dtype=torch.long)
        if recipe.crop:
            corner.random_(2 * recipe.crop + 1, generator=draw)
        if epoch <= len(history):  # completed before an interruption
            continue
        start = time.perf_counter()
        first = done - (epoch - 1) * steps  # steps of this epoch that were taken before an interruption
        indices, shown, corners = (drawn.split(recipe.batch)[first:steps] for drawn in (order, view_of, corner))
        batches = data.batches(part, indices, shown if views > 1 else [0] * len(shown))
        for x, index, view, place in zip(batches, indices, shown, corners, strict=True):  # x (B, C, H, W)
            if recipe.crop:
                x = cropped(x, place.to(device), recipe.crop)
            with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                output = net(x)
            value = loss(output.float(), target[view, index]).mean()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.detach()
            done += 1
            if checkpoints and checkpoints.due(done):
                checkpoints.save(_state(stateful, done, total, history))
        mean = (total / steps).item()  # one wait for the device an epoch
        if not torch.isfinite(total):
            where = f"epoch {epoch} of {recipe.epochs} (rate {recipe.rate:g}, seed {seed})"
            raise TrainingError(f"the loss is {mean} in {where}")
        history.append({"epoch": epoch, "loss": mean, "seconds": round(time.perf_counter() - start, 3)})
        log(f"epoch {epoch}/{recipe.epochs}  loss {mean:.4f}  {history[-1]['seconds']:.1f} s")
        total = torch.zeros_like(total)
    return history


def cropped(x: Tensor, corner: Tensor, margin: int) -> Tensor:
    """A piece of each image (B, C, H, W), of its size, of the image padded by so many reflected pixels.

    corner : int64 (B, 2), row and column of its first pixel in the padded image, 0 to 2 `margin`.
    """
    padded = nn.functional.pad(x, [margin] * 4, mode="reflect").permute(0, 2, 3, 1)  # (B, H + 2 margin, ..., C)
    row, column = (corner[:, i, None] + torch.arange(x.shape[2 + i], device=x.device) for i in (0, 1))
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[image, row[:, :, None], column[:, None, :]].permute(0, 3, 1, 2)  # channels last in memory


def training_images(
    data: Batches, part: str, among: Tensor | None, images: int | None, draw: torch.Generator
) -> Tensor:
    """The images that `train` learns from, int64 (M,): the first `images` of a permutation of `among`."""
    among = torch.arange(len(data.labels[part])) if among is None else among.cpu()
    return among[torch.randperm(len(among), generator=draw)[:images]]


def _set_mode(model: nn.Module, in_eval_mode: str) -> None:
    """Training mode but for what stays in eval mode: "nothing"; "norm", batch norm; "noise", dropout as well."""
    model.train(in_eval_mode != "noise")
    if in_eval_mode == "norm":
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


def _state(stateful: dict, steps: int, total: Tensor, history: list[dict]) -> dict:
    """All that a training needs to go on to the same bits; of tensors, numbers, lists and dicts."""
    gpu = [torch.cuda.get_rng_state()] if total.device.type == "cuda" else []
    state = {name: thing.state_dict() for name, thing in stateful.items()}
    return state | {"steps": steps, "total": total.cpu(), "history": history, "noise": [torch.get_rng_state(), *gpu]}


def _resumed(stateful: dict, checkpoints: Checkpoints | None, device: torch.device) -> tuple[int, Tensor, list[dict]]:
    """(steps taken, sum of the losses of this epoch, history) of the latest checkpoint; zeros where there is none."""
    state = checkpoints.latest() if checkpoints else None
    if state is None:
        return 0, torch.zeros((), device=device), []
    for name, thing in stateful.items():
        thing.load_state_dict(state[name])
    cpu, *gpu = state["noise"]
    torch.set_rng_state(cpu)
    if gpu and device.type == "cuda":
        torch.cuda.set_rng_state(gpu[0])
    return state["steps"], state["total"].to(device), state["history"]


RELEASED_WARMUP = 100 / 32_030  # steps, of all


_OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "sgd": partial(torch.optim.SGD, momentum=0.9),
    "onecycle": partial(torch.optim.SGD, momentum=0.95),  # which the cycle overwrites at once
}


def _optimizer(model: nn.Module, recipe: Recipe, steps: int) -> tuple[Optimizer, LRScheduler]:
    """The optimizer of a recipe and the schedule of its learning rate over all steps, see `Recipe`."""
    make = _OPTIMIZERS[recipe.optimizer]
    optimizer = make(model.parameters(), lr=recipe.rate, weight_decay=recipe.weight_decay, fused=True)
    if recipe.optimizer == "adamw":
        return optimizer, LambdaLR(optimizer, _warm_cosine(steps))
    if recipe.optimizer == "onecycle":
        if steps < 3:
            raise ValueError(f"train: onecycle needs 3 steps at least, found {steps}: a smaller batch or more epochs")
        warmup = max(RELEASED_WARMUP, 2 / steps)  # the first step of the cycle at least
        return optimizer, OneCycleLR(optimizer, recipe.rate, total_steps=steps, pct_start=warmup)
    return optimizer, ConstantLR(optimizer, factor=1.0)


def _warm_cosine(steps: int) -> Callable[[int], float]:
    """Step (from 0) to the share of the highest learning rate: up over the first tenth, then along a cosine to 0."""
    warm = max(1, steps // 10)

    def scale(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 + 0.5 * cos(pi * (step - warm) / max(steps - warm, 1))

    return scale


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
    slices = [slice(start, min(start + batch, count)) for start in range(0, count, batch)]
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
