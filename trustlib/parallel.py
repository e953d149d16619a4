"""Several processes that train one network together: torch.distributed, started by torchrun.

One process, the default, needs none of this: every function then returns what it was given. Each of several processes
runs the same code on its share of every batch; what is drawn at random, the order of the images and their views, comes
from one seed and is the same in all of them, so that a result does not depend on how many there are.
"""

import os
import subprocess
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Disagreement(RuntimeError):
    """Processes that should do the same were given different things; the message says which."""


def start(gpu: bool) -> None:
    """Join the others where torchrun started this process; does nothing in a process that runs alone.

    gpu : each process takes a GPU of its machine, the one of its number there.

    Raises
    ------
    ValueError : when the machine has fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", 1)) == 1 or dist.is_initialized():
        return
    if gpu:
        here, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if here >= there:
            raise ValueError(
                f"each process needs a GPU of its own: this is the {here + 1}. of its machine, which has {there}. "
                "In the study's YAML processes: auto starts as many as there are; device: cpu needs none"
            )
        torch.cuda.set_device(here)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    """Which of the processes this is, 0 the first."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def share(count: int) -> slice:
    """Which of `count` things, in order, are this process's; all shares differ by one at most."""
    return slice(rank() * count // world(), (rank() + 1) * count // world())


def gathered(part: Tensor) -> Tensor:
    """The parts (b, ...) of all processes, all of one shape, one after the other; gradients flow through one's own."""
    if world() == 1:
        return part
    parts = [torch.empty_like(part) for _ in range(world())]
    dist.all_gather(parts, part.detach().contiguous())
    parts[rank()] = part
    return torch.cat(parts)


def gathered_rows(rows: Tensor, count: int) -> Tensor:
    """The shares (see `share`) of `count` rows that the processes hold, on the CPU, one after the other."""
    if world() == 1:
        return rows
    longest = -(-count // world())
    padded = torch.zeros((longest, *rows.shape[1:]), dtype=rows.dtype)
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in range(world())]
    dist.all_gather(parts, padded)
    sizes = [(r + 1) * count // world() - r * count // world() for r in range(world())]
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


def from_first(value: Any) -> Any:
    """What the first process holds, in all of them. Anything that can be pickled; it comes from our own processes."""
    if world() == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def agree(value: str, what: str) -> None:
    """Raise `Disagreement` in every process unless all hold the same value.

    what : to be named in the message.
    """
    if world() == 1:
        return
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    if len(set(values)) > 1:
        listed = "; ".join(f"process {r}: {v}" for r, v in enumerate(values))
        raise Disagreement(
            f"the processes were given different {what}: {listed}. Start all from one checkout and study"
        )


def each(value: Any) -> list:
    """What every process holds, in order."""
    if world() == 1:
        return [value]
    values = [None] * world()
    dist.all_gather_object(values, value)
    return values


def replicated(model: nn.Module, device: torch.device) -> nn.Module:
    """The model as one of several processes trains it: gradients, and batch statistics, are those of the whole batch.

    Raises
    ------
    ValueError : for batch norm on CPUs, where PyTorch cannot put statistics together.
    """
    if world() == 1:
        return model
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in model.modules()):
        if device.type != "cuda":
            raise ValueError("batch norm over several processes needs GPUs: train this network with processes: 1")
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return nn.parallel.DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def launch(processes: int, arguments: list[str]) -> None:
    """Run ``python -m trustlib ARGUMENTS`` in several processes of this machine, its output passed on.

    Raises
    ------
    RuntimeError : when one of them failed; the others are stopped.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run([*command, "-m", "trustlib", *arguments], capture_output=True, text=True)
    print(done.stdout, end="")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")] or done.stderr.splitlines()
        raise RuntimeError(f"{processes} processes of {' '.join(arguments)} failed: {(lines or ['no message'])[0]}")
