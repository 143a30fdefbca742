"""Checkpoints that were damaged or made up: one error, before anything of them reaches a model."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch

from recbole_rlmrec.errors import CheckpointError
from recbole_rlmrec.training.checkpoint import load_checkpoint, load_optimizer, load_weights, pack


class Tiny(torch.nn.Module):
    """A model as RecBole's trainer sees it."""

    other_parameter_name = ("similarity",)

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(4, 3)
        self.register_buffer("count", torch.zeros(2, dtype=torch.int64))
        self.similarity: Any = None

    def load_other_parameter(self, found: dict[str, Any]) -> None:
        self.__dict__.update(found)


@pytest.fixture
def whole() -> dict[str, Any]:
    """What a trainer saves after a step."""
    model = Tiny()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    model.table.weight.sum().backward()
    optimizer.step()
    return {
        "format": 1,
        "model": "Tiny",
        "dataset": "toy",
        "settings": {"model": "Tiny", "dataset": "toy", "topk": [10], "eval_args": {"split": None}},
        "data": {"ids": "h"},
        "best_valid_result": {"recall@10": 0.5},
        "epoch": 3,
        "cur_step": 0,
        "best_valid_score": 0.5,
        "state_dict": model.state_dict(),
        "other_parameter": {"similarity": pack(scipy.sparse.csr_matrix(np.eye(3)))},
        "optimizer": optimizer.state_dict(),
        "stopping": {"steps": 1, "epochs": 1, "has_left": False},
        "margin": {"reference": 0.1, "difference": 0.2, "error": 0.1},
    }


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Any], None]:
    """Save something, load it, and put it into a model and an optimiser."""

    def call(content: Any) -> None:
        path = tmp_path / "c.pth"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        checkpoint, model = load_checkpoint(path), Tiny()
        load_weights(model, checkpoint, path)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        load_optimizer(optimizer, checkpoint, path)
        assert model.similarity.shape == (3, 3) and len(optimizer.state) == 1

    return call


