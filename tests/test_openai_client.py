"""Clients of OpenAI's API: where the key comes from and never goes, and errors in plain words."""

from __future__ import annotations

import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from loopback_server import LoopbackServer

from recbole_rlmrec.errors import ServiceError, SettingError
from recbole_rlmrec.openai_client import PLACEHOLDER_KEY, Server, is_connection_error, is_out_of_money

KEY = "sk-loopback-0123456789abcdef"
MESSAGES: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("OPENAI_BASE_URL", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def ask(server: Server, model: str = "m") -> None:
    with server.client() as client, server.explained(model):
        client.chat.completions.create(model=model, messages=MESSAGES)


def test_key_from_the_named_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTHER_KEY", f" {KEY}2\n")  # as a shell reads it from a file
    with LoopbackServer() as loopback:
        ask(Server(loopback.base_url))
        ask(Server(loopback.base_url, key_variable="OTHER_KEY"))
        monkeypatch.delenv("OTHER_KEY")
        ask(Server(loopback.base_url, key_variable="OTHER_KEY"))
    given = [request.authorization for request in loopback.requests]
    assert given == [f"Bearer {key}" for key in (KEY, f"{KEY}2", PLACEHOLDER_KEY)]


def test_openai_itself_needs_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ServiceError, match="variable OPENAI_API_KEY is not set"):
        Server().client()
    with pytest.raises(ServiceError, match="variable MY_KEY is not set"):
        Server(key_variable="MY_KEY").async_client()


def test_base_url_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with LoopbackServer() as loopback:
        monkeypatch.setenv("OPENAI_BASE_URL", loopback.base_url)
        ask(Server())
    assert len(loopback.requests) == 1
    assert Server().shown_url == loopback.base_url


