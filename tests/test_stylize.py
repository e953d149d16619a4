"""The stylised domain: TensorFlow's padding, style nets on disk, amplitudes and donors, a folder of stylised images."""

import copy

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from trustlib import data, stylize


def tf_conv_same(x, weight, stride):
    """TensorFlow's definition by loops: x (I, H, W), weight (O, I, k, k); out[i] = sum_a w[a] x[stride i + a - before].

    The padding is max((ceil(n / s) - 1) s + k - n, 0), its smaller half before.
    """
    kernel = weight.shape[-1]
    rows, cols = (-(-n // stride) for n in x.shape[1:])
    before = [max((m - 1) * stride + kernel - n, 0) // 2 for m, n in zip((rows, cols), x.shape[1:], strict=True)]
    out = np.zeros((len(weight), rows, cols))
    for i, j, a, b in np.ndindex(rows, cols, kernel, kernel):
        row, col = stride * i + a - before[0], stride * j + b - before[1]
        if 0 <= row < x.shape[1] and 0 <= col < x.shape[2]:
            out[:, i, j] += weight[:, :, a, b] @ x[:, row, col]
    return out


@pytest.mark.parametrize("sides", [(5, 6), (4, 7), (1, 8)])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (9, 1), (3, 2)])
def test_same_padding_is_tensorflows(kernel, stride, sides):
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(2, *sides)), rng.normal(size=(3, 2, kernel, kernel))
    ours = stylize.conv_same(torch.from_numpy(x)[None], torch.from_numpy(weight), stride)
    np.testing.assert_allclose(ours[0].numpy(), tf_conv_same(x, weight, stride), atol=1e-12)


def test_the_transposed_convolution_is_the_gradient_of_tensorflows():
    rng = np.random.default_rng(0)
    y, weight = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 2, 3, 3))
    gradient = np.empty((2, 4, 8))
    for at in np.ndindex(*gradient.shape):  # the derivative of <conv(x), y>, which is linear in x: one basis image each
        basis = np.zeros_like(gradient)
        basis[at] = 1
        gradient[at] = (tf_conv_same(basis, weight, 2) * y).sum()
    ours = stylize.conv_transpose_same(torch.from_numpy(y)[None], torch.from_numpy(weight))
    np.testing.assert_allclose(ours[0].numpy(), gradient, atol=1e-12)


@pytest.fixture(scope="module")
def net():
    """A style net with weights drawn at random."""
    drawn = stylize.StyleNet("drawn").eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for layer in drawn.values():
        nn.init.kaiming_normal_(layer.weight, generator=generator)
    return drawn


@pytest.mark.parametrize("sides", [(32, 32), (33, 34), (41, 35)])
def test_a_style_net_keeps_any_size_and_the_range(net, sides):
    x = torch.randint(0, 256, (2, 3, *sides)).float()
    y = net(x)
    assert y.shape == x.shape
    assert y.min() == 0
    assert y.max() == 255
    assert y.unique().numel() > 100


def test_colours_are_150_tanh_about_the_middle_and_clipped():
    flat = stylize.StyleNet().requires_grad_(False)
    flat["conv_out"].shift.copy_(torch.tensor([0.0, 0.5, -2.0]))
    colours = flat(torch.rand(1, 3, 8, 8))[0, :, 3, 3]
    np.testing.assert_allclose(colours, [127.5, 127.5 + 150 * np.tanh(0.5), 0], rtol=1e-6)


def test_sides_that_are_no_multiple_of_four_repeat_their_edge(net):
    x = torch.randint(0, 256, (1, 3, 30, 33)).float()
    rows, cols = torch.arange(32).clamp(max=29), torch.arange(36).clamp(max=32)
    np.testing.assert_allclose(net(x), net(x[:, :, rows][..., cols])[..., :30, :33], atol=1e-3)


def test_a_style_net_is_blind_to_contrast_but_not_to_content(net):
    # No convolution has a bias, and the first norm divides by the deviation; an offset shows at the zero padding.
    x = torch.randint(0, 200, (1, 3, 32, 32)).float()
    np.testing.assert_allclose(net(x / 2), net(x), atol=0.05)
    assert (net(x.flip(1)) - net(x)).abs().mean() > 1


def test_a_residual_block_adds_to_what_it_was_given(net):
    silent = copy.deepcopy(net)
    for i in range(1, 6):
        silent[f"res{i}_2"].scale.zero_()
    x = torch.randint(0, 256, (1, 3, 32, 32)).float()
    assert (silent(x.flip(1)) - silent(x)).abs().mean() > 1  # the image passes by blocks that add nothing


def save(path, net, **changes):
    arrays = {name: tensor.numpy().astype(np.float16) for name, tensor in net.state_dict().items()} | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_a_style_net_comes_back_from_half_precision(net, tmp_path):
    save(tmp_path / "scream_fp16.npz", net)
    read = stylize.load_style_net(tmp_path / "scream_fp16.npz")
    assert read.name == "scream"
    assert not read.training
    for name, tensor in net.state_dict().items():
        assert torch.equal(read.state_dict()[name], tensor.half().float())


def test_a_missing_style_net_says_which_file_and_what_it_holds(tmp_path):
    with pytest.raises(data.DataError, match=r"wave\.npz.*48 tensors.*conv1\.weight"):
        stylize.load_style_net(tmp_path / "wave.npz")


