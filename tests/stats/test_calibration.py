"""Calibration: by hand, against scikit-learn, and of what is perfectly calibrated."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss

from trustlib.stats.calibration import calibration, reliability


def test_brier_and_nll_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    p = rng.random(200)
    correct = rng.random(200) < p
    found = calibration(p, correct)
    assert found["brier"] == pytest.approx(brier_score_loss(correct, p))
    assert found["nll"] == pytest.approx(log_loss(correct, p))
    assert calibration([0.0, 1.0], [True, True])["nll"] == np.inf  # what was called impossible
    assert calibration([1.0, 1.0], [True, True]) == {"ece": 0, "brier": 0, "nll": 0}


def test_ece_by_hand_with_equal_bins_in_which_ties_stay_together():
    p, correct = np.array([0.1, 0.2, 0.6, 0.8]), np.array([False, True, True, True])
    np.testing.assert_allclose(reliability(p, correct, bins=2), [[0.15, 0.5, 2], [0.7, 1.0, 2]])
    assert calibration(p, correct, bins=2)["ece"] == pytest.approx((0.35 + 0.3) / 2)
    p, correct = np.full(10, 0.5), np.arange(10) < 7
    np.testing.assert_allclose(reliability(p, correct, bins=3), [[0.5, 0.7, 10]])
    assert calibration(p, correct)["ece"] == pytest.approx(0.2)


def test_bins_hold_equal_numbers_and_all_samples():
    rng = np.random.default_rng(1)
    frame = reliability(rng.random(1000), rng.random(1000) < 0.5, bins=15)
    assert frame["n"].sum() == 1000
    assert frame["n"].between(66, 67).all()
    assert frame["probability"].is_monotonic_increasing


def test_what_rounding_leaves_above_one_is_one_and_a_message_shows_the_value():
    assert calibration(np.float32([1.0000001, 0.5]), [1, 0])["brier"] == pytest.approx(0.125)
    with pytest.raises(ValueError, match=r"found 0\.5 to 1\.00002"):
        calibration([1.00002, 0.5], [1, 0])
