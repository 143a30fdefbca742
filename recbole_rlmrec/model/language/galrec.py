"""GAL-Rec as far as it is published (Guan et al., arXiv 2406.13235, 2024).

Published are the idea and the form of the loss: representations by a language model, a cross-entropy ``L0`` and
contrasts ``L1`` to ``L3`` between a node, its 1-hop and its 2-hop neighbours, with negatives from a queue of a
momentum encoder's keys, and external collaborative embeddings as an input. Not published are the language model, the
prompt, the weights, the temperature, the queue's length, which pair ``L3`` is, and any code; what is ours is said
beside each setting, and no number here is theirs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from recbole.model.abstract_recommender import GeneralRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn.functional import normalize

from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.backbone.base import KeptRepresentation
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.language.hops import Neighbours, mean_of_neighbours
from recbole_rlmrec.model.language.keys import KeyEncoder, KeyQueue
from recbole_rlmrec.model.language.settings import FROZEN, GALRecSettings
from recbole_rlmrec.ops.distributed import summand
from recbole_rlmrec.ops.info_nce import info_nce
from recbole_rlmrec.sides import SIDES

if TYPE_CHECKING:
    from recbole_rlmrec.model.language.text_encoder import TextEncoder


class GALRec(KeptRepresentation, GeneralRecommender):
    """Users and items represented by a language model, which learns from the interaction graph by contrast.

    With ``language_model: frozen`` a perceptron of what is given of a node: its semantic embedding, the means over
    those of its 1-hop neighbours and of what these lead to (2 hops), the external representation, and its side. With
    another value a Hugging Face model reads the node's profile and titles around it, see
    :class:`~recbole_rlmrec.model.language.text_encoder.TextEncoder`. Representations have length 1; a score is a
    cosine.

    Of an interaction ``(u, i)`` are drawn another user ``u'`` of ``i`` and another item ``i'`` of ``u``. With ``h`` the
    encoder and ``k`` its momentum copy:

    - L0: ``h(u)`` has ``h(i)`` among the batch's items and the items in the queue.
    - L1: ``h(u)`` has ``k(u')`` among the users' keys, and ``h(i)`` has ``k(i')`` among the items'.
    - L2: ``h(i)`` has ``k(u')``, and ``h(u)`` has ``k(i')``.
    - L3: ``h(u)`` has ``k(i)``, and ``h(i)`` has ``k(u)``; that this is the third pair is our reading.

    Each L1 to L3 is the mean of its two. Keys are those of the batch and of the queue; of a node that is in both, the
    batch's counts.
    """

    input_type = InputType.PAIRWISE

    reads_semantic_embeddings = True
    scores_semantic_embeddings = True
    settings_classes: ClassVar[SettingsClasses] = (GALRecSettings,)

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.galrec_settings = settings = GALRecSettings.from_config(config)
        users, items = (dataset.inter_feat[name].numpy() for name in (dataset.uid_field, dataset.iid_field))
        self.is_frozen = settings.language_model == FROZEN
        external = _external(settings.external_embeddings, dataset)
        width = settings.embedding_size
        self.encoder: FeatureEncoder | TextEncoder
        if self.is_frozen:
            features = _features(dataset, users, items, external, settings.neighbour_texts)
            self.encoder = FeatureEncoder(features, settings.hidden_size, width)
        else:
            from recbole_rlmrec.model.language.text_encoder import TextEncoder  # which imports more

            self.encoder = TextEncoder(settings, dataset, external)
        self.key_encoder = KeyEncoder(self.encoder, settings.key_momentum)
        self.users_of = Neighbours(items, users, self.n_items)
        self.items_of = Neighbours(users, items, self.n_users)
        n_nodes = self.n_users + self.n_items
        self.queues = nn.ModuleDict({side: KeyQueue(settings.queue_size, width, n_nodes) for side in SIDES})

    @property
    def ego_dim(self) -> int:
        """Width d of a representation."""
        return self.galrec_settings.embedding_size

    # ------------------------------------------------------------------ loss

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return L0 and those of L1 to L3 that have a weight; the encoder of keys and the queues move on."""
        settings = self.galrec_settings
        user, item = interaction[self.USER_ID], interaction[self.ITEM_ID]
        other_user, has_user = self.users_of.draw(item, user)
        other_item, has_item = self.items_of.draw(user, item)
        user_node, item_node = user, item + self.n_users
        user_key, item_key = other_user, other_item + self.n_users
        n_nodes = self.n_users + self.n_items

        asked = torch.cat([user_node, item_node]).unique()
        represented = _Rows(asked, normalize(self.encoder(asked), dim=1), n_nodes)
        self.key_encoder.follow()
        known = torch.cat([asked, user_key, item_key]).unique()
        keys = _Rows(known, normalize(self.key_encoder(known), dim=1), n_nodes)

        h_user, h_item = represented.of(user_node), represented.of(item_node)
        items = item_node.unique()
        terms = {"ranking": self._contrast(h_user, h_item, (items, represented.of(items)), "item")}
        is_user = known < self.n_users
        users, items = known[is_user], known[~is_user]
        of_side = {"user": (users, keys.of(users)), "item": (items, keys.of(items))}
        users_hop2 = (keys.of(user_key), of_side["user"], "user", has_user)
        items_hop2 = (keys.of(item_key), of_side["item"], "item", has_item)
        contrasts = {
            "hop2_self": (settings.hop2_self_weight, (h_user, *users_hop2), (h_item, *items_hop2)),
            "hop2_hop1": (settings.hop2_hop1_weight, (h_item, *users_hop2), (h_user, *items_hop2)),
            "hop1_self": (
                settings.hop1_self_weight,
                (h_user, keys.of(item_node), of_side["item"], "item", None),
                (h_item, keys.of(user_node), of_side["user"], "user", None),
            ),
        }
        for name, (weight, *both) in contrasts.items():
            if weight > 0:
                terms[name] = weight * torch.stack([self._contrast(*each) for each in both]).mean()
        for side, (ids, vectors) in of_side.items():
            self._queue(side).add(ids, vectors)
        return self.named_losses({name: summand(term, f"GALRec: {name}") for name, term in terms.items()})

    def _contrast(
        self,
        anchor: Tensor,
        positive: Tensor,
        known: tuple[Tensor, Tensor],
        side: str,
        counts: Tensor | None = None,
    ) -> Tensor:
        """Return the InfoNCE of anchors with their positives, among the vectors of some nodes and a side's queue.

        Args:
            anchor: ``[B, d]``.
            positive: ``[B, d]``; each is one of the known vectors.
            known: nodes, each once, ``[n]``, and their vectors, ``[n, d]``.
            side: whose queue.
            counts: which anchors count, bool ``[B]``; all, if not given.
        """
        ids, vectors = known
        queue = self._queue(side)
        candidates = torch.cat([vectors, queue.keys.to(vectors.dtype)])
        weights = torch.cat([vectors.new_ones(len(ids)), queue.weights(ids).to(vectors.dtype)])
        of_anchors = None if counts is None else counts.to(vectors.dtype)
        return info_nce(anchor, positive, candidates, self.galrec_settings.contrast_temperature, of_anchors, weights)

    def _queue(self, side: str) -> KeyQueue:
        queue: Any = self.queues[side]
        return queue

    # ------------------------------------------------------------------ representations and scores

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the representations of users ``[U, d]`` and items ``[I, d]``, of length 1."""
        blocks = torch.arange(self.n_users + self.n_items, device=self.device).split(self.encoder.at_once)
        stacked = torch.cat([normalize(self.encoder(ids), dim=1) for ids in blocks])
        users, items = torch.split(stacked, [self.n_users, self.n_items])
        return users, items

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the state without a language model's weights that are not trained: those are in its own files."""
        found = super().state_dict(*args, **kwargs)
        for name in self._untrained():
            found.pop(name, None)
        return found

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load what :meth:`state_dict` returned."""
        here = super().state_dict()
        untrained = {name: here[name] for name in self._untrained()}
        return super().load_state_dict({**untrained, **state_dict}, *args, **kwargs)

    def _untrained(self) -> list[str]:
        if self.is_frozen:
            return []
        return [name for name, parameter in self.named_parameters() if not parameter.requires_grad]


class FeatureEncoder(nn.Module):
    """A perceptron with one hidden layer over what is given of each node.

    Args:
        features: ``[U + I, F]``, constants that are in no checkpoint.
        hidden_size: of the hidden layer.
        width: d, of the output.
    """

    features: Tensor
    #: Nodes that are represented at a time in an evaluation.
    at_once: ClassVar[int] = 65_536

    def __init__(self, features: np.ndarray, hidden_size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("features", torch.from_numpy(features), persistent=False)
        self.hidden_layer = nn.Linear(features.shape[1], hidden_size)
        self.last_layer = nn.Linear(hidden_size, width)

    def forward(self, ids: Tensor) -> Tensor:
        """Return what represents some nodes, ``[n, d]``."""
        hidden = torch.nn.functional.gelu(self.hidden_layer(self.features.index_select(0, ids)))
        represented: Tensor = self.last_layer(hidden)
        return represented


class _Rows:
    """Rows of some nodes, found by the nodes' ids.

    Args:
        ids: ``[n]``.
        rows: ``[n, d]``.
        n_ids: ids are below this.
    """

    def __init__(self, ids: Tensor, rows: Tensor, n_ids: int) -> None:
        self._rows = rows
        self._place = torch.zeros(n_ids, dtype=torch.long, device=ids.device)
        self._place[ids] = torch.arange(len(ids), device=ids.device)

    def of(self, ids: Tensor) -> Tensor:
        """Return the rows of nodes, ``[B, d]``."""
        return self._rows.index_select(0, self._place[ids])


# ---------------------------------------------------------------------- what is given of a node


def _features(
    dataset: Any, users: np.ndarray, items: np.ndarray, external: np.ndarray | None, n_hops: int
) -> np.ndarray:
    """Return what the perceptron reads of each node, float32 ``[U + I, F]``; each part has rows of length 1, or zeros.

    Args:
        dataset: of the training.
        users: user of each training interaction, internal ids, ``[E]``.
        items: its item, ``[E]``.
        external: external representations, ``[U + I, d']``; None for none.
        n_hops: hops of which the neighbours' texts are read.
    """
    joined = {side: dataset.semantic_embedding(side) for side in SIDES}
    joined["item"].require_covered()
    texts = [joined[side].matrix() for side in SIDES]
    sizes = len(texts[0]), len(texts[1])
    parts = [np.concatenate(texts)]
    vectors, counted = texts, [joined[side].covered for side in SIDES]
    for _ in range(n_hops):
        vectors = [
            mean_of_neighbours(users, items, sizes[0], vectors[1], counted[1]),
            mean_of_neighbours(items, users, sizes[1], vectors[0], counted[0]),
        ]
        counted = [each.any(axis=1) for each in vectors]
        parts.append(np.concatenate(vectors))
    if external is not None:
        parts.append(external)
    is_user = np.where(np.arange(sum(sizes)) < sizes[0], 1.0, -1.0).astype(np.float32)
    return np.concatenate([*map(_unit, parts), is_user[:, None]], axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of length 1; those of zeros stay so."""
    scaled: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return scaled


def _external(folder: str | None, dataset: Any) -> np.ndarray | None:
    """Return the exported representations of another model, float32 ``[U + I, d']``, joined by id; zeros without one.

    Raises:
        SettingError: it is a checkpoint.
        DataError: the files are missing or malformed, or of other users and items.
    """
    if folder is None:
        return None
    if Path(folder).is_file():
        raise SettingError(
            f"external_embeddings={folder}: expected a folder of representations. Write it from a checkpoint by "
            f"recbole-rlmrec export --checkpoint={folder} --output=FOLDER."
        )
    tables = []
    for side in SIDES:
        embedding = SemanticEmbedding.load([Path(folder)], dataset.dataset_name, side, memory_map=False)
        field = dataset.uid_field if side == "user" else dataset.iid_field
        try:
            tables.append(embedding.join(dataset.field2id_token[field]).matrix())
        except DataError as error:
            raise DataError(
                f"external_embeddings={folder}: the representations are of other {side}s than those of "
                f"'{dataset.dataset_name}', none of which is there. Export a model of the same data."
            ) from error
    return np.concatenate(tables)
