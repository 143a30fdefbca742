"""New interactions of a dataset that is there: appended to its file, with the frozen split extended and not redrawn."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.data.file_set import FileSet
from recbole_rlmrec.data.frozen import SplitRecipe, frozen_name, frozen_path
from recbole_rlmrec.data.split import SPLIT_NAMES, further_split, read_split, write_packed_split
from recbole_rlmrec.data.table import Table
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path, sync
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import ITEMS_FILE, read_items, write_items
from recbole_rlmrec.text.text_columns import read_item_columns
from recbole_rlmrec.wording import count, examples

_logger = logging.getLogger(__name__)

#: What is appended to a file's name for the one that was there before.
BEFORE = ".before-update"


@dataclass(frozen=True)
class Growth:
    """What was added to a dataset.

    Attributes:
        source: the file of new interactions.
        parts: how many of them are for training, validation and test.
        n_known: how many were there already, or twice in the file, and were skipped.
        new: users and items that the dataset did not have.
        touched: users and items of those for training, and of those that were skipped, which an update that was stopped
            may have added; and items whose texts were given. Nobody else's training interactions or texts are others.
        n_texts: items whose texts are new, or others than before.
    """

    source: Path
    parts: tuple[int, int, int]
    n_known: int
    new: Mapping[Side, tuple[str, ...]]
    touched: Mapping[Side, frozenset[str]]
    n_texts: int = 0

    @property
    def n_added(self) -> int:
        """How many interactions were added."""
        return sum(self.parts)

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size:,}" for name, size in zip(SPLIT_NAMES, self.parts))
        lines = [f"{self.source}: {count(self.n_added, 'new interaction')} ({parts})"]
        if self.n_known:
            lines.append(f"  skipped, since they are there already: {self.n_known:,}")
        if self.n_texts:
            lines.append(f"  texts of items, new or others than before: {self.n_texts:,}")
        for side, tokens in self.new.items():
            if tokens:
                lines.append(f"  new {side}s: {len(tokens):,}, such as {examples(tokens)}")
        return "\n".join(lines)


def freeze_present_split(config: Any) -> None:
    """Freeze the split that a dataset's trainings have, unless something fixes it already.

    Args:
        config: of a training; its seed is the split's.

    Raises:
        DataError: the dataset is missing or malformed, or cannot be split.
    """
    folder = Path(config.data_folders[0])
    if _files(config, ()).is_unfinished or frozen_path(config) is not None:
        return
    from recbole.utils import init_seed

    init_seed(config["seed"], config["reproducibility"])
    RLMRecDataset(config, split_use="freeze").freeze_split(folder / frozen_name(config["dataset"]))


def grow(
    config: Any,
    interactions: Path,
    items: Path | None = None,
    *,
    texts: Any = None,
    known_ids: Mapping[Side, Collection[str]] | None = None,
) -> Growth:
    """Append new interactions to a dataset, and extend its split and its texts of items.

    What the files were before stays beside them, with ``.before-update`` at the end of the names. The files are
    replaced together; the same call finishes what was stopped in between. Interactions that are there already are
    skipped: those with the same user, item and, where the data have times, time. Known interactions stay in their
    parts. A new one of a known pair goes where the pair is; of the others each goes to training, validation or test at
    random, with the shares that these have by now, but so that each new user and item has one for training.

    Args:
        config: of the dataset.
        interactions: an atomic file with the columns of the dataset's, in any order.
        items: texts of items as in ``items.jsonl``; a line about a known item replaces what is known of it.
        texts: configuration that names the columns of texts in the ``.item`` file; ``config`` if not given.
        known_ids: ids of whom a model was trained on; one of them has to be in the dataset.

    Returns:
        What was added; nothing is written where that is nothing.

    Raises:
        DataError: a file is missing or malformed, has other columns, or cannot be written.
    """
    name = config["dataset"]
    if config["benchmark_filename"] is not None:
        raise DataError(
            f"The interactions of '{name}' are in several files ({config['benchmark_filename']}), one for each part of "
            "the split, and it is not known which of them new ones belong to. Write them into one file with a column "
            "'split', or as many as you have into each file."
        )
    is_repair = _files(config, ()).is_unfinished
    present = _Present(config, is_repair=is_repair)
    old_table, table = Table.of(config, present.path(f"{name}.inter")), _opened(config, interactions)
    _check_columns(table, old_table)
    fields = [config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]]
    times = [config["TIME_FIELD"]] if old_table.types.get(config["TIME_FIELD"]) == "float" else []
    old, new = old_table.read([*fields, *times], fields), table.read(list(table.types), fields)
    for column, kind in table.types.items():
        if kind == "float":
            table.numbers(column, new[column])
    _check_ids(name, old, dict(zip(SIDES, fields)), known_ids)
    is_new = _are_new(old, new, fields, times, tables=(old_table, table))
    added = new[is_new]
    found = {side: tuple(_unknown(old[field], added[field])) for side, field in zip(SIDES, fields)}
    if not is_repair:
        freeze_present_split(config)
    split = _split_of(config, present, old_table)
    if split is None:
        field = config["split_field"]
        wrong = np.flatnonzero(~new[field].isin(SPLIT_NAMES).to_numpy())
        if len(wrong):
            table.refuse(
                wrong, f"the column '{field}' is {new[field].iloc[wrong[0]]!r:.80}, expected train, valid or test"
            )
        codes = added[field].map(SPLIT_NAMES.index).to_numpy()
    else:
        recipe = SplitRecipe.of_file(split)
        users, items_of = (pd.concat([old[field], added[field]]).to_numpy() for field in fields)
        known = read_split(split, old[fields[0]].to_numpy(), old[fields[1]].to_numpy())
        codes = further_split(users, items_of, known, config["seed"] if recipe is None else recipe.seed)
    sizes = np.bincount(codes.astype(np.int64), minlength=len(SPLIT_NAMES)).tolist()
    given = {} if items is None else read_items(items)
    matters = ~is_new
    matters[is_new] = codes == SPLIT_NAMES.index("train")
    touched = {side: frozenset(new.loc[matters, field]) for side, field in zip(SIDES, fields)}
    touched["item"] |= given.keys()
    known_texts = _known_items(present, texts or config) if given else {}
    n_texts = sum(known_texts.get(token) != item for token, item in given.items())
    sizes_of_parts = (sizes[0], sizes[1], sizes[2])
    growth = Growth(interactions, sizes_of_parts, int((~is_new).sum()), found, touched, n_texts)
    if not growth.n_added and not n_texts:
        return growth
    merged = {**known_texts, **given} if n_texts else None
    others = present.others()
    names = [
        f"{name}.inter",
        *([] if split is None else [frozen_name(name)]),
        *([] if merged is None else [ITEMS_FILE]),
    ]
    if not is_repair:
        for file in names:
            present.keep(file)
    with _files(config, (*names, *(path.name for path in others))).replaced() as paths:
        _append(present.path(f"{name}.inter"), paths[f"{name}.inter"], old_table, added, config["encoding"] or "utf-8")
        if split is not None:
            made = None if recipe is None else replace(recipe, added=recipe.added + growth.n_added).record()
            write_packed_split(paths[frozen_name(name)], users, items_of, np.concatenate([known, codes]), made)
        if merged is not None:
            write_items(paths[ITEMS_FILE], merged.values())
        for path in others:
            shutil.copyfile(path, paths[path.name])
    return growth


def _files(config: Any, names: tuple[str, ...]) -> FileSet:
    return FileSet(Path(config.data_folders[0]), config["dataset"], "update", names)


class _Present:
    """The files of a dataset as they were before an update, also where one was stopped while it replaced them.

    Args:
        config: of the dataset.
        is_repair: whether one was.
    """

    def __init__(self, config: Any, *, is_repair: bool) -> None:
        self._config, self._is_repair = config, is_repair
        self._folder = Path(config.data_folders[0])

    def find(self, name: str) -> Path | None:
        """Return a file as it was, None where there was none."""
        kept = self._folder / f"{name}{BEFORE}"
        if self._is_repair:
            return kept if kept.is_file() else None
        beside = Path(self._config["data_path"]) / name
        found: Path | None = self._config.find_data_file(name)
        return found or (beside if beside.is_file() else None)

    def path(self, name: str) -> Path:
        """Return a file as it was.

        Raises:
            DataError: there was none.
        """
        found = self.find(name)
        if found is None:
            raise DataError(
                f"'{self._folder}' has no {name}{BEFORE if self._is_repair else ''}, which an update begins with. "
                "Check --data_path, or restore the file."
            )
        return found

    def keep(self, name: str) -> None:
        """Copy a file as it is to the name that says so; where there is none, there is no such copy either."""
        found, kept = self.find(name), self._folder / f"{name}{BEFORE}"
        if found is None:
            kept.unlink(missing_ok=True)
            return
        with atomic_path(kept) as temporary:
            shutil.copyfile(found, temporary)
            sync(temporary)

    def others(self) -> list[Path]:
        """Return the files of users and items, where the dataset is not in the user's folder and moves there."""
        source = Path(self._config["data_path"])
        names = [f"{self._config['dataset']}.{side}" for side in SIDES]
        return [source / name for name in names if source != self._folder and (source / name).is_file()]


