"""Raw dumps of Amazon, Yelp and Steam, turned into a corpus and RecBole's atomic files.

The reviews are read twice, as a stream: once for who, what, rating and time, which are held as numbers, and once for
the texts of the interactions that are kept, which go straight to disk. So a dump may be larger than memory. The same
dump and settings always give the same bytes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from math import isfinite
from multiprocessing import get_context
from pathlib import Path
from typing import IO, Any

import numpy as np

from recbole_rlmrec.data.atomic_file import CONTROL, check_dataset_name, repair_tokens
from recbole_rlmrec.data.file_set import FileSet, Kind
from recbole_rlmrec.data.frozen import SplitRecipe, frozen_name
from recbole_rlmrec.data.split import (
    SPLIT_NAMES,
    leave_one_out_split,
    random_split,
    time_split,
    write_numbered_split,
)
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.sources.raw_dump import SOURCES, Source
from recbole_rlmrec.text.corpus import Item, Review
from recbole_rlmrec.text.files import ITEMS_FILE, REVIEWS_FILE, item_line, review_line
from recbole_rlmrec.text.json_lines import MAX_MALFORMED, Records
from recbole_rlmrec.wording import N_EXAMPLES, examples

K_CORE = 10
SEED = 2023
# Of five interactions, three are for training, one for validation and one for the test, as in the paper.
SHARES = (3.0, 1.0, 1.0)

# RecBole's own reader refuses fields of more than 131,072 characters; items.jsonl has the whole title.
_LONGEST_TITLE = 1000

# The interactions are sorted in so many parts.
_N_PARTS = 16


@dataclass(frozen=True)
class Choice:
    """Which of the interactions are kept, and how they are split.

    Attributes:
        k_core: interactions that each user and each item has at least.
        seed: of the sample of users and of the split.
        user_fraction: share of the users to take, each by a hash of its id.
        min_rating: the least rating that counts; None where there are none, or all count.
        shares: of training, validation and test, in any unit.
        split: ``random``, ``time`` or ``leave-one-out``.
        require_text: whether items without text are left out, before the k-core.
    """

    k_core: int = K_CORE
    seed: int = SEED
    user_fraction: float = 1.0
    min_rating: float | None = None
    shares: Sequence[float] = SHARES
    split: str = "random"
    require_text: bool = False


@dataclass(frozen=True)
class PrepareSummary:
    """What a preparation read, kept and wrote; ``str()`` gives it as text for the console.

    Attributes:
        dataset: RecBole's dataset name.
        origin: what it was made from.
        folder: folder of the files written.
        reviews: the file of interactions, with its counts of lines.
        items: the file of items, with its counts of lines; None where there is none.
        choice: what was kept, and how it is split.
        rated: interactions whose rating is high enough; all, where there are no ratings.
        unrated: those of them that have no rating, and count whatever the least rating.
        sampled: those of the users taken.
        distinct: those with each (user, item) pair counted once.
        with_text: those whose item has text; None where that was not asked for.
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
    origin: str
    folder: Path
    reviews: Records[Any]
    items: Records[Any] | None
    choice: Choice
    rated: int
    unrated: int
    sampled: int
    distinct: int
    with_text: int | None
    rounds: int
    n_users: int
    n_items: int
    split: tuple[int, int, int]
    items_without_entry: int
    items_without_text: int
    renamed: Mapping[str, str]
    files: tuple[Path, ...]

    def __str__(self) -> str:
        choice = self.choice
        steps = [f"{self.reviews.n_lines - self.reviews.n_malformed:,} in all"]
        if choice.min_rating is not None:
            unrated = f" or, {self.unrated:,} of them, none" if self.unrated else ""
            steps.append(f"{self.rated:,} with a rating of at least {choice.min_rating:g}{unrated}")
        if choice.user_fraction < 1:
            steps.append(f"{self.sampled:,} of the {100 * choice.user_fraction:g} % of the users taken")
        steps.append(f"{self.distinct:,} with each pair counted once")
        if self.with_text is not None:
            steps.append(f"{self.with_text:,} of items with text")
        parts = ", ".join(f"{count:,} {name}" for count, name in zip(self.split, SPLIT_NAMES))
        way = {"random": "at random", "time": "by time", "leave-one-out": "the last of each user"}[choice.split]
        lines = [
            f"{self.dataset}, from {self.origin}",
            *(_lines_read(file) for file in (self.reviews, self.items) if file is not None),
            f"interactions: {'; '.join(steps)}",
            f"{choice.k_core}-core, in {self.rounds:,} rounds of removal: {self.n_users:,} users, "
            f"{self.n_items:,} items, {sum(self.split):,} interactions",
            f"split: {parts}, {way}",
        ]
        if self.items is not None:
            lines.append(
                f"items without text: {self.items_without_text:,}, of which {self.items_without_entry:,} are not in "
                f"{self.items.path.name}"
            )
        if self.renamed:
            some = ", ".join(f"{old!r} to {new!r}" for old, new in list(self.renamed.items())[:3])
            lines.append(f"renamed ids, which RecBole's files cannot hold: {len(self.renamed):,}, such as {some}")
        lines.append(f"written in {self.folder}: {', '.join(path.name for path in self.files)}")
        return "\n".join(lines)


