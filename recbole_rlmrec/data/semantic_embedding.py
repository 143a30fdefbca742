"""Semantic embeddings (language-model profile embeddings) of one side, keyed by original id.

On disk, beside RecBole's atomic files, a side is either a pair written by us or an atomic file written for RecBole:

- ``<dataset>.useremb.npy``, float16 or float32 ``[n, D]``, with ``<dataset>.useremb.tokens``: one original id per line,
  UTF-8, in row order;
- ``<dataset>.useremb``: text, header such as ``uid:token<TAB>user_emb:float_seq``, one row per id.

The other side is ``itememb``. Rows meet RecBole's internal ids by token, never by position, and an id without a usable
row is a hole in a mask, not a zero vector.
"""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
import re
from array import array
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Callable, Iterable, Iterator, Literal, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, DTypeLike

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path

Side = Literal["user", "item"]
SIDES: tuple[Side, ...] = ("user", "item")

PAD_TOKEN = "[PAD]"  # RecBole's name of internal id 0

# Rows are read in blocks of about this size, so that a memory map larger than memory can be checked and joined.
BLOCK_BYTES = 32 * 2**20

_LOW_COVERAGE = 0.5
_SIDE_WORDS = {"user": ("user", "usr"), "item": ("item", "itm")}
_LINE_BREAK = re.compile(r"[\r\n]")
_METADATA_REMEDY = "Mend it, or delete it: the file is optional and only describes the embeddings."


