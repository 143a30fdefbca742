"""How messages count, list and show examples, and which word they take for a misspelt one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

#: So many examples are shown where nothing else is said.
N_EXAMPLES = 3


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


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most likely meant by ``word``; None if none is near.

    Small and capital letters, hyphens and underscores are the same. First come words that differ by a slip or two of
    the hand, then words of which one begins with the other, words that hold all its parts, and words of much the same
    letters.

    >>> [nearest(word, ["writer", "worker", "train_batch_size"]) for word in ("writter", "batch-size", "qqq")]
    ['writer', 'train_batch_size', None]
    """
    folded = word.lower().replace("-", "_")
    ranked = [(_distance(folded, each.lower().replace("-", "_")), len(each), each) for each in known]
    return min(((*near, length, each) for near, length, each in ranked if near is not None), default=(None,))[-1]


def _distance(word: str, known: str) -> tuple[int, float] | None:
    """Return how far a known word is, first by the kind of likeness; None if it is not near."""
    if word.replace("_", "") == known.replace("_", ""):
        return 0, 0
    if len(word) > 2 and (slips := _slips(word, known, max(1, len(word) // 4))) is not None:
        return 0, slips
    short, long = sorted((word, known), key=len)
    if len(short) > 3 and long.startswith(short):
        return 1, len(long) - len(short)
    if len(word) > 3 and set(word.split("_")) <= set(known.split("_")):
        return 2, len(known) - len(word)
    likeness = difflib.SequenceMatcher(None, word, known).ratio()
    return (3, 1 - likeness) if likeness >= 0.75 else None


def _slips(word: str, known: str, most: int) -> int | None:
    """Return how many letters are missing, too many, wrong or exchanged with their neighbour; None if over ``most``."""
    if abs(len(word) - len(known)) > most:
        return None
    before: list[int] = []
    last = list(range(len(known) + 1))
    for row, letter in enumerate(word, 1):
        this = [row]
        for column, other in enumerate(known, 1):
            steps = min(last[column] + 1, this[-1] + 1, last[column - 1] + (letter != other))
            if row > 1 and column > 1 and (letter, word[row - 2]) == (known[column - 2], other):
                steps = min(steps, before[column - 2] + 1)
            this.append(steps)
        before, last = last, this
    return last[-1] if last[-1] <= most else None
