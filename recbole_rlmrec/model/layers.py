"""The small modules RLMRec adds to a recommender."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from recbole_rlmrec.ops.projection import project_rows
from recbole_rlmrec.settings import COUNT, AutoOr, Choice, Settings, setting

if TYPE_CHECKING:
    from recbole_rlmrec.data.semantic_basis import SemanticBasis
    from recbole_rlmrec.data.semantic_embedding import JoinedEmbedding

SemanticStorage = Literal["memory", "memory_map"]


@dataclass(frozen=True)
class StorageSettings(Settings):
    """Where a :class:`SemanticTable` has its vectors.

    A model that reads the whole table at each step refuses ``memory_map``.
    """

    semantic_storage: SemanticStorage = setting(
        "memory",
        Choice.of(SemanticStorage),
        "the table of semantic embeddings is held in memory, or read from its file row by row",
    )


@dataclass(frozen=True)
class DimensionSettings(Settings):
    """How many numbers of a semantic embedding a model reads."""

    semantic_dimension: int | Literal["auto"] | None = setting(
        None,
        AutoOr(COUNT, optional=True),
        "semantic embeddings are reduced to so many dimensions, or to as many as keep 99 % of their squared lengths "
        "(auto), for faster steps and less memory",
        "256",
    )


def basis_of(config: Any, dataset: Any) -> SemanticBasis | None:
    """Return the basis that a run's semantic embeddings are reduced to, as its settings ask for; None for none.

    Args:
        config: the run's configuration.
        dataset: the training data.
    """
    dimension = DimensionSettings.from_config(config).semantic_dimension
    return None if dimension is None else dataset.semantic_basis(dimension)


class Reduction(nn.Module):
    """Rows of D values as their N coordinates in an orthonormal basis.

    A layer of the coordinates stands for one of whole rows whose weights lie in the span of the basis; where all rows
    lie there, for any. The basis is part of a checkpoint, since weights of coordinates mean nothing without it, and
    another machine may compute one that is turned.

    Args:
        basis: the basis.
        refill: is called when the basis becomes another one, as by loading a checkpoint: what was reduced by the former
            one has to be reduced again.
    """

    vectors: Tensor

    def __init__(self, basis: SemanticBasis, refill: Callable[[], None]) -> None:
        super().__init__()
        self.register_buffer("vectors", torch.from_numpy(basis.vectors.copy()))
        self._used, self._refill = self.vectors.clone(), refill

    def forward(self, rows: Tensor) -> Tensor:
        """Return the coordinates, ``[n, N]``, of ``rows``, ``[n, D]``."""
        return rows @ self.vectors

    def reading(self, layer: nn.Linear) -> nn.Linear:
        """Return a layer that does with coordinates what ``layer`` does with the rows themselves.

        Its inputs are D, or several rows of D side by side.
        """
        parts = layer.weight.unflatten(1, (-1, len(self.vectors)))
        return _layer_of((parts @ self.vectors).flatten(1), layer.bias)

    def reading_rows(self, layer: nn.Linear) -> nn.Linear:
        """Return the layer of whole rows that a layer of N inputs stands for."""
        return _layer_of(layer.weight @ self.vectors.T, layer.bias)

    def returning(self, layer: nn.Linear) -> nn.Linear:
        """Return a layer that has the coordinates of what ``layer``, of D outputs, returns."""
        return _layer_of(self.vectors.T @ layer.weight, self.vectors.T @ layer.bias)

    def refresh(self) -> None:
        """Have everything reduced again if the basis is another one than before."""
        if not torch.equal(self._used, self.vectors.cpu()):
            self._used = self.vectors.cpu().clone()
            self._refill()

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.refresh()


def _layer_of(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = torch.nn.utils.skip_init(nn.Linear, weight.shape[1], weight.shape[0], device=weight.device)
    layer.weight, layer.bias = (nn.Parameter(values.detach().clone()) for values in (weight, bias))
    return layer


class SemanticTable(nn.Module):
    """Semantic embeddings by node, in memory or read row by row from disk; constants, and no part of a checkpoint.

    Args:
        sides: the joined embeddings whose ids follow each other, such as users then items.
        in_memory: hold the table as a buffer that moves with the model; else leave the vectors where the joined
            embeddings have them, which may be a memory map far larger than memory, and read the rows asked for.
        dtype: of the rows; under autocast its dtype saves a conversion at each step.
        unit_length: scale the rows to length 1, before they are reduced: their products with rows in the basis then
            are cosines of the whole rows.
        basis: what the rows are reduced to; whole rows, if not given.
    """

    vectors: Tensor | None
    covered: Tensor

    def __init__(
        self,
        sides: Sequence[JoinedEmbedding],
        *,
        in_memory: bool = True,
        dtype: torch.dtype = torch.float32,
        unit_length: bool = False,
        basis: SemanticBasis | None = None,
    ) -> None:
        super().__init__()
        #: Values of a whole row, D, and of the rows that the table returns.
        self.whole_dimension = sides[0].embedding.dimension
        self.dimension = self.whole_dimension if basis is None else basis.dimension
        self.reduction = None if basis is None else Reduction(basis, self._fill)
        self._dtype, self._unit_length = dtype, unit_length
        self._first_ids = np.cumsum([0, *(len(side.rows) for side in sides)])
        covered = torch.from_numpy(np.concatenate([side.covered for side in sides]))
        #: Whether an id other than a side's [PAD] is a hole: uncovered, without an embedding.
        self.has_holes = int(covered.sum()) < len(covered) - len(sides)
        self.register_buffer("covered", covered, persistent=False)
        vectors = torch.zeros(len(covered), self.dimension, dtype=dtype) if in_memory else None
        self.register_buffer("vectors", vectors, persistent=False)
        self._sides = sides
        self._fill()
        if in_memory and basis is None:
            self._sides = ()

    def _fill(self) -> None:
        """Put the rows into the table in memory."""
        if self.vectors is None:
            return
        for side, first in zip(self._sides, self._first_ids):
            for ids, block in side.blocks():
                rows = torch.from_numpy(block).float().to(self.vectors.device)
                self.vectors[torch.from_numpy(ids + first).to(self.vectors.device)] = self._finished(rows)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ``ids`` (``[n]``), ``[n, D]``; at holes zeros."""
        if self.vectors is not None:
            return self._given(self.vectors.index_select(0, ids))
        wanted = ids.cpu().numpy()
        rows = np.zeros((len(wanted), self.whole_dimension), dtype=np.float32)
        for side, first in zip(self._sides, self._first_ids):
            of_side = np.flatnonzero((wanted >= first) & (wanted < first + len(side.rows)))
            rows[of_side] = side.take(wanted[of_side] - first)
        return self._given(self._finished(torch.from_numpy(rows).to(ids.device)))

    def block(self, start: int, stop: int) -> Tensor:
        """Return the rows ``start`` to ``stop``, without a copy where they are in memory."""
        if self.vectors is not None:
            return self._given(self.vectors[start:stop])
        return self(torch.arange(start, stop, device=self.covered.device))

    @staticmethod
    def _given(rows: Tensor) -> Tensor:
        """Return rows as the layers after this one take them: cast under autocast only."""
        return rows if torch.is_autocast_enabled(rows.device.type) else rows.float()

    def _finished(self, rows: Tensor) -> Tensor:
        rows = F.normalize(rows, dim=1) if self._unit_length else rows
        return (rows if self.reduction is None else self.reduction(rows)).to(self._dtype)


