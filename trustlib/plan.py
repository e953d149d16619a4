"""A dry run: what a study needs, whether it is there, and how long it will take on this machine."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from . import confidence, data, experiments, networks, oracle, pretrained, runs, timing
from .study import Study

STATES = {"adamw": 2, "adam": 2, "sgd": 1, "onecycle": 1}  # numbers that an optimizer keeps of each parameter
LEAST = 1.0  # second for a timing: in less no batch but the smallest would be tried, and most of its time is overhead
ROOM = {
    "disk": "free some, or set TRUST_RESULTS",
    "memory": "take a machine with more, or fewer processes",
    "GPU": "take a smaller batch",
}


def misfits(study: Study) -> list[str]:
    """Why networks cannot name the classes of the study's images (`pretrained.misfit`), a line each."""
    images, found = study.images(), []
    for name, network in study.all_networks.items():
        why = pretrained.misfit(network.model, network.args, bool(network.weights), images.classes, images.wnids)
        found += [f"networks.{name}: {why}"] if why else []
    return found


def prepare(study: Study, seconds: float = 50, log: Callable[[str], None] = print) -> list[str]:
    """Look for all that a study needs, time a little of each kind of work, print the plan; return what fails.

    seconds : of all timings together; each is given `LEAST` though, and takes a few batches.
    """
    problems, images, nets, rates = [], None, {}, {}
    with _noted(problems):
        images = study.images()
        sizes = ", ".join(f"{len(images.labels[part]):,} {part}" for part in data.PARTS)
        damaged = getattr(images, "damaged", ())  # of a folder
        left_out = f"; {len(damaged):,} damaged files left out" if damaged else ""
        log(f"study {study.name}: data from {images.source}; {sizes}; {len(images.classes):,} classes{left_out}")
        problems += misfits(study)
    rows = [_network(study, name, nets, problems) for name in study.networks]
    log(f"\n{_text(pd.DataFrame(rows))}")
    world = max(torch.cuda.device_count(), 1) if study.processes == "auto" else study.processes
    work = pd.DataFrame(_work(study, images, nets) if images and len(nets) == len(study.networks) else [])
    if len(work):
        for batch in sorted(set(work["batch"])):
            if batch % world:
                problems.append(f"{world} processes cannot share a batch of {batch} evenly: change batch or processes")
            if batch > len(images.labels["train"]):
                problems.append(f"a batch of {batch} is larger than the training part: take a smaller one")
        keys = list(dict.fromkeys(key for asked in work["asked"] for key in asked))
        end = time.perf_counter() + seconds
        for left, (what, whom) in zip(range(len(keys), 0, -1), keys, strict=True):
            with _noted(problems, f"{whom}: "):
                limit = max((end - time.perf_counter()) / left, LEAST)
                rates[what, whom] = timing.seconds(study, what, whom, world, limit) / world
        log(f"\nto be made, on {experiments.device_name(experiments.setup(study)[1])}, processes: {world}, decoding "
            f"workers: {study.workers} each\n{_jobs(work, rates)}")  # fmt: skip
    elif images and not problems:
        log("\nall is made")
    return list(dict.fromkeys(problems + _room(study, images, nets, work, world, log)))


def _network(study: Study, name: str, nets: dict[str, oracle.Timm], problems: list[str]) -> dict:
    """A network's row; puts it into `nets`, without its weights."""
    network = study.network(name)
    row: dict[str, Any] = {
        "network": name,
        "model": network.model,
        "parameters": None,
        "pixels a side": None,
        "weights": "missing",
    }
    with _noted(problems, f"networks.{name}: "):
        nets[name] = pretrained.skeleton(network.model, network.args)
        row["parameters"] = f"{oracle.parameters(nets[name]):,}"
        seen = networks.inputs(study, name)
        row["pixels a side"] = str(seen.size) if seen and seen.size else "as they are"
        row["weights"] = pretrained.locate(network.model, network.weights) if network.weights else "trained here"
    return row


def _work(study: Study, images: data.Images, nets: dict[str, oracle.Timm]) -> Iterator[dict]:
    """What is not made yet, a dict a file: job, work, bytes, asked ((what, of whom) -> how many images), batch."""
    train, heldout, test = (len(images.labels[part]) for part in data.PARTS)
    views, reference, new = study.views, len(confidence.drawn_reference(train)), heldout + test
    every, cached = views * (train + heldout) + test, set()

    def row(job: str, work: str, size: int, asked: dict, batch: int = 0) -> dict:
        return {"job": job, "work": work, "bytes": size, "asked": asked, "batch": batch}

    for name, seed in product(study.networks, study.classifier_seeds):
        if not _made(runs.classifier_path(study, name, seed), experiments.classifier_config, study, name, seed):
            recipe, wide = study.network(name).training, nets[name].head_hidden_size + len(images.classes)
            asked = {("fit", name): recipe.epochs * min(recipe.images or train, train)} if recipe else {}
            size = _bytes(nets[name]) + 13 * (views * train + new) + 4 * wide * (reference + new)
            asked["ask", name] = every + heldout + reference
            yield row(f"classifier-{name}", "classifier", size, asked, recipe.batch if recipe else 0)
    for name in study.networks:
        if not _made(runs.confidence_path(study, name), experiments.confidence_config, study, name):
            asked = {("ask", name): study.dropout_passes * new} if study.dropout_passes else {}
            yield row(f"confidence-{name}", "scores", 4 * new * len(confidence.SCORES), asked)
    for pair, arm, seed in product(study.pairs, study.arms, study.seeds):
        if _made(runs.oracle_path(study, pair, arm, seed), experiments.oracle_config, study, pair, arm, seed):
            continue
        net, recipe, job = nets[study.pair(pair)[0]], study.recipe(pair, arm), study.oracle_job(pair, arm)
        lesson = recipe.epochs * min(recipe.images or train, train)
        if study.arms[arm].backbone == "trained":
            asked = {("fit", pair): lesson, ("ask", pair): new}
            yield row(job, "oracle", _bytes(net) + 4 * new, asked, recipe.batch)
            continue
        path = experiments._features_path(study, pair)
        if path not in cached and not _made(path, experiments.features_config, study, pair):
            seen = train * (study.feature_passes or views) + (views * heldout + test)
            yield row(job, "features", 2 * net.head_hidden_size * seen, {("ask", pair): seen})
        cached.add(path)
        yield row(job, "head", 4 * new, {("head", pair): lesson}, recipe.batch)


