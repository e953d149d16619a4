"""What is timed does what it says; how long it takes is no test's business."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from trustlib import data, oracle, speed

ARGS = {
    "in_chans": 1, "num_classes": 2, "layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8], "stem_type": "deep",
    "stem_width": 4,
}  # fmt: skip
INPUTS = data.Inputs((0.5,) * 3, (0.5,) * 3, 32, interpolation="bilinear")


class Judge(nn.Module):
    """Says that every image is right; counts how often it is asked, and whether it could learn."""

    def __init__(self):
        super().__init__()
        self.layer, self.asked, self.learning = nn.Linear(1, 1), 0, False

    def forward(self, x):
        self.asked += len(x)
        self.learning |= self.training or torch.is_grad_enabled() or self.layer.weight.requires_grad
        return torch.tensor([[0.0, 1.0]]).expand(len(x), 2)


def learner():
    return oracle.Oracle(oracle.build_backbone("resnet18", ARGS), "linear")


def test_ways_alternate_and_the_first_run_of_each_does_not_count():
    calls, now = [], iter(range(100))
    seconds = speed.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, lambda: next(now))
    assert calls == ["a", "b"] * 4
    assert seconds.to_numpy().tolist() == [[1, 1]] * 3
    assert list(speed.spread(seconds).columns) == ["median", "low", "high"]


def test_flops_are_two_a_multiplication_with_depthwise_ones_by_their_group():
    net = nn.Conv2d(8, 8, 3, padding=1, groups=8, device="meta")
    assert speed.flops(net, (8, 5, 5)) == 2 * 25 * 8 * 9


@pytest.mark.parametrize(
    ("card", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-40GB", 312e12),
        ("NVIDIA L4", 121e12), ("NVIDIA L40S", None), ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", None), ("", None),
    ],
)  # fmt: skip
def test_a_card_s_peak_is_known_by_its_name(card, peak):
    assert speed.peak_of(card) == peak


def test_the_classifier_runs_frozen_in_every_step_of_the_released_way_and_gives_the_labels():
    images, judge, net = speed.noise(6, (1, 28, 28)), Judge(), learner()
    before = [p.clone() for p in net.parameters()]
    (epoch,) = speed.steps(net, images, batch=4, count=3, judge=judge)()
    assert judge.asked == 12
    assert not judge.learning
    assert any((p != q).any() for p, q in zip(before, net.parameters(), strict=True))
    judged = speed.Judged(images, judge)
    (x,) = judged.batches("train", [torch.arange(6)], [torch.zeros(6).bool()])
    assert x.shape == (6, 1, 28, 28)
    assert torch.equal(judged.correct, images.labels["train"] == 1)
    assert np.isfinite(epoch["loss"])


def test_every_rival_and_every_part_of_a_step_runs():
    images = speed.noise(4, (1, 28, 28))
    rivals = speed.rivals("resnet18", ARGS, images, batch=4, count=4)
    del rivals["here, compiled"]  # compiling takes a while
    ways = {name: speed.first_run(build, torch.device("cpu"))[0] for name, build in rivals.items()}
    ways |= speed.parts(oracle.build_backbone("resnet18", ARGS | {"num_classes": 0}), images, batch=4, count=1)
    assert (speed.alternate(ways, 1) > 0).to_numpy().all()


def test_no_autocast_reaches_a_float32_network():
    net, x = nn.Linear(2, 2), torch.zeros(1, 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x).dtype == torch.bfloat16
        assert speed.Float32(net)(x).dtype == torch.float32


def test_photographs_are_of_the_usual_size_and_load_alike_with_and_without_workers(tmp_path):
    paths = speed.photographs(tmp_path / "photos", 3)
    assert 80_000 < np.mean([path.stat().st_size for path in paths]) < 125_000
    assert Image.open(paths[0]).size == speed.PHOTO
    for run in speed.stages(paths, INPUTS).values():
        assert len(run()) == 3
    assert [speed.loading(paths, INPUTS, workers, 2)() for workers in (0, 1)] == [3, 3]
