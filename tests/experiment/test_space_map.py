"""Maps of items, and how far two spaces agree."""

from __future__ import annotations

import numpy as np
import pytest

from recbole_rlmrec.experiment import space_map
from recbole_rlmrec.experiment.space_map import agreement, map_of, sample_of


def test_agreement_is_the_share_of_common_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_map, "N_NEAREST", 3)
    first, second = np.random.default_rng(0).normal(size=(2, 20, 5))

    def nearest(table: np.ndarray, row: int) -> set[int]:
        cosines = table @ table[row] / np.linalg.norm(table, axis=1)
        return set([each for each in np.argsort(-cosines) if each != row][:3])

    expected = np.mean([len(nearest(first, row) & nearest(second, row)) / 3 for row in range(20)])
    assert agreement(first, second) == pytest.approx(expected)
    assert agreement(first, 3 * first) == 1.0


def test_a_map_keeps_groups_apart() -> None:
    """The same each time; rows of one of two groups lie nearer to each other than to the others."""
    rng = np.random.default_rng(1)
    table = np.repeat(np.eye(2, 8), 15, axis=0) + rng.normal(size=(30, 8)) / 20
    found = map_of(table)
    np.testing.assert_array_equal(found, map_of(2 * table))
    centres = found[:15].mean(axis=0), found[15:].mean(axis=0)
    assert all(np.linalg.norm(place - centres[0]) < np.linalg.norm(place - centres[1]) for place in found[:15])


def test_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_map, "MOST_ITEMS", 12)
    may_be = np.arange(50) % 2 == 1
    found = sample_of(may_be)
    assert len(set(found.tolist())) == 12 and may_be[found].all() and (np.diff(found) > 0).all()
    assert found.tolist() == sample_of(may_be).tolist()
    assert not len(sample_of(np.arange(50) < 9))
