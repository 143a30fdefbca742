"""Propagated texts: without training (TextGCN), and with a perceptron a side over them (in its authors' code TFCE)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor
from torch.nn.functional import normalize

from recbole_rlmrec.model.backbone.base import GraphBackbone
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.baseline.alpharec import AlphaRec, AlphaRecSettings, language_of_nodes, perceptron
from recbole_rlmrec.settings import Settings, known


@dataclass(frozen=True)
class TextGCNSettings(Settings):
    """Settings of :class:`TextGCN`; 3 to 5 layers are the authors', by dataset."""

    n_layers: int = known("n_layers", 3)
    reg_weight: float = known("reg_weight", 0.0)  # nothing is trained


class TextGCN(GraphBackbone, GeneralRecommender):
    """The cosine of texts propagated as in LightGCN, a user's text the mean over its items; nothing is trained.

    Profiles of users are not looked at. Items without a semantic embedding are left out of the means, and are
    represented by what their neighbours propagate to them.
    """

    input_type = InputType.POINTWISE

    reads_semantic_embeddings = True
    scores_semantic_embeddings = True
    nothing_to_train = True
    settings_classes: ClassVar[SettingsClasses] = (TextGCNSettings,)

    language: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        users, items = (ids.numpy() for ids in self._interactions)
        profiles = dataset.semantic_embedding("item")
        self.register_buffer("language", language_of_nodes(profiles, users, items, self.n_users), persistent=False)

    @property
    def ego_dim(self) -> int:
        """Width D of the semantic embeddings."""
        return self.language.shape[1]

    def ego_embeddings(self) -> Tensor:
        """Return the texts of users and items, ``[U + I, D]``."""
        return self.language

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the representations of users ``[U, D]`` and items ``[I, D]``, of length 1: scores are cosines."""
        users, items = self.split(normalize(self.encode(self.ego_embeddings()), dim=1))
        return users, items


@dataclass(frozen=True)
class TextGCNMLPSettings(AlphaRecSettings):
    """Settings of :class:`TextGCNMLP`, the authors' for most datasets."""

    embedding_size: int = known("embedding_size", 128)
    negatives_per_positive: int = known("negatives_per_positive", 512)


class TextGCNMLP(AlphaRec):
    """Texts propagated as in TextGCN, then a perceptron of users and one of items, trained as AlphaRec's.

    The authors draw some positives for each user of a batch; here the positives are the rows of the batch, so that a
    user weighs as much as it has interactions.
    """

    settings_classes: ClassVar[SettingsClasses] = (TextGCNMLPSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.first_user_layer, self.last_user_layer = self._layers()

    @property
    def output_dim(self) -> int:
        """Width of what the perceptrons return."""
        return self.ego_dim

    def language_inputs(self, language: Tensor) -> Tensor:
        """Return the propagated texts, ``[U + I, D]``, or side by side by layer where ``layer_combination`` says so."""
        with torch.no_grad():
            return self.propagate(language.to(self.device), self.adjacency)

    def mapped(self, rows: Tensor, start: int) -> Tensor:
        """Return what the perceptrons make of the inputs of the nodes from ``start`` on, ``[n, D]``, ``[n, d]``."""
        n_users = min(max(self.n_users - start, 0), len(rows))
        users = perceptron(rows[:n_users], self.first_user_layer, self.last_user_layer)
        return torch.cat([users, perceptron(rows[n_users:], self.first_layer, self.last_layer)])

    def encode(self, ego: Tensor) -> Tensor:
        """Return ``ego``, ``[U + I, d]``: what it is computed from has been propagated."""
        return ego
