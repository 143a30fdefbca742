"""Cells of comparisons that run in this process, which is quick."""

from __future__ import annotations

from typing import Any

import pytest
from trainings import small_settings
from worlds import World

from recbole_rlmrec.errors import RLMRecError
from recbole_rlmrec.experiment import compare as comparing
from recbole_rlmrec.experiment.cell import Cell, run_cell


@pytest.fixture
def cells_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run cells in this process; their names, in the order in which they ran."""
    names: list[str] = []

    def run_here(cell: Cell, jobs: int, running: Any) -> str | None:
        names.append(cell.name)
        try:
            run_cell(cell)
        except RLMRecError as error:
            return str(error)
        return None

    monkeypatch.setattr(comparing, "_run", run_here)
    return names


@pytest.fixture
def small(world: World) -> dict[str, Any]:
    """Settings of every training."""
    return small_settings(world)
