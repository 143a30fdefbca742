"""KAR (Xi et al., "Towards Open-World Recommendation with Knowledge Augmentation from Large Language Models", 2023).

A mixture of experts turns semantic embeddings into an augmented vector for each user and item, which the recommender
takes as a further input. KAR was made for click models, which read feature vectors; the port to collaborative
filtering is ours, as it was RLMRec's for its Table 2, whose code is not public:

- sizes: experts are ``Linear(D, (D + d) // 2) -> ReLU -> Linear((D + d) // 2, d)``, so that their output has the width
  of an embedding; two are shared by users and items, two belong to each side;
- the join: the augmented vector joins the *ego* embedding, ``Linear(2d, d)`` of both side by side, before the backbone
  propagates. That is where KAR puts it, beside the input features of an unchanged backbone, and the knowledge of a
  node's neighbours then reaches the node like everything else about them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.base import GraphBackbone
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.lightgcn import LightGCN
from recbole_rlmrec.model.backbone.sgl import SGL
from recbole_rlmrec.model.layers import DimensionSettings, SemanticTable, StorageSettings, basis_of, linear
from recbole_rlmrec.ops.distributed import Shard, join_rows, this_shard
from recbole_rlmrec.ops.mixture import perceptron_mixture
from recbole_rlmrec.settings import FEW, require, setting


@dataclass(frozen=True)
class AugmentationSettings(StorageSettings):
    """Settings of KAR; the numbers of experts are those of the port described above, which is ours."""

    kar_shared_experts: int = setting(2, FEW, "KAR: experts that users and items share")
    kar_side_experts: int = setting(2, FEW, "KAR: further experts of each side")


class Experts(nn.Module):
    """Some two-layer perceptrons, stacked so that their first layers are one product.

    Weights are initialised as :class:`~recbole_rlmrec.model.layers.Projector`'s, one perceptron after the other.

    Args:
        n_experts: K.
        in_features: D.
        out_features: d.
        generator: of the initial weights.
    """

    def __init__(self, n_experts: int, in_features: int, out_features: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden = (in_features + out_features) // 2
        sizes = [(in_features, hidden), (hidden, out_features)] * n_experts
        layers = [linear(*size, generator) for size in sizes]
        first, last = layers[::2], layers[1::2]
        self.first_weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in first]))  # [K, h, D]
        self.first_bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in first]))  # [K, h]
        self.last_weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in last]))  # [K, d, h]
        self.last_bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in last]))  # [K, d]

    def forward(self, rows: Tensor, gate: Tensor) -> Tensor:
        """Return the experts' outputs for ``rows`` (``[n, D]``), weighted by ``gate`` (``[n, K]``), ``[n, d]``."""
        return perceptron_mixture(rows, gate, self.first_weight, self.first_bias, self.last_weight, self.last_bias)


