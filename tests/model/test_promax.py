"""ProMax on a dataset with holes, against loops over users and pairs in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built
from test_baselines import check_gradients, double_leaves
from torch import Tensor

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.alignment.promax import WhitenedTexts
from recbole_rlmrec.sides import SIDES

USER_HOLES, ITEM_HOLES = ("u3", "u8"), ("i0", "i5")
SETTINGS: dict[str, Any] = {
    "sdr_weight": 0.7,
    "sdr_temperature": 0.4,
    "s2dr_ratio": 0.3,
    "s2dr_temperature": 0.6,
    "whitened_size": 5,
    "text_neighbours": 2,
    "text_neighbours_below": 8,
    "reg_weight": 0.0,
}


@pytest.fixture
def holed(world: World) -> World:
    world.forget_texts(USER_HOLES, ITEM_HOLES)
    world.write()
    return world


def some_batch() -> Any:
    users = [3, 1, 1, 8, 2, 7, 1, 30, 3, 40]
    return batch_of(users, [1, 2, 2, 5, 6, 9, 2, 1, 20, 9], [4, 4, 9, 11, 8, 7, 25, 5, 4, 1])


def slow_coordinates(dataset: Any, width: int, jointly: bool) -> list[np.ndarray]:
    """Whitened texts by id; None where an id has no text."""
    sides = [dataset.semantic_embedding(side) for side in SIDES]
    tables = [side.matrix(np.float64) for side in sides]
    centred = [table - table[side.covered].mean(axis=0) for side, table in zip(sides, tables)]
    known = [table[side.covered] for side, table in zip(sides, centred)]
    groups = [np.concatenate(known)] * 2 if jointly else known
    found = []
    for side, table, group in zip(sides, centred, groups):
        values, vectors = np.linalg.eigh(group.T @ group / len(group))
        axes = vectors[:, ::-1][:, :width] / np.sqrt(values[::-1][:width])
        found.append(np.where(side.covered[:, None], table @ axes, np.nan))
    return found


def cosines(rows: Any, table: Any) -> Any:
    rows, table = (each / (each**2).sum(-1, keepdims=True) ** 0.5 for each in (rows, table))
    return rows @ table.T


@pytest.mark.parametrize("jointly", [True, False])
def test_texts_are_whitened(holed: World, jointly: bool) -> None:
    _, dataset = built(holed, "LightGCN_ProMax")
    table = WhitenedTexts([dataset.semantic_embedding(side) for side in SIDES], 5, jointly=jointly)
    expected = np.concatenate(slow_coordinates(dataset, 5, jointly))
    np.testing.assert_array_equal(table.covered.numpy(), ~np.isnan(expected[:, 0]))
    # The sign of an axis is free.
    found = table.vectors.numpy()[table.covered.numpy()]
    np.testing.assert_allclose(np.abs(found), np.abs(expected[table.covered.numpy()]), rtol=1e-4, atol=1e-5)
    assert not table.vectors[~table.covered].any()


def slow_text_edges(dataset: Any, whitened: np.ndarray) -> set[tuple[int, int]]:
    """The two nearest unused items of each user of fewer than 8, by ids; both with a text."""
    users, items = whitened[: dataset.user_num], whitened[dataset.user_num :]
    taken: dict[int, set[int]] = {}
    for user, item in zip(*(dataset.inter_feat[field].tolist() for field in ("user_id", "item_id"))):
        taken.setdefault(user, set()).add(item)
    found = set()
    for user in range(1, dataset.user_num):
        if len(taken[user]) >= 8 or not users[user].any():
            continue
        open_items = [item for item in range(1, dataset.item_num) if items[item].any() and item not in taken[user]]
        nearest = sorted(open_items, key=lambda item: -cosines(users[user], items[item]))[:2]
        found |= {(user, item) for item in nearest}
    return found


def adjacency_of(dataset: Any, pairs: set[tuple[int, int]]) -> Tensor:
    matrix = torch.zeros(dataset.user_num + dataset.item_num, dataset.user_num + dataset.item_num).double()
    for user, item in pairs:
        matrix[user, dataset.user_num + item] = matrix[dataset.user_num + item, user] = 1
    scale = matrix.sum(dim=1).clamp(min=1).rsqrt()
    return scale[:, None] * matrix * scale


def trained_pairs(dataset: Any) -> set[tuple[int, int]]:
    return set(zip(*(dataset.inter_feat[field].tolist() for field in ("user_id", "item_id"))))


def propagated(matrix: Tensor, ego: Tensor) -> Tensor:
    return (ego + matrix @ ego + matrix @ (matrix @ ego)) / 3


def slow_info_nce(anchors: Tensor, positives: Tensor, temperature: float) -> Tensor:
    logits = cosines(anchors, positives) / temperature
    return (logits.exp().sum(dim=1).log() - logits.diagonal()).mean()


@pytest.mark.parametrize("whitening", ["joint", "separate"])
def test_promax_is_the_slow_sum_with_its_gradients(holed: World, whitening: str) -> None:
    model, dataset = built(holed, "LightGCN_ProMax", n_layers=2, whitening=whitening, **SETTINGS)
    holes = dataset.token2id("user_id", list(USER_HOLES))
    batch, leaves = some_batch(), double_leaves(model)
    batch["user_id"][[1, 4]] = torch.from_numpy(holes)
    n_users, texts = dataset.user_num, model.semantic.vectors.double().numpy()
    edges = slow_text_edges(dataset, texts)
    assert len(edges) > 10 and not edges & trained_pairs(dataset)
    ego = torch.cat([leaves["user_embedding.weight"], leaves["item_embedding.weight"]])
    first = propagated(adjacency_of(dataset, trained_pairs(dataset)), ego)
    second = propagated(adjacency_of(dataset, trained_pairs(dataset) | edges), ego)

    users, items = (batch[field].tolist() for field in ("user_id", "item_id"))
    covered = [n_users + item for item in range(dataset.item_num) if texts[n_users + item].any()]
    soft, anchors = torch.zeros((), dtype=torch.float64), [user for user in sorted(set(users)) if texts[user].any()]
    for user in anchors:
        q = torch.softmax(cosines(torch.from_numpy(texts[user]), torch.from_numpy(texts[covered])) / 0.4, dim=0)
        confidence = 1 + (q * q.log()).sum() / np.log(len(covered))
        log_p = torch.log_softmax(cosines(first[user], first[covered]) / 0.4, dim=0)
        soft = soft - max(float(confidence), 0.1) * (q * log_p).sum() / len(anchors)
    assert len(anchors) == len(set(users)) - 2

    sides = sorted(set(users)), [n_users + item for item in sorted(set(items))]
    contrast = sum(slow_info_nce(first[rows], second[rows], 0.6) for rows in sides)
    rows, columns = users, [n_users + item for item in items]
    contrast = contrast + slow_info_nce(first[rows], second[columns], 0.6) / 2
    contrast = contrast + slow_info_nce(second[rows], first[columns], 0.6) / 2

    losses = dict(zip(("bpr", "reg", "promax"), model.calculate_loss(batch)))
    assert model.loss_names == tuple(losses)
    check_gradients(model, losses["promax"], leaves, 0.7 * (soft + 0.3 * contrast))


@pytest.mark.parametrize("name", ["NGCF_ProMax", "MultiVAE_ProMax"])
def test_models_of_recbole_have_the_soft_targets_alone(holed: World, name: str) -> None:
    settings = {"node_dropout": 0.0, "message_dropout": 0.0} if name.startswith("NGCF") else {}
    model, train_data = holed.model(name, sdr_weight=1.0, **settings)
    assert model.text_graph is None
    term = model.train().calculate_loss(next(iter(train_data)))[-1]
    term.backward()
    assert 0 < term.item() < np.log(29)
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


@pytest.mark.parametrize("share", [0.1, 0.01])
def test_the_second_graph_pulls_no_harder_than_it_may(holed: World, share: float) -> None:
    """By the ego embeddings, beside the backbone's terms and what comes by the representation."""
    gradients = {}
    for ratio in (0.0, 50.0):
        model, _ = built(holed, "LightGCN_ProMax", sdr_weight="auto", s2dr_ratio=ratio, alignment_share=share)
        torch.stack(model.calculate_loss(some_batch())).sum().backward()
        gradients[ratio] = torch.cat([model.user_embedding.weight.grad, model.item_embedding.weight.grad])
    plain, _ = built(holed, "LightGCN")
    torch.stack(plain.calculate_loss(some_batch())).sum().backward()
    alone = torch.cat([plain.user_embedding.weight.grad, plain.item_embedding.weight.grad])
    added = (gradients[50.0] - alone).norm() / alone.norm()
    assert share / 2 < added < 4 * share and (gradients[0.0] - alone).norm() < added * alone.norm()


def test_a_side_without_texts_has_no_soft_targets(world: World) -> None:
    found = {}
    for side in (0, 1):
        there = world.semantic[side].copy()
        for token, vector in there.items():
            world.semantic[side][token] = np.zeros_like(vector)
        world.write()
        for ratio in (0.0, 1.0):
            model, _ = built(world, "LightGCN_ProMax", sdr_weight=1.0, s2dr_ratio=ratio)
            found[side, ratio] = model.calculate_loss(some_batch())[-1].item()
        world.semantic[side].update(there)
    assert found[0, 0.0] == found[1, 0.0] == 0 and found[0, 1.0] > 0 and found[1, 1.0] > 0


def test_patience_is_as_its_logs_need() -> None:
    steps = [RLMRecConfig(name, "no-such-dataset")["patience_steps"] for name in ("LightGCN", "LightGCN_ProMax")]
    assert steps == [1000, 2500]


def test_a_second_reduction_is_refused(world: World) -> None:
    with pytest.raises(SettingError, match=r"semantic_dimension=8: ProMax reduces .* whitened_size=32 numbers"):
        built(world, "LightGCN_ProMax", semantic_dimension=8)
