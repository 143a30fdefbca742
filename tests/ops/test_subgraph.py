"""Drawn graphs against sets of pairs and loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from recbole_rlmrec.ops.graph import Adjacency, normalized_adjacency
from recbole_rlmrec.ops.subgraph import (
    _mirror_by_sorting,
    edges,
    n_neighbours,
    rows_of,
    undirected_graph,
    within,
    without_nodes,
)

N_USERS, N_ITEMS = 14, 11
N = N_USERS + N_ITEMS


@pytest.fixture(params=[0, 1, 2])
def graph(request: Any) -> Adjacency:
    rng = np.random.default_rng(request.param)
    return normalized_adjacency(rng.integers(1, N_USERS, 25), rng.integers(1, N_ITEMS, 25), N_USERS, N_ITEMS)


def entries(graph: Adjacency) -> list[tuple[int, int]]:
    start, column = graph.row_start.tolist(), graph.column.tolist()
    return [(row, column[entry]) for row in range(graph.n_nodes) for entry in range(start[row], start[row + 1])]


def flags(nodes: set[int]) -> torch.Tensor:
    return torch.tensor([node in nodes for node in range(N)])


def test_rows_and_neighbours_are_counted_entry_by_entry(graph: Adjacency) -> None:
    assert rows_of(graph).tolist() == [row for row, _ in entries(graph)]
    nodes = {2, 5, 15, 16, 24}
    expected = [sum(row == node and column in nodes for row, column in entries(graph)) for node in range(N)]
    assert n_neighbours(graph, flags(nodes)).tolist() == expected and max(expected) > 1


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_within_is_a_search_by_breadth(graph: Adjacency, steps: int) -> None:
    reached = {3, 17}
    for _ in range(steps):
        reached = reached | {column for row, column in entries(graph) if row in reached}
    found = within(graph, flags({3, 17}), steps)
    assert set(found.nonzero().squeeze(1).tolist()) == reached


def test_edges_without_some_nodes(graph: Adjacency) -> None:
    removed = {2, 3, 7, 15, 20}
    left = [(row, column) for row, column in entries(graph) if not {row, column} & removed]
    assert 0 < len(left) < len(entries(graph))
    degree = {node: sum(row == node for row, _ in left) for node in range(N)}
    expected = np.zeros((N, N))
    for row, column in left:
        expected[row, column] = 1 / np.sqrt(degree[row] * degree[column])
    found = without_nodes(graph, flags(removed))
    np.testing.assert_allclose(found.to_dense().numpy(), expected, rtol=1e-6)
    assert torch.equal(found.value[found.mirror], found.value)
    low, high = edges(found)
    assert sorted(zip(low.tolist(), high.tolist())) == sorted((row, column) for row, column in left if row < column)


def test_without_every_node_nothing_is_left(graph: Adjacency) -> None:
    found = without_nodes(graph, flags(set(range(N))))
    assert (found.value == 0).all() and all(len(ends) == 0 for ends in edges(found))


# Keys of up to 32,767 nodes fit in 32 bits.
@pytest.mark.parametrize("n_nodes", [9, 32_767, 32_768, 100_000])
def test_undirected_graph_is_the_set_of_its_pairs(n_nodes: int) -> None:
    generator = torch.Generator().manual_seed(3)
    near = torch.randint(9, (2, 40), generator=generator)
    far = n_nodes - 1 - torch.randint(9, (2, 40), generator=generator)
    first, second = torch.cat([near, far, torch.stack([near[0], far[0]])], dim=1)
    looped = torch.arange(n_nodes) % 3 == 1
    graph = undirected_graph(first, second, looped)
    loops = looped.nonzero().squeeze(1).tolist()
    pairs = set(zip(first.tolist(), second.tolist()))
    expected = pairs | {(b, a) for a, b in pairs} | {(node, node) for node in loops}
    assert len(expected) < 2 * len(first) + len(loops)
    found = entries(graph)
    assert found == sorted(expected)
    assert (graph.value == 1).all() and graph.symmetric
    assert [found[place] for place in graph.mirror.tolist()] == [(column, row) for row, column in found]
    assert graph.row_start.dtype == graph.column.dtype == graph.mirror.dtype == torch.int32
    assert torch.equal(_mirror_by_sorting(graph.column), graph.mirror)


def test_undirected_graph_of_no_pair() -> None:
    none = torch.tensor([], dtype=torch.int64)
    assert entries(undirected_graph(none, none, torch.tensor([True, False, True]))) == [(0, 0), (2, 2)]
    empty = undirected_graph(none, none, torch.zeros(3, dtype=torch.bool))
    assert entries(empty) == [] and len(empty.mirror) == 0


def test_product_and_gradient_over_an_undirected_graph() -> None:
    generator = torch.Generator().manual_seed(4)
    first, second = torch.randint(N, (2, 40), generator=generator)
    graph = undirected_graph(first, second, torch.ones(N, dtype=torch.bool))
    value = torch.rand(len(graph.value), generator=generator)
    weighted = replace(graph, value=value, symmetric=False)
    x = torch.randn(N, 3, generator=generator, requires_grad=True)
    weighted.matmul(x).sum().backward()
    torch.testing.assert_close(x.grad, weighted.to_dense().T @ torch.ones(N, 3))
