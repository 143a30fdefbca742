"""Raw dumps of all formats are read to the letter; what is malformed is counted, shown and skipped."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.sources.raw_dump import SOURCES, plain_text
from recbole_rlmrec.text import json_lines
from recbole_rlmrec.text.corpus import Item, Review
from recbole_rlmrec.text.json_lines import JsonLines, Limits, MalformedLineError, parse_json, parse_json_or_literal

AMAZON_REVIEW = {
    "reviewerID": "A2SUAM1J3GNN3B",
    "asin": "0000013714",
    "reviewerName": "J. McDonald",
    "helpful": [2, 3],
    "reviewText": "I bought this for my husband who plays the piano.<br />He&#39;s happy.",
    "overall": 5.0,
    "summary": "Heavenly Highway Hymns",
    "unixReviewTime": 1252800000,
    "reviewTime": "09 13, 2009",
}
AMAZON_REVIEW_READ = Review(
    "A2SUAM1J3GNN3B",
    "0000013714",
    "Heavenly Highway Hymns. I bought this for my husband who plays the piano. He's happy.",
    5.0,
    1252800000.0,
)
AMAZON_2014_ITEM = {
    "asin": "0000031852",
    "title": "Girls Ballet Tutu &amp; Zebra",
    "description": "A <b>hot</b> pink tutu.\n  It's new.",
    "price": 3.17,
    "related": {"also_bought": ["B00JHONN1S"]},
    "brand": "Coxlures",
    "categories": [["Sports", "Dance"], ["Sports", "Clothing"]],
}
AMAZON_2018_ITEM = {
    "asin": "0000031852",
    "title": "Tutu",
    "description": ["", "A tutu."],
    "category": ["Sports", "Dance"],
    "brand": "",
    "feature": ["Zebra", "Two layers"],
}
AMAZON_2023_REVIEW = {
    "rating": 5.0,
    "title": "Such a lovely scent",
    "text": "This spray is really nice.<br />It smells good.",
    "images": [],
    "asin": "B00YQ6X8EO",
    "parent_asin": "B00YQ6X8E0",
    "user_id": "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
    "timestamp": 1588687728923,
    "helpful_vote": 0,
    "verified_purchase": True,
}
AMAZON_2023_ITEM = {
    "main_category": "All Beauty",
    "title": "Howard LC0008 Leather Conditioner",
    "average_rating": 4.8,
    "features": ["8 oz"],
    "description": ["For furniture."],
    "price": None,
    "store": "Howard Products",
    "categories": ["Care"],
    "parent_asin": "B01CUPMQZE",
}
YELP_REVIEW = {
    "review_id": "r",
    "user_id": "u-1",
    "business_id": "b_1",
    "stars": 4.0,
    "text": "Good.\n\nTacos & 1 < 2",
    "date": "2014-02-17 12:00:00",
}
YELP_ITEM = {
    "business_id": "b_1",
    "name": "Taco's",
    "city": "Tucson",
    "state": "AZ",
    "categories": "Tacos, Bars",
    "attributes": {
        "WiFi": "u'free'",
        "Alcohol": "'none'",
        "BusinessParking": "{'garage': False, 'street': True}",
        "DogsAllowed": "True",
        "RestaurantsPriceRange2": "2",
        "Smoking": None,
    },
}
STEAM_REVIEW = {
    "username": "Chaos Syren",
    "user_id": "76561198",
    "hours": 0.1,
    "product_id": "725280",
    "date": "2017-12-17",
    "text": "This would not be acceptable.",
    "early_access": False,
}
STEAM_ITEM = {
    "id": "725280",
    "app_name": "Lost Summoner",
    "genres": ["Action", "Indie"],
    "tags": ["Indie", "RPG"],
    "developer": "Kotoshiro",
    "publisher": "Kotoshiro",
    "release_date": "2018-01-04",
    "price": 4.99,
}


def literal(record: Any) -> str:
    """Python 2 wrote Steam's dump: every text has a prefix."""
    return repr(record).replace("{'", "{u'").replace(" '", " u'")


