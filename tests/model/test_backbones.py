"""The graph backbones against dense matrices and loops in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.registry import BACKBONES


def some_batch() -> Any:
    users = [3, 1, 1, 8, 2, 7, 1, 30, 3, 2]
    return batch_of(users, [1, 2, 2, 5, 6, 9, 2, 1, 20, 9], [4, 4, 9, 11, 8, 7, 25, 5, 4, 1])


def dense_adjacency(dataset: Any, self_loops: bool = False) -> np.ndarray:
    n_users, n_items = dataset.user_num, dataset.item_num
    matrix = np.diag([float(self_loops and node not in (0, n_users)) for node in range(n_users + n_items)])
    for user, item in zip(*(dataset.inter_feat[field].tolist() for field in ("user_id", "item_id"))):
        matrix[user, n_users + item] = matrix[n_users + item, user] = 1
    degree = matrix.sum(axis=1)
    for row, column in zip(*matrix.nonzero()):
        matrix[row, column] /= np.sqrt(degree[row] * degree[column])
    return matrix


def dense_layers(model: Any, matrix: np.ndarray, n_layers: int) -> list[np.ndarray]:
    """Layer 0 to layer L."""
    layers = [model.ego_embeddings().detach().double().numpy()]
    for _ in range(n_layers):
        layers.append(matrix @ layers[-1])
    return layers


def close(ours: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().double().numpy(), expected, rtol=1e-4, atol=1e-6)


# ---------------------------------------------------------------------- representation


@pytest.mark.parametrize("include_ego_layer", [True, False])
@pytest.mark.parametrize("layer_combination", ["mean", "sum", "concat"])
@pytest.mark.parametrize("n_layers", [1, 3])
def test_layers_are_combined(world: World, layer_combination: str, include_ego_layer: bool, n_layers: int) -> None:
    model, dataset = built(
        world,
        "LightGCN",
        layer_combination=layer_combination,
        include_ego_layer=include_ego_layer,
        n_layers=n_layers,
    )
    layers = dense_layers(model, dense_adjacency(dataset), n_layers)[0 if include_ego_layer else 1 :]
    expected = {"mean": np.mean(layers, axis=0), "sum": np.sum(layers, axis=0), "concat": np.hstack(layers)}
    representation = model.encode(model.ego_embeddings())
    close(representation, expected[layer_combination])
    assert model.output_dim == representation.shape[1]
    assert model.output_dim == (8 * len(layers) if layer_combination == "concat" else 8)
    users, items = model.forward()
    assert torch.equal(torch.cat([users, items]), representation)
    assert (len(users), len(items)) == (dataset.user_num, dataset.item_num)


def test_one_draw_of_dropped_edges_serves_all_layers(world: World) -> None:
    model, dataset = built(world, "LightGCN", edge_keep_rate=0.6, n_layers=3)
    torch.manual_seed(4)
    dropped = model.adjacency.drop_edges(0.6).to_dense().double().numpy()
    whole = dense_adjacency(dataset)
    kept = dropped != 0
    np.testing.assert_allclose(dropped[kept], whole[kept], rtol=1e-6)
    torch.manual_seed(4)
    close(model.encode(model.ego_embeddings()), np.mean(dense_layers(model, dropped, 3), axis=0))


def test_edges_are_dropped_in_training_only(world: World) -> None:
    model, dataset = built(world, "LightGCN", edge_keep_rate=0.6, n_layers=2)
    expected = np.mean(dense_layers(model, dense_adjacency(dataset), 2), axis=0)
    ego = model.ego_embeddings().detach()
    first, second = model.encode(ego), model.encode(ego)
    for other in (second, torch.from_numpy(expected).float()):
        assert (first - other).abs().max() > 0.05
    model.eval()
    before = torch.random.get_rng_state()
    first, second = model.encode(ego), model.encode(ego)
    assert torch.equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    close(first, expected)


@pytest.mark.parametrize("name", ["SGL", "SimGCL"])
def test_whole_graph_in_the_main_path(world: World, name: str) -> None:
    views = {"view_edge_drop": "independent", "edge_keep_rate": 0.5} if name == "SGL" else {}
    model, dataset = built(world, name, n_layers=2, include_ego_layer=True, **views)
    assert model.training
    expected = np.mean(dense_layers(model, dense_adjacency(dataset), 2), axis=0)
    close(model.encode(model.ego_embeddings()), expected)


# ---------------------------------------------------------------------- SGL


def test_independent_views_differ_at_each_step(world: World) -> None:
    keep_rate = 0.5
    model, dataset = built(world, "SGL", view_edge_drop="independent", edge_keep_rate=keep_rate)
    whole = dense_adjacency(dataset)
    n = (whole > 0).sum()
    torch.manual_seed(0)
    views = [view.to_dense().double().numpy() for _ in range(2) for view in model.views()]
    for index, view in enumerate(views):
        kept = view != 0
        assert abs(kept.sum() - n * keep_rate) <= 4 * np.sqrt(n * keep_rate * (1 - keep_rate))
        np.testing.assert_allclose(view[kept], whole[kept], rtol=1e-6)
        assert not np.array_equal(kept, kept.T)
        for other in views[:index]:
            shared = ((view != 0) & (other != 0)).sum()
            assert abs(shared - n / 4) <= 4 * np.sqrt(n * 3 / 16)


def test_recboles_views_are_undirected_and_kept_for_an_epoch(world: World) -> None:
    model, dataset = built(world, "SGL", drop_ratio=0.3)
    first, second = (view.to_dense() for view in model.views())
    n_kept = int(len(dataset.inter_feat) * 0.7)
    for view in (first, second):
        assert torch.equal(view, view.T)
        assert (view != 0).sum() == 2 * n_kept
    assert not torch.equal(first, second)
    assert torch.equal(model.views()[0].to_dense(), first)
    model.train()
    assert not torch.equal(model.views()[0].to_dense(), first)


@pytest.mark.parametrize("padding_negatives", [True, False])
@pytest.mark.parametrize("ssl_negative_items", [True, False])
def test_sgl_contrast_is_the_slow_sum(
    world: World, ssl_negative_items: bool, padding_negatives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, dataset = built(
        world,
        "SGL",
        view_edge_drop="independent",
        edge_keep_rate=0.6,
        loss_reduction="mean",
        ssl_tau=0.4,
        ssl_weight=0.3,
        ssl_negative_items=ssl_negative_items,
        padding_negatives=padding_negatives,
    )
    torch.manual_seed(0)
    views = model.views()
    monkeypatch.setattr(model, "views", lambda: views)
    n_layers = model.graph_settings.n_layers
    tables = []
    for view in views:
        stacked = np.mean(dense_layers(model, view.to_dense().double().numpy(), n_layers), axis=0)
        tables.append((stacked[: dataset.user_num], stacked[dataset.user_num :]))
    batch = some_batch()
    expected = 0.0
    for side, field in ((0, "user_id"), (1, "item_id"), (1, "neg_item_id"))[: 2 + ssl_negative_items]:
        anchors, candidates = tables[0][side], tables[1][side]
        rows = range(0 if padding_negatives else 1, len(candidates))
        ids = batch[field].tolist()  # duplicates included
        expected += sum(contrast(anchors[id], candidates, id, rows, 0.4) for id in ids) / len(ids)
    losses = model.calculate_loss(batch)
    ssl = dict(zip(model.loss_names, losses))["ssl"]
    assert ssl.item() == pytest.approx(0.3 * expected, rel=1e-5)


def contrast(anchor: np.ndarray, table: np.ndarray, positive: int, rows: Any, tau: float) -> float:
    def similarity(row: int) -> float:
        norms = np.linalg.norm(anchor) * np.linalg.norm(table[row])
        return float(np.exp((anchor @ table[row] / norms if norms else 0) / tau))

    return -np.log(similarity(positive) / sum(similarity(row) for row in rows))


# ---------------------------------------------------------------------- SimGCL


@pytest.mark.parametrize("eps", [0.1, 0.9])
def test_noise_has_length_eps_and_stays_in_the_orthant(world: World, eps: float) -> None:
    model, _ = built(world, "SimGCL", eps=eps)
    torch.manual_seed(0)
    layer = torch.randn(500, 8)
    layer[0] = 0
    noise = model.noise(layer)
    torch.testing.assert_close(noise[1:].norm(dim=1), torch.full((499,), eps), rtol=1e-4, atol=1e-6)
    assert (noise * layer.sign() >= 0).all()
    assert (noise[1:] != 0).float().mean() > 0.99
    assert torch.equal(noise[0], torch.zeros(8))  # a row without direction has no orthant
    assert not torch.equal(model.noise(layer), noise)


def test_noise_is_added_after_each_layer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = built(world, "SimGCL", n_layers=2)
    monkeypatch.setattr(model, "noise", lambda layer: layer + 1)
    matrix = dense_adjacency(dataset)
    ego = model.ego_embeddings()
    first = 2 * (matrix @ ego.detach().double().numpy()) + 1
    second = 2 * (matrix @ first) + 1
    close(model.propagate(ego, model.adjacency, model.noise), (first + second) / 2)


def test_simgcl_contrast_is_the_papers(world: World) -> None:
    """The paper's own settings: layers 1 to L averaged, unique nodes of the batch, mean over them."""
    model, dataset = built(world, "SimGCL", eps=0.0, defaults="published")
    assert (model.graph_settings.n_layers, model.contrast_settings.ssl_tau) == (2, 0.2)
    stacked = np.mean(dense_layers(model, dense_adjacency(dataset), 2)[1:], axis=0)
    tables = stacked[: dataset.user_num], stacked[dataset.user_num :]
    batch = some_batch()
    expected = 0.0
    for table, field in zip(tables, ("user_id", "item_id")):
        unique = sorted(set(batch[field].tolist()))
        assert len(unique) < len(batch)
        expected += np.mean([contrast(table[id], table, id, unique, 0.2) for id in unique])
    losses = model.calculate_loss(batch)
    ssl = dict(zip(model.loss_names, losses))["ssl"]
    assert ssl.item() == pytest.approx(0.5 * expected, rel=1e-5)


