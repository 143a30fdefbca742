"""Tables of text: nothing moves, vanishes or is taken for something else; what is malformed is named with its line."""

from __future__ import annotations

import logging
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recbole.data.dataset as recbole_datasets

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data import table as table_module
from recbole_rlmrec.data.atomic_file import LONGEST_ID, id_fault, object_array, suspects, text_fault
from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.data.preparation import create_dataset
from recbole_rlmrec.data.semantic_embedding import SemanticEmbedding
from recbole_rlmrec.data.split import pairs_sha256, random_split, read_split, split_column_codes
from recbole_rlmrec.data.table import Table, read_headers
from recbole_rlmrec.errors import DataError, RLMRecError, SettingError
from recbole_rlmrec.text.text_columns import read_interactions, read_item_columns, read_user_columns

IDS = "user_id:token\titem_id:token"
FILES = {
    "shop.inter": f"{IDS}\trating:float\tday:token\nu1\ti1\t3\tx\nu2\ti2\t4\ty\nu3\ti1\t5\tz\n",
    "shop.item": "item_id:token\ttitle:token_seq\tprice:float\ni1\tThe Tale\t2\ni2\tA House\t3\n",
    "shop.user": "user_id:token\tcity:token\nu1\tOslo\nu2\tRome\n",
    "shop.kg": "head_id:token\trelation_id:token\ttail_id:token\ne1\tr\te2\ne2\tr\te1\n",
    "shop.link": "item_id:token\tentity_id:token\ni1\te1\ni2\te2\n",
}
PARTS = ("train", "valid", "test")


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    for part in PARTS:
        (folder / f"shop.{part}.inter").write_text(FILES["shop.inter"], encoding="utf-8")
    return folder


def config_of(folder: Path, model: str = "LightGCN", **settings: Any) -> RLMRecConfig:
    given = {
        "data_path": str(folder.parent),
        "checkpoint_dir": str(folder.parent),
        "filter_inter_by_user_or_item": False,
        "item_title_field": "title",
        "item_attribute_fields": ["price"],
        "user_attribute_fields": ["city"],
        "load_col": {
            "inter": ["user_id", "item_id", "rating", "day"],
            "item": ["item_id", "title", "price"],
            "user": ["user_id", "city"],
            "kg": ["head_id", "relation_id", "tail_id"],
            "link": ["item_id", "entity_id"],
        },
        **settings,
    }
    return RLMRecConfig(model, "shop", config_dict=given)


def load(folder: Path, model: str = "LightGCN", **settings: Any) -> Any:
    return create_dataset(config_of(folder, model, **settings))


def pairs(dataset: Any) -> list[tuple[str, str]]:
    columns = (dataset.id2token(name, dataset.inter_feat[name].to_numpy()).tolist() for name in ("user_id", "item_id"))
    return list(zip(*columns))


#: Each file, and how it is read.
READINGS: dict[str, tuple[str, Any]] = {
    "interactions": ("shop.inter", load),
    "interactions of a context model": ("shop.inter", lambda folder: load(folder, "FM")),
    "a part": ("shop.valid.inter", lambda folder: load(folder, benchmark_filename=list(PARTS))),
    "items for RecBole": ("shop.item", load),
    "users for RecBole": ("shop.user", load),
    "items' texts": ("shop.item", lambda folder: read_item_columns(config_of(folder))),
    "users' texts": ("shop.user", lambda folder: read_user_columns(config_of(folder))),
    "triples": ("shop.kg", lambda folder: load(folder, "CKE")),
    "links": ("shop.link", lambda folder: load(folder, "CKE")),
}


def refused(folder: Path, reading: str) -> str:
    with pytest.raises(DataError) as caught:
        READINGS[reading][1](folder)
    return str(caught.value)


def change_line(path: Path, number: int, change: Any) -> None:
    lines = path.read_bytes().split(b"\n")
    lines[number - 1] = change(lines[number - 1])
    path.write_bytes(b"\n".join(lines))


