"""The key in what servers say."""

from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest

from recbole_rlmrec.server.secret import HIDDEN, Secret

KEY = 'ab/C+"0123456789-xyz&Q'
FORMS = {
    "as it is": KEY,
    "in capitals": KEY.upper(),
    "in an address": quote(KEY, safe=""),
    "in an address, partly": quote(KEY),
    "in JSON": json.dumps(KEY)[1:-1],
    "in JSON within JSON": json.dumps(json.dumps(KEY))[1:-1],
    "in JSON's escapes": "".join(f"\\u{ord(character):04x}" for character in KEY),
    "in HTML": html.escape(KEY),
    "in base64": base64.b64encode(f"Bearer {KEY} end".encode()).decode(),
    "in base64 for addresses": base64.urlsafe_b64encode(f"x{KEY}".encode()).decode(),
    "its beginning": f"{KEY[:14]}...",
    "its end": f"****{KEY[-12:]}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_found(form: str) -> None:
    secret = Secret(KEY)
    scrubbed = secret.scrub(f"You sent {form} to us")
    assert HIDDEN in scrubbed and scrubbed.startswith("You sent ") and scrubbed.endswith(" to us")
    assert form not in scrubbed
    answer = secret.scrub_answer({"choices": [{"message": {"content": f"It is {form}!", "n": [1, None]}}]})
    content = answer["choices"][0]["message"]["content"]
    assert form not in content and secret.is_in(content)
    assert answer["choices"][0]["message"]["n"] == [1, None]


def test_the_key_is_taken_out_before_a_text_is_cut() -> None:
    shown = Secret(KEY).shown(f"{'x ' * 9_995}{KEY}")
    assert KEY[:6] not in shown and len(shown) < 20_000
    assert Secret(KEY).shown(f"a\x1b[31m\n\tb{KEY}") == f"a[31m b{HIDDEN}"


@pytest.mark.parametrize("key", ["none", "ollama", "lmstudio", "anything", ""])
def test_words_that_local_servers_take_for_a_key_are_no_secret(key: str) -> None:
    text = f"Likes {key}, of a kind."
    assert Secret(key).scrub_answer([text]) == [text]
    assert not Secret(key).is_in(text)


def test_nesting_is_bounded() -> None:
    nested: list = []
    for _ in range(200):
        nested = [nested]
    with pytest.raises(ValueError, match="nested deeper than"):
        Secret(KEY).scrub_answer(nested)
