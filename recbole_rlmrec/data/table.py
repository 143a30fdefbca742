"""Tables of text: RecBole's atomic files and the tables of splits, read as they are written, every row checked.

A table is a header and rows of as many fields as it has, one a line. RecBole's format has no quoting: a quotation mark
is part of the text, and a field holds neither the separator nor a line break. Lines end with LF or CRLF; blank ones are
skipped; a byte-order mark is left aside.
"""

from __future__ import annotations

import codecs
import csv
import io
import logging
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd

from recbole_rlmrec.data.atomic_file import MISSING_TOKENS, id_fault, suspects
from recbole_rlmrec.errors import DataError, RLMRecError, SettingError
from recbole_rlmrec.reading.regular import open_regular
from recbole_rlmrec.recbole_settings.columns import SOURCES
from recbole_rlmrec.wording import count

_logger = logging.getLogger(__name__)

#: What stands for "nothing" in a field of a table.
MISSING_FIELDS = frozenset({"", *MISSING_TOKENS})

#: The types that RecBole's headers give.
_TYPES = ("token", "token_seq", "float", "float_seq")

_BLOCK = 4 * 2**20
_HEADER_BLOCK = 2**16
_LONGEST_LINE = 16 * 2**20
_LINE_FEED, _CARRIAGE_RETURN = b"\n\r"
#: Separators of more than one byte are read as this one, which no text has.
_STAND_IN = b"\x1f"
_OTHER_SEPARATORS = ("\t", ",", ";", "|", " ")
#: Words that a program writes for a number that is none; pandas reads them as missing.
_NO_NUMBERS = frozenset(word for word in MISSING_TOKENS if word.lower().strip("-").startswith(("nan", "1.#")))
#: A field as a CSV writer puts it into quotation marks.
_QUOTED = re.compile('"(?:[^"]|"")*"', re.DOTALL)
_N_LOOKED_AT = 1000


