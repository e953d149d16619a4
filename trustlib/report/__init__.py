"""Figures, tables and sentences of the report, and the page they make."""

from .page import absent, figure, table

__all__ = ["absent", "figure", "table"]
