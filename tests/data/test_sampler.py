"""The sampler draws RecBole's negatives, from arrays."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.sampler import Sampler
from scipy.stats import chi2

from recbole_rlmrec.data import sampler as sampler_module
from recbole_rlmrec.data.sampler import PairSampler, _BitTable, _SortedPairs

PHASES = ["train", "valid", "test"]
N_USERS, N_ITEMS = 50, 37


def part(pairs: Any, n_users: int = N_USERS, n_items: int = N_ITEMS) -> Any:
    """What a sampler reads of a dataset."""
    users, items = np.asarray(pairs, dtype=np.int64).reshape(-1, 2).T.copy()
    columns = Interaction({"user_id": torch.from_numpy(users), "item_id": torch.from_numpy(items)})
    return SimpleNamespace(
        uid_field="user_id", iid_field="item_id", user_num=n_users, item_num=n_items, inter_feat=columns
    )


@pytest.fixture(scope="module")
def parts() -> list[Any]:
    """Three phases with repeated pairs, within and across them; users without any; one who lacks a few items only."""
    rng = np.random.default_rng(3)
    most = [(7, item) for item in range(1, N_ITEMS - 2) if item not in (2, 5)]
    phases = []
    for size in (300, 120, 120):
        users, items = rng.integers(8, N_USERS - 3, size), (1 + (N_ITEMS - 4) * rng.random(size) ** 2).astype(int)
        phases.append(list(zip(users.tolist(), items.tolist())))
    phases[0] += most + phases[0][:20]
    phases[1] += phases[0][30:50]
    phases[2] += phases[0][60:70] + phases[1][:10]
    return [part(pairs) for pairs in phases]


def pairs_of(dataset: Any) -> set[tuple[int, int]]:
    return set(zip(dataset.inter_feat["user_id"].tolist(), dataset.inter_feat["item_id"].tolist()))


@pytest.fixture(params=["bits", "sorted"])
def table(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type:
    """Each of the two ways to look pairs up."""
    monkeypatch.setattr(sampler_module, "_MOST_BITS", {"bits": 2**29, "sorted": 0}[request.param])
    return {"bits": _BitTable, "sorted": _SortedPairs}[request.param]


@pytest.mark.parametrize("users", [[7], [7, 7, 7], list(range(N_USERS)) * 8, [0, N_USERS - 1, 7]])
@pytest.mark.parametrize("num", [1, 3])
@pytest.mark.parametrize(("distribution", "alpha"), [("uniform", 1.0), ("popularity", 1.0), ("popularity", 0.75)])
def test_negatives_are_recboles(
    parts: list[Any], table: type, users: list[int], num: int, distribution: str, alpha: float
) -> None:
    drawn = []
    for kind in (Sampler, PairSampler):
        np.random.seed(5)
        shared = kind(PHASES, parts, distribution, alpha)
        samplers = [shared.set_phase(phase) for phase in PHASES]
        ids = np.array(users)
        drawn.append([sampler.sample_by_user_ids(ids, ids, num) for _ in range(3) for sampler in samplers])
        drawn[-1].append(torch.from_numpy(np.random.randint(0, 2**31, 3)))  # and nothing more was drawn
    assert isinstance(samplers[0]._table, table)
    for theirs, ours in zip(*drawn):
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@pytest.mark.parametrize("alpha", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("n_items", [N_ITEMS, 3000])
def test_alias_table_is_recboles(parts: list[Any], n_items: int, alpha: float) -> None:
    if n_items > N_ITEMS:
        rng = np.random.default_rng(0)
        items = (1 + (n_items - 2) * rng.random(20000) ** 3).astype(int)
        parts = [part(np.stack([rng.integers(1, 200, len(items)), items], 1), 200, n_items)]
    phases = PHASES[: len(parts)]
    theirs, ours = (kind(phases, parts, "popularity", alpha) for kind in (Sampler, PairSampler))
    assert list(ours.prob.items()) == list(theirs.prob.items())
    assert list(ours.alias.items()) == list(theirs.alias.items())


def test_rounding_never_draws_item_minus_1() -> None:
    """RecBole's table may leave a chance just below 1 without an alias."""
    found = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sampler = PairSampler(
            ["train"], [part(np.stack([np.arange(49), rng.integers(1, N_ITEMS, 49)], 1))], "popularity"
        )
        found += any(chance < 1 and sampler.alias[item] == -1 for item, chance in sampler.prob.items())
        assert sampler._alias_table[2].min() >= 1
    assert found > 0


