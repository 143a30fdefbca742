"""The folder of a comparison: the conditions of its results, which must be one, and the results themselves."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from recbole_rlmrec.errors import CheckpointError, DataError
from recbole_rlmrec.experiment.cell import Cell, write_lists
from recbole_rlmrec.experiment.lists import RankedLists
from recbole_rlmrec.experiment.table import Finished
from recbole_rlmrec.files import atomic_path, only_one
from recbole_rlmrec.reading.documents import Format, parse_json
from recbole_rlmrec.reading.regular import file_sha256

_logger = logging.getLogger(__name__)

_CONDITIONS = Format("conditions of a comparison", "Choose another folder, or remove it.", allow_others=True)
_COMPARISON = Format("record of a comparison", "Compare again: finished cells are kept.")
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from the same folder.

    Raises:
        DataError: another process works in it.
    """
    others = (
        f"Another comparison works in '{folder}' now. Wait until it has ended, or end it: its finished cells are kept. "
        "For a comparison of its own give another --output."
    )
    with only_one(folder / ".compare.lock", others):
        yield


def kept_conditions(folder: Path, conditions: Conditions) -> Conditions:
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


def read_comparison(folder: Path) -> dict[str, Any]:
    """Read what the comparison of a folder found.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = folder / "comparison.json"
    if not path.is_file():
        raise DataError(f"'{folder}' holds no comparison.json: `recbole-rlmrec compare --output={folder}` writes one.")
    try:
        found: dict[str, Any] = parse_json(_COMPARISON.content(path))
    except ValueError as error:
        raise _COMPARISON.fault(path, error) from error
    return found


def require_same_data(folder: Path, data: Mapping[str, str], where: str) -> None:
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


def check_result(folder: Path, cell: Cell) -> None:
    """Check that a result is of the folder's data; one that is not goes away.

    Raises:
        DataError: it is of others.
    """
    try:
        result = read_result(cell.path(".json"))
        require_same_data(folder, result.get("data") or {}, f"{cell.model} with seed {cell.seed}")
    except DataError:
        cell.path(".json").unlink()
        raise


def read_result(path: Path) -> dict[str, Any]:
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


def finished_of(cell: Cell) -> Finished:
    """Return what a cell left.

    Raises:
        DataError: a file of it is damaged.
    """
    lists = RankedLists.read(cell.path(".npz")) if cell.path(".npz").is_file() else None
    return Finished(cell.model, cell.seed, read_result(cell.path(".json")), lists)


def drop_damaged(folder: Path, cells: Sequence[Cell], report: Callable[[str], None]) -> None:
    """Remove the results of cells whose files are damaged, so that these run again.

    Raises:
        DataError: a result is of other data.
    """
    for cell in cells:
        if not cell.path(".json").is_file():
            continue
        try:
            result = finished_of(cell).result
        except DataError as error:
            report(f"{cell.name} runs again: {error}")
            cell.path(".json").unlink()
            cell.path(".npz").unlink(missing_ok=True)
            continue
        require_same_data(folder, result["data"], f"'{cell.path('.json')}'")


def read_added(path: str | Path, conditions: Conditions) -> dict[str, Any]:
    """Read a result made elsewhere.

    Raises:
        DataError: it is none, or of another dataset.
    """
    result = read_result(Path(path))
    if result["dataset"] != conditions.dataset:
        raise DataError(
            f"'{path}' is a result on '{result['dataset']}', expected one on '{conditions.dataset}'. Results of "
            "different data are not compared."
        )
    return result


def join_added(folder: Path, added: Sequence[str | Path], conditions: Conditions) -> list[Finished]:
    """Return results made elsewhere, with their lists where the checkpoint is there.

    Raises:
        DataError: one is no result, or of other data; or two are of one model and seed.
    """
    found: dict[tuple[str, int], Finished] = {}
    for path in map(Path, added):
        result = read_added(path, conditions)
        model, seed = result["model"], result["seed"]
        if (model, seed) in found:
            raise DataError(f"'{path}' is the second result of {model} with seed {seed} that --add names. Give one.")
        require_same_data(folder, result["data"], f"'{path}'")
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
