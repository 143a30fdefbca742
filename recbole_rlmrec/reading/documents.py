"""Our own files of JSON: one strict parser, and one error that says where a file has another shape than it should."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from recbole_rlmrec.errors import DataError, RLMRecError
from recbole_rlmrec.reading.regular import bounded_lines, open_regular, read_bounded
from recbole_rlmrec.reading.shape import record_of
from recbole_rlmrec.reading.tree import DEEPEST_JSON, check_depth

_Record = TypeVar("_Record")
_MIB = 2**20
#: Digits of 64-bit whole numbers.
_MOST_DIGITS = 20


def parse_json(content: bytes) -> Any:
    """Read JSON of which every reader understands the same.

    Raises:
        ValueError: it is not UTF-8 or not JSON; or it repeats a key, is nested deeply, or holds a number that is none,
            infinite, or beyond 64 bits. The message is a clause, "it is not valid JSON (...)".

    >>> parse_json(b'{"n": 3}')
    {'n': 3}
    >>> parse_json(b'{"n": 3, "n": 4}')
    Traceback (most recent call last):
    ValueError: it is not valid JSON (the key 'n' stands in one object twice)
    """
    try:
        value = _DECODER.decode(content.decode("utf-8-sig"))
        check_depth(value, content)
    except RecursionError:
        raise ValueError(f"it is not valid JSON (it is nested more than {DEEPEST_JSON} levels deep)") from None
    except ValueError as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} stands in one object twice")
    return found


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(text):,} digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if abs(number) == float("inf"):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_whole, parse_float=_number, parse_constant=_refuse)


@dataclass(frozen=True)
class Format:
    """A kind of file of this package.

    Attributes:
        name: what a file, or a line of it, is, such as ``record of a trial``; "is no ..." goes before it.
        remedy: a sentence that ends each message.
        error: what is raised.
        largest: bytes of the largest file that is read at once.
        longest_line: bytes of the longest line of a file that is read line by line.
        allow_others: whether objects may have further keys, as a later version may write.
    """

    name: str
    remedy: str
    error: type[RLMRecError] = DataError
    largest: int = 64 * _MIB
    longest_line: int = 16 * _MIB
    allow_others: bool = False

    def fault(self, path: str | Path, reason: object, line: int | None = None) -> RLMRecError:
        """Return the error to raise for a file.

        Args:
            path: the file.
            reason: a clause, such as "it is not valid JSON (...)".
            line: its number, from 1, where the file is read line by line.
        """
        where = "" if line is None else f", line {line}"
        return self.error(f"'{path}'{where} is no {self.name}: {reason}. {self.remedy}")

    def read(self, path: str | Path, kind: type[_Record]) -> _Record:
        """Read a file of one object as a dataclass.

        Raises:
            RLMRecError: the file cannot be read or has another shape.
        """
        try:
            return self.parse(self.content(path), kind)
        except ValueError as error:
            raise self.fault(path, error) from error

    def parse(self, content: bytes, kind: type[_Record]) -> _Record:
        """Read one object as a dataclass.

        Raises:
            ValueError: it has another shape; the message is a clause.
        """
        return record_of(kind, parse_json(content), allow_others=self.allow_others)

    def content(self, path: str | Path) -> bytes:
        """Return what is in a file.

        Raises:
            RLMRecError: it cannot be read, is no regular file, or is too large.
        """
        try:
            return read_bounded(path, self.largest)
        except OSError as error:
            raise self.fault(path, _reason(error)) from error

    def lines(self, path: str | Path) -> Iterator[bytes]:
        """Yield the lines of a file with their ends.

        Raises:
            RLMRecError: it cannot be read, is no regular file, or has a line without end.
        """
        try:
            with open_regular(path) as file:
                yield from bounded_lines(file, self.longest_line)
        except OSError as error:
            raise self.fault(path, _reason(error)) from error

    def records(self, path: str | Path, kind: type[_Record]) -> Iterator[_Record]:
        """Read a file of one object a line.

        Raises:
            RLMRecError: the file cannot be read, or a line has another shape.
        """
        for number, line in enumerate(self.lines(path), start=1):
            try:
                yield self.parse(line, kind)
            except ValueError as error:
                raise self.fault(path, error, number) from error


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