def _opened(config: Any, path: Path) -> Table:
    if not path.is_file():
        raise DataError(f"There is no file '{path}' of new interactions. Check the path given with --interactions.")
    return Table.of(config, path)


def _check_columns(new: Table, old: Table) -> None:
    """Refuse a file with other columns than the dataset's.

    Raises:
        DataError: it is.
    """
    if new.types == old.types:
        return
    here, there = ({f"{name}:{kind}" for name, kind in table.types.items()} for table in (new, old))
    faults = [
        f"{what} {', '.join(sorted(columns))}"
        for what, columns in (("lacks", there - here), ("has also", here - there))
        if columns
    ]
    if faults:
        raise DataError(
            f"'{new.path}' {' and '.join(faults)}: expected the columns of '{old.path}', which are "
            f"{', '.join(f'{name}:{kind}' for name, kind in old.types.items())}, in any order."
        )


def _check_ids(
    dataset: str, old: pd.DataFrame, fields: Mapping[Side, str], known_ids: Mapping[Side, Collection[str]] | None
) -> None:
    """Refuse a dataset that has none of the users, or none of the items, that a model was trained on.

    Raises:
        DataError: it has not.
    """
    for side, tokens in (known_ids or {}).items():
        here = set(old[fields[side]].unique())
        if here.isdisjoint(tokens):
            raise DataError(
                f"The checkpoint was trained on another dataset: none of its {len(tokens):,} {side}s, such as "
                f"{examples(tokens)}, is in '{dataset}', which has {side}s such as {examples(sorted(here))}. Give the "
                "checkpoint of a training on these data, or --data_path=DIR with its own."
            )


