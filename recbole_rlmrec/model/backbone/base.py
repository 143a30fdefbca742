"""The base of graph backbones: what such a recommender supplies, and what it gets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from recbole_rlmrec.errors import ContractError
from recbole_rlmrec.model.backbone.contract import Backbone, SettingsClasses
from recbole_rlmrec.ops.balance import shared
from recbole_rlmrec.ops.distributed import Share, summand, this_shard
from recbole_rlmrec.ops.graph import Adjacency, normalized_adjacency, sum_of_layers
from recbole_rlmrec.ops.info_nce import info_nce
from recbole_rlmrec.ops.loss import bpr_loss, mean_norm, squared_l2
from recbole_rlmrec.settings import (
    AUTO_WEIGHT,
    FEW,
    FLAG,
    POSITIVE,
    SHARE,
    WEIGHT,
    Choice,
    Range,
    Settings,
    Weight,
    bound_of,
    known,
    number_of,
    setting,
)

#: Loss terms by name: of the whole batch, or this process's share.
Terms = dict[str, Tensor | Share]


LayerCombination = Literal["mean", "sum", "concat"]
L2Scope = Literal["batch", "all"]
LossReduction = Literal["mean", "sum"]
ContrastNegatives = Literal["all", "batch"]


@dataclass(frozen=True)
class GraphSettings(Settings):
    """Settings every graph backbone reads. The defaults are RecBole's own numbers."""

    # The default is that of RecBole's model, or of the class.
    n_layers: int = setting(MISSING, FEW, "propagation layers", "2")
    reg_weight: float = setting(MISSING, WEIGHT, "weight of the L2 term", "1e-5")
    require_pow: bool = setting(MISSING, FLAG, "RecBole: square the norms of the batch's L2 term", "False")
    layer_combination: LayerCombination = setting(
        "mean", Choice.of(LayerCombination), "how layers become one representation (RLMRec: sum)"
    )
    include_ego_layer: bool = setting(True, FLAG, "whether layer 0 takes part in the combination")
    edge_keep_rate: float = setting(
        1.0,
        Range(0, 1, includes_low=False),
        "share of directed edges kept at each training step, on the main path; in SGL, in `independent` views instead",
        example="0.8",  # RLMRec's
    )
    # batch is RecBole's EmbLoss.
    l2_scope: L2Scope = setting(
        "batch", Choice.of(L2Scope), "L2 over the batch's rows, or over every parameter (RLMRec)"
    )
    loss_reduction: LossReduction = setting(
        "mean", Choice.of(LossReduction), "losses averaged over the batch, or summed (RecBole's SGL)"
    )


@dataclass(frozen=True)
class ViewContrastSettings(Settings):
    """Settings of the contrast between two views of a node; temperature and weight are each model's own."""

    ssl_weight: Weight = setting(
        MISSING,
        AUTO_WEIGHT,
        "SGL, SimGCL, XSimGCL, DCCF: weight of the contrast between views, in all but DCCF also auto: as large as "
        "ssl_share allows; AutoCF: of users with users and items with items",
        example="auto",
    )
    ssl_tau: float = setting(MISSING, POSITIVE, "SGL, SimGCL, XSimGCL, DCCF: temperature of that contrast", "0.2")
    ssl_negatives: ContrastNegatives = setting(
        "batch",
        Choice.of(ContrastNegatives),
        "SGL, SimGCL, XSimGCL, DCCF: negatives are the whole table, or the batch's unique nodes",
        example="all",
    )
    ssl_negative_items: bool = setting(
        False, FLAG, "SGL, SimGCL, XSimGCL, DCCF: negative items are anchors too (RLMRec's SGL)"
    )
    padding_negatives: bool = setting(
        False, FLAG, "SGL, SimGCL, XSimGCL, DCCF: [PAD] counts as a negative (RecBole's SGL)"
    )


