"""Negative sampling from arrays: RecBole's random numbers without its Python sets."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from recbole.sampler import Sampler

#: Up to this many (user, item) pairs, a bit for each is kept: 64 MiB.
_MOST_BITS = 2**29


class PairSampler(Sampler):
    """RecBole's ``Sampler``: the same seed gives the same negatives.

    Which pairs are used is one sorted array of the keys ``user * item_num + item``, instead of a set for each user and
    phase. As in RecBole, the pairs of a phase and of the phases before it are used.

    Args:
        phases: names of the phases, in order.
        datasets: one for each phase.
        distribution: of the negatives: ``uniform``, or ``popularity`` over all phases.
        alpha: exponent of the popularity.

    Attributes:
        phase: that of :meth:`set_phase`; None before.
        prob: for each item in the order of first appearance, the chance to keep it once drawn (``popularity`` only).
        alias: the item that takes its place otherwise; -1 if none does.

    Raises:
        ValueError: a user has every item, or there are more pairs than 64-bit integers.
    """

    def __init__(
        self,
        phases: str | list[str],
        datasets: Any,
        distribution: str = "uniform",
        alpha: float = 1.0,
    ) -> None:
        # RecBole's constructors would make the sets, so this one stands for both of them.
        self.phases: list[str] = phases if isinstance(phases, list) else [phases]
        self.datasets: list[Any] = datasets if isinstance(datasets, list) else [datasets]
        if len(self.phases) != len(self.datasets):
            raise ValueError(f"Phases {self.phases} and datasets {self.datasets} should have the same length.")
        first = self.datasets[0]
        self.uid_field, self.iid_field = first.uid_field, first.iid_field
        self.user_num, self.item_num = first.user_num, first.item_num
        self.phase: str | None = None
        self.alpha = alpha
        self._keys, self._phases_of_key = self._collect_pairs()
        self._phase_bits = 0
        if np.bincount(self._keys // self.item_num, minlength=self.user_num).max() + 1 >= self.item_num:
            raise ValueError(
                "Some users have interacted with all items, "
                "which we can not sample negative items for them. "
                "Please set `user_inter_num_interval` to filter those users."
            )
        self.set_distribution(distribution)

    def _collect_pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct keys of all phases, sorted, and for each a bit mask of the phases it occurs in."""
        n_phases = len(self.phases)
        if self.user_num * self.item_num * n_phases > np.iinfo(np.int64).max:
            raise ValueError(f"{self.user_num} users and {self.item_num} items make more pairs than int64 can number.")
        codes = np.concatenate([self._keys_of(data) * n_phases + at for at, data in enumerate(self.datasets)])
        codes.sort()
        keys = codes // n_phases
        codes -= keys * n_phases
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        bits = (1 << np.arange(n_phases)).astype(np.min_scalar_type(2**n_phases - 1))
        return keys[starts], np.bitwise_or.reduceat(bits[codes], starts)

    def _keys_of(self, dataset: Any) -> np.ndarray:
        users, items = (dataset.inter_feat[field].numpy() for field in (self.uid_field, self.iid_field))
        keys: np.ndarray = users.astype(np.int64) * self.item_num + items
        return keys

    def set_phase(self, phase: str, without: Sequence[str] = ()) -> PairSampler:
        """Return the sampler of a phase.

        Args:
            phase: its pairs and those of the phases before it are used.
            without: earlier phases whose pairs are not, unless they also occur in one that counts.

        Raises:
            ValueError: there is no such phase.
        """
        if phase not in self.phases:
            raise ValueError(f"Phase [{phase}] not exist.")
        counting = range(self.phases.index(phase) + 1)
        sampler = copy.copy(self)
        # What was cached for another phase must not travel with the copy.
        for name in ("used_ids", "_table"):
            sampler.__dict__.pop(name, None)
        sampler.phase = phase
        sampler._phase_bits = sum(1 << at for at in counting if self.phases[at] not in without)
        return sampler

    @property
    def used_keys(self) -> np.ndarray:
        """The used pairs of this phase as ``user * item_num + item``, sorted, each once; made again at each call."""
        if self.phase is None:
            raise ValueError("A sampler has used pairs once set_phase has been called.")
        return self._keys[self._phases_of_key & self._phase_bits != 0]

    @cached_property
    def _table(self) -> _BitTable | _SortedPairs:
        table = _BitTable if self.user_num * self.item_num <= _MOST_BITS else _SortedPairs
        return table(self.used_keys, self.user_num, self.item_num)

    @cached_property
    def used_ids(self) -> Any:
        """RecBole's array of one set of items per user, or before :meth:`set_phase` one array per phase.

        Nothing here reads it; it is built for code that asks, and slow.
        """
        return self.get_used_ids() if self.phase is None else self._used_sets()

    def get_used_ids(self) -> dict[str, np.ndarray]:
        """Return, for each phase, RecBole's array of one set of items per user."""
        return {phase: self.set_phase(phase)._used_sets() for phase in self.phases}

    def _used_sets(self) -> np.ndarray:
        users, items = np.divmod(self.used_keys, self.item_num)
        lists = np.split(items, np.searchsorted(users, np.arange(1, self.user_num)))
        return np.array([set(row.tolist()) for row in lists])

    def _build_alias_table(self) -> None:
        """Build RecBole's table: the same items, probabilities and aliases, to the last bit."""
        drawn = np.concatenate([dataset.inter_feat[self.iid_field].numpy() for dataset in self.datasets])
        first = np.full(self.item_num, len(drawn))
        first[drawn[::-1]] = np.arange(len(drawn))[::-1]  # of equal indices, the last assignment stays
        items = np.argsort(first, kind="stable")[: np.count_nonzero(first < len(drawn))]
        counts = np.bincount(drawn, minlength=self.item_num)[items]
        # Python's power and sum, as in RecBole: NumPy's may differ in the last bit.
        weights = [(count / len(drawn)) ** self.alpha for count in counts.tolist()]
        total = sum(weights)
        keep = [weight / total * len(weights) for weight in weights]
        alias = [-1] * len(keep)
        large = deque(at for at, chance in enumerate(keep) if chance > 1)
        small = deque(at for at, chance in enumerate(keep) if chance < 1)
        while large and small:
            giver, taker = large.popleft(), small.popleft()
            alias[taker] = giver
            keep[giver] = keep[giver] - (1 - keep[taker])
            if keep[giver] < 1:
                small.append(giver)
            elif keep[giver] > 1:
                large.append(giver)
        others = np.where(np.array(alias) < 0, -1, items[alias])
        self.prob = dict(zip(items.tolist(), keep))
        self.alias = dict(zip(items.tolist(), others.tolist()))
        # Rounding leaves a few chances just below 1 without an alias, where RecBole would draw item -1.
        self._alias_table = items, np.array(keep), np.where(others < 0, items, others)

    def _pop_sampling(self, sample_num: int) -> np.ndarray:
        items, keep, others = self._alias_table
        at = np.random.randint(0, len(items), sample_num)
        chances = np.random.random(sample_num)
        return np.where(keep[at] > chances, items[at], others[at])

    def sample_by_key_ids(self, key_ids: Any, num: int) -> torch.Tensor:
        """Draw ``num`` unused items for each user.

        RecBole's two ways to find the used ones among them, for one user and for several, draw the same numbers.

        Args:
            key_ids: user ids, ``[B]``.
            num: negatives per user.

        Returns:
            Item ids, ``[num * B]``: one for each user, then the second for each, and so on.

        Raises:
            ValueError: there is no such user.
        """
        users = np.asarray(key_ids, dtype=np.int64)
        unknown = (users < 0) | (users >= self.user_num)
        if unknown.any():
            raise ValueError(f"user_id [{users[unknown][0]}] not exist.")
        users = np.tile(users, num)
        items = self.sampling(len(users)).astype(np.int64, copy=False)
        rejected = np.flatnonzero(self._table.contains(users, items))
        while len(rejected):
            drawn = self.sampling(len(rejected))
            items[rejected] = drawn
            rejected = rejected[self._table.contains(users[rejected], drawn)]
        return torch.from_numpy(items)


