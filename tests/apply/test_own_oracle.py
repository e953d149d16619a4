"""An oracle for your own classifier: what is taken, what is refused, and that it learns what there is to learn."""

import json

import nbformat
import numpy as np
import papermill
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

from trustlib.apply import evaluate, oracle
from trustlib.data import ROOT, DataError
from trustlib.study import Method


class Reader(nn.Module):
    """A classifier of three numbers by the first two; the third, which it does not use, says where it will be wrong."""

    def __init__(self):
        super().__init__()
        self.features, self.last = nn.Identity(), nn.Linear(3, 2)
        with torch.no_grad():
            self.last.weight[:] = torch.tensor([[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
            self.last.bias.zero_()

    def forward(self, x):
        return self.last(self.features(x))


def told(n=3000, *, informative=True):
    """Images of three numbers, and labels that are not the larger one's place where the third number is high."""
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(n, 3, generator=draw)
    chance = torch.sigmoid(-2 * (x[:, 0] - x[:, 1]).abs())
    flip = x[:, 2] > 1 if informative else torch.rand(n, generator=draw) < chance
    return oracle.tensors(x, (x[:, 1] > x[:, 0]).long() ^ flip.long())


def method(loss="ce", **settings):
    return Method(label="oracle", **{"loss": loss, "head": "linear", "backbone": "frozen"} | settings)


def trained(images, settings, net=None, **options):
    net = oracle.prepare(net or Reader(), images)
    outputs = oracle.outputs_of(net, images)
    splits = oracle.split(outputs["correct"])
    options = {"rates": [1e-3, 1e-1], "epochs": 5} | options
    return net, outputs, splits, *oracle.fit(net, images, outputs, splits, settings, **options)


def verdict(images, outputs, test, net):
    scores = {"MCP": outputs["mcp"][test].numpy(), "oracle": oracle.predict(net, images, test)}
    correct = outputs["correct"][test].numpy()
    return evaluate.verdict(evaluate.compare_scores(scores, correct, {}, resamples=200, log=lambda _: None))


def net(*last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3), *last).eval()


def some(size=8, first=0):
    return oracle.tensors(torch.randn(6, 3, size, size), torch.tensor([0, 1, 2, 0, 1, 2]) + first)


def test_any_module_gives_its_features_and_logits_and_is_not_changed():
    given, images = net().train(), some()
    prepared, x = oracle.prepare(given, images), images.view(oracle.ALL, slice(None))
    features = prepared(x)
    assert torch.equal(features, given[:3](x))
    assert torch.equal(prepared.get_classifier()(features), given(x))
    assert given.training
    layer = nn.Linear(3, 2)  # is a classifier too
    images = told(20)
    x = images.view(oracle.ALL, slice(None))
    assert torch.equal(oracle.prepare(layer, images)(x), x)


@pytest.mark.parametrize("name", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050", "convnext_atto"])
def test_timm_models_give_their_features(name):
    model = timm.create_model(name, num_classes=5).eval()
    images = oracle.tensors(torch.randn(2, 3, 224, 224), torch.tensor([0, 4]))
    x = images.view(oracle.ALL, slice(None))
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(oracle.prepare(model, images)(x), features)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("deit_tiny_distilled_patch16_224", 224), ("crossvit_tiny_240", 240), ("levit_128s", 224),  # two heads
        ("resnetv2_50x1_bit", 64), ("dla34", 64),  # a convolution in place of a linear layer
    ],
)  # fmt: skip
def test_timm_models_of_other_heads_are_refused(name, size):
    model, images = timm.create_model(name, num_classes=5), oracle.tensors(torch.randn(2, 3, size, size), [0, 1])
    with pytest.raises(oracle.ClassifierError, match=r"whose last layer is nn\.Linear.*has others"):
        oracle.prepare(model, images)


@pytest.mark.parametrize(
    ("classifier", "images", "message"),
    [
        (net(nn.Softmax(1)), some(), "without a softmax after them"),
        (nn.Flatten(), some(), r"whose last layer is nn\.Linear.*Flatten has others"),
        (nn.Flatten(1, 2), some(), r"returned \(2, 24, 8\)"),
        (net(), some(9), r"takes \(2, 3, 9, 9\).*Sequential failed: RuntimeError"),
        (net(), some(first=1), "has the classes 0 to 2, found labels 1 to 3"),
    ],
)
def test_a_classifier_that_does_not_suit_its_images_is_refused(classifier, images, message):
    with pytest.raises(oracle.ClassifierError, match=message):
        oracle.prepare(classifier, images)


X, Y = np.zeros((4, 3, 8, 8), "f4"), np.zeros(4, int)


@pytest.mark.parametrize(
    ("x", "labels", "message"),
    [
        (X, Y[:3], r"found images \(4, 3, 8, 8\) and labels \(3,\)"),
        (X, Y.astype(float), "of torch.float64"),
        (np.full_like(X, np.nan), Y, "NaN"),
    ],
)
def test_wrong_tensors_are_refused(x, labels, message):
    with pytest.raises(oracle.ClassifierError, match=message):
        oracle.tensors(x, labels)


@pytest.fixture
def pictures(tmp_path):
    for place, name in enumerate(["n01443537", "n01629819", "n01641577"]):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (20, 16), (40 * place, 10 * i, 90)).save(tmp_path / "pictures" / name / f"{i}.png")
    return tmp_path / "pictures"


