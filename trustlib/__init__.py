"""Which predictions of a classifier can be trusted? A study of learned trustworthiness, and its tool for your own.

`evaluate`, `compare` and the displays are imported when they are used: `import trustlib` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .apply.comparison import Comparison, compare
    from .apply.display import ReliabilityDisplay, RiskCoverageDisplay
    from .apply.page import Report, evaluate

__all__ = ["Comparison", "ReliabilityDisplay", "Report", "RiskCoverageDisplay", "__version__", "compare", "evaluate"]

_FILES = {  # name -> its file in trustlib.apply
    "evaluate": "page", "Report": "page", "compare": "comparison", "Comparison": "comparison",
    "RiskCoverageDisplay": "display", "ReliabilityDisplay": "display",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".apply.{_FILES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILES})
