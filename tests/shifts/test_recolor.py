"""ReColorAdv: colours there and back, functions on a grid by hand, and what the attack may and may not do."""

import copy
import math

import pytest
import torch
from skimage.color import rgb2luv
from torch import nn

from trustlib.shifts import recolor

GRID = (5, 8, 8)  # small, for speed
QUIET = {"grid": GRID, "log": lambda line: None}


def every_colour(n=17):
    """RGB (3, n * n, n): the whole cube, with black, white, greys and the primaries."""
    axis = torch.linspace(0, 1, n)
    return torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).reshape(3, n * n, n)


def hues(n=60, side=6, seed=0):
    """Noisy images (n, 3, side, side) of three hues around grey, and the hue of each."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    angle = labels * 2 * math.pi / 3
    luv = torch.stack([torch.full((n,), 0.6), 0.5 + 0.04 * angle.cos(), 0.5 + 0.04 * angle.sin()], 1)
    luv = luv[..., None, None] + 0.02 * torch.randn(n, 3, side, side, generator=draw)
    return recolor.luv_to_rgb(luv), labels


@pytest.fixture(scope="module")
def classifier():
    """Learns the hue of an image from its mean colour."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(3), nn.Linear(3, 3))
    images, labels = hues(seed=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
    net.zero_grad(set_to_none=True)
    return net.eval()


def accuracy(classifier, images, labels):
    with torch.no_grad():
        return (classifier(images).argmax(1) == labels).float().mean().item()


def test_luv_is_that_of_skimage_scaled():
    rgb = every_colour()
    lightness, u, v = torch.from_numpy(rgb2luv(rgb.double().numpy(), channel_axis=0))
    expected = torch.stack([lightness / 100, (u + 100) / 200, (v + 100) / 200]).float()
    torch.testing.assert_close(recolor.rgb_to_luv(rgb), expected, atol=1e-4, rtol=0)


def test_colours_come_back_from_luv_also_in_the_dark():
    dark = every_colour() * torch.logspace(-6, 0, 17)
    for rgb in (every_colour(), dark, dark.expand(2, 3, -1, -1)):
        torch.testing.assert_close(recolor.luv_to_rgb(recolor.rgb_to_luv(rgb)), rgb, atol=1e-4, rtol=0)


def test_greys_have_neither_u_nor_v_and_the_lightness_of_the_tone_curve():
    grey = torch.arange(256)[None] / 255
    luv = recolor.rgb_to_luv(grey.expand(3, 1, 256))
    torch.testing.assert_close(luv[1:], torch.full((2, 1, 256), 0.5), atol=1e-5, rtol=0)
    torch.testing.assert_close(recolor.grey_to_lightness(grey), luv[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(recolor.lightness_to_grey(luv[0]), grey, atol=1e-6, rtol=0)


def test_slopes_of_both_conversions_are_finite_everywhere():
    rgb = every_colour().requires_grad_()
    luv = recolor.rgb_to_luv(rgb)
    assert all(slope(channel, rgb).isfinite().all() for channel in luv)
    beyond = torch.randn(3, 50, 50, generator=torch.Generator().manual_seed(0))  # what a displacement may reach
    beyond[0, :10] = torch.logspace(-12, 0, 50)
    for colours in (luv.detach(), beyond, torch.zeros(3, 1, 1)):
        back = recolor.luv_to_rgb(colours.requires_grad_())
        assert 0 <= back.min() <= back.max() <= 1
        assert all(slope(channel, colours).isfinite().all() for channel in back)


@pytest.mark.parametrize("grey", [0.0, 1.0])  # torch's clamp has no slope at its ends
def test_black_and_white_have_a_slope(grey):
    luv = recolor.rgb_to_luv(torch.full((3, 1, 1), grey)).requires_grad_()
    assert all(slope(channel, luv)[0] > 0.5 for channel in recolor.luv_to_rgb(luv))
    lightness = torch.tensor([grey], requires_grad=True)
    assert slope(recolor.lightness_to_grey(lightness), lightness) > 0.5


def test_a_displaced_black_stays_dark():
    signs = torch.tensor([-0.06, 0, 0.06])
    moved = torch.cartesian_prod(signs, signs, signs).T[..., None] + torch.tensor([0, 0.5, 0.5])[:, None, None]
    assert recolor.luv_to_rgb(moved).max() < 0.25  # 1 were u and v not held: the grey of L = 6 is 0.08


def slope(value, at):
    return torch.autograd.grad(value.sum(), at, retain_graph=True)[0]


def test_a_displacement_linear_in_the_colour_is_interpolated_exactly_and_held_beyond_the_border():
    axes = torch.meshgrid(*(torch.linspace(0, 1, n) for n in GRID), indexing="ij")
    matrix = torch.tensor([[[0.1, -0.2, 0.3], [0.0, 0.5, 0.0], [-0.4, 0.0, 0.7]], [[0.0, 1, 0], [0, 0, 1], [1, 0, 0]]])
    displacement = torch.einsum("bij,jluv->biluv", matrix, torch.stack(axes))  # a function for each of two images
    colours = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 1.4 - 0.2
    expected = colours + torch.einsum("bij,bjhw->bihw", matrix, colours.clamp(0, 1))
    found = recolor.recolour(colours, recolor.positions(colours), displacement)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_tone_curve_is_interpolated_between_its_points():
    lightness = torch.tensor([0.0, 0.25, 0.75, 1.0]).view(1, 1, 2, 2)
    curve = torch.tensor([0.1, 0.2, 0.4]).view(1, 1, 3, 1, 1)
    found = recolor.recolour(lightness, recolor.positions(lightness), curve) - lightness
    torch.testing.assert_close(found.flatten(), torch.tensor([0.1, 0.15, 0.3, 0.4]))


def test_roughness_counts_the_distance_of_every_pair_of_neighbours_twice():
    # One point of a 2 x 2 x 3 grid is at (0.03, 0.04, 0), 0.05 from the rest. A corner has three neighbours, and a
    # point between two corners of the long axis has four.
    displacement = torch.zeros(2, 3, 2, 2, 3)
    displacement[0, :, 1, 0, 2] = displacement[1, :, 0, 1, 1] = torch.tensor([0.03, 0.04, 0.0])
    value, _ = recolor.roughness(displacement)
    torch.testing.assert_close(value, 2 * 0.05 * torch.tensor([3.0, 4.0]), atol=1e-4, rtol=0)
    value, gradient = recolor.roughness(torch.full((2, 3, *GRID), 0.06))  # equal displacements have none
    torch.testing.assert_close(value, torch.zeros(2), atol=1e-6, rtol=0)
    assert not gradient.any()


def test_roughness_has_the_slope_of_its_value():
    draw = torch.Generator().manual_seed(0)
    displacement = 0.01 * torch.randn(9, 3, 3, 4, 2, generator=draw, dtype=torch.float64)  # 9: more than one cut
    along = torch.randn(displacement.shape, generator=draw, dtype=torch.float64)
    values = [recolor.roughness(displacement + side * 1e-7 * along)[0] for side in (1, -1)]
    _, gradient = recolor.roughness(displacement)
    expected = (gradient * along).flatten(1).sum(1)
    torch.testing.assert_close((values[0] - values[1]) / 2e-7, expected, rtol=1e-5, atol=1e-6)


def test_the_margin_is_the_true_logit_less_the_largest_other_without_a_floor():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, 1000.0]])
    assert recolor.margin(logits, torch.tensor([0, 1, 0])).tolist() == [1.0, -2.0, -1000.0]


