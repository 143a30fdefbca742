"""Lists equal a ranking of all scores, ties included, for every kind of model; every option; what is wrong is said."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import World
from recbole.utils import init_seed
from trainings import train

from recbole_rlmrec import Recommender, load_model
from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.errors import CheckpointError, DataError, SettingError, TrainingError
from recbole_rlmrec.model.arrays import representations_of
from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.model.scores import CalledScorer, ProductScorer, evaluating, scorer_of
from recbole_rlmrec.training.checkpoint import newest_checkpoint

# ---------------------------------------------------------------------- all users of ml-100k


@cache
def movielens() -> tuple[Any, tuple[Any, ...]]:
    config = RLMRecConfig("LightGCN", "ml-100k", config_dict={"state": "ERROR"})
    dataset = create_dataset(config)
    return dataset, data_preparation(config, dataset)


def untrained(name: str) -> Any:
    """Return a model of ml-100k with its first weights."""
    _, (train_data, _, _) = movielens()
    config = RLMRecConfig(name, "ml-100k", config_dict={"state": "ERROR", "embedding_size": 8, "mlp_hidden_size": [8]})
    init_seed(3, True)
    return config.model_class(config, train_data._dataset)


def representations_rounded(model: Any) -> np.ndarray:
    """Round the representations so that products are exact, and often equal; return all scores."""
    with evaluating(model):
        tables = [(20 * table).round() for table in model.representation()]
    model.representation = lambda: tables
    return (tables[0] @ tables[1].T).numpy()


def scores_rounded(model: Any) -> np.ndarray:
    """Round what ``full_sort_predict`` returns; return all scores."""
    dataset, _ = movielens()
    users = torch.arange(dataset.user_num)
    with evaluating(model):
        table = (20 * model.full_sort_predict({dataset.uid_field: users}).view(len(users), -1)).round()
    model.full_sort_predict = lambda asked: table[asked[dataset.uid_field]].view(-1)
    return table.numpy()


def pairs_rounded(model: Any) -> np.ndarray:
    """Round what ``predict`` returns of pairs; return all scores."""
    dataset, _ = movielens()
    with evaluating(model):
        scorer = CalledScorer(model, dataset, torch.arange(dataset.item_num))
        table = (1e4 * scorer.block(torch.arange(dataset.user_num), 0, dataset.item_num)).round()
    model.predict = lambda pairs: table[pairs[dataset.uid_field], pairs[dataset.iid_field]]
    return table.numpy()


KINDS: dict[str, tuple[Callable[[Any], np.ndarray], type]] = {
    "LightGCN": (representations_rounded, ProductScorer),
    "EASE": (scores_rounded, CalledScorer),
    "MultiVAE": (scores_rounded, CalledScorer),
    "NeuMF": (pairs_rounded, CalledScorer),
}


@pytest.mark.parametrize(
    ("name", "memory"), [("LightGCN", 40), ("LightGCN", 2), ("EASE", 2), ("MultiVAE", 2), ("NeuMF", 20)]
)
def test_lists_are_those_of_all_scores_ranked(name: str, memory: float) -> None:
    """Also where the blocks are small, so that items are cut too."""
    dataset, loaders = movielens()
    model = untrained(name)
    rounded, kind = KINDS[name]
    table = rounded(model)
    table[:, 0] = -np.inf
    assert isinstance(scorer_of(model, dataset), kind)
    for loader in loaders[:2]:
        users, items = (loader._dataset.inter_feat[field].numpy() for field in (dataset.uid_field, dataset.iid_field))
        table[users, items] = -np.inf
    k = 20
    expected = np.argsort(-table[1:], axis=1, kind="stable")[:, :k]
    ordered = np.take_along_axis(table[1:], expected, axis=1)
    assert (ordered[:, 1:] == ordered[:, :-1]).mean() > 0.05  # ties are there
    everyone = dataset.field2id_token[dataset.uid_field][1:]
    frame = pd.concat(Recommender(model, dataset, memory=memory).recommend_blocks(k=k), ignore_index=True)
    assert frame["user"].tolist() == np.repeat(everyone, k).tolist()
    assert frame["item"].tolist() == dataset.field2id_token[dataset.iid_field][expected].ravel().tolist()
    assert frame["rank"].tolist() == list(range(1, k + 1)) * len(everyone)
    np.testing.assert_array_equal(frame["score"].to_numpy(), ordered.ravel())


def test_titles_are_those_of_the_item_file() -> None:
    dataset, _ = movielens()
    frame = Recommender(untrained("LightGCN"), dataset).recommend("196", 3, only_items=["50", "267", "1"])
    titles = frame.set_index("item")["title"]
    assert titles[["50", "1"]].tolist() == ["Star Wars", "Toy Story"]
    assert pd.isna(titles["267"])  # "unknown" stands there


# ---------------------------------------------------------------------- options, on a small world


@pytest.fixture
def tiny(world: World) -> tuple[Any, Any, pd.DataFrame, dict[str, set[str]]]:
    """A recommender of a model in training mode, its dataset, all its scores, and the items of each user."""
    config = world.config("LightGCN")
    dataset, train_data, *_ = world.loaders(config)
    model = config.model_class(config, train_data._dataset).train()
    recommender = Recommender(model, dataset)
    have: dict[str, set[str]] = {}
    for user, item in np.concatenate([world.train, world.valid]):
        have.setdefault(user, set()).add(item)
    return recommender, dataset, recommender.scores(sorted(have)), have


def ranked(scores: pd.DataFrame, user: str, without: set[str]) -> list[str]:
    return [item for item in scores.loc[user].sort_values(ascending=False, kind="stable").index if item not in without]


def test_the_history_is_what_lists_leave_out(tiny: Any) -> None:
    recommender, dataset, _, have = tiny
    frame = recommender.history("u7")
    assert set(frame["item"]) == have["u7"] and len(frame) == len(have["u7"])
    rows = [dataset.field2token_id[dataset.iid_field][item] for item in frame["item"]]
    assert rows == sorted(rows) and frame["title"].isna().all()
    with pytest.raises(DataError, match="no user 'u99'"):
        recommender.history("u99")


def test_neighbours_in_text_are_by_the_semantic_embeddings(tiny: Any, world: World) -> None:
    recommender = tiny[0]
    table = {item: vector / np.linalg.norm(vector) for item, vector in world.semantic[1].items()}
    expected = sorted(table.keys() - {"i3"}, key=lambda item: -float(table[item] @ table["i3"]))
    frame = recommender.similar_items("i3", 5, space="text")
    assert frame["item"].tolist() == expected[:5] and frame["rank"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(frame["cosine"], [table[item] @ table["i3"] for item in expected[:5]], rtol=1e-5)
    assert recommender.similar_items("i3", 99, space="text")["item"].tolist() == expected


def test_neighbours_in_a_table_with_a_name(world: World) -> None:
    world.write_table("minilm", 5)
    for path in world.folder.glob("tiny.????emb.*"):
        path.unlink()
    config = world.config("LightGCN", semantic="minilm")
    dataset, train_data, *_ = world.loaders(config)
    recommender = Recommender(config.model_class(config, train_data._dataset), dataset)
    assert len(recommender.similar_items("i3", 5, space="text")) == 5


def test_an_item_without_a_text_has_no_neighbours_there(world: World) -> None:
    del world.semantic[1]["i3"]
    world.write()
    config = world.config("LightGCN")
    dataset, train_data, *_ = world.loaders(config)
    recommender = Recommender(config.model_class(config, train_data._dataset), dataset)
    with pytest.raises(SettingError, match="'tiny' has no semantic embedding of the item 'i3'"):
        recommender.similar_items("i3", space="text")
    assert "i3" not in set(recommender.similar_items("i4", 99, space="text")["item"])


def test_seen_items_are_those_of_training_and_validation(tiny: Any, world: World) -> None:
    recommender, _, scores, have = tiny
    tested, held_out = world.test[0]
    asked = [tested, "u7", tested]
    frame = recommender.recommend(asked, 30)
    expected = [ranked(scores, user, have[user]) for user in asked]
    assert frame["item"].tolist() == [item for each in expected for item in each]  # k is larger than what is left
    assert frame["user"].tolist() == [user for user, each in zip(asked, expected) for _ in each]
    assert "[PAD]" not in set(frame["item"]) and frame["title"].isna().all()
    assert held_out in expected[0]
    everything = recommender.recommend(tested, 99, include_seen=True)
    assert everything["item"].tolist() == ranked(scores, tested, set()) and len(everything) == 30


@pytest.mark.parametrize(
    ("only", "without"), [(["i3", "i9", "i3", "i29"], None), (None, ["i3", "i9"]), (["i3", "i9", "i4"], ["i9"])]
)
def test_items_to_choose_from(tiny: Any, only: list[str] | None, without: list[str] | None) -> None:
    recommender, _, scores, have = tiny
    frame = recommender.recommend(["u5", "u6"], only_items=only, without_items=without, k=4)
    for user in ("u5", "u6"):
        kept = [item for item in ranked(scores, user, have[user].union(without or ())) if only is None or item in only]
        assert frame.loc[frame["user"] == user, "item"].tolist() == kept[:4]


def test_nothing_changes_in_the_model(tiny: Any) -> None:
    recommender, *_ = tiny
    model = recommender.model
    frozen = torch.nn.Dropout().eval()
    model.frozen = frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    blocks = recommender.recommend_blocks(k=2)
    next(blocks)
    assert model.training and not frozen.training and torch.is_grad_enabled()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.eval()
    recommender.similar_items("i1")
    assert not model.training


def test_nobody_is_recommended_nothing(tiny: Any) -> None:
    frame = tiny[0].recommend([])
    assert frame.columns.tolist() == ["user", "rank", "item", "title", "score"] and frame.empty


def test_scores_are_in_the_order_asked_for(tiny: Any) -> None:
    recommender, dataset, scores, _ = tiny
    some = recommender.scores(["u9", "u2"], ["i7", "i1", "i7"])
    np.testing.assert_allclose(some, scores.loc[["u9", "u2"], ["i7", "i1", "i7"]], rtol=1e-5)
    assert some.index.tolist() == ["u9", "u2"] and some.columns.tolist() == ["i7", "i1", "i7"]
    everyone = (
        representations_of(recommender.model, dataset, "user"),
        representations_of(recommender.model, dataset, "item"),
    )
    rows = [everyone[0].tokens.tolist().index(user) for user in scores.index]
    np.testing.assert_allclose(scores, everyone[0].vectors[rows] @ everyone[1].vectors.T, atol=1e-6)


@pytest.mark.parametrize("side", ["item", "user"])
def test_what_is_alike_has_the_highest_cosine(tiny: Any, side: Any) -> None:
    recommender, dataset, *_ = tiny
    tokens, vectors = representations_of(recommender.model, dataset, side)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    asked = f"{side[0]}4"
    cosines = pd.Series(unit @ unit[tokens.tolist().index(asked)], tokens).drop(asked).sort_values(ascending=False)
    similar = recommender.similar_items if side == "item" else recommender.similar_users
    found = similar(asked, 5)
    assert found[side].tolist() == cosines.index[:5].tolist() and found["rank"].tolist() == [1, 2, 3, 4, 5]
    np.testing.assert_allclose(found["cosine"], cosines.iloc[:5], rtol=1e-5)
    assert len(similar(asked, 10**6)) == len(tokens) - 1


def test_a_user_without_training_interactions_is_warned_of(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.train = np.array([pair for pair in world.train if pair[0] != "u3"])
    world.write()
    dataset, *_ = world.loaders(world.config("BPR"))
    recommender = Recommender(world.model("BPR")[0], dataset)
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        assert len(recommender.recommend(["u3", "u4", "u3"], 5)) == 15
        assert recommender.recommend(["u4"], 5) is not None
    assert [record.getMessage() for record in caplog.records] == [
        "2 users without a training interaction, such as 'u3': these lists are chance."
    ]


def test_features_reach_models_of_context(world: World) -> None:
    """As in RecBole's evaluation: a model that reads them scores pairs by them."""
    (world.folder / "tiny.item").write_text(
        "item_id:token\tkind:token\n" + "".join(f"i{n}\tk{n % 3}\n" for n in range(30))
    )
    settings = {"load_col": {"inter": ["user_id", "item_id"], "item": ["item_id", "kind"]}}
    config = world.config("FM", **settings)
    dataset, train_data, valid_data, _ = world.loaders(config)
    model = config.model_class(config, train_data._dataset)
    torch.nn.init.normal_(model.first_order_linear.token_embedding_table.embedding.weight)
    found = Recommender(model, dataset, (train_data, valid_data)).scores(["u1", "u2"], ["i5", "i2"])
    pairs = dataset.join(
        type(dataset.get_item_feature())(
            {
                field: torch.as_tensor([dataset.token2id(field, token) for token in tokens])
                for field, tokens in (("user_id", ["u1", "u1", "u2", "u2"]), ("item_id", ["i5", "i2"] * 2))
            }
        )
    )
    with evaluating(model):
        expected = model.predict(pairs).view(2, 2)
    np.testing.assert_allclose(found, expected, atol=1e-6)


