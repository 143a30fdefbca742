"""Fetching a dataset of RLMRec's release: of the authors' zip archive, only the files that are needed.

A server that serves parts of a file is asked for the archive's directory, at its end, and for the files wanted. Each
comes as it lies there, compressed, into ``NAME.part``, where a stopped download goes on; it is unpacked when it is
whole and checked by the archive's own checksum. The archive's file names are only compared, never used.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import http.client
import io
import json
import logging
import struct
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.files import atomic_path, open_no_link
from recbole_rlmrec.known_datasets import RELEASE_NAMES, RELEASE_URL
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.reading.regular import file_sha256
from recbole_rlmrec.reading.shape import Count
from recbole_rlmrec.version import __version__

_logger = logging.getLogger(__name__)

#: What is written beside the files: where they come from, with sizes and hashes.
RECORD_FILE = "download.json"

_PICKLES = ("trn_mat", "val_mat", "tst_mat", "usr_emb_np", "itm_emb_np", "usr_prf", "itm_prf")
#: Without these there is no dataset; the others are taken where the archive has them.
_REQUIRED = ("trn_mat.pkl", "val_mat.pkl", "tst_mat.pkl")

_BLOCK = 2**18
#: The directory of an archive of a few hundred files is kilobytes.
_LARGEST_DIRECTORY = 2**24
#: The largest file of the release is a matrix of embeddings of 300 MB.
_LARGEST_MEMBER = 2**33
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")


_RECORDS = Format("record of a download", "Remove it.", largest=2**20, allow_others=True)


@dataclass(frozen=True)
class _Fetched:
    """A file that was fetched: its bytes, and their checksum and hash."""

    size: Count
    crc: Count
    sha256: str


@dataclass(frozen=True)
class _Record:
    """What ``RECORD_FILE`` says."""

    url: str
    archive_bytes: Count
    archive_version: str | None
    fetched: str
    files: dict[str, _Fetched]


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for.

    Attributes:
        timeout: seconds without a byte.
        attempts: so often in a row a request may fail, or bring nothing new.
        pause: seconds before the second attempt; twice as many before each further one.
        least_rate: bytes a second, over a minute; a slower connection is cut and made again.
    """

    timeout: float = 60.0
    attempts: int = 5
    pause: float = 1.0
    least_rate: float = 500.0


def fetch_release(
    name: str,
    folder: str | Path,
    url: str = RELEASE_URL,
    patience: Patience | None = None,
    *,
    show_progress: bool = True,
) -> Path:
    """Fetch the files of a released dataset into ``FOLDER``, whatever of them is not there yet.

    Args:
        name: the release's own name of the dataset, one of ``RELEASE_NAMES``.
        folder: where they go; made if it does not exist.
        url: of the archive, or of a copy of it.
        patience: how long the server is waited for.
        show_progress: whether to show the bytes fetched, where standard error is a terminal.

    Returns:
        The folder.

    Raises:
        SettingError: the name or the address cannot be used.
        DataError: the server cannot be reached, serves no parts, or something else than the archive; or the files
            cannot be written. What was fetched stays, and the same call goes on with it.
    """
    if name not in RELEASE_NAMES:
        raise SettingError(f"The release has no dataset {name!r}, expected one of {', '.join(RELEASE_NAMES)}.")
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise SettingError(f"--url {url}: expected an address that begins with https:// or http://.")
    target = Path(folder)
    archive = _Remote(url, patience or Patience())
    members = _members(archive, name)
    known = _recorded(target)
    fetched: dict[str, _Fetched] = {}
    try:
        target.mkdir(parents=True, exist_ok=True)
        for file, member in members.items():
            entry = known.get(file)
            path = target / file
            sha256 = file_sha256(path) if entry is not None and path.is_file() else ""
            if entry is not None and entry == _Fetched(member.file_size, member.CRC, sha256):
                fetched[file] = entry
                continue
            fetched[file] = _fetch(archive, member, path, show_progress=show_progress)
            _record(target, archive, fetched)
        _record(target, archive, fetched)
    except OSError as error:
        raise DataError(
            f"Cannot write in '{target}': {error}. What was fetched stays; free some space, or choose another folder "
            "with --source DIR, and run this again."
        ) from error
    return target


# ---------------------------------------------------------------------- the server


