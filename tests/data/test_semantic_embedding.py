"""The token-keyed table of semantic embeddings: files, checks, join by token, messages."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_rlmrec.data import semantic_embedding
from recbole_rlmrec.data.embedding_files import metadata_path, read_metadata, read_tokens, read_vectors
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding, check_metadata, check_same_dimension
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.sides import SIDES


def table(tokens, vectors=None, side="user", dtype=np.float32):
    """A table in memory; row ``i`` is ``[i + 1, -(i + 1)]`` unless vectors are given."""
    if vectors is None:
        vectors = np.arange(1, len(tokens) + 1)[:, None] * np.array([1, -1])
    return SemanticEmbedding(np.array(list(tokens), dtype=np.str_), np.array(vectors, dtype=dtype), "the table", side)


def with_pad(ids):
    return np.array(["[PAD]", *ids])


def write_pair(folder, vectors, tokens, stem="ml.useremb"):
    np.save(folder / f"{stem}.npy", vectors)
    (folder / f"{stem}.tokens").write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")


def load_error(*args, **kwargs):
    with pytest.raises(DataError) as caught:
        SemanticEmbedding.load(*args, **kwargs)
    return str(caught.value)


def join_error(embedding, ids):
    with pytest.raises(DataError) as caught:
        embedding.join(with_pad(ids))
    return str(caught.value)


def messages(caplog, level):
    return [record.getMessage() for record in caplog.records if record.levelno == level]


# ---------------------------------------------------------------------- files


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("memory_map", [False, True])
def test_round_trip(tmp_path, dtype, side, memory_map):
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(dtype)
    tokens = ["10", "é", "a b", "007", "x\u2028y"]
    table(tokens, vectors, side, dtype).save(tmp_path / "new", "ml", side)

    loaded = SemanticEmbedding.load([tmp_path / "new"], "ml", side, memory_map=memory_map)

    assert loaded.tokens.tolist() == tokens
    assert loaded.vectors.dtype == dtype
    assert isinstance(loaded.vectors, np.memmap) is memory_map
    np.testing.assert_array_equal(loaded.vectors, vectors)
    assert loaded.side == side
    assert loaded.source == str(tmp_path / "new" / f"ml.{side}emb.npy")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [f"ml.{side}emb.npy", f"ml.{side}emb.tokens"]


def test_save_is_deterministic(tmp_path):
    for folder in ("a", "b"):
        table(["x", "y"]).save(tmp_path / folder, "ml", "user")
    for name in ("ml.useremb.npy", "ml.useremb.tokens"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert (tmp_path / "a" / "ml.useremb.tokens").read_bytes() == b"x\ny\n"


def test_a_memory_map_can_be_saved_over_its_own_file(tmp_path):
    table(["x", "y"]).save(tmp_path, "ml", "user")
    mapped = SemanticEmbedding.load([tmp_path], "ml", "user", memory_map=True)
    mapped.save(tmp_path, "ml", "user")
    np.testing.assert_array_equal(SemanticEmbedding.load([tmp_path], "ml", "user").vectors, [[1, -1], [2, -2]])


def test_a_malformed_table_is_not_written_over_a_good_one(tmp_path):
    table(["x", "y"]).save(tmp_path, "ml", "user")
    with pytest.raises(DataError, match="line break"):
        table(["x", "y\nz"]).save(tmp_path, "ml", "user")
    assert SemanticEmbedding.load([tmp_path], "ml", "user").tokens.tolist() == ["x", "y"]


@pytest.mark.parametrize(
    "content",
    [b"a\r\nb\r\nc\r\n", b"a\nb\nc", b"a\r\nb\nc\r\n", b"\xef\xbb\xbfa\nb\nc\n"],
    ids=["CRLF", "no last line break", "mixed", "byte order mark"],
)
def test_tokens_files_of_other_systems(tmp_path, content):
    np.save(tmp_path / "ml.useremb.npy", np.ones((3, 2), dtype=np.float32))
    (tmp_path / "ml.useremb.tokens").write_bytes(content)
    assert SemanticEmbedding.load([tmp_path], "ml", "user").tokens.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("dtype", ["float64", ">f4", ">f2"])
def test_other_floats_become_float32(tmp_path, dtype):
    write_pair(tmp_path, np.array([[0.1, 2.0]], dtype=dtype), ["a"])
    vectors = SemanticEmbedding.load([tmp_path], "ml", "user").vectors
    assert vectors.dtype == np.float32
    np.testing.assert_array_equal(vectors, np.array([[0.1, 2.0]], dtype=dtype).astype(np.float32))


def test_float64_is_no_memory_map_and_says_so(tmp_path, caplog):
    write_pair(tmp_path, np.ones((1, 2)), ["a"])
    loaded = SemanticEmbedding.load([tmp_path], "ml", "user", memory_map=True)
    assert not isinstance(loaded.vectors, np.memmap)
    (warning,) = messages(caplog, logging.WARNING)
    assert "ml.useremb.npy has dtype float64" in warning and "Save it as float16 or float32" in warning


def test_the_first_directory_with_the_files_wins(tmp_path):
    empty, first, second = (tmp_path / name for name in ("empty", "first", "second"))
    empty.mkdir()
    table(["a"], [[1, 1]]).save(first, "ml", "user")
    table(["a"], [[2, 2]]).save(second, "ml", "user")
    folders = [tmp_path / "absent", empty, first, second]
    assert SemanticEmbedding.load(folders, "ml", "user").vectors.tolist() == [[1, 1]]


def test_the_pair_goes_before_the_atomic_file(tmp_path):
    table(["a"], [[1, 1]]).save(tmp_path, "ml", "user")
    (tmp_path / "ml.useremb").write_text("uid:token\tuser_emb:float_seq\na\t2 2\n")
    assert SemanticEmbedding.load([tmp_path], "ml", "user").vectors.tolist() == [[1, 1]]


def test_side_must_be_known(tmp_path):
    with pytest.raises(ValueError, match="side is 'users', expected one of 'user', 'item'"):
        SemanticEmbedding.load([tmp_path], "ml", "users")


# ---------------------------------------------------------------------- damaged pairs


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-4]),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: path.write_bytes(b"1.0 2.0\n3.0 4.0\n"),
        lambda path: path.write_bytes(b"PK\x03\x04 and no archive"),
        lambda path: path.write_bytes(pickle.dumps(np.ones((3, 2)))),
        lambda path: np.save(path, np.array([[1, "a"]] * 3, dtype=object), allow_pickle=True),
    ],
    ids=["empty", "truncated", "header cut", "text", "broken zip", "pickle", "object array"],
)
def test_a_damaged_array_is_refused(tmp_path, damage, memory_map):
    write_pair(tmp_path, np.ones((3, 2), dtype=np.float32), "abc")
    damage(tmp_path / "ml.useremb.npy")
    message = load_error([tmp_path], "ml", "user", memory_map=memory_map)
    assert str(tmp_path / "ml.useremb.npy") in message
    assert "np.save(path, vectors)" in message


def test_an_archive_is_refused(tmp_path):
    write_pair(tmp_path, np.ones((3, 2)), "abc")
    with (tmp_path / "ml.useremb.npy").open("wb") as file:
        np.savez(file, vectors=np.ones((3, 2)))
    assert ".npz archive" in load_error([tmp_path], "ml", "user")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Python, which parses the damaged header
def test_random_damage_never_escapes_as_another_error(tmp_path):
    write_pair(tmp_path, np.ones((3, 2), dtype=np.float32), "abc")
    whole = (tmp_path / "ml.useremb.npy").read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for position in rng.integers(0, 80, size=rng.integers(1, 4)):  # magic, version and header
            damaged[position] = rng.integers(32, 127)
        (tmp_path / "ml.useremb.npy").write_bytes(damaged)
        try:
            SemanticEmbedding.load([tmp_path], "ml", "user")
        except DataError as error:
            assert "ml.useremb.npy" in str(error)


@pytest.mark.parametrize(
    ("vectors", "tokens", "expected"),
    [
        (np.ones((10, 2), np.float32), "abcdefghi", ["files hold 10 rows and 9 tokens", "Write both files again"]),
        (np.ones((2, 2), np.float32), ["a", "b", ""], ["2 rows and 3 tokens (1 of them empty", "blank lines"]),
        (np.ones((3, 2), np.float32), ["a", "", "c"], ["token of row 1 is empty"]),
        (np.ones((3, 2), np.float32), ["a", "b\rc", "d"], ["row 1, 'b\\rc', holds a line break"]),
        (np.ones((3, 2), np.float32), ["a", "b\tc", "d"], ["row 1, 'b\\tc', holds a tab"]),
        (np.ones((3, 2), np.float32), ["a", "b\x1bc", "d"], ["row 1, 'b\\x1bc', holds a control character"]),
        (np.ones((2, 2), np.float32), ["a", "b" * 1001], ["row 1, 'bbb", "is 1,001 characters long, of at most 1,000"]),
        (np.ones((2, 2), np.int64), "ab", ["dtype int64", "astype('float32')"]),
        (np.ones((2, 2), np.complex64), "ab", ["dtype complex64", "float16 or float32"]),
        (np.ones(2, np.float32), "ab", ["shape (2,)", "[n, D]"]),
        (np.ones((2, 2, 2), np.float32), "ab", ["shape (2, 2, 2)"]),
        (np.ones((0, 2), np.float32), "", ["shape (0, 2)", "at least 1"]),
        (np.ones((2, 0), np.float32), "ab", ["shape (2, 0)", "at least 1"]),
        (np.array([[1e300, 1.0]]), "a", ["row 0 (token 'a')", "too large for float32"]),
    ],
)
def test_a_malformed_pair_is_refused(tmp_path, vectors, tokens, expected):
    np.save(tmp_path / "ml.useremb.npy", vectors)
    (tmp_path / "ml.useremb.tokens").write_bytes("".join(f"{token}\n" for token in tokens).encode())
    message = load_error([tmp_path], "ml", "user")
    for part in [str(tmp_path / "ml.useremb.npy"), *expected]:
        assert part in message


def test_repeated_tokens_are_named_up_to_five(tmp_path):
    write_pair(tmp_path, np.ones((14, 2), np.float32), "abcdefgabcdefg")
    message = load_error([tmp_path], "ml", "user")
    assert "7 tokens on more than one row, e.g. 'a', 'b', 'c', 'd', 'e'." in message
    with pytest.raises(DataError, match=r"1 token on more than one row, e\.g\. 'a'"):
        table("aa").join(with_pad("ab"))


def test_tokens_that_are_not_utf8(tmp_path):
    write_pair(tmp_path, np.ones((1, 2), np.float32), "a")
    (tmp_path / "ml.useremb.tokens").write_bytes(b"\xff\xfe\n")
    message = load_error([tmp_path], "ml", "user")
    assert "ml.useremb.tokens is not UTF-8" in message


@pytest.mark.parametrize("memory_map", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_bad_value_in_the_last_block_is_found(tmp_path, monkeypatch, memory_map, value, dtype):
    monkeypatch.setattr(semantic_embedding, "BLOCK_BYTES", 4 * 3 * np.dtype(dtype).itemsize)  # 4 rows a block
    vectors = np.ones((10, 3), dtype)
    vectors[9, 1] = value
    write_pair(tmp_path, vectors, "abcdefghij")
    message = load_error([tmp_path], "ml", "user", memory_map=memory_map)
    assert "row 9 (token 'j')" in message and "1 such row in all" in message and "makes the id a hole" in message


def test_the_first_bad_row_is_named():
    vectors = np.ones((10, 3))
    vectors[[4, 7], [0, 2]] = np.nan
    with pytest.raises(DataError, match=r"row 4 \(token 'e'\).*2 such rows in all"):
        table("abcdefghij", vectors).check()


@pytest.mark.parametrize("rows_a_block", [1, 3, 10, 1000])
def test_block_size_changes_nothing(monkeypatch, rows_a_block):
    monkeypatch.setattr(semantic_embedding, "BLOCK_BYTES", rows_a_block * 8)
    vectors = np.random.default_rng(1).normal(size=(10, 2))
    ids = list("jihgfedcba")
    embedding = table("abcdefghij", vectors)
    np.testing.assert_array_equal(embedding.peaks, np.abs(vectors).max(axis=1).astype(np.float32))
    np.testing.assert_array_equal(embedding.join(with_pad(ids)).matrix()[1:], vectors[::-1].astype(np.float32))


# ---------------------------------------------------------------------- atomic files


def write_atomic(folder, text):
    (folder / "ml.useremb").write_bytes(text.encode())


@pytest.mark.parametrize("line_break", ["\n", "\r\n"])
def test_atomic_file(tmp_path, line_break):
    lines = ["uid:token\tuser_emb:float_seq", "7\t0.5 -1 2e3", '"a b"\t1  2 3 ', "", "x\t0.1 0 0"]
    write_atomic(tmp_path, line_break.join(lines))
    loaded = SemanticEmbedding.load([tmp_path], "ml", "user", memory_map=True)
    assert loaded.tokens.tolist() == ["7", '"a b"', "x"]  # the format has no quoting
    assert loaded.vectors.dtype == np.float32
    np.testing.assert_array_equal(loaded.vectors, np.float32([[0.5, -1, 2000], [1, 2, 3], [0.1, 0, 0]]))
    assert loaded.source == str(tmp_path / "ml.useremb")


def test_atomic_file_with_other_separators_and_columns(tmp_path):
    write_atomic(tmp_path, "emb:float_seq,age:float,uid:token\n1;2,30,a\n3;4,40,b\n")
    loaded = SemanticEmbedding.load([tmp_path], "ml", "user", field_separator=",", seq_separator=";")
    assert loaded.tokens.tolist() == ["a", "b"]
    assert loaded.vectors.tolist() == [[1, 2], [3, 4]]


HEADER = "uid:token\tuser_emb:float_seq\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (HEADER + "a\t1 2 3\nb\t1 2\n", ["line 3 (token 'b'): 2 values, expected 3"]),
        (HEADER + "a\t1 2\n\nb\t1 2 3\n", ["line 4 (token 'b'): 3 values, expected 2"]),
        (HEADER + "a\t1 2\nb\t\n", ["line 3 (token 'b'): the vector is empty", "a hole"]),
        (HEADER + "a\t1 2\nb\n", ["line 3: 1 column, expected 2", "'\\t'"]),
        (HEADER + "a\t1\t2\n", ["line 2: 3 columns, expected 2", "' '"]),
        (HEADER + "a\t1 2\nb\t1 two\n", ["line 3 (token 'b')", "'two'", "Expected numbers separated by ' '"]),
        (HEADER + "a\t1,2\n", ["line 2 (token 'a')", "'1,2'"]),
        (HEADER + "a\t1 2\nb\t1 nan\n", ["row 1 (token 'b')", "NaN"]),
        (HEADER + "a\t1 1e300\n", ["row 0 (token 'a')", "too large for float32"]),
        (HEADER + "a\t1 2\n\t1 2\n", ["token of row 1 is empty"]),
        (HEADER + "a\t1 2\na\t1 2\n", ["1 token on more than one row, e.g. 'a'"]),
        (HEADER, ["no rows"]),
        ("", ["header is ''", "'uid:token\\tuser_emb:float_seq'"]),
        ("a\t1 2\n", ["header is 'a\\t1 2'", "one token and one float_seq column"]),
        ("uid:token,user_emb:float_seq\na,1 2\n", ["separated by '\\t'"]),
        ("uid:token\tx:float_seq\ty:float_seq\na\t1\t2\n", ["one token and one float_seq column"]),
    ],
)
def test_a_malformed_atomic_file_is_refused(tmp_path, text, expected):
    write_atomic(tmp_path, text)
    message = load_error([tmp_path], "ml", "user")
    for part in [str(tmp_path / "ml.useremb"), *expected]:
        assert part in message


def test_an_atomic_file_that_is_not_utf8(tmp_path):
    (tmp_path / "ml.useremb").write_bytes(HEADER.encode() + b"\xff\t1 2\n")
    assert "ml.useremb is not UTF-8" in load_error([tmp_path], "ml", "user")


# ---------------------------------------------------------------------- missing files


def test_missing_files_say_what_was_looked_for_and_how_to_make_them(tmp_path):
    absent = tmp_path / "absent"
    message = load_error([tmp_path, absent], "ml", "item")
    for part in [
        "No item embeddings of dataset 'ml'",
        "looked for ml.itememb.npy with ml.itememb.tokens, or ml.itememb",
        f"  {tmp_path}\n",
        f"{absent} (no such folder)",
        "np.save as ml.itememb.npy",
        "recbole-rlmrec import-release",
    ]:
        assert part in message
    assert "found" not in message
    assert "none was given" in load_error([], "ml", "item")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["user_emb.npy", "useremb.npy"], "found user_emb.npy, useremb.npy: rename to ml-1m.useremb.npy"),
        (["usr-embedding.npy"], "found usr-embedding.npy: rename to ml-1m.useremb.npy"),
        (["useremb.txt"], "found useremb.txt: rename to ml-1m.useremb.tokens"),
        (["usr_emb_np.pkl"], "found usr_emb_np.pkl: pickles as in RLMRec's release"),
        (["ML-1M.useremb.npy"], "found ML-1M.useremb.npy: of another dataset than 'ml-1m'"),
        (["yelp.useremb"], "found yelp.useremb: of another dataset than 'ml-1m'"),
        ([f"user_emb{i}.npy" for i in range(7)], "user_emb4.npy and 2 more: rename"),
    ],
)
def test_near_misses_are_named(tmp_path, names, expected):
    for name in [*names, "ml-1m.inter", "ml-1m.itememb.npy", "itm_emb_np.pkl", ".user_emb.tmp.npy"]:
        (tmp_path / name).touch()
    message = load_error([tmp_path], "ml-1m", "user")
    assert expected in message
    assert message.count("found ") == 1


@pytest.mark.parametrize(
    ("present", "absent", "remedy"),
    [
        ("ml.useremb.npy", "ml.useremb.tokens", "Write the original id of every row to ml.useremb.tokens"),
        ("ml.useremb.tokens", "ml.useremb.npy", "Save them there with np.save"),
    ],
)
def test_half_a_pair_is_refused_though_another_folder_is_complete(tmp_path, present, absent, remedy):
    table("ab").save(tmp_path / "old", "ml", "user")
    (tmp_path / present).touch()
    (tmp_path / "user_emb.txt").touch()
    message = load_error([tmp_path, tmp_path / "old"], "ml", "user")
    assert f"{tmp_path} holds {present} but not {absent}" in message
    assert remedy in message
    assert "found user_emb.txt: rename to ml.useremb.tokens" in message


# ---------------------------------------------------------------------- join


@pytest.mark.parametrize("seed", range(20))
def test_join_against_a_slow_oracle(seed):
    rng = np.random.default_rng(seed)
    universe = np.array([f"id{i}" for i in range(200)])
    tokens = rng.choice(universe, size=rng.integers(50, 150), replace=False)
    ids = rng.choice(universe, size=rng.integers(50, 200), replace=False)
    vectors = rng.normal(size=(len(tokens), 4)).astype(np.float32)
    vectors[rng.random(len(tokens)) < 0.1] = 0

    joined = table(tokens, vectors).join(with_pad(ids))

    row_of = {token: row for row, token in enumerate(tokens.tolist())}
    expected, n_zero = [-1], 0
    for each in ids.tolist():
        row = row_of.get(each, -1)
        if row >= 0 and not vectors[row].any():
            row, n_zero = -1, n_zero + 1
        expected.append(row)
    matrix = np.array([vectors[row] if row >= 0 else np.zeros(4) for row in expected], dtype=np.float32)
    assert joined.rows.dtype == np.int64 and joined.covered.dtype == bool
    assert joined.rows.tolist() == expected
    assert joined.covered.tolist() == [row >= 0 for row in expected]
    assert joined.n_zero == n_zero
    assert joined.n_covered == sum(row >= 0 for row in expected)
    assert joined.coverage == joined.n_covered / len(ids)
    np.testing.assert_array_equal(joined.matrix(), matrix)


def test_row_order_does_not_matter():
    order = np.random.default_rng(0).permutation(50)
    tokens, vectors = np.arange(50).astype(str), np.random.default_rng(1).normal(size=(50, 3))
    ids = with_pad(np.random.default_rng(2).permutation(tokens)[:40])
    one, other = table(tokens, vectors).join(ids), table(tokens[order], vectors[order]).join(ids)
    np.testing.assert_array_equal(one.matrix(), other.matrix())


def test_pad_is_a_hole_even_if_a_row_is_named_so(caplog):
    joined = table(["a", "[PAD]", "b"]).join(with_pad("bax"))
    assert joined.rows.tolist() == [-1, 2, 0, -1]
    assert joined.matrix().tolist() == [[0, 0], [3, -3], [1, -1], [0, 0]]
    assert joined.coverage == 2 / 3
    assert not messages(caplog, logging.WARNING)  # the row is not one that stands for an unknown id


def test_ids_may_be_a_list_or_an_object_array():
    for ids in (["[PAD]", "b", "a"], np.array(["[PAD]", "b", "a"], dtype=object)):
        assert table("ab").join(ids).rows.tolist() == [-1, 1, 0]


@pytest.mark.parametrize("ids", [["a", "b"], ["[PAD]"], [], [["[PAD]", "a"]]])
def test_ids_must_be_recboles_array(ids):
    with pytest.raises(ValueError, match="field2id_token"):
        table("ab").join(ids)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_matrix_dtype(dtype):
    matrix = table("ab", dtype=np.float16).join(with_pad("bxa")).matrix(dtype)
    assert matrix.dtype == dtype
    assert matrix.tolist() == [[0, 0], [2, -2], [0, 0], [1, -1]]


def test_join_of_a_memory_map_leaves_it_on_disk(tmp_path):
    table("abc").save(tmp_path, "ml", "user")
    joined = SemanticEmbedding.load([tmp_path], "ml", "user", memory_map=True).join(with_pad("cxa"))
    assert isinstance(joined.embedding.vectors, np.memmap)
    assert joined.rows.tolist() == [-1, 2, -1, 0]
    matrix = joined.matrix()
    assert not isinstance(matrix, np.memmap)
    assert matrix.tolist() == [[0, 0], [3, -3], [0, 0], [1, -1]]


# ---------------------------------------------------------------------- what a join says


def test_partial_coverage_is_one_line(caplog):
    caplog.set_level(logging.INFO)
    holes = {"12", "77", *map(str, range(900, 941))}
    ids = [str(i) for i in range(1, 944)]
    table([each for each in ids if each not in holes]).join(with_pad(ids))
    assert messages(caplog, logging.INFO) == [
        "user embeddings: 900 of 943 users covered (95.4 %), 43 holes, e.g. '12', '77'"
    ]
    assert not messages(caplog, logging.WARNING)


def test_full_coverage_is_one_line_though_the_table_has_more_rows(caplog):
    caplog.set_level(logging.INFO)
    table("abcd", side="item").join(with_pad("ba"))
    assert [record.getMessage() for record in caplog.records] == ["item embeddings: 2 of 2 items covered (100.0 %)"]


def test_coverage_below_half_warns(caplog):
    table("ab").join(with_pad("abcde"))
    (warning,) = messages(caplog, logging.WARNING)
    assert "2 of 5 users covered (40.0 %), 3 holes, e.g. 'c', 'd'" in warning
    assert "Less than half" in warning and "the table" in warning


def test_leftovers_on_both_sides_are_said_with_examples(caplog):
    caplog.set_level(logging.INFO)
    table("abcx").join(with_pad("abcde"))
    assert messages(caplog, logging.WARNING) == []
    said = messages(caplog, logging.INFO)[-1]
    assert "1 row of the table without a user, e.g. 'x', and 2 users without a row, e.g. 'd', 'e'" in said


def test_unsold_items_and_missing_texts_are_no_shift(caplog):
    """A catalogue of 200, of which every seventh has no text and every ninth was not sold."""
    caplog.set_level(logging.INFO)
    rows, sold = ([str(number) for number in range(200) if number % step] for step in (7, 9))
    table(rows, side="item").join(with_pad(sold))
    assert messages(caplog, logging.WARNING) == []
    assert "19 rows of the table without an item" in messages(caplog, logging.INFO)[-1]


@pytest.mark.parametrize(("first", "shift"), [(0, "+1"), (2, "-1")])
def test_a_shift_that_would_match_everyone_is_named(caplog, first, shift):
    table(np.arange(first, first + 20).astype(str), side="item").join(with_pad(np.arange(1, 21).astype(str)))
    (warning,) = messages(caplog, logging.WARNING)
    assert "1 row of the table without an item" in warning and "1 item without a row" in warning
    assert f"with {shift} on every token" in warning


def test_all_zero_vectors_are_holes_and_reported(caplog):
    caplog.set_level(logging.INFO)
    joined = table("abcd", [[1, 0], [0, 0], [0, -1], [-0.0, 0]]).join(with_pad("abcd"))
    assert joined.covered.tolist() == [False, True, False, True, False]
    assert joined.n_zero == 2 and joined.n_covered == 2
    assert joined.matrix().tolist() == [[0, 0], [1, 0], [0, 0], [0, -1], [0, 0]]
    assert "2 of 4 users covered (50.0 %), 2 holes, e.g. 'b', 'd'" in messages(caplog, logging.INFO)[0]
    (warning,) = messages(caplog, logging.WARNING)
    assert "2 users with an all-zero vector in the table, e.g. 'b', 'd'" in warning and "holes" in warning


def test_zero_vectors_that_belong_to_nobody_are_not_reported(caplog):
    assert table("ab", [[1, 0], [0, 0]]).join(with_pad("a")).n_zero == 0
    assert not messages(caplog, logging.WARNING)


def test_only_zero_vectors(caplog):
    joined = table("ab", np.zeros((2, 2))).join(with_pad("abc"))
    assert joined.n_covered == 0 and not joined.matrix().any()
    (warning,) = messages(caplog, logging.WARNING)
    assert "every user's row in the table is zero" in warning and "goes without" in warning
    with pytest.raises(DataError, match=r"every user's row in the table is zero.*Encode the profiles again"):
        joined.require_covered()


def test_no_match_shows_both_sides():
    message = join_error(table(["p", "q", "r", "s"]), [f"B{i}" for i in range(943)])
    for part in ["0 of 943 users", "0 of 4 rows of the table", "'B0', 'B1', 'B2'\n", "'p', 'q', 'r'\n", "original ids"]:
        assert part in message
    assert "probable cause" not in message


@pytest.mark.parametrize(
    ("ids", "tokens", "cause"),
    [
        (["a1", "a2", "a3"], ["a1 ", " a2", "x"], "2 of 3 would match if white space or quotes"),
        (["a1", "a2"], ['"a1"', "'a2'"], "white space or quotes"),
        (["a1", "a2"], ["A1", "A2"], "2 of 2 would match if upper and lower case"),
        (["1", "12"], ["1.0", "12.0"], "written as floats"),
        (["1.0", "12.0"], ["1", "12"], "written as floats"),
        (["007", "012"], ["7", "12"], "leading zeros"),
        (["10", "20", "30"], ["9", "19", "29"], "3 of 3 would match if +1 is added to every token (shifted by one)"),
        (["10", "20", "30"], ["11", "21", "31"], "-1 is added to every token"),
        (["B7", "B8", "B9"], ["0", "1", "2"], "the tokens are the numbers 0 to 2, row numbers"),
        (["B7", "B8", "B9"], ["3", "1", "2"], "the tokens are the numbers 1 to 3, row numbers"),
        (["1", "2", "3"], ["B7", "B8", "B9"], "the dataset's ids are row numbers"),
    ],
)
def test_no_match_guesses_the_cause(ids, tokens, cause):
    message = join_error(table(tokens), ids)
    assert "probable cause: " in message and cause in message


def test_a_chance_meeting_of_integers_is_no_cause():
    message = join_error(table(np.arange(1001, 2001).astype(str)), np.arange(2, 1001).astype(str))
    assert "probable cause" not in message


def test_side_may_be_unknown(caplog):
    caplog.set_level(logging.INFO)
    SemanticEmbedding(np.array(["a"]), np.ones((1, 1), np.float32), "there").join(with_pad("ab"))
    assert messages(caplog, logging.INFO) == ["semantic embeddings: 1 of 2 ids covered (50.0 %), 1 hole, e.g. 'b'"]


# ---------------------------------------------------------------------- both sides, metadata


def test_both_sides_must_have_one_dimension():
    user = SemanticEmbedding(np.array(["a"]), np.ones((1, 3), np.float32), "u.npy")
    item = SemanticEmbedding(np.array(["a"]), np.ones((1, 4), np.float32), "i.npy")
    check_same_dimension(user, user)
    with pytest.raises(DataError, match=r"dimension 3 \(u\.npy\), item embeddings 4 \(i\.npy\).*same encoder"):
        check_same_dimension(user, item)


def test_metadata_is_optional(tmp_path):
    assert read_metadata([tmp_path, tmp_path / "absent"], "ml") is None
    assert metadata_path([tmp_path], "ml") is None


def test_metadata_of_the_first_directory(tmp_path):
    (tmp_path / "a").mkdir()
    for folder, dimension in (("a", 2), (".", 3)):
        text = json.dumps({"encoder": "é", "dimension": dimension})
        (tmp_path / folder / "ml.semantic.json").write_text(text, encoding="utf-8")
    assert read_metadata([tmp_path / "absent", tmp_path / "a", tmp_path], "ml") == {"encoder": "é", "dimension": 2}
    assert metadata_path([tmp_path / "a", tmp_path], "ml") == tmp_path / "a" / "ml.semantic.json"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"dimension": 2', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "it is a list ([1]), expected an object"),
        (b"null", "it is null, expected an object"),
        (b"3", "it is the number 3, expected an object"),
    ],
)
def test_malformed_metadata(tmp_path, content, expected):
    (tmp_path / "ml.semantic.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_metadata([tmp_path], "ml")
    assert str(tmp_path / "ml.semantic.json") in str(caught.value)
    assert expected in str(caught.value) and "the file is optional" in str(caught.value)


@pytest.mark.parametrize("metadata", [{}, {"dimension": None}, {"dimension": 2}])
def test_metadata_that_agrees(metadata):
    check_metadata(metadata, table("ab"), "ml.semantic.json")


@pytest.mark.parametrize("dimension", [3, "2", True, [2]])
def test_metadata_that_disagrees(dimension):
    with pytest.raises(DataError) as caught:
        check_metadata({"dimension": dimension}, table("ab"), "ml.semantic.json")
    assert f"ml.semantic.json says dimension {dimension!r}, but the vectors in the table have 2" in str(caught.value)


def test_from_arrays_takes_what_encoders_return() -> None:
    rows = [[0.5, 1.0], [2.0, -1.0]]
    for vectors in (rows, np.array(rows), torch.tensor(rows), np.array(rows, dtype=np.float32)):
        table = SemanticEmbedding.from_arrays([7, "b"], vectors)
        assert table.vectors.dtype == np.float32 and table.tokens.tolist() == ["7", "b"]
        np.testing.assert_array_equal(table.vectors, rows)
    assert SemanticEmbedding.from_arrays(["a"], np.ones((1, 2), dtype=np.float16)).vectors.dtype == np.float16
    with pytest.raises(DataError, match="NaN"):
        SemanticEmbedding.from_arrays(["a"], [[float("nan"), 1.0]])


def npy(descr: str, shape: str, *, version: int = 1, length: int | None = None, body: bytes = b"") -> bytes:
    """A `.npy` file whose header says what it likes."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    size = (len(header) if length is None else length).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + body


