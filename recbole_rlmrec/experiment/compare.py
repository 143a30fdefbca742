"""Several models with several seeds on one dataset: every cell is run once, and all of them give a table."""

from __future__ import annotations

import json
import logging
import os
import re
import statistics
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.provenance import versions
from recbole_rlmrec.errors import CheckpointError, DataError, SettingError, TrainingError
from recbole_rlmrec.experiment.cell import Cell, write_lists
from recbole_rlmrec.experiment.groups import recall_by_group, shape_of
from recbole_rlmrec.experiment.lists import RankedLists
from recbole_rlmrec.experiment.table import (
    Finished,
    Row,
    cells_of,
    csv_text,
    groups_table,
    latex,
    lists_table,
    markdown,
    notes_of,
    rows_of,
)
from recbole_rlmrec.files import atomic_path, try_lock
from recbole_rlmrec.model.registry import base_of, get_model
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.reading.regular import file_sha256
from recbole_rlmrec.wording import count

_logger = logging.getLogger(__name__)

#: What ``quick`` makes of a comparison, and what it writes on all that comes out.
QUICK = {"epochs": 3}
QUICK_SEEDS = 2
STAMP = f"quick ({QUICK['epochs']} epochs, at most {QUICK_SEEDS} seeds): not a result"

#: What the further tables show.
_SAID = {
    "Who gains": "Recall of the lists. Users are in groups of about equal size by their training interactions, and so "
    "are items: a group of items counts the test interactions with these only. p is that of the star's test within the "
    "group, not corrected; with one seed, of the paired t-test over users.",
    "Lists": "Share of the places that the popularity ranking fills with the same items; share of all items in any "
    "list; mean of -log2 of an item's share of the training interactions; Gini of how often each item is in a list.",
}

_CONDITIONS = Format("conditions of a comparison", "Choose another folder, or remove it.", allow_others=True)
_RESULT = Format("result of a training", "Give a file that --result_file wrote.", allow_others=True)


