"""Figures, tables and sentences of the report, and the page they make."""

from .page import absent, evaluate, figure, table

__all__ = ["absent", "evaluate", "figure", "table"]
