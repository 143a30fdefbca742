"""Raw dumps of Amazon, Yelp and Steam, turned into a corpus and RecBole's atomic files.

The reviews are read twice, as a stream: once for who, what, rating and time, which are held as numbers, and once for
the texts of the interactions that are kept, which go straight to disk. So a dump may be larger than memory. The same
dump and settings always give the same bytes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from recbole_rlmrec.data.atomic_file import CONTROL, check_dataset_name, repair_tokens
from recbole_rlmrec.data.split import SPLIT_NAMES, random_split
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.sources.raw_dump import SOURCES, Source
from recbole_rlmrec.text.corpus import Item, Review
from recbole_rlmrec.text.files import ITEMS_FILE, REVIEWS_FILE, item_line, review_line
from recbole_rlmrec.text.json_lines import MAX_MALFORMED, JsonLines, parse_json_or_literal

K_CORE = 10
SEED = 2023
# Of five interactions, three are for training, one for validation and one for the test, as in the paper.
SHARES = (3.0, 1.0, 1.0)

# RecBole's own reader refuses fields of more than 131,072 characters; items.jsonl has the whole title.
_LONGEST_TITLE = 1000


@dataclass(frozen=True)
class PrepareSummary:
    """What a preparation read, kept and wrote; ``str()`` gives it as text for the console.

    Attributes:
        dataset: RecBole's dataset name.
        source: kind of the raw dump.
        folder: folder of the files written.
        reviews: the file of reviews, with its counts of lines.
        items: the file of items, with its counts of lines.
        rated: interactions whose rating is high enough; all, where there are no ratings.
        min_rating: the least rating kept; None where there are none.
        sampled: those of the users taken.
        user_fraction: the share of the users taken.
        distinct: those with each (user, item) pair counted once.
        with_text: those whose item has text; None where that was not asked for.
        k_core: interactions that each user and each item has at least.
        rounds: how often users and items were removed until all had as many.
        n_users: users kept.
        n_items: items kept.
        split: interactions of training, validation and test.
        items_without_entry: items kept that the file of items does not have.
        items_without_text: items kept without any text, these included.
        renamed: old -> new of the ids that RecBole's files cannot hold as they are.
        files: the files written.
    """

    dataset: str
    source: str
    folder: Path
    reviews: JsonLines
    items: JsonLines
    rated: int
    min_rating: float | None
    sampled: int
    user_fraction: float
    distinct: int
    with_text: int | None
    k_core: int
    rounds: int
    n_users: int
    n_items: int
    split: tuple[int, int, int]
    items_without_entry: int
    items_without_text: int
    renamed: Mapping[str, str]
    files: tuple[Path, ...]

    def __str__(self) -> str:
        steps = [f"{self.reviews.n_lines - self.reviews.n_malformed:,} in all"]
        if self.min_rating is not None:
            steps.append(f"{self.rated:,} with a rating of at least {self.min_rating:g}")
        if self.user_fraction < 1:
            steps.append(f"{self.sampled:,} of the {100 * self.user_fraction:g} % of the users taken")
        steps.append(f"{self.distinct:,} with each pair counted once")
        if self.with_text is not None:
            steps.append(f"{self.with_text:,} of items with text")
        parts = ", ".join(f"{count:,} {name}" for count, name in zip(self.split, SPLIT_NAMES))
        lines = [
            f"{self.dataset}, from a raw dump of {self.source}",
            *(_lines_read(file) for file in (self.reviews, self.items)),
            f"interactions: {'; '.join(steps)}",
            f"{self.k_core}-core, in {self.rounds:,} rounds of removal: {self.n_users:,} users, "
            f"{self.n_items:,} items, {sum(self.split):,} interactions",
            f"split: {parts}",
            f"items without text: {self.items_without_text:,}, of which {self.items_without_entry:,} are not in "
            f"{self.items.path.name}",
        ]
        if self.renamed:
            some = ", ".join(f"{old!r} to {new!r}" for old, new in list(self.renamed.items())[:3])
            lines.append(f"renamed ids, which RecBole's files cannot hold: {len(self.renamed):,}, such as {some}")
        lines.append(f"written in {self.folder}: {', '.join(path.name for path in self.files)}")
        return "\n".join(lines)


def _lines_read(file: JsonLines) -> str:
    malformed = f"{file.n_malformed:,} malformed" + (f", the first: {file.examples[0]}" if file.examples else "")
    return f"{file.path.name}: {file.n_lines:,} lines, {malformed}"


def prepare(
    source: str,
    raw: str | Path,
    dataset: str,
    output: str | Path = "dataset",
    reviews: str | Path | None = None,
    items: str | Path | None = None,
    k_core: int = K_CORE,
    seed: int = SEED,
    user_fraction: float = 1.0,
    min_rating: float | None = None,
    shares: Sequence[float] = SHARES,
    *,
    require_text: bool = False,
    max_malformed: float = MAX_MALFORMED,
    show_progress: bool = False,
) -> PrepareSummary:
    """Turn a raw dump into ``OUTPUT/DATASET/``: corpus, ``DATASET.inter`` with a split, and ``DATASET.item``.

    Interactions are filtered by rating first, then by user; of a pair that is left several times the last by time
    counts, or the last in the file among equals. Items without text stay, unless ``require_text``.

    Args:
        source: ``amazon``, ``yelp``, ``steam``, or another of ``SOURCES``.
        raw: folder of the dump, where the files are found by their usual names.
        dataset: RecBole's name of the dataset to write.
        output: folder of RecBole's datasets.
        reviews: the file of reviews, where it has another name.
        items: the file of items, where it has another name.
        k_core: interactions that each user and each item has at least.
        seed: of the sample of users and of the split.
        user_fraction: share of the users to take, each by a hash of its id.
        min_rating: the least rating that counts; 3 by default, where the source has ratings.
        shares: of training, validation and test, in any unit.
        require_text: whether items without text are left out, before the k-core.
        max_malformed: share of a file's lines that may be malformed.
        show_progress: whether to show the bytes read, where standard error is a terminal.

    Raises:
        SettingError: a setting cannot be used.
        DataError: a file is missing, unreadable or too malformed, nothing is left, or the output cannot be written.
            Files of before stay as they were then.
    """
    kind = SOURCES.find(source)
    min_rating = _checked_rating(kind, min_rating)
    _check_settings(dataset, k_core, seed, user_fraction, shares, max_malformed)
    review_path, item_path = kind.find_files(raw, reviews, items)
    remedy = "Correct these lines, or allow more with --max-malformed."
    review_file, item_file = (
        JsonLines(path, parse_json_or_literal, max_malformed, show_progress, remedy)
        for path in (review_path, item_path)
    )
    found = _collect(kind, review_file, min_rating, user_fraction, seed)
    kept = found.rows(_latest(found))
    n_distinct, n_with_text = len(kept.lines), None
    if require_text:
        has_text = _items_with_text(kind, item_file, kept.item_ids)
        kept = kept.rows(np.flatnonzero(has_text[kept.items]))
        n_with_text = len(kept.lines)
    core, rounds = k_core_rows(kept.users, kept.items, k_core)
    if not len(core):
        raise DataError(
            f"Nothing is left of '{review_path}': of {review_file.n_lines:,} lines, {found.n_rated:,} have a rating "
            f"high enough, {n_distinct:,} are distinct pairs of the users taken, and none of them is in a "
            f"{k_core}-core. Lower --k-core or --min-rating, or raise --user-fraction."
        )
    kept = kept.rows(core)
    users, items_kept = _Side.of(kept.user_ids, kept.users), _Side.of(kept.item_ids, kept.items)
    codes = random_split(users.codes, items_kept.codes, seed, shares)
    sizes = np.bincount(codes, minlength=len(SPLIT_NAMES)).tolist()
    if not all(sizes):
        raise DataError(
            f"{len(codes):,} interactions do not split {':'.join(f'{share:g}' for share in shares)} with every user "
            f"and item in training: {sizes[0]:,} training, {sizes[1]:,} validation, {sizes[2]:,} test. Take more "
            "data or other --shares."
        )
    target = Path(output) / dataset
    names = (f"{dataset}.inter", f"{dataset}.item", ITEMS_FILE, REVIEWS_FILE)
    try:
        with ExitStack() as stack:
            # No file takes its name before all are whole.
            paths = [stack.enter_context(atomic_path(target / name)) for name in names]
            with ExitStack() as opened:
                inter, item, item_texts, review_texts = (opened.enter_context(path.open("wb")) for path in paths)
                no_entry, no_text = _write_items(kind, item_file, items_kept, item, item_texts)
                _write_interactions(kind, review_file, kept, users, items_kept, codes, inter, review_texts)
    except OSError as error:
        with suppress(OSError):
            target.rmdir()  # where nothing was in it before
        raise DataError(
            f"Cannot write in {target}: {error}. Nothing there was changed. Free some space, or choose another folder "
            "with --output DIR."
        ) from error
    return PrepareSummary(
        dataset=dataset,
        source=source,
        folder=target,
        reviews=review_file,
        items=item_file,
        rated=found.n_rated,
        min_rating=min_rating,
        sampled=len(found.lines),
        user_fraction=user_fraction,
        distinct=n_distinct,
        with_text=n_with_text,
        k_core=k_core,
        rounds=rounds,
        n_users=len(users.tokens),
        n_items=len(items_kept.tokens),
        split=(sizes[0], sizes[1], sizes[2]),
        items_without_entry=no_entry,
        items_without_text=no_text,
        renamed={**users.renamed, **items_kept.renamed},
        files=tuple(target / name for name in names),
    )


def k_core_rows(users: np.ndarray, items: np.ndarray, k: int) -> tuple[np.ndarray, int]:
    """Find the largest part in which each user and each item has at least ``k`` interactions.

    Args:
        users: ``[N]``, number of each interaction's user.
        items: ``[N]``, number of its item.
        k: the least number of interactions.

    Returns:
        The row numbers kept, ascending, and the rounds in which something was removed.

    >>> rows, rounds = k_core_rows(np.array([0, 0, 1, 1, 2]), np.array([0, 1, 0, 1, 0]), k=2)
    >>> rows.tolist(), rounds
    ([0, 1, 2, 3], 1)
    """
    rows = np.arange(len(users))
    rounds = 0
    while True:
        degrees = [np.bincount(nodes[rows])[nodes[rows]] for nodes in (users, items)]
        stays = (degrees[0] >= k) & (degrees[1] >= k)
        if stays.all():
            return rows, rounds
        rows = rows[stays]
        rounds += 1


# ---------------------------------------------------------------------- settings


def _checked_rating(source: Source, min_rating: float | None) -> float | None:
    if min_rating is not None and source.min_rating is None:
        raise SettingError(f"--min-rating {min_rating:g}: the reviews of {source.name} have no ratings. Leave it out.")
    return source.min_rating if min_rating is None else min_rating


def _check_settings(
    dataset: str, k_core: int, seed: int, user_fraction: float, shares: Sequence[float], max_malformed: float
) -> None:
    check_dataset_name(dataset)
    for name, value, is_good, expected in (
        ("k-core", k_core, k_core >= 1, "at least 1"),
        ("seed", seed, seed >= 0, "at least 0"),
        ("user-fraction", user_fraction, 0 < user_fraction <= 1, "more than 0 and at most 1"),
        ("max-malformed", max_malformed, 0 <= max_malformed <= 1, "0 to 1"),
        (
            "shares",
            ":".join(f"{share:g}" for share in shares),
            len(shares) == len(SPLIT_NAMES) and all(0 < share < float("inf") for share in shares),
            "three numbers above 0 such as 3:1:1",
        ),
    ):
        if not is_good:
            raise SettingError(f"--{name} is {value}, expected {expected}.")


# ---------------------------------------------------------------------- reading


@dataclass(frozen=True, eq=False)
class _Interactions:
    """Interactions as numbers.

    Attributes:
        user_ids: original id of each user number.
        item_ids: original id of each item number.
        n_rated: interactions whose rating was high enough, before users were sampled.
        lines: ``[N]``, the line of each interaction, ascending.
        users: ``[N]``, the number of its user.
        items: ``[N]``, the number of its item.
        ratings: ``[N]``, NaN where there is none.
        times: ``[N]`` seconds, NaN where unknown.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    n_rated: int
    lines: np.ndarray
    users: np.ndarray
    items: np.ndarray
    ratings: np.ndarray
    times: np.ndarray

    def rows(self, rows: np.ndarray) -> _Interactions:
        """Return some of the interactions."""
        columns = (column[rows] for column in (self.lines, self.users, self.items, self.ratings, self.times))
        return _Interactions(self.user_ids, self.item_ids, self.n_rated, *columns)


