"""The public raw dumps of Amazon (2014, 2018, 2023), Yelp and Steam, as streams of items and reviews.

Each dump is two files of one object a line, gzipped or not: who reviewed what, and what the items are. Amazon's old
metadata and Steam's files hold Python literals instead of JSON; which it is, is found line by line.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from recbole_rlmrec.errors import ContractError, DataError
from recbole_rlmrec.parts import Registry, checked_name
from recbole_rlmrec.text.corpus import Item, Review
from recbole_rlmrec.text.json_lines import (
    JsonLines,
    MalformedLineError,
    Records,
    is_finite,
    optional_number,
    parse_json_or_literal,
    parse_literal,
    require_text,
)
from recbole_rlmrec.wording import listed

# A tag's name is bounded, so that a lone "<" before a long word costs no time.
_TAG = re.compile(r"<(/?[A-Za-z][A-Za-z0-9]{0,20}|!)[^<>]*>")
_UNSEEN = ("script", "style")
_LONG_REFERENCE = re.compile("&#[xX]?[0-9a-fA-F]{20,};?")

#: Who, what, rating and time of a line; all that the first reading keeps.
Interaction = tuple[str, str, float | None, float | None]


class Opener(Protocol):
    """Opens a file of a raw dump."""

    def __call__(self, path: Path, max_malformed: float, remedy: str, *, show_progress: bool) -> Records[Any]:
        """Return a file as a stream of records.

        Args:
            path: the file.
            max_malformed: share of its records that may be malformed.
            remedy: what to do about too many of them, for the error.
            show_progress: whether to show the bytes read, where standard error is a terminal.
        """


def open_lines(path: Path, max_malformed: float, remedy: str, *, show_progress: bool) -> Records[Any]:
    """Open a file of one object a line, in JSON or as a Python literal."""
    return JsonLines(path, max_malformed, show_progress, remedy, parse=parse_json_or_literal)


@dataclass(frozen=True)
class Source:
    """A kind of raw dump.

    Attributes:
        name: as ``--source`` names it.
        review_files: a pattern of the usual names of the file of reviews.
        item_files: the same of the file of items.
        usual: these names in words, for messages.
        min_rating: the least rating that counts as an interaction; None where there are no ratings.
        interaction: reads a line of the reviews without its text.
        text: reads the text of such a line; None where there are no texts.
        item: reads a line of the items.
        open: opens a file of either kind.
    """

    name: str
    review_files: str
    item_files: str
    usual: str
    min_rating: float | None
    interaction: Callable[[Mapping[str, Any]], Interaction]
    text: Callable[[Mapping[str, Any]], str] | None
    item: Callable[[Mapping[str, Any]], Item]
    open: Opener = open_lines

    @property
    def origin(self) -> str:
        """Where the source was defined: where its reviews are read."""
        reader: Any = self.interaction
        name = f"{reader.__module__}:{getattr(reader, '__qualname__', reader)}"
        # All lambdas of a module have one name.
        return f"{name}, line {reader.__code__.co_firstlineno}" if name.endswith("<lambda>") else name

    def review(self, record: Mapping[str, Any]) -> Review:
        """Read a line of the reviews."""
        user, item, rating, timestamp = self.interaction(record)
        return Review(user, item, self.text(record) if self.text else "", rating, timestamp)

    def find_files(
        self, folder: str | Path, reviews: str | Path | None = None, items: str | Path | None = None
    ) -> tuple[Path, Path]:
        """Return the files of reviews and of items: the ones given, or the only ones of their usual names in a folder.

        Raises:
            DataError: a file does not exist, or none or several of the folder's have a usual name.
        """
        return (
            _find_file(Path(folder), "reviews", self.review_files, self.usual, reviews),
            _find_file(Path(folder), "items", self.item_files, self.usual, items),
        )


def plain_text(text: str) -> str:
    """Return the text a reader of a page would see: entities resolved, tags out, white space collapsed.

    >>> plain_text("Rock &amp; roll<br/>for <b>all</b> where 1 < 2")
    'Rock & roll for all where 1 < 2'
    """
    if "&" in text:
        # Python refuses to read a number of thousands of digits; there is no such character anyway.
        text = html.unescape(_LONG_REFERENCE.sub("\ufffd", text))
    if "<" in text:
        first, *rest = _TAG.split(text)
        text = " ".join([first, *(part for tag, part in zip(rest[::2], rest[1::2]) if tag.lower() not in _UNSEEN)])
    return " ".join(text.split())


# ---------------------------------------------------------------------- what the sources have in common


def _find_file(folder: Path, role: str, pattern: str, usual: str, given: str | Path | None) -> Path:
    if given is not None:
        if not Path(given).is_file():
            raise DataError(f"--{role} {given} does not exist, expected a file of one object a line. Correct the path.")
        return Path(given)
    names = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    found = [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]
    if len(found) == 1:
        return folder / found[0]
    there = listed(names, most=20)
    state = f"holds {there}" if names else "is empty" if folder.is_dir() else "is no folder"
    problem = f"Several files may hold the {role}: {', '.join(found)}" if found else f"No file of {role} found"
    raise DataError(f"{problem}. '{folder}' {state}; expected one each of {usual}. Name it with --{role} FILE.")


def _texts(value: object) -> Iterator[str]:
    """Yield the texts in a value, however its lists are nested, as plain text, without blanks, nulls and NaN."""
    if value is None:
        return
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool) and is_finite(value):
        text = plain_text(str(value))
        if text:
            yield text


def _prose(*values: object) -> str:
    """Join the texts in some values to one."""
    return " ".join(_texts(values))


def _attributes(**values: object) -> dict[str, tuple[str, ...]]:
    """Return the distinct texts of each value, in their order; a value without any is left out."""
    attributes = {name: tuple(dict.fromkeys(_texts(value))) for name, value in values.items()}
    return {name: texts for name, texts in attributes.items() if texts}


def required_rating(record: Mapping[str, Any], key: str) -> float:
    """Return a rating.

    Raises:
        MalformedLineError: it is missing, or no number.
    """
    rating = optional_number(record, key)
    if rating is None:
        raise MalformedLineError(f"has no {key!r}, expected a rating")
    return rating


def _seconds(record: Mapping[str, Any], key: str) -> float | None:
    """Return a date such as 2014-02-17 or 2014-02-17 12:00:00, taken as UTC, in seconds since 1970."""
    date = record.get(key)
    if date is None or date == "":
        return None
    try:
        return datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()
    except (TypeError, ValueError):
        raise MalformedLineError(f"has {key!r} = {date!r:.40}, expected a date such as 2014-02-17") from None


# ---------------------------------------------------------------------- Amazon, 2014 and 2018


def _amazon_interaction(record: Mapping[str, Any]) -> Interaction:
    return (
        require_text(record, "reviewerID"),
        require_text(record, "asin"),
        required_rating(record, "overall"),
        optional_number(record, "unixReviewTime"),
    )


def _amazon_text(record: Mapping[str, Any]) -> str:
    return _headed(record.get("summary"), record.get("reviewText"))


def _headed(title: object, body: object) -> str:
    """Return a review with its headline, which is often its most informative line."""
    headline, text = _prose(title), _prose(body)
    if headline and text and headline[-1] not in ".!?":
        headline += "."
    return f"{headline} {text}".strip()


def _amazon_item(record: Mapping[str, Any]) -> Item:
    return Item(
        require_text(record, "asin"),
        _prose(record.get("title")),
        _prose(record.get("description"), record.get("feature")),
        _attributes(brand=record.get("brand"), categories=[record.get("categories"), record.get("category")]),
    )


# ---------------------------------------------------------------------- Amazon, 2023


def _amazon_2023_interaction(record: Mapping[str, Any]) -> Interaction:
    milliseconds = optional_number(record, "timestamp")
    return (
        require_text(record, "user_id"),
        # Colours and sizes of a product have an asin each; what describes the product goes by their parent's.
        require_text(record, "parent_asin"),
        required_rating(record, "rating"),
        None if milliseconds is None else milliseconds / 1000,
    )


def _amazon_2023_text(record: Mapping[str, Any]) -> str:
    return _headed(record.get("title"), record.get("text"))


def _amazon_2023_item(record: Mapping[str, Any]) -> Item:
    return Item(
        require_text(record, "parent_asin"),
        _prose(record.get("title")),
        _prose(record.get("description"), record.get("features")),
        _attributes(brand=record.get("store"), categories=[record.get("main_category"), record.get("categories")]),
    )


# ---------------------------------------------------------------------- Yelp


def _yelp_interaction(record: Mapping[str, Any]) -> Interaction:
    return (
        require_text(record, "user_id"),
        require_text(record, "business_id"),
        required_rating(record, "stars"),
        _seconds(record, "date"),
    )


def _yelp_text(record: Mapping[str, Any]) -> str:
    return _prose(record.get("text"))


def _yelp_item(record: Mapping[str, Any]) -> Item:
    categories = record.get("categories")
    return Item(
        require_text(record, "business_id"),
        _prose(record.get("name")),
        "",
        _attributes(
            city=record.get("city"),
            state=record.get("state"),
            categories=categories.split(", ") if isinstance(categories, str) else categories,
            features=list(_yelp_features(record.get("attributes"))),
        ),
    )


def _yelp_features(attributes: object) -> Iterator[str]:
    """Say what a business has, such as ``BusinessParking: street``; what it has not is left out."""
    for name, value in attributes.items() if isinstance(attributes, dict) else ():
        known = _literal(value)
        if known is True:
            yield name
        elif isinstance(known, dict):
            yield from (f"{name}: {part}" for part, has in known.items() if has is True)
        elif known not in (None, False, "", "none", "no"):
            yield f"{name}: {known}"


def _literal(value: object) -> object:
    """Read what Yelp writes as the text of a Python literal: ``"True"``, ``"u'free'"``, ``"{'lot': False}"``."""
    if not isinstance(value, str) or len(value) > 10_000:
        return value
    try:
        return parse_literal(value)
    except ValueError:
        return value


# ---------------------------------------------------------------------- Steam, as published with SASRec


def _steam_interaction(record: Mapping[str, Any]) -> Interaction:
    # Every line has a username, but only some a user_id: taking both would make two users of one.
    return require_text(record, "username"), require_text(record, "product_id"), None, _seconds(record, "date")


def _steam_text(record: Mapping[str, Any]) -> str:
    return _prose(record.get("text"))


def _steam_item(record: Mapping[str, Any]) -> Item:
    names = ("genres", "tags", "specs", "developer", "publisher", "release_date")
    return Item(
        require_text(record, "id"),
        _prose(record.get("title")) or _prose(record.get("app_name")),
        "",
        _attributes(**{name: record.get(name) for name in names}),
    )


_ENDING = r"\.json(l|lines)?(\.gz)?"

AMAZON = Source(
    "amazon",
    rf"(?!meta).*{_ENDING}",
    rf"meta.*{_ENDING}",
    "reviews_Books.json (2014) or Books.json (2018), gzipped or not, and meta_Books.json",
    3.0,
    _amazon_interaction,
    _amazon_text,
    _amazon_item,
)
AMAZON_2023 = Source(
    "amazon-2023",
    rf"(?!meta).*{_ENDING}",
    rf"meta.*{_ENDING}",
    "Books.jsonl and meta_Books.jsonl, gzipped or not",
    3.0,
    _amazon_2023_interaction,
    _amazon_2023_text,
    _amazon_2023_item,
)
YELP = Source(
    "yelp",
    rf"(yelp_academic_dataset_)?reviews?{_ENDING}",
    rf"(yelp_academic_dataset_)?business(es)?{_ENDING}",
    "yelp_academic_dataset_review.json and yelp_academic_dataset_business.json, gzipped or not",
    3.0,
    _yelp_interaction,
    _yelp_text,
    _yelp_item,
)
STEAM = Source(
    "steam",
    rf"steam_(reviews|new){_ENDING}",
    rf"steam_games{_ENDING}",
    "steam_reviews.json and steam_games.json, gzipped or not",
    None,
    _steam_interaction,
    _steam_text,
    _steam_item,
)


def _checked(part: Any) -> str:
    """Return the name of a source.

    Raises:
        ContractError: it is none, or its name, its patterns or its functions cannot be used.
    """
    if not isinstance(part, Source):
        raise ContractError(f"{part!r} is no source: expected an object of {Source.__module__}.Source.")
    for name in ("interaction", *(["text"] if part.text is not None else []), "item"):
        if not callable(getattr(part, name)):
            raise ContractError(f"Source.{name} = {getattr(part, name)!r}: expected a function of one line's object.")
    least = part.min_rating
    if least is not None and (isinstance(least, bool) or not isinstance(least, (int, float))):
        raise ContractError(f"Source.min_rating = {least!r}: expected a number, or None where there are no ratings.")
    for name in ("review_files", "item_files"):
        try:
            re.compile(getattr(part, name))
        except (re.error, TypeError) as error:
            raise ContractError(
                f"Source.{name} = {getattr(part, name)!r} is no regular expression ({error})."
            ) from error
    return checked_name("Source", "name", part.name, "source")


#: Raw dumps by the names that ``--source`` takes.
SOURCES: Registry[Source] = Registry(
    "source",
    "recbole_rlmrec.sources",
    _checked,
    {
        **{name: f"{__name__}:{name.upper().replace('-', '_')}" for name in ("amazon", "amazon-2023", "yelp", "steam")},
        "movielens": "recbole_rlmrec.sources.movielens:MOVIELENS",
    },
    origin=lambda part: part.origin,
)
