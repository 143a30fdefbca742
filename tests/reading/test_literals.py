"""Python's literals read as JSON: what is taken has the value that Python gives it, and the work is bounded."""

from __future__ import annotations

import ast
import json
import random
import time
import warnings
from typing import Any

import pytest

from recbole_rlmrec.reading.literals import json_of_literal

#: What texts are made of: quotation marks, escapes of all kinds and characters of all kinds.
PIECES = (
    *(
        "'",
        '"',
        "\\",
        "\\\\",
        "\\'",
        '\\"',
        "\\n",
        "\\t",
        "\\x41",
        "\\x2",
        "\\u00e9",
        "\\ud83d",
        "\\ude00",
        "\\N{DASH}",
    ),
    *(
        "\\0",
        "\\101",
        "\\a",
        "\\/",
        "\\b",
        "\\\n",
        "\n",
        "\r",
        "\t",
        "\x0c",
        "\x00",
        "\x7f",
        "\u2028",
        "\ud800",
        "é",
        "😀",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        "(",
        ")",
        ":",
        ",",
        " ",
        ", ",
        "u",
        "b",
        "r",
        "f",
        "'''",
        "#",
        "+",
        "-",
        ".",
        "_",
        "e",
        "E",
        "x",
    ),
    *("0", "1", "12", "01", "1.", ".5", "1.5", "-3", "- 3", "1e5", "1e999", "1_0", "0x1f", "2j", "9" * 18, "9" * 25),
    *("True", "False", "None", "true", "null", "NaN", "Infinity", "-Infinity", "a", "lambda", "..."),
)


def outcome(text: str) -> tuple[bool, Any]:
    """Return whether the text is taken, and the value then."""
    as_json = json_of_literal(text)
    if as_json is None:
        return False, None
    try:
        return True, json.loads(as_json)
    except ValueError:
        return False, None


def python_says(text: str) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that Python will refuse one day
        return repr(ast.literal_eval(text))


def a_value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(9 if depth < 3 else 6)
    if kind < 3:
        return "".join(rng.choice(PIECES) for _ in range(rng.randrange(6))).replace("\ud800", "")
    if kind < 6:
        return rng.choice([True, False, None, 0, -7, 3.25, -0.0, 1e-7, 10**17])
    parts = [a_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return parts if kind < 7 else {f"key {number}": part for number, part in enumerate(parts)}


def changed(rng: random.Random, text: str) -> str:
    """Return a text with some characters taken out, doubled or put in."""
    for _ in range(rng.randrange(4)):
        start = rng.randrange(len(text) + 1)
        text = text[:start] + rng.choice([*PIECES, ""]) + text[start + rng.randrange(3) :]
    return text


def test_what_is_taken_has_the_value_that_python_gives_it() -> None:
    rng = random.Random(0)
    n_taken = 0
    for _ in range(4000):
        text = changed(rng, repr(a_value(rng))).strip()
        is_taken, value = outcome(text)
        if is_taken:
            assert repr(value) == python_says(text), text
            n_taken += 1
    assert n_taken > 1000


def test_pieces_alone_and_in_pairs() -> None:
    for first in PIECES:
        for second in ("", *PIECES):
            for text in (first + second, f"'{first}{second}'", f'"{first}{second}"', f"[{first}{second}]"):
                is_taken, value = outcome(text.strip())
                if is_taken:
                    assert repr(value) == python_says(text.strip()), text


@pytest.mark.parametrize(
    "text",
    [
        "{'asin': '0001', 'price': 9.99, 'new': True, 'categories': [['Books', None]], 'related': {}}",
        """{u'asin': u'0001', u'title': "It's", 'said': 'He said "no"', 'other': 'it\\'s \\\\ and \\x41\\u00e9\\n'}""",
        '{\'a\': "one", "b": "two \\" three", \'c\': u"four"}',
        "'😀'",
        "-12",
    ],
)
def test_what_dumps_have_is_taken(text: str) -> None:
    is_taken, value = outcome(text)
    assert is_taken and repr(value) == python_says(text)


@pytest.mark.parametrize(
    "text",
    [
        "'" + "\\'" * 10**5,
        '"' * (10**5 + 1),
        "'\"" * 10**5,
        "\\" * 10**5,
        "{'a': u" * 10**4,
        "[" * 10**5,
        "1" * 10**5,
        "-" * 10**5,
        "'a'u" * 10**5,
        "True" * 10**5 + "x",
        "\\x4" * 10**5,
        "'" + "\\x41" * 10**5,
        "'\ud800'",
    ],
)
def test_the_work_is_bounded_by_the_length(text: str) -> None:
    started = time.process_time()
    assert not outcome(text)[0]
    assert time.process_time() - started < 1
