"""InfoNCE against its plain formula, one anchor at a time in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_rlmrec.ops import blockwise
from recbole_rlmrec.ops import info_nce as module
from recbole_rlmrec.ops.blockwise import log_sum_exp
from recbole_rlmrec.ops.info_nce import info_nce, reconstruction_loss, sampled_info_nce


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
    anchor_weight: Tensor | None = torch.zeros(6, dtype=torch.float64).index_fill(0, keep_anchor, 1)
    candidate_weight: Tensor | None = torch.zeros(9, dtype=torch.float64).index_fill(0, keep_candidate, 1)
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


# ---------------------------------------------------------------------- blocks


def dense_info_nce(
    anchor: Tensor,
    positive: Tensor,
    candidate: Tensor,
    temperature: float,
    anchor_weight: Tensor,
    candidate_weight: Tensor,
) -> Tensor:
    """The formula on the whole matrix, with autograd's own gradients."""
    anchor, positive, candidate = (torch.nn.functional.normalize(x, dim=1) for x in (anchor, positive, candidate))
    log_sum = torch.logsumexp(anchor @ candidate.T / temperature + candidate_weight.log(), dim=1)
    losses = log_sum - (anchor * positive).sum(dim=1) / temperature
    return (anchor_weight * losses).sum() / anchor_weight.sum()


def set_blocks(monkeypatch: pytest.MonkeyPatch, block_scores: int, tile_scores: int) -> None:
    monkeypatch.setitem(blockwise._BLOCK_SCORES, "cpu", block_scores)
    monkeypatch.setattr(blockwise, "_TILE_SCORES", tile_scores)


# In one block, in blocks of rows, in blocks of rows and columns; the first two also with blocks of rows in tiles.
BLOCKS_AND_TILES = [(2**20, 2**20), (2**20, 64), (64 * 300, 2**20), (64 * 300, 64), (2**12, 64)]


# Each with bounded and with unbounded exponents.
@pytest.mark.parametrize(("block_scores", "tile_scores"), BLOCKS_AND_TILES)
@pytest.mark.parametrize("temperature", [0.2, 0.004])
@pytest.mark.parametrize("weighted", [True, False])
def test_blocks_change_nothing(
    monkeypatch: pytest.MonkeyPatch, block_scores: int, tile_scores: int, temperature: float, weighted: bool
) -> None:
    set_blocks(monkeypatch, block_scores, tile_scores)
    inputs = tables(n_anchors=200, n_candidates=300, d=6)
    anchor_weight = torch.randint(0, 4, (200,)).double() if weighted else torch.ones(200, dtype=torch.float64)
    candidate_weight = torch.randint(0, 3, (300,)).double() if weighted else torch.ones(300, dtype=torch.float64)
    weights = (anchor_weight, candidate_weight) if weighted else ()
    ours = info_nce(*inputs, temperature, *weights)
    theirs = dense_info_nce(*inputs, temperature, anchor_weight, candidate_weight)
    assert_same_loss_and_gradients(ours, theirs, *inputs)


@pytest.mark.parametrize("block_scores", [2**20, 2**12])
@pytest.mark.parametrize("temperature", [0.3, 0.01])
def test_gradcheck_with_weights(monkeypatch: pytest.MonkeyPatch, block_scores: int, temperature: float) -> None:
    monkeypatch.setitem(blockwise._BLOCK_SCORES, "cpu", block_scores)
    inputs = tables(n_anchors=4, n_candidates=70, d=3)
    weights = torch.tensor([2.0, 0.0, 1.0, 3.0]).double(), torch.randint(0, 3, (70,)).double()
    assert torch.autograd.gradcheck(lambda *each: info_nce(*each, temperature, *weights), inputs)


def test_only_the_gradients_asked_for() -> None:
    anchor, positive, candidate = tables()
    loss = info_nce(anchor, positive.detach(), candidate.detach(), 0.2)
    expected = torch.autograd.grad(info_nce(anchor, positive, candidate, 0.2), anchor)[0]
    assert torch.equal(torch.autograd.grad(loss, anchor)[0], expected)
    with torch.no_grad():
        assert info_nce(anchor, positive, candidate, 0.2).item() == pytest.approx(loss.item(), rel=1e-12)


@pytest.mark.parametrize("block_scores", [2**20, 2**12])
def test_a_near_column_of_no_weight_does_not_drown_the_others(
    monkeypatch: pytest.MonkeyPatch, block_scores: int
) -> None:
    monkeypatch.setitem(blockwise._BLOCK_SCORES, "cpu", block_scores)
    anchor = torch.tensor([[1.0, 0.0]])
    candidate = torch.cat([anchor, torch.tensor([[0.0, 1.0]]).expand(99, 2)])
    weight = torch.ones(100)
    weight[0] = 0
    loss = info_nce(anchor, anchor, candidate, 0.002, candidate_weight=weight)
    assert loss.item() == pytest.approx(math.log(99) - 500, rel=1e-6)


