"""Networks: timm backbones, classifiers, and the oracle with its two heads."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

Timm = Any  # a module with the methods of timm's models: to a type checker those of an nn.Module are tensors


class SignedDistance(nn.Module):
    """Signed distance to a hyperplane, Eq. (7): ``z = (w.x + b) / ||w||``.

    The gradient flows through the norm, as in the authors' code (``src/oracle.py``), which also adds 1e-7 to it.

    Input float (B, d); output float (B,).
    """

    EPS = 1e-7

    def __init__(self, features: int):
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).squeeze(-1) / (self.linear.weight.norm() + self.EPS)


class Linear(nn.Module):
    """``z = w.x + b``. Input float (B, d); output float (B,)."""

    def __init__(self, features: int):
        super().__init__()
        self.linear = nn.Linear(features, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x).squeeze(-1)


class ConfidenceHead(nn.Module):
    """ConfidNet's: four hidden layers of 400 and ReLU, then one of the heads above (Corbière et al. 2019).

    Input float (B, d); output float (B,).
    """

    HIDDEN = 400

    def __init__(self, features: int, last: type[nn.Module] = Linear):
        super().__init__()
        sizes = [features, *[self.HIDDEN] * 4]
        self.hidden = nn.Sequential(*(layer for size in pairwise(sizes) for layer in (nn.Linear(*size), nn.ReLU())))
        self.last = last(self.HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.hidden(x))


HEADS: dict[str, Callable[[int], nn.Module]] = {
    "distance": SignedDistance,
    "linear": Linear,
    "mlp": ConfidenceHead,
    "mlp-distance": partial(ConfidenceHead, last=SignedDistance),
}


class Oracle(nn.Module):
    """Backbone and head: images (B, C, H, W) to ``z`` (B,), > 0 where the classifier's prediction is trusted.

    Parameters
    ----------
    backbone : a timm model; its own classification head is not used, and is removed.
    head : a key of `HEADS`.
    """

    def __init__(self, backbone: Timm, head: str):
        super().__init__()
        backbone.reset_classifier(0)
        self.backbone = backbone
        self.head = HEADS[head](backbone.head_hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        features = self.backbone(x)  # (B, d)
        with torch.autocast(x.device.type, enabled=False):  # bfloat16 would round z to three digits
            return self.head(features.float())  # (B,)


def initialise(backbone: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy a classifier's weights into an oracle's backbone; the classification head stays behind.

    Raises
    ------
    ValueError : when the backbone has a tensor that `weights` lacks, or of another shape.
    """
    wanted = backbone.state_dict()
    bad = [name for name, tensor in wanted.items() if name not in weights or weights[name].shape != tensor.shape]
    if bad:
        raise ValueError(f"the weights are of another architecture: missing or of another shape: {', '.join(bad[:5])}")
    backbone.load_state_dict({name: weights[name] for name in wanted})


LAST = ("head.last.", "head.linear.")  # where a head keeps its last layer, by the kind of head


def take_over(net: Oracle, weights: dict[str, Tensor], *, last: bool) -> None:
    """Copy another oracle's weights; where that has a frozen backbone, `weights` hold its head only.

    last : the last layer too. The authors' small-scale code leaves it behind without a word: the layer of the signed
        distance has another name there than TCP's, and ``strict=False`` skips it (``confidnet/train.py``).

    Raises
    ------
    ValueError : when a tensor is of another shape, or none of the head fits.
    """
    own = net.state_dict()
    taken = {name: tensor for name, tensor in weights.items() if last or not name.startswith(LAST)}
    bad = [name for name, tensor in taken.items() if name not in own or own[name].shape != tensor.shape]
    if bad:
        raise ValueError(f"an oracle cannot start from another with other layers: {', '.join(bad[:5])}")
    net.load_state_dict(own | taken)
