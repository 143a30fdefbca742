"""Soft targets against sums in float64 with gradients, in one block and in many; whitening."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from recbole_rlmrec.ops import soft_targets
from recbole_rlmrec.ops.soft_targets import soft_target_loss, softmax_entropy, whitening


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def distribution(anchor: Tensor, candidates: Tensor, temperature: float) -> Tensor:
    powers = torch.stack([(cosine(anchor, each) / temperature).exp() for each in candidates])
    return powers / powers.sum()


@pytest.mark.parametrize("block", [1, 30, 2**20])
def test_loss_and_gradients_are_the_slow_ones(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_targets, "_BLOCK", {"cpu": block})
    torch.manual_seed(2)
    anchor, candidate = torch.randn(7, 5), torch.randn(11, 5)
    target_anchor, target_candidate = torch.randn(7, 3), torch.randn(11, 3)
    weight = torch.tensor([0.3, 0.0, 1.0, 2.0, 0.1, 0.5, 0.7])
    leaves = [each.double().requires_grad_() for each in (anchor, candidate)]
    expected = torch.zeros((), dtype=torch.float64)
    for i in range(7):
        q = distribution(target_anchor[i].double(), target_candidate.double(), 0.3)
        p = distribution(leaves[0][i], leaves[1], 0.3)
        expected = expected - weight[i].double() * (q * p.log()).sum()
    expected.backward()
    given = [each.clone().requires_grad_() for each in (anchor, candidate)]
    loss = soft_target_loss(*given, target_anchor, target_candidate, weight, 0.3)
    (2 * loss).backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    for each, leaf in zip(given, leaves):
        torch.testing.assert_close(each.grad.double(), 2 * leaf.grad, rtol=1e-4, atol=1e-6)
    entropies = softmax_entropy(target_anchor, target_candidate, 0.3)
    slow = [distribution(row, target_candidate, 0.3) for row in target_anchor]
    torch.testing.assert_close(entropies, torch.stack([-(q * q.log()).sum() for q in slow]))


def test_a_uniform_target_against_equal_scores_is_the_logarithm_of_the_columns() -> None:
    x = torch.ones(3, 4, requires_grad=True)
    loss = soft_target_loss(x, torch.ones(9, 4), torch.zeros(3, 2), torch.ones(9, 2), torch.ones(3) / 3, 0.2)
    assert loss.item() == pytest.approx(math.log(9), rel=1e-5)


def test_whitened_rows_have_the_identity_for_a_covariance() -> None:
    rows = torch.randn(200, 6).double() @ torch.randn(6, 6).double()
    rows -= rows.mean(dim=0)
    found = rows @ whitening(rows.T @ rows / 200, 4)
    torch.testing.assert_close(found.T @ found / 200, torch.eye(4).double())
    # The leading components: what they leave over has the variance of the two least.
    left = torch.linalg.svdvals(rows)[4:].square().sum()
    projected = found @ torch.linalg.lstsq(found, rows).solution
    torch.testing.assert_close((rows - projected).square().sum(), left)


def test_rows_of_less_than_the_width_keep_what_they_have() -> None:
    rows = torch.randn(50, 1).double() @ torch.randn(1, 6).double()
    assert whitening(rows.T @ rows, 4).shape == (6, 1)
