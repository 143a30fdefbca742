"""From texts to a model's space: what represents users and items that have a text and no interaction."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.arrays import tables_of
from recbole_rlmrec.model.backbone.contract import Backbone
from recbole_rlmrec.model.scores import evaluating
from recbole_rlmrec.ops.ridge import FittedRidge, fit_ridge
from recbole_rlmrec.recommend.scale import N_USERS, Fold, factor_of_places
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import count

#: Known nodes are held out in so many folds, drawn by this seed; a fold has two at least.
_N_FOLDS, _SEED = 5, 0
#: Penalties of the map from texts to representations, of which the one with the least error on held-out nodes is taken.
#: The texts' vectors have length 1.
_PENALTIES = (0.1, 1.0, 10.0, 100.0)


#: Known items below which the scale of new ones is hardly known.
FEW = 100

_logger = logging.getLogger(__name__)


class Known(NamedTuple):
    """The users or the items that have a text and a training interaction.

    Attributes:
        ids: internal ids, ascending, int64 ``[m]``.
        texts: directions of their semantic embeddings, ``[m, D]``.
        representations: by the model, ``[m, d]``.
    """

    ids: Tensor
    texts: Tensor
    representations: Tensor


class TextMap:
    """Represents users and items by their texts, so that they are scored together with those that were trained.

    A ridge regression from the embeddings of texts to representations is fitted on each side's known nodes. It is used
    as well for models that have a map of their own from texts, a contrastive alignment's projector or AlphaRec's
    perceptron: these have seen the texts of all known nodes, and nothing is propagated to a new one, so that others are
    mapped worse and get too few places (``results/cold-items``).

    Representations of items are multiplied by a factor that brings the scores to one scale: known items that are held
    out from the regression get the share of the first 20 places that their interactions would give
    (:func:`~recbole_rlmrec.recommend.scale.factor_of_places`). A user's scale changes no list.

    Args:
        model: the trained model.
        known: the nodes that the maps are fitted on, by side.
        training: user and item of each training interaction, internal ids, int64 ``[n]`` each.
        n_held_out: validation interactions of each item, ``[items]``.
    """

    def __init__(
        self, model: Backbone, known: Mapping[Side, Known], training: tuple[Tensor, Tensor], n_held_out: Tensor
    ) -> None:
        self._model, self._known, self._training, self._n_held_out = model, known, training, n_held_out
        self._fitted: dict[Side, FittedRidge] = {}
        #: D, length of a semantic embedding.
        self.dimension = known["item"].texts.shape[1]

    def items(self, vectors: np.ndarray | Tensor) -> Tensor:
        """Return the representations of items, ``[n, d]``, on the model's device.

        Args:
            vectors: semantic embeddings of their texts, ``[n, D]``; a row of zeros, a text that says nothing, is
                represented by zeros.

        Raises:
            DataError: the vectors have another length than the dataset's embeddings, or too few items are known.
        """
        given = self._given(vectors)
        return self._map("item").map(normalize(given)) * self.factor * given.any(dim=1, keepdim=True)

    def users(self, vectors: np.ndarray | Tensor) -> Tensor:
        """Return the representations of users; see :meth:`items`."""
        given = self._given(vectors)
        return self._map("user").map(normalize(given)) * given.any(dim=1, keepdim=True)

    @cached_property
    def factor(self) -> float:
        """What the regression's representations of items are multiplied by.

        Of few items the first 20 places are most of them, and say nothing of a scale: the lengths do instead.
        """
        items = self._known["item"]
        if len(items.ids) < FEW:
            mapped = self._map("item").held_out.norm(dim=1).mean()
            return float(items.representations.norm(dim=1).mean() / mapped.clamp(min=1e-12))
        place = torch.full((len(self._n_held_out),), -1)
        place[items.ids] = torch.arange(len(items.ids))
        users, places = self._training[0], place[self._training[1]]
        users, places = users[places >= 0], places[places >= 0]
        n_seen = torch.bincount(places, minlength=len(items.ids))
        n_held_out = self._n_held_out[items.ids]
        folds = []
        for fold in self._folds["item"]:
            new = int((n_seen[fold] + n_held_out[fold]).sum())
            others = int(n_held_out.sum() - n_held_out[fold].sum())
            # Without validation nothing says what lists are to find of the others: each item counts the same.
            share = new / (new + others) if others else len(fold) / len(items.ids)
            folds.append(Fold(fold.to(items.texts.device), share))
        everyone = torch.unique(users)
        some = everyone[torch.linspace(0, len(everyone) - 1, min(N_USERS, len(everyone))).long()]
        row = torch.full((int(everyone.max()) + 1,), -1)
        row[some] = torch.arange(len(some))
        is_some = row[users] >= 0
        device = items.texts.device
        seen = row[users[is_some]].to(device), places[is_some].to(device)
        with evaluating(self._model):
            table, _ = tables_of(self._model)
            rows = table[some.to(table.device)].float()
            return factor_of_places(rows, items.representations, self._map("item").held_out, seen, folds)

    @cached_property
    def _folds(self) -> dict[Side, list[Tensor]]:
        return {side: _folds_of(len(known.ids), side) for side, known in self._known.items()}

    def _map(self, side: Side) -> FittedRidge:
        if side not in self._fitted:
            known = self._known[side]
            folds = [fold.to(known.texts.device) for fold in self._folds[side]]
            self._fitted[side] = fit_ridge(known.texts, known.representations, _PENALTIES, folds)
        return self._fitted[side]

    def _given(self, vectors: np.ndarray | Tensor) -> Tensor:
        """Return vectors as float32 on the model's device.

        Raises:
            DataError: they have another length.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise DataError(
                f"The vectors have the shape {list(vectors.shape)}, the dataset's semantic embeddings have dimension "
                f"{self.dimension}. Expected [n, {self.dimension}]: encode the texts with the dataset's encoder."
            )
        return torch.as_tensor(vectors).to(self._known["item"].texts.device).float()


