"""Where the answer stands in what a model wrote: after its thinking, as a JSON object among other text.

The text comes from a server and may be anything, so all work here is linear in its length and nothing recurses.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

_THOUGHT = r"(?:think|thinking|thoughts?|reason|reasoning|reflection|analysis|scratchpad)"
# Some models put a name before or after: <seed:think>, <longcat_think>, <think_fast>.
_TAG = rf"(?:\w{{1,20}}[:_])?{_THOUGHT}(?:_\w{{1,20}})?"
# How models mark where their thinking ends. An opening mark may be missing: many servers put it into the prompt.
_ENDS = (
    rf"(?i:</\s?{_TAG}\s?>)",  # DeepSeek, Qwen, GLM and most others; Seed-OSS
    r"\[/THINK(?:ING)?\]",  # Magistral
    rf"(?i:<\|(?:end_of_|end_|/){_THOUGHT}\|>|<\|{_THOUGHT}_end\|>)",  # Sky-T1, OpenThinker, Command A
    rf"◁/{_THOUGHT}▷",  # Kimi
    r"<channel\|>",  # Gemma
    r"<\|channel\|>\s?final\b[^<]{0,40}(?:<\|constrain\|>[^<]{0,40})?<\|message\|>",  # gpt-oss
    r"assistantfinal",  # the same where a server drops the special tokens
    r"\[BEGIN FINAL RESPONSE\]",  # Apriel
    r"Here is my response:",  # Granite
)
_BEGINNINGS = (
    rf"(?i:<{_TAG}(?:\s[^<>]{{0,80}}[^<>/])?\s?>)",
    r"\[THINK(?:ING)?\]",
    rf"(?i:<\|(?:begin_of_|begin_|start_of_|start_)?{_THOUGHT}(?:_start|_begin)?\|>)",
    rf"◁{_THOUGHT}▷",
    r"<\|channel>",
    r"<\|channel\|>",  # any other than the final one: analysis, commentary
    r"assistant(?:analysis|commentary)",
    r"\A\s{0,20}analysis(?=[A-Z])",
    r"\A\s{0,20}Here (?:is my thought process|are my reasoning steps):",
)
_MARK = re.compile(f"(?P<end>{'|'.join(_ENDS)})|{'|'.join(_BEGINNINGS)}")

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
# Looking for the first key as well leaves out, without any work, braces that begin no object.
_OBJECT_START = re.compile(rf"\{{(?=\s*{_STRING}\s*:)", re.DOTALL)
_TOKEN = re.compile(
    rf"\s*({_STRING}|[{{}}\[\],:]|-?\d[\d.eE+-]*|true|false|null|NaN|-?Infinity)",
    re.DOTALL,  # weak models write line breaks within texts as they are
)
# Some models write the object as a JSON text, alone or in a list, perhaps in a code fence.
_QUOTED_OBJECT = re.compile(rf"(?:```\w{{0,10}}\s*)?(?:\[\s*)?({_STRING})(?:\s*\])?(?:\s*```)?", re.DOTALL)


class NothingButThinkingError(Exception):
    """A text ends inside the model's thinking or with it, so there is no answer in it."""


@dataclass(frozen=True)
class FoundObject:
    """A complete JSON object within a text.

    Attributes:
        start: of its first brace.
        end: behind its last brace.
        values: those of the keys that were looked for, by the key that was looked for, as they are written; None for
            what is no text.
    """

    start: int
    end: int
    values: dict[str, str | None]

    def text_of(self, key: str) -> str | None:
        """Return a key's text; None where it is missing or no text."""
        return _text(self.values.get(key))


def objects_of_answer(text: str, keys: Collection[str]) -> list[FoundObject]:
    """Return the JSON objects of an answer: those after the last end of thinking, or all where nobody thinks.

    What looks like the end or the beginning of thinking within an object is part of the object. Objects in lists, in
    code fences, in other objects and among other text are found; an object that is written as a JSON text is one, too.
    A comma after the last member is passed over. Keys may have escapes, capitals, and blanks around them; of one that
    stands in an object twice, the last counts.

    Args:
        text: what the model wrote.
        keys: what to keep of the objects, in small letters.

    Returns:
        The objects, in the order in which they end.

    Raises:
        NothingButThinkingError: the text ends inside thinking or with it.

    >>> found = objects_of_answer('<think>Perhaps {"a": "b"}?</think> So: {"a": "c"}', ["a"])
    >>> [each.text_of("a") for each in found]
    ['c']
    """
    found = sorted(_objects(text, keys), key=lambda each: each.end)
    start = _answer_start(text, found)
    in_answer = [each for each in found if each.start >= start]
    if not in_answer:
        quoted = _QUOTED_OBJECT.fullmatch(text[start:].strip())
        return sorted(_objects(_text(quoted[1]) or "", keys), key=lambda each: each.end) if quoted else []
    return in_answer


