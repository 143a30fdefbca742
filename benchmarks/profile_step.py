"""Say where the time of a training step goes, operation by operation, by PyTorch's profiler.

python benchmarks/profile_step.py --models LightGCN_RLMRecCon --threads 2
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import timing
import workload
from torch.profiler import ProfilerActivity, profile
from workload import Candidate

MODELS = ("LightGCN", "LightGCN_RLMRecCon", "LightGCN_RLMRecGen", "SimGCL_RLMRecCon")
#: So many operations of each model are shown.
N_SHOWN = 8


def measured(model: str, place: dict[str, Any], arguments: argparse.Namespace) -> list[list[str]]:
    """Profile some steps of a model and return a line for each of the operations that take longest."""
    settings = {**workload.official_settings(model), "train_batch_size": arguments.batch}
    epoch = Candidate("ours", model, **place, settings=settings).epoch()
    epoch(2)  # warm-up
    on_gpu = arguments.device != "cpu"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as found:
        epoch(arguments.steps)
    name = f"self_{'device' if on_gpu else 'cpu'}_time_total"
    events = sorted(found.key_averages(), key=lambda event: -getattr(event, name))
    total = sum(getattr(event, name) for event in events)
    return [
        [
            model,
            f"`{event.key[:80]}`",
            timing.number(getattr(event, name) / arguments.steps / 1e3),
            f"{getattr(event, name) / total:.0%}",
            timing.number(event.count / arguments.steps),
        ]
        for event in events[:N_SHOWN]
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    workload.add_arguments(parser)
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="MODEL")
    parser.add_argument("--steps", type=int, default=8, help="steps that are profiled")
    arguments = timing.parse(parser, given)
    with workload.prepared(arguments) as data_path:
        place = {"data_path": data_path, "dataset": arguments.dataset, "device": arguments.device}
        rows = [row for model in arguments.models for row in measured(model, place, arguments)]
    table = timing.table(["model", "operation", "ms per step, without what it calls", "share", "calls per step"], rows)
    title = f"Where a step goes: {arguments.dataset}, {arguments.device}"
    timing.report(__file__, title, [table], arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
