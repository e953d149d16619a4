"""Folders of images: decoded as torchvision and timm do it, the same by any number of workers, and what is refused."""

import hashlib
import json
import multiprocessing
import os
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
def root(tmp_path, monkeypatch):
    """Three classes of 4 images to train on and 2 to test on, in every shape and mode, and an empty data root."""
    monkeypatch.setenv("TRUST_DATA", str(tmp_path / "data"))
    k = 0
    for name in ("n03", "n01", "n02"):
        for folder, count in (("train", 4), ("val", 2)):
            for i in range(count):
                save(tmp_path / "photos" / folder / name / f"{name}_{i}.JPEG", MODES[k % 5], SHAPES[k % 7], seed=k)
                k += 1
    return tmp_path / "photos"


def load(root, **arguments):
    return folders.load_folder(root, **{"heldout": 5, "log": no_log, **arguments}).seen_by(SQUARE)


def no_log(line):
    pytest.fail(f"said {line!r}")


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


@pytest.mark.parametrize("backwards", [False, True])
def test_the_order_in_which_a_disk_lists_its_files_does_not_matter(root, monkeypatch, backwards):
    images = load(root)

    def listed(path, scandir=os.scandir):
        return iter(sorted(scandir(path), key=lambda entry: entry.name, reverse=backwards))

    monkeypatch.setattr(folders.os, "scandir", listed)
    again = load(root)
    assert (again.classes, again.paths, again.checksums) == (images.classes, images.paths, images.checksums)
    assert aligned(again)


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
    save(root / "train" / "n01" / "deeper.jpg" / "a.jpg")
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


# --- What is damaged ---

