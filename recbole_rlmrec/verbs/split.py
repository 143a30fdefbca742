"""Make the split of a dataset and freeze it.

Every training of the dataset uses the frozen split, whatever its seed, and so do build-semantics and check. Without
--ratios, --by-time or --leave-one-out the split is what a training without a frozen one would have: eval_args, or the
split_file that is named. It lies beside the dataset as NAME.split.json.

Example:
    recbole-rlmrec split --dataset shop --by-time --ratios 8:1:1
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_rlmrec.arguments import add_dataset_arguments, dataset_config, warn_of_seed
from recbole_rlmrec.errors import DataError, SettingError

if TYPE_CHECKING:
    import numpy as np

_RATIOS = (8, 1, 1)
#: No dataset has more interactions; the sum of larger shares may be infinite.
_LARGEST_SHARE = 10**12

#: Usual names of a column with the time, in lower case.
_TIME_NAMES = ("timestamp", "time", "date", "datetime", "unixtime", "unix_time", "unixreviewtime", "rating_time")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    add_dataset_arguments(parser)
    parser.add_argument(
        "--ratios",
        metavar="A:B:C",
        help="shares of training, validation and test: at random within each user, or with --by-time (8:1:1)",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--by-time", action="store_true", help="the earliest of all interactions for training, the latest for the test"
    )
    kind.add_argument(
        "--leave-one-out",
        action="store_true",
        help="each user's last interaction for the test, the one before for validation; at random without times",
    )
    parser.add_argument(
        "--cold-items",
        type=float,
        metavar="SHARE",
        help="withhold this share of the items from training: all their interactions are for the test, to measure "
        "what is recommended of new items; the others are split as usual",
    )
    parser.add_argument("--seed", type=int, metavar="N", help="of a split at random, and of the withheld items (2020)")
    parser.add_argument("--no-valid", action="store_true", help="what would be for validation is for training")
    parser.add_argument("--no-test", action="store_true", help="what would be for the test is for training")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="also where profiles were written from another split, or a file of your own is there",
    )


def run(arguments: argparse.Namespace) -> int:
    """Make the split, freeze it, and print its sizes.

    Raises:
        DataError: a file of the dataset is missing or malformed, a part would be empty, or profiles were written from
            another split.
        SettingError: an option or a setting cannot be used.
    """
    from recbole.utils import init_seed

    from recbole_rlmrec.data.dataset import RLMRecDataset, training_sha256_of
    from recbole_rlmrec.data.embedding_files import read_metadata, table_prefix
    from recbole_rlmrec.data.frozen import frozen_name, write_again
    from recbole_rlmrec.data.split import SPLIT_NAMES

    without = {name for name, left_out in (("valid", arguments.no_valid), ("test", arguments.no_test)) if left_out}
    if arguments.seed is not None:
        arguments.settings = {**arguments.settings, "seed": arguments.seed}
    asked = dataset_config(arguments)
    metadata = read_metadata(asked.data_folders, table_prefix(asked)) or {}
    remedy = write_again(asked, metadata, without=("eval_args", "split_file"))
    config = _config(arguments, asked, without)
    cold_items = _cold_items(arguments.cold_items, without)
    init_seed(config["seed"], config["reproducibility"])
    dataset = RLMRecDataset(config, split_use="renew")
    if dataset.is_split_in_data:
        raise SettingError(
            f"The split of '{arguments.dataset}' is {dataset.split_origin}; there is nothing to make. To disregard it, "
            "give --split_field=~ or --benchmark_filename=~."
        )
    codes = dataset.draw_split([name for name in SPLIT_NAMES if name in without], cold_items)
    path = Path(config.data_folders[0]) / frozen_name(arguments.dataset)
    recorded = _recorded(path, overwrite=arguments.overwrite)
    has_codes = path.is_file() and dataset.is_drawn_as(path)
    source = dataset.recipe.source if dataset.recipe is not None else ""
    is_there = has_codes and (str(recorded) == dataset.split_origin or source == path.name)
    stale = _stale(config, training_sha256_of(dataset, codes))
    if not is_there:
        if not arguments.overwrite:
            _refuse_stale(stale, dataset.split_origin, remedy)
            if path.is_file() and recorded is None and not has_codes:
                raise DataError(
                    f"'{path}' holds a split that does not say how it was made, so this command could not make it "
                    "again. Move it away, or give --overwrite to replace it."
                )
        dataset.write_split(path)
    print(f"split of {arguments.dataset}: {dataset.split_origin}, {'already ' if is_there else ''}in {path}")
    print(_sizes(dataset, codes))
    if stale:
        print(f"Made from another split: {stale}. To write again what is stale: {remedy}.")
    return 0


def _recorded(path: Path, *, overwrite: bool) -> Any:
    """Return how the frozen split was made; None where there is none, or one to replace that does not say it.

    Raises:
        DataError: the file is no split, and is not to be replaced.
    """
    from recbole_rlmrec.data.frozen import SplitRecipe

    if not path.is_file():
        return None
    try:
        return SplitRecipe.of_file(path)
    except DataError as error:
        if overwrite:
            return None
        raise DataError(f"{error} Or replace it by the split that this command makes: give --overwrite.") from error


def _config(arguments: argparse.Namespace, asked: Any, without: set[str]) -> Any:
    """Return the configuration whose ``eval_args`` are what the options ask for.

    Args:
        arguments: the parsed command line.
        asked: the configuration without these options.
        without: parts that are for training; takes those whose share is 0 as well.
    """
    is_named = asked["split_file"] is not None and "split_file" in asked.external_config_dict
    options = [name for name in ("ratios", "by_time", "leave_one_out") if getattr(arguments, name)]
    ways = [f"--{name.replace('_', '-')}" for name in options if name != "ratios" or not arguments.by_time]
    ways += ["eval_args"] * bool(asked.asked_split) + ["split_file"] * is_named
    if len(ways) > 1:
        raise SettingError(f"{' and '.join(ways)} both say how to split. Leave one of them out.")
    if not options:
        # What the dataset's property file names is not what is asked for.
        arguments.settings = {**arguments.settings, **({"split_file": None} if asked.asked_split else {})}
        return dataset_config(arguments)
    settings: dict[str, Any] = {"split_file": None}
    ratios = _ratios(arguments.ratios, without)
    eval_args: dict[str, Any] = {"split": {"RS": ratios}, "order": "RO", "group_by": "user"}
    time_field = None
    if arguments.by_time or arguments.leave_one_out:
        time_field = _time_field(asked, needed=arguments.by_time)
    if arguments.by_time:
        eval_args.update(order="TO", group_by=None)
    elif arguments.leave_one_out:
        eval_args.update(split={"LS": "valid_and_test"}, order="RO" if time_field is None else "TO")
        if time_field is None:
            print(
                f"{arguments.dataset} has no column of times (TIME_FIELD): one interaction of each user is left out at "
                f"random, by seed {asked['seed']}."
            )
    if time_field is not None:
        if arguments.cold_items is None:
            warn_of_seed(arguments.seed, "--by-time" if arguments.by_time else "--leave-one-out by time")
        settings["TIME_FIELD"] = time_field
        if asked["load_col"] is not None:
            loaded = dict(asked["load_col"])
            loaded["inter"] = list(dict.fromkeys([*(loaded.get("inter") or ()), time_field]))
            settings["load_col"] = loaded
    arguments.settings = {**arguments.settings, **settings, "eval_args": eval_args}
    return dataset_config(arguments)


def _cold_items(share: float | None, without: set[str]) -> float:
    """Check the share of items to withhold; 0 without one.

    Raises:
        SettingError: it is no share, or there is no test to have their interactions.
    """
    if share is None:
        return 0.0
    if not 0 < share < 1:
        raise SettingError(f"--cold-items={share:g}: expected a share of the items above 0 and below 1, such as 0.1.")
    if "test" in without:
        raise SettingError(
            f"--cold-items={share:g} withholds interactions for the test, and there is to be none. Leave out "
            "--no-test, or give the test a share of --ratios."
        )
    return share


def _ratios(text: str | None, without: set[str]) -> list[float]:
    """Read 8:1:1; a share of 0 leaves the part out."""
    if text is None:
        return list(_RATIOS)
    try:
        shares = [float(part) for part in text.split(":")]
    except ValueError:
        shares = []
    if len(shares) != len(_RATIOS) or not all(0 <= share <= _LARGEST_SHARE for share in shares) or not shares[0]:
        raise SettingError(
            f"--ratios={text}: expected the shares of training, validation and test as three numbers, the first above "
            f"0 and none above {_LARGEST_SHARE:,}, such as 8:1:1."
        )
    without.update(name for name, share in zip(("valid", "test"), shares[1:]) if not share)
    return [int(share) if share == int(share) else share for share in shares]


def _time_field(config: Any, *, needed: bool) -> str | None:
    """Return the column of times: ``TIME_FIELD``, or the only one with a usual name; None without one.

    Raises:
        DataError: there is none and one is needed, or it holds no numbers.
    """
    from recbole_rlmrec.data.dataset import inter_columns

    path, columns = inter_columns(config)
    usual = [name for name in columns if name.lower() in _TIME_NAMES]
    named = config["TIME_FIELD"] in columns or "TIME_FIELD" in config.external_config_dict
    found = config["TIME_FIELD"] if named else usual[0] if len(usual) == 1 else None
    if found is None and not needed:
        return None
    kind = columns.get(str(found))
    if kind == "float":
        return str(found)
    problem = f"'{found}' is of the type {kind}" if kind else f"there is no column {found or 'of times'}"
    raise DataError(
        f"'{path}' cannot be split by time: {problem}. Its columns are "
        f"{', '.join(f'{name}:{kind}' for name, kind in columns.items())}; expected one of numbers, such as "
        "timestamp:float. Name it with --TIME_FIELD=NAME."
    )


def _stale(config: Any, train_sha256: str) -> str:
    """Return what was made from another training split, for messages; empty if nothing was."""
    from recbole_rlmrec.data.embedding_files import metadata_path, read_metadata, table_names
    from recbole_rlmrec.profile.record import profiles_path, read_profiles
    from recbole_rlmrec.sides import SIDES

    folder, name = Path(config.data_folders[0]), config["dataset"]
    made_from: dict[Path, set[str]] = {}
    for side in SIDES:
        path = profiles_path(folder, name, side)
        if path.is_file():
            made_from[path] = {profile.train_sha256 for profile in read_profiles(path).values()}
    for prefix in (name, *(f"{name}.{each}" for each in table_names(config.data_folders, name))):
        described = metadata_path(config.data_folders, prefix)
        if described is not None:
            recorded: Mapping[str, Any] = read_metadata(config.data_folders, prefix) or {}
            keys = ("train_sha256", "encoder_train_sha256")
            made_from[described] = {str(recorded.get(key) or "") for key in keys}
    return ", ".join(f"'{path}'" for path, splits in made_from.items() if splits - {"", train_sha256})


def _refuse_stale(stale: str, split: str, remedy: str) -> None:
    """Raise where freezing a split would make profiles stale."""
    if stale:
        raise DataError(
            f"Made from another split than this one ({split}): {stale}. With --overwrite the split is frozen all the "
            "same: the profiles of users whose training interactions change are stale then. To write these again: "
            f"{remedy}."
        )


def _sizes(dataset: Any, codes: np.ndarray) -> str:
    """Say how large the parts are, and who has no training interaction."""
    import numpy as np

    from recbole_rlmrec.data.split import LEFT_OUT, SPLIT_NAMES
    from recbole_rlmrec.wording import count

    sizes = np.bincount(codes, minlength=LEFT_OUT + 1)
    lines = ["  " + ", ".join(f"{name} {size:,}" for name, size in zip(SPLIT_NAMES, sizes))]
    if sizes[LEFT_OUT]:
        lines[0] += f"; {sizes[LEFT_OUT]:,} in no part"
    is_training = codes == SPLIT_NAMES.index("train")
    without = []
    for side, field in (("user", dataset.uid_field), ("item", dataset.iid_field)):
        trained = np.unique(np.asarray(dataset.inter_feat[field])[is_training])
        without.append(count(dataset.num(field) - 1 - len(trained), side))
    return "\n".join([*lines, f"  without a training interaction: {', '.join(without)}"])
