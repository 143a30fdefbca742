"""The verb: users and items by id and by file, every format, and an output that is whole or not there."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import World
from trainings import train

from recbole_rlmrec import Recommender
from recbole_rlmrec.cli import main
from recbole_rlmrec.recommend.output import write_lists
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items


@pytest.fixture
def trained(world: World) -> str:
    write_items(world.folder / "items.jsonl", [Item(f"i{n}", f'"Title", {n} — ü\n') for n in range(20)])
    return str(train(world, "LightGCN", epochs=1).checkpoint)


def recommend(*arguments: str) -> int:
    return main(["recommend", *arguments])


def ids(name: str, *tokens: str) -> str:
    Path(name).write_text("".join(f"{token}\n" for token in tokens))
    return name


def read(path: str) -> pd.DataFrame:
    readers: dict[str, Any] = {
        ".csv": lambda: pd.read_csv(path),
        ".tsv": lambda: pd.read_csv(path, sep="\t"),
        ".jsonl": lambda: pd.read_json(path, lines=True),
        ".parquet": lambda: pd.read_parquet(path),
    }
    return readers[Path(path).suffix]()


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_the_file_of_all_users_is_what_the_class_returns(trained: str, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = f"lists/all.{ending}"
    arguments = [f"--checkpoint={trained}", "--all-users", "--k=7", f"--output={path}"]
    assert recommend(*arguments, "--memory=0.02") == 0  # some users at a time
    recommender = Recommender.load(trained)
    expected = recommender.recommend(recommender.dataset.field2id_token["user_id"][1:].tolist(), 7)
    found = read(path)
    assert found.columns.tolist() == expected.columns.tolist() and len(found) == 280
    for name in ("user", "rank", "item"):
        assert found[name].tolist() == expected[name].tolist()
    assert found["title"].fillna("").tolist() == expected["title"].fillna("").tolist()
    np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5, atol=1e-9)
    assert [each.name for each in Path("lists").iterdir()] == [f"all.{ending}"]


def test_the_table_on_the_screen(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert recommend("--model=LightGCN", "--dataset=tiny", "--users=u3,u1,u3", "--k=2", "--explain") == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split()[:3] for line in lines if not line.startswith("    ")]
    assert rows[0] == ["user", "rank", "item"] and lines[0].split() == ["user", "rank", "item", "title", "score"]
    recommender = Recommender.load(trained)
    frame = recommender.explained(recommender.recommend(["u3", "u1", "u3"], 2))
    assert rows[1:] == frame[["user", "rank", "item"]].astype(str).values.tolist()
    notes = [line.strip() for line in lines if line.startswith("    ")]
    expected = [
        f"{label}: {text}"
        for pair in zip(frame["near_in_model"], frame["near_in_text"])
        for label, text in zip(("near in model", "near in text"), pair)
    ]
    assert notes == expected


def test_users_and_items_from_files(trained: str) -> None:
    arguments = [f"--checkpoint={trained}", "--k=30", "--output=few.csv"]
    users = ["u3", "u1", "u3"]
    files = [f"--users-file={ids('users', *users, '')}", f"--only-items={ids('only', 'i1', 'i2', 'i3', 'i4')}"]
    assert recommend(*arguments, *files, f"--without-items={ids('without', 'i2')}", "--include-seen") == 0
    found = read("few.csv")
    assert found["user"].tolist() == np.repeat(users, 3).tolist()
    assert all(set(part) == {"i1", "i3", "i4"} for part in found["item"].to_numpy().reshape(3, 3))


WRONG = {
    "--users=u1 --k=0": r"k=0: expected a whole number from 1",
    "": r"Give one of --users=ID,ID, --users-file=FILE, --all-users and --new-users=FILE; or --query=TEXT without any",
    "--users=u1 --all-users": r"Give one of --users=ID,ID",
    "--users=u1 --new-users=new.jsonl": r"Give one of --users=ID,ID",
    "--new-users=new.jsonl --explain": r"--explain shows users' training items",
    "--new-users=new.jsonl --query=war": r"--query is mixed with users who were trained",
    "--users=u1 --model=LightGCN": r"Give --checkpoint=FILE, or both --model and --dataset",
    "--users=,": r"--users=',': expected ids, separated by commas",
    "--users=u1,nobody": r"no user 'nobody'",
    "--users-file=bad": r"'bad', line 2: The training data of 'tiny' have no user 'U1'. .* Did you mean 'u1'\?",
    "--users=u1 --only-items=bad": r"'bad', line 1: .* have no item 'u1'",
    "--users-file=empty": r"'empty' holds no id; expected one on each line",
    "--users-file=missing": r"missing cannot be read",
    "--users=u1 --output=a.xls": r"--output='a.xls': expected a name that ends with one of \.csv, \.tsv",
    "--users=u1 --output=.": r"--output='.': expected a name",
    "--users=u1 --output=saved/folder.csv": r"[Dd]irectory",
    "--users=u1 --memory=-1": r"memory=-1.0: expected a number of MB above 0",
    "--users=u1 --unknown_setting=3": r"unknown_setting",
}


def test_what_is_wrong_is_one_sentence(trained: str, capsys: pytest.CaptureFixture[str]) -> None:
    ids("bad", "u1", "U1")
    ids("empty", "", "")
    Path("saved/folder.csv").mkdir()
    for arguments, message in WRONG.items():
        capsys.readouterr()
        assert recommend(f"--checkpoint={trained}", *arguments.split()) == 2, arguments
        said = capsys.readouterr()
        assert said.out == "" and len(said.err.splitlines()) == 1, said
        assert re.search(message, said.err), said.err
    assert recommend("--users=u1") == recommend("--model=LightGCN", "--users=u1") == 2


@pytest.mark.parametrize(
    "wrong", ["--users=,", "--users=1 --memory=inf", "--users-file=no", "--users=1 --only-items=no"]
)
def test_what_is_wrong_is_found_before_the_model_is_loaded(
    wrong: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Recommender, "load", None)
    assert recommend("--checkpoint=x.pth", *wrong.split()) == 2


def test_parquet_without_pyarrow(trained: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert recommend(f"--checkpoint={trained}", "--users=u1", "--output=a.parquet") == 2
    assert (
        "needs the package 'pyarrow', which is not installed: pip install pyarrow, or write .csv"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_an_interrupted_output_is_none(tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"lists.{ending}"
    path.write_bytes(b"before")

    def interrupted() -> Iterator[pd.DataFrame]:
        yield pd.DataFrame({"user": ["u"], "rank": [1], "item": ["i"], "title": [None], "score": [0.5]})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lists(path, interrupted())
    assert [each.name for each in tmp_path.iterdir()] == [path.name] and path.read_bytes() == b"before"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_for_whoever_waits_at_a_terminal(trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = []
    for stream, output in ((Terminal(), ["--output=a.csv"]), (Terminal(), []), (io.StringIO(), ["--output=a.csv"])):
        monkeypatch.setattr(sys, "stderr", stream)
        assert recommend(f"--checkpoint={trained}", "--all-users", *output) == 0
        shown.append("40/40" in stream.getvalue())
    assert shown == [True, False, False]
