"""Attention along the edges of a graph, by sparse products only."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_rlmrec.ops.graph import Adjacency, add_sampled_product, matrix_product


def edge_attention(
    query: Tensor, key: Tensor, value: Tensor, graph: Adjacency, limit: float = 10.0
) -> tuple[Tensor, Tensor]:
    """Return what attention is the quotient of: sums over each node's edges, for each head.

    With ``a_rc = exp(clamp(<query_r, key_c>, -limit, limit))`` for each entry (r, c) of the graph, the sums are
    ``sum_c a_rc value_c`` and ``sum_c a_rc``. Nothing of the size of edges times width exists at any time: scores of
    the edges are sampled products, sums over them products with a sparse matrix.

    Args:
        query: ``[H, n, k]``.
        key: ``[H, n, k]``.
        value: ``[H, n, v]``.
        graph: its pattern says which entries there are; its values play no part.
        limit: what the scores are clamped to; the sums of their exponentials must stay within float32.

    Returns:
        ``[H, n, v]`` and ``[H, n]``, in the dtype of the graph; zeros for nodes without an entry. Differentiable once.

    >>> from recbole_rlmrec.ops.subgraph import undirected_graph
    >>> graph = undirected_graph(torch.tensor([0]), torch.tensor([1]), looped=torch.tensor([True, False]))
    >>> weighted, weight = edge_attention(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1), torch.ones(1, 2, 1) * 3, graph)
    >>> weighted.flatten().tolist(), weight.flatten().tolist()
    ([6.0, 3.0], [2.0, 1.0])
    """
    weighted, weight = _EdgeAttention.apply(query, key, value, graph, limit)
    return weighted, weight


class _EdgeAttention(torch.autograd.Function):
    """S = A [V, 1] with A_rc = exp(clamp(<q_r, k_c>)).

    With dA_rc = <dS_r, [V, 1]_c> and dL = dA * A where no score is clamped: dV = A^T dS, dQ = dL K, dK = dL^T Q. The
    scores are kept for the backward pass, ``[H, nnz]``; their exponentials cost less than the memory.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, graph: Adjacency, limit: float
    ) -> tuple[Tensor, Tensor]:
        ctx.graph, ctx.limit, ctx.dtypes = graph, limit, (query.dtype, key.dtype, value.dtype)
        dtype = graph.value.dtype
        query, key = query.to(dtype).contiguous(), key.to(dtype).contiguous()
        value = torch.cat([value.to(dtype), value.new_ones(*value.shape[:2], 1, dtype=dtype)], dim=2)
        scores = graph.value.new_zeros(len(query), len(graph.value))
        sums = torch.empty_like(value)
        for head, score in enumerate(scores):
            add_sampled_product(graph, query[head], key[head], score).clamp_(-limit, limit)
            sums[head] = matrix_product(graph, score.exp(), value[head])
        ctx.save_for_backward(query, key, value, scores)
        return sums[..., :-1], sums[..., -1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        graph: Adjacency = ctx.graph
        query, key, value, scores = ctx.saved_tensors
        grads = torch.cat([grad_outputs[0], grad_outputs[1].unsqueeze(2)], dim=2)
        of_query, of_key, of_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        of_scores = graph.value.new_zeros(len(graph.value))
        for head, score in enumerate(scores):
            attention = score.exp()
            of_score = add_sampled_product(graph, grads[head], value[head], of_scores.zero_()).mul_(attention)
            # The gradient of a clamp, in one pass.
            of_score = torch.ops.aten.hardtanh_backward(of_score, score, -ctx.limit, ctx.limit)
            of_query[head] = matrix_product(graph, of_score, key[head])
            of_key[head] = matrix_product(graph, of_score.index_select(0, graph.mirror), query[head])
            of_value[head] = matrix_product(graph, attention.index_select(0, graph.mirror), grads[head])
        each = (of_query, of_key, of_value[..., :-1])
        return (*(grad.to(dtype) for grad, dtype in zip(each, ctx.dtypes)), None, None)
