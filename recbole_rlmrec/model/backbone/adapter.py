"""RecBole's own models under the backbone contract, so that RLMRec can align them without a change to their code.

An adapter is a mixin that stands before one of RecBole's model classes. It knows two things about it: which tables are
the ego embeddings, and where the representations of users and items come from. Everything else, the loss above all,
is RecBole's. Subclasses differ in where the representations come from; ``recbole_models`` beside this module says which
model takes which.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn
from torch.func import functional_call

from recbole_rlmrec.model.backbone.contract import Backbone, Representation
from recbole_rlmrec.ops.balance import balanced, shared
from recbole_rlmrec.ops.distributed import summand, this_shard

#: An autoencoder scores all items for so many users at a time where only their representations are wanted.
_USERS_AT_A_TIME = 512

#: Parameters by name that stand in for the model's own during a call.
Tables = dict[str, Tensor]


class RecBoleBackbone(Backbone):
    """A model of RecBole with what RLMRec asks of a backbone.

    Args and losses are those of RecBole's class. Among several processes each computes the loss of the whole batch and
    takes its share of the value: RecBole's losses are norms, sums or means as the model pleases, and random numbers
    must stay the same everywhere. The alignment is divided by anchors, as with every backbone.
    """

    # What RecBole's model base class brings; declared here because RecBole is not typed.
    LABEL: str
    input_type: InputType

    #: Names of what RecBole's ``calculate_loss`` returns.
    own_loss_names: tuple[str, ...] = ("loss",)

    #: Whether RecBole's loss is a sum over the batch; the alignment is one then as well.
    sums_losses: bool = False

    #: Whether RecBole's code supports autocast, which casts what enters a product of matrices but not a sparse one.
    supports_autocast: bool = True

    # ------------------------------------------------------------------ what a model is asked for

    def ego_tables(self) -> list[tuple[str, str]]:
        """Return the names of the parameters that hold the ego embeddings, of users ``[U, d]`` and items ``[I, d]``.

        Where there are several pairs, a node's ego embedding is its rows of all of them side by side.
        """
        return [("user_embedding.weight", "item_embedding.weight")]

    def table(self, name: str) -> Tensor:
        """Return the parameter of this name, or what stands in for it during a :meth:`call`."""
        table: Tensor = attrgetter(name)(self)
        return table

    @property
    def ego_dim(self) -> int:
        """Width d of a node's ego embedding, which a mask token has to replace."""
        return sum(self.table(users).shape[1] for users, _ in self.ego_tables())

    def node_representation(self, interaction: Any, tables: Tables, seen: Sequence[Any]) -> Representation:
        """Return the representation of the nodes at a step whose loss has been computed.

        Args:
            interaction: the batch.
            tables: what stood in for the model's parameters.
            seen: what :meth:`watched` caught.
        """
        raise NotImplementedError

    @contextmanager
    def watched(self, share: float | None = None) -> Iterator[list[Any]]:
        """Yield a list that is filled while the loss is computed; nothing by default.

        Args:
            share: what is caught and the loss are balanced by it, see :meth:`step`.
        """
        yield []

    # ------------------------------------------------------------------ ego embeddings

    def ego_embeddings(self) -> Tensor:
        """Return the ego embeddings stacked, ``[U + I, d]``."""
        pairs = [[self.table(name) for name in pair] for pair in self.ego_tables()]
        users, items = (side[0] if len(side) == 1 else torch.cat(side, dim=1) for side in zip(*pairs))
        return torch.cat([users, items])

    def ego_parameters(self, ego: Tensor) -> Tables:
        """Return the parameters that hold ``ego``, ``[U + I, d]``, by name: the inverse of :meth:`ego_embeddings`."""
        tables: Tables = {}
        first = 0
        for users, items in self.ego_tables():
            last = first + self.table(users).shape[1]
            tables[users], tables[items] = ego[:, first:last].split([self.n_users, self.n_items])
            first = last
        return tables

    # ------------------------------------------------------------------ losses

    def calculate_loss(self, interaction: Any) -> Tensor | tuple[Tensor, ...]:
        """Return RecBole's loss, as RecBole returns it; among several processes this one's share of it."""
        losses = self.recbole_losses(interaction)
        n_processes = this_shard().world_size
        if not isinstance(losses, tuple):
            return losses if n_processes == 1 else losses / n_processes
        self.loss_names = self.own_loss_names
        return losses if n_processes == 1 else tuple(loss / n_processes for loss in losses)

    def recbole_losses(self, interaction: Any) -> Tensor | tuple[Tensor, ...]:
        """Return what RecBole's ``calculate_loss`` does, for the whole batch."""
        device = interaction[self.USER_ID].device.type
        is_cast = self.supports_autocast and torch.is_autocast_enabled(device)
        with torch.autocast(device_type=device, dtype=torch.get_autocast_dtype(device), enabled=is_cast):
            losses: Tensor | tuple[Tensor, ...] = super().calculate_loss(interaction)
        return losses

    def step(
        self, interaction: Any, mask: Callable[[Tensor], Tensor] | None = None, share: float | None = None
    ) -> tuple[dict[str, Tensor], Representation]:
        """Return the loss terms of a batch, and the representation of the nodes they were computed from."""
        tables = {} if mask is None else self.ego_parameters(mask(self.ego_embeddings()))
        own, aligned = self.balanced_tables(tables, share)
        with self.watched(share) as seen:
            losses = self.call(own, "recbole_losses", interaction)
        values = losses if isinstance(losses, tuple) else (losses,)
        source = f"{type(self).__name__}.calculate_loss()"
        terms = {name: summand(value.reshape(()), source) for name, value in zip(self.own_loss_names, values)}
        return terms, self.node_representation(interaction, aligned, seen)

    def balanced_tables(self, tables: Tables, share: float | None) -> tuple[Tables, Tables]:
        """Return what stands in for parameters in the loss, and in the representation, where those are balanced.

        Args:
            tables: what stands in for them in both.
            share: see :meth:`step`.
        """
        return tables, tables

    def call(self, tables: Tables, method: str, *arguments: Any) -> Any:
        """Call a method of the model with ``tables`` in the place of its own parameters."""
        if not tables:
            return getattr(self, method)(*arguments)
        named = {f"model.{name}": table for name, table in tables.items()}
        # Tied weights need no help, and two names of one list of parameters would be put back wrongly.
        return functional_call(_Method(self, method), named, arguments, tie_weights=False)

    def reduced(self, mean: Tensor, batch_size: int) -> Tensor:
        """Return an average over the batch in the scale of RecBole's loss."""
        return mean * batch_size if self.sums_losses else mean

    # ------------------------------------------------------------------ anchors

    def alignment_anchors(self, interaction: Any) -> tuple[Tensor, list[Tensor]]:
        """Return whose representations RLMRec-Con aligns: users, and groups of items, duplicates included.

        Items of one group are contrasted with each other. A row of a pairwise batch gives its user, its positive item
        and, in a group of their own, its negative item. A row of a pointwise batch gives user and item where its label
        is positive; elsewhere ``[PAD]``, which is no anchor, stands for them.

        Returns:
            User ids ``[B]`` and a list of item ids ``[B]``.
        """
        user, item = interaction[self.USER_ID], interaction[self.ITEM_ID]
        if self.input_type == InputType.PAIRWISE:
            return user, [item, interaction[self.NEG_ITEM_ID]]
        is_positive = interaction[self.LABEL] > 0
        return user * is_positive, [item * is_positive]


