"""RLMRecConfig: RecBole's configuration with our property files, known keys and safe parsing."""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import shlex
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import torch
import yaml
from recbole.config import Config
from recbole.data.dataloader import TrainDataLoader
from recbole.data.utils import get_dataloader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import (
    EvaluatorType,
    InputType,
    ModelType,
    dataset_arguments,
    evaluation_arguments,
    general_arguments,
    training_arguments,
)

from recbole_rlmrec import compat
from recbole_rlmrec.data.atomic_file import is_dataset_name, part_names
from recbole_rlmrec.data.frozen import RECBOLES_SPLIT, frozen_name
from recbole_rlmrec.data.paper_data import other_than_the_papers
from recbole_rlmrec.data.table import read_headers
from recbole_rlmrec.errors import SettingError, UnknownSettingError
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.backbone.contract import ModelFlags, flags_of, settings_along
from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.reading.bounded_yaml import LARGEST_TEXT, BoundedLoader
from recbole_rlmrec.reading.regular import read_bounded
from recbole_rlmrec.recbole_names import recbole_name
from recbole_rlmrec.recbole_settings.columns import check_columns
from recbole_rlmrec.recbole_settings.declared import FORMER_NAMES, check_recbole_settings
from recbole_rlmrec.recbole_settings.effects import Run, columns_without_effect, without_effect
from recbole_rlmrec.recbole_settings.escapes import explained, said_in_a_sentence
from recbole_rlmrec.recbole_settings.evaluation import check_evaluation, fitting_valid_metric
from recbole_rlmrec.recbole_settings.memory import check_embedding_size, within_memory
from recbole_rlmrec.resources import class_file, resource_folder
from recbole_rlmrec.run_settings import RUN_CLASSES, RUN_SETTINGS, DataSettings
from recbole_rlmrec.settings import NAMES, SETTINGS, Settings, check_value, defaults_of, inert, published_of
from recbole_rlmrec.wording import ON_SCREEN, count, nearest

_logger = logging.getLogger(__name__)

#: Keys that RecBole 1.2 reads although none of its property files lists them.
_UNLISTED_KEYS = frozenset(
    [
        "cin",
        "contrast",
        "encoding",
        "eta",
        "feature_num",
        "has_residual",
        "model",
        "dataset",
        "norm",
        "sim",
        "tail_ratio",
        "token_num_threshold",
        "use_filter",
        "xgb_early_stopping_rounds",
        "config_files",
    ]
)

#: RecBole pickles datasets and unpickles them when the path exists; reading a pickle runs whatever is in it.
_PICKLE_SETTINGS = ("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path")

#: What our files say of the evaluation of rankings; models that predict labels keep RecBole's.
_OF_RANKINGS = frozenset({"metrics", "topk", "valid_metric", "eval_batch_size"})

#: What says where a run reads, writes and computes, not what it computes.
OUTPUT_SETTINGS = frozenset(
    {"result_file", "checkpoint_dir", "show_progress", "state", "resume_from", "data_path", "gpu_id", "use_gpu"}
)

#: What decides which interactions, texts and split a run has.
_OF_DATA = {*dataset_arguments, *defaults_of(DataSettings), "eval_args", "data_path"} - {"leakage", "cold_nodes"}
#: What a training that goes on needs not be given again: where its output goes, and what it finds by its checkpoint.
_NOT_TO_GO_ON = frozenset(
    {"model", "dataset", "config_files", "result_file", "checkpoint_dir", "show_progress", "state"}
)
#: Settings that name a file or a folder; ``~`` is the home folder there.
_PATHS = ("data_path", "checkpoint_dir", "result_file", "resume_from", "init_from", "split_file")

#: Settings of RecBole's that are lists although their defaults may be nothing.
_LISTS = frozenset({"metrics", "topk", "benchmark_filename", "additional_feat_suffix", "numerical_features"})

