"""Every file of ours that is read back, damaged in every way: one error that names file and place, and no traceback."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from recbole_rlmrec.data.embedding_files import read_metadata
from recbole_rlmrec.data.split import read_split, write_packed_split
from recbole_rlmrec.encoder.unfinished import State
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.openai_client import Server
from recbole_rlmrec.profile.batch import Batch, _State
from recbole_rlmrec.profile.record import Failure, Profile, iter_profiles, profile_line, read_failures
from recbole_rlmrec.training.comparison import Outcome, find_record, recorded_base
from recbole_rlmrec.tuning.journal import Journal, Trial

USERS, ITEMS, CODES = ["a", "a", "b"], ["x", "y", "x"], [0, 1, 0]
CONDITIONS = {"model": "BPR", "settings": {"epochs": 3}}

#: What a value has to be -> which of ``VALUES`` are.
TEXT, COUNT, NUMBER, TEXTS, OBJECT = "text", "count", "number", "texts", "object"
VALUES: list[Any] = ["x", "", 3, 0, -1, 2.5, True, None, [], ["x"], [3], [[]], {}, {"x": 3}, 2**63]
RULES: dict[str, Callable[[Any], bool]] = {
    TEXT: lambda value: isinstance(value, str),
    COUNT: lambda value: type(value) is int and 0 <= value < 2**63,
    NUMBER: lambda value: type(value) in (int, float) and value < 2**63,
    TEXTS: lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    OBJECT: lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
    "metrics": lambda value: isinstance(value, dict) and all(map(RULES[NUMBER], value.values())),
    "positive": lambda value: RULES[COUNT](value) and value > 0,
    "seconds": lambda value: RULES[NUMBER](value) and value >= 0,
    "bool": lambda value: isinstance(value, bool),
    "three": lambda value: type(value) is int and value == 3,
    "empty": lambda value: value == [],
}


@dataclass(frozen=True)
class Case:
    """A kind of file.

    Attributes:
        file: its name.
        content: an object that it holds.
        read: reads the folder.
        keys: what each key has to be, one of ``RULES`` or several; a key that may be left out ends with ``?``.
        by_line: whether it holds one object a line; the line before is whole then.
        passes_over: whether further keys do no harm.
    """

    file: str
    content: dict[str, Any]
    read: Callable[[Path], object]
    keys: dict[str, str]
    by_line: bool = False
    passes_over: bool = False


def split(folder: Path) -> object:
    return read_split(folder / "toy.split.json", USERS, ITEMS)


def journal(folder: Path) -> object:
    search = Journal(folder, CONDITIONS)
    with search.opened():
        return search.trials


def batches(folder: Path) -> object:
    state = _State(folder / "state.json", Server("http://localhost:1"), "m")
    return state.batches


TRIAL = Trial(2, {"n_layers": 2}, 1.5, {"n_layers": 2}, 0.5, 3, {"recall@20": 0.1}, {"recall@20": 0.1})
PROFILE = Profile("u1", "Likes maps.", "Why.", "llm:m", "p", "t", ("i1",))
CASES = {
    "profiles": Case(
        "profiles.jsonl",
        json.loads(profile_line(PROFILE)),
        lambda folder: list(iter_profiles(folder / "profiles.jsonl")),
        {"token": TEXT, "profile": TEXT, "writer": TEXT, "reasoning?": TEXT, "prompt_sha256?": TEXT, "told?": TEXTS},
        by_line=True,
        passes_over=True,
    ),
    "failures": Case(
        "failed.jsonl",
        asdict(Failure("u1", "p", "llm:m", "refused", 2)),
        lambda folder: read_failures(folder / "failed.jsonl"),
        {"token": TEXT, "prompt_sha256": TEXT, "writer": TEXT, "error": TEXT, "attempts": COUNT},
        by_line=True,
    ),
    "trials": Case(
        "trials.jsonl",
        asdict(TRIAL),
        journal,
        {
            "number": "positive",
            "parameters": OBJECT,
            "seconds": "seconds",
            "settings": OBJECT,
            "score?": "number null",
            "best_epoch?": "count null",
            "valid_result?": "metrics null",
            "error?": "text null",
        },
        by_line=True,
    ),
    "conditions": Case("conditions.json", CONDITIONS, journal, {}),
    "batches": Case(
        "state.json",
        {"format": "recbole_rlmrec batches", "version": 1, "batches": []},
        batches,
        {"format": "", "version": "", "batches": "empty"},
    ),
    "metadata": Case(
        "toy.semantic.json",
        {"encoder": "lsa", "dimension": 3, "normalized": True, "train_sha256": "t", "profiles_sha256": "p"},
        lambda folder: read_metadata([folder], "toy"),
        {
            "encoder?": "text null",
            "dimension?": "positive null",
            "normalized?": "bool null",
            "train_sha256?": "text null",
            "profiles_sha256?": "text null",
        },
        passes_over=True,
    ),
    "split": Case(
        "toy.split.json",
        {},
        split,
        {"format": "", "version": "", "order": "", "interactions": "three", "source_sha256": "", "codes": ""},
        passes_over=True,
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_packed_split(tmp_path / "toy.split.json", USERS, ITEMS, CODES)
    (tmp_path / "conditions.json").write_text(json.dumps(CONDITIONS))
    return tmp_path


def content_of(case: Case, folder: Path) -> dict[str, Any]:
    return case.content or json.loads((folder / case.file).read_text())


def put(case: Case, folder: Path, text: bytes) -> None:
    """Write the file with some text where an object stands; in a file of lines, a whole one goes before."""
    if not case.by_line:
        (folder / case.file).write_bytes(text)
        return
    first = {**case.content, **({"number": 1} if "number" in case.content else {})}
    (folder / case.file).write_bytes(json.dumps(first).encode() + b"\n" + text + b"\n")


def refused(case: Case, folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        case.read(folder)
    message = str(caught.value)
    assert str(folder / case.file) in message and len(message) < 1000, message
    return message


def dumped(value: Any) -> bytes:
    return json.dumps(value).encode()


def damages(whole: dict[str, Any]) -> Iterator[tuple[bytes, str]]:
    """Texts that stand where an object should, and what is said of them."""
    text, key = dumped(whole), next(iter(whole))
    for value in ([], [whole], "text", 3, None, True, [[[]]]):
        yield dumped(value), "expected an object"
    yield b"", "Expecting value"
    yield b"\x00\xff\xfe" * 100, "not valid JSON"
    yield b'{"a": "\xff"}', "can't decode byte 0xff"
    yield b"PK\x03\x04" + bytes(100), "not valid JSON"
    yield text[: len(text) // 2], "not valid JSON"
    yield text + text, "Extra data"
    yield b"[" * 100_000, "nested more than 64 levels deep"
    yield b'{"a":' * 500 + b"1" + b"}" * 500, "nested more than 64 levels deep"
    for number, found in ((b"NaN", "NaN is no number"), (b"-Infinity", "-Infinity is no number"), (b"1e999", "1e999")):
        yield text[:-1] + b', "number_": ' + number + b"}", found
    yield text[:-1] + b', "number_": ' + b"9" * 5000 + b"}", "a number has 5,000 digits"
    yield text[:-1] + f', "{key}": {json.dumps(whole[key])}}}'.encode(), f"the key '{key}' stands in one object twice"


@pytest.mark.parametrize("name", CASES)
def test_damaged_text(name: str, folder: Path) -> None:
    case = CASES[name]
    whole = content_of(case, folder)
    put(case, folder, dumped({**whole}))
    assert case.read(folder) is not None, "whole"
    for text, found in damages(whole):
        put(case, folder, text)
        message = refused(case, folder)
        assert found in message, message
        assert not case.by_line or "line 2 is no" in message


@pytest.mark.parametrize("name", CASES)
def test_every_value_of_every_key(name: str, folder: Path) -> None:
    """A value is taken if it is of the key's kind, and else is an error that names the key."""
    case = CASES[name]
    whole = content_of(case, folder)
    for key, rule in case.keys.items():
        key, may_be_missing = key.rstrip("?"), key.endswith("?")
        for value in VALUES:
            put(case, folder, dumped({**whole, key: value}))
            if any(RULES[kind](value) for kind in rule.split()):
                case.read(folder)
                continue
            message = refused(case, folder)
            # What has the right type, and is another split's, is said in other words.
            assert f"'{key}" in message or (name == "split" and isinstance(value, (str, int)))
        put(case, folder, dumped({other: value for other, value in whole.items() if other != key}))
        if may_be_missing:
            case.read(folder)
        else:
            assert f"'{key}' is missing" in refused(case, folder)
    put(case, folder, dumped({**whole, "of_a_later_version": 1}))
    if case.passes_over:
        case.read(folder)
    elif case.keys:
        assert "'of_a_later_version' is the number 1, expected no such key" in refused(case, folder)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("split", "metadata")])
