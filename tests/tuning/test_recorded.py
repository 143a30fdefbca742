"""The recorded search on ml-100k says what its records hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.tuning.space import find_space, key_of

RESULTS = Path(__file__).resolve().parents[2] / "results/tuning-ml-100k"


def trials_of(tool: str) -> list[dict[str, Any]]:
    lines = (RESULTS / tool / "trials.jsonl").read_text().splitlines()
    return sorted((json.loads(line) for line in lines), key=lambda trial: trial["number"])


@pytest.mark.parametrize("tool", ["hyperopt", "ray"])
def test_ten_different_trials_of_the_provided_space(tool: str) -> None:
    trials = trials_of(tool)
    assert [trial["number"] for trial in trials] == list(range(1, 11))
    assert len({key_of(trial["parameters"]) for trial in trials}) == 10
    conditions = json.loads((RESULTS / tool / "conditions.json").read_text())
    assert conditions["space"] == find_space("auto", get_model("LightGCN_RLMRecCon")).texts
    assert (conditions["tool"], conditions["tune_algo"]) == (tool, "random")


@pytest.mark.parametrize("tool", ["hyperopt", "ray"])
def test_the_best_trained_to_the_same_result(tool: str) -> None:
    best = max(trials_of(tool), key=lambda trial: trial["score"])
    settings = yaml.safe_load((RESULTS / tool / "best.yaml").read_text())
    assert {name: settings[name] for name in best["parameters"]} == best["parameters"]
    again = json.loads((RESULTS / tool / "best.json").read_text())
    assert again["best_valid_score"] == best["score"]
    for kind in ("valid", "test"):
        assert again["best_valid_result" if kind == "valid" else "test_result"] == best[f"{kind}_result"]


def test_both_tools_found_the_same() -> None:
    one, other = ([{**trial, "seconds": 0} for trial in trials_of(tool)] for tool in ("hyperopt", "ray"))
    assert one == other


def test_the_table_shows_the_records() -> None:
    readme = (RESULTS / "README.md").read_text()
    for trial in trials_of("hyperopt"):
        test = trial["test_result"]
        row = f"{trial['score']:.4f} | {trial['best_epoch']} | {test['recall@20']:.4f} | {test['ndcg@20']:.4f} |"
        assert any(line.startswith(f"| {trial['number']} |") and row in line for line in readme.splitlines())