# ---------------------------------------------------------------------- rows


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("change", "n_more"), [(lambda line: line + b"\t", 1), (lambda line: line.rpartition(b"\t")[0], -1)]
)
@pytest.mark.parametrize("number", [2, 3])
def test_a_row_of_another_number_of_fields_is_named(
    shop: Path, reading: str, change: Any, n_more: int, number: int
) -> None:
    name = READINGS[reading][0]
    change_line(shop / name, number, change)
    n_fields = FILES.get(name, FILES["shop.inter"]).partition("\n")[0].count("\t") + 1
    message = refused(shop, reading)
    assert f"{name}', line {number} has {n_fields + n_more} field" in message and f"the header {n_fields} (" in message


def test_every_row_with_a_separator_at_its_end_moves_nothing(shop: Path) -> None:
    """The users would become items: pandas takes a first field too many for the row's name."""
    header, *rows = FILES["shop.inter"].splitlines()
    (shop / "shop.inter").write_text("\n".join([header, *(f"{row}\t" for row in rows)]) + "\n")
    assert "line 2 has 5 fields, the header 4" in refused(shop, "interactions")
    assert "It ends with the separator '\\t'" in refused(shop, "interactions")


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize(
    ("mark", "said"),
    [(b"\0", "a null character"), (b"\r", "a carriage return that ends no line"), (b"\xff", "cannot be read as utf-8")],
)
def test_a_character_that_no_text_has_is_named(shop: Path, reading: str, mark: bytes, said: str) -> None:
    change_line(shop / READINGS[reading][0], 3, lambda line: line[:1] + mark + line[1:])
    message = refused(shop, reading)
    assert said in message and "line 3" in message


def test_blank_lines_are_none_and_lines_may_end_with_crlf(shop: Path) -> None:
    expected = pairs(load(shop))
    text = FILES["shop.inter"].replace("u2", "\n   \nu2") + "\n\n"
    (shop / "shop.inter").write_bytes(text.replace("\n", "\r\n").encode())
    assert pairs(load(shop)) == expected == [("u1", "i1"), ("u2", "i2"), ("u3", "i1")]
    (shop / "shop.inter").write_text(text.replace("u3\ti1", "u3\t"))
    assert "line 6: the item_id '' is empty" in refused(shop, "interactions")  # the lines of the file are counted