@dataclass(frozen=True, eq=False)
class SemanticEmbedding:
    """The semantic embeddings of one side and the original ids of their rows; not to be changed once built.

    Attributes:
        tokens: original ids, str ``[n]``.
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
        """
        table = np.asarray(vectors)
        table = table if table.dtype in (np.float16, np.float32) else _to_float32(table)
        embedding = cls(np.asarray(tokens).astype(np.str_), table, "the given vectors", side)
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
                tokens are not n different, non-empty ids without line breaks.
        """
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
                f"{self.source}: the files hold {_count(n_rows, 'row')} and {_count(len(tokens), 'token')}{blank}, "
                "expected one token for each row, in row order. Write both files again from the same table."
            )
        if n_empty:
            raise DataError(
                f"{self.source}: the token of row {tokens.index('')} is empty, expected an original id. "
                "Write the id, or leave the row out of both files."
            )
        if _LINE_BREAK.search("".join(tokens)):
            row = next(row for row, token in enumerate(tokens) if _LINE_BREAK.search(token))
            raise DataError(
                f"{self.source}: the token of row {row}, {tokens[row]!r}, holds a line break, "
                "but the tokens file has one id per line. Remove the line break from the id."
            )
        self._check_unique(pd.Index(tokens, dtype=object))

    def _check_unique(self, index: pd.Index) -> None:
        """Check that no token stands for two rows."""
        if index.is_unique:
            return
        repeated = index[index.duplicated()].unique()
        raise DataError(
            f"{self.source}: {_count(len(repeated), 'token')} on more than one row, e.g. {_examples(repeated, 5)}. "
            "Keep one row per id."
        )

    def _check_finite(self) -> None:
        """Check that every value is a finite number."""
        bad = np.flatnonzero(~np.isfinite(self.peaks))
        if bad.size:
            raise DataError(
                f"{self.source}: row {bad[0]} (token {str(self.tokens[bad[0]])!r}) holds a value that is NaN, infinite "
                f"or too large for {self.vectors.dtype}; {_count(bad.size, 'such row')} in all. "
                "Encode the profile again, or leave the row out of both files, which makes the id a hole."
            )

    @classmethod
    def load(
        cls,
        directories: Sequence[Path],
        dataset: str,
        side: Side,
        memory_map: bool = False,
        field_separator: str = "\t",
        seq_separator: str = " ",
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

        Raises:
            DataError: nothing was found, only half a pair was found, or what was found is malformed.
            ValueError: ``side`` is not one of ``SIDES``.
        """
        stem = _stem(dataset, side)
        folders = [Path(directory) for directory in directories]
        for folder in folders:
            vectors_path, tokens_path = folder / f"{stem}.npy", folder / f"{stem}.tokens"
            atomic_file = folder / stem
            if vectors_path.is_file() and tokens_path.is_file():
                tokens, vectors = _read_tokens(tokens_path), _read_vectors(vectors_path, memory_map)
                return cls._checked(tokens, vectors, str(vectors_path), side)
            # Going on to another file here could train, unseen, on an older table than the one the user just wrote.
            if vectors_path.is_file() or tokens_path.is_file():
                raise DataError(_half_pair_message(folder, dataset, side))
            if atomic_file.is_file():
                tokens, vectors = _read_atomic_file(atomic_file, field_separator, seq_separator)
                return cls._checked(tokens, vectors, str(atomic_file), side)
        raise DataError(_missing_message(folders, dataset, side))

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
            DataError: the table is malformed (see ``check``); nothing is written then.
            ValueError: ``side`` is not one of ``SIDES``.
        """
        stem = _stem(dataset, side)
        self.check()
        folder = Path(directory)
        # Both files are whole before either takes its name, so a crash while writing leaves the old pair.
        with atomic_path(folder / f"{stem}.npy") as vectors_path, atomic_path(folder / f"{stem}.tokens") as tokens_path:
            np.save(vectors_path, np.asarray(self.vectors), allow_pickle=False)
            tokens_path.write_bytes("".join(f"{token}\n" for token in self.tokens.tolist()).encode("utf-8"))

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
        ids = np.asarray(id_tokens, dtype=np.str_)
        if ids.ndim != 1 or ids.size < 2 or ids[0] != PAD_TOKEN:
            raise ValueError(
                f"id_tokens has shape {ids.shape} and starts with {_examples(ids.ravel(), 2) or 'nothing'}, expected "
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
        joined = JoinedEmbedding(rows, rows >= 0, self, int(zero.sum()))
        _report_join(joined, ids, matched, zero, unused)
        return joined


@dataclass(frozen=True, eq=False)
class JoinedEmbedding:
    """Semantic embeddings by internal id.

    Attributes:
        rows: row of each internal id in the table, or -1 at a hole, int64 ``[n_ids]``.
        covered: False at a hole, bool ``[n_ids]``; internal id 0 (``[PAD]``) is always a hole.
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
        vectors = self.embedding.vectors
        matrix = np.zeros((len(self.rows), self.embedding.dimension), dtype=dtype)
        ids = np.flatnonzero(self.covered)
        ids = ids[np.argsort(self.rows[ids])]  # in file order, so that a memory map is read from front to back
        for block in _blocks(len(ids), vectors[:1].nbytes):
            matrix[ids[block]] = vectors[self.rows[ids[block]]]
        return matrix

    def take(self, ids: np.ndarray) -> np.ndarray:
        """Vectors of some internal ids, ``[n, D]``, zeros at holes; reads these rows only.

        Args:
            ids: internal ids, int64 ``[n]``.
        """
        rows = self.rows[ids]
        taken = np.zeros((len(ids), self.embedding.dimension), dtype=np.float32)
        covered = np.flatnonzero(rows >= 0)
        covered = covered[np.argsort(rows[covered])]  # in file order, as far as the disk is concerned
        taken[covered] = _read_rows(self.embedding.vectors, rows[covered])
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


def metadata_path(directories: Sequence[Path], dataset: str) -> Path | None:
    """Path of the first ``<dataset>.semantic.json`` in the directories, or None if none has one."""
    candidates = (Path(directory) / f"{dataset}.semantic.json" for directory in directories)
    return next((path for path in candidates if path.is_file()), None)


def read_metadata(directories: Sequence[Path], dataset: str) -> dict[str, Any] | None:
    """Read the first ``<dataset>.semantic.json`` in the directories: how the embeddings were made.

    Returns:
        The metadata (any of encoder, dimension, normalized, writer, profiles_sha256, train_sha256), or None if there
        is no such file.

    Raises:
        DataError: the file is not a JSON object.
    """
    path = metadata_path(directories, dataset)
    if path is None:
        return None
    try:
        metadata = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not valid JSON: {error}. {_METADATA_REMEDY}") from error
    if not isinstance(metadata, dict):
        raise DataError(f"{path} holds {_json_kind(metadata)}, expected a JSON object. {_METADATA_REMEDY}")
    return metadata


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
            "they are not from the same run. Write the embeddings again, or mend or delete the .semantic.json file."
        )
    train_sha256 = metadata.get("train_sha256")
    if train_sha256 is not None and not (isinstance(train_sha256, str) and train_sha256):
        raise DataError(
            f"{path} says train_sha256 {train_sha256!r}; expected the SHA-256 of the training split in hexadecimal. "
            "Mend it or leave the key out."
        )


