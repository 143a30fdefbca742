"""LR-GCCF (Chen et al., AAAI 2020), which RecBole does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import nn

from recbole_rlmrec.model.backbone.base import GraphBackbone, LayerCombination
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.tables import EmbeddingTables
from recbole_rlmrec.settings import FLAG, Settings, known, setting


@dataclass(frozen=True)
class GCCFSettings(Settings):
    """How GCCF's graph is made, and what of the official code's leftovers is kept.

    GCCF's own settings are not among our sources: widths, layers and L2 are those of LightGCN in RecBole.
    """

    n_layers: int = known("n_layers", 2)
    reg_weight: float = known("reg_weight", 1e-5)
    layer_combination: LayerCombination = known("layer_combination", "concat")
    # The official RLMRec code has them in the base model only.
    self_loops: bool = setting(True, FLAG, "GCCF: each node is its own neighbour in the graph")
    unused_layer_weights: bool = setting(
        False, FLAG, "GCCF: carry the official code's layer weights, which enter the L2 term and nothing else"
    )


class GCCF(GraphBackbone, EmbeddingTables):
    """Linear propagation with self-loops, layers concatenated (``layer_combination: concat``), BPR.

    In the official RLMRec code only the base model has the self-loops; its Con and Gen, whose class has another name,
    train without. Here all three have them unless ``self_loops`` says otherwise, as the tuned files of Con and Gen do.
    """

    settings_classes: ClassVar[SettingsClasses] = (GCCFSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = GCCFSettings.from_config(config)
        self.self_loops = settings.self_loops
        if settings.unused_layer_weights:
            width = self.ego_dim
            self.layer_weights = nn.ParameterList(
                nn.init.xavier_uniform_(torch.empty(width, width)) for _ in range(self.graph_settings.n_layers)
            )
