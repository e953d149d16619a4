"""The tools for your own predictions and your own classifier."""
