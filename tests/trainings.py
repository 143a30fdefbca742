"""Short trainings on the small datasets of ``worlds``, for the tests of several rooms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from worlds import World, fitting

from recbole_rlmrec.config import RLMRecConfig
from recbole_rlmrec.quick_start import run

QUICK = {
    "benchmark_filename": ["train", "valid", "test"],
    "embedding_size": 8,
    "epochs": 2,
    "show_progress": False,
    "base_first": False,
}


def small_settings(world: World, **more: Any) -> dict[str, Any]:
    """Settings of a short training with lists of five, as a command line gives them."""
    given = {**QUICK, **fitting("LightGCN"), "data_path": str(world.root), "topk": [5], "valid_metric": "Recall@5"}
    return {**given, **more}


def train(world: World, model: Any, watch: Any = None, **settings: Any) -> Any:
    given = {"data_path": str(world.root), **QUICK, **fitting(model), **settings}
    return run(model, world.name, config_dict=given, watch=watch)


def all_scores(model: Any, config: RLMRecConfig) -> np.ndarray:
    """Scores of all items for each user but `[PAD]`."""
    with torch.no_grad():
        users = Interaction({config["USER_ID_FIELD"]: torch.arange(1, model.n_users)})
        return model.full_sort_predict(users).view(model.n_users - 1, -1).numpy()