def test_a_table_is_the_same_in_blocks_of_any_size(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = IDS + "\n" + "".join(f"u{row}\tï{row * 7 % 5}\n" + "\n" * (row % 4 == 0) for row in range(50))
    (shop / "shop.inter").write_text(text, encoding="utf-8")
    for size in (1, 7, 64, 10**6):
        monkeypatch.setattr(table_module, "_BLOCK", size)
        rows = Table(shop / "shop.inter").read(["user_id", "item_id"])
        assert rows["user_id"].tolist() == [f"u{row}" for row in range(50)]
        assert rows["item_id"].tolist() == [f"ï{row * 7 % 5}" for row in range(50)]
        (shop / "bad.inter").write_text(text.replace("u33\t", "u33"), encoding="utf-8")
        with pytest.raises(DataError, match="line 44 has 1 field, the header 2"):
            Table(shop / "bad.inter").read(["user_id"])


@pytest.mark.parametrize("separator", ["|", ".", "::", "||", "*", "§", " "])
def test_a_separator_is_taken_literally(shop: Path, separator: str) -> None:
    lines = FILES["shop.inter"].replace("\t", separator)
    (shop / "shop.inter").write_text(lines, encoding="utf-8")
    settings = {"field_separator": separator, "seq_separator": ";", "load_col": {"inter": ["user_id", "item_id"]}}
    assert pairs(load(shop, **settings)) == [("u1", "i1"), ("u2", "i2"), ("u3", "i1")]
    change_line(shop / "shop.inter", 3, lambda line: line + separator.encode())
    with pytest.raises(DataError, match="line 3 has 5 fields, the header 4"):
        load(shop, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"field_separator": ""},
        {"field_separator": None},
        {"field_separator": r"\t"},
        {"field_separator": ":"},
        {"seq_separator": ""},
        {"seq_separator": 5},
        {"seq_separator": "\t"},
        {"encoding": "utf-99"},
        {"encoding": "hex"},
        {"encoding": "undefined"},
    ],
)
def test_a_separator_or_an_encoding_that_is_none_is_a_setting_s_error(shop: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(SettingError, match=next(iter(settings))):
        load(shop, **settings)


def test_a_sequence_is_split_at_its_separator_literally(shop: Path) -> None:
    (shop / "shop.item").write_text(FILES["shop.item"].replace("The Tale", "The||Tale||.*"))
    dataset = load(shop, seq_separator="||")
    words = dataset.field2id_token["title"][dataset.item_feat["title"][1]]
    assert words.tolist() == ["The", "Tale", ".*"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings_and_the_byte_order_mark(shop: Path, encoding: str) -> None:
    """A byte-order mark is no part of the first column's name, in any file."""
    for path in shop.iterdir():
        path.write_text(path.read_text().replace("Oslo", "Malmö"), encoding=encoding)
    config = config_of(shop, encoding="utf-8" if encoding == "utf-8-sig" else encoding)
    assert pairs(create_dataset(config)) == [("u1", "i1"), ("u2", "i2"), ("u3", "i1")]
    assert read_user_columns(config)["u1"] == {"city": ("Malmö",)}
    assert read_item_columns(config)["i1"].title == "The Tale"


def test_utf_16_is_recognised(shop: Path) -> None:
    (shop / "shop.inter").write_text(FILES["shop.inter"], encoding="utf-16")
    assert "it begins as UTF-16 does. Save it as UTF-8, or set encoding" in refused(shop, "interactions")


def test_a_file_of_nulls_is_given_up(shop: Path) -> None:
    with (shop / "shop.inter").open("wb") as file:
        file.truncate(10**9)
    tracemalloc.start()
    assert "is longer than 16 MiB" in refused(shop, "interactions")
    assert tracemalloc.get_traced_memory()[1] < 200 * 2**20
    tracemalloc.stop()


# ---------------------------------------------------------------------- headers


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("", "is empty"),
        ("\nuser_id:token\titem_id:token\nu\ti\n", "begins with a blank line"),
        (f"{IDS}\n", "has a header and no row"),
        ("user_id:token,item_id:token\nu,i\n", "is it ',' in this file? Set field_separator"),
        ("user_id,item_id\nu,i\n", "is it ',' in this file? Set field_separator"),
        ("user_id\titem_id\nu\ti\n", "the column 'user_id' without a type"),
        (f"{IDS}\t\nu\ti\t\n", "the column '' without a type (it ends with a separator?)"),
        (f"{IDS}\tuser_id:token\nu\ti\tv\n", "the column 'user_id' twice"),
        (f"{IDS}\tprice:number\nu\ti\t1\n", "'price:number', whose type is none of token, token_seq, float, float_seq"),
        ("user_id:token\t item_id:token\nu\ti\n", "' item_id', a name that is empty or begins or ends with a blank"),
        ('"user_id:token"\t"item_id:token"\n"u"\t"i"\n', "in quotation marks"),
        ("user_id:float\titem_id:token\n1\ti\n", "'user_id:float', expected 'user_id:token'"),
        ("user_id:token\titem_id:float\nu\t1\n", "'item_id:float', expected 'item_id:token'"),
        ("user_id:token\titem_id:token_seq\nu\t1\n", "'item_id:token_seq', expected 'item_id:token'"),
        ("user_id:token\trating:float\nu\t1\n", "no 'item_id'; expected a first line such as 'user_id:token<TAB>"),
    ],
)
def test_a_malformed_header_is_named(shop: Path, header: str, said: str) -> None:
    (shop / "shop.inter").write_text(header)
    with pytest.raises(DataError) as caught:
        load(shop, load_col=None)
    assert said in str(caught.value) and "shop.inter'" in str(caught.value)


@pytest.mark.parametrize("reading", ["items for RecBole", "items' texts"])
def test_ids_of_items_that_are_numbers_are_refused(shop: Path, reading: str) -> None:
    (shop / "shop.item").write_text("item_id:float\ttitle:token_seq\tprice:float\n1\tTale\t2\n")
    assert "'item_id:float', expected 'item_id:token'" in refused(shop, reading)


# ---------------------------------------------------------------------- quotation marks


