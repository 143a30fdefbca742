"""The files of semantic embeddings: reading them, and what to say where they are missing or malformed."""

from __future__ import annotations

import json
import logging
import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from recbole_rlmrec.data.atomic_file import object_array
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.reading.documents import Format, parse_json
from recbole_rlmrec.reading.regular import open_regular, require_regular
from recbole_rlmrec.reading.shape import AtLeast, record_of
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import count, listed

_logger = logging.getLogger(__name__)

#: Bytes up to the header of a ``.npy`` file; and of the longest one, of which NumPy reads no longer either.
_NPY_PREFIX, _LONGEST_HEADER = 12, 10_000
_SIDE_WORDS = {"user": ("user", "usr"), "item": ("item", "itm")}
_METADATA = Format(
    "description of embeddings",
    "Correct it, or delete it: the file is optional and only describes the embeddings.",
    largest=2**20,
    allow_others=True,
)


@dataclass(frozen=True)
class _Metadata:
    """What ``<dataset>.semantic.json`` may say; further keys are passed over."""

    encoder: str | None = None
    dimension: Annotated[int, AtLeast(1)] | None = None
    normalized: bool | None = None
    writer: str | None = None
    profiles_sha256: str | None = None
    train_sha256: str | None = None
    encoder_train_sha256: str | None = None
    options: list[str] | None = None
    encoder_settings: dict[str, Any] | None = None


def table_prefix(config: Any) -> str:
    """Return how the files of the embeddings begin that a configuration chooses: ``<dataset>[.<semantic>]``.

    That is what functions below and elsewhere call the dataset's name, as long as they speak of embeddings alone.
    """
    dataset, name = str(config["dataset"]), config["semantic"]
    return dataset if name is None else f"{dataset}.{name}"


def table_names(directories: Sequence[Path], dataset: str) -> list[str]:
    """Return the names of the dataset's tables, the unnamed one apart, sorted."""
    pattern = re.compile(rf"{re.escape(dataset)}\.([^.]+)\.(?:{'|'.join(SIDES)})emb(?:\.npy|\.tokens)?")
    names = [path.name for folder in map(Path, directories) if folder.is_dir() for path in folder.iterdir()]
    return sorted({found[1] for found in map(pattern.fullmatch, names) if found})


def chosen_prefix(config: Any) -> str:
    """Return :func:`table_prefix`, whose embeddings must be there if the configuration names them.

    Raises:
        DataError: they are not; with the names of those that are.
    """
    prefix, dataset = table_prefix(config), str(config["dataset"])
    if config["semantic"] is None or any(has_embeddings(folder, prefix) for folder in config.data_folders):
        return prefix
    names = table_names(config.data_folders, dataset)
    has_unnamed = any(has_embeddings(folder, dataset) for folder in config.data_folders)
    there = ["those without a name (leave the setting out)"] * has_unnamed + [repr(name) for name in names]
    raise DataError(
        f"semantic={config['semantic']}: '{dataset}' has no embeddings of this name. There are "
        f"{', '.join(there) or 'none at all'}. To make them of texts: `{config.command('build-semantics')}`, with the "
        "encoder that they are to be of."
    )


def metadata_path(directories: Sequence[Path], dataset: str) -> Path | None:
    """Path of the first ``<dataset>.semantic.json`` in the directories, or None if none has one."""
    candidates = (Path(directory) / f"{dataset}.semantic.json" for directory in directories)
    return next((path for path in candidates if path.is_file()), None)


def read_metadata(directories: Sequence[Path], dataset: str) -> dict[str, Any] | None:
    """Read the first ``<dataset>.semantic.json`` in the directories: how the embeddings were made.

    Returns:
        The metadata (any of encoder, dimension, normalized, writer, profiles_sha256, train_sha256,
        encoder_train_sha256, options, encoder_settings), or None if there is no such file.

    Raises:
        DataError: the file is no JSON object, or a key has another type than it should.
    """
    path = metadata_path(directories, dataset)
    if path is None:
        return None
    try:
        metadata: dict[str, Any] = parse_json(_METADATA.content(path))
        record_of(_Metadata, metadata, allow_others=True)
    except ValueError as error:
        raise _METADATA.fault(path, error) from error
    return metadata


def record_options(directory: Path, dataset: str, options: Sequence[str]) -> None:
    """Record in ``<dataset>.semantic.json`` how ``build-semantics`` was called, so that messages can say it.

    Args:
        directory: of the file, which is there.
        dataset: RecBole's dataset name.
        options: its options, without those that say where the dataset lies and what is done once; none where it was
            called in another way.
    """
    known = read_metadata([directory], dataset) or {}
    described = {
        **{key: value for key, value in known.items() if key != "options"},
        **({"options": list(options)} if options else {}),
    }
    if described != known:
        with atomic_path(directory / f"{dataset}.semantic.json") as temporary:
            temporary.write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def stem_of(dataset: str, side: Side) -> str:
    """File name of a side's atomic file, without which the pair's names add ``.npy`` and ``.tokens``."""
    if side not in SIDES:
        raise ValueError(f"side is {side!r}, expected one of {', '.join(map(repr, SIDES))}.")
    return f"{dataset}.{side}emb"


