"""From the files of a dataset to its corpus: every text, split as the training is."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from recbole.utils import init_seed

from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.data.frozen import frozen_name
from recbole_rlmrec.data.split import pairs_sha256
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.text.corpus import Corpus, Item, Review
from recbole_rlmrec.text.files import ITEMS_FILE, REVIEWS_FILE, iter_reviews, read_items
from recbole_rlmrec.text.text_columns import (
    columns_of_interactions,
    read_interactions,
    read_item_columns,
    read_user_columns,
)
from recbole_rlmrec.wording import N_EXAMPLES, example_pairs, examples

_logger = logging.getLogger(__name__)
#: Internal column of the interactions that numbers those of the same pair.
_OCCURRENCE = "rlmrec_occurrence"


def load_corpus(config: Any, freeze: Callable[[str], None] | None = None) -> Corpus:
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
        freeze: if given, a split that nothing fixes yet is frozen beside the dataset before this returns, since what is
            written from its training interactions is true of no other; it is called with a line that says which split
            there is.

    Raises:
        DataError: a file is missing, malformed, lacks a column that the configuration names, or knows none of the
            dataset's ids.
    """
    # A split that RecBole draws is the training's only from the training's seed.
    init_seed(config["seed"], config["reproducibility"])
    dataset = RLMRecDataset(config, columns_of_interactions(config), split_use="freeze" if freeze else "take")
    fields = dataset.uid_field, dataset.iid_field
    user_tokens, item_tokens = ([str(token) for token in dataset.field2id_token[field][1:]] for field in fields)
    n_rows = _number_repeats(dataset, fields)
    if freeze is not None:
        path = Path(config.data_folders[0]) / frozen_name(config["dataset"])
        is_new = dataset.freeze_split(path)
        freeze(
            f"split: {dataset.split_origin}"
            + (
                f", frozen in {path}: every training of {config['dataset']} uses it, whatever its seed"
                if is_new
                else ""
            )
        )
    parts = [_interactions(part, fields, config["TIME_FIELD"]) for part in dataset.build()]
    training = [(row.user, row.item) for row in parts[0]]
    held_out = frozenset((row.user, row.item) for row in parts[1] + parts[2])

    items = load_items(config, item_tokens)
    known_users = read_user_columns(config)
    reviews_path = config.find_data_file(REVIEWS_FILE)
    texts = _TrainingTexts(parts[0], parts[1] + parts[2])
    if config["benchmark_filename"] is None:
        texts.add_file(read_interactions(config, dataset.kept_texts), n_rows)
    else:
        texts.add(read_interactions(config, dataset.kept_texts), only_training=True)
    if reviews_path is not None:
        texts.add(_known_reviews(reviews_path, set(user_tokens), set(item_tokens)))
    corpus = Corpus(
        dataset=str(config["dataset"]),
        items={token: items.get(token) or Item(token) for token in item_tokens},
        users={token: known_users.get(token, {}) for token in user_tokens},
        training=texts.reviews(),
        held_out=held_out.difference(training),
        train_sha256=pairs_sha256(*zip(*training)),
    )
    n_silent = sum(not item.has_text for item in corpus.items.values())
    if n_silent:
        _logger.warning("%d of %d items of %s have no text.", n_silent, len(corpus.items), corpus.dataset)
    return corpus


def load_items(config: Any, tokens: Sequence[str]) -> Mapping[str, Item]:
    """Load what is known of items: from ``items.jsonl``, else from columns of the ``.item`` file.

    Args:
        config: an :class:`~recbole_rlmrec.config.RLMRecConfig`.
        tokens: original ids of the dataset's items.

    Returns:
        Token -> item, also of items that the dataset does not have.

    Raises:
        DataError: a file is malformed or knows none of the ids, or what the configuration names is missing.
    """
    known = known_items(config)
    path = config.find_data_file(ITEMS_FILE)
    if path is not None:
        _check_items(path, known, tokens)
    return known


def known_items(config: Any) -> Mapping[str, Item]:
    """Load what is known of items, whether the dataset has them or not; see :func:`load_items`."""
    path = config.find_data_file(ITEMS_FILE)
    return read_item_columns(config) if path is None else read_items(path)


class _Row(NamedTuple):
    """An interaction of a dataset: its time as RecBole keeps it, if it does, and its number among those of the pair."""

    user: str
    item: str
    timestamp: float | None
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
    times: list[float | None] = [None] * len(users)
    if time_field in table and part.field2type[time_field] == FeatureType.FLOAT:
        times = table[time_field].tolist()
    occurrences = table[_OCCURRENCE].tolist() if _OCCURRENCE in table else [0] * len(users)
    return list(map(_Row, map(str, users), map(str, items), times, occurrences))


def _check_items(path: Path, known: Mapping[str, Item], tokens: Sequence[str]) -> None:
    if not any(token in known for token in tokens):
        raise DataError(
            f"None of the {len(known):,} items of '{path}' is in the dataset: it has {examples(known)}, the dataset "
            f"{examples(tokens)}. 'item_id' has to be the item's id in the .inter file."
        )


