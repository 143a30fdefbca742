"""What evaluation collects, and that a whole evaluation gives RecBole's metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.interaction import Interaction
from recbole.evaluator import Collector, Evaluator
from recbole.sampler import Sampler
from recbole.trainer import Trainer as RecBoleTrainer
from recbole.utils import init_seed
from trainings import train

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.loader import FullSortLoader
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.data.sampler import PairSampler
from recbole_rlmrec.errors import CheckpointError, TrainingError
from recbole_rlmrec.ops.distributed import Shard
from recbole_rlmrec.quick_start import load_model
from recbole_rlmrec.training import evaluation as module
from recbole_rlmrec.training.checkpoint import load_checkpoint
from recbole_rlmrec.training.evaluation import ScoreCheck, TopKCollector, hits_and_counts
from recbole_rlmrec.training.trainer import trainer_class

PHASES = ["train", "valid", "test"]
N_ITEMS = 23


class RepairedCollector(Collector):
    """RecBole's, for the metrics that make it ask a number for its `cpu()`."""

    def get_data_struct(self) -> Any:
        others = {
            name: self.data_struct[name]
            for name in list(self.data_struct._data_dict)
            if "num" in name or "count" in name
        }
        for name in others:
            del self.data_struct[name]
        struct = super().get_data_struct()
        for name, value in others.items():
            struct.set(name, value)
            self.data_struct.set(name, value)
        return struct


def settings(*metrics: str, topk: tuple[int, ...] = (2, 5)) -> dict[str, Any]:
    return {
        "metrics": list(metrics),
        "topk": list(topk),
        "device": torch.device("cpu"),
        "eval_args": {"mode": {"valid": "full", "test": "full"}},
        "metric_decimal_place": 10,
        "LABEL_FIELD": "label",
    }


def blocks(n_blocks: int, seed: int = 0) -> Iterator[tuple[torch.Tensor, Interaction, torch.Tensor, torch.Tensor]]:
    """Scores with ties and masked items, and positives in no order, some of them twice; one row has none."""
    generator = torch.Generator().manual_seed(seed)
    for number in range(n_blocks):
        n_rows = 6 + number
        scores = torch.randint(0, 40, (n_rows, N_ITEMS), generator=generator) / 8
        scores[:, 0] = scores[1, 3:9] = -torch.inf
        rows = torch.randint(1, n_rows, (50,), generator=generator)
        items = torch.randint(1, N_ITEMS, (50,), generator=generator)
        labels = torch.randint(0, 2, (n_rows,), generator=generator).float()
        yield scores, Interaction({"label": labels}), rows, items


def test_hits_and_counts() -> None:
    ranked = torch.tensor([[4, 1, 2], [3, 4, 1], [2, 3, 4]])
    rows, items = torch.tensor([1, 0, 1, 1, 0]), torch.tensor([1, 4, 3, 3, 9])
    assert hits_and_counts(ranked, rows, items, 10).tolist() == [[1, 0, 0, 2], [1, 0, 1, 2], [0, 0, 0, 0]]
    nothing = torch.tensor([], dtype=torch.int64)
    assert hits_and_counts(ranked, nothing, nothing, 10).tolist() == [[0, 0, 0, 0]] * 3


def test_the_last_item_of_the_last_row() -> None:
    """Its key is the largest of all, next to the end of the search."""
    ranked = torch.tensor([[8, 9], [9, 8]])
    rows, items = torch.tensor([0, 1]), torch.tensor([9, 9])
    assert hits_and_counts(ranked, rows, items, 10).tolist() == [[0, 1, 1], [1, 0, 1]]


@pytest.mark.parametrize(
    "metrics",
    [
        ("Recall", "NDCG"),
        ("ShannonEntropy",),
        ("Hit", "ShannonEntropy"),
        ("GAUC",),
        ("AUC", "LogLoss"),
        ("MRR", "GAUC", "ShannonEntropy", "AUC"),
    ],
)
@pytest.mark.parametrize("n_blocks", [1, 4])
def test_collected_is_recboles(metrics: tuple[str, ...], n_blocks: int) -> None:
    theirs, ours = (kind(settings(*metrics)) for kind in (Collector, TopKCollector))
    for evaluation in range(2):  # the second starts again
        for block in blocks(n_blocks, seed=evaluation):
            for collector in (theirs, ours):
                collector.eval_batch_collect(*block)
        expected, struct = theirs.get_data_struct(), ours.get_data_struct()
        assert set(struct._data_dict) == set(expected._data_dict) != set()
        for name, value in expected._data_dict.items():
            assert struct[name].dtype == value.dtype
            assert torch.equal(struct[name], value)


