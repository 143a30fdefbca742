"""The table of settings, made from their declarations: ``recbole-rlmrec settings``, and the README's."""

from __future__ import annotations

import json
import logging
from collections import Counter
from typing import Any

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.encoder.base import ENCODERS
from recbole_rlmrec.errors import RLMRecError, SettingError
from recbole_rlmrec.model.registry import names
from recbole_rlmrec.profile.writer import WRITERS
from recbole_rlmrec.run_settings import RUN_SETTINGS
from recbole_rlmrec.settings import SETTINGS, Settings, defaults_of

#: A dataset without settings of its own.
_NO_DATASET = "no-such-dataset"

_logger = logging.getLogger(__name__)

_WORDS = {"null": "nothing", "true": "True", "false": "False"}


def plain_list() -> str:
    """Return a line for each setting, default and values, and one with its meaning."""
    return "\n".join(f"{name} = {default}: {allowed}\n    {meaning}" for name, default, allowed, meaning in _rows())


def markdown_table() -> str:
    """Return the settings of the run and of all models, installed ones included, as a Markdown table."""
    head = ["| setting | default | values | what it does |", "|---|---|---|---|"]
    rows = [f"| `{name}` | {default} | {allowed} | {meaning} |" for name, default, allowed, meaning in _rows()]
    return "\n".join([*head, *rows])


def _rows() -> list[tuple[str, str, str, str]]:
    """Return name, default, values and meaning of each setting, those of models and other parts before the run's."""
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
