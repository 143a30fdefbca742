"""Opening files: only regular ones, no more of them than is asked for, and no line without end."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


class UnreadableError(OSError):
    """A file is none, or larger than it may be; the message is a clause without the file's name."""


def require_regular(path: str | Path) -> int:
    """Check that a path, or what it links to, is a regular file: a pipe or a device may block or have no end.

    Returns:
        Its size in bytes.

    Raises:
        UnreadableError: it is something else.
        OSError: it does not exist or cannot be looked at.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise UnreadableError(f"it is {kind}, expected a regular file")
    return status.st_size


def open_regular(path: str | Path) -> BufferedReader:
    """Open a regular file for reading; see :func:`require_regular`."""
    require_regular(path)
    return open(path, "rb")


def file_sha256(path: str | Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal.

    Raises:
        UnreadableError: it is no regular file.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_bounded(path: str | Path, most: int) -> bytes:
    """Return the content of a regular file of at most so many bytes.

    Raises:
        UnreadableError: it is larger, or no regular file.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise UnreadableError(f"it is larger than {most:,} bytes, which no such file is")
    return content


def bounded_lines(file: BinaryIO, most: int) -> Iterator[bytes]:
    """Yield the lines of an open file with their ends, as iterating over it does.

    Raises:
        UnreadableError: a line is longer than ``most`` bytes.
    """
    number = 0
    while line := file.readline(most + 1):
        number += 1
        if len(line) > most:
            raise UnreadableError(f"its line {number} is longer than {most:,} bytes, which no such line is")
        yield line
