"""The first k of each row, exactly: equal scores stand in the order of their columns."""

from __future__ import annotations

import torch
from torch import Tensor

#: So many scores are looked at again at a time, where equal ones stand at the end of a list.
_BLOCK = 2**21
#: So many columns have one maximum, by which most of them are passed over.
_GROUP = 64


def first_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest scores of each row, the largest first, and of equal ones that of the lower column first.

    ``torch.topk`` takes any of equal scores, and the next call with other rows takes others.

    Args:
        scores: ``[B, n]``, without NaN; -inf for what is to be left out, which comes last in any order.
        k: at least 1; of fewer columns all are returned.

    Returns:
        The scores, ``[B, min(k, n)]``, and their columns, int64 of the same shape.

    >>> values, columns = first_k(torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0]]), 3)
    >>> values.tolist(), columns.tolist()
    ([[3.0, 3.0, 2.0]], [[1, 3, 2]])
    """
    n_columns = scores.shape[1]
    if n_columns <= 4 * k * _GROUP:
        return _first_k(scores, k)
    # What is among the first k lies in one of the k groups of columns whose maxima are first: of each group before, one
    # score would be before it. So one pass over the scores finds their maxima, and few are left to be sorted.
    whole = scores.unfold(1, _GROUP, _GROUP).amax(dim=2)
    rest = scores[:, whole.shape[1] * _GROUP :]
    maxima = torch.cat([whole, rest.amax(dim=1, keepdim=True)], dim=1) if rest.shape[1] else whole
    groups = _first_k(maxima, k)[1].sort(dim=1).values
    columns = (groups.unsqueeze(2) * _GROUP + torch.arange(_GROUP, device=scores.device)).flatten(1)
    is_beyond = columns >= n_columns
    columns.clamp_(max=n_columns - 1)
    values, places = _first_k(scores.gather(1, columns).masked_fill_(is_beyond, -torch.inf), k)
    return values, columns.gather(1, places)


def _first_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return what :func:`first_k` does, from all scores at once."""
    n_columns = scores.shape[1]
    values, columns = scores.topk(min(k + 1, n_columns))
    if n_columns > k:
        is_open = (values[:, k - 1] == values[:, k]) & (values[:, k] > -torch.inf)
        values, columns = values[:, :k].contiguous(), columns[:, :k].contiguous()
        for rows in is_open.nonzero().squeeze(1).split(max(1, _BLOCK // n_columns)):
            columns[rows] = _with_first_of_last(scores[rows], values[rows], columns[rows])
    columns, order = columns.sort(dim=1)
    return _by_score(values.gather(1, order), columns, k)


def merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Return the first k of two results of :func:`first_k`.

    Args:
        first: scores and columns of each row.
        second: the same, of higher columns.
        k: as there.
    """
    return _by_score(torch.cat([first[0], second[0]], dim=1), torch.cat([first[1], second[1]], dim=1), k)


def _by_score(values: Tensor, columns: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Sort by score what is, among equal scores, in the order of the columns; keep the first k."""
    values, order = values.sort(dim=1, descending=True, stable=True)
    return values[:, :k], columns.gather(1, order)[:, :k]


def _with_first_of_last(scores: Tensor, values: Tensor, columns: Tensor) -> Tensor:
    """Return the columns with those that have a row's last score replaced by the lowest that have it.

    Args:
        scores: ``[R, n]``.
        values: the k largest of each row, sorted, ``[R, k]``.
        columns: where they stand.
    """
    k = values.shape[1]
    last = values[:, -1:]
    rows, tied = (scores == last).nonzero(as_tuple=True)  # sorted by row, then by column
    counts = torch.bincount(rows, minlength=len(scores))
    place = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    is_first = place < k
    lowest = torch.zeros_like(columns)
    lowest[rows[is_first], place[is_first]] = tied[is_first]
    n_above = (values > last).sum(dim=1, keepdim=True)
    place = torch.arange(k, device=rows.device) - n_above
    return torch.where(place >= 0, lowest.gather(1, place.clamp(min=0)), columns)
