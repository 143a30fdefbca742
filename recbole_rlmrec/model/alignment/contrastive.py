"""RLMRec-Con (Ren et al., WWW 2024): contrast between representations and projected semantic embeddings.

The formulas follow the official code where it differs from the paper (HKUDS/RLMRec @2241375).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.backbone.base import distinct
from recbole_rlmrec.model.backbone.contract import Representation, SettingsClasses
from recbole_rlmrec.model.layers import Projector, SemanticTable, StorageSettings
from recbole_rlmrec.ops.blockwise import padded_length
from recbole_rlmrec.ops.distributed import Share, join_rows, this_shard
from recbole_rlmrec.ops.info_nce import info_nce
from recbole_rlmrec.ops.projection import are_many
from recbole_rlmrec.settings import AUTO_WEIGHT, POSITIVE, Choice, Weight, require, setting

AlignmentNegatives = Literal["all", "batch"]


@dataclass(frozen=True)
class ContrastiveSettings(StorageSettings):
    """Settings of RLMRec-Con.

    Temperature and published weight are the most frequent values of the paper's 18 Con configurations (HKUDS/RLMRec
    @2241375): weight 0.01 in 14 of them, temperature 0.2 in 7, more than any other.
    """

    alignment_weight: Weight = setting(
        "auto",
        AUTO_WEIGHT,
        "Con: weight of the alignment term, or auto: as large as alignment_share allows; 0 is the backbone itself",
        published=0.01,
    )
    alignment_temperature: float = setting(0.2, POSITIVE, "Con: temperature of the alignment's InfoNCE")
    # all are the official code's denominators; slower, and more memory.
    alignment_negatives: AlignmentNegatives = setting(
        "batch",
        Choice.of(AlignmentNegatives),
        "Con: a user's negatives are all users, or the batch's unique nodes",
        example="all",
        published="all",
    )


class ContrastiveAlignment(Alignment):
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

    ending = "_RLMRecCon"
    term_name = "alignment"
    weight_setting = "alignment_weight"
    settings_classes: ClassVar[SettingsClasses] = (ContrastiveSettings,)

    alignment_settings: ContrastiveSettings
    semantic: SemanticTable
    projector: Projector

    def build_alignment(self, config: Any, dataset: Any) -> None:
        """Read the semantic embeddings, and make the projector from them to representations."""
        settings = self.alignment_settings
        if settings.semantic_storage == "memory_map" and settings.alignment_negatives == "all":
            raise SettingError(
                "semantic_storage=memory_map with alignment_negatives=all would read the whole table from disk at "
                "each step. Set alignment_negatives to batch, or semantic_storage to memory."
            )
        self.semantic = self.semantic_table(config, dataset, settings.semantic_storage)
        self.projector = Projector(self.semantic.whole_dimension, self.output_dim, require(config, "seed"))
        if self.semantic.reduction is not None:
            first: Any = self.projector[0]
            self.projector.replace(first=self.semantic.reduction.reading(first))

    @property
    def text_projector(self) -> Projector | None:
        """The projector, of users' and of items' whole embeddings; None at weight 0."""
        if not self.is_aligned or self.semantic.reduction is None:
            return self.projector if self.is_aligned else None
        of_whole = copy.deepcopy(self.projector)
        first: Any = of_whole[0]
        of_whole.replace(first=self.semantic.reduction.reading_rows(first))
        return of_whole

    def formula(self, representation: Representation, interaction: Any, drawn: Any) -> Share:
        """Return the InfoNCE of the batch's users, plus that of each group of its items, an average each."""
        projector = self.projector
        user, items = self.alignment_anchors(interaction)
        joint = self.alignment_settings.alignment_negatives == "batch"
        if joint:
            total = self._within_batch(projector, representation, [user], first=0, n_ids=self.n_users)
        else:
            total = self._against_all_users(projector, representation, user)
        total = total + self._within_batch(
            projector, representation, items, first=self.n_users, n_ids=self.n_items, joint=joint
        )
        return Share(total)

    def _against_all_users(self, projector: Projector, representation: Representation, user: Tensor) -> Tensor:
        """Return the loss of the batch's users, each against the profiles of all users."""
        first, n = 1, self.n_users - 1
        share = this_shard().rows(n)
        candidate = join_rows(projector(self.semantic.block(first + share.start, first + share.stop)), n)
        rows, counts = distinct(user)
        local = this_shard().rows(len(rows))
        weight = counts * self.semantic.covered[rows]
        # [PAD] may stand for a row that is no anchor: it has weight 0, and no row among the candidates.
        positive = candidate.index_select(0, (rows[local] - first).clamp(min=0))
        anchor = representation.index_select(0, rows[local])
        covered = self._unless_full(self.semantic.covered[first : self.n_users])
        temperature = self.alignment_settings.alignment_temperature
        return info_nce(anchor, positive, candidate, temperature, weight[local], covered, weight.sum())

    def _within_batch(
        self,
        projector: Projector,
        representation: Representation,
        groups: list[Tensor],
        *,
        first: int,
        n_ids: int,
        joint: bool = True,
    ) -> Tensor:
        """Return the losses of groups of ids of one side, each against profiles of the batch.

        Args:
            projector: from semantic to collaborative space.
            representation: of the nodes, ``[U + I, output_dim]``.
            groups: ``[B]`` ids each; ``[PAD]`` stands for rows that are no anchors.
            first: row of the side's id 0.
            n_ids: how many ids the side has.
            joint: contrast with the distinct ids of all groups; else with the group itself, duplicates included.
        """
        # Each profile is projected once, however often the batch names its node.
        together, occurrences = distinct(torch.cat(groups), n_ids)
        share = this_shard().rows(len(together))
        projected = join_rows(self._projected(projector, together[share] + first), len(together))
        present = (occurrences > 0) & self.semantic.covered[together + first]
        total = projected.new_zeros(())
        for ids in groups:
            rows, counts = (together, occurrences) if len(groups) == 1 else distinct(ids, n_ids)
            position = torch.searchsorted(together, rows)
            weight = counts * self.semantic.covered[rows + first]
            profile = projected.index_select(0, position)
            local = this_shard().rows(len(rows))
            candidate, candidate_weight = (projected, present) if joint else (profile, weight)
            anchor = representation.index_select(0, rows[local] + first)
            temperature = self.alignment_settings.alignment_temperature
            total = total + info_nce(
                anchor, profile[local], candidate, temperature, weight[local], candidate_weight, weight.sum()
            )
        return total

    def _projected(self, projector: Projector, rows: Tensor) -> Tensor:
        """Return the projected profiles of some rows of the stacked table, ``[n, output_dim]``."""
        n, vectors = len(rows), self.semantic.vectors
        is_cast = torch.is_autocast_enabled(rows.device.type)
        if vectors is not None and rows.device.type == "cpu" and not is_cast and are_many(n, self.semantic.dimension):
            return projector.of_rows(vectors, rows)
        if is_cast:
            rows = F.pad(rows, (0, padded_length(n, rows.device) - n))  # with [PAD], which is cut off again
        profiles: Tensor = projector(self.semantic(rows))
        return profiles[:n]

    def _unless_full(self, covered: Tensor) -> Tensor | None:
        """Return ``covered`` as weights, or None where nothing is uncovered and the weights would change nothing."""
        return covered if self.semantic.has_holes else None
