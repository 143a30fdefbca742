"""One training of a search: the same in the search's own process and in a worker's."""

from __future__ import annotations

import contextlib
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.utils.logger import RemoveColorFilter

from recbole_rlmrec.errors import RLMRecError, StoppedError
from recbole_rlmrec.quick_start import run
from recbole_rlmrec.training.machine import machine_fault
from recbole_rlmrec.training.stopping import Validation
from recbole_rlmrec.tuning.journal import Point, Pruned, Trial
from recbole_rlmrec.tuning.pruning import LEAST_VALIDATIONS

_logger = logging.getLogger(__name__)


class PrunedError(StoppedError):
    """Ends the training of a trial that lies behind others.

    Args:
        where: it was ended.
    """

    def __init__(self, where: Pruned) -> None:
        super().__init__(where)
        self.where = where


@dataclass(frozen=True)
class Task:
    """What all trials of a search have in common.

    Attributes:
        model: name or class.
        dataset: its name.
        config_files: YAML files with settings.
        config_dict: settings over the files.
        command_line: settings over everything but the trial's own.
        folder: of the search.
        console_level: of the messages that a trial may show; its log file has them all.
        threads: of PyTorch on the CPU.
    """

    model: str | type
    dataset: str
    config_files: tuple[str | Path, ...]
    config_dict: Mapping[str, Any]
    command_line: Mapping[str, Any]
    folder: Path
    console_level: str
    threads: int

    def run(
        self,
        number: int,
        parameters: Mapping[str, Any],
        checkpoint_folder: Path,
        is_behind: Callable[[int, float], bool] | None = None,
    ) -> tuple[Trial, str | None]:
        """Train with the parameters of a trial, and test the best epoch.

        A training that fails is a result, too: the search goes on. What says nothing of the parameters is raised: an
        interrupt, and faults of the machine, such as a full disk.

        Args:
            number: of the trial.
            parameters: of the trial.
            checkpoint_folder: where it leaves its checkpoint.
            is_behind: is asked after each validation, with the number of training steps and the best score so far,
                whether the trial is to be ended; not after the first few nor the last, and not while the training
                stands on the plateau of popularity, which says nothing of what comes after. The trial has a curve then.

        Returns:
            The trial, and the checkpoint it left; None if it failed or was ended.
        """
        torch.set_num_threads(self.threads)
        own = {"checkpoint_dir": str(checkpoint_folder)}
        # A search compares settings of the model itself; its base has a search of its own.
        command_line = {"show_progress": False, "base_first": False, **self.command_line, **parameters, **own}
        log = self.folder / "log" / f"{self.folder.name}-{self.dataset}-trial-{number}.log"
        started = perf_counter()
        curve: list[Point] | None = None if is_behind is None else []
        n_validations = 0

        def watch(validation: Validation) -> None:
            nonlocal n_validations
            if curve is None or is_behind is None or not math.isfinite(validation.best):
                return
            n_validations += 1
            if not curve or curve[-1].score != validation.best:
                curve.append(Point(validation.steps, validation.best))
            is_early = n_validations < LEAST_VALIDATIONS or validation.is_on_plateau
            # At its end there is nothing to be saved.
            if not is_early and not validation.is_last and is_behind(validation.steps, validation.best):
                raise PrunedError(Pruned(validation.epoch, validation.steps, validation.best))

        def ended(settings: Mapping[str, Any], **found: Any) -> Trial:
            seconds = round(perf_counter() - started, 2)
            return Trial(number, dict(parameters), seconds, dict(settings), curve=curve, **found)

        with _logged_to(log, self.console_level):
            settings: dict[str, Any] = {}
            try:
                result = run(
                    self.model,
                    self.dataset,
                    self.config_files,
                    self.config_dict,
                    command_line,
                    own_log=False,
                    watch=watch,
                )
                assert result is not None, "one process has rank 0"
                settings = result.settings
                if result.best_valid_score is None:
                    raise RLMRecError("nothing was validated")
                if not math.isfinite(result.best_valid_score):
                    raise RLMRecError(f"the valid_metric is {result.best_valid_score}")
            except PrunedError as error:
                _logger.info(f"This trial lies behind others and is ended after epoch {error.where.epoch}.")
                return ended({}, pruned=error.where), None
            except Exception as error:
                if machine_fault(error) is not None:
                    raise
                # Whatever these parameters led to.
                _logger.info("This trial failed.", exc_info=True)
                text = str(error) if isinstance(error, RLMRecError) else f"{type(error).__name__}: {error}"
                return ended(settings, error=text), None
        trial = ended(
            settings,
            score=result.best_valid_score,
            best_epoch=result.best_epoch,
            valid_result=_numbers(result.best_valid_result),
            test_result=_numbers(result.test_result),
        )
        return trial, result.checkpoint


def _numbers(metrics: Mapping[str, float] | None) -> dict[str, float] | None:
    """Return the metrics that are numbers, which a record can hold."""
    return None if metrics is None else {name: value for name, value in metrics.items() if math.isfinite(value)}


class _TrialLog(logging.FileHandler):
    """A trial's log file; a disk that takes no more of it ends the trial instead of printing at each message."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Raise what went wrong if it is the disk's fault."""
        if isinstance(sys.exc_info()[1], OSError):
            raise
        super().handleError(record)


@contextlib.contextmanager
def _logged_to(path: Path, console_level: str) -> Iterator[None]:
    """Let everything be logged to a file of its own, and only what is severe enough to the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    path.unlink(missing_ok=True)  # a link of that name would be written through
    file = _TrialLog(path, mode="w", encoding="utf-8")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s  %(message)s"))
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(console_level)
    for handler in (file, console):
        handler.addFilter(RemoveColorFilter())
    root.handlers = [file, console]
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.handlers = handlers
        root.setLevel(level)
        with contextlib.suppress(OSError):  # of a full disk was said what is to be said
            file.close()
