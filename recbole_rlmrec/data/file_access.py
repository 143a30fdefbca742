"""Opening files that a stopped run goes on with, and waiting until they are on the disk."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def open_no_link(path: str, flags: int) -> int:
    """Open a file of this package's own making; an ``opener`` for :func:`open`.

    Raises:
        OSError: a link to another file has its name, which would be written to; or it is no file at all.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags & ~os.O_TRUNC | careful, 0o666)
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
            if flags & os.O_TRUNC:
                os.ftruncate(descriptor, 0)
            return descriptor
        os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise
    raise OSError(errno.ELOOP, f"'{path}' is a link, or no file: remove it", path)


def sync(path: str | Path) -> None:
    """Return when a file's content, or the names in a folder, would survive a power cut."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # a folder on Windows
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):  # as some drives answer for folders
            raise
    finally:
        os.close(descriptor)
