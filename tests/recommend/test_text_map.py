"""Texts in a model's space: the map finds what is linear, and new items get the share of places of known ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.recommend.scale import Fold, factor_of_places, share_of_places
from recbole_rlmrec.recommend.text_map import TextMap, text_map_of


def mapped(world: World, name: str = "LightGCN", weight: np.ndarray | None = None) -> tuple[TextMap, Any, Any]:
    """Return the map of a model with its first weights, or whose representations are a product of the embeddings."""
    config = world.config(name)
    dataset, train_data, _, _ = world.loaders(config)
    model = config.model_class(config, train_data._dataset)
    if weight is not None:
        tables = []
        for side in ("user", "item"):
            vectors = dataset.semantic_embedding(side).matrix()
            directions = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
            tables.append(torch.from_numpy(directions @ weight + 0.5).float())
        model.representation = lambda: tuple(tables)
    return text_map_of(model, dataset), model, dataset


def test_what_is_linear_is_found_again(world: World) -> None:
    rng = np.random.default_rng(4)
    weight = 100 * rng.normal(size=(12, 8))
    found, _, _ = mapped(world, weight=weight)
    texts = rng.normal(size=(6, 12)).astype(np.float32)
    texts[2] = 0
    expected = texts / np.maximum(np.linalg.norm(texts, axis=1, keepdims=True), 1e-9) @ weight + 0.5
    expected[2] = 0  # a text that says nothing
    for vectors in (found.users(texts).numpy(), found.items(texts).numpy() / found.factor):
        assert not vectors[2].any()
        rows, goals = np.delete(vectors, 2, axis=0), np.delete(expected, 2, axis=0)
        cosines = (rows * goals).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(goals, axis=1)
        assert cosines.min() > 0.99


def test_of_few_items_new_ones_are_as_long_as_the_trained(world: World, caplog: pytest.LogCaptureFixture) -> None:
    found, _, _ = mapped(world)
    known = found._known["item"]
    lengths = found._map("item").held_out.norm(dim=1) * found.factor
    assert lengths.mean().item() == pytest.approx(known.representations.norm(dim=1).mean().item())
    assert "compared with 30 known items; of fewer than 100" in caplog.text


def test_of_many_items_new_ones_get_their_places(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    few = mapped(world)[0].factor
    monkeypatch.setattr("recbole_rlmrec.recommend.text_map.FEW", 10)
    monkeypatch.setattr("recbole_rlmrec.recommend.scale.PLACES", 3)
    factor = mapped(world)[0].factor
    assert factor != few and 1 / 32 < factor < 32


def test_the_length_of_a_text_s_vector_does_not_matter(world: World) -> None:
    found, _, _ = mapped(world)
    texts = np.random.default_rng(1).normal(size=(3, 12)).astype(np.float32)
    torch.testing.assert_close(found.items(texts), found.items(7 * texts))


def test_nothing_that_is_untrained_is_known(world: World) -> None:
    """An item without a training interaction, and one without an embedding, change nothing of the map."""
    before, _, _ = mapped(world)
    del world.semantic[1]["i3"]
    world.train = world.train[world.train[:, 1] != "i4"]
    world.write()
    found, _, dataset = mapped(world)
    tokens = dataset.id2token("item_id", found._known["item"].ids)
    assert len(tokens) == len(before._known["item"].ids) - 2 and not {"i3", "i4"} & set(tokens)


def test_held_out_items_get_their_share_of_the_places() -> None:
    """Their scores are too low by a factor that differs with the fold; the factor found is between."""
    rng = np.random.default_rng(0)
    users, items = (torch.from_numpy(rng.random((n, 6))).float() for n in (150, 200))
    seen = torch.arange(150).repeat_interleave(2), torch.from_numpy(rng.integers(0, 200, 300))
    folds = [Fold(fold, 0.25) for fold in torch.arange(200).chunk(4)]
    factor = factor_of_places(users, items, items / 3, seen, folds)
    assert 2.8 < factor < 3.2  # every item is as good as any other
    shares = []
    for fold in folds:
        scores = users @ items.T
        scores[seen] = -torch.inf
        scores[:, fold.items] = users @ items[fold.items].T / 3 * factor
        shares.append(float(torch.isin(scores.topk(20).indices, fold.items).double().mean()))
    assert abs(np.mean(shares) - 0.25) < 0.01


def test_a_list_of_few_items_has_fewer_places() -> None:
    assert share_of_places(torch.tensor([[3.0, 1.0]]), torch.tensor([[2.0, 0.5]])) == 0.5


def test_what_texts_cannot_be_mapped_for(world: World) -> None:
    found, _, _ = mapped(world)
    with pytest.raises(
        DataError, match=r"have the shape \[2, 5\], the dataset's semantic embeddings have dimension 12"
    ):
        found.items(np.ones((2, 5), dtype=np.float32))
    with pytest.raises(SettingError, match="It is not known what NeuMF represents users and items by"):
        mapped(world, "NeuMF")
    world.train = world.train[np.isin(world.train[:, 1], [f"i{n}" for n in range(7)])]
    world.write()
    with pytest.raises(DataError, match="7 items with both a semantic embedding and a training interaction; to map"):
        mapped(world)[0].items(np.ones((1, 12), dtype=np.float32))
    for file in world.folder.glob("*emb*"):
        file.unlink()
    with pytest.raises(DataError, match="build-semantics"):
        mapped(world)
