"""One scale for the scores of trained items and of items that are represented by their text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

#: Length of the lists whose places are counted, and so many users have one.
PLACES, N_USERS = 20, 1000
#: Users whose scores are computed at a time.
_BLOCK = 100
#: The factor lies between this and its inverse.
_LARGEST = 32.0
_N_STEPS = 40


class Fold(NamedTuple):
    """Some known items that are taken for new ones.

    Attributes:
        items: their places among the known items, int64 ``[m]``.
        share: of the interactions that lists are to find, those with these items.
    """

    items: Tensor
    share: float


def factor_of_places(
    users: Tensor, items: Tensor, by_text: Tensor, seen: tuple[Tensor, Tensor], folds: Sequence[Fold]
) -> float:
    """Return what representations by text are multiplied by, so that such items have their share of the places.

    In each fold the fold's items are new: they are represented by their text, by a map that was not fitted on them, and
    nobody has seen them; the others are as trained, and a user's training items among them are left out of the list.

    Args:
        users: representations of some users, ``[B, d]``.
        items: of the known items, as trained, ``[M, d]``.
        by_text: of the same items by their text, each by a map fitted without it, ``[M, d]``.
        seen: rows of users and places of their training items, int64 ``[n]`` each; sorted by row.
        folds: of the known items.
    """
    trained: list[list[Tensor]] = [[] for _ in folds]
    new: list[list[Tensor]] = [[] for _ in folds]
    for first in range(0, len(users), _BLOCK):
        block = users[first : first + _BLOCK]
        inside = (seen[0] >= first) & (seen[0] < first + len(block))
        scores, of_texts = block @ items.T, block @ by_text.T
        scores[seen[0][inside] - first, seen[1][inside]] = -torch.inf
        for number, fold in enumerate(folds):
            others = scores.index_fill(1, fold.items, -torch.inf)
            trained[number].append(others.topk(min(PLACES, others.shape[1])).values)
            texts = of_texts.index_select(1, fold.items)
            new[number].append(texts.topk(min(PLACES, texts.shape[1])).values)
    pairs = [(torch.cat(old), torch.cat(fresh)) for old, fresh in zip(trained, new)]
    wanted = sum(fold.share for fold in folds)
    low, high = 1 / _LARGEST, _LARGEST
    for _ in range(_N_STEPS):
        factor = (low * high) ** 0.5
        if sum(share_of_places(old, factor * fresh) for old, fresh in pairs) < wanted:
            low = factor
        else:
            high = factor
    return factor


def share_of_places(trained: Tensor, new: Tensor) -> float:
    """Return the share of new items in the first places.

    Args:
        trained: the best scores of trained items, ``[B, PLACES]``.
        new: the same of new items, ``[B, m]``.

    >>> share_of_places(torch.arange(20.0).unsqueeze(0), torch.tensor([[30.0, 9.5, -1.0]]))
    0.1
    """
    both = torch.cat([trained, new], dim=1)
    places = both.topk(min(PLACES, both.shape[1])).indices
    return float((places >= trained.shape[1]).double().mean())
