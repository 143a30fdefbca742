"""RLMRec's released files, turned into RecBole's atomic files and ours.

A released dataset is a folder of pickles: ``trn_mat.pkl``, ``val_mat.pkl``, ``tst_mat.pkl`` (SciPy sparse ``[U, I]``),
``usr_emb_np.pkl``, ``itm_emb_np.pkl`` (NumPy ``[U, D]``, ``[I, D]``), ``usr_prf.pkl``, ``itm_prf.pkl`` (dictionaries by
row); and, in a folder ``mapper``, JSON lines that give the original id of each row.

A pickle can run any code when it is loaded, so they are read by ``array_pickle``, which executes nothing in them.
Everything is read and checked before anything is written, and the same release always gives the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any

import numpy as np

from recbole_rlmrec.data.atomic_file import check_dataset_name, is_unicode, repair_tokens, token_fault
from recbole_rlmrec.data.file_set import FileSet
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.known_datasets import DATASET_RELEASES, RELEASE_NAMES, RELEASE_URL
from recbole_rlmrec.reading.documents import Format, parse_json
from recbole_rlmrec.sides import Side
from recbole_rlmrec.sources.array_pickle import load_array, load_matrix, load_plain

ENCODER = "text-embedding-ada-002 (RLMRec release)"
WRITER = "RLMRec release"


_MATRIX_FILES = {"train": "trn_mat.pkl", "valid": "val_mat.pkl", "test": "tst_mat.pkl"}
_EMBEDDING_FILES: dict[Side, str] = {"user": "usr_emb_np.pkl", "item": "itm_emb_np.pkl"}
_PROFILE_FILES: dict[Side, str] = {"user": "usr_prf.pkl", "item": "itm_prf.pkl"}
_ROW_KEYS: dict[Side, str] = {"user": "uid", "item": "iid"}

_ROW_NUMBERS = "row numbers, as no id map was found"
_TAKE_AGAIN = f"Take a whole copy of the file from the release, {RELEASE_URL}."
_NORM_TOLERANCE = 1e-3
#: So many users, or items, need no interactions to be believed; more of them need one for each hundred.
_BELIEVED_SIDE = 10**6
_MOST_SILENT = 100


@dataclass(frozen=True)
class ReleaseSummary:
    """What an import read and wrote; ``str()`` gives it as text for the console.

    Attributes:
        dataset: RecBole's dataset name.
        folder: folder of the files written.
        users: rows of the matrices.
        items: columns of the matrices.
        train: training interactions.
        valid: validation interactions.
        test: test interactions.
        users_without_training: users without any training interaction.
        items_without_training: items without any training interaction.
        users_without_interaction: users in none of the three splits; RecBole gives them no id.
        items_without_interaction: items in none of the three splits; RecBole gives them no id.
        user_ids: where the users' ids come from.
        item_ids: where the items' ids come from.
        user_embeddings: users with a semantic embedding; 0 if the release folder has no such file.
        item_embeddings: items with a semantic embedding; 0 if the release folder has no such file.
        dimension: length of a semantic embedding, None without any.
        normalized: whether all semantic embeddings have length 1, None without any.
        user_profiles: users with a profile; 0 if the release folder has no such file.
        item_profiles: items with a profile; 0 if the release folder has no such file.
        warnings: what the user should know; one sentence each.
        files: the files written.
    """

    dataset: str
    folder: Path
    users: int
    items: int
    train: int
    valid: int
    test: int
    users_without_training: int
    items_without_training: int
    users_without_interaction: int
    items_without_interaction: int
    user_ids: str
    item_ids: str
    user_embeddings: int
    item_embeddings: int
    dimension: int | None
    normalized: bool | None
    user_profiles: int
    item_profiles: int
    warnings: tuple[str, ...]
    files: tuple[Path, ...]

    def __str__(self) -> str:
        lines = [
            f"{self.dataset}: {self.users:,} users, {self.items:,} items; "
            f"{self.train:,} training, {self.valid:,} validation and {self.test:,} test interactions",
            f"user ids: {self.user_ids}",
            f"item ids: {self.item_ids}",
            f"without training interaction: {self.users_without_training:,} users, "
            f"{self.items_without_training:,} items (in no split, and so unknown to RecBole: "
            f"{self.users_without_interaction:,} users, {self.items_without_interaction:,} items)",
            f"semantic embeddings: {self._coverage(self.user_embeddings, self.item_embeddings)}{self._vectors()}",
            f"profiles: {self._coverage(self.user_profiles, self.item_profiles)}",
            *(f"warning: {warning}" for warning in self.warnings),
            f"written in {self.folder}: {', '.join(path.name for path in self.files)}",
            "Let RecBole read these splits with benchmark_filename: [train, valid, test].",
        ]
        return "\n".join(lines)

    def _coverage(self, users: int, items: int) -> str:
        """Say how many users and items have something."""
        return f"{users:,} of {self.users:,} users, {items:,} of {self.items:,} items"

    def _vectors(self) -> str:
        """Describe the semantic embeddings, if there are any."""
        if self.dimension is None:
            return ""
        return f"; dimension {self.dimension:,}, {'normalized' if self.normalized else 'not normalized'}"


def import_release(
    source: str | Path,
    dataset: str,
    output: str | Path = "dataset",
    item_map: str | Path | None = None,
    user_map: str | Path | None = None,
    release_name: str | None = None,
) -> ReleaseSummary:
    """Turn a folder of RLMRec's release into ``OUTPUT/DATASET/DATASET.*``; other files there stay as they are.

    Args:
        source: folder with the pickles.
        dataset: RecBole's dataset name, the first part of the file names.
        output: folder of RecBole's datasets.
        item_map: JSON lines with the items' original ids; looked for in the release if not given.
        user_map: the same for users.
        release_name: the release's own name of the dataset, one of ``RELEASE_NAMES``, which starts the maps' names;
            derived from ``dataset`` if not given.

    Raises:
        SettingError: the dataset's or the release's name cannot be used.
        DataError: a file is missing, unsafe, malformed, or does not belong to the others. Nothing is written then.
    """
    _check_names(dataset, release_name)
    folder = Path(source)
    splits = _read_splits(folder)
    n_users, n_items = splits["train"].shape
    users = _read_side(folder, "user", n_users, _find_map(folder, "user", dataset, release_name, user_map))
    items = _read_side(folder, "item", n_items, _find_map(folder, "item", dataset, release_name, item_map))
    _check_dimensions(folder, users, items)

    metadata = _metadata(users, items)
    target = Path(output) / dataset
    contents = {f"{dataset}.{ending}": content for ending, content in _contents(splits, users, items, metadata).items()}
    warnings = [*_split_warnings(splits), *users.warnings, *items.warnings, *_left_over(target, dataset, contents)]
    _write(target, dataset, contents)
    return _summary(dataset, target, splits, users, items, metadata, warnings, [target / name for name in contents])


def _check_names(dataset: str, release_name: str | None) -> None:
    """Check that the dataset's name is a file name and the release's name is known."""
    check_dataset_name(dataset)
    if release_name is not None and release_name not in RELEASE_NAMES:
        raise SettingError(f"The release's name is {release_name!r}, expected one of {', '.join(RELEASE_NAMES)}.")


# ---------------------------------------------------------------------- interactions


@dataclass(frozen=True, eq=False)
class _Split:
    """The interactions of one matrix.

    Attributes:
        path: the matrix's file.
        shape: users and items, ``(U, I)``.
        keys: ``row * I + column`` of each interaction, ascending, int64 ``[N]``.
        n_duplicates: entries beyond the first of their cell.
        n_zeros: cells whose entries sum to 0, which are no interactions.
    """

    path: Path
    shape: tuple[int, int]
    keys: np.ndarray
    n_duplicates: int
    n_zeros: int

    @property
    def rows(self) -> np.ndarray:
        """User row of each interaction, int64 ``[N]``."""
        return self.keys // self.shape[1]

    @property
    def columns(self) -> np.ndarray:
        """Item row of each interaction, int64 ``[N]``."""
        return self.keys % self.shape[1]


def _read_splits(folder: Path) -> dict[str, _Split]:
    """Read the three matrices and check that they have one shape."""
    missing = [name for name in _MATRIX_FILES.values() if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{', '.join(missing)} not found in {folder.absolute()}, expected all of "
            f"{', '.join(_MATRIX_FILES.values())}. The release is at {RELEASE_URL}: unpack it and name the folder of "
            "one dataset."
        )
    splits = {name: _read_split(folder / file) for name, file in _MATRIX_FILES.items()}
    first = splits["train"]
    for split in splits.values():
        if split.shape != first.shape:
            raise DataError(
                f"{split.path} has shape {split.shape}, expected {first.shape} as in {first.path}. "
                f"Take the three matrices from one dataset of the release, {RELEASE_URL}."
            )
    # Each row and each column gets an id, so a few bytes that say 10^8 of them would fill memory.
    n_interactions = sum(len(split.keys) for split in splits.values())
    if max(first.shape) > max(_BELIEVED_SIDE, _MOST_SILENT * n_interactions):
        raise DataError(
            f"{first.path} has shape {first.shape}, but the three matrices hold only {n_interactions:,} interactions, "
            f"expected one for each {_MOST_SILENT} users and items at least. {_TAKE_AGAIN}"
        )
    return splits


def _read_split(path: Path) -> _Split:
    """Read and check one matrix; duplicate entries are summed, as SciPy does, and zeros left out."""
    matrix = load_matrix(path, _TAKE_AGAIN)
    entries = matrix.rows * matrix.shape[1] + matrix.columns
    cells, inverse = np.unique(entries, return_inverse=True)
    keys = cells[np.bincount(inverse, weights=matrix.values) != 0]
    if not len(keys):
        raise DataError(f"{path} holds no interaction, expected at least one. {_TAKE_AGAIN}")
    return _Split(path, matrix.shape, keys, len(entries) - len(cells), len(cells) - len(keys))


def _split_warnings(splits: Mapping[str, _Split]) -> list[str]:
    """Say what was merged, left out, or stands in two splits."""
    warnings = []
    for split in splits.values():
        if split.n_duplicates:
            warnings.append(
                f"{split.path.name}: {split.n_duplicates:,} duplicate entries were merged with the first of their kind."
            )
        if split.n_zeros:
            warnings.append(f"{split.path.name}: {split.n_zeros:,} entries with value 0 were left out.")
    for (name, split), (other_name, other) in combinations(splits.items(), 2):
        n_common = len(np.intersect1d(split.keys, other.keys, assume_unique=True))
        if n_common:
            warnings.append(f"{n_common:,} interactions are in both {name} and {other_name}; both keep them.")
    return warnings


# ---------------------------------------------------------------------- users and items


@dataclass(frozen=True, eq=False)
class _SideData:
    """What the release says of its users, or of its items.

    Attributes:
        tokens: original id of each row.
        ids: where the tokens come from, for the summary.
        embedding: semantic embeddings ``[n, D]``, float16 or float32; None if there is no such file.
        profiles: records in row order; None if there is no such file.
        warnings: what the user should know.
    """

    tokens: list[str]
    ids: str
    embedding: np.ndarray | None
    profiles: list[dict[str, str]] | None
    warnings: list[str]


def _read_side(folder: Path, side: Side, n_rows: int, map_path: Path | None) -> _SideData:
    """Read ids, embeddings and profiles of one side with ``n_rows`` rows."""
    if map_path is None:
        tokens = [str(row) for row in range(n_rows)]
        warnings: list[str] = []
    else:
        tokens, warnings = _avoid_missing(_read_map(map_path, side, n_rows), map_path)
    return _SideData(
        tokens=tokens,
        ids=_ROW_NUMBERS if map_path is None else str(map_path),
        embedding=_read_embedding(folder / _EMBEDDING_FILES[side], side, n_rows),
        profiles=_read_profiles(folder / _PROFILE_FILES[side], side, tokens),
        warnings=warnings,
    )


def _read_embedding(path: Path, side: Side, n_rows: int) -> np.ndarray | None:
    """Read semantic embeddings ``[n_rows, D]``: float16 stays, any other float becomes float32."""
    if not path.is_file():
        return None
    values = load_array(path, _TAKE_AGAIN)
    if values.ndim != 2 or values.dtype.kind != "f" or values.shape[1] == 0:
        raise DataError(
            f"{path} holds an array of shape {values.shape} and dtype {values.dtype}, expected floats [n, D] with D of "
            f"at least 1. {_TAKE_AGAIN}"
        )
    if len(values) != n_rows:
        raise DataError(
            f"{path} has {len(values)} rows, expected {n_rows}: one for each {side} of the matrices. "
            f"Take both from one dataset of the release, {RELEASE_URL}."
        )
    with np.errstate(over="ignore"):
        embedding = np.ascontiguousarray(values, dtype=np.float16 if values.dtype.itemsize == 2 else np.float32)
    bad = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
    if bad.size:
        raise DataError(
            f"{path}: row {bad[0]} holds a value that is NaN, infinite or too large for {embedding.dtype}, expected "
            f"finite numbers; {bad.size} such rows in all. {_TAKE_AGAIN}"
        )
    return embedding


def _check_dimensions(folder: Path, users: _SideData, items: _SideData) -> None:
    """Check that users' and items' embeddings come from one space."""
    if users.embedding is None or items.embedding is None:
        return
    dimensions = users.embedding.shape[1], items.embedding.shape[1]
    if dimensions[0] != dimensions[1]:
        raise DataError(
            f"{folder / _EMBEDDING_FILES['user']} has dimension {dimensions[0]}, {folder / _EMBEDDING_FILES['item']} "
            f"{dimensions[1]}, expected the same. Take both from one dataset of the release, {RELEASE_URL}."
        )


def _read_profiles(path: Path, side: Side, tokens: Sequence[str]) -> list[dict[str, str]] | None:
    """Read profiles, a dictionary by row, as records in row order; a row without profile has no record."""
    if not path.is_file():
        return None
    profiles = load_plain(path, _TAKE_AGAIN)
    if not isinstance(profiles, dict):
        raise DataError(
            f"{path} holds a value of type {type(profiles).__name__}, expected a dictionary by {side} row. "
            f"{_TAKE_AGAIN}"
        )
    for row in profiles:
        if type(row) is not int or not 0 <= row < len(tokens):
            raise DataError(
                f"{path} has the key {short_repr(row)}, expected the row of one {side}: 0 to {len(tokens) - 1}. "
                f"{_TAKE_AGAIN}"
            )
    return [_profile_record(path, row, profiles[row], tokens[row]) for row in sorted(profiles)]


def _profile_record(path: Path, row: int, entry: object, token: str) -> dict[str, str]:
    """Make the record of one profile; a missing reasoning becomes the empty string."""
    if not isinstance(entry, dict) or "profile" not in entry:
        found = (
            short_repr(sorted(map(str, entry)))
            if isinstance(entry, dict)
            else f"a value of type {type(entry).__name__}"
        )
        raise DataError(
            f"{path}: row {row} holds {found}, expected a dictionary with 'profile' and 'reasoning'. {_TAKE_AGAIN}"
        )
    reasoning = entry.get("reasoning")
    record = {"profile": entry["profile"], "reasoning": "" if reasoning is None else reasoning}
    for name, text in record.items():
        if not isinstance(text, str) or not is_unicode(text):
            found = (
                "text with half a surrogate pair" if isinstance(text, str) else f"a value of type {type(text).__name__}"
            )
            raise DataError(f"{path}: the {name} of row {row} is {found}, expected text. {_TAKE_AGAIN}")
    return {"token": token, **record, "writer": WRITER}


# ---------------------------------------------------------------------- id maps


def _find_map(
    folder: Path, side: Side, dataset: str, release_name: str | None, given: str | Path | None
) -> Path | None:
    """Find the id map of one side: the file given, the release's, or the only one there; None if there is none.

    Raises:
        DataError: the file given does not exist, or it is not clear which of the maps found belongs to the dataset.
    """
    if given is not None:
        if not Path(given).is_file():
            raise DataError(f"--{side}-map {given} does not exist, expected a file of JSON lines. Correct the path.")
        return Path(given)
    folders = [folder / "mapper", folder, folder.resolve().parent / "mapper"]
    candidates = list(
        {path.resolve(): path for place in folders for path in sorted(place.glob(f"*_{side}.json"))}.values()
    )
    expected = f"{release_name or DATASET_RELEASES.get(dataset, dataset)}_{side}.json"
    for path in candidates:
        if path.name == expected:
            return path
    # Whoever names the release wants its map and no other.
    if len(candidates) > 1 or (candidates and release_name is not None):
        raise DataError(
            f"No id map {expected} for dataset {dataset!r}, but others: {', '.join(map(str, candidates))}. Name the "
            f"right one with --{side}-map FILE, or the release with --release-name {'|'.join(RELEASE_NAMES)}."
        )
    return candidates[0] if candidates else None


def _read_map(path: Path, side: Side, n_rows: int) -> list[str]:
    """Read the original id of each of ``n_rows`` rows from JSON lines.

    Raises:
        DataError: a line is malformed, a row is missing, repeated or out of range, or two rows have one id.
    """
    tokens: dict[int, str] = {}
    lines: dict[str, int] = {}
    file = Format("map of ids", f"Name another file with --{side}-map FILE.", longest_line=2**20)
    for number, line in enumerate(file.lines(path), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        row, token = _parse_map_line(where, line, _ROW_KEYS[side])
        if not 0 <= row < n_rows:
            raise DataError(
                f"{where}: row {row}, expected 0 to {n_rows - 1}, the {side}s of the matrices. "
                f"Is this the map of another dataset? Name the right one with --{side}-map FILE."
            )
        if row in tokens:
            raise DataError(f"{where}: row {row} occurs again, expected each row once. Remove one of the lines.")
        if token in lines:
            raise DataError(
                f"{where}: the id {token!r} stands in line {lines[token]} too, expected one row an id. Correct one of "
                "the lines."
            )
        tokens[row], lines[token] = token, number
    missing = [row for row in range(n_rows) if row not in tokens]
    if missing:
        raise DataError(
            f"{path} has no id for row {missing[0]}, expected all of 0 to {n_rows - 1}; {len(missing)} such rows in "
            f"all. Is this the map of another dataset? Name the right one with --{side}-map FILE."
        )
    return [tokens[row] for row in range(n_rows)]


def _parse_map_line(where: str, line: bytes, key: str) -> tuple[int, str]:
    """Read row and original id from one line, whose id may stand under any name."""
    expected = f'expected a JSON object such as {{"{key}": 0, "id": "B00X1"}}'
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise DataError(f"{where}: {error}, {expected}. Correct the line.") from error
    if not isinstance(entry, dict) or len(entry) != 2 or type(entry.get(key)) is not int:
        raise DataError(f"{where} holds {short_repr(entry)}, {expected}: {key!r} and one id. Correct the line.")
    original = next(value for name, value in entry.items() if name != key)
    if type(original) is not int and not isinstance(original, str):
        raise DataError(f"{where}: the id is {short_repr(original)}, expected text or an integer. Correct the line.")
    token = str(original)
    fault = token_fault(token)
    if fault:
        raise DataError(f"{where}: the id {token!r} {fault}, which RecBole's files cannot hold. Correct the line.")
    return entry[key], token


def _avoid_missing(tokens: list[str], path: Path) -> tuple[list[str], list[str]]:
    """Rename ids that RecBole would take for a missing value.

    Returns:
        The tokens, and a warning if some were changed.
    """
    renamed, changes = repair_tokens(tokens)
    if not changes:
        return tokens, []
    shown = ", ".join(f"{old!r} to {new!r}" for old, new in changes.items())
    return renamed, [f"{path.name}: RecBole reads some ids as a missing value; renamed {shown}."]


# ---------------------------------------------------------------------- writing

_Content = str | np.ndarray


def _contents(
    splits: Mapping[str, _Split], users: _SideData, items: _SideData, metadata: dict[str, Any]
) -> dict[str, _Content]:
    """Make the content of every file, by the part of its name after the dataset's."""
    contents: dict[str, _Content] = {
        f"{name}.inter": _atomic_text(split, users.tokens, items.tokens) for name, split in splits.items()
    }
    for side, data in (("user", users), ("item", items)):
        if data.embedding is not None:
            contents[f"{side}emb.npy"] = data.embedding
            contents[f"{side}emb.tokens"] = "".join(f"{token}\n" for token in data.tokens)
    if metadata:
        contents["semantic.json"] = json.dumps(metadata, indent=2, sort_keys=True) + "\n"
    for side, data in (("user", users), ("item", items)):
        if data.profiles is not None:
            contents[f"{side}prf.jsonl"] = "".join(
                json.dumps(record, ensure_ascii=False) + "\n" for record in data.profiles
            )
    return contents


