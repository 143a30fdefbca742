"""Why a server refuses: the sentence in an error's body, whatever its shape, also where the status says success."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Where servers put the sentence, the most telling first; "error" is most so where it is an object, and least as a text.
_SENTENCES = (
    "message",
    "detail",
    "errors",
    "msg",
    "reason",
    "status_msg",
    "base_resp",
    "error_msg",
    "error_description",
    "title",
    "error",
)
_CODES = ("code", "status", "type")
_STATUSES = ("code", "status", "status_code", "http_status")
_MAX_DEPTH = 6
# It stops where another one begins: a page of beginnings without an end would be read once for each of them.
_SCRIPT = re.compile(r"<(script|style)\b(?:[^<]|<(?!script|style|/\1>))*</\1>", re.IGNORECASE)
_MAX_LISTED = 3
_MAX_RAW = 20_000

# Words of a code or a sentence -> the status that they would have come with; the first that is found counts.
_STATUS_OF_WORDS = (
    (402, r"insufficient[ _](?:quota|credit|balance|fund)|payment[ _]required|out of credits"),
    (401, r"invalid[ _]api[ _]key|unauthori[sz]ed|unauthenticated|authentication[ _]error"),
    (403, r"permission[ _]denied|forbidden"),
    (404, r"model[ _]not[ _]found|not_found"),
    (429, r"rate[ _-]?limit|too[ _]many[ _]requests|resource[ _]exhausted|quota exceeded"),
    (503, r"overloaded|unavailable|loading|server[ _]error|internal|time[d ]*out|try again"),
)
_TOO_LONG = re.compile(
    r"context[ _]?(?:length|window|size)|n_ctx|max_(?:model|seq)_len|too long|"
    r"(?:prompt|input|text|sequence|message|content|request|payload|string)s? (?:is |are |was )?too (?:large|big)|"
    r"(?<!max_tokens is )(?<!max_completion_tokens is )too large|too many (?:input )?tokens|"
    r"maximum (?:allowed )?(?:number|length) of (?:input )?tokens|maximum (?:input|sequence|prompt|token) length|"
    r"(?:input|prompt) (?:length|token count|tokens?) [^.]{0,40}(?:exceed|longer|greater)|"
    r"tokens?[^.]{0,60}exceeds? the (?:max|limit|model)|exceeds?[^.]{0,30} (?:max|maximum|limit)[^.]{0,30} tokens|"
    r"reduce the (?:length|size|number)|must have less than \d+ tokens|longer than the (?:maximum|model)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reason:
    """What an error says.

    Attributes:
        message: its sentence; may be long, and may hold the key.
        code: the server's name for the error, such as ``insufficient_quota``; None if it gives none.
        param: the parameter that it is about; None if it names none.
    """

    message: str
    code: str | None = None
    param: str | None = None


def read_reason(body: Any) -> Reason:
    """Find the reason in an error's body.

    Args:
        body: parsed JSON of any shape, or a text, such as a page of HTML.

    >>> read_reason([{"error": {"code": 400, "message": "No such field.", "status": "INVALID_ARGUMENT"}}])
    Reason(message='No such field.', code='400', param=None)
    >>> read_reason({"detail": [{"loc": ["body", "dimensions"], "msg": "Extra inputs are not permitted"}]}).message
    'body.dimensions: Extra inputs are not permitted'
    >>> read_reason("<html><title>502</title><body><h1>Bad Gateway</h1></body></html>").message
    '502 Bad Gateway'
    """
    message = _sentence(body, 0) or "no reason given"
    inner = _innermost(body)
    code = next((str(inner[key]) for key in _CODES if _is_scalar(inner.get(key))), None)
    param = inner.get("param")
    return Reason(message, code, param if isinstance(param, str) else None)


def error_within(body: Any) -> tuple[int, Reason] | None:
    """Return the status that an answer with status 200 should have had, and the reason; None if it is no error.

    Args:
        body: the answer's JSON, parsed.

    >>> error_within({"choices": None, "error": {"message": "No credits.", "code": 402}})
    (402, Reason(message='No credits.', code='402', param=None))
    >>> error_within({"choices": [{"message": {"content": "Good."}}]}) is None
    True
    """
    error = _error_within(body)
    return None if error is None else (_status_of(error), read_reason(error))


def is_too_long(text: str) -> bool:
    """Whether an error's sentence or code says that a text is longer than the model takes.

    >>> is_too_long("This model's maximum context length is 8192 tokens."), is_too_long("Limit: 3 requests per minute.")
    (True, False)
    """
    return _TOO_LONG.search(text) is not None


def _error_within(body: Any) -> Any:
    """Return the error in an answer that came as a good one; None if there is none."""
    if isinstance(body, list):
        body = body[0] if body else None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    if isinstance(choices, list) and choices:
        choice = choices[0] if isinstance(choices[0], dict) else {}
        stopped = "the model stopped with an error" if choice.get("finish_reason") == "error" else None
        beside = body.get("error") if stopped or _is_blank(choice.get("message")) else None
        return choice.get("error") or beside or stopped
    if body.get("data") or body.get("object") in ("batch", "file", "list"):
        return None
    is_error = body.get("object") == "error" or any(body.get(name) for name in _SENTENCES)
    return body if is_error else None


def _is_blank(value: Any, depth: int = 0) -> bool:
    """Whether nothing is said in a message."""
    if isinstance(value, str):
        return not value.strip()
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, list):
        return all(_is_blank(each, depth + 1) for each in value)
    if isinstance(value, dict):
        return all(_is_blank(each, depth + 1) for name, each in value.items() if name not in ("role", "type"))
    return not value


def _sentence(value: Any, depth: int) -> str:
    """Return the first telling text of a value; empty if there is none."""
    if isinstance(value, str):
        return _text_of_page(value[:_MAX_RAW]) if "<" in value else value.strip()
    if depth > _MAX_DEPTH:
        return ""
    if isinstance(value, list):
        return "; ".join(filter(None, (_sentence(each, depth + 1) for each in value[:_MAX_LISTED])))
    if not isinstance(value, dict):
        return ""
    names = ("error", *_SENTENCES) if isinstance(value.get("error"), (dict, list)) else _SENTENCES
    found = next(filter(None, (_sentence(value.get(name), depth + 1) for name in names)), "")
    place = value.get("loc")
    if found and isinstance(place, list):
        return f"{'.'.join(str(each) for each in place[:_MAX_DEPTH] if _is_scalar(each))}: {found}"
    metadata = value.get("metadata")  # where a server that asks others puts their words
    raw = _sentence(_parsed(metadata["raw"]), depth + 1) if isinstance(metadata, dict) and metadata.get("raw") else ""
    return f"{found}: {raw}" if found and raw else found or (_shown(value) if depth == 0 else "")


def _shown(value: Any) -> str:
    """Show a body without a sentence as it is."""
    try:
        return json.dumps(value, ensure_ascii=False) if value else ""
    except RecursionError:
        return ""


def _parsed(text: Any) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return text


def _text_of_page(page: str) -> str:
    """Return the words of a page of HTML."""
    if not re.search(r"<(?:!doctype|html|head|body|title|h1|p)\b", page, re.IGNORECASE):
        return page.strip()
    bare = _SCRIPT.sub(" ", page)
    return " ".join(html.unescape(re.sub(r"<[^<>]*>", " ", bare)).split())


def _innermost(body: Any) -> Mapping[str, Any]:
    """Return the object that describes the error."""
    for _ in range(_MAX_DEPTH):
        if isinstance(body, list) and body:
            body = body[0]
        elif isinstance(body, dict) and isinstance(body.get("error"), (dict, list)) and body["error"]:
            body = body["error"]
    return body if isinstance(body, dict) else {}


def _status_of(error: Any) -> int:
    """Return the HTTP status that an error names, or that its words mean; 400 if they mean nothing."""
    inner = _innermost(error)
    for each in (inner, error if isinstance(error, dict) else {}):
        for key in _STATUSES:
            value = str(each.get(key))
            if re.fullmatch(r"[45]\d\d", value):
                return int(value)
    reason = read_reason(error)
    for text in (reason.code or "", reason.message[:_MAX_RAW]):
        for status, words in _STATUS_OF_WORDS:
            if re.search(words, text, re.IGNORECASE):
                return status
    return 400


def _is_scalar(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool) and value != ""
