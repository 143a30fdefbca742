"""Turn a raw dump, such as Amazon's, Yelp's or Steam's, into a dataset with texts.

Ratings are filtered, rare users and items left out, and the rest is split at random. The same dump and seed give the
same files.

Example:
    recbole-rlmrec prepare --source amazon --raw downloads/books --dataset my-books
"""

from __future__ import annotations

import argparse

from recbole_rlmrec.arguments import add_dataset_folder, path, three_shares
from recbole_rlmrec.resources import n_cores
from recbole_rlmrec.wording import printable

#: More processes than this wait for the one that reads the file.
_MOST_JOBS = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    from recbole_rlmrec.sources.prepare import K_CORE, SEED, SHARES
    from recbole_rlmrec.sources.raw_dump import SOURCES
    from recbole_rlmrec.text.json_lines import MAX_MALFORMED

    parser.add_argument(
        "--source", required=True, choices=tuple(SOURCES), metavar="NAME", help="whose raw dump it is: %(choices)s"
    )
    parser.add_argument("--raw", required=True, type=path, metavar="DIR", help="folder of the raw dump, gzipped or not")
    parser.add_argument("--dataset", "-d", required=True, metavar="NAME", help="RecBole's name of the dataset to write")
    add_dataset_folder(parser)
    parser.add_argument("--reviews", type=path, metavar="FILE", help="the file of reviews, if it has no usual name")
    parser.add_argument("--items", type=path, metavar="FILE", help="the file of items, if it has no usual name")
    parser.add_argument(
        "--k-core", type=int, default=K_CORE, metavar="K", help="interactions of each user and item (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=SEED, help="of the users taken and of the split (%(default)s)")
    parser.add_argument(
        "--user-fraction", type=float, default=1.0, metavar="F", help="share of the users to take (%(default)s)"
    )
    parser.add_argument("--min-rating", type=float, metavar="R", help="least rating that counts (3; Steam has none)")
    parser.add_argument(
        *("--ratios", "--shares"),
        dest="shares",
        type=three_shares,
        default=SHARES,
        metavar="A:B:C",
        help="of training, validation and test (3:1:1); --shares is its former name",
    )
    parser.add_argument("--require-text", action="store_true", help="leave out items without any text")
    parser.add_argument(
        "--max-malformed",
        type=float,
        default=MAX_MALFORMED,
        metavar="F",
        help="share of a file's lines that may be malformed (%(default)s)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=min(_MOST_JOBS, n_cores()),
        metavar="N",
        help=f"processes that parse large files beside this one (one a core, {_MOST_JOBS} at most)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare as the arguments say and print the summary.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.sources.prepare.prepare`.
    """
    from recbole_rlmrec.parts import failures_named
    from recbole_rlmrec.sources.prepare import prepare
    from recbole_rlmrec.sources.raw_dump import SOURCES

    names = ["source", "raw", "dataset", "reviews", "items", "k_core", "seed", "user_fraction", "min_rating"]
    names += ["shares", "require_text", "max_malformed", "jobs"]
    given = {name: getattr(arguments, name) for name in names}
    with failures_named("source", SOURCES.find(arguments.source)):
        print(printable(str(prepare(output=arguments.data_path, **given, show_progress=True))))
    return 0
