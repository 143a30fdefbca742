"""Genres: how far those of the lists are from those of what users had before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

from recbole_rlmrec.experiment.lists import RankedLists
from recbole_rlmrec.text.corpus import Item

#: Attributes of items that are genres, the first that there is.
GENRE_FIELDS = ("genre", "genres", "class", "category", "categories")

#: Of the mixture that keeps a divergence finite (Steck 2018, section 4.1).
_ALPHA = 0.01

#: So many shares of genres are held at a time.
_BLOCK = 2**22


@dataclass(frozen=True)
class Genres:
    """The genres of a dataset's items.

    Attributes:
        names: of the genres, the commonest first, ``[G]``.
        shares: of each item, by internal id, ``[I, G]``: 1 / n for each of its n genres; a row of zeros where none is
            known.
        main: the first genre that is named of each item, an index of ``names``, ``[I]``; -1 where none is known.
    """

    names: tuple[str, ...]
    shares: csr_matrix
    main: np.ndarray


def genre_field(items: Mapping[str, Item]) -> str | None:
    """Return the name of the attribute that is the items' genre; None where there is none.

    It is the first of :data:`GENRE_FIELDS` that any item has; upper and lower case do not matter.

    >>> genre_field({"1": Item("1", attributes={"release_year": ("1995",), "Genres": ("Crime", "Drama")})})
    'Genres'
    """
    fields = {name.lower(): name for item in items.values() for name in item.attributes}
    return next((fields[name] for name in GENRE_FIELDS if name in fields), None)


def genres_of(items: Mapping[str, Item], tokens: Sequence[str]) -> Genres | None:
    """Return the genres of items; None where nothing says them.

    Args:
        items: token -> what is known of it.
        tokens: original ids by internal id, ``[PAD]`` first.
    """
    field = genre_field(items)
    of_item = [items[token].attributes.get(field, ()) if field and token in items else () for token in tokens]
    times = Counter(genre for genres in of_item for genre in genres)
    if not times:
        return None
    names = tuple(sorted(times, key=lambda genre: (-times[genre], genre)))
    column = {genre: number for number, genre in enumerate(names)}
    rows = [row for row, genres in enumerate(of_item) for _ in genres]
    columns = [column[genre] for genres in of_item for genre in genres]
    values = [1 / len(genres) for genres in of_item for _ in genres]
    shares = csr_matrix((values, (rows, columns)), shape=(len(tokens), len(names)))
    main = np.array([column[genres[0]] if genres else -1 for genres in of_item])
    return Genres(names, shares, main)


def genre_divergence(lists: RankedLists, training: csr_matrix, genres: Genres) -> float | None:
    """Return how far the genres of lists are from those of what their users had, in nats; 0 where they are the same.

    That is the Kullback-Leibler divergence of Steck ("Calibrated recommendations", RecSys 2018), a mean over the test
    users: the sum over the genres of p log(p / q'), where p is the share of a genre among the training items of a user,
    each item's genres sharing it equally, q the same of the list, and q' = .99 q + .01 p. Items whose genres are not
    known are left out, and so are users of whose training items or list nothing is known; None where that is everybody.

    Args:
        lists: of a model.
        training: training interactions, ``[U, I]``, ones.
        genres: of the items.
    """
    n_users, n_genres = len(lists.users), len(genres.names)
    total, counted = 0.0, 0
    size = max(1, _BLOCK // n_genres)
    for first in range(0, n_users, size):
        block = slice(first, first + size)
        chosen = lists.lists[block]
        ends = np.arange(0, chosen.size + 1, chosen.shape[1])
        listed = csr_matrix((np.ones(chosen.size), chosen.ravel(), ends), shape=(len(chosen), genres.shares.shape[0]))
        before, after = (
            _as_shares((table @ genres.shares).toarray()) for table in (training[lists.users[block]], listed)
        )
        known = (before.sum(axis=1) > 0) & (after.sum(axis=1) > 0)
        p, q = before[known], after[known]
        ratio = np.divide(p, (1 - _ALPHA) * q + _ALPHA * p, out=np.ones_like(p), where=p > 0)
        total += float((p * np.log(ratio)).sum())
        counted += int(known.sum())
    return total / counted if counted else None


def _as_shares(amounts: np.ndarray) -> np.ndarray:
    """Return rows that sum to 1; those of zeros stay so."""
    sums = amounts.sum(axis=1, keepdims=True)
    return np.divide(amounts, sums, out=np.zeros_like(amounts), where=sums > 0)
