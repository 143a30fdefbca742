"""The texts of a dataset: what its items are, and what its users said about them.

On disk they are ``items.jsonl`` and ``reviews.jsonl`` in the dataset's folder, one object a line. A dataset without
these may have texts in its atomic files; ``text_columns.py`` reads those.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, Optional, Union

from recbole_rlmrec.data.json_lines import (
    MAX_MALFORMED,
    JsonLines,
    MalformedLineError,
    optional_number,
    require_text,
)
from recbole_rlmrec.data.split import pairs_sha256
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path

ITEMS_FILE, REVIEWS_FILE = "items.jsonl", "reviews.jsonl"

_N_EXAMPLES = 3

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Item:
    """What is known about an item.

    Attributes:
        token: its original id.
        title: its name; empty when unknown.
        description: prose about it; empty when unknown.
        attributes: name -> values, such as ``{"genres": ("Action", "Indie")}``.
    """

    token: str
    title: str = ""
    description: str = ""
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def has_text(self) -> bool:
        """Whether anything is known but the id."""
        return any(text.strip() for text in (self.title, self.description, *sum(self.attributes.values(), ())))


@dataclass(frozen=True)
class Review:
    """An interaction, with what the user said, if anything.

    Attributes:
        user: original id of the user.
        item: original id of the item.
        text: the user's words; empty when there are none.
        rating: None when unknown.
        timestamp: seconds since 1970; None when unknown.
    """

    user: str
    item: str
    text: str = ""
    rating: Optional[float] = None
    timestamp: Optional[float] = None


@dataclass(frozen=True)
class Corpus:
    """The texts of a dataset, split as its training is.

    Attributes:
        dataset: RecBole's name of it.
        items: token -> item, every item of the dataset, also those without text.
        users: token -> attributes of the user, every user of the dataset.
        training: training interactions only, by user token, item token and time.
        held_out: (user, item) pairs of validation and test that are no training pairs.
        train_sha256: hash of the training pairs (:func:`recbole_rlmrec.data.split.pairs_sha256`).
    """

    dataset: str
    items: Mapping[str, Item]
    users: Mapping[str, Mapping[str, tuple[str, ...]]]
    training: tuple[Review, ...]
    held_out: frozenset[tuple[str, str]]
    train_sha256: str


# Files


def item_line(item: Item) -> bytes:
    """Return an item's line of ``items.jsonl``; an attribute with one value is text, with several a list."""
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


def _short(number: Optional[float]) -> Union[int, float, None]:
    return int(number) if number is not None and float(number).is_integer() else number


def write_items(path: Union[str, Path], items: Iterable[Item]) -> None:
    """Write ``items.jsonl``, as a stream; an error leaves the file as it was."""
    _write_lines(path, map(item_line, items))


def write_reviews(path: Union[str, Path], reviews: Iterable[Review]) -> None:
    """Write ``reviews.jsonl``, as a stream; an error leaves the file as it was."""
    _write_lines(path, map(review_line, reviews))


