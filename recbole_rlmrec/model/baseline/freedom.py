"""FREEDOM (Zhou and Shen, ACM MM 2023) with texts alone, from enoche/MMRec @e775373b.

Its second ranking loss, of users with projected texts, is left out: its weight is 0 to 1e-3 in the authors' search.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.base import GraphBackbone
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.tables import EmbeddingTables
from recbole_rlmrec.ops.graph import Adjacency, normalized_adjacency
from recbole_rlmrec.ops.neighbours import nearest
from recbole_rlmrec.settings import COUNT, Range, Settings, known, setting


@dataclass(frozen=True)
class FREEDOMSettings(Settings):
    """Settings of :class:`FREEDOM`, the authors'."""

    n_layers: int = known("n_layers", 2)
    reg_weight: float = known("reg_weight", 0.0)  # the code has no L2 term
    item_neighbours: int = setting(
        10, COUNT, "FREEDOM: items nearest by text that an item is joined to, itself included"
    )
    kept_edges: float = setting(
        0.2,
        Range(0, 1, includes_low=False),
        "FREEDOM: share of the training graph's edges that an epoch propagates over",
    )


class FREEDOM(GraphBackbone, EmbeddingTables):
    """LightGCN over a pruned graph, plus a frozen graph of items whose texts are alike.

    An item is represented by what the user-item graph propagates plus the mean of the embeddings of the items nearest
    by text. Each epoch keeps a share of the edges, drawn again with weights ``1 / sqrt(d_u d_i)``, and normalises by
    what is left; evaluation has all edges. Items without a text are joined to none.
    """

    reads_semantic_embeddings = True
    scores_semantic_embeddings = True
    settings_classes: ClassVar[SettingsClasses] = (FREEDOMSettings,)

    #: ``[n, k]`` nearest items of the items with a text, whose ids are ``text_items``, ``[n]``.
    neighbours: Tensor
    text_items: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.freedom_settings = FREEDOMSettings.from_config(config)
        if self.graph_settings.layer_combination == "concat":
            raise SettingError(
                "layer_combination=concat: FREEDOM adds embeddings of the nearest items to the layers, which have to "
                "be as wide. Set layer_combination to mean or sum."
            )
        profiles = dataset.semantic_embedding("item")
        profiles.require_covered()
        items = np.flatnonzero(profiles.covered)
        texts = torch.from_numpy(profiles.matrix())[torch.from_numpy(items)]
        _, rows = nearest(texts, texts, self.freedom_settings.item_neighbours)
        self.register_buffer("neighbours", torch.from_numpy(items[rows].reshape(len(items), -1)), persistent=False)
        self.register_buffer("text_items", torch.from_numpy(items), persistent=False)
        self._pruned: Adjacency | None = None

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation; RecBole does so at each epoch, for which edges are drawn again."""
        self._pruned = None
        return super().train(mode)

    @property
    def pruned(self) -> Adjacency:
        """The graph of this epoch."""
        if self._pruned is None:
            # The entries of the users' rows, which are the first half, are the distinct edges.
            half = self.adjacency.column.numel() // 2
            weight = self.adjacency.value[:half]  # 1 / sqrt(d_u d_i)
            # Exponential times, divided by the weights: the first to come are a draw without replacement.
            n_kept = max(1, int(self.freedom_settings.kept_edges * half))
            kept = (torch.empty_like(weight).exponential_() / weight).topk(n_kept, largest=False).indices.cpu()
            degrees = self.adjacency.row_start[: self.n_users + 1].diff().cpu()
            users = torch.arange(self.n_users).repeat_interleave(degrees)[kept]
            items = self.adjacency.column[:half].cpu().long()[kept] - self.n_users
            graph = normalized_adjacency(users.numpy(), items.numpy(), self.n_users, self.n_items)
            self._pruned = graph.to(self.device)
        return self._pruned

    def encode(self, ego: Tensor) -> Tensor:
        """Return the propagated embeddings, the items' plus the mean of those nearest by text, ``[U + I, d]``."""
        propagated = self.propagate(ego, self.pruned if self.training else self.adjacency)
        means = F.embedding_bag(self.neighbours + self.n_users, ego, mode="mean")
        return propagated.index_add(0, self.text_items + self.n_users, means)
