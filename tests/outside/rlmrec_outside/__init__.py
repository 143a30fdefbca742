"""A package as a stranger would write it: a backbone and an alignment that recbole_rlmrec knows nothing of."""