# ---------------------------------------------------------------------- what is wrong


def test_unknown_ids_are_named_with_the_nearest(tiny: Any) -> None:
    recommender, *_ = tiny
    for call in (
        lambda: recommender.recommend(["u1", "U12"]),
        lambda: recommender.recommend_blocks(["U12"]),  # before the first block
        lambda: recommender.similar_users("U12"),
        lambda: recommender.scores(["U12"]),
        lambda: recommender.explain("U12", "i1"),
    ):
        with pytest.raises(DataError, match=r"of 'tiny' have no user 'U12'\. .* Did you mean 'u12'\?"):
            call()
    for call in (
        lambda: recommender.recommend(["u1"], only_items=["[PAD]"]),
        lambda: recommender.similar_items("[PAD]"),
        lambda: recommender.scores(["u1"], ["[PAD]"]),
    ):
        with pytest.raises(DataError, match=r"no item '\[PAD\]'"):
            call()


def test_a_misspelt_id_among_very_many_is_compared_with_those_that_begin_alike(
    tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recbole_rlmrec.model.arrays._MOST_COMPARED", 12)
    with pytest.raises(DataError, match=r"no user 'u3x'.*Did you mean 'u3'\?"):
        tiny[0].recommend(["u3x"])
    with pytest.raises(DataError, match="no user 'x3'") as raised:
        tiny[0].recommend(["x3"])
    assert "Did you mean" not in str(raised.value)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, "3"])
