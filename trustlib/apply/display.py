"""Displays as scikit-learn has them: computed by `from_predictions` or `from_estimator`, drawn by `plot`.

scikit-learn is not needed; any classifier with ``predict_proba`` will do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from ..report import figures
from ..stats import calibration
from ..stats.rates import clopper_pearson
from . import evaluate as numbers
from .page import table_of


@dataclass
class RiskCoverageDisplay:
    """The risk-coverage curve of one confidence: the share of errors among the most confident predictions.

    coverage, risk, low, high : float (M,), fractions; the interval is the exact 95 % one of each point by itself.
    estimator_name : what the legend says.

    Attributes
    ----------
    line_, ax_, figure_ : what `plot` has drawn and on what.

    Examples
    --------
    >>> correct = np.array([True, True, False, True])
    >>> display = RiskCoverageDisplay.from_predictions(correct, [0.9, 0.8, 0.7, 0.6])
    >>> display.risk.round(2).tolist()
    [0.0, 0.0, 0.33, 0.25]
    """

    coverage: NDArray[np.float64]
    risk: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    estimator_name: str = ""
    line_: Line2D = field(init=False, repr=False)
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure | SubFigure = field(init=False, repr=False)

    @classmethod
    def from_predictions(cls, y_true: Any, y_pred: Any, *, name: str = "", ax: Axes | None = None, **kwargs):
        """Of labels and class probabilities (N, K), or of `correct` and a confidence, as `trustlib.evaluate` takes.

        Parameters
        ----------
        name : of the classifier, for the legend.
        ax : axes to draw on; new ones by default.
        kwargs : of matplotlib's `plot`.
        """
        return cls._drawn(name, ax, kwargs, y_true, y_pred)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: Any, *, name: str = "", ax: Axes | None = None, **kwargs):
        """Of a classifier with `predict_proba`, its inputs and labels; the confidence is its maximum probability."""
        return cls._drawn(name or type(estimator).__name__, ax, kwargs, estimator, X, y)

    @classmethod
    def _drawn(cls, name: str, ax: Axes | None, style: dict, *data):
        table = table_of(*data)
        values = next(iter(numbers.scores_of(table)[0].values()))
        curve = numbers.curve(values, table.correct)
        coverage, risk, low, high = (curve[column].to_numpy() for column in ("coverage", "risk", "low", "high"))
        return cls(coverage, risk, low, high, name).plot(ax=ax, **style)

    def plot(self, ax: Axes | None = None, *, name: str = "", **kwargs) -> RiskCoverageDisplay:
        """Draw it: on `ax`, or on new axes; `kwargs` are of matplotlib's `plot`."""
        self.ax_ = plt.subplots()[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        label = name or self.estimator_name or "_"
        shown = self.coverage >= min(0.02, self.coverage[-1])  # the band of the first few reaches up to 1
        points = (part[shown] for part in (self.coverage, self.risk, self.low, self.high))
        top = self.ax_.get_ylim()[1] if self.ax_.lines else 0.0
        self.line_ = figures.risk_band(self.ax_, *points, **{"label": label} | kwargs)
        self.ax_.set_ylim(0, max(top, 1.05 * float(self.high[shown].max())))
        if not str(self.line_.get_label()).startswith("_"):  # as matplotlib names what has no name
            self.ax_.legend()
        return self


@dataclass
class ReliabilityDisplay:
    """The reliability diagram of a confidence that is a probability of being correct: accuracy against it.

    probability, accuracy : float (M,), means of bins of equal numbers of predictions, ascending.
    low, high : float (M,), the exact 95 % interval of each accuracy.
    n : int (M,), predictions in each bin.
    estimator_name : what the legend says.

    Attributes
    ----------
    line_, ax_, figure_ : what `plot` has drawn and on what.
    """

    probability: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    n: NDArray[np.int64]
    estimator_name: str = ""
    line_: Line2D = field(init=False, repr=False)
    ax_: Axes = field(init=False, repr=False)
    figure_: Figure | SubFigure = field(init=False, repr=False)

    @classmethod
    def from_predictions(
        cls,
        y_true: Any,
        y_pred: Any,
        *,
        n_bins: int = calibration.BINS,
        name: str = "",
        ax: Axes | None = None,
        **kwargs,
    ):
        """As `RiskCoverageDisplay.from_predictions`; the confidence has to lie in [0, 1]."""
        return cls._drawn(n_bins, name, ax, kwargs, y_true, y_pred)

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: Any, *, n_bins: int = calibration.BINS, name: str = "", ax: Axes | None = None,
        **kwargs,
    ):  # fmt: skip
        """As `RiskCoverageDisplay.from_estimator`."""
        return cls._drawn(n_bins, name or type(estimator).__name__, ax, kwargs, estimator, X, y)

    @classmethod
    def _drawn(cls, bins: int, name: str, ax: Axes | None, style: dict, *data):
        table = table_of(*data)
        first, values = next(iter(numbers.scores_of(table)[0].items()))
        probability = numbers.probability(table, first, values)
        if probability is None:
            raise ValueError(f"expected a probability of being correct, in [0, 1]; {first} is none")
        found = calibration.reliability(probability, table.correct, bins=bins)
        n = found["n"].to_numpy().astype(int)
        low, high = clopper_pearson(np.rint(found["accuracy"] * n).astype(int), n)
        return cls(found["probability"].to_numpy(), found["accuracy"].to_numpy(), low, high, n, name).plot(
            ax=ax, **style
        )

    def plot(self, ax: Axes | None = None, *, name: str = "", **kwargs) -> ReliabilityDisplay:
        """Draw it: on `ax`, or on new axes; `kwargs` are of matplotlib's `plot`."""
        self.ax_ = plt.subplots()[1] if ax is None else ax
        self.figure_ = self.ax_.figure
        label = name or self.estimator_name or "_"
        self.line_ = figures.reliability(
            self.ax_, self.probability, self.accuracy, self.low, self.high, **{"label": label} | kwargs
        )
        if not str(self.line_.get_label()).startswith("_"):  # as matplotlib names what has no name
            self.ax_.legend()
        return self
