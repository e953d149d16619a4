"""Distribution shifts: their names, where their images come from, and that outputs on them are computed once."""

from functools import partial

import numpy as np
import pytest
import torch
import yaml
from conftest import TINY, make, quiet, scores_of

from trustlib import data, metrics
from trustlib.analysis import claims, compare, evidence, rules
from trustlib.analysis.evidence import Evidence
from trustlib.report import figures, tables
from trustlib.runs import outputs, shifted, steps, store
from trustlib.runs.results import Run
from trustlib.shifts import domains, recolor
from trustlib.stats import resampling
from trustlib.study import StudyError, load_study

DOMAINS = {
    "judged": ["saturate-1", "gaussian_noise-5", "stylized", "recolor"],
    "images": 60,
    "attacked": 20,
    "swept": ["contrast"],
    "sweep_images": 40,
}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A trained study that was asked about all its domains, by few steps where it is attacked."""
    folder = tmp_path_factory.mktemp("asked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRUST_RESULTS", str(folder / "results"))
        patch.setattr(resampling, "RESAMPLES", 20)
        patch.setattr(domains.recolor, "attack", partial(recolor.attack, steps=2))
        path = folder / "tiny.yaml"
        path.write_text(yaml.safe_dump(TINY | {"domains": DOMAINS}, sort_keys=False))
        study = load_study(str(path))
        make(steps.planned(study))
        make(shifted.planned(study) + shifted.swept(study))
        yield study


def pictures(channels=1, size=28, count=30, seed=0):
    """A small image set with two classes in turn."""
    draw = torch.Generator().manual_seed(seed)
    made = torch.randint(0, 256, (count, channels, size, size), generator=draw, dtype=torch.uint8)
    parts = ("train", "test")
    labels = torch.arange(count) % 2
    return data.Images(dict.fromkeys(parts, made), dict.fromkeys(parts, labels), ("a", "b"), "made here", {})


@pytest.mark.parametrize(
    ("name", "kind", "what", "severity", "label"),
    [
        ("defocus_blur-5", domains.CORRUPTED, "defocus_blur", 5, "Defocus blur, severity 5"),
        ("stylized", domains.STYLIZED, "", 0, "Stylised"),
        ("recolor", domains.RECOLOR, "", 0, "Recoloured"),
        ("recolor-released", domains.RECOLOR, "released", 0, "Recoloured, released normalisation"),
        ("normalised", domains.NORMALISED, "", 0, "Released normalisation"),
        ("mnist_c-fog", domains.MNIST_C, "fog", 0, "MNIST-C fog"),
    ],
)
def test_a_name_says_how_a_domain_is_made(name, kind, what, severity, label):
    found = domains.parse(name)
    assert (found.kind, found.what, found.severity, found.label) == (kind, what, severity, label)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("defocus_blr-5", "unknown domain 'defocus_blr-5': expected CORRUPTION-SEVERITY"),
        ("defocus_blur", "unknown domain 'defocus_blur'"),
        ("defocus_blur-6", "expected a severity from 1 to 5, found 6"),
        ("defocus_blur-x", "expected a severity from 1 to 5, found 'x'"),
        ("recolor-own", "unknown domain 'recolor-own'"),
        ("stylized-wave", "unknown domain 'stylized-wave'"),
        ("clean", "unknown domain 'clean'"),
    ],
)
def test_an_unknown_name_is_refused(name, message):
    with pytest.raises(ValueError, match=message):
        domains.parse(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judged": ["fogg-3"]}, "domains: unknown domain 'fogg-3'"),
        ({"swept": ["fogg"]}, "domains: unknown corruption 'fogg'"),
        ({"swept": ["stylized"]}, "domains: unknown corruption 'stylized'"),
        ({"judged": ["fog-3", "fog-3"]}, "domains.judged: holds something twice"),
        ({"images": 0}, "domains.images: input should be greater than or equal to 1"),
        ({"image": 5}, "unknown key 'domains.image'; did you mean 'images'?"),
    ],
)
def test_a_study_with_a_wrong_domain_is_refused(write_study, change, message):
    with pytest.raises(StudyError, match=message.replace("?", r"\?")):
        load_study(write_study(domains=change))


def test_a_study_knows_the_parts_of_its_domains_and_sweeps(write_study):
    study = load_study(write_study(domains=DOMAINS))
    assert study.parts_of("stylized") == ["domains/stylized"]
    assert study.parts_of("contrast") == [f"sweeps/contrast-{severity}" for severity in (1, 2, 3, 4, 5)]
    sizes = [study.domains.size(part) for part in ("domains/stylized", "domains/recolor", "sweeps/contrast-1")]
    assert sizes == [60, 20, 40]
    with pytest.raises(StudyError, match="no domain 'contrasts'; did you mean 'contrast'"):
        study.parts_of("contrasts")


@pytest.mark.parametrize(
    ("dataset", "channels", "name", "file", "severities"),
    [
        ("cifar10", 3, "fog-4", "CIFAR-10-C/fog.npy", 5),
        ("mnist", 1, "mnist_c-fog", "mnist_c/fog/test_images.npy", 1),
    ],
)
def test_released_files_are_preferred_and_named(tmp_path, monkeypatch, dataset, channels, name, file, severities):
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    images, path = pictures(channels), tmp_path / file
    path.parent.mkdir(parents=True)
    rows = np.random.default_rng(1).integers(0, 256, (severities * 30, 28, 28, channels), np.uint8)
    np.save(path, rows)
    made, facts = domains.make(images, dataset, name, 10)
    first = 30 * (4 - 1) if severities == 5 else 0  # severity 4 begins after three times 30 images
    assert torch.equal(made, torch.from_numpy(rows[first : first + 10]).permute(0, 3, 1, 2))
    assert "released files of" in facts["how"]
    assert list(domains.origin(dataset, name)[1]) == [path.name]
    before = domains.origin(dataset, name)[1]
    np.save(path, rows[::-1])
    assert domains.origin(dataset, name)[1] != before  # what was made of the other file is stale

    np.save(path, rows[:, :20])
    with pytest.raises(data.DataError, match=r"expected uint8 .*28, 28.*found uint8 .*20, 28"):
        domains.make(images, dataset, name, 10)
    path.write_bytes(b"no array")
    with pytest.raises(data.DataError, match="damaged or no array"):
        domains.make(images, dataset, name, 10)


def test_another_data_set_does_not_take_the_files_of_cifar(tmp_path, monkeypatch):
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    (tmp_path / "CIFAR-10-C").mkdir()
    np.save(tmp_path / "CIFAR-10-C/contrast.npy", np.zeros((150, 28, 28, 1), np.uint8))
    made, facts = domains.make(pictures(), "digits", "contrast-2", 4, log=quiet)
    assert made.any()
    assert facts["how"].startswith("the package imagecorruptions-imaug 1.")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [("mnist", "no file .*test_images.npy; put it there"), ("digits", "made of MNIST's test images, not of digits")],
)
def test_a_domain_without_its_files_says_what_is_missing(tmp_path, monkeypatch, dataset, message):
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    with pytest.raises(data.DataError, match=message):
        domains.make(pictures(), dataset, "mnist_c-fog", 3)
    with pytest.raises(data.DataError, match=message):
        domains.origin(dataset, "mnist_c-fog")


def test_a_stylised_image_takes_the_amplitudes_of_another_class():
    images = pictures()
    made, facts = domains.make(images, "digits", "stylized", 12)
    again, _ = domains.make(images, "digits", "stylized", 5)
    assert made.dtype == torch.uint8
    assert torch.equal(made[:5], again)
    assert (made != images.images["test"][:12]).any()
    assert "no paintings" in facts["how"]


def watched():
    """A classifier of two classes by which of two channels is brighter, and the list of what it was shown."""
    weight, shown = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]), []

    def classifier(x):
        shown.append(x.detach().clone())
        return 40 * x.mean((2, 3)) @ weight.T

    return classifier, shown


@pytest.fixture
def three_steps(monkeypatch):
    monkeypatch.setattr(domains.recolor, "attack", partial(recolor.attack, steps=3))


@pytest.mark.usefixtures("three_steps")
def test_an_attack_sees_the_classifiers_own_normalisation():
    images, (classifier, seen) = pictures(3, 8), watched()
    made, facts = domains.make(images, "digits", "recolor", 6, classifier=classifier, log=quiet)
    assert torch.allclose(
        seen[0], images.view("test", slice(6)), atol=1e-4
    )  # before the first step: as `view` gives it
    assert made.dtype == torch.float32
    assert made.min() >= 0
    assert made.max() <= 255
    assert facts["displacement"] <= 0.06 + 1e-6
    assert len(facts["loss"]) == 4


@pytest.mark.usefixtures("three_steps")
def test_the_released_normalisation_reaches_every_network_through_view():
    images, (classifier, seen) = pictures(3, 8), watched()
    made, _ = domains.make(images, "digits", "recolor-released", 6, classifier=classifier, log=quiet)
    x = images.images["test"][:6].float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (domains.IMAGENET_MEAN, domains.IMAGENET_STD))
    assert torch.allclose(seen[0], (x - mean) / std, atol=1e-4)
    parts = images.images | {"test": made}
    view = data.Images(parts, images.labels, images.classes, "", {}).view("test", slice(6))
    assert torch.allclose(view, seen[-1], atol=0.1)  # one step lies between the last look and the result


def test_the_released_normalisation_alone_is_a_domain_too():
    images = pictures(3, 8)
    made, _ = domains.make(images, "digits", "normalised", 6)
    x = images.images["test"][:6].float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (domains.IMAGENET_MEAN, domains.IMAGENET_STD))
    parts = images.images | {"test": made}
    view = data.Images(parts, images.labels, images.classes, "", {}).view("test", slice(6))
    assert torch.allclose(view, (x - mean) / std, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("recolor-released", 3, "three channels, found 1"),
        ("normalised", 3, "three channels, found 1"),
        ("contrast-5", 31, "31 images are asked for, the test set has 30"),
    ],
)
def test_what_the_images_do_not_allow_is_refused_before_it_is_made(name, count, message):
    with pytest.raises(ValueError, match=message):
        domains.make(pictures(), "digits", name, count)


def test_on_images_that_a_domain_leaves_alone_everything_is_said_as_on_the_test_part(asked):
    # Saturation 0 times 0.3 is 0: a grey image stays as it is, whatever is asked about it.
    part = "domains/saturate-1"
    clean = data.load("digits").images["test"][:60]
    assert torch.equal(shifted.images(asked, part, "rsn").tensors()["images"], clean)
    right, scores = scores_of(Run(asked).predictions("rsn-rsn", part))
    all_right, everywhere = scores_of(Run(asked).predictions("rsn-rsn"))
    assert np.array_equal(right, all_right[:60])
    for arm, seed in (("ce", 0), ("ce", 1), ("ss", 0), ("ss", 1), ("mcp", 0)):
        assert np.allclose(scores[arm, seed], everywhere[arm, seed][:60], atol=1e-5), arm


def test_every_score_and_oracle_is_asked_and_measured(asked):
    for name, count in (("gaussian_noise-5", 60), ("recolor", 20)):
        right, scores = scores_of(Run(asked).predictions("rsn-rsn", f"domains/{name}"))
        assert len(right) == count
        assert {arm for arm, _ in scores} >= {"mcp", "entropy", "trust_score", "linear_ss", "ce", "ss"}
        frame = compare.evaluate(Run(asked), split=f"domains/{name}")
        row = frame[(frame["arm"] == "ss") & (frame["seed"] == 1)].iloc[0]
        assert row["auroc"] == metrics.evaluate(scores["ss", 1], right)["auroc"]
    compared = compare.compare_shifts(Run(asked))
    assert set(compared["domain"]) == set(DOMAINS["judged"])
    assert compared.query("arm == 'ss' and metric == 'auroc'")["seeds"].eq(2).all()


def test_a_sweep_begins_with_the_same_images_clean(asked):
    swept = compare.sweep(Run(asked))
    assert sorted(swept["severity"].unique()) == [0, 1, 2, 3, 4, 5]
    right, scores = scores_of(Run(asked).predictions("rsn-rsn"))
    row = swept.query("severity == 0 and arm == 'ce' and seed == 0").iloc[0]
    assert row["auroc"] == metrics.evaluate(scores["ce", 0][:40], right[:40])["auroc"]
    form = tables.severities_form(swept.query("arm in ['mcp', 'ce']"), "auroc", 5)
    assert list(form.data.index) == ["Contrast", "Mean of 1 of ImageNet-C"]


def test_what_is_asked_is_asked_once_and_again_only_where_it_changed(asked):
    folder = store.run_folder(asked)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("domains/**/*.safetensors")}
    assert len(before) == 4 * 3  # images, classifier, pair of each domain
    make(shifted.planned(asked))
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert all(step.is_done for step in shifted.planned(asked))

    fewer = asked.model_copy(update={"seeds": [0]})
    stale = {step.run for step in shifted.planned(fewer) if not step.is_done}
    assert stale == {f"domains/{name}/rsn-rsn" for name in DOMAINS["judged"]}
    assert outputs.of_oracles(fewer, "rsn-rsn", "ce", [0], "domains/stylized") == {}

    larger = asked.model_copy(update={"domains": asked.domains.model_copy(update={"images": 61})})
    stale = {step.run.split("/")[1] for step in shifted.planned(larger) if not step.is_done}
    assert stale == set(DOMAINS["judged"]) - {"recolor"}
    assert not outputs.has_classifier(larger, "rsn-rsn", "domains/stylized")


def test_oracles_that_are_not_trained_are_asked_for_by_name(write_study):
    study = load_study(write_study(domains=DOMAINS))
    with pytest.raises(ValueError, match="no oracle of rsn-rsn is trained: run notebook 02"):
        shifted.asked(study, "domains/saturate-1", "rsn-rsn").get(quiet)


def test_a_claim_is_judged_on_its_domain(asked):
    test = {"metric": "auroc", "methods": ["ss"], "minus": ["ce"], "pairs": ["rsn-rsn"], "above": 0.0}
    seen = Evidence(Run(asked))
    for name in ("gaussian_noise-5", "stylized"):
        rule = rules.Test.model_validate(test | {"domains": [name]})
        ((title, way),) = evidence._ways(seen, rule)
        assert title.startswith(domains.parse(name).label)
        estimate, _ = seen.difference(rule, *way)
        right, scores = scores_of(Run(asked).predictions("rsn-rsn", f"domains/{name}"))
        areas = {key: metrics.evaluate(score, right)["auroc"] for key, score in scores.items()}
        assert estimate == pytest.approx([areas["ss", seed] - areas["ce", seed] for seed in (0, 1)])
    elsewhere = rules.Test.model_validate(test | {"domains": ["snow-5"]})
    assert claims._found(seen, [elsewhere]) == ([], "this study has no domain 'Snow, severity 5'")
    with pytest.raises(ValueError, match="neither tuned nor of separability or cost"):
        rules.Test.model_validate(test | {"domains": ["snow-5"], "tuned": True})
    with pytest.raises(ValueError, match="unknown domain 'sno-5'"):
        rules.Test.model_validate(test | {"domains": ["sno-5"]})


def test_the_fall_of_accuracy_is_that_on_the_same_images(asked):
    seen = Evidence(Run(asked))
    assert seen.fall("rsn-rsn", "domains/saturate-1") == 0  # grey images are left as they are
    shifted = outputs.correct(asked, "rsn-rsn", "domains/gaussian_noise-5")
    clean = outputs.correct(asked, "rsn-rsn")[: len(shifted)]
    assert seen.fall("rsn-rsn", "domains/gaussian_noise-5") == pytest.approx(clean.mean() - shifted.mean())


def test_the_tables_have_a_row_a_domain_and_arm(asked):
    compared = compare.compare_shifts(Run(asked)).query("arm in ['mcp', 'ss']")
    form = tables.domains_form(tables.labelled(compared, asked))
    assert form.data.shape == (4 * 2, 6)
    assert form.data.loc[("recolor", "SS"), "AUC ↑"].count("[") == 1


def test_pictures_and_severities_are_drawn_as_given():
    import matplotlib.pyplot as plt

    fig, axs = plt.subplots(2, 3)
    rows = {"a": np.full((3, 1, 4, 4), 300.0), "b": np.zeros((3, 3, 4, 4))}
    figures.picture_grid(axs, rows)
    assert axs[0, 0].images[0].get_array().max() == 255  # beyond the scale is white
    assert axs[1, 0].get_ylabel() == "b"
    line = figures.severity(axs[0, 1], np.arange(3), np.array([[0.5, 0.6, 0.7], [0.7, 0.6, 0.5]]), label="x", loss="ce")
    assert np.allclose(line.get_ydata(), 60)
    plt.close(fig)


def test_the_tiny_study_has_no_domains(tiny):
    assert "domains" not in TINY
    assert shifted.planned(tiny) == shifted.swept(tiny) == []
    assert compare.compare_shifts(Run(tiny)).empty
    assert compare.sweep(Run(tiny)).empty
