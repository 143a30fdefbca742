"""Texts are written and read whole, and a corpus is split as the training is: nothing held out is in it."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from recbole.utils import init_seed

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.dataset import fingerprint
from recbole_rlmrec.data.preparation import create_dataset
from recbole_rlmrec.data.split import pairs_sha256
from recbole_rlmrec.data.table import Table
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.text.corpus import Corpus, Item, Review
from recbole_rlmrec.text.files import iter_reviews, read_items, write_items, write_reviews
from recbole_rlmrec.text.load import load_corpus

ITEMS = [
    Item("i0", "Zelda", "A <tale>\nin two lines", {"genres": ("Action", "Indie"), "year": ("1998",)}),
    Item("i1"),
    Item("i2", "Éowyn\u2028 'n' \"Co\""),
]


def test_items_come_back_as_written(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write_items(path, iter(ITEMS))
    assert list(read_items(path).items()) == [(item.token, item) for item in ITEMS]
    first, second, _ = path.read_text(encoding="utf-8").split("\n")[:3]
    assert json.loads(first)["attributes"] == {"genres": ["Action", "Indie"], "year": "1998"}
    assert second == '{"item_id": "i1", "title": "", "description": "", "attributes": {}}'
    assert [item.has_text for item in ITEMS] == [True, False, True]


def test_reviews_come_back_as_written(tmp_path: Path) -> None:
    reviews = [Review("u", "i", "Nice\n", 4.5, 12.0), Review("u", "j"), Review("v", "i", "half \ud800 pair", 3.0, 1.25)]
    path = tmp_path / "reviews.jsonl"
    write_reviews(path, iter(reviews))
    assert path.read_text().splitlines()[0] == (
        '{"user_id": "u", "item_id": "i", "text": "Nice\\n", "rating": 4.5, "timestamp": 12}'
    )
    assert list(iter_reviews(path)) == [*reviews[:2], Review("v", "i", "half ? pair", 3.0, 1.25)]


def test_half_a_surrogate_pair_in_an_item_can_be_written_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(r'{"item_id": "i", "title": "a \ud83d", "description": "\udc00", "attributes": {"by": "\ud83d b"}}')
    half = "\N{REPLACEMENT CHARACTER}"
    assert read_items(path) == {"i": Item("i", f"a {half}", half, {"by": (f"{half} b",)})}


def test_what_is_missing_becomes_no_text(tmp_path: Path) -> None:
    """pandas and Python write NaN where nothing is, which is no title 'nan'."""
    path = tmp_path / "items.jsonl"
    path.write_text(
        '{"item_id": "a", "title": NaN, "description": null, "attributes": {"genres": ["Crime", NaN, null]}}\n'
        '{"item_id": "b", "title": "Fargo", "attributes": {"year": NaN, "genres": null}}\n'
    )
    assert list(read_items(path).values()) == [Item("a", attributes={"genres": ("Crime",)}), Item("b", "Fargo")]
    (tmp_path / "reviews.jsonl").write_text('{"user_id": "u", "item_id": "a", "text": NaN, "rating": NaN}\n')
    assert list(iter_reviews(tmp_path / "reviews.jsonl")) == [Review("u", "a")]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"item_id": "a\\tb"}', "'a\\tb', which holds a tab"),
        ('{"item_id": "a\\nb"}', "which holds a line break"),
        ('{"item_id": "a\\u0000"}', "which holds a null character"),
        ('{"item_id": "  "}', "which is empty"),
        ('{"item_id": "null"}', "which is read as missing"),
        ('{"item_id": "[PAD]"}', "which is RecBole's own name of the padding id"),
        ('{"item_id": "%s"}' % ("x" * 2000), "'item_id' of 2,000 characters, of at most 1,000"),
        ('{"item_id": NaN}', "'item_id' = None, expected text"),
        ('{"item_id": 1.5}', "'item_id' = 1.5, expected text"),
        ('{"item_id": "a", "attributes": {"year": Infinity}}', "the attribute 'year'"),
        ('{"item_id": "a", "attributes": {"year": [1e999]}}', "the attribute 'year'"),
        ('{"item_id": "a", "title": Infinity}', "'title' of type float, expected text"),
    ],
)
def test_an_item_that_is_none_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text(f'{{"item_id": "good"}}\n{line}\n')
    with pytest.raises(DataError) as caught:
        read_items(path)
    assert "line 2 has " in str(caught.value) and said in str(caught.value)


def test_failed_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    write_items(path, ITEMS)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        write_items(path, (Item(str(1 // n)) for n in (1, 0)))
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_malformed_items_are_skipped_with_a_warning(tmp_path: Path, caplog: Any) -> None:
    lines = [
        f'{{"item_id": "i{number}", "attributes": {{"a": [{number}, " ", true], "b": null}}}}' for number in range(96)
    ]
    lines += [
        '{"title": "no id"}',
        '{"item_id": "i3"}',
        '{"item_id": "x", "title": 5}',
        '{"item_id": "x", "attributes": {"a": {"b": "c"}}}',
    ]
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(lines))
    items = read_items(path, max_malformed=0.04)
    assert len(items) == 96 and items["i7"].attributes == {"a": ("7", "True")}
    assert "4 of 100 lines are malformed and were skipped, the first: line 97 has no 'item_id'" in caplog.text
    with pytest.raises(
        DataError, match=r"(?s)4 of its 100 lines.*line 98 repeats the item 'i3'.*has 'title' of type int"
    ):
        read_items(path)


# ---------------------------------------------------------------------- MovieLens, from atomic files


@pytest.fixture(scope="module")
def movielens() -> Corpus:
    return load_corpus(RLMRecConfig("LightGCN", "ml-100k", config_dict={"state": "ERROR"}))


@pytest.mark.parametrize("parts", [False, True])
def test_each_file_of_interactions_is_read_once(tmp_path: Path, parts: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By RecBole and for its texts at one time, also where a column with words has to be kept from RecBole."""
    header = "user_id:token\titem_id:token\trating:float\tsaid:token_seq"
    rows = {"train": ["u\ti\t3\tso  good", "v\tj\t4\tNA"], "valid": ["u\tj\t1\tbad"], "test": ["v\ti\t2\tworse"]}
    folder = tmp_path / "said"
    folder.mkdir()
    files = {f"said.{part}.inter": lines for part, lines in rows.items()}
    if not parts:
        files = {"said.inter": [f"{line}\t{part}" for part, lines in rows.items() for line in lines]}
        header += "\tsplit:token"
    for name, lines in files.items():
        (folder / name).write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    config = RLMRecConfig("BPR", "said", config_dict={"data_path": str(tmp_path), "review_field": "said"})
    read, names = Table.read, []
    monkeypatch.setattr(Table, "read", lambda table, *how: names.append(table.path.name) or read(table, *how))
    corpus = load_corpus(config)
    assert sorted(names) == sorted(files)
    assert corpus.training == (Review("u", "i", "so  good", 3.0), Review("v", "j", "", 4.0))


