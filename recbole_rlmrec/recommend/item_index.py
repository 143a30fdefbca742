"""An index of items by inner product, which finds most of the best ones without a look at all of them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from recbole_rlmrec.extras import require_package
from recbole_rlmrec.model.scores import ProductScorer
from recbole_rlmrec.recommend.ranking import Ranking

IndexKind = Literal["usearch"]
INDEXES: tuple[IndexKind, ...] = get_args(IndexKind)

#: Length of the lists that are compared, and of how many users.
_K, _USERS = 10, 1000


def check_index() -> None:
    """Check that an index can be made.

    Raises:
        SettingError: the package is not installed.
    """
    require_package("usearch", "An index", "'recbole-rlmrec[index]'")


def write_index(path: Path, blocks: Iterator[tuple[slice, np.ndarray]], items: Tensor) -> Any:
    """Write an index of items.

    Args:
        path: the file.
        blocks: the rows, some after the other, with their place: the key of an item is the number of its row, from 0.
        items: representations with ``[PAD]``, ``[I, d]``.

    Returns:
        The index.
    """
    from usearch.index import Index

    # The package's defaults: a search in the file that is read again has those as well.
    index = Index(ndim=items.shape[1], metric="ip", dtype="f32")
    for place, rows in blocks:
        index.add(np.arange(place.start, place.start + len(rows), dtype=np.uint64), rows)
    index.save(str(path))
    return index


def recall_of(index: Any, users: Tensor, items: Tensor, *, memory: float) -> dict[str, Any]:
    """Try an index on at most 1,000 users, evenly chosen, and say what it is.

    Args:
        index: what :func:`write_index` returned.
        users: representations with ``[PAD]``, ``[U, d]``.
        items: the same, ``[I, d]``.
        memory: bound of a block of exact scores, in MB.

    Returns:
        ``kind``, ``version``, ``keys``, ``recall@10`` and ``users``, the number of those it was tried on. The recall is
        the share of the ten best items that the index finds, a mean over the users.
    """
    n_users = len(users) - 1
    rows = np.unique(np.linspace(1, n_users, min(n_users, _USERS)).astype(np.int64))
    ranking = Ranking(ProductScorer(users, items[1:]), _K, None, None, memory, "The model")
    shares = []
    for block in ranking.blocks(rows):
        vectors = users[torch.from_numpy(block.users).to(users.device)].float().cpu().numpy()
        exact = np.split(block.items - 1, np.cumsum(block.lengths)[:-1])
        for vector, best in zip(vectors, exact):
            shares.append(np.isin(best, index.search(vector, _K).keys).mean())
    return {
        "kind": "usearch",
        "version": metadata.version("usearch"),
        "keys": "number of the item's row, from 0",
        f"recall@{_K}": round(float(np.mean(shares)), 4),
        "users": len(rows),
    }
