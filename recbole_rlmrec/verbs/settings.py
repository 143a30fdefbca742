"""List every setting with its default, its values and what it does.

With the name of a model only that model's are listed, with the defaults that it has. With the name of a setting only
that one is.

Example:
    recbole-rlmrec settings LightGCN_RLMRecCon
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a model or a setting; all settings without it")
    parser.add_argument("--markdown", action="store_true", help="as a table of Markdown")


def run(arguments: argparse.Namespace) -> int:
    """Print the settings and return the exit status.

    Raises:
        SettingError: there is no model and no setting of the name.
    """
    from recbole_rlmrec.verbs._settings_table import markdown_table, plain_list

    print(markdown_table(arguments.name) if arguments.markdown else plain_list(arguments.name))
    return 0
