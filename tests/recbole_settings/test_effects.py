"""Settings that change nothing in a run are said, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_rlmrec.config import RLMRecConfig

PARTS = ["train", "valid", "test"]


def notes(model: str, **settings: Any) -> list[str]:
    config = RLMRecConfig(model, "nosuch", config_dict=settings)
    return [message for level, message in config.notes if level == "warning"]


LOADED = {"load_col": {"inter": ["user_id", "item_id", "rating"]}}


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("LightGCN", {"threshold": {"rating": 3}, **LOADED}, "give --val_interval=\"{rating: '[3,inf)'}\" instead."),
        ("LightGCN", {"benchmark_filename": PARTS, "eval_args": {"order": "RO"}}, "order of eval_args: no effect"),
        (
            "LightGCN",
            {"split_file": "a.json", "eval_args": {"split": {"RS": [8, 1, 1]}}},
            "since split_file=a.json",
        ),
        ("LightGCN", {"benchmark_filename": PARTS, "user_inter_num_interval": "[5,inf)"}, "RecBole does not filter"),
        ("EASE", {"train_neg_sample_args": {"sample_num": 2}}, "EASE draws no negatives in training"),
        ("MultiVAE", {"train_neg_sample_args": {"sample_num": 2}}, "MultiVAE draws no negatives in training"),
        ("LightGCN", {"train_neg_sample_args": {"alpha": 0.5}}, "changes nothing with the distribution uniform"),
        ("LightGCN", {"train_neg_sample_args": {"candidate_num": 5}}, "changes nothing without dynamic"),
        ("ItemKNN", {"learning_rate": 0.1}, "learning_rate changes nothing: ItemKNN is not trained in steps."),
        ("FM", {"topk": [10]}, "topk changes nothing: the metrics are of single scores"),
        ("BPR", {"enable_scaler": True}, "enable_scaler changes nothing without enable_amp=True."),
        ("BPR", {"wandb_project": "shop"}, "wandb_project changes nothing without log_wandb=True."),
        ("BPR", {"filter_inter_by_user_or_item": True}, "load_col loads no column of the .user or .item file"),
        (
            "BPR",
            {"topk": [5, 10, 5], "valid_metric": "Recall@5"},
            "topk names 5 more than once, which changes nothing.",
        ),
        ("BPR", {"metrics": ["Recall", "NDCG", "recall"]}, "metrics names recall more than once"),
        ("BPR", {"gpu_id": "99", "use_gpu": False}, "gpu_id=99 changes nothing: use_gpu=False, so the run is on the"),
        ("SGL", {"ssl_weight": 0.1, "ssl_share": 0.2}, "ssl_share=0.2 changes nothing beside the other settings."),
    ],
)
def test_said(model: str, settings: dict[str, Any], message: str) -> None:
    found = notes(model, **settings)
    assert len(found) == 1 and message in found[0]


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("FM", {"threshold": {"rating": 3}, **LOADED}),
        ("LightGCN", {"eval_args": {"order": "RO"}, "user_inter_num_interval": "[5,inf)"}),
        ("LightGCN", {"benchmark_filename": PARTS, "eval_args": {"mode": "uni100"}}),
        ("LightGCN", {"train_neg_sample_args": {"distribution": "popularity", "alpha": 0.5}, "learning_rate": 0.1}),
        ("MultiVAE", {"learning_rate": 0.1}),
        ("SGL", {"ssl_share": 0.2}),
        ("BPR", {"topk": [5, 10], "valid_metric": "Recall@5", "gpu_id": 0}),
    ],
)
def test_not_said_of_what_has_an_effect(model: str, settings: dict[str, Any]) -> None:
    assert notes(model, **settings) == []


@pytest.mark.parametrize("name", ["RATING_FIELD", "TIME_FIELD"])
def test_a_column_that_is_not_there(tmp_path: Path, name: str) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "shop.inter").write_text("user_id:token\titem_id:token\tstars:float\nu\ti\t5\n")

    def said(column: str) -> list[str]:
        config = RLMRecConfig("BPR", "shop", config_dict={"data_path": str(tmp_path), name: column})
        return [message for _, message in config.notes]

    columns = "user_id, item_id, stars"
    assert said("foo") == [f"{name}=foo changes nothing: the interactions have no column 'foo', only {columns}."]
    assert said("stars") == []
