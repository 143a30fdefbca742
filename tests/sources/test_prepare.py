"""A raw dump becomes a corpus and atomic files: counts by hand, the k-core, the split, the same bytes again."""

from __future__ import annotations

import argparse
import errno
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import killed_at_rename

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.atomic_file import repair_tokens
from recbole_rlmrec.data.preparation import create_dataset
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.sources import prepare as module
from recbole_rlmrec.sources.prepare import k_core_rows, prepare
from recbole_rlmrec.text import json_lines
from recbole_rlmrec.text.files import read_items
from recbole_rlmrec.text.load import load_corpus
from recbole_rlmrec.verbs import prepare as verb

#: user, item, rating, day
Row = tuple[str, str, float, int]


def amazon(row: Row) -> str:
    user, item, rating, day = row
    record = {"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": day * 86400}
    return json.dumps({**record, "reviewText": f"{user} on {item}, day {day}", "summary": ""})


def yelp(row: Row) -> str:
    user, item, rating, day = row
    record = {"user_id": user, "business_id": item, "stars": rating, "date": f"1970-01-{day + 1:02d} 00:00:00"}
    return json.dumps({**record, "text": f"{user} on {item}, day {day}"})


def steam(row: Row) -> str:
    user, item, _, day = row
    record = {"username": user, "product_id": item, "date": f"1970-01-{day + 1:02d}"}
    return repr({**record, "text": f"{user} on {item}, day {day}"})


def amazon_item(token: str) -> str:
    return repr({"asin": token, "title": f"Title {token}", "description": "About &amp; around"})


def yelp_item(token: str) -> str:
    return json.dumps({"business_id": token, "name": f"Title {token}", "city": "Tucson"})


def steam_item(token: str) -> str:
    return repr({"id": token, "title": f"Title {token}", "genres": ["Indie"]})


KINDS: dict[str, tuple[str, Callable[[Row], str], str, Callable[[str], str]]] = {
    "amazon": ("Books.json", amazon, "meta_Books.json", amazon_item),
    "yelp": ("yelp_academic_dataset_review.json", yelp, "yelp_academic_dataset_business.json", yelp_item),
    "steam": ("steam_reviews.json", steam, "steam_games.json", steam_item),
}


def block(n_users: int = 5, n_items: int = 4, prefix: str = "") -> list[Row]:
    """Everyone with everything: each user has ``n_items`` interactions, each item ``n_users``."""
    return [
        (f"{prefix}u{user}", f"{prefix}i{item}", 3.0 + (user + item) % 3, user + item)
        for user in range(n_users)
        for item in range(n_items)
    ]


def write_dump(
    folder: Path,
    rows: Iterable[Row],
    items: Iterable[str] | None = None,
    source: str = "amazon",
    zipped: bool = False,
) -> Path:
    rows = list(rows)
    review_name, review, item_name, item = KINDS[source]
    tokens = dict.fromkeys(row[1] for row in rows) if items is None else items
    folder.mkdir(exist_ok=True)
    for name, lines in ((review_name, map(review, rows)), (item_name, map(item, tokens))):
        content = "".join(f"{line}\n" for line in lines).encode()
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(content) if zipped else content)
    return folder


def rows_of(folder: Path, name: str = "shop") -> list[list[str]]:
    header, *rows = (folder / name / f"{name}.inter").read_text().splitlines()
    assert header.startswith("user_id:token\titem_id:token\t") and header.endswith("split:token")
    return [row.split("\t") for row in rows]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# ---------------------------------------------------------------------- counts by hand


