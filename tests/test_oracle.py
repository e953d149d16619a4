"""Networks: the heads, and weights that go from a classifier to an oracle."""

import pytest
import torch

from trustlib import oracle

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
    classifier = oracle.build_backbone(model, args).eval()
    x = torch.randn(3, 1, 28, 28)
    features, logits = oracle.classify(classifier, x)
    torch.testing.assert_close(logits, classifier(x))
    weights = classifier.state_dict()
    net = oracle.Oracle(oracle.build_backbone(model, args), "distance")
    oracle.initialise(net.backbone, weights)
    net.eval()
    torch.testing.assert_close(net.backbone(x), features)
    assert net(x).shape == (3,)


def test_weights_of_another_architecture_name_the_tensors():
    net = oracle.Oracle(oracle.build_backbone("resnet18", SMALL), "linear")
    other = oracle.build_backbone("resnet18", SMALL | {"channels": [8, 8, 8, 8]}).state_dict()
    with pytest.raises(ValueError, match=r"another architecture.*layer1\.0\.conv1\.weight"):
        oracle.initialise(net.backbone, other)


def test_an_unknown_backbone_or_argument_is_an_error():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet8'.*near: resnet"):
        oracle.build_backbone("resnet8")
    with pytest.raises(ValueError, match=r"does not take these arguments.*in_chanels"):
        oracle.build_backbone("resnet18", {"in_chanels": 1})
