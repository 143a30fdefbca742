"""AutoCF's draws against sets of pairs, its encoder, decoder and losses against dense matrices in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone import autocf
from recbole_rlmrec.model.backbone.autocf import float32_rows
from recbole_rlmrec.model.backbone.base import _padded_distinct

TERMS = ("interaction", "reg", "ssl", "infomax")


def some_batch() -> Any:
    users = [3, 1, 1, 8, 2, 7, 1, 30, 3, 2]
    return batch_of(users, [1, 2, 2, 5, 6, 9, 2, 1, 20, 9], [4, 4, 9, 11, 8, 7, 25, 5, 4, 1])


def terms_of(model: Any, batch: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    losses = model.calculate_loss(batch)
    return dict(zip(model.loss_names, losses))


def whole_graph(dataset: Any) -> np.ndarray:
    """The 0/1 graph, filled in edge by edge."""
    n_users = dataset.user_num
    matrix = np.zeros((n_users + dataset.item_num,) * 2)
    for user, item in zip(*(dataset.inter_feat[field].tolist() for field in ("user_id", "item_id"))):
        matrix[user, n_users + item] = matrix[n_users + item, user] = 1
    return matrix


def normalized(matrix: np.ndarray) -> np.ndarray:
    degree = matrix.sum(axis=1)
    degree[degree == 0] = 1
    return matrix / np.sqrt(np.outer(degree, degree))


def in_double(parameter: torch.Tensor) -> np.ndarray:
    return parameter.detach().double().numpy()


def slow_layers(
    model: Any, encoder: np.ndarray, decoder: np.ndarray, row_of: list[int] | None = None
) -> list[np.ndarray]:
    """Layers of encoder and decoder; ``decoder`` holds 0/1, and ``row_of`` moves its rows, duplicates kept."""
    layers = [in_double(model.ego_embeddings())]
    for _ in range(model.graph_settings.n_layers):
        layers.append(encoder @ layers[-1])
    for layer in model.decoder:
        x = layers[-1]
        shape = (len(x), model.autocf_settings.head_num, -1)
        query, key, value = ((x @ in_double(weight)).reshape(shape) for weight in (layer.query, layer.key, layer.value))
        weighted, weight = np.zeros_like(value), np.zeros(value.shape[:2])
        for row, column in zip(*decoder.nonzero()):
            place = row if row_of is None else row_of[row]
            attention = np.exp(np.clip((query[place] * key[column]).sum(axis=1), -10, 10))
            weighted[place] += attention[:, None] * value[column]
            weight[place] += attention
        layers.append((weighted / (weight + 1e-8)[:, :, None]).reshape(x.shape))
    return layers


def close(ours: torch.Tensor, expected: np.ndarray) -> None:
    ours_in_double = ours.detach().double().numpy()
    np.testing.assert_allclose(ours_in_double, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# ---------------------------------------------------------------------- centres


def slow_cosines(model: Any, dataset: Any) -> np.ndarray:
    """The paper's formula to the letter, node by node; of the nodes that are not [PAD]."""
    graph, ego = whole_graph(dataset), in_double(model.ego_embeddings())
    n = graph.sum(axis=1, keepdims=True)
    first = graph @ ego - ego
    second = (graph @ first - first) - n * ego
    second_count = (graph @ n - n) - n
    centre = (first + second) / (n + second_count + 1e-8)
    centre, ego = (np.delete(table, [0, dataset.user_num], axis=0) for table in (centre, ego))
    return np.array([c @ e / np.linalg.norm(c) / np.linalg.norm(e) for c, e in zip(centre, ego)])


def test_scores_are_the_papers_with_gumbel_noise(world: World) -> None:
    model, dataset = built(world, "AutoCF")
    torch.manual_seed(7)
    scores = model.centre_scores()
    torch.manual_seed(7)
    uniform = torch.rand(dataset.user_num + dataset.item_num - 2).double().numpy()
    expected = -np.log1p(np.exp(-slow_cosines(model, dataset))) - np.log(-np.log(uniform))
    close(scores, expected)


