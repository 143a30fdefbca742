"""Which of RecBole's general recommenders RLMRec can align, how, and why the others not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.adapter import (
    ComputedBackbone,
    ForwardBackbone,
    OutputLayerBackbone,
    RecBoleBackbone,
    TableBackbone,
    Tables,
    UserBatches,
    balanced_pair,
)

# The attributes that the adapters read are those of RecBole's classes, which are not typed.
# mypy: disable-error-code="attr-defined"

# ---------------------------------------------------------------------- factorisations


class NeuMFAdapter(TableBackbone):
    """NeuMF reads a node twice, from a table for the product and one for the perceptron: both together represent it.

    The score is computed from both, and neither alone says what the model knows of a node. A branch that is switched
    off (``mf_train``, ``mlp_train``) takes no part.
    """

    def ego_tables(self) -> list[tuple[str, str]]:
        """Return the pairs of tables that the score is computed from."""
        branches = [name for name, is_on in (("mf", self.mf_train), ("mlp", self.mlp_train)) if is_on]
        return [(f"user_{name}_embedding.weight", f"item_{name}_embedding.weight") for name in branches]


class SummedTableBackbone(TableBackbone):
    """A factorisation whose loss is a sum over the batch."""

    sums_losses = True


class ENMFAdapter(UserBatches, SummedTableBackbone):
    """ENMF learns from all pairs: a batch holds users, and its loss is summed over them and over all items."""

    # Its loss is a difference of large sums, of which bfloat16 would keep three digits.
    supports_autocast = False

    def history(self) -> Tensor:
        """Return the items of each user, ``[U, H]``."""
        items: Tensor = self.history_item_matrix
        return items


# ---------------------------------------------------------------------- graphs


class NGCFAdapter(ForwardBackbone):
    """NGCF concatenates its layers."""

    @property
    def output_dim(self) -> int:
        """Sum of the layers' widths, layer 0 included."""
        return sum(self.hidden_size_list)


class DGCFAdapter(ForwardBackbone):
    """DGCF measures the correlation of its factors on sampled users and items, as many of either.

    RecBole's number can exceed the smaller side where batches are few, and sampling then fails; here it is capped.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.cor_batch_size: int = min(self.cor_batch_size, self.n_users, self.n_items)


class SpectralCFAdapter(ForwardBackbone):
    """SpectralCF concatenates its layers."""

    @property
    def output_dim(self) -> int:
        """Width of all layers, layer 0 included."""
        width: int = self.emb_dim * (self.n_layers + 1)
        return width


class NCLAdapter(ForwardBackbone):
    """NCL returns three losses; its trainer leaves the last, that of the prototypes, out while it warms up."""

    own_loss_names = ("loss", "ssl", "proto")

    def e_step(self) -> None:
        """Cluster the embeddings with faiss, as RecBole does.

        Raises:
            SettingError: there are fewer nodes than clusters.
        """
        fewest = min(self.n_users, self.n_items)
        if self.k > fewest:
            raise SettingError(
                f"num_clusters={self.k}: NCL clusters users and items apart, and one side has {fewest} with [PAD]. Set "
                f"num_clusters to a fraction of that, e.g. --num_clusters={max(1, fewest // 40)}."
            )
        super().e_step()  # type: ignore[misc]

    def named_losses(self, terms: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the terms' values, the prototypes' last, where the trainer looks for it."""
        last = self.own_loss_names[-1]
        ordered = {name: value for name, value in terms.items() if name != last}
        return super().named_losses({**ordered, last: terms[last]})


