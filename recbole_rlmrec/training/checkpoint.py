"""Checkpoints: tensors and plain values, read without executing anything in them."""

from __future__ import annotations

import glob
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import scipy.sparse
import torch

from recbole_rlmrec.errors import CheckpointError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.arrays import tokens_of
from recbole_rlmrec.reading.documents import Format
from recbole_rlmrec.reading.pickle_scan import scan_archive
from recbole_rlmrec.reading.regular import open_regular
from recbole_rlmrec.reading.shape import AtLeast, Count, MaybeInfinite, Metric, MisfitError, PlainValue, record_of
from recbole_rlmrec.reading.tree import check_tree, plain_parts
from recbole_rlmrec.sides import Side
from recbole_rlmrec.training.comparison import Outcome
from recbole_rlmrec.training.machine import machine_faults_named
from recbole_rlmrec.training.stopping import Margin, Progress
from recbole_rlmrec.wording import listed

CHECKPOINT_FORMAT = 1
_FILE = Format("checkpoint of recbole_rlmrec", "Train the model again.", CheckpointError, allow_others=True)
#: Parts in all: settings, and a few numbers for each tensor that an optimiser keeps.
_MOST_PARTS, _DEEPEST = 10**7, 64


@dataclass(frozen=True)
class _Settings:
    """Which of the settings are looked at before a configuration is made of them."""

    model: str
    dataset: str


