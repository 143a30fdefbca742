"""Ranking and regularisation losses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable


def bpr_loss(positive_score: Tensor, negative_score: Tensor, total: int | None = None) -> Tensor:
    """Bayesian personalised ranking: mean of ``softplus(negative - positive) = -log sigmoid(positive - negative)``.

    Args:
        positive_score: ``[B]``.
        negative_score: ``[B]``.
        total: number to divide by instead of B: the pairs at hand are then a share of all.

    Returns:
        Scalar mean over the batch (Rendle et al., UAI 2009).

    >>> round(bpr_loss(torch.zeros(2), torch.zeros(2)).item(), 4)  # log 2
    0.6931
    """
    return F.softplus(negative_score - positive_score).sum() / (total or len(positive_score))


def mean_norm(tables: Sequence[Tensor], *, squared: bool = False) -> Tensor:
    """Sum of the tables' norms, or of half their squares, divided by the rows of the last: RecBole's ``EmbLoss``.

    Args:
        tables: ``[B, d]`` each.
        squared: for ``sum |E|^2 / 2`` instead of ``sum |E|``.

    Returns:
        Scalar.

    >>> mean_norm([torch.tensor([[3.0, 4.0], [0.0, 0.0]])]).item()
    2.5
    """
    norms = torch.stack([torch.linalg.vector_norm(table) for table in tables])
    return (norms.square().sum() / 2 if squared else norms.sum()) / len(tables[-1])


def squared_l2(parameters: Iterable[Tensor], first_rows: Sequence[int] | None = None) -> Tensor:
    """Sum of the squared entries of all parameters, the L2 term of the official RLMRec code.

    Args:
        parameters: tensors of any shape; at least one.
        first_rows: for each, the number of its first row that counts; all rows by default.

    Returns:
        Scalar.

    >>> squared_l2([torch.ones(2, 3)], first_rows=[1]).item()
    3.0
    """
    tensors = tuple(parameters)
    total: Tensor = _SquaredL2.apply(first_rows or [0] * len(tensors), *tensors)
    return total


class _SquaredL2(torch.autograd.Function):
    """One pass over each table, forward and backward; slicing off the rows that do not count would take three."""

    @staticmethod
    def forward(ctx: Any, first_rows: Sequence[int], *tensors: Tensor) -> Tensor:
        ctx.first_rows = first_rows
        ctx.save_for_backward(*tensors)
        counted = [(tensor[first:] if first else tensor).reshape(-1) for tensor, first in zip(tensors, first_rows)]
        return torch.stack([torch.dot(entries, entries) for entries in counted]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        gradients = [tensor * (2 * grad_outputs[0]) for tensor in ctx.saved_tensors]
        for gradient, first in zip(gradients, ctx.first_rows):
            if first:
                gradient[:first] = 0
        return (None, *gradients)
