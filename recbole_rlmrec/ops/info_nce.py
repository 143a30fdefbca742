"""InfoNCE, the one contrastive loss of the house: Con, Gen, SGL and SimGCL all use it."""

from __future__ import annotations

from typing import Optional

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def info_nce(
    anchor: Tensor,
    positive: Tensor,
    candidate: Tensor,
    temperature: float,
    anchor_weight: Optional[Tensor] = None,
    candidate_weight: Optional[Tensor] = None,
) -> Tensor:
    """Weighted mean over the anchors of ``-log(exp(cos(a, p) / t) / sum_c w_c exp(cos(a, c) / t))``.

    The denominator runs over all candidates, so it holds the positive only if the candidates do; in RLMRec, SGL and
    SimGCL they do. Computed with ``logsumexp``, hence stable at any temperature.

    Weights are multiplicities: a row of weight k stands for k equal rows, a row of weight 0 for none. A batch names
    popular nodes many times; with weights each is computed once, exactly.

    Args:
        anchor: ``[A, d]``.
        positive: ``[A, d]``, row i belongs to anchor i.
        candidate: ``[N, d]``, shared by all anchors.
        temperature: divisor of the cosines, > 0.
        anchor_weight: ``[A]``, non-negative; the mean is over its sum. 1 each by default.
        candidate_weight: ``[N]``, non-negative. 1 each by default.

    Returns:
        Scalar. 0 (with zero gradients) where every anchor has weight 0.
    """
    anchor = F.normalize(anchor, dim=1)
    positive = F.normalize(positive, dim=1)
    candidate = F.normalize(candidate, dim=1)
    anchor = anchor / temperature  # dividing [A, d] instead of [A, N]
    logits = anchor @ candidate.T  # [A, N]
    if candidate_weight is not None:
        # Without any candidate the log-sum-exp would be -inf and its gradient NaN; every anchor then has weight 0.
        log_weight = torch.where((candidate_weight > 0).any(), candidate_weight.log(), 0.0)
        logits = logits + log_weight
    loss = torch.logsumexp(logits, dim=1) - (anchor * positive).sum(dim=1)  # [A]
    if anchor_weight is None:
        return loss.mean()
    return (anchor_weight * loss).sum() / anchor_weight.sum().clamp(min=torch.finfo(loss.dtype).tiny)