class KnowledgeAdaptor(nn.Module):
    """KAR's hybrid-expert adaptor: ``a = sum_k softmax(G s)_k Expert_k(s)`` over shared experts and the side's own.

    All weights come from a generator of their own: adding the adaptor to a model leaves the model's initial weights and
    every later random number as they were.

    Args:
        in_features: D.
        out_features: d.
        n_shared: experts that users and items share.
        n_own: experts of each side.
        seed: seed of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, n_shared: int, n_own: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.n_shared = n_shared
        self.shared = Experts(n_shared, in_features, out_features, generator)
        self.own = nn.ModuleList(Experts(n_own, in_features, out_features, generator) for _ in ("user", "item"))
        gates = [linear(in_features, n_shared + n_own, generator).weight.detach() for _ in ("user", "item")]
        self.gates = nn.ParameterList(nn.Parameter(gate) for gate in gates)
        self.join = linear(2 * out_features, out_features, generator)

    def read_coordinates(self, basis: Tensor) -> None:
        """Read coordinates in a basis, ``[D, N]``, from now on: with weights that do the same with rows in its span."""
        for experts in (self.shared, *self.own):
            experts.first_weight = nn.Parameter(experts.first_weight.detach() @ basis)
        self.gates = nn.ParameterList(nn.Parameter(gate.detach() @ basis) for gate in self.gates)

    def forward(self, rows: Tensor, covered: Tensor, n_users: int) -> Tensor:
        """Return the augmented vectors of some nodes, users first.

        Args:
            rows: semantic embeddings, ``[n, D]``.
            covered: False at holes, the nodes without an embedding, whose vector is zero, ``[n]``.
            n_users: how many of the rows are users'.

        Returns:
            ``[n, d]``.
        """
        sides = rows.split([n_users, len(rows) - n_users])
        logits = [nn.functional.linear(side, gate.to(side.dtype)) for side, gate in zip(sides, self.gates)]
        gate = torch.cat(logits).float().softmax(dim=1) * covered.unsqueeze(1)
        gates = gate[:, self.n_shared :].split([n_users, len(rows) - n_users])
        own = [experts(side, part) for experts, side, part in zip(self.own, sides, gates)]
        return self.shared(rows, gate[:, : self.n_shared]) + torch.cat(own)


class KnowledgeAugmentation(GraphBackbone):
    """KAR over any graph backbone: ego embeddings are joined with what experts make of the semantic embeddings.

    The loss terms are the backbone's own, on the joined embeddings; ``l2_scope: all`` has the experts' weights in its
    sum, ``batch`` has not. Users and items without a semantic embedding get the zero vector in its place.

    The experts run over all users and items at each step, since propagation reaches all of them. Among several
    processes each computes its share of the rows.
    """

    reads_semantic_embeddings = True
    scores_semantic_embeddings = True
    inherits_tuned_settings = True
    settings_classes: ClassVar[SettingsClasses] = (AugmentationSettings, DimensionSettings)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = AugmentationSettings.from_config(config)
        if settings.semantic_storage == "memory_map":
            raise SettingError(
                f"semantic_storage=memory_map: {config['model']} would read the whole table from disk at each step. "
                "Set semantic_storage to memory."
            )
        sides = [dataset.semantic_embedding(side) for side in ("user", "item")]
        # Under autocast the products would cast the rows at each step.
        dtype = torch.bfloat16 if config["enable_amp"] else torch.float32
        self.semantic = SemanticTable(sides, dtype=dtype, basis=basis_of(config, dataset))
        width = self.ego_dim
        experts = (settings.kar_shared_experts, settings.kar_side_experts)
        self.adaptor = KnowledgeAdaptor(self.semantic.whole_dimension, width, *experts, require(config, "seed"))
        if self.semantic.reduction is not None:
            self.adaptor.read_coordinates(self.semantic.reduction.vectors)

    def augmented_vectors(self) -> Tensor:
        """Return what the experts make of each node's semantic embedding, ``[U + I, d]``; zero at holes."""
        n_nodes = self.n_users + self.n_items
        # Evaluation is no common step of the processes: each has users of its own, or none.
        share = (this_shard() if self.training else Shard()).rows(n_nodes)
        n_users = min(max(self.n_users - share.start, 0), share.stop - share.start)
        rows, covered = self.semantic.block(share.start, share.stop), self.semantic.covered[share]
        vectors = self.adaptor(rows, covered, n_users)
        return join_rows(vectors, n_nodes) if self.training else vectors

    def ego_embeddings(self) -> Tensor:
        """Return the trainable tables, each row joined with the node's augmented vector, ``[U + I, d]``."""
        both = torch.cat([super().ego_embeddings(), self.augmented_vectors()], dim=1)
        # The embeddings themselves pass through this product; bfloat16 would round them.
        with torch.autocast(device_type=both.device.type, enabled=False):
            joined: Tensor = self.adaptor.join(both)
        return joined


class LightGCN_KAR(KnowledgeAugmentation, LightGCN):
    """LightGCN with KAR's augmented vectors."""


class SGL_KAR(KnowledgeAugmentation, SGL):
    """SGL with KAR's augmented vectors."""
