"""Our loaders give RecBole's batches: the same numbers in training, the same sets in evaluation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import recbole.data.dataloader.abstract_dataloader as recbole_loaders
import torch
from conftest import World
from recbole.data.dataloader import FullSortEvalDataLoader, NegSampleEvalDataLoader, TrainDataLoader, UserDataLoader
from recbole.data.utils import create_samplers
from recbole.sampler import RepeatableSampler, Sampler
from recbole.utils import InputType
from recbole.utils.case_study import full_sort_scores, full_sort_topk

from recbole_rlmrec.data.loader import FullSortLoader, TrainLoader
from recbole_rlmrec.data.preparation import _create_samplers, create_dataset, data_preparation
from recbole_rlmrec.data.sampler import PairSampler
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.ops.distributed import Shard

PHASES = ["train", "valid", "test"]
SEED = 42

Setting = tuple[Any, list[Any]]
Block = tuple[Any, tuple[torch.Tensor, torch.Tensor], torch.Tensor, torch.Tensor]


def negatives(distribution: str = "uniform", sample_num: int = 1, **others: Any) -> dict[str, Any]:
    return {"distribution": distribution, "sample_num": sample_num, "alpha": 0.8, "dynamic": False, **others}


def parts_of(world: World, model: str = "BPR", **settings: Any) -> Setting:
    config = world.config(model, **settings)
    return config, create_dataset(config).build()


def training_loaders(config: Any, parts: list[Any], shuffle: bool = True) -> tuple[Any, Any]:
    """RecBole's and ours over the same interactions."""
    arguments = config["train_neg_sample_args"]
    loaders = []
    for kind, sampler in ((TrainDataLoader, Sampler), (TrainLoader, PairSampler)):
        used = None
        if arguments["distribution"] != "none":
            used = sampler(PHASES, parts, arguments["distribution"], arguments["alpha"]).set_phase("train")
        loaders.append(kind(config, parts[0], used, shuffle=shuffle))
    theirs, ours = loaders
    return theirs, ours


def epochs(loader: Any, n: int = 3, n_batches: int | None = None) -> Iterator[tuple[list[str], list[torch.Tensor]]]:
    """Yield the fields and columns of every batch of some epochs, or of their first batches."""
    np.random.seed(SEED)
    for _ in range(n):
        for batch in itertools.islice(loader, n_batches):
            yield batch.columns, [batch[field].clone() for field in batch.columns]
    # What was drawn in all: it shows in what comes next.
    yield [], [loader.generator.get_state(), torch.from_numpy(np.random.randint(0, 2**31, 3))]


def assert_same_epochs(theirs: Any, ours: Any, **arguments: Any) -> None:
    batches, own_batches = (list(epochs(loader, **arguments)) for loader in (theirs, ours))
    assert len(own_batches) == len(batches) > 1
    for (fields, columns), (own_fields, own_columns) in zip(batches, own_batches):
        assert own_fields == fields
        for column, own in zip(columns, own_columns):
            assert own.dtype == column.dtype and torch.equal(own, column)
    assert len(theirs) == len(ours) and theirs.batch_size == ours.batch_size and theirs.step == ours.step


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("kind", [InputType.PAIRWISE, InputType.POINTWISE])
@pytest.mark.parametrize("sample_num", [1, 3])
@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_batches_are_recboles(world: World, shuffle: bool, kind: InputType, sample_num: int, distribution: str) -> None:
    arguments = negatives(distribution, sample_num)
    config, parts = parts_of(world, train_neg_sample_args=arguments)
    config["MODEL_INPUT_TYPE"] = kind
    assert len(parts[0]) == 217 == 7 * 31
    for batch_size in (31, 64, 217, 216, 1000):
        config["train_batch_size"] = batch_size
        assert_same_epochs(*training_loaders(config, parts, shuffle))


