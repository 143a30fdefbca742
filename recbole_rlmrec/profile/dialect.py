"""How a server wants to be asked: not all that speak OpenAI's API know all of its parameters."""

from __future__ import annotations

import logging
import re
from typing import Any

from recbole_rlmrec.profile.answer import FORMAT_INSTRUCTION, SCHEMA
from recbole_rlmrec.profile.prompt import Prompt
from recbole_rlmrec.server.reason import is_too_long
from recbole_rlmrec.wording import without_half_pairs

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
# Not the prompt's length, but the setting's value, which every prompt has.
_MAX_TOKENS_TOO_LARGE = re.compile(r"max_(?:completion_)?tokens\W+is too large(?!.*context)", re.DOTALL)

#: Statuses of refusals; some servers answer with 500 what others answer with 400.
_REFUSALS = (400, 422, 500, 501)
# In what a server says of a parameter, in small letters.
_UNSUPPORTED = re.compile(
    r"unsupported|not support|unrecogni[sz]ed|unknown|unexpected|deprecated|not (?:permitted|allowed)|instead|"
    r"extra inputs"
)
_FORMAT = re.compile(
    r"response_?(?:format|schema)|json[_ ]?(?:schema|object|mode)|structured[_ ]output|additionalproperties|grammar|"
    r"guided"
)
# Templates of chats without a system role; those of Mistral and Gemma complain of roles that do not alternate.
_SYSTEM_ROLE = re.compile(
    r"system[\W_]{1,3}(?:role|message|prompt|instruction)|role\W{1,4}system|(?:system|developer) instruction|"
    r"['\"`]system['\"`]|roles? must alternate|first message|only (?:the )?\W?user\W?(?:,| and)|"
    r"(?:input should be|expected|one of)[^.]{0,20}\W?user\W{1,3}(?:or|and|,|assistant)|"
    r"jinja|chat[ _]?template|template ?error|raise_exception|(?:invalid|unexpected|unsupported|unknown) role"
)
# What an error says, without what it repeats of the request; more than a server has to say.
_REPEATS_REQUEST = ("input", "ctx", "body", "request")
_MAX_SAID = 10_000

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
        self._has_system_role = True

    def request(self, prompt: Prompt, invalid: str | None = None, problem: str = "") -> dict[str, Any]:
        """Return the body of a chat request.

        Args:
            prompt: what is asked.
            invalid: an answer that cannot be used, to be corrected; None to ask for the first time.
            problem: what is wrong with it.
        """
        kind = self._formats[0]
        system = prompt.system if kind == "json_schema" else f"{prompt.system}\n{FORMAT_INSTRUCTION}".strip()
        if self._has_system_role:
            messages = [{"role": "system", "content": system}] if system else []
            messages.append({"role": "user", "content": prompt.text})
        else:
            messages = [{"role": "user", "content": f"{system}\n\n{prompt.text}".strip()}]
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

        Each refusal takes one step at most, and there are few, so a request is repeated a few times only.

        Args:
            body: what was refused.
            error: the client's error.
        """
        if error.status_code not in _REFUSALS or concerns_prompt(error):
            return False
        said, sent = _said(error), body.get("response_format", {}).get("type")
        # Several requests in flight may meet the same refusal: only the first of them changes anything.
        if "max_tokens" in body and "max_tokens" in said and _UNSUPPORTED.search(said):
            if self._length_parameter == "max_tokens":
                self._length_parameter = "max_completion_tokens"
                _logger.warning("The server does not take max_tokens; max_completion_tokens is sent from now on.")
            return True
        if "temperature" in body and "temperature" in said:
            if self._temperature is not None:
                self._temperature = None
                _logger.warning("The server does not take this temperature; none is sent from now on.")
            return True
        if sent and (_FORMAT.search(said) or sent in said):
            if self._formats[0] == sent:
                self._formats.pop(0)
                _logger.warning(
                    f"The server does not take the response_format {sent}; from now on it is {self._formats[0]}."
                )
            return True
        if body["messages"][0]["role"] == "system" and _SYSTEM_ROLE.search(said):
            if self._has_system_role:
                self._has_system_role = False
                _logger.warning(
                    "The server does not take a system role; the instruction is put before each prompt from now on."
                )
            return True
        return False


def concerns_prompt(error: Any) -> bool:
    """Whether an error is about this prompt alone: it is too long, or a filter refuses it."""
    return is_of_prompt(error.status_code, f"{getattr(error, 'code', None)} {error}")


def is_of_prompt(status: Any, said: str) -> bool:
    """Whether a refusal with this status and these words is about the prompt alone; see :func:`concerns_prompt`."""
    if status == 413:
        return True
    text = said.lower()
    if status not in _NOT_OF_LENGTH and is_too_long(text) and not _MAX_TOKENS_TOO_LARGE.search(text):
        return True
    return status in (400, 403, 422) and any(word in text for word in _FILTERED)


def _said(error: Any) -> str:
    """Return what an error says, in small letters."""
    waiting, texts = [getattr(error, "body", None)], [str(getattr(error, "param", None) or "")]
    while waiting and len(texts) < _MAX_SAID:
        value = waiting.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, dict):
            waiting += [each for key, each in value.items() if key not in _REPEATS_REQUEST]
        elif isinstance(value, list):
            waiting += value
    return (" ".join(texts) if len(texts) > 1 else f"{texts[0]} {error}").lower()[:_MAX_SAID]
