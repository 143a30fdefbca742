"""Train with a table of semantic embeddings that stays on disk, and watch the memory.

    python benchmarks/large_table.py --threads 2 --output benchmarks/results-cpu.md

Everything is the real thing: atomic files, RecBole's dataset, the semantic files with their checks, ``semantic_storage:
memory_map`` and ``alignment_negatives: batch``. Each storage is measured in a process of its own.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import timing
import workload

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.training.trainer import trainer_class

GIB = 2**30
NAME = "large"


def main(given: Sequence[str] | None = None) -> int:
    """Write the data, train in fresh processes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=10)
    parser.add_argument("--users", type=int, default=2_000_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--interactions", type=int, default=4_000_000)
    parser.add_argument("--dimension", type=int, default=768, help="of the semantic embeddings")
    parser.add_argument("--embedding_size", type=int, default=32)
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--storages", nargs="+", default=["memory_map"], choices=["memory_map", "memory"])
    arguments = timing.parse(parser, given)
    rows = []
    with workload.scratch_folder() as root:
        size = write_data(root / NAME, arguments)
        for storage in arguments.storages:
            rows.append([storage, *timing.in_fresh_process(train, root, storage, arguments)])
    explanation = (
        f"{arguments.users:,} users, {arguments.items:,} items, {arguments.interactions:,} interactions; float16 "
        f"tables of {arguments.dimension} values, {size / GIB:.2f} GiB on disk; LightGCN_RLMRecCon with "
        f"alignment_negatives batch, embedding_size {arguments.embedding_size}, batch {arguments.batch:,}, Adam. Peaks "
        "are of a whole process, GiB: while it loads the data, while it trains, and the same without the pages of "
        "mapped files, which the system takes back when it needs them."
    )
    header = ["storage", "loading, s", "step, ms", "peak, loading", "peak, steps", "peak, steps, without files"]
    timing.report(__file__, "Large semantic table", [explanation, timing.table(header, rows)], arguments)
    return 0


def write_data(folder: Path, arguments: argparse.Namespace) -> int:
    """Write a dataset in which each user and item has an interaction; return the bytes of its semantic tables."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    n_users, n_items = arguments.users, arguments.items
    users = np.concatenate([np.arange(n_users), rng.integers(0, n_users, arguments.interactions - n_users)])
    items = np.concatenate([np.arange(n_items), rng.integers(0, n_items, arguments.interactions - n_items)])
    workload.write_pairs(folder / f"{NAME}.train.inter", users, items)
    for part in ("valid", "test"):
        some = [rng.integers(0, n, 1000) for n in (n_users, n_items)]
        workload.write_pairs(folder / f"{NAME}.{part}.inter", *some)
    size = 0
    for side, n in (("user", n_users), ("item", n_items)):
        path = folder / f"{NAME}.{side}emb.npy"
        table = np.lib.format.open_memmap(path, "w+", np.float16, (n, arguments.dimension))
        block = rng.standard_normal((min(n, 10_000), arguments.dimension), dtype=np.float32).astype(np.float16)
        for start in range(0, n, len(block)):
            table[start : start + len(block)] = block[: n - start]
        table.flush()
        (folder / f"{NAME}.{side}emb.tokens").write_text("".join(f"{row}\n" for row in range(n)))
        size += path.stat().st_size
    return size


def train(root: Path, storage: str, arguments: argparse.Namespace) -> list[str]:
    """Load and train some steps in this process; return the cells of its row."""
    started = time.perf_counter()
    settings = {
        "data_path": str(root),
        "semantic_storage": storage,
        "alignment_negatives": "batch",
        "embedding_size": arguments.embedding_size,
        "train_batch_size": arguments.batch,
        "state": "ERROR",
        "show_progress": False,
        "use_gpu": False,
    }
    config = RLMRecConfig("LightGCN_RLMRecCon", NAME, config_dict=settings)
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset)
    trainer = trainer_class(config)(config, model)
    trainer.tensorboard.close()
    gc.collect()
    loading = time.perf_counter() - started
    peaks = [timing.peak_resident()]
    timing.reset_peak_resident()
    batches, seconds, anonymous = iter(train_data), [], []
    model.train()
    for _ in range(arguments.rounds + 1):
        started = time.perf_counter()
        trainer.optimizer.zero_grad()
        sum(model.calculate_loss(next(batches))).backward()
        anonymous.append(timing.memory_of("RssAnon"))  # gradients are there, and what the step has not freed yet
        trainer.optimizer.step()
        seconds.append(time.perf_counter() - started)
    peaks += [timing.peak_resident(), max(anonymous)]
    median = 1e3 * statistics.median(seconds[1:])  # the first sets up the optimiser
    return [f"{loading:.0f}", timing.number(median), *(f"{peak / GIB:.2f}" for peak in peaks)]


if __name__ == "__main__":
    raise SystemExit(main())
