"""What the outputs say: comparisons, ablations, budgets, the paper's tables, claims."""
