"""Pairs of the training graph: from training interactions alone, as many as are asked for, by the seed."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_rlmrec.encoder.pairs import KINDS, draw_pairs

USERS = np.array([0, 0, 0, 1, 1, 2, 3, 0])
ITEMS = np.array([4, 5, 6, 5, 6, 9, 4, 4])  # the last is the first again

#: All pairs that there can be.
POSSIBLE = {
    "user-item": {(0, 4), (0, 5), (0, 6), (1, 5), (1, 6), (2, 9), (3, 4)},
    "item-item": {(4, 5), (5, 4), (4, 6), (6, 4), (5, 6), (6, 5)},
    "user-user": {(0, 1), (1, 0), (0, 3), (3, 0)},
}


def test_all_possible_pairs_are_drawn_and_no_others() -> None:
    drawn = draw_pairs(USERS, ITEMS, 100, 40, seed=3)
    assert list(drawn) == list(KINDS)
    for kind, possible in POSSIBLE.items():
        assert {tuple(pair) for epoch in drawn[kind] for pair in epoch.tolist()} == possible, kind
    # Of 7 interactions, 5 are of a user with another item, and 6 of an item with another user.
    assert [{len(epoch) for epoch in drawn[kind]} for kind in KINDS] == [{7}, {5}, {6}]


def test_other_ends_are_drawn_uniformly() -> None:
    """Of a user's three items, each of the two others is met half of the time."""
    epochs = draw_pairs(USERS, ITEMS, 100, 2000, seed=1)["item-item"]
    others = np.concatenate([epoch[epoch[:, 0] == 4][:, 1] for epoch in epochs])
    assert len(others) == 2000 and abs((others == 5).mean() - 0.5) < 0.04  # 3.6 standard errors


def test_the_number_is_a_bound_and_the_seed_decides() -> None:
    first, same, other = (draw_pairs(USERS, ITEMS, 2, 3, seed=seed) for seed in (0, 0, 1))
    for kind in KINDS:
        assert [epoch.shape for epoch in first[kind]] == [(2, 2)] * 3
        np.testing.assert_array_equal(first[kind], same[kind])
    assert any(not np.array_equal(first[kind], other[kind]) for kind in KINDS)
    assert not np.array_equal(*first["user-item"][:2])  # another epoch has other pairs


@pytest.mark.parametrize(("users", "items", "kind"), [([0, 1], [0, 1], "item-item"), ([0, 1], [0, 1], "user-user")])
def test_a_kind_without_any_pair_is_empty(users: list[int], items: list[int], kind: str) -> None:
    drawn = draw_pairs(np.array(users), np.array(items), 5, 2, seed=0)
    assert [epoch.shape for epoch in drawn[kind]] == [(0, 2), (0, 2)] and len(drawn["user-item"][0]) == 2
