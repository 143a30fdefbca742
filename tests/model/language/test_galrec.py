"""GALRec: its loss by a slow float64 oracle, gradients included; queue, momentum and draws by loops; its inputs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built
from contract import ModelContract
from torch import Tensor
from torch.nn.functional import normalize
from trainings import train

from recbole_rlmrec import Recommender
from recbole_rlmrec.cli import main
from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.language.hops import Neighbours, mean_of_neighbours
from recbole_rlmrec.model.language.keys import KeyEncoder, KeyQueue
from recbole_rlmrec.quick_start import load_model

SMALL = {"embedding_size": 8, "hidden_size": 16, "queue_size": 12}


class TestContract(ModelContract):
    """Two processes, checkpoints and mixed precision, as for every model."""

    names = ("GALRec",)
    settings: ClassVar[dict[str, Any]] = {"hidden_size": 16, "queue_size": 12}


def test_the_room_is_imported_when_asked_for() -> None:
    """A training of another model needs nothing of it, whatever is known of its settings."""
    code = (
        "import sys; from recbole_rlmrec.model.registry import get_model; get_model('LightGCN'); "
        "print('recbole_rlmrec.model.language.galrec' in sys.modules); get_model('GALRec'); "
        "print('recbole_rlmrec.model.language.galrec' in sys.modules, 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False"]


# ---------------------------------------------------------------------- neighbours, queue, momentum


def test_neighbours_are_drawn_evenly_and_never_the_excluded() -> None:
    nodes, others = np.array([1, 1, 1, 2, 1, 3, 3]), np.array([5, 3, 9, 4, 3, 2, 7])
    of = {1: {3, 5, 9}, 2: {4}, 3: {2, 7}}
    neighbours = Neighbours(nodes, others, 5)
    torch.manual_seed(0)
    for node, excluded in [(1, 5), (1, 3), (1, 9), (3, 7), (2, 4)]:
        ids = torch.full((3000,), node)
        drawn, has_any = neighbours.draw(ids, torch.full((3000,), excluded))
        left = of[node] - {excluded}
        assert has_any.all() == bool(left)
        counts = {int(each): int(n) for each, n in zip(*drawn.unique(return_counts=True))}
        assert set(counts) == (left or {excluded})
        assert min(counts.values()) > 0.45 * 3000 if len(left) == 2 else True


def test_means_of_neighbours_by_a_loop() -> None:
    rng = np.random.default_rng(0)
    nodes, others = rng.integers(1, 6, 20), rng.integers(1, 5, 20)
    vectors, counted = rng.normal(size=(5, 3)).astype(np.float32), np.array([False, True, True, False, True])
    found = mean_of_neighbours(nodes, others, 7, vectors, counted)
    for node in range(7):
        mine = sorted({other for each, other in zip(nodes, others) if each == node and counted[other]})
        expected = vectors[mine].mean(axis=0) if mine else np.zeros(3)
        np.testing.assert_allclose(found[node], expected, rtol=1e-5, atol=1e-7)


def test_the_queue_is_a_list_of_the_last_keys() -> None:
    """Of more keys than there is room for the last remain; of a node the newest counts, and not those left out."""
    rng = np.random.default_rng(1)
    queue, last = KeyQueue(7, 2, 10), []
    for step in range(30):
        ids = rng.permutation(10)[: rng.integers(1, 10)]
        keys = torch.from_numpy(rng.normal(size=(len(ids), 2))).float()
        queue.add(torch.from_numpy(ids), keys)
        last = (last + list(zip(ids.tolist(), keys.tolist())))[-7:]
        without = rng.permutation(10)[:3]
        weights = queue.weights(torch.from_numpy(without))
        found = sorted((int(i), k) for i, k, w in zip(queue.ids, queue.keys.tolist(), weights) if w)
        assert found == sorted((i, k) for i, k in dict(last).items() if i not in without), step


def test_keys_follow_the_encoder() -> None:
    encoder = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).double()
    encoder[0].bias.requires_grad_(False)
    keys = KeyEncoder(encoder, 0.9)
    copies = {name: each.detach().clone() for name, each in encoder.named_parameters()}
    rows = torch.randn(5, 3, dtype=torch.float64)
    for _ in range(4):
        with torch.no_grad():
            for each in encoder.parameters():
                each.add_(torch.randn_like(each))
        keys.follow()
        for name, each in encoder.named_parameters():
            copies[name] = 0.9 * copies[name] + 0.1 * each.detach() if each.requires_grad else each.detach().clone()
    found = keys(rows)
    expected = (rows @ copies["0.weight"].T + copies["0.bias"]) @ copies["1.weight"].T + copies["1.bias"]
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad and not list(keys.parameters())


# ---------------------------------------------------------------------- the loss


def contrast(anchor: Tensor, positive: Tensor, keys: dict[int, Tensor], temperature: float) -> Tensor:
    """The mean over the anchors, one by one; ``keys`` are the candidates by node."""
    losses = []
    for one, other in zip(anchor, positive):
        scores = torch.stack([one @ normalize(key, dim=0) for key in keys.values()]) / temperature
        losses.append(torch.logsumexp(scores, 0) - one @ other / temperature)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("weights", [(0.3, 0.2, 0.7), (0.0, 0.0, 0.0)])
def test_the_loss_by_an_oracle(world: World, weights: tuple[float, float, float], monkeypatch: Any) -> None:
    names = ("hop2_self_weight", "hop2_hop1_weight", "hop1_self_weight")
    model = built(world, "GALRec", **SMALL, **dict(zip(names, weights)), key_momentum=0.5)[0].double().train()
    user, item = torch.tensor([3, 1, 1, 8, 2, 3]), torch.tensor([1, 2, 5, 2, 6, 1])
    batch = batch_of(user.tolist(), item.tolist(), [4, 4, 9, 11, 8, 7])
    model.calculate_loss(batch)  # fills the queues
    with torch.no_grad():
        for each in model.encoder.parameters():
            each.mul_(1.3)
    drawn = []
    for neighbours in (model.users_of, model.items_of):
        draw = neighbours.draw
        monkeypatch.setattr(neighbours, "draw", lambda *given, draw=draw: drawn.append(draw(*given)) or drawn[-1])
    queued = {side: (queue.ids.clone(), queue.keys.double().clone()) for side, queue in model.queues.items()}
    copies = {name: each.clone() for name, each in model.key_encoder.named_buffers()}
    losses = dict(zip(model.loss_names, model.calculate_loss(batch)))
    names_found = ["ranking", *(name.removesuffix("_weight") for name, each in zip(names, weights) if each)]
    assert list(losses) == names_found

    def h(nodes: Tensor) -> Tensor:
        return normalize(model.encoder(nodes), dim=1)

    slow = {name: 0.5 * copies[name.replace(".", "-")] + 0.5 * each for name, each in model.encoder.named_parameters()}

    def k(nodes: Tensor) -> Tensor:
        return normalize(torch.func.functional_call(model.encoder, slow, (nodes,)), dim=1).detach()

    n = model.n_users
    (other_user, has_user), (other_item, has_item) = drawn
    batch_nodes = torch.cat([user, item + n, other_user, other_item + n]).unique()

    def candidates(side: str, own: Tensor, of: Any) -> dict[int, Tensor]:
        ids, keys = queued[side]
        old = {int(i): key for i, key in zip(ids, keys) if key.any()}
        return {**old, **dict(zip(own.tolist(), of(own)))}

    users, items = batch_nodes[batch_nodes < n], batch_nodes[batch_nodes >= n]
    t = model.galrec_settings.contrast_temperature
    u, i, u2, i2 = user, item + n, other_user, other_item + n
    expected = {"ranking": contrast(h(u), h(i), candidates("item", i.unique(), h), t)}
    of_users, of_items = candidates("user", users, k), candidates("item", items, k)
    pairs = {
        "hop2_self": ((u, u2, of_users, has_user), (i, i2, of_items, has_item)),
        "hop2_hop1": ((i, u2, of_users, has_user), (u, i2, of_items, has_item)),
        "hop1_self": ((u, i, of_items, None), (i, u, of_users, None)),
    }
    for name, weight in zip(pairs, weights):
        if weight:
            both = []
            for anchor, key, known, counts in pairs[name]:
                chosen = slice(None) if counts is None else counts
                both.append(contrast(h(anchor[chosen]), k(key[chosen]), known, t))
            expected[name] = weight * sum(both) / 2
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=1e-6, atol=1e-8)
    parameters = list(model.encoder.parameters())
    found = torch.autograd.grad(sum(losses.values()), parameters)
    for one, other in zip(found, torch.autograd.grad(sum(expected.values()), parameters)):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-8)
    held = {
        int(node) for queue in model.queues.values() for node, weight in zip(queue.ids, queue.weights(u[:0])) if weight
    }
    assert held <= {*queued["user"][0].tolist(), *queued["item"][0].tolist(), *batch_nodes.tolist()}


# ---------------------------------------------------------------------- inputs, training and what comes after it


def test_features_are_texts_hops_external_and_side(world: World, tmp_path: Path) -> None:
    model, _, dataset = parts(world, neighbour_texts=2)
    features = model.encoder.features.numpy()
    assert features.shape == (model.n_users + model.n_items, 3 * 12 + 1)
    user = dataset.token2id("user_id", "u3")
    have = sorted({item for one, item in world.train if one == "u3"})
    mean = np.mean([world.semantic[1][item] for item in have], axis=0)
    np.testing.assert_allclose(features[user, 12:24], mean / np.linalg.norm(mean), rtol=1e-4, atol=1e-6)
    assert features[user, -1] == 1 and features[model.n_users + 1, -1] == -1
    assert parts(world, neighbour_texts=0)[0].encoder.features.shape[1] == 13


def parts(world: World, **settings: Any) -> tuple[Any, Any, Any]:
    config = world.config("GALRec", **SMALL, **settings)
    dataset, train_data, _, _ = world.loaders(config)
    return config.model_class(config, train_data._dataset), train_data, dataset


def test_trained_kept_resumed_and_asked(world: World, tmp_path: Path) -> None:
    """With the exported representations of another model as an input; the checkpoint gives the same lists."""
    base = train(world, "LightGCN", epochs=1, checkpoint_dir=str(tmp_path))
    out = tmp_path / "exported"
    assert main(["export", f"--checkpoint={base.checkpoint}", f"--output={out}"]) == 0
    result = train(world, "GALRec", epochs=2, checkpoint_dir=str(tmp_path), external_embeddings=str(out), **SMALL)
    assert result.test_result["recall@20"] > 0
    _, model, _, _, _, _ = load_model(result.checkpoint)
    assert model.encoder.features.shape[1] == 3 * 12 + 8 + 1
    recommender = Recommender.load(result.checkpoint)
    frame = recommender.recommend(["u3"], 5)
    users, items = (table.detach().numpy() for table in model.eval().representation())
    row = users[recommender.dataset.token2id("user_id", "u3")]
    item = recommender.dataset.token2id("item_id", frame["item"][0])
    np.testing.assert_allclose(frame["score"][0], row @ items[item], rtol=1e-5)
    assert {"encoder.features"}.isdisjoint(model.state_dict())


def test_two_trainings_are_one(world: World, tmp_path: Path) -> None:
    """Queue and momentum are part of a checkpoint, so that a training that was stopped goes on as it would have."""
    settings = {"checkpoint_dir": str(tmp_path), **SMALL}
    whole = train(world, "GALRec", epochs=4, **settings)
    half = train(world, "GALRec", epochs=2, **settings)
    rest = train(world, "GALRec", epochs=4, resume_from=half.checkpoint, **settings)
    one, other = (load_model(each.checkpoint)[1].state_dict() for each in (whole, rest))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"neighbour_texts": 3}, "neighbour_texts=3 .* is out of range"),
        ({"key_momentum": 1.5}, "key_momentum=1.5 .* is out of range"),
        ({"external_embeddings": "nowhere"}, "nowhere"),
        ({"language_model": "no/model"}, r"no profiles|needs the package"),
    ],
)
def test_settings_that_cannot_be(world: World, settings: dict[str, Any], message: str) -> None:
    with pytest.raises((SettingError, DataError), match=message):
        parts(world, **settings)


def test_external_embeddings_of_others(world: World, tmp_path: Path) -> None:
    (tmp_path / "some.pth").write_bytes(b"")
    with pytest.raises(SettingError, match=r"recbole-rlmrec export --checkpoint=.*some.pth --output=FOLDER"):
        parts(world, external_embeddings=str(tmp_path / "some.pth"))
    for side in ("user", "item"):
        np.save(tmp_path / f"tiny.{side}emb.npy", np.ones((2, 3), dtype=np.float32))
        (tmp_path / f"tiny.{side}emb.tokens").write_text("x\ny\n")
    with pytest.raises(DataError, match="of other users than those of 'tiny'"):
        parts(world, external_embeddings=str(tmp_path))
