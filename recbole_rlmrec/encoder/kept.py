"""Vectors of a block that failed: they may have been paid for, so the next run takes them and asks for the rest.

They lie in a hidden file ``.<dataset>.encode.npz`` beside the files to be, as the encoder returned them, by a hash of
encoder and text; so they hold for another type, another normalisation, and when other texts have been corrected.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.reading.regular import open_regular

_logger = logging.getLogger(__name__)
_KEY_BYTES = 16


class KeptVectors:
    """The vectors by their texts.

    Args:
        path: the file; need not exist. One that is damaged counts as empty.
        encoder: the encoder's name.
    """

    def __init__(self, path: Path, encoder: str) -> None:
        self.path, self._encoder = path, encoder
        self._rows: dict[bytes, np.ndarray] = {}
        try:
            with open_regular(path) as file, np.load(file, allow_pickle=False) as arrays:
                keys, vectors = arrays["keys"], arrays["vectors"]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            _logger.warning(f"'{path}' cannot be read; what it kept of a block that failed is asked for again.")
            return
        if keys.shape == (len(vectors), _KEY_BYTES) and keys.dtype == np.uint8 and vectors.ndim == 2:
            self._rows = {key.tobytes(): vector for key, vector in zip(keys, vectors)}

    def find(self, text: str) -> np.ndarray | None:
        """Return a text's vector, float32 ``[D]``; None if it is not kept."""
        return self._rows.get(self._key(text)) if self._rows else None

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors of texts, and write the file.

        Args:
            vectors: text -> vector, float32 ``[D]``.

        Raises:
            OSError: the file cannot be written.
        """
        new = {self._key(text): vector for text, vector in vectors.items()}
        dimension = len(next(iter(new.values()), ()))
        self._rows = {**{key: row for key, row in self._rows.items() if len(row) == dimension}, **new}
        if new:
            keys = np.frombuffer(b"".join(self._rows), dtype=np.uint8).reshape(-1, _KEY_BYTES)
            with atomic_path(self.path) as temporary:
                np.savez(temporary, keys=keys, vectors=np.stack(list(self._rows.values())))

    def clear(self) -> None:
        """Forget all."""
        self._rows = {}
        self.path.unlink(missing_ok=True)

    def _key(self, text: str) -> bytes:
        return hashlib.blake2b(f"{self._encoder}\0{text}".encode(), digest_size=_KEY_BYTES).digest()
