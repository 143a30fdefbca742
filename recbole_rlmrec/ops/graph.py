"""The normalised user-item graph and the propagation over it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class Adjacency:
    """A square sparse matrix over the stacked nodes ``[users; items]``, in CSR form.

    The pattern is symmetric (a bipartite graph and its mirror image); the values may differ between the two
    directions of an edge, as they do after :meth:`drop_edges`. That makes the transpose, which the backward pass
    needs, the same pattern with permuted values: nothing is ever sorted or rebuilt during training.

    Attributes:
        row_start: ``[n + 1]`` CSR row pointers (int32 where they fit, the fast path of the sparse kernels).
        column: ``[nnz]`` column of each entry.
        value: ``[nnz]`` float weights.
        mirror: ``[nnz]`` position of the entry in the opposite direction, so that ``A.T`` has the values
            ``value[mirror]``; of the same integer type.
        symmetric: whether ``value[mirror]`` equals ``value``, in which case the backward pass skips that gather.
    """

    row_start: Tensor
    column: Tensor
    value: Tensor
    mirror: Tensor
    symmetric: bool = True

    @property
    def n_nodes(self) -> int:
        """Number of rows and columns."""
        return self.row_start.numel() - 1

    def to(self, device: torch.device | str) -> Adjacency:
        """Return the same matrix on ``device``."""
        return replace(
            self,
            row_start=self.row_start.to(device),
            column=self.column.to(device),
            value=self.value.to(device),
            mirror=self.mirror.to(device),
        )

    def drop_edges(self, keep_rate: float) -> Adjacency:
        """Keep each directed entry with probability ``keep_rate``; survivors keep their weight.

        The two directions of an edge are dropped independently and nothing is rescaled or renormalised, as in the
        official RLMRec code (HKUDS/RLMRec @2241375, ``encoder/models/model_utils.py``).

        Args:
            keep_rate: probability in (0, 1]; 1 returns this matrix and draws no random number.
        """
        if keep_rate >= 1.0:
            return self
        kept = torch.rand_like(self.value) < keep_rate
        return replace(self, value=self.value * kept, symmetric=False)

    def transposed_value(self) -> Tensor:
        """Return the values of the transpose, ``[nnz]``, in this pattern's order."""
        return self.value if self.symmetric else self.value.index_select(0, self.mirror)

    def matmul(self, x: Tensor) -> Tensor:
        """Return ``A @ x``, differentiable with respect to ``x``.

        Args:
            x: ``[n, d]``.

        Returns:
            ``[n, d]``, in the dtype of the matrix.
        """
        product: Tensor = _SparseProduct.apply(x, self)
        return product

    def to_dense(self) -> Tensor:
        """Return the ``[n, n]`` dense matrix; for small graphs and tests."""
        return _csr(self, self.value).to_dense()


