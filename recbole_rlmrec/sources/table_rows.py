"""Tables of a shop's own, as streams of rows: CSV, TSV, JSON lines and Parquet, with separator and encoding found.

A CSV file is read as spreadsheets write it: with quoted fields, which may hold separators and line breaks. Every row
must have as many fields as the header.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.reading.regular import bounded_lines
from recbole_rlmrec.reading.unpacked import open_unpacked
from recbole_rlmrec.text.json_lines import JsonLines, MalformedLineError, Records
from recbole_rlmrec.wording import listed

_logger = logging.getLogger(__name__)

SEPARATORS = {"comma": ",", "tab": "\t", "semicolon": ";", "bar": "|"}
#: What a file that is not UTF-8 is most often in: Excel on Windows writes it.
_SINGLE_BYTE = "cp1252"

#: Characters of the longest field. A quotation mark that is never closed makes a field of all that follows.
_LONGEST_FIELD = 2**20
#: Bytes, or characters, of the longest line: of one without end, no more is read.
_LONGEST_LINE = 16 * 2**20
#: Rows that are looked at to find what a file is.
_N_LOOKED_AT = 100
_N_PARQUET_ROWS = 10_000
_PARQUET = b"PAR1"
_OF_WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
#: How a first line begins that is no header, if no column of that name is wanted: Excel reads ``sep=;``.
_NO_HEADER = ("sep=", "#", "//")
#: Characters of a column's name that a message shows.
_SHOWN = 60


@dataclass(frozen=True)
class Layout:
    """How a table is written.

    Attributes:
        kind: ``csv``, ``jsonl`` or ``parquet``.
        columns: names of its columns; of JSON lines, the keys of its first lines.
        separator: of the fields of a CSV file.
        encoding: of a CSV file.
    """

    kind: str
    columns: tuple[str, ...]
    separator: str = ","
    encoding: str = "utf-8"

    def __str__(self) -> str:
        if self.kind != "csv":
            return {"jsonl": "JSON lines", "parquet": "Parquet"}[self.kind]
        names = {sign: name for name, sign in SEPARATORS.items()}
        separator = names.get(self.separator, repr(self.separator))
        encoding = {"utf-8-sig": "utf-8"}.get(self.encoding, self.encoding)
        return f"CSV, separator {separator}, encoding {encoding}"


def find_layout(path: Path, wanted: Sequence[str], separator: str | None = None, encoding: str | None = None) -> Layout:
    """Find how a table is written.

    The separator is the one whose header has the columns that are wanted.

    Args:
        path: the file.
        wanted: columns that it must have.
        separator: of a CSV file, if it is known.
        encoding: of a CSV file, if it is known.

    Raises:
        DataError: the file cannot be read, has no row, or lacks a column.
        SettingError: the separator or the encoding is none.
    """
    kind = _kind(path)
    if kind == "parquet":
        layout = Layout(kind, tuple(_parquet(path).schema_arrow.names))
    elif kind == "jsonl":
        rows = JsonLines(path, max_malformed=1).records(dict)
        layout = Layout(kind, tuple(dict.fromkeys(key for _, row in islice(rows, _N_LOOKED_AT) for key in row)))
    else:
        encoding = _known_encoding(encoding) if encoding else _find_encoding(path)
        layout = _csv_layout(path, wanted, separator, encoding)
    for name in wanted:
        if name not in layout.columns:
            raise DataError(_no_column(path, layout, name))
    return layout


def open_rows(
    path: Path, layout: Layout, columns: Sequence[str], max_malformed: float, remedy: str, *, show_progress: bool
) -> Records[Any]:
    """Return a table as a stream of rows, each an object with the columns that are wanted.

    Args:
        path: the file.
        layout: of it.
        columns: those to read.
        max_malformed: share of the rows that may be malformed.
        remedy: what to do about too many of them, for the error.
        show_progress: whether to show the bytes read, where standard error is a terminal.
    """
    common: dict[str, Any] = {"max_malformed": max_malformed, "remedy": remedy, "show_progress": show_progress}
    if layout.kind == "jsonl":
        return JsonLines(path, **common)
    if layout.kind == "parquet":
        return _ParquetRows(path, **common, columns=tuple(columns))
    return _CsvRows(path, **common, layout=layout, columns=tuple(columns))


# ---------------------------------------------------------------------- what a file is


def _kind(path: Path) -> str:
    if not path.is_file():
        state = "is no file" if path.exists() else "does not exist"
        raise DataError(f"'{path}' {state}, expected a table: CSV, TSV, JSON lines or Parquet. Correct the path.")
    with open_unpacked(path) as file:
        start = file.stream.read(4096)
    if start.startswith(_PARQUET):
        return "parquet"
    if start.startswith(_OF_WORKBOOKS):
        raise DataError(
            f"'{path}' is a zip archive or a workbook (.xlsx, .xls), expected CSV, TSV, JSON lines or Parquet. "
            "Unpack it, or save the sheet as CSV (UTF-8)."
        )
    if not start.strip():
        raise DataError(f"'{path}' is empty, expected a header and rows. Write it again.")
    return "jsonl" if start.lstrip(codecs.BOM_UTF8).lstrip().startswith(b"{") else "csv"


def _known_encoding(name: str) -> str:
    try:
        "".encode(name)  # base64 and the like are codecs, but of no text
        return codecs.lookup(name).name
    except (LookupError, ValueError):
        raise SettingError(
            f"--encoding {name}: Python knows no such encoding. Common ones are utf-8, utf-16, cp1252 and latin-1."
        ) from None


def _find_encoding(path: Path) -> str:
    """Find the encoding by all lines: UTF-8, UTF-16 with its mark, or else one byte a character.

    Raises:
        DataError: some lines are UTF-8 and some are not.
    """
    with open_unpacked(path) as file:
        good = bad = 0
        for number, line in enumerate(bounded_lines(file.stream, _LONGEST_LINE), start=1):
            if number == 1 and line.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
                return "utf-32"
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                return "utf-16"
            if number == 1 and b"\0" in line:
                raise DataError(
                    f"'{path}' has zero bytes in its first line: it is no text, or UTF-16 without a mark. Set "
                    "--encoding, such as utf-16-le, or write it again as CSV (UTF-8)."
                )
            if line.isascii() or (number == 1 and line.startswith(codecs.BOM_UTF8)):
                continue
            try:
                line.decode("utf-8")
                good = good or number
            except UnicodeDecodeError:
                bad = bad or number
            if good and bad:
                raise DataError(
                    f"'{path}' mixes encodings: line {good:,} is UTF-8, line {bad:,} is not. Convert the file to "
                    f"UTF-8, or read all of it as one encoding with --encoding, such as {_SINGLE_BYTE}."
                )
    if not bad:
        return "utf-8-sig"  # the mark at the start is passed over where there is one
    _logger.warning(
        "%s is not UTF-8 (line %d); it is read as %s, as Excel on Windows writes. --encoding sets another.",
        path,
        bad,
        _SINGLE_BYTE,
    )
    return _SINGLE_BYTE


def _csv_layout(path: Path, wanted: Sequence[str], separator: str | None, encoding: str) -> Layout:
    if separator is not None:
        separators = [SEPARATORS.get(separator, separator.replace("\\t", "\t"))]
        if len(separators[0]) != 1:
            named = ", ".join(SEPARATORS)
            raise SettingError(f"--separator {separator!r} is no separator, expected one character, or one of {named}.")
    else:
        separators = list(SEPARATORS.values())
    headers = {sign: _first_row(path, sign, encoding) for sign in separators}
    layouts = [
        Layout("csv", tuple(name.strip() for name in header), sign, encoding)
        for sign, header in headers.items()
        if header is not None
    ]
    if not layouts:
        raise DataError(
            f"The first line of '{path}' cannot be read: a quotation mark in it is not closed where its field ends, or "
            f"it is longer than {_LONGEST_FIELD:,} characters. Correct it, or set --separator or --encoding."
        )
    layout = max(layouts, key=lambda each: (sum(name in each.columns for name in wanted), len(each.columns)))
    for name in wanted:
        if layout.columns.count(name) > 1:
            raise DataError(f"'{path}' has the column {name!r} more than once. Rename one of them in its first line.")
    return layout


def _first_row(path: Path, separator: str, encoding: str) -> list[str] | None:
    """Return the header as a separator divides it; None where it leaves characters behind a quoted name.

    Raises:
        DataError: it is of another encoding.
    """
    try:
        with open_unpacked(path) as file:
            return next(_reader(file.stream, separator, encoding), [])
    except csv.Error:
        return None
    except UnicodeError as error:
        raise DataError(f"The first line of '{path}' cannot be read as {encoding}: {error}. Set --encoding.") from error


def _no_column(path: Path, layout: Layout, name: str) -> str:
    first = layout.columns[0] if layout.columns else ""
    if layout.kind == "csv" and first.lower().startswith(_NO_HEADER):
        return (
            f"'{path}' begins with {first[:_SHOWN]!r}, which is a comment or a note for Excel, expected the names of "
            "the columns. Remove what stands above them; a separator that is not found is set with --separator."
        )
    near = get_close_matches(name.lower(), [column.lower() for column in layout.columns], n=1, cutoff=0.5)
    hint = [f"Did you mean {column!r}? " for column in layout.columns if near and column.lower() == near[0]][:1]
    shown = [column[:_SHOWN] + "..." * (len(column) > _SHOWN) for column in layout.columns]
    return (
        f"'{path}' ({layout}) has no column {name!r}. {''.join(hint)}Its columns are: {listed(shown, most=20)}"
        ". Name one of these; if they do not look right, set --separator or --encoding."
    )


# ---------------------------------------------------------------------- reading


@dataclass
class _CsvRows(Records[list[str] | None]):
    """A CSV file; a row's number is that of the line it begins on.

    A field with a quotation mark that is not closed, or closed before its end, takes in the rows up to the next mark:
    each of their lines is None, and malformed.

    Attributes:
        layout: how it is written.
        columns: those that are wanted.
    """

    layout: Layout = Layout("csv", ())
    columns: tuple[str, ...] = ()

    def lines(self) -> Iterator[tuple[int, list[str] | None]]:
        """Yield the rows that are not blank, with the numbers of the lines they begin on."""
        number, n_rows, reader = 1, 0, None
        try:
            with open_unpacked(self.path) as file, self._progress(file.size) as bar:
                reader = _reader(file.stream, self.layout.separator, self.layout.encoding)
                for count, row in enumerate(_rows(reader)):
                    if row is None:
                        n_rows += reader.line_num + 1 - number
                        yield from ((line, None) for line in range(number, reader.line_num + 1))
                    elif count and (len(row) > 1 or (row and row[0].strip())):
                        n_rows += 1
                        yield number, row
                    number = reader.line_num + 1
                    if count % _N_LOOKED_AT == 0:
                        bar.update(file.position() - bar.n)
            if not n_rows:
                raise DataError(f"'{self.path}' has a header and no rows. Write it again.")
        except csv.Error as error:
            raise DataError(
                f"'{self.path}', the row that begins on line {number:,} cannot be read: {error}. If a field is this "
                "long because a quotation mark is never closed, close the mark, or write it twice."
            ) from error
        except UnicodeDecodeError as error:
            near = reader.line_num + 1 if reader else 1
            raise DataError(
                f"'{self.path}', near line {near:,}, is not {self.layout.encoding}: {error.reason}. Set --encoding, or "
                "convert the file to UTF-8."
            ) from error

    def _object(self, line: list[str] | None) -> Mapping[str, Any]:
        if line is None:
            raise MalformedLineError(
                "is of a field whose quotation mark is not closed where the field ends; close it there, and write a "
                "mark inside a quoted field twice"
            )
        if len(line) != len(self.layout.columns):
            raise MalformedLineError(f"has {len(line)} fields, where the header has {len(self.layout.columns)}")
        row = dict(zip(self.layout.columns, line))
        return {name: row[name] for name in self.columns}

    def _excerpt(self, line: list[str] | None) -> str:
        return self.layout.separator.join(line or ())


@dataclass
class _ParquetRows(Records[dict[str, Any]]):
    """A Parquet file; a row's number is its place, from 1.

    Attributes:
        columns: those that are wanted.
    """

    columns: tuple[str, ...] = ()

    def lines(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the rows with their places."""
        file = _parquet(self.path)
        number = 0
        with self._progress(self.path.stat().st_size) as bar:
            for group in range(file.num_row_groups):
                for batch in file.iter_batches(_N_PARQUET_ROWS, row_groups=[group], columns=list(self.columns)):
                    for row in batch.to_pylist():
                        number += 1
                        yield number, row
                bar.update(file.metadata.row_group(group).total_byte_size)

    def _object(self, line: dict[str, Any]) -> Mapping[str, Any]:
        return line

    def _excerpt(self, line: dict[str, Any]) -> str:
        return repr(line)


