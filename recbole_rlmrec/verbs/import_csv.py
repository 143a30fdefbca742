"""Turn a shop's own tables (CSV, TSV, JSON lines, Parquet) into a dataset with texts.

Columns are named as in the file's header; separator and encoding are found.

Example:
    recbole-rlmrec import-csv --interactions orders.csv --user customer --item sku --rating stars --min-rating 4
        --time when --items products.csv --title name --text description,brand --dataset shop
"""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_rlmrec.arguments import add_dataset_folder, path, three_shares, warn_of_seed
from recbole_rlmrec.wording import printable

_SEED = 2020


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    from recbole_rlmrec.text.json_lines import MAX_MALFORMED

    add = parser.add_argument
    add("--interactions", required=True, type=path, metavar="FILE", help="who took what")
    add("--user", required=True, metavar="COLUMN", help="of user ids")
    add("--item", required=True, metavar="COLUMN", help="of item ids")
    add("--rating", metavar="COLUMN", help="of ratings")
    add("--min-rating", type=float, metavar="R", help="least rating that counts as liked (all count)")
    add("--time", metavar="COLUMN", help="of dates, or of seconds or milliseconds since 1970")
    add("--time-format", metavar="FORMAT", help="how dates are written, such as %%d/%%m/%%Y, where that cannot be seen")
    add("--review", metavar="COLUMN", help="of the users' words")
    add("--items", type=path, metavar="FILE", help="what the items are")
    add("--item-id", metavar="COLUMN", help="of item ids in the file of items (that of --item)")
    add("--title", metavar="COLUMN", help="of the items' titles")
    add("--text", default="", metavar="COLUMNS", help="other text about the items, columns separated by commas")
    add("--dataset", "-d", required=True, metavar="NAME", help="RecBole's name of the dataset to write")
    add_dataset_folder(parser)
    add("--split", default="random", choices=("random", "time", "leave-one-out"), help="(%(default)s)")
    add("--ratios", default=(8.0, 1.0, 1.0), type=three_shares, metavar="A:B:C", help="of the split's parts (8:1:1)")
    add("--seed", type=int, metavar="N", help=f"of a split at random ({_SEED})")
    add("--k-core", type=int, default=1, metavar="K", help="least interactions of each user and item (%(default)s)")
    add("--separator", metavar="SIGN", help="of CSV files, where it cannot be found")
    add("--encoding", metavar="NAME", help="of CSV files, where it cannot be found")
    add("--max-malformed", type=float, default=MAX_MALFORMED, metavar="F", help="share of malformed rows (%(default)s)")
    add("--overwrite", action="store_true", help="replace a dataset of this name")
    add("--dry-run", action="store_true", help="show how the files would be read, and write nothing")


def run(arguments: argparse.Namespace) -> int:
    """Import as the arguments say, and print the summary and the commands that come next.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.sources.import_csv.import_csv`.
    """
    from recbole_rlmrec.data.embedding_files import has_embeddings
    from recbole_rlmrec.sources.import_csv import Tables, import_csv, preview
    from recbole_rlmrec.sources.prepare import Choice

    if arguments.split != "random":
        warn_of_seed(arguments.seed, f"--split {arguments.split}")
    names = ["interactions", "user", "item", "rating", "time", "review", "items", "item_id", "title"]
    names += ["time_format", "separator", "encoding"]
    columns = tuple(name.strip() for name in arguments.text.split(",") if name.strip())
    given = {name: getattr(arguments, name) for name in names}
    given["interactions"] = Path(arguments.interactions)
    given["items"] = Path(arguments.items) if arguments.items else None
    tables = Tables(text=columns, **given)
    choice = Choice(
        k_core=arguments.k_core,
        seed=_SEED if arguments.seed is None else arguments.seed,
        min_rating=arguments.min_rating,
        shares=arguments.ratios,
        split=arguments.split,
    )
    if arguments.dry_run:
        print(printable(preview(tables, choice)))
        return 0
    summary = import_csv(
        tables,
        arguments.dataset,
        arguments.data_path,
        choice,
        max_malformed=arguments.max_malformed,
        show_progress=True,
        overwrite=arguments.overwrite,
    )
    print(printable(str(summary)))
    place = "" if arguments.data_path == "dataset" else f" --data_path={arguments.data_path}"
    of_dataset = f"--dataset={arguments.dataset}{place}"
    if tables.items is None:
        print(f"next: recbole-rlmrec train --model=LightGCN {of_dataset}")
        print("Texts of the items, by --items FILE with --title and --text, let a model be aligned with them.")
        return 0
    again = " --overwrite" if has_embeddings(Path(arguments.data_path) / arguments.dataset, arguments.dataset) else ""
    print(f"next: recbole-rlmrec build-semantics --dataset {arguments.dataset}{place} --encoder lsa{again}")
    print(f"then: recbole-rlmrec train --model=LightGCN_RLMRecCon {of_dataset}")
    return 0