def read_tokens(path: Path) -> np.ndarray:
    """Read one token per line, objects ``[n]``; lines end with LF or CRLF."""
    try:
        with open_regular(path) as file:
            text = file.read().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}. Give a file of one id per line.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it again as UTF-8, one id per line.") from error
    # Not splitlines(), which would also cut an id at form feeds and Unicode's line separators.
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return object_array([line[:-1] if line.endswith("\r") else line for line in lines])


def read_vectors(path: Path, *, memory_map: bool) -> np.ndarray:
    """Read a ``.npy`` file without unpickling anything; floats other than float16 and float32 become float32."""
    try:
        _require_whole_array(path)
        vectors = np.load(path, mmap_mode="r" if memory_map else None, allow_pickle=False)
    except MemoryError as error:
        raise DataError(f"{path} does not fit in memory ({error}). Load it as a memory map.") from error
    # A damaged file makes NumPy raise nearly anything: ValueError, EOFError, OSError, TokenError, BadZipFile.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise DataError(
            f"{path} cannot be read as a .npy array ({reason}). It is probably empty, cut "
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
        _logger.warning(
            f"{path} has dtype {vectors.dtype}: it is copied into memory as float32. "
            "Save it as float16 or float32 to leave it on disk."
        )
    return to_float32(vectors)


def _require_whole_array(path: Path) -> None:
    """Check that a ``.npy`` file's header is short, and the file as long as it says, before memory is taken for it.

    Raises:
        ValueError: it is not. What does not begin as such a file is left to NumPy.
    """
    with open_regular(path) as file:
        start = file.read(_NPY_PREFIX)
        if not start.startswith(np.lib.format.MAGIC_PREFIX) or len(start) < _NPY_PREFIX:
            return
    length = int.from_bytes(start[8:10] if start[6] == 1 else start[8:12], "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header says that it is {length:,} bytes long")
    # NumPy maps no more than there is, and checks the shape by it; nothing is read.
    with np.errstate(over="raise"):
        np.load(path, mmap_mode="r", allow_pickle=False)


def to_float32(values: np.ndarray) -> np.ndarray:
    """Copy to float32; a value too large becomes infinite, which ``check`` then reports with its row."""
    with np.errstate(over="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def read_atomic_file(path: Path, field_separator: str, seq_separator: str) -> tuple[np.ndarray, np.ndarray]:
    """Read RecBole's atomic file of one side.

    Returns:
        Tokens, objects ``[n]``, and vectors, float32 ``[n, D]``.

    Raises:
        DataError: the header has not one token and one float_seq column, a line does not fit the header, or a vector
            is empty, differs in length from the first one or holds something that is not a number.
    """
    tokens: list[str] = []
    values = array("f")  # grows in place: a list of rows would have to be copied once more
    dimension = 0
    try:
        require_regular(path)
        with path.open(encoding="utf-8-sig") as file:
            header = next(file, "").rstrip("\n").split(field_separator)
            token_column, vector_column = _atomic_columns(path, header, field_separator)
            for number, line in enumerate(file, start=2):
                fields = line.rstrip("\n").split(field_separator)
                if fields == [""]:
                    continue  # RecBole skips blank lines too
                if len(fields) != len(header):
                    raise DataError(
                        f"{path}, line {number}: {count(len(fields), 'column')}, expected {len(header)} as in the "
                        f"header. Separate columns with {field_separator!r} and values with {seq_separator!r}."
                    )
                token = fields[token_column]
                vector = _parse_vector(fields[vector_column], seq_separator, f"{path}, line {number} (token {token!r})")
                dimension = dimension or len(vector)
                if len(vector) != dimension:
                    raise DataError(
                        f"{path}, line {number} (token {token!r}): {count(len(vector), 'value')}, expected "
                        f"{dimension} as in the first row. All vectors have the same length: encode this one again."
                    )
                tokens.append(token)
                values.extend(vector)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}). Save it again as UTF-8.") from error
    if not tokens:
        raise DataError(f"{path} has a header but no rows, expected one row per id. Write the embeddings again.")
    return object_array(tokens), np.frombuffer(values, dtype=np.float32).reshape(len(tokens), dimension)


def _atomic_columns(path: Path, header: list[str], field_separator: str) -> tuple[int, int]:
    """Find the only token column and the only float_seq column of an atomic file's header."""
    kinds = [field.strip().rpartition(":")[2] for field in header]
    if kinds.count("token") != 1 or kinds.count("float_seq") != 1:
        raise DataError(
            f"{path}: the header is {field_separator.join(header)[:200]!r}, expected one token and one float_seq "
            f"column separated by {field_separator!r}, such as {f'uid:token{field_separator}user_emb:float_seq'!r}."
        )
    return kinds.index("token"), kinds.index("float_seq")


