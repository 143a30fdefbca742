"""Ranking and regularisation losses against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from recbole.model.loss import EmbLoss

from recbole_rlmrec.ops.loss import bpr_loss, mean_norm, squared_l2


def test_bpr_closed_form() -> None:
    positive, negative = [0.3, -1.2, 2.0, 0.0], [0.3, 0.5, -1.0, 4.0]
    expected = sum(-math.log(1 / (1 + math.exp(n - p))) for p, n in zip(positive, negative)) / 4
    positive_score, negative_score = (torch.tensor(scores, dtype=torch.float64) for scores in (positive, negative))
    assert bpr_loss(positive_score, negative_score).item() == pytest.approx(expected, rel=1e-12)


def test_bpr_of_equal_scores_is_log_two() -> None:
    scores = torch.tensor([-3.0, 0.0, 7.0])
    assert bpr_loss(scores, scores).item() == pytest.approx(math.log(2), rel=1e-6)


def test_bpr_depends_on_the_difference_only() -> None:
    positive, negative = torch.randn(2, 8, dtype=torch.float64)
    shifted = bpr_loss(positive + 5, negative + 5)
    assert shifted.item() == pytest.approx(bpr_loss(positive, negative).item(), rel=1e-12)


def test_bpr_gradient() -> None:
    positive, negative = torch.randn(2, 5, dtype=torch.float64).unbind()
    assert torch.autograd.gradcheck(bpr_loss, (positive.requires_grad_(), negative.requires_grad_()))


@pytest.mark.parametrize(
    ("positive", "negative", "loss", "slope"),
    [(-1000.0, 1000.0, 2000.0, 1.0), (1000.0, -1000.0, 0.0, 0.0), (1000.0, 1000.0, math.log(2), 0.5)],
)
def test_bpr_is_stable_at_extreme_scores(positive: float, negative: float, loss: float, slope: float) -> None:
    scores = torch.tensor([positive]).requires_grad_(), torch.tensor([negative]).requires_grad_()
    value = bpr_loss(*scores)
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-6, abs=1e-30)
    assert [score.grad.item() for score in scores] == pytest.approx([-slope, slope], abs=1e-30)


def test_squared_l2_sums_over_every_entry_of_any_shape() -> None:
    parameters = [torch.tensor([[1.0, -2.0], [3.0, 0.5]]), torch.tensor([4.0]), torch.tensor(-0.5)]
    expected = 1 + 4 + 9 + 0.25 + 16 + 0.25
    assert squared_l2(parameters).item() == expected
    assert squared_l2(parameter for parameter in parameters).item() == expected
    assert squared_l2(parameters[:1]).shape == ()


def test_squared_l2_gradient_is_twice_the_parameter() -> None:
    first, second = torch.randn(3, 2).requires_grad_(), torch.randn(4).requires_grad_()
    squared_l2([first, second]).backward()
    assert torch.equal(first.grad, 2 * first.detach())
    assert torch.equal(second.grad, 2 * second.detach())


def test_squared_l2_leaves_out_the_rows_before_the_first_that_counts() -> None:
    table, other = torch.randn(4, 3, dtype=torch.float64).requires_grad_(), torch.randn(5).double().requires_grad_()
    total = squared_l2([table, other], first_rows=[1, 0])
    expected = table[1:].square().sum() + other.square().sum()
    assert total.item() == pytest.approx(expected.item(), rel=1e-12)
    for ours, theirs in zip(*(torch.autograd.grad(each, (table, other)) for each in (total, expected))):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_squared_l2_gradcheck() -> None:
    tables = [torch.randn(3, 2, dtype=torch.float64).requires_grad_() for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *each: squared_l2(each, first_rows=[1, 0]), tables)


def test_shares_of_bpr_add_up() -> None:
    positive, negative = torch.randn(2, 7, dtype=torch.float64)
    parts = sum(bpr_loss(positive[rows], negative[rows], total=7) for rows in (slice(0, 3), slice(3, 7)))
    assert parts.item() == pytest.approx(bpr_loss(positive, negative).item(), rel=1e-12)


@pytest.mark.parametrize("squared", [False, True])
def test_mean_norm_is_recboles(squared: bool) -> None:
    tables = [torch.randn(6, 3).requires_grad_() for _ in range(3)]
    ours, theirs = mean_norm(tables, squared=squared), EmbLoss()(*tables, require_pow=squared).squeeze()
    torch.testing.assert_close(ours, theirs)
    for found, expected in zip(*(torch.autograd.grad(loss, tables) for loss in (ours, theirs))):
        torch.testing.assert_close(found, expected)