def test_k_is_a_whole_number_from_1(tiny: Any, k: Any) -> None:
    recommender, *_ = tiny
    for call in (
        lambda: recommender.recommend_blocks(["u1"], k),
        lambda: recommender.similar_items("i1", k),
        lambda: recommender.explain("u1", "i1", k),
    ):
        with pytest.raises(SettingError, match=r"k=.*: expected a whole number from 1, such as 10\."):
            call()


def test_settings_that_leave_nothing(tiny: Any) -> None:
    recommender, dataset, scores, _ = tiny
    for only, without in (([], None), (None, scores.columns), (["i1"], ["i1"])):
        with pytest.raises(SettingError, match="No item is left to choose from"):
            recommender.recommend(["u1"], only_items=only, without_items=without)
    for memory in (0, float("inf"), float("nan")):
        with pytest.raises(SettingError, match=f"memory={memory}: expected a number of MB above 0"):
            Recommender(recommender.model, dataset, memory=memory)
    with pytest.raises(SettingError, match=r"Nothing says which .* of 'tiny' are for training\. .*parts=\(train_data"):
        Recommender(recommender.model, dataset.parts[0])


def test_models_without_lists_or_likeness(world: World) -> None:
    # Not by an import of RecBole's room: one of its models turns on anomaly detection for the process.
    sequential = get_model("GRU4Rec")

    model, train_data = world.model("Pop")
    dataset = train_data._dataset
    with pytest.raises(SettingError, match="GRU4Rec does not score pairs"):
        Recommender(sequential.__new__(sequential), dataset)
    with pytest.raises(SettingError, match="not known what Pop represents"):
        Recommender(model, dataset, (train_data,)).similar_users("u1")