CHILD = """
import resource, sys
from pathlib import Path
from recbole_rlmrec.data.embedding_files import read_vectors
from recbole_rlmrec.errors import DataError
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    for memory_map in (False, True):
        try:
            print(path.name, read_vectors(path, memory_map=memory_map).shape)
        except DataError as error:
            print(path.name, error)
"""


def test_headers_that_promise_more_than_there_is(tmp_path):
    """In a process of bounded memory: what a header says is not made room for."""
    files = {
        "shape": npy("'<f4'", "(1000000, 1000000)", body=bytes(16)),
        "overflow": npy("'<f4'", "(4294967296, 4294967296)", body=bytes(16)),
        "minus": npy("'<f4'", "(-1, 4)", body=bytes(16)),
        "cut": npy("'<f4'", "(2, 4)", body=bytes(31)),
        "objects": npy("'|O'", "(2,)", body=bytes(16)),
        "length": npy("'<f4'", "(1, 4)", version=2, length=2**32 - 1, body=bytes(16)),
        "long": npy("'<f4'", "(1, 4)" + " " * 20_000, version=2, body=bytes(16)),
        "nested": npy("'<f4'", "(" * 500 + ")" * 500),
        "version": npy("'<f4'", "(1, 4)", version=9, body=bytes(16)),
        "digits": npy("'<f4'", f"({'9' * 5000},)", body=bytes(16)),
        "short": b"\x93NUMPY\x01\x00",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(files)
    for number, name in enumerate(sorted(files)):
        for line in lines[2 * number : 2 * number + 2]:
            assert line.startswith(f"{name} {tmp_path / name} cannot be read as a .npy array ("), line[:300]
            assert len(line) < 1000


def test_vectors_and_tokens_are_regular_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        for read in (read_tokens, lambda path: read_vectors(path, memory_map=False)):
            with pytest.raises(DataError, match="expected a regular file"):
                read(path)


@pytest.mark.parametrize("vectors", [[[1.0, 2.0], [3.0]], [["a", "b"], ["c", "d"]]])
def test_from_arrays_refuses_what_is_no_table(vectors: Any) -> None:
    with pytest.raises(DataError, match=r"The given vectors are no table of numbers .* Give \[n, D\]"):
        SemanticEmbedding.from_arrays(["1", "2"], vectors)