@dataclass(frozen=True)
class Conditions:
    """What all cells of a folder have in common.

    Attributes:
        dataset: its name.
        config_files: YAML files with settings.
        settings: given to every training.
        quick: whether it is only to see that all works.
        tune: trials of each model's search before; 0 for none.
        versions: of this package and of what it computes with.
        config_hashes: SHA-256 of each YAML file.
        data: hashes of the data, as a result has them; known when the first cell is done.
    """

    dataset: str
    config_files: list[str]
    settings: dict[str, Any]
    quick: bool = False
    tune: int = 0
    versions: dict[str, str] = field(default_factory=dict)
    config_hashes: list[str] = field(default_factory=list)
    data: dict[str, str] | None = None


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Attributes:
        rows: one for each model.
        folder: where the tables are.
        failed: how many cells failed.
    """

    rows: list[Row]
    folder: Path
    failed: int


def compare(
    models: Sequence[str],
    dataset: str,
    seeds: Sequence[int],
    folder: str | Path,
    *,
    config_files: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    where_read: Mapping[str, Any] | None = None,
    jobs: int = 1,
    tune: int = 0,
    added: Sequence[str | Path] = (),
    quick: bool = False,
    checkpoints: Path | None = None,
    report: Callable[[str], None] = _logger.info,
) -> Comparison:
    """Train each model with each seed, and write the table of their tests.

    Every cell runs in a process of its own. Cells that are done are not run again, so a comparison that was stopped
    goes on. A model with a base in the comparison waits for the base's cell of the same seed and takes its training
    over. A cell that fails is reported, and tried again when the comparison is called again; the others go on.

    Args:
        models: class names.
        dataset: its name.
        seeds: of the trainings.
        folder: of everything that is written; it holds one comparison.
        config_files: YAML files with settings.
        settings: for every training, over the files.
        where_read: over these, for the models that read them.
        jobs: cells at a time, each with its share of the cores.
        tune: search each model's settings first, with so many trials; 0 for none.
        added: results made elsewhere on the same data, as ``--result_file`` writes them.
        quick: three epochs and at most two seeds, to see that all works.
        checkpoints: folder of the checkpoints, where bases that have been trained are found; in the folder, if not
            given.
        report: is called with what is said on the way.

    Returns:
        The table; it is written to the folder as ``table.md``, ``.csv`` and ``.tex``, and with all that belongs to it
        as ``comparison.json``.

    Raises:
        SettingError: a model or a setting is unknown, or a number cannot be used.
        DataError: the folder holds another comparison, another process works in it, or a result is of other data.
        TrainingError: no cell came to its end.
    """
    folder = Path(folder)
    if not models or len(set(models)) < len(models):
        raise SettingError(f"models={','.join(models)}: expected one or several, each named once.")
    for name, value, least in (("seeds", len(seeds), 1), ("jobs", jobs, 1), ("tune", tune, 0)):
        if value < least:
            raise SettingError(f"{name}={value}, expected {least} or more.")
    given = {**(settings or {}), **(QUICK if quick else {})}
    if quick:
        seeds = seeds[:QUICK_SEEDS]
    of_model: dict[str, dict[str, Any]] = {}
    for model in models:
        get_model(model)
        plain = RLMRecConfig(model, dataset, list(config_files))
        of_model[model] = {**given, **{key: value for key, value in (where_read or {}).items() if plain.reads(key)}}
        # A wrong setting is said before hours.
        _require_full_ranking(RLMRecConfig(model, dataset, list(config_files), command_line=of_model[model]))
    hashes = [file_sha256(file) for file in config_files]
    conditions = Conditions(
        dataset, list(config_files), {**given, **(where_read or {})}, quick, tune, versions(), hashes
    )
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        conditions = _kept_conditions(folder, conditions)
        for path in added:
            _read_added(path, conditions)  # what is wrong with them is said before hours
        tuned = _tuned(folder, of_model, conditions, tune, jobs, report) if tune else {}
        cells = _planned(folder, of_model, seeds, conditions, tuned, checkpoints or folder / "saved")
        _drop_damaged(folder, cells, report)
        failed = _run_all(folder, cells, jobs, report)
        foreign = _join_added(folder, added, conditions)  # now that it is known of which data the cells are
        finished = [_finished(cell) for cell in cells if cell.result_path.is_file()]
        finished += [each for each in foreign if (each.model, each.seed) not in {(f.model, f.seed) for f in finished}]
        if not finished:
            raise TrainingError(f"No cell came to its end. {next(iter(failed.values()), '')}")
        names = [*models, *dict.fromkeys(each.model for each in foreign if each.model not in models)]
        rows = rows_of(names, _base_name, finished, failed)
        _write(folder, conditions, seeds, rows, finished, tuned)
    return Comparison(rows, folder, len(failed))


def _require_full_ranking(config: Any) -> None:
    """Check that the test ranks all items, as lists of them do.

    Raises:
        SettingError: it ranks some, or none.
    """
    mode = config["eval_args"]["mode"]
    of_test = mode["test"] if isinstance(mode, Mapping) else mode
    if of_test != "full":
        raise SettingError(
            f"The test's mode is '{of_test}' (eval_args): models are compared by lists of all items. Expected 'full'."
        )


def _base_name(model: str) -> str | None:
    """Return the class name of a model's base; None for one that has none, or is not known here."""
    try:
        base = base_of(get_model(model))
    except SettingError:
        return None
    return base if isinstance(base, str) or base is None else base.__name__


