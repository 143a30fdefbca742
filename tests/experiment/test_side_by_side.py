"""Whose lists are shown side by side."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_rlmrec.experiment.lists import RankedLists, ndcg_by_user
from recbole_rlmrec.experiment.side_by_side import chosen_users


def lists(first: list[int]) -> RankedLists:
    """Users 1 to n, who seek item 1 each, and have it at these places of lists of three; 3 is nowhere."""
    users = np.arange(1, len(first) + 1)
    ranked = np.array([[1 if place == at else 2 for place in range(3)] for at in first])
    nothing = np.zeros(0, dtype=int)
    return RankedLists(users, ranked, ranked, users - 1, np.ones(len(first), dtype=int), nothing, nothing)


def test_who_gains_is_in_the_middle_and_loses() -> None:
    """User 2 gains as much as user 5 and comes first; of user 4 neither list finds anything."""
    base, aligned = lists([0, 3, 1, 3, 3, 0]), lists([0, 0, 0, 3, 0, 2])
    found = chosen_users(base, aligned)
    assert [(each.why, each.row) for each in found] == [("gains most", 1), ("is in the middle", 2), ("loses most", 5)]
    for each in found:
        assert (each.base, each.aligned) == (ndcg_by_user(base)[each.row], ndcg_by_user(aligned)[each.row])


@pytest.mark.parametrize(("places", "rows"), [([3, 3], []), ([3, 1], [1])])
def test_nobody_is_there_twice(places: list[int], rows: list[int]) -> None:
    assert [each.row for each in chosen_users(lists(places), lists(places))] == rows