@dataclass(frozen=True)
class _Checkpoint:
    """What a checkpoint holds; those of version 0.1 lack the last five."""

    format: Literal[1]
    model: str
    dataset: str
    settings: dict[str, PlainValue]
    data: dict[str, str]
    best_valid_result: dict[str, Metric] | None
    epoch: Annotated[int, AtLeast(-1)]
    cur_step: Count
    best_valid_score: Annotated[float, MaybeInfinite()]
    state_dict: dict[str, torch.Tensor]
    other_parameter: dict[str, Any]
    optimizer: dict[str, Any]
    stopping: Progress | None = None
    margin: Margin | None = None
    base: Outcome | None = None
    aligned: str | None = None
    ids: dict[str, torch.Tensor] | None = None


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Args:
        path: a file written by :class:`SafeTrainerMixin`.
        device: where the tensors go.

    Returns:
        ``format``, ``model``, ``dataset``, ``settings``, ``data`` (hashes of the ids and of the training split),
        ``epoch``, ``cur_step``, ``best_valid_score``, ``best_valid_result``, ``state_dict``, ``other_parameter``,
        ``optimizer``; and ``ids``, for :func:`unpacked_ids`.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is no checkpoint of this package.
    """
    try:
        with open_regular(path) as file:
            scan_archive(file)
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint '{path}'.") from None
    except Exception as error:  # torch.load raises whatever its zip and pickle readers raise
        reason = f"{error}".split("\n")[0][:200]
        raise CheckpointError(
            f"'{path}' cannot be read as a checkpoint of tensors and plain values ({reason}). It may be cut short, or "
            "be RecBole's, which pickles its configuration; nothing in it was run. Train the model again."
        ) from error
    try:
        check_tree(checkpoint, plain_parts, most=_MOST_PARTS, deepest=_DEEPEST)
        record_of(_Checkpoint, checkpoint, allow_others=True)
        record_of(_Settings, checkpoint["settings"], allow_others=True)
        _check_tensors(checkpoint)
    except ValueError as error:
        raise _FILE.fault(path, error) from error
    return dict(checkpoint)


def newest_checkpoint(model: str, dataset: str, folder: str | Path) -> Path:
    """Return the checkpoint of a model on a dataset that was written last.

    Args:
        model: class name.
        dataset: its name.
        folder: of the checkpoints, as ``checkpoint_dir``.

    Raises:
        CheckpointError: there is none.
    """
    paths = [path for path in Path(folder).glob(f"{glob.escape(f'{model}-{dataset}')}-*.pth") if path.is_file()]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        stored = load_checkpoint(path)  # a name does not say where the model's ends and the dataset's begins
        if (stored["model"], stored["dataset"]) == (model, dataset):
            return path
    others = sorted(path.name for path in Path(folder).glob("*.pth"))
    there = f"It has {listed(others, 3)}." if others else "It has no checkpoint at all."
    raise CheckpointError(
        f"The folder '{folder}' has no checkpoint of {model} on '{dataset}'. {there} Train the model, or give another "
        "folder as checkpoint_dir."
    )


def _check_tensors(value: Any, name: str = "") -> None:
    """Check that tensors are whole tables: what repeats its numbers would be far larger once it is written out."""
    for key, part in value.items() if isinstance(value, dict) else ():
        _check_tensors(part, f"{name}.{key}" if name else str(key))
    for part in value if isinstance(value, (list, tuple)) else ():
        _check_tensors(part, name)
    if not isinstance(value, torch.Tensor):
        return
    if value.layout != torch.strided or value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError(f"the tensor '{name[:80]}' of shape {list(value.shape)} is not stored whole")


def write_checkpoint(state: dict[str, Any], path: str | Path) -> None:
    """Write a checkpoint; one that is there stays as it is until the new one is whole.

    Args:
        state: tensors and plain values.
        path: the file.

    Raises:
        MachineError: it cannot be written, as when the disk is full.
    """

    def remark() -> str:
        free = ""
        with suppress(OSError):
            free = f", and the disk has {shutil.disk_usage(Path(path).parent).free:,} left"
        return (
            f"The checkpoint '{path}' was not written: it needs about {sum(_sizes(state)):,} bytes{free}. Make room, "
            "within the quota if there is one, or give another folder with --checkpoint_dir."
        )

    with machine_faults_named(remark), atomic_path(path) as temporary:
        torch.save(state, temporary)


def _sizes(value: Any) -> Iterator[int]:
    """Yield the bytes of each tensor in plain values."""
    if isinstance(value, torch.Tensor):
        yield value.numel() * value.element_size()
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _sizes(entry)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _sizes(entry)


def packed_ids(training: Any) -> dict[str, torch.Tensor]:
    """Return the original ids of a training's users and items for a checkpoint: bytes, far fewer than their rows are.

    Args:
        training: the dataset of a training data loader.
    """
    fields: dict[Side, str | None] = {"user": training.uid_field, "item": training.iid_field}
    known = {side: tokens_of(training, side) for side, field in fields.items() if field is not None}
    return {
        side: torch.from_numpy(np.frombuffer("\n".join(map(str, tokens)).encode(), dtype=np.uint8).copy())
        for side, tokens in known.items()
    }


def unpacked_ids(checkpoint: Mapping[str, Any], side: Side) -> list[str]:
    """Return the original ids of the rows 1, 2, ... of one side, as :func:`packed_ids` took them.

    Raises:
        CheckpointError: they are no text.
    """
    try:
        return bytes(checkpoint["ids"][side].numpy()).decode().split("\n")
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"The checkpoint's ids of {side}s cannot be read ({error}). Train the model again."
        ) from error


def check_data(checkpoint: dict[str, Any], fingerprint: dict[str, str], path: str | Path) -> None:
    """Refuse a checkpoint that was trained on other data than those at hand.

    Args:
        checkpoint: from :func:`load_checkpoint`.
        fingerprint: :func:`~recbole_rlmrec.data.dataset.fingerprint` of the training data.
        path: for messages.

    Raises:
        CheckpointError: the ids, their order, the training interactions, or the embeddings differ. Of embeddings that
            one of the two has not read nothing is said.
    """
    stored = checkpoint["data"]
    compared = [name for name in stored if name in fingerprint or not name.endswith(" embeddings")]
    differing = [name for name in compared if fingerprint.get(name) != stored[name]]
    if differing:
        raise CheckpointError(
            f"'{path}' was trained on other data of the name '{checkpoint['dataset']}': {', '.join(differing)} differ. "
            "RecBole numbers ids in the order of the file, so another order also counts. Restore the files it was "
            "trained on, or train again."
        )


def load_weights(model: Any, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Put a checkpoint's weights into a model.

    Raises:
        CheckpointError: the checkpoint is another model's, or its tensors do not fit.
    """
    name = type(model).__name__
    if checkpoint["model"] != name:
        raise CheckpointError(f"'{path}' is a checkpoint of {checkpoint['model']}, not of {name}.")
    _check_weights(model, checkpoint["state_dict"], path)
    misfits = _misfits(checkpoint["state_dict"], model.state_dict())
    if misfits:
        raise CheckpointError(
            f"'{path}' does not fit this {name}: {listed(misfits, 3)}. Load it with the dataset, the embeddings and "
            "the settings it was trained with."
        )
    model.load_state_dict(checkpoint["state_dict"])
    stored = checkpoint["other_parameter"]
    try:
        if set(stored) != set(getattr(model, "other_parameter_name", ())):
            raise ValueError(f"its 'other_parameter' has the keys {', '.join(stored) or 'none'}")
        model.load_other_parameter({key: unpack(value) for key, value in stored.items()})
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise _FILE.fault(path, f"what it keeps beside its tensors is not {name}'s ({error})") from error