def _parse_vector(field: str, seq_separator: str, where: str) -> list[float]:
    """Turn an atomic file's float_seq field into numbers; repeated separators count once, as in RecBole."""
    parts = [part for part in field.split(seq_separator) if part]
    if not parts:
        raise DataError(
            f"{where}: the vector is empty. Encode the id again, or remove the line: the id is then a hole."
        )
    try:
        return [float(part) for part in parts]
    except ValueError as error:
        raise DataError(
            f"{where}: {error}. Expected numbers separated by {seq_separator!r}, not in quotation marks."
        ) from error


def has_embeddings(folder: Path, dataset: str) -> bool:
    """Return whether a folder holds a file of semantic embeddings, of either side, whole or half a pair."""
    names = (f"{stem_of(dataset, side)}{ending}" for side in SIDES for ending in ("", ".npy", ".tokens"))
    return any((folder / name).is_file() for name in names)


def half_pair_message(folder: Path, dataset: str, side: Side, command: str = "") -> str:
    """Say which file of the pair is missing and how to complete it; arguments as of :func:`missing_message`."""
    stem = stem_of(dataset, side)
    hints = "".join(f"\n  {hint}" for hint in _near_misses(folder, dataset, side))
    hints = f" From texts both sides are made again by `{_building(dataset, command)} --overwrite`.{hints}"
    if (folder / f"{stem}.npy").is_file():
        return (
            f"{folder} holds {stem}.npy but not {stem}.tokens, which says whose row each one is. Write the original id "
            f"of every row to {stem}.tokens, one per line, in row order (UTF-8).{hints}"
        )
    return (
        f"{folder} holds {stem}.tokens but not {stem}.npy, the vectors. Save them there with np.save as a float16 or "
        f"float32 array [n, D], one row for each line of {stem}.tokens.{hints}"
    )


def missing_message(folders: list[Path], dataset: str, side: Side, command: str = "") -> str:
    """List what was looked for and where, what comes near it, and how to make the files.

    Args:
        folders: where.
        dataset: name.
        side: whose embeddings.
        command: the command line that makes them of texts; by default that of a dataset in the usual place.
    """
    stem = stem_of(dataset, side)
    command = _building(dataset, command)
    if any(has_embeddings(folder, dataset) for folder in folders):  # of the other side
        command += " --overwrite"
    lines = [f"No {side} embeddings of dataset {dataset!r}: looked for {stem}.npy with {stem}.tokens, or {stem}, in"]
    for folder in folders:
        lines.append(f"  {folder}" + ("" if folder.is_dir() else " (no such folder)"))
        lines += [f"    {hint}" for hint in _near_misses(folder, dataset, side)]
    names = table_names(folders, dataset)
    if names:
        lines.append(f"There are embeddings with a name, {listed(names)}: --semantic={names[0]} takes these.")
    if not folders:
        lines.append("  no folder at all: none was given")
    lines.append(
        f"To make them from texts: `{command}`. From vectors: save a float16 or "
        f"float32 array [n, D] with np.save as {stem}.npy and the original id of every row, one per line, as "
        f"{stem}.tokens (SemanticEmbedding.save writes both); RLMRec's released embeddings are "
        "turned into these files by `recbole-rlmrec import-release`."
    )
    return "\n".join(lines)


def _building(dataset: str, command: str) -> str:
    """Return the command line that makes embeddings of texts."""
    return command or f"recbole-rlmrec build-semantics --dataset {dataset}"


def _near_misses(folder: Path, dataset: str, side: Side) -> list[str]:
    """Say what to do with files in the folder that look like this side's embeddings under another name."""
    stem = stem_of(dataset, side)
    names = sorted(path.name for path in folder.glob("[!.]*") if path.is_file()) if folder.is_dir() else []
    expected = {stem, f"{stem}.npy", f"{stem}.tokens"}
    of_others = re.compile(rf".+\.{side}emb(\.npy|\.tokens)?")
    tables = [name for name in names if name not in expected and of_others.fullmatch(name)]
    own = dataset.rpartition(".")[0] or dataset  # further tables of the dataset are none of another one
    other = [name for name in tables if not name.startswith(f"{own}.")]
    alike = [name for name in names if name not in expected and name not in tables and _looks_like(name, side)]
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
    return [f"found {listed(files)}: {advice}" for files, advice in found if files]


def _looks_like(name: str, side: Side) -> bool:
    """Return whether a file name speaks of this side's embeddings, as ``usr_emb_np.pkl`` does."""
    return "emb" in name.lower() and any(word in name.lower() for word in _SIDE_WORDS[side])