def test_simgcl_views_are_drawn_apart(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = built(world, "SimGCL", eps=0.5)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(model, "view_contrast", lambda _, *views: seen.extend(views[:2]) or views[0].sum())
    model.calculate_loss(some_batch())
    first, second = seen
    main = model.encode(model.ego_embeddings())
    for one, other in ((first, second), (first, main), (second, main)):
        assert (one - other).abs().max() > 0.01


# ---------------------------------------------------------------------- GCCF


@pytest.mark.parametrize("self_loops", [True, False])
def test_gccf_concatenates_layers_over_a_graph_with_self_loops(world: World, self_loops: bool) -> None:
    model, dataset = built(world, "GCCF", self_loops=self_loops, n_layers=2)
    matrix = dense_adjacency(dataset, self_loops)
    representation = model.encode(model.ego_embeddings())
    close(representation, np.hstack(dense_layers(model, matrix, 2)))
    assert model.output_dim == representation.shape[1] == 24


def test_gccf_carries_unused_weights_for_the_l2_term_only(world: World) -> None:
    model, _ = built(world, "GCCF", unused_layer_weights=True, l2_scope="all", n_layers=2, reg_weight=0.01)
    plain, _ = built(world, "GCCF", l2_scope="all", n_layers=2, reg_weight=0.01)
    weights = [parameter for name, parameter in model.named_parameters() if name.startswith("layer_weights.")]
    assert [tuple(weight.shape) for weight in weights] == [(8, 8), (8, 8)]
    sum(model.calculate_loss(some_batch())).backward()
    for weight in weights:
        torch.testing.assert_close(weight.grad, 0.02 * weight.detach())
    torch.testing.assert_close(model.encode(model.ego_embeddings()), plain.encode(plain.ego_embeddings()))


# ---------------------------------------------------------------------- DCCF


def slow_dccf(model: Any, dataset: Any, n_layers: int) -> tuple[np.ndarray, list[list[np.ndarray]]]:
    """Layers summed, and each layer's four views, node by node."""
    matrix = dense_adjacency(dataset)
    n_users = dataset.user_num
    current = model.ego_embeddings().detach().double().numpy()
    intents = [intent.detach().double().numpy() for intent in (model.user_intent, model.item_intent)]
    layers, views = [current], []
    for _ in range(n_layers):
        by_intent = np.zeros_like(current)
        for node, row in enumerate(current):
            intent = intents[node >= n_users]
            affinity = np.exp(row @ intent)
            by_intent[node] = intent @ (affinity / affinity.sum())
        layer = [matrix @ current, by_intent]
        for view in (matrix @ current, by_intent):
            adapted = np.zeros_like(current)
            for node in range(len(current)):
                neighbours = matrix[node].nonzero()[0]
                lengths = np.linalg.norm(view, axis=1)
                weights = np.array([(view[node] @ view[n] / lengths[node] / lengths[n] + 1) / 2 for n in neighbours])
                adapted[node] = sum(
                    (w / weights.sum() * current[n] for w, n in zip(weights, neighbours)), 0 * current[0]
                )
            layer.append(adapted)
        views.append(layer)
        current = current + sum(layer)
        layers.append(current)
    return sum(layers), views


def test_dccf_is_its_formulas_node_by_node(world: World) -> None:
    model, dataset = built(world, "DCCF", n_layers=2, intent_num=5)
    representation, _ = slow_dccf(model, dataset, 2)
    found = model.encode(model.ego_embeddings()).detach().double().numpy()
    np.testing.assert_allclose(found, representation, rtol=1e-4, atol=1e-4 * np.abs(representation).max())


@pytest.mark.parametrize("divisor", ["items", "users"])
def test_dccf_contrasts_the_unique_nodes_of_the_batch(world: World, divisor: str) -> None:
    model, dataset = built(
        world, "DCCF", n_layers=2, intent_num=5, ssl_weight=0.3, ssl_tau=0.4, item_contrast_divisor=divisor
    )
    batch = some_batch()
    batch["item_id"][3] = 2  # one item fewer than users
    users = sorted(set(batch["user_id"].tolist()))
    items = sorted(set(batch["item_id"].tolist()))
    assert len(users) != len(items)
    expected = 0.0
    for propagated, *others in slow_dccf(model, dataset, 2)[1]:
        for view in others:
            for rows, by in (
                (users, users),
                ([i + dataset.user_num for i in items], users if divisor == "users" else items),
            ):
                unit = [
                    matrix[rows] / np.linalg.norm(matrix[rows], axis=1, keepdims=True) for matrix in (propagated, view)
                ]
                scores = np.exp(unit[0] @ unit[1].T / 0.4)
                expected -= np.log(np.diag(scores) / scores.sum(axis=1)).sum() / len(by)
    losses = model.calculate_loss(batch)
    assert dict(zip(model.loss_names, losses))["ssl"].item() == pytest.approx(0.3 * expected, rel=1e-4)


def test_dccf_refuses_to_drop_edges(world: World) -> None:
    with pytest.raises(SettingError, match=r"edge_keep_rate=0.8: DCCF reweights the edges itself"):
        world.model("DCCF", edge_keep_rate=0.8)


# ---------------------------------------------------------------------- losses


@pytest.mark.parametrize("name", ["LightGCN", "LightGCN_RLMRecCon", "LightGCN_RLMRecGen"])
def test_l2_over_all_parameters_leaves_out_padding(world: World, name: str) -> None:
    model, _ = built(world, name, l2_scope="all", reg_weight=0.01)
    with torch.no_grad():
        model.user_embedding.weight[0] = 1e3
        model.item_embedding.weight[0] = 1e3
    parts = [model.user_embedding.weight[1:], model.item_embedding.weight[1:]]
    if name != "LightGCN":
        parts += [
            parameter for layer in (0, 2) for parameter in (model.projector[layer].weight, model.projector[layer].bias)
        ]
    if name == "LightGCN_RLMRecGen":
        parts.append(model.node_mask.token)
    assert len(parts) == len(list(model.parameters()))
    expected = 0.01 * sum(value**2 for part in parts for value in part.detach().double().flatten().tolist())
    losses = model.calculate_loss(some_batch())
    reg = dict(zip(model.loss_names, losses))["reg"]
    assert reg.item() == pytest.approx(expected, rel=1e-5)
    reg.backward()
    assert (model.user_embedding.weight.grad[0] == 0).all() and (model.item_embedding.weight.grad[0] == 0).all()
    for parameter in model.parameters():
        table = parameter is model.user_embedding.weight or parameter is model.item_embedding.weight
        torch.testing.assert_close(parameter.grad[table:], 0.02 * parameter.detach()[table:])


@pytest.mark.parametrize("require_pow", [False, True])
def test_l2_over_the_batch(world: World, require_pow: bool) -> None:
    model, _ = built(world, "LightGCN", l2_scope="batch", require_pow=require_pow, reg_weight=0.01)
    batch = some_batch()
    squares = []
    for table, field in (
        (model.user_embedding, "user_id"),
        (model.item_embedding, "item_id"),
        (model.item_embedding, "neg_item_id"),
    ):
        squares.append(sum(table.weight[id].double().square().sum().item() for id in batch[field].tolist()))
    total = sum(squares) / 2 if require_pow else sum(np.sqrt(squares))
    losses = model.calculate_loss(batch)
    reg = dict(zip(model.loss_names, losses))["reg"]
    assert reg.item() == pytest.approx(0.01 * total / len(batch), rel=1e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_bpr_is_the_slow_sum(world: World, reduction: str) -> None:
    model, dataset = built(world, "LightGCN", loss_reduction=reduction)
    layers = dense_layers(model, dense_adjacency(dataset), model.graph_settings.n_layers)
    stacked = np.mean(layers, axis=0)
    users, items = stacked[: dataset.user_num], stacked[dataset.user_num :]
    batch = some_batch()
    expected = 0.0
    for user, positive, negative in zip(*(batch[field].tolist() for field in ("user_id", "item_id", "neg_item_id"))):
        expected -= np.log(1 / (1 + np.exp(users[user] @ items[negative] - users[user] @ items[positive])))
    losses = model.calculate_loss(batch)
    bpr = dict(zip(model.loss_names, losses))["bpr"]
    assert bpr.item() == pytest.approx(expected / (len(batch) if reduction == "mean" else 1), rel=1e-5)


# ---------------------------------------------------------------------- scores


@pytest.mark.parametrize("name", [*BACKBONES, "SimGCL_RLMRecGen"])
def test_full_sort_predict_is_predict_pair_by_pair(world: World, name: str) -> None:
    model, dataset = built(world, name)
    model.eval()
    users = [5, 1, 40, 5]
    scores = model.full_sort_predict(batch_of(users, users, users)).view(len(users), -1)
    assert scores.shape == (len(users), dataset.item_num)
    representation = model.encode(model.ego_embeddings()).detach().double().numpy()
    for row, user in zip(scores, users):
        items = np.arange(dataset.item_num)
        torch.testing.assert_close(model.predict(batch_of([user] * len(items), items, items)), row)
        close(row, np.array([representation[user] @ representation[dataset.user_num + item] for item in items]))


def test_representation_is_computed_once_in_evaluation(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = built(world, "LightGCN")
    encode, calls = model.encode, []
    monkeypatch.setattr(model, "encode", lambda ego: calls.append(1) or encode(ego))
    batch = some_batch()
    model.predict(batch), model.predict(batch)
    assert len(calls) == 2  # while training, weights change between calls
    model.eval()
    for _ in range(3):
        model.predict(batch), model.full_sort_predict(batch)
    assert len(calls) == 3


def by_train(model: Any) -> None:
    model.train()
    model.eval()


def by_eval(model: Any) -> None:
    model.eval()


def by_load_state_dict(model: Any) -> None:
    model.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})


def by_calculate_loss(model: Any) -> None:
    model.calculate_loss(some_batch())


@pytest.mark.parametrize("name", ["LightGCN", "LightGCN_RLMRecCon", "LightGCN_RLMRecGen"])
@pytest.mark.parametrize("invalidate", [by_train, by_eval, by_load_state_dict, by_calculate_loss])
def test_cached_representation_is_forgotten(world: World, name: str, invalidate: Any) -> None:
    model, _ = built(world, name)
    model.eval()
    batch = some_batch()
    before = model.full_sort_predict(batch).detach()
    with torch.no_grad():
        model.user_embedding.weight.mul_(2)
        model.item_embedding.weight.mul_(2)
    assert torch.equal(model.full_sort_predict(batch), before)
    invalidate(model)
    torch.testing.assert_close(model.full_sort_predict(batch), 4 * before)


def test_loading_other_weights_gives_their_scores(world: World) -> None:
    first, _ = built(world, "LightGCN")
    second, _ = world.model("LightGCN")
    batch = some_batch()
    first.eval(), second.eval()
    wanted = first.full_sort_predict(batch)
    assert not torch.allclose(second.full_sort_predict(batch), wanted)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.full_sort_predict(batch), wanted)


