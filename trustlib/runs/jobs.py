"""The jobs of a study, each one run of a notebook: what the Snakefile makes, and the protocol of a notebook."""

import ast
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

from ..settings import nearest
from ..study import Study
from .provenance import digest, notebook_digest, source_digest

if TYPE_CHECKING:  # the Snakefile reads this module, and torch takes seconds
    from .store import Step

SECTIONS = ("06_report", "07_ablations", "11_reasons", "08_unseen", "09_published", "10_record")  # of the report
# Whatever may change what a job makes. Which of its files are stale is for their steps to say.
SOURCE = (
    "confidence", "data", "losses", "metrics", "models", "oracle", "recipe", "released", "settings", "shifts", "study",
    "training",
    "runs.networks", "runs.shifted", "runs.steps", "runs.store", "runs.tuning",
)  # fmt: skip
COMMON = {
    "dataset", "folder", "heldout", "flip", "preprocessing", "threads", "classifier_seeds", "dropout_passes",
    "feature_passes",
}  # fmt: skip


class JobError(RuntimeError):
    """A notebook could not do all it was asked to; what it did is kept."""


@dataclass(frozen=True)
class Job:
    """One run of a notebook.

    notebook : its file in notebooks/, without the ending
    parameters : that it is run with, besides the study
    needs : the jobs that come before it
    key : digest of its settings and source: the job is run again when it changes
    trains : whether it runs networks, and so wants a GPU
    """

    notebook: str
    parameters: dict[str, Any]
    needs: tuple[str, ...]
    key: str
    trains: bool = True


def table(
    study: Study, ablations: Iterable[str] = (), swept: Iterable[str] = (), source: str = "run"
) -> dict[str, Job]:
    """The jobs of a study in an order in which they can run, the sections of its report last.

    Parameters
    ----------
    ablations, swept : the ablations, and the corruptions at every severity, that it includes.
    source : "run", or "published": the sections alone, drawn from what the study has published.
    """
    if source == "published":
        return _sections(study, (), source)
    common = study.model_dump(include=COMMON)

    def job(notebook: str, parameters: dict[str, Any], needs: Iterable[str], settings: Any) -> Job:
        key = digest([common, parameters, settings, source_digest(*SOURCE)])
        return Job(notebook, parameters, tuple(dict.fromkeys(needs)), key)

    jobs = {}
    for name, network in study.networks.items():
        settings = network.model_dump()
        jobs[f"classifier-{name}"] = job("01_train_classifier", {"network": name}, (), settings)
        needs = [f"classifier-{name}"]
        jobs[f"confidence-{name}"] = job("03_confidence", {"network": name}, needs, settings)
    for name, which in _oracle_jobs(study).items():
        pair, methods, seeds = which
        parameters = {"pair": pair, "methods": methods, "seeds": seeds, "by_hand": 0}
        settings = [study.oracle.model_dump(), seeds, *(study.methods[method].model_dump() for method in methods)]
        settings += [study.networks[network].model_dump() for network in study.pair(pair)]
        needs = [f"classifier-{network}" for network in study.pair(pair)]
        starts = [study.methods[method].start for method in methods if study.methods[method].start]
        needs += [oracle_job(study, pair, start, seed) for start, seed in product(starts, seeds)]
        jobs[name] = job("02_train_oracles", parameters, [need for need in needs if need != name], settings)
    trained = list(jobs)  # evaluated under distribution shift once all are there
    settings = [study.domains.model_dump(), study.pairs, list(study.methods), study.seeds]
    for name in study.domains.judged:
        jobs[f"domain-{name}"] = job("04_domains", {"domain": name, "pair": "all"}, trained, settings)
    for name in swept:
        jobs[f"sweep-{name}"] = job("04_domains", {"domain": name, "pair": "all"}, trained, settings)
    shared = study.ablations.model_dump(include={"rates", "seeds", "tuning", "folds"})
    needs = [f"classifier-{name}" for name in study.networks]
    for name in ablations:
        ablation = study.ablation(name)
        methods = {*ablation.methods, *(study.method(method).rate_of for method in ablation.methods)} - {None}
        settings = [shared, ablation.model_dump(), study.oracle.model_dump()]
        settings += [study.method(method).model_dump() for method in sorted(methods)]
        settings += [study.network(network).model_dump() for pair in ablation.pairs for network in study.pair(pair)]
        jobs[f"ablation-{name}"] = job("05_ablation", {"ablation": name}, needs, settings)
    return jobs | _sections(study, tuple(jobs), source)


def _sections(study: Study, needs: tuple[str, ...], source: str) -> dict[str, Job]:
    """The sections of a report."""
    jobs = {}
    for name in SECTIONS:
        parameters: dict[str, Any] = {"source": source}
        parameters |= {"make_missing": False} if name in ("06_report", "11_reasons") else {}
        key = digest([study.model_dump(), needs, source, notebook_digest(name)])
        jobs[name] = Job(name, parameters, needs, key, trains=False)
    return jobs


def oracle_job(study: Study, pair: str, method: str, seed: int) -> str:
    """The name of the job that trains an oracle, as the study divides them."""
    parts = {"pair": [pair], "method": [pair, method], "oracle": [pair, method, f"seed{seed}"]}
    return "-".join(["oracles", *parts[study.jobs]])


def _oracle_jobs(study: Study) -> dict[str, tuple[str, list[str], list[int]]]:
    """Job -> pair, methods and seeds of the oracles that it trains."""
    jobs: dict[str, tuple[str, list[str], list[int]]] = {}
    for pair, method, seed in product(study.pairs, study.methods, study.seeds):
        _, methods, seeds = jobs.setdefault(oracle_job(study, pair, method, seed), (pair, [], []))
        methods += [method] * (method not in methods)
        seeds += [seed] * (seed not in seeds)
    return jobs


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


def attempt(
    tasks: Iterable["Step | tuple[str, Callable[[], Any]]"], log: Callable[[str], None] = print
) -> dict[str, str]:
    """Make every step, or call every function of (name, function), whatever becomes of the others.

    Returns
    -------
    name -> error in one line, of those that failed.
    """
    failed = {}
    for task in tasks:
        name, make = task if isinstance(task, tuple) else (task.run, task.get)
        try:
            make()
        except Exception as error:
            failed[name] = first_line(error)
            log(f"{name} failed: {failed[name]}")
    return failed


def finish(failed: dict[str, str]) -> None:
    """Fail the notebook, and so its job, when something in it failed; the next run repeats just that.

    Raises
    ------
    JobError : with what failed, one a line.
    """
    if failed:
        raise JobError(f"{len(failed)} failed:\n" + "\n".join(f"  {name}: {error}" for name, error in failed.items()))


def first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
