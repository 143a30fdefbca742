"""ProMax (BlueGhostYi/ProRec @48a3a3d5, 2026): texts as soft targets, and as edges of a second graph.

Written from its formulas. Where this differs from the authors' code, the settings say so.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.backbone.base import GraphBackbone, distinct
from recbole_rlmrec.model.backbone.contract import Representation, SettingsClasses
from recbole_rlmrec.ops.balance import shared
from recbole_rlmrec.ops.graph import Adjacency, normalized_adjacency
from recbole_rlmrec.ops.info_nce import info_nce
from recbole_rlmrec.ops.neighbours import nearest
from recbole_rlmrec.ops.soft_targets import soft_target_loss, softmax_entropy, whitening
from recbole_rlmrec.settings import (
    AUTO_WEIGHT,
    COUNT,
    COUNT_OR_NONE,
    POSITIVE,
    WEIGHT,
    Choice,
    Settings,
    Weight,
    known,
    setting,
)
from recbole_rlmrec.sides import SIDES

Whitening = Literal["joint", "separate"]

#: What the authors keep the weight of a user's target from falling below.
_LEAST_CONFIDENCE = 0.1


@dataclass(frozen=True)
class ProMaxSettings(Settings):
    """Settings of ProMax; values without a note are the authors'."""

    # 1.5 on amazon-book, .5 on yelp and steam.
    sdr_weight: Weight = setting(
        "auto",
        AUTO_WEIGHT,
        "ProMax: weight of its term, or auto: as large as alignment_share allows; 0 is the backbone itself",
        published=0.5,
    )
    sdr_temperature: float = setting(0.2, POSITIVE, "ProMax: temperature of the texts' and the model's distributions")
    # .033 on amazon-book, .2 on yelp and steam.
    s2dr_ratio: float = setting(
        0.2, WEIGHT, "ProMax: weight of the contrast with the graph that has edges of texts, in units of sdr_weight"
    )
    # .5 on steam.
    s2dr_temperature: float = setting(0.2, POSITIVE, "ProMax: temperature of that contrast")
    # The authors whiten the sides apart, so that the axes that a user and an item are compared by are not the same.
    whitening: Whitening = setting(
        "joint",
        Choice.of(Whitening),
        "ProMax: users' and items' texts are compared by common axes, or whitened apart (the authors')",
        published="separate",
    )
    whitened_size: int = setting(32, COUNT, "ProMax: leading components of the texts that are compared")
    # The authors' edges are chosen by a language model: 2 to 5 for most users of fewer than 13 items.
    text_neighbours: int = setting(
        3,
        COUNT_OR_NONE,
        "ProMax: items that a user of few items is joined to in the second graph, nearest by text",
    )
    text_neighbours_below: int = setting(
        13, COUNT_OR_NONE, "ProMax: users with fewer training items than this get such edges"
    )
    # In the authors' logs the best epoch comes after up to 19 validations, or 2,300 steps, without a better one.
    patience_steps: int = known("patience_steps", 2500)


