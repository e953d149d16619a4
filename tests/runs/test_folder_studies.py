"""A study of image folders from end to end, and the check of what it needs."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import make, quiet
from PIL import Image
from safetensors.torch import save_file

from trustlib import __main__ as commands
from trustlib import data, training
from trustlib import study as study_settings
from trustlib.analysis import compare
from trustlib.models import backbone, pretrained
from trustlib.runs import networks, shifted, steps, store
from trustlib.runs.results import Run
from trustlib.shifts import domains, recolor
from trustlib.study import StudyError, load_study

CLASSES = ("n01440764", "n01443537", "n01484850")
ARGS = {"large": {"channels": [8, 8, 16, 16], "stem_width": 4}, "small": {"channels": [4, 8, 8, 8], "stem_width": 4}}
STUDY = {
    "dataset": "folder",
    "folder": "photos",
    "heldout": 20,
    "flip": True,
    "preprocessing": "released",
    "networks": {
        name: {
            "label": name,
            "model": "resnet10t",
            "args": args,
            "weights": f"weights/{name}.safetensors",
            "inputs": {"size": side, "crop": 0.9},
            "steep_slope": {"alpha_pos": 2.0, "alpha_neg": 5.0},
        }
        for (name, args), side in zip(ARGS.items(), (32, 24), strict=True)
    },
    "pairs": ["large-small", "small-small"],
    "oracle": {"epochs": 1, "batch": 5, "rate": 1.0e-4, "weight_decay": 0.0, "optimizer": "onecycle"},
    "methods": {
        "ce": {"label": "CE", "loss": "ce", "head": "linear"},
        "ss-frozen": {
            "label": "SS, frozen", "loss": "ss", "head": "distance", "backbone": "frozen",
            "training": {"optimizer": "adamw", "rate": 1.0e-2, "batch": 20},
        },
    },
    "seeds": [0],
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


def train(study, pair="large-small"):
    make(steps.oracle(study, pair, arm, 0) for arm in study.methods)


def outputs(study, arm, pair="large-small", part="test"):
    return steps.oracle(study, pair, arm, 0).tensors(f"{part}.")["z"]


# --- A study of folders ---


def test_shifts_are_made_of_what_the_classifier_sees(write, monkeypatch):
    monkeypatch.setattr(domains.recolor, "attack", partial(recolor.attack, steps=2))
    judged = {"judged": ["saturate-1", "stylized", "recolor"], "images": 9, "attacked": 6}
    study = write(domains=judged, dropout_passes=2)
    train(study)
    pixels = study.images().seen_by(networks.inputs(study, "small")).images["test"]
    for part in study.domains.parts.values():
        count = study.domains.size(part)
        images, observed, asked = make(shifted.of_part(study, part, ["large-small"]))
        made, seen, z = images.tensors()["images"], observed.tensors(), asked.tensors()
        assert made.shape == (count, 3, 24, 24)  # the classifier's size; the oracle's is 32
        assert 0 < (made.float() - pixels[:count].float()).abs().mean() < 64
        assert seen["mcp"].shape == z["ce/seed0"].shape == seen["trust_score"].shape == (count,)
        assert z["ce/seed0"].isfinite().all()
        changed, own = (
            shifted._shifted(study, study.images(), images, "small", "large"),
            steps.classifier(study, "large"),
        )
        for arm in ("ce", "ss-frozen"):  # a frozen one, too, is asked about the images
            oracle = steps.oracle(study, "large-small", arm, 0)
            net = networks.trained_oracle(study, "large-small", arm, oracle, own, torch.device("cpu"))
            torch.testing.assert_close(z[f"{arm}/seed0"], training.predict(net, changed, "test")[0])
    # The images as they are, in place of a shift's, are what the networks saw of them.
    monkeypatch.setattr(type(images), "tensors", lambda self: {"images": pixels[:9]})
    plain = shifted._shifted(study, study.images(), images, "small")
    whole = study.images().seen_by(networks.inputs(study, "small"))
    torch.testing.assert_close(plain.view("test", slice(0, 9)), whole.view("test", slice(0, 9)))
    large = shifted._shifted(study, study.images(), images, "small", "large")
    assert large.view("test", slice(0, 9)).shape[2:] == (32, 32)


def test_imagenets_images_as_others_published_them_are_preferred_and_named(write, root, tmp_path, monkeypatch):
    whole = tmp_path / "data"
    whole.mkdir()
    for name in ("photos", "weights"):
        (whole / name).symlink_to(root / name)
    study = write(domains={"judged": ["stylized", "fog-3", "fog-4"], "images": 9})
    monkeypatch.setenv("TRUST_DATA", str(whole))
    shades = {path: 20 * i for i, path in enumerate(study.images().paths["test"])}
    for place in ("Stylized-ImageNet/val", "ImageNet-C/fog/3"):
        for path, shade in shades.items():
            file = whole / place / Path(path).parent.name / f"{Path(path).stem}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (22, 20), (shade,) * 3).save(file)
    expected = torch.tensor(list(shades.values()))[:9, None, None, None].expand(-1, 3, 24, 24).byte()
    for name, how in (("stylized", "Stylized-ImageNet"), ("fog-3", "the released files of ImageNet-C")):
        made = shifted.images(study, f"domains/{name}", "small").get(quiet)
        assert made.manifest["how"] == how
        assert torch.equal(made.tensors()["images"], expected)
    made = shifted.images(study, "domains/fog-4", "small").get(quiet)
    assert made.manifest["how"].startswith("the package imagecorruptions")


def test_a_trained_and_a_frozen_oracle_judge_every_image_and_are_evaluated(write):
    study = write()
    train(study)
    for arm in study.methods:
        for part, count in (("heldout", 20), ("test", 15)):
            z = outputs(study, arm, part=part)
            assert z.shape == (count,)
            assert z.dtype == torch.float32
            assert z.unique().numel() > 1
    frame = compare.evaluate(Run(study), ["large-small"])
    assert frame["arm"].tolist() == ["mcp", "ce", "ss-frozen"]
    right = steps.classifier(study, "small").tensors("test.")
    assert right["logits"].shape == (15, 3)  # the three classes' rows of the thousand
    assert frame["accuracy"].tolist() == pytest.approx([right["correct"].float().mean().item()] * 3)


def test_the_number_of_workers_changes_no_bit(write, tmp_path, monkeypatch):
    found = []
    for workers in (0, 2):
        monkeypatch.setenv("TRUST_RESULTS", str(tmp_path / f"workers{workers}"))
        study = write(workers=workers)
        train(study, "small-small")
        found.append([outputs(study, arm, "small-small") for arm in study.methods])
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
    train(own)
    assert outputs(own, "ce").shape == (15,)


def test_an_image_that_cannot_be_read_is_named(write, root):
    broken = root / "photos" / "train" / CLASSES[1] / "broken.JPEG"
    broken.write_bytes((root / "photos" / "train" / CLASSES[0] / "0.JPEG").read_bytes()[:300])
    study_settings._folder.cache_clear()
    try:
        with pytest.raises(data.DataError, match=r"broken\.JPEG cannot be read as an image"):
            train(write())
    finally:
        broken.unlink()
        study_settings._folder.cache_clear()


def test_pictures_are_decoded_when_they_are_indexed(write):
    images = write().images()
    assert images.images["test"].shape == (15, 3, 224, 224)
    pictures = images.images["test"][:2]
    assert pictures.shape == (2, 3, 224, 224)
    assert pictures.dtype == torch.uint8
    assert torch.equal(images.images["test"][torch.tensor([1])][0], pictures[1])
    seen = images.seen_by(data.Inputs((0.5,) * 3, (0.5,) * 3, size=8))
    assert seen.images["heldout"].shape == (20, 3, 8, 8)
    assert torch.equal(seen.images["heldout"][3:5], seen.pixels("heldout", slice(3, 5)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domains": {"judged": ["normalised"]}}, "normalised needs networks that see the images standardised"),
        ({"domains": {"judged": ["recolor-released"]}}, "recolor-released needs networks that see the images"),
        ({"networks": STUDY["networks"] | {"large": {
            **{k: v for k, v in STUDY["networks"]["large"].items() if k not in ("weights", "inputs")},
            "training": {"epochs": 1, "batch": 20, "rate": 1.0e-3, "weight_decay": 0.0},
        }}}, "networks.large: a dataset of folders needs weights"),
    ],
)  # fmt: skip
def test_what_folders_cannot_do_is_refused(write, changes, message):
    with pytest.raises(StudyError, match=message):
        write(**changes)


# --- The check ---


def check(study, monkeypatch, capsys):
    """(exit status, stdout, stderr) of ``python -m trustlib check``, in this process."""
    monkeypatch.setattr(sys, "argv", ["trustlib", "check", str(store.results().parent / f"{study.name}.yaml")])
    status = commands.main()
    return status, *capsys.readouterr()


def with_classes(number):
    return {
        name: network | {"args": network["args"] | {"num_classes": number}}
        for name, network in STUDY["networks"].items()
    }


def test_a_study_whose_networks_fit_passes_the_check(write, monkeypatch, capsys):
    assert check(write(), monkeypatch, capsys)[0] == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folder": "phots"}, "No such file or directory: "),
        ({"networks": {
            name: network | {"weights": "weights/none.safetensors"} for name, network in STUDY["networks"].items()
        }}, "no weights at"),
    ],
)  # fmt: skip
def test_images_and_weights_that_are_missing_are_named(write, monkeypatch, capsys, changes, message):
    status, _, err = check(write(**changes), monkeypatch, capsys)
    assert status == 1
    assert message in err


@pytest.mark.parametrize("number", [2, 1001])
def test_wordnet_ids_need_a_classifier_of_imagenets_classes(write, monkeypatch, capsys, number):
    status, _, err = check(write(networks=with_classes(number)), monkeypatch, capsys)
    assert status == 1
    assert "networks.small: expected a classifier of 1,000 classes, among which WordNet ids are looked up" in err
    assert f"resnet10t has {number:,}: correct num_classes" in err


def test_other_classes_need_a_classifier_of_as_many(write, root, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TRUST_DATA", str(tmp_path / "data"))
    (tmp_path / "data").mkdir()
    for part in ("train", "val"):
        (tmp_path / "data" / "photos" / part).mkdir(parents=True)
        for name, wnid in zip(("cat", "dog", "emu"), CLASSES, strict=True):
            (tmp_path / "data" / "photos" / part / name).symlink_to(root / "photos" / part / wnid)
    (tmp_path / "data" / "weights").symlink_to(root / "weights")
    status, _, err = check(write(), monkeypatch, capsys)
    assert status == 1
    assert "expected a classifier of 3 classes, since the images are of 3 (cat, dog, emu); resnet10t has 1,000" in err
    assert check(write(networks=with_classes(3)), monkeypatch, capsys)[0] == 0


def test_an_id_that_is_not_imagenets_is_named():
    why = pretrained.misfit("resnet10t", {}, True, ("n99999999",), ("n99999999",))
    assert "expected WordNet ids of ImageNet's 1,000 classes, found n99999999" in why
    assert pretrained.misfit("resnet10t", {"num_classes": 2}, False, ("a", "b"), ()) == ""
    assert "unknown backbone 'resnet10x'" in pretrained.misfit("resnet10x", {}, True, ("a",), ())
