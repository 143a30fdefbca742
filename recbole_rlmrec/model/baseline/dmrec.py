"""DMRec (BlueGhostYi/ProRec @48a3a3d5, 2025) on RecBole's MultiVAE: a second Gaussian from texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from recbole.model.general_recommender.multivae import MultiVAE
from torch import Tensor, nn

from recbole_rlmrec.model.backbone.contract import ModelFlags, SettingsClasses
from recbole_rlmrec.model.layers import SemanticTable
from recbole_rlmrec.settings import WEIGHT, Choice, Settings, setting
from recbole_rlmrec.sides import SIDES

Matching = Literal["mddm", "godm", "cpdm"]

#: What the authors add to a variance that is divided by.
_LEAST_VARIANCE = 1e-7


@dataclass(frozen=True)
class DMRecSettings(Settings):
    """Settings of :class:`DMRec`, the authors'."""

    matching: Matching = setting(
        "mddm", Choice.of(Matching), "DMRec: how the Gaussians of interactions and of texts are matched"
    )
    # amazon-book, yelp and steam: mddm .6, .4, .5; godm .4, .8, 1; cpdm .2, .9, .6.
    matching_weight: float = setting(
        0.5,
        WEIGHT,
        "DMRec: weight of the match; with mddm, which has 1 minus it for the match, of the divergence from N(0, 1)",
    )


class DMRec(ModelFlags, MultiVAE):
    """Mult-VAE with a second encoder of the texts, whose means and log variances are added, and a match of both.

    The second encoder reads the sum of the profiles of the user's items that the dropout leaves, and the user's. The
    match is of the sum of both Gaussians with the texts' (``mddm``, as in the authors' code), of their distance
    (``godm``: 2-Wasserstein), or of both with their average (``cpdm``). Rows of interactions are not normalised, the
    divergences do not warm up, and layers start as PyTorch's.
    """

    reads_semantic_embeddings = True
    scores_semantic_embeddings = True
    settings_classes: ClassVar[SettingsClasses] = (DMRecSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.dmrec_settings = DMRecSettings.from_config(config)
        sides = [dataset.semantic_embedding(side) for side in SIDES]
        for side in sides:
            side.require_covered()
        self.semantic = SemanticTable(sides)
        self.text_encoder = self.mlp_layers([self.semantic.dimension, *self.encode_layer_dims[1:]])
        self.apply(_as_pytorch_starts)

    def gaussians(self, user: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return means and log variances from interactions, then those from texts, ``[B, d]`` each.

        Args:
            user: ids, ``[B]``.
            rows: their interactions, 0 or 1, ``[B, I]``.
        """
        kept = F.dropout(rows, self.drop_out, training=self.training)
        texts = kept @ self.semantic.block(self.n_users, self.n_users + self.n_items) + self.semantic(user)
        return (*self.encoder(kept).chunk(2, dim=1), *self.text_encoder(texts).chunk(2, dim=1))

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, Tensor]:
        """Return the multinomial loss and the divergences, means over the users."""
        user = interaction[self.USER_ID]
        rows = self.get_rating_matrix(user)
        mean, log_variance, text_mean, text_log_variance = self.gaussians(user, rows)
        both_mean, both_log = mean + text_mean, log_variance + text_log_variance
        latent = both_mean + torch.randn_like(both_mean) * (both_log / 2).exp()
        rebuilding = -(F.log_softmax(self.decoder(latent), dim=1) * rows).sum(dim=1).mean()
        zeros, weight = torch.zeros_like(both_mean), self.dmrec_settings.matching_weight
        prior = divergence(both_mean, both_log, zeros, zeros)
        if self.dmrec_settings.matching == "mddm":
            match = divergence(both_mean, both_log, text_mean, text_log_variance)
            divergences = weight * prior + (1 - weight) * match
        elif self.dmrec_settings.matching == "godm":
            deviations = (log_variance / 2).exp() - (text_log_variance / 2).exp()
            squares = (mean - text_mean).square().sum(dim=1) + deviations.square().sum(dim=1)
            divergences = prior + weight * (squares + _LEAST_VARIANCE).sqrt().mean()
        else:
            average = (both_mean + text_mean) / 2, (both_log + text_log_variance) / 2
            match = divergence(both_mean, both_log, *average)
            match = match + divergence(text_mean, text_log_variance, *average)
            divergences = prior + weight * match
        self.loss_names = ("rebuilding", "matching")
        return rebuilding, divergences

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given users for all items, flattened to ``[B * I]``."""
        return self._scores(interaction).view(-1)

    def predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given user-item pairs, ``[B]``."""
        return self._scores(interaction).gather(1, interaction[self.ITEM_ID].unsqueeze(1)).squeeze(1)

    def _scores(self, interaction: Any) -> Tensor:
        user = interaction[self.USER_ID]
        mean, _, text_mean, _ = self.gaussians(user, self.get_rating_matrix(user))
        scores: Tensor = self.decoder(mean + text_mean)
        return scores


def divergence(mean: Tensor, log_variance: Tensor, of_mean: Tensor, of_log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of the first Gaussians from the second, a mean over the rows.

    Args:
        mean: ``[B, d]``.
        log_variance: ``[B, d]``, of independent dimensions.
        of_mean: of the second.
        of_log_variance: likewise.

    >>> zeros = torch.zeros(1, 2)
    >>> round(divergence(zeros + 1, zeros, zeros, zeros).item(), 4)
    1.0
    """
    variance = of_log_variance.exp() + _LEAST_VARIANCE
    ratio = (log_variance.exp() + (mean - of_mean).square()) / variance
    return (variance.log() - log_variance + ratio - 1).sum(dim=1).mean() / 2


def _as_pytorch_starts(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.reset_parameters()
