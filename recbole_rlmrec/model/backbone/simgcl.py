"""SimGCL (Yu et al., SIGIR 2022), which RecBole does not have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from recbole_rlmrec.model.backbone.base import BoundedContrastSettings, GraphBackbone, Terms
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.tables import EmbeddingTables
from recbole_rlmrec.settings import WEIGHT, Weight, known, setting


@dataclass(frozen=True)
class SimGCLSettings(BoundedContrastSettings):
    """The original paper's: L2 1e-4, temperature 0.2, the batch's unique nodes as negatives.

    RLMRec takes the full tables as negatives. eps 0.1 and, published, lambda 0.5 are the paper's for Yelp2018.
    """

    n_layers: int = known("n_layers", 2)  # as in the authors' released configuration
    reg_weight: float = known("reg_weight", 1e-4)
    include_ego_layer: bool = known("include_ego_layer", False)  # the paper averages layers 1..L; RLMRec sums 0..L
    # RLMRec: 0.9.
    eps: float = setting(0.1, WEIGHT, "SimGCL, XSimGCL: length of the noise added after each layer")
    ssl_weight: Weight = known("ssl_weight", "auto", published=0.5)
    ssl_tau: float = known("ssl_tau", 0.2)


class SimGCL(GraphBackbone, EmbeddingTables):
    """LightGCN plus the contrast between two views with noise added after each layer; no graph is augmented.

    Defaults are the original paper's: layers 1..L averaged, the batch's unique nodes as negatives. RLMRec takes
    layers 0..L summed and the full tables as negatives; the hyper-parameters of one do not suit the other.
    """

    settings_classes: ClassVar[SettingsClasses] = (SimGCLSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.contrast_settings = SimGCLSettings.from_config(config)
        self.view_share = self.contrast_settings.bound

    def noise(self, layer: Tensor) -> Tensor:
        """Return what is added to a layer, ``[U + I, d]``, see :func:`noise_in_orthant`."""
        return noise_in_orthant(layer, self.contrast_settings.eps)

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
