"""An explanation is of the user's training items, by the model and by the text, and says what it has not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conftest import World

from recbole_rlmrec import Recommender
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.arrays import representations_of
from recbole_rlmrec.profile.record import Profile, profiles_path, write_profiles
from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items


def made(world: World, name: str = "LightGCN") -> tuple[Recommender, Any]:
    config = world.config(name)
    dataset, train_data, valid_data, _ = world.loaders(config)
    return Recommender(config.model_class(config, train_data._dataset), dataset, (train_data, valid_data)), dataset


def nearest(vectors: dict[str, np.ndarray], item: str, others: set[str]) -> list[str]:
    unit = {token: vector / np.linalg.norm(vector) for token, vector in vectors.items()}
    return sorted(others - {item}, key=lambda other: -float(unit[other] @ unit[item]))[:3]


@pytest.mark.parametrize("item", ["i3", "i14"])
def test_the_nearest_training_items_of_both_spaces(world: World, item: str) -> None:
    write_items(world.folder / "items.jsonl", [Item("i3", "Three"), Item("i14", "Fourteen")])
    written = Profile("i3", "Of the number three.", "", "template", "", "")
    write_profiles(profiles_path(world.folder, "tiny", "item"), [written])
    recommender, dataset = made(world)
    table = representations_of(recommender.model, dataset, "item")
    have = {token for user, token in world.train if user == "u3"}
    found = recommender.explain("u3", item)
    assert found.in_model is not None and found.in_text is not None
    assert [near.item for near in found.in_model] == nearest(dict(zip(table.tokens, table.vectors)), item, have)
    assert [near.item for near in found.in_text] == nearest(world.semantic[1], item, have)
    titles = {"i3": "Three", "i14": "Fourteen"}
    assert all(near.title == titles.get(near.item) for near in found.in_model + found.in_text)
    assert (found.title, found.profile) == (titles[item], "Of the number three." if item == "i3" else None)
    assert found.near_in_text == "; ".join(
        f"{near.item}{f' ({near.title})' if near.title else ''} {near.cosine:.2f}" for near in found.in_text
    )


def test_what_is_not_covered_has_no_place_in_the_text(world: World) -> None:
    hole = next(item for user, item in world.train if user == "u3")
    del world.semantic[1][hole]
    world.write()
    recommender, _ = made(world)
    assert recommender.explain("u3", hole).in_text is None
    others = recommender.explain("u3", "i3" if hole != "i3" else "i4", 99).in_text
    assert others and hole not in {near.item for near in others}


def test_lists_are_explained_row_by_row(world: World) -> None:
    recommender, _ = made(world)
    frame = recommender.explained(recommender.recommend(["u1", "u2"], 4))
    assert frame.columns.tolist()[5:] == ["near_in_model", "near_in_text", "profile"] and frame["profile"].isna().all()
    for user, item, text in zip(frame["user"], frame["item"], frame["near_in_model"]):
        assert text == recommender.explain(user, item).near_in_model


def test_a_model_without_representations_is_explained_by_the_text(world: World) -> None:
    recommender, _ = made(world, "Pop")
    found = recommender.explain("u1", "i1")
    assert found.in_model is None and found.near_in_model is None and found.in_text


def test_nothing_to_explain_by(world: World) -> None:
    for path in world.folder.glob("*emb*"):
        path.unlink()
    recommender, _ = made(world, "Pop")
    with pytest.raises(SettingError, match="nothing to explain by: Pop has no representations, and 'tiny' neither"):
        recommender.explain("u1", "i1")


def test_damaged_embeddings_are_said(world: World) -> None:
    (world.folder / "tiny.itememb.tokens").unlink()
    with pytest.raises(DataError, match=r"tiny\.itememb\.tokens"):
        made(world)[0].explain("u1", "i1")
