"""What is added to a backbone: its representations are aligned with the semantic embeddings of profiles."""
