"""A shop's own tables become a dataset: every format gives the same files, and what is wrong in them is named."""

from __future__ import annotations

import csv
import gzip
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from killed import killed_at_rename

from recbole_rlmrec.cli import main
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset
from recbole_rlmrec.data.split import SPLIT_NAMES, read_split
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.sources import table_rows
from recbole_rlmrec.sources.import_csv import Tables, import_csv, preview
from recbole_rlmrec.sources.prepare import Choice
from recbole_rlmrec.text.files import read_items

#: customer, sku, stars, day of March 2024
Order = tuple[str, str, float, int]
ORDERS: list[Order] = [(f"c{user}", f"s{(user * 3 + k) % 7}", 1 + k % 5, 1 + k) for user in range(6) for k in range(5)]
PROSE = 'A lamp, "the best"; made of oak | and glass.\nIt stands on three legs and gives a warm light for reading.'


def order_rows() -> list[dict[str, Any]]:
    return [
        {"customer": user, "sku": item, "stars": stars, "when": f"2024-03-{day:02d} 10:00:00", "qty": 1}
        for user, item, stars, day in ORDERS
    ]


def product_rows() -> list[dict[str, Any]]:
    return [
        {"sku": f"s{item}", "name": f"Lampe für Räume {item}", "description": PROSE, "brand": "Oak|Glass"}
        for item in range(7)
    ]


def write_csv(path: Path, rows: Sequence[dict[str, Any]], separator: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_gzipped(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_bytes(gzip.compress(write_csv(path, rows).read_bytes()))
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def tables_of(orders: Path, products: Path | None, **more: Any) -> Tables:
    values: dict[str, Any] = {"rating": "stars", "time": "when", **more}
    if products is not None:
        values = {"items": products, "title": "name", "text": ("description", "brand"), **values}
    return Tables(orders, "customer", "sku", **values)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Path, Path]:
    return write_csv(tmp_path / "orders.csv", order_rows()), write_csv(tmp_path / "products.csv", product_rows())


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("t.tsv", lambda path, rows: write_csv(path, rows, "\t")),
        ("t.csv", lambda path, rows: write_csv(path, rows, ";")),
        ("t.txt", lambda path, rows: write_csv(path, rows, "|", "utf-8-sig")),
        ("t.csv", lambda path, rows: write_csv(path, rows, ";", "cp1252")),
        ("t.csv", lambda path, rows: write_csv(path, rows, "\t", "utf-16")),
        ("t.csv.gz", write_gzipped),
        ("t.jsonl", write_jsonl),
        ("t.parquet", write_parquet),
    ],
)
def test_formats_give_the_same_files(
    tmp_path: Path, plain: tuple[Path, Path], name: str, write: Callable[[Path, Any], Path]
) -> None:
    import_csv(tables_of(*plain), "shop", tmp_path / "expected")
    orders = write(tmp_path / f"orders-{name}", order_rows())
    products = write(tmp_path / f"products-{name}", product_rows())
    import_csv(tables_of(orders, products), "shop", tmp_path / "found")
    assert files_of(tmp_path / "found" / "shop") == files_of(tmp_path / "expected" / "shop")


def test_what_is_written(tmp_path: Path, plain: tuple[Path, Path]) -> None:
    summary = import_csv(tables_of(*plain), "shop", tmp_path / "data")
    lines = (tmp_path / "data/shop/shop.inter").read_text(encoding="utf-8").splitlines()
    assert lines[0].split("\t")[:4] == ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
    # 2024-03-01 10:00:00 UTC
    assert lines[1].split("\t")[:4] == ["c0", "s0", "1", "1709287200"] and len(lines) == 1 + len(ORDERS)
    item = read_items(tmp_path / "data/shop/items.jsonl")["s3"]
    assert item.title == "Lampe für Räume 3" and item.attributes == {"brand": ("Oak", "Glass")}
    assert item.description == " ".join(PROSE.split())
    assert summary.split == (24, 3, 3) and (summary.n_users, summary.n_items) == (6, 7)


