"""Run one experiment from a configuration to its test result, and load what it left behind."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import torch
from recbole.utils import init_seed

from recbole_rlmrec.compat import dataset_of
from recbole_rlmrec.config import OUTPUT_SETTINGS, RLMRecConfig
from recbole_rlmrec.data.dataset import fingerprint
from recbole_rlmrec.data.embedding_files import table_prefix
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.data.provenance import command, embeddings_used, versions
from recbole_rlmrec.errors import CheckpointError, RLMRecError, SettingError
from recbole_rlmrec.files import atomic_path, require_writable
from recbole_rlmrec.model.arrays import Representations, Scores, representations_of, scores_of, tokens_of
from recbole_rlmrec.model.backbone.contract import flags_of
from recbole_rlmrec.model.registry import base_of, endings_of, missing_package
from recbole_rlmrec.model.scores import scores_pairs
from recbole_rlmrec.ops.distributed import agreed, this_shard
from recbole_rlmrec.parts import failures_named
from recbole_rlmrec.run_settings import OF_PROFILES
from recbole_rlmrec.settings import inert
from recbole_rlmrec.sides import Side
from recbole_rlmrec.training.board import run_of_board
from recbole_rlmrec.training.checkpoint import check_data, load_checkpoint, load_weights
from recbole_rlmrec.training.comparison import (
    Outcome,
    find_record,
    finite,
    record_path,
    recorded_base,
    table,
    write_record,
)
from recbole_rlmrec.training.folders import begin_log, check_folders, checkpoint_path
from recbole_rlmrec.training.launch import Processes, end_if_imported, run_in_processes
from recbole_rlmrec.training.machine import LESS_MEMORY, let_logs_fail, machine_faults_named, peak_memory
from recbole_rlmrec.training.screen import end_screen, start_screen
from recbole_rlmrec.training.starting import start_from
from recbole_rlmrec.training.stopping import Validation
from recbole_rlmrec.training.trainer import trainer_class
from recbole_rlmrec.wording import ON_SCREEN

_logger = logging.getLogger(__name__)

#: Where models come from that need not be said where they come from.
_KNOWN_PACKAGES = ("recbole_rlmrec.", "recbole.")

#: What may differ between two trainings of a base that have the same outcome; data are compared by their hashes.
_OF_NO_MATTER = OUTPUT_SETTINGS | OF_PROFILES | {"dataset", "base_first"}


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        model: class name.
        dataset: its name.
        seed: of every random number.
        settings: those the user set to something else than the defaults.
        best_epoch: the epoch that was tested, counted from 0.
        seconds: wall-clock time of training, validation included, without that of the base.
        best_valid_score: the ``valid_metric`` at the best epoch; None if nothing was validated.
        best_valid_result: all metrics there, as ``recall@20``; None likewise.
        test_result: all metrics on the test split with the best epoch's weights; None if the split has no test.
        checkpoint: the best epoch's file; empty if it was not saved.
        defaults: whose defaults were under the settings, ``recommended`` or ``published``.
        stopped: why the training ended: ``epochs`` (it had as many as it may have), ``patience``, or ``plateau``, where
            patience ended it and no validation was above the popularity ranking's by more than noise; None if nothing
            was validated.
        kept: ``model``, or ``base`` where the base that was trained first validates at least as well: then ``best_*``,
            ``test_result`` and ``stopped`` are the base's, and the checkpoint is one of ``model`` with its weights.
        popularity: ``valid`` and ``test``, all metrics of the popularity ranking; None if they are not to be had.
        start: the same of the model before its first step, where ``init_from`` says what it starts from; else None.
        base: what is known of an aligned model's base, None if nothing is: ``source``, ``model``, ``seed``, ``valid``
            and ``test``. The source is ``trained``, where the base was trained first, with all of an
            :class:`~recbole_rlmrec.training.comparison.Outcome`; or the path of a result of the base beside this one.
        aligned: the aligned model's :class:`~recbole_rlmrec.training.comparison.Outcome` where a base was trained
            first.
        data: hashes of the ids, of all columns of each part of the split, and of the embeddings; and how is evaluated.
        split: where the split is from and how it was made; None for models with a dataset of RecBole's.
        semantic: the embeddings that the model read, see :func:`~recbole_rlmrec.data.provenance.embeddings_used`; None
            for a model that reads none.
        command: how the process was started; ``notebook`` for the kernel of one.
        versions: of this package and of what it computes with.
        log: the run's log; empty where logging is as the caller set it up.
        peak_memory: the most that the process, or that of rank 0, has had: bytes of ``ram`` and of ``gpu``, as far as
            they are known.
        efficiency: ``parameters`` that are trained; ``epochs`` of this training, those after the best one included;
            ``seconds_to_best``, when the best epoch had been validated, without it where nothing is validated.
    """

    model: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    best_epoch: int
    seconds: float
    best_valid_score: float | None
    best_valid_result: dict[str, float] | None
    test_result: dict[str, float] | None
    checkpoint: str
    defaults: str = "recommended"
    stopped: str | None = None
    kept: str = "model"
    popularity: dict[str, Any] | None = None
    start: dict[str, Any] | None = None
    base: dict[str, Any] | None = None
    aligned: dict[str, Any] | None = None
    data: dict[str, str] | None = None
    split: str | None = None
    semantic: dict[str, Any] | None = None
    command: str = ""
    versions: dict[str, str] | None = None
    log: str = ""
    peak_memory: dict[str, int] | None = None
    efficiency: dict[str, float] | None = None

    def load(self, model: type | None = None) -> Loaded:
        """Load the model that this run keeps, and its data, from its checkpoint; see :func:`load_model`.

        A result holds plain values only, so that many of them need no memory: what is loaded is the caller's.

        Args:
            model: the model's class, if it is not known by its name.

        Raises:
            CheckpointError: the run kept no checkpoint, or it is not there any more.
        """
        if not self.checkpoint:
            raise CheckpointError(f"This run of {self.model} kept no checkpoint: call run() without saved=False.")
        return load_model(self.checkpoint, model=model)

    def __getitem__(self, name: str) -> Any:
        """Return an attribute by its name, as what RecBole's ``run_recbole`` returns is read."""
        if name not in {each.name for each in fields(self)}:
            raise KeyError(name)
        return getattr(self, name)

    def write(self, path: str | Path) -> None:
        """Write this result as JSON."""
        content = json.dumps(finite(self.__dict__), indent=2, allow_nan=False) + "\n"
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


