"""Which settings a search tries next: the same ones, however often it is stopped, and whichever tool runs it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from recbole_rlmrec.tuning.journal import Trial
from recbole_rlmrec.tuning.space import Space, key_of

Algorithm = Literal["exhaustive", "random", "bayes", "tpe"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)

#: Random trials before the first guess. hyperopt's 20, and Optuna's 10, would leave a search of 10 trials at random.
STARTUP = 5

#: How often an algorithm may propose what was tried before chance, and then a list of what is left, takes its place.
_ATTEMPTS = 25


class Proposals:
    """Proposes settings that were not tried before, as long as there are any.

    The proposal for a trial depends on the seed, the trial's number and the trials before it, and on nothing else.

    Args:
        space: where to search.
        algorithm: ``exhaustive`` goes through the space in its order, ``random`` draws from it, ``bayes`` and ``tpe``
            are the tree of Parzen estimators: here hyperopt's.
        seed: of the draws.
        is_bigger_better: of the score.
    """

    def __init__(self, space: Space, algorithm: Algorithm, seed: int, *, is_bigger_better: bool = True) -> None:
        self.space = space
        self._algorithm = algorithm
        self._seed = seed
        self._is_bigger_better = is_bigger_better

    def propose(
        self, number: int, trials: Sequence[Trial], pending: Sequence[dict[str, Any]] = ()
    ) -> dict[str, Any] | None:
        """Return the settings of a trial.

        Args:
            number: of the trial.
            trials: those that ended.
            pending: settings of those that are running.

        Returns:
            One value per dimension; None when everything was tried.
        """
        taken = {trial.key for trial in trials} | {key_of(settings) for settings in pending}
        size = self.space.size
        if size is not None and len(taken) >= size:
            return None
        if self._algorithm == "exhaustive":
            return next(settings for settings in self.space.grid() if key_of(settings) not in taken)
        attempts: list[Callable[[int], dict[str, Any]]] = [self._draw] * _ATTEMPTS
        if self._algorithm in ("bayes", "tpe"):
            attempts = [lambda seed: self._estimate(number, trials, pending, seed)] * _ATTEMPTS + attempts
        generator = np.random.default_rng([self._seed, number])
        for attempt in attempts:
            settings = attempt(int(generator.integers(2**31 - 1)))
            if key_of(settings) not in taken:
                return settings
        if size is None:
            return None
        # One after the other: few are left where chance finds none, and many more need not be made.
        left = (settings for settings in self.space.grid() if key_of(settings) not in taken)
        return next(itertools.islice(left, int(generator.integers(size - len(taken))), None))

    def _draw(self, seed: int) -> dict[str, Any]:
        """Return settings by chance."""
        from hyperopt import rand

        return self._suggested(rand.suggest, 0, [], seed)

    def _estimate(
        self, number: int, trials: Sequence[Trial], pending: Sequence[Mapping[str, Any]], seed: int
    ) -> dict[str, Any]:
        """Return settings that are likely to be good.

        Args:
            number: of the trial.
            trials: those that ended.
            pending: settings of those that are running, of which hyperopt takes no note.
            seed: of the draws.
        """
        from hyperopt import tpe

        def suggest(*arguments: Any) -> Any:
            return tpe.suggest(*arguments, n_startup_jobs=STARTUP, verbose=False)

        return self._suggested(suggest, number, trials, seed)

    def _suggested(self, suggest: Any, number: int, trials: Sequence[Trial], seed: int) -> dict[str, Any]:
        """Ask one of hyperopt's algorithms, giving it what came of the trials before."""
        from hyperopt import JOB_STATE_DONE, STATUS_FAIL, STATUS_OK, Domain, Trials

        domain = Domain(dict, self.space.expressions())
        history = Trials()
        for trial in sorted(trials, key=lambda trial: trial.number):
            result: dict[str, Any] = {"status": STATUS_FAIL}
            if trial.score is not None:
                result = {"status": STATUS_OK, "loss": -trial.score if self._is_bigger_better else trial.score}
            doc = trial_doc(history, domain, self.space, trial.number, trial.parameters)
            history.insert_trial_doc({**doc, "state": JOB_STATE_DONE, "result": result})
        history.refresh()
        [doc] = suggest([number], domain, history, seed)
        return self.space.decode({name: values[0] for name, values in doc["misc"]["vals"].items()})


def trial_doc(history: Any, domain: Any, space: Space, number: int, settings: dict[str, Any]) -> dict[str, Any]:
    """Return hyperopt's description of a trial that is to be run.

    Args:
        history: hyperopt's ``Trials``.
        domain: hyperopt's ``Domain``.
        space: the search space.
        number: of the trial.
        settings: of the trial.
    """
    draws = space.encode(settings)
    misc = {
        "tid": number,
        "cmd": domain.cmd,
        "workdir": domain.workdir,
        "idxs": {name: [number] for name in draws},
        "vals": {name: [draw] for name, draw in draws.items()},
    }
    [doc] = history.new_trial_docs([number], [None], [domain.new_result()], [misc])
    return dict(doc)
