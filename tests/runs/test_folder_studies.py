"""A study of image folders from end to end, and the check of what a study needs."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import make, quiet
from PIL import Image
from safetensors.torch import save_file

from trustlib import training
from trustlib.analysis import compare
from trustlib.models import backbone, pretrained
from trustlib.runs import networks, shifted, steps, store
from trustlib.runs.results import Run
from trustlib.shifts import domains, recolor
from trustlib.study import StudyError, load_study

CLASSES = ("n01440764", "n01443537", "n01484850")
ARGS = {"large": {"channels": [8, 8, 16, 16], "stem_width": 4}, "small": {"channels": [4, 8, 8, 8], "stem_width": 4}}
METHODS = {
    "ce": {"label": "CE", "loss": "ce", "head": "linear"},
    "ss-frozen": {
        "label": "SS, frozen", "loss": "ss", "head": "distance", "backbone": "frozen",
        "training": {"optimizer": "adamw", "rate": 1.0e-2, "batch": 20},
    },
}  # fmt: skip


def networks_with(**changes):
    """Two networks with pretrained weights, with other arguments, weights or without some of it."""
    made = {}
    for (name, args), side in zip(ARGS.items(), (32, 24), strict=True):
        network = {
            "label": name, "model": "resnet10t", "weights": f"weights/{name}.safetensors",
            "inputs": {"size": side, "crop": 0.9}, "steep_slope": {"alpha_pos": 2.0, "alpha_neg": 5.0},
        } | changes | {"args": args | changes.get("args", {})}  # fmt: skip
        made[name] = {key: value for key, value in network.items() if value is not None}
    return made


STUDY = {
    "dataset": "folder", "folder": "photos", "heldout": 20, "flip": True, "preprocessing": "released",
    "networks": networks_with(), "pairs": ["large-small", "small-small"], "methods": METHODS, "seeds": [0],
    "oracle": {"epochs": 1, "batch": 5, "rate": 1.0e-4, "weight_decay": 0.0, "optimizer": "onecycle"},
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root: 40 images to train on and 15 to test on in three classes, no two of a size, and two networks."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder, count in (("train", 40), ("val", 15)):
        for i in range(count):
            path = root / "photos" / folder / CLASSES[i % 3] / f"{i}.JPEG"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((31 + i, 57 - i)).save(path)
    (root / "weights").mkdir()
    torch.manual_seed(0)
    for name, args in ARGS.items():
        tensors = backbone.build_backbone("resnet10t", args).state_dict()
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, root / f"weights/{name}.safetensors")
    return root


@pytest.fixture
def write(root, tmp_path, monkeypatch):
    """A function that writes STUDY, changed as asked, and reads it; results lie in a folder of the test's own."""
    monkeypatch.setenv("TRUST_DATA", str(root))
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path / "results"))

    def write(**changes):
        path = tmp_path / "photos.yaml"
        path.write_text(yaml.safe_dump(STUDY | changes, sort_keys=False))
        return load_study(str(path))

    return write


@pytest.fixture
def link(root, tmp_path, write, monkeypatch):
    """A function that makes a data root of the test's own of some folders of `root`."""

    def link(*names):
        monkeypatch.setenv("TRUST_DATA", str(tmp_path))
        for name in names:
            (tmp_path / name).symlink_to(root / name)

    return link


def train(study, pair="large-small"):
    """Train the oracles of a pair: their files."""
    return make(steps.oracle(study, pair, arm, 0) for arm in study.methods)


def test_oracles_are_trained_and_shifts_made_of_what_the_classifier_sees(write, monkeypatch):
    monkeypatch.setattr(domains.recolor, "attack", partial(recolor.attack, steps=2))
    judged = {"judged": ["saturate-1", "stylized", "recolor"], "images": 9, "attacked": 6}
    study = write(domains=judged, dropout_passes=2)
    for trained in train(study):  # a frozen one, too
        for part, count in (("heldout", 20), ("test", 15)):
            z = trained.tensors(f"{part}.")["z"]
            assert (z.shape, z.dtype) == ((count,), torch.float32)
            assert z.unique().numel() > 1
    frame = compare.evaluate(Run(study), ["large-small"])
    assert frame["arm"].tolist() == ["mcp", "ce", "ss-frozen"]
    right = steps.classifier(study, "small").tensors("test.")
    assert right["logits"].shape == (15, 3)  # the three classes' rows of the thousand
    assert frame["accuracy"].tolist() == pytest.approx([right["correct"].float().mean().item()] * 3)

    whole = study.images().seen_by(networks.inputs(study, "small"))
    pixels = whole.images["test"]
    for part in study.domains.parts.values():
        count = study.domains.size(part)
        images, observed, asked = make(shifted.of_part(study, part, ["large-small"]))
        made, seen, z = images.tensors()["images"], observed.tensors(), asked.tensors()
        assert made.shape == (count, 3, 24, 24)  # the classifier's size; the oracle's is 32
        assert 0 < (made.float() - pixels[:count].float()).abs().mean() < 64
        assert seen["mcp"].shape == z["ce/seed0"].shape == seen["trust_score"].shape == (count,)
        changed = shifted._shifted(study, study.images(), images, "small", "large")
        for arm in study.methods:
            oracle, own = steps.oracle(study, "large-small", arm, 0), steps.classifier(study, "large")
            net = networks.trained_oracle(study, "large-small", arm, oracle, own, torch.device("cpu"))
            torch.testing.assert_close(z[f"{arm}/seed0"], training.predict(net, changed, "test")[0])
    # The images as they are, in place of a shift's, are what the networks saw of them.
    monkeypatch.setattr(type(images), "tensors", lambda self: {"images": pixels[:9]})
    plain = shifted._shifted(study, study.images(), images, "small")
    torch.testing.assert_close(plain.view("test", slice(0, 9)), whole.view("test", slice(0, 9)))
    large = shifted._shifted(study, study.images(), images, "small", "large")
    assert large.view("test", slice(0, 9)).shape[2:] == (32, 32)


