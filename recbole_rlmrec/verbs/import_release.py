"""Turn RLMRec's released files into a dataset.

The authors' split and vectors become RecBole's files; of their pickles nothing but arrays is read.

Example:
    recbole-rlmrec import-release --source data/amazon --dataset amazon-book
"""

from __future__ import annotations

import argparse

from recbole_rlmrec.arguments import add_dataset_folder, path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    from recbole_rlmrec.known_datasets import RELEASE_NAMES

    parser.add_argument(
        *("--source", "--raw"), required=True, type=path, metavar="DIR", help="folder with trn_mat.pkl and its siblings"
    )
    parser.add_argument("--dataset", "-d", required=True, metavar="NAME", help="RecBole's name of the dataset to write")
    add_dataset_folder(parser)
    parser.add_argument(
        "--item-map", type=path, metavar="FILE", help='JSON lines such as {"iid": 0, "asin": "0373730489"}'
    )
    parser.add_argument(
        "--user-map", type=path, metavar="FILE", help='JSON lines such as {"uid": 0, "reviewerID": "A2PDSDPB"}'
    )
    parser.add_argument("--release-name", choices=RELEASE_NAMES, help="the release's own name, which picks the id maps")


def run(arguments: argparse.Namespace) -> int:
    """Import as the arguments say and print the summary.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.sources.release.import_release`.
    """
    from recbole_rlmrec.sources.release import import_release

    names = ("source", "dataset", "item_map", "user_map", "release_name")
    print(import_release(output=arguments.data_path, **{name: getattr(arguments, name) for name in names}))
    return 0