def _folds_of(n_known: int, side: Side) -> list[Tensor]:
    """Return the places of each fold, drawn at random.

    Raises:
        DataError: too few nodes are known.
    """
    if n_known < 2 * _N_FOLDS:
        raise DataError(
            f"{count(n_known, side)} with both a semantic embedding and a training interaction; to map texts to "
            f"representations takes {2 * _N_FOLDS} at least. Make more profiles with build-semantics."
        )
    order = torch.randperm(n_known, generator=torch.Generator().manual_seed(_SEED))
    return list(order.chunk(_N_FOLDS))


def text_map_of(model: Any, dataset: Any, as_new: tuple[np.ndarray, np.ndarray] | None = None) -> TextMap:
    """Return what represents texts in a model's space.

    Args:
        model: a trained model with representations.
        dataset: of the model, the whole one, after it was split.
        as_new: internal ids of known items, ascending, int64 ``[m]``, and semantic embeddings of the texts that they
            would have as new items, ``[m, D]``. Profiles say what an item's users choose besides, which nothing says of
            a new item: a map that is fitted on such texts gives new items too few places. If not given, the map is
            fitted on the dataset's embeddings.

    Raises:
        SettingError: the model has no representations.
        DataError: the dataset has no semantic embeddings, or none of a node with a training interaction.
    """
    with evaluating(model):
        tables = tables_of(model)
    if not isinstance(dataset, RLMRecDataset) or not dataset.parts:
        raise SettingError(
            f"'{dataset.dataset_name}' has no semantic embeddings, which texts are compared with: give the dataset "
            "that load_model returns."
        )
    training, held_out = dataset.parts[:2]
    pairs = [torch.as_tensor(training.inter_feat[field]).long() for field in (dataset.uid_field, dataset.iid_field)]
    known: dict[Side, Known] = {}
    for side, table, ids in zip(SIDES, tables, pairs):
        found, texts = known_nodes(dataset, side, ids) if side == "user" or as_new is None else as_new
        if not len(found):
            raise DataError(
                f"No {side} of '{dataset.dataset_name}' has both a semantic embedding and a training interaction, so "
                "texts cannot be compared with any. Encode the profiles again with build-semantics."
            )
        if side == "item" and len(found) < FEW:
            _logger.warning(
                f"Texts of new items are compared with {count(len(found), 'known item')}; of fewer than {FEW} the "
                "places that new items get in lists say little."
            )
        directions = normalize(torch.from_numpy(texts).to(table.device))
        rows = torch.from_numpy(found)
        known[side] = Known(rows, directions, table[rows.to(table.device)].float())
    items = torch.as_tensor(held_out.inter_feat[dataset.iid_field]).long()
    return TextMap(model, known, (pairs[0], pairs[1]), torch.bincount(items, minlength=dataset.item_num))


def known_nodes(dataset: Any, side: Side, ids: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the nodes of a side that have both a semantic embedding and a training interaction.

    Args:
        dataset: the whole one.
        side: ``user`` or ``item``.
        ids: internal id of the side's node in each training interaction, int64 ``[n]``.

    Returns:
        Their internal ids, ascending, int64 ``[m]``, and embeddings, ``[m, D]``.
    """
    joined = dataset.semantic_embedding(side)
    is_trained = torch.bincount(ids, minlength=len(joined.covered)).numpy() > 0
    found = np.flatnonzero(is_trained & joined.covered)
    return found, joined.take(found)