def test_a_new_distribution_leaves_earlier_samplers_alone(parts: list[Any]) -> None:
    drawn = []
    for kind in (Sampler, PairSampler):
        np.random.seed(2)
        shared = kind(PHASES, parts, "uniform", 0.5)
        train = shared.set_phase("train")
        shared.set_distribution("popularity")
        ids = np.arange(N_USERS)
        drawn.append([sampler.sample_by_user_ids(ids, ids, 2) for sampler in (train, shared.set_phase("test"))])
    assert all(torch.equal(theirs, ours) for theirs, ours in zip(*drawn))


def expected_uniform(dataset: Any) -> np.ndarray:
    return np.ones(N_ITEMS)


def expected_popularity(dataset: Any) -> np.ndarray:
    counts = np.bincount(dataset.inter_feat["item_id"].numpy(), minlength=N_ITEMS)
    return counts**0.5


@pytest.mark.parametrize(
    ("distribution", "weights"), [("uniform", expected_uniform), ("popularity", expected_popularity)]
)
def test_negatives_follow_the_distribution(
    table: type, distribution: str, weights: Callable[[Any], np.ndarray]
) -> None:
    rng = np.random.default_rng(1)
    dataset = part(np.stack([rng.integers(1, N_USERS, 400), (1 + 36 * rng.random(400) ** 2).astype(int)], 1))
    sampler = PairSampler(["train"], [dataset], distribution, 0.5).set_phase("train")
    np.random.seed(8)
    users = np.repeat(np.arange(1, N_USERS), 2000)
    items = sampler.sample_by_user_ids(users, users, 1).numpy()
    used = pairs_of(dataset)
    assert not used & set(zip(users.tolist(), items.tolist()))
    for user in (1, 2, 25, N_USERS - 1):
        counts = np.bincount(items[users == user], minlength=N_ITEMS)
        allowed = [item for item in range(1, N_ITEMS) if (user, item) not in used]
        chances = weights(dataset)[allowed] / weights(dataset)[allowed].sum()
        assert 1 < len(allowed) < N_ITEMS - 1 and counts[allowed].sum() == 2000
        drawable = chances > 0
        statistic = np.sum((counts[allowed] - 2000 * chances)[drawable] ** 2 / (2000 * chances[drawable]))
        assert statistic < chi2.ppf(1 - 1e-4, drawable.sum() - 1)
        assert not counts[allowed][~drawable].any()


def test_used_pairs(parts: list[Any]) -> None:
    shared = PairSampler(PHASES, parts)
    theirs = Sampler(PHASES, parts)
    used: set[tuple[int, int]] = set()
    for phase, dataset in zip(PHASES, parts):
        sampler = shared.set_phase(phase)
        used |= pairs_of(dataset)
        assert sampler.used_keys.dtype == np.int64
        assert sampler.used_keys.tolist() == sorted(user * N_ITEMS + item for user, item in used)
        assert sampler.phase == phase
        assert sampler.used_ids.tolist() == theirs.set_phase(phase).used_ids.tolist()
    assert list(shared.used_ids) == list(theirs.used_ids)
    assert all(shared.used_ids[phase].tolist() == theirs.used_ids[phase].tolist() for phase in PHASES)


def test_a_phase_left_out(parts: list[Any], table: type) -> None:
    train, valid, test = map(pairs_of, parts)
    sampler = PairSampler(PHASES, parts).set_phase("test", without=["valid"])
    theirs = Sampler(["train", "test"], [parts[0], parts[2]]).set_phase("test")
    assert valid & (train | test) and valid - train - test  # some count all the same, some do not
    assert sampler.used_ids.tolist() == theirs.used_ids.tolist()
    drawn = []
    for one in (theirs, sampler):
        np.random.seed(0)
        drawn.append(one.sample_by_user_ids(np.arange(N_USERS), None, 20))
    assert torch.equal(*drawn)


