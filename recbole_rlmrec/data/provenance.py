"""Where a result comes from: the embeddings that a training read, what made them, and the versions that computed."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import recbole
import torch

from recbole_rlmrec.data.embedding_files import read_metadata, table_prefix
from recbole_rlmrec.sides import SIDES
from recbole_rlmrec.version import __version__

#: What is taken from the metadata beside embeddings.
_OF_METADATA = ("encoder", "writer", "dimension", "normalized", "profiles_sha256", "train_sha256")


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, whose arguments are not the user's."""
    script = Path(sys.argv[0]) if sys.argv else Path()
    return "kernel_launcher" in script.name or script.parent.name == "ipykernel"


def command() -> str:
    """Return how the process was started: its command line, or ``notebook`` for the kernel of one."""
    return "notebook" if is_notebook() else shlex.join(sys.argv)


def embeddings_used(training: Any, hashes: Mapping[str, str]) -> dict[str, Any]:
    """Say which semantic embeddings a model read, so that the runs of two encoders can be distinguished.

    Args:
        training: the dataset of the training data loader, which has read them.
        hashes: its :func:`~recbole_rlmrec.data.dataset.fingerprint`, with embeddings.

    Returns:
        ``file`` and ``sha256`` by side; ``encoder``, ``writer``, ``dimension``, ``normalized``, ``profiles_sha256`` and
        ``train_sha256``, None where the metadata beside the files does not say; ``reduced``, what the model read them
        reduced to (``dimension``, ``energy``, ``sha256`` of the basis), None where it read them as they are.

    Raises:
        DataError: the metadata cannot be read.
    """
    files = {side: training.semantic_embedding(side).embedding.source for side in SIDES}
    metadata = read_metadata([Path(files["user"]).parent], table_prefix(training.config)) or {}
    return {
        "file": files,
        "sha256": {side: hashes.get(f"{side} embeddings") for side in SIDES},
        **{name: metadata.get(name) for name in _OF_METADATA},
        "reduced": training.basis.record() if training.basis is not None else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes."""
    return {
        "recbole_rlmrec": __version__,
        "recbole": recbole.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
