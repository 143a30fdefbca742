"""How long a server that is busy asks to be left alone."""

from __future__ import annotations

import email.utils
import math
import re
import time
from collections.abc import Mapping

#: Seconds that are waited at most before one request is repeated.
MAX_WAIT = 60.0
#: A server that asks for a longer pause is not asked again: repeating the request would be in vain.
MAX_ASKED_WAIT = 300.0

_RESETS = ("x-ratelimit-reset-requests", "x-ratelimit-reset-tokens", "ratelimit-reset", "x-ratelimit-reset")
_IN_SENTENCE = re.compile(r"(?:try again|retry|retry ?delay)\D{0,20}?(\d+(?:\.\d+)?) ?(ms|s|m)", re.IGNORECASE)
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# A number of seconds this large is a moment since 1970, and one yet larger that moment in milliseconds.
_LEAST_MOMENT, _LEAST_MOMENT_IN_MS = 1e9, 1e12


def asked_wait(headers: Mapping[str, str], message: str) -> float | None:
    """Return the seconds that an error asks to wait; None if it says nothing that can be understood.

    Args:
        headers: of the answer; ``Retry-After`` counts before the headers of rate limits.
        message: the error's sentence.

    >>> asked_wait({"retry-after": "7"}, ""), asked_wait({}, "Please try again in 1.5s."), asked_wait({}, "No.")
    (7.0, 1.5, None)
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    given = headers.get("retry-after")
    if given is not None:
        seconds = _duration(given)
        return seconds if seconds is not None else _until_date(given)
    resets = [
        seconds
        for name in _RESETS
        if headers.get(name.replace("reset", "remaining"), "0").strip() in ("", "0")
        and (seconds := _duration(headers.get(name, ""))) is not None
    ]
    if "ratelimit" in headers:
        resets += [float(found[1]) for found in re.finditer(r"\b(?:t|reset)=(\d{1,9})\b", headers["ratelimit"])]
    if resets:
        return max(resets)
    found = _IN_SENTENCE.search(message)
    return float(found[1]) * _SECONDS[found[2].lower()] if found else None


def _number(text: str | None) -> float | None:
    """Return a number of 0 or more; None if it is none."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _duration(text: str) -> float | None:
    """Return the seconds of "30", "6m0s", "120ms" or a moment in seconds or milliseconds since 1970."""
    value = _number(text)
    if value is not None:
        if value >= _LEAST_MOMENT_IN_MS:
            value /= 1000
        return max(0.0, value - time.time()) if value >= _LEAST_MOMENT else value
    pieces = _PIECE.findall(text)
    if not pieces or _PIECE.sub("", text).strip():
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in pieces)


def _until_date(text: str) -> float | None:
    """Return the seconds until a date as HTTP writes it."""
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return max(0.0, moment - time.time())
