"""RLMRec-Gen (Ren et al., WWW 2024): reconstruction of the semantic embeddings of masked nodes.

The formulas follow the official code where it differs from the paper (HKUDS/RLMRec @2241375): Eq. 18 of the paper has
neither weight nor temperature, the code has both.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.backbone.contract import Representation, SettingsClasses
from recbole_rlmrec.model.layers import NodeMask, Projector, SemanticTable, StorageSettings
from recbole_rlmrec.ops.distributed import Share, this_shard
from recbole_rlmrec.ops.info_nce import reconstruction_loss
from recbole_rlmrec.settings import AUTO_WEIGHT, POSITIVE, Range, Weight, require, setting

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerativeSettings(StorageSettings):
    """Settings of RLMRec-Gen.

    From the paper's 18 Gen configurations (HKUDS/RLMRec @2241375): weight 0.1 in 8 of them (6 of the 9 of LightGCN, SGL
    and SimGCL), temperature 0.2 in 7, more than any other; mask ratio 0.1 is their median.
    """

    reconstruction_weight: Weight = setting(
        "auto",
        AUTO_WEIGHT,
        "Gen: weight of the reconstruction term, or auto: as large as alignment_share allows; 0 is the backbone itself",
        published=0.1,
    )
    reconstruction_temperature: float = setting(0.2, POSITIVE, "Gen: temperature of the reconstruction's InfoNCE")
    mask_ratio: float = setting(0.1, Range(0, 1, includes_low=False), "Gen: share of the nodes masked at each step")


class GenerativeAlignment(Alignment):
    """RLMRec-Gen: mask ego embeddings and rebuild the masked nodes' semantic embeddings from what is propagated.

    At each step ``floor(mask_ratio * n)`` of the n nodes with an embedding, users and items together, get the mask
    token for their ego embedding. Every loss of the backbone runs on the masked table, as in the official code; the
    reconstruction is an InfoNCE over the masked nodes of the step, averaged over them.

    ``reconstruction_weight: auto`` and ``alignment_share`` bound the reconstruction as they bound Con's alignment.

    ``reconstruction_weight: 0`` is the backbone itself: nothing is masked and no random number is drawn.
    """

    ending = "_RLMRecGen"
    term_name = "reconstruction"
    weight_setting = "reconstruction_weight"
    masks = True
    settings_classes: ClassVar[SettingsClasses] = (GenerativeSettings,)

    alignment_settings: GenerativeSettings
    semantic: SemanticTable
    projector: Projector
    node_mask: NodeMask

    def build_alignment(self, config: Any, dataset: Any) -> None:
        """Read the semantic embeddings, and make mask token and the projector from representations to embeddings."""
        settings, seed = self.alignment_settings, require(config, "seed")
        self.semantic = self.semantic_table(config, dataset, settings.semantic_storage, unit_length=True)
        covered = self.semantic.covered.nonzero().squeeze(1)
        self.node_mask = NodeMask(self.ego_dim, covered, settings.mask_ratio, seed)
        if self.node_mask.n_masked == 0:
            least = math.ceil(1e4 / len(covered)) / 1e4
            raise SettingError(
                f"mask_ratio={settings.mask_ratio} masks none of the {len(covered)} nodes that have a semantic "
                f"embedding; it must be at least {least:g}."
            )
        self.projector = Projector(self.output_dim, self.semantic.whole_dimension, seed)
        if self.semantic.reduction is not None:
            last: Any = self.projector[2]
            self.projector.replace(last=self.semantic.reduction.returning(last))
        if not self.sees_neighbours:
            _logger.warning(
                f"{type(self).__name__}: its backbone represents a node by the node's own embedding, so a masked "
                "one by the mask token. The reconstruction trains token and projector, but no embedding; contrast "
                "(RLMRecCon) trains embeddings."
            )

    def draw_alignment(self, interaction: Any) -> Tensor:
        """Return the rows to mask at this step, ``[n_masked]``."""
        return self.node_mask.draw()

    def mask_ego(self, ego: Tensor, drawn: Tensor) -> Tensor:
        """Return the ego embeddings, ``[U + I, d]``, with the token in the rows drawn."""
        masked: Tensor = self.node_mask(ego, drawn)
        return masked

    def formula(self, representation: Representation, interaction: Any, drawn: Tensor) -> Share:
        """Return the InfoNCE between what the masked nodes are rebuilt as and what their profiles say."""
        rows = this_shard().rows(len(drawn))
        target = self.semantic(drawn)
        hidden = self.projector.hidden(representation.index_select(0, drawn[rows]))
        last: Any = self.projector[2]
        temperature = self.alignment_settings.reconstruction_temperature
        return Share(
            reconstruction_loss(hidden, last.weight, last.bias, target, temperature, rows.start, total=len(drawn))
        )
