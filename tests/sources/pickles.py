"""Small pickles as RLMRec releases them, and pickles that attack."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

N_USERS, N_ITEMS = 4, 3
# User 3 and, in training, item 1 have no interaction. Written here unsorted.
TRAIN = [(2, 0), (0, 2), (1, 2), (0, 0)]
# Those that need no copyreg._reconstructor, which is not admitted, for a SciPy matrix.
PROTOCOLS = [2, 3, 4, 5]
USER_PROFILES = {1: {"profile": "Likes\nfantasy", "reasoning": "Titles"}, 0: {"profile": "Kéç \u2028", "reasoning": ""}}
ITEM_PROFILES = {2: {"profile": "A novel"}}


def dump(path: Path, value: Any, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def matrix(pairs: list[tuple[int, int]], values: Any = None, shape: tuple[int, int] = (N_USERS, N_ITEMS)) -> Any:
    """SciPy COO matrix [U, I] with one entry for each pair."""
    rows, columns = zip(*pairs)
    return sparse.coo_matrix((np.ones(len(pairs)) if values is None else values, (rows, columns)), shape=shape)


def edited(**attributes: Any) -> Any:
    """The training matrix with some attributes overwritten behind SciPy's back; None deletes."""
    changed = matrix(TRAIN)
    for name, value in attributes.items():
        changed.__dict__[name] = value
        if value is None:
            del changed.__dict__[name]
    return changed


def unit_rows(n_rows: int, dimension: int = 5, dtype: str = "float32") -> np.ndarray:
    vectors = np.random.default_rng(n_rows).normal(size=(n_rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


class Attack:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call