def _atomic_text(split: _Split, user_tokens: Sequence[str], item_tokens: Sequence[str]) -> str:
    """Write interactions as RecBole's atomic file, in the order of (user row, item row)."""
    pairs = zip(split.rows.tolist(), split.columns.tolist())
    rows = (f"{user_tokens[row]}\t{item_tokens[column]}\n" for row, column in pairs)
    return "user_id:token\titem_id:token\n" + "".join(rows)


def _metadata(users: _SideData, items: _SideData) -> dict[str, Any]:
    """Describe the semantic embeddings; empty without any."""
    embeddings = [data.embedding for data in (users, items) if data.embedding is not None]
    if not embeddings:
        return {}
    norms = np.concatenate([np.linalg.norm(embedding.astype(np.float64), axis=1) for embedding in embeddings])
    return {
        "encoder": ENCODER,
        "dimension": embeddings[0].shape[1],
        "normalized": bool((np.abs(norms - 1) <= _NORM_TOLERANCE).all()),
        "source": "RLMRec release",
    }


def _left_over(folder: Path, dataset: str, contents: Mapping[str, _Content]) -> list[str]:
    """Warn of semantic embeddings and profiles from before, which this release does not replace."""
    sides = ("user", "item")
    endings = [f"{side}{kind}" for side in sides for kind in ("emb.npy", "emb.tokens", "prf.jsonl")] + ["semantic.json"]
    names = [f"{dataset}.{ending}" for ending in endings]
    old = [name for name in names if name not in contents and (folder / name).exists()]
    if not old:
        return []
    return [f"{', '.join(old)} in {folder} stay as they were, as the release has none; delete them if they do not fit."]


