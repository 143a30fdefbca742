"""Projector and node mask: sizes, initial weights, random numbers, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_rlmrec.model.layers import NodeMask, Projector


@pytest.mark.parametrize(("a", "b", "hidden"), [(12, 8, 10), (7, 4, 5), (1536, 32, 784), (3, 3, 3)])
def test_projector_sizes(a: int, b: int, hidden: int) -> None:
    projector = Projector(a, b, seed=0)
    assert [tuple(parameter.shape) for parameter in projector.parameters()] == [
        (hidden, a),
        (hidden,),
        (b, hidden),
        (b,),
    ]
    assert projector(torch.randn(5, a)).shape == (5, b)


def test_projector_is_two_affine_maps_with_a_leak_of_a_hundredth() -> None:
    projector = Projector(6, 4, seed=3).double()
    first, first_bias, second, second_bias = (parameter.detach().numpy() for parameter in projector.parameters())
    x = np.random.default_rng(0).normal(size=(9, 6))
    hidden = x @ first.T + first_bias
    assert (hidden < 0).any() and (hidden > 0).any()
    expected = np.where(hidden > 0, hidden, 0.01 * hidden) @ second.T + second_bias
    np.testing.assert_allclose(projector(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-12)


def test_projector_initial_weights_fill_their_bounds() -> None:
    a, b = 300, 100
    projector = Projector(a, b, seed=0)
    for layer, fan_in, fan_out in ((projector[0], a, 200), (projector[2], 200, b)):
        for parameter, bound in (
            (layer.weight, math.sqrt(6 / (fan_in + fan_out))),
            (layer.bias, 1 / math.sqrt(fan_in)),
        ):
            values = parameter.detach().double()
            assert 0.95 * bound < values.abs().max() <= bound * (1 + 1e-6)
            # The mean and the mean square of n uniform numbers, within four standard errors.
            n = values.numel()
            assert abs(values.mean()) <= 4 * bound / math.sqrt(3 * n)
            assert abs(values.square().mean() - bound**2 / 3) <= 4 * bound**2 * math.sqrt(4 / 45 / n)


def test_projector_weights_are_a_matter_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = Projector(12, 8, seed=5)
    torch.manual_seed(2)
    again, other = Projector(12, 8, seed=5), Projector(12, 8, seed=6)
    for one, same, different in zip(first.parameters(), again.parameters(), other.parameters()):
        assert torch.equal(one, same)
        assert not torch.equal(one, different)
        assert one.requires_grad


def test_projector_and_mask_draw_no_global_random_number() -> None:
    before = torch.random.get_rng_state()
    Projector(12, 8, seed=5)
    NodeMask(8, torch.arange(10), 0.5, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("mask_ratio", "n_maskable", "n_masked"), [(0.1, 10, 1), (0.5, 7, 3), (1.0, 6, 6), (0.3, 4, 1), (0.1, 9, 0)]
)
def test_mask_draws_distinct_maskable_rows(mask_ratio: float, n_maskable: int, n_masked: int) -> None:
    torch.manual_seed(0)
    maskable = torch.arange(n_maskable) * 3 + 2
    mask = NodeMask(8, maskable, mask_ratio, seed=0)
    assert mask.n_masked == n_masked
    for _ in range(20):
        rows = mask.draw().tolist()
        assert len(rows) == len(set(rows)) == n_masked
        assert set(rows) <= set(maskable.tolist())


def test_mask_draws_every_maskable_row_equally_often() -> None:
    torch.manual_seed(0)
    maskable, n_draws = torch.tensor([1, 4, 5, 9, 12]), 2000
    mask = NodeMask(8, maskable, 0.4, seed=0)
    times = torch.bincount(torch.cat([mask.draw() for _ in range(n_draws)]), minlength=13)
    assert times.sum() == times[maskable].sum() == 2 * n_draws
    assert (times[maskable] - 0.4 * n_draws).abs().max() <= 4 * math.sqrt(n_draws * 0.4 * 0.6)


def test_mask_replaces_exactly_the_given_rows() -> None:
    mask = NodeMask(3, torch.arange(6), 0.5, seed=0)
    assert torch.equal(mask.token, NodeMask(3, torch.arange(6), 0.5, seed=0).token)
    assert 0 < mask.token.abs().max() < 0.1
    with torch.no_grad():
        mask.token.copy_(torch.tensor([[7.0, 8.0, 9.0]]))
    ego = torch.randn(6, 3)
    before = ego.clone()
    masked = mask(ego, torch.tensor([4, 1]))
    for row in range(6):
        assert torch.equal(masked[row], mask.token[0] if row in (1, 4) else before[row])
    assert torch.equal(ego, before)


def test_mask_gradient_reaches_the_token_and_the_other_rows_only() -> None:
    mask = NodeMask(3, torch.arange(6), 0.5, seed=0)
    ego, weight = torch.randn(6, 3, requires_grad=True), torch.randn(6, 3)
    (mask(ego, torch.tensor([4, 1])) * weight).sum().backward()
    torch.testing.assert_close(mask.token.grad[0], weight[4] + weight[1])
    for row in range(6):
        assert torch.equal(ego.grad[row], torch.zeros(3) if row in (1, 4) else weight[row])


def test_mask_keeps_its_row_numbers_out_of_the_checkpoint() -> None:
    assert list(NodeMask(3, torch.arange(6), 0.5, seed=0).state_dict()) == ["token"]
