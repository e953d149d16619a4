"""What the authors' released code computes where it departs from the paper's text.

Read from github.com/luoyan407/predict_trustworthiness, the ImageNet code. These are our own statements of what it
does, kept apart so that the study can train and report both forms. We do not know that the published tables came
from exactly this code: what the study says about them, it says of this code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from .metrics import average_precision, fit_normals, rank

if TYPE_CHECKING:
    from torch import Tensor

EPS = 1e-7  # inside every logarithm, src/oracle.py
SCAN_THRESHOLDS = 10_000  # of `fpr95_scan`


def cross_entropy(z: Tensor, target: Tensor) -> Tensor:
    """Cross entropy as released (``src/oracle.py``, `oracle_loss_crossentropy`): every output against every label.

    The oracle's output has shape (B, 1) there and the labels (B,), so that the product broadcasts to (B, B), which the
    mean hides. The gradient for sample i becomes ``(sigmoid(z_i) - mean(target)) / B``: its own label plays no part.

    Parameters
    ----------
    z : float (B,), the oracle's output.
    target : bool or float (B,) in {0, 1}, `correct`.

    Returns
    -------
    float (B, B): row i holds sample i's output against the label of every sample of the batch.
    """
    p, o = z.sigmoid()[:, None], target.to(z.dtype)  # (B, 1), (B,)
    return -o * (p + EPS).log() - (1 - o) * (1 - p + EPS).log()  # (B, B)


def focal(z: Tensor, target: Tensor, *, gamma: float = 2.0) -> Tensor:
    """Focal loss as released (``src/oracle.py``, `oracle_loss_focal`), with the broadcast of `cross_entropy`.

    Shapes as there; gamma >= 0.
    """
    if not gamma >= 0:
        raise ValueError(f"focal: gamma must be >= 0, found {gamma}")
    p, o = z.sigmoid()[:, None], target.to(z.dtype)  # (B, 1), (B,)
    return -o * (1 - p) ** gamma * (p + EPS).log() - (1 - o) * p**gamma * (1 - p + EPS).log()  # (B, B)


LOSSES: dict[str, Callable[..., Tensor]] = {"ce": cross_entropy, "focal": focal}


def aupr_error(confidence: ArrayLike, correct: ArrayLike) -> float:
    """AUPR-Error as released (``src/oracle.py``, line 109): the confidence is not negated.

    Incorrect predictions are the positive class but are looked for where confidence is *high*, so a better confidence
    scores lower. The authors' small-scale code and ConfidNet negate it.
    """
    ranking = rank(confidence, correct)
    return float(average_precision(ranking.wrong, ranking.right))


def fpr95_scan(confidence: ArrayLike, correct: ArrayLike) -> float:
    """FPR-95%-TPR as released (``src/oracle.py``, `compute_performance`): a scan of equally spaced thresholds.

    ``t_i = low + i (high - low) / 10000`` for i = 0..9999, from the smallest confidence up to just below the largest.
    The first t_i that at least 94.95 % and at most 95.05 % of the correct predictions reach (``>=``) gives the share of
    incorrect ones that reach it. The released code scans sigmoid(z), float32; another scale of the same score may give
    another value, and `metrics.fpr_at_tpr` is what it estimates.

    Parameters
    ----------
    confidence : float (N,), finite; sigmoid(z) to follow the released code.
    correct : bool (N,).

    Returns
    -------
    float in [0, 1]. NaN where no t_i lands in the window: few correct predictions, ties, a saturated or constant score
    (the released code then leaves the metric out), and where a class is empty (there it fails).

    Raises
    ------
    ValueError : as `metrics.rank` does, and for an infinite confidence, between which nothing is equally spaced.
    """
    ranking = rank(confidence, correct)
    high, low = ranking.threshold[[0, -1]]
    if not np.isfinite(high - low):
        raise ValueError("fpr95_scan needs finite confidences, found an infinite one or an infinite range")
    right, wrong = ranking.right_kept, ranking.wrong_kept
    if right[-1] == 0 or wrong[-1] == 0 or high == low:
        return np.nan
    thresholds = low + np.arange(SCAN_THRESHOLDS) * ((high - low) / SCAN_THRESHOLDS)
    last = np.searchsorted(-ranking.threshold, -thresholds, "right") - 1  # the lowest distinct confidence that reaches
    tpr = right[last] / right[-1]
    inside = np.flatnonzero((tpr >= 0.95 - 0.0005) & (tpr <= 0.95 + 0.0005))
    return (wrong[last[inside[0]]] / wrong[-1]).item() if inside.size else np.nan


def average_kl(confidence: ArrayLike, correct: ArrayLike) -> float:
    """The average KL divergence of two normals as released (``src/eval_predictions.py``).

    ``log(s2 / s1) + (s1^2 + (m1 - m2)^2) / s2^2 - 1/2``, averaged over both directions: the middle term lacks its
    factor 1/2, so that two equal normals are 1/2 apart. NaN where a class has no spread.
    """
    m1, s1, m2, s2 = fit_normals(confidence, correct)
    if not (s1 > 0 and s2 > 0):
        return float("nan")
    gap = (m1 - m2) ** 2
    return ((s1**2 + gap) / s2**2 + (s2**2 + gap) / s1**2) / 2 - 0.5
