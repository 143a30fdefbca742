"""What the tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from worlds import World, fitting, write_dataset

__all__ = ["World", "batch_of", "built", "fitting", "write_dataset"]

#: A package of its own, which tests install: nothing in it is a test.
collect_ignore = ["outside"]

TESTS = Path(__file__).parent
#: What ``-m quick`` runs beside the examples in docstrings: folders and files that take seconds and cover most rooms.
QUICK = (
    "check",
    "data",
    "encoder/test_lsa.py",
    "encoder/test_sentence_transformer.py",
    "encoder/test_text_space.py",
    "experiment/test_case_study.py",
    "experiment/test_genres.py",
    "experiment/test_side_by_side.py",
    "model/test_golden.py",
    "model/test_layers.py",
    "model/test_registry.py",
    "model/test_semantic_table.py",
    "ops",
    "profile/test_answer.py",
    "profile/test_budget.py",
    "profile/test_cost.py",
    "profile/test_prompt.py",
    "profile/test_record.py",
    "profile/test_template.py",
    "sources",
    "test_architecture.py",
    "test_config.py",
    "test_exports.py",
    "test_readme.py",
    "test_parts.py",
    "test_settings.py",
    "test_suite.py",
    "text",
    "training/test_popularity.py",
    "training/test_stopping.py",
    "tuning/test_recorded.py",
    "tuning/test_space.py",
)
#: Files and tests in these that are not quick: most read the embedded dataset, start processes, or check gradients
#: by differences.
SLOW = frozenset(
    {
        "check/test_report.py::test_movielens_end_to_end",
        "data/test_dataset.py::test_own_embeddings_go_before_the_embedded_ones",
        "data/test_dataset.py::test_own_embeddings_of_another_dimension",
        "data/test_frozen.py::test_the_embedded_split_is_frozen_and_the_remedy_makes_another",
        "data/test_loader.py",
        "data/test_ml100k_files.py",
        "ops/test_attention.py::test_gradcheck",
        "ops/test_info_nce.py::test_gradcheck_with_weights",
        "ops/test_info_nce.py::test_memory_stays_far_below_the_matrix",
        "test_exports.py::test_importing_the_package_imports_nothing_else",
        "test_readme.py::test_listings_can_be_run",
        "test_settings.py::test_settings_of_other_models_are_known_before_any_model_is_built",
        "test_suite.py::test_modules_need_no_optional_package",
        "text/test_corpus.py::test_movielens_has_its_texts",
        "text/test_corpus.py::test_movielens_is_split_as_the_training_is",
        "text/test_corpus.py::test_movielens_ratings_are_those_of_the_file",
    }
)


def is_quick(path: Path, test: str = "") -> bool:
    """Return whether ``-m quick`` runs a file, or a test in it; outside of ``tests/`` there are examples only."""
    if TESTS not in path.parents:
        return True
    file = path.relative_to(TESTS).as_posix()
    is_chosen = any(file == chosen or file.startswith(f"{chosen}/") for chosen in QUICK)
    return is_chosen and SLOW.isdisjoint({file, f"{file}::{test}"})


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m quick``, do not even import the other files, which takes longer than the quick tests of some rooms."""
    is_test_file = collection_path.suffix == ".py" and collection_path.name.startswith("test_")
    return True if is_test_file and config.option.markexpr == "quick" and not is_quick(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_quick(item.path, getattr(item, "originalname", "")):
            item.add_marker(pytest.mark.quick)


if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run side by side, and so do the processes that they start: one thread each, or they thrash.
    torch.set_num_threads(1)
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.chdir(tmp_path)
    return World(tmp_path / "dataset")


@pytest.fixture
def make_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    monkeypatch.chdir(tmp_path)
    return lambda **sizes: World(tmp_path / "dataset", **sizes)


@pytest.fixture
def cells_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run the cells of comparisons in this process, which is quick; their names, in the order in which they ran."""
    from recbole_rlmrec.errors import RLMRecError
    from recbole_rlmrec.experiment import running
    from recbole_rlmrec.experiment.cell import run_cell

    names: list[str] = []

    def run_here(cell: Any, jobs: int, running: Any) -> str | None:
        names.append(cell.name)
        try:
            run_cell(cell)
        except RLMRecError as error:
            return str(error)
        return None

    monkeypatch.setattr(running, "_run", run_here)
    return names


@pytest.fixture
def small(world: World) -> dict[str, Any]:
    """Settings of the trainings of a comparison."""
    from trainings import small_settings

    return small_settings(world)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Results of different numbers of threads differ in their last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch_of(users: Any, positives: Any, negatives: Any) -> Interaction:
    columns = {"user_id": users, "item_id": positives, "neg_item_id": negatives}
    return Interaction({name: torch.as_tensor(np.asarray(ids)).long() for name, ids in columns.items()})


def built(world: World, name: str, **settings: Any) -> tuple[Any, Any]:
    """Return a model in training mode and its training dataset, with embeddings large enough for terms to differ."""
    model, train_data = world.model(name, **settings)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    model.train()
    return model, train_data._dataset
