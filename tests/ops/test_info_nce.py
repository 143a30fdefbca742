"""InfoNCE against its plain formula, one anchor at a time in float64."""

from __future__ import annotations

import math
from typing import Optional

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_rlmrec.ops.info_nce import info_nce


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def plain_info_nce(anchor: Tensor, positive: Tensor, candidate: Tensor, temperature: float) -> float:
    """Mean of -log(exp(cos / t) / sum exp(cos / t)), every term written out."""
    rows = [table.detach().double().numpy() for table in (anchor, positive, candidate)]
    losses = []
    for a, p in zip(rows[0], rows[1]):
        denominator = sum(np.exp(np.float64(cosine(a, c)) / temperature) for c in rows[2])
        losses.append(-np.log(np.exp(np.float64(cosine(a, p)) / temperature) / denominator))
    return float(np.mean(losses))


def tables(n_anchors: int = 6, n_candidates: int = 9, d: int = 5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = (n_anchors, n_anchors, n_candidates)
    anchor, positive, candidate = (
        torch.randn(n, d, generator=generator, dtype=torch.float64).requires_grad_() for n in sizes
    )
    return anchor, positive, candidate


def assert_same_loss_and_gradients(first: Tensor, second: Tensor, *inputs: Tensor) -> None:
    torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(first, inputs), torch.autograd.grad(second, inputs)):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0, 5.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_is_the_plain_formula(seed: int, temperature: float) -> None:
    anchor, positive, candidate = tables(seed=seed)
    expected = plain_info_nce(anchor, positive, candidate, temperature)
    assert info_nce(anchor, positive, candidate, temperature).item() == pytest.approx(expected, rel=1e-12)
    single = info_nce(anchor.float(), positive.float(), candidate.float(), temperature)
    assert single.dtype == torch.float32
    assert single.item() == pytest.approx(expected, rel=1e-5)


def test_closed_form_of_orthogonal_rows() -> None:
    rows = torch.eye(7, dtype=torch.float64) * torch.arange(1, 8)[:, None]  # lengths do not matter to a cosine
    expected = math.log(math.exp(1 / 0.3) + 6) - 1 / 0.3
    assert info_nce(rows, rows, rows, 0.3).item() == pytest.approx(expected, rel=1e-12)


def test_only_candidate_is_the_positive() -> None:
    anchor, positive, _ = tables(n_anchors=1)
    assert info_nce(anchor, positive, positive, 0.2).item() == pytest.approx(0, abs=1e-12)


def test_order_of_anchors_and_candidates_does_not_matter() -> None:
    anchor, positive, candidate = tables()
    a, c = torch.randperm(6), torch.randperm(9)
    expected = info_nce(anchor, positive, candidate, 0.2)
    assert_same_loss_and_gradients(
        info_nce(anchor[a], positive[a], candidate[c], 0.2), expected, anchor, positive, candidate
    )


def test_weight_k_is_a_row_repeated_k_times() -> None:
    anchor, positive, candidate = tables()
    anchor_times, candidate_times = torch.tensor([1, 3, 0, 2, 1, 5]), torch.tensor([2, 0, 1, 1, 4, 0, 1, 1, 3])
    rows, columns = (
        torch.repeat_interleave(torch.arange(len(times)), times) for times in (anchor_times, candidate_times)
    )
    weighted = info_nce(anchor, positive, candidate, 0.2, anchor_times.double(), candidate_times.double())
    repeated = info_nce(anchor[rows], positive[rows], candidate[columns], 0.2)
    assert_same_loss_and_gradients(weighted, repeated, anchor, positive, candidate)
    expected = plain_info_nce(anchor[rows], positive[rows], candidate[columns], 0.2)
    assert weighted.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("side", ["anchor", "candidate", "both"])
def test_weight_zero_is_a_row_removed(side: str) -> None:
    anchor, positive, candidate = tables()
    keep_anchor = torch.tensor([0, 1, 3, 4]) if side != "candidate" else torch.arange(6)
    keep_candidate = torch.tensor([1, 2, 5, 6, 8]) if side != "anchor" else torch.arange(9)
    anchor_weight: Optional[Tensor] = torch.zeros(6, dtype=torch.float64).index_fill(0, keep_anchor, 1)
    candidate_weight: Optional[Tensor] = torch.zeros(9, dtype=torch.float64).index_fill(0, keep_candidate, 1)
    if side == "anchor":
        candidate_weight = None
    elif side == "candidate":
        anchor_weight = None
    weighted = info_nce(anchor, positive, candidate, 0.2, anchor_weight, candidate_weight)
    removed = info_nce(anchor[keep_anchor], positive[keep_anchor], candidate[keep_candidate], 0.2)
    assert_same_loss_and_gradients(weighted, removed, anchor, positive, candidate)


def test_weights_of_one_change_nothing() -> None:
    anchor, positive, candidate = tables()
    ones = [torch.ones(n, dtype=torch.float64) for n in (6, 9)]
    plain = info_nce(anchor, positive, candidate, 0.2)
    assert_same_loss_and_gradients(
        info_nce(anchor, positive, candidate, 0.2, *ones), plain, anchor, positive, candidate
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_gradcheck(weighted: bool) -> None:
    weights = [torch.tensor([1.0, 2, 0, 3]).double(), torch.tensor([0.0, 1, 2, 1, 5]).double()] if weighted else []
    assert torch.autograd.gradcheck(lambda a, p, c: info_nce(a, p, c, 0.5, *weights), tables(4, 5, 3))


def test_stable_where_the_plain_formula_overflows() -> None:
    temperature = 0.001
    anchor, positive, candidate = tables()
    candidate = torch.cat([candidate.detach(), anchor.detach()]).requires_grad_()  # cosines up to 1, exp(1000) = inf
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        assert not math.isfinite(plain_info_nce(anchor, positive, candidate, temperature))
    expected = []
    for a, p in zip(anchor.detach().numpy(), positive.detach().numpy()):
        logits = [cosine(a, c) / temperature for c in candidate.detach().numpy()]
        expected.append(np.logaddexp.reduce(logits) - cosine(a, p) / temperature)
    loss = info_nce(anchor.float(), positive.float(), candidate.float(), temperature)
    assert loss.item() == pytest.approx(np.mean(expected), rel=1e-5)
    for gradient in torch.autograd.grad(loss, (anchor, positive, candidate)):
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("with_candidates", [True, False])
def test_without_any_anchor_the_loss_and_its_gradients_are_zero(with_candidates: bool) -> None:
    anchor, positive, candidate = tables()
    candidate_weight = torch.full((9,), float(with_candidates), dtype=torch.float64)
    loss = info_nce(anchor, positive, candidate, 0.2, torch.zeros(6, dtype=torch.float64), candidate_weight)
    assert loss.item() == 0
    for gradient in torch.autograd.grad(loss, (anchor, positive, candidate)):
        assert torch.equal(gradient, torch.zeros_like(gradient))


def test_without_any_candidate_the_loss_and_its_gradients_are_finite() -> None:
    anchor, positive, candidate = tables()
    loss = info_nce(anchor, positive, candidate, 0.2, candidate_weight=torch.zeros(9, dtype=torch.float64))
    assert torch.isfinite(loss)
    for gradient in torch.autograd.grad(loss, (anchor, positive, candidate)):
        assert torch.isfinite(gradient).all()


def test_zero_rows_have_cosine_zero() -> None:
    rows = torch.zeros(1, 4, dtype=torch.float64)
    candidate = torch.eye(4, dtype=torch.float64)
    assert info_nce(rows, candidate[:1], candidate, 0.2).item() == pytest.approx(math.log(4), rel=1e-12)