def test_quotation_marks_are_text(shop: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One that is never closed swallowed the rows to the next."""
    titles = ['"Tale', "second", 'a "b" c', '"', 'fifth"', '"six"']
    rows = "".join(f"i{number}\t{title}\t1\n" for number, title in enumerate(titles))
    (shop / "shop.item").write_text("item_id:token\ttitle:token_seq\tprice:float\n" + rows)
    assert [item.title for item in read_item_columns(config_of(shop)).values()] == titles
    (shop / "shop.inter").write_text(f'{IDS}\trating:float\tday:token\n"u1\ti0\t1\tx\nu2\ti1\t1\t"y\nu"3\t"i5"\t1\tz\n')
    dataset = load(shop)
    assert pairs(dataset) == [('"u1', "i0"), ("u2", "i1"), ('u"3', '"i5"')]
    assert dataset.field2id_token["day"].tolist() == ["[PAD]", "x", '"y', "z"]
    assert dataset.field2id_token["title"][dataset.item_feat["title"][1]].tolist() == ['"Tale']
    texts = read_interactions(config_of(shop, review_field="day"), [Table(shop / "shop.inter").read(dataset_columns())])
    assert [review.text for review in texts] == ["x", '"y', "z"]
    assert "quotation marks" not in caplog.text


def dataset_columns() -> list[str]:
    return ["user_id", "item_id", "rating", "day"]


@pytest.mark.parametrize("titles", [['"One"', '"Two"', "Three"], ['"The ""King"""', "Two", "Three"]])
def test_a_csv_writer_s_quotation_marks_are_said_once(
    shop: Path, titles: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    rows = "".join(f"i{number}\t{title}\t1\n" for number, title in enumerate(titles))
    (shop / "shop.item").write_text("item_id:token\ttitle:token_seq\tprice:float\n" + rows)
    assert [item.title for item in read_item_columns(config_of(shop)).values()] == titles
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "the column 'title', such as \"" in record.getMessage() and "QUOTE_NONE" in record.getMessage()


def test_a_field_of_two_lines_is_refused(shop: Path) -> None:
    change_line(shop / "shop.item", 2, lambda _: b'i1\t"The\nTale"\t2')
    message = refused(shop, "items' texts")
    assert "line 2 has 2 fields, the header 3" in message and "Quotation marks do not hold a field together" in message


# ---------------------------------------------------------------------- ids


@pytest.mark.parametrize(
    "reading", ["interactions", "interactions of a context model", "a part", "items' texts", "users' texts", "links"]
)
@pytest.mark.parametrize(
    ("token", "fault"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("NA", "is read as missing"),
        ("null", "is read as missing"),
        ("None", "is read as missing"),
        ("nan", "is read as missing"),
        ("[PAD]", "is RecBole's own name of the padding id"),
        ("a\x1bb", "holds a control character"),
        ("a\x85b", "holds a control character"),
        ("a" * 100_000, "is 100,000 characters long, of at most 1,000"),
    ],
)
def test_an_id_that_is_none_is_named(shop: Path, reading: str, token: str, fault: str) -> None:
    name = READINGS[reading][0]
    change_line(shop / name, 3, lambda line: token.encode() + b"\t" + line.partition(b"\t")[2])
    message = refused(shop, reading)
    assert f"{name}', line 3: the " in message and fault in message and len(message) < 500


def test_ids_that_are_missing_in_both_columns_drop_no_other_row(shop: Path) -> None:
    """RecBole drops by position, after the first drop moved the rows: a good one went, and u9 bought [PAD]."""
    (shop / "shop.inter").write_text(f"{IDS}\nNA\ti1\nu2\ti2\nu9\tNA\nu3\ti3\n")
    with pytest.raises(DataError, match="line 2: the user_id 'NA' is read as missing"):
        load(shop, load_col=None)
    (shop / "shop.inter").write_text(f"{IDS}\nu1\ti1\nu9\t\nu8\t\nu3\ti3\n")
    with pytest.raises(DataError, match=r"line 3: the item_id '' is empty.*; 1 more row like it"):
        load(shop, load_col=None)


def test_of_an_item_that_stands_twice_the_first_row_counts_everywhere(shop: Path) -> None:
    with (shop / "shop.item").open("a") as file:
        file.write("i1\tAnother\t7\n")
    dataset = load(shop)
    assert dataset.field2id_token["title"][dataset.item_feat["title"][1]].tolist() == ["The", "Tale"]
    assert read_item_columns(config_of(shop))["i1"].title == "The Tale"


# ---------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("value", "loaded"),
    [
        *((value, True) for value in ("five", "inf", "-Infinity", "1e999", "nan", "-NaN", "1,5", "0x1F")),
        *((value, False) for value in ("five", "1,5", "0x1F")),
    ],
)
def test_a_number_that_is_none_is_named(shop: Path, value: str, loaded: bool) -> None:
    """Also where RecBole does not load the column: it is a sign of a row that moved."""
    change_line(shop / "shop.inter", 3, lambda line: line.replace(b"\t4\t", f"\t{value}\t".encode()))
    columns = ["user_id", "item_id", *["rating"] * loaded]
    with pytest.raises(DataError, match=rf"shop.inter', line 3: the column 'rating' is '{value}', expected a number"):
        load(shop, load_col={"inter": columns})


@pytest.mark.parametrize("value", ["", "NA", "null"])
def test_a_number_that_is_missing_is_recbole_s_to_fill(shop: Path, value: str) -> None:
    change_line(shop / "shop.inter", 3, lambda line: line.replace(b"\t4\t", f"\t{value}\t".encode()))
    assert load(shop).inter_feat["rating"].tolist() == [3, 4, 5]  # the mean
    table = Table(shop / "shop.inter").read(dataset_columns())
    assert [review.rating for review in read_interactions(config_of(shop), [table])] == [3, None, 5]


def test_a_time_that_is_missing_is_named_where_it_orders(shop: Path) -> None:
    (shop / "shop.inter").write_text(f"{IDS}\ttimestamp:float\nu1\ti1\t1\nu2\ti2\t\n")
    settings = {"load_col": {"inter": ["user_id", "item_id", "timestamp"]}}
    load(shop, **settings)
    with pytest.raises(DataError, match="line 3: the column 'timestamp' is missing, and eval_args orders by it"):
        load(shop, eval_args={"order": "TO"}, **settings)


def test_a_sequence_that_holds_no_numbers_is_named(shop: Path) -> None:
    (shop / "shop.item").write_text("item_id:token\tvector:float_seq\ni1\t1 2\ni2\t1 x\n")
    with pytest.raises(DataError, match="line 3: the column 'vector' is '1 x', expected numbers"):
        load(shop, load_col={"inter": ["user_id", "item_id"], "item": ["item_id", "vector"]})


# ---------------------------------------------------------------------- room


def test_a_token_of_great_length_among_many_is_refused(shop: Path) -> None:
    """RecBole's table of tokens would take 8 GB."""
    rows = [f"u\ti{row}\t1\td{row}" for row in range(20_000)]
    rows[9] = f"u\ti9\t1\t{'x' * 100_000}"
    (shop / "shop.inter").write_text("\n".join([FILES["shop.inter"].partition("\n")[0], *rows]))
    message = refused(shop, "interactions")
    assert "line 11: the column 'day' has a token of 100,000 characters" in message and "20,000 tokens" in message


def test_a_long_token_takes_no_room_for_the_others(tmp_path: Path) -> None:
    tokens = [*map(str, range(20_000)), "x" * 100_000]
    (tmp_path / "split.tsv").write_text("user_id\titem_id\tsplit\n" + "".join(f"{row}\ti\ttrain\n" for row in range(9)))
    tracemalloc.start()
    assert object_array(tokens).tolist() == tokens
    assert len(pairs_sha256(tokens, tokens)) == 64
    random_split(tokens, tokens, seed=1)
    with pytest.raises(DataError, match="20001 values of the 'split' column"):
        split_column_codes(tokens)
    with pytest.raises(DataError, match="does not list 19992 of"):
        read_split(tmp_path / "split.tsv", tokens, ["i"] * len(tokens))
    assert tracemalloc.get_traced_memory()[1] < 100 * 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("missing", [None, float("nan")])
def test_a_token_that_is_missing_is_named(missing: object) -> None:
    with pytest.raises(DataError, match=r"The token of row 1 is (None|nan), expected an original id \(1 such row\)"):
        object_array(["a", missing])
    with pytest.raises(DataError, match="The token of row 1"):
        SemanticEmbedding.from_arrays(["a", missing], [[1.0], [2.0]])
    assert object_array(np.array([[1, 2]])).tolist() == [["1", "2"]]
    assert object_array(np.array(["a"], dtype="S")).tolist() == ["a"]


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("value", ["train,valid,test", "train, valid, test", ["train", "valid", "test"]])
def test_parts_may_be_given_as_text(shop: Path, value: Any) -> None:
    config = config_of(shop, benchmark_filename=value)
    assert config["benchmark_filename"] == list(PARTS)
    assert [len(part.inter_feat) for part in RLMRecDataset(config).build()] == [3, 3, 3]


@pytest.mark.parametrize("value", ["", "train,,test", 5, [], ["a/b"], [1], {"a": 1}])
def test_parts_that_are_no_names_are_refused(shop: Path, value: Any) -> None:
    with pytest.raises(SettingError, match=r"benchmark_filename=.*expected the names between"):
        config_of(shop, benchmark_filename=value)


@pytest.mark.parametrize("model", ["LightGCN", "FM"])
def test_parts_that_are_not_there_are_named(shop: Path, model: str) -> None:
    (shop / "shop.valid.inter").unlink()
    with pytest.raises(DataError, match=r"shop\.valid\.inter"):
        load(shop, model, benchmark_filename="train,valid,test")


@pytest.mark.parametrize("name", ["*", "**", "a?", "[a]", ".", "..", "a/b", "a\\b", "a\n", " a", "", 5, None])
def test_a_dataset_s_name_is_no_pattern_and_no_path(tmp_path: Path, name: Any) -> None:
    with pytest.raises(RLMRecError, match=r"expected the name of a folder"):
        RLMRecConfig("LightGCN", name, config_dict={"data_path": str(tmp_path)})


def test_recbole_s_datasets_are_left_as_they_were(shop: Path) -> None:
    load_feat, read_csv = recbole_datasets.Dataset._load_feat, recbole_datasets.dataset.pd.read_csv
    assert type(load(shop, "FM")) is recbole_datasets.Dataset
    assert recbole_datasets.Dataset._load_feat is load_feat and recbole_datasets.dataset.pd.read_csv is read_csv
    assert not hasattr(recbole_datasets.dataset, "open")


def test_tables_are_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "shop.user")
    (tmp_path / "shop.item").symlink_to("/dev/zero")
    for name, kind in (("shop.user", "a pipe"), ("shop.item", "a device")):
        with pytest.raises(DataError, match=f"{name}' cannot be read: it is {kind}, expected a regular file"):
            Table(tmp_path / name)
    assert read_headers(tmp_path, "shop", None, "\t", None) == dict.fromkeys(("inter", "user", "item"))


