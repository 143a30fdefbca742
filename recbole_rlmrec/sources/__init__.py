"""Datasets from elsewhere: raw dumps and RLMRec's release become RecBole's files."""