class _Remote:
    """A file on a server, read by parts.

    Args:
        url: its address.
        patience: how long the server is waited for.
    """

    def __init__(self, url: str, patience: Patience) -> None:
        self.url = url
        self.patience = patience
        self.version: str | None = None
        self.size = -1
        with self._open(0, 1) as answer:
            self.size = _total(answer.headers.get("Content-Range"))
            self.version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if self.size <= 0:
            raise self.wrong("does not say how large the file is")

    def read(self, start: int, length: int) -> bytes:
        """Return a part that fits into memory."""
        buffer = io.BytesIO()
        self.copy(start, length, buffer, None)
        return buffer.getvalue()

    def copy(self, start: int, length: int, file: Any, bar: Any) -> None:
        """Append a part to an open file; a connection that is cut, or that hardly brings anything, is made again."""
        got, failures = 0, 0
        while got < length:
            before = got
            try:
                with self._open(start + got, length - got) as answer:
                    began, at_begin = time.monotonic(), got
                    while got < length:
                        # What has come, and not the whole block, which a slow server could take for ever with.
                        block = answer.read1(min(_BLOCK, length - got))
                        if not block:
                            raise http.client.IncompleteRead(b"")
                        file.write(block)
                        got += len(block)
                        if bar is not None:
                            bar.update(len(block))
                        seconds = time.monotonic() - began
                        if seconds > self.patience.timeout:
                            if got - at_begin < self.patience.least_rate * seconds:
                                raise TimeoutError(f"only {got - at_begin} bytes in {seconds:.0f} s")
                            began, at_begin = time.monotonic(), got
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                # A server that drips brings something every time.
                has_brought = got - before >= _BLOCK or (got > before and not isinstance(error, TimeoutError))
                failures = 1 if has_brought else failures + 1
                self._wait(failures, error)

    def _wait(self, failures: int, error: Exception) -> None:
        if failures >= self.patience.attempts:
            raise DataError(
                f"'{self.url}' cannot be fetched: {_reason(error)}, {failures} times in a row. Try again later, or "
                "give the address of a copy with --url. What was fetched is kept."
            ) from error
        pause = self.patience.pause * 2 ** (failures - 1)
        _logger.warning("%s: %s; going on in %.3g s.", self.url, _reason(error), pause)
        time.sleep(pause)

    def _open(self, start: int, length: int) -> Any:
        """Ask for a part.

        Raises:
            DataError: the server answers with something else.
        """
        request = urllib.request.Request(
            self.url,
            headers={
                "Range": f"bytes={start}-{start + length - 1}",
                # A compressed answer would be another file with other parts.
                "Accept-Encoding": "identity",
                "User-Agent": f"recbole-rlmrec/{__version__}",
            },
        )
        failures = 0
        while True:
            try:
                answer = urllib.request.urlopen(request, timeout=self.patience.timeout)
                break
            except urllib.error.HTTPError as error:
                error.close()
                if error.code not in (408, 429, 500, 502, 503, 504):
                    raise self.wrong(f"answers with HTTP {error.code} ({error.reason})") from error
                failures += 1
                self._wait(failures, error)
            except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
                failures += 1
                self._wait(failures, error)
        if answer.status != 206:
            answer.close()
            raise self.wrong("serves no parts of files (it ignores 'Range')")
        expected = f"bytes {start}-{start + length - 1}/"
        given = answer.headers.get("Content-Range", "")
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        if not given.startswith(expected) or (self.size > 0 and _total(given) != self.size):
            answer.close()
            raise self.wrong(f"serves {given!r} where {expected + str(max(self.size, 0) or '...')!r} was asked for")
        if self.size > 0 and version != self.version:
            answer.close()
            raise DataError(f"'{self.url}' changed while it was fetched. Run this again.")
        return answer

    def wrong(self, what: str) -> DataError:
        """Return the error of a server that does not serve what it should."""
        return DataError(
            f"The server of '{self.url}' {what}, expected RLMRec's zip archive. Check the address, give that of a copy "
            "with --url, or fetch the archive in another way, unpack it, and name its folder with --source DIR."
        )


def _total(content_range: str | None) -> int:
    """Return the size of the whole file, as ``bytes 0-0/123`` says; -1 where it does not."""
    total = (content_range or "").rpartition("/")[2]
    return int(total) if total.isascii() and total.isdigit() and len(total) < 16 else -1


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection was cut"
    reason = getattr(error, "reason", error)
    return str(reason) or type(reason).__name__


# ---------------------------------------------------------------------- the archive


class _Tail(io.RawIOBase):
    """The end of a remote file, as ``zipfile`` reads an archive's directory: by seeking from the end.

    Args:
        remote: the file.
    """

    def __init__(self, remote: _Remote) -> None:
        self._remote = remote
        self._at = 0
        self._start = max(0, remote.size - 2**16)
        self._bytes = remote.read(self._start, remote.size - self._start)

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._remote.size}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = self._remote.size if size < 0 else min(self._at + size, self._remote.size)
        if self._at < self._start:
            if self._remote.size - self._at > _LARGEST_DIRECTORY:
                raise zipfile.BadZipFile("its directory is larger than any release's")
            self._bytes = self._remote.read(self._at, self._start - self._at) + self._bytes
            self._start = self._at
        data = self._bytes[self._at - self._start : end - self._start]
        self._at += len(data)
        return data


