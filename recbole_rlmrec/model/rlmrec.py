"""RLMRec (Ren et al., WWW 2024): align a recommender's representations with semantic embeddings of its profiles.

The two mixins work over any backbone of the contract in :mod:`recbole_rlmrec.model.backbone.base`; the explicit
classes are the paper's combinations. The formulas follow the official code where it differs from the paper
(HKUDS/RLMRec @2241375): Eq. 18 of the paper has neither weight nor temperature, the code has both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from logging import getLogger
from typing import TYPE_CHECKING, Any, Literal, Optional

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.autocf import AutoCF
from recbole_rlmrec.model.backbone.base import GraphBackbone, Representation, distinct
from recbole_rlmrec.model.backbone.dccf import DCCF
from recbole_rlmrec.model.backbone.gccf import GCCF
from recbole_rlmrec.model.backbone.lightgcn import LightGCN
from recbole_rlmrec.model.backbone.sgl import SGL
from recbole_rlmrec.model.backbone.simgcl import SimGCL
from recbole_rlmrec.model.layers import NodeMask, Projector, SemanticTable
from recbole_rlmrec.ops.distributed import join_rows, this_shard
from recbole_rlmrec.ops.info_nce import info_nce, lowered_length, reconstruction_loss
from recbole_rlmrec.settings import Settings, Weight, bound_of, number_of, require


@dataclass(frozen=True)
class ContrastiveSettings(Settings):
    """Settings of RLMRec-Con."""

    alignment_weight: Weight
    alignment_share: float
    alignment_temperature: float
    alignment_negatives: Literal["all", "batch"]
    semantic_storage: Literal["memory", "memory_map"]


@dataclass(frozen=True)
class GenerativeSettings(Settings):
    """Settings of RLMRec-Gen."""

    reconstruction_weight: Weight
    alignment_share: float
    reconstruction_temperature: float
    mask_ratio: float
    semantic_storage: Literal["memory", "memory_map"]


if TYPE_CHECKING:
    _Backbone = GraphBackbone
else:
    # At run time the mixins stand before whichever backbone they are combined with.
    _Backbone = object


class _Alignment(_Backbone):
    """What both alignments need: the semantic embeddings of users and items, in the rows of the stacked table."""

    semantic: SemanticTable
    projector: Optional[Projector]

    def _load_semantic(self, config: Any, dataset: Any, storage: str, unit_length: bool = False) -> None:
        sides = [dataset.semantic_embedding(side) for side in ("user", "item")]
        # The projections would lower the rows at each step where autocast has its way with them.
        dtype = torch.bfloat16 if config["enable_amp"] else torch.float32
        self.semantic = SemanticTable(sides, storage == "memory", dtype, unit_length)


class ContrastiveAlignment(_Alignment):
    """RLMRec-Con: InfoNCE between a node's representation and the projection of its semantic embedding.

    Each user of the batch is contrasted with the projected profiles of all users; each positive item with those of
    the batch's positive items, each negative item with those of the batch's negative items, duplicates included
    (``alignment_negatives: all``, the official code). ``batch`` contrasts with the batch's unique users and unique
    items instead. Nodes without an embedding are neither anchors nor negatives.

    ``alignment_weight: auto`` bounds how hard the alignment pulls on the representation, ``alignment_share`` times as
    hard as the backbone's own terms (:func:`~recbole_rlmrec.ops.balance.balanced`), with a weight of at most 1; a
    number is the weight at each step, as in the paper.

    ``alignment_weight: 0`` is the backbone itself: no projector exists and no random number is drawn.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.alignment_settings = ContrastiveSettings.from_config(config)
        self.projector = None
        if settings.alignment_weight != 0:
            if settings.semantic_storage == "memory_map" and settings.alignment_negatives == "all":
                raise SettingError(
                    "semantic_storage=memory_map with alignment_negatives=all would read the whole table from disk at "
                    "each step. Set alignment_negatives to batch, or semantic_storage to memory."
                )
            self._load_semantic(config, dataset, settings.semantic_storage)
            self.projector = Projector(self.semantic.dimension, self.output_dim, require(config, "seed"))

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the backbone's loss terms and, last, the weighted alignment term."""
        if self.projector is None:
            return super().calculate_loss(interaction)
        settings = self.alignment_settings
        bound = bound_of(settings.alignment_weight, settings.alignment_share)
        terms, representation = self.step(interaction, share=bound)
        terms["alignment"] = self._alignment(self.projector, representation, interaction)
        return self.named_losses(terms)

    def _alignment(self, projector: Projector, representation: Representation, interaction: Any) -> Tensor:
        user, items = self.alignment_anchors(interaction)
        if self.alignment_settings.alignment_negatives == "batch":
            total = self._within_batch(projector, representation, [user], 0)
            total = total + self._within_batch(projector, representation, items, self.n_users)
        else:
            total = self._against_all_users(projector, representation, user)
            total = total + self._within_batch(projector, representation, items, self.n_users, False)
        return number_of(self.alignment_settings.alignment_weight) * self.reduced(total, len(user))

    def _against_all_users(self, projector: Projector, representation: Representation, user: Tensor) -> Tensor:
        """Return the loss of the batch's users, each against the profiles of all users."""
        first, n = 1, self.n_users - 1
        share = this_shard().rows(n)
        candidate = join_rows(projector(self.semantic.block(first + share.start, first + share.stop)), n)
        rows, counts = distinct(user)
        own = this_shard().rows(len(rows))
        weight = counts * self.semantic.covered[rows]
        # [PAD] may stand for a row that is no anchor: it has weight 0, and no row among the candidates.
        positive = candidate.index_select(0, (rows[own] - first).clamp(min=0))
        anchor = representation.index_select(0, rows[own])
        covered = self._unless_full(self.semantic.covered[first : self.n_users])
        temperature = self.alignment_settings.alignment_temperature
        return info_nce(anchor, positive, candidate, temperature, weight[own], covered, weight.sum())

    def _within_batch(
        self,
        projector: Projector,
        representation: Representation,
        groups: list[Tensor],
        offset: int,
        joint: bool = True,
    ) -> Tensor:
        """Return the losses of groups of ids of one side, each against profiles of the batch.

        Args:
            projector: from semantic to collaborative space.
            representation: of the nodes, ``[U + I, output_dim]``.
            groups: ``[B]`` ids each; ``[PAD]`` stands for rows that are no anchors.
            offset: row of the side's id 0.
            joint: contrast with the distinct ids of all groups; else with the group itself, duplicates included.
        """
        # Each profile is projected once, however often the batch names its node.
        n_ids = self.n_items if offset else self.n_users
        together, occurrences = distinct(torch.cat(groups), n_ids)
        share = this_shard().rows(len(together))
        projected = join_rows(self._projected(projector, together[share] + offset), len(together))
        present = (occurrences > 0) & self.semantic.covered[together + offset]
        total = projected.new_zeros(())
        for ids in groups:
            rows, counts = (together, occurrences) if len(groups) == 1 else distinct(ids, n_ids)
            position = torch.searchsorted(together, rows)
            weight = counts * self.semantic.covered[rows + offset]
            profile = projected.index_select(0, position)
            own = this_shard().rows(len(rows))
            candidate, candidate_weight = (projected, present) if joint else (profile, weight)
            anchor = representation.index_select(0, rows[own] + offset)
            temperature = self.alignment_settings.alignment_temperature
            total = total + info_nce(
                anchor, profile[own], candidate, temperature, weight[own], candidate_weight, weight.sum()
            )
        return total

    def _projected(self, projector: Projector, rows: Tensor) -> Tensor:
        """Return the projected profiles of some rows of the stacked table, ``[n, output_dim]``."""
        n = len(rows)
        if torch.is_autocast_enabled(rows.device.type):
            rows = F.pad(rows, (0, lowered_length(n, rows.device) - n))  # with [PAD], which is cut off again
        profiles: Tensor = projector(self.semantic(rows))
        return profiles[:n]

    def _unless_full(self, covered: Tensor) -> Optional[Tensor]:
        """Return ``covered`` as weights, or None where nothing is uncovered and the weights would change nothing."""
        return covered if self.semantic.has_holes else None


