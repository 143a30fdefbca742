"""Starting tables from a checkpoint or from the texts: joined by token, and one rule for rows without a source."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from trainings import train
from worlds import World

from recbole_rlmrec.errors import CheckpointError, DataError, SettingError
from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.training.checkpoint import load_checkpoint, packed_ids, unpacked_ids
from recbole_rlmrec.training.starting import start_from


def checkpoint_of(world: World, name: str, path: Path, **settings: Any) -> dict[str, torch.Tensor]:
    """Write a checkpoint of an untrained model, whose numbers are not those of another seed; return its tensors."""
    model, train_data = world.model(name, seed=7, **settings)
    training = train_data._dataset
    state = {
        "format": 1,
        "model": type(model).__name__,
        "dataset": world.name,
        "settings": {"model": name, "dataset": world.name},
        "data": {
            f"{side} ids": hashlib.sha256("\n".join(map(str, training.field2id_token[field])).encode()).hexdigest()
            for side, field in (("user", "user_id"), ("item", "item_id"))
        },
        "best_valid_result": None,
        "epoch": 0,
        "cur_step": 0,
        "best_valid_score": 0.0,
        "state_dict": model.state_dict(),
        "other_parameter": {},
        "optimizer": {},
        "ids": packed_ids(training),
    }
    torch.save(state, path)
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.fixture
def grown(world: World, tmp_path: Path) -> tuple[World, World]:
    """A dataset, and the same with a new user and a new item, their interactions first: other row numbers."""
    more = World(tmp_path / "grown")
    more.train = np.concatenate([[("new user", "i3"), ("new user", "i4"), ("u1", "new item")], more.train])
    more.semantic[0]["new user"] = np.ones(12)
    more.semantic[1]["new item"] = np.arange(12.0)
    more.write()
    return world, more


def by_token(model: Any, training: Any, side: str) -> dict[str, np.ndarray]:
    table = getattr(model, f"{side}_embedding").weight.detach().numpy()
    return dict(zip(map(str, training.field2id_token[f"{side}_id"][1:]), table[1:]))


@pytest.mark.parametrize("name", ["LightGCN", "LightGCN_RLMRecCon", "BPR", "SimGCL", "NeuMF", "SGL_KAR", "DMF"])
def test_rows_are_joined_by_token(grown: tuple[World, World], tmp_path: Path, name: str) -> None:
    old, new = grown
    path = tmp_path / "old.pth"
    stored = checkpoint_of(old, name, path)
    _, old_data = old.model(name)
    model, train_data = new.model(name)
    start_from(str(path), model, train_data._dataset)
    known = 0
    for table, module in model.named_modules():
        if not isinstance(module, torch.nn.Embedding):
            continue
        side = "user" if module.num_embeddings == model.n_users else "item"
        here, there = (dataset.field2id_token[f"{side}_id"] for dataset in (train_data._dataset, old_data._dataset))
        rows = {token: stored[f"{table}.weight"][row] for row, token in enumerate(there) if row}
        for row, token in enumerate(here):
            if token in rows:
                assert torch.equal(module.weight[row], rows[token])
                known += 1
    assert known or name == "DMF"
    for name, parameter in model.named_parameters():
        if not name.removesuffix(".weight").endswith("embedding") and parameter.shape == stored[name].shape:
            assert torch.equal(parameter, stored[name])


def test_new_rows_are_the_mean_of_their_neighbours(grown: tuple[World, World], tmp_path: Path, caplog: Any) -> None:
    old, new = grown
    path = tmp_path / "old.pth"
    checkpoint_of(old, "LightGCN", path)
    model, train_data = new.model("LightGCN")
    drawn = model.user_embedding.weight[0].clone()
    with caplog.at_level(logging.INFO):
        start_from(str(path), model, train_data._dataset)
    users, items = (by_token(model, train_data._dataset, side) for side in ("user", "item"))
    mean = items["i3"] + items["i4"]
    length = np.mean([np.linalg.norm(row) for token, row in users.items() if token != "new user"])
    np.testing.assert_allclose(users["new user"], mean / np.linalg.norm(mean) * length, rtol=1e-5)
    direction = users["u1"] / np.linalg.norm(users["u1"])
    np.testing.assert_allclose(items["new item"] / np.linalg.norm(items["new item"]), direction, rtol=1e-5)
    assert torch.equal(model.user_embedding.weight[0], drawn)
    assert "user_embedding.weight: 40 from it, 1 from their neighbours" in caplog.text


def test_new_rows_are_the_projections_of_their_texts(grown: tuple[World, World], tmp_path: Path, caplog: Any) -> None:
    old, new = grown
    path = tmp_path / "old.pth"
    checkpoint_of(old, "LightGCN_RLMRecCon", path)
    model, train_data = new.model("LightGCN_RLMRecCon")
    with caplog.at_level(logging.INFO):
        start_from(str(path), model, train_data._dataset)
    row = torch.from_numpy(by_token(model, train_data._dataset, "user")["new user"])
    projected = model.projector(torch.ones(1, 12))[0]
    assert torch.cosine_similarity(row, projected, dim=0) > 1 - 1e-5
    assert "1 from their texts" in caplog.text and "not taken over" not in caplog.text


def test_what_reduces_texts_goes_with_what_reads_them(grown: tuple[World, World], tmp_path: Path) -> None:
    old, new = grown
    path = tmp_path / "old.pth"
    name, basis = "LightGCN_RLMRecCon", "semantic.reduction.vectors"
    stored = checkpoint_of(old, name, path, semantic_dimension=4)
    model, train_data = new.model(name, semantic_dimension=4)
    assert not torch.allclose(model.state_dict()[basis], stored[basis])
    start_from(str(path), model, train_data._dataset)
    assert torch.equal(model.state_dict()[basis], stored[basis])
    row = int(train_data._dataset.token2id("user_id", "new user"))
    torch.testing.assert_close(model.semantic(torch.tensor([row])), torch.ones(1, 12) @ stored[basis])
    table = torch.from_numpy(by_token(model, train_data._dataset, "user")["new user"])
    assert torch.cosine_similarity(table, model.text_projector(torch.ones(1, 12))[0], dim=0) > 1 - 1e-5


def test_tables_as_texts_have_the_geometry_of_the_texts(world: World) -> None:
    model, train_data = world.model("LightGCN", embedding_size=16)  # wider than the texts' 12
    drawn = model.user_embedding.weight.detach().clone()
    start_from("text", model, train_data._dataset)
    for side, stored in zip(("user", "item"), world.semantic):
        rows = by_token(model, train_data._dataset, side)
        found = np.stack([rows[token][:12] for token in stored])
        wanted = np.stack(list(stored.values()))
        ratio = (found @ found.T) / (wanted @ wanted.T)
        np.testing.assert_allclose(ratio, ratio[0, 0], rtol=1e-3)  # all components: inner products but for the scale
    assert torch.equal(model.user_embedding.weight[:, 12:], drawn[:, 12:])
    assert float(model.user_embedding.weight[1:, :12].detach().std()) == pytest.approx(float(drawn.std()), rel=0.05)


def test_leading_components_are_kept_where_a_table_is_narrow(world: World) -> None:
    model, train_data = world.model("BPR", embedding_size=4)
    start_from("text", model, train_data._dataset)
    vectors = np.concatenate([np.stack(list(side.values())) for side in world.semantic])
    leading = np.linalg.svd(vectors, full_matrices=False)[2][:4]
    rows = by_token(model, train_data._dataset, "item")
    found, wanted = rows["i3"], leading @ world.semantic[1]["i3"]
    np.testing.assert_allclose(np.abs(found / found[0]), np.abs(wanted / wanted[0]), rtol=1e-3)


def without_texts(world: World, *sides: int) -> None:
    for side in sides:
        world.semantic[side].update({token: np.zeros(12) for token in world.semantic[side]})
    world.write()


@pytest.mark.parametrize(
    ("side", "field", "of_other"), [("user", "user_id", "item_id"), ("item", "item_id", "user_id")]
)
def test_a_side_without_texts_begins_as_means_of_the_other(world: World, side: str, field: str, of_other: str) -> None:
    """LLMInit's users, whose items alone have texts."""
    without_texts(world, 0 if side == "user" else 1)
    model, train_data = world.model("LightGCN")
    own, other = (getattr(model, f"{word.split('_')[0]}_embedding").weight for word in (field, of_other))
    length = own.detach().norm(dim=1).mean()
    training = train_data._dataset
    start_from("text", model, training)
    neighbours = training.inter_feat[of_other][training.inter_feat[field] == 3]
    mean = other.detach()[neighbours].mean(dim=0)
    torch.testing.assert_close(own.detach()[3], mean / mean.norm() * length)


