"""Probes: oracles on the classifier's own frozen features, linear or an MLP, trained with one of the losses.

torch, which takes seconds, is imported by what trains.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax

from .. import losses, metrics
from ..data import Features
from ..recipe import Recipe
from .observed import Observed, drawn_reference

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHT_DECAYS = (1e-5, 1e-3, 1e-1)  # of a linear probe, chosen by AUROC on the validation set
MLP_WIDTHS = (128, 64)
MLP_WEIGHT_DECAYS = (1e-2, 1.0)  # of AdamW, chosen in the same way
MLP_EPOCHS, MLP_BATCH, MLP_LEARNING_RATE = 15, 512, 3e-3


def linear(part: Observed, fit: Observed, reference: Observed, *, loss: str, **hyper: float) -> NDArray:
    """z of a linear probe on the standardised features, trained with one of the losses (z > 0: trusted).

    This is an oracle with a frozen backbone, the classifier's own. The head is the paper's: signed distance (Eq. 7) for
    the steep slope loss (slopes 1 and 3), else linear with a weight decay of `WEIGHT_DECAYS`. Full batch, L-BFGS, at
    most `REFERENCE` samples. The steep slope loss is not convex: it starts from the solution of cross entropy as well
    as from a small random weight. Of the weight decays, or of these two starts, the one with the highest AUROC on the
    validation set is kept.

    A low AUROC of the steep slope loss need not be a failure of the minimisation. With a weight of length 1 the spread
    of z is fixed, and where the share e of incorrect predictions is low, the loss is lowest as the bias grows without
    bound: all are trusted, the loss is e (exp(alpha_neg) - exp(-alpha_neg)), and the order of z is arbitrary.
    """
    mean, scale, weight, bias = _fitted_linear(loss, fit, reference, **hyper)
    return (part.features.astype(np.float64) - mean) / scale @ weight + bias


def mlp(part: Observed, fit: Observed, reference: Observed) -> NDArray:
    """z of an MLP probe on the standardised features, trained with cross entropy (z > 0: trusted).

    Two hidden layers of `MLP_WIDTHS` with ReLU, trained by AdamW for `MLP_EPOCHS` epochs of at most `REFERENCE` samples
    from a fixed seed; the weight decay is that of `MLP_WEIGHT_DECAYS` with the highest AUROC on the validation set.
    """
    mean, scale, net = _fitted_mlp(fit, reference)
    return _z_of(net, (part.features.astype(np.float64) - mean) / scale)


@lru_cache(maxsize=16)
def _fitted_linear(
    loss: str, fit: Observed, reference: Observed, **hyper: float
) -> tuple[NDArray, NDArray, NDArray, float]:
    """(mean (d,), scale (d,), weight (d,), bias) of the linear probe that ranks the validation set best."""
    from torch import from_numpy

    chosen = drawn_reference(len(reference.labels))
    x = reference.features[chosen].astype(np.float64)
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    correct = from_numpy(reference.correct[chosen])
    entry = losses.LOSSES[loss]
    target = correct
    if entry.target == "p_true":
        log_p = log_softmax(reference.logits[chosen].astype(np.float64), axis=-1)
        target = from_numpy(np.exp(np.take_along_axis(log_p, reference.labels[chosen][:, None], 1)[:, 0]))
    function = partial(entry.function, **hyper, **entry.counted(correct))
    x = from_numpy((x - mean) / scale)
    heldout = (fit.features.astype(np.float64) - mean) / scale
    if entry.head == "distance":  # a signed distance does not know the weight's length: no decay
        *_, of_ce, bias = _fitted_linear("ce", fit, reference)
        small = _small_start(x.shape[1])
        fits = [_minimise(function, x, target, 0.0, start, distance=True) for start in (small, (of_ce, bias))]
    else:
        start = _small_start(x.shape[1])
        fits = [_minimise(function, x, target, decay, start) for decay in WEIGHT_DECAYS]
    aurocs = [metrics.evaluate(heldout @ weight + bias, fit.correct)["auroc"] for weight, bias in fits]
    return mean, scale, *fits[int(np.argmax(aurocs))]


def _small_start(features: int) -> tuple[NDArray, float]:
    """A weight (d,) near 0, the same every time, and a bias of 0."""
    import torch

    draw = torch.Generator().manual_seed(0)
    return 0.01 * torch.randn(features, generator=draw, dtype=torch.float64).numpy(), 0.0


def _minimise(
    loss: Callable,
    x: Tensor,
    target: Tensor,
    decay: float,
    start: tuple[NDArray, float],
    *,
    distance: bool = False,
) -> tuple[NDArray, float]:
    """Weight (d,) and bias that minimise the mean loss of z plus decay ||weight||^2 / 2, by L-BFGS from a start."""
    import torch

    weight, bias = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in start)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def head() -> tuple[Tensor, Tensor]:
        length = weight.norm() if distance else 1.0
        return weight / length, bias / length

    def closure() -> Tensor:
        optimizer.zero_grad()
        w, b = head()
        value = loss(x @ w + b, target).mean() + decay / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(closure)
    w, b = head()
    return w.detach().numpy(), b.item()


@lru_cache(maxsize=4)
def _fitted_mlp(fit: Observed, reference: Observed) -> tuple[NDArray, NDArray, nn.Module]:
    """(mean (d,), scale (d,), network) of the MLP probe that ranks the validation set best."""
    import torch
    from torch import nn

    from .. import training

    chosen = drawn_reference(len(reference.labels))
    x, target = reference.features[chosen].astype(np.float64), torch.from_numpy(reference.correct[chosen])
    mean, scale = x.mean(0), np.maximum(x.std(0), 1e-6)
    seen = Features({"train": torch.from_numpy((x - mean) / scale).float()[None]}, {"train": target})
    heldout, nets, aurocs = (fit.features.astype(np.float64) - mean) / scale, [], []
    for decay in MLP_WEIGHT_DECAYS:
        torch.manual_seed(0)
        first, second = MLP_WIDTHS
        net = nn.Sequential(
            nn.Linear(x.shape[1], first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1),
            nn.Flatten(0),
        )  # fmt: skip
        recipe = Recipe(
            epochs=MLP_EPOCHS, batch=min(MLP_BATCH, len(chosen)), rate=MLP_LEARNING_RATE, weight_decay=decay
        )
        training.train(net, seen, target, losses.cross_entropy, recipe, log=lambda _: None)
        nets.append(net.eval())
        aurocs.append(metrics.evaluate(_z_of(net, heldout), fit.correct)["auroc"])
    return mean, scale, nets[int(np.argmax(aurocs))]


def _z_of(net: nn.Module, x: NDArray) -> NDArray[np.float64]:
    import torch

    with torch.inference_mode():
        return net(torch.from_numpy(x).float()).double().numpy()
