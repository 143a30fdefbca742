"""Semantic embeddings held in memory and read from disk: the same rows, the same losses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built

from recbole_rlmrec.data.semantic_embedding import JoinedEmbedding, SemanticEmbedding
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.layers import SemanticTable


def sides(folder: Path, memory_map: bool) -> tuple[list[JoinedEmbedding], np.ndarray]:
    """Return two joined sides with holes and rows in another order than ids, and the stacked table they stand for."""
    rng = np.random.default_rng(0)
    joined, expected = [], []
    for side, n in (("user", 9), ("item", 6)):
        vectors = rng.normal(size=(n, 5)).astype(np.float16)
        tokens = rng.permutation([f"{side}{row}" for row in range(n)])
        SemanticEmbedding.from_arrays(tokens, vectors).save(folder, "tiny", side)
        ids = ["[PAD]", *(f"{side}{row}" for row in range(n + 2))]
        joined.append(SemanticEmbedding.load([folder], "tiny", side, memory_map=memory_map).join(ids))
        at = {token: row for row, token in enumerate(tokens)}
        expected += [vectors[at[id]] if id in at else np.zeros(5) for id in ids]
    return joined, np.stack(expected).astype(np.float32)


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("unit_length", [False, True])
def test_rows_are_the_ids_asked_for(tmp_path: Path, memory_map: bool, in_memory: bool, unit_length: bool) -> None:
    joined, expected = sides(tmp_path, memory_map)
    table = SemanticTable(joined, in_memory=in_memory, unit_length=unit_length)
    if unit_length:
        expected /= np.maximum(np.linalg.norm(expected, axis=1, keepdims=True), 1e-12)
    ids = torch.tensor([20, 3, 3, 0, 12, 11, 1, 19])
    np.testing.assert_allclose(table(ids).numpy(), expected[ids], rtol=1e-6)
    np.testing.assert_allclose(table.block(1, 12).numpy(), expected[1:12], rtol=1e-6)
    assert table.has_holes and table.covered.tolist() == (np.abs(expected).sum(axis=1) > 0).tolist()
    assert len(table(torch.empty(0, dtype=torch.int64))) == 0
    assert list(table.state_dict()) == []


def test_a_mapped_table_is_not_read_into_memory(tmp_path: Path) -> None:
    joined, _ = sides(tmp_path, memory_map=True)
    assert isinstance(joined[0].embedding.vectors, np.memmap)
    assert SemanticTable(joined, in_memory=False).vectors is None


def test_a_table_in_memory_exists_once(tmp_path: Path) -> None:
    """Loading, checking, joining and filling take the table's own size, and blocks."""
    width, rows = 512, 16_000
    script = """
import sys
from pathlib import Path
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.model.layers import SemanticTable

def memory(field):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").open() if line.startswith(field)) / 1024

def table(name):
    ids = ["[PAD]", *map(str, range(int(sys.argv[1])))]
    sides = [SemanticEmbedding.load([Path(".")], name, side, memory_map=True).join(ids) for side in ("user", "item")]
    return SemanticTable(sides)

table("narrow")
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
kept = table("wide")
print(memory("VmHWM") - before)
"""
    for name, each in (("narrow", 1), ("wide", width)):
        for side in ("user", "item"):
            vectors = np.ones((rows, each), np.float32)
            SemanticEmbedding.from_arrays(list(map(str, range(rows))), vectors).save(tmp_path, name, side)
    command = [sys.executable, "-c", script, str(rows)]
    grown = float(subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout)
    size = 2 * rows * width * 4 / 2**20
    assert size < grown < size + 24


def test_a_file_cut_short_meanwhile_is_an_error(tmp_path: Path) -> None:
    joined, expected = sides(tmp_path, memory_map=True)
    table = SemanticTable(joined, in_memory=False)
    np.testing.assert_array_equal(table(torch.arange(20)).numpy(), expected[:20])
    path = tmp_path / "tiny.useremb.npy"
    os.truncate(path, path.stat().st_size - 3)
    with pytest.raises(DataError, match=r"tiny.useremb.npy ends before row 8, which it had .* restore it"):
        table(torch.arange(20))


def test_rows_are_cast_under_autocast_only(tmp_path: Path) -> None:
    joined, _ = sides(tmp_path, memory_map=False)
    table = SemanticTable(joined, dtype=torch.bfloat16)
    assert table.vectors.dtype == torch.bfloat16
    assert table(torch.tensor([1])).dtype == table.block(1, 2).dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert table(torch.tensor([1])).dtype == table.block(1, 2).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("name", "settings"),
    [("LightGCN_RLMRecCon", {"alignment_negatives": "batch"}), ("LightGCN_RLMRecGen", {"mask_ratio": 0.5})],
)
def test_losses_do_not_depend_on_the_storage(world: World, name: str, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    batch = batch_of(*(rng.integers(1, n, 50) for n in (41, 31, 31)))
    losses = []
    for storage in ("memory", "memory_map"):
        model, _ = built(world, name, semantic_storage=storage, **settings)
        torch.manual_seed(0)
        losses.append(torch.stack(model.calculate_loss(batch)))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)


def test_all_users_as_negatives_cannot_be_read_from_disk(world: World) -> None:
    with pytest.raises(SettingError, match=r"memory_map with alignment_negatives=all would read.*Set .* to batch"):
        world.model("LightGCN_RLMRecCon", semantic_storage="memory_map", alignment_negatives="all")


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("is_removed", [False, True])
def test_a_file_replaced_meanwhile_is_read_as_it_was(tmp_path: Path, is_removed: bool, in_memory: bool) -> None:
    """A new file is of the next run: it may have the rows of other ids. Also where a table is filled again."""
    joined, expected = sides(tmp_path, memory_map=True)
    hashes = [side.sha256() for side in joined]
    path = tmp_path / "tiny.useremb.npy"
    np.save(tmp_path / "new.npy", np.load(path)[::-1])
    os.replace(tmp_path / "new.npy", path)
    if is_removed:
        path.unlink()
    table = SemanticTable(joined, in_memory=in_memory)
    np.testing.assert_array_equal(table(torch.arange(20)).numpy(), expected[:20])
    assert [side.sha256() for side in joined] == hashes


@pytest.mark.parametrize("cut", [0, 40])
def test_a_file_written_to_meanwhile_is_an_error(tmp_path: Path, cut: int) -> None:
    """And no crash, though a map of it ends before its rows."""
    joined, _ = sides(tmp_path, memory_map=True)
    path = tmp_path / "tiny.useremb.npy"
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.write(content[::-1])
        file.truncate(len(content) - cut)
    os.utime(path, ns=(0, 10**18))
    for read in (lambda: SemanticTable(joined), lambda: joined[0].take(np.array([1]))):
        with pytest.raises(DataError, match=r"tiny.useremb.npy was written to since it was loaded"):
            read()
