"""What a training is worth at one look: its test result beside those of the popularity ranking and of its base."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.reading.shape import Metric, PlainValue

_logger = logging.getLogger(__name__)

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Outcome:
    """What a training found; plain values, as a result and a checkpoint hold them.

    Attributes:
        model: class name.
        best_epoch: the epoch that was tested, counted from 0.
        seconds: wall-clock time of training, validation included.
        valid: all metrics at the best epoch, as ``recall@20``; None if nothing was validated.
        test: all metrics on the test split with the best epoch's weights.
        checkpoint: the best epoch's file; empty if it was not saved.
        stopped: why the training ended, see :class:`~recbole_rlmrec.quick_start.Result`.
        plateau: what to say of a training that did not get above the popularity ranking; else empty.
    """

    model: str
    best_epoch: int
    seconds: float
    valid: dict[str, Metric] | None
    test: dict[str, Metric] | None
    checkpoint: str
    stopped: str | None
    plateau: str = ""

    def record(self) -> dict[str, Any]:
        """Return the attributes by name."""
        return asdict(self)


def write_record(
    outcome: Outcome,
    settings: Mapping[str, Any],
    data: Mapping[str, str],
    result: Mapping[str, Any] | None = None,
) -> None:
    """Write beside a checkpoint that its training came to its end, and how, so that nobody has to repeat it.

    Args:
        outcome: of the training; its checkpoint's name with the ending ``.json`` is written.
        settings: all settings of the training.
        data: hashes of its data.
        result: of the run that the training belongs to, once there is one.
    """
    content = finite({"outcome": outcome.record(), "settings": dict(settings), "data": dict(data)})
    if result is not None:
        content["result"] = finite(result)
    try:
        with atomic_path(record_path(outcome.checkpoint)) as temporary:
            temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        _logger.warning(f"The record of {outcome.checkpoint} was not written: {error}. Nothing else depends on it.")


def drop_record(checkpoint: str | Path) -> None:
    """Remove the record of a checkpoint's training, and nothing else that has its name."""
    path = record_path(checkpoint)
    if _read(path, _Record) is not None:
        path.unlink(missing_ok=True)


def record_path(checkpoint: str | Path) -> Path:
    """Return where the record of a checkpoint's training lies."""
    return Path(checkpoint).with_suffix(".json")


def finite(value: Any) -> Any:
    """Return plain values as JSON can hold them: a number that is none, or infinite, as its name."""
    if isinstance(value, Mapping):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def find_record(
    folder: Path, model: str, settings: Mapping[str, Any], data: Mapping[str, str], free: Container[str]
) -> Outcome | None:
    """Return a training that came to its end in a folder of checkpoints, with the same settings and data.

    Args:
        folder: of checkpoints.
        model: class name.
        settings: all settings.
        data: hashes of the data; those of embeddings do not count.
        free: settings that may differ.
    """
    settings = finite(settings)
    for path in sorted(folder.glob(f"{model}-*.json"), reverse=True):
        record = _read(path, _Record)
        if record is None or record.outcome.model != model or not _same_data(record.data, data):
            continue
        known = record.settings.keys() | settings.keys()
        is_same = all(record.settings.get(name) == settings.get(name) for name in known if name not in free)
        if is_same and Path(record.outcome.checkpoint).is_file():
            return record.outcome
    return None


@dataclass(frozen=True)
class _Record:
    """What :func:`write_record` writes."""

    outcome: Outcome
    settings: dict[str, Any]
    data: dict[str, str]


@dataclass(frozen=True)
class _Result:
    """What is read of a file that ``result_file`` names."""

    model: str
    data: dict[str, str]
    test_result: dict[str, Metric]
    best_valid_result: dict[str, Metric] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class _RecordOfRun:
    """What :func:`write_record` writes of a whole run."""

    result: dict[str, PlainValue]


#: End of the name of an aligned model's checkpoint with the weights of the base that was kept.
_OF_BASE = "-base"

_ANY = Format("record of a training", "", allow_others=True)
_Found = TypeVar("_Found", _Record, _Result, _RecordOfRun)