def test_a_classifier_of_hues_is_fooled(classifier):
    images, labels = hues()
    assert accuracy(classifier, images, labels) > 0.95
    found = recolor.attack(classifier, images, labels, **QUIET)
    assert accuracy(classifier, found.images, labels) < 0.1
    assert found.loss[-1] < found.loss[0] - 1
    assert found.images.dtype == found.loss.dtype == torch.float32


def test_the_grid_of_the_paper_fools_it_too(classifier):
    images, labels = hues(6)
    found = recolor.attack(classifier, images, labels, smoothness=0.005, log=QUIET["log"])
    assert accuracy(classifier, found.images, labels) < accuracy(classifier, images, labels) - 0.5
    assert found.displacement.max() <= torch.tensor(0.06)


def test_margins_are_widened_after_the_class_has_changed(classifier):
    images, labels = hues(12)
    wrong = (labels + 1) % 3
    found = recolor.attack(classifier, images, wrong, steps=20, smoothness=0.0, **QUIET)
    assert found.loss[0] < -1
    assert found.loss[-1] < found.loss[0] - 1


def test_one_cannot_recolour_whether_an_image_is_of_one_colour():
    # A function of colour keeps one colour one, and two further than twice the bound apart.
    def two_colours(x):
        apart = (x[..., :3].mean((2, 3)) - x[..., 3:].mean((2, 3))).abs().sum(1)
        return torch.stack([0.01 - apart, apart - 0.01], 1)

    images = torch.full((6, 3, 6, 6), 0.5)
    images[3:, :, :, 3:] = torch.tensor([0.9, 0.2, 0.2]).view(3, 1, 1)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    found = recolor.attack(two_colours, images, labels, smoothness=0.0, rate=0.01, **QUIET)
    assert accuracy(two_colours, found.images, labels) == 1
    assert (found.images[3:] - images[3:]).abs().max() > 0.05  # it did try


