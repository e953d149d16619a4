"""What the notebooks that are to be played with share (`make lab`): controls, one histogram, one table."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import ipywidgets as widgets
import numpy as np
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from .figures import GROUPS

CORRECT, INCORRECT = GROUPS["TP"], GROUPS["FP"]  # no loss has these colours
PERCENT = FuncFormatter(lambda value, _: f"{abs(100 * value):.3g}%")


def follow(draw: Callable[..., None], controls: Mapping[str, widgets.ValueWidget], *, interactive: bool) -> None:
    """Draw with the values of some controls; where it is interactive, show them and draw again whenever one moves.

    Parameters
    ----------
    draw : called with the value of each control by its name.
    controls : name -> slider, dropdown, checkbox, ...
    interactive : False draws once, with the values as they are: for papermill and executed copies.
    """
    if not interactive:
        draw(**{name: control.value for name, control in controls.items()})
        return
    shown = widgets.HBox(list(controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
    display(shown, widgets.interactive_output(draw, controls))


def histogram(ax: Axes, confidence: NDArray, correct: NDArray[np.bool_], bins: int, span: tuple[float, float]) -> None:
    """Correct predictions upwards, incorrect ones downwards, each as shares of their number.

    Parameters
    ----------
    confidence, correct : (N,).
    bins, span : number of bins between two confidences.
    """
    for chosen, sign, colour, label in ((correct, 1, CORRECT, "correct"), (~correct, -1, INCORRECT, "incorrect")):
        count, edges = np.histogram(confidence[chosen], bins, span)
        ax.stairs(sign * count / chosen.sum(), edges, fill=True, color=colour, label=label)
    ax.yaxis.set_major_formatter(PERCENT)
    ax.set(xlabel="confidence", xlim=span)


def table(head: Sequence[str], rows: Iterable[Sequence[str | float]]) -> None:
    """Show a table; numbers are fractions, and shown as per cent."""
    cells = [[cell if isinstance(cell, str) else f"{cell:.1%}" for cell in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    display(Markdown("\n".join(f"| {' | '.join(line)} |" for line in lines)))
