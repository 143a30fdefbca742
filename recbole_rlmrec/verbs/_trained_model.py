"""Which trained model a verb works with: a checkpoint, or the newest one of a model on a dataset."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recbole_rlmrec.arguments import path, take_settings
from recbole_rlmrec.errors import SettingError

if TYPE_CHECKING:
    from recbole_rlmrec.recommend.recommender import Recommender


def add_trained_model(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that say which one it is, and settings, which lie over those of its training."""
    take_settings(parser)
    parser.add_argument("--checkpoint", type=path, metavar="FILE", help="of the trained model")
    parser.add_argument("--model", "-m", metavar="MODEL", help="its newest checkpoint, with --dataset, instead")
    parser.add_argument("--dataset", "-d", metavar="NAME", help="see --model")
    parser.add_argument(
        "--checkpoint_dir", default="saved", type=path, metavar="DIR", help="where it is looked for (%(default)s)"
    )


def require_one_model(arguments: argparse.Namespace) -> None:
    """Check that one model is asked for.

    Raises:
        SettingError: none is, or two are.
    """
    by_name = [arguments.model is not None, arguments.dataset is not None]
    if any(by_name) == (arguments.checkpoint is not None) or any(by_name) != all(by_name):
        raise SettingError("Give --checkpoint=FILE, or both --model and --dataset, whose newest checkpoint is taken.")


def loaded(arguments: argparse.Namespace, **options: Any) -> Recommender:
    """Load the model that was asked for.

    Args:
        arguments: which :func:`require_one_model` accepts.
        options: of :meth:`~recbole_rlmrec.recommend.recommender.Recommender.load`.

    Raises:
        RLMRecError: see there.
    """
    from recbole_rlmrec.recommend.recommender import Recommender

    return Recommender.load(chosen(arguments), config_dict=arguments.settings, **options)


def chosen(arguments: argparse.Namespace) -> Path:
    """Return the checkpoint that was asked for.

    Args:
        arguments: which :func:`require_one_model` accepts.

    Raises:
        CheckpointError: there is none of this model and dataset.
    """
    from recbole_rlmrec.training.checkpoint import newest_checkpoint
    from recbole_rlmrec.training.comparison import state_of

    if arguments.checkpoint is not None:
        return Path(arguments.checkpoint)
    newest = newest_checkpoint(arguments.model, arguments.dataset, arguments.checkpoint_dir)
    state = state_of(newest)
    # Another training may have written it than one thinks.
    print(f"checkpoint: {newest}{f' ({state})' if state else ''}", file=sys.stderr)
    return newest
