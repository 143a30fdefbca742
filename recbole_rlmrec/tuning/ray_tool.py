"""Trials side by side, with Ray Tune: in processes of this machine that nothing outside it can reach."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray._private import ray_constants
from ray.tune.search import Searcher

from recbole_rlmrec.errors import MachineError
from recbole_rlmrec.tuning.running import Running, Search, run_in_worker
from recbole_rlmrec.tuning.trial import Task

#: Read by Ray where it starts. Without them it opens ports to the network that ask for no password, reports its use to
#: its makers, writes each trial's results in three more formats, takes an interrupt for the wish to finish the trials
#: that run, prints tables where it was asked to print nothing, and changes a worker's folder.
_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}


#: Of Ray's files while it runs; whatever is in a folder of this name is removed in the end.
_FOLDER = ".ray-of-trials"


def run_with_ray(search: Search) -> None:
    """Run the trials that are missing, ``search.jobs`` at a time.

    RecBole's objective reads the command line of its process, which a worker of Ray has not (RecBole#1990), reports the
    test's results, and reports even where no Ray runs (RecBole#1741). Ours gets all it needs as arguments.
    """
    os.environ.update(_ENVIRONMENT)
    ray_constants.ENABLE_RAY_CLUSTER = False  # this process may have read the first of them before
    is_gpu = search.config["device"].type == "cuda"
    folder = search.journal.folder.resolve() / _FOLDER
    task, here, checkpoints = search.task, os.getcwd(), search.journal.checkpoint_folder

    def trainable(config: dict[str, Any]) -> dict[str, Any]:
        os.chdir(here)  # where data_path counts from
        return _run_in_worker(task, config["number"], config["parameters"], checkpoints(config["number"]))

    proposing = _Proposing(search)

    ray.init(
        address="local",
        num_cpus=search.jobs,
        object_store_memory=2**27,  # nothing is kept there; by default Ray reserves a third of the memory
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        gpus = ray.cluster_resources().get("GPU", 0) / search.jobs if is_gpu else 0
        tuner = tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1, "gpu": min(gpus, 1)}),
            tune_config=tune.TuneConfig(
                search_alg=proposing,
                num_samples=search.budget,
                max_concurrent_trials=search.jobs,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(storage_path=str(folder), verbose=0),
        )
        tuner.fit()
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    if proposing.fatal is not None:
        raise MachineError(proposing.fatal)


def _run_in_worker(task: Task, number: int, parameters: dict[str, Any], checkpoint_folder: Path) -> dict[str, Any]:
    """Run a trial on what Ray gave this worker."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible:
        # RecBole would set the variable to gpu_id, the same GPU for every worker.
        task = replace(task, command_line={**task.command_line, "gpu_id": visible})
    return run_in_worker(task, number, parameters, checkpoint_folder)


class _Proposing(Searcher):
    """Ray's view of a search: it asks for trials and reports what came of them.

    Args:
        search: it proposes and records them.
    """

    def __init__(self, search: Search) -> None:
        super().__init__()
        self._running = Running(search)

    @property
    def fatal(self) -> str | None:
        """Why no trial can be run; None as long as they can."""
        return self._running.fatal

    def suggest(self, trial_id: str) -> Any:
        """Return the next trial's number and parameters, or that there is none."""
        begun = self._running.begin(trial_id)
        if begun is None:
            return Searcher.FINISHED
        number, parameters = begun
        return {"number": number, "parameters": parameters}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Record a trial; a worker that died has no result that says what came of it."""
        has_said = result is not None and not error and not result.keys().isdisjoint({"trial", "fatal"})
        self._running.end(trial_id, result if has_said else None)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the journal has everything."""
