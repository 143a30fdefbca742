"""Maps of items in two dimensions, and how far two spaces agree on who is near to whom."""

from __future__ import annotations

import numpy as np

from recbole_rlmrec.experiment.case_study import unit

#: Items on a map at most, and the seed of their choice and of the maps.
MOST_ITEMS, SEED = 1000, 2020

#: Nearest items that two spaces are compared by.
N_NEAREST = 10

#: Fewer items make no map.
_LEAST = 10

#: What the axes are, and how the maps are made.
AXES = ("t-SNE, first (no unit)", "t-SNE, second (no unit)")
SAID = (
    f"t-SNE of unit vectors (scikit-learn, perplexity 30, begun from principal components, seed {SEED}) of at most "
    f"{MOST_ITEMS:,} items with training interactions and an embedding, drawn at random. Only who is near to whom has "
    "a meaning: directions and distances between groups have none. Agreement is the share of an item's "
    f"{N_NEAREST} nearest items of the map by its text that are among its {N_NEAREST} nearest by the model as well "
    "(cosine, before t-SNE)."
)


def sample_of(may_be: np.ndarray) -> np.ndarray:
    """Return the items of a map, ids ascending, int64 ``[n]``; none where there are too few.

    Args:
        may_be: which items there are to choose from, bool ``[I]``.
    """
    ids = np.flatnonzero(may_be)
    if len(ids) < _LEAST:
        return ids[:0]
    drawn = np.random.default_rng(SEED).permutation(ids)[:MOST_ITEMS]
    return np.sort(drawn)


def map_of(vectors: np.ndarray) -> np.ndarray:
    """Return places on a map, float32 ``[n, 2]``.

    Args:
        vectors: ``[n, d]``.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    # Threads that wait for each other on a busy machine took ten times as long.
    with threadpool_limits(1):
        perplexity = min(30.0, (len(vectors) - 1) / 3)
        found: np.ndarray = TSNE(2, init="pca", perplexity=perplexity, random_state=SEED).fit_transform(unit(vectors))
    return found


def agreement(vectors: np.ndarray, others: np.ndarray) -> float:
    """Return the share of each row's nearest rows in one space that are among its nearest in another, a mean.

    Args:
        vectors: ``[n, d]``.
        others: the same rows in the other space, ``[n, d']``.
    """
    k = min(N_NEAREST, len(vectors) - 1)
    first, second = (_nearest(unit(table), k) for table in (vectors, others))
    return float((first[:, :, None] == second[:, None, :]).any(axis=2).mean())


def _nearest(vectors: np.ndarray, k: int) -> np.ndarray:
    """Return the k nearest other rows of each row, ``[n, k]``."""
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -np.inf)
    found: np.ndarray = np.argpartition(-cosines, k - 1, axis=1)[:, :k]
    return found
