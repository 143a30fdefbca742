"""What ``--help`` says of each verb: what it does, in sentences, and an example that can be typed."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from recbole_rlmrec.arguments import parse_settings
from recbole_rlmrec.verbs import VERBS
from recbole_rlmrec.verbs._command import OF_VERBS, filled, text_of
from recbole_rlmrec.verbs._options import canonical


@pytest.mark.parametrize("name", list(VERBS))
def test_two_sentences_and_an_example(name: str) -> None:
    prose, _, example = text_of(VERBS[name]).partition("\n\nExample:\n")
    assert len(re.findall(r"[.!](?=\s|$)", prose)) >= 2, prose
    program, verb, *words = shlex.split(example)
    assert (program, verb) == ("recbole-rlmrec", name)
    parser = filled(argparse.ArgumentParser(**OF_VERBS), VERBS[name])
    known, rest = parser.parse_known_args(canonical(parser, words))
    assert known.run is not None
    if hasattr(known, "settings"):
        parse_settings(rest)
    else:
        assert rest == []
