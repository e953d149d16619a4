"""The stylised domain: amplitudes and donors, a folder of stylised images."""

import numpy as np
import pytest
import torch
from PIL import Image

from trustlib import data
from trustlib.shifts import stylize


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_images_of_another_type_are_refused(images):
    with pytest.raises(ValueError, match=r"expected uint8 images \(N, C, H, W\), found"):
        stylize.swap_amplitude(images, images)


def test_phases_stay_and_amplitudes_above_three_cycles_are_the_donors():
    # Low contrast: nothing is clipped, and only the rounding is left, at most 1/2 a pixel.
    images, donors = (torch.randint(100, 156, (4, 3, 28, 30), dtype=torch.uint8) for _ in range(2))
    mixed = stylize.swap_amplitude(images, donors)
    assert mixed.dtype == torch.uint8
    assert mixed.min() > 0
    assert mixed.max() < 255
    ours, own, donor = (np.fft.fft2(x.numpy()) for x in (mixed, images, donors))
    cycles = np.hypot(*np.meshgrid(np.fft.fftfreq(28, 1 / 28), np.fft.fftfreq(30, 1 / 30), indexing="ij"))
    expected = np.where(cycles <= 3, np.abs(own), np.abs(donor)) * np.exp(1j * np.angle(own))
    noise = np.sqrt(28 * 30 / 12)  # deviation of a rounded image's Fourier coefficients
    assert np.abs(ours - expected).max() < 5 * noise
    assert np.abs(own - expected)[..., cycles > 3].max() > 20 * noise  # had nothing been swapped
    assert np.abs(donor - expected)[..., cycles <= 3].max() > 20 * noise  # had the coarse ones been the donor's


def test_an_image_that_is_its_own_donor_stays_and_its_mean_always_does():
    images, donors = (torch.randint(80, 176, (5, 1, 28, 28), dtype=torch.uint8) for _ in range(2))
    assert torch.equal(stylize.swap_amplitude(images, images), images)
    means = [x.float().mean((1, 2, 3)) for x in (stylize.swap_amplitude(images, donors // 2), images)]
    np.testing.assert_allclose(*means, atol=0.1)


def test_what_leaves_the_range_is_clipped():
    images, donors = (255 * torch.randint(0, 2, (2, 1, 16, 16), dtype=torch.uint8) for _ in range(2))
    own, other = np.fft.fft2(images.numpy()), np.fft.fft2(donors.numpy())
    frequency = np.fft.fftfreq(16, 1 / 16)
    coarse = frequency[:, None] ** 2 + frequency**2 <= 9
    expected = np.fft.ifft2(np.where(coarse, np.abs(own), np.abs(other)) * np.exp(1j * np.angle(own))).real
    assert expected.min() < -20
    assert expected.max() > 275
    np.testing.assert_allclose(stylize.swap_amplitude(images, donors), expected.clip(0, 255), atol=0.51)


def test_donors_of_another_shape_are_refused():
    images = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"\(2, 1, 8, 8\).*\(1, 1, 8, 8\) differ"):
        stylize.swap_amplitude(images, images[:1])


def test_donors_are_of_another_class_and_each_as_likely():
    labels, donor_labels = torch.arange(3).repeat(2000), torch.tensor([0, 1, 1, 2])
    donors = stylize.draw_donors(labels, donor_labels, seed=3)
    assert donors.dtype == torch.int64
    assert (donor_labels[donors] != labels).all()
    for label, others in ((0, [1, 2, 3]), (1, [0, 3]), (2, [0, 1, 2])):
        counts = donors[labels == label].bincount(minlength=4)[others]
        np.testing.assert_allclose(counts / 2000, 1 / len(others), atol=0.05)


def test_donors_are_seeded_and_the_first_images_keep_theirs():
    labels, donor_labels = torch.randint(0, 10, (500,)), torch.randint(0, 10, (300,))
    donors = stylize.draw_donors(labels, donor_labels, seed=1)
    assert torch.equal(donors, stylize.draw_donors(labels, donor_labels, seed=1))
    assert torch.equal(donors[:7], stylize.draw_donors(labels[:7], donor_labels, seed=1))
    assert not torch.equal(donors, stylize.draw_donors(labels, donor_labels, seed=2))


def test_an_images_donor_does_not_depend_on_the_others_labels():
    labels, donor_labels = torch.randint(0, 3, (200,)), torch.full((1000,), 9)
    alone = stylize.draw_donors(torch.zeros(200, dtype=torch.int64), donor_labels, seed=1)
    assert torch.equal(stylize.draw_donors(labels, donor_labels, seed=1), alone)


def test_donors_of_one_class_only_are_an_error():
    with pytest.raises(ValueError, match="class 4: all 3 are of that class"):
        stylize.draw_donors(torch.tensor([1, 4]), torch.tensor([4, 4, 4]), seed=0)


COLOURS = {"n01/a.JPEG": (250, 0, 0), "n01/b.png": (0, 250, 0), "n02/a.jpg": (0, 0, 250), "n02/c.jpeg": (90, 90, 90)}


@pytest.fixture
def folder(tmp_path):
    for name, colour in COLOURS.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 10), colour).save(path)
    return tmp_path


def test_a_folder_is_read_in_the_order_asked_by_class_and_stem(folder):
    images = stylize.from_folder(folder, ["c.JPEG", "a.JPEG", "b.JPEG", "a.JPEG"], ["n02", "n02", "n01", "n01"], (6, 8))
    assert images.shape == (4, 3, 6, 8)
    assert images.dtype == torch.uint8
    expected = torch.tensor([COLOURS[name] for name in ("n02/c.jpeg", "n02/a.jpg", "n01/b.png", "n01/a.JPEG")])
    assert (images.float().mean((2, 3)) - expected).abs().max() < 4  # JPEG


def test_an_image_is_squashed_not_cropped(folder):
    picture = Image.new("RGB", (20, 10))
    picture.paste((255, 255, 255), (10, 0, 20, 10))  # the right half is white
    picture.save(folder / "n01/half.png")
    row = stylize.from_folder(folder, ["half.JPEG"], ["n01"], (6, 8))[0, 0, 3].tolist()
    assert row[:3] == [0, 0, 0]
    assert row[5:] == [255, 255, 255]


def test_a_missing_folder_says_what_was_expected(tmp_path):
    with pytest.raises(data.DataError, match=r"nowhere: expected images there as <WordNet id>/<file>"):
        stylize.from_folder(tmp_path / "nowhere", [], [], (4, 4))


def test_class_folders_that_do_not_match_name_some_expected_and_some_found(folder):
    with pytest.raises(data.DataError, match=r"1 of 2 classes, such as n09; found 2 folders, such as n01, n02"):
        stylize.from_folder(folder, ["a.JPEG", "a.JPEG"], ["n01", "n09"], (4, 4))


def test_missing_images_are_counted_and_the_first_named(folder):
    with pytest.raises(data.DataError, match="2 of 3 images are missing, first n02/b"):
        stylize.from_folder(folder, ["a.JPEG", "b.JPEG", "x.JPEG"], ["n01", "n02", "n02"], (4, 4))


@pytest.mark.parametrize("keep", [0, 20, -30])
def test_a_damaged_image_is_named(folder, keep):
    path = folder / "n01/b.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(data.DataError, match=r"n01/b\.png is damaged or no image"):
        stylize.from_folder(folder, ["b.JPEG"], ["n01"], (4, 4))


def test_names_and_classes_go_in_pairs(folder):
    with pytest.raises(ValueError, match="2 names but 1 classes"):
        stylize.from_folder(folder, ["a.JPEG", "b.JPEG"], ["n01"], (4, 4))
