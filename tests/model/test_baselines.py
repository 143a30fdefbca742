"""SemanticOnly, KAR, AlphaRec and TextGCN on a dataset with holes, against loops over nodes in float64."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built
from test_backbones import dense_adjacency
from torch import Tensor

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.model.backbone.base import GraphBackbone
from recbole_rlmrec.model.backbone.contract import flags_of
from recbole_rlmrec.model.baseline import semantic_only
from recbole_rlmrec.model.registry import BASELINES
from recbole_rlmrec.quick_start import load_model, run

USER_HOLES, ITEM_HOLES = ("u3", "u8", "u21"), ("i0", "i5", "i11", "i12")
USER_OF_HOLES = "u40"  # its only training items have no embedding
TRAINED = [name for name, model in BASELINES.items() if not flags_of(model).nothing_to_train]


@pytest.fixture
def holed(world: World) -> World:
    world.forget_texts(USER_HOLES, ITEM_HOLES)
    world.semantic[0][USER_OF_HOLES] = np.arange(12.0)
    world.train = np.concatenate([world.train, [(USER_OF_HOLES, "i0"), (USER_OF_HOLES, "i5")]])
    world.train = np.concatenate([world.train, world.train[:3]])  # repeated interactions
    world.write()
    return world


def some_batch() -> Any:
    users = [3, 1, 1, 8, 2, 7, 1, 30, 3, 41]
    return batch_of(users, [1, 2, 2, 5, 6, 9, 2, 1, 20, 9], [4, 4, 9, 11, 8, 7, 25, 5, 4, 1])


def semantic_row(world: World, dataset: Any, side: str, id: int) -> np.ndarray:
    """The vector of an id, zeros where it has none."""
    field = dataset.uid_field if side == "user" else dataset.iid_field
    table = world.semantic[0 if side == "user" else 1]
    return np.asarray(table.get(dataset.field2id_token[field][id], np.zeros(12)), dtype=np.float64)


def settings_of(world: World, **settings: Any) -> dict[str, Any]:
    return {
        "data_path": str(world.root),
        "benchmark_filename": ["train", "valid", "test"],
        "state": "ERROR",
        "show_progress": False,
        "metric_decimal_place": 8,
        **settings,
    }


def double_leaves(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().double().requires_grad_() for name, parameter in model.named_parameters()}


def propagated(dataset: Any, ego: Tensor, n_layers: int) -> Tensor:
    matrix, layers = torch.from_numpy(dense_adjacency(dataset)), [ego]
    for _ in range(n_layers):
        layers.append(matrix @ layers[-1])
    return torch.stack(layers).mean(dim=0)


def check_gradients(model: Any, loss: Tensor, leaves: dict[str, Tensor], expected: Tensor) -> None:
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    loss.backward()
    expected.backward()
    assert leaves.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        scale = leaves[name].grad.abs().max()
        assert scale > 0, name
        torch.testing.assert_close(
            parameter.grad.double() / scale, leaves[name].grad / scale, rtol=0, atol=2e-5, msg=name
        )


# ---------------------------------------------------------------------- semantic embeddings only


def slow_cosines(world: World, dataset: Any) -> np.ndarray:
    scores = np.zeros((dataset.user_num, dataset.item_num))
    for user in range(dataset.user_num):
        for item in range(dataset.item_num):
            first, second = semantic_row(world, dataset, "user", user), semantic_row(world, dataset, "item", item)
            norms = np.linalg.norm(first) * np.linalg.norm(second)
            scores[user, item] = first @ second / norms if norms else 0
    return scores


@pytest.mark.parametrize("storage", ["memory", "memory_map"])
@pytest.mark.parametrize("block_bytes", [2**25, 4 * 12 * 7])
def test_scores_are_cosines(holed: World, storage: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic_only, "BLOCK_BYTES", block_bytes)
    model, train_data = holed.model("SemanticOnly", semantic_storage=storage)
    assert (model.semantic.vectors is None) == (storage == "memory_map")
    expected = slow_cosines(holed, train_data._dataset)
    users, items = np.divmod(np.arange(expected.size), expected.shape[1])
    pairs = model.predict(batch_of(users, items, items)).numpy()
    whole = model.full_sort_predict(batch_of(*[np.arange(len(expected))] * 3)).numpy()
    for scores in (pairs, whole):
        np.testing.assert_allclose(scores.reshape(expected.shape), expected, rtol=1e-5, atol=1e-6)
    n_holes = (len(USER_HOLES) + 1, len(ITEM_HOLES) + 1)
    assert tuple((expected == 0).all(axis=axis).sum() for axis in (1, 0)) == n_holes


def slow_metrics(world: World, dataset: Any, scores: np.ndarray, protocol: str) -> dict[str, float]:
    """Recall and NDCG of the test items at 5, by ranking each user's unseen items."""
    seen = [world.train] if protocol == "paper" else [world.train, world.valid]
    ids = {
        field: {token: id for id, token in enumerate(dataset.field2id_token[field])} for field in ("user_id", "item_id")
    }
    recalls, gains = [], []
    for user in sorted(set(world.test[:, 0])):
        wanted = {ids["item_id"][item] for u, item in world.test if u == user}
        masked = {ids["item_id"][item] for part in seen for u, item in part if u == user} - wanted
        open_items = [item for item in range(1, dataset.item_num) if item not in masked]
        ranked = sorted(open_items, key=lambda item: -scores[ids["user_id"][user], item])[:5]
        hits = [item in wanted for item in ranked]
        recalls.append(sum(hits) / len(wanted))
        best = sum(1 / np.log2(rank + 2) for rank in range(min(5, len(wanted))))
        gains.append(sum(hit / np.log2(rank + 2) for rank, hit in enumerate(hits)) / best)
    return {"recall@5": float(np.mean(recalls)), "ndcg@5": float(np.mean(gains))}


