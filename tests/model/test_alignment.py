"""RLMRec-Con and RLMRec-Gen on a dataset with holes, against loops over anchors in float64."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of, built

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.backbone.autocf import AutoCF
from recbole_rlmrec.model.backbone.base import _padded_distinct
from recbole_rlmrec.model.registry import BACKBONES

USER_HOLES, ITEM_HOLES = ("u3", "u8", "u21"), ("i0", "i5", "i11", "i12")
TEMPERATURE = 0.3


@pytest.fixture
def holed(world: World) -> World:
    world.forget_texts(USER_HOLES, ITEM_HOLES)
    world.write()
    return world


def ids_of(dataset: Any, side: str, tokens: Any) -> np.ndarray:
    field = dataset.uid_field if side == "user" else dataset.iid_field
    return np.array([dataset.token2id(field, token) for token in tokens])


def holed_batch(dataset: Any) -> Any:
    """A batch with duplicates and holes among users, positives and negatives."""
    users = ["u3", "u1", "u1", "u8", "u2", "u7", "u1", "u30", "u3", "u2"]
    positives = ["i1", "i2", "i2", "i5", "i0", "i9", "i2", "i1", "i20", "i9"]
    negatives = ["i4", "i4", "i9", "i11", "i0", "i7", "i25", "i5", "i4", "i1"]
    items = ids_of(dataset, "item", positives), ids_of(dataset, "item", negatives)
    return batch_of(ids_of(dataset, "user", users), *items)


def terms_of(model: Any, batch: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    losses = model.calculate_loss(batch)
    return dict(zip(model.loss_names, losses))


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def slow_info_nce(
    pairs: list[tuple[np.ndarray, np.ndarray]], candidates: list[np.ndarray], temperature: float
) -> float:
    """Sum over (anchor, positive) pairs divided by their number; 0 without any."""
    total = 0.0
    for anchor, positive in pairs:
        denominator = sum(np.exp(cosine(anchor, candidate) / temperature) for candidate in candidates)
        total -= np.log(np.exp(cosine(anchor, positive) / temperature) / denominator)
    return total / max(len(pairs), 1)


def in_double(projector: Any, rows: np.ndarray) -> np.ndarray:
    return copy.deepcopy(projector).double()(torch.from_numpy(rows).double()).detach().numpy()


def slow_alignment(model: Any, dataset: Any, batch: Any, negatives: str) -> float:
    representation = model.encode(model.ego_embeddings()).detach().double().numpy()
    users, items = representation[: dataset.user_num], representation[dataset.user_num :]
    semantic = {side: dataset.semantic_embedding(side) for side in ("user", "item")}
    profile = {side: in_double(model.projector, semantic[side].matrix()) for side in semantic}

    def covered(side: str, ids: Any) -> list[int]:
        return [id for id in ids if semantic[side].covered[id]]

    user, positive, negative = (batch[field].tolist() for field in ("user_id", "item_id", "neg_item_id"))
    groups = [positive] if isinstance(model, AutoCF) else [positive, negative]
    total = 0.0
    for side, table, ids in (("user", users, user), *(("item", items, group) for group in groups)):
        if negatives == "batch":
            candidate_ids = covered(
                side, sorted({*user} if side == "user" else {id for group in groups for id in group})
            )
        elif side == "user":
            candidate_ids = covered(side, range(1, dataset.user_num))
        else:
            candidate_ids = covered(side, ids)  # duplicates included
        anchors = covered(side, ids)
        pairs = [(table[id], profile[side][id]) for id in anchors]
        total += slow_info_nce(pairs, [profile[side][id] for id in candidate_ids], TEMPERATURE)
    return total


# ---------------------------------------------------------------------- Con


@pytest.mark.parametrize("negatives", ["all", "batch"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_con_is_the_slow_sum(holed: World, backbone: str, negatives: str) -> None:
    model, dataset = built(
        holed,
        f"{backbone}_RLMRecCon",
        alignment_weight=0.7,
        alignment_temperature=TEMPERATURE,
        alignment_negatives=negatives,
        loss_reduction="mean",
    )
    batch = holed_batch(dataset)
    terms_of(model, batch)  # AutoCF draws its graphs at the first step
    torch.manual_seed(0)  # as terms_of: XSimGCL's representation is noisy
    expected = slow_alignment(model, dataset, batch, negatives)
    assert terms_of(model, batch)["alignment"].item() == pytest.approx(0.7 * expected, rel=1e-5)


@pytest.mark.parametrize("negatives", ["all", "batch"])
def test_con_without_holes_is_the_slow_sum(world: World, negatives: str) -> None:
    model, dataset = built(
        world,
        "LightGCN_RLMRecCon",
        alignment_weight=1.0,
        alignment_temperature=TEMPERATURE,
        alignment_negatives=negatives,
        layer_combination="concat",
    )
    batch = holed_batch(dataset)
    expected = slow_alignment(model, dataset, batch, negatives)
    assert terms_of(model, batch)["alignment"].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("negatives", ["all", "batch"])
def test_what_stands_in_the_holes_has_no_influence(holed: World, negatives: str) -> None:
    model, dataset = built(holed, "LightGCN_RLMRecCon", alignment_weight=1.0, alignment_negatives=negatives)
    batch = holed_batch(dataset)

    def loss_and_gradients() -> list[torch.Tensor]:
        model.zero_grad()
        loss = terms_of(model, batch)["alignment"]
        loss.backward()
        return [loss.detach(), *(parameter.grad.clone() for parameter in model.parameters())]

    before = loss_and_gradients()
    table, covered = model.semantic.vectors, model.semantic.covered
    assert (~covered[: model.n_users]).sum() == len(USER_HOLES) + 1  # [PAD] too
    assert (~covered[model.n_users :]).sum() == len(ITEM_HOLES) + 1
    table[~covered] = torch.randn(int((~covered).sum()), table.shape[1]) * 20
    for garbage, clean in zip(loss_and_gradients(), before):
        torch.testing.assert_close(garbage, clean, rtol=1e-5, atol=1e-7)
    assert any(gradient.abs().max() > 1e-3 for gradient in before[1:])


@pytest.mark.parametrize("negatives", ["all", "batch"])
def test_a_hole_is_no_anchor(holed: World, negatives: str) -> None:
    """The alignment's gradient reaches the representations of the batch's covered nodes and no other."""
    model, dataset = built(holed, "LightGCN_RLMRecCon", alignment_weight=1.0, alignment_negatives=negatives)
    batch = holed_batch(dataset)
    representation = model.encode(model.ego_embeddings()).detach().requires_grad_()
    model.formula(representation, batch, None).value.backward()
    users, items = model.split(representation.grad.abs().sum(dim=1))
    in_batch = {"user": batch["user_id"], "item": torch.cat([batch["item_id"], batch["neg_item_id"]])}
    for gradient, side in ((users, "user"), (items, "item")):
        covered = torch.from_numpy(dataset.semantic_embedding(side).covered)
        anchors = torch.zeros(len(gradient), dtype=torch.bool).index_fill(0, in_batch[side], True) & covered
        assert (gradient[anchors] > 0).all()
        assert (gradient[~anchors] == 0).all()


@pytest.mark.parametrize("negatives", ["all", "batch"])
def test_batch_of_holes_aligns_nothing(holed: World, negatives: str) -> None:
    model, dataset = built(holed, "LightGCN_RLMRecCon", alignment_weight=1.0, alignment_negatives=negatives)
    users = ids_of(dataset, "user", ["u3", "u8", "u3"])
    batch = batch_of(users, ids_of(dataset, "item", ["i0", "i5", "i0"]), ids_of(dataset, "item", ["i11", "i12", "i5"]))
    terms = terms_of(model, batch)
    assert terms["alignment"].item() == 0
    terms["alignment"].backward(retain_graph=True)
    for parameter in model.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))
    sum(terms.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    assert model.user_embedding.weight.grad.abs().sum() > 0


def test_side_without_coverage_in_the_batch_leaves_the_other(holed: World) -> None:
    settings = {"alignment_weight": 1.0, "alignment_negatives": "all", "alignment_temperature": TEMPERATURE}
    model, dataset = built(holed, "LightGCN_RLMRecCon", **settings)
    items = ids_of(dataset, "item", ["i1", "i5"]), ids_of(dataset, "item", ["i11", "i12"])
    batch = batch_of(ids_of(dataset, "user", ["u1", "u3"]), *items)
    expected = slow_alignment(model, dataset, batch, "all")
    assert terms_of(model, batch)["alignment"].item() == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------- Gen


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gen_is_the_slow_sum(holed: World, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = built(
        holed,
        f"{backbone}_RLMRecGen",
        reconstruction_weight=0.7,
        reconstruction_temperature=TEMPERATURE,
        mask_ratio=0.1,
        loss_reduction="mean",
    )
    # Items before users: the targets must follow their nodes.
    items = ids_of(dataset, "item", ["i7", "i1"]) + dataset.user_num
    masked = np.concatenate([items, ids_of(dataset, "user", ["u30", "u2", "u9"])])
    monkeypatch.setattr(model.node_mask, "draw", lambda: torch.from_numpy(masked))
    terms_of(model, holed_batch(dataset))  # AutoCF draws its graphs at the first step
    ego = model.ego_embeddings().detach().clone()
    ego[masked] = model.node_mask.token.detach()
    torch.manual_seed(0)  # as terms_of: XSimGCL's representation is noisy
    representation = model.encode(ego).detach().numpy().astype(np.float64)
    tables = [dataset.semantic_embedding(side).matrix() for side in ("user", "item")]
    targets = [
        tables[0][row] if row < dataset.user_num else tables[1][row - dataset.user_num] for row in masked.tolist()
    ]
    pairs = list(zip(in_double(model.projector, representation[masked]), targets))
    expected = slow_info_nce(pairs, targets, TEMPERATURE)
    terms = terms_of(model, holed_batch(dataset))
    assert terms["reconstruction"].item() == pytest.approx(0.7 * expected, rel=1e-5)


def test_gen_runs_the_backbones_losses_on_the_masked_table(holed: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = built(holed, "LightGCN_RLMRecGen", mask_ratio=0.1)
    batch = holed_batch(dataset)
    masked = torch.from_numpy(ids_of(dataset, "user", ["u1", "u2"]))
    monkeypatch.setattr(model.node_mask, "draw", lambda: masked)
    terms = terms_of(model, batch)
    ego = model.ego_embeddings().detach().clone()
    ego[masked] = model.node_mask.token.detach()
    users, items = model.split(model.encode(ego).double())
    loss = 0.0
    for user, positive, negative in zip(*(batch[field].tolist() for field in ("user_id", "item_id", "neg_item_id"))):
        loss += np.log1p(np.exp((users[user] @ items[negative] - users[user] @ items[positive]).item()))
    assert terms["bpr"].item() == pytest.approx(loss / len(batch), rel=1e-5)
    unmasked = model.ranking_terms(model.encode(model.ego_embeddings()), batch)["bpr"].value
    assert abs(terms["bpr"].item() - unmasked.item()) > 1e-3
    terms["bpr"].backward()
    assert model.node_mask.token.grad.abs().sum() > 0
    assert (model.user_embedding.weight.grad[masked] == 0).all()


def test_what_stands_in_the_holes_is_not_rebuilt(holed: World) -> None:
    model, dataset = built(holed, "LightGCN_RLMRecGen", mask_ratio=1.0)
    batch = holed_batch(dataset)
    before = terms_of(model, batch)["reconstruction"]
    model.semantic.vectors[~model.semantic.covered] = 100.0
    assert torch.equal(terms_of(model, batch)["reconstruction"], before)


@pytest.mark.parametrize(("mask_ratio", "n_masked"), [(0.1, 6), (0.5, 31), (1.0, 63)])
def test_masks_hold_neither_holes_nor_padding(holed: World, mask_ratio: float, n_masked: int) -> None:
    model, dataset = built(holed, "LightGCN_RLMRecGen", mask_ratio=mask_ratio)
    covered = [dataset.semantic_embedding(side).covered for side in ("user", "item")]
    maskable = set(np.flatnonzero(np.concatenate(covered)).tolist())
    assert len(maskable) == 70 - len(USER_HOLES) - len(ITEM_HOLES)
    assert not maskable & {0, dataset.user_num}
    torch.manual_seed(0)
    draws = [model.node_mask.draw().tolist() for _ in range(150)]
    assert all(len(set(rows)) == len(rows) == n_masked for rows in draws)
    assert set().union(*draws) == maskable


@pytest.mark.parametrize("mask_ratio", [0.01, 0.015])
def test_mask_ratio_too_small_is_refused(holed: World, mask_ratio: float) -> None:
    with pytest.raises(SettingError, match=f"mask_ratio={mask_ratio} masks none of the 63 nodes"):
        holed.model("LightGCN_RLMRecGen", mask_ratio=mask_ratio)


def test_mask_ratio_the_message_advises_is_accepted(world: World) -> None:
    with pytest.raises(SettingError) as refusal:
        world.model("LightGCN_RLMRecGen", mask_ratio=0.01)
    advised = float(str(refusal.value).rstrip(".").split("at least ")[-1])
    model, _ = world.model("LightGCN_RLMRecGen", mask_ratio=advised)
    assert model.node_mask.n_masked == 1


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gen_scores_are_unmasked(holed: World, backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, dataset = built(holed, f"{backbone}_RLMRecGen", mask_ratio=0.5)

    def refuse() -> torch.Tensor:
        raise AssertionError("a mask was drawn")

    monkeypatch.setattr(model.node_mask, "draw", refuse)
    model.eval()
    users = torch.arange(1, dataset.user_num)
    before = torch.random.get_rng_state()
    first = model.full_sort_predict({"user_id": users})
    model.cached_representation = None
    assert torch.equal(model.full_sort_predict({"user_id": users}), first)
    assert torch.equal(torch.random.get_rng_state(), before)
    user_rows, item_rows = model.split(model.encode(model.ego_embeddings()))
    torch.testing.assert_close(first.view(len(users), -1), user_rows[1:] @ item_rows.T)


def test_first_gradient_of_the_token_is_of_ordinary_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    model, train_data = world.model("SGL_RLMRecGen", view_edge_drop="independent", edge_keep_rate=0.5)
    model.train()
    batch = holed_batch(train_data._dataset)
    masked = batch["user_id"][:1]
    monkeypatch.setattr(model.node_mask, "draw", lambda: masked)
    view = model.adjacency.drop_edges(0.5)
    start, end = model.adjacency.row_start[masked[0] : masked[0] + 2].tolist()
    view.value[start:end] = 0
    monkeypatch.setattr(model, "views", lambda: (view, view))
    sum(model.calculate_loss(batch)).backward()
    assert model.node_mask.token.grad.norm() < 1e3 * model.user_embedding.weight.grad.norm()


# ---------------------------------------------------------------------- both


@pytest.mark.parametrize(
    ("backbone", "own"),
    [
        ("LightGCN", ("bpr", "reg")),
        ("SGL", ("bpr", "reg", "ssl")),
        ("SimGCL", ("bpr", "reg", "ssl")),
        ("GCCF", ("bpr", "reg")),
        ("DCCF", ("bpr", "reg", "ssl")),
        ("AutoCF", ("interaction", "reg", "ssl", "infomax")),
    ],
)
def test_loss_names_follow_the_returned_values(holed: World, backbone: str, own: tuple[str, ...]) -> None:
    for variant, last in (("", ()), ("_RLMRecCon", ("alignment",)), ("_RLMRecGen", ("reconstruction",))):
        model, dataset = built(holed, backbone + variant)
        losses = model.calculate_loss(holed_batch(dataset))
        assert model.loss_names == own + last
        assert len(losses) == len(model.loss_names)
        assert all(loss.shape == () for loss in losses)


@pytest.mark.parametrize("variant", ["_RLMRecCon", "_RLMRecGen"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_summed_losses_are_the_means_times_the_batch_size(holed: World, backbone: str, variant: str) -> None:
    terms = {}
    for reduction in ("mean", "sum"):
        np.random.seed(0)  # SGL's views
        model, dataset = built(holed, backbone + variant, loss_reduction=reduction)
        batch = holed_batch(dataset)
        terms[reduction] = {name: value.item() for name, value in terms_of(model, batch).items()}
    assert terms["sum"].keys() == terms["mean"].keys()
    for name, mean in terms["mean"].items():
        times = 1 if name == "reg" else len(batch)
        assert terms["sum"][name] == pytest.approx(times * mean, rel=1e-5), name
        assert mean != 0


@pytest.mark.parametrize(("variant", "own"), [("_RLMRecCon", set()), ("_RLMRecGen", {"node_mask.token"})])
def test_checkpoint_holds_the_parameters_and_no_semantic_embedding(holed: World, variant: str, own: set[str]) -> None:
    model, _ = built(holed, f"LightGCN{variant}")
    projector = {f"projector.{layer}.{part}" for layer in (0, 2) for part in ("weight", "bias")}
    tables = {"user_embedding.weight", "item_embedding.weight"}
    assert set(model.state_dict()) == tables | projector | own
    assert {"semantic.vectors", "semantic.covered"} <= set(dict(model.named_buffers()))


@pytest.mark.parametrize("variant", ["_RLMRecCon", "_RLMRecGen"])
def test_projector_spans_semantic_and_collaborative_space(holed: World, variant: str) -> None:
    model, _ = built(holed, f"LightGCN{variant}", layer_combination="concat", n_layers=3)
    sizes = (12, 32) if variant == "_RLMRecCon" else (32, 12)
    assert (model.projector[0].in_features, model.projector[2].out_features) == sizes


def test_semantic_buffers_are_joined_by_token(holed: World) -> None:
    model, dataset = built(holed, "LightGCN_RLMRecCon")
    tables, masks = model.split(model.semantic.vectors), model.split(model.semantic.covered)
    for side, source, table, covered in zip(("user", "item"), holed.semantic, tables, masks):
        field = dataset.uid_field if side == "user" else dataset.iid_field
        for id, token in enumerate(dataset.field2id_token[field]):
            assert covered[id].item() == (token in source)
            expected = source.get(token, np.zeros(12))
            np.testing.assert_allclose(table[id].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("LightGCN_RLMRecCon", {}),
        ("LightGCN_RLMRecCon", {"alignment_negatives": "batch"}),
        ("SimGCL", {}),
        ("DCCF", {"item_contrast_divisor": "users"}),
        ("SGL", {"ssl_negative_items": True}),
    ],
)
def test_padded_ids_change_no_loss(
    holed: World, name: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the distinct ids of a batch come in as many rows as the batch has, the last of them of count 0."""
    model, dataset = built(holed, name, **settings)
    batch = holed_batch(dataset)
    torch.manual_seed(1)
    expected = model.calculate_loss(batch)
    for place in ("recbole_rlmrec.model.alignment.contrastive.distinct", "recbole_rlmrec.model.backbone.base.distinct"):
        monkeypatch.setattr(place, lambda ids, n_ids=None: _padded_distinct(ids))
    torch.manual_seed(1)
    for found, loss in zip(model.calculate_loss(batch), expected):
        torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-7)


