"""The first k of each row are those of a full sort, equal scores in the order of their columns."""

from __future__ import annotations

import pytest
import torch

from recbole_rlmrec.ops import topk
from recbole_rlmrec.ops.topk import first_k, merged


def scores(n_columns: int, *, is_rounded: bool) -> torch.Tensor:
    """Random scores, a part of them left out; rounded ones are equal all over."""
    generator = torch.Generator().manual_seed(n_columns)
    drawn = torch.randn(60, n_columns, generator=generator)
    drawn = drawn.round() if is_rounded else drawn
    drawn[torch.rand(60, n_columns, generator=generator) < 0.4] = -torch.inf
    drawn[0] = 1.0
    drawn[1] = -torch.inf
    return drawn


def sorted_fully(table: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    values, columns = table.sort(dim=1, descending=True, stable=True)
    return values[:, :k], columns[:, :k]


def assert_same(found: tuple[torch.Tensor, torch.Tensor], expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    is_listed = expected[0] > -torch.inf
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1][is_listed], expected[1][is_listed])


@pytest.mark.parametrize("is_rounded", [False, True])
@pytest.mark.parametrize("group", [2, 64])
@pytest.mark.parametrize(("n_columns", "k"), [(50, 3), (57, 7), (57, 50), (50, 90), (1, 1), (3, 2)])
def test_first_k_are_those_of_a_full_sort(
    n_columns: int, k: int, group: int, is_rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topk, "_GROUP", group)
    monkeypatch.setattr(topk, "_BLOCK", 200)  # four rows at a time are looked at again
    table = scores(n_columns, is_rounded=is_rounded)
    assert_same(first_k(table, k), sorted_fully(table, k))


@pytest.mark.parametrize("is_rounded", [False, True])
def test_parts_are_merged_to_the_whole(is_rounded: bool) -> None:
    table = scores(50, is_rounded=is_rounded)
    found = first_k(table[:, :20], 9)
    for first, last in ((20, 24), (24, 50)):
        values, columns = first_k(table[:, first:last], 9)
        found = merged(found, (values, columns + first), 9)
    assert_same(found, sorted_fully(table, 9))
