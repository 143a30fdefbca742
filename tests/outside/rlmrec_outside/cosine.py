"""An alignment: one minus the cosine between a user's representation and its projected profile."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch.nn.functional import cosine_similarity

from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.layers import Projector
from recbole_rlmrec.settings import AUTO_WEIGHT, Settings, Weight, setting


@dataclass(frozen=True)
class CosineSettings(Settings):
    cosine_weight: Weight = setting(0.3, AUTO_WEIGHT, "Cosine: weight of the term, or auto")


class CosineAlignment(Alignment):
    ending = "_Cosine"
    term_name = "cosine"
    weight_setting = "cosine_weight"
    settings_classes: ClassVar[SettingsClasses] = (CosineSettings,)

    def build_alignment(self, config: Any, dataset: Any) -> None:
        self.semantic = self.semantic_table(config, dataset)
        self.projector = Projector(self.semantic.dimension, self.output_dim, config["seed"])

    def formula(self, representation: Any, interaction: Any, drawn: Any) -> Any:
        users, _ = self.alignment_anchors(interaction)
        covered = self.semantic.covered[users]
        cosines = cosine_similarity(representation.index_select(0, users), self.projector(self.semantic(users)))
        return ((1 - cosines) * covered).sum() / covered.sum()
