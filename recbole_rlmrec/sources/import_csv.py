"""A shop's own tables, of who took what and of what there is, turned into a dataset with texts."""

from __future__ import annotations

import datetime as dt
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from recbole_rlmrec.data.file_set import FileSet
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.sources.prepare import Choice, PrepareSummary, check_choice, write_dataset
from recbole_rlmrec.sources.raw_dump import Interaction, Source, plain_text
from recbole_rlmrec.sources.table_rows import Layout, find_layout, open_rows
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.json_lines import MAX_MALFORMED, MalformedLineError, Records, optional_number
from recbole_rlmrec.wording import examples, listed

_logger = logging.getLogger(__name__)

#: Rows that are looked at to find what a column holds.
_N_LOOKED_AT = 1000
#: Rows that a preview shows.
_N_SHOWN = 5
#: A column is prose, and no attribute, where its values have more characters on average than the second; or than the
#: first, and most of them differ, as paths of categories do not.
_SENTENCE, _PROSE = 30, 80
#: Days and moments written in digits alone, which are no number of seconds.
_DAY = re.compile(r"(19|20)\d{6}")
_MOMENT = re.compile(r"(19|20)\d{12}")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
#: Dates with full stops, whose day stands first wherever they are written; with slashes it may be the month.
_DOTTED = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(.*)")
#: What is less than this is a moment before 1973, which no shop means; what is more, not even nanoseconds.
_FIRST_SECOND, _LAST_NANOSECOND = 1e8, 1e20
#: What is more than this is no number of seconds since 1970, but of milliseconds: it would lie in the year 5138.
_MILLISECONDS = 1e11

#: What looks like an amount: 12.5, or a number with thousands or a currency; not 192.168.0.1 nor 796.332.
_DECIMAL = re.compile(
    r"\d+[.,]\d{1,2}|\d{1,3}(\.\d{3})+,\d{1,2}|\d{1,3}([ ',]\d{3})+\.\d{1,2}"
    r"|[$€£¥] ?[\d., ']*\d|\d[\d., ']* ?[$€£¥]"
)
#: How a spreadsheet writes a long number of which it keeps the first digits only.
_ROUNDED = re.compile(r"\d([.,]\d+)?E\+\d+")
_WHOLE_AS_DECIMAL = re.compile(r"\d+\.0")


@dataclass(frozen=True)
class Tables:
    """Which files and columns hold what.

    Attributes:
        interactions: the file of who took what: CSV, TSV, JSON lines or Parquet, gzipped or not.
        user: its column of user ids.
        item: its column of item ids.
        rating: its column of ratings.
        time: its column of times: dates, or seconds or milliseconds since 1970.
        review: its column of the users' words.
        items: the file of items.
        item_id: its column of item ids, where that has another name than in the interactions.
        title: its column of titles.
        text: its columns of other text: prose becomes the description, short values become attributes.
        time_format: how dates are written, such as ``%d/%m/%Y``, where that cannot be seen.
        separator: of CSV files, where it cannot be found.
        encoding: of CSV files, where it cannot be found.
    """

    interactions: Path
    user: str
    item: str
    rating: str | None = None
    time: str | None = None
    review: str | None = None
    items: Path | None = None
    item_id: str | None = None
    title: str | None = None
    text: tuple[str, ...] = ()
    time_format: str | None = None
    separator: str | None = None
    encoding: str | None = None


