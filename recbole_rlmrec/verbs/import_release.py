"""Turn RLMRec's released files into a dataset, fetching them first if asked to.

The authors' split and vectors become RecBole's files; of their pickles nothing but arrays is read.

Example:
    recbole-rlmrec import-release --download amazon
"""

from __future__ import annotations

import argparse

from recbole_rlmrec.arguments import add_dataset_folder, path
from recbole_rlmrec.wording import printable


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    from recbole_rlmrec.known_datasets import RELEASE_NAMES, RELEASE_URL

    parser.add_argument("--download", choices=RELEASE_NAMES, help="fetch the files of a dataset of the release first")
    parser.add_argument("--url", default=RELEASE_URL, help="of the release's archive, or of a copy of it (%(default)s)")
    parser.add_argument(
        *("--source", "--raw"),
        type=path,
        metavar="DIR",
        help="folder with trn_mat.pkl and its siblings (rlmrec-release/NAME, where fetched)",
    )
    parser.add_argument("--dataset", "-d", metavar="NAME", help="RecBole's name of the dataset to write")
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
        RLMRecError: see :func:`recbole_rlmrec.sources.release.import_release` and
            :func:`recbole_rlmrec.sources.download.fetch_release`.
    """
    from recbole_rlmrec.errors import SettingError
    from recbole_rlmrec.known_datasets import DATASET_RELEASES
    from recbole_rlmrec.sources.download import fetch_release
    from recbole_rlmrec.sources.release import import_release

    release = arguments.download
    if release is not None:
        names = {of_release: name for name, of_release in DATASET_RELEASES.items()}
        arguments.dataset = arguments.dataset or names[release]
        arguments.release_name = arguments.release_name or release
        arguments.source = fetch_release(release, arguments.source or f"rlmrec-release/{release}", arguments.url)
    for name in ("source", "dataset"):
        if getattr(arguments, name) is None:
            raise SettingError(f"--{name} is missing. Give it, or fetch a dataset with --download NAME.")
    given = {name: getattr(arguments, name) for name in ("source", "dataset", "item_map", "user_map", "release_name")}
    print(printable(str(import_release(output=arguments.data_path, **given))))
    return 0
