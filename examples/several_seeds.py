"""Is the difference between two models more than chance? Several seeds, and a paired test over the users.

    python examples/several_seeds.py --seeds 1 2 3

One training says little: another seed gives other numbers. So both models are trained with each seed, on the same
split, which the seed does not change. For each user the recall is averaged over the seeds, and the two models' values
of the same users are compared by a paired t-test.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import scipy.stats

from recbole_rlmrec import run


def recall_by_user(loaded: Any, k: int = 20) -> np.ndarray:
    """Return the recall of each test user, ``[n]``, with what is known from training and validation left out.

    Args:
        loaded: what ``run(...).load()`` returns.
        k: length of the lists.
    """
    scores = loaded.scores().values
    recalls = []
    for users, history, rows, items in loaded.test_data:
        block = scores[users["user_id"].numpy() - 1]  # row 0 is the first user: RecBole's ids begin at 1
        if history is not None:
            known_rows, known_items = history
            block[known_rows, known_items - 1] = -np.inf
        is_listed = np.zeros(block.shape, dtype=bool)
        np.put_along_axis(is_listed, (-block).argsort(axis=1)[:, :k], values=True, axis=1)
        is_sought = np.zeros(block.shape, dtype=bool)
        is_sought[rows, items - 1] = True
        recalls.append((is_listed & is_sought).sum(axis=1) / is_sought.sum(axis=1))
    return np.concatenate(recalls)


def main() -> None:
    """Train two models with several seeds and print the test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs=2, default=["LightGCN", "LightGCN_RLMRecCon"], help="(%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="(%(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs at most (%(default)s)")
    arguments = parser.parse_args()
    settings = {"epochs": arguments.epochs, "learning_rate": 0.005, "show_progress": False, "base_first": False}

    means = []
    for model in arguments.models:
        by_seed = []
        for seed in arguments.seeds:
            result = run(model, "ml-100k", config_dict={**settings, "seed": seed}, own_log=False)
            by_seed.append(recall_by_user(result.load()))
            print(f"{model:<22}seed {seed}  Recall@20 {by_seed[-1].mean():.4f}")
        spread = f" ± {np.std([each.mean() for each in by_seed], ddof=1):.4f}" if len(by_seed) > 1 else ""
        means.append(np.mean(by_seed, axis=0))
        print(f"{model:<22}mean    Recall@20 {means[-1].mean():.4f}{spread}")

    difference = means[1] - means[0]
    p_value = scipy.stats.ttest_rel(means[1], means[0]).pvalue
    print(
        f"{arguments.models[1]} - {arguments.models[0]}: {difference.mean():+.4f} over {len(difference)} users, "
        f"p = {p_value:.3g} (paired t-test)"
    )


if __name__ == "__main__":
    main()
