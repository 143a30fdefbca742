"""From a name to a test result, checked against a brute-force evaluation."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import World
from trainings import QUICK, all_scores, train

import recbole_rlmrec
from recbole_rlmrec.errors import CheckpointError, SettingError
from recbole_rlmrec.model.backbone.lightgcn import LightGCN
from recbole_rlmrec.model.registry import names
from recbole_rlmrec.quick_start import load_model, run


@pytest.mark.parametrize("model", names())
def test_every_model_trains_and_writes_its_result(world: World, model: str) -> None:
    result = train(world, model, result_file="out/result.json", learning_rate=0.01, seed=7)
    written = json.loads(Path("out/result.json").read_text())
    assert written == result.__dict__
    assert written["model"] == model and written["dataset"] == "tiny" and written["seed"] == 7
    assert written["settings"]["learning_rate"] == 0.01
    assert "result_file" not in written["settings"]
    assert written["best_epoch"] in (0, 1)
    assert set(written["test_result"]) == {f"{metric}@{k}" for metric in ("recall", "ndcg") for k in (5, 10, 20)}
    assert all(0 < value <= 1 for value in written["test_result"].values())
    assert list(Path("out").iterdir()) == [Path("out/result.json")]


@pytest.mark.parametrize("model", ["BPR", "ItemKNN", "NGCF", "NeuMF"])
def test_plain_recbole_models_run(world: World, model: str) -> None:
    result = run(model, world.name, config_dict={"data_path": str(world.root), **QUICK})
    assert 0 < result.test_result["recall@20"] <= 1


def metrics_by_brute_force(
    world: World, config: Any, model: Any, dataset: Any, masked: list[np.ndarray], k: int
) -> tuple[float, float]:
    """Recall@k and NDCG@k of the test pairs, one user and one item at a time."""
    scores = all_scores(model, config)
    wanted: dict[str, set[str]] = defaultdict(set)
    hidden: dict[str, set[str]] = defaultdict(set)
    for user, item in world.test:
        wanted[user].add(item)
    for pairs in masked:
        for user, item in pairs:
            hidden[user].add(item)
    recalls, ndcgs = [], []
    for user, items in wanted.items():
        row = scores[dataset.token2id("user_id", user) - 1]
        ranked = [dataset.id2token("item_id", item) for item in np.argsort(-row, kind="stable") if item != 0]
        ranked = [item for item in ranked if item not in hidden[user]][:k]
        hits = [item in items for item in ranked]
        recalls.append(sum(hits) / len(items))
        gain = sum(hit / math.log2(rank + 2) for rank, hit in enumerate(hits))
        ndcgs.append(gain / sum(1 / math.log2(rank + 2) for rank in range(min(k, len(items)))))
    return float(np.mean(recalls)), float(np.mean(ndcgs))


@pytest.mark.parametrize("protocol", ["recbole", "paper"])
def test_protocols_mask_what_they_say(world: World, protocol: str) -> None:
    result = train(world, "LightGCN", eval_protocol=protocol, metric_decimal_place=8, epochs=6, learning_rate=0.05)
    config, model, dataset, *_ = load_model(result.checkpoint)
    masked = [world.train] if protocol == "paper" else [world.train, world.valid]
    recall, ndcg = metrics_by_brute_force(world, config, model, dataset, masked, 10)
    assert result.test_result["recall@10"] == pytest.approx(recall, abs=1e-7)
    assert result.test_result["ndcg@10"] == pytest.approx(ndcg, abs=1e-7)
    other = [world.train, world.valid] if protocol == "paper" else [world.train]
    assert abs(metrics_by_brute_force(world, config, model, dataset, other, 10)[0] - recall) > 1e-4


def test_paper_protocol_stops_at_the_fifth_miss(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from recbole_rlmrec.training.trainer import Trainer

    scores = iter([0.5, 0.6, *[0.4] * 50])
    seen: list[int] = []

    def scripted(self: Trainer, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        seen.append(1)
        return next(scores), {}

    monkeypatch.setattr(Trainer, "_valid_epoch", scripted)
    result = train(world, "LightGCN", eval_protocol="paper", epochs=100)
    # Every third epoch is validated: the second validation, after epoch 5, is the best; five misses follow.
    assert result.best_epoch == 5
    assert len(seen) == 7


def test_same_seed_same_result_and_another_seed_another(world: World) -> None:
    first, again, other = (train(world, "SGL_RLMRecGen", seed=seed).best_valid_result for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_unwritable_result_path_is_found_before_training(world: World) -> None:
    Path("file").write_text("")
    for path in ("file/result.json", "dataset", "/proc/none/result.json"):
        with pytest.raises(SettingError, match=rf"result_file='{path}' cannot be written"):
            train(world, "LightGCN", result_file=path)
    assert not list(Path().glob("saved/*.pth"))


@pytest.mark.parametrize(("settings", "epoch"), [({"eval_step": 0}, 1), ({"epochs": 0}, -1)])
def test_a_run_without_validation_writes_plain_json(world: World, settings: dict[str, int], epoch: int) -> None:
    result = train(world, "LightGCN", result_file="result.json", **settings)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    written = json.loads(Path("result.json").read_text(), parse_constant=refuse)
    assert written["best_valid_score"] is None and written["best_valid_result"] is None
    assert written["best_epoch"] == result.best_epoch == epoch
    assert written["test_result"] == result.test_result


def test_folders_that_another_run_makes_at_the_same_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole asks whether a folder is there and makes it; in between another run may have."""
    make = os.makedirs

    def late(path: Any, *arguments: Any, **named: Any) -> None:
        if not arguments and not named:  # RecBole's call
            make(path, exist_ok=True)
        make(path, *arguments, **named)

    monkeypatch.setattr(os, "makedirs", late)
    settings = {"benchmark_filename": ["train", "valid", "test"], "epochs": 1, "show_progress": False}
    place = {"data_path": str(world.root), "checkpoint_dir": "somewhere/else"}
    result = run("LightGCN", world.name, config_dict={**settings, **place})
    assert result is not None and Path(result.checkpoint).is_file()


