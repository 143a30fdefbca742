"""The record in the folder of a tuned encoder: which model it was, and what it was tuned on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recbole_rlmrec.reading.documents import Format

_NAME = "recbole_rlmrec.json"
_RECORD = Format(
    "record of a tuned encoder",
    "Tune the encoder again, or bring the file back: it says on which training split the encoder was tuned.",
    largest=2**20,
    allow_others=True,
)


@dataclass(frozen=True)
class _Tuned:
    """What the file must say; further keys are for its readers."""

    train_sha256: str


def has_record(folder: Path) -> bool:
    """Return whether a folder says that its model was tuned by this package."""
    return (folder / _NAME).is_file()


def tuned_on(folder: Path) -> str:
    """Return the hash of the training split that a model was tuned on; empty without a record.

    Args:
        folder: of the model.

    Raises:
        DataError: the record cannot be read, or lacks the hash.
    """
    if not has_record(folder):
        return ""
    found = _RECORD.read(folder / _NAME, _Tuned).train_sha256
    if not found:
        raise _RECORD.fault(folder / _NAME, "its train_sha256 is empty")
    return found


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the record into a folder that nobody reads yet."""
    (folder / _NAME).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
