"""Representations of users and items as files for other programs, with their ids and what is to be known of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

import numpy as np
from torch import Tensor

from recbole_rlmrec.data.embedding_files import stem_of
from recbole_rlmrec.data.file_set import FileSet
from recbole_rlmrec.data.provenance import versions
from recbole_rlmrec.errors import DataError, SettingError, TrainingError
from recbole_rlmrec.extras import require_package
from recbole_rlmrec.model.arrays import tables_of, tokens_of
from recbole_rlmrec.model.scores import require_products
from recbole_rlmrec.reading.regular import file_sha256
from recbole_rlmrec.recommend.item_index import INDEXES, IndexKind, check_index, recall_of, write_index
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.wording import listed

ExportFormat = Literal["npy", "parquet", "safetensors"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)

#: The file that says what the others are.
_META = "meta.json"
_SCORE = "inner product of the user's vector and the item's; the larger one is ranked first"
#: So many numbers are copied at a time.
_BLOCK = 2**20


class Table(NamedTuple):
    """What is written of a side.

    Attributes:
        tokens: ids as in the data files, ``[n]``.
        vectors: ``[n, d]``, on any device.
        titles: ``[n]``, None where unknown; None for users.
    """

    tokens: np.ndarray
    vectors: Tensor
    titles: np.ndarray | None

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield some rows after the other, float32 ``[b, d]``, with their place.

        Raises:
            TrainingError: a number is NaN or infinite.
        """
        size = max(1, _BLOCK // self.vectors.shape[1])
        for first in range(0, len(self.vectors), size):
            place = slice(first, first + size)
            rows = np.ascontiguousarray(self.vectors[place].float().cpu().numpy(), dtype="<f4")
            bad = ~np.isfinite(rows).all(axis=1)
            if bad.any():
                token = str(self.tokens[first + int(bad.argmax())])
                raise TrainingError(
                    f"The representation of {token!r} holds NaN or infinity, so nothing is exported. Train the model "
                    "again, with a smaller learning_rate."
                )
            yield place, rows


#: Both sides.
Tables = Mapping[Side, Table]


def _write_rows(file: BinaryIO, table: Table) -> None:
    for _, rows in table.blocks():
        file.write(rows.data)


def _write_tokens(path: Path, table: Table) -> None:
    path.write_bytes("".join(f"{token}\n" for token in table.tokens).encode("utf-8"))


# ---------------------------------------------------------------------- formats


def _npy_names(dataset: str) -> list[str]:
    """Return the names that semantic embeddings have, so that what reads those reads these."""
    return [f"{stem_of(dataset, side)}.{ending}" for side in SIDES for ending in ("npy", "tokens")]


def _write_npy(paths: Mapping[str, Path], dataset: str, tables: Tables) -> None:
    for side, table in tables.items():
        with paths[f"{stem_of(dataset, side)}.npy"].open("wb") as file:
            shape = tuple(table.vectors.shape)
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            _write_rows(file, table)
        _write_tokens(paths[f"{stem_of(dataset, side)}.tokens"], table)


def _parquet_names(dataset: str) -> list[str]:
    return [f"{dataset}.{side}s.parquet" for side in SIDES]


def _write_parquet(paths: Mapping[str, Path], dataset: str, tables: Tables) -> None:
    import pyarrow as arrow
    from pyarrow.parquet import ParquetWriter

    for table, name in zip(tables.values(), _parquet_names(dataset)):
        fields = {"id": arrow.string(), "title": arrow.string(), "vector": arrow.list_(arrow.float32())}
        if table.titles is None:
            del fields["title"]
        schema = arrow.schema(list(fields.items()))
        with ParquetWriter(paths[name], schema) as writer:
            for place, rows in table.blocks():
                ends = np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32)
                columns = {
                    "id": arrow.array(table.tokens[place].tolist(), arrow.string()),
                    "vector": arrow.ListArray.from_arrays(ends, rows.ravel()),
                }
                if table.titles is not None:
                    columns["title"] = arrow.array(table.titles[place].tolist(), arrow.string())
                writer.write_table(arrow.table([columns[column] for column in fields], schema=schema))


def _safetensors_names(dataset: str) -> list[str]:
    return [f"{dataset}.safetensors", *(f"{dataset}.{side}s.tokens" for side in SIDES)]


