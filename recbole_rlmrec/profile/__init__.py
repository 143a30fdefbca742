"""Profiles: short texts about users and items, which a text encoder turns into semantic embeddings."""
