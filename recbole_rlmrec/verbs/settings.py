"""List every setting with its default, its values and what it does."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    parser.add_argument("--markdown", action="store_true", help="as the table of the README")


def run(arguments: argparse.Namespace) -> int:
    """Print the settings and return the exit status."""
    from recbole_rlmrec.verbs._settings_table import markdown_table, plain_list

    print(markdown_table() if arguments.markdown else plain_list())
    return 0
