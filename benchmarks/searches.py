"""Print what several searches found as a table, each aligned model beside its base.

    python benchmarks/searches.py results/steam-tuned/steam-text --runs results/steam-tuned/runs

Reads `<folder>/<Model>/trials.jsonl`, as `--tune` leaves them. The best trial is the one of the best validation score;
its test results are shown because they are recorded, not chosen by. With `--trials N`, only the first N trials of each
search count, so that models whose searches went on for longer are compared with the same effort.

With `--runs`, a second table has the mean and the standard deviation of runs with the best settings and other seeds,
`<runs>/<Model>-<seed>.json` as `--result_file` leaves them; the best trial stands for its seed where no run does. Runs
with other settings than the best trial's, such as those from before a better one was found, are named and left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timing

from recbole_rlmrec.experiment.table import mean_std

METRICS = ("recall@20", "ndcg@20")


def best_trials(folder: Path, first: int | None = None) -> dict[str, tuple[dict[str, Any], int]]:
    """Return model -> the best trial of its search (of its `first` ones, where given) and the number of trials.

    A model none of whose trials has a score is left out.
    """
    found = {}
    for path in sorted(folder.glob("*/trials.jsonl")):
        trials = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        trials = [trial for trial in trials if first is None or trial["number"] <= first]
        done = [trial for trial in trials if trial["score"] is not None]
        if done:
            found[path.parent.name] = max(done, key=lambda trial: trial["score"]), len(trials)
    return found


def rows_of(found: dict[str, tuple[dict[str, Any], int]]) -> list[list[str]]:
    """Return a row per model, bases before what is built on them."""
    rows = []
    for model, (trial, n_trials) in sorted(found.items(), key=lambda entry: entry[0].split("_")):
        base = found.get(model.split("_")[0])
        cells = [model, str(n_trials), f"{trial['score']:.4f}"]
        for metric in METRICS:
            value = trial["test_result"][metric]
            gain = "" if base is None or base[0] is trial else f" ({value / base[0]['test_result'][metric] - 1:+.1%})"
            cells.append(f"{value:.4f}{gain}")
        rows.append([*cells, str(trial["best_epoch"]), ", ".join(f"{k} {v}" for k, v in trial["parameters"].items())])
    return rows


def seeds_of(found: dict[str, tuple[dict[str, Any], int]], runs: Path) -> tuple[list[list[str]], list[str]]:
    """Return a row per model that has runs of several seeds, and the files of runs that are left out."""
    results: dict[str, dict[int, dict[str, float]]] = {}
    left_out = []
    for model, (trial, _) in found.items():
        results[model] = {trial["settings"]["seed"]: trial["test_result"]}
        for path in sorted(runs.glob(f"{model}-*.json")):
            seed = path.stem[len(model) + 1 :]
            if not seed.isdigit():
                continue
            run = json.loads(path.read_text(encoding="utf-8"))
            if {**run["settings"], "seed": 0} == {**trial["settings"], "seed": 0}:
                results[model][int(seed)] = run["test_result"]
            else:
                left_out.append(path.name)
    means = {
        model: {metric: statistics.mean(result[metric] for result in by_seed.values()) for metric in METRICS}
        for model, by_seed in results.items()
    }
    rows = []
    for model, by_seed in sorted(results.items(), key=lambda entry: entry[0].split("_")):
        if len(by_seed) == 1:
            continue
        cells = [model, ", ".join(map(str, sorted(by_seed)))]
        for metric in METRICS:
            base = means.get(model.split("_")[0], means[model])[metric]
            gain = "" if base == means[model][metric] else f" ({means[model][metric] / base - 1:+.1%})"
            cells.append(mean_std([result[metric] for result in by_seed.values()]) + gain)
        rows.append(cells)
    return rows, left_out


def main(given: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with a folder per model")
    parser.add_argument("--runs", type=Path, help="folder of runs with other seeds")
    parser.add_argument("--trials", type=int, help="count the first so many trials of each search (default: all)")
    arguments = parser.parse_args(given)
    found = best_trials(arguments.folder, arguments.trials)
    if not found:
        parser.error(f"'{arguments.folder}' holds no <Model>/trials.jsonl with a trial that has a score")
    header = ["model", "trials", "valid Recall@20", "Recall@20", "NDCG@20", "best epoch", "best settings"]
    print(timing.table(header, rows_of(found)))
    without = sorted({path.parent.name for path in arguments.folder.glob("*/trials.jsonl")} - found.keys())
    if without:
        print(f"\nNo trial that counts has a score, and left out: {', '.join(without)}.")
    if arguments.runs is not None:
        rows, left_out = seeds_of(found, arguments.runs)
        print("\n" + timing.table(["model", "seeds", "Recall@20", "NDCG@20"], rows))
        if left_out:
            print(f"\nNot of the best trial's settings, and left out: {', '.join(left_out)}. Make them again.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
