"""Sums of exponentials of all products of two tables, block by block, with their gradients in the same pass."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Scores in memory at a time. On a CPU a block should stay in the cache; on a GPU it should fill the device.
_BLOCK_SCORES = {"cpu": 3 * 2**20, "cuda": 2**24}
#: Of these, scores that one product computes on a CPU: a core's own cache should hold them. Not in bfloat16.
_TILE_SCORES = 2**18
#: Blocks have no fewer rows than this, or the products of matrices would be products of vectors.
_LEAST_ROWS = 64
#: Blocks on a CPU have no more rows than this: from about 600 on bfloat16 products take twice the time a row.
_MOST_ROWS = 512
#: bfloat16 products take widths that are no multiple of this at half the speed.
WIDTH = 32
#: On a CPU, lengths are brought to a multiple of this before bfloat16 products: code for a product is generated for
#: each shape, which takes ten times as long as the product, and the distinct nodes of a batch change in number.
_LENGTH = 64
#: exp() of scores below this needs no shift by the row's maximum: neither it nor a sum of such leaves float32.
_LARGEST_EXPONENT = 60.0
#: Shifted scores below this are taken for minus infinity. They would add less than 1e-26 of the sum, and further below
#: their exponentials are denormal numbers, which make products of matrices five times as slow.
_LEAST_EXPONENT = -60.0


def log_sum_exp(
    rows: Tensor,
    columns: Tensor,
    row_weight: Tensor,
    column_weight: Tensor | None = None,
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

    >>> round(log_sum_exp(torch.zeros(1, 2), torch.zeros(4, 2), torch.ones(1)).item(), 4)  # log 4
    1.3863
    """
    if bound == math.inf and rows.device.type == "cpu" and len(rows) and len(columns):
        longest = [torch.linalg.vector_norm(x.detach().float(), dim=1).max() for x in (rows, columns)]
        bound = float(longest[0] * longest[1])
    safe = is_safe(bound, len(columns))
    total: Tensor = _LogSumExp.apply(rows, columns, row_weight, column_weight, safe, product_dtype(rows))
    return total


def product_dtype(x: Tensor) -> torch.dtype:
    """Return the dtype of the products' factors: bfloat16 under autocast to bfloat16."""
    device = x.device.type
    # float16 has too few exponents for exp().
    is_bfloat16 = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.bfloat16
    return torch.bfloat16 if is_bfloat16 else x.dtype