def test_phases_share_no_cache(parts: list[Any]) -> None:
    train = PairSampler(PHASES, parts).set_phase("train")
    first = train.sample_by_user_ids([1, 2], None, 1), train.used_ids
    test = train.set_phase("test")
    assert first[1].tolist() != test.used_ids.tolist()
    users = np.repeat(np.arange(1, N_USERS), 100)
    drawn = test.sample_by_user_ids(users, None, 1)
    assert not set(zip(users.tolist(), drawn.tolist())) & pairs_of(parts[2])


def test_sampling_makes_no_sets(parts: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PairSampler, "_used_sets", lambda self: pytest.fail("made the sets"))
    PairSampler(PHASES, parts, "popularity").set_phase("valid").sample_by_user_ids([1, 2, 3], None, 4)


def test_without_a_phase_nothing_is_used(parts: list[Any]) -> None:
    sampler = PairSampler(PHASES, parts)
    with pytest.raises(ValueError, match="set_phase"):
        _ = sampler.used_keys


@pytest.mark.parametrize("kind", [_BitTable, _SortedPairs])
@pytest.mark.parametrize("n_pairs", [0, 1, 2, 7, 400, 3000])
def test_lookup(kind: type, n_pairs: int) -> None:
    rng = np.random.default_rng(n_pairs)
    n_users, n_items = 61, 53
    keys = np.sort(rng.permutation(n_users * n_items)[:n_pairs])
    users, items = np.divmod(np.arange(n_users * n_items), n_items)
    order = rng.permutation(len(users))
    found = kind(keys, n_users, n_items).contains(users[order], items[order])
    assert found.tolist() == np.isin(np.arange(len(users)), keys)[order].tolist()
    assert len(kind(keys, n_users, n_items).contains(users[:0], items[:0])) == 0


def message_of(make: Callable[[], Any]) -> str:
    with pytest.raises(ValueError) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_a_user_with_every_item(parts: list[Any], distribution: str) -> None:
    rest = [(7, item) for item in (2, 5, N_ITEMS - 2, N_ITEMS - 1)]
    messages = {
        message_of(lambda k=kind: k(PHASES, [*parts[:2], part(rest)], distribution)) for kind in (Sampler, PairSampler)
    }
    assert len(messages) == 1 and "interacted with all items" in messages.pop()
    PairSampler(PHASES, [*parts[:2], part(rest[1:])], distribution)  # one is left


@pytest.mark.parametrize("user", [-1, -N_USERS, N_USERS, N_USERS + 100])
def test_unknown_users(parts: list[Any], user: int) -> None:
    sampler = PairSampler(PHASES, parts).set_phase("train")
    for users in ([user], [1, user, 10**6]):
        assert (
            message_of(lambda u=users: sampler.sample_by_user_ids(np.array(u), None, 1))
            == f"user_id [{user}] not exist."
        )


def test_unknown_phases(parts: list[Any]) -> None:
    shared = PairSampler(PHASES, parts)
    assert message_of(lambda: shared.set_phase("other")) == "Phase [other] not exist."
    assert "same length" in message_of(lambda: PairSampler(PHASES, parts[:2]))


def test_more_pairs_than_int64_numbers() -> None:
    assert "int64" in message_of(lambda: PairSampler("train", part([(1, 1)], 2**40, 2**23)))


def test_ids_beyond_32_bits() -> None:
    """The keys of 3e5 users and 1e5 items need 35 bits."""
    pairs = [(299_999, item) for item in range(1, 90_000)] + [(1, 99_999), (4_296, 67_296)]
    shared = PairSampler("train", part(pairs, 300_000, 100_000))
    sampler = shared.set_phase("train")
    assert isinstance(sampler._table, _SortedPairs)
    assert sampler.used_keys.max() == 299_999 * 100_000 + 89_999
    assert sampler.sample_by_user_ids([299_999], None, 2000).min() >= 90_000
