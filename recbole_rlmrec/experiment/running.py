"""The cells of a comparison that are missing: each a process of its own, several at a time."""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.experiment.cell import Cell
from recbole_rlmrec.experiment.folder import check_result, read_result
from recbole_rlmrec.model.registry import base_name_of
from recbole_rlmrec.resources import n_cores
from recbole_rlmrec.training.screen import duration
from recbole_rlmrec.wording import count


class _Progress:
    """Says how many cells are done, and how long the rest may take."""

    def __init__(self, cells: Sequence[Cell], jobs: int, report: Callable[[str], None]) -> None:
        self._total, self._jobs, self._report = len(cells), jobs, report
        self._done = sum(cell.path(".json").is_file() for cell in cells)
        self._seconds: list[float] = []
        self._lock = threading.Lock()
        if self._done:
            report(f"{self._done} of {count(self._total, 'cell')} are there already.")

    def ended(self, cell: Cell, seconds: float, outcome: str) -> None:
        with self._lock:
            self._done += 1
            self._seconds.append(seconds)
            left = self._total - self._done
            rest = f"; about {duration(left * statistics.mean(self._seconds) / self._jobs)} left" if left else ""
            self._report(f"{cell.model}, seed {cell.seed}: {outcome} ({self._done} of {self._total}{rest})")


def run_all(
    folder: Path, cells: Sequence[Cell], jobs: int, report: Callable[[str], None]
) -> dict[tuple[str, int], str]:
    """Run the cells that have no result; return (model, seed) -> why one failed."""
    progress = _Progress(cells, jobs, report)
    failed: dict[tuple[str, int], str] = {}
    running: set[subprocess.Popen[str]] = set()
    pending: dict[tuple[str, int], Future[None]] = {}
    is_stopped = threading.Event()

    def work(cell: Cell) -> None:
        base = pending.get((base_name_of(cell.model) or "", cell.seed))
        if base is not None:
            base.result()
        if is_stopped.is_set():  # a base that was ended does not let the next one begin
            return
        begun = monotonic()
        reason = _run(cell, jobs, running)
        if reason is None:
            try:
                check_result(folder, cell)
            except DataError as error:
                reason = str(error)
        if reason is not None:
            failed[cell.model, cell.seed] = reason
        value = "" if reason else _headline(read_result(cell.path(".json")))
        progress.ended(cell, monotonic() - begun, f"failed: {reason}" if reason else value)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for cell in cells:  # a base comes first, so whoever waits for it waits for one that runs or has run
                if not cell.path(".json").is_file():
                    pending[cell.model, cell.seed] = pool.submit(work, cell)
            for future in pending.values():
                future.result()
        except BaseException:
            is_stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.kill()
            raise
    return failed


def _run(cell: Cell, jobs: int, running: set[subprocess.Popen[str]]) -> str | None:
    """Run a cell in a process of its own; return why it failed, None if it did not."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, n_cores() // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    with cell.path(".txt").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(cell.command(), stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)
        running.add(process)
        try:
            status = process.wait()
        finally:
            running.discard(process)
    if status == 0 and cell.path(".json").is_file():
        return None
    said = cell.path(".txt").read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^error: (.*)", said, re.MULTILINE) or [line for line in said.splitlines() if line.strip()][-1:]
    last = found[-1] if found else f"exit status {status}"
    return f"{last} (all of it: '{cell.path('.txt')}')"


def _headline(result: Mapping[str, Any]) -> str:
    recalls = [name for name in result["test_result"] if name.startswith("recall@")]
    name = max(recalls or result["test_result"], key=lambda name: int(name.partition("@")[2] or 0))
    kept = ", the base was kept" if result.get("kept") == "base" else ""
    return f"test {name} {result['test_result'][name]:.4f}{kept}"
