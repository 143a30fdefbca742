"""List the models: each backbone, alone and with each alignment, and what it is.

A line holds the names to give to --model; '-' stands where a backbone cannot have an alignment. RecBole's other models
run as they are.

Example:
    recbole-rlmrec models
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to a parser: there are none."""


def run(arguments: argparse.Namespace) -> int:
    """Print the list and return the exit status."""
    from recbole_rlmrec.model import registry
    from recbole_rlmrec.model.backbone.recbole_models import RECBOLE_MODELS

    ours, endings = registry.names(), tuple(registry.ALIGNMENTS)
    aligned = {backbone + ending for backbone in registry.BACKBONES for ending in endings}
    about = {name: _first_line(registry.get_model(name)) for name in ours if name not in aligned}
    theirs = {name: f"RecBole's; it {support.note}" for name, support in RECBOLE_MODELS.items() if name not in about}
    rows = [["alone", *(f"with {ending}" for ending in endings), "what it is"]]
    for name, line in {**about, **theirs}.items():
        possible = registry.endings_of(name)
        rows.append([name, *(name + ending if ending in possible else "-" for ending in endings), line])
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    return 0


def _first_line(model: type) -> str:
    """Return what a class says of itself, in a line."""
    return (model.__doc__ or "").strip().partition("\n")[0]