def run(
    model: str | type,
    dataset: str,
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    command_line: Mapping[str, Any] | None = None,
    *,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: int = 5678,
    group_offset: int = 0,
    own_log: bool = True,
    report: Callable[[str], None] | None = None,
    watch: Callable[[Validation], None] | None = None,
) -> Result | None:
    """Train a model to early stopping and test its best epoch, as RecBole's ``run`` does.

    The arguments of the process are not looked at: in a notebook they are the kernel's.

    Args:
        model: name or class: ours (``LightGCN_RLMRecCon``) or any of RecBole's (``BPR``).
        dataset: the dataset's name.
        config_file_list: YAML files with settings.
        config_dict: settings, over the files.
        command_line: settings from the command line, over everything.
        saved: keep the best epoch's checkpoint; without it the last epoch is tested.
        nproc: processes on this machine that share each step; ``train_batch_size`` is that of all together, and the
            result is that of one process. On CPUs and on GPUs, of which each process takes one of ``gpu_id``. A script
            must call this below ``if __name__ == "__main__":`` then, since each process imports it.
        world_size: processes on all machines; -1 for those of this machine.
        ip: address of the machine of rank 0; only among several machines.
        port: a free port there; only among several machines.
        group_offset: rank of this machine's first process.
        own_log: log to the terminal and to a file in ``log/``; without it logging is as the caller set it up.
        report: is called with the last screen, such as ``print``, which shows it whatever ``state`` says; without it
            the screen is logged. A function of a module, where there are several processes.
        watch: is called after each validation of the model, not of a base that is trained first; what it raises ends
            the run. A function of a module, where there are several processes, each of which calls it.

    Returns:
        What the run found, whose :meth:`~Result.load` gives the model; None on a machine that has not rank 0.

    Raises:
        RLMRecError: a setting or a data file is wrong; the message says how to fix it.
    """
    end_if_imported()
    processes = Processes(nproc, world_size, ip, port, group_offset)
    work = partial(
        _run,
        model=model,
        dataset=dataset,
        config_file_list=config_file_list,
        config_dict=config_dict,
        command_line=command_line,
        saved=saved,
        own_log=own_log,
        report=report,
        watch=watch,
    )
    if processes.total == 1:
        return work(contextlib.nullcontext)
    result: Result | None = run_in_processes(processes, work)
    return result


