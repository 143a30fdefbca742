"""Linear models of items with texts, in closed form: the family of L3AE (Moon et al., CIKM 2025).

A user's score of an item is the sum of the weights that the items of the user's training have for it. The weights are
the solution of a least-squares problem, so that there are no epochs, no seeds and no steps. RecBole's EASE is the
member of the family without texts.

Weights between all items take memory by the square of their number, and time by its cube; a catalogue that the machine
cannot hold is refused.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor
from torch.nn.functional import embedding_bag

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.contract import ModelFlags, SettingsClasses
from recbole_rlmrec.ops.item_weights import (
    Columns,
    EaseColumns,
    MixedColumns,
    PulledColumns,
    TextColumns,
    gram_of,
    in_blocks,
    inverted,
)
from recbole_rlmrec.recbole_settings.memory import free_memory, gib
from recbole_rlmrec.settings import FLAG, POSITIVE, WEIGHT, Range, Settings, setting
from recbole_rlmrec.wording import ON_SCREEN

_logger = logging.getLogger(__name__)

# Defaults of the family validated better on Steam and on ml-100k than the authors' values, which are said beside them
# (results/later-methods).

#: Bytes for each pair of items: the inverse in double precision, and the weights in single precision.
_INVERSE_BYTES, _WEIGHT_BYTES = 8, 4


@dataclass(frozen=True)
class TextSettings(Settings):
    """How the texts enter: as stored in the authors' code, centred in the better repetitions by others."""

    center_texts: bool = setting(
        True, FLAG, "TextEASE, AdditiveEASE, CollectiveEASE, L3AE: take the mean off the items' semantic embeddings"
    )


@dataclass(frozen=True)
class TextPenaltySettings(Settings):
    """The penalty of weights that are found from texts alone; 5 to 10 in the authors' settings for NV-Embed-v2."""

    text_penalty: float = setting(
        10.0, POSITIVE, "TextEASE, AdditiveEASE, L3AE: penalty of the weights that are found from texts alone"
    )


@dataclass(frozen=True)
class InteractionPenaltySettings(Settings):
    """The penalty of an EASE, 50 to 500 in the authors' settings."""

    interaction_penalty: float = setting(1000.0, POSITIVE, "AdditiveEASE, CollectiveEASE: penalty of the weights")


@dataclass(frozen=True)
class AdditiveSettings(Settings):
    """The share of the texts, .4 to .6 in the authors' settings."""

    text_share: float = setting(0.3, Range(0, 1), "AdditiveEASE: share of the weights from texts in the sum")


@dataclass(frozen=True)
class CollectiveSettings(Settings):
    """The scale of the texts, 4 to 5 in the authors' settings."""

    text_scale: float = setting(4.0, WEIGHT, "CollectiveEASE: what the texts are multiplied by beside interactions")


@dataclass(frozen=True)
class L3AESettings(Settings):
    """Both penalties of L3AE, as their sum and the part of the texts.

    The authors' are (-50, 150), (-100, 200) and (-100, 150) for the weights and for their distance to the texts'
    weights: sums of 50 to 100 and pulls of 1.5 to 3. Repetitions by others chose sums of 200 to 400 and pulls of .5 to
    1.5.
    """

    total_penalty: float = setting(1000.0, POSITIVE, "L3AE: sum of the two penalties of the weights")
    text_pull: float = setting(
        0.5,
        WEIGHT,
        "L3AE: part of total_penalty that is on the distance to the weights from texts; above 1, the other is negative",
    )