class ProMaxAlignment(Alignment):
    """ProMax: a user's items are distributed as its text says, and nodes as in a graph with edges of texts.

    ``SDR + s2dr_ratio * S2DR``, under one weight:

    - SDR: for each user of the batch, the cross-entropy of ``softmax(cos(e_u, e_i) / t)`` over all items with the same
      of the whitened texts, weighted by ``1 - H / log I`` of the latter, 0.1 at least; an average over the users;
    - S2DR, for graph backbones: the ego embeddings are propagated over a second graph, the training's with edges from
      users of few items to those whose texts are nearest; an InfoNCE between both representations of users, of items,
      and of a pair's user in one with its item in the other, both ways.

    Users and items without a text have no part in SDR. A backbone of RecBole's has SDR alone. With ``auto``, each of
    both pulls at most ``alignment_share`` times as hard as the backbone's terms.
    """

    ending = "_ProMax"
    term_name = "promax"
    weight_setting = "sdr_weight"
    inherits_tuned_settings = True
    settings_classes: ClassVar[SettingsClasses] = (ProMaxSettings,)

    alignment_settings: ProMaxSettings
    register_buffer: Callable[..., None]  # torch's

    semantic: WhitenedTexts
    #: Weight of each user's target, ``[U]``, 0 without a text; and the items that have one.
    confidence: Tensor
    text_items: Tensor

    #: The graph with edges of texts; None without S2DR.
    text_graph: Adjacency | None = None

    _ego: Tensor | None = None

    def build_alignment(self, config: Any, dataset: Any) -> None:
        """Whiten the texts, weigh the users, and make the second graph."""
        settings = self.alignment_settings
        if config["semantic_dimension"] is not None:
            raise SettingError(
                f"semantic_dimension={config['semantic_dimension']}: ProMax reduces the semantic embeddings itself, to "
                f"whitened_size={settings.whitened_size} numbers. Leave semantic_dimension out."
            )
        sides = [dataset.semantic_embedding(side) for side in SIDES]
        self.semantic = WhitenedTexts(sides, settings.whitened_size, jointly=settings.whitening == "joint")
        user_texts, item_texts = self.semantic.vectors.split([self.n_users, self.n_items])
        items = self.semantic.covered[self.n_users :].nonzero().squeeze(1)
        self.register_buffer("text_items", items, persistent=False)
        entropy = softmax_entropy(user_texts, item_texts[items], settings.sdr_temperature)
        share = entropy / math.log(max(len(items), 2))
        confidence = (1 - share).clamp(_LEAST_CONFIDENCE, 1) * self.semantic.covered[: self.n_users]
        self.register_buffer("confidence", confidence, persistent=False)
        if isinstance(self, GraphBackbone) and settings.s2dr_ratio > 0:
            graph = self._graph_with_texts(user_texts, item_texts[items], items)
            # AutoCF's representation has its decoder's columns beside concatenated layers: nothing to contrast with.
            with torch.no_grad():
                width = self.propagate(self.ego_embeddings(), graph).shape[1]
            # The model's parameters are moved later; until then they and the graph are on the CPU.
            self.text_graph = graph.to(self.device) if width == self.output_dim else None

    def _graph_with_texts(self, user_texts: Tensor, item_texts: Tensor, items: Tensor) -> Adjacency:
        """Return the training graph with edges from users of few items to the nearest texts, on the CPU.

        Args:
            user_texts: ``[U, k]``.
            item_texts: ``[n, k]``.
            items: their ids, ``[n]``.
        """
        assert isinstance(self, GraphBackbone)
        settings, (users, taken) = self.alignment_settings, (ids.numpy() for ids in self._interactions)
        history = scipy.sparse.csr_matrix((np.ones(len(users)), (users, taken)), shape=(self.n_users, self.n_items))
        has_few = np.diff(history.indptr) < settings.text_neighbours_below
        joined = np.flatnonzero(has_few & self.semantic.covered[: self.n_users].numpy())
        places, rows = nearest(
            user_texts[torch.from_numpy(joined)],
            item_texts,
            settings.text_neighbours,
            taken=history[joined][:, items.numpy()],
        )
        return normalized_adjacency(
            np.concatenate([users, joined[places]]),
            np.concatenate([taken, items.numpy()[rows]]),
            self.n_users,
            self.n_items,
            count_duplicates=self.count_duplicates,
            self_loops=self.self_loops,
        )

    def step(self, interaction: Any, mask: Callable[[Tensor], Tensor] | None = None, share: float | None = None) -> Any:
        """Return the backbone's step, and keep what the second graph propagates, balanced as the representation is."""
        if self.text_graph is None:
            return super().step(interaction, mask, share)

        def kept(ego: Tensor) -> Tensor:
            own, self._ego = shared(ego if mask is None else mask(ego), share)
            return own

        return super().step(interaction, kept, share)

    def formula(self, representation: Representation, interaction: Any, drawn: Any) -> Tensor:
        """Return SDR, plus ``s2dr_ratio`` times S2DR."""
        user, (item, *_) = self.alignment_anchors(interaction)
        total = self._soft_distribution(representation, user)
        if self.text_graph is not None:
            total = total + self.alignment_settings.s2dr_ratio * self._second_graph(representation, user, item)
        return total

    def _soft_distribution(self, representation: Representation, user: Tensor) -> Tensor:
        """Return SDR of the batch's distinct users, ``[B]`` ids."""
        rows, counts = distinct(user, self.n_users)
        items = self.text_items + self.n_users
        present = (counts > 0) & self.semantic.covered[rows]
        weight = self.confidence[rows] * present / present.sum().clamp(min=1)
        return soft_target_loss(
            representation.index_select(0, rows),
            representation.index_select(0, items),
            self.semantic.vectors[rows],
            self.semantic.vectors[items],
            weight,
            self.alignment_settings.sdr_temperature,
        )

    def _second_graph(self, representation: Representation, user: Tensor, item: Tensor) -> Tensor:
        """Return S2DR of the batch's pairs, ``[B]`` ids each."""
        assert isinstance(self, GraphBackbone) and self.text_graph is not None and self._ego is not None
        second = self.propagate(self._ego, self.text_graph)
        self._ego = None
        temperature = self.alignment_settings.s2dr_temperature
        total = second.new_zeros(())
        for ids, first, n_ids in ((user, 0, self.n_users), (item, self.n_users, self.n_items)):
            rows, counts = distinct(ids, n_ids)
            weight = (counts > 0).to(counts.dtype)
            anchor, positive = (view.index_select(0, rows + first) for view in (representation, second))
            total = total + info_nce(anchor, positive, positive, temperature, weight, weight)
        pairs = user, item + self.n_users
        for users, items in ((representation, second), (second, representation)):
            anchor, positive = users.index_select(0, pairs[0]), items.index_select(0, pairs[1])
            total = total + info_nce(anchor, positive, positive, temperature) / 2
        return total


