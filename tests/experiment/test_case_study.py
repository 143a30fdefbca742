"""Users whom alignment brings together, against slow loops."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recbole_rlmrec.experiment import case_study
from recbole_rlmrec.experiment.case_study import LEAST, N_PAIRS, Pair, brought_together, hops_between

USERS, ITEMS = 41, 120


def interactions(seed: int) -> csr_matrix:
    """Users with 1 to 9 items each, so that most pairs have none in common; ``[PAD]`` has none."""
    rng = np.random.default_rng(seed)
    table = np.zeros((USERS, ITEMS), dtype=np.float32)
    for user in range(1, USERS):
        table[user, rng.choice(np.arange(1, ITEMS), rng.integers(1, 10), replace=False)] = 1
    return csr_matrix(table)


def cosine(table: np.ndarray, user: int, other: int) -> float:
    return float(table[user] @ table[other] / np.linalg.norm(table[user]) / np.linalg.norm(table[other]))


def rank(table: np.ndarray, user: int, other: int) -> int:
    nearer = [
        each for each in range(1, USERS) if each != user and cosine(table, user, each) > cosine(table, user, other)
    ]
    return 1 + len(nearer)


def slow_pairs(base: np.ndarray, aligned: np.ndarray, training: csr_matrix) -> list[tuple[int, int, int, int]]:
    """The rule word by word: user, other, rank by the base, rank by the aligned model."""
    items = [set(training[user].indices.tolist()) for user in range(USERS)]
    known = [user for user in range(1, USERS) if len(items[user]) >= LEAST]
    found = []
    for user in known:
        far = [other for other in known if other != user and not items[user] & items[other]]
        if far:
            other = max(far, key=lambda each: cosine(aligned, user, each))
            found.append((user, other, rank(base, user, other), rank(aligned, user, other)))
    pairs: list[tuple[int, int, int, int]] = []
    for pair in sorted(found, key=lambda each: (each[3] - each[2], each[0], each[1])):
        if (
            len(pairs) < N_PAIRS
            and pair[2] > pair[3]
            and not {*pair[:2]} & {user for each in pairs for user in each[:2]}
        ):
            pairs.append(pair)
    return pairs


@pytest.mark.parametrize("block", [1, 2**22])
def test_pairs_are_those_of_the_rule(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_study, "_BLOCK", block)
    for seed in range(3):
        rng, training = np.random.default_rng(seed), interactions(seed)
        base, aligned = rng.normal(size=(USERS, 6)), rng.normal(size=(USERS, 8))
        found = brought_together(base, aligned, training)
        expected = slow_pairs(base, aligned, training)
        assert len(expected) == N_PAIRS
        assert [(pair.user, pair.other, pair.base_rank, pair.rank) for pair in found] == expected
        for pair in found:
            assert pair.similarity == pytest.approx(cosine(aligned, pair.user, pair.other), abs=1e-6)
            assert pair.base_similarity == pytest.approx(cosine(base, pair.user, pair.other), abs=1e-6)
            hops = hops_between(training, pair.user, pair.other)
            assert hops is None or hops > case_study.HOPS


def test_nobody_gains_where_nothing_changes() -> None:
    table = np.random.default_rng(1).normal(size=(USERS, 6))
    assert brought_together(table, table, interactions(1)) == []


def test_who_has_a_common_item_with_everybody_has_no_pair() -> None:
    training = interactions(2).toarray()
    training[1:, 1] = 1
    tables = np.random.default_rng(2).normal(size=(2, USERS, 6))
    assert brought_together(*tables, csr_matrix(training)) == []


def test_of_too_many_users_evenly_spaced_ones_are_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_study, "MOST_USERS", 2)
    training = interactions(0)
    known = np.flatnonzero(np.diff(training.indptr) >= LEAST)
    tables = np.random.default_rng(0).normal(size=(2, USERS, 6))
    assert {pair.user for pair in brought_together(*tables, training)} <= {known[0], known[-1]}


def test_hops() -> None:
    """User 1 - item 1 - user 2 - item 2 - user 3; user 4 alone."""
    training = csr_matrix(([1.0] * 5, ([1, 2, 2, 3, 4], [1, 1, 2, 2, 3])), shape=(5, 4))
    assert [hops_between(training, 1, other) for other in (1, 2, 3, 4)] == [0, 2, 4, None]


def test_a_gain_is_in_ranks() -> None:
    assert Pair(1, 2, 0.0, 0.5, 9, 4).gain == 5
