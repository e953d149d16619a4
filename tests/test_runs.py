"""What lies on disk: whole files or none, nothing done twice, nothing lost, failures kept."""

import ast
import copy
import importlib
import json
import linecache
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import TINY, scores_of

from trustlib import confidence, data, training
from trustlib.analysis import compare
from trustlib.models import backbone
from trustlib.report import publish
from trustlib.runs import experiments, jobs, networks, provenance, store, unseen
from trustlib.runs.results import Run
from trustlib.stats import resampling
from trustlib.study import StudyError, load_study


def quiet(line):
    pass


def test_a_write_that_fails_leaves_the_old_file_and_no_scratch(tmp_path):
    path = tmp_path / "a.json"
    store.write_json(path, {"old": 1})

    def interrupted():
        with store.atomic(path) as scratch:
            scratch.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.fixture
def counter():
    """A function to make a training from, that counts its calls."""

    def make():
        make.calls += 1
        return {"z": torch.arange(3.0)}, {"history": [{"loss": 0.5}]}

    make.calls = 0
    return make


def test_a_training_is_made_once_for_a_configuration(tmp_path, counter):
    path = tmp_path / "seed0.safetensors"
    first = store.cached(path, {"rate": 1}, counter)
    assert store.cached(path, {"rate": 1}, counter) == first
    assert counter.calls == 1
    assert store.cached(path, {"rate": 2}, counter)["key"] != first["key"]
    assert counter.calls == 2
    assert store.read_tensors(path)["z"].tolist() == [0, 1, 2]
    assert store.read_manifest(path)["config"] == {"rate": 2}


@pytest.mark.parametrize("length", [0, 5, 40, -4])
def test_a_truncated_file_is_made_again(tmp_path, counter, length):
    path = tmp_path / "seed0.safetensors"
    store.cached(path, {}, counter)
    path.write_bytes(path.read_bytes()[:length])
    store.cached(path, {}, counter)
    assert counter.calls == 2
    assert store.read_tensors(path)["z"].tolist() == [0, 1, 2]


def test_a_failure_is_recorded_with_its_traceback_until_it_is_made(tmp_path, counter):
    path = tmp_path / "seed0.safetensors"

    def fail():
        raise ArithmeticError("the loss is nan")

    with pytest.raises(ArithmeticError):
        store.cached(path, {}, fail)
    failed = json.loads(path.with_suffix(".failed.json").read_text())
    assert failed["error"] == "ArithmeticError: the loss is nan"
    assert "in fail" in failed["traceback"]
    assert store.status(path, {})["error"] == failed["error"]
    path.with_suffix(".failed.json").write_bytes(b"")
    assert store.status(path, {}) == {"status": "not run"}
    store.cached(path, {}, counter)
    assert not path.with_suffix(".failed.json").exists()


def test_attempt_goes_on_after_a_failure_and_the_job_has_no_manifest(tiny, counter):
    def fail():
        raise ValueError("no")

    done, failed = jobs.attempt([("a", fail), ("b", lambda: {"key": "k", "seconds": 1})], quiet)
    assert (list(done), failed) == (["b"], {"a": "ValueError: no"})
    jobs.finish_job(tiny, "job", done, {})
    assert store.job_path(tiny, "job").exists()
    with pytest.raises(jobs.JobError, match="1 of 2 trainings failed:\n  a: ValueError: no"):
        jobs.finish_job(tiny, "job", done, failed)
    assert not store.job_path(tiny, "job").exists()


def test_an_undeclared_parameter_is_refused_with_the_nearest_name():
    own = 'study: str = "digits"  # a name\nmake_missing: bool = True\n'
    jobs.check_parameters(["", own, "import os"])
    jobs.check_parameters(["", own, "# Parameters\nstudy = 'fashion'\n", "x = 1"])
    with pytest.raises(jobs.JobError, match="no parameter 'studdy'; did you mean 'study'"):
        jobs.check_parameters(["", own, "# Parameters\nstuddy = 'fashion'\n"])


