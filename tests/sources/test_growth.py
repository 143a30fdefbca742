"""New interactions of a dataset: what is appended, which parts they get, and what a stopped call leaves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from killed import killed_at_rename

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.data.frozen import SplitRecipe
from recbole_rlmrec.data.split import LEFT_OUT, further_split, read_split
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.sources.growth import freeze_present_split, grow
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import read_items, write_items

HEADER = "user_id:token\titem_id:token\ttimestamp:float"
OLD = [f"u{n % 12}\ti{n * 5 % 13}\t{n}" for n in range(90)]
NEW = ["u0\ti0\t0", "u0\ti0\t500", "new\ti1\t501", "new\ti1\t501.0", "u3\tnew\t502", "new\ti5\t503"]


class Shop:
    """A dataset with times, in which some pairs occur twice."""

    def __init__(self, root: Path) -> None:
        self.folder, self.new = root / "shop", root / "new.inter"
        self.folder.mkdir()
        self.write(self.folder / "shop.inter", OLD)
        self.write(self.new, NEW)
        self.config = RLMRecConfig("BPR", "shop", config_dict={"data_path": str(root)})
        freeze_present_split(self.config)

    def write(self, path: Path, rows: list[str], header: str = HEADER) -> None:
        path.write_text("\n".join([header, *rows]))

    def lines(self, name: str = "shop.inter") -> list[str]:
        return (self.folder / name).read_text().splitlines()[1:]

    def codes(self, suffix: str = "") -> np.ndarray:
        users, items, _ = zip(*(line.split("\t") for line in self.lines(f"shop.inter{suffix}")))
        return read_split(self.folder / "shop.split.json", users, items)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_what_is_new_is_appended_and_counted(shop: Shop) -> None:
    before = shop.codes()
    growth = grow(shop.config, shop.new)
    assert shop.lines() == [*OLD, *NEW[1:3], *NEW[4:]]
    assert shop.lines("shop.inter.before-update") == OLD
    codes = shop.codes()
    assert codes[: len(OLD)].tolist() == before.tolist()
    assert codes[len(OLD)] == before[0]  # u0 took i0 again: the pair stays in its part
    assert np.bincount(codes[len(OLD) :], minlength=3).tolist() == list(growth.parts)
    assert (growth.n_added, growth.n_known) == (4, 2)
    assert growth.new == {"user": ("new",), "item": ("new",)}
    assert "4 new interactions" in str(growth) and "there already: 2" in str(growth)
    assert "4 interactions added since" in str(SplitRecipe.of_file(shop.folder / "shop.split.json"))
    parts = dict(zip(shop.lines()[len(OLD) :], codes[len(OLD) :]))
    trained = {line.split("\t")[0] for line, part in parts.items() if part == 0}
    assert growth.touched["user"] == trained | {"u0", "new"}
    again = grow(shop.config, shop.new)
    assert (again.n_added, again.n_known) == (0, 6)
    training = RLMRecDataset(shop.config).build()[0]
    assert {"new"} <= set(training.field2id_token["user_id"])


def test_columns_may_stand_in_another_order(shop: Shop) -> None:
    shop.write(shop.new, ["7\ti2\tnew"], "timestamp:float\titem_id:token\tuser_id:token")
    grow(shop.config, shop.new)
    assert shop.lines()[-1] == "new\ti2\t7"


def test_a_column_of_the_split_is_taken_as_it_is(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    (shop.folder / "shop.split.json").unlink()
    header = "user_id:token\titem_id:token\tsplit:token"
    shop.write(shop.folder / "shop.inter", ["u1\ti1\ttrain", "u1\ti2\tvalid", "u1\ti3\ttest"], header)
    shop.write(shop.new, ["u2\ti1\ttrain", "u2\ti2\ttest"], header)
    assert grow(shop.config, shop.new).parts == (1, 0, 1)
    assert not (shop.folder / "shop.split.json").exists()
    shop.write(shop.new, ["u3\ti1\tlater"], header)
    with pytest.raises(DataError, match=r"line 2: the column 'split' is 'later', expected train, valid or test"):
        grow(shop.config, shop.new)


def test_texts_of_new_items_join_the_known_ones(shop: Shop, tmp_path: Path) -> None:
    write_items(shop.folder / "items.jsonl", [Item("i1", "Old"), Item("i2", "Two")])
    write_items(tmp_path / "more.jsonl", [Item("i1", "Newer"), Item("new", "New")])
    grow(shop.config, shop.new, tmp_path / "more.jsonl")
    titles = {token: item.title for token, item in read_items(shop.folder / "items.jsonl").items()}
    assert titles == {"i1": "Newer", "i2": "Two", "new": "New"}


def test_a_stopped_call_is_finished_by_the_same_one(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    whole, renamed = os.replace, []

    def stop_after_the_first(source: Any, target: Any) -> None:
        if Path(target).name == "shop.split.json":
            raise KeyboardInterrupt
        renamed.append(Path(target).name)
        whole(source, target)

    monkeypatch.setattr("recbole_rlmrec.data.file_set.os.replace", stop_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        grow(shop.config, shop.new)
    assert renamed[-1] == "shop.inter"
    with pytest.raises(DataError, match=r"Run the same `recbole-rlmrec update --checkpoint=FILE"):
        RLMRecDataset(shop.config)
    monkeypatch.undo()
    assert grow(shop.config, shop.new).n_added == 4
    assert shop.lines() == [*OLD, *NEW[1:3], *NEW[4:]]
    assert len(shop.codes()) == len(OLD) + 4


def test_a_killed_call_is_finished_by_the_same_one(tmp_path: Path) -> None:
    """At whichever rename, the files are then as if nothing had been in between."""
    write_items(tmp_path / "more.jsonl", [Item("i1", "Newer"), Item("new", "New")])
    whole: dict[str, bytes] = {}
    for number in range(8):  # three copies of what was there, the marker, and three files
        (tmp_path / str(number)).mkdir()
        shop = Shop(tmp_path / str(number))
        write_items(shop.folder / "items.jsonl", [Item("i1", "Old")])
        call = partial(grow, shop.config, shop.new, tmp_path / "more.jsonl")
        if number:
            killed_at_rename(number, call)
        call()
        found = {path.name: path.read_bytes() for path in shop.folder.iterdir() if not path.name.startswith(".")}
        whole = whole or found
        assert found == whole


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        (["u1\ti1"], "user_id:token\titem_id:token", r"new.inter' lacks timestamp:float: expected the columns of"),
        (["u1\ti1\t1\t5"], f"{HEADER}\trating:float", r"new.inter' has also rating:float"),
        (["u1\ti1\t1", "u1\ti2"], HEADER, r"new.inter', line 3 has 2 fields, the header 3"),
        (["u1\ti1\tnow"], HEADER, r"new.inter', line 2: the column 'timestamp' is 'now', expected a number"),
        (["u1\t\t3"], HEADER, r"new.inter', line 2: the item_id '' is empty"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_changed(shop: Shop, rows: list[str], header: str, message: str) -> None:
    shop.write(shop.new, rows, header)
    with pytest.raises(DataError, match=message):
        grow(shop.config, shop.new)
    assert shop.lines() == OLD


def test_another_dataset_and_a_missing_file_are_said(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"trained on another dataset: none of its 1 items, such as 'x'"):
        grow(shop.config, shop.new, known_ids={"user": ["u1"], "item": ["x"]})
    with pytest.raises(DataError, match=r"no file .*none.inter' of new interactions"):
        grow(shop.config, tmp_path / "none.inter")


def further(n_known: int, n_new: int, make: Callable[[Any], Any]) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    users, items = (make(rng.integers(0, size, n_known + n_new)) for size in (400, 300))
    codes = rng.choice([0, 1, 2, LEFT_OUT], n_known, p=[0.6, 0.2, 0.1, 0.1]).astype(np.int8)
    return users, items, codes, further_split(users, items, codes, seed=5)


def test_shares_of_a_further_split_are_those_of_the_known_one() -> None:
    users, items, codes, found = further(2000, 20000, lambda ids: ids.astype(str))
    pairs = set(zip(users[:2000], items[:2000]))
    free = np.array([pair not in pairs for pair in zip(users[2000:], items[2000:])])
    shares = np.bincount(found[free]) / free.sum()
    np.testing.assert_allclose(shares, [6 / 9, 2 / 9, 1 / 9], atol=0.02)
    order = np.random.default_rng(1).permutation(20000)
    shuffled = [np.concatenate([ids[:2000], ids[2000:][order]]) for ids in (users, items)]
    moved = further_split(*shuffled, codes, seed=5)
    distinct = np.unique(np.char.add(np.char.add(users[2000:], "/"), items[2000:]), return_counts=True)
    single = set(distinct[0][distinct[1] == 1])
    once = np.array([f"{users[2000 + row]}/{items[2000 + row]}" in single for row in order])
    assert moved[once].tolist() == found[order][once].tolist()


def test_new_users_and_items_have_something_to_train_on() -> None:
    known = np.repeat([0, 1, 2], [1, 40, 59])  # hardly anything is for training
    users = ["u"] * 100 + [f"new{n}" for n in range(50)]
    items = [f"i{n}" for n in range(100)] + ["i1"] * 25 + [f"n{n}" for n in range(25)]
    assert further_split(users, items, known, seed=1).tolist() == [0] * 50
