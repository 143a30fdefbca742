"""Pickles of arrays: all layouts, protocols and versions are read, and whatever a pickle says, nothing is executed."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pickles import (
    GREEDY,
    ITEM_PROFILES,
    N_ITEMS,
    N_USERS,
    PROTOCOLS,
    TRAIN,
    USER_PROFILES,
    Attack,
    dump,
    edited,
    matrix,
    unit_rows,
)
from scipy import sparse

from recbole_rlmrec.errors import DataError
from recbole_rlmrec.sources import array_pickle
from recbole_rlmrec.sources.array_pickle import load_array, load_matrix, load_plain

REMEDY = "Take another one."
LOADERS: dict[str, Callable[[Path, str], object]] = {
    "trn_mat.pkl": load_matrix,
    "usr_emb_np.pkl": load_array,
    "itm_emb_np.pkl": load_array,
    "usr_prf.pkl": load_plain,
    "itm_prf.pkl": load_plain,
}
VALUES = {
    "trn_mat.pkl": matrix(TRAIN),
    "usr_emb_np.pkl": unit_rows(N_USERS),
    "itm_emb_np.pkl": unit_rows(N_ITEMS),
    "usr_prf.pkl": USER_PROFILES,
    "itm_prf.pkl": ITEM_PROFILES,
}


def refused(path: Path) -> str:
    """Load a file by the loader that its name calls for, expect a DataError, and return its message."""
    with pytest.raises(DataError) as caught:
        LOADERS[path.name](path, REMEDY)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.endswith(f". {REMEDY}")
    return message


def read_pairs(path: Path) -> list[tuple[int, int]]:
    """Load a matrix and give its entries in order, each of value 1."""
    entries = load_matrix(path, REMEDY)
    assert entries.shape == (N_USERS, N_ITEMS)
    assert entries.rows.dtype == entries.columns.dtype == np.int64
    assert entries.values.dtype == np.float64
    assert entries.values.tolist() == [1.0] * len(entries.rows)
    return sorted(zip(entries.rows.tolist(), entries.columns.tolist()))


# ---------------------------------------------------------------------- matrices and arrays


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("layout", ["coo", "csr", "csc"])
@pytest.mark.parametrize("kind", ["matrix", "array"])
def test_layouts_and_protocols(tmp_path: Path, protocol: int, layout: str, kind: str) -> None:
    convert = getattr(sparse, f"{layout}_{kind}")
    for values in (matrix(TRAIN), matrix(TRAIN).astype(np.int8)):
        dump(tmp_path / "trn_mat.pkl", convert(values), protocol)
        assert read_pairs(tmp_path / "trn_mat.pkl") == sorted(TRAIN)


class OldCoo:
    """A COO matrix with the attributes that it had before SciPy 1.13."""

    def __init__(self, source: Any) -> None:
        self._shape, self.maxprint = source.shape, 50
        self.row, self.col, self.data = source.row, source.col, source.data


@pytest.mark.parametrize("scipy_module", ["scipy.sparse.coo", "scipy.sparse._coo"])
@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
@pytest.mark.parametrize("protocol", [2, 3])
def test_old_and_new_module_names(tmp_path: Path, scipy_module: str, core: bytes, protocol: int) -> None:
    content = pickle.dumps(OldCoo(matrix(TRAIN)), protocol)
    named = f"c{OldCoo.__module__}\nOldCoo\n".encode()
    assert content.count(named) == 1
    content = content.replace(named, f"c{scipy_module}\ncoo_matrix\n".encode())
    assert b"numpy.core." in content or b"numpy._core." in content
    content = content.replace(b"numpy._core.", b"numpy.core.").replace(b"numpy.core.", core)
    (tmp_path / "trn_mat.pkl").write_bytes(content)
    assert read_pairs(tmp_path / "trn_mat.pkl") == sorted(TRAIN)


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_old_module_names_of_compressed_matrices(tmp_path: Path, layout: str) -> None:
    content = pickle.dumps(matrix(TRAIN).asformat(layout), protocol=2)
    new, old = f"cscipy.sparse._{layout}\n".encode(), f"cscipy.sparse.{layout}\n".encode()
    assert content.count(new) == 1
    (tmp_path / "trn_mat.pkl").write_bytes(content.replace(new, old))
    assert read_pairs(tmp_path / "trn_mat.pkl") == sorted(TRAIN)


def test_big_endian_and_fortran_order(tmp_path: Path) -> None:
    vectors = unit_rows(N_USERS)
    old = OldCoo(matrix(TRAIN))
    old.row, old.data = old.row.astype(">i8"), old.data.astype(">f8")
    content = pickle.dumps(old, 2).replace(
        f"c{OldCoo.__module__}\nOldCoo\n".encode(), b"cscipy.sparse.coo\ncoo_matrix\n"
    )
    (tmp_path / "trn_mat.pkl").write_bytes(content)
    dump(tmp_path / "usr_emb_np.pkl", np.asfortranarray(vectors.astype(">f4")))
    assert read_pairs(tmp_path / "trn_mat.pkl") == sorted(TRAIN)
    loaded = load_array(tmp_path / "usr_emb_np.pkl", REMEDY)
    assert loaded.dtype.newbyteorder("=") == np.float32
    np.testing.assert_array_equal(loaded, vectors)


def edited_csr(**attributes: Any) -> Any:
    changed = matrix(TRAIN).tocsr()
    changed.__dict__.update(attributes)
    return changed


ROWS, COLUMNS = np.array([2, 0, 1, 0]), np.array([0, 2, 2, 0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, 2], "holds a value of type list, expected a SciPy coo, csr or csc matrix"),
        (np.ones((4, 3)), "holds a NumPy array, expected a SciPy"),
        (np.float64(1), "holds a value of type float, expected a SciPy"),
        (edited(_shape=(4, 3, 1)), "shape (4, 3, 1), expected (rows, columns)"),
        (edited(_shape=(4, -3)), "shape (4, -3), expected (rows, columns)"),
        (edited(_shape=(4, 10**9)), "shape (4, 1000000000), expected (rows, columns), each from 1 to 100000000"),
        (edited(_shape="43"), "shape '43', expected (rows, columns)"),
        (edited(_shape=None), "has no '_shape'"),
        (edited(data=None), "has no 'data'"),
        (edited(coords=None, row=None, col=None), "has no 'row'"),  # SciPy before 1.13 has rows and columns apart
        (edited(coords=(ROWS,)), "'coords' of the matrix is a value of type tuple, expected two arrays"),
        (edited(coords=(ROWS, [0, 1, 2, 0])), "'coords' of the matrix is a value of type list, expected a 1-D array"),
        (edited(coords=(ROWS.reshape(2, 2), COLUMNS)), "'coords' of the matrix is an array of shape (2, 2)"),
        (edited(coords=(ROWS[:3], COLUMNS)), "has 3 rows, 4 columns and 4 values"),
        (edited(data=np.ones(5)), "has 4 rows, 4 columns and 5 values"),
        (edited(coords=(np.array([2, -1, 1, 0]), COLUMNS)), "entry 1 is in row -1, expected 0 to 3; 1 such in all"),
        (edited(coords=(ROWS, np.array([0, 2, 3, 9]))), "entry 2 is in column 3, expected 0 to 2; 2 such in all"),
        (edited(coords=(ROWS.astype(float), COLUMNS)), "the row numbers have dtype float64, expected integers"),
        (edited(data=np.array([1, 1, np.nan, 1])), "entry 2 has the value nan, expected a finite number"),
        (edited(data=np.array([np.inf, 1, 1, 1])), "entry 0 has the value inf"),
        (edited(data=np.ones(4, dtype=complex)), "dtype 'c16' is not admitted"),
        (edited(data=np.array(["a"] * 4)), "dtype 'U1' is not admitted"),
        (edited(data=np.array([1, "a", None, ()], dtype=object)), "dtype 'O8' is not admitted"),
        (edited(data=np.zeros(4, dtype=[("a", "i4"), ("b", "O")])), "dtype 'V12' is not admitted"),
        (edited_csr(indptr=np.array([0, 2, 3, 4])), "'indptr' of the matrix does not rise in 4 steps from 0 to 4"),
        (edited_csr(indptr=np.array([0, 2, 1, 4, 4])), "does not rise"),
        (edited_csr(indptr=np.array([0, 2, 3, 4, 5])), "does not rise"),
        (edited_csr(indptr=np.array([1, 2, 3, 4, 4])), "does not rise"),
        (edited_csr(indptr=np.array([0, 2, np.nan, 4, 4])), "does not rise"),
        (edited_csr(indptr=np.array([], dtype=int)), "does not rise"),
        (edited_csr(indices=np.array([0, 2, -2, 0])), "entry 2 is in column -2, expected 0 to 2"),
    ],
)
def test_bad_matrices(tmp_path: Path, value: Any, expected: str) -> None:
    dump(tmp_path / "trn_mat.pkl", value)
    assert expected in refused(tmp_path / "trn_mat.pkl")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.array([[1.0, None]] * 4, dtype=object), "dtype 'O8' is not admitted"),
        (unit_rows(4).tolist(), "holds a value of type list, expected a NumPy array"),
        (matrix(TRAIN), "holds a sparse matrix, expected a NumPy array"),
        (np.ma.masked_array(unit_rows(4)), "which is not admitted and was not executed"),
    ],
)
def test_bad_arrays(tmp_path: Path, value: Any, expected: str) -> None:
    dump(tmp_path / "usr_emb_np.pkl", value)
    assert expected in refused(tmp_path / "usr_emb_np.pkl")


# ---------------------------------------------------------------------- pickles that attack


def object_array(value: Any) -> np.ndarray:
    array = np.empty(2, dtype=object)
    array[0] = value
    return array


CALLS = {
    "posix.system": lambda canary: Attack(os.system, f"touch {canary}"),
    "builtins.eval": lambda canary: Attack(eval, f"open({str(canary)!r}, 'w')"),
    "builtins.exec": lambda canary: Attack(exec, f"open({str(canary)!r}, 'w')"),
    "builtins.getattr": lambda canary: Attack(getattr, "text", "format"),
    "open": lambda canary: Attack(open, str(canary), "w"),
    "subprocess.Popen": lambda canary: Attack(subprocess.Popen, ["touch", str(canary)]),
    "pathlib": lambda canary: canary,
    "numpy": lambda canary: Attack(np.load, str(canary)),
}


@pytest.mark.parametrize("file", LOADERS)
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("wrap", [lambda call: call, lambda call: {0: {"profile": call}}, object_array])
def test_a_pickle_that_calls_something(tmp_path: Path, file: str, name: str, wrap: Callable[[Any], Any]) -> None:
    canary = tmp_path / "canary"
    dump(tmp_path / file, wrap(CALLS[name](canary)))
    message = refused(tmp_path / file)
    assert not canary.exists()
    assert message.startswith(f"{tmp_path / file}: it names '")
    assert "which is not admitted and was not executed" in message
    # A profile file may not even name NumPy, which the object array does first.
    assert name in message or (wrap is object_array and "_prf" in file and "numpy" in message)


@pytest.mark.parametrize("protocol", [0, 1, *PROTOCOLS])
def test_an_attack_inside_a_matrix(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    call = Attack(os.system, f"touch {canary}")
    changed = edited(data=object_array(call), maxprint=call, extra=call)
    dump(tmp_path / "trn_mat.pkl", changed, protocol)
    assert "which is not admitted and was not executed" in refused(tmp_path / "trn_mat.pkl")
    assert not canary.exists()


# NumPy's scalar(dtype(...), content)
SCALAR = b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n%stR."


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"cos\nsystem\n(S'touch CANARY'\ntR.", "'os.system'"),
        (b"(S'touch CANARY'\nios\nsystem\n.", "'os.system'"),
        (b"(cos\nsystem\nS'touch CANARY'\no.", "'os.system'"),
        (b"\x80\x04\x8c\x05scipy\x8c\x0dsparse.sys.os\x93.", "'scipy.sparse.sys.os'"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0bdtype.__new\x93.", "'numpy.dtype.__new'"),
        (b"cnumpy\nload\n.", "'numpy.load'"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "'numpy.core.multiarray.fromfile'"),
        (b"c_codecs\ndecode\n.", "'_codecs.decode'"),
        (b"c__builtin__\nbytearray\n.", "'__builtin__.bytearray'"),
        (b"ccopy_reg\n_reconstructor\n.", "'copy_reg._reconstructor'"),
        (b"cscipy.sparse._coo\nupcast\n.", "'scipy.sparse._coo.upcast'"),
        (b"Ptouch CANARY\n.", "persistent"),
        (b"\x82\x01.", "extension"),
        # What is admitted can be called only as NumPy does, and cannot be altered.
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00bz2tR.", "the codec 'bz2' is not admitted"),
        (b"c_codecs\nencode\n(N}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xstb.", "tries to change a function"),
        (b"cnumpy\nndarray\n}X\x08\x00\x00\x00__init__Nsb.", "TypeError"),
        (b"cnumpy\nndarray\n(K\x01K\x02tR.", "TypeError"),
        (b"cscipy.sparse._coo\ncoo_matrix\n(K\x01tR.", "TypeError"),
        (b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.", "holds a NumPy dtype"),
        (b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR}b.", "holds a NumPy dtype"),
        (b"cnumpy\ndtype\n.", "holds a value of type type"),
        (SCALAR % b"(X\x02\x00\x00\x00O8tRX\x01\x00\x00\x00a", "dtype 'O8' is not admitted, only of plain numbers"),
        (SCALAR % b"(X\x03\x00\x00\x00V16tRX\x01\x00\x00\x00a", "dtype 'V16' is not admitted"),
        (SCALAR % b"(cnumpy\nndarray\ntRX\x01\x00\x00\x00a", "is not admitted, only of plain numbers"),
        (SCALAR % b"(X\x02\x00\x00\x00i8tRX\x01\x00\x00\x00a", "an array is not given as bytes"),
        (b"cnumpy.core.multiarray\nscalar\n(NNtR.", "dtype None is not admitted"),
    ],
)
def test_hand_made_pickles(tmp_path: Path, content: bytes, found: str) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "trn_mat.pkl").write_bytes(content.replace(b"CANARY", str(canary).encode()))
    assert found in refused(tmp_path / "trn_mat.pkl")
    assert not canary.exists()


def test_an_array_without_content(tmp_path: Path) -> None:
    (tmp_path / "usr_emb_np.pkl").write_bytes(b"cnumpy\nndarray\n)R.")
    assert "without content, expected a NumPy array" in refused(tmp_path / "usr_emb_np.pkl")
    (tmp_path / "trn_mat.pkl").write_bytes(b"cscipy.sparse._coo\ncoo_matrix\n)R.")
    assert "has no '_shape'" in refused(tmp_path / "trn_mat.pkl")


def test_nothing_of_numpy_is_reached() -> None:
    """Every stand-in is of our module, so no NumPy or SciPy code can be called with a pickle's arguments."""
    assert {type(stand_in).__module__ for stand_in in array_pickle._ADMITTED.values()} == {
        "builtins",
        array_pickle.__name__,
    }
    classes = [stand_in for stand_in in array_pickle._ADMITTED.values() if isinstance(stand_in, type)]
    assert {stand_in.__module__ for stand_in in classes} == {array_pickle.__name__}