FORMATS: dict[str, Callable[[Any], str]] = {"json": json.dumps, "literal": repr, "python 2": literal}


@pytest.mark.parametrize("spelling", FORMATS)
@pytest.mark.parametrize("is_gzipped", [False, True])
def test_reviews_of_every_format(tmp_path: Path, spelling: str, is_gzipped: bool) -> None:
    records = {
        "amazon": AMAZON_REVIEW,
        "amazon-2023": AMAZON_2023_REVIEW,
        "yelp": YELP_REVIEW,
        "steam": STEAM_REVIEW,
    }
    expected = {
        "amazon": AMAZON_REVIEW_READ,
        "amazon-2023": Review(
            "AGKHLEW2SOWHNMFQIJGBECAF7INQ",
            "B00YQ6X8E0",
            "Such a lovely scent. This spray is really nice. It smells good.",
            5.0,
            1588687728.923,
        ),
        "yelp": Review("u-1", "b_1", "Good. Tacos & 1 < 2", 4.0, 1392638400.0),
        "steam": Review("Chaos Syren", "725280", "This would not be acceptable.", None, 1513468800.0),
    }
    for name, record in records.items():
        path = tmp_path / name  # gzipped or not is seen in the bytes, not in the name
        content = (FORMATS[spelling](record) + "\n").encode()
        path.write_bytes(gzip.compress(content) if is_gzipped else content)
        file = JsonLines(path, parse=parse_json_or_literal)
        assert list(file.records(SOURCES[name].review)) == [(1, expected[name])]
        assert (file.n_lines, file.n_malformed) == (1, 0)


def test_items_of_every_format() -> None:
    def read(source: str, record: Any) -> Item:
        return SOURCES[source].item(parse_json_or_literal(repr(record).encode()))

    assert read("amazon", AMAZON_2014_ITEM) == Item(
        "0000031852",
        "Girls Ballet Tutu & Zebra",
        "A hot pink tutu. It's new.",
        {"brand": ("Coxlures",), "categories": ("Sports", "Dance", "Clothing")},
    )
    assert read("amazon", AMAZON_2018_ITEM) == Item(
        "0000031852", "Tutu", "A tutu. Zebra Two layers", {"categories": ("Sports", "Dance")}
    )
    assert read("amazon-2023", AMAZON_2023_ITEM) == Item(
        "B01CUPMQZE",
        "Howard LC0008 Leather Conditioner",
        "For furniture. 8 oz",
        {"brand": ("Howard Products",), "categories": ("All Beauty", "Care")},
    )
    assert read("yelp", YELP_ITEM) == Item(
        "b_1",
        "Taco's",
        "",
        {
            "city": ("Tucson",),
            "state": ("AZ",),
            "categories": ("Tacos", "Bars"),
            "features": ("WiFi: free", "BusinessParking: street", "DogsAllowed", "RestaurantsPriceRange2: 2"),
        },
    )
    assert read("yelp", {"business_id": "b", "name": None, "categories": None, "attributes": None}) == Item("b")
    assert read("steam", STEAM_ITEM) == Item(
        "725280",
        "Lost Summoner",
        "",
        {
            "genres": ("Action", "Indie"),
            "tags": ("Indie", "RPG"),
            "developer": ("Kotoshiro",),
            "publisher": ("Kotoshiro",),
            "release_date": ("2018-01-04",),
        },
    )
    assert not read("amazon", {"asin": 7}).has_text and read("amazon", {"asin": 7}).token == "7"


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf, [math.nan, None]])
def test_what_is_missing_is_no_text(nothing: object) -> None:
    item = SOURCES.find("amazon").item({"asin": "7", "title": nothing, "description": nothing, "brand": nothing})
    assert item == Item("7")
    assert not SOURCES.find("amazon").text({"reviewText": nothing, "summary": nothing})


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("Rock &amp; roll<br/>for <b>all</b>", "Rock & roll for all"),
        ("&lt;p&gt;Twice escaped&lt;/p&gt;", "Twice escaped"),
        ("a < b and c > d; x <3", "a < b and c > d; x <3"),
        ("before<style type='text/css'>p {x: 1}</style>after<SCRIPT>var a;</SCRIPT>", "before after"),
        ("a<!-- hidden -->b", "a b"),
        (" \u00a0tabs\tand\r\nlines ", "tabs and lines"),
        ("", ""),
    ],
)
def test_plain_text(page: str, text: str) -> None:
    assert plain_text(page) == text


