"""The command line: ``recbole-rlmrec <verb>``, and ``run_recbole_rlmrec.py``, which is ``train``."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import Any, Optional, Sequence

from recbole_rlmrec import __version__
from recbole_rlmrec.compat import require_recbole
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
    preparer = verbs.add_parser("prepare", help="turn a raw dump of Amazon, Yelp or Steam into a dataset with texts")
    _add_prepare_arguments(preparer)
    builder = verbs.add_parser("build-semantics", help="write profiles, encode them and check", allow_abbrev=False)
    checker = verbs.add_parser("check", help="check profiles and embeddings of a dataset", allow_abbrev=False)
    _add_semantics_arguments(builder, checker)
    lister = verbs.add_parser("settings", help="list every setting with its default, its values and what it does")
    _add_settings_arguments(lister)
    known, rest = parser.parse_known_args(arguments)
    if rest and not known.takes_settings:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return _guarded(known, rest)


def train_main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run ``recbole-rlmrec train`` under the name of the script at the repository's top."""
    parser = argparse.ArgumentParser(description=_TRAIN_HELP, allow_abbrev=False)
    _add_train_arguments(parser)
    return _guarded(*parser.parse_known_args(arguments))


_TRAIN_HELP = (
    "Train a model to early stopping and test its best epoch. Every setting of RecBole and of RLMRec can be given as "
    "--name=value; `recbole-rlmrec settings` lists ours."
)


def _add_train_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        "-m",
        required=True,
        help="such as LightGCN_RLMRecCon, SGL_RLMRecGen, BPR; with --tune also several, separated by commas",
    )
    parser.add_argument("--dataset", "-d", required=True, help="such as ml-100k, amazon-book")
    parser.add_argument("--config_files", default="", help="YAML files, separated by spaces")
    several = parser.add_argument_group("several processes, which share each step")
    several.add_argument("--nproc", type=int, help="processes on this machine (1)")
    several.add_argument("--world_size", type=int, help="processes on all machines (those of this one)")
    several.add_argument("--ip", help="address of the machine of rank 0, among several machines")
    several.add_argument("--port", type=int, help="a free port there (5678)")
    several.add_argument("--group_offset", type=int, help="rank of this machine's first process (0)")
    tuning = parser.add_argument_group("search for settings by the validation score; a stopped search goes on")
    tuning.add_argument(
        "--tune", nargs="?", const="auto", help="a .hyper file, a folder with one per class, or auto: those provided"
    )
    tuning.add_argument("--tune_algo", help="exhaustive, random or bayes (random)")
    tuning.add_argument("--max_evals", type=int, help="different trials for each model (10; exhaustive: all)")
    tuning.add_argument("--tool", help="hyperopt, or ray: trials side by side (hyperopt)")
    tuning.add_argument("--jobs", type=int, help="ray: trials at a time (one per GPU, or per core)")
    tuning.add_argument("--tune_output", help="folder of the searches (saved/tune)")
    parser.set_defaults(run=_train, takes_settings=True, **_PROCESS_ARGUMENTS)


def _add_import_arguments(parser: argparse.ArgumentParser) -> None:
    from recbole_rlmrec.data import release

    release.add_arguments(parser)
    parser.set_defaults(run=lambda known, _: release.run_from_arguments(known), takes_settings=False)


def _add_prepare_arguments(parser: argparse.ArgumentParser) -> None:
    from recbole_rlmrec.data import prepare

    prepare.add_arguments(parser)
    parser.set_defaults(run=lambda known, _: prepare.run_from_arguments(known), takes_settings=False)


def _add_semantics_arguments(builder: argparse.ArgumentParser, checker: argparse.ArgumentParser) -> None:
    from recbole_rlmrec import semantics

    for parser, add, run in (
        (builder, semantics.add_build_arguments, semantics.run_build),
        (checker, semantics.add_check_arguments, semantics.run_check),
    ):
        add(parser)
        parser.epilog = "Every setting of the dataset can be given as --name=value, as in a training."
        parser.set_defaults(run=lambda known, rest, run=run: run(known, parse_settings(rest)), takes_settings=True)


def _add_settings_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", action="store_true", help="as the table of the README")
    parser.set_defaults(run=_list_settings, takes_settings=False)


def _list_settings(known: argparse.Namespace, rest: Sequence[str]) -> int:
    from recbole_rlmrec.settings_table import markdown_table, plain_list

    print(markdown_table() if known.markdown else plain_list())
    return 0


def _train(known: argparse.Namespace, rest: Sequence[str]) -> int:
    command_line = parse_settings(rest)
    config_files = shlex.split(known.config_files)
    search = {name: getattr(known, given) for given, name in _SEARCH_ARGUMENTS.items()}
    search = {name: value for name, value in search.items() if value is not None}
    if known.tune is not None:
        _refuse_several_processes(known)
        from recbole_rlmrec.tuning.search import tune

        tune(known.model.split(","), known.dataset, known.tune, config_files, command_line=command_line, **search)
        return 0
    if search:
        given = next(given for given, name in _SEARCH_ARGUMENTS.items() if name in search)
        raise SettingError(f"--{given} is for a search: add --tune, or --tune=FILE.hyper.")
    from recbole_rlmrec.quick_start import run

    processes = {name: getattr(known, name) for name in _PROCESS_ARGUMENTS}
    run(known.model, known.dataset, config_files, command_line=command_line, **processes)
    return 0


_PROCESS_ARGUMENTS = {"nproc": 1, "world_size": -1, "ip": "localhost", "port": 5678, "group_offset": 0}

#: Arguments of a search, and what :func:`recbole_rlmrec.tuning.search.tune` calls them.
_SEARCH_ARGUMENTS = {
    "tune_algo": "algorithm",
    "max_evals": "max_evals",
    "tool": "tool",
    "jobs": "jobs",
    "tune_output": "output",
}


def _refuse_several_processes(known: argparse.Namespace) -> None:
    for name, default in _PROCESS_ARGUMENTS.items():
        if getattr(known, name) != default:
            raise SettingError(
                f"--{name}={getattr(known, name)}: a trial of a search runs in one process; --tool=ray runs several "
                "trials at a time."
            )


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
        require_recbole()
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
