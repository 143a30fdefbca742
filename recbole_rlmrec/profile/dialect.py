"""How a server wants to be asked: not all that speak OpenAI's API know all of its parameters."""

from __future__ import annotations

import logging
from typing import Any

from recbole_rlmrec.profile.answer import FORMAT_INSTRUCTION, SCHEMA, without_half_pairs
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.server.reason import is_too_long

_RESPONSE_FORMATS: dict[str, dict[str, Any]] = {
    "json_schema": {
        "type": "json_schema",
        "json_schema": {"name": "profile", "strict": True, "schema": SCHEMA},
    },
    "json_object": {"type": "json_object"},
    "none": {},
}
_MAX_SHOWN_ANSWER = 4000
# These say something of the key, the account or the model, whatever their words.
_NOT_OF_LENGTH = (401, 402, 404)
_FILTERED = ("content_filter", "content filter", "content management policy", "content policy", "moderation")

# What servers call the response_format, or what is within it.
_FORMAT_WORDS = ("response_format", "response_schema", "responseschema", "additionalproperties")

_logger = logging.getLogger(__name__)


class Dialect:
    """The parameters that a server takes, found out from its refusals; each step back is made once and for all.

    Args:
        model: the model's name.
        temperature: how freely it writes.
        max_tokens: the most it may write.
    """

    def __init__(self, model: str, temperature: float, max_tokens: int) -> None:
        self.model = model
        self._temperature: float | None = temperature
        self._max_tokens = max_tokens
        self._length_parameter = "max_tokens"
        self._formats = list(_RESPONSE_FORMATS)

    def request(self, prompt: Prompt, invalid: str | None = None, problem: str = "") -> dict[str, Any]:
        """Return the body of a chat request.

        Args:
            prompt: what is asked.
            invalid: an answer that cannot be used, to be corrected; None to ask for the first time.
            problem: what is wrong with it.
        """
        kind = self._formats[0]
        system = prompt.system if kind == "json_schema" else f"{prompt.system}\n{FORMAT_INSTRUCTION}".strip()
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt.text})
        if invalid is not None:
            messages += [
                {"role": "assistant", "content": invalid[:_MAX_SHOWN_ANSWER]},
                {"role": "user", "content": f"This answer cannot be used: {problem}. {FORMAT_INSTRUCTION}"},
            ]
        for message in messages:
            message["content"] = without_half_pairs(message["content"])
        body: dict[str, Any] = {"model": self.model, "messages": messages, self._length_parameter: self._max_tokens}
        if self._temperature is not None:
            body["temperature"] = self._temperature
        if _RESPONSE_FORMATS[kind]:
            body["response_format"] = _RESPONSE_FORMATS[kind]
        return body

    def adapts(self, body: dict[str, Any], error: Any) -> bool:
        """Whether a refused request is worth asking again, in other words than before.

        Args:
            body: what was refused.
            error: the client's error.
        """
        if error.status_code not in (400, 422) or concerns_prompt(error):
            return False
        text, parameter = str(error).lower(), getattr(error, "param", None)
        unsupported = "unsupported" in text or "not support" in text or "unrecognized" in text
        # Several requests in flight may meet the same refusal: only the first of them changes anything.
        if "max_tokens" in body and (parameter == "max_tokens" or "max_completion_tokens" in text) and unsupported:
            if self._length_parameter == "max_tokens":
                self._length_parameter = "max_completion_tokens"
                _logger.warning("The server does not take max_tokens; max_completion_tokens is sent from now on.")
            return True
        if "temperature" in body and (parameter == "temperature" or "temperature" in text) and unsupported:
            if self._temperature is not None:
                self._temperature = None
                _logger.warning("The server does not take this temperature; none is sent from now on.")
            return True
        sent = body.get("response_format", {}).get("type")
        if sent and (parameter == "response_format" or any(word in text for word in (sent, *_FORMAT_WORDS))):
            if self._formats[0] == sent:
                self._formats.pop(0)
                _logger.warning(
                    f"The server does not take the response_format {sent}; from now on it is {self._formats[0]}."
                )
            return True
        return False


def concerns_prompt(error: Any) -> bool:
    """Whether an error is about this prompt alone: it is too long, or a filter refuses it."""
    if error.status_code == 413:
        return True
    text = f"{getattr(error, 'code', None)} {error}".lower()
    if error.status_code not in _NOT_OF_LENGTH and is_too_long(text):
        return True
    return error.status_code in (400, 403, 422) and any(word in text for word in _FILTERED)
