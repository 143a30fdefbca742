"""Proxies of the environment."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from recbole_rlmrec.errors import ServiceError
from recbole_rlmrec.openai_client import Server
from recbole_rlmrec.server.proxy import proxy_for

ELSEWHERE = "https://llm.example.org/v1"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")


@pytest.fixture
def socksio(monkeypatch: pytest.MonkeyPatch) -> Any:
    find = importlib.util.find_spec

    def pretend(installed: bool) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name: (installed or None) if name == "socksio" else find(name)
        )

    return pretend


@pytest.mark.parametrize("address", ["socks5://127.0.0.1:1080", "socks://127.0.0.1:7891/", "socks5h://u:secret@h:1"])
@pytest.mark.parametrize("variable", ["ALL_PROXY", "all_proxy", "HTTPS_PROXY"])
def test_socks_without_its_package_is_one_message(
    address: str, variable: str, monkeypatch: pytest.MonkeyPatch, socksio: Any
) -> None:
    socksio(False)
    monkeypatch.setenv(variable, address)
    for make in (Server(ELSEWHERE).client, Server(ELSEWHERE).async_client):
        with pytest.raises(ServiceError, match=rf"{variable.upper()} names a SOCKS proxy.*pip install socksio") as no:
            make()
        assert "secret" not in str(no.value)


def test_socks_with_its_package(monkeypatch: pytest.MonkeyPatch, socksio: Any) -> None:
    socksio(True)
    monkeypatch.setenv("ALL_PROXY", "socks://127.0.0.1:7891/")
    assert proxy_for(ELSEWHERE) == "socks5://127.0.0.1:7891"


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8000/v1", "http://localhost/v1", "http://[::1]:1/v1", "http://0.0.0.0:1/v1"]
)
def test_this_machine_is_asked_directly(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ALL_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(name, "socks5://127.0.0.1:1080")
    assert proxy_for(url) is None
    Server(url).client().close()


@pytest.mark.parametrize(
    ("no_proxy", "is_direct"),
    [
        ("*", True),
        ("example.org", True),
        (".example.org, other", True),
        ("*.example.org", True),
        ("llm.example.org:443", False),
        ("LLM.Example.org:8443", True),
        ("ample.org", False),
        ("", False),
    ],
)
def test_no_proxy(no_proxy: str, is_direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    expected = None if is_direct else "http://proxy.example:3128"
    assert proxy_for("https://llm.example.org:8443/v1") == expected


def test_networks_in_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,192.168.1.7")
    found = [proxy_for(f"http://{host}/v1") for host in ("10.1.2.3", "192.168.1.7", "192.168.1.8")]
    assert found == [None, None, "http://proxy:1"]


@pytest.mark.parametrize("address", ["ftp://u:secret@h:1", "socks4://h:1", "http://", "http://u:secret@h:port"])
def test_other_proxies_are_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", address)
    with pytest.raises(ServiceError, match="ALL_PROXY names a proxy that cannot be used") as no:
        proxy_for(ELSEWHERE)
    assert "secret" not in str(no.value)
