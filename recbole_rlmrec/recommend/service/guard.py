"""What is checked of a request before anything else sees it: host, origin, token, size and time of its body."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from recbole_rlmrec.files import json_line
from recbole_rlmrec.recommend.service.metrics import Metrics

#: Bytes of the largest body.
LARGEST_BODY = 10**6
#: Seconds in which a request's head has to be there, and then its body.
PATIENCE = 10.0

#: A browser loads and runs what this service sends, and nothing else.
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]


class RefusedError(Exception):
    """A request is answered without a look at what it asks for.

    Args:
        status: of HTTP.
        message: one sentence.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches an address.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, True, False)
    """
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Answers what must not get further, and adds to each answer what keeps a browser safe.

    Args:
        app: gets the rest, with the whole body at once.
        metrics: counts the answers.
        paths: that are counted by their name; others are counted together.
        open_paths: that need no token.
        token: which ``Authorization: Bearer`` has to name; empty for none.
        only_loopback: whether only names of this machine are accepted as the request's host: a page of the web could
            let its own name point here (DNS rebinding).
    """

    def __init__(
        self,
        app: App,
        metrics: Metrics,
        *,
        paths: Collection[str],
        open_paths: Collection[str],
        token: str,
        only_loopback: bool,
    ) -> None:
        self._app, self._metrics, self._token, self._only_loopback = app, metrics, token, only_loopback
        self._paths, self._open_paths = paths, open_paths

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            try:
                self._check(scope)
                body = await _whole_body(scope, receive)
            except RefusedError as refusal:
                await _refuse(refusal, send_safely)
                return
            is_given = False

            async def receive_whole() -> Message:
                nonlocal is_given
                if is_given:
                    return await receive()
                is_given = True
                return {"type": "http.request", "body": body, "more_body": False}

            await self._app(scope, receive_whole, send_safely)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "other"
            self._metrics.count_request(path, status, time.perf_counter() - start)

    def _check(self, scope: Any) -> None:
        """Check what the head says.

        Raises:
            RefusedError: the host is another, the request comes from another site's page, or lacks the token.
        """
        headers = dict(scope["headers"])
        host = _text(headers, b"host")
        if self._only_loopback and not is_loopback(_name_of(host)):
            raise RefusedError(
                421,
                f"This service answers for this machine only (http://127.0.0.1, http://localhost), not "
                f"for {host[:100]!r}.",
            )
        if b"origin" in headers and _text(headers, b"origin").partition("://")[2] != host:
            raise RefusedError(403, "Pages of other sites may not use this service.")
        given = _text(headers, b"authorization").removeprefix("Bearer ").encode()
        if (
            self._token
            and scope["path"] not in self._open_paths
            and not hmac.compare_digest(given, self._token.encode())
        ):
            raise RefusedError(401, "This service needs its token: send the header 'Authorization: Bearer TOKEN'.")


def _text(headers: dict[bytes, bytes], name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1")


def _name_of(host: str) -> str:
    """Return a host without its port; empty where it is none.

    >>> _name_of("localhost:8000"), _name_of("[::1]:8000"), _name_of("[:")
    ('localhost', '::1', '')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _whole_body(scope: Any, receive: Receive) -> bytes:
    """Return the body of a request.

    Raises:
        RefusedError: it is too large, with or without a head that says so, or does not come in time.
    """
    headers = dict(scope["headers"])
    too_large = RefusedError(413, f"The body is larger than {LARGEST_BODY:,} bytes: send it in parts.")
    length = _text(headers, b"content-length")
    if b"expect" in headers and length.isdigit() and int(length) > LARGEST_BODY:
        raise too_large
    parts: list[bytes] = []
    size, is_whole = 0, False
    try:
        async with asyncio.timeout(PATIENCE):
            while not is_whole:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise RefusedError(400, "The connection was closed before the body was whole.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > LARGEST_BODY:
                    parts.clear()  # who still sends does not read an answer: what is too much is read and forgotten
                is_whole = not message.get("more_body", False)
    except TimeoutError:
        raise RefusedError(408, f"The body did not come within {PATIENCE:g} seconds.") from None
    if size > LARGEST_BODY:
        raise too_large
    return b"".join(parts)


async def _refuse(refusal: RefusedError, send: Send) -> None:
    body = json_line({"error": refusal.message})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        # What is left of the body is not read.
        (b"connection", b"close"),
    ]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
