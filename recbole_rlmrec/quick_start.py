"""Run one experiment from a configuration to its test result, and load what it left behind."""

from __future__ import annotations

import contextlib
import json
import math
import sys
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, ContextManager, Mapping, Optional, Sequence, Union

from recbole.utils import init_logger, init_seed, set_color

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.dataset import fingerprint
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.launch import Processes, run_in_processes
from recbole_rlmrec.ops.distributed import this_shard
from recbole_rlmrec.trainer import check_data, load_checkpoint, load_weights, trainer_class


@dataclass(frozen=True)
class Result:
    """What a run found.

    Attributes:
        model: class name.
        dataset: its name.
        seed: of every random number.
        settings: those the user set to something else than the defaults.
        best_epoch: the epoch that was tested, counted from 0.
        seconds: wall-clock time of training, validation included.
        best_valid_score: the ``valid_metric`` at the best epoch; None if nothing was validated.
        best_valid_result: all metrics there, as ``recall@20``; None likewise.
        test_result: all metrics on the test split with the best epoch's weights.
        checkpoint: the best epoch's file; empty if it was not saved.
    """

    model: str
    dataset: str
    seed: int
    settings: dict[str, Any]
    best_epoch: int
    seconds: float
    best_valid_score: Optional[float]
    best_valid_result: Optional[dict[str, float]]
    test_result: Optional[dict[str, float]]
    checkpoint: str

    def write(self, path: Union[str, Path]) -> None:
        """Write this result as JSON."""
        content = json.dumps(self.__dict__, indent=2, allow_nan=False) + "\n"
        with atomic_path(path) as temporary:
            temporary.write_text(content, encoding="utf-8")


def run(
    model: Union[str, type],
    dataset: str,
    config_file_list: Optional[Sequence[Union[str, Path]]] = None,
    config_dict: Optional[Mapping[str, Any]] = None,
    command_line: Optional[Mapping[str, Any]] = None,
    saved: bool = True,
    nproc: int = 1,
    world_size: int = -1,
    ip: str = "localhost",
    port: int = 5678,
    group_offset: int = 0,
    own_log: bool = True,
) -> Optional[Result]:
    """Train a model to early stopping and test its best epoch, as RecBole's ``run`` does.

    Args:
        model: name or class: ours (``LightGCN_RLMRecCon``) or any of RecBole's (``BPR``).
        dataset: the dataset's name.
        config_file_list: YAML files with settings.
        config_dict: settings, over the files.
        command_line: settings from the command line, over everything.
        saved: keep the best epoch's checkpoint; without it the last epoch is tested.
        nproc: processes on this machine that share each step; ``train_batch_size`` is that of all together, and the
            result is that of one process. On CPUs and on GPUs, of which each process takes one of ``gpu_id``.
        world_size: processes on all machines; -1 for those of this machine.
        ip: address of the machine of rank 0; only among several machines.
        port: a free port there; only among several machines.
        group_offset: rank of this machine's first process.
        own_log: log to the terminal and to a file in ``log/``; without it logging is as the caller set it up.

    Returns:
        What the run found; None on a machine that has not rank 0.

    Raises:
        RLMRecError: a setting or a data file is wrong; the message says how to mend it.
    """
    processes = Processes(nproc, world_size, ip, port, group_offset)
    arguments = (model, dataset, config_file_list, config_dict, command_line, saved, own_log)
    if processes.total == 1:
        return _run(contextlib.nullcontext, *arguments)
    result: Optional[Result] = run_in_processes(processes, _run, *arguments)
    return result


def _run(
    join: Callable[[Any], ContextManager[None]],
    model: Union[str, type],
    dataset: str,
    config_file_list: Optional[Sequence[Union[str, Path]]],
    config_dict: Optional[Mapping[str, Any]],
    command_line: Optional[Mapping[str, Any]],
    saved: bool,
    own_log: bool,
) -> Result:
    """Do the run of this process, which ``join`` makes one of a group."""
    config = RLMRecConfig(model, dataset, config_file_list, config_dict, command_line)
    with join(config):
        return _run_configured(config, saved, own_log)