class GCMCAdapter(RecBoleBackbone):
    """GCMC is represented by what its encoder returns; a bilinear decoder scores it.

    The node features are one-hot: a row of the first layer's weights is the ego embedding of a node.
    """

    supports_autocast = False

    _WEIGHT = "GcEncoder.weights_u.0"

    @property
    def ego_dim(self) -> int:
        """Width of the first layer."""
        return self.table(self._WEIGHT).shape[1]

    def ego_embeddings(self) -> Tensor:
        """Return the first layer's weights, ``[U + I, d]``."""
        return self.table(self._WEIGHT)

    def ego_parameters(self, ego: Tensor) -> Tables:
        """Return ``ego`` under the weights' name."""
        return {self._WEIGHT: ego}

    @property
    def output_dim(self) -> int:
        """Width of what the encoder returns."""
        width: int = self.dense_output_dim
        return width

    @contextmanager
    def watched(self, share: float | None = None) -> Iterator[list[Any]]:
        """Catch what the encoder returns."""
        seen: list[Any] = []

        def catch(encoder: nn.Module, inputs: Any, output: Any) -> Any:
            own, aligned = balanced_pair(output, share)
            seen.append(aligned)
            return own

        handle = self.GcEncoder.register_forward_hook(catch)
        try:
            yield seen
        finally:
            handle.remove()

    def representation(self) -> tuple[Tensor, Tensor]:
        """Return what the encoder returns for users ``[U, output_dim]`` and items ``[I, output_dim]``."""
        users, items = self.GcEncoder(self.user_features, self.item_features)
        return users, items

    def node_representation(self, interaction: Any, tables: Tables, seen: Sequence[Any]) -> Tensor:
        """Return what the encoder returned for users and items, ``[U + I, output_dim]``."""
        return torch.cat(seen[-1])


# ---------------------------------------------------------------------- nodes represented by their neighbours


class DMFAdapter(ComputedBackbone):
    """DMF is two towers over vectors of interactions; a node is represented by its tower's last layer.

    A column of a tower's first layer belongs to one node of the other side, whose ego embedding it is: the users' are
    in the items' tower, the items' in the users'.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        matrix = self.interaction_matrix.tocoo()
        # As in training, where an interaction that occurs twice is one.
        values = np.ones_like(matrix.data) if self.inter_matrix_type == "01" else matrix.data
        indices = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
        by_user = torch.sparse_coo_tensor(indices, torch.from_numpy(values), matrix.shape, check_invariants=False)
        self._items_of_users = by_user.coalesce().to(self.device)
        self._users_of_items = by_user.t().coalesce().to(self.device)

    @property
    def ego_dim(self) -> int:
        """Width of the towers' first layers.

        Raises:
            SettingError: they differ, and one mask token cannot stand for both.
        """
        if self.user_embedding_size != self.item_embedding_size:
            raise SettingError(
                f"user_embedding_size={self.user_embedding_size} and item_embedding_size={self.item_embedding_size}: "
                "RLMRecGen masks users and items by one token, so they must be equal."
            )
        width: int = self.user_embedding_size
        return width

    def ego_embeddings(self) -> Tensor:
        """Return the columns of the first layers, ``[U + I, d]``."""
        return torch.cat([self.item_linear.weight, self.user_linear.weight], dim=1).T

    def ego_parameters(self, ego: Tensor) -> Tables:
        """Return ``ego`` as the weights of the first layers, ``[d, U]`` and ``[d, I]``."""
        users, items = ego.T.split([self.n_users, self.n_items], dim=1)
        return {"item_linear.weight": users, "user_linear.weight": items}

    @property
    def output_dim(self) -> int:
        """Width of the towers' last layers."""
        width: int = self.user_hidden_size_list[-1]
        return width

    def user_rows(self, ids: Tensor) -> Tensor:
        """Return the user tower of ``ids``, ``[n]``, ``[n, output_dim]``."""
        rows: Tensor = self.user_fc_layers(torch.sparse.mm(self._items_of_users, self.user_linear.weight.T)[ids])
        return rows

    def item_rows(self, ids: Tensor) -> Tensor:
        """Return the item tower of ``ids``, ``[n]``, ``[n, output_dim]``."""
        rows: Tensor = self.item_fc_layers(torch.sparse.mm(self._users_of_items, self.item_linear.weight.T)[ids])
        return rows


