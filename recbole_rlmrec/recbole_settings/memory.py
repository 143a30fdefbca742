"""Tables that cannot fit in memory, refused before they are made: the system would end the process without a word."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch
from torch.overrides import TorchFunctionMode

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.settings import given

_FLOAT_BYTES = 4
#: Weights, gradients, and the two averages of Adam.
_COPIES_IN_TRAINING = 4
#: What makes a tensor of a given shape.
_FACTORIES = frozenset({torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn})


def free_memory(device: torch.device) -> int:
    """Return the free memory of a device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    try:  # a container may have less than its machine
        limit, used = (int(Path(f"/sys/fs/cgroup/memory.{name}").read_text()) for name in ("max", "current"))
        return min(free, max(limit - used, 0))
    except (OSError, ValueError):
        return free


def check_embedding_size(settings: Mapping[str, Any], n_nodes: int, device: torch.device, origin: str) -> None:
    """Raise if the embeddings of all users and items cannot be trained in a device's memory.

    Args:
        settings: of the run; one without ``embedding_size`` passes.
        n_nodes: users and items together.
        device: where they are trained.
        origin: where ``embedding_size`` comes from.

    Raises:
        SettingError: with the bytes that are needed and those that are free.
    """
    width = settings.get("embedding_size")
    if not isinstance(width, int):
        return
    needed, free = n_nodes * width * _FLOAT_BYTES * _COPIES_IN_TRAINING, free_memory(device)
    if needed > free:
        raise SettingError(
            f"{given('embedding_size', width, origin)}: {n_nodes:,} users and items take {gib(needed)} in training "
            f"(weights, gradients and two averages of the optimiser), and {gib(free)} are free on {device.type}. Take "
            f"at most {max(width * free // needed, 1):,}, or a machine with more memory."
        )


@contextmanager
def within_memory(external: Mapping[str, Any], origins: Mapping[str, str]) -> Iterator[None]:
    """Refuse tensors that are larger than what is free, while a model is built.

    Args:
        external: the settings that the user gave; those that are a side of the tensor are named.
        origins: where they come from.

    Raises:
        SettingError: with the shape, the bytes that are needed and those that are free.
    """
    with _Guard(external, origins):
        yield


class _Guard(TorchFunctionMode):
    def __init__(self, external: Mapping[str, Any], origins: Mapping[str, str]) -> None:
        super().__init__()
        self._external, self._origins = external, origins
        self._free = free_memory(torch.device("cpu"))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES:
            shape = _shape(args, kwargs or {})
            needed = math.prod(shape) * _FLOAT_BYTES
            if needed > self._free:
                sides = [name for name, value in self._external.items() if type(value) is int and value in shape]
                named = [given(name, self._external[name], self._origins.get(name, "")) for name in sides]
                raise SettingError(
                    f"The model wants a tensor of the shape {list(shape)}, which takes {gib(needed)}; "
                    f"{gib(self._free)} are free. Lower {', '.join(named) or 'the setting that it comes from'}."
                )
        return func(*args, **(kwargs or {}))


def _shape(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the shape that a call asks for; an empty one where the arguments do not say it in numbers."""
    size = kwargs.get("size", args[0] if len(args) and not isinstance(args[0], int) else args)
    if not isinstance(size, (list, tuple, torch.Size)) or not all(isinstance(side, int) for side in size):
        return ()
    return tuple(size)


def gib(number: int) -> str:
    """Return a number of bytes as messages show it."""
    return f"{number / 2**30:,.1f} GiB"