def _run(
    join: Callable[[Any], AbstractContextManager[None]],
    *,
    model: str | type,
    dataset: str,
    config_file_list: Sequence[str | Path] | None,
    config_dict: Mapping[str, Any] | None,
    command_line: Mapping[str, Any] | None,
    saved: bool,
    own_log: bool,
    report: Callable[[str], None] | None,
    watch: Callable[[Validation], None] | None,
) -> Result:
    """Do the run of this process, which ``join`` makes one of a group."""
    config = RLMRecConfig(model, dataset, config_file_list, config_dict, command_line)
    # What writes says by itself how to go on.
    with join(config), machine_faults_named(lambda: LESS_MEMORY, unless=(OSError, RLMRecError)):
        return _run_configured(config, saved=saved, own_log=own_log, report=report, watch=watch)


def _run_configured(
    config: RLMRecConfig,
    *,
    saved: bool,
    own_log: bool,
    report: Callable[[str], None] | None,
    watch: Callable[[Validation], None] | None,
) -> Result:
    is_first = this_shard().rank == 0
    if config["result_file"] and is_first:
        _check_writable(Path(config["result_file"]))
    check_folders(config, is_first=is_first, own_log=own_log)
    init_seed(config["seed"], config["reproducibility"])
    log: Path | None = None
    if is_first and own_log:
        log = begin_log(config)
        let_logs_fail()
    _logger.info(command())
    _logger.info(config)
    config.log_notes()

    dataset = create_dataset(config)
    _logger.info(dataset)
    loaders = data_preparation(config, dataset)
    _logger.info(start_screen(config, dataset, loaders, str(log or "")), extra=ON_SCREEN)
    data = _Data(loaders, _data_hashes(config, loaders))
    base, resume_from = _train_base_first(config, data, saved=saved)
    path = str(checkpoint_path(config, log))
    with run_of_board(config):
        trained = _train(config, data, saved=saved, resume_from=resume_from, base=base, path=path, watch=watch)
    kept = trained.kept
    known, training = _known_base(config, base, trained.data), dataset_of(loaders[0])

    result = Result(
        model=config["model"],
        dataset=config["dataset"],
        seed=config["seed"],
        settings=config.non_default_settings(),
        best_epoch=kept.best_epoch,
        seconds=trained.outcome.seconds,
        best_valid_score=_valid_score(config, kept.valid),
        best_valid_result=kept.valid,
        test_result=kept.test,
        checkpoint=kept.checkpoint,
        defaults=config["defaults"],
        stopped=kept.stopped,
        kept="model" if kept is trained.outcome else "base",
        popularity=trained.popularity,
        start=trained.start,
        base=known,
        aligned=trained.outcome.record() if base is not None else None,
        data=trained.data,
        split=getattr(dataset, "split_origin", None),
        semantic=embeddings_used(training, trained.data) if config.reads_semantic_embeddings else None,
        command=command(),
        versions=versions(),
        log=str(log or ""),
        peak_memory=peak_memory(config["device"]),
        efficiency=trained.efficiency,
    )
    if is_first:
        record = _write_result(config, trained, data, result)
        text = _last_screen(config, trained, result, record, training)
        # Whoever is to report it shows it; the log holds it in any case.
        _logger.info(text, extra=None if report else ON_SCREEN)
        _warn_of_what_went_wrong(config, trained)
        if report is not None:
            report(text)
    return result