def test_a_digest_of_source_ignores_comments_docstrings_and_layout():
    first, same, other = (
        provenance._code(ast.parse(source))
        for source in (
            'def f(x):\n    """Doc."""\n    return x  # why',
            "def f(x):\n  return x",
            "def f(x):\n    return -x",
        )
    )
    assert first == same
    assert first != other


@pytest.mark.parametrize(
    ("module", "changes"),
    [
        ("losses", {"scores"}),  # of its losses a training sees its own alone
        ("data.images", {"oracle", "classifier", "scores", "domain"}),
        ("runs.experiments", {"oracle", "classifier", "scores"}),
        ("training", {"oracle", "classifier", "scores"}),
        ("confidence", {"scores"}),
        ("models.pretrained", {"oracle", "classifier", "scores"}),
        ("shifts.recolor", {"domain"}),
        ("report.tables", set()),
        ("runs.store", set()),
    ],
)
def test_a_key_follows_the_modules_that_make_a_result(tiny, monkeypatch, module, changes):
    def keys():
        provenance.source_digest.cache_clear()
        configs = {
            "classifier": experiments.classifier_config(tiny, "rsn"),
            "oracle": experiments.oracle_config(tiny, "rsn-rsn", "ss", 0),
            "scores": experiments.confidence_config(tiny, "rsn"),
            "domain": unseen.domain_config(tiny, "domains/fog-5", "rsn"),
        }
        return {name: config["source"] for name, config in configs.items()}

    before = keys()
    monkeypatch.setitem(provenance._codes(), module, "x = 1")
    after = keys()
    monkeypatch.undo()
    provenance.source_digest.cache_clear()
    assert {name for name in before if before[name] != after[name]} == changes


def test_a_loss_counts_with_the_helpers_of_its_module_and_without_other_losses(tmp_path, monkeypatch):
    def digest(text):
        (tmp_path / "of_mine.py").write_text(text)
        monkeypatch.syspath_prepend(tmp_path)
        sys.modules.pop("of_mine", None)
        linecache.clearcache()
        importlib.invalidate_caches()
        provenance.source_digest.cache_clear()
        return provenance.source_digest(function=importlib.import_module("of_mine").loss)

    text = "def loss(z):\n    return _half(z)\n\n\ndef _half(z):\n    return z / 2\n\n\ndef other(z):\n    return z\n"
    first = digest(text)
    assert digest(text.replace("def loss(z):\n", 'def loss(z):\n    """Half."""  # of it\n')) == first
    assert digest(text.replace("    return z\n", "    return -zz\n")) == first
    assert digest(text.replace("z / 2", "z / 22")) != first
    assert digest(text.replace("_half(z)\n\n", "-_half(z)\n\n")) != first


