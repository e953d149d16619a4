"""The jobs of a study: which there are, when one is run again, and how a notebook and its shell fail."""

import os
import re
import subprocess
from copy import deepcopy
from fnmatch import fnmatch
from itertools import product

import pytest
from conftest import ABLATIONS, TINY, quiet

from trustlib.data import ROOT
from trustlib.runs import jobs
from trustlib.runs.store import Step

PLAN = TINY | {
    "networks": {name: deepcopy(TINY["networks"]["rsn"]) for name in ("rsn", "other")},
    "pairs": ["rsn-rsn", "other-rsn"],
    "jobs": "oracle",
    "domains": {"judged": ["fog-5"], "swept": ["contrast"]},
    "ablations": ABLATIONS,
}


def test_a_job_an_oracle_has_its_seed_and_what_comes_before_it(study_with):
    methods = TINY["methods"] | {"on": {"label": "on", "loss": "ss", "head": "distance", "start": "ce"}}
    study = study_with(**PLAN | {"methods": methods})
    table = jobs.table(study)
    assert sum(name.startswith("oracles-") for name in table) == 2 * 3 * 2
    for pair, method, seed in product(study.pairs, study.methods, study.seeds):
        job = table[jobs.oracle_job(study, pair, method, seed)]
        assert job.notebook == "02_train_oracles"
        assert job.parameters == {"pair": pair, "methods": [method], "seeds": [seed], "by_hand": 0}
    assert table["oracles-other-rsn-on-seed1"].needs == (
        "classifier-other", "classifier-rsn", "oracles-other-rsn-ce-seed1",
    )  # fmt: skip
    earlier = set()
    for name, job in table.items():  # in an order in which they can run
        assert earlier.issuperset(job.needs)
        earlier.add(name)
    assert list(table)[-len(jobs.SECTIONS) :] == list(jobs.SECTIONS)


@pytest.mark.parametrize(("divided", "number"), [("pair", 2), ("method", 4), ("oracle", 8)])
def test_a_study_divides_its_oracles(study_with, divided, number):
    table = jobs.table(study_with(**PLAN | {"jobs": divided}))
    trained = [job.parameters for name, job in table.items() if name.startswith("oracles-")]
    assert len(trained) == number
    assert sum(len(job["methods"]) * len(job["seeds"]) for job in trained) == 8


@pytest.mark.parametrize(
    ("path", "value", "concerned"),
    [
        ("methods.ce.training", {"rate": 0.1}, {"oracles-*-ce-*", "ablation-labels"}),
        ("methods.ss.hyper", {"alpha_neg": 9.0}, {"oracles-*-ss-*", "ablation-labels"}),
        ("networks.other.training.rate", 0.1, {"classifier-other", "confidence-other", "oracles-other-rsn-*"}),
        ("oracle.rate", 0.1, {"oracles-*", "ablation-labels"}),
        ("domains.images", 50, {"domain-*", "sweep-*"}),
        ("ablations.questions.labels.methods", ["ce", "ss"], {"ablation-labels"}),
        ("ablations.methods.ce-fixed.training.rate", 0.1, set()),  # no question has it
        ("device", "cpu", set()),  # results travel
        ("note", "A word.", set()),
        ("heldout", 500, {"*"}),
    ],
)
def test_the_key_of_the_jobs_concerned_changes_alone(study_with, path, value, concerned):
    def keys(plan):
        table = jobs.table(study_with(**plan), ["labels"], ["contrast"])
        return {name: job.key for name, job in table.items()}

    before, plan = keys(PLAN), deepcopy(PLAN)
    *parents, last = path.split(".")
    inner = plan
    for key in parents:
        inner = inner[key]
    inner[last] = value
    changed = {name for name, key in keys(plan).items() if key != before[name]}
    assert changed.issuperset(jobs.SECTIONS)  # the report shows all settings
    wanted = {name for name in before if any(fnmatch(name, pattern) for pattern in concerned)}
    assert changed == wanted | set(jobs.SECTIONS)


def test_attempt_goes_on_after_a_failure_and_the_notebook_fails(tmp_path):
    def fail(*_):
        raise ValueError("no\nfor a reason")

    done = []
    tasks = [Step(tmp_path, "oracles/a", "oracle", {}, "", fail), ("b", fail), ("c", lambda: done.append(1))]
    failed = jobs.attempt(tasks, quiet)
    assert failed == {"a": "ValueError: no", "b": "ValueError: no"}
    assert done == [1]
    jobs.finish({})
    with pytest.raises(jobs.JobError, match="2 failed:\n  a: ValueError: no\n  b: ValueError: no"):
        jobs.finish(failed)


def test_an_undeclared_parameter_is_refused_with_the_nearest_name():
    own = 'study: str = "digits"  # a name\nmake_missing: bool = True\n'
    for cells in (["", own, "import os"], ["", own, "# Parameters\nstudy = 'fashion'\n", "x = 1"]):
        jobs.check_parameters(cells)
    with pytest.raises(jobs.JobError, match="no parameter 'studdy'; did you mean 'study'"):
        jobs.check_parameters(["", own, "# Parameters\nstuddy = 'fashion'\n"])


def in_shell(folder, name, command, **environment):
    """`profiles/job.sh` at work on a command, and where its output goes."""
    outer = {key: value for key, value in os.environ.items() if key != "CUDA_VISIBLE_DEVICES"}
    environment = outer | {"TMPDIR": str(folder)} | environment
    words = [str(ROOT / "profiles/job.sh"), name, str(folder / f"{name}.log"), "bash", "-c", command]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(words, cwd=folder, env=environment, text=True, **streams)


def test_two_jobs_at_once_have_a_gpu_each_and_one_that_a_cluster_gave_is_kept(tmp_path):
    command = 'echo "${CUDA_VISIBLE_DEVICES:-none}"; until [ -e go ]; do sleep 0.05; done'
    logs = {name: tmp_path / f"{name}.log" for name in "abcde"}
    both = [in_shell(tmp_path, name, command, TRUST_GPUS="2") for name in "ab"]
    while not all(logs[name].exists() and logs[name].read_text() for name in "ab"):
        assert [job.poll() for job in both] == [None, None]
    (tmp_path / "go").touch()
    assert [job.wait() for job in both] == [0, 0]
    for name, given in {"c": {"TRUST_GPUS": "2"}, "d": {"TRUST_GPUS": "1"}}.items():  # d: all that it sees
        in_shell(tmp_path, name, command, **given).wait()
    in_shell(tmp_path, "e", command, TRUST_GPUS="2", CUDA_VISIBLE_DEVICES="5").wait()
    said = [path.read_text().strip() for path in logs.values()]
    assert (sorted(said[:2]), said[2:]) == (["0", "1"], ["0", "none", "5"])


def test_a_job_says_its_number_and_the_end_of_what_failed(tmp_path):
    job = in_shell(tmp_path, "b", "echo one; echo; echo two; exit 3", TRUST_JOBS="a b c")
    printed, _ = job.communicate()
    assert job.returncode == 1
    first, failed, *last = printed.splitlines()
    assert first.endswith("b")
    assert re.search(r"b: FAILED after \d+ s; see", failed)
    assert last == ["    one", "    two"]
