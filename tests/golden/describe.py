"""What the golden files hold, read from the files; it changes none of them.

python tests/golden/describe.py             the table in README.md: each file, what is in it, its checksum
python tests/golden/describe.py lightgcn    every array of lightgcn.npz: type, shape and checksum
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent


def terms(golden: np.lib.npyio.NpzFile) -> str:
    """Return the names of a file's loss terms."""
    return ", ".join(sorted(key.removeprefix("part/") for key in golden.files if key.startswith("part/")))


def settings(golden: np.lib.npyio.NpzFile) -> str:
    """Return the official code's settings of a file, but its name and those that are the same in all files."""
    hyper = json.loads(str(golden["hyper"]))
    return ", ".join(f"{key} {value}" for key, value in hyper.items() if key not in ("name", "embedding_size"))


def summary(folder: Path = FOLDER) -> str:
    """Return the table of all files, in Markdown."""
    lines = ["| file | arrays | loss terms | settings (`hyper`) | SHA-256, first 16 digits |", "|---|---|---|---|---|"]
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as golden:
            cells = (f"`{path.name}`", str(len(golden.files)), terms(golden), settings(golden))
        checksum = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        lines.append(f"| {' | '.join(cells)} | `{checksum}` |")
    return "\n".join(lines) + "\n"


def arrays(path: Path) -> list[str]:
    """Return a line for each array of a file: key, type, shape, and the first digits of its bytes' SHA-256."""
    with np.load(path) as golden:
        found = {key: golden[key] for key in golden.files}
    return [
        f"{key}  {array.dtype}  {list(array.shape)}  {hashlib.sha256(array.tobytes()).hexdigest()[:16]}"
        for key, array in found.items()
    ]


if __name__ == "__main__":
    if sys.argv[1:]:
        for name in sys.argv[1:]:
            print(*arrays(FOLDER / f"{name}.npz"), sep="\n")
    else:
        print(summary(), end="")
