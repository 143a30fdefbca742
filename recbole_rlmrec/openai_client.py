"""Clients for servers that speak OpenAI's API, and their errors in plain words.

The key comes from the environment alone and goes nowhere else: not into a file, a log or a message, though servers echo
it in theirs. The package ``openai`` is imported when a client is made, not before. What a server may take of time and
memory is bounded in ``server/transport.py``.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from recbole_rlmrec.errors import RLMRecError, ServiceError, SettingError
from recbole_rlmrec.server.proxy import proxy_for
from recbole_rlmrec.server.secret import Secret
from recbole_rlmrec.server.transport import MAX_ANSWER, BoundedTransport, Bounds, SyncTransport
from recbole_rlmrec.wording import printable

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

#: Sent where a server was named and no key is set: local servers ask for none, but the client does.
PLACEHOLDER_KEY = "no-key"
#: More open connections than the client's own limit would wait for each other.
MAX_CONCURRENCY = 1000

# These log every request, with addresses and, in some releases, bodies and headers.
_TALKATIVE_LOGGERS = ("openai", "httpx", "httpcore", "httpx2", "httpcore2")
_OPENAI = "https://api.openai.com/v1"
_MAX_REASON = 300
# Some servers' keys consist of letters, digits and underscores alone, as names of variables do, but are longer.
_MIN_KEY = 20
# The paths of what a server keeps, below any address.
_STORED_THING = re.compile(r"/(files|batches)/[^/]+")


@dataclass(frozen=True)
class Server:
    """A server that speaks OpenAI's API, and how to reach it.

    Attributes:
        base_url: such as ``http://localhost:8000/v1``; None for ``OPENAI_BASE_URL``, and OpenAI's own without it.
        key_variable: environment variable that holds the key.
        timeout: seconds within which a whole answer has to come; a request without one counts as failed.
        max_retries: of one request after a rate limit, a server error, a time-out or a broken connection; the client
            waits longer each time, or as long as the server asks.
    """

    base_url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    timeout: float = 60.0
    max_retries: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.timeout < math.inf:  # NaN is neither
            raise SettingError(f"The timeout is {self.timeout}; expected seconds above 0.")
        if self.max_retries < 0:
            raise SettingError(f"max_retries is {self.max_retries}; expected 0 or more.")
        if self.base_url is not None:
            _require_address(self.base_url, "The server")
        if not _is_variable_name(self.key_variable):
            # Not shown: what is given by mistake is the key.
            raise SettingError(
                "key_variable is not the name of an environment variable. Give a name of letters, digits and "
                "underscores, such as OPENAI_API_KEY, and put the key itself in that variable."
            )

    def client(self, max_answer: int = MAX_ANSWER) -> OpenAI:
        """Return a client that waits for each answer.

        Args:
            max_answer: bytes of an answer; a longer one is an error.

        Raises:
            ServiceError: the package or the key is missing, the key cannot be one, or the environment asks for a proxy
                that cannot be used.
            SettingError: ``OPENAI_BASE_URL`` is no address.
        """
        arguments, openai = self._arguments(), _openai()
        transport = SyncTransport(self._transport(max_answer))
        return openai.OpenAI(http_client=openai.DefaultHttpxClient(transport=transport), **arguments)

    def async_client(self) -> AsyncOpenAI:
        """Return a client for many requests at a time; see ``client``."""
        arguments, openai = self._arguments(), _openai()
        http_client = openai.DefaultAsyncHttpxClient(transport=self._transport(MAX_ANSWER))
        return openai.AsyncOpenAI(http_client=http_client, **arguments)

    @property
    def shown_url(self) -> str:
        """The server's address without a password or a query, for messages."""
        return "OpenAI's API" if self._given_url is None else shown_address(self._given_url)

    @property
    def _given_url(self) -> str | None:
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or None

    def _arguments(self) -> dict[str, Any]:
        _silence()
        if self.base_url is None and self._given_url is not None:
            _require_address(self._given_url, "The server in the environment variable OPENAI_BASE_URL")
        return {
            "api_key": self._key(),
            "base_url": self._given_url,
            "timeout": self.timeout,
            "max_retries": self.max_retries,
        }

    def _transport(self, max_answer: int) -> BoundedTransport:
        proxy, bounds = proxy_for(self._given_url or _OPENAI), Bounds(self.timeout, max_answer)
        return BoundedTransport(_http(), proxy, bounds, self.secret, MAX_CONCURRENCY)

    def _key(self) -> str:
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            if self._given_url is not None:
                return PLACEHOLDER_KEY
            raise ServiceError(
                f"OpenAI's API needs a key, and the environment variable {self.key_variable} is not set. Set it, or "
                "give the address of another server."
            )
        if not (key.isascii() and key.isprintable()) or " " in key:
            # The client would fail with the header, key included, in its message.
            raise ServiceError(
                f"The environment variable {self.key_variable} holds no key: there is a space, a line break or a "
                "character beyond ASCII within. Set it again."
            )
        return key

    @property
    def secret(self) -> Secret:
        """The key, for what has to be free of it."""
        return Secret(os.environ.get(self.key_variable, "").strip())

    def scrub(self, text: str) -> str:
        """Return a text without this server's key, and what looks like one, and without what a terminal would obey."""
        return printable(self.secret.scrub(text))

    def describe(self, error: BaseException) -> str:
        """Say what a request ended with, in one short line without the key."""
        status = getattr(error, "status_code", None)
        cause = error.__cause__
        text = _message_of(error)
        if status is None and cause is not None and str(cause):
            text = f"{text.rstrip('.')}: {cause}"
        line = self.shown(text)
        return f"HTTP {status}: {line}" if status is not None else line

    def shown(self, text: str) -> str:
        """Return what a server said as one short line without the key and control characters."""
        line = self.secret.shown(text)
        return line if len(line) <= _MAX_REASON else line[:_MAX_REASON] + "..."

    def explain(self, error: BaseException, model: str) -> ServiceError:
        """Turn a client's error into one that says how to fix it."""
        status, reason = getattr(error, "status_code", None), self.describe(error)
        place = self.shown_url
        if status in (401, 403):
            given = (
                f"the key in the environment variable {self.key_variable}"
                if os.environ.get(self.key_variable, "").strip()
                else f"a request without a key (the environment variable {self.key_variable} is not set)"
            )
            # Not the server's own words for 401: they quote the key.
            said = "" if status == 401 else f" ({reason})"
            return ServiceError(
                f"{place} refuses {given}, with status {status}{said}. Set a key that may use the model '{model}'."
            )
        if status == 404 and _is_of_another_thing(error, model):
            return ServiceError(
                f"{place} does not find what it was asked for ({reason}). It may have been removed there, or belong to "
                "another account: check the address and the key."
            )
        if status == 404:
            return ServiceError(
                f"{place} does not find the model '{model}' ({reason}). Check the model's name, and the address: it "
                "often ends with /v1."
            )
        if is_out_of_money(error):
            return ServiceError(f"The account at {place} has nothing left to spend ({reason}). Charge it and go on.")
        if status is None and is_connection_error(error):
            return ServiceError(
                f"{place} cannot be reached: {reason.rstrip('.')}. Check the address, the network, and that the server "
                f"runs; a request waits {self.timeout:g} seconds and is repeated {self.max_retries} times."
            )
        return ServiceError(f"{place} answers with an error for the model '{model}': {reason}")

    @contextlib.contextmanager
    def explained(self, model: str) -> Iterator[None]:
        """Turn the client's errors within the context into ``ServiceError``."""
        try:
            yield
        except (_openai().OpenAIError, _http().RequestError) as error:
            # Without its cause: a printed chain would show what the server said, key and all.
            raise self.explain(error, model) from None
        except (ValueError, RecursionError) as error:
            if isinstance(error, RLMRecError):
                raise
            raise ServiceError(
                f"{self.shown_url} answers with something that is no JSON. Check that the address is that of an "
                "OpenAI-compatible server."
            ) from None