def test_a_study_trains_once_and_only_again_what_changed(write_study):
    study = load_study(write_study())
    manifests = {
        (arm, seed): experiments.train_oracle(study, "rsn-rsn", arm, seed, quiet)
        for arm in study.methods
        for seed in study.seeds
    }
    files = sorted((store.run_folder(study)).rglob("*.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in files}
    assert len(files) == 1 + 4

    slides = {"alpha_pos": 2.0, "alpha_neg": 4.0}
    changed = study.model_copy(
        update={"networks": {"rsn": study.networks["rsn"].model_copy(update={"steep_slope": slides_of(study, slides)})}}
    )
    for arm, seed in manifests:
        experiments.train_oracle(changed, "rsn-rsn", arm, seed, quiet)
    redone = {path for path in files if path.stat().st_mtime_ns != before[path]}
    assert redone == {store.oracle_path(study, "rsn-rsn", "ss", seed) for seed in study.seeds}


def slides_of(study, values):
    return type(study.networks["rsn"].steep_slope)(**values)


def test_the_classifier_is_cached_as_the_oracles_need_it_and_does_not_run_again(tiny, monkeypatch):
    experiments.train_classifier(tiny, "rsn", quiet)
    cache = store.read_tensors(store.classifier_path(tiny, "rsn"))
    assert cache["train.correct"].shape == cache["train.p_true"].shape == (2, 3000)  # two views
    assert cache["test.logits"].shape == (1000, 10)
    labels = data.load("digits").labels
    probability = cache["test.logits"].double().softmax(1)
    assert torch.equal(cache["test.correct"], probability.argmax(1) == labels["test"])
    np.testing.assert_allclose(cache["test.mcp"], probability.amax(1))
    np.testing.assert_allclose(cache["test.p_true"], probability[torch.arange(1000), labels["test"]], rtol=1e-6)

    monkeypatch.setattr(backbone, "classify", None)  # running the classifier again would now fail
    experiments.train_oracle(tiny, "rsn-rsn", "ce", 0, quiet)


def test_evaluate_has_mcp_first_and_one_row_a_training(tiny):
    for arm in tiny.methods:
        experiments.train_oracle(tiny, "rsn-rsn", arm, 1, quiet)
    frame = compare.evaluate(Run(tiny))
    assert list(zip(frame["arm"], frame["seed"], strict=True)) == [("mcp", 0), ("ce", 1), ("ss", 1)]
    assert frame["accuracy"].nunique() == 1
    assert {row["status"] for row in experiments.trainings(tiny)} == {"done", "not run"}
    assert frame["tied"].between(0, 1).all()


def test_an_oracle_that_fails_is_in_the_table_of_runs(write_study, tiny):
    networks = {"rsn": tiny.networks["rsn"].model_dump() | {"steep_slope": {"alpha_pos": 2.0, "alpha_neg": 2000.0}}}
    study = load_study(write_study(networks=networks))
    with pytest.raises(training.TrainingError, match="the loss is nan"):
        experiments.train_oracle(study, "rsn-rsn", "ss", 0, quiet)
    (row,) = (row for row in experiments.trainings(study) if row["run"] == "rsn-rsn/ss/seed0")
    assert row["status"] == "failed"
    assert "TrainingError: the loss is nan" in row["error"]
    assert "Traceback" in row["traceback"]


def test_publish_refuses_what_is_not_finished(tiny):
    with pytest.raises(jobs.JobError, match=r"tiny is not finished \(lacking rsn"):
        publish.publish(tiny, experiments.trainings(tiny))


def test_the_scores_of_a_classifier_are_made_once_and_are_rows_before_the_oracles(tiny, monkeypatch):
    manifest = experiments.score_classifier(tiny, "rsn", quiet)
    assert "no members" in manifest["missing"]["ensemble"]  # one classifier seed
    assert "no passes" in manifest["missing"]["mc_dropout_probs"]
    monkeypatch.setattr(experiments, "observed", None)  # computing again would now fail
    assert experiments.score_classifier(tiny, "rsn", quiet) == manifest
    correct, scores = scores_of(Run(tiny).predictions("rsn-rsn"))
    assert next(iter(scores)) == ("mcp", 0)
    assert ("energy", 0) in scores
    odds = store.read_tensors(store.confidence_path(tiny, "rsn"), "test.")["mcp"].numpy()
    p = scores["mcp", 0]
    np.testing.assert_allclose(odds, np.log(p / (1 - p)), rtol=1e-5)
    frame = compare.evaluate(Run(tiny)).set_index("arm")
    assert np.isnan(frame.loc["energy", "tnr"])  # it has no threshold of its own
    assert frame.loc["temperature", "tpr"] >= 0
    assert len(correct) == 1000


def test_dropout_passes_and_members_are_seen(write_study, tiny):
    network = tiny.networks["rsn"].model_dump()
    network["args"] = network["args"] | {"drop_rate": 0.3}
    study = load_study(write_study(networks={"rsn": network}, classifier_seeds=[0, 1], dropout_passes=3))
    manifest = experiments.score_classifier(study, "rsn", quiet)
    assert manifest["missing"] == {}
    seen = experiments._with_passes(study, "rsn", experiments.setup(study)[0], "test")
    assert seen.passes.shape == (3, 1000, 10)
    assert np.abs(seen.passes[0] - seen.passes[1]).max() > 0
    assert seen.members.shape == (2, 1000, 10)
    np.testing.assert_array_equal(seen.members[0], seen.logits)


def test_a_comparison_is_made_once_and_follows_its_scores(tiny, monkeypatch):
    for arm in tiny.methods:
        for seed in tiny.seeds:
            experiments.train_oracle(tiny, "rsn-rsn", arm, seed, quiet)
    monkeypatch.setattr(resampling, "RESAMPLES", 50)
    frame = compare.compare_pairs(Run(tiny))
    auroc = frame[frame["metric"] == "auroc"].set_index("arm")
    scores = compare.evaluate(Run(tiny))
    for arm, mean in scores.groupby("arm")["auroc"].mean().items():
        assert auroc.loc[arm, "estimate"] == pytest.approx(mean)
    assert auroc.loc["ss", "difference"] == pytest.approx(auroc.loc["ss", "estimate"] - auroc.loc["mcp", "estimate"])
    assert np.isnan(auroc.loc["mcp", ["difference", "p", "p_holm"]].astype(float)).all()
    assert auroc.loc["ss", "p_holm"] >= auroc.loc["ss", "p"]
    monkeypatch.setattr(resampling, "_draw", None)  # computing again would now fail
    pd.testing.assert_frame_equal(compare.compare_pairs(Run(tiny)), frame)
    points = compare.operating_points(Run(tiny).predictions("rsn-rsn"), 0, max_risk=0.5)
    assert list(points.index) == ["mcp", "ce", "ss"]
    assert (points["tnr_low"] <= points["tnr"]).all()
    assert (points["guaranteed"] <= points["coverage"]).all()


def test_publish_copies_report_tables_and_scores_but_no_weights(tiny, monkeypatch):
    experiments.score_classifier(tiny, "rsn", quiet)
    for arm in tiny.methods:
        for seed in tiny.seeds:
            experiments.train_oracle(tiny, "rsn-rsn", arm, seed, quiet)
    folder = store.run_folder(tiny)
    (folder / "report.html").write_text("<h1>report</h1>")
    (folder / "tables").mkdir()
    pd.DataFrame({"a": [1]}).to_csv(folder / "tables/scores.csv")
    clean = store.read_manifest

    def with_dirty(dirty):
        def read(path):
            manifest = clean(path)
            return manifest | {"provenance": manifest["provenance"] | {"dirty": dirty}}

        return read

    def refused(message):
        with pytest.raises(jobs.JobError, match=message):
            publish.publish(tiny, experiments.trainings(tiny))

    refused("lacking a report of these trainings")
    store.write_json(folder / "report.json", {"commit": "c", "dirty": True})
    monkeypatch.setattr(store, "read_manifest", with_dirty(True))
    refused("study tiny was run from uncommitted changes")
    monkeypatch.setattr(store, "read_manifest", with_dirty(False))
    (folder / "figures").mkdir()
    refused("the report of study tiny was made from uncommitted changes")
    store.write_json(folder / "report.json", {"commit": "d", "dirty": False})
    (store.results() / "tiny").mkdir()
    refused("tiny is no study's: move it")
    (store.results() / "tiny").rmdir()
    rename = Path.rename

    def full(path, target):
        if path.parent != store.results() and target == store.results() / "tiny" and path.name == "tiny":
            raise OSError("no space")
        return rename(path, target)

    def fails():
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", full)
            with pytest.raises(OSError, match="no space"):
                publish.publish(tiny, experiments.trainings(tiny))

    fails()
    assert not (store.results() / "tiny").exists()
    written = {
        str(path.relative_to(store.results() / "tiny")) for path in publish.publish(tiny, experiments.trainings(tiny))
    }
    assert written == {"report.html", "tables/scores.csv", "scores.npz", "manifest.json"}
    fails()
    assert all((store.results() / "tiny" / name).exists() for name in written)
    assert "rsn/confidences.energy" in np.load(store.results() / "tiny/scores.npz")
    scores = np.load(store.results() / "tiny/scores.npz", allow_pickle=False)
    z = store.read_tensors(store.oracle_path(tiny, "rsn-rsn", "ce", 1))["test.z"]
    np.testing.assert_array_equal(scores["rsn-rsn/ce/seed1.z"], z)
    seen = store.read_tensors(store.classifier_path(tiny, "rsn"))
    labels = tiny.images().labels
    for part, under in (("test", ""), ("heldout", "heldout.")):
        own = {name: scores[f"rsn/seed0.{under}{name}"] for name in ("predicted", "correct", "mcp")}
        assert own["predicted"].dtype == np.int16
        np.testing.assert_array_equal(own["predicted"] == labels[part].numpy(), own["correct"])
        np.testing.assert_array_equal(own["mcp"], seen[f"{part}.mcp"])
        assert (
            len(scores[f"rsn-rsn/ce/seed1.{under}z"]) == len(own["mcp"]) == len(scores[f"rsn/confidences.{under}knn"])
        )
    manifest = json.loads((store.results() / "tiny/manifest.json").read_text())
    assert len(manifest["runs"]) == 1 + 1 + 4
    of_ce = manifest["runs"]["rsn-rsn/ce/seed1"]
    own = clean(store.oracle_path(tiny, "rsn-rsn", "ce", 1))["provenance"]
    assert manifest["provenance"][of_ce["provenance"]] == own | {"dirty": False}
    assert manifest["report"] == {"commit": "d", "dirty": False}


def test_what_was_made_with_other_settings_counts_as_not_run(write_study, tiny):
    experiments.train_oracle(tiny, "rsn-rsn", "ce", 0, quiet)
    assert set(scores_of(Run(tiny).predictions("rsn-rsn"))[1]) == {("mcp", 0), ("ce", 0)}
    changed = load_study(write_study(oracle=tiny.oracle.model_dump() | {"rate": 2e-3}))
    assert set(scores_of(Run(changed).predictions("rsn-rsn"))[1]) == {("mcp", 0)}
    assert [row["status"] for row in experiments.trainings(changed)] == ["done", "not run"] + 4 * ["not run"]
    other_classifier = load_study(write_study(classifier_seeds=[1]))
    assert compare.evaluate(Run(other_classifier)).empty


STILL = {"rate": 1e-9, "frozen": "noise"}  # next to no training, and no batch norm that follows
STAGES = {
    "ce-head": {"label": "head", "loss": "ce", "head": "mlp", "backbone": "frozen"},
    "ce": {"label": "both", "loss": "ce", "head": "mlp", "start": "ce-head", "training": STILL},
    "ss": {"label": "SS", "loss": "ss", "head": "mlp-distance", "start": "ce", "training": STILL},
    "ss-new": {
        "label": "new", "loss": "ss", "head": "mlp-distance", "start": "ce", "keep_last": False, "training": STILL,
    },
}  # fmt: skip


def test_a_head_learns_alone_and_other_oracles_start_from_it(write_study):
    study = load_study(write_study(methods=STAGES, seeds=[0]))
    for arm in ("ss", "ss-new"):  # what they start from is trained with them
        experiments.train_oracle(study, "rsn-rsn", arm, 0, quiet)
    assert {row["status"] for row in experiments.trainings(study) if row["kind"] == "oracle"} == {"done"}
    found = {arm: store.read_tensors(store.oracle_path(study, "rsn-rsn", arm, 0)) for arm in STAGES}
    own = store.read_tensors(store.classifier_path(study, "rsn"), "weights.")
    assert all(name.startswith(("weights.head.", "train.", "heldout.", "test.")) for name in found["ce-head"])

    # The second stage is the first, now computed by the whole network in float32.
    torch.testing.assert_close(found["ce"]["test.z"], found["ce-head"]["test.z"], atol=2e-2, rtol=1e-2)
    torch.testing.assert_close(found["ce"]["weights.backbone.conv1.0.weight"], own["conv1.0.weight"], atol=1e-3, rtol=0)
    whole = networks.trained_oracle(study, "rsn-rsn", "ce-head", 0, torch.device("cpu"))
    (z,) = training.predict(whole, data.load("digits"), "test")
    torch.testing.assert_close(z, found["ce-head"]["test.z"], atol=2e-2, rtol=1e-2)  # features are kept in float16

    # Divided by its norm, the same last layer ranks the same.
    assert np.corrcoef(found["ce"]["test.z"], found["ss"]["test.z"])[0, 1] > 0.999
    last = "weights.head.last.linear.weight"
    torch.testing.assert_close(found["ce"][last], found["ss"][last], atol=1e-6, rtol=0)
    assert (found["ce"][last] - found["ss-new"][last]).abs().max() > 0.01


def test_an_oracle_is_stale_when_what_it_starts_from_is(write_study):
    study = load_study(write_study(methods=STAGES, seeds=[0]))
    other = STAGES | {"ce-head": STAGES["ce-head"] | {"training": {"rate": 0.1}}}
    changed = load_study(write_study(methods=other, seeds=[0]))
    for arm in STAGES:
        keys = {provenance.digest(experiments.oracle_config(s, "rsn-rsn", arm, 0)) for s in (study, changed)}
        assert len(keys) == 2, arm


def test_features_of_both_views_are_kept_for_heads(tiny):
    experiments.extract_features(tiny, "rsn-rsn", quiet)
    seen = store.read_tensors(store.features_path(tiny, "rsn"))
    assert seen["train"].dtype == torch.float16
    assert seen["train"].shape[:2] == (2, 3000)
    assert seen["test"].shape[:2] == (1, 1000)
    kept = store.read_tensors(store.classifier_path(tiny, "rsn"), "test.")["features"]
    torch.testing.assert_close(seen["test"][0].float(), kept, atol=1e-3, rtol=1e-3)
    assert not torch.equal(seen["train"][0], seen["train"][1])


def test_a_head_learns_from_passes_with_dropout_and_their_own_labels(write_study):
    networks_ = copy.deepcopy(TINY["networks"])
    networks_["rsn"]["args"]["drop_rate"] = 0.5
    study = load_study(write_study(networks=networks_, methods=STAGES, seeds=[0], feature_passes=3))
    experiments.extract_features(study, "rsn-rsn", quiet)
    path = store.features_path(study, "rsn")
    seen = store.read_tensors(path)
    plain = store.read_tensors(store.classifier_path(study, "rsn"))
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
        experiments.train_oracle(study, "rsn-rsn", "ce", 0, quiet)
    (head, head_settings), (whole, whole_settings) = taught  # the head, and the oracle that starts from it
    assert torch.equal(head[2].cpu(), seen["train.correct"])
    assert head_settings["views"] == 3
    assert torch.equal(whole[2].cpu(), plain["train.correct"])
    assert whole_settings["views"] == 2


def test_passes_with_dropout_need_dropout_and_one_network(write_study, tiny):
    with pytest.raises(ValueError, match="feature_passes: this network has no dropout"):
        experiments.extract_features(load_study(write_study(feature_passes=2)), "rsn-rsn", quiet)
    two = {"rsn": TINY["networks"]["rsn"], "other": TINY["networks"]["rsn"]}
    with pytest.raises(StudyError, match="feature_passes: the oracle of 'rsn-other' shares no dropout"):
        load_study(write_study(networks=two, pairs=["rsn-rsn", "rsn-other"], feature_passes=2))


def test_a_checkpoint_goes_with_the_training_and_is_not_taken_up_by_another(tmp_path):
    path, said = tmp_path / "seed0.safetensors", []
    keeper = store.Checkpoints(path, {"a": 1}, 0, said.append)
    assert keeper.latest() is None
    for steps in (1, 2, 3):
        assert keeper.due(steps)
        keeper.save({"steps": steps, "weights": torch.full((2,), steps)})
    assert store.Checkpoints(path, {"a": 1}, 5, said.append).latest()["weights"].tolist() == [3, 3]
    assert "going on after 3 steps" in said[0]
    assert store.Checkpoints(path, {"a": 2}, 5).latest() is None
    assert not store.Checkpoints(path, {"a": 1}, 5).due(1)
    for name in (".seed0.safetensors.abcd_123", "..seed0.checkpoint.pt.abcd_123", ".rate1-seed0.safetensors.abcd_123"):
        (tmp_path / name).write_bytes(b"begun by a process that was killed")
    store.cached(path, {"a": 1}, lambda: ({"x": torch.zeros(1)}, {}))
    assert {p.name for p in tmp_path.glob(".*")} == {".rate1-seed0.safetensors.abcd_123", ".seed0.lock"}


def test_a_full_disk_does_not_stop_a_training(tmp_path, monkeypatch):
    said, keeper = [], store.Checkpoints(tmp_path / "seed0.safetensors", {}, 0, print)
    keeper.save({"steps": 1})
    keeper.log = said.append

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.torch, "save", full)
    keeper.save({"steps": 2})
    assert "no checkpoint written, the last one stays: OSError: [Errno 28]" in said[0]
    monkeypatch.undo()
    assert keeper.latest()["steps"] == 1


def test_a_large_training_part_keeps_the_images_that_scores_refer_to(write_study, monkeypatch):
    monkeypatch.setattr(confidence, "REFERENCE", 500)
    study = load_study(write_study())
    experiments.train_classifier(study, "rsn", quiet)
    path = store.classifier_path(study, "rsn")
    kept = store.read_tensors(path, "reference.")
    assert kept["index"].tolist() == sorted(set(kept["index"].tolist()))
    assert kept["logits"].shape == (500, 10)
    assert store.read_tensors(path, "train.")["correct"].shape == (2, 3000)
    images = data.load("digits")
    seen = experiments.observed(path, images, "train")
    np.testing.assert_array_equal(seen.labels, images.labels["train"][kept["index"]])
    of_all = store.read_tensors(path, "train.")["correct"][0][kept["index"]]
    np.testing.assert_array_equal(seen.correct, of_all)


def test_a_training_killed_in_the_middle_goes_on_to_the_same_bits(write_study, monkeypatch, tmp_path):
    settings = {"training": TINY["networks"]["rsn"]["training"] | {"epochs": 3}}
    networks = {"rsn": TINY["networks"]["rsn"] | settings}
    file = write_study(networks=networks, checkpoint_minutes=1e-6)  # at every step
    study = load_study(file)
    path = store.classifier_path(study, "rsn")
    checkpoint = store._checkpoint(path)
    train = "from trustlib.runs.experiments import train_classifier; from trustlib.study import load_study; "
    train += "train_classifier(load_study({!r}), 'rsn')"
    with subprocess.Popen([sys.executable, "-c", train.format(file)]) as training:
        while not checkpoint.exists():
            assert training.poll() is None
            time.sleep(0.01)
        training.kill()
    assert not path.exists()
    said = []
    experiments.train_classifier(study, "rsn", said.append)
    assert not checkpoint.exists()
    resumed = store.read_tensors(path)
    monkeypatch.setenv("TRUST_RESULTS", str(tmp_path / "undisturbed"))
    experiments.train_classifier(study, "rsn", quiet)
    for name, tensor in store.read_tensors(store.classifier_path(study, "rsn")).items():
        assert torch.equal(tensor, resumed[name]), name


@pytest.mark.parametrize(
    ("file", "dirty"),
    [
        ("", False),
        ("trustlib/runs/store.py", True),
        ("trustlib/new.py", True),
        ("studies/new.yaml", True),
        ("notes", False),
    ],
)
def test_what_git_does_not_know_is_not_clean(file, dirty, tmp_path, monkeypatch):
    monkeypatch.setattr("trustlib.runs.provenance.ROOT", tmp_path)
    for folder in ("trustlib", "studies"):
        (tmp_path / folder).mkdir()
    (tmp_path / "trustlib/runs").mkdir()
    (tmp_path / "trustlib/runs/store.py").write_text("x = 1\n")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        subprocess.run([*git, *command], cwd=tmp_path, check=True)
    if file:
        (tmp_path / file).write_text("x = 2\n")
    assert provenance.provenance()["dirty"] == dirty
