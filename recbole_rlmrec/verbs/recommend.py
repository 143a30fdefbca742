"""Recommend items to users by a trained model: lists with titles, on the screen or in a file.

What a user has in the training or validation data is left out, as in the test. Settings, such as --data_path or
--use_gpu, are given as --name=value, over those of the training.

Example:
    recbole-rlmrec recommend --model=LightGCN_RLMRecCon --dataset=ml-100k --users=196,22 --k=5
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from recbole_rlmrec.arguments import path
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.sides import Side
from recbole_rlmrec.verbs._trained_model import add_trained_model, loaded, require_one_model

if TYPE_CHECKING:
    import pandas as pd

    from recbole_rlmrec.recommend.new_items import NewUser
    from recbole_rlmrec.recommend.output import IdsOfFile
    from recbole_rlmrec.recommend.recommender import Recommender

#: Arguments that are files of ids -> whose ids.
_FILES_OF_IDS: dict[str, Side] = {"users_file": "user", "only_items": "item", "without_items": "item"}
#: So many rows are explained before they are written.
_ROWS = 1000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    add_trained_model(parser)
    users = parser.add_argument_group("users, one of these")
    users.add_argument("--users", metavar="IDS", help="their ids, separated by commas")
    users.add_argument("--users-file", type=path, metavar="FILE", help="their ids, one a line")
    users.add_argument("--all-users", action="store_true", help="every user of the dataset")
    users.add_argument(
        "--new-users",
        type=path,
        metavar="FILE",
        help='users without training, JSON lines: {"token": "a", "items": ["50"]} or {"token": "b", "text": "..."}',
    )
    text = parser.add_argument_group("a sentence, alone or mixed with the users")
    text.add_argument("--query", metavar="TEXT", help="what is looked for, such as 'space battles and aliens'")
    text.add_argument(
        "--query-weight", type=float, metavar="W", help="of the sentence beside a user, from 0 to 1 (0.3)"
    )
    items = parser.add_argument_group("items")
    items.add_argument("--k", type=int, default=10, metavar="N", help="items of each user (%(default)s)")
    items.add_argument("--include-seen", action="store_true", help="also items that the user has already")
    items.add_argument("--only-items", type=path, metavar="FILE", help="choose from these only, one id a line")
    items.add_argument("--without-items", type=path, metavar="FILE", help="leave these out, one id a line")
    items.add_argument(
        "--new-items",
        type=path,
        metavar="FILE",
        help="items that nobody has seen, ranked with the others: JSON lines as in items.jsonl, or .npy and .tokens of "
        "vectors by the dataset's encoder",
    )
    items.add_argument(
        "--cold-items",
        choices=["trained", "text"],
        default="trained",
        help="what represents items of the dataset without a training interaction: what they were initialised with, "
        "or their text (%(default)s)",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="of each item, the user's training items nearest to it by the model and by the text, and its profile",
    )
    parser.add_argument(
        "--output", type=path, metavar="FILE", help=".csv, .tsv, .jsonl or .parquet; without it, a table on the screen"
    )
    parser.add_argument("--memory", type=float, default=256.0, metavar="MB", help="of a block of scores (%(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Recommend, and write or print the lists.

    Raises:
        RLMRecError: see :class:`recbole_rlmrec.recommend.recommender.Recommender`.
        OSError: the output cannot be written.
    """
    from recbole_rlmrec.recommend.new_items import read_new_items, read_new_users
    from recbole_rlmrec.recommend.output import check_output, read_ids, screen_lines, write_lists
    from recbole_rlmrec.recommend.recommender import require_k, require_memory

    # What can be wrong is found out before the model is loaded.
    require_k(arguments.k)
    require_memory(arguments.memory)
    _require_one_of_each(arguments)
    if arguments.output is not None:
        check_output(arguments.output)
    named = {name: getattr(arguments, name) for name in _FILES_OF_IDS}
    files = {name: read_ids(file) for name, file in named.items() if file is not None}
    users = _typed_users(arguments.users)
    new_items = read_new_items(arguments.new_items) if arguments.new_items is not None else None
    new_users = read_new_users(arguments.new_users) if arguments.new_users is not None else None
    recommender = loaded(arguments, memory=arguments.memory)
    if arguments.cold_items == "text":
        recommender.represent_cold_items()
    if new_items is not None:
        recommender.add_items(*new_items)
    frames = _lists(recommender, arguments, users, files, new_users)
    if arguments.output is not None:
        print(f"{write_lists(arguments.output, frames):,} rows in '{arguments.output}'")
        return 0
    for number, frame in enumerate(frames):
        for line in list(screen_lines(frame))[1 if number else 0 :]:
            print(line)
    return 0


