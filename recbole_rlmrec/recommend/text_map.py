"""From texts to a model's space: what represents users and items that have a text and no interaction."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.arrays import tables_of
from recbole_rlmrec.model.backbone.contract import Backbone
from recbole_rlmrec.model.scores import evaluating
from recbole_rlmrec.ops.ridge import FittedRidge, fit_ridge
from recbole_rlmrec.recommend.scale import N_USERS, Fold, factor_of_places
from recbole_rlmrec.sides import SIDES, Side

#: So many users nearest by text say what represents a user.
N_NEIGHBOURS = 10
#: So many cosines are computed at a time.
_BLOCK = 2**24
#: Known items are held out in so many folds, drawn by this seed; a fold has two items at least.
_N_FOLDS, _SEED = 5, 0
#: Penalties of the map from texts to representations, of which the one with the least error on held-out items is taken.
#: The texts' vectors have length 1.
_PENALTIES = (0.1, 1.0, 10.0, 100.0)


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

    **Items**: a ridge regression from the text's embedding to the representation, fitted on the known items, times a
    factor that brings the scores to one scale: known items that are held out from the regression get the share of the
    first 20 places that their interactions would give (:func:`~recbole_rlmrec.recommend.scale.factor_of_places`). A
    model that computes its items from texts says itself what represents them.

    **Users**: the projection of a contrastive alignment; without one, the mean of the nearest users' representations.
    A user's scale changes no list.

    Args:
        model: the trained model.
        known: those that the maps are fitted on, by side.
        training: user and item of each training interaction, internal ids, int64 ``[n]`` each.
        n_held_out: validation interactions of each item, ``[items]``.
    """

    def __init__(
        self, model: Backbone, known: Mapping[Side, Known], training: tuple[Tensor, Tensor], n_held_out: Tensor
    ) -> None:
        self._model, self._known, self._training, self._n_held_out = model, known, training, n_held_out
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
        given = self._given("item", vectors)
        with evaluating(self._model):
            found = self._model.items_of_texts(given)
            if found is None:
                found = self._fitted.map(normalize(given)) * self.factor
        return found * given.any(dim=1, keepdim=True)

    def users(self, vectors: np.ndarray | Tensor) -> Tensor:
        """Return the representations of users; see :meth:`items`."""
        given = self._given("user", vectors)
        projector = self._model.text_projector if isinstance(self._model, Alignment) else None
        with evaluating(self._model):
            found = self._nearest(given) if projector is None else projector(given)
        return found * given.any(dim=1, keepdim=True)

    @cached_property
    def factor(self) -> float:
        """What the regression's representations of items are multiplied by."""
        items = self._known["item"]
        place = torch.full((len(self._n_held_out),), -1)
        place[items.ids] = torch.arange(len(items.ids))
        users, places = self._training[0], place[self._training[1]]
        users, places = users[places >= 0], places[places >= 0]
        n_seen = torch.bincount(places, minlength=len(items.ids))
        n_held_out = self._n_held_out[items.ids]
        folds = []
        for fold in self._folds:
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
            return factor_of_places(rows, items.representations, self._fitted.held_out, seen, folds)

    @cached_property
    def _folds(self) -> list[Tensor]:
        n_items = len(self._known["item"].ids)
        if n_items < 2 * _N_FOLDS:
            raise DataError(
                f"{n_items} items have both a semantic embedding and a training interaction; to map texts to "
                f"representations takes {2 * _N_FOLDS} at least. Encode the items' profiles with build-semantics."
            )
        order = torch.randperm(n_items, generator=torch.Generator().manual_seed(_SEED))
        return list(order.chunk(_N_FOLDS))

    @cached_property
    def _fitted(self) -> FittedRidge:
        items = self._known["item"]
        folds = [fold.to(items.texts.device) for fold in self._folds]
        return fit_ridge(items.texts, items.representations, _PENALTIES, folds)

    def _nearest(self, vectors: Tensor) -> Tensor:
        """Return the means of the representations of the users nearest by text, ``[n, d]``."""
        users = self._known["user"]
        k = min(N_NEIGHBOURS, len(users.ids))
        blocks = normalize(vectors).split(max(1, _BLOCK // len(users.ids)))
        nearest = torch.cat([(block @ users.texts.T).topk(k).indices for block in blocks])
        return users.representations[nearest].mean(dim=1)

    def _given(self, side: Side, vectors: np.ndarray | Tensor) -> Tensor:
        """Return vectors as float32 on the model's device.

        Raises:
            DataError: they have another length.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise DataError(
                f"The vectors have the shape {list(vectors.shape)}, the dataset's semantic embeddings have dimension "
                f"{self.dimension}. Expected [n, {self.dimension}]: encode the texts with the dataset's encoder."
            )
        return torch.as_tensor(vectors).to(self._known[side].texts.device).float()


def text_map_of(model: Any, dataset: Any) -> TextMap:
    """Return what represents texts in a model's space.

    Args:
        model: a trained model with representations.
        dataset: of the model, the whole one, after it was split.

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
        joined = dataset.semantic_embedding(side)
        is_trained = torch.bincount(ids, minlength=len(joined.covered)) > 0
        found = (is_trained & torch.from_numpy(joined.covered)).nonzero().squeeze(1)
        if not len(found):
            raise DataError(
                f"No {side} of '{dataset.dataset_name}' has both a semantic embedding and a training interaction, so "
                "texts cannot be compared with any. Encode the profiles again with build-semantics."
            )
        texts = normalize(torch.from_numpy(joined.take(found.numpy())).to(table.device))
        known[side] = Known(found, texts, table[found.to(table.device)].float())
    items = torch.as_tensor(held_out.inter_feat[dataset.iid_field]).long()
    return TextMap(model, known, (pairs[0], pairs[1]), torch.bincount(items, minlength=dataset.item_num))
