"""Data: where it is looked for, in which order, and what is said when it is missing or damaged."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from trustlib import data


def test_digits_have_three_disjoint_parts_and_need_no_network():
    images = data.digits()
    assert {part: len(images.labels[part]) for part in data.PARTS} == {"train": 3000, "heldout": 1000, "test": 1000}
    seen = [bytes(x.numpy()) for part in data.PARTS for x in images.images[part]]
    assert len(set(seen)) == len(seen)
    assert images.images["test"].dtype == torch.uint8
    assert images.images["test"].shape[1:] == (1, 28, 28)
    assert sum(images.labels[part].bincount() for part in data.PARTS).tolist() == [500] * 10


def test_a_view_is_normalised_and_mirrored_where_asked():
    images = data.digits()
    x = images.view("train", slice(0, 3000))
    assert x.mean().item() == pytest.approx(0, abs=1e-3)
    assert x.std().item() == pytest.approx(1, abs=1e-3)
    flip = torch.tensor([False, True])
    both = images.view("train", torch.tensor([5, 5]), flip)
    torch.testing.assert_close(both[1], both[0].flip(-1))
    torch.testing.assert_close(images.view("train", slice(5, 6), True)[0], both[1])


def test_the_split_is_fixed_disjoint_and_complete():
    parts = data._split(100, heldout=20, test=10)
    assert {name: len(index) for name, index in parts.items()} == {"train": 70, "heldout": 20, "test": 10}
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(100))
    assert torch.equal(parts["test"], data._split(100, heldout=20, test=10)["test"])


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape) + array.tobytes()


@pytest.fixture
def small_fashion(monkeypatch, tmp_path):
    """Fashion-MNIST's four files in little, in a folder, and every other source shut off."""
    rng = np.random.default_rng(0)
    n = {"train": 60_000, "t10k": 10}
    content = {}
    for part, count in n.items():
        content[f"{part}-images-idx3-ubyte"] = idx(rng.integers(0, 256, (count, 2, 2), dtype=np.uint8))
        content[f"{part}-labels-idx1-ubyte"] = idx(rng.integers(0, 10, count, dtype=np.uint8))
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for name, raw in content.items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
    monkeypatch.setattr(data, "FASHION_FILES", {k: hashlib.sha256(v).hexdigest() for k, v in content.items()})
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "usr/share/none")
    monkeypatch.setattr(data, "_download_torchvision", no_download)
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    monkeypatch.setenv("PATH", "")  # no apt-get
    data.fashion.cache_clear()
    yield folder
    data.fashion.cache_clear()


def no_download(folder):
    raise FileNotFoundError("failed (no network in tests)")


def test_fashion_is_read_from_the_data_root_first(small_fashion):
    images = data.load("fashion")
    assert images.source == "the data root"  # no path: a report is read elsewhere
    assert {part: len(images.labels[part]) for part in data.PARTS} == {"train": 50_000, "heldout": 10_000, "test": 10}


def test_uncompressed_files_serve_too(small_fashion):
    for path in small_fashion.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert len(data.load("fashion").labels["test"]) == 10


def test_the_installed_package_is_the_second_source(small_fashion, monkeypatch, tmp_path):
    elsewhere = small_fashion.rename(tmp_path / "package")
    monkeypatch.setattr(data, "DEBIAN_FOLDER", elsewhere)
    assert "installed package" in data.load("fashion").source


def test_missing_data_names_every_place_and_says_what_to_do(small_fashion):
    next(small_fashion.glob("t10k-labels*")).unlink()
    with pytest.raises(data.DataError) as error:
        data.load("fashion")
    message = str(error.value)
    places = (
        str(small_fashion),
        "no t10k-labels-idx1-ubyte.gz",
        "installed package",
        "torchvision's download",
        "apt-get",
    )
    for part in (*places, "TRUST_DATA", "STUDY=digits"):
        assert part in message


@pytest.mark.parametrize("damage", [lambda raw: raw[:-100], lambda raw: raw[:50], lambda raw: gzip.compress(b"else")])
def test_a_truncated_or_altered_file_is_named(small_fashion, damage):
    path = next(small_fashion.glob("t10k-images*"))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(data.DataError, match=f"{path.name}.*delete it"):
        data.load("fashion")


def test_an_unknown_dataset_lists_the_known_ones():
    with pytest.raises(ValueError, match="known: fashion, digits"):
        data.load("imagenet22k")
