"""Figures, tables and sentences of the report, and the page they make."""

import lazy_loader

# `page` is imported when a page is made: it takes torch, which figures and tables do not.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"explorer": ["explorer"], "page": ["drawing", "evaluate", "figure", "table"]}
)