@pytest.mark.parametrize("source", KINDS)
def test_counts_by_hand(tmp_path: Path, source: str) -> None:
    rows = [
        *block(),  # 20 interactions, a 4-core
        ("u0", "i0", 5.0, 9),  # a pair again, later: this one counts
        ("u0", "i1", 5.0, 0),  # and again, earlier: this one does not
        ("u1", "low", 2.0, 1),  # below the rating of 3
        ("rare", "i0", 5.0, 1),  # these five fall to the 4-core:
        ("rare", "i1", 5.0, 1),  # "rare" has 3 interactions, and after "chain" is gone
        ("rare", "chain", 5.0, 1),
        ("u0", "chain", 5.0, 1),  # "chain" has 2
        ("u2", "lone", 5.0, 1),
    ]
    raw = write_dump(tmp_path / "raw", rows, items=["i3", "lone", "i0", "i1"], source=source)
    review_path = raw / KINDS[source][0]
    review_path.write_text(review_path.read_text() + "{torn")
    summary = prepare(source, raw, "shop", tmp_path / "out", k_core=4, max_malformed=0.05)
    is_rated = source != "steam"
    assert (summary.reviews.n_lines, summary.reviews.n_malformed) == (29, 1)
    assert (summary.items.n_lines, summary.items.n_malformed) == (4, 0)
    assert summary.rated == (27 if is_rated else 28)
    assert summary.distinct == (25 if is_rated else 26)
    assert (summary.n_users, summary.n_items, summary.split) == (5, 4, (12, 4, 4))
    assert summary.rounds == 1
    assert (summary.items_without_entry, summary.items_without_text) == (1, 1)

    table = rows_of(tmp_path / "out")
    assert len(table) == 20 and {(row[0], row[1]) for row in table} == {row[:2] for row in block()}
    assert [row[:2] for row in table][-1] == ["u0", "i0"]  # in the order of the dump
    assert table[-1][2:-1] == (["5"] if is_rated else []) + [str(9 * 86400)]
    reviews = [json.loads(line) for line in (tmp_path / "out/shop/reviews.jsonl").read_text().splitlines()]
    assert [[review["user_id"], review["item_id"]] for review in reviews] == [row[:2] for row in table]
    assert reviews[-1] == {
        "user_id": "u0",
        "item_id": "i0",
        "text": "u0 on i0, day 9",
        "rating": 5 if is_rated else None,
        "timestamp": 9 * 86400,
    }
    assert next(review for review in reviews if review["item_id"] == "i1")["text"] == "u0 on i1, day 1"
    items = read_items(tmp_path / "out/shop/items.jsonl")
    assert [(item.token, item.title) for item in items.values()] == [
        ("i3", "Title i3"),
        ("i0", "Title i0"),
        ("i1", "Title i1"),
        ("i2", ""),
    ]
    assert (tmp_path / "out/shop/shop.item").read_text().splitlines() == [
        "item_id:token\ttitle:token_seq",
        "i3\tTitle i3",
        "i0\tTitle i0",
        "i1\tTitle i1",
        "i2\t",
    ]
    printed = str(summary)
    assert f"{review_path.name}: 29 lines, 1 malformed, the first: line 29 is neither valid JSON" in printed
    assert ("27 with a rating of at least 3; 25 with each pair" in printed) == is_rated
    assert "4-core, in 1 rounds of removal: 5 users, 4 items, 20 interactions" in printed
    assert "split: 12 train, 4 valid, 4 test" in printed
    assert "items without text: 1, of which 1 are not in" in printed
    assert sorted(path.name for path in (tmp_path / "out/shop").iterdir()) == sorted(
        ["shop.inter", "shop.item", "items.jsonl", "reviews.jsonl"]
    )


def test_min_rating(tmp_path: Path) -> None:
    rows = [(user, item, 1.0 + index % 5, day) for index, (user, item, _, day) in enumerate(block(20, 10))]
    raw = write_dump(tmp_path / "raw", rows)
    found = {
        rating: prepare("amazon", raw, "shop", tmp_path / "out", k_core=1, min_rating=rating).rated
        for rating in (None, 0.0, 2.0, 4.5, 5.0)
    }
    assert found == {None: 120, 0.0: 200, 2.0: 160, 4.5: 40, 5.0: 40}
    with pytest.raises(SettingError, match="the reviews of steam have no ratings"):
        prepare("steam", raw, "shop", tmp_path / "out", min_rating=3)


def test_items_without_text_can_be_left_out_before_the_core(tmp_path: Path) -> None:
    # Without "i0" each user has 3 items left, so a 4-core has none and a 3-core all.
    raw = write_dump(tmp_path / "raw", block(), items=["i1", "i2", "i3"])
    summary = prepare("amazon", raw, "shop", tmp_path / "out", k_core=3, require_text=True)
    assert (summary.with_text, summary.n_items, summary.items_without_text, sum(summary.split)) == (15, 3, 0, 15)
    assert "15 of items with text" in str(summary)
    with pytest.raises(DataError, match="none of them is in a 4-core"):
        prepare("amazon", raw, "shop", tmp_path / "out", k_core=4, require_text=True)
    assert prepare("amazon", raw, "shop", tmp_path / "out", k_core=4).items_without_text == 1


# ---------------------------------------------------------------------- the k-core


def slow_core(pairs: list[tuple[int, int]], k: int) -> list[tuple[int, int]]:
    """Remove one node at a time: the k-core does not depend on the order."""
    while True:
        users, items = Counter(user for user, _ in pairs), Counter(item for _, item in pairs)
        poor = next((("user", node) for node, n in users.items() if n < k), None)
        poor = poor or next((("item", node) for node, n in items.items() if n < k), None)
        if poor is None:
            return pairs
        pairs = [pair for pair in pairs if pair[0 if poor[0] == "user" else 1] != poor[1]]


