"""What a language model has to answer, and the check of what it did answer.

Servers may ignore the schema that comes with a request without a word, so every answer is checked here. Models that
think first may write drafts of the JSON object, or quote what is asked for, before the answer; see
:func:`objects_of_answer` for what counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from recbole_rlmrec.profile.answer_text import FoundObject, NothingButThinkingError, objects_of_answer
from recbole_rlmrec.profile.prompt import is_of_instruction
from recbole_rlmrec.server.fields import token_count
from recbole_rlmrec.server.reason import read_reason
from recbole_rlmrec.server.secret import HIDDEN
from recbole_rlmrec.wording import printable, without_control_characters, without_half_pairs

#: The keys of the paper's prompts.
PROFILE_KEY = "summarization"
REASONING_KEY = "reasoning"

# Servers that keep to a schema let the model write the keys in this order: it thinks first, as the prompt asks.
_KEYS = (REASONING_KEY, PROFILE_KEY)

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {key: {"type": "string"} for key in _KEYS},
    "required": list(_KEYS),
    "additionalProperties": False,
}
#: Said in words where a server takes no schema, and after an answer that did not keep to it.
FORMAT_INSTRUCTION = (
    f'Answer with one JSON object with the keys "{_KEYS[0]}" and "{_KEYS[1]}", in this order, both texts, and nothing '
    "else."
)

#: A profile of a few sentences is far shorter; a longer text is a model that went astray.
MAX_PROFILE_CHARACTERS = 4000
MAX_REASONING_CHARACTERS = 20_000
#: Of all that a model writes, its thinking included.
MAX_ANSWER_CHARACTERS = 1_000_000

# "<your summary>", "[profile]", "{{ summary }}"; "the summary", "Insert your profile here".
_PLACEHOLDER = re.compile(
    r"<[^<>]{0,200}>|\[[^\[\]]{0,200}\]|\{{1,3}[^{}]{0,200}\}{1,3}|(?:(?:insert|write|add|put) )?(?:(?:the|your|a) )?"
    rf"(?:{PROFILE_KEY}|{REASONING_KEY}|summary|profile|text|string|str|placeholder|todo|tbd)(?: (?:goes )?here)?",
    re.IGNORECASE,
)
# What may follow an object that ends a text: fences, a list's bracket, a mark of the end.
_END = re.compile(r"(?:[\s`\]\".]|<[^<>]{1,30}>)*")
# Where servers put a model's thinking.
_REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking")
_BEGINS_OBJECT = re.compile(rf'\{{\s*"\s*(?:{PROFILE_KEY}|{REASONING_KEY})\s*"', re.IGNORECASE)


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
        reasoning: its thinking, where the server gives it apart; may be empty.
        finish_reason: why it stopped, such as ``stop``, ``length`` or ``content_filter``; empty if not said.
        refusal: its words of refusal; empty if there are none.
        input_tokens: the server's count of what was sent; None if it gives none.
        output_tokens: the server's count of what the model wrote; None if it gives none.
    """

    text: str
    reasoning: str = ""
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
    if isinstance(body, str) and body.strip():
        raise InvalidAnswerError(f"the server's answer is no JSON: {_short(read_reason(body).message)}")
    choices = _mapping(body).get("choices")
    if not isinstance(choices, list) or not choices:
        raise InvalidAnswerError("the server's answer has no choices")
    choice = _mapping(choices[0])
    message, usage = _mapping(choice.get("message")), _mapping(_mapping(body).get("usage"))
    return Completion(
        text=_text(message.get("content")) or _called_with(message),
        reasoning=next(filter(None, (_text(message.get(key)) for key in _REASONING_FIELDS)), ""),
        finish_reason=_text(choice.get("finish_reason")),
        refusal=_text(message.get("refusal")),
        input_tokens=token_count(usage.get("prompt_tokens")),
        output_tokens=token_count(usage.get("completion_tokens")),
    )


