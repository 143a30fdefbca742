"""InfoNCE, the one contrastive loss of the house: Con, Gen, SGL and SimGCL all use it.

The ``[A, N]`` matrix of scores exists in blocks only, forward and backward: see :class:`_LogSumExp`.
"""

from __future__ import annotations

import math
from typing import Any, Iterator, Optional

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Scores in memory at a time. On a CPU a block should stay in the cache; on a GPU it should fill the device.
_BLOCK_SCORES = {"cpu": 3 * 2**20, "cuda": 2**24}

#: Blocks have no fewer rows than this, or the products of matrices would be products of vectors.
_LEAST_ROWS = 64

#: Blocks on a CPU have no more rows than this: from about 600 on bfloat16 products take twice the time a row.
_MOST_ROWS = 512

#: bfloat16 products take widths that are no multiple of this at half the speed.
_WIDTH = 32

#: exp() of scores below this needs no shift by the row's maximum: neither it nor a sum of such leaves float32.
_LARGEST_EXPONENT = 60.0


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    candidate: Tensor,
    temperature: float,
    anchor_weight: Optional[Tensor] = None,
    candidate_weight: Optional[Tensor] = None,
    total_weight: Optional[Tensor] = None,
) -> Tensor:
    """Weighted mean over the anchors of ``-log(exp(cos(a, p) / t) / sum_c w_c exp(cos(a, c) / t))``.

    The denominator runs over all candidates, so it holds the positive only if the candidates do; in RLMRec, SGL and
    SimGCL they do. Stable at any temperature.

    Weights are multiplicities: a row of weight k stands for k equal rows, a row of weight 0 for none. A batch names
    popular nodes many times; with weights each is computed once, exactly.

    Under autocast to bfloat16 the products of matrices take bfloat16 operands; everything else stays float32.

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
    """
    anchor = F.normalize(_full_precision(anchor), dim=1) / temperature  # dividing [A, d] instead of [A, N]
    positive = F.normalize(_full_precision(positive), dim=1)
    candidate = F.normalize(_full_precision(candidate), dim=1)
    weight = _normalized(anchor_weight, total_weight, anchor)
    log_sum = log_sum_exp(anchor, candidate, weight, candidate_weight, bound=1 / temperature)
    return log_sum - (weight * (anchor * positive).sum(dim=1)).sum()


def reconstruction_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    positive: Tensor,
    temperature: float,
    total: Optional[int] = None,
) -> Tensor:
    r"""InfoNCE of the rows ``r_i = W h_i + b`` against fixed targets, without ever computing the rows.

    The targets get no gradient, which frees the order of the products: ``<r_i, t_j> = <h_i, W^T t_j> + <b, t_j>``
    takes products of the width of ``h`` instead of the wider one of ``t`` for the ``A x N`` part of forward and
    backward, and the norm comes from the Gram matrix, ``|r|^2 = h^T (W^T W) h + 2 h^T W^T b + |b|^2``.

    Equal to ``info_nce(hidden @ weight.T + bias, target[positive], target, temperature)`` for targets of length 1.

    Args:
        hidden: ``[A, h]``.
        weight: ``[D, h]``, W.
        bias: ``[D]``, b.
        target: ``[N, D]``, rows of length 1; fixed: no gradient flows to it.
        positive: ``[A]``, the row of ``target`` that belongs to each anchor.
        temperature: divisor of the cosines, > 0.
        total: number to divide by instead of A: the anchors at hand are then a share of all.

    Returns:
        Scalar.
    """
    mapped, offset = target @ weight, target @ bias  # [N, h], [N]; lowered under autocast, as the products take them
    gram = weight.T @ weight
    hidden = _full_precision(hidden)
    cross = (weight * bias[:, None]).sum(dim=0)  # W^T b
    square = (
        (_full_precision(hidden @ gram) * hidden).sum(dim=1) + 2 * (hidden * cross).sum(dim=1) + bias.square().sum()
    )
    scale = square.clamp(min=1e-24).rsqrt()[:, None] / temperature  # the least norm is that of F.normalize
    rows = torch.cat([hidden * scale, scale], dim=1)  # [A, h + 1]
    columns = torch.cat([mapped, offset[:, None]], dim=1)  # [N, h + 1]
    each = rows.new_full((len(rows),), 1 / (total or len(rows)))
    return log_sum_exp(rows, columns, each, bound=1 / temperature, positive=positive)


