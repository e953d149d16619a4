"""Small image sets: views of them, where each is looked for, in which order, and what is said when it is damaged."""

import gzip
import hashlib
import io
import pickle
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10, FashionMNIST

from trustlib import data
from trustlib.data import Inputs, small


def sizes(images):
    return {part: len(images.labels[part]) for part in data.PARTS}


def test_digits_have_three_disjoint_parts_and_need_no_network():
    images = data.digits()
    assert sizes(images) == {"train": 3000, "heldout": 1000, "test": 1000}
    seen = [bytes(x.numpy()) for part in data.PARTS for x in images.images[part]]
    assert len(set(seen)) == len(seen)
    assert images.images["test"].dtype == torch.uint8
    assert sum(images.labels[part].bincount() for part in data.PARTS).tolist() == [500] * 10
    with pytest.raises(ValueError, match="known: fashion, digits, cifar10"):
        data.load("imagenet22k")


def test_a_view_is_normalised_and_mirrored_where_asked():
    images = data.digits()
    x = images.view("train", slice(0, 3000))
    assert (x.mean().item(), x.std().item()) == pytest.approx((0, 1), abs=1e-3)
    both = images.view("train", torch.tensor([5, 5]), torch.tensor([0, 1]))
    torch.testing.assert_close(both[1], both[0].flip(-1))
    torch.testing.assert_close(images.view("train", slice(5, 6), 1)[0], both[1])


@pytest.mark.parametrize(
    "inputs", [None, Inputs((0.5,), (0.5,)), Inputs((0.5,), (0.5,), size=28), Inputs((0.5,), (0.5,), 20, crop=0.9)]
)
def test_a_view_leaves_images_of_float32_as_they_are(inputs):
    """Images under a distribution shift need not be rounded, nor lie between 0 and 255."""
    whole = data.digits().seen_by(inputs)
    stored = whole.images["test"][:4].float() * 1.2 - 30
    before = stored.clone()
    first = replace(whole, images=whole.images | {"test": stored}).view("test", slice(None))
    assert torch.equal(stored, before)
    exact = replace(whole, images=whole.images | {"test": before.double()})
    assert torch.equal(exact.view("test", slice(None)), first)


@pytest.fixture
def data_root(monkeypatch, tmp_path):
    """An empty data root, and nothing kept of other tests."""
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    sets = data.fashion, data.tiny, data.cifar10
    for made in sets:
        made.cache_clear()
    yield tmp_path
    for made in sets:
        made.cache_clear()


# --- Fashion-MNIST ---


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


@pytest.fixture
def small_fashion(data_root, monkeypatch):
    """Fashion-MNIST's four files in little, in a folder, and every other source shut off."""
    rng, content = np.random.default_rng(0), {}
    for part, count in {"train": 60_000, "t10k": 10}.items():
        content[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 2, 2), dtype=np.uint8))
        content[f"{part}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, count, dtype=np.uint8))
    folder = data_root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, raw in content.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw, 1))

    def no_download(*_, **__):
        raise RuntimeError("no network in tests\nand more")

    monkeypatch.setattr(small, "FASHION_FILES", {k: hashlib.sha256(v).hexdigest() for k, v in content.items()})
    monkeypatch.setattr(small, "DEBIAN_FOLDER", data_root / "usr/share/none")
    monkeypatch.setattr(FashionMNIST, "download", no_download)
    monkeypatch.setenv("PATH", "")  # no apt-get
    return folder


def test_fashion_is_read_from_the_data_root_compressed_or_not(small_fashion):
    images = data.load("fashion")
    assert images.source == "the data root"  # no path: a report is read elsewhere
    assert sizes(images) == {"train": 50_000, "heldout": 10_000, "test": 10}
    data.fashion.cache_clear()
    for path in small_fashion.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert torch.equal(data.load("fashion").images["train"], images.images["train"])


def test_missing_data_names_every_place_and_says_what_to_do(small_fashion):
    next(small_fashion.glob("t10k-labels*")).unlink()
    with pytest.raises(data.DataError) as error:
        data.load("fashion")
    places = str(small_fashion / "t10k-labels-idx1-ubyte"), "installed package", "apt-get", "TRUST_DATA"
    for part in (*places, "torchvision's download: failed (no network in tests)\n", "STUDY=digits"):
        assert part in str(error.value)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-100], lambda raw: raw[:50], lambda raw: gzip.compress(b"else")])