def test_xsimgcl_drops_edges_and_contrasts_the_mean_of_its_layers(world: World) -> None:
    """Without noise its layers are LightGCN's; the contrast is that of their mean with the layer asked for."""
    model, dataset = built(world, "XSimGCL", eps=0.0, n_layers=2, contrast_layer=2, ssl_weight=1.0)
    expected = dense_layers(model, dense_adjacency(dataset), 2)
    close(model.layers(model.ego_embeddings()), np.stack(expected))
    batch = some_batch()
    terms = dict(zip(("bpr", "reg", "ssl"), model.calculate_loss(batch)))
    mean, layer = (torch.from_numpy(each).float() for each in (np.mean(expected[1:], axis=0), expected[2]))
    contrast = model.view_contrast(model.contrast_settings, mean, layer, batch).value
    torch.testing.assert_close(terms["ssl"], contrast, rtol=1e-4, atol=1e-6)
    model, _ = built(world, "XSimGCL", eps=0.0, n_layers=2, edge_keep_rate=0.5)
    torch.manual_seed(0)
    assert not np.allclose(model.layers(model.ego_embeddings())[1].detach().numpy(), expected[1])
    with pytest.raises(SettingError, match="contrast_layer=3 with n_layers=2: one of at least 2 layers"):
        world.model("XSimGCL", n_layers=2, contrast_layer=3)
