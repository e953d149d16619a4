"""Corruptions: all 19 on grey and colour images, their seeds, values by hand, and what cannot be corrupted."""

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


def by_package(image, name, severity, place=0):
    """What the package makes of an image (C, H, W) with the seed of its place: (H, W, C)."""
    seed = corruptions._seed(name, place)
    np.random.seed(seed)  # noqa: NPY002
    arguments = {"seed": seed} if name == "glass_blur" else {}
    return np.uint8(corruption_dict[name](Image.fromarray(image.transpose(1, 2, 0)), severity, **arguments))


def departure(made, clean):
    """Mean absolute difference in grey levels."""
    return np.abs(made.astype(float) - clean).mean()


def test_there_are_the_fifteen_of_imagenet_c_and_its_four_extra_ones():
    assert (len(corruptions.CORRUPTIONS), len(corruptions.EXTRA)) == (15, 4)
    assert set(ALL) == set(corruption_dict) >= corruptions.IN_PIXELS


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("name", ALL)
def test_every_corruption_keeps_type_and_shape_and_is_stronger_at_severity_five(name, kind):
    clean = blobs(3, *SIZES[kind])
    before = clean.copy()
    weak, strong = (corrupt(clean, name, severity) for severity in (1, 5))
    assert np.array_equal(clean, before)
    for made in (weak, strong):
        assert (made.dtype, made.shape) == (np.uint8, clean.shape)
        assert (made != clean).any((1, 2, 3)).all() or (name, kind) == ("saturate", "grey")  # which has none to change
    if name != "saturate":  # it removes colour at severities 1 and 2 and adds it from 3 on
        assert departure(strong, clean) > 1.1 * departure(weak, clean) > 0
    smallest = noise(1, SIZES[kind][0], corruptions.SMALLEST, corruptions.SMALLEST)
    assert corrupt(smallest, name, 5).shape == smallest.shape


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


def test_contrast_brightness_and_pixelate_by_hand():
    # Contrast 5 leaves a twentieth around the mean: 50 and 221, half and half, become 135.5 -+ 85.5 / 20, cut off.
    image, expected = np.empty((1, 1, 8, 8), np.uint8), np.empty((1, 1, 8, 8), np.uint8)
    image[0, :, :4], image[0, :, 4:] = 50, 221
    expected[0, :, :4], expected[0, :, 4:] = 131, 139
    assert np.array_equal(corrupt(image, "contrast", 5), expected)
    # Brightness 1 adds 0.1 * 255 = 25.5 to grey: 229 becomes 254, and 230 and above become 255.
    greys = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    assert np.array_equal(corrupt(greys, "brightness", 1), np.minimum(greys.astype(int) + 25, 255))
    # Pixelate 5 reduces to a quarter: 49 blocks of 4 x 4. Pillow rounds the rows' means, then the columns'.
    image = noise(1, 1, 28, 28)
    means = image.reshape(7, 4, 7, 4).mean((1, 3), keepdims=True)
    assert np.abs(corrupt(image, "pixelate", 5).reshape(7, 4, 7, 4) - means).max() < 1


@pytest.mark.parametrize(
    ("name", "severity", "size", "times"),  # the shorter side is enlarged to 224, the longer in proportion
    [("defocus_blur", 1, (28, 28), 8), ("gaussian_blur", 5, (28, 28), 8), ("zoom_blur", 1, (28, 28), 8),
     ("gaussian_blur", 3, (32, 48), 7)],
)  # fmt: skip
def test_a_small_image_is_blurred_enlarged_and_reduced_by_the_mean_over_areas(name, severity, size, times):
    image, (height, width) = noise(1, 3, *size), size
    large = (width * times, height * times)
    enlarged = cv2.resize(image[0].transpose(1, 2, 0), large, interpolation=cv2.INTER_LINEAR)
    blurred = by_package(enlarged.transpose(2, 0, 1), name, severity)
    expected = blurred.reshape(height, times, width, times, 3).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(corrupt(image, name, severity)[0] - expected).max() <= 1


@pytest.mark.parametrize("name", ["gaussian_noise", "shot_noise", "speckle_noise", "jpeg_compression", "brightness"])
def test_the_others_take_a_small_image_as_it_is(name):
    image = blobs(1, 3, 32, 32)
    assert np.array_equal(corrupt(image, name, 4)[0].transpose(1, 2, 0), by_package(image[0], name, 4))


@pytest.mark.parametrize("name", ["motion_blur", "elastic_transform", "frost", "glass_blur"])
def test_a_photograph_is_not_resized(name):
    images = blobs(2, 3, 230, 226)
    assert np.array_equal(corrupt(images, name, 2)[1].transpose(1, 2, 0), by_package(images[1], name, 2, place=1))


@pytest.mark.parametrize("side", [28, 224])
@pytest.mark.parametrize(("name", "severity"), [("spatter", 1), ("spatter", 5), ("frost", 3), ("snow", 3)])
def test_a_grey_image_takes_the_luminance_of_what_colour_it_would_get(name, severity, side):
    # Mud is (63, 42, 20): its luminance is 0.299 * 63 + 0.587 * 42 + 0.114 * 20 = 45.8, and 37.8 with red for blue.
    grey = blobs(1, 1, side, side)
    red, green, blue = corrupt(np.repeat(grey, 3, axis=1), name, severity)[0].astype(float)
    made = corrupt(grey, name, severity)
    assert np.abs(made[0, 0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1
    assert np.abs(red - blue).max() > 5 or name == "snow"  # there was a colour to lose


def test_an_image_that_is_too_small_is_an_error():
    with pytest.raises(ValueError, match="contrast needs images of at least 8 x 8 pixels, found 7 x 9"):
        corrupt(noise(1, 3, 7, 9), "contrast", 1)
