"""A real HTTP server on 127.0.0.1 that speaks OpenAI's chat, embeddings, files and batches endpoints, faults included.

Faults are drawn from a seed, the request's text and how often that text came before, so they do not depend on the order
in which requests arrive.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

#: rate_limit: 429; server_error: 500; hang: no answer until the client leaves; broken_json: half of the model's JSON;
#: cut: half of the HTTP body, then the connection ends; no_json: an HTML page with status 200.
FAULTS = ("rate_limit", "server_error", "hang", "broken_json", "cut", "no_json")


@dataclass(frozen=True)
class Request:
    """What the server saw of one request, and what it did to it."""

    method: str
    path: str
    text: str  # the first user message, or the embeddings' inputs by lines; empty elsewhere
    body: Any
    authorization: str | None
    fault: str | None


@dataclass(frozen=True)
class Reply:
    """What the model says, or the error (``status`` and ``error``) instead of it."""

    content: str | None = None
    finish_reason: str = "stop"
    refusal: str | None = None
    status: int = 200
    error: Mapping[str, Any] | None = None
    usage: bool = True


def embedding(text: str, dimension: int) -> np.ndarray:
    """Return the vector that the server gives a text, float32 ``[dimension]``."""
    seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "little")
    return np.random.default_rng(seed).normal(size=dimension).astype(np.float32)


def user_text(body: Mapping[str, Any]) -> str:
    """Return the first user message of a chat request."""
    return next(str(message["content"]) for message in body["messages"] if message["role"] == "user")


def profile_content(text: str) -> str:
    """Return the model's answer to a user message."""
    return json.dumps({"summarization": f"Profile of {text}", "reasoning": f"Because of {text}"}, ensure_ascii=False)


def n_tokens(text: str) -> int:
    """Return the server's own count: words."""
    return len(text.split())


