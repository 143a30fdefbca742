"""What a person reads of a training: a screen at its start, a line at each validation, a screen at its end."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from recbole_rlmrec.compat import dataset_of
from recbole_rlmrec.data.provenance import embeddings_used, versions
from recbole_rlmrec.sides import SIDES
from recbole_rlmrec.training.stopping import EarlyStopping
from recbole_rlmrec.wording import count, listed, printable

_WIDTH = 110
#: So many characters stand before what a line says.
_LABEL = 14
#: So many settings are shown; the log holds all.
_MOST_SETTINGS = 30

_STOPPED = {
    "epochs": "there were no more epochs",
    "patience": "then patience ended",
    "plateau": "then patience ended, and nothing was better than popularity",
}


def start_screen(config: Any, dataset: Any, loaders: Sequence[Any], log: str) -> str:
    """Say in about ten lines what is going to be trained.

    Args:
        config: of the run.
        dataset: the whole one.
        loaders: of training, validation and test.
        log: where the full settings stand; empty for nowhere.

    Raises:
        DataError: the model reads semantic embeddings, and they are missing or malformed.
    """
    training = dataset_of(loaders[0])
    n_of_parts = [len(dataset_of(loader)) if loader else 0 for loader in loaders]
    parts = ", ".join(f"{n:,} {name}" for n, name in zip(n_of_parts, ("training", "validation", "test")))
    nodes = [(dataset.uid_field, "user"), (dataset.iid_field, "item")]
    sides = [count(dataset.num(field) - 1, name) for field, name in nodes if field]
    changed = [f"{name}={value}" for name, value in config.non_default_settings().items()]
    metric, step = config["valid_metric"], config["eval_step"]
    rows = {
        "data": f"{', '.join(sides)}; from {os.path.normpath(config['data_path'])}",
        "interactions": f"{parts}; split: {getattr(dataset, 'split_origin', '') or 'of this run'}",
        "texts": _texts(config, training),
        "device": _device(config),
        "settings": f"{listed(changed, _MOST_SETTINGS)}; others: defaults={config['defaults']}"
        if changed
        else f"defaults={config['defaults']}",
        "training": f"at most {count(config['epochs'], 'epoch')}, "
        + (f"{metric} at every {f'{step}th ' if step > 1 else ''}epoch" if step else "without validation"),
        "versions": ", ".join(f"{name.replace('_', '-')} {number}" for name, number in versions().items()),
        "all settings": log,
    }
    return printable("\n".join([f"{config['model']} on {config['dataset']}", *_lines(rows)]))


def _lines(rows: Mapping[str, str]) -> list[str]:
    """Lay out what is said under labels; what says nothing is left out."""
    later = " " * (_LABEL + 2)
    layout: dict[str, Any] = {"width": _WIDTH, "subsequent_indent": later, "break_on_hyphens": False}
    return [
        textwrap.fill(f"  {label:<{_LABEL}}{text}", break_long_words=False, **layout)
        for label, text in rows.items()
        if text
    ]


def _texts(config: Any, training: Any) -> str:
    """Say what made the embeddings that a model reads, and whom they cover."""
    if not config.reads_semantic_embeddings:
        return f"{config['model']} reads none"
    used = embeddings_used(training, {})
    makers = [f"{name} {used[name]}" if used[name] else f"unknown {name}" for name in ("encoder", "writer")]
    joined = [(side, training.semantic_embedding(side)) for side in SIDES]
    covered = [f"{each.n_covered:,} of {count(len(each.covered) - 1, side)}" for side, each in joined]
    return f"{', '.join(makers)}; {', '.join(covered)} covered"


def _device(config: Any) -> str:
    """Say where a run computes, and why."""
    device = config["device"]
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    threads = count(torch.get_num_threads(), "thread")
    return f"{device}: {'no GPU found' if config['use_gpu'] else 'use_gpu=False'}; {threads}"


def duration(seconds: float) -> str:
    """Return a length of time in a form that is read at one look.

    >>> [duration(seconds) for seconds in (0.04, 8.26, 75, 3725, 200000)]
    ['0.04 s', '8.3 s', '1 min 15 s', '1 h 2 min', '2 d 7 h']
    """
    if seconds < 60:
        return f"{seconds:.{2 if seconds < 1 else 1 if seconds < 10 else 0}f} s"
    minutes, hours, days = (int(seconds // size) for size in (60, 3600, 86400))
    if not hours:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{days} d {hours % 24} h" if days else f"{hours} h {minutes % 60} min"


def losses_in_words(sums: float | Sequence[float], names: Sequence[str], n_batches: int) -> str:
    """Return the losses of an epoch as means over its batches.

    Args:
        sums: over the batches, of the loss or of each of its terms.
        names: of the terms; none where they are unknown.
        n_batches: number of batches.

    >>> losses_in_words((6.9, 0.3), ("bpr", "reg"), 10), losses_in_words(20.0, (), 10)
    ('loss 0.72 (bpr 0.69, reg 0.03)', 'loss 2')
    """
    terms = [value / max(n_batches, 1) for value in ([sums] if isinstance(sums, (int, float)) else sums)]
    named = ", ".join(f"{name} {value:.4g}" for name, value in zip(names, terms))
    return f"loss {sum(terms):.4g}" + (f" ({named})" if named else "")


def patience_in_words(stopping: EarlyStopping) -> str:
    """Return how much patience is left.

    Args:
        stopping: after the latest validation.
    """
    if stopping.waits:
        return "patience does not count yet"
    left = [count(stopping.validations_left, "validation")] if stopping.validations_left else []
    left += [count(stopping.steps_left, "step")] if stopping.steps_left else []
    return f"patience left: {' and '.join(left) or 'none'}"


def _of_base(result: Any) -> str:
    """Say how long the base was trained besides."""
    is_new = result.base is not None and result.base.get("source") == "trained"
    return f", and {duration(result.base['seconds'])} of its base" if is_new else ""


def end_screen(result: Any, *, table: str, record: str, commands: Sequence[str]) -> str:
    """Say what a training found, what it took, where it lies, and how to go on.

    Args:
        result: the run's :class:`~recbole_rlmrec.quick_start.Result`.
        table: its metrics beside those of the popularity ranking and of the base.
        record: path of the file that holds the result; empty where there is none.
        commands: what to type now, one or another.
    """
    best = f"{result.best_epoch} (counted from 0)" if result.best_epoch >= 0 else ""
    if result.kept == "base":
        best += f" of the base, {result.base['model']}, which is kept"
    memory = result.peak_memory or {}
    rows = {
        "best epoch": best + (f"; {_STOPPED[result.stopped]}" if result.stopped else ""),
        "time": f"{duration(result.seconds)} of training{_of_base(result)}",
        "peak memory": ", ".join(f"{_size(memory[kind])} {kind.upper()}" for kind in memory),
        "checkpoint": result.checkpoint,
        "result": record,
        "log": result.log,
    }
    # A command is not wrapped, so that it can be copied.
    labels = ["next", *["or"] * len(commands)]
    after = [f"  {label:<{_LABEL}}{command}" for label, command in zip(labels, commands)]
    title = f"{result.model} on {result.dataset}: each result with its change from the line above"
    return printable("\n".join([title, textwrap.indent(table, "  "), *_lines(rows), *after]))


def _size(n_bytes: int) -> str:
    """Return a number of bytes in a form that is read at one look.

    >>> _size(640_000_000), _size(12_345_678_900)
    ('640 MB', '12.3 GB')
    """
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
