"""The way to a server and back, with bounds: on the time of a whole answer, on its bytes, on what is believed of it.

Below the package ``openai`` lies ``httpx``, or its later name ``httpx2``, whose time-outs hold for each read: a server
that sends a byte a second is never late. Here an answer is read whole, within one time-out and a number of bytes, and
what is an error is given on as one, whatever the server called it: with a status, one sentence and without the key. So
the client's rules for repeating a request see all errors alike.

The classes have the methods of ``httpx.AsyncBaseTransport`` and ``httpx.BaseTransport`` without being these: which of
the two packages is used is known only when a client is made.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import threading
import time
import weakref
import zlib
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from recbole_rlmrec.server.reason import Reason, error_within, is_too_long, read_reason
from recbole_rlmrec.server.secret import Secret
from recbole_rlmrec.server.waiting import MAX_ASKED_WAIT, MAX_WAIT, asked_wait

#: Bytes of an answer where nothing else is said; a chat's has some thousands.
MAX_ANSWER = 8_000_000
#: Bytes of a file that is fetched: the results of 50,000 requests.
MAX_FILE = 4_000_000_000
#: Seconds that a model which is being loaded is waited for.
MAX_LOADING = 600.0

# Bytes of an error's body; what comes after them is of no interest.
_MAX_ERROR = 64_000
# Characters of a reason that are given on; messages show fewer.
_MAX_REASON, _MAX_CODE = 2000, 100
# A file may take longer than one time-out, as long as it comes at this many bytes a second.
_MIN_FILE_RATE = 10_000
# Between two questions whether the model is loaded, where the server does not say when.
_LOADING_PAUSE = 5.0

_FILES = re.compile(r"/files(?:/[^/]+/content)?$")
# MiniMax sends "choices": null beside its reason.
_HAS_RESULTS = re.compile(rb'"(?:choices|data)"\s{0,20}:\s{0,20}\[\s{0,20}[^\]\s]')
_CONTENT = re.compile(r"/files/[^/]+/content$")
_LOADING = re.compile(r"\bloading\b|\bwarming up\b|\bstill starting\b|\bnot (?:yet )?(?:ready|loaded)\b", re.IGNORECASE)
# Of an answer's headers: others are nobody's business, and may hold anything.
_KEPT_HEADERS = ("content-type", "location", "retry-after", "retry-after-ms", "x-should-retry")

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")


@dataclass(frozen=True)
class Bounds:
    """What a server may take at most.

    Attributes:
        seconds: for a whole answer, from the request to its last byte.
        n_bytes: of an answer, unpacked.
    """

    seconds: float
    n_bytes: int = MAX_ANSWER


class _UnusableError(Exception):
    """An answer is larger than its bound, or cannot be unpacked."""


class BoundedTransport:
    """Sends requests, and returns whole answers that keep to bounds.

    Args:
        http: the package ``httpx`` or ``httpx2``.
        proxy: address of the proxy; None for none.
        bounds: of time and size.
        secret: the key, which is taken out of errors.
        max_connections: at a time.
    """

    def __init__(
        self, http: ModuleType, proxy: str | None, bounds: Bounds, secret: Secret, max_connections: int
    ) -> None:
        self.http = http
        limits = http.Limits(max_connections=max_connections, max_keepalive_connections=100)
        self._inner = http.AsyncHTTPTransport(proxy=proxy, limits=limits)
        self._bounds, self._secret = bounds, secret
        self._loading_since: float | None = None

    async def __aenter__(self) -> BoundedTransport:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *arguments: Any) -> None:
        await self._inner.__aexit__(*arguments)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()

    async def handle_async_request(self, request: Any) -> Any:
        """Return the whole answer to a request; wait for a model that is being loaded.

        Raises:
            httpx.TransportError: no whole answer came in time, or none at all.
        """
        while True:
            answer = await self._in_time(request, self._whole(request))
            pause = self._pause_for_loading(answer)
            if pause is None:
                return answer
            await asyncio.sleep(pause)

    async def open_file(self, request: Any) -> tuple[Any, AsyncIterator[bytes]]:
        """Return an answer without its body, and the body bit by bit; of an error, which is read, there are none."""
        response = await self._in_time(request, self._sent(request))
        if response.status_code >= 400:
            return await self._in_time(request, self._read(response)), _nothing()
        return self._response(response.status_code, response.headers, b""), self._file(request, response)

    async def _in_time(self, request: Any, answer: Coroutine[Any, Any, _T]) -> _T:
        seconds = self._bounds.seconds
        if _FILES.search(request.url.path):
            seconds += int(request.headers.get("content-length", 0)) / _MIN_FILE_RATE
        try:
            return await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            raise self._late(request) from None

    def _late(self, request: Any) -> Exception:
        text = f"no whole answer came within {self._bounds.seconds:g} seconds (timed out)"
        return self.http.ReadTimeout(text, request=request)

    async def _sent(self, request: Any) -> Any:
        request.headers["accept-encoding"] = "gzip"  # what others unpack to can be bounded less well
        return await self._inner.handle_async_request(request)

    async def _whole(self, request: Any) -> Any:
        return await self._read(await self._sent(request))

    async def _read(self, response: Any) -> Any:
        """Read an answer's body, and return the answer as the client is to see it."""
        status, headers = response.status_code, response.headers
        most = _MAX_ERROR if status >= 400 else self._bounds.n_bytes
        pieces: list[bytes] = []
        try:
            async for piece in _unpacked(response, most):
                pieces.append(piece)
        except _UnusableError as error:
            if status < 400:
                return self._error(502, headers, Reason(f"The answer {error}."), may_retry=False)
        finally:
            await response.aclose()
        content = b"".join(pieces)
        if status >= 400:
            return self._error(status, headers, read_reason(_parsed(content)))
        if b'"error"' in content or not _HAS_RESULTS.search(content):
            within = error_within(_parsed(content))
            if within is not None:
                return self._error(within[0], headers, within[1])
        self._loading_since = None
        return self._response(status, headers, content)

    async def _file(self, request: Any, response: Any) -> AsyncIterator[bytes]:
        """Yield a file's bits, as long as they come fast enough."""
        start, n_bytes = time.monotonic(), 0
        bits = _unpacked(response, MAX_FILE)
        try:
            while True:
                end = start + self._bounds.seconds + n_bytes / _MIN_FILE_RATE
                try:
                    piece = await asyncio.wait_for(bits.__anext__(), max(0.0, end - time.monotonic()))
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise self._late(request) from None
                except _UnusableError as error:
                    raise self.http.DecodingError(f"the file {error}", request=request) from None
                n_bytes += len(piece)
                yield piece
        finally:
            await response.aclose()

    def _response(self, status: int, headers: Mapping[str, str], content: Any) -> Any:
        kept = {name: headers[name] for name in _KEPT_HEADERS if name in headers}
        return self.http.Response(status, headers=kept, content=content)

    def _error(self, status: int, headers: Mapping[str, str], reason: Reason, *, may_retry: bool = True) -> Any:
        """Return an error as OpenAI's API has it, without the key, and with the wait that the server asks for."""
        message = self._secret.shown(reason.message)[:_MAX_REASON]
        wait = asked_wait(headers, message) if status == 429 or status >= 500 else None
        is_in_vain = is_too_long(message) or reason.code == "insufficient_quota" or (wait or 0) > MAX_ASKED_WAIT
        given = {"content-type": "application/json"}
        if not may_retry or is_in_vain:
            given["x-should-retry"] = "false"
        elif wait:
            given["retry-after-ms"] = str(int(1000 * min(wait, MAX_WAIT)) or 1)
        code = None if reason.code is None else self._secret.shown(reason.code)[:_MAX_CODE]
        param = None if reason.param is None else self._secret.shown(reason.param)[:_MAX_CODE]
        body = {"error": {"message": message, "code": code, "param": param}}
        return self.http.Response(status, headers=given, content=json.dumps(body).encode("ascii"))

    def _pause_for_loading(self, answer: Any) -> float | None:
        """Return the seconds until the server is asked again because it loads its model; None to give the answer on."""
        if answer.status_code < 500 or not _LOADING.search(answer.text):
            return None
        now = time.monotonic()
        if self._loading_since is None:
            self._loading_since = now
            _logger.warning(f"The server is loading its model; it is waited for up to {MAX_LOADING / 60:.0f} minutes.")
        if now - self._loading_since > MAX_LOADING:
            answer.headers["x-should-retry"] = "false"
            return None
        asked = answer.headers.get("retry-after-ms")
        return int(asked) / 1000 if asked else _LOADING_PAUSE