def _write_result(config: RLMRecConfig, trained: _Trained, data: _Data, result: Result) -> str:
    """Write a result where it is asked for, and beside the checkpoint; return the path, empty without one."""
    record = ""
    if trained.has_record:
        write_record(trained.outcome, config.settings, data.hashes, result.__dict__)
        record = str(record_path(trained.outcome.checkpoint))
    if config["result_file"]:
        record = str(config["result_file"])
        result.write(record)
    return record


def _next_command(config: RLMRecConfig, trained: _Trained) -> str:
    """Return what to type after a run: more epochs, a look at the texts, an alignment, or a search for settings."""
    model, kept = config["model"], trained.kept
    if kept is not trained.outcome:
        return config.command("check")
    if kept.stopped == "epochs" and kept.checkpoint and config["epochs"]:
        return config.command_to_go_on(kept.checkpoint, 2 * config["epochs"])
    if config.reads_semantic_embeddings:
        return config.command("train", f"--model={model}", "--tune")
    if "_RLMRecCon" not in endings_of(model):
        return "recbole-rlmrec models"
    if config.find_data_file(f"{table_prefix(config)}.useremb.npy") is None:
        return config.command("build-semantics")
    return config.command("train", f"--model={model}_RLMRecCon")


def _use_command(config: RLMRecConfig, checkpoint: str, training: Any) -> list[str]:
    """Return the command that recommends something to a user of the training data; none where it would not work."""
    if not checkpoint or not scores_pairs(config.model_class):
        return []
    known = map(str, tokens_of(training, "user")[:1000])
    users = [user for user in known if "," not in user]  # a comma stands between two ids
    words = ["recbole-rlmrec", "recommend", f"--checkpoint={checkpoint}"]
    return [shlex.join([*words, f"--users={users[0]}"])] if users else []


@dataclass(frozen=True)
class _Data:
    """The data of a run.

    Attributes:
        loaders: of training, validation and test.
        hashes: see :func:`_data_hashes`.
    """

    loaders: Sequence[Any]
    hashes: dict[str, str]


@dataclass(frozen=True)
class _Trained:
    """What a training left; no tensors, so that the model itself can go before another is trained.

    Attributes:
        outcome: of the training.
        kept: the same, or that of the base where it validates at least as well, with a checkpoint of this model.
        popularity: ``valid`` and ``test``, all metrics of the popularity ranking; None if they are not to be had.
        start: the same of the model before its first step; None without ``init_from``.
        data: hashes of ids, interactions and embeddings.
        has_record: whether a record of it lies beside its checkpoint.
        efficiency: see :class:`Result`.
    """

    outcome: Outcome
    kept: Outcome
    popularity: dict[str, Any] | None
    start: dict[str, Any] | None
    data: dict[str, str]
    has_record: bool
    efficiency: dict[str, float]


