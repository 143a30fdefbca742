"""The texts of a dataset: what its items are, and what its users said about them.

On disk they are ``items.jsonl`` and ``reviews.jsonl`` in the dataset's folder, one object a line. A dataset without
these may have texts in its atomic files; ``text_columns.py`` reads those.
"""

from __future__ import annotations

import json
import logging
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Union

import numpy as np

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
_N_KEYS = 10
#: Internal column of the interactions that numbers those of the same pair.
_OCCURRENCE = "rlmrec_occurrence"
_ITEM_KEYS = ("item_id", "title", "description", "attributes")
_REVIEW_KEYS = ("user_id", "item_id", "text", "rating", "timestamp")

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
    keys = _KeyWatch(_ITEM_KEYS)

    def make(record: Mapping[str, Any]) -> Item:
        item = _item_of(record)
        keys.note(record, item.has_text)
        if item.token in items:
            raise MalformedLineError(f"repeats the item {item.token!r}")
        return item

    file = JsonLines(Path(path), max_malformed=max_malformed)
    for _, item in file.records(make):
        items[item.token] = item
    _warn_of_malformed(file)
    keys.warn(file.path, "item has a title, description or attribute")
    return items


def iter_reviews(path: Union[str, Path], max_malformed: float = MAX_MALFORMED) -> Iterator[Review]:
    """Yield the reviews of ``reviews.jsonl``, in its order; arguments and errors as ``read_items``'s."""
    file = JsonLines(Path(path), max_malformed=max_malformed)
    keys = _KeyWatch(_REVIEW_KEYS)

    def make(record: Mapping[str, Any]) -> Review:
        review = _review_of(record)
        keys.note(record, bool(review.text.strip()))
        return review

    for _, review in file.records(make):
        yield review
    _warn_of_malformed(file)
    keys.warn(file.path, "review has a text")


class _KeyWatch:
    """Tells of keys that are passed over in a file none of whose lines has a text: one may be the text, misnamed.

    Args:
        known: the keys that are read.
    """

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known
        self._unknown: dict[str, None] = {}
        self._has_text = False

    def note(self, record: Mapping[str, Any], has_text: bool) -> None:
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
            ", ".join(map(repr, list(self._unknown)[:_N_KEYS])),
            ", ".join(map(repr, self._known)),
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
    RecBole's ``RATING_FIELD`` and ``TIME_FIELD``). Of a pair that occurs several times, training has what was said at
    the times of its rows and, where no time fits, the earliest. A pair that is held out too has only what is known to
    belong to its training rows: better no text than the held-out one.

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
    n_rows = _number_repeats(dataset, fields)
    parts = [_interactions(part, fields, config["TIME_FIELD"]) for part in dataset.build()]
    training = [(row.user, row.item) for row in parts[0]]
    held_out = frozenset((row.user, row.item) for row in parts[1] + parts[2])

    items_path = config.find_data_file(ITEMS_FILE)
    known_items = read_item_columns(config) if items_path is None else read_items(items_path)
    if items_path is not None:
        _check_items(items_path, known_items, item_tokens)
    known_users = read_user_columns(config)
    reviews_path = config.find_data_file(REVIEWS_FILE)
    texts = _TrainingTexts(parts[0], parts[1] + parts[2])
    if config["benchmark_filename"] is None:
        texts.add_file(read_interactions(config), n_rows)
    else:
        texts.add(read_interactions(config), only_training=True)
    if reviews_path is not None:
        texts.add(_known_reviews(reviews_path, set(user_tokens), set(item_tokens)))
    corpus = Corpus(
        dataset=str(config["dataset"]),
        items={token: known_items.get(token) or Item(token) for token in item_tokens},
        users={token: known_users.get(token, {}) for token in user_tokens},
        training=texts.reviews(),
        held_out=held_out.difference(training),
        train_sha256=pairs_sha256(*zip(*training)),
    )
    n_silent = sum(not item.has_text for item in corpus.items.values())
    if n_silent:
        _logger.warning("%d of %d items of %s have no text.", n_silent, len(corpus.items), corpus.dataset)
    return corpus


class _Row(NamedTuple):
    """An interaction of a dataset: its time as RecBole keeps it, if it does, and its number among those of the pair."""

    user: str
    item: str
    timestamp: Optional[float]
    occurrence: int


def _number_repeats(dataset: Any, fields: tuple[str, str]) -> Counter[tuple[str, str]]:
    """Number the rows of each pair in a column that lasts through the split; count the rows of each repeated pair.

    Datasets that make other rows of their rows, such as RecBole's for sequences, are left alone.
    """
    from recbole.utils import FeatureSource, FeatureType

    from recbole_rlmrec.data.dataset import RLMRecDataset

    table = dataset.inter_feat
    repeated = table.duplicated(list(fields), keep=False)
    if not repeated.any() or not isinstance(dataset, RLMRecDataset):
        return Counter()
    users, items = (dataset.id2token(field, table.loc[repeated, field].to_numpy()).tolist() for field in fields)
    table[_OCCURRENCE] = table.groupby(list(fields)).cumcount()
    dataset.set_field_property(_OCCURRENCE, FeatureType.TOKEN, FeatureSource.INTERACTION, 1)
    return Counter(zip(map(str, users), map(str, items)))


def _interactions(part: Any, fields: tuple[str, str], time_field: str) -> list[_Row]:
    """Return the interactions of a part of a dataset, in its order."""
    from recbole.utils import FeatureType

    table = part.inter_feat
    users, items = (part.id2token(field, table[field].numpy()).tolist() for field in fields)
    times: list[Optional[float]] = [None] * len(users)
    if time_field in table and part.field2type[time_field] == FeatureType.FLOAT:
        times = table[time_field].tolist()
    occurrences = table[_OCCURRENCE].tolist() if _OCCURRENCE in table else [0] * len(users)
    return list(map(_Row, map(str, users), map(str, items), times, occurrences))


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


