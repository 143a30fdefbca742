"""Check the profiles and embeddings of a dataset.

It says how many ids have an embedding, shows nearest neighbours of some items, and finds what leaked from validation or
test.

Example:
    recbole-rlmrec check --dataset ml-100k
"""

from __future__ import annotations

import argparse

from recbole_rlmrec.arguments import add_dataset_arguments, dataset_config
from recbole_rlmrec.wording import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    add_dataset_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check and print the report; 1 says that something leaked.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.check.report.check`.
    """
    from recbole_rlmrec.check.report import check

    report = check(dataset_config(arguments))
    print(printable(str(report)))
    return int(report.has_leak)
