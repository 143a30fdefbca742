"""How messages count, list and show examples."""

from __future__ import annotations

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
