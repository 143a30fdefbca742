"""Recommenders: backbones, the RLMRec mixins over them, and the registry that finds them by name."""
