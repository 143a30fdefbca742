"""Export what a trained model represents users and items by, for other programs: vectors with ids, index, projector.

The score of a user and an item is the inner product of their vectors. Settings, such as --data_path or --use_gpu, are
given as --name=value, over those of the training.

Example:
    recbole-rlmrec export --model=LightGCN_RLMRecCon --dataset=ml-100k --output=vectors --projector=projector.pt
"""

from __future__ import annotations

import argparse

from recbole_rlmrec.arguments import path
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.verbs._trained_model import add_trained_model, loaded, require_one_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    add_trained_model(parser)
    parser.add_argument("--output", type=path, metavar="DIR", help="folder of the vectors, which is made if missing")
    parser.add_argument("--format", default="npy", metavar="FORMAT", help="npy, parquet or safetensors (%(default)s)")
    parser.add_argument(
        "--index", metavar="KIND", help="usearch: an approximate index of the items as well, and what it finds"
    )
    parser.add_argument(
        "--projector",
        type=path,
        metavar="FILE",
        help="what maps embeddings of texts to vectors of users and items (RLMRec-Con), as .pt (TorchScript) or .onnx",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(arguments: argparse.Namespace) -> int:
    """Export, and print what was written.

    Raises:
        RLMRecError: see :meth:`recbole_rlmrec.recommend.recommender.Recommender.export`.
        OSError: something cannot be written.
    """
    from recbole_rlmrec.recommend.export import check_export
    from recbole_rlmrec.recommend.projector_file import check_projector

    # What can be wrong is found out before the model is loaded.
    require_one_model(arguments)
    if arguments.output is None and arguments.projector is None:
        raise SettingError("Give --output=DIR for the vectors, --projector=FILE for the projector, or both.")
    if arguments.index is not None and arguments.output is None:
        raise SettingError("--index is written beside the vectors: give --output=DIR as well.")
    check_export(arguments.format, arguments.index)
    if arguments.projector is not None:
        check_projector(arguments.projector, overwrite=arguments.overwrite)
    recommender = loaded(arguments)
    # First, since not every model has one.
    if arguments.projector is not None:
        recommender.export_projector(arguments.projector, overwrite=arguments.overwrite)
        print(f"Projector: {arguments.projector}")
    if arguments.output is not None:
        meta = recommender.export(
            arguments.output, arguments.format, index=arguments.index, overwrite=arguments.overwrite
        )
        print(
            f"{meta['users']:,} users and {meta['items']:,} items, {meta['dimension']} numbers each, in "
            f"'{arguments.output}': {', '.join(meta['files'])}"
        )
        if meta["index"] is not None:
            print(f"Recall@10 of the index against exact search: {meta['index']['recall@10']:.4f}")
    return 0
