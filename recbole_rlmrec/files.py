"""Small file helpers shared by everything that writes; ``reading`` has those that read."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import itertools
import json
import os
import platform
import re
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recbole_rlmrec.errors import DataError

try:
    import fcntl
except ImportError:  # Windows, where nothing keeps two processes apart
    fcntl = None  # type: ignore[assignment]

# A name holds the machine, the process and a number: nobody else's file has it, and that of a killed process is known.
_TEMPORARY = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-(?P<process>[1-9][0-9]*)-[0-9]+\.tmp(\.[^.]*)?", re.DOTALL)
_numbers = itertools.count()
_being_written: set[str] = set()
#: Whether a process of another machine still runs is not to be seen from here; none takes so long over one file.
_SECONDS_TO_FOREIGN_STALE = 7 * 24 * 3600


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it onto ``path`` on success, remove it on any error.

    A reader therefore sees the old file or the whole new one, never a part.

    Args:
        path: the file to write; missing parent folders are made.

    Raises:
        OSError: see :func:`temporary_path`.
    """
    with temporary_path(path) as temporary:
        yield temporary
        os.replace(temporary, path)


@contextmanager
def temporary_path(path: str | Path) -> Iterator[Path]:
    """Make an empty file beside ``path``, yield its path, and remove it if it is still there.

    Its name keeps the suffix of ``path``, because ``np.save`` and pandas choose their format by it. It is always a new
    file: a link that somebody put there is not followed. Files of this kind that killed processes left in the folder
    are removed on the way.

    Args:
        path: the file to write; missing parent folders are made.

    Raises:
        OSError: ``path`` is a folder, or nothing can be written beside it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    _remove_stale(target.parent)
    temporary = _new_file_beside(target)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
        _being_written.discard(temporary.name)


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside ``path``; give it that name on success, remove it on any error.

    A folder that has the name already is replaced, and removed with all that is in it. What killed processes left is
    removed as by :func:`temporary_path`.

    Args:
        path: the folder to write; missing parent folders are made.

    Raises:
        OSError: nothing can be written beside it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(target.parent)
    temporary = target.with_name(f".{target.name}.{_machine()}-{os.getpid()}-{next(_numbers)}.tmp")
    _being_written.add(temporary.name)
    try:
        temporary.mkdir()
        yield temporary
        if target.is_dir():
            replaced = temporary.with_suffix(".old")
            target.rename(replaced)
            try:
                temporary.rename(target)
            except OSError:
                replaced.rename(target)
                raise
            shutil.rmtree(replaced)
        else:
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _being_written.discard(temporary.name)


def require_writable(path: str | Path) -> None:
    """Check that a file could be written, and leave nothing behind.

    Raises:
        OSError: see :func:`temporary_path`.
    """
    with temporary_path(path):
        pass


def _new_file_beside(target: Path) -> Path:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    while True:
        name = f".{target.stem}.{_machine()}-{os.getpid()}-{next(_numbers)}.tmp{target.suffix}"
        _being_written.add(name)  # before it is there, or another thread would take it for one of a killed process
        try:
            os.close(os.open(target.with_name(name), flags, 0o666))
        except FileExistsError:
            _being_written.discard(name)
        except OSError:
            _being_written.discard(name)
            raise
        else:
            return target.with_name(name)


@functools.cache
def _machine() -> str:
    """Return a name of this machine, and of the space that its process numbers count in, of eight characters."""
    space = ""
    with contextlib.suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")  # each container counts processes from 1
    return hashlib.blake2b(f"{platform.node()} {space}".encode(), digest_size=4).hexdigest()


def _remove_stale(folder: Path) -> None:
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            stale = [entry for entry in entries if _is_stale(entry)]
        for entry in stale:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)


def _is_stale(entry: os.DirEntry[str]) -> bool:
    """Return whether it is of :func:`temporary_path` or :func:`atomic_folder`, and their process has ended."""
    found = _TEMPORARY.fullmatch(entry.name)
    if (
        found is None
        or entry.name in _being_written
        or not (entry.is_file(follow_symlinks=False) or entry.is_dir(follow_symlinks=False))
    ):
        return False
    if found["machine"] != _machine():
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > _SECONDS_TO_FOREIGN_STALE
    process = int(found["process"])
    return process == os.getpid() or not _is_running(process)


def _is_running(process: int) -> bool:
    """Return whether there is a process of this number; True also where that cannot be asked."""
    if os.name != "posix":
        return True  # there, the question would end the process
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


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


@contextmanager
def only_one(path: str | Path, others: str) -> Iterator[None]:
    """Keep other processes out while the context lasts, also where this one is killed in it.

    Args:
        path: of a file that is locked; made if missing, and left.
        others: what to say where another process is in it.

    Raises:
        DataError: one is.
        OSError: the file cannot be made.
    """
    with open(path, "ab") as lock:
        if not try_lock(lock.fileno()):
            raise DataError(others)
        yield