def test_no_line_and_no_file_is_without_end(name: str, folder: Path) -> None:
    case = CASES[name]
    size = 2**24 + 2 if case.by_line else 2**26 + 1
    with (folder / case.file).open("wb") as file:
        file.truncate(size)  # zeros that take no room on the disk
    assert "which no such" in refused(case, folder)


@pytest.mark.parametrize("name", CASES)
def test_what_is_no_regular_file_is_not_read(name: str, folder: Path) -> None:
    """It counts as missing where a file may be, and is an error elsewhere; a pipe would be waited for without end."""
    case = CASES[name]
    (folder / case.file).unlink(missing_ok=True)
    os.mkfifo(folder / case.file)
    if name in ("profiles", "split"):
        assert "There is no" in refused(case, folder)
    else:
        assert not case.read(folder)


def test_a_batch_of_another_shape(folder: Path) -> None:
    whole = asdict(Batch(0, "http://localhost:1", "llm:m"))
    for key, value in (("number", -1), ("number", "0"), ("server", 3), ("batch_id", []), ("writer", None)):
        (folder / "state.json").write_bytes(
            dumped({"format": "recbole_rlmrec batches", "version": 1, "batches": [{**whole, key: value}]})
        )
        assert f"'batches[0].{key}' is " in refused(CASES["batches"], folder)


