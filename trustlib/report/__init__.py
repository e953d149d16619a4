"""Figures, tables and sentences of the report, and the page they make."""

from importlib import import_module
from typing import Any

SHOWN_BY = {"explorer": "thresholds", "drawing": "page", "figure": "page", "table": "page"}  # function -> its file


def __getattr__(name: str) -> Any:
    """What a notebook shows with: imported when it is used, since it takes IPython and nbconvert."""
    if name not in SHOWN_BY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{SHOWN_BY[name]}", __name__), name)