def _train(
    config: RLMRecConfig,
    data: _Data,
    *,
    saved: bool,
    resume_from: str | None,
    base: Outcome | None,
    path: str | None = None,
    watch: Callable[[Validation], None] | None = None,
) -> _Trained:
    """Train the configuration's model and test its best epoch.

    Args:
        config: of the model.
        data: of the run.
        saved: keep the best epoch's checkpoint.
        resume_from: checkpoint whose training goes on, if any.
        base: the base that was trained first, for the checkpoint.
        path: of the checkpoint, unless another one's training goes on; None for one of the trainer's choice.
        watch: is called after each validation.
    """
    # The same in all processes: they draw the same negatives, masks and edges and take each its share of them. And the
    # same whether or not another model was trained with these loaders before.
    for loader in data.loaders:
        _rewind(loader, config["seed"])
    init_seed(config["seed"], config["reproducibility"])
    train_data, valid_data, test_data = data.loaders
    recommender = _built(config, dataset_of(train_data)).to(config["device"])
    starts_from = None if resume_from else config["init_from"]
    if starts_from:
        start_from(starts_from, recommender, dataset_of(train_data))
    _logger.info(recommender)
    # Bars are lines without end in a file.
    progress = config["show_progress"] and sys.stderr is not None and sys.stderr.isatty()
    with config.foreign_errors_said(f"The training of {config['model']} could not be prepared"):
        trainer = trainer_class(config)(config, recommender)
    trainer.saved_model_file = path or trainer.saved_model_file
    trainer.says_progress = True
    trainer.says_plateau = False  # the run does, in its last line, of what it keeps
    trainer.base_record = base.record() if base is not None else None
    try:
        if resume_from:
            trainer.resume_checkpoint(resume_from, train_data)
        start = None
        if starts_from:
            parts = {"valid": valid_data, "test": test_data}
            start = {name: trainer.result_at_start(train_data, part) for name, part in parts.items()}
        started = perf_counter()
        with _failures_said(config):
            _, valid_result = trainer.fit(
                train_data,
                valid_data,
                saved=saved,
                show_progress=progress,
                callback_fn=lambda epoch, _: watch(trainer.latest_validation(epoch)) if watch is not None else None,
            )
        seconds = perf_counter() - started
        test_result = trainer.evaluate(test_data, load_best_model=saved, show_progress=progress)
        if test_result is not None:
            # RecBole reports the test under the name of every evaluation, "eval".
            trainer.wandblogger.log_eval_metrics(test_result, head="test")
        popularity = {
            "valid": trainer.popular_valid_result or trainer.popularity_result(valid_data),
            "test": trainer.popularity_result(test_data),
        }
    finally:
        # RecBole leaves the writer's thread running, one for each run of a process.
        trainer.tensorboard.close()
    outcome = Outcome(
        model=config["model"],
        best_epoch=trainer.best_epoch,
        seconds=round(seconds, 2),
        valid=_floats(valid_result),
        test=_floats(test_result),
        checkpoint=str(trainer.saved_model_file) if saved else "",
        stopped=trainer.stopped,
        plateau=trainer.plateau_message,
    )
    # One that goes on has other random numbers than one that was trained in one go.
    has_record = saved and not resume_from
    if has_record and this_shard().rank == 0:
        write_record(outcome, config.settings, data.hashes)
    kept = outcome
    if base is not None and not _validates_better(config, outcome, base):
        kept = replace(base, checkpoint=trainer.keep_base(base))
    return _Trained(
        outcome,
        kept,
        popularity if all(popularity.values()) else None,
        start,
        {**data.hashes, **trainer.fingerprint},
        has_record,
        _efficiency(trainer),
    )


def _efficiency(trainer: Any) -> dict[str, float]:
    """Return what a training took beside its time and memory; see :class:`Result`."""
    parameters = sum(each.numel() for each in trainer.model.parameters() if each.requires_grad)
    found = {"parameters": parameters, "epochs": len(trainer.train_loss_dict)}
    if trainer.seconds_to_best is not None:
        found["seconds_to_best"] = round(trainer.seconds_to_best, 2)
    return found


def _rewind(loader: Any, seed: int) -> None:
    """Let a loader give the batches of its first epoch again; RecBole's of a knowledge graph holds two others."""
    for part in (loader, *(getattr(loader, name, None) for name in ("general_dataloader", "kg_dataloader"))):
        generator = getattr(part, "generator", None)
        if generator is not None:
            generator.manual_seed(seed)


