"""One loop for classifiers and oracles, and `predict`.

The same code runs on the CPU and on a GPU (there under bfloat16 autocast, losses in float32). Everything that is
drawn at random comes from the seed; with the same seed, the same thread count and the CPU, two runs give the same bits.
"""

import time
from collections.abc import Callable
from math import cos, pi

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .data import Images


class TrainingError(RuntimeError):
    """The loss left the real numbers; the message says in which epoch."""


def pick_device(device: str = "auto") -> torch.device:
    """ "auto" is the GPU where there is one, else the CPU. What is float32 is float32 there too, without TF32."""
    torch.backends.cudnn.allow_tf32 = False
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)


def set_threads(threads: int) -> None:
    """CPU threads of this process: fixed by the study, since sums in another order give other bits."""
    torch.set_num_threads(threads)


def train(
    model: nn.Module,
    data: Images,
    target: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    flip: bool,
    epochs: int,
    images: int | None = None,
    batch: int = 128,
    rate: float = 1e-3,
    weight_decay: float = 0.0,
    optimizer: str = "adamw",
    part: str = "train",
    among: Tensor | None = None,
    seed: int = 0,
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Train `model` in place and return its history.

    Parameters
    ----------
    model : images (B, C, H, W) to whatever `loss` takes, on its device.
    data : the image set, on the same device.
    target : (V, N) or (N,), what the loss compares with, for each view of each image of the part; V is 2 when the
        study flips (view 1 is the mirror image) and 1 otherwise. A 1-d target serves every view.
    loss : ``(output, target) -> tensor``; its mean is minimised.
    flip : show each image as it is or mirrored, at random.
    epochs, images, batch : passes over the first `images` of a seeded permutation (all by default), batch size.
        The last, smaller batch is left out.
    rate, weight_decay : highest learning rate, weight decay.
    optimizer : "adamw", with the rate warmed up over the first tenth of all steps and then lowered along a cosine to
        0; or "onecycle", the authors' (``src/train_oracle.py``): SGD under PyTorch's OneCycleLR, which cycles the
        momentum too, from 0.95 to 0.85 and back, warmed up over the same share of all steps as theirs.
    part, among : the part of the data to learn from, and the images of it, int64 (M,); all by default.
    seed : of the order, the flips and dropout.

    Returns
    -------
    One dict an epoch: epoch (from 1), loss (mean), seconds.

    Raises
    ------
    TrainingError : when the loss is NaN or infinite.
    """
    device = target.device
    torch.manual_seed(seed)  # dropout
    draw = torch.Generator().manual_seed(seed)  # order and flips: on the CPU, so that a GPU sees the same images
    among = torch.arange(len(data.images[part])) if among is None else among.cpu()
    subset = among[torch.randperm(len(among), generator=draw)[:images]]
    steps = len(subset) // batch
    if steps == 0:
        raise ValueError(f"train: a batch of {batch} is larger than the {len(subset)} training images")
    optimizer, schedule = _OPTIMIZERS[optimizer](model, rate, weight_decay, epochs * steps)
    target = target.expand(2, -1) if target.ndim == 1 else target  # (V, N)
    history = []
    model.train()
    for epoch in range(1, epochs + 1):
        start, total = time.perf_counter(), torch.zeros((), device=device)
        order = subset[torch.randperm(len(subset), generator=draw)].to(device)
        mirrored = (torch.rand(len(subset), generator=draw) < 0.5 if flip else torch.zeros(len(subset)).bool()).to(
            device
        )
        for index, mirror in zip(order.split(batch)[:steps], mirrored.split(batch)[:steps], strict=True):
            x = data.view(part, index, mirror if flip else False)  # (B, C, H, W)
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                output = model(x)
            value = loss(output.float(), target[mirror.long(), index]).mean()
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            schedule.step()
            total += value.detach()
        mean = (total / steps).item()  # one wait for the device an epoch
        if not torch.isfinite(total):
            raise TrainingError(f"the loss is {mean} in epoch {epoch} of {epochs} (rate {rate:g}, seed {seed})")
        history.append({"epoch": epoch, "loss": mean, "seconds": round(time.perf_counter() - start, 3)})
        log(f"epoch {epoch}/{epochs}  loss {mean:.4f}  {history[-1]['seconds']:.1f} s")
    return history


def _adamw(model: nn.Module, rate: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay, fused=True)
    warm = max(1, steps // 10)

    def scale(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 + 0.5 * cos(pi * (step - warm) / max(steps - warm, 1))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, scale)


RELEASED_WARMUP = 100 / 32_030  # steps, of all


def _onecycle(model: nn.Module, rate: float, weight_decay: float, steps: int) -> tuple[Optimizer, LRScheduler]:
    # The momentum given here is the one the cycle overwrites at once.
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.95, weight_decay=weight_decay)
    warmup = max(RELEASED_WARMUP, 2 / steps)  # the first step of the cycle at least
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=warmup)


_OPTIMIZERS = {"adamw": _adamw, "onecycle": _onecycle}


@torch.inference_mode()
def predict(
    function: Callable[[Tensor], Tensor | tuple[Tensor, ...]],
    data: Images,
    part: str,
    *,
    flip: bool = False,
    batch: int = 500,
) -> tuple[Tensor, ...]:
    """Outputs for every image of a part, in order, as float32 on the CPU.

    In float32 on every device: bfloat16 would round scores that are close to the same value.

    Parameters
    ----------
    function : images (B, C, H, W) to a tensor (B, ...) or a tuple of them. A module must be in eval mode already.
    part, flip : which images, and whether mirrored.

    Returns
    -------
    A tuple of tensors (N, ...).
    """
    outputs = []
    for start in range(0, len(data.images[part]), batch):
        output = function(data.view(part, slice(start, start + batch), flip))
        outputs.append(output if isinstance(output, tuple) else (output,))
    return tuple(torch.cat(column).float().cpu() for column in zip(*outputs, strict=True))
