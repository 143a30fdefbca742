"""The table of settings, made from their declarations: ``recbole-rlmrec settings``, and the README's."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import recbole

from recbole_rlmrec.config import RLMRecConfig, is_setting, nearest_setting, read_yaml
from recbole_rlmrec.encoder.base import ENCODERS
from recbole_rlmrec.errors import RLMRecError, SettingError, UnknownSettingError
from recbole_rlmrec.model.registry import names
from recbole_rlmrec.profile.writer import WRITERS
from recbole_rlmrec.recbole_names import recbole_name
from recbole_rlmrec.run_settings import RUN_SETTINGS
from recbole_rlmrec.settings import SETTINGS, Settings, defaults_of
from recbole_rlmrec.wording import nearest

#: A dataset without settings of its own.
_NO_DATASET = "no-such-dataset"

_logger = logging.getLogger(__name__)

_WORDS = {"null": "nothing", "true": "True", "false": "False"}


def plain_list(name: str | None = None) -> str:
    """Return a line for each setting, default and values, and one with its meaning.

    Args:
        name: of the one model, or the one setting, to list; all settings if not given.

    Raises:
        SettingError: there is no model and no setting of the name.
    """
    return "\n".join(f"{name} = {default}: {allowed}\n    {meaning}" for name, default, allowed, meaning in _rows(name))


def markdown_table(name: str | None = None) -> str:
    """Return the settings of the run and of all models, installed ones included, as a Markdown table.

    Args:
        name: as for :func:`plain_list`.
    """
    head = ["| setting | default | values | what it does |", "|---|---|---|---|"]
    rows = [f"| `{name}` | {default} | {allowed} | {meaning} |" for name, default, allowed, meaning in _rows(name)]
    return "\n".join([*head, *rows])


def _rows(asked: str | None) -> list[tuple[str, str, str, str]]:
    """Return name, default, values and meaning of each setting, those of models and other parts before the run's."""
    if asked is None:
        return _all_rows()
    name = asked.lstrip("-").replace("-", "_")
    if is_setting(name):
        return [row for row in _all_rows() if row[0] == name] or [_row_of_recboles(name)]
    return _rows_of_model(asked)


def _rows_of_model(asked: str) -> list[tuple[str, str, str, str]]:
    """Return the settings of one model, which those of every run are not, with its defaults.

    Raises:
        SettingError: there is no such model.
    """
    try:
        config = RLMRecConfig(asked, _NO_DATASET)
    except SettingError:
        near = nearest_setting(asked)
        if near is None or nearest(asked, [near, *names()]) != near:
            raise
        raise UnknownSettingError(f"There is no model and no setting '{asked}'.", asked, near) from None
    values = {name: {asked: value} for name, value in config.internal_config_dict.items()}
    rows = [
        (name, _default(values[name]), str(SETTINGS[name].allowed), SETTINGS[name].meaning)
        for name in SETTINGS
        if name in values and name not in RUN_SETTINGS
    ]
    file = Path(recbole.__file__).parent / f"properties/model/{recbole_name(config.model_class)}.yaml"
    theirs = [name for name in read_yaml(file) if name not in SETTINGS] if file.is_file() else []
    return rows + [(name, _default(values[name]), *_OF_RECBOLE) for name in theirs]


#: Values and meaning of a setting that RecBole declares.
_OF_RECBOLE = ("a setting of RecBole's", "see RecBole's documentation")


def _row_of_recboles(name: str) -> tuple[str, str, str, str]:
    config = RLMRecConfig("BPR", _NO_DATASET)
    values = {"every model": config.internal_config_dict[name]} if name in config.internal_config_dict else {}
    return (name, _default(values), *_OF_RECBOLE)


def _all_rows() -> list[tuple[str, str, str, str]]:
    """Return the rows of all declared settings."""
    configs = {}
    for name in names():
        try:
            configs[name] = RLMRecConfig(name, _NO_DATASET)
        except SettingError as error:  # of a model from outside
            _logger.warning(f"{name} is left out: {error}")
    parts = {}
    for registry in (ENCODERS, WRITERS):
        for name in registry:
            try:
                parts[name] = registry[name].settings_class
            except RLMRecError as error:
                _logger.warning(f"{name} is left out: {error}")
    of_parts = {name: defaults_of(settings) for name, settings in parts.items() if issubclass(settings, Settings)}
    rows = []
    for name in sorted(SETTINGS, key=RUN_SETTINGS.__contains__):
        values = {model: config[name] for model, config in configs.items() if name in config.internal_config_dict}
        values.update({part: defaults[name] for part, defaults in of_parts.items() if name in defaults})
        rows.append((name, _default(values), str(SETTINGS[name].allowed), SETTINGS[name].meaning))
    return rows


def _default(values: dict[str, Any]) -> str:
    """Return the default of most backbones, and in brackets those that have another; none where no model has one."""
    if not values:
        return "none"
    shown = {model.split("_")[0]: json.dumps(value).strip('"') for model, value in values.items()}
    shown = {backbone: _WORDS.get(text, text) for backbone, text in shown.items()}
    (usual, _), *others = Counter(shown.values()).most_common()
    exceptions = [f"{backbone} {text}" for backbone, text in shown.items() if text != usual]
    return f"{usual} ({', '.join(exceptions)})" if others else usual
