"""A backbone: LightGCN whose items' scores are tilted by a learned number, with a penalty on it."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from recbole_rlmrec.model.backbone.base import GraphBackbone, Terms
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.tables import EmbeddingTables
from recbole_rlmrec.settings import WEIGHT, Settings, known, setting


@dataclass(frozen=True)
class TiltSettings(Settings):
    n_layers: int = known("n_layers", 3)
    reg_weight: float = known("reg_weight", 1e-4)
    tilt_weight: float = setting(0.5, WEIGHT, "TiltedGCN: weight of the penalty on the tilt", published=0.125)


class TiltedGCN(GraphBackbone, EmbeddingTables):
    settings_classes: ClassVar[SettingsClasses] = (TiltSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.tilt_settings = TiltSettings.from_config(config)
        self.tilt = nn.Parameter(torch.ones(self.ego_dim))

    def ego_embeddings(self) -> Tensor:
        return super().ego_embeddings() * self.tilt

    def loss_terms(self, ego: Tensor, representation: Tensor, interaction: Any) -> Terms:
        terms = self.ranking_terms(representation, interaction)
        terms["tilt"] = self.tilt_settings.tilt_weight * (self.tilt - 1).square().sum()
        return terms
