"""Time how much of an AutoCF training step goes into drawing its graphs again.

    python benchmarks/redraw.py --dataset amazon-book --data_path dataset --threads 1

Every step is made to draw, which the model does every `fix_steps` only. `draw` builds the encoder's and the decoder's
graph for given centres; `scoring and draw` is also the choice of the centres, without its part of the backward pass.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import timing
import workload
from workload import Candidate


def timed(model: Any, name: str, seconds: list[float]) -> None:
    """Let a method of a model note how long each call takes."""
    method: Callable[..., Any] = getattr(model, name)

    def call(*arguments: Any) -> Any:
        started = perf_counter()
        answer = method(*arguments)
        seconds.append(perf_counter() - started)
        return answer

    setattr(model, name, call)


def measured(candidate: Candidate, steps: int) -> list[str]:
    """Time steps and their draws and return the line of the table."""
    train_data = candidate.loaders(config := candidate.config())[0]
    trainer = candidate.trainer(config, train_data)
    draws: list[float] = []
    choices: list[float] = []
    timed(trainer.model, "draw", draws)
    timed(trainer.model, "_infomax", choices)
    trainer._train_epoch(workload.FirstSteps(train_data, 1), 0)
    draws.clear()
    choices.clear()
    whole = []
    for _ in range(steps):
        started = perf_counter()
        trainer._train_epoch(workload.FirstSteps(train_data, 1), 0)
        whole.append(perf_counter() - started)
    step, draw, choice = (median(seconds) for seconds in (whole, draws, choices))
    shares = [f"{timing.number(part * 1e3)} ({part / step:.1%})" for part in (draw, choice)]
    return [candidate.model, timing.spread(whole), *shares]


def main(given: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=8)
    workload.add_arguments(parser)
    arguments = timing.parse(parser, given)
    header = ["model", "ms per step that draws", "draw, ms (share)", "scoring and draw, ms (share)"]
    rows = []
    with workload.prepared(arguments) as data_path:
        for model in ("AutoCF", "AutoCF_RLMRecCon", "AutoCF_RLMRecGen"):
            settings = {**workload.official_settings(model), "train_batch_size": arguments.batch, "fix_steps": 1}
            place = {"data_path": data_path, "dataset": arguments.dataset, "device": "cpu"}
            rows.append(measured(Candidate("ours", model, **place, settings=settings), arguments.rounds))
    timing.report(__file__, f"AutoCF's redraw: {arguments.dataset}, cpu", [timing.table(header, rows)], arguments)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