class Projector(nn.Sequential):
    """Two-layer perceptron between the semantic and the collaborative space.

    ``Linear(a, (a + b) // 2) -> LeakyReLU(0.01) -> Linear((a + b) // 2, b)``, Xavier-uniform weights and PyTorch's
    default biases (HKUDS/RLMRec @2241375). It draws from its own generator: adding it to a model
    leaves the model's initial weights and every later random number as they were.

    Args:
        in_features: a.
        out_features: b.
        seed: seed of the initial weights.

    Attributes:
        widths: a and b, or what a reduction makes of them; the hidden layer keeps its width.
    """

    def __init__(self, in_features: int, out_features: int, seed: int) -> None:
        hidden = (in_features + out_features) // 2
        generator = torch.Generator().manual_seed(seed)
        super().__init__(
            linear(in_features, hidden, generator),
            nn.LeakyReLU(inplace=True),  # its gradient needs the sign only, which the result has as well
            linear(hidden, out_features, generator),
        )
        self.widths = (in_features, out_features)

    def of_rows(self, table: Tensor, rows: Tensor) -> Tensor:
        """Return what the rows (``[n]``) of a constant table (``[N, a]``) are projected to, ``[n, b]``, in blocks."""
        layers: list[Any] = list(self)
        first, activation, last = layers
        weights = (first.weight, first.bias, last.weight, last.bias)
        return project_rows(table, rows, *weights, slope=activation.negative_slope)

    def replace(self, *, first: nn.Linear | None = None, last: nn.Linear | None = None) -> None:
        """Put other layers in the place of the first or the last one."""
        if first is not None:
            self[0], self.widths = first, (first.in_features, self.widths[1])
        if last is not None:
            self[2], self.widths = last, (self.widths[0], last.out_features)

    def hidden(self, x: Tensor) -> Tensor:
        """Return the rows before the last layer, ``[n, (a + b) // 2]``, of ``x``, ``[n, a]``."""
        activated: Tensor = self[1](self[0](x))
        return activated


