"""The same search with Ray Tune; its workers are processes of their own, so it trains in earnest."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import World
from test_search import recorded, search

from recbole_rlmrec.quick_start import run
from recbole_rlmrec.tuning.space import key_of


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
    assert not list(Path("two").rglob("ray"))

    again = run(found.model, found.dataset, [found.settings_file], {"use_gpu": False})
    assert again is not None and again.best_valid_score == found.best.score
    assert again.test_result == found.best.test_result