@pytest.mark.parametrize("key", ["sk-one\nsk-two", "sk-with a space", "sk-ключ"])
def test_what_cannot_be_a_key(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ServiceError, match="OPENAI_API_KEY holds no key") as error:
        Server().client()
    assert key not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"base_url": "localhost:8000"}, "'localhost:8000'; expected an address such as"),
        ({"base_url": "ftp://u:secret@host/v1"}, "'ftp://host/v1'"),
        ({"base_url": "http://[bad/v1"}, "'http://[bad/v1'; expected an address such as"),
        ({"base_url": "http://u:secret@[bad/v1?secret"}, "'http://[bad/v1'"),
        ({"base_url": "http://localhost:abc/v1"}, "'http://localhost:abc/v1'"),
        ({"base_url": "http://localhost:99999/v1"}, "'http://localhost:99999/v1'"),
        ({"base_url": "http://u:sec/secret@host/v1"}, "'http://host/v1'"),
        ({"base_url": "http://:80/v1"}, "'http://:80/v1'"),
        ({"base_url": "http://local host/v1"}, "'http://local host/v1'"),
        ({"base_url": ""}, "The server is ''"),
        ({"timeout": 0.0}, "timeout is 0.0"),
        ({"timeout": float("nan")}, "timeout is nan"),
        ({"timeout": float("inf")}, "timeout is inf"),
        ({"max_retries": -1}, "max_retries is -1"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as error:
        Server(**settings)
    assert message in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("address", ["http://u:secret@[bad/v1", "http://u:secret@localhost:abc/v1", "localhost:8000"])
def test_address_in_the_environment_is_checked(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    for make in (Server().client, Server().async_client):
        with pytest.raises(SettingError, match=r"variable OPENAI_BASE_URL is '.*'; expected an address") as error:
            make()
        assert "secret" not in str(error.value)
    assert "secret" not in Server().shown_url
    Server("http://127.0.0.1:1/v1").client()  # which does not ask it


@pytest.mark.parametrize(
    "key", ["sk-abc", "gsk_0123456789abcdefghijklmnop", "deadbeef0123456789deadbeef", "", "MY KEY", "1KEY", "CLÉ"]
)
def test_key_in_the_place_of_its_variable_is_not_shown(key: str) -> None:
    with pytest.raises(SettingError, match="is not the name of an environment variable") as error:
        Server(key_variable=key)
    assert not key or key not in str(error.value)


def test_long_names_of_variables_are_names_where_they_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "my_key_of_project_2_at_home"
    with pytest.raises(SettingError):
        Server(key_variable=name)
    monkeypatch.setenv(name, KEY)
    assert Server(key_variable=name).key_variable == name
    Server(key_variable="MY_KEY_OF_PROJECT_2_AT_HOME")


def test_wrong_key() -> None:
    with LoopbackServer(key="another") as loopback, pytest.raises(ServiceError) as error:
        ask(Server(loopback.base_url), "gpt")
    message = str(error.value)
    assert "refuses the key in the environment variable OPENAI_API_KEY, with status 401" in message
    assert "'gpt'" in message
    assert KEY not in message
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__
    assert len(loopback.requests) == 1, "a wrong key is not tried again"


def test_no_key_where_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with (
        LoopbackServer(key="another") as loopback,
        pytest.raises(ServiceError, match=r"a request without a key \(the environment variable OPENAI_API_KEY"),
    ):
        ask(Server(loopback.base_url))


def test_unknown_model() -> None:
    with (
        LoopbackServer(models={"m"}) as loopback,
        pytest.raises(ServiceError, match=r"does not find the model 'other' \(HTTP 404: The model `other`"),
    ):
        ask(Server(loopback.base_url), "other")


def test_missing_batch_or_file_is_not_an_unknown_model() -> None:
    with LoopbackServer() as loopback:
        server = Server(loopback.base_url)
        with server.client() as client:
            for ask_for, path in ((client.batches.retrieve, "batches/b-1"), (client.files.content, "files/f-1")):
                with (
                    pytest.raises(ServiceError, match="does not find what it was asked for") as error,
                    server.explained("m"),
                ):
                    ask_for(path.split("/")[1])
                assert f"(HTTP 404: There is no /v1/{path}" in str(error.value)
                assert "model" not in str(error.value)
        # An address without /v1: there is no such path, whatever it is.
        elsewhere = Server(loopback.base_url[: -len("/v1")])
        with elsewhere.client() as client:
            for wrong in (lambda: client.batches.list(), lambda: client.embeddings.create(input="a", model="m")):
                with pytest.raises(ServiceError, match="it often ends with /v1"), elsewhere.explained("m"):
                    wrong()


@pytest.mark.parametrize(
    ("code", "message", "is_of_model"),
    [
        ("model_not_found", "None.", True),
        (None, "The model `gpt-4o` does not exist.", True),
        (None, "No file for gpt-4o-mini.", False),
        ("not_found", "No such batch.", False),
    ],
)
def test_missing_thing_by_code_or_message(code: str | None, message: str, is_of_model: bool) -> None:
    error = StubError(404, code)
    error.body = {"message": message}  # type: ignore[attr-defined]
    error.request = SimpleNamespace(url=SimpleNamespace(path="/v1/batches/b"))  # type: ignore[attr-defined]
    explained = str(Server("http://127.0.0.1:1/v1").explain(error, "gpt-4o"))
    assert message.rstrip(".") in explained
    assert ("does not find the model 'gpt-4o'" in explained) is is_of_model


def test_unreachable() -> None:
    with LoopbackServer() as loopback:
        address = loopback.base_url
    with pytest.raises(ServiceError) as error:
        ask(Server(address.replace("http://", "http://user:secret@"), max_retries=0))
    assert f"{address} cannot be reached" in str(error.value)
    assert "secret" not in str(error.value)


def test_time_out() -> None:
    with LoopbackServer({"hang": 1.0}) as loopback, pytest.raises(ServiceError, match=r"reached: .*timed out"):
        ask(Server(loopback.base_url, timeout=0.2, max_retries=0))


def test_retries_are_the_clients() -> None:
    with LoopbackServer({"rate_limit": 1.0}) as loopback, pytest.raises(ServiceError, match="HTTP 429: Too many"):
        ask(Server(loopback.base_url, max_retries=3))
    assert len(loopback.requests) == 4


def test_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ServiceError, match=r"pip install 'recbole-rlmrec\[profile\]'"):
        Server("http://127.0.0.1:1/v1").client()


def test_scrub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "pass/word")
    server = Server()
    assert server.scrub("pass/word, pass%2Fword") == "[key], [key]"
    assert server.scrub("Incorrect API key provided: sk-proj-ab***************wxyz.") == (
        "Incorrect API key provided: [key]"
    )
    assert server.scrub("Authorization: Bearer abc.def") == "Authorization: Bearer [key]"
    assert server.scrub("a task-list and a disk-drive") == "a task-list and a disk-drive"
    monkeypatch.setenv("OPENAI_API_KEY", "a")  # nobody's secret, and part of every sentence
    assert server.scrub("a text") == "a text"


def test_client_logs_nothing(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_LOG", "debug")
    caplog.set_level(logging.DEBUG)
    with LoopbackServer({"rate_limit": 0.5}) as loopback:
        ask(Server(loopback.base_url))
    talkative = ("openai", "httpx", "httpcore")
    assert [record for record in caplog.records if record.name.startswith(talkative)] == []


class StubError(Exception):
    def __init__(self, status_code: int | None, code: str | None = None) -> None:
        super().__init__("stub")
        self.status_code, self.code = status_code, code


@pytest.mark.parametrize(
    ("error", "empty"),
    [
        (StubError(402), True),
        (StubError(429, "insufficient_quota"), True),
        (StubError(429, "rate_limit_exceeded"), False),
        (StubError(None), False),
    ],
)
def test_out_of_money(error: StubError, empty: bool) -> None:
    assert is_out_of_money(error) is empty
    assert not is_connection_error(error)
    if empty:
        assert "nothing left to spend" in str(Server("http://127.0.0.1:1/v1").explain(error, "m"))