class _TrainingTexts:
    """Gathers what is known of the training interactions, and nothing of those held out.

    Args:
        training: the training rows, with their times where these are known; a pair may have several.
        held_out: the rows of validation and test.
    """

    def __init__(self, training: Iterable[_Row], held_out: Iterable[_Row]) -> None:
        self._rows: dict[tuple[str, str], list[_Row]] = defaultdict(list)
        for row in sorted(training, key=_time):
            self._rows[row.user, row.item].append(row)
        self._known = {pair: [Review(*pair)] * len(rows) for pair, rows in self._rows.items()}
        # Pairs that are for training and held out too -> the times of the rows held out.
        self._held_out: dict[tuple[str, str], set[Optional[float]]] = defaultdict(set)
        for row in held_out:
            if (row.user, row.item) in self._rows:
                self._held_out[row.user, row.item].add(_rounded(row.timestamp))
        self._doubtful: set[tuple[str, str]] = set()

    def add(self, source: Iterable[Review], only_training: bool = False) -> None:
        """Take what a source knows of the training rows; it goes before what is known already.

        Args:
            source: interactions, also of validation and test.
            only_training: whether there are none of validation and test among them.
        """
        for pair, reviews in self._by_pair(source).items():
            self._add_to_pair(pair, reviews, pair in self._held_out and not only_training)

    def add_file(self, source: Iterable[Review], n_rows: Mapping[tuple[str, str], int]) -> None:
        """As ``add``, of the file that the dataset was read from, in its order.

        Args:
            source: its interactions.
            n_rows: pairs that the dataset has several times -> how often. Where the file has no more, none was filtered
                out, and the n-th row of the dataset is the n-th of the file.
        """
        for pair, reviews in self._by_pair(source).items():
            if n_rows.get(pair) != len(reviews):
                self._add_to_pair(pair, reviews, pair in self._held_out)
                continue
            places = {row.occurrence: place for place, row in enumerate(self._rows[pair])}
            for occurrence, review in enumerate(reviews):
                if occurrence in places:
                    self._tell(pair, places[occurrence], review)
                elif pair in self._held_out:
                    self._held_out[pair].add(_rounded(review.timestamp))

    def _by_pair(self, source: Iterable[Review]) -> Mapping[tuple[str, str], list[Review]]:
        found: dict[tuple[str, str], list[Review]] = defaultdict(list)
        for review in source:
            pair = review.user, review.item
            if pair in self._rows:
                found[pair].append(review)
        return found

    def _tell(self, pair: tuple[str, str], place: int, review: Review) -> None:
        self._known[pair][place] = _merged(self._known[pair][place], review)

    def _add_to_pair(self, pair: tuple[str, str], reviews: list[Review], is_held_out: bool) -> None:
        """Give each row of the pair the review of its time, then, unless the pair is held out, the earliest left."""
        open_places = list(range(len(self._known[pair])))
        if len(reviews) == len(open_places) == 1 and not is_held_out:  # nearly all pairs: there is no choice
            self._tell(pair, 0, reviews[0])
            return
        others = []
        for review in sorted(reviews, key=_time):
            place = next((place for place in open_places if self._is_of_time(pair, place, review.timestamp)), None)
            if place is None or (is_held_out and _rounded(review.timestamp) in self._held_out[pair]):
                others.append(review)
                continue
            open_places.remove(place)
            self._tell(pair, place, review)
        if is_held_out:
            if open_places:
                self._doubtful.add(pair)
            return
        for place, review in zip(open_places, others):
            self._tell(pair, place, review)

    def _is_of_time(self, pair: tuple[str, str], place: int, timestamp: Optional[float]) -> bool:
        """Tell whether a row, by the dataset or by an earlier source, is of this time."""
        times = (self._rows[pair][place].timestamp, self._known[pair][place].timestamp)
        return timestamp is not None and _rounded(timestamp) in map(_rounded, times)

    def reviews(self) -> tuple[Review, ...]:
        """Return the training interactions by user, item and time; warn of those left without what was said."""
        silent = [pair for pair in sorted(self._doubtful) if Review(*pair) in self._known[pair]]
        if silent:
            _logger.warning(
                "%d (user, item) pairs, such as %s, are for training and held out too, and times do not tell which "
                "text and rating are of which: training has none of them. Load the column TIME_FIELD, and give "
                "%s the same times.",
                len(silent),
                ", ".join(f"({user}, {item})" for user, item in silent[:_N_EXAMPLES]),
                REVIEWS_FILE,
            )
        return tuple(review for pair in sorted(self._known) for review in sorted(self._known[pair], key=_time))


def _rounded(timestamp: Optional[float]) -> Optional[float]:
    """Round as RecBole does, whose datasets keep times in single precision."""
    return None if timestamp is None else float(np.float32(timestamp))


def _merged(old: Review, new: Review) -> Review:
    return Review(
        old.user,
        old.item,
        new.text or old.text,
        old.rating if new.rating is None else new.rating,
        old.timestamp if new.timestamp is None else new.timestamp,
    )


def _time(interaction: Union[Review, _Row]) -> float:
    return float("-inf") if interaction.timestamp is None else interaction.timestamp


def _examples(tokens: Iterable[str]) -> str:
    return ", ".join(repr(token) for token, _ in zip(tokens, range(_N_EXAMPLES)))
