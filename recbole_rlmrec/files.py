"""Small file helpers shared by everything that writes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` on success, remove it on any error.

    A reader therefore sees the old file or the whole new one, never a part. The temporary name keeps the
    suffix of ``path``, because ``np.save`` and pandas choose their format by it.

    Args:
        path: the file to write; missing parent folders are made.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{os.getpid()}.tmp{target.suffix}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def json_line(record: Mapping[str, Any]) -> bytes:
    """Return a record as one line of JSON, in UTF-8 where that has its characters.

    >>> json_line({"token": "12", "profile": "A film."}).rstrip()
    b'{"token": "12", "profile": "A film."}'
    """
    try:
        return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can hold
        return (json.dumps(record) + "\n").encode("ascii")


def try_lock(descriptor: int) -> bool:
    """Lock an open file against other processes, until it is closed.

    Returns:
        False if another process holds it; True also where the platform, or the drive, knows no locks.
    """
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # as some network drives answer
            raise
    return True