#: What other programs call a setting.
_OTHER_NAMES = {
    "lr": "learning_rate",
    "batch_size": "train_batch_size",
    "num_workers": "worker",
    "workers": "worker",
    "gpu": "gpu_id",
    "output_dir": "checkpoint_dir",
    "k": "topk",
}

#: What is written instead of a setting that does not exist, where no other setting has the same values.
_INSTEAD = {"device": "Give --use_gpu=False for the CPU, or --gpu_id=1 for the second GPU."}

_INTEGER = re.compile(r"^[-+]?(0|[1-9][0-9]*)$")
_FLOAT = re.compile(
    r"^[-+]?([0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+([eE][-+]?[0-9]+)?|\.(inf|Inf|INF|nan|NaN|NAN))$"
)


class _SafeLoader(BoundedLoader):
    """YAML's safe loader with the numbers that people mean.

    1e-5 is a number, as in RecBole's loader; what YAML 1.1 takes for a date (2026-11-21), base 60 (12:30) or octal
    (010) is text.
    """


_SafeLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] in ("bool", "null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_SafeLoader.add_implicit_resolver("tag:yaml.org,2002:int", _INTEGER, list("-+0123456789"))
_SafeLoader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))

#: What a YAML reader raises on bad input; PyYAML lets the last two through.
_YAML_ERRORS = (yaml.YAMLError, ValueError, RecursionError)


