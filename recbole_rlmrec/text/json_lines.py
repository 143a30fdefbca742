"""Large files of one object a line, plain or gzipped, read as a stream that survives a few malformed lines."""

from __future__ import annotations

import ast
import json
import math
import pickle
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar

from tqdm import tqdm

from recbole_rlmrec.data.atomic_file import LONGEST_ID
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.reading.literals import json_of_literal
from recbole_rlmrec.reading.regular import require_regular
from recbole_rlmrec.reading.tree import check_depth
from recbole_rlmrec.reading.unpacked import BELIEVED, UNPACKED, open_unpacked
from recbole_rlmrec.wording import N_EXAMPLES

orjson: Any = None
with suppress(ImportError):  # it is faster, and not needed
    orjson = import_module("orjson")

#: The share of a file's lines that may be malformed, unless given otherwise.
MAX_MALFORMED = 0.01

#: Bytes of the longest line that may be a Python literal: Python's parser needs a hundred times a literal's size.
LONGEST_LITERAL = 2**20

#: Whatever it is, a text that holds such a thing has no number that anything is known by.
_LONG_HEXADECIMAL = re.compile("0[xXoObB][0-9a-fA-F_]{100}")

#: Blocks that are on their way to and from other processes, so that none of them waits.
_BLOCKS_AHEAD = 8
#: Digits to zeros. orjson makes a float of a whole number past 64 bits, which has 19 digits at least.
_TO_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER = b"0" * 19

_ADDRESS = re.compile(r" object at 0x[0-9a-f]+")

_Made = TypeVar("_Made")
#: A record as it lies in the file.
_Raw = TypeVar("_Raw")


class _Malformed(NamedTuple):
    """What is left of a record that is none: what is wrong with it, and how it begins."""

    reason: str
    start: str


class MalformedLineError(ValueError):
    """A line does not say what it should; the message continues "line 7"."""


def parse_json(line: bytes) -> Any:
    """Read a line of JSON.

    Raises:
        MalformedLineError: it is none.
    """
    if orjson is not None and _LONG_NUMBER not in line.translate(_TO_ZEROS):
        with suppress(ValueError):  # NaN among others, and what Python has another word for
            return orjson.loads(line)
    text = _text(line)
    try:
        return _loads(text)
    except (ValueError, RecursionError) as error:
        raise MalformedLineError(f"is not valid JSON ({error})") from error


def parse_json_or_literal(line: bytes, longest_literal: int = LONGEST_LITERAL) -> Any:
    """Read a line of JSON or, failing that, of Python's literals (``{'asin': '0001'}``), which executes nothing.

    Raises:
        MalformedLineError: it is neither.

    >>> parse_json_or_literal(b'{"asin": "0001"}'), parse_json_or_literal(b"{'asin': '0001'}")
    ({'asin': '0001'}, {'asin': '0001'})
    """
    is_short = len(line) <= longest_literal
    if is_short and line.startswith((b"{'", b"{u'")):  # which no JSON does
        with suppress(ValueError):
            return parse_literal(_text(line).strip())
    try:
        return parse_json(line)
    except MalformedLineError as error:
        text, json_error = _text(line), error.__cause__
    if not is_short:
        raise MalformedLineError(f"is not valid JSON ({json_error}) and too long for a Python literal")
    try:
        return parse_literal(text.strip())
    except ValueError as error:
        raise MalformedLineError(f"is neither valid JSON ({json_error}) nor a Python literal ({error})") from error


def parse_literal(text: str) -> Any:
    """Read a literal of Python, which executes nothing.

    Raises:
        ValueError: it is none, or holds a number of more digits than Python writes out: hexadecimal ones have no bound.

    >>> parse_literal("{'lot': False}")
    {'lot': False}
    """
    as_json = json_of_literal(text)
    try:
        if as_json is not None and not _LONG_HEXADECIMAL.search(text):
            with suppress(ValueError):
                return json.loads(as_json) if orjson is None else orjson.loads(as_json)
        value = ast.literal_eval(text)
        if _LONG_HEXADECIMAL.search(text):
            raise ValueError("a number with too many digits")
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        reason = _ADDRESS.sub("", str(error).split("\n")[0][:100])  # of one line, the same each time
        raise ValueError(reason or type(error).__name__) from error
    return value


def _loads(text: str) -> Any:
    # NaN is no JSON, but pandas and Python write it for what is missing.
    return json.loads(text, parse_constant=lambda name: None if name == "NaN" else float(name))