class LinearItems(ModelFlags, GeneralRecommender):
    """Base of the family: what a subclass says of the weights' columns is computed and ranked by.

    Interactions that occur several times count once. An item without a semantic embedding has no weights from texts.
    """

    input_type = InputType.POINTWISE

    reads_semantic_embeddings = True
    scores_semantic_embeddings = True
    nothing_to_train = True
    # Evaluation is all there is, and each process evaluates its share of the users.
    shares_losses = True
    settings_classes: ClassVar[SettingsClasses] = (TextSettings,)

    #: Whether the inverse of a matrix of all items is needed beside the weights.
    inverts: ClassVar[bool] = True

    weights: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        texts = _texts(dataset, center=TextSettings.from_config(config).center_texts)
        interactions = dataset.inter_matrix(form="csr").astype(np.float64)
        interactions.sum_duplicates()
        interactions.data[:] = 1
        self.histories = interactions
        # Computed from data and settings alone: it has no place in a checkpoint.
        self.other_parameter_name: list[str] = []
        self._check_memory()
        weights = in_blocks(self.columns(config, interactions, texts), self.n_items)
        self.register_buffer("weights", torch.from_numpy(weights), persistent=False)

    def columns(self, config: Any, interactions: scipy.sparse.csr_matrix, texts: np.ndarray) -> Columns:
        """Return the weights by columns.

        Args:
            config: the run's configuration.
            interactions: ``[U, I]``, 1 for each of the training.
            texts: semantic embeddings of the items, float64 ``[I, D]``; zeros where an item has none.
        """
        raise NotImplementedError

    def _check_memory(self) -> None:
        """Say what the weights take, or refuse a catalogue that is too large for this machine.

        Raises:
            SettingError: it is.
        """
        name, per_pair = type(self).__name__, _WEIGHT_BYTES + _INVERSE_BYTES * self.inverts
        needed, free = self.n_items**2 * per_pair, free_memory(torch.device("cpu"))
        if needed > free:
            most = int((free / per_pair) ** 0.5)
            raise SettingError(
                f"{name} has weights between all items: {self.n_items:,} items take {gib(needed)}, and {gib(free)} are "
                f"free, enough for {most:,}. Take a model without such weights, such as AlphaRec, or a machine with "
                "more memory."
            )
        _logger.info(f"{name}: weights between {self.n_items:,} items take {gib(needed)}.", extra=ON_SCREEN)

    def predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given user-item pairs, ``[B]``."""
        history, starts = self._histories_of(interaction[self.USER_ID])
        lengths = torch.diff(starts, append=starts.new_tensor([len(history)]))
        pair = torch.arange(len(starts), device=starts.device).repeat_interleave(lengths)
        scores = self.weights.new_zeros(len(starts))
        return scores.index_add_(0, pair, self.weights[history, interaction[self.ITEM_ID][pair]])

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given users for all items, flattened to ``[B * I]``."""
        history, starts = self._histories_of(interaction[self.USER_ID])
        scores: Tensor = embedding_bag(history, self.weights, starts, mode="sum")
        return scores.view(-1)

    def _histories_of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items of some users (``[B]``) one after the other, and where those of each begin, ``[B]``."""
        rows = self.histories[users.cpu().numpy()]
        history, starts = (torch.from_numpy(each.astype(np.int64)) for each in (rows.indices, rows.indptr[:-1]))
        return history.to(self.weights.device), starts.to(self.weights.device)


class TextEASE(LinearItems):
    """Weights between items from their texts alone: EASE with the texts' dimensions for users. In closed form."""

    inverts = False
    settings_classes: ClassVar[SettingsClasses] = (TextPenaltySettings,)

    def columns(self, config: Any, interactions: scipy.sparse.csr_matrix, texts: np.ndarray) -> Columns:
        """Return the weights from texts."""
        return _text_columns(config, texts)


class AdditiveEASE(LinearItems):
    """The weights of EASE and those of TextEASE, mixed. In closed form."""

    settings_classes: ClassVar[SettingsClasses] = (
        TextPenaltySettings,
        InteractionPenaltySettings,
        AdditiveSettings,
    )

    def columns(self, config: Any, interactions: scipy.sparse.csr_matrix, texts: np.ndarray) -> Columns:
        """Return the mixture."""
        penalty = InteractionPenaltySettings.from_config(config).interaction_penalty
        of_interactions = EaseColumns(inverted(gram_of(interactions, penalty), f"interaction_penalty={penalty}"))
        share = AdditiveSettings.from_config(config).text_share
        return MixedColumns(of_interactions, _text_columns(config, texts), share)


class CollectiveEASE(LinearItems):
    """EASE with the texts' dimensions as further users. In closed form."""

    settings_classes: ClassVar[SettingsClasses] = (InteractionPenaltySettings, CollectiveSettings)

    def columns(self, config: Any, interactions: scipy.sparse.csr_matrix, texts: np.ndarray) -> Columns:
        """Return the weights of an EASE of interactions and scaled texts."""
        penalty = InteractionPenaltySettings.from_config(config).interaction_penalty
        scaled = CollectiveSettings.from_config(config).text_scale * texts
        return EaseColumns(inverted(gram_of(interactions, penalty, scaled), f"interaction_penalty={penalty}"))


class L3AE(LinearItems):
    """EASE whose weights are pulled to those of TextEASE. In closed form."""

    settings_classes: ClassVar[SettingsClasses] = (TextPenaltySettings, L3AESettings)

    def columns(self, config: Any, interactions: scipy.sparse.csr_matrix, texts: np.ndarray) -> Columns:
        """Return the weights of the two steps."""
        settings = L3AESettings.from_config(config)
        inverse = inverted(gram_of(interactions, settings.total_penalty), f"total_penalty={settings.total_penalty}")
        return PulledColumns(inverse, _text_columns(config, texts), settings.text_pull * settings.total_penalty)


def _text_columns(config: Any, texts: np.ndarray) -> TextColumns:
    penalty = TextPenaltySettings.from_config(config).text_penalty
    return TextColumns(texts, penalty, f"text_penalty={penalty}")


def _texts(dataset: Any, *, center: bool) -> np.ndarray:
    """Return the items' semantic embeddings, float64 ``[I, D]``; zeros where an item has none."""
    profiles = dataset.semantic_embedding("item")
    profiles.require_covered()
    texts: np.ndarray = profiles.matrix(np.float64)
    if center:
        texts[profiles.covered] -= texts[profiles.covered].mean(axis=0)
    return texts
