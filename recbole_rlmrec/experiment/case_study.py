"""Users far from each other in the graph whom alignment brings together, as in Figure 6 of the paper."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_matrix

#: Pairs that are shown, training interactions that each of their users has at least, and hops between them.
N_PAIRS, LEAST, HOPS = 3, 5, 3

#: Users whose neighbours are sought; of more, evenly spaced ones by their place in the data.
MOST_USERS = 20_000

#: So many similarities are held at a time.
_BLOCK = 2**22

#: How the pairs are chosen.
RULE = (
    f"Users with {LEAST} or more training interactions. Of each, the user nearest by the aligned model (cosine of the "
    f"representations) among those more than {HOPS} hops away in the graph of training interactions. Of these pairs, "
    f"the {N_PAIRS} that gain most ranks: the rank by the base less that by the aligned model, 1 for the nearest of "
    "all users. Nobody is in two pairs; of equal gains, what comes first in the data."
)


@dataclass(frozen=True)
class Pair:
    """Two users whom alignment brings together.

    Attributes:
        user: internal id of one.
        other: of the other.
        base_similarity: cosine of their representations by the base.
        similarity: the same by the aligned model.
        base_rank: place of the other among all users by similarity to the first, from 1, by the base.
        rank: the same by the aligned model.
    """

    user: int
    other: int
    base_similarity: float
    similarity: float
    base_rank: int
    rank: int

    @property
    def gain(self) -> int:
        """Ranks that the other one gains."""
        return self.base_rank - self.rank


def brought_together(base: np.ndarray, aligned: np.ndarray, training: csr_matrix) -> list[Pair]:
    """Return the pairs of users of :data:`RULE`; fewer where there are no more that gain.

    Time grows with the number of users squared, up to :data:`MOST_USERS`, memory with the number of users.

    Args:
        base: representations of all users by the base, ``[U, d]``, ``[PAD]`` first.
        aligned: the same by the aligned model, ``[U, d']``.
        training: training interactions, ``[U, I]``, ones.
    """
    base, aligned = unit(base), unit(aligned)
    degrees = np.diff(training.indptr)
    chosen = np.flatnonzero(degrees >= LEAST)
    is_far_enough = np.zeros(len(degrees), dtype=bool)
    is_far_enough[chosen] = True
    if len(chosen) > MOST_USERS:
        chosen = chosen[np.linspace(0, len(chosen) - 1, MOST_USERS).astype(int)]
    found: list[Pair] = []
    size = max(1, _BLOCK // len(degrees))
    by_item = training.T.tocsr()
    for first in range(0, len(chosen), size):
        found += _nearest_far(base, aligned, training, by_item, chosen[first : first + size], is_far_enough)
    found.sort(key=lambda pair: (-pair.gain, pair.user, pair.other))
    taken: set[int] = set()
    pairs: list[Pair] = []
    for pair in found:
        if len(pairs) < N_PAIRS and pair.gain > 0 and not {pair.user, pair.other} & taken:
            pairs.append(pair)
            taken |= {pair.user, pair.other}
    return pairs


def _nearest_far(
    base: np.ndarray,
    aligned: np.ndarray,
    training: csr_matrix,
    by_item: csr_matrix,
    users: np.ndarray,
    may_be: np.ndarray,
) -> list[Pair]:
    """Return each user's pair, the nearest of those far away; none of users from whom nobody is."""
    similarity, base_similarity = aligned[users] @ aligned[1:].T, base[users] @ base[1:].T
    own = np.arange(len(users)), users - 1
    similarity[own] = base_similarity[own] = -np.inf  # nobody is compared with himself
    # A user's hops to another are two or more, and even: more than three are those who have no item in common.
    near = (training[users] @ by_item).tocoo()
    far = similarity.copy()
    far[near.row, near.col - 1] = -np.inf
    far[:, ~may_be[1:]] = -np.inf
    others = far.argmax(axis=1)
    rows = np.arange(len(users))
    of_pair, base_of_pair = similarity[rows, others], base_similarity[rows, others]
    ranks = 1 + (similarity > of_pair[:, None]).sum(axis=1)
    base_ranks = 1 + (base_similarity > base_of_pair[:, None]).sum(axis=1)
    return [
        Pair(
            int(users[row]),
            int(others[row]) + 1,
            float(base_of_pair[row]),
            float(of_pair[row]),
            int(base_ranks[row]),
            int(ranks[row]),
        )
        for row in rows[np.isfinite(far[rows, others])]
    ]


def hops_between(training: csr_matrix, user: int, other: int) -> int | None:
    """Return how many hops one user is from another in the graph of training interactions; None if there is no way.

    Args:
        training: interactions, ``[U, I]``, ones.
        user: internal id.
        other: the same.
    """
    reached = np.zeros(training.shape[0], dtype=bool)
    reached[user] = True
    frontier, hops = reached.copy(), 0
    while frontier.any():
        if reached[other]:
            return hops
        items = training.T @ frontier.astype(np.float32) > 0
        frontier = (training @ items.astype(np.float32) > 0) & ~reached
        reached |= frontier
        hops += 2
    return None


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors, float32 ``[n, d]``, of length 1; those of zeros stay so."""
    vectors = np.asarray(vectors, dtype=np.float32)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
