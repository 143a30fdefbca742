"""Train a recommender alone, with contrastive and with generative alignment, and compare the three.

    python examples/compare.py
    python examples/compare.py --backbone SimGCL --epochs 20

The data are ml-100k, which is part of RecBole, with the semantic embeddings that are part of this package: nothing is
downloaded. Each model is trained until its validation stops rising, or for ``--epochs`` at most.
"""

from __future__ import annotations

import argparse

from recbole_rlmrec import run


def main() -> None:
    """Train the three models and print their test results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="LightGCN", help="such as LightGCN, SGL, SimGCL (%(default)s)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs at most (%(default)s)")
    arguments = parser.parse_args()
    # base_first would train the base again inside each aligned model's run.
    settings = {"epochs": arguments.epochs, "learning_rate": 0.005, "show_progress": False, "base_first": False}

    print(f"{'model':<24}{'Recall@20':>10}{'NDCG@20':>10}{'best epoch':>12}{'seconds':>9}")
    for ending in ("", "_RLMRecCon", "_RLMRecGen"):
        result = run(f"{arguments.backbone}{ending}", "ml-100k", config_dict=settings, own_log=False)
        test = result.test_result
        print(
            f"{result.model:<24}{test['recall@20']:>10.4f}{test['ndcg@20']:>10.4f}"
            f"{result.best_epoch:>12}{result.seconds:>9.0f}"
        )


if __name__ == "__main__":
    main()
