"""Count how often the test over users alone finds a "difference" between two seeds of one model.

    recbole-rlmrec compare --dataset=ml-100k --models=LightGCN --seeds=6 --output=pairs
    python benchmarks/seed_pairs.py pairs

Two trainings of one model with other random numbers differ by chance alone. For each model of a comparison, and each
metric: in how many of the pairs of its seeds the paired t-test over users (as in the column "p, users" of a comparison
with one seed) has p < .05. A test that takes the seeds as drawn by chance, too, would do so in 5 % of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from recbole_rlmrec.experiment.lists import BY_USER, RankedLists
from recbole_rlmrec.experiment.significance import LEVEL, users_test
from recbole_rlmrec.experiment.table import markdown


def rows_of(folder: Path) -> list[list[str]]:
    """Return a row for each model and metric of a comparison: seeds, pairs, those that differ, and the least p."""
    found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    rows = []
    for model in (row["model"] for row in found["rows"]):
        paths = [folder / "cells" / f"{model}-{seed}.npz" for seed in found["seeds"]]
        lists = [RankedLists.read(path) for path in paths if path.is_file()]
        for name, by_user in BY_USER.items():
            values = [by_user(each) for each in lists]
            p_values = [users_test((first - second)[None]).p_value for first, second in combinations(values, 2)]
            if p_values:
                differ = sum(p_value < LEVEL for p_value in p_values)
                least = f"{min(p_values):.2g}"
                rows.append([model, f"{name}@{lists[0].k}", str(len(lists)), f"{differ} of {len(p_values)}", least])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="how often the test over users finds that two seeds differ")
    parser.add_argument("folder", type=Path, help="of a comparison")
    rows = rows_of(parser.parse_args(arguments).folder)
    print(markdown([["model", "metric", "seeds", f"pairs with p < {LEVEL:g}", "least p"], *rows]))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
