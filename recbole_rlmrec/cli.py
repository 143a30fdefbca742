"""The command line: ``recbole-rlmrec <verb>``, and ``run_recbole_rlmrec.py``, which is ``train``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from recbole_rlmrec.arguments import parse_settings
from recbole_rlmrec.compat import require_recbole
from recbole_rlmrec.errors import RLMRecError
from recbole_rlmrec.parts import failures_named
from recbole_rlmrec.verbs import VERBS
from recbole_rlmrec.version import __version__
from recbole_rlmrec.wording import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``recbole-rlmrec`` and return its exit status; errors a user can fix are printed in plain words."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(prog="recbole-rlmrec", description="RLMRec for RecBole.")
    parser.add_argument("--version", action="version", version=f"recbole-rlmrec {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    if arguments and arguments[0] in VERBS:  # no other verb is imported, which others' may take long for
        try:
            verb = VERBS[arguments[0]]
        except RLMRecError as error:
            return _fail(error)
        _fill(verbs.add_parser(arguments[0], description=_text(verb)), verb)
    else:
        for name in VERBS:
            verbs.add_parser(name, help=_summary(name))
    return _run(parser, arguments)


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run ``recbole-rlmrec train`` under the name of the script at the repository's top."""
    verb = VERBS["train"]
    parser = argparse.ArgumentParser(description=_text(verb))
    _fill(parser, verb)
    return _run(parser, arguments)


def _text(verb: ModuleType) -> str:
    """Return what a verb does, as its module says."""
    return (verb.__doc__ or "").strip()


def _summary(name: str) -> str:
    """Return a verb's line in the list of verbs; where it cannot be imported, why."""
    try:
        summary = _text(VERBS[name]).splitlines()[0]
    except RLMRecError as error:
        summary = str(error)
    return summary.replace("%", "%%")  # argparse formats what it lists, but not a description


def _fill(parser: argparse.ArgumentParser, verb: ModuleType) -> None:
    verb.add_arguments(parser)
    parser.set_defaults(run=failures_named("verb", verb)(verb.run))


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """Parse, and run the verb that is asked for."""
    known, rest = parser.parse_known_args(arguments)
    if rest and not hasattr(known, "settings"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    try:
        require_recbole()
        if hasattr(known, "settings"):
            known.settings = parse_settings(rest)
        status: int = known.run(known)
    except RLMRecError as error:
        return _fail(error)
    except BrokenPipeError:  # whoever read the output has had enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        return _fail(
            f"{error}. Logs go to log/ and log_tensorboard/ in the working directory, checkpoints to checkpoint_dir: "
            "both must be writable."
        )
    except KeyboardInterrupt:
        return 130
    return status


def _fail(message: object) -> int:
    print(printable(f"error: {message}"), file=sys.stderr)
    return 2