@pytest.mark.parametrize("protocol", ["recbole", "paper"])
def test_a_run_evaluates_and_trains_nothing(world: World, protocol: str) -> None:
    settings = settings_of(world, eval_protocol=protocol, epochs=7)
    result = run("SemanticOnly", world.name, config_dict=settings)
    _, model, dataset, *_ = load_model(result.checkpoint)
    assert list(model.parameters()) == [] and dict(model.state_dict()) == {}
    expected = slow_metrics(world, dataset, slow_cosines(world, dataset), protocol)
    assert {name: result.test_result[name] for name in expected} == pytest.approx(expected, abs=1e-7)
    assert result.best_epoch == 0 and set(result.best_valid_result) == set(result.test_result)
    assert result.best_valid_result != result.test_result


def test_no_validation_where_none_is_wanted(world: World) -> None:
    result = run("SemanticOnly", world.name, config_dict=settings_of(world, eval_step=0))
    assert result.best_valid_result is None and result.test_result["recall@20"] > 0


def test_semantic_only_in_two_processes(world: World) -> None:
    one = run("SemanticOnly", world.name, config_dict=settings_of(world))
    two = run("SemanticOnly", world.name, config_dict=settings_of(world), nproc=2)
    assert two.test_result == pytest.approx(one.test_result, abs=1e-7)
    assert two.best_valid_result == pytest.approx(one.best_valid_result, abs=1e-7)


def test_the_command_line_runs_it_on_the_embedded_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_rlmrec.cli import train_main

    monkeypatch.chdir(tmp_path)
    arguments = "--model=SemanticOnly --dataset=ml-100k --state=ERROR --show_progress=False --result_file=r.json"
    assert train_main(arguments.split()) == 0
    assert Path("r.json").is_file()


# ---------------------------------------------------------------------- KAR


