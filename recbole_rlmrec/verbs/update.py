"""Take new interactions into a dataset, and let the training of a checkpoint go on with them.

They are appended to the dataset and to its frozen split, in which the known interactions stay where they are. Profiles
whose training interactions changed are written and encoded again, by the writer and the encoder that the dataset has.
Then the model is trained for a few epochs more from the checkpoint, whose rows are joined by id, and written as another
checkpoint. The dataset's files as they were stay beside it, with .before-update at the end of their names. The same
command finishes an update that was stopped. Settings are given as --name=value, over those of the checkpoint.

Example:
    recbole-rlmrec update --checkpoint=saved/LightGCN_RLMRecCon-shop-....pth --interactions=new.inter
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from recbole_rlmrec.arguments import path, take_settings
from recbole_rlmrec.errors import DataError
from recbole_rlmrec.sides import Side

#: How a training goes on: it is near its end already, so few epochs do, and patience is short.
_SCHEDULE: Mapping[str, Any] = {
    "epochs": 10,
    "eval_step": 1,
    "stopping_step": 3,
    "patience_steps": 0,
    "base_first": False,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    take_settings(parser)
    parser.add_argument("--checkpoint", required=True, type=path, metavar="FILE", help="of the trained model")
    parser.add_argument(
        "--interactions",
        required=True,
        type=path,
        metavar="FILE",
        help="the new ones, a file with the first line of the dataset's .inter file",
    )
    parser.add_argument(
        "--items", type=path, metavar="FILE", help="texts of new items, or new texts of known ones, as in items.jsonl"
    )


def run(arguments: argparse.Namespace) -> int:
    """Update the dataset, its profiles and embeddings, and the model; 1 says that profiles are still to come.

    Raises:
        CheckpointError: the checkpoint is missing or damaged.
        DataError: a file is missing, malformed or of another dataset; or there is nothing new.
        RLMRecError: see :func:`recbole_rlmrec.semantics.build_semantics` and :func:`recbole_rlmrec.quick_start.run`.
    """
    from recbole_rlmrec.config import RLMRecConfig
    from recbole_rlmrec.files import only_one
    from recbole_rlmrec.training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(arguments.checkpoint)
    settings = _settings(checkpoint, arguments)
    config = RLMRecConfig(checkpoint["model"], checkpoint["dataset"], config_dict=settings)
    folder = Path(config.data_folders[0])
    folder.mkdir(parents=True, exist_ok=True)
    others = (
        f"Another process updates '{checkpoint['dataset']}' in '{folder}' now. Wait until it has ended, or end it: the "
        "same command finishes what it began."
    )
    with only_one(folder / f".{checkpoint['dataset']}.update.lock", others):
        return _update(arguments, checkpoint, settings, config)


def _update(
    arguments: argparse.Namespace, checkpoint: Mapping[str, Any], settings: Mapping[str, Any], config: Any
) -> int:
    """Do what :func:`run` says, while no other process does.

    Args:
        arguments: the parsed command line.
        checkpoint: what it names.
        settings: of the training that goes on.
        config: made of them.
    """
    from recbole_rlmrec import quick_start
    from recbole_rlmrec.sides import SIDES
    from recbole_rlmrec.sources.growth import grow
    from recbole_rlmrec.training.checkpoint import unpacked_ids

    known_ids = {side: unpacked_ids(checkpoint, side) for side in SIDES} if checkpoint.get("ids") else None
    words = _words_to_build(config)
    items = None if arguments.items is None else Path(arguments.items)
    texts = None if words is None else _build_arguments(words)
    growth = grow(config, Path(arguments.interactions), items, texts=texts, known_ids=known_ids)
    print(growth, flush=True)
    if not growth.n_added and not growth.n_texts:
        _require_unfinished(checkpoint, config, arguments.checkpoint)
    status = 0 if words is None else _build(words, growth.touched)
    if status:
        print("The model is not updated. When profiles and embeddings are complete, run the same command again.")
        return status
    result = quick_start.run(checkpoint["model"], checkpoint["dataset"], config_dict=settings, report=_print)
    if result is not None and result.start is not None and result.best_valid_result is not None:
        metric = str(config["valid_metric"]).lower()
        before, after = result.start["valid"][metric], result.best_valid_result[metric]
        _print(f"{metric} on the same validation: {before:.4f} before, {after:.4f} after: {result.checkpoint}")
    return 0


def _print(text: str) -> None:
    print(text, flush=True)


def _settings(checkpoint: Mapping[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the training that goes on: the checkpoint's that are not the defaults, and ours."""
    from recbole_rlmrec.config import RLMRecConfig
    from recbole_rlmrec.data.frozen import RECBOLES_SPLIT

    stored, given = checkpoint["settings"], arguments.settings
    defaults = RLMRecConfig(checkpoint["model"], checkpoint["dataset"]).settings
    changed = {key: value for key, value in stored.items() if key not in defaults or defaults[key] != value}
    if isinstance(changed.get("eval_args"), dict):  # how to split is the frozen split's affair
        changed["eval_args"] = {key: each for key, each in changed["eval_args"].items() if key not in RECBOLES_SPLIT}
    ours = {
        **_SCHEDULE,
        "init_from": arguments.checkpoint,
        "resume_from": None,
        "result_file": None,
        "checkpoint_dir": str(Path(arguments.checkpoint).parent),
    }
    return {**{key: value for key, value in changed.items() if key not in ("model", "dataset")}, **ours, **given}


