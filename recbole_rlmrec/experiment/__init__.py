"""Comparisons of models over several seeds: cells, tests, tables."""