def _require_one_of_each(arguments: argparse.Namespace) -> None:
    """Check that one model and one kind of users, or a query without users, are asked for.

    Raises:
        SettingError: none is, or several are; or an option needs users or a query.
    """
    require_one_model(arguments)
    given = (arguments.users, arguments.users_file, arguments.new_users)
    n_users = sum(each is not None for each in given) + arguments.all_users
    if n_users > 1 or (n_users == 0 and arguments.query is None):
        raise SettingError(
            "Give one of --users=ID,ID, --users-file=FILE, --all-users and --new-users=FILE; or --query=TEXT without "
            "any."
        )
    if arguments.query is not None and arguments.new_users is not None:
        raise SettingError("--query is mixed with users who were trained: leave out --new-users.")
    if arguments.query_weight is not None and (arguments.query is None or n_users == 0):
        raise SettingError(
            "--query-weight says how a query is mixed with users: give --query=TEXT and --users=ID, too."
        )
    if arguments.explain and (n_users == 0 or arguments.new_users is not None):
        raise SettingError("--explain shows users' training items: give --users=ID, or leave it out.")


def _typed_users(text: str | None) -> list[str] | None:
    """Return the ids of ``--users``; None without it.

    Raises:
        SettingError: there is none.
    """
    if text is None:
        return None
    users = [user for user in text.split(",") if user]
    if not users:
        raise SettingError(f"--users='{text}': expected ids, separated by commas.")
    return users


def _lists(
    recommender: Recommender,
    arguments: argparse.Namespace,
    users: list[str] | None,
    files: Mapping[str, IdsOfFile],
    new_users: list[NewUser] | None,
) -> Iterator[pd.DataFrame]:
    """Yield the lists, some users at a time, with a bar where a person waits for a file.

    Args:
        recommender: of the model.
        arguments: the parsed command line.
        users: ids that were typed; None for those of a file, or all.
        files: what the files hold that are named by ``_FILES_OF_IDS``.
        new_users: users without training, in the place of the others; None for none.

    Raises:
        DataError: the dataset does not have an id; with the line of the file.
    """
    from tqdm import tqdm

    from recbole_rlmrec.model.arrays import ids_of

    dataset = recommender.dataset
    for name, (ids, where) in files.items():
        if _FILES_OF_IDS[name] == "item":
            recommender.item_ids(ids, where)
        else:
            ids_of(dataset, "user", ids, where)
    listed = {name: ids for name, (ids, _) in files.items()}
    users = listed.get("users_file", users)
    options: dict[str, Any] = {
        "k": arguments.k,
        "include_seen": arguments.include_seen,
        "only_items": listed.get("only_items"),
        "without_items": listed.get("without_items"),
    }
    if new_users is not None:
        yield recommender.recommend_newcomers(new_users, **options)
        return
    if arguments.query is None:
        frames = recommender.recommend_blocks(users, **options)
    else:
        frames = _answers(recommender, arguments, users, options)
    is_watched = arguments.output is not None and sys.stderr is not None and sys.stderr.isatty()
    n_users = dataset.user_num - 1 if users is None else len(users)
    with tqdm(total=n_users, unit="user", disable=not is_watched, dynamic_ncols=True) as bar:
        for frame in frames:
            if arguments.explain:
                for first in range(0, len(frame), _ROWS):
                    yield recommender.explained(frame[first : first + _ROWS])
            else:
                yield frame
            bar.update(int((frame["rank"] == 1).sum()))


def _answers(
    recommender: Recommender, arguments: argparse.Namespace, users: list[str] | None, options: Mapping[str, Any]
) -> Iterator[pd.DataFrame]:
    """Yield the list of each user for the query, or one list for the query alone.

    Args:
        recommender: of the model.
        arguments: the parsed command line.
        users: ids; None for all, or without users.
        options: further ones of :meth:`~recbole_rlmrec.recommend.recommender.Recommender.query`.
    """
    from recbole_rlmrec.model.arrays import ids_of, tokens_of

    if users is None and not arguments.all_users:
        yield recommender.query(arguments.query, **options)
        return
    if arguments.query_weight is not None:
        options = {**options, "weight": arguments.query_weight}
    if users is None:
        users = tokens_of(recommender.dataset, "user").tolist()
    ids_of(recommender.dataset, "user", users)  # one that is not known is named before the first list
    for user in users:
        frame = recommender.query(arguments.query, user=user, **options)
        frame.insert(0, "user", user)
        yield frame