class LoopbackServer:
    """The server, in a thread of its own while the ``with`` lasts.

    Args:
        faults: fault -> its share of the requests to chat and embeddings.
        seed: of the faults.
        delay: seconds before each answer.
        key: the key that is asked for; None for none.
        models: those there are; None for any.
        unsupported: request parameters, or values of response_format's type, that get status 400.
        answer: gives the reply to a chat request; None from it, or for it, for a good profile.
        dimension: of embeddings, where the request says nothing.
        max_characters: of a chat's messages or an embeddings input; longer ones get status 400.
    """

    def __init__(
        self,
        faults: Mapping[str, float] | None = None,
        seed: int = 0,
        delay: float = 0.0,
        key: str | None = None,
        models: set[str] | None = None,
        unsupported: frozenset[str] = frozenset(),
        answer: Callable[[Mapping[str, Any]], Reply | None] | None = None,
        dimension: int = 8,
        max_characters: int | None = None,
    ) -> None:
        unknown = set(faults or {}) - set(FAULTS)
        assert not unknown, f"no such faults: {unknown}"
        self.faults, self.seed, self.delay, self.key, self.models = dict(faults or {}), seed, delay, key, models
        self.unsupported, self.answer, self.dimension = unsupported, answer, dimension
        self.max_characters = max_characters
        self.requests: list[Request] = []
        self.in_flight = 0
        self.in_flight_max = 0
        self.connections = 0
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self._seen: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    # What a test asks

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def texts(self, path: str = "/v1/chat/completions") -> list[str]:
        """Return the texts of all requests to an endpoint, in the order in which they came."""
        return [request.text for request in self.requests if request.path == path]

    def fault_counts(self) -> dict[str, int]:
        """Return how many requests met each fault."""
        return dict(Counter(request.fault for request in self.requests if request.fault))

    def finish(self, batch_id: str, status: str = "completed", answered: int | None = None) -> None:
        """End a batch; with ``answered``, only that many of its requests have an answer."""
        batch = self.batches[batch_id]
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        done: dict[str, list[str]] = {"output": [], "error": []}
        for line in lines[:answered]:
            code, body = self._chat(line["body"], broken=False)
            result = {
                "id": f"r{line['custom_id']}",
                "custom_id": line["custom_id"],
                "response": {"status_code": code, "request_id": "", "body": body},
                "error": None,
            }
            done["output" if code == 200 else "error"].append(json.dumps(result))
        for line in lines[len(lines) if answered is None else answered :]:
            error = {"code": "batch_expired", "message": "This request could not be executed in time."}
            result = {"id": "r", "custom_id": line["custom_id"], "response": None, "error": error}
            done["error"].append(json.dumps(result))
        for kind, results in done.items():
            if results and status != "failed":
                batch[f"{kind}_file_id"] = self._add_file("\n".join(results).encode() + b"\n")
        if status == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "invalid", "message": "The file is no good."}]}
        batch["status"] = status

    # The thread and its connections

    def __enter__(self) -> LoopbackServer:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=512))
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        server.close()
        connections = asyncio.all_tasks(self._loop)
        for connection in connections:
            connection.cancel()
        self._loop.run_until_complete(asyncio.gather(*connections, return_exceptions=True))

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client left, or the server ends
        finally:
            self.connections -= 1
            with contextlib.suppress(ConnectionError, RuntimeError):
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        try:
            content = await reader.readexactly(int(headers.get("content-length", 0)))
            path, _, query = target.partition("?")
            is_json = headers.get("content-type", "").startswith("application/json")
            body = json.loads(content) if content and is_json else content
            text = self._text_of(path, body)
            fault = self._fault_of(text)
            request = Request(method, path, text, body if is_json else None, headers.get("authorization"), fault)
            self.requests.append(request)
            if self.delay:
                await asyncio.sleep(self.delay)
            if fault == "hang":
                await reader.read(1)  # returns when the client closes the connection
                return False
            status, answer = self._answer(request, headers, content, query)
        finally:
            self.in_flight -= 1
        return await self._send(writer, status, answer, fault)

    async def _send(self, writer: asyncio.StreamWriter, status: int, answer: Any, fault: str | None) -> bool:
        kind, payload = "application/json", b""
        if fault == "no_json":
            kind, payload = "text/html", b"<html>A proxy is tired.</html>"
        elif isinstance(answer, bytes):
            kind, payload = "application/octet-stream", answer
        else:
            payload = json.dumps(answer).encode()
        # The client honours the header for rate limits and server errors; its own first wait is half a second.
        wait = "retry-after-ms: 10\r\n" if status == 429 or status >= 500 else ""
        head = f"HTTP/1.1 {status} Some\r\ncontent-type: {kind}\r\ncontent-length: {len(payload)}\r\n{wait}\r\n"
        writer.write(head.encode() + (payload[: len(payload) // 2] if fault == "cut" else payload))
        await writer.drain()
        return fault != "cut"

    def _text_of(self, path: str, body: Any) -> str:
        if path == "/v1/chat/completions":
            return user_text(body)
        if path == "/v1/embeddings":
            return body["input"] if isinstance(body["input"], str) else "\n".join(map(str, body["input"]))
        return ""

    def _fault_of(self, text: str) -> str | None:
        if not text:
            return None
        digest = hashlib.sha256(f"{self.seed}/{self._seen[text]}/{text}".encode("utf-8", "surrogatepass")).digest()
        self._seen[text] += 1
        drawn = int.from_bytes(digest[:8], "little") / 2**64
        for fault, share in self.faults.items():
            drawn -= share
            if drawn < 0:
                return fault
        return None

    # The endpoints

    def _answer(self, request: Request, headers: Mapping[str, str], content: bytes, query: str) -> tuple[int, Any]:
        if self.key is not None and request.authorization != f"Bearer {self.key}":
            given = (request.authorization or "").replace("Bearer ", "")
            return _error(401, f"Incorrect API key provided: {given}.", code="invalid_api_key")
        if request.fault == "rate_limit":
            return _error(429, "Too many requests.", code="rate_limit_exceeded")
        if request.fault == "server_error":
            return _error(500, "The server is tired.")
        if request.path == "/v1/chat/completions":
            return self._chat(request.body, broken=request.fault == "broken_json")
        if request.path == "/v1/embeddings":
            return self._embeddings(request.body)
        if request.path == "/v1/files":
            file_id = self._add_file(_uploaded(headers, content))
            return 200, {"id": file_id, "object": "file", "bytes": len(self.files[file_id]), "purpose": "batch"}
        if request.path == "/v1/batches":
            if request.method == "POST":
                return 200, self._create_batch(request.body)
            return 200, self._page_of_batches(query)
        found = re.fullmatch(r"/v1/(files|batches)/([^/]+)(/content)?", request.path)
        if found and found[1] == "batches" and found[2] in self.batches:
            return 200, self.batches[found[2]]
        if found and found[1] == "files" and found[2] in self.files:
            if request.method == "DELETE":
                del self.files[found[2]]
                return 200, {"id": found[2], "object": "file", "deleted": True}
            return 200, self.files[found[2]]
        return _error(404, f"There is no {request.path}.")

    def _refused(self, body: Mapping[str, Any]) -> tuple[int, Any] | None:
        if self.models is not None and body["model"] not in self.models:
            return _error(404, f"The model `{body['model']}` does not exist.", code="model_not_found")
        for parameter in sorted(self.unsupported & set(body)):
            message = f"Unsupported parameter: '{parameter}' is not supported with this model."
            if parameter == "max_tokens":
                message += " Use 'max_completion_tokens' instead."
            return _error(400, message, param=parameter, code="unsupported_parameter")
        kind = body.get("response_format", {}).get("type")
        if kind in self.unsupported:
            message = f"Invalid parameter: 'response_format' of type '{kind}' is not supported with this model."
            return _error(400, message, param="response_format")
        return None

    def _chat(self, body: Mapping[str, Any], broken: bool) -> tuple[int, Any]:
        refused = self._refused(body)
        if refused is not None:
            return refused
        asked_text = "".join(str(message["content"]) for message in body["messages"])
        if self.max_characters is not None and len(asked_text) > self.max_characters:
            message = f"This model's maximum context length is {self.max_characters} characters."
            return _error(400, message, param="messages", code="context_length_exceeded")
        reply = (self.answer and self.answer(body)) or Reply(profile_content(user_text(body)))
        if reply.error is not None:
            return reply.status, {"error": reply.error}
        content = reply.content
        if broken and content is not None:
            content = content[: len(content) // 2]
        said = {"role": "assistant", "content": content, "refusal": reply.refusal}
        completion: dict[str, Any] = {
            "id": "c",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": reply.finish_reason, "message": said}],
        }
        if reply.usage:
            asked, answered = n_tokens(asked_text), n_tokens(content or "")
            completion["usage"] = {
                "prompt_tokens": asked,
                "completion_tokens": answered,
                "total_tokens": asked + answered,
            }
        return 200, completion

    def _embeddings(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        refused = self._refused(body)
        if refused is not None:
            return refused
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if not texts or not all(texts):
            return _error(400, "'$.input' is invalid: an input is empty.", param="input")
        if self.max_characters is not None and max(map(len, texts)) > self.max_characters:
            return _error(400, f"The maximum context length is {self.max_characters} characters.", param="input")
        vectors = [embedding(text, body.get("dimensions") or self.dimension) for text in texts]
        in_base64 = body.get("encoding_format") == "base64"
        data = [
            {
                "object": "embedding",
                "index": index,
                "embedding": base64.b64encode(vector.tobytes()).decode() if in_base64 else vector.tolist(),
            }
            for index, vector in enumerate(vectors)
        ]
        asked = sum(map(n_tokens, texts))
        usage = {"prompt_tokens": asked, "total_tokens": asked}
        return 200, {"object": "list", "model": body["model"], "data": data, "usage": usage}

    def _add_file(self, content: bytes) -> str:
        file_id = f"file-{len(self.files)}"
        self.files[file_id] = content
        return file_id

    def _create_batch(self, body: Mapping[str, Any]) -> dict[str, Any]:
        batch_id = f"batch-{len(self.batches)}"
        self.batches[batch_id] = {
            "id": batch_id,
            "object": "batch",
            "endpoint": body["endpoint"],
            "completion_window": body["completion_window"],
            "input_file_id": body["input_file_id"],
            "metadata": body.get("metadata"),
            "status": "in_progress",
            "created_at": 0,
        }
        return self.batches[batch_id]

    def _page_of_batches(self, query: str) -> dict[str, Any]:
        newest_first = list(reversed(self.batches))
        after = re.search(r"after=([^&]+)", query)
        start = newest_first.index(after[1]) + 1 if after else 0
        page = newest_first[start : start + 2]  # short pages, so that a client has to turn them
        return {
            "object": "list",
            "data": [self.batches[batch_id] for batch_id in page],
            "first_id": page[0] if page else None,
            "last_id": page[-1] if page else None,
            "has_more": start + len(page) < len(newest_first),
        }


def _error(status: int, message: str, param: str | None = None, code: str | None = None) -> tuple[int, Any]:
    return status, {"error": {"message": message, "type": "error", "param": param, "code": code}}


def _uploaded(headers: Mapping[str, str], content: bytes) -> bytes:
    """Return the file within a multipart form."""
    boundary = headers["content-type"].split("boundary=")[1].encode()
    for part in content.split(b"--" + boundary):
        head, _, file = part.partition(b"\r\n\r\n")
        if b'name="file"' in head:
            return file[: -len(b"\r\n")]
    raise AssertionError("the form has no file")
