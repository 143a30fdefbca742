"""InfoNCE, the one contrastive loss of the house: Con, Gen, SGL and SimGCL all use it.

The ``[A, N]`` matrix of scores exists in blocks only, forward and backward: see :class:`_LogSumExp`.
"""

from __future__ import annotations

import math
from typing import Any, Iterator, NamedTuple, Optional

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Scores in memory at a time. On a CPU a block should stay in the cache; on a GPU it should fill the device.
_BLOCK_SCORES = {"cpu": 3 * 2**20, "cuda": 2**24}

#: Of these, scores that one product computes on a CPU: a core's own cache should hold them. Not in bfloat16.
_TILE_SCORES = 2**18

#: Values of gathered rows in memory at a time. They are written and read several times: on a CPU, from its own cache.
_BLOCK_GATHERED = {"cpu": 2**19, "cuda": 2**24}

#: Blocks have no fewer rows than this, or the products of matrices would be products of vectors.
_LEAST_ROWS = 64

#: Blocks on a CPU have no more rows than this: from about 600 on bfloat16 products take twice the time a row.
_MOST_ROWS = 512

#: bfloat16 products take widths that are no multiple of this at half the speed.
_WIDTH = 32

#: On a CPU, lengths are brought to a multiple of this before bfloat16 products: code for a product is generated for
#: each shape, which takes ten times as long as the product, and the distinct nodes of a batch change in number.
_LENGTH = 64

#: exp() of scores below this needs no shift by the row's maximum: neither it nor a sum of such leaves float32.
_LARGEST_EXPONENT = 60.0

#: Shifted scores below this are taken for minus infinity. They would add less than 1e-26 of the sum, and further below
#: their exponentials are denormal numbers, which make products of matrices five times as slow.
_LEAST_EXPONENT = -60.0


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
    """
    anchor = F.normalize(_full_precision(anchor), dim=1) / temperature  # dividing [A, d] instead of [A, N]
    positive = F.normalize(_full_precision(positive), dim=1)
    candidate = F.normalize(_full_precision(candidate), dim=1)
    weight = _normalized(anchor_weight, total_weight, anchor)
    log_sum = log_sum_exp(anchor, candidate, weight, candidate_weight, bound=1 / temperature)
    return log_sum - (weight * (anchor * positive).sum(dim=1)).sum()


def sampled_info_nce(
    anchor: Tensor,
    table: Tensor,
    positive: Tensor,
    negative: Tensor,
    temperature: float,
    total: Optional[int] = None,
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
    """
    anchor = F.normalize(_full_precision(anchor), dim=1) / temperature
    table = F.normalize(_full_precision(table), dim=1)
    chosen = torch.cat([positive.unsqueeze(1), negative], dim=1)
    weight = 1 / max(total or len(anchor), 1)
    loss: Tensor = _SampledSoftmax.apply(anchor, table, chosen, weight)
    return loss


