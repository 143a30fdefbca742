"""What a language model has to answer, and the check of what it did answer.

Servers may ignore the schema that comes with a request without a word, so every answer is checked here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recbole_rlmrec.server.fields import token_count

#: The keys of the paper's prompts.
PROFILE_KEY = "summarization"
REASONING_KEY = "reasoning"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {PROFILE_KEY: {"type": "string"}, REASONING_KEY: {"type": "string"}},
    "required": [PROFILE_KEY, REASONING_KEY],
    "additionalProperties": False,
}
#: Said in words where a server takes no schema, and after an answer that did not keep to it.
FORMAT_INSTRUCTION = (
    f'Answer with one JSON object with the keys "{PROFILE_KEY}" and "{REASONING_KEY}", both texts, and nothing else.'
)

#: A profile of a few sentences is far shorter; a longer text is a model that went astray.
MAX_PROFILE_CHARACTERS = 4000
MAX_REASONING_CHARACTERS = 20_000

_HALF_PAIR = re.compile(r"[\ud800-\udfff]")
_DECODER = json.JSONDecoder(strict=False)  # weak models write line breaks within texts as they are


class InvalidAnswerError(Exception):
    """An answer is no profile; asking again may help."""


class RefusedError(Exception):
    """The model or its provider will not answer this prompt; asking again does not help."""


@dataclass(frozen=True)
class Answer:
    """A valid answer."""

    profile: str
    reasoning: str


@dataclass(frozen=True)
class Completion:
    """What a chat completion says.

    Attributes:
        text: the model's words; may be empty.
        finish_reason: why it stopped, such as ``stop``, ``length`` or ``content_filter``; empty if not said.
        refusal: its words of refusal; empty if there are none.
        input_tokens: the server's count of what was sent; None if it gives none.
        output_tokens: the server's count of what the model wrote; None if it gives none.
    """

    text: str
    finish_reason: str = ""
    refusal: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None


def read_completion(body: Any) -> Completion:
    """Take what is needed from a chat completion.

    Args:
        body: its JSON, parsed.

    Raises:
        InvalidAnswerError: it is none, such as a proxy's page.
    """
    choices = _mapping(body).get("choices")
    if not isinstance(choices, list) or not choices:
        raise InvalidAnswerError("the server's answer has no choices")
    choice = _mapping(choices[0])
    message, usage = _mapping(choice.get("message")), _mapping(_mapping(body).get("usage"))
    return Completion(
        text=_text(message.get("content")),
        finish_reason=_text(choice.get("finish_reason")),
        refusal=_text(message.get("refusal")),
        input_tokens=token_count(usage.get("prompt_tokens")),
        output_tokens=token_count(usage.get("completion_tokens")),
    )


def read_answer(completion: Completion) -> Answer:
    """Check a completion and return the answer in it.

    Markdown fences and words around the JSON object are passed over, as is a model's thinking before it.

    Raises:
        InvalidAnswerError: there is no such object, or a text in it is missing, empty or too long.
        RefusedError: the model refuses, or the provider's filter stopped it.

    >>> read_answer(Completion('Sure: {"summarization": "Likes crime films.", "reasoning": "Rated four."}')).profile
    'Likes crime films.'
    """
    if completion.refusal.strip():
        raise RefusedError(f"refused: {_short(completion.refusal)}")
    if completion.finish_reason == "content_filter":
        raise RefusedError("stopped by the provider's content filter")
    found = _first_object(completion.text)
    if found is None:
        if completion.finish_reason == "length":
            raise InvalidAnswerError("it was cut at max_tokens")
        raise InvalidAnswerError(f"it holds no JSON object: {_short(completion.text) or 'it is empty'}")
    profile, reasoning = found.get(PROFILE_KEY), found.get(REASONING_KEY, "")
    if not isinstance(profile, str) or not isinstance(reasoning, str):
        raise InvalidAnswerError(f"'{PROFILE_KEY}' and '{REASONING_KEY}' are not both texts")
    profile, reasoning = _clean(profile), _clean(reasoning)
    if not profile:
        raise InvalidAnswerError(f"'{PROFILE_KEY}' is empty")
    for key, text, most in (
        (PROFILE_KEY, profile, MAX_PROFILE_CHARACTERS),
        (REASONING_KEY, reasoning, MAX_REASONING_CHARACTERS),
    ):
        if len(text) > most:
            raise InvalidAnswerError(f"'{key}' has {len(text)} characters, more than {most}")
    return Answer(profile, reasoning)


def without_half_pairs(text: str) -> str:
    """Replace halves of surrogate pairs, which UTF-8 cannot hold."""
    return _HALF_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)


def _first_object(text: str) -> Mapping[str, Any] | None:
    """Return the first JSON object with a profile; the first one at all if none has it."""
    first: Mapping[str, Any] | None = None
    start = text.find("{")
    while start >= 0:
        try:
            found, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            if PROFILE_KEY in found:
                return found
            first = found if first is None else first
        start = text.find("{", end)
    return first


def _clean(text: str) -> str:
    return without_half_pairs(text).strip()


def _short(text: str, length: int = 80) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[:length] + "..."


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Return a text; some servers give it in parts."""
    if isinstance(value, list):
        return "".join(_text(_mapping(part).get("text")) for part in value)
    return value if isinstance(value, str) else ""