def test_a_folder_is_seen_as_a_timm_model_wants_it_with_its_classes(pictures, monkeypatch):
    monkeypatch.setenv("TRUST_DATA", str(pictures.parent))
    torch.save(timm.create_model("resnet10t").state_dict(), pictures.parent / "x.pth")
    model, images, source = oracle.of_timm("resnet10t", "x.pth", pictures)
    assert images.inputs.size == timm.get_pretrained_cfg("resnet10t").test_input_size[1]
    assert images.labels[oracle.ALL].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert source["columns"] == [1, 25, 30]  # of ImageNet's 1,000
    prepared = oracle.prepare(model, images)
    assert prepared.get_classifier().out_features == 3
    settings = method(backbone="trained")
    oracle.save(pictures.parent / "o.safetensors", made := oracle.Oracle(prepared, "linear").eval(), settings, source)
    x = images.view(oracle.ALL, slice(2))
    with torch.inference_mode():
        assert torch.equal(oracle.load(pictures.parent / "o.safetensors")(x), made(x))


def test_a_folder_that_does_not_suit_a_classifier_is_refused(pictures):
    images = oracle.folder(pictures)
    assert images.view(oracle.ALL, slice(2)).shape == (2, 3, 224, 224)
    with pytest.raises(oracle.ClassifierError, match="Sequential has 5 classes, the folder pictures 3"):
        oracle.prepare(nn.Sequential(nn.Flatten(), nn.Linear(3 * 224**2, 5)), images)
    (pictures / "empty").mkdir()
    with pytest.raises(DataError, match="no valid file for the classes empty"):
        oracle.folder(pictures)


def test_the_splits_share_all_images_and_each_needs_correct_and_incorrect_ones():
    correct = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.8
    splits = oracle.split(correct)
    assert sorted(torch.cat(list(splits.values())).tolist()) == list(range(1000))
    assert {name: len(index) for name, index in splits.items()} == {"train": 600, "validation": 100, "test": 300}
    assert not torch.equal(splits["train"], oracle.split(correct, seed=1)["train"])
    few = torch.ones(1000, dtype=bool)
    few[splits["train"][:5]] = False
    with pytest.raises(oracle.ClassifierError, match="found 100 and 0 in the validation set"):
        oracle.split(few)


@pytest.mark.parametrize("backbone", ["frozen", "trained"])
def test_an_oracle_finds_what_mcp_cannot_know_and_the_verdict_says_so(backbone):
    images = told()
    _, outputs, splits, made, tried = trained(images, method(backbone=backbone))
    assert verdict(images, outputs, splits["test"], made).startswith("The oracle ranks significantly better than MCP.")
    assert tried["chosen"].sum() == 1
    assert tried.loc[tried["chosen"], "auroc"].item() == tried["auroc"].max()


