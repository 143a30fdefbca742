"""The split: packed by hand, bound to its data, joined by token, and every way a file can be wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.data.split import (
    LEFT_OUT,
    SPLIT_NAMES,
    pairs_sha256,
    random_split,
    read_split,
    split_column_codes,
    write_packed_split,
)
from recbole_rlmrec.errors import DataError

# In sorted order: (10, b), (2, a), (2, b), (é, a), (é, c); "10" sorts before "2" as text.
USERS = np.array(["2", "é", "10", "2", "é"])
ITEMS = np.array(["b", "c", "b", "a", "a"])
CODES = np.array([2, 3, 0, 1, 0], dtype=np.int8)
# Codes in sorted order are 0, 1, 2, 0, 3: the first four make 0 + 1*4 + 2*16 + 0*64 = 36, the fifth makes 3.
PACKED = bytes([36, 3])
TABLE = "user_id:token\titem_id:token\tsplit:token\n2\tb\ttest\né\tc\tvalid\n10\tb\ttrain\n2\ta\tvalid\né\ta\ttrain\n"
TABLE_CODES = [2, 1, 0, 1, 0]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "toy.split.json"
    write_packed_split(path, USERS, ITEMS, CODES)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "toy.split"
    path.write_text(TABLE, encoding="utf-8")
    return path


def change(path: Path, **changes: Any) -> Path:
    document = json.loads(path.read_text())
    document.update(changes)
    path.write_text(json.dumps(document))
    return path


def random_interactions(n_interactions: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct pairs whose tokens have different lengths, and random codes."""
    generator = np.random.default_rng(seed)
    pairs = generator.choice(300 * 200, size=n_interactions, replace=False)
    users, items = np.char.mod("u%d", pairs // 200), np.char.mod("%d", pairs % 200)
    return users, items, generator.integers(0, 4, n_interactions).astype(np.int8)


def test_hash_is_of_the_sorted_lines() -> None:
    text = "10\tb\n2\ta\n2\tb\né\ta\né\tc\n"
    assert pairs_sha256(USERS, ITEMS) == hashlib.sha256(text.encode("utf-8")).hexdigest()


def test_hash_agrees_with_a_plain_sort_and_not_with_other_pairs() -> None:
    users, items, _ = random_interactions(5000, seed=1)
    plain = "".join(f"{user}\t{item}\n" for user, item in sorted(zip(users.tolist(), items.tolist())))
    assert pairs_sha256(users, items) == hashlib.sha256(plain.encode("utf-8")).hexdigest()
    assert pairs_sha256(users, items) != pairs_sha256(items, users)


def test_hash_counts_duplicates() -> None:
    assert pairs_sha256(["1", "1"], ["a", "a"]) == hashlib.sha256(b"1\ta\n1\ta\n").hexdigest()


def test_hash_of_many_interactions_is_the_hash_of_one_text() -> None:
    # More than the 65,536 lines hashed at once.
    users = np.char.mod("%06d", np.arange(70_000))
    text = "".join(f"{user}\ti\n" for user in users)
    assert pairs_sha256(users, np.full(70_000, "i")) == hashlib.sha256(text.encode()).hexdigest()


def test_packed_file_by_hand(packed: Path) -> None:
    document = json.loads(packed.read_text())
    assert document == {
        "format": "recbole_rlmrec split",
        "version": 1,
        "order": "user token, item token",
        "interactions": 5,
        "source_sha256": pairs_sha256(USERS, ITEMS),
        "codes": base64.b64encode(PACKED).decode(),
    }


def test_four_codes_fill_one_byte(tmp_path: Path) -> None:
    path = tmp_path / "four.split.json"
    write_packed_split(path, ["1", "2", "3", "4"], ["a"] * 4, [3, 2, 1, 0])
    # 3 + 2*4 + 1*16 + 0*64
    assert base64.b64decode(json.loads(path.read_text())["codes"]) == bytes([27])


@pytest.mark.parametrize("n_interactions", [4, 5, 6, 7, 3000])
def test_round_trip(tmp_path: Path, n_interactions: int) -> None:
    users, items, codes = random_interactions(n_interactions, seed=n_interactions)
    codes[0] = 0
    write_packed_split(tmp_path / "toy.split.json", users, items, codes)
    read = read_split(tmp_path / "toy.split.json", users, items)
    assert read.dtype == np.int8
    np.testing.assert_array_equal(read, codes)


def test_row_order_does_not_matter(tmp_path: Path, packed: Path) -> None:
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_array_equal(read_split(packed, USERS[order], ITEMS[order]), CODES[order])
    write_packed_split(tmp_path / "other.split.json", USERS[order], ITEMS[order], CODES[order])
    assert (tmp_path / "other.split.json").read_bytes() == packed.read_bytes()


def test_packed_duplicates_keep_their_order(tmp_path: Path) -> None:
    users, items, codes = ["1", "2", "1", "1"], ["a", "a", "a", "a"], [2, 1, 0, LEFT_OUT]
    write_packed_split(tmp_path / "toy.split.json", users, items, codes)
    assert read_split(tmp_path / "toy.split.json", users, items).tolist() == codes


def test_packed_file_is_known_by_its_content(packed: Path) -> None:
    renamed = packed.rename(packed.with_name("mine.split"))
    np.testing.assert_array_equal(read_split(renamed, USERS, ITEMS), CODES)


def test_lists_and_object_arrays_are_taken(packed: Path) -> None:
    np.testing.assert_array_equal(read_split(packed, USERS.astype(object), ITEMS.tolist()), CODES)


def test_table_is_joined_by_token(table: Path) -> None:
    order = np.array([3, 0, 4, 2, 1])
    read = read_split(table, USERS[order], ITEMS[order])
    assert read.dtype == np.int8
    assert read.tolist() == np.array(TABLE_CODES)[order].tolist()


def test_table_columns_may_be_renamed_reordered_untyped_and_more(table: Path) -> None:
    rows = zip(USERS, ITEMS, [SPLIT_NAMES[code] for code in TABLE_CODES])
    lines = ["split\twhy\tasin\tuid:token", *(f"{split}\tx\t{item}\t{user}" for user, item, split in rows)]
    table.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
    assert read_split(table, USERS, ITEMS, user_field="uid", item_field="asin").tolist() == TABLE_CODES


def test_tokens_stay_text(table: Path) -> None:
    table.write_text('user_id\titem_id\tsplit\n007\tNA\ttrain\n7\t"x\ttest\n')
    assert read_split(table, ["7", "007", "007"], ['"x', "NA", "NA"]).tolist() == [2, 0, 0]


def test_duplicates_in_the_data_get_the_pair_s_split(table: Path) -> None:
    users, items = np.append(USERS, ["2", "2"]), np.append(ITEMS, ["b", "b"])
    assert read_split(table, users, items).tolist() == [*TABLE_CODES, 2, 2]


def test_equal_duplicates_in_the_table_are_fine(table: Path) -> None:
    table.write_text(TABLE + "2\tb\ttest\n", encoding="utf-8")
    assert read_split(table, USERS, ITEMS).tolist() == TABLE_CODES


def test_contradictory_duplicates_in_the_table(table: Path) -> None:
    table.write_text(TABLE + "2\tb\ttrain\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"toy\.split' puts 1 .* more than one split: \(2, b\)"):
        read_split(table, USERS, ITEMS)


def test_table_has_to_cover_the_data(table: Path) -> None:
    users, items = np.append(USERS, ["10", "11"]), np.append(ITEMS, ["c", "b"])
    with pytest.raises(DataError, match=r"does not list 2 of the dataset's 7 .*\(10, c\), \(11, b\).* cover all"):
        read_split(table, users, items)


def test_foreign_rows_of_the_table_are_warned_of(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_split(table, USERS[1:], ITEMS[1:]).tolist() == TABLE_CODES[1:]
    assert "1 (user, item) pairs of the split" in caplog.text
    assert "(2, b)" in caplog.text


def test_full_table_warns_of_nothing(table: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_split(table, USERS, ITEMS)
    assert not caplog.records


def test_table_of_other_data(table: Path) -> None:
    with pytest.raises(DataError, match=r"None of the 5 .*toy\.split' is in the dataset.*\(2, b\).* has \(x, b\)"):
        read_split(table, ["x"], ["b"])


def test_table_with_an_unknown_value(table: Path) -> None:
    table.write_text(TABLE.replace("valid", "val"), encoding="utf-8")
    with pytest.raises(
        DataError, match=r"2 values of '.*toy\.split' are no split: 'val' \(row 2\).*train, valid, test"
    ):
        read_split(table, USERS, ITEMS)


def test_table_with_a_short_row(table: Path) -> None:
    table.write_text(TABLE.replace("\tvalid", ""), encoding="utf-8")
    with pytest.raises(DataError, match=r"toy\.split', line 3 has 2 fields, the header 3"):
        read_split(table, USERS, ITEMS)


def test_table_with_a_missing_column(table: Path) -> None:
    with pytest.raises(
        DataError, match=r"columns user_id, item_id, split; uid missing.*columns uid, item_id and split"
    ):
        read_split(table, USERS, ITEMS, user_field="uid")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"user_id\titem_id\tsplit\n\xff\xfe\ta\ttrain\n",
        b"user_id\titem_id\tsplit\n1\ta\ttrain\tmore\n2\ta\ttest\n",
        b"user_id\titem_id\tsplit\n2\ta\ttest\n1\ta\ttrain\tmore\n",
    ],
)
def test_table_that_cannot_be_read(table: Path, content: bytes) -> None:
    table.write_bytes(content)
    with pytest.raises(DataError, match=r"toy\.split' cannot be read as a tab-separated table"):
        read_split(table, USERS, ITEMS)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no split file '.*nothing\.split\.json'.*Check the path"):
        read_split(tmp_path / "nothing.split.json", USERS, ITEMS)


@pytest.mark.parametrize("content", [b"{", b"", b"user_id\titem_id\tsplit\n", b'{"format": "\xff"}'])
def test_malformed_json(packed: Path, content: bytes) -> None:
    packed.write_bytes(content)
    with pytest.raises(DataError, match=r"toy\.split\.json' is no packed split: it is not valid JSON"):
        read_split(packed, USERS, ITEMS)


def test_json_of_another_kind(packed: Path) -> None:
    packed.write_text("[1]")
    with pytest.raises(DataError, match=r"toy\.split\.json' is no packed split: it is a list \(\[1\]\), expected"):
        read_split(packed, USERS, ITEMS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "folds"}, r"'format' is the text 'folds', expected 'recbole_rlmrec split'"),
        ({"version": 2}, r"'version' is the number 2, expected 1.*newer release"),
        (
            {"order": "item token, user token"},
            r"'order' is the text 'item token, .*', expected 'user token, item token'",
        ),
        ({"interactions": 4}, r"splits 4 interactions, but the dataset has 5.*other data"),
        ({"codes": "JAM"}, r"'JAM\.\.\.', are not base64"),
        ({"codes": "JAé="}, r"'JAé=\.\.\.', are not base64"),
        ({"codes": "J!AM="}, r"not base64"),
        ({"codes": 36}, r"'codes' is the number 36, expected text"),
        ({"codes": "JAMA"}, r"are 3 bytes, expected 2 for 5 interactions"),
        ({"codes": "//8="}, r"no training interaction \(5 interactions"),
    ],
)
def test_damaged_packed_file(packed: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        read_split(change(packed, **changes), USERS, ITEMS)
    assert "toy.split.json" in str(error.value)


@pytest.mark.parametrize("key", ["format", "version", "order", "interactions", "source_sha256", "codes"])
def test_packed_file_without_a_key(packed: Path, key: str) -> None:
    document = json.loads(packed.read_text())
    del document[key]
    packed.write_text(json.dumps(document))
    with pytest.raises(DataError, match=rf"toy\.split\.json'.* '{key}' is missing"):
        read_split(packed, USERS, ITEMS)


def test_packed_file_of_other_data_shows_both_hashes(packed: Path) -> None:
    other_items = ITEMS[::-1]
    hashes = f"{pairs_sha256(USERS, ITEMS)[:12]}.*{pairs_sha256(USERS, other_items)[:12]}"
    with pytest.raises(DataError, match=rf"toy\.split\.json' belongs to other data.*{hashes}"):
        read_split(packed, USERS, other_items)


def test_table_without_training_rows(table: Path) -> None:
    table.write_text(TABLE.replace("train", "test"), encoding="utf-8")
    with pytest.raises(DataError, match=r"toy\.split' has no training interaction"):
        read_split(table, USERS, ITEMS)


@pytest.mark.parametrize(
    ("codes", "message"),
    [
        ([0, 1], r"5 interactions, but the codes have the shape \(2,\)"),
        ([0, 1, 2, 3, 4], r"4 is no split code"),
        ([0, 1, 2, 3, -1], r"-1 is no split code"),
        ([1, 1, 2, 2, 3], r"no training interaction"),
    ],
)
def test_codes_that_are_not_written(tmp_path: Path, codes: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_packed_split(tmp_path / "toy.split.json", USERS, ITEMS, codes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("users", "items"), [(["1", "2"], ["a"]), ([["1"]], [["a"]])])
def test_users_and_items_of_different_shapes(users: list[Any], items: list[Any]) -> None:
    with pytest.raises(DataError, match="two one-dimensional arrays of the same length"):
        pairs_sha256(users, items)


def test_split_column() -> None:
    codes = split_column_codes(np.array(["test", "train", "valid", "train"], dtype=object))
    assert codes.dtype == np.int8
    assert codes.tolist() == [2, 0, 1, 0]


def test_split_column_with_unknown_values() -> None:
    values = np.array(["train", "z", "Train", "z", float("nan"), "1", "2", "3"], dtype=object)
    with pytest.raises(DataError) as error:
        split_column_codes(values)
    message = str(error.value)
    assert "7 values of the 'split' column of the .inter file" in message
    assert "'z' (row 2), 'Train' (row 3), 'nan' (row 5), '1' (row 6), '2' (row 7);" in message
    assert "'3'" not in message


def test_split_column_without_training_rows() -> None:
    with pytest.raises(DataError, match=r"'split' column of the \.inter file has no training interaction"):
        split_column_codes(["valid", "test"])


# ---------------------------------------------------------------------- a random split


def slow_split(pairs: list[tuple[str, str]], seed: int) -> list[int]:
    """The rules of ``random_split``, one interaction at a time."""
    by_token = sorted(range(len(pairs)), key=lambda row: pairs[row])
    draws = np.random.Generator(np.random.PCG64(seed)).random(len(pairs))
    order = [by_token[place] for place in np.argsort(draws, kind="stable")]
    n_train, n_valid = round(len(pairs) * 0.6), round(len(pairs) * 0.2)
    codes = dict(zip(order, [0] * n_train + [1] * n_valid + [2] * len(pairs)))

    def kept(row: int, side: int) -> int:
        return sum(codes[other] == 0 and pairs[other][side] == pairs[row][side] for other in order)

    moved: dict[int, int] = {}
    for side in (0, 1):
        for row in order:
            if kept(row, side) == 0:
                moved[row] = codes[row]
                codes[row] = 0
    wanted = [moved[row] for row in order if row in moved]
    for least in (2, 1):
        for row in reversed(order):
            if wanted and codes[row] == 0 and row not in moved and min(kept(row, side) for side in (0, 1)) > least:
                codes[row] = wanted.pop()
    return [codes[row] for row in range(len(pairs))]


@pytest.mark.parametrize(
    ("n_users", "n_pairs", "seed"), [(30, 60, 0), (30, 45, 1), (12, 80, 2), (40, 44, 3), (3, 5, 4)]
)
def test_random_split_follows_its_rules(n_users: int, n_pairs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    cells = rng.permutation(np.unique(rng.integers(0, n_users * n_users, n_pairs)))
    pairs = [(f"u{cell // n_users}", f"i{cell % n_users}") for cell in cells.tolist()]
    users, items = zip(*pairs)
    codes = random_split(users, items, seed)
    assert codes.dtype == np.int8 and codes.tolist() == slow_split(pairs, seed)
    for tokens in (users, items):
        assert {token for token, code in zip(tokens, codes) if code == 0} == set(tokens)


def test_random_split_of_numbers_is_that_of_tokens() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 50, 400), rng.integers(0, 40, 400)
    tokens = [f"u{user:02d}" for user in users], [f"i{item:02d}" for item in items]
    shares = (8, 1, 1)
    codes = random_split(users, items, 5, shares)
    np.testing.assert_array_equal(codes, random_split(*tokens, 5, shares))
    assert np.bincount(codes).tolist() == [320, 40, 40]
    assert not np.array_equal(codes, random_split(users, items, 6, shares))


def test_random_split_of_nothing() -> None:
    assert random_split([], [], 0).tolist() == []


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_an_interaction_without_an_id_is_named(missing: object) -> None:
    wanted = r"^1 interaction without a user or an item, the first in row 1: the id is (None|nan)\."
    with pytest.raises(DataError, match=wanted):
        random_split(np.array(["u", missing, "v"], dtype=object), ["i", "j", "i"], seed=1)
