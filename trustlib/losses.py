"""The losses an oracle is trained with, one pure function each.

Every loss takes the oracle's output ``z`` and a target, both of shape (B,), and returns one value a sample, (B,);
the mean is taken by the training loop. ``z`` is any real number, ``z > 0`` means "trusted". The target is
``correct`` (bool, or 0 and 1), or the true class's probability where the loss's entry in `LOSSES` says so.

Equations are those of Luo et al., "Learning to Predict Trustworthiness with Steep Slope Loss", NeurIPS 2021.
The two losses that the authors' code computes otherwise than the paper's text stand in `trustlib.released`.
To add a loss, write its function here and its entry in `LOSSES`: every table and figure then has it.

Functions import torch themselves, where a method of a tensor does not serve: a study is read, and its tables are drawn,
without the seconds that torch takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(z: Tensor, target: Tensor, *, weight_correct: float = 1.0, weight_wrong: float = 1.0) -> Tensor:
    """Binary cross entropy, Eq. (4): ``-o log p - (1 - o) log(1 - p)`` with ``p = sigmoid(z)``.

    Parameters
    ----------
    z : float (B,), the oracle's output.
    target : bool or float (B,) in {0, 1}, `correct`.
    weight_correct, weight_wrong : of correct and incorrect predictions, > 0. With weights a and b the minimiser is
        positive exactly where the probability of being right exceeds b / (a + b).

    Returns
    -------
    float (B,), weighted nats, in [0, inf).

    Raises
    ------
    ValueError : when a weight is not positive or the shapes differ.

    Examples
    --------
    >>> import torch
    >>> cross_entropy(torch.tensor([0.0, 0.0]), torch.tensor([True, False]))
    tensor([0.6931, 0.6931])
    """
    from torch.nn.functional import softplus

    _check(z, target)
    for name, weight in (("weight_correct", weight_correct), ("weight_wrong", weight_wrong)):
        if not weight > 0:
            raise ValueError(f"cross_entropy: {name} must be > 0, found {weight}")
    loss = softplus(_against(z, target))
    return (weight_correct * loss).where(target.bool(), weight_wrong * loss)


def focal(z: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Focal loss, Eq. (5): cross entropy times ``(1 - p_t)**gamma``, ``p_t`` the probability of what happened.

    Parameters
    ----------
    z : float (B,), the oracle's output.
    target : bool or float (B,) in {0, 1}, `correct`.
    gamma : focusing parameter, >= 0; 0 is cross entropy. The paper uses 2, after Lin et al. 2017.

    Returns
    -------
    float (B,), nats, in [0, inf).

    Raises
    ------
    ValueError : when gamma is negative or the shapes differ.
    """
    from torch.nn.functional import logsigmoid, softplus

    _check(z, target)
    if not gamma >= 0:
        raise ValueError(f"focal: gamma must be >= 0, found {gamma}")
    wrong_by = _against(z, target)  # (B,) logit of having been wrong: 1 - p_t = sigmoid(wrong_by)
    # (1 - p_t)**gamma as exp(gamma * logsigmoid): its gradient stays finite where a power of 0 would not.
    return (gamma * logsigmoid(wrong_by)).exp() * softplus(wrong_by)


def tcp(z: Tensor, target: Tensor) -> Tensor:
    """True class probability, Eq. (6): ``(sigmoid(z) - p(y | x))**2``.

    Eq. (6) writes the oracle's output itself; as in Corbière et al. 2019 and the authors' code it passes a sigmoid.

    Parameters
    ----------
    z : float (B,), the oracle's output.
    target : float (B,) in [0, 1], the classifier's probability of the true class.

    Returns
    -------
    float (B,) in [0, 1].
    """
    _check(z, target)
    return (z.sigmoid() - target.to(z.dtype)) ** 2


