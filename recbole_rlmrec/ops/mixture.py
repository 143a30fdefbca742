"""Perceptrons over constant rows, several taken together."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

#: Rows taken at a time. On a CPU a block's hidden layer then is no larger than what the next step can be given again.
_BLOCK_ROWS = {"cpu": 2048, "cuda": 2**16}


def perceptron_mixture(
    rows: Tensor,
    gate: Tensor | None,
    first_weight: Tensor,
    first_bias: Tensor,
    last_weight: Tensor,
    last_bias: Tensor,
    negative_slope: float = 0.0,
) -> Tensor:
    """Return ``sum_k g_ik (V_k f(W_k s_i + b_k) + c_k)`` with f the (leaky) ReLU.

    Differentiable once with respect to all but the rows. The first layers of all K perceptrons are one product of
    matrices, and beside the hidden layer nothing of its size is held: its gradient is made and used block by block.
    Products are taken in the dtype of ``rows``, sums over outputs and over blocks in that of the weights.

    Args:
        rows: ``[n, D]``, s; constants: no gradient flows to them.
        gate: ``[n, K]``, g; 1 where it is None.
        first_weight: ``[K, h, D]``, W.
        first_bias: ``[K, h]``, b.
        last_weight: ``[K, d, h]``, V.
        last_bias: ``[K, d]``, c.
        negative_slope: of the leaky ReLU, at least 0.

    Returns:
        ``[n, d]``, in the dtype of the weights.

    >>> weight, bias = torch.ones(1, 1, 1), torch.ones(1, 1)
    >>> perceptron_mixture(torch.tensor([[2.0], [-3.0]]), None, weight, bias, weight, bias).tolist()
    [[4.0], [1.0]]
    """
    if gate is None:
        gate = rows.new_ones(len(rows), len(first_bias))
    mixture: Tensor = _PerceptronMixture.apply(
        rows, gate, first_weight, first_bias, last_weight, last_bias, negative_slope
    )
    return mixture


class _PerceptronMixture(torch.autograd.Function):
    """Hidden layers lie transposed, ``[K * h, rows]``.

    So their gradient is, as it comes, the left factor of the product that gives the gradient of the first weights;
    bfloat16 products take half as long again on a left factor that has to be transposed.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        gate: Tensor,
        first_weight: Tensor,
        first_bias: Tensor,
        last_weight: Tensor,
        last_bias: Tensor,
        negative_slope: float,
    ) -> Tensor:
        (n_perceptrons, width), dtype = first_bias.shape, rows.dtype
        with torch.autocast(device_type=rows.device.type, enabled=False):
            first = first_weight.view(n_perceptrons * width, -1).to(dtype)
            bias, last = first_bias.view(-1, 1).to(dtype), last_weight.to(dtype)
            outputs = last_bias.unsqueeze(2).repeat(1, 1, len(rows))  # [K, d, n]
            hidden = []
            for block, output in zip(_blocks(rows, 0), _blocks(outputs, 2)):
                activated = torch.nn.functional.leaky_relu_(torch.addmm(bias, first, block.T), negative_slope)
                output += torch.bmm(last, activated.view(n_perceptrons, width, -1))
                hidden.append(activated)
            # Laid out by rows, as what comes after expects them.
            mixture = torch.einsum("nk,kdn->nd", gate.to(outputs.dtype), outputs).contiguous()
        ctx.negative_slope = negative_slope
        ctx.save_for_backward(rows, gate, outputs, last_weight, *hidden)
        return mixture

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grad_outputs
        rows, gate, outputs, last_weight, *hidden = ctx.saved_tensors
        (n_perceptrons, _, width), dtype = last_weight.shape, rows.dtype
        with torch.autocast(device_type=rows.device.type, enabled=False):
            of_gate = torch.einsum("nd,kdn->nk", grad, outputs).to(gate.dtype)
            of_outputs = gate.T.to(grad.dtype).unsqueeze(1) * grad.T  # [K, d, n]
            of_last_bias = of_outputs.sum(dim=2)
            of_outputs, last = of_outputs.to(dtype), last_weight.transpose(1, 2).to(dtype)
            of_last_weight = torch.zeros_like(last_weight)
            of_first_weight = last_weight.new_zeros(n_perceptrons * width, rows.shape[1])
            of_first_bias = last_weight.new_zeros(n_perceptrons * width)
            for block, activated, of_output in zip(_blocks(rows, 0), hidden, _blocks(of_outputs, 2)):
                apart = (n_perceptrons, width, len(block))
                of_last_weight += torch.bmm(of_output, activated.view(apart).transpose(1, 2))
                of_hidden = torch.bmm(last, of_output).view_as(activated)
                # The slope is not negative, so that a result has the sign of what it is the result of.
                torch.ops.aten.leaky_relu_backward.grad_input(
                    of_hidden, activated, ctx.negative_slope, True, grad_input=of_hidden
                )
                of_first_bias += of_hidden.sum(dim=1)
                if dtype == of_first_weight.dtype:
                    of_first_weight.addmm_(of_hidden, block)
                else:
                    of_first_weight += of_hidden @ block
        shape = (n_perceptrons, width)
        return (
            None,
            of_gate,
            of_first_weight.view(*shape, -1),
            of_first_bias.view(shape),
            of_last_weight,
            of_last_bias,
            None,
        )


def _blocks(x: Tensor, dim: int) -> tuple[Tensor, ...]:
    return x.split(_BLOCK_ROWS.get(x.device.type, _BLOCK_ROWS["cpu"]), dim) if x.shape[dim] else ()
