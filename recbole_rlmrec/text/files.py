"""``items.jsonl`` and ``reviews.jsonl`` in a dataset's folder: one item or review a line."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_rlmrec.data.atomic_file import id_fault
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.text.corpus import Item, Review
from recbole_rlmrec.text.json_lines import (
    MAX_MALFORMED,
    JsonLines,
    MalformedLineError,
    is_finite,
    optional_number,
    require_text,
)
from recbole_rlmrec.wording import examples, without_half_pairs

_logger = logging.getLogger(__name__)
ITEMS_FILE, REVIEWS_FILE = "items.jsonl", "reviews.jsonl"
_N_KEYS = 10
_ITEM_KEYS = ("item_id", "title", "description", "attributes")
_REVIEW_KEYS = ("user_id", "item_id", "text", "rating", "timestamp")


def item_line(item: Item) -> bytes:
    """Return an item's line of ``items.jsonl``; an attribute with one value is text, with several a list.

    >>> item_line(Item("12", "Fargo", attributes={"genres": ("Crime", "Drama")})).rstrip()
    b'{"item_id": "12", "title": "Fargo", "description": "", "attributes": {"genres": ["Crime", "Drama"]}}'
    """
    attributes = {name: values[0] if len(values) == 1 else list(values) for name, values in item.attributes.items()}
    record = {"item_id": item.token, "title": item.title, "description": item.description, "attributes": attributes}
    return _json_line(record)


def review_line(review: Review) -> bytes:
    """Return a review's line of ``reviews.jsonl``; whole numbers stand without a fraction."""
    return _json_line(
        {
            "user_id": review.user,
            "item_id": review.item,
            "text": review.text,
            "rating": _short(review.rating),
            "timestamp": _short(review.timestamp),
        }
    )


def _json_line(record: Mapping[str, Any]) -> bytes:
    # Half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes a question mark.
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", errors="replace")


def _short(number: float | None) -> int | float | None:
    return int(number) if number is not None and float(number).is_integer() else number


def write_items(path: str | Path, items: Iterable[Item]) -> None:
    """Write ``items.jsonl``, as a stream; an error leaves the file as it was."""
    _write_lines(path, map(item_line, items))


def write_reviews(path: str | Path, reviews: Iterable[Review]) -> None:
    """Write ``reviews.jsonl``, as a stream; an error leaves the file as it was."""
    _write_lines(path, map(review_line, reviews))


def _write_lines(path: str | Path, lines: Iterable[bytes]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.writelines(lines)


def read_items(path: str | Path, max_malformed: float = MAX_MALFORMED) -> dict[str, Item]:
    """Read ``items.jsonl``.

    Args:
        path: the file.
        max_malformed: the share of the lines that may be malformed, or repeat an item; they are skipped with a warning.

    Returns:
        Token -> item, in the file's order.

    Raises:
        DataError: the file cannot be read, or too many of its lines are malformed.
    """
    items: dict[str, Item] = {}
    keys = _KeyWatch(_ITEM_KEYS)

    def make(record: Mapping[str, Any]) -> Item:
        item = item_of(record)
        keys.note(record, has_text=item.has_text)
        if item.token in items:
            raise MalformedLineError(f"repeats the item {item.token!r}")
        return item

    file = JsonLines(Path(path), max_malformed=max_malformed)
    for _, item in file.records(make):
        items[item.token] = item
    _warn_of_malformed(file)
    keys.warn(file.path, "item has a title, description or attribute")
    return items


def iter_reviews(path: str | Path, max_malformed: float = MAX_MALFORMED) -> Iterator[Review]:
    """Yield the reviews of ``reviews.jsonl``, in its order; arguments and errors as ``read_items``'s."""
    file = JsonLines(Path(path), max_malformed=max_malformed)
    keys = _KeyWatch(_REVIEW_KEYS)

    def make(record: Mapping[str, Any]) -> Review:
        review = _review_of(record)
        keys.note(record, has_text=bool(review.text.strip()))
        return review

    for _, review in file.records(make):
        yield review
    _warn_of_malformed(file)
    keys.warn(file.path, "review has a text")


class _KeyWatch:
    """Warns of keys that are passed over in a file none of whose lines has a text: one may be the text, misnamed.

    Args:
        known: the keys that are read.
    """

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known
        self._unknown: dict[str, None] = {}
        self._has_text = False

    def note(self, record: Mapping[str, Any], *, has_text: bool) -> None:
        """Look at a line's keys, until a line has a text."""
        self._has_text = self._has_text or has_text
        if not self._has_text and len(self._unknown) < _N_KEYS:
            self._unknown.update((key, None) for key in record if key not in self._known)

    def warn(self, path: Path, wanted: str) -> None:
        """Warn if there were unknown keys and no text; ``wanted`` says what no line has."""
        if self._has_text or not self._unknown:
            return
        _logger.warning(
            "%s: no %s. The keys %s are not known and were passed over; known are %s. Rename those that hold texts.",
            path,
            wanted,
            examples(self._unknown, _N_KEYS),
            examples(self._known, len(self._known)),
        )


def _warn_of_malformed(file: JsonLines) -> None:
    if file.n_malformed:
        _logger.warning(
            "%s: %d of %d lines are malformed and were skipped, the first: %s",
            file.path,
            file.n_malformed,
            file.n_lines,
            file.examples[0],
        )


def item_of(record: Mapping[str, Any]) -> Item:
    """Return the item that a line of ``items.jsonl`` describes.

    Raises:
        MalformedLineError: it has no id, or a value of another type.
    """
    attributes = record.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise MalformedLineError(f"has attributes of type {type(attributes).__name__}, expected an object")
    values = {name: _values(name, value) for name, value in attributes.items()}
    return Item(
        require_id(record, "item_id"),
        without_half_pairs(_optional_text(record, "title")),
        without_half_pairs(_optional_text(record, "description")),
        {name: texts for name, texts in values.items() if texts},
    )


def _review_of(record: Mapping[str, Any]) -> Review:
    return Review(
        require_id(record, "user_id"),
        require_id(record, "item_id"),
        _optional_text(record, "text"),
        optional_number(record, "rating"),
        optional_number(record, "timestamp"),
    )


def require_id(record: Mapping[str, Any], key: str) -> str:
    """Return a value that is an id.

    Raises:
        MalformedLineError: it is missing, or RecBole's files cannot hold it.
    """
    token = require_text(record, key)
    fault = id_fault(token)
    if fault:
        raise MalformedLineError(f"has {key!r} = {token!r:.80}, which {fault}")
    return token


def _optional_text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedLineError(f"has {key!r} of type {type(value).__name__}, expected text")
    return value


def _values(name: str, value: object) -> tuple[str, ...]:
    values = [each for each in (value if isinstance(value, list) else [value]) if each is not None]
    if not all(isinstance(each, (str, int, float)) and is_finite(each) for each in values):
        raise MalformedLineError(f"has the attribute {name!r} that is no text or list of texts")
    return tuple(without_half_pairs(str(each)) for each in values if str(each).strip())
