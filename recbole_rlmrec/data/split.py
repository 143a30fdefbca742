"""Which interactions are for training, validation and test, for people who bring their own split.

A split comes in one of three forms:

* a packed file, ``NAME.split.json``: two bits an interaction, bound by a hash to the data it was made for;
* a text table of (user, item, split) rows, joined by token;
* a ``split`` column in the ``.inter`` file.

Each gives one code an interaction: the position of its name in ``SPLIT_NAMES``, or ``LEFT_OUT``.

The packed file does not name the interactions. It lists their codes in the order of their (user token, item token)
pairs, compared as strings by code point, so the order of the rows in the ``.inter`` file does not matter. Interactions
of the same pair keep the order in which the data lists them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recbole_rlmrec.data.atomic_file import object_array, text_fault
from recbole_rlmrec.data.table import Table
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.reading.regular import open_regular
from recbole_rlmrec.reading.shape import Count, PlainValue
from recbole_rlmrec.wording import count, example_pairs

SPLIT_NAMES = ("train", "valid", "test")
LEFT_OUT = 3

FORMAT = "recbole_rlmrec split"
VERSION = 1
ORDER = "user token, item token"

_WRITE_AGAIN = (
    "write it again with `recbole-rlmrec split --dataset NAME --overwrite` or write_packed_split, or fetch a whole "
    "copy."
)
_PACKED = Format(
    "packed split",
    f"A newer release may read it; otherwise {_WRITE_AGAIN}",
    largest=2**30,
    allow_others=True,
)


@dataclass(frozen=True)
class _Packed:
    """What is read of a packed file; see :func:`write_packed_split`."""

    format: Literal["recbole_rlmrec split"]
    version: Literal[1]
    order: Literal["user token, item token"]
    interactions: Count
    source_sha256: str
    codes: str
    made: dict[str, PlainValue] | None = None


_TRAIN = SPLIT_NAMES.index("train")
_CODES_PER_BYTE = 4
_SHIFTS = np.array([0, 2, 4, 6], dtype=np.uint8)
_HASHED_AT_ONCE = 1 << 16
#: So many of a split file's rows are shown in a message.
_N_ROWS_SHOWN = 5

_logger = logging.getLogger(__name__)


def pairs_sha256(users: ArrayLike, items: ArrayLike) -> str:
    r"""Hash the (user, item) pairs of some interactions, whatever their order.

    Args:
        users: ``[N]``, user tokens (str).
        items: ``[N]``, item tokens (str).

    Returns:
        The SHA-256, in hexadecimal, of the UTF-8 lines ``user\titem\n`` in the order of (user token, item token).
        Each interaction gives a line, so a pair that occurs twice counts twice.

    Raises:
        DataError: the two do not have the same length.

    >>> pairs_sha256(["anna", "bob"], ["i1", "i2"]) == pairs_sha256(["bob", "anna"], ["i2", "i1"])
    True
    >>> pairs_sha256(["anna"], ["i1"])[:16]
    'c67e9049f4edd133'
    """
    return _sha256(*_columns(users, items))


def numbered_pairs_sha256(user_tokens: ArrayLike, users: np.ndarray, item_tokens: ArrayLike, items: np.ndarray) -> str:
    """Hash the pairs of some interactions as :func:`pairs_sha256` does, without a token for each of them in memory.

    Args:
        user_tokens: ``[U]``, distinct tokens (str).
        users: ``[N]``, positions in ``user_tokens``.
        item_tokens: ``[I]``, distinct tokens (str).
        items: ``[N]``, positions in ``item_tokens``.

    >>> same = numbered_pairs_sha256(["anna", "bob"], np.array([0, 1, 0]), ["i1"], np.array([0, 0, 0]))
    >>> same == pairs_sha256(["anna", "anna", "bob"], ["i1", "i1", "i1"])
    True
    """
    return _sha256(_Column.of_numbers(user_tokens, users), _Column.of_numbers(item_tokens, items))


def write_packed_split(
    path: str | Path,
    users: ArrayLike,
    items: ArrayLike,
    codes: ArrayLike,
    made: Mapping[str, Any] | None = None,
) -> None:
    """Write the split of all interactions of a dataset as a packed file.

    The file is JSON. ``codes`` is the base64 of two bits an interaction: of the interactions in sorted order, the first
    is in the lowest two bits of the first byte, the second in the next two, the fifth in the lowest two of the second
    byte. Unused bits of the last byte are 0. The same split gives the same bytes.

    Args:
        path: the file to write, by custom ``NAME.split.json``.
        users: ``[N]``, user tokens (str).
        items: ``[N]``, item tokens (str).
        codes: ``[N]``, the position in ``SPLIT_NAMES``, or ``LEFT_OUT``.
        made: how the split was made, see :class:`~recbole_rlmrec.data.frozen.SplitRecipe`; only messages read it.

    Raises:
        DataError: the lengths differ, a code is unknown, or no interaction is for training.
    """
    _write_packed(path, *_columns(users, items), codes, made)


def write_numbered_split(
    path: str | Path,
    user_tokens: ArrayLike,
    users: np.ndarray,
    item_tokens: ArrayLike,
    items: np.ndarray,
    codes: ArrayLike,
    made: Mapping[str, Any] | None = None,
) -> None:
    """Write a split as :func:`write_packed_split` does, without a token for each interaction in memory.

    Args:
        path: the file to write.
        user_tokens: ``[U]``, distinct tokens (str).
        users: ``[N]``, positions in ``user_tokens``.
        item_tokens: ``[I]``, distinct tokens (str).
        items: ``[N]``, positions in ``item_tokens``.
        codes: ``[N]``, as there.
        made: as there.
    """
    columns = _Column.of_numbers(user_tokens, users), _Column.of_numbers(item_tokens, items)
    _write_packed(path, *columns, codes, made)


def _write_packed(
    path: str | Path, users: _Column, items: _Column, codes: ArrayLike, made: Mapping[str, Any] | None
) -> None:
    code_array = _code_array(codes, len(users), str(path))
    order = _pair_order(users, items)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "order": ORDER,
        "interactions": len(order),
        "source_sha256": _sorted_pairs_sha256(users, items, order),
        **({} if made is None else {"made": dict(made)}),
        "codes": base64.b64encode(_pack(code_array[order])).decode("ascii"),
    }
    with atomic_path(path) as temporary:
        temporary.write_bytes((json.dumps(document, indent=1) + "\n").encode("ascii"))


def read_split(
    path: str | Path,
    users: ArrayLike,
    items: ArrayLike,
    user_field: str = "user_id",
    item_field: str = "item_id",
    remedy: str = "",
) -> np.ndarray:
    r"""Read the split of a dataset's interactions, from a packed file or a text table.

    A file whose name ends with ``.json``, or that starts with ``{``, is a packed one. Any other is a tab-separated
    table with a header in the manner of RecBole's atomic files, such as ``user_id:token\titem_id:token\tsplit:token``:
    columns in any order, types optional, further columns ignored. It has to list every (user, item) pair of the data as
    ``train``, ``valid`` or ``test``; interactions of the same pair all get the pair's split.

    Args:
        path: the file to read.
        users: ``[N]``, user tokens of the dataset's interactions.
        items: ``[N]``, item tokens of the dataset's interactions.
        user_field: name of the table's user column.
        item_field: name of the table's item column.
        remedy: what else to do about a packed file of other data.

    Returns:
        ``[N]`` int8, one code for each given interaction: the position in ``SPLIT_NAMES``, or ``LEFT_OUT``.

    Raises:
        DataError: the file is missing or malformed, belongs to other data, or has no training interaction.
    """
    user_column, item_column = _columns(users, items)
    source = Path(path)
    if not source.is_file():
        raise DataError(
            f"There is no split file '{path}'. Expected a packed split (NAME.split.json) or a tab-separated table "
            f"with the columns {user_field}, {item_field} and split. Check the path, or write the file."
        )
    if is_packed(source):
        codes = _read_packed(source, user_column, item_column, remedy)
    else:
        codes = _read_table(source, user_column, item_column, user_field, item_field)
    return _require_train(codes, f"'{source}'")


def split_column_codes(values: ArrayLike) -> np.ndarray:
    """Turn the ``split`` column of an ``.inter`` file into codes.

    Args:
        values: ``[N]``, each ``train``, ``valid`` or ``test``.

    Returns:
        ``[N]`` int8, positions in ``SPLIT_NAMES``.

    Raises:
        DataError: a value is none of the three, or none is ``train``.

    >>> split_column_codes(["train", "test", "valid"]).tolist()
    [0, 2, 1]
    """
    source = "the 'split' column of the .inter file"
    return _require_train(_name_codes(values, source), source)


def random_split(users: ArrayLike, items: ArrayLike, seed: int, shares: Sequence[float] = (3, 1, 1)) -> np.ndarray:
    """Split interactions at random so that every user and every item has a training interaction.

    1. Each interaction, in the order of (user, item), draws a number; the interactions with the lowest numbers are for
       training, the next for validation, the rest for the test.
    2. Each user, then each item, without a training interaction gets its own with the lowest number moved to training.
    3. For each interaction moved, another goes back to where that one came from: the training interaction with the
       highest number whose user and item both keep at least two or, where there is none, at least one. So the shares
       stay exact, as long as there are such.

    Args:
        users: ``[N]``, user tokens, or numbers from 0 in the order of the tokens, which give the same split.
        items: ``[N]``, item tokens, or such numbers.
        seed: seed of the PCG64 generator.
        shares: of training, validation and test, in any unit.

    Returns:
        ``[N]`` int8, positions in ``SPLIT_NAMES``, aligned with the given rows.

    >>> random_split(["anna"] * 5, ["i1", "i2", "i3", "i3", "i3"], seed=2020).tolist()
    [0, 0, 2, 1, 0]
    """
    ranks = [column if column.dtype.kind in "iu" else _ranks(column) for column in (_objects(users), _objects(items))]
    order = _shuffled(np.lexsort(ranks[::-1]), seed)
    ends = [column[order] for column in ranks]
    del ranks
    codes = np.repeat(np.arange(len(shares), dtype=np.int8), _share_sizes(len(order), shares))
    train_counts = [np.bincount(nodes[codes == _TRAIN], minlength=nodes.max(initial=-1) + 1) for nodes in ends]
    moved = _cover_every_node(codes, ends, train_counts)
    _give_back(codes, ends, train_counts, moved)
    aligned = np.empty_like(codes)
    aligned[order] = codes
    return aligned


def further_split(users: ArrayLike, items: ArrayLike, codes: np.ndarray, seed: int) -> np.ndarray:
    """Split interactions that came later, without a change to the parts of those that were there.

    Each goes to a part at random, with the shares that the parts have; but one of a known pair goes where that pair is,
    and each user and each item without a training interaction gets its first one. The order of the new interactions
    does not matter, and the next call, with more known ones, draws other numbers.

    Args:
        users: ``[N + n]``, user tokens, of the known interactions first.
        items: ``[N + n]``, item tokens.
        codes: ``[N]``, those of the known ones: positions in ``SPLIT_NAMES``, or ``LEFT_OUT``.
        seed: seed of the PCG64 generator.

    Returns:
        ``[n]`` int8, positions in ``SPLIT_NAMES``, or ``LEFT_OUT`` where that is the pair's.

    >>> further_split(["anna", "bob", "anna", "cem"], ["i1", "i1", "i1", "i2"], np.array([1, 0]), seed=1).tolist()
    [1, 0]
    """
    (user_ranks, item_ranks), n_known = [_ranks(_objects(column)) for column in (users, items)], len(codes)
    keys = user_ranks.astype(np.int64) * (int(item_ranks.max(initial=0)) + 1) + item_ranks
    pairs, first = np.unique(keys[:n_known], return_index=True)
    order = np.lexsort((item_ranks[n_known:], user_ranks[n_known:])) + n_known
    draws = np.random.Generator(np.random.PCG64([seed, n_known])).random(len(order))
    shares = np.bincount(codes[codes != LEFT_OUT], minlength=len(SPLIT_NAMES))
    drawn = np.searchsorted(np.cumsum(shares) / shares.sum(), draws, side="right").astype(np.int8)
    place = np.searchsorted(pairs, keys[order]).clip(max=len(pairs) - 1)
    is_known = pairs[place] == keys[order]
    drawn[is_known] = codes[first[place[is_known]]]
    training = np.concatenate([np.flatnonzero(codes == _TRAIN), order[drawn == _TRAIN]])
    counts = [np.bincount(ranks[training], minlength=ranks.max(initial=-1) + 1) for ranks in (user_ranks, item_ranks)]
    moved = drawn[~is_known]
    _cover_every_node(moved, [ranks[order[~is_known]] for ranks in (user_ranks, item_ranks)], counts)
    drawn[~is_known] = moved
    aligned = np.empty_like(drawn)
    aligned[order - n_known] = drawn
    return aligned


def time_split(times: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """Split interactions by time, as RecBole does: the earliest are for training, the latest for the test.

    Args:
        times: ``[N]``, in the order of the interactions, which decides where times are equal.
        shares: of training, validation and test, in any unit; validation and test are rounded down, but to one at
            least where more than one is for training.

    Returns:
        ``[N]`` int8, positions in ``SPLIT_NAMES``.

    >>> time_split(np.array([4.0, 1.0, 2.0, 3.0]), (2, 1, 1)).tolist()
    [2, 0, 0, 1]
    """
    ratios = [share / sum(shares) for share in shares]
    sizes = [int(ratio * len(times)) for ratio in ratios]
    sizes[0] = len(times) - sum(sizes[1:])
    for part in range(len(sizes) - 1, 0, -1):
        if sizes[0] > 1 and 0 < ratios[part] * len(times) < 1:
            sizes[part] += 1
            sizes[0] -= 1
    codes = np.empty(len(times), dtype=np.int8)
    codes[np.argsort(times, kind="stable")] = np.repeat(np.arange(len(sizes), dtype=np.int8), sizes)
    return codes


def leave_one_out_split(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Split off each user's last interaction for the test, and the last but one for validation, as RecBole does.

    Of two interactions one is for the test; a single one is for training.

    Args:
        users: ``[N]``, numbers.
        times: ``[N]``, in the order of the interactions, which decides where times are equal.

    Returns:
        ``[N]`` int8, positions in ``SPLIT_NAMES``.

    >>> leave_one_out_split(np.array([0, 0, 0, 1]), np.array([3.0, 1.0, 2.0, 3.0])).tolist()
    [2, 0, 1, 0]
    """
    order = np.lexsort((times, users))
    sizes = np.bincount(users)
    from_end = np.cumsum(sizes)[users[order]] - np.arange(len(order))
    size = sizes[users[order]]
    codes = np.empty(len(users), dtype=np.int8)
    codes[order] = np.where((from_end == 1) & (size > 1), 2, np.where((from_end == 2) & (size > 2), 1, 0))
    return codes


class _Column:
    """One token for each interaction, as a number: a string for each of many millions would be gigabytes.

    Attributes:
        tokens: the distinct tokens in their order, text as objects ``[n]``.
        ranks: position of each interaction's token in ``tokens``, int64 ``[N]``.
    """

    def __init__(self, tokens: np.ndarray, ranks: np.ndarray) -> None:
        self.tokens, self.ranks = tokens, ranks

    @classmethod
    def of(cls, values: ArrayLike) -> _Column:
        """Return the column of some tokens, ``[N]``."""
        # As objects, equal tokens are found by their hash and only the distinct ones are sorted.
        numbers, found = pd.factorize(_objects(values), use_na_sentinel=False)
        return cls.of_numbers(found, numbers)

    @classmethod
    def of_numbers(cls, tokens: ArrayLike, numbers: np.ndarray) -> _Column:
        """Return the column of the tokens at some positions, ``[N]``."""
        ordered, rank_of = np.unique(object_array(tokens), return_inverse=True)
        return cls(ordered, rank_of.reshape(-1)[numbers])

    def __len__(self) -> int:
        return len(self.ranks)

    def at(self, rows: Any) -> np.ndarray:
        """Return the tokens of some interactions, objects ``[n]``."""
        return self.tokens[self.ranks[rows]]

    def objects(self) -> np.ndarray:
        """Return the token of each interaction, object ``[N]``: equal tokens are one object."""
        return self.tokens[self.ranks]


def _objects(values: ArrayLike) -> np.ndarray:
    """Return text as objects, and numbers as they are: an array of text gives each the room of the longest."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "iu":
        return values
    return np.asarray(values, dtype=object)


def _columns(users: ArrayLike, items: ArrayLike) -> tuple[_Column, _Column]:
    """Return both as columns; raise unless they are one-dimensional and equally long."""
    shapes = [_objects(values).shape for values in (users, items)]
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise DataError(
            f"An interaction is one user token and one item token, but the users have the shape {shapes[0]} "
            f"and the items {shapes[1]}. Give two one-dimensional arrays of the same length."
        )
    return _Column.of(users), _Column.of(items)


def _pair_order(users: _Column, items: _Column) -> np.ndarray:
    """Return the row numbers in the order of (user token, item token); stable."""
    # One key takes half the time of sorting by two; as many pairs as 64 bits number fit into no memory.
    return np.argsort(users.ranks.astype(np.int64) * len(items.tokens) + items.ranks, kind="stable")


def _ranks(tokens: np.ndarray) -> np.ndarray:
    """Number the distinct tokens in their order; only they are compared as strings, the rows as integers."""
    ranks = pd.factorize(tokens, sort=True)[0]
    missing = np.flatnonzero(ranks < 0)
    if len(missing):
        raise DataError(
            f"{count(len(missing), 'interaction')} without a user or an item, the first in row {missing[0]}: the id is "
            f"{tokens[missing[0]]!r}. Leave these rows out, or give them ids."
        )
    return ranks


def _shuffled(order: np.ndarray, seed: int) -> np.ndarray:
    """Put the rows, given in the order of their pairs, into the order of the numbers they draw."""
    # Doubles and a sort, not Generator.permutation, whose algorithm NumPy may change.
    draws = np.random.Generator(np.random.PCG64(seed)).random(len(order))
    places = np.argsort(draws, kind="stable")
    del draws  # 8 bytes an interaction, of which there may be many millions
    return order[places]


def _share_sizes(n_interactions: int, shares: Sequence[float]) -> list[int]:
    n_train, n_valid = (round(n_interactions * share / sum(shares)) for share in shares[:-1])
    n_valid = min(n_valid, n_interactions - n_train)  # both may round up
    return [n_train, n_valid, n_interactions - n_train - n_valid]


def _cover_every_node(codes: np.ndarray, ends: list[np.ndarray], train_counts: list[np.ndarray]) -> dict[int, int]:
    """Move an interaction of each node without a training one to training.

    Args:
        codes: ``[N]``, in drawn order; changed in place.
        ends: ``[N]`` user numbers and ``[N]`` item numbers, in drawn order.
        train_counts: training interactions of each user and of each item; changed in place.

    Returns:
        Position of each moved interaction -> the code it had.
    """
    moved: dict[int, int] = {}
    for nodes, counts in zip(ends, train_counts):
        # Users are all covered before items, since a user's interaction may cover an item too.
        present, first = np.unique(nodes, return_index=True)
        positions = first[counts[present] == 0]
        moved.update(zip(positions.tolist(), codes[positions].tolist()))
        codes[positions] = _TRAIN
        for other, other_counts in zip(ends, train_counts):
            np.add.at(other_counts, other[positions], 1)
    return moved


def _give_back(
    codes: np.ndarray, ends: list[np.ndarray], train_counts: list[np.ndarray], moved: Mapping[int, int]
) -> None:
    """Take as many other interactions out of training as were moved to it; arguments as ``_cover_every_node``'s."""
    wanted = [code for _, code in sorted(moved.items())]
    (users, items), (user_counts, item_counts) = ends, train_counts
    for kept in (2, 1):
        # Counts only fall from here on, so what does not qualify now never will.
        qualifies = (codes == _TRAIN) & (user_counts[users] > kept) & (item_counts[items] > kept)
        for position in np.flatnonzero(qualifies)[::-1]:
            if not wanted:
                return
            user, item = users[position], items[position]
            if user_counts[user] > kept and item_counts[item] > kept and position not in moved:
                codes[position] = wanted.pop()
                user_counts[user] -= 1
                item_counts[item] -= 1


def _sha256(users: _Column, items: _Column) -> str:
    return _sorted_pairs_sha256(users, items, _pair_order(users, items))


def _sorted_pairs_sha256(users: _Column, items: _Column, order: np.ndarray) -> str:
    """Hash the pairs in the given order; by blocks, so that the text of many millions is never whole in memory."""
    digest = hashlib.sha256()
    # Each token with what follows it, once: to format every line takes three times as long.
    before, after = (
        np.array([f"{token}{end}" for token in column.tokens.tolist()], dtype=object)
        for column, end in ((users, "\t"), (items, "\n"))
    )
    for start in range(0, len(order), _HASHED_AT_ONCE):
        rows = order[start : start + _HASHED_AT_ONCE]
        words = np.empty(2 * len(rows), dtype=object)
        words[::2], words[1::2] = before[users.ranks[rows]], after[items.ranks[rows]]
        digest.update("".join(words.tolist()).encode("utf-8"))
    return digest.hexdigest()


def _code_array(codes: ArrayLike, n_interactions: int, target: str) -> np.ndarray:
    """Return codes to be written as int8 ``[N]``; raise unless each is known and one is for training."""
    code_array = np.asarray(codes)
    if code_array.shape != (n_interactions,):
        raise DataError(
            f"'{target}' is not written: there are {n_interactions} interactions, but the codes have the shape "
            f"{code_array.shape}. Give one code for each interaction."
        )
    unknown = code_array[~np.isin(code_array, range(LEFT_OUT + 1))]
    if len(unknown):
        raise DataError(
            f"'{target}' is not written: {unknown[0]} is no split code. Expected 0 (train), 1 (valid), 2 (test) or "
            f"{LEFT_OUT} (left out)."
        )
    return _require_train(code_array.astype(np.int8), f"'{target}'")


def _require_train(codes: np.ndarray, source: str) -> np.ndarray:
    """Return the codes; raise if no interaction is for training."""
    if not np.any(codes == _TRAIN):
        raise DataError(
            f"The split in {source} has no training interaction ({len(codes)} interactions, none 'train'). A model "
            "needs some: assign 'train' to a part of the interactions."
        )
    return codes


def _pack(codes: np.ndarray) -> bytes:
    """Pack four codes a byte, the first in the lowest bits; the last byte is filled up with 0."""
    padded = np.zeros(_n_bytes(len(codes)) * _CODES_PER_BYTE, dtype=np.uint8)
    padded[: len(codes)] = codes
    packed = np.bitwise_or.reduce(padded.reshape(-1, _CODES_PER_BYTE) << _SHIFTS, axis=1)
    return packed.astype(np.uint8).tobytes()


def _unpack(packed: bytes, n_interactions: int) -> np.ndarray:
    """Undo ``_pack``."""
    codes = (np.frombuffer(packed, dtype=np.uint8)[:, None] >> _SHIFTS) & 3
    return codes.reshape(-1)[:n_interactions].astype(np.int8)


def _n_bytes(n_interactions: int) -> int:
    return -(-n_interactions // _CODES_PER_BYTE)


def is_packed(path: Path) -> bool:
    """Return whether a split file is taken for a packed one, by its name or its first character."""
    if path.name.endswith(".json"):
        return True
    with open_regular(path) as stream:
        return stream.read(64).lstrip().startswith(b"{")


def read_recipe(path: Path) -> Mapping[str, Any] | None:
    """Read how a packed split was made, as it says itself; None where it does not.

    Raises:
        DataError: the file is no packed split.
    """
    return _PACKED.read(path, _Packed).made


def _read_packed(path: Path, users: _Column, items: _Column, remedy: str) -> np.ndarray:
    document = _PACKED.read(path, _Packed)
    n_interactions = len(users)
    if document.interactions != n_interactions:
        raise DataError(
            f"'{path}' splits {document.interactions} interactions, but the dataset has {n_interactions}. "
            "The split belongs to other data, or a filter removed rows first: use the split made for this data, "
            f"before any filtering{remedy}."
        )
    order = _pair_order(users, items)
    _require_same_pairs(path, document, _sorted_pairs_sha256(users, items, order), remedy)
    codes = np.empty(n_interactions, dtype=np.int8)
    codes[order] = _unpack(_packed_bytes(path, document, n_interactions), n_interactions)
    return codes


def _require_same_pairs(path: Path, document: _Packed, data_sha256: str, remedy: str) -> None:
    """Raise unless the split was made for the data of this hash."""
    if document.source_sha256 != data_sha256:
        raise DataError(
            f"The split '{path}' belongs to other data: it was made for (user, item) pairs with the SHA-256 "
            f"{document.source_sha256[:12]}..., the dataset's have {data_sha256[:12]}... Use the split made for "
            f"this data, or the data this split was made for{remedy}."
        )


def _packed_bytes(path: Path, document: _Packed, n_interactions: int) -> bytes:
    """Return the decoded codes; raise unless they are base64 of the right length."""
    remedy = f"The file is damaged: {_WRITE_AGAIN}"
    codes = document.codes
    try:
        packed = base64.b64decode(codes, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"The codes of '{path}', '{codes[:12]}...', are not base64 ({error}). {remedy}") from error
    if len(packed) != _n_bytes(n_interactions):
        raise DataError(
            f"The codes of '{path}' are {len(packed)} bytes, expected {_n_bytes(n_interactions)} for "
            f"{n_interactions} interactions at two bits each. {remedy}"
        )
    return packed


def _read_table(path: Path, users: _Column, items: _Column, user_field: str, item_field: str) -> np.ndarray:
    table = _load_table(path, user_field, item_field)
    listed = pd.DataFrame({"user": table[user_field], "item": table[item_field]})
    listed["code"] = _name_codes(table["split"].to_numpy(), f"'{path}'")
    listed = listed.drop_duplicates()
    listed_keys, data_keys = _pair_keys(
        (listed["user"].to_numpy(), listed["item"].to_numpy()), (users.objects(), items.objects())
    )
    _require_one_split_each(path, listed, listed_keys)
    _require_cover(path, listed, listed_keys, users, items, data_keys)
    rows = pd.Index(listed_keys).get_indexer(data_keys)
    return listed["code"].to_numpy(dtype=np.int8)[rows]


def _load_table(path: Path, user_field: str, item_field: str) -> pd.DataFrame:
    """Read a split table as text, columns named without their types; raise unless it has the three needed."""
    wanted = (user_field, item_field, "split")
    expectation = f"a tab-separated table with the columns {user_field}, {item_field} and split"
    try:
        table = Table(path, typed=False)
        if set(wanted) <= set(table.types):
            # Nothing here reads a word such as NA as missing, so it is an id like others.
            return table.read(wanted, [user_field, item_field], id_fault=text_fault)
    except DataError as error:
        raise DataError(f"'{path}' cannot be read as {expectation}: {error}") from error
    missing = [name for name in wanted if name not in table.types]
    raise DataError(
        f"'{path}' has the columns {', '.join(table.types)}; {', '.join(missing)} missing. Expected "
        f"{expectation}: name them so in the first line, which may add RecBole's types ('split:token')."
    )


def _name_codes(names: ArrayLike, source: str) -> np.ndarray:
    """Return the code of each split name, int8; raise if a name is unknown."""
    name_array = np.asarray(names, dtype=object)
    codes = np.full(len(name_array), -1, dtype=np.int8)
    for code, name in enumerate(SPLIT_NAMES):
        codes[name_array == name] = code
    unknown_rows = np.flatnonzero(codes < 0)
    if len(unknown_rows):
        first = unknown_rows[~pd.Series(name_array[unknown_rows]).duplicated().to_numpy()][:_N_ROWS_SHOWN]
        shown = [f"'{name_array[row]!s:.80}' (row {row + 1})" for row in first]
        raise DataError(
            f"{len(unknown_rows)} values of {source} are no split: {', '.join(shown)}; row 1 is the first after the "
            f"header. Expected {', '.join(SPLIT_NAMES)}, in lower case: correct these rows."
        )
    return codes


def _pair_keys(*tables: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    """Number the distinct (user, item) pairs of all tables; returns each table's numbers."""
    lengths = [len(users) for users, _ in tables]
    user_codes, item_codes = (
        pd.factorize(np.concatenate([part.astype(object) for part in column]))[0] for column in zip(*tables)
    )
    keys = user_codes * (item_codes.max(initial=0) + 1) + item_codes
    return np.split(keys, np.cumsum(lengths)[:-1])


def _require_one_split_each(path: Path, listed: pd.DataFrame, listed_keys: np.ndarray) -> None:
    """Raise if a pair is listed with two splits; ``listed`` has no equal rows."""
    contradictory = listed[pd.Series(listed_keys, index=listed.index).duplicated()]
    if len(contradictory):
        pairs = example_pairs(zip(contradictory["user"], contradictory["item"]), _N_ROWS_SHOWN)
        raise DataError(
            f"'{path}' puts {len(contradictory)} (user, item) pairs in more than one split: {pairs}. Expected one "
            "split a pair: leave one row of each."
        )


def _require_cover(
    path: Path,
    listed: pd.DataFrame,
    listed_keys: np.ndarray,
    users: _Column,
    items: _Column,
    data_keys: np.ndarray,
) -> None:
    """Raise unless every interaction of the data is listed; warn of listed pairs that the data does not have."""
    foreign = ~np.isin(listed_keys, data_keys)
    foreign_examples = example_pairs(zip(listed["user"][foreign], listed["item"][foreign]), _N_ROWS_SHOWN)

    def of_data(rows: Any) -> str:
        return example_pairs(zip(users.at(rows), items.at(rows)), _N_ROWS_SHOWN)

    if foreign.all():
        raise DataError(
            f"None of the {len(foreign)} (user, item) pairs of '{path}' is in the dataset, such as {foreign_examples}; "
            f"the dataset has {of_data(slice(_N_ROWS_SHOWN))}. The table has to use the tokens of the "
            ".inter file."
        )
    unlisted = np.flatnonzero(~np.isin(data_keys, listed_keys))
    if len(unlisted):
        raise DataError(
            f"'{path}' does not list {len(unlisted)} of the dataset's {len(users)} interactions, such as "
            f"{of_data(unlisted[:_N_ROWS_SHOWN])}. A split has to cover all of them: "
            "add these rows, or remove the interactions from the data."
        )
    if foreign.any():
        _logger.warning(
            "%d (user, item) pairs of the split '%s' are not in the dataset and are ignored, such as %s.",
            foreign.sum(),
            path,
            foreign_examples,
        )
