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
