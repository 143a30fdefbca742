"""Nodes described by latent intents (DCCF)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Rows at a time. On a CPU their affinities to some hundred intents should stay in the cache.
_BLOCK_ROWS = {"cpu": 1024, "cuda": 2**16}


def mean_intent(x: Tensor, intent: Tensor) -> Tensor:
    """Return ``softmax(x C) C^T``: each row as the mean of the intents, weighted by its affinity to them.

    The ``[n, K]`` affinities exist in blocks of rows only; the backward pass computes them again.

    Args:
        x: ``[n, d]``.
        intent: ``[d, K]``, C.

    Returns:
        ``[n, d]``.

    >>> mean_intent(torch.zeros(1, 2), torch.tensor([[1.0, 3.0], [0.0, 2.0]])).tolist()
    [[2.0, 1.0]]
    """
    mean: Tensor = _MeanIntent.apply(x, intent)
    return mean


class _MeanIntent(torch.autograd.Function):
    """With P = softmax(X C), G the gradient of P C^T and Q = G C: dX = S C^T and dC = X^T S + G^T P.

    S = P * (Q - rowsum(P * Q)) is the gradient by X C.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, intent: Tensor) -> Tensor:
        ctx.save_for_backward(x, intent)
        mean = torch.empty_like(x)
        with torch.autocast(device_type=x.device.type, enabled=False):
            for rows in _blocks(x):
                torch.mm(torch.softmax(x[rows] @ intent, dim=1), intent.t(), out=mean[rows])
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor]:
        (grad,) = grad_outputs
        x, intent = ctx.saved_tensors
        of_x, of_intent = torch.empty_like(x), torch.zeros_like(intent)
        for rows in _blocks(x):
            share = torch.softmax(x[rows] @ intent, dim=1)
            of_share = grad[rows] @ intent
            of_intent.addmm_(grad[rows].t(), share)
            of_share.sub_(torch.linalg.vecdot(share, of_share).unsqueeze(1)).mul_(share)
            torch.mm(of_share, intent.t(), out=of_x[rows])
            of_intent.addmm_(x[rows].t(), of_share)
        return of_x, of_intent


def _blocks(x: Tensor) -> Iterator[slice]:
    n_rows = _BLOCK_ROWS.get(x.device.type, _BLOCK_ROWS["cuda"])
    return (slice(start, start + n_rows) for start in range(0, len(x), n_rows))
