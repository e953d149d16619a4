"""Oracles: the heads, and weights that go from a classifier to an oracle."""

import pytest
import torch

from trustlib import oracle
from trustlib.models import backbone

SMALL = {"in_chans": 1, "num_classes": 10, "layers": [1, 1, 1, 1], "channels": [4, 8, 8, 8]}
VIT = {"img_size": 28, "patch_size": 7, "in_chans": 1, "num_classes": 10, "embed_dim": 16, "depth": 1, "num_heads": 2}


def test_signed_distance_is_the_distance_to_the_hyperplane():
    head = oracle.SignedDistance(2)
    with torch.no_grad():
        head.linear.weight.copy_(torch.tensor([[3.0, 4.0]]))
        head.linear.bias.fill_(-5.0)
    # (3 * 1 + 4 * 2 - 5) / 5 = 6 / 5; the origin lies 1 behind the plane
    torch.testing.assert_close(head(torch.tensor([[1.0, 2.0], [0.0, 0.0]])), torch.tensor([1.2, -1.0]))


@pytest.mark.parametrize("kind", oracle.HEADS)
def test_a_distance_does_not_depend_on_the_scale_of_its_weights_but_a_linear_head_does(kind):
    head, x = oracle.HEADS[kind](8), torch.randn(5, 8)
    before = head(x)
    assert before.shape == (5,)
    with torch.no_grad():
        for parameter in [*head.parameters()][-2:]:  # of the last layer
            parameter.mul_(7)
    assert torch.allclose(head(x), before, atol=1e-5) == ("distance" in kind)


@pytest.mark.parametrize("kind", ["mlp", "mlp-distance"])
def test_the_confidence_head_has_four_hidden_layers(kind):
    hidden = oracle.HEADS[kind](7).hidden
    assert [layer.out_features for layer in hidden if isinstance(layer, torch.nn.Linear)] == [400] * 4


def test_the_norm_of_signed_distance_carries_gradient():
    head = oracle.SignedDistance(3)
    head(torch.randn(4, 3)).sum().backward()
    along = (head.linear.weight.grad * head.linear.weight).sum()
    bias = (head.linear.bias.grad * head.linear.bias).sum()
    assert (along + bias).abs() < 1e-5  # no gain in scaling w and b together: Euler's theorem for degree 0


@pytest.mark.parametrize(("model", "args"), [("resnet18", SMALL), ("vit_tiny_patch16_224", VIT)])
def test_an_oracle_starts_from_the_classifiers_features(model, args):
    classifier = backbone.build_backbone(model, args).eval()
    x = torch.randn(3, 1, 28, 28)
    features, logits = backbone.classify(classifier, x)
    torch.testing.assert_close(logits, classifier(x))
    net = oracle.Oracle(backbone.build_backbone(model, args), "distance")
    oracle.initialise(net.backbone, classifier.state_dict())
    net.eval()
    torch.testing.assert_close(net.backbone(x), features)
    assert net(x).shape == (3,)


def test_weights_of_another_architecture_name_the_tensors():
    net = oracle.Oracle(backbone.build_backbone("resnet18", SMALL), "linear")
    other = backbone.build_backbone("resnet18", SMALL | {"channels": [8, 8, 8, 8]}).state_dict()
    with pytest.raises(ValueError, match=r"another architecture.*layer1\.0\.conv1\.weight"):
        oracle.initialise(net.backbone, other)


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