def log_sum_exp(
    rows: Tensor,
    columns: Tensor,
    row_weight: Tensor,
    column_weight: Optional[Tensor] = None,
    bound: float = math.inf,
    positive: Optional[Tensor] = None,
) -> Tensor:
    """Return ``sum_i g_i (log sum_j w_j exp(<x_i, y_j>) - <x_i, y_p(i)>)``, differentiable once by x and y.

    Args:
        rows: ``[A, k]``, x, in full precision.
        columns: ``[N, k]``, y; may be in bfloat16.
        row_weight: ``[A]``, g; a constant.
        column_weight: ``[N]``, w, non-negative; a constant. 1 each by default.
        bound: what no ``|<x_i, y_j>|`` exceeds, where it is known. Small bounds save the search for each row's maximum.
        positive: ``[A]``, p, the column of each row whose score is subtracted; without it none is.

    Returns:
        Scalar. Rows of weight 0 add nothing, also where no column has a weight.
    """
    device = rows.device.type
    dtype = rows.dtype
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16:
        dtype = torch.bfloat16  # float16 has too few exponents for exp()
    safe = bound + math.log(max(len(columns), 1)) < _LARGEST_EXPONENT
    total: Tensor = _LogSumExp.apply(rows, columns, row_weight, column_weight, positive, safe, dtype)
    return total


