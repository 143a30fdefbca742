"""The same search with Ray Tune; its workers are processes of their own, so it trains in earnest."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import World
from test_search import recorded, search

from recbole_rlmrec.quick_start import run
from recbole_rlmrec.tuning.journal import Journal, Trial
from recbole_rlmrec.tuning.proposal import Proposals
from recbole_rlmrec.tuning.space import key_of, read_space
from recbole_rlmrec.tuning.trial import Task


def observed(function: Callable[[], None], addresses: set[str]) -> Callable[[], None]:
    """Return a function that notes, before it does its work, where this process's children listen."""

    def call() -> None:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended meanwhile listens nowhere
                addresses.update(link.laddr.ip for link in child.net_connections() if link.status == psutil.CONN_LISTEN)
        function()

    return call


def test_ray_tries_the_same_and_finds_the_same(world: World, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers side by side; one trial diverges; what was recorded before is not run again."""
    import ray  # takes seconds

    space = "learning_rate choice [0.01, 1e30, 0.02, 0.03, 0.04]\n"
    arguments: dict[str, Any] = {"models": "LightGCN_RLMRecCon", "settings": {"seed": 3}}
    search(world, space, output="one", **arguments)
    expected = recorded("LightGCN_RLMRecCon", "one")

    # As a search with Ray that was stopped after its second trial would be left.
    search(world, space, output="two", max_evals=2, **arguments)
    conditions = Path("two/tiny/LightGCN_RLMRecCon/conditions.json")
    conditions.write_text(conditions.read_text().replace('"tool": "hyperopt"', '"tool": "ray"'))
    begun = recorded("LightGCN_RLMRecCon", "two")
    addresses: set[str] = set()
    monkeypatch.setattr(ray, "shutdown", observed(ray.shutdown, addresses))
    [found] = search(world, space, tool="ray", jobs=2, output="two", **arguments)
    assert addresses <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"} and addresses
    assert not ray.is_initialized()
    trials = recorded("LightGCN_RLMRecCon", "two")
    assert trials[:2] == begun
    assert sorted(trial["number"] for trial in trials) == [1, 2, 3, 4, 5]

    by_parameters = {key_of(trial["parameters"]): {**trial, "number": None} for trial in trials}
    assert by_parameters == {key_of(trial["parameters"]): {**trial, "number": None} for trial in expected}
    assert (found.n_trials, found.n_failed) == (5, 1)
    assert sorted(path.name for path in Path("two").rglob("*.pth")) == ["best.pth"]
    assert not list(Path("two").rglob(".ray-of-trials"))

    again = run(found.model, found.dataset, [found.settings_file], {"use_gpu": False})
    assert again is not None and again.best_valid_score == found.best.score
    assert again.test_result == found.best.test_result


class _Searching:
    """As much of a search as Ray's view of it needs."""

    def __init__(self, folder: Path) -> None:
        (folder / "a.hyper").write_text("x choice [1, 2, 3, 4]\n")
        self.budget = 4
        self.journal = Journal(folder, {})
        self.proposals = Proposals(read_space(folder / "a.hyper"), "exhaustive", 1)
        self.recorded: list[Trial] = []

    def record(self, trial: Trial, checkpoint: str | None) -> None:
        self.recorded.append(trial)
        self.journal.add(trial, checkpoint)


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (None, r"process of trial 1 \(\{'x': 1\}\) died, perhaps for want of memory"),
        ({"fatal": "OSError: [Errno 28] No space left on device"}, "No space left on device"),
    ],
)
def test_what_the_machine_ended_is_not_recorded(tmp_path: Path, result: Any, said: str) -> None:
    """No trial begins after it; those that run are recorded; the next search repeats it."""
    from recbole_rlmrec.tuning import ray_tool

    searching: Any = _Searching(tmp_path)
    proposing = ray_tool._Proposing(searching)
    first, second = proposing.suggest("a"), proposing.suggest("b")
    proposing.on_trial_complete("a", result, error=result is None)
    assert proposing.fatal is not None and re.search(said, proposing.fatal)
    assert proposing.suggest("c") == ray_tool.Searcher.FINISHED
    done = Trial(second["number"], second["parameters"], 1.0, {}, 0.5)
    proposing.on_trial_complete("b", {"trial": json.dumps(asdict(done)), "checkpoint": None})
    assert searching.recorded == [done]
    assert ray_tool._Proposing(searching).suggest("d") == first


def test_a_worker_tells_faults_of_the_machine_from_failed_trials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recbole_rlmrec.tuning import ray_tool

    task = Task("LightGCN", "tiny", (), {}, {}, tmp_path, "ERROR", 1)
    raised: Any = RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def run(*_: Any, **__: Any) -> None:
        raise raised

    monkeypatch.setattr("recbole_rlmrec.tuning.trial.run", run)
    found = ray_tool._run_in_worker(task, 1, {"x": 1}, tmp_path / "checkpoints")
    assert found == {"fatal": f"RuntimeError: {raised}"}
    raised = RuntimeError("shapes differ")
    found = ray_tool._run_in_worker(task, 1, {"x": 1}, tmp_path / "checkpoints")
    assert json.loads(found["trial"])["error"] == "RuntimeError: shapes differ"
