"""The texts in RecBole's atomic files: columns of ``.item``, ``.user`` and ``.inter`` that the configuration names."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_rlmrec.data.table import MISSING_FIELDS, Table, seq_separator_of
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.text.corpus import Item, Review


def read_item_columns(config: Any) -> dict[str, Item]:
    """Return token -> item, from the ``.item`` file; empty where the configuration names none of its columns.

    Raises:
        DataError: the file is missing or unreadable, or lacks a column that the configuration names.
    """
    title, description = config["item_title_field"], config["item_description_field"]
    names = list(config["item_attribute_fields"] or ())
    wanted = {title: "item_title_field", description: "item_description_field"}
    wanted.update(dict.fromkeys(names, "item_attribute_fields"))
    wanted.pop(None, None)
    if not wanted:
        return {}
    table = _Table(config, f"{config['dataset']}.item", config["ITEM_ID_FIELD"], wanted)
    # Titles and descriptions are read as they stand: RecBole would take the words of a sequence apart.
    texts = [table.texts(field) if field else [""] * len(table.tokens) for field in (title, description)]
    attributes = table.attributes(names)
    items: dict[str, Item] = {}
    for token, one_title, one_description, values in zip(table.tokens, *texts, attributes):
        # Of an item that stands there twice RecBole takes the first row.
        items.setdefault(token, Item(token, one_title, one_description, values))
    return items


def read_user_columns(config: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return token -> attributes, from the ``.user`` file; empty where the configuration names none of its columns.

    Raises:
        DataError: as ``read_item_columns``.
    """
    names = list(config["user_attribute_fields"] or ())
    if not names:
        return {}
    wanted = dict.fromkeys(names, "user_attribute_fields")
    table = _Table(config, f"{config['dataset']}.user", config["USER_ID_FIELD"], wanted)
    users: dict[str, dict[str, tuple[str, ...]]] = {}
    for token, values in zip(table.tokens, table.attributes(names)):
        users.setdefault(token, values)  # as for items
    return users


def columns_of_interactions(config: Any) -> list[str]:
    """Return the columns of ``.inter`` files that :func:`read_interactions` reads, beside the ids."""
    # RecBole's names of rating and time stand in every configuration, so a file without them is no mistake.
    return [name for name in (config["review_field"], config["RATING_FIELD"], config["TIME_FIELD"]) if name]


def read_interactions(config: Any, tables: Sequence[pd.DataFrame]) -> Iterator[Review]:
    """Yield the interactions of the ``.inter`` file, or of training where it is in parts, with what they say.

    Nothing is yielded where the file has neither text, rating nor time.

    Args:
        config: an RLMRecConfig.
        tables: each file's columns as text, as :class:`~recbole_rlmrec.data.dataset.RLMRecDataset` keeps them.

    Raises:
        DataError: the file lacks the column that ``review_field`` names, or a rating or time is no number.
    """
    benchmark = config["benchmark_filename"]
    name = f"{config['dataset']}.inter" if benchmark is None else f"{config['dataset']}.{benchmark[0]}.inter"
    user, item, text = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"], config["review_field"]
    table = _Table(config, name, user, {item: "ITEM_ID_FIELD", **({text: "review_field"} if text else {})}, tables[0])
    optional = (config["RATING_FIELD"], config["TIME_FIELD"])
    rating, timestamp = (table.numbers(field) if field in table.columns else None for field in optional)
    if text is None and rating is None and timestamp is None:
        return
    nothing: list[float | None] = [None] * len(table.tokens)
    yield from map(
        Review,
        table.tokens,
        table.texts(item),
        table.texts(text) if text else [""] * len(table.tokens),
        rating or nothing,
        timestamp or nothing,
    )


class _Table:
    """Some columns of an atomic file, as text.

    Args:
        config: an RLMRecConfig.
        name: the file's name.
        key: the column of tokens.
        wanted: columns to read -> the setting that names each.
        rows: the columns as text, where they have been read.

    Attributes:
        columns: the file's columns, without their types.
        tokens: the key of each row.

    Raises:
        DataError: the file is missing or unreadable, or lacks a column.
    """

    def __init__(
        self, config: Any, name: str, key: str, wanted: dict[str, str], rows: pd.DataFrame | None = None
    ) -> None:
        # After RLMRecConfig this is where the dataset lies, in the user's folder or in RecBole's own.
        path = Path(config["data_path"]) / name
        self._separator = seq_separator_of(config)
        if not path.is_file():
            setting, column = next((setting, column) for column, setting in wanted.items())
            raise DataError(
                f"There is no '{path}', from which {setting} wants the column '{column}'. Write the file, put "
                f"the texts into items.jsonl beside it, or set {setting} to nothing (~)."
            )
        self._file = Table.of(config, path)
        self.columns = list(self._file.types)
        for column, setting in {key: "the id of each row", **wanted}.items():
            self._require(column, setting)
        self._table = self._file.read({key, *wanted}, [key]) if rows is None else rows
        self.tokens = self._table[key].tolist()

    def texts(self, column: str) -> list[str]:
        """Return a column as it stands, without what RecBole reads as missing."""
        return ["" if text in MISSING_FIELDS else text.strip() for text in self._table[column].tolist()]

    def numbers(self, column: str) -> list[float | None]:
        """Return a column of numbers, None where there is none."""
        values = self._file.numbers(column, self._table[column])
        return [None if math.isnan(value) else value for value in values.tolist()]

    def attributes(self, columns: list[str]) -> list[dict[str, tuple[str, ...]]]:
        """Return the values of each row by column; what is missing is left out, sequences are split."""
        found: list[dict[str, tuple[str, ...]]] = [{} for _ in self.tokens]
        for column in columns:
            is_sequence = self._file.types[column].endswith("_seq")
            for row, text in enumerate(self.texts(column)):
                values = tuple(filter(None, text.split(self._separator))) if is_sequence else (text,) if text else ()
                if values:
                    found[row][column] = values
        return found

    def _require(self, column: str, setting: str) -> None:
        if column in self.columns:
            return
        near = difflib.get_close_matches(column, self.columns, 1, 0.5)
        raise DataError(
            f"'{self._file.path}' has no column '{column}' ({setting}); it has {', '.join(self.columns)}."
            + (f" Did you mean '{near[0]}'?" if near else f" Correct {setting}, or set it to nothing (~).")
        )
