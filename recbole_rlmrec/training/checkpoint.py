"""Checkpoints: tensors and plain values, read without executing anything in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch

from recbole_rlmrec.errors import CheckpointError
from recbole_rlmrec.wording import listed

CHECKPOINT_FORMAT = 1
_CHECKPOINT_KEYS = (
    "format",
    "model",
    "dataset",
    "settings",
    "data",
    "best_valid_result",
    "epoch",
    "cur_step",
    "best_valid_score",
    "state_dict",
    "other_parameter",
    "optimizer",
)


def load_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Args:
        path: a file written by :class:`SafeTrainerMixin`.
        device: where the tensors go.

    Returns:
        ``format``, ``model``, ``dataset``, ``settings``, ``data`` (hashes of the ids and of the training split),
        ``epoch``, ``cur_step``, ``best_valid_score``, ``best_valid_result``, ``state_dict``, ``other_parameter``,
        ``optimizer``.

    Raises:
        CheckpointError: there is no such file, it is damaged, or it is no checkpoint of this package.
    """
    try:
        checkpoint = torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint '{path}'.") from None
    except Exception as error:  # torch.load raises whatever its zip and pickle readers raise
        raise CheckpointError(
            f"'{path}' cannot be read as a checkpoint of tensors and plain values. It may be cut short, or be "
            "RecBole's, which pickles its configuration; nothing in it was run. Train the model again."
        ) from error
    missing = [key for key in _CHECKPOINT_KEYS if not isinstance(checkpoint, dict) or key not in checkpoint]
    if missing:
        raise CheckpointError(f"'{path}' is no checkpoint of recbole_rlmrec: it lacks {', '.join(missing)}.")
    if checkpoint["format"] != CHECKPOINT_FORMAT:
        raise CheckpointError(
            f"'{path}' has checkpoint format {checkpoint['format']}; this version reads format {CHECKPOINT_FORMAT}."
        )
    return checkpoint


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
    misfits = _misfits(checkpoint["state_dict"], model.state_dict())
    if misfits:
        raise CheckpointError(
            f"'{path}' does not fit this {name}: {listed(misfits, 3)}. Load it with the dataset, the embeddings and "
            "the settings it was trained with."
        )
    model.load_state_dict(checkpoint["state_dict"])
    model.load_other_parameter({key: unpack(value) for key, value in checkpoint["other_parameter"].items()})


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
    return scipy.sparse.csr_matrix(parts, shape=value["shape"])
