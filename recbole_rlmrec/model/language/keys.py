"""Keys of a slowly moving copy of an encoder, and a queue of them (He et al., "Momentum Contrast", CVPR 2020)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.func import functional_call


class KeyEncoder(nn.Module):
    """A copy of an encoder whose trained parameters follow the encoder's: ``m * copy + (1 - m) * encoder``.

    What is not trained is the encoder's own and exists once.

    Args:
        encoder: called with ids, ``[n]``, returns ``[n, d]``.
        momentum: m, from 0 to 1.
    """

    def __init__(self, encoder: nn.Module, momentum: float) -> None:
        super().__init__()
        self._encoder = [encoder]  # in a list it is no submodule, so that its parameters are not counted twice
        self._momentum = momentum
        for name, parameter in self._trained():
            self.register_buffer(_buffer_name(name), parameter.detach().clone())

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, each) for name, each in self._encoder[0].named_parameters() if each.requires_grad)

    @torch.no_grad()
    def follow(self) -> None:
        """Move towards the encoder as it is now."""
        for name, parameter in self._trained():
            self.get_buffer(_buffer_name(name)).lerp_(parameter, 1 - self._momentum)

    @torch.no_grad()
    def forward(self, ids: Tensor) -> Tensor:
        """Return the keys of nodes, ``[n, d]``, without gradients."""
        parameters = {name: self.get_buffer(_buffer_name(name)) for name, _ in self._trained()}
        keys: Tensor = functional_call(self._encoder[0], parameters, (ids,))
        return keys


def _buffer_name(parameter: str) -> str:
    return parameter.replace(".", "-")  # a buffer's name holds no dot


class KeyQueue(nn.Module):
    """The last keys, the oldest of which make room; of a node, only its newest counts.

    Args:
        size: keys it holds.
        width: d.
        n_ids: ids are below this.
    """

    keys: Tensor
    ids: Tensor
    slot_of: Tensor
    place: Tensor

    def __init__(self, size: int, width: int, n_ids: int) -> None:
        super().__init__()
        self.size = size
        self.register_buffer("keys", torch.zeros(size, width))
        self.register_buffer("ids", torch.zeros(size, dtype=torch.long))
        self.register_buffer("slot_of", torch.full((n_ids,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    def add(self, ids: Tensor, keys: Tensor) -> None:
        """Take the keys of some nodes, each once; of more than there is room for, the last ones."""
        ids, keys = ids[-self.size :], keys[-self.size :].to(self.keys.dtype)
        slots = (self.place + torch.arange(len(ids), device=ids.device)) % self.size
        before = self.ids[slots]
        # Who loses its newest key has none any more; an older one of it was passed over already.
        gone = before[self.slot_of[before] == slots]
        self.slot_of[gone] = -1
        self.keys[slots], self.ids[slots], self.slot_of[ids] = keys, ids, slots
        self.place.copy_((self.place + len(ids)) % self.size)

    def weights(self, without: Tensor) -> Tensor:
        """Return 1 for each key that counts and 0 for the others, ``[size]``.

        Args:
            without: nodes whose keys do not count, ``[n]``.
        """
        counts = self.slot_of[self.ids] == torch.arange(self.size, device=self.ids.device)
        is_out = torch.zeros(len(self.slot_of), dtype=torch.bool, device=self.ids.device)
        is_out[without] = True
        return (counts & ~is_out[self.ids]).to(self.keys.dtype)