class WhitenedTexts(nn.Module):
    """Leading components of the semantic embeddings of all nodes, each with a variance of 1; zeros at holes.

    Each side's mean is taken off. A constant, and no part of a checkpoint.

    Args:
        sides: the joined embeddings of users and of items.
        width: components.
        jointly: by one covariance of both sides; else each side by that of its texts, whose axes have nothing to do
            with the other's.
    """

    vectors: Tensor
    covered: Tensor

    def __init__(self, sides: list[Any], width: int, *, jointly: bool) -> None:
        super().__init__()
        means = [_mean(side) for side in sides]
        products = [_product(side, mean) for side, mean in zip(sides, means)]
        counts = [side.n_covered for side in sides]
        if jointly:
            products, counts = [products[0] + products[1]] * 2, [sum(counts)] * 2
        maps = [whitening(torch.from_numpy(each / max(n, 1)), width) for each, n in zip(products, counts)]
        width = min(each.shape[1] for each in maps)
        found = []
        for side, mean, to_components in zip(sides, means, maps):
            rows = torch.zeros(len(side.rows), width)
            for ids, block in side.blocks():
                rows[torch.from_numpy(ids)] = (torch.from_numpy(block - mean) @ to_components[:, :width]).float()
            found.append(rows)
        self.register_buffer("vectors", torch.cat(found), persistent=False)
        covered = torch.from_numpy(np.concatenate([side.covered for side in sides]))
        self.register_buffer("covered", covered, persistent=False)


def _mean(side: Any) -> np.ndarray:
    """Return the mean of a side's vectors, float64 ``[D]``; zeros where it has none."""
    total = np.zeros(side.embedding.dimension)
    for _, block in side.blocks():
        total += block.sum(axis=0, dtype=np.float64)
    return total / max(side.n_covered, 1)


def _product(side: Any, mean: np.ndarray) -> np.ndarray:
    """Return the sum of the outer products of a side's centred vectors, float64 ``[D, D]``."""
    total = np.zeros((len(mean), len(mean)))
    for _, block in side.blocks():
        total += (block - mean).T @ (block - mean)
    return total
