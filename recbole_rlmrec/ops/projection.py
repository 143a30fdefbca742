"""Rows of a constant table through a perceptron, without a copy of the rows in memory."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_rlmrec.ops.blockwise import slices

#: Values of gathered rows in memory at a time, where the rows are many.
_BLOCK_VALUES = 2**19
#: Rows with more values than this, 8 MiB, are many.
_MOST_VALUES = 2**21


def are_many(n_rows: int, width: int) -> bool:
    """Return whether so many rows of a width are better gathered in blocks.

    >>> are_many(2_000, 384), are_many(5_000, 1_536)
    (False, True)
    """
    return n_rows * width > _MOST_VALUES


def project_rows(
    table: Tensor,
    rows: Tensor,
    first_weight: Tensor,
    first_bias: Tensor,
    last_weight: Tensor,
    last_bias: Tensor,
    slope: float,
) -> Tensor:
    """Return ``leaky_relu(table[rows] @ W1^T + b1) @ W2^T + b2``; for the gradients the rows are gathered again.

    Args:
        table: ``[N, D]``, constant.
        rows: ``[n]``.
        first_weight: ``[h, D]``, W1.
        first_bias: ``[h]``, b1.
        last_weight: ``[d, h]``, W2.
        last_bias: ``[d]``, b2.
        slope: of the leaky ReLU for negative values, > 0.

    Returns:
        ``[n, d]``.
    """
    weights = (first_weight, first_bias, last_weight, last_bias)
    projected: Tensor = _ProjectedRows.apply(table, rows, slope, *weights)
    return projected


class _ProjectedRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, table: Tensor, rows: Tensor, slope: float, *weights: Tensor) -> Tensor:
        first_weight, first_bias, last_weight, last_bias = weights
        hidden = table.new_empty(len(rows), len(first_weight))
        for block in slices(len(rows), _BLOCK_VALUES // table.shape[1]):
            hidden[block] = torch.addmm(first_bias, table.index_select(0, rows[block]), first_weight.T)
        F.leaky_relu_(hidden, slope)
        ctx.slope = slope
        ctx.save_for_backward(table, rows, hidden, last_weight)
        return torch.addmm(last_bias, hidden, last_weight.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (of_projected,) = grad_outputs
        table, rows, hidden, last_weight = ctx.saved_tensors
        of_first_weight = table.new_zeros(hidden.shape[1], table.shape[1])
        of_first_bias = table.new_zeros(hidden.shape[1])
        for block in slices(len(rows), _BLOCK_VALUES // table.shape[1]):
            of_block = of_projected[block] @ last_weight
            # The activation has the sign of what it was given.
            of_block = torch.ops.aten.leaky_relu_backward(of_block, hidden[block], ctx.slope, True)
            of_first_weight.addmm_(of_block.T, table.index_select(0, rows[block]))
            of_first_bias += of_block.sum(dim=0)
        of_last_weight, of_last_bias = of_projected.T @ hidden, of_projected.sum(dim=0)
        return None, None, None, of_first_weight, of_first_bias, of_last_weight, of_last_bias
