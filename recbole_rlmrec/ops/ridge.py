"""Ridge regression: a linear map with a constant, whose penalty is chosen by what it was not fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LinearMap(NamedTuple):
    """A linear map with a constant.

    Attributes:
        weight: ``[D, d]``.
        center: what is subtracted from a row first, ``[D]``.
        constant: what is added last, ``[d]``.
    """

    weight: Tensor
    center: Tensor
    constant: Tensor

    def __call__(self, rows: Tensor) -> Tensor:
        """Return what rows, ``[n, D]``, are mapped to, ``[n, d]``."""
        return (rows - self.center) @ self.weight + self.constant


class _Sums:
    """Sums over some rows from which a ridge regression is computed, in double precision."""

    def __init__(self, rows: Tensor, targets: Tensor) -> None:
        rows, targets = rows.double(), targets.double()
        self.parts = (
            torch.tensor(float(len(rows)), device=rows.device),
            rows.sum(dim=0),
            targets.sum(dim=0),
            rows.T @ rows,
            rows.T @ targets,
        )

    def without(self, other: _Sums) -> _Sums:
        """Return the sums over the rows that are not among those of ``other``."""
        left = object.__new__(_Sums)
        left.parts = tuple(mine - theirs for mine, theirs in zip(self.parts, other.parts))  # type: ignore[assignment]
        return left

    def solved(self, penalty: float, dtype: torch.dtype) -> LinearMap:
        """Return the map with the least squared error plus ``penalty`` times the squares of its weights."""
        n, rows, targets, square, product = self.parts
        center, constant = rows / n, targets / n
        square = square - n * torch.outer(center, center) + penalty * torch.eye(len(center), device=center.device)
        factor = torch.linalg.cholesky(square)
        weight = torch.cholesky_solve(product - n * torch.outer(center, constant), factor)
        return LinearMap(weight.to(dtype), center.to(dtype), constant.to(dtype))


class FittedRidge(NamedTuple):
    """A ridge regression and what it says of rows that it was not fitted on.

    Attributes:
        map: fitted on all rows.
        penalty: the one of those given with the least error on the rows of the other folds.
        held_out: what each row is mapped to by the regression on the folds that it is not in, ``[n, d]``.
    """

    map: LinearMap
    penalty: float
    held_out: Tensor


def fit_ridge(rows: Tensor, targets: Tensor, penalties: Sequence[float], folds: Sequence[Tensor]) -> FittedRidge:
    """Fit targets by rows; the constant is not penalised.

    Args:
        rows: ``[n, D]``.
        targets: ``[n, d]``.
        penalties: of the squares of the weights, above 0.
        folds: places of the rows of each fold, together all of them; two folds at least.

    >>> x = torch.linspace(-1, 1, 8).unsqueeze(1)
    >>> found = fit_ridge(x, 3 * x + 1, [1e-6, 10.0], [torch.arange(4), torch.arange(4, 8)])
    >>> found.penalty, found.map(torch.tensor([[2.0]])).round(decimals=2).tolist()
    (1e-06, [[7.0]])
    """
    sums = [_Sums(rows[fold], targets[fold]) for fold in folds]
    whole = _Sums(rows, targets)
    best: tuple[float, float, Tensor] | None = None
    for penalty in penalties:
        held_out = torch.empty_like(targets)
        for fold, part in zip(folds, sums):
            held_out[fold] = whole.without(part).solved(penalty, targets.dtype)(rows[fold])
        error = float((held_out - targets).square().sum())
        if best is None or error < best[0]:
            best = error, penalty, held_out
    assert best is not None, "there is a penalty"
    _, penalty, held_out = best
    return FittedRidge(whole.solved(penalty, targets.dtype), penalty, held_out)
