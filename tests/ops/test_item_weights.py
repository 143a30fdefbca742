"""Closed forms against the conditions of their optima, and against inverses of whole matrices."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.ops import item_weights
from recbole_rlmrec.ops.item_weights import (
    Columns,
    EaseColumns,
    MixedColumns,
    PulledColumns,
    TextColumns,
    gram_of,
    in_blocks,
    inverted,
)

N_USERS, N_ITEMS, WIDTH = 60, 23, 7


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_weights, "COLUMNS_AT_ONCE", 5)  # does not divide the number of items


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray]:
    """Interactions and texts; the first item has neither, the last no text."""
    rng = np.random.default_rng(3)
    interactions = (rng.random((N_USERS, N_ITEMS)) < 0.3).astype(float)
    texts = rng.normal(size=(N_ITEMS, WIDTH))
    interactions[:, 0] = texts[0] = texts[-1] = 0
    return interactions, texts


def whole(columns: Columns) -> np.ndarray:
    return columns(slice(0, N_ITEMS))


def slow_ease(gram: np.ndarray, penalty: float) -> np.ndarray:
    """As L3AE's first step has it: -P_ij / P_jj."""
    inverse = np.linalg.inv(gram + penalty * np.eye(N_ITEMS))
    found = np.zeros((N_ITEMS, N_ITEMS))
    for i in range(N_ITEMS):
        for j in range(N_ITEMS):
            found[i, j] = 0 if i == j else -inverse[i, j] / inverse[j, j]
    return found


def of_interactions(interactions: np.ndarray, penalty: float, texts: np.ndarray | None = None) -> np.ndarray:
    return inverted(gram_of(scipy.sparse.csr_matrix(interactions), penalty, texts), f"penalty={penalty}")


def test_an_inverse_is_written_over_its_matrix(data: tuple[np.ndarray, np.ndarray]) -> None:
    gram = gram_of(scipy.sparse.csr_matrix(data[0]), 4.0, data[1])
    expected = data[0].T @ data[0] + data[1] @ data[1].T + 4 * np.eye(N_ITEMS)
    np.testing.assert_allclose(gram, expected, rtol=1e-12)
    inverse = inverted(gram, "penalty=4")
    assert np.shares_memory(inverse, gram)
    np.testing.assert_allclose(inverse @ expected, np.eye(N_ITEMS), atol=1e-10)


def test_ease_of_interactions_of_texts_and_of_both(data: tuple[np.ndarray, np.ndarray]) -> None:
    x, f = data
    ease = whole(EaseColumns(of_interactions(x, 4.0)))
    np.testing.assert_allclose(ease, slow_ease(x.T @ x, 4.0), atol=1e-12)
    both = whole(EaseColumns(of_interactions(x, 4.0, 3 * f)))
    np.testing.assert_allclose(both, slow_ease(x.T @ x + 9 * f @ f.T, 4.0), atol=1e-12)
    texts = whole(TextColumns(f, 0.2, ""))
    np.testing.assert_allclose(texts, slow_ease(f @ f.T, 0.2), atol=1e-11)
    assert not texts[[0, -1]].any() and not texts[:, [0, -1]].any() and texts[1:-1, 1:-1].any()
    mixed = whole(MixedColumns(EaseColumns(of_interactions(x, 4.0)), TextColumns(f, 0.2, ""), 0.3))
    np.testing.assert_allclose(mixed, 0.7 * ease + 0.3 * texts, atol=1e-12)


@pytest.mark.parametrize("of_weights", [2.0, -1.0])
def test_l3ae_is_the_optimum(data: tuple[np.ndarray, np.ndarray], of_weights: float) -> None:
    """The gradient of the Lagrangian is zero: that of the objective is so off the diagonal, where W is free."""
    x, f = data
    pull = 5.0
    target = TextColumns(f, 0.2, "")
    found = whole(PulledColumns(of_interactions(x, of_weights + pull), target, pull))
    gradient = 2 * (x.T @ (x @ found - x) + of_weights * found + pull * (found - whole(target)))
    multipliers = gradient.diagonal()
    np.testing.assert_allclose(gradient - np.diag(multipliers), 0, atol=1e-6)
    assert not found.diagonal().any() and np.abs(multipliers).max() > 1


def test_without_a_pull_l3ae_is_ease(data: tuple[np.ndarray, np.ndarray]) -> None:
    inverse = of_interactions(data[0], 4.0)
    pulled = PulledColumns(inverse, TextColumns(data[1], 0.2, ""), 0.0)
    np.testing.assert_allclose(whole(pulled), whole(EaseColumns(inverse)), atol=1e-12)


def test_blocks_are_the_whole(data: tuple[np.ndarray, np.ndarray]) -> None:
    columns = PulledColumns(of_interactions(data[0], 4.0), TextColumns(data[1], 0.2, ""), 3.0)
    np.testing.assert_allclose(in_blocks(columns, N_ITEMS), whole(columns), rtol=1e-5)


def test_a_singular_matrix_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^total_penalty=1e-30: the matrix of the items is singular.*larger"):
        inverted(np.ones((4, 4)), "total_penalty=1e-30")
