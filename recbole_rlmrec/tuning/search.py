"""Search the settings of one or several models for the best validation score, and leave them as YAML."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from recbole.trainer import HyperTuning
from recbole.utils import init_seed

from recbole_rlmrec.compat import dataset_of
from recbole_rlmrec.config import OUTPUT_SETTINGS, RLMRecConfig
from recbole_rlmrec.data.dataset import fingerprint
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.errors import SettingError, TrainingError
from recbole_rlmrec.extras import require_package
from recbole_rlmrec.resources import n_cores
from recbole_rlmrec.settings import Choice, Range, inert
from recbole_rlmrec.training.launch import end_if_imported
from recbole_rlmrec.training.machine import machine_faults_named
from recbole_rlmrec.tuning.journal import Journal, Trial
from recbole_rlmrec.tuning.proposal import ALGORITHMS, Algorithm, Proposals, trial_doc
from recbole_rlmrec.tuning.pruning import is_behind
from recbole_rlmrec.tuning.space import Space, find_space
from recbole_rlmrec.tuning.trial import Task
from recbole_rlmrec.tuning.workers import run_in_workers
from recbole_rlmrec.version import __version__
from recbole_rlmrec.wording import nearest

Tool = Literal["hyperopt", "ray", "optuna"]

#: What each tool imports; all but Optuna propose by hyperopt, and Ray Tune reads and writes its files with pyarrow.
_PACKAGES = {"hyperopt": ("hyperopt",), "ray": ("hyperopt", "ray", "pyarrow"), "optuna": ("optuna",)}
#: The extra that installs a tool, where it is called otherwise.
_EXTRAS = {"hyperopt": "tune"}

#: What may differ between the beginning of a search and its continuation, besides where it reads and writes.
_FREE_SETTINGS = OUTPUT_SETTINGS | {"model", "dataset", "worker", "log_wandb", "wandb_project"}
# What `defaults` sets is compared setting by setting, and a trial trains no base.
_FREE_SETTINGS |= {"defaults", "base_first"}


#: Of an exhaustive search; at a second each, more than a day.
_MOST_TRIALS = 100_000


def fixed_settings(config: RLMRecConfig, space: Space) -> dict[str, Any]:
    """Return the settings that must be the same when a search goes on.

    Those that change nothing are no conditions, so that a search goes on that was recorded before there were any.

    Args:
        config: of a run without a trial's settings.
        space: where is searched.
    """
    left_out = {*_FREE_SETTINGS, *inert(config.settings, space.dimensions), *space.dimensions}
    return {key: value for key, value in config.settings.items() if key not in left_out}


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        model: class name.
        dataset: its name.
        metric: the ``valid_metric`` that was searched for.
        best: the trial of the best score.
        n_trials: trials so far, failed and pruned ones included.
        n_failed: how many of them failed.
        seconds: of all trials together.
        settings_file: YAML for ``--config_files``.
        checkpoint: of the best trial.
        n_pruned: how many of them were ended because they lay behind others.
    """

    model: str
    dataset: str
    metric: str
    best: Trial
    n_trials: int
    n_failed: int
    seconds: float
    settings_file: Path
    checkpoint: Path
    n_pruned: int = 0


