"""Pickles of NumPy arrays, SciPy sparse matrices or plain Python data, read without executing anything in them.

A pickle is a program: it names functions and classes of any module and calls them, so loading one as it is can run any
code. Here the names are looked up in a fixed table instead, and behind each name stands a class or function of this
file that only records what the pickle says; arrays are then built from the recorded bytes. No module is imported or
searched for a name, and neither NumPy's nor SciPy's own unpickling code is reached. A name outside the table ends the
reading with an error. Before that, ``pickle_scan`` looks for what would end the process or fill memory.

Admitted are arrays and scalars of booleans, integers and floats of at most 8 bytes, in either byte order, as NumPy 1
and 2 write them; coo, csr and csc matrices and arrays of old and new SciPy; and what needs no name at all:
dictionaries, lists, tuples, text, bytes and numbers. Arrays of objects, of text and of records are not.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as short_repr
from typing import Any, BinaryIO

import numpy as np

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.reading.pickle_scan import HostilePickleError, scan_pickle
from recbole_rlmrec.reading.regular import open_regular

# Far beyond any such dataset: a damaged shape shall not fill the memory, and row * columns + column must fit in int64.
_MAX_SIDE = 10**8


@dataclass(frozen=True, eq=False)
class Entries:
    """The entries of a sparse matrix, as stored: in any order, possibly several in one cell.

    Attributes:
        shape: numbers of rows and columns, each from 1 to 10^8.
        rows: row of each entry, int64 ``[N]``, within the shape.
        columns: column of each entry, int64 ``[N]``, within the shape.
        values: value of each entry, float64 ``[N]``, finite.
    """

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray


def load_matrix(path: Path, remedy: str) -> Entries:
    """Read a pickled SciPy coo, csr or csc matrix.

    Args:
        path: the file.
        remedy: how to repair a bad file, a sentence that ends each error message.

    Raises:
        DataError: the file cannot be read, names what is not admitted, or holds something else or a matrix that does
            not agree with itself.
    """
    loaded = _load(path, _ADMITTED, _ADMITTED_WORDS, remedy)
    try:
        if not isinstance(loaded, _PickledMatrix):
            raise _BadPickleError(f"it holds {_kind(loaded)}, expected a SciPy coo, csr or csc matrix")
        return _entries(loaded)
    except _BadPickleError as fault:
        raise DataError(f"{path}: {fault}. {remedy}") from None


def load_array(path: Path, remedy: str) -> np.ndarray:
    """Read a pickled NumPy array; the result is read-only.

    Args:
        path: the file.
        remedy: how to repair a bad file, a sentence that ends each error message.

    Raises:
        DataError: the file cannot be read, names what is not admitted, or holds something else.
    """
    loaded = _load(path, _ADMITTED, _ADMITTED_WORDS, remedy)
    if not isinstance(loaded, _PickledArray) or loaded.values is None:
        raise DataError(f"{path}: it holds {_kind(loaded)}, expected a NumPy array. {remedy}")
    return loaded.values


def load_plain(path: Path, remedy: str) -> object:
    """Read pickled plain data: dictionaries, lists, tuples, text, bytes and numbers.

    Args:
        path: the file.
        remedy: how to repair a bad file, a sentence that ends each error message.

    Raises:
        DataError: the file cannot be read, or names anything.
    """
    return _load(path, {}, "Only dictionaries, lists, text and numbers are read there", remedy)


class _BadPickleError(Exception):
    """What is wrong with a pickle; the message lacks file and remedy."""


class _Unpickler(pickle.Unpickler):
    """Unpickler that knows the names in a table and no others."""

    def __init__(self, file: BinaryIO, admitted: Mapping[tuple[str, str], object]) -> None:
        super().__init__(file)
        self._admitted = admitted

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Look a name up in the table, never in a module.

        Raises:
            _BadPickleError: it is not there.
        """
        if (module_name, global_name) not in self._admitted:
            name = f"{module_name}.{global_name}"
            raise _BadPickleError(f"it names {name!r}, which is not admitted and was not executed")
        return self._admitted[module_name, global_name]


def _load(path: Path, admitted: Mapping[tuple[str, str], object], words: str, remedy: str) -> object:
    """Read a pickle; ``words`` says what ``admitted`` lets through, as the beginning of a sentence."""
    try:
        with open_regular(path) as file:
            scan_pickle(file)
            return _Unpickler(file, admitted).load()
    except (_BadPickleError, HostilePickleError) as fault:
        raise DataError(f"{path}: {fault}. {words}. {remedy}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}. {remedy}") from error
    # A damaged pickle makes the unpickler raise nearly anything, from EOFError to MemoryError.
    except Exception as error:
        raise DataError(
            f"{path} cannot be read: it is empty, cut short, or not a pickle of what was expected "
            f"({type(error).__name__}: {error}). {words}. {remedy}"
        ) from error


