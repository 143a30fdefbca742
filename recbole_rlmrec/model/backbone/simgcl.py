"""SimGCL (Yu et al., SIGIR 2022), which RecBole does not have."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_rlmrec.model.backbone.base import GraphBackbone, Terms, ViewContrastSettings
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.tables import EmbeddingTables
from recbole_rlmrec.settings import bound_of, require


class SimGCL(GraphBackbone, EmbeddingTables):
    """LightGCN plus the contrast between two views with noise added after each layer; no graph is augmented.

    Defaults are the original paper's: layers 1..L averaged, the batch's unique nodes as negatives. RLMRec takes
    layers 0..L summed and the full tables as negatives; the hyper-parameters of one do not suit the other.
    """

    settings_classes: ClassVar[SettingsClasses] = (ViewContrastSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.contrast_settings = ViewContrastSettings.from_config(config)
        self.view_share = bound_of(self.contrast_settings.ssl_weight, require(config, "ssl_share"))
        self.eps: float = require(config, "eps")

    def noise(self, layer: Tensor) -> Tensor:
        """Return what is added to a layer, ``[U + I, d]``, see :func:`noise_in_orthant`."""
        return noise_in_orthant(layer, self.eps)

    def loss_terms(self, ego: Tensor, representation: Tensor, interaction: Any) -> Terms:
        """Return BPR, L2 and the contrast of the two noisy views (``ssl``)."""
        first, second = (self.propagate(ego, self.adjacency, self.noise) for _ in range(2))
        terms = self.ranking_terms(representation, interaction)
        terms["ssl"] = self.view_contrast(self.contrast_settings, first, second, interaction)
        return terms


def noise_in_orthant(layer: Tensor, eps: float) -> Tensor:
    """Return noise of length ``eps`` for each row, in the orthant of the row: ``sign(E) * normalize(U) * eps``.

    Args:
        layer: ``[N, d]``.
        eps: the length.
    """
    uniform = torch.rand_like(layer)
    return uniform.mul_(eps / torch.linalg.vector_norm(uniform, dim=1, keepdim=True)).mul_(layer.sign())