class Table:
    r"""A table of text; opening it reads its header.

    Args:
        path: the file.
        separator: what stands between two fields, taken literally: one character or several.
        encoding: the file's encoding.
        typed: whether the header has to give RecBole's types, as in ``user_id:token``.

    Attributes:
        types: type of each column by its name, in the file's order; empty where the header gives none.

    Raises:
        DataError: the file cannot be read, or its header is malformed.
        SettingError: the separator or the encoding cannot be used.
    """

    def __init__(self, path: str | Path, separator: str = "\t", encoding: str = "utf-8", *, typed: bool = True) -> None:
        self.path = Path(path)
        self.separator, self.encoding = _checked_separator(separator), _checked_encoding(encoding)
        self._typed = typed
        raw = separator.encode("utf-8")
        self._byte = raw if len(raw) == 1 else _STAND_IN
        self.types = self._read_header()

    @classmethod
    def of(cls, config: Any, path: str | Path) -> Table:
        """Open an atomic file of a configuration's dataset."""
        return cls(path, config["field_separator"], config["encoding"] or "utf-8")

    def read(
        self,
        columns: Collection[str],
        ids: Sequence[str] = (),
        numeric: Sequence[str] = (),
        id_fault: Callable[[str], str | None] = id_fault,
    ) -> pd.DataFrame:
        """Read some columns as the text they are.

        Args:
            columns: their names.
            ids: those of them that hold users, items or others; each field has to be an id.
            numeric: further columns, which are not returned; each field has to be a number or missing.
            id_fault: says why a token cannot be an id, or None if it can; that of ``atomic_file``, or ``text_fault``.

        Returns:
            The columns in the file's order, with a row for each line that is not blank.

        Raises:
            DataError: a row has another number of fields than the header, an id is missing or cannot be one, a number
                is none, or there is no row.
        """
        self.require_ids(ids)
        names = list(self.types)
        dtypes: dict[str, Any] = {name: float if name in numeric else str for name in {*columns, *numeric}}
        try:
            rows = pd.read_csv(
                io.BufferedReader(_Blocks(self._checked_blocks()), _BLOCK),
                sep=self._byte.decode(),
                header=None,
                names=names,
                usecols=[name for name in names if name in dtypes],
                dtype=dtypes,
                keep_default_na=False,
                na_values={name: sorted(MISSING_FIELDS) for name in numeric},
                quoting=csv.QUOTE_NONE,
                skip_blank_lines=False,
                encoding="utf-8",
                engine="c",
            )
        except ValueError as error:
            if isinstance(error, DataError) or not numeric:
                raise
            for name, texts in self.read(numeric).items():
                self.numbers(str(name), texts)
            raise
        if not len(rows):
            raise DataError(f"'{self.path}' has a header and no row, expected one a line. Write the file again.")
        rows = rows[[name for name in names if name in columns]]
        self._check_ids(rows, ids, id_fault)
        self._warn_of_quotation_marks(rows)
        return rows

    def require_ids(self, names: Sequence[str]) -> None:
        """Check that the header gives columns of ids no other type than ``token``.

        Raises:
            DataError: it does.
        """
        for name in names:
            if self.types[name] not in ("token", ""):
                raise DataError(
                    f"'{self.path}': the header has the column '{name}:{self.types[name]}', expected '{name}:token': "
                    "an id is text, also where it looks like a number."
                )

    def numbers(self, name: str, texts: pd.Series) -> pd.Series:
        """Return a column of numbers, float64, NaN where it is missing.

        Args:
            name: the column's name.
            texts: the column as :meth:`read` returns it.

        Raises:
            DataError: a field is no number, or is NaN or infinite.
        """
        given = texts.mask(texts.isin(MISSING_FIELDS - _NO_NUMBERS))
        try:
            values = pd.to_numeric(given)
        except (ValueError, TypeError):
            values = pd.to_numeric(given, errors="coerce")
        values = values.astype(np.float64)
        wrong = np.flatnonzero(given.notna().to_numpy() & ~np.isfinite(values.to_numpy()))
        if len(wrong):
            self.refuse(
                wrong,
                f"the column '{name}' is {texts.iloc[wrong[0]]!r:.80}, expected a number. Correct the field, or leave "
                "it empty where there is none",
            )
        return values

    def refuse(self, rows: Sequence[int] | np.ndarray, fault: str) -> NoReturn:
        """Raise a ``DataError`` that names the line of the first of some rows.

        Args:
            rows: numbers of rows as :meth:`read` returns them, ascending, at least one.
            fault: what is wrong with the first of them, and what to do.
        """
        more = f"; {count(len(rows) - 1, 'more row')} like it" if len(rows) > 1 else ""
        raise DataError(f"'{self.path}', line {self._line_of(int(rows[0]))}: {fault}{more}.")

    # ------------------------------------------------------------------ header

    def _read_header(self) -> dict[str, str]:
        block = next(self._blocks(_HEADER_BLOCK), b"")
        line = block.partition(b"\n")[0].removesuffix(b"\r")
        self._check_characters(1, line)
        header = line.decode("utf-8")
        if not header.strip():
            found = "begins with a blank line" if block else "is empty"
            raise DataError(f"'{self.path}' {found}; {self._expected()}.")
        columns = header.split(self.separator)
        names = [column.partition(":")[0] for column in columns]
        fault = self._header_fault(header, columns, names)
        if fault:
            raise DataError(f"'{self.path}': the header {fault}; {self._expected()}.")
        return dict(zip(names, (column.partition(":")[2] for column in columns)))

    def _header_fault(self, header: str, columns: list[str], names: list[str]) -> str | None:
        others = [mark for mark in _OTHER_SEPARATORS if mark != self.separator and mark in header]
        if len(columns) == 1 and header.count(":") != 1 and others:
            return (
                f"{header!r:.80} has one column, as the separator is {self.separator!r}: is it {others[0]!r} in this "
                "file? Set field_separator to what it is, or write the file with tabs"
            )
        if any(name.startswith(('"', "'")) for name in names):
            return f"has the column {columns[0]!r} in quotation marks, and the format has none: write the file without"
        if self._typed:
            for column in columns:
                if column.count(":") != 1:
                    return f"has the column {column!r} without a type" + (" (it ends with a separator?)" * (not column))
                if column.partition(":")[2] not in _TYPES:
                    return f"has the column {column!r}, whose type is none of {', '.join(_TYPES)}"
        for place, name in enumerate(names):
            if not name or name != name.strip():
                return f"has the column {name!r}, a name that is empty or begins or ends with a blank"
            if name in names[:place]:
                return f"has the column {name!r} twice"
        return None

    def _expected(self) -> str:
        kind = ":token" if self._typed else ""
        between = "<TAB>" if self.separator == "\t" else self.separator
        return f"expected a first line such as 'user_id{kind}{between}item_id{kind}'"

    # ------------------------------------------------------------------ lines

    def _blocks(self, size: int = _BLOCK) -> Iterator[bytes]:
        """Yield the file as UTF-8, each time some whole lines, the last one ended too."""
        decoder = codecs.getincrementaldecoder(self.encoding)()
        n_lines, n_open, is_first = 0, 0, True
        open_line: list[bytes] = []
        try:
            with open_regular(self.path) as file:
                for chunk in chain(iter(partial(file.read, size), b""), [b""]):
                    text = decoder.decode(chunk, not chunk)
                    block = (text.removeprefix("\ufeff") if is_first else text).encode("utf-8")
                    is_first = False
                    end = block.rfind(b"\n") + 1
                    if end:
                        whole = b"".join([*open_line, block[:end]])
                        open_line, n_open = [], 0
                        yield whole
                        n_lines += whole.count(b"\n")
                    open_line.append(block[end:])
                    n_open += len(block) - end
                    if n_open > _LONGEST_LINE:
                        raise self._error(n_lines + 1, f"is longer than {_LONGEST_LINE // 2**20} MiB: is it a table?")
            if n_open:
                yield b"".join([*open_line, b"\n"])
        except UnicodeError as error:
            read = error.object[: error.start] if isinstance(error, UnicodeDecodeError) else b""
            raise self._undecodable(n_lines + read.count(b"\n") + 1, error) from error
        except OSError as error:
            raise DataError(f"'{self.path}' cannot be read: {error}.") from error

    def _undecodable(self, line: int, error: UnicodeError) -> DataError:
        with open_regular(self.path) as file:
            is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        found = "it begins as UTF-16 does" if is_utf16 else getattr(error, "reason", error)
        return DataError(
            f"'{self.path}' cannot be read as {self.encoding} text: line {line}, {found}. Save it as UTF-8, or set "
            "encoding to what it is."
        )

    def _error(self, line: int, fault: str) -> DataError:
        return DataError(f"'{self.path}', line {line} {fault}")

    def _checked_blocks(self) -> Iterator[bytes]:
        """Yield the rows by blocks, without blank lines; raise at the first row that does not fit the header."""
        separator, line = self.separator.encode("utf-8"), 1
        for number, block in enumerate(self._blocks()):
            if number == 0:  # the header
                block, line = block[block.index(b"\n") + 1 :], 2
            n_lines = block.count(b"\n")
            if separator != self._byte:
                block = block.replace(separator, self._byte)
            if not self._is_regular(block):
                block = self._without_blank_lines(block, line)
            line += n_lines
            if block:
                yield block

    def _is_regular(self, block: bytes) -> bool:
        """Return whether every line has the header's number of fields and no character that the format has not.

        A line without any field apart, which may be blank, is looked at by itself.
        """
        n_fields = len(self.types)
        codes = np.frombuffer(block, dtype=np.uint8)
        is_end = codes == _LINE_FEED
        marks = codes[is_end | (codes == self._byte[0])]
        n_lines = np.count_nonzero(is_end)
        returns = np.flatnonzero(codes == _CARRIAGE_RETURN)
        return bool(
            n_fields > 1
            and len(marks) == n_lines * n_fields
            and (marks[n_fields - 1 :: n_fields] == _LINE_FEED).all()
            and (codes[returns + 1] == _LINE_FEED).all()
            and b"\0" not in block
        )

    def _without_blank_lines(self, block: bytes, line: int) -> bytes:
        """Return a block's rows, one checked after another.

        Args:
            block: whole lines.
            line: number of the first.
        """
        rows = []
        for number, row in enumerate(block.split(b"\n")[:-1], start=line):
            row = row.removesuffix(b"\r")
            if _is_blank(row, self._byte):
                continue
            n_found, n_expected = row.count(self._byte) + 1, len(self.types)
            if n_found != n_expected:
                raise self._error(number, self._wrong_number(row, n_found))
            self._check_characters(number, row)
            rows.append(row + b"\n")
        return b"".join(rows)

    def _wrong_number(self, row: bytes, n_found: int) -> str:
        advice = f"Separate fields with {self.separator!r} and nothing else"
        if row.endswith(self._byte):
            advice = f"It ends with the separator {self.separator!r}"
        elif b'"' in row:
            advice = "Quotation marks do not hold a field together: write separators and line breaks in it as blanks"
        shown = row.replace(self._byte, self.separator.encode("utf-8")).decode("utf-8")
        return (
            f"has {count(n_found, 'field')}, the header {len(self.types)} ({', '.join(self.types)}): {shown!r:.80}. "
            f"{advice}."
        )

    def _check_characters(self, line: int, text: bytes) -> None:
        """Refuse what no line of text has."""
        if b"\0" in text:
            raise self._error(line, "holds a null character. Is it text, of the encoding that 'encoding' names?")
        if b"\r" in text:
            raise self._error(line, "holds a carriage return that ends no line. Write it as a blank.")

    def _line_of(self, row: int) -> int:
        """Return the number of the line that a row stands in, from 1."""
        lines = (line for block in self._blocks() for line in block.split(b"\n")[:-1])
        separator = self.separator.encode("utf-8")
        rows = (number for number, line in enumerate(lines, start=1) if number > 1 and not _is_blank(line, separator))
        return next(islice(rows, row, None))

    # ------------------------------------------------------------------ fields

    def _check_ids(self, rows: pd.DataFrame, names: Sequence[str], id_fault: Callable[[str], str | None]) -> None:
        """Refuse ids that are missing or that cannot be one; only the distinct ones are looked at."""
        for name in names:
            distinct = rows[name].unique().tolist()
            faults = {token: fault for token in suspects(distinct) if (fault := id_fault(token))}
            if faults:
                wrong = np.flatnonzero(rows[name].isin(faults).to_numpy())
                token = rows[name].iloc[wrong[0]]
                self.refuse(wrong, f"the {name} {token!r:.80} {faults[token]}. Write an id, or leave the line out")

    def _warn_of_quotation_marks(self, rows: pd.DataFrame) -> None:
        """Warn once of a file that a CSV writer seems to have put into quotation marks."""
        for name, texts in rows.head(_N_LOOKED_AT).items():
            quoted = [text for text in texts.tolist() if _QUOTED.fullmatch(text)]
            if len(quoted) > 0.5 * len(texts) or any('""' in text[1:-1] for text in quoted):
                _logger.warning(
                    "'%s': fields of the column '%s', such as %s, stand in quotation marks as CSV writers put them. "
                    "The format has no quoting, so the marks are read as a part of the text; write the file without, "
                    "in pandas with to_csv(..., quoting=csv.QUOTE_NONE).",
                    self.path,
                    name,
                    f"{quoted[0]:.60}",
                )
                return


