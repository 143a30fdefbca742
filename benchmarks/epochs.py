"""Time training epochs of each model against the plain reference and against RecBole's own class.

    python benchmarks/epochs.py --dataset amazon-book --data_path dataset --threads 2 --amp

Two comparisons, each in alternation: with the official formulas, ours against ``reference.py``; with RecBole's
defaults (width 32, 3 layers and batches of 4,096 on both sides), ours against RecBole's class, loader and trainer.

``--steps`` is for a quick look: an epoch's time is then that of some steps, scaled, and what is done once an epoch
(RecBole's SGL draws its views) weighs too much.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import limits
import reference
import timing
import workload
from limits import Step
from workload import Candidate, Kind

MODELS = [backbone + variant for backbone in reference.BACKBONES for variant in ("", "_RLMRecCon", "_RLMRecGen")]

EXPLANATION = (
    "`ratio` is how many times faster than the last line of its block a candidate is. `products` is what the bare "
    "matrix products of a step take (dense ones in the step's precision, sparse ones in float32, each by `torch.mm`), "
    "`traffic` what it takes to move every array of the step once at the speed of a copy; in brackets their shares of "
    "the measured step: what is left is neither."
)


def official_candidates(model: str, place: dict[str, Any], batch: int, *, amp: bool) -> dict[str, Candidate]:
    """Return what computes the official formulas: ours in its variants, and the reference."""
    settings = {**workload.official_settings(model), "train_batch_size": batch}
    changes: dict[str, dict[str, Any]] = {"ours": {}}
    if "alignment_weight" in settings:
        changes["ours, alignment_negatives: batch"] = {"alignment_negatives": "batch"}
    # The weights that are bounded by the gradients of a step, beside the same step with fixed ones.
    bounded = ("alignment_weight", "reconstruction_weight")
    bounded += ("ssl_weight",) if model.startswith(("SGL", "SimGCL")) else ()
    weights = {name: "auto" for name in bounded if name in settings}
    if weights:
        changes["ours, weights auto"] = weights
    if amp:
        changes["ours, enable_amp"] = {"enable_amp": True}
    candidates = {
        name: Candidate("ours", model, **place, settings={**settings, **change}) for name, change in changes.items()
    }
    return {**candidates, "reference": Candidate("reference", model, **place, settings=settings)}


def recbole_candidates(model: str, place: dict[str, Any], batch: int) -> dict[str, Candidate]:
    """Return ours and RecBole's class, both with RecBole's settings."""
    settings = {"embedding_size": 32, "n_layers": 3, "train_batch_size": batch}
    kinds: dict[str, Kind] = {"ours, RecBole's settings": "ours", "RecBole": "recbole"}
    return {name: Candidate(kind, model, **place, settings=settings) for name, kind in kinds.items()}


def measured(model: str, candidates: dict[str, Candidate], arguments: argparse.Namespace) -> list[list[str]]:
    """Time the candidates of one comparison and return their lines; the last is what the others are compared with."""
    epochs = {name: candidate.epoch() for name, candidate in candidates.items()}
    for epoch in epochs.values():
        epoch(2)  # warm-up; a whole epoch would take too long
    runs = {name: partial(epoch, arguments.steps) for name, epoch in epochs.items()}
    seconds = timing.alternate(runs, arguments.rounds, warmup=0)
    rows = []
    for name, candidate in candidates.items():
        products, traffic, n_batches = step_limits(candidate)
        per_step = [value / (arguments.steps or n_batches) for value in seconds[name]]
        step = statistics.median(per_step)
        row = [
            f"{model}: {name}",
            timing.spread(per_step, n_batches),
            timing.number(1e3 * step),
            timing.times(timing.ratio(seconds[list(candidates)[-1]], seconds[name])),
            f"{timing.number(1e3 * products)} ({products / step:.0%})",
            f"{timing.number(1e3 * traffic)} ({traffic / step:.0%})",
        ]
        if not arguments.no_memory:
            prepare: Callable[[], Callable[[], object]] = partial(workload.prepared_epoch, candidate, 2)
            row.append(timing.number(timing.peak_memory(prepare, arguments.device) / timing.MIB))
        rows.append(row)
        print(" | ".join(row), flush=True)
    return rows


def step_limits(candidate: Candidate) -> tuple[float, float, int]:
    """Return the seconds of a step's bare matrix products and of its least traffic, and the steps of an epoch."""
    ours = replace(candidate, kind="ours")
    config = ours.config()
    train_data, _, _ = ours.loaders(config)
    model = config.model_class(config, train_data._dataset).to(config["device"])
    batch = next(iter(train_data))
    rows = tuple(batch[name] for name in (model.USER_ID, model.ITEM_ID, model.NEG_ITEM_ID))
    graph = model.adjacency
    semantic_dim = 0
    if "_RLMRec" in candidate.model:
        semantic_dim = train_data._dataset.semantic_embedding("user").matrix().shape[1]
    step = Step.of(
        candidate.kind,
        rows,
        config,
        n_users=model.n_users - 1,
        n_items=model.n_items - 1,
        semantic_dim=semantic_dim,
        n_edges=len(graph.value),
    )
    dtype = "bfloat16" if config["enable_amp"] else "float32"
    dense = limits.dense_products(step, config, candidate.device)
    n_sparse = 2 * limits.n_passes(config) * config["n_layers"]
    products = sum(limits.product_seconds(product, dtype, candidate.device) for product in dense)
    products += n_sparse * limits.sparse_seconds(graph, config["embedding_size"])
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    traffic = limits.least_traffic(step, config, n_parameters) / limits.bandwidth(candidate.device)
    return products, traffic, len(train_data)


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=3)
    timing.add_device_arguments(parser)
    workload.add_arguments(parser)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, metavar="MODEL")
    parser.add_argument("--steps", type=int, default=0, help="steps that are timed; 0 is a whole epoch")
    parser.add_argument("--amp", action="store_true", help="ours under enable_amp as well")
    arguments = timing.parse(parser, given)
    header = ["model", "s per epoch", "ms per step", "ratio", "products, ms per step", "traffic, ms per step"]
    header += [] if arguments.no_memory else ["extra peak MiB of two steps"]
    official, recboles = [], []
    with workload.prepared(arguments) as data_path:
        place = {"data_path": data_path, "dataset": arguments.dataset, "device": arguments.device}
        for model in arguments.models:
            candidates = official_candidates(model, place, arguments.batch, amp=arguments.amp)
            official += measured(model, candidates, arguments)
            if model in workload.RECBOLE_MODELS:
                recboles += measured(model, recbole_candidates(model, place, arguments.batch), arguments)
    parts = [EXPLANATION, timing.table(header, official)]
    parts += [timing.table(header, recboles)] if recboles else []
    if arguments.steps:
        parts.append(f"An epoch is scaled from {arguments.steps} steps.")
    title = f"Epochs: {arguments.dataset}, {arguments.device}"
    if arguments.models != MODELS:
        title += f" ({', '.join(arguments.models)})"
    timing.report(__file__, title, parts, arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
