"""What the benchmarks share: timing in alternation, peak memory in a process of its own, conditions, tables.

A machine is never equally fast twice, so candidates take turns, round by round, and a ratio is the median of the
ratios within the rounds.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import os
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import TypeVar

import torch

from recbole_rlmrec.files import atomic_path

MIB = 2**20

_Answer = TypeVar("_Answer")

#: Options that name a place on this machine: the first is left out of the command shown, the second replaced.
_OUTPUT, _DATA_PATH = "--output", "--data_path"


def add_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Add the options that every benchmark has."""
    parser.add_argument("--rounds", type=int, default=rounds, help="times each candidate is timed")
    parser.add_argument("--threads", type=int, help="torch's threads; by default as many as it takes")
    parser.add_argument("--output", type=Path, help="Markdown file whose section of this benchmark is written again")
    parser.set_defaults(device="cpu")


def add_device_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmarks that compare candidates on a device."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--no-memory", action="store_true", help="leave out peak memory, a new process per figure")


def alternate(candidates: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Time the candidates in turn, round by round.

    Args:
        candidates: what to time, by name.
        rounds: how often each is timed.
        warmup: rounds before these that are not timed.

    Returns:
        Seconds of each round, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(-warmup, rounds):
        for name, run in candidates.items():
            _synchronize()
            started = perf_counter()
            run()
            _synchronize()
            if turn >= 0:
                seconds[name].append(perf_counter() - started)
    return seconds


def _synchronize() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Return how many times ``fast`` goes into ``slow``: the median over the rounds, which pair the two."""
    return statistics.median(one / other for one, other in zip(slow, fast))


def spread(values: Sequence[float], scale: float = 1e3) -> str:
    """Return ``median (least-most)`` of the values times ``scale``; milliseconds of seconds by default."""
    middle, least, most = (scale * pick(values) for pick in (statistics.median, min, max))
    return f"{number(middle)} ({number(least)}-{number(most)})"


def number(value: float) -> str:
    """Return three significant digits, without an exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def times(value: float) -> str:
    """Return a ratio as it stands in a table."""
    return f"{value:.2f}x"


def peak_memory(prepare: Callable[[], Callable[[], object]], device: str = "cpu") -> float:
    """Return by how many bytes a piece of work raises the peak memory of a fresh process.

    On the CPU the peak is that of the resident set (Linux), so libraries' scratch space counts; on a GPU it is what
    torch allocates. The work is done twice and the second time measured: what the first leaves behind, as libraries do
    that set themselves up, does not count.

    Args:
        prepare: builds the inputs and returns the work; called in the fresh process, so it must be picklable.
        device: where the work is done.
    """
    return in_fresh_process(_growth, prepare, device)


def in_fresh_process(work: Callable[..., _Answer], *arguments: object) -> _Answer:
    """Call a function in a new process, with as many threads as this one has, and return its answer."""
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(work, *arguments).result()


def _growth(prepare: Callable[[], Callable[[], object]], device: str) -> float:
    work = prepare()
    work()
    gc.collect()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        return torch.cuda.max_memory_allocated() - before
    before = reset_peak_resident()
    work()
    return peak_resident() - before


def reset_peak_resident() -> int:
    """Set this process's peak of resident memory back to what is resident now, in bytes, and return it (Linux)."""
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps what is freed, where it would hide what is taken next
    # getrusage's peak is inherited from the parent process and cannot be reset.
    Path("/proc/self/clear_refs").write_text("5")
    return memory_of("VmRSS")


def peak_resident() -> int:
    """Return the most bytes resident since the peak was reset (Linux)."""
    return memory_of("VmHWM")


def memory_of(field: str) -> int:
    """Return one of this process's memory figures in ``/proc/self/status``, in bytes (Linux)."""
    (kibibytes,) = re.findall(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kibibytes)


def conditions(device: str = "cpu") -> str:
    """Return date, machine, threads and versions, in one line."""
    machine = f"{_cpu_name()}, {os.cpu_count()} cores"
    if device != "cpu":
        machine = f"{torch.cuda.get_device_name()}, {machine}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("recbole-rlmrec", "recbole", "torch", "numpy"))
    today = datetime.date.today().isoformat()
    return f"{today}; {machine}, {torch.get_num_threads()} threads; Python {platform.python_version()}, {versions}"


def _cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", path.read_text()) if path.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is of words, the others of numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def parse(parser: argparse.ArgumentParser, given: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line (or ``given``) and set torch's threads."""
    arguments = parser.parse_args(given)
    arguments.given = sys.argv[1:] if given is None else list(given)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.output is not None:
        arguments.output = arguments.output.resolve()  # the working directory changes while data is prepared
    return arguments


def report(script: str, title: str, parts: Sequence[str], arguments: argparse.Namespace) -> None:
    """Print the results and, where asked to, put them into a Markdown file.

    Args:
        script: the benchmark's file.
        title: of the section; a section of this title is replaced, another stays.
        parts: paragraphs and tables.
        arguments: from :func:`parse`.
    """
    command = " ".join(["python", f"benchmarks/{Path(script).name}", shlex.join(_shown(arguments.given))]).strip()
    body = "\n\n".join([f"`{command}`", conditions(arguments.device), *parts])
    print(f"## {title}\n\n{body}", flush=True)
    if arguments.output is not None:
        _write_section(arguments.output, title, body)


def _shown(arguments: Sequence[str]) -> list[str]:
    shown: list[str] = []
    option = ""
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if name == _DATA_PATH:
            shown.append(f"{_DATA_PATH}=DATA")
        elif name != _OUTPUT and option not in (_DATA_PATH, _OUTPUT):
            shown.append(argument)
        option = "" if equals else name
    return shown


def _write_section(path: Path, title: str, body: str) -> None:
    text = path.read_text(encoding="utf-8") if path.is_file() else "# Results of the benchmarks\n\n"
    head, *sections = re.split(r"(?m)^(?=## )", text)
    section = f"## {title}\n\n{body}\n\n"
    titles = [part.split("\n", 1)[0] for part in sections]
    if f"## {title}" in titles:
        sections[titles.index(f"## {title}")] = section
    else:
        sections.append(section)
    with atomic_path(path) as temporary:
        temporary.write_text((head + "".join(sections)).rstrip("\n") + "\n", encoding="utf-8")
