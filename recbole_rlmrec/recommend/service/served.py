"""What a service knows: the model, its base to compare with, ids and titles to search, and items added since."""

from __future__ import annotations

import logging
import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_rlmrec.errors import DataError, RLMRecError, SettingError
from recbole_rlmrec.files import try_lock
from recbole_rlmrec.model.arrays import ids_of
from recbole_rlmrec.recommend.explain import profiles_of
from recbole_rlmrec.recommend.free_text import WEIGHT
from recbole_rlmrec.recommend.recommender import Recommender
from recbole_rlmrec.recommend.service.metrics import Metrics
from recbole_rlmrec.sides import Side
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import item_line, item_of
from recbole_rlmrec.text.json_lines import parse_json
from recbole_rlmrec.training.comparison import recorded_checkpoint_of_base, state_of

_logger = logging.getLogger(__name__)

#: Items that may be added to a service.
MOST_ADDED = 10_000
#: Seconds between two looks at the checkpoint's file.
_PERIOD = 1.0

Row = dict[str, Any]


@dataclass(frozen=True)
class Sources:
    """Where a service's model comes from.

    Attributes:
        checkpoint: its file.
        compare_with: checkpoint of the model beside it; None for the base that the training left.
        settings: over those of the training.
        added: file of the items that were added; made if missing. All processes of a service share it.
    """

    checkpoint: Path
    compare_with: Path | None
    settings: Mapping[str, Any]
    added: Path