class _BitTable:
    """A set of (user, item) pairs as one bit for every pair there could be.

    Args:
        keys: the distinct pairs as ``user * n_items + item``, sorted.
        n_users: number of user ids.
        n_items: number of item ids.
    """

    def __init__(self, keys: np.ndarray, n_users: int, n_items: int) -> None:
        self._n_items = n_items
        self._bytes = np.zeros((n_users * n_items + 7) // 8, dtype=np.uint8)
        np.bitwise_or.at(self._bytes, keys >> 3, np.uint8(1) << (keys & 7).astype(np.uint8))

    def contains(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return for each pair, ``[B]`` and ``[B]``, whether it is in the set."""
        keys = users * self._n_items + items
        found: np.ndarray = self._bytes[keys >> 3] >> (keys & 7).astype(np.uint8) & 1 != 0
        return found


class _SortedPairs:
    """A set of (user, item) pairs of any size, searched within each user's own; arguments as :class:`_BitTable`."""

    def __init__(self, keys: np.ndarray, n_users: int, n_items: int) -> None:
        self._n_items = n_items
        # Where users have no pairs, the search ends one behind the pairs of the user before.
        self._keys = np.append(keys, np.iinfo(np.int64).max)
        self._starts = np.searchsorted(keys, np.arange(n_users + 1, dtype=np.int64) * n_items)

    def contains(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return for each pair, ``[B]`` and ``[B]``, whether it is in the set.

        All pairs are bisected together. ``np.searchsorted`` over all keys takes ten times as long at 2e7 of them: its
        steps miss the cache, those within a user do not.
        """
        keys = users * self._n_items + items
        low = self._starts[users]
        length = self._starts[users + 1] - low
        for _ in range(int(length.max(initial=0)).bit_length()):
            half = length >> 1
            low += half * (self._keys[low + half] <= keys)
            length -= half
        found: np.ndarray = self._keys[low] == keys
        return found
