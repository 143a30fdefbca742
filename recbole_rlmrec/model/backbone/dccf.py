"""DCCF (Ren et al., SIGIR 2023), which RecBole does not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.base import GraphBackbone, L2Scope, LayerCombination, ViewContrastSettings
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.tables import EmbeddingTables
from recbole_rlmrec.ops.balance import shared
from recbole_rlmrec.ops.distributed import Share
from recbole_rlmrec.ops.graph import similarity_product
from recbole_rlmrec.ops.intent import mean_intent
from recbole_rlmrec.settings import COUNT, Choice, Weight, known, require_number, setting

Divisor = Literal["items", "users"]


@dataclass(frozen=True)
class DCCFSettings(ViewContrastSettings):
    """Ren et al., SIGIR 2023, as RLMRec runs it on amazon-book and yelp.

    HKUDS/RLMRec @2241375, encoder/config/modelconf/dccf.yml.
    """

    embedding_size: int = known("embedding_size", 32)
    n_layers: int = known("n_layers", 2)
    reg_weight: float = known("reg_weight", 1e-4)
    layer_combination: LayerCombination = known("layer_combination", "sum")
    l2_scope: L2Scope = known("l2_scope", "all")  # the intents take part in the L2 term
    intent_num: int = setting(128, COUNT, "DCCF: latent intents of each side")
    ssl_weight: Weight = known("ssl_weight", 0.001)
    ssl_tau: float = known("ssl_tau", 0.1)
    item_contrast_divisor: Divisor = setting(
        "items",
        Choice.of(Divisor),
        "DCCF: what the items' contrast is averaged over; the official code divides it by the batch's unique users",
    )


class DCCF(GraphBackbone, EmbeddingTables):
    """Propagation over the graph, over latent intents, and over two graphs reweighted by either; their contrast.

    Layer l takes E = E_{l-1} and computes ``g = A E``; ``t = softmax(E C) C^T`` with a table of intents C per side;
    and the means of the neighbours' E weighted by the cosines of g and of t. Their sum and E are E_l. In each layer,
    the batch's unique users (and unique positive items) in g are contrasted with those in t and in both means.

    The official code divides the items' contrast by the number of unique users (``item_contrast_divisor: users``).
    """

    settings_classes: ClassVar[SettingsClasses] = (DCCFSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.dccf_settings = DCCFSettings.from_config(config)
        require_number(config, "ssl_weight", "DCCF computes views and representation together, and cannot bound either")
        if self.graph_settings.edge_keep_rate < 1:
            raise SettingError(
                f"edge_keep_rate={self.graph_settings.edge_keep_rate}: DCCF reweights the edges itself and propagates "
                "over the whole graph. Leave the setting out, or set it to 1.0."
            )
        shape = (self.ego_dim, settings.intent_num)
        self.user_intent = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape)))
        self.item_intent = nn.Parameter(nn.init.xavier_uniform_(torch.empty(shape)))

    def encode(self, ego: Tensor) -> Tensor:
        """Return the combined layers, ``[U + I, output_dim]``, of ``ego``, ``[U + I, d]``."""
        return self._encoded(ego)[0]

    def step(
        self, interaction: Any, mask: Callable[[Tensor], Tensor] | None = None, share: float | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return BPR, L2 and the contrast of the layers' views (``ssl``), and the representation.

        The views come with the representation, which is why this and not ``loss_terms`` is what DCCF supplies.
        """
        ego = self.ego_embeddings()
        representation, views = self._encoded(ego if mask is None else mask(ego))
        own, aligned = shared(representation, share)
        terms = self.ranking_terms(own, interaction)
        by_users = self.dccf_settings.item_contrast_divisor == "users"
        contrasts = [
            self.view_contrast(self.dccf_settings, propagated, view, interaction, items_by_users=by_users).value
            for propagated, *others in views
            for view in others
        ]
        terms["ssl"] = Share(torch.stack(contrasts).sum())
        return self.summands(terms), aligned

    def _encoded(self, ego: Tensor) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """Return the representation and, by layer, g and what it is contrasted with, ``[U + I, d]`` each."""
        layers, views = [ego], []
        for _ in range(self.graph_settings.n_layers):
            current = layers[-1]
            propagated = self.adjacency.matmul(current)
            by_intent = torch.cat([mean_intent(*side) for side in self._sides(current)])
            adapted = [
                similarity_product(F.normalize(view, dim=1), current, self.adjacency)
                for view in (propagated, by_intent)
            ]
            views.append((propagated, by_intent, *adapted))
            layers.append(sum(views[-1], start=current))
        return self.combined(layers), views

    def _sides(self, stacked: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        users, items = self.split(stacked)
        return (users, self.user_intent), (items, self.item_intent)