def test_tensors_that_are_missing_or_of_another_shape_are_named(net, tmp_path):
    save(tmp_path / "bad.npz", net, **{"conv2.scale": None, "up1.weight": np.zeros((64, 128, 3, 3), np.float16)})
    with pytest.raises(data.DataError, match=r"bad\.npz.*no conv2\.scale, up1\.weight \(64, 128, 3, 3\) for \(128, 64"):
        stylize.load_style_net(tmp_path / "bad.npz")


def damaged_archives(path, net):
    save(path, net)
    yield "cut short", path.read_bytes()[:5000]
    yield "text", b"no archive"
    np.save(path.with_suffix(".npy"), np.zeros(3))
    yield "bare array", path.with_suffix(".npy").read_bytes()
    save(path, net, **{"conv1.shift": np.array([1.0] * 32, dtype=object)})
    yield "pickled", path.read_bytes()


def test_what_is_no_npz_of_numbers_is_named(net, tmp_path):
    path = tmp_path / "bad.npz"
    for what, content in damaged_archives(path, net):
        path.write_bytes(content)
        with pytest.raises(data.DataError, match=r"bad\.npz is damaged or no npz file"):
            pytest.fail(f"accepted: {what}, {stylize.load_style_net(path)}")


class Recorder(nn.Module):
    """A net that keeps what it was shown and answers with the same image, its channels reduced by given factors."""

    name = "recorder"

    def __init__(self, *factors):
        super().__init__()
        self.factors, self.seen = torch.tensor(factors)[:, None, None], []

    def forward(self, x):
        self.seen.append(x)
        return x * self.factors


def test_photographs_pass_at_their_own_size_and_small_images_enlarged():
    photo = torch.randint(0, 256, (3, 3, 225, 230), dtype=torch.uint8)
    same = Recorder(1.0, 1.0, 1.0)
    assert torch.equal(stylize.stylise(photo, same, batch=2, log=lambda _: None), photo)
    assert [x.shape for x in same.seen] == [(2, 3, 225, 230), (1, 3, 225, 230)]

    small = torch.full((1, 3, 28, 32), 77, dtype=torch.uint8)
    small[:, :, :, 16:] = 200
    same = Recorder(1.0, 1.0, 1.0)
    styled = stylize.stylise(small, same, log=lambda _: None)
    assert same.seen[0].shape == (1, 3, 224, 256)
    assert torch.equal(styled[..., :15], small[..., :15])  # away from the edge, which the enlarging softens
    assert torch.equal(styled[..., 17:], small[..., 17:])


def test_a_small_image_is_reduced_by_the_mean_over_areas():
    class Checkerboard(Recorder):
        def forward(self, x):
            return (torch.arange(224)[:, None] + torch.arange(224)).remainder(2).mul(255.0).expand_as(x)

    styled = stylize.stylise(torch.zeros(1, 3, 32, 32, dtype=torch.uint8), Checkerboard(1.0), log=lambda _: None)
    assert set(styled.unique().tolist()) <= {125, 130}  # 24 or 25 of 49 pixels; picking single ones would give 0 or 255


def test_grey_images_are_shown_as_three_channels_and_come_back_as_luminance():
    grey = torch.randint(0, 256, (2, 1, 224, 224), dtype=torch.uint8)
    halves = Recorder(1.0, 0.5, 0.0)
    styled = stylize.stylise(grey, halves, log=lambda _: None)
    assert torch.equal(halves.seen[0], grey.float().expand(-1, 3, -1, -1))
    assert torch.equal(styled, (grey * (0.299 + 0.587 / 2)).round().to(torch.uint8))


def test_stylise_is_deterministic_and_takes_the_nets_own_output(net):
    x = torch.randint(0, 256, (1, 3, 226, 225), dtype=torch.uint8)
    styled = stylize.stylise(x, net, log=lambda _: None)
    assert styled.dtype == torch.uint8
    assert torch.equal(styled, net(x.float()).round().to(torch.uint8))
    assert torch.equal(styled, stylize.stylise(x, net, log=lambda _: None))


def test_progress_is_told_every_hundred_images_and_at_the_end():
    lines = []
    images = torch.zeros(230, 1, 1, 1, dtype=torch.uint8)
    stylize.stylise(images, Recorder(1.0, 1.0, 1.0), batch=30, log=lines.append)
    assert [line.partition(",")[0] for line in lines] == [f"recorder: {n}/230 images" for n in (120, 210, 230)]
    assert all(line.endswith(" images/s") for line in lines)


@pytest.mark.parametrize("images", [torch.zeros(2, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)])
def test_images_of_another_type_are_refused(images, net):
    for refuse in (lambda: stylize.stylise(images, net), lambda: stylize.swap_amplitude(images, images)):
        with pytest.raises(ValueError, match=r"expected uint8 images \(N, C, H, W\), found"):
            refuse()


def test_two_channels_are_neither_grey_nor_rgb(net):
    with pytest.raises(ValueError, match=r"grey or RGB.*\(1, 2, 8, 8\)"):
        stylize.stylise(torch.zeros(1, 2, 8, 8, dtype=torch.uint8), net)


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