def test_movielens_has_its_texts(movielens: Corpus) -> None:
    assert (movielens.dataset, len(movielens.items), len(movielens.users)) == ("ml-100k", 1682, 943)
    assert movielens.items["1"] == Item(
        "1", "Toy Story", "", {"release_year": ("1995",), "class": ("Animation", "Children's", "Comedy")}
    )
    assert movielens.users["1"] == {"age": ("24",), "occupation": ("technician",)}


def test_movielens_is_split_as_the_training_is(movielens: Corpus) -> None:
    shipped = Path(__file__).resolve().parents[2] / "dataset" / "ml-100k" / "ml-100k.semantic.json"
    assert movielens.train_sha256 == json.loads(shipped.read_text())["train_sha256"]
    pairs = [(review.user, review.item) for review in movielens.training]
    assert len(pairs) == 60_000 and len(movielens.held_out) == 40_000
    assert not movielens.held_out & set(pairs)
    assert pairs == sorted(pairs)
    assert pairs_sha256(*zip(*pairs)) == movielens.train_sha256


def test_movielens_ratings_are_those_of_the_file(movielens: Corpus) -> None:
    config = RLMRecConfig("LightGCN", "ml-100k", config_dict={"state": "ERROR"})
    table = pd.read_csv(Path(config["data_path"]) / "ml-100k.inter", sep="\t", dtype=str)
    table.columns = [name.split(":")[0] for name in table.columns]
    given = {(row.user_id, row.item_id): (float(row.rating), float(row.timestamp)) for row in table.itertuples()}
    for review in movielens.training:
        assert (review.rating, review.timestamp) == given[review.user, review.item]
    assert {review.text for review in movielens.training} == {""}