def _known_reviews(path: Path, users: set[str], items: set[str]) -> Iterator[Review]:
    """Yield the reviews whose user and item the dataset has; warn of the others, and fail if these are all."""
    n_known, n_unknown = 0, 0
    unknown: list[tuple[str, str]] = []
    for review in iter_reviews(path):
        if review.user in users and review.item in items:
            n_known += 1
            yield review
            continue
        n_unknown += 1
        if len(unknown) < N_EXAMPLES:
            unknown.append((review.user, review.item))
    if not n_known:
        raise DataError(
            f"None of the {n_unknown:,} reviews of '{path}' is by a user and of an item of the dataset: it has "
            f"{example_pairs(unknown)}, the dataset users such as {examples(sorted(users))} and items such as "
            f"{examples(sorted(items))}. 'user_id' and 'item_id' have to be the ids in the .inter file."
        )
    if n_unknown:
        _logger.warning(
            "%s: %d of %d reviews are of users or items that the dataset does not have, such as %s.",
            path,
            n_unknown,
            n_known + n_unknown,
            example_pairs(unknown),
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
        self._held_out: dict[tuple[str, str], set[float | None]] = defaultdict(set)
        for row in held_out:
            if (row.user, row.item) in self._rows:
                self._held_out[row.user, row.item].add(_rounded(row.timestamp))
        self._doubtful: set[tuple[str, str]] = set()

    def add(self, source: Iterable[Review], *, only_training: bool = False) -> None:
        """Take what a source knows of the training rows; it goes before what is known already.

        Args:
            source: interactions, also of validation and test.
            only_training: whether there are none of validation and test among them.
        """
        for pair, reviews in self._by_pair(source).items():
            self._add_to_pair(pair, reviews, is_held_out=pair in self._held_out and not only_training)

    def add_file(self, source: Iterable[Review], n_rows: Mapping[tuple[str, str], int]) -> None:
        """As ``add``, of the file that the dataset was read from, in its order.

        Args:
            source: its interactions.
            n_rows: pairs that the dataset has several times -> how often. Where the file has no more, none was filtered
                out, and the n-th row of the dataset is the n-th of the file.
        """
        for pair, reviews in self._by_pair(source).items():
            if n_rows.get(pair) != len(reviews):
                self._add_to_pair(pair, reviews, is_held_out=pair in self._held_out)
                continue
            places = {row.occurrence: place for place, row in enumerate(self._rows[pair])}
            for occurrence, review in enumerate(reviews):
                if occurrence in places:
                    self._set_text(pair, places[occurrence], review)
                elif pair in self._held_out:
                    self._held_out[pair].add(_rounded(review.timestamp))

    def _by_pair(self, source: Iterable[Review]) -> Mapping[tuple[str, str], list[Review]]:
        found: dict[tuple[str, str], list[Review]] = defaultdict(list)
        for review in source:
            pair = review.user, review.item
            if pair in self._rows:
                found[pair].append(review)
        return found

    def _set_text(self, pair: tuple[str, str], place: int, review: Review) -> None:
        self._known[pair][place] = _merged(self._known[pair][place], review)

    def _add_to_pair(self, pair: tuple[str, str], reviews: list[Review], *, is_held_out: bool) -> None:
        """Give each row of the pair the review of its time, then, unless the pair is held out, the earliest left."""
        open_places = list(range(len(self._known[pair])))
        if len(reviews) == len(open_places) == 1 and not is_held_out:  # nearly all pairs: there is no choice
            self._set_text(pair, 0, reviews[0])
            return
        others = []
        for review in sorted(reviews, key=_time):
            place = next((place for place in open_places if self._is_of_time(pair, place, review.timestamp)), None)
            if place is None or (is_held_out and _rounded(review.timestamp) in self._held_out[pair]):
                others.append(review)
                continue
            open_places.remove(place)
            self._set_text(pair, place, review)
        if is_held_out:
            if open_places:
                self._doubtful.add(pair)
            return
        for place, review in zip(open_places, others):
            self._set_text(pair, place, review)

    def _is_of_time(self, pair: tuple[str, str], place: int, timestamp: float | None) -> bool:
        """Return whether a row, by the dataset or by an earlier source, is of this time."""
        times = (self._rows[pair][place].timestamp, self._known[pair][place].timestamp)
        return timestamp is not None and _rounded(timestamp) in map(_rounded, times)

    def reviews(self) -> tuple[Review, ...]:
        """Return the training interactions by user, item and time; warn of those left without what was said."""
        silent = [pair for pair in sorted(self._doubtful) if Review(*pair) in self._known[pair]]
        if silent:
            _logger.warning(
                "%d (user, item) pairs, such as %s, are for training and held out too, and times do not say which "
                "text and rating are of which: training has none of them. Load the column TIME_FIELD, and give "
                "%s the same times.",
                len(silent),
                example_pairs(silent),
                REVIEWS_FILE,
            )
        return tuple(review for pair in sorted(self._known) for review in sorted(self._known[pair], key=_time))


def _rounded(timestamp: float | None) -> float | None:
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


def _time(interaction: Review | _Row) -> float:
    return float("-inf") if interaction.timestamp is None else interaction.timestamp