def read_answer(completion: Completion) -> Answer:
    """Check a completion and return the answer in it.

    The answer is what comes after the model's thinking, and of several JSON objects there the last one with both texts
    that is no placeholder, such as the form of the answer that a model repeats; see :func:`objects_of_answer`. Where
    the server calls everything reasoning, that is read, and the object must be its end: another one may be a draft.

    Raises:
        InvalidAnswerError: there is no such object, or a text in it is missing, empty, a placeholder or too long.
        RefusedError: the model refuses, or the provider's filter stopped it.

    >>> read_answer(Completion('Sure: {"summarization": "Likes crime films.", "reasoning": "Rated four."}')).profile
    'Likes crime films.'
    """
    if completion.refusal.strip():
        raise RefusedError(f"refused: {_short(completion.refusal)}")
    if completion.finish_reason == "content_filter":
        raise RefusedError("stopped by the provider's content filter")
    found = _found_object(completion)
    profile, reasoning = found.text_of(PROFILE_KEY), found.text_of(REASONING_KEY)
    if REASONING_KEY not in found.values:
        reasoning = ""
    if profile is None or reasoning is None:
        raise InvalidAnswerError(f"'{PROFILE_KEY}' and '{REASONING_KEY}' are not both texts")
    profile, reasoning = _clean(profile), _clean(reasoning)
    if not profile:
        raise InvalidAnswerError(f"'{PROFILE_KEY}' is empty")
    if _is_placeholder(profile) and HIDDEN not in profile:  # who knows the server's key says what is wrong with that
        raise InvalidAnswerError(f"'{PROFILE_KEY}' is a placeholder: {_short(profile)}")
    for key, text, most in (
        (PROFILE_KEY, profile, MAX_PROFILE_CHARACTERS),
        (REASONING_KEY, reasoning, MAX_REASONING_CHARACTERS),
    ):
        if len(text) > most:
            raise InvalidAnswerError(f"'{key}' has {len(text)} characters, more than {most}")
    return Answer(profile, reasoning)


def _found_object(completion: Completion) -> FoundObject:
    """Return the object that is the answer, to be checked.

    Raises:
        InvalidAnswerError: there is none.
    """
    is_cut = completion.finish_reason == "length"
    is_apart = not completion.text.strip() and bool(completion.reasoning.strip())
    text = completion.reasoning if is_apart else completion.text
    where = "it is empty, and what the server gives as reasoning" if is_apart else "it"
    if len(text) > MAX_ANSWER_CHARACTERS:
        raise InvalidAnswerError(f"{where} has {len(text)} characters, more than {MAX_ANSWER_CHARACTERS}")
    if is_apart and is_cut:
        raise InvalidAnswerError(f"{where} was cut at max_tokens")
    try:
        objects = objects_of_answer(text, _KEYS)
    except NothingButThinkingError:
        cut = "was cut at max_tokens" if is_cut else "ends"
        raise InvalidAnswerError(f"{where} {cut} before the model's thinking came to an answer") from None
    found = next((one for one in reversed(objects) if _is_answer(one, _KEYS)), None)
    found = found or next((one for one in reversed(objects) if _is_answer(one, (PROFILE_KEY,))), None)
    if is_apart and found is not None and not _END.fullmatch(text, found.end):
        raise InvalidAnswerError(f"{where} goes on after its last JSON object, which may be a draft")
    if is_cut and (found is None or _BEGINS_OBJECT.search(text, found.end)):
        raise InvalidAnswerError(f"{where} was cut at max_tokens")
    if found is None and not objects:
        raise InvalidAnswerError(f"{where} holds no JSON object: {_short(text) or 'it is empty'}")
    return found or next((one for one in reversed(objects) if PROFILE_KEY in one.values), objects[-1])


def _is_answer(found: FoundObject, keys: Iterable[str]) -> bool:
    """Whether an object has these texts, none of them a placeholder, and nothing but a text as its reasoning."""
    texts = [found.text_of(key) for key in keys]
    is_reasoned = REASONING_KEY not in found.values or found.text_of(REASONING_KEY) is not None
    return is_reasoned and all(text is not None and not _is_placeholder(text) for text in texts)


def _is_placeholder(text: str) -> bool:
    """Whether a text only holds the place of one: dots, "<summary>", the key's name, words of the instruction, nothing.

    >>> _is_placeholder("..."), _is_placeholder("<your summary>"), _is_placeholder("Likes <b>bold</b> films.")
    (True, True, False)
    """
    words = text.strip().strip("\"'`*")
    return (
        not any(map(str.isalnum, words))
        or _PLACEHOLDER.fullmatch(words.rstrip(".…")) is not None
        or is_of_instruction(words)
    )


def _clean(text: str) -> str:
    return without_control_characters(without_half_pairs(text)).strip()


def _short(text: str, length: int = 80) -> str:
    line = printable(" ".join(text.split()))
    return line if len(line) <= length else line[:length] + "..."


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    """Return a text; some servers give it in parts, of which some may be thinking."""
    if isinstance(value, list):
        return "".join(_part_text(part) for part in value)
    return value if isinstance(value, str) else ""


def _part_text(part: Any) -> str:
    text = part if isinstance(part, str) else _mapping(part).get("text")
    is_said = isinstance(part, str) or _mapping(part).get("type", "text") in ("text", "output_text")
    return text if is_said and isinstance(text, str) else ""


def _called_with(message: Mapping[str, Any]) -> str:
    """Return the arguments of the function that the model calls: some servers make one of the schema."""
    calls = message.get("tool_calls")
    call = calls[0] if isinstance(calls, list) and calls else None
    return _text(_mapping(_mapping(call).get("function")).get("arguments"))