class GenerativeAlignment(_Alignment):
    """RLMRec-Gen: mask ego embeddings and rebuild the masked nodes' semantic embeddings from what is propagated.

    At each step ``floor(mask_ratio * n)`` of the n nodes with an embedding, users and items together, get the mask
    token for their ego embedding. Every loss of the backbone runs on the masked table, as in the official code; the
    reconstruction is an InfoNCE over the masked nodes of the step, averaged over them.

    ``reconstruction_weight: auto`` and ``alignment_share`` bound the reconstruction as they bound Con's alignment.

    ``reconstruction_weight: 0`` is the backbone itself: nothing is masked and no random number is drawn.
    """

    node_mask: NodeMask

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.alignment_settings = GenerativeSettings.from_config(config)
        self.projector = None
        if self.alignment_settings.reconstruction_weight != 0:
            self._load_semantic(config, dataset, self.alignment_settings.semantic_storage, unit_length=True)
            covered = self.semantic.covered.nonzero().squeeze(1)
            mask_ratio, seed = self.alignment_settings.mask_ratio, require(config, "seed")
            self.node_mask = NodeMask(self.ego_dim, covered, mask_ratio, seed)
            if self.node_mask.n_masked == 0:
                least = math.ceil(1e4 / len(covered)) / 1e4
                raise SettingError(
                    f"mask_ratio={mask_ratio} masks none of the {len(covered)} nodes that have a semantic embedding; "
                    f"it must be at least {least:g}."
                )
            self.projector = Projector(self.output_dim, self.semantic.dimension, seed)
            if not self.sees_neighbours:
                getLogger().warning(
                    f"{type(self).__name__}: its backbone represents a node by the node's own embedding, so a masked "
                    "one by the mask token. The reconstruction trains token and projector, but no embedding; contrast "
                    "(RLMRecCon) trains embeddings."
                )

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the backbone's loss terms on the masked table and, last, the weighted reconstruction term."""
        if self.projector is None:
            return super().calculate_loss(interaction)
        masked = self.node_mask.draw()
        settings = self.alignment_settings
        bound = bound_of(settings.reconstruction_weight, settings.alignment_share)
        terms, representation = self.step(interaction, lambda ego: self.node_mask(ego, masked), bound)
        terms["reconstruction"] = self._reconstruction(self.projector, representation, masked, interaction)
        return self.named_losses(terms)

    def _reconstruction(
        self, projector: Projector, representation: Representation, masked: Tensor, interaction: Any
    ) -> Tensor:
        settings = self.alignment_settings
        own = this_shard().rows(len(masked))
        target = self.semantic(masked)
        hidden = projector.hidden(representation.index_select(0, masked[own]))
        last: Any = projector[2]
        loss = reconstruction_loss(
            hidden, last.weight, last.bias, target, settings.reconstruction_temperature, own.start, total=len(masked)
        )
        return number_of(settings.reconstruction_weight) * self.reduced(loss, len(interaction[self.USER_ID]))


