"""Helpers of the study of learned trustworthiness: see README.md for the map, and each module for its contract."""

__version__ = "0.1.0"
