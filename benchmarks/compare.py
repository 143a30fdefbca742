"""Train several models with several seeds and print a table of mean and standard deviation.

    python benchmarks/compare.py --dataset ml-100k --seeds 2020 2021 2022 --output results/ml-100k

Each run is a process of its own and leaves a JSON file in the output folder; runs whose file is there are not run
again, so a stopped comparison goes on where it was. Settings after ``--`` go to every run. A folder holds one
comparison: dataset, settings and versions are written there and must stay the same. Where the dataset's split is frozen
(`recbole-rlmrec split`, `build-semantics`) all runs have it; where it is not, each seed has a split of its own.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.registry import ALIGNMENTS, BACKBONES, get_model

SCRIPT = Path(__file__).resolve().parents[1] / "run_recbole_rlmrec.py"
DEFAULT_MODELS = [backbone + variant for backbone in BACKBONES for variant in ("", *ALIGNMENTS)]
METRICS = ("recall@20", "ndcg@20")


def main() -> int:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--models", nargs="+", default=DEFAULT_MODELS, metavar="MODEL")
    parser.add_argument("--seeds", nargs="+", type=int, default=[2020, 2021, 2022])
    parser.add_argument("--output", type=Path, required=True, help="folder of the runs' JSON files and the table")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; set OMP_NUM_THREADS with it")
    parser.add_argument("settings", nargs="*", help="-- --name=value ..., given to every run")
    arguments = parser.parse_args()
    try:
        for model in arguments.models:
            get_model(model)
    except SettingError as error:
        parser.error(str(error))
    arguments.output.mkdir(parents=True, exist_ok=True)
    conditions = {
        "dataset": arguments.dataset,
        "settings": arguments.settings,
        "python": platform.python_version(),
        **{name: version(name) for name in ("recbole-rlmrec", "recbole", "torch", "numpy")},
    }
    _keep_conditions(arguments.output / "conditions.json", conditions)
    runs = [(model, seed) for seed in arguments.seeds for model in arguments.models]

    with ThreadPoolExecutor(arguments.jobs) as pool:
        failed = [run for run, status in zip(runs, pool.map(lambda run: _train(arguments, *run), runs)) if status]
    if failed:
        print(f"failed: {failed}", file=sys.stderr)
        return 1
    table = _table(arguments, conditions)
    with atomic_path(arguments.output / "README.md") as temporary:
        temporary.write_text(table, encoding="utf-8")
    print(table)
    return 0


def _keep_conditions(path: Path, conditions: dict[str, Any]) -> None:
    """Write the conditions of a comparison, or stop if the folder's runs were made under others."""
    if path.exists():
        stored = json.loads(path.read_text(encoding="utf-8"))
        differing = sorted(key for key in stored | conditions if stored.get(key) != conditions.get(key))
        if differing:
            sys.exit(
                f"{path.parent} holds runs under other conditions ({', '.join(differing)}); choose another --output"
            )
    elif any(path.parent.glob("*-*.json")):
        sys.exit(f"{path.parent} holds runs of unknown conditions; choose another --output")
    else:
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(conditions, indent=1) + "\n", encoding="utf-8")


def _result_path(arguments: argparse.Namespace, model: str, seed: int) -> Path:
    path: Path = arguments.output / f"{model}-{seed}.json"
    return path


def _train(arguments: argparse.Namespace, model: str, seed: int) -> int:
    path = _result_path(arguments, model, seed)
    if path.exists():
        return 0
    command = [sys.executable, str(SCRIPT), f"--model={model}", f"--dataset={arguments.dataset}", f"--seed={seed}"]
    command += ["--show_progress=False", f"--result_file={path}", *arguments.settings]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
    print(f"{model} seed {seed}: {'failed' if done.returncode else 'done'}", flush=True)
    return done.returncode


def _table(arguments: argparse.Namespace, conditions: dict[str, Any]) -> str:
    threads = os.environ.get("OMP_NUM_THREADS")
    command = f"OMP_NUM_THREADS={threads} " if threads else ""
    command += f"python benchmarks/compare.py --dataset {arguments.dataset} --models {' '.join(arguments.models)} "
    command += f"--seeds {' '.join(map(str, arguments.seeds))} --output {arguments.output}"
    if arguments.settings:
        command += f" -- {' '.join(arguments.settings)}"
    versions = ", ".join(f"{name} {value}" for name, value in conditions.items() if name not in ("dataset", "settings"))
    seeds = f"over {len(arguments.seeds)} seeds" if len(arguments.seeds) > 1 else "of one seed"
    measure = "test results, mean ± standard deviation" if len(arguments.seeds) > 1 else "test results"
    lines = [
        f"# {arguments.dataset}: {measure} {seeds}",
        "",
        f"`{command}`",
        "",
        f"{_dates(arguments)}, {versions}, CPU. Seconds are of training with validation, on a machine that did other "
        "work as well: no measure of speed.",
        "",
        "| model | Recall@20 | NDCG@20 | valid Recall@20 | best epoch | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for model in arguments.models:
        results = [json.loads(_result_path(arguments, model, seed).read_text()) for seed in arguments.seeds]
        columns = [mean_std([result["test_result"][metric] for result in results]) for metric in METRICS]
        valid = [result["best_valid_result"] for result in results]
        columns.append(mean_std([result["recall@20"] for result in valid]) if all(valid) else "")
        columns.append("/".join(str(result["best_epoch"]) for result in results))
        columns.append(f"{statistics.mean(result['seconds'] for result in results):.0f}")
        lines.append(f"| {model} | " + " | ".join(columns) + " |")
    return "\n".join(lines) + "\n"


def _dates(arguments: argparse.Namespace) -> str:
    """Return the day, or the first and last day, on which the runs were written."""
    paths = [_result_path(arguments, model, seed) for model in arguments.models for seed in arguments.seeds]
    days = sorted({datetime.date.fromtimestamp(path.stat().st_mtime).isoformat() for path in paths})
    return days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"


def mean_std(values: list[float]) -> str:
    """Return what a table says of some values."""
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


if __name__ == "__main__":
    sys.exit(main())
