"""Several processes for one run: they are started here, find each other, and behave as one."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import recbole.trainer.trainer
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recbole_rlmrec.errors import RLMRecError, SettingError, TrainingError
from recbole_rlmrec.resources import n_cores
from recbole_rlmrec.settings import Range

_logger = logging.getLogger(__name__)

#: Seconds that a process has to end by itself, after an interrupt, and after another process died.
_GRACE = 5.0
_GRACE_AFTER_DEATH = 1.0
#: Seconds between two looks at a parent that nothing can wait for.
_PERIOD = 0.5

#: Minutes that processes of several machines have to find each other.
_MINUTES_TO_MEET = 10.0

#: Is set for processes that are started here, and the code with which one ends whose script trains when it is imported.
_STARTED_HERE = "RECBOLE_RLMREC_STARTED"
HAS_NO_MAIN_GUARD = 87


@dataclass(frozen=True)
class Processes:
    """The processes of a run and where they meet.

    Attributes:
        nproc: processes to start on this machine.
        world_size: processes on all machines; -1 for those of this machine.
        ip: address of the machine of rank 0, where there are several machines.
        port: a free port of it.
        group_offset: rank of this machine's first process.
    """

    nproc: int = 1
    world_size: int = -1
    ip: str = "localhost"
    port: int = 5678
    group_offset: int = 0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            SettingError: one is out of range, or they do not go together.
        """
        for name, allowed in (
            ("nproc", Range(1, whole=True)),
            ("world_size", Range(-1, whole=True)),
            ("port", Range(1, 65535, whole=True)),
            ("group_offset", Range(0, whole=True)),
        ):
            value = getattr(self, name)
            if value not in allowed or (name, value) == ("world_size", 0):
                raise SettingError(f"{name}={value!r}: expected {allowed}{' but 0' if name == 'world_size' else ''}.")
        if self.group_offset + self.nproc > self.total:
            raise SettingError(
                f"nproc={self.nproc} with group_offset={self.group_offset} needs ranks up to "
                f"{self.group_offset + self.nproc - 1}, but world_size={self.world_size} ends at {self.total - 1}. "
                "world_size counts the processes of all machines."
            )

    @property
    def total(self) -> int:
        """Number of processes on all machines."""
        return self.nproc if self.world_size < 0 else self.world_size

    @property
    def on_one_machine(self) -> bool:
        """Whether all processes are started here."""
        return self.total == self.nproc


def end_if_imported() -> None:
    """End a process that is to share a run, and would begin it again since its script does so when it is imported.

    Each process imports the script first. The process that started it says what to do; see :func:`_raise_failure`.
    """
    is_importing_main = getattr(multiprocessing.current_process(), "_inheriting", False)
    if is_importing_main and _STARTED_HERE in os.environ:
        os._exit(HAS_NO_MAIN_GUARD)