@pytest.mark.parametrize("k", [1, 2, 3, 4, 50])
def test_core_is_the_fixed_point(k: int) -> None:
    rng = np.random.default_rng(k)
    cells = np.unique(rng.zipf(1.3, 900) % 40 * 50 + rng.integers(0, 50, 900))
    users, items = np.divmod(cells, 50)
    rows, rounds = k_core_rows(users, items, k)
    pairs = list(zip(users.tolist(), items.tolist()))
    assert [pairs[row] for row in rows] == slow_core(pairs, k)
    assert (len(rows) == 0) == (k == 50) and (rounds == 0) == (len(rows) == len(users))
    again, more = k_core_rows(users[rows], items[rows], k)
    assert more == 0 and len(again) == len(rows)


def test_chain_falls_node_by_node() -> None:
    # A path of users and items loses both its ends in each round, and with them everything.
    users, items = np.array([0, 0, 1, 1, 2, 2, 3]), np.array([0, 1, 1, 2, 2, 3, 3])
    rows, rounds = k_core_rows(users, items, 2)
    assert len(rows) == 0 and rounds == 4


# ---------------------------------------------------------------------- the split


@pytest.mark.parametrize(("shares", "expected"), [((3, 1, 1), (102, 34, 34)), ((8, 1, 1), (136, 17, 17))])
def test_split_has_the_shares_and_nobody_is_lost(
    tmp_path: Path, shares: tuple[float, ...], expected: tuple[int, ...]
) -> None:
    raw = write_dump(tmp_path / "raw", block(17, 10))
    assert prepare("amazon", raw, "shop", tmp_path / "out", shares=shares).split == expected
    table = rows_of(tmp_path / "out")
    train = [row for row in table if row[-1] == "train"]
    assert Counter(row[-1] for row in table) == dict(zip(("train", "valid", "test"), expected))
    assert {row[0] for row in train} == {row[0] for row in table}
    assert {row[1] for row in train} == {row[1] for row in table}


def test_sparse_data_keeps_everyone_in_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    rows = [(f"u{user}", f"i{rng.integers(60)}", 5.0, day) for user in range(60) for day in range(3)]
    summary = prepare("amazon", write_dump(tmp_path / "raw", rows), "shop", tmp_path / "out", k_core=2)
    table = rows_of(tmp_path / "out")
    train = [row for row in table if row[-1] == "train"]
    assert len({row[0] for row in train}) == summary.n_users and len({row[1] for row in train}) == summary.n_items
    n = sum(summary.split)
    assert summary.split == (round(0.6 * n), round(0.2 * n), n - round(0.6 * n) - round(0.2 * n))


def test_too_little_to_split(tmp_path: Path) -> None:
    raw = write_dump(tmp_path / "raw", [(f"u{n}", f"i{n}", 5.0, n) for n in range(5)])
    with pytest.raises(DataError, match="5 training, 0 validation, 0 test"):
        prepare("amazon", raw, "shop", tmp_path / "out", k_core=1)


# ---------------------------------------------------------------------- the same bytes


def test_same_seed_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = block(12, 11)
    plain = write_dump(tmp_path / "plain", rows)
    zipped = write_dump(tmp_path / "zipped", rows, zipped=True)
    code = "import sys; from recbole_rlmrec.sources.prepare import prepare; print(prepare('amazon', *sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, str(plain), "shop", str(tmp_path / "out1")]
    environment = {**os.environ, "PYTHONHASHSEED": "1"}  # a set of text has another order there than here
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True)
    summary = prepare("amazon", plain, "shop", tmp_path / "out2")
    assert done.stdout == f"{summary}\n".replace("out2", "out1") and not done.stderr
    prepare("amazon", zipped, "shop", tmp_path / "out3")
    first, *others = (bytes_of(tmp_path / f"out{number}/shop") for number in (1, 2, 3))
    assert others == [first, first]
    monkeypatch.setattr(module, "ProcessPoolExecutor", lambda jobs, context: ThreadPoolExecutor(jobs))
    monkeypatch.setattr(json_lines, "require_regular", lambda path: 2**30)  # large enough to be shared
    prepare("amazon", zipped, "shop", tmp_path / "out5", jobs=2)
    assert bytes_of(tmp_path / "out5/shop") == first
    prepare("amazon", plain, "shop", tmp_path / "out4", seed=7)
    other = bytes_of(tmp_path / "out4/shop")
    assert {name for name in first if first[name] != other[name]} == {"shop.inter"}


