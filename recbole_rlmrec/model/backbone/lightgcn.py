"""LightGCN (He et al., SIGIR 2020): RecBole's model under the backbone contract."""

from __future__ import annotations

from recbole.model.general_recommender.lightgcn import LightGCN as RecBoleLightGCN

from recbole_rlmrec.model.backbone.base import GraphBackbone
from recbole_rlmrec.ops.graph import Adjacency


class LightGCN(GraphBackbone, RecBoleLightGCN):
    """Linear propagation of ego embeddings over the normalised user-item graph.

    With its default settings it computes RecBole's own numbers; ``layer_combination: sum``,
    ``edge_keep_rate`` and ``l2_scope: all`` make it the LightGCN of the RLMRec paper.
    """

    def get_norm_adj_mat(self) -> Adjacency:
        """Stand in for RecBole's graph builder, which loops over the edges in Python and is not needed."""
        return self.adjacency