def _check_weights(model: Any, stored: dict[str, torch.Tensor], path: str | Path) -> None:
    """Check that tensors are of the model's types, and its parameters finite; copying would convert or take them."""
    parameters = dict(model.named_parameters())
    for name, current in model.state_dict().items():
        tensor = stored.get(name)
        if tensor is None:
            continue  # which load_state_dict says better
        if tensor.dtype != current.dtype:
            raise _FILE.fault(path, f"its '{name}' is of {tensor.dtype}, expected {current.dtype}")
        if name in parameters and not torch.isfinite(tensor).all():
            n_bad = int((~torch.isfinite(tensor)).sum())
            raise _FILE.fault(
                path, f"its '{name}' has {n_bad:,} of {tensor.numel():,} values that are no finite numbers"
            )


def load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: dict[str, Any], path: str | Path) -> None:
    """Put a checkpoint's state of the optimiser into an optimiser.

    How the steps are computed is this run's choice; what they compute is the checkpoint's.

    Raises:
        CheckpointError: the state is another optimiser's, or has another shape.
    """
    stored = checkpoint["optimizer"]
    try:
        for group, current in zip(stored["param_groups"], optimizer.param_groups, strict=True):
            group.update({name: current[name] for name in ("fused", "foreach", "capturable") if name in current})
            for name in current.keys() - {"params"}:
                if not _is_alike(group[name], current[name]):
                    raise MisfitError(group[name], f"a value such as {current[name]}").within(name)
        optimizer.load_state_dict(stored)
        for parameter, state in optimizer.state.items():
            for name, value in state.items():
                if isinstance(value, torch.Tensor) and not _is_state_of(value, parameter):
                    raise ValueError(f"'{name}' has the shape {list(value.shape)} or values that are not finite")
    except (ValueError, TypeError, LookupError, AttributeError, RuntimeError) as error:
        reason = f"its state of the optimiser does not fit {type(optimizer).__name__} here ({error})"
        raise _FILE.fault(path, reason) from error


def _is_alike(found: Any, wanted: Any) -> bool:
    """Whether a value of an optimiser's group may stand for another: numbers for numbers, else the same type."""
    if isinstance(wanted, (int, float)) and not isinstance(wanted, bool):
        return isinstance(found, (int, float)) and not isinstance(found, bool) and math.isfinite(found)
    if isinstance(wanted, (list, tuple)) and isinstance(found, (list, tuple)):
        return len(found) == len(wanted) and all(map(_is_alike, found, wanted))
    return type(found) is type(wanted)


def _is_state_of(value: torch.Tensor, parameter: torch.Tensor) -> bool:
    is_of_shape = not value.dim() or value.shape == parameter.shape
    return is_of_shape and bool(torch.isfinite(value).all())


def _misfits(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Say which tensors of a checkpoint are not those of a model."""
    misfits = [f"it lacks {name}" for name in wanted if name not in stored]
    misfits += [f"it has {name}, which the model has not" for name in stored if name not in wanted]
    for name in wanted:
        there, here = (list(getattr(table.get(name), "shape", ())) for table in (stored, wanted))
        if name in stored and there != here:
            misfits.append(f"{name} has the shape {there} there and {here} here")
    return misfits


def pack(value: Any) -> Any:
    """Turn what RecBole's models keep beside their weights into tensors and plain values.

    The neighbourhood and linear models (ItemKNN, EASE, ...) keep NumPy arrays and SciPy matrices.
    """
    if scipy.sparse.issparse(value):
        matrix = value.tocsr()
        parts = {part: pack(getattr(matrix, part)) for part in ("data", "indices", "indptr")}
        return {"kind": "csr", "shape": list(matrix.shape), **parts}
    if isinstance(value, np.ndarray):
        return {"kind": "array", "tensor": torch.from_numpy(np.ascontiguousarray(value))}
    return value


def unpack(value: Any) -> Any:
    """Turn what :func:`pack` returned into what it was given."""
    if not isinstance(value, dict) or "kind" not in value:
        return value
    if value["kind"] == "array":
        return value["tensor"].cpu().numpy()
    parts = tuple(unpack(value[part]) for part in ("data", "indices", "indptr"))
    matrix = scipy.sparse.csr_matrix(parts, shape=value["shape"])
    matrix.check_format(full_check=True)  # SciPy's routines read wherever the indices point
    return matrix
