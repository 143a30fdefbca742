"""The basis that semantic embeddings are reduced to: what it keeps, its file, and what is said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.data import semantic_basis as module
from recbole_rlmrec.data.semantic_basis import semantic_basis
from recbole_rlmrec.data.semantic_embedding import JoinedEmbedding, SemanticEmbedding
from recbole_rlmrec.errors import SettingError

N_USERS, N_ITEMS, WIDTH, RANK = 30, 20, 12, 5


def sides(seed: int = 0, noise: float = 0.0) -> tuple[list[JoinedEmbedding], np.ndarray]:
    """Return both sides, whose rows have rank 5 without noise, with an id that has no row, and the covered rows."""
    rng = np.random.default_rng(seed)
    space = rng.normal(size=(RANK, WIDTH)) * np.geomspace(8, 1, RANK)[:, None]
    joined, rows = [], []
    for n in (N_USERS, N_ITEMS):
        vectors = (rng.normal(size=(n, RANK)) @ space + noise * rng.normal(size=(n, WIDTH))).astype(np.float32)
        tokens = list(map(str, range(n)))
        joined.append(SemanticEmbedding.from_arrays(tokens, vectors).join(["[PAD]", *tokens[1:], "nobody"]))
        rows.append(vectors[1:])
    return joined, np.concatenate(rows)


@pytest.mark.parametrize("dimension", [1, 3, RANK, WIDTH])
def test_no_other_basis_keeps_more_of_the_covered_rows(tmp_path: Path, dimension: int) -> None:
    joined, rows = sides(noise=0.3)
    basis = semantic_basis(joined, dimension, tmp_path, "tiny")
    assert basis.vectors.dtype == np.float32 and basis.vectors.shape == (WIDTH, dimension)
    np.testing.assert_allclose(basis.vectors.T @ basis.vectors, np.eye(dimension), atol=1e-6)
    singular = np.linalg.svd(rows.astype(np.float64), compute_uv=False)
    most = (singular[:dimension] ** 2).sum()
    assert ((rows @ basis.vectors) ** 2).sum() == pytest.approx(most, rel=1e-5)
    assert basis.energy == pytest.approx(most / (singular**2).sum(), rel=1e-9)


def test_at_the_rank_products_of_rows_are_kept(tmp_path: Path) -> None:
    joined, rows = sides()
    reduced = rows @ semantic_basis(joined, RANK, tmp_path, "tiny").vectors
    np.testing.assert_allclose(reduced @ reduced.T, rows @ rows.T, rtol=1e-4, atol=1e-3)


def test_auto_is_the_least_that_keeps_its_share(tmp_path: Path) -> None:
    joined, rows = sides(noise=0.3)
    basis = semantic_basis(joined, "auto", tmp_path, "tiny")
    squares = np.linalg.svd(rows.astype(np.float64), compute_uv=False) ** 2
    least = next(n for n in range(1, WIDTH + 1) if squares[:n].sum() >= 0.99 * squares.sum())
    assert 1 < basis.dimension == least < WIDTH


def test_a_direction_does_not_depend_on_what_the_machine_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    joined, _ = sides(noise=0.3)
    expected = semantic_basis(joined, 4, tmp_path / "one", "tiny").vectors
    found = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda products: (found(products)[0], -found(products)[1]))
    np.testing.assert_array_equal(semantic_basis(joined, 4, tmp_path / "two", "tiny").vectors, expected)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bases computed so far, one entry each."""
    calls: list[int] = []
    compute = module.principal_directions
    monkeypatch.setattr(module, "principal_directions", lambda sides: calls.append(1) or compute(sides))
    return calls


def test_it_is_computed_once_for_the_same_rows(tmp_path: Path, computed: list[int]) -> None:
    joined, _ = sides(noise=0.3)
    first = semantic_basis(joined, 4, tmp_path, "tiny")
    again = semantic_basis(joined, 4, tmp_path, "tiny")
    assert len(computed) == 1
    assert again.record() == first.record()
    np.testing.assert_array_equal(again.vectors, first.vectors)
    semantic_basis(joined, 3, tmp_path, "tiny")
    assert len(computed) == 2
    assert {path.name for path in tmp_path.iterdir()} == {".tiny.basis-3", ".tiny.basis-4"}


def _other_rows(path: Path) -> None:
    semantic_basis(sides(seed=1)[0], 4, path.parent, "tiny")


def _one_bit(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def _other_format(path: Path) -> None:
    line, _, values = path.read_bytes().partition(b"\n")
    header = json.loads(line)
    header["origin"]["format"] += 1
    path.write_bytes(json.dumps(header).encode() + b"\n" + values)


@pytest.mark.parametrize(
    "change",
    [
        _other_rows,
        _one_bit,
        _cut,
        _other_format,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"[" * 9000),
        lambda path: path.write_bytes(b'{"dimension": -1}\n'),
        lambda path: (path.unlink(), path.mkdir()),
    ],
)
def test_another_or_a_damaged_file_is_not_believed(tmp_path: Path, computed: list[int], change: Any) -> None:
    joined, _ = sides(noise=0.3)
    first = semantic_basis(joined, 4, tmp_path, "tiny")
    change(tmp_path / ".tiny.basis-4")
    computed.clear()
    assert semantic_basis(joined, 4, tmp_path, "tiny").record() == first.record()
    assert len(computed) == 1


def test_without_room_for_the_file_it_is_said(
    tmp_path: Path, computed: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    joined, _ = sides(noise=0.3)
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.INFO):
        basis = semantic_basis(joined, 4, tmp_path / "file", "tiny")
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert ".tiny.basis-4' (" in warning and "each run computes it again" in warning
    assert f"from 12 to 4 dimensions (semantic_dimension=4), which keep {basis.energy:.2%}" in caplog.text


def test_more_dimensions_than_there_are_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"semantic_dimension=13: .* have 12 values.* from 1 to 12, or auto\.$"):
        semantic_basis(sides()[0], WIDTH + 1, tmp_path, "tiny")
