"""RecBole's own way in: its functions and classes, made to know this package's models by one line of a script."""

from __future__ import annotations

import functools
import logging
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole.config import Config
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_rlmrec import compat
from recbole_rlmrec.arguments import parse_settings
from recbole_rlmrec.config import RLMRecConfig, is_setting, nearest_setting, parse_value, read_yaml
from recbole_rlmrec.data import preparation
from recbole_rlmrec.data.provenance import is_notebook
from recbole_rlmrec.errors import CheckpointError, SettingError
from recbole_rlmrec.model import registry
from recbole_rlmrec.quick_start import load_model, run
from recbole_rlmrec.recbole_names import recbole_name
from recbole_rlmrec.training.checkpoint import load_checkpoint
from recbole_rlmrec.training.evaluation import ScoreCheck
from recbole_rlmrec.training.trainer import SafeTrainerMixin, trainer_class, trainer_over

_logger = logging.getLogger(__name__)

#: How like a setting an unknown ``--name=value`` has to be to be taken for a slip and not for the script's own.
_LIKE_A_SLIP = 0.85


@functools.cache
def register_with_recbole() -> None:
    """Make RecBole's own functions and classes know this package's models; calling it again changes nothing.

    ``Config``, ``create_dataset``, ``data_preparation``, ``get_model``, ``get_trainer``, ``Trainer``, ``run``,
    ``run_recbole``, ``objective_function`` with ``HyperTuning``, and ``load_data_and_model`` take our names and classes
    beside RecBole's, whether a script imports them before or after. What RecBole has a name for stays RecBole's:
    ``LightGCN`` is RecBole's class with RecBole's defaults, dataset and trainer.

    Raises:
        SettingError: RecBole is of another version than 1.2.x.
    """
    compat.apply()
    compat.stand_in_for_ray()
    compat.write_readable_checkpoints()
    import recbole.data.utils as data
    import recbole.quick_start.quick_start as quick_start
    import recbole.utils.utils as utils

    compat.reroute_method(Config, "__init__", _config)
    compat.reroute_method(Trainer, "__init__", _trainer)
    compat.reroute_method(Trainer, "evaluate", _evaluate)
    compat.reroute_method(Trainer, "_full_sort_batch_eval", _full_sort_batch_eval)
    compat.reroute_method(Trainer, "_neg_sample_batch_eval", _neg_sample_batch_eval)
    compat.reroute_method(Trainer, "resume_checkpoint", _resume_checkpoint)
    for function, route in (
        (utils.get_model, _get_model),
        (utils.get_trainer, _get_trainer),
        (data.create_dataset, _create_dataset),
        (data.data_preparation, _data_preparation),
        (quick_start.run, _run),
        (quick_start.run_recbole, _run_recbole),
        (quick_start.load_data_and_model, _load_data_and_model),
    ):
        compat.reroute(function, route)


@dataclass(frozen=True)
class _Request:
    """What a script asks RecBole for.

    Attributes:
        model: name or class; None if nothing says which.
        dataset: its name; None likewise.
        config_file_list: YAML files.
        config_dict: settings over the files.
    """

    model: Any
    dataset: Any
    config_file_list: Sequence[str | Path] | None
    config_dict: Mapping[str, Any] | None

    @classmethod
    def of(cls, model: Any, dataset: Any, config_file_list: Any, config_dict: Any) -> _Request:
        """Find model and dataset where RecBole's ``Config`` does: argument, command line, dictionary, files."""
        found = {"model": model, "dataset": dataset}
        layers = [_typed, lambda: config_dict or {}]
        files = [config_file_list] if isinstance(config_file_list, (str, Path)) else config_file_list or ()
        layers += [functools.partial(_content, path) for path in reversed(files)]
        for layer in layers:
            if None not in found.values():
                break
            content = layer()
            found = {name: content.get(name) if value is None else value for name, value in found.items()}
        return cls(**found, config_file_list=config_file_list, config_dict=config_dict)

    @property
    def is_ours(self) -> bool:
        """Whether the model is one of this package's."""
        return self.model is not None and registry.is_ours(self.model)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of our configuration, and of our runner.

        Text in the dictionary is read as on the command line, for RecBole's ``HyperTuning`` gives lists as text.
        """
        settings = {
            name: parse_value(value) if isinstance(value, str) else value
            for name, value in (self.config_dict or {}).items()
        }
        return {
            "model": self.model,
            "dataset": self.dataset,
            "config_file_list": self.config_file_list,
            "config_dict": settings,
            "command_line": _settings_typed(),
        }


def _typed() -> dict[str, Any]:
    """Return every ``--name=value`` of the process, whatever the script that was started makes of it."""
    if is_notebook():
        return {}
    pairs = [argument for argument in sys.argv[1:] if argument.startswith("--") and "=" in argument]
    return parse_settings([pair for pair in pairs if pair[2:].partition("=")[0].isidentifier()])


def _settings_typed() -> dict[str, Any]:
    """Return the settings among the arguments of the process; the others are the script's own, or slips."""
    typed = _typed()
    for name in typed:
        near = None if is_setting(name) else nearest_setting(name, _LIKE_A_SLIP)
        if near is not None:
            _logger.warning(f"--{name} is no setting and is left to the script. Did you mean '{near}'?")
    return {name: value for name, value in typed.items() if is_setting(name)}


def _content(path: str | Path) -> dict[str, Any]:
    """Return the settings of a file; none of one that only RecBole reads."""
    try:
        return read_yaml(Path(path))
    except SettingError:
        return {}