class Served:
    """A model that was loaded, and what is asked of it; but for what checks an id, by one thread.

    Args:
        recommender: of the model.
        base: of the model to compare with; None for none.
    """

    def __init__(self, recommender: Recommender, base: Recommender | None) -> None:
        self.recommender, self.base = recommender, base
        #: Items that were added, by token.
        self.added: dict[str, Item] = {}
        #: Bytes of the file of added items that this knows.
        self.position = 0

    @classmethod
    def load(cls, sources: Sources) -> Served:
        """Load the model and the one to compare with.

        Raises:
            RLMRecError: one of them cannot be loaded, or they are of two datasets.
        """
        recommender = Recommender.load(sources.checkpoint, config_dict=sources.settings)
        if sources.compare_with is not None:
            base = Recommender.load(sources.compare_with, config_dict=sources.settings)
            if base.dataset.dataset_name != recommender.dataset.dataset_name:
                raise SettingError(
                    f"'{sources.compare_with}' is of '{base.dataset.dataset_name}' and '{sources.checkpoint}' of "
                    f"'{recommender.dataset.dataset_name}': lists are compared of models of one dataset."
                )
            return cls(recommender, base)
        path = recorded_checkpoint_of_base(sources.checkpoint)
        if path is None:
            return cls(recommender, None)
        try:
            return cls(recommender, Recommender.load(path, config_dict=sources.settings))
        except RLMRecError as error:
            _logger.warning(f"Lists are shown without those of the base: {error}")
            return cls(recommender, None)

    def about(self) -> Row:
        """Return what is served, for people."""
        dataset, checkpoint = self.recommender.dataset, self.recommender.checkpoint
        return {
            "model": type(self.recommender.model).__name__,
            "base": None if self.base is None else type(self.base.model).__name__,
            "dataset": dataset.dataset_name,
            "checkpoint": None if checkpoint is None else checkpoint.name,
            "note": "" if checkpoint is None else state_of(checkpoint),
            "users": dataset.user_num - 1,
            "items": dataset.item_num - 1 + len(self.added),
            "added_items": len(self.added),
            "query_weight": WEIGHT,
        }

    # ------------------------------------------------------------------ ids and titles

    def is_known(self, side: Side, token: str) -> bool:
        """Return whether there is a user or an item."""
        dataset = self.recommender.dataset
        field = dataset.uid_field if side == "user" else dataset.iid_field
        return dataset.field2token_id[field].get(token, 0) > 0 or (side == "item" and token in self.added)

    def require_known(self, side: Side, token: str) -> None:
        """Check that there is a user or an item; of many ids, looking for the nearest takes a while.

        Raises:
            DataError: there is none; the nearest id is named.
        """
        if not self.is_known(side, token):
            ids_of(self.recommender.dataset, side, [token])

    def find_users(self, beginning: str, k: int) -> list[str]:
        """Return ids of users that begin so, in any case of letters, in their order; ``k`` at most."""
        folded = beginning.casefold()
        first = bisect_left(self._sorted_users, (folded,))
        found = []
        for key, token in self._sorted_users[first : first + k]:
            if not key.startswith(folded):
                break
            found.append(token)
        return found

    def find_items(self, words: str, k: int) -> list[Row]:
        """Return items whose title or id has all words, in any case of letters, in the data's order; ``k`` at most."""
        parts = words.casefold().split()
        found = []
        for text, token, title in (*self._searched_items, *map(_searched, self.added.values())):
            if all(part in text for part in parts):
                found.append({"item": token, "title": title})
                if len(found) == k:
                    break
        return found

    @cached_property
    def _sorted_users(self) -> list[tuple[str, str]]:
        tokens = map(str, self.recommender.dataset.field2id_token[self.recommender.dataset.uid_field][1:])
        return sorted((token.casefold(), token) for token in tokens)

    @cached_property
    def _searched_items(self) -> list[tuple[str, str, str | None]]:
        tokens = map(str, self.recommender.dataset.field2id_token[self.recommender.dataset.iid_field])
        rows = zip(tokens, self.recommender.titles)
        return [_searched(Item(token, title or "")) for row, (token, title) in enumerate(rows) if row]

    @cached_property
    def _profiles(self) -> Mapping[Side, Mapping[str, str]]:
        return {side: profiles_of(self.recommender.dataset, side) for side in ("user", "item")}

    def warm_up(self) -> None:
        """Compute now what the first requests would wait for."""
        _ = self._sorted_users, self._searched_items, self._profiles
        first = str(self._sorted_users[0][1])
        self.lists([first], 1, include_seen=False, compare=True)
        self.recommender.prepare_texts()

    # ------------------------------------------------------------------ what is asked

    def lists(self, users: Sequence[str], k: int, *, include_seen: bool, compare: bool) -> dict[str, Row]:
        """Return the lists of users, each once.

        Args:
            users: known ids, each once.
            k: length of a list.
            include_seen: whether items that a user has already are listed as well.
            compare: whether the base's list is returned beside, None without a base, and each item's rank in it.
        """
        ours = _rows_by_user(self.recommender.recommend(users, k, include_seen=include_seen))
        found: dict[str, Row] = {user: {"user": user, "items": ours.get(user, [])} for user in users}
        if compare and self.base is None:
            found = {user: {**row, "base": None} for user, row in found.items()}
        elif compare and self.base is not None:
            base = _rows_by_user(self.base.recommend(users, k, include_seen=include_seen))
            for user in users:
                ranks = {row["item"]: row["rank"] for row in base.get(user, [])}
                found[user]["base"] = base.get(user, [])
                found[user]["items"] = [{**row, "base_rank": ranks.get(row["item"])} for row in found[user]["items"]]
        return found

    def query(self, text: str, k: int, user: str | None, weight: float, *, include_seen: bool) -> Row:
        """Return the items for a sentence, alone or mixed with a user; see :meth:`Recommender.query`."""
        frame = self.recommender.query(text, k, user=user, weight=weight, include_seen=include_seen)
        return {"text": text, "user": user, "items": _rows(frame)}

    def similar_items(self, item: str, k: int) -> Row:
        """Return the neighbours of an item in behaviour and in text; None where that space does not have it."""
        found: Row = {"item": item}
        for space in ("model", "text"):
            try:
                found[f"in_{space}"] = _rows(self.recommender.similar_items(item, k, space=space))
            except (SettingError, DataError):  # there are no representations or texts, or the item is in neither
                found[f"in_{space}"] = None
        return found

    def similar_users(self, user: str, k: int) -> Row:
        """Return the neighbours of a user in behaviour."""
        return {"user": user, "in_model": _rows(self.recommender.similar_users(user, k))}

    def user(self, token: str) -> Row:
        """Return a user's profile and the items that the model was trained with."""
        return {
            "user": token,
            "profile": self._profiles["user"].get(token),
            "history": _rows(self.recommender.history(token)),
        }

    def item(self, token: str) -> Row:
        """Return what is known of an item."""
        added = self.added.get(token)
        if added is not None:
            return {"item": token, "title": added.title or None, "profile": added.description or None, "added": True}
        dataset = self.recommender.dataset
        title = self.recommender.titles[dataset.field2token_id[dataset.iid_field][token]]
        return {"item": token, "title": title, "profile": self._profiles["item"].get(token), "added": False}


def _searched(item: Item) -> tuple[str, str, str | None]:
    return f"{item.title}\n{item.token}".casefold(), item.token, item.title or None


