"""Stacked perceptrons against one after the other in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbole_rlmrec.ops import mixture
from recbole_rlmrec.ops.mixture import perceptron_mixture


def made(n: int, n_perceptrons: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Rows, gate, and the four weights, which need gradients, as the gate does."""
    torch.manual_seed(3)
    shapes = [(n_perceptrons, 5, 6), (n_perceptrons, 5), (n_perceptrons, 3, 5), (n_perceptrons, 3)]
    weights = [torch.randn(shape, dtype=dtype).requires_grad_() for shape in shapes]
    return torch.randn(n, 6, dtype=dtype), torch.rand(n, n_perceptrons, dtype=dtype).requires_grad_(), weights


def one_by_one(rows: Tensor, gate: Tensor | None, weights: list[Tensor], slope: float) -> Tensor:
    found = []
    for i, row in enumerate(rows):
        total = torch.zeros(3, dtype=rows.dtype)
        for k, (first, first_bias, last, last_bias) in enumerate(zip(*weights)):
            hidden = first @ row + first_bias
            hidden = torch.where(hidden > 0, hidden, slope * hidden)
            total = total + (1 if gate is None else gate[i, k]) * (last @ hidden + last_bias)
        found.append(total)
    return torch.stack(found) if found else torch.zeros(0, 3, dtype=rows.dtype)


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("n_perceptrons", [1, 3])
@pytest.mark.parametrize("is_gated", [True, False])
@pytest.mark.parametrize("block_rows", [4, 100])
def test_value_and_gradients(
    slope: float, n_perceptrons: int, is_gated: bool, block_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(mixture._BLOCK_ROWS, "cpu", block_rows)
    rows, gate, weights = made(10, n_perceptrons)
    used = gate if is_gated else None
    leaves = [*weights, gate] if is_gated else weights
    direction = torch.randn(10, 3, dtype=torch.float64)
    expected, found = one_by_one(rows, used, weights, slope), perceptron_mixture(rows, used, *weights, slope)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found.is_contiguous()  # or gathering its rows takes four times as long
    gradients = [torch.autograd.grad((value * direction).sum(), leaves) for value in (found, expected)]
    for ours, theirs in zip(*gradients):
        assert ours.shape == theirs.shape
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.abs().max() > 0.1


def test_the_backward_pass_can_be_repeated() -> None:
    rows, gate, weights = made(10, 2)
    total = perceptron_mixture(rows, gate, *weights).square().sum()
    first = torch.autograd.grad(total, weights, retain_graph=True)
    for once, again in zip(first, torch.autograd.grad(total, weights)):
        assert torch.equal(once, again)


def test_no_rows() -> None:
    """A process may have none of the rows of one side."""
    rows, gate, weights = made(0, 2)
    found = perceptron_mixture(rows, gate, *weights)
    assert found.shape == (0, 3)
    for gradient in torch.autograd.grad(found.sum(), weights):
        assert not gradient.any()


def test_bfloat16_rows_give_full_precision_results_nearby() -> None:
    rows, gate, weights = made(200, 2, torch.float32)
    results, direction = [], torch.randn(200, 3)
    for given in (rows, rows.bfloat16()):
        # A slope of 1 has no kink, where rounding would decide whether a whole term is there.
        found = perceptron_mixture(given, gate, *weights, 1.0)
        results.append([found, *torch.autograd.grad((found * direction).sum(), [*weights, gate])])
    assert not torch.equal(results[0][0], results[1][0])
    for cast, full in zip(results[1], results[0]):
        assert cast.dtype == torch.float32
        assert (cast - full).norm() < 0.02 * full.norm()