def _reader(stream: BinaryIO, separator: str, encoding: str) -> Any:
    """Return a reader of CSV with lines and fields of bounded length."""
    csv.field_size_limit(_LONGEST_FIELD)
    # Strict: or a quotation mark that is not closed makes one field of the rows up to the next, without a word.
    return csv.reader(_text_lines(stream, encoding), delimiter=separator, strict=True)


def _rows(reader: Any) -> Iterator[list[str] | None]:
    """Yield the rows of a strict reader; None for what its quotation marks make unreadable.

    Raises:
        csv.Error: a field or a line is too long.
    """
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            if "limit" in str(error):
                raise
            yield None
        else:
            if row is None:
                return
            yield row


def _text_lines(stream: BinaryIO, encoding: str) -> Iterator[str]:
    text = io.TextIOWrapper(stream, encoding, newline="")
    while line := text.readline(_LONGEST_LINE + 1):
        if len(line) > _LONGEST_LINE:
            raise csv.Error(f"a line is longer than {_LONGEST_LINE:,} characters, the limit")
        yield line


def _parquet(path: Path) -> Any:
    """Open a Parquet file.

    Raises:
        SettingError: pyarrow is not installed.
        DataError: the file cannot be read.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise SettingError(
            f"'{path}' is a Parquet file, which needs pyarrow. Install it with: pip install pyarrow"
        ) from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"'{path}' is no whole Parquet file: {error}. Write it again.") from error
