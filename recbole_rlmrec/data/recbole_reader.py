"""The tables of RecBole's datasets, read for it: every row checked, and nothing taken for something else."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_rlmrec.data.table import MISSING_FIELDS, Table, seq_separator_of
from recbole_rlmrec.wording import count

#: The settings that name a column of ids, in whichever file it is.
_ID_SETTINGS = (
    "USER_ID_FIELD",
    "ITEM_ID_FIELD",
    "HEAD_ENTITY_ID_FIELD",
    "TAIL_ENTITY_ID_FIELD",
    "RELATION_ID_FIELD",
    "ENTITY_ID_FIELD",
)
#: RecBole gives each distinct token of a column the room of the longest, four bytes a character.
_BYTES_PER_CHARACTER = 4
_MOST_BYTES = 2 * 2**30
_SHORT = 256


class RecBoleReader:
    """Reads tables in RecBole's place, see :func:`recbole_rlmrec.compat.tables_read_by`.

    Args:
        config: the run's configuration.
        kept_columns: columns of the interactions to keep as text.

    Attributes:
        kept_texts: for each file of interactions, in the order of reading, its ids and the columns to keep, as text.

    Raises:
        SettingError: ``seq_separator`` cannot be used.
    """

    def __init__(self, config: Any, kept_columns: Collection[str] = ()) -> None:
        self._config, self._kept_columns = config, frozenset(kept_columns)
        self._id_fields = [config[setting] for setting in _ID_SETTINGS if config[setting] is not None]
        order = (config["eval_args"] or {}).get("order")
        self._ordered_by = config["TIME_FIELD"] if order == "TO" else None
        self._seq_separator = seq_separator_of(config)
        self.kept_texts: list[pd.DataFrame] = []

    def first_line(self, path: str) -> str:
        """Return a table's header as RecBole takes it apart."""
        table = Table.of(self._config, path)
        return table.separator.join(f"{name}:{kind}" for name, kind in table.types.items())

    def rows(self, path: str, *, usecols: Sequence[str], dtype: dict[str, type], **_: Any) -> pd.DataFrame:
        """Read a table's rows.

        Args:
            path: the file.
            usecols: the columns that RecBole wants, with their types, as in the header.
            dtype: column -> ``str`` or ``numpy.float64``.

        Returns:
            These columns, NaN where a field is missing.

        Raises:
            DataError: see :meth:`Table.read`; a number or an id is none, or a token is too long for the memory.
        """
        table = Table.of(self._config, path)
        names = {column.partition(":")[0]: column for column in usecols}
        ids = [name for name in self._id_fields if name in names]
        is_interactions = Path(path).suffix == ".inter"
        kept = [name for name in table.types if name in self._kept_columns and is_interactions]
        # What RecBole does not load it does not look at, and a rating that is no number is a sign of a shifted row.
        unread = [name for name, kind in table.types.items() if kind == "float" and name not in {*names, *kept}]
        texts = table.read({*names, *kept}, ids, unread if is_interactions else ())
        if self._kept_columns and is_interactions:
            self.kept_texts.append(texts[[*ids, *(name for name in kept if name not in ids)]])
        wanted = {}
        for name in (name for name in texts.columns if name in names):
            column, kind = texts[name], table.types[name]
            if dtype[names[name]] is not str:
                wanted[names[name]] = table.numbers(name, column)
                if name == self._ordered_by and is_interactions:
                    self._check_times(table, name, wanted[names[name]])
                continue
            if kind == "float_seq":
                self._check_numbers(table, name, column)
            else:
                self._check_room(table, name, column)
            wanted[names[name]] = column if name in ids else column.mask(column.isin(MISSING_FIELDS))
        return pd.DataFrame(wanted)

    def _check_times(self, table: Table, name: str, times: pd.Series) -> None:
        """Refuse interactions without the time that they are to be ordered by: RecBole would take the mean of all."""
        wrong = np.flatnonzero(times.isna().to_numpy())
        if len(wrong):
            table.refuse(wrong, f"the column '{name}' is missing, and eval_args orders by it. Write the time")

    def _check_numbers(self, table: Table, name: str, column: pd.Series) -> None:
        """Refuse sequences that hold something else than finite numbers."""
        for row, text in enumerate(column.tolist()):
            try:
                is_good = bool(np.isfinite([float(part) for part in self._parts(text)]).all())
            except ValueError:
                is_good = text in MISSING_FIELDS
            if not is_good:
                table.refuse([row], f"the column '{name}' is {text!r:.80}, expected numbers. Correct the field")

    def _check_room(self, table: Table, name: str, column: pd.Series) -> None:
        """Refuse a column whose longest token would make RecBole's table of tokens huge."""
        if not len(column) or int(column.str.len().max()) <= _SHORT:
            return
        tokens = set(column.tolist())
        if table.types[name] == "token_seq":
            tokens = {part for text in tokens for part in self._parts(text)}
        longest = max(tokens, key=len, default="")
        if len(tokens) * len(longest) * _BYTES_PER_CHARACTER > _MOST_BYTES:
            row = next(row for row, text in enumerate(column.tolist()) if longest in text)
            table.refuse(
                [row],
                f"the column '{name}' has a token of {len(longest):,} characters, and RecBole gives each of its "
                f"{count(len(tokens), 'token')} as much room. Shorten it, or leave the column out of load_col",
            )

    def _parts(self, text: str) -> list[str]:
        return [part for part in text.split(self._seq_separator) if part]