def test_a_trial_that_stands_twice(folder: Path) -> None:
    (folder / "trials.jsonl").write_bytes(2 * (dumped(asdict(TRIAL)) + b"\n"))
    assert "trial 2 stands in the file twice" in refused(CASES["trials"], folder)


OUTCOME = Outcome("BPR", 3, 1.5, {"recall@20": 0.1}, {"recall@20": 0.1}, "", None)


def test_files_beside_a_result_count_only_where_they_are_whole(tmp_path: Path) -> None:
    """A folder of results is the user's: what is no result is passed over, whatever it is."""
    (checkpoint := tmp_path / "BPR-1.pth").touch()
    outcome = {**OUTCOME.record(), "checkpoint": str(checkpoint)}
    record = {"outcome": outcome, "settings": {"seed": 1}, "data": {"ids": "h"}}
    result = {"model": "BPR", "data": {"ids": "h"}, "test_result": {"recall@20": 0.1}, "seed": 1, "more": []}

    def found(record: Any, result: Any) -> list[bool]:
        (tmp_path / "BPR-1.json").write_bytes(record if isinstance(record, bytes) else dumped(record))
        (tmp_path / "result.json").write_bytes(result if isinstance(result, bytes) else dumped(result))
        return [
            find_record(tmp_path, "BPR", {"seed": 1}, {"ids": "h"}, set()) is not None,
            recorded_base(str(tmp_path / "mine.json"), "BPR", 1, {"ids": "h"}) is not None,
        ]

    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "BPR-2.json").mkdir()
    assert found(record, result) == [True, True]
    for text in (b"", b"[]", b"\xff", b"[" * 10_000, b"NaN", dumped(record)[:-2]):
        assert found(text, text) == [False, False]
    for key in record:
        assert found({**record, key: ["x"]}, result) == [False, True]
    for key, value in (("best_epoch", "3"), ("valid", {"recall@20": "much"}), ("checkpoint", None), ("test", [0.1])):
        assert found({**record, "outcome": {**outcome, key: value}}, result) == [False, True]
    for key, value in (("test_result", {"recall@20": "0.1"}), ("data", "h"), ("model", ["BPR"]), ("seed", "1")):
        assert found(record, {**result, key: value}) == [True, False]


def test_progress_of_an_encoding_that_cannot_be() -> None:
    n_texts = {"user": 2, "item": 2}
    assert State("j").fits(n_texts)
    assert State("j", 3, {"user": 2, "item": 1}, {"user": [0, 1], "item": []}).fits(n_texts)
    for state in (
        State("j", 3, {"user": 3, "item": 0}),
        State("j", 3, {"user": 1}),
        State("j", None, {"user": 1, "item": 0}),
        State("j", 3, {"user": 2, "item": 0}, {"user": [1, 0], "item": []}),
        State("j", 3, {"user": 2, "item": 0}, {"user": [2], "item": []}),
        State("j", 3, {"user": 2, "item": 0}, {"user": [1, 1], "item": []}),
    ):
        assert not state.fits(n_texts)
