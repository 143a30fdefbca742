"""Items for a sentence: the score by a plain formula, mixed with a user's, and what is wrong in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import World

from recbole_rlmrec import Recommender
from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.arrays import representations_of
from recbole_rlmrec.recommend.free_text import FreeText

SEEN = "u3"


class Space:
    """Stands in for the space of the world's embeddings: a text is the name of an item, or of nothing."""

    encoder_name = "names"

    def __init__(self, world: World) -> None:
        self._vectors = world.semantic[1]

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._vectors.get(text, np.zeros(12)) for text in texts], dtype=np.float32)


def recommender_of(world: World, name: str) -> Any:
    config = world.config(name)
    dataset, train_data, *_ = world.loaders(config)
    model = config.model_class(config, train_data._dataset)
    found = Recommender(model, dataset)
    table = representations_of(model, dataset, "item").vectors if name == "LightGCN" else None
    table = None if table is None else np.vstack([np.zeros((1, table.shape[1])), table]).astype(np.float32)
    found._free_text = FreeText(Space(world), dataset.semantic_embedding("item"), table)  # type: ignore[arg-type, misc]
    return found


def standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def expected(world: World, recommender: Any, text: str) -> dict[str, float]:
    """Return token -> score of all items, by a plain formula."""
    tokens = recommender.dataset.field2id_token["item_id"][1:].tolist()
    units = {token: vector / np.linalg.norm(vector) for token, vector in world.semantic[1].items()}
    cosines = np.array([units[token] @ units[text] for token in tokens])
    if type(recommender.model).__name__ != "LightGCN":
        return dict(zip(tokens, standard(cosines)))
    table = representations_of(recommender.model, recommender.dataset, "item").vectors.astype(np.float64)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    alike = table @ table[np.argsort(-cosines)[:20]].sum(axis=0)
    return dict(zip(tokens, (standard(cosines) + standard(alike)) / 2))


@pytest.mark.parametrize("name", ["LightGCN", "EASE"])
def test_a_sentence_alone(world: World, name: str) -> None:
    """EASE has no representations."""
    recommender = recommender_of(world, name)
    scores = expected(world, recommender, "i4")
    frame = recommender.query("i4", 30)
    assert list(frame.columns) == ["rank", "item", "title", "score"]
    assert frame["item"].tolist() == sorted(scores, key=lambda token: -scores[token])
    np.testing.assert_allclose(frame["score"], [scores[token] for token in frame["item"]], rtol=1e-4, atol=1e-5)
    some = recommender.query("i4", 3, only_items=["i1", "i9", "i4", "i2"], without_items=["i4"])
    assert some["item"].tolist() == sorted(["i1", "i9", "i2"], key=lambda token: -scores[token])
    assert some["rank"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("name", ["LightGCN", "EASE"])
def test_mixed_with_a_user(world: World, name: str) -> None:
    recommender = recommender_of(world, name)
    text = expected(world, recommender, "i4")
    seen = {item for user, item in [*world.train, *world.valid] if user == SEEN}
    own = recommender.scores([SEEN]).loc[SEEN].drop(list(seen))
    mixed = 0.7 * standard(own.to_numpy()) + 0.3 * standard(np.array([text[token] for token in own.index]))
    scores = dict(zip(own.index, mixed))
    frame = recommender.query("i4", 30, user=SEEN, weight=0.3)
    assert frame["item"].tolist() == sorted(scores, key=lambda token: -scores[token])
    np.testing.assert_allclose(frame["score"], [scores[token] for token in frame["item"]], rtol=1e-4, atol=1e-5)
    alone = recommender.recommend([SEEN], 5)["item"].tolist()
    assert recommender.query("i4", 5, user=SEEN, weight=0)["item"].tolist() == alone
    assert len(recommender.query("i4", 30, user=SEEN, include_seen=True)) == 30


@pytest.mark.parametrize(
    ("text", "options", "error", "message"),
    [
        (" ", {}, DataError, "The query is empty"),
        ("роботы", {}, DataError, "The encoder of the embeddings, names, knows no word of the query 'роботы'"),
        ("i1", {"user": "u99"}, DataError, "have no user 'u99'"),
        ("i1", {"k": 0}, SettingError, "k=0: expected a whole number"),
        ("i1", {"weight": 1.5}, SettingError, "weight=1.5: expected a number from 0"),
        ("i1", {"weight": True}, SettingError, "weight=True"),
        ("i1", {"only_items": []}, SettingError, "No item is left"),
    ],
)
def test_what_is_wrong_is_said(
    world: World, text: str, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        recommender_of(world, "LightGCN").query(text, **options)


def test_a_base_model_of_a_dataset_without_embeddings(world: World) -> None:
    for path in world.folder.glob("*emb.*"):
        path.unlink()
    config = world.config("BPR")
    dataset, train_data, *_ = world.loaders(config)
    with pytest.raises(DataError, match="recbole-rlmrec build-semantics"):
        Recommender(config.model_class(config, train_data._dataset), dataset).query("space")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "or --query=TEXT without any"),
        (["--users=1", "--query-weight=.5"], "--query-weight says how a query is mixed"),
        (["--query=space", "--query-weight=.5"], "--query-weight says how a query is mixed"),
        (["--query=space", "--explain"], "--explain shows users' training items"),
    ],
)
def test_options_that_do_not_go_together(words: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["recommend", "--checkpoint=x.pth", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_command_prints_the_list_of_a_sentence(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    recommender = recommender_of(world, "LightGCN")
    monkeypatch.setattr(Recommender, "load", lambda *_, **__: recommender)
    command = ["recommend", "--checkpoint=x.pth", "--query=i4", "--k=2"]
    best = recommender.query("i4", 2)["item"].tolist()
    assert main(command) == 0
    printed = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert printed == [["rank", "item"], ["1", best[0]], ["2", best[1]]]
    for number, users in enumerate([["--users=u3,u1", "--query-weight=0"], ["--all-users"]]):
        assert main([*command, *users, f"--output={tmp_path / f'{number}.csv'}"]) == 0
    lines = (tmp_path / "0.csv").read_text().splitlines()
    assert [line.split(",")[:3] for line in lines[1:]] == [
        [user, str(rank), item]
        for user in ("u3", "u1")
        for rank, item in enumerate(recommender.recommend([user], 2)["item"], start=1)
    ]
    assert len((tmp_path / "1.csv").read_text().splitlines()) == 1 + 2 * 40
