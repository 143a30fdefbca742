"""From profile texts to semantic embeddings."""
