"""Cross-entropy between two softmax distributions over the same columns, one of them fixed; and whitening.

The ``[A, N]`` matrices exist by blocks of rows only, and the gradients come with the value.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_rlmrec.ops.blockwise import full_precision, slices

#: So many values of a block of rows.
_BLOCK = {"cpu": 2**20, "cuda": 2**24}


def soft_target_loss(
    anchor: Tensor,
    candidate: Tensor,
    target_anchor: Tensor,
    target_candidate: Tensor,
    weight: Tensor,
    temperature: float,
) -> Tensor:
    """Return ``-sum_i w_i sum_j q_ij log p_ij`` with ``p = softmax(cos(x_i, y_j) / t)``, q the same of fixed rows.

    Args:
        anchor: ``[A, d]``, x.
        candidate: ``[N, d]``, y.
        target_anchor: ``[A, k]``, whose cosines give q; a constant.
        target_candidate: ``[N, k]``, likewise.
        weight: ``[A]``, w; a constant.
        temperature: t, of both, > 0.

    Returns:
        Scalar; 0 where no row has a weight.

    >>> x, uniform = torch.eye(2), torch.ones(2, 1)
    >>> round(soft_target_loss(torch.ones(1, 2), x, uniform[:1], uniform, torch.ones(1), 1.0).item(), 4)  # log 2
    0.6931
    """
    rows = F.normalize(full_precision(anchor), dim=1) / temperature
    table = F.normalize(full_precision(candidate), dim=1)
    fixed = F.normalize(target_anchor, dim=1) / temperature, F.normalize(target_candidate, dim=1)
    with torch.autocast(device_type=rows.device.type, enabled=False):
        loss: Tensor = _SoftTargets.apply(rows, table, *fixed, weight)
    return loss


class _SoftTargets(torch.autograd.Function):
    """The gradient by the score of i and j is ``w_i (p_ij - q_ij)``."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor, fixed: Tensor, fixed_table: Tensor, weight: Tensor) -> Tensor:
        of_rows, of_table, total = torch.empty_like(rows), torch.zeros_like(table), rows.new_zeros(())
        for row in _blocks(rows, table):
            target = (fixed[row] @ fixed_table.T).softmax(dim=1)
            log_share = (rows[row] @ table.T).log_softmax(dim=1)
            total -= (weight[row] * (target * log_share).sum(dim=1)).sum()
            difference = log_share.exp_().sub_(target).mul_(weight[row, None])
            torch.mm(difference, table, out=of_rows[row])
            of_table.addmm_(difference.T, rows[row])
        ctx.save_for_backward(of_rows, of_table)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        of_rows, of_table = (saved * grad_outputs[0] for saved in ctx.saved_tensors)
        return of_rows, of_table, None, None, None


def softmax_entropy(anchor: Tensor, candidate: Tensor, temperature: float) -> Tensor:
    """Return the entropy of ``softmax(cos(x_i, y_j) / t)`` over j for each i, in nats, ``[A]``.

    Args:
        anchor: ``[A, k]``, x.
        candidate: ``[N, k]``, y.
        temperature: t, > 0.

    >>> softmax_entropy(torch.ones(1, 1), torch.ones(4, 1), 0.2).exp().round().tolist()
    [4.0]
    """
    rows, table = F.normalize(anchor, dim=1) / temperature, F.normalize(candidate, dim=1)
    found = rows.new_empty(len(rows))
    for row in _blocks(rows, table):
        log_share = (rows[row] @ table.T).log_softmax(dim=1)
        found[row] = -(log_share.exp() * log_share).sum(dim=1)
    return found


def _blocks(rows: Tensor, table: Tensor) -> Any:
    """Cut rows into slices whose scores with the table are a block."""
    return slices(len(rows), _BLOCK.get(rows.device.type, _BLOCK["cpu"]) // max(len(table), 1))


def whitening(covariance: Tensor, width: int) -> Tensor:
    """Return what maps centred rows to their leading components, each with a variance of 1.

    Args:
        covariance: of the rows, float64 ``[D, D]``.
        width: components to keep; fewer where the rows have fewer.

    Returns:
        ``[D, width]``.

    >>> whitening(torch.diag(torch.tensor([1.0, 4.0, 0.0]).double()), 3).abs().tolist()
    [[0.0, 1.0], [0.5, 0.0], [0.0, 0.0]]
    """
    values, vectors = torch.linalg.eigh(covariance)  # ascending
    values, vectors = values.flip(0)[:width], vectors.flip(1)[:, :width]
    kept = values > values[0].clamp(min=torch.finfo(values.dtype).tiny) * 1e-10
    return vectors[:, kept] / values[kept].sqrt()
