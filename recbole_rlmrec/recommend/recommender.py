"""What a trained model recommends, by original ids: lists, what is alike, and single scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn.functional import normalize

from recbole_rlmrec.compat import dataset_of
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.dataset import RLMRecDataset
from recbole_rlmrec.data.loader import ItemLists
from recbole_rlmrec.encoder.text_space import TextSpace
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.arrays import ids_of, score_table, tables_of, tokens_of
from recbole_rlmrec.model.backbone.contract import Backbone
from recbole_rlmrec.model.scores import (
    ProductScorer,
    Scorer,
    evaluating,
    require_pairs,
    require_products,
    scorer_of,
)
from recbole_rlmrec.ops.topk import first_k
from recbole_rlmrec.profile.newcomers import open_text_space
from recbole_rlmrec.profile.prompt import known_title
from recbole_rlmrec.quick_start import load_model
from recbole_rlmrec.recommend.explain import EXPLAINING, N_NEAREST, Explainer, Explanation
from recbole_rlmrec.recommend.export import ExportFormat, export_tables
from recbole_rlmrec.recommend.free_text import WEIGHT, FreeText, require_weight, standardized
from recbole_rlmrec.recommend.item_index import IndexKind
from recbole_rlmrec.recommend.new_items import (
    NewItems,
    NewUser,
    as_new,
    checked_items,
    checked_users,
    require_texts,
    require_vectors,
    vectors_of,
)
from recbole_rlmrec.recommend.projector_file import check_projector, write_projector
from recbole_rlmrec.recommend.ranking import Ranked, Ranking
from recbole_rlmrec.recommend.text_map import TextMap, known_nodes, text_map_of
from recbole_rlmrec.sides import SIDES, Side
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.load import load_items
from recbole_rlmrec.training.checkpoint import newest_checkpoint
from recbole_rlmrec.wording import count, examples

_logger = logging.getLogger(__name__)

#: Length of a list where nothing else is asked for.
K = 10
#: Where items are compared: by behaviour, or by their texts.
Space = Literal["model", "text"]
#: What a block of scores may take, in MB.
MEMORY = 256.0


class Recommender:
    """Recommends by a trained model.

    Ids are those of the data files, as text. The model computes without gradients, and is afterwards in the mode,
    training or evaluation, that it was in before.

    Args:
        model: a trained model, ours or RecBole's, that scores pairs of a user and an item.
        dataset: of the model, the whole one: ``loaded.dataset`` of what ``run(...).load()`` or ``load_model`` returns.
        parts: training and validation data, as loaders or datasets, where the dataset does not know its split: those
            of RecBole's own kinds do not.
        memory: bound of what a block of scores takes, in MB. A model whose scores of one user for all items take more
            takes more.

    Raises:
        SettingError: the model scores something else, or nothing says what is for training.
    """

    def __init__(self, model: Any, dataset: Any, parts: Sequence[Any] = (), *, memory: float = MEMORY) -> None:
        require_pairs(model)
        require_memory(memory)
        known = tuple(parts) or getattr(dataset, "parts", ())
        if not known:
            raise SettingError(
                f"Nothing says which interactions of '{dataset.dataset_name}' are for training. Give the whole "
                "dataset, after it was split, or parts=(train_data, valid_data) as load_model returns them."
            )
        self.model, self.dataset = model, dataset
        #: File that the model was loaded from; None where it was not.
        self.checkpoint: Path | None = None
        self._memory = memory
        self._new: NewItems | None = None
        #: Items of the dataset that their text represents, internal ids, and what represents them; None for none.
        self._by_text: tuple[Tensor, Tensor] | None = None
        self._parts = [dataset_of(part) if hasattr(part, "_dataset") else part for part in known[:2]]

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | None = None,
        config_dict: Mapping[str, Any] | None = None,
        model: type | None = None,
        memory: float = MEMORY,
    ) -> Recommender:
        """Load the model of a checkpoint and its data.

        Args:
            path: a checkpoint that a training left in ``checkpoint_dir``.
            device: ``cpu``, ``cuda`` or ``cuda:1``; the first GPU where there is one, if not given.
            config_dict: settings over the checkpoint's own, such as another ``data_path``.
            model: the model's class, if it is neither ours nor RecBole's.
            memory: see the class.

        Raises:
            CheckpointError: the file is missing or damaged, or the data have changed since.
            SettingError: there is no such device; or see the class.
        """
        loaded = load_model(path, {**_settings_of(device), **(config_dict or {})}, model)
        recommender = cls(loaded.model, loaded.dataset, (loaded.train_data, loaded.valid_data), memory=memory)
        recommender.checkpoint = Path(path)
        return recommender

    @classmethod
    def newest(cls, model: str, dataset: str, checkpoint_dir: str | Path = "saved", **options: Any) -> Recommender:
        """Load the newest checkpoint of a model on a dataset.

        Args:
            model: class name.
            dataset: its name.
            checkpoint_dir: folder of the checkpoints.
            options: see :meth:`load`.

        Raises:
            CheckpointError: there is none; or see :meth:`load`.
        """
        return cls.load(newest_checkpoint(model, dataset, checkpoint_dir), **options)

    # ------------------------------------------------------------------ lists

    def recommend(
        self,
        users: Iterable[str],
        k: int = K,
        *,
        include_seen: bool = False,
        only_items: Iterable[str] | None = None,
        without_items: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Return the best items of some users.

        Items that a user has in the training or validation data are left out, as in RecBole's test. Of equal scores
        the item that comes first in the data is ranked first: the lists are those of a ranking of all scores.

        Args:
            users: their ids; one that is repeated has its list each time. Lists of users without a training
                interaction are chance, of which a warning is logged.
            k: items of each, at least 1; where fewer are left there are fewer.
            include_seen: whether items that a user has already are listed as well.
            only_items: ids of the items to choose from; all, if not given.
            without_items: ids of items to leave out.

        Returns:
            The columns ``user``, ``rank`` (from 1), ``item``, ``title`` (missing where unknown) and ``score``.

        Raises:
            DataError: there is no such user or item; the nearest id is named.
            SettingError: ``k`` is below 1, or no item is left to choose from.
            TrainingError: the scores are no numbers.
        """
        blocks = self.recommend_blocks(
            [users] if isinstance(users, str) else list(users),
            k,
            include_seen=include_seen,
            only_items=only_items,
            without_items=without_items,
        )
        frames = list(blocks)
        return pd.concat(frames, ignore_index=True) if frames else self._frame(_NOBODY)

    def recommend_blocks(
        self,
        users: Iterable[str] | None = None,
        k: int = K,
        *,
        include_seen: bool = False,
        only_items: Iterable[str] | None = None,
        without_items: Iterable[str] | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Yield what :meth:`recommend` returns in parts, some users at a time: for more of them than memory holds.

        What is wrong with the arguments is raised at once, not with the first part.

        Args:
            users: their ids; all, if not given.
            k: see there.
            include_seen: see there.
            only_items: see there.
            without_items: see there.
        """
        rows = np.arange(1, self.dataset.user_num) if users is None else ids_of(self.dataset, "user", users)
        require_k(k)
        choice = self._choice(only_items, without_items)
        self._warn_of_chance(rows)
        return map(self._frame, self._ranked(rows, k, choice, None if include_seen else self._seen))

    def _warn_of_chance(self, rows: np.ndarray) -> None:
        """Warn of users, ids ``[n]``, of whom the model has learned nothing."""
        cold = rows[self._training.lengths()[rows] == 0]
        if len(cold):
            some = examples(self._tokens["user"][np.unique(cold)])
            _logger.warning(
                f"{count(len(cold), 'user')} without a training interaction, such as {some}: these lists are chance."
            )

    def _ranked(self, rows: np.ndarray, k: int, items: Tensor | None, without: ItemLists | None) -> Iterator[Ranked]:
        with evaluating(self.model):
            scorer = self._scorer(items)
        yield from self._listed(scorer, rows, k, items, without)

    def _listed(
        self, scorer: Scorer, rows: np.ndarray, k: int, items: Tensor | None, without: ItemLists | None
    ) -> Iterator[Ranked]:
        blocks = Ranking(scorer, k, items, without, self._memory, type(self.model).__name__).blocks(rows)
        while True:
            # Whoever takes the blocks may train the model, or need gradients, between two of them.
            with evaluating(self.model):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def _choice(self, only: Iterable[str] | None, without: Iterable[str] | None) -> Tensor | None:
        """Return the ids of the items to choose from, ascending; None for all of them.

        Raises:
            SettingError: none is left.
        """
        if only is None and without is None:
            return None
        is_chosen = np.full(len(self._tokens["item"]), only is None)
        if only is not None:
            is_chosen[self.item_ids(only)] = True
        if without is not None:
            is_chosen[self.item_ids(without)] = False
        is_chosen[0] = False
        if not is_chosen.any():
            raise SettingError(
                "No item is left to choose from: only_items is empty, or without_items leaves out all of them."
            )
        return torch.from_numpy(np.flatnonzero(is_chosen))

    def _frame(self, block: Ranked) -> pd.DataFrame:
        return lists_frame(block, self._tokens["user"], self._tokens["item"], self.titles)

    # ------------------------------------------------------------------ what was not trained

    def add_items(self, items: Iterable[Item | Mapping[str, Any]], vectors: np.ndarray | None = None) -> list[str]:
        """Take in items that nobody has seen: from then on they are ranked together with the known ones.

        They are represented by their text, see :class:`~recbole_rlmrec.recommend.text_map.TextMap`, by the model as it
        is at this time.

        Args:
            items: items, or mappings with ``token`` and any of ``title``, ``description`` and ``attributes``.
            vectors: semantic embeddings of their texts by the dataset's encoder, float32 ``[n, D]``; made if not given,
                with those of some known items, as if they were new: the map is fitted on texts of the same kind.

        Returns:
            Their ids.

        Raises:
            DataError: an item is known already, is given twice or has no text; the vectors have another length; or the
                dataset has no embeddings.
            SettingError: the model has no representations, or scores otherwise than by their products.
        """
        rows = self.dataset.field2token_id[self.dataset.iid_field]
        given = checked_items(items, {**rows, **self._new_rows})
        text_map = self._text_map if vectors is not None else self._map_of_new_texts
        profiles: dict[str, str] = {}
        if not given:
            return []
        if vectors is None:
            vectors, profiles = vectors_of(self._text_space, self.dataset.config, given)
        vectors = np.asarray(vectors, dtype=np.float32)
        require_vectors(vectors, given)
        new = NewItems(
            np.array([item.token for item in given], dtype=object),
            np.array([known_title(item.title) or None for item in given], dtype=object),
            profiles,
            vectors,
            text_map.items(vectors),
        )
        self._new = new if self._new is None else self._new.joined(new)
        self._forget_items()
        return [item.token for item in given]

    def represent_cold_items(self) -> list[str]:
        """Have the dataset's items without a training interaction represented by their text; return their ids.

        Their trained representations are as they were initialised, and their ranks chance; a model that computes items
        from texts, such as AlphaRec, gives them too few places. Those without a semantic embedding stay as they are.

        Raises:
            SettingError: see :meth:`add_items`.
            DataError: the dataset has no embeddings.
        """
        text_map = self._map_of_new_texts
        joined = self.dataset.semantic_embedding("item")
        is_trained = np.zeros(self.dataset.item_num, dtype=bool)
        is_trained[np.asarray(self._parts[0].inter_feat[self.dataset.iid_field])] = True
        ids = np.flatnonzero(~is_trained & joined.covered)
        if len(ids):
            self._by_text = torch.from_numpy(ids), text_map.items(joined.take(ids))
            self._forget_items()
        return [str(token) for token in self._tokens["item"][ids]]

    def recommend_newcomers(
        self,
        users: Iterable[NewUser | Mapping[str, Any]],
        k: int = K,
        *,
        include_seen: bool = False,
        only_items: Iterable[str] | None = None,
        without_items: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Return the best items of users without training.

        A user with items is one step of the graph's propagation from them: the sum of their representations, each
        divided by the root of its number of training interactions. A user with a text only is represented by it, see
        :class:`~recbole_rlmrec.recommend.text_map.TextMap`.

        Args:
            users: users, or mappings with ``token`` and ``text`` or ``items``.
            k: see :meth:`recommend`.
            include_seen: whether the items that are given of a user are listed as well.
            only_items: see :meth:`recommend`.
            without_items: see :meth:`recommend`.

        Returns:
            See :meth:`recommend`; ``user`` is the token.

        Raises:
            DataError: a user has neither text nor items, or is given twice; there is no such item; or the dataset has
                no embeddings.
            SettingError: see :meth:`add_items`, or nothing is left to choose from.
        """
        require_k(k)
        given = checked_users(users)
        choice = self._choice(only_items, without_items)
        self._require_products()
        with evaluating(self.model):
            _, items = self._tables()
        rows = torch.zeros(len(given), items.shape[1], device=items.device)
        by_text = [place for place, user in enumerate(given) if not user.items]
        if by_text:
            vectors = self._text_space.vectors([given[place].text for place in by_text])
            require_texts(vectors, [given[place].token for place in by_text])
            rows[by_text] = self._text_map.users(vectors).to(rows.dtype)
        n_seen = np.bincount(np.asarray(self._parts[0].inter_feat[self.dataset.iid_field]), minlength=len(items))
        weights = torch.from_numpy(1 / np.sqrt(np.maximum(n_seen, 1))).float().to(items.device)
        keys = []
        for place, user in enumerate(given):
            if user.items:
                liked = self.item_ids(user.items)
                keys.append(place * len(items) + np.sort(liked))
                at = torch.from_numpy(liked).to(items.device)
                rows[place] = weights[at] @ items[at].float()
        everyone = np.arange(len(given))
        seen = ItemLists(np.concatenate([np.empty(0, dtype=np.int64), *keys]), everyone, len(items))
        columns = items[1:] if choice is None else items[choice.to(items.device)]
        scorer = ProductScorer(rows.to(items.dtype), columns)
        without = None if include_seen or not keys else seen
        blocks = list(self._listed(scorer, everyone, k, choice, without)) or [_NOBODY]
        tokens = np.array([user.token for user in given], dtype=object)
        frames = [lists_frame(block, tokens, self._tokens["item"], self.titles) for block in blocks]
        return pd.concat(frames, ignore_index=True)

    def item_ids(self, tokens: Iterable[str], where: Callable[[int], str] | None = None) -> np.ndarray:
        """Return internal ids of items, int64 ``[n]``; those that were added follow the dataset's.

        Args:
            tokens: original ids.
            where: see :func:`~recbole_rlmrec.model.arrays.ids_of`.

        Raises:
            DataError: there is no such item.
        """
        given = [tokens] if isinstance(tokens, str) else list(tokens)
        new = [self._new_rows.get(token, 0) if isinstance(token, str) else 0 for token in given]
        places = [place for place, row in enumerate(new) if not row]
        rows = np.array(new, dtype=np.int64)
        said = None if where is None else lambda place: where(places[place])
        rows[places] = ids_of(self.dataset, "item", [given[place] for place in places], said)
        return rows

    def _scorer(self, items: Tensor | None) -> Scorer:
        """Return what scores users by some items, see :func:`scorer_of`; within :func:`evaluating`."""
        if self._new is None and self._by_text is None:
            return scorer_of(self.model, self.dataset, items)
        users, table = self._tables()
        return ProductScorer(users, table[1:] if items is None else table[items.to(table.device)])

    def _tables(self) -> tuple[Tensor, Tensor]:
        """Return the representations of users and of all items that are ranked; within :func:`evaluating`."""
        users, items = tables_of(self.model)
        if self._by_text is not None:
            ids, rows = self._by_text
            items = items.index_copy(0, ids.to(items.device), rows.to(items))
        if self._new is not None:
            items = torch.cat([items, self._new.representations.to(items)])
        return users, items

    def _forget_items(self) -> None:
        for name in ("_tokens", "titles", "_new_rows", "_explainer", "_free_text"):
            self.__dict__.pop(name, None)

    def _require_products(self) -> None:
        with evaluating(self.model):
            consequence = "so that it cannot score what it was not trained on. Take a model such as LightGCN."
            require_products(self.model, self.dataset, tables_of(self.model), consequence)

    @cached_property
    def _new_rows(self) -> dict[str, int]:
        """Internal ids of the items that were added, by original id."""
        tokens = [] if self._new is None else self._new.tokens.tolist()
        return {token: row for row, token in enumerate(tokens, start=self.dataset.item_num)}

    def prepare_texts(self) -> None:
        """Prepare now what the first text, or the first new item, would wait for.

        Nothing happens where texts are sent to a server, or nothing says which encoder made the dataset's embeddings.
        """
        try:
            if self._text_space.asks_server:
                return
            _ = self._free_text, self._map_of_new_texts.factor
            self._text_space.vectors([self.dataset.dataset_name])  # which loads the model
        except (DataError, SettingError) as error:  # whoever gives a text gets the error
            _logger.debug(f"No text can be represented: {error}")

    @cached_property
    def _text_map(self) -> TextMap:
        """What represents texts like those that the dataset's embeddings were made from."""
        self._require_products()
        return text_map_of(self.model, self.dataset)

    @cached_property
    def _map_of_new_texts(self) -> TextMap:
        """What represents texts of new items; fitted on the dataset's embeddings where known items have no texts."""
        self._require_products()
        items = torch.as_tensor(self._parts[0].inter_feat[self.dataset.iid_field]).long()
        known, _ = known_nodes(self.dataset, "item", items)
        try:
            found = as_new(self._text_space, self.dataset.config, self.dataset, known)
        except DataError as error:
            _logger.warning(f"New items are compared with the known ones' profiles as they are: {error}")
            return self._text_map
        return text_map_of(self.model, self.dataset, found)

    # ------------------------------------------------------------------ single scores and what is alike

    def scores(self, users: Iterable[str], items: Iterable[str] | None = None) -> pd.DataFrame:
        """Return the scores of some users by some items, also of items that they have already.

        Args:
            users: ids, the rows.
            items: ids, the columns; all, if not given.

        Raises:
            DataError: there is no such user or item.
        """
        rows = ids_of(self.dataset, "user", users)
        columns = np.arange(1, len(self._tokens["item"])) if items is None else self.item_ids(items)
        ascending, place = np.unique(columns, return_inverse=True)
        values = self._scores_of(rows, ascending)
        return pd.DataFrame(values[:, place], self._tokens["user"][rows], self._tokens["item"][columns])

    def _scores_of(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return scores, float32 ``[n, m]``, of users, ids ``[n]``, by items, ascending ids ``[m]``."""
        with evaluating(self.model):
            scorer = self._scorer(torch.from_numpy(items))
            return score_table(scorer, users, self._memory * 10**6 / scorer.bytes_per_score)

    def similar_items(self, item: str, k: int = K, *, space: Space = "model") -> pd.DataFrame:
        """Return the items whose representations are nearest to that of an item.

        Args:
            item: its id.
            k: how many, at least 1; where there are fewer others, all of them.
            space: ``model`` for the model's representations, ``text`` for the dataset's semantic embeddings.

        Returns:
            The columns ``rank``, ``item``, ``title`` and ``cosine``; of equal cosines the item that comes first in the
            data is first.

        Raises:
            SettingError: there are no representations or embeddings, or ``k`` is below 1.
            DataError: there is no such item.
        """
        if space == "text":
            require_k(k)
            [row] = self.item_ids([item])
            ids, cosines = self._explainer.nearest_in_text(row, k)
        else:
            ids, cosines = self._nearest("item", item, k)
        return _ranks({"item": self._tokens["item"][ids], "title": self.titles[ids], "cosine": cosines})

    def similar_users(self, user: str, k: int = K) -> pd.DataFrame:
        """Return the users whose representations are nearest to that of a user; see :meth:`similar_items`.

        Returns:
            The columns ``rank``, ``user`` and ``cosine``.
        """
        ids, cosines = self._nearest("user", user, k)
        return _ranks({"user": self._tokens["user"][ids], "cosine": cosines})

    def _nearest(self, side: Side, token: str, k: int) -> tuple[np.ndarray, np.ndarray]:
        require_k(k)
        [row] = self.item_ids([token]) if side == "item" else ids_of(self.dataset, side, [token])
        with evaluating(self.model):
            table = self._tables()[SIDES.index(side)].float()
            cosines = normalize(table[row : row + 1]) @ normalize(table).T
            cosines[:, [0, row]] = -torch.inf
            values, ids = first_k(cosines, min(k, len(table) - 2)) if len(table) > 2 else (cosines[:, :0], None)
        if ids is None:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        return ids[0].cpu().numpy(), values[0].cpu().numpy()

    def explain(self, user: str, item: str, k: int = N_NEAREST) -> Explanation:
        """Return what speaks for an item: those of a user's training items that are nearest to it.

        Args:
            user: id.
            item: id; any item, recommended or not.
            k: training items of each space, at least 1.

        Raises:
            DataError: there is no such user or item.
            SettingError: there is nothing to explain by: neither representations, nor embeddings, nor profiles.
        """
        require_k(k)
        [explanation] = self._explanations([user], [item], k)
        return explanation

    def explained(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return lists of :meth:`recommend` with what speaks for each item, as text.

        Args:
            frame: the lists.

        Returns:
            The same with the columns ``near_in_model``, ``near_in_text`` and ``profile``, missing where there is none.

        Raises:
            SettingError: see :meth:`explain`.
        """
        found = self._explanations(frame["user"], frame["item"], N_NEAREST)
        texts = {name: [getattr(each, name) for each in found] for name in EXPLAINING}
        return frame.assign(**{name: np.array(column, dtype=object) for name, column in texts.items()})

    def _explanations(self, users: Iterable[str], items: Iterable[str], k: int) -> list[Explanation]:
        rows, columns = ids_of(self.dataset, "user", users), self.item_ids(items)
        with evaluating(self.model):
            return self._explainer.explanations(rows, columns, k)

    # ------------------------------------------------------------------ for a sentence

    def query(
        self,
        text: str,
        k: int = K,
        *,
        user: str | None = None,
        weight: float = WEIGHT,
        include_seen: bool = False,
        only_items: Iterable[str] | None = None,
        without_items: Iterable[str] | None = None,
    ) -> pd.DataFrame:
        """Return the best items for a sentence, or for a user who types it.

        See :class:`~recbole_rlmrec.recommend.free_text.FreeText` for the score of a sentence. With a user, both scores
        are standardised over the items to choose from, and the mixed one is ``(1 - weight) * user + weight * text``.
        Items without a semantic embedding are left out. Of equal scores the item that comes first in the data is first.

        Args:
            text: such as "slow historical novels with a family secret".
            k: items at most, at least 1.
            user: id of a user.
            weight: from 0, the user alone, to 1, the text alone; without a user it changes nothing.
            include_seen: see :meth:`recommend`; without a user it changes nothing.
            only_items: see there.
            without_items: see there.

        Returns:
            The columns ``rank`` (from 1), ``item``, ``title`` (missing where unknown) and ``score``.

        Raises:
            DataError: the text is empty, too long, or holds no word that the encoder knows; the dataset has no semantic
                embeddings, or nothing says which encoder they are by; there is no such user or item.
            ServiceError: the encoder's server cannot be reached.
            SettingError: ``k`` or ``weight`` is out of range, no item is left to choose from, or the encoder's package
                is not installed.
            TrainingError: the model's scores are no numbers.
        """
        require_k(k)
        require_weight(weight)
        is_left = self._free_text.covered.copy()
        choice = self._choice(only_items, without_items)
        if choice is not None:
            is_chosen = np.zeros_like(is_left)
            is_chosen[choice] = True
            is_left &= is_chosen
        rows = None if user is None else ids_of(self.dataset, "user", [user])
        if rows is not None and not include_seen:
            is_left[self._seen.of(torch.from_numpy(rows))[1]] = False
        ids = np.flatnonzero(is_left)
        scores = self._free_text.scores(text)[ids]
        if rows is not None and len(ids):
            self._warn_of_chance(rows)
            scores = (1 - weight) * standardized(self._scores_of(rows, ids)[0]) + weight * standardized(scores)
        order = np.argsort(-scores, kind="stable")[:k]
        ids = ids[order]
        found = {"item": self._tokens["item"][ids], "title": self.titles[ids]}
        return _ranks({**found, "score": scores[order].astype(np.float32)})

    @cached_property
    def _free_text(self) -> FreeText:
        if not isinstance(self.dataset, RLMRecDataset):
            raise SettingError(
                f"'{self.dataset.dataset_name}' was not read by this package, so it has no semantic embeddings, which "
                "a text is compared with. Give the dataset that load_model returns."
            )
        table = None
        if isinstance(self.model, Backbone):
            with evaluating(self.model):
                table = self._tables()[1].float().cpu().numpy()
        new = None if self._new is None else self._new.vectors
        return FreeText(self._text_space, self.dataset.semantic_embedding("item"), table, new)

    @cached_property
    def _text_space(self) -> TextSpace:
        return open_text_space(self.dataset.config)

    # ------------------------------------------------------------------ for other programs

    def export(
        self,
        folder: str | Path,
        format: ExportFormat = "npy",
        *,
        index: IndexKind | None = None,
        overwrite: bool = False,
    ) -> dict[str, Any]:
        """Write the representations of all users and items, float32 ``[n, d]``, with their ids, for other programs.

        The score of a user and an item is the inner product of their vectors. An interrupted export leaves nothing.

        Args:
            folder: of the files; made if missing. ``meta.json`` says what they are and where they come from.
            format: ``npy``, the files that semantic embeddings have; ``parquet`` with the columns ``id``, ``title``
                (items) and ``vector``; or ``safetensors`` with the tensors ``users`` and ``items``, the ids beside.
            index: ``usearch`` for an approximate index of the items as well.
            overwrite: replace files that are there.

        Returns:
            What ``meta.json`` says; ``["index"]["recall@10"]`` is what the index finds of the ten best items of up to
            1,000 users.

        Raises:
            SettingError: the model has no representations, or scores otherwise; there is no such format or index, or
                what it needs is not installed.
            DataError: a file is there already, or cannot be written.
            TrainingError: a representation is no number.
        """
        with evaluating(self.model):
            return export_tables(
                folder,
                self.model,
                self.dataset,
                format,
                titles=self.titles if format == "parquet" else None,
                checkpoint=self.checkpoint,
                index=index,
                overwrite=overwrite,
                memory=self._memory,
            )

    def export_projector(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the projector from semantic embeddings, ``[n, D]``, to representations, ``[n, d]``, as one file.

        It is the same for users and items, and runs without this package.

        Args:
            path: ends with ``.pt`` for TorchScript, which ``torch.jit.load`` reads, or with ``.onnx``.
            overwrite: replace a file that is there.

        Raises:
            SettingError: the model has none, the ending is another, or what it needs is not installed.
            DataError: the file is there already.
            OSError: it cannot be written.
        """
        check_projector(path, overwrite=overwrite)
        write_projector(path, self.model)

    # ------------------------------------------------------------------ what is known of the data

    def history(self, user: str) -> pd.DataFrame:
        """Return the items that a user has in the training and validation data: those that lists leave out.

        Args:
            user: id.

        Returns:
            The columns ``item`` and ``title``, in the order of the items' ids in the data.

        Raises:
            DataError: there is no such user.
        """
        rows = torch.from_numpy(ids_of(self.dataset, "user", [user]))
        items = self._seen.of(rows)[1].numpy()
        return pd.DataFrame({"item": self._tokens["item"][items], "title": self.titles[items]})

    @cached_property
    def titles(self) -> np.ndarray:
        """Titles by internal item id, objects ``[items]``; None where unknown.

        They are those that ``build-semantics`` writes into profiles.
        """
        titles = self._dataset_titles()
        return titles if self._new is None else np.concatenate([titles, self._new.titles])

    def _dataset_titles(self) -> np.ndarray:
        titles = np.full(self.dataset.item_num, None, dtype=object)
        config = self.dataset.config
        if not isinstance(config, RLMRecConfig):
            return titles
        tokens = self._tokens["item"][: len(titles)]
        try:
            known = load_items(config, tokens[1:].tolist())
        except DataError as error:
            _logger.warning(f"Titles are left out: {error}")
            return titles
        for row, token in enumerate(tokens):
            if token in known:
                titles[row] = known_title(known[token].title) or None
        return titles

    @cached_property
    def _tokens(self) -> dict[Side, np.ndarray]:
        """Original ids by internal id; ``[PAD]`` is never asked for."""
        known = {side: np.concatenate([[None], tokens_of(self.dataset, side)]) for side in SIDES}
        if self._new is not None:
            known["item"] = np.concatenate([known["item"], self._new.tokens])
        return known

    @cached_property
    def _training(self) -> ItemLists:
        return self._items_of(self._parts[:1])

    @cached_property
    def _seen(self) -> ItemLists:
        return self._items_of(self._parts)

    def _items_of(self, parts: Sequence[Any]) -> ItemLists:
        """Return the items of each user in some parts, each once."""
        fields = self.dataset.uid_field, self.dataset.iid_field
        keys = []
        for part in parts:
            users, items = (np.asarray(part.inter_feat[field]).astype(np.int64) for field in fields)
            keys.append(users * self.dataset.item_num + items)
        everyone = np.arange(self.dataset.user_num)
        return ItemLists(np.unique(np.concatenate(keys)), everyone, self.dataset.item_num)

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self.model, self.dataset, self._training, self._tokens["item"], self.titles, self._new)


_NOBODY = Ranked(*(np.empty(0, dtype=kind) for kind in (np.int64, np.int64, np.int64, np.float32)))


def lists_frame(block: Ranked, users: np.ndarray, items: np.ndarray, titles: np.ndarray) -> pd.DataFrame:
    """Return lists as a table, see :meth:`Recommender.recommend`.

    Args:
        block: the lists.
        users: original ids by internal id.
        items: the same.
        titles: titles of the items likewise.
    """
    n_before = np.cumsum(block.lengths) - block.lengths
    return pd.DataFrame(
        {
            "user": np.repeat(users[block.users], block.lengths),
            "rank": np.arange(len(block.items)) - np.repeat(n_before, block.lengths) + 1,
            "item": items[block.items],
            "title": titles[block.items],
            "score": block.scores,
        }
    )


def require_k(k: int) -> None:
    """Check the length of a list.

    Raises:
        SettingError: it is no whole number, or below 1.
    """
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise SettingError(f"k={k!r}: expected a whole number from 1, such as {K}.")


def require_memory(memory: float) -> None:
    """Check the bound of a block of scores, in MB.

    Raises:
        SettingError: it is no number above 0.
    """
    if not 0 < memory < float("inf"):
        raise SettingError(f"memory={memory!r}: expected a number of MB above 0, such as {MEMORY:g}.")


def _ranks(columns: Mapping[str, np.ndarray]) -> pd.DataFrame:
    n_rows = len(next(iter(columns.values())))
    return pd.DataFrame({"rank": np.arange(1, n_rows + 1), **columns})


def _settings_of(device: str | None) -> dict[str, Any]:
    """Return the settings that choose a device.

    Raises:
        SettingError: there is no such device.
    """
    if device == "cpu":
        return {"use_gpu": False}
    kind, _, number = (device or "cuda:0").partition(":")
    is_known = kind == "cuda" and (number or "0").isdigit()
    if device is not None and not (is_known and int(number or 0) < torch.cuda.device_count()):
        raise SettingError(
            f"device={device!r}: expected cpu, or one of {count(torch.cuda.device_count(), 'GPU')} that torch finds "
            "(cuda:0, ...)."
        )
    return {"use_gpu": True, "gpu_id": number or "0"}
