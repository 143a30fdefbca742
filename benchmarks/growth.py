"""Time how building the graph, propagating, sampling and a training step grow with the number of interactions.

    python benchmarks/growth.py --threads 2
    python benchmarks/growth.py --device cuda --sizes 1e6 1e7 1e8 --only_propagation

Each size is measured in a fresh process, on generated data: users and items in proportion to the interactions, user
activity and item popularity Zipf. Data loading, sampling and the training steps go through the package's own pipeline
from files, without stand-ins. RLMRec-Con is left out where its table of semantic embeddings would pass
``--semantic_gib``. ``--only_propagation`` measures graph and propagation alone, at sizes of which the files take
minutes to write and to read.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import timing
import torch
import workload
from workload import Candidate

from recbole_rlmrec.ops.graph import Adjacency, normalized_adjacency, sum_of_layers

NAME = "growth"
#: Heavier than amazon-book's: the most popular item has 2 % of a million interactions.
ITEM_EXPONENT = 0.8


@dataclass(frozen=True)
class Load:
    """One size to be measured.

    Attributes:
        n_interactions: E.
        per_user: interactions of a user on average.
        per_item: interactions of an item on average.
        width: d.
        semantic_dim: D.
        semantic_gib: the largest table of semantic embeddings, in GiB.
        batch: interactions per training step.
        threads: torch's.
        rounds: how often each is timed.
        device: of the propagation and the training steps.
        only_propagation: leave out what goes through files.
    """

    n_interactions: int
    per_user: int
    per_item: int
    width: int
    semantic_dim: int
    semantic_gib: float
    batch: int
    threads: int
    rounds: int
    device: str = "cpu"
    only_propagation: bool = False

    @property
    def n_users(self) -> int:
        """U."""
        return self.n_interactions // self.per_user

    @property
    def n_items(self) -> int:
        """I."""
        return self.n_interactions // self.per_item


#: What is measured: column header by key.
COLUMNS = {
    "graph": "graph, s",
    "graph_memory": "graph, extra peak MiB",
    "propagation": "propagation, s",
    "propagation_memory": "propagation, peak MiB on the GPU",
    "loading": "loading files, s",
    "sampling": "batch of negatives, s",
    "LightGCN": "LightGCN step, s",
    "LightGCN_RLMRecCon": "LightGCN_RLMRecCon step, s",
    "peak": "peak of the process, MiB",
}


def measure(load: Load) -> dict[str, float]:
    """Measure one size; keys as in ``COLUMNS``, less what does not fit into memory."""
    torch.set_num_threads(load.threads)
    draw = workload.many_interactions if load.only_propagation else workload.zipf_interactions
    users, items = draw(load.n_users, load.n_items, load.n_interactions, item_exponent=ITEM_EXPONENT)
    before = timing.reset_peak_resident()
    build = partial(normalized_adjacency, users, items, load.n_users, load.n_items)
    graph = build()
    found = {"graph_memory": (timing.peak_resident() - before) / timing.MIB}
    found.update(propagation(graph, load))
    del graph
    found["graph"] = median_seconds(build, load)
    if load.only_propagation:
        return {**found, "peak": timing.peak_resident() / timing.MIB}
    with workload.scratch_folder() as folder:
        found.update(through_pipeline(folder / "dataset", users, items, load))
    return {**found, "peak": timing.peak_resident() / timing.MIB}


def propagation(graph: Adjacency, load: Load) -> dict[str, float]:
    """Return the seconds of three layers, forward and backward, and on a GPU the peak of its memory."""
    graph = graph.to(load.device)
    table = torch.randn(graph.n_nodes, load.width, device=load.device, requires_grad=True)
    direction = torch.randn(graph.n_nodes, load.width, device=load.device)

    def run() -> None:
        table.grad = None
        sum_of_layers(table, [graph] * 3).backward(direction)

    found = {"propagation": median_seconds(run, load)}
    if load.device != "cpu":
        found["propagation_memory"] = torch.cuda.max_memory_allocated() / timing.MIB
    return found


def through_pipeline(data_path: Path, users: np.ndarray, items: np.ndarray, load: Load) -> dict[str, float]:
    """Write the interactions, load them as a training run does, and time batches and steps."""
    rng = np.random.default_rng(1)
    some = min(len(users), 1000)
    for part, rows in (("train", slice(None)), ("valid", slice(some)), ("test", slice(some))):
        # Validation and test only have to be there; shuffled items make new pairs of known ids.
        part_items = items if part == "train" else rng.permutation(items[rows])
        workload.write_pairs(data_path / NAME / f"{NAME}.{part}.inter", users[rows], part_items)
    models = ["LightGCN"]
    if 4 * (load.n_users + load.n_items) * load.semantic_dim <= load.semantic_gib * 2**30:
        workload.write_random_embeddings(data_path / NAME, NAME, load.semantic_dim)
        models.append("LightGCN_RLMRecCon")
    found = {}
    train_data = batch = None
    for model in models:
        settings = {**workload.official_settings(model), "train_batch_size": load.batch, "embedding_size": load.width}
        if model.endswith("Con"):
            settings["alignment_negatives"] = "batch"
        candidate = Candidate("ours", model, data_path, NAME, load.device, settings)
        config = candidate.config()
        if train_data is None:
            started = perf_counter()
            train_data, _, _ = candidate.loaders(config)
            found["loading"] = perf_counter() - started
            batch, found["sampling"] = drawn_batch(train_data, load)
        trainer = candidate.trainer(config, train_data)
        found[model] = median_seconds(partial(trainer._train_epoch, [batch], 0), load)
    return found


def drawn_batch(train_data: Any, load: Load) -> tuple[Any, float]:
    """Return a batch and the seconds that one takes to be drawn, the first left out: it shuffles the epoch."""
    batches = iter(train_data)
    batch = next(batches)
    started = perf_counter()
    n_batches = sum(1 for _ in islice(batches, 10 * load.rounds))
    return batch, (perf_counter() - started) / max(n_batches, 1)


def median_seconds(run: Callable[[], object], load: Load) -> float:
    """Return the median time of a call, after one that is not timed."""
    return statistics.median(timing.alternate({"": run}, load.rounds)[""])


def growth_table(loads: Sequence[Load], found: Sequence[dict[str, float]]) -> str:
    """Return one line per size and a last one with the exponent of each column."""
    columns = {key: header for key, header in COLUMNS.items() if any(key in values for values in found)}
    rows = []
    for load, values in zip(loads, found):
        sizes = f"{load.n_interactions:,} ({load.n_users:,} x {load.n_items:,})"
        rows.append([sizes, *(timing.number(values[key]) if key in values else "-" for key in columns)])
    if len(loads) > 1:
        rows.append(["exponent from the smallest to the largest", *(exponent(loads, found, key) for key in columns)])
    return timing.table(["interactions (users x items)", *columns.values()], rows)


def exponent(loads: Sequence[Load], found: Sequence[dict[str, float]], key: str) -> str:
    """Return p of ``value ~ interactions^p`` between the smallest and the largest size that has a value."""
    points = [(load.n_interactions, values[key]) for load, values in zip(loads, found) if key in values]
    if len(points) < 2:
        return "-"
    (least, low), (most, high) = points[0], points[-1]
    return f"{math.log(high / low) / math.log(most / least):.2f}"


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only_propagation", action="store_true", help="leave out what goes through files")
    parser.add_argument("--sizes", nargs="+", type=float, default=[1e5, 1e6, 5e6, 2e7], help="interactions")
    parser.add_argument("--per_user", type=int, default=20, help="interactions of a user on average")
    parser.add_argument("--per_item", type=int, default=40, help="interactions of an item on average")
    parser.add_argument("--width", type=int, default=32, help="d")
    parser.add_argument("--semantic_dim", type=int, default=1536, help="D")
    parser.add_argument("--semantic_gib", type=float, default=4, help="largest table of semantic embeddings")
    parser.add_argument("--batch", type=int, default=4096, help="interactions per training step")
    arguments = timing.parse(parser, given)
    loads = [
        Load(
            int(size),
            arguments.per_user,
            arguments.per_item,
            arguments.width,
            arguments.semantic_dim,
            arguments.semantic_gib,
            arguments.batch,
            torch.get_num_threads(),
            arguments.rounds,
            arguments.device,
            arguments.only_propagation,
        )
        for size in sorted(arguments.sizes)
    ]
    found = []
    for load in loads:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            found.append(pool.submit(measure, load).result())
        values = (f"{header} {timing.number(found[-1][key])}" for key, header in COLUMNS.items() if key in found[-1])
        print(f"{load.n_interactions:,} interactions: {'; '.join(values)}", flush=True)
    title = "Growth with the number of interactions"
    title += f", {arguments.device}, propagation alone" if arguments.only_propagation else ""
    timing.report(__file__, title, [growth_table(loads, found)], arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