def is_safe(bound: float, n_columns: int) -> bool:
    """Return whether exponentials of scores within the bound, and their sums, need no shift to stay within float32."""
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
        column_weight: Tensor | None,
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
            total, row_gradient, column_gradient = blockwise(
                left,
                transposed(left),
                right,
                row_weight,
                column_weight,
                safe=safe,
                needs_rows=needs_rows,
                needs_columns=needs_columns,
            )
        n_rows, width = rows.shape
        ctx.save_for_backward(
            None if row_gradient is None else row_gradient[:n_rows, :width].to(rows.dtype),
            None if column_gradient is None else column_gradient[:width, : len(columns)].T.to(columns.dtype),
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = grad_outputs
        rows, columns = (None if saved is None else saved * factor for saved in ctx.saved_tensors)
        return rows, columns, None, None, None, None


def blockwise(
    left: Tensor,
    left_transposed: Tensor,
    right: Tensor,
    row_weight: Tensor,
    column_weight: Tensor | None,
    *,
    safe: bool,
    needs_rows: bool = True,
    needs_columns: bool = True,
    first: int | None = None,
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
    for row in slices(n_rows, height):
        scale = row_weight[row, None]  # [r, 1]
        if whole:
            # Every pass over a tile of the buffer finds it in the cache, where the pass before has left it.
            tiles, sums, shift = [], scale.new_zeros(scale.shape), None
            for tile in _tiles(left[row], right, offset, tile_width, buffer, row, first):
                if tile.positives is not None:
                    sums_of_logs[row][tile.at] -= tile.positives
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
                if tile.positives is not None:
                    tile.positives.sub_(sums[tile.at, 0])  # in shares of the sum, this subtracts 1 from the positive's
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
            lost = torch.exp(shift.to(precise) - log_sum).nan_to_num_(0.0, 0.0)  # by casting the shift
            for column in slices(n_columns, width):
                part = None if offset is None else offset[column]
                scores = _scores(left[row], right[column], part, buffer)
                positives, at = _diagonal(scores, row, column, first), _overlap(row, column, first)
                if positives is not None:
                    sums_of_logs[at] -= positives
                shares = _cut_off(scores.sub_(shift)).exp_()
                if positives is not None:
                    positives.sub_(1 / lost[slice(at.start - row.start, at.stop - row.start), 0])
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
        positives: view of the scores of the rows' positives; None where none is among the columns.
        at: which rows of the block have their positive among the columns.
    """

    column: slice
    scores: Tensor
    positives: Tensor | None
    at: slice


def _tiles(
    left: Tensor, right: Tensor, offset: Tensor | None, width: int, buffer: Tensor, row: slice, first: int | None
) -> Iterator[_Tile]:
    """Compute the scores of a block's rows and all columns tile by tile, one after the other in the buffer."""
    for column in slices(len(right), width):
        part = None if offset is None else offset[column]
        scores = _scores(left, right[column], part, buffer[len(left) * column.start :])
        at = _overlap(row, column, first)
        positives = _diagonal(scores, row, column, first)
        yield _Tile(column, scores, positives, slice(at.start - row.start, at.stop - row.start))


def _cut_off(shifted: Tensor) -> Tensor:
    """Set scores too low to count to minus infinity, in place."""
    return F.threshold(shifted, _LEAST_EXPONENT, -math.inf, inplace=True)


def _overlap(row: slice, column: slice, first: int | None) -> slice:
    """Return the rows of a block whose positive, ``first + i``, is among its columns."""
    if first is None:
        return slice(row.start, row.start)
    start = max(row.start, column.start - first)
    return slice(start, max(start, min(row.stop, column.stop - first)))


def _diagonal(scores: Tensor, row: slice, column: slice, first: int | None) -> Tensor | None:
    """Return a view of the scores of the block's positives, or None where it holds none."""
    at = _overlap(row, column, first)
    if first is None or at.start == at.stop:
        return None
    return scores[at.start - row.start :, first + at.start - column.start :].diagonal()[: at.stop - at.start]


def _log_sum_by_columns(left: Tensor, right: Tensor, offset: Tensor | None, width: int, buffer: Tensor) -> Tensor:
    """Return the logarithms of the sums of exponentials, ``[r, 1]``, over columns that come in blocks."""
    precise = torch.promote_types(left.dtype, torch.float32)
    highest = torch.full((len(left), 1), torch.finfo(left.dtype).min, dtype=precise, device=left.device)
    sums = torch.zeros_like(highest)
    for column in slices(len(right), width):
        scores = _scores(left, right[column], None if offset is None else offset[column], buffer)
        rising = torch.maximum(highest, scores.amax(dim=1, keepdim=True).to(precise))
        sums *= (highest - rising).exp()
        sums += _cut_off(scores.sub_(rising.to(scores.dtype))).exp_().sum(dim=1, keepdim=True, dtype=precise)
        highest = rising
    return sums.log() + highest


def _operand(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a factor of the products, ``[n, k]``; in bfloat16 with zeros up to sizes that are fast."""
    if dtype != torch.bfloat16:
        return x.to(dtype)
    length, width = padded_length(len(x), x.device), -(-x.shape[1] // WIDTH) * WIDTH
    if (length, width) == x.shape:
        return x.to(dtype)
    operand = x.new_zeros(length, width, dtype=dtype)
    operand[: len(x), : x.shape[1]] = x
    return operand


def padded_length(n: int, device: torch.device) -> int:
    """Return how many rows to give to a bfloat16 product instead of n, whose number changes from step to step."""
    return -(-n // _LENGTH) * _LENGTH if device.type == "cpu" else n


def _lengthened(weight: Tensor, operand: Tensor) -> Tensor:
    """Return weights with zeros for the rows that :func:`_operand` added."""
    return F.pad(weight, (0, len(operand) - len(weight)))


def _scores(left: Tensor, right: Tensor, offset: Tensor | None, buffer: Tensor) -> Tensor:
    """Return ``left @ right.T``, plus ``offset`` for each column, in the buffer's memory."""
    out = buffer[: len(left) * len(right)].view(len(left), len(right))
    torch.mm(left, right.T, out=out)
    return out if offset is None else out.add_(offset)


def transposed(left: Tensor) -> Tensor:
    """Return ``left.T``; laid out again in bfloat16, whose products take twice the time on a factor that is not."""
    return left.T.contiguous() if left.dtype == torch.bfloat16 else left.T


def slices(length: int, step: int) -> Iterator[slice]:
    """Cut a length into slices of a step, or of 1 where that is less.

    >>> list(slices(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    step = max(step, 1)
    return (slice(start, min(start + step, length)) for start in range(0, length, step))


def normalized(weight: Tensor | None, total: Tensor | None, like: Tensor) -> Tensor:
    """Return the anchors' shares of the mean, ``[A]``."""
    if weight is None:
        weight = like.new_ones(len(like))
    weight = weight.to(like.dtype)
    total = weight.sum() if total is None else total.to(like.dtype)
    return weight / total.clamp(min=torch.finfo(like.dtype).tiny)


def full_precision(x: Tensor) -> Tensor:
    """Undo autocast's cast: cosines are normalised in float32."""
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
