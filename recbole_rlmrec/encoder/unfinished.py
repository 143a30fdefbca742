"""Tables that are not whole yet: how far a job is, and which text each row of its tables is the vector of.

The rows of a side stand in the order of the texts, but texts may be corrected before the job goes on. So a hidden file
beside the table, ``.<dataset>.useremb.part.keys`` or ``.itememb.part.keys``, holds the job's hash and, for each text of
the job, the key by which its vector can be kept for another job (``vector_cache.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from recbole_rlmrec.encoder.vector_cache import KEY_BYTES, split_keys
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.reading.regular import open_regular
from recbole_rlmrec.reading.shape import AtLeast, Count
from recbole_rlmrec.sides import SIDES, Side

#: Room for the header of a table's file: NumPy pads that of a table of any size that can be to this length.
HEADER_BYTES = 128
Dtype = Literal["float16", "float32"]
# Rows that are read at a time.
_BLOCK_ROWS = 4096


@dataclass
class State:
    """How far a job is; what the progress file holds.

    Attributes:
        job: hash of what is encoded and how.
        dimension: length of a vector, None before the first.
        done: texts of each side that are encoded.
        zero: positions of those with an all-zero vector, which have no row.
        replacing: whether both sides are whole, so that they may take the files' names.
        encoder: the encoder's name.
        dtype: of the table.
    """

    job: str
    dimension: Annotated[int, AtLeast(1)] | None = None
    done: dict[Side, Count] = field(default_factory=lambda: dict.fromkeys(SIDES, 0))
    zero: dict[Side, list[Count]] = field(default_factory=lambda: {side: [] for side in SIDES})
    replacing: bool = False
    encoder: str = ""
    dtype: Dtype = "float32"

    def n_rows(self, side: Side) -> int:
        """Rows of the side that are written."""
        return self.done[side] - len(self.zero[side])

    def table_bytes(self, side: Side) -> int:
        """Size of the side's rows and the room for their header."""
        if self.dimension is None:
            return 0
        row_bytes = self.dimension * np.dtype(self.dtype).itemsize
        return HEADER_BYTES * (self.done[side] > 0) + self.n_rows(side) * row_bytes

    def fits(self, n_texts: Mapping[Side, int]) -> bool:
        """Whether a job of so many texts can be so far."""
        if set(self.done) != set(SIDES) or set(self.zero) != set(SIDES):
            return False
        return all(
            self.done[side] <= n_texts[side]
            and self.zero[side] == sorted(set(self.zero[side]))
            and all(position < self.done[side] for position in self.zero[side][-1:])
            and (self.dimension is not None or not self.done[side])
            for side in SIDES
        )


def write_keys(path: Path, job_sha256: str, keys: Iterable[bytes]) -> None:
    """Write the keys of a side's texts, in order, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(f"{job_sha256}\n".encode())
        file.writelines(keys)


def read_keys(path: Path, job_sha256: str) -> list[bytes]:
    """Return the keys of a side's texts; none where the file is missing, not whole, or of another job."""
    try:
        with open_regular(path) as file:
            if file.readline(len(job_sha256) + 1) != f"{job_sha256}\n".encode():
                return []
            keys = file.read()
    except OSError:
        return []
    return split_keys(keys) if not len(keys) % KEY_BYTES else []


def read_rows(
    table: Path, state: State, side: Side, keys: Sequence[bytes]
) -> Iterator[tuple[Sequence[bytes], np.ndarray]]:
    """Yield the rows of a side's unfinished table, some at a time.

    Args:
        table: its rows, behind room for a header.
        state: how far it is.
        side: ``"user"`` or ``"item"``.
        keys: those of the side's texts, in order.

    Yields:
        Keys of ``n`` texts, and their vectors, float32 ``[n, D]``; also those of zeros only.

    Raises:
        OSError: the table cannot be read.
    """
    assert state.dimension is not None, "something is done"
    has_row = np.ones(state.done[side], dtype=bool)
    has_row[state.zero[side]] = False
    with open_regular(table) as file:
        file.seek(HEADER_BYTES)
        for start in range(0, len(has_row), _BLOCK_ROWS):
            is_row = has_row[start : start + _BLOCK_ROWS]
            vectors = np.zeros((len(is_row), state.dimension), dtype=np.float32)
            read = np.fromfile(file, state.dtype, np.count_nonzero(is_row) * state.dimension)
            vectors[is_row] = read.reshape(-1, state.dimension)
            yield keys[start : start + len(is_row)], vectors
