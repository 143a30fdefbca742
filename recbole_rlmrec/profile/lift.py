"""What somebody chooses more often than popularity explains, counted over the training interactions.

A count is compared with the count to expect if everybody chose alike: ``lift = (count + 5) / (expected + 5)``. The five
that are added to both keep a single choice of something rare from being called a taste; where all is counted often, the
lift is the share of somebody's interactions divided by the share of all interactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp

_ADDED = 5.0
# An audience is what other people of an item chose: who chooses nearly everything says little of any of it, and takes
# time with the square of the choices.
_LONGEST_HISTORY = 1000
# What one person of an audience chose is that person's history.
_LEAST_OF_AUDIENCE = 2
_ROWS = 512  # items looked at together, which bounds the memory


class Choices:
    """The training interactions, counted; each pair of a user and an item once.

    Args:
        pairs: (user, item) tokens; items that are not among ``items`` are passed over.
        users: tokens of the users.
        items: tokens of the items.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], users: Iterable[str], items: Iterable[str]) -> None:
        # By token, so that nothing depends on the order of files.
        self._users = {token: row for row, token in enumerate(sorted(users))}
        self.items = sorted(items)
        item_rows = {token: row for row, token in enumerate(self.items)}
        n_items = max(len(self.items), 1)
        # One number a pair: a list of pairs of a large dataset would take more memory than all the rest.
        codes = np.fromiter(
            (
                self._users[user] * n_items + item_rows[item]
                for user, item in pairs
                if user in self._users and item in item_rows
            ),
            dtype=np.int64,
        )
        rows, columns = np.divmod(np.unique(codes), n_items)
        shape = (len(self._users), len(self.items))
        self._chosen = sp.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=shape)
        self._values: dict[str, tuple[list[str], sp.csr_matrix]] = {}

    def popularity(self) -> dict[str, int]:
        """Return item token -> number of users who chose it."""
        return dict(zip(self.items, _sums(self._chosen, axis=0).astype(int).tolist()))

    def count_values(self, name: str, values: Mapping[str, Sequence[str]]) -> None:
        """Take an attribute of items into account.

        Args:
            name: of the attribute.
            values: item token -> its values, each once; items without one may be left out.
        """
        words = sorted({value for of_item in values.values() for value in of_item})
        columns = {value: column for column, value in enumerate(words)}
        coded = [(row, columns[value]) for row, token in enumerate(self.items) for value in values.get(token, ())]
        rows, found = np.array(coded, dtype=np.int64).reshape(-1, 2).T
        shape = (len(self.items), len(words))
        self._values[name] = words, sp.csr_matrix((np.ones(len(rows)), (rows, found)), shape=shape)

    def of_users(self, limit: int) -> dict[str, dict[str, list[str]]]:
        """Return what users choose more than others do.

        Args:
            limit: values of an attribute at most.

        Returns:
            User token -> attribute -> values whose lift is above 1, the highest first; ties go to the more frequent of
            the user's, then to the alphabet. Users and attributes without such a value are left out.
        """
        sizes = _sums(self._chosen, axis=1)
        found: dict[str, dict[str, list[str]]] = {}
        tokens = list(self._users)
        for name, (words, has_value) in self._values.items():
            shares = _shares(self._chosen, has_value)
            for row, columns in _best(self._chosen @ has_value, sizes, shares, limit, least=1):
                found.setdefault(tokens[row], {})[name] = [words[column] for column in columns]
        return found

    def of_audiences(self, limit: int, *, is_shown: Callable[[str], bool]) -> dict[str, Audience]:
        """Return what the users of each item choose besides it, more than others do.

        Users of more than 1,000 items are left aside.

        Args:
            limit: values of an attribute, or items, at most.
            is_shown: whether an item can be named.

        Returns:
            Item token -> its audience's choices, of the items that at least two users chose.
        """
        chosen = self._chosen[np.flatnonzero(_sums(self._chosen, axis=1) <= _LONGEST_HISTORY)]
        by_item = sp.csr_matrix(chosen.T)
        others = _sums(chosen, axis=1) - 1.0
        sizes = by_item @ others
        shown = np.array([is_shown(token) for token in self.items], dtype=bool)
        total = max(chosen.nnz, 1)
        popular = _sums(chosen, axis=0)
        found: dict[str, Audience] = {}
        of_values = [
            (name, words, has_value, chosen @ has_value, _shares(chosen, has_value))
            for name, (words, has_value) in self._values.items()
        ]
        for start in range(0, len(self.items), _ROWS):
            block = slice(start, start + _ROWS)
            part = by_item[block]
            for name, words, has_value, counts, shares in of_values:
                # What an item itself counts for is taken off: its audience chose it by definition.
                own = sp.diags(popular[block]) @ has_value[block]
                for row, columns in _best(part @ counts - own, sizes[block], shares, limit, _LEAST_OF_AUDIENCE):
                    values = [words[column] for column in columns]
                    found.setdefault(self.items[start + row], Audience()).values[name] = values
            together = (part @ chosen).tocoo()
            others_shown = shown[together.col] & (together.col != together.row + start)
            together = sp.csr_matrix(
                (together.data[others_shown], (together.row[others_shown], together.col[others_shown])),
                shape=together.shape,
            )
            for row, columns in _best(together, sizes[block], popular / total, limit, _LEAST_OF_AUDIENCE):
                found.setdefault(self.items[start + row], Audience()).items.extend(self.items[c] for c in columns)
        return found


class Audience:
    """What the users of an item choose besides it, more than others do.

    Attributes:
        values: attribute -> values, the highest lift first.
        items: tokens of other items, the highest lift first.
    """

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self.items: list[str] = []


def _shares(chosen: Any, has_value: Any) -> np.ndarray:
    """Return the share of the interactions whose item has each value, float64 ``[values]``."""
    shares: np.ndarray = (_sums(chosen, axis=0) @ has_value) / max(chosen.nnz, 1)
    return shares


def _best(counts: Any, sizes: np.ndarray, shares: np.ndarray, limit: int, least: int) -> Iterable[tuple[int, Any]]:
    """Yield the rows that have a column of a lift above 1, with the columns of the highest.

    Args:
        counts: sparse ``[rows, columns]``.
        sizes: ``[rows]``, of how many interactions the counts of a row are.
        shares: ``[columns]``, a column's share of all interactions.
        limit: columns of a row at most.
        least: count of a column at least.
    """
    found = counts.tocsr().tocoo()  # by row
    often = found.data >= least
    rows, columns, data = found.row[often], found.col[often], found.data[often]
    lift = (data + _ADDED) / (sizes[rows] * shares[columns] + _ADDED)
    # A value that all items have is expected as often as it is counted, to the last bit or nearly.
    above = lift > 1.0 + 1e-9
    rows, columns, data, lift = rows[above], columns[above], data[above], lift[above]
    start = 0
    for end in [*(np.flatnonzero(np.diff(rows)) + 1).tolist(), len(rows)] if len(rows) else []:
        row = slice(start, end)
        best = np.arange(start, end)
        if len(best) > limit:  # sorting all of a long row takes long
            best = best[lift[row] >= np.partition(lift[row], -limit)[-limit]]
        best = best[np.lexsort((columns[best], -data[best], -lift[best]))]
        yield int(rows[start]), columns[best[:limit]].tolist()
        start = end


def _sums(matrix: Any, axis: int) -> np.ndarray:
    return np.asarray(matrix.sum(axis=axis), dtype=np.float64).ravel()