# ---------------------------------------------------------------------- the folder


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other processes from the same folder.

    Raises:
        DataError: another process works in it.
    """
    with (folder / ".compare.lock").open("ab") as lock:
        if not try_lock(lock.fileno()):
            raise DataError(
                f"Another comparison works in '{folder}' now. Wait until it has ended, or end it: its finished cells "
                "are kept. For a comparison of its own give another --output."
            )
        yield


def _kept_conditions(folder: Path, conditions: Conditions) -> Conditions:
    """Write the conditions of a comparison, or return those of the folder, which must be the same.

    Raises:
        DataError: they differ, or the folder holds results of unknown conditions.
    """
    path = folder / "conditions.json"
    if path.is_file():
        stored = _CONDITIONS.read(path, Conditions)
        names = ("dataset", "config_files", "config_hashes", "settings", "quick", "tune", "versions")
        differing = [
            f"{name}: {getattr(stored, name)} there, {getattr(conditions, name)} here"
            for name in names
            if getattr(stored, name) != getattr(conditions, name)
        ]
        if differing:
            raise DataError(
                f"'{folder}' holds a comparison under other conditions ({'; '.join(differing)}). Choose another "
                "--output, or give the same."
            )
        return stored
    if any((folder / "cells").glob("*.json")):
        raise DataError(f"'{folder}' holds results of unknown conditions. Choose another --output.")
    write_json(path, asdict(conditions))
    return conditions


def write_json(path: Path, content: Any) -> None:
    """Write plain values as JSON."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _require_same_data(folder: Path, data: Mapping[str, str], where: str) -> None:
    """Check that a result is of the same data as the others, and keep the hashes of the first one.

    Raises:
        DataError: it is of others; with what differs.
    """
    path = folder / "conditions.json"
    stored = _CONDITIONS.read(path, Conditions)
    # Which texts a model reads may differ; what it is trained and tested on may not.
    hashes = {name: value for name, value in data.items() if not name.endswith(" embeddings")}
    if stored.data is None:
        write_json(path, {**asdict(stored), "data": hashes})
        return
    differing = [name for name in stored.data.keys() | hashes.keys() if stored.data.get(name) != hashes.get(name)]
    if differing:
        raise DataError(
            f"{where} is of other data than the results in '{folder}': {', '.join(sorted(differing))} "
            f"{'differs' if len(differing) == 1 else 'differ'}. Results of different data or splits are not compared."
        )


# ---------------------------------------------------------------------- cells


def _planned(
    folder: Path,
    models: Mapping[str, Mapping[str, Any]],
    seeds: Sequence[int],
    conditions: Conditions,
    tuned: Mapping[str, list[str]],
    checkpoints: Path,
) -> list[Cell]:
    """Return the cells, bases first: what takes a base's training over waits for it."""
    ordered = sorted(models, key=lambda model: _base_name(model) in models)
    return [
        Cell(
            model,
            conditions.dataset,
            seed,
            [*conditions.config_files, *tuned.get(model, ())],
            {"show_progress": False, **models[model], "checkpoint_dir": str(checkpoints)},
            str(folder / "cells"),
        )
        for seed in seeds
        for model in ordered
    ]


class _Progress:
    """Says how many cells are done, and how long the rest may take."""

    def __init__(self, cells: Sequence[Cell], jobs: int, report: Callable[[str], None]) -> None:
        self._total, self._jobs, self._report = len(cells), jobs, report
        self._done = sum(cell.result_path.is_file() for cell in cells)
        self._seconds: list[float] = []
        self._lock = threading.Lock()
        if self._done:
            report(f"{self._done} of {count(self._total, 'cell')} are there already.")

    def ended(self, cell: Cell, seconds: float, outcome: str) -> None:
        with self._lock:
            self._done += 1
            self._seconds.append(seconds)
            left = self._total - self._done
            rest = f"; about {_duration(left * statistics.mean(self._seconds) / self._jobs)} left" if left else ""
            self._report(f"{cell.model}, seed {cell.seed}: {outcome} ({self._done} of {self._total}{rest})")


