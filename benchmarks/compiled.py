"""Time training steps with parts of a model under ``torch.compile`` against the same steps without.

    python benchmarks/compiled.py --dataset amazon-book --data_path dataset --threads 2
    python benchmarks/compiled.py --device cuda --mode reduce-overhead

What a compiler could fuse is compiled: SimGCL's noise, RLMRec-Con's projector, and all of LightGCN's loss. The package
compiles nothing, and this table is why. On a GPU ``--mode reduce-overhead`` records the kernels in CUDA graphs.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from time import perf_counter
from typing import Any

import timing
import torch
import workload
from workload import Candidate, Epoch

#: What is compiled: an attribute of the model.
PARTS = (("SimGCL", "noise"), ("LightGCN_RLMRecCon", "projector"), ("LightGCN", "calculate_loss"))


def epoch_of(candidate: Candidate, part: str = "", mode: str = "default") -> Epoch:
    """Return what runs an epoch of a candidate, with a part of its model compiled if one is named."""
    config = candidate.config()
    train_data, _, _ = candidate.loaders(config)
    trainer = candidate.trainer(config, train_data)
    if part:
        setattr(trainer.model, part, torch.compile(getattr(trainer.model, part), dynamic=True, mode=mode))
    return lambda steps: trainer._train_epoch(workload.FirstSteps(train_data, steps), 0)


def measured(model: str, part: str, place: dict[str, Any], arguments: argparse.Namespace) -> list[str]:
    """Time a model with and without a compiled part and return the line of the table."""
    settings = {**workload.official_settings(model), "train_batch_size": arguments.batch}
    candidate = Candidate("ours", model, **place, settings=settings)
    plain, compiled = epoch_of(candidate), epoch_of(candidate, part, arguments.mode)
    started = perf_counter()
    compiled(1)
    first = perf_counter() - started
    runs: dict[str, Callable[[], object]] = {
        "plain": partial(plain, arguments.steps),
        "compiled": partial(compiled, arguments.steps),
    }
    seconds = timing.alternate(runs, arguments.rounds)
    columns = [timing.spread([value / arguments.steps for value in seconds[name]]) for name in runs]
    ratio = timing.times(timing.ratio(seconds["plain"], seconds["compiled"]))
    return [f"{model}: `{part}`", *columns, ratio, timing.number(first)]


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    workload.add_arguments(parser)
    parser.add_argument("--mode", choices=["default", "reduce-overhead", "max-autotune"], default="default")
    parser.add_argument("--steps", type=int, default=8, help="steps that are timed in a round")
    arguments = timing.parse(parser, given)
    header = ["compiled", "ms per step, plain", "compiled", "ratio", "first compiled step, s"]
    with workload.prepared(arguments) as data_path:
        place = {"data_path": data_path, "dataset": arguments.dataset, "device": arguments.device}
        rows = [measured(model, part, place, arguments) for model, part in PARTS]
    title = f"torch.compile: {arguments.dataset}, {arguments.device}"
    title += f", mode {arguments.mode}" if arguments.mode != "default" else ""
    timing.report(__file__, title, [timing.table(header, rows)], arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