def test_users_are_taken_by_their_own_hash(tmp_path: Path) -> None:
    def taken(rows: list[Row], fraction: float, seed: int = 2023) -> set[str]:
        raw = write_dump(tmp_path / "raw", rows)
        prepare("amazon", raw, "shop", tmp_path / "out", k_core=1, user_fraction=fraction, seed=seed)
        return {row[0] for row in rows_of(tmp_path / "out")}

    rows = block(500, 3)
    fifth, quarter = taken(rows, 0.2), taken(rows, 0.25)
    assert 70 < len(fifth) < 130 and fifth < quarter
    assert taken(rows[::-1] + block(50, 3, prefix="other"), 0.2) - fifth <= {f"otheru{user}" for user in range(50)}
    assert len(fifth & taken(rows, 0.2, seed=1)) < 45  # a fifth of a fifth is expected, 20
    assert len(taken(rows, 1.0)) == 500


# ---------------------------------------------------------------------- ids that files cannot hold


def test_odd_ids_reach_recbole_whole(tmp_path: Path) -> None:
    odd = [
        "null",
        "NA",
        'the "king"',
        '"quoted',
        "with\ttab",
        "two\nlines",
        " padded ",
        "[PAD]",
        "na\u2028ïve",
        "a\ud800",
    ]
    rows = [(user, f"i{item}", 5.0, item) for user in [*odd, "null_"] for item in range(10)]
    raw = write_dump(tmp_path / "raw", rows)
    summary = prepare("amazon", raw, "shop", tmp_path / "out")
    assert summary.renamed == {
        "null": "null__",
        "NA": "NA_",
        "with\ttab": "with%09tab",
        "two\nlines": "two%0Alines",
        " padded ": "%20padded%20",
        "[PAD]": "[PAD]_",
        "a\ud800": "a%ED%A0%80",
    }
    assert "renamed ids, which RecBole's files cannot hold: 7, such as ' padded ' to" in str(summary)
    config = RLMRecConfig("LightGCN", "shop", config_dict={"data_path": str(tmp_path / "out"), "state": "ERROR"})
    corpus = load_corpus(config)
    assert set(corpus.users) == {summary.renamed.get(user, user) for user in [*odd, "null_"]}
    assert len(corpus.training) == summary.split[0] and len(corpus.held_out) == sum(summary.split[1:])
    texts = {(review.user, review.text.split(", day")[0]) for review in corpus.training}
    assert ('"quoted', '"quoted on i3') in texts or ('"quoted', '"quoted on i4') in texts
    assert all(review.text for review in corpus.training)


def test_mended_ids_stay_distinct() -> None:
    tokens = ["a\t", "a%09", "a%09_", "null", "null_"]
    repaired, changes = repair_tokens(tokens)
    assert repaired == ["a%09__", "a%09", "a%09_", "null__", "null_"]
    assert changes == {"a\t": "a%09__", "null": "null__"}


def test_titles_fit_into_a_field(tmp_path: Path) -> None:
    raw = write_dump(tmp_path / "raw", block(10, 10))
    lines = [repr({"asin": f"i{item}", "title": '"Tab\t& line\n"' + "x" * 200_000 * (item == 0)}) for item in range(10)]
    (raw / "meta_Books.json").write_text("\n".join(lines))
    prepare("amazon", raw, "shop", tmp_path / "out")
    items = read_items(tmp_path / "out/shop/items.jsonl")
    assert len(items["i0"].title) > 200_000 and items["i1"].title == '"Tab & line "'
    settings = {
        "data_path": str(tmp_path / "out"),
        "load_col": {"inter": ["user_id", "item_id"], "item": ["title", "item_id"]},
    }
    assert len(load_corpus(RLMRecConfig("LightGCN", "shop", config_dict={**settings, "state": "ERROR"})).items) == 10


# ---------------------------------------------------------------------- what goes wrong


