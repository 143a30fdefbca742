"""What RecBole's atomic files, which are tab-separated text, can hold as ids, and what they can be named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.recbole_names import PAD_TOKEN
from recbole_rlmrec.wording import count

# pandas, and so RecBole, reads these as a missing value, even in a text column. As ids they are refused, since RecBole
# would count their interactions as [PAD]'s.
# fmt: off
MISSING_TOKENS = frozenset([
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
])
# fmt: on

#: An id is text that people look at and type; a longer one is something else, and RecBole gives every id the room of
#: the longest.
LONGEST_ID = 1000
_NO_IDS = frozenset({"", PAD_TOKEN, *MISSING_TOKENS})

#: Tabs, line breaks and other characters that are no part of a text.
CONTROL = re.compile("[\0-\x1f\x7f-\x9f]")
_UNWRITABLE = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]|^\\s+|\\s+$")


def is_dataset_name(name: object) -> bool:
    """Return whether a dataset's name can be that of its folder and files, and no pattern of several."""
    return isinstance(name, str) and name.strip(" .") != "" and not re.search(r"[/\\*?\[\]\0-\x1f]|^ | $", name)


def check_dataset_name(dataset: str) -> None:
    """Check that a dataset's name can be a file's name.

    Raises:
        SettingError: it cannot.
    """
    if not is_dataset_name(dataset):
        raise SettingError(f"The dataset's name is {dataset!r}, expected a plain file name such as 'amazon-book'.")


def part_names(value: object) -> list[str] | None:
    """Return the names of the files that a dataset's parts are in, as ``benchmark_filename`` gives them.

    Args:
        value: a list of names, or text with a comma between two; None where the dataset is one file.

    Raises:
        SettingError: it is something else.

    >>> part_names("train, valid,test")
    ['train', 'valid', 'test']
    """
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else value
    if names is None:
        return None
    if not isinstance(names, (list, tuple)) or not names or not all(map(is_dataset_name, names)):
        raise SettingError(
            f"benchmark_filename={value!r}: expected the names between <dataset>. and .inter, such as "
            "[train, valid, test]."
        )
    return list(names)


def object_array(tokens: ArrayLike) -> np.ndarray:
    """Return tokens as text, objects of the shape given: a NumPy string array gives each the room of the longest.

    Args:
        tokens: ids, text or numbers, in a list or an array.

    Raises:
        DataError: one of them is missing.

    >>> object_array([12, "b"]).tolist()
    ['12', 'b']
    """
    given = np.asarray(tokens, dtype=object)
    missing = np.flatnonzero(pd.isna(given))
    if len(missing):
        raise DataError(
            f"The token of row {missing[0]} is {given.ravel()[missing[0]]!r}, expected an original id "
            f"({count(len(missing), 'such row')}). Give the rows ids, or leave them out."
        )
    texts = np.empty(given.size, dtype=object)
    texts[:] = [each.decode("utf-8") if isinstance(each, bytes) else str(each) for each in given.ravel().tolist()]
    return texts.reshape(given.shape)


def id_fault(token: str) -> str | None:
    """Say why a token of a table cannot be an id, or None if it can."""
    return "is read as missing" if token in MISSING_TOKENS else text_fault(token)


def token_fault(token: str) -> str | None:
    """Say why an id from elsewhere cannot be written into a table, or None if it can; missing ones are renamed."""
    return text_fault(token) or ("begins or ends with a space" if token != token.strip() else None)


def text_fault(token: str) -> str | None:
    """Say why a text cannot be an id, also where no word is read as missing, or None if it can."""
    if not token.strip():
        return "is empty"
    if token == PAD_TOKEN:
        return "is RecBole's own name of the padding id"
    if len(token) > LONGEST_ID:
        return f"is {len(token):,} characters long, of at most {LONGEST_ID:,}"
    control = CONTROL.search(token)
    if control:
        names = {"\t": "tab", "\n": "line break", "\r": "line break", "\0": "null character"}
        return f"holds a {names.get(control[0], 'control character')}"
    return None if is_unicode(token) else "holds half a surrogate pair"


def suspects(tokens: Sequence[str], at_once: int = 100_000) -> list[str]:
    """Return those of the tokens that may have a fault for :func:`id_fault` or :func:`text_fault`: few, or none.

    Looking at many at once takes a tenth of the time; where one of them has a fault, all of them are returned.
    """
    found: list[str] = []
    for start in range(0, len(tokens), at_once):
        some = tokens[start : start + at_once]
        text = "".join(some)
        if (
            CONTROL.search(text)
            or not (text.isascii() or is_unicode(text))
            or not _NO_IDS.isdisjoint(some)
            or any(map(str.isspace, some))
            or len(max(some, key=len)) > LONGEST_ID
        ):
            found += some
    return found


def is_unicode(text: str) -> bool:
    """Return whether text can be written as UTF-8, which half a surrogate pair cannot."""
    return not re.search("[\ud800-\udfff]", text)


def repair_tokens(tokens: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Change the ids that RecBole's files cannot hold or would read as missing, such as a Steam user named "null".

    Control characters, halves of surrogate pairs and blanks at either end are percent-encoded; what
    RecBole would take for a missing or its padding id gets an underscore after it. No two ids become one.

    Args:
        tokens: distinct ids, none of them empty.

    Returns:
        The tokens in their order, and old -> new of those that were changed.
    """
    taken, repaired, changes = set(tokens), [], {}
    for token in tokens:
        new = _UNWRITABLE.sub(lambda match: quote(match[0], safe="", errors="surrogatepass"), token)
        while new in MISSING_TOKENS or new == PAD_TOKEN or (new != token and new in taken):
            new += "_"
        if new != token:
            changes[token] = new
            taken.add(new)
        repaired.append(new)
    return repaired, changes
