"""The bound on an auxiliary loss, against two gradients taken apart."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from recbole_rlmrec.ops.balance import balanced, shared


def losses(main: Tensor, auxiliary: Tensor, weight: float) -> tuple[Tensor, Tensor]:
    return (main.square().sum(dim=1).log()).sum(), weight * (auxiliary.sin() * torch.arange(5.0)).sum()


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weight", [1e-4, 1.0, 1e4])
def test_gradients_are_those_of_two_backward_passes(share: float, weight: float) -> None:
    table = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    first, second = losses(table, table, weight)
    (g,), (h,) = (torch.autograd.grad(loss, table) for loss in (first, second))
    expected = g + min(1.0, share * float(g.norm()) / float(h.norm())) * h

    sum(losses(*balanced(table, share), weight)).backward()
    assert table.grad is not None
    torch.testing.assert_close(table.grad, expected)
    assert (table.grad - g).norm() <= share * g.norm() * (1 + 1e-5) + 1e-6


def test_scales_of_the_losses_do_not_matter() -> None:
    gradients = []
    for scale in (1.0, 1000.0):
        table = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
        main, auxiliary = balanced(table, 0.1)
        first, second = losses(main, auxiliary, 1e4)
        (first + scale * second).backward()
        gradients.append(table.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("used", ["main", "auxiliary", "neither"])
def test_a_loss_without_a_gradient_is_no_fault(used: str) -> None:
    table = torch.ones(3, 2, requires_grad=True)
    main, auxiliary = balanced(table, 0.5)
    loss = {"main": main.sum() + 0 * auxiliary.sum(), "auxiliary": auxiliary.sum(), "neither": 0 * main.sum()}[used]
    loss.backward()
    # Beside a main loss that does not pull at all, the auxiliary one must not.
    expected = 1.0 if used == "main" else 0.0
    assert torch.equal(table.grad, torch.full((3, 2), expected))


def test_without_a_bound_the_tensor_is_itself() -> None:
    table = torch.ones(2, 2, requires_grad=True)
    assert all(part is table for part in shared(table, None))


def test_norms_beyond_float16() -> None:
    table = torch.ones(5000, 8, dtype=torch.float16, requires_grad=True)
    main, auxiliary = balanced(table, 0.1)
    (1000 * main.float().sum() + 3000 * auxiliary.float().sum()).backward()
    assert table.grad is not None and torch.allclose(table.grad, torch.full_like(table, 1100.0))
