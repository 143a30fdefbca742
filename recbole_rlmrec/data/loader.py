"""RecBole's loaders for training and full-sort evaluation, with batches cut from arrays instead of made row by row."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import AbstractDataLoader, FullSortEvalDataLoader, TrainDataLoader
from recbole.data.interaction import Interaction
from recbole.data.transform import construct_transform
from recbole.utils import ModelType
from torch.utils.data import DataLoader

from recbole_rlmrec.data.sampler import PairSampler
from recbole_rlmrec.ops.distributed import Shard, this_shard

_logger = logging.getLogger(__name__)


def _take(table: Interaction, rows: torch.Tensor) -> Interaction:
    """Return some rows of a table; its own indexing goes through a Python list."""
    return Interaction({field: column[rows] for field, column in table.interaction.items()})


class _RangeLoader(AbstractDataLoader):
    """RecBole's loader, with a ``range`` of row numbers where it has a list (0.8 GB for 2e7 interactions).

    Args and attributes are those of RecBole's class.
    """

    def __init__(self, config: Any, dataset: Any, sampler: Any, shuffle: bool = False) -> None:
        # RecBole's constructor line by line, but for the range; and of several processes each sees the whole batch.
        self.shuffle = shuffle
        self.config = config
        self._dataset = dataset
        self._sampler = sampler
        self._batch_size = self.step = self.model = None
        self._init_batch_size_and_step()
        self.generator = torch.Generator()
        self.generator.manual_seed(config["seed"])
        self.transform = construct_transform(config)
        self.is_sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
        DataLoader.__init__(
            self,
            dataset=range(self.sample_size),  # type: ignore[arg-type]
            batch_size=self.step,
            collate_fn=self.collate_fn,
            num_workers=config["worker"],
            shuffle=shuffle,
            generator=self.generator,
        )


class TrainLoader(TrainDataLoader, _RangeLoader):
    """RecBole's ``TrainDataLoader``: the same seeds give the same batches, epoch after epoch."""

    def __iter__(self) -> Iterator[Interaction]:
        if self.num_workers > 0:
            batches: Iterator[Interaction] = super().__iter__()
            return batches
        # torch draws a seed for its workers from the same generator, also where there are none.
        torch.empty((), dtype=torch.int64).random_(generator=self.generator)
        return self._batches()

    def _batches(self) -> Iterator[Interaction]:
        """Yield the batches of an epoch, with the draws of torch's ``RandomSampler``.

        It permutes all rows once for the epoch, and once more for nothing when it finds itself exhausted: with the last
        batch, or after it where that one is full.
        """
        n_rows, n_last = self.sample_size, self.sample_size % self.batch_size
        order = torch.randperm(n_rows, generator=self.generator) if self.shuffle else torch.arange(n_rows)
        for rows in order.split(self.batch_size):
            if self.shuffle and len(rows) == n_last:
                torch.randperm(n_rows, generator=self.generator)
            yield self.collate_fn(rows)
        if self.shuffle and n_last == 0:
            torch.randperm(n_rows, generator=self.generator)

    def collate_fn(self, index: torch.Tensor | Sequence[int]) -> Interaction:
        """Return the interactions of some rows, ``[B]``, with their negatives."""
        batch = self._dataset.join(_take(self._dataset.inter_feat, torch.as_tensor(index)))
        return self._neg_sampling(self.transform(self._dataset, batch))