FAULTY = ["", " ", "\u2003", "[PAD]", "nan", "NULL", "a\tb", "\x85", "\ud800", "x" * (LONGEST_ID + 1)]


@pytest.mark.parametrize("token", [*FAULTY, "é", "12", "x" * LONGEST_ID, " a"])
def test_of_many_ids_none_with_a_fault_is_missed(token: str) -> None:
    tokens = [*map(str, range(7)), token, "last"]
    found = suspects(tokens, at_once=3)
    assert {each for each in tokens if id_fault(each) or text_fault(each)} <= set(found)
    assert found == ([] if token not in FAULTY else tokens[6:])


@pytest.mark.parametrize("with_users", [False, True])
def test_tokens_are_numbered_as_recbole_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_users: bool) -> None:
    """Also of a column that two files have, with a missing field, and beside sequences."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    rows = [("u2", "i1", "x"), ("u1", "i2", ""), ("u2", "i3", "y"), ("é", "i1", "x")]
    text = "".join("\t".join(row) + "\n" for row in (("user_id:token", "item_id:token", "kind:token"), *rows))
    (folder / "tiny.inter").write_text(text, encoding="utf-8")
    if with_users:
        (folder / "tiny.user").write_text("user_id:token\tlikes:token_seq\nu9\ta b\nu1\tb c\né\td\n", encoding="utf-8")
    given = {"data_path": str(tmp_path), "load_col": None, "show_progress": False}
    config = RLMRecConfig("LightGCN", "tiny", config_dict=given)
    found = []
    for is_ours in (True, False):
        if not is_ours:
            monkeypatch.delattr(RLMRecDataset, "_remap")
        dataset = create_dataset(config)
        frames = [dataset.inter_feat, *([dataset.user_feat] if with_users else [])]
        columns = [column.tolist() for frame in frames for _, column in frame.items() if column.dtype != object]
        tokens = {field: (each.dtype, each.tolist()) for field, each in dataset.field2id_token.items()}
        found.append((columns, tokens, dataset.field2token_id))
    assert found[0] == found[1] and "é" in found[0][1]["user_id"][1]