@pytest.mark.parametrize(
    ("texts", "is_prose"),
    [
        ([f"Lamp number {item}: a warm light for long evenings." for item in range(7)], True),
        (["Home > Kitchen and dining > Tea and coffee"] * 7, False),  # a path of categories
        ([["A first category of a long name", f"another one of number {item}"] for item in range(7)], False),
        ([f"Brand {item}" for item in range(7)], False),
        ([PROSE] * 7, True),
    ],
)
def test_what_counts_as_prose(tmp_path: Path, plain: tuple[Path, Path], texts: list[Any], is_prose: bool) -> None:
    products = [{"sku": f"s{item}", "name": f"Lamp {item}", "words": text} for item, text in enumerate(texts)]
    tables = tables_of(plain[0], write_jsonl(tmp_path / "words.jsonl", products), text=("words",))
    import_csv(tables, "shop", tmp_path / "data")
    item = read_items(tmp_path / "data/shop/items.jsonl")["s3"]
    assert bool(item.description) == is_prose and bool(item.attributes) != is_prose


def test_ratings_below_the_least_are_left_out(tmp_path: Path, plain: tuple[Path, Path]) -> None:
    choice = Choice(k_core=1, shares=(8, 1, 1), min_rating=4)
    assert import_csv(tables_of(*plain), "shop", tmp_path / "data", choice).rated == sum(row[2] >= 4 for row in ORDERS)


def test_duplicates_are_one_interaction_at_its_last_time(tmp_path: Path) -> None:
    rows = [*order_rows(), {**order_rows()[0], "when": "2024-04-01", "stars": 5}, order_rows()[0]]
    summary = import_csv(tables_of(write_csv(tmp_path / "orders.csv", rows), None), "shop", tmp_path / "data")
    assert (summary.rated, summary.distinct) == (len(ORDERS) + 2, len(ORDERS))
    assert "c0\ts0\t5\t1711929600\n" in (tmp_path / "data/shop/shop.inter").read_text(encoding="utf-8")


def codes(folder: Path) -> dict[tuple[str, str], str]:
    rows = [line.split("\t") for line in (folder / "shop.inter").read_text(encoding="utf-8").splitlines()[1:]]
    users, items = [row[0] for row in rows], [row[1] for row in rows]
    found = read_split(folder / "shop.split.json", users, items)
    return {pair: SPLIT_NAMES[code] for pair, code in zip(zip(users, items), found.tolist())}


def test_a_training_uses_the_frozen_split(tmp_path: Path, plain: tuple[Path, Path]) -> None:
    import_csv(tables_of(*plain), "shop", tmp_path, Choice(k_core=1, shares=(3, 1, 1), split="time"))
    for seed in (1, 2):
        config = RLMRecConfig("BPR", "shop", config_dict={"data_path": str(tmp_path), "seed": seed})
        dataset = create_dataset(config)
        assert dataset.split_origin == "the frozen one of shop.split.json (by time 3:1:1)"
        assert [len(part) for part in dataset.build()] == [18, 6, 6]


def test_split_by_time(tmp_path: Path, plain: tuple[Path, Path]) -> None:
    import_csv(tables_of(*plain), "shop", tmp_path, Choice(k_core=1, shares=(3, 1, 1), split="time"))
    day = {(user, item): day for user, item, _, day in ORDERS}
    found = codes(tmp_path / "shop")
    assert {day[pair] for pair in found if found[pair] == "train"} == {1, 2, 3}
    assert {day[pair] for pair in found if found[pair] == "test"} == {5}


def test_split_leave_one_out(tmp_path: Path, plain: tuple[Path, Path]) -> None:
    import_csv(tables_of(*plain), "shop", tmp_path, Choice(k_core=1, split="leave-one-out"))
    found = codes(tmp_path / "shop")
    expected = {(user, item): {5: "test", 4: "valid"}.get(day, "train") for user, item, _, day in ORDERS}
    assert found == expected