def _is_blank(line: bytes, separator: bytes) -> bool:
    return not line.strip() and separator not in line


class _Blocks(io.RawIOBase):
    """A stream of some blocks of bytes."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest = blocks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the current block goes."""
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        n_bytes = min(len(buffer), len(self._rest))
        buffer[:n_bytes], self._rest = self._rest[:n_bytes], self._rest[n_bytes:]
        return n_bytes


def seq_separator_of(config: Any) -> str:
    """Return what stands between two values of a sequence; several of it are one.

    Raises:
        SettingError: it is no text, or separates fields.
    """
    separator = config["seq_separator"]
    if not isinstance(separator, str) or not separator or _checked_separator(config["field_separator"]) in separator:
        raise SettingError(
            f"seq_separator={separator!r}: expected what stands between two values of a sequence, such as a blank. It "
            f"is taken literally, and is without the field_separator {config['field_separator']!r}."
        )
    return separator


def _checked_separator(separator: object) -> str:
    """Return a separator of fields; raise a ``SettingError`` unless it can be one."""
    if not isinstance(separator, str) or separator in ("", ":") or re.search('[\r\n\0"]', separator):
        raise SettingError(
            f"field_separator={separator!r}: expected what stands between two fields, such as a tab. It is taken "
            "literally, and cannot be a colon, a quotation mark or a line break."
        )
    if separator == r"\t":
        raise SettingError(
            r"field_separator is a backslash and a t. Write a tab: --field_separator=$'\t', or field_separator: "
            r'"\t" in a YAML file.'
        )
    return separator


