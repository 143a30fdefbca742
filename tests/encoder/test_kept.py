"""Vectors that are kept of a block that failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbole_rlmrec.encoder.kept import KeptVectors

ONE, TWO = np.array([1, 2], dtype=np.float32), np.array([3, 4], dtype=np.float32)


def test_vectors_are_found_by_text_and_encoder(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    KeptVectors(path, "m").add({"one": ONE})
    KeptVectors(path, "m").add({"two": TWO})
    kept = KeptVectors(path, "m")
    np.testing.assert_array_equal(kept.find("one"), ONE)
    np.testing.assert_array_equal(kept.find("two"), TWO)
    assert kept.find("three") is None
    assert KeptVectors(path, "other").find("one") is None
    kept.add({"one": np.ones(3, dtype=np.float32)})  # another model: the others are of no use
    assert KeptVectors(path, "m").find("two") is None
    kept.clear()
    assert not path.exists() and kept.find("one") is None


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04"])
def test_a_damaged_file_counts_as_empty(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "kept.npz"
    path.write_bytes(content)
    assert KeptVectors(path, "m").find("one") is None
    assert "cannot be read" in caplog.text


def test_pickled_objects_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "kept.npz"
    np.savez(path, keys=np.array([{}], dtype=object), vectors=np.array([[1]]))
    assert KeptVectors(path, "m").find("one") is None
