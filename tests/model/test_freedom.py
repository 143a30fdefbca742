"""FREEDOM on a dataset with holes, against a loop over items in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built
from test_baselines import check_gradients, double_leaves, propagated, semantic_row
from test_promax import some_batch
from torch import Tensor

from recbole_rlmrec.errors import SettingError

HOLES = ("i0", "i5")


@pytest.fixture
def holed(world: World) -> World:
    world.forget_texts(items=HOLES)
    world.train = np.concatenate([world.train, world.train[:3]])  # repeated interactions
    world.write()
    return world


def slow_item_graph(world: World, dataset: Any, k: int) -> Tensor:
    """1 / k for each of an item's nearest by cosine, itself included."""
    texts = [semantic_row(world, dataset, "item", item) for item in range(dataset.item_num)]
    with_text = [item for item, text in enumerate(texts) if text.any()]
    graph = torch.zeros(dataset.item_num, dataset.item_num, dtype=torch.float64)
    for item in with_text:
        cosines = {
            j: texts[item] @ texts[j] / np.linalg.norm(texts[item]) / np.linalg.norm(texts[j]) for j in with_text
        }
        nearest = sorted(with_text, key=lambda j: -cosines[j])[:k]
        assert item in nearest
        graph[item, nearest] = 1 / k
    return graph


def test_loss_and_scores_are_the_slow_ones_with_gradients(holed: World) -> None:
    model, dataset = built(holed, "FREEDOM", kept_edges=1.0, n_layers=2, item_neighbours=4)
    leaves, batch = double_leaves(model), some_batch()
    ego = torch.cat([leaves["user_embedding.weight"], leaves["item_embedding.weight"]])
    users, items = propagated(dataset, ego, 2).split([dataset.user_num, dataset.item_num])
    items = items + slow_item_graph(holed, dataset, 4) @ leaves["item_embedding.weight"]
    rows = (batch[field].tolist() for field in ("user_id", "item_id", "neg_item_id"))
    margins = torch.stack([users[user] @ (items[liked] - items[other]) for user, liked, other in zip(*rows)])
    losses = model.calculate_loss(batch)
    check_gradients(model, sum(losses), leaves, -torch.nn.functional.logsigmoid(margins).mean())
    everyone = np.arange(dataset.user_num)
    scores = model.eval().full_sort_predict(batch_of(everyone, everyone, everyone)).view(len(everyone), -1)
    torch.testing.assert_close(scores.double(), (users @ items.T).detach(), rtol=1e-4, atol=1e-4)


def test_an_epoch_keeps_edges_of_its_own_and_evaluation_has_all(holed: World) -> None:
    model, _ = built(holed, "FREEDOM", kept_edges=0.3)
    whole = model.adjacency.to_dense()
    n_edges, graphs = model.adjacency.column.numel() // 2, []
    for _ in range(2):
        model.train()
        assert model.pruned is model.pruned
        graph = model.pruned.to_dense()
        assert model.pruned.column.numel() == 2 * int(0.3 * n_edges)
        assert not ((graph > 0) & (whole == 0)).any()
        # normalised by what is left
        degree = (graph > 0).sum(dim=1).clamp(min=1).float().rsqrt()
        torch.testing.assert_close(graph, (graph > 0) * degree[:, None] * degree)
        graphs.append(graph)
    assert not torch.equal(*graphs)
    used: list[Any] = []
    model.propagate = lambda ego, graph: used.append(graph) or ego
    model.eval().encode(model.ego_embeddings())
    assert used == [model.adjacency]


def test_edges_of_popular_nodes_are_dropped_more_often(holed: World) -> None:
    model, _ = built(holed, "FREEDOM", kept_edges=0.3)
    torch.manual_seed(0)
    kept = torch.stack([(model.train().pruned.to_dense() > 0).float() for _ in range(60)]).mean(dim=0)
    weight = model.adjacency.to_dense()
    edges = weight > 0
    correlation = torch.corrcoef(torch.stack([kept[edges], weight[edges]]))[0, 1]
    assert correlation > 0.5


def test_concatenated_layers_are_refused(world: World) -> None:
    with pytest.raises(SettingError, match=r"layer_combination=concat: FREEDOM adds .* Set layer_combination to mean"):
        world.model("FREEDOM", layer_combination="concat")
