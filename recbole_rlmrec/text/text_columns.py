"""The texts in RecBole's atomic files: columns of ``.item``, ``.user`` and ``.inter`` that the configuration names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_rlmrec.data.atomic_file import MISSING_TOKENS
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
    return {
        token: Item(token, one_title, one_description, values)
        for token, one_title, one_description, values in zip(table.tokens, *texts, attributes)
    }


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
    return dict(zip(table.tokens, table.attributes(names)))


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
        self.path = Path(config["data_path"]) / name
        self._separator = str(config["seq_separator"])
        self._field_separator = str(config["field_separator"])
        self._encoding = config["encoding"] or "utf-8"
        if not self.path.is_file():
            setting, column = next((setting, column) for column, setting in wanted.items())
            raise DataError(
                f"There is no '{self.path}', from which {setting} wants the column '{column}'. Write the file, put "
                f"the texts into items.jsonl beside it, or set {setting} to nothing (~)."
            )
        self._types = self._read_header()
        self.columns = list(self._types)
        for column, setting in {key: "the id of each row", **wanted}.items():
            self._require(column, setting)
        self._table = self._read({key, *wanted}) if rows is None else rows
        self.tokens = self._table[key].tolist()

    def texts(self, column: str) -> list[str]:
        """Return a column as it stands, without what RecBole reads as missing."""
        return ["" if text in MISSING_TOKENS else text.strip() for text in self._table[column].tolist()]

    def numbers(self, column: str) -> list[float | None]:
        """Return a column of numbers, None where there is none."""
        try:
            values = pd.to_numeric(self._table[column].replace("", None)).tolist()
        except (ValueError, TypeError) as error:
            raise DataError(
                f"'{self.path}': the column '{column}' holds something else than numbers ({error})."
            ) from error
        return [float(value) if value is not None and value == value else None for value in values]

    def attributes(self, columns: list[str]) -> list[dict[str, tuple[str, ...]]]:
        """Return the values of each row by column; what is missing is left out, sequences are split."""
        found: list[dict[str, tuple[str, ...]]] = [{} for _ in self.tokens]
        for column in columns:
            is_sequence = self._types[column].endswith("_seq")
            for row, text in enumerate(self.texts(column)):
                values = tuple(filter(None, text.split(self._separator))) if is_sequence else (text,) if text else ()
                if values:
                    found[row][column] = values
        return found

    def _read_header(self) -> dict[str, str]:
        try:
            with self.path.open(encoding=self._encoding) as lines:
                header = lines.readline().rstrip("\r\n").split(self._field_separator)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"'{self.path}' cannot be read as {self._encoding} text: {error}.") from error
        return {name: kind for name, _, kind in (column.partition(":") for column in header)}

    def _require(self, column: str, setting: str) -> None:
        if column in self._types:
            return
        near = difflib.get_close_matches(column, self.columns, 1, 0.5)
        raise DataError(
            f"'{self.path}' has no column '{column}' ({setting}); it has {', '.join(self.columns)}."
            + (f" Did you mean '{near[0]}'?" if near else f" Correct {setting}, or set it to nothing (~).")
        )

    def _read(self, columns: set[str]) -> pd.DataFrame:
        """Read some columns as RecBole does, but leave every field the text it is."""
        names = list(self._types)
        try:
            return pd.read_csv(
                self.path,
                sep=self._field_separator,
                names=names,
                header=0,
                usecols=[name for name in names if name in columns],
                dtype=str,
                na_filter=False,
                encoding=self._encoding,
                engine="c" if len(self._field_separator) == 1 else "python",
            )
        except (ValueError, OSError) as error:
            raise DataError(f"'{self.path}' cannot be read: {str(error).strip()}. Correct the file.") from error