def _rows(frame: pd.DataFrame) -> list[Row]:
    """Return the rows of a table as plain values, gaps as None."""
    # A gap is None, or NaN, which equals nothing; what pandas has for this takes most of a request's time.
    columns = [[None if value != value else value for value in column.tolist()] for _, column in frame.items()]
    return [dict(zip(frame.columns, values)) for values in zip(*columns)]


def _rows_by_user(frame: pd.DataFrame) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in _rows(frame):
        found.setdefault(row.pop("user"), []).append(row)
    return found


# ---------------------------------------------------------------------- items added, and newer checkpoints


class AddedItems:
    """The items that were added to a service, in a file that all of its processes read.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def add(self, served: Served, items: Sequence[Item]) -> list[str]:
        """Add items to a model, and to the file for other processes and later checkpoints.

        Returns:
            Their ids.

        Raises:
            DataError: an item is known already.
            SettingError: there would be too many.
            RLMRecError: see :meth:`Recommender.add_items`; then none is added.
        """
        with self._path.open("ab") as file, _locked(file.fileno()):
            self.catch_up(served)
            for item in items:
                if served.is_known("item", item.token):
                    raise DataError(f"There is an item {item.token!r} already: give the new one another id.")
            if len(served.added) + len(items) > MOST_ADDED:
                raise SettingError(f"At most {MOST_ADDED:,} items are added to a service: train a model with them.")
            tokens = _added_to(served, items)
            lines = b"".join(map(item_line, items))
            file.write(lines)
            served.position += len(lines)
        return tokens

    def catch_up(self, served: Served) -> None:
        """Add to a model what the file has that it does not know; items that it was trained with are passed over."""
        if self._path.stat().st_size <= served.position:
            return
        with self._path.open("rb") as file:
            file.seek(served.position)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        served.position += len(whole)
        items = [item_of(parse_json(line)) for line in whole.splitlines()]
        try:
            _added_to(served, [item for item in items if not served.is_known("item", item.token)])
        except RLMRecError as error:
            _logger.error(f"Items that were added are not in the lists of this checkpoint: {error}")


def _added_to(served: Served, items: Sequence[Item]) -> list[str]:
    tokens: list[str] = served.recommender.add_items(items) if items else []
    served.added.update((item.token, item) for item in items)
    return tokens


@contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Keep other processes from writing a file until it is closed."""
    while not try_lock(descriptor):
        time.sleep(0.01)
    yield


class Live:
    """The model that is served now: a newer checkpoint of the same name takes its place once it is loaded.

    Args:
        served: the first one.
        sources: where it comes from.
        metrics: counts the newer ones.
        load: loads the next one.
        period: seconds between two looks at the file.
    """

    def __init__(
        self,
        served: Served,
        sources: Sources,
        metrics: Metrics,
        load: Callable[[Sources], Served] = Served.load,
        period: float = _PERIOD,
    ) -> None:
        self._served, self._sources, self._metrics, self._load, self._period = served, sources, metrics, load, period
        self.added = AddedItems(sources.added)
        self._seen = self._taken = _stamp(sources.checkpoint)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def served(self) -> Served:
        """The model; whoever asks several things of it asks for it once."""
        return self._served

    def current(self) -> Served:
        """Return the model, with the items that other processes have added; for the thread that uses it."""
        served = self._served
        self.added.catch_up(served)
        return served

    def close(self) -> None:
        """Look no more."""
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(self._period):
            stamp = _stamp(self._sources.checkpoint)
            # A file that is being written is another at each look.
            if stamp is not None and stamp == self._seen != self._taken:
                self._taken = stamp
                self._take()
            self._seen = stamp

    def _take(self) -> None:
        before, path = self._served.about(), self._sources.checkpoint
        try:
            served = self._load(self._sources)
            if served.about()["dataset"] != before["dataset"]:
                raise SettingError(f"it is of the dataset '{served.about()['dataset']}', not of '{before['dataset']}'.")
            served.warm_up()
            self.added.catch_up(served)
        except Exception as error:  # whatever is wrong with the file, the service goes on
            self._metrics.count_reload("refused")
            _logger.error(f"The newer checkpoint '{path}' was not taken, the one before goes on: {error}")
            return
        self._served = served
        self._metrics.count_reload("loaded")
        _logger.info(f"The newer checkpoint '{path}' was taken.")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what is another once a file was written again; None where it is missing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
