"""What trainings took."""

from __future__ import annotations

from typing import Any

import pytest
from trainings import train
from worlds import World

from recbole_rlmrec.experiment.efficiency import efficiency_of, efficiency_table, mean_efficiency


def result(seconds: float, ram: int, **more: Any) -> dict[str, Any]:
    return {"seconds": seconds, "peak_memory": {"ram": ram}, "efficiency": {"epochs": 10, "parameters": 1234, **more}}


def test_the_table() -> None:
    found = {
        "A": mean_efficiency([result(10, 2_000_000, seconds_to_best=4.0), result(20, 3_000_000, seconds_to_best=8.0)]),
        "Older": mean_efficiency([{"seconds": 5.0}]),
    }
    assert efficiency_table(found) == [
        ["model", "seconds an epoch", "seconds to the best epoch", "peak memory, CPU (MB)", "parameters"],
        ["A", "1.50", "6.0", "3", "1,234"],
        ["Older", "", "", "", ""],
    ]
    assert efficiency_table({"Older": {}}) == []


def test_what_one_seed_does_not_say_is_not_said() -> None:
    assert "parameters" not in mean_efficiency([result(1, 1), {"seconds": 1.0}])


def test_results_say_it(world: World) -> None:
    found = train(world, "LightGCN", epochs=3)
    said = efficiency_of(found.__dict__)
    n_nodes = 41 + 31  # with [PAD]
    assert said["parameters"] == 8 * n_nodes and said["seconds_per_epoch"] == pytest.approx(found.seconds / 3)
    assert 0 < said["seconds_to_best"] <= found.seconds + 0.01 and said["ram"] > 10