def _answer_start(text: str, found: list[FoundObject]) -> int:
    """Return where the thinking ends: behind its last mark that stands in no object; 0 without one.

    Raises:
        NothingButThinkingError: nothing follows.
    """
    start, is_thinking = 0, False
    outermost = _outermost(found)
    around = next(outermost, None)
    for mark in _MARK.finditer(text):
        while around is not None and around.end <= mark.start():
            around = next(outermost, None)
        if around is None or mark.start() < around.start:
            start, is_thinking = mark.end(), mark["end"] is None
    if is_thinking or (start and not text[start:].strip()):
        raise NothingButThinkingError
    return start


def _outermost(found: list[FoundObject]) -> Iterator[FoundObject]:
    """Yield the objects that are in no other one, in their order."""
    end = 0
    for each in sorted(found, key=lambda each: (each.start, -each.end)):
        if each.start >= end:
            end = each.end
            yield each


def _objects(text: str, keys: Collection[str]) -> Iterator[FoundObject]:
    """Yield every complete object of a text.

    Each brace that may begin an object is tried, but none that an earlier attempt has read as one already: it would
    come to the same end. What is left are braces that the attempt took for parts of texts, and of two attempts that
    disagree on where texts begin each takes for text what the other takes for structure; so no place is read by more
    than two, and the work is linear.
    """
    read: set[int] = set()
    end = 0
    for brace in _OBJECT_START.finditer(text):
        start = brace.start()
        if start >= end and start not in read:
            found, is_whole = _read(text, start, keys, read)
            yield from found
            end = found[-1].end if is_whole else end


# What may come next, as first characters of tokens; "v" stands for numbers, true, false and null.
_KEY, _COLON, _VALUE, _VALUE_OR_END = '"}', ":", '"{[v', '"{[v]'
_KIND = {**{mark: mark for mark in '"{}[],:'}, **dict.fromkeys("-0123456789tfnNI", "v")}
_LIST = -1


def _read(text: str, start: int, keys: Collection[str], read: set[int]) -> tuple[list[FoundObject], bool]:
    """Read a JSON object from its brace on, as far as it is one.

    Args:
        text: the text.
        start: of the brace.
        keys: what to keep of objects.
        read: gets the places of all braces that were read as beginnings of objects.

    Returns:
        The objects that are complete, and whether the one at ``start`` is, which is then the last.
    """
    found: list[FoundObject] = []
    read.add(start)
    open_ones = [start]  # the places of objects that have not ended; _LIST for lists
    last_keys = [""]  # of those
    kept: dict[int, dict[str, str | None]] = {}  # by the objects' places, where there is something to keep
    position, expected = start + 1, _KEY
    while (match := _TOKEN.match(text, position)) is not None:
        token, position = match[1], match.end()
        kind = _KIND[token[0]]
        if kind not in expected:
            break
        if kind in "}]":
            place = open_ones.pop()
            last_keys.pop()
            if place != _LIST:
                found.append(FoundObject(place, position, kept.pop(place, {})))
            if not open_ones:
                return found, True
            expected = ",]" if open_ones[-1] == _LIST else ",}"
        elif kind == ",":
            expected = _VALUE_OR_END if open_ones[-1] == _LIST else _KEY
        elif kind == ":":
            expected = _VALUE
        elif expected == _KEY:
            last_keys[-1] = _plain_key(token)
            expected = _COLON
        else:
            if last_keys[-1] in keys:
                kept.setdefault(open_ones[-1], {})[last_keys[-1]] = token if kind == '"' else None
            if kind in "{[":
                place = match.start(1) if kind == "{" else _LIST
                read.add(place)
                open_ones.append(place)
                last_keys.append("")
                expected = _KEY if kind == "{" else _VALUE_OR_END
            else:
                expected = ",]" if open_ones[-1] == _LIST else ",}"
    return found, False


def _plain_key(token: str) -> str:
    """Return a key without what models vary in it: escapes, capitals, blanks around it."""
    return (_text(token) or "").strip().casefold()


_DECODER = json.JSONDecoder(strict=False)


def _text(token: str | None) -> str | None:
    """Return what a JSON text says; None where it is none, such as for an unknown escape."""
    try:
        value: Any = None if token is None else _DECODER.decode(token)
    except ValueError:
        return None
    return value if isinstance(value, str) else None
