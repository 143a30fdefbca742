"""Nested values whose parts may be shared: what they would be if each were written out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def check_tree(root: Any, parts_of: Callable[[Any], Iterable[Any]], *, most: int, deepest: int) -> None:
    """Check that a nested value can be walked through.

    A value that is shared may make a small file a large value: nine lists, each of nine times the one before, are a
    thousand million parts.

    Args:
        root: the value.
        parts_of: returns what a value consists of; nothing for a plain one.
        most: so many parts it may have in all, each counted as often as it occurs.
        deepest: so many levels it may have.

    Raises:
        ValueError: it has more, or contains itself; the message is a clause.
    """
    known: dict[int, tuple[int, int] | None] = {}
    kept: list[Any] = []  # an id stands for one value only as long as that lives

    def measured(value: Any, level: int) -> tuple[int, int]:
        """Return the number of parts and of levels."""
        found = known.get(id(value), (0, 0))
        if found is None:
            raise ValueError("it contains itself")
        size, height = found
        if not size:
            if level > deepest:
                raise ValueError(f"it is nested more than {deepest} levels deep")
            known[id(value)] = None
            kept.append(value)
            below = [measured(part, level + 1) for part in parts_of(value)]
            size = 1 + sum(part for part, _ in below)
            height = 1 + max((part for _, part in below), default=0)
            known[id(value)] = size, height
        if level + height - 1 > deepest:
            raise ValueError(f"it is nested more than {deepest} levels deep")
        if size > most:
            raise ValueError(f"it has more than {most:,} parts")
        return size, height

    measured(root, 1)


#: Levels of JSON, and so many brackets that there may be more levels.
DEEPEST_JSON = 64
_MOST_LISTS = 10**7


def check_depth(value: Any, text: bytes) -> None:
    """Check that what was read from a text is not nested without measure; nearly every line need not be walked through.

    Raises:
        ValueError: it is; the message is a clause.
    """
    if text.count(b"[") + text.count(b"{") + text.count(b"(") > DEEPEST_JSON:
        check_tree([value], nested_parts, most=_MOST_LISTS, deepest=DEEPEST_JSON)


def plain_parts(value: Any) -> Iterable[Any]:
    """Return the values of a list or tuple, or the keys and values of a dictionary."""
    if isinstance(value, dict):
        return [part for pair in value.items() for part in pair]
    return value if isinstance(value, (list, tuple)) else ()


def nested_parts(value: Any) -> Iterable[Any]:
    """Return those of the parts that may have parts themselves: enough where nothing is shared."""
    values = value.values() if isinstance(value, dict) else value
    return [part for part in values if isinstance(part, (dict, list, tuple))]
