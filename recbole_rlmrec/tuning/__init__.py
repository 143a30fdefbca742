"""Search for settings on the validation split, through RecBole's HyperTuning or Ray Tune."""