def test_the_highest_scores_are_the_centres(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = built(world, "AutoCF", seed_num=5)
    centres, draw = [], model.draw
    monkeypatch.setattr(model, "draw", lambda rows: centres.append(rows) or draw(rows))
    terms_of(model, some_batch())
    torch.manual_seed(0)
    scores = in_double(model.centre_scores())
    real = [node for node in range(dataset.user_num + dataset.item_num) if node not in (0, dataset.user_num)]
    expected = sorted(real, key=lambda node: -scores[real.index(node)])[:5]
    assert sorted(centres[0].tolist()) == sorted(expected)


def test_infomax_is_minus_the_mean_score_and_has_its_gradient(world: World) -> None:
    model, dataset = built(world, "AutoCF")
    infomax = terms_of(model, some_batch())["infomax"]
    torch.manual_seed(0)
    assert infomax.item() == pytest.approx(-model.centre_scores().mean().item(), rel=1e-6)
    infomax.backward()
    found = torch.cat([model.user_embedding.weight.grad, model.item_embedding.weight.grad])

    graph = torch.from_numpy(whole_graph(dataset))
    ego = model.ego_embeddings().detach().double().requires_grad_()
    n = graph.sum(dim=1, keepdim=True)
    first = graph @ ego - ego
    centre = (first + (graph @ first - first) - n * ego) / (n + (graph @ n - n) - n + 1e-8)
    cosine = torch.cosine_similarity(centre, ego)[model.is_node]
    (-torch.nn.functional.logsigmoid(cosine).mean()).backward()
    close(found, ego.grad.numpy())
    assert (found[~model.is_node] == 0).all()


def test_every_node_may_be_a_centre_but_not_the_padding(world: World) -> None:
    model, dataset = built(world, "AutoCF", seed_num=70)
    terms_of(model, some_batch())
    assert dataset.user_num + dataset.item_num == 72
    assert (model.masked_graphs.encoder.value == 0).all()
    assert torch.isfinite(sum(model.calculate_loss(some_batch())))


# ---------------------------------------------------------------------- masked graphs


@pytest.mark.parametrize("node_keep_rate", [0.0, 0.29])
@pytest.mark.parametrize("mask_depth", [1, 2, 3])
def test_graphs_of_a_draw_are_sets_of_pairs(make_world: Any, mask_depth: int, node_keep_rate: float) -> None:
    world = make_world(n_users=120, n_items=100)
    world.train = world.train[:260]  # sparse enough for three steps to leave something
    world.write()
    model, dataset = built(world, "AutoCF", mask_depth=mask_depth, node_keep_rate=node_keep_rate)
    whole = {(row, column) for row, column in zip(*(ends.tolist() for ends in whole_graph(dataset).nonzero()))}
    centres = torch.tensor([5, 9, dataset.user_num + 4])
    removed = set(centres.tolist())
    for _ in range(mask_depth - 1):
        removed |= {column for row, column in whole if row in removed}
    left = {pair for pair in whole if not set(pair) & removed}
    assert 0 < len(left) < len(whole)

    torch.manual_seed(3)
    graphs = model.draw(centres)
    torch.manual_seed(3)
    real = [node for node in range(dataset.user_num + dataset.item_num) if node not in (0, dataset.user_num)]
    n_sampled = {0.0: 0, 0.29: len(real) * 29 // 100}[node_keep_rate]
    sampled = torch.randint(len(real), (n_sampled,)).tolist()
    among = sorted(removed | {real[place] for place in sampled})
    ends = [among[place] for place in torch.randint(len(among), (2 * len(whole),)).tolist()]
    pairs = set(zip(ends[: len(whole)], ends[len(whole) :]))
    expected = left | {(node, node) for node in real} | pairs | {(b, a) for a, b in pairs}

    size = (dataset.user_num + dataset.item_num,) * 2
    masked = np.zeros(size)
    masked[tuple(zip(*left))] = 1
    close(graphs.encoder.to_dense(), normalized(masked))
    decoder = graphs.decoder.to_dense()
    assert {tuple(pair) for pair in decoder.nonzero().tolist()} == expected
    assert set(decoder.unique().tolist()) == {0.0, 1.0}
    assert len(graphs.decoder.column) == len(expected)
    for padding in (0, dataset.user_num):
        assert (decoder[padding] == 0).all() and (decoder[:, padding] == 0).all()


def test_a_share_of_nodes_that_floating_point_misses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """0.57 * 100 is 56.99999999999999."""
    model, _ = built(world, "AutoCF", node_keep_rate=0.57)
    monkeypatch.setattr(model, "nodes", torch.arange(1, 41).repeat(3)[:100])
    sizes, randint = [], torch.randint
    monkeypatch.setattr(torch, "randint", lambda n, size, **rest: sizes.append((n, *size)) or randint(n, size, **rest))
    model.draw(torch.tensor([5]))
    assert sizes[0] == (100, 57) and sizes[1][1] == 2 * len(model.adjacency.column)


def test_graphs_are_drawn_at_the_start_of_an_epoch_and_every_few_steps(world: World) -> None:
    model, _ = built(world, "AutoCF", fix_steps=3)

    def draws(n_steps: int) -> list[bool]:
        found = []
        for _ in range(n_steps):
            before = model.masked_graphs
            terms = dict(zip(TERMS, model.calculate_loss(some_batch())))
            assert model.loss_names == TERMS
            found.append(model.masked_graphs is not before)
            assert (terms["infomax"] != 0) == found[-1]
        return found

    torch.manual_seed(0)
    assert draws(8) == [True, False, False, True, False, False, True, False]
    model.train()
    assert draws(4) == [True, False, False, True]


def test_draws_differ(world: World) -> None:
    model, _ = built(world, "AutoCF", fix_steps=1)
    torch.manual_seed(0)
    found = []
    for _ in range(3):
        model.calculate_loss(some_batch())
        found.append(model.masked_graphs)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not torch.equal(found[one].encoder.value, found[other].encoder.value)
        assert not torch.equal(found[one].decoder.to_dense(), found[other].decoder.to_dense())


# ---------------------------------------------------------------------- representation


@pytest.mark.parametrize("settings", [{}, {"head_num": 1}, {"n_layers": 3, "n_decoder_layers": 2, "head_num": 4}])
def test_representation_while_training_is_that_of_the_drawn_graphs(world: World, settings: dict[str, Any]) -> None:
    model, dataset = built(world, "AutoCF", **settings)
    terms_of(model, some_batch())
    encoder, decoder = (graph.to_dense().double().numpy() for graph in vars(model.masked_graphs).values())
    assert 0 < (encoder > 0).sum() < whole_graph(dataset).sum()
    close(model.encode(model.ego_embeddings()), sum(slow_layers(model, encoder, decoder)))


def test_evaluation_encodes_and_decodes_over_the_whole_graph(world: World) -> None:
    model, dataset = built(world, "AutoCF", edge_keep_rate=0.5, decoder_rows="float32")
    before = terms_of(model, some_batch())
    model.eval()
    graph = whole_graph(dataset)
    expected = sum(slow_layers(model, normalized(graph), graph))
    close(model.encode(model.ego_embeddings()), expected)
    users = torch.arange(1, dataset.user_num)
    scores = model.full_sort_predict({"user_id": users}).view(len(users), -1)
    close(scores, expected[1 : dataset.user_num] @ expected[dataset.user_num :].T)
    model.train()
    torch.testing.assert_close(terms_of(model, some_batch()), before)


@pytest.mark.parametrize("include_ego_layer", [True, False])
@pytest.mark.parametrize("layer_combination", ["mean", "sum", "concat"])
def test_decoders_layers_are_combined_with_the_encoders(
    world: World, layer_combination: str, include_ego_layer: bool
) -> None:
    model, dataset = built(
        world,
        "AutoCF_RLMRecCon",
        layer_combination=layer_combination,
        include_ego_layer=include_ego_layer,
        n_decoder_layers=2,
    )
    model.eval()
    graph = whole_graph(dataset)
    layers = slow_layers(model, normalized(graph), graph)[0 if include_ego_layer else 1 :]
    expected = {"mean": np.mean(layers, axis=0), "sum": np.sum(layers, axis=0), "concat": np.hstack(layers)}
    representation = model.encode(model.ego_embeddings())
    close(representation, expected[layer_combination])
    assert model.output_dim == representation.shape[1]
    assert len(layers) == 4 + include_ego_layer
    model.train()
    assert torch.isfinite(sum(model.calculate_loss(some_batch())))


def test_edges_are_dropped_from_the_encoder_in_training_only(world: World) -> None:
    model, _ = built(world, "AutoCF", edge_keep_rate=0.5)
    terms_of(model, some_batch())
    torch.manual_seed(2)
    encoder = model.masked_graphs.encoder.drop_edges(0.5).to_dense().double().numpy()
    torch.manual_seed(2)
    expected = sum(slow_layers(model, encoder, model.masked_graphs.decoder.to_dense().double().numpy()))
    close(model.encode(model.ego_embeddings()), expected)


# ---------------------------------------------------------------------- rows in float32


@pytest.mark.parametrize(("n", "n_wrong"), [(42, 0), (20_332, 994), (22_101, 1_394)])
def test_rows_that_float32_gets_wrong(n: int, n_wrong: int) -> None:
    """The counts are those of the official code on amazon-book and yelp."""
    rows = float32_rows(n)
    above = torch.arange(n) - rows
    assert set(above.tolist()) <= {0, 1} and above.sum().item() == n_wrong


def test_rows_in_float32_are_those_of_the_official_arithmetic() -> None:
    n = 20_332
    row, column = torch.randint(n, (2, 20_000), generator=torch.Generator().manual_seed(0))
    number = row * n + column
    assert torch.equal(((number - column) / n).long(), float32_rows(n)[row])
    assert (float32_rows(n)[row] != row).any()


def test_edges_of_a_wrong_row_go_to_the_row_above(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def every_seventh(n: int) -> torch.Tensor:
        return torch.arange(n) - (torch.arange(n) % 7 == 3).long()

    monkeypatch.setattr(autocf, "float32_rows", every_seventh)
    model, dataset = built(world, "AutoCF", decoder_rows="float32")
    exact, _ = built(world, "AutoCF")
    terms_of(model, some_batch())
    real = [node for node in range(dataset.user_num + dataset.item_num) if node not in (0, dataset.user_num)]
    row_of = list(range(dataset.user_num + dataset.item_num))
    for place, node in enumerate(real):
        row_of[node] = real[place - (place % 7 == 3)]
    encoder, decoder = (graph.to_dense().double().numpy() for graph in vars(model.masked_graphs).values())
    representation = model.encode(model.ego_embeddings())
    close(representation, sum(slow_layers(model, encoder, decoder, row_of)))
    exact.masked_graphs = model.masked_graphs
    assert (representation - exact.encode(exact.ego_embeddings())).abs().max() > 0.1


# ---------------------------------------------------------------------- losses


def slow_terms(model: Any, batch: Any, representation: np.ndarray, ssl_weight: float) -> dict[str, float]:
    users, items = representation[: model.n_users], representation[model.n_users :]
    user, positive = batch["user_id"].tolist(), batch["item_id"].tolist()

    def log_sum(row: np.ndarray, table: np.ndarray) -> float:
        return float(np.log(sum(np.exp(row @ other) for other in table[1:])))

    among_users = np.mean([log_sum(users[id], users) for id in set(user)])
    among_items = np.mean([log_sum(items[id], items) for id in set(positive)])
    between = np.mean([log_sum(users[id], items) for id in user])
    return {
        "interaction": -np.mean([users[u] @ items[i] for u, i in zip(user, positive)]),
        "ssl": ssl_weight * (among_users + among_items) + between,
    }


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_losses_are_the_slow_sums(world: World, reduction: str) -> None:
    model, _ = built(world, "AutoCF", ssl_weight=0.7, loss_reduction=reduction, reg_weight=0.01)
    batch = some_batch()
    terms = terms_of(model, batch)
    encoder, decoder = (graph.to_dense().double().numpy() for graph in vars(model.masked_graphs).values())
    expected = slow_terms(model, batch, sum(slow_layers(model, encoder, decoder)), 0.7)
    times = len(batch) if reduction == "sum" else 1
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(times * value, rel=1e-5), name
    parts = [model.user_embedding.weight[1:], model.item_embedding.weight[1:], *model.decoder.parameters()]
    assert len(parts) == len(list(model.parameters())) == 5
    squares = sum(float(in_double(part).ravel() @ in_double(part).ravel()) for part in parts)
    assert terms["reg"].item() == pytest.approx(0.01 * squares, rel=1e-5)


def test_gradients_are_those_of_dense_matrices_in_float64(world: World) -> None:
    model, _ = built(world, "AutoCF", ssl_weight=0.7, head_num=2)
    batch = some_batch()
    terms_of(model, batch)
    encoder, decoder = (graph.to_dense().double() for graph in vars(model.masked_graphs).values())
    sum(model.calculate_loss(batch)).backward()

    exact = copy.deepcopy(model).double()
    ego = exact.ego_embeddings()
    layers = [ego, encoder @ ego, encoder @ (encoder @ ego)]
    query, key, value = (
        (layers[-1] @ weight).unflatten(1, (2, -1)).transpose(0, 1) for weight in exact.decoder[0].parameters()
    )
    attention = (query @ key.transpose(1, 2)).clamp(-10, 10).exp() * decoder
    decoded = attention @ value / (attention.sum(dim=2, keepdim=True) + 1e-8)
    layers.append(decoded.transpose(0, 1).flatten(start_dim=1))
    users, items = exact.split(torch.stack(layers).sum(dim=0))
    user, positive, _ = exact.batch(batch)
    between, among_users, among_items = (
        torch.logsumexp(rows @ table[1:].T, dim=1).mean()
        for rows, table in ((users[user], items), (users[user.unique()], users), (items[positive.unique()], items))
    )
    scores = (users[user] * items[positive]).sum(dim=1).mean()
    squares = sum(parameter.square().sum() for parameter in exact.parameters())
    squares = squares - sum(table.weight[0].square().sum() for table in tables_of(exact))  # [PAD]
    exact.zero_grad()
    reg = model.graph_settings.reg_weight * squares
    (between + 0.7 * (among_users + among_items) - scores + reg).backward()
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters()):
        scale = theirs.grad.abs().max()
        assert scale > 1e-3, name
        assert (ours.grad - theirs.grad).abs().max() <= 1e-4 * scale, name


def tables_of(model: Any) -> tuple[Any, Any]:
    return model.user_embedding, model.item_embedding


def test_large_products_do_not_overflow(world: World) -> None:
    model, _ = built(world, "AutoCF")
    with torch.no_grad():
        for table in tables_of(model):
            table.weight.mul_(30)
    terms = terms_of(model, some_batch())
    users, items = model.split(model.encode(model.ego_embeddings()))
    assert torch.isinf((users @ items.T).exp()).any()
    expected = slow_terms_by_shift(model, some_batch(), in_double(users), in_double(items))
    assert terms["ssl"].item() == pytest.approx(expected, rel=1e-5)
    sum(terms.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def slow_terms_by_shift(model: Any, batch: Any, users: np.ndarray, items: np.ndarray) -> float:
    user, positive = batch["user_id"].tolist(), batch["item_id"].tolist()
    weight = model.autocf_settings.ssl_weight
    among_users = np.mean([np.logaddexp.reduce(users[id] @ users[1:].T) for id in set(user)])
    among_items = np.mean([np.logaddexp.reduce(items[id] @ items[1:].T) for id in set(positive)])
    between = np.mean([np.logaddexp.reduce(users[id] @ items[1:].T) for id in user])
    return float(weight * (among_users + among_items) + between)


@pytest.mark.parametrize("name", ["AutoCF", "AutoCF_RLMRecCon", "AutoCF_RLMRecGen"])
def test_padding_has_no_influence(world: World, name: str) -> None:
    model, _ = built(world, name)

    def losses_and_gradients() -> list[torch.Tensor]:
        model.train()
        model.zero_grad()
        terms = terms_of(model, some_batch())
        sum(terms.values()).backward()
        return [*(term.detach() for term in terms.values()), *(p.grad.clone() for p in model.parameters())]

    before = losses_and_gradients()
    with torch.no_grad():
        for table in tables_of(model):
            table.weight[0] = 50.0
    for found, expected in zip(losses_and_gradients(), before):
        torch.testing.assert_close(found, expected)
    for table in tables_of(model):
        assert (table.weight.grad[0] == 0).all() and table.weight.grad[1:].abs().max() > 0.01


def test_negative_items_play_no_part(world: World) -> None:
    for name in ("AutoCF", "AutoCF_RLMRecCon", "AutoCF_RLMRecGen"):
        model, _ = built(world, name, l2_scope="all")
        batch, other = some_batch(), some_batch()
        other["neg_item_id"] = other["neg_item_id"].flip(0) + 1
        before = terms_of(model, batch)
        model.train()
        torch.testing.assert_close(terms_of(model, other), before)


def test_con_aligns_users_and_positive_items(world: World) -> None:
    model, _ = built(world, "AutoCF_RLMRecCon")
    batch = some_batch()
    user, items = model.alignment_anchors(batch)
    assert torch.equal(user, batch["user_id"])
    assert len(items) == 1 and torch.equal(items[0], batch["item_id"])


def test_gens_centres_are_scored_by_unmasked_embeddings(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = built(world, "AutoCF_RLMRecGen")
    masked = torch.arange(1, 30)
    monkeypatch.setattr(model.node_mask, "draw", lambda: masked)
    terms = terms_of(model, some_batch())
    torch.manual_seed(0)
    assert terms["infomax"].item() == pytest.approx(-model.centre_scores().mean().item(), rel=1e-6)
    ego = model.ego_embeddings().detach().index_put((masked,), model.node_mask.token.detach())
    users, items = model.split(model.encode(ego))
    batch = some_batch()
    expected = -(users[batch["user_id"]] * items[batch["item_id"]]).sum(dim=1).mean().item()
    assert terms["interaction"].item() == pytest.approx(expected, rel=1e-5)


def test_padded_ids_change_no_loss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the distinct ids of a batch come in as many rows as the batch has, the last of them of count 0."""
    model, _ = built(world, "AutoCF")
    expected = terms_of(model, some_batch())
    monkeypatch.setattr(autocf, "distinct", _padded_distinct)
    model.train()
    torch.testing.assert_close(terms_of(model, some_batch()), expected)


# ---------------------------------------------------------------------- the rest of a model's life


def test_a_checkpoint_holds_the_parameters_and_draws_anew(world: World) -> None:
    model, _ = built(world, "AutoCF")
    terms_of(model, some_batch())
    weights = {f"decoder.0.{part}" for part in ("query", "key", "value")}
    assert set(model.state_dict()) == {"user_embedding.weight", "item_embedding.weight"} | weights
    other, _ = world.model("AutoCF")
    other.load_state_dict(model.state_dict())
    batch = some_batch()
    model.train(), other.train()
    torch.testing.assert_close(terms_of(other, batch), terms_of(model, batch))
    model.eval(), other.eval()
    assert torch.equal(other.full_sort_predict(batch), model.full_sort_predict(batch))


def test_weights_are_the_same_with_and_without_an_alignment(world: World) -> None:
    models = [world.model(f"AutoCF{variant}")[0] for variant in ("", "_RLMRecCon", "_RLMRecGen")]
    for name, parameter in models[0].named_parameters():
        assert parameter.abs().max() > 0
        for other in models[1:]:
            assert torch.equal(dict(other.named_parameters())[name], parameter)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_num": 3}, "head_num=3 does not divide embedding_size=8"),
        ({"seed_num": 71}, "seed_num=71 centres cannot be drawn from the 70 users and items"),
    ],
)
def test_settings_that_do_not_fit(world: World, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        world.model("AutoCF", **settings)


def test_a_graph_that_is_hidden_is_warned_of_once(world: World, caplog: Any) -> None:
    model, _ = built(world, "AutoCF", seed_num=30, mask_depth=2)
    batch = batch_of([1, 2, 3], [1, 2, 3], [4, 5, 6])
    for _ in range(2):
        model.steps_until_draw = 0
        model.calculate_loss(batch)
    warnings = [record.message for record in caplog.records if "hide all but" in record.message]
    assert len(warnings) == 1 and warnings[0].startswith("AutoCF's 30 centres with mask_depth=2 hide all but ")
    assert "Lower seed_num" in warnings[0]
