"""Arguments of the command line that several verbs have, and what is made of them."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from recbole_rlmrec.errors import SettingError

_logger = logging.getLogger(__name__)

#: A dataclass.
_SettingsT = TypeVar("_SettingsT")


def take_settings(parser: argparse.ArgumentParser) -> None:
    """Let a verb take settings as ``--name=value``: ``arguments.settings`` has their parsed values by name."""
    parser.allow_abbrev = False  # --mod=x is a setting, and no --model
    parser.set_defaults(settings={})


def add_dataset_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what names a dataset: ``--dataset``, ``--config_files`` and settings; :func:`dataset_config` reads them."""
    take_settings(parser)
    parser.epilog = "Every setting of the dataset can be given as --name=value, as in a training."
    parser.add_argument("--dataset", "-d", required=True, metavar="NAME", help="such as ml-100k")
    add_config_files(parser)


def add_config_files(parser: argparse.ArgumentParser) -> None:
    """Add ``--config_files``, whose value is a list of paths."""
    parser.add_argument(
        "--config_files", default=[], type=_paths, metavar="FILES", help="YAML files, separated by spaces, in quotes"
    )


def add_dataset_folder(parser: argparse.ArgumentParser) -> None:
    """Add ``--data_path``, for verbs that write a dataset and take no settings."""
    parser.add_argument(
        *("--data_path", "--output"),
        default="dataset",
        type=path,
        metavar="DIR",
        help="folder of RecBole's datasets (%(default)s); --output is its former name",
    )


def path(text: str) -> str:
    """Read a path, in which ``~`` is the home folder: the shell leaves it as it is behind a ``=``."""
    return os.path.expanduser(text)


def _paths(text: str) -> list[str]:
    """Read paths that are separated by spaces; those with a space in quotation marks."""
    try:
        return [path(each) for each in shlex.split(text)]
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}; a path with such a mark needs two of the other") from None


def dataset_config(arguments: argparse.Namespace) -> Any:
    """Configure as a training would, so that the split is the same; the model does not matter to it.

    Raises:
        SettingError: a setting is unknown or cannot be used.
    """
    from recbole_rlmrec.config import RLMRecConfig

    return RLMRecConfig("BPR", arguments.dataset, arguments.config_files, command_line=arguments.settings)


def parse_settings(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn ``--name=value`` arguments into settings.

    Raises:
        SettingError: an argument is not of that form, or a name stands twice with different values.

    >>> parse_settings(["--n_layers=2", "--topk=[5, 20]"])
    {'n_layers': 2, 'topk': [5, 20]}
    """
    texts: dict[str, str] = {}
    for argument in arguments:
        name, equals, text = argument[2:].partition("=")
        if not argument.startswith("--") or not equals or not name:
            is_rest = any(bracket in argument for bracket in "[]{}") and not argument.startswith("-")
            advice = " A value with blanks needs quotation marks: --topk='[5, 10]'." if is_rest else ""
            raise SettingError(f"'{argument}' is not a setting; settings are written --name=value.{advice}")
        note_once(texts, name, text)
    if not texts:
        return {}
    from recbole_rlmrec.config import parse_value

    return {name: parse_value(text) for name, text in texts.items()}


def note_once(texts: dict[str, str], name: str, text: str) -> None:
    """Note the value of an option or a setting.

    Raises:
        SettingError: it has another one.
    """
    if texts.setdefault(name, text) != text:
        raise SettingError(f"--{name} is given twice: {texts[name]} and {text}.")


def settings_given(
    kind: type[_SettingsT],
    arguments: argparse.Namespace,
    options: Mapping[str, str],
    without: Sequence[str] = (),
    **more: Any,
) -> _SettingsT:
    """Make a component's settings of the arguments that were given; the others keep its defaults.

    Args:
        kind: a dataclass.
        arguments: the parsed command line.
        options: field -> its argument, where that has another name.
        without: fields that no argument sets.
        more: values of fields that are known otherwise.
    """
    values = dict(more)
    for entry in fields(kind):  # type: ignore[arg-type]
        value = None if entry.name in without else getattr(arguments, options.get(entry.name, entry.name), None)
        if value is not None and entry.name not in more:
            values[entry.name] = value
    return kind(**values)


def warn_of_seed(seed: int | None, option: str) -> None:
    """Say that a seed is of no use where an option asks for a split that draws nothing at random."""
    if seed is not None:
        _logger.warning(f"--seed {seed} changes nothing: {option} draws nothing at random.")


def three_shares(text: str) -> tuple[float, ...]:
    """Read the shares of training, validation and test, such as ``8:1:1``.

    Raises:
        argparse.ArgumentTypeError: they are not three numbers above 0.
    """
    try:
        shares = tuple(float(part) for part in text.split(":"))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not all(0 < share < float("inf") for share in shares):
        raise argparse.ArgumentTypeError(f"{text!r}: expected three numbers above 0, such as 8:1:1")
    return shares