class FullSortLoader(FullSortEvalDataLoader, _RangeLoader):
    """RecBole's ``FullSortEvalDataLoader`` for models that are not sequential.

    Users come in the order of their ids, a block of ``eval_batch_size`` scores at a time. The items of a user come in
    the order of their ids; RecBole's are in the order of a Python set. Of several processes, each has a share
    of the users.

    Args:
        config: the configuration.
        dataset: the interactions to be found.
        sampler: the sampler of their phase; what it knows as used is masked, less what is to be found.
        shuffle: not possible; a warning.
        shard: which share of the users; that of this process by default.

    Attributes:
        uid_list: the users of this process, ``[n]``.
        user_df: their ids and features.
        uid2items_num: how many items are to be found, by user id; 0 for users of other processes.
    """

    def __init__(
        self, config: Any, dataset: Any, sampler: PairSampler, shuffle: bool = False, shard: Shard | None = None
    ) -> None:
        self.logger = _logger
        self.uid_field, self.iid_field = dataset.uid_field, dataset.iid_field
        sought, history = _keys(dataset, sampler)
        everyone = np.unique(sought // dataset.item_num)
        local = everyone[(shard or this_shard()).rows(len(everyone))]
        self._row_of_user = np.full(dataset.user_num, -1)
        self._row_of_user[local] = np.arange(len(local))
        self._sought = ItemLists(sought, self._row_of_user, dataset.item_num)
        self._history = ItemLists(history, self._row_of_user, dataset.item_num)

        self.uid_list = torch.from_numpy(local)
        self.uid2items_num = np.zeros(dataset.user_num, dtype=np.int64)
        self.uid2items_num[local] = self._sought.lengths()
        self.user_df = dataset.join(Interaction({self.uid_field: self.uid_list}))
        self.sample_size = len(local)
        self.is_sequential = False
        if shuffle:
            self.logger.warning("FullSortEvalDataLoader can't shuffle")
        _RangeLoader.__init__(self, config, dataset, sampler, shuffle=False)

    def __bool__(self) -> bool:
        """Be true also without users: RecBole's trainer takes a loader of no batches for none at all."""
        return True

    def collate_fn(
        self, index: torch.Tensor | Sequence[int]
    ) -> tuple[Interaction, tuple[torch.Tensor, torch.Tensor], torch.Tensor, torch.Tensor]:
        """Return a block of users and their items.

        Args:
            index: rows of ``user_df``, ``[B]``.

        Returns:
            The users, ``[B]``; the items to mask as row (of the block) and item id; the rows of the items to be found;
            the ids of these.
        """
        rows = torch.as_tensor(index, dtype=torch.int64)
        return _take(self.user_df, rows), self._history.of(rows), *self._sought.of(rows)

    @cached_property
    def uid2positive_item(self) -> np.ndarray:
        """The items to be found as an array of tensors by user id, None for users without; slow, for code that asks."""
        by_user = np.full(len(self._row_of_user), None)
        for row, user in enumerate(self.uid_list.tolist()):
            by_user[user] = self._sought.of(torch.tensor([row]))[1]
        return by_user

    @cached_property
    def uid2history_item(self) -> np.ndarray:
        """The items to mask of every user, an array of tensors by user id; RecBole's case study reads it.

        Where RecBole has None, for users without an item to be found, its case study fails.
        """
        _, history = _keys(self._dataset, self._sampler)
        everyone = np.arange(len(self._row_of_user))
        lists = ItemLists(history, everyone, self._dataset.item_num)
        by_user = np.full(len(everyone), None)
        for user in everyone:
            by_user[user] = lists.of(torch.tensor([user]))[1]
        return by_user


class EmptyLoader:
    """Stands for the loader of a part that was left out of the split: it gives no batch.

    Args:
        dataset: the part, which holds no interaction.
    """

    def __init__(self, dataset: Any) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Interaction]:
        return iter(())


def _keys(dataset: Any, sampler: PairSampler) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs to be found and those to mask as ``user * item_num + item``, each sorted and without repeats."""
    users, items = (dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
    sought = np.unique(users.astype(np.int64) * dataset.item_num + items)
    used = sampler.used_keys
    is_history = np.ones(len(used), dtype=bool)
    at = np.searchsorted(used, sought)
    is_history[at[used.take(at, mode="clip") == sought]] = False
    return sought, used[is_history]


class ItemLists:
    """A list of items for each row, end to end in one tensor.

    Args:
        keys: ``user * n_items + item``, sorted.
        row_of_user: ascending rows by user id; -1 for users to leave out.
        n_items: number of item ids.
    """

    def __init__(self, keys: np.ndarray, row_of_user: np.ndarray, n_items: int) -> None:
        users, items = np.divmod(keys, n_items)
        rows = row_of_user[users]
        kept = rows >= 0
        self._items = torch.from_numpy(items[kept])
        lengths = np.bincount(rows[kept], minlength=int(row_of_user.max(initial=-1)) + 1)
        self._starts = torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]))

    def lengths(self) -> np.ndarray:
        """Return the number of items of each row."""
        return np.diff(self._starts.numpy())

    def of(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the items of some rows, ``[B]``, as positions within ``rows`` and item ids, both ``[items]``."""
        starts = self._starts[rows]
        lengths = self._starts[rows + 1] - starts
        owners = torch.repeat_interleave(torch.arange(len(rows)), lengths)
        # The n-th entry of the result is the (n - ends of the rows before)-th item of its row.
        shift = starts - (lengths.cumsum(0) - lengths)
        return owners, self._items[torch.arange(len(owners)) + shift[owners]]
