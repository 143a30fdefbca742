"""Serve a trained model on this machine: recommendations over HTTP, and a page to look at.

A newer checkpoint of the same name is taken while requests go on. With the environment variable RECBOLE_RLMREC_TOKEN
requests have to name its value. Settings, such as --data_path or --use_gpu, are given as --name=value, over those of
the training. Needs pip install 'recbole-rlmrec[serve]'.

Example:
    recbole-rlmrec serve --model=LightGCN_RLMRecCon --dataset=ml-100k
"""

from __future__ import annotations

import argparse

from recbole_rlmrec.arguments import path
from recbole_rlmrec.errors import SettingError
from recbole_rlmrec.verbs._trained_model import add_trained_model, chosen, require_one_model


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    add_trained_model(parser)
    parser.add_argument(
        "--compare-with",
        type=path,
        metavar="FILE",
        help="checkpoint whose lists stand beside; that of the base which the training left, if not given",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="HOST", help="address to listen at (%(default)s: this machine only)"
    )
    parser.add_argument(
        "--port", type=int, default=8000, metavar="N", help="to listen at; 0 for any free (%(default)s)"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes, each with the model (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Serve until the process is ended.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.recommend.service.running.serve`.
    """
    from recbole_rlmrec.extras import require_package

    require_one_model(arguments)
    if arguments.workers < 1:
        raise SettingError(f"--workers={arguments.workers}: expected at least 1.")
    for package in ("fastapi", "uvicorn"):
        require_package(package, "serve", "'recbole-rlmrec[serve]'")
    from recbole_rlmrec.recommend.service.running import Address, serve

    serve(
        chosen(arguments),
        Address(arguments.host, arguments.port, arguments.workers),
        compare_with=arguments.compare_with,
        settings=arguments.settings,
        report=lambda line: print(line, flush=True),
    )
    return 0