@pytest.mark.parametrize("n_batches", [2, 4, 7])
@pytest.mark.parametrize("batch_size", [31, 60])  # 7 full batches; 3 full ones and one of 37
def test_epochs_left_early(world: World, batch_size: int, n_batches: int) -> None:
    theirs, ours = training_loaders(*parts_of(world, train_batch_size=batch_size))
    assert_same_epochs(theirs, ours, n_batches=n_batches)


def test_without_negatives(world: World) -> None:
    config, parts = parts_of(world)
    config["train_neg_sample_args"] = negatives("none", "none")  # type: ignore[arg-type]
    theirs, ours = training_loaders(config, parts)
    assert_same_epochs(theirs, ours)


def test_batches_are_copies(world: World) -> None:
    config, parts = parts_of(world)
    config["train_neg_sample_args"] = negatives("none", "none")  # type: ignore[arg-type]
    _, loader = training_loaders(config, parts, shuffle=False)
    before = parts[0].inter_feat["item_id"].clone()
    for batch in loader:
        batch["item_id"].zero_()
    assert torch.equal(parts[0].inter_feat["item_id"], before)


@pytest.mark.parametrize("kind", [InputType.PAIRWISE, InputType.POINTWISE])
def test_features_of_users_and_items(world: World, kind: InputType) -> None:
    for side, n_rows in (("user", 40), ("item", 30)):
        rows = [f"{side[0]}{row}\t{row % 7}.5\ta{row % 3} b{row % 4}" for row in range(n_rows)]
        header = f"{side}_id:token\t{side}_size:float\t{side}_tags:token_seq"
        (world.folder / f"tiny.{side}").write_text("\n".join([header, *rows]) + "\n")
    columns = {side: [f"{side}_id", f"{side}_size", f"{side}_tags"] for side in ("user", "item")}
    config, parts = parts_of(world, load_col={"inter": ["user_id", "item_id"], **columns})
    config["MODEL_INPUT_TYPE"] = kind
    theirs, ours = training_loaders(config, parts)
    assert_same_epochs(theirs, ours)
    fields, _ = next(epochs(ours))
    assert {"user_size", "item_tags"} <= set(fields)
    assert ("neg_item_size" in fields) == (kind == InputType.PAIRWISE)


def test_a_transform(world: World) -> None:
    theirs, ours = training_loaders(*parts_of(world))

    def transform(dataset: Any, batch: Any) -> Any:
        assert dataset is theirs._dataset
        batch.update(type(batch)({"twice": batch["item_id"] * 2}))
        return batch

    theirs.transform = ours.transform = transform
    assert_same_epochs(theirs, ours)
    assert "twice" in next(epochs(ours))[0]


def test_dynamic_negatives(world: World) -> None:
    arguments = negatives(dynamic=True, candidate_num=3)
    config, parts = parts_of(world, train_neg_sample_args=arguments)
    torch.manual_seed(0)
    model = config.model_class(config, parts[0])
    theirs, ours = training_loaders(config, parts)
    for loader in (theirs, ours):
        loader.get_model(model)
    assert_same_epochs(theirs, ours)


def test_worker_processes(world: World) -> None:
    theirs, ours = training_loaders(*parts_of(world, worker=2))
    assert_same_epochs(theirs, ours, n=2)


def test_loaders_do_not_disturb_each_other(world: World) -> None:
    """RecBole lets `dataset` mean two things by a global that is set while an iterator is made."""
    theirs, ours = training_loaders(*parts_of(world))
    batches = iter(ours)
    next(batches)
    assert not recbole_loaders.start_iter
    assert ours.dataset is ours._dataset is theirs.dataset
    assert len(list(theirs)) == len(theirs)
    assert len(list(batches)) == len(ours) - 1


def test_rows_are_no_list(world: World) -> None:
    _, loader = training_loaders(*parts_of(world))
    assert loader.sampler.data_source == range(217)


# ---------------------------------------------------------------------- evaluation


