"""Studies: the committed ones are valid, and a mistake in a YAML file is one clear line."""

import copy

import pytest
import yaml
from conftest import ABLATIONS, TINY

from trustlib.data import ROOT
from trustlib.study import StudyError, check_losses, load_study

FOCAL = {"label": "Focal", "loss": "focal", "head": "linear"}


FOUR = ["vit-vit", "vit-rsn", "rsn-vit", "rsn-rsn"]


@pytest.mark.parametrize(
    ("name", "pairs"),
    [("fashion", ["rsn-rsn", "vit-vit"]), ("digits", FOUR), ("colour", ["rsn-rsn", "vit-vit"])],
)
def test_the_committed_studies_train_what_the_paper_compares(name, pairs):
    study = load_study(name)
    trained = {(arm.loss, arm.form) for arm in study.methods.values()}
    corrected = {(loss, "corrected") for loss in ("ce", "focal", "tcp", "ss", "cb")}
    assert trained == corrected | {("ce", "released"), ("focal", "released")}
    assert study.pairs == pairs
    assert study.pair_label("rsn-rsn") == "⟨RSN, RSN⟩"
    assert {"stylized", "recolor"} <= set(study.domains.judged)


def changed(path, value):
    """TINY with the entry at a dotted path replaced."""
    settings = copy.deepcopy(TINY)
    *way, last = path.split(".")
    place = settings
    for key in way:
        place = place[key]
    place[last] = value
    return settings


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("sedes", [0], "unknown key 'sedes'; did you mean 'seeds'"),
        ("oracle.epoch", 3, "unknown key 'oracle.epoch'; did you mean 'epochs'"),
        ("networks.rsn.modell", "x", "unknown key 'networks.rsn.modell'; did you mean 'model'"),
        ("methods.ce.headd", "linear", "unknown key 'methods.ce.headd'; did you mean 'head'"),
        ("oracle.rate", "fast", "oracle.rate: input should be a valid number, found 'fast'"),
        ("oracle.epochs", 1.5, "oracle.epochs: input should be a valid integer"),
        ("flip", "yes", "flip: input should be a valid boolean"),
        ("networks.rsn.steep_slope.alpha_neg", 0.0, "alpha_neg: input should be greater than 0, found 0"),
        ("networks.rsn.steep_slope.alpha_pos", -1.0, "alpha_pos: input should be greater than 0"),
        ("methods.ce.loss", "foc", "unknown loss 'foc'; did you mean 'focal'"),
        ("methods.ce.head", "round", "methods.ce.head: input should be 'linear', 'distance', 'mlp' or 'mlp-distance'"),
        ("methods.ss.form", "released", "loss 'ss' has no released form"),
        ("dataset", "fasion", "unknown dataset 'fasion'; did you mean 'fashion'"),
        ("pairs", ["rsn-vit"], "'rsn-vit' is not ORACLE-CLASSIFIER"),
        ("methods.ce.hyper", {"gama": 2.0}, "hyper: loss 'ce' has no 'gama'"),
        ("methods.focal", FOCAL | {"hyper": {"gama": 2.0}}, "has no 'gama'; did you mean 'gamma'"),
        ("methods.mcp", FOCAL, "'mcp' is a score of the classifier itself"),
        ("seeds", [1, 1], "seeds: holds something twice"),
        ("seeds", [], "seeds: list should have at least 1 item"),
    ],
)
def test_a_mistake_names_the_key(write_study, path, value, message):
    with pytest.raises(StudyError) as error:
        load_study(write_study(**changed(path, value)))
    assert message in str(error.value)
    assert "tiny.yaml" in str(error.value)


def test_a_loss_with_a_value_out_of_range_is_named_when_a_study_is_checked(write_study):
    focal = FOCAL | {"hyper": {"gamma": -1.0}}
    study = load_study(write_study(**changed("methods.focal", focal)))
    with pytest.raises(StudyError, match=r"^methods\.focal: focal: gamma must be >= 0, found -1"):
        check_losses(study)


def test_an_unknown_study_suggests_the_nearest():
    with pytest.raises(StudyError, match="unknown study 'fashon'; did you mean 'fashion'"):
        load_study("fashon")


