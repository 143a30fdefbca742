"""The faults of the machine, where what went wrong says nothing of the settings that were tried."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

from recbole_rlmrec.errors import MachineError, RLMRecError

_logger = logging.getLogger(__name__)

#: Of an ``OSError`` that something else was raised for; one that nobody has judged is the machine's in any case.
_NAMES = (
    *("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENODEV", "ESTALE"),
    *("EMFILE", "ENFILE", "ENOMEM", "EAGAIN"),
)
_NUMBERS = frozenset(getattr(errno, name) for name in _NAMES if hasattr(errno, name))

#: What other errors say where memory, disk, files or a device failed, as PyTorch does without a class for it.
_SAID = (
    *("DefaultCPUAllocator", "can't allocate memory", "alloc_cpu.cpp", "not enough memory", "std::bad_alloc"),
    *(
        "PytorchStreamWriter",
        "inline_container.cc",
        "iostream error",
        "unable to open shared memory",
        "out of shared memory",
    ),
    *("DataLoader worker", "CUDA error"),
    *(os.strerror(number) for number in sorted(_NUMBERS)),
)
#: Too large for the GPU: the settings' own doing, since nothing else is to share it.
_TOO_LARGE = ("CUDA out of memory", "CUDA error: out of memory", "HIP out of memory", "CUBLAS_STATUS_ALLOC_FAILED")

#: What to try where memory is short.
LESS_MEMORY = (
    "Where memory is short, end other processes, or set a smaller eval_batch_size, train_batch_size or embedding_size."
)


def machine_fault(error: BaseException) -> str | None:
    """Return what failed on this machine, or None where an error is of what was computed.

    A full disk, too many open files, a drive or a device that fails, and memory of the CPU that is used up are the
    machine's: the same training may succeed at another time. Memory of a GPU that is used up is not.

    Args:
        error: what a training, a trial of a search or a cell of a table ended with.

    >>> machine_fault(OSError(28, "No space left on device"))
    'OSError: [Errno 28] No space left on device'
    >>> machine_fault(RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")) is None
    True
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MachineError) or _is_fault(cause, is_judged=cause is not error):
            return str(error) if isinstance(error, RLMRecError) else f"{type(error).__name__}: {error}".split("\n")[0]
        cause = cause.__cause__
    return None


@contextmanager
def machine_faults_named(remark: Callable[[], str], *, unless: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raise faults of the machine as one kind of error, with a remark on what is kept or wanted.

    Args:
        remark: is called when there is one; sentences to follow those of the fault.
        unless: errors that say enough by themselves.

    Raises:
        MachineError: there was one.
    """
    try:
        yield
    except Exception as error:
        reason = machine_fault(error)
        # A pipe is broken where whoever read the output has had enough.
        if reason is None or isinstance(error, (BrokenPipeError, *unless)):
            raise
        raise MachineError(f"{reason.rstrip('.')}. {remark()}".rstrip()) from error


def _is_fault(error: BaseException, *, is_judged: bool) -> bool:
    if isinstance(error, OSError):
        return not is_judged or error.errno in _NUMBERS
    if isinstance(error, MemoryError):
        return True
    said = str(error)
    if isinstance(error, torch.cuda.OutOfMemoryError) or any(text in said for text in _TOO_LARGE):
        return False
    return isinstance(error, RuntimeError) and any(text in said for text in _SAID)


def peak_memory(device: torch.device) -> dict[str, int]:
    """Return the most memory that this process has had, in bytes: ``ram``, where the system says, and ``gpu``.

    Args:
        device: where it computes.
    """
    found = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024
        found["ram"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if device.type == "cuda":
        found["gpu"] = torch.cuda.max_memory_allocated(device)
    return found


def let_logs_fail() -> None:
    """Let a log file that cannot be written be left out, with one warning, where each message would be a traceback."""
    for handler in logging.root.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handleError = partial(_leave_out, handler)  # type: ignore[method-assign]


def _leave_out(handler: logging.FileHandler, record: logging.LogRecord) -> None:
    error = sys.exc_info()[1]
    if not isinstance(error, OSError):
        logging.FileHandler.handleError(handler, record)
        return
    handler.setLevel(sys.maxsize)
    _logger.warning(f"The log '{handler.baseFilename}' cannot be written: {error}. The run goes on without it.")
