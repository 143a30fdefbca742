"""Checks of profiles, embeddings and leakage before a training."""
