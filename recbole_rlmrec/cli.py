"""The command line: ``recbole-rlmrec <verb>``, and ``run_recbole_rlmrec.py``, which is ``train``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from recbole_rlmrec.arguments import parse_settings
from recbole_rlmrec.compat import require_recbole
from recbole_rlmrec.errors import RLMRecError, UnknownSettingError
from recbole_rlmrec.verbs import VERBS
from recbole_rlmrec.verbs._options import canonical, option_names
from recbole_rlmrec.version import __version__
from recbole_rlmrec.wording import nearest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``recbole-rlmrec`` and return its exit status; errors a user can fix are printed in plain words."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return _with_output(lambda: _main(words))


def train_main(arguments: Sequence[str] | None = None) -> int:
    """Run ``recbole-rlmrec train`` under the name of the script at the repository's top."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(**_OF_VERBS)
    return _with_output(lambda: _run(_filled(parser, VERBS["train"]), words))


#: How the parser of a verb differs from argparse's usual one: --mod is no --model, and examples stay as they are.
_OF_VERBS: dict[str, Any] = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}


def _main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="recbole-rlmrec", description="RLMRec for RecBole.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"recbole-rlmrec {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    name = words[0].replace("_", "-") if words else ""
    if name in VERBS:  # no other verb is imported, which others' may take long for
        try:
            verb = VERBS[name]
        except RLMRecError as error:
            return _fail(error)
        return _run(_filled(verbs.add_parser(name, **_OF_VERBS), verb), words[1:])
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


def _filled(parser: argparse.ArgumentParser, verb: ModuleType) -> argparse.ArgumentParser:
    """Return the parser with what a verb says and takes."""
    parser.description = _text(verb)
    verb.add_arguments(parser)
    parser.set_defaults(run=verb.run)
    # All options would fill the screen above each error; --help lists them.
    asked = [f"{each.option_strings[0]} {each.metavar}" for each in parser._actions if each.required and each.metavar]
    parser.usage = " ".join(["%(prog)s", *asked, "[--option=value ...]"])
    return parser


def _run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Parse the arguments of a verb, and run it."""
    options = option_names(parser)
    try:
        known, rest = parser.parse_known_args(canonical(parser, words))
        if rest and not hasattr(known, "settings"):
            near = nearest(rest[0].partition("=")[0].lstrip("-"), options)
            parser.error(f"unrecognized arguments: {' '.join(rest)}" + (f". Did you mean '--{near}'?" if near else ""))
        require_recbole()
        if hasattr(known, "settings"):
            known.settings = parse_settings(rest)
        status: int = known.run(known)
    except UnknownSettingError as error:
        near = nearest(error.name, [*options, *([error.near] if error.near else [])])
        return _fail(UnknownSettingError(error.fault, error.name, f"--{near}") if near in options else error)
    except RLMRecError as error:
        return _fail(error)
    except BrokenPipeError:
        raise  # is an OSError, and no fault
    except OSError as error:
        return _fail(error)
    return status


def _with_output(work: Callable[[], int]) -> int:
    """Do the work; what the output cannot show is escaped, and where nobody reads it any more, the work ends."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # not so what a notebook or a test puts in its place
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return work()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, since Python reports what fails when it ends
    except BrokenPipeError:  # whoever read the output has had enough, as `head` has
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def _fail(message: object) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2
