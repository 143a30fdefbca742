"""What speaks for a recommended item: the user's training items nearest to it, by behaviour and by text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.data.embedding_files import stem_of, table_prefix
from recbole_rlmrec.data.loader import ItemLists
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.arrays import table_of
from recbole_rlmrec.model.backbone.contract import Backbone
from recbole_rlmrec.profile.record import iter_profiles, profiles_path
from recbole_rlmrec.recommend.new_items import NewItems
from recbole_rlmrec.sides import Side

#: So many training items of a user are shown of each space.
N_NEAREST = 3

#: What an :class:`Explanation` says, as text.
EXPLAINING = ("near_in_model", "near_in_text", "profile")


class Near(NamedTuple):
    """A training item of the user, and the cosine between it and the item that is explained."""

    item: str
    title: str | None
    cosine: float


@dataclass(frozen=True)
class Explanation:
    """What speaks for an item.

    Attributes:
        user: its id.
        item: its id.
        title: of the item; None where unknown.
        in_model: the user's training items nearest to it by the model's representations, the nearest first; None where
            the model has none.
        in_text: the same by the semantic embeddings; None where there are none, or none of the item.
        profile: text of the item's profile; None where there is none.
    """

    user: str
    item: str
    title: str | None
    in_model: tuple[Near, ...] | None
    in_text: tuple[Near, ...] | None
    profile: str | None

    @property
    def near_in_model(self) -> str | None:
        """``in_model`` in a line."""
        return _line(self.in_model)

    @property
    def near_in_text(self) -> str | None:
        """``in_text`` in a line."""
        return _line(self.in_text)


def _line(near: Sequence[Near] | None) -> str | None:
    """Return some items in a line; None without any.

    >>> _line((Near("50", "Star Wars", 0.912), Near("7", None, 0.5)))
    '50 (Star Wars) 0.91; 7 0.50'
    """
    if not near:
        return None
    return "; ".join(f"{item}{f' ({title})' if title else ''} {cosine:.2f}" for item, title, cosine in near)


class Explainer:
    """Explains pairs of users and items.

    Args:
        model: of the recommender.
        dataset: of the model, the whole one.
        training: training items by user.
        tokens: original item ids by internal id.
        titles: titles by internal id.
        new: items that were added, whose ids follow the dataset's; None for none.
    """

    def __init__(
        self,
        model: Any,
        dataset: Any,
        training: ItemLists,
        tokens: np.ndarray,
        titles: np.ndarray,
        new: NewItems | None = None,
    ) -> None:
        self._model, self._dataset, self._training, self._new = model, dataset, training, new
        self._tokens, self._titles = tokens, titles

    def nearest_in_text(self, item: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the items whose semantic embeddings are nearest to that of an item.

        Args:
            item: internal id.
            k: how many; where fewer others have an embedding, all of them.

        Returns:
            Internal ids and cosines, ``[n]`` each, the nearest first; of equal ones what comes first in the data is
            first.

        Raises:
            SettingError: the dataset has no embeddings, or none of the item.
            DataError: they are malformed.
        """
        joined, vector = self._embeddings, self._vector(item)
        if joined is None or vector is None:
            raise SettingError(
                f"'{self._dataset.dataset_name}' has no semantic embedding of the item {str(self._tokens[item])!r}; "
                "build-semantics makes them."
            )
        [wanted] = _unit(vector[None])
        added = np.empty((0, len(wanted)), dtype=np.float32) if self._new is None else self._new.vectors
        known = (*joined.blocks(), (self._dataset.item_num + np.arange(len(added)), added))
        blocks = [(ids, _unit(np.asarray(vectors, dtype=np.float32)) @ wanted) for ids, vectors in known]
        ids, cosines = (np.concatenate(parts) for parts in zip(*blocks))
        is_other = ids != item
        ids, cosines = ids[is_other], cosines[is_other]
        order = np.lexsort((ids, -cosines))[:k]
        return ids[order], cosines[order]

    def explanations(self, users: np.ndarray, items: np.ndarray, k: int) -> list[Explanation]:
        """Explain pairs; the model is in evaluation mode, without gradients.

        Args:
            users: internal ids, int64 ``[n]``.
            items: the same.
            k: training items of each space.

        Raises:
            SettingError: there is nothing to explain by.
        """
        table = table_of(self._model, "item") if isinstance(self._model, Backbone) else None
        if table is not None and self._new is not None:
            table = torch.cat([table, self._new.representations.to(table)])
        if table is None and self._embeddings is None and not self._profiles:
            raise SettingError(
                f"There is nothing to explain by: {type(self._model).__name__} has no representations, and "
                f"'{self._dataset.dataset_name}' neither embeddings nor profiles of items, which build-semantics makes."
            )
        found = []
        owner, history = self._training.of(torch.from_numpy(users))
        ends = torch.bincount(owner, minlength=len(users)).cumsum(0).tolist()
        for user, item, first, last in zip(users.tolist(), items.tolist(), [0, *ends], ends):
            others = history[first:last].numpy()
            others = others[others != item]
            token = self._tokens[item]
            in_model = None
            if table is not None:
                vectors = table[torch.from_numpy(np.append(others, item)).to(table.device)].float().cpu().numpy()
                in_model = self._nearest(others, vectors, k)
            found.append(
                Explanation(
                    user=str(self._dataset.id2token(self._dataset.uid_field, user)),
                    item=str(token),
                    title=self._titles[item],
                    in_model=in_model,
                    in_text=self._in_text(others, item, k),
                    profile=self._profiles.get(str(token)),
                )
            )
        return found

    def _vector(self, item: int) -> np.ndarray | None:
        """Return the semantic embedding of an item, ``[D]``; None where there is none."""
        joined, n_known = self._embeddings, self._dataset.item_num
        if self._new is not None and item >= n_known:
            vector: np.ndarray = self._new.vectors[item - n_known]
            return vector
        return joined.take(np.array([item]))[0] if joined is not None and joined.covered[item] else None

    def _in_text(self, others: np.ndarray, item: int, k: int) -> tuple[Near, ...] | None:
        joined, vector = self._embeddings, self._vector(item)
        if joined is None or vector is None:
            return None
        others = others[joined.covered[others]]
        return self._nearest(others, np.vstack([joined.take(others), vector]), k)

    def _nearest(self, others: np.ndarray, vectors: np.ndarray, k: int) -> tuple[Near, ...]:
        """Return the k items that are nearest; of those equally near, what comes first in the data is first.

        Args:
            others: internal ids, ascending, ``[n]``.
            vectors: theirs, and that of the item to be explained last, ``[n + 1, d]``.
            k: how many.
        """
        vectors = _unit(vectors)
        cosines = vectors[:-1] @ vectors[-1]
        order = np.argsort(-cosines, kind="stable")[:k]
        return tuple(Near(str(self._tokens[others[n]]), self._titles[others[n]], float(cosines[n])) for n in order)

    @cached_property
    def _embeddings(self) -> Any:
        """The items' semantic embeddings, joined to the ids; None where the dataset has none.

        Raises:
            DataError: they are malformed.
        """
        if not isinstance(self._dataset, RLMRecDataset):
            return None
        config = self._dataset.config
        stem, find = stem_of(table_prefix(config), "item"), config.find_data_file
        is_there = any(find(name) is not None for name in (f"{stem}.npy", stem))
        return self._dataset.semantic_embedding("item") if is_there else None

    @cached_property
    def _profiles(self) -> Mapping[str, str]:
        return {**profiles_of(self._dataset, "item"), **({} if self._new is None else self._new.profiles)}


def profiles_of(dataset: Any, side: Side) -> dict[str, str]:
    """Return the texts of the profiles of users or items by token; empty where there is no file of them.

    Raises:
        DataError: the file is malformed.
    """
    if not isinstance(dataset.config, RLMRecConfig):
        return {}
    path = dataset.config.find_data_file(profiles_path(Path(), dataset.dataset_name, side).name)
    return {} if path is None else {each.token: each.profile for each in iter_profiles(path)}


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors, ``[n, d]``, of length 1; those of zeros stay so."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