def _train_base_first(config: RLMRecConfig, data: _Data, *, saved: bool) -> tuple[Outcome | None, str | None]:
    """Train the base of an aligned model, as its own run would, where ``base_first`` asks for it.

    Returns:
        The base, None without one; and the checkpoint with which the aligned model's own training goes on, if any.
    """
    resume_from: str | None = config["resume_from"]
    base_class = base_of(config.model_class)
    if not config["base_first"] or base_class is None or not config.aligns:
        return None, resume_from
    if not saved or config["eval_step"] == 0 or not data.loaders[1]:
        _logger.warning(
            f"base_first: without checkpoints and validations there is nothing to choose between {config['model']} and "
            f"{base_class.__name__} by; the base is not trained."
        )
        return None, resume_from
    if resume_from:
        stored = load_checkpoint(resume_from)
        if stored["model"] == config["model"]:
            return agreed(_base_of_checkpoint(stored)), resume_from
    # Whatever is wrong with the alignment's settings or its embeddings is said now, not after the base's training.
    _built(config, dataset_of(data.loaders[0]))
    base_config = config.of_base(base_class)
    folder, settings = Path(config["checkpoint_dir"]), base_config.settings
    # What lies in a folder may differ between machines, and between two looks at it.
    free = _OF_NO_MATTER | inert(settings)  # a record of before there was the choice has not the setting
    known = agreed(_recorded(find_record(folder, base_class.__name__, settings, data.hashes, free)))
    if known is not None and not resume_from:
        _logger.info(f"{base_class.__name__}, the base, was trained before: {known.checkpoint}.", extra=ON_SCREEN)
        return known, None
    _logger.info(f"{base_class.__name__}, the base, is trained first (off with --base_first=False).", extra=ON_SCREEN)
    with run_of_board(base_config):
        base = _train(base_config, data, saved=saved, resume_from=resume_from, base=None).outcome
    _logger.info(f"{base_class.__name__} is trained. Now {config['model']}.", extra=ON_SCREEN)
    return base, None


def _data_hashes(config: RLMRecConfig, loaders: Sequence[Any]) -> dict[str, str]:
    """Return what two runs must have in common for their results to compare: ids, all columns, and how is evaluated."""
    train, valid, test = (dataset_of(loader) for loader in loaders)
    hashes = fingerprint(train, with_embeddings=False)
    for name, part in (("training", train), ("validation", valid), ("test", test)):
        content = hashlib.sha256()
        for field in sorted(part.inter_feat.interaction):
            content.update(field.encode())
            content.update(part.inter_feat[field].numpy().tobytes())
        hashes[f"{name} rows"] = content.hexdigest()
    evaluation = {key: config[key] for key in ("eval_protocol", "eval_args", "repeatable", "metrics", "topk")}
    hashes["evaluation"] = json.dumps(evaluation, sort_keys=True, default=str)
    return hashes


def _base_of_checkpoint(checkpoint: Mapping[str, Any]) -> Outcome | None:
    """Return the base that was trained before a checkpoint's model, if it is still there to be kept."""
    record = checkpoint.get("base")
    if not record:
        return None
    base = _recorded(Outcome(**record))
    if base is None:
        _logger.warning(
            f"The checkpoint of the base, '{record['checkpoint']}', is not there any more, or goes on from there: "
            "whatever it is worth, the aligned model is kept."
        )
    return base


def _recorded(outcome: Outcome | None) -> Outcome | None:
    """Return an outcome whose checkpoint holds the weights that it speaks of; None otherwise."""
    if outcome is None or not Path(outcome.checkpoint).is_file():
        return None
    stored = load_checkpoint(outcome.checkpoint)
    is_it = stored["epoch"] == outcome.best_epoch and stored["best_valid_result"] == outcome.valid
    return outcome if is_it else None


