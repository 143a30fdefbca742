"""An orthonormal basis of the space of the semantic embeddings, so that a model reads shorter rows.

The basis is that of an uncentred singular value decomposition of the covered rows of users and items together: no other
one of so many columns keeps more of the rows' squared lengths, and with them of dot products and cosines. It comes from
the Gram matrix ``[D, D]``, a sum over blocks of rows, so that there is no table in double precision.

The hidden file ``.<dataset>.basis-<N>`` beside the embeddings keeps it: a line of JSON that says what it was made from,
then the values. One of other rows, or that is damaged, is made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from recbole_rlmrec.data.semantic_embedding import JoinedEmbedding
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.reading.regular import read_bounded

_logger = logging.getLogger(__name__)

#: Share of the rows' squared lengths that ``auto`` keeps.
AUTO_ENERGY = 0.99
#: Of the file; another number stands for another format, or for another basis of the same rows.
_FORMAT = 1
_LONGEST_HEADER = 4096


@dataclass(frozen=True, eq=False)
class SemanticBasis:
    """Orthonormal directions; a row ``x`` of length D is read as ``x @ vectors``, of length N.

    Attributes:
        vectors: float32 ``[D, N]``, orthonormal columns, those that keep most first.
        energy: share of the rows' squared lengths that is kept, in [0, 1].
    """

    vectors: np.ndarray
    energy: float

    @property
    def dimension(self) -> int:
        """N."""
        return int(self.vectors.shape[1])

    def record(self) -> dict[str, Any]:
        """Return what a result says of it: ``dimension``, ``energy`` and ``sha256``."""
        return {"dimension": self.dimension, "energy": self.energy, "sha256": _sha256(self.vectors)}


def semantic_basis(
    sides: Sequence[JoinedEmbedding], dimension: int | Literal["auto"], folder: Path, dataset: str
) -> SemanticBasis:
    """Return the basis of all sides' covered rows, from its file where that is of these rows.

    Args:
        sides: whose rows, of one length D.
        dimension: N, at most D; or ``auto``, the least that keeps ``AUTO_ENERGY``.
        folder: of the file; where it cannot be written, the log says so.
        dataset: its name, for the file's.

    Raises:
        SettingError: N is above D.
        DataError: a file of embeddings was written to since it was loaded.
    """
    width = sides[0].embedding.dimension
    if dimension != "auto" and dimension > width:
        raise SettingError(
            f"semantic_dimension={dimension}: the semantic embeddings ({sides[0].embedding.source}) have {width} "
            f"values, and cannot be reduced to more. Give a number from 1 to {width}, or auto."
        )
    path = folder / f".{dataset}.basis-{dimension}"
    origin: dict[str, Any] = {"format": _FORMAT, "dimension": dimension, "width": width, "rows": _rows_sha256(sides)}
    if dimension == "auto":
        origin["energy of auto"] = AUTO_ENERGY
    basis = _read(path, origin)
    if basis is None:
        basis = _computed(sides, dimension)
        try:
            _write(path, origin, basis)
        except OSError as error:
            _logger.warning(
                f"The basis of the semantic embeddings cannot be kept in '{path}' ({error}), so each run computes it "
                "again. Make room or allow writing there to spare that time; nothing else depends on it."
            )
    _logger.info(
        f"Semantic embeddings are reduced from {width} to {basis.dimension} dimensions (semantic_dimension="
        f"{dimension}), which keep {basis.energy:.2%} of their squared lengths."
    )
    return basis


def principal_directions(sides: Sequence[JoinedEmbedding]) -> tuple[np.ndarray, np.ndarray]:
    """Return the principal directions of the covered rows of all sides, the largest first.

    The mean is not taken off: it adds the same to all scores of a user, and vectors of length 1 have their origin.

    Returns:
        The sum of squares along each direction, float64 ``[D]``, and the directions in columns, float64 ``[D, D]``.
    """
    width = sides[0].embedding.dimension
    products = np.zeros((width, width))
    for side in sides:
        for _, block in side.blocks():
            rows = block.astype(np.float64)
            products += rows.T @ rows  # NumPy computes half of this product, which is symmetric
    squares, directions = np.linalg.eigh(products)
    return squares[::-1], directions[:, ::-1]


def _computed(sides: Sequence[JoinedEmbedding], dimension: int | Literal["auto"]) -> SemanticBasis:
    squares, directions = principal_directions(sides)
    shares = np.cumsum(squares.clip(min=0))
    shares /= max(shares[-1], np.finfo(np.float64).tiny)
    n = int(np.searchsorted(shares, AUTO_ENERGY)) + 1 if dimension == "auto" else dimension
    n = min(n, len(shares))
    kept = directions[:, :n]
    # A direction and its opposite serve alike: which of them is found would depend on the machine.
    largest = kept[np.abs(kept).argmax(axis=0), np.arange(n)]
    return SemanticBasis((kept * np.sign(largest)).astype(np.float32), float(shares[n - 1]))


def _rows_sha256(sides: Sequence[JoinedEmbedding]) -> str:
    """Hash the covered rows of all sides."""
    found = hashlib.sha256()
    for side in sides:
        found.update(f"{side.n_covered} {side.embedding.vectors.dtype.str}\n".encode())
        for _, block in side.blocks():
            found.update(block.tobytes())
    return found.hexdigest()


def _sha256(vectors: np.ndarray) -> str:
    return hashlib.sha256(vectors.astype("<f4").tobytes()).hexdigest()


# ---------------------------------------------------------------------- the file


def _write(path: Path, origin: Mapping[str, Any], basis: SemanticBasis) -> None:
    header = {"origin": origin, **basis.record()}
    with atomic_path(path) as temporary:
        line = json.dumps(header, sort_keys=True).encode() + b"\n"
        temporary.write_bytes(line + basis.vectors.astype("<f4").tobytes())


def _read(path: Path, origin: Mapping[str, Any]) -> SemanticBasis | None:
    """Return the basis in a file; None where there is none, it is of other rows, or damaged."""
    width = origin["width"]
    try:
        content = read_bounded(path, _LONGEST_HEADER + 4 * width * width)
        line, _, values = content.partition(b"\n")
        header = json.loads(line)
        vectors = np.frombuffer(values, dtype="<f4").reshape(width, header["dimension"]).astype(np.float32)
        if header["origin"] == origin and header["sha256"] == _sha256(vectors):
            return SemanticBasis(vectors, float(header["energy"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass  # nothing is lost with it
    _logger.info(f"'{path}' is not of these semantic embeddings; it is made again.")
    return None
