"""The popularity ranking: what it scores, and that its metrics are those of the evaluation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of

from recbole_rlmrec.training.popularity import PopularityRanking, is_by_user, margin_over, score_by_user
from recbole_rlmrec.training.trainer import Trainer


def test_items_are_ranked_by_their_training_interactions() -> None:
    ranking = PopularityRanking("item_id", torch.tensor([2, 2, 2, 4, 4, 1, 3]), 6)
    expected = [2, 4, 1, 3, 0, 5]  # of equal ones the first; [PAD] is masked by whoever evaluates
    assert ranking.full_sort_predict(batch_of([1], [1], [1])).argsort(descending=True).tolist() == expected
    two = ranking.full_sort_predict(batch_of([1, 2], [1, 1], [1, 1])).view(2, 6)
    assert torch.equal(two[0], two[1])
    assert torch.equal(ranking.predict(batch_of([1, 1], [4, 2], [1, 1])), two[0][[4, 2]])


def fitted(world: World, **settings: Any) -> tuple[Trainer, Any, Any]:
    config = world.config("BPR", epochs=1, **settings)
    dataset, train_data, valid_data, test_data = world.loaders(config)
    trainer = Trainer(config, config.model_class(config, train_data._dataset))
    trainer.fit(train_data, valid_data, saved=False)
    trainer.tensorboard.close()
    return trainer, dataset, test_data


def test_its_metrics_are_those_of_a_slow_count(world: World) -> None:
    trainer, dataset, test_data = fitted(world, metric_decimal_place=8)
    found = trainer.popularity_result(test_data)
    assert found is not None
    sold = {item: sum(1 for _, other in world.train if other == item) for item in dataset.field2id_token["item_id"][1:]}
    ranked = sorted(sold, key=lambda item: (-sold[item], dataset.token2id("item_id", item)))
    hidden = {(user, item) for user, item in np.concatenate([world.train, world.valid])}
    recalls = []
    for user in sorted({user for user, _ in world.test}):
        wanted = {item for other, item in world.test if other == user}
        shown = [item for item in ranked if (user, item) not in hidden][:10]
        recalls.append(len(wanted & set(shown)) / len(wanted))
    assert found["recall@10"] == pytest.approx(np.mean(recalls), abs=1e-7)


@pytest.mark.parametrize("metric", ["Recall@10", "NDCG@20", "MAP@5", "Hit@10", "MRR@10", "Precision@5"])
def test_scores_by_user_average_to_the_metric(world: World, metric: str) -> None:
    name = metric.split("@")[0]
    settings = {"metrics": [name, "Recall"], "valid_metric": metric, "metric_decimal_place": 10}
    trainer, _, test_data = fitted(world, **settings)
    result = trainer.evaluate(test_data, load_best_model=False)
    scores = score_by_user(trainer.config, metric, trainer.eval_collector.latest_hits)
    assert scores is not None and len(scores) == len({user for user, _ in world.test})
    assert scores.mean() == pytest.approx(result[metric.lower()], abs=1e-9)


def test_a_metric_that_is_no_mean_over_users_has_no_reference(world: World) -> None:
    assert not is_by_user("GAUC") and not is_by_user("ItemCoverage@10") and is_by_user("recall@20")
    trainer, _, test_data = fitted(world, metrics=["GAUC", "Recall"], valid_metric="GAUC")
    assert trainer.popularity_result(test_data) is None
    assert trainer.stopped == "epochs"


def test_the_margin_is_that_of_a_paired_test() -> None:
    rng = np.random.default_rng(0)
    reference, scores = rng.random(50), rng.random(50)
    margin = margin_over(reference, scores)
    difference = scores - reference
    assert margin.difference == pytest.approx(difference.mean()) and margin.reference == pytest.approx(reference.mean())
    assert margin.error == pytest.approx(difference.std(ddof=1) / np.sqrt(50))
    assert not margin_over(reference[:1], scores[:1]).is_above  # one user says nothing
