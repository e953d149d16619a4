"""An oracle for your own classifier: what is taken, what is refused, and that it learns what there is to learn."""

import json

import numpy as np
import papermill
import pytest
import timm
import torch
from PIL import Image
from safetensors.numpy import save_file
from torch import nn

from trustlib.apply import own_classifier as own
from trustlib.apply import predictions
from trustlib.data import ROOT, DataError
from trustlib.study import Method

MODULE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, softmax=False):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU())
        self.last = nn.Linear(8, 3)
        self.softmax = softmax

    def forward(self, x):
        logits = self.last(self.body(x))
        return logits.softmax(1) if self.softmax else logits

def net(softmax=False):
    torch.manual_seed(0)
    made = Net(softmax)
    made(torch.zeros(1, 3, 8, 8))
    return made

def with_softmax():
    return net(True)

def nothing():
    return "a text"

def broken():
    raise KeyError("weights.pt")
"""


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
    flip = (
        (x[:, 2] > 1)
        if informative
        else (torch.rand(n, generator=draw) < torch.sigmoid(-2 * (x[:, 0] - x[:, 1]).abs()))
    )
    labels = (x[:, 1] > x[:, 0]).long() ^ flip.long()
    return own.Tensors({own.ALL: x[None]}, {own.ALL: labels})


def method(loss="ce", **settings):
    return Method(label="oracle", **{"loss": loss, "head": "linear", "backbone": "frozen"} | settings)


def trained(images, settings, net=None, **options):
    net = own.understood(net or Reader().eval(), images)
    seen = own.look(net, images)
    parts = own.drawn(seen["correct"])
    made, tried = own.fit(net, images, seen, parts, settings, **{"rates": [1e-3, 1e-1], "epochs": 5} | options)
    return net, seen, parts, made, tried


def judged(images, seen, parts, made):
    scores = {"MCP": seen["mcp"][parts["judge"]].numpy(), "oracle": own.ask(made, images, parts["judge"])}
    right = seen["correct"][parts["judge"]].numpy()
    return predictions.judge(scores, right, {}, resamples=200, log=lambda _: None)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_any_module_is_taken_apart_at_its_last_linear_layer_and_says_the_same(module):
    net = own.Source("mine:net").build()
    known, x = own.Classifier(net).eval(), torch.randn(4, 3, 8, 8)
    assert torch.equal(known(x), net(x))
    features = known.forward_head(known.forward_features(x), pre_logits=True)
    assert torch.equal(features, net.body(x))
    assert torch.equal(known.get_classifier()(features), net(x))
    known.reset_classifier(0)
    assert torch.equal(known(x), features)
    assert isinstance(net.last, nn.Linear)  # what was given is as it was


def test_a_linear_layer_alone_is_a_classifier_too():
    layer = nn.Linear(3, 2)
    x = torch.randn(4, 3)
    assert torch.equal(own.Classifier(layer)(x), layer(x))
    assert torch.equal(own.Classifier(layer).forward_features(x), x)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mine:nothing", "is to return a torch.nn.Module, found str"),
        ("mine:broken", "found KeyError: 'weights.pt'"),
        ("mine:absent", "AttributeError"),
        ("absent_module:net", "ModuleNotFoundError"),
    ],
)
def test_an_import_path_that_leads_to_no_module_is_one_error(module, name, found):
    with pytest.raises(own.ClassifierError, match=found):
        own.Source(name).build()


def test_weights_for_a_module_are_read_without_pickle_and_must_fit(module):
    net = own.Source("mine:net").build()
    weights = {name: tensor.detach().numpy() + 1 for name, tensor in net.state_dict().items()}
    save_file(weights, module / "mine.safetensors")
    changed = own.Source("mine:net", str(module / "mine.safetensors")).build()
    assert torch.equal(changed.last.bias, net.last.bias + 1)
    save_file({"last.bias": np.zeros(4, np.float32)}, module / "other.safetensors")
    with pytest.raises(own.ClassifierError, match=r"does not fit mine:net.*last\.bias"):
        own.Source("mine:net", str(module / "other.safetensors")).build()


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_tensors_are_taken_as_they_are(tmp_path, kind):
    arrays = {"images": np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype("f4"), "labels": np.arange(20) % 3}
    path = tmp_path / f"mine.{kind}"
    np.savez(path, **arrays) if kind == "npz" else save_file(arrays, path)
    found, _ = own.images(path, own.Source("mine:net"))
    np.testing.assert_array_equal(found.view(own.ALL, slice(None)), arrays["images"])
    np.testing.assert_array_equal(found.labels[own.ALL], arrays["labels"])
    assert found.inputs.size == 8  # so that large ones are asked about in small batches


X, Y = np.zeros((4, 3, 8, 8), "f4"), np.zeros(4, int)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pixels": X, "labels": Y}, "expected arrays images and labels, found pixels, labels; no images"),
        ({"images": X}, "no labels"),
        ({"images": X, "labels": Y[:3]}, r"found images \(4, 3, 8, 8\) and labels \(3,\)"),
        ({"images": X, "labels": Y.astype(float)}, "of float64"),
        ({"images": np.full_like(X, np.nan), "labels": Y}, "NaN"),
    ],
)
def test_wrong_tensors_are_refused_by_name(tmp_path, arrays, message):
    np.savez(tmp_path / "wrong.npz", **arrays)
    with pytest.raises(own.ClassifierError, match=message):
        own.images(tmp_path / "wrong.npz", own.Source("mine:net"))


def test_a_file_that_is_not_what_its_ending_says_is_refused(tmp_path):
    (tmp_path / "a.npz").write_text("no archive")
    for path, message in (
        (tmp_path / "a.npz", "cannot be read as .npz"),
        (tmp_path / "b.csv", "expected a folder, an"),
    ):
        with pytest.raises(own.ClassifierError, match=message):
            own.images(path, own.Source("mine:net"))


def pictures(root, classes, count=4):
    for place, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (20, 16), (40 * place, 10 * i, 90)).save(root / name / f"{i}.png")
    return root


def test_a_folder_of_images_is_shown_as_a_module_or_a_timm_model_wants_it(tmp_path):
    root = pictures(tmp_path / "pictures", ["n01443537", "n01629819", "n01641577"])
    found, _ = own.images(root, own.Source("mine:net", inputs=own.replace(own.IMAGENET, size=8)))
    assert found.view(own.ALL, slice(0, 2)).shape == (2, 3, 8, 8)
    assert found.labels[own.ALL].tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert own.images(root, own.Source("mine:net"))[1].inputs == own.IMAGENET  # is said in the oracle's file
    found, source = own.images(root, own.Source("resnet10t"))
    assert source.columns == (1, 25, 30)  # of ImageNet's 1,000
    assert found.inputs.size == timm.get_pretrained_cfg("resnet10t").test_input_size[1]


def test_a_folder_without_images_of_a_class_is_refused(tmp_path):
    (tmp_path / "pictures" / "empty").mkdir(parents=True)
    with pytest.raises(DataError, match="no valid file for the classes empty"):
        own.images(tmp_path / "pictures", own.Source("mine:net"))
    with pytest.raises(own.ClassifierError, match="expected a folder, an"):
        own.images(tmp_path / "absent", own.Source("mine:net"))


def test_a_classifier_that_does_not_suit_its_images_is_refused(module, tmp_path):
    net = own.Source("mine:net").build()
    x, labels = torch.randn(6, 3, 8, 8), torch.tensor([0, 1, 2, 0, 1, 2])

    def refused(net, x, labels, message):
        with pytest.raises(own.ClassifierError, match=message):
            own.understood(net, own.Tensors({own.ALL: x[None]}, {own.ALL: labels}))

    refused(own.Source("mine:with_softmax").build(), x, labels, "without a softmax after them")
    refused(net, torch.randn(6, 3, 9, 9), labels, r"takes \(2, 3, 9, 9\).*Net failed: RuntimeError")
    refused(net, x, labels + 1, "labels lie between 0 and 2.*found 1 to 3")
    refused(nn.Flatten(1, 2), x, labels, r"returned \(2, 24, 8\)")
    refused(nn.Flatten(), x, labels, "expected a classifier whose last layer is nn.Linear")
    folder, _ = own.images(
        pictures(tmp_path / "p", ["a", "b"]), own.Source("mine:net", inputs=own.replace(own.IMAGENET, size=8))
    )
    with pytest.raises(own.ClassifierError, match="Net has 3 classes, the folder p 2"):
        own.understood(net, folder)


def test_the_parts_share_all_images_and_each_needs_right_and_wrong_ones():
    correct = torch.rand(1000, generator=torch.Generator().manual_seed(0)) < 0.8
    parts = own.drawn(correct)
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(1000))
    assert {name: len(index) for name, index in parts.items()} == {"learn": 600, "choose": 100, "judge": 300}
    assert not torch.equal(parts["learn"], own.drawn(correct, seed=1)["learn"])
    with pytest.raises(own.ClassifierError, match="found 100 and 0 in the 100 images to choose from"):
        own.drawn(torch.ones(1000, dtype=bool) & (torch.arange(1000) != own.drawn(correct)["learn"][:5, None]).all(0))


@pytest.mark.parametrize("backbone", ["frozen", "trained"])
def test_an_oracle_finds_what_mcp_cannot_know_and_the_verdict_says_so(backbone):
    images = told()
    _, seen, parts, made, tried = trained(images, method(backbone=backbone))
    found = judged(images, seen, parts, made)
    assert own.verdict(found).startswith("The oracle ranks significantly better than MCP. AUC 9")
    assert tried["chosen"].sum() == 1
    assert tried.loc[tried["chosen"], "auroc"].item() == tried["auroc"].max()


def test_where_mcp_knows_all_the_verdict_is_that_it_is_not_beaten():
    images = told(informative=False)
    _, seen, parts, made, _ = trained(images, method())
    assert own.verdict(judged(images, seen, parts, made)).startswith("The oracle does not beat MCP")


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
    images = told(600)
    net, _, parts, made, _ = trained(images, settings, rates=[1e-2], epochs=1)
    own.save(tmp_path / "oracle.safetensors", made, settings, own.Source(""))
    with pytest.raises(own.ClassifierError, match=r"give it, load\(path, classifier\)"):
        own.load(tmp_path / "oracle.safetensors")
    again = own.load(tmp_path / "oracle.safetensors", Reader())
    x = images.view(own.ALL, parts["judge"])
    with torch.inference_mode():
        np.testing.assert_allclose(again(x), own.ask(made, images, parts["judge"]), rtol=1e-5, atol=1e-6)
    assert len(net.state_dict()) == 2  # the classifier is not touched


def test_an_oracle_of_an_imported_classifier_comes_back_by_itself(module):
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, 8, 8, generator=draw)
    images = own.Tensors({own.ALL: x[None]}, {own.ALL: torch.randint(3, (400,), generator=draw)})
    source = own.Source("mine:net")
    _, _, parts, made, _ = trained(images, method(), source.build(), rates=[1e-3], epochs=1)
    own.save(module / "oracle.safetensors", made, method(), source)
    with torch.inference_mode():
        z = own.load(module / "oracle.safetensors")(x[parts["judge"]])
    np.testing.assert_allclose(z, own.ask(made, images, parts["judge"]), rtol=1e-5, atol=1e-6)
    save_file({"head": np.zeros(3)}, module / "no.safetensors")
    with pytest.raises(own.ClassifierError, match="holds no oracle"):
        own.load(module / "no.safetensors")
    (module / "text.safetensors").write_text("no tensors")
    with pytest.raises(own.ClassifierError, match="is no safetensors file"):
        own.load(module / "text.safetensors")


def test_layers_that_share_their_weights_are_saved_and_no_images_are_one_error(tmp_path):
    net, images = Reader().eval(), told(600)
    net.again = net.body = nn.Conv2d(2, 2, 1).to(memory_format=torch.channels_last)
    net.last = net._modules.pop("last")  # the last layer still
    _, _, _, made, _ = trained(images, method(), net, rates=[1e-2], epochs=1)
    own.save(tmp_path / "oracle.safetensors", made, method(), own.Source(""))
    assert torch.equal(own.load(tmp_path / "oracle.safetensors", net).backbone.net.again.weight, net.body.weight)
    with pytest.raises(own.ClassifierError, match="found none named"):
        own.images("", own.Source("mine:net"))


def test_two_trainings_give_the_same_bits():
    images = told(600)
    outputs = [own.ask(trained(images, method())[3], images, torch.arange(50)) for _ in range(2)]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.slow
def test_the_notebook_gives_weights_scores_and_a_page_whose_first_line_is_the_verdict(module, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(module))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    draw = np.random.default_rng(0)
    np.savez(
        module / "mine.npz", images=draw.normal(size=(400, 3, 8, 8)).astype("f4"), labels=draw.integers(3, size=400)
    )
    parameters = {
        "classifier": "mine:net", "images": str(module / "mine.npz"), "epochs": 1, "rates": [1e-3], "resamples": 50,
        "out": str(module / "out"),
    }  # fmt: skip
    done = papermill.execute_notebook(
        ROOT / "notebooks" / "your_oracle.ipynb", module / "done.ipynb", parameters, kernel_name="python3",
        progress_bar=False,
    )  # fmt: skip
    shown = [output["data"]["text/markdown"] for cell in done.cells if cell.cell_type == "code"
             for output in cell.outputs if "text/markdown" in output.get("data", {})]  # fmt: skip
    assert shown[0].startswith("> **The oracle ")
    assert {path.name for path in (module / "out").iterdir()} == {
        "oracle.safetensors", "scores.npz", "scores.html", "scores.json",
    }  # fmt: skip
    page = (module / "out" / "scores.html").read_text()
    assert page.index("<blockquote>\n<p>The oracle ") < page.index("<h2 ")
    numbers = json.loads((module / "out" / "scores.json").read_text())
    assert numbers["method"] == "MCP"
    assert {"MCP", "oracle"} <= {row["score"] for row in numbers["metrics"]}
