"""Which proxy of the environment leads to a server, if any."""

from __future__ import annotations

import importlib.util
import ipaddress
import re
from urllib.parse import urlsplit
from urllib.request import getproxies

from recbole_rlmrec.errors import ServiceError

_SOCKS = ("socks", "socks5", "socks5h")


def proxy_for(url: str) -> str | None:
    """Return the address of the proxy that a server is asked through; None to ask it directly.

    A server on this machine, and one that ``NO_PROXY`` names, is asked directly.

    Args:
        url: the server's address.

    Raises:
        ServiceError: the environment asks for a proxy that cannot be used.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxies = getproxies()
    if _is_this_machine(host) or _is_excepted(host, parts.port, proxies.get("no", "")):
        return None
    name = parts.scheme if proxies.get(parts.scheme) else "all"
    address = proxies.get(name, "").strip()
    if not address:
        return None
    if "://" not in address:
        address = f"http://{address}"
    scheme, _, rest = address.partition("://")
    variable = f"{name.upper()}_PROXY"
    if scheme.lower() in _SOCKS:
        if importlib.util.find_spec("socksio") is None:
            raise ServiceError(
                f"The environment variable {variable} names a SOCKS proxy, which needs the package socksio. Unset "
                "the variable, put the server's host in NO_PROXY, or: pip install socksio (the same as "
                "pip install 'httpx[socks]')."
            )
        return f"{'socks5h' if scheme.lower() == 'socks5h' else 'socks5'}://{rest.rstrip('/')}"
    if scheme.lower() not in ("http", "https") or not _is_address(address):
        raise ServiceError(
            f"The environment variable {variable} names a proxy that cannot be used; expected an address such as "
            "http://proxy.example:3128. Correct or unset it, or put the server's host in NO_PROXY."
        )
    return address


def _is_address(address: str) -> bool:
    try:
        parts = urlsplit(address)
        return bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", address)
    except ValueError:
        return False


def _is_this_machine(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = _ip(host)
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_excepted(host: str, port: int | None, no_proxy: str) -> bool:
    """Whether ``NO_PROXY`` has a host: its name, a domain above it, its address, or a network of addresses."""
    address = _ip(host)
    for entry in filter(None, (each.strip().lower() for each in no_proxy.split(","))):
        name, _, of_port = entry.rpartition(":") if re.search(r"[^:]:\d+$", entry) else (entry, "", "")
        if of_port and of_port != str(port):
            continue
        name = name.lstrip("*").lstrip(".")
        if not name or host == name or host.endswith(f".{name}"):
            return True
        if address is not None and _is_within(address, name):
            return True
    return False


def _is_within(address: ipaddress.IPv4Address | ipaddress.IPv6Address, network: str) -> bool:
    """Whether an address lies in a network such as 10.0.0.0/8."""
    try:
        return address in ipaddress.ip_network(network.strip().strip("[]"), strict=False)
    except ValueError:
        return False


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
