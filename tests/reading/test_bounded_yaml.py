"""YAML of anybody: what is repeated, nested or tagged without measure is one error, and takes no time."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from recbole_rlmrec.config import parse_value, read_yaml
from recbole_rlmrec.errors import SettingError

LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 9)}]\n" for before, after in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (LAUGHS, "it has more than 10,000 parts"),
        ("a: &a [*a]", "it contains itself"),
        ("a: &a {b: *a}", "it contains itself"),
        ("a: &a {<<: *a}", "it contains itself"),
        ("a: " + "[" * 1000, "it is nested more than 50 levels deep"),
        ("a: " + "{a: " * 1000, "it is nested more than 50 levels deep"),
        ("\n".join(" " * level + "a:" for level in range(300)), "it is nested more than 50 levels deep"),
        ("a: [" + "1, " * 10_000 + "1]", "it has more than 10,000 values"),
        ("#" * 300_000, "it is larger than 262,144 bytes"),
        ("a: 1\nb: 2\na: 3", "the key 'a' stands twice"),
        ("a: {x: 1, x: 2}", "the key 'x' stands twice"),
        ("a: " + "9" * 5000, "a number has 5,000 digits"),
        ("a: !!bool maybe", "a value is not what its tag says"),
        ("a: !!int ''", "a value is not what its tag says"),
        ("a: !!float x", "could not convert string to float"),
        ("a: !!binary aGk=", "could not determine a constructor for the tag"),
        ("a: !!set {a}", "could not determine a constructor for the tag"),
        ("a: !!timestamp 2020-01-01", "could not determine a constructor for the tag"),
        ("? [1]\n: 2", "found unhashable key"),
    ],
    ids=lambda value: value[:20],
)
def test_hostile_text(tmp_path: Path, text: str, found: str) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text)
    with pytest.raises(SettingError) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(f"'{path}' is not a readable YAML file: ") and found in str(caught.value)


def test_what_people_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "good.yaml"
    path.write_bytes(b"\xef\xbb\xbfx: &x {p: 1, q: 2}\ny: {<<: *x, p: 3}\nz: [*x, *x]\nn: -9223372036854775808\n")
    both = {"p": 1, "q": 2}
    assert read_yaml(path) == {"x": both, "y": {"p": 3, "q": 2}, "z": [both, both], "n": -(2**63)}


def test_on_the_command_line_it_stays_text() -> None:
    for text in ("[" * 1000, "9" * 5000, "{a: 1, a: 2}", "[" + "1, " * 10_000 + "1]"):
        assert parse_value(text) == text


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, kind in ((tmp_path / "pipe", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(SettingError, match=f"it is {kind}, expected a regular file"):
            read_yaml(path)
