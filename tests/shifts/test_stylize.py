"""The stylised domain: amplitudes and donors, a folder of stylised images."""

import numpy as np
import pytest
import torch
from PIL import Image

from trustlib import data
from trustlib.shifts import stylize


def expected_of(images, donors):
    """Images (N, C, H, W) and their Fourier coefficients: phases theirs, amplitudes above three cycles the donors'."""
    own, donor = (np.fft.fft2(x.numpy()) for x in (images, donors))
    height, width = images.shape[2:]
    grid = np.meshgrid(np.fft.fftfreq(height, 1 / height), np.fft.fftfreq(width, 1 / width), indexing="ij")
    coarse = np.hypot(*grid) <= 3
    mixed = np.where(coarse, np.abs(own), np.abs(donor)) * np.exp(1j * np.angle(own))
    return np.fft.ifft2(mixed).real, mixed, own, donor, coarse


def test_phases_stay_and_amplitudes_above_three_cycles_are_the_donors():
    # Low contrast: nothing is clipped, and only the rounding is left, at most 1/2 a pixel.
    images, donors = (torch.randint(100, 156, (4, 3, 28, 30), dtype=torch.uint8) for _ in range(2))
    made = stylize.swap_amplitude(images, donors)
    assert made.dtype == torch.uint8
    _, mixed, own, donor, coarse = expected_of(images, donors)
    noise = np.sqrt(28 * 30 / 12)  # deviation of a rounded image's Fourier coefficients
    assert np.abs(np.fft.fft2(made.numpy()) - mixed).max() < 5 * noise
    assert np.abs(own - mixed)[..., ~coarse].max() > 20 * noise  # had nothing been swapped
    assert np.abs(donor - mixed)[..., coarse].max() > 20 * noise  # had the coarse ones been the donor's
    assert torch.equal(stylize.swap_amplitude(images, images), images)


def test_what_leaves_the_range_is_clipped():
    images, donors = (255 * torch.randint(0, 2, (2, 1, 16, 16), dtype=torch.uint8) for _ in range(2))
    expected = expected_of(images, donors)[0]
    assert expected.min() < -20
    assert expected.max() > 275
    np.testing.assert_allclose(stylize.swap_amplitude(images, donors), expected.clip(0, 255), atol=0.51)


def test_donors_are_of_another_class_and_each_as_likely():
    labels, donor_labels = torch.arange(3).repeat(2000), torch.tensor([0, 1, 1, 2])
    donors = stylize.draw_donors(labels, donor_labels, seed=3)
    assert (donor_labels[donors] != labels).all()
    for label, others in ((0, [1, 2, 3]), (1, [0, 3]), (2, [0, 1, 2])):
        counts = donors[labels == label].bincount(minlength=4)[others]
        np.testing.assert_allclose(counts / 2000, 1 / len(others), atol=0.05)


def test_donors_are_seeded_and_depend_on_no_other_image():
    labels, donor_labels = torch.randint(0, 10, (500,)), torch.randint(0, 10, (300,))
    donors = stylize.draw_donors(labels, donor_labels, seed=1)
    assert torch.equal(donors[:7], stylize.draw_donors(labels[:7], donor_labels, seed=1))
    assert not torch.equal(donors, stylize.draw_donors(labels, donor_labels, seed=2))
    others = torch.full((300,), 10)
    alone = stylize.draw_donors(torch.zeros(500, dtype=torch.int64), others, seed=1)
    assert torch.equal(stylize.draw_donors(labels, others, seed=1), alone)


COLOURS = {"n01/a.JPEG": (250, 0, 0), "n01/b.png": (0, 250, 0), "n02/a.jpg": (0, 0, 250), "n02/c.jpeg": (90, 90, 90)}


@pytest.fixture
def folder(tmp_path):
    for name, colour in COLOURS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), colour).save(path)
    return tmp_path


def test_a_folder_is_read_in_the_order_given_by_class_and_stem_and_squashed(folder):
    images = stylize.from_folder(folder, ["c.JPEG", "a.JPEG", "b.JPEG", "a.JPEG"], ["n02", "n02", "n01", "n01"], (6, 8))
    assert (images.shape, images.dtype) == ((4, 3, 6, 8), torch.uint8)
    expected = torch.tensor([COLOURS[name] for name in ("n02/c.jpeg", "n02/a.jpg", "n01/b.png", "n01/a.JPEG")])
    assert (images.float().mean((2, 3)) - expected).abs().max() < 4  # JPEG
    picture = Image.new("RGB", (20, 10))
    picture.paste((255, 255, 255), (10, 0, 20, 10))  # the right half is white
    picture.save(folder / "n01/half.png")
    row = stylize.from_folder(folder, ["half.JPEG"], ["n01"], (6, 8))[0, 0, 3].tolist()
    assert (row[:3], row[5:]) == ([0, 0, 0], [255, 255, 255])


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (["a.JPEG", "a.JPEG"], ["n01", "n09"], "1 of 2 classes, such as n09; found 2 folders, such as n01, n02"),
        (["a.JPEG", "b.JPEG", "x.JPEG"], ["n01", "n02", "n02"], "2 of 3 images are missing, first n02/b"),
        (["broken.JPEG"], ["n01"], r"n01/broken\.png is damaged or no image"),
    ],
)
def test_what_is_missing_or_damaged_is_named(folder, names, classes, message):
    (folder / "n01/broken.png").write_bytes((folder / "n01/b.png").read_bytes()[:-30])
    with pytest.raises(data.DataError, match=message):
        stylize.from_folder(folder, names, classes, (4, 4))