# ---------------------------------------------------------------------- a shop


class Shop:
    """A dataset of 6 users and 5 items, all with all, in the user's folder of datasets."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root / "shop"
        self.folder.mkdir()
        parts = ["train", "train", "train", "valid", "test"]
        self.rows = [
            (f"u{u}", f"i{i}", str(1 + i), str(100 * u + i), parts[(u + i) % 5]) for u in range(6) for i in range(5)
        ]
        self.inter()
        self.table("item", "item_id:token", "name:token_seq", "about:token_seq", "tags:token_seq", "price:float")
        for i in range(5):
            self.add("item", f"i{i}", f"The  Thing {i}", "NA" if i else "All about it", "red blue" if i else "", "9.5")
        self.table("user", "user_id:token", "city:token", "likes:token_seq")
        self.add("user", "u1", "Oslo", "tea")
        self.add("user", "u2", "null", "")

    def table(self, kind: str, *columns: str) -> None:
        (self.folder / f"shop.{kind}").write_text("\t".join(columns) + "\n")

    def add(self, kind: str, *cells: str) -> None:
        with (self.folder / f"shop.{kind}").open("a") as stream:
            stream.write("\t".join(cells) + "\n")

    def inter(self, *more: str, words: Any | None = None) -> None:
        columns = ["user_id:token", "item_id:token", "rating:float", "timestamp:float", "split:token"]
        self.table("inter", *columns, *(["words:token_seq"] if words else []))
        for row in self.rows:
            self.add("inter", *row, *([words(row)] if words else []))

    def load(self, **settings: Any) -> Corpus:
        settings = {"data_path": str(self.root), "state": "WARNING", **settings}
        return load_corpus(RLMRecConfig("LightGCN", "shop", config_dict=settings))

    def pairs(self, *parts: str) -> set[tuple[str, str]]:
        return {row[:2] for row in self.rows if row[-1] in parts}


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.chdir(tmp_path)
    return Shop(tmp_path)


def test_columns_named_in_the_configuration(shop: Shop) -> None:
    shop.inter(words=lambda row: f"{row[0]} likes  {row[1]}")
    corpus = shop.load(
        item_title_field="name",
        item_description_field="about",
        item_attribute_fields=["tags", "price"],
        user_attribute_fields=["city", "likes"],
        review_field="words",
    )
    assert corpus.items["i0"] == Item("i0", "The  Thing 0", "All about it", {"price": ("9.5",)})
    assert corpus.items["i3"] == Item("i3", "The  Thing 3", "", {"tags": ("red", "blue"), "price": ("9.5",)})
    assert corpus.users["u1"] == {"city": ("Oslo",), "likes": ("tea",)}
    assert corpus.users["u2"] == corpus.users["u0"] == {}
    assert corpus.training[0] == Review("u0", "i0", "u0 likes  i0", 1.0, 0.0)
    assert {(review.user, review.item) for review in corpus.training} == shop.pairs("train")
    assert corpus.held_out == shop.pairs("valid", "test")


def test_nothing_named_is_nothing_shown(shop: Shop) -> None:
    for kind in ("item", "user"):
        (shop.folder / f"shop.{kind}").unlink()
    corpus = shop.load()
    assert not any(item.has_text for item in corpus.items.values()) and len(corpus.items) == 5
    assert set(corpus.users) == {f"u{u}" for u in range(6)} and not any(corpus.users.values())
    assert [(review.rating, review.timestamp) for review in corpus.training[:2]] == [(1.0, 0.0), (2.0, 1.0)]


def test_files_go_before_columns(shop: Shop, caplog: Any) -> None:
    write_items(shop.folder / "items.jsonl", [Item("i1", "One"), Item("elsewhere", "Two")])
    rows = [row for row in shop.rows if row[1] != "i2"]
    write_reviews(
        shop.folder / "reviews.jsonl",
        [Review(row[0], row[1], f"{row[4]} {row[0]} {row[1]}", None, 7.0 if row[1] == "i1" else None) for row in rows],
    )
    with caplog.at_level(logging.INFO):
        corpus = shop.load(item_title_field="name")
    assert {item.title for item in corpus.items.values()} == {"One", ""}
    assert "4 of 5 items of shop have no text" in caplog.text
    for review in corpus.training:
        i = int(review.item[1])
        assert review.text == ("" if i == 2 else f"train {review.user} {review.item}")
        assert review.rating == 1 + i  # what reviews.jsonl does not know is the interactions file's
        assert review.timestamp == (7.0 if i == 1 else 100 * int(review.user[1]) + i)


def test_reviews_of_unknown_ids(shop: Shop, caplog: Any) -> None:
    known = [Review(*row[:2], "words") for row in shop.rows]
    strange = [Review("stranger", "i1", "a"), Review("u1", "B00", "b")]
    write_reviews(shop.folder / "reviews.jsonl", [*known, *strange])
    shop.load()
    (record,) = [record for record in caplog.records if "reviews are of users or items" in record.getMessage()]
    assert "2 of 32 reviews" in record.getMessage() and "(stranger, i1), (u1, B00)" in record.getMessage()
    write_reviews(shop.folder / "reviews.jsonl", strange)
    with pytest.raises(DataError, match=r"None of the 2 reviews of .*\(stranger, i1\).*users such as 'u0', 'u1', 'u2'"):
        shop.load()
    (shop.folder / "reviews.jsonl").unlink()
    write_items(shop.folder / "items.jsonl", [Item("B00", "x")])
    with pytest.raises(DataError, match=r"None of the 1 items of .* is in the dataset: it has 'B00', the dataset 'i"):
        shop.load()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"item_title_field": "nane"},
            r"shop.item' has no column 'nane' \(item_title_field\); it has item_id, name.*'name'",
        ),
        ({"item_attribute_fields": ["tags", "zzz"]}, r"no column 'zzz' .item_attribute_fields.*Correct item_attribute"),
        ({"user_attribute_fields": ["town"]}, r"shop.user' has no column 'town'"),
        ({"review_field": "words"}, r"shop.inter' has no column 'words' \(review_field\)"),
    ],
)
def test_missing_columns(shop: Shop, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        shop.load(**settings)


def test_missing_and_broken_tables(shop: Shop) -> None:
    (shop.folder / "shop.user").unlink()
    with pytest.raises(DataError, match=r"no '.*shop.user', from which user_attribute_fields wants the column 'city'"):
        shop.load(user_attribute_fields=["city"])
    (shop.folder / "shop.item").write_bytes(b"item_id:token\tname:token_seq\ni0\t\xff\n")
    with pytest.raises(DataError, match=r"shop.item' cannot be read as utf-8 text"):
        shop.load(item_title_field="name")


def test_split_drawn_by_recbole_is_that_of_the_training(shop: Shop) -> None:
    shop.table("inter", "user_id:token", "item_id:token", "rating:float", "timestamp:float")
    for row in shop.rows:
        shop.add("inter", *row[:4])
    found = {}
    for seed in (1, 2):
        settings = {"data_path": str(shop.root), "state": "ERROR", "seed": seed}
        config = RLMRecConfig("LightGCN", "shop", config_dict=settings)
        init_seed(config["seed"], config["reproducibility"])
        training = create_dataset(config).build()[0]
        torch.rand(3)
        corpus = shop.load(seed=seed)
        found[seed] = corpus.train_sha256
        assert corpus.train_sha256 == fingerprint(training, with_embeddings=False)["training interactions"]
        assert len(corpus.training) + len(corpus.held_out) == 30
    assert found[1] != found[2]


def test_parts_in_files_of_their_own(shop: Shop) -> None:
    columns = ("user_id:token", "item_id:token", "rating:float")
    for part in ("train", "valid", "test"):
        shop.table(f"{part}.inter", *columns)
        for row in shop.rows:
            if row[-1] == part:
                shop.add(f"{part}.inter", *row[:3])
    (shop.folder / "shop.inter").unlink()
    corpus = shop.load()
    assert corpus.held_out == shop.pairs("valid", "test")
    assert {(review.user, review.item) for review in corpus.training} == shop.pairs("train")
    assert all(review.rating == 1 + int(review.item[1]) and review.timestamp is None for review in corpus.training)


def test_a_pair_that_occurs_again_tells_what_belongs_to_its_training_rows(shop: Shop) -> None:
    # (u0, i3) is for validation; its later row is for training too, and (u0, i0) is so twice.
    shop.rows += [("u0", "i3", "2", "900", "train"), ("u0", "i0", "4", "50", "train")]
    shop.inter()
    write_reviews(
        shop.folder / "reviews.jsonl",
        [
            Review("u0", "i0", "late", None, 50.0),
            Review("u0", "i0", "early", None, 0.0),
            Review("u0", "i0", "3", None, 60.0),
        ],
    )
    corpus = shop.load()
    found = [review for review in corpus.training if (review.user, review.item) in {("u0", "i0"), ("u0", "i3")}]
    assert found == [
        Review("u0", "i0", "early", 1.0, 0.0),
        Review("u0", "i0", "late", 4.0, 50.0),
        Review("u0", "i3", "", 2.0, 900.0),
    ]
    assert ("u0", "i3") not in corpus.held_out
    config = RLMRecConfig("LightGCN", "shop", config_dict={"data_path": str(shop.root), "state": "ERROR"})
    training = create_dataset(config).build()[0]
    tokens = [
        training.id2token(field, training.inter_feat[field].numpy()).astype(str) for field in ("user_id", "item_id")
    ]
    assert Counter(zip(*tokens)) == Counter((review.user, review.item) for review in corpus.training)
    assert corpus.train_sha256 == pairs_sha256(*tokens)


LOADED = {"load_col": {"inter": ["user_id", "item_id", "rating", "timestamp", "split"]}}


def twice(shop: Shop, *reviews: tuple[str, float | None], **settings: Any) -> list[Review]:
    """Return what training knows of (u0, i3), of which ``reviews.jsonl`` says this."""
    write_reviews(shop.folder / "reviews.jsonl", [Review("u0", "i3", text, None, time) for text, time in reviews])
    return [review for review in shop.load(**settings).training if (review.user, review.item) == ("u0", "i3")]


@pytest.mark.parametrize("settings", [{}, LOADED])
@pytest.mark.parametrize("training_time", ["1", "900"])  # (u0, i3) is held out at 3
def test_the_text_of_a_held_out_row_is_never_used(shop: Shop, training_time: str, settings: Any, caplog: Any) -> None:
    shop.rows.append(("u0", "i3", "2", training_time, "train"))
    shop.inter(words=lambda row: f"{row[-1]} at {row[-2]}")
    time = float(training_time)
    # The column's own text is the row's, whatever its time; reviews.jsonl's goes before it where the time fits.
    said = twice(shop, ("held out", 3.0), ("else", 5.0), review_field="words", **settings)
    assert said == [Review("u0", "i3", f"train at {training_time}", 2.0, time)]
    assert twice(shop, ("held out", 3.0), ("known", time), **settings) == [Review("u0", "i3", "known", 2.0, time)]
    assert "times do not say" not in caplog.text


@pytest.mark.parametrize("times", [(None, None), (3.0, 3.0), (77.0, None)])
@pytest.mark.parametrize("settings", [{}, LOADED])
def test_a_text_that_may_be_held_out_is_left_out(shop: Shop, times: Any, settings: Any) -> None:
    shop.rows.append(("u0", "i3", "2", "900", "train"))
    shop.inter()
    (said,) = twice(shop, *zip(("one", "other"), times), **settings)
    assert said == Review("u0", "i3", "", 2.0, 900.0)


def test_rows_at_the_same_time_are_not_distinguished_by_it(shop: Shop) -> None:
    shop.rows.append(("u0", "i3", "2", "3", "train"))
    shop.inter()
    assert twice(shop, ("one", 3.0), ("other", 3.0)) == [Review("u0", "i3", "", 2.0, 3.0)]


def test_rows_are_distinguished_by_time_where_some_were_filtered_out(shop: Shop, caplog: Any) -> None:
    # The row with rating 9 is in the file only, so that rows can no longer be counted.
    shop.rows += [("u0", "i3", "9", "1", "train"), ("u0", "i3", "2", "900", "train")]
    shop.inter()
    reviews = [("gone", 1.0), ("held out", 3.0), ("known", 900.0)]
    settings = {**LOADED, "val_interval": {"rating": "[0,5]"}}
    assert twice(shop, *reviews, **settings) == [Review("u0", "i3", "known", 2.0, 900.0)]
    assert "times do not say" not in caplog.text
    settings["load_col"] = {"inter": ["user_id", "item_id", "rating", "split"]}
    assert twice(shop, *reviews, **settings) == [Review("u0", "i3")]
    assert "1 (user, item) pairs, such as (u0, i3), are for training and held out too, and times" in caplog.text


def test_a_pair_without_times_tells_the_earliest(shop: Shop) -> None:
    assert shop.pairs("train") >= {("u0", "i0"), ("u0", "i1")}
    reviews = [("i0", "late", 9.0), ("i0", "early", 7.0), ("i1", "late", 9.0), ("i1", "of its time", 1.0)]
    write_reviews(shop.folder / "reviews.jsonl", [Review("u0", item, text, None, time) for item, text, time in reviews])
    assert [review.text for review in shop.load().training[:2]] == ["early", "of its time"]


def test_parts_in_files_keep_what_they_say_of_a_pair_that_is_held_out_too(shop: Shop) -> None:
    for part in ("train", "valid", "test"):
        shop.table(f"{part}.inter", "user_id:token", "item_id:token", "rating:float")
        for row in [*shop.rows, ("u0", "i3", "2", "", "train")]:
            if row[4] == part:
                shop.add(f"{part}.inter", *row[:3])
    assert twice(shop, ("one", None), ("other", 3.0), benchmark_filename=["train", "valid", "test"]) == [
        Review("u0", "i3", "", 2.0)
    ]


# ---------------------------------------------------------------------- misnamed keys


def test_misnamed_keys_are_named(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"user_id": "u", "item_id": "i", "review": "x"}\n{"user_id": "u", "item_id": "j", "stars": 3}\n')
    list(iter_reviews(path))
    path.write_text('{"item_id": "i", "name": "x", "title": ""}\n')
    read_items(path)
    assert [record.getMessage().split(": ", 1)[1] for record in caplog.records] == [
        "no review has a text. The keys 'review', 'stars' are not known and were passed over; known are 'user_id', "
        "'item_id', 'text', 'rating', 'timestamp'. Rename those that hold texts.",
        "no item has a title, description or attribute. The keys 'name' are not known and were passed over; known are "
        "'item_id', 'title', 'description', 'attributes'. Rename those that hold texts.",
    ]


def test_further_keys_and_missing_ones_are_no_mistake(tmp_path: Path, caplog: Any) -> None:
    path = tmp_path / "some.jsonl"
    path.write_text('{"user_id": "u", "item_id": "i", "review": "x"}\n{"user_id": "u", "item_id": "j", "text": "y"}\n')
    list(iter_reviews(path))
    path.write_text('{"user_id": "u", "item_id": "i"}\n')
    list(iter_reviews(path))
    path.write_text('{"item_id": "i", "name": "x", "attributes": {"a": "b"}}\n{"item_id": "j"}\n')
    read_items(path)
    assert not caplog.records
