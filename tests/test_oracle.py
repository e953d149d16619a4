"""Networks: the heads, and weights that go from a classifier to an oracle."""

import pytest
import torch
from torch import nn

from trustlib import oracle
from trustlib.models import backbone

SMALL = {"in_chans": 1, "num_classes": 10, "layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8]}
VIT = {"img_size": 28, "patch_size": 7, "in_chans": 1, "num_classes": 10, "embed_dim": 16, "depth": 1, "num_heads": 2}
NETWORKS = [("resnet18", SMALL), ("vit_tiny_patch16_224", VIT)]


def test_signed_distance_is_the_distance_to_the_hyperplane():
    head = oracle.SignedDistance(2)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[3.0, 4.0]]))
        head.linear.bias.fill_(-5.0)
    # (3 * 1 + 4 * 2 - 5) / 5 = 6 / 5; the origin lies 1 behind the plane
    torch.testing.assert_close(head(torch.tensor([[1.0, 2.0], [0.0, 0.0]])), torch.tensor([1.2, -1.0]))


def test_signed_distance_does_not_depend_on_the_scale_of_its_weights_but_linear_does():
    x = torch.randn(5, 8)
    for name, same in (("distance", True), ("linear", False)):
        head = oracle.HEADS[name](8)
        before = head(x)
        with torch.no_grad():
            head.linear.weight.mul_(7)
            head.linear.bias.mul_(7)
        assert torch.allclose(head(x), before, atol=1e-5) == same


def test_the_norm_of_signed_distance_carries_gradient():
    head = oracle.SignedDistance(3)
    head(torch.randn(4, 3)).sum().backward()
    along = (head.linear.weight.grad * head.linear.weight).sum()
    bias = (head.linear.bias.grad * head.linear.bias).sum()
    assert (along + bias).abs() < 1e-5  # no gain in scaling w and b together: Euler's theorem for degree 0


@pytest.mark.parametrize(("model", "args"), NETWORKS)
def test_an_oracle_starts_from_the_classifiers_features(model, args):
    classifier = backbone.build_backbone(model, args).eval()
    x = torch.randn(3, 1, 28, 28)
    features, logits = backbone.classify(classifier, x)
    torch.testing.assert_close(logits, classifier(x))
    weights = classifier.state_dict()
    net = oracle.Oracle(backbone.build_backbone(model, args), "distance")
    oracle.initialise(net.backbone, weights)
    net.eval()
    torch.testing.assert_close(net.backbone(x), features)
    assert net(x).shape == (3,)


def test_weights_of_another_architecture_name_the_tensors():
    net = oracle.Oracle(backbone.build_backbone("resnet18", SMALL), "linear")
    other = backbone.build_backbone("resnet18", SMALL | {"channels": [8, 8, 8, 8]}).state_dict()
    with pytest.raises(ValueError, match=r"another architecture.*layer1\.0\.conv1\.weight"):
        oracle.initialise(net.backbone, other)


def test_an_unknown_backbone_or_argument_is_an_error():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet8'.*near: resnet"):
        backbone.build_backbone("resnet8")
    with pytest.raises(ValueError, match=r"does not take these arguments.*in_chanels"):
        backbone.build_backbone("resnet18", {"in_chanels": 1})


@pytest.mark.parametrize(("name", "size", "channels", "hidden"), [("mnist", 28, 1, 128), ("vgg16", 32, 3, 512)])
def test_confidnets_networks_speak_as_timms_do(name, size, channels, hidden):
    net = backbone.build_backbone(f"confidnet_{name}").eval()
    x = torch.randn(2, channels, size, size)
    features, logits = backbone.classify(net, x)
    assert features.shape == (2, hidden)
    assert (features >= 0).all()  # a ReLU's
    assert torch.equal(net(x), logits)
    assert logits.shape == (2, 10)
    assert backbone.leave_dropout_on(net)
    assert not torch.equal(net(x), net(x))
    judged = oracle.Oracle(net, "mlp")
    assert judged(x).shape == (2,)
    assert not any(name.startswith("backbone.classifier") for name in judged.state_dict())


def test_confidnets_layers_are_those_of_its_code():
    vgg = backbone.build_backbone("confidnet_vgg16")
    layers = [type(layer).__name__ for layer in vgg.body]
    assert layers.count("Conv2d") == 13
    assert layers.count("MaxPool2d") == 5
    assert layers[:8] == ["Conv2d", "ReLU", "BatchNorm2d", "Dropout", "Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]
    assert [layer.p for layer in vgg.body if isinstance(layer, nn.Dropout)] == [0.3, *[0.4] * 7, 0.5]
    assert backbone.parameters(vgg) == 14_990_922  # 13 convolutions, 13 norms, 512-512-10
    small = backbone.build_backbone("confidnet_mnist")
    assert backbone.parameters(small) == 320 + 18_496 + 9216 * 128 + 128 + 1290


@pytest.mark.parametrize(("kind", "last"), [("mlp", nn.Linear), ("mlp-distance", oracle.SignedDistance)])
def test_the_confidence_head_has_four_hidden_layers(kind, last):
    head = oracle.HEADS[kind](7)
    assert [layer.out_features for layer in head.hidden if isinstance(layer, nn.Linear)] == [400] * 4
    if last is oracle.SignedDistance:
        x = torch.randn(3, 7)
        before = head(x)
        head.last.linear.weight.data *= 5
        head.last.linear.bias.data *= 5
        torch.testing.assert_close(head(x), before)  # a distance does not know the weight's length
    assert head(torch.randn(3, 7)).shape == (3,)


def test_an_oracle_takes_over_another_with_its_last_layer_or_without():
    def new(kind):
        torch.manual_seed(1)
        return oracle.Oracle(backbone.build_backbone("confidnet_mnist"), kind)

    first = new("mlp")
    for tensor in first.state_dict().values():
        tensor.add_(1)
    for last in (True, False):
        second = new("mlp-distance")
        fresh = second.head.last.linear.weight.clone()
        oracle.take_over(second, first.state_dict(), last=last)
        assert torch.equal(second.head.hidden[0].weight, first.head.hidden[0].weight)
        assert torch.equal(second.backbone.body[0].weight, first.backbone.body[0].weight)
        assert torch.equal(second.head.last.linear.weight, first.head.last.linear.weight if last else fresh)
    with pytest.raises(ValueError, match="cannot start from another with other layers: head"):
        oracle.take_over(new("linear"), first.state_dict(), last=True)


def test_convolutional_networks_have_their_channels_last_and_transformers_do_not():
    convolutional = backbone.build_backbone("confidnet_mnist").body[2].weight
    assert convolutional.is_contiguous(memory_format=torch.channels_last)
    assert not convolutional.is_contiguous()
    vit = backbone.build_backbone("vit_tiny_patch16_224", {"img_size": 28, "patch_size": 7, "depth": 1})
    assert vit.patch_embed.proj.weight.is_contiguous()
