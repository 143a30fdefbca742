"""What evaluation keeps of each block of scores."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator.collector import Collector, DataStruct

from recbole_rlmrec.ops.distributed import gather_rows

#: What is collected block by block and starts again with each evaluation.
_OF_ONE_EVALUATION = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")


class TopKCollector(Collector):
    """RecBole's ``Collector``: the same results, from one top-k and without a matrix of the positives.

    Also, blocks are joined once, at the end, and metrics that need counts (``ItemCoverage``, ``AveragePopularity``,
    ``GiniIndex``, ``TailPercentage``) work, where RecBole 1.2.1 asks an ``int`` for its ``cpu()``.

    Args:
        config: the configuration.

    Attributes:
        is_shared: whether each of several processes collects for its own users only; the results are then gathered.
        latest_hits: of the latest evaluation, ``[users, k + 1]`` from :func:`hits_and_counts`; None without such a
            metric.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.is_shared = False
        self.latest_hits: torch.Tensor | None = None
        self.data_struct = _BlockStruct()
        self._needs_items, self._needs_hits = (self._take_over(name) for name in ("rec.items", "rec.topk"))

    def _take_over(self, name: str) -> bool:
        """Return whether a metric needs something, and keep RecBole's method from making it too."""
        needed: bool = self.register.need(name)
        if needed:
            delattr(self.register, name)
        return needed

    def eval_batch_collect(
        self, scores_tensor: torch.Tensor, interaction: Any, positive_u: torch.Tensor, positive_i: torch.Tensor
    ) -> None:
        """Keep what the metrics need of a block.

        Args:
            scores_tensor: scores of all items, ``[B, n_items]``.
            interaction: the users, ``[B]``.
            positive_u: rows of the items to be found, ``[positives]``.
            positive_i: ids of these items, ``[positives]``; repeated ones count once.
        """
        if self._needs_items or self._needs_hits:
            ranked = torch.topk(scores_tensor, max(self.topk), dim=-1).indices
            if self._needs_items:
                self.data_struct.update_tensor("rec.items", ranked)
            if self._needs_hits:
                self.data_struct.update_tensor(
                    "rec.topk", hits_and_counts(ranked, positive_u, positive_i, scores_tensor.shape[1])
                )
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)

    def get_data_struct(self) -> DataStruct:
        """Return what was collected, of all processes, on the CPU, and start again."""
        found = self.data_struct.joined()
        # A process without users takes part in the gathering with empty tables.
        longest, scores = max(self.topk), torch.get_default_dtype()
        for name, needed, width, dtype in (
            ("rec.items", self._needs_items, longest, torch.int64),
            ("rec.topk", self._needs_hits, longest + 1, torch.int64),
            ("rec.meanrank", self.register.need("rec.meanrank"), 3, scores),
        ):
            if needed:
                found.setdefault(name, torch.empty(0, width, dtype=dtype, device=self.device))
        collected = DataStruct()
        for name, value in found.items():
            if self.is_shared and name in _OF_ONE_EVALUATION:
                value = gather_rows(value)
            collected.set(name, value.cpu() if isinstance(value, torch.Tensor) else value)
        self.latest_hits = collected.get("rec.topk") if "rec.topk" in collected else None
        for name in _OF_ONE_EVALUATION:
            if name in self.data_struct:
                del self.data_struct[name]
        return collected


def hits_and_counts(
    ranked: torch.Tensor, positive_u: torch.Tensor, positive_i: torch.Tensor, n_items: int
) -> torch.Tensor:
    """Say which of the ranked items are to be found, and how many are.

    Args:
        ranked: item ids by rank, ``[B, k]``.
        positive_u: rows of the items to be found, ``[positives]``, on any device.
        positive_i: their ids; repeated ones count once.
        n_items: number of item ids.

    Returns:
        ``[B, k + 1]``, of integers: 1 at hits, and the number of items to be found last.

    >>> ranked = torch.tensor([[4, 2, 1]])
    >>> hits_and_counts(ranked, torch.tensor([0, 0]), torch.tensor([2, 3]), n_items=5).tolist()
    [[0, 1, 0, 2]]
    """
    device, n_rows = ranked.device, len(ranked)
    rows = torch.arange(n_rows, device=device).unsqueeze(1)
    sought = positive_u.to(device, non_blocking=True) * n_items + positive_i.to(device, non_blocking=True)
    # The last entry is larger than any key, so that every search ends within.
    sought = torch.cat([sought, sought.new_full((1,), n_rows * n_items)]).sort().values
    asked = rows * n_items + ranked
    hits = sought[torch.searchsorted(sought, asked)] == asked
    # A size that depends on the data, as in unique(), would make the host wait for a GPU.
    is_first = torch.ones_like(sought)
    is_first[1:] = sought[1:] != sought[:-1]
    counts = ranked.new_zeros(n_rows + 1).index_add_(0, sought // n_items, is_first)
    return torch.cat([hits.long(), counts[:n_rows].unsqueeze(1)], dim=1)


class _BlockStruct(DataStruct):
    """RecBole's store, with the blocks of a tensor in a list; RecBole copies all earlier ones for each new block."""

    def update_tensor(self, name: str, value: torch.Tensor) -> None:
        self._data_dict.setdefault(name, []).append(value.clone().detach())

    def joined(self) -> dict[str, Any]:
        """Return everything by name, each list of blocks as one tensor."""
        return {key: torch.cat(value) if isinstance(value, list) else value for key, value in self._data_dict.items()}
