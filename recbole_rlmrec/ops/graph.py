"""The normalised user-item graph and the propagation over it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
        mirror: ``[nnz]`` int64 position of the entry in the opposite direction, so that
            ``A.T`` has the values ``value[mirror]``.
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

    def matmul(self, x: Tensor) -> Tensor:
        """Return ``A @ x``, differentiable with respect to ``x``.

        Args:
            x: ``[n, d]``.

        Returns:
            ``[n, d]``, in the dtype of the matrix.
        """
        backward_value = self.value if self.symmetric else self.value[self.mirror]
        product: Tensor = _SparseProduct.apply(x, self.row_start, self.column, self.value, backward_value)
        return product

    def to_dense(self) -> Tensor:
        """Return the ``[n, n]`` dense matrix; for small graphs and tests."""
        return _csr(self.row_start, self.column, self.value).to_dense()


class _SparseProduct(torch.autograd.Function):
    """``A @ x`` whose backward is ``A.T @ grad`` with the transpose given, not computed."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, row_start: Tensor, column: Tensor, value: Tensor, backward_value: Tensor
    ) -> Tensor:
        ctx.save_for_backward(row_start, column, backward_value)
        ctx.input_dtype = x.dtype
        return _product(row_start, column, value, x)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None, None, None]:
        (grad,) = grad_outputs
        row_start, column, backward_value = ctx.saved_tensors
        return _product(row_start, column, backward_value, grad).to(ctx.input_dtype), None, None, None, None


def _product(row_start: Tensor, column: Tensor, value: Tensor, x: Tensor) -> Tensor:
    # Sparse kernels exist for full precision only, so autocast must not lower the dense operand under them.
    with torch.autocast(device_type=x.device.type, enabled=False):
        return torch.mm(_csr(row_start, column, value), x.to(value.dtype).contiguous())


def _csr(row_start: Tensor, column: Tensor, value: Tensor) -> Tensor:
    n = row_start.numel() - 1
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        return torch.sparse_csr_tensor(row_start, column, value, size=(n, n), check_invariants=False)


def normalized_adjacency(
    users: np.ndarray, items: np.ndarray, n_users: int, n_items: int, count_duplicates: bool = False
) -> Adjacency:
    """Build ``D^-1/2 A D^-1/2`` of the bipartite graph, without self-loops, with array operations only.

    Nodes without an edge, RecBole's ``[PAD]`` rows among them, have empty rows: their propagated embedding is zero,
    never infinite.

    Args:
        users: ``[E]`` user index of each interaction.
        items: ``[E]`` item index of each interaction.
        n_users: number of user rows.
        n_items: number of item rows.
        count_duplicates: whether an interaction that occurs k times weighs k (RecBole's SGL) or 1 (its LightGCN).

    Returns:
        The adjacency over ``n_users + n_items`` nodes, on the CPU, float32.
    """
    users = np.asarray(users, dtype=np.int64)
    items = np.asarray(items, dtype=np.int64)
    key, weight = np.unique(users * n_items + items, return_counts=True)
    user, item = np.divmod(key, n_items)
    weight = weight.astype(np.float64) if count_duplicates else np.ones(len(key))
    user_degree = np.bincount(user, weights=weight, minlength=n_users)
    item_degree = np.bincount(item, weights=weight, minlength=n_items)
    value = weight / np.sqrt(user_degree[user] * item_degree[item])

    # `key` is sorted by (user, item), which is CSR order for the user rows; the item rows need one more sort.
    by_item = np.argsort(item, kind="stable")
    n_edges = len(key)
    mirror = np.empty(2 * n_edges, dtype=np.int64)
    mirror[:n_edges][by_item] = np.arange(n_edges, 2 * n_edges)
    mirror[n_edges:] = by_item
    degree = np.concatenate([np.bincount(user, minlength=n_users), np.bincount(item, minlength=n_items)])
    row_start = np.concatenate([[0], np.cumsum(degree)])
    column = np.concatenate([item + n_users, user[by_item]])
    index_dtype = np.int32 if max(2 * n_edges, n_users + n_items) <= _INT32_MAX else np.int64
    return Adjacency(
        row_start=torch.from_numpy(row_start.astype(index_dtype)),
        column=torch.from_numpy(column.astype(index_dtype)),
        value=torch.from_numpy(np.concatenate([value, value[by_item]]).astype(np.float32)),
        mirror=torch.from_numpy(mirror),
    )