class SyncTransport:
    """The same for a client that waits: the requests run in an event loop in a thread.

    A thread that waits for a socket cannot be called back; an event loop can leave a request at any moment.

    Args:
        bounded: what sends the requests.
    """

    def __init__(self, bounded: BoundedTransport) -> None:
        self._bounded = bounded
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_serve, args=(self._loop,), name="requests", daemon=True).start()
        self._stop = weakref.finalize(self, self._loop.call_soon_threadsafe, self._loop.stop)

    def __enter__(self) -> SyncTransport:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections, and end the thread."""
        if self._stop.alive:
            self._wait_for(self._bounded.aclose())
            self._stop()

    def handle_request(self, request: Any) -> Any:
        """Return the whole answer to a request, or, for the content of a file, one whose body is read bit by bit.

        Raises:
            httpx.TransportError: no whole answer came in time, or none at all.
        """
        if request.method != "GET" or not _CONTENT.search(request.url.path):
            return self._wait_for(self._bounded.handle_async_request(request))
        answer, bits = self._wait_for(self._bounded.open_file(request))
        if answer.status_code >= 400:
            return answer
        return self._bounded.http.Response(answer.status_code, headers=answer.headers, content=self._iterated(bits))

    def _iterated(self, bits: AsyncIterator[bytes]) -> Iterator[bytes]:
        try:
            while True:
                piece = self._wait_for(_next(bits))
                if piece is None:
                    return
                yield piece
        finally:
            if self._stop.alive:  # else the client was closed before the body was read to its end
                self._wait_for(bits.aclose())  # type: ignore[attr-defined]

    def _wait_for(self, answer: Coroutine[Any, Any, _T]) -> _T:
        future = asyncio.run_coroutine_threadsafe(answer, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise self._bounded.http.TransportError("the client was closed") from None
        except BaseException:
            future.cancel()  # as when the user presses Ctrl-C
            raise


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped."""
    asyncio.set_event_loop(loop)
    loop.run_forever()
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def _next(bits: AsyncIterator[bytes]) -> bytes | None:
    async for piece in bits:
        return piece
    return None


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for piece in nothing:
        yield piece


async def _unpacked(response: Any, most: int) -> AsyncIterator[bytes]:
    """Yield a body's bits, unpacked, until there are too many.

    Raises:
        _UnusableError: it has more than ``most`` bytes, or is packed in a way that was not asked for.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise _UnusableError("is packed in a way that was not asked for")
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32) if encoding not in ("identity", "") else None
    left = most
    async for piece in response.stream:
        if unpacker is not None:
            try:
                piece = unpacker.decompress(piece, left + 1)
            except zlib.error:
                raise _UnusableError("cannot be unpacked") from None
        left -= len(piece)
        yield piece if left >= 0 else piece[:left]
        if left < 0:
            raise _UnusableError(f"has more than {most:,} bytes")
    if unpacker is not None and not unpacker.eof:
        raise _UnusableError("cannot be unpacked: it is cut off")


def _parsed(content: bytes) -> Any:
    """Return a body's JSON, or its text where it has none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return content.decode("utf-8", "replace")
