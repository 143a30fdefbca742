"""The command line: ``recbole-rlmrec <verb>``, and ``run_recbole_rlmrec.py``, which is ``train``."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any, Optional, Sequence

from recbole_rlmrec import __version__
from recbole_rlmrec.errors import RLMRecError, SettingError


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run ``recbole-rlmrec`` and return its exit status; errors a user can mend are printed in plain words."""
    parser = argparse.ArgumentParser(prog="recbole-rlmrec", description="RLMRec for RecBole.")
    parser.add_argument("--version", action="version", version=f"recbole-rlmrec {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    _add_train_arguments(
        verbs.add_parser("train", help="train and test one model", description=_TRAIN_HELP, allow_abbrev=False)
    )
    importer = verbs.add_parser("import-release", help="turn RLMRec's released files into a dataset")
    _add_import_arguments(importer)
    known, rest = parser.parse_known_args(arguments)
    if known.verb != "train" and rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return _guarded(known, rest)


def train_main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run ``recbole-rlmrec train`` under the name of the script at the repository's top."""
    parser = argparse.ArgumentParser(description=_TRAIN_HELP, allow_abbrev=False)
    _add_train_arguments(parser)
    return _guarded(*parser.parse_known_args(arguments))


_TRAIN_HELP = (
    "Train a model to early stopping and test its best epoch. Every setting of RecBole and of RLMRec can be given as "
    "--name=value."
)


def _add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", "-m", required=True, help="such as LightGCN_RLMRecCon, SGL_RLMRecGen, BPR")
    parser.add_argument("--dataset", "-d", required=True, help="such as ml-100k, amazon-book")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    several = parser.add_argument_group("several processes, which share each step")
    several.add_argument("--nproc", type=int, default=1, help="processes on this machine (1)")
    several.add_argument("--world_size", type=int, default=-1, help="processes on all machines (those of this one)")
    several.add_argument("--ip", default="localhost", help="address of the machine of rank 0, among several machines")
    several.add_argument("--port", type=int, default=5678, help="a free port there (5678)")
    several.add_argument("--group_offset", type=int, default=0, help="rank of this machine's first process (0)")
    parser.set_defaults(run=_train)


def _add_import_arguments(parser: argparse.ArgumentParser) -> None:
    from recbole_rlmrec.data import release

    release.add_arguments(parser)
    parser.set_defaults(run=lambda known, _: release.run_from_arguments(known))


def _train(known: argparse.Namespace, rest: Sequence[str]) -> int:
    command_line = parse_settings(rest)
    from recbole_rlmrec.quick_start import run

    processes = {name: getattr(known, name) for name in ("nproc", "world_size", "ip", "port", "group_offset")}
    run(known.model, known.dataset, shlex.split(known.config_files), command_line=command_line, **processes)
    return 0


def parse_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn ``--name=value`` arguments into settings.

    Raises:
        SettingError: an argument is not of that form, or a name stands twice with different values.
    """
    from recbole_rlmrec.config import parse_value

    texts: dict[str, str] = {}
    for argument in arguments:
        name, equals, text = argument[2:].partition("=")
        if not argument.startswith("--") or not equals or not name:
            raise SettingError(f"'{argument}' is not a setting; settings are written --name=value.")
        if texts.setdefault(name, text) != text:
            raise SettingError(f"--{name} is given twice: {texts[name]} and {text}.")
    return {name: parse_value(text) for name, text in texts.items()}


def _guarded(known: argparse.Namespace, rest: Sequence[str]) -> int:
    try:
        status: int = known.run(known, rest)
    except RLMRecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"error: {error}. Logs go to log/ and log_tensorboard/ in the working directory, checkpoints to "
            "checkpoint_dir: both must be writable.",
            file=sys.stderr,
        )
        return 2
    except KeyboardInterrupt:
        return 130
    return status
