"""Prepare a generated raw dump of a given size, and watch time and memory.

    python benchmarks/prepare_dump.py --bytes 2e9 --output benchmarks/results-cpu.md

The dump has the form of Amazon's of 2018: reviews of some hundred characters, a twentieth of the users with so many
that they are in the 10-core, and items with descriptions. It is prepared in a fresh process.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import timing
import workload

from recbole_rlmrec.sources.prepare import prepare

MIB = 2**20
_BLOCK = 10_000
_WORDS = ["a", "the", "of", "it", "was", "good", "book", "story", "plot", "great", "not", "end", "slow", "characters"]


def main(given: Sequence[str] | None = None) -> int:
    """Write the dump, prepare it in a fresh process and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=1)
    parser.add_argument("--bytes", type=float, default=2e9, help="of the file of reviews")
    parser.add_argument("--k_core", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1, help="processes that parse beside the one that reads")
    arguments = timing.parse(parser, given)
    with workload.scratch_folder() as root:
        n_lines, size = write_dump(root, int(arguments.bytes))
        rows = [
            timing.in_fresh_process(measure, root, arguments.k_core, arguments.jobs) for _ in range(arguments.rounds)
        ]
    explanation = (
        f"A generated dump of Amazon's form: {n_lines:,} reviews in {size / MIB:,.0f} MiB, and their items. Peak is of "
        "the whole process that reads, libraries included; the reviews are read twice."
    )
    header = ["k-core", "interactions kept", "seconds", "of the processor", "MiB of reviews a second", "peak, MiB"]
    cells = [
        [f"{arguments.k_core}", f"{kept:,}", *map(timing.number, (seconds, busy, size / MIB / seconds, peak / MIB))]
        for kept, seconds, busy, peak in rows
    ]
    timing.report(__file__, "Preparing a raw dump", [explanation, timing.table(header, cells)], arguments)
    return 0


def write_dump(folder: Path, size: int) -> tuple[int, int]:
    """Write reviews of about ``size`` bytes and their items; return how many reviews and bytes they are."""
    rng = np.random.default_rng(0)
    passages = [" ".join(rng.choice(_WORDS, rng.integers(20, 200))) + " &#34;and&#34;<br />so on." for _ in range(500)]
    n_users, n_items = max(20, size // 2_000), max(20, size // 50_000)
    n_lines = 0
    with (folder / "Books.json").open("w", encoding="utf-8") as stream:
        while stream.tell() < size:
            n_lines += _write_block(stream, rng, passages, n_users, n_items)
    with (folder / "meta_Books.json").open("w", encoding="utf-8") as stream:
        for item in range(n_items):
            about = {"title": f"Book {item}", "description": [passages[item % len(passages)]], "category": ["Books"]}
            stream.write(json.dumps({"asin": f"B{item:09d}", **about}) + "\n")
    return n_lines, (folder / "Books.json").stat().st_size


def _write_block(stream: IO[str], rng: np.random.Generator, passages: list[str], n_users: int, n_items: int) -> int:
    # Half of the reviews are by a twentieth of the users.
    users = np.where(
        rng.random(_BLOCK) < 0.5, rng.integers(0, n_users, _BLOCK), rng.integers(0, n_users // 20 + 1, _BLOCK)
    )
    items, ratings = rng.integers(0, n_items, _BLOCK), rng.integers(1, 6, _BLOCK)
    times, texts = rng.integers(10**9, 15 * 10**8, _BLOCK), rng.integers(0, len(passages), _BLOCK)
    for user, item, rating, when, text in zip(*(column.tolist() for column in (users, items, ratings, times, texts))):
        record = {
            "overall": float(rating),
            "reviewerID": f"A{user:013d}",
            "asin": f"B{item:09d}",
            "reviewText": passages[text],
            "summary": "A summary",
            "unixReviewTime": when,
        }
        stream.write(json.dumps(record) + "\n")
    return _BLOCK


def measure(root: Path, k_core: int, jobs: int) -> tuple[int, float, float, int]:
    """Prepare the dump in this process.

    Returns:
        The interactions kept, the seconds, those of the processors, and the peak memory in bytes.
    """
    timing.reset_peak_resident()
    started, busy = time.perf_counter(), sum(os.times()[:4])
    summary = prepare("amazon", root, "generated", root / "dataset", k_core=k_core, jobs=jobs)
    seconds, busy = time.perf_counter() - started, sum(os.times()[:4]) - busy
    return sum(summary.split), seconds, busy, timing.peak_resident()


if __name__ == "__main__":
    raise SystemExit(main())