def test_plain_text_takes_no_time_for_long_nonsense() -> None:
    nonsense = "<" + "a" * 200_000 + "<script" * 30_000
    assert plain_text(nonsense) == nonsense


# ---------------------------------------------------------------------- malformed lines


def test_malformed_lines_are_counted_shown_and_skipped(tmp_path: Path) -> None:
    good = json.dumps(AMAZON_REVIEW)
    bad = {
        2: "{broken",
        4: "[1, 2]",
        5: '{"asin": "1", "overall": 5}',
        6: '{"reviewerID": "u", "asin": "1", "overall": "five"}',
        7: '{"reviewerID": "u", "asin": "1", "overall": NaN}',
        8: '{"reviewerID": null, "asin": "1", "overall": 5}',
        9: '{"reviewerID": "u", "asin": "1"}',
    }
    lines = [bad.get(number, good) for number in range(1, 31)]
    lines[2:2] = ["", "   "]  # blank ones count as none
    path = tmp_path / "Books.json"
    path.write_text("\n".join(lines))
    file = JsonLines(path, parse=parse_json_or_literal, max_malformed=0.25)
    read = list(file.records(SOURCES["amazon"].review))
    assert len(read) == 23 and {review for _, review in read} == {AMAZON_REVIEW_READ}
    assert [number for number, _ in read] == [1, 5, *range(12, 33)]
    assert (file.n_lines, file.n_malformed) == (30, 7)
    assert file.examples[0].startswith("line 2 is neither valid JSON")
    assert "line 6 holds a list, expected an object" in file.examples[1]
    assert "line 7 has no 'reviewerID'; its keys are ['asin', 'overall']" in file.examples[2]
    file.max_malformed = 0.2
    with pytest.raises(DataError, match=r"(?s)7 of its 30 lines are malformed, expected at most 20 %.*line 2 .*line 6"):
        list(file.records(SOURCES["amazon"].review))


def test_hopeless_file_is_given_up_early(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("nothing\n" * 100)
    with pytest.raises(DataError, match="10 of its first 10 lines are malformed"):
        list(JsonLines(path, limits=Limits(hopeless=10)).records(dict))


@pytest.mark.parametrize(
    "line",
    [
        "__import__('os').system('touch ran')",
        "{'a': open('ran', 'w')}",
        "{'a': [c for c in ()]}",
        "(" * 100_000,
        "-" * 100_000 + "1",
        "{'a': 1" + "+1" * 50_000 + "}",
        "{[]: 1}",
        "{'a': '\0'}",
        '{"a": ' + "[" * 100_000,
    ],
)
def test_hostile_lines_are_malformed_and_run_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MalformedLineError):
        parse_json_or_literal(line.encode())
    assert not any(tmp_path.iterdir())


def test_long_lines_cost_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(
        '{"n": 1}\n' + "x" * 500 + '\n{"n": 2}\n{"text": "' + "y" * 40 + "\"}\n{'text': '" + "y" * 40 + "'}"
    )
    parse = partial(parse_json_or_literal, longest_literal=40)
    file = JsonLines(path, parse=parse, max_malformed=0.5, limits=Limits(block=8, longest_line=64))
    assert [number for number, _ in file.records(dict)] == [1, 3, 4]
    assert file.n_malformed == 2 and "too long for a Python literal" in file.examples[1]
    assert max(len(line) for _, line in file.lines()) <= 64 + 2 * 8


