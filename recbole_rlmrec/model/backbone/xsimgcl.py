"""XSimGCL (Yu et al., TKDE 2023), which RecBole does not have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.simgcl import SimGCL
from recbole_rlmrec.ops.balance import shared
from recbole_rlmrec.settings import COUNT, Settings, Weight, known, setting


@dataclass(frozen=True)
class CrossLayerSettings(Settings):
    """Settings of XSimGCL's own, over the defaults of SimGCL.

    Yu et al., "XSimGCL: Towards Extremely Simple Graph Contrastive Learning for Recommendation", TKDE 2023: eps 0.2,
    lambda 0.2 and temperature 0.2; layer 1 of 3 is contrasted.
    """

    contrast_layer: int = setting(
        1, COUNT, "XSimGCL: layer that the representation is contrasted with, from 1 to n_layers"
    )
    n_layers: int = known("n_layers", 3)
    eps: float = known("eps", 0.2)
    ssl_weight: Weight = known("ssl_weight", "auto", published=0.2)


class XSimGCL(SimGCL):
    """SimGCL with one pass instead of three: the noisy layers are ranked by, and contrasted among themselves.

    While training, edges are dropped (``edge_keep_rate``) and noise is added after each layer. The layers combined are
    the representation, by default the mean of layers 1..L; that mean is contrasted with layer ``contrast_layer`` of
    the same pass. Evaluation drops nothing and adds no noise.
    """

    settings_classes: ClassVar[SettingsClasses] = (CrossLayerSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.contrast_layer = CrossLayerSettings.from_config(config).contrast_layer
        n_layers = self.graph_settings.n_layers
        if n_layers < 2 or self.contrast_layer > n_layers:
            raise SettingError(
                f"contrast_layer={self.contrast_layer} with n_layers={n_layers}: one of at least 2 layers is "
                "contrasted with their mean."
            )

    def layers(self, ego: Tensor) -> Tensor:
        """Return layers 0 to L, ``[L + 1, U + I, d]``, of ``ego``, ``[U + I, d]``; noisy while training."""
        graph = self.adjacency.drop_edges(self.graph_settings.edge_keep_rate if self.training else 1.0)
        layers = [ego]
        for _ in range(self.graph_settings.n_layers):
            layer = graph.matmul(layers[-1])
            layers.append(layer + self.noise(layer.detach()) if self.training else layer)
        return torch.stack(layers)

    def encode(self, ego: Tensor) -> Tensor:
        """Return the combined layers, ``[U + I, output_dim]``."""
        return self.combined(list(self.layers(ego)))

    def step(
        self, interaction: Any, mask: Callable[[Tensor], Tensor] | None = None, share: float | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return BPR, L2 and the contrast of the mean of the layers with one of them (``ssl``), and the representation.

        Both come with one pass, which is why this and not ``loss_terms`` is what XSimGCL supplies.
        """
        ego = self.ego_embeddings()
        own, of_contrast = shared(self.layers(ego if mask is None else mask(ego)), self.view_share)
        combined = self.combined(list(own))
        self.check_representation(combined)
        representation, aligned = shared(combined, share)
        terms = self.ranking_terms(representation, interaction)
        mean, layer = of_contrast[1:].mean(dim=0), of_contrast[self.contrast_layer]
        terms["ssl"] = self.view_contrast(self.contrast_settings, mean, layer, interaction)
        return self.summands(terms), aligned
