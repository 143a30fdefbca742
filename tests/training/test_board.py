"""Weights & Biases, with a stand-in for its package: what arrives there, under which names, and in which run."""

from __future__ import annotations

import importlib.machinery
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from conftest import World
from trainings import train

from recbole_rlmrec.errors import SettingError, StoppedError, TrainingError
from recbole_rlmrec.training.board import run_of_board


class Board(ModuleType):
    """As much of the package ``wandb`` as is used."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = importlib.machinery.ModuleSpec("wandb", importlib.machinery.BuiltinImporter)
        self.run: Any = None
        self.runs: list[Any] = []

    def init(self, **given: Any) -> None:
        self.run = SimpleNamespace(given=given, rows=[{}], summary={}, exit_code=None)
        self.runs.append(self.run)

    def define_metric(self, name: str, step_metric: str) -> None:
        pass

    def log(self, metrics: dict[str, Any], commit: bool = True) -> None:
        self.run.rows[-1].update(metrics)
        if commit:
            self.run.rows.append({})

    def finish(self, exit_code: int) -> None:
        self.run.exit_code = exit_code
        self.run = None


@pytest.fixture
def board(monkeypatch: pytest.MonkeyPatch) -> Board:
    board = Board()
    monkeypatch.setitem(sys.modules, "wandb", board)
    return board


def test_validation_test_and_losses_arrive_under_our_names(world: World, board: Board) -> None:
    result = train(world, "LightGCN_RLMRecCon", log_wandb=True, wandb_project="shop", epochs=3)
    [run] = board.runs
    valid = [row for row in run.rows if "valid_step" in row]
    assert {f"valid/{name}": value for name, value in result.best_valid_result.items()}.items() <= valid[
        result.best_epoch
    ].items()
    assert {f"test/{name}": value for name, value in result.test_result.items()}.items() <= run.summary.items()
    losses = [row for row in run.rows if "train_step" in row]
    assert [row["train_step"] for row in losses] == [0, 1, 2]
    assert {"train/loss/bpr", "train/loss/reg", "train/loss/alignment"} <= losses[0].keys()
    assert run.given["project"] == "shop" and run.given["name"] == "LightGCN_RLMRecCon-tiny"
    assert run.given["config"]["epochs"] == 3 and run.exit_code == 0


def test_each_training_is_a_run(world: World, board: Board) -> None:
    """A base is not mixed with the aligned model."""
    train(world, "LightGCN_RLMRecCon", log_wandb=True, base_first=True)
    assert [run.given["config"]["model"] for run in board.runs] == ["LightGCN", "LightGCN_RLMRecCon"]
    assert [sum("valid_step" in row for row in run.rows) for run in board.runs] == [2, 2]


def test_a_run_that_was_begun_before_is_used_and_left_open(world: World, board: Board) -> None:
    board.init(project="mine")
    train(world, "LightGCN", log_wandb=True)
    [run] = board.runs
    assert board.run is run and "test/recall@20" in run.summary


def test_a_training_that_fails_ends_its_run(world: World, board: Board) -> None:
    with pytest.raises(TrainingError):
        train(world, "LightGCN", log_wandb=True, learning_rate=1e30)
    assert board.run is None and board.runs[0].exit_code == 1


def test_a_training_that_is_ended_by_what_watches_it_has_not_failed(world: World, board: Board) -> None:
    with pytest.raises(StoppedError), run_of_board(world.config("LightGCN", log_wandb=True)):
        raise StoppedError
    assert board.run is None and board.runs[0].exit_code == 0


def test_a_run_that_cannot_begin(world: World, board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**given: Any) -> None:
        raise RuntimeError("api_key not configured")

    monkeypatch.setattr(board, "init", refuse)
    with pytest.raises(SettingError, match=r"could not begin a run \(RuntimeError: api_key not configured\)\. Log in"):
        train(world, "LightGCN", log_wandb=True)


def test_nothing_is_reported_that_nobody_asked_for(world: World, board: Board) -> None:
    train(world, "LightGCN")
    assert board.runs == []