def _duration(seconds: float) -> str:
    """Return a time as people say it.

    >>> _duration(40), _duration(600), _duration(9000)
    ('1 min', '10 min', '2 h 30 min')
    """
    minutes = max(1, round(seconds / 60))
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _run_all(
    folder: Path, cells: Sequence[Cell], jobs: int, report: Callable[[str], None]
) -> dict[tuple[str, int], str]:
    """Run the cells that have no result; return (model, seed) -> why one failed."""
    progress = _Progress(cells, jobs, report)
    failed: dict[tuple[str, int], str] = {}
    running: set[subprocess.Popen[str]] = set()
    pending: dict[tuple[str, int], Future[None]] = {}
    is_stopped = threading.Event()

    def work(cell: Cell) -> None:
        base = pending.get((_base_name(cell.model) or "", cell.seed))
        if base is not None:
            base.result()
        if is_stopped.is_set():  # a base that was ended does not let the next one begin
            return
        begun = monotonic()
        reason = _run(cell, jobs, running)
        if reason is None:
            try:
                _check_result(folder, cell)
            except DataError as error:
                reason = str(error)
        if reason is not None:
            failed[cell.model, cell.seed] = reason
        value = "" if reason else _headline(_read_result(cell.result_path))
        progress.ended(cell, monotonic() - begun, f"failed: {reason}" if reason else value)

    with ThreadPoolExecutor(jobs) as pool:
        try:
            for cell in cells:  # a base comes first, so whoever waits for it waits for one that runs or has run
                if not cell.result_path.is_file():
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
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, _cores() // jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    with cell.log_path.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(cell.command(), stdout=log, stderr=subprocess.STDOUT, text=True, env=environment)
        running.add(process)
        try:
            status = process.wait()
        finally:
            running.discard(process)
    if status == 0 and cell.result_path.is_file():
        return None
    said = cell.log_path.read_text(encoding="utf-8", errors="replace")
    found = re.findall(r"^error: (.*)", said, re.MULTILINE) or [line for line in said.splitlines() if line.strip()][-1:]
    last = found[-1] if found else f"exit status {status}"
    return f"{last} (all of it: '{cell.log_path}')"


def _cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _check_result(folder: Path, cell: Cell) -> None:
    """Check that a result is of the folder's data; one that is not goes away.

    Raises:
        DataError: it is of others.
    """
    try:
        result = _read_result(cell.result_path)
        _require_same_data(folder, result.get("data") or {}, f"{cell.model} with seed {cell.seed}")
    except DataError:
        cell.result_path.unlink()
        raise


