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
_IN_SENTENCE = re.compile(
    r"(?:try again|retry|retry ?delay)\D{0,20}?((?:\d{1,15}(?:\.\d{1,15})? ?[a-z]{1,20}[, ]{0,2}(?:and )?)+)",
    re.IGNORECASE,
)
_PART_OF_SENTENCE = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)")
_PIECE = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
# As sentences have them; a plural is looked up without its "s".
_WORDS = {
    **_SECONDS,
    **dict.fromkeys(("msec", "millisecond"), 0.001),
    **dict.fromkeys(("sec", "second"), 1.0),
    **dict.fromkeys(("min", "minute"), 60.0),
    **dict.fromkeys(("hr", "hour"), 3600.0),
    "day": 86400.0,
}
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
    return _in_sentence(message)


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


def _in_sentence(message: str) -> float | None:
    """Return the seconds of "try again in 1m30s" or "retry after 20 minutes", the first that can be understood."""
    for found in _IN_SENTENCE.finditer(message):
        parts = _PART_OF_SENTENCE.findall(found[1].lower())
        units = [_WORDS.get(word, _WORDS.get(word.removesuffix("s"))) for _, word in parts]
        known = [float(number) * unit for (number, _), unit in zip(parts, units) if unit is not None]
        if known and len(known) == len(parts):
            return sum(known)
    return None


def _until_date(text: str) -> float | None:
    """Return the seconds until a date as HTTP writes it."""
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError, OSError):
        return None
    return max(0.0, moment - time.time())