def test_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_dump(tmp_path / "raw", block(10, 10))
    prepare("amazon", raw, "shop", tmp_path / "out")
    before = bytes_of(tmp_path / "out/shop")
    written = 0
    write_line = module.review_line

    def until_full(review: Any) -> bytes:
        nonlocal written
        written += 1
        if written % 50 == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_line(review)

    monkeypatch.setattr(module, "review_line", until_full)
    with pytest.raises(DataError, match=r"Cannot write in .*No space left on device. Nothing there was changed"):
        prepare("amazon", raw, "shop", tmp_path / "out", seed=1)
    assert bytes_of(tmp_path / "out/shop") == before  # nor is a temporary file left
    with pytest.raises(DataError, match="Cannot write in"):
        prepare("amazon", raw, "other", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["shop"]


@pytest.mark.parametrize("rename", range(1, 6))
def test_killed_while_it_replaces_is_refused_until_it_is_repeated(tmp_path: Path, rename: int) -> None:
    raw = write_dump(tmp_path / "raw", block(10, 10))
    prepare("amazon", raw, "shop", tmp_path / "out")
    config = RLMRecConfig("LightGCN", "shop", config_dict={"data_path": str(tmp_path / "out"), "state": "ERROR"})
    killed_at_rename(rename, lambda: prepare("amazon", raw, "shop", tmp_path / "out", seed=1))
    for read in (create_dataset, load_corpus):
        if rename == 1:  # before there is a marker
            read(config)
        else:
            with pytest.raises(DataError, match="Run the same `recbole-rlmrec prepare --dataset shop"):
                read(config)
    prepare("amazon", raw, "shop", tmp_path / "out", seed=1)
    prepare("amazon", raw, "shop", tmp_path / "whole", seed=1)
    assert bytes_of(tmp_path / "out/shop") == bytes_of(tmp_path / "whole/shop")
    create_dataset(config)


def test_interrupted_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(review: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "review_line", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare("amazon", write_dump(tmp_path / "raw", block(10, 10)), "shop", tmp_path / "out")
    assert not any((tmp_path / "out").rglob("*"))


def test_output_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match="Cannot write in"):
        prepare("amazon", write_dump(tmp_path / "raw", block(10, 10)), "shop", tmp_path / "out")


def test_dump_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = write_dump(tmp_path / "raw", block(10, 10))
    real = module._write_items

    def change(*arguments: Any) -> tuple[int, int]:
        write_dump(raw, block(10, 10)[::-1])
        return real(*arguments)

    monkeypatch.setattr(module, "_write_items", change)
    with pytest.raises(DataError, match="changed while it was read: line 1 is another than before"):
        prepare("amazon", raw, "shop", tmp_path / "out")


def test_missing_columns_are_named(tmp_path: Path) -> None:
    raw = write_dump(tmp_path / "raw", block(10, 10))
    with pytest.raises(
        DataError, match=r"(?s)100 of its 100 lines are malformed.*has no 'user_id'; its keys are \['review"
    ):
        prepare("yelp", raw, "shop", tmp_path / "out", reviews=raw / "Books.json", items=raw / "meta_Books.json")
    (raw / "meta_Books.json").write_text('{"id": "i0"}\n')
    with pytest.raises(DataError, match="has no 'asin'"):
        prepare("amazon", raw, "shop", tmp_path / "out")
    assert not (tmp_path / "out/shop").exists() or not any((tmp_path / "out/shop").iterdir())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "a/b"}, "plain file name"),
        ({"k_core": 0}, "--k-core is 0, expected at least 1"),
        ({"seed": -1}, "--seed is -1"),
        ({"user_fraction": 0.0}, "--user-fraction is 0.0, expected more than 0"),
        ({"user_fraction": 1.1}, "at most 1"),
        ({"max_malformed": float("nan")}, "--max-malformed is nan"),
        ({"jobs": 0}, "--jobs is 0, expected at least 1"),
        ({"shares": (3, 1)}, "--ratios is 3:1, expected three numbers"),
        ({"shares": (3, 1, 0)}, "--ratios is 3:1:0"),
        ({"source": "netflix"}, "no source 'netflix'"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        prepare(**{"source": "amazon", "raw": tmp_path, "dataset": "shop", "output": tmp_path / "out", **settings})


def test_command_line(tmp_path: Path, capsys: Any) -> None:
    raw = write_dump(tmp_path / "raw", block(6, 6))
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    given = (
        f"--source amazon --raw {raw} --dataset shop --output {tmp_path}/out --k-core 6 --ratios 2:1:1 --require-text"
    )
    assert verb.run(parser.parse_args(given.split())) == 0
    printed = capsys.readouterr()
    assert "6-core, in 0 rounds of removal: 6 users, 6 items, 36 interactions\nsplit: 18 train, 9 valid" in printed.out
    assert not printed.err  # no bar where standard error is no terminal
    defaults = parser.parse_args(["--source", "steam", "--raw", "x", "--dataset", "y"])
    assert (defaults.k_core, defaults.seed, defaults.user_fraction, defaults.shares) == (10, 2023, 1.0, (3, 1, 1))
    with pytest.raises(SystemExit):
        parser.parse_args(["--source", "steam", "--raw", "x", "--dataset", "y", "--shares", "three"])