def test_line_ends_byte_order_mark_and_encodings(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'\xef\xbb\xbf{"n": "\xc3\xa9"}\r\n\r\n{"n": "\xff"}\r\n{"n": "\xe2\x80\xa8"}')
    file = JsonLines(path, parse=parse_json, max_malformed=0.5)
    assert list(file.records(dict)) == [(1, {"n": "é"}), (4, {"n": "\u2028"})]
    assert "line 3 is not UTF-8 (invalid start byte at byte 8)" in file.examples[0]


@pytest.mark.parametrize("size", [7, 8, 9, 1000])
def test_blocks_do_not_matter(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.json"
    path.write_text("".join(f'{{"n": {number}}}\n' for number in range(50)))
    file = JsonLines(path, limits=Limits(block=size))
    assert [record["n"] for _, record in file.records(dict)] == list(range(50))
    assert list(file.chosen([3, 50], dict)) == [(3, {"n": 2}), (50, {"n": 49})]
    with pytest.raises(DataError, match="changed while it was read: line 51"):
        list(file.chosen([3, 51], dict))


def odd_lines(path: Path) -> None:
    lines = [b'{"n": %d}' % number for number in range(60)]
    odd = [b"", b"  \r", b"no", b'{"n": "\xff"}', b"{'n': 7}", b'{"n": NaN}', b"[" * 80 + b"]" * 80, b"[1]", b"y" * 200]
    path.write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines[:3] + odd + lines[3:]))


def found_in(file: JsonLines, make: Any) -> Any:
    return list(file.records(make)), file.n_lines, file.n_malformed, file.examples, list(file.chosen([1, 9, 40], make))


@pytest.mark.parametrize("processes", [False, True])
def test_parts_that_others_read_are_put_together_in_order(tmp_path: Path, processes: bool) -> None:
    odd_lines(path := tmp_path / "x.json")
    common: Any = {"parse": parse_json_or_literal, "max_malformed": 0.5}
    expected = found_in(JsonLines(path, **common), dict)
    assert expected[2] == 5 and len(expected[0]) == 62
    executor = ProcessPoolExecutor(1, get_context("spawn")) if processes else ThreadPoolExecutor(3)
    with executor as pool:
        file = JsonLines(path, pool=pool, limits=Limits(block=50, shared=0), **common)
        assert found_in(file, dict) == expected
        with pytest.raises(DataError, match="changed while it was read: line 70"):
            list(file.chosen([3, 70], dict))
        with pytest.raises(DataError, match="changed while it was read: line 4"):
            list(file.chosen([4], dict))  # which is blank


class Dying(Executor):
    """Its processes are killed."""

    def submit(self, *arguments: Any, **options: Any) -> Any:
        future: Future[Any] = Future()
        future.set_exception(BrokenExecutor("A process was terminated abruptly"))
        return future


def test_a_process_that_ends_is_one_error(tmp_path: Path) -> None:
    odd_lines(path := tmp_path / "x.json")
    with pytest.raises(DataError, match=r"x.json': a process that .* ended \(A process .*\)\..* with --jobs=1\.$"):
        list(JsonLines(path, pool=Dying(), limits=Limits(shared=0)).records(dict))


def test_small_files_and_what_cannot_be_sent_stay_in_this_process(tmp_path: Path) -> None:
    odd_lines(path := tmp_path / "x.json")
    common: Any = {"pool": Dying(), "parse": parse_json_or_literal, "max_malformed": 0.5}
    assert list(JsonLines(path, **common).records(dict))
    assert list(JsonLines(path, limits=Limits(shared=0), **common).records(lambda record: record["n"]))


