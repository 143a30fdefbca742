"""Ranking and regularisation losses."""

from __future__ import annotations

from typing import Iterable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def bpr_loss(positive_score: Tensor, negative_score: Tensor) -> Tensor:
    """Bayesian personalised ranking: mean of ``softplus(negative - positive) = -log sigmoid(positive - negative)``.

    Args:
        positive_score: ``[B]``.
        negative_score: ``[B]``.

    Returns:
        Scalar mean over the batch (Rendle et al., UAI 2009).
    """
    return F.softplus(negative_score - positive_score).mean()


def squared_l2(parameters: Iterable[Tensor]) -> Tensor:
    """Sum of the squared entries of all parameters, the L2 term of the official RLMRec code.

    Args:
        parameters: tensors of any shape; at least one.

    Returns:
        Scalar.
    """
    return torch.stack([parameter.square().sum() for parameter in parameters]).sum()