class SimpleXAdapter(ComputedBackbone):
    """SimpleX mixes a user's embedding with those of the history; items are their embeddings. Scores are cosines.

    The representation is without the dropout of a training step, as in evaluation.
    """

    # Cosines against a margin, which bfloat16 would blur.
    supports_autocast = False

    def ego_tables(self) -> list[tuple[str, str]]:
        """Return the tables of users and items."""
        return [("user_emb.weight", "item_emb.weight")]

    def user_rows(self, ids: Tensor) -> Tensor:
        """Return users mixed with their histories, ``[n, d]``."""
        history = self.item_emb(self.history_item_id[ids])
        rows: Tensor = self.get_UI_aggregation(self.user_emb(ids), history, self.history_item_len[ids])
        return rows

    def item_rows(self, ids: Tensor) -> Tensor:
        """Return items' embeddings, ``[n, d]``."""
        rows: Tensor = self.item_emb(ids)
        return rows


class NNCFAdapter(ComputedBackbone):
    """NNCF scores a pair by a perceptron over the product of their embeddings and a convolution of each neighbourhood.

    Embedding and convolved neighbourhood together represent a node. Its ego embedding are its two rows: that of its
    own embedding, and that by which it appears in neighbourhoods.
    """

    def ego_tables(self) -> list[tuple[str, str]]:
        """Return the tables of the nodes themselves and of the nodes as neighbours."""
        return [
            ("user_embedding.weight", "item_embedding.weight"),
            ("item_neigh_embedding.weight", "user_neigh_embedding.weight"),
        ]

    @property
    def output_dim(self) -> int:
        """Width of an embedding and a convolved neighbourhood."""
        width: int = self.ui_embedding_size
        return width + (self.mlp_layers.layers[0] - width) // 2

    def user_rows(self, ids: Tensor) -> Tensor:
        """Return users and their neighbourhoods, ``[n, output_dim]``."""
        neighbours = self.user_neigh_embedding(self.u_neigh[ids]).transpose(1, 2)
        return torch.cat([self.user_embedding(ids), self.user_conv(neighbours).flatten(1)], dim=1)

    def item_rows(self, ids: Tensor) -> Tensor:
        """Return items and their neighbourhoods, ``[n, output_dim]``."""
        neighbours = self.item_neigh_embedding(self.i_neigh[ids]).transpose(1, 2)
        return torch.cat([self.item_embedding(ids), self.item_conv(neighbours).flatten(1)], dim=1)


class FISMAdapter(ComputedBackbone):
    """FISM represents a user by the sum of the history's source embeddings, an item by its target embedding."""

    @property
    def output_dim(self) -> int:
        """Width of the embeddings."""
        width: int = self.embedding_size
        return width

    def user_rows(self, ids: Tensor) -> Tensor:
        """Return scaled sums over the histories, ``[n, d]``."""
        total = F.embedding_bag(
            self.history_item_matrix[ids], self.item_src_embedding.weight, mode="sum", padding_idx=0
        )
        length: Tensor = self.history_lens[ids].clamp(min=1)
        return total * length.float().pow(-self.alpha)[:, None]

    def item_rows(self, ids: Tensor) -> Tensor:
        """Return items' target embeddings, ``[n, d]``."""
        rows: Tensor = self.item_dst_embedding(ids)
        return rows


# ---------------------------------------------------------------------- autoencoders


class DecoderBackbone(OutputLayerBackbone):
    """MultiDAE and MultiVAE: the decoder's last layer scores."""

    def output_layer(self) -> nn.Linear:
        """Return the decoder's last layer."""
        layer: nn.Linear = self.decoder[-1]
        return layer


class CDAEAdapter(OutputLayerBackbone):
    """CDAE: a hidden layer of the user's embedding and interactions; its loss is summed over users and items."""

    sums_losses = True

    def output_layer(self) -> nn.Linear:
        """Return the layer from hidden to items."""
        layer: nn.Linear = self.out_layer
        return layer


# ---------------------------------------------------------------------- which model takes which


@dataclass(frozen=True)
class Support:
    """How RLMRec aligns one of RecBole's models.

    Attributes:
        adapter: the mixin that makes it a backbone; None where it cannot be aligned.
        note: what is aligned, or why nothing can be, as a predicate of the model.
        no_gen: why ego embeddings cannot be masked, likewise; empty where they can.
    """

    adapter: type[RecBoleBackbone] | None
    note: str
    no_gen: str = ""

    @property
    def remarks(self) -> str:
        """The note, and what is to be known of Gen."""
        remarks = [self.note, self.no_gen] if self.no_gen else [self.note]
        if self.adapter is not None and not self.adapter.sees_neighbours:
            remarks.append("Gen trains no embedding by its reconstruction, since a masked node is the mask token alone")
        return "; ".join(remarks)


