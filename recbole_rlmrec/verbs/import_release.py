"""Turn RLMRec's released files into a dataset."""

from __future__ import annotations

import argparse

from recbole_rlmrec.wording import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    from recbole_rlmrec.known_datasets import RELEASE_NAMES

    parser.add_argument("--source", required=True, metavar="DIR", help="folder with trn_mat.pkl and its siblings")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="RecBole's name of the dataset to write")
    parser.add_argument("--output", default="dataset", metavar="DIR", help="folder of RecBole's datasets (%(default)s)")
    parser.add_argument("--item-map", metavar="FILE", help='JSON lines such as {"iid": 0, "asin": "0373730489"}')
    parser.add_argument("--user-map", metavar="FILE", help='JSON lines such as {"uid": 0, "reviewerID": "A2PDSDPB"}')
    parser.add_argument("--release-name", choices=RELEASE_NAMES, help="the release's own name, which picks the id maps")


def run(arguments: argparse.Namespace) -> int:
    """Import as the arguments say and print the summary.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.sources.release.import_release`.
    """
    from recbole_rlmrec.sources.release import import_release

    names = ("source", "dataset", "output", "item_map", "user_map", "release_name")
    print(printable(str(import_release(**{name: getattr(arguments, name) for name in names}))))
    return 0
