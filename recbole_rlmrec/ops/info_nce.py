"""InfoNCE, the one contrastive loss of the house: Con, Gen, SGL and SimGCL all use it.

The ``[A, N]`` matrix of scores exists in blocks only, forward and backward: see :mod:`recbole_rlmrec.ops.blockwise`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_rlmrec.ops.blockwise import (
    WIDTH,
    blockwise,
    full_precision,
    is_safe,
    log_sum_exp,
    normalized,
    product_dtype,
    slices,
    transposed,
)

#: Values of gathered rows in memory at a time. They are written and read several times: on a CPU, from its own cache.
_BLOCK_GATHERED = {"cpu": 2**19, "cuda": 2**24}


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    candidate: Tensor,
    temperature: float,
    anchor_weight: Tensor | None = None,
    candidate_weight: Tensor | None = None,
    total_weight: Tensor | None = None,
) -> Tensor:
    """Weighted mean over the anchors of ``-log(exp(cos(a, p) / t) / sum_c w_c exp(cos(a, c) / t))``.

    The denominator runs over all candidates, so it holds the positive only if the candidates do; in RLMRec, SGL and
    SimGCL they do. Stable at any temperature.

    Weights are multiplicities: a row of weight k stands for k equal rows, a row of weight 0 for none. A batch names
    popular nodes many times; with weights each is computed once, exactly.

    Under autocast to bfloat16 the scores, their exponentials and the gradients summed up over blocks are bfloat16;
    norms, sums of exponentials and the loss stay float32.

    Args:
        anchor: ``[A, d]``.
        positive: ``[A, d]``, row i belongs to anchor i.
        candidate: ``[N, d]``, shared by all anchors.
        temperature: divisor of the cosines, > 0.
        anchor_weight: ``[A]``, non-negative; the mean is over its sum. 1 each by default.
        candidate_weight: ``[N]``, non-negative. 1 each by default.
        total_weight: scalar to divide by instead of the sum of ``anchor_weight``: the anchors at hand are then a
            share of all, and the shares' losses add up to the mean over all.

    Returns:
        Scalar. 0 (with zero gradients) where every anchor has weight 0.

    >>> x = torch.eye(2)
    >>> round(info_nce(x, x, x, temperature=1.0).item(), 4)  # log(1 + 1 / e)
    0.3133
    """
    anchor = F.normalize(full_precision(anchor), dim=1) / temperature  # dividing [A, d] instead of [A, N]
    positive = F.normalize(full_precision(positive), dim=1)
    candidate = F.normalize(full_precision(candidate), dim=1)
    weight = normalized(anchor_weight, total_weight, anchor)
    log_sum = log_sum_exp(anchor, candidate, weight, candidate_weight, bound=1 / temperature)
    return log_sum - (weight * (anchor * positive).sum(dim=1)).sum()


def sampled_info_nce(
    anchor: Tensor,
    table: Tensor,
    positive: Tensor,
    negative: Tensor,
    temperature: float,
    total: int | None = None,
) -> Tensor:
    """Mean over the anchors of the InfoNCE in which each has candidates of its own: its positive and its negatives.

    ``-log(exp(cos(a, p) / t) / (exp(cos(a, p) / t) + sum_m exp(cos(a, n_m) / t)))``; a negative that occurs twice
    counts twice. The negatives are gathered by blocks of anchors: there is no ``[A, m, d]`` tensor of them, and no
    ``[A, N]`` one of scores.

    Args:
        anchor: ``[A, d]``.
        table: ``[N, d]``, what positives and negatives are rows of.
        positive: rows of the positives, ``[A]``.
        negative: rows of the negatives, ``[A, m]``.
        temperature: divisor of the cosines, > 0.
        total: number to divide by instead of A: the anchors at hand are then a share of all.

    Returns:
        Scalar; 0 without anchors.

    >>> x = torch.eye(2)
    >>> positive, negative = torch.tensor([0, 1]), torch.tensor([[1], [0]])
    >>> round(sampled_info_nce(x, x, positive, negative, temperature=1.0).item(), 4)  # log(1 + 1 / e)
    0.3133
    """
    anchor = F.normalize(full_precision(anchor), dim=1) / temperature
    table = F.normalize(full_precision(table), dim=1)
    chosen = torch.cat([positive.unsqueeze(1), negative], dim=1)
    weight = 1 / max(total or len(anchor), 1)
    loss: Tensor = _SampledSoftmax.apply(anchor, table, chosen, weight)
    return loss


class _SampledSoftmax(torch.autograd.Function):
    """``sum_i g (log sum_j exp(s_ij) - s_i0)`` with ``s_ij = <x_i, y_c(i,j)>``; gradients by blocks.

    Gathering and scattering rows is bound by memory, so that bfloat16 would gain nothing and is not used.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor, chosen: Tensor, weight: float) -> Tensor:
        of_rows, of_table, total = torch.empty_like(rows), torch.zeros_like(table), rows.new_zeros(())
        block_values = _BLOCK_GATHERED.get(rows.device.type, _BLOCK_GATHERED["cpu"])
        height = max(1, block_values // (chosen.shape[1] * table.shape[1]))
        with torch.autocast(device_type=rows.device.type, enabled=False):
            for row in slices(len(rows), height):
                left, picks = rows[row], chosen[row]
                candidates = table.index_select(0, picks.reshape(-1)).view(*picks.shape, -1)  # [r, 1 + m, d]
                log_shares = torch.bmm(candidates, left.unsqueeze(2)).squeeze(2).log_softmax(dim=1)
                total -= log_shares[:, 0].sum()
                shares = log_shares.exp_()
                shares[:, 0] -= 1
                torch.bmm(shares.unsqueeze(1), candidates, out=of_rows[row].unsqueeze(1))
                torch.mul(shares.unsqueeze(2), left.unsqueeze(1), out=candidates)
                of_table.index_add_(0, picks.reshape(-1), candidates.view(-1, table.shape[1]))
        ctx.save_for_backward(of_rows.mul_(weight), of_table.mul_(weight))
        return total * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        of_rows, of_table = (saved * grad_outputs[0] for saved in ctx.saved_tensors)
        return of_rows, of_table, None, None


def reconstruction_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    temperature: float,
    first: int = 0,
    total: int | None = None,
) -> Tensor:
    r"""InfoNCE of the rows ``r_i = W h_i + b`` against fixed targets, in products of the narrower width.

    The targets get no gradient, which frees the order of the products: ``<r_i, t_j> = <h_i, W^T t_j> + <b, t_j>``
    takes products of the width of ``h`` for the ``A x N`` part of forward and backward, and the norm comes from the
    Gram matrix, ``|r|^2 = h^T (W^T W) h + 2 h^T W^T b + |b|^2``. Where ``t`` is narrower than ``h``, as after a
    reduction, the rows are computed.

    Equal to ``info_nce(hidden @ weight.T + bias, target[first:][:A], target, temperature)`` for targets of length 1.

    Args:
        hidden: ``[A, h]``.
        weight: ``[D, h]``, W.
        bias: ``[D]``, b.
        target: ``[N, D]``, rows of length 1, or shorter where they are coordinates of such rows in a basis; fixed: no
            gradient flows to it.
        temperature: divisor of the cosines, > 0.
        first: row of ``target`` that belongs to the first anchor; the others follow.
        total: number to divide by instead of A: the anchors at hand are then a share of all.

    Returns:
        Scalar.
    """
    if len(weight) < weight.shape[1]:
        rebuilt = F.normalize(full_precision(F.linear(hidden, weight, bias)), dim=1) / temperature
        each = rebuilt.new_full((len(rebuilt),), 1 / (total or len(hidden)))
        own = target[first : first + len(rebuilt)]
        return log_sum_exp(rebuilt, target, each, bound=1 / temperature) - (each * (rebuilt * own).sum(dim=1)).sum()
    dtype = product_dtype(weight)
    loss: Tensor = _Reconstruction.apply(hidden, weight, bias, target, temperature, first, total or len(hidden), dtype)
    return loss


