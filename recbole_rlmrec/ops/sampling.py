"""Negatives drawn where the model is."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class UnusedItems:
    """Uniform draws, with replacement, among the items that a user has no interaction with.

    Nothing is rejected and drawn again: the r-th unused item of a user is r plus the number of used items before it,
    and that number is found by bisection. So a draw takes one pass, and no device has to be waited for.

    Item 0 is RecBole's ``[PAD]``, which is never drawn.

    Attributes:
        n_before: ``[pairs]``, ``user * n_items + the unused items that stand before a used one``, ascending.
        start: ``[users + 1]``, where each user's used items begin.
        n_unused: ``[users]``, how many items are left for each user.
        n_items: number of item ids.
    """

    n_before: Tensor
    start: Tensor
    n_unused: Tensor
    n_items: int

    @classmethod
    def from_pairs(cls, users: np.ndarray, items: np.ndarray, n_users: int, n_items: int) -> UnusedItems:
        """Build from the interactions, ``[E]`` and ``[E]``; repeated ones count once.

        Raises:
            ValueError: a user has every item.
        """
        user, item = np.divmod(np.unique(users.astype(np.int64) * n_items + items), n_items)
        n_used = np.bincount(user, minlength=n_users)
        if n_used.max(initial=0) >= n_items - 1:
            raise ValueError(f"user {n_used.argmax()} has all {n_items - 1} items, so that no negative is left")
        start = np.concatenate([[0], np.cumsum(n_used)])
        n_before = user * n_items + (item - 1 - (np.arange(len(item)) - start[user]))
        before, starts, unused = (torch.from_numpy(part) for part in (n_before, start, n_items - 1 - n_used))
        return cls(before, starts, unused, n_items)

    def to(self, device: torch.device | str) -> UnusedItems:
        """Return the same on ``device``."""
        parts = {name: getattr(self, name).to(device) for name in ("n_before", "start", "n_unused")}
        return replace(self, **parts)

    def draw(self, users: Tensor, n: int, rows: slice = slice(None)) -> Tensor:
        """Draw ``n`` unused items for each of some users.

        Args:
            users: ids, ``[B]``.
            n: draws per user.
            rows: the rows that are wanted. Random numbers are drawn for all of them, so that processes that want
                different rows stay in step.

        Returns:
            Item ids, ``[rows, n]``.

        >>> unused = UnusedItems.from_pairs(np.array([0, 0]), np.array([1, 3]), n_users=1, n_items=5)
        >>> sorted(set(unused.draw(torch.zeros(64, dtype=torch.int64), n=8).flatten().tolist()))
        [2, 4]
        """
        # The remainder's bias is below 1e-12 for fewer than a million items.
        drawn = torch.randint(2**62, (len(users), n), device=users.device)[rows]
        user = users[rows].unsqueeze(1)
        rank = drawn.remainder_(self.n_unused[user])
        n_used_before = torch.searchsorted(self.n_before, user * self.n_items + rank, right=True) - self.start[user]
        return rank + n_used_before + 1
