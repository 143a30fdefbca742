"""Reasons in the errors of public servers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from recbole_rlmrec.server.reason import error_within, is_too_long, read_reason

BODIES: dict[str, tuple[Any, str]] = {
    "openai": ({"error": {"message": "No such model.", "code": "model_not_found"}}, "No such model."),
    "gemini": ([{"error": {"code": 400, "message": "Cannot find field.", "status": "X"}}], "Cannot find field."),
    "text": ({"error": "'response_format.type' must be 'text'"}, "'response_format.type' must be 'text'"),
    "texts": ({"error": ["One.", "Two."]}, "One.; Two."),
    "fastapi": ({"detail": [{"loc": ["body", "n"], "msg": "field required", "type": "x"}]}, "body.n: field required"),
    "fastapi text": ({"detail": "Not Found"}, "Not Found"),
    "message": ({"object": "error", "message": "System role not supported", "code": 400}, "System role not supported"),
    "both": ({"statusCode": 400, "error": "Bad Request", "message": "n is no number"}, "n is no number"),
    "upstream": (
        {"error": {"message": "Provider returned error", "metadata": {"raw": '{"error": {"message": "Busy."}}'}}},
        "Provider returned error: Busy.",
    ),
    "minimax": ({"base_resp": {"status_code": 1004, "status_msg": "login fail"}}, "login fail"),
    "page": ("<!doctype html><style>p {}</style><body><p>502 Bad&nbsp;Gateway</body>", "502 Bad Gateway"),
    "oauth": ({"error": "invalid_request", "error_description": "The token has expired."}, "The token has expired."),
    "plain": ("upstream connect error", "upstream connect error"),
    "unknown": ({"oops": 1}, '{"oops": 1}'),
    "nothing": ("", "no reason given"),
    "null": (None, "no reason given"),
    "empty": ({"error": {"message": None}}, '{"error": {"message": null}}'),
}


@pytest.mark.parametrize(("body", "message"), BODIES.values(), ids=BODIES)
def test_the_sentence_is_found(body: Any, message: str) -> None:
    assert read_reason(body).message == message


def test_code_and_parameter() -> None:
    reason = read_reason({"error": {"message": "No.", "code": 402, "param": "temperature", "type": "x"}})
    assert (reason.code, reason.param) == ("402", "temperature")
    reason = read_reason({"error": {"message": "No.", "code": [1], "param": {}, "type": "billing"}})
    assert (reason.code, reason.param) == ("billing", None)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "x", "code": 402}}, 402),
        ({"error": {"message": "x", "code": "429"}}, 429),
        ({"choices": None, "error": {"message": "Rate limit exceeded"}}, 429),
        ({"error": {"message": "x", "code": "insufficient_quota"}}, 402),
        ({"error": "The model is overloaded, try again."}, 503),
        ({"error": "no json_schema here"}, 400),
        ({"object": "error", "message": "x", "code": 404}, 404),
        ({"choices": [{"finish_reason": "error", "error": {"code": 502, "message": "x"}}]}, 502),
        ({"choices": [{"finish_reason": "error", "message": {}}]}, 400),
        ([{"error": {"code": 403, "message": "x"}}], 403),
        ({"choices": [{"message": {"role": "assistant", "content": " "}}], "error": {"code": 429}}, 429),
        ({"choices": [{"message": {"content": [{"type": "text", "text": ""}]}}], "error": "Payment required"}, 402),
        ({"choices": [{"finish_reason": "stop"}], "error": "x"}, 400),
        ({"choices": [{"message": {"content": "", "reasoning_content": "x"}}], "error": {"code": 429}}, None),
        ({"choices": [{"message": {"content": ""}}], "error": {}}, None),
        ({"choices": [{"message": {"content": "x"}}], "error": {"code": 0}}, None),
        ({"choices": [{"message": {"content": "x"}}], "error": None}, None),
        ({"data": [1], "error": ""}, None),
        ({"id": "b", "object": "batch", "errors": {"data": [1]}}, None),
        ({"answer": 42}, None),
        (["x"], None),
        ("a page", None),
    ],
)
def test_errors_in_answers_of_status_200(body: Any, status: int | None) -> None:
    found = error_within(body)
    assert (found and found[0]) == status


@pytest.mark.parametrize(
    "text",
    [
        "This model's maximum context length is 4097 tokens.",
        "context_length_exceeded",
        "the request exceeds the available context size",
        "input length exceeds maximum context length",
        "prompt is too long: 210000 tokens > 200000 maximum",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
        "`inputs` must have less than 512 tokens. Given: 600",
        "Requested tokens exceed context window of 2048",
        "Please reduce the length of the messages.",
        "Request too large for gpt-4o",
        "Prompt length exceeds max_model_len",
    ],
)
def test_too_long_in_many_wordings(text: str) -> None:
    assert is_too_long(text)


@pytest.mark.parametrize(
    "text", ["Rate limit reached for tokens per minute.", "max_tokens is too large: 5000", "response_format", "timeout"]
)
def test_what_is_not_too_long(text: str) -> None:
    assert not is_too_long(text)


def test_a_deep_body_has_a_reason() -> None:
    nested: Any = "deep"
    for _ in range(500):
        nested = {"error": [nested]}
    assert len(read_reason(nested).message) > 0


@pytest.mark.parametrize("start", ["<", "<script", "<style>", "<!--", "</script"])
def test_the_work_on_a_page_is_linear(start: str) -> None:
    begin = time.process_time()
    read_reason("<html>" + start * 20_000)
    assert time.process_time() - begin < 1