def _write_lines(path: Union[str, Path], lines: Iterable[bytes]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.writelines(lines)


def read_items(path: Union[str, Path], max_malformed: float = MAX_MALFORMED) -> dict[str, Item]:
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

    def make(record: Mapping[str, Any]) -> Item:
        item = _item_of(record)
        if item.token in items:
            raise MalformedLineError(f"repeats the item {item.token!r}")
        return item

    file = JsonLines(Path(path), max_malformed=max_malformed)
    for _, item in file.records(make):
        items[item.token] = item
    _warn_of_malformed(file)
    return items


def iter_reviews(path: Union[str, Path], max_malformed: float = MAX_MALFORMED) -> Iterator[Review]:
    """Yield the reviews of ``reviews.jsonl``, in its order; arguments and errors as ``read_items``'s."""
    file = JsonLines(Path(path), max_malformed=max_malformed)
    for _, review in file.records(_review_of):
        yield review
    _warn_of_malformed(file)


def _warn_of_malformed(file: JsonLines) -> None:
    if file.n_malformed:
        _logger.warning(
            "%s: %d of %d lines are malformed and were skipped, the first: %s",
            file.path,
            file.n_malformed,
            file.n_lines,
            file.examples[0],
        )


def _item_of(record: Mapping[str, Any]) -> Item:
    attributes = record.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise MalformedLineError(f"has attributes of type {type(attributes).__name__}, expected an object")
    values = {name: _values(name, value) for name, value in attributes.items()}
    return Item(
        require_text(record, "item_id"),
        _optional_text(record, "title"),
        _optional_text(record, "description"),
        {name: texts for name, texts in values.items() if texts},
    )


def _review_of(record: Mapping[str, Any]) -> Review:
    return Review(
        require_text(record, "user_id"),
        require_text(record, "item_id"),
        _optional_text(record, "text"),
        optional_number(record, "rating"),
        optional_number(record, "timestamp"),
    )


def _optional_text(record: Mapping[str, Any], key: str) -> str:
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedLineError(f"has {key!r} of type {type(value).__name__}, expected text")
    return value


def _values(name: str, value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(each, (str, int, float)) for each in values):
        raise MalformedLineError(f"has the attribute {name!r} that is no text or list of texts")
    return tuple(str(each) for each in values if str(each).strip())


# Of a dataset


def load_corpus(config: Any) -> Corpus:
    """Load the texts of the dataset of a configuration, split as its training is.

    Items come from ``items.jsonl`` in the dataset's folder where there is one, else from the columns of the ``.item``
    file that ``item_title_field``, ``item_description_field`` and ``item_attribute_fields`` name; users' attributes
    from the columns of the ``.user`` file that ``user_attribute_fields`` names; texts, ratings and times of
    interactions from ``reviews.jsonl`` and, what that does not know, from the ``.inter`` file (``review_field`` and
    RecBole's ``RATING_FIELD`` and ``TIME_FIELD``). Of a pair that occurs several times, training has the earliest.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`.

    Raises:
        DataError: a file is missing, malformed, lacks a column that the configuration names, or knows none of the
            dataset's ids.
    """
    from recbole.utils import init_seed

    from recbole_rlmrec.data.preparation import create_dataset
    from recbole_rlmrec.data.text_columns import read_interactions, read_item_columns, read_user_columns

    # A split that RecBole draws is the training's only from the training's seed.
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    fields = dataset.uid_field, dataset.iid_field
    user_tokens, item_tokens = ([str(token) for token in dataset.field2id_token[field][1:]] for field in fields)
    parts = [_pairs(part, fields) for part in dataset.build()]
    training = parts[0]
    held_out = frozenset(parts[1] + parts[2]) - set(training)

    items_path = config.find_data_file(ITEMS_FILE)
    known_items = read_item_columns(config) if items_path is None else read_items(items_path)
    if items_path is not None:
        _check_items(items_path, known_items, item_tokens)
    known_users = read_user_columns(config)
    reviews_path = config.find_data_file(REVIEWS_FILE)
    sources = [read_interactions(config)]
    if reviews_path is not None:
        sources.append(_known_reviews(reviews_path, set(user_tokens), set(item_tokens)))
    corpus = Corpus(
        dataset=str(config["dataset"]),
        items={token: known_items.get(token) or Item(token) for token in item_tokens},
        users={token: known_users.get(token, {}) for token in user_tokens},
        training=_training_reviews(training, sources),
        held_out=held_out,
        train_sha256=pairs_sha256(*zip(*training)),
    )
    n_silent = sum(not item.has_text for item in corpus.items.values())
    if n_silent:
        _logger.warning("%d of %d items of %s have no text.", n_silent, len(corpus.items), corpus.dataset)
    return corpus


def _pairs(part: Any, fields: tuple[str, str]) -> list[tuple[str, str]]:
    """Return the (user token, item token) pairs of a part of a dataset, in its order."""
    users, items = (part.id2token(field, part.inter_feat[field].numpy()).tolist() for field in fields)
    return list(zip(map(str, users), map(str, items)))


def _check_items(path: Path, known: Mapping[str, Item], tokens: list[str]) -> None:
    if not any(token in known for token in tokens):
        raise DataError(
            f"None of the {len(known):,} items of '{path}' is in the dataset: it has {_examples(known)}, the dataset "
            f"{_examples(tokens)}. 'item_id' has to be the item's id in the .inter file."
        )


def _known_reviews(path: Path, users: set[str], items: set[str]) -> Iterator[Review]:
    """Yield the reviews whose user and item the dataset has; warn of the others, and fail if these are all."""
    n_known, n_unknown = 0, 0
    examples: list[str] = []
    for review in iter_reviews(path):
        if review.user in users and review.item in items:
            n_known += 1
            yield review
            continue
        n_unknown += 1
        if len(examples) < _N_EXAMPLES:
            examples.append(f"({review.user}, {review.item})")
    if not n_known:
        raise DataError(
            f"None of the {n_unknown:,} reviews of '{path}' is by a user and of an item of the dataset: it has "
            f"{', '.join(examples)}, the dataset users such as {_examples(sorted(users))} and items such as "
            f"{_examples(sorted(items))}. 'user_id' and 'item_id' have to be the ids in the .inter file."
        )
    if n_unknown:
        _logger.warning(
            "%s: %d of %d reviews are of users or items that the dataset does not have, such as %s.",
            path,
            n_unknown,
            n_known + n_unknown,
            ", ".join(examples),
        )


def _training_reviews(training: list[tuple[str, str]], sources: Iterable[Iterable[Review]]) -> tuple[Review, ...]:
    """Return what the sources know of the training interactions; what a later one knows goes before.

    Args:
        training: the (user, item) pairs, also repeated ones.
        sources: interactions, also of validation and test, which are passed over.
    """
    number_of: dict[tuple[str, str], int] = defaultdict(int)
    for pair in training:
        number_of[pair] += 1
    known: dict[tuple[str, str], list[Review]] = {pair: [Review(*pair)] * n for pair, n in number_of.items()}
    for source in sources:
        found: dict[tuple[str, str], list[Review]] = defaultdict(list)
        for review in source:
            pair = review.user, review.item
            if pair in number_of:
                found[pair].append(review)
        for pair, reviews in found.items():
            for place, review in enumerate(sorted(reviews, key=_time)[: number_of[pair]]):
                known[pair][place] = _merged(known[pair][place], review)
    return tuple(review for pair in sorted(known) for review in sorted(known[pair], key=_time))


def _merged(old: Review, new: Review) -> Review:
    return Review(
        old.user,
        old.item,
        new.text or old.text,
        old.rating if new.rating is None else new.rating,
        old.timestamp if new.timestamp is None else new.timestamp,
    )


def _time(review: Review) -> float:
    return float("-inf") if review.timestamp is None else review.timestamp


def _examples(tokens: Iterable[str]) -> str:
    return ", ".join(repr(token) for token, _ in zip(tokens, range(_N_EXAMPLES)))
