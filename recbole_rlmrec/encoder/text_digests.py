"""Which text each row of a table is the vector of: eight bytes a row, in a hidden file beside the table."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from recbole_rlmrec.files import json_line
from recbole_rlmrec.reading.regular import read_bounded
from recbole_rlmrec.sides import Side

DIGEST_BYTES = 8


def digests_path(folder: Path, dataset: str, side: Side) -> Path:
    """Return the path of the file: a digest for each row of the side's table, in order."""
    return folder / f".{dataset}.{side}emb.texts"


def text_digest(text: str, vector: np.ndarray, encoder: str, *, normalized: bool) -> bytes:
    """Hash a text, its vector as it is stored, and all that the vector depends on besides.

    Args:
        text: what was encoded.
        vector: ``[D]``, float16 or float32.
        encoder: the encoder's name.
        normalized: whether vectors have length 1.
    """
    made = {"encoder": encoder, "normalized": normalized, "dtype": vector.dtype.name}
    return hashlib.blake2b(json_line({**made, "text": text}) + vector.tobytes(), digest_size=DIGEST_BYTES).digest()


def read_digests(folder: Path, dataset: str, side: Side, n_rows: int) -> list[bytes] | None:
    """Return the digest of each row; None where there is no such file, or it is of another table.

    Args:
        folder: folder of the table.
        dataset: RecBole's dataset name.
        side: ``"user"`` or ``"item"``.
        n_rows: rows of the table.
    """
    try:
        content = read_bounded(digests_path(folder, dataset, side), n_rows * DIGEST_BYTES)
    except OSError:
        return None
    if len(content) != n_rows * DIGEST_BYTES:
        return None
    return [content[start : start + DIGEST_BYTES] for start in range(0, len(content), DIGEST_BYTES)]
