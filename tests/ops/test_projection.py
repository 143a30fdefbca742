"""Rows of a table through a perceptron in blocks, against the perceptron of all rows."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from recbole_rlmrec.ops import projection
from recbole_rlmrec.ops.projection import are_many, project_rows

SLOPE = 0.01


@pytest.mark.parametrize("block_values", [1, 12, 10_000])
@pytest.mark.parametrize("n_rows", [0, 1, 7, 23])
def test_values_and_gradients_are_those_of_all_rows_at_once(
    n_rows: int, block_values: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the width of a row is more than a block holds."""
    monkeypatch.setattr(projection, "_BLOCK_VALUES", block_values)
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    rows = torch.randint(9, (n_rows,), generator=generator)
    shapes = [(5, 4), (5,), (3, 5), (3,)]
    weights = [torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes]
    first_weight, first_bias, last_weight, last_bias = weights
    expected = F.leaky_relu(table[rows] @ first_weight.T + first_bias, SLOPE) @ last_weight.T + last_bias
    found = project_rows(table, rows, *weights, SLOPE)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    factor = torch.randn(n_rows, 3, dtype=torch.float64, generator=generator)
    wanted = torch.autograd.grad((expected * factor).sum(), weights)
    gradients = torch.autograd.grad((found * factor).sum(), weights)
    for one, other in zip(gradients, wanted):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


def test_few_rows_are_projected_at_once() -> None:
    """Those of the embedded dataset, so that its results stay what they are to the last digit."""
    assert not are_many(943 + 1682, 384)
    assert are_many(5_000, 1_536)
