"""Lists for the users of a large model: users a second beside ``torch.topk`` on the same blocks, and peak memory.

    python benchmarks/recommend.py --threads 2 --output benchmarks/results-cpu.md

Representations are random. Ours are whole lists as tables of ids: seen items left out, equal scores in the order of the
ids. ``torch.topk`` is called on the same products, in the same blocks, and returns numbers of columns. Peak memory is
that of a fresh process, with PyTorch and the tables of all users and items in it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np
import timing
import torch

from recbole_rlmrec.data.loader import ItemLists
from recbole_rlmrec.model.scores import ProductScorer
from recbole_rlmrec.recommend.ranking import Ranking
from recbole_rlmrec.recommend.recommender import lists_frame

MB = 10**6
#: Between two seen items of a user; has no factor in common with usual numbers of items.
STRIDE = 7919


def main(given: Sequence[str] | None = None) -> int:
    """Measure both in turn, and the memory of each in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timing.add_arguments(parser, rounds=3)
    parser.add_argument("--users", type=int, default=10**6)
    parser.add_argument("--items", type=int, default=10**5)
    parser.add_argument("--dimension", type=int, default=64)
    parser.add_argument("--seen", type=int, default=20, help="items that each user has already")
    parser.add_argument("--sample", type=int, default=20_000, help="users that get lists")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--memory", type=float, default=256.0, help="of a block, MB")
    arguments = timing.parse(parser, given)
    work = candidates(arguments)
    seconds = timing.alternate(work, arguments.rounds, warmup=0)
    peaks = [timing.in_fresh_process(peak, name, arguments) for name in work]
    rows = [
        [
            name,
            timing.spread([arguments.sample / each for each in seconds[name]], 1),
            timing.times(timing.ratio(seconds[name], seconds["torch.topk"])),
            timing.number(peak_bytes / MB),
        ]
        for name, peak_bytes in zip(work, peaks)
    ]
    explanation = (
        f"{arguments.users:,} users, {arguments.items:,} items, {arguments.dimension} values each, "
        f"{arguments.seen} seen items of each user; lists of {arguments.k} for {arguments.sample:,} users, "
        f"in blocks of {block_size(arguments):,}."
    )
    header = ["lists", "users a second", "time", "peak memory, MB"]
    timing.report(__file__, "Recommendations", [explanation, timing.table(header, rows)], arguments)
    return 0


def tables(arguments: argparse.Namespace) -> tuple[torch.Tensor, torch.Tensor]:
    """Return representations of users and of items; row 0 is nobody's."""
    generator = torch.Generator().manual_seed(0)
    sizes = arguments.users + 1, arguments.items + 1
    users, items = (torch.randn(size, arguments.dimension, generator=generator) for size in sizes)
    return users, items


def block_size(arguments: argparse.Namespace) -> int:
    """Return how many users are in a block."""
    scorer = ProductScorer(torch.empty(1, 1), torch.empty(arguments.items, 1))
    return Ranking(scorer, arguments.k, None, None, arguments.memory, "").n_users


def candidates(arguments: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return what makes lists of the sample, by name."""
    users, items = tables(arguments)
    scorer = ProductScorer(users, items[1:])
    generator = np.random.default_rng(0)
    # Different items of each user, without a second table of their size.
    keys = generator.integers(0, arguments.items, (arguments.users, 1)) + np.arange(arguments.seen) * STRIDE
    keys %= arguments.items
    keys += np.arange(1, arguments.users + 1)[:, None] * (arguments.items + 1) + 1
    keys.sort(axis=1)
    seen_lists = ItemLists(keys.ravel(), np.arange(arguments.users + 1), arguments.items + 1)
    tokens = [
        np.array([f"{side}{row}" for row in range(size + 1)], dtype=object)
        for side, size in (("u", arguments.users), ("i", arguments.items))
    ]
    titles = np.full(arguments.items + 1, None, dtype=object)
    asked = np.sort(generator.choice(np.arange(1, arguments.users + 1), arguments.sample, replace=False))
    ranking = Ranking(scorer, arguments.k, None, seen_lists, arguments.memory, "random")

    def ours() -> int:
        return sum(len(lists_frame(block, *tokens, titles)) for block in ranking.blocks(asked))

    def plain() -> int:
        blocks = torch.from_numpy(asked).split(ranking.n_users)
        return sum(len(scorer.block(block, 0, arguments.items).topk(arguments.k).indices) for block in blocks)

    return {"ours": ours, "torch.topk": plain}


def peak(name: str, arguments: argparse.Namespace) -> int:
    """Return the most bytes that this process has had when the lists are made."""
    candidates(arguments)[name]()
    return timing.peak_resident()


if __name__ == "__main__":
    raise SystemExit(main())
