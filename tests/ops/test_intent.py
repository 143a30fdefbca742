"""The mean intent against autograd's softmax, in one block and in several."""

from __future__ import annotations

import pytest
import torch

from recbole_rlmrec.ops import intent as module
from recbole_rlmrec.ops.intent import mean_intent


def inputs(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, intent = (torch.randn(size, generator=generator, dtype=dtype) for size in ((7, 3), (3, 5)))
    return x.requires_grad_(), intent.requires_grad_()


@pytest.mark.parametrize("block", [1024, 3, 1])
def test_value_and_gradients_are_those_of_the_formula(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setitem(module._BLOCK_ROWS, "cpu", block)
    x, intent = inputs()
    weight = torch.randn(7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, plain = mean_intent(x, intent), torch.softmax(x @ intent, dim=1) @ intent.t()
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    for first, second in zip(*(torch.autograd.grad((mean * weight).sum(), (x, intent)) for mean in (ours, plain))):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    assert torch.autograd.gradcheck(mean_intent, (x, intent))


def test_affinities_that_overflow_exp_are_finite_and_autocast_changes_nothing() -> None:
    x, intent = (each.float() * 1e3 for each in inputs())
    mean = mean_intent(x, intent)
    assert torch.isfinite(mean).all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mean_intent(x, intent), mean)
