"""The datasets of the RLMRec paper, and where their release lies."""

from __future__ import annotations

from typing import NamedTuple

RELEASE_URL = "https://archive.org/download/rlmrec_data/data.zip"

#: Each dataset and the release's own name of it.
DATASET_RELEASES = {"amazon-book": "amazon", "yelp": "yelp", "steam": "steam"}
RELEASE_NAMES = tuple(DATASET_RELEASES.values())


class PaperData(NamedTuple):
    """What the paper's data are known by: its own numbers (section 3), and hashes of the released training pairs.

    Attributes:
        n_users: users.
        n_items: items.
        n_training: training interactions.
        train_sha256: :func:`~recbole_rlmrec.data.split.pairs_sha256` of the training pairs, by original ids and by row
            numbers; empty where they are not known.
    """

    n_users: int
    n_items: int
    n_training: int
    train_sha256: tuple[str, ...] = ()


PAPER_DATA = {
    "amazon-book": PaperData(
        11_000,
        9_332,
        120_464,
        (
            "9d181fffa0f5efb2d19bd91190a25f69b281827997e4196c5b0951d669b4933f",
            "ca5f19dd3b0b78ca51ced30091f72b730419e8b84984671b2216a0ff15a35c05",
        ),
    ),
    "yelp": PaperData(11_091, 11_010, 166_620),
    "steam": PaperData(23_310, 5_237, 316_190),
}
