"""Publish a finished study: copy what its report rests on to results/."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from torch import Tensor

from ..runs import shifted, steps, store, tuning
from ..runs.jobs import JobError
from ..runs.results import Run, published_manifest
from ..runs.store import Step
from ..study import Study


def publish(study: Study) -> list[Path]:
    """Copy a finished run's report, tables, figures, manifests and scores, without weights, to results/<study>.

    The scores are RUN.NAME, on the test set, and RUN.heldout.NAME, on the validation set: correct, mcp, predicted (the
    class, int16) of each classifier, z of each oracle, every score of a classifier; of domains what their files hold.

    What there is of the ablations and of the sweeps is published as tables and manifests, without its many scores.

    Returns
    -------
    What was written.

    Raises
    ------
    JobError : when a training or the report is missing, or one of them was made from uncommitted source.
    """
    source, target = store.run_folder(study), store.results() / study.name
    planned = steps.planned(study) + shifted.planned(study)
    extra = [step for step in tuning.planned(study) + shifted.swept(study) if step.is_done]
    page = source / "report.html"
    manifests = {step.run: step.manifest for step in planned + extra}
    _check(study, planned, extra, manifests)
    report = json.loads((source / "report.json").read_text())
    scores = {}
    for step in planned:
        scores |= {f"{step.run}.{name}": tensor.numpy() for name, tensor in _scores(step).items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:  # whole before it takes the old one's place
        new = Path(scratch) / study.name
        new.mkdir()
        _copy_page(page, new)
        for name in ("tables", "figures"):
            shutil.copytree(source / name, new / name, ignore=_without_rows)
        np.savez_compressed(new / "scores.npz", **scores)
        run = Run(study)
        facts = {"report": report, "classes": run.classes, "channels": run.channels, "images": run.images}
        facts |= {"sha256": store.checksums(new)}
        store.write_json(new / "manifest.json", _without_repetition(manifests) | facts)
        before = Path(scratch) / "before"
        if target.exists():
            target.rename(before)
        try:
            new.rename(target)
        except OSError:
            if before.exists():
                before.rename(target)
            raise
    return sorted(path for path in target.rglob("*") if path.is_file())


def _check(study: Study, planned: list[Step], extra: list[Step], manifests: dict[str, dict]) -> None:
    """Refuse what is unfinished, of uncommitted source, or would replace what is no study's; as `publish` raises."""
    source, target = store.run_folder(study), store.results() / study.name
    unfinished = [step.run for step in planned if not step.is_done]
    page, made_by = source / "report.html", source / "report.json"
    if (
        unfinished
        or not made_by.exists()
        or not page.exists()
        or page.stat().st_mtime < max(step.path.stat().st_mtime for step in planned + extra)
    ):
        lacking = ", ".join(unfinished[:3]) or "a report of these trainings"
        raise JobError(
            f"study {study.name} is not finished (lacking {lacking}); run: make report STUDY={study.name}; where that "
            f"has nothing to do, remove {source / 'jobs'} before it"
        )
    if target.exists() and not (target / "scores.npz").exists():
        raise JobError(f"{target} is no study's: move it, or rename the study; `publish` would replace it")
    if any(manifest["provenance"]["dirty"] for manifest in manifests.values()):
        raise JobError(
            f"study {study.name} was run from uncommitted changes: commit, remove {source}, and run it again"
        )
    if json.loads(made_by.read_text())["dirty"]:
        raise JobError(
            f"the report of study {study.name} was made from uncommitted changes: commit, remove "
            f"{source / 'jobs'}, and run: make report STUDY={study.name}"
        )


def redraw(study: Study) -> list[Path]:
    """Replace a published study's report and figures by those that were drawn from what it has published.

    Returns
    -------
    What was written.

    Raises
    ------
    JobError : when there is no such report.
    """
    source, target = store.run_folder(study), store.results() / study.name
    record = source / "report.json"
    if not record.exists() or not (source / "report.html").exists():
        raise JobError(f"nothing to publish: run make report STUDY={study.name} FROM=published")
    manifest = published_manifest(study)
    _copy_page(source / "report.html", target)
    for path in (target / "figures").glob("*.svg"):
        path.unlink()
    shutil.copytree(source / "figures", target / "figures", dirs_exist_ok=True)
    manifest |= {"report": json.loads(record.read_text()), "sha256": store.checksums(target)}
    store.write_json(target / "manifest.json", manifest)
    return sorted([target / "report.html", target / "manifest.json", *(target / "figures").glob("*.svg")])


def _copy_page(page: Path, folder: Path) -> None:
    """Copy a page of results/runs/<study>/, whose link to the site's index is another one in results/<study>/."""
    (folder / page.name).write_text(page.read_text().replace('"../../index.html"', '"../index.html"'))


def _scores(step: Step) -> dict[str, Tensor]:
    """What `publish` keeps of a file: name -> tensor, those of the validation set under "heldout."."""
    if step.kind == "images":
        return {}
    if step.kind in ("observed", "asked"):
        return step.tensors()
    kept = {}
    for prefix, published in (("test.", ""), ("heldout.", "heldout.")):
        tensors = step.tensors(prefix)
        if step.kind == "classifier":
            kept[f"{published}predicted"] = tensors["logits"].argmax(1).short()
        names = {"classifier": ("correct", "mcp"), "oracle": ("z",)}.get(step.kind, tensors)
        kept |= {published + name: tensors[name] for name in names}
    return kept


def _without_rows(folder: str, names: list[str]) -> list[str]:
    """Tables that hold nothing but their head, or not even that: what the study does not have, such as ablations."""
    return [name for name in names if name.endswith(".csv") and len((Path(folder) / name).read_text().splitlines()) < 2]


def _without_repetition(manifests: dict[str, dict]) -> dict:
    """Manifests with what many of them share, their provenance, given once: provenance (by number) and runs."""
    shared, rows = [], {}
    for name, manifest in manifests.items():
        if manifest["provenance"] not in shared:
            shared.append(manifest["provenance"])
        rows[name] = manifest | {"provenance": shared.index(manifest["provenance"])}
    return {"provenance": shared, "runs": rows}
