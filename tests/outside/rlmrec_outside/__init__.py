"""A package as a stranger would write it: parts of each kind, which recbole_rlmrec knows nothing of."""
