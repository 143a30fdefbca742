"""Items and users without training are ranked together with those that were trained; what is wrong is one sentence."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from trainings import train

from recbole_rlmrec import Recommender
from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.profile.newcomers import open_text_space
from recbole_rlmrec.recommend import recommender as recommending
from recbole_rlmrec.recommend.new_items import NewUser, _kept_vectors, read_new_items, read_new_users
from recbole_rlmrec.recommend.text_map import known_nodes
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items

NEW = [Item("n1", "One"), {"token": "n2", "attributes": {"genres": ["Drama"]}}]


def made(world: World, name: str = "LightGCN", **settings: Any) -> Recommender:
    """Return a recommender by a model with its first weights."""
    config = world.config(name, **settings)
    dataset, train_data, valid_data, _ = world.loaders(config)
    return Recommender(config.model_class(config, train_data._dataset), dataset, (train_data, valid_data))


def vectors(n: int, width: int = 12) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(n, width)).astype(np.float32)


@pytest.mark.parametrize("name", ["LightGCN", "LightGCN_RLMRecCon", "LightGCN_RLMRecGen", "BPR_RLMRecCon", "AlphaRec"])
def test_new_items_are_ranked_with_the_known_ones(world: World, name: str) -> None:
    recommender = made(world, name)
    before = recommender.scores(["u3"])
    assert recommender.add_items(NEW, vectors(2)) == ["n1", "n2"]
    scores = recommender.scores(["u3"])
    np.testing.assert_allclose(scores[before.columns], before, rtol=1e-5, atol=1e-7)
    frame = recommender.recommend(["u3"], 99, include_seen=True)
    assert frame["item"].tolist() == scores.iloc[0].sort_values(ascending=False, kind="stable").index.tolist()
    assert frame.set_index("item")["title"]["n1"] == "One"
    with torch.no_grad():
        row = recommender._text_map.items(vectors(2))
        user = recommender.model.representation()[0][recommender.dataset.token2id("user_id", "u3")]
    np.testing.assert_allclose(scores[["n1", "n2"]].to_numpy()[0], (row @ user).numpy(), rtol=1e-4, atol=1e-7)


def test_new_items_everywhere(world: World) -> None:
    """Chosen, left out, compared and explained; more of them follow the first."""
    recommender = made(world)
    assert recommender.titles.tolist() == [None] * 31
    recommender.add_items(NEW[:1], vectors(1))
    assert recommender.add_items(iter(NEW[1:]), vectors(2)[1:]) == ["n2"]
    only = recommender.recommend(["u1", "u2"], only_items=["n2", "n1", "i3"], include_seen=True)
    assert set(only["item"]) == {"n1", "n2", "i3"} and only["title"].isin(["One", None]).all()
    assert "n1" not in set(recommender.recommend(["u1"], 99, without_items=["n1"])["item"])
    assert {"n1", "n2"} <= set(recommender.similar_items("i3", 99)["item"])
    assert "i3" in set(recommender.similar_items("n1", 99)["item"])
    found = recommender.explain("u3", "n2")
    assert found.in_text and found.in_model and found.profile is None
    unit = {token: vector / np.linalg.norm(vector) for token, vector in world.semantic[1].items()}
    have = [item for user, item in world.train if user == "u3"]
    nearest = max(have, key=lambda item: float(unit[item] @ vectors(2)[1]))
    assert found.in_text[0].item == nearest
    assert recommender.add_items([]) == []


def test_new_items_by_their_text(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With lsa; known items are compared as if they were new. By the command line, the same lists."""
    opened: list[Any] = []

    def open_once(config: Any) -> Any:
        opened.append(config)
        return open_text_space(config)

    monkeypatch.setattr(recommending, "open_text_space", open_once)
    words = ["space", "alien", "love", "war", "robot", "crime", "song", "city", "night", "horse"]
    rng = np.random.default_rng(0)
    items = [Item(f"i{n}", " ".join(rng.choice(words, 3)), " ".join(rng.choice(words, 6))) for n in range(30)]
    write_items(world.folder / "items.jsonl", items)
    options = ["--dataset=tiny", f"--data_path={world.root}", "--benchmark_filename=[train,valid,test]"]
    assert main(["build-semantics", *options, "--encoder=lsa", "--dimension=6", "--overwrite"]) == 0
    result = train(world, "LightGCN_RLMRecCon", epochs=1, checkpoint_dir=str(tmp_path))
    recommender = Recommender.load(result.checkpoint)
    write_items(tmp_path / "new.jsonl", [Item("n1", "space alien robot"), Item("n2", "love song", "night city")])
    new, _ = read_new_items(tmp_path / "new.jsonl")
    assert recommender.add_items(new) == ["n1", "n2"]
    assert recommender.explain("u3", "n1").profile
    frame = recommender.recommend(["u3"], 40)
    assert {"n1", "n2"} <= set(frame["item"])
    (tmp_path / "users.jsonl").write_text('{"token": "x", "text": "love song in the city at night"}\n')
    checkpoint = f"--checkpoint={result.checkpoint}"
    out = tmp_path / "lists.jsonl"
    given = [checkpoint, f"--new-items={tmp_path / 'new.jsonl'}", "--k=40", f"--output={out}"]
    assert main(["recommend", *given, "--users=u3", "--explain"]) == 0
    assert [json.loads(line)["item"] for line in out.open()] == frame["item"].tolist()
    assert main(["recommend", *given, f"--new-users={tmp_path / 'users.jsonl'}"]) == 0
    lines = [json.loads(line) for line in out.open()]
    assert {line["user"] for line in lines} == {"x"} and len(lines) == 32
    assert recommender.query("space alien robot", 3)["item"].tolist().count("n1") == 1
    for title in ("", "zzz"):
        with pytest.raises(DataError, match="No text says anything of 'n3', 1 of 1"):
            recommender.add_items([Item("n3", title)])
    assert opened.count(recommender.dataset.config) == 1  # an encoder may have to be fitted again