@pytest.mark.parametrize("file", LOADERS)
@pytest.mark.parametrize("protocol", [2, 4])
def test_truncated_anywhere(tmp_path: Path, file: str, protocol: int) -> None:
    path = tmp_path / file
    content = pickle.dumps(VALUES[file], protocol)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert "it is empty, cut short, or not a pickle" in refused(path)


# ---------------------------------------------------------------------- pickles that take the process, or memory

CHILD = """
import resource, sys
from pathlib import Path
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.sources import array_pickle
resource.setrlimit(resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30))
for path in sorted(Path(sys.argv[1]).iterdir()):
    for load in (array_pickle.load_matrix, array_pickle.load_array, array_pickle.load_plain):
        try:
            load(path, "Take another one.")
        except DataError as error:
            print(path.name, load.__name__, error)
"""


def test_small_pickles_take_neither_the_process_nor_memory(tmp_path: Path) -> None:
    """In a process of their own, whose memory is bounded: Python ends at the nested tuples without a word."""
    for number, (content, _) in enumerate(GREEDY.values()):
        (tmp_path / f"{number:02}").write_bytes(content)
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3 * len(GREEDY)
    for number, (_, found) in enumerate(GREEDY.values()):
        assert all(found in line for line in lines[3 * number : 3 * number + 3]), lines[3 * number]