def slow_joined_ego(world: World, model: Any, dataset: Any, leaves: dict[str, Tensor]) -> Tensor:
    rows = []
    for number, (side, n_ids) in enumerate((("user", dataset.user_num), ("item", dataset.item_num))):
        for id in range(n_ids):
            vector = semantic_row(world, dataset, side, id)
            augmented = torch.zeros(8, dtype=torch.float64)
            if vector.any():
                given = torch.from_numpy(vector)
                gate = torch.softmax(leaves[f"adaptor.gates.{number}"] @ given, dim=0)
                experts = [
                    [leaves[f"adaptor.{group}.{part}"][k] for part in EXPERT_PARTS]
                    for group in ("shared", f"own.{number}")
                    for k in range(len(leaves[f"adaptor.{group}.first_bias"]))
                ]
                assert len(experts) == len(gate)
                for share, (first, first_bias, last, last_bias) in zip(gate, experts):
                    augmented = augmented + share * (last @ torch.relu(first @ given + first_bias) + last_bias)
            own = torch.cat([leaves[f"{side}_embedding.weight"][id], augmented])
            rows.append(leaves["adaptor.join.weight"] @ own + leaves["adaptor.join.bias"])
    return torch.stack(rows)


EXPERT_PARTS = ("first_weight", "first_bias", "last_weight", "last_bias")


@pytest.mark.parametrize(("shared", "own"), [(2, 2), (1, 3)])
def test_kar_is_the_slow_sum_with_its_gradients(holed: World, shared: int, own: int) -> None:
    settings = {"kar_shared_experts": shared, "kar_side_experts": own, "n_layers": 2, "l2_scope": "all"}
    model, dataset = built(holed, "LightGCN_KAR", reg_weight=1e-3, **settings)
    leaves = double_leaves(model)
    ego = slow_joined_ego(holed, model, dataset, leaves)
    torch.testing.assert_close(model.ego_embeddings().double(), ego, rtol=1e-4, atol=1e-5)
    users, items = propagated(dataset, ego, 2).split([dataset.user_num, dataset.item_num])
    batch = some_batch()
    bpr = torch.zeros((), dtype=torch.float64)
    for user, positive, negative in zip(*(batch[field].tolist() for field in ("user_id", "item_id", "neg_item_id"))):
        bpr = bpr - torch.log(torch.sigmoid(users[user] @ (items[positive] - items[negative]))) / len(batch)
    squares = [
        (leaf[1:] if name in ("user_embedding.weight", "item_embedding.weight") else leaf).square().sum()
        for name, leaf in leaves.items()
    ]
    losses = model.calculate_loss(batch)
    assert model.loss_names == ("bpr", "reg")
    check_gradients(model, sum(losses), leaves, bpr + 1e-3 * sum(squares))


def test_experts_stacked_are_experts_apart(holed: World) -> None:
    """Each group's stack holds what single experts would be given by the same generator."""
    from recbole_rlmrec.model.baseline.kar import Experts

    stacked = Experts(3, 12, 8, torch.Generator().manual_seed(4))
    generator = torch.Generator().manual_seed(4)
    apart = [Experts(1, 12, 8, generator) for _ in range(3)]
    rows, gate = torch.randn(20, 12), torch.rand(20, 3)
    expected = sum(expert(rows, gate[:, k : k + 1]) for k, expert in enumerate(apart))
    torch.testing.assert_close(stacked(rows, gate), expected)
    assert not torch.equal(apart[0].first_weight, apart[1].first_weight)
    bound = np.sqrt(6 / (12 + 10))  # Xavier of one expert, not of the stack
    assert 0.9 * bound < stacked.first_weight.abs().max() <= bound
    assert stacked.first_weight.shape == (3, 10, 12) and stacked.last_weight.shape == (3, 8, 10)