def test_a_file_that_is_no_mapping_or_no_yaml_is_an_error(tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text("- a\n- b\n")
    with pytest.raises(StudyError, match="expected a mapping"):
        load_study(str(path))
    path.write_text("a: [1\n")
    with pytest.raises(StudyError, match="not valid YAML"):
        load_study(str(path))


def test_unknown_pairs_networks_and_arms_suggest_the_nearest(tiny):
    with pytest.raises(StudyError, match="no pair 'rsn-rns'; did you mean 'rsn-rsn'"):
        tiny.pair("rsn-rns")
    with pytest.raises(StudyError, match="no network 'vit'; known: rsn"):
        tiny.network("vit")
    with pytest.raises(StudyError, match="no method 'sss'; did you mean 'ss'"):
        tiny.chosen_methods(["ce", "sss"])
    assert tiny.chosen_methods([]) == ["ce", "ss"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "questions.labels.methods",
            ["ce", "cee"],
            "ablations.questions.labels: unknown method 'cee'; did you mean 'ce'",
        ),
        ("questions.labels.against", "sss", "ablations.questions.labels: unknown method 'sss'"),
        ("questions.labels.pairs", ["rsn"], "ablations.questions.labels.pairs: 'rsn' is not ORACLE-CLASSIFIER"),
        ("questions.labels.armz", [], "unknown key 'ablations.questions.labels.armz'"),
        ("rates", [1e-3], "ablations need seeds, at least two, rates, two or none"),
        ("seeds", [1, 1], "ablations.seeds: holds something twice"),
        ("methods.ce", ABLATIONS["methods"]["ce-fixed"], "ablations: 'ce' is a name of the study's own"),
        ("methods.ce-fixed.training", {"ratee": 1.0}, "methods.ce-fixed.training: unknown key 'ratee'"),
        (
            "methods.ce-fixed.training",
            {"optimizer": "adagrad"},
            "methods.ce-fixed.training: optimizer: input should be",
        ),
        ("methods.ce-heldout.loss", "tcp", "methods.ce-heldout: tcp learns a probability"),
    ],
)
def test_a_mistake_in_an_ablation_names_the_key(write_study, path, value, message):
    settings = copy.deepcopy(ABLATIONS)
    *way, last = path.split(".")
    place = settings
    for key in way:
        place = place[key]
    place[last] = value
    with pytest.raises(StudyError) as error:
        load_study(write_study(ablations=settings))
    assert message in str(error.value)


def test_what_ablations_add_is_known_by_name(write_study):
    study = load_study(write_study(ablations=ABLATIONS))
    assert study.recipe(study.pairs[0], "ce-fixed").rate == 2e-3
    assert study.recipe(study.pairs[0], "ce", 5e-3).rate == 5e-3
    assert study.method_label("ce-heldout") == "CE, held out"
    assert list(study.methods) == ["ce", "ss"]
    with pytest.raises(StudyError, match="no ablation 'label'; did you mean 'labels'"):
        study.ablation("label")
    with pytest.raises(StudyError, match="no method 'ce-fix'; did you mean 'ce-fixed'"):
        study.method("ce-fix")


def test_a_study_over_another_holds_what_differs(write_study, tmp_path):
    below = load_study(write_study())
    above = tmp_path / "above.yaml"
    above.write_text(
        "base: tiny\nseeds: [7]\noracle: {rate: 0.5}\nmethods: {ce: {hyper: {weight_wrong: 2.0}}, ss: null}\n"
    )
    study = load_study(str(above))
    assert (study.name, study.seeds, study.oracle.rate) == ("above", [7], 0.5)
    assert study.oracle.epochs == below.oracle.epochs
    assert list(study.methods) == [name for name in below.methods if name != "ss"] != list(below.methods)
    assert study.methods["ce"].hyper == {"weight_wrong": 2.0}
    assert study.methods["ce"].label == "CE"


@pytest.mark.parametrize("base", ["nothing", "above", 3])
def test_a_base_that_does_not_stand_by_itself_is_refused(write_study, tmp_path, base):
    write_study()
    for name, of in (("above", "tiny"), ("top", base)):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"base": of}))
    with pytest.raises(StudyError, match=f"top.yaml: base: {base!r} is no study in"):
        load_study(str(tmp_path / "top.yaml"))


GIVEN = {
    "label": "G",
    "model": "resnet18",
    "weights": "x.safetensors",
    "steep_slope": {"alpha_pos": 1.0, "alpha_neg": 3.0},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"networks": {"rsn": GIVEN | {"training": TINY["oracle"]}}}, "has either training, a recipe, or weights"),
        ({"networks": {"rsn": {k: v for k, v in GIVEN.items() if k != "weights"}}}, "has either training, a recipe"),
        (
            {"networks": {"rsn": GIVEN | {"inputs": {"sise": 3}}}},
            "a trained network has no 'sise'; did you mean 'size'",
        ),
        ({"networks": {"rsn": TINY["networks"]["rsn"] | {"inputs": {"size": 3}}}}, "inputs go with weights"),
        (
            {"networks": {"rsn": GIVEN}, "classifier_seeds": [0, 1]},
            "classifier_seeds: a network with pretrained weights has one",
        ),
        ({"networks": {"rsn": GIVEN}, "domains": {"judged": ["recolor"]}}, "recolor needs networks that see"),
        ({"dataset": "folder"}, "folder: dataset 'folder' needs one"),
        ({"folder": "photos"}, "folder: dataset 'digits' has none"),
        ({"dataset": "folder", "folder": "photos"}, "heldout: a dataset of folders needs the number"),
        (
            {"methods": {"ce": TINY["methods"]["ce"] | {"start": "see"}, "ss": TINY["methods"]["ss"]}},
            "methods.ce.start: unknown method 'see'",
        ),
        (
            {"methods": {"ce": TINY["methods"]["ce"] | {"start": "ss"}, "ss": TINY["methods"]["ss"] | {"start": "ce"}}},
            "methods.ce.start: ce starts from ss starts from ce",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(write_study, changes, message):
    with pytest.raises(StudyError) as error:
        load_study(write_study(**changes))
    assert message in str(error.value)


@pytest.mark.parametrize("path", sorted((ROOT / "studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_that_comes_with_the_project_is_sound(path):
    study = load_study(path.stem)
    check_losses(study)
    assert study.pairs
    assert study.methods
