"""Trials that run side by side, whichever tool starts the processes: which begins next, and what becomes of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.reading.shape import record_of
from recbole_rlmrec.training.machine import machine_fault
from recbole_rlmrec.tuning.journal import Journal, Trial
from recbole_rlmrec.tuning.proposal import Proposals
from recbole_rlmrec.tuning.trial import Task


class Search(Protocol):
    """What a tool needs of a search: :class:`recbole_rlmrec.tuning.search.Search` is one."""

    config: RLMRecConfig
    task: Task
    jobs: int
    budget: int
    proposals: Proposals
    journal: Journal

    def record(self, trial: Trial, checkpoint: str | None) -> None:
        """Keep a trial that has ended, and its checkpoint where it is the best."""

    def is_behind(self, steps: int, best: float) -> bool:
        """Return whether a trial with this best score after so many training steps is to be ended."""


class Running:
    """The trials of a search that run.

    Args:
        search: it proposes and records them.

    Attributes:
        fatal: why no trial can be run; None as long as they can.
    """

    def __init__(self, search: Search) -> None:
        self.fatal: str | None = None
        self._search = search
        self._trials: dict[Hashable, tuple[int, dict[str, Any]]] = {}

    def begin(self, key: Hashable) -> tuple[int, dict[str, Any]] | None:
        """Return the number and the parameters of the next trial, known by ``key`` from now on; None without one."""
        journal, running = self._search.journal, list(self._trials.values())
        number = journal.free_number([number for number, _ in running])
        if number > self._search.budget or self.fatal is not None:
            return None
        parameters = self._search.proposals.propose(number, journal.trials, [settings for _, settings in running])
        if parameters is None:
            return None
        self._trials[key] = number, parameters
        return number, parameters

    def end(self, key: Hashable, found: Mapping[str, Any] | None) -> None:
        """Record a trial that has ended, or that none can be run any more.

        Args:
            key: of the trial.
            found: from :func:`run_in_worker`; None where its process died, which says nothing of the settings, for it
                is mostly memory that ends one.
        """
        number, parameters = self._trials.pop(key)
        if found is not None and "fatal" not in found:
            self._search.record(record_of(Trial, json.loads(found["trial"])), found["checkpoint"])
        elif self.fatal is None:  # what failed first may be why others do
            self.fatal = (
                f"The process of trial {number} ({parameters}) died, perhaps for want of memory; --jobs sets how many "
                "run at a time"
                if found is None
                else found["fatal"]
            )


def run_in_worker(
    task: Task,
    number: int,
    parameters: Mapping[str, Any],
    checkpoint_folder: Path,
    is_behind: Callable[[int, float], bool] | None = None,
) -> dict[str, Any]:
    """Run a trial in a process that is not the search's; arguments as of :meth:`Task.run`.

    Returns:
        ``trial``, as text, and ``checkpoint``; or ``fatal``, a fault of the machine.
    """
    try:
        trial, checkpoint = task.run(number, parameters, checkpoint_folder, is_behind)
    except Exception as error:
        reason = machine_fault(error)
        if reason is None:
            raise
        return {"fatal": reason}
    # As text: Ray would make one level of all mappings.
    return {"trial": json.dumps(asdict(trial)), "checkpoint": checkpoint}
