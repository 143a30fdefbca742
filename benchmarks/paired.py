"""Test whether two trained models differ, user by user.

    python benchmarks/paired.py saved/LightGCN-....pth saved/LightGCN_RLMRecCon-....pth

Both checkpoints must be of the same data and protocol. For each metric: the mean over the test users of either model,
the mean of the differences with its 95 % confidence interval, and the p-values of a paired t-test and of Wilcoxon's
signed-rank test (zeros split, normal approximation). It compares one pair of runs, not two methods: other seeds are
another question.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats
import timing
import torch
from recbole.evaluator.register import metrics_dict

from recbole_rlmrec.data.dataset import fingerprint
from recbole_rlmrec.experiment.lists import ranked_items
from recbole_rlmrec.quick_start import load_model
from recbole_rlmrec.training.evaluation import hits_and_counts

#: Metrics whose value for a user follows from hits and the number of items to be found.
_METRICS = ("recall", "ndcg", "map")


def metrics_by_user(path: Path, metrics: Sequence[str], data_path: str | None) -> tuple[dict[str, Any], np.ndarray]:
    """Evaluate a checkpoint on its test split.

    Args:
        path: the checkpoint.
        metrics: such as ``recall@20``.
        data_path: folder of datasets, if not that of the training.

    Returns:
        What must be the same in the other checkpoint, and ``[metrics, users]``.
    """
    config, model, dataset, _, _, test_data = load_model(path, {"data_path": data_path} if data_path else None)
    wanted = [(name, int(k)) for name, _, k in (metric.lower().partition("@") for metric in metrics)]
    collected = []
    with torch.no_grad():
        for users, history, rows, items in test_data:
            scores = model.full_sort_predict(users.to(config["device"])).view(len(users), dataset.item_num)
            ranked = torch.from_numpy(ranked_items(scores, history, max(k for _, k in wanted)))
            collected.append(hits_and_counts(ranked, rows, items, dataset.item_num).cpu())
    *hits, counts = torch.cat(collected).numpy().T
    table = [
        metrics_dict[name](config).metric_info(np.array(hits, dtype=bool).T, counts)[:, k - 1] for name, k in wanted
    ]
    # Hashes of the test pairs and of the ids; the training is the models' affair.
    conditions = fingerprint(test_data._dataset, with_embeddings=False)
    conditions["test interactions"] = conditions.pop("training interactions")
    return {**conditions, "eval_protocol": config["eval_protocol"]}, np.array(table)


def compared(first: np.ndarray, second: np.ndarray) -> list[str]:
    """Return the columns of a comparison of one metric of the same users, ``[users]`` each."""
    difference = second - first
    if not difference.any():
        return [f"{first.mean():.4f}", f"{second.mean():.4f}", "no user differs", "+0.0%", "1", "1", "0.0% / 0.0%"]
    low, high = scipy.stats.t.interval(
        0.95, len(difference) - 1, loc=difference.mean(), scale=scipy.stats.sem(difference)
    )
    t_test = scipy.stats.ttest_rel(second, first).pvalue
    wilcoxon = scipy.stats.wilcoxon(difference, zero_method="zsplit", method="approx").pvalue
    return [
        f"{first.mean():.4f}",
        f"{second.mean():.4f}",
        f"{difference.mean():+.4f} ({low:+.4f} to {high:+.4f})",
        f"{difference.mean() / first.mean():+.1%}",
        f"{t_test:.2g}",
        f"{wilcoxon:.2g}",
        f"{np.mean(difference > 0):.1%} / {np.mean(difference < 0):.1%}",
    ]


def main(given: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="checkpoint that is compared with, such as the base's")
    parser.add_argument("second", type=Path, nargs="+", help="checkpoints that are compared with it")
    parser.add_argument("--metrics", nargs="+", default=["recall@20", "ndcg@20"])
    parser.add_argument("--data_path", help="folder of datasets, if not that of the training")
    arguments = parser.parse_args(given)
    pattern = re.compile(rf"({'|'.join(_METRICS)})@[1-9][0-9]*", re.IGNORECASE)
    unknown = [metric for metric in arguments.metrics if not pattern.fullmatch(metric)]
    if unknown:
        parser.error(f"{', '.join(unknown)}: expected {', '.join(_METRICS)} at some rank, such as recall@20")
    conditions, first = metrics_by_user(arguments.first, arguments.metrics, arguments.data_path)
    header = ["model, metric", "first", "second", "difference (95 % interval)", "relative", "p, t-test", "p, Wilcoxon"]
    header.append("users better / worse")
    rows = []
    for path in arguments.second:
        own_conditions, second = metrics_by_user(path, arguments.metrics, arguments.data_path)
        differing = [name for name, value in conditions.items() if own_conditions.get(name) != value]
        if differing:
            parser.error(f"{path} and {arguments.first} do not have the same: {', '.join(differing)}")
        rows += [
            [f"{path.stem.split('-')[0]}, {metric}", *compared(first[number], second[number])]
            for number, metric in enumerate(arguments.metrics)
        ]
    print(f"First: {arguments.first.stem.split('-')[0]}; {first.shape[1]:,} users\n\n{timing.table(header, rows)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