class _LogSumExp(torch.autograd.Function):
    """The double sum by blocks. Each block of scores serves the value and both gradients before it is overwritten.

    The gradients of a scalar are known up to its factor as soon as the value is, so they are computed in the forward
    pass: with p_ij = w_j exp(s_ij) / sum_k w_k exp(s_ik), dx = g * (p @ y) and dy = p.T @ (g * x). Per block that is
    one pass of exp() and three products of matrices, no more than the products that a backward pass of its own needs.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        columns: Tensor,
        row_weight: Tensor,
        column_weight: Optional[Tensor],
        positive: Optional[Tensor],
        safe: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        needs_rows, needs_columns = ctx.needs_input_grad[:2]
        with torch.autocast(device_type=rows.device.type, enabled=False):
            total, row_gradient, column_gradient = _blockwise(
                rows, columns, row_weight, column_weight, safe, dtype, needs_rows, needs_columns
            )
            if positive is not None:
                of_positives = columns.index_select(0, positive).to(rows.dtype)
                weighted = rows * row_weight[:, None]
                total = total - torch.dot(weighted.view(-1), of_positives.view(-1))
                if row_gradient is not None:
                    row_gradient.addcmul_(of_positives, row_weight[:, None], value=-1)
                if column_gradient is not None:
                    column_gradient = column_gradient.contiguous().index_add_(0, positive, weighted, alpha=-1)
        ctx.save_for_backward(row_gradient, column_gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Optional[Tensor], ...]:
        (factor,) = grad_outputs
        rows, columns = (None if saved is None else saved * factor for saved in ctx.saved_tensors)
        return rows, columns, None, None, None, None, None


def _blockwise(
    rows: Tensor,
    columns: Tensor,
    row_weight: Tensor,
    column_weight: Optional[Tensor],
    safe: bool,
    dtype: torch.dtype,
    needs_rows: bool,
    needs_columns: bool,
) -> tuple[Tensor, Optional[Tensor], Optional[Tensor]]:
    """Return the double sum and its gradients with respect to rows and columns, where needed."""
    n_rows, n_columns = len(rows), len(columns)
    block_scores = _BLOCK_SCORES.get(rows.device.type, _BLOCK_SCORES["cpu"])
    height = min(n_rows, max(_LEAST_ROWS, block_scores // max(n_columns, 1)))
    if rows.device.type == "cpu":
        height = min(height, _MOST_ROWS)
    width = min(n_columns, max(_LEAST_ROWS, block_scores // max(height, 1)))
    whole = width == n_columns
    buffer = torch.empty(height * width, dtype=dtype, device=rows.device)

    n_features = rows.shape[1]
    left, right = _operand(rows, dtype), _operand(columns, dtype)
    left_transposed = left.T.contiguous() if needs_columns and dtype != rows.dtype else left.T
    weights, offset = columns.new_ones(n_columns, dtype=dtype), None
    weighted, factor = right, None
    if column_weight is not None and whole and safe:
        # Weights factor out of the products: no pass over the scores is spent on them.
        weights, factor = column_weight.to(dtype), column_weight.to(rows.dtype)
        weighted = _operand(columns * factor[:, None], dtype)
    elif column_weight is not None:
        # Where a row's maximum is sought, columns of weight 0 must not be it.
        offset = column_weight.to(rows.dtype).log().to(dtype)

    log_sums = rows.new_empty(n_rows)
    row_gradient = torch.zeros_like(rows) if needs_rows else None
    # Transposed: the block is then the right factor as it lies in memory, which the matrix products prefer.
    column_gradient = rows.new_zeros(n_features, n_columns) if needs_columns else None
    tiny = torch.finfo(rows.dtype).tiny  # keeps the logarithm finite where no column has a weight
    for row in _slices(n_rows, height):
        scale = row_weight[row, None]  # [r, 1]
        if whole:
            exponentials, shift = _scores(left[row], right, offset, buffer), None
            if not safe:
                shift = exponentials.amax(dim=1, keepdim=True).clamp_(min=torch.finfo(dtype).min)
                exponentials.sub_(shift)
            sums = (exponentials.exp_() @ weights)[:, None].to(rows.dtype)
            scale = scale * (sums > 0) / sums.clamp_(min=tiny)  # a row without any column has no gradient
            log_sum = sums.log() if shift is None else sums.log() + shift
            if row_gradient is not None:
                torch.mul((exponentials @ weighted)[:, :n_features], scale, out=row_gradient[row])
            if column_gradient is not None:
                _accumulate(column_gradient, left_transposed[:, row] * scale.T.to(dtype), exponentials)
        else:
            # Too many columns for one block: their sums first, then each block once more with exp(score - log sum).
            log_sum = _log_sum_by_columns(left[row], right, offset, width, buffer)
            shift = torch.where(log_sum == -math.inf, math.inf, log_sum).to(dtype)
            scale = scale * torch.exp(shift.to(log_sum.dtype) - log_sum).nan_to_num_(0.0, 0.0)  # what lowering lost
            for column in _slices(n_columns, width) if needs_rows or needs_columns else ():
                part = None if offset is None else offset[column]
                shares = _scores(left[row], right[column], part, buffer).sub_(shift).exp_()
                if row_gradient is not None:
                    row_gradient[row].addcmul_((shares @ right[column])[:, :n_features].to(rows.dtype), scale)
                if column_gradient is not None:
                    _accumulate(column_gradient[:, column], left_transposed[:, row] * scale.T.to(dtype), shares)
        log_sums[row] = log_sum[:, 0].clamp(min=math.log(tiny)).to(rows.dtype)
    if column_gradient is not None:
        column_gradient = (column_gradient if factor is None else column_gradient.mul_(factor)).T
    return (row_weight * log_sums).sum(), row_gradient, column_gradient


def _log_sum_by_columns(left: Tensor, right: Tensor, offset: Optional[Tensor], width: int, buffer: Tensor) -> Tensor:
    """Return the logarithms of the sums of exponentials, ``[r, 1]``, over columns that come in blocks."""
    precise = torch.promote_types(left.dtype, torch.float32)
    highest = torch.full((len(left), 1), torch.finfo(precise).min, dtype=precise, device=left.device)
    sums = torch.zeros_like(highest)
    for column in _slices(len(right), width):
        scores = _scores(left, right[column], None if offset is None else offset[column], buffer)
        rising = torch.maximum(highest, scores.amax(dim=1, keepdim=True).to(precise))
        sums *= (highest - rising).exp()
        sums += scores.sub_(rising.to(scores.dtype)).exp_().sum(dim=1, keepdim=True, dtype=precise)
        highest = rising
    return sums.log() + highest


def _operand(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a factor of the products, ``[n, k]``; lowered, and with zeros up to a width that they are fast at."""
    if dtype != torch.bfloat16:
        return x.to(dtype)
    operand = x.new_zeros(len(x), -(-x.shape[1] // _WIDTH) * _WIDTH, dtype=dtype)
    operand[:, : x.shape[1]] = x
    return operand


def _scores(left: Tensor, right: Tensor, offset: Optional[Tensor], buffer: Tensor) -> Tensor:
    """Return ``left @ right.T``, plus ``offset`` for each column, in the buffer's memory."""
    out = buffer[: len(left) * len(right)].view(len(left), len(right))
    torch.mm(left, right.T, out=out)
    return out if offset is None else out.add_(offset)


def _accumulate(gradient: Tensor, rows: Tensor, shares: Tensor) -> None:
    """Add ``rows @ shares``, ``[k, n]``, to ``gradient``, in the gradient's precision."""
    if shares.dtype == gradient.dtype:
        gradient.addmm_(rows, shares)
    else:
        gradient += (rows @ shares)[: len(gradient)]


def _slices(length: int, step: int) -> Iterator[slice]:
    return (slice(start, min(start + step, length)) for start in range(0, length, max(step, 1)))


def _normalized(weight: Optional[Tensor], total: Optional[Tensor], like: Tensor) -> Tensor:
    """Return the anchors' shares of the mean, ``[A]``."""
    if weight is None:
        weight = like.new_ones(len(like))
    weight = weight.to(like.dtype)
    total = weight.sum() if total is None else total.to(like.dtype)
    return weight / total.clamp(min=torch.finfo(like.dtype).tiny)


def _full_precision(x: Tensor) -> Tensor:
    """Undo what autocast lowered: cosines are normalised in float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
