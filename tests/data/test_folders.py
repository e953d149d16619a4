"""Folders of images: decoded as torchvision and timm do it, the same by any number of workers, and what is refused."""

import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from trustlib import data
from trustlib.data import Inputs, folders

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Landscape, portrait, smaller than the input, long, and with halves to round when the centre is cut out.
SHAPES = [(50, 37), (37, 50), (9, 11), (90, 20), (33, 32), (35, 32), (41, 40)]
MODES = ["RGB", "L", "P", "RGBA", "CMYK"]


def save(path, mode="RGB", size=(24, 20), seed=0):
    """An image of blocks, as JPEG where the mode allows it, else as PNG under the same name."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    image = image.convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.fromarray(rng.integers(0, 256, size[::-1], dtype=np.uint8)))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG" if mode in ("P", "RGBA") else "JPEG")


@pytest.fixture
def root(tmp_path):
    """Three classes of 4 images to train on and 2 to test on, in every shape and mode."""
    names = [
        f"{folder}/{wnid}/{wnid}_{i}.JPEG"
        for wnid in ("n03", "n01", "n02")
        for folder, count in (("train", 4), ("val", 2))
        for i in range(count)
    ]
    for k, name in enumerate(names):
        save(tmp_path / "photos" / name, MODES[k % 5], SHAPES[k % 7], seed=k)
    return tmp_path / "photos"


def load(root, inputs=None, **arguments):
    return folders.load_folder(root, **{"heldout": 5, **arguments}).seen_by(inputs or Inputs(MEAN, STD, size=16))


def test_three_disjoint_parts_fixed_complete_and_labelled_by_the_sorted_class_names(root):
    images = load(root)
    assert {part: len(images.labels[part]) for part in data.PARTS} == {"train": 7, "heldout": 5, "test": 6}
    trained, tests = (sorted(map(str, root.glob(f"{folder}/*/*.JPEG"))) for folder in ("train", "val"))
    assert sorted(images.paths["train"] + images.paths["heldout"]) == trained
    assert images.paths["test"] == tuple(tests[i] for i in np.random.default_rng(42).permutation(6))
    assert images.paths["heldout"] == tuple(trained[i] for i in np.random.default_rng(42).permutation(12)[:5])
    assert images.classes == ("n01", "n02", "n03")
    assert images.labels["train"].dtype == torch.int64
    for part in data.PARTS:
        of_folders = [Path(path).parent.name for path in images.paths[part]]
        assert [images.classes[y] for y in images.labels[part]] == of_folders


def test_source_and_checksum_are_of_the_images_wherever_the_folder_lies(root, tmp_path, monkeypatch):
    images = load(root)
    assert images.source == "the folder photos"
    (root / "train" / "n01" / "notes.txt").write_text("no image")
    (root / "train" / "loose.jpg").write_text("in no class")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(root.rename(tmp_path / "elsewhere" / "photos"))
    again = load(Path("."))
    assert (again.source, again.checksums) == (images.source, images.checksums)
    save(Path("val/n01/b.jpg"))
    assert load(Path(".")).checksums != images.checksums


# --- What a network sees ---


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [None, 0.875, 1.0])
@pytest.mark.parametrize("size", [15, 16])
def test_pixels_are_torchvisions(root, size, crop, interpolation):
    method = InterpolationMode(interpolation)
    steps = {
        None: [transforms.Resize((size, size), method)],
        0.875: [transforms.Resize({15: 17, 16: 18}[size], method), transforms.CenterCrop(size)],
        1.0: [transforms.Resize(size, method), transforms.CenterCrop(size)],
    }
    expected = transforms.Compose([*steps[crop], transforms.PILToTensor()])
    images = load(root, Inputs(MEAN, STD, size, crop, interpolation))
    for part in data.PARTS:
        wanted = torch.stack([expected(Image.open(path).convert("RGB")) for path in images.paths[part]])
        assert torch.equal(images.pixels(part, slice(None)), wanted)


@pytest.mark.parametrize("crop", [0.875, 0.9, 1.0])
def test_a_view_is_timms(root, crop):
    expected = timm.data.create_transform((3, 20, 20), interpolation="bicubic", mean=MEAN, std=STD, crop_pct=crop)
    images = load(root, Inputs(MEAN, STD, size=20, crop=crop))
    wanted = torch.stack([expected(Image.open(path).convert("RGB")) for path in images.paths["train"]])
    assert torch.equal(images.view("train", slice(None)), wanted)
    assert torch.equal(images.images["train"][3:5], images.pixels("train", slice(3, 5)))  # decoded when it is indexed
    assert folders.load_folder(root, heldout=5).images["test"].shape == (6, 3, 224, 224)  # for the eye


@pytest.mark.parametrize("then", [8, 40])
def test_a_view_is_chosen_mirrored_and_resized_by_nearest_neighbour_where_asked(root, then):
    images = load(root)
    x = images.view("test", slice(None))
    found = images.view("test", torch.tensor([4, 1, 4]), torch.tensor([0, 1, 1]))
    assert not torch.equal(x[4], x[4].flip(-1))
    assert torch.equal(found, torch.stack([x[4], x[1].flip(-1), x[4].flip(-1)]))
    mirrored = images.view("test", slice(1, 3), 1)
    assert torch.equal(mirrored, x[1:3].flip(-1))
    source = torch.arange(then) * 16 // then
    found = load(root, Inputs(MEAN, STD, size=16, then=then)).view("test", slice(1, 3), True)
    assert torch.equal(found, mirrored[:, :, source][:, :, :, source])


# --- Workers ---


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_views_whatever_the_workers(root, workers):
    torch.set_num_threads(2)  # the workers are forked from a process that has used its threads
    torch.nn.functional.conv2d(torch.randn(4, 3, 64, 64), torch.randn(8, 3, 5, 5))
    images = load(root, Inputs(MEAN, STD, size=16, crop=0.875, then=20), workers=workers)
    index = [torch.tensor([3, 0]), slice(1, 4), torch.tensor([], dtype=torch.int64), torch.tensor([6]), slice(0, 7)]
    views = [torch.tensor([1, 0]), 0, 1, 1, torch.arange(7) % 2]
    state = torch.get_rng_state()
    found = list(images.batches("train", index, views))
    assert torch.equal(torch.get_rng_state(), state)
    for x, i, view in zip(found, index, views, strict=True):
        assert torch.equal(x, images.view("train", i, view))


def test_workers_go_when_the_caller_stops_and_are_not_sent_the_set(root):
    images, others = load(root, workers=2), set(multiprocessing.active_children())
    assert len(pickle.dumps(images._decode)) < 1000
    batches = images.batches("train", [slice(0, 2)] * 20, [False] * 20)
    next(batches)
    assert len(set(multiprocessing.active_children()) - others) == 2
    del batches
    assert set(multiprocessing.active_children()) <= others


# --- What is refused ---


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "damage", [lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), Path.unlink]
)
def test_an_image_that_cannot_be_read_is_named(root, damage, workers):
    images = load(root, workers=workers)
    bad = images.paths["test"][3]
    damage(Path(bad))
    batches = images.batches("test", [slice(0, 2), slice(2, 4), slice(4, 6)], [0] * 3)
    assert len(next(batches)) == 2
    with pytest.raises(data.DataError, match=rf"^{bad} cannot be read as an image \(.+\): replace the file") as error:
        list(batches)
    assert "Traceback" not in str(error.value)


def remove(root, pattern):
    for path in root.glob(pattern):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root / "val"), "there is no .*photos/val.*Expected in .*: train/"),
        (lambda root: remove(root, "val/n02/*"), "no valid file for the classes n02.*Expected in"),
        (lambda root: save(root / "val/n00/a.JPEG"), r"1 classes are in one part only, such as n00\. Expected"),
        (lambda root: remove(root, "train/*/*_[23].JPEG"), "more than the 6 images of the validation set, found 6"),
    ],
)
def test_what_is_missing_is_named_with_the_layout(root, damage, message):
    damage(root)
    with pytest.raises(data.DataError, match=message):
        load(root, heldout=6)
