"""Several processes train what one does: the same z, from the same batches, and no padding in any result."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from trustlib import experiments, parallel, runs
from trustlib.study import load_study

VIT = {
    "label": "ViT",
    "model": "vit_tiny_patch16_224",
    "args": {
        "img_size": 28, "patch_size": 7, "in_chans": 1, "num_classes": 10, "embed_dim": 32, "depth": 1, "num_heads": 2,
    },
    "training": {"epochs": 1, "batch": 50, "rate": 3.0e-3, "weight_decay": 0.0, "images": 1000},
    "steep_slope": {"alpha_pos": 1.0, "alpha_neg": 3.0},
}  # fmt: skip
ARMS = {
    "ss": {"label": "SS", "loss": "ss", "head": "distance"},
    "ce-released": {"label": "CE, as released", "loss": "ce", "head": "linear", "form": "released"},
}
SETTINGS = {"networks": {"vit": VIT}, "pairs": ["vit-vit"], "arms": ARMS, "seeds": [0], "device": "cpu"}


def quiet(line):
    pass


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that trains both arms in so many processes and returns their tensors; each is made once."""
    results = {}

    def make(processes, write_study):
        if processes not in results:
            study = load_study(write_study(**SETTINGS, processes=processes))
            for arm in ARMS:
                experiments.train_oracle(study, "vit-vit", arm, 0, quiet)
            oracles = {arm: runs.read_tensors(runs.oracle_path(study, "vit-vit", arm, 0)) for arm in ARMS}
            results[processes] = oracles | {"classifier": runs.read_tensors(runs.classifier_path(study, "vit"))}
        return results[processes]

    return make


@pytest.mark.parametrize("run", [*ARMS, "classifier"])
def test_two_processes_train_what_one_does(made, write_study, run):
    # Sums in another order round otherwise.
    one, two = made(1, write_study)[run], made(2, write_study)[run]
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        if tensor.dtype == torch.bool:
            assert (tensor != two[name]).float().mean() < 0.002, name  # where two classes are nearly level
        else:
            torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=1e-4, msg=name)


TOGETHER = """
import torch
from trustlib import parallel

parallel.start(gpu=False)
rows = parallel.gathered_rows(torch.arange(7)[parallel.share(7), None], 7).flatten().tolist()
own = torch.full((2,), float(parallel.rank()), requires_grad=True)
(parallel.gathered(own) ** 2).sum().backward()
try:
    parallel.agree(f"settings {parallel.rank()}", "settings")
except parallel.Disagreement as error:
    found = str(error)
agreed = parallel.from_first(f"of {parallel.rank()}"), parallel.each(parallel.rank())
print(f"{parallel.rank()} {rows} {own.grad.tolist()} {agreed} {found}\\n", end="")
parallel.stop()
"""


def test_what_processes_hold_is_put_together_and_a_disagreement_is_told():
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--no-python"]
    done = subprocess.run([*command, sys.executable, "-c", TOGETHER], capture_output=True, text=True)
    found = sorted(filter(None, done.stdout.split("\n")))
    rows, message = (
        "[0, 1, 2, 3, 4, 5, 6]",
        "the processes were given different settings: process 0: settings 0; process 1",
    )
    for rank, gradient in enumerate(("[0.0, 0.0]", "[2.0, 2.0]")):  # of its own part alone; no row of padding
        assert found[rank].startswith(f"{rank} {rows} {gradient} ('of 0', [0, 1]) {message}"), done.stderr


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=r"this is the 3\. of its machine, which has 2"):
        parallel.start(gpu=True)


def test_batch_norm_over_processes_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(parallel, "world", lambda: 2)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with pytest.raises(ValueError, match="batch norm over several processes needs GPUs"):
        parallel.replicated(net, torch.device("cpu"))


def test_a_batch_that_cannot_be_shared_is_refused(write_study):
    network = VIT | {"training": VIT["training"] | {"batch": 51}}
    study = load_study(write_study(**SETTINGS | {"networks": {"vit": network}}, processes=2))
    with pytest.raises(RuntimeError, match="2 processes cannot share a batch of 51 evenly"):
        experiments.train_classifier(study, "vit", quiet)


def test_one_process_is_given_back_what_it_gave():
    rows = torch.arange(3)
    assert parallel.gathered(rows) is rows
    assert parallel.from_first("x") == "x"
    assert parallel.each(1) == [1]
    assert (parallel.rank(), parallel.world(), parallel.share(5)) == (0, 1, slice(0, 5))
    parallel.agree("anything", "settings")