def test_a_truncated_or_altered_file_is_named(small_fashion, damage):
    path = next(small_fashion.glob("t10k-images*"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(data.DataError, match=f"{path.name}.*delete it"):
        data.load("fashion")


# --- Tiny-ImageNet ---


@pytest.fixture
def small_tiny(data_root):
    """Tiny-ImageNet's folder in little: two classes with three training images each, two validation images."""
    folder = data_root / data.TINY
    names = [f"train/n0{k}/images/n0{k}_{i}.JPEG" for k in (2, 1) for i in range(3)]
    for k, name in enumerate((*names, "val/images/val_0.JPEG", "val/images/val_1.JPEG")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        # Photographs may be grey: they are read as colours.
        Image.new("L" if k else "RGB", (64, 64), 30 * k if k else (0, 0, 0)).save(folder / name)
    (folder / "wnids.txt").write_text("n02\nn01\n")
    (folder / "words.txt").write_text("n01\ttench, Tinca tinca\nn02\tgoldfish\nn03\tnot of the two hundred\n")
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\t0\t0\t9\t9\nval_1.JPEG\tn01\t0\t0\t9\t9\n")
    return folder


def test_tiny_imagenet_is_read_from_its_folder(small_tiny):
    images = data.tiny(heldout=2)
    assert images.classes == ("tench", "goldfish")
    assert images.wnids == ("n01", "n02")  # in ImageNet's order, by which a classifier's outputs are picked
    assert sizes(images) == {"train": 4, "heldout": 2, "test": 2}
    assert images.labels["test"].tolist() == [1, 0]
    assert images.images["test"][:, :, 0, 0].tolist() == [[180] * 3, [210] * 3]
    shades = torch.cat([images.images[part][:, 0, 0, 0] for part in ("train", "heldout")])
    labels = torch.cat([images.labels[part] for part in ("train", "heldout")])
    assert labels[shades.argsort()].tolist() == [1, 1, 1, 0, 0, 0]


def test_a_tiny_imagenet_that_is_damaged_or_not_there_is_named(small_tiny):
    with pytest.raises(data.DataError, match="expected more than 6 training images, found 6"):
        data.tiny(heldout=6)
    (small_tiny / "val/images/val_1.JPEG").write_bytes(b"\xff\xd8")
    with pytest.raises(data.DataError, match=r"val_1.JPEG is missing or damaged.*unpack the set again"):
        data.tiny(heldout=2)
    shutil.rmtree(small_tiny / "train/n02")
    with pytest.raises(data.DataError, match=r"not there, or not whole: .*n02.*TRUST_DATA"):
        data.tiny(heldout=2)


# --- CIFAR-10 ---


@pytest.fixture
def small_cifar10(data_root, monkeypatch):
    """CIFAR-10's batches in little in the data root, and its JPEG copy: (images uint8 (N, 3, 32, 32), labels (N,))."""
    rng, shape = np.random.default_rng(0), {"train": (10, 3, 32, 32), "test": (6, 3, 32, 32)}
    # Flat colours: JPEG changes them by a few grey levels at most.
    shades = {part: rng.integers(0, 256, (n, 3, 1, 1), dtype=np.uint8) for part, (n, *_) in shape.items()}
    images = {part: np.broadcast_to(shades[part], shape[part]) for part in shape}
    labels = {part: rng.integers(0, 10, n, dtype=np.uint8) for part, (n, *_) in shape.items()}

    folder = data_root / CIFAR10.base_folder
    folder.mkdir()
    batches = {f"data_batch_{k + 1}": ("train", slice(2 * k, 2 * k + 2)) for k in range(5)}
    content = {
        name: {"data": images[part][rows].reshape(-1, 3072), "labels": labels[part][rows].tolist()}
        for name, (part, rows) in (batches | {"test_batch": ("test", slice(None))}).items()
    }
    content["batches.meta"] = {"label_names": list(small.CIFAR10_CLASSES)}
    for name, entry in content.items():
        (folder / name).write_bytes(pickle.dumps(entry))
    listed = [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name in content]
    meta = {"filename": "batches.meta", "key": "label_names", "md5": listed[-1][1]}
    for name, value in {"train_list": listed[:5], "test_list": listed[5:6], "meta": meta}.items():
        monkeypatch.setattr(CIFAR10, name, value)

    arrays, copy = {}, data_root / small.CIFAR10_JPEG
    for part in images:
        files = [jpeg(image) for image in images[part]]
        arrays |= {f"{part}_bytes": np.frombuffer(b"".join(files), np.uint8), f"{part}_labels": labels[part]}
        arrays[f"{part}_offsets"] = np.cumsum([0, *map(len, files)]).astype(np.uint32)
    copy.parent.mkdir()
    np.savez(copy, **arrays)
    monkeypatch.setattr(small, "CIFAR10_JPEG_SHA256", hashlib.sha256(copy.read_bytes()).hexdigest())
    monkeypatch.setattr(small, "_split", lambda n, heldout: {"train": torch.arange(2, n), "heldout": torch.arange(2)})
    return images, labels


def jpeg(image):
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "JPEG")
    return file.getvalue()


def largest_difference(images, pixels, labels):
    """In grey levels, of a small CIFAR-10 as loaded from what was written; its labels have to be the same."""
    found = 0
    for name, parts in {"train": ("heldout", "train"), "test": ("test",)}.items():
        whole = torch.cat([images.images[part] for part in parts]).numpy()
        found = max(found, np.abs(whole.astype(int) - pixels[name]).max())
        np.testing.assert_array_equal(torch.cat([images.labels[part] for part in parts]), labels[name])
    return found


@pytest.mark.parametrize("folder", [".", "CIFAR10"])
def test_cifar10_is_read_from_the_official_batches_exactly_else_from_a_lossy_copy(small_cifar10, data_root, folder):
    batches = (data_root / CIFAR10.base_folder).rename(data_root / folder / CIFAR10.base_folder)
    exact = data.load("cifar10")
    assert exact.source == "the data root"
    assert largest_difference(exact, *small_cifar10) == 0
    assert (exact.images["test"].dtype, exact.labels["test"].dtype) == (torch.uint8, torch.int64)
    assert exact.classes == small.CIFAR10_CLASSES
    data.cifar10.cache_clear()
    (batches / "data_batch_3").unlink()
    lossy = data.load("cifar10")
    assert "JPEG copy of the images (lossy" in lossy.source
    assert 0 < largest_difference(lossy, *small_cifar10) < 8
    differing = {name for name, found in exact.checksums.items() if found != lossy.checksums[name]}
    assert differing == {"train-images", "test-images"}


class Unpickled:
    """Fails the test when it is unpickled."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-10], lambda raw: pickle.dumps(Unpickled())])
@pytest.mark.parametrize("file", ["data_batch_2", "batches.meta"])
def test_truncated_or_altered_batches_are_named_and_not_unpickled(small_cifar10, data_root, file, damage):
    path = data_root / CIFAR10.base_folder / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(data.DataError, match=f"{CIFAR10.base_folder} is truncated or altered.*delete"):
        data.load("cifar10")
