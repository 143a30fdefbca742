"""What a trained model puts into the test users' lists, kept in a file: every metric of the lists follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_rlmrec.compat import dataset_of
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.scores import CalledScorer
from recbole_rlmrec.reading.regular import open_regular
from recbole_rlmrec.training.evaluation import ScoreCheck
from recbole_rlmrec.training.popularity import PopularityRanking


@dataclass(frozen=True)
class RankedLists:
    """The best items of each test user, and what the users chose; ids are RecBole's internal ones.

    Attributes:
        users: ids of the test users, int32 ``[n]``.
        lists: items of each, the best first, without what the protocol leaves out, int32 ``[n, k]``.
        popular: the same of the popularity ranking.
        rows: position in ``users`` of each test interaction, int32 ``[m]``.
        items: item of each, int32 ``[m]``.
        user_counts: training interactions of all users by id, int32 ``[U]``.
        item_counts: training interactions of all items by id, int32 ``[I]``.
    """

    users: np.ndarray
    lists: np.ndarray
    popular: np.ndarray
    rows: np.ndarray
    items: np.ndarray
    user_counts: np.ndarray
    item_counts: np.ndarray

    @property
    def k(self) -> int:
        """Length of the lists."""
        return int(self.lists.shape[1])

    def hits(self) -> np.ndarray:
        """Return the position of each test interaction's item in the user's list, int ``[m]``; ``k`` if absent."""
        is_there = self.lists[self.rows] == self.items[:, None]
        return np.where(is_there.any(axis=1), is_there.argmax(axis=1), self.k)

    def write(self, path: str | Path) -> None:
        """Write the tables to an ``.npz`` file."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def read(cls, path: str | Path) -> RankedLists:
        """Read what :meth:`write` wrote.

        Raises:
            DataError: the file is damaged, or something else.
        """
        try:
            with open_regular(path) as file, np.load(file, allow_pickle=False) as tables:
                found = {each.name: tables[each.name] for each in fields(cls)}
        # A damaged archive makes NumPy raise nearly anything: BadZipFile, zlib.error, ValueError, KeyError, EOFError.
        except Exception as error:
            raise DataError(
                f"'{path}' does not hold a model's lists ({type(error).__name__}: {error}). Remove it: it is made "
                "again."
            ) from error
        return cls(**found)


def lists_of(model: Any, train_data: Any, test_data: Any, k: int) -> RankedLists:
    """Rank all items for the test users, under the protocol of the test.

    Args:
        model: trained, in evaluation mode.
        train_data: loader of the training interactions.
        test_data: loader of the test, full-sort.
        k: length of the lists.

    Raises:
        TrainingError: a score is NaN or infinite.
    """
    training = dataset_of(train_data)
    users, items = (training.inter_feat[field].numpy() for field in (training.uid_field, training.iid_field))
    popularity = PopularityRanking(training.iid_field, training.inter_feat[training.iid_field], training.item_num)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("users", "lists", "popular", "rows", "items")}
    n_users = 0
    scorer = CalledScorer(model, training, None)  # which also scores pairs, for models that know no other way
    with torch.no_grad():
        for asked, history, rows, sought in test_data:
            n = len(asked)
            scores = scorer.block(asked[training.uid_field], 0, scorer.n_columns)
            parts["users"].append(asked[training.uid_field].numpy())
            parts["lists"].append(ranked_items(torch.nn.functional.pad(scores, (1, 0)), history, k))
            parts["popular"].append(ranked_items(popularity.scores.repeat(n, 1), history, k))
            parts["rows"].append(np.asarray(rows) + n_users)
            parts["items"].append(np.asarray(sought))
            n_users += n
    joined = {name: np.concatenate(found).astype(np.int32) for name, found in parts.items()}
    counts = (np.bincount(users, minlength=training.user_num), np.bincount(items, minlength=training.item_num))
    return RankedLists(**joined, user_counts=counts[0].astype(np.int32), item_counts=counts[1].astype(np.int32))


def ranked_items(scores: torch.Tensor, history: Any, k: int) -> np.ndarray:
    """Return the k best items of each user, ``[users, k]``, without ``[PAD]`` and what the protocol leaves out.

    Args:
        scores: ``[users, items]``; overwritten.
        history: index of the scores that the protocol leaves out; None for none.
        k: how many.

    Raises:
        TrainingError: a score is NaN or infinite.
    """
    check = ScoreCheck()
    evaluate: Callable[[Any], Any] = lambda batch: (None, scores)  # noqa: E731 - the form that RecBole's trainer has
    check.full_sort(evaluate, (None, history))
    check.require_finite("this model", "in this block")
    scores[:, 0] = -torch.inf
    found: np.ndarray = scores.topk(min(k, scores.shape[1] - 1), dim=1).indices.cpu().numpy()
    return found


def recall_by_user(lists: RankedLists) -> np.ndarray:
    """Return each user's recall, float64 ``[n]``, as RecBole computes it."""
    found = lists.hits() < lists.k
    n = len(lists.users)
    recall: np.ndarray = np.bincount(lists.rows, weights=found, minlength=n) / np.bincount(lists.rows, minlength=n)
    return recall


def ndcg_by_user(lists: RankedLists) -> np.ndarray:
    """Return each user's NDCG, float64 ``[n]``, as RecBole computes it: the best is a list of hits alone."""
    n = len(lists.users)
    discounts = np.append(1 / np.log2(np.arange(2, lists.k + 2)), 0.0)
    gained = np.bincount(lists.rows, weights=discounts[lists.hits()], minlength=n)
    best = np.append(0.0, discounts[: lists.k].cumsum())
    ndcg: np.ndarray = gained / best[np.minimum(np.bincount(lists.rows, minlength=n), lists.k)]
    return ndcg


#: Metrics that are tested user by user, at the length of the lists.
BY_USER: dict[str, Callable[[RankedLists], np.ndarray]] = {"recall": recall_by_user, "ndcg": ndcg_by_user}
