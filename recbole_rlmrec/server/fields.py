"""Fields of an answer, none of which is what it should be until it was looked at."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

import numpy as np

# No answer has more tokens than that.
_MAX_TOKENS = 10**9


def token_count(value: Any) -> int | None:
    """Return a number of tokens; None where a server gives none, or something else.

    >>> token_count(12), token_count(12.0), token_count("12"), token_count(-1), token_count(10**400), token_count(True)
    (12, 12, None, None, None, None)
    """
    number = _whole_number(value)
    return number if number is not None and 0 <= number <= _MAX_TOKENS else None


def placed(indices: Sequence[Any]) -> list[int] | None:
    """Return the place of each of n entries by the ``index`` that each has; None if they are not 0 to n - 1.

    A server that leaves out what is 0 leaves out one index; the entry gets the place that no other has. Where several
    are missing, an entry without one stands where it should.

    Args:
        indices: of the entries, in their order; None where one is missing.

    >>> placed([None, 2, 1]), placed([None, None]), placed([0, 0]), placed([0, [1]])
    ([0, 2, 1], [0, 1], None, None)
    """
    numbers = [None if index is None else _whole_number(index) for index in indices]
    if any(number is None and index is not None for number, index in zip(numbers, indices)):
        return None
    if numbers.count(None) == 1:
        free = set(range(len(numbers))) - set(numbers)
        places = [min(free) if number is None else number for number in numbers] if len(free) == 1 else []
    else:
        places = [place if number is None else number for place, number in enumerate(numbers)]
    return places if sorted(places) == list(range(len(numbers))) else None


def read_vector(value: Any) -> np.ndarray | None:
    """Return a vector, float32 ``[D]``; None where it is none, or holds what float32 cannot.

    Args:
        value: a list of numbers, or their bytes in base64.

    >>> read_vector([1, 0.5]), read_vector("AACAPw=="), read_vector([1e39]), read_vector([None])
    (array([1. , 0.5], dtype=float32), array([1.], dtype=float32), None, None)
    """
    try:
        if isinstance(value, str):
            vector = np.frombuffer(base64.b64decode(value, validate=True), dtype="<f4").astype(np.float32)
        else:
            given = np.array(value) if isinstance(value, list) else np.empty(0)
            if given.ndim != 1 or given.dtype.kind not in "fiu":
                return None
            with np.errstate(over="ignore"):
                vector = given.astype(np.float32)
    except (ValueError, OverflowError, binascii.Error):
        return None
    return vector if vector.size and np.isfinite(vector).all() else None


def _whole_number(value: Any) -> int | None:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
