"""Trials side by side in processes of this machine, which ask the search whether a trial is to be ended."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from recbole_rlmrec.errors import MachineError, RLMRecError
from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.training.launch import (
    HAS_NO_MAIN_GUARD,
    end_processes,
    end_with_parent,
    interrupts_ignored,
    marked,
    no_main_guard,
)
from recbole_rlmrec.tuning.running import Running, Search, run_in_worker
from recbole_rlmrec.tuning.trial import Task

#: Seconds until a process that has closed its connection has ended as well.
_GRACE = 5.0


@dataclass(frozen=True, eq=False)
class _Worker:
    """A process and this end of the connection to it."""

    process: Any
    connection: Connection


def run_in_workers(search: Search) -> None:
    """Run the trials that are missing, ``search.jobs`` at a time.

    Raises:
        MachineError: a process died, or the machine failed otherwise; the trials that ran meanwhile are recorded.
        RLMRecError: a process cannot begin.
    """
    running = Running(search)
    workers: list[_Worker] = []
    n_missing = search.budget - len(search.journal.trials)
    is_gpu = search.config["device"].type == "cuda"
    try:
        with interrupts_ignored(), marked():
            for place in range(min(search.jobs, n_missing)):
                workers.append(_started(_on_one_gpu(search.task, place) if is_gpu else search.task))
        busy: dict[Any, _Worker] = {each.connection: each for each in workers if _give(each, running, search)}
        while busy:
            for connection in wait(list(busy)):
                if not _hear(busy[connection], running, search):
                    del busy[connection]
        for worker in workers:
            worker.process.join(_GRACE)
    finally:
        # Interrupts come to this process alone; a trial that runs is tried again by the next search.
        end_processes([worker.process for worker in workers])
        for worker in workers:
            worker.connection.close()
    if running.fatal is not None:
        raise MachineError(running.fatal)


def _started(task: Task) -> _Worker:
    """Start a process, which waits for trials."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, task))
    process.start()
    there.close()  # so that the connection ends with the process
    return _Worker(process, here)


def _on_one_gpu(task: Task, place: int) -> Task:
    """Return the task for one of several processes, with one of the GPUs that are to be used."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")
    return replace(task, command_line={**task.command_line, "gpu_id": visible[place % len(visible)]})


def _give(worker: _Worker, running: Running, search: Search) -> bool:
    """Send a process the next trial, or that there is none; return whether there was one."""
    begun = running.begin(worker)
    message = None if begun is None else (*begun, search.journal.checkpoint_folder(begun[0]))
    _send(worker, message)
    return begun is not None


def _send(worker: _Worker, message: Any) -> None:
    """Send a process a message; one that has died is heard of when it is listened to."""
    with contextlib.suppress(BrokenPipeError):
        worker.connection.send(message)


def _hear(worker: _Worker, running: Running, search: Search) -> bool:
    """Answer a process that has something to say; return whether it has a trial to run after that."""
    try:
        kind, content = worker.connection.recv()
    except (EOFError, OSError):
        worker.process.join(_GRACE)
        if worker.process.exitcode == HAS_NO_MAIN_GUARD:
            raise no_main_guard(f"jobs={search.jobs}", "tune()") from None
        running.end(worker, None)
        return False
    if kind == "error":
        raise content
    if kind == "validated":
        _send(worker, search.is_behind(*content))
        return True
    running.end(worker, content)
    return _give(worker, running, search)


def _work(connection: Connection, task: Task) -> None:
    """Run the trials that come through a connection until none comes."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the search ends this process
    if isinstance(task.model, str):
        try:
            get_model(task.model)
        except RLMRecError as error:  # registered in the search's process alone, which is no fault of a trial's
            connection.send(("error", error))
            return

    def is_behind(steps: int, best: float) -> bool:
        connection.send(("validated", (steps, best)))
        return bool(connection.recv())

    while (asked := connection.recv()) is not None:
        number, parameters, folder = asked
        connection.send(("ended", run_in_worker(task, number, parameters, Path(folder), is_behind)))