@pytest.mark.parametrize("backbone", ["LightGCN", "SGL"])
def test_weights_of_the_backbone_start_as_without_augmentation(world: World, backbone: str) -> None:
    plain, _ = world.model(backbone)
    states = torch.random.get_rng_state(), np.random.get_state()[1]
    augmented, _ = world.model(f"{backbone}_KAR")
    for name, parameter in plain.named_parameters():
        assert torch.equal(dict(augmented.named_parameters())[name], parameter), name
    assert torch.equal(torch.random.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])


@pytest.mark.parametrize("name", ["LightGCN_KAR", "SGL_KAR"])
def test_what_stands_in_the_holes_has_no_influence_on_kar(holed: World, name: str) -> None:
    model, _ = built(holed, name)

    def loss_and_gradients() -> list[Tensor]:
        model.zero_grad()
        torch.manual_seed(0)
        loss = sum(model.calculate_loss(some_batch()))
        loss.backward()
        return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    before = loss_and_gradients()
    covered = model.semantic.covered
    model.semantic.vectors[~covered] = torch.randn(int((~covered).sum()), 12) * 20
    for garbage, clean in zip(loss_and_gradients(), before):
        torch.testing.assert_close(garbage, clean, rtol=1e-5, atol=1e-7)
    model.semantic.vectors[covered.nonzero()[0]] *= -1
    assert not torch.allclose(loss_and_gradients()[0], before[0], rtol=1e-5)


def test_views_of_sgl_propagate_the_joined_embeddings(holed: World) -> None:
    model, _ = built(holed, "SGL_KAR", ssl_weight=1.0, loss_reduction="mean")
    losses = dict(zip(("bpr", "reg", "ssl"), model.calculate_loss(some_batch())))
    assert model.loss_names == tuple(losses)
    losses["ssl"].backward()
    assert all(part.grad.abs().max() > 0 for part in model.adaptor.parameters())


def test_kar_refuses_a_table_on_disk(world: World) -> None:
    with pytest.raises(SettingError, match=r"memory_map: SGL_KAR would read .* Set semantic_storage to memory"):
        world.model("SGL_KAR", semantic_storage="memory_map")


@pytest.mark.parametrize("backbone", ["LightGCN", "SGL"])
def test_kar_takes_the_tuned_settings_of_its_backbone(backbone: str, tmp_path: Path) -> None:
    plain, augmented, untuned = (
        RLMRecConfig(name, "amazon-book", config_dict=settings)
        for name, settings in ((backbone, {}), (f"{backbone}_KAR", {}), (f"{backbone}_KAR", {"tuned": False}))
    )
    shared = ("embedding_size", "n_layers", "reg_weight", "l2_scope", "layer_combination", "train_batch_size", "seed")
    assert [augmented[name] for name in shared] == [plain[name] for name in shared]
    assert (augmented["l2_scope"], untuned["l2_scope"]) == ("all", "batch")
    assert any(f"tuned/amazon-book/{backbone}.yaml" in message for _, message in augmented.notes)


# ---------------------------------------------------------------------- AlphaRec


class FixedDraws:
    """Stands in for the model's sampler and remembers what it was asked."""

    def __init__(self, negatives: Tensor) -> None:
        self.negatives, self.asked = negatives, ()

    def draw(self, users: Tensor, n: int, rows: slice) -> Tensor:
        self.asked = (users.tolist(), n)
        return self.negatives[rows]


def slow_language(world: World, dataset: Any) -> list[np.ndarray]:
    """The items' vectors, below the means over the users' items."""
    rows = []
    pairs = set(zip(*(dataset.inter_feat[field].tolist() for field in ("user_id", "item_id"))))
    for user in range(dataset.user_num):
        vectors = [semantic_row(world, dataset, "item", item) for u, item in sorted(pairs) if u == user]
        vectors = [vector for vector in vectors if vector.any()]
        rows.append(np.mean(vectors, axis=0) if vectors else np.zeros(12))
    return [*rows, *(semantic_row(world, dataset, "item", item) for item in range(dataset.item_num))]


