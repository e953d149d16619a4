"""The protocol of a job: a notebook's parameters, its trainings one after the other, its manifest."""

import ast
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

from ..study import Study, nearest
from .store import _first_line, job_path, write_json


class JobError(RuntimeError):
    """A notebook could not do all it was asked to; what it did is kept."""


def check_parameters(cells: list[str]) -> None:
    """Refuse a parameter that the notebook does not declare; papermill only warns and goes on with the default.

    Parameters
    ----------
    cells : the source of the cells run so far: ``In``, in a notebook. papermill's injected cell begins with
        "# Parameters" and follows the notebook's own; without one there is nothing to check.

    Raises
    ------
    JobError : naming the parameter and the nearest declared one.
    """
    for own, injected in itertools.pairwise(cells):
        if injected.startswith("# Parameters"):
            declared, given = _assigned(own), _assigned(injected)
            for name in given:
                if name not in declared:
                    raise JobError(f"this notebook has no parameter {name!r}{nearest(name, declared)}")


def _assigned(cell: str) -> list[str]:
    """The names that a cell of plain assignments sets."""
    assignments = [node for node in ast.parse(cell).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [t for node in assignments for t in (node.targets if isinstance(node, ast.Assign) else [node.target])]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def attempt(tasks: Iterable[tuple[str, Callable[[], dict]]], log: Callable[[str], None] = print) -> tuple[dict, dict]:
    """Run every task, whatever becomes of the others.

    Parameters
    ----------
    tasks : (name, function that returns a manifest).

    Returns
    -------
    (name -> manifest, name -> error in one line)
    """
    done, failed = {}, {}
    for name, task in tasks:
        try:
            done[name] = task()
        except Exception as error:
            failed[name] = _first_line(error)
            log(f"{name} failed: {failed[name]}")
    return done, failed


def finish_job(study: Study, job: str, done: dict[str, dict], failed: dict[str, str]) -> Path:
    """Write the job's manifest, which Snakemake waits for, once all of it is done.

    Raises
    ------
    JobError : when something failed; then there is no manifest, and the next run repeats just what failed.
    """
    path = job_path(study, job)
    if failed:
        path.unlink(missing_ok=True)
        lines = "\n".join(f"  {name}: {error}" for name, error in failed.items())
        raise JobError(f"{len(failed)} of {len(done) + len(failed)} trainings failed:\n{lines}")
    made = {name: {"key": manifest["key"], "seconds": manifest["seconds"]} for name, manifest in done.items()}
    write_json(path, {"job": job, "trainings": made})
    return path
