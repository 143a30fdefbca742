"""Models that hold a language model themselves; imported only when one is asked for."""