def slow_perceptron(rows: Any, leaves: dict[str, Tensor], first: str, last: str) -> Tensor:
    found = []
    for row in rows:
        hidden = leaves[f"{first}.weight"] @ torch.as_tensor(row) + leaves[f"{first}.bias"]
        hidden = torch.where(hidden > 0, hidden, 0.01 * hidden)
        found.append(leaves[f"{last}.weight"] @ hidden + leaves[f"{last}.bias"])
    return torch.stack(found)


def slow_language_ego(world: World, dataset: Any, leaves: dict[str, Tensor]) -> Tensor:
    return slow_perceptron(slow_language(world, dataset), leaves, "first_layer", "last_layer")


def slow_info_nce(users: Tensor, items: Tensor, batch: Any, negatives: Tensor, temperature: float) -> Tensor:
    """Mean over the batch of each positive against its own negatives, by cosine."""
    loss = torch.zeros((), dtype=torch.float64)
    for row, (user, positive) in enumerate(zip(batch["user_id"].tolist(), batch["item_id"].tolist())):
        ids = [positive, *negatives[row].tolist()]
        similar = [(torch.cosine_similarity(users[user], items[id], dim=0) / temperature).exp() for id in ids]
        loss = loss - torch.log(similar[0] / sum(similar)) / len(batch)
    return loss


@pytest.mark.parametrize("reg_weight", [0.0, 0.01])
def test_alpharec_is_the_slow_sum_with_its_gradients(holed: World, reg_weight: float) -> None:
    model, dataset = built(holed, "AlphaRec", negatives_per_positive=6, temperature=0.4, reg_weight=reg_weight)
    batch, leaves = some_batch(), double_leaves(model)
    negatives = torch.randint(1, dataset.item_num, (len(batch), 6), generator=torch.Generator().manual_seed(1))
    draws = model.unused_items = FixedDraws(negatives)
    ego = slow_language_ego(holed, dataset, leaves)
    torch.testing.assert_close(model.ego_embeddings().double(), ego, rtol=1e-4, atol=1e-5)
    users, items = propagated(dataset, ego, 2).split([dataset.user_num, dataset.item_num])
    expected = slow_info_nce(users, items, batch, negatives, 0.4)
    expected = expected + reg_weight * sum(leaf.square().sum() for leaf in leaves.values())
    losses = model.calculate_loss(batch)
    assert model.loss_names == (("info_nce", "reg") if reg_weight else ("info_nce",))
    assert draws.asked == (batch["user_id"].tolist(), 6)
    check_gradients(model, sum(losses), leaves, expected)


def test_a_user_of_holes_has_no_mean_of_its_own(holed: World) -> None:
    model, dataset = built(holed, "AlphaRec")
    user = dataset.token2id(dataset.uid_field, USER_OF_HOLES)
    assert not model.language[[0, user, model.n_users]].any()
    assert model.language[1 : model.n_users].any(dim=1).sum() == model.n_users - 2
    # It is distinguished from others by its neighbours alone.
    scores = model.eval().full_sort_predict(batch_of([user], [1], [1]))
    assert torch.isfinite(scores).all() and scores.std() > 0


def test_negatives_are_unused_in_training(holed: World) -> None:
    model, dataset = built(holed, "AlphaRec")
    used = set(zip(*(dataset.inter_feat[field].tolist() for field in ("user_id", "item_id"))))
    users = torch.arange(1, dataset.user_num)
    for user, row in zip(users.tolist(), model.unused_items.draw(users, 200).tolist()):
        expected = {item for item in range(1, dataset.item_num) if (user, item) not in used}
        assert set(row) <= expected and len(set(row)) > len(expected) / 2