def _json_kind(value: Any) -> str:
    """Name a JSON value's kind for a message."""
    return {list: "a list", str: "a string", type(None): "null"}.get(type(value), repr(value))


def _stem(dataset: str, side: Side) -> str:
    """File name of a side's atomic file, without which the pair's names add ``.npy`` and ``.tokens``."""
    if side not in SIDES:
        raise ValueError(f"side is {side!r}, expected one of {', '.join(map(repr, SIDES))}.")
    return f"{dataset}.{side}emb"


def _blocks(n_rows: int, row_bytes: int) -> Iterator[slice]:
    """Cut ``n_rows`` rows of ``row_bytes`` bytes into slices of about ``BLOCK_BYTES``."""
    size = max(1, BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, n_rows, size):
        yield slice(start, start + size)


# Reading


def _read_tokens(path: Path) -> np.ndarray:
    """Read one token per line, str ``[n]``; lines end with LF or CRLF."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it again as UTF-8, one id per line.") from error
    # Not splitlines(), which would also cut an id at form feeds and Unicode's line separators.
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return np.array([line[:-1] if line.endswith("\r") else line for line in lines], dtype=np.str_)


def _read_vectors(path: Path, memory_map: bool) -> np.ndarray:
    """Read a ``.npy`` file without unpickling anything; floats other than float16 and float32 become float32."""
    try:
        vectors = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory ({error}). Load it as a memory map.") from error
    # A damaged file makes NumPy raise nearly anything: ValueError, EOFError, OSError, TokenError, BadZipFile.
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as a .npy array ({type(error).__name__}: {error}). It is probably empty, cut "
            "short, pickled or not a .npy file. Pickled objects are never loaded, because they can run code. "
            "Write it again with np.save(path, vectors), where vectors is a float16 or float32 array [n, D]."
        ) from error
    if not isinstance(vectors, np.ndarray):
        vectors.close()
        raise DataError(
            f"{path} is an .npz archive of several arrays, expected one .npy array. "
            "Write the array alone with np.save(path, vectors)."
        )
    if vectors.dtype.kind != "f" or vectors.dtype in (np.float16, np.float32):
        return vectors
    if memory_map:
        logging.getLogger().warning(
            f"{path} has dtype {vectors.dtype}: it is copied into memory as float32. "
            "Save it as float16 or float32 to leave it on disk."
        )
    return _to_float32(vectors)


def _read_rows(vectors: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return some rows; those of a memory map are read from its file.

    Through the map, each row would come with up to a huge page around it, and scattered rows with the whole file.
    """
    if not isinstance(vectors, np.memmap) or not vectors.flags.c_contiguous or not hasattr(os, "preadv"):
        return vectors[rows]
    found = np.empty((len(rows), vectors.shape[1]), dtype=vectors.dtype)
    with open(str(vectors.filename), "rb") as file:
        for row, target in zip(rows.tolist(), found):
            n_read = os.preadv(file.fileno(), [target], vectors.offset + row * target.nbytes)
            if n_read != target.nbytes:
                raise DataError(
                    f"{vectors.filename} ends before row {row}, which it had when it was loaded. It was written anew "
                    "or cut short meanwhile: restore it and start again."
                )
    return found


