"""Vectors that stand in no table yet: they may have been paid for, so the next run takes them and asks for the rest.

They are what an encoder had of a block that failed, and the rows of an unfinished table of other texts. The hidden file
``.<dataset>.encode.<hash>.vectors``, one for each encoder, holds them one after the other, each with a hash of its text
and its form; so they hold for other texts beside them, and as far as possible for another type or normalization.
"""

from __future__ import annotations

import hashlib
import logging
import os
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from recbole_rlmrec.files import open_no_link
from recbole_rlmrec.reading.regular import open_regular

_logger = logging.getLogger(__name__)

KEY_BYTES = 16
_HEADER = struct.Struct("<8sQ")
_MAGIC = b"rlmvecs1"
_MOST_VALUES = 2**20


@dataclass(frozen=True)
class Form:
    """What was done to a vector before it was stored.

    Attributes:
        normalized: whether it has length 1.
        dtype: what it was rounded to, ``float16`` or ``float32``.
    """

    normalized: bool
    dtype: str


#: As the encoder returned it.
RAW = Form(normalized=False, dtype="float32")


def text_key(text: str, form: Form) -> bytes:
    """Hash a text and the form of its vector."""
    content = f"{form.normalized} {form.dtype}\0{text}"
    return hashlib.blake2b(content.encode(), digest_size=KEY_BYTES).digest()


def split_keys(content: bytes) -> list[bytes]:
    """Return the keys that stand one after the other in some bytes."""
    return [content[start : start + KEY_BYTES] for start in range(0, len(content), KEY_BYTES)]


class VectorCache:
    """The vectors of one encoder by their texts.

    Args:
        path: the file; need not exist. One that is no such file counts as empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._load()

    def find(self, text: str, forms: Sequence[Form]) -> tuple[Form, np.ndarray] | None:
        """Return a text's vector, float32 ``[D]``, in the first of these forms that is there; None without one."""
        for form in forms if self._row_of else ():
            row = self._row_of.get(text_key(text, form))
            if row is not None:
                record = self._records[row]
                vector: np.ndarray = np.array(record["vector"])
                if zlib.crc32(vector.tobytes()) == record["check"]:  # a power cut may have left other bytes there
                    return form, vector
        return None

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors as the encoder returned them.

        Args:
            vectors: text -> vector, float32 ``[D]``.

        Raises:
            OSError: the file cannot be written.
        """
        if vectors:
            rows = np.stack(list(vectors.values()))
            self.add_rows([([text_key(text, RAW) for text in vectors], rows)], rows.shape[1])

    def add_rows(self, blocks: Iterable[tuple[Sequence[bytes], np.ndarray]], dimension: int) -> None:
        """Keep vectors, but none under a key that is there. Those of another length than the new ones are dropped.

        Args:
            blocks: keys of ``n`` texts, by :func:`text_key`, and their vectors, float32 ``[n, D]``.
            dimension: D.

        Raises:
            OSError: the file cannot be written.
        """
        kind = _record_type(dimension)
        if self._records.dtype != kind:
            self._forget(kind)
        known = dict.fromkeys(self._row_of)
        with open(self.path, "ab", opener=open_no_link) as file:
            if known:
                file.truncate(_HEADER.size + len(known) * kind.itemsize)  # a killed run may have left part of a record
            else:
                file.truncate(0)
                file.write(_HEADER.pack(_MAGIC, dimension))
            for keys, vectors in blocks:
                new = {key: row for row, key in enumerate(keys) if key not in known}
                records = np.empty(len(new), dtype=kind)
                records["key"] = np.frombuffer(b"".join(new), dtype=np.uint8).reshape(-1, KEY_BYTES)
                records["vector"] = vectors[list(new.values())]
                records["check"] = [zlib.crc32(vector.tobytes()) for vector in records["vector"]]
                file.write(records.tobytes())
                known.update(dict.fromkeys(new))
            file.flush()
            os.fsync(file.fileno())
        self._load()

    def clear(self) -> None:
        """Forget all."""
        self._forget(_record_type(0))
        self.path.unlink(missing_ok=True)

    def _forget(self, kind: np.dtype) -> None:
        self._records, self._row_of = np.empty(0, dtype=kind), dict[bytes, int]()

    def _load(self) -> None:
        """Find out what the file holds, and leave the vectors there."""
        self._forget(_record_type(0))
        try:
            with open_regular(self.path) as file:
                magic, dimension = _HEADER.unpack(file.read(_HEADER.size))
                size = os.fstat(file.fileno()).st_size - _HEADER.size
            if magic != _MAGIC or not 0 < dimension <= _MOST_VALUES:
                raise ValueError("it begins otherwise")
        except FileNotFoundError:
            return
        except (OSError, ValueError, struct.error):
            _logger.warning(f"'{self.path}' cannot be read; the vectors that it kept are asked for again.")
            return
        kind = _record_type(dimension)
        n_whole = size // kind.itemsize
        if n_whole:
            self._records = np.memmap(self.path, kind, mode="r", offset=_HEADER.size, shape=(n_whole,))
            keys = split_keys(np.ascontiguousarray(self._records["key"]).tobytes())
            self._row_of = {key: row for row, key in enumerate(keys)}


def _record_type(dimension: int) -> np.dtype:
    """Return the type of a vector's record in the file."""
    return np.dtype([("key", np.uint8, (KEY_BYTES,)), ("check", "<u4"), ("vector", "<f4", (dimension,))])
