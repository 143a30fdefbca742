"""Compare models over several seeds: every one is trained with each, and a table says which differ.

Each training runs in a process of its own and is kept, so that a comparison that was stopped goes on; settings, such as
--learning_rate=0.002, are given as --name=value and hold for all that read them. The folder gets table.md, table.csv,
table.tex, comparison.json, report.md and, with pip install 'recbole-rlmrec[report]', report.html: charts in one file.

Example:
    recbole-rlmrec compare --dataset=ml-100k --models=LightGCN,LightGCN_RLMRecCon --seeds=5
"""

from __future__ import annotations

import argparse
from typing import Any

from recbole_rlmrec.arguments import add_config_files, path, take_settings
from recbole_rlmrec.errors import SettingError

#: The first of the seeds, which is the default of a training.
_FIRST_SEED = 2020


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser."""
    take_settings(parser)
    parser.add_argument("--models", "-m", required=True, metavar="NAMES", help="class names, separated by commas")
    parser.add_argument("--dataset", "-d", required=True, metavar="NAME", help="such as ml-100k")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="trainings of each model (%(default)s)")
    parser.add_argument(
        "--seed",
        type=int,
        default=_FIRST_SEED,
        metavar="N",
        help="of the first; each next is larger by 1 (%(default)s)",
    )
    add_config_files(parser)
    parser.add_argument(
        "--output", type=path, metavar="DIR", help="folder of everything that is written (comparisons/DATASET)"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="trainings at a time (%(default)s)")
    parser.add_argument(
        "--tune", type=int, default=0, metavar="N", help="search each model's settings first, with N trials each"
    )
    parser.add_argument(
        "--add", action="append", default=[], type=path, metavar="FILE", help="a result made elsewhere; may be repeated"
    )
    parser.add_argument(
        "--ablate",
        default="",
        metavar="NAMES",
        help="repeat it without something: noise, withheld, withheld-users, withheld-items, shuffled, weight, "
        "temperature, encoders, pretrained:CHECKPOINT, separated by commas; levels are chosen as in noise:0.1+0.25",
    )
    parser.add_argument(
        "--quick", action="store_true", help="three epochs and two seeds, to see that all works: not a result"
    )


def run(arguments: argparse.Namespace) -> int:
    """Compare, print the table, and return 1 where a training failed.

    Raises:
        RLMRecError: see :func:`recbole_rlmrec.experiment.compare.compare`.
    """
    from recbole_rlmrec.experiment.ablate import ablate, require_possible
    from recbole_rlmrec.experiment.compare import STAMP, compare
    from recbole_rlmrec.experiment.report import write_report
    from recbole_rlmrec.experiment.report_text import write_text_report
    from recbole_rlmrec.experiment.table import notes_of, short_cells_of
    from recbole_rlmrec.extras import is_installed

    if arguments.seeds < 1:
        raise SettingError(f"--seeds={arguments.seeds}, expected 1 or more.")
    models = _names(arguments.models)
    ablations = _names(arguments.ablate)
    options: dict[str, Any] = {
        "config_files": arguments.config_files,
        "settings": arguments.settings,
        "jobs": arguments.jobs,
        "tune": arguments.tune,
        "quick": arguments.quick,
        "report": lambda text: print(text, flush=True),
    }
    given = {name: options[name] for name in ("config_files", "settings")}
    require_possible(ablations, models, arguments.dataset, **given)
    seeds = range(arguments.seed, arguments.seed + arguments.seeds)
    folder = arguments.output or f"comparisons/{arguments.dataset}"
    found = compare(models, arguments.dataset, seeds, folder, added=arguments.add, **options)
    lines = short_cells_of(found.rows)
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    print()
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print()
    for note in notes_of(found.rows):
        print(note)
    if arguments.quick:
        print(STAMP)
    print(f"written: {found.folder}/table.md, table.csv, table.tex, comparison.json")
    n_failed = found.failed
    if ablations:
        path, failed = ablate(ablations, found, models, arguments.dataset, seeds, **options)
        print(f"written: {path}")
        n_failed += failed
    print(f"written: {write_text_report(found.folder)}")
    if is_installed("plotly"):
        print(f"written: {write_report(found.folder)}")
    else:
        print("report.html, the same with charts, needs plotly: pip install 'recbole-rlmrec[report]'")
    return 1 if n_failed else 0


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]
