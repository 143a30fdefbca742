"""Train and test one model.

The model is trained to early stopping, and its best epoch is tested. Every setting of RecBole and of RLMRec can be
given as --name=value; `recbole-rlmrec settings` lists ours.

Example:
    recbole-rlmrec train --model=LightGCN_RLMRecCon --dataset=ml-100k --learning_rate=0.005
"""

from __future__ import annotations

import argparse
from functools import partial

from recbole_rlmrec.arguments import add_config_files, path, take_settings
from recbole_rlmrec.errors import SettingError

_PROCESS_ARGUMENTS = {"nproc": 1, "world_size": -1, "ip": "localhost", "port": 5678, "group_offset": 0}

#: Arguments of a search, and what :func:`recbole_rlmrec.tuning.search.tune` calls them.
_SEARCH_ARGUMENTS = {
    "tune_algo": "algorithm",
    "max_evals": "max_evals",
    "tool": "tool",
    "jobs": "jobs",
    "prune": "prune",
    "tune_output": "output",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    take_settings(parser)
    parser.add_argument(
        "--model",
        "-m",
        required=True,
        metavar="MODEL",
        help="such as LightGCN_RLMRecCon, SGL_RLMRecGen, BPR; with --tune also several, separated by commas",
    )
    parser.add_argument("--dataset", "-d", required=True, metavar="NAME", help="such as ml-100k, amazon-book")
    add_config_files(parser)
    parser.add_argument("--print-config", action="store_true", help="print all settings as YAML, and train nothing")
    several = parser.add_argument_group("several processes, which share each step")
    several.add_argument("--nproc", type=int, help="processes on this machine (1)")
    several.add_argument("--world_size", type=int, help="processes on all machines (those of this one)")
    several.add_argument("--ip", help="address of the machine of rank 0, among several machines")
    several.add_argument("--port", type=int, help="a free port there (5678)")
    several.add_argument("--group_offset", type=int, help="rank of this machine's first process (0)")
    tuning = parser.add_argument_group("search for settings by the validation score; a stopped search goes on")
    tuning.add_argument(
        "--tune",
        nargs="?",
        const="auto",
        type=path,
        help="a .hyper file, a folder with one per class, or auto: those provided",
    )
    tuning.add_argument("--tune_algo", help="exhaustive, random, or bayes or tpe, which are one (random; optuna: tpe)")
    tuning.add_argument("--max_evals", type=int, help="different trials for each model (10; exhaustive: all)")
    tuning.add_argument("--tool", help="hyperopt; optuna: bad trials end early; ray: trials side by side (hyperopt)")
    tuning.add_argument("--jobs", type=int, help="trials at a time (optuna: 1; ray: one per GPU, or per core)")
    tuning.add_argument(
        "--no-prune",
        dest="prune",
        action="store_false",
        default=None,
        help="optuna: train each trial to its end, also one that lies behind the others",
    )
    tuning.add_argument("--tune_output", type=path, help="folder of the searches (saved/tune)")
    parser.set_defaults(**_PROCESS_ARGUMENTS)


def run(arguments: argparse.Namespace) -> int:
    """Train, or search with ``--tune``.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.quick_start.run` and :func:`recbole_rlmrec.tuning.search.tune`.
    """
    config_files, settings = arguments.config_files, arguments.settings
    if arguments.print_config:
        return _print_config(arguments)
    search = {name: getattr(arguments, given) for given, name in _SEARCH_ARGUMENTS.items()}
    search = {name: value for name, value in search.items() if value is not None}
    if arguments.tune is not None:
        _refuse_several_processes(arguments)
        from recbole_rlmrec.tuning.search import tune

        models = arguments.model.split(",")
        tune(
            models,
            arguments.dataset,
            arguments.tune,
            config_files,
            command_line=settings,
            report=partial(print, flush=True),
            **search,
        )
        return 0
    if search:
        given = next(given for given, name in _SEARCH_ARGUMENTS.items() if name in search)
        raise SettingError(f"--{given} is for a search: add --tune, or --tune=FILE.hyper.")
    from recbole_rlmrec import quick_start

    processes = {name: getattr(arguments, name) for name in _PROCESS_ARGUMENTS}
    quick_start.run(arguments.model, arguments.dataset, config_files, command_line=settings, report=_print, **processes)
    return 0


def _print(text: str) -> None:
    print(text, flush=True)


def _print_config(arguments: argparse.Namespace) -> int:
    """Print what a run would be set to; the same YAML as ``--config_files`` gives the same run."""
    import yaml

    from recbole_rlmrec.config import RLMRecConfig

    config = RLMRecConfig(arguments.model, arguments.dataset, arguments.config_files, command_line=arguments.settings)
    config.log_notes()
    _print(yaml.safe_dump(config.settings, sort_keys=True, allow_unicode=True, width=1000).rstrip())
    return 0


def _refuse_several_processes(arguments: argparse.Namespace) -> None:
    for name, default in _PROCESS_ARGUMENTS.items():
        if getattr(arguments, name) != default:
            raise SettingError(
                f"--{name}={getattr(arguments, name)}: a trial of a search runs in one process; --tool=optuna "
                "and --tool=ray run several trials at a time."
            )