def test_many_texts_and_numbers_are_no_attack(tmp_path: Path) -> None:
    profiles = {row: {"profile": f"text {row} " * 5, "reasoning": "the same"} for row in range(1000)}
    for protocol in (0, 1, *PROTOCOLS):
        dump(tmp_path / "p.pkl", profiles, protocol)
        assert array_pickle.load_plain(tmp_path / "p.pkl", "") == profiles
        dump(tmp_path / "v.pkl", [2**63 - 1, 2**64 - 1, -1.5, None, True, b"", ("a", ("b",))], protocol)
        if protocol > 2:  # before, bytes are decoded by a call
            assert array_pickle.load_plain(tmp_path / "v.pkl", "")[:2] == [2**63 - 1, 2**64 - 1]


def test_a_pickle_has_to_be_a_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "usr_prf.pkl")
    (tmp_path / "trn_mat.pkl").mkdir()
    (tmp_path / "usr_emb_np.pkl").symlink_to("/dev/zero")
    for name, kind in (("usr_prf.pkl", "a pipe"), ("trn_mat.pkl", "a folder"), ("usr_emb_np.pkl", "a device")):
        assert f"cannot be read: it is {kind}, expected a regular file. " in refused(tmp_path / name)


def test_indices_that_overflow(tmp_path: Path) -> None:
    """Differences of pointers beyond 64 bits would look as if they rose."""
    compressed = matrix(TRAIN).tocsr()
    for pointers in ([0, 2**62 + 1, -(2**62) - 1, 4, 4], [0, 2**63 - 1, 0, 4, 4], [-1, 0, 1, 2, 4]):
        compressed.indptr = np.array(pointers, dtype=np.int64)
        dump(tmp_path / "trn_mat.pkl", compressed)
        assert "'indptr' of the matrix does not rise in 4 steps from 0 to 4" in refused(tmp_path / "trn_mat.pkl")
