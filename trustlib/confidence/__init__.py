"""How sure a classifier is of its own predictions: every confidence that needs no fine-tuned oracle.

A score is a function ``(part, fit, reference) -> float64 (N,)``, higher = more to be trusted, of three `Observed`:
the split to score, the validation set, on which a temperature or a norm's order is fitted, and the training set, whose
features serve as reference. To add one, write its function and its line in `table.SCORES`: every table then has it.
"""

from .observed import Observed, drawn_reference
from .scores import NEIGHBOUR, entropy, fitted_temperature, mcp, temperature
from .table import GROUPS, SCORES, Score, all_scores

__all__ = [
    "GROUPS",
    "NEIGHBOUR",
    "SCORES",
    "Observed",
    "Score",
    "all_scores",
    "drawn_reference",
    "entropy",
    "fitted_temperature",
    "mcp",
    "temperature",
]
