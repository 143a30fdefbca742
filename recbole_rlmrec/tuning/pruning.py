"""Which trials are ended early: those that lie behind the median of others at the same number of training steps."""

from __future__ import annotations

import statistics
from bisect import bisect_right
from collections.abc import Callable, Sequence

from recbole_rlmrec.tuning.journal import Point, Trial

#: So many finished trials are compared with before one is ended: the median of fewer says little.
WARM_UP = 4

#: And no trial is ended before so many validations, which order trials by little more than their learning rates.
LEAST_VALIDATIONS = 5


def best_at(curve: Sequence[Point], steps: int) -> float | None:
    """Return the best score that a trial had after a number of training steps; None before its first validation.

    Args:
        curve: its better and better scores; one that ended earlier keeps its last.
        steps: number of training steps.

    >>> curve = [Point(10, 0.1), Point(30, 0.2)]
    >>> [best_at(curve, steps) for steps in (9, 10, 29, 30, 1000)]
    [None, 0.1, 0.1, 0.2, 0.2]
    """
    reached = bisect_right(curve, steps, key=lambda point: point.steps)
    return curve[reached - 1].score if reached else None


def is_behind(steps: int, best: float, trials: Sequence[Trial], gain: Callable[[float | None], float]) -> bool:
    """Return whether a trial lies below the median of the finished ones, each at the same number of training steps.

    This is the rule of Optuna's ``MedianPruner``, but for trials that ended before so many steps, which count with
    their best score here: left out, as they are there, a trial that goes on for long would have none to be compared
    with.

    Args:
        steps: training steps of the trial so far.
        best: its best score so far.
        trials: those that ended; failed and pruned ones do not count.
        gain: of a score, so that more is better.
    """
    found = [best_at(trial.curve or (), steps) for trial in trials if trial.score is not None]
    reached = [gain(score) for score in found if score is not None]
    return len(reached) >= WARM_UP and gain(best) < statistics.median(reached)