@dataclass(frozen=True)
class BoundedContrastSettings(ViewContrastSettings):
    """Settings of a contrast that ``ssl_weight: auto`` bounds: SGL's and SimGCL's."""

    ssl_weight: Weight = known("ssl_weight", "auto")
    ssl_share: float = setting(
        0.1,
        SHARE,
        "SGL, SimGCL, XSimGCL: with an auto ssl_weight, how hard the contrast may pull at most, in gradients of the "
        "other terms",
    )

    @property
    def bound(self) -> float | None:
        """How many times as hard as the other terms the contrast may pull; None where its weight is a number."""
        return bound_of(self.ssl_weight, self.ssl_share)


class KeptRepresentation(Backbone):
    """A backbone whose score is the product of two representations, which an evaluation computes once.

    The subclass supplies ``forward``, which returns the representations of users and items.
    """

    # What PyTorch's and RecBole's base classes bring; declared here because RecBole is not typed.
    device: torch.device
    training: bool
    forward: Callable[[], tuple[Tensor, Tensor]]

    cached_representation: tuple[Tensor, Tensor] | None = None

    def named_losses(self, terms: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Remember the terms' names for the log, forget the representation and return the terms' values."""
        self.cached_representation = None
        return super().named_losses(terms)

    def predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given user-item pairs, ``[B]``."""
        users, items = self.representation()
        return (users[interaction[self.USER_ID]] * items[interaction[self.ITEM_ID]]).sum(dim=1)

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given users for all items, flattened to ``[B * I]``."""
        users, items = self.representation()
        return (users[interaction[self.USER_ID]] @ items.T).view(-1)

    def representation(self) -> tuple[Tensor, Tensor]:
        """Return ``forward()``; in evaluation mode it is computed once and kept until the weights may change."""
        if self.training:
            return self.forward()
        if self.cached_representation is None:
            self.cached_representation = self.forward()
        return self.cached_representation

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation, and forget the representation of the old weights."""
        self.cached_representation = None
        return super().train(mode)  # type: ignore[misc]

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Load weights as ``torch.nn.Module`` does, and forget the representation of the old ones."""
        self.cached_representation = None
        return super().load_state_dict(*args, **kwargs)  # type: ignore[misc]


class GraphBackbone(KeptRepresentation):
    """A graph recommender in three parts: ego embeddings, their encoding, and the loss terms of the encoding.

    A mixin placed before a RecBole model class that owns ``user_embedding`` and ``item_embedding``. The subclass
    supplies :meth:`loss_terms` and, where plain propagation is not what it does, :meth:`encode`; the mixin supplies
    ``forward``, ``calculate_loss``, ``predict`` and ``full_sort_predict`` once. The parts are separate so that
    RLMRec can mask the ego embeddings before ``encode`` and align its result.

    Among several processes each computes its share of the loss of the whole batch, see
    :mod:`recbole_rlmrec.ops.distributed`; one process's share is the whole.

    Rows: user row 0 and item row 0 are RecBole's ``[PAD]``; they have no edge. Stacked tables are ``[users; items]``.
    """

    settings_classes: ClassVar[SettingsClasses] = (GraphSettings,)

    # What RecBole's model base class brings.
    user_embedding: nn.Embedding
    item_embedding: nn.Embedding

    #: Whether an interaction that occurs k times weighs k in the graph, or 1.
    count_duplicates: bool = False

    #: Whether each node is its own neighbour in the graph.
    self_loops: bool = False

    #: How many times as hard as all other terms further views may pull on the ego embeddings; None for no bound.
    view_share: float | None = None

    def __init__(self, config: Any, dataset: Any) -> None:
        # RecBole's own constructors ask for the graph while they run.
        self._interactions = (dataset.inter_feat[dataset.uid_field], dataset.inter_feat[dataset.iid_field])
        super().__init__(config, dataset)
        self.graph_settings = GraphSettings.from_config(config)
        # The cache is recomputed from the weights; it has no place in a checkpoint.
        self.other_parameter_name: list[str] = []

    # ------------------------------------------------------------------ graph and representation

    @cached_property
    def adjacency(self) -> Adjacency:
        """The normalised training graph on the model's device."""
        users, items = (ids.numpy() for ids in self._interactions)
        adjacency = normalized_adjacency(
            users,
            items,
            self.n_users,
            self.n_items,
            count_duplicates=self.count_duplicates,
            self_loops=self.self_loops,
        )
        return adjacency.to(self.device)

    @property
    def ego_dim(self) -> int:
        """Width d of a node's ego embedding, which a mask token has to replace."""
        return self.user_embedding.embedding_dim

    @property
    def output_dim(self) -> int:
        """Width of a node's representation: d, or d times the layers where they are concatenated."""
        width = self.ego_dim
        settings = self.graph_settings
        if settings.layer_combination == "concat":
            return width * (settings.n_layers + settings.include_ego_layer)
        return width

    def ego_embeddings(self) -> Tensor:
        """Return the trainable tables stacked, ``[U + I, d]``."""
        return torch.cat([self.user_embedding.weight, self.item_embedding.weight])

    def encode(self, ego: Tensor) -> Tensor:
        """Return the main, unperturbed representation, ``[U + I, output_dim]``, of ``ego``, ``[U + I, d]``.

        While training, one draw of dropped edges serves all layers.
        """
        keep_rate = self.graph_settings.edge_keep_rate if self.training else 1.0
        return self.propagate(ego, self.adjacency.drop_edges(keep_rate))

    def propagate(
        self,
        ego: Tensor,
        graph: Adjacency | Sequence[Adjacency],
        noise: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Propagate ``ego`` and combine the layers as ``layer_combination`` says.

        Args:
            ego: ``[U + I, d]``.
            graph: one adjacency for all layers, or one per layer.
            noise: given a propagated layer, returns what is added to it before the next (SimGCL).

        Returns:
            ``[U + I, output_dim]``.
        """
        settings = self.graph_settings
        graphs = [graph] * settings.n_layers if isinstance(graph, Adjacency) else graph
        if settings.layer_combination == "concat":
            layers = [ego]
            for adjacency in graphs:
                layer = adjacency.matmul(layers[-1])
                layers.append(layer if noise is None else layer + noise(layer.detach()))
            return self.combined(layers)
        total = sum_of_layers(ego, graphs, include_first=settings.include_ego_layer, addend=noise)
        n_combined = len(graphs) + settings.include_ego_layer
        return total / n_combined if settings.layer_combination == "mean" else total

    def combined(self, layers: Sequence[Tensor]) -> Tensor:
        """Return layers 0 to L, ``[U + I, d]`` each, as one representation, as ``layer_combination`` says."""
        settings = self.graph_settings
        taken = layers if settings.include_ego_layer else layers[1:]
        if settings.layer_combination == "concat":
            return torch.cat(tuple(taken), dim=1)
        total = sum(taken[1:], start=taken[0])
        return total / len(taken) if settings.layer_combination == "mean" else total

    def split(self, stacked: Tensor) -> tuple[Tensor, Tensor]:
        """Split ``[U + I, d]`` into users ``[U, d]`` and items ``[I, d]``."""
        users, items = torch.split(stacked, [self.n_users, self.n_items])
        return users, items

    # ------------------------------------------------------------------ losses

    def loss_terms(self, ego: Tensor, representation: Tensor, interaction: Any) -> Terms:
        """Return the backbone's own loss terms, named and already weighted; their sum is its loss.

        A term is taken for that of the whole batch, of which each of several processes adds its part, unless it is a
        :class:`~recbole_rlmrec.ops.distributed.Share`.

        Args:
            ego: ``[U + I, d]``, possibly masked; what further views propagate.
            representation: ``encode(ego)``.
            interaction: the batch: users, items, negative items, ``[B]`` each.
        """
        return self.ranking_terms(representation, interaction)

    def ranking_terms(self, representation: Tensor, interaction: Any) -> Terms:
        """Return the terms common to all backbones: BPR over the representation, and L2."""
        user, positive, negative = self.batch(interaction)
        local = this_shard().rows(len(user))
        # One gathering of rows for all three has one scattering in the backward pass.
        rows = torch.cat([user[local], positive[local] + self.n_users, negative[local] + self.n_users])
        anchor, liked, sampled = representation.index_select(0, rows).chunk(3)
        bpr = bpr_loss((anchor * liked).sum(dim=1), (anchor * sampled).sum(dim=1), total=len(user))
        return {"bpr": Share(self.reduced(bpr, len(user))), "reg": self.l2_term(user, positive, negative)}

    def batch(self, interaction: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Return the ids of users, positive items and negative items, ``[B]`` each."""
        return interaction[self.USER_ID], interaction[self.ITEM_ID], interaction[self.NEG_ITEM_ID]

    def reduced(self, mean: Tensor, batch_size: int) -> Tensor:
        """Scale a mean over the batch to ``loss_reduction``.

        RecBole's SGL sums its losses over the batch; whatever is added to a summed loss must be summed as well, or
        the same weight would mean something else beside each backbone.
        """
        return mean * batch_size if self.graph_settings.loss_reduction == "sum" else mean

    def l2_term(self, user: Tensor, positive: Tensor, negative: Tensor) -> Share:
        """Return ``reg_weight`` times the L2 term of ``l2_scope``.

        ``batch``: RecBole's ``EmbLoss`` of the batch's rows of the embedding tables. ``all``: the squared norm of
        every parameter, as the official RLMRec code has it; the ``[PAD]`` rows are no parameters of that code.
        """
        settings = self.graph_settings
        weight = settings.reg_weight / this_shard().world_size
        if settings.l2_scope == "all":
            tables = (self.user_embedding.weight, self.item_embedding.weight)
            parameters = [parameter for _, parameter in self.named_parameters()]
            padded = [int(any(parameter is table for table in tables)) for parameter in parameters]
            return Share(weight * squared_l2(parameters, first_rows=padded))
        users, items = self.user_embedding.weight, self.item_embedding.weight
        rows = (users.index_select(0, user), items.index_select(0, positive), items.index_select(0, negative))
        return Share(weight * mean_norm(rows, squared=settings.require_pow))

    def view_contrast(
        self,
        settings: ViewContrastSettings,
        first: Tensor,
        second: Tensor,
        interaction: Any,
        *,
        items_by_users: bool = False,
    ) -> Share:
        """Return ``ssl_weight`` times the InfoNCE between two views of the batch's nodes.

        ``ssl_negatives: all`` contrasts each of the batch's nodes, duplicates included, with the whole table of the
        second view (SGL; RLMRec); ``batch`` contrasts the unique nodes of the batch with each other (SimGCL).

        Args:
            settings: the contrast's settings.
            first: ``[U + I, output_dim]``, the anchors' view.
            second: ``[U + I, output_dim]``, the view of positives and negatives.
            interaction: the batch.
            items_by_users: divide the items' losses by the number of users instead of items (official DCCF).
        """
        user, positive, negative = self.batch(interaction)
        first_users, first_items = self.split(first)
        second_users, second_items = self.split(second)
        sides = [(first_users, second_users, user), (first_items, second_items, positive)]
        if settings.ssl_negative_items:
            sides.append((first_items, second_items, negative))
        total = first.new_zeros(())
        divisor: Tensor | None = None
        for anchors, table, ids in sides:
            rows, counts = distinct(ids)
            weight, candidate, candidate_weight = counts, table, None
            if settings.ssl_negatives == "batch":
                weight = candidate_weight = (counts > 0).to(counts.dtype)
                candidate = table.index_select(0, rows)
            elif not settings.padding_negatives:
                candidate = table[1:]
            if divisor is None or not items_by_users:
                divisor = weight.sum()
            local = this_shard().rows(len(rows))
            anchor, positives = anchors.index_select(0, rows[local]), table.index_select(0, rows[local])
            total = total + info_nce(
                anchor, positives, candidate, settings.ssl_tau, weight[local], candidate_weight, divisor
            )
        return Share(number_of(settings.ssl_weight) * self.reduced(total, len(user)))

    # ------------------------------------------------------------------ what RecBole calls

    def forward(self) -> tuple[Tensor, Tensor]:
        """Return the representations of users ``[U, output_dim]`` and items ``[I, output_dim]``."""
        return self.split(self.encode(self.ego_embeddings()))

    def calculate_loss(self, interaction: Any) -> tuple[Tensor, ...]:
        """Return the loss terms; RecBole's trainer sums and logs them."""
        return self.named_losses(self.step(interaction)[0])

    def step(
        self, interaction: Any, mask: Callable[[Tensor], Tensor] | None = None, share: float | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the weighted loss terms of a batch, and ``encode(ego)``, ``[U + I, output_dim]``; see the contract."""
        ego = self.ego_embeddings()
        if mask is not None:
            ego = mask(ego)
        ego, of_views = shared(ego, self.view_share)
        representation = self.encode(ego)
        self.check_representation(representation)
        own, aligned = shared(representation, share)
        return self.summands(self.loss_terms(of_views, own, interaction)), aligned

    def summands(self, terms: Terms) -> dict[str, Tensor]:
        """Return this process's summand of each loss term.

        Raises:
            ContractError: the terms are no dictionary of scalars by name.
        """
        source = f"{type(self).__name__}.loss_terms()"
        if not isinstance(terms, dict) or not terms:
            found = f"a {type(terms).__name__}" if terms or not isinstance(terms, dict) else "no term"
            raise ContractError(f"{source} returned {found}, expected a dictionary of terms by name.")
        return {name: summand(term, f"{source}[{name!r}]") for name, term in terms.items()}

    def check_representation(self, representation: Any) -> None:
        """Check the shape of what is to be a representation.

        Raises:
            ContractError: it is not ``[U + I, output_dim]``.
        """
        expected = (self.n_users + self.n_items, self.output_dim)
        if not isinstance(representation, Tensor) or representation.shape != expected:
            found = getattr(representation, "shape", type(representation).__name__)
            raise ContractError(
                f"{type(self).__name__}.encode() returned {found}, expected users and items stacked, "
                f"[n_users + n_items, output_dim] = {list(expected)}."
            )

    def alignment_anchors(self, interaction: Any) -> tuple[Tensor, list[Tensor]]:
        """Return whose representations RLMRec-Con aligns: the batch's users, and groups of items.

        Items of one group are contrasted with each other; here the positive items and the negative items.

        Returns:
            User ids ``[B]`` and a list of item ids ``[B]``, duplicates included.
        """
        user, positive, negative = self.batch(interaction)
        return user, [positive, negative]


def distinct(ids: Tensor, n_ids: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the distinct ids, ascending, and how often each occurs, as float weights.

    On a GPU the number of distinct ids would have to be waited for, which stalls the device: there the result has as
    many entries as ``ids`` and repeats the largest id with count 0, or ``n_ids`` entries where that is fewer.

    Args:
        ids: ``[B]``.
        n_ids: ids are below this number. Where there are more of them than that, they are counted instead of sorted.
    """
    if n_ids is not None and len(ids) > n_ids:
        rows, counts = _counted(ids, n_ids)
        return (rows[counts > 0], counts[counts > 0]) if ids.device.type == "cpu" else (rows, counts)
    if ids.device.type == "cpu":
        rows, occurrences = torch.unique(ids, return_counts=True)
        return rows, occurrences.to(torch.get_default_dtype())
    return _padded_distinct(ids)


def _counted(ids: Tensor, n_ids: int) -> tuple[Tensor, Tensor]:
    counts = torch.zeros(n_ids, device=ids.device).index_add_(0, ids, torch.ones(len(ids), device=ids.device))
    return torch.arange(n_ids, device=ids.device), counts


def _padded_distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    ordered = ids.sort().values
    is_new = torch.ones_like(ordered)
    is_new[1:] = (ordered[1:] != ordered[:-1]).to(ordered.dtype)
    group = is_new.cumsum(dim=0) - 1
    counts = torch.zeros(len(ids), device=ids.device).index_add_(0, group, torch.ones(len(ids), device=ids.device))
    rows = ordered[-1:].expand(len(ids)).clone().scatter_(0, group, ordered)
    return rows, counts
