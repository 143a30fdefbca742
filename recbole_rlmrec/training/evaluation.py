"""What evaluation checks, and what it keeps, of each block of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import Collector, DataStruct

from recbole_rlmrec.errors import TrainingError
from recbole_rlmrec.ops.distributed import gather_rows

#: What is collected block by block and starts again with each evaluation.
_OF_ONE_EVALUATION = ("rec.topk", "rec.meanrank", "rec.score", "rec.items", "data.label")


#: What helps a training whose loss or scores are no numbers.
DIVERGED_REMEDY = "Lower learning_rate, or the weight of the term; with enable_amp on a GPU, set enable_scaler as well."


class ScoreCheck:
    """Counts the scores of an evaluation that are NaN or infinite where no mask put them.

    Args:
        device: of the model; processes that share the users exchange there what they found.
        is_shared: whether each of several processes evaluates its own users only.
    """

    def __init__(self, device: Any = "cpu", *, is_shared: bool = False) -> None:
        self._device, self._is_shared = device, is_shared
        self._n_scores = self._n_users = 0
        self._found: torch.Tensor | None = None

    def full_sort(self, evaluate: Callable[[Any], Any], batch: Any) -> Any:
        """Return what RecBole's trainer makes of a block of users, checked before the items to leave out are masked.

        Args:
            evaluate: its ``_full_sort_batch_eval``, or what else returns the scores, ``[B, items]``, second.
            batch: users, index of the scores to mask (or None), and the items to be found.
        """
        users, history, *sought = batch
        users, scores, *sought = evaluate((users, None, *sought))
        ranked = scores[:, 1:]  # [PAD] is masked in any case
        self._n_users += len(ranked)
        self._n_scores += ranked.numel() - (0 if history is None else len(history[0]))
        # One pass, and no copy. A sum beyond the largest number is not finite either: then all are looked at. A GPU
        # looks at them at once, since reading the sum would make the host wait for it.
        if scores.device.type != "cpu" or not torch.isfinite(ranked.sum()):
            bad = ~torch.isfinite(scores)
            bad[:, 0] = False
            if history is not None:
                bad[history] = False
            self._add(bad.sum(), bad.any(dim=1).sum())
        if history is not None:
            scores[history] = -np.inf
        return users, scores, *sought

    def sampled(self, evaluate: Callable[[Any], Any], batch: Any, item_field: str) -> Any:
        """Return what RecBole's trainer makes of a block of users and some items of each.

        Args:
            evaluate: its ``_neg_sample_batch_eval``.
            batch: pairs of users and items, ``[B]``; the row of each pair's user, ``[B]``; and the items to be found.
            item_field: name of the items' ids.
        """
        pairs, rows, *_ = batch
        evaluated = evaluate(batch)
        scores = evaluated[1]
        if scores.ndim == 2:  # in a table of all items, where the others are masked
            scores = scores[rows, pairs[item_field]]
        rows = torch.as_tensor(rows)
        self._n_users += len(rows.unique())
        self._n_scores += len(scores)
        bad = ~torch.isfinite(scores)
        if bad.any():
            self._add(bad.sum(), rows.to(bad.device)[bad].unique().numel())
        return evaluated

    def _add(self, n_scores: torch.Tensor, n_users: torch.Tensor | int) -> None:
        found = torch.stack([n_scores, torch.as_tensor(n_users, device=n_scores.device)])
        self._found = found if self._found is None else self._found + found

    def require_finite(self, model: str, when: str) -> None:
        """Check that all scores so far were numbers; by all processes at once, where they share the users.

        Args:
            model: class name, for the message.
            when: which weights it had, for the message.

        Raises:
            TrainingError: some were not.
        """
        found = [0, 0] if self._found is None else self._found.tolist()
        counts = torch.tensor([[*found, self._n_scores, self._n_users]], device=self._device)
        if self._is_shared:
            counts = gather_rows(counts)
        bad_scores, bad_users, n_scores, n_users = counts.sum(0).tolist()
        if bad_scores:
            raise not_finite(model, when, (bad_scores, n_scores), (bad_users, n_users))


def not_finite(model: str, when: str, scores: tuple[int, int], users: tuple[int, int]) -> TrainingError:
    """Return the error of scores by which nothing can be ranked.

    Args:
        model: class name.
        when: which weights it had.
        scores: how many are no numbers, of how many.
        users: how many users have such a score, of how many.
    """
    return TrainingError(
        f"The scores of {model} {when} are not finite: {scores[0]:,} of {scores[1]:,} scores, of "
        f"{users[0]:,} of {users[1]:,} users, are NaN or infinite, and nothing can be ranked by them. "
        f"{DIVERGED_REMEDY} Where the weights are those of a checkpoint, train it again."
    )


class TopKCollector(Collector):
    """RecBole's ``Collector``: the same results, from one top-k and without a matrix of the positives.

    Also, blocks are joined once, at the end, and metrics that need counts (``ItemCoverage``, ``AveragePopularity``,
    ``GiniIndex``, ``TailPercentage``) work, where RecBole 1.2.1 asks an ``int`` for its ``cpu()``.

    Args:
        config: the configuration.

    Attributes:
        is_shared: whether each of several processes collects for its own users only; the results are then gathered.
        before_metrics: is called when an evaluation has all its scores, before a metric is computed.
        latest_hits: of the latest evaluation, ``[users, k + 1]`` from :func:`hits_and_counts`; None without such a
            metric.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.is_shared = False
        self.before_metrics: Callable[[], None] | None = None
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

    def model_collect(self, model: Any) -> None:
        """Keep what the metrics need of a model, which RecBole asks for after the last block."""
        if self.before_metrics is not None:
            self.before_metrics()
        super().model_collect(model)

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
