"""Which of RecBole's general recommenders take part in RLMRec: one training step of each, and a table of them.

    python benchmarks/supported_models.py --output supported-models.md

A model counts as supported if a step with alignment on generated data gives a finite loss and moves its weights. The
reasons of those that are not are those that training them is refused with.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import workload
from recbole.utils import init_seed

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.data.preparation import create_dataset, data_preparation
from recbole_rlmrec.errors import RLMRecError, SettingError, TrainingError
from recbole_rlmrec.files import atomic_path
from recbole_rlmrec.model.backbone.recbole_models import RECBOLE_MODELS
from recbole_rlmrec.model.registry import ALIGNMENTS, BACKBONES, endings_of, get_model
from recbole_rlmrec.training.machine import machine_fault
from recbole_rlmrec.training.trainer import trainer_class

DATASET = "generated"
N_USERS, N_ITEMS, N_INTERACTIONS, SEMANTIC_DIM = 60, 50, 500, 16

#: What a default would make too large for the data, or would leave nothing to learn in one step.
SETTINGS: dict[str, dict[str, Any]] = {"NCL": {"num_clusters": 3}}

_OWN = "a backbone of this package"


def write_data(folder: Path) -> None:
    """Write a small dataset with random embeddings."""
    users, items = workload.zipf_interactions(N_USERS, N_ITEMS, N_INTERACTIONS)
    first, second = N_INTERACTIONS * 8 // 10, N_INTERACTIONS * 9 // 10
    for part, rows in zip(workload.PARTS, (slice(first), slice(first, second), slice(second, None))):
        workload.write_pairs(folder / f"{DATASET}.{part}.inter", users[rows], items[rows])
    workload.write_random_embeddings(folder, DATASET, SEMANTIC_DIM)


def train_one_step(name: str, data_path: Path) -> None:
    """Train a step as a run would.

    Raises:
        RLMRecError: the model is refused, or the step was none.
    """
    settings = {"data_path": str(data_path), "show_progress": False, "state": "ERROR", "use_gpu": False, "epochs": 1}
    settings.update(train_batch_size=128, **SETTINGS.get(name.partition("_")[0], {}))
    config = RLMRecConfig(name, DATASET, config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    train_data, _, _ = data_preparation(config, create_dataset(config))
    model = config.model_class(config, train_data._dataset)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = trainer_class(config)(config, model)
    try:
        trainer.fit(workload.FirstSteps(train_data, 1), saved=False, verbose=False)
    finally:
        trainer.tensorboard.close()
    if not all(torch.isfinite(parameter).all() for parameter in model.parameters()):
        raise TrainingError(f"{name}: a weight is not finite after a step.")
    moved = [not torch.equal(old, new) for old, new in zip(before, model.parameters())]
    # The first parameters are the model's own, the last the projector's.
    if not moved[0] or not moved[-1]:
        raise TrainingError(f"{name}: a step left the weights as they were.")


def tried(name: str, train: Callable[[str], None]) -> str | None:
    """Return None if a model trains, else what it says instead."""
    try:
        train(name)
    except RLMRecError as error:
        if machine_fault(error) is not None:
            raise  # a full disk says nothing of the model
        return str(error)
    return None


def rows(models: Sequence[str], train: Callable[[str], None]) -> tuple[list[str], list[str]]:
    """Try every model.

    Args:
        models: names of backbones, ours or RecBole's.
        train: trains a step of a model by name.

    Returns:
        The table's lines, and what went otherwise than the registry says.
    """
    lines, surprises = [], []
    for backbone in models:
        support = RECBOLE_MODELS.get(backbone)
        expected = endings_of(backbone)
        cells = []
        for ending in ALIGNMENTS:
            refusal = tried(backbone + ending, train)
            cells.append("no" if refusal else "yes")
            if (refusal is None) != (ending in expected):
                surprises.append(f"{backbone}{ending}: {refusal or 'trained, but is said not to'}")
        note = _OWN if support is None else support.remarks
        lines.append(f"| `{backbone}` | {' | '.join(cells)} | {note} |")
    return lines, surprises


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; its status is 1 if a model behaves otherwise than the registry says."""
    parser = argparse.ArgumentParser(description="Which models RLMRec can align.")
    parser.add_argument("--models", nargs="+", help="backbones to try; by default all of RecBole's and ours")
    parser.add_argument("--output", type=Path, help="Markdown file to write the table to")
    chosen = parser.parse_args(arguments)
    output = chosen.output.resolve() if chosen.output else None
    own = list(BACKBONES)
    models = chosen.models or [*own, *sorted(RECBOLE_MODELS, key=lambda name: -len(endings_of(name)))]
    for name in models:
        if name not in own and name not in RECBOLE_MODELS:
            get_model(name)
            raise SettingError(f"{name} is no general recommender.")
    with workload.scratch_folder() as root:
        write_data(root / DATASET)
        lines, surprises = rows(models, lambda name: train_one_step(name, root))
    table = "\n".join(["| model | Con | Gen | note |", "|---|---|---|---|", *lines])
    print(table)
    if output is not None:
        with atomic_path(output) as temporary:
            temporary.write_text(table + "\n", encoding="utf-8")
    for surprise in surprises:
        print(surprise, file=sys.stderr)
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main())
