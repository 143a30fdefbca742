"""Bounds on what a server takes of time and memory, and errors that all look alike, by real requests to bad servers."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from raw_server import Handler, RawServer

from recbole_rlmrec.errors import ServiceError
from recbole_rlmrec.openai_client import Server
from recbole_rlmrec.server import transport

KEY = "sk-loopback-0123456789abcdef"
GOOD = {"choices": [{"message": {"content": "hello"}}]}
BODY = {"model": "m"}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def ask(server: Server) -> Any:
    """Ask with the client that waits."""
    with server.client() as client, server.explained("m"):
        return client.post("/chat/completions", cast_to=object, body=BODY)


def ask_async(server: Server) -> Any:
    """Ask with the client for many requests."""

    async def run() -> Any:
        async with server.async_client() as client:
            with server.explained("m"):
                return await client.post("/chat/completions", cast_to=object, body=BODY)

    return asyncio.run(run())


BOTH = pytest.mark.parametrize("ask", [ask, ask_async])
Ask = Callable[[Server], Any]


def drip(head: bytes) -> Callable[[Handler, Any, int], None]:
    """A byte every few milliseconds, for ever; each read is in time."""

    def respond(handler: Handler, body: Any, number: int) -> None:
        handler.wfile.write(head)
        for _ in range(1000):
            handler.wfile.write(b"x")
            time.sleep(0.02)

    return respond


@BOTH
@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\nx-slow: ", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"], ids=["head", "body"]
)
def test_the_time_out_bounds_the_whole_answer(ask: Ask, head: bytes) -> None:
    with RawServer(drip(head)) as server:
        start = time.monotonic()
        with pytest.raises(ServiceError, match=r"cannot be reached: .*timed out.*waits 0.3 seconds"):
            ask(Server(server.base_url, timeout=0.3, max_retries=1))
        assert time.monotonic() - start < 10, "two drips last 40 seconds"
        assert len(server.bodies) == 2, "a late answer is asked for again, as often as the option says"
        server.respond = lambda handler, body, number: handler.answer(GOOD)
        assert ask(Server(server.base_url, timeout=5)) == GOOD


def endless(handler: Handler, body: Any, number: int) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n")
    while True:
        handler.wfile.write(b" " * 100_000)


def bomb(handler: Handler, body: Any, number: int) -> None:
    handler.answer(gzip.compress(b" " * 50_000_000), headers={"content-encoding": "gzip"})


@BOTH
@pytest.mark.parametrize("respond", [endless, bomb])
def test_the_bytes_of_an_answer_are_bounded(
    ask: Ask, respond: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with RawServer(respond) as server, pytest.raises(ServiceError, match="has more than 8,000,000 bytes"):
        ask(Server(server.base_url, timeout=30, max_retries=3))
    assert len(server.bodies) == 1, "a second answer would be no smaller"


def test_endless_error_is_read_as_far_as_it_matters() -> None:
    def respond(handler: Handler, body: Any, number: int) -> None:
        handler.wfile.write(b"HTTP/1.1 401 No\r\n\r\nWrong key. ")
        while True:
            handler.wfile.write(b"x" * 100_000)

    with RawServer(respond) as server, pytest.raises(ServiceError, match="refuses the key"):
        ask(Server(server.base_url, timeout=30))


@pytest.mark.parametrize(
    ("content", "encoding", "said"),
    [
        (gzip.compress(b'{"choices": []}', mtime=0)[:-9], "gzip", "cannot be unpacked"),
        (b"no gzip", "gzip", "cannot be unpacked"),
        (b"{}", "br", "packed in a way that was not asked for"),
    ],
)
def test_what_cannot_be_unpacked_is_said(content: bytes, encoding: str, said: str) -> None:
    def respond(handler: Handler, body: Any, number: int) -> None:
        handler.answer(content, headers={"content-encoding": encoding})

    with RawServer(respond) as server, pytest.raises(ServiceError, match=said):
        ask(Server(server.base_url))


def test_packed_answers_are_unpacked() -> None:
    def respond(handler: Handler, body: Any, number: int) -> None:
        handler.answer(gzip.compress(b'{"choices": [1]}'), headers={"content-encoding": "gzip"})

    with RawServer(respond) as server:
        assert ask(Server(server.base_url)) == {"choices": [1]}


@BOTH
def test_nested_answers_are_no_json(ask: Ask) -> None:
    nested = b'{"choices": ' + b"[" * 100_000
    with (
        RawServer(lambda handler, body, number: handler.answer(nested)) as server,
        pytest.raises(ServiceError, match="something that is no JSON"),
    ):
        ask(Server(server.base_url))


@pytest.mark.parametrize("inner", [429, 503])
def test_a_busy_server_in_an_answer_of_200_is_asked_again(inner: int) -> None:
    def respond(handler: Handler, body: Any, number: int) -> None:
        error = {"choices": None, "error": {"message": f"Busy, {KEY}.", "code": inner}}
        handler.answer(GOOD if number == 3 else error, headers={"retry-after": "0.01"})

    with RawServer(respond) as server:
        assert ask(Server(server.base_url)) == GOOD
        assert len(server.bodies) == 3
        server.respond = lambda handler, body, number: respond(handler, body, 0)
        with pytest.raises(ServiceError, match=rf"HTTP {inner}: Busy, \[key\]\."):
            ask(Server(server.base_url, max_retries=1))


@pytest.mark.parametrize(
    ("status", "body", "n_requests"),
    [
        (429, {"error": {"message": "No.", "code": "insufficient_quota"}}, 1),
        (429, {"error": {"message": "Come back in a day."}, "n": 1}, 1),
        (500, {"error": "the input length exceeds the context length"}, 1),
        (500, {"error": "No."}, 3),
    ],
)
def test_what_is_asked_again(status: int, body: Any, n_requests: int) -> None:
    wait = {"retry-after": "86400" if "n" in body else "0.01"}
    with (
        RawServer(lambda handler, _, number: handler.answer(body, status, headers=wait)) as server,
        pytest.raises(ServiceError),
    ):
        ask(Server(server.base_url, max_retries=2))
    assert len(server.bodies) == n_requests


@pytest.mark.parametrize("n_loading", [3, 1000])
def test_a_model_that_is_loading_is_waited_for(
    n_loading: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport, "_LOADING_PAUSE", 0.01)
    monkeypatch.setattr(transport, "MAX_LOADING", 60.0 if n_loading == 3 else 0.1)

    def respond(handler: Handler, body: Any, number: int) -> None:
        handler.answer(*(({"error": {"message": "Loading model"}}, 503) if number <= n_loading else (GOOD, 200)))

    with caplog.at_level(logging.WARNING), RawServer(respond) as server:
        if n_loading == 3:
            assert ask(Server(server.base_url, max_retries=0)) == GOOD
        else:
            with pytest.raises(ServiceError, match="HTTP 503: Loading model"):
                ask(Server(server.base_url, max_retries=5))
    assert [record.getMessage().partition(";")[0] for record in caplog.records] == ["The server is loading its model"]


def test_a_file_is_streamed_and_must_not_drip(monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"line\n" * 100_000

    def respond(handler: Handler, body: Any, number: int) -> None:
        if number == 1:
            handler.answer(content, kind="application/octet-stream")
        else:
            drip(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n")(handler, body, number)

    with RawServer(respond) as raw:
        server = Server(raw.base_url, timeout=0.5, max_retries=0)

        def fetch() -> list[bytes]:
            with (
                server.client() as client,
                server.explained("m"),
                client.files.with_streaming_response.content("f") as response,
            ):
                return list(response.iter_bytes())

        pieces = fetch()
        assert b"".join(pieces) == content and len(pieces) > 1
        start = time.monotonic()
        with pytest.raises(ServiceError, match="timed out"):
            fetch()
        assert time.monotonic() - start < 10, "a drip lasts 20 seconds"
        monkeypatch.setattr(transport, "MAX_FILE", 1000)
        raw.bodies.clear()
        with pytest.raises(ServiceError, match="the file has more than 1,000 bytes"):
            fetch()


def test_a_client_that_is_closed_asks_nothing_more() -> None:
    with RawServer(lambda handler, body, number: handler.answer(GOOD)) as raw:
        client = Server(raw.base_url).client()
        assert client.post("/chat/completions", cast_to=object, body=BODY) == GOOD
        client.close()
        client.close()


@BOTH
@pytest.mark.parametrize("choices", [None, []])
def test_a_reason_beside_empty_choices_is_shown(ask: Ask, choices: Any) -> None:
    body = {"choices": choices, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}}
    with (
        RawServer(lambda handler, *_: handler.answer(body)) as server,
        pytest.raises(ServiceError, match="insufficient balance"),
    ):
        ask(Server(server.base_url))
