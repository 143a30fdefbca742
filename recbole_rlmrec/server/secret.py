"""The key of a server, and how it is taken out of what the server says."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from recbole_rlmrec.wording import printable

#: Stands where the key stood.
HIDDEN = "[key]"

# What looks like a key though it is not ours, such as the shortened one in OpenAI's answer to a wrong key.
_KEY_LIKE = re.compile(r"\bsk-[\w*.-]{4,}|(?<=Bearer )\S+")
# A shorter key is nobody's secret, and part of every sentence.
_MIN_SHOWN = 4
# Local servers take any key, and people set words such as "none" or "ollama", which a profile may well hold.
_MIN_SECRET, _MIN_SECRET_WORD = 8, 16
# So many characters of either end are as good as a key that somebody cut; a shorter key has no parts.
_MIN_WITH_PARTS, _MAX_PART = 16, 12
# What follows a part, or comes before it, when a server shortens a key.
_REST = r"[\w*.…-]*"
# Characters of a text that are looked at to show it; messages show some hundreds.
_MAX_SHOWN = 20_000
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
# An answer has few levels; more of them are an attack on what reads it.
_MAX_DEPTH = 64


class Secret:
    """A key that must not be stored or shown.

    Args:
        key: the key; empty for none.
    """

    def __init__(self, key: str) -> None:
        self._key = key

    def scrub(self, text: str) -> str:
        """Return a text without the key, without parts of it, and without anything that looks like a key.

        Also a key in base64, or in the escapes of JSON, HTML and addresses, is found. A text is scrubbed before it is
        cut: a cut would leave a part that nobody recognises.
        """
        if len(self._key) >= _MIN_SHOWN:
            text = _without(self._key, text)
        return _KEY_LIKE.sub(HIDDEN, text)

    def shown(self, text: str) -> str:
        """Return what a server said on one line, without the key and what a terminal would take for orders."""
        scrubbed = printable(self.scrub(" ".join(_CONTROL.sub("", text[:_MAX_SHOWN]).split())))
        # The last word of a text that was cut may be a part of the key.
        return scrubbed if len(text) <= _MAX_SHOWN else scrubbed.rpartition(" ")[0]

    def scrub_answer(self, value: Any) -> Any:
        """Return an answer's parsed JSON with ``HIDDEN`` wherever a text has the key.

        Raises:
            ValueError: it is nested deeper than any answer is.
        """
        return self._scrubbed(value, 0)

    def is_in(self, text: str) -> bool:
        """Whether a text of a scrubbed answer had the key, or has it in a form that only now can be seen."""
        return HIDDEN in text or (self._is_secret and _without(self._key, text) != text)

    @property
    def _is_secret(self) -> bool:
        return len(self._key) >= (_MIN_SECRET_WORD if self._key.isalpha() else _MIN_SECRET)

    def _scrubbed(self, value: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            raise ValueError(f"an answer is nested deeper than {_MAX_DEPTH} levels")
        if isinstance(value, dict):
            return {name: self._scrubbed(each, depth + 1) for name, each in value.items()}
        if isinstance(value, list):
            return [self._scrubbed(each, depth + 1) for each in value]
        return _without(self._key, value) if isinstance(value, str) and self._is_secret else value


def _without(key: str, text: str) -> str:
    plain, escaped = _patterns(key)
    text = plain.sub(HIDDEN, text)
    return escaped.sub(HIDDEN, text) if any(mark in text for mark in "\\%&") else text


@lru_cache(maxsize=8)
def _patterns(key: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return what finds a key as it is or in base64, and what finds it in escapes."""
    forms = [key, quote(key, safe=""), *_in_base64(key)]
    parts = [re.escape(form) for form in sorted(set(forms), key=len, reverse=True)]
    if len(key) >= _MIN_WITH_PARTS:
        size = min(_MAX_PART, len(key) // 2)
        parts += [re.escape(key[:size]) + _REST, _REST + re.escape(key[-size:])]
    return re.compile("|".join(parts), re.IGNORECASE), re.compile("".join(map(_in_escapes, key)), re.IGNORECASE)


def _in_base64(key: str) -> Iterator[str]:
    """Yield what is seen of the key in base64, wherever in the encoded text it begins."""
    for before in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            encoded = encode(b"\0" * before + key.encode("utf-8")).decode("ascii")
            # The characters at both ends hold bits of what stands around the key.
            whole = encoded[-(-before * 8 // 6) : (before + len(key.encode("utf-8"))) * 8 // 6]
            if len(whole) >= _MIN_SECRET:
                yield whole


def _in_escapes(character: str) -> str:
    """Return a pattern for a character as JSON, HTML or an address may write it."""
    code, named = ord(character), re.escape(html.escape(character))
    numbers = rf"%{code:02x}|\\+u{code:04x}|\\+x{code:02x}|&#0*{code};|&#x0*{code:x};"
    return rf"(?:{named}|{numbers}|\\*{re.escape(character)})"
