"""What settings of RecBole's may be, beside numbers, words and flags: lists, mappings, intervals, devices."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from recbole_rlmrec.settings import AutoOr, Choice, OfType, Range

_NUMBER = r"[-+]?(?:\d+\.?\d*(?:e[-+]?\d+)?|\.\d+|inf)"
_INTERVAL = re.compile(rf"([\[(])\s*({_NUMBER})\s*,\s*({_NUMBER})\s*([\])])", re.IGNORECASE)


@dataclass(frozen=True)
class Word(Choice):
    """A word of a closed set, in capital or small letters.

    >>> "Adam" in Word(("adam", "sgd")), "adamm" in Word(("adam", "sgd"))
    (True, False)
    """

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and value.lower() in self.words


@dataclass(frozen=True)
class Text:
    """Text that is not empty, and of a form where there is one.

    Attributes:
        form: a regular expression for the whole text; none for any.
        label: what the text is, for messages.
    """

    label: str
    form: str = r"(?s).+"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and re.fullmatch(self.form, value) is not None

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Intervals:
    """Intervals as RecBole writes them, in text.

    >>> "[3,inf)" in Intervals(), "(0,1];[3,4)" in Intervals(), "[3,1]" in Intervals(), 3 in Intervals()
    (True, True, False, False)
    """

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and all(map(_holds_numbers, value.split(";")))

    def __str__(self) -> str:
        return "intervals as text, such as '[3,inf)'"


def _holds_numbers(interval: str) -> bool:
    found = _INTERVAL.fullmatch(interval.strip())
    if found is None:
        return False
    low, high = float(found[2]), float(found[3])
    return low < high or (low == high and found[1] + found[4] == "[]")


@dataclass(frozen=True)
class Either:
    """What one of several kinds admits.

    >>> None in Either(Range(1), Nothing()), str(Either(Range(1), Nothing()))
    (True, 'a number at least 1 or nothing (~)')
    """

    kinds: tuple[Kind, ...]

    def __init__(self, *kinds: Kind) -> None:
        object.__setattr__(self, "kinds", kinds)

    def __contains__(self, value: object) -> bool:
        return any(value in kind for kind in self.kinds)

    def __str__(self) -> str:
        return " or ".join(map(str, self.kinds))


@dataclass(frozen=True)
class Nothing:
    """``None``."""

    def __contains__(self, value: object) -> bool:
        return value is None

    def __str__(self) -> str:
        return "nothing (~)"


@dataclass(frozen=True)
class Infinity:
    """The infinite number, which ranges leave out."""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, float) and value == math.inf

    def __str__(self) -> str:
        return ".inf"


@dataclass(frozen=True)
class ListOf:
    """A list of values of one kind.

    Attributes:
        kind: of each value.
        label: what the list is, for messages.
        length: how many there are; None for any number from 1 on.
        may_be_empty: whether there may be none.
    """

    kind: Kind
    label: str
    length: int | None = None
    may_be_empty: bool = False

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (list, tuple)) or (not value and not self.may_be_empty):
            return False
        return all(entry in self.kind for entry in value) and self.length in (None, len(value))

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True)
class Shares(ListOf):
    """Shares of a whole, which is not zero."""

    def __contains__(self, value: object) -> bool:
        return super().__contains__(value) and sum(cast(Sequence[float], value)) > 0


@dataclass(frozen=True)
class MappingOf:
    """A mapping with known keys, or with any keys of text.

    Attributes:
        label: what it is, for messages.
        keys: what each key's value may be; empty for any keys.
        values: what the values of other keys may be; None for no other keys.
        required: keys that must be there.
        length: how many keys there are; None for any number.
    """

    label: str
    keys: Mapping[str, Kind]
    values: Kind | None = None
    required: tuple[str, ...] = ()
    length: int | None = None

    def __contains__(self, value: object) -> bool:
        return self.flaw(value) is None

    def __str__(self) -> str:
        return self.label

    def flaw(self, value: object) -> str | None:
        """Return what is wrong inside a mapping, in half a sentence; None if nothing is."""
        if not isinstance(value, Mapping):
            return f"expected {self.label}"
        for key, entry in value.items():
            kind = self.keys.get(key, self.values) if isinstance(key, str) else None
            if kind is None:
                near = difflib.get_close_matches(str(key), self.keys, n=1)
                advice = f"; did you mean '{near[0]}'?" if near else ""
                return f"there is no {key!r} in it, only {', '.join(self.keys) or 'names'}{advice}"
            if entry not in kind:
                inner = flaw(kind, entry)
                return f"{key}={entry!r}: {inner}"
        lacking = [key for key in self.required if key not in value]
        if lacking:
            return f"it lacks {', '.join(lacking)}; expected {self.label}"
        if self.length not in (None, len(value)):
            return f"expected {self.label}"
        return None


Kind = Range | AutoOr | Choice | OfType | Text | Intervals | Either | Nothing | Infinity | ListOf | MappingOf


def flaw(kind: Kind, value: object) -> str:
    """Return what is wrong with a value that a kind does not admit, in half a sentence."""
    inside = kind.kinds if isinstance(kind, Either) else (kind,)
    mapping = next((each for each in inside if isinstance(each, MappingOf)), None)
    found = mapping.flaw(value) if mapping is not None and isinstance(value, Mapping) else None
    return found or f"expected {kind}"


def nan_in(value: Any) -> bool:
    """Return whether a value is NaN, or holds one.

    >>> nan_in(float("nan")), nan_in({"a": [1, float("nan")]}), nan_in("nan")
    (True, True, False)
    """
    if isinstance(value, Mapping):
        return any(map(nan_in, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(nan_in, value))
    return isinstance(value, float) and math.isnan(value)
