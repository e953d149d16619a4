"""Backbones: timm's by name, and ConfidNet's two, which are used alike."""

import pytest
import torch
from torch import nn

from trustlib import oracle
from trustlib.models import backbone


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
    assert (layers.count("Conv2d"), layers.count("MaxPool2d")) == (13, 5)
    assert layers[:8] == ["Conv2d", "ReLU", "BatchNorm2d", "Dropout", "Conv2d", "ReLU", "BatchNorm2d", "MaxPool2d"]
    assert [layer.p for layer in vgg.body if isinstance(layer, nn.Dropout)] == [0.3, *[0.4] * 7, 0.5]
    assert backbone.parameters(vgg) == 14_990_922  # 13 convolutions, 13 norms, 512-512-10
    small = backbone.build_backbone("confidnet_mnist")
    assert backbone.parameters(small) == 320 + 18_496 + 9216 * 128 + 128 + 1290


def test_the_resnet_for_small_images_keeps_their_size_in_its_first_layers():
    net = backbone.build_backbone("resnet18_cifar", {"num_classes": 10})
    x = torch.randn(2, 3, 32, 32)
    assert net.maxpool(net.act1(net.bn1(net.conv1(x)))).shape == (2, 64, 32, 32)
    assert net.forward_features(x).shape == (2, 512, 4, 4)
    assert backbone.parameters(net) == 11_173_962  # 11.2 million, as of the ResNet-18 for CIFAR-10 that others use
    assert net.conv1.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.1)


def test_convolutional_networks_have_their_channels_last_and_transformers_do_not():
    convolutional = backbone.build_backbone("confidnet_mnist").body[2].weight
    assert convolutional.is_contiguous(memory_format=torch.channels_last)
    assert not convolutional.is_contiguous()
    vit = backbone.build_backbone("vit_tiny_patch16_224", {"img_size": 28, "patch_size": 7, "depth": 1})
    assert vit.patch_embed.proj.weight.is_contiguous()