def import_csv(
    tables: Tables,
    dataset: str,
    output: str | Path = "dataset",
    choice: Choice | None = None,
    *,
    max_malformed: float = MAX_MALFORMED,
    show_progress: bool = False,
    overwrite: bool = False,
) -> PrepareSummary:
    """Turn tables into ``OUTPUT/DATASET/``: ``DATASET.inter`` with a split, ``DATASET.item``, and the texts.

    The files are read as streams, interactions twice, so they may be larger than memory. Of a pair of user and item
    that is there several times the last by time counts, or the last in the file.

    Args:
        tables: which files and columns hold what.
        dataset: RecBole's name of the dataset to write.
        output: folder of RecBole's datasets.
        choice: what is kept, and how it is split; by default everything, 8:1:1 at random.
        max_malformed: share of a file's rows that may be malformed.
        show_progress: whether to show the bytes read, where standard error is a terminal.
        overwrite: whether a dataset of this name may be replaced.

    Raises:
        SettingError: a setting cannot be used.
        DataError: a file is missing or unreadable, lacks a column, holds no ids or times where they are expected, or
            is too malformed; or nothing is left.
    """
    choice = choice or Choice(k_core=1, shares=(8, 1, 1))
    check_choice(dataset, choice, max_malformed)
    folder = Path(output) / dataset
    present = folder / f"{dataset}.inter"
    # The same command again is what repairs files that were half replaced, also those of a first import.
    is_repair = FileSet(folder, dataset, "import-csv", ()).is_unfinished
    if present.exists() and not (overwrite or is_repair):
        raise DataError(
            f"'{present}' exists already. Choose another --dataset, or replace it with --overwrite; profiles and "
            "embeddings made from it are then made again."
        )
    opened = _open(tables, choice, max_malformed, show_progress=show_progress)
    origin = " and ".join(path.name for path in (tables.interactions, tables.items) if path is not None)
    return write_dataset(
        opened.source, origin, opened.interactions, opened.items, dataset, output, choice, "import-csv", frozen=True
    )


def preview(tables: Tables, choice: Choice | None = None) -> str:
    """Say how tables would be read, with their first rows, and write nothing.

    Raises:
        SettingError, DataError: see :func:`import_csv`.
    """
    opened = _open(tables, choice or Choice(), 1.0, show_progress=False)
    lines = [f"{tables.interactions.name}: {opened.layouts[0]}"]
    lines += _first_rows(opened.interactions, opened.source.review, _values_of_review)
    if opened.items is not None:
        lines.append(f"{tables.items and tables.items.name}: {opened.layouts[1]}")
        lines += _first_rows(opened.items, opened.source.item, _values_of_item)
    return "\n".join([*lines, "Nothing was written."])


def _first_rows(
    records: Records[Any], make: Callable[[Mapping[str, Any]], Any], values_of: Callable[[Any], Mapping[str, Any]]
) -> Iterator[str]:
    """Yield lines of the first rows, and how many of some more are malformed."""
    for place, (number, made) in enumerate(islice(records.records(make), _N_LOOKED_AT)):
        if place < _N_SHOWN:
            yield f"  line {number}: {_shown(values_of(made))}"
    if records.n_malformed:
        found = f"{records.n_malformed:,} of the first {records.n_lines:,} rows are"
        yield f"  {found} malformed, such as {records.examples[0]}"


def _values_of_review(review: Any) -> dict[str, Any]:
    return {entry.name: getattr(review, entry.name) for entry in fields(review)}


def _values_of_item(item: Item) -> dict[str, Any]:
    return {"item": item.token, "title": item.title, "description": item.description, **item.attributes}


@dataclass(frozen=True)
class _Opened:
    """Tables, opened."""

    source: Source
    layouts: tuple[Layout, ...]
    interactions: Records[Any]
    items: Records[Any] | None


def _shown(values: Mapping[str, Any]) -> str:
    cells = ((name, ", ".join(value) if isinstance(value, tuple) else str(value)) for name, value in values.items())
    return ", ".join(f"{name} {text[:60]!r}" for name, text in cells if text not in ("", "None"))


