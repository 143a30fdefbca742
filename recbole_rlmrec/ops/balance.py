"""One tensor that two losses share, with a bound on how hard the second may pull on it beside the first."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from recbole_rlmrec.ops.distributed import this_shard


def shared(tensor: Tensor, share: float | None) -> tuple[Tensor, Tensor]:
    """Return a tensor twice: balanced as :func:`balanced` says, or as it is where ``share`` is None."""
    return (tensor, tensor) if share is None else balanced(tensor, share)


def balanced(tensor: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Return a tensor twice, for a main and for an auxiliary loss, whose gradients are balanced in the backward pass.

    With g and h the gradients of the main and of the auxiliary loss by ``tensor``, what flows back is
    ``g + min(1, share * |g| / |h|) * h``, in Frobenius norms: the auxiliary loss pulls at most ``share`` times as hard
    as the main one, however long the rows are and whatever the losses are scaled by. Both gradients come with the one
    backward pass, so this costs two norms. Parameters that only the auxiliary loss has (a projector) get its whole
    gradient, and its value is untouched.

    Among several processes, each of which has its share of both losses, the norms are those of the sums over all.

    Args:
        tensor: what both losses are computed from, of any shape.
        share: the bound, >= 0. 0 keeps the auxiliary loss from ``tensor`` altogether.

    Returns:
        ``tensor`` for the main loss, and ``tensor`` for the auxiliary one.

    >>> x = torch.ones(1, requires_grad=True)
    >>> main, auxiliary = balanced(x, share=0.1)
    >>> (2 * main + 100 * auxiliary).backward()
    >>> round(x.grad.item(), 4)
    2.2
    """
    main, auxiliary = _Balance.apply(tensor, share)
    return main, auxiliary


class _Balance(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, share: float) -> tuple[Tensor, Tensor]:
        ctx.share = share
        return tensor.view_as(tensor), tensor.view_as(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        main, auxiliary = grad_outputs
        whole = torch.stack([main, auxiliary]) if this_shard().world_size > 1 else None
        if whole is not None:
            dist.all_reduce(whole)
        # Under a scaler's factor the sum of squares of float16 gradients is beyond float16.
        precise = torch.promote_types(main.dtype, torch.float32)
        norms = [torch.linalg.vector_norm(part, dtype=precise) for part in (grad_outputs if whole is None else whole)]
        # Where the auxiliary gradient is zero, the quotient is infinite or no number, and its factor does not matter.
        factor = torch.nan_to_num(ctx.share * norms[0] / norms[1], nan=0.0).clamp(max=1.0)
        return torch.addcmul(main, auxiliary, factor.to(main.dtype)), None
