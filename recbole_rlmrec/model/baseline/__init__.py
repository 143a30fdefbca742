"""The baselines of the paper's tables: one file per method."""
