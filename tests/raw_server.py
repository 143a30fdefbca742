"""An HTTP server on 127.0.0.1 whose every byte a test decides: what a hostile or broken one may send."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: Sends an answer; gets the request's handler, its parsed body and its number, counted from 1.
Respond = Callable[["Handler", Any, int], None]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def answer(
        self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None, kind: str = "application/json"
    ) -> None:
        """Send a body: bytes as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": kind, "content-length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("content-length", 0)))
        is_json = self.headers.get("content-type") == "application/json"
        body = json.loads(content) if content and is_json else content
        server: Any = self.server
        with server.lock:
            server.bodies.append(body)
            number = len(server.bodies)
        try:
            server.respond(self, body, number)
        except OSError:
            self.close_connection = True  # the client has left

    def do_GET(self) -> None:
        self.do_POST()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class RawServer(ThreadingHTTPServer):
    """The server, in a thread while the ``with`` lasts.

    Args:
        respond: sends the answer to each request.
    """

    daemon_threads = True

    def __init__(self, respond: Respond) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.respond, self.bodies, self.lock = respond, [], threading.Lock()  # type: ignore[var-annotated]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> RawServer:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """A client that leaves is no error."""
