"""Python's literals as JSON, by a few passes over their text: what a parser of Python takes many times as long for.

Only what means the same in both languages is taken: dictionaries with keys of text, lists, text, numbers of bounded
length, ``True``, ``False`` and ``None``. For all else there is ``ast.literal_eval``.
"""

from __future__ import annotations

import re
from functools import lru_cache

#: Brackets of a text, and so at most its levels: Python's parser has a bound as well.
_MOST_BRACKETS = 64
#: Characters between two texts that are likely to come again.
_SHORT = 40

# What is JSON but for its quotation marks, and then a text that is not. No quantifier gives back what it took, and a
# text without an end takes all that is left: no character is looked at more than twice.
_PARTS = re.compile(
    r"""((?:[^'"\\]++|'[^'"\\]*+')*+)"""
    r"""('[^'\\]*+(?:\\[\s\S][^'\\]*+)*+'|"[^"\\]*+(?:\\[\s\S][^"\\]*+)*+"|['"\\][\s\S]*+|\Z)"""
)
#: JSON parsers differ in what they make of numbers of more digits.
_BETWEEN = re.compile(
    r"(?:[\[\]{}:, ]++|True|False|None|-?[0-9]{1,18}+(?:\.[0-9]{1,18}+)?+(?:[eE][-+]?[0-9]{1,3}+)?+)*+u?"
)
#: Half an escape, or one that JSON has not or reads otherwise: halves of surrogate pairs are two characters in Python.
_OTHER_ESCAPE = re.compile(r"""\\(?!['"nrtbf]|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})""")
_CODE = re.compile(r"\\x([0-9a-fA-F]{2})")


def json_of_literal(text: str) -> str | None:
    r"""Return JSON of the value of a Python literal; None where it has something that JSON has not, or may be none.

    What is returned need not be valid JSON; where it is, its value is the literal's.

    Args:
        text: the literal, without white space around it.

    >>> json_of_literal("{'asin': '0001', u'title': \"It's\", 'new': True, 'price': 1.50}")
    '{"asin": "0001", "title": "It\'s", "new": true, "price": 1.50}'
    >>> json_of_literal("('a',)"), json_of_literal("a + b")
    (None, None)
    """
    if text.count("[") + text.count("{") > _MOST_BRACKETS or not _is_unicode(text):
        return None
    found = _PARTS.findall(text) if '"' in text or "\\" in text else [(text, "")]
    pieces = []
    for plain, other in found:
        parts = plain.split("'")  # each quotation mark begins or ends a text
        if len(parts) % 2 == 0 or (not other and plain.endswith("u")):
            return None
        parts[::2] = [_short_between(part) if len(part) < _SHORT else _between(part) for part in parts[::2]]
        pieces += ['"'.join(parts), _json_of_text(other) if other else ""]
    as_json = "".join(pieces)
    return None if _NONE in as_json else as_json


def _is_unicode(text: str) -> bool:
    """Return whether a text has no half of a surrogate pair, which no source of Python has."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


#: Stands for what is not taken: no JSON has this character.
_NONE = "\x00"


def _between(part: str) -> str:
    """Return the JSON of what stands between texts, without the ``u`` that Python allows before one."""
    if not _BETWEEN.fullmatch(part):
        return _NONE
    return part.removesuffix("u").replace("True", "true").replace("False", "false").replace("None", "null")


_short_between = lru_cache(4096)(_between)


def _json_of_text(text: str) -> str:
    """Return the JSON of a text in its quotation marks."""
    if len(text) < 2 or text[0] != text[-1] or text[0] == "\\":
        return _NONE
    body = text[1:-1]
    if "\\" in body:
        # Apart from what stands between them, two backslashes are one in both languages.
        parts = body.split("\\\\")
        if any(map(_OTHER_ESCAPE.search, parts)):
            return _NONE
        if "\\x" in body:
            parts = [_CODE.sub(r"\\u00\1", part) for part in parts]
        if text[0] == "'":
            parts = [part.replace("\\'", "'").replace('\\"', '"').replace('"', '\\"') for part in parts]
        elif "\\'" in body:
            parts = [part.replace("\\'", "'") for part in parts]
        body = "\\\\".join(parts)
    elif text[0] == "'" and '"' in body:
        body = body.replace('"', '\\"')
    return f'"{body}"'
