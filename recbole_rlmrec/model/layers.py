"""The two small modules RLMRec adds to a recommender."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Projector(nn.Sequential):
    """Two-layer perceptron between the semantic and the collaborative space.

    ``Linear(a, (a + b) // 2) -> LeakyReLU(0.01) -> Linear((a + b) // 2, b)``, Xavier-uniform weights and PyTorch's
    default biases (HKUDS/RLMRec @2241375). It draws from its own generator: adding it to a model
    leaves the model's initial weights and every later random number as they were.

    Args:
        in_features: a.
        out_features: b.
        seed: seed of the initial weights.
    """

    def __init__(self, in_features: int, out_features: int, seed: int) -> None:
        hidden = (in_features + out_features) // 2
        generator = torch.Generator().manual_seed(seed)
        super().__init__(
            _linear(in_features, hidden, generator), nn.LeakyReLU(), _linear(hidden, out_features, generator)
        )


def _linear(in_features: int, out_features: int, generator: torch.Generator) -> nn.Linear:
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