def test_models_that_predict_all_at_once() -> None:
    theirs, ours = (kind(settings("AUC")) for kind in (Collector, TopKCollector))
    for collector in (theirs, ours):
        collector.eval_collect(torch.tensor([0.1, 0.9]), torch.tensor([0.0, 1.0]))
    expected, struct = theirs.get_data_struct(), ours.get_data_struct()
    assert all(torch.equal(struct[name], expected[name]) for name in ("rec.score", "data.label"))


def test_what_is_collected_stays_as_it_was() -> None:
    collector = TopKCollector(settings("Recall", "AUC"))
    (block,) = blocks(1)
    scores = block[0].clone()
    collector.eval_batch_collect(*block)
    block[0].zero_()
    assert torch.equal(collector.get_data_struct()["rec.score"], scores)


def test_nothing_collected() -> None:
    struct = TopKCollector(settings("Recall", "ShannonEntropy")).get_data_struct()
    assert struct["rec.topk"].shape == (0, 6) and struct["rec.items"].shape == (0, 5)
    assert struct["rec.topk"].dtype == struct["rec.items"].dtype == torch.int64


def test_one_topk_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    topk = torch.topk

    def counted(*arguments: Any, **named: Any) -> Any:
        calls["topk"] += 1
        return topk(*arguments, **named)

    monkeypatch.setattr(torch, "topk", counted)
    collector = TopKCollector(settings("Recall", "ShannonEntropy"))
    for block in blocks(3):
        collector.eval_batch_collect(*block)
    assert calls["topk"] == 3


METRICS = ["Recall", "NDCG", "MRR", "Hit", "Precision", "MAP", "ItemCoverage", "AveragePopularity", "GiniIndex"]


def recboles_result(config: Any, model: Any, parts: list[Any], phase: str, train_data: Any) -> dict[str, float]:
    """Evaluate with RecBole's trainer, loader, sampler and collector."""
    phases = ["train", "test"] if config["eval_protocol"] == "paper" and phase == "test" else PHASES
    used = Sampler(phases, [parts[PHASES.index(name)] for name in phases]).set_phase(phase)
    trainer = RecBoleTrainer(config, model)
    trainer.eval_collector = RepairedCollector(config)
    trainer.eval_collector.data_collect(train_data)
    try:
        loader = FullSortEvalDataLoader(config, parts[PHASES.index(phase)], used)
        result: dict[str, float] = trainer.evaluate(loader, load_best_model=False)
    finally:
        trainer.tensorboard.close()
    return result


@pytest.mark.parametrize("protocol", ["recbole", "paper"])
def test_evaluation_of_ml_100k_is_recboles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = {"metrics": METRICS, "metric_decimal_place": 10, "eval_protocol": protocol, "show_progress": False}
    chosen.update(data_path=str(tmp_path), checkpoint_dir=str(tmp_path), embedding_size=16, epochs=1)

    def configure(eval_batch_size: int) -> Any:
        return RLMRecConfig("LightGCN", "ml-100k", config_dict={**chosen, "eval_batch_size": eval_batch_size})

    config = configure(1683 * 50)  # 943 users: 18 blocks of 50 and one of fewer
    init_seed(config["seed"], config["reproducibility"])
    dataset = create_dataset(config)
    train_data, valid_data, test_data = data_preparation(config, dataset)
    model = config.model_class(config, train_data._dataset)
    trainer = trainer_class(config)(config, model)
    try:
        trainer.fit(train_data, saved=False)
        results = [trainer.evaluate(loader, load_best_model=False) for loader in (valid_data, test_data)]
    finally:
        trainer.tensorboard.close()
    assert type(valid_data) is type(test_data) is FullSortLoader
    assert type(trainer.eval_collector) is TopKCollector
    parts = [loader._dataset for loader in (train_data, valid_data, test_data)]
    for phase, result in zip(PHASES[1:], results):
        expected = recboles_result(configure(4096), model, parts, phase, train_data)
        assert len(result) == len(METRICS) * 3
        assert list(result) == list(expected)
        assert result == pytest.approx(expected, abs=1e-6)
    assert results[0] != results[1] and 0.01 < results[1]["recall@20"] < 1