def _collect(
    source: Source, file: JsonLines, min_rating: float | None, user_fraction: float, seed: int
) -> _Interactions:
    """Read who, what, rating and time of the reviews, of the users taken and rated high enough."""
    user_numbers: dict[str, int] = {}
    item_numbers: dict[str, int] = {}
    lines, users, items, ratings, times = array("q"), array("i"), array("i"), array("d"), array("d")
    nan = float("nan")
    n_rated = 0
    for line, (user, item, rating, time) in file.records(source.interaction):
        if rating is not None and min_rating is not None and rating < min_rating:
            continue
        n_rated += 1
        if user_fraction < 1 and user not in user_numbers and not _is_taken(user, user_fraction, seed):
            continue
        lines.append(line)
        users.append(user_numbers.setdefault(user, len(user_numbers)))
        items.append(item_numbers.setdefault(item, len(item_numbers)))
        ratings.append(nan if rating is None else rating)
        times.append(nan if time is None else time)
    columns = (np.frombuffer(column, dtype=column.typecode) for column in (lines, users, items, ratings, times))
    return _Interactions(list(user_numbers), list(item_numbers), n_rated, *columns)


def _is_taken(user: str, user_fraction: float, seed: int) -> bool:
    """Decide by a hash, so that neither the order of the lines nor other users matter."""
    digest = hashlib.blake2b(f"{seed}\t{user}".encode("utf-8", errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < user_fraction * 2**64


def _latest(found: _Interactions) -> np.ndarray:
    """Return the row of each pair's last interaction by time, or by line among equals; ascending."""
    pairs = found.users.astype(np.int64) * max(1, len(found.item_ids)) + found.items
    # Stable, so that rows of the same time stay in the order of their lines.
    order = np.lexsort((np.where(np.isnan(found.times), -np.inf, found.times), pairs))
    is_last = np.ones(len(order), dtype=bool)
    is_last[:-1] = pairs[order[1:]] != pairs[order[:-1]]
    return np.sort(order[is_last])


def _items_with_text(source: Source, file: JsonLines, tokens: Sequence[str]) -> np.ndarray:
    """Return for each item whether its first entry in the file of items has text."""
    has_text: dict[str, bool] = {}
    wanted = set(tokens)
    for _, item in file.records(source.item):
        if item.token in wanted:
            has_text.setdefault(item.token, item.has_text)
    return np.array([has_text.get(token, False) for token in tokens], dtype=bool)


# ---------------------------------------------------------------------- writing


@dataclass(frozen=True, eq=False)
class _Side:
    """The users, or the items, that are kept.

    Attributes:
        originals: ids as the dump has them.
        tokens: the same as RecBole's files can hold them, ascending.
        codes: ``[N]``, the place of each interaction's user or item among them.
        renamed: original -> token of those that differ.
    """

    originals: Sequence[str]
    tokens: Sequence[str]
    codes: np.ndarray
    renamed: Mapping[str, str]

    @classmethod
    def of(cls, ids: Sequence[str], numbers: np.ndarray) -> _Side:
        """Take those of the ids that interactions have.

        Args:
            ids: all ids.
            numbers: ``[N]``, the place of each interaction's user or item among ``ids``.
        """
        by_id = sorted(np.unique(numbers).tolist(), key=ids.__getitem__)
        tokens, renamed = repair_tokens([ids[number] for number in by_id])
        order = sorted(range(len(tokens)), key=tokens.__getitem__)
        place = np.zeros(len(ids), dtype=np.int32)
        place[[by_id[each] for each in order]] = np.arange(len(order))
        originals = [ids[by_id[each]] for each in order]
        return cls(originals, [tokens[each] for each in order], place[numbers], renamed)


def _write_items(source: Source, file: JsonLines, items: _Side, atomic: IO[bytes], texts: IO[bytes]) -> tuple[int, int]:
    """Write what is known of the items kept, in the order of the dump, then those it does not have.

    Returns:
        How many the dump does not have, and how many have no text.
    """
    atomic.write(b"item_id:token\ttitle:token_seq\n")
    left = dict(zip(items.originals, items.tokens))
    n_without_text = 0

    def write(item: Item) -> None:
        nonlocal n_without_text
        n_without_text += not item.has_text
        texts.write(item_line(item))
        line = f"{item.token}\t{CONTROL.sub(' ', item.title[:_LONGEST_TITLE])}\n"
        atomic.write(line.encode("utf-8", errors="replace"))

    for _, item in file.records(source.item):
        token = left.pop(item.token, None)
        if token is not None:
            write(Item(token, item.title, item.description, item.attributes))
    for token in left.values():
        write(Item(token))
    return len(left), n_without_text


def _write_interactions(
    source: Source,
    file: JsonLines,
    kept: _Interactions,
    users: _Side,
    items: _Side,
    codes: np.ndarray,
    atomic: IO[bytes],
    texts: IO[bytes],
) -> None:
    """Write the interactions kept, in the order of the dump: RecBole's file and their texts."""
    has_rating, has_time = (bool(np.isfinite(column).any()) for column in (kept.ratings, kept.times))
    columns = ["user_id:token", "item_id:token"]
    columns += ["rating:float"] * has_rating + ["timestamp:float"] * has_time + ["split:token"]
    atomic.write(("\t".join(columns) + "\n").encode("ascii"))
    rows = zip(users.codes.tolist(), items.codes.tolist(), codes.tolist())
    for (line, review), (user, item, code) in zip(file.chosen(kept.lines.tolist(), source.review), rows):
        if (review.user, review.item) != (users.originals[user], items.originals[item]):
            raise file.changed(line)
        renamed = Review(users.tokens[user], items.tokens[item], review.text, review.rating, review.timestamp)
        texts.write(review_line(renamed))
        cells = [renamed.user, renamed.item]
        cells += [_number(review.rating)] * has_rating + [_number(review.timestamp)] * has_time
        cells.append(SPLIT_NAMES[code])
        atomic.write(("\t".join(cells) + "\n").encode("utf-8"))


def _number(value: float | None) -> str:
    """Write a number without a needless fraction; nothing where there is none."""
    if value is None:
        return ""
    return str(int(value)) if value.is_integer() else repr(value)