def _validates_better(config: RLMRecConfig, first: Outcome, second: Outcome) -> bool:
    """Return whether the first of two trainings has a better validation score than the second."""
    scores = [_valid_score(config, outcome.valid) for outcome in (first, second)]
    if scores[0] is None or scores[1] is None:
        return scores[1] is None
    return scores[0] > scores[1] if config["valid_metric_bigger"] else scores[0] < scores[1]


def _valid_score(config: RLMRecConfig, valid: Mapping[str, float] | None) -> float | None:
    """Return the ``valid_metric`` among all metrics of a validation."""
    return None if valid is None else valid.get(str(config["valid_metric"]).lower())


def _known_base(config: RLMRecConfig, base: Outcome | None, data: Mapping[str, str]) -> dict[str, Any] | None:
    """Return what is known of the base of an aligned model: from this run, or from a result beside this run's."""
    if base is not None:
        return {"source": "trained", "seed": config["seed"], **base.record()}
    base_class = base_of(config.model_class)
    if base_class is None:
        return None
    return recorded_base(config["result_file"], base_class.__name__, config["seed"], data)


def _last_screen(config: RLMRecConfig, trained: _Trained, result: Result, record: str, training: Any) -> str:
    """Return the results beside those of the popularity ranking and of the base, and where they lie."""
    popularity, base, aligned = trained.popularity or {}, result.base, trained.outcome
    rows: list[tuple[str, Any]] = [("popularity ranking", _both(popularity.get("valid"), popularity.get("test")))]
    if base is not None:
        of_seed = "" if base["seed"] == config["seed"] else f", seed {base['seed']}"
        rows.append((f"{base['model']} (base{of_seed})", _both(base["valid"], base["test"])))
    if trained.start is not None:
        rows.append((f"{config['model']} at its start", _both(**trained.start)))
    rows.append((config["model"], _both(aligned.valid, aligned.test)))
    commands = [*_use_command(config, trained.kept.checkpoint, training), _next_command(config, trained)]
    text = end_screen(result, table=table(rows), record=record, commands=commands)
    return text if aligned.test is not None else f"{text}\n  The split has no test part: nothing was tested."


def _both(valid: Mapping[str, float] | None, test: Mapping[str, float] | None) -> dict[str, float]:
    """Return the metrics of validation and test under names that say which they are of."""
    return {
        f"{part} {name}": value for part, of in (("valid", valid), ("test", test)) for name, value in (of or {}).items()
    }


def _warn_of_what_went_wrong(config: RLMRecConfig, trained: _Trained) -> None:
    kept = trained.kept
    if kept is not trained.outcome:
        _logger.warning(
            f"{config['model']} validates no better than its base, {kept.model}: the base is kept. Its texts may be "
            "few, poor or of other items (recbole-rlmrec check says more), or what they say is in the interactions "
            "already. The test result of this run is the base's, and so are the weights of its checkpoint."
        )
    if kept.plateau:
        _logger.warning(kept.plateau)


class Loaded(NamedTuple):
    """What a checkpoint is rebuilt to; it unpacks as what RecBole's ``load_data_and_model`` returns."""

    config: RLMRecConfig
    model: Any
    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any

    def representations(self, side: Side) -> Representations:
        """Return ids and vectors, ``[n]`` and ``[n, d]``, of ``"user"`` or ``"item"`` as NumPy arrays.

        Raises:
            SettingError: the model has no representations, or there is no such side.
        """
        return representations_of(self.model, self.dataset, side)

    def scores(self, users: Sequence[str] | None = None) -> Scores:
        """Return the scores of all items, ``[n, m]``, for some users or all of them, with the ids of both, as arrays.

        Items that a user has already are scored as well.

        Args:
            users: ids as in the data files; all users if not given.

        Raises:
            DataError: there is no such user.
            SettingError: the model scores something else than pairs of a user and an item.
        """
        return scores_of(self.model, self.dataset, users)


