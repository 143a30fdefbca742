"""What an installation has: property files and the embedded dataset, and cores to compute with."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def resource_folder(name: str) -> Path:
    """Return the folder ``properties`` or ``dataset`` of this installation.

    A wheel carries them inside the package; in a checkout, also under ``pip install -e``, they lie beside it.
    """
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name


def class_file(model: type, folder: Path, ending: str) -> Path:
    """Return where a file of a model class lies: in a folder of ours, or beside the module of a class from outside.

    Args:
        model: the class.
        folder: of the files of our classes and RecBole's.
        ending: such as ``.yaml``.
    """
    module = sys.modules.get(model.__module__)
    path = getattr(module, "__file__", None)
    is_from_outside = path is not None and model.__module__.partition(".")[0] not in ("recbole_rlmrec", "recbole")
    return (Path(path).parent if is_from_outside and path else folder) / f"{model.__name__}{ending}"


def n_cores() -> int:
    """Return how many cores this process may use, which a container or ``taskset`` may have bounded."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