def parse_value(text: str) -> Any:
    """Read a command-line value: a number, True, False, None, a YAML list or mapping; anything else stays text.

    >>> [parse_value(text) for text in ("1e-5", "[64, 32]", "true", "None", "010", "books")]
    [1e-05, [64, 32], True, None, '010', 'books']
    """
    if text in ("None", "~", "null", ""):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _INTEGER.match(text) or _FLOAT.match(text) or text[0] in "[{\"'":
        try:
            return yaml.load(text, Loader=_SafeLoader)
        except _YAML_ERRORS:
            return text
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a property file.

    Raises:
        SettingError: the file is missing, is not YAML, or is not a mapping of settings.
    """
    try:
        content = yaml.load(read_bounded(path, LARGEST_TEXT).decode("utf-8-sig"), Loader=_SafeLoader)
    except FileNotFoundError:
        raise SettingError(f"There is no property file '{path}'. Check the path given with --config_files.") from None
    except (*_YAML_ERRORS, OSError) as error:
        raise SettingError(f"'{path}' is not a readable YAML file: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingError(f"'{path}' holds {type(content).__name__}; expected lines such as `learning_rate: 0.001`.")
    for key in content:
        if not isinstance(key, str):
            raise SettingError(f"'{path}' has the key {key!r}, a {type(key).__name__}; a setting's name is text.")
    return content


class RLMRecConfig(Config):
    """RecBole's ``Config`` for this package's models and for RecBole's own.

    Layers, each over the one before: RecBole's property files; the declared defaults of a run and
    ``properties/overall.yaml``; along the class's bases, the lowest first, the defaults that each declares and its
    ``properties/model/<Class>.yaml``; under ``defaults: published`` the published values that run and bases declare;
    ``properties/dataset/<name>.yaml``, ``properties/protocol/<eval_protocol>.yaml``,
    ``properties/tuned/<dataset>/<Class>.yaml``, which may set ``defaults`` as well; then what the user gives:
    configuration files, ``config_dict``, ``command_line``. The process's own arguments are not looked at, and no value
    is evaluated as Python.

    Args:
        model: a model's name or class.
        dataset: the dataset's name.
        config_file_list: YAML files, later ones over earlier ones.
        config_dict: settings as Python values, over the files.
        command_line: settings from the command line as parsed values, over everything.

    Attributes:
        settings: every setting as layered, before RecBole derives more from them; plain values only. A checkpoint
            stores these, and a configuration made from them alone is the same configuration.
        notes: ``(level, message)`` for the log, which does not exist yet while a configuration is read.
        asked_split: those of ``split``, ``order`` and ``group_by`` that the user's ``eval_args`` give.

    Raises:
        SettingError: unknown model, unknown or ill-valued setting, unreadable property file.
    """

    def __init__(
        self,
        model: str | type,
        dataset: str,
        config_file_list: str | Path | Sequence[str | Path] | None = None,
        config_dict: Mapping[str, Any] | None = None,
        command_line: Mapping[str, Any] | None = None,
    ) -> None:
        compat.apply()
        self.notes: list[tuple[str, str]] = []
        self._command_line = dict(command_line or {})
        self._origins: dict[str, str] = {}
        self.asked_split: dict[str, Any] = {}
        super().__init__(model, dataset, config_file_list, dict(config_dict or {}))

    # ------------------------------------------------------------------ what RecBole's constructor calls, in order

    def _build_yaml_loader(self) -> type[yaml.SafeLoader]:
        return _SafeLoader

    def _load_config_files(self, file_list: str | Path | Sequence[str | Path] | None) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for path in [file_list] if isinstance(file_list, (str, Path)) else file_list or ():
            content = read_yaml(Path(path))
            self._origins.update(dict.fromkeys(content, f"'{path}'"))
            merged.update(content)
        return merged

    def _load_variable_config_dict(self, config_dict: Mapping[str, Any]) -> dict[str, Any]:
        self._origins.update(dict.fromkeys(config_dict, "config_dict"))
        return {
            key: _plain(value) if isinstance(value, (np.generic, Path)) else value for key, value in config_dict.items()
        }

    def _load_cmd_line(self) -> dict[str, Any]:
        self._origins.update(dict.fromkeys(self._command_line, "the command line"))
        return self._command_line

    def _get_model_and_dataset(self, model: str | type, dataset: str) -> tuple[str, type, str]:
        if not is_dataset_name(dataset):
            raise SettingError(f"dataset={dataset!r}: expected the name of a folder in data_path, such as ml-100k.")
        model_class = get_model(model) if isinstance(model, str) else model
        return model_class.__name__, model_class, dataset

    def _load_internal_config_dict(self, model: str, model_class: Any, dataset: str) -> None:
        bases = [base.__name__ for base in model_class.__mro__ if base.__module__.startswith("recbole.model.")]
        recbole_name = next((name for name in bases if (_recbole_properties() / f"model/{name}.yaml").is_file()), model)
        super()._load_internal_config_dict(recbole_name, model_class, dataset)
        folder = resource_folder("properties")
        own_classes = [
            (base, declared)
            for base, declared in settings_along(model_class)
            if issubclass(base, (ModelFlags, AbstractRecommender)) and not base.__module__.startswith("recbole.")
        ]
        self._is_general = model_class.type in (ModelType.GENERAL, ModelType.TRADITIONAL)
        self._is_sequential = model_class.type == ModelType.SEQUENTIAL
        # Models that predict labels have metrics of their own, which a ranking's would replace.
        self._keeps_metrics = model_class.type in (ModelType.CONTEXT, ModelType.DECISIONTREE)
        self._is_own = bool(own_classes)
        self._put_declared(RUN_CLASSES, defaults_of)
        self._add_layers([folder / "overall.yaml"])
        for base, declared in own_classes:
            self._put_declared(declared, defaults_of)
            beside = class_file(base, folder / "model", ".yaml")
            self._add_layers([beside])
            self._note_undeclared(beside)
        above = [folder / "dataset" / f"{dataset}.yaml"] if self._is_general else []
        self._add_layers(above)
        above.append(folder / "protocol" / f"{self._effective('eval_protocol')}.yaml")
        self._add_layers(above[-1:])
        tuned = self._tuned_file(folder / "tuned" / dataset, model_class)
        difference = other_than_the_papers(self._user_folder(), dataset) if tuned is not None else None
        if tuned is not None and difference is not None:
            shown = tuned.relative_to(folder.parent)
            self.notes.append(
                ("warning", f"{shown} is not applied: it was tuned for the paper's data, and {difference}.")
            )
            tuned = None
        if tuned is not None:
            self._add_layers([tuned], only=("defaults",))
        if self._effective("defaults") == "published":
            # Whether they are asked for is known only now; what lies above them is put above them again.
            self._put_declared(RUN_CLASSES, published_of)
            for _, declared in own_classes:
                self._put_declared(declared, published_of)
            self._add_layers(above)
        if tuned is not None:
            self._add_layers([tuned])
            shown = tuned.relative_to(folder.parent)
            self.notes.append(("info", f"Tuned settings of {model} on {dataset}: {shown} (off with --tuned=False)."))
        # Also those without a default, which no layer holds until they are given.
        self._declared = {each.name for _, declared in own_classes for part in declared for each in fields(part)}
        self._complete_external()
        self._check_external(model)

    def _user_folder(self) -> Path:
        """Return where the user's files of the dataset lie."""
        layers = self.internal_config_dict, self.external_config_dict
        return Path(os.path.expanduser(str(ChainMap(*reversed(layers))["data_path"]))) / self.dataset

    def _set_default_parameters(self) -> None:
        self.final_config_dict["benchmark_filename"] = part_names(self.final_config_dict["benchmark_filename"])
        self._check_recbole_settings()
        self.settings = {key: _plain(value) for key, value in self.final_config_dict.items() if key != "MODEL_TYPE"}
        self.settings.update(model=self.model, dataset=self.dataset)
        given = self.external_config_dict.get("eval_args")
        if isinstance(given, Mapping):
            self.asked_split = {key: given[key] for key in RECBOLES_SPLIT if key in given}
        user_folder = self._user_folder()
        try:
            super()._set_default_parameters()
        except (ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise SettingError(f"RecBole refuses the settings of {self.model}: {error}") from error
        self._check_workers()
        if any(user_folder.glob(f"{self.dataset}*.inter")):
            # RecBole looks for ml-100k inside itself even where the user has files of that name.
            self.final_config_dict["data_path"] = str(user_folder)
        self.data_folders = (user_folder, resource_folder("dataset") / self.dataset)
        parts = ["train", "valid", "test"]
        has_parts = all((user_folder / f"{self.dataset}.{part}.inter").is_file() for part in parts)
        has_whole = (user_folder / f"{self.dataset}.inter").is_file()
        if self.final_config_dict["benchmark_filename"] is None and has_parts and not has_whole:
            self.final_config_dict["benchmark_filename"] = parts
            self.notes.append(("info", f"Split from {self.dataset}.train.inter, .valid.inter and .test.inter."))
        elif "benchmark_filename" not in self.external_config_dict and has_whole and not has_parts:
            # Data prepared from a raw dump may have the name of one that was released in parts.
            self.final_config_dict["benchmark_filename"] = None
        self._check_columns()

    def _set_train_neg_sample_args(self) -> None:
        try:
            super()._set_train_neg_sample_args()
        except (ValueError, KeyError) as error:
            raise SettingError(f"RecBole refuses train_neg_sample_args: {error}") from error
        # RecBole's autoencoders are pairwise by name, but their batches hold users and no items.
        loader = get_dataloader({"model": recbole_name(self.model_class), "MODEL_TYPE": None}, "train")
        pairwise = self.final_config_dict["MODEL_INPUT_TYPE"] == InputType.PAIRWISE and loader is TrainDataLoader
        if self._is_general and pairwise and self.final_config_dict["train_neg_sample_args"]["distribution"] == "none":
            raise SettingError(
                f"{self.model} ranks an item against a sampled one; train_neg_sample_args must name a distribution, "
                "such as {distribution: uniform, sample_num: 1}."
            )
        self._note_settings_without_effect(samples=loader is TrainDataLoader)

    def _note_settings_without_effect(self, *, samples: bool) -> None:
        settings = self.final_config_dict
        negatives = settings["train_neg_sample_args"]["distribution"] != "none"
        of_labels = settings["MODEL_TYPE"] in (ModelType.CONTEXT, ModelType.DECISIONTREE)
        takes_steps = settings["MODEL_TYPE"] not in (ModelType.TRADITIONAL, ModelType.DECISIONTREE)
        takes_steps = takes_steps and not flags_of(self.model_class).nothing_to_train
        run = Run(
            model=self.model,
            samples=samples and takes_steps,
            takes_steps=takes_steps,
            ranks=settings["eval_type"] == EvaluatorType.RANKING,
            reads_labels=of_labels or not negatives,
        )
        found = list(without_effect(settings, self.external_config_dict, run))
        if self._is_own:
            idle = sorted(inert(settings) & self.external_config_dict.keys() - {"early_stopping"})
            found += [f"{name}={settings[name]} changes nothing beside the other settings." for name in idle]
        self.notes += [("warning", message) for message in found]

    def _init_device(self) -> None:
        given = compat.visible_gpus()
        if given is not None:
            self.final_config_dict["gpu_id"] = self._gpus_among(given)
        super()._init_device()
        compat.note_visible_gpus(given)
        if not self.final_config_dict["use_gpu"]:
            # RecBole 1.2 reads use_gpu for its memory display only.
            self.final_config_dict["device"] = torch.device("cpu")

    def _gpus_among(self, given: str) -> str:
        """Return the GPUs to use in the terms of CUDA_VISIBLE_DEVICES, which RecBole sets to ``gpu_id``.

        Args:
            given: the variable as it was given; ``gpu_id`` counts among its GPUs, or names them as it does.
        """
        if "gpu_id" not in self.external_config_dict or not given:
            return given
        gpu_id = self.final_config_dict["gpu_id"]
        asked, visible = "" if gpu_id is None else str(gpu_id), given.split(",")
        ids = [each for each in asked.strip("[]()").replace(" ", "").split(",") if each]
        if all(each.isdigit() and int(each) < len(visible) for each in ids):
            return ",".join(visible[int(each)] for each in ids)
        if not set(ids) <= set(visible) and self.final_config_dict["use_gpu"]:
            raise SettingError(
                f"gpu_id={asked}: the environment shows {count(len(visible), 'GPU')} (CUDA_VISIBLE_DEVICES={given}). "
                f"Expected numbers below {len(visible)}, such as --gpu_id=0."
            )
        return ",".join(ids)

    # ------------------------------------------------------------------ our own

    def log_notes(self) -> None:
        """Write ``notes`` to the log, once there is one."""
        for level, message in self.notes:
            getattr(_logger, level)(message, extra=ON_SCREEN if level == "info" else None)

    def foreign_errors_said(self, failure: str) -> AbstractContextManager[None]:
        """Let what RecBole, pandas or PyTorch raise in a step be one sentence that names the setting, if it is known.

        Args:
            failure: what to say of it, such as "LightGCN could not be built".
        """
        return said_in_a_sentence(failure, self.external_config_dict, self._origins)

    def explained(self, error: BaseException) -> str:
        """Return the words of a foreign error, and the settings that they or the failing lines name."""
        return explained(error, self.external_config_dict, self._origins)

    def check_memory(self, n_nodes: int) -> AbstractContextManager[None]:
        """Refuse settings with which the tables of a model cannot fit in memory, now and while it is built.

        Args:
            n_nodes: users and items together.

        Raises:
            SettingError: with the bytes that are needed and those that are free.
        """
        if self._is_general:
            settings, origin = self.final_config_dict, self._origins.get("embedding_size", "")
            check_embedding_size(settings, n_nodes, settings["device"], origin)
        return within_memory(self.external_config_dict, self._origins)

    def find_data_file(self, name: str) -> Path | None:
        """Return the first of the dataset's folders' files of this name: the user's, then the embedded one."""
        return next((folder / name for folder in self.data_folders if (folder / name).is_file()), None)

    def command(self, verb: str, *options: str, without: Iterable[str] = ()) -> str:
        """Return a command line that calls a verb on this dataset, with what was given of its data.

        Args:
            verb: such as ``build-semantics``.
            options: further arguments of it; of one that is a setting given here too, this one's value stays.
            without: settings and options to leave out.
        """
        data_path = self.external_config_dict.get("data_path")
        given = {} if data_path is None else {"data_path": data_path}
        given.update(self.non_default_settings())
        named = [key for key in given if key in _OF_DATA.difference(without)]
        settings = [f"--{key}={_typed(given[key])}" for key in named]
        left_out = {*named, *without}
        further = [each for each in options if each.partition("=")[0].lstrip("-").replace("-", "_") not in left_out]
        return shlex.join(["recbole-rlmrec", verb, f"--dataset={self.dataset}", *settings, *further])

    def command_to_go_on(self, checkpoint: str, epochs: int) -> str:
        """Return the command line with which the training of a checkpoint goes on, with the settings it began with.

        Args:
            checkpoint: its path.
            epochs: how many it may have now, in all.
        """
        given = {**self.external_config_dict, "resume_from": checkpoint, "epochs": epochs}
        settings = [f"--{key}={_typed(given[key])}" for key in given if key not in _NOT_TO_GO_ON]
        return shlex.join(["recbole-rlmrec", "train", f"--model={self.model}", f"--dataset={self.dataset}", *settings])

    @property
    def aligns(self) -> bool:
        """Whether the model adds an alignment of some weight to its base."""
        return issubclass(self.model_class, Alignment) and self.final_config_dict[self.model_class.weight_setting] != 0

    @property
    def reads_semantic_embeddings(self) -> bool:
        """Whether the model reads semantic embeddings: its class does, and an alignment has some weight."""
        reads = flags_of(self.model_class).reads_semantic_embeddings
        return reads and (self.aligns or not issubclass(self.model_class, Alignment))

    def of_base(self, base: type) -> RLMRecConfig:
        """Return the configuration of an aligned model's base: what was given, less what the base does not read.

        Args:
            base: the base's class.
        """
        defaults = RLMRecConfig(base, self.dataset, config_dict={"data_path": self.settings["data_path"]})
        known = {*defaults.internal_config_dict, *defaults._declared, *_UNLISTED_KEYS}
        given = {key: value for key, value in self.external_config_dict.items() if key in known}
        config = RLMRecConfig(base, self.dataset, config_dict={**given, "result_file": None, "resume_from": None})
        # Where and how loudly this process computes.
        for key in ("device", "local_rank", "show_progress", "state", "log_wandb"):
            if key in self.final_config_dict:
                config.final_config_dict[key] = self.final_config_dict[key]
        return config

    def non_default_settings(self) -> dict[str, Any]:
        """Return what the user set to something else than the defaults, less what says only where output goes."""
        missing = object()
        return {
            key: _plain(value)
            for key, value in self.external_config_dict.items()
            if key not in OUTPUT_SETTINGS and self.internal_config_dict.get(key, missing) != value
        }

    def _tuned_file(self, folder: Path, model_class: type) -> Path | None:
        """Return the file of tuned settings in a dataset's folder that this run loads, if any."""
        inherits = flags_of(model_class).inherits_tuned_settings
        names = [base.__name__ for base in model_class.__mro__] if inherits else [model_class.__name__]
        files = [folder / f"{name}.yaml" for name in names]
        return next((path for path in files if path.is_file()), None) if self._effective("tuned") else None

    def _add_layers(self, paths: Iterable[Path], only: Sequence[str] | None = None) -> None:
        """Put the settings of files over those of the layers below; absent files are none.

        Args:
            paths: the files.
            only: the settings to take; all, if not given.
        """
        for path in paths:
            if path.is_file():
                content = read_yaml(path)
                self._put({key: content[key] for key in content if only is None or key in only}, f"'{path}'")

    def _note_undeclared(self, path: Path) -> None:
        """Warn of what a class's file sets although nothing is known by that name: a slip, or the class's alone."""
        for key in read_yaml(path) if path.is_file() else ():
            if not is_setting(key):
                near = nearest_setting(key)
                advice = f" Did you mean '{near}'?" if near else ""
                self.notes.append(("warning", f"'{path}' sets '{key}', which no class declares.{advice}"))

    def _put_declared(
        self, classes: Iterable[type[Settings]], values_of: Callable[[type[Settings]], dict[str, Any]]
    ) -> None:
        """Put values that settings classes declare over those of the layers below.

        Args:
            classes: the classes.
            values_of: returns the values of one: its defaults, or what ``defaults: published`` brings back.
        """
        for settings in classes:
            self._put(values_of(settings), settings.__name__)

    def _put(self, content: Mapping[str, Any], origin: str) -> None:
        """Put settings over those of the layers below.

        Args:
            content: settings by name.
            origin: where they come from, for messages.
        """
        taken = {key: value for key, value in content.items() if not (self._keeps_metrics and key in _OF_RANKINGS)}
        self._origins.update({key: origin for key in taken if key not in self.external_config_dict})
        self.internal_config_dict.update(taken)

    def _effective(self, key: str) -> Any:
        value = self.external_config_dict.get(key, self.internal_config_dict.get(key))
        check_value(key, value, self._origins.get(key, ""))
        return value

    def _check_recbole_settings(self) -> None:
        """Refuse settings of RecBole's that it would take for something else, or fail on after an epoch."""
        settings = self.final_config_dict
        check_recbole_settings(settings, self.external_config_dict, self._origins, is_own=self._is_own)
        fitting = fitting_valid_metric(settings, self.external_config_dict)
        if fitting is not None:
            self.notes.append(("info", f"valid_metric={fitting}, for topk={settings['topk']}."))
            settings["valid_metric"] = fitting
        check_evaluation(settings, self._origins)

    def _check_columns(self) -> None:
        settings = self.final_config_dict
        headers = read_headers(
            Path(settings["data_path"]),
            self.dataset,
            settings["benchmark_filename"],
            settings["field_separator"],
            settings.get("encoding"),
        )
        is_split = settings["benchmark_filename"] is not None or settings["split_file"] is not None
        is_split = is_split or self.find_data_file(frozen_name(self.dataset)) is not None
        check_columns(settings, self.external_config_dict, self._origins, headers, is_split=is_split)
        without = columns_without_effect(self.external_config_dict, headers["inter"])
        self.notes += [("warning", sentence) for sentence in without]

    def _complete_external(self) -> None:
        """Read what was given as its setting is meant: ``~`` in a path, and ``a,b`` where a list is expected."""
        for key, value in self.external_config_dict.items():
            if not isinstance(value, str):
                continue
            declared = SETTINGS.get(key)
            is_list = declared.allowed is NAMES if declared else isinstance(self.internal_config_dict.get(key), list)
            if key in _PATHS:
                self.external_config_dict[key] = os.path.expanduser(value)
            elif (is_list or key in _LISTS) and value[:1] not in ("[", "("):
                self.external_config_dict[key] = [parse_value(part.strip()) for part in value.split(",")]

    def _check_workers(self) -> None:
        """Refuse workers where a process cannot begin as a copy of another: what loaders hold cannot be pickled."""
        worker = self.final_config_dict["worker"]
        if worker and not sys.platform.startswith("linux"):
            raise SettingError(
                f"worker={worker}: loaders have processes of their own on Linux only. Leave the setting out; batches "
                "are cut from arrays, which needs no help."
            )

    def reads(self, key: str) -> bool:
        """Return whether a run of the model reads a setting."""
        return key in self.internal_config_dict or key in self._declared or key in _UNLISTED_KEYS

    def _check_external(self, model: str) -> None:
        """Refuse unknown keys and ill values; note settings that this model does not read.

        The ranges of model settings are ours; RecBole's models may mean something else by the same name.
        """
        for key, value in self.external_config_dict.items():
            if not self.reads(key):
                origin = self._origins[key]
                if not is_setting(key):
                    raise _unknown(key, origin)
                if self._is_own and key in self._command_line:
                    # A file may serve several models; what is typed for this one must mean something to it.
                    near = nearest(key, self.internal_config_dict)
                    raise UnknownSettingError(f"{model} does not read the setting '{key}' (from {origin}).", key, near)
                self.notes.append(("warning", f"{model} does not use the setting '{key}' ({self._origins[key]})."))
            elif key in _PICKLE_SETTINGS and value:
                raise SettingError(
                    f"{key}={value!r} (from {self._origins[key]}): RecBole saves datasets as pickles, and reading a "
                    "pickle runs whatever code is in it. Leave the setting out; datasets are built again in each run."
                )
        for key in SETTINGS if self._is_own else RUN_SETTINGS:
            if key in self.external_config_dict or key in self.internal_config_dict:
                self._effective(key)
        if self._is_sequential and self.external_config_dict.get("split_file"):
            self.notes.append(("warning", f"{model} reads sequences: split_file is not used."))


def _recbole_properties() -> Path:
    return Path(recbole.__file__).parent / "properties"


@lru_cache(maxsize=1)
def _known_keys() -> Mapping[str, list[Any]]:
    """Every key of RecBole's and our property files, whichever model reads it, with the values that it has there."""
    keys = {*general_arguments, *training_arguments, *evaluation_arguments, *dataset_arguments, *_UNLISTED_KEYS}
    values: dict[str, list[Any]] = {key: [] for key in keys}
    own, theirs = resource_folder("properties"), _recbole_properties()
    paths = [theirs / "overall.yaml", theirs / "dataset/sample.yaml", *theirs.glob("quick_start_config/*.yaml")]
    paths += [*theirs.glob("model/*.yaml"), *own.rglob("*.yaml")]
    for path in paths:
        for key, value in read_yaml(path).items():
            values.setdefault(key, []).append(value)
    return values


def values_in_files(name: str) -> list[Any]:
    """Return the values that RecBole's and our property files give a setting."""
    return _known_keys().get(name, [])


def is_setting(name: str) -> bool:
    """Return whether there is a setting of this name, whichever model reads it."""
    return name in SETTINGS or name in _known_keys()


def nearest_setting(name: str, likeness: float = 0) -> str | None:
    """Return the setting that is most likely meant by this name, if any is as like as ``likeness``, of at most 1.

    >>> nearest_setting("learning_rte"), nearest_setting("lr"), nearest_setting("qqq")
    ('learning_rate', 'learning_rate', None)
    """
    near = _OTHER_NAMES.get(name) or nearest(name, sorted({*_known_keys(), *SETTINGS}))
    if near is None or difflib.SequenceMatcher(None, name, near).ratio() < likeness:
        return None
    return near


def _unknown(key: str, origin: str) -> UnknownSettingError:
    advice = _INSTEAD.get(key, "The README lists all settings.")
    near = None if key in _INSTEAD else FORMER_NAMES.get(key) or nearest_setting(key)
    return UnknownSettingError(f"There is no setting '{key}' (from {origin}).", key, near, advice)


def _typed(value: Any) -> str:
    """Write a setting's value so that :func:`parse_value` reads it again.

    >>> _typed(None), _typed([5, "a b"]), _typed("2020"), _typed("books")
    ('~', '[5, "a b"]', '"2020"', 'books')
    """
    if value is None:
        return "~"
    text = value if isinstance(value, str) else json.dumps(_plain(value), ensure_ascii=False)
    return text if parse_value(text) == value else json.dumps(text, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """Reduce a setting to what YAML, JSON and a weights-only checkpoint can hold."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