def _require_unfinished(checkpoint: Mapping[str, Any], config: Any, path: str) -> None:
    """Check, where nothing is new, that the checkpoint has not seen all there is: an update was stopped then.

    Raises:
        DataError: it has.
    """
    from recbole_rlmrec.data.preparation import create_dataset

    training = create_dataset(config).build()[0]
    if all(checkpoint["data"].get(name) == value for name, value in _present_data(training, config).items()):
        raise DataError(
            f"Nothing is new: the dataset has all of these interactions and texts already, and '{path}' was trained on "
            "it. Give a file with later interactions."
        )
    print("The dataset has them already, and the checkpoint does not know all of it: the training goes on.")


def _present_data(training: Any, config: Any) -> dict[str, str]:
    """Return the hashes of what a training would have; of embeddings an empty one where they are not up to date."""
    from recbole_rlmrec.data.dataset import fingerprint

    try:
        return fingerprint(training, with_embeddings=config.reads_semantic_embeddings)
    except DataError:
        return {**fingerprint(training, with_embeddings=False), "user embeddings": ""}


def _words_to_build(config: Any) -> list[str] | None:
    """Return the arguments of ``build-semantics`` that make the dataset's embeddings again; None where it made none.

    Raises:
        DataError: it made them, in a way that is not recorded or by an encoder that was tuned on the dataset; or there
            are none of the name that is asked for.
    """
    from recbole_rlmrec.data.embedding_files import chosen_prefix, read_metadata
    from recbole_rlmrec.data.frozen import encode_again, write_again

    metadata = read_metadata(config.data_folders, chosen_prefix(config))
    if metadata is None or "writer" not in metadata:
        return None
    is_usual = metadata["writer"] == "template" and str(metadata.get("encoder")).startswith("lsa:")
    if not metadata.get("options") and not is_usual:
        raise DataError(
            f"The embeddings of '{config['dataset']}' are by {metadata.get('encoder')} from profiles by "
            f"{metadata['writer']}, and how they were made is not recorded, so they cannot be brought up to date. Make "
            f"them once on the command line, with {write_again(config, metadata)}."
        )
    if metadata.get("encoder_train_sha256"):
        raise DataError(
            f"The embeddings of '{config['dataset']}' are by {metadata['encoder']}, which was tuned on the training "
            "interactions that there are, so it would be of another training split than the updated one. Encode with "
            f"a model that was not tuned on them, with {encode_again(config, metadata, 'MODEL')}."
        )
    command = config.command("build-semantics", *(metadata.get("options") or ()), "--overwrite")
    return shlex.split(command)[2:]


def _parser() -> argparse.ArgumentParser:
    from recbole_rlmrec.verbs import build_semantics
    from recbole_rlmrec.verbs._command import OF_VERBS, filled

    return filled(argparse.ArgumentParser(prog="recbole-rlmrec build-semantics", **OF_VERBS), build_semantics)


def _build_arguments(words: list[str]) -> Any:
    """Return the configuration with which ``build-semantics`` reads texts."""
    from recbole_rlmrec.arguments import dataset_config, parse_settings

    known, rest = _parser().parse_known_args(words)
    known.settings = parse_settings(rest)
    return dataset_config(known)


def _build(words: list[str], changed: Mapping[Side, Collection[str]]) -> int:
    """Bring profiles and embeddings up to date, of those who changed and of those who have none."""
    from recbole_rlmrec.verbs._command import run as run_verb

    parser = _parser()
    parser.set_defaults(changed=changed)
    return run_verb(parser, words)