class _SampledSoftmax(torch.autograd.Function):
    """``sum_i g (log sum_j exp(s_ij) - s_i0)`` with ``s_ij = <x_i, y_c(i,j)>``; gradients as in :class:`_LogSumExp`.

    Gathering and scattering rows is bound by memory, so that bfloat16 would gain nothing and is not used.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, table: Tensor, chosen: Tensor, weight: float) -> Tensor:
        of_rows, of_table, total = torch.empty_like(rows), torch.zeros_like(table), rows.new_zeros(())
        block_values = _BLOCK_GATHERED.get(rows.device.type, _BLOCK_GATHERED["cpu"])
        height = max(1, block_values // (chosen.shape[1] * table.shape[1]))
        with torch.autocast(device_type=rows.device.type, enabled=False):
            for row in _slices(len(rows), height):
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
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Optional[Tensor], ...]:
        of_rows, of_table = (saved * grad_outputs[0] for saved in ctx.saved_tensors)
        return of_rows, of_table, None, None


def reconstruction_loss(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    temperature: float,
    first: int = 0,
    total: Optional[int] = None,
) -> Tensor:
    r"""InfoNCE of the rows ``r_i = W h_i + b`` against fixed targets, without ever computing the rows.

    The targets get no gradient, which frees the order of the products: ``<r_i, t_j> = <h_i, W^T t_j> + <b, t_j>``
    takes products of the width of ``h`` instead of the wider one of ``t`` for the ``A x N`` part of forward and
    backward, and the norm comes from the Gram matrix, ``|r|^2 = h^T (W^T W) h + 2 h^T W^T b + |b|^2``.

    Equal to ``info_nce(hidden @ weight.T + bias, target[first:][:A], target, temperature)`` for targets of length 1.

    Args:
        hidden: ``[A, h]``.
        weight: ``[D, h]``, W.
        bias: ``[D]``, b.
        target: ``[N, D]``, rows of length 1; fixed: no gradient flows to it.
        temperature: divisor of the cosines, > 0.
        first: row of ``target`` that belongs to the first anchor; the others follow.
        total: number to divide by instead of A: the anchors at hand are then a share of all.

    Returns:
        Scalar.
    """
    dtype = _product_dtype(weight)
    loss: Tensor = _Reconstruction.apply(hidden, weight, bias, target, temperature, first, total or len(hidden), dtype)
    return loss


class _Reconstruction(torch.autograd.Function):
    """The gradients are computed with the value, as in :class:`_LogSumExp`; below, dx is the gradient by x.

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
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Optional[Tensor], ...]:
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
    by_gram = h @ (w.T @ w)  # [A, h]
    square = (by_gram * h).sum(dim=1, dtype=weight.dtype) + 2 * (h @ cross.to(dtype)) + bias.square().sum()
    square = square.clamp_(min=1e-24)  # the least norm is that of F.normalize
    scale = square.rsqrt() / temperature  # [A]
    rows, columns = (h.new_zeros(n, -(-(width + 1) // _WIDTH) * _WIDTH) for n in (len(h), len(t)))
    torch.mul(h, scale[:, None].to(dtype), out=rows[:, :width])
    rows[:, width] = scale
    columns[:, :width] = t @ w
    columns[:, width] = t @ bias.to(dtype)
    rows_transposed = _transposed(rows)
    each = scale.new_full((len(rows),), 1 / total)
    safe = _is_safe(1 / temperature, len(t))
    loss, of_rows, of_columns = _blockwise(rows, rows_transposed, columns, each, None, safe, first=first)

    of_scale = (of_rows[:, :width] * h).sum(dim=1, dtype=weight.dtype) + of_rows[:, width]
    of_square = of_scale * scale / square * -0.5
    by_square = (2 * of_square)[:, None].to(dtype)
    of_hidden = torch.addcmul(of_rows[:, :width] * scale[:, None].to(dtype), by_gram + cross.to(dtype), by_square)
    both = of_columns @ t  # [h + 1, D]: of the weight, transposed, and of the bias
    # A row is scale * [h, 1], so this product also has h^T c, for W^T b.
    of_gram = (rows_transposed * (by_square[:, 0] / scale.square()).to(dtype)) @ rows
    of_gram, of_cross = of_gram[:width, :width], of_gram[:width, width].to(weight.dtype)
    of_weight = torch.addmm(both[:width], of_gram, w.T).T.contiguous().to(weight.dtype)
    of_weight.addr_(bias, of_cross)
    of_bias = both[width].to(weight.dtype) + weight @ of_cross + 2 * of_square.sum() * bias
    return loss, of_hidden, of_weight, of_bias


def log_sum_exp(
    rows: Tensor,
    columns: Tensor,
    row_weight: Tensor,
    column_weight: Optional[Tensor] = None,
    bound: float = math.inf,
) -> Tensor:
    """Return ``sum_i g_i log sum_j w_j exp(<x_i, y_j>)``, differentiable once with respect to x and y.

    Args:
        rows: ``[A, k]``, x.
        columns: ``[N, k]``, y.
        row_weight: ``[A]``, g; a constant.
        column_weight: ``[N]``, w, non-negative; a constant. 1 each by default.
        bound: what no ``|<x_i, y_j>|`` exceeds, where it is known. Small bounds save the search for each row's maximum.
            Where it is not known, the lengths of the rows give one on a CPU; a GPU would have to be waited for.

    Returns:
        Scalar. Rows of weight 0 add nothing, also where no column has a weight.
    """
    if bound == math.inf and rows.device.type == "cpu" and len(rows) and len(columns):
        longest = [torch.linalg.vector_norm(x.detach().float(), dim=1).max() for x in (rows, columns)]
        bound = float(longest[0] * longest[1])
    safe = _is_safe(bound, len(columns))
    total: Tensor = _LogSumExp.apply(rows, columns, row_weight, column_weight, safe, _product_dtype(rows))
    return total


def _product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of the products' factors: lowered under autocast to bfloat16."""
    device = x.device.type
    # float16 has too few exponents for exp().
    lowered = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if lowered else x.dtype


def _is_safe(bound: float, n_columns: int) -> bool:
    """Tell whether exponentials of scores within the bound, and their sums, need no shift to stay within float32."""
    return bound + math.log(max(n_columns, 1)) < _LARGEST_EXPONENT


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
        safe: bool,
        dtype: torch.dtype,
    ) -> Tensor:
        needs_rows, needs_columns = ctx.needs_input_grad[:2]
        with torch.autocast(device_type=rows.device.type, enabled=False):
            left, right = _operand(rows, dtype), _operand(columns, dtype)
            if len(right) > len(columns) and column_weight is None:
                column_weight = row_weight.new_ones(len(columns))
            row_weight = _lengthened(row_weight, left)
            column_weight = None if column_weight is None else _lengthened(column_weight, right)
            total, row_gradient, column_gradient = _blockwise(
                left, _transposed(left), right, row_weight, column_weight, safe, needs_rows, needs_columns
            )
        n_rows, width = rows.shape
        ctx.save_for_backward(
            None if row_gradient is None else row_gradient[:n_rows, :width].to(rows.dtype),
            None if column_gradient is None else column_gradient[:width, : len(columns)].T.to(columns.dtype),
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Optional[Tensor], ...]:
        (factor,) = grad_outputs
        rows, columns = (None if saved is None else saved * factor for saved in ctx.saved_tensors)
        return rows, columns, None, None, None, None


def _blockwise(
    left: Tensor,
    left_transposed: Tensor,
    right: Tensor,
    row_weight: Tensor,
    column_weight: Optional[Tensor],
    safe: bool,
    needs_rows: bool = True,
    needs_columns: bool = True,
    first: Optional[int] = None,
) -> tuple[Tensor, Any, Any]:
    """Return the double sum and its gradients by rows and columns, or None for a gradient that is not needed.

    Args:
        left: ``[A, k]``, x, in the dtype of the products.
        left_transposed: ``[k, A]``, contiguous where that matters.
        right: ``[N, k]``, y.
        row_weight: ``[A]``, g, in full precision.
        column_weight: ``[N]``, w.
        safe: whether exponentials need no shift.
        needs_rows: for the gradient ``[A, k]``.
        needs_columns: for the gradient ``[k, N]``.
        first: where given, the score of row i and column ``first + i`` is subtracted from the row's logarithm.
    """
    (n_rows, n_columns), dtype, precise = (len(left), len(right)), left.dtype, row_weight.dtype
    block_scores = _BLOCK_SCORES.get(left.device.type, _BLOCK_SCORES["cpu"])
    height = min(n_rows, max(_LEAST_ROWS, block_scores // max(n_columns, 1)))
    if left.device.type == "cpu":
        height = min(height, _MOST_ROWS)
    width = min(n_columns, max(_LEAST_ROWS, block_scores // max(height, 1)))
    whole = width == n_columns
    tile_width = width
    if left.device.type == "cpu" and dtype != torch.bfloat16:
        tile_width = max(_LEAST_ROWS, _TILE_SCORES // max(height, 1))
    buffer = torch.empty(height * width, dtype=dtype, device=left.device)

    weights, offset = right.new_ones(n_columns), None
    weighted, factor = right, None
    if column_weight is not None and whole and safe:
        # Weights factor out of the products: no pass over the scores is spent on them.
        weights, factor = column_weight.to(dtype), column_weight.to(precise)
        weighted = right * weights[:, None]
    elif column_weight is not None:
        # Where a row's maximum is sought, columns of weight 0 must not be it.
        offset = column_weight.to(precise).log().to(dtype)

    sums_of_logs = row_weight.new_zeros(n_rows)
    row_gradient = (torch.empty_like if whole else torch.zeros_like)(left) if needs_rows else None
    # Transposed: the block is then the right factor as it lies in memory, which the matrix products prefer.
    column_gradient = left.new_zeros(left.shape[1], n_columns) if needs_columns else None
    for row in _slices(n_rows, height):
        scale = row_weight[row, None]  # [r, 1]
        if whole:
            # Every pass over a tile of the buffer finds it in the cache, where the pass before has left it.
            tiles, sums, shift = [], scale.new_zeros(scale.shape), None
            for tile in _tiles(left[row], right, offset, tile_width, buffer, row, first):
                if tile.own is not None:
                    sums_of_logs[row][tile.at] -= tile.own
                if safe:
                    sums += (tile.scores.exp_() @ weights[tile.column])[:, None]
                tiles.append(tile)
            if not safe:
                shift = torch.stack([tile.scores.amax(dim=1, keepdim=True) for tile in tiles]).amax(dim=0)
                shift.clamp_(min=torch.finfo(dtype).min)
                for tile in tiles:
                    sums += (_cut_off(tile.scores.sub_(shift)).exp_() @ weights[tile.column])[:, None]
            log_sum = sums.log() if shift is None else sums.log() + shift
            scale = (scale / sums).nan_to_num_(posinf=0.0)  # a row without any column has no gradient
            of_row = None if row_gradient is None else row_gradient[row].zero_()
            scaled_transposed = left_transposed[:, row] * scale.T.to(dtype)
            for tile in tiles:
                if tile.own is not None:
                    tile.own.sub_(sums[tile.at, 0])  # in shares of the sum, this subtracts 1 from the positive's
                if of_row is not None:
                    of_row.addmm_(tile.scores, weighted[tile.column])
                if column_gradient is not None:
                    column_gradient[:, tile.column].addmm_(scaled_transposed, tile.scores)
            if of_row is not None:
                of_row.mul_(scale.to(dtype))
        else:
            # Too many columns for one block: their sums first, then each block once more with exp(score - log sum).
            log_sum = _log_sum_by_columns(left[row], right, offset, width, buffer)
            shift = torch.where(log_sum == -math.inf, math.inf, log_sum).to(dtype)
            lost = torch.exp(shift.to(precise) - log_sum).nan_to_num_(0.0, 0.0)  # by lowering the shift
            for column in _slices(n_columns, width):
                part = None if offset is None else offset[column]
                scores = _scores(left[row], right[column], part, buffer)
                own, at = _diagonal(scores, row, column, first), _overlap(row, column, first)
                if own is not None:
                    sums_of_logs[at] -= own
                shares = _cut_off(scores.sub_(shift)).exp_()
                if own is not None:
                    own.sub_(1 / lost[slice(at.start - row.start, at.stop - row.start), 0])
                if row_gradient is not None:
                    row_gradient[row].addcmul_(shares @ right[column], (scale * lost).to(dtype))
                if column_gradient is not None:
                    column_gradient[:, column].addmm_(left_transposed[:, row] * (scale * lost).T.to(dtype), shares)
        sums_of_logs[row] += log_sum[:, 0].nan_to_num(neginf=0.0)
    if column_gradient is not None and factor is not None:
        column_gradient.mul_(factor)
    return (row_weight * sums_of_logs).sum(), row_gradient, column_gradient


class _Tile(NamedTuple):
    """Scores of a block's rows and some of its columns.

    Attributes:
        column: which columns.
        scores: ``[r, c]``; what was computed of them, later.
        own: view of the scores of the rows' positives; None where none is among the columns.
        at: which rows of the block have their positive among the columns.
    """

    column: slice
    scores: Tensor
    own: Optional[Tensor]
    at: slice


def _tiles(
    left: Tensor, right: Tensor, offset: Optional[Tensor], width: int, buffer: Tensor, row: slice, first: Optional[int]
) -> Iterator[_Tile]:
    """Compute the scores of a block's rows and all columns tile by tile, one after the other in the buffer."""
    for column in _slices(len(right), width):
        part = None if offset is None else offset[column]
        scores = _scores(left, right[column], part, buffer[len(left) * column.start :])
        at = _overlap(row, column, first)
        own = _diagonal(scores, row, column, first)
        yield _Tile(column, scores, own, slice(at.start - row.start, at.stop - row.start))


def _cut_off(shifted: Tensor) -> Tensor:
    """Set scores too low to count to minus infinity, in place."""
    return F.threshold(shifted, _LEAST_EXPONENT, -math.inf, inplace=True)


def _overlap(row: slice, column: slice, first: Optional[int]) -> slice:
    """Return the rows of a block whose positive, ``first + i``, is among its columns."""
    if first is None:
        return slice(row.start, row.start)
    start = max(row.start, column.start - first)
    return slice(start, max(start, min(row.stop, column.stop - first)))


def _diagonal(scores: Tensor, row: slice, column: slice, first: Optional[int]) -> Optional[Tensor]:
    """Return a view of the scores of the block's positives, or None where it holds none."""
    at = _overlap(row, column, first)
    if first is None or at.start == at.stop:
        return None
    return scores[at.start - row.start :, first + at.start - column.start :].diagonal()[: at.stop - at.start]


def _log_sum_by_columns(left: Tensor, right: Tensor, offset: Optional[Tensor], width: int, buffer: Tensor) -> Tensor:
    """Return the logarithms of the sums of exponentials, ``[r, 1]``, over columns that come in blocks."""
    precise = torch.promote_types(left.dtype, torch.float32)
    highest = torch.full((len(left), 1), torch.finfo(left.dtype).min, dtype=precise, device=left.device)
    sums = torch.zeros_like(highest)
    for column in _slices(len(right), width):
        scores = _scores(left, right[column], None if offset is None else offset[column], buffer)
        rising = torch.maximum(highest, scores.amax(dim=1, keepdim=True).to(precise))
        sums *= (highest - rising).exp()
        sums += _cut_off(scores.sub_(rising.to(scores.dtype))).exp_().sum(dim=1, keepdim=True, dtype=precise)
        highest = rising
    return sums.log() + highest


def _operand(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a factor of the products, ``[n, k]``; lowered, and with zeros up to sizes that they are fast at."""
    if dtype != torch.bfloat16:
        return x.to(dtype)
    length, width = lowered_length(len(x), x.device), -(-x.shape[1] // _WIDTH) * _WIDTH
    if (length, width) == x.shape:
        return x.to(dtype)
    operand = x.new_zeros(length, width, dtype=dtype)
    operand[: len(x), : x.shape[1]] = x
    return operand


def lowered_length(n: int, device: torch.device) -> int:
    """Return how many rows to give to a bfloat16 product instead of n, whose number changes from step to step."""
    return -(-n // _LENGTH) * _LENGTH if device.type == "cpu" else n


def _lengthened(weight: Tensor, operand: Tensor) -> Tensor:
    """Return weights with zeros for the rows that :func:`_operand` added."""
    return F.pad(weight, (0, len(operand) - len(weight)))


def _scores(left: Tensor, right: Tensor, offset: Optional[Tensor], buffer: Tensor) -> Tensor:
    """Return ``left @ right.T``, plus ``offset`` for each column, in the buffer's memory."""
    out = buffer[: len(left) * len(right)].view(len(left), len(right))
    torch.mm(left, right.T, out=out)
    return out if offset is None else out.add_(offset)


def _transposed(left: Tensor) -> Tensor:
    """Return ``left.T``; laid out anew in bfloat16, whose products take twice the time on a factor that is not."""
    return left.T.contiguous() if left.dtype == torch.bfloat16 else left.T


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
