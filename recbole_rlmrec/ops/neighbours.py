"""The nearest rows of a table by cosine, in blocks."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from recbole_rlmrec.ops.blockwise import slices

#: Cosines that are computed at a time.
_AT_ONCE = 2**22


def nearest(
    anchor: Tensor, table: Tensor, n: int, taken: scipy.sparse.csr_matrix | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of each anchor and the n rows of a table that are nearest to it by cosine, the nearest first.

    Args:
        anchor: ``[A, k]``, on the CPU.
        table: ``[N, k]``, likewise.
        n: rows for each anchor; fewer where there are no more.
        taken: ``[A, N]``, with an entry for each pair that is not to be returned.

    Returns:
        Places of anchors, ascending, and of rows of the table, int64 ``[pairs]`` each.

    >>> places, rows = nearest(torch.tensor([[1.0, 0.1]]), torch.tensor([[0.0, 2.0], [1.0, 1.0], [3.0, 0.0]]), 2)
    >>> rows.tolist()
    [2, 1]
    """
    left, right, n = F.normalize(anchor, dim=1), F.normalize(table, dim=1), min(n, len(table))
    found = [np.empty((2, 0), dtype=np.int64)]
    for block in slices(len(left) if n else 0, _AT_ONCE // max(len(right), 1)):
        cosines = left[block] @ right.T
        if taken is not None:
            cosines[taken[block].nonzero()] = -math.inf
        values, columns = cosines.topk(n)
        row, place = (values > -math.inf).nonzero(as_tuple=True)
        found.append(torch.stack([row + block.start, columns[row, place]]).numpy())
    anchors, rows = np.concatenate(found, axis=1)
    return anchors, rows