def _to_float32(values: np.ndarray) -> np.ndarray:
    """Copy to float32; a value too large becomes infinite, which ``check`` then reports with its row."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def _read_atomic_file(path: Path, field_separator: str, seq_separator: str) -> tuple[np.ndarray, np.ndarray]:
    """Read RecBole's atomic file of one side.

    Returns:
        Tokens, str ``[n]``, and vectors, float32 ``[n, D]``.

    Raises:
        DataError: the header has not one token and one float_seq column, a line does not fit the header, or a vector
            is empty, differs in length from the first one or holds something that is not a number.
    """
    tokens: list[str] = []
    values = array("f")  # grows in place: a list of rows would have to be copied once more
    dimension = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            header = next(file, "").rstrip("\n").split(field_separator)
            token_column, vector_column = _atomic_columns(path, header, field_separator)
            for number, line in enumerate(file, start=2):
                fields = line.rstrip("\n").split(field_separator)
                if fields == [""]:
                    continue  # RecBole skips blank lines too
                if len(fields) != len(header):
                    raise DataError(
                        f"{path}, line {number}: {_count(len(fields), 'column')}, expected {len(header)} as in the "
                        f"header. Separate columns with {field_separator!r} and values with {seq_separator!r}."
                    )
                token = _unquoted(fields[token_column])
                vector = _parse_vector(fields[vector_column], seq_separator, f"{path}, line {number} (token {token!r})")
                dimension = dimension or len(vector)
                if len(vector) != dimension:
                    raise DataError(
                        f"{path}, line {number} (token {token!r}): {_count(len(vector), 'value')}, expected "
                        f"{dimension} as in the first row. All vectors have the same length: encode this one again."
                    )
                tokens.append(token)
                values.extend(vector)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it again as UTF-8.") from error
    if not tokens:
        raise DataError(f"{path} has a header but no rows, expected one row per id. Write the embeddings again.")
    return np.array(tokens, dtype=np.str_), np.frombuffer(values, dtype=np.float32).reshape(len(tokens), dimension)


def _atomic_columns(path: Path, header: list[str], field_separator: str) -> tuple[int, int]:
    """Find the only token column and the only float_seq column of an atomic file's header."""
    kinds = [field.strip().rpartition(":")[2] for field in header]
    if kinds.count("token") != 1 or kinds.count("float_seq") != 1:
        raise DataError(
            f"{path}: the header is {field_separator.join(header)[:200]!r}, expected one token and one float_seq "
            f"column separated by {field_separator!r}, such as {f'uid:token{field_separator}user_emb:float_seq'!r}."
        )
    return kinds.index("token"), kinds.index("float_seq")


def _unquoted(field: str) -> str:
    """Take the quotes off a quoted field, as RecBole's reader does; so the token equals the interactions'."""
    if len(field) >= 2 and field.startswith('"') and field.endswith('"'):
        return field[1:-1].replace('""', '"')
    return field


def _parse_vector(field: str, seq_separator: str, where: str) -> list[float]:
    """Turn an atomic file's float_seq field into numbers; repeated separators count once, as in RecBole."""
    parts = [part for part in _unquoted(field).split(seq_separator) if part]
    if not parts:
        raise DataError(
            f"{where}: the vector is empty. Encode the id again, or remove the line: the id is then a hole."
        )
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise DataError(f"{where}: {error}. Expected numbers separated by {seq_separator!r}.") from error


# What to say when files are missing


def _half_pair_message(folder: Path, dataset: str, side: Side) -> str:
    """Say which file of the pair is missing and how to complete it."""
    stem = _stem(dataset, side)
    hints = "".join(f"\n  {hint}" for hint in _near_misses(folder, dataset, side))
    if (folder / f"{stem}.npy").is_file():
        return (
            f"{folder} holds {stem}.npy but not {stem}.tokens, which says whose row each one is. Write the original id "
            f"of every row to {stem}.tokens, one per line, in row order (UTF-8).{hints}"
        )
    return (
        f"{folder} holds {stem}.tokens but not {stem}.npy, the vectors. Save them there with np.save as a float16 or "
        f"float32 array [n, D], one row for each line of {stem}.tokens, or remove that file.{hints}"
    )


def _missing_message(folders: list[Path], dataset: str, side: Side) -> str:
    """List what was looked for and where, what comes near it, and how to make the files."""
    stem = _stem(dataset, side)
    lines = [f"No {side} embeddings of dataset {dataset!r}: looked for {stem}.npy with {stem}.tokens, or {stem}, in"]
    for folder in folders:
        lines.append(f"  {folder}" + ("" if folder.is_dir() else " (no such folder)"))
        lines += [f"    {hint}" for hint in _near_misses(folder, dataset, side)]
    if not folders:
        lines.append("  no folder at all: none was given")
    lines.append(
        f"To make them from texts: recbole-rlmrec build-semantics --dataset {dataset}. From vectors: save a float16 or "
        f"float32 array [n, D] with np.save as {stem}.npy and the original id of every row, one per line, as "
        f"{stem}.tokens (SemanticEmbedding.save writes both); RLMRec's released embeddings are "
        "turned into these files by `recbole-rlmrec import-release`."
    )
    return "\n".join(lines)


