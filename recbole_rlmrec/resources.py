"""Where the files that travel with the package lie: property files and the embedded dataset."""

from __future__ import annotations

from pathlib import Path


def resource_folder(name: str) -> Path:
    """Return the folder ``properties`` or ``dataset`` of this installation.

    A wheel carries them inside the package; in a checkout, also under ``pip install -e``, they lie beside it.
    """
    package = Path(__file__).resolve().parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
