"""The normalised adjacency and its product against dense matrices filled in by loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from recbole_rlmrec.ops.graph import Adjacency, normalized_adjacency, similarity_product, sum_of_layers

SEEDS = [0, 1, 2, 3]
N_USERS, N_ITEMS = 9, 7


def random_edges(seed: int, n_edges: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Edges with duplicates; row 0 of both sides, the last user and the last item have none."""
    rng = np.random.default_rng(seed)
    users, items = rng.integers(1, N_USERS - 1, n_edges), rng.integers(1, N_ITEMS - 1, n_edges)
    return np.append(users, users[:5]), np.append(items, items[:5])


def dense_normalized(
    users: np.ndarray, items: np.ndarray, count_duplicates: bool, self_loops: bool = False
) -> np.ndarray:
    n = N_USERS + N_ITEMS
    matrix = np.zeros((n, n))
    if self_loops:
        for node in set(range(n)) - {0, N_USERS}:
            matrix[node, node] = 1
    for user, item in zip(users, items):
        weight = matrix[user, N_USERS + item] + 1 if count_duplicates else 1
        matrix[user, N_USERS + item] = matrix[N_USERS + item, user] = weight
    normalized = np.zeros((n, n))
    for row in range(n):
        for column in range(n):
            if matrix[row, column]:
                normalized[row, column] = matrix[row, column] / np.sqrt(matrix[row].sum() * matrix[column].sum())
    return normalized


def filled_in(adjacency: Adjacency, value: torch.Tensor) -> np.ndarray:
    """Return the CSR pattern with these values as a dense matrix, entry by entry."""
    n = adjacency.n_nodes
    start, column = adjacency.row_start.tolist(), adjacency.column.tolist()
    matrix = np.zeros((n, n))
    for row in range(n):
        for entry in range(start[row], start[row + 1]):
            assert matrix[row, column[entry]] == 0, "two entries in one place"
            matrix[row, column[entry]] = value[entry].item()
    return matrix


