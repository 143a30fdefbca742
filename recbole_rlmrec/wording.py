"""How messages count, list and show examples, and which word they take for a misspelt one."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from typing import Any

#: So many examples are shown where nothing else is said.
N_EXAMPLES = 3

#: Marks a message of the level INFO, as ``extra``, as one that the terminal shows; others go to a run's log only.
ON_SCREEN = {"on_screen": True}

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
_NOT_SHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# Colours, movements and titles: ESC [ ... letter, ESC ] ... BEL; and their forms of one byte.
_TERMINAL_SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"
)


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "row"), count(9000, "row")
    ('1 row', '9,000 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def examples(tokens: Iterable[Any], most: int = N_EXAMPLES) -> str:
    """Return the first few tokens in quotation marks.

    >>> examples(["12", "77", "80", "91"])
    "'12', '77', '80'"
    """
    return ", ".join(repr(str(token)) for token, _ in zip(tokens, range(most)))


def example_pairs(pairs: Iterable[tuple[Any, Any]], most: int = N_EXAMPLES) -> str:
    """Return the first few (user, item) pairs.

    >>> example_pairs([("u1", "i7"), ("u2", "i9")], most=1)
    '(u1, i7)'
    """
    return ", ".join(f"({user}, {item})" for (user, item), _ in zip(pairs, range(most)))


def listed(names: Sequence[str], most: int = 5) -> str:
    """Return names one after another; of a long list only the beginning.

    >>> listed(["a.npy", "b.npy", "c.npy"], most=2)
    'a.npy, b.npy and 1 more'
    """
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def printable(text: str) -> str:
    r"""Return a text that a terminal shows and does not obey: control characters are written as escapes.

    Whatever comes from a server or a file goes through this before it is shown. Line breaks and tabs stay. Escapes take
    also the place of marks that change the direction of writing, and of halves of characters, which no terminal takes.

    >>> printable("red: \x1b[31m\n")
    'red: \\x1b[31m\n'
    """
    return _NOT_SHOWN.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def without_control_characters(text: str) -> str:
    r"""Return a text to be stored: without a terminal's sequences and control characters other than line breaks, tabs.

    >>> without_control_characters("a \x1b[1mbold\x1b[0m\r\nword\0")
    'a bold\nword'
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL.sub("", _TERMINAL_SEQUENCE.sub("", text))


def without_half_pairs(text: str) -> str:
    r"""Replace halves of surrogate pairs, which an escape in JSON can hold and UTF-8 cannot.

    >>> without_half_pairs("a \ud83d b") == "a \N{REPLACEMENT CHARACTER} b"
    True
    """
    return text if text.isascii() else _HALF_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most likely meant by ``word``; None if none is near.

    Small and capital letters, hyphens and underscores are the same. First come words of almost the same letters, then
    those of which one begins with the other (with one of three letters as a part of its own), those that hold all its
    parts, and those of much the same letters.

    >>> [nearest(word, ["writer", "worker", "train_batch_size"]) for word in ("writter", "batch-size", "qqq")]
    ['writer', 'train_batch_size', None]
    """

    def rank(other: str) -> tuple[int, float] | None:
        theirs = other.lower().replace("-", "_")
        likeness = difflib.SequenceMatcher(None, folded, theirs).ratio()
        short, long = sorted((folded, theirs), key=len)
        is_beginning = long.startswith(f"{short}_" if len(short) == 3 else short)
        if likeness >= 0.8 or folded.replace("_", "") == theirs.replace("_", ""):
            return 0, -likeness
        if is_beginning and len(short) >= 3:
            return 1, -likeness
        if len(folded) > 3 and set(folded.split("_")) <= set(theirs.split("_")):
            return 2, -likeness
        return (3, -likeness) if likeness >= 0.7 else None

    folded = word.lower().replace("-", "_")
    ranked = [(place, other) for other in known if (place := rank(other)) is not None]
    return min(ranked)[1] if ranked else None
