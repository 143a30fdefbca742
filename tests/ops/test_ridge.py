"""Ridge regression against a solver of the whole system, and what is said of rows that are held out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recbole_rlmrec.ops.ridge import fit_ridge


def slow(rows: np.ndarray, targets: np.ndarray, penalty: float, asked: np.ndarray) -> np.ndarray:
    """Least squares over the rows and, below them, one row for each weight; the constant has none."""
    n_weights = rows.shape[1]
    above = np.hstack([rows, np.ones((len(rows), 1))])
    below = np.hstack([np.sqrt(penalty) * np.eye(n_weights), np.zeros((n_weights, 1))])
    goal = np.vstack([targets, np.zeros((n_weights, targets.shape[1]))])
    found = np.linalg.lstsq(np.vstack([above, below]), goal, rcond=None)[0]
    return np.hstack([asked, np.ones((len(asked), 1))]) @ found


@pytest.mark.parametrize("n_rows", [12, 60])
def test_it_is_least_squares_with_a_penalty(n_rows: int) -> None:
    """With fewer rows than columns, too; each fold's rows by the others alone; the penalty is that of least error."""
    rng = np.random.default_rng(n_rows)
    rows, targets = rng.normal(size=(n_rows, 20)) + 3, rng.normal(size=(n_rows, 4)) - 2
    folds = list(torch.randperm(n_rows, generator=torch.Generator().manual_seed(1)).chunk(3))
    given = torch.from_numpy(rows), torch.from_numpy(targets)
    errors = {}
    for penalty in (0.5, 50.0):
        found = fit_ridge(*given, [penalty], folds)
        asked = rng.normal(size=(5, 20))
        np.testing.assert_allclose(found.map(torch.from_numpy(asked)), slow(rows, targets, penalty, asked), rtol=1e-6)
        for fold in folds:
            rest = np.setdiff1d(np.arange(n_rows), fold.numpy())
            expected = slow(rows[rest], targets[rest], penalty, rows[fold])
            np.testing.assert_allclose(found.held_out[fold], expected, rtol=1e-6)
        errors[penalty] = float(np.square(found.held_out.numpy() - targets).sum())
    assert fit_ridge(*given, list(errors), folds).penalty == min(errors, key=lambda penalty: errors[penalty])