class _Reconstruction(torch.autograd.Function):
    """The gradients are computed with the value, as in ``blockwise.py``; below, dx is the gradient by x.

    With G = T W, u = T b and s_i = 1 / (t |r_i|) the score of anchor i and target j is s_i (<h_i, G_j> + u_j): a
    product of rows x_i = s_i [h_i, 1] and columns y_j = [G_j, u_j]. In turn dW^T = dG^T T, and by the norm
    dW += 2 W h^T (c h) with c_i the gradient by |r_i|^2.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, *arguments: Any) -> Tensor:
        with torch.autocast(device_type=hidden.device.type, enabled=False):
            loss, *gradients = _reconstruction(hidden, *arguments)
        ctx.hidden_dtype = hidden.dtype
        ctx.save_for_backward(*gradients)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = grad_outputs
        of_hidden, of_weight, of_bias = (saved * factor for saved in ctx.saved_tensors)
        return of_hidden.to(ctx.hidden_dtype), of_weight, of_bias, None, None, None, None, None


def _reconstruction(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    temperature: float,
    first: int,
    total: int,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the loss and its gradients with respect to hidden rows, weight and bias."""
    width = weight.shape[1]
    h, w, t = hidden.to(dtype), weight.to(dtype), target.to(dtype)
    cross = bias @ weight  # W^T b
    gram = w.T @ w
    square = (h @ gram).mul_(h).sum(dim=1, dtype=weight.dtype) + 2 * (h @ cross.to(dtype)) + bias.square().sum()
    square = square.clamp_(min=1e-24)  # the least norm is that of F.normalize
    scale = square.rsqrt() / temperature  # [A]
    rows, columns = (h.new_zeros(n, -(-(width + 1) // WIDTH) * WIDTH) for n in (len(h), len(t)))
    torch.mul(h, scale[:, None].to(dtype), out=rows[:, :width])
    rows[:, width] = scale
    columns[:, :width] = t @ w
    columns[:, width] = t @ bias.to(dtype)
    rows_transposed = transposed(rows)
    each = scale.new_full((len(rows),), 1 / total)
    safe = is_safe(1 / temperature, len(t))
    loss, of_rows, of_columns = blockwise(rows, rows_transposed, columns, each, None, safe=safe, first=first)

    of_scale = (of_rows[:, :width] * h).sum(dim=1, dtype=weight.dtype) + of_rows[:, width]
    of_square = of_scale * scale / square * -0.5
    by_square = (2 * of_square)[:, None].to(dtype)
    # h W^T W is computed again, for it would take the memory of the rows all along; what is not read again is
    # written over.
    of_hidden = of_rows[:, :width].mul_(scale[:, None].to(dtype)).addcmul_((h @ gram).add_(cross.to(dtype)), by_square)
    both = of_columns @ t  # [h + 1, D]: of the weight, transposed, and of the bias
    # A row is scale * [h, 1], so this product also has h^T c, for W^T b.
    of_gram = (rows_transposed * (by_square[:, 0] / scale.square()).to(dtype)) @ rows
    of_gram, of_cross = of_gram[:width, :width], of_gram[:width, width].to(weight.dtype)
    of_weight = torch.addmm(both[:width], of_gram, w.T).T.contiguous().to(weight.dtype)
    of_weight.addr_(bias, of_cross)
    of_bias = both[width].to(weight.dtype) + weight @ of_cross + 2 * of_square.sum() * bias
    return loss, of_hidden, of_weight, of_bias