def test_what_was_encoded_as_new_is_kept(tmp_path: Path) -> None:
    """Of the same texts only, and whatever lies in the file's place."""
    encoded: list[list[str]] = []

    def encode(texts: list[str]) -> Any:
        encoded.append(texts)
        return np.full((len(texts), 2), len(encoded), dtype=np.float32)

    space: Any = SimpleNamespace(encoder_name="e", dimension=2, vectors=encode)
    (tmp_path / "a.semantic.json").write_text("{}")
    asked = partial(_kept_vectors, space, metadata=tmp_path / "a.semantic.json")
    assert (asked(["x", "y"]) == asked(["x", "y"])).all() and len(encoded) == 1
    assert [each.name for each in tmp_path.glob("*.npz")] == ["a.as-new.npz"]
    assert (asked(["x", "z"]) == 2).all() and (asked(["x", "z"]) == 2).all()
    (tmp_path / "a.semantic.json").write_text('{"encoder": "e"}')  # other embeddings
    assert (asked(["x", "z"]) == 3).all()
    (tmp_path / "a.as-new.npz").write_bytes(b"PK")
    assert (asked(["x", "z"]) == 4).all() and (asked(["x", "z"]) == 4).all()
    (tmp_path / "a.as-new.npz").unlink()
    (tmp_path / "a.as-new.npz").mkdir()  # nothing can be written there
    assert (asked(["x", "z"]) == 5).all() and (asked(["x", "z"]) == 6).all()


@pytest.mark.parametrize("asks_server", [False, True])
def test_texts_are_prepared_where_nobody_is_paid(
    asks_server: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommender = made(world, "LightGCN_RLMRecCon")
    encoded: list[Any] = []
    space = SimpleNamespace(asks_server=asks_server, vectors=encoded.append)
    monkeypatch.setattr(recommending, "open_text_space", lambda config: space)
    monkeypatch.setattr(
        recommending, "as_new", lambda *given: known_nodes(recommender.dataset, "item", torch.from_numpy(given[3]))
    )
    recommender.prepare_texts()
    assert len(encoded) == (0 if asks_server else 1)
    assert ("_map_of_new_texts" in vars(recommender)) is not asks_server


def test_cold_items_of_the_dataset_by_their_text(world: World) -> None:
    world.train = world.train[~np.isin(world.train[:, 1], ["i3", "i4", "i5"])]
    del world.semantic[1]["i5"]
    world.write()
    recommender = made(world)
    before = recommender.scores(["u3"])
    assert set(recommender.represent_cold_items()) == {"i3", "i4"}
    changed = (recommender.scores(["u3"]) != before).iloc[0]
    assert set(changed.index[changed]) == {"i3", "i4"}
    [row] = recommender._text_map.items(world.semantic[1]["i3"][None].astype(np.float32)).numpy()
    [user] = recommender._text_map._model.representation()[0][[recommender.dataset.token2id("user_id", "u3")]]
    assert np.isclose(recommender.scores(["u3"])["i3"].iloc[0], float(user.detach().numpy() @ row), rtol=1e-4)


def test_a_new_user_is_one_step_from_the_items(world: World) -> None:
    recommender = made(world)
    liked, table = ["i3", "i14"], recommender.model.representation()[1].detach().numpy()
    rows = [recommender.dataset.token2id("item_id", token) for token in liked]
    degrees = [np.sum(world.train[:, 1] == token) for token in liked]
    expected = table @ sum(table[row] / np.sqrt(degree) for row, degree in zip(rows, degrees))
    frame = recommender.recommend_newcomers([{"token": "new", "items": liked}, NewUser("b", items=("i1",))], 99)
    mine = frame[frame["user"] == "new"]
    assert not set(liked) & set(mine["item"]) and len(mine) == 28 and (frame["user"] == "b").sum() == 29
    ids = [recommender.dataset.token2id("item_id", token) for token in mine["item"]]
    np.testing.assert_allclose(mine["score"], expected[ids], rtol=1e-4, atol=1e-7)
    assert (np.diff(mine["score"]) <= 0).all()
    seen = recommender.recommend_newcomers([NewUser("a", items=("i3",))], 99, include_seen=True, only_items=["i3"])
    assert seen["item"].tolist() == ["i3"]
    assert recommender.recommend_newcomers([]).empty


# ---------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("items", "given", "message"),
    [
        ([Item("i3", "Three")], 1, "Item 'i3', number 1 of those given, is known already"),
        ([Item("n1", "A"), Item("n1", "B")], 2, "Item 'n1', number 2 of those given, is given twice"),
        ([{"title": "No id"}], 1, "Item 1 of those given has 'item_id' = None, expected text"),
        ([{"token": "n1", "title": 3}], 1, "Item 1 of those given has 'title' of type int"),
        ([Item("a\tb")], 1, "Item 1 of those given has the id"),
        ([Item("n1")], 2, "2 vectors for 1 item; expected one for each"),
        ([Item("n1"), Item("n2")], "zero", "No text says anything of 'n2', 1 of 2"),
        ([Item("n1")], "nan", "The vector of item 'n1' has values that are not finite"),
        ([Item("n1")], "short", r"have the shape \[1, 5\], the dataset's semantic embeddings have dimension 12"),
    ],
)
def test_items_that_cannot_be_added(world: World, items: list[Any], given: Any, message: str) -> None:
    tables = {
        "zero": np.vstack([vectors(1), 0 * vectors(1)]),
        "nan": np.nan * vectors(1),
        "short": vectors(1, 5),
    }
    recommender = made(world)
    with pytest.raises(DataError, match=message):
        recommender.add_items(items, tables[given] if isinstance(given, str) else vectors(given))
    assert len(recommender.recommend(["u1"], 99, include_seen=True)) == 30