def test_memory_stays_far_below_the_matrix() -> None:
    anchor, positive, candidate = (torch.randn(n, 8, requires_grad=True) for n in (4096, 4096, 20_000))
    with torch.profiler.profile(profile_memory=True) as profile:
        info_nce(anchor, positive, candidate, 0.2).backward()
    # All that was ever allocated: three tables, their gradients, and the buffer of a block.
    allocated = sum(max(event.self_cpu_memory_usage, 0) for event in profile.events())
    assert 0 < allocated < 4096 * 20_000 * 4 / 10


def test_shares_of_the_anchors_add_up() -> None:
    anchor, positive, candidate = tables()
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 3.0, 1.0]).double()
    whole = info_nce(anchor, positive, candidate, 0.2, weight)
    parts = [
        info_nce(anchor[rows], positive[rows], candidate, 0.2, weight[rows], total_weight=weight.sum())
        for rows in (slice(0, 2), slice(2, 6), slice(6, 6))
    ]
    assert_same_loss_and_gradients(parts[0] + parts[1] + parts[2], whole, anchor, positive, candidate)


@pytest.mark.parametrize("block_scores", [2**20, 2**12])
@pytest.mark.parametrize("temperature", [0.2, 0.01])
def test_bfloat16_products_are_near(monkeypatch: pytest.MonkeyPatch, block_scores: int, temperature: float) -> None:
    monkeypatch.setitem(blockwise._BLOCK_SCORES, "cpu", block_scores)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(n, 32, generator=generator).requires_grad_() for n in (300, 300, 500)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = info_nce(*inputs, temperature)
    exact = info_nce(*inputs, temperature)
    assert cast.dtype == torch.float32 and cast.item() != exact.item()
    assert cast.item() == pytest.approx(exact.item(), rel=5e-3)
    for ours, theirs in zip(*(torch.autograd.grad(loss, inputs) for loss in (cast, exact))):
        assert ((ours - theirs).norm() / theirs.norm()).item() < (0.02 if temperature == 0.2 else 0.2)


@pytest.mark.parametrize("block_scores", [2**20, 2**12])
@pytest.mark.parametrize("temperature", [0.2, 0.02])
def test_bfloat16_products_with_weights(monkeypatch: pytest.MonkeyPatch, block_scores: int, temperature: float) -> None:
    """The first columns have no weight, as ids without an embedding have none: a whole block of them comes first."""
    monkeypatch.setitem(blockwise._BLOCK_SCORES, "cpu", block_scores)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(n, 32, generator=generator).requires_grad_() for n in (100, 100, 500)]
    anchor_weight = torch.randint(0, 4, (100,), generator=generator).float()
    candidate_weight = torch.randint(0, 3, (500,), generator=generator).float()
    candidate_weight[:70] = 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = info_nce(*inputs, temperature, anchor_weight, candidate_weight)
    exact = info_nce(*inputs, temperature, anchor_weight, candidate_weight)
    assert cast.item() == pytest.approx(exact.item(), rel=5e-3)
    for ours, theirs in zip(*(torch.autograd.grad(loss, inputs) for loss in (cast, exact))):
        assert ((ours - theirs).norm() / theirs.norm()).item() < (0.02 if temperature == 0.2 else 0.1)


def test_half_precision_rows_are_normalised_in_full() -> None:
    inputs = [table.detach().bfloat16() for table in tables()]
    assert info_nce(*inputs, 0.2).item() == pytest.approx(info_nce(*(x.float() for x in inputs), 0.2).item(), rel=1e-6)


