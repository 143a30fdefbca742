"""Steps back from what a server refuses: one at a time, each once, and the prompt stays the same prompt."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from recbole_rlmrec.profile.answer import FORMAT_INSTRUCTION
from recbole_rlmrec.profile.dialect import Dialect, concerns_prompt
from recbole_rlmrec.profile.prompt import Prompt

PROMPT = Prompt("item", "i", "Say what it is.", "a map")


def refusal(status: int, body: Any) -> openai.APIStatusError:
    """Return the error that the client makes of an answer."""
    response: Any = SimpleNamespace(status_code=status, request=None, headers={})
    inner = body.get("error", body) if isinstance(body, dict) else body
    return openai.APIStatusError(f"Error code: {status} - {body}", response=response, body=inner)


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def after(*refusals: openai.APIStatusError) -> dict[str, Any]:
    """Return the request after some refusals, each of which has to be worth asking again."""
    dialect = Dialect("m", 0.0, 600)
    for each in refusals:
        assert dialect.adapts(dialect.request(PROMPT), each)
    return dialect.request(PROMPT)


def steps(status: int, body: Any) -> set[str]:
    """Return what one refusal changes of a request."""
    first, then = Dialect("m", 0.0, 600).request(PROMPT), after(refusal(status, body))
    changed = {key for key in first.keys() | then.keys() if first.get(key) != then.get(key)}
    # Without a schema, the form is asked for in words.
    return changed - {"messages"} if "response_format" in changed else changed


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"object": "error", "message": "System role not supported", "type": "BadRequestError", "code": 400}),
        (500, said("System role not supported", type="internal_server_error")),
        (400, said("Conversation roles must alternate user/assistant/user/assistant/...")),
        (500, {"detail": "jinja2.exceptions.TemplateError: System role not supported"}),
        (500, said("Error rendering prompt with jinja template: \"Only user and assistant roles are supported!\"")),
        (400, [{"error": {"code": 400, "message": "Developer instruction is not enabled for models/gemma-3-1b-it"}}]),
        (400, said("Invalid value: 'system'. Supported values are: 'assistant', 'user'.", param="messages[0].role")),
        (422, {"detail": [{"loc": ["body", "messages", 0, "role"], "msg": "Input should be 'user' or 'assistant'"}]}),
        (400, "This model does not support system messages."),
        (400, said("The first message must be of the role user.")),
        (400, {"error": "messages: Unexpected role \"system\". Only user, assistant are allowed."}),
    ],
)  # fmt: skip
def test_no_system_role(status: int, body: Any) -> None:
    assert steps(status, body) == {"messages"}
    assert after(refusal(status, body))["messages"] == [{"role": "user", "content": "Say what it is.\n\na map"}]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, said("invalid temperature: only 1 is allowed for this model", type="invalid_request_error")),
        (400, said("Unsupported value: 'temperature' does not support 0 with this model.", param="temperature")),
        (422, {"detail": [{"loc": ["body", "temperature"], "msg": "Input should be greater than 0", "input": 0}]}),
        (400, said("`temperature` may only be set to 1 when thinking is enabled.")),
        (500, {"error": "temperature has to be a strictly positive float, otherwise your scores will be invalid."}),
    ],
)
def test_no_such_temperature(status: int, body: Any) -> None:
    assert steps(status, body) == {"temperature"}
    assert "temperature" not in after(refusal(status, body))


@pytest.mark.parametrize(
    "body",
    [
        said("Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead."),
        said("Unrecognized request argument supplied: max_tokens"),
        {"detail": [{"loc": ["body", "max_tokens"], "msg": "Extra inputs are not permitted", "input": 600}]},
    ],
)
def test_another_name_of_the_longest_answer(body: Any) -> None:
    assert steps(400, body) == {"max_tokens", "max_completion_tokens"}
    assert after(refusal(400, body))["max_completion_tokens"] == 600


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, said("[{'type': 'literal_error', 'msg': \"Input should be 'text' or 'json_object'\"}]")),
        (400, {"error": "'response_format.type' must be 'text'"}),
        (400, [{"error": {"message": "Unknown name \"additionalProperties\" at 'generation_config.response_schema'"}}]),
        (400, said("This response_format type is unavailable now")),
        (422, {"detail": [{"loc": ["body", "response_format", "type"], "msg": "unexpected value", "input": {}}]}),
        (501, said("Structured outputs are not implemented.")),
        (500, said("Failed to parse grammar")),
        (400, said("'json_schema' is not a known type", param="response_format")),
    ],
)
def test_no_schema(status: int, body: Any) -> None:
    assert steps(status, body) == {"response_format"}
    once = after(refusal(status, body))
    assert once["response_format"] == {"type": "json_object"}
    assert once["messages"][0]["content"] == f"Say what it is.\n{FORMAT_INSTRUCTION}"


def test_all_steps_are_taken_one_by_one_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """What a request that was on its way meets, too, changes nothing more, and nothing is refused for ever."""
    dialect = Dialect("m", 0.0, 600)
    refusals = [
        refusal(400, said("System role not supported")),
        refusal(400, said("temperature: only 1 is allowed")),
        refusal(400, said("max_tokens is not supported")),
        refusal(400, said("response_format is not supported")),
        refusal(400, said("response_format is not supported")),
    ]
    with caplog.at_level(logging.WARNING):
        for each in refusals:
            on_its_way = dialect.request(PROMPT)
            assert dialect.adapts(on_its_way, each)
            after_it = dialect.request(PROMPT)
            assert dialect.adapts(on_its_way, each)
            assert dialect.request(PROMPT) == after_it
    assert len(caplog.records) == len(refusals)
    assert dialect.request(PROMPT) == {
        "model": "m",
        "messages": [{"role": "user", "content": f"Say what it is.\n{FORMAT_INSTRUCTION}\n\na map"}],
        "max_completion_tokens": 600,
    }
    assert not any(dialect.adapts(dialect.request(PROMPT), each) for each in refusals)
    roles = [message["role"] for message in dialect.request(PROMPT, invalid="no", problem="it is none")["messages"]]
    assert roles == ["user", "assistant", "user"]


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, said("Internal server error")),
        (500, said("CUDA out of memory")),
        (503, said("System role not supported")),
        (400, said("Internal system error")),
        (400, said("max_tokens must be at least 1000.", param="max_tokens")),
        (400, said("This model's maximum context length is 512 tokens; your system prompt is too long.")),
        (422, {"detail": [{"loc": ["body", "model"], "msg": "no such model", "input": {"temperature": 0.0}}]}),
    ],
)
def test_what_no_other_words_would_help(status: int, body: Any) -> None:
    dialect = Dialect("m", 0.0, 600)
    assert not dialect.adapts(dialect.request(PROMPT), refusal(status, body))


@pytest.mark.parametrize(
    ("message", "is_of_prompt"),
    [
        ("This model's maximum context length is 2048 tokens. However, you requested 2600 tokens.", True),
        ("The prompt was filtered: content management policy.", True),
        ("max_tokens is too large: 6000. This model supports at most 4096 completion tokens.", False),
        ("'max_tokens' is too large: 600. This model's maximum context length is 512 tokens.", True),
        ("No such parameter.", False),
    ],
)
def test_what_is_the_prompts_fault(message: str, is_of_prompt: bool) -> None:
    assert concerns_prompt(refusal(400, said(message))) is is_of_prompt
