"""AlphaRec (Sheng et al., "Language Representations Can be What Recommenders Need", 2024).

The original is LehengTHU/AlphaRec; what follows it is said beside each setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import scipy.sparse
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn.functional import normalize

from recbole_rlmrec.data.semantic_embedding import JoinedEmbedding
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.base import GraphBackbone, L2Scope, Terms
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.layers import DimensionSettings, Reduction, basis_of
from recbole_rlmrec.ops.distributed import Shard, Share, join_rows, this_shard
from recbole_rlmrec.ops.info_nce import sampled_info_nce
from recbole_rlmrec.ops.loss import squared_l2
from recbole_rlmrec.ops.mixture import perceptron_mixture
from recbole_rlmrec.ops.sampling import UnusedItems
from recbole_rlmrec.settings import COUNT, POSITIVE, Settings, known, setting

#: Of the leaky ReLU between the two layers: PyTorch's default, which the original takes.
_NEGATIVE_SLOPE = 0.01
#: Users whose means are computed at a time, so that they exist once.
_USERS_AT_ONCE = 4096


@dataclass(frozen=True)
class AlphaRecSettings(Settings):
    """Settings of :class:`AlphaRec`; a value without a note is the paper's."""

    # Width of the perceptron's output; its hidden layer has half of the input's.
    embedding_size: int = known("embedding_size", 64)
    n_layers: int = known("n_layers", 2)  # LightGCN's, averaged, layer 0 included
    reg_weight: float = known("reg_weight", 0.0)  # the code has no L2 term
    l2_scope: L2Scope = known("l2_scope", "all")  # there are no tables whose rows a batch could name
    temperature: float = setting(0.15, POSITIVE, "AlphaRec: temperature of the InfoNCE")
    negatives_per_positive: int = setting(256, COUNT, "AlphaRec: unused items drawn for each positive at each step")