@pytest.fixture
def large() -> Adjacency:
    rng = np.random.default_rng(5)
    return normalized_adjacency(rng.integers(0, 400, 8000), rng.integers(0, 300, 8000), 400, 300)


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("count_duplicates", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_normalized_adjacency_is_the_dense_one(seed: int, count_duplicates: bool, self_loops: bool) -> None:
    users, items = random_edges(seed)
    adjacency = normalized_adjacency(
        users, items, N_USERS, N_ITEMS, count_duplicates=count_duplicates, self_loops=self_loops
    )
    expected = dense_normalized(users, items, count_duplicates, self_loops)
    np.testing.assert_allclose(filled_in(adjacency, adjacency.value), expected, rtol=1e-6)
    np.testing.assert_allclose(adjacency.to_dense().numpy(), expected, rtol=1e-6)
    assert adjacency.value.numel() == (expected > 0).sum()
    assert adjacency.n_nodes == N_USERS + N_ITEMS


@pytest.mark.parametrize("seed", SEEDS)
def test_counting_duplicates_matters_only_where_there_are_some(seed: int) -> None:
    users, items = random_edges(seed)
    counted, once = (
        normalized_adjacency(users, items, N_USERS, N_ITEMS, count_duplicates=count) for count in (True, False)
    )
    assert not torch.allclose(counted.value, once.value)
    key = np.unique(users * N_ITEMS + items)
    counted, once = (
        normalized_adjacency(*np.divmod(key, N_ITEMS), N_USERS, N_ITEMS, count_duplicates=count)
        for count in (True, False)
    )
    assert torch.equal(counted.value, once.value)


@pytest.mark.parametrize("count_duplicates", [False, True])
def test_order_of_the_interactions_does_not_matter(count_duplicates: bool) -> None:
    users, items = random_edges(0)
    order = np.random.default_rng(9).permutation(len(users))
    first = normalized_adjacency(users, items, N_USERS, N_ITEMS, count_duplicates=count_duplicates)
    second = normalized_adjacency(users[order], items[order], N_USERS, N_ITEMS, count_duplicates=count_duplicates)
    for name in ("row_start", "column", "value", "mirror"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name


def test_nodes_without_an_edge_propagate_to_zero() -> None:
    users, items = random_edges(1)
    adjacency = normalized_adjacency(users, items, N_USERS, N_ITEMS)
    x = torch.randn(N_USERS + N_ITEMS, 4, requires_grad=True)
    product = adjacency.matmul(x)
    product.square().sum().backward()
    alone = [0, N_USERS - 1, N_USERS, N_USERS + N_ITEMS - 1]  # [PAD] and the last of both sides
    assert torch.isfinite(adjacency.value).all() and torch.isfinite(product).all()
    assert (product[alone] == 0).all()
    assert (x.grad[alone] == 0).all()


def test_graph_without_any_edge_is_zero() -> None:
    none = np.array([], dtype=np.int64)
    adjacency = normalized_adjacency(none, none, 3, 2)
    x = torch.randn(5, 4, requires_grad=True)
    product = adjacency.matmul(x)
    product.sum().backward()
    assert torch.equal(product.detach(), torch.zeros(5, 4))
    assert torch.equal(x.grad, torch.zeros(5, 4))


def test_dtypes_and_flags() -> None:
    adjacency = normalized_adjacency(*random_edges(0), N_USERS, N_ITEMS)
    assert adjacency.row_start.dtype == torch.int32
    assert adjacency.column.dtype == torch.int32
    assert adjacency.value.dtype == torch.float32
    assert adjacency.mirror.dtype == torch.int32
    assert adjacency.symmetric
    assert not adjacency.drop_edges(0.5).symmetric


def test_node_numbers_whose_product_exceeds_int32() -> None:
    users, items = np.array([49_999, 7], dtype=np.int32), np.array([99_999, 0], dtype=np.int32)
    adjacency = normalized_adjacency(users, items, 50_000, 100_000)
    assert adjacency.column.tolist() == [50_000, 149_999, 7, 49_999]
    assert adjacency.row_start.dtype == torch.int32
    assert adjacency.value.tolist() == [1.0] * 4


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_mirror_gives_the_values_of_the_transpose(seed: int, self_loops: bool) -> None:
    adjacency = normalized_adjacency(*random_edges(seed), N_USERS, N_ITEMS, self_loops=self_loops)
    assert adjacency.mirror.dtype == adjacency.column.dtype == adjacency.row_start.dtype == torch.int32
    mirror = adjacency.mirror
    value = torch.rand(mirror.numel(), generator=torch.Generator().manual_seed(seed))
    np.testing.assert_array_equal(filled_in(adjacency, value[mirror]), filled_in(adjacency, value).T)
    assert torch.equal(mirror[mirror], torch.arange(mirror.numel()))
    assert torch.equal(adjacency.value[mirror], adjacency.value)


@pytest.mark.parametrize("keep_rate", [1.0, 0.6])
@pytest.mark.parametrize("seed", SEEDS)
def test_product_and_gradient_are_the_dense_ones(seed: int, keep_rate: float) -> None:
    torch.manual_seed(seed)
    adjacency = normalized_adjacency(*random_edges(seed), N_USERS, N_ITEMS, count_duplicates=True).drop_edges(keep_rate)
    dense = torch.from_numpy(filled_in(adjacency, adjacency.value))
    assert torch.equal(dense, dense.T) == (keep_rate == 1.0)
    x = torch.randn(N_USERS + N_ITEMS, 5, requires_grad=True)
    weight = torch.randn(N_USERS + N_ITEMS, 5)
    product = adjacency.matmul(x)
    (product * weight).sum().backward()

    dense_x = x.detach().double().requires_grad_()
    dense_product = dense @ dense_x
    (dense_product * weight).sum().backward()
    torch.testing.assert_close(product.double(), dense_product, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(x.grad.double(), dense_x.grad, rtol=1e-5, atol=1e-6)


def test_gradcheck_of_the_dropped_graph() -> None:
    torch.manual_seed(0)
    dropped = normalized_adjacency(*random_edges(2), N_USERS, N_ITEMS).drop_edges(0.6)
    dropped = replace(dropped, value=dropped.value.double())
    x = torch.randn(N_USERS + N_ITEMS, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dropped.matmul, (x,))


def test_columns_of_a_transposed_operand() -> None:
    adjacency = normalized_adjacency(*random_edges(0), N_USERS, N_ITEMS)
    x = torch.randn(3, N_USERS + N_ITEMS).T  # not contiguous
    torch.testing.assert_close(adjacency.matmul(x), adjacency.matmul(x.contiguous()), rtol=0, atol=0)


def test_keeping_every_edge_returns_itself_and_draws_nothing(large: Adjacency) -> None:
    before = torch.random.get_rng_state()
    assert large.drop_edges(1.0) is large
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("keep_rate", [0.2, 0.5, 0.8])
def test_kept_share_and_independent_directions(large: Adjacency, keep_rate: float) -> None:
    torch.manual_seed(0)
    kept = large.drop_edges(keep_rate).value != 0
    n = kept.numel()
    n_edges = n // 2
    assert abs(kept.sum().item() - n * keep_rate) <= 4 * np.sqrt(n * keep_rate * (1 - keep_rate))
    forth, back = kept[:n_edges], kept[large.mirror[:n_edges]]
    for wanted_forth in (True, False):
        for wanted_back in (True, False):
            share = (keep_rate if wanted_forth else 1 - keep_rate) * (keep_rate if wanted_back else 1 - keep_rate)
            found = ((forth == wanted_forth) & (back == wanted_back)).sum().item()
            assert abs(found - n_edges * share) <= 4 * np.sqrt(n_edges * share * (1 - share))


def test_survivors_keep_their_weight_and_the_graph_is_left_alone(large: Adjacency) -> None:
    value = large.value.clone()
    torch.manual_seed(0)
    first, second = large.drop_edges(0.7), large.drop_edges(0.7)
    for dropped in (first, second):
        kept = dropped.value != 0
        assert torch.equal(dropped.value[kept], value[kept])
    assert not torch.equal(first.value, second.value)
    assert torch.equal(large.value, value) and large.symmetric


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("keep_rate", [1.0, 0.6])
def test_autocast_leaves_the_product_in_full_precision(keep_rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    adjacency = normalized_adjacency(*random_edges(0), N_USERS, N_ITEMS).drop_edges(keep_rate)
    dense = torch.from_numpy(filled_in(adjacency, adjacency.value))
    x = torch.randn(N_USERS + N_ITEMS, 8).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        product = adjacency.matmul(x)
        cast = product @ torch.eye(8)
    assert product.dtype == torch.float32
    assert cast.dtype == torch.bfloat16, "autocast was not on"
    torch.testing.assert_close(product.double(), dense @ x.detach().double(), rtol=1e-5, atol=1e-6)
    cast.sum().backward()
    assert x.grad.dtype == dtype
    expected = dense.T @ torch.ones(N_USERS + N_ITEMS, 8, dtype=torch.float64)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    torch.testing.assert_close(x.grad.double(), expected, rtol=tolerance, atol=tolerance)


# ---------------------------------------------------------------------- the sum of the layers


def layered(
    x: torch.Tensor, dense: list[torch.Tensor], include_first: bool, addends: list[torch.Tensor]
) -> torch.Tensor:
    """Sum the layers one by one, as the definition has it."""
    layers = [x]
    for number, matrix in enumerate(dense):
        layers.append(matrix @ layers[-1] + addends[number])
    return torch.stack(layers if include_first else layers[1:]).sum(dim=0)


@pytest.mark.parametrize("include_first", [True, False])
@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("one_graph", [True, False])
@pytest.mark.parametrize("noisy", [True, False])
def test_sum_of_layers_and_its_gradient(include_first: bool, n_layers: int, one_graph: bool, noisy: bool) -> None:
    torch.manual_seed(n_layers)
    whole = normalized_adjacency(*random_edges(1), N_USERS, N_ITEMS)
    whole = replace(whole, value=whole.value.double())
    graphs = [whole.drop_edges(0.6)] * n_layers if one_graph else [whole.drop_edges(0.6) for _ in range(n_layers)]
    dense = [torch.from_numpy(filled_in(graph, graph.value)) for graph in graphs]
    x = torch.randn(whole.n_nodes, 4, dtype=torch.float64, requires_grad=True)
    addends = [torch.randn(whole.n_nodes, 4, dtype=torch.float64) * noisy for _ in graphs]
    queue = iter(addends)
    total = sum_of_layers(x, graphs, include_first=include_first, addend=(lambda layer: next(queue)) if noisy else None)
    expected = layered(x, dense, include_first, addends)
    torch.testing.assert_close(total, expected, rtol=1e-12, atol=1e-12)
    weight = torch.randn_like(total)
    ours, theirs = (torch.autograd.grad((each * weight).sum(), x)[0] for each in (total, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_sum_of_layers_gives_the_addend_each_propagated_layer() -> None:
    whole = normalized_adjacency(*random_edges(0), N_USERS, N_ITEMS)
    dense = torch.from_numpy(filled_in(whole, whole.value)).float()
    x, seen = torch.randn(whole.n_nodes, 3), []

    def addend(layer: torch.Tensor) -> torch.Tensor:
        seen.append(layer.clone())
        return torch.ones_like(layer)

    sum_of_layers(x, [whole, whole], addend=addend)
    torch.testing.assert_close(seen[0], dense @ x)
    torch.testing.assert_close(seen[1], dense @ (dense @ x + 1))


def test_sum_of_layers_leaves_its_input_alone_and_keeps_no_layer() -> None:
    whole = normalized_adjacency(*random_edges(0), N_USERS, N_ITEMS)
    x = torch.randn(whole.n_nodes, 3, requires_grad=True)
    before = x.detach().clone()
    total = sum_of_layers(x, [whole] * 3)
    assert torch.equal(x.detach(), before)
    assert total.grad_fn.saved_tensors == ()
    total.sum().backward()
    assert torch.equal(x.detach(), before) and x.grad is not None


def test_sum_of_layers_under_autocast_is_that_without() -> None:
    whole = normalized_adjacency(*random_edges(0), N_USERS, N_ITEMS)
    x = torch.randn(whole.n_nodes, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = sum_of_layers(x, [whole] * 2)
    assert torch.equal(cast, sum_of_layers(x, [whole] * 2))


def test_an_isolated_node_stays_finite_and_alone() -> None:
    whole = normalized_adjacency(*random_edges(0), N_USERS, N_ITEMS)
    x = torch.full((whole.n_nodes, 2), torch.inf)
    x[1:-1] = 1
    total = sum_of_layers(x, [whole] * 3)
    assert torch.isfinite(total[1 : N_USERS - 1]).all()


def unit_and_rows(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    unit, x = (torch.randn(N_USERS + N_ITEMS, width, generator=generator, dtype=dtype) for width in (4, 3))
    return torch.nn.functional.normalize(unit, dim=1).requires_grad_(), x.requires_grad_()


@pytest.mark.parametrize("seed", SEEDS)
def test_similarity_product_is_a_weighted_mean_of_the_neighbours(seed: int) -> None:
    users, items = random_edges(seed)
    adjacency = normalized_adjacency(users, items, N_USERS, N_ITEMS)
    unit, x = unit_and_rows(torch.float32)
    edges = {*zip(users.tolist(), (items + N_USERS).tolist())}
    edges |= {(item, user) for user, item in edges}
    expected = np.zeros((N_USERS + N_ITEMS, 3))
    cosines, rows = unit.detach().double().numpy(), x.detach().double().numpy()
    for node in range(N_USERS + N_ITEMS):
        neighbours = [other for one, other in edges if one == node]
        weights = [(cosines[node] @ cosines[other] + 1) / 2 for other in neighbours]
        for weight, other in zip(weights, neighbours):
            expected[node] += weight / sum(weights) * rows[other]
    found = similarity_product(unit, x, adjacency)
    np.testing.assert_allclose(found.detach().numpy(), expected, rtol=1e-5, atol=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(similarity_product(unit, x, adjacency), found)


def test_gradcheck_of_the_similarity_product() -> None:
    adjacency = normalized_adjacency(*random_edges(2), N_USERS, N_ITEMS)
    adjacency = replace(adjacency, value=adjacency.value.double())
    inputs = unit_and_rows()
    assert torch.autograd.gradcheck(lambda unit, x: similarity_product(unit, x, adjacency), inputs)


def test_similarity_product_ignores_the_values_and_is_finite_for_opposite_neighbours() -> None:
    adjacency = normalized_adjacency(np.array([1]), np.array([1]), N_USERS, N_ITEMS)
    unit, x = unit_and_rows()
    with torch.no_grad():
        unit[N_USERS + 1] = -unit[1]  # cosine -1, weight 0: no weights to divide by
    adjacency = replace(adjacency, value=adjacency.value.double() * 7)
    found = similarity_product(unit, x, adjacency)
    found.sum().backward()
    assert torch.isfinite(found).all() and torch.isfinite(unit.grad).all() and torch.isfinite(x.grad).all()