def test_padded_distinct_ids() -> None:
    rows, counts = _padded_distinct(torch.tensor([7, 2, 7, 9, 2, 7]))
    assert rows.tolist() == [2, 7, 9, 9, 9, 9] and counts.tolist() == [2, 3, 1, 0, 0, 0]
    assert _padded_distinct(torch.tensor([4, 4]))[0].tolist() == [4, 4]


def without_texts(world: World, *sides: int) -> None:
    """Give no user, no item or neither of them an embedding."""
    world.semantic = tuple(
        {token: np.zeros_like(vector) for token, vector in table.items()} if number in sides else table
        for number, table in enumerate(world.semantic)
    )
    world.write()


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", ["LightGCN_RLMRecCon", "LightGCN_RLMRecGen"])
def test_a_side_without_texts_takes_no_part(world: World, name: str, side: int) -> None:
    without_texts(world, side)
    model, loader = world.model(name)
    term = model.calculate_loss(next(iter(loader)))[-1]
    assert term.isfinite() and term > 0


def test_nobody_with_a_text_is_the_backbone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    without_texts(world, 0, 1)
    losses = []
    for name in ("LightGCN", "LightGCN_RLMRecCon", "LightGCN_RLMRecGen"):
        model, loader = world.model(name)
        losses.append(torch.stack(list(model.calculate_loss(next(iter(loader))))))
    assert losses[0].equal(losses[1]) and losses[0].equal(losses[2])
    assert "LightGCN_RLMRecGen: nobody has a text to align with" in caplog.text


@pytest.mark.parametrize(("name", "side"), [("SemanticOnly", 0), ("AlphaRec", 1)])
def test_what_scores_by_texts_needs_them(world: World, name: str, side: int) -> None:
    without_texts(world, side)
    with pytest.raises(DataError, match=r"s row in .* is zero, which cosine cannot compare. Encode the profiles again"):
        world.model(name)
