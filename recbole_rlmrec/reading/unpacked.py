"""Files of texts, gzipped or not, opened as what they hold, with one error for what keeps them from being read."""

from __future__ import annotations

import gzip
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.reading.regular import open_regular

_GZIPPED = b"\x1f\x8b"
_BLOCK = 2**20

#: Bytes that a gzipped file may hold for each of its own; texts have 3 to 10, and 1,000 is the most.
UNPACKED = 200
#: Bytes that a gzipped file may hold in any case.
BELIEVED = 64 * 2**20


@dataclass(frozen=True)
class Opened:
    """A file that is open.

    Attributes:
        stream: its content, decompressed where the file is gzipped.
        size: its bytes on the disk.
        raw: the file itself.
    """

    stream: BinaryIO
    size: int
    raw: BinaryIO

    def position(self) -> int:
        """Return how many of the bytes on the disk have been read."""
        return self.raw.tell()


@contextmanager
def open_unpacked(path: str | Path, unpacked: int = UNPACKED, believed: int = BELIEVED) -> Iterator[Opened]:
    """Open a regular file that may be gzipped, whatever its name.

    Args:
        path: the file.
        unpacked: bytes that a gzipped file may hold for each of its own.
        believed: bytes that it may hold in any case.

    Raises:
        DataError: the file cannot be read, is no regular file, is a damaged gzip file, or holds more than it may; also
            where that is found while it is read.
    """
    try:
        with open_regular(path) as raw:
            size = os.fstat(raw.fileno()).st_size
            is_gzipped = raw.read(len(_GZIPPED)) == _GZIPPED
            raw.seek(0)
            if is_gzipped:
                yield Opened(io.BufferedReader(_Bounded(path, raw, size, unpacked, believed), _BLOCK), size, raw)
            else:
                yield Opened(raw, size, raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"'{path}' is a damaged gzip file ({error}). Fetch a whole copy.") from error
    except OSError as error:
        raise DataError(f"'{path}' cannot be read: {error}. Check the path and its permissions.") from error


class _Bounded(io.RawIOBase):
    """The content of a gzipped file of ``size`` bytes; reading more of it than it may hold raises a DataError."""

    def __init__(self, path: str | Path, raw: BinaryIO, size: int, unpacked: int, believed: int) -> None:
        self._path, self._size, self._unpacked = path, size, unpacked
        self._most = max(believed, unpacked * size)
        self._stream = gzip.GzipFile(fileobj=raw)
        self._n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the content goes."""
        n_bytes = self._stream.readinto(buffer)
        self._n_bytes += n_bytes
        if self._n_bytes > self._most:
            raise DataError(
                f"'{self._path}' of {self._size:,} bytes holds more than {self._n_bytes:,} bytes, expected at most "
                f"{self._unpacked} for each: a file of texts is never so repetitive. Is it the right file? If so, "
                "unpack it first."
            )
        return n_bytes
