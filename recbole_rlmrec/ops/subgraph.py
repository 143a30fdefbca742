"""Parts of a graph and graphs made of pairs, drawn again while a model trains: array operations on the device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from recbole_rlmrec.ops.graph import Adjacency


def rows_of(graph: Adjacency) -> Tensor:
    """Return the row of each entry, ``[nnz]``."""
    nodes = torch.arange(graph.n_nodes, device=graph.column.device, dtype=graph.column.dtype)
    return nodes.repeat_interleave(graph.row_start.diff(), output_size=graph.column.numel())


def n_neighbours(graph: Adjacency, nodes: Tensor) -> Tensor:
    """Return how many of each node's neighbours are among ``nodes``, ``[n]``.

    Args:
        graph: its pattern says which entries there are.
        nodes: ``[n]``, True for those counted.
    """
    # A sum over a stretch of entries is a difference of sums from the start; in integers nothing is lost.
    sums = nodes.new_zeros(graph.column.numel() + 1, dtype=torch.int64)
    torch.cumsum(nodes.index_select(0, graph.column), dim=0, out=sums[1:])
    return sums.index_select(0, graph.row_start).diff()


def within(graph: Adjacency, nodes: Tensor, steps: int) -> Tensor:
    """Return which nodes are at most ``steps`` edges away from ``nodes``, ``[n]``, themselves included.

    >>> path = undirected_graph(torch.tensor([0, 1, 2]), torch.tensor([1, 2, 3]), looped=torch.zeros(4, dtype=bool))
    >>> within(path, torch.tensor([True, False, False, False]), steps=2).tolist()
    [True, True, True, False]
    """
    for _ in range(steps):
        nodes = nodes | (n_neighbours(graph, nodes) > 0)
    return nodes


def without_nodes(graph: Adjacency, removed: Tensor) -> Adjacency:
    """Delete the edges that touch a node and normalise what is left by its own degrees, ``D^-1/2 A D^-1/2``.

    Deleted entries stay in the pattern with the value 0, so nothing is rebuilt.

    Args:
        graph: its pattern says which edges there are; each counts once.
        removed: ``[n]``, True for the nodes whose edges are deleted.

    >>> path = undirected_graph(torch.tensor([0, 1]), torch.tensor([1, 2]), looped=torch.zeros(3, dtype=bool))
    >>> without_nodes(path, removed=torch.tensor([False, False, True])).to_dense().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    degree = n_neighbours(graph, ~removed).masked_fill(removed, 0)
    scale = torch.where(degree > 0, degree.to(graph.value.dtype).rsqrt(), 0)
    value = scale.index_select(0, rows_of(graph)) * scale.index_select(0, graph.column)
    return replace(graph, value=value, symmetric=True)


def edges(graph: Adjacency) -> tuple[Tensor, Tensor]:
    """Return both ends of the edges whose value is not 0, the lower first, without self-loops; ``[E]`` each."""
    rows = rows_of(graph)
    kept = ((graph.value != 0) & (rows < graph.column)).nonzero().squeeze(1)
    return rows.index_select(0, kept), graph.column.index_select(0, kept)


def undirected_graph(first: Tensor, second: Tensor, looped: Tensor) -> Adjacency:
    """Build the 0/1 graph of some pairs of nodes, in both directions, with self-loops; duplicates count once.

    Args:
        first: ``[P]`` nodes.
        second: ``[P]`` nodes.
        looped: ``[n]``, True for the nodes that get a self-loop.

    Returns:
        The graph over n nodes, on the device of the pairs. A row's entries are in ascending order.

    >>> graph = undirected_graph(torch.tensor([0]), torch.tensor([1]), looped=torch.tensor([False, False, True]))
    >>> graph.to_dense().tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]
    """
    n_nodes = len(looped)
    bits = n_nodes.bit_length()
    # An entry's row and column side by side in one number; short numbers are sorted in half the time.
    dtype = torch.int32 if 2 * bits < 32 else torch.int64
    loops = looped.nonzero().squeeze(1).to(dtype)
    rows, columns = torch.cat([first.to(dtype), second.to(dtype)]), torch.cat([second.to(dtype), first.to(dtype)])
    key = _sorted(torch.cat([rows.bitwise_left_shift_(bits).bitwise_or_(columns), (loops << bits) | loops]))
    key = torch.unique_consecutive(key)
    starts = torch.arange(n_nodes + 1, device=key.device, dtype=dtype) << bits
    index_dtype = torch.int32 if max(len(key), n_nodes) <= torch.iinfo(torch.int32).max else torch.int64
    row_start = torch.searchsorted(key, starts, out_int32=index_dtype == torch.int32)
    column = key.bitwise_and_((1 << bits) - 1).to(index_dtype)
    value = torch.ones(len(key), device=key.device)
    return Adjacency(row_start, column, value, _mirror(row_start, column))


def _sorted(keys: Tensor) -> Tensor:
    """Return the keys in ascending order; by NumPy on a CPU, which need not say how they are ordered."""
    if keys.device.type == "cpu":
        return torch.from_numpy(np.sort(keys.numpy()))
    return keys.sort().values


def _mirror(row_start: Tensor, column: Tensor) -> Tensor:
    """Return the position of each entry's mirror image in a symmetric pattern whose rows are in ascending order."""
    if column.device.type == "cpu":
        # SciPy transposes by counting.
        n_nodes, position = len(row_start) - 1, torch.arange(len(column), dtype=column.dtype)
        parts = (position.numpy(), column.numpy(), row_start.numpy())
        return torch.from_numpy(scipy.sparse.csr_matrix(parts, shape=(n_nodes, n_nodes)).tocsc().data)
    return _mirror_by_sorting(column)


def _mirror_by_sorting(column: Tensor) -> Tensor:
    # Ordered by column, then row, the i-th entry is the mirror image of the one that is the i-th by row, then column.
    return column.sort(stable=True).indices.to(column.dtype)