def _are_new(
    old: pd.DataFrame, new: pd.DataFrame, fields: list[str], times: list[str], tables: tuple[Table, Table]
) -> np.ndarray:
    """Return which rows are not in the dataset, and not earlier in the file, bool ``[n]``."""
    keys = []
    for column in fields:
        keys.append(pd.factorize(pd.concat([old[column], new[column]]), use_na_sentinel=False)[0])
    for column in times:
        both = [table.numbers(column, rows[column]) for table, rows in zip(tables, (old, new))]
        keys.append(pd.factorize(pd.concat(both), use_na_sentinel=False)[0])
    return ~pd.DataFrame(dict(enumerate(keys))).duplicated().to_numpy()[len(old) :]


def _unknown(old: pd.Series, new: pd.Series) -> list[str]:
    return new[~new.isin(old.unique())].unique().tolist()


def _split_of(config: Any, present: _Present, table: Table) -> Path | None:
    """Return the packed split to extend; None where a column of the interactions is the split.

    Raises:
        DataError: the split is a file that does not take new interactions.
    """
    field, name = config["split_field"], frozen_name(config["dataset"])
    if field in table.types and config["split_file"] is None:
        return None
    if config["split_file"] not in (None, name):
        raise DataError(
            f"The split is that of split_file='{config['split_file']}', which knows nothing of new interactions. "
            f"Freeze it with `{config.command('split')}`, and train without split_file."
        )
    return present.path(name)


def _known_items(present: _Present, config: Any) -> dict[str, Item]:
    """Return what is known of items by token."""
    current = present.find(ITEMS_FILE)
    return read_item_columns(config) if current is None else read_items(current)


def _append(source: Path, target: Path, table: Table, rows: pd.DataFrame, encoding: str) -> None:
    """Write a file of interactions with some rows more."""
    with source.open("rb") as old, target.open("wb") as new:
        shutil.copyfileobj(old, new, 2**20)
        if new.tell():
            old.seek(-1, 2)
            if old.read(1) != b"\n":
                new.write(b"\n")
        for values in zip(*(rows[name].tolist() for name in table.types)):
            new.write((table.separator.join(values) + "\n").encode(encoding))