# ---------------------------------------------------------------------- stand-ins
# Each class has a __setstate__, without which a pickle could set attributes of the class itself.


class _PickledDtype:
    """Stand-in for ``numpy.dtype``.

    Attributes:
        code: NumPy's code, such as ``f4``.
        numpy: the dtype that the pickle describes; None unless it is of plain numbers of at most 8 bytes.
    """

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        self.code = code
        self.numpy: np.dtype[Any] | None = None
        if isinstance(code, str) and re.fullmatch("b1|[iu][1248]|f[248]", code):
            self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if self.numpy is not None:
            self.numpy = self.numpy.newbyteorder(state[1])


class _PickledArray:
    """Stand-in for ``numpy.ndarray``.

    Attributes:
        values: the array, rebuilt from the pickle's bytes; None if the pickle gave none.
    """

    values: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, is_fortran, raw = state
        self.values = _rebuild(raw, dtype, shape, "F" if is_fortran else "C")


class _PickledMatrix:
    """Stand-in for a SciPy sparse matrix.

    Attributes:
        state: the matrix's attributes as pickled, unchecked.
    """

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state

    def attribute(self, name: str) -> object:
        """Give one attribute.

        Raises:
            _BadPickleError: the pickle has none of that name.
        """
        if not isinstance(self.state, dict) or name not in self.state:
            raise _BadPickleError(f"the sparse matrix has no {name!r}, expected SciPy's layout")
        return self.state[name]

    def vector(self, name: str) -> np.ndarray:
        """Give one attribute that is a 1-D array.

        Raises:
            _BadPickleError: the pickle has none of that name, or something else under it.
        """
        return _as_vector(name, self.attribute(name))

    def coordinates(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Give rows and columns of the entries, as the pickle has them.

        Raises:
            _BadPickleError: they are missing or malformed.
        """
        raise NotImplementedError


class _PickledCoo(_PickledMatrix):
    """Coordinates: ``row`` and ``col``, or since SciPy 1.13 both in ``coords``."""

    def coordinates(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """See the base class."""
        if not isinstance(self.state, dict) or "coords" not in self.state:
            return self.vector("row"), self.vector("col")
        coordinates = self.state["coords"]
        if not isinstance(coordinates, (tuple, list)) or len(coordinates) != 2:
            raise _BadPickleError(f"'coords' of the matrix is {_kind(coordinates)}, expected two arrays")
        return _as_vector("coords", coordinates[0]), _as_vector("coords", coordinates[1])


class _PickledCsr(_PickledMatrix):
    """Compressed rows: the columns of row ``r`` are ``indices[indptr[r]:indptr[r + 1]]``."""

    def coordinates(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """See the base class."""
        return self._expanded(shape[0]), self.vector("indices")

    def _expanded(self, size: int) -> np.ndarray:
        """Give the compressed index of each entry."""
        pointers, n_entries = self.vector("indptr"), len(self.vector("indices"))
        counts: np.ndarray = np.empty(0, dtype=np.int64)
        # Differences of numbers beyond the entries may overflow, and look as if the numbers rose.
        if pointers.dtype.kind in "iu" and ((pointers >= 0) & (pointers <= n_entries)).all():
            counts = np.diff(pointers.astype(np.int64))
        if len(counts) != size or pointers[0] != 0 or (counts < 0).any() or pointers[-1] != n_entries:
            raise _BadPickleError(f"'indptr' of the matrix does not rise in {size} steps from 0 to {n_entries}")
        return np.repeat(np.arange(size), counts)


class _PickledCsc(_PickledCsr):
    """Compressed columns."""

    def coordinates(self, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """See the base class."""
        return self.vector("indices"), self._expanded(shape[1])


class _Callable:
    """A function that a pickle may call but not change: pickles can set attributes of what they name."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., object]) -> None:
        self._function = function

    def __call__(self, *arguments: object) -> object:
        return self._function(*arguments)

    def __setstate__(self, state: object) -> None:
        raise _BadPickleError("it tries to change a function")


def _rebuild(raw: object, dtype: object, shape: Any, order: Any) -> np.ndarray:
    """Build an array from its bytes."""
    if not isinstance(dtype, _PickledDtype) or dtype.numpy is None:
        code = dtype.code if isinstance(dtype, _PickledDtype) else dtype
        raise _BadPickleError(f"an array of dtype {short_repr(code)} is not admitted, only of plain numbers")
    if not isinstance(raw, (bytes, bytearray)) or order not in ("C", "F"):
        raise _BadPickleError("an array is not given as bytes in C or Fortran order")
    return np.frombuffer(raw, dtype.numpy).reshape(shape, order=order)


def _new_array(_subtype: object, _shape: object, _code: object) -> _PickledArray:
    """Stand in for NumPy's ``_reconstruct``, which makes an empty array to be filled later."""
    return _PickledArray()


def _array_from_buffer(
    buffer: object, dtype: object, shape: object, order: object, _axes: None = None
) -> _PickledArray:
    """Stand in for NumPy's ``_frombuffer``, which protocol 5 uses."""
    array = _PickledArray()
    array.values = _rebuild(buffer, dtype, shape, order)
    return array


def _number(dtype: object, raw: object) -> object:
    """Stand in for NumPy's ``scalar``; gives a plain Python number."""
    return _rebuild(raw, dtype, (), "C").item()


def _latin1(text: str, encoding: str) -> bytes:
    """Stand in for ``_codecs.encode``, with which protocol 2 writes bytes; no other codec is reached."""
    if encoding != "latin1":
        raise _BadPickleError(f"the codec {encoding!r} is not admitted, only latin1")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stand in for ``bytes()``, with which protocol 2 writes empty bytes."""
    return b""


def _admitted_names() -> dict[tuple[str, str], object]:
    """Map each admitted (module, name), of old and new NumPy and SciPy, to its stand-in."""
    names: dict[tuple[str, str], object] = {
        ("numpy", "dtype"): _PickledDtype,
        ("numpy", "ndarray"): _PickledArray,
        ("_codecs", "encode"): _Callable(_latin1),
        ("__builtin__", "bytes"): _Callable(_no_bytes),
    }
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray", "_reconstruct"] = _Callable(_new_array)
        names[f"{core}.multiarray", "scalar"] = _Callable(_number)
        names[f"{core}.numeric", "_frombuffer"] = _Callable(_array_from_buffer)
    for layout, stand_in in (("coo", _PickledCoo), ("csr", _PickledCsr), ("csc", _PickledCsc)):
        for module in (f"scipy.sparse.{layout}", f"scipy.sparse._{layout}"):
            for kind in ("matrix", "array"):
                names[module, f"{layout}_{kind}"] = stand_in
    return names


_ADMITTED = _admitted_names()
_ADMITTED_WORDS = "Only NumPy arrays of plain numbers and SciPy coo, csr and csc matrices are read there"


# ---------------------------------------------------------------------- checking what was recorded


def _entries(matrix: _PickledMatrix) -> Entries:
    """Check that a pickled matrix agrees with itself."""
    shape = matrix.attribute("_shape")
    if (
        not isinstance(shape, tuple)
        or len(shape) != 2
        or not all(type(size) is int and 0 < size <= _MAX_SIDE for size in shape)
    ):
        raise _BadPickleError(
            f"the matrix has shape {short_repr(shape)}, expected (rows, columns), each from 1 to {_MAX_SIDE}"
        )
    rows, columns = matrix.coordinates(shape)
    values = matrix.vector("data")
    if not len(rows) == len(columns) == len(values):
        raise _BadPickleError(
            f"the matrix has {len(rows)} rows, {len(columns)} columns and {len(values)} values, expected one of each "
            "an entry"
        )
    _check_range("row", rows, shape[0])
    _check_range("column", columns, shape[1])
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise _BadPickleError(f"entry {bad[0]} has the value {values[bad[0]]}, expected a finite number")
    return Entries(shape, rows.astype(np.int64), columns.astype(np.int64), values.astype(np.float64))


def _check_range(axis: str, indices: np.ndarray, size: int) -> None:
    """Check that indices are integers from 0 to ``size`` - 1."""
    if indices.dtype.kind not in "iu":
        raise _BadPickleError(f"the {axis} numbers have dtype {indices.dtype}, expected integers")
    bad = np.flatnonzero((indices < 0) | (indices >= size))
    if bad.size:
        raise _BadPickleError(
            f"entry {bad[0]} is in {axis} {indices[bad[0]]}, expected 0 to {size - 1}; {bad.size} such in all"
        )


def _as_vector(name: str, value: object) -> np.ndarray:
    """Check that something unpickled is a 1-D array."""
    values = value.values if isinstance(value, _PickledArray) else None
    if values is None or values.ndim != 1:
        found = _kind(value) if values is None else f"an array of shape {values.shape}"
        raise _BadPickleError(f"{name!r} of the matrix is {found}, expected a 1-D array")
    return values


def _kind(value: object) -> str:
    """Name what was unpickled, for a message."""
    if isinstance(value, _PickledArray):
        return "a NumPy array" if value.values is not None else "a NumPy array without content"
    if isinstance(value, _PickledMatrix):
        return "a sparse matrix"
    if isinstance(value, _PickledDtype):
        return "a NumPy dtype"
    return f"a value of type {type(value).__name__}"
