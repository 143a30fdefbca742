"""L3AE and its family as models: texts with holes, scores, and what is refused."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World, batch_of

from recbole_rlmrec.errors import DataError, SettingError
from recbole_rlmrec.model.baseline import linear_items
from recbole_rlmrec.quick_start import load_model, run

NAMES = ("TextEASE", "AdditiveEASE", "CollectiveEASE", "L3AE")


@pytest.fixture
def holed(world: World) -> World:
    world.forget_texts(items=("i0", "i5"))
    world.train = np.concatenate([world.train, world.train[:3]])  # repeated interactions
    world.write()
    return world


def arrays_of(world: World, dataset: Any, *, center: bool) -> tuple[np.ndarray, np.ndarray]:
    """Interactions and texts by internal id, read from what the files hold."""
    interactions = np.zeros((dataset.user_num, dataset.item_num))
    for user, item in world.train:
        interactions[dataset.token2id("user_id", user), dataset.token2id("item_id", item)] = 1
    texts = np.zeros((dataset.item_num, 12))
    mean = np.mean(list(world.semantic[1].values()), axis=0) if center else 0
    for token, vector in world.semantic[1].items():
        texts[dataset.token2id("item_id", token)] = np.float32(vector) - mean
    return interactions, texts


def ease(gram: np.ndarray, penalty: float) -> np.ndarray:
    inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
    return np.eye(len(gram)) - inverse / inverse.diagonal()


def slow_weights(name: str, x: np.ndarray, f: np.ndarray) -> np.ndarray:
    """With the settings of :func:`settings_of`."""
    texts, gram = ease(f @ f.T, 3.0), x.T @ x
    if name == "TextEASE":
        return texts
    if name == "AdditiveEASE":
        return 0.6 * ease(gram, 7.0) + 0.4 * texts
    if name == "CollectiveEASE":
        return ease(gram + 4 * f @ f.T, 7.0)
    inverse = np.linalg.inv(gram + 9 * np.eye(len(gram)))
    m = 4.5 * inverse @ texts
    return m - inverse @ np.diag((1 + m.diagonal()) / inverse.diagonal()) + np.eye(len(m))


def settings_of(name: str) -> dict[str, float]:
    own = {
        "text_penalty": 3.0,
        "interaction_penalty": 7.0,
        "text_share": 0.4,
        "text_scale": 2.0,
        "total_penalty": 9.0,
        "text_pull": 0.5,
    }
    read = {
        "TextEASE": ("text_penalty",),
        "AdditiveEASE": ("text_penalty", "interaction_penalty", "text_share"),
        "CollectiveEASE": ("interaction_penalty", "text_scale"),
        "L3AE": ("text_penalty", "total_penalty", "text_pull"),
    }
    return {setting: own[setting] for setting in read[name]}


@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_sums_of_the_weights_of_a_history(holed: World, name: str, center: bool) -> None:
    model, train_data = holed.model(name, center_texts=center, **settings_of(name))
    x, f = arrays_of(holed, train_data._dataset, center=center)
    expected = x @ slow_weights(name, x, f)
    users, items = np.divmod(np.arange(expected.size), expected.shape[1])
    whole = model.full_sort_predict(batch_of(*[np.arange(len(expected))] * 3))
    pairs = model.predict(batch_of(users, items, items))
    for scores in (whole, pairs):
        np.testing.assert_allclose(scores.numpy().reshape(expected.shape), expected, atol=1e-5)
    assert np.abs(expected).max() > 0.05 and not whole.view(expected.shape)[0].any()


def test_a_run_and_its_checkpoint_of_no_weights(world: World) -> None:
    settings = {"data_path": str(world.root), "benchmark_filename": ["train", "valid", "test"], "state": "ERROR"}
    result = run("L3AE", world.name, config_dict={**settings, "show_progress": False})
    loaded = load_model(result.checkpoint)
    assert dict(loaded.model.state_dict()) == {} and result.best_epoch == 0
    assert torch.isfinite(loaded.model.weights).all()


def test_memory_is_stated(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        world.model("L3AE")
    assert "L3AE: weights between 31 items take 0.0 GiB." in caplog.text


@pytest.mark.parametrize(("name", "most"), [("L3AE", 16), ("TextEASE", 28)])
def test_a_catalogue_too_large_is_refused(world: World, name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear_items, "free_memory", lambda device: 3200)
    with pytest.raises(SettingError, match=rf"{name} .*: 31 items take .* are free, enough for {most}\. Take a model"):
        world.model(name)


def test_items_without_texts_are_refused(world: World) -> None:
    for token, vector in world.semantic[1].items():
        world.semantic[1][token] = np.zeros_like(vector)
    world.write()
    with pytest.raises(DataError, match=r"s row in .* is zero"):
        world.model("L3AE")