def _checked_encoding(encoding: object) -> str:
    """Return the name of an encoding; raise a ``SettingError`` if there is none of it."""
    try:
        "".encode(str(encoding))  # an encoding of text, unlike "hex"
        codecs.getincrementaldecoder(str(encoding))
    except (LookupError, ValueError):
        raise SettingError(f"encoding={encoding!r}: there is no such encoding. Expected one such as utf-8.") from None
    return str(encoding)


def read_headers(
    folder: Path, dataset: str, parts: list[str] | None, separator: str, encoding: str | None
) -> dict[str, dict[str, str] | None]:
    """Read the first lines of a dataset's files.

    Args:
        folder: of the dataset.
        dataset: its name.
        parts: names of the files of a split that is ready, whose columns are taken from the first; None for one file.
        separator: of columns.
        encoding: of the files; None for UTF-8.

    Returns:
        Of each kind of file, type of each column by its name; None of a file that is not there or cannot be read:
        whoever reads the data says what is wrong with it.
    """
    first = f"{dataset}.{parts[0]}.inter" if parts else f"{dataset}.inter"
    headers: dict[str, dict[str, str] | None] = {}
    for source, name in zip(SOURCES, (first, f"{dataset}.user", f"{dataset}.item")):
        headers[source] = None
        with suppress(RLMRecError, OSError):
            headers[source] = dict(Table(folder / name, separator, encoding or "utf-8").types)
    return headers