def _near_misses(folder: Path, dataset: str, side: Side) -> list[str]:
    """Say what to do with files in the folder that look like this side's embeddings under another name."""
    stem = _stem(dataset, side)
    names = sorted(path.name for path in folder.glob("[!.]*") if path.is_file()) if folder.is_dir() else []
    expected = {stem, f"{stem}.npy", f"{stem}.tokens"}
    of_others = re.compile(rf".+\.{side}emb(\.npy|\.tokens)?")
    other = [name for name in names if name not in expected and of_others.fullmatch(name)]
    alike = [name for name in names if name not in expected and name not in other and _looks_like(name, side)]
    found = (
        (
            other,
            f"of another dataset than {dataset!r}: rename if they are this dataset's, or change the dataset's name",
        ),
        ([name for name in alike if name.endswith(".npy")], f"rename to {stem}.npy"),
        ([name for name in alike if name.endswith((".tokens", ".txt"))], f"rename to {stem}.tokens"),
        (
            [name for name in alike if name.endswith((".pkl", ".pickle"))],
            "pickles as in RLMRec's release: turn them into these files with `recbole-rlmrec import-release`",
        ),
    )
    return [f"found {_listed(files)}: {advice}" for files, advice in found if files]


def _looks_like(name: str, side: Side) -> bool:
    """Tell whether a file name speaks of this side's embeddings, as ``usr_emb_np.pkl`` does."""
    return "emb" in name.lower() and any(word in name.lower() for word in _SIDE_WORDS[side])


# What to say about a join


def _report_join(
    joined: JoinedEmbedding, ids: np.ndarray, matched: np.ndarray, zero: np.ndarray, unused: np.ndarray
) -> None:
    """Log how far a join reaches, or fail if it reaches nobody.

    Args:
        joined: the result.
        ids: original ids, ``[PAD]`` first, str ``[n_ids]``.
        matched: ids that have a row, bool ``[n_ids]``.
        zero: ids whose row is all zero, bool ``[n_ids]``.
        unused: rows that belong to no id, bool ``[n]``.
    """
    embedding = joined.embedding
    logger = logging.getLogger()
    who = embedding.side or "id"
    what = f"{embedding.side or 'semantic'} embeddings"
    n_ids = len(ids) - 1
    if not matched.any():
        raise DataError(_no_match_message(what, who, ids[1:], embedding))
    if not joined.n_covered:
        raise DataError(
            f"{what}: {int(matched.sum())} of {_count(n_ids, who)} have a row in {embedding.source}, but all of these "
            "rows are zero, which cosine cannot compare. Encode the profiles again."
        )

    holes = ids[1:][~joined.covered[1:]]
    summary = f"{what}: {joined.n_covered} of {_count(n_ids, who)} covered ({100 * joined.coverage:.1f} %)"
    if holes.size:
        summary += f", {_count(holes.size, 'hole')}, e.g. {_examples(holes, 2)}"
    # One line in either case: a warning where so little is covered that the files are probably not the right ones.
    if joined.coverage < _LOW_COVERAGE:
        logger.warning(f"{summary}. Less than half is covered: is {embedding.source} of this dataset, and complete?")
    else:
        logger.info(summary)
    if joined.n_zero:
        logger.warning(
            f"{what}: {_count(joined.n_zero, who)} with an all-zero vector in {embedding.source}, e.g. "
            f"{_examples(ids[zero], 3)}: cosine cannot compare them, so they are treated as holes. Encode them again."
        )
    uncovered = ids[1:][~matched[1:]]
    if uncovered.size and unused.any():
        shift = _full_shift(ids[1:], embedding.tokens)
        logger.warning(
            f"{what}: {_count(int(unused.sum()), 'row')} of {embedding.source} without {_article(who)}, e.g. "
            f"{_examples(embedding.tokens[unused], 3)}, and {_count(uncovered.size, who)} without a row, e.g. "
            f"{_examples(uncovered, 3)}. Both at once are typical of ids shifted by one"
            + (f" (with {shift:+d} on every token, one side would match whole)" if shift else "")
            + ": check that the tokens are the original ids."
        )


