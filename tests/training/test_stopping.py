"""When a training ends: RecBole's rule, patience in steps, and the plateau on which patience does not count."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recbole.utils import early_stopping

from recbole_rlmrec.run_settings import StoppingSettings
from recbole_rlmrec.training.stopping import EarlyStopping, Margin

AT, ABOVE, BELOW = Margin(0.1, 0.0, 0.01), Margin(0.1, 0.05, 0.01), Margin(0.1, -0.05, 0.01)


def stopping(steps_per_epoch: int = 10, **settings: Any) -> EarlyStopping:
    given = {"early_stopping": "popularity", "stopping_step": 2, "patience_steps": 0}
    given.update({"plateau_steps": 10_000, "plateau_epochs": 1000, **settings})
    return EarlyStopping(StoppingSettings(**given), steps_per_epoch)


def end_of(rule: EarlyStopping, scores: list[float], margins: list[Margin | None] | None = None) -> int | None:
    """Return the epoch, counted from 1, after which the training has to end."""
    for epoch, score in enumerate(scores, start=1):
        if rule.observe(epoch, score, margins[epoch - 1] if margins else None):
            return epoch
    return None


@pytest.mark.parametrize("patience", [0, 1, 3])
def test_recboles_rule_is_recboles(patience: int) -> None:
    for seed in range(50):
        scores = np.random.default_rng(seed).integers(0, 5, 40).tolist()
        best, misses, expected = -np.inf, 0, None
        for epoch, score in enumerate(scores, start=1):
            best, misses, stops, _ = early_stopping(score, best, misses, patience)
            if stops:
                expected = epoch
                break
        recbole = {"early_stopping": "recbole", "patience_steps": 10**9}
        assert end_of(stopping(stopping_step=patience, **recbole), scores, [AT] * 40) == expected
        # and without steps to wait for and a popularity ranking, both rules are one
        assert end_of(stopping(stopping_step=patience), scores) == expected


@pytest.mark.parametrize(("patience_steps", "end"), [(0, 4), (30, 4), (31, 5), (100, 11)])
def test_patience_is_a_number_of_validations_and_of_steps(patience_steps: int, end: int) -> None:
    assert end_of(stopping(patience_steps=patience_steps), [1.0] + [0.5] * 50) == end


def test_patience_does_not_count_on_the_plateau() -> None:
    scores = [1.0] + [0.5] * 50
    assert end_of(stopping(), scores, [AT] * 51) is None
    assert end_of(stopping(), scores, [AT] * 20 + [ABOVE] + [AT] * 30) == 21


@pytest.mark.parametrize("kind", ["popularity", "recbole"])
def test_where_a_training_stands_is_known_also_where_patience_counts_in_any_case(kind: str) -> None:
    rule = stopping(early_stopping=kind, plateau_epochs=4)
    stands = []
    for epoch, margin in enumerate((BELOW, AT, AT, AT, None), start=1):
        rule.observe(epoch, 0.1, margin)
        stands.append(rule.is_on_plateau)
    assert stands == [False, True, True, False, False]
    rule = stopping(early_stopping=kind)
    for epoch, margin in enumerate((AT, ABOVE, AT), start=1):
        rule.observe(epoch, 0.1, margin)
    assert not rule.is_on_plateau


def test_after_the_plateau_it_counts_for_good() -> None:
    scores = [0.1, 0.1, 0.2, *[0.1] * 20]
    rule = stopping()
    assert end_of(rule, scores, [AT, AT, ABOVE, *[AT] * 20]) == 6
    assert rule.has_left and not rule.waits


def test_below_the_popularity_ranking_it_counts_from_the_best() -> None:
    assert end_of(stopping(), [0.02, 0.03, *[0.01] * 20], [BELOW] * 22) == 5


@pytest.mark.parametrize(("bounds", "end"), [({"plateau_steps": 200}, 20), ({"plateau_epochs": 7}, 7)])
def test_the_plateau_is_waited_on_so_long_and_no_longer(bounds: dict[str, int], end: int) -> None:
    rule = stopping(**bounds)
    assert end_of(rule, [1.0] + [0.5] * 50, [AT] * 51) == end
    assert not rule.waits and not rule.has_left


def test_a_training_that_goes_on_ends_where_it_would_have() -> None:
    scores = np.random.default_rng(3).random(60).tolist()
    margins = [AT if epoch < 12 else ABOVE for epoch in range(60)]
    for settings in ({}, {"patience_steps": 80}, {"plateau_steps": 60}):
        whole = stopping(**settings)
        state, score, best_epoch = {}, -1.0, 0
        end = None
        for epoch, value in enumerate(scores, start=1):
            if whole.observe(epoch, value, margins[epoch - 1]):
                end = epoch
                break
            if value >= score:
                state, score, best_epoch = whole.state(), value, epoch
        again = stopping(**settings)
        again.restore(state, score)
        ends = (
            epoch
            for epoch in range(best_epoch + 1, len(scores) + 1)
            if again.observe(epoch, scores[epoch - 1], margins[epoch - 1])
        )
        assert next(ends, None) == end


@pytest.mark.parametrize(
    ("margin", "above", "below"),
    [
        (Margin(0.1, 0.021, 0.01), True, False),  # two standard errors
        (Margin(0.1, 0.019, 0.01), False, False),
        (Margin(0.1, 0.0019, 0.0), False, False),  # two percent, however many the users
        (Margin(0.1, 0.0021, 0.0), True, False),
        (Margin(0.1, -0.021, 0.01), False, True),
        (Margin(0.1, 0.0, float("inf")), False, False),
    ],
)
def test_noise(margin: Margin, above: bool, below: bool) -> None:
    assert (margin.is_above, margin.is_below) == (above, below)