def steep_slope(z: Tensor, target: Tensor, *, alpha_pos: float = 1.0, alpha_neg: float = 3.0) -> Tensor:
    """Steep slope loss, Eq. (8), with ``s = z / (1 + |z|)``.

    ``exp(-alpha_pos s) - exp(-alpha_pos)`` where the prediction was right and
    ``exp(+alpha_neg s) - exp(-alpha_neg)`` where it was wrong. The equation as printed has the opposite signs; the
    paper's prose, its Fig. 2b and the authors' code (``src/oracle.py``) agree on those used here.

    Parameters
    ----------
    z : float (B,), the oracle's output.
    target : bool or float (B,) in {0, 1}, `correct`.
    alpha_pos, alpha_neg : steepness of the slides of correct and incorrect predictions, > 0. The paper uses
        (1, 3) for its ViT oracles and (2, 5) for its ResNet oracles.

    Returns
    -------
    float (B,) in [0, max(exp(a) - exp(-a))], a being alpha_pos or alpha_neg (Theorem 3.1).

    Raises
    ------
    ValueError : when an alpha is not positive or the shapes differ.

    Examples
    --------
    >>> import torch
    >>> steep_slope(torch.tensor([0.0, 1e30]), torch.tensor([True, True]), alpha_pos=1.0)
    tensor([0.6321, 0.0000])
    """
    _check(z, target)
    for name, alpha in (("alpha_pos", alpha_pos), ("alpha_neg", alpha_neg)):
        if not alpha > 0:
            raise ValueError(f"steep_slope: {name} must be > 0, found {alpha}")
    s = z / (1 + z.abs())  # (B,) in [-1, 1]
    # expm1 on both sides, so that the loss is exactly 0 at the foot of a slide.
    positive = (-alpha_pos * s).expm1() - s.new_tensor(-alpha_pos).expm1()
    negative = (alpha_neg * s).expm1() - s.new_tensor(-alpha_neg).expm1()
    return positive.where(target.bool(), negative)


def steep_slope_optimum(p: Tensor, *, alpha_pos: float = 1.0, alpha_neg: float = 3.0) -> Tensor:
    """The s = z / (1 + |z|) that minimises the expected steep slope loss of a prediction that is right with chance p.

    ``s* = (ln(alpha_pos p) - ln(alpha_neg (1 - p))) / (alpha_pos + alpha_neg)``, held within [-1, 1]: where the
    derivative of ``p exp(-alpha_pos s) + (1 - p) exp(alpha_neg s)`` is 0. It is positive exactly where p exceeds
    ``alpha_neg / (alpha_pos + alpha_neg)``.

    Parameters
    ----------
    p : float (M,) in [0, 1].
    alpha_pos, alpha_neg : as in `steep_slope`.

    Returns
    -------
    float (M,) in [-1, 1].

    >>> import torch
    >>> steep_slope_optimum(torch.tensor([0.0, 0.75, 1.0]), alpha_pos=1.0, alpha_neg=3.0)
    tensor([-1.,  0.,  1.])
    """
    odds = p.logit() + math.log(alpha_pos / alpha_neg)
    return (odds / (alpha_pos + alpha_neg)).clamp(-1, 1)


def class_balanced(z: Tensor, target: Tensor, *, n_correct: int, n_wrong: int, beta: float = 0.999) -> Tensor:
    """Class-balanced cross entropy, Cui et al., CVPR 2019, Eq. (9) on the sigmoid cross entropy.

    Each class is weighted by the inverse of its effective number ``(1 - beta**n) / (1 - beta)``; the two weights
    are scaled to sum to 2, the number of classes.

    Parameters
    ----------
    z : float (B,), the oracle's output.
    target : bool or float (B,) in {0, 1}, `correct`.
    n_correct, n_wrong : training samples of each class, >= 1.
    beta : in [0, 1); 0 is cross entropy, towards 1 the weights tend to inverse frequency.

    Returns
    -------
    float (B,), weighted nats, in [0, inf).

    Raises
    ------
    ValueError : when beta lies outside [0, 1), a count is below 1 or the shapes differ.
    """
    from torch.nn.functional import softplus

    _check(z, target)
    if not 0 <= beta < 1:
        raise ValueError(f"class_balanced: beta must lie in [0, 1), found {beta}")
    if n_correct < 1 or n_wrong < 1:
        raise ValueError(f"class_balanced: needs right and wrong samples, found {n_correct} and {n_wrong}")
    weight_correct, weight_wrong = (1 / -math.expm1(n * math.log(beta)) if beta else 1.0 for n in (n_correct, n_wrong))
    scale = 2 / (weight_correct + weight_wrong)
    loss = softplus(_against(z, target))
    return (scale * weight_correct * loss).where(target.bool(), scale * weight_wrong * loss)


