"""Distribution shifts: their names, where their images come from, and that outputs on them are computed once."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make, quiet, scores_of

from trustlib import data, metrics
from trustlib.analysis import compare
from trustlib.analysis.evidence import Evidence
from trustlib.report import panels, study_tables
from trustlib.runs import outputs, shifted, steps, store
from trustlib.runs.results import Run
from trustlib.shifts import domains, recolor
from trustlib.stats import resampling
from trustlib.study import StudyError

DOMAINS = {
    "judged": ["saturate-1", "gaussian_noise-5", "stylized", "recolor"],
    "images": 60,
    "attacked": 20,
    "swept": ["contrast"],
    "sweep_images": 40,
}


def pictures(channels=1, size=28, count=30):
    """A small image set with two classes in turn."""
    draw = torch.Generator().manual_seed(0)
    made = torch.randint(0, 256, (count, channels, size, size), generator=draw, dtype=torch.uint8)
    return data.Images(
        dict.fromkeys(("train", "test"), made), dict.fromkeys(("train", "test"), torch.arange(count) % 2),
        ("a", "b"), "made here", {},
    )  # fmt: skip


# --- Names ---


@pytest.mark.parametrize(
    ("name", "kind", "label"),
    [
        ("defocus_blur-5", domains.CORRUPTED, "Defocus blur, severity 5"),
        ("stylized", domains.STYLIZED, "Stylised"),
        ("recolor", domains.RECOLOR, "Recoloured"),
        ("recolor-released", domains.RECOLOR, "Recoloured, released normalisation"),
        ("normalised", domains.NORMALISED, "Released normalisation"),
        ("mnist_c-fog", domains.MNIST_C, "MNIST-C fog"),
    ],
)
def test_a_name_says_how_a_domain_is_made(name, kind, label):
    found = domains.parse(name)
    assert (found.kind, found.label) == (kind, label)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judged": ["defocus_blr-5"]}, "domains: unknown domain 'defocus_blr-5': expected CORRUPTION-SEVERITY"),
        ({"judged": ["recolor-own"]}, "domains: unknown domain 'recolor-own'"),
        ({"judged": ["fog-6"]}, "expected a severity from 1 to 5, found 6"),
        ({"judged": ["fog-x"]}, "expected a severity from 1 to 5, found 'x'"),
        ({"swept": ["stylized"]}, "domains: unknown corruption 'stylized'"),
        ({"judged": ["fog-3", "fog-3"]}, "domains.judged: holds something twice"),
    ],
)
def test_a_study_with_a_wrong_domain_is_refused(study_with, change, message):
    with pytest.raises(StudyError, match=message):
        study_with(domains=change)


def test_a_study_knows_the_parts_of_its_domains_and_sweeps(study_with):
    study = study_with(domains=DOMAINS)
    assert study.parts_of("stylized") == ["domains/stylized"]
    assert study.parts_of("contrast") == [f"sweeps/contrast-{severity}" for severity in (1, 2, 3, 4, 5)]
    with pytest.raises(StudyError, match="no domain 'contrasts'; did you mean 'contrast'"):
        study.parts_of("contrasts")


# --- Images ---


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
    before = domains.origin(dataset, name)[1]
    assert list(before) == [path.name]
    if severities == 5:  # another data set does not take CIFAR's
        assert domains.make(images, "tiny", name, 4, log=quiet)[1]["how"].startswith(
            "the package imagecorruptions-imaug"
        )
    np.save(path, rows[::-1])
    assert domains.origin(dataset, name)[1] != before  # what was made of the other file is stale

    np.save(path, rows[:, :20])
    with pytest.raises(data.DataError, match=r"expected uint8 .*28, 28.*found uint8 .*20, 28"):
        domains.make(images, dataset, name, 10)
    path.write_bytes(b"no array")
    with pytest.raises(data.DataError, match="damaged or no array"):
        domains.make(images, dataset, name, 10)


@pytest.mark.parametrize(
    ("dataset", "name", "count", "error", "message"),
    [
        ("mnist", "mnist_c-fog", 3, data.DataError, "no file .*test_images.npy; put it there"),
        ("digits", "mnist_c-fog", 3, data.DataError, "made of MNIST's test images, not of digits"),
        ("digits", "recolor-released", 3, ValueError, "three channels, found 1"),
        ("digits", "normalised", 3, ValueError, "three channels, found 1"),
        ("digits", "contrast-5", 31, ValueError, "31 images are asked for, the test set has 30"),
    ],
)
def test_a_domain_that_cannot_be_made_says_what_is_missing(tmp_path, monkeypatch, dataset, name, count, error, message):
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    with pytest.raises(error, match=message):
        domains.make(pictures(), dataset, name, count)


def test_a_stylised_image_takes_the_amplitudes_of_another_class():
    images = pictures()
    made, facts = domains.make(images, "digits", "stylized", 12)
    assert torch.equal(made[:5], domains.make(images, "digits", "stylized", 5)[0])
    assert (made != images.images["test"][:12]).any()
    assert "no paintings" in facts["how"]


@pytest.fixture
def attacked(monkeypatch):
    """A function that makes 6 colour images of a domain: (the set, what is made, facts, what the classifier saw).

    The classifier has two classes by which of two channels is brighter; attacks make three steps.
    """
    monkeypatch.setattr(domains.recolor, "attack", partial(recolor.attack, steps=3))

    def attack(name):
        weight, shown, images = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]), [], pictures(3, 8)

        def classifier(x):
            shown.append(x.detach().clone())
            return 40 * x.mean((2, 3)) @ weight.T

        return images, *domains.make(images, "digits", name, 6, classifier=classifier, log=quiet), shown

    return attack


def test_an_attack_sees_the_classifiers_own_normalisation(attacked):
    images, made, facts, shown = attacked("recolor")
    assert torch.allclose(shown[0], images.view("test", slice(6)), atol=1e-4)  # before the first step
    assert made.dtype == torch.float32
    assert 0 <= made.min() < made.max() <= 255
    assert facts["displacement"] <= 0.06 + 1e-6
    assert len(facts["loss"]) == 4


@pytest.mark.parametrize("name", ["recolor-released", "normalised"])
def test_the_released_normalisation_reaches_every_network_through_view(attacked, name):
    images, made, _, shown = attacked(name)
    x = images.images["test"][:6].float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (domains.IMAGENET_MEAN, domains.IMAGENET_STD))
    view = data.Images(images.images | {"test": made}, images.labels, images.classes, "", {}).view("test", slice(6))
    if name == "normalised":
        assert torch.allclose(view, (x - mean) / std, atol=1e-4)
    else:
        assert torch.allclose(shown[0], (x - mean) / std, atol=1e-4)
        assert torch.allclose(view, shown[-1], atol=0.1)  # one step lies between the last look and the result


# --- Outputs ---


@pytest.fixture(scope="module")
def asked(trained_with):
    """A trained study that is evaluated on all its domains, by few steps where it is attacked."""
    study, patch = trained_with(domains=DOMAINS)
    patch.setattr(resampling, "RESAMPLES", 20)
    patch.setattr(domains.recolor, "attack", partial(recolor.attack, steps=2))
    make(steps.planned(study))
    make(shifted.planned(study) + shifted.swept(study))
    return study


def test_on_images_that_a_domain_leaves_alone_all_outputs_are_those_on_the_test_set(asked):
    part = "domains/saturate-1"  # saturation 0 times 0.3 is 0: a grey image stays as it is
    assert torch.equal(shifted.images(asked, part, "rsn").tensors()["images"], data.load("digits").images["test"][:60])
    right, scores = scores_of(Run(asked).predictions("rsn-rsn", part))
    all_right, everywhere = scores_of(Run(asked).predictions("rsn-rsn"))
    assert np.array_equal(right, all_right[:60])
    for key in (("ce", 0), ("ce", 1), ("ss", 0), ("ss", 1), ("mcp", 0)):
        assert np.allclose(scores[key], everywhere[key][:60], atol=1e-5), key
    seen, noisy = Evidence(Run(asked)), outputs.correct(asked, "rsn-rsn", "domains/gaussian_noise-5")
    assert seen.fall("rsn-rsn", part) == 0
    assert seen.fall("rsn-rsn", "domains/gaussian_noise-5") == pytest.approx(all_right[:60].mean() - noisy.mean())


def test_every_score_and_oracle_is_evaluated_and_is_a_row_of_the_table(asked):
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
    labels = {name: name for name in compared["domain"].unique()}
    published = pd.read_csv(data.ROOT / "data/published/table3.csv")
    form = study_tables.table3_form(published, compared.query("arm in ['mcp', 'ss']"), asked, labels)
    assert form.data.loc[("recolor", "SS, here"), "AUROC ↑"].count("[") == 1
    assert form.data.loc[("recolor", "SS, paper"), "AUROC ↑"] == "65.4"


def test_a_sweep_begins_with_the_same_images_clean(asked):
    swept = compare.sweep(Run(asked))
    assert sorted(swept["severity"].unique()) == [0, 1, 2, 3, 4, 5]
    right, scores = scores_of(Run(asked).predictions("rsn-rsn"))
    row = swept.query("severity == 0 and arm == 'ce' and seed == 0").iloc[0]
    assert row["auroc"] == metrics.evaluate(scores["ce", 0][:40], right[:40])["auroc"]
    drawn = panels.severities(swept, asked, {"contrast": "Contrast"}, "ce")
    assert drawn.caption.startswith("AUROC of CE minus MCP's")
    assert len(drawn.figure.axes[0].texts) == 6


def test_outputs_are_computed_once_and_again_only_where_something_changed(asked):
    before = {path: path.stat().st_mtime_ns for path in store.run_folder(asked).glob("domains/**/*.safetensors")}
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


def test_a_study_without_domains_has_none_of_their_steps_and_tables(tiny):
    assert shifted.planned(tiny) == shifted.swept(tiny) == []
    assert compare.compare_shifts(Run(tiny)).empty
    assert compare.sweep(Run(tiny)).empty
