"""What an ablation does to the data: pairs that nobody has are added, profiles withheld or exchanged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recbole_rlmrec.data.semantic_embedding import JoinedEmbedding
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.run_settings import AblationSettings
from recbole_rlmrec.sides import SIDES, Side

#: Seeds of what is drawn here: the same for every model and every seed of a training.
_NOISE, _PROFILES = 101, 102


def noise_pairs(
    pairs: tuple[np.ndarray, np.ndarray], n_users: int, n_items: int, n_pairs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw distinct pairs that are not among the interactions; ids from 1, as 0 is ``[PAD]``.

    Args:
        pairs: users and items of all interactions, of every part of the split, ``[N]`` each.
        n_users: user ids, ``[PAD]`` among them.
        n_items: item ids.
        n_pairs: how many to draw.

    Returns:
        Users and items, int64 ``[n_pairs]`` each.

    Raises:
        DataError: there are not so many.
    """
    users, items = pairs
    known = np.unique(users.astype(np.int64) * n_items + items)
    n_free = (n_users - 1) * (n_items - 1) - len(known)
    if n_pairs > n_free / 2:  # drawing takes long where little is left
        raise DataError(
            f"noise_share asks for {n_pairs:,} pairs that nobody has; of those there are {n_free:,}, and at most half "
            "are taken. Lower it."
        )
    rng = np.random.default_rng(_NOISE)
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < n_pairs:
        n = 2 * (n_pairs - len(drawn)) + 16
        keys = rng.integers(1, n_users, n) * n_items + rng.integers(1, n_items, n)
        keys = keys[~np.isin(keys, known)]
        drawn = np.concatenate([drawn, keys])
        _, first = np.unique(drawn, return_index=True)
        drawn = drawn[np.sort(first)]
    return np.divmod(drawn[:n_pairs], n_items)


def without_profiles(joined: dict[Side, JoinedEmbedding], settings: AblationSettings) -> dict[Side, JoinedEmbedding]:
    """Return semantic embeddings with some exchanged or withheld.

    Args:
        joined: by side.
        settings: what to do.
    """
    if not settings.shuffled_profiles and not settings.withheld_share:
        return joined
    found = dict(joined)
    for number, side in enumerate(SIDES):
        rng = np.random.default_rng([_PROFILES, number])
        rows = joined[side].rows.copy()
        covered = np.flatnonzero(rows >= 0)
        if settings.shuffled_profiles and len(covered) > 1:
            order = rng.permutation(covered)
            rows[order] = rows[np.roll(order, 1)]  # one circle, so that nobody keeps its own
        if settings.withheld_side in ("both", f"{side}s"):
            rows[rng.permutation(covered)[: round(settings.withheld_share * len(covered))]] = -1
        found[side] = replace(joined[side], rows=rows, covered=rows >= 0)
    return found
