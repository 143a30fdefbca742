"""The datasets of the RLMRec paper, and where their release lies."""

from __future__ import annotations

RELEASE_URL = "https://archive.org/download/rlmrec_data/data.zip"

#: Each dataset and the release's own name of it.
DATASET_RELEASES = {"amazon-book": "amazon", "yelp": "yelp", "steam": "steam"}
RELEASE_NAMES = tuple(DATASET_RELEASES.values())
