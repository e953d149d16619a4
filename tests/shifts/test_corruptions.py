"""Corruptions: all 19 on grey and colour images, their seeds, values by hand, and what cannot be corrupted."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from imagecorruptions import corruption_dict
from PIL import Image

from trustlib.shifts import corruptions

ALL = corruptions.CORRUPTIONS + corruptions.EXTRA
SIZES = {"grey": (1, 28, 28), "colour": (3, 32, 32)}


def corrupt(images, name, severity, workers=1):
    return corruptions.corrupt(images, name, severity, workers=workers, log=lambda line: None)


def noise(n, channels, height, width, low=0, high=256):
    return np.random.default_rng(0).integers(low, high, (n, channels, height, width), dtype=np.uint8)


def blobs(n, channels, height, width):
    """Random images that are smooth, as photographs are: 5 x 5 colours, enlarged."""
    small = noise(n, channels, 5, 5)
    pictures = [cv2.resize(image.transpose(1, 2, 0), (width, height), interpolation=cv2.INTER_CUBIC) for image in small]
    return np.stack([picture.reshape(height, width, channels).transpose(2, 0, 1) for picture in pictures])


def departure(made, clean):
    """Mean absolute difference in grey levels."""
    return np.abs(made.astype(float) - clean).mean()


def test_there_are_the_fifteen_of_imagenet_c_and_its_four_extra_ones():
    assert (len(corruptions.CORRUPTIONS), len(corruptions.EXTRA)) == (15, 4)
    assert set(ALL) == set(corruption_dict)
    assert set(ALL) >= corruptions.IN_PIXELS
    assert len(corruptions.IN_PIXELS) == 10


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("name", ALL)
def test_every_corruption_keeps_type_and_shape_and_is_stronger_at_severity_five(name, kind):
    clean = blobs(3, *SIZES[kind])
    before = clean.copy()
    weak, strong = (corrupt(clean, name, severity) for severity in (1, 5))
    assert np.array_equal(clean, before)
    for made in (weak, strong):
        assert made.dtype == np.uint8
        assert made.shape == clean.shape
        changed = (made != clean).any((1, 2, 3))
        assert changed.all() or (name, kind) == ("saturate", "grey")
    if name != "saturate":  # it removes colour at severities 1 and 2 and adds it from 3 on
        assert departure(strong, clean) > 1.1 * departure(weak, clean) > 0


@pytest.mark.parametrize("severity", [1, 5])
def test_a_grey_image_has_no_saturation_to_change(severity):
    greys = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert np.array_equal(corrupt(greys, "saturate", severity), greys)


# seeds


DRAWN = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur", "motion_blur", "snow", "frost",
    "fog", "elastic_transform", "spatter",
)  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_what_is_drawn_depends_on_the_images_place_and_on_nothing_else(name):
    clean = np.repeat(blobs(1, 1, 28, 28), 3, axis=0)
    np.random.seed(1)  # noqa: NPY002
    made = corrupt(clean, name, 4)
    np.random.seed(2)  # noqa: NPY002
    assert np.array_equal(corrupt(clean[:2], name, 4), made[:2])
    assert len(np.unique(made, axis=0)) == 3  # one content, three places


def test_neither_the_number_of_workers_nor_the_chunk_matters():
    clean = noise(corruptions.CHUNK + 30, 1, 8, 8, 100, 101)
    one, two = (corrupt(clean, "gaussian_noise", 3, workers=workers) for workers in (1, 2))
    assert np.array_equal(one, two)
    assert len(np.unique(one, axis=0)) == len(clean)  # the second chunk does not begin with the first one's noise


def test_the_noise_is_the_same_at_every_severity_but_for_its_scale():
    # Deviations are 0.08 and 0.12 of 255 at severities 1 and 2: about grey 127, nothing is clipped within 4 deviations.
    clean = np.full((1, 1, 28, 28), 127, np.uint8)
    weak, strong = (corrupt(clean, "gaussian_noise", severity) + 0.5 - 127 for severity in (1, 2))  # truncated: + 1/2
    np.testing.assert_allclose(strong, weak * 0.12 / 0.08, atol=0.5 + 0.5 * 1.5)


# values by hand


def test_contrast_at_severity_five_leaves_a_twentieth_around_the_mean():
    # Channels of two values, half and half: 50 and 221 have mean 135.5 and become 135.5 -+ 85.5 / 20, 131.225 and
    # 139.775; 10 and 31 have mean 20.5 and become 19.975 and 21.025. Fractions are cut off.
    image = np.empty((1, 3, 8, 8), np.uint8)
    image[0, :, :4] = np.array([50, 10, 221])[:, None, None]
    image[0, :, 4:] = np.array([221, 31, 50])[:, None, None]
    expected = np.empty_like(image)
    expected[0, :, :4] = np.array([131, 19, 139])[:, None, None]
    expected[0, :, 4:] = np.array([139, 21, 131])[:, None, None]
    assert np.array_equal(corrupt(image, "contrast", 5), expected)
    assert np.array_equal(corrupt(image[:, :1], "contrast", 5), expected[:, :1])


def test_brightness_at_severity_one_adds_a_tenth_to_grey_and_clips():
    # 0.1 * 255 = 25.5, and the fraction is cut off: 229 becomes 254, and 230 and above become 255.
    greys = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert np.array_equal(corrupt(greys, "brightness", 1), np.minimum(greys.astype(int) + 25, 255))


def test_pixelate_at_severity_five_gives_means_over_blocks_of_four():
    image = noise(1, 1, 28, 28)  # a quarter of 28 is 7: 49 blocks of 4 x 4
    made = corrupt(image, "pixelate", 5).reshape(7, 4, 7, 4)
    means = image.reshape(7, 4, 7, 4).mean((1, 3), keepdims=True)
    assert np.abs(made - means).max() < 1  # Pillow rounds the rows' means, then the columns'
    assert len(np.unique(made)) <= 49


# what measures in pixels


@pytest.mark.parametrize(("name", "severity"), [("defocus_blur", 1), ("gaussian_blur", 5), ("zoom_blur", 1)])
def test_a_small_image_is_blurred_enlarged_eightfold_and_reduced_by_the_mean_over_areas(name, severity):
    image = noise(1, 3, 28, 28)
    enlarged = cv2.resize(image[0].transpose(1, 2, 0), (224, 224), interpolation=cv2.INTER_LINEAR)
    blurred = np.uint8(corruption_dict[name](Image.fromarray(enlarged), severity))
    expected = blurred.reshape(28, 8, 28, 8, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(corrupt(image, name, severity)[0] - expected).max() <= 1


def test_the_shorter_side_is_enlarged_to_the_frame_and_the_longer_in_proportion():
    image = noise(1, 3, 32, 48)  # sevenfold: 224 x 336
    enlarged = cv2.resize(image[0].transpose(1, 2, 0), (336, 224), interpolation=cv2.INTER_LINEAR)
    blurred = np.uint8(corruption_dict["gaussian_blur"](Image.fromarray(enlarged), 3))
    expected = blurred.reshape(32, 7, 48, 7, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(corrupt(image, "gaussian_blur", 3)[0] - expected).max() <= 1


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "speckle_noise", "jpeg_compression", "brightness"])
def test_the_others_take_a_small_image_as_it_is(name):
    image = blobs(1, 3, 32, 32)
    np.random.seed(corruptions._seed(name, 0))  # noqa: NPY002
    expected = np.uint8(corruption_dict[name](Image.fromarray(image[0].transpose(1, 2, 0)), 4))
    assert np.array_equal(corrupt(image, name, 4)[0].transpose(1, 2, 0), expected)


@pytest.mark.parametrize("name", ["motion_blur", "elastic_transform", "frost", "glass_blur"])
def test_a_photograph_is_not_resized(name):
    image = blobs(2, 3, 230, 226)
    seed = corruptions._seed(name, 1)
    np.random.seed(seed)  # noqa: NPY002
    arguments = {"seed": seed} if name == "glass_blur" else {}
    expected = np.uint8(corruption_dict[name](Image.fromarray(image[1].transpose(1, 2, 0)), 2, **arguments))
    assert np.array_equal(corrupt(image, name, 2)[1].transpose(1, 2, 0), expected)


@pytest.mark.parametrize("side", [28, 224])
@pytest.mark.parametrize(("name", "severity"), [("spatter", 1), ("spatter", 5), ("frost", 3), ("snow", 3)])
def test_a_grey_image_takes_the_luminance_of_what_colour_it_would_get(name, severity, side):
    # Mud is (63, 42, 20): its luminance is 0.299 * 63 + 0.587 * 42 + 0.114 * 20 = 45.8, and 37.8 with red for blue.
    grey = blobs(1, 1, side, side)
    red, green, blue = corrupt(np.repeat(grey, 3, axis=1), name, severity)[0].astype(float)
    made = corrupt(grey, name, severity)
    assert made.shape == grey.shape
    assert np.abs(made[0, 0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1
    assert np.abs(red - blue).max() > 5 or name == "snow"  # there was a colour to lose


# what is told and what is refused


def test_progress_has_counts_and_a_rate_every_ten_chunks_and_at_the_end():
    lines = []
    corruptions.corrupt(noise(1050, 1, 8, 8), "contrast", 2, workers=1, log=lines.append)
    assert [line.rpartition(", ")[0] for line in lines] == [
        f"contrast, severity 2: {n}/1,050 images" for n in ("1,000", "1,050")
    ]
    rates = [line.rpartition(", ")[2].removesuffix(" images/s") for line in lines]
    assert all(int(rate.replace(",", "")) > 0 for rate in rates)


def test_no_images_give_no_images():
    lines = []
    made = corruptions.corrupt(np.empty((0, 3, 32, 32), np.uint8), "fog", 1, log=lines.append)
    assert made.shape == (0, 3, 32, 32)
    assert made.dtype == np.uint8
    assert lines == []


@pytest.mark.parametrize(
    ("images", "name", "severity", "message"),
    [
        (noise(1, 1, 8, 8), "rain", 1, "unknown corruption 'rain'; known: gaussian_noise, .*saturate"),
        (noise(1, 1, 8, 8), "fog", 0, "fog: expected a severity from 1 to 5, found 0"),
        (noise(1, 1, 8, 8), "fog", 6, "fog: expected a severity from 1 to 5, found 6"),
        (noise(1, 1, 8, 8), "fog", 2.5, "fog: expected a severity from 1 to 5, found 2.5"),
        (noise(1, 1, 8, 8) / 255, "fog", 1, r"expected uint8 images.*found float64 \(1, 1, 8, 8\)"),
        (noise(1, 2, 8, 8), "fog", 1, r"expected uint8 images \(N, 1 or 3, H, W\), found uint8 \(1, 2, 8, 8\)"),
        (noise(1, 1, 8, 8)[0], "fog", 1, r"found uint8 \(1, 8, 8\)"),
        (noise(1, 3, 7, 9), "contrast", 1, "contrast needs images of at least 8 x 8 pixels, found 7 x 9"),
        (noise(1, 3, 9, 7), "contrast", 1, "found 9 x 7"),
    ],
)
def test_what_cannot_be_corrupted_is_an_error(images, name, severity, message):
    with pytest.raises(ValueError, match=message):
        corruptions.corrupt(images, name, severity)


@pytest.mark.parametrize("name", ALL)
def test_the_smallest_images_are_large_enough(name):
    made = corrupt(noise(1, 3, corruptions.SMALLEST, corruptions.SMALLEST), name, 5)
    assert made.shape == (1, 3, 8, 8)


def test_a_worker_starts_without_torch():
    code = "import sys, trustlib.shifts.corruptions; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
