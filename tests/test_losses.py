"""Losses: values derived by hand, finite everywhere, never a broadcast."""

import math
from functools import partial

import pytest
import torch

from trustlib import losses, released

COUNTS = {"n_correct": 900, "n_wrong": 100}
ALL = {name: partial(loss.function, **(COUNTS if loss.counts else {})) for name, loss in losses.LOSSES.items()}


def test_cross_entropy_focal_and_tcp_by_hand():
    z, target, p = torch.tensor([2.0, 2.0]), torch.tensor([1.0, 0.0]), 1 / (1 + math.exp(-2))
    expected = torch.tensor([-math.log(p), -math.log(1 - p)])
    torch.testing.assert_close(losses.cross_entropy(z, target), expected)
    weights = torch.tensor([(1 - p) ** 2, p**2])  # the squared probability of the other outcome
    torch.testing.assert_close(losses.focal(z, target.bool()), weights * expected)
    # TCP is the squared distance of two probabilities: sigmoid(0) = 0.5; (0.5 - 0.2)^2 = 0.09
    torch.testing.assert_close(losses.tcp(torch.zeros(1), torch.tensor([0.2])), torch.tensor([0.09]))
    z, target = torch.linspace(-9, 9, 19), torch.arange(19) % 2 == 0
    torch.testing.assert_close(losses.focal(z, target, gamma=0.0), losses.cross_entropy(z, target))


def test_steep_slope_at_zero_and_at_its_ends():
    # s(0) = 0: 1 - e^-a. s(3) = 3/4. At the foot of a slide the loss is 0, at its top e^a - e^-a (Theorem 3.1).
    loss = partial(losses.steep_slope, alpha_pos=1.0, alpha_neg=3.0)
    z = torch.tensor([0.0, 0.0, 3.0, 3.0, 1e30, 1e30, -1e30, -1e30])
    right = torch.tensor([1, 0] * 4).bool()
    expected = [
        1 - math.exp(-1), 1 - math.exp(-3),
        math.exp(-0.75) - math.exp(-1), math.exp(2.25) - math.exp(-3),
        0.0, math.exp(3) - math.exp(-3),
        math.exp(1) - math.exp(-1), 0.0,
    ]  # fmt: skip
    torch.testing.assert_close(loss(z, right), torch.tensor(expected))


def test_class_balanced_weights_sum_to_two_and_tend_to_inverse_frequency():
    z = torch.zeros(2)  # cross entropy is log 2 for both, so the losses are the weights times log 2
    for beta in (0.0, 0.9, 0.999, 1 - 1e-9):
        weights = losses.class_balanced(z, torch.tensor([1.0, 0.0]), beta=beta, **COUNTS) / math.log(2)
        assert weights.sum().item() == pytest.approx(2)
    assert (weights[1] / weights[0]).item() == pytest.approx(9, rel=1e-4)  # 900 to 100
    # (1 - b) / (1 - b^n) with b = 0.9: n = 2 gives 0.1 / 0.19, n = 1 gives 1.
    weights = losses.class_balanced(z, torch.tensor([1.0, 0.0]), beta=0.9, n_correct=2, n_wrong=1)
    assert (weights[0] / weights[1]).item() == pytest.approx(0.1 / 0.19)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_value_and_gradient_are_finite_for_every_finite_bfloat16_and_in_float32_up_to_1e30(name):
    every = torch.arange(2**16).to(torch.uint16).view(torch.bfloat16)
    magnitude = torch.logspace(-30, 30, 601)
    for z in (every[every.isfinite()], torch.cat([-magnitude, torch.zeros(1), magnitude])):
        for target in (0.0, 1.0):
            value, slope = losses.value_and_slope(ALL[name], z, torch.full_like(z, target))
            assert value.isfinite().all()
            assert slope.isfinite().all()
            assert value.dtype == z.dtype