def _open(tables: Tables, choice: Choice, max_malformed: float, *, show_progress: bool) -> _Opened:
    if choice.min_rating is not None and tables.rating is None:
        raise SettingError(f"--min-rating {choice.min_rating:g} needs --rating COLUMN, the column of the ratings.")
    if choice.split != "random" and tables.time is None:
        raise SettingError(f"--split {choice.split} needs --time COLUMN, the column of the times.")
    if tables.items is None and (tables.title or tables.text or tables.item_id):
        raise SettingError(
            "--title, --text and --item-id name columns of the file of items: give it with --items FILE."
        )
    if tables.time_format and tables.time is None:
        raise SettingError(f"--time-format {tables.time_format} needs --time COLUMN, the column of the times.")
    columns = [name for name in (tables.user, tables.item, tables.rating, tables.time, tables.review) if name]
    if len(set(columns)) < len(columns):
        raise SettingError(f"A column is named for two roles: {listed(columns, most=5)}. Each role has its own column.")
    item_id = tables.item_id or tables.item
    remedy = "Correct these rows, or allow more with --max-malformed."

    def opened(path: Path, columns: Sequence[str]) -> tuple[Layout, Records[Any]]:
        layout = find_layout(path, columns, tables.separator, tables.encoding)
        return layout, open_rows(path, layout, columns, max_malformed, remedy, show_progress=show_progress)

    layout, interactions = opened(tables.interactions, columns)
    rows = _first(interactions)
    user_id_of = _id_reader(tables.interactions, tables.user, "--user", rows)
    item_id_of = _id_reader(tables.interactions, tables.item, "--item", rows)
    seconds_of = _time_reader(tables, rows)

    def interaction(record: Mapping[str, Any]) -> Interaction:
        rating = _number(record, tables.rating) if tables.rating else None
        return user_id_of(record), item_id_of(record), rating, seconds_of(record)

    def text(record: Mapping[str, Any]) -> str:
        return _plain(record.get(tables.review or ""))

    layouts: tuple[Layout, ...] = (layout,)
    items: Records[Any] | None = None
    item: Callable[[Mapping[str, Any]], Item] = _no_item
    if tables.items is not None:
        names = dict.fromkeys([item_id, *([tables.title] if tables.title else []), *tables.text])
        item_layout, items = opened(tables.items, list(names))
        layouts = (layout, item_layout)
        item = _item_reader(tables, item_id, _first(items))
    source = Source("csv", "", "", "", choice.min_rating, interaction, text if tables.review else None, item)
    return _Opened(source, layouts, interactions, items)


def _first(records: Records[Any]) -> list[Mapping[str, Any]]:
    """Return the first rows."""
    return [row for _, row in islice(records.records(lambda row: row), _N_LOOKED_AT)]


# ---------------------------------------------------------------------- what columns hold


def _id_reader(
    path: Path, column: str, option: str, rows: Sequence[Mapping[str, Any]]
) -> Callable[[Mapping[str, Any]], str]:
    """Return what reads the ids of a column.

    Raises:
        DataError: it holds decimal numbers, such as prices.
    """
    values = [str(row.get(column, "")).strip() for row in rows]
    known = [value for value in values if value]
    as_decimals = bool(known) and all(_WHOLE_AS_DECIMAL.fullmatch(value) for value in known)
    decimals = [value for value in known if _DECIMAL.fullmatch(value)]
    if as_decimals:
        _logger.warning("%s: the ids in %r are written as %s; they are read as whole numbers.", path, column, known[0])
    elif len(decimals) > len(known) / 2:
        raise DataError(
            f"'{path}': {option} {column} holds decimal numbers such as {examples(decimals)}, which look like "
            "prices or amounts, expected ids. Name another column."
        )

    def read(record: Mapping[str, Any]) -> str:
        value = record.get(column)
        token = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
        if isinstance(value, float) and value.is_integer():
            token = str(int(value))
        if not token:
            raise MalformedLineError(f"has no id in {column!r}")
        if "E+" in token and _ROUNDED.fullmatch(token):
            raise MalformedLineError(
                f"has {column!r} = {token!r}, an id whose last digits a spreadsheet has rounded away; export the table "
                "again with this column as text"
            )
        return token[:-2] if as_decimals and token.endswith(".0") else token

    return read


def _number(record: Mapping[str, Any], column: str) -> float | None:
    """Return a number, which may have a decimal comma; None where the field is blank."""
    value = record.get(column)
    if isinstance(value, str):
        value = value.strip()
        if not value:
            return None
        if re.fullmatch(r"-?\d+,\d+", value):
            value = value.replace(",", ".")
    return optional_number({column: value}, column)


