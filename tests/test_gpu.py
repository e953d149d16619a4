"""What only a GPU can show; skipped where there is none."""

import copy
import dataclasses

import pytest
import torch
from PIL import Image
from test_training import Interrupted, Memory, quiet

from trustlib import data, losses, metrics, oracle, training
from trustlib.data import folders
from trustlib.models import backbone
from trustlib.recipe import Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

VIT = {"img_size": 28, "patch_size": 7, "embed_dim": 48, "depth": 2, "num_heads": 4}
RSN = {"layers": [1, 1, 1, 1], "channels": [8, 16, 32, 64], "stem_type": "deep", "stem_width": 8}
NETWORKS = {"vit": ("vit_tiny_patch16_224", VIT), "rsn": ("resnet18", RSN)}


def learner(name, dropout=0.0):
    torch.manual_seed(3)
    model, args = NETWORKS[name]
    args = args | {"in_chans": 1, "num_classes": 10, "drop_rate": dropout}
    return oracle.Oracle(backbone.build_backbone(model, args), "linear")


def train(net, device, **changes):
    """One network on whether a digit's label is above 2: as hard as digits are."""
    images = data.digits().to(torch.device(device))
    recipe = Recipe(epochs=2, batch=50, rate=2e-3, weight_decay=0.0)
    settings = {"views": 2, "log": quiet} | changes
    target = images.labels["train"] > 2
    return images, training.train(net.to(device), images, target, losses.cross_entropy, recipe, **settings)


def auroc(net, images):
    (z,) = training.predict(net.eval(), images, "test")
    return metrics.evaluate(z.double().numpy(), (images.labels["test"] > 2).cpu().numpy())["auroc"]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_says_there_what_it_says_on_the_cpu(name):
    net, images = learner(name).eval(), data.digits()
    (here,) = training.predict(net, images, "test")
    (there,) = training.predict(net.cuda(), images.to(torch.device("cuda")), "test")
    assert here.dtype == there.dtype == torch.float32
    torch.testing.assert_close(here, there, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns_there_what_it_learns_on_the_cpu(name):
    found = {}
    for device in ("cpu", "cuda"):
        net = learner(name)
        images, history = train(net, device)
        found[device] = history[-1]["loss"], auroc(net, images)
    assert found["cuda"][0] == pytest.approx(found["cpu"][0], rel=0.1)  # bfloat16
    assert found["cuda"][1] == pytest.approx(found["cpu"][1], abs=0.02)
    assert found["cuda"][1] > 0.8


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("stop", [33, 78])
def test_what_is_interrupted_there_goes_on_to_the_same_bits(name, stop):
    whole = learner(name, dropout=0.1)
    broken = copy.deepcopy(whole)
    checkpoints = Memory(stop)
    _, history = train(whole, "cuda")
    with pytest.raises(Interrupted):
        train(copy.deepcopy(broken), "cuda", checkpoints=checkpoints)
    checkpoints.stop = None
    _, again = train(broken, "cuda", checkpoints=checkpoints)
    for key, tensor in whole.state_dict().items():
        assert torch.equal(tensor, broken.state_dict()[key]), key
    assert [row["loss"] for row in again] == [row["loss"] for row in history]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_compiled_network_learns_the_same(name):
    plain, fast = learner(name), learner(name)
    (_, slow), (images, quick) = train(plain, "cuda"), train(fast, "cuda", compiled=True)
    assert quick[-1]["loss"] == pytest.approx(slow[-1]["loss"], rel=0.1)
    assert auroc(fast, images) == pytest.approx(auroc(plain, images), abs=0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_in_folders_arrive_there_as_they_are(tmp_path, workers):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for path in paths:
        Image.effect_noise((50, 40), 60).convert("RGB").save(path)
    inputs = data.Inputs((0.5,) * 3, (0.25,) * 3, 32, interpolation="bilinear")
    labels = {"test": torch.zeros(5, dtype=torch.long)}
    here = folders.Folder({"test": tuple(map(str, paths))}, labels, ("any",), "noise", {}, inputs=inputs)
    there = dataclasses.replace(here, workers=workers).to(torch.device("cuda"))
    found = (list(folder.batches("test", [slice(0, 2), slice(2, 5)], [0, 1])) for folder in (here, there))
    for a, b in zip(*found, strict=True):
        assert b.device.type == "cuda"
        torch.testing.assert_close(a, b.cpu())