@pytest.mark.parametrize("name", losses.LOSSES)
def test_in_half_precision_it_is_what_it_is_in_single(name):
    z, correct = torch.tensor([1.0, -2.0, 0.0, 9.0, -6e4]), torch.tensor([True, False, True, False, False])
    target = torch.tensor([0.9, 0.1, 0.5, 0.3, 0.0]) if losses.LOSSES[name].target == "p_true" else correct
    torch.testing.assert_close(ALL[name](z.half(), target).float(), ALL[name](z, target), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize(("z", "target"), [((4, 1), (4,)), ((4,), (4, 1)), ((4, 1), (4, 1)), ((4,), (3,)), ((), ())])
def test_a_shape_mismatch_is_an_error_and_never_a_broadcast(name, z, target):
    with pytest.raises(ValueError, match="one shape"):
        ALL[name](torch.zeros(z), torch.ones(target))


@pytest.mark.parametrize(
    ("loss", "hyper"),
    [
        (losses.focal, {"gamma": math.nan}),
        (losses.steep_slope, {"alpha_neg": -3.0}),
        (losses.class_balanced, {"n_correct": 5, "n_wrong": 0}),
    ],
)
def test_bad_hyper_parameters_are_refused(loss, hyper):
    with pytest.raises(ValueError, match="found"):
        loss(torch.zeros(2), torch.ones(2), **hyper)


@pytest.mark.parametrize("name", released.LOSSES)
def test_released_form_broadcasts_and_its_diagonal_is_the_corrected_form(name):
    z, target = torch.linspace(-3, 3, 7), torch.tensor([1.0, 0, 0, 1, 1, 0, 1])
    matrix = released.LOSSES[name](z, target)
    assert matrix.shape == (7, 7)
    torch.testing.assert_close(matrix.diagonal(), losses.LOSSES[name].function(z, target), atol=1e-5, rtol=1e-4)


def test_released_cross_entropy_teaches_the_batch_accuracy_and_no_own_label():
    z = torch.linspace(-2, 2, 5, requires_grad=True)
    target = torch.tensor([1.0, 0, 1, 1, 0])
    (slope,) = torch.autograd.grad(released.cross_entropy(z, target).mean(), z)
    torch.testing.assert_close(slope, (torch.sigmoid(z.detach()) - 0.6) / 5, atol=1e-6, rtol=1e-5)
    (slope,) = torch.autograd.grad(losses.cross_entropy(z, target).mean(), z)
    torch.testing.assert_close(slope, (torch.sigmoid(z.detach()) - target) / 5)


def test_class_weights_move_the_minimum_of_cross_entropy():
    # right with chance 5/7: with weights 2 and 5 the expected loss is least at z = 0
    z = torch.linspace(-3, 3, 601, dtype=torch.float64)
    weights = {"weight_correct": 2.0, "weight_wrong": 5.0}
    right, wrong = (losses.cross_entropy(z, torch.full_like(z, o), **weights) for o in (1.0, 0.0))
    assert abs(z[(5 / 7 * right + 2 / 7 * wrong).argmin()]) < 0.011


@pytest.mark.parametrize("slopes", [(1.0, 3.0), (2.0, 5.0), (10.0, 6.0)])
def test_the_optimum_of_the_steep_slope_loss_is_where_its_expected_value_is_least(slopes):
    hyper = dict(zip(("alpha_pos", "alpha_neg"), slopes, strict=True))
    s = torch.linspace(-0.999, 0.999, 19_981, dtype=torch.float64)
    z = s / (1 - s.abs())
    for p in (0.02, 0.3, 0.5, slopes[1] / sum(slopes), 0.9, 0.999):
        right, wrong = (losses.steep_slope(z, torch.full_like(z, o), **hyper) for o in (1.0, 0.0))
        best = losses.steep_slope_optimum(torch.tensor(p, dtype=torch.float64), **hyper)
        assert s[(p * right + (1 - p) * wrong).argmin()] == pytest.approx(best.item(), abs=2e-3)
