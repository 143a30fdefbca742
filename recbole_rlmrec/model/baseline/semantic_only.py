"""Semantic embeddings alone, the first row of RLMRec's Table 1."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor

from recbole_rlmrec.data.semantic_embedding import BLOCK_BYTES
from recbole_rlmrec.model.backbone.contract import ModelFlags, SettingsClasses
from recbole_rlmrec.model.layers import SemanticTable, StorageSettings


class SemanticOnly(ModelFlags, GeneralRecommender):
    """The score of a user and an item is the cosine of their semantic embeddings; nothing is trained.

    A user or an item without an embedding scores 0 with everyone, as a vector at right angles would: such a user's
    items are all alike, such an item stands between what resembles a user and what is opposed to it.
    """

    input_type = InputType.POINTWISE

    reads_semantic_embeddings = True
    scores_semantic_embeddings = True
    nothing_to_train = True
    # Evaluation is all there is, and each process evaluates its share of the users.
    shares_losses = True
    settings_classes: ClassVar[SettingsClasses] = (StorageSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = StorageSettings.from_config(config)
        sides = [dataset.semantic_embedding(side) for side in ("user", "item")]
        for side in sides:
            side.require_covered()
        self.semantic = SemanticTable(sides, in_memory=settings.semantic_storage == "memory", unit_length=True)

    def predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given user-item pairs, ``[B]``."""
        items = interaction[self.ITEM_ID] + self.n_users
        return (self.semantic(interaction[self.USER_ID]) * self.semantic(items)).sum(dim=1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given users for all items, flattened to ``[B * I]``.

        Where the embeddings are on disk, the items' are read in blocks, once for each batch of users.
        """
        users = self.semantic(interaction[self.USER_ID])
        in_memory = self.semantic.vectors is not None
        step = self.n_items if in_memory else max(1, BLOCK_BYTES // (4 * self.semantic.dimension))
        starts = range(0, self.n_items, step)
        blocks = [(self.n_users + start, self.n_users + min(start + step, self.n_items)) for start in starts]
        return torch.cat([users @ self.semantic.block(*block).T for block in blocks], dim=1).view(-1)