def test_alpharec_scores_are_cosines(holed: World) -> None:
    model, dataset = built(holed, "AlphaRec")
    model.eval()
    representation = propagated(dataset, slow_language_ego(holed, dataset, double_leaves(model)), 2).detach().numpy()
    representation /= np.linalg.norm(representation, axis=1, keepdims=True)
    users = [5, 1, 40, 5]
    scores = model.full_sort_predict(batch_of(users, users, users)).view(len(users), -1).detach().numpy()
    expected = representation[users] @ representation[dataset.user_num :].T
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)
    pairs = model.predict(batch_of(users, [3, 4, 5, 6], users)).detach().numpy()
    np.testing.assert_allclose(pairs, expected[range(4), [3, 4, 5, 6]], rtol=1e-4, atol=1e-5)


def test_alpharec_sizes_follow_the_embeddings(world: World) -> None:
    model, _ = world.model("AlphaRec", embedding_size=5, layer_combination="concat", n_layers=3)
    assert model.first_layer.weight.shape == (6, 12) and model.last_layer.weight.shape == (5, 6)
    assert model.output_dim == model.encode(model.ego_embeddings()).shape[1] == 20
    assert set(model.state_dict()) == {
        f"{layer}_layer.{part}" for layer in ("first", "last") for part in ("weight", "bias")
    }


def test_a_summed_loss_is_the_mean_times_the_batch_size(world: World) -> None:
    found = []
    for reduction in ("mean", "sum"):
        model, _ = built(world, "AlphaRec", loss_reduction=reduction)
        torch.manual_seed(0)
        found.append(model.calculate_loss(some_batch_without_holes())[0].item())
    assert found[1] == pytest.approx(10 * found[0], rel=1e-5) and found[0] > 0