@pytest.mark.parametrize(
    ("split", "options"),
    [
        ("time", ["--by-time", "--ratios=8:1:1"]),
        ("time", ["--by-time", "--ratios=7:2:1"]),
        ("leave-one-out", ["--leave-one-out"]),
    ],
)
@pytest.mark.parametrize("n_rows", [5, 29])
def test_a_split_by_time_is_the_one_that_the_verb_makes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], split: str, options: list[str], n_rows: int
) -> None:
    # Some times are equal, and their rows are in no order.
    rows = [{"customer": f"c{n % 2}", "sku": f"s{7 * n % n_rows}", "when": 10 + 3 * n % 8} for n in range(n_rows)]
    shares = tuple(map(float, options[-1].split("=")[1].split(":"))) if split == "time" else (8, 1, 1)
    tables = Tables(write_csv(tmp_path / "orders.csv", rows), "customer", "sku", time="when")
    import_csv(tables, "shop", tmp_path, Choice(k_core=1, split=split, shares=shares))
    assert main(["split", "--dataset=shop", f"--data_path={tmp_path}", *options]) == 0
    assert "already in" in capsys.readouterr().out


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000])
def test_times_as_numbers(tmp_path: Path, unit: int) -> None:
    rows = [{**row, "when": (1_700_000_000 + n) * unit} for n, row in enumerate(order_rows())]
    import_csv(tables_of(write_csv(tmp_path / "orders.csv", rows), None), "shop", tmp_path)
    assert "c0\ts0\t1\t1700000000\n" in (tmp_path / "shop/shop.inter").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("20240301", 1709251200),
        ("20240301120000", 1709294400),
        ("1709294400000000000", 1709294400),
        ("1.3.2024", 1709251200),  # the day stands first where full stops are
        ("01.03.2024 12:00", 1709294400),
    ],
)
def test_times_that_can_mean_one_thing_only(
    tmp_path: Path, written: str, seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    orders = write_csv(tmp_path / "orders.csv", [{**row, "when": written} for row in order_rows()])
    import_csv(tables_of(orders, None), "shop", tmp_path)
    assert f"\t{seconds}\n" in (tmp_path / "shop/shop.inter").read_text(encoding="utf-8")
    assert not caplog.records


@pytest.mark.parametrize("written", ["2024", "45352.5", "-5"])
def test_times_before_there_were_shops_are_said(tmp_path: Path, written: str, caplog: pytest.LogCaptureFixture) -> None:
    orders = write_csv(tmp_path / "orders.csv", [{**row, "when": written} for row in order_rows()])
    preview(tables_of(orders, None))
    assert [record.getMessage().count("and so lie before 1973") for record in caplog.records] == [1]


def test_rows_without_a_rating_count_and_are_said(tmp_path: Path) -> None:
    rows = [{**row, "stars": "" if row["stars"] == 1 else row["stars"]} for row in order_rows()]
    choice = Choice(k_core=1, shares=(8, 1, 1), min_rating=4)
    summary = import_csv(tables_of(write_csv(tmp_path / "orders.csv", rows), None), "shop", tmp_path, choice)
    n_unrated = sum(row[2] == 1 for row in ORDERS)
    assert summary.unrated == n_unrated and f"at least 4 or, {n_unrated} of them, none" in str(summary)


@pytest.mark.parametrize("written", ["S{}", "{}", "00{}"])
def test_ids_of_items_that_are_all_others(tmp_path: Path, written: str) -> None:
    orders = write_csv(tmp_path / "orders.csv", order_rows())
    rows = [{**row, "sku": written.format(n)} for n, row in enumerate(product_rows())]
    tables = tables_of(orders, write_csv(tmp_path / "products.csv", rows))
    expected = f"has none of the 7 items of the interactions: its ids are such as '{written.format(0)}', .*such as 's0'"
    with pytest.raises(DataError, match=expected):
        import_csv(tables, "shop", tmp_path / "data")
    assert not (tmp_path / "data/shop/shop.inter").exists()


def test_why_a_split_lacks_parts(tmp_path: Path) -> None:
    rows = [{**row, "customer": f"c{n}"} for n, row in enumerate(order_rows())]
    with pytest.raises(DataError, match="30 of them are the only one of a user or an item, and stay in training"):
        import_csv(tables_of(write_csv(tmp_path / "orders.csv", rows), None), "shop", tmp_path)


def test_dates_of_another_form(tmp_path: Path) -> None:
    orders = write_csv(tmp_path / "orders.csv", [{**row, "when": "03/01/2024"} for row in order_rows()])
    with pytest.raises(
        DataError, match=r"the times in 'when', such as '03/01/2024', are not understood.*--time-format"
    ):
        import_csv(tables_of(orders, None), "shop", tmp_path)
    import_csv(tables_of(orders, None, time_format="%m/%d/%Y"), "shop", tmp_path)
    assert "\t1709251200\n" in (tmp_path / "shop/shop.inter").read_text(encoding="utf-8")  # 2024-03-01


def test_whole_numbers_written_as_decimals(tmp_path: Path) -> None:
    rows = [{**row, "sku": f"{row['sku'][1:]}.0"} for row in order_rows()]
    products = write_csv(tmp_path / "products.csv", [{**row, "sku": row["sku"][1:]} for row in product_rows()])
    summary = import_csv(tables_of(write_csv(tmp_path / "orders.csv", rows), products), "shop", tmp_path)
    assert summary.items_without_entry == 0


@pytest.mark.parametrize(
    ("change", "options", "expected"),
    [
        (lambda text: text.replace("customer", "Customer"), {}, r"no column 'customer'. Did you mean 'Customer'\?"),
        (lambda text: text.split("\n")[0] + "\n", {}, "has a header and no rows"),
        (lambda text: "", {}, "is empty"),
        (lambda text: re.sub(",s([0-4]),", r",1\1.50,", text), {}, "look like prices"),
        (lambda text: re.sub(",s([0-4]),", r",$1\1.50,", text), {}, "look like prices"),
        (lambda text: text.replace(",s0,", ",4.05E+12,"), {}, "an id whose last digits a spreadsheet has rounded away"),
        (lambda text: text.replace(",s0,", ",s,0,"), {}, "line 2 has 6 fields, where the header has 5"),
        (lambda text: text.replace(",s3", ',"s3'), {}, "quotation mark"),
        (lambda text: text.replace("sku", "customer", 1), {"item": "customer"}, "named for two roles"),
        (lambda text: text.replace("qty", "customer", 1), {}, "the column 'customer' more than once"),
        (lambda text: "PK\x03\x04" + text, {}, "workbook"),
        (lambda text: "sep=,\n" + text, {}, "begins with 'sep=', which is .* for Excel"),
        (lambda text: "SEP=;\n" + text.replace(",", ";"), {}, "begins with 'SEP=', which is .* for Excel"),
        (lambda text: "# exported\n" + text, {}, "begins with '# exported', which is a comment"),
        (lambda text: "\0".join(text), {}, "UTF-16 without a mark"),
        (lambda text: text, {"time_format": "%Y"}, "--time-format %Y needs --time COLUMN"),
        (lambda text: text, {"item_id": "sku"}, "--items FILE"),
    ],
)
def test_bad_tables(tmp_path: Path, change: Callable[[str], str], options: dict[str, Any], expected: str) -> None:
    orders = write_csv(tmp_path / "orders.csv", order_rows())
    text = change(orders.read_text(encoding="utf-8").replace("\r\n", "\n"))
    orders.write_text(text + ("x" * 2**20 if '"' in text else ""), encoding="utf-8")
    tables = Tables(**{"interactions": orders, "user": "customer", "item": "sku", **options})
    with pytest.raises((DataError, SettingError), match=expected):
        import_csv(tables, "shop", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_tables_are_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(DataError, match="is no file, expected a table"):
            import_csv(Tables(path, "customer", "sku"), "shop", tmp_path / "data")


@pytest.mark.parametrize("encoding", [None, "utf-8"])
def test_lines_without_end_are_not_read_to_their_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str | None
) -> None:
    monkeypatch.setattr(table_rows, "_LONGEST_LINE", 1000)
    (tmp_path / "orders.csv.gz").write_bytes(gzip.compress(b"customer,sku\nc1,s1\n" + b"c" * 10**6))
    tables = Tables(tmp_path / "orders.csv.gz", "customer", "sku", encoding=encoding)
    with pytest.raises(DataError, match=r"line 3.* longer than 1,000 (bytes|characters)"):
        import_csv(tables, "shop", tmp_path / "data")


@pytest.mark.parametrize("n_bytes", [10**8, -20])
def test_gzipped_tables_are_whole_and_no_bombs(tmp_path: Path, n_bytes: int) -> None:
    content = gzip.compress(b"customer,sku\n" + b"c1,s1\n" * max(n_bytes // 6, 1000), compresslevel=9)
    (tmp_path / "orders.csv.gz").write_bytes(content if n_bytes > 0 else content[:n_bytes])
    expected = "holds more than" if n_bytes > 0 else "is a damaged gzip file"
    with pytest.raises(DataError, match=expected):
        import_csv(Tables(tmp_path / "orders.csv.gz", "customer", "sku"), "shop", tmp_path / "data")


def test_mixed_encodings(tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_bytes("customer,sku\nänne,s1\n".encode() + "jörg,s2\n".encode("cp1252"))
    with pytest.raises(DataError, match="mixes encodings: line 2 is UTF-8, line 3 is not"):
        import_csv(Tables(orders, "customer", "sku"), "shop", tmp_path)


@pytest.mark.parametrize(
    ("bad", "lines"),
    [
        ('c1,"s1\nc2,s2\nc3,"s3"', [3, 4, 5]),  # open up to the next mark
        ('c1,"s1"x', [3]),
        ('c1,"6" nail"', [3]),
    ],
)
def test_no_row_vanishes_in_a_quotation_mark(tmp_path: Path, bad: str, lines: list[int]) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text(f"customer,sku\nc0,s0\n{bad}\n" + "".join(f"d{n % 6},s{n % 7}\n" for n in range(39)))
    tables = Tables(orders, "customer", "sku")
    with pytest.raises(DataError) as caught:
        import_csv(tables, "shop", tmp_path / "data")
    message = str(caught.value)
    assert f"{len(lines)} of its {40 + len(lines)} lines are malformed" in message
    assert all(f"line {number} is of a field whose quotation mark is not closed" in message for number in lines)
    assert import_csv(tables, "shop", tmp_path / "data", max_malformed=0.9).distinct == 40


def test_a_quotation_mark_is_open_up_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text('customer,sku\nc0,s0\nc1,"s1\nc2,s2\n')
    with pytest.raises(DataError, match="2 of its 3 lines are malformed"):
        import_csv(Tables(tmp_path / "orders.csv", "customer", "sku"), "shop", tmp_path / "data")


def test_quoted_fields_hold_marks_separators_and_line_breaks(tmp_path: Path) -> None:
    orders = tmp_path / "orders.csv"
    orders.write_text('"customer","sku"\r\n"c,0","6"" nail"\r\n"c\n1",5" nail\r\n')
    text = preview(Tables(orders, "customer", "sku"))
    assert "line 2: user 'c,0', item '6\" nail'" in text and "line 3: user 'c\\n1', item '5\" nail'" in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"encoding": "utf-9"}, "no such encoding"),
        ({"encoding": "base64"}, "no such encoding"),
        ({"separator": "::"}, "one character"),
        ({"title": "name"}, "--items FILE"),
    ],
)
def test_bad_settings(tmp_path: Path, options: dict[str, Any], expected: str) -> None:
    orders = write_csv(tmp_path / "orders.csv", order_rows())
    with pytest.raises(SettingError, match=expected):
        import_csv(Tables(orders, "customer", "sku", **options), "shop", tmp_path)