def evaluation_loaders(config: Any, parts: list[Any], phase: str, protocol: str = "recbole") -> tuple[Any, Any]:
    at = PHASES.index(phase)
    left_out = ["valid"] if protocol == "paper" and phase == "test" else []
    phases = [name for name in PHASES if name not in left_out]
    used = Sampler(phases, [parts[PHASES.index(name)] for name in phases]).set_phase(phase)
    ours = FullSortLoader(config, parts[at], PairSampler(PHASES, parts).set_phase(phase, without=left_out))
    return FullSortEvalDataLoader(config, parts[at], used), ours


def lists(rows: torch.Tensor, items: torch.Tensor, n_rows: int) -> list[list[int]]:
    assert rows.dtype == items.dtype == torch.int64 and rows.shape == items.shape
    return [items[rows == row].tolist() for row in range(n_rows)]


def assert_same_blocks(theirs: Any, ours: Any) -> None:
    assert len(ours) == len(theirs) and ours.batch_size == theirs.batch_size and ours.step == theirs.step
    for block, own in itertools.zip_longest(theirs, ours):
        users, history, *positives = own
        assert users.columns == block[0].columns
        assert all(torch.equal(users[field], block[0][field]) for field in users.columns)
        for expected, pairs in ((block[1], history), (tuple(block[2:]), tuple(positives))):
            found = lists(*pairs, len(users))
            assert found == [sorted(items) for items in lists(*expected, len(users))]
            assert pairs[0].tolist() == sorted(pairs[0].tolist())


@pytest.mark.parametrize("protocol", ["recbole", "paper"])
@pytest.mark.parametrize("phase", ["valid", "test"])
@pytest.mark.parametrize("eval_batch_size", [1, 31 * 8, 31 * 8 + 30, 2**24])
def test_blocks_are_recboles(world: World, protocol: str, phase: str, eval_batch_size: int) -> None:
    theirs, ours = evaluation_loaders(*parts_of(world, eval_batch_size=eval_batch_size), phase, protocol)
    assert_same_blocks(theirs, ours)
    assert ours.uid_list.dtype == theirs.uid_list.dtype and torch.equal(ours.uid_list, theirs.uid_list)
    assert np.array_equal(ours.uid2items_num, theirs.uid2items_num)
    assert len(ours.uid_list) > 8 and len(ours.uid_list) % 8
    for expected, items in itertools.zip_longest(theirs.uid2positive_item, ours.uid2positive_item):
        assert (items is None) == (expected is None)
        assert items is None or items.tolist() == sorted(expected.tolist())
    for user, (expected, items) in enumerate(itertools.zip_longest(theirs.uid2history_item, ours.uid2history_item)):
        if expected is None:  # nothing is to be found, and all that is used is masked
            expected = torch.tensor(sorted(ours._sampler.used_ids[user]))
        assert items.tolist() == sorted(expected.tolist())


def test_recboles_case_study_of_users_without_test_items(world: World) -> None:
    config = world.config("BPR")
    dataset, train_data, _, test_data = world.loaders(config)
    model = config.model_class(config, train_data._dataset)
    without = sorted(set(range(1, dataset.user_num)) - set(test_data.uid_list.tolist()))
    users = np.array([*without[:2], test_data.uid_list[0].item()])
    assert len(users) == 3
    seen = np.concatenate([world.train, world.valid])
    for user, scores in zip(users, full_sort_scores(users, model, test_data)):
        tokens = seen[seen[:, 0] == dataset.id2token("user_id", user), 1]
        masked = torch.isinf(scores).nonzero().ravel().tolist()
        assert masked == [0, *sorted(dataset.token2id("item_id", list(tokens)))]
    assert full_sort_topk(users, model, test_data, 5)[1].shape == (3, 5)


def test_any_rows_make_a_block(world: World) -> None:
    theirs, ours = evaluation_loaders(*parts_of(world), "test")
    rows = [5, 0, 5, 11]
    users, history, *positives = ours.collate_fn(rows)
    block = theirs.collate_fn(rows)
    assert torch.equal(users["user_id"], block[0]["user_id"])
    assert lists(*history, 4) == [sorted(items) for items in lists(*block[1], 4)]
    assert lists(*positives, 4) == [sorted(items) for items in lists(*block[2:], 4)]