def test_texts_of_nobody_are_refused(world: World) -> None:
    without_texts(world, 0, 1)
    model, train_data = world.model("LightGCN")
    with pytest.raises(DataError, match=r"s row in .* is zero"):
        start_from("text", model, train_data._dataset)


@pytest.mark.parametrize(
    ("name", "settings", "error", "message"),
    [
        ("LightGCN", {"embedding_size": 16}, SettingError, r"8 wide, and this model's 16. Give --embedding_size=8"),
        ("MultiVAE", {}, CheckpointError, r"checkpoint of LightGCN, which has none of the parameters .*MultiVAE"),
        ("AlphaRec", {}, CheckpointError, r"has none of the parameters that AlphaRec starts from \(first_layer.weight"),
    ],
)
def test_what_does_not_fit_is_said(
    world: World, tmp_path: Path, name: str, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = tmp_path / "old.pth"
    checkpoint_of(world, "LightGCN", path)
    model, train_data = world.model(name, **settings)
    with pytest.raises(error, match=message):
        start_from(str(path), model, train_data._dataset)


def test_other_data_and_missing_files_are_said(world: World, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    checkpoint_of(world, "LightGCN", path)
    world.train, world.valid, world.test = (np.char.add("x", rows) for rows in (world.train, world.valid, world.test))
    world.write()
    model, train_data = world.model("LightGCN")
    with pytest.raises(CheckpointError, match="shares no user and no item with 'tiny', whose items are such as 'xi"):
        start_from(str(path), model, train_data._dataset)
    with pytest.raises(CheckpointError, match=r"There is no checkpoint 'none.pth'"):
        start_from("none.pth", model, train_data._dataset)
    model, train_data = world.model("Pop")
    with pytest.raises(SettingError, match="Pop has no tables of users and items that could start from texts"):
        start_from("text", model, train_data._dataset)


def test_ids_of_earlier_checkpoints_are_known_by_their_hash(world: World, tmp_path: Path) -> None:
    path = tmp_path / "old.pth"
    stored = checkpoint_of(world, "LightGCN", path)
    checkpoint = load_checkpoint(path)
    assert unpacked_ids(checkpoint, "user")[0] == "u0"
    del checkpoint["ids"]
    torch.save(checkpoint, path)
    world.train = np.concatenate([world.train, [("new user", "i1")]])
    world.write()
    model, train_data = world.model("LightGCN")
    start_from(str(path), model, train_data._dataset)
    assert torch.equal(model.item_embedding.weight[1:], stored["item_embedding.weight"][1:])
    world.train = world.train[::-1]
    world.write()
    model, train_data = world.model("LightGCN")
    with pytest.raises(CheckpointError, match="earlier version, which did not keep the ids"):
        start_from(str(path), model, train_data._dataset)


def test_a_run_says_where_it_started(world: World) -> None:
    first = train(world, "LightGCN", epochs=3, learning_rate=0.05)
    again = train(world, "LightGCN", epochs=1, init_from=first.checkpoint)
    assert again.start is not None
    assert again.start["valid"] == pytest.approx(first.best_valid_result)
    assert again.start["test"] == pytest.approx(first.test_result)
    stored = load_checkpoint(again.checkpoint)
    assert stored["settings"]["init_from"] == again.settings["init_from"] == first.checkpoint
    assert get_model("LightGCN") is type(again.load().model)
    assert first.start is None