@pytest.mark.parametrize(
    "line",
    [
        *(b"-0", b"-0.0", b"1e999", b"[1e400]", b'"\\ud800"', b'{"a": 1, "a": 2}', b"18446744073709551616"),
        *(b"-9223372036854775809", b"NaN", b"[NaN, Infinity]", b'"a\x7f"', b'"\t"', b"\xef\xbb\xbf1", b" 1 ", b""),
        *(b'"\xff"', b"0.1234567890123456789", b"5e-324", b"9" * 5000, b"01", b"1.", b'"\\u0000"', b"{'a': 1}"),
    ],
)
def test_json_has_one_value_with_and_without_orjson(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("orjson")
    found = []
    for _ in range(2):
        try:
            found.append(repr(parse_json(line)))
        except MalformedLineError as error:
            found.append(str(error))
        monkeypatch.setattr(json_lines, "orjson", None)
    assert found[0] == found[1]


def test_unreadable_files(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"n": 1}\n' * 1000)
    (tmp_path / "cut.json.gz").write_bytes(whole[:-20])
    with pytest.raises(DataError, match=r"cut\.json\.gz' is a damaged gzip file"):
        list(JsonLines(tmp_path / "cut.json.gz").records(dict))
    with pytest.raises(DataError, match="cannot be read"):
        list(JsonLines(tmp_path / "none.json").records(dict))
    (tmp_path / "empty.json").write_text("\n\n")
    with pytest.raises(DataError, match="has no line"):
        list(JsonLines(tmp_path / "empty.json").records(dict))


# ---------------------------------------------------------------------- MovieLens

GENRES_100K = "|".join("1" if number in (5, 16) else "0" for number in range(19))


@pytest.mark.parametrize(
    ("ratings", "movies"),
    [
        (("u.data", b"1\t2\t3\t881250949\n"), ("u.item", f"2|Am\xe9lie (2001)|1-1-2001||http://x|{GENRES_100K}\n")),
        (("ratings.dat", b"1::2::3::881250949\n"), ("movies.dat", "2::Am\xe9lie (2001)::Comedy|Thriller\n")),
        (
            ("ratings.csv", b"userId,movieId,rating,timestamp\n1,2,3.0,881250949\n"),
            ("movies.csv", 'movieId,title,genres\r\n2,"Am\xe9lie (2001)",Comedy|Thriller\r\n'),
        ),
    ],
)
def test_movielens_in_its_three_forms(tmp_path: Path, ratings: tuple[str, bytes], movies: tuple[str, str]) -> None:
    (tmp_path / ratings[0]).write_bytes(ratings[1])
    (tmp_path / movies[0]).write_text(movies[1], encoding="utf-8" if movies[0].endswith(".csv") else "latin-1")
    source = SOURCES["movielens"]
    files = [source.open(path, 0.0, "", show_progress=False) for path in source.find_files(tmp_path)]
    assert [review for _, review in files[0].records(source.review)] == [Review("1", "2", "", 3.0, 881250949.0)]
    expected = Item("2", "Amélie (2001)", "", {"genres": ("Comedy", "Thriller")})
    assert [item for _, item in files[1].records(source.item)] == [expected]


@pytest.mark.parametrize(
    ("line", "reason"), [("1::2::3\n", "has 3 fields, expected 4"), ("1::2::::5\n", "expected a number")]
)
def test_a_bad_line_of_movielens(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text(line)
    with pytest.raises(DataError, match=reason):
        list(SOURCES["movielens"].open(path, 0.0, "", show_progress=False).records(SOURCES["movielens"].review))


# ---------------------------------------------------------------------- finding the files


@pytest.mark.parametrize(
    ("source", "reviews", "items"),
    [
        ("amazon", "reviews_Books_5.json.gz", "meta_Books.json.gz"),
        ("amazon", "Books.json", "meta_Books.jsonl"),
        ("amazon-2023", "All_Beauty.jsonl.gz", "meta_All_Beauty.jsonl.gz"),
        ("movielens", "u.data", "u.item"),
        ("movielens", "ratings.dat", "movies.dat"),
        ("movielens", "ratings.csv", "movies.csv"),
        ("yelp", "yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"),
        ("steam", "steam_reviews.json.gz", "steam_games.json"),
    ],
)
def test_files_are_found_by_their_usual_names(tmp_path: Path, source: str, reviews: str, items: str) -> None:
    for name in (reviews, items, "README.md", "yelp_academic_dataset_user.json.old"):
        (tmp_path / name).touch()
    assert SOURCES[source].find_files(tmp_path) == (tmp_path / reviews, tmp_path / items)


def test_files_that_cannot_be_found(tmp_path: Path) -> None:
    amazon = SOURCES["amazon"]
    with pytest.raises(DataError, match=r"No file of reviews found. '.*' is empty; expected .*meta_Books.json.*--rev"):
        amazon.find_files(tmp_path)
    with pytest.raises(DataError, match="is no folder"):
        amazon.find_files(tmp_path / "none")
    for name in ("Books.json", "Toys.json.gz", "meta_Books.json"):
        (tmp_path / name).touch()
    with pytest.raises(DataError, match=r"Several files may hold the reviews: Books.json, Toys.json.gz. .* holds"):
        amazon.find_files(tmp_path)
    given = tmp_path / "Toys.json.gz"
    assert amazon.find_files(tmp_path, reviews=given) == (given, tmp_path / "meta_Books.json")
    with pytest.raises(DataError, match=r"--items .*none.json does not exist"):
        amazon.find_files(tmp_path, given, tmp_path / "none.json")
    with pytest.raises(SettingError, match="Expected one of amazon, amazon-2023, yelp, steam, movielens"):
        SOURCES.find("netflix")


# ---------------------------------------------------------------------- dumps that attack


@pytest.mark.parametrize(
    "record",
    [
        "{'asin': 0x" + "f" * 10_000 + "}",
        "{'asin': '1', 'title': 0b" + "1" * 10_000 + "}",
        '{"asin": ' + "9" * 5000 + "}",
        '{"asin": "1", "title": ' + "[" * 900 + "1" + "]" * 900 + "}",
        "{'asin': '1', 'title': " + "9" * 5000 + "}",
    ],
)
def test_numbers_and_nesting_without_measure_are_malformed(tmp_path: Path, record: str) -> None:
    """Python writes out no number of more than 4,300 digits, and follows no list that is nested as deep."""
    path = tmp_path / "meta_Books.json"
    path.write_text('{"asin": "1"}\n' + record + "\n")
    file = JsonLines(path, parse=parse_json_or_literal, max_malformed=0.5)
    assert [item.token for _, item in file.records(SOURCES["amazon"].item)] == ["1"]
    assert file.n_malformed == 1 and len(file.examples[0]) < 500


def test_references_without_measure_are_no_character() -> None:
    for digits in ("9" * 5000, "x" + "f" * 10**6, "0" * 5000 + "65"):
        assert plain_text(f"a &amp; &#{digits}; b") == "a & \ufffd b"
    assert plain_text("&#65;&#x1F600;&#00065;") == "A\U0001f600A"


def test_a_literal_in_a_value_is_bounded() -> None:
    item = SOURCES["yelp"].item({"business_id": "1", "attributes": {"a": "0x" + "f" * 5000, "b": "u'free'"}})
    assert item.attributes["features"][-1] == "b: free"


def test_gzip_bombs_end_early(tmp_path: Path) -> None:
    path = tmp_path / "Books.json.gz"
    path.write_bytes(gzip.compress(b'{"n": 1}' + b" " * 10**7))
    file = JsonLines(path, limits=Limits(believed=10**6))
    with pytest.raises(DataError, match=r"\.json\.gz' of \d+,\d+ bytes holds more than 2,\d+,\d+ bytes, .*at most 200"):
        list(file.records(dict))
    path.write_bytes(gzip.compress(b'{"n": 1}\n' * 10))
    assert len(list(JsonLines(path, limits=Limits(believed=10)).records(dict))) == 10


def test_dumps_are_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=f"cannot be read: it is {kind}, expected a regular file"):
            list(JsonLines(path).records(dict))