def test_imagenets_images_as_others_published_them_are_preferred_and_named(write, link, tmp_path):
    link("photos", "weights")
    study = write(domains={"judged": ["stylized", "fog-3", "fog-4"], "images": 9})
    shades = {path: 20 * i for i, path in enumerate(study.images().paths["test"])}
    for place in ("Stylized-ImageNet/val", "ImageNet-C/fog/3"):
        for path, shade in shades.items():
            file = tmp_path / place / Path(path).parent.name / f"{Path(path).stem}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (22, 20), (shade,) * 3).save(file)
    expected = torch.tensor(list(shades.values()))[:9, None, None, None].expand(-1, 3, 24, 24).byte()
    for name, how in (("stylized", "Stylized-ImageNet"), ("fog-3", "the released files of ImageNet-C")):
        made = shifted.images(study, f"domains/{name}", "small").get(quiet)
        assert made.manifest["how"] == how
        assert torch.equal(made.tensors()["images"], expected)
    made = shifted.images(study, "domains/fog-4", "small").get(quiet)
    assert made.manifest["how"].startswith("the package imagecorruptions")


def test_the_number_of_workers_changes_no_bit(write, tmp_path, monkeypatch):
    found = []
    for workers in (0, 2):
        monkeypatch.setenv("TRUST_RESULTS", str(tmp_path / f"workers{workers}"))
        found.append([step.tensors("test.")["z"] for step in train(write(workers=workers), "small-small")])
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


def test_as_released_an_oracle_sees_what_its_classifier_sees_and_by_itself_its_own(write):
    study = write()
    assert networks.inputs(study, "large").size == 32
    released = networks.inputs(study, "large", "small")
    assert (released.size, released.then, released.crop, released.mean) == (24, 32, None, (0.5, 0.5, 0.5))
    view = study.images().seen_by(released).view("test", slice(3))
    assert view.shape == (3, 3, 32, 32)
    assert torch.equal(view[..., :1, :], view[..., 1:2, :])  # the nearest neighbour: 24 rows on 32
    own = write(preprocessing="own")
    assert networks.inputs(own, "large", "small") == networks.inputs(own, "large")
    assert networks.inputs(own, "large").crop == 0.9


@pytest.fixture
def checked(command):
    """A function that runs ``python -m trustlib check`` on a study that was written: what is wrong with it."""

    def check(study):
        status, _, err = command("check", store.results().parent / f"{study.name}.yaml")
        assert status == bool(err)
        return err

    return check


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "phots"}, "there is no "),
        ({"folder": "phots", "networks": networks_with(weights="weights/none.safetensors")}, "no weights at"),
        ({"networks": networks_with(weights="weights/none.safetensors")}, "no weights at"),
        (
            {"networks": networks_with(args={"num_classes": 9})},
            "networks.small: expected a classifier of 1,000 classes",
        ),
    ],
)
def test_images_and_weights_that_are_missing_or_do_not_fit_are_named(write, checked, changes, message):
    assert message in checked(write(**changes))
    assert checked(write()) == ""


def test_other_classes_need_a_classifier_of_as_many(write, checked, link, root, tmp_path):
    link("weights")
    for part in ("train", "val"):
        (tmp_path / "photos" / part).mkdir(parents=True)
        for name, wnid in zip(("cat", "dog", "emu"), CLASSES, strict=True):
            (tmp_path / "photos" / part / name).symlink_to(root / "photos" / part / wnid)
    wrong = "expected a classifier of 3 classes, since the images are of 3 (cat, dog, emu); resnet10t has 1,000"
    assert wrong in checked(write())
    assert checked(write(networks=networks_with(args={"num_classes": 3}))) == ""
    unknown = pretrained.misfit("resnet10t", {}, True, ("n99999999",), ("n99999999",))
    assert "expected WordNet ids of ImageNet's 1,000 classes, found n99999999" in unknown


def test_what_folders_cannot_do_is_refused(write):
    with pytest.raises(StudyError, match="recolor-released needs networks that see the images"):
        write(domains={"judged": ["recolor-released"]})
    training = {"epochs": 1, "batch": 20, "rate": 1.0e-3, "weight_decay": 0.0}
    with pytest.raises(StudyError, match=r"networks\.large: a dataset of folders needs weights"):
        write(networks=networks_with(weights=None, inputs=None, training=training))


@pytest.mark.parametrize(
    ("study", "message"),
    [
        ("fashon", "error: unknown study 'fashon'"),
        (None, "error: domain contrast-5: 1,001 images are asked for, the test set has 1,000; ask for fewer"),
    ],
)
def test_what_is_wrong_with_a_study_is_one_line_before_anything_is_trained(command, write_study, study, message):
    status, _, err = command("check", study or write_study(domains={"judged": ["contrast-5"], "images": 1001}))
    assert status == 1
    assert err.startswith(message)
    assert len(err.splitlines()) == 1
