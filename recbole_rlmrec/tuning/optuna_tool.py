"""What Optuna proposes: draws, and guesses of its tree of Parzen estimators, which learn from pruned trials, too."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from recbole_rlmrec.tuning.journal import Trial
from recbole_rlmrec.tuning.proposal import STARTUP, Algorithm, Proposals
from recbole_rlmrec.tuning.space import Dimension, Interval, Options, Space


class OptunaProposals(Proposals):
    """Proposals by Optuna's samplers; arguments as of :class:`Proposals`.

    Each proposal asks a study in memory that was given the trials of the journal: a search that goes on needs nothing
    else, and no database.
    """

    def __init__(self, space: Space, algorithm: Algorithm, seed: int, *, is_bigger_better: bool = True) -> None:
        super().__init__(space, algorithm, seed, is_bigger_better=is_bigger_better)
        self._distributions = {name: _distribution(each) for name, each in space.dimensions.items()}
        # Of each study it would say that it was made.
        optuna.logging.set_verbosity(optuna.logging.WARNING)

    def _draw(self, seed: int) -> dict[str, Any]:
        return self._asked(optuna.samplers.RandomSampler(seed=seed), [])

    def _estimate(
        self, number: int, trials: Sequence[Trial], pending: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        with warnings.catch_warnings():
            # Before Optuna 5 it says of the last argument that it may change.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
        history = [self._ended(trial) for trial in sorted(trials, key=lambda trial: trial.number)]
        running = [self._frozen(TrialState.RUNNING, settings) for settings in pending]
        return self._asked(sampler, [*history, *running])

    def _asked(self, sampler: optuna.samplers.BaseSampler, history: Sequence[FrozenTrial]) -> dict[str, Any]:
        """Return the settings that a sampler chooses after some trials."""
        direction = StudyDirection.MAXIMIZE if self._is_bigger_better else StudyDirection.MINIMIZE
        study = optuna.create_study(sampler=sampler, direction=direction)
        study.add_trials(history)
        drawn = study.ask(self._distributions).params
        return {name: _value(each, drawn[name]) for name, each in self.space.dimensions.items()}

    def _ended(self, trial: Trial) -> FrozenTrial:
        """Return what Optuna is to know of a trial that ended."""
        if trial.score is not None:
            return self._frozen(TrialState.COMPLETE, trial.parameters, value=trial.score)
        if trial.pruned is not None:
            curve = {trial.pruned.steps: trial.pruned.score}
            return self._frozen(TrialState.PRUNED, trial.parameters, intermediate_values=curve)
        # Optuna would learn nothing from a failed one; one that was pruned before it had a score is the worst of all.
        return self._frozen(TrialState.PRUNED, trial.parameters)

    def _frozen(self, state: TrialState, settings: Mapping[str, Any], **found: Any) -> FrozenTrial:
        dimensions = self.space.dimensions
        drawn = {name: _drawn(dimensions[name], self._distributions[name], value) for name, value in settings.items()}
        return create_trial(state=state, params=drawn, distributions=self._distributions, **found)


def _distribution(dimension: Dimension) -> BaseDistribution:
    """Return what Optuna draws for a dimension: a number of an interval, or the position of a value."""
    if isinstance(dimension, Interval):
        low, high = dimension.samples
        # The exponential of a low number may be 0, which has no logarithm.
        return FloatDistribution(max(low, sys.float_info.min) if dimension.is_log else low, high, log=dimension.is_log)
    last = (dimension.count or 1) - 1
    return CategoricalDistribution(range(last + 1)) if isinstance(dimension, Options) else IntDistribution(0, last)


def _value(dimension: Dimension, drawn: Any) -> Any:
    """Return the value of a draw."""
    return float(drawn) if isinstance(dimension, Interval) else dimension.value_at(int(drawn))


def _drawn(dimension: Dimension, distribution: BaseDistribution, value: Any) -> Any:
    """Return the draw of a value."""
    if isinstance(distribution, FloatDistribution):
        return min(max(value, distribution.low), distribution.high)  # a record may be off by a rounding
    return dimension.position_of(value)
