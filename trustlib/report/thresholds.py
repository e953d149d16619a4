"""What the threshold explorer of a report draws: how many predictions, and errors, each of many thresholds keeps."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .. import confidence, metrics
from ..analysis.compare import Results
from ..predictions import Predictions
from . import figures

if TYPE_CHECKING:
    from ..study import Study  # reads YAML, which predictions of your own do without

GROUPS = ("ensemble", "probe", "oracle")  # of the confidences that are offered next to MCP
POINTS, IN_ALL = 200, 9_000  # thresholds of a curve, and of all curves of a page: 150 kB
DASHES = {"-": "", "--": "7 3", ":": "2 3", "-.": "7 3 2 3"}
CAPTION = (
    "Threshold explorer. A prediction is trusted when its confidence reaches the threshold: drag it, here or in the "
    "figure, or say which risk is acceptable, and read what it does next to {} at the same coverage. TPR is the share "
    "of the correct predictions that are trusted, TNR that of the incorrect ones that are not, risk the share of "
    "errors among the trusted. {} Counts are exact at every threshold offered."
)


def explorer(results: Results) -> None:
    """Show a threshold explorer in the report: the page's script draws it; without scripts there is none.

    Parameters
    ----------
    results : a study's run, or what it has published.
    """
    from IPython.display import HTML, display  # here, since a page of your own predictions is made without a notebook

    display(HTML(embedded(curves(results), CAPTION.format("MCP", "On the test set, first training seed."))))


def embedded(pairs: list[dict[str, Any]], caption: str) -> str:
    """The HTML that the page's script makes an explorer of, from what `curves` returns."""
    data = json.dumps(pairs, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    return (
        f'<figure class="explorer" hidden><script type="application/json">{data}</script>'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def curves(results: Results) -> list[dict[str, Any]]:
    """Risk-coverage curves of a study's pairs on the test set, of the first training seed.

    Returns
    -------
    One dict per pair that has correct and incorrect predictions: label, n, errors, and methods, MCP first. A method
    has label, group, colour, dashes (of SVG), shown (whether from the start), start (whether it is chosen first), own
    (which of its points is its own threshold, or None) and its points, from the highest threshold: threshold (text),
    kept and wrong, each what it adds to the one before.
    """
    study = results.study
    found = {pair: results.predictions(pair) for pair in study.pairs}
    pairs = {pair: predictions for pair, predictions in found.items() if predictions and predictions.has_both}
    names = {pair: _offered(study, predictions) for pair, predictions in pairs.items()}
    count = min(POINTS, IN_ALL // max(1, sum(map(len, names.values()))))
    return [
        {
            "label": study.pair_label(pair),
            "n": len(predictions),
            "errors": int((~predictions.correct).sum()),
            "methods": [_method(study, predictions, name, count) for name in names[pair]],
        }
        for pair, predictions in pairs.items()
    ]


def _offered(study: Study, predictions: Predictions) -> list[str]:
    order = {
        name: GROUPS.index(study.group_of(name)) for name in predictions.confidence if study.group_of(name) in GROUPS
    }
    return ["mcp", *sorted(order, key=order.get)]


def _method(study: Study, predictions: Predictions, name: str, count: int) -> dict[str, Any]:
    score = predictions.confidence[name][0]
    style = figures.line_style(**study.line(name))
    threshold = predictions.threshold_of(name)
    return {
        "label": study.method_label(name),
        "group": confidence.GROUPS[study.group_of(name)],
        "colour": style["color"],
        "dashes": DASHES.get(style["linestyle"], "1 2"),
        "shown": name in ("mcp", "ensemble", *study.one_a_loss),
        "start": name in study.one_a_loss and study.method(name).loss == "ss",
        **points(score, predictions.correct, count, threshold),
    }


def points(
    score: NDArray, correct: NDArray[np.bool_], count: int, own: float = np.nan, shown: Callable = float
) -> dict[str, Any]:
    """About `count` thresholds of a confidence (N,), evenly spaced in coverage; with `own`, where it keeps any.

    shown : what a threshold is shown as, such as a probability in place of log-odds.

    Returns
    -------
    threshold, kept, wrong and own, as `curves` has them.
    """
    ranking = metrics.rank(score, correct)
    wanted = np.linspace(0, ranking.n, count + 1)[1:]
    chosen = ranking.kept.searchsorted(wanted)
    at_own = int((ranking.threshold > own).sum()) - 1
    if at_own >= 0:
        chosen = np.append(chosen, at_own)
    chosen = np.unique(chosen)
    return {
        "threshold": [f"{shown(value):.4g}" for value in ranking.threshold[chosen]],
        "kept": np.diff(ranking.kept[chosen], prepend=0).tolist(),
        "wrong": np.diff(ranking.wrong_kept[chosen], prepend=0).tolist(),
        "own": int(chosen.searchsorted(at_own)) if at_own >= 0 else None,
    }
