"""RLMRec (Ren et al., WWW 2024): align a recommender's representations with semantic embeddings of its profiles.

The two mixins work over any backbone of the contract in :mod:`recbole_rlmrec.model.backbone.base`; the explicit
classes are the paper's combinations. The formulas follow the official code where it differs from the paper
(HKUDS/RLMRec @2241375): Eq. 18 of the paper has neither weight nor temperature, the code has both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Optional

import torch
from torch import Tensor

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.base import GraphBackbone, unique_with_counts
from recbole_rlmrec.model.backbone.lightgcn import LightGCN
from recbole_rlmrec.model.backbone.sgl import SGL
from recbole_rlmrec.model.backbone.simgcl import SimGCL
from recbole_rlmrec.model.layers import NodeMask, Projector
from recbole_rlmrec.ops.info_nce import info_nce
from recbole_rlmrec.settings import Settings, require


@dataclass(frozen=True)
class ContrastiveSettings(Settings):
    """Settings of RLMRec-Con."""

    alignment_weight: float
    alignment_temperature: float
    alignment_negatives: Literal["all", "batch"]


@dataclass(frozen=True)
class GenerativeSettings(Settings):
    """Settings of RLMRec-Gen."""

    reconstruction_weight: float
    reconstruction_temperature: float
    mask_ratio: float


if TYPE_CHECKING:
    _Backbone = GraphBackbone
else:
    # At run time the mixins stand before whichever backbone they are combined with.
    _Backbone = object


class _SemanticTable(_Backbone):
    """Holds the semantic embeddings as buffers that follow the model's device and stay out of its checkpoint."""

    user_semantic: Tensor
    item_semantic: Tensor
    user_covered: Tensor
    item_covered: Tensor
    register_buffer: Any

    def _load_semantic(self, dataset: Any) -> int:
        """Load both tables, ``[U, D]`` and ``[I, D]``, with the masks of the ids they cover; return D."""
        for side in ("user", "item"):
            joined = dataset.semantic_embedding(side)
            self.register_buffer(f"{side}_semantic", torch.from_numpy(joined.matrix()), persistent=False)
            self.register_buffer(f"{side}_covered", torch.from_numpy(joined.covered), persistent=False)
        # Without holes, nothing is masked and no time is spent on it; row 0 is [PAD], which no batch contains.
        self._has_holes = not bool(self.user_covered[1:].all() and self.item_covered[1:].all())
        return self.user_semantic.shape[1]


class ContrastiveAlignment(_SemanticTable):
    """RLMRec-Con: InfoNCE between a node's representation and the projection of its semantic embedding.

    Each user of the batch is contrasted with the projected profiles of all users; each positive item with those of
    the batch's positive items, each negative item with those of the batch's negative items, duplicates included
    (``alignment_negatives: all``, the official code). ``batch`` contrasts with the batch's unique users and unique
    items instead. Nodes without an embedding are neither anchors nor negatives.

    ``alignment_weight: 0`` is the backbone itself: no projector exists and no random number is drawn.
    """

    projector: Optional[Projector]

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.alignment_settings = ContrastiveSettings.from_config(config)
        self.projector = None
        if self.alignment_settings.alignment_weight > 0:
            semantic_dim = self._load_semantic(dataset)
            self.projector = Projector(semantic_dim, self.output_dim, require(config, "seed"))

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the backbone's loss terms and, last, the weighted alignment term."""
        if self.projector is None:
            return super().calculate_loss(interaction)
        ego = self.ego_embeddings()
        representation = self.encode(ego)
        terms = self.loss_terms(ego, representation, interaction)
        terms["alignment"] = self._alignment(self.projector, representation, interaction)
        return self.named_losses(terms)

    def _alignment(self, projector: Projector, representation: Tensor, interaction: Any) -> Tensor:
        user, positive, negative = self.batch(interaction)
        users, items = self.split(representation)
        within_batch = self.alignment_settings.alignment_negatives == "batch"
        temperature = self.alignment_settings.alignment_temperature

        ids, counts = unique_with_counts(user)
        candidate_ids = ids if within_batch else torch.arange(1, self.n_users, device=ids.device)
        candidate = projector(self.user_semantic[candidate_ids])
        own = candidate if within_batch else candidate[ids - 1]
        weight = counts * self.user_covered[ids]
        total = info_nce(
            users[ids], own, candidate, temperature, weight, self._unless_full(self.user_covered[candidate_ids])
        )

        # Each profile is projected once, however often the batch names its item.
        batch_items = torch.unique(torch.cat([positive, negative]))
        projected = projector(self.item_semantic[batch_items])
        for rows in (positive, negative):
            ids, counts = unique_with_counts(rows)
            own = projected[torch.searchsorted(batch_items, ids)]
            weight = counts * self.item_covered[ids]
            if within_batch:
                candidate, candidate_weight = projected, self._unless_full(self.item_covered[batch_items])
            else:
                candidate, candidate_weight = own, weight
            total = total + info_nce(items[ids], own, candidate, temperature, weight, candidate_weight)
        return self.alignment_settings.alignment_weight * self.reduced(total, len(user))

    def _unless_full(self, covered: Tensor) -> Optional[Tensor]:
        """Return ``covered`` as weights, or None where nothing is uncovered and the weights would change nothing."""
        return covered.to(self.user_semantic.dtype) if self._has_holes else None