def is_connection_error(error: BaseException) -> bool:
    """Whether no answer came: no connection, a broken one, or a time-out."""
    return isinstance(error, (_openai().APIConnectionError, _http().RequestError))


def is_out_of_money(error: BaseException) -> bool:
    """Whether the account is empty, so that no further request can succeed."""
    return getattr(error, "status_code", None) == 402 or getattr(error, "code", None) == "insufficient_quota"


def _is_of_another_thing(error: BaseException, model: str) -> bool:
    """Whether a 404 is about one file or batch of the server's, not about the model or the address."""
    path = str(getattr(getattr(getattr(error, "request", None), "url", None), "path", ""))
    names_model = re.search(rf"(?<![\w-]){re.escape(model)}(?![\w-])", _message_of(error))
    is_of_model = getattr(error, "code", None) == "model_not_found" or names_model
    return _STORED_THING.search(path) is not None and not is_of_model


def _require_address(url: str, what: str) -> None:
    """Raise unless the client can take this for an address."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that hold no IPv6 address, or a port that is no number
        is_address = False
    if not is_address or re.search(r"\s", url):
        raise SettingError(
            f"{what} is '{_without_secrets(url)}'; expected an address such as http://localhost:8000/v1."
        )


def shown_address(url: str) -> str:
    """Return what may be shown and stored of an address: no password and no query.

    >>> shown_address("https://me:p@ss@host/v1?key=abc")
    'https://host/v1'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return _without_secrets(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _without_secrets(url: str) -> str:
    """Return what may be shown of an address that cannot be taken apart: no password and no query."""
    return re.sub(r"^(\w+://)?.*@", r"\1", url, flags=re.DOTALL).partition("?")[0]


def _is_variable_name(name: str) -> bool:
    """Whether this is the name of an environment variable, and not the key itself."""
    looks_like_key = len(name) >= _MIN_KEY and re.search(r"[a-z]", name) and re.search(r"\d", name)
    return re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) is not None and (name in os.environ or not looks_like_key)


def _message_of(error: BaseException) -> str:
    """Return the server's own sentence where it sent one."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        for key in ("message", "detail", "error"):
            if isinstance(body.get(key), str) and body[key].strip():
                return str(body[key])
    return str(getattr(error, "message", "") or error or type(error).__name__)


def _openai() -> Any:
    try:
        import openai
    except ImportError:
        raise ServiceError(
            "Asking a server needs the package 'openai': pip install 'recbole-rlmrec[profile]'"
        ) from None
    return openai


def _http() -> ModuleType:
    """Return the package that the client sends its requests with: ``httpx``, or ``httpx2`` in later releases."""
    client = _openai().DefaultHttpxClient.__mro__[1]
    return importlib.import_module(client.__module__.partition(".")[0])


def _silence() -> None:
    """Let the client's own loggers speak of problems only."""
    _openai()  # sets its logger's level when it is imported, if OPENAI_LOG asks for it
    for name in _TALKATIVE_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
