"""A step shared by several processes: who does which part, and how the parts become one.

Every process holds the whole model and sees the whole batch. Each computes the loss of its share of the anchors,
divided by the numbers of the whole batch, so losses and gradients of all processes add up to those of one process that
does it all; nothing is averaged. Random numbers come from one seed in all processes, so masks, dropped edges and
sampled negatives are the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from recbole_rlmrec.errors import ContractError


@dataclass(frozen=True)
class Shard:
    """The part of one process among several.

    Attributes:
        rank: number of this process.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    def rows(self, n: int) -> slice:
        """Return this process's share of n rows: contiguous, and as even as it can be.

        >>> [Shard(rank, 2).rows(5) for rank in range(2)]
        [slice(0, 2, None), slice(2, 5, None)]
        """
        return slice(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)


def this_shard() -> Shard:
    """Return the part of this process in the process group; the whole where there is none."""
    if dist.is_available() and dist.is_initialized():
        return Shard(dist.get_rank(), dist.get_world_size())
    return Shard()


@dataclass(frozen=True)
class Share:
    """This process's part of a loss term: the parts of all processes add up to the term of the whole batch.

    A term that is no share is the whole term, computed in each process.
    """

    value: Tensor


def summand(term: Tensor | Share, source: str) -> Tensor:
    """Return what this process adds to the sum of a term over all processes.

    Args:
        term: the whole term, of which each process adds an equal part, or this process's share of it.
        source: the method that returned it, for the message.

    Raises:
        ContractError: it is no scalar tensor.
    """
    value = term.value if isinstance(term, Share) else term
    if not isinstance(value, Tensor) or value.dim() > 0:
        found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise ContractError(
            f"{source} returned {found}, expected a loss: a tensor without dimensions, or a Share of it."
        )
    n_processes = this_shard().world_size
    return value if isinstance(term, Share) or n_processes == 1 else value / n_processes


def join_rows(share: Tensor, n: int) -> Tensor:
    """Put together the rows that the processes computed each for its :meth:`Shard.rows`; differentiable.

    Args:
        share: ``[rows(n), d]``, this process's.
        n: number of rows of all processes.

    Returns:
        ``[n, d]``, the same in all processes. The gradient of a row is summed over all processes that use it.
    """
    if this_shard().world_size == 1:
        return share
    joined: Tensor = _JoinRows.apply(share, n)
    return joined


class _JoinRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, share: Tensor, n: int) -> Tensor:
        ctx.n, ctx.input_dtype = n, share.dtype
        joined = torch.zeros(
            n, share.shape[1], dtype=torch.promote_types(share.dtype, torch.float32), device=share.device
        )
        joined[this_shard().rows(n)] = share.to(joined.dtype)
        dist.all_reduce(joined)
        return joined

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        gradient = grad_outputs[0].clone()
        dist.all_reduce(gradient)
        return gradient[this_shard().rows(ctx.n)].to(ctx.input_dtype), None


def agreed(value: Any) -> Any:
    """Return the value of the first process in all processes; it is pickled."""
    if this_shard().world_size == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather_rows(share: Tensor) -> Tensor:
    """Concatenate tensors of all processes along the first dimension, in the order of their ranks.

    Args:
        share: ``[n_r, ...]``; the lengths may differ between processes, other sizes may not.
    """
    shard = this_shard()
    if shard.world_size == 1:
        return share
    length = torch.tensor([len(share)], device=share.device)
    lengths = [torch.empty_like(length) for _ in range(shard.world_size)]
    dist.all_gather(lengths, length)
    sizes = [int(each) for each in lengths]
    padded = share.new_zeros(max(sizes), *share.shape[1:])
    padded[: len(share)] = share
    parts = [torch.empty_like(padded) for _ in range(shard.world_size)]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes)])


def sum_gradients(parameters: Iterable[nn.Parameter], values: Sequence[Tensor]) -> list[Tensor]:
    """Add up the gradients of all processes, in one message, and some values along with them.

    Args:
        parameters: the model's. A gradient that a process has not is zero there; one that none has stays none.
        values: ``[]`` each, such as the loss terms.

    Returns:
        The sums of the values.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    has_gradient = trained[0].new_tensor([parameter.grad is not None for parameter in trained])
    gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in trained]
    message = torch.cat([part.detach().reshape(-1) for part in (has_gradient, *gradients, *values)])
    dist.all_reduce(message)
    n = len(trained)
    start = n
    for parameter, gradient, found in zip(trained, gradients, message[:n].tolist()):
        gradient.copy_(message[start : start + gradient.numel()].view_as(gradient))
        parameter.grad = gradient if found else None
        start += gradient.numel()
    return list(message[start:])
