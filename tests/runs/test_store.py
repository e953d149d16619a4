"""A file of a run: whole or not there, made once, made again when what it depends on changes; failures are kept."""

import json
import multiprocessing
import time

import pytest
import torch
from conftest import quiet

from trustlib.runs import store
from trustlib.runs.store import Step
from trustlib.training import TrainingError

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def maker():
    """What makes z of any step, and lists the steps that it made."""

    def make(step, log):
        make.made.append(step.name)
        return {"z": torch.arange(3.0), "other": torch.zeros(1)}, {"history": [{"loss": 0.5}], "device": "here"}

    make.made = []
    return make


def one(folder, make, name="seed0", **settings):
    return Step(folder, name, "oracle", settings, "", make)


def test_a_write_that_fails_leaves_the_old_file_and_no_scratch(tmp_path):
    path = tmp_path / "a.json"
    store.write_json(path, {"old": 1})
    with pytest.raises(KeyboardInterrupt), store.atomic(path) as scratch:  # noqa: PT012
        scratch.write_text("half")
        raise KeyboardInterrupt
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_step_is_made_once_and_again_when_anything_that_it_depends_on_changes(tmp_path, maker):
    def asked(rate=1, source="a", of_first=1):
        first = Step(tmp_path, "first", "classifier", {"rate": of_first}, "", maker)
        second = Step(tmp_path, "second", "features", {}, "", maker, (first,))
        return Step(tmp_path, "oracles/third", "oracle", {"rate": rate}, source, maker, (second,))

    every = ["first", "second", "oracles/third"]
    assert asked().row() == {"kind": "oracle", "run": "third", "status": "not run"}
    changes = [({}, every), ({"rate": 2}, every[2:]), ({"source": "b"}, every[2:]), ({"of_first": 2}, every)]
    for change, again in changes:
        maker.made.clear()
        step = asked(**change)
        assert not step.is_done
        assert step.manifest is None
        assert step.get(quiet) is step
        assert asked(**change).get(quiet) == step
        assert maker.made == again
        asked().get(quiet)
    assert step != asked()
    assert step.tensors("z")[""].tolist() == [0, 1, 2]
    assert asked().manifest["config"] == {"kind": "oracle", "rate": 1}
    assert asked().row()["loss"] == 0.5

    maker.made.clear()
    (tmp_path / "first.safetensors").unlink()  # nothing that is there needs it any more
    asked().get(quiet)
    assert maker.made == []


@pytest.mark.parametrize("length", [0, 5, 40, -4])
def test_a_truncated_file_is_made_again(tmp_path, maker, length):
    step = one(tmp_path, maker).get(quiet)
    step.path.write_bytes(step.path.read_bytes()[:length])
    assert not step.is_done
    assert step.get(quiet).tensors()["z"].tolist() == [0, 1, 2]
    assert maker.made == ["seed0"] * 2


@pytest.mark.parametrize(("error", "diverged"), [(ValueError, False), (TrainingError, True)])
def test_a_failure_is_recorded_with_its_traceback_until_it_is_made(tmp_path, maker, error, diverged):
    def fail(step, log):
        raise error("the loss is nan\nfor a reason")

    step = one(tmp_path, fail)
    with pytest.raises(error):
        step.get(quiet)
    assert step.failure["error"] == step.row()["error"] == f"{error.__name__}: the loss is nan"
    assert step.failure["diverged"] == diverged
    assert "in fail" in step.row()["traceback"]
    assert step.row()["status"] == "failed"
    assert one(tmp_path, fail, rate=2).failure is None  # another's
    record = step.path.with_suffix(".failed.json")
    record.write_bytes(record.read_bytes()[:20])
    assert step.row()["status"] == "not run"
    one(tmp_path, maker).get(quiet)
    assert step.failure is None
    assert step.row()["status"] == "done"
    assert {path.name for path in tmp_path.iterdir()} == {"seed0.safetensors", ".seed0.lock"}


def start(folder, seconds, begin):
    """A process that makes a step once `begin` is set, which takes it some seconds."""

    def make(step, log):
        with (folder / "made").open("a") as file:
            file.write("once ")
        time.sleep(seconds)
        return {"z": torch.zeros(1)}, {}

    def run():
        begin.wait()
        one(folder, make).get(quiet)

    process = FORK.Process(target=run)
    process.start()
    return process


def test_of_two_processes_at_once_one_makes_it_and_the_other_waits(tmp_path):
    begin = FORK.Event()
    both = [start(tmp_path, 1, begin) for _ in range(2)]
    begin.set()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert (tmp_path / "made").read_text() == "once "


def test_what_a_killed_process_leaves_is_no_obstacle_and_goes(tmp_path, maker):
    begin = FORK.Event()
    begin.set()
    killed = start(tmp_path, 600, begin)
    while not (tmp_path / "made").exists():
        assert killed.is_alive()
        time.sleep(0.01)
    killed.kill()
    killed.join()
    begun = (".seed0.safetensors.abcd_123", "..seed0.checkpoint.pt.abcd_123", ".rate1-seed0.safetensors.abcd_123")
    for name in begun:
        (tmp_path / name).write_bytes(b"begun")
    step = one(tmp_path, maker)
    step.checkpoints(0, quiet).save({"steps": 1})
    step.get(quiet)
    hidden = {path.name for path in tmp_path.glob(".*")}
    assert hidden == {".rate1-seed0.safetensors.abcd_123", ".seed0.lock"}  # what another step begins may go on


def test_a_checkpoint_is_taken_up_by_its_own_training_alone(tmp_path, maker):
    said, keeper = [], one(tmp_path, maker).checkpoints(0, quiet)
    assert keeper.latest() is None
    for steps in (1, 2, 3):
        assert keeper.due(steps)
        keeper.save({"steps": steps, "weights": torch.full((2,), steps)})
    assert one(tmp_path, maker).checkpoints(5, said.append).latest()["weights"].tolist() == [3, 3]
    assert "going on after 3 steps" in said[0]
    assert one(tmp_path, maker, rate=2).checkpoints(5, quiet).latest() is None
    assert not one(tmp_path, maker).checkpoints(5, quiet).due(1)


def test_a_full_disk_does_not_stop_a_training(tmp_path, monkeypatch):
    said, keeper = [], store.Checkpoints(tmp_path / "state.pt", "key", 0, quiet)
    keeper.save({"steps": 1})
    keeper.log = said.append

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.torch, "save", full)
    keeper.save({"steps": 2})
    assert "no checkpoint written, the last one stays: OSError: [Errno 28]" in said[0]
    monkeypatch.undo()
    assert keeper.latest()["steps"] == 1
