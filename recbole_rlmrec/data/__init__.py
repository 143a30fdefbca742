"""Datasets, splits, semantic embeddings and the import of released files."""
