"""The ranking by popularity, the same for every user but for what is masked: what a model has to rise above."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.evaluator.register import metrics_dict
from torch import Tensor, nn

from recbole_rlmrec.training.stopping import Margin

#: Metrics whose value for a user follows from hits and the number of items to be found, and from hits alone.
_OF_HITS_AND_COUNTS = frozenset({"recall", "ndcg", "map"})
_OF_HITS = frozenset({"hit", "mrr", "precision"})


class PopularityRanking(nn.Module):
    """Scores each item by its number of training interactions; of equal items the first one in the file is first.

    Args:
        item_field: name of the items' ids in a batch.
        items: item ids of the training interactions, ``[n]``.
        n_items: number of item ids, ``[PAD]`` among them.
    """

    scores: Tensor

    def __init__(self, item_field: str, items: Tensor, n_items: int) -> None:
        super().__init__()
        self._item_field = item_field
        order = torch.bincount(items, minlength=n_items).argsort(descending=True, stable=True)
        # Ranks instead of counts: float32 distinguishes them all.
        scores = torch.empty(n_items).index_put_((order,), torch.arange(n_items, 0, -1, dtype=torch.float32))
        self.register_buffer("scores", scores, persistent=False)

    def predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given user-item pairs, ``[B]``."""
        return self.scores[interaction[self._item_field]]

    def full_sort_predict(self, interaction: Any) -> Tensor:
        """Return the scores of the given users for all items, flattened to ``[B * I]``."""
        return self.scores.repeat(len(interaction))


def is_by_user(metric: str) -> bool:
    """Return whether a metric, such as ``Recall@20``, is a mean over the users of what their hits say.

    >>> is_by_user("Recall@20"), is_by_user("GAUC")
    (True, False)
    """
    name, _, k = metric.lower().partition("@")
    return k.isdigit() and name in _OF_HITS_AND_COUNTS | _OF_HITS


def score_by_user(config: Any, metric: str, hits: Tensor | None) -> np.ndarray | None:
    """Return a metric's value for each user, ``[users]``; None for a metric that is no mean over users of hits.

    Args:
        config: the run's configuration.
        metric: such as ``Recall@20``.
        hits: ``[users, k + 1]``, from :func:`~recbole_rlmrec.training.evaluation.hits_and_counts`.
    """
    name, _, k = metric.lower().partition("@")
    if hits is None or not is_by_user(metric):
        return None
    is_hit, counts = hits[:, :-1].bool().numpy(), hits[:, -1].numpy()
    computed = metrics_dict[name](config)
    table = computed.metric_info(is_hit, counts) if name in _OF_HITS_AND_COUNTS else computed.metric_info(is_hit)
    column: np.ndarray = np.asarray(table, dtype=np.float64)[:, int(k) - 1].copy()
    return column


def margin_over(reference: np.ndarray, scores: np.ndarray) -> Margin:
    """Return how far ``scores`` lie from ``reference``, both ``[users]``, user by user."""
    difference = scores - reference
    error = float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else float("inf")
    return Margin(float(reference.mean()), float(difference.mean()), error)