def sum_of_layers(
    x: Tensor,
    graphs: Sequence[Adjacency],
    *,
    include_first: bool = True,
    addend: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Propagate ``x`` and return the sum of its layers, ``E_0 + ... + E_L`` with ``E_l = A_l E_{l-1}``.

    The sum is linear in ``x``: the backward pass needs none of the layers, so none is kept.

    Args:
        x: ``[n, d]``, E_0.
        graphs: A_1 to A_L.
        include_first: whether E_0 is part of the sum.
        addend: given each propagated layer, returns what is added to it (SimGCL's noise); no gradient flows through it.

    Returns:
        ``[n, d]``, in the dtype of the matrices.

    >>> graph = normalized_adjacency(np.array([0]), np.array([0]), n_users=1, n_items=1)
    >>> sum_of_layers(torch.tensor([[1.0], [2.0]]), [graph, graph]).tolist()
    [[4.0], [5.0]]
    """
    total: Tensor = _SumOfLayers.apply(x, tuple(graphs), include_first, addend)
    return total


class _SumOfLayers(torch.autograd.Function):
    """Layers added up as they come; backward by Horner's scheme, ``g + A_1^T (g + A_2^T (g + ...))``."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        graphs: tuple[Adjacency, ...],
        include_first: bool,
        addend: Callable[[Tensor], Tensor] | None,
    ) -> Tensor:
        ctx.graphs, ctx.include_first, ctx.input_dtype = graphs, include_first, x.dtype
        current = x.to(graphs[0].value.dtype)
        total = current.clone() if include_first else torch.zeros_like(current)
        for graph in graphs:
            current = matrix_product(graph, graph.value, current)
            if addend is not None:
                current += addend(current)
            total += current
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        values = {id(graph): graph.transposed_value() for graph in ctx.graphs}
        current = grad
        for layer in reversed(range(len(ctx.graphs))):
            graph = ctx.graphs[layer]
            added = grad if layer > 0 or ctx.include_first else None
            current = matrix_product(graph, values[id(graph)], current, added)
        return current.to(ctx.input_dtype), None, None, None


def similarity_product(unit: Tensor, x: Tensor, graph: Adjacency) -> Tensor:
    """Propagate ``x`` by the similarity of the nodes an edge joins: the mean of a node's neighbours' ``x``, weighted.

    The weight of edge (u, v) is ``(<unit_u, unit_v> + 1) / 2``, divided by the sum of a row's weights (DCCF's adaptive
    augmentation). Differentiable with respect to both; the weights are symmetric before the division, so both
    directions of an edge are computed once.

    Args:
        unit: ``[n, k]``, rows of length 1 (or 0).
        x: ``[n, d]``.
        graph: its pattern says which edges there are; the values play no part. Without self-loops, users first.

    Returns:
        ``[n, d]``; rows of nodes without an edge are zero.

    >>> graph = normalized_adjacency(np.array([0, 0]), np.array([0, 1]), n_users=1, n_items=2)
    >>> similarity_product(torch.ones(3, 1), torch.tensor([[5.0], [2.0], [4.0]]), graph).tolist()
    [[3.0], [5.0], [5.0]]
    """
    product: Tensor = _SimilarityProduct.apply(unit, x, graph)
    return product


class _SimilarityProduct(torch.autograd.Function):
    """Z = D^-1 W X with W_uv = (<n_u, n_v> + 1) / 2 and D the row sums of W.

    With H = D^-1 dZ: dX = W^T H = W H, dD_r = -<H_r, Z_r>, dW_rc = <H_r, X_c> + dD_r and, both directions added up,
    dN = (dW + dW^T) N / 2.
    """

    @staticmethod
    def forward(ctx: Any, unit: Tensor, x: Tensor, graph: Adjacency) -> Tensor:
        ctx.graph, ctx.dtypes = graph, (unit.dtype, x.dtype)
        unit, x = unit.to(graph.value.dtype), x.to(graph.value.dtype)
        weight = _both_directions(graph, (_edge_products(graph, (unit, unit)) + 1) / 2)
        degree = matrix_product(graph, weight, x.new_ones(len(x), 1))
        scale = torch.where(degree != 0, 1 / degree, 0)
        product = matrix_product(graph, weight, x).mul_(scale)
        ctx.save_for_backward(unit, x, weight, scale, product)
        return product

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        graph: Adjacency = ctx.graph
        unit, x, weight, scale, product = ctx.saved_tensors
        scaled = grad_outputs[0] * scale
        of_x = matrix_product(graph, weight, scaled)
        of_degree = -torch.linalg.vecdot(scaled, product).unsqueeze(1)
        ones = torch.ones_like(of_degree)
        of_degrees = torch.cat([of_degree, ones], dim=1), torch.cat([ones, of_degree], dim=1)
        of_weight = _both_directions(graph, _edge_products(graph, (scaled, x), (x, scaled), of_degrees) / 2)
        of_unit = matrix_product(graph, of_weight, unit)
        return of_unit.to(ctx.dtypes[0]), of_x.to(ctx.dtypes[1]), None


def _edge_products(graph: Adjacency, *factors: tuple[Tensor, Tensor]) -> Tensor:
    """Return the sum over the pairs (x, y) of ``<x_u, y_v>`` for each edge from a user u to an item v.

    Args:
        graph: without self-loops, users first.
        factors: ``[n, k]`` each.

    Returns:
        ``[E]``, in the order of the users' rows.
    """
    n_edges = graph.column.numel() // 2
    # The users' rows are the first half of the entries; all rows behind them are empty.
    users = replace(graph, row_start=graph.row_start.clamp(max=n_edges), column=graph.column[:n_edges])
    products = graph.value.new_zeros(n_edges)
    for x, y in factors:
        add_sampled_product(users, x, y, products)
    return products


def _both_directions(graph: Adjacency, value: Tensor) -> Tensor:
    """Return the values of all entries, ``[2 E]``, given those of the users' rows, ``[E]``."""
    return torch.cat([value, value.index_select(0, graph.mirror[len(value) :])])


class _SparseProduct(torch.autograd.Function):
    """``A @ x`` whose backward is ``A.T @ grad`` with the transpose given, not computed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Adjacency) -> Tensor:
        ctx.graph, ctx.input_dtype = graph, x.dtype
        return matrix_product(graph, graph.value, x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (grad,) = grad_outputs
        return matrix_product(ctx.graph, ctx.graph.transposed_value(), grad).to(ctx.input_dtype), None


def matrix_product(graph: Adjacency, value: Tensor, x: Tensor, added: Tensor | None = None) -> Tensor:
    """Return ``A @ x``, plus ``added``, where A has the graph's pattern and the given values; not differentiable."""
    # Sparse kernels exist for full precision only, so autocast must not lower the dense operand under them.
    with torch.autocast(device_type=x.device.type, enabled=False):
        x = x.to(value.dtype).contiguous()
        matrix = _csr(graph, value)
        if added is not None:
            return torch.addmm(added.to(value.dtype), matrix, x)
        if x.device.type == "cpu" and torch.backends.mkl.is_available():
            # Unlike mm, which sets its result to zero first, MKL's addmm writes where beta is 0 without reading.
            out = torch.empty_like(x)
            return torch.addmm(out, matrix, x, beta=0, out=out)
        return torch.mm(matrix, x)


def add_sampled_product(graph: Adjacency, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
    """Add ``<left_r, right_c>`` for each entry (r, c) of the graph to ``out``, ``[nnz]``, in place; return it.

    Args:
        graph: its pattern says which entries there are; its values play no part.
        left: ``[n, k]``.
        right: ``[n, k]``.
        out: ``[nnz]``.
    """
    with torch.autocast(device_type=left.device.type, enabled=False):
        matrix = _csr(graph, out)
        torch.sparse.sampled_addmm(matrix, left, right.t(), out=matrix)
    return out


def _csr(graph: Adjacency, value: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        size = (graph.n_nodes, graph.n_nodes)
        return torch.sparse_csr_tensor(graph.row_start, graph.column, value, size=size, check_invariants=False)


def normalized_adjacency(
    users: np.ndarray,
    items: np.ndarray,
    n_users: int,
    n_items: int,
    *,
    count_duplicates: bool = False,
    self_loops: bool = False,
) -> Adjacency:
    """Build ``D^-1/2 A D^-1/2`` of the bipartite graph with array operations only.

    Nodes without an edge, RecBole's ``[PAD]`` rows among them, have empty rows: their propagated embedding is zero,
    never infinite.

    Args:
        users: ``[E]`` user index of each interaction.
        items: ``[E]`` item index of each interaction.
        n_users: number of user rows.
        n_items: number of item rows.
        count_duplicates: whether an interaction that occurs k times weighs k (RecBole's SGL) or 1 (its LightGCN).
        self_loops: take A + I for A, before D is computed (LR-GCCF); the ``[PAD]`` rows 0 get none.

    Returns:
        The adjacency over ``n_users + n_items`` nodes, on the CPU, float32.

    >>> graph = normalized_adjacency(np.zeros(4, dtype=int), np.arange(4), n_users=1, n_items=4)
    >>> graph.to_dense()[0].tolist()  # 1 / sqrt(4 * 1)
    [0.0, 0.5, 0.5, 0.5, 0.5]
    """
    # SciPy converts by counting, in time linear in the edges; it also adds up duplicates.
    ones = np.ones(len(users), dtype=np.float32)
    by_user = scipy.sparse.coo_matrix((ones, (users, items)), shape=(n_users, n_items)).tocsr()
    by_user.sort_indices()
    n_edges = by_user.nnz
    index_dtype = np.int32 if 2 * n_edges + n_users + n_items <= _INT32_MAX else np.int64
    weight = by_user.data.astype(np.float64) if count_duplicates else np.ones(n_edges)
    degree_of_user, degree_of_item = np.diff(by_user.indptr), np.bincount(by_user.indices, minlength=n_items)
    user = np.repeat(np.arange(n_users, dtype=index_dtype), degree_of_user)
    weight_of_user = np.bincount(user, weights=weight, minlength=n_users) + self_loops
    weight_of_item = np.bincount(by_user.indices, weights=weight, minlength=n_items) + self_loops
    value = np.sqrt(weight_of_user)[user]
    value *= np.sqrt(weight_of_item)[by_user.indices]
    np.divide(weight, value, out=value)

    # Each edge's number, carried through the transposition, says where the opposite direction stands.
    numbered = scipy.sparse.csr_matrix(
        (np.arange(n_edges, dtype=index_dtype), by_user.indices, by_user.indptr), shape=by_user.shape
    )
    by_item = numbered.tocsc()
    from_user = by_item.data
    mirror = np.empty(2 * n_edges, dtype=index_dtype)
    mirror[:n_edges][from_user] = np.arange(n_edges, 2 * n_edges, dtype=index_dtype)
    mirror[n_edges:] = from_user
    row_start = np.zeros(n_users + n_items + 1, dtype=index_dtype)
    np.cumsum(np.concatenate([degree_of_user, degree_of_item]), out=row_start[1:])
    column = np.empty(2 * n_edges, dtype=index_dtype)
    np.add(by_user.indices, n_users, out=column[:n_edges], casting="same_kind")
    column[n_edges:] = user[from_user]
    value = np.concatenate([value, value[from_user]], dtype=np.float32, casting="same_kind")
    if self_loops:
        loop_weight = 1 / np.concatenate([weight_of_user, weight_of_item])
        row_start, column, value, mirror = _with_loops(row_start, column, value, mirror, n_users, loop_weight)
    return Adjacency(
        row_start=torch.from_numpy(row_start),
        column=torch.from_numpy(column),
        value=torch.from_numpy(value),
        mirror=torch.from_numpy(mirror),
    )


def _with_loops(
    row_start: np.ndarray,
    column: np.ndarray,
    value: np.ndarray,
    mirror: np.ndarray,
    n_users: int,
    loop_weight: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Give every node but the two ``[PAD]`` an entry on the diagonal; columns stay in order.

    A user's own column stands before those of all items, an item's behind those of all users.
    """
    index_dtype = row_start.dtype
    n_nodes, n_entries = len(loop_weight), len(column)
    node = np.delete(np.arange(n_nodes, dtype=index_dtype), [0, n_users])
    before = np.where(node < n_users, row_start[node], row_start[node + 1])
    looped_column, looped_value = (np.insert(a, before, b) for a, b in ((column, node), (value, loop_weight[node])))
    # Where the entries of before and the loops stand now.
    is_loop = np.insert(np.zeros(n_entries, dtype=bool), before, True)
    moved, loop = np.flatnonzero(~is_loop).astype(index_dtype), np.flatnonzero(is_loop).astype(index_dtype)
    looped_mirror = np.empty_like(looped_column)
    looped_mirror[moved] = moved[mirror]
    looped_mirror[loop] = loop
    n_loops = np.ones(n_nodes, dtype=index_dtype)
    n_loops[[0, n_users]] = 0
    looped_row_start = row_start.copy()
    looped_row_start[1:] += np.cumsum(n_loops, dtype=index_dtype)
    return looped_row_start, looped_column, looped_value, looped_mirror