def load_model(
    path: str | Path,
    config_dict: Mapping[str, Any] | None = None,
    model: type | None = None,
) -> Loaded:
    """Rebuild the model of a checkpoint, and its data, in any process.

    Args:
        path: a checkpoint that :func:`run` left in ``checkpoint_dir``.
        config_dict: settings over the checkpoint's own, such as another ``data_path`` or ``gpu_id``.
        model: the model's class, if it is neither ours nor RecBole's.

    Returns:
        ``(config, model, dataset, train_data, valid_data, test_data)``, as RecBole's ``load_data_and_model``; the
        model is in evaluation mode. ``representations("user")`` and ``scores()`` of it are NumPy arrays.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit its settings.
        RLMRecError: the dataset is not where the settings say.
    """
    checkpoint = load_checkpoint(path)
    settings = {**checkpoint["settings"], "result_file": None, "resume_from": None, **(config_dict or {})}
    name, dataset_name = (settings.pop(key) for key in ("model", "dataset"))
    config = RLMRecConfig(model or name, dataset_name, config_dict=settings)
    if "eval_args" not in (config_dict or {}):
        config.asked_split = {}  # a checkpoint holds all settings, also those that nobody asked for
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    # Embeddings that training alone has read may be others by now, or not be there: no score depends on them.
    with_embeddings = flags_of(config.model_class).scores_semantic_embeddings
    check_data(checkpoint, fingerprint(dataset_of(loaders[0]), with_embeddings=with_embeddings), path)
    recommender = _built(config, dataset_of(loaders[0])).to(config["device"])
    load_weights(recommender, checkpoint, path)
    recommender.eval()
    return Loaded(config, recommender, dataset, *loaders)


def _built(config: RLMRecConfig, dataset: Any) -> Any:
    """Build a configuration's model; some of RecBole's import a package only then (KGAT: dgl).

    Raises:
        SettingError: that package is missing, the tables do not fit in memory, or others' code fails.
    """
    module = _outermost(config.model_class).__module__
    name = config["model"] if module.startswith(_KNOWN_PACKAGES) else f"{config['model']} (of {module})"
    n_nodes = sum(dataset.num(field) for field in (dataset.uid_field, dataset.iid_field) if field)
    try:
        with config.foreign_errors_said(f"{name} could not be built"), config.check_memory(n_nodes):
            return config.model_class(config, dataset)
    except ModuleNotFoundError as error:
        raise SettingError(missing_package(config["model"], error)) from error


def require_start(config: RLMRecConfig, training: Any) -> None:
    """Check that a configuration's model can begin as ``init_from`` says, without training it.

    Args:
        config: of the model.
        training: the dataset of the training data loader.

    Raises:
        SettingError: the model cannot be built; and as :func:`~recbole_rlmrec.training.starting.start_from`.
        CheckpointError: as there.
    """
    start_from(config["init_from"], _built(config, training), training)


def _failures_said(config: RLMRecConfig) -> AbstractContextManager[None]:
    """Let what a model of others raises in training be one sentence: RecBole's fail of settings, others' of faults."""
    outermost = _outermost(config.model_class)
    if outermost.__module__.startswith("recbole."):
        return config.foreign_errors_said(f"The training of {config['model']} failed")
    return failures_named("model", outermost)


def _outermost(model: type) -> type:
    """Return the class of another package that a model is or extends; the model itself where there is none."""
    bases = [base for base in model.__mro__ if issubclass(base, torch.nn.Module)]
    known = (*_KNOWN_PACKAGES, "torch.")
    return next((base for base in bases if not base.__module__.startswith(known)), model)


def _floats(metrics: Mapping[str, Any] | None) -> dict[str, float] | None:
    return None if metrics is None else {name: float(value) for name, value in metrics.items()}


def _check_writable(path: Path) -> None:
    """Find out before the training, not after it, that a result cannot be written."""
    try:
        require_writable(path)
    except OSError as error:
        raise SettingError(f"result_file='{path}' cannot be written: {error}.") from error
