"""Pairs of nodes that the training graph puts close: a user and an item taken, items of a user, users of an item."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from recbole_rlmrec.sides import Side

#: Kinds of pairs -> the sides of their two ends.
KINDS: Mapping[str, tuple[Side, Side]] = {
    "user-item": ("user", "item"),
    "item-item": ("item", "item"),
    "user-user": ("user", "user"),
}


def draw_pairs(
    users: np.ndarray, items: np.ndarray, n_pairs: int, n_epochs: int, seed: int
) -> dict[str, list[np.ndarray]]:
    """Draw pairs of each kind for each epoch.

    Each pair comes from a training interaction, and no interaction gives two of a kind in one epoch: with its user and
    item; with its item and another one of the user, drawn uniformly; with its user and another one of the item.

    Args:
        users: user of each training interaction, int64 ``[E]``; a pair that occurs twice counts once.
        items: its item, ``[E]``.
        n_pairs: pairs of a kind and epoch at most; there are fewer where fewer interactions can give one.
        n_epochs: epochs.
        seed: of what is drawn.

    Returns:
        Kind, in the order of :data:`KINDS` -> for each epoch the two ends of each pair, int64 ``[n, 2]``.

    >>> drawn = draw_pairs(np.array([0, 0, 1]), np.array([5, 6, 6]), 10, 1, seed=0)
    >>> {kind: sorted(epoch.tolist()) for kind, (epoch,) in drawn.items()}
    {'user-item': [[0, 5], [0, 6], [1, 6]], 'item-item': [[5, 6], [6, 5]], 'user-user': [[0, 1], [1, 0]]}
    """
    rng = np.random.default_rng(seed)
    width = int(items.max(initial=0)) + 1
    users, items = np.divmod(np.unique(users * width + items), width)
    drawn = {"user-item": [np.stack([users, items], axis=1)[_some(len(users), n_pairs, rng)] for _ in range(n_epochs)]}
    for kind, groups, members in (("item-item", users, items), ("user-user", items, users)):
        drawn[kind] = _of_one_group(groups, members, n_pairs, n_epochs, rng)
    return drawn


def _some(number: int, most: int, rng: np.random.Generator) -> np.ndarray:
    """Draw that many different positions, or all there are."""
    return rng.choice(number, min(number, most), replace=False)


def _of_one_group(
    groups: np.ndarray, members: np.ndarray, n_pairs: int, n_epochs: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw pairs of different members of one group, for each epoch ``[n, 2]``."""
    order = np.argsort(groups, kind="stable")
    groups, members = groups[order], members[order]
    sizes = np.bincount(groups)
    starts = sizes.cumsum() - sizes
    usable = np.flatnonzero(sizes[groups] > 1)
    epochs = []
    for _ in range(n_epochs):
        first = usable[_some(len(usable), n_pairs, rng)]
        start, size = starts[groups[first]], sizes[groups[first]]
        second = start + (first - start + rng.integers(1, np.maximum(size, 2))) % size  # never at its own place
        epochs.append(np.stack([members[first], members[second]], axis=1))
    return epochs