def _read_result(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        DataError: the file is none.
    """
    found = _RESULT.read(path, _Result)
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if not found.test_result:
        raise DataError(f"'{path}' has no test result, so there is nothing to compare.")
    return content


@dataclass(frozen=True)
class _Result:
    """What a comparison needs of a result."""

    model: str
    seed: int
    best_epoch: int
    seconds: float
    data: dict[str, str]
    test_result: dict[str, float]
    dataset: str


def _headline(result: Mapping[str, Any]) -> str:
    recalls = [name for name in result["test_result"] if name.startswith("recall@")]
    name = max(recalls or result["test_result"], key=lambda name: int(name.partition("@")[2] or 0))
    kept = ", the base was kept" if result.get("kept") == "base" else ""
    return f"test {name} {result['test_result'][name]:.4f}{kept}"


def _finished(cell: Cell) -> Finished:
    lists = RankedLists.read(cell.lists_path) if cell.lists_path.is_file() else None
    return Finished(cell.model, cell.seed, _read_result(cell.result_path), lists)


def _drop_damaged(folder: Path, cells: Sequence[Cell], report: Callable[[str], None]) -> None:
    """Remove the results of cells whose files are damaged, so that these run again.

    Raises:
        DataError: a result is of other data.
    """
    for cell in cells:
        if not cell.result_path.is_file():
            continue
        try:
            result = _finished(cell).result
        except DataError as error:
            report(f"{cell.name} runs again: {error}")
            cell.result_path.unlink()
            cell.lists_path.unlink(missing_ok=True)
            continue
        _require_same_data(folder, result["data"], f"'{cell.result_path}'")


def _read_added(path: str | Path, conditions: Conditions) -> dict[str, Any]:
    """Read a result made elsewhere.

    Raises:
        DataError: it is none, or of another dataset.
    """
    result = _read_result(Path(path))
    if result["dataset"] != conditions.dataset:
        raise DataError(
            f"'{path}' is a result on '{result['dataset']}', expected one on '{conditions.dataset}'. Results of "
            "different data are not compared."
        )
    return result


def _join_added(folder: Path, added: Sequence[str | Path], conditions: Conditions) -> list[Finished]:
    """Return results made elsewhere, with their lists where the checkpoint is there.

    Raises:
        DataError: one is no result, or of other data; or two are of one model and seed.
    """
    found: dict[tuple[str, int], Finished] = {}
    for path in map(Path, added):
        result = _read_added(path, conditions)
        model, seed = result["model"], result["seed"]
        if (model, seed) in found:
            raise DataError(f"'{path}' is the second result of {model} with seed {seed} that --add names. Give one.")
        _require_same_data(folder, result["data"], f"'{path}'")
        lists_path = folder / "cells" / "added" / f"{file_sha256(path)}.npz"  # another result has other lists
        lists_path.parent.mkdir(exist_ok=True)
        checkpoint = result.get("checkpoint") or ""
        if not lists_path.is_file() and Path(checkpoint).is_file():
            try:
                write_lists(checkpoint, lists_path)
            except CheckpointError as error:
                _logger.warning(f"'{path}' is compared by its averages alone, and not tested: {error}")
        lists = RankedLists.read(lists_path) if lists_path.is_file() else None
        found[model, seed] = Finished(model, seed, result, lists)
    return list(found.values())


# ---------------------------------------------------------------------- searches before


def _tuned(
    folder: Path,
    models: Mapping[str, Mapping[str, Any]],
    conditions: Conditions,
    trials: int,
    jobs: int,
    report: Callable[[str], None],
) -> dict[str, list[str]]:
    """Search each model's settings with the same number of trials; return model -> YAML files for its cells.

    A model with a base starts from the best of the base's search.
    """
    from recbole_rlmrec.tuning.search import tune

    found: dict[str, list[str]] = {}
    for model in sorted(models, key=lambda model: _base_name(model) in models):
        start = found.get(_base_name(model) or "", [])
        [outcome] = tune(
            model,
            conditions.dataset,
            config_file_list=[*conditions.config_files, *start],
            config_dict={**models[model], "show_progress": False, "base_first": False},
            max_evals=trials,
            output=folder / "searches",
            report=report,
        )
        found[model] = [*start, str(outcome.settings_file)]
    return found


# ---------------------------------------------------------------------- what is written


def _write(
    folder: Path,
    conditions: Conditions,
    seeds: Sequence[int],
    rows: Sequence[Row],
    finished: Sequence[Finished],
    tuned: Mapping[str, list[str]],
) -> None:
    """Write the table in its forms, and all that belongs to it."""
    lines = cells_of(rows)
    title = f"{conditions.dataset}: test results, " + (
        f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else "one seed"
    )
    stamp = [f"**{STAMP}**"] if conditions.quick else []
    said = "\n\n".join(notes_of(rows))
    parts = [markdown(lines), said]
    for heading, more in (("Who gains", groups_table(rows, finished)), ("Lists", lists_table(rows, finished))):
        parts += [f"## {heading}", _SAID[heading], markdown(more)] if more else []
    used = ", ".join(f"{name} {version}" for name, version in conditions.versions.items())
    texts = {
        "table.md": "\n\n".join([f"# {title}", *stamp, *parts, f"Seeds {', '.join(map(str, seeds))}; {used}."]) + "\n",
        "table.csv": (f"# {STAMP}\n" if conditions.quick else "") + csv_text(lines),
        "table.tex": f"% {title}{f'; {STAMP}' if conditions.quick else ''}\n{latex(lines)}\n",
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    groups = {
        f"{each.model}-{each.seed}": {
            "groups": [group.record() for group in recall_by_group(each.lists)],
            "lists": dict(shape_of(each.lists)),
        }
        for each in finished
        if each.lists is not None
    }
    content = {
        "title": title,
        "quick": conditions.quick,
        "conditions": asdict(conditions),
        "seeds": list(seeds),
        "rows": [asdict(row) for row in rows],
        "cells": groups,
        "tuned": dict(tuned),
    }
    write_json(folder / "comparison.json", content)
