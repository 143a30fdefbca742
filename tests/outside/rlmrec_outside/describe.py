"""Say how many users and items a dataset has, and how many interactions are for training."""

import argparse

from recbole_rlmrec.arguments import add_dataset_arguments, dataset_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset_arguments(parser)
    parser.add_argument("--titles", action="store_true", help="list the items' titles, too")


def run(arguments: argparse.Namespace) -> int:
    from recbole_rlmrec.text.load import load_corpus

    corpus = load_corpus(dataset_config(arguments))
    print(f"{len(corpus.users)} users, {len(corpus.items)} items, {len(corpus.training)} training interactions")
    if arguments.titles:
        print(*(item.title for item in corpus.items.values()), sep="\n")
    return 0