def test_log_sum_exp_without_a_bound() -> None:
    rows, columns = torch.randn(5, 3).double() * 300, torch.randn(7, 3).double() * 3
    weight = torch.tensor([1.0, 2.0, 0.0, 1.0, 1.0]).double()
    expected = (weight * torch.logsumexp(rows @ columns.T, dim=1)).sum()
    assert log_sum_exp(rows, columns, weight).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_lengths_of_the_rows_bound_their_products(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short rows need no maximum, long ones do; either way it is the plain sum, also in float32."""
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(n, 8, generator=generator) * scale for n in (9, 40))
    safe, is_safe = [], blockwise.is_safe
    monkeypatch.setattr(blockwise, "is_safe", lambda *each: safe.append(is_safe(*each)) or safe[-1])
    rows.requires_grad_()
    found = log_sum_exp(rows, columns, torch.ones(9))
    expected = torch.logsumexp(rows.double() @ columns.double().T, dim=1).sum()
    assert safe == [scale == 1.0]
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    ours, theirs = (torch.autograd.grad(loss, rows)[0] for loss in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_log_sum_exp_of_no_row_is_zero() -> None:
    assert log_sum_exp(torch.zeros(0, 3), torch.randn(5, 3), torch.ones(0)).item() == 0


# ---------------------------------------------------------------------- reconstruction


def reconstruction_inputs(n: int = 40, n_targets: int = 50, h: int = 5, d: int = 9) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    sizes = ((n, h), (d, h), (d,), (n_targets, d))
    hidden, weight, bias, target = (torch.randn(size, generator=generator, dtype=torch.float64) for size in sizes)
    return [*(x.requires_grad_() for x in (hidden, weight, bias)), torch.nn.functional.normalize(target, dim=1)]


# A row's positive may stand in any of the tiles and of the blocks of columns.
@pytest.mark.parametrize(("block_scores", "tile_scores"), BLOCKS_AND_TILES)
@pytest.mark.parametrize("first", [0, 7, 140])
@pytest.mark.parametrize(("temperature", "d"), [(0.5, 9), (0.01, 9), (0.5, 3)])  # targets wider or narrower than h
def test_reconstruction_is_info_nce_of_the_rebuilt_rows(
    monkeypatch: pytest.MonkeyPatch, temperature: float, d: int, first: int, block_scores: int, tile_scores: int
) -> None:
    hidden, weight, bias, target = reconstruction_inputs(n=160, n_targets=300, d=d)
    theirs = info_nce(hidden @ weight.T + bias, target[first : first + 160], target, temperature)
    set_blocks(monkeypatch, block_scores, tile_scores)
    ours = reconstruction_loss(hidden, weight, bias, target, temperature, first)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for first, second in zip(*(torch.autograd.grad(loss, (hidden, weight, bias)) for loss in (ours, theirs))):
        torch.testing.assert_close(first, second, rtol=1e-7, atol=1e-10)


def test_reconstruction_gradcheck() -> None:
    hidden, weight, bias, target = reconstruction_inputs(n=4, n_targets=5, h=3, d=4)
    assert torch.autograd.gradcheck(
        lambda *each: reconstruction_loss(*each, target, 0.3, first=1), (hidden, weight, bias)
    )


def test_reconstruction_of_nothing_is_finite() -> None:
    _, weight, _, target = reconstruction_inputs()
    bias = torch.zeros(9, dtype=torch.float64)
    loss = reconstruction_loss(torch.zeros(40, 5).double(), weight, bias, target, 0.5)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(50), rel=1e-9) and torch.isfinite(weight.grad).all()


@pytest.mark.parametrize("d", [9, 3])
def test_shares_of_the_reconstruction_add_up(d: int) -> None:
    hidden, weight, bias, target = reconstruction_inputs(d=d)
    whole = reconstruction_loss(hidden, weight, bias, target, 0.5)
    parts = [
        reconstruction_loss(hidden[rows], weight, bias, target, 0.5, first=rows.start, total=40)
        for rows in (slice(0, 13), slice(13, 40))
    ]
    assert (parts[0] + parts[1]).item() == pytest.approx(whole.item(), rel=1e-12)


def test_bfloat16_products_have_one_shape_for_many_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is generated for each shape of a product, which takes longer than the product."""
    shapes = set()
    product = torch.mm
    monkeypatch.setattr(torch, "mm", lambda x, y, **out: shapes.add((x.shape, y.shape)) or product(x, y, **out))
    generator = torch.Generator().manual_seed(0)
    for n_anchors, n_candidates in ((70, 140), (71, 150), (128, 192)):
        anchor = torch.randn(n_anchors, 16, generator=generator, requires_grad=True)
        candidate = torch.randn(n_candidates, 16, generator=generator, requires_grad=True)
        expected = info_nce(anchor, candidate[:n_anchors], candidate, 0.5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = info_nce(anchor, candidate[:n_anchors], candidate, 0.5)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-2)
        gradients = [torch.autograd.grad(each, (anchor, candidate)) for each in (loss, expected)]
        for ours, exact in zip(*gradients):
            assert ours.shape == exact.shape
            assert (ours - exact).norm() < 0.02 * exact.norm()
    assert {(*x, *y) for x, y in shapes if x[1] == 32} == {(128, 32, 32, 192)}  # of the scores


@pytest.mark.parametrize(("block_scores", "d"), [(2**20, 160), (2**12, 160), (2**20, 40)])
def test_reconstruction_in_bfloat16_is_near(monkeypatch: pytest.MonkeyPatch, block_scores: int, d: int) -> None:
    monkeypatch.setitem(blockwise._BLOCK_SCORES, "cpu", block_scores)
    generator = torch.Generator().manual_seed(0)
    sizes = ((200, 96), (d, 96), (d,), (200, d))
    hidden, weight, bias, target = (torch.randn(size, generator=generator) for size in sizes)
    target = torch.nn.functional.normalize(target, dim=1)
    weight.requires_grad_()
    arguments = (hidden, weight, bias, target, 0.2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = reconstruction_loss(*arguments)
    exact = reconstruction_loss(*arguments)
    assert cast.item() == pytest.approx(exact.item(), rel=5e-3) and cast.item() != exact.item()
    ours, theirs = (torch.autograd.grad(loss, weight)[0] for loss in (cast, exact))
    assert ((ours - theirs).norm() / theirs.norm()).item() < 0.03


# ---------------------------------------------------------------------- candidates of each anchor's own


def sampled_inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Anchors, table, positives and negatives: one of these is a positive, one row has the same thrice."""
    torch.manual_seed(5)
    anchor, table = (torch.randn(n, 4, dtype=torch.float64).requires_grad_() for n in (11, 7))
    positive, negative = torch.randint(7, (11,)), torch.randint(7, (11, 5))
    negative[0, 2] = positive[0]
    negative[1, :3] = 4
    return anchor, table, positive, negative


@pytest.mark.parametrize("block_values", [2**19, 60, 1])
def test_sampled_is_the_plain_formula(block_values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._BLOCK_GATHERED, "cpu", block_values)
    anchor, table, positive, negative = sampled_inputs()
    total = torch.zeros((), dtype=torch.float64)
    for row, ids in enumerate(torch.cat([positive[:, None], negative], dim=1).tolist()):
        cosines = [torch.cosine_similarity(anchor[row], table[id], dim=0) for id in ids]
        total = total - torch.log((cosines[0] / 0.3).exp() / sum((each / 0.3).exp() for each in cosines))
    expected, found = total / 11, sampled_info_nce(anchor, table, positive, negative, 0.3)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(*(torch.autograd.grad(3 * loss, (anchor, table)) for loss in (found, expected))):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_shares_of_the_sampled_loss_add_up() -> None:
    anchor, table, *chosen = sampled_inputs()
    whole = sampled_info_nce(anchor, table, *chosen, 0.3)
    parts = [
        sampled_info_nce(anchor[rows], table, *(ids[rows] for ids in chosen), 0.3, total=11)
        for rows in (slice(0, 4), slice(4, 4), slice(4, 11))
    ]
    assert parts[1].item() == 0
    assert sum(parts).item() == pytest.approx(whole.item(), rel=1e-12)


def test_sampled_loss_is_taken_in_full_precision() -> None:
    anchor, table, *chosen = sampled_inputs()
    cast, full = (
        sampled_info_nce(anchor.to(dtype), table.to(dtype), *chosen, 0.05) for dtype in (torch.bfloat16, torch.float32)
    )
    assert cast.dtype == torch.float32 and cast.item() == pytest.approx(full.item(), rel=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sampled_info_nce(anchor.float(), table.float(), *chosen, 0.05), full)


@pytest.mark.parametrize("block_scores", [2**20, 2**12])
def test_scores_far_apart_give_no_denormal_numbers(monkeypatch: pytest.MonkeyPatch, block_scores: int) -> None:
    monkeypatch.setitem(blockwise._BLOCK_SCORES, "cpu", block_scores)
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.randn(n, 8, generator=generator, requires_grad=True) for n in (70, 300))
    exponentials: list[torch.Tensor] = []
    exp = torch.Tensor.exp_
    monkeypatch.setattr(torch.Tensor, "exp_", lambda x: exponentials.append(exp(x).clone()) or x)
    weight = torch.full((70,), 1 / 70)
    found = log_sum_exp(10 * rows, columns, weight)
    smallest = min(each[each > 0].min().item() for each in exponentials)
    assert smallest > 1e-27 and any((each == 0).any() for each in exponentials)
    exact = (weight.double() * torch.logsumexp(10 * rows.double() @ columns.double().T, dim=1)).sum()
    assert found.item() == pytest.approx(exact.item(), rel=1e-6)
    for ours, theirs in zip(*(torch.autograd.grad(loss, (rows, columns)) for loss in (found, exact))):
        assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