class LightGCN_RLMRecCon(ContrastiveAlignment, LightGCN):
    """LightGCN with contrastive alignment."""


class LightGCN_RLMRecGen(GenerativeAlignment, LightGCN):
    """LightGCN with generative alignment."""


class SGL_RLMRecCon(ContrastiveAlignment, SGL):
    """SGL with contrastive alignment."""


class SGL_RLMRecGen(GenerativeAlignment, SGL):
    """SGL with generative alignment."""


class SimGCL_RLMRecCon(ContrastiveAlignment, SimGCL):
    """SimGCL with contrastive alignment."""


class SimGCL_RLMRecGen(GenerativeAlignment, SimGCL):
    """SimGCL with generative alignment."""


class GCCF_RLMRecCon(ContrastiveAlignment, GCCF):
    """GCCF with contrastive alignment."""


class GCCF_RLMRecGen(GenerativeAlignment, GCCF):
    """GCCF with generative alignment."""


class DCCF_RLMRecCon(ContrastiveAlignment, DCCF):
    """DCCF with contrastive alignment."""


class DCCF_RLMRecGen(GenerativeAlignment, DCCF):
    """DCCF with generative alignment."""


class AutoCF_RLMRecCon(ContrastiveAlignment, AutoCF):
    """AutoCF with contrastive alignment; negative items are not aligned."""


class AutoCF_RLMRecGen(GenerativeAlignment, AutoCF):
    """AutoCF with generative alignment."""