def tune(
    models: str | type | Sequence[str | type],
    dataset: str,
    space: str | Path = "auto",
    config_file_list: Sequence[str | Path] | None = None,
    config_dict: Mapping[str, Any] | None = None,
    command_line: Mapping[str, Any] | None = None,
    algorithm: Algorithm | None = None,
    max_evals: int | None = None,
    tool: Tool = "hyperopt",
    output: str | Path = "saved/tune",
    jobs: int | None = None,
    report: Callable[[str], None] = print,
    *,
    prune: bool | None = None,
) -> list[Outcome]:
    """Search settings for each of some models with the same budget, by the validation score.

    Every trial is a run as :func:`recbole_rlmrec.quick_start.run` does it, early stopping included. A stopped search
    goes on where it stopped when it is called again.

    Args:
        models: one or several, by name or class.
        dataset: the dataset's name.
        space: a ``.hyper`` file, a folder with one per class, or ``auto``.
        config_file_list: YAML files with settings; the trial's win.
        config_dict: settings, over the files; the trial's win.
        command_line: settings from the command line, over everything: one that is in the space is not searched.
        algorithm: ``exhaustive``, ``random``, or a tree of Parzen estimators, which ``bayes`` and ``tpe`` are the same
            word for; not given, ``tpe`` with Optuna, else ``random``.
        max_evals: different trials for each model, where the space has so many; 10, and all for ``exhaustive``.
        tool: ``hyperopt``, through RecBole's ``HyperTuning``; ``ray``, which runs trials side by side; or ``optuna``,
            which does so with several ``jobs``, and ends trials early that lie behind others.
        output: folder for a folder per dataset and model.
        jobs: trials at a time; with Ray one per GPU, or per core of the CPU, if not given, with Optuna one.
        report: takes what is said on the way, a text each.
        prune: whether Optuna ends trials that lie behind others, see :mod:`recbole_rlmrec.tuning.pruning`; it does if
            not given.

    Returns:
        What was found for each model.

    Raises:
        SettingError: an argument, the space or a setting is wrong, or a package is missing.
        TrainingError: all trials of a model failed.
        MachineError: the machine ran out of something, such as disk or memory; the next call goes on.
    """
    end_if_imported()
    _check_arguments(tool, algorithm, max_evals, jobs, prune=prune)
    names = [models] if isinstance(models, (str, type)) else list(models)
    searches: list[Search] = []
    for model in names:
        config = RLMRecConfig(model, dataset, config_file_list, config_dict, command_line)
        _check_config(config)
        found = _free_space(find_space(str(space), config.model_class), config, command_line or {}, report)
        folder = Path(output) / dataset / config["model"]
        if folder in [search.journal.folder for search in searches]:
            raise SettingError(f"{config['model']} is named twice; each model is searched once.")
        n_jobs = jobs or (_default_jobs(config) if tool == "ray" else 1)
        task = Task(
            model,
            dataset,
            tuple(config_file_list or ()),
            dict(config_dict or {}),
            dict(command_line or {}),
            folder,
            str(config.external_config_dict.get("state", "ERROR")).upper(),
            max(1, torch.get_num_threads() // n_jobs),
        )
        chosen = _algorithm_of(tool, algorithm)
        prunes = tool == "optuna" and prune is not False
        searches.append(Search(config, task, found, tool, chosen, max_evals, n_jobs, report, prunes=prunes))
    outcomes = [search.run() for search in searches]
    report(f"\n{table(outcomes)}")
    return outcomes


class Search:
    """The search for one model's settings.

    Args:
        config: of a run without a trial's settings.
        task: what all trials share.
        space: where to search.
        tool: what runs the trials.
        algorithm: what proposes them.
        max_evals: how many.
        jobs: trials at a time.
        report: takes what is said on the way.
        prunes: whether trials that lie behind others are ended.
    """

    def __init__(
        self,
        config: RLMRecConfig,
        task: Task,
        space: Space,
        tool: Tool,
        algorithm: Algorithm,
        max_evals: int | None,
        jobs: int,
        report: Callable[[str], None],
        *,
        prunes: bool = False,
    ) -> None:
        self.config, self.task, self.space, self.jobs = config, task, space, jobs
        self._tool, self._algorithm, self._report = tool, algorithm, report
        self._prunes = prunes
        self.budget = _budget(space, algorithm, max_evals)
        is_bigger_better = config["valid_metric_bigger"]
        self.proposals = _proposals(tool)(space, algorithm, config["seed"], is_bigger_better=is_bigger_better)
        conditions = {
            "model": config["model"],
            "dataset": config["dataset"],
            "tool": tool,
            "tune_algo": algorithm,
            "space": space.texts,
            "settings": fixed_settings(config, space),
            "data": _data_of(config),
        }
        if tool == "optuna":
            conditions["prune"] = prunes
        self.journal = Journal(
            task.folder, conditions, is_bigger_better=is_bigger_better, check_parameters=space.check_choice
        )

    def run(self) -> Outcome:
        """Search until the budget or the space is used up.

        Raises:
            SettingError: the folder belongs to another search, or to one with more trials.
            TrainingError: all trials failed.
            MachineError: the machine ran out of something; the trials that ran are not recorded.
        """
        with machine_faults_named(self._what_is_kept), self.journal.opened():
            self._check_budget()
            self._say_what_is_searched()
            if len(self.journal.trials) < self.budget:
                try:
                    self._run_tool()
                except KeyboardInterrupt:
                    done = len(self.journal.trials)
                    self._report(f"Interrupted after {done} of {self.budget} trials; the same command goes on.")
                    raise
            best = self._best()
            self._write_best()
        trials = self.journal.trials
        return Outcome(
            self.config["model"],
            self.config["dataset"],
            str(self.config["valid_metric"]),
            best,
            len(trials),
            sum(trial.error is not None for trial in trials),
            round(sum(trial.seconds for trial in trials), 2),
            self.journal.folder / "best.yaml",
            self.journal.folder / "best.pth",
            sum(trial.pruned is not None for trial in trials),
        )

    def _what_is_kept(self) -> str:
        """Say what becomes of a search that the machine ended."""
        return (
            f"The search has stopped, with {len(self.journal.trials)} of {self.budget} trials recorded: this is the "
            "machine's fault, not that of the settings that were tried. Make room, and the same command tries them "
            "again and goes on; settings that always need more than there is have to be taken out of the space."
        )

    def _run_tool(self) -> None:
        if self._tool == "hyperopt":
            _Tuning(self).run()
        elif self._tool == "ray":
            from recbole_rlmrec.tuning.ray_tool import run_with_ray

            run_with_ray(self)
        elif self.jobs > 1:
            run_in_workers(self)
        else:
            self._run_here()

    def _run_here(self) -> None:
        """Run the trials that are missing, one after the other."""
        while (number := self.journal.free_number()) <= self.budget:
            parameters = self.proposals.propose(number, self.journal.trials)
            assert parameters is not None, "the budget is no larger than the space"
            self.execute(number, parameters, self.is_behind)

    def is_behind(self, steps: int, best: float) -> bool:
        """Return whether a trial with this best score after so many training steps is to be ended."""
        return self._prunes and is_behind(steps, best, self.journal.trials, self.journal.gain)

    def execute(
        self, number: int, parameters: Mapping[str, Any], is_behind: Callable[[int, float], bool] | None = None
    ) -> Trial:
        """Run a trial in this process and record it; arguments as of :meth:`Task.run`."""
        trial, checkpoint = self.task.run(number, parameters, self.journal.checkpoint_folder(number), is_behind)
        self.record(trial, checkpoint)
        return trial

    def record(self, trial: Trial, checkpoint: str | None) -> None:
        """Record a finished trial and say what came of it."""
        self.journal.add(trial, checkpoint)
        best, metric = self.journal.best, self.config["valid_metric"]
        found = f"{metric} {trial.score:.4f}" if trial.score is not None else f"failed ({trial.error})"
        if trial.pruned is not None:
            found = f"pruned after epoch {trial.pruned.epoch} ({metric} {trial.pruned.score:.4f})"
        so_far = f"; best {best.score:.4f} (trial {best.number})" if best is not None and best.score is not None else ""
        self._report(
            f"{self.config['model']} trial {trial.number} of {self.budget}: {found}, {trial.seconds:.0f} s, "
            f"{_assignments(trial.parameters)}{so_far}"
        )
        if best is trial:
            self._write_best()

    def _check_budget(self) -> None:
        n_recorded = len(self.journal.trials)
        if n_recorded > self.budget:
            raise SettingError(
                f"'{self.journal.folder}' holds {n_recorded} trials of this search, more than max_evals={self.budget}: "
                "its best would be compared with that of fewer. Give --max_evals as large, or another folder with "
                "--tune_output=FOLDER."
            )

    def _say_what_is_searched(self) -> None:
        name, size, done = self.config["model"], self.space.size, len(self.journal.trials)
        among = "" if size is None else f" among {size} settings"
        going_on = f", {done} of them done" if done else ""
        self._report(f"{name} on {self.task.dataset}: {self.budget} trials ({self._algorithm}){among}{going_on}.")
        for setting, text in self.space.texts.items():
            self._report(f"  {setting} {text}")
        for _, message in self.config.notes:
            self._report(f"  {message}")
        self._report(f"  -> {self.journal.folder}")

    def _best(self) -> Trial:
        best, trials = self.journal.best, self.journal.trials
        if best is None:
            first = min(trials, key=lambda trial: trial.number)
            raise TrainingError(
                f"All {len(trials)} trials of {self.config['model']} failed; logs and record are in "
                f"'{self.journal.folder}', which is to be removed before they are tried again. The first, with "
                f"{_assignments(first.parameters)}: {first.error}"
            )
        return best

    def _write_best(self) -> None:
        best, name, path = self._best(), self.config["model"], self.journal.folder / "best.yaml"
        arguments = [f"--model={name}", f"--dataset={self.task.dataset}", f"--config_files={shlex.quote(str(path))}"]
        for key in ("data_path", "use_gpu"):
            if key in self.config.external_config_dict:
                arguments.append(shlex.quote(f"--{key}={self.config.external_config_dict[key]}"))
        self.journal.write_best(
            [
                f"{name} on {self.task.dataset}: trial {best.number}, the best of {len(self.journal.trials)} on the "
                f"validation split: {self.config['valid_metric']} {best.score} ({self._algorithm}, {self._tool}).",
                f"recbole-rlmrec {__version__}, torch {torch.__version__}, {self.config['device'].type}, "
                f"{self.task.threads} thread(s) (OMP_NUM_THREADS); others change the last digits.",
                f"Train with {' '.join(arguments)}",
            ]
        )


class _Tuning(HyperTuning):
    """RecBole's ``HyperTuning`` with proposals, trials and a record of our own.

    RecBole's reads spaces with ``eval``, repeats trials it has made, ends with the first that fails, stops before its
    budget is used up, and cannot go on where it stopped; its exhaustive search fails with hyperopt 0.2.7 and later.
    Here hyperopt is given again what was recorded before, and goes on from there.
    """

    def __init__(self, search: Search) -> None:
        super().__init__(None, search.space.expressions(), algo=self._suggest, max_evals=search.budget)
        self._search = search
        self._replayed = sorted(search.journal.trials, key=lambda trial: trial.number)
        self._n_begun = 0

    def _suggest(self, new_ids: Sequence[int], domain: Any, history: Any, seed: int) -> list[Any]:
        """Propose as hyperopt's algorithms do; without ``seed``, which another call would draw again."""
        [index] = new_ids
        if index < len(self._replayed):
            parameters: dict[str, Any] | None = self._replayed[index].parameters
        else:
            journal = self._search.journal
            parameters = self._search.proposals.propose(journal.free_number(), journal.trials)
        if parameters is None:
            return []
        return [trial_doc(history, domain, self._search.space, index, parameters)]

    def trial(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Run the trial of hyperopt's draws, or look it up, and return hyperopt's loss."""
        from hyperopt import STATUS_FAIL, STATUS_OK

        index, self._n_begun = self._n_begun, self._n_begun + 1
        if index < len(self._replayed):
            trial = self._replayed[index]
        else:
            number = self._search.journal.free_number()
            trial = self._search.execute(number, self._search.space.decode(params))
        label = self.params2str(trial.parameters)
        self.params_list.append(label)
        self.score_list.append(trial.score)
        if trial.score is None:
            return {"status": STATUS_FAIL}
        self.params2result[label] = {"best_valid_result": trial.valid_result, "test_result": trial.test_result}
        best = self._search.journal.best
        if best is not None:
            self.best_score, self.best_params, self.best_test_result = best.score, best.parameters, best.test_result
        return {"status": STATUS_OK, "loss": -self._search.journal.gain(trial.score)}

    def run(self) -> None:
        """Search as RecBole's does, with a progress bar only where there is a terminal for it."""
        from hyperopt import fmin
        from hyperopt.exceptions import AllTrialsFailed

        # That all trials failed is for the caller to say.
        with contextlib.suppress(AllTrialsFailed):
            fmin(
                self.trial,
                self.space,
                algo=self.algo,
                max_evals=self.max_evals,
                show_progressbar=sys.stderr.isatty(),
            )


def table(outcomes: Sequence[Outcome]) -> str:
    """Return what searches found as a Markdown table: validation's score, the best trial's test results, the effort."""
    tested = outcomes[0].best.test_result or {}
    largest = max((name.rpartition("@")[2] for name in tested), key=lambda k: int(k) if k.isdigit() else 0, default="")
    metrics = [name for name in tested if name.rpartition("@")[2] == largest]
    head = ["model", f"valid {outcomes[0].metric.lower()}", *(f"test {metric}" for metric in metrics)]
    counted = ["trials", "failed", *(["pruned"] if any(outcome.n_pruned for outcome in outcomes) else [])]
    rows = [[*head, *counted, "seconds", "best settings"]]
    for outcome in outcomes:
        results = outcome.best.test_result or {}
        rows.append(
            [outcome.model, f"{outcome.best.score:.4f}"]
            + [f"{results[metric]:.4f}" if metric in results else "-" for metric in metrics]
            + [str(getattr(outcome, f"n_{kind}")) for kind in counted]
            + [f"{outcome.seconds:.0f}", str(outcome.settings_file)]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _assignments(parameters: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:.6g}" if isinstance(value, float) else f"{name} {value}" for name, value in parameters.items()
    )


def _check_arguments(
    tool: str, algorithm: str | None, max_evals: int | None, jobs: int | None, *, prune: bool | None
) -> None:
    """Check what is asked for before anything is read.

    Raises:
        SettingError: a word is unknown, a number out of range, or a package is missing.
    """
    allowed: Choice | Range
    for name, value, allowed in (
        ("tool", tool, Choice(get_args(Tool))),
        ("tune_algo", algorithm, Choice(ALGORITHMS)),
        ("max_evals", max_evals, Range(1, whole=True)),
        ("jobs", jobs, Range(1, whole=True)),
    ):
        if value is not None and value not in allowed:
            near = nearest(str(value), allowed.words) if isinstance(allowed, Choice) else None
            advice = f" Did you mean {near}?" if near else ""
            raise SettingError(f"{name}={value!r}: expected {allowed}.{advice}")
    if tool == "hyperopt" and (jobs or 1) > 1:
        raise SettingError(
            f"jobs={jobs}: hyperopt takes one trial after the other; --tool=optuna and --tool=ray run several at a "
            "time."
        )
    if prune is not None and tool != "optuna":
        raise SettingError(f"prune={prune}: {tool} trains every trial to its end; --tool=optuna may end one early.")
    for package in _PACKAGES[tool]:
        require_package(package, f"A search with {tool}", f"'recbole-rlmrec[{_EXTRAS.get(tool, tool)}]'")


def _algorithm_of(tool: Tool, asked: Algorithm | None) -> Algorithm:
    """Return the algorithm of a search, of two names for one that of the tool's own."""
    estimator: Algorithm = "tpe" if tool == "optuna" else "bayes"
    if asked is None:
        return "tpe" if tool == "optuna" else "random"
    return estimator if asked in ("bayes", "tpe") else asked


def _proposals(tool: Tool) -> type[Proposals]:
    """Return the class of what a tool proposes."""
    if tool != "optuna":
        return Proposals
    from recbole_rlmrec.tuning.optuna_tool import OptunaProposals

    return OptunaProposals


def _check_config(config: RLMRecConfig) -> None:
    for key in ("result_file", "resume_from"):
        if config[key]:
            raise SettingError(
                f"{key}={config[key]!r} is for a single run; a search keeps the results of all trials in its folder."
            )
    if config["eval_step"] == 0 or config["epochs"] == 0:
        raise SettingError(
            f"eval_step={config['eval_step']}, epochs={config['epochs']}: nothing is validated, so a search has "
            "nothing to choose by."
        )


def _free_space(
    space: Space, config: RLMRecConfig, command_line: Mapping[str, Any], report: Callable[[str], None]
) -> Space:
    """Check a space, and take out of it what the command line fixes.

    Raises:
        SettingError: the space does not suit the model, or nothing is left of it.
    """
    space.check(config)
    fixed = [name for name in space.dimensions if name in command_line]
    for name in fixed:
        report(f"{config['model']}: {name} is {command_line[name]} by the command line and not searched.")
    left = space.without(fixed)
    if not left.dimensions:
        raise SettingError(f"The command line fixes everything that was to be searched: {', '.join(fixed)}.")
    return left


def _budget(space: Space, algorithm: Algorithm, max_evals: int | None) -> int:
    """Return how many trials there will be.

    Raises:
        SettingError: an exhaustive search is to end before it has tried everything, or would never end.
    """
    if algorithm != "exhaustive":
        budget = max_evals or 10
        return budget if space.size is None else min(budget, space.size)
    if space.size is None:
        next(space.grid())  # raises, and names the dimension
    assert space.size is not None
    if max_evals is not None and max_evals < space.size:
        raise SettingError(
            f"An exhaustive search of this space takes {space.size} trials, more than max_evals={max_evals}. Leave it "
            "out, make the space smaller, or give --tune_algo=random."
        )
    if space.size > _MOST_TRIALS:
        raise SettingError(
            f"An exhaustive search of this space takes {space.size:,} trials, more than {_MOST_TRIALS:,}. Make the "
            "space smaller, or give --tune_algo=random."
        )
    return space.size


def _default_jobs(config: RLMRecConfig) -> int:
    return torch.cuda.device_count() if config["device"].type == "cuda" else n_cores()


def _data_of(config: RLMRecConfig) -> dict[str, str]:
    """Return the identity of the training data; data that cannot be read is found out before the first trial."""
    init_seed(config["seed"], config["reproducibility"])
    train_data, _, _ = data_preparation(config, create_dataset(config))
    return fingerprint(dataset_of(train_data), with_embeddings=config.reads_semantic_embeddings)
