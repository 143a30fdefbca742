"""SimGCL (Yu et al., SIGIR 2022), which RecBole 1.2.1 does not have."""

from __future__ import annotations

from typing import Any

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.model.init import xavier_uniform_initialization
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_rlmrec.model.backbone.base import GraphBackbone, ViewContrastSettings
from recbole_rlmrec.settings import require


class _EmbeddingTables(GeneralRecommender):
    """The two trainable tables, initialised as RecBole initialises LightGCN's."""

    input_type = InputType.PAIRWISE

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        embedding_size = require(config, "embedding_size")
        self.user_embedding = nn.Embedding(self.n_users, embedding_size)
        self.item_embedding = nn.Embedding(self.n_items, embedding_size)
        self.apply(xavier_uniform_initialization)


class SimGCL(GraphBackbone, _EmbeddingTables):
    """LightGCN plus the contrast between two views with noise added after each layer; no graph is augmented.

    Defaults are the original paper's: layers 1..L averaged, the batch's unique nodes as negatives. RLMRec takes
    layers 0..L summed and the full tables as negatives; the hyper-parameters of one do not suit the other.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.contrast_settings = ViewContrastSettings.from_config(config)
        self.eps: float = require(config, "eps")

    def noise(self, layer: Tensor) -> Tensor:
        """Return noise of length ``eps`` for each row, in the orthant of the row: ``sign(E) * normalize(U) * eps``.

        Args:
            layer: ``[U + I, d]``.
        """
        uniform = torch.rand_like(layer)
        return uniform.mul_(self.eps / torch.linalg.vector_norm(uniform, dim=1, keepdim=True)).mul_(layer.sign())

    def loss_terms(self, ego: Tensor, representation: Tensor, interaction: Any) -> dict[str, Tensor]:
        """Return BPR, L2 and the contrast of the two noisy views (``ssl``)."""
        first, second = (self.propagate(ego, self.adjacency, self.noise) for _ in range(2))
        terms = self.ranking_terms(representation, interaction)
        terms["ssl"] = self.view_contrast(self.contrast_settings, first, second, interaction)
        return terms
