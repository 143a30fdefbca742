"""Small pickles as RLMRec releases them, and pickles that attack."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

N_USERS, N_ITEMS = 4, 3
# User 3 and, in training, item 1 have no interaction. Written here unsorted.
TRAIN = [(2, 0), (0, 2), (1, 2), (0, 0)]
# Those that need no copyreg._reconstructor, which is not admitted, for a SciPy matrix.
PROTOCOLS = [2, 3, 4, 5]
USER_PROFILES = {1: {"profile": "Likes\nfantasy", "reasoning": "Titles"}, 0: {"profile": "Kéç \u2028", "reasoning": ""}}
ITEM_PROFILES = {2: {"profile": "A novel"}}


def dump(path: Path, value: Any, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def matrix(pairs: list[tuple[int, int]], values: Any = None, shape: tuple[int, int] = (N_USERS, N_ITEMS)) -> Any:
    """SciPy COO matrix [U, I] with one entry for each pair."""
    rows, columns = zip(*pairs)
    return sparse.coo_matrix((np.ones(len(pairs)) if values is None else values, (rows, columns)), shape=shape)


def edited(**attributes: Any) -> Any:
    """The training matrix with some attributes overwritten behind SciPy's back; None deletes."""
    changed = matrix(TRAIN)
    for name, value in attributes.items():
        changed.__dict__[name] = value
        if value is None:
            del changed.__dict__[name]
    return changed


def unit_rows(n_rows: int, dimension: int = 5, dtype: str = "float32") -> np.ndarray:
    vectors = np.random.default_rng(n_rows).normal(size=(n_rows, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)


class Attack:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


def nested_key(depth: int) -> bytes:
    """A pickle of a dictionary with a key of so many nested tuples, whose hash Python takes without a bound."""
    return b"\x80\x02})" + b"\x85" * depth + b"K\x01s."


def shared_text(times: int) -> bytes:
    """A pickle that lets one text be decoded again and again, and keeps what comes of it."""
    text = b"X" + (10**6).to_bytes(4, "little") + b"a" * 10**6
    call = b"c_codecs\nencode\nq\x00(" + text + b"X\x06\x00\x00\x00latin1tq\x01R"
    return b"\x80\x02" + call + b"h\x00h\x01R" * times + b"."


def colliding_keys(n_keys: int) -> bytes:
    """A pickle of a dictionary whose keys have one hash: multiples of the number that hashes are remainders of."""
    numbers = [(key * (2**61 - 1)).to_bytes(12, "little") for key in range(1, n_keys)]
    return b"\x80\x02}(" + b"".join(b"\x8a\x0c" + number + b"N" for number in numbers) + b"u."


#: A few bytes each -> what is said of them.
GREEDY = {
    "a place in the memo that is far out": (b"\x80\x02]r\xff\xff\xff\x0f.", "its memo has a place 268435455"),
    "the same by the old protocol": (b"]p268435455\n.", "its memo has a place 268435455"),
    "a text of 2^62 bytes": (b"\x80\x04\x8d" + (2**62).to_bytes(8, "little") + b".", "something has 4,611,686,018,427"),
    "bytes": (b"\x80\x04\x8e" + (2**35).to_bytes(8, "little") + b".", "something has 34,359,738,368 bytes"),
    "a bytearray": (b"\x80\x05\x96" + (2**35).to_bytes(8, "little") + b".", "something has 34,359,738,368 bytes"),
    "an old text": (b"\x80\x02X\xff\xff\xff\xffa.", "something has 4,294,967,295 bytes"),
    "a frame": (b"\x80\x04\x95" + (2**35).to_bytes(8, "little") + b"N.", "something has 34,359,738,368 bytes"),
    "a number": (b"\x80\x02\x8b\x00\x00\x00\x7f.", "a number of 2,130,706,432 bytes"),
    "a number of many digits": (b"I" + b"9" * 10**6 + b"\n.", "a number or a name of more than 40 characters"),
    "a long number of many digits": (b"L" + b"9" * 10**6 + b"L\n.", "a number or a name of more than 40"),
    "a set": (b"\x80\x04\x8f(K\x01\x90.", "it holds a set"),
    "tuples in a set": (b"\x80\x04(" + b")" + b"\x85" * 10**6 + b"\x91.", "more than 100 levels"),
    "tuples in a key": (nested_key(10**6), "it is nested more than 100 levels deep"),
    "lists in lists": (b"]" * 10**6 + b"a" * (10**6 - 1) + b".", "it is nested more than 100 levels deep"),
    "keys of one hash": (colliding_keys(20_000), "it holds a number of 12 bytes"),
    "a text decoded often": (shared_text(3000), "it gives its calls more text than it holds"),
}
