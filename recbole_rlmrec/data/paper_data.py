"""Whether data that have the name of one of the RLMRec paper's datasets are the paper's."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from recbole_rlmrec.data.split import pairs_sha256
from recbole_rlmrec.data.table import Table
from recbole_rlmrec.errors import RLMRecError


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

_PARTS = ("train", "valid", "test")


def other_than_the_papers(folder: Path, dataset: str) -> str | None:
    """Say what makes the data in a folder others than those of the paper, for which settings were tuned.

    Args:
        folder: of the dataset.
        dataset: its name.

    Returns:
        Half a sentence; None where the data are the paper's, the paper has none of this name, or none are there.
    """
    if dataset not in PAPER_DATA or not any(folder.glob(f"{dataset}*.inter")):
        return None
    paths = tuple(folder / f"{dataset}.{part}.inter" for part in _PARTS)
    if not all(path.is_file() for path in paths):
        return f"'{folder}' has not the paper's split, {dataset}.train.inter, .valid.inter and .test.inter"
    stamps = tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    return _difference(paths, stamps, dataset)


@lru_cache(maxsize=8)
def _difference(paths: tuple[Path, ...], stamps: tuple[tuple[int, int], ...], dataset: str) -> str | None:
    """Compare files, once as long as they have these stamps."""
    paper = PAPER_DATA[dataset]
    try:
        parts = [_pairs(path) for path in paths]
    except (ValueError, OSError, RLMRecError):
        return f"'{paths[0].parent}' cannot be read as the paper's interactions"
    everything = pd.concat(parts)
    found = (everything["user"].nunique(), everything["item"].nunique(), len(parts[0]))
    wanted = (paper.n_users, paper.n_items, paper.n_training)
    if found != wanted:
        shown = [
            "{:,} users, {:,} items and {:,} training interactions".format(*numbers) for numbers in (found, wanted)
        ]
        return f"'{paths[0].parent}' has {shown[0]}, the paper's {shown[1]}"
    users, items = parts[0]["user"].to_numpy(), parts[0]["item"].to_numpy()
    if paper.train_sha256 and pairs_sha256(users, items) not in paper.train_sha256:
        return f"the training interactions in '{paths[0].parent}' are not the paper's"
    return None


def _pairs(path: Path) -> pd.DataFrame:
    """Read the first two columns of a part, which are the ids in an imported release."""
    table = Table(path, "\t", "utf-8")
    columns = list(table.types)[:2]
    return table.read(columns)[columns].set_axis(["user", "item"], axis=1)
