"""Folders of images: decoded as torchvision and timm do it, the same by any number of workers, and what is refused."""

import hashlib
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
SQUARE = Inputs(MEAN, STD, size=16)
# Landscape, portrait, smaller than the input, long, and with halves to round when the centre is cut out.
SHAPES = [(50, 37), (37, 50), (9, 11), (90, 20), (33, 32), (35, 32), (41, 40)]
MODES = ["RGB", "L", "P", "RGBA", "CMYK"]


def save(path, mode="RGB", size=(24, 20), seed=0):
    """An image of blocks, as JPEG where the mode allows it, else as PNG under the same name."""
    rng = np.random.default_rng(seed)
    w, h = size
    image = Image.fromarray(rng.integers(0, 256, (7, 5, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    image = image.convert(mode) if mode != "RGBA" else image
    if mode == "RGBA":
        image.putalpha(Image.fromarray(rng.integers(0, 256, (h, w), dtype=np.uint8)))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, "PNG" if mode in ("P", "RGBA") else "JPEG")


@pytest.fixture
def root(tmp_path):
    """Three classes of 4 images to train on and 2 to test on, in every shape and mode."""
    k = 0
    for name in ("n03", "n01", "n02"):
        for folder, count in (("train", 4), ("val", 2)):
            for i in range(count):
                save(tmp_path / "photos" / folder / name / f"{name}_{i}.JPEG", MODES[k % 5], SHAPES[k % 7], seed=k)
                k += 1
    return tmp_path / "photos"


def load(root, **arguments):
    return folders.load_folder(root, **{"heldout": 5, **arguments}).seen_by(SQUARE)


# --- What is there ---


def test_three_disjoint_parts_fixed_and_complete(root):
    images = load(root)
    assert {part: len(images.labels[part]) for part in data.PARTS} == {"train": 7, "heldout": 5, "test": 6}
    trained = images.paths["train"] + images.paths["heldout"]
    assert sorted(trained) == sorted(map(str, root.glob("train/*/*.JPEG")))
    tests = sorted(map(str, root.glob("val/*/*.JPEG")))
    assert images.paths["test"] == tuple(tests[i] for i in np.random.default_rng(42).permutation(6))
    order = np.random.default_rng(42).permutation(12)
    assert images.paths["heldout"] == tuple(sorted(trained)[i] for i in order[:5])
    assert load(root).paths == images.paths


def aligned(images):
    """Whether every label is that of its file's folder."""
    return all(
        [images.classes[y] for y in images.labels[part]] == [Path(path).parent.name for path in images.paths[part]]
        for part in data.PARTS
    )


def test_labels_are_the_places_of_the_sorted_class_names(root):
    images = load(root)
    assert images.classes == ("n01", "n02", "n03")
    assert sorted(images.labels["test"].tolist()) == [0, 0, 1, 1, 2, 2]
    assert images.labels["train"].dtype == torch.int64
    assert aligned(images)


def test_source_and_checksum_do_not_depend_on_where_the_folder_lies(root, tmp_path, monkeypatch):
    images = load(root)
    lines = [
        f"{path.relative_to(root)} {path.stat().st_size}\n"
        for folder in ("train", "val")
        for path in sorted(root.glob(f"{folder}/*/*.JPEG"))
    ]
    assert images.checksums == {"listing": hashlib.sha256("".join(lines).encode()).hexdigest()}
    assert images.source == "the folder photos"
    (tmp_path / "elsewhere").mkdir()
    moved = root.rename(tmp_path / "elsewhere" / "photos")
    monkeypatch.chdir(moved)
    again = load(Path("."))
    assert (again.source, again.checksums) == (images.source, images.checksums)
    with open(moved / "val/n01/n01_0.JPEG", "ab") as file:
        file.write(b"more")
    assert load(moved).checksums != images.checksums


def test_other_files_are_ignored_and_endings_may_be_small(root):
    before = load(root)
    (root / "train" / "n01" / "notes.txt").write_text("no image")
    (root / "train" / "loose.jpg").write_text("in no class")
    assert load(root).checksums == before.checksums
    save(root / "val" / "n01" / "b.jpg")
    assert len(load(root).labels["test"]) == len(before.labels["test"]) + 1


def test_labels_and_images_go_to_the_device(root):
    images = load(root).to("meta")
    assert images.labels["heldout"].device.type == "meta"
    for made in (images.pixels, images.view):
        assert made("test", slice(0, 2)).device.type == "meta"
    assert next(images.batches("test", [slice(0, 2)], [True])).device.type == "meta"


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
    images = load(root).seen_by(Inputs(MEAN, STD, size, crop, interpolation))
    for part in data.PARTS:
        pixels = images.pixels(part, slice(None))
        assert pixels.dtype == torch.uint8
        for path, found in zip(images.paths[part], pixels, strict=True):
            torch.testing.assert_close(found, expected(Image.open(path).convert("RGB")), rtol=0, atol=0)


@pytest.mark.parametrize("crop", [0.875, 0.9, 1.0])
def test_a_view_is_timms(root, crop):
    expected = timm.data.create_transform((3, 20, 20), interpolation="bicubic", mean=MEAN, std=STD, crop_pct=crop)
    images = load(root).seen_by(Inputs(MEAN, STD, size=20, crop=crop))
    found = images.view("train", slice(None))
    assert found.dtype == torch.float32
    wanted = torch.stack([expected(Image.open(path).convert("RGB")) for path in images.paths["train"]])
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_a_view_is_chosen_and_mirrored_as_asked(root):
    images = load(root)
    whole = images.view("test", slice(None))
    index, view = torch.tensor([4, 1, 4]), torch.tensor([0, 1, 1])
    found = images.view("test", index, view)
    assert not torch.equal(whole[4], whole[4].flip(-1))
    assert torch.equal(found, torch.stack([whole[4], whole[1].flip(-1), whole[4].flip(-1)]))
    assert torch.equal(images.view("test", slice(1, 3), 1), whole[1:3].flip(-1))


@pytest.mark.parametrize("then", [8, 40])
def test_then_resizes_the_normalised_input_by_nearest_neighbour(root, then):
    images = load(root)
    x = images.view("test", slice(None), True)
    source = torch.arange(then) * 16 // then
    found = images.seen_by(Inputs(MEAN, STD, size=16, then=then)).view("test", slice(None), True)
    assert torch.equal(found, x[:, :, source][:, :, :, source])


# --- Workers ---


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_views_whatever_the_workers(root, workers):
    torch.set_num_threads(2)  # the workers are forked from a process that has used its threads
    torch.nn.functional.conv2d(torch.randn(4, 3, 64, 64), torch.randn(8, 3, 5, 5))
    images = load(root, workers=workers).seen_by(Inputs(MEAN, STD, size=16, crop=0.875, then=20))
    index = [torch.tensor([3, 0]), slice(1, 4), torch.tensor([], dtype=torch.int64), torch.tensor([6]), slice(0, 7)]
    views = [torch.tensor([1, 0]), 0, 1, 1, torch.arange(7) % 2]
    state = torch.get_rng_state()
    found = list(images.batches("train", index, views))
    assert torch.equal(torch.get_rng_state(), state)
    assert [len(x) for x in found] == [2, 3, 0, 1, 7]
    for x, i, view in zip(found, index, views, strict=True):
        assert torch.equal(x, images.view("train", i, view))


def test_workers_decode_elsewhere_and_go_when_the_caller_stops(root):
    others = set(multiprocessing.active_children())  # of other tests
    batches = load(root, workers=2).batches("train", [slice(0, 2)] * 20, [False] * 20)
    next(batches)
    assert len(set(multiprocessing.active_children()) - others) == 2
    del batches
    assert set(multiprocessing.active_children()) <= others


def test_what_a_worker_is_sent_does_not_grow_with_the_set(root):
    images = load(root)
    assert len(pickle.dumps(images._decode)) < 1000


# --- What is refused ---

DAMAGE = {"truncated": lambda raw: raw[: len(raw) // 2], "empty": lambda raw: b"", "no image": lambda raw: b"text" * 50}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", [*DAMAGE, "gone"])
def test_an_image_that_cannot_be_read_is_named(root, how, workers):
    images = load(root, workers=workers)
    bad = Path(images.paths["test"][3])
    if how == "gone":
        bad.unlink()
    else:
        bad.write_bytes(DAMAGE[how](bad.read_bytes()))
    batches = images.batches("test", [slice(0, 2), slice(2, 4), slice(4, 6)], [0] * 3)
    assert len(next(batches)) == 2
    with pytest.raises(data.DataError, match=rf"^{bad} cannot be read as an image \(.+\): replace the file") as error:
        list(batches)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("missing", [".", "train", "val"])
def test_a_missing_folder_is_named_with_the_layout(root, missing):
    shutil.rmtree(root / missing)
    with pytest.raises(data.DataError) as error:
        load(root)
    where = root / ("train" if missing == "." else missing)
    for part in (f"No such file or directory: '{where}'", f"Expected in {root}: train/CLASS/*.JPEG and val/CLASS"):
        assert part in str(error.value)


@pytest.mark.parametrize("folder", ["train", "val"])
def test_an_empty_class_is_named(root, folder):
    for path in (root / folder / "n02").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(data.DataError, match=r"no valid file for the classes n02.*Expected in"):
        load(root)


@pytest.mark.parametrize("more", ["train", "val"])
def test_a_class_of_one_part_only_is_named(root, more):
    save(root / more / "n00" / "a.JPEG")
    with pytest.raises(data.DataError, match=r"1 classes are in one part only, such as n00\. Expected"):
        load(root)


def test_an_image_must_be_left_to_train_on(root):
    assert len(load(root, heldout=11).labels["train"]) == 1
    with pytest.raises(data.DataError, match="train: expected more than the 12 images of the validation set, found 12"):
        load(root, heldout=12)


@pytest.mark.parametrize("changes", [{"size": None}, {"crop": 1.1}, {"crop": 0.0}])
def test_inputs_that_do_not_suit_a_folder(root, changes):
    with pytest.raises(ValueError, match=r"differ in size: its inputs need one size, and a crop in \(0, 1\] or none"):
        load(root).seen_by(Inputs(**{"mean": MEAN, "std": STD, "size": 16, **changes}))


def test_inputs_come_first(root):
    with pytest.raises(ValueError, match="no inputs yet: choose them with seen_by"):
        folders.load_folder(root, heldout=5).view("test", slice(1))