class GenerativeAlignment(_SemanticTable):
    """RLMRec-Gen: mask ego embeddings and rebuild the masked nodes' semantic embeddings from what is propagated.

    At each step ``floor(mask_ratio * n)`` of the n nodes with an embedding, users and items together, get the mask
    token for their ego embedding. Every loss of the backbone runs on the masked table, as in the official code; the
    reconstruction is an InfoNCE over the masked nodes of the step, averaged over them.

    ``reconstruction_weight: 0`` is the backbone itself: nothing is masked and no random number is drawn.
    """

    projector: Optional[Projector]
    node_mask: NodeMask

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.alignment_settings = GenerativeSettings.from_config(config)
        self.projector = None
        if self.alignment_settings.reconstruction_weight > 0:
            semantic_dim = self._load_semantic(dataset)
            covered = torch.cat([self.user_covered, self.item_covered]).nonzero().squeeze(1)
            mask_ratio, seed = self.alignment_settings.mask_ratio, require(config, "seed")
            self.node_mask = NodeMask(self.user_embedding.embedding_dim, covered, mask_ratio, seed)
            if self.node_mask.n_masked == 0:
                least = math.ceil(1e4 / len(covered)) / 1e4
                raise SettingError(
                    f"mask_ratio={mask_ratio} masks none of the {len(covered)} nodes that have a semantic embedding; "
                    f"it must be at least {least:g}."
                )
            self.projector = Projector(self.output_dim, semantic_dim, seed)

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the backbone's loss terms on the masked table and, last, the weighted reconstruction term."""
        if self.projector is None:
            return super().calculate_loss(interaction)
        masked = self.node_mask.draw()
        ego = self.node_mask(self.ego_embeddings(), masked)
        representation = self.encode(ego)
        terms = self.loss_terms(ego, representation, interaction)
        terms["reconstruction"] = self._reconstruction(self.projector, representation, masked, interaction)
        return self.named_losses(terms)

    def _reconstruction(self, projector: Projector, representation: Tensor, masked: Tensor, interaction: Any) -> Tensor:
        settings = self.alignment_settings
        is_user = masked < self.n_users
        target = torch.cat([self.user_semantic[masked[is_user]], self.item_semantic[masked[~is_user] - self.n_users]])
        rows = torch.cat([masked[is_user], masked[~is_user]])
        rebuilt = projector(representation[rows])
        loss = info_nce(rebuilt, target, target, settings.reconstruction_temperature)
        return settings.reconstruction_weight * self.reduced(loss, len(interaction[self.USER_ID]))


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
