"""Attention along edges against loops over entries in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_rlmrec.ops.attention import edge_attention
from recbole_rlmrec.ops.graph import Adjacency
from recbole_rlmrec.ops.subgraph import undirected_graph

N, HEADS = 12, 3


def some_graph(dtype: torch.dtype = torch.float64) -> Adjacency:
    """A graph whose first node has no entry at all, and values that must not matter."""
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randint(1, N, (2, 30), generator=generator)
    graph = undirected_graph(first, second, torch.arange(N) > 4)
    return replace(graph, value=torch.rand(len(graph.value), dtype=dtype, generator=generator))


def tables(width: int = 4, value_width: int = 5, scale: float = 0.7) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    shapes = (width, width, value_width)
    return [torch.randn(HEADS, N, w, generator=generator, dtype=torch.float64) * scale for w in shapes]


def slow(query: Any, key: Any, value: Any, graph: Adjacency, limit: float) -> tuple[np.ndarray, np.ndarray]:
    start, column = graph.row_start.tolist(), graph.column.tolist()
    query, key, value = (table.numpy() for table in (query, key, value))
    weighted, weight = np.zeros(value.shape), np.zeros(value.shape[:2])
    for head in range(HEADS):
        for row in range(N):
            for entry in range(start[row], start[row + 1]):
                score = float(np.dot(query[head, row], key[head, column[entry]]))
                attention = np.exp(min(max(score, -limit), limit))
                weighted[head, row] += attention * value[head, column[entry]]
                weight[head, row] += attention
    return weighted, weight


@pytest.mark.parametrize("limit", [10.0, 0.5])
def test_sums_are_the_slow_ones(limit: float) -> None:
    graph, (query, key, value) = some_graph(), tables()
    weighted, weight = edge_attention(query, key, value, graph, limit)
    expected = slow(query, key, value, graph, limit)
    np.testing.assert_allclose(weighted, expected[0], rtol=1e-12)
    np.testing.assert_allclose(weight, expected[1], rtol=1e-12)
    assert (weight[:, 1:] > 0).any() and (weight[:, 0] == 0).all() and (weighted[:, 0] == 0).all()


@pytest.mark.parametrize("limit", [10.0, 0.5])
def test_gradcheck(limit: float) -> None:
    graph, inputs = some_graph(), [x.requires_grad_() for x in tables(2, 3)]
    assert torch.autograd.gradcheck(lambda *x: edge_attention(*x, graph, limit), inputs)


def test_gradient_of_the_quotient_is_autograds() -> None:
    """Against the same written with dense matrices, also where scores are clamped."""
    graph, inputs = some_graph(), [x.requires_grad_() for x in tables(scale=1.5)]
    query, key, value = inputs
    pattern = replace(graph, value=torch.ones_like(graph.value)).to_dense()
    attention = (query @ key.transpose(1, 2)).clamp(-2, 2).exp() * pattern
    expected = attention @ value / (attention.sum(dim=2, keepdim=True) + 1e-8)
    weighted, weight = edge_attention(*inputs, graph, 2.0)
    found = weighted / (weight + 1e-8).unsqueeze(2)
    torch.testing.assert_close(found, expected)
    factor = torch.randn(found.shape, dtype=torch.float64)
    theirs = torch.autograd.grad((expected * factor).sum(), inputs)
    for ours, other in zip(torch.autograd.grad((found * factor).sum(), inputs), theirs):
        torch.testing.assert_close(ours, other)
        assert other.abs().max() > 1e-3


def test_large_scores_stay_finite() -> None:
    graph, inputs = some_graph(torch.float32), [x.float().requires_grad_() for x in tables(scale=50)]
    weighted, weight = edge_attention(*inputs, graph)
    (weighted.sum() + weight.sum()).backward()
    assert torch.isfinite(weighted).all() and all(torch.isfinite(x.grad).all() for x in inputs)


def test_under_autocast_all_is_full_precision() -> None:
    graph, inputs = some_graph(torch.float32), [x.float() for x in tables()]
    expected = edge_attention(*inputs, graph)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = edge_attention(*inputs, graph)
    for ours, theirs in zip(found, expected):
        assert torch.equal(ours, theirs)
    cast = [x.bfloat16().requires_grad_() for x in inputs]
    edge_attention(*cast, graph)[0].sum().backward()
    assert all(x.grad.dtype == torch.bfloat16 for x in cast)
