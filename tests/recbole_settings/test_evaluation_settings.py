"""Metrics, ranks and the metric that chooses: what will not be computed is refused at once."""

from __future__ import annotations

from typing import Any

import pytest

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import SettingError


def configured(model: str = "LightGCN", **settings: Any) -> RLMRecConfig:
    return RLMRecConfig(model, "nosuch", config_dict=settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ["Recal"]}, "there is no metric 'Recal'. Did you mean 'Recall'? RecBole's are AUC, AveragePopul"),
        ({"metrics": ["Recall", "AUC"]}, "of single scores (AUC, LogLoss, MAE, RMSE) cannot be computed in one run"),
        ({"valid_metric": "NDCG"}, "valid_metric='NDCG' (from config_dict) is not computed; the metrics are"),
        ({"valid_metric": "NDCG"}, "Say at which rank: NDCG@20."),
        ({"valid_metric": "Recall@7"}, "Choose one of them, such as Recall@20, or add it."),
        ({"valid_metric": "Foo@20"}, "valid_metric='Foo@20' (from config_dict) is not computed"),
        ({"valid_metric": "MRR@20"}, "valid_metric='MRR@20' (from config_dict) is not computed"),
        ({"metrics": ["Recall", "GAUC"], "valid_metric": "GAUC@5"}, "GAUC looks at no rank: leave @5 out."),
        ({"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "full"}}, "Set the mode to labeled"),
        ({"eval_args": {"mode": "labeled"}}, "labels are compared by metrics of single scores"),
        ({"eval_args": {"mode": {"valid": "labeled", "test": "full"}}}, "labels are compared by metrics of single"),
        ({"topk": 10, "valid_metric": "Recall@20"}, "valid_metric='Recall@20' (from config_dict) is not computed"),
    ],
)
def test_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError) as caught:
        configured(**settings)
    assert message in str(caught.value)


@pytest.mark.parametrize(("topk", "metric"), [(10, "Recall@10"), ([5, 10], "Recall@10"), ([50, 20], "Recall@20")])
def test_ranks_alone_take_the_metric_that_chooses_along(topk: Any, metric: str) -> None:
    config = configured(topk=topk)
    assert config["valid_metric"] == config.settings["valid_metric"] == metric
    again = RLMRecConfig("LightGCN", "nosuch", config_dict={**config.settings, "model": None, "dataset": None})
    assert again["valid_metric"] == metric
    assert [message for _, message in config.notes] == (
        [] if metric == "Recall@20" else [f"valid_metric={metric}, for topk={topk}."]
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"metrics": ["Recall", "GAUC"], "valid_metric": "GAUC"},
        {"metrics": ["recall", "ndcg"], "valid_metric": "ndcg@5"},
        {"metrics": ["AUC"], "valid_metric": "AUC", "eval_args": {"mode": "labeled"}},
        {"metrics": ["ItemCoverage"], "valid_metric": "ItemCoverage@20"},
    ],
)
def test_accepted(settings: dict[str, Any]) -> None:
    assert configured(**settings)["valid_metric"] == settings["valid_metric"]
