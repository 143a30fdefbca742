"""What an encoder learned from the texts of a dataset: ``<dataset>.lsa.npz`` beside the embeddings.

An archive of NumPy arrays, uncompressed and without objects: those of the encoder, and ``encoder`` and
``profiles_sha256``, which are the same as in ``<dataset>.semantic.json`` where the file belongs to these embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np

from recbole_rlmrec.encoder.base import Encoder
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path, sync
from recbole_rlmrec.reading.regular import open_regular


def learned_path(folder: Path, dataset: str, encoder: str) -> Path:
    """Return the path of the file; ``encoder`` is the name by which ``--encoder`` asks for it."""
    return folder / f"{dataset}.{encoder}.npz"


def write_learned(path: Path, arrays: Mapping[str, np.ndarray], *, encoder: str, profiles_sha256: str) -> None:
    """Write what an encoder learned.

    Args:
        path: the file.
        arrays: what :meth:`~recbole_rlmrec.encoder.base.Encoder.learned` returned.
        encoder: name of the encoder.
        profiles_sha256: hash of what it learned from.

    Raises:
        OSError: the file cannot be written.
    """
    made_by = {"encoder": np.array(encoder), "profiles_sha256": np.array(profiles_sha256)}
    with atomic_path(path) as temporary:
        np.savez(temporary, **dict[str, Any]({**arrays, **made_by}))
        sync(temporary)


def restore_learned(encoder: Encoder, path: Path, profiles_sha256: str | None) -> None:
    """Let an encoder take what it learned when the embeddings were made.

    Args:
        encoder: of the same settings as then.
        path: the file.
        profiles_sha256: hash of what the embeddings were made from.

    Raises:
        DataError: the file is damaged, or was not written with these embeddings.
    """
    try:
        arrays = read_arrays(path)
        for name, expected in (("encoder", encoder.name), ("profiles_sha256", profiles_sha256)):
            found = arrays.pop(name, None)
            if found is None or found.shape or str(found) != expected:
                raise ValueError(f"it is of other embeddings than those beside it: its {name} is {str(found)[:80]!r}")
        encoder.restore(arrays)
    except Exception as error:
        raise DataError(
            f"'{path}' is not what the encoder {encoder.name} learned from the profiles ({error}). Make it again with "
            "build-semantics --overwrite, or remove it: the encoder is then fitted again from the profiles, if they "
            "are those of the embeddings."
        ) from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays of an archive that is not larger in memory than on the disk.

    Raises:
        ValueError: an array is compressed. Of a damaged archive NumPy and zipfile raise nearly anything: BadZipFile,
            KeyError, OSError, EOFError.
    """
    with open_regular(path) as file:
        with ZipFile(file) as archive:
            if any(entry.compress_type != ZIP_STORED for entry in archive.infolist()):
                raise ValueError("its arrays are compressed")
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