def test_interactions_that_stand_twice(world: World) -> None:
    """Within a part, and in training and test; RecBole counts them once and does not mask what is to be found."""
    world.test = np.concatenate([world.test, world.test[:9], world.train[:9]])
    world.write()
    config, parts = parts_of(world)
    assert len(parts[2]) == 58 + 18
    assert_same_blocks(*evaluation_loaders(config, parts, "test"))


def test_users_with_features(world: World) -> None:
    rows = [f"u{row}\t{row % 7}.5" for row in range(40)]
    (world.folder / "tiny.user").write_text("\n".join(["user_id:token\tage:float", *rows]) + "\n")
    columns = {"inter": ["user_id", "item_id"], "user": ["user_id", "age"]}
    theirs, ours = evaluation_loaders(*parts_of(world, load_col=columns), "test")
    assert ours.user_df.columns == ["user_id", "age"]
    assert_same_blocks(theirs, ours)


def test_worker_processes_of_an_evaluation(world: World) -> None:
    assert_same_blocks(*evaluation_loaders(*parts_of(world, worker=1, eval_batch_size=400), "valid"))


def test_one_user_only(world: World) -> None:
    world.test = world.test[world.test[:, 0] == world.test[0, 0]]
    world.write()
    theirs, ours = evaluation_loaders(*parts_of(world), "test")
    assert len(ours) == 1 and len(ours.uid_list) == 1
    assert_same_blocks(theirs, ours)


def test_cannot_shuffle(world: World, caplog: pytest.LogCaptureFixture) -> None:
    config, parts = parts_of(world)
    loader = FullSortLoader(config, parts[1], PairSampler(PHASES, parts).set_phase("valid"), shuffle=True)
    assert caplog.messages[-1] == "FullSortEvalDataLoader can't shuffle"
    assert loader.uid_list.tolist() == sorted(loader.uid_list.tolist())


def by_user(loader: Any) -> dict[int, tuple[list[int], list[int]]]:
    found = {}
    for users, history, *positives in loader:
        masked, sought = (lists(*pairs, len(users)) for pairs in (history, positives))
        found.update({user: (masked[row], sought[row]) for row, user in enumerate(users["user_id"].tolist())})
    return found