def _time_reader(tables: Tables, rows: Sequence[Mapping[str, Any]]) -> Callable[[Mapping[str, Any]], float | None]:
    """Return what reads the times, in seconds since 1970; a time without a zone is taken as UTC.

    Raises:
        DataError: none of the first rows' times can be read.
    """
    column, pattern = tables.time, tables.time_format
    if column is None:
        return lambda record: None

    def read(record: Mapping[str, Any]) -> float | None:
        value = record.get(column)
        if isinstance(value, str):
            value = value.strip()
        if value is None or value == "":
            return None
        try:
            return _seconds(value, pattern)
        except (ValueError, OverflowError, TypeError):
            expected = f"a date written as {pattern}" if pattern else "a date such as 2024-03-01 12:00:00, or seconds"
            raise MalformedLineError(f"has {column!r} = {str(value)[:40]!r}, expected {expected}") from None

    unread = []
    early = []
    for row in rows:
        try:
            seconds = read(row)
        except MalformedLineError:
            unread.append(str(row[column]))
        else:
            text = str(row.get(column)).strip()
            if seconds is not None and seconds < _FIRST_SECOND and _NUMBER.fullmatch(text):
                early.append(text)
    if len(unread) > len(rows) / 2:
        raise DataError(
            f"'{tables.interactions}': the times in {column!r}, such as {examples(dict.fromkeys(unread))}, are not "
            "understood. Say how they are written with --time-format, such as %d/%m/%Y or '%m/%d/%Y %H:%M'."
        )
    if len(early) > len(rows) / 2:
        _logger.warning(
            f"{tables.interactions}: the times in {column!r}, such as {examples(early)}, are read as seconds since "
            "1970, and so lie before 1973. That keeps their order. If they are years, or days counted by a "
            "spreadsheet, write them as dates."
        )
    return read


def _seconds(value: Any, pattern: str | None) -> float:
    if isinstance(value, dt.datetime):
        moment = value
    elif isinstance(value, dt.date):
        moment = dt.datetime(value.year, value.month, value.day)
    elif pattern:
        moment = dt.datetime.strptime(str(value), pattern)
    else:
        text = str(value)
        try:
            number = float(value)
        except ValueError:
            dotted = _DOTTED.fullmatch(text)
            day, month, year, clock = dotted.groups() if dotted else ("", "", "", "")
            moment = dt.datetime.fromisoformat(f"{year}-{month:0>2}-{day:0>2}{clock}" if dotted else text)
        else:
            if _DAY.fullmatch(text) or _MOMENT.fullmatch(text):
                return _seconds(value, "%Y%m%d" if len(text) == len("20240301") else "%Y%m%d%H%M%S")
            if not abs(number) < _LAST_NANOSECOND:
                raise ValueError
            while abs(number) > _MILLISECONDS:
                number /= 1000
            return number
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()


def _item_reader(
    tables: Tables, item_id: str, rows: Sequence[Mapping[str, Any]]
) -> Callable[[Mapping[str, Any]], Item]:
    """Return what reads an item."""
    assert tables.items is not None
    id_of = _id_reader(tables.items, item_id, "--item-id", rows)
    prose: list[str] = []
    attributes: list[str] = []
    for column in tables.text:
        texts = [text for row in rows if (text := _plain(row.get(column)))]
        least = _SENTENCE if 2 * len(set(texts)) > len(texts) else _PROSE
        is_list = any(isinstance(row.get(column), list) for row in rows)
        (prose if sum(map(len, texts)) > least * len(texts) and not is_list else attributes).append(column)

    def item(record: Mapping[str, Any]) -> Item:
        values = {name: tuple(_values(record.get(name))) for name in attributes}
        return Item(
            id_of(record),
            _plain(record.get(tables.title)) if tables.title else "",
            " ".join(filter(None, (_plain(record.get(name)) for name in prose))),
            {name: texts for name, texts in values.items() if texts},
        )

    return item


def _no_item(record: Mapping[str, Any]) -> Item:
    raise AssertionError("there is no file of items")


def _values(value: Any) -> Iterator[str]:
    """Yield the values of an attribute: of a list each, of a text those between bars."""
    for part in value if isinstance(value, list) else str("" if value is None else value).split("|"):
        text = _plain(part)
        if text:
            yield text


def _plain(value: Any) -> str:
    """Return a field as plain text."""
    if isinstance(value, list):
        return " ".join(filter(None, map(_plain, value)))
    return "" if value is None or value != value else plain_text(str(value))