@dataclass(frozen=True)
class Loss:
    """A loss and what its training needs.

    Parameters
    ----------
    function : ``(z, target, **hyper) -> tensor``, all (B,).
    label : its name in tables and figures.
    target : what it learns of each training image: "correct", whether the classifier's prediction was, bool; or
        "p_true", the classifier's probability of the true class, float in [0, 1].
    counts : whether it takes ``n_correct`` and ``n_wrong``, the numbers of training images.
    slopes : whether it takes ``alpha_pos`` and ``alpha_neg``, by default those of the oracle's network in the study.
    head : the head that the paper trains it with, "linear" or "distance" (Eq. 7).
    """

    function: Callable[..., Tensor]
    label: str
    target: Literal["correct", "p_true"] = "correct"
    counts: bool = False
    slopes: bool = False
    head: Literal["linear", "distance"] = "linear"

    def counted(self, correct: Tensor) -> dict[str, int]:
        """Keyword arguments ``n_correct`` and ``n_wrong``; none for a loss that does not take them.

        Parameters
        ----------
        correct : bool (N,), of the training images, or (V, N), of V views of each; an image counts once.

        Examples
        --------
        >>> import torch
        >>> LOSSES["cb"].counted(torch.tensor([[True, True, False, False], [True, False, True, False]]))
        {'n_correct': 2, 'n_wrong': 2}
        >>> LOSSES["ce"].counted(torch.tensor([True, False]))
        {}
        """
        if not self.counts:
            return {}
        n = correct.shape[-1]
        n_correct = round(correct.reshape(-1, n).float().mean(0).sum().item())
        return {"n_correct": n_correct, "n_wrong": n - n_correct}


LOSSES = {
    "ce": Loss(cross_entropy, "CE"),
    "focal": Loss(focal, "Focal"),
    "tcp": Loss(tcp, "TCP", target="p_true"),
    "ss": Loss(steep_slope, "SS", slopes=True, head="distance"),
    "cb": Loss(class_balanced, "Class-balanced", counts=True),
}


def value_and_slope(loss: Callable[..., Tensor], z: Tensor, target: Tensor, **hyper) -> tuple[Tensor, Tensor]:
    """A loss and its derivative with respect to z at each z, both (B,): what Fig. 2b shows.

    >>> import torch
    >>> value_and_slope(cross_entropy, torch.zeros(1), torch.ones(1))
    (tensor([0.6931]), tensor([-0.5000]))
    """
    from torch.autograd import grad

    z = z.detach().requires_grad_()
    value = loss(z, target, **hyper)
    (slope,) = grad(value.sum(), z)
    return value.detach(), slope


def _check(z: Tensor, target: Tensor) -> None:
    """Refuse anything but two (B,) tensors: a (B, 1) against a (B,) would broadcast to (B, B) without a word."""
    if z.ndim != 1 or z.shape != target.shape:
        raise ValueError(
            f"a loss takes z and target of one shape (B,), found z {tuple(z.shape)} and target {tuple(target.shape)}"
        )


def _against(z: Tensor, target: Tensor) -> Tensor:
    """z with its sign turned so that larger is worse, (B,); held where twice the value is still finite."""
    from torch import finfo

    largest = min(1e30, finfo(z.dtype).max / 2)
    return (-z).where(target.bool(), z).clamp(-largest, largest)
