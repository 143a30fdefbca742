"""Profiles on disk: whole lines only, one writer at a time, nothing recorded is lost."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.profile.record import (
    Failure,
    Profile,
    ProfileLog,
    failures_path,
    iter_profiles,
    profiles_path,
    read_failures,
    read_profiles,
    write_failures,
    write_profiles,
)


def profile(token: str, text: str = "Likes maps.", writer: str = "llm:m", prompt: str = "p") -> Profile:
    return Profile(token, text, "Reviews say so.", writer, prompt, "t")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "tiny.userprf.jsonl"


def test_names_of_files(tmp_path: Path) -> None:
    assert profiles_path(tmp_path, "tiny", "user") == tmp_path / "tiny.userprf.jsonl"
    assert failures_path(tmp_path, "tiny", "item") == tmp_path / "tiny.itemprf.failed.jsonl"


def test_a_line_has_the_promised_keys(path: Path) -> None:
    with ProfileLog(path) as log:
        log.append(profile("u1"))
        log.append(replace(profile("u2"), interacted=("i1", "i2")))
    first, second = map(json.loads, path.read_text().splitlines())
    assert list(first) == ["token", "profile", "reasoning", "writer", "prompt_sha256", "train_sha256"]
    assert first == {**first, "token": "u1", "profile": "Likes maps.", "train_sha256": "t"}
    assert second["told"] == ["i1", "i2"]


TEXTS = ["", "two\nlines\r\n", "\u2028 and \x0c and \x00", "日本語 ключ", "half \ud83d of a pair", '"}{\\']


def test_texts_come_back_as_they_were(path: Path) -> None:
    with ProfileLog(path) as log:
        for text in TEXTS:
            log.append(profile(f"u{text}", text))
        assert log.current() == {f"u{text}": profile(f"u{text}", text) for text in TEXTS}
    assert read_profiles(path) == {f"u{text}": profile(f"u{text}", text) for text in TEXTS}
    assert "日本語".encode() in path.read_bytes(), "people read these files"


def test_the_last_line_of_a_token_counts(path: Path) -> None:
    lines = [profile("u1", "a"), profile("u2", "b"), profile("u1", "c", "template", "q")]
    with ProfileLog(path) as log:
        for line in lines:
            log.append(line)
    with ProfileLog(path) as log:
        assert log.current() == {"u1": lines[2], "u2": lines[1]}
        assert log.find("u1", "llm:m", "p") == lines[0], "superseded, and still to be found"
        assert log.find("u1", "llm:m", "q") is None
        assert ("u1", "template", "q") in log
        assert ("u2", "template", "q") not in log
    assert list(iter_profiles(path)) == lines


def test_recall(path: Path) -> None:
    old, other = profile("u1", "a"), profile("u1", "b", "template", "q")
    wanted = replace(old, profile="", reasoning="")
    with ProfileLog(path) as log:
        assert not log.recall(wanted)
        log.append(old)
        assert log.recall(wanted)
        assert list(iter_profiles(path)) == [old], "it is the current one"
        log.append(other)
        assert log.recall(wanted)
        assert log.recall(wanted)
        assert list(iter_profiles(path)) == [old, other, old]
        assert log.recall(replace(wanted, train_sha256="t2", interacted=("i1",)))
        assert log.current() == {"u1": replace(old, train_sha256="t2", interacted=("i1",))}


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_cut_off(path: Path, cut: int) -> None:
    with ProfileLog(path) as log:
        log.append(profile("u1"))
        log.append(profile("u2"))
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[0][:-cut])
    if cut == 1:  # all but the line break: nothing is missing
        whole += whole.splitlines(keepends=True)[0]
    assert set(read_profiles(path)) == {"u1", "u2"}
    assert ("u2", "llm:m", "p") in ProfileLog(path, read_only=True)
    with ProfileLog(path) as log:
        assert set(log.current()) == {"u1", "u2"}
        assert path.read_bytes() == whole
        log.append(profile("u3"))
    assert set(read_profiles(path)) == {"u1", "u2", "u3"}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("{", "Expecting property name"),
        ("[]", "it is a list ([]), expected an object"),
        ("", "Expecting value"),
        ('{"token": "u"}', "'profile' is missing, expected one of the keys token, profile, writer"),
        ('{"token": 1, "profile": "", "writer": ""}', "'token' is the number 1, expected text"),
        ('{"token": "u", "profile": "", "writer": "", "told": "i"}', "'told' is the text 'i', expected a list"),
    ],
)
def test_malformed_line(path: Path, line: str, found: str) -> None:
    write_profiles(path, [profile("u1")])
    good = path.read_text()
    path.write_text(good + line + "\n" + good)
    before = path.read_bytes()
    for read in (read_profiles, ProfileLog, lambda path: ProfileLog(path, read_only=True)):
        with pytest.raises(DataError) as error:
            read(path)
        assert "line 2 is no profile" in str(error.value)
        assert found in str(error.value)
    assert path.read_bytes() == before


def test_released_profiles_have_no_hashes(path: Path) -> None:
    path.parent.mkdir()
    path.write_text('{"token": "u", "profile": "x", "writer": "RLMRec release"}\n')
    assert read_profiles(path) == {"u": Profile("u", "x", "", "RLMRec release", "", "")}


def test_one_writer_at_a_time(path: Path) -> None:
    with ProfileLog(path) as log:
        with pytest.raises(DataError, match="Another process is writing"):
            ProfileLog(path)
        log.append(profile("u1"))
        assert set(ProfileLog(path, read_only=True).current()) == {"u1"}
    with ProfileLog(path) as log:
        assert set(log.current()) == {"u1"}


def test_read_only_changes_nothing(path: Path) -> None:
    assert ProfileLog(path, read_only=True).current() == {}
    assert not path.parent.exists()
    with pytest.raises(DataError, match="There is no file of profiles"):
        read_profiles(path)
    write_profiles(path, [profile("u1")])
    torn = path.read_bytes() + b'{"token": "u'
    path.write_bytes(torn)
    assert set(ProfileLog(path, read_only=True).current()) == {"u1"}
    assert path.read_bytes() == torn


@contextmanager
def small_disk(size: int) -> Iterator[None]:
    """The kernel writes no file beyond this size: it shortens the write that would, as a full disk does.

    Not longer than needed: pytest's output may be a file, too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_full_disk(path: Path) -> None:
    size, refused = 700, r"cannot be written: .*bytes written.* What was recorded before is whole"
    with ProfileLog(path) as log:
        n_written = 0
        with small_disk(size), pytest.raises(DataError, match=refused):
            while True:
                log.append(profile(f"u{n_written}"))
                n_written += 1
        length = len(path.read_bytes()) // n_written
        assert n_written == size // length > 3
        assert set(read_profiles(path)) == {f"u{number}" for number in range(n_written)}
        assert ("u99", "llm:m", "p") not in log
    assert set(ProfileLog(path, read_only=True).current()) == {f"u{number}" for number in range(n_written)}