def test_models_and_datasets_without_new_items(world: World) -> None:
    with pytest.raises(SettingError, match=r"^NeuMF_RLMRecCon scores a user and an item by something else than the"):
        made(world, "NeuMF_RLMRecCon").add_items(NEW, vectors(2))
    with pytest.raises(SettingError, match="It is not known what BPR represents users and items by"):
        made(world, "BPR").add_items(NEW, vectors(2))
    for file in world.folder.glob("*emb*"):
        file.unlink()
    with pytest.raises(DataError, match="build-semantics"):
        made(world).add_items(NEW, vectors(2))


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ({"token": "a"}, "User 1 of those given has neither a 'text' nor 'items'"),
        ({"items": ["i3"]}, "User 1 of those given has no 'token'"),
        ({"token": "a\tb", "items": ["i3"]}, r"User 1 of those given has 'token' = 'a\\tb', which holds a tab"),
        ({"token": "a", "items": "i3"}, "'items' that are no list"),
        ({"token": "a", "items": [3]}, "has 'items' that are no ids"),
        ({"token": "a", "items": ["i33"]}, "have no item 'i33'"),
    ],
)
def test_users_that_cannot_be(world: World, user: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        made(world).recommend_newcomers([user])
    with pytest.raises(DataError, match="User 'a', number 2 of those given, is given twice"):
        made(world).recommend_newcomers(2 * [NewUser("a", items=("i3",))])


@pytest.mark.parametrize(
    "content", ['{"item_id": "n1", "title": "One"}\n{"item_id": "n2", "ti', '{"item_id": "n1"}\n[]']
)
def test_a_torn_file_is_one_error(content: str, tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"new\.jsonl.*malformed.*\n  line 2"):
        read_new_items(path)


def test_files_of_vectors_and_users(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", vectors(2).astype(np.float16))
    (tmp_path / "v.tokens").write_text("n1\nn2\n")
    items, found = read_new_items(tmp_path / "v.npy")
    assert [item.token for item in items] == ["n1", "n2"] and found is not None and found.dtype == np.float32
    (tmp_path / "v.tokens").write_text("n1\n")
    with pytest.raises(DataError, match="expected one token for each row"):
        read_new_items(tmp_path / "v.npy")
    path = tmp_path / "users.jsonl"
    path.write_text('{"token": "a", "items": ["1", "2", "1"]}\n{"token": "b", "text": "Likes war films."}\n')
    assert read_new_users(path) == [NewUser("a", items=("1", "2")), NewUser("b", "Likes war films.")]
    path.write_text(2 * '{"token": "a", "items": ["1"]}\n')
    with pytest.raises(DataError, match="line 2 repeats the user 'a'"):
        read_new_users(path)