class _Method(nn.Module):
    """A method of a model as the ``forward`` of a module, the one method that ``functional_call`` reaches."""

    def __init__(self, model: Any, method: str) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.model, self._method)(*arguments)


# ---------------------------------------------------------------------- where representations come from


class BalancedTables(RecBoleBackbone):
    """Loss and representation are computed apart, each from the tables: these are what is balanced."""

    def balanced_parameters(self) -> Tables:
        """Return what the representation shares with the loss, by name: the ego embeddings."""
        return self.ego_parameters(self.ego_embeddings())

    def balanced_tables(self, tables: Tables, share: float | None) -> tuple[Tables, Tables]:
        """Return the tables twice, for the loss and for the representation."""
        if share is None:
            return tables, tables
        given = {**self.balanced_parameters(), **tables}
        names = list(given)
        flat = torch.cat([given[name].reshape(-1) for name in names])
        sizes = [given[name].numel() for name in names]
        own, aligned = (
            {name: part.view_as(given[name]) for name, part in zip(names, whole.split(sizes))}
            for whole in balanced(flat, share)
        )
        return own, aligned


class TableBackbone(BalancedTables):
    """The representation of a node is its ego embedding: factorisations, whatever they compute a score with."""

    sees_neighbours = False

    def representation(self) -> tuple[Tensor, Tensor]:
        """Return the ego embeddings of users ``[U, d]`` and items ``[I, d]``."""
        users, items = self.ego_embeddings().split([self.n_users, self.n_items])
        return users, items

    def node_representation(self, interaction: Any, tables: Tables, seen: Sequence[Any]) -> Representation:
        """Return the ego embeddings of the step, masked where it masks."""
        ego: Tensor = self.call(tables, "ego_embeddings")
        return ego


