"""The command line: ``recbole-rlmrec <verb>``, and ``run_recbole_rlmrec.py``, which is ``train``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from recbole_rlmrec.arguments import parse_settings
from recbole_rlmrec.errors import RLMRecError
from recbole_rlmrec.verbs import VERBS
from recbole_rlmrec.verbs._command import OF_VERBS, fail, filled, run, text_of, with_output
from recbole_rlmrec.version import __version__
from recbole_rlmrec.wording import nearest

__all__ = ["main", "parse_settings", "train_main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``recbole-rlmrec`` and return its exit status; errors a user can fix are printed in plain words."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return with_output(lambda: _main(words))


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run ``recbole-rlmrec train`` under the name of the script at the repository's top."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(**OF_VERBS)
    return with_output(lambda: run(filled(parser, VERBS["train"]), words))


def _main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="recbole-rlmrec", description="RLMRec for RecBole.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"recbole-rlmrec {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    name = words[0].replace("_", "-") if words else ""
    if name in VERBS:  # no other verb is imported, which others' may take long for
        try:
            verb = VERBS[name]
        except RLMRecError as error:
            return fail(error)
        return run(filled(verbs.add_parser(name, **OF_VERBS), verb), words[1:])
    for known in VERBS:
        verbs.add_parser(known, help=_summary(known))
    if name and name not in ("-h", "--help", "--version"):
        near = nearest(name, VERBS)
        advice = f" Did you mean '{near}'?" if near else ""
        if name.startswith("-"):
            advice = " The verb comes first: recbole-rlmrec train --model=LightGCN_RLMRecCon --dataset=ml-100k"
        parser.error(f"'{words[0]}' is no verb; expected one of {', '.join(VERBS)}.{advice}")
    parser.parse_args(words)
    return 0


def _summary(name: str) -> str:
    """Return a verb's line in the list of verbs; where it cannot be imported, why."""
    try:
        summary = text_of(VERBS[name]).splitlines()[0]
    except RLMRecError as error:
        summary = str(error)
    return summary.replace("%", "%%")  # argparse formats what it lists, but not a description
