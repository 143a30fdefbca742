"""Settings of RecBole's that change nothing in a run, and would be believed to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_rlmrec.recbole_settings.evaluation import metrics_of, ranks_of

#: What RecBole filters by; it filters no files of a split that is ready.
_FILTERS = (
    "val_interval",
    "user_inter_num_interval",
    "item_inter_num_interval",
    "rm_dup_inter",
    "filter_inter_by_user_or_item",
)
_OF_STEPS = ("learner", "learning_rate", "train_batch_size", "weight_decay", "clip_grad_norm", "epochs", "eval_step")


@dataclass(frozen=True)
class Run:
    """What a run is, as far as the effect of settings depends on it.

    Attributes:
        model: name of the model.
        samples: whether training draws negatives.
        takes_steps: whether the model is trained step by step.
        ranks: whether rankings are evaluated, not single scores.
        reads_labels: whether the model is trained on labels of interactions.
    """

    model: str
    samples: bool
    takes_steps: bool
    ranks: bool
    reads_labels: bool


def without_effect(settings: Mapping[str, Any], external: Mapping[str, Any], run: Run) -> Iterator[str]:
    """Yield a sentence for each setting that the user gave and that changes nothing in this run.

    Args:
        settings: all of a run, each one that RecBole can use.
        external: those that the user gave.
        run: what it is.
    """
    chosen = {name for name, value in external.items() if value not in (None, "None")}
    if "threshold" in chosen and run.ranks and not run.reads_labels:
        (column, value), *_ = external["threshold"].items()
        yield (
            f"threshold={external['threshold']} changes nothing: {run.model} learns from every interaction, whatever "
            f"its label. To leave interactions out, give --val_interval=\"{{{column}: '[{value},inf)'}}\" instead."
        )
    yield from _of_split(settings, external, chosen)
    if "train_neg_sample_args" in chosen and not run.samples:
        yield f"train_neg_sample_args changes nothing: {run.model} draws no negatives in training."
    elif "train_neg_sample_args" in chosen:
        yield from _of_negatives(external["train_neg_sample_args"])
    if not run.takes_steps:
        for name in _OF_STEPS:
            if name in chosen:
                yield f"{name} changes nothing: {run.model} is not trained in steps."
    if "topk" in chosen and not run.ranks:
        yield "topk changes nothing: the metrics are of single scores, not of rankings."
    yield from _of_repetition("topk", ranks_of(settings["topk"]), chosen)
    yield from _of_repetition("metrics", [metric.lower() for metric in metrics_of(settings["metrics"])], chosen)
    yield from _of_gpus(settings, external)
    if "enable_scaler" in chosen and external["enable_scaler"] and not settings.get("enable_amp"):
        yield "enable_scaler changes nothing without enable_amp=True."
    if "wandb_project" in chosen and not settings.get("log_wandb"):
        yield "wandb_project changes nothing without log_wandb=True."
    if "filter_inter_by_user_or_item" in chosen and external["filter_inter_by_user_or_item"] is True:
        loaded = settings.get("load_col")
        if loaded is not None and not {"user", "item"} & set(loaded):
            yield (
                "filter_inter_by_user_or_item changes nothing: load_col loads no column of the .user or .item file. "
                'Name some, e.g. --load_col="{inter: [user_id, item_id], item: [item_id]}".'
            )


def columns_without_effect(external: Mapping[str, Any], header: Mapping[str, str] | None) -> Iterator[str]:
    """Yield a sentence for each setting that the user gave and that names a column of interactions that is not there.

    Args:
        external: the settings that the user gave.
        header: the columns of the interactions; None where their file is not there.
    """
    for name in ("RATING_FIELD", "TIME_FIELD") if header else ():
        column = external.get(name)
        if column not in (None, "None") and column not in (header or {}):
            yield (
                f"{name}={column} changes nothing: the interactions have no column '{column}', only "
                f"{', '.join(header or ())}."
            )


def _of_repetition(name: str, values: Sequence[Any], chosen: set[str]) -> Iterator[str]:
    """Yield a sentence where a list names something twice."""
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice and name in chosen:
        yield f"{name} names {', '.join(twice)} more than once, which changes nothing."


def _of_gpus(settings: Mapping[str, Any], external: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence where GPUs are named, and the run is on a CPU; RecBole's own 0 is no choice."""
    named = str(external.get("gpu_id", "")).strip("[]() ")
    if named in ("", "0", "None") or settings["device"].type != "cpu":
        return
    reason = "no such GPU was found" if settings["use_gpu"] else f"use_gpu={settings['use_gpu']}"
    yield f"gpu_id={named} changes nothing: {reason}, so the run is on the CPU."


def _of_split(settings: Mapping[str, Any], external: Mapping[str, Any], chosen: set[str]) -> Iterator[str]:
    """Yield a sentence for what a split that is ready makes void."""
    parts = settings.get("benchmark_filename")
    source = "benchmark_filename" if parts is not None else "split_file" if settings.get("split_file") else None
    if source is None:
        return
    given_args = external.get("eval_args")
    void = [key for key in ("split", "order", "group_by") if isinstance(given_args, Mapping) and given_args.get(key)]
    if void:
        yield (
            f"{', '.join(void)} of eval_args: no effect, since {source}={settings[source]} says what is for training. "
            f"Set {source} to nothing (~) to split otherwise."
        )
    filters = [name for name in _FILTERS if name in chosen and parts is not None]
    if filters:
        yield (
            f"{', '.join(filters)}: no effect on the files of benchmark_filename={parts}, which RecBole does not "
            "filter. Filter the files themselves."
        )


def _of_negatives(arguments: Any) -> Iterator[str]:
    if not isinstance(arguments, Mapping):
        return
    if arguments.get("distribution", "uniform") == "uniform" and arguments.get("alpha") not in (None, 1):
        yield "alpha of train_neg_sample_args changes nothing with the distribution uniform; set it to popularity."
    if arguments.get("candidate_num") and not arguments.get("dynamic"):
        yield "candidate_num of train_neg_sample_args changes nothing without dynamic: True."
