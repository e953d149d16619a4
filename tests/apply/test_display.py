"""Displays as scikit-learn's, and what they draw."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score

import trustlib


@pytest.fixture(scope="module")
def fitted():
    x, y = load_digits(return_X_y=True)
    return LogisticRegression(C=1e-4, max_iter=1000).fit(x[:300], y[:300]), x[300:], y[300:]


@pytest.mark.parametrize("display", [trustlib.RiskCoverageDisplay, trustlib.ReliabilityDisplay])
def test_is_drawn_from_predictions_or_an_estimator_on_axes_of_ones_own(display, fitted):
    classifier, x, y = fitted
    p = classifier.predict_proba(x)
    fig, ax = plt.subplots()
    shown = display.from_estimator(classifier, x, y, ax=ax)
    other = display.from_predictions(y, p, ax=ax, name="other", linestyle=":")
    of_correct = display.from_predictions(y == p.argmax(1), p.max(1))
    assert shown.ax_ is other.ax_ is ax
    assert shown.figure_ is fig
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["LogisticRegression", "other"]
    assert shown.line_.get_color() != other.line_.get_color()
    assert other.line_.get_linestyle() == ":"
    for line in (other.line_, of_correct.line_):
        np.testing.assert_allclose(line.get_xydata(), shown.line_.get_xydata())
    plt.close("all")


def test_risk_at_full_coverage_is_one_minus_the_accuracy(fitted):
    classifier, x, y = fitted
    shown = trustlib.RiskCoverageDisplay.from_estimator(classifier, x, y)
    assert shown.risk[-1] == pytest.approx(1 - accuracy_score(y, classifier.predict(x)))
    assert (shown.low <= shown.risk).all()
    assert (shown.risk <= shown.high).all()
    plt.close("all")


def test_a_confidence_that_is_no_probability_has_no_reliability():
    with pytest.raises(ValueError, match="expected a probability"):
        trustlib.ReliabilityDisplay.from_predictions(np.array([True, False]), [2.0, -1.0])
