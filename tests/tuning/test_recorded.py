"""The recorded search on ml-100k says what its records hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.model.registry import get_model
from recbole_rlmrec.tuning.search import fixed_settings
from recbole_rlmrec.tuning.space import find_space, key_of, read_space

ROOT = Path(__file__).resolve().parents[2]
RESULTS, TUNED = ROOT / "results/tuning-ml-100k", ROOT / "properties/tuned"


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


STEAM = RESULTS.parent / "steam-tuned"
FIXED = {"defaults": "published", "eval_protocol": "paper", "tuned": False, "train_batch_size": 4096}
FIXED.update({"epochs": 3000, "seed": 2023, "leakage": "warn"})
STRUCTURE = {
    "DCCF": {"item_contrast_divisor": "items"},
    "AutoCF": {"decoder_rows": "exact"},
    "BPR": {"embedding_size": 32},
}


@pytest.mark.parametrize("model", sorted(path.name for path in (STEAM / "steam-text").iterdir()))
def test_the_searches_on_steam_go_on_with_their_commands(model: str, tmp_path: Path) -> None:
    """`results/steam-tuned/commands.sh` prints the commands whose settings are put together here."""
    base, _, ending = model.partition("_")
    files = [path for path in [TUNED / "steam" / f"{base}.yaml"] if path.is_file()]
    if ending.startswith("RLMRec"):
        files.append(STEAM / "steam-text" / base / "best.yaml")
    structure = {} if ending == "KAR" else STRUCTURE.get(base, {})
    config = RLMRecConfig(model, "steam-text", files, command_line={**FIXED, **structure})
    recorded = json.loads((STEAM / "steam-text" / model / "conditions.json").read_text())
    path = tmp_path / "recorded.hyper"
    path.write_text("".join(f"{name} {text}\n" for name, text in recorded["space"].items()))
    assert fixed_settings(config, read_space(path)) == recorded["settings"]


def test_what_pruning_saves_is_what_the_records_hold() -> None:
    folder = RESULTS.parent / "tuning-optuna"
    readme = (folder / "README.md").read_text()
    best, n_pruned = [], []
    for kind in ("full", "pruned"):
        trials = [json.loads(line) for line in (folder / kind / "trials.jsonl").read_text().splitlines()]
        conditions = json.loads((folder / kind / "conditions.json").read_text())
        assert conditions["space"] == read_space(folder / "space.hyper").texts
        assert (conditions["tool"], conditions["prune"], len(trials)) == ("optuna", kind == "pruned", 12)
        best.append(max((trial for trial in trials if trial["score"] is not None), key=lambda trial: trial["score"]))
        n_pruned.append(sum(trial["pruned"] is not None for trial in trials))
    cells = [f"{trial['score']:.4f} (trial {trial['number']})" for trial in best]
    assert f"| best valid Recall@20 | {' | '.join(cells)} |" in readme
    tests = [f"{trial['test_result']['recall@20']:.4f}" for trial in best]
    assert f"| test Recall@20 of that trial | {' | '.join(tests)} |" in readme
    assert f"| trials pruned | {' | '.join(f'{n} of 12' for n in n_pruned)} |" in readme
