"""Neighbours in the training graph: one drawn at random, and means over all of them."""

from __future__ import annotations

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn


class Neighbours(nn.Module):
    """Who is one step away from each node of one side: the users of items, or the items of users.

    Args:
        nodes: internal id of each training interaction's node of the side, int64 ``[E]``.
        others: that of the other side, ``[E]``; a pair that occurs twice counts once.
        n_nodes: nodes of the side, ``[PAD]`` included.
    """

    starts: Tensor
    others: Tensor

    def __init__(self, nodes: np.ndarray, others: np.ndarray, n_nodes: int) -> None:
        super().__init__()
        pairs = np.unique(np.stack([nodes, others]), axis=1)
        counts = np.bincount(pairs[0], minlength=n_nodes)
        self.register_buffer("starts", torch.from_numpy(np.concatenate([[0], counts.cumsum()])), persistent=False)
        self.register_buffer("others", torch.from_numpy(pairs[1]), persistent=False)

    def draw(self, ids: Tensor, excluded: Tensor) -> tuple[Tensor, Tensor]:
        """Draw for each node one of its neighbours, uniformly, other than a given one.

        Args:
            ids: nodes, ``[B]``.
            excluded: of each, a neighbour that is not to be drawn, ``[B]``.

        Returns:
            The drawn ones, ``[B]``, and whether there is one, bool ``[B]``; where there is none, the excluded one is
            returned.
        """
        first, n_others = self.starts[ids], self.starts[ids + 1] - self.starts[ids] - 1
        has_any = n_others > 0
        place = (torch.rand(len(ids), device=ids.device) * n_others).long().clamp(max=(n_others - 1).clamp(min=0))
        # The excluded one is passed over: whoever stands at its place or behind moves up by one.
        found = self.others[first + place]
        moved = self.others[first + torch.where(has_any, place + 1, 0)]
        drawn = torch.where(found < excluded, found, moved)
        return torch.where(has_any, drawn, excluded), has_any


def mean_of_neighbours(
    nodes: np.ndarray, others: np.ndarray, n_nodes: int, vectors: np.ndarray, counted: np.ndarray
) -> np.ndarray:
    """Return the mean of each node's neighbours' vectors, float32 ``[n_nodes, D]``; zeros where there are none.

    Args:
        nodes: see :class:`Neighbours`.
        others: see there.
        n_nodes: see there.
        vectors: of the other side, ``[m, D]``.
        counted: which of these count, bool ``[m]``.
    """
    taken = counted[others]
    ones = np.ones(taken.sum(), dtype=np.float32)
    edges = scipy.sparse.csr_matrix((ones, (nodes[taken], others[taken])), shape=(n_nodes, len(vectors)))
    edges.data[:] = 1
    means: np.ndarray = edges @ vectors / np.maximum(np.asarray(edges.sum(axis=1)), 1)
    return means.astype(np.float32)
