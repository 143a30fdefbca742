"""AutoCF (Xia et al., WWW 2023), which RecBole does not have."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.base import GraphBackbone, L2Scope, LayerCombination, Terms, distinct
from recbole_rlmrec.model.backbone.contract import SettingsClasses
from recbole_rlmrec.model.backbone.tables import EmbeddingTables
from recbole_rlmrec.ops.attention import edge_attention
from recbole_rlmrec.ops.blockwise import log_sum_exp
from recbole_rlmrec.ops.distributed import Share, this_shard
from recbole_rlmrec.ops.graph import Adjacency
from recbole_rlmrec.ops.subgraph import edges, undirected_graph, within, without_nodes
from recbole_rlmrec.settings import COUNT, FEW, SHARE, Choice, Settings, known, require_number, setting

_logger = logging.getLogger(__name__)

DecoderRows = Literal["exact", "float32"]


@dataclass(frozen=True)
class AutoCFSettings(Settings):
    """Xia et al., WWW 2023, as RLMRec runs it on its three datasets.

    HKUDS/RLMRec @2241375, encoder/config/modelconf/autocf*.yml: the general values, and the most frequent ones of its
    nine configurations of AutoCF.
    """

    embedding_size: int = known("embedding_size", 32)
    n_layers: int = known("n_layers", 2)  # gcn_layer; 2 in 8 of 9
    reg_weight: float = known("reg_weight", 1e-6)  # in 6 of 9
    # The decoder's layers are combined with those of the encoder.
    layer_combination: LayerCombination = known("layer_combination", "sum")
    l2_scope: L2Scope = known("l2_scope", "all")  # the decoder's weights take part in the L2 term
    # gt_layer.
    n_decoder_layers: int = setting(1, FEW, "AutoCF: graph-transformer layers of the decoder")
    head_num: int = setting(4, COUNT, "AutoCF: attention heads of a decoder layer; a divisor of embedding_size")
    # Lower it on data of far fewer than 20,000 nodes.
    seed_num: int = setting(100, COUNT, "AutoCF: centres whose surroundings are masked")
    mask_depth: int = setting(
        2, FEW, "AutoCF: edges are masked that touch a node less than this many steps from a centre"
    )
    fix_steps: int = setting(10, COUNT, "AutoCF: training steps between two draws of centres and graphs")
    # keep_rate.
    node_keep_rate: float = setting(
        0.2, SHARE, "AutoCF: share of nodes drawn beside the masked ones for the decoder's random pairs"
    )
    # On small data 1.0, ssl_reg in 4 of 9, ranks far below popularity (docs/defaults.md).
    ssl_weight: float = known("ssl_weight", 0.01, published=1.0)
    decoder_rows: DecoderRows = setting(
        "exact",
        Choice.of(DecoderRows),
        "AutoCF: rows of the decoder's graph as they are, or as the official code decodes them: 5 % are the row above",
    )


@dataclass(frozen=True)
class MaskedGraphs:
    """What one draw of AutoCF gives: the graphs of the steps until the next.

    Attributes:
        encoder: the edges away from the centres, normalised by their own degrees.
        decoder: those edges, self-loops, and random pairs around the centres; 0/1.
    """

    encoder: Adjacency
    decoder: Adjacency


class GraphTransformer(nn.Module):
    """Multi-head attention along the edges of a graph: no scaling of the scores, no output projection.

    Args:
        width: d.
        n_heads: a divisor of d.
    """

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.query, self.key, self.value = (
            nn.Parameter(nn.init.xavier_uniform_(torch.empty(width, width))) for _ in range(3)
        )

    def forward(self, x: Tensor, graph: Adjacency, row_of: Tensor | None = None) -> Tensor:
        """Return ``[N, d]``: for each node the mean of its neighbours' values by the exponentials of their scores.

        Args:
            x: ``[N, d]``.
            graph: its pattern says whose neighbour is who.
            row_of: ``[N]``, the row that a node's edges are taken to belong to; its own by default.
        """
        query, key, value = (self._heads(x @ weight) for weight in (self.query, self.key, self.value))
        if row_of is not None:
            query = query.index_select(1, row_of)
        weighted, weight = edge_attention(query, key, value, graph)
        if row_of is not None:
            weighted = torch.zeros_like(weighted).index_add(1, row_of, weighted)
            weight = torch.zeros_like(weight).index_add(1, row_of, weight)
        mean = weighted / (weight + 1e-8).unsqueeze(2)
        return mean.transpose(0, 1).flatten(start_dim=1)

    def _heads(self, x: Tensor) -> Tensor:
        """Return ``[H, N, d / H]`` of ``[N, d]``."""
        return x.unflatten(1, (self.n_heads, -1)).transpose(0, 1)


class AutoCF(GraphBackbone, EmbeddingTables):
    """A masked autoencoder of the graph: it hides what lies around chosen centres and learns to score it anyway.

    At the first step of each epoch, and every ``fix_steps`` steps after it, ``seed_num`` centres are drawn: nodes that
    resemble their two-hop neighbourhood, by noisy scores whose mean is maximised at those steps (``infomax``; 0 at all
    others). Edges that touch a centre, or a node within ``mask_depth - 1`` steps of one, are deleted. The encoder
    propagates over the rest; the decoder attends along the rest, self-loops and random pairs around the centres. Its
    layers are combined with those of the encoder. Evaluation encodes and decodes over the whole training graph.

    The loss is ``-mean <e_u, e_v>`` (``interaction``) and the log-sum-exp of unnormalised products (``ssl``): of users
    and items, plus ``ssl_weight`` times that of users and users, and of items and items. Negative items play no part.

    The official code computes rows of the decoder's graph from keys in float32 and, for some of them, gets the row
    above (``decoder_rows: float32``); and it exponentiates products as they are, which here cannot overflow.
    """

    settings_classes: ClassVar[SettingsClasses] = (AutoCFSettings,)

    is_node: Tensor
    nodes: Tensor
    row_of: Tensor | None

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        settings = self.autocf_settings = AutoCFSettings.from_config(config)
        require_number(config, "ssl_weight", "AutoCF's term is no contrast between views, whose share could be bounded")
        width, n_nodes = self.ego_dim, self.n_users + self.n_items - 2
        if width % settings.head_num:
            raise SettingError(
                f"head_num={settings.head_num} does not divide embedding_size={width}; each head takes an equal part."
            )
        if settings.seed_num > n_nodes:
            raise SettingError(
                f"seed_num={settings.seed_num} centres cannot be drawn from the {n_nodes} users and items of the data. "
                "Lower it; the paper's 100 suit its data of 20,000 nodes and more."
            )
        self.decoder = nn.ModuleList(
            GraphTransformer(width, settings.head_num) for _ in range(settings.n_decoder_layers)
        )
        real = torch.ones(self.n_users + self.n_items, dtype=torch.bool)
        real[0] = real[self.n_users] = False  # [PAD]
        self.register_buffer("is_node", real, persistent=False)
        self.register_buffer("nodes", real.nonzero().squeeze(1), persistent=False)
        row_of = None
        if settings.decoder_rows == "float32":
            row_of = torch.arange(len(real)).index_copy(0, self.nodes, self.nodes[float32_rows(n_nodes)])
        self.register_buffer("row_of", row_of, persistent=False)
        # No part of a checkpoint: a training that goes on begins with a draw.
        self.masked_graphs: MaskedGraphs | None = None
        self.steps_until_draw = 0
        self.has_warned = False

    @property
    def output_dim(self) -> int:
        """Width of a node's representation: d, or d times the layers, the decoder's among them, if concatenated."""
        concatenated = self.graph_settings.layer_combination == "concat"
        return super().output_dim + concatenated * len(self.decoder) * self.ego_dim

    def train(self, mode: bool = True) -> Any:
        """Switch between training and evaluation; the next step of a training draws again."""
        self.steps_until_draw = 0
        return super().train(mode)

    # ------------------------------------------------------------------ representation

    def encode(self, ego: Tensor) -> Tensor:
        """Return the combined layers of encoder and decoder, ``[U + I, output_dim]``, of ``ego``, ``[U + I, d]``.

        Over the graphs of the last draw while training, over the whole graph in evaluation and before any draw.
        """
        graphs = self.masked_graphs if self.training else None
        if graphs is None:
            graphs = MaskedGraphs(self.adjacency, self.adjacency)
        encoder = graphs.encoder.drop_edges(self.graph_settings.edge_keep_rate if self.training else 1.0)
        layers = [ego]
        for _ in range(self.graph_settings.n_layers):
            layers.append(encoder.matmul(layers[-1]))
        for layer in self.decoder:
            layers.append(layer(layers[-1], graphs.decoder, self.row_of if self.training else None))
        return self.combined(layers)

    # ------------------------------------------------------------------ draws

    def centre_scores(self) -> Tensor:
        """Return how much each node resembles its two-hop neighbourhood, with Gumbel noise, ``[U + I - 2]``.

        ``log sigmoid(cos(c, E)) - log(-log U)``. With the 0/1 graph A and degrees n the paper's c is the quotient of
        ``f + s = (A E - E) + (A f - f) - n E`` and of the same with n for E, which is no negative number: the cosine
        does not depend on it. And f cancels out of the sum.
        """
        graph = replace(self.adjacency, value=torch.ones_like(self.adjacency.value))
        ego = self.ego_embeddings()
        degree = graph.row_start.diff().unsqueeze(1)
        neighbourhood = graph.matmul(graph.matmul(ego) - ego) - degree * ego
        squares = neighbourhood.square().sum(dim=1) * ego.square().sum(dim=1)
        cosine = (neighbourhood * ego).sum(dim=1) * squares.clamp(min=1e-24).rsqrt()
        cosine = cosine.index_select(0, self.nodes)
        uniform = torch.rand_like(cosine).clamp_(min=torch.finfo(cosine.dtype).tiny)
        return F.logsigmoid(cosine) - torch.log(-torch.log(uniform))

    def draw(self, centres: Tensor) -> MaskedGraphs:
        """Return the graphs for some centres, ``[seed_num]`` rows of the stacked table.

        The decoder's random pairs are as many as the whole graph has entries. Their ends are drawn among the centres,
        the nodes whose edges were deleted with theirs, and ``floor(node_keep_rate * n)`` draws from all n nodes.
        """
        settings, whole = self.autocf_settings, self.adjacency
        removed = torch.zeros_like(self.is_node).index_fill_(0, centres, True)
        removed = within(whole, removed, settings.mask_depth - 1)
        n = len(self.nodes)
        # The addend keeps a product such as 0.29 * 100 = 28.999999999999996 from losing a node.
        sampled = torch.randint(n, (int(settings.node_keep_rate * n + 1e-9),), device=removed.device)
        among = removed.index_fill(0, self.nodes.index_select(0, sampled), True).nonzero().squeeze(1)
        among = among.to(whole.column.dtype)
        ends = torch.randint(len(among), (2 * whole.column.numel(),), device=removed.device)
        first, second = among.index_select(0, ends).chunk(2)
        encoder = without_nodes(whole, removed)
        low, high = edges(encoder)
        self._warn_of_an_empty_graph(len(low))
        decoder = undirected_graph(torch.cat([first, low]), torch.cat([second, high]), self.is_node)
        return MaskedGraphs(encoder, decoder)

    def _warn_of_an_empty_graph(self, n_left: int) -> None:
        n_edges = self.adjacency.column.numel() // 2
        if n_left < 0.1 * n_edges and not self.has_warned:
            self.has_warned = True
            settings = self.autocf_settings
            _logger.warning(
                f"AutoCF's {settings.seed_num} centres with mask_depth={settings.mask_depth} hide all but {n_left} of "
                f"{n_edges} edges from the encoder. Lower seed_num, which suits graphs of 20,000 nodes and more, or "
                "mask_depth."
            )

    def _infomax(self) -> Tensor:
        """Draw the graphs of the next steps and return minus the mean score of all nodes as centres."""
        # Full precision: what is drawn must not depend on autocast.
        with torch.autocast(device_type=self.device.type, enabled=False):
            scores = self.centre_scores()
            centres = self.nodes.index_select(0, scores.detach().topk(self.autocf_settings.seed_num).indices)
            self.masked_graphs = self.draw(centres)
            return -scores[this_shard().rows(len(scores))].sum() / len(scores)

    # ------------------------------------------------------------------ losses

    def step(
        self, interaction: Any, mask: Callable[[Tensor], Tensor] | None = None, share: float | None = None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return the weighted loss terms of a batch, ``infomax`` last, and the representation; draw where it is due.

        Centres are scored by the ego embeddings as they are, also where Gen masks some.
        """
        infomax = self.user_embedding.weight.new_zeros(())
        if self.steps_until_draw == 0:
            infomax = self.reduced(self._infomax(), len(interaction[self.USER_ID]))
            self.steps_until_draw = self.autocf_settings.fix_steps
        self.steps_until_draw -= 1
        terms, representation = super().step(interaction, mask, share)
        terms["infomax"] = infomax
        return terms, representation

    def loss_terms(self, ego: Tensor, representation: Tensor, interaction: Any) -> Terms:
        """Return the score of the batch's interactions, L2 and the log-sum-exp terms."""
        user, positive, negative = self.batch(interaction)
        users, items = self.split(representation)
        local = this_shard().rows(len(user))
        scores = (users.index_select(0, user[local]) * items.index_select(0, positive[local])).sum()
        interactions = -scores / len(user)
        ssl = self._log_sum_exp(users, items, user, positive)
        return {
            "interaction": Share(self.reduced(interactions, len(user))),
            "reg": self.l2_term(user, positive, negative),
            "ssl": Share(self.reduced(ssl, len(user))),
        }

    def _log_sum_exp(self, users: Tensor, items: Tensor, user: Tensor, positive: Tensor) -> Tensor:
        """Return the mean over the batch's rows of logsumexp over all items, and the means over its unique nodes."""
        user_rows, user_counts = distinct(user)
        item_rows, item_counts = distinct(positive)
        each_user, each_item = ((counts > 0).to(users.dtype) for counts in (user_counts, item_counts))
        weight = self.autocf_settings.ssl_weight
        own_users, own_items = (this_shard().rows(len(rows)) for rows in (user_rows, item_rows))
        anchor = users.index_select(0, user_rows[own_users])
        item_anchor = items.index_select(0, item_rows[own_items])
        # Without [PAD], row 0 of both tables.
        among_users = log_sum_exp(anchor, users[1:], (weight / each_user.sum() * each_user)[own_users])
        among_items = log_sum_exp(item_anchor, items[1:], (weight / each_item.sum() * each_item)[own_items])
        between = log_sum_exp(anchor, items[1:], (user_counts / len(user))[own_users])
        return among_users + among_items + between

    def alignment_anchors(self, interaction: Any) -> tuple[Tensor, list[Tensor]]:
        """Return the batch's users and positive items: AutoCF has no use for negative ones, nor has its Con."""
        user, positive, _ = self.batch(interaction)
        return user, [positive]


def float32_rows(n: int) -> Tensor:
    """Return the row that the official code takes each row of a graph of n nodes for, ``[n]``.

    It numbers an entry ``row * n + column`` and computes the row back as ``(number - column) / n`` in float32, which
    has too few digits: where the division falls below the row, truncation gives the row above (HKUDS/RLMRec @2241375).
    """
    return torch.arange(n).mul(n).float().div(n).long()
