"""How a verb becomes a command: its parser, its errors in plain words, and an output that does not fail."""

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
from recbole_rlmrec.parts import failures_named
from recbole_rlmrec.verbs._options import canonical, option_names
from recbole_rlmrec.wording import nearest, printable

#: How the parser of a verb differs from argparse's usual one: --mod is no --model, and examples stay as they are.
OF_VERBS: dict[str, Any] = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}


def text_of(verb: ModuleType) -> str:
    """Return what a verb does, as its module says."""
    return (verb.__doc__ or "").strip()


def filled(parser: argparse.ArgumentParser, verb: ModuleType) -> argparse.ArgumentParser:
    """Return the parser with what a verb says and takes."""
    parser.description = text_of(verb)
    verb.add_arguments(parser)
    parser.set_defaults(run=failures_named("verb", verb)(verb.run))
    # All options would fill the screen above each error; --help lists them.
    asked = [f"{each.option_strings[0]} {each.metavar}" for each in parser._actions if each.required and each.metavar]
    parser.usage = " ".join(["%(prog)s", *asked, "[--option=value ...]"])
    return parser


def run(parser: argparse.ArgumentParser, words: Sequence[str]) -> int:
    """Parse the arguments of a verb, and run it."""
    options = option_names(parser)
    try:
        spelt = canonical(parser, words)
        known, rest = parser.parse_known_args(spelt)
        if rest and not hasattr(known, "settings"):
            near = nearest(rest[0].partition("=")[0].lstrip("-"), options)
            parser.error(f"unrecognized arguments: {' '.join(rest)}" + (f". Did you mean '--{near}'?" if near else ""))
        require_recbole()
        known.words = spelt
        if hasattr(known, "settings"):
            known.settings = parse_settings(rest)
        status: int = known.run(known)
    except UnknownSettingError as error:
        near = nearest(error.name, [*options, *([error.near] if error.near else [])])
        return fail(UnknownSettingError(error.fault, error.name, f"--{near}") if near in options else error)
    except RLMRecError as error:
        return fail(error)
    except BrokenPipeError:
        raise  # is an OSError, and no fault
    except OSError as error:
        return fail(error)
    return status


def with_output(work: Callable[[], int]) -> int:
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


def fail(message: object) -> int:
    print(printable(f"error: {message}"), file=sys.stderr)
    return 2