def ranked_by_user(world: World, shard: Shard | None = None, **sizes: Any) -> dict[int, list[int]]:
    """Collect random scores of the test users, block by block; what is collected of each, by user."""
    config = world.config("BPR", metrics=["Recall", "NDCG"], **sizes)
    parts = create_dataset(config).build()
    loader = FullSortLoader(config, parts[2], PairSampler(PHASES, parts).set_phase("test"), shard=shard)
    table = torch.rand(parts[0].user_num, parts[0].item_num, generator=torch.Generator().manual_seed(4))
    collector = TopKCollector(config)
    for users, history, *positives in loader:
        scores = table[users["user_id"]]
        scores[:, 0] = scores[history] = -np.inf
        collector.eval_batch_collect(scores, users, *positives)
    collected = collector.get_data_struct()["rec.topk"]
    assert len(collected) == len(loader.uid_list)
    return dict(zip(loader.uid_list.tolist(), collected.tolist()))


def test_blocks_and_shards_collect_the_same(world: World) -> None:
    whole = ranked_by_user(world)
    assert len(whole) == 28
    for n_users in (1, 5, 27):
        assert ranked_by_user(world, eval_batch_size=31 * n_users) == whole
    united: dict[int, list[int]] = {}
    for rank in range(3):
        united.update(ranked_by_user(world, Shard(rank, 3), eval_batch_size=31 * 4))
    assert united == whole
    assert ranked_by_user(world, Shard(0, 41)) == {}


def test_one_user_is_evaluated(world: World) -> None:
    world.test = world.test[world.test[:, 0] == world.test[0, 0]]
    world.write()
    config = world.config("BPR", metric_decimal_place=10)
    train_data, _, test_data = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset)
    trainer = trainer_class(config)(config, model)
    try:
        result = trainer.evaluate(test_data, load_best_model=False)
    finally:
        trainer.tensorboard.close()
    parts = [loader._dataset for loader in (train_data, train_data, test_data)]
    assert result == pytest.approx(recboles_result(config, model, parts, "test", train_data), abs=1e-6)


# ---------------------------------------------------------------------- scores that are no numbers


def evaluated(world: World, change: Callable[[Any], None], *, sampled: bool = False, **settings: Any) -> Any:
    """Change the weights of a BPR and evaluate it on the test split."""
    if sampled:
        settings["eval_args"] = {"mode": {"valid": "uni5", "test": "uni5"}}
    config = world.config("BPR", **settings)
    _, train_data, _, test_data = world.loaders(config)
    model = config.model_class(config, train_data._dataset)
    with torch.no_grad():
        change(model)
    trainer = trainer_class(config)(config, model)
    try:
        return trainer.evaluate(test_data, load_best_model=False)
    finally:
        trainer.tensorboard.close()


def set_rows(model: Any, table: str, rows: Any, value: float) -> None:
    getattr(model, f"{table}_embedding").weight[rows] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38])
@pytest.mark.parametrize("sampled", [False, True])
def test_scores_that_are_no_numbers_are_not_ranked(world: World, value: float, sampled: bool) -> None:
    """Every score is such a one: 28 users of the test, with 30 items less those that are masked."""
    with pytest.raises(
        TrainingError, match=r"scores of BPR with its weights are not finite: .*learning_rate"
    ) as raised:
        evaluated(
            world,
            lambda model: [set_rows(model, table, slice(None), value) for table in ("user", "item")],
            sampled=sampled,
        )
    masked = len(world.train[np.isin(world.train[:, 0], world.test[:, 0])]) + len(
        world.valid[np.isin(world.valid[:, 0], world.test[:, 0])]
    )
    n = len(world.test) * 6 if sampled else 28 * 30 - masked
    assert f"{n:,} of {n:,} scores, of 28 of 28 users" in str(raised.value)


def test_only_scores_that_no_mask_covers_count(world: World) -> None:
    """An item whose vector is NaN spoils the users to whom it may be recommended, and these alone are counted."""
    users = {user for user, _ in world.test.tolist()}
    item = world.test[0, 1]
    known = {user for part in (world.train, world.valid) for user, other in part.tolist() if other == item}

    def spoil(model: Any) -> None:
        set_rows(model, "item", ids[item], float("nan"))

    config = world.config("BPR")
    ids = create_dataset(config).build()[0].field2token_id["item_id"]
    n_spoilt = len(users - known)
    assert 0 < n_spoilt < len(users)
    with pytest.raises(TrainingError, match=f": {n_spoilt} of [0-9]+ scores, of {n_spoilt} of 28 users"):
        evaluated(world, spoil)


