"""What is the machine's fault, and what that of the settings."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_rlmrec.errors import CheckpointError, DataError, MachineError, TrainingError
from recbole_rlmrec.training.machine import let_logs_fail, machine_fault, machine_faults_named


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    "error",
    [
        *map(of, (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.EIO, errno.EROFS, errno.ENOMEM)),
        OSError("disk full"),
        MemoryError(),
        MemoryError("Unable to allocate 7.45 GiB for an array"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed writing file data/0"),
        RuntimeError("basic_ios::clear: iostream error"),
        RuntimeError("Too many open files. Communication with the workers is no longer possible."),
        RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        MachineError("a trial's process died"),
        caused(DataError("cannot write"), of(errno.ENOSPC)),
        caused(CheckpointError("unreadable"), caused(RuntimeError("x"), MemoryError())),
    ],
)
def test_the_machine_s(error: Exception) -> None:
    said = machine_fault(error)
    assert said is not None and str(error) in said
    with pytest.raises(MachineError, match="Make room") as raised, machine_faults_named(lambda: "Make room."):
        raise error
    assert raised.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        TrainingError("The training loss of epoch 3 is not finite"),
        ValueError("No space left on device"),
        caused(DataError("no such file"), FileNotFoundError(errno.ENOENT, "No such file or directory")),
    ],
)
def test_the_settings(error: Exception) -> None:
    assert machine_fault(error) is None
    with pytest.raises(type(error)) as raised, machine_faults_named(lambda: "Make room."):
        raise error
    assert raised.value is error


def test_what_torch_says_of_too_much_memory() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**14)
    assert machine_fault(raised.value) is not None


def test_a_reader_that_has_had_enough_is_nobody_s_fault() -> None:
    with pytest.raises(BrokenPipeError), machine_faults_named(lambda: ""):
        raise BrokenPipeError


def test_a_log_that_cannot_be_written_is_left_out_with_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: Any
) -> None:
    handler = logging.FileHandler(tmp_path / "run.log", encoding="utf-8")
    monkeypatch.setattr(logging.root, "handlers", [handler, *logging.root.handlers])
    let_logs_fail()
    logger = logging.getLogger("some")
    logger.error("before")

    def full(text: str) -> None:
        raise of(errno.ENOSPC)

    monkeypatch.setattr(handler.stream, "write", full)
    for number in range(3):
        logger.error(f"after {number}")
    assert capsys.readouterr().err == ""
    assert [record.getMessage() for record in caplog.records if "run.log" in record.getMessage()] == [
        f"The log '{tmp_path / 'run.log'}' cannot be written: [Errno 28] No space left on device. The run goes on "
        "without it."
    ]
    monkeypatch.undo()
    handler.close()
    assert (tmp_path / "run.log").read_text() == "before\n"