@pytest.mark.parametrize("least", [float("nan"), float("inf")])
def test_the_least_rating_is_a_number(tmp_path: Path, plain: tuple[Path, Path], least: float) -> None:
    with pytest.raises(SettingError, match="min-rating"):
        import_csv(tables_of(*plain), "shop", tmp_path / "data", Choice(k_core=1, shares=(8, 1, 1), min_rating=least))


@pytest.mark.parametrize("choice", [Choice(split="time"), Choice(min_rating=3)])
def test_a_choice_needs_its_column(tmp_path: Path, choice: Choice) -> None:
    orders = write_csv(tmp_path / "orders.csv", order_rows())
    with pytest.raises(SettingError, match=r"needs --(time|rating) COLUMN"):
        import_csv(Tables(orders, "customer", "sku"), "shop", tmp_path, choice)


def test_a_dataset_that_exists_is_replaced_on_request_only(tmp_path: Path, plain: tuple[Path, Path]) -> None:
    import_csv(tables_of(*plain), "shop", tmp_path)
    with pytest.raises(DataError, match=r"exists already.*--overwrite"):
        import_csv(tables_of(*plain), "shop", tmp_path)
    import_csv(tables_of(*plain), "shop", tmp_path, overwrite=True)


@pytest.mark.parametrize("rename", [3, 4, 6])
def test_the_same_command_repairs_a_first_import_that_was_killed(
    tmp_path: Path, plain: tuple[Path, Path], rename: int
) -> None:
    killed_at_rename(rename, lambda: import_csv(tables_of(*plain), "shop", tmp_path))
    with pytest.raises(DataError, match=r"Run the same `recbole-rlmrec import-csv --dataset shop \.\.\.` again"):
        create_dataset(RLMRecConfig("BPR", "shop", config_dict={"data_path": str(tmp_path)}))
    import_csv(tables_of(*plain), "shop", tmp_path)
    assert len(create_dataset(RLMRecConfig("BPR", "shop", config_dict={"data_path": str(tmp_path)})).inter_feat) == 30


