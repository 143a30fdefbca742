"""What the semantic table and the hash of the training split add to the peak memory of a training.

    python benchmarks/memory.py --threads 2 --output benchmarks/results-cpu.md

A training is a whole run in a process of its own, base first, in float32. With a table of the given width and with one
of width 1 it is the same but for the table.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timing
import workload

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.dataset import fingerprint
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.quick_start import run

#: Characters of an id in the measurement of the hash.
ID_LENGTH = 64


def main(given: Sequence[str] | None = None) -> int:
    """Write the data, train in fresh processes and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=1)
    parser.add_argument("--users", type=int, default=25_000)
    parser.add_argument("--items", type=int, default=15_000)
    parser.add_argument("--interactions", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=1536, help="width of the table")
    parser.add_argument("--models", nargs="+", default=["LightGCN_RLMRecCon", "LightGCN_RLMRecGen"])
    parser.add_argument("--pairs", type=int, default=3_000_000, help="training interactions to hash")
    arguments = timing.parse(parser, given)
    table_size = (arguments.users + arguments.items) * arguments.dimension * 4
    with workload.scratch_folder() as root:
        for width in (1, arguments.dimension):
            write_data(root / str(width) / "memory", arguments, width)
        rows = []
        for model in arguments.models:
            narrow, wide = [
                timing.in_fresh_process(train, root / str(each), model) for each in (1, arguments.dimension)
            ]
            rows.append([model, *(f"{value / timing.MIB:,.0f}" for value in (narrow, wide, wide - narrow))])
        write_pairs(root / "hash" / "hash", arguments)
        before, after = timing.in_fresh_process(hash_pairs, root / "hash")
    explanation = (
        f"{arguments.users:,} users, {arguments.items:,} items, {arguments.interactions:,} interactions; float32 table "
        f"of {table_size / timing.MIB:.0f} MiB, width {arguments.dimension:,}; two epochs of the base and two of the "
        "model. Peak of the whole process, MiB."
    )
    hashing = (
        f"The hash of {arguments.pairs:,} training pairs with ids of {ID_LENGTH} characters, asked for three times: "
        f"the process peaks at {before / timing.MIB:,.0f} MiB without and at {after / timing.MIB:,.0f} MiB with it "
        f"({(after - before) / timing.MIB:+,.0f} MiB)."
    )
    table = timing.table(["model", "width 1", f"width {arguments.dimension:,}", "difference"], rows)
    timing.report(__file__, "Memory of a training", [explanation, table, hashing], arguments)
    return 0


def write_data(folder: Path, arguments: argparse.Namespace, width: int) -> None:
    """Write a dataset in which each user and item has an interaction, and random embeddings of a width."""
    rng = np.random.default_rng(0)
    n_users, n_items, n = arguments.users, arguments.items, arguments.interactions
    users = np.concatenate([np.arange(n_users), rng.integers(0, n_users, n - n_users)])
    items = np.concatenate([np.arange(n_items), rng.integers(0, n_items, n - n_items)])
    workload.write_pairs(folder / "memory.train.inter", users, items)
    for part in ("valid", "test"):
        some = [rng.integers(0, count, 1000) for count in (n_users, n_items)]
        workload.write_pairs(folder / f"memory.{part}.inter", *some)
    workload.write_random_embeddings(folder, "memory", width)


def train(data_path: Path, model: str) -> int:
    """Train two epochs of the base and two of the model; return the peak of this process, in bytes."""
    timing.reset_peak_resident()
    run(
        model,
        "memory",
        config_dict={"data_path": str(data_path), "epochs": 2, "show_progress": False, "state": "ERROR"},
    )
    return timing.peak_resident()


def write_pairs(folder: Path, arguments: argparse.Namespace) -> None:
    """Write interactions of long ids."""
    rng = np.random.default_rng(0)
    names = [np.char.zfill(np.arange(count).astype(str), ID_LENGTH) for count in (100_000, 50_000)]
    for part, n in (("train", arguments.pairs), ("valid", 1000), ("test", 1000)):
        workload.write_pairs(
            folder / f"hash.{part}.inter", *(column[rng.integers(0, len(column), n)] for column in names)
        )


def hash_pairs(data_path: Path) -> tuple[int, int]:
    """Return the peak of this process, in bytes, with the data loaded, and after its training split was hashed."""
    config = RLMRecConfig("LightGCN", "hash", config_dict={"data_path": str(data_path), "state": "ERROR"})
    train_data, _, _ = data_preparation(config, create_dataset(config))
    before = timing.reset_peak_resident()
    for _ in range(3):
        fingerprint(train_data._dataset, with_embeddings=False)
    return before, timing.peak_resident()


if __name__ == "__main__":
    raise SystemExit(main())
