"""Scores of a trained model: some users, some items, without gradients, a block at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch import Tensor

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.base import GraphBackbone

#: So many pairs are scored at a time by a model that scores pairs only: each of them takes all the model's layers.
_PAIRS = 2**16

#: So many users' scores are compared with products; rounding may make them differ by this share of the longest vectors'
#: product.
_COMPARED, _ROUNDING = 8, 1e-5

#: Models whose scores depend on the user and the item alone, and on their features.
_OF_PAIRS = (ModelType.GENERAL, ModelType.TRADITIONAL, ModelType.KNOWLEDGE, ModelType.CONTEXT)


class Scorer(ABC):
    """Scores users by the items that it was made for, called columns.

    Attributes:
        n_columns: number of columns.
        bytes_per_score: what a score takes while a block is computed.
        cuts_columns: whether some of the columns can be scored without the others.
    """

    n_columns: int
    bytes_per_score: int
    cuts_columns: bool

    @abstractmethod
    def block(self, users: Tensor, first: int, last: int) -> Tensor:
        """Return scores, ``[B, last - first]``, which the caller may write to; the next call may use their memory.

        Args:
            users: ids, ``[B]``, on the CPU.
            first: column to begin with.
            last: column to end before.
        """


class ProductScorer(Scorer):
    """Products of representations.

    Args:
        users: of all users, ``[U, d]``.
        items: of the columns, ``[n_columns, d]``.
    """

    bytes_per_score = 8
    cuts_columns = True

    def __init__(self, users: Tensor, items: Tensor) -> None:
        self._users, self._items = users, items
        self._memory = items.new_empty(0)
        self.n_columns = len(items)

    def block(self, users: Tensor, first: int, last: int) -> Tensor:
        """Return products of the users' rows and the columns'."""
        rows, size = self._users[users.to(self._users.device)], len(users) * (last - first)
        if len(self._memory) < size:  # to ask the system for new pages takes as long as half of the product
            self._memory = self._items.new_empty(size)
        return torch.mm(rows, self._items[first:last].T, out=self._memory[:size].view(len(users), -1))


class CalledScorer(Scorer):
    """What a model's ``full_sort_predict`` returns, or ``predict`` of each pair where it has none.

    Both get the features of users and items that the dataset has, as in RecBole's evaluation.

    Args:
        model: any model of pairs.
        dataset: of the model.
        items: ids of the columns, ascending, ``[n_columns]``; None for all but ``[PAD]``.
    """

    bytes_per_score = 16
    cuts_columns = False

    def __init__(self, model: Any, dataset: Any, items: Tensor | None) -> None:
        self._model, self._dataset = model, dataset
        self._items = torch.arange(1, dataset.item_num) if items is None else items
        self._columns = slice(1, None) if items is None else items.to(model.device)
        self.n_columns = len(self._items)

    def block(self, users: Tensor, first: int, last: int) -> Tensor:
        """Return what the model says of all columns; those outside of ``first`` and ``last`` are cut off."""
        asked = self._dataset.join(Interaction({self._dataset.uid_field: users})).to(self._model.device)
        try:
            found: Tensor = self._model.full_sort_predict(asked)
        except NotImplementedError:
            return self._of_pairs(asked)[:, first:last]
        return found.view(len(users), -1)[:, self._columns][:, first:last]

    def _of_pairs(self, users: Interaction) -> Tensor:
        """Return the scores of pairs, ``[B, n_columns]``, some items at a time."""
        n_users = len(users)
        features = self._dataset.get_item_feature()
        found = []
        for items in self._items.split(max(1, _PAIRS // n_users)):
            pairs = users.repeat_interleave(len(items))
            pairs.update(features[items].to(self._model.device).repeat(n_users))
            found.append(self._model.predict(pairs).view(n_users, len(items)))
        return torch.cat(found, dim=1)


def scores_pairs(model: Any) -> bool:
    """Return whether a model, or a class of models, scores pairs of a user and an item, and not sequences, say."""
    return model.type in _OF_PAIRS


def require_pairs(model: Any) -> None:
    """Check that a model scores pairs of a user and an item.

    Raises:
        SettingError: it scores something else, such as sequences.
    """
    if not scores_pairs(model):
        raise SettingError(
            f"{type(model).__name__} does not score pairs of a user and an item alone, so there is no table of its "
            "scores. Models of RecBole's general recommenders have one."
        )


def scorer_of(model: Any, dataset: Any, items: Tensor | None = None) -> Scorer:
    """Return what scores users by some items, with the numbers of the model's evaluation.

    Within :func:`evaluating`, also when it is used.

    Args:
        model: any model that scores pairs of a user and an item.
        dataset: of the model.
        items: ids, ascending, ``[n_columns]``; None for all but ``[PAD]``.

    Raises:
        SettingError: the model scores something else.
    """
    require_pairs(model)
    if _ranks_by_products(model):
        users, table = model.representation()
        return ProductScorer(users, table[1:] if items is None else table[items.to(table.device)])
    return CalledScorer(model, dataset, items)


def _ranks_by_products(model: Any) -> bool:
    """Return whether a model is of a class that ranks by products: one that does not has its own method."""
    return isinstance(model, GraphBackbone) and type(model).full_sort_predict is GraphBackbone.full_sort_predict


def scores_are_products(model: Any, dataset: Any, users: Tensor, items: Tensor) -> bool:
    """Return whether a model scores by inner products of its representations; within :func:`evaluating`.

    Of a class that does not say so, such as one of RecBole's with an alignment, the scores of some users are compared.

    Args:
        model: any model that scores pairs of a user and an item.
        dataset: of the model.
        users: representations, ``[U, d]``.
        items: the same, ``[I, d]``.
    """
    if _ranks_by_products(model):
        return True
    some = torch.linspace(1, len(users) - 1, min(len(users) - 1, _COMPARED)).long()
    scores = CalledScorer(model, dataset, None).block(some, 0, len(items) - 1)
    rows = users[some.to(users.device)]
    # What rounding makes of a product is small beside the product of the lengths. Where NaN is, nothing differs.
    largest = rows.norm(dim=1).max() * items[1:].norm(dim=1).max()
    return not bool(((rows @ items[1:].T - scores).abs() > _ROUNDING * largest).any())


def require_products(model: Any, dataset: Any, tables: tuple[Tensor, Tensor], consequence: str) -> None:
    """Check that a model scores by inner products of its representations; see :func:`scores_are_products`.

    Args:
        model: any model that scores pairs of a user and an item.
        dataset: of the model.
        tables: representations of users and items.
        consequence: what follows if it does not, for the message.

    Raises:
        SettingError: it does not.
    """
    if not scores_are_products(model, dataset, *tables):
        raise SettingError(
            f"{type(model).__name__} scores a user and an item by something else than the inner product of their "
            f"representations, {consequence}"
        )


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients; at the end each part of it is in its mode again."""
    modes = [(part, part.training) for part in model.modules()]
    is_training = any(mode for _, mode in modes)
    if is_training:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        if is_training:
            model.train()  # which also makes it forget what it computed in evaluation mode
            for part, mode in modes:
                part.training = mode