def _run_configured(config: RLMRecConfig, saved: bool, own_log: bool) -> Result:
    is_first = this_shard().rank == 0
    if config["result_file"] and is_first:
        _check_writable(Path(config["result_file"]))
    init_seed(config["seed"], config["reproducibility"])
    # RecBole makes folders that are not there a moment before; of runs that begin together all but one would fail.
    if is_first and own_log:
        Path("log", config["model"]).mkdir(parents=True, exist_ok=True)
        init_logger(config)
    logger = getLogger()
    logger.info(sys.argv)
    logger.info(config)
    config.log_notes()

    full_dataset = create_dataset(config)
    logger.info(full_dataset)
    train_data, valid_data, test_data = data_preparation(config, full_dataset)
    # The same in all processes: they draw the same negatives, masks and edges and take each its share of them.
    init_seed(config["seed"], config["reproducibility"])
    recommender = config.model_class(config, train_data._dataset).to(config["device"])
    logger.info(recommender)
    Path(config["checkpoint_dir"]).mkdir(parents=True, exist_ok=True)
    trainer = trainer_class(config)(config, recommender)
    try:
        if config["resume_from"]:
            trainer.resume_checkpoint(config["resume_from"], train_data)
        started, progress = perf_counter(), config["show_progress"]
        valid_score, valid_result = trainer.fit(train_data, valid_data, saved=saved, show_progress=progress)
        seconds = perf_counter() - started
        test_result = trainer.evaluate(test_data, load_best_model=saved, show_progress=progress)
    finally:
        # RecBole leaves the writer's thread running, one for each run of a process.
        trainer.tensorboard.close()
    logger.info(set_color("best valid ", "yellow") + f": {valid_result}")
    logger.info(set_color("test result", "yellow") + f": {test_result}")

    result = Result(
        model=config["model"],
        dataset=config["dataset"],
        seed=config["seed"],
        settings=config.non_default_settings(),
        best_epoch=trainer.best_epoch,
        seconds=round(seconds, 2),
        best_valid_score=float(valid_score) if math.isfinite(valid_score) else None,
        best_valid_result=_floats(valid_result),
        test_result=_floats(test_result),
        checkpoint=str(trainer.saved_model_file) if saved else "",
    )
    if config["result_file"] and is_first:
        result.write(config["result_file"])
    return result


def load_model(
    path: Union[str, Path],
    config_dict: Optional[Mapping[str, Any]] = None,
    model: Optional[type] = None,
) -> tuple[RLMRecConfig, Any, Any, Any, Any, Any]:
    """Rebuild the model of a checkpoint, and its data, in any process.

    Args:
        path: a checkpoint that :func:`run` left in ``checkpoint_dir``.
        config_dict: settings over the checkpoint's own, such as another ``data_path`` or ``gpu_id``.
        model: the model's class, if it is neither ours nor RecBole's.

    Returns:
        ``(config, model, dataset, train_data, valid_data, test_data)``, as RecBole's ``load_data_and_model``; the
        model is in evaluation mode.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit its settings.
        RLMRecError: the dataset is not where the settings say.
    """
    checkpoint = load_checkpoint(path)
    settings = {**checkpoint["settings"], "result_file": None, "resume_from": None, **(config_dict or {})}
    name, dataset_name = (settings.pop(key) for key in ("model", "dataset"))
    config = RLMRecConfig(model or name, dataset_name, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    loaders = data_preparation(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    check_data(checkpoint, fingerprint(loaders[0]._dataset), path)
    recommender = config.model_class(config, loaders[0]._dataset).to(config["device"])
    if getattr(recommender, "scores_semantic_embeddings", False):
        check_data(checkpoint, fingerprint(loaders[0]._dataset), path)  # now that the embeddings have been read
    load_weights(recommender, checkpoint, path)
    recommender.eval()
    return (config, recommender, dataset, *loaders)


def _floats(metrics: Optional[Mapping[str, Any]]) -> Optional[dict[str, float]]:
    return None if metrics is None else {name: float(value) for name, value in metrics.items()}


def _check_writable(path: Path) -> None:
    """Find out before the training, not after it, that a result cannot be written."""
    try:
        if path.is_dir():
            raise IsADirectoryError(f"'{path}' is a folder")
        with atomic_path(path.with_name(f"{path.name}.probe")) as temporary:
            temporary.touch()
        path.with_name(f"{path.name}.probe").unlink()
    except OSError as error:
        raise SettingError(f"result_file='{path}' cannot be written: {error}.") from error
