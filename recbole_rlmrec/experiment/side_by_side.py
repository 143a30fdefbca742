"""The lists of a few users by two models, side by side."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from recbole_rlmrec.experiment.lists import RankedLists, ndcg_by_user

#: Items of each list that are shown.
N_SHOWN = 10

RULE = (
    "Of the users for whom either model finds something: whoever gains most NDCG by the aligned model, whoever is in "
    "the middle, and whoever loses most. Of equal ones, what comes first in the data."
)


class Chosen(NamedTuple):
    """A user whose lists are shown.

    Attributes:
        why: what of the rule the user is.
        row: place among the test users.
        base: NDCG of the base's list.
        aligned: of the aligned model's.
    """

    why: str
    row: int
    base: float
    aligned: float


def chosen_users(base: RankedLists, aligned: RankedLists) -> list[Chosen]:
    """Return the users of :data:`RULE`; nobody twice.

    Args:
        base: lists of the base.
        aligned: of the aligned model, for the same users.
    """
    of_base, of_aligned = ndcg_by_user(base), ndcg_by_user(aligned)
    rows = np.flatnonzero((of_base > 0) | (of_aligned > 0))
    rows = rows[np.lexsort((base.users[rows], of_base[rows] - of_aligned[rows]))]
    places = {"gains most": 0, "is in the middle": len(rows) // 2, "loses most": len(rows) - 1}
    found: dict[int, Chosen] = {}
    for why, place in places.items():
        if len(rows):
            row = int(rows[place])
            found.setdefault(row, Chosen(why, row, float(of_base[row]), float(of_aligned[row])))
    return list(found.values())
