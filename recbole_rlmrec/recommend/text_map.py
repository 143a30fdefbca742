"""From texts to a model's space: what represents users and items that have a text and no interaction."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.arrays import tables_of
from recbole_rlmrec.model.layers import Projector
from recbole_rlmrec.model.scores import evaluating
from recbole_rlmrec.sides import SIDES, Side

#: So many nodes nearest by text say how long a representation is, or what it is.
N_NEIGHBOURS = 10
#: So many cosines are computed at a time.
_BLOCK = 2**24


class Neighbours:
    """The nodes of one side that have a text and a training interaction, to find those nearest to a text.

    Args:
        vectors: their semantic embeddings, ``[m, D]``.
        representations: by the model, ``[m, d]``.
    """

    def __init__(self, vectors: Tensor, representations: Tensor) -> None:
        self._directions, self._representations = normalize(vectors), representations
        self._lengths = representations.norm(dim=1)
        self.device = representations.device

    def nearest(self, vectors: Tensor) -> Tensor:
        """Return the places of the nodes nearest by cosine, the nearest first, ``[n, k]``."""
        k = min(N_NEIGHBOURS, len(self._directions))
        blocks = normalize(vectors).split(max(1, _BLOCK // len(self._directions)))
        return torch.cat([(block @ self._directions.T).topk(k).indices for block in blocks])

    def representations(self, vectors: Tensor) -> Tensor:
        """Return the means of the nearest nodes' representations, ``[n, d]``."""
        return self._representations[self.nearest(vectors)].mean(dim=1)

    def lengths(self, vectors: Tensor) -> Tensor:
        """Return the means of the nearest nodes' lengths, ``[n, 1]``."""
        return self._lengths[self.nearest(vectors)].mean(dim=1, keepdim=True)


class TextMap:
    """Represents users and items by their texts, so that they are scored together with those that were trained.

    With a projector (the contrastive alignment) a text is represented in the projection's direction, as long as the
    trained nodes of the nearest texts are on average: the alignment compares directions only, and the lengths are what
    makes one node rank before others with everybody. Without one the mean of the nearest nodes' representations
    stands in.

    Args:
        neighbours: trained nodes by side.
        projector: from semantic embeddings to directions; None without one.
        dimension: D, length of a semantic embedding.
    """

    def __init__(self, neighbours: dict[Side, Neighbours], projector: Projector | None, dimension: int) -> None:
        self._neighbours, self._projector, self.dimension = neighbours, projector, dimension

    def items(self, vectors: np.ndarray | Tensor) -> Tensor:
        """Return the representations of items, ``[n, d]``, on the model's device.

        Args:
            vectors: semantic embeddings of their texts, ``[n, D]``; a row of zeros, a text that says nothing, is
                represented by zeros.

        Raises:
            DataError: the vectors have another length than the dataset's embeddings.
        """
        return self._mapped("item", vectors)

    def users(self, vectors: np.ndarray | Tensor) -> Tensor:
        """Return the representations of users; see :meth:`items`."""
        return self._mapped("user", vectors)

    @torch.no_grad()
    def _mapped(self, side: Side, vectors: np.ndarray | Tensor) -> Tensor:
        if vectors.ndim != 2 or vectors.shape[1] != self.dimension:
            raise DataError(
                f"The vectors have the shape {list(vectors.shape)}, the dataset's semantic embeddings have dimension "
                f"{self.dimension}. Expected [n, {self.dimension}]: encode the texts with the dataset's encoder."
            )
        neighbours = self._neighbours[side]
        given = torch.as_tensor(vectors).to(neighbours.device).float()
        if self._projector is None:
            found = neighbours.representations(given)
        else:
            found = normalize(self._projector(given)) * neighbours.lengths(given)
        return found * given.any(dim=1, keepdim=True)


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
    neighbours: dict[Side, Neighbours] = {}
    for side, table, field in zip(SIDES, tables, (dataset.uid_field, dataset.iid_field)):
        joined = dataset.semantic_embedding(side)
        is_trained = np.bincount(np.asarray(dataset.parts[0].inter_feat[field]), minlength=len(joined.covered)) > 0
        ids = np.flatnonzero(is_trained & joined.covered)
        if not len(ids):
            raise DataError(
                f"No {side} of '{dataset.dataset_name}' has both a semantic embedding and a training interaction, so "
                "texts cannot be compared with any. Encode the profiles again with build-semantics."
            )
        rows = torch.from_numpy(ids).to(table.device)
        vectors = torch.from_numpy(joined.take(ids)).to(table.device)
        neighbours[side] = Neighbours(vectors, table[rows].float())
    projector = model.text_projector if isinstance(model, Alignment) else None
    return TextMap(neighbours, projector, dataset.semantic_embedding("item").embedding.dimension)
