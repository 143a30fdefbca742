"""Vectors that are kept until they stand in a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from recbole_rlmrec.encoder.vector_cache import RAW, Form, VectorCache, text_key

ONE, TWO = np.array([1, 2], dtype=np.float32), np.array([3, 4], dtype=np.float32)
HALF = Form(normalized=True, dtype="float16")


def found(cache: VectorCache, text: str, *forms: Form) -> list[float] | None:
    one = cache.find(text, forms or [RAW])
    return None if one is None else one[1].tolist()


def test_vectors_are_found_by_text_in_the_first_form_that_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    VectorCache(path).add({"one": ONE})
    VectorCache(path).add({"two": TWO, "one": TWO})  # the first one stays
    cache = VectorCache(path)
    cache.add_rows([([text_key("two", HALF), text_key("three", HALF)], np.stack([ONE, TWO]))], 2)
    assert [found(cache, text) for text in ("one", "two", "three")] == [[1, 2], [3, 4], None]
    assert cache.find("three", [RAW, HALF])[0] == HALF  # type: ignore[index]
    assert (found(cache, "three", RAW, HALF), found(cache, "two", RAW, HALF)) == ([3, 4], [3, 4])
    cache.add({"one": np.ones(3, dtype=np.float32)})  # another model: the others are of no use
    assert found(VectorCache(path), "two") is None and found(VectorCache(path), "one") == [1, 1, 1]
    cache.clear()
    assert not path.exists() and found(cache, "one") is None


def test_what_was_torn_or_changed_is_not_found(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    VectorCache(path).add({"one": ONE, "two": TWO})
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    cache = VectorCache(path)
    assert (found(cache, "one"), found(cache, "two")) == ([1, 2], None)
    cache.add({"two": TWO})  # in the place of what was torn
    assert path.read_bytes() == whole
    path.write_bytes(whole[:-1] + b"\x7f")
    assert (found(VectorCache(path), "one"), found(VectorCache(path), "two")) == ([1, 2], None)


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    (mine := tmp_path / "mine").write_text("mine")
    (tmp_path / "cache").symlink_to(mine)
    with pytest.raises(OSError, match="is a link"):
        VectorCache(tmp_path / "cache").add({"one": ONE})
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"no vectors", b"rlmvecs1" + b"\xff" * 8, b"rlmvecs1" + bytes(8)])
def test_a_file_of_another_kind_counts_as_empty(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache"
    path.write_bytes(content)
    assert found(VectorCache(path), "one") is None
    assert "cannot be read" in caplog.text
    VectorCache(path).add({"one": ONE})
    assert found(VectorCache(path), "one") == [1, 2]
