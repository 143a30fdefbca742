"""Representations and scores as arrays: those of a step and of an evaluation, by token, free of gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, fitting
from recbole.data.interaction import Interaction

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model import arrays
from recbole_rlmrec.model.arrays import representations_of, scores_of
from recbole_rlmrec.model.registry import BACKBONES, get_model


def made(world: World, name: str) -> tuple[Any, Any, Any]:
    """Return a model, its dataset and a batch."""
    model, train_data = world.model(name, **fitting(name))
    return model.train(), train_data._dataset, next(iter(train_data))


@pytest.mark.parametrize("name", BACKBONES)
def test_representations_are_those_of_a_step(world: World, name: str) -> None:
    model, dataset, batch = made(world, name)
    users, items = (representations_of(model, dataset, side) for side in ("user", "item"))
    with torch.no_grad():
        step = model.step(batch)[1]
    assert users.vectors.shape == (model.n_users - 1, model.output_dim)
    np.testing.assert_allclose(users.vectors, step[1 : model.n_users], atol=1e-6)
    np.testing.assert_allclose(items.vectors, step[model.n_users + 1 :], atol=1e-6)


@pytest.mark.parametrize("name", ["LightGCN_RLMRecGen", "BPR_RLMRecCon", "NGCF_RLMRecCon"])
def test_scores_are_products_of_representations_by_token(
    world: World, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "_BLOCK", 64)  # two users at a time
    model, dataset, _ = made(world, name)
    users, items = (representations_of(model, dataset, side) for side in ("user", "item"))
    assert sorted(users.tokens) == sorted({str(user) for user, _ in world.train})
    everyone = scores_of(model, dataset)
    np.testing.assert_allclose(everyone.values, users.vectors @ items.vectors.T, atol=1e-6)
    assert list(everyone.users) == list(users.tokens) and list(everyone.items) == list(items.tokens)
    asked = ["u7", "u0", "u31"]
    some = scores_of(model, dataset, asked)
    rows = [list(users.tokens).index(user) for user in asked]
    assert list(some.users) == asked
    np.testing.assert_allclose(some.values, everyone.values[rows], atol=1e-6)
    pairs = Interaction(
        {"user_id": dataset.token2id("user_id", ["u7"]), "item_id": dataset.token2id("item_id", ["i3"])}
    )
    with torch.no_grad():
        expected = model.predict(Interaction({key: torch.as_tensor(pairs[key]) for key in ("user_id", "item_id")}))
    assert some.values[0, list(some.items).index("i3")] == pytest.approx(float(expected), abs=1e-6)


def test_a_model_that_scores_pairs_only(world: World) -> None:
    model, dataset, _ = made(world, "NeuMF")
    with torch.no_grad():
        pairs = Interaction({"user_id": torch.full((model.n_items,), 5), "item_id": torch.arange(model.n_items)})
        expected = model.eval().predict(pairs)[1:].numpy()
    user = dataset.id2token("user_id", 5)
    np.testing.assert_allclose(scores_of(model, dataset, [user]).values[0], expected, atol=1e-6)


def test_arrays_belong_to_the_caller(world: World) -> None:
    model, dataset, _ = made(world, "BPR_RLMRecCon")
    vectors = representations_of(model, dataset, "item").vectors
    assert vectors.dtype == np.float32 and vectors.flags.writeable
    before = model.item_embedding.weight.detach().clone()
    vectors[:] = 0
    assert torch.equal(model.item_embedding.weight, before) and before.abs().sum() > 0


def test_what_there_is_no_array_of(world: World) -> None:
    model, dataset, _ = made(world, "BPR")
    with pytest.raises(SettingError, match=r"not known what BPR .* Train BPR_RLMRecCon with a weight of 0"):
        representations_of(model, dataset, "user")
    with pytest.raises(SettingError, match=r"not known what Pop .* Ask for scores\(\)"):
        representations_of(made(world, "Pop")[0], dataset, "user")
    with pytest.raises(SettingError, match="side='users': expected 'user' or 'item'"):
        representations_of(model, dataset, "users")  # type: ignore[arg-type]
    for users in (["u1", "[PAD]"], [7], "nobody"):
        with pytest.raises(DataError, match=r"of 'tiny' have no user .* Expected ids .* as text, such as 'u"):
            scores_of(model, dataset, users)  # type: ignore[arg-type]


def test_a_model_of_sequences_has_no_table_of_scores(world: World) -> None:
    # Not by an import of RecBole's room: one of its models turns on anomaly detection for the process.
    sequential = get_model("GRU4Rec")

    with pytest.raises(SettingError, match="GRU4Rec does not score pairs"):
        scores_of(sequential.__new__(sequential), None)