def test_shards_make_the_whole(world: World) -> None:
    config, parts = parts_of(world, eval_batch_size=31 * 4)
    sampler = PairSampler(PHASES, parts).set_phase("test")
    whole = FullSortLoader(config, parts[2], sampler)
    users = whole.uid_list.tolist()
    expected, united = by_user(whole), {}
    for rank in range(3):
        shard = FullSortLoader(config, parts[2], sampler, shard=Shard(rank, 3))
        local = users[Shard(rank, 3).rows(len(users))]
        assert shard.uid_list.tolist() == local and len(local) < len(users) / 2
        assert shard.batch_size == 4 and len(shard) == -(-len(local) // 4)
        assert np.flatnonzero(shard.uid2items_num).tolist() == local
        found = by_user(shard)
        assert list(found) == local
        united.update(found)
    assert united == expected


def test_a_process_without_users(world: World) -> None:
    config, parts = parts_of(world)
    shard = Shard(0, 100)  # of 36 users, ranks such as this one have none
    loader = FullSortLoader(config, parts[2], PairSampler(PHASES, parts).set_phase("test"), shard=shard)
    assert len(loader) == 0 and list(loader) == [] and len(loader.user_df) == 0
    assert loader, "RecBole's trainer takes what is false for no loader"


# ---------------------------------------------------------------------- which loader a run gets


def prepared(world: World, model: str, change: Callable[[Any], None] = lambda config: None, **settings: Any) -> Any:
    config = world.config(model, **settings)
    change(config)
    return data_preparation(config, create_dataset(config))


def sampled(mode: str) -> dict[str, Any]:
    return {"eval_args": {"mode": {"valid": mode, "test": mode}}}


@pytest.mark.parametrize(
    ("model", "settings", "training", "evaluation", "sampler"),
    [
        ("LightGCN_RLMRecCon", {}, TrainLoader, FullSortLoader, PairSampler),
        ("BPR", {"eval_protocol": "paper"}, TrainLoader, FullSortLoader, PairSampler),
        ("MultiVAE", {}, UserDataLoader, FullSortLoader, PairSampler),
        ("BPR", sampled("uni5"), TrainLoader, NegSampleEvalDataLoader, PairSampler),
        ("BPR", {"repeatable": True}, TrainLoader, FullSortEvalDataLoader, RepeatableSampler),
        ("BPR", {"repeatable": True, "eval_protocol": "paper"}, TrainLoader, FullSortEvalDataLoader, RepeatableSampler),
    ],
)
def test_loaders_of_a_run(
    world: World, model: str, settings: dict[str, Any], training: type, evaluation: type, sampler: type
) -> None:
    train, valid, test = prepared(world, model, **settings)
    assert type(train) is training
    assert [type(loader) for loader in (valid, test)] == [evaluation] * 2
    assert [type(loader._sampler) for loader in (valid, test)] == [sampler] * 2
    assert [loader._sampler.phase for loader in (valid, test)] == ["valid", "test"]
    if settings.get("repeatable") and settings.get("eval_protocol") == "paper":
        masked = {(user, item) for user in test.uid_list.tolist() for item in test.uid2history_item[user].tolist()}
        known = set(zip(*(train._dataset.inter_feat[field].tolist() for field in ("user_id", "item_id"))))
        assert masked and masked <= known


@pytest.mark.parametrize("mode", ["uni5", "pop3"])
def test_sampled_evaluation_is_recboles(world: World, mode: str) -> None:
    config = world.config("BPR", **sampled(mode))
    dataset = create_dataset(config)
    parts = dataset.build()
    drawn: list[list[torch.Tensor]] = []
    for make in (create_samplers, _create_samplers):
        np.random.seed(3)
        columns = []
        for phase, part, sampler in zip(PHASES[1:], parts[1:], make(config, dataset, parts)[1:]):
            assert sampler.phase == phase
            for batch, *rest in NegSampleEvalDataLoader(config, part, sampler):
                columns += [batch["user_id"], batch["item_id"], *rest]
        drawn.append(columns)
    assert all(torch.equal(theirs, ours) for theirs, ours in itertools.zip_longest(*drawn))


@pytest.mark.parametrize(
    "distributions", list(itertools.product(["none", "uniform", "popularity"], repeat=3)), ids="-".join
)
def test_samplers_are_shared_as_in_recbole(world: World, distributions: tuple[str, ...]) -> None:
    config = world.config("BPR")
    for phase, distribution in zip(PHASES, distributions):
        config[f"{phase}_neg_sample_args"] = negatives(distribution)
    dataset = create_dataset(config)
    parts = dataset.build()
    drawn = []
    for make in (create_samplers, _create_samplers):
        np.random.seed(9)
        samplers = make(config, dataset, parts)
        users = np.arange(1, 41)
        drawn.append([None if one is None else one.sample_by_user_ids(users, users, 2).tolist() for one in samplers])
        assert [one is None for one in samplers] == [name == "none" for name in distributions]
    assert drawn[0] == drawn[1]


def test_preparation_makes_no_sets(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PairSampler, "_used_sets", lambda self: pytest.fail("made the sets"))
    for protocol in ("recbole", "paper"):
        for loader in prepared(world, "LightGCN", eval_protocol=protocol):
            assert len(list(loader)) == len(loader)


def test_a_user_with_every_item_is_a_data_error(world: World) -> None:
    world.train = np.concatenate([world.train, [("u3", f"i{item}") for item in range(30)]])
    world.write()
    with pytest.raises(DataError, match="'tiny' gives no negative samples: Some users have interacted with all items"):
        prepared(world, "BPR")