def test_disk_that_refuses_to_sync(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    with ProfileLog(path) as log:
        log.append(profile("u1"))
        monkeypatch.setattr(os, "fsync", refuse)
        with pytest.raises(DataError, match="No space left on device"):
            log.append(profile("u2"))
        assert set(log.current()) == {"u1"}
    assert set(read_profiles(path)) == {"u1"}


def test_failures(tmp_path: Path) -> None:
    path = tmp_path / "tiny.userprf.failed.jsonl"
    assert read_failures(path) == {}
    failures = [Failure("u1", "p", "llm:m", "HTTP 400: too long", 1), Failure("u2", "q", "llm:m", "empty", 4)]
    write_failures(path, failures)
    assert read_failures(path) == {failure.token: failure for failure in failures}
    assert set(json.loads(path.read_text().splitlines()[0])) == {
        "token",
        "prompt_sha256",
        "writer",
        "error",
        "attempts",
        "refused",
    }
    write_failures(path, [])
    assert not path.exists()
    write_failures(path, [])
    path.write_text('{"token": "u"}\n')
    with pytest.raises(DataError, match=r"line 1 is no failure.*remove it"):
        read_failures(path)


def test_failures_on_a_full_disk(tmp_path: Path) -> None:
    path, size = tmp_path / "failed.jsonl", 700
    write_failures(path, [Failure("u1", "p", "llm:m", "x", 1)])
    with small_disk(size), pytest.raises(DataError, match="No profile is lost; the 1 that failed"):
        write_failures(path, [Failure("u1", "p", "llm:m", "x" * size, 1)])
    assert read_failures(path)["u1"].error == "x"
    assert [file.name for file in tmp_path.iterdir()] == ["failed.jsonl"]
