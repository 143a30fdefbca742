"""Genres of lists beside those of what users had."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recbole_rlmrec.experiment import genres as module
from recbole_rlmrec.experiment.genres import Genres, genre_divergence, genre_field, genres_of
from recbole_rlmrec.experiment.lists import RankedLists
from recbole_rlmrec.text.corpus import Item

OF_ITEMS = {"a": ("Crime",), "b": ("Crime", "Drama"), "c": ("Drama",), "d": (), "e": ("War", "Drama", "Crime")}
TOKENS = ["[PAD]", *OF_ITEMS, "without text"]
#: Training items of each user.
HAD = {1: ("a", "b"), 2: ("c",), 3: ("d",), 4: ("b", "d", "e")}
LISTS = {1: ("c", "e"), 2: ("b", "c"), 3: ("a", "b"), 4: ("d", "without text")}


def genres(field: str = "class") -> Genres:
    found = genres_of({token: Item(token, attributes={field: names}) for token, names in OF_ITEMS.items()}, TOKENS)
    assert found is not None
    return found


def training() -> csr_matrix:
    pairs = [(user, TOKENS.index(item)) for user, items in HAD.items() for item in items]
    return csr_matrix((np.ones(len(pairs)), tuple(zip(*pairs))), shape=(5, len(TOKENS)))


def lists(users: tuple[int, ...] = (1, 2, 3, 4)) -> RankedLists:
    ids = np.array([[TOKENS.index(item) for item in LISTS[user]] for user in users])
    nothing = np.zeros(0, dtype=int)
    return RankedLists(np.array(users), ids, ids, nothing, nothing, nothing, nothing)


def shares(items: tuple[str, ...]) -> dict[str, float]:
    found: dict[str, float] = {}
    for names in (OF_ITEMS.get(item, ()) for item in items):
        for name in names:
            found[name] = found.get(name, 0) + 1 / len(names)
    return {name: value / sum(found.values()) for name, value in found.items()}


@pytest.mark.parametrize("block", [1, 2**22])
def test_the_divergence_is_its_formula(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users 3 and 4 are left out: nothing is known of what one had, and of the other's list."""
    monkeypatch.setattr(module, "_BLOCK", block)
    expected = []
    for user in (1, 2):
        p, q = shares(HAD[user]), shares(LISTS[user])
        expected.append(sum(p[name] * np.log(p[name] / (0.99 * q.get(name, 0) + 0.01 * p[name])) for name in p))
    assert genre_divergence(lists(), training(), genres()) == pytest.approx(np.mean(expected), rel=1e-6)
    assert genre_divergence(lists((3, 4)), training(), genres()) is None


def test_a_list_of_the_same_genres_does_not_diverge() -> None:
    same = replace(lists((1,)), lists=np.array([[TOKENS.index(item) for item in HAD[1]]]))
    assert genre_divergence(same, training(), genres()) == pytest.approx(0, abs=1e-7)


def test_what_is_known() -> None:
    found = genres("Genres")
    assert found.names == ("Crime", "Drama", "War") and found.main.tolist() == [-1, 0, 0, 1, -1, 2, -1]
    assert found.shares.toarray().sum(axis=1).tolist() == pytest.approx([0, 1, 1, 1, 0, 1, 0])


@pytest.mark.parametrize(("fields", "expected"), [(("tags",), None), (("category", "Genre"), "Genre"), ((), None)])
def test_the_field(fields: tuple[str, ...], expected: str | None) -> None:
    items = {"a": Item("a", attributes=dict.fromkeys(fields, ("x",)))}
    assert genre_field(items) == expected
    assert (genres_of(items, TOKENS) is None) == (expected is None)