def run_in_processes(processes: Processes, work: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``work(join, *arguments)`` in each of several new processes and return what rank 0 returned.

    Args:
        processes: how many, and where they meet.
        work: a function of a module; it gets, first, a context manager factory ``join(config)`` in which the process
            belongs to the group.
        arguments: of the function; they are pickled.

    Returns:
        The result of rank 0; None on a machine that has not rank 0.

    Raises:
        RLMRecError: as raised in one of the processes; the others are stopped.
        TrainingError: a process died.
    """
    answers = mp.get_context("spawn").SimpleQueue()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="recbole_rlmrec-") as folder:
        # On one machine the processes meet in a file: no port is opened to the network, and none can be taken.
        meeting = f"file://{folder}/meeting" if processes.on_one_machine else None
        if meeting is None:
            _logger.warning(
                f"{_started(processes)}. Waiting up to {_MINUTES_TO_MEET:g} minutes for the others at "
                f"{processes.ip}:{processes.port}; give each machine the same --world_size, --ip and --port, and its "
                "--group_offset. On one machine --nproc alone is enough."
            )
        with interrupts_ignored() as hears_interrupts, marked():
            started = mp.start_processes(
                _process,
                (processes, meeting, answers, hears_interrupts, work, arguments),
                nprocs=processes.nproc,
                join=False,
                start_method="spawn",
            ).processes
        try:
            _wait(started, answers, found)
            codes = [process.exitcode for process in started]
        except KeyboardInterrupt:
            # An interrupt from the keyboard reached them as well, and rank 0 says how to go on.
            _leave_time(started, _GRACE)
            _logger.warning(f"Interrupted; all {processes.nproc} processes have ended.")
            raise
        finally:
            end_processes(started)
    _raise_failure(processes, codes, found)
    return found.get("result")


def _started(processes: Processes) -> str:
    """Say which processes of a run this machine starts."""
    return f"This machine starts {processes.nproc} of the {processes.total} processes of world_size={processes.total}"


@contextlib.contextmanager
def marked() -> Iterator[None]:
    """Let processes that are started meanwhile know by whom."""
    os.environ[_STARTED_HERE] = "1"
    try:
        yield
    finally:
        os.environ.pop(_STARTED_HERE, None)


@contextlib.contextmanager
def interrupts_ignored() -> Iterator[bool]:
    """Let processes that are started meanwhile ignore interrupts until they can answer them without a traceback.

    Yields:
        Whether they are to hear them later; not so in a background job, which ignores them itself.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may say what a signal does
        yield True
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield before != signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def _wait(started: Sequence[Any], answers: Any, found: dict[str, Any]) -> None:
    """Wait until all processes have ended, or one has failed and the others had time to say why."""
    # A process whose answer nobody takes would never end.
    while all(process.exitcode in (None, 0) for process in started) and _are_running(started, answers, found):
        pass
    until = time.monotonic() + _GRACE_AFTER_DEATH
    while time.monotonic() < until and _are_running(started, answers, found):
        pass
    _take_answers(answers, found)


def _are_running(started: Sequence[Any], answers: Any, found: dict[str, Any]) -> bool:
    """Return whether any process runs, after a moment in which answers were taken."""
    _take_answers(answers, found)
    running = [process.sentinel for process in started if process.exitcode is None]
    wait(running, timeout=0.1)
    return bool(running)


def _leave_time(started: Sequence[Any], seconds: float) -> None:
    until = time.monotonic() + seconds
    for process in started:
        process.join(timeout=max(0.0, until - time.monotonic()))


def end_processes(started: Sequence[Any]) -> None:
    """End processes that still run, also those that do not listen."""
    for end in ("terminate", "kill"):
        for process in started:
            if process.is_alive():
                getattr(process, end)()
        _leave_time(started, _GRACE)


def _raise_failure(processes: Processes, codes: Sequence[int | None], found: dict[str, Any]) -> None:
    """Raise what went wrong first, if anything did: of a process that was killed the others only notice its silence.

    Args:
        processes: of this machine.
        codes: their exit codes; minus the number of the signal that ended one; None if it did not end by itself.
        found: what they said.

    Raises:
        RLMRecError: as raised in one of them.
        SettingError: the script trains when it is imported.
        TrainingError: a process was killed, or failed otherwise.
    """
    if HAS_NO_MAIN_GUARD in codes:
        raise no_main_guard(f"nproc={processes.nproc}", "run()")
    # A library that finds its partner gone may abort its process: that is not what went wrong first.
    killed = {at: -code for at, code in enumerate(codes) if code is not None and code < 0 and -code != signal.SIGABRT}
    names = {each.value: each.name for each in signal.Signals}
    for at, number in killed.items():
        advice = (
            " The system does so where memory runs out: fewer processes, or a smaller train_batch_size or "
            "eval_batch_size, need less."
            if number == signal.SIGKILL
            else ""
        )
        raise TrainingError(
            f"The process of rank {processes.group_offset + at} was killed by signal {number} "
            f"({names.get(number, 'real-time')}); the others were ended.{advice}"
        )
    if "error" in found:
        raise found["error"]
    failed = [at for at, code in enumerate(codes) if code != 0]
    if "crash" in found or failed:
        ended = f"that of rank {processes.group_offset + failed[0]} ended with {codes[failed[0]]}." if failed else ""
        raise TrainingError(f"One of {processes.nproc} processes failed: {found.get('crash', ended)}")


def no_main_guard(setting: str, call: str) -> SettingError:
    """Return what to raise where a process ended with :data:`HAS_NO_MAIN_GUARD`.

    Args:
        setting: what asked for several processes, such as ``nproc=2``.
        call: what the script calls, such as ``run()``.
    """
    script = getattr(sys.modules["__main__"], "__file__", None)
    return SettingError(
        f"{setting}: each process imports '{script}', which calls {call} when it is imported. Put the call, and what "
        'comes before it, below the line `if __name__ == "__main__":`.'
    )


def _take_answers(answers: Any, found: dict[str, Any]) -> None:
    """Put what the processes have said so far into ``found``, by kind; the first of a kind stays."""
    while not answers.empty():
        kind, content = answers.get()
        found.setdefault(kind, content)


def _process(
    local_rank: int,
    processes: Processes,
    meeting: str | None,
    answers: Any,
    hears_interrupts: Any,
    work: Any,
    arguments: Any,
) -> None:
    """Do the work of one process; failures go to the parent as messages, not as tracebacks on the terminal."""
    end_with_parent()
    if "OMP_NUM_THREADS" not in os.environ:
        # As many threads as cores in each process would keep each other waiting.
        torch.set_num_threads(max(1, n_cores() // processes.nproc))
    rank = processes.group_offset + local_rank
    if rank != 0:
        _be_quiet()

    @contextlib.contextmanager
    def join(config: Any) -> Iterator[None]:
        with _group(config, processes, meeting, local_rank):
            yield

    try:
        if hears_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        result = work(join, *arguments)
        if rank == 0:
            answers.put(("result", result))
    except KeyboardInterrupt:
        if rank != 0:
            time.sleep(3)  # or rank 0 would lose its partner before it says how to go on
        os._exit(130)  # the parent has the same signal and speaks for all
    except RLMRecError as error:
        answers.put(("error", error))
        os._exit(2)  # without waiting for the others, who may wait for this one
    except Exception:  # whatever it is: the parent raises it, with this traceback
        answers.put(("crash", traceback.format_exc()))
        os._exit(1)


def end_with_parent() -> None:
    """End this process as soon as its parent is gone, however that ended: nobody else would."""
    parent, number = multiprocessing.parent_process(), os.getppid()

    def watch() -> None:
        if parent is not None:
            wait([parent.sentinel])
        while parent is None and os.getppid() == number:  # started by subprocess, which leaves nothing to wait for
            time.sleep(_PERIOD)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def _group(config: Any, processes: Processes, meeting: str | None, local_rank: int) -> Iterator[None]:
    """Put this process on its device and into the group while the context lasts.

    Raises:
        SettingError: there are fewer GPUs than processes.
        TrainingError: the processes of several machines did not find each other in time.
    """
    settings = config.final_config_dict
    backend = "gloo"
    if settings["device"].type == "cuda":
        if torch.cuda.device_count() < processes.nproc:
            raise SettingError(
                f"nproc={processes.nproc}, but gpu_id={settings['gpu_id']!r} gives {torch.cuda.device_count()} GPU(s): "
                "each process needs one. Name as many, such as --gpu_id=0,1, or set use_gpu to False."
            )
        settings["device"] = torch.device("cuda", local_rank)
        torch.cuda.set_device(local_rank)
        backend = "nccl"
    settings["local_rank"] = local_rank
    if processes.group_offset + local_rank != 0:
        settings["show_progress"] = False
        settings["state"] = "ERROR"
        settings["log_wandb"] = False
    if processes.on_one_machine:
        interfaces = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if interfaces else ():
            os.environ.setdefault(name, interfaces[0])
    rank = processes.group_offset + local_rank
    store = _meeting_of_machines(processes, rank) if meeting is None else None
    dist.init_process_group(backend, init_method=meeting, store=store, rank=rank, world_size=processes.total)
    yield
    # Not after a failure: closing the connection would make the others fail before this process says why.
    dist.barrier()
    dist.destroy_process_group()


def _meeting_of_machines(processes: Processes, rank: int) -> dist.TCPStore:
    """Meet the processes of the other machines.

    Raises:
        TrainingError: they did not come, or rank 0 is not where it was said to be.
    """
    wait = dt.timedelta(minutes=_MINUTES_TO_MEET)
    try:
        return dist.TCPStore(processes.ip, processes.port, processes.total, is_master=rank == 0, timeout=wait)
    except (RuntimeError, ValueError) as error:  # of which PyTorch's own errors of the network are
        said = str(error).partition("\n")[0]
        raise TrainingError(
            f"{_started(processes)}, and rank {rank} could not meet the others at {processes.ip}:{processes.port} "
            f"within {_MINUTES_TO_MEET:g} minutes: {said.rstrip('.')}. Start the others too, each with the same "
            "--world_size, --ip and --port and its --group_offset; on one machine leave out --world_size."
        ) from error


class _NoBoard:
    """Stands in for TensorBoard's writer where nothing is to be written."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **settings: None


def _be_quiet() -> None:
    """Leave log and TensorBoard files to rank 0."""
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger().setLevel(logging.ERROR)
    recbole.trainer.trainer.get_tensorboard = lambda logger: _NoBoard()
