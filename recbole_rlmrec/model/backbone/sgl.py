"""SGL (Wu et al., SIGIR 2021): RecBole's model under the backbone contract."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from recbole.model.general_recommender.sgl import SGL as RecBoleSGL  # noqa: N811
from torch import Tensor

from recbole_rlmrec.model.backbone.base import (
    BoundedContrastSettings,
    ContrastNegatives,
    GraphBackbone,
    LossReduction,
    Terms,
)
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.ops.graph import Adjacency, normalized_adjacency
from recbole_rlmrec.settings import Choice, Range, Settings, Weight, known, setting

ViewEdgeDrop = Literal["recbole", "independent"]
ViewType = Literal["ED", "ND", "RW"]


@dataclass(frozen=True)
class ViewSettings(Settings):
    """How SGL draws its two views, with RecBole's defaults."""

    view_edge_drop: ViewEdgeDrop = setting(
        "recbole",
        Choice.of(ViewEdgeDrop),
        "SGL: views drawn once an epoch by `type`, `drop_ratio`, or at each step by `edge_keep_rate` (RLMRec)",
    )
    drop_ratio: float = setting(
        MISSING, Range(0, 1, includes_high=False), "SGL: share of edges or nodes dropped in a view", "0.1"
    )
    type: ViewType = setting(MISSING, Choice.of(ViewType), "SGL: edge drop, node drop, or an edge drop per layer", "ED")


@dataclass(frozen=True)
class SGLContrastSettings(BoundedContrastSettings):
    """SGL's losses. The published values are those of RecBole's SGL, as are temperature and negatives."""

    ssl_weight: Weight = known("ssl_weight", "auto", published=0.05)
    ssl_negatives: ContrastNegatives = known("ssl_negatives", "all")
    padding_negatives: bool = known("padding_negatives", False, published=True)
    loss_reduction: LossReduction = known("loss_reduction", "sum")


class SGL(GraphBackbone, RecBoleSGL):
    """LightGCN plus the contrast between two views of the graph with dropped edges or nodes.

    ``view_edge_drop: recbole`` redraws the views once an epoch with RecBole's random numbers, drops edges undirected
    and renormalises (``type`` ED, ND or RW, ``drop_ratio``). ``independent`` is the official RLMRec code: each view
    draws its own mask over the directed entries at each step and keeps the weights (``edge_keep_rate``); the main
    path keeps the whole graph in both.
    """

    count_duplicates = True

    settings_classes: ClassVar[SettingsClasses] = (ViewSettings, SGLContrastSettings)

    def __init__(self, config: Any, dataset: Any) -> None:
        # RecBole calls graph_construction from train(), which may run before our settings would be read.
        self.view_settings = ViewSettings.from_config(config)
        self.contrast_settings = SGLContrastSettings.from_config(config)
        self.view_share = self.contrast_settings.bound
        self.sub_graph1: Adjacency | list[Adjacency]
        self.sub_graph2: Adjacency | list[Adjacency]
        super().__init__(config, dataset)

    def graph_construction(self) -> None:
        """Draw the views of an epoch; nothing to do where they are drawn at each step."""
        if self.view_settings.view_edge_drop == "recbole":
            super().graph_construction()

    def create_adjust_matrix(self, is_sub: bool) -> Adjacency:
        """Build a graph with the random draws of RecBole's method of this name, in the same order.

        Args:
            is_sub: whether to draw a view; False gives the whole graph.
        """
        if not is_sub:
            return self.adjacency
        users, items = (ids.numpy() for ids in self._interactions)
        if self.type == "ND":
            dropped_users = self.rand_sample(self.n_users, size=int(self.n_users * self.drop_ratio), replace=False)
            dropped_items = self.rand_sample(self.n_items, size=int(self.n_items * self.drop_ratio), replace=False)
            kept = ~(np.isin(users, dropped_users) | np.isin(items, dropped_items))
        else:
            kept = self.rand_sample(len(users), size=int(len(users) * (1 - self.drop_ratio)), replace=False)
        view = normalized_adjacency(
            users[kept], items[kept], self.n_users, self.n_items, count_duplicates=self.count_duplicates
        )
        return view.to(self.device)

    def csr2tensor(self, matrix: Adjacency) -> Adjacency:
        """Stand in for RecBole's conversion: the graph is in its final form already."""
        return matrix

    def encode(self, ego: Tensor) -> Tensor:
        """Return the representation over the whole graph; SGL drops edges in its views only."""
        return self.propagate(ego, self.adjacency)

    def views(self) -> tuple[Adjacency | list[Adjacency], Adjacency | list[Adjacency]]:
        """Return the graphs of the two views of this step."""
        if self.view_settings.view_edge_drop == "recbole":
            return self.sub_graph1, self.sub_graph2
        keep_rate = self.graph_settings.edge_keep_rate
        return self.adjacency.drop_edges(keep_rate), self.adjacency.drop_edges(keep_rate)

    def loss_terms(self, ego: Tensor, representation: Tensor, interaction: Any) -> Terms:
        """Return BPR, L2 and the contrast of the two views (``ssl``)."""
        first, second = (self.propagate(ego, view) for view in self.views())
        terms = self.ranking_terms(representation, interaction)
        terms["ssl"] = self.view_contrast(self.contrast_settings, first, second, interaction)
        return terms
