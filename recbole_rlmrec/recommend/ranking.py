"""The first k items of many users in blocks: never all scores at once, and equal scores in the order of the ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_rlmrec.data.loader import ItemLists
from recbole_rlmrec.model.scores import Scorer
from recbole_rlmrec.ops.topk import first_k, merged
from recbole_rlmrec.training.evaluation import not_finite

#: So many users at least are scored at a time where items can be cut instead: with fewer, all items' rows would be read
#: again and again.
_LEAST_USERS = 256
#: What a row of a list takes as text in a table, in bytes.
_ROW = 400
_MB = 10**6


class Ranked(NamedTuple):
    """The items of some users, one list after another.

    Attributes:
        users: ids, int64 ``[B]``.
        lengths: number of items of each list, ``[B]``.
        items: ids, int64 ``[sum of the lengths]``.
        scores: of these, float32.
    """

    users: np.ndarray
    lengths: np.ndarray
    items: np.ndarray
    scores: np.ndarray


class Ranking:
    """Ranks a scorer's items.

    Args:
        scorer: what scores them.
        k: length of a list; where fewer items are left, it is shorter.
        items: ids of the scorer's columns, ascending; None for all but ``[PAD]``.
        without: items by user that are left out; None for none.
        memory: bound of what a block takes, in MB; a model whose scores of one user take more takes more.
        name: of the model, for messages.
    """

    def __init__(
        self, scorer: Scorer, k: int, items: Tensor | None, without: ItemLists | None, memory: float, name: str
    ) -> None:
        self._scorer, self._k, self._without, self._name = scorer, k, without, name
        self._items = torch.arange(1, scorer.n_columns + 1) if items is None else items
        # Column of each item; -1 for one that is not among them.
        self._column = torch.full((int(self._items.max()) + 1,), -1)
        self._column[self._items] = torch.arange(scorer.n_columns)
        scores = max(1, int(memory * _MB / scorer.bytes_per_score))
        lists = int(memory * _MB / (_ROW * min(k, scorer.n_columns)))
        self._n_columns = scorer.n_columns
        if scorer.cuts_columns:
            self._n_columns = min(scorer.n_columns, max(1, scores // _LEAST_USERS))
        self.n_users = max(1, min(scores // self._n_columns, lists))

    def blocks(self, users: np.ndarray) -> Iterator[Ranked]:
        """Yield the lists of users, in their order, ``n_users`` at a time.

        Args:
            users: ids, int64 ``[n]``; a repeated one has its list each time.

        Raises:
            TrainingError: scores are NaN or infinite.
        """
        for first in range(0, len(users), self.n_users):
            yield self._ranked(torch.from_numpy(users[first : first + self.n_users]))

    def _ranked(self, users: Tensor) -> Ranked:
        rows, columns = self._left_out(users)
        n_left = self._scorer.n_columns - torch.bincount(rows, minlength=len(users))
        best: tuple[Tensor, Tensor] | None = None
        for first in range(0, self._scorer.n_columns, self._n_columns):
            last = min(first + self._n_columns, self._scorer.n_columns)
            scores = self._scorer.block(users, first, last)
            inside = (columns >= first) & (columns < last) if last - first < self._scorer.n_columns else slice(None)
            scores[rows[inside].to(scores.device), (columns[inside] - first).to(scores.device)] = -torch.inf
            found = first_k(scores, self._k)
            found = found[0], found[1] + first
            best = found if best is None else merged(best, found, self._k)
        assert best is not None, "there is a column"
        values, places = best[0].float().cpu(), best[1].cpu()
        lengths = n_left.clamp(max=self._k)
        is_listed = torch.arange(values.shape[1]) < lengths.unsqueeze(1)
        self._require_finite(values, is_listed)
        return Ranked(users.numpy(), lengths.numpy(), self._items[places[is_listed]].numpy(), values[is_listed].numpy())

    def _left_out(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return the rows and columns of the items to leave out."""
        if self._without is None:
            nothing = torch.empty(0, dtype=torch.int64)
            return nothing, nothing
        rows, items = self._without.of(users)
        is_known = items < len(self._column)
        rows, columns = rows[is_known], self._column[items[is_known]]
        return rows[columns >= 0], columns[columns >= 0]

    def _require_finite(self, values: Tensor, is_listed: Tensor) -> None:
        """Check what is listed: NaN and infinity come first, and minus infinity comes up where nothing else is left."""
        bad = ~torch.isfinite(values) & is_listed
        if bad.any():
            scores, users = (int(bad.sum()), int(is_listed.sum())), (int(bad.any(dim=1).sum()), len(bad))
            raise not_finite(self._name, "as it is", scores, users)