@pytest.mark.parametrize(("value", "k"), [(float("nan"), 1), (float("inf"), 1), (-float("inf"), 99)])
def test_scores_that_are_no_numbers_are_refused(tiny: Any, value: float, k: int) -> None:
    recommender, dataset, *_ = tiny
    tables = [torch.ones(dataset.user_num, 1), torch.ones(dataset.item_num, 1)]
    tables[1][7] = value
    recommender.model.representation = lambda: tables
    with pytest.raises(TrainingError, match=r"The scores of LightGCN as it is are not finite: 1 of .* 1 of 1 users"):
        recommender.recommend(["u1"], k, include_seen=True)


# ---------------------------------------------------------------------- from a checkpoint


@pytest.fixture
def checkpoint(world: World) -> Iterator[Path]:
    yield Path(train(world, "LightGCN", epochs=1).checkpoint)


def test_a_checkpoint_gives_the_lists_of_its_model(checkpoint: Path, world: World) -> None:
    loaded = load_model(checkpoint)
    found = Recommender.load(checkpoint, device="cpu").recommend(["u1", "u2"])
    pd.testing.assert_frame_equal(found, Recommender(loaded.model, loaded.dataset).recommend(["u1", "u2"]))
    pd.testing.assert_frame_equal(found, Recommender.newest("LightGCN", "tiny").recommend(["u1", "u2"]))
    world.train[0] = world.train[-1]
    world.write()
    with pytest.raises(CheckpointError, match="was trained on other data of the name 'tiny': training interactions"):
        Recommender.load(checkpoint)


def test_the_newest_checkpoint_is_of_this_model_and_dataset(checkpoint: Path, world: World) -> None:
    newer = Path(train(world, "LightGCN", epochs=1).checkpoint)
    other = newer.with_name("LightGCN-tiny-another.pth")  # a name that fits, of another model
    other.write_bytes(Path(train(world, "BPR", epochs=1).checkpoint).read_bytes())
    assert newer != checkpoint
    assert newest_checkpoint("LightGCN", "tiny", "saved") == newer
    with pytest.raises(
        CheckpointError, match=r"'saved' has no checkpoint of SGL on 'tiny'. It has BPR-tiny-\S+, .* and"
    ):
        Recommender.newest("SGL", "tiny")
    with pytest.raises(CheckpointError, match=r"'nowhere' has no .* It has no checkpoint at all. Train the model, or"):
        Recommender.newest("SGL", "tiny", "nowhere")


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there(device: str) -> None:
    with pytest.raises(SettingError, match=f"device='{device}': expected cpu, or one of"):
        Recommender.load("any.pth", device=device)