def refused(load: Callable[[Any], None], content: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(content)
    message = str(caught.value)
    assert "c.pth'" in message and len(message) < 1500, message
    return message


def test_a_whole_one_is_loaded(load: Callable[[Any], None], whole: dict[str, Any]) -> None:
    load(whole)
    load({**whole, "best_valid_result": {"auc": float("nan")}})
    load({**whole, "best_valid_score": -float("inf"), "best_valid_result": None, "of_a_later_version": 1})
    for key in ("stopping", "margin"):
        load({name: value for name, value in whole.items() if name != key})
        load({**whole, key: None})


WRONG: dict[str, list[Any]] = {
    "format": [2, True, "1", None],
    "model": [3, None, ["Tiny"]],
    "dataset": [3, None],
    "settings": [None, [], {}, {"model": "Tiny"}, {"model": "Tiny", "dataset": 3}, {3: 4}],
    "data": [[], {"ids": 3}, "h"],
    "best_valid_result": [{"recall@10": "0.5"}, 0.5, {3: 0.5}],
    "epoch": [-2, 1.5, "3", None, 2**63, True],
    "cur_step": [-1, 0.5],
    "best_valid_score": [float("nan"), "0.5", None],
    "state_dict": [None, {"table.weight": [1.0]}, {"table.weight": {}}],
    "other_parameter": [[], None],
    "optimizer": [None, []],
    "stopping": [{"steps": 1}, [], {"steps": "1", "epochs": 1, "has_left": False, "more": 1}],
    "margin": [{"reference": 0.1}, {"reference": "x", "difference": 0.1, "error": 0.1}],
    "base": [{"model": "BPR"}, "BPR"],
    "aligned": [3, ["x"]],
}


@pytest.mark.parametrize("key", WRONG)
def test_a_key_of_another_shape(load: Callable[[Any], None], whole: dict[str, Any], key: str) -> None:
    for value in WRONG[key]:
        if (key, value) in (("stopping", {"steps": 1}),):
            load({**whole, key: value})  # what is left out has a default
            continue
        message = refused(load, {**whole, key: value})
        assert f"'{key}" in message or "'model' is missing" in message or "'dataset' is" in message, message
    if key not in ("stopping", "margin", "base", "aligned"):
        assert f"'{key}' is missing" in refused(load, {name: each for name, each in whole.items() if name != key})


def test_settings_hold_plain_values(load: Callable[[Any], None], whole: dict[str, Any]) -> None:
    settings = whole["settings"]
    assert "'settings.topk[0]' is a value of type Tensor" in refused(
        load, {**whole, "settings": {**settings, "topk": [torch.zeros(1)]}}
    )
    endless: list[Any] = []
    endless.append(endless)
    assert "it contains itself" in refused(load, {**whole, "settings": {**settings, "topk": endless}})
    deep: list[Any] = []
    for _ in range(80):
        deep = [deep]
    assert "levels deep" in refused(load, {**whole, "settings": {**settings, "topk": deep}})
    laughing: list[Any] = [1]
    for _ in range(30):
        laughing = [laughing, laughing]
    assert "more than 10,000,000 parts" in refused(load, {**whole, "settings": {**settings, "topk": laughing}})


def test_tensors_that_are_not_the_models(load: Callable[[Any], None], whole: dict[str, Any]) -> None:
    weights = whole["state_dict"]

    def with_table(tensor: Any) -> dict[str, Any]:
        return {**whole, "state_dict": {**weights, "table.weight": tensor}}

    table = weights["table.weight"]
    assert "'table.weight' is of torch.float64, expected torch.float32" in refused(load, with_table(table.double()))
    assert "'table.weight' is of torch.int64" in refused(load, with_table(table.long()))
    assert "does not fit this Tiny" in refused(load, with_table(table[:2].clone()))
    assert "does not fit this Tiny" in refused(load, {**whole, "state_dict": {"count": weights["count"]}})
    assert "does not fit this Tiny" in refused(load, {**whole, "state_dict": {**weights, "more": table}})
    for value in (float("nan"), float("inf")):
        bad = table.clone()
        bad[1, 1] = value
        assert "'table.weight' has 1 of 12 values that are no finite numbers" in refused(load, with_table(bad))
    wide = torch.zeros(1).expand(10**6, 10**6)
    assert "the tensor 'state_dict.table.weight' of shape [1000000, 1000000] is not stored" in refused(
        load, with_table(wide)
    )
    sparse = torch.eye(3).to_sparse()
    assert "c.pth" in refused(load, with_table(sparse))


def test_what_lies_beside_the_weights(load: Callable[[Any], None], whole: dict[str, Any]) -> None:
    matrix = whole["other_parameter"]["similarity"]
    for other in (
        {},
        {"similarity": matrix, "forward": 3},
        {"forward": matrix},
        {"similarity": {"kind": "csr"}},
        {"similarity": {**matrix, "shape": [3]}},
        {"similarity": {**matrix, "shape": [-3, 3]}},
        {"similarity": {**matrix, "shape": [10**12, 10**12]}},
        {"similarity": {**matrix, "indices": {"kind": "array", "tensor": torch.tensor([0, 1, 10**6])}}},
        {"similarity": {**matrix, "indptr": {"kind": "array", "tensor": torch.tensor([0, -5, 3, 3])}}},
        {"similarity": {"kind": "array", "tensor": "x"}},
    ):
        assert "what it keeps beside its tensors is not Tiny's" in refused(load, {**whole, "other_parameter": other})


def test_state_of_an_optimiser_that_does_not_fit(load: Callable[[Any], None], whole: dict[str, Any]) -> None:
    state, [group] = whole["optimizer"]["state"], whole["optimizer"]["param_groups"]
    moments = state[0]
    for optimizer in (
        {},
        {"state": state},
        {"state": state, "param_groups": 3},
        {"state": state, "param_groups": [group, group]},
        {"state": state, "param_groups": [{**group, "lr": "fast"}]},
        {"state": state, "param_groups": [{**group, "lr": float("nan")}]},
        {"state": state, "param_groups": [{**group, "betas": [0.9]}]},
        {"state": state, "param_groups": [{key: value for key, value in group.items() if key != "eps"}]},
        {"state": state, "param_groups": [{**group, "params": [0, 1]}]},
        {"state": [], "param_groups": [group]},
        {"state": {0: {**moments, "exp_avg": torch.zeros(9, 9)}}, "param_groups": [group]},
        {"state": {0: {**moments, "exp_avg": torch.full((4, 3), float("nan"))}}, "param_groups": [group]},
    ):
        assert "its state of the optimiser does not fit Adam here" in refused(load, {**whole, "optimizer": optimizer})


def archive(whole: dict[str, Any], **members: bytes) -> bytes:
    """A checkpoint's archive with some of its members replaced, and all compressed."""
    saved, made = io.BytesIO(), io.BytesIO()
    torch.save(whole, saved)
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, members.get(name.rpartition("/")[2], old.read(name)))
    return made.getvalue()


def test_archives_that_are_larger_than_they_look(load: Callable[[Any], None], whole: dict[str, Any]) -> None:
    bomb = archive(whole, **{"0": bytes(10**8)})
    assert len(bomb) < 10**6
    assert "what is in it would be larger than the file" in refused(load, bomb)
    for content in (b"", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"\x80\x02N.", b"\x00" * 1000):
        assert "cannot be read as a checkpoint" in refused(load, content)


def test_a_pickle_in_an_archive_that_ends_the_process(tmp_path: Path, whole: dict[str, Any]) -> None:
    """In a process of its own: PyTorch's reader takes the hash of nested tuples, which overflows Python's stack."""
    hostile = b"\x80\x02})" + b"\x85" * 10**6 + b"K\x01s."
    saved = io.BytesIO()
    torch.save(whole, saved)
    path = tmp_path / "c.pth"
    with zipfile.ZipFile(saved) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, hostile if name.endswith("data.pkl") else old.read(name))
    script = f"from recbole_rlmrec.training.checkpoint import load_checkpoint; load_checkpoint({str(path)!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "it is nested more than 100 levels deep" in done.stderr, done


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    for path, kind in ((tmp_path / "pipe.pth", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        with pytest.raises(CheckpointError, match=f"it is {kind}, expected a regular file"):
            load_checkpoint(path)