@pytest.mark.parametrize("sampled", [False, True])
def test_padding_may_score_anything_and_sums_may_overflow(world: World, sampled: bool) -> None:
    def pad(model: Any) -> None:
        set_rows(model, "item", 0, float("nan"))

    expected = evaluated(world, lambda model: None, sampled=sampled)
    assert evaluated(world, pad, sampled=sampled) == expected

    def large(model: Any) -> None:
        for table in ("user", "item"):
            getattr(model, f"{table}_embedding").weight.fill_(6e18)  # scores of 2.9e38, which the sum of two is not

    evaluated(world, large, sampled=sampled)


def test_blocks_are_added_up(world: World) -> None:
    for eval_batch_size in (31, 31 * 5, 31 * 100):
        with pytest.raises(TrainingError, match=r"of 28 of 28 users"):
            evaluated(
                world, lambda model: set_rows(model, "user", slice(None), float("nan")), eval_batch_size=eval_batch_size
            )


def test_processes_that_share_the_users_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one without users learns of it, or it would wait for the others for ever."""
    monkeypatch.setattr(module, "gather_rows", lambda counts: torch.cat([counts, torch.tensor([[3, 2, 9, 4]])]))
    with pytest.raises(TrainingError, match="3 of 9 scores, of 2 of 4 users"):
        ScoreCheck(is_shared=True).require_finite("BPR", "here")
    ScoreCheck().require_finite("BPR", "here")


def test_a_collector_of_ones_own_is_no_way_around(world: World) -> None:
    class Mine(Collector):
        pass

    config = world.config("BPR")
    train_data, _, test_data = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset)
    with torch.no_grad():
        set_rows(model, "user", slice(None), float("nan"))
    trainer = trainer_class(config)(config, model)
    trainer.eval_collector = Mine(config)
    try:
        with pytest.raises(TrainingError, match="are not finite"):
            trainer.evaluate(test_data, load_best_model=False)
    finally:
        trainer.tensorboard.close()


def test_a_training_whose_scores_become_infinite_says_after_which_epoch(world: World) -> None:
    """One step: its loss is finite, and the weights that it leaves are not worth a ranking."""
    with pytest.raises(TrainingError, match=r"scores of LightGCN after epoch 0 are not finite"):
        train(world, "LightGCN", learning_rate=1e30, train_batch_size=10_000)


def test_a_checkpoint_of_huge_weights_says_which(world: World) -> None:
    checkpoint = train(world, "BPR").checkpoint
    stored = load_checkpoint(checkpoint)
    for name in ("user_embedding.weight", "item_embedding.weight"):
        stored["state_dict"][name].fill_(1e30)
    torch.save(stored, checkpoint)
    config, model, _, _, valid_data, test_data = load_model(checkpoint)
    trainer = trainer_class(config)(config, model)
    try:
        for data in (valid_data, test_data):
            with pytest.raises(TrainingError, match="scores of BPR with its weights are not finite"):
                trainer.evaluate(data, load_best_model=False)
            with pytest.raises(TrainingError, match=rf"with the weights of '{checkpoint}', epoch {stored['epoch']},"):
                trainer.evaluate(data, model_file=checkpoint)
    finally:
        trainer.tensorboard.close()


def test_a_checkpoint_of_nan_is_refused(world: World) -> None:
    checkpoint = train(world, "BPR").checkpoint
    stored = load_checkpoint(checkpoint)
    stored["state_dict"]["user_embedding.weight"].fill_(float("nan"))
    torch.save(stored, checkpoint)
    with pytest.raises(CheckpointError, match=r"'user_embedding.weight' has .* values that are no finite numbers"):
        load_model(checkpoint)


def test_a_metric_that_needs_the_number_of_items(world: World) -> None:
    """RecBole 1.2.1 asks this number for its `cpu()`."""
    config = world.config("BPR", metrics=["ItemCoverage"], valid_metric="ItemCoverage@20")
    train_data, _, _ = data_preparation(config, create_dataset(config))
    (block,) = blocks(1)
    scores = torch.nn.functional.pad(block[0], (0, 8))
    collector = TopKCollector(config)
    collector.data_collect(train_data)
    collector.eval_batch_collect(scores.clone(), *block[1:])
    result = Evaluator(config).evaluate(collector.get_data_struct())
    recommended = {int(item) for row in scores for item in row.argsort(descending=True)[:20]}
    assert result["itemcoverage@20"] == round(len(recommended) / train_data._dataset.item_num, 4)
