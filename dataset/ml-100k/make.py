"""Make the files of the embedded example, MovieLens 100K, from the copy inside the installed recbole package.

    python dataset/ml-100k/make.py --all

makes the split, and the profiles with their embeddings by ``recbole-rlmrec build-semantics``.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from recbole_rlmrec import cli
from recbole_rlmrec.data.split import random_split, write_packed_split
from recbole_rlmrec.files import atomic_path

NAME = "ml-100k"
SEED = 2023
#: The texts' columns are in properties/dataset/ml-100k.yaml.
OPTIONS = ("--encoder=lsa", "--float16")
PROFILES = (f"{NAME}.userprf.jsonl", f"{NAME}.itemprf.jsonl")
EMBEDDINGS = (
    *(f"{NAME}.{side}emb.{ending}" for side in ("user", "item") for ending in ("npy", "tokens")),
    f"{NAME}.semantic.json",
)


def movielens() -> Path:
    """Return the folder of the copy of MovieLens 100K inside the installed recbole package."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("This reads the copy of MovieLens 100K inside recbole: pip install recbole==1.2.0")
    return Path(spec.submodule_search_locations[0]) / "dataset_example" / NAME


def read_table(kind: str) -> pd.DataFrame:
    """Read the ``inter``, ``user`` or ``item`` file of the copy: all tokens and numbers as text, columns by name."""
    table = pd.read_csv(movielens() / f"{NAME}.{kind}", sep="\t", dtype=str, keep_default_na=False, quoting=3)
    return table.rename(columns=lambda column: column.partition(":")[0])


def make_split(users: ArrayLike, items: ArrayLike, seed: int = SEED) -> np.ndarray:
    """Split interactions 3:1:1 as :func:`recbole_rlmrec.data.split.random_split` does.

    Args:
        users: ``[N]``, user tokens.
        items: ``[N]``, item tokens.
        seed: seed of the draw.

    Returns:
        ``[N]`` int8, positions in ``SPLIT_NAMES``, aligned with the given rows.
    """
    return random_split(np.asarray(users, dtype=str), np.asarray(items, dtype=str), seed)


def write_split(folder: Path) -> None:
    """Write ``ml-100k.split.json``."""
    ratings = read_table("inter")
    users, items = ratings["user_id"].to_numpy(), ratings["item_id"].to_numpy()
    write_packed_split(folder / f"{NAME}.split.json", users, items, make_split(users, items))


def write_semantics(root: Path) -> Path:
    """Write profiles and embeddings in a folder inside ``root``, and return it; it also holds tables and split."""
    folder = root / NAME
    folder.mkdir()
    for kind in ("inter", "user", "item"):
        shutil.copy(movielens() / f"{NAME}.{kind}", folder)
    write_split(folder)
    if cli.main(["build-semantics", f"--dataset={NAME}", f"--data_path={root}", *OPTIONS]) != 0:
        raise SystemExit("build-semantics failed: see above")
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the files the command line asks for."""
    options = _parse(arguments)
    if options.split:
        write_split(options.output)
    if not options.profiles and not options.embeddings:
        return
    with tempfile.TemporaryDirectory() as root:
        folder = write_semantics(Path(root))
        for name in (PROFILES if options.profiles else ()) + (EMBEDDINGS if options.embeddings else ()):
            with atomic_path(options.output / name) as temporary:
                shutil.copyfile(folder / name, temporary)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the files of the embedded example, MovieLens 100K.")
    parser.add_argument("--split", action="store_true", help="make ml-100k.split.json")
    parser.add_argument("--profiles", action="store_true", help="make ml-100k.userprf.jsonl and .itemprf.jsonl")
    parser.add_argument(
        "--embeddings", action="store_true", help="make the .useremb and .itememb files and ml-100k.semantic.json"
    )
    parser.add_argument("--all", action="store_true", help="make all of them")
    parser.add_argument(
        "--output", type=Path, metavar="DIR", default=Path(__file__).parent, help="folder to write to (the script's)"
    )
    options = parser.parse_args(arguments)
    options.split |= options.all
    options.profiles |= options.all
    options.embeddings |= options.all
    if not (options.split or options.profiles or options.embeddings):
        parser.error("say what to make: --split, --profiles, --embeddings or --all")
    return options


if __name__ == "__main__":
    main()
