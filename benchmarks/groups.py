"""Where one model is better than another: recall by how active the users are and by how well known the items are.

    python benchmarks/groups.py saved/LightGCN-....pth saved/LightGCN_RLMRecCon-....pth

Users are cut into groups of equal size by their training interactions; a group's recall is the mean over its users.
Items are cut in the same way by theirs, and each user's recall counts the items of the group only, for users who have
any to be found. For each group: both means, their difference with its 95 % confidence interval, and the p-values of
``paired.py``, over the users of the group. Both checkpoints must be of the same data and protocol.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import paired
import timing
import torch

from recbole_rlmrec.experiment.groups import groups_of
from recbole_rlmrec.experiment.lists import ranked_items
from recbole_rlmrec.quick_start import load_model


def found_and_sought(path: Path, k: int, data_path: str | None) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return what a checkpoint finds of the test interactions.

    Returns:
        Which interactions are found, ``[n]``; their user and item ids, ``[n, 2]``; and the training dataset.
    """
    config, model, dataset, train_data, _, test_data = load_model(path, {"data_path": data_path} if data_path else None)
    found, pairs = [], []
    with torch.no_grad():
        for users, history, rows, items in test_data:
            scores = model.full_sort_predict(users.to(config["device"])).view(len(users), dataset.item_num)
            ranked = torch.from_numpy(ranked_items(scores, history, k))
            found.append((ranked[rows] == items[:, None]).any(dim=1).numpy())
            pairs.append(torch.stack([users[dataset.uid_field][rows], items], dim=1).numpy())
    return np.concatenate(found), np.concatenate(pairs), train_data._dataset


def recall_by_user(found: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Return the share of each user's interactions that are found, in the order of the users' ids.

    Args:
        found: ``[n]``.
        users: of these interactions, ``[n]``.
    """
    _, row = np.unique(users, return_inverse=True)
    shares: np.ndarray = np.bincount(row, weights=found) / np.bincount(row)
    return shares


def main(given: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path, help="checkpoint that is compared with, such as the base's")
    parser.add_argument("second", type=Path, help="checkpoint that is compared with it")
    parser.add_argument("--k", type=int, default=20, help="length of the lists (20)")
    parser.add_argument("--groups", type=int, default=4, help="groups of users, and of items (4)")
    parser.add_argument("--data_path", help="folder of datasets, if not that of the training")
    arguments = parser.parse_args(given)
    first, pairs, training = found_and_sought(arguments.first, arguments.k, arguments.data_path)
    second, same_pairs, _ = found_and_sought(arguments.second, arguments.k, arguments.data_path)
    if not np.array_equal(pairs, same_pairs):
        parser.error(f"{arguments.first} and {arguments.second} were not tested on the same interactions")
    rows = []
    for side, (column, field) in enumerate(((0, training.uid_field), (1, training.iid_field))):
        ids = training.inter_feat[field].numpy()
        counts = np.bincount(ids, minlength=training.num(field))
        present = np.unique(pairs[:, column]) if side == 0 else np.arange(1, training.num(field))
        for own in groups_of(counts[present], arguments.groups):
            name = f"{counts[present][own].min()} to {counts[present][own].max()}"
            chosen = np.isin(pairs[:, column], present[own])
            values = [recall_by_user(found[chosen], pairs[chosen, 0]) for found in (first, second)]
            label = f"{'users' if side == 0 else 'items'} with {name} training interactions"
            rows.append([label, str(len(values[0])), *paired.compared(*values)])
    header = [f"Recall@{arguments.k}", "users", "first", "second", "difference (95 % interval)", "relative"]
    header += ["p, t-test", "p, Wilcoxon", "users better / worse"]
    print(timing.table(header, rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
