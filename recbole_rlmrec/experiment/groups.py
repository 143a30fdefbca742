"""Who gains: recall by how active users are and how well known items are; and what all lists look like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from recbole_rlmrec.experiment.lists import RankedLists, recall_by_user

#: Groups of users, and of items, of about equal size.
N_GROUPS = 5


@dataclass(frozen=True)
class Group:
    """Some users, or the interactions with some items.

    Attributes:
        side: ``users`` or ``items``.
        low: fewest training interactions of a member.
        high: most of one.
        recall: of each test user, float64 ``[n]``; NaN for users who are not in the group, or have none of its items to
            be found.
    """

    side: str
    low: int
    high: int
    recall: np.ndarray

    @property
    def name(self) -> str:
        """What a table calls it."""
        return f"{self.side} with {self.low:,} to {self.high:,} training interactions"

    @property
    def has_any(self) -> np.ndarray:
        """Which test users have anything to be found, bool ``[n]``."""
        return ~np.isnan(self.recall)

    def record(self) -> dict[str, Any]:
        """Return plain values: the mean recall over the users, None where there are none, and how many there are."""
        n_users = int(self.has_any.sum())
        mean = float(np.nanmean(self.recall)) if n_users else None
        return {"side": self.side, "low": self.low, "high": self.high, "users": n_users, "recall": mean}


def groups_of(counts: np.ndarray, n_groups: int = N_GROUPS) -> list[np.ndarray]:
    """Cut nodes into groups of about equal size by a count; equal counts stay together.

    Args:
        counts: of each node, ``[n]``.
        n_groups: how many.

    Returns:
        Which nodes belong to each group, bool ``[n]``; empty groups are left out.

    >>> [group.tolist() for group in groups_of(np.array([1, 9, 1, 5]), 2)]
    [[True, False, True, False], [False, True, False, True]]
    """
    edges = np.quantile(counts, np.linspace(0, 1, n_groups + 1)[1:-1])
    number = np.searchsorted(edges, counts, side="right")
    members = [number == each for each in range(n_groups)]
    return [member for member in members if member.any()]


def recall_by_group(lists: RankedLists, n_groups: int = N_GROUPS) -> list[Group]:
    """Return the recall of groups of users by activity, and of groups of items by popularity, the least first.

    Recall of a group of items counts the test interactions with these items only.

    Args:
        lists: of a model.
        n_groups: of each side.
    """
    of_users, activity = recall_by_user(lists), lists.user_counts[lists.users]
    found = [
        Group("users", int(activity[own].min()), int(activity[own].max()), np.where(own, of_users, np.nan))
        for own in groups_of(activity, n_groups)
    ]
    popularity, hit = lists.item_counts[1:], lists.hits() < lists.k
    for own in groups_of(popularity, n_groups):
        chosen = own[lists.items - 1]
        sought = np.bincount(lists.rows[chosen], minlength=len(lists.users))
        had = np.bincount(lists.rows[chosen], weights=hit[chosen], minlength=len(lists.users))
        recall = np.divide(had, sought, out=np.full(len(had), np.nan), where=sought > 0)
        found.append(Group("items", int(popularity[own].min()), int(popularity[own].max()), recall))
    return found


def shape_of(lists: RankedLists) -> Mapping[str, float]:
    """Return what lists look like, whoever likes them.

    Returns:
        ``popular``: share of the places that the popularity ranking fills with the same items for the same users.
        ``coverage``: share of all items that are in a list.
        ``novelty``: mean of -log2 of an item's share of the training interactions, in bits; an item without any counts
        as one with one.
        ``gini``: of how often each item is in a list; 0 where all are equally often, near 1 where few fill all lists.
    """
    same = (lists.lists[:, :, None] == lists.popular[:, None, :]).any(axis=2)
    times = np.sort(np.bincount(lists.lists.ravel(), minlength=len(lists.item_counts))[1:])
    n_items, total = len(times), times.sum()
    shares = np.maximum(lists.item_counts, 1) / max(lists.item_counts.sum(), 1)
    rank = np.arange(1, n_items + 1)
    return {
        "popular": float(same.mean()),
        "coverage": float((times > 0).mean()),
        "novelty": float(-np.log2(shares[lists.lists]).mean()),
        "gini": float((2 * rank - n_items - 1) @ times / (n_items * total)),
    }
