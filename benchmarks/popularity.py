"""Compare what trained models recommend with what is popular.

    python benchmarks/popularity.py saved/GCCF-....pth saved/GCCF_RLMRecCon-....pth

For each checkpoint: its recall on the test split, that of the items with most training interactions, and the share of
its list that the list of popular items has too; a user's training items are in neither list, nor validation items where
the protocol leaves those out. A model whose share is near 1 ranks by popularity, whoever the user is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch

from recbole_rlmrec.experiment.lists import ranked_items
from recbole_rlmrec.quick_start import load_model
from recbole_rlmrec.training.evaluation import hits_and_counts
from recbole_rlmrec.training.popularity import PopularityRanking


def compared_with_popularity(path: Path, k: int, data_path: str | None) -> tuple[float, float, float]:
    """Return the model's recall at k, that of popular items, and the share of its lists that both have."""
    config, model, dataset, train_data, _, test_data = load_model(path, {"data_path": data_path} if data_path else None)
    sold = PopularityRanking(
        dataset.iid_field, train_data._dataset.inter_feat[dataset.iid_field], dataset.item_num
    ).scores
    recalls: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    shares = []
    with torch.no_grad():
        for users, history, rows, items in test_data:
            scores = model.full_sort_predict(users.to(config["device"])).view(len(users), dataset.item_num).cpu()
            lists = []
            for ranking, recall in zip((scores, sold.repeat(len(users), 1)), recalls):
                lists.append(torch.from_numpy(ranked_items(ranking, history, k)))
                *hits, counts = hits_and_counts(lists[-1], rows, items, dataset.item_num).numpy().T
                recall.append(np.sum(hits, axis=0) / counts)
            shares.append((lists[0][:, :, None] == lists[1][:, None, :]).any(dim=2).float().mean(dim=1).numpy())
    own, popular = (float(np.concatenate(recall).mean()) for recall in recalls)
    return own, popular, float(np.concatenate(shares).mean())


def main(given: Sequence[str] | None = None) -> int:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--k", type=int, default=20, help="length of the lists (20)")
    parser.add_argument("--data_path", help="folder of datasets, if not that of the training")
    arguments = parser.parse_args(given)
    rows: list[list[Any]] = []
    for path in arguments.checkpoints:
        own, popular, share = compared_with_popularity(path, arguments.k, arguments.data_path)
        rows.append([path.stem.split("-")[0], f"{own:.4f}", f"{popular:.4f}", f"{share:.1%}"])
    print(timing.table(["model", f"Recall@{arguments.k}", "of popular items", "shared"], rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