def some_batch_without_holes() -> Any:
    return batch_of(*(np.arange(1, 11) for _ in range(3)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"l2_scope": "batch"}, r"l2_scope=batch: AlphaRec has no embeddings"),
        (
            {"train_neg_sample_args": {"distribution": "popularity", "sample_num": 1, "alpha": 1.0, "dynamic": False}},
            r"train_neg_sample_args=.*popularity.*AlphaRec draws its negatives itself.*negatives_per_positive",
        ),
        (
            {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 256, "alpha": 1.0, "dynamic": False}},
            r"AlphaRec draws its negatives itself",
        ),
    ],
)
def test_alpharec_refuses_what_it_does_not_heed(world: World, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        world.model("AlphaRec", **settings)


# ---------------------------------------------------------------------- TextGCN


def test_textgcn_scores_are_cosines_of_propagated_texts(holed: World) -> None:
    model, dataset = built(holed, "TextGCN", n_layers=2)
    found = propagated(dataset, torch.stack([*map(torch.from_numpy, slow_language(holed, dataset))]), 2)
    found = torch.nn.functional.normalize(found, dim=1)
    users, items = found.split([dataset.user_num, dataset.item_num])
    asked = np.arange(dataset.user_num)
    scores = model.eval().full_sort_predict(batch_of(asked, asked, asked)).view(len(asked), -1)
    torch.testing.assert_close(scores.double(), users @ items.T, rtol=1e-4, atol=1e-5)
    assert list(model.parameters()) == [] and dict(model.state_dict()) == {}


def slow_textgcn_ego(world: World, dataset: Any, leaves: dict[str, Tensor], n_layers: int) -> Tensor:
    """Propagated texts, the users' and the items' through a perceptron each."""
    texts = propagated(dataset, torch.stack([*map(torch.from_numpy, slow_language(world, dataset))]), n_layers)
    sides = texts.split([dataset.user_num, dataset.item_num])
    return torch.cat(
        [
            slow_perceptron(side, leaves, f"first{word}_layer", f"last{word}_layer")
            for side, word in zip(sides, ("_user", ""))
        ]
    )


@pytest.mark.parametrize("n_layers", [1, 2])
def test_textgcn_mlp_is_the_slow_sum_with_its_gradients(holed: World, n_layers: int) -> None:
    settings = {"negatives_per_positive": 6, "temperature": 0.4, "n_layers": n_layers}
    model, dataset = built(holed, "TextGCNMLP", **settings)
    batch, leaves = some_batch(), double_leaves(model)
    negatives = torch.randint(1, dataset.item_num, (len(batch), 6), generator=torch.Generator().manual_seed(1))
    model.unused_items = FixedDraws(negatives)
    ego = slow_textgcn_ego(holed, dataset, leaves, n_layers)
    users, items = ego.split([dataset.user_num, dataset.item_num])
    losses = model.calculate_loss(batch)
    check_gradients(model, sum(losses), leaves, slow_info_nce(users, items, batch, negatives, 0.4))


def test_each_node_of_a_part_has_the_perceptron_of_its_side(holed: World) -> None:
    """Several processes cut the nodes anywhere: between the sides, or with one side only."""
    model, dataset = built(holed, "TextGCNMLP")
    whole = model.mapped(model.language, 0)
    cuts = [0, 5, dataset.user_num, dataset.user_num + 3, len(whole)]
    parts = [model.mapped(model.language[start:stop], start) for start, stop in pairwise(cuts)]
    torch.testing.assert_close(torch.cat(parts), whole)


# ---------------------------------------------------------------------- all that are trained


#: Settings for 30 items: 512 negatives are each of them seventeen times, and 600 hidden units more than all pairs. What
#: validates best of random data is an early epoch, before anything is learned; these are validated in their last.
FITTING: dict[str, dict[str, Any]] = {
    "TextGCNMLP": {"negatives_per_positive": 16, "temperature": 0.05},
    "FREEDOM": {"kept_edges": 1.0, "learning_rate": 0.1, "eval_step": 8},
    "DMRec": {
        "mlp_hidden_size": [16],
        "latent_dimension": 8,
        "train_batch_size": 16,
        "dropout_prob": 0.0,
        "epochs": 40,
        "eval_step": 40,
    },
}


@pytest.mark.parametrize("name", TRAINED)
def test_a_run_learns_and_its_checkpoint_scores_alike(holed: World, name: str) -> None:
    settings = {
        "embedding_size": 8,
        "epochs": 8,
        "learning_rate": 0.02,
        "defaults": "published",
        **FITTING.get(name, {}),
    }
    settings = settings_of(holed, **settings)
    result = run(name, holed.name, config_dict=settings)
    untrained = run(name, holed.name, config_dict={**settings, "epochs": 0})
    _, model, dataset, *_ = load_model(result.checkpoint)
    assert not any("semantic" in key or "language" in key for key in model.state_dict())
    batch = batch_of(*[np.arange(1, dataset.user_num)] * 3)
    with torch.no_grad():
        scores = model.full_sort_predict(batch)
        assert torch.equal(load_model(result.checkpoint)[1].full_sort_predict(batch), scores)
        _, start, *_ = load_model(untrained.checkpoint)
        assert not torch.allclose(start.full_sort_predict(batch), scores, atol=1e-3)
    losses = []
    for each in (start, model):
        each.train()
        torch.manual_seed(0)
        losses.append(each.calculate_loss(batch_of(*train_batch(dataset)))[0].item())
    assert losses[1] < 0.9 * losses[0]


def train_batch(dataset: Any) -> list[np.ndarray]:
    """A batch of training interactions, with item ids that step on as negatives."""
    users, items = (dataset.inter_feat[field].numpy()[:100] for field in ("user_id", "item_id"))
    return [users, items, items % (dataset.item_num - 1) + 1]


def test_the_experts_are_not_run_for_each_block_of_users(holed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in TRAINED if issubclass(BASELINES[name], GraphBackbone)]:
        model, _ = built(holed, name)
        model.eval()
        calls: list[int] = []
        ego = model.ego_embeddings
        monkeypatch.setattr(model, "ego_embeddings", lambda ego=ego, calls=calls: calls.append(1) or ego())
        for _ in range(3):
            model.full_sort_predict(some_batch())
        assert len(calls) == 1