def _write(folder: Path, dataset: str, contents: Mapping[str, _Content]) -> None:
    """Write all files; none takes its name before all are whole."""
    with FileSet(folder, dataset, "import-release", tuple(contents)).replaced() as paths:
        for name, content in contents.items():
            if isinstance(content, str):
                paths[name].write_bytes(content.encode("utf-8"))
            else:
                np.save(paths[name], content, allow_pickle=False)


def _summary(
    dataset: str,
    folder: Path,
    splits: Mapping[str, _Split],
    users: _SideData,
    items: _SideData,
    metadata: Mapping[str, Any],
    warnings: Sequence[str],
    files: Sequence[Path],
) -> ReleaseSummary:
    """Count what was imported."""
    train = splits["train"]
    n_users, n_items = train.shape
    rows = [split.rows for split in splits.values()]
    columns = [split.columns for split in splits.values()]
    return ReleaseSummary(
        dataset=dataset,
        folder=folder,
        users=n_users,
        items=n_items,
        train=len(train.keys),
        valid=len(splits["valid"].keys),
        test=len(splits["test"].keys),
        users_without_training=n_users - len(np.unique(train.rows)),
        items_without_training=n_items - len(np.unique(train.columns)),
        users_without_interaction=n_users - len(np.unique(np.concatenate(rows))),
        items_without_interaction=n_items - len(np.unique(np.concatenate(columns))),
        user_ids=users.ids,
        item_ids=items.ids,
        user_embeddings=0 if users.embedding is None else len(users.embedding),
        item_embeddings=0 if items.embedding is None else len(items.embedding),
        dimension=metadata.get("dimension"),
        normalized=metadata.get("normalized"),
        user_profiles=len(users.profiles or ()),
        item_profiles=len(items.profiles or ()),
        warnings=tuple(warnings),
        files=tuple(files),
    )