def _lines_read(file: Records[Any]) -> str:
    malformed = f"{file.n_malformed:,} malformed" + (f", the first: {file.examples[0]}" if file.examples else "")
    return f"{file.path.name}: {file.n_lines:,} lines, {malformed}"


def _ratio(shares: Sequence[float]) -> str:
    return ":".join(f"{share:g}" for share in shares)


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
    jobs: int = 1,
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
        jobs: processes that parse large files beside this one, to the same result; with more than 1 a script must call
            this below ``if __name__ == "__main__":``, since each process imports it.

    Raises:
        SettingError: a setting cannot be used.
        DataError: a file is missing, unreadable or too malformed, nothing is left, or the output cannot be written.
            Files of before stay as they were then; if it happens while the files take their names, the message says
            so, and no training reads them until this is done again.
    """
    kind = SOURCES.find(source)
    rating = _checked_rating(kind, min_rating)
    choice = Choice(k_core, seed, user_fraction, rating, shares, require_text=require_text)
    check_choice(dataset, choice, max_malformed)
    if jobs < 1:
        raise SettingError(f"--jobs is {jobs}, expected at least 1.")
    remedy = "Correct these lines, or allow more with --max-malformed."
    review_file, item_file = (
        kind.open(path, max_malformed, remedy, show_progress=show_progress)
        for path in kind.find_files(raw, reviews, items)
    )
    with ExitStack() as stack:
        if jobs > 1:
            pool = ProcessPoolExecutor(jobs, get_context("spawn"))
            stack.callback(pool.shutdown, cancel_futures=True)
            review_file.pool = item_file.pool = pool
        return write_dataset(kind, f"a raw dump of {kind.name}", review_file, item_file, dataset, output, choice)


def write_dataset(
    source: Source,
    origin: str,
    reviews: Records[Any],
    items: Records[Any] | None,
    dataset: str,
    output: str | Path,
    choice: Choice,
    verb: Kind = "prepare",
    *,
    frozen: bool = False,
) -> PrepareSummary:
    """Turn records of interactions and of items into a dataset; :func:`prepare` says how.

    Args:
        source: reads the records.
        origin: what they are, in words.
        reviews: the interactions.
        items: the items, where there is a file of them.
        dataset: RecBole's name of the dataset to write.
        output: folder of RecBole's datasets.
        choice: what is kept, and how it is split; checked.
        verb: what is run again where this is stopped in between.
        frozen: whether the split is a packed file, which can be replaced by another, instead of a column.

    Raises:
        DataError: as :func:`prepare`.
    """
    found = _collect(source, reviews, choice)
    n_rated, n_unrated, n_sampled = found.n_rated, found.n_unrated, len(found.lines)
    _keep_latest(found)
    n_distinct, n_with_text = len(found.lines), None
    if choice.require_text:
        has_text = _items_with_text(source, items, found.item_ids)
        found.keep(has_text[found.items])
        n_with_text = len(found.lines)
    core, rounds = k_core_rows(found.users, found.items, choice.k_core)
    if not len(core):
        more_users = ", or raise --user-fraction" if choice.user_fraction < 1 else ""
        raise DataError(
            f"Nothing is left of '{reviews.path}': of {reviews.n_lines:,} lines, {n_rated:,} have a rating high "
            f"enough, {n_distinct:,} are distinct pairs of the users taken, and none of them is in a "
            f"{choice.k_core}-core. Lower --k-core or --min-rating{more_users}."
        )
    if len(core) < len(found.lines):
        found.keep(core)
    del core
    users_kept, items_kept = _Side.of(found.user_ids, found.users), _Side.of(found.item_ids, found.items)
    found.users = found.items = np.empty(0, dtype=np.int32)  # the sides have their numbers from here on
    codes = _split(users_kept.codes, items_kept.codes, found.times, choice)
    sizes = np.bincount(codes, minlength=len(SPLIT_NAMES)).tolist()
    if not all(sizes):
        raise DataError(
            f"{len(codes):,} interactions do not give all three parts ({_recipe(choice)}): {sizes[0]:,} training, "
            f"{sizes[1]:,} validation, {sizes[2]:,} test.{_only_ones(users_kept.codes, items_kept.codes, choice)} Take "
            "more data, or split otherwise."
        )
    split_file = frozen_name(dataset)
    more = [name for name, is_wanted in ((REVIEWS_FILE, source.text), (split_file, frozen)) if is_wanted]
    names = (f"{dataset}.inter", f"{dataset}.item", ITEMS_FILE, *more)
    of_another = () if source.text else (REVIEWS_FILE,)  # what is there is of another import
    files = FileSet(Path(output) / dataset, dataset, verb, names, removed=of_another)
    with files.replaced() as paths, ExitStack() as opened:
        written = [opened.enter_context(paths[name].open("wb")) for name in names if name != split_file]
        inter, item, item_texts, *review_texts = written
        no_entry, no_text = _write_items(source, items, items_kept, item, item_texts)
        column = None if frozen else codes
        _write_interactions(source, reviews, found, users_kept, items_kept, column, inter, *review_texts)
        if frozen:
            sides = users_kept.tokens, users_kept.codes, items_kept.tokens, items_kept.codes
            write_numbered_split(paths[split_file], *sides, codes, _recipe(choice).record())
    return PrepareSummary(
        dataset=dataset,
        origin=origin,
        folder=files.folder,
        reviews=reviews,
        items=items,
        choice=choice,
        rated=n_rated,
        unrated=n_unrated,
        sampled=n_sampled,
        distinct=n_distinct,
        with_text=n_with_text,
        rounds=rounds,
        n_users=len(users_kept.tokens),
        n_items=len(items_kept.tokens),
        split=(sizes[0], sizes[1], sizes[2]),
        items_without_entry=no_entry,
        items_without_text=no_text,
        renamed={**users_kept.renamed, **items_kept.renamed},
        files=tuple(files.folder / name for name in names),
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


def check_choice(dataset: str, choice: Choice, max_malformed: float) -> None:
    """Check the settings of a preparation.

    Raises:
        SettingError: one of them cannot be used.
    """
    check_dataset_name(dataset)
    shares = choice.shares
    for name, value, is_good, expected in (
        ("min-rating", choice.min_rating, choice.min_rating is None or isfinite(choice.min_rating), "a number"),
        ("k-core", choice.k_core, choice.k_core >= 1, "at least 1"),
        ("seed", choice.seed, choice.seed >= 0, "at least 0"),
        ("user-fraction", choice.user_fraction, 0 < choice.user_fraction <= 1, "more than 0 and at most 1"),
        ("max-malformed", max_malformed, 0 <= max_malformed <= 1, "0 to 1"),
        (
            "ratios",
            _ratio(shares),
            len(shares) == len(SPLIT_NAMES) and all(0 < share < float("inf") for share in shares),
            "three numbers above 0 such as 3:1:1",
        ),
    ):
        if not is_good:
            raise SettingError(f"--{name} is {value}, expected {expected}.")


# ---------------------------------------------------------------------- reading


@dataclass(eq=False)
class _Interactions:
    """Interactions as numbers, 21 bytes each.

    Attributes:
        user_ids: original id of each user number.
        item_ids: original id of each item number.
        n_rated: interactions whose rating was high enough, before users were sampled.
        n_unrated: those of them without a rating.
        lines: ``[N]``, the line of each interaction, ascending.
        users: ``[N]``, the number of its user.
        items: ``[N]``, the number of its item.
        rated: ``[N]``, whether it has a rating.
        times: ``[N]`` seconds, NaN where unknown.
    """

    user_ids: Sequence[str]
    item_ids: Sequence[str]
    n_rated: int
    n_unrated: int
    lines: np.ndarray
    users: np.ndarray
    items: np.ndarray
    rated: np.ndarray
    times: np.ndarray

    def keep(self, rows: np.ndarray) -> None:
        """Keep these rows, a column after another, so that there is never a second copy of all."""
        for name in ("lines", "users", "items", "rated", "times"):
            setattr(self, name, getattr(self, name)[rows])


def _collect(source: Source, file: Records[Any], choice: Choice) -> _Interactions:
    """Read who, what, rating and time of the reviews, of the users taken and rated high enough."""
    user_numbers: dict[str, int] = {}
    item_numbers: dict[str, int] = {}
    # Lines are counted in 32 bits: 4 billion of them are past what this holds in memory.
    lines, users, items, rated, times = array("I"), array("i"), array("i"), array("b"), array("d")
    nan = float("nan")
    n_rated = n_unrated = 0
    min_rating, user_fraction = choice.min_rating, choice.user_fraction
    for line, (user, item, rating, time) in file.records(source.interaction):
        if rating is not None and min_rating is not None and rating < min_rating:
            continue
        n_rated += 1
        n_unrated += rating is None
        if user_fraction < 1 and user not in user_numbers and not _is_taken(user, user_fraction, choice.seed):
            continue
        lines.append(line)
        users.append(user_numbers.setdefault(user, len(user_numbers)))
        items.append(item_numbers.setdefault(item, len(item_numbers)))
        rated.append(rating is not None)
        times.append(nan if time is None else time)
    columns = (np.frombuffer(column, dtype=column.typecode) for column in (lines, users, items, rated, times))
    return _Interactions(list(user_numbers), list(item_numbers), n_rated, n_unrated, *columns)


def _is_taken(user: str, user_fraction: float, seed: int) -> bool:
    """Decide by a hash, so that neither the order of the lines nor other users matter."""
    digest = hashlib.blake2b(f"{seed}\t{user}".encode("utf-8", errors="surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") < user_fraction * 2**64


def _keep_latest(found: _Interactions) -> None:
    """Keep each pair's last interaction by time, or by line among equals."""
    is_last = np.zeros(len(found.users), dtype=bool)
    n_users = len(found.user_ids)
    for first in range(0, n_users, max(1, n_users // _N_PARTS)):  # a sort of all at once would need twice their memory
        rows = np.flatnonzero((found.users >= first) & (found.users < first + max(1, n_users // _N_PARTS)))
        pairs = found.users[rows].astype(np.int64) * max(1, len(found.item_ids)) + found.items[rows]
        times = found.times[rows]
        # Stable, so that rows of the same time stay in the order of their lines.
        order = np.lexsort((np.where(np.isnan(times), -np.inf, times), pairs))
        ends = np.ones(len(order), dtype=bool)
        ends[:-1] = pairs[order[1:]] != pairs[order[:-1]]
        is_last[rows[order[ends]]] = True
    if not is_last.all():
        found.keep(is_last)


def _items_with_text(source: Source, file: Records[Any] | None, tokens: Sequence[str]) -> np.ndarray:
    """Return for each item whether its first entry in the file of items has text."""
    has_text: dict[str, bool] = {}
    wanted = set(tokens)
    for item in _items(source, file):
        if item.token in wanted:
            has_text.setdefault(item.token, item.has_text)
    return np.array([has_text.get(token, False) for token in tokens], dtype=bool)


def _items(source: Source, file: Records[Any] | None) -> Iterator[Item]:
    """Yield the items of a file, where there is one."""
    if file is not None:
        for _, item in file.records(source.item):
            yield item


# ---------------------------------------------------------------------- splitting


def _split(users: np.ndarray, items: np.ndarray, times: np.ndarray, choice: Choice) -> np.ndarray:
    """Split interactions as asked.

    Args:
        users: ``[N]``, numbers in the order of the tokens.
        items: ``[N]``, such numbers.
        times: ``[N]`` seconds.
        choice: how; by time, the split is the one that ``recbole-rlmrec split`` makes of the dataset.

    Returns:
        ``[N]`` int8, positions in ``SPLIT_NAMES``.

    Raises:
        DataError: an interaction has no time, and the split goes by time.
    """
    if choice.split == "random":
        return random_split(users, items, choice.seed, choice.shares)
    n_unknown = int(np.isnan(times).sum())
    if n_unknown:
        raise DataError(
            f"{n_unknown:,} of {len(times):,} interactions have no time, and the split {choice.split!r} goes by it. "
            "Name the column of times, leave these rows out, or split at random."
        )
    if choice.split == "time":
        return time_split(times, choice.shares)
    return leave_one_out_split(users, times)


def _only_ones(users: np.ndarray, items: np.ndarray, choice: Choice) -> str:
    """Say how many interactions must be in training, where a split at random keeps one of each user and item there."""
    if choice.split != "random":
        return ""
    n_only = int(((np.bincount(users)[users] == 1) | (np.bincount(items)[items] == 1)).sum())
    return f" {n_only:,} of them are the only one of a user or an item, and stay in training." if n_only else ""


def _recipe(choice: Choice) -> SplitRecipe:
    """Return how a split is made in the words of the frozen ones."""
    order = "RO" if choice.split == "random" else "TO"
    if choice.split == "leave-one-out":
        return SplitRecipe({"LS": "valid_and_test"}, order, "user", choice.seed)
    return SplitRecipe({"RS": list(choice.shares)}, order, None, choice.seed)


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


def _write_items(
    source: Source, file: Records[Any] | None, items: _Side, atomic: IO[bytes], texts: IO[bytes]
) -> tuple[int, int]:
    """Write what is known of the items kept, in the order of the dump, then those it does not have.

    Returns:
        How many the dump does not have, and how many have no text.

    Raises:
        DataError: it has none of them.
    """
    atomic.write(b"item_id:token\ttitle:token_seq\n")
    left = dict(zip(items.originals, items.tokens))
    n_without_text = 0
    others: list[str] = []

    def write(item: Item) -> None:
        nonlocal n_without_text
        n_without_text += not item.has_text
        texts.write(item_line(item))
        line = f"{item.token}\t{CONTROL.sub(' ', item.title[:_LONGEST_TITLE])}\n"
        atomic.write(line.encode("utf-8", errors="replace"))

    for item in _items(source, file):
        token = left.pop(item.token, None)
        if token is not None:
            write(Item(token, item.title, item.description, item.attributes))
        elif len(others) < N_EXAMPLES:
            others.append(item.token)
    if file is not None and len(left) == len(items.tokens):
        raise DataError(
            f"'{file.path}' has none of the {len(left):,} items of the interactions: its ids are such as "
            f"{examples(others)}, theirs such as {examples(items.originals)}. Give the file, and its column of ids, in "
            "which both are written alike."
        )
    for token in left.values():
        write(Item(token))
    return len(left), n_without_text


def _write_interactions(
    source: Source,
    file: Records[Any],
    kept: _Interactions,
    users: _Side,
    items: _Side,
    codes: np.ndarray | None,
    atomic: IO[bytes],
    texts: IO[bytes] | None = None,
) -> None:
    """Write the interactions kept, in the order of the dump: RecBole's file and, where there are some, their texts."""
    has_rating, has_time = bool(kept.rated.any()), bool(np.isfinite(kept.times).any())
    columns = ["user_id:token", "item_id:token"]
    columns += ["rating:float"] * has_rating + ["timestamp:float"] * has_time + ["split:token"] * (codes is not None)
    atomic.write(("\t".join(columns) + "\n").encode("ascii"))
    # map(int, ...) and no tolist(), which would make all the Python numbers at once.
    rows = zip(users.codes, items.codes, repeat(None) if codes is None else codes)
    for (line, review), (user, item, code) in zip(file.chosen(map(int, kept.lines), source.review), rows):
        if (review.user, review.item) != (users.originals[user], items.originals[item]):
            raise file.changed(line)
        user_token, item_token = users.tokens[user], items.tokens[item]
        if texts is not None:
            texts.write(review_line(Review(user_token, item_token, review.text, review.rating, review.timestamp)))
        cells = [user_token, item_token]
        cells += [_number(review.rating)] * has_rating + [_number(review.timestamp)] * has_time
        if code is not None:
            cells.append(SPLIT_NAMES[code])
        atomic.write(("\t".join(cells) + "\n").encode("utf-8"))


def _number(value: float | None) -> str:
    """Write a number without a needless fraction; nothing where there is none."""
    if value is None:
        return ""
    return str(int(value)) if value.is_integer() else repr(value)