_EMBEDDINGS = "is represented by its embeddings"
_LAYERS = "is represented by what is propagated"
_NO_USER_EGO = "has no ego embedding of a user that could be masked: users are encoded from their interactions"
_LAST_LAYER = "is represented by the input of the last layer (users) and that layer's rows (items)"
_NOTHING = "has no user and item representations"
_FREE_OF_TRAINING = "so there is no training that an alignment could take part in"

#: RecBole 1.2's general recommenders by name, less those that this package has a backbone of its own for.
RECBOLE_MODELS: dict[str, Support] = {
    "BPR": Support(TableBackbone, _EMBEDDINGS),
    "NeuMF": Support(NeuMFAdapter, "is represented by the embeddings of both branches side by side"),
    "ConvNCF": Support(SummedTableBackbone, _EMBEDDINGS),
    "LINE": Support(TableBackbone, f"{_EMBEDDINGS}, those as a context apart"),
    "ENMF": Support(ENMFAdapter, f"{_EMBEDDINGS}; the items aligned are those of the batch's users"),
    "NGCF": Support(NGCFAdapter, _LAYERS),
    "DGCF": Support(DGCFAdapter, _LAYERS),
    "NCL": Support(NCLAdapter, f"{_LAYERS}; training needs the package faiss-cpu"),
    "SpectralCF": Support(SpectralCFAdapter, _LAYERS),
    "GCMC": Support(GCMCAdapter, "is represented by its encoder's output; Gen masks rows of the first layer's weights"),
    "DMF": Support(DMFAdapter, "is represented by its towers' last layers; Gen masks columns of their first layers"),
    "SimpleX": Support(SimpleXAdapter, "is represented by embeddings, the users' mixed with their histories"),
    "NNCF": Support(NNCFAdapter, "is represented by embeddings beside convolved neighbourhoods"),
    "FISM": Support(
        FISMAdapter,
        "is represented by sums over histories (users) and target embeddings (items)",
        "has no ego embedding of a user that could be masked: a user is the sum of a history",
    ),
    "MultiDAE": Support(DecoderBackbone, _LAST_LAYER, _NO_USER_EGO),
    "MultiVAE": Support(DecoderBackbone, _LAST_LAYER, _NO_USER_EGO),
    "CDAE": Support(
        CDAEAdapter,
        _LAST_LAYER,
        "has one embedding of each user, but input and output weights of each item, and one mask token cannot be both",
    ),
    "MacridVAE": Support(None, "has many representations of a user, one a concept, and one of an item"),
    "RecVAE": Support(
        None, "trains encoder and decoder in turn with an optimiser each, neither of which would train a projector"
    ),
    "RaCT": Support(
        None, "is trained in stages that hand on pickled checkpoints; MultiVAE is what its first stage trains"
    ),
    "DiffRec": Support(None, "has no item representations: it removes noise from a user's row of interactions"),
    "LDiffRec": Support(None, "has no item representations: it removes noise from an encoded row of interactions"),
    "NAIS": Support(None, "has no user representations: it weighs a user's items again for each item it scores"),
    "ItemKNN": Support(None, f"{_NOTHING}: it scores by item similarity"),
    "AsymKNN": Support(None, f"{_NOTHING}: it scores by similarity of items or of users; in RecBole 1.2.1 only"),
    "EASE": Support(None, f"{_NOTHING}: it scores by weights between items"),
    "SLIMElastic": Support(None, f"{_NOTHING}: it scores by weights between items"),
    "ADMMSLIM": Support(None, f"{_NOTHING}: it scores by weights between items"),
    "NCEPLRec": Support(None, f"computes its factors in closed form, {_FREE_OF_TRAINING}"),
    "Pop": Support(None, f"{_NOTHING}: it scores by popularity"),
    "Random": Support(None, f"{_NOTHING}: it scores at random"),
}