def _text(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MalformedLineError(f"is not UTF-8 ({error.reason} at byte {error.start + 1})") from error


@dataclass(frozen=True)
class Limits:
    """What keeps the reading of any file within memory and time.

    Attributes:
        block: bytes read at a time.
        longest_line: bytes; a longer line is malformed, and not kept.
        hopeless: from so many malformed lines on, a file that has more of them than others is given up before its end.
        unpacked: bytes that a gzipped file may hold for each of its own.
        believed: bytes that it may hold in any case.
        shared: bytes of the least file that is worth being read by several processes.
    """

    block: int = 2**20
    longest_line: int = 16 * 2**20
    hopeless: int = 1000
    unpacked: int = UNPACKED
    believed: int = BELIEVED
    shared: int = 16 * 2**20


@dataclass
class Records(Generic[_Raw]):
    """A file of one record a line, and what its reading found.

    Attributes:
        path: the file.
        max_malformed: the share of the records that may be malformed.
        show_progress: whether to show a bar of the bytes read, where standard error is a terminal.
        remedy: what to do about too many malformed records, for the error.
        limits: of block, line and malformed records.
        pool: processes that read records for this one, where the kind of file allows it.
        n_lines: records of the last whole reading.
        n_malformed: malformed ones among them.
        examples: the first of these, with line number and reason.
    """

    path: Path
    max_malformed: float = MAX_MALFORMED
    show_progress: bool = False
    remedy: str = "Correct these lines."
    limits: Limits = Limits()
    pool: Executor | None = None
    n_lines: int = 0
    n_malformed: int = 0
    examples: list[str] = field(default_factory=list)

    def records(self, make: Callable[[Mapping[str, Any]], _Made]) -> Iterator[tuple[int, _Made]]:
        """Yield what ``make`` makes of each line's object, with the line's number, from 1.

        Args:
            make: raises :class:`MalformedLineError` where an object lacks what it should have.

        Raises:
            DataError: the file cannot be read, has no line, or has too many malformed ones.
        """
        self.n_lines, self.n_malformed, self.examples = 0, 0, []
        for number, made in self._outcomes(make):
            self.n_lines += 1
            if isinstance(made, _Malformed):
                self._note_malformed(number, made)
            else:
                yield number, made
        if not self.n_lines:
            raise DataError(f"'{self.path}' has no line, expected one object a line. Fetch or write it again.")
        if self.n_malformed > self.max_malformed * self.n_lines:
            raise DataError(self._too_many(f"{self.n_malformed:,} of its {self.n_lines:,} lines are"))

    def chosen(self, numbers: Iterable[int], make: Callable[[Mapping[str, Any]], _Made]) -> Iterator[tuple[int, _Made]]:
        """Yield the lines of these ascending numbers as ``records`` does; the others are not even parsed.

        Raises:
            DataError: the file cannot be read, or one of these lines is missing or malformed.
        """
        for number, made in self._outcomes(make, numbers):
            if isinstance(made, _Malformed):
                raise self.changed(number)
            yield number, made

    def _outcomes(
        self, make: Callable[[Mapping[str, Any]], _Made], numbers: Iterable[int] | None = None
    ) -> Iterator[tuple[int, _Made | _Malformed]]:
        """Yield what ``make`` makes of the records, with the numbers of their lines.

        Args:
            make: see :meth:`records`.
            numbers: ascending; of these lines only.

        Raises:
            DataError: the file cannot be read, or one of these lines is missing.
        """
        left = iter(() if numbers is None else numbers)
        wanted = next(left, None)
        for number, line in self.lines():
            if numbers is not None and number != wanted:
                continue
            try:
                yield number, make(self._object(line))
            except MalformedLineError as error:
                yield number, _Malformed(str(error), self._excerpt(line))
            wanted = next(left, None)
        if wanted is not None:
            raise self.changed(wanted)

    def changed(self, number: int) -> DataError:
        """Return the error to raise when a line is not what it was when the file was read before."""
        return DataError(
            f"'{self.path}' changed while it was read: line {number} is another than before. Run this again when "
            "nothing writes to the file."
        )

    def lines(self) -> Iterator[tuple[int, _Raw]]:
        """Yield the records that are not blank, unread, with the ascending numbers of their lines.

        Raises:
            DataError: the file cannot be read.
        """
        raise NotImplementedError

    def _object(self, line: _Raw) -> Mapping[str, Any]:
        """Read a record.

        Raises:
            MalformedLineError: it is none.
        """
        raise NotImplementedError

    def _excerpt(self, line: _Raw) -> str:
        """Return the beginning of an unread record."""
        raise NotImplementedError

    def _progress(self, total: int) -> tqdm[NoReturn]:
        """Return the bar of the bytes read."""
        return tqdm(
            total=total,
            desc=self.path.name,
            unit="B",
            unit_scale=True,
            disable=None if self.show_progress else True,
        )

    def _note_malformed(self, number: int, found: _Malformed) -> None:
        self.n_malformed += 1
        if len(self.examples) < N_EXAMPLES:
            start = found.start
            self.examples.append(f"line {number} {found.reason}: {start[:60]!r}" + ("..." if len(start) > 60 else ""))
        if self.n_malformed >= self.limits.hopeless and self.n_malformed > max(self.max_malformed, 0.5) * self.n_lines:
            raise DataError(self._too_many(f"{self.n_malformed:,} of its first {self.n_lines:,} lines are"))

    def _too_many(self, found: str) -> str:
        examples = "".join(f"\n  {example}" for example in self.examples)
        return (
            f"'{self.path}': {found} malformed, expected at most {100 * self.max_malformed:g} %.{examples}\n"
            f"Is it the right file, and whole? {self.remedy}"
        )


@dataclass
class JsonLines(Records[bytes]):
    """A file of one object a line, plain or gzipped, whatever its name; blank lines count as none.

    Attributes:
        parse: turns a line into a value, or raises :class:`MalformedLineError`.
    """

    parse: Callable[[bytes], Any] = parse_json

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield the lines that are not blank, without their ends, with their numbers from 1.

        Of a line that is longer than any real one, only so much is kept that it can be named.

        Raises:
            DataError: the file cannot be read or, gzipped, is damaged.
        """
        number = 0
        for block in self._blocks():
            for line in block.split(b"\n"):
                number += 1
                if line and not line.isspace():
                    yield number, line

    def _outcomes(
        self, make: Callable[[Mapping[str, Any]], _Made], numbers: Iterable[int] | None = None
    ) -> Iterator[tuple[int, _Made | _Malformed]]:
        reader = _BlockReader(self.parse, self.limits.longest_line, make)
        pool = self.pool if self._is_shared(reader) else None
        if pool is None:
            for first, block, lines in self._numbered_blocks(numbers):
                for number, made in reader.outcomes(block, lines):
                    yield first + number, made
            return
        waiting: deque[tuple[int, Future[list[tuple[int, _Made | _Malformed]]]]] = deque()
        try:
            for first, block, lines in self._numbered_blocks(numbers):
                waiting.append((first, pool.submit(reader, block, lines)))
                if len(waiting) > _BLOCKS_AHEAD:
                    yield from self._awaited(*waiting.popleft())
            while waiting:
                yield from self._awaited(*waiting.popleft())
        finally:
            for _, future in waiting:
                future.cancel()

    def _is_shared(self, reader: object) -> bool:
        """Return whether other processes read blocks: of a large file, by what can be sent to them."""
        try:
            is_large = self.pool is not None and require_regular(self.path) >= self.limits.shared
            return is_large and bool(pickle.dumps(reader))
        except (OSError, pickle.PicklingError, AttributeError, TypeError):
            return False

    def _awaited(
        self, first: int, future: Future[list[tuple[int, _Made | _Malformed]]]
    ) -> Iterator[tuple[int, _Made | _Malformed]]:
        try:
            outcomes = future.result()
        except BrokenExecutor as error:
            raise DataError(
                f"'{self.path}': a process that read a part of it has ended ({error}). Memory may be short: read it in "
                "one process, with --jobs=1."
            ) from error
        for number, made in outcomes:
            yield first + number, made

    def _numbered_blocks(self, numbers: Iterable[int] | None) -> Iterator[tuple[int, bytes, list[int] | None]]:
        """Yield the number of the line before each block, the block, and which of its lines are wanted; None for all.

        Args:
            numbers: ascending; without them all lines are wanted.

        Raises:
            DataError: the file cannot be read, or has not so many lines.
        """
        left = iter(() if numbers is None else numbers)
        wanted, first = next(left, None), 0
        for block in self._blocks():
            end = first + block.count(b"\n") + 1
            lines: list[int] | None = None if numbers is None else []
            while lines is not None and wanted is not None and wanted <= end:
                lines.append(wanted - first)
                wanted = next(left, None)
            if lines is None or lines:
                yield first, block, lines
            first = end
        if wanted is not None:
            raise self.changed(wanted)

    def _blocks(self) -> Iterator[bytes]:
        """Yield the file's lines, many at a time, without the last one's end."""
        rest, is_first, in_long_line = b"", True, False
        for block in self._chunks():
            if is_first:
                block, is_first = block[3:] if block.startswith(b"\xef\xbb\xbf") else block, False
            end = block.rfind(b"\n")
            if end < 0:  # the line goes on
                if not in_long_line:
                    rest += block
                    in_long_line = len(rest) > self.limits.longest_line
                continue
            yield rest + block[block.find(b"\n") if in_long_line else 0 : end]
            rest, in_long_line = block[end + 1 :], False
        yield rest

    def _chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes, decompressed."""
        limits = self.limits
        with (
            open_unpacked(self.path, limits.unpacked, limits.believed) as file,
            self._progress(file.size) as bar,
        ):
            while chunk := file.stream.read(limits.block):
                bar.update(file.position() - bar.n)
                yield chunk


@dataclass(frozen=True)
class _BlockReader(Generic[_Made]):
    """Reads blocks of lines, also in another process.

    Attributes:
        parse: see :class:`JsonLines`.
        longest_line: see :class:`Limits`.
        make: see :meth:`Records.records`.
    """

    parse: Callable[[bytes], Any]
    longest_line: int
    make: Callable[[Mapping[str, Any]], _Made]

    def __call__(self, block: bytes, wanted: Sequence[int] | None) -> list[tuple[int, _Made | _Malformed]]:
        """Return :meth:`outcomes` at once."""
        return list(self.outcomes(block, wanted))

    def outcomes(self, block: bytes, wanted: Sequence[int] | None) -> Iterator[tuple[int, _Made | _Malformed]]:
        """Yield what is made of the lines, with their numbers from 1.

        Args:
            block: the lines.
            wanted: numbers of those to read, none of them blank; without them all that are not blank.
        """
        lines = block.split(b"\n")
        for number, line in enumerate(lines, 1) if wanted is None else ((each, lines[each - 1]) for each in wanted):
            if wanted is None and (not line or line.isspace()):
                continue
            try:
                yield number, self.make(self._object(line))
            except MalformedLineError as error:
                yield number, _Malformed(str(error), line[:100].decode("utf-8", errors="replace"))

    def _object(self, line: bytes) -> Mapping[str, Any]:
        if len(line) > self.longest_line:
            raise MalformedLineError(f"is longer than {self.longest_line // 2**20} MiB")
        value = self.parse(line)
        try:
            check_depth(value, line)
        except ValueError as error:
            raise MalformedLineError(f"is nested too deep: {error}") from None
        if not isinstance(value, dict):
            raise MalformedLineError(f"holds a {type(value).__name__}, expected an object such as {{...}}")
        return value


def is_finite(value: object) -> bool:
    """Return whether a value is no number that is NaN or infinite, as JSON may spell (``Infinity``, ``1e999``)."""
    return not isinstance(value, float) or math.isfinite(value)


def require_text(record: Mapping[str, Any], key: str) -> str:
    """Return a value that names something: text, or a whole number as text.

    Raises:
        MalformedLineError: it is missing, empty, longer than an id may be or something else.

    >>> require_text({"item_id": 12}, "item_id")
    '12'
    """
    value = record.get(key)
    if (isinstance(value, str) and value) or type(value) is int:
        text = str(value)
        if len(text) > LONGEST_ID:
            raise MalformedLineError(f"has {key!r} of {len(text):,} characters, of at most {LONGEST_ID:,}")
        return text
    raise MalformedLineError(
        f"has {key!r} = {short_repr(value)}, expected text"
        if key in record
        else f"has no {key!r}; its keys are {short_repr(list(record))}"
    )


def optional_number(record: Mapping[str, Any], key: str) -> float | None:
    """Return a finite number, also from text, or None where it is missing or null.

    Raises:
        MalformedLineError: it is something else.

    >>> optional_number({"rating": "4"}, "rating"), optional_number({}, "rating")
    (4.0, None)
    """
    value: int | float | str | None = record.get(key)
    if value is None or (type(value) is float and abs(value) < float("inf")):
        return value
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if isinstance(value, bool) or not abs(number) < float("inf"):
        raise MalformedLineError(f"has {key!r} = {short_repr(value)}, expected a number")
    return number