class ForwardBackbone(RecBoleBackbone):
    """``forward`` returns the representations of all users and all items first, ``[U, k]`` and ``[I, k]``."""

    supports_autocast = False

    _seen: list[Any] | None = None
    _share: float | None = None

    def forward(self, *arguments: Any) -> Any:
        """Return what RecBole's ``forward`` does, and keep it where a step watches."""
        output = super().forward(*arguments)  # type: ignore[misc]
        if self._seen is None:
            return output
        own, aligned = balanced_pair(output[:2], self._share)
        self._seen.append(aligned)
        return output if self._share is None else (*own, *output[2:])

    def representation(self) -> tuple[Tensor, Tensor]:
        """Return what ``forward`` returns first, ``[U, k]`` and ``[I, k]``."""
        users, items = self.forward()[:2]
        return users, items

    @contextmanager
    def watched(self, share: float | None = None) -> Iterator[list[Any]]:
        """Catch the representations that ``forward`` returns."""
        self._seen, self._share = [], share
        try:
            yield self._seen
        finally:
            self._seen = self._share = None

    def node_representation(self, interaction: Any, tables: Tables, seen: Sequence[Any]) -> Representation:
        """Return what ``forward`` returned, ``[U + I, k]``."""
        return torch.cat(seen[-1])


def balanced_pair(sides: Sequence[Tensor], share: float | None) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return users and items, ``[U, k]`` and ``[I, k]``, for the loss and for the representation of a step.

    Args:
        sides: both.
        share: see :meth:`RecBoleBackbone.step`.
    """
    users, items = sides
    if share is None:
        return (users, items), (users, items)
    sizes = [len(users), len(items)]
    own, aligned = (tuple(both.split(sizes)) for both in balanced(torch.cat([users, items]), share))
    return own, aligned


class ComputedBackbone(BalancedTables):
    """Representations are computed for the nodes that are asked for: a step has those of its batch at most."""

    def balanced_parameters(self) -> Tables:
        """Return all parameters of RecBole's model: what maps tables to representations is in the loss as well."""
        own = self.backbone_parameters
        return {name: parameter for name, parameter in self.named_parameters() if own is None or name in own}

    def user_rows(self, ids: Tensor) -> Tensor:
        """Return the representations of users ``ids``, ``[n]``, ``[n, output_dim]``."""
        raise NotImplementedError

    def item_rows(self, ids: Tensor) -> Tensor:
        """Return the representations of items ``ids``, ``[n]``, ``[n, output_dim]``."""
        raise NotImplementedError

    def representation(self) -> tuple[Tensor, Tensor]:
        """Return the rows of all users, ``[U, output_dim]``, and of all items, ``[I, output_dim]``."""
        device = next(parameter.device for _, parameter in self.named_parameters())
        users, items = (torch.arange(number, device=device) for number in (self.n_users, self.n_items))
        return self.user_rows(users), self.item_rows(items)

    def node_representation(self, interaction: Any, tables: Tables, seen: Sequence[Any]) -> Representation:
        """Return what computes the rows asked for from the step's tables."""
        return _ComputedRows(
            self.n_users,
            lambda ids: self.call(tables, "user_rows", ids),
            lambda ids: self.call(tables, "item_rows", ids),
        )


