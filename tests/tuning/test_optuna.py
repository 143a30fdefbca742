"""Searches with Optuna: what it proposes, which trials are ended early, and trials side by side."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
import psutil
import pytest
import torch
from conftest import World
from test_search import QUICK, REPOSITORY, Trainings, recorded, search, trainings

from recbole_rlmrec.errors import MachineError, SettingError
from recbole_rlmrec.training.launch import HAS_NO_MAIN_GUARD
from recbole_rlmrec.training.stopping import Validation
from recbole_rlmrec.tuning import workers
from recbole_rlmrec.tuning.journal import Journal, Point, Pruned, Trial
from recbole_rlmrec.tuning.optuna_tool import OptunaProposals
from recbole_rlmrec.tuning.pruning import LEAST_VALIDATIONS, WARM_UP, best_at, is_behind
from recbole_rlmrec.tuning.running import Running
from recbole_rlmrec.tuning.space import read_space
from recbole_rlmrec.tuning.trial import Task

__all__ = ["trainings"]

# ---------------------------------------------------------------------- what is proposed


def proposals(tmp_path: Path, space: str) -> OptunaProposals:
    (tmp_path / "a.hyper").write_text(space)
    return OptunaProposals(read_space(tmp_path / "a.hyper"), "tpe", 1)


def trial(number: int, x: float, **found: Any) -> Trial:
    return Trial(number, {"x": x}, 1.0, {}, **found)


@pytest.mark.parametrize(
    "line",
    ["choice ['a', 1, 1.0, [1, 2]]", "uniform -1,2", "loguniform -800,-3", "quniform 1,5,2", "quniform 0.1,0.7,0.1"],
)
def test_what_is_proposed_lies_in_the_space_and_can_be_recorded(tmp_path: Path, line: str) -> None:
    proposing = proposals(tmp_path, f"x {line}\n")
    trials: list[Trial] = []
    for number in range(1, 13):
        found = proposing.propose(number, trials)
        if found is not None:
            proposing.space.check_choice(found)
            trials.append(trial(number, found["x"], score=number / 20))
    assert len(trials) == min(proposing.space.size or 12, 12)


def test_pruned_and_running_trials_are_learnt_from(tmp_path: Path) -> None:
    proposing = proposals(tmp_path, "x uniform 0,1\n")
    good = [trial(number, number / 100, score=0.5) for number in range(1, 9)]
    high = [0.7, 0.8, 0.9]
    pruned = [trial(9 + at, x, pruned=Pruned(1, 10, 0.1)) for at, x in enumerate(high)]
    known = [proposing.propose(number, [*good, *pruned])["x"] for number in range(20, 40)]  # type: ignore[index]
    pending = [proposing.propose(number, good, [{"x": x} for x in high])["x"] for number in range(20, 40)]  # type: ignore[index]
    unknown = [proposing.propose(number, good)["x"] for number in range(20, 40)]  # type: ignore[index]
    assert statistics.mean(known) < 0.8 * statistics.mean(unknown)
    assert statistics.mean(pending) < 0.8 * statistics.mean(unknown)


# ---------------------------------------------------------------------- which trials are ended


def finished(*curve: tuple[int, float]) -> Trial:
    return trial(1, 0.5, score=curve[-1][1], curve=[Point(*point) for point in curve])


@pytest.mark.parametrize("is_bigger_better", [True, False])
def test_the_rule_is_that_of_optuna_s_median_pruner(tmp_path: Path, is_bigger_better: bool) -> None:
    journal = Journal(tmp_path, {}, is_bigger_better=is_bigger_better)
    direction = "maximize" if is_bigger_better else "minimize"
    pruner = optuna.pruners.MedianPruner(n_startup_trials=WARM_UP)
    study = optuna.create_study(direction=direction, pruner=pruner)
    keep = np.maximum if is_bigger_better else np.minimum
    curves = keep.accumulate(np.random.default_rng(3).integers(0, 1000, (30, 6)) / 1000, axis=1).tolist()
    found, expected = [], []
    for curve in curves:
        asked = study.ask()
        for steps, best in enumerate(curve):
            asked.report(best, steps)
            expected.append(asked.should_prune())
            found.append(is_behind(steps, best, journal.trials, journal.gain))
        study.tell(asked, curve[-1])
        points = [Point(steps, best) for steps, best in enumerate(curve) if steps == 0 or best != curve[steps - 1]]
        journal.trials.append(trial(1, 0.5, score=curve[-1], curve=points))
    assert found == expected
    assert 40 < sum(found) < 120


def test_a_trial_that_ended_earlier_counts_with_its_last_score() -> None:
    trials = [finished((10, 0.1), (20, score)) for score in (0.2, 0.3, 0.4, 0.5)]
    assert [is_behind(1000, best, trials, float) for best in (0.34, 0.35)] == [True, False]
    assert [is_behind(19, best, trials, float) for best in (0.09, 0.1)] == [True, False]
    assert not is_behind(9, 0.0, trials, float)  # none had been validated by then
    others = [trial(1, 0.5, error="failed"), trial(1, 0.5, pruned=Pruned(1, 10, 0.1), curve=[Point(10, 0.1)])]
    assert not is_behind(1000, 0.0, [*trials[1:], *others], float)


def grow(made: Trainings, *, until: float, on_plateau: int = 0, n: int = 10) -> float:
    """Report a curve that grows evenly; its first validations are on the plateau."""
    for epoch in range(n):
        is_last = epoch == n - 1
        made.watch(Validation(epoch, 10 * (epoch + 1), until * (epoch + 1) / n, epoch < on_plateau, is_last))
    return until


def test_a_trial_behind_is_pruned(
    world: World, trainings: Callable[..., Trainings], capsys: pytest.CaptureFixture[str]
) -> None:
    """Not at first, nor on the plateau; what is pruned is recorded, and says how far it came."""
    scores = iter([0.1, 0.2, 0.3, 0.4, 0.24, 0.5, 0.2])
    made = trainings(lambda settings: grow(made, until=next(scores), on_plateau=7 if len(made.tried) == 7 else 0))
    [found] = search(world, "reg_weight uniform 0,1\n", tool="optuna", max_evals=7)
    trials = recorded()
    assert [trial["number"] for trial in trials if trial["pruned"]] == [5, 7]
    assert trials[4]["pruned"] == {"epoch": 4, "steps": 50, "score": pytest.approx(0.12)}
    assert trials[6]["pruned"] == {"epoch": 7, "steps": 80, "score": pytest.approx(0.16)}
    assert (trials[6]["score"], trials[6]["error"], trials[6]["test_result"]) == (None, None, None)
    assert trials[3]["curve"][1] == {"steps": 20, "score": pytest.approx(0.08)} and len(trials[3]["curve"]) == 10
    assert (found.n_trials, found.n_failed, found.n_pruned, found.best.number) == (7, 0, 2, 6)
    printed = capsys.readouterr().out
    assert "LightGCN trial 7 of 7: pruned after epoch 7 (Recall@20 0.1600), " in printed
    assert "| trials | failed | pruned |" in printed
    log = Path("saved/tune/tiny/LightGCN/log/LightGCN-tiny-trial-7.log").read_text()
    assert "lies behind others and is ended after epoch 7" in log and "Traceback" not in log
    assert sorted(path.name for path in Path("saved").rglob("*.pth")) == ["best.pth"]


def test_at_its_end_a_trial_is_not_pruned(world: World, trainings: Callable[..., Trainings]) -> None:
    """It has cost what it costs, and its score is known."""
    made = trainings(lambda settings: grow(made, until=1 - len(made.tried) / 10, on_plateau=9))
    [found] = search(world, "reg_weight uniform 0,1\n", tool="optuna", max_evals=6)
    assert found.n_pruned == 0


def test_without_pruning_all_are_trained_to_their_end(world: World, trainings: Callable[..., Trainings]) -> None:
    made = trainings(lambda settings: grow(made, until=1 - len(made.tried) / 10))
    space = "reg_weight uniform 0,1\n"
    [found] = search(world, space, tool="optuna", max_evals=7, prune=False)
    assert (found.n_pruned, found.best.score) == (0, 0.9)
    with pytest.raises(SettingError, match="prune was False and is True"):
        search(world, space, tool="optuna", max_evals=8)


def test_models_are_not_compared_with_each_other(world: World, trainings: Callable[..., Trainings]) -> None:
    made = trainings(lambda settings: grow(made, until=(0.9 if len(made.tried) <= 5 else 0.1) + len(made.tried) / 100))
    found = search(world, "reg_weight uniform 0,1\n", ["LightGCN", "SGL"], tool="optuna", max_evals=5)
    assert [(outcome.n_trials, outcome.n_pruned) for outcome in found] == [(5, 0), (5, 0)]


def test_a_search_goes_on_with_the_curves_of_its_record(world: World, trainings: Callable[..., Trainings]) -> None:
    def score(settings: dict[str, Any]) -> float:
        return grow(made, until=settings["reg_weight"])

    space = "reg_weight uniform 0,1\n"
    made = trainings(score)
    search(world, space, tool="optuna", algorithm="random", max_evals=12, output="whole")
    whole = recorded(output="whole")
    assert 2 < sum(trial["pruned"] is not None for trial in whole) < 8
    for n in (6, 12):
        search(world, space, tool="optuna", algorithm="random", max_evals=n)
    assert recorded() == whole


def test_a_pruned_trial_is_never_the_best(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "search", {})
    with journal.opened():
        journal.add(trial(1, 0.1, pruned=Pruned(3, 40, 0.9), curve=[Point(40, 0.9)]))
        journal.add(trial(2, 0.2, score=0.1))
    again = Journal(tmp_path / "search", {})
    with again.opened():
        assert again.trials == journal.trials
        assert again.best is not None and again.best.number == 2


# ---------------------------------------------------------------------- side by side


def test_two_jobs_find_what_one_finds_and_an_interrupt_ends_them(world: World, one_thread: None) -> None:
    """One trial diverges; that which runs at the interrupt is repeated."""
    space = "learning_rate choice [0.01, 1e30, 0.02]\n"
    arguments: dict[str, Any] = {"models": "LightGCN_RLMRecCon", "tool": "optuna", "algorithm": "exhaustive"}
    search(world, space, output="one", **arguments)
    said: list[str] = []

    def interrupt(text: str) -> None:
        said.append(text)
        if " trial " in text and len(recorded("LightGCN_RLMRecCon", "two")) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(world, space, output="two", jobs=2, report=interrupt, **arguments)
    assert multiprocessing.active_children() == []
    assert said[-1] == "Interrupted after 2 of 3 trials; the same command goes on."
    [found] = search(world, space, output="two", **arguments)
    trials = sorted(recorded("LightGCN_RLMRecCon", "two"), key=lambda trial: trial["number"])
    assert trials == recorded("LightGCN_RLMRecCon", "one")
    assert [len(trial["curve"]) > 0 for trial in trials] == [True, False, True]
    assert (found.n_trials, found.n_failed) == (3, 1)
    assert sorted(path.name for path in Path("two").rglob("*.pth")) == ["best.pth"]


def test_two_jobs_that_are_killed_go_on(world: World, one_thread: None) -> None:
    """Whoever kills the search ends its processes; what they ran is tried again."""
    space = "n_layers choice [1, 2, 3]\nlearning_rate loguniform -6,-3\n"
    settings = {"epochs": 8}
    arguments: dict[str, Any] = {"tool": "optuna", "algorithm": "random", "max_evals": 5, "prune": False}
    search(world, space, settings=settings, output="whole", **arguments)
    command = [sys.executable, str(REPOSITORY / "run_recbole_rlmrec.py"), "--model=LightGCN", "--dataset=tiny"]
    command += ["--tune=space.hyper", "--tool=optuna", "--tune_algo=random", "--max_evals=5", "--jobs=2", "--no-prune"]
    command += [f"--{name}={json.dumps(value)}" for name, value in {**QUICK, **settings}.items()]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    journal = Path("saved/tune/tiny/LightGCN/trials.jsonl")
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while killed.poll() is None and not journal.is_file():
            time.sleep(0.01)
        workers = psutil.Process(killed.pid).children(recursive=True)
    finally:
        killed.kill()
        killed.wait()
    assert len(workers) >= 2 and psutil.wait_procs(workers, timeout=20)[1] == []
    assert len(recorded()) < 5
    search(world, space, settings=settings, **arguments)
    assert sorted(recorded(), key=lambda trial: trial["number"]) == recorded(output="whole")


class _Searching:
    """As much of a search as the trials that run need."""

    def __init__(self, folder: Path) -> None:
        (folder / "a.hyper").write_text("x choice [1, 2, 3, 4]\n")
        self.budget, self.jobs = 4, 2
        self.config, self.task = {"device": torch.device("cpu")}, None
        self.journal = Journal(folder, {})
        self.proposals = OptunaProposals(read_space(folder / "a.hyper"), "exhaustive", 1)

    def record(self, trial: Trial, checkpoint: str | None) -> None:
        self.journal.add(trial, checkpoint)

    def is_behind(self, steps: int, best: float) -> bool:
        return (steps, best) == (30, 0.1)


def test_a_worker_asks_whether_its_trial_is_to_be_ended(tmp_path: Path) -> None:
    searching: Any = _Searching(tmp_path)
    running, (here, there) = Running(searching), multiprocessing.Pipe()
    worker = workers._Worker(SimpleNamespace(), here)
    assert workers._give(worker, running, searching)
    assert there.recv() == (1, {"x": 1}, tmp_path / ".checkpoints-of-trials/1")
    for best, answer in ((0.1, True), (0.2, False)):
        there.send(("validated", (30, best)))
        assert workers._hear(worker, running, searching)
        assert there.recv() is answer


@pytest.mark.parametrize("code", [-9, HAS_NO_MAIN_GUARD])
def test_a_process_that_died_ends_the_search(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trial is not recorded, so that the next search repeats it."""
    searching: Any = _Searching(tmp_path)

    def started(task: Any) -> workers._Worker:
        here, there = multiprocessing.Pipe()
        there.close()
        process = SimpleNamespace(exitcode=code, join=lambda timeout: None, is_alive=lambda: False)
        return workers._Worker(process, here)

    monkeypatch.setattr(workers, "_started", started)
    expected, said = (MachineError, "process of trial 1") if code < 0 else (SettingError, r"jobs=2: .* calls tune\(\)")
    with pytest.raises(expected, match=said):
        workers.run_in_workers(searching)
    assert searching.journal.trials == []
    assert Running(searching).begin("again") == (1, {"x": 1})


def test_each_process_gets_one_of_the_gpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    task = Task("LightGCN", "tiny", (), {}, {"epochs": 1}, tmp_path, "ERROR", 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    given = [workers._on_one_gpu(task, place).command_line for place in range(3)]
    assert given == [{"epochs": 1, "gpu_id": gpu} for gpu in ("4", "6", "4")]


# ---------------------------------------------------------------------- what is counted


def test_validations_of_a_base_are_not_counted(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is asked after the first few of the model, nor after the last."""
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr("recbole_rlmrec.tuning.search.is_behind", lambda steps, best, *_: seen.append((steps, best)))
    space, settings = "learning_rate choice [0.02]\n", {"base_first": True, "epochs": LEAST_VALIDATIONS + 3}
    [found] = search(world, space, "LightGCN_RLMRecCon", tool="optuna", command_line=settings)
    per_epoch = seen[0][0] // LEAST_VALIDATIONS
    assert [steps for steps, _ in seen] == [(LEAST_VALIDATIONS + at) * per_epoch for at in range(3)] and per_epoch > 0
    assert found.best.curve is not None
    assert [best_at(found.best.curve, steps) for steps, _ in seen] == [best for _, best in seen]
    assert found.best.curve[0].steps == per_epoch