def _config(
    theirs: Any,
    self: Any,
    model: Any = None,
    dataset: Any = None,
    config_file_list: Any = None,
    config_dict: Any = None,
) -> None:
    """Let RecBole's ``Config`` of one of our models be ours, which is a ``Config`` as well."""
    if type(self) is Config:
        request = _Request.of(model, dataset, config_file_list, config_dict)
        if request.is_ours:
            self.__class__ = RLMRecConfig
            self.__init__(**request.arguments())
            return
    theirs(self, model, dataset, config_file_list, config_dict)


def _trainer(theirs: Any, self: Any, config: Any, model: Any) -> None:
    """Let RecBole's ``Trainer`` be the one that our runner takes, where the configuration is ours."""
    if type(self) is Trainer and isinstance(config, RLMRecConfig):
        self.__class__ = trainer_class(config)
        self.__init__(config, model)
        return
    theirs(self, config, model)


def _evaluate(
    theirs: Any,
    self: Any,
    eval_data: Any,
    load_best_model: bool = True,
    model_file: Any = None,
    show_progress: bool = False,
) -> Any:
    """Let RecBole's trainers read the best epoch that they wrote, with any torch, and rank by numbers only."""
    if not isinstance(self, SafeTrainerMixin):
        self.rlmrec_scores = ScoreCheck(self.device)
    with compat.recboles_checkpoint(model_file or self.saved_model_file, type(self.model)):
        result = theirs(self, eval_data, load_best_model, model_file, show_progress)
    if not isinstance(self, SafeTrainerMixin):
        self.rlmrec_scores.require_finite(type(self.model).__name__, "in this evaluation")
    return result


def _full_sort_batch_eval(theirs: Any, self: Any, batch: Any) -> Any:
    if isinstance(self, SafeTrainerMixin):
        return theirs(self, batch)  # which checks them itself
    return self.rlmrec_scores.full_sort(functools.partial(theirs, self), batch)


def _neg_sample_batch_eval(theirs: Any, self: Any, batch: Any) -> Any:
    if isinstance(self, SafeTrainerMixin):
        return theirs(self, batch)
    return self.rlmrec_scores.sampled(functools.partial(theirs, self), batch, self.config["ITEM_ID_FIELD"])


def _resume_checkpoint(theirs: Any, self: Any, resume_file: Any) -> None:
    with compat.recboles_checkpoint(resume_file, type(self.model)):
        theirs(self, resume_file)


def _get_model(theirs: Any, model_name: str) -> Any:
    return registry.get_model(model_name) if registry.is_ours(model_name) else theirs(model_name)


def _get_trainer(theirs: Any, model_type: Any, model_name: str) -> Any:
    if not registry.is_ours(model_name):
        return theirs(model_type, model_name)
    model = registry.get_model(model_name)
    return trainer_over(theirs(model_type, recbole_name(model)), model)


def _create_dataset(theirs: Any, config: Any) -> Any:
    """Build our dataset for our configuration, from the seed on, as our runner does."""
    if not isinstance(config, RLMRecConfig):
        return theirs(config)
    init_seed(config["seed"], config["reproducibility"])
    return preparation.create_dataset(config)


def _data_preparation(theirs: Any, config: Any, dataset: Any) -> Any:
    """Make our loaders for our configuration; what is built next begins with the seed, as in our runner."""
    if not isinstance(config, RLMRecConfig):
        return theirs(config, dataset)
    loaders = preparation.data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    return loaders


def _run_recbole(
    theirs: Any,
    model: Any = None,
    dataset: Any = None,
    config_file_list: Any = None,
    config_dict: Any = None,
    saved: bool = True,
    queue: Any = None,
) -> Any:
    request = _Request.of(model, dataset, config_file_list, config_dict)
    if not request.is_ours:
        return theirs(model, dataset, config_file_list, config_dict, saved, queue)
    if "local_rank" in (config_dict or {}):
        raise SettingError(
            f"{request.model} is trained in several processes by recbole.quick_start.run(..., nproc=2) or "
            "recbole_rlmrec.run(..., nproc=2), which start the processes themselves."
        )
    result = _run_ours(request, saved=saved)
    if queue is not None:
        queue.put(result)
    return result


def _run(
    theirs: Any,
    model: Any,
    dataset: Any,
    config_file_list: Any = None,
    config_dict: Any = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: str | int = "5678",
    group_offset: int = 0,
) -> Any:
    request = _Request.of(model, dataset, config_file_list, config_dict)
    processes = {"nproc": nproc, "world_size": world_size, "ip": ip, "port": port, "group_offset": group_offset}
    if not request.is_ours:
        return theirs(model, dataset, config_file_list, config_dict, saved, **processes)
    return _run_ours(request, saved=saved, **{**processes, "port": int(port)})


def _run_ours(request: _Request, **how: Any) -> dict[str, Any] | None:
    """Return what our runner finds as RecBole's dictionary; None on a machine that has not rank 0."""
    arguments = request.arguments()
    result = run(**arguments, **how)
    if result is None:
        return None
    return {
        "best_valid_score": result.best_valid_score,
        "valid_score_bigger": RLMRecConfig(**arguments)["valid_metric_bigger"],
        "best_valid_result": result.best_valid_result,
        "test_result": result.test_result,
    }


def _load_data_and_model(theirs: Any, model_file: Any) -> Any:
    """Load a checkpoint of ours without unpickling it; what is none is RecBole's."""
    try:
        load_checkpoint(model_file, "meta")
    except CheckpointError:
        if Path(model_file).is_file() and not zipfile.is_zipfile(model_file):
            raise  # torch writes zip archives: this is no checkpoint of RecBole's either
        with compat.recboles_checkpoint(model_file):
            return theirs(model_file)
    return load_model(model_file)