def _write_safetensors(paths: Mapping[str, Path], dataset: str, tables: Tables) -> None:
    """Write the tensors ``users`` and ``items``, in blocks: the package's writer takes all tables as bytes at once.

    The format is a header, JSON whose length stands before it, and the numbers, beginning at a multiple of eight bytes.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for side, table in tables.items():
        start, end = end, end + 4 * table.vectors.numel()
        header[f"{side}s"] = {"dtype": "F32", "shape": list(table.vectors.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    tensors, *tokens = (paths[name] for name in _safetensors_names(dataset))
    with tensors.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for table in tables.values():
            _write_rows(file, table)
    for path, table in zip(tokens, tables.values()):
        _write_tokens(path, table)


class _Writer(NamedTuple):
    names: Callable[[str], list[str]]
    write: Callable[[Mapping[str, Path], str, Tables], None]


_WRITERS: dict[str, _Writer] = {
    "npy": _Writer(_npy_names, _write_npy),
    "parquet": _Writer(_parquet_names, _write_parquet),
    "safetensors": _Writer(_safetensors_names, _write_safetensors),
}


# ---------------------------------------------------------------------- the whole


def check_export(format: str, index: str | None) -> None:
    """Check what is asked for, before a model is loaded.

    Raises:
        SettingError: there is no such format or index, or what it needs is not installed.
    """
    if format not in EXPORT_FORMATS:
        raise SettingError(f"format={format!r}: expected one of {', '.join(EXPORT_FORMATS)}.")
    if index is not None and index not in INDEXES:
        raise SettingError(f"index={index!r}: expected {', '.join(INDEXES)}, or no index.")
    if format == "parquet":
        require_package("pyarrow", "The format parquet", "pyarrow", "choose npy")
    if index is not None:
        check_index()


def require_absent(paths: list[Path]) -> None:
    """Check that no file is replaced that nobody asked to replace.

    Raises:
        DataError: one is there.
    """
    there = [path.name for path in paths if path.exists()]
    if there:
        raise DataError(
            f"'{paths[0].parent}' has {listed(there)} already. Give another place, or replace what is there: "
            "--overwrite, in Python overwrite=True."
        )


def export_tables(
    folder: str | Path,
    model: Any,
    dataset: Any,
    format: ExportFormat,
    *,
    titles: np.ndarray | None,
    checkpoint: Path | None,
    index: IndexKind | None,
    overwrite: bool,
    memory: float,
) -> dict[str, Any]:
    """Write the representations of a model; the files take their names together, when all are whole.

    Args:
        folder: of the files; made if missing.
        model: a backbone, in evaluation mode, without gradients.
        dataset: of the model.
        format: see :meth:`~recbole_rlmrec.recommend.recommender.Recommender.export`.
        titles: of the items by internal id; None where the format has no place for them.
        checkpoint: of the model, where it comes from one.
        index: see :meth:`~recbole_rlmrec.recommend.recommender.Recommender.export`.
        overwrite: replace files that are there.
        memory: bound of a block of scores where the index is tried, in MB.

    Returns:
        What ``meta.json`` says.
    """
    check_export(format, index)
    name = dataset.dataset_name
    representation = dict(zip(SIDES, tables_of(model)))
    consequence = "so that the vectors alone would rank otherwise: they are not exported."
    require_products(model, dataset, (representation["user"], representation["item"]), consequence)
    tables = {side: Table(tokens_of(dataset, side), representation[side][1:], None) for side in SIDES}
    if titles is not None:
        tables["item"] = tables["item"]._replace(titles=titles[1:])
    writer, index_name = _WRITERS[format], f"{name}.items.usearch"
    names = (*writer.names(name), *([index_name] if index else []), _META)
    files = FileSet(Path(folder), name, "export", names)
    if not overwrite and not files.is_unfinished:
        require_absent([files.folder / each for each in names])
    with files.replaced() as paths:
        writer.write(paths, name, tables)
        found = write_index(paths[index_name], tables["item"].blocks(), representation["item"]) if index else None
        meta = {
            "model": type(model).__name__,
            "dataset": name,
            "checkpoint": None if checkpoint is None else {"file": checkpoint.name, "sha256": file_sha256(checkpoint)},
            "format": format,
            "files": list(names),
            "users": len(tables["user"].tokens),
            "items": len(tables["item"].tokens),
            "dimension": int(representation["item"].shape[1]),
            "score": _SCORE,
            "index": None if found is None else recall_of(found, *representation.values(), memory=memory),
            "versions": versions(),
        }
        paths[_META].write_text(json.dumps(meta, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return meta