def test_where_mcp_knows_all_the_verdict_is_that_it_is_not_beaten():
    images = told(informative=False)
    _, outputs, splits, made, _ = trained(images, method())
    assert verdict(images, outputs, splits["test"], made).startswith("The oracle does not beat MCP")


@pytest.mark.parametrize(
    "settings",
    [
        method("tcp"), method("ss", head="distance", hyper={"alpha_pos": 2.0, "alpha_neg": 5.0}),
        method("cb", hyper={"beta": 0.99}), method("focal", head="mlp"),
        method(backbone="trained", head="mlp-distance"),
    ],
    ids=lambda settings: f"{settings.loss}-{settings.head}-{settings.backbone}",
)  # fmt: skip
def test_every_loss_and_head_learns_and_comes_back_from_its_file(tmp_path, settings):
    images, path = told(600), tmp_path / "oracle.safetensors"
    given = Reader()
    given.again = given.body = nn.Conv2d(2, 2, 1).to(memory_format=torch.channels_last)  # one tensor, of two names
    _, _, splits, made, _ = trained(images, settings, given, rates=[1e-2], epochs=1)
    oracle.save(path, made, settings)
    with torch.inference_mode():
        z = oracle.load(path, given)(images.view(oracle.ALL, splits["test"]))
    np.testing.assert_allclose(z, oracle.predict(made, images, splits["test"]), rtol=1e-5, atol=1e-6)
    assert torch.equal(given.last.weight, Reader().last.weight)  # the classifier is not touched
    with pytest.raises(oracle.ClassifierError, match=r"give it, load\(path, classifier\)"):
        oracle.load(path)


def test_a_file_without_an_oracle_is_refused(tmp_path):
    save_file({"head": np.zeros(3)}, tmp_path / "no.safetensors")
    (tmp_path / "text.safetensors").write_text("no tensors")
    for name, message in (("no", "holds no oracle"), ("text", "is no safetensors file")):
        with pytest.raises(oracle.ClassifierError, match=message):
            oracle.load(tmp_path / f"{name}.safetensors")


def test_two_trainings_give_the_same_bits():
    images = told(600)
    outputs = [oracle.predict(trained(images, method())[3], images, torch.arange(50)) for _ in range(2)]
    np.testing.assert_array_equal(*outputs)


MINE = """
import torch
torch.manual_seed(0)
mine = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 3))
x, labels = torch.randn(400, 3, 8, 8), torch.randint(3, (400,))
net, pictures, source = mine, oracle.tensors(x, labels), None
"""


@pytest.mark.slow
def test_the_notebook_gives_weights_scores_and_a_page_whose_first_line_is_the_verdict(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    notebook = nbformat.read(ROOT / "notebooks" / "your_oracle.ipynb", as_version=4)
    (cell,) = (cell for cell in notebook.cells if cell.source.startswith("# Your own classifier goes here"))
    cell.source = MINE
    nbformat.write(notebook, tmp_path / "mine.ipynb")
    parameters = {"epochs": 1, "rates": [1e-3], "resamples": 50, "out": str(tmp_path / "out")}
    done = papermill.execute_notebook(
        tmp_path / "mine.ipynb", tmp_path / "done.ipynb", parameters, kernel_name="python3", progress_bar=False
    )
    shown = [output["data"]["text/markdown"] for cell in done.cells if cell.cell_type == "code"
             for output in cell.outputs if "text/markdown" in output.get("data", {})]  # fmt: skip
    assert shown[0].startswith("> **The oracle ")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"oracle.safetensors", "scores.npz", "scores.html", "scores.json"}
    numbers = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert numbers["method"] == "MCP"
    assert {"MCP", "oracle"} <= {row["score"] for row in numbers["metrics"]}
