"""Linear models of items in closed form: weights between items, zero on the diagonal, in blocks of columns.

The inverse of a Gram matrix exists once, in the memory of the matrix; what follows from it is computed some columns at
a time, in double precision.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import scipy.sparse
from scipy.linalg import lapack

from recbole_rlmrec.errors import SettingError

#: So many columns are computed at a time.
COLUMNS_AT_ONCE = 512


class Columns(Protocol):
    """Weights between items that are computed by columns."""

    def __call__(self, block: slice) -> np.ndarray:
        """Return the columns of a block, float64 ``[I, b]``: column j holds what each item adds to the score of j."""


def gram_of(interactions: scipy.sparse.csr_matrix, penalty: float, texts: np.ndarray | None = None) -> np.ndarray:
    """Return ``X'X + FF' + penalty * 1``, float64 ``[I, I]``.

    Args:
        interactions: X, ``[U, I]``.
        penalty: what is added to the diagonal.
        texts: F, ``[I, D]``, whose dimensions are as further users; none by default.
    """
    n_items = interactions.shape[1]
    gram = np.empty((n_items, n_items))
    by_item = interactions.T.tocsr()
    for start in range(0, n_items, COLUMNS_AT_ONCE):
        block = slice(start, start + COLUMNS_AT_ONCE)
        gram[block] = (by_item[block] @ interactions).toarray()
        if texts is not None:
            gram[block] += texts[block] @ texts.T
    gram[np.diag_indices(n_items)] += penalty
    return gram


def inverted(gram: np.ndarray, settings: str) -> np.ndarray:
    """Return the inverse of a positive definite matrix, ``[I, I]``, written over the matrix.

    Args:
        gram: the matrix; it is lost.
        settings: the penalty that it has on its diagonal, as typed, for the message.

    Raises:
        SettingError: it is singular in double precision.
    """
    # LAPACK's matrices lie by columns: the transpose of a symmetric matrix that lies by rows is the same one.
    factor, fault = lapack.dpotrf(gram.T, lower=0, overwrite_a=1)
    if not fault:
        inverse, fault = lapack.dpotri(factor, lower=0, overwrite_c=1)
    if fault:
        raise SettingError(
            f"{settings}: the matrix of the items is singular with so small a penalty. Give a larger one, such as 100."
        )
    # Only the upper triangle is written; by blocks, since a copy of the whole would take its memory again.
    for start in range(0, len(inverse), COLUMNS_AT_ONCE):
        block = slice(start, start + COLUMNS_AT_ONCE)
        inverse[block.stop :, block] = inverse[block, block.stop :].T
        upper = np.triu(inverse[block, block])
        inverse[block, block] = upper + np.triu(upper, 1).T
    found: np.ndarray = inverse
    return found


class EaseColumns:
    """EASE (Steck, WWW 2019): ``1 - P / diag P`` with P the inverse of ``X'X + penalty * 1``.

    Args:
        inverse: P, ``[I, I]``.
    """

    def __init__(self, inverse: np.ndarray) -> None:
        self._inverse, self._diagonal = inverse, np.diagonal(inverse)

    def __call__(self, block: slice) -> np.ndarray:
        """Return some columns, ``[I, b]``."""
        return _without_diagonal(-self._inverse[:, block] / self._diagonal[block], block)


class TextColumns:
    """An EASE whose users are the D dimensions of the items' texts, from a matrix of D x D instead of I x I.

    With ``Q = (F'F + penalty * 1)^-1`` the inverse of ``FF' + penalty * 1`` is ``(1 - F Q F') / penalty``.

    Args:
        texts: F, float64 ``[I, D]``; zeros for an item without a text, whose weights are zero.
        penalty: above 0.
        settings: the penalty as typed, for the message of :func:`inverted`.
    """

    def __init__(self, texts: np.ndarray, penalty: float, settings: str) -> None:
        self._texts = texts
        inner = texts.T @ texts
        inner[np.diag_indices(len(inner))] += penalty
        self._mapped = texts @ inverted(inner, settings)  # F Q
        self._left_over = 1 - np.einsum("id,id->i", self._mapped, texts)  # the inverse's diagonal, times the penalty

    def __call__(self, block: slice) -> np.ndarray:
        """Return some columns, ``[I, b]``."""
        return _without_diagonal(self._mapped @ self._texts[block].T / self._left_over[block], block)


class PulledColumns:
    """L3AE's second step: an EASE that is pulled to other weights.

    ``1 + M - P diag((1 + diag M) / diag P)`` with ``M = pull * P C`` is the minimum, with a zero diagonal, of
    ``|X - X W|^2 + (total - pull) |W|^2 + pull |W - C|^2``, where P is the inverse of ``X'X + total * 1``.

    Args:
        inverse: P, ``[I, I]``.
        target: C, by columns.
        pull: the weight of C.
    """

    def __init__(self, inverse: np.ndarray, target: Columns, pull: float) -> None:
        self._inverse, self._diagonal = inverse, np.diagonal(inverse)
        self._target, self._pull = target, pull

    def __call__(self, block: slice) -> np.ndarray:
        """Return some columns, ``[I, b]``."""
        pulled = self._pull * (self._inverse @ self._target(block))
        of_diagonal = 1 + pulled[block].diagonal()
        return _without_diagonal(pulled - self._inverse[:, block] * (of_diagonal / self._diagonal[block]), block)


class MixedColumns:
    """``(1 - share) B + share C`` of two kinds of weights.

    Args:
        first: B.
        second: C.
        share: of the second.
    """

    def __init__(self, first: Columns, second: Columns, share: float) -> None:
        self._first, self._second, self._share = first, second, share

    def __call__(self, block: slice) -> np.ndarray:
        """Return some columns, ``[I, b]``."""
        return (1 - self._share) * self._first(block) + self._share * self._second(block)


def in_blocks(columns: Columns, n_items: int) -> np.ndarray:
    """Return all weights, float32 ``[I, I]``, computed in blocks of columns."""
    weights = np.empty((n_items, n_items), dtype=np.float32)
    for start in range(0, n_items, COLUMNS_AT_ONCE):
        block = slice(start, min(start + COLUMNS_AT_ONCE, n_items))
        weights[:, block] = columns(block)
    return weights


def _without_diagonal(columns: np.ndarray, block: slice) -> np.ndarray:
    """Set what an item adds to its own score to zero, in place."""
    columns[np.arange(block.start, block.start + columns.shape[1]), np.arange(columns.shape[1])] = 0
    return columns
