"""What is trained: once, from what it should be, and again only where it changed."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, make, quiet, scores_of

from trustlib import data, training
from trustlib.analysis import compare
from trustlib.models import backbone
from trustlib.runs import networks, steps, store
from trustlib.runs.results import Run
from trustlib.stats import resampling
from trustlib.study import StudyError


def network(**changes):
    return {"rsn": TINY["networks"]["rsn"] | changes}


def test_a_study_trains_once_and_only_again_what_changed(trained, study_with):
    before = {path: path.stat().st_mtime_ns for path in store.run_folder(trained).rglob("*.safetensors")}
    assert len(before) == 2 + 4
    make(steps.planned(trained))
    changed = make(steps.planned(study_with(networks=network(steep_slope={"alpha_pos": 2.0, "alpha_neg": 4.0}))))
    redone = {path for path, time in before.items() if path.stat().st_mtime_ns != time}
    assert redone == {step.path for step in changed if "/ss/" in step.name}


def test_the_classifier_is_cached_as_the_oracles_need_it_and_does_not_run_again(trained, monkeypatch):
    cache = steps.classifier(trained, "rsn").tensors()
    assert cache["train.correct"].shape == cache["train.p_true"].shape == (2, 3000)  # two views
    assert cache["test.logits"].shape == (1000, 10)
    labels = data.load("digits").labels
    probability = cache["test.logits"].double().softmax(1)
    assert torch.equal(cache["test.correct"], probability.argmax(1) == labels["test"])
    np.testing.assert_allclose(cache["test.mcp"], probability.amax(1))
    np.testing.assert_allclose(cache["test.p_true"], probability[torch.arange(1000), labels["test"]], rtol=1e-6)

    oracle = steps.oracle(trained, "rsn-rsn", "ce", 0)
    z = oracle.tensors("test.")["z"]
    oracle.path.unlink()
    monkeypatch.setattr(backbone, "classify", None)  # running the classifier again would now fail
    assert torch.equal(oracle.get(quiet).tensors("test.")["z"], z)


def test_evaluate_has_mcp_first_and_one_row_a_training(trained):
    steps.oracle(trained, "rsn-rsn", "ss", 0).path.unlink()
    frame = compare.evaluate(Run(trained))
    rows = list(zip(frame["arm"], frame["seed"], strict=True))
    assert rows[0] == ("mcp", 0)
    assert rows[-3:] == [("ce", 0), ("ce", 1), ("ss", 1)]
    assert frame["accuracy"].nunique() == 1
    assert {step.row()["status"] for step in steps.planned(trained)} == {"done", "not run"}
    assert frame["tied"].between(0, 1).all()
    by_name = frame.set_index("arm")
    assert np.isnan(by_name.loc["energy", "tnr"])  # it has no threshold of its own
    assert by_name.loc["temperature", "tpr"] >= 0


@pytest.mark.usefixtures("trained")
def test_an_oracle_that_fails_is_in_the_table_of_runs(study_with):
    study = study_with(networks=network(steep_slope={"alpha_pos": 2.0, "alpha_neg": 2000.0}))
    with pytest.raises(training.TrainingError, match="the loss is nan"):
        steps.oracle(study, "rsn-rsn", "ss", 0).get(quiet)
    (row,) = (step.row() for step in steps.planned(study) if step.run == "rsn-rsn/ss/seed0")
    assert row["status"] == "failed"
    assert "TrainingError: the loss is nan" in row["error"]
    assert "Traceback" in row["traceback"]


def test_the_scores_of_a_classifier_say_what_is_missing_and_are_rows_before_the_oracles(trained):
    made = steps.confidences(trained, "rsn")
    assert "no members" in made.manifest["missing"]["ensemble"]  # one classifier seed
    assert "no passes" in made.manifest["missing"]["mc_dropout_probs"]
    correct, scores = scores_of(Run(trained).predictions("rsn-rsn"))
    assert next(iter(scores)) == ("mcp", 0)
    assert list(scores).index(("energy", 0)) < list(scores).index(("ce", 0))
    p = scores["mcp", 0]
    np.testing.assert_allclose(made.tensors("test.")["mcp"], np.log(p / (1 - p)), rtol=1e-5)
    assert len(correct) == 1000


def test_a_comparison_is_made_once_and_follows_its_scores(trained, monkeypatch):
    monkeypatch.setattr(resampling, "RESAMPLES", 50)
    frame = compare.compare_pairs(Run(trained))
    auroc = frame[frame["metric"] == "auroc"].set_index("arm")
    scores = compare.evaluate(Run(trained))
    for arm, mean in scores.groupby("arm")["auroc"].mean().items():
        assert auroc.loc[arm, "estimate"] == pytest.approx(mean)
    assert auroc.loc["ss", "difference"] == pytest.approx(auroc.loc["ss", "estimate"] - auroc.loc["mcp", "estimate"])
    assert np.isnan(auroc.loc["mcp", ["difference", "p", "p_holm"]].astype(float)).all()
    assert auroc.loc["ss", "p_holm"] >= auroc.loc["ss", "p"]
    monkeypatch.setattr(resampling, "draw", None)  # computing again would now fail
    pd.testing.assert_frame_equal(compare.compare_pairs(Run(trained)), frame)
    points = compare.operating_points(Run(trained).predictions("rsn-rsn"), 0, max_risk=0.5)
    assert {"mcp", "ce", "ss"} <= {*points.index}
    assert (points["tnr_low"] <= points["tnr"]).all()
    assert (points["guaranteed"] <= points["coverage"]).all()


def test_what_was_made_with_other_settings_counts_as_not_run(trained, study_with):
    changed = study_with(oracle=TINY["oracle"] | {"rate": 2e-3})
    assert {arm for arm, _ in scores_of(Run(changed).predictions("rsn-rsn"))[1]}.isdisjoint({"ce", "ss"})
    assert [step.is_done for step in steps.planned(changed)] == 2 * [True] + 4 * [False]
    assert compare.evaluate(Run(study_with(classifier_seeds=[1]))).empty


STILL = {"rate": 1e-9, "frozen": "noise"}  # next to no training, and no batch norm that follows
STAGES = {
    "ce-head": {"label": "head", "loss": "ce", "head": "mlp", "backbone": "frozen"},
    "ce": {"label": "both", "loss": "ce", "head": "mlp", "start": "ce-head", "training": STILL},
    "ss": {"label": "SS", "loss": "ss", "head": "mlp-distance", "start": "ce", "training": STILL},
    "ss-new": {
        "label": "new", "loss": "ss", "head": "mlp-distance", "start": "ce", "keep_last": False, "training": STILL,
    },
}  # fmt: skip


@pytest.mark.usefixtures("trained")
def test_a_head_learns_alone_and_other_oracles_start_from_it(study_with):
    study = study_with(methods=STAGES, seeds=[0])
    make(steps.oracle(study, "rsn-rsn", method, 0) for method in ("ss", "ss-new"))  # with what they start from
    made = {method: steps.oracle(study, "rsn-rsn", method, 0) for method in STAGES}
    assert all(step.is_done for step in made.values())
    found, classifier = {method: step.tensors() for method, step in made.items()}, steps.classifier(study, "rsn")
    own = classifier.tensors("weights.")
    assert all(name.startswith(("weights.head.", "train.", "heldout.", "test.")) for name in found["ce-head"])

    # The second stage is the first, now computed by the whole network in float32.
    torch.testing.assert_close(found["ce"]["test.z"], found["ce-head"]["test.z"], atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(found["ce"]["weights.backbone.conv1.0.weight"], own["conv1.0.weight"], atol=1e-3, rtol=0)
    cpu = torch.device("cpu")
    whole = networks.trained_oracle(study, "rsn-rsn", "ce-head", made["ce-head"], classifier, cpu)
    (z,) = training.predict(whole, data.load("digits"), "test")
    torch.testing.assert_close(z, found["ce-head"]["test.z"], atol=2e-2, rtol=1e-2)  # features are kept in float16

    # Divided by its norm, the same last layer ranks the same.
    assert np.corrcoef(found["ce"]["test.z"], found["ss"]["test.z"])[0, 1] > 0.999
    last = "weights.head.last.linear.weight"
    torch.testing.assert_close(found["ce"][last], found["ss"][last], atol=1e-6, rtol=0)
    assert (found["ce"][last] - found["ss-new"][last]).abs().max() > 0.01

    changed = study_with(methods=STAGES | {"ce-head": STAGES["ce-head"] | {"training": {"rate": 0.1}}}, seeds=[0])
    assert not any(steps.oracle(changed, "rsn-rsn", method, 0).is_done for method in STAGES)  # one starts from another


def test_features_of_both_views_are_kept_for_heads(trained):
    seen = steps.features(trained, "rsn-rsn").get(quiet).tensors()
    assert seen["train"].dtype == torch.float16
    assert seen["train"].shape[:2] == (2, 3000)
    assert seen["test"].shape[:2] == (1, 1000)
    kept = steps.classifier(trained, "rsn").tensors("test.")["features"]
    torch.testing.assert_close(seen["test"][0].float(), kept, atol=1e-3, rtol=1e-3)
    assert not torch.equal(seen["train"][0], seen["train"][1])


def test_passes_with_dropout_and_members_are_seen_and_a_head_learns_from_the_labels_of_its_passes(study_with):
    dropout = network(args=TINY["networks"]["rsn"]["args"] | {"drop_rate": 0.5})
    study = study_with(
        networks=dropout, methods=STAGES, seeds=[0], classifier_seeds=[0, 1], dropout_passes=3, feature_passes=3
    )
    assert steps.confidences(study, "rsn").get(quiet).manifest["missing"] == {}
    both = steps._with_passes(study, "rsn", steps.classifiers(study, "rsn"), steps.setup(study)[0], "test")
    assert both.passes.shape == (3, 1000, 10)
    assert np.abs(both.passes[0] - both.passes[1]).max() > 0
    assert both.members.shape == (2, 1000, 10)
    np.testing.assert_array_equal(both.members[0], both.logits)

    seen = steps.features(study, "rsn-rsn").get(quiet).tensors()
    plain = steps.classifier(study, "rsn").tensors()
    assert {tuple(seen[key].shape[:2]) for key in ("train", "train.correct", "train.p_true")} == {(3, 3000)}
    assert [len(seen[part]) for part in ("heldout", "test")] == [2, 1]
    assert not torch.equal(seen["train"][0], seen["train"][2])  # two passes of the image as it is
    torch.testing.assert_close(seen["test"][0].float(), plain["test.features"], atol=1e-3, rtol=1e-3)  # no dropout

    # What the file says of a pass follows from the features of that very pass.
    labels, weight = study.images().labels["train"], plain["weights.fc.weight"]
    logits = seen["train"].float() @ weight.T + plain["weights.fc.bias"]  # (3, N, K)
    p_true = logits.softmax(2).gather(2, labels.expand(3, -1)[..., None])[..., 0]
    torch.testing.assert_close(seen["train.p_true"], p_true, atol=5e-3, rtol=0)
    assert ((logits.argmax(2) == labels) == seen["train.correct"]).float().mean() > 0.995  # but for rounding to float16
    assert seen["train.correct"].float().mean() < plain["train.correct"].float().mean()

    taught = []
    train = training.train
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "train", lambda *args, **kw: taught.append((args, kw)) or train(*args, **kw))
        steps.oracle(study, "rsn-rsn", "ce", 0).get(quiet)
    (head, head_settings), (whole, whole_settings) = taught  # the head, and the oracle that starts from it
    assert torch.equal(head[2].cpu(), seen["train.correct"])
    assert head_settings["views"] == 3
    assert torch.equal(whole[2].cpu(), plain["train.correct"])
    assert whole_settings["views"] == 2


@pytest.mark.usefixtures("trained")
def test_passes_with_dropout_need_dropout_and_one_network(study_with):
    with pytest.raises(ValueError, match="feature_passes: this network has no dropout"):
        steps.features(study_with(feature_passes=2), "rsn-rsn").get(quiet)
    with pytest.raises(StudyError, match="feature_passes: the oracle of 'rsn-other' shares no dropout"):
        study_with(networks=network() | {"other": network()["rsn"]}, pairs=["rsn-rsn", "rsn-other"], feature_passes=2)


def test_a_large_training_set_keeps_the_images_that_scores_refer_to(tiny, monkeypatch):
    monkeypatch.setattr("trustlib.confidence.observed.REFERENCE", 500)
    made = steps.classifier(tiny, "rsn").get(quiet)
    kept, correct = made.tensors("reference."), made.tensors("train.")["correct"]
    assert kept["index"].tolist() == sorted(set(kept["index"].tolist()))
    assert kept["logits"].shape == (500, 10)
    assert correct.shape == (2, 3000)
    images = data.load("digits")
    seen = steps.observation(made, images, "train")
    np.testing.assert_array_equal(seen.labels, images.labels["train"][kept["index"]])
    np.testing.assert_array_equal(seen.correct, correct[0][kept["index"]])