def _read(path: Path, kind: type[_Found]) -> _Found | None:
    """Return what a file holds; None where it is something else, as any file of the user's may be."""
    try:
        return _ANY.read(path, kind)
    except DataError:
        return None


def state_of(checkpoint: str | Path) -> str:
    """Return what has to be said of the training that left a checkpoint; empty where it came to its end and was kept.

    Args:
        checkpoint: of a model; its record lies beside it.
    """
    path = Path(checkpoint)
    if path.stem.endswith(_OF_BASE):
        return "the base was kept, as the aligned model validated no better: these are the base's weights"
    if _read(record_path(path), _Record) is None:
        return "its training has not ended, or its record is not beside it"
    return ""


def recorded_checkpoint_of_base(checkpoint: str | Path) -> Path | None:
    """Return the checkpoint of the base that was trained before an aligned model; None where there is none.

    Args:
        checkpoint: of the aligned model. Its record says which the base's is; it may have been moved with it.
    """
    record = _read(record_path(checkpoint), _RecordOfRun)
    base = record.result.get("base") if record is not None else None
    name = base.get("checkpoint") if isinstance(base, dict) else None
    if not isinstance(name, str) or not name:
        return None
    recorded = Path(name)
    return next((path for path in (recorded, Path(checkpoint).with_name(recorded.name)) if path.is_file()), None)


def recorded_base(result_file: str | None, base: str, seed: int, data: Mapping[str, str]) -> dict[str, Any] | None:
    """Look for a result of the base in the folder of a result file.

    Args:
        result_file: where this run's result is written; None for nowhere.
        base: class name of the base.
        seed: this run's. Where there are several results of the base, that of the same seed is taken, else the first.
        data: hashes of this run's training data; a result of other data is none.

    Returns:
        ``model``, ``test``, ``valid``, ``seed`` and ``source``, the result's path; None without one.
    """
    if not result_file:
        return None
    found: list[dict[str, Any]] = []
    for path in sorted(Path(result_file).parent.glob("*.json")):
        result = _read(path, _Result)
        if result is not None and result.model == base and _same_data(result.data, data):
            found.append(
                {
                    "model": base,
                    "source": str(path),
                    "seed": result.seed,
                    "valid": result.best_valid_result,
                    "test": result.test_result,
                }
            )
    return next((result for result in found if result["seed"] == seed), found[0] if found else None)


def _same_data(first: Mapping[str, str], second: Mapping[str, str]) -> bool:
    names = [name for name in second if not name.endswith(" embeddings")]
    return all(first.get(name) == second[name] for name in names)


def table(rows: Sequence[tuple[str, Metrics | None]]) -> str:
    """Return test results one below the other, with the gain of each over the row above.

    Args:
        rows: a name and all metrics of each, as ``recall@20``; metrics that are not to be had are left out.

    Returns:
        A few lines with the recall and NDCG, or whatever was measured, at the largest rank.

    >>> print(table([("LightGCN", {"recall@20": 0.32}), ("LightGCN_RLMRecCon", {"recall@20": 0.336})]))
                        recall@20
    LightGCN            0.3200
    LightGCN_RLMRecCon  0.3360 (+5.0%)
    """
    known = [(name, metrics) for name, metrics in rows if metrics]
    columns = _columns([metrics for _, metrics in known])
    lines = [["", *columns]]
    above: Metrics | None = None
    for name, metrics in known:
        cells = []
        for column in columns:
            change = f" ({metrics[column] / above[column] - 1:+.1%})" if above and above.get(column) else ""
            cells.append(f"{metrics[column]:.4f}{change}")
        lines.append([name, *cells])
        above = metrics
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns) + 1)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def _columns(results: Sequence[Metrics]) -> list[str]:
    """Return the names of the metrics that all results have, at the largest rank of each."""
    common = [name for name in results[0] if all(name in other for other in results)] if results else []
    largest: dict[str, tuple[int, str]] = {}
    for name in common:
        metric, _, k = name.partition("@")
        rank = int(k) if k.isdigit() else 0
        largest[metric] = max(largest.get(metric, (-1, "")), (rank, name))
    return [name for _, name in largest.values()]