def test_preview_shows_rows_and_writes_nothing(tmp_path: Path, plain: tuple[Path, Path]) -> None:
    text = preview(tables_of(*plain))
    assert "orders.csv: CSV, separator comma, encoding utf-8" in text and "line 2: user 'c0', item 's0'" in text
    assert "title 'Lampe für Räume 0'" in text and "brand 'Oak, Glass'" in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["orders.csv", "products.csv"]


def test_a_preview_counts_what_the_import_would_refuse(tmp_path: Path) -> None:
    rows = order_rows()
    orders = write_csv(tmp_path / "orders.csv", [*rows[:10], {**rows[10], "customer": ""}, *rows[11:]])
    text = preview(tables_of(orders, None))
    assert text.count("  line ") == 5 and f"1 of the first {len(rows)} rows are malformed, such as line 12 " in text


def test_parquet_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = tmp_path / "orders.parquet"
    orders.write_bytes(b"PAR1....PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingError, match="pip install pyarrow"):
        import_csv(Tables(orders, "customer", "sku"), "shop", tmp_path)


@pytest.mark.parametrize(("split", "is_said"), [("time", True), ("leave-one-out", True), ("random", False)])
def test_a_seed_that_draws_nothing_is_said(
    tmp_path: Path, plain: tuple[Path, Path], caplog: pytest.LogCaptureFixture, split: str, is_said: bool
) -> None:
    words = ["import-csv", f"--interactions={plain[0]}", "--user=customer", "--item=sku", "--time=when", "--dataset=x"]
    assert main([*words, f"--split={split}", "--seed=3", "--dry-run"]) == 0
    assert (f"--seed 3 changes nothing: --split {split}" in caplog.text) is is_said


def test_without_texts_a_model_without_alignment_comes_next(
    tmp_path: Path, plain: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["import-csv", f"--interactions={plain[0]}", "--user=customer", "--item=sku", "--dataset=x"]
    assert main([*words, f"--output={tmp_path}"]) == 0
    out = capsys.readouterr().out
    assert f"next: recbole-rlmrec train --model=LightGCN --dataset=x --data_path={tmp_path}\n" in out
    assert "build-semantics" not in out


def test_command_line(tmp_path: Path, plain: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    orders, products = plain
    arguments = ["import-csv", f"--interactions={orders}", "--user=customer", "--item=sku", "--rating=stars"]
    arguments += ["--min-rating=2", "--time=when", f"--items={products}", "--title=name", "--text=description,brand"]
    assert main([*arguments, "--dataset=shop", f"--output={tmp_path}", "--dry-run"]) == 0
    assert main([*arguments, "--dataset=shop", f"--output={tmp_path}", "--ratios=3:1:1"]) == 0
    out = capsys.readouterr().out
    assert "Nothing was written." in out and "with a rating of at least 2" in out and "next: recbole-rlmrec" in out