def _no_match_message(what: str, who: str, ids: np.ndarray, embedding: SemanticEmbedding) -> str:
    """Say that no id has a row, show both sides and guess why."""
    tokens = embedding.tokens
    guess = _guess_cause(ids, tokens)
    return (
        f"{what}: 0 of {_count(len(ids), who)} match, and 0 of {_count(len(tokens), 'row')} of {embedding.source}.\n"
        f"  original ids of the dataset: {_examples(ids, 3)}\n"
        f"  tokens of the embeddings:    {_examples(tokens, 3)}\n"
        + (f"  probable cause: {guess}\n" if guess else "")
        + "Expected the tokens to be the original ids, spelt as in the dataset's .inter file."
    )


# Each spelling that ids suffer from on their way through spreadsheets and data frames, and what undoes it.
_SPELLINGS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("white space or quotes around the ids are left aside", lambda token: token.strip(" \t\r\n\"'")),
    ("upper and lower case are not told apart", str.casefold),
    (
        "numbers written as floats are read as integers ('1.0' as '1')",
        lambda token: re.sub(r"^(\d+)\.0*$", r"\1", token),
    ),
    ("leading zeros are left out ('007' as '7')", lambda token: re.sub(r"^0+(?=\d)", "", token)),
)


def _guess_cause(ids: np.ndarray, tokens: np.ndarray) -> str | None:
    """Guess why no id equals a token, by trying what would make them equal; None if nothing fits."""
    trials = [(_n_common(map(undo, ids.tolist()), map(undo, tokens.tolist())), cause) for cause, undo in _SPELLINGS]
    id_numbers, token_numbers = _integers(ids), _integers(tokens)
    if id_numbers is not None and token_numbers is not None:
        trials += [
            (
                int(np.isin(id_numbers, token_numbers + shift).sum()),
                f"{shift:+d} is added to every token (shifted by one)",
            )
            for shift in (1, -1)
        ]
    n_common, cause = max(trials, key=lambda trial: trial[0])
    # A shift makes a few integers meet by chance, so a handful proves nothing.
    if n_common >= max(1, min(len(ids), len(tokens)) // 10):
        return f"{n_common} of {len(ids)} would match if {cause}."
    if token_numbers is not None and _are_row_numbers(token_numbers):
        first, last = token_numbers.min(), token_numbers.max()
        return f"the tokens are the numbers {first} to {last}, row numbers instead of original ids."
    if id_numbers is not None and _are_row_numbers(id_numbers):
        return "the dataset's ids are row numbers: it was renumbered, and the embeddings have the ids from before."
    return None


def _full_shift(ids: np.ndarray, tokens: np.ndarray) -> int | None:
    """Find +1 or -1 that, added to integer tokens, matches the smaller side whole; None where neither does."""
    id_numbers, token_numbers = _integers(ids), _integers(tokens)
    if id_numbers is None or token_numbers is None:
        return None
    full = min(len(ids), len(tokens))
    return next((shift for shift in (1, -1) if np.isin(id_numbers, token_numbers + shift).sum() == full), None)


def _n_common(ids: Iterable[str], tokens: Iterable[str]) -> int:
    """Number of ids that are among the tokens."""
    among = set(tokens)
    return sum(each in among for each in ids)


def _integers(tokens: np.ndarray) -> np.ndarray | None:
    """Read all tokens as int64 ``[n]``; None where one is no integer."""
    try:
        return tokens.astype(np.int64)
    except (ValueError, OverflowError):
        return None


def _are_row_numbers(numbers: np.ndarray) -> bool:
    """Tell whether the numbers are 0..n-1 or 1..n in any order."""
    start = int(numbers.min())
    return (
        len(numbers) > 1
        and start in (0, 1)
        and np.array_equal(np.sort(numbers), np.arange(start, start + len(numbers)))
    )


def _examples(tokens: Iterable[str], most: int) -> str:
    """Show the first few tokens, quoted: ``'12', '77'``."""
    return ", ".join(repr(str(token)) for token, _ in zip(tokens, range(most)))


def _listed(names: list[str], most: int = 5) -> str:
    """List names, cutting a long list short."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 row``, ``9 rows``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _article(noun: str) -> str:
    """Put the indefinite article before one of our nouns (user, item, id)."""
    return f"an {noun}" if noun in ("item", "id") else f"a {noun}"
