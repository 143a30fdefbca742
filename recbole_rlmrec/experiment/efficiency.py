"""What trainings took: time, memory, parameters."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

#: Column of the table -> name in a result's efficiency, and how its value is written.
_COLUMNS = {
    "seconds an epoch": ("seconds_per_epoch", "{:.2f}"),
    "seconds to the best epoch": ("seconds_to_best", "{:.1f}"),
    "peak memory, CPU (MB)": ("ram", "{:.0f}"),
    "peak memory, GPU (MB)": ("gpu", "{:.0f}"),
    "parameters": ("parameters", "{:,.0f}"),
}
_OF_MEMORY = ("ram", "gpu")


def efficiency_of(result: Mapping[str, Any]) -> dict[str, float]:
    """Return what a training took, as far as its result says.

    Args:
        result: as ``--result_file`` writes it; those of older versions say less.

    Returns:
        ``seconds_per_epoch`` and ``seconds_to_best``, validations included; ``ram`` and ``gpu``, the most that its
        process has had, in MB; ``parameters``.

    >>> efficiency_of({"seconds": 3.0, "efficiency": {"epochs": 2, "parameters": 7}, "peak_memory": {"ram": 2_000_000}})
    {'parameters': 7, 'seconds_per_epoch': 1.5, 'ram': 2.0}
    """
    found = dict(result.get("efficiency") or {})
    epochs = found.pop("epochs", 0)
    if epochs:
        found["seconds_per_epoch"] = result["seconds"] / epochs
    memory = result.get("peak_memory") or {}
    return {**found, **{kind: memory[kind] / 1e6 for kind in _OF_MEMORY if memory.get(kind)}}


def mean_efficiency(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return what the trainings of a model took on average, of memory the most, as far as all results say."""
    each = [efficiency_of(result) for result in results]
    names = set.intersection(*map(set, each)) if each else ()
    return {name: (max if name in _OF_MEMORY else statistics.mean)(one[name] for one in each) for name in sorted(names)}


def efficiency_table(by_model: Mapping[str, Mapping[str, float]]) -> list[list[str]]:
    """Return the table, its header first, with the columns of which something is known; empty if nothing is.

    Args:
        by_model: class name -> what :func:`mean_efficiency` returns.
    """
    columns = {
        title: column for title, column in _COLUMNS.items() if any(column[0] in each for each in by_model.values())
    }
    if not columns:
        return []
    lines = [
        [model, *(form.format(found[name]) if name in found else "" for name, form in columns.values())]
        for model, found in by_model.items()
    ]
    return [["model", *columns], *lines]