def linear(in_features: int, out_features: int, generator: torch.Generator) -> nn.Linear:
    """Return a layer with Xavier-uniform weights and PyTorch's default biases, all drawn from the generator."""
    # Built without nn.Linear's own initialisation, which would draw from the global generator.
    layer = torch.nn.utils.skip_init(nn.Linear, in_features, out_features)
    nn.init.xavier_uniform_(layer.weight, generator=generator)
    bound = 1 / math.sqrt(in_features)
    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
    return layer


class NodeMask(nn.Module):
    """One learned token that stands in for the ego embeddings of masked nodes, users and items alike.

    The token starts as small noise, N(0, 0.02), as mask tokens do elsewhere (BERT, MAE). At zero, a masked node that
    loses its edges in a view would be a zero row, whose normalisation has a gradient of 1e12, and one such step stops
    Adam from moving the token for tens of thousands more.

    Args:
        embedding_size: d.
        maskable: ``[M]`` row numbers, in the stacked ``[users; items]`` table, that may be masked.
        mask_ratio: share of them to mask at each step; ``floor(mask_ratio * M)`` are drawn.
        seed: seed of the initial token, which is drawn from a generator of its own.
    """

    maskable: Tensor

    def __init__(self, embedding_size: int, maskable: Tensor, mask_ratio: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.token = nn.Parameter(torch.empty(1, embedding_size).normal_(std=0.02, generator=generator))
        self.register_buffer("maskable", maskable, persistent=False)
        # The addend keeps a product such as 0.29 * 100 = 28.999999999999996 from losing a node.
        self.n_masked = int(mask_ratio * len(maskable) + 1e-9)

    def draw(self) -> Tensor:
        """Return the ``[n_masked]`` distinct rows to mask at this step."""
        return self.maskable[torch.randperm(len(self.maskable), device=self.maskable.device)[: self.n_masked]]

    def forward(self, ego: Tensor, rows: Tensor) -> Tensor:
        """Return ``ego`` (``[N, d]``) with ``rows`` (``[n_masked]``) replaced by the token."""
        return ego.index_put((rows,), self.token.expand(len(rows), -1))