DAMAGE = {"truncated": lambda raw: raw[: len(raw) // 2], "empty": lambda raw: b"", "no image": lambda raw: b"text" * 50}


def damage(path, how="truncated"):
    path.write_bytes(DAMAGE[how](path.read_bytes()))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_file_is_named_when_it_is_read(root, how, workers):
    images = load(root, workers=workers)
    bad = Path(images.paths["test"][3])
    damage(bad, how)
    batches = images.batches("test", [slice(0, 2), slice(2, 4), slice(4, 6)], [0] * 3)
    assert len(next(batches)) == 2
    with pytest.raises(data.DataError) as error:
        list(batches)
    for part in (f"{bad} is damaged ({how}" if how != "truncated" else f"{bad} is damaged", "`damaged: skip`"):
        assert part in str(error.value)
    assert "Traceback" not in str(error.value)
    assert "0x" not in str(error.value)
    with pytest.raises(data.DataError, match=rf"{bad.name} is damaged"):
        images.view("test", slice(3, 4))


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_files_are_left_out_before_the_split_where_the_study_says_so(root, monkeypatch, workers):
    monkeypatch.setattr(folders, "CHECKED_TOGETHER", 1)
    clean = load(root)
    bad = ("train/n01/n01_2.JPEG", "train/n03/n03_0.JPEG", "val/n02/n02_1.JPEG")
    for path, how in zip(bad, DAMAGE, strict=True):
        damage(root / path, how)
    said = []
    images = load(root, workers=workers, damaged="skip", log=said.append)
    assert images.damaged == bad
    assert {part: len(images.labels[part]) for part in data.PARTS} == {"train": 5, "heldout": 5, "test": 5}
    assert aligned(images)
    assert sorted(images.labels["test"].tolist()) == [0, 0, 1, 2, 2]
    assert [len(x) for x in images.batches("train", [slice(None)], [0])] == [5]
    for path in bad:
        assert str(root / path) not in images.paths["train"] + images.paths["heldout"] + images.paths["test"]
    assert [line.split(": ")[1].split(" of")[0] for line in said] == [f"{k}0 %" for k in range(1, 11)]
    assert said[-1] == "photos: 100 % of 18 images checked, 3 damaged"
    # The set is named by the files in use: with the damaged ones deleted it is the same.
    for path in bad:
        (root / path).unlink()
    without = load(root)
    assert without.checksums == images.checksums != clean.checksums
    assert without.paths == images.paths


def test_a_listing_is_checked_once(root):
    damage(root / "val" / "n02" / "n02_1.JPEG")
    said = []
    first = load(root, damaged="skip", log=said.append)
    assert said
    (kept,) = (data.root() / "checked").iterdir()
    assert kept.name == load(root).checksums["listing"] + ".json"
    assert json.loads(kept.read_text()) == {
        "source": "the folder photos", "files": 18, "damaged": ["val/n02/n02_1.JPEG"],
    }  # fmt: skip
    again = load(root, damaged="skip", log=no_log)
    assert (again.paths, again.damaged, again.checksums) == (first.paths, first.damaged, first.checksums)
    damage(root / "train" / "n01" / "n01_2.JPEG")
    assert len(load(root, damaged="skip", log=said.append).damaged) == 2


def test_a_sound_set_is_the_same_with_and_without_the_check(root):
    checked = load(root, damaged="skip", log=lambda line: None)
    assert checked.damaged == ()
    assert (checked.paths, checked.checksums) == (load(root).paths, load(root).checksums)


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 18}'])
def test_a_damaged_outcome_of_the_check_is_named(root, content):
    kept = data.root() / "checked" / f"{load(root).checksums['listing']}.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(content)
    with pytest.raises(data.DataError, match=f"{kept.name} is damaged; delete it"):
        load(root, damaged="skip")


def test_a_class_with_nothing_but_damaged_images_is_named(root):
    for path in root.glob("val/n02/*"):
        damage(path)
    with pytest.raises(data.DataError, match="val: no undamaged image for n02"):
        load(root, damaged="skip", log=lambda line: None)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_cannot_be_read_is_never_left_out(root, monkeypatch, workers):
    def lose(listings, digest=folders._digest):
        (root / "train" / "n01" / "n01_2.JPEG").unlink()
        return digest(listings)

    monkeypatch.setattr(folders, "_digest", lose)
    with pytest.raises(data.DataError, match=r"n01_2\.JPEG cannot be read \(No such file"):
        load(root, workers=workers, damaged="skip", log=lambda line: None)
    assert not list((data.root() / "checked").iterdir())


# --- What is refused ---


@pytest.mark.parametrize("missing", [".", "train", "val"])
def test_a_missing_folder_is_named_with_the_layout(root, missing):
    shutil.rmtree(root / missing)
    with pytest.raises(data.DataError) as error:
        load(root)
    where = root / ("train" if missing == "." else missing)
    for part in (f"{where}: No such file", f"Expected in {root}", "ROOT/train/CLASS/*.JPEG", "ROOT/val/CLASS/*.JPEG"):
        assert part in str(error.value)


def test_images_in_no_class_folder_are_counted(root):
    for path in list(root.glob("val/*/*")):
        path.rename(root / "val" / path.name)
    for path in [path for path in (root / "val").iterdir() if path.is_dir()]:
        path.rmdir()
    with pytest.raises(data.DataError, match="val: expected a folder for each class, found 6 images outside of any"):
        load(root)
    for path in (root / "val").iterdir():
        path.unlink()
    with pytest.raises(data.DataError, match="val: expected a folder for each class, found no images at all"):
        load(root)


@pytest.mark.parametrize("folder", ["train", "val"])
def test_an_empty_class_is_named(root, folder):
    for path in (root / folder / "n02").iterdir():
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(data.DataError, match=f"{folder}: no image for n02; put"):
        load(root)


@pytest.mark.parametrize(("more", "fewer"), [("train", "val"), ("val", "train")])
def test_classes_of_one_part_only_are_named_up_to_five(root, more, fewer):
    save(root / more / "n00" / "a.JPEG")
    with pytest.raises(data.DataError, match=rf"{more} has classes that {fewer} lacks: n00\. Expected"):
        load(root)
    for k in range(4, 10):
        save(root / more / f"n0{k}" / "a.JPEG")
    with pytest.raises(data.DataError, match=r"lacks: n00, n04, n05, n06, n07, \.\.\. \(7 in all\)"):
        load(root)


def test_an_image_must_be_left_to_train_on(root):
    assert len(load(root, heldout=11).labels["train"]) == 1
    with pytest.raises(data.DataError, match="train: expected more than the 12 images to hold out, found 12"):
        load(root, heldout=12)


def test_a_dangling_link_is_named(root):
    (root / "val" / "n01" / "z.JPEG").symlink_to(root / "nowhere")
    with pytest.raises(data.DataError, match=r"val/n01/z\.JPEG: No such file"):
        load(root)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heldout": -1}, "heldout and workers must be >= 0, found -1 and 0"),
        ({"workers": -2}, "found 5 and -2"),
        ({"damaged": "ignore"}, "'ignore'"),
    ],
)
def test_wrong_arguments(root, arguments, message):
    with pytest.raises(ValueError, match=message):
        load(root, **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": None}, "differ in size: its inputs need one"),
        ({"mean": (0.5,)}, "3 channels"),
        ({"std": (0.5, 0.5)}, "3 channels"),
        ({"crop": 1.1}, r"crop must be in \(0, 1\]"),
        ({"crop": 0.0}, r"crop must be in \(0, 1\]"),
        ({"interpolation": "lanczos"}, "'lanczos'; known: bicubic, bilinear"),
    ],
)
def test_inputs_that_do_not_suit_a_folder(root, changes, message):
    with pytest.raises(ValueError, match=message):
        load(root).seen_by(Inputs(**{"mean": MEAN, "std": STD, "size": 16, **changes}))


def test_inputs_come_first_and_every_batch_has_a_view(root):
    images = folders.load_folder(root, heldout=5)
    for call in (
        lambda: images.view("test", slice(1)),
        lambda: images.pixels("test", slice(1)),
        lambda: images.batches("test", [slice(1)], [False]),
    ):
        with pytest.raises(ValueError, match="no inputs yet: choose them with seen_by"):
            call()
    with pytest.raises(ValueError, match="a view for each of 2 batches, found 1"):
        images.seen_by(SQUARE).batches("test", [slice(1)] * 2, [False])