class _ComputedRows:
    """Rows of the stacked nodes, ``[users; items]``, computed by side, in float32.

    Args:
        n_users: the row of the first item.
        user_rows: given user ids ``[n]``, returns ``[n, k]``.
        item_rows: the same for items.
    """

    def __init__(
        self, n_users: int, user_rows: Callable[[Tensor], Tensor], item_rows: Callable[[Tensor], Tensor]
    ) -> None:
        self._n_users, self._user_rows, self._item_rows = n_users, user_rows, item_rows

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the rows ``index``, ``[n]``, ``[n, k]``."""
        with torch.autocast(device_type=index.device.type, enabled=False):
            # On a GPU the number of rows of each side would have to be waited for.
            return self.each_once(index) if index.device.type == "cpu" else self.both_sides(index)

    def each_once(self, index: Tensor) -> Tensor:
        """Return the rows ``index``, each computed once."""
        is_item = index >= self._n_users
        order = is_item.to(torch.uint8).argsort(stable=True)
        users, items = index[order].split([len(index) - int(is_item.sum()), int(is_item.sum())])
        if len(items) == 0:
            return self._user_rows(index)
        if len(users) == 0:
            return self._item_rows(index - self._n_users)
        return torch.cat([self._user_rows(users), self._item_rows(items - self._n_users)])[order.argsort()]

    def both_sides(self, index: Tensor) -> Tensor:
        """Return the rows ``index``, with ``[PAD]`` computed for each on the side that it does not belong to."""
        is_item = index >= self._n_users
        users = self._user_rows(index.masked_fill(is_item, 0))
        return torch.where(is_item[:, None], self._item_rows((index - self._n_users).clamp(min=0)), users)


class UserBatches:
    """Batches hold users only; what they bring of items is the users' histories."""

    n_users: int
    USER_ID: str

    def history(self) -> Tensor:
        """Return the items of each user, ``[U, H]``; ``[PAD]`` fills the rows."""
        raise NotImplementedError

    def alignment_anchors(self, interaction: Any) -> tuple[Tensor, list[Tensor]]:
        """Return the users ``[B]`` and, as one group, all items of their histories, ``[B * H]``."""
        user = interaction[self.USER_ID]
        return user, [self.history()[user].flatten()]


class OutputLayerBackbone(UserBatches, RecBoleBackbone):
    """An autoencoder of the users' interactions that scores by its last, linear layer.

    Its score of an item is ``<h_u, w_i> + b_i``: the input of that layer represents the user, a row of its weight the
    item. Representations exist for the batch's users only.
    """

    def output_layer(self) -> nn.Linear:
        """Return the last layer, from ``[B, k]`` to ``[B, I]``."""
        raise NotImplementedError

    def item_weights(self) -> Tensor:
        """Return the last layer's weights, ``[I, k]``, or what stands in for them during a :meth:`call`."""
        return self.output_layer().weight

    def history(self) -> Tensor:
        """Return the items of each user, ``[U, H]``."""
        items: Tensor = self.history_item_id  # type: ignore[attr-defined]
        return items

    @property
    def output_dim(self) -> int:
        """Width k of the last layer's input."""
        return self.output_layer().in_features

    def balanced_tables(self, tables: Tables, share: float | None) -> tuple[Tables, Tables]:
        """Return the items' rows of the last layer twice, for the loss and for the representation."""
        if share is None:
            return tables, tables
        name = next(name for name, table in self.named_parameters() if table is self.output_layer().weight)
        own, aligned = balanced(self.output_layer().weight, share)
        return {**tables, name: own}, {**tables, name: aligned}

    @contextmanager
    def watched(self, share: float | None = None) -> Iterator[list[Any]]:
        """Catch the input of the last layer."""
        seen: list[Any] = []

        def catch(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            own, aligned = shared(inputs[0], share)
            seen.append(aligned)
            return (own, *inputs[1:])

        handle = self.output_layer().register_forward_pre_hook(catch)
        try:
            yield seen
        finally:
            handle.remove()

    def representation(self) -> tuple[Tensor, Tensor]:
        """Return the last layer's input for all users, ``[U, k]``, and its rows, ``[I, k]``."""
        weights = self.item_weights()
        rows = []
        for users in torch.arange(self.n_users, device=weights.device).split(_USERS_AT_A_TIME):
            with self.watched() as seen:
                self.full_sort_predict(Interaction({self.USER_ID: users}))  # type: ignore[attr-defined]
            rows.append(seen[-1])
        return torch.cat(rows), weights

    def node_representation(self, interaction: Any, tables: Tables, seen: Sequence[Any]) -> Representation:
        """Return the representation of the batch's users and of all items."""
        user, items = interaction[self.USER_ID], self.call(tables, "item_weights")
        position = torch.arange(self.n_users + self.n_items, device=user.device) + (len(user) - self.n_users)
        position[: self.n_users] = -1
        position[user] = torch.arange(len(user), device=user.device)
        return _PlacedRows(torch.cat([seen[-1], items]), position)


class _PlacedRows:
    """Rows of the stacked nodes that lie elsewhere in a tensor.

    Args:
        rows: ``[m, k]``.
        position: ``[U + I]`` row number of each node in ``rows``; -1 where there is none.
    """

    def __init__(self, rows: Tensor, position: Tensor) -> None:
        self._rows, self._position = rows, position

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """Return the rows ``index``, ``[n]``, ``[n, k]``."""
        return self._rows.index_select(0, self._position[index])