def test_what_the_package_exports(world: World) -> None:
    """It is imported when it is used; a result reads as RecBole's dictionary, and what is loaded as RecBole's tuple."""
    done = subprocess.run(
        [sys.executable, "-c", "import sys, recbole_rlmrec; print('torch' in sys.modules, *recbole_rlmrec.__all__)"],
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == ["False", *recbole_rlmrec.__all__], done.stderr
    result = recbole_rlmrec.run("BPR", world.name, config_dict=world.config("BPR", epochs=1).external_config_dict)
    assert result is not None and result["test_result"] == result.test_result
    with pytest.raises(KeyError, match="write"):
        result["write"]
    config, model, *_ = loaded = recbole_rlmrec.load_model(result.checkpoint)
    assert (loaded.config, loaded.model) == (config, model) and type(model).__name__ == "BPR"
    with pytest.raises(AttributeError, match="module 'recbole_rlmrec' has no attribute 'nothing'"):
        recbole_rlmrec.nothing  # noqa: B018


def test_a_package_that_a_model_imports_when_it_is_built(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(self: Any, config: Any, dataset: Any) -> None:
        raise ModuleNotFoundError("No module named 'dgl'", name="dgl")

    config = world.config("BPR")
    monkeypatch.setattr(config.model_class, "__init__", build)
    with pytest.raises(SettingError, match="BPR needs the package 'dgl', which is not installed: pip install dgl"):
        recbole_rlmrec.run("BPR", world.name, config_dict=config.external_config_dict)


class Nearby(LightGCN):
    """A class that no registry knows."""


@pytest.mark.parametrize("model", ["LightGCN_RLMRecCon", Nearby])
def test_a_result_gives_its_model_and_arrays(world: World, model: Any) -> None:
    result = train(world, model)
    loaded = result.load(None if isinstance(model, str) else model)
    assert type(loaded.model).__name__ == result.model and not loaded.model.training
    assert loaded.dataset.dataset_name == result.dataset
    tokens, vectors = loaded.representations("user")
    assert vectors.shape == (len(tokens), 8) and vectors.dtype == np.float32
    weights = torch.load(result.checkpoint, weights_only=True)["state_dict"]
    rows = loaded.dataset.token2id("user_id", list(tokens))
    users, items = loaded.model.encode(
        torch.cat([weights[f"{side}_embedding.weight"] for side in ("user", "item")])
    ).split([loaded.model.n_users, loaded.model.n_items])
    np.testing.assert_allclose(vectors, users[rows].detach(), atol=1e-6)
    np.testing.assert_allclose(
        loaded.scores(["u4"]).values[0], items[1:].detach() @ vectors[list(tokens).index("u4")], atol=1e-6
    )


def test_a_run_without_checkpoints_has_no_model_to_give(world: World) -> None:
    settings = {"data_path": str(world.root), **QUICK}
    result = run("LightGCN", world.name, config_dict=settings, saved=False)
    assert result is not None
    with pytest.raises(CheckpointError, match="This run of LightGCN kept no checkpoint: call run\\(\\) without saved"):
        result.load()


@pytest.mark.parametrize(
    "script",
    ["/lib/ipykernel_launcher.py", "/lib/colab_kernel_launcher.py", "/lib/ipykernel/__main__.py"],
)
def test_arguments_of_a_notebook_are_its_kernels(
    world: World, script: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", [script, "-f", "/run/kernel-1.json", "--epochs=7"])
    settings = {"data_path": str(world.root), **QUICK, "epochs": 0}
    with caplog.at_level("INFO"):
        result = run("LightGCN", world.name, config_dict=settings, own_log=False)
    assert result is not None and (result.command, result.settings["epochs"]) == ("notebook", 0)
    assert "notebook" in caplog.messages and "kernel-1.json" not in caplog.text
