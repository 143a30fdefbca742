"""Draws among the items that are not used: which, how often, and the same in several processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_rlmrec.ops.sampling import UnusedItems

N_USERS, N_ITEMS = 5, 9
#: Items by user: nothing, first and last, a run and a repetition, all but one.
USED: dict[int, list[int]] = {1: [], 2: [1, 8], 3: [5, 3, 4, 3], 4: [1, 2, 3, 4, 5, 6, 8]}


def sampler() -> UnusedItems:
    pairs = [(user, item) for user, items in reversed(USED.items()) for item in items]
    users, items = np.array(pairs).T
    return UnusedItems.from_pairs(users, items, N_USERS, N_ITEMS)


@pytest.mark.parametrize("user", USED)
def test_unused_items_are_drawn_alike_and_no_other(user: int) -> None:
    torch.manual_seed(user)
    drawn = sampler().draw(torch.tensor([user, user]), 20000)
    assert drawn.shape == (2, 20000)
    unused = sorted(set(range(1, N_ITEMS)) - set(USED[user]))
    counts = np.bincount(drawn.flatten().numpy(), minlength=N_ITEMS)
    assert np.flatnonzero(counts).tolist() == unused
    expected = 40000 / len(unused)
    assert np.abs(counts[unused] - expected).max() <= 4 * np.sqrt(expected)


def test_each_user_has_draws_of_their_own() -> None:
    torch.manual_seed(0)
    first, second = sampler().draw(torch.tensor([1, 1]), 50)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("rows", [slice(0, 2), slice(2, 5), slice(5, 5)])
def test_processes_that_want_parts_stay_in_step(rows: slice) -> None:
    users = torch.tensor([4, 2, 3, 1, 2])
    torch.manual_seed(1)
    whole, after = sampler().draw(users, 7), torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(sampler().draw(users, 7, rows), whole[rows])
    assert torch.equal(torch.random.get_rng_state(), after)


def test_as_many_users_and_items_as_in_a_dataset() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(1, 301, 5000), rng.integers(1, 80, 5000)
    batch = torch.from_numpy(rng.integers(1, 301, 400))
    drawn = UnusedItems.from_pairs(users, items, 301, 80).draw(batch, 64).numpy()
    used = set(zip(users.tolist(), items.tolist()))
    assert drawn.min() >= 1 and drawn.max() == 79
    assert not any((user, item) in used for user, row in zip(batch.tolist(), drawn) for item in row.tolist())


def test_a_user_without_unused_items_is_refused() -> None:
    items = np.arange(1, N_ITEMS)
    with pytest.raises(ValueError, match="user 3 has all 8 items"):
        UnusedItems.from_pairs(np.full(len(items), 3), items, N_USERS, N_ITEMS)