@pytest.mark.parametrize("bound", [0.06, 0.05, 0.013])
def test_the_bound_holds_for_every_function_and_every_colour(classifier, bound):
    images, labels = hues(12)
    found = recolor.attack(classifier, images, labels, steps=20, rate=0.02, bound=bound, **QUIET)
    assert (found.displacement == torch.tensor(bound)).all()  # reached, and never passed
    moved = recolor.rgb_to_luv(found.images) - recolor.rgb_to_luv(images)  # no colour here is near sRGB's border
    assert moved.abs().max() <= bound + 1e-5
    assert moved.abs().max() > 0.9 * bound


def test_the_last_loss_is_that_of_the_images_returned_and_the_first_that_of_the_originals(classifier):
    images, labels = hues(10)
    found = recolor.attack(classifier, images, labels, steps=7, smoothness=0.5, batch=4, **QUIET)
    assert found.loss.shape == (8,)
    with torch.no_grad():
        first, last = (recolor.margin(classifier(x), labels).mean() for x in (images, found.images))
    torch.testing.assert_close(found.loss[0], first, atol=1e-4, rtol=0)
    torch.testing.assert_close(found.loss[-1], last + 0.5 * found.smoothness.mean(), atol=1e-4, rtol=0)


def test_the_first_step_of_adam_is_the_rate(classifier):
    found = recolor.attack(classifier, *hues(5), steps=1, rate=1e-3, **QUIET)
    torch.testing.assert_close(found.displacement, torch.full((5,), 1e-3), atol=1e-6, rtol=0)


def test_a_heavier_smoothness_gives_smoother_functions(classifier):
    images, labels = hues(6)
    rough = [recolor.attack(classifier, images, labels, smoothness=w, **QUIET).smoothness for w in (0.0, 0.05, 2.0)]
    assert rough[0].mean() > rough[1].mean() > rough[2].mean()
    assert (rough[0] > 1.1 * rough[2]).all()


@pytest.mark.parametrize(("smoothness", "steps"), [(0.0, 20), (0.05, 4)])
def test_how_images_are_cut_into_batches_does_not_matter(classifier, smoothness, steps):
    # Few steps where points are held by their neighbours alone: Adam makes whole steps of the rounding of a 0.
    images, labels = hues(7)
    given = {"smoothness": smoothness, "steps": steps} | QUIET
    three, seven = (recolor.attack(classifier, images, labels, batch=b, **given) for b in (3, 7))
    for name in ("images", "loss", "displacement", "smoothness"):
        torch.testing.assert_close(getattr(three, name), getattr(seven, name), atol=1e-5, rtol=1e-5)


def test_two_runs_give_the_same_bits_and_bytes_are_their_share_of_255(classifier):
    images, labels = hues(5)
    images = (images * 255).round()
    one, two = (recolor.attack(classifier, x, labels, steps=5, **QUIET) for x in (images.to(torch.uint8), images / 255))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.loss, two.loss)


def test_a_grey_attack_is_a_tone_curve_within_the_bound():
    images = (torch.arange(2 * 100) % 23 * 11).view(2, 1, 10, 10).to(torch.uint8)  # black among 23 greys, each often

    def contrast(x):
        return torch.stack([x[:, 0, ::2].mean((1, 2)) * 9, (x[:, 0] ** 2).mean((1, 2)) * 9], 1)

    found = recolor.attack(contrast, images, torch.tensor([0, 1]), **QUIET)
    assert found.images.shape == images.shape
    assert found.loss[-1] < found.loss[0]
    for before, after in zip(images, found.images, strict=True):
        for grey in before.unique():
            assert after[before == grey].std() < 1e-6
    shift = recolor.grey_to_lightness(found.images) - recolor.grey_to_lightness(images / 255)
    assert shift.abs().max() <= 0.06 + 1e-5
    assert shift[0][images[0] == 0].abs().min() == 0  # darker than black there is none
    assert shift[1][images[1] == 0].min() > 0.01


def test_the_classifier_is_left_as_it_was(classifier):
    given = copy.deepcopy(classifier)
    given[3].bias.requires_grad_(False)
    recolor.attack(given, *hues(4), steps=2, **QUIET)
    assert [name for name, p in given.named_parameters() if not p.requires_grad] == ["3.bias"]
    assert all(p.grad is None for p in given.parameters())
    assert all(torch.equal(tensor, given.state_dict()[name]) for name, tensor in classifier.state_dict().items())
    assert not given.training
