"""Semantic embeddings (language-model profile embeddings) of one side, keyed by original id.

On disk, beside RecBole's atomic files, a side is either a pair written by us or an atomic file written for RecBole:

- ``<dataset>.useremb.npy``, float16 or float32 ``[n, D]``, with ``<dataset>.useremb.tokens``: one original id per line,
  UTF-8, in row order;
- ``<dataset>.useremb``: text, header such as ``uid:token<TAB>user_emb:float_seq``, one row per id.

The other side is ``itememb``. Rows meet RecBole's internal ids by token, never by position, and an id without a usable
row is a hole: uncovered, without an embedding. A mask says so, not a zero vector.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, DTypeLike

from recbole_rlmrec.data.atomic_file import CONTROL, LONGEST_ID, object_array, token_fault
from recbole_rlmrec.data.embedding_files import (
    half_pair_message,
    missing_message,
    read_atomic_file,
    read_tokens,
    read_vectors,
    stem_of,
    to_float32,
)
from recbole_rlmrec.data.file_set import FileSet, require_whole
from recbole_rlmrec.data.join_report import Join, nothing_covered, report_join
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.recbole_names import PAD_TOKEN
from recbole_rlmrec.sides import Side
from recbole_rlmrec.wording import count, examples

# Rows are read in blocks of about this size, so that a memory map larger than memory can be checked and joined.
BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, eq=False)
class SemanticEmbedding:
    """The semantic embeddings of one side and the original ids of their rows; not to be changed once built.

    Attributes:
        tokens: original ids, text as objects ``[n]``.
        vectors: ``[n, D]``, float16 or float32; may be a read-only memory map.
        source: path or description, for messages.
        side: ``"user"`` or ``"item"``, for messages; None where it is not known.
    """

    tokens: np.ndarray
    vectors: np.ndarray
    source: str
    side: Side | None = None

    @classmethod
    def from_arrays(cls, tokens: ArrayLike, vectors: ArrayLike, side: Side | None = None) -> SemanticEmbedding:
        """Build and check a table from what encoders return: lists, NumPy arrays or CPU tensors of any float type.

        Args:
            tokens: ``[n]`` original ids.
            vectors: ``[n, D]``; anything but float16 becomes float32.
            side: ``"user"`` or ``"item"``.

        Raises:
            DataError: see :meth:`check`.

        >>> table = SemanticEmbedding.from_arrays(["12", "77"], [[1, 0, 0], [0, 1, 0]], side="item")
        >>> table.dimension, table.vectors.dtype.name, table.tokens.tolist()
        (3, 'float32', ['12', '77'])
        """
        try:
            table = np.asarray(vectors)
            table = table if table.dtype in (np.float16, np.float32) else to_float32(table)
        except ValueError as error:
            raise DataError(
                f"The given vectors are no table of numbers ({error}). Give [n, D]: vectors of one length, one for "
                "each of the tokens."
            ) from error
        embedding = cls(object_array(tokens), table, "the given vectors", side)
        embedding.check()
        return embedding

    @property
    def dimension(self) -> int:
        """Length ``D`` of a vector."""
        return int(self.vectors.shape[1])

    @cached_property
    def peaks(self) -> np.ndarray:
        """Largest magnitude in each row, float ``[n]``: 0 for an all-zero row, NaN or infinite for a bad one.

        Computed once, in one pass by blocks: the table may be far larger than memory.
        """
        n_rows = self.vectors.shape[0]
        peaks = np.empty(n_rows, dtype=self.vectors.dtype)
        for block in _blocks(n_rows, self.vectors[:1].nbytes):
            peaks[block] = np.abs(self.vectors[block]).max(axis=1)
            self.release()
        return peaks

    @cached_property
    def _file(self) -> _OpenFile | None:
        """The file of a memory map, which stays open: another that takes its name later is not read. Else None."""
        return _OpenFile(str(self.vectors.filename)) if isinstance(self.vectors, np.memmap) else None

    def require_unchanged(self) -> None:
        """Check that the file of a memory map is as it was; one that is replaced or removed is still there for us.

        Raises:
            DataError: it was written to.
        """
        if self._file is not None:
            self._file.require_unchanged()

    def rows(self, chosen: np.ndarray) -> np.ndarray:
        """Return some rows, ``[n, D]``; those of a memory map are read from its file.

        Through the map, each row would come with up to a huge page around it, and scattered rows with the whole file.

        Args:
            chosen: row numbers, int64 ``[n]``.

        Raises:
            DataError: the file was written to since it was loaded.
        """
        vectors: Any = self.vectors
        if self._file is None or not vectors.flags.c_contiguous or not hasattr(os, "preadv"):
            taken: np.ndarray = vectors[chosen]
            return taken
        found = np.empty((len(chosen), vectors.shape[1]), dtype=vectors.dtype)
        self._file.read_rows(found, chosen, vectors.offset)
        return found

    def release(self) -> None:
        """Give back the memory of the pages read so far, where the vectors are a memory map; reading goes on as before.

        Without it a process grows by every page it ever touched until the system takes them away.
        """
        mapped = getattr(self.vectors, "_mmap", None)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)

    def check(self) -> None:
        """Check that the table is well-formed.

        Raises:
            DataError: the vectors are not a finite float16 or float32 ``[n, D]`` with n and D of at least 1, or the
                tokens are not n different, non-empty ids without line breaks or other control characters.
        """
        self.require_unchanged()
        self._check_vectors()
        self._check_tokens()
        self._check_finite()

    def _check_vectors(self) -> None:
        """Check the shape and dtype of the vectors."""
        if self.vectors.ndim != 2:
            raise DataError(
                f"{self.source}: the array has shape {self.vectors.shape}, expected [n, D]: one row per id."
            )
        if 0 in self.vectors.shape:
            raise DataError(
                f"{self.source}: the array has shape {self.vectors.shape}, expected [n, D] with n and D of at least 1. "
                "Write the embeddings again."
            )
        if self.vectors.dtype not in (np.float16, np.float32):
            raise DataError(
                f"{self.source}: the array has dtype {self.vectors.dtype}, expected float16 or float32. "
                "Save it again with vectors.astype('float32')."
            )

    def _check_tokens(self) -> None:
        """Check the number and the spelling of the tokens."""
        tokens = self.tokens.tolist()
        n_rows, n_empty = self.vectors.shape[0], tokens.count("")
        if len(tokens) != n_rows:
            blank = f" ({n_empty} of them empty: are there blank lines?)" if n_empty else ""
            raise DataError(
                f"{self.source}: the files hold {count(n_rows, 'row')} and {count(len(tokens), 'token')}{blank}, "
                "expected one token for each row, in row order. Write both files again from the same table."
            )
        if n_empty:
            raise DataError(
                f"{self.source}: the token of row {tokens.index('')} is empty, expected an original id. "
                "Write the id, or leave the row out of both files."
            )
        if CONTROL.search("".join(tokens)) or len(max(tokens, key=len)) > LONGEST_ID:
            row, fault = next((row, fault) for row, token in enumerate(tokens) if (fault := token_fault(token)))
            raise DataError(
                f"{self.source}: the token of row {row}, {tokens[row]!r:.80}, {fault}, but the tokens file has one id "
                "per line. Correct the id."
            )
        self._check_unique(pd.Index(tokens, dtype=object))

    def _check_unique(self, index: pd.Index) -> None:
        """Check that no token stands for two rows."""
        if index.is_unique:
            return
        repeated = index[index.duplicated()].unique()
        raise DataError(
            f"{self.source}: {count(len(repeated), 'token')} on more than one row, e.g. {examples(repeated, 5)}. "
            "Keep one row per id."
        )

    def _check_finite(self) -> None:
        """Check that every value is a finite number."""
        bad = np.flatnonzero(~np.isfinite(self.peaks))
        if bad.size:
            raise DataError(
                f"{self.source}: row {bad[0]} (token {str(self.tokens[bad[0]])!r}) holds a value that is NaN, infinite "
                f"or too large for {self.vectors.dtype}; {count(bad.size, 'such row')} in all. "
                "Encode the profile again, or leave the row out of both files, which makes the id a hole."
            )

    @classmethod
    def load(
        cls,
        directories: Sequence[Path],
        dataset: str,
        side: Side,
        *,
        memory_map: bool = False,
        field_separator: str = "\t",
        seq_separator: str = " ",
        command: str = "",
    ) -> SemanticEmbedding:
        r"""Load one side from the first directory that holds it; a ``.npy`` pair goes before an atomic file.

        Args:
            directories: folders to search, in order.
            dataset: RecBole's dataset name, the first part of the file names.
            side: ``"user"`` or ``"item"``.
            memory_map: leave the vectors of a ``.npy`` pair on disk. float64 and atomic files are always read into
                memory, because their values have to be converted.
            field_separator: RecBole's ``field_separator``, between the columns of an atomic file.
            seq_separator: RecBole's ``seq_separator``, between the values of a vector in an atomic file.
            command: the command line that makes the files of texts, for the message where there are none.

        Raises:
            DataError: nothing was found, only half a pair was found, what was found is malformed, or what replaced it
                was stopped in between.
            ValueError: ``side`` is not one of ``SIDES``.
        """
        stem = stem_of(dataset, side)
        folders = [Path(directory) for directory in directories]
        for folder in folders:
            vectors_path, tokens_path = folder / f"{stem}.npy", folder / f"{stem}.tokens"
            atomic_file = folder / stem
            require_whole(folder, dataset, (vectors_path.name, tokens_path.name, stem))
            if vectors_path.is_file() and tokens_path.is_file():
                tokens, vectors = read_tokens(tokens_path), read_vectors(vectors_path, memory_map=memory_map)
                return cls._checked(tokens, vectors, str(vectors_path), side)
            # Going on to another file here could train, unseen, on an older table than the one the user just wrote.
            if vectors_path.is_file() or tokens_path.is_file():
                raise DataError(half_pair_message(folder, dataset, side, command))
            if atomic_file.is_file():
                tokens, vectors = read_atomic_file(atomic_file, field_separator, seq_separator)
                return cls._checked(tokens, vectors, str(atomic_file), side)
        raise DataError(missing_message(folders, dataset, side, command))

    @classmethod
    def _checked(cls, tokens: np.ndarray, vectors: np.ndarray, source: str, side: Side) -> SemanticEmbedding:
        """Build a table and check it."""
        embedding = cls(tokens, vectors, source, side)
        embedding.check()
        return embedding

    def save(self, directory: Path, dataset: str, side: Side) -> None:
        """Write the ``.npy`` and ``.tokens`` pair; the same table gives the same bytes.

        Args:
            directory: folder of the dataset's files; made if missing.
            dataset: RecBole's dataset name.
            side: ``"user"`` or ``"item"``.

        Raises:
            DataError: the table is malformed (see ``check``) or cannot be written; nothing is changed then, or what is
                left is refused by ``load``.
            ValueError: ``side`` is not one of ``SIDES``.
        """
        stem = stem_of(dataset, side)
        self.check()
        kind: Literal["useremb", "itememb"] = "useremb" if side == "user" else "itememb"
        vectors, tokens = f"{stem}.npy", f"{stem}.tokens"
        # Both files are whole before either takes its name, so a crash while writing leaves the old pair.
        with FileSet(Path(directory), dataset, kind, (vectors, tokens)).replaced() as paths:
            np.save(paths[vectors], np.asarray(self.vectors), allow_pickle=False)
            paths[tokens].write_bytes("".join(f"{token}\n" for token in self.tokens.tolist()).encode("utf-8"))

    def join(self, id_tokens: Sequence[str] | np.ndarray) -> JoinedEmbedding:
        """Find the row of every internal id, by token, and log how many ids are covered.

        An all-zero vector has no direction, so no cosine: its id becomes a hole.

        Args:
            id_tokens: RecBole's ``field2id_token`` array ``[n_ids]``: the original id of each internal id, ``[PAD]``
                first. Internal id 0 is always a hole.

        Raises:
            DataError: no id is covered, or a token stands on two rows.
            ValueError: ``id_tokens`` does not start with ``[PAD]`` or holds no further id.
        """
        ids = object_array(id_tokens)
        if ids.ndim != 1 or ids.size < 2 or ids[0] != PAD_TOKEN:
            raise ValueError(
                f"id_tokens has shape {ids.shape} and starts with {examples(ids.ravel(), 2) or 'nothing'}, expected "
                f"RecBole's field2id_token array: {PAD_TOKEN!r}, then one original id for each internal id from 1."
            )
        index = pd.Index(self.tokens.tolist(), dtype=object)
        self._check_unique(index)
        rows = index.get_indexer(pd.Index(ids.tolist(), dtype=object)).astype(np.int64)
        unused = np.ones(len(index), dtype=bool)
        unused[rows[rows >= 0]] = False

        rows[0] = -1
        matched = rows >= 0
        zero = np.zeros_like(matched)
        zero[matched] = self.peaks[rows[matched]] == 0
        rows[zero] = -1
        report_join(Join(self.source, self.side, self.tokens, unused, ids, matched, zero))
        return JoinedEmbedding(rows, rows >= 0, self, int(zero.sum()))


@dataclass(frozen=True, eq=False)
class JoinedEmbedding:
    """Semantic embeddings by internal id.

    Attributes:
        rows: row of each internal id in the table, or -1 at a hole (an id without an embedding), int64 ``[n_ids]``.
        covered: False at a hole, which is thus uncovered, bool ``[n_ids]``; internal id 0 (``[PAD]``) is always a hole.
        embedding: the table.
        n_zero: ids that are holes because their vector is all zero.
    """

    rows: np.ndarray
    covered: np.ndarray
    embedding: SemanticEmbedding
    n_zero: int = 0

    @property
    def n_covered(self) -> int:
        """Number of ids with a usable vector."""
        return int(self.covered.sum())

    @property
    def coverage(self) -> float:
        """Share of the ids, ``[PAD]`` left out, with a usable vector."""
        return self.n_covered / (len(self.covered) - 1)

    def require_covered(self) -> None:
        """Check that an id has a usable vector, for models that can do nothing without.

        Raises:
            DataError: none has.
        """
        if not self.covered.any():
            side = self.embedding.side
            what = f"{side or 'semantic'} embeddings"
            raise DataError(nothing_covered(what, side or "id", self.embedding.source))

    def sha256(self) -> str:
        """Return a hash of which ids have a vector, and of a thousand of the vectors, evenly chosen.

        Another encoder or other profiles change them all; a table beyond memory need not be read for it.
        """
        ids = np.flatnonzero(self.covered)
        chosen = ids[np.linspace(0, len(ids) - 1, min(len(ids), 1000)).astype(np.int64)]
        found = hashlib.sha256(np.packbits(self.covered).tobytes())
        found.update(self.take(chosen).tobytes())
        return found.hexdigest()

    def matrix(self, dtype: DTypeLike = np.float32) -> np.ndarray:
        """Vectors by internal id, ``[n_ids, D]`` of ``dtype``, zeros at holes; a copy in memory."""
        matrix = np.zeros((len(self.rows), self.embedding.dimension), dtype=dtype)
        for ids, vectors in self.blocks():
            matrix[ids] = vectors
        return matrix

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the vectors of all covered ids, some at a time: ids, int64 ``[n]``, and vectors, ``[n, D]``.

        A memory map is read from front to back, and its pages are given back.

        Raises:
            DataError: the file was written to since it was loaded.
        """
        vectors = self.embedding.vectors
        ids = np.flatnonzero(self.covered)
        ids = ids[np.argsort(self.rows[ids])]
        for block in _blocks(len(ids), vectors[:1].nbytes):
            self.embedding.require_unchanged()  # to read a map beyond the end of its file would end the process
            yield ids[block], vectors[self.rows[ids[block]]]
            self.embedding.release()

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Vectors of some internal ids, ``[n, D]``, zeros at holes; reads these rows only.

        Args:
            ids: internal ids, int64 ``[n]``.
        """
        rows = self.rows[ids]
        taken = np.zeros((len(ids), self.embedding.dimension), dtype=np.float32)
        covered = np.flatnonzero(rows >= 0)
        covered = covered[np.argsort(rows[covered])]  # in file order, as far as the disk is concerned
        taken[covered] = self.embedding.rows(rows[covered])
        return taken


def check_same_dimension(user: SemanticEmbedding, item: SemanticEmbedding) -> None:
    """Check that both sides come from one embedding space.

    Raises:
        DataError: the vectors of the two sides differ in length.
    """
    if user.dimension != item.dimension:
        raise DataError(
            f"User embeddings have dimension {user.dimension} ({user.source}), item embeddings {item.dimension} "
            f"({item.source}); expected the same. Encode users and items with the same encoder."
        )


def check_metadata(metadata: dict[str, Any], embedding: SemanticEmbedding, path: Path | str) -> None:
    """Check that metadata describes this table.

    Args:
        metadata: what ``read_metadata`` returned.
        embedding: the table that it stands beside.
        path: the metadata's file, for messages.

    Raises:
        DataError: ``dimension`` is given and is not the vectors' dimension, or ``train_sha256`` is no text.
    """
    dimension = metadata.get("dimension")
    if dimension is not None and (isinstance(dimension, bool) or dimension != embedding.dimension):
        raise DataError(
            f"{path} says dimension {dimension!r}, but the vectors in {embedding.source} have {embedding.dimension}: "
            "they are not from the same run. Write the embeddings again, or correct or delete the .semantic.json file."
        )
    train_sha256 = metadata.get("train_sha256")
    if train_sha256 is not None and not (isinstance(train_sha256, str) and train_sha256):
        raise DataError(
            f"{path} says train_sha256 {train_sha256!r}; expected the SHA-256 of the training split in hexadecimal. "
            "Correct it or leave the key out."
        )


def _blocks(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Cut ``n_rows`` rows of ``row_bytes`` bytes into slices of about ``BLOCK_BYTES``."""
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, n_rows, size):
        yield slice(start, start + size)


class _OpenFile:
    """A file that is open, and its state when it was opened."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._file = open(name, "rb")  # noqa: SIM115 - as long as the table lives
        self._state = self._current()

    def _current(self) -> tuple[int, int]:
        status = os.fstat(self._file.fileno())
        return status.st_size, status.st_mtime_ns

    def require_unchanged(self) -> None:
        """Raise a DataError if the file was written to."""
        if self._current() != self._state:
            raise DataError(
                f"{self.name} was written to since it was loaded, and its rows may be those of other ids: start again. "
                "build-semantics and SemanticEmbedding.save put a new file in its place, which does no harm."
            )

    def read_rows(self, found: np.ndarray, rows: np.ndarray, offset: int) -> None:
        """Read rows into an array, ``[n, D]``, from where they begin in the file."""
        for row, target in zip(rows.tolist(), found):
            if os.preadv(self._file.fileno(), [target], offset + row * target.nbytes) != target.nbytes:
                raise DataError(
                    f"{self.name} ends before row {row}, which it had when it was loaded. It was written again or cut "
                    "short meanwhile: restore it and start again."
                )
        self.require_unchanged()