def _members(archive: _Remote, name: str) -> Mapping[str, zipfile.ZipInfo]:
    """Find the files of a dataset in the archive: ``.../NAME/trn_mat.pkl`` and ``.../mapper/NAME_item.json``.

    Returns:
        File, relative to the folder -> entry of the archive's directory.
    """
    wanted = {(name, f"{stem}.pkl"): f"{stem}.pkl" for stem in _PICKLES}
    wanted |= {("mapper", f"{name}_{side}.json"): f"mapper/{name}_{side}.json" for side in ("user", "item")}
    try:
        with zipfile.ZipFile(_Tail(archive)) as directory:
            entries = directory.infolist()
    except (zipfile.BadZipFile, struct.error, ValueError, OverflowError) as error:
        raise archive.wrong(f"serves no zip archive ({error})") from error
    found: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        file = wanted.get(tuple(entry.filename.split("/")[-2:]))  # type: ignore[arg-type]
        if file is None:
            continue
        if file in found:
            raise archive.wrong(f"has two files {file} for {name}")
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise archive.wrong(f"has {entry.filename!r} encrypted or compressed in an unusual way")
        if entry.file_size > _LARGEST_MEMBER or entry.header_offset + entry.compress_size > archive.size:
            raise archive.wrong(f"says that {entry.filename!r} has {entry.file_size:,} bytes")
        found[file] = entry
    missing = [file for file in _REQUIRED if file not in found]
    if missing:
        raise archive.wrong(f"has an archive without {name}/{missing[0]}")
    return found


def _fetch(archive: _Remote, member: zipfile.ZipInfo, path: Path, *, show_progress: bool) -> _Fetched:
    """Fetch a file of the archive, going on with what is there of it.

    Returns:
        What is recorded of it.
    """
    header = _LOCAL_HEADER.unpack(archive.read(member.header_offset, _LOCAL_HEADER.size))
    if header[0] != b"PK\x03\x04":
        raise archive.wrong(f"has no file where its directory says {member.filename!r} lies")
    start = member.header_offset + _LOCAL_HEADER.size + header[-2] + header[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    # The name holds what the part is of, so that a part of another archive is not gone on with.
    part = path.with_name(f".{path.name}.{member.CRC:08x}.part")
    if part.is_symlink():
        part.unlink()
    have = part.stat().st_size if part.is_file() else 0
    if have > member.compress_size:
        part.unlink()
        have = 0
    if have < member.compress_size:
        with (
            open(part, "ab", opener=open_no_link) as file,
            tqdm(
                total=member.compress_size,
                initial=have,
                desc=path.name,
                unit="B",
                unit_scale=True,
                disable=None if show_progress else True,
            ) as bar,
        ):
            archive.copy(start + have, member.compress_size - have, file, bar)
    try:
        with atomic_path(path) as temporary:
            entry = _unpack(part, member, temporary)
    except (zlib.error, ValueError) as error:
        part.unlink()
        raise archive.wrong(f"sent a damaged {member.filename!r} ({error})") from error
    part.unlink()
    return entry


def _unpack(part: Path, member: zipfile.ZipInfo, target: Path) -> _Fetched:
    """Unpack a file as it lies in the archive.

    Raises:
        ValueError, zlib.error: it is not what the archive's directory says.
    """
    inflate = zlib.decompressobj(-15) if member.compress_type == zipfile.ZIP_DEFLATED else None
    crc, size, digest = 0, 0, hashlib.sha256()
    with part.open("rb") as packed, target.open("wb") as file:
        while block := packed.read(_BLOCK):
            while block:
                data = inflate.decompress(block, _BLOCK) if inflate else block
                block = inflate.unconsumed_tail if inflate else b""
                crc, size = zlib.crc32(data, crc), size + len(data)
                if size > member.file_size:
                    raise ValueError("it is longer than the archive says")
                digest.update(data)
                file.write(data)
    if size != member.file_size or crc != member.CRC:
        raise ValueError("its checksum is another than the archive says")
    return _Fetched(size, crc, digest.hexdigest())


def _recorded(folder: Path) -> Mapping[str, _Fetched]:
    """Return what a former call recorded of each file; nothing where that cannot be read."""
    try:
        return _RECORDS.read(folder / RECORD_FILE, _Record).files
    except DataError:
        return {}


def _record(folder: Path, archive: _Remote, files: dict[str, _Fetched]) -> None:
    fetched = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    record = _Record(archive.url, archive.size, archive.version, fetched, files)
    with atomic_path(folder / RECORD_FILE) as temporary:
        temporary.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