def _made(path: Path, config: Callable[..., dict], *of) -> bool:
    with suppress(data.DataError):  # without its weights nothing is made, nor is its configuration known
        return runs.current(path, config(*of)) is not None
    return False


def _jobs(work: pd.DataFrame, rates: dict[tuple, float]) -> str:
    """The work as a table, a row a job and kind of work; scores look at arrays and are not timed."""
    nan = float("nan")
    times = [sum(n * rates.get(key, nan) for key, n in asked.items()) if asked else None for asked in work["asked"]]
    frame = work.assign(seconds=times, images=[sum(asked.values()) for asked in work["asked"]])
    table = frame.groupby(["job", "work"], sort=False).agg(
        files=("bytes", "size"), images=("images", "mean"), seconds=("seconds", "mean")
    )  # fmt: skip
    table["hours"] = table["files"] * table["seconds"] / 3600
    failed = any(key not in rates for asked in work["asked"] for key in asked)
    last = {"job": "one after the other", "files": len(work), "hours": nan if failed else table["hours"].sum()}
    table = pd.concat([table.reset_index(), pd.DataFrame([last])])
    table["images"] = table["images"].map("{:,.0f}".format, na_action="ignore")
    return _text(table.rename(columns={"images": "images each", "seconds": "seconds each"}))


def _room(
    study: Study, images: data.Images | None, nets: dict, work: pd.DataFrame, world: int, log: Callable
) -> list[str]:
    """Print what is needed of disk and memory, as far as it can be told, and what there is; return what is short."""
    folder = next(path for path in (runs.results(), *runs.results().resolve().parents) if path.is_dir())
    largest = max(map(_bytes, nets.values()), default=0)
    recipes = [study.recipe(pair, arm) for pair, arm in product(study.pairs, study.arms)]
    recipes += [network.training for network in study.networks.values() if network.training]
    kept = largest * (1 + max(STATES[recipe.optimizer] for recipe in recipes))
    needs = [
        ("disk", "files to be made", work["bytes"].sum() if len(work) else 0),
        ("disk", "two checkpoints", 2 * kept),
    ]
    if images:
        held = images.images.values() if isinstance(images, data.Images) else ()
        needs.append(("memory", "images", sum(tensor.nbytes for tensor in held)))
        count = sum(len(images.labels[part]) for part in ("heldout", "test"))
        count += len(confidence.drawn_reference(len(images.labels["train"])))
        wide = len(images.classes) + max((net.head_hidden_size for net in nets.values()), default=0)
        needs.append(("memory", "logits and features, in three copies", 12 * count * wide))
    if len(work) and (features := work.loc[work["work"] == "features", "bytes"].max()) > 0:
        needs.append(("memory", "features while they are put together, twice a process", 2 * world * features))
    needs.append(("memory", "network, gradients, optimizer", world * (kept + largest)))
    there = {"disk": shutil.disk_usage(folder).free, "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
    if torch.cuda.is_available():
        needs.append(("GPU", "at most, in the timings", torch.cuda.max_memory_allocated()))
        there["GPU"] = torch.cuda.get_device_properties(0).total_memory
    table = pd.DataFrame(needs, columns=["of", "needed for", "GB"])
    sums = table.groupby("of")["GB"].sum()
    log(f"\n{_text(table.assign(GB=table['GB'] / 1e9))}")
    log("there is: " + ", ".join(f"{size / 1e9:,.1f} GB of {of}" for of, size in there.items()) + f" ({folder})")
    short = [of for of, size in there.items() if sums[of] > size]
    problems = [
        f"{of}: {sums[of] / 1e9:,.1f} GB are needed, {there[of] / 1e9:,.1f} are there; {ROOM[of]}" for of in short
    ]
    return problems + ([] if os.access(folder, os.W_OK) else [f"{folder} cannot be written to: set TRUST_RESULTS"])


def _bytes(net: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())


def _text(frame: pd.DataFrame) -> str:
    return frame.to_string(index=False, na_rep="", float_format="{:,.2f}".format)


@contextmanager
def _noted(problems: list[str], where: str = "") -> Iterator[None]:
    """What fails becomes a line of `problems`: one plan tells of all."""
    try:
        yield
    except (ValueError, RuntimeError, OSError) as error:  # ours are kinds of these; timm's, torch's, a disk's
        problems.append(f"{where}{error}")
