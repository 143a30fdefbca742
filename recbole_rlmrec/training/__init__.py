"""One training: its steps, when it stops, its checkpoints, and what its result is compared with."""