class AlphaRec(GraphBackbone, GeneralRecommender):
    """Language representations only: no embedding of an id is trained.

    An item's ego embedding is a perceptron of its semantic embedding, a user's the same perceptron of the mean over the
    training items; both are propagated as in LightGCN. The loss is an InfoNCE over a positive and negatives of its own,
    by cosine, and so is the score. Profiles of users are not looked at.

    Items without a semantic embedding are left out of the means, and the perceptron gets zeros for them, as for users
    whose items have none. What reaches such a node is then its neighbours' part in the propagation.

    The negatives are drawn by the model, ``negatives_per_positive`` unused items again for each positive and step.
    RecBole's sampler would repeat the whole batch for each of them (``sample_num: 256`` leaves 16 positives in a batch
    of 4096), on the host and one process; RecBole's own negative of each positive is not looked at.
    """

    input_type = InputType.PAIRWISE

    reads_semantic_embeddings = True
    scores_semantic_embeddings = True
    settings_classes: ClassVar[SettingsClasses] = (AlphaRecSettings, DimensionSettings)

    language: Tensor

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.alpharec_settings = AlphaRecSettings.from_config(config)
        self._check(config)
        profiles = dataset.semantic_embedding("item")
        basis = basis_of(config, dataset)
        self.reduction = None if basis is None else Reduction(basis, partial(self._refill, profiles))
        # Under autocast the perceptron would cast the rows at each step.
        dtype = torch.bfloat16 if config["enable_amp"] else torch.float32
        self.register_buffer("language", self._language(profiles).to(dtype), persistent=False)
        users, items = (ids.numpy() for ids in self._interactions)
        self.unused_items = UnusedItems.from_pairs(users, items, self.n_users, self.n_items).to(self.device)
        self.first_layer, self.last_layer = self._layers()

    def language_inputs(self, language: Tensor) -> Tensor:
        """Return the inputs, ``[U + I, D']``, of what :func:`language_of_nodes` returns, ``[U + I, D]``."""
        return language

    def _layers(self) -> tuple[nn.Linear, nn.Linear]:
        """Return the layers of a perceptron; of reduced inputs the hidden width stays that of whole ones."""
        width = self.language.shape[1]
        if self.reduction is not None:
            n_values, n_read = self.reduction.vectors.shape
            width = width // n_read * n_values
        hidden = max(1, width // 2)
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, self.alpharec_settings.embedding_size)
        return first if self.reduction is None else self.reduction.reading(first), last

    def _language(self, profiles: JoinedEmbedding) -> Tensor:
        """Return the perceptron's inputs of users and items, ``[U + I, D']``."""
        users, items = (ids.numpy() for ids in self._interactions)
        basis = None if self.reduction is None else self.reduction.vectors.cpu().numpy()
        return self.language_inputs(language_of_nodes(profiles, users, items, self.n_users, basis))

    def _refill(self, profiles: JoinedEmbedding) -> None:
        self.language.copy_(self._language(profiles))

    def _check(self, config: Any) -> None:
        """Refuse settings that mean nothing here, where they say something else than the default."""
        if self.graph_settings.l2_scope != "all":
            raise SettingError(
                f"l2_scope=batch: {type(self).__name__} has no embeddings of the batch's ids. Leave l2_scope at 'all', "
                "which is the sum over its perceptron's weights."
            )
        sampling = config["train_neg_sample_args"]
        if sampling["distribution"] != "uniform" or sampling["sample_num"] != 1 or sampling.get("dynamic"):
            raise SettingError(
                f"train_neg_sample_args={dict(sampling)}: {type(self).__name__} draws its negatives itself, uniformly. "
                "Leave the setting out, and give their number as negatives_per_positive."
            )

    @property
    def ego_dim(self) -> int:
        """Width d of what the perceptron returns."""
        return self.alpharec_settings.embedding_size

    def ego_embeddings(self) -> Tensor:
        """Return what the perceptron makes of each node's language representation, ``[U + I, d]``."""
        # Evaluation is no common step of the processes: each has users of its own, or none.
        shard = this_shard() if self.training else Shard()
        share = shard.rows(len(self.language))
        rows = self.language[share]
        ego = self.mapped(rows if torch.is_autocast_enabled(rows.device.type) else rows.float(), share.start)
        return join_rows(ego, len(self.language)) if self.training else ego

    def mapped(self, rows: Tensor, start: int) -> Tensor:
        """Return what the perceptron makes of the inputs of the nodes from ``start`` on, ``[n, D']``, ``[n, d]``."""
        return perceptron(rows, self.first_layer, self.last_layer)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the representations of users ``[U, d]`` and items ``[I, d]``, of length 1: scores are cosines."""
        users, items = self.split(normalize(self.encode(self.ego_embeddings()), dim=1))
        return users, items

    def loss_terms(self, ego: Tensor, representation: Tensor, interaction: Any) -> Terms:
        """Return the InfoNCE over the positive and its own negatives, and L2 where it has a weight."""
        user, positive = interaction[self.USER_ID], interaction[self.ITEM_ID]
        local, settings = this_shard().rows(len(user)), self.alpharec_settings
        negative = self.unused_items.draw(user, settings.negatives_per_positive, local)
        users, items = self.split(representation)
        anchor = users.index_select(0, user[local])
        loss = sampled_info_nce(anchor, items, positive[local], negative, settings.temperature, total=len(user))
        terms: Terms = {"info_nce": Share(self.reduced(loss, len(user)))}
        if self.graph_settings.reg_weight > 0:
            weight = self.graph_settings.reg_weight / this_shard().world_size
            terms["reg"] = Share(weight * squared_l2([parameter for _, parameter in self.named_parameters()]))
        return terms


def perceptron(rows: Tensor, first: nn.Linear, last: nn.Linear) -> Tensor:
    """Return two layers with a leaky ReLU between them of ``rows``, ``[n, D]``, which are constant: ``[n, d]``."""
    weights = (part.unsqueeze(0) for layer in (first, last) for part in layer.parameters())
    first_weight, first_bias, last_weight, last_bias = weights
    return perceptron_mixture(rows, None, first_weight, first_bias, last_weight, last_bias, _NEGATIVE_SLOPE)


def language_of_nodes(
    profiles: JoinedEmbedding, users: np.ndarray, items: np.ndarray, n_users: int, basis: np.ndarray | None = None
) -> Tensor:
    """Return the items' semantic embeddings, below the means over each user's training items.

    Args:
        profiles: semantic embeddings of the items.
        users: ``[E]`` user of each interaction.
        items: ``[E]`` its item; repeated interactions count once.
        n_users: U.
        basis: orthonormal columns, ``[D, N]``, whose coordinates take the place of the D values; None for none.

    Returns:
        ``[U + I, D]``, or ``[U + I, N]``, users first; zeros for items without a semantic embedding, and users without
        such items.

    Raises:
        DataError: the semantic embeddings cover no item.
    """
    profiles.require_covered()
    width = profiles.embedding.dimension if basis is None else basis.shape[1]
    language = np.zeros((n_users + len(profiles.rows), width), dtype=np.float32)
    for ids, vectors in profiles.blocks():
        language[n_users + ids] = vectors if basis is None else vectors @ basis
    _put_means(users, items, language[:n_users], language[n_users:], profiles.covered)
    return torch.from_numpy(language)


def _put_means(users: np.ndarray, items: np.ndarray, means: np.ndarray, table: np.ndarray, covered: np.ndarray) -> None:
    """Put the mean of each user's items' vectors into ``means``; zeros for users without any.

    Args:
        users: ``[E]`` user of each interaction.
        items: ``[E]`` its item; repeated interactions count once.
        means: ``[U, D]``, written to.
        table: ``[I, D]``.
        covered: items to count, bool ``[I]``.
    """
    taken = covered[items]
    ones = np.ones(taken.sum(), dtype=np.float32)
    of_user = scipy.sparse.csr_matrix((ones, (users[taken], items[taken])), shape=(len(means), len(table)))
    of_user.data[:] = 1
    counts = np.maximum(of_user.sum(axis=1), 1)
    for start in range(0, len(means), _USERS_AT_ONCE):
        block = slice(start, start + _USERS_AT_ONCE)
        means[block] = (of_user[block] @ table) / counts[block]
