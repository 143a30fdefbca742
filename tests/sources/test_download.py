"""The release is fetched from servers that cut, slow and lie: the files are whole and right, or one error says why."""

from __future__ import annotations

import io
import json
import os
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.sources.download import RECORD_FILE, Patience, fetch_release

QUICK = Patience(timeout=2.0, attempts=3, pause=0.01)
RNG = np.random.default_rng(0)
FILES = {
    "data/amazon/trn_mat.pkl": RNG.bytes(300_000),
    "data/amazon/val_mat.pkl": b"validation " * 5_000,
    "data/amazon/tst_mat.pkl": b"test",
    "data/mapper/amazon_item.json": b'{"iid": 0, "asin": "0"}\n',
    "data/yelp/trn_mat.pkl": RNG.bytes(500_000),
    "../../etc/amazon/evil.pkl": b"not asked for",
    "README.md": b"about",
}


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


class Server:
    """Serves one file by parts.

    Attributes:
        content: the file.
        misbehave: changes an answer; it gets the handler, the part and the number of the request, and returns the part
            to send, or None if it has answered itself.
        version: the ETag.
        sent: bytes sent, without headers.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.misbehave: Callable[[Any, bytes, int], bytes | None] = lambda handler, part, number: part
        self.version = '"1"'
        self.sent = 0
        self.requests = 0
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
                part = server.content[first : last + 1]
                server.requests += 1
                changed = server.misbehave(self, part, server.requests)
                if changed is None:
                    return
                self.head(first, last, len(part))
                self.wfile.write(changed)
                server.sent += len(changed)

            def head(self, first: int, last: int, length: int, status: int = 206) -> None:
                self.send_response(status)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(server.content)}")
                self.send_header("Content-Length", str(length))
                self.send_header("ETag", server.version)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/data.zip"
        threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(archive(FILES))
    yield made
    made.close()


def fetch(server: Server, folder: Path, name: str = "amazon") -> Path:
    return fetch_release(name, folder, server.url, QUICK, show_progress=False)


def files_of(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop(RECORD_FILE, None)
    return found


EXPECTED = {
    "trn_mat.pkl": FILES["data/amazon/trn_mat.pkl"],
    "val_mat.pkl": FILES["data/amazon/val_mat.pkl"],
    "tst_mat.pkl": FILES["data/amazon/tst_mat.pkl"],
    "mapper/amazon_item.json": FILES["data/mapper/amazon_item.json"],
}


def test_only_what_is_needed_is_fetched_and_recorded(server: Server, tmp_path: Path) -> None:
    assert files_of(fetch(server, tmp_path)) == EXPECTED
    # Yelp's matrix is not among it; the archive's end, with its directory, is.
    assert server.sent < 300_000 + 2**16 + 5_000
    record = json.loads((tmp_path / RECORD_FILE).read_text())
    assert record["url"] == server.url and record["archive_bytes"] == len(server.content)
    assert record["files"]["tst_mat.pkl"]["size"] == 4
    assert record["files"]["tst_mat.pkl"]["sha256"].startswith("9f86d081884c7d65")  # SHA-256 of "test"


def test_what_is_there_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    fetch(server, tmp_path)
    (tmp_path / "val_mat.pkl").write_bytes(b"changed")
    server.sent = 0
    assert files_of(fetch(server, tmp_path)) == EXPECTED
    assert server.sent < 2**16 + 1_000


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": {"trn_mat.pkl": 1}}', b"[" * 10**5, None])
def test_a_record_that_says_nothing_is_made_again(server: Server, tmp_path: Path, content: bytes | None) -> None:
    if content is None:
        os.mkfifo(tmp_path / RECORD_FILE)
    else:
        (tmp_path / RECORD_FILE).write_bytes(content)
    assert files_of(fetch(server, tmp_path)) == EXPECTED
    server.sent = 0
    fetch(server, tmp_path)
    assert server.sent < 2**16 + 1_000


def test_a_part_that_is_another_file_is_not_written_to(server: Server, tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"mine")
    part = tmp_path / f".trn_mat.pkl.{zlib.crc32(EXPECTED['trn_mat.pkl']):08x}.part"
    part.hardlink_to(tmp_path / "mine")
    with pytest.raises(DataError, match="part' is a link, or no file: remove it"):
        fetch(server, tmp_path)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_connections_that_are_cut(server: Server, tmp_path: Path) -> None:
    server.misbehave = lambda handler, part, number: part[: len(part) // 2 + 1]
    assert files_of(fetch(server, tmp_path)) == EXPECTED
    assert server.sent < 300_000 + 2**16 + 5_000  # each byte once


def test_a_stopped_download_goes_on(server: Server, tmp_path: Path) -> None:
    def stop(handler: Any, part: bytes, number: int) -> bytes:
        return part if len(part) < 200_000 else part[:100_000] if number == 4 else b""

    server.misbehave = stop
    with pytest.raises(DataError, match=r"the connection was cut, 3 times in a row.*What was fetched is kept"):
        fetch(server, tmp_path)
    server.misbehave = lambda handler, part, number: part
    server.sent = 0
    assert files_of(fetch(server, tmp_path)) == EXPECTED
    assert server.sent < 200_000 + 2**16 + 5_000


def test_a_server_that_drips(server: Server, tmp_path: Path) -> None:
    def drip(handler: Any, part: bytes, number: int) -> bytes | None:
        if number < 2:
            return part
        handler.head(len(server.content) - len(part), len(server.content) - 1, len(part))
        for byte in part[:40]:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.05)
        return None

    server.misbehave = drip
    started = time.monotonic()
    with pytest.raises(DataError, match="bytes in"):
        fetch_release("amazon", tmp_path, server.url, Patience(0.5, 2, 0.01), show_progress=False)
    assert time.monotonic() - started < 5


def busy_first(handler: Any, part: bytes, number: int) -> bytes | None:
    if number % 3 == 0:
        return part
    handler.send_response(503)
    handler.send_header("Content-Length", "0")
    handler.end_headers()
    return None


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    server.misbehave = busy_first
    assert files_of(fetch(server, tmp_path)) == EXPECTED


def not_found(handler: Any, part: bytes, number: int) -> None:
    handler.send_response(404)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def ignores_range(handler: Any, part: bytes, number: int) -> None:
    handler.head(0, 0, 15, status=200)
    handler.wfile.write(b"<html>hi</html>")


def other_part(handler: Any, part: bytes, number: int) -> None:
    handler.head(7, 7 + len(part) - 1, len(part))
    handler.wfile.write(part)


def other_bytes(handler: Any, part: bytes, number: int) -> bytes:
    return part if len(part) < 200_000 else bytes(len(part))


@pytest.mark.parametrize(
    ("misbehave", "expected"),
    [
        (not_found, r"answers with HTTP 404.*--url"),
        (ignores_range, "serves no parts of files"),
        (other_part, r"serves 'bytes 7-7/\d+' where 'bytes 0-0/"),
        (other_bytes, r"sent a damaged 'data/amazon/trn_mat.pkl'"),
    ],
)
def test_servers_that_lie(server: Server, tmp_path: Path, misbehave: Any, expected: str) -> None:
    server.misbehave = misbehave
    with pytest.raises(DataError, match=expected):
        fetch(server, tmp_path)
    assert files_of(tmp_path) == {}


def test_an_archive_that_changes(server: Server, tmp_path: Path) -> None:
    def change(handler: Any, part: bytes, number: int) -> bytes:
        server.version = f'"{number}"'
        return part

    server.misbehave = change
    with pytest.raises(DataError, match="changed while it was fetched"):
        fetch(server, tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"x" * 1000, "serves no zip archive"),
        (archive({"data/yelp/trn_mat.pkl": b""}), "an archive without amazon/trn_mat.pkl"),
        (archive({**FILES, "again/amazon/trn_mat.pkl": b""}), "two files trn_mat.pkl"),
    ],
)
def test_other_files(server: Server, tmp_path: Path, content: bytes, expected: str) -> None:
    server.content = content
    with pytest.raises(DataError, match=expected):
        fetch(server, tmp_path)


def test_a_file_that_says_it_is_small(server: Server, tmp_path: Path) -> None:
    content = bytearray(archive({**FILES, "data/amazon/tst_mat.pkl": bytes(10_000_000)}))
    at = content.rindex(b"PK\x01\x02", 0, content.rindex(b"data/amazon/tst_mat.pkl"))
    content[at + 24 : at + 28] = (100).to_bytes(4, "little")  # its size in the directory
    server.content = bytes(content)
    with pytest.raises(DataError, match="longer than the archive says"):
        fetch(server, tmp_path)


@pytest.mark.parametrize(
    ("name", "url", "expected"),
    [("netflix", "http://127.0.0.1/", "no dataset 'netflix'"), ("amazon", "file:///etc/passwd", "https://")],
)
def test_bad_settings(tmp_path: Path, name: str, url: str, expected: str) -> None:
    with pytest.raises(SettingError, match=expected):
        fetch_release(name, tmp_path, url)


def test_nobody_answers(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch_release("amazon", tmp_path, "http://127.0.0.1:9/data.zip", Patience(1, 2, 0.01))


def test_command_line(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "fetched"
    arguments = ["import-release", "--download=amazon", f"--url={server.url}", f"--source={source}"]
    assert main([*arguments, f"--output={tmp_path}"]) == 2  # made-up matrices are fetched, and refused by the import
    assert files_of(source) == EXPECTED and "trn_mat.pkl" in capsys.readouterr().err
    assert main(["import-release", "--dataset=amazon-book"]) == 2
    assert "--source is missing" in capsys.readouterr().err
