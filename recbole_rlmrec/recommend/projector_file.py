"""The projector of texts as a file that runs without this package: TorchScript or ONNX."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.extras import require_package
from recbole_rlmrec.files import atomic_path, require_writable
from recbole_rlmrec.model.alignment.base import Alignment
from recbole_rlmrec.model.layers import Projector
from recbole_rlmrec.recommend.export import require_absent

#: Names of what the ONNX file takes and returns.
_INPUT, _OUTPUT = "embedding", "representation"
#: Of the ONNX standard: old ones, which every program that reads ONNX knows.
_OPERATORS, _FILE_VERSION = 13, 8


def _write_torchscript(projector: Projector, path: Path) -> None:
    plain, width = nn.Sequential(*projector), projector.widths[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # it is still what programs in C++ read
        # Tracing runs the result beside the module, and fails where they differ.
        traced = torch.jit.trace(plain, torch.linspace(-1, 1, 2 * width).view(2, width))
        torch.jit.save(traced, str(path))


def _write_onnx(projector: Projector, path: Path) -> None:
    """Write the three layers by the ``onnx`` package alone; PyTorch's exporter changes with its version."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    layers: list[Any] = list(projector)
    first, activation, last = layers
    constants = {
        f"{layer}.{name}": parameter.numpy()
        for layer, module in (("first", first), ("last", last))
        for name, parameter in module.named_parameters()
    }
    nodes = [
        helper.make_node("Gemm", [_INPUT, "first.weight", "first.bias"], ["hidden"], transB=1),
        helper.make_node("LeakyRelu", ["hidden"], ["activated"], alpha=activation.negative_slope),
        helper.make_node("Gemm", ["activated", "last.weight", "last.bias"], [_OUTPUT], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "projector",
        [helper.make_tensor_value_info(_INPUT, TensorProto.FLOAT, ["n", projector.widths[0]])],
        [helper.make_tensor_value_info(_OUTPUT, TensorProto.FLOAT, ["n", projector.widths[1]])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", _OPERATORS)], ir_version=_FILE_VERSION, producer_name=__package__
    )
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString())


_WRITERS: dict[str, Callable[[Projector, Path], None]] = {".pt": _write_torchscript, ".onnx": _write_onnx}


def check_projector(path: str | Path, *, overwrite: bool) -> None:
    """Check that a projector can be written to a file, before a model is loaded.

    Args:
        path: the file.
        overwrite: whether it may be there.

    Raises:
        SettingError: its ending stands for no format, or what the format needs is not installed.
        DataError: it is there and may not be.
        OSError: it cannot be written.
    """
    ending = Path(path).suffix.lower()
    if ending not in _WRITERS:
        raise SettingError(f"'{path}' for a projector: expected a name that ends with {' or '.join(_WRITERS)}.")
    if ending == ".onnx":
        require_package("onnx", f"'{path}'", "onnx", "write a .pt file")
    if not overwrite:
        require_absent([Path(path)])
    require_writable(path)


def write_projector(path: str | Path, model: Any) -> None:
    """Write the projector from semantic embeddings, ``[n, D]``, to representations, ``[n, d]``, both float32.

    Args:
        path: a file that :func:`check_projector` accepts; one that is there is replaced when the new one is whole.
        model: one that has a projector.

    Raises:
        SettingError: it has none.
    """
    projector = model.text_projector if isinstance(model, Alignment) else None
    if projector is None:
        raise SettingError(
            f"{type(model).__name__} has no projector of texts: the contrastive alignment learns one. Train a model "
            "whose name ends with _RLMRecCon, with an alignment_weight above 0."
        )
    constant = copy.deepcopy(projector).cpu().float().eval().requires_grad_(False)
    with atomic_path(path) as temporary:
        _WRITERS[Path(path).suffix.lower()](constant, temporary)
